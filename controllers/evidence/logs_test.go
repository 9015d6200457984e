package evidence

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store"
)

const stamp = "2026-01-02T03:04:05.000000006Z "

// script is a LogSource that does what a test tells it.
type script struct {
	mu    sync.Mutex
	pod   *corev1.Pod
	looks int
	// onLook may change the world at the nth look at the pod, counted from 1.
	onLook func(s *script, n int) error
	// logs are the answers, by container and instance ("app", "app/previous"); what has no answer is a 400, as the kubelet gives it.
	logs map[string]func(ctx context.Context, opts *corev1.PodLogOptions) (io.ReadCloser, error)
	// opened counts the requests by log; at once is how many are open, and most how many were.
	opened       map[string]int
	atOnce, most int
}

func (s *script) Pod(context.Context, string, string) (*corev1.Pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	if s.onLook != nil {
		if err := s.onLook(s, s.looks); err != nil {
			return nil, err
		}
	}
	if s.pod == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "web-0")
	}
	return s.pod.DeepCopy(), nil
}

func (s *script) Open(ctx context.Context, namespace, name string, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := opts.Container
	if opts.Previous {
		key += "/previous"
	}
	if s.opened == nil {
		s.opened = map[string]int{}
	}
	s.opened[key]++
	answer := s.logs[key]
	if answer == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q of %s is waiting to start: \x1b[31mPodInitializing", opts.Container, name, namespace))
	}
	body, err := answer(ctx, opts)
	if err != nil {
		return nil, err
	}
	s.atOnce++
	s.most = max(s.most, s.atOnce)
	return &counted{ReadCloser: body, script: s}, nil
}

type counted struct {
	io.ReadCloser
	script *script
	once   sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() {
		c.script.mu.Lock()
		c.script.atOnce--
		c.script.mu.Unlock()
	})
	return c.ReadCloser.Close()
}

type answer = func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error)

// says answers with the text, as far as LimitBytes goes, as a kubelet does.
func says(text string) answer {
	return func(_ context.Context, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(strings.NewReader(text), *opts.LimitBytes)), nil
	}
}

func refuses(err error) answer {
	return func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) { return nil, err }
}

// breaks answers with the text and then an error.
func breaks(text string, err error) answer {
	return func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(text), breaking{err})), nil
	}
}

type breaking struct{ err error }

func (f breaking) Read([]byte) (int, error) { return 0, f.err }

// hangs answers with the text and then nothing, until it is closed.
func hangs(text string) answer {
	return func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { _, _ = io.WriteString(w, text) }() // ends when the pipe is closed
		return r, nil
	}
}

// vault is a Sink that keeps everything in memory and fails when it is told to.
type vault struct {
	mu      sync.Mutex
	objects map[string][]byte
	fail    func(n int) error
	puts    int
}

func (v *vault) PutItem(_ context.Context, incidentUID string, r io.Reader) (store.Object, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return store.Object{}, fmt.Errorf("put: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.puts++
	if v.fail != nil {
		if err := v.fail(v.puts); err != nil {
			return store.Object{}, err
		}
	}
	sum := sha256.Sum256(data)
	key := "incidents/" + incidentUID + "/items/" + hex.EncodeToString(sum[:])
	if v.objects == nil {
		v.objects = map[string][]byte{}
	}
	v.objects[key] = data
	d := "sha256:" + hex.EncodeToString(sum[:])
	return store.Object{Key: key, Digest: d, Size: int64(len(data)), PlainDigest: d, PlainSize: int64(len(data))}, nil
}

func runningStatus(name string, restarts int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Name: name, ContainerID: "containerd://" + name + fmt.Sprint(restarts), ImageID: "img@sha256:" + name, RestartCount: restarts,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}
}

func endedBefore(s corev1.ContainerStatus, id string) corev1.ContainerStatus {
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: id}
	return s
}

// onePod is a pod with one container that runs, changed by the options.
func onePod(options ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "pod-uid"},
		Spec:       corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: "app"}}},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{runningStatus("app", 0)}},
	}
	for _, o := range options {
		o(pod)
	}
	return pod
}

