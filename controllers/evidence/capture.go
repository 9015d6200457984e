package evidence

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
	"cofferdam.dev/cofferdam/controllers/store"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=get
// +kubebuilder:rbac:groups="",resources=pods/log,verbs=get

const (
	// storeGrace is how long the store may still take for what has arrived by a deadline.
	storeGrace = 5 * time.Minute
	// lateTurn is how long an item whose turn comes late may still take: after an operator was down, or while many pods are ahead, the logs are usually still there, and one look costs little.
	lateTurn = 30 * time.Second
	// maxProblem bounds a text of others inside a message, in characters.
	maxProblem = 200
	// maxAnswer is the length up to which a log without a time stamp is taken for an error of the kubelet, in bytes.
	maxAnswer = 1024
)

// PodSource tells what pods there are now.
type PodSource interface {
	// Pod returns the pod of that name as the API server has it now, not as a cache remembers it.
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
}

// LogSource is what is needed of the API server to read logs.
type LogSource interface {
	PodSource
	// Open opens a log. The context ends it, and so does closing it.
	Open(ctx context.Context, namespace, name string, opts *corev1.PodLogOptions) (io.ReadCloser, error)
}

// LogConfig returns the configuration for the client that reads logs: each over a connection of its own, by HTTP/1.1. Where logs share one of HTTP/2, up to 4 MiB of each are buffered when they come faster than
// they are taken (golang.org/x/net/http2, transportDefaultStreamFlow), and everything else that the operator asks for waits behind them. On a connection of its own a log waits where it is.
func LogConfig(config *rest.Config) *rest.Config {
	out := rest.CopyConfig(config)
	out.NextProtos = []string{"http/1.1"}
	return out
}

// NewLogSource reads logs through the API server, with a client that was made with LogConfig. It must not have a timeout of its own, which would cut long logs.
func NewLogSource(pods corev1client.PodsGetter) LogSource { return logSource{pods: pods} }

type logSource struct{ pods corev1client.PodsGetter }

func (s logSource) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return s.pods.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s logSource) Open(ctx context.Context, namespace, name string, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	return s.pods.Pods(namespace).GetLogs(name, opts).Stream(ctx)
}

// Why nothing more can be had of a pod.
var (
	errGone     = errors.New("the pod is gone")
	errReplaced = errors.New("the pod was replaced by a namesake")
)

// samePod returns the pod that an item is about: errGone when there is none of that name, errReplaced when it is another one.
func samePod(ctx context.Context, pods PodSource, subject v1alpha1.ObjectRef) (*corev1.Pod, error) {
	pod, err := pods.Pod(ctx, subject.Namespace, subject.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, errGone
	case err != nil:
		return nil, fmt.Errorf("reading the pod: %w", err)
	case string(pod.UID) != subject.UID:
		return nil, errReplaced
	}
	return pod, nil
}

// storeError says that the store, and not the source, failed.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// captured is what came of reading one log.
type captured struct {
	// Object is where it is, if it is an object of its own; zero when there was nothing to store.
	Object store.Object
	// Truncated says that the log went on beyond the bound; Incomplete that it ended before its end, and Problem why.
	Truncated, Incomplete bool
	Problem               string
	// Answer is what the kubelet said in place of a log.
	Answer string
}

// capture reads one log.
type capture struct {
	source LogSource
	// sink and incidentUID are where read stores it; copy does without.
	sink        Sink
	incidentUID string
	namespace   string
	pod         string
	opts        corev1.PodLogOptions
	maxBytes    int64
	// until is when reading ends; what has arrived is stored even after that.
	until time.Time
	// confirm, if it is set, is asked when the log has ended whether it may be kept: an error of it means that nothing is stored.
	confirm func(context.Context) error
}

// read opens the log and stores it as it comes, as an object of its own. Otherwise it is like copy: an error means that nothing was stored.
func (c *capture) read(ctx context.Context) (captured, error) {
	var object store.Object
	out, err := c.copy(ctx, func(log io.Reader) (err error) {
		object, err = c.sink.PutItem(ctx, c.incidentUID, log)
		return err
	})
	if err != nil {
		return captured{}, err
	}
	out.Object = object
	return out, nil
}

