package evidence

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store"
)

// logRun is one try at the logs of one pod.
type logRun struct {
	attempt

	source      LogSource
	sink        Sink
	incidentUID string
	item        v1alpha1.EvidenceItem
	maxBytes    int64
	pod         *podLogs

	mu sync.Mutex
	// lost is why the pod has no more logs; unstored what the store failed with; unknown what else was in the way.
	lost, unstored, unknown error
}

// do reads what has not been read yet, and settles the item when nothing more is to be had or its time is over.
func (r *logRun) do(ctx context.Context) Result {
	if pod, err := r.look(ctx); err != nil {
		r.failed(err)
	} else {
		r.pod.merge(pod)
		r.readAll(ctx)
	}
	if ctx.Err() != nil {
		return Result{Err: fmt.Errorf("reading logs: %w", ctx.Err())}
	}
	if r.unstored != nil {
		return Result{Err: r.unstored}
	}
	if err := r.unfinished(); err != nil && !r.over() {
		return Result{Err: err}
	}
	return r.settle(ctx)
}

// look returns the pod if it is the one that the item is about.
func (r *logRun) look(ctx context.Context) (*corev1.Pod, error) {
	return samePod(ctx, r.source, r.item.Subject)
}

// failed notes why a log could not be had, where the reason is not the log's own.
func (r *logRun) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var unstored *storeError
	switch {
	case errors.Is(err, errGone), errors.Is(err, errReplaced):
		r.lost = err
	case errors.As(err, &unstored):
		r.unstored = err
	default:
		r.unknown = err
	}
}

func (r *logRun) gone() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// readAll reads the logs, a few at a time.
func (r *logRun) readAll(ctx context.Context) {
	until := r.until()
	var all sync.WaitGroup
	slots := make(chan struct{}, logsAtOnce)
	for _, log := range r.pod.logs {
		if log.done {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if err := panicked(ctx, recover()); err != nil {
					r.failed(err)
				}
			}()
			if r.gone() == nil && ctx.Err() == nil && time.Now().Before(until) {
				r.read(ctx, log, capture{
					source: r.source, sink: r.sink, incidentUID: r.incidentUID, namespace: r.item.Subject.Namespace, pod: r.item.Subject.Name,
					opts:     corev1.PodLogOptions{Container: log.Container, Previous: log.Instance == instancePrevious, Timestamps: true},
					maxBytes: r.maxBytes, until: until,
				})
			}
		})
	}
	all.Wait()
}

// read reads one log. GetLogs goes by the pod's name, so the pod is looked at before and after.
func (r *logRun) read(ctx context.Context, log *podLog, c capture) {
	if _, err := r.look(ctx); err != nil {
		r.failed(err)
		return
	}
	var meanwhile string
	c.confirm = func(ctx context.Context) error {
		pod, err := r.look(ctx)
		switch {
		case errors.Is(err, errGone):
			r.failed(err)
			meanwhile = "the pod was deleted while it was read"
			return nil
		case err == nil && log.ContainerID == "" && log.Instance == instanceCurrent:
			log.ContainerID, log.ImageID = identify(pod, log) // it has started meanwhile
		case err == nil && log.Instance == instanceCurrent && !hasInstance(pod, log):
			meanwhile = "the container was restarted while it was read"
		}
		return err
	}
	got, err := c.read(ctx)
	switch {
	case err == nil:
		log.keep(got, meanwhile)
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err):
		// The kubelet's answers to who asks for what it does not have; the server's when the pod is gone.
		if _, gone := r.look(ctx); gone != nil {
			r.failed(gone)
			return
		}
		log.refuse(quote(err.Error()))
	case errors.Is(err, errReplaced):
		log.Problem = "the pod was replaced by a namesake while it was read; what had come was not kept"
		r.failed(err)
	default:
		var unstored *storeError
		if !errors.As(err, &unstored) {
			log.Problem = quote(err.Error())
		}
		r.failed(err)
	}
}

// hasInstance reports whether the instance that was to be read is still the container's current one.
func hasInstance(pod *corev1.Pod, log *podLog) bool {
	id, _ := identify(pod, log)
	return id == log.ContainerID
}

// identify returns what the current instance of the container is.
func identify(pod *corev1.Pod, log *podLog) (containerID, imageID string) {
	for _, now := range instances(pod) {
		if now.Container == log.Container && now.Instance == instanceCurrent {
			return now.ContainerID, now.ImageID
		}
	}
	return "", ""
}