func appStatus(s corev1.ContainerStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{s} }
}

// logWorld is one item, what it reads and where it goes.
type logWorld struct {
	source *script
	sink   Sink
	orders v1alpha1.EvidenceOrders
	logs   *Logs
	b      *Background
	item   v1alpha1.EvidenceItem
}

func (w *logWorld) execution() *Execution {
	return &Execution{
		Incident: &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: "inc-uid"}},
		Orders:   w.orders, Sink: w.sink, Background: w.b, Now: time.Now(),
	}
}

// pass is what the reconciler does with the item in one pass.
func (w *logWorld) pass() error {
	item, err := w.logs.Collect(context.Background(), w.execution(), w.item)
	w.item = item
	return err
}

// passes until the item is settled, every two seconds of the bubble's time. It returns the errors on the way.
func (w *logWorld) passes(t *testing.T) []string {
	t.Helper()
	var errs []string
	for range 10000 {
		if err := w.pass(); err != nil {
			errs = append(errs, err.Error())
		}
		if w.item.State != v1alpha1.EvidencePending {
			return errs
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
	}
	t.Fatalf("the item was never settled: %+v, %v", w.item, errs)
	return nil
}

// withLogs runs a test on a pending item about the source's pod.
func withLogs(t *testing.T, w *logWorld, test func(t *testing.T, w *logWorld)) {
	t.Helper()
	inBackground(t, 2, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		w.b, w.logs = b, NewLogs(w.source)
		w.item = w.logs.Begin(w.execution(), []*corev1.Pod{onePod()})[0]
		test(t, w)
	})
}