// copy opens the log and gives it to keep as it comes, in bounded memory. A log that breaks off or does not end is kept as far as it came; keep is not called where nothing came. A *storeError is of
// keep; after any other error keep was not called, or what it was given ended with that error and must not be kept.
func (c *capture) copy(ctx context.Context, keep func(io.Reader) error) (captured, error) {
	reading, cancel := context.WithDeadline(ctx, c.until)
	defer cancel()
	opts := c.opts
	opts.LimitBytes = new(c.maxBytes + 1) // one more, so that a log of exactly that length is told from one that goes on
	body, err := c.source.Open(reading, c.namespace, c.pod, &opts)
	if err != nil {
		return captured{}, err
	}
	// A source that is not listening to its context is still ended.
	stop := context.AfterFunc(reading, func() { _ = body.Close() }) // its error says nothing that the read does not
	defer func() {
		if stop() {
			_ = body.Close() // everything that was wanted is there
		}
	}()
	return c.pass(&logReader{ctx: ctx, reading: reading, src: body, left: c.maxBytes, confirm: c.confirm}, keep)
}

func (c *capture) pass(r *logReader, keep func(io.Reader) error) (captured, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(maxAnswer)
	whole := errors.Is(err, io.EOF)
	if err != nil && !whole {
		return captured{}, err
	}
	out := captured{}
	if len(head) == 0 {
		out.note(r)
		return out, nil
	}
	stamped := hasTimestamp(head)
	if !c.opts.Timestamps {
		stamped = !bytes.HasPrefix(head, []byte("unable to retrieve container logs for "))
	}
	if !stamped && whole {
		// A kubelet that fails after it has begun to answer writes its error where the log should be (kubernetes/pkg/kubelet/server, getContainerLogs).
		out.note(r)
		out.Answer = quote(string(head))
		return out, nil
	}
	err = keep(buffered)
	if r.refused != nil {
		return captured{}, r.refused
	}
	if err != nil {
		return captured{}, &storeError{err: err}
	}
	out.note(r)
	if !stamped && out.Problem == "" {
		out.Problem = "its first line has no time stamp"
	}
	return out, nil
}

// note says how the log ended.
func (c *captured) note(r *logReader) {
	c.Truncated = r.truncated
	if r.problem != nil {
		c.Incomplete, c.Problem = true, quote(r.problem.Error())
	}
}

// errDeadline is the problem of a log that did not end in time.
var errDeadline = errors.New("it had not ended when the time for it was over")

// logReader ends cleanly whatever the log does: at its end, at the bound, at the deadline, or when it breaks off. It fails, so that nothing is stored, only when what it has read must not be kept.
type logReader struct {
	ctx     context.Context //nolint:containedctx // of the one read that it is made for
	reading context.Context //nolint:containedctx // likewise; ends at the deadline
	src     io.Reader
	left    int64
	confirm func(context.Context) error

	truncated bool
	problem   error
	// refused is why nothing may be kept; end is what every further read returns.
	refused, end error
}

func (r *logReader) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	var beyond [1]byte
	full := r.left == 0
	if full {
		p = beyond[:]
	} else if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := 0, r.reading.Err()
	if err == nil {
		n, err = r.src.Read(p)
	}
	if full && n > 0 {
		r.truncated = true
		return 0, r.finish(nil)
	}
	r.left -= int64(n)
	if err != nil {
		err = r.finish(err)
	}
	return n, err
}

// finish decides what the end of the stream means.
func (r *logReader) finish(err error) error {
	r.end = io.EOF
	switch {
	case r.ctx.Err() != nil:
		// The task itself is over: nobody waits for what it has.
		r.refused = r.ctx.Err()
	case r.reading.Err() != nil:
		r.problem = errDeadline
	case err != nil && !errors.Is(err, io.EOF):
		r.problem = fmt.Errorf("it broke off: %w", err)
	}
	if r.refused == nil && r.confirm != nil {
		r.refused = r.confirm(r.ctx)
	}
	if r.refused != nil {
		r.end = r.refused
	}
	return r.end
}

// hasTimestamp reports whether the text begins with a time as the kubelet writes it before each line.
func hasTimestamp(head []byte) bool {
	stamp, _, _ := bytes.Cut(head, []byte(" "))
	_, err := time.Parse(time.RFC3339Nano, string(stamp))
	return err == nil
}

// quote makes a text of others fit to be part of a message: one line of printable characters, and not many.
func quote(text string) string { return shorten(explain.Clean(strings.TrimSpace(text)), maxProblem) }

// shorten cuts a text to so many characters.
func shorten(text string, limit int) string {
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return text
}
