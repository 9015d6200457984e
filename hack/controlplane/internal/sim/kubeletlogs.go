package sim

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Annotations of a pod that change what its containers seem to have printed.
const (
	// LogLinesAnnotation is how many lines each log has.
	LogLinesAnnotation = "sim.cofferdam.dev/log-lines"
	// LogEndlessAnnotation set to "true" makes logs that go on, a line at a time,
	// for as long as somebody reads them.
	LogEndlessAnnotation = "sim.cofferdam.dev/log-endless"
	// LogRawAnnotation is what the log is, byte for byte, in base64.
	LogRawAnnotation = "sim.cofferdam.dev/log-raw"
)

const (
	defaultLogLines = 5
	// endlessPace is the time between two lines of a log that does not end.
	endlessPace = 20 * time.Millisecond
	followPoll  = 200 * time.Millisecond
)

// logRequest is what was asked for.
type logRequest struct {
	container  string
	previous   bool
	timestamps bool
	follow     bool
	limit      int64 // bytes; negative for all
}

// logInstance is the run of a container whose log is meant.
type logInstance struct {
	started time.Time
	run     int32
	running bool
}

// instanceOf chooses the run as a kubelet does: of a container that waits to be
// started again, that is the one before. Its errors are the kubelet's.
func instanceOf(pod *corev1.Pod, request logRequest) (logInstance, error) {
	status := find(allStatuses(pod), request.container)
	last := status.LastTerminationState.Terminated
	before := func() (logInstance, error) {
		if last == nil || last.ContainerID == "" {
			return logInstance{}, fmt.Errorf("previous terminated container %q in pod %q not found", request.container, pod.Name)
		}
		return logInstance{started: last.StartedAt.Time, run: status.RestartCount - 1}, nil
	}
	switch state := status.State; {
	case request.previous:
		return before()
	case state.Running != nil:
		return logInstance{started: state.Running.StartedAt.Time, run: status.RestartCount, running: true}, nil
	case state.Terminated != nil:
		return logInstance{started: state.Terminated.StartedAt.Time, run: status.RestartCount}, nil
	case last != nil:
		return before()
	case state.Waiting != nil:
		return logInstance{}, fmt.Errorf("container %q in pod %q is waiting to start: %s", request.container, pod.Name, state.Waiting.Reason)
	default:
		return logInstance{}, fmt.Errorf("container %q in pod %q is not available", request.container, pod.Name)
	}
}

func allStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	all := append([]corev1.ContainerStatus(nil), pod.Status.InitContainerStatuses...)
	return append(append(all, pod.Status.ContainerStatuses...), pod.Status.EphemeralContainerStatuses...)
}

// errLimit ends a log at the length that was asked for.
var errLimit = errors.New("limit reached")

// logWriter writes lines with or without their times, as far as the limit goes.
type logWriter struct {
	out     io.Writer
	request logRequest
	from    time.Time
	lines   int64
}

// line writes one line, whose text has its own end. Lines are a millisecond
// apart, so that the log is the same each time it is asked for.
func (w *logWriter) line(text []byte) error {
	if w.request.timestamps {
		at := w.from.Add(time.Duration(w.lines) * time.Millisecond).UTC()
		// As the kubelet writes it, always with nine digits.
		text = append([]byte(at.Format("2006-01-02T15:04:05.000000000Z07:00")+" "), text...)
	}
	w.lines++
	if w.request.limit >= 0 && int64(len(text)) >= w.request.limit {
		text = text[:w.request.limit]
		w.request.limit = 0
		if _, err := w.out.Write(text); err != nil {
			return err
		}
		return errLimit
	}
	if w.request.limit >= 0 {
		w.request.limit -= int64(len(text))
	}
	_, err := w.out.Write(text)
	return err
}

// writeLog writes what the run of the container has printed. Nothing of it is
// held in memory. flush sends what was written so far on its way.
func writeLog(ctx context.Context, out io.Writer, flush func(), pod *corev1.Pod, request logRequest, instance logInstance) error {
	w := &logWriter{out: out, request: request, from: instance.started}
	if request.limit == 0 {
		return nil
	}
	var err error
	if raw, given := pod.Annotations[LogRawAnnotation]; given {
		err = w.raw(raw)
	} else {
		err = w.text(ctx, flush, pod, instance)
	}
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

func (w *logWriter) raw(encoded string) error {
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("annotation %s: %w", LogRawAnnotation, err)
	}
	for line := range bytes.Lines(content) {
		if err := w.line(line); err != nil {
			return err
		}
	}
	return nil
}

func (w *logWriter) text(ctx context.Context, flush func(), pod *corev1.Pod, instance logInstance) error {
	lines := int64(defaultLogLines)
	if wanted, err := strconv.ParseInt(pod.Annotations[LogLinesAnnotation], 10, 64); err == nil {
		lines = wanted
	}
	prefix := fmt.Sprintf("%s/%s %s run %d line ", pod.Namespace, pod.Name, w.request.container, instance.run)
	write := func(i int64) error { return w.line([]byte(prefix + strconv.FormatInt(i, 10) + "\n")) }
	for i := range lines {
		if err := write(i); err != nil {
			return err
		}
	}
	if pod.Annotations[LogEndlessAnnotation] != "true" {
		return nil
	}
	pace := time.NewTicker(endlessPace)
	defer pace.Stop()
	for i := lines; ; i++ {
		flush()
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		if err := write(i); err != nil {
			return err
		}
	}
}