// index reads the index that the item says is stored.
func (w *logWorld) index(t *testing.T) *Index {
	t.Helper()
	raw, found := w.sink.(*vault).objects[w.item.Location]
	if !found {
		t.Fatalf("nothing is stored at %q", w.item.Location)
	}
	if got := digestHex(raw); got != w.item.Digest || w.item.Size != int64(len(raw)) {
		t.Errorf("item has digest %s and size %d, the index %s and %d", w.item.Digest, w.item.Size, got, len(raw))
	}
	index, err := ReadIndex(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func digestHex(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestLogsBegin(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := v1alpha1.EvidenceItem{
		ID: "logs-pod-uid", Type: v1alpha1.EvidenceLogs, State: v1alpha1.EvidencePending, Pods: []string{"pod-uid"},
		Subject: v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "pod-uid"},
	}
	for name, tc := range map[string]struct {
		orders  v1alpha1.LogOrders
		seconds int
		skipped bool
	}{
		"nothing said":   {v1alpha1.LogOrders{}, 600, false},
		"own deadline":   {v1alpha1.LogOrders{Collect: v1alpha1.Collect, DeadlineSeconds: 5}, 5, false},
		"skipped by the": {v1alpha1.LogOrders{Collect: v1alpha1.Skip}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			x := &Execution{Now: now, Orders: v1alpha1.EvidenceOrders{Logs: tc.orders}}
			got := NewLogs(nil).Begin(x, []*corev1.Pod{onePod()})
			if tc.skipped {
				if len(got) > 0 {
					t.Errorf("Begin() = %+v, want no item", got)
				}
				return
			}
			want.Deadline = metav1.NewTime(now.Add(time.Duration(tc.seconds) * time.Second))
			if diff := gocmp.Diff([]v1alpha1.EvidenceItem{want}, got); diff != "" {
				t.Errorf("Begin() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInstances(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	waiting := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	crashing := endedBefore(waiting("CrashLoopBackOff"), "c9")
	crashing.RestartCount = 10
	cases := map[string]struct {
		pod  *corev1.Pod
		want []IndexedLog
	}{
		"runs": {onePod(), []IndexedLog{{Container: "app", Kind: "container", Instance: "current", ContainerID: "containerd://app0", ImageID: "img@sha256:app"}}},
		"was restarted": {onePod(appStatus(endedBefore(runningStatus("app", 1), "containerd://app0"))), []IndexedLog{
			{Container: "app", Kind: "container", Instance: "current", ContainerID: "containerd://app1", ImageID: "img@sha256:app"},
			{Container: "app", Kind: "container", Instance: "previous", ContainerID: "containerd://app0"},
		}},
		"was restarted, and nobody knows from what": {onePod(appStatus(runningStatus("app", 1))), []IndexedLog{
			{Container: "app", Kind: "container", Instance: "current", ContainerID: "containerd://app1", ImageID: "img@sha256:app"},
			{Container: "app", Kind: "container", Instance: "previous"},
		}},
		"waits after a crash": {onePod(appStatus(crashing)), []IndexedLog{
			{Container: "app", Kind: "container", Instance: "current", Absent: true, Problem: "it has not started: CrashLoopBackOff"},
			{Container: "app", Kind: "container", Instance: "previous", ContainerID: "c9"},
		}},
		"waits for the first time": {onePod(appStatus(waiting("ContainerCreating"))), []IndexedLog{{Container: "app", Kind: "container", Instance: "current"}}},
		"nothing is known":         {onePod(func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }), []IndexedLog{{Container: "app", Kind: "container", Instance: "current"}}},
		"never on a node": {onePod(func(p *corev1.Pod) { p.Status, p.Spec.NodeName = corev1.PodStatus{}, "" }), []IndexedLog{
			{Container: "app", Kind: "container", Instance: "current", Absent: true, Problem: "the pod was never on a node"},
		}},
		"all kinds": {onePod(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "init"}, {Name: "mesh", RestartPolicy: &always}}
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{
				{Name: "init", ContainerID: "i0", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "i0"}}}, runningStatus("mesh", 0),
			}
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{runningStatus("debug", 0)}
		}), []IndexedLog{
			{Container: "init", Kind: "init", Instance: "current", ContainerID: "i0"},
			{Container: "mesh", Kind: "sidecar", Instance: "current", ContainerID: "containerd://mesh0", ImageID: "img@sha256:mesh"},
			{Container: "app", Kind: "container", Instance: "current", ContainerID: "containerd://app0", ImageID: "img@sha256:app"},
			{Container: "debug", Kind: "ephemeral", Instance: "current", ContainerID: "containerd://debug0", ImageID: "img@sha256:debug"},
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []IndexedLog
			for _, log := range instances(tc.pod) {
				got = append(got, log.IndexedLog)
			}
			if diff := gocmp.Diff(tc.want, got); diff != "" {
				t.Errorf("instances() (-want +got):\n%s", diff)
			}
		})
	}
}

// unavailable is what the API server says when it cannot reach a kubelet.
var unavailable = apierrors.NewServiceUnavailable("dial tcp: \x1b[2Jconnection refused")

