package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store"
)

const (
	// logPause is between two rounds of asking for what could not be had.
	logPause = 2 * time.Second
	// lookLimit is how long one look at the pod may take.
	lookLimit = 30 * time.Second
)

// logRun is one try at the logs of one pod. It reads one after the other into one zip.
type logRun struct {
	attempt

	source      LogSource
	sink        Sink
	incidentUID string
	item        v1alpha1.EvidenceItem
	maxBytes    int64

	node    string
	logs    []*podLog
	archive logArchive
	// lost is why the pod has no more logs; unknown why it could not be looked at the last time.
	lost, unknown error
}

// do reads the logs, and settles the item unless nothing could be had and there is time to ask again. Once something was had, it waits for the rest itself: what is in the zip may not be there to be read a second time.
func (r *logRun) do(ctx context.Context) Result {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	r.node, r.logs, r.lost, r.unknown = "", nil, nil, nil
	r.archive = logArchive{failed: stop, put: func(log io.Reader) (store.Object, error) { return r.sink.PutItem(ctx, r.incidentUID, log) }}
	// The zip is abandoned in every case in which it was not finished, so that the store does not wait for more of it.
	defer func() { _ = r.archive.abandon() }()
	r.readAll(reading)
	switch {
	case ctx.Err() != nil:
		return Result{Err: fmt.Errorf("reading logs: %w", ctx.Err())}
	case reading.Err() != nil:
		return Result{Err: &storeError{err: r.archive.abandon()}}
	}
	r.distrust("it could not be made sure that the pod was not replaced by a namesake while it was read")
	index := r.index()
	if err := r.unfinished(); err != nil && !r.over() && (!r.archive.begun() || !index.worthKeeping()) {
		return Result{Err: err}
	}
	return r.settle(ctx, index)
}

// readAll reads the logs. The pod is looked at before and after each: GetLogs goes by its name. What could not be had is asked for again in the next round.
func (r *logRun) readAll(ctx context.Context) {
	until := r.until()
	for round := 0; ; {
		pod, err := r.look(ctx)
		switch {
		case r.lost != nil:
			return
		case err == nil:
			r.merge(pod)
			log, remaining := r.turn(round)
			if remaining == 0 || ctx.Err() != nil || !time.Now().Before(until) {
				return
			}
			if log != nil {
				log.next = round + 1
				r.read(ctx, log, time.Now().Add(time.Until(until)/time.Duration(remaining)))
				continue
			}
			round++
		}
		if !r.archive.begun() || !r.pause(ctx, until) {
			return // nothing is lost by trying the whole again, in another pass
		}
	}
}

