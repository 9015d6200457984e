package sim

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func annotated(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

func TestWriteLog(t *testing.T) {
	raw := "\x00\x1b[31m\xff\nsecond\x80"
	cases := map[string]struct {
		pod     *corev1.Pod
		request logRequest
		want    string
	}{
		"lines without times": {
			pod:     newPod(annotated(LogLinesAnnotation, "2")),
			request: logRequest{limit: -1},
			want:    "/ main run 3 line 0\n/ main run 3 line 1\n",
		},
		"lines with times": {
			pod:     newPod(annotated(LogLinesAnnotation, "2")),
			request: logRequest{limit: -1, timestamps: true},
			want:    "2026-01-02T03:04:05.000000000Z / main run 3 line 0\n2026-01-02T03:04:05.001000000Z / main run 3 line 1\n",
		},
		"raw, byte for byte": {
			pod:     newPod(annotated(LogRawAnnotation, base64.StdEncoding.EncodeToString([]byte(raw)))),
			request: logRequest{limit: -1},
			want:    raw,
		},
		"raw with a time before each line": {
			pod:     newPod(annotated(LogRawAnnotation, base64.StdEncoding.EncodeToString([]byte("a\nb")))),
			request: logRequest{limit: -1, timestamps: true},
			want:    "2026-01-02T03:04:05.000000000Z a\n2026-01-02T03:04:05.001000000Z b",
		},
		"as far as the limit": {
			pod:     newPod(annotated(LogLinesAnnotation, "1000000000")),
			request: logRequest{limit: 25},
			want:    "/ main run 3 line 0\n/ mai",
		},
		"a limit that is the end of a line": {
			pod: newPod(), request: logRequest{limit: 20}, want: "/ main run 3 line 0\n",
		},
		"no lines at all": {
			pod: newPod(annotated(LogLinesAnnotation, "0")), request: logRequest{limit: -1},
		},
		"a limit of nothing": {
			pod: newPod(), request: logRequest{limit: 0},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.request.container = "main"
			var got bytes.Buffer
			if err := writeLog(t.Context(), &got, func() {}, tc.pod, tc.request, logInstance{started: earlier.Time, run: 3}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWriteLogDefault(t *testing.T) {
	var got bytes.Buffer
	if err := writeLog(t.Context(), &got, func() {}, newPod(), logRequest{container: "main", limit: -1}, logInstance{}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got.String(), "\n"); n != defaultLogLines {
		t.Errorf("%d lines, want %d", n, defaultLogLines)
	}
}

// A log that does not end goes on until nobody reads it any more.
func TestWriteLogEndless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got bytes.Buffer
		flushed := 0
		pod := newPod(annotated(LogEndlessAnnotation, "true"), annotated(LogLinesAnnotation, "1"))
		if err := writeLog(ctx, &got, func() { flushed++ }, pod, logRequest{container: "main", limit: -1}, logInstance{}); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(got.String(), "\n"); n < 49 || n > 51 || flushed < n-1 {
			t.Errorf("%d lines in a second, %d flushed, want one every %s", n, flushed, endlessPace)
		}
	})
}

func TestInstanceOf(t *testing.T) {
	restarted := newPod(running, withImage("app:2"), running)
	waits := newPod(withImage("app:does-not-exist"), running)
	cases := map[string]struct {
		pod      *corev1.Pod
		previous bool
		want     logInstance
		err      string
	}{
		"runs":                          {pod: newPod(running), want: logInstance{started: earlier.Time, running: true}},
		"was restarted":                 {pod: restarted, want: logInstance{started: earlier.Time, run: 1, running: true}},
		"the run before":                {pod: restarted, previous: true, want: logInstance{started: earlier.Time}},
		"no run before":                 {pod: newPod(running), previous: true, err: `previous terminated container "main" in pod "" not found`},
		"never started":                 {pod: waits, err: `container "main" in pod "" is waiting to start: ImagePullBackOff`},
		"waits to be started again":     {pod: newPod(running, withImage("app:does-not-exist"), running), want: logInstance{started: earlier.Time, run: -1}},
		"not reported by any node  yet": {pod: newPod(), err: `container "main" in pod "" is not available`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := instanceOf(tc.pod, logRequest{container: "main", previous: tc.previous})
			if text := errorText(err); text != tc.err || got != tc.want {
				t.Errorf("instanceOf() = %+v, %q, want %+v, %q", got, text, tc.want, tc.err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