func TestLogsCollect(t *testing.T) {
	line := stamp + "hello\n"
	restarted := onePod(appStatus(endedBefore(runningStatus("app", 1), "containerd://app0")))
	cases := map[string]struct {
		source  *script
		orders  v1alpha1.EvidenceOrders
		state   v1alpha1.EvidenceState
		message string // what the message has; "" that there is none
		logs    []IndexedLog
		seconds int // how long it took at most
	}{
		"one log": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says(line + line)}}, state: v1alpha1.EvidenceCollected,
			logs: []IndexedLog{{Container: "app", Bytes: int64(2 * len(line)), Lines: 2}},
		},
		"an empty log": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says("")}}, state: v1alpha1.EvidenceCollected,
			logs: []IndexedLog{{Container: "app"}},
		},
		"a last line without an end": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + "a\n" + stamp + "b")}}, state: v1alpha1.EvidenceCollected,
			logs: []IndexedLog{{Container: "app", Bytes: int64(2*len(stamp) + 3), Lines: 2}},
		},
		"exactly as long as may be": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + strings.Repeat("x", 1024-len(stamp)))}},
			orders: v1alpha1.EvidenceOrders{Logs: v1alpha1.LogOrders{MaxBytes: 1024}}, state: v1alpha1.EvidenceCollected,
			logs: []IndexedLog{{Container: "app", Bytes: 1024, Lines: 1}},
		},
		"one byte longer than may be": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + strings.Repeat("x", 1025-len(stamp)))}},
			orders: v1alpha1.EvidenceOrders{Logs: v1alpha1.LogOrders{MaxBytes: 1024}}, state: v1alpha1.EvidenceCollected, message: "cut at the length",
			logs: []IndexedLog{{Container: "app", Bytes: 1024, Lines: 1, Truncated: true}},
		},
		"both instances": {
			source: &script{pod: restarted, logs: map[string]answer{"app": says(line), "app/previous": says(line + line)}}, state: v1alpha1.EvidenceCollected,
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1}, {Container: "app", Bytes: int64(2 * len(line)), Lines: 2}},
		},
		"the kubelet has lost the previous instance": {
			source: &script{pod: restarted, logs: map[string]answer{"app": says(line)}}, state: v1alpha1.EvidenceCollected, message: "could not be read: app (previous)",
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1}, {Container: "app", Problem: "waiting to start"}},
		},
		"the kubelet says so where the log should be": {
			source: &script{pod: restarted, logs: map[string]answer{"app": says(line), "app/previous": says("unable to retrieve container logs for containerd://app0")}},
			state:  v1alpha1.EvidenceCollected, message: "could not be read: app (previous): unable to retrieve",
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1}, {Container: "app", Problem: "unable to retrieve container logs for containerd://app0"}},
		},
		"a long log without times is kept": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": says(strings.Repeat("x", 5000))}}, state: v1alpha1.EvidenceCollected, message: "no time stamp",
			logs: []IndexedLog{{Container: "app", Bytes: 5000, Lines: 1, Problem: "no time stamp"}},
		},
		"never started": {
			source: &script{pod: onePod(func(p *corev1.Pod) { p.Status = corev1.PodStatus{} })}, state: v1alpha1.EvidenceCollected, message: "never started: app",
			logs: []IndexedLog{{Container: "app", Absent: true, Problem: "waiting to start"}},
		},
		"gone before anything was read": {
			source: &script{}, state: v1alpha1.EvidenceGap, message: "the pod is gone",
		},
		"another pod of that name": {
			source: &script{pod: onePod(func(p *corev1.Pod) { p.UID = "other" }), logs: map[string]answer{"app": says(line)}}, state: v1alpha1.EvidenceGap, message: "replaced by a namesake",
		},
		"the node cannot be reached": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": refuses(unavailable)}}, state: v1alpha1.EvidenceGap, message: "connection refused", seconds: 610,
		},
		"an answer that will not change": {
			source: &script{pod: onePod()}, state: v1alpha1.EvidenceGap, message: "could not be read: app",
		},
		"breaks off again and again": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": breaks(line, errors.New("connection\x1b[31m reset"))}}, state: v1alpha1.EvidenceCollected,
			message: "incomplete: app: it broke off: connection�[31m reset",
			logs:    []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1, Incomplete: true, Problem: "connection"}}, seconds: 10,
		},
		"does not end": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": hangs(line)}}, state: v1alpha1.EvidenceCollected, message: "had not ended at the deadline",
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1, Incomplete: true, Problem: "deadline"}}, seconds: 602,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := &logWorld{source: tc.source, sink: &vault{}, orders: tc.orders}
			withLogs(t, w, func(t *testing.T, w *logWorld) {
				begun := time.Now()
				w.passes(t)
				if took := time.Since(begun); took > time.Duration(cmp.Or(tc.seconds, 2))*time.Second {
					t.Errorf("took %s", took)
				}
				checkLogItem(t, w, tc.state, tc.message)
				if tc.state == v1alpha1.EvidenceCollected {
					checkIndex(t, w, tc.logs)
				}
			})
		})
	}
}