// pause waits before something is asked for again, and reports whether there is time for that. A log of which only the last look is missing may wait a little longer.
func (r *logRun) pause(ctx context.Context, until time.Time) bool {
	for _, log := range r.logs {
		if log.unconfirmed {
			until = until.Add(lateTurn)
			break
		}
	}
	if !time.Now().Add(logPause).Before(until) {
		return false
	}
	timer := time.NewTimer(logPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// look returns the pod if it is the one that the item is about, and notes what that means for the logs that were read since the last look.
func (r *logRun) look(ctx context.Context) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	pod, err := samePod(ctx, r.source, r.item.Subject)
	r.unknown = nil
	switch {
	case err == nil:
		r.confirm(pod)
	case errors.Is(err, errGone):
		r.lost = err
		for _, log := range r.logs {
			if log.unconfirmed {
				log.unconfirmed = false
				log.remark("the pod was deleted while it was read")
			}
		}
	case errors.Is(err, errReplaced):
		r.lost = err
		r.distrust("the pod was replaced by a namesake while it was read")
	default:
		r.unknown = err
	}
	return pod, err
}

// confirm takes the logs that were read since the last look for those of the pod: no UID comes back once its name has another.
func (r *logRun) confirm(pod *corev1.Pod) {
	for _, log := range r.logs {
		if !log.unconfirmed {
			continue
		}
		log.unconfirmed = false
		id, image := identify(pod, log)
		switch {
		case log.ContainerID == "" && log.Instance == instanceCurrent:
			log.ContainerID, log.ImageID = id, image // it has started meanwhile
		case log.ContainerID != "" && log.ContainerID != id:
			log.remark("the container was restarted while it was read")
		}
	}
}

// distrust marks the logs that may be of another pod, wholly or from somewhere on. They cannot be taken back out of a zip that is on its way into the store.
func (r *logRun) distrust(why string) {
	for _, log := range r.logs {
		if log.unconfirmed {
			log.unconfirmed, log.Untrusted = false, true
			log.remark(why)
		}
	}
}

// merge takes over what instances the pod has now. Each log has one place, by container and instance: one that was read stays, even if the container was restarted since.
func (r *logRun) merge(pod *corev1.Pod) {
	r.node = pod.Spec.NodeName
	listed := instances(pod)
	var read []*podLog
	for _, log := range r.logs {
		if log.done && !log.Absent {
			read = append(read, log)
		}
	}
	for _, now := range listed {
		known := r.find(now)
		switch {
		case known == nil && !containsLog(read, now):
			r.logs = append(r.logs, now)
		case known != nil && (!known.done || known.Absent) && known.ContainerID != now.ContainerID:
			known.relist(now, read, listed)
		}
	}
}

func (r *logRun) find(now *podLog) *podLog {
	for _, log := range r.logs {
		if log.Container == now.Container && log.Instance == now.Instance {
			return log
		}
	}
	return nil
}

// turn returns the log whose turn it is in the round, nil if there is none, and how many are still to be had.
func (r *logRun) turn(round int) (first *podLog, remaining int) {
	for _, log := range r.logs {
		if log.done {
			continue
		}
		remaining++
		if first == nil && log.next <= round {
			first = log
		}
	}
	return first, remaining
}

// read reads one log into the zip, until its share of the time is used up.
func (r *logRun) read(ctx context.Context, log *podLog, until time.Time) {
	name, err := log.memberName()
	if err != nil {
		log.done, log.Problem = true, quote(err.Error())
		return
	}
	kept := newTally()
	defer func() {
		if err := panicked(ctx, recover()); err != nil {
			log.took(captured{Incomplete: true, Problem: quote(err.Error())})
		}
		if log.Member != "" {
			kept.note(log)
		}
	}()
	c := capture{
		source: r.source, namespace: r.item.Subject.Namespace, pod: r.item.Subject.Name,
		opts:     corev1.PodLogOptions{Container: log.Container, Previous: log.Instance == instancePrevious, Timestamps: true},
		maxBytes: r.maxBytes, until: until,
	}
	got, err := c.copy(ctx, func(text io.Reader) error {
		member, err := r.archive.create(ctx, name, r.time())
		if err != nil {
			return err
		}
		log.Member = name
		_, err = io.Copy(io.MultiWriter(member, kept), text)
		return err
	})
	switch {
	case err == nil:
		log.took(got)
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err):
		// The kubelet's answers to who asks for what it does not have; the server's when the pod is gone.
		if _, other := r.look(ctx); other == nil {
			log.refuse(quote(err.Error()))
		}
	case ctx.Err() == nil && !time.Now().Before(until):
		log.took(captured{Incomplete: true, Problem: errDeadline.Error()})
	default:
		log.Problem = quote(err.Error()) // to be asked for again; if it is the store that has failed, with all the others
	}
}

// unfinished says what is still to be had, or nil.
func (r *logRun) unfinished() error {
	if r.lost != nil {
		return nil //nolint:nilerr // that the pod is lost is what was found out, and nothing more is to be had
	}
	if r.unknown != nil {
		return r.unknown
	}
	for _, log := range r.logs {
		if !log.done {
			return fmt.Errorf("the log of container %s (%s): %s", log.Container, log.Instance, log.Problem)
		}
	}
	return nil
}

// settle sees to it that the store has the zip, and says what is in it.
func (r *logRun) settle(ctx context.Context, index *Index) Result {
	item := r.item
	item.TakenAt = index.TakenAt
	item.Message = shorten(index.summary(), maxMessage)
	if !index.worthKeeping() {
		return Result{Item: gap(item, cmp.Or(item.Message, "the pod has no containers"))}
	}
	object, err := r.archive.finish(ctx, index)
	if err != nil {
		return Result{Err: &storeError{err: err}}
	}
	item = Stored(item, object)
	item.State = v1alpha1.EvidenceCollected
	if index.partial() {
		item.State = v1alpha1.EvidencePartial
	}
	return Result{Item: item}
}

func (r *logRun) index() *Index {
	index := &Index{Pod: r.item.Subject, Node: r.node, TakenAt: metav1.NewTime(r.time()), Logs: []IndexedLog{}}
	switch {
	case r.lost != nil:
		index.Note = r.lost.Error()
	case r.unknown != nil:
		index.Note = quote(r.unknown.Error())
	}
	for _, log := range r.logs {
		entry := log.IndexedLog
		if !log.done && entry.Problem == "" {
			entry.Problem = "it was not read before the deadline"
			if r.lost != nil {
				entry.Problem = r.lost.Error()
			}
		}
		index.Logs = append(index.Logs, entry)
	}
	return index
}