// keep takes what has come of a log, unless more of it came before. A log that breaks off is tried again, a few times, because each try takes room in the store.
func (l *podLog) keep(got captured, meanwhile string) {
	if got.Answer != "" {
		l.refuse(got.Answer)
		return
	}
	if got.Incomplete {
		l.breaks++
	}
	l.done = !got.Incomplete || l.breaks >= maxBreaks
	if got.Incomplete && got.Object.PlainSize < l.Bytes {
		return
	}
	l.Bytes, l.Lines, l.Key, l.Digest, l.StoredDigest = got.Object.PlainSize, got.Lines, got.Object.Key, got.Object.PlainDigest, ""
	if got.Object.Encrypted {
		l.StoredDigest = got.Object.Digest
	}
	l.Truncated, l.Incomplete, l.Absent, l.Problem = got.Truncated, got.Incomplete, false, got.Problem
	if meanwhile != "" {
		l.Problem = strings.TrimPrefix(l.Problem+"; "+meanwhile, "; ")
	}
}

// refuse takes the kubelet's word that it has no such log. That is nothing to miss where the container has never started.
func (l *podLog) refuse(why string) {
	l.done = true
	if l.Key == "" {
		l.Problem, l.Absent = why, l.Instance == instanceCurrent && l.ContainerID == ""
	}
}

// unfinished says what is still to be had, or nil.
func (r *logRun) unfinished() error {
	if r.lost != nil {
		return nil
	}
	if r.unknown != nil {
		return r.unknown
	}
	for _, log := range r.pod.logs {
		if !log.done {
			return fmt.Errorf("the log of container %s (%s): %s", log.Container, log.Instance, log.Problem)
		}
	}
	return nil
}

// settle stores the index and says what is in it.
func (r *logRun) settle(ctx context.Context) Result {
	item, index := r.item, r.index()
	item.TakenAt = index.TakenAt
	item.Message = shorten(index.summary(), maxMessage)
	if !index.worthKeeping() {
		return Result{Item: gap(item, cmp.Or(item.Message, "the pod has no containers"))}
	}
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return Result{Err: fmt.Errorf("encoding the index of logs: %w", err)}
	}
	var object store.Object
	if object, err = r.sink.PutItem(ctx, r.incidentUID, bytes.NewReader(raw)); err != nil {
		return Result{Err: &storeError{err: err}}
	}
	item = Stored(item, object)
	item.State = v1alpha1.EvidenceCollected
	return Result{Item: item}
}

func (r *logRun) index() *Index {
	index := &Index{Pod: r.item.Subject, Node: r.pod.node, TakenAt: metav1.NewTime(r.time()), Logs: []IndexedLog{}}
	switch {
	case r.lost != nil:
		index.Note = r.lost.Error()
	case r.unknown != nil:
		index.Note = quote(r.unknown.Error())
	}
	for _, log := range r.pod.logs {
		entry := log.IndexedLog
		if !log.done && entry.Key == "" && entry.Problem == "" {
			entry.Problem = "it was not read before the deadline"
			if r.lost != nil {
				entry.Problem = r.lost.Error()
			}
		}
		index.Logs = append(index.Logs, entry)
	}
	return index
}

// worthKeeping reports whether there is a log, or the certainty that there is none.
func (i *Index) worthKeeping() bool {
	absent := 0
	for _, log := range i.Logs {
		switch {
		case log.Key != "", log.Problem == "":
			return true
		case log.Absent:
			absent++
		}
	}
	return absent > 0 && absent == len(i.Logs)
}

// summary says what the logs lack, in one line; nothing if they lack nothing.
func (i *Index) summary() string {
	var truncated, incomplete, unread, absent, remarks []string
	for _, log := range i.Logs {
		name := log.Container
		if log.Instance != instanceCurrent {
			name += " (" + log.Instance + ")"
		}
		switch {
		case log.Absent:
			absent = append(absent, name)
		case log.Key == "" && log.Problem != "":
			unread = append(unread, name+": "+log.Problem)
		case log.Incomplete:
			incomplete = append(incomplete, name+": "+log.Problem)
		case log.Truncated:
			truncated = append(truncated, name)
		case log.Problem != "":
			remarks = append(remarks, name+": "+log.Problem)
		}
	}
	var out []string
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"could not be read", unread}, {"incomplete", incomplete}, {"cut at the length that the ContainmentPolicy sets", truncated}, {"remarks", remarks}, {"never started", absent},
	} {
		if len(part.names) > 0 {
			out = append(out, fmt.Sprintf("%s: %s", part.what, listed(part.names)))
		}
	}
	if i.Note != "" {
		out = append(out, i.Note)
	}
	return strings.Join(out, "; ")
}

// listed names the first few.
func listed(names []string) string {
	const most = 4
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