func checkLogItem(t *testing.T, w *logWorld, state v1alpha1.EvidenceState, message string) {
	t.Helper()
	if w.item.State != state || !strings.Contains(w.item.Message, message) || message == "" && w.item.Message != "" {
		t.Errorf("item is %s with message %q, want %s with %q", w.item.State, w.item.Message, state, message)
	}
	if strings.ContainsFunc(w.item.Message, func(r rune) bool { return !unicode.IsPrint(r) }) || len([]rune(w.item.Message)) > maxMessage {
		t.Errorf("message %q is not fit for a terminal", w.item.Message)
	}
	if state == v1alpha1.EvidenceGap && (w.item.Location != "" || w.item.Digest != "") {
		t.Errorf("a gap that says it is stored: %+v", w.item)
	}
}

func checkIndex(t *testing.T, w *logWorld, want []IndexedLog) {
	t.Helper()
	index := w.index(t)
	if index.Node != "node-a" || index.Pod != w.item.Subject || !index.TakenAt.Equal(&w.item.TakenAt) && w.item.TakenAt.Sub(index.TakenAt.Time) >= time.Second {
		t.Errorf("the index is about %+v on %q at %s", index.Pod, index.Node, index.TakenAt)
	}
	if diff := gocmp.Diff(want, index.Logs, cmpopts.IgnoreFields(IndexedLog{}, "Kind", "Instance", "ContainerID", "ImageID", "Key", "Digest", "Problem")); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	for i, log := range index.Logs {
		if i < len(want) && (!strings.Contains(log.Problem, want[i].Problem) || want[i].Problem == "" && log.Problem != "") {
			t.Errorf("problem of log %d is %q, want %q", i, log.Problem, want[i].Problem)
		}
		raw, stored := w.sink.(*vault).objects[log.Key]
		if stored != (log.Bytes > 0) || stored && (digestHex(raw) != log.Digest || int64(len(raw)) != log.Bytes) {
			t.Errorf("log %d: stored %v, %d bytes with digest %s; the index says %d with %s", i, stored, len(raw), digestHex(raw), log.Bytes, log.Digest)
		}
	}
}

// What came of a log that breaks off is kept, and a repeat that brings all of it takes its place.
func TestLogsBreakOffAndRecover(t *testing.T) {
	tries := 0
	source := &script{pod: onePod(), logs: map[string]answer{"app": func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
		if tries++; tries == 1 {
			return breaks(stamp+"a\n", io.ErrUnexpectedEOF)(ctx, o)
		}
		return says(stamp+"a\n"+stamp+"b\n")(ctx, o)
	}}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		errs := w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
		checkIndex(t, w, []IndexedLog{{Container: "app", Bytes: int64(2*len(stamp) + 4), Lines: 2}})
		if len(errs) != 1 || !strings.Contains(errs[0], "broke off") {
			t.Errorf("errors = %v, want the one of the first try", errs)
		}
	})
}

// A repeat asks only for what is missing.
func TestLogsAreNotReadTwice(t *testing.T) {
	tries := 0
	source := &script{pod: onePod(func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side"})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus("side", 0))
	}), logs: map[string]answer{"app": says(stamp + "a\n"), "side": func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
		if tries++; tries < 3 {
			return nil, unavailable
		}
		return says(stamp+"b\n")(ctx, o)
	}}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
		if diff := gocmp.Diff(map[string]int{"app": 1, "side": 3}, source.opened); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if len(w.logs.known.tasks) > 0 {
			t.Error("what is settled is still remembered")
		}
	})
}

func TestLogsOfAPodThatIsReplacedMidStream(t *testing.T) {
	for name, tc := range map[string]struct {
		world   func(*script)
		state   v1alpha1.EvidenceState
		message string
		kept    int // objects in the store
	}{
		"by its namesake": {func(s *script) { s.pod.UID = "other" }, v1alpha1.EvidenceGap, "replaced by a namesake", 0},
		"by nothing":      {func(s *script) { s.pod = nil }, v1alpha1.EvidenceCollected, "deleted while it was read", 2},
		"by a restart":    {func(s *script) { s.pod.Status.ContainerStatuses[0] = runningStatus("app", 1) }, v1alpha1.EvidenceCollected, "restarted while it was read", 2},
	} {
		t.Run(name, func(t *testing.T) {
			// The first look is at the whole, the second before the stream, the third after it.
			source := &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + "whose?\n")}, onLook: func(s *script, n int) error {
				if n == 3 {
					tc.world(s)
				}
				return nil
			}}
			withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
				w.passes(t)
				checkLogItem(t, w, tc.state, tc.message)
				if got := len(w.sink.(*vault).objects); got != tc.kept {
					t.Errorf("%d objects are stored, want %d", got, tc.kept)
				}
			})
		})
	}
}

// What was got before the pod went stays.
func TestLogsOfAPodThatGoesBetweenStreams(t *testing.T) {
	pod := onePod(func(p *corev1.Pod) {
		p.Spec.Containers = nil
		p.Status.ContainerStatuses = nil
		for i := range 40 {
			name := fmt.Sprintf("c%02d", i)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus(name, 0))
		}
	})
	source := &script{pod: pod, logs: map[string]answer{}, onLook: func(s *script, n int) error {
		if n == 20 {
			s.pod = nil
		}
		return nil
	}}
	for _, c := range pod.Spec.Containers {
		source.logs[c.Name] = says(stamp + c.Name + "\n")
	}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "could not be read: ")
		index, kept := w.index(t), 0
		for _, log := range index.Logs {
			if log.Key != "" {
				kept++
			} else if log.Problem != "the pod is gone" {
				t.Errorf("%s has the problem %q", log.Container, log.Problem)
			}
		}
		if kept == 0 || kept == 40 || len(index.Logs) != 40 || index.Note != "the pod is gone" {
			t.Errorf("%d of %d logs were kept, note %q", kept, len(index.Logs), index.Note)
		}
	})
}

func TestLogsOfFortyContainers(t *testing.T) {
	pod := onePod()
	source := &script{pod: pod, logs: map[string]answer{"app": says(stamp + "app\n")}}
	for i := range 39 {
		name := fmt.Sprintf("c%02d", i)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, runningStatus(name, 0))
		source.logs[name] = says(stamp + name + "\n")
		if i%13 == 0 { // as many as can be waited for while the others are read
			source.logs[name] = hangs(stamp + name + "\n")
		}
	}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "incomplete: c00: it had not ended at the deadline, c13: it had not ended at the deadline, c26: it had not ended at the deadline")
		if source.most != logsAtOnce {
			t.Errorf("%d logs were read at a time, want %d", source.most, logsAtOnce)
		}
		index := w.index(t)
		for _, log := range index.Logs {
			if log.Digest != digestHex([]byte(stamp+log.Container+"\n")) || log.Key == "" {
				t.Errorf("%+v does not have the log of its container", log)
			}
		}
		if len(index.Logs) != 40 {
			t.Errorf("%d logs, want 40", len(index.Logs))
		}
	})
}

// Where more logs do not end than are read at a time, what was not begun by the deadline is said not to have been read.
func TestLogsThatAllDoNotEnd(t *testing.T) {
	pod := onePod(func(p *corev1.Pod) { p.Spec.Containers, p.Status.ContainerStatuses = nil, nil })
	source := &script{pod: pod, logs: map[string]answer{}}
	for i := range 6 {
		name := fmt.Sprintf("c%d", i)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, runningStatus(name, 0))
		source.logs[name] = hangs(stamp + name + "\n")
	}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "could not be read: c4: it was not read before the deadline, c5: it was not read before the deadline; incomplete: c0")
	})
}

// A log is evidence byte for byte, and its text never comes near a terminal.
func TestLogsKeepBytesAsTheyAre(t *testing.T) {
	raw := stamp + "\x00\x1b[2J\x1b]0;owned\x07\xff\xfe\xc3\x28 \u202egnp.exe\r\n" + stamp + "\x80\x80"
	source := &script{pod: onePod(), logs: map[string]answer{"app": breaks(raw, errors.New(raw))}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		errs := w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "incomplete")
		if got := w.sink.(*vault).objects[w.index(t).Logs[0].Key]; string(got) != raw {
			t.Errorf("stored %q, want %q", got, raw)
		}
		for _, text := range append(errs, w.index(t).Logs[0].Problem) {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not fit for a terminal", text)
			}
		}
	})
}

func TestLogsWaitForTheStore(t *testing.T) {
	down := errors.New("the bucket is \x1b[31maway")
	t.Run("and go on when it is back", func(t *testing.T) {
		sink := &vault{fail: func(n int) error {
			if n < 5 {
				return down
			}
			return nil
		}}
		withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + "a\n")}}, sink: sink}, func(t *testing.T, w *logWorld) {
			if errs := w.passes(t); len(errs) != 4 || !strings.Contains(errs[0], "away") {
				t.Errorf("errors = %q, want four", errs)
			}
			checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
		})
	})
	t.Run("until the deadline", func(t *testing.T) {
		sink := &vault{fail: func(int) error { return down }}
		withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + "a\n")}}, sink: sink}, func(t *testing.T, w *logWorld) {
			begun := time.Now()
			w.passes(t)
			checkLogItem(t, w, v1alpha1.EvidenceGap, "could not be stored: the bucket is �[31maway")
			if took := time.Since(begun); took < 10*time.Minute || took > 11*time.Minute {
				t.Errorf("gave up after %s, want the deadline", took)
			}
		})
	})
	t.Run("where there is none", func(t *testing.T) {
		withLogs(t, &logWorld{source: &script{}}, func(t *testing.T, w *logWorld) {
			x := w.execution()
			x.SinkProblem = "no such bucket"
			item, err := w.logs.Collect(t.Context(), x, w.item)
			if err != nil || item.State != v1alpha1.EvidencePending || item.Message != "waits for the evidence store: no such bucket" {
				t.Errorf("Collect() = %+v, %v", item, err)
			}
			x.Now = x.Now.Add(time.Hour)
			if item, err = w.logs.Collect(t.Context(), x, w.item); err != nil || item.State != v1alpha1.EvidenceGap || !strings.Contains(item.Message, "could not be stored: no such bucket") {
				t.Errorf("Collect() after the deadline = %+v, %v", item, err)
			}
		})
	})
}

// An operator that was down at the deadline still takes one look, because the logs are usually still there.
func TestLogsAfterTheDeadline(t *testing.T) {
	withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp + "a\n")}}, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		time.Sleep(time.Hour)
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
	})
	withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": hangs("")}}, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		time.Sleep(time.Hour)
		begun := time.Now()
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceGap, "had not ended at the deadline")
		if took := time.Since(begun); took > lateTurn+4*time.Second {
			t.Errorf("the look took %s", took)
		}
	})
}

func TestLogsInADryRun(t *testing.T) {
	source := &script{pod: onePod(), logs: map[string]answer{"app": says(stamp)}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		x := w.execution()
		x.DryRun = true
		item, err := w.logs.Collect(t.Context(), x, w.item)
		synctest.Wait()
		if diff := gocmp.Diff(w.item, item); diff != "" || err != nil || source.looks > 0 {
			t.Errorf("Collect() did something: %v, %s", err, diff)
		}
	})
}

func TestLogsSurviveAPanic(t *testing.T) {
	source := &script{pod: onePod(), logs: map[string]answer{"app": func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
		panic("in a goroutine of its own")
	}}}
	withLogs(t, &logWorld{source: &script{pod: source.pod, logs: source.logs}, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.source.logs = map[string]answer{"app": func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
			w.source.mu.Unlock() // the panic must not leave the script locked
			defer w.source.mu.Lock()
			panic("in a goroutine of its own")
		}}
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceGap, "in a goroutine of its own")
	})
}

// endless is a source of so many bytes of log that are made as they are read.
type endless struct {
	left int64
	line []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && e.left > 0 {
		k := copy(p[n:min(len(p), n+int(min(e.left, int64(len(p)))))], e.line[e.at:])
		n, e.left, e.at = n+k, e.left-int64(k), (e.at+k)%len(e.line)
	}
	return n, nil
}

// meter is a Sink that keeps nothing but the digest, and looks at the heap while it reads.
type meter struct {
	hash  hash.Hash
	bytes int64
	peak  uint64
}

func (m *meter) PutItem(_ context.Context, _ string, r io.Reader) (store.Object, error) {
	m.hash = sha256.New()
	buf := make([]byte, 32<<10)
	var n int64
	for i := 0; ; i++ {
		k, err := r.Read(buf)
		n += int64(k)
		if n < 64<<20 {
			m.hash.Write(buf[:k])
		}
		if i%4096 == 0 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			m.peak = max(m.peak, stats.HeapAlloc)
		}
		if errors.Is(err, io.EOF) {
			m.bytes = max(m.bytes, n)
			return store.Object{Key: fmt.Sprint("k", n), PlainDigest: "sha256:x", PlainSize: n}, nil
		}
		if err != nil {
			return store.Object{}, err
		}
	}
}

func TestLogsBoundedMemory(t *testing.T) {
	const size = 2 << 30
	line := []byte(stamp + strings.Repeat("x", 1000) + "\n")
	source := &script{pod: onePod(), logs: map[string]answer{"app": func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
		return io.NopCloser(&endless{left: size, line: line}), nil
	}}}
	sink := &meter{}
	w := &logWorld{source: source, sink: sink, orders: v1alpha1.EvidenceOrders{Logs: v1alpha1.LogOrders{MaxBytes: 16 << 30}}}
	withLogs(t, w, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
	})
	if sink.bytes != size {
		t.Errorf("%d bytes came through, want %d", sink.bytes, size)
	}
	if sink.peak > 100<<20 {
		t.Errorf("the heap had %d MiB while 2 GiB went through", sink.peak>>20)
	}
}

// A log of a million lines, and one that goes on for ever, in the real store.
func TestLogsInTheRealStore(t *testing.T) {
	st, err := store.Open(t.Context(), "mem://logs", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	line := []byte(stamp + "0123456789\n")
	pod := onePod(func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "endless"})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus("endless", 0))
	})
	source := &script{pod: pod, logs: map[string]answer{
		"app": func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
			return io.NopCloser(&endless{left: int64(len(line)) * 1_000_000, line: line}), nil
		},
		"endless": func(context.Context, *corev1.PodLogOptions) (io.ReadCloser, error) {
			return io.NopCloser(&endless{left: 1 << 60, line: line}), nil
		},
	}}
	w := &logWorld{source: source, sink: st}
	withLogs(t, w, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "cut at the length that the ContainmentPolicy sets: endless")
	})
	raw, err := st.Read(t.Context(), w.item.Location)
	if err != nil {
		t.Fatal(err)
	}
	index, err := ReadIndex(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if app := index.Logs[0]; app.Lines != 1_000_000 || app.Truncated || app.Incomplete {
		t.Errorf("app = %+v, want a million lines", app)
	}
	if cut := index.Logs[1]; cut.Bytes != defaultLogBytes || !cut.Truncated {
		t.Errorf("endless = %+v, want it cut at 64 MiB", cut)
	}
	keys, err := st.Keys(t.Context(), "incidents/inc-uid/items/")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{w.item.Location, index.Logs[0].Key, index.Logs[1].Key}
	slices.Sort(want)
	if diff := gocmp.Diff(want, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, log := range index.Logs {
		if err := st.Verify(t.Context(), store.Object{Key: log.Key, Digest: log.Digest, Size: log.Bytes}); err != nil {
			t.Error(err)
		}
	}
}

// A task that is told to end stores nothing: nobody waits for it.
func TestLogsThatAreForgotten(t *testing.T) {
	sink := &vault{}
	withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": hangs(stamp + "a\n")}}, sink: sink}, func(t *testing.T, w *logWorld) {
		if err := w.pass(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.b.ForgetAll("inc-uid/")
		synctest.Wait()
		if len(sink.objects) > 0 {
			t.Errorf("stored %v", slices.Collect(maps.Keys(sink.objects)))
		}
	})
}
