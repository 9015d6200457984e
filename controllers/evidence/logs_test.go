package evidence

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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
	"cofferdam.dev/cofferdam/controllers/containmentpolicy"
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

// effective are the orders as collectors get them.
func effective(orders v1alpha1.EvidenceOrders) v1alpha1.EvidenceOrders {
	return containmentpolicy.Effective(v1alpha1.ContainmentPolicySpec{Evidence: orders}).Evidence
}

func (w *logWorld) execution() *Execution {
	return &Execution{
		Incident: &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: "inc-uid"}},
		Orders:   effective(w.orders), Sink: w.sink, Background: w.b, Now: time.Now(),
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

// zipped is the zip that the item says is stored, the only object there is.
func (w *logWorld) zipped(t *testing.T) []byte {
	t.Helper()
	objects := w.sink.(*vault).objects
	raw, found := objects[w.item.Location]
	if !found || len(objects) != 1 {
		t.Fatalf("%d objects are stored, one of them at %q: %v", len(objects), w.item.Location, found)
	}
	if got := digestHex(raw); got != w.item.Digest || w.item.Size != int64(len(raw)) {
		t.Errorf("item has digest %s and size %d, the zip %s and %d", w.item.Digest, w.item.Size, got, len(raw))
	}
	return raw
}

// index reads the index of the zip.
func (w *logWorld) index(t *testing.T) *Index {
	t.Helper()
	raw := w.zipped(t)
	index, err := ReadIndex(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// members unpacks the logs of a zip. What the index says of each is compared with what is there.
func members(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if last := archive.File[len(archive.File)-1].Name; last != "index.json" {
		t.Errorf("the last member is %q, want the index", last)
	}
	out := map[string]string{}
	for _, f := range archive.File[:len(archive.File)-1] {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r) // compares the checksum too
		if _, twice := out[f.Name]; err != nil || twice || !filepath.IsLocal(f.Name) {
			t.Errorf("member %q: %v, twice: %v", f.Name, err, twice)
		}
		out[f.Name] = string(text)
	}
	index, err := ReadIndex(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	indexed := 0
	for _, log := range index.Logs {
		text, found := out[log.Member]
		if found {
			indexed++
		}
		if found != (log.Member != "") || found != (log.Digest != "") || found && log.Digest != digestHex([]byte(text)) || int64(len(text)) != log.Bytes || (log.Bytes > 0) != (log.Lines > 0) {
			t.Errorf("member %q (found: %v) has %d bytes with digest %s; the index says %+v", log.Member, found, len(text), digestHex([]byte(text)), log)
		}
	}
	if indexed != len(out) {
		t.Errorf("%d of %d members are in the index", indexed, len(out))
	}
	return out
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
			x := &Execution{Now: now, Orders: effective(v1alpha1.EvidenceOrders{Logs: tc.orders})}
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
			source: &script{pod: restarted, logs: map[string]answer{"app": says(line)}}, state: v1alpha1.EvidencePartial, message: "could not be read: app (previous)",
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1}, {Container: "app", Problem: "waiting to start"}},
		},
		"the kubelet says so where the log should be": {
			source: &script{pod: restarted, logs: map[string]answer{"app": says(line), "app/previous": says("unable to retrieve container logs for containerd://app0")}},
			state:  v1alpha1.EvidencePartial, message: "could not be read: app (previous): unable to retrieve",
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
		"breaks off": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": breaks(line, errors.New("connection\x1b[31m reset"))}}, state: v1alpha1.EvidencePartial,
			message: "incomplete: app: it broke off: connection�[31m reset",
			logs:    []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1, Incomplete: true, Problem: "connection"}}, seconds: 2,
		},
		"does not end": {
			source: &script{pod: onePod(), logs: map[string]answer{"app": hangs(line)}}, state: v1alpha1.EvidencePartial, message: "had not ended when the time for it was over",
			logs: []IndexedLog{{Container: "app", Bytes: int64(len(line)), Lines: 1, Incomplete: true, Problem: "time for it was over"}}, seconds: 602,
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
				if tc.state == v1alpha1.EvidenceCollected || tc.state == v1alpha1.EvidencePartial {
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
	if diff := gocmp.Diff(want, index.Logs, cmpopts.IgnoreFields(IndexedLog{}, "Kind", "Instance", "ContainerID", "ImageID", "Member", "Digest", "Problem")); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	for i, log := range index.Logs {
		if i < len(want) && (!strings.Contains(log.Problem, want[i].Problem) || want[i].Problem == "" && log.Problem != "") {
			t.Errorf("problem of log %d is %q, want %q", i, log.Problem, want[i].Problem)
		}
	}
	members(t, w.zipped(t))
}

// What came of a log that breaks off is kept, and the others are read all the same; one of which nothing has come is asked for again.
func TestLogsThatBreakOff(t *testing.T) {
	tries, reset := 0, errors.New("reset by peer")
	source := &script{pod: manyContainers("a", "b", "c", "d"), logs: map[string]answer{
		"a": says(stamp + "a\n"), "b": breaks(stamp+"b\n"+stamp+"cut", reset), "c": says(stamp + "c\n"),
		"d": func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
			if tries++; tries < 4 {
				return breaks("", reset)(ctx, o)
			}
			return says(stamp+"d\n")(ctx, o)
		},
	}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		if errs := w.passes(t); len(errs) > 0 {
			t.Errorf("errors = %v, want one try", errs)
		}
		checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete: b: it broke off: reset by peer")
		size := int64(len(stamp) + 2)
		checkIndex(t, w, []IndexedLog{
			{Container: "a", Bytes: size, Lines: 1}, {Container: "b", Bytes: 2*size + 1, Lines: 2, Incomplete: true, Problem: "reset by peer"},
			{Container: "c", Bytes: size, Lines: 1}, {Container: "d", Bytes: size, Lines: 1},
		})
	})
}

// manyContainers is a pod with containers of those names, all of which run.
func manyContainers(names ...string) *corev1.Pod {
	return onePod(func(p *corev1.Pod) {
		p.Spec.Containers, p.Status.ContainerStatuses = nil, nil
		for _, name := range names {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus(name, 0))
		}
	})
}

// A repeat asks only for what is missing.
func TestLogsAreNotReadTwice(t *testing.T) {
	tries := 0
	source := &script{pod: manyContainers("app", "side"), logs: map[string]answer{"app": says(stamp + "a\n"), "side": func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
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
		if puts := w.sink.(*vault).puts; puts != 1 {
			t.Errorf("%d objects were stored on the way, want the one", puts)
		}
	})
}

func TestLogsOfAPodThatIsReplacedMidStream(t *testing.T) {
	line := stamp + "whose?\n"
	for name, tc := range map[string]struct {
		containers []string
		look       int // at which the world is another; the first is before the first stream, the second after it
		world      func(*script) error
		state      v1alpha1.EvidenceState
		message    string
		untrusted  map[string]bool // what is stored, by container
	}{
		"by its namesake": {[]string{"a"}, 2, replaced, v1alpha1.EvidenceGap, "not to be trusted: a: the pod was replaced by a namesake while it was read", nil},
		"by its namesake, after the first": {
			[]string{"a", "b", "c"}, 3, replaced, v1alpha1.EvidencePartial,
			"could not be read: c: the pod was replaced by a namesake; not to be trusted: b: the pod was replaced by a namesake while it was read", map[string]bool{"a": false, "b": true},
		},
		"before the last look could be had": {[]string{"a", "b"}, 3, replacedInTheDark, v1alpha1.EvidencePartial, "not to be trusted: b: the pod was replaced", map[string]bool{"a": false, "b": true}},
		"by nobody knows what":              {[]string{"a", "b"}, 3, away, v1alpha1.EvidencePartial, "not to be trusted: b: it could not be made sure", map[string]bool{"a": false, "b": true}},
		"by nothing":                        {[]string{"a"}, 2, deleted, v1alpha1.EvidenceCollected, "deleted while it was read", map[string]bool{"a": false}},
		"by a restart":                      {[]string{"a"}, 2, restartedIt, v1alpha1.EvidenceCollected, "restarted while it was read", map[string]bool{"a": false}},
	} {
		t.Run(name, func(t *testing.T) {
			source := &script{pod: manyContainers(tc.containers...), logs: map[string]answer{}, onLook: func(s *script, n int) error {
				if n < tc.look {
					return nil
				}
				return tc.world(s)
			}}
			for _, c := range tc.containers {
				source.logs[c] = says(line)
			}
			withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
				w.passes(t)
				checkLogItem(t, w, tc.state, tc.message)
				if tc.untrusted == nil {
					if got := len(w.sink.(*vault).objects); got > 0 {
						t.Errorf("%d objects are stored, want none", got)
					}
					return
				}
				got := map[string]bool{}
				for _, log := range w.index(t).Logs {
					if log.Member != "" {
						got[log.Container] = log.Untrusted
					}
				}
				if diff := gocmp.Diff(tc.untrusted, got); diff != "" {
					t.Errorf("untrusted logs (-want +got):\n%s", diff)
				}
				members(t, w.zipped(t))
			})
		})
	}
}

// What may happen to the pod of a script.
func replaced(s *script) error { s.pod.UID = "other"; return nil }
func deleted(s *script) error  { s.pod = nil; return nil }
func away(*script) error       { return unavailable }
func restartedIt(s *script) error {
	s.pod.Status.ContainerStatuses[0] = endedBefore(runningStatus("a", 1), "containerd://a0")
	return nil
}

// replacedInTheDark is only seen a while after it has happened.
func replacedInTheDark(s *script) error {
	if s.pod.UID = "other"; s.looks < 10 {
		return unavailable
	}
	return nil
}

// What was got before the pod went stays.
func TestLogsOfAPodThatGoesBetweenStreams(t *testing.T) {
	pod := manyContainers(numbered(40)...)
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
		checkLogItem(t, w, v1alpha1.EvidencePartial, "could not be read: ")
		index, kept := w.index(t), 0
		for _, log := range index.Logs {
			if log.Member != "" {
				kept++
			} else if log.Problem != "the pod is gone" {
				t.Errorf("%s has the problem %q", log.Container, log.Problem)
			}
		}
		if kept != 19 || len(index.Logs) != 40 || index.Note != "the pod is gone" {
			t.Errorf("%d of %d logs were kept, note %q", kept, len(index.Logs), index.Note)
		}
	})
}

// numbered returns so many names of containers.
func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c%02d", i)
	}
	return names
}

// Logs that do not end cost the others nothing: each has its share of the time, and what one does not need is the others'.
func TestLogsOfFortyContainers(t *testing.T) {
	source := &script{pod: manyContainers(numbered(40)...), logs: map[string]answer{}}
	want := map[string]string{}
	for i, name := range numbered(40) {
		source.logs[name] = says(stamp + name + "\n")
		if i%13 == 0 {
			source.logs[name] = hangs(stamp + name + "\n")
		}
		want["container/"+name+"/current.log"] = stamp + name + "\n"
	}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		begun := time.Now()
		w.passes(t)
		const late = ": it had not ended when the time for it was over"
		checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete: c00"+late+", c13"+late+", c26"+late+", c39"+late)
		if source.most != 1 {
			t.Errorf("%d logs were read at a time, want one after the other", source.most)
		}
		checkMembers(t, w, want)
		if took := time.Since(begun); took < 10*time.Minute || took > 10*time.Minute+4*time.Second {
			t.Errorf("took %s, want all of the time, because the last one did not end", took)
		}
	})
}

// Where no log ends, each has the same share.
func TestLogsThatAllDoNotEnd(t *testing.T) {
	source := &script{pod: manyContainers(numbered(6)...), logs: map[string]answer{}}
	begun := map[string]time.Time{}
	for _, name := range numbered(6) {
		source.logs[name] = func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
			begun[name] = time.Now()
			return hangs(stamp+name+"\n")(ctx, o)
		}
	}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete: c00")
		if got := len(members(t, w.zipped(t))); got != 6 {
			t.Errorf("%d logs, want all six", got)
		}
		for i, name := range numbered(6) {
			if at := begun[name].Sub(begun["c00"]); at.Round(time.Second) != time.Duration(i)*100*time.Second {
				t.Errorf("%s had its turn after %s", name, at)
			}
		}
	})
}

// A kubelet that does not even answer costs a log its share, and no more.
func TestLogsThatAreNotAnswered(t *testing.T) {
	source := &script{pod: manyContainers("a", "b"), logs: map[string]answer{"b": says(stamp + "b\n")}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.logs = NewLogs(&unanswered{LogSource: source})
		begun := time.Now()
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidencePartial, "could not be read: a: it had not ended when the time for it was over")
		if took := time.Since(begun).Round(10 * time.Second); took != 5*time.Minute {
			t.Errorf("took %s, want half of the time", took)
		}
	})
}

// unanswered does not answer before the context ends when it is asked for the log of container a.
type unanswered struct{ LogSource }

func (u *unanswered) Open(ctx context.Context, namespace, name string, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	if opts.Container == "a" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return u.LogSource.Open(ctx, namespace, name, opts)
}

// A container that is restarted before its turn comes is read under both names.
func TestLogsOfARestartBeforeTheTurn(t *testing.T) {
	status := func(restarts int32, last string) corev1.ContainerStatus {
		if last == "" {
			return runningStatus("b", restarts)
		}
		return endedBefore(runningStatus("b", restarts), last)
	}
	for name, tc := range map[string]struct {
		before, after corev1.ContainerStatus
		message       string
		ids           map[string]string
	}{
		"once": {status(0, ""), status(1, "containerd://b0"), "", map[string]string{"current": "containerd://b1", "previous": "containerd://b0"}},
		"again": {
			status(1, "containerd://b0"), status(2, "containerd://b1"), "remarks: b (previous): instance containerd://b0 was gone before it could be read",
			map[string]string{"current": "containerd://b2", "previous": "containerd://b1"},
		},
		"twice": {
			status(0, ""), status(2, "containerd://b1"), "remarks: b: instance containerd://b0 was gone before it could be read",
			map[string]string{"current": "containerd://b2", "previous": "containerd://b1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := manyContainers("a", "b")
			pod.Status.ContainerStatuses[1] = tc.before
			source := &script{pod: pod, logs: map[string]answer{"a": says(stamp), "b": says(stamp + "now\n"), "b/previous": says(stamp + "before\n")}, onLook: restarts(1, tc.after)}
			withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
				w.passes(t)
				checkLogItem(t, w, v1alpha1.EvidenceCollected, tc.message)
				checkMembers(t, w, map[string]string{"container/a/current.log": stamp, "container/b/current.log": stamp + "now\n", "container/b/previous.log": stamp + "before\n"})
				got := map[string]string{}
				for _, log := range w.index(t).Logs[1:] {
					got[log.Instance] = log.ContainerID
				}
				if diff := gocmp.Diff(tc.ids, got); diff != "" {
					t.Errorf("instances (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// restarts lets a container have another status from the second look at the pod on.
func restarts(container int, after corev1.ContainerStatus) func(*script, int) error {
	return func(s *script, n int) error {
		if n == 2 {
			s.pod.Status.ContainerStatuses[container] = after
		}
		return nil
	}
}

func checkMembers(t *testing.T, w *logWorld, want map[string]string) {
	t.Helper()
	if diff := gocmp.Diff(want, members(t, w.zipped(t))); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// A container that is restarted after its turn is not read twice.
func TestLogsOfARestartAfterTheTurn(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after corev1.ContainerStatus
		state         v1alpha1.EvidenceState
		message       string
		logs          int
	}{
		"first":  {runningStatus("a", 0), endedBefore(runningStatus("a", 1), "containerd://a0"), v1alpha1.EvidenceCollected, "remarks: a: the container was restarted while it was read", 2},
		"second": {endedBefore(runningStatus("a", 1), "containerd://a0"), endedBefore(runningStatus("a", 2), "containerd://a1"), v1alpha1.EvidencePartial, "could not be read: a (previous): this instance was gone", 3},
	} {
		t.Run(name, func(t *testing.T) {
			pod := manyContainers("a", "b")
			pod.Status.ContainerStatuses[0] = tc.before
			source := &script{pod: pod, logs: map[string]answer{"a": says(stamp + "a\n"), "a/previous": says(stamp + "a\n"), "b": says(stamp)}, onLook: restarts(0, tc.after)}
			withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
				w.passes(t)
				checkLogItem(t, w, tc.state, tc.message)
				checkMembers(t, w, map[string]string{"container/a/current.log": stamp + "a\n", "container/b/current.log": stamp})
				if got := len(w.index(t).Logs); got != tc.logs {
					t.Errorf("%d logs are in the index, want %d", got, tc.logs)
				}
			})
		})
	}
}

// A log that lasts until the deadline is still made sure of afterwards.
func TestLogsAreConfirmedAfterTheDeadline(t *testing.T) {
	source := &script{pod: onePod(), logs: map[string]answer{"app": hangs(stamp + "a\n")}, onLook: func(_ *script, n int) error {
		if n == 2 || n == 3 {
			return unavailable
		}
		return nil
	}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		if errs := w.passes(t); len(errs) > 0 {
			t.Errorf("errors = %q, want one try", errs)
		}
		checkIndex(t, w, []IndexedLog{{Container: "app", Bytes: int64(len(stamp) + 2), Lines: 1, Incomplete: true, Problem: "time for it was over"}})
	})
}

// That one log is known to be empty is not all there is to have.
func TestLogsOfWhichOneIsEmpty(t *testing.T) {
	tries := 0
	source := &script{pod: manyContainers("a", "b"), logs: map[string]answer{"a": says(""), "b": func(ctx context.Context, o *corev1.PodLogOptions) (io.ReadCloser, error) {
		if tries++; tries < 4 {
			return nil, unavailable
		}
		return says(stamp)(ctx, o)
	}}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
		checkIndex(t, w, []IndexedLog{{Container: "a"}, {Container: "b", Bytes: int64(len(stamp)), Lines: 1}})
	})
}

func TestMemberNames(t *testing.T) {
	for kind, want := range map[string]string{
		kindInit: "init/a-1/previous.log", kindSidecar: "init/a-1/previous.log", kindOrdinary: "container/a-1/previous.log", kindEphemeral: "ephemeral/a-1/previous.log",
	} {
		if got, err := (&podLog{IndexedLog: IndexedLog{Kind: kind, Container: "a-1", Instance: instancePrevious}}).memberName(); got != want || err != nil {
			t.Errorf("memberName() = %q, %v, want %q", got, err, want)
		}
	}
	for _, name := range []string{"", ".", "..", "../../etc/passwd", "/etc", "a/b", `a\b`, "C:", "A", "a\x00b", "a\n", strings.Repeat("x", 64)} {
		if got, err := (&podLog{IndexedLog: IndexedLog{Kind: kindOrdinary, Container: name, Instance: instanceCurrent}}).memberName(); err == nil {
			t.Errorf("memberName() of %q = %q", name, got)
		}
	}
	source := &script{pod: manyContainers("../a", "b"), logs: map[string]answer{"../a": says(stamp), "b": says(stamp)}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidencePartial, "could not be read: ../a: the container's name is not fit")
		checkMembers(t, w, map[string]string{"container/b/current.log": stamp})
	})
}

func TestReadIndexOfWhatIsNone(t *testing.T) {
	var empty, broken bytes.Buffer
	archive := zip.NewWriter(&empty)
	other := zip.NewWriter(&broken)
	member, err := other.Create("index.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(member, "{"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"no zip": []byte("{}"), "no index": empty.Bytes(), "half an index": broken.Bytes()} {
		if index, err := ReadIndex(bytes.NewReader(raw), int64(len(raw))); err == nil {
			t.Errorf("%s: ReadIndex() = %+v", name, index)
		}
	}
}

// A log is evidence byte for byte, and its text never comes near a terminal.
func TestLogsKeepBytesAsTheyAre(t *testing.T) {
	raw := stamp + "\x00\x1b[2J\x1b]0;owned\x07\xff\xfe\xc3\x28 \u202egnp.exe\r\n" + stamp + "\x80\x80"
	source := &script{pod: onePod(), logs: map[string]answer{"app": breaks(raw, errors.New(raw))}}
	withLogs(t, &logWorld{source: source, sink: &vault{}}, func(t *testing.T, w *logWorld) {
		errs := w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete")
		if got := members(t, w.zipped(t))["container/app/current.log"]; got != raw {
			t.Errorf("stored %q, want %q", got, raw)
		}
		for _, text := range append(errs, w.index(t).Logs[0].Problem) {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not fit for a terminal", text)
			}
		}
	})
}

// refusing is a Sink that fails so often before it has read anything.
type refusing struct {
	*vault
	left int
}

func (f *refusing) PutItem(ctx context.Context, incidentUID string, r io.Reader) (store.Object, error) {
	if f.left > 0 {
		f.left--
		return store.Object{}, errors.New("no room")
	}
	return f.vault.PutItem(ctx, incidentUID, r)
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
	t.Run("and do not wait for a log to tell them that it has failed", func(t *testing.T) {
		sink := &refusing{vault: &vault{}, left: 3}
		withLogs(t, &logWorld{source: &script{pod: manyContainers("a", "b"), logs: map[string]answer{"a": hangs(stamp + strings.Repeat("a", maxAnswer) + "\n"), "b": says(stamp)}}, sink: sink}, func(t *testing.T, w *logWorld) {
			begun := time.Now()
			errs := w.passes(t)
			if len(errs) != 3 || !strings.Contains(errs[2], "no room") {
				t.Errorf("errors = %q, want three", errs)
			}
			checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete: a")
			if took := time.Since(begun); took > 5*time.Minute+20*time.Second {
				t.Errorf("took %s, want the share of the log that does not end, once", took)
			}
			w.sink = sink.vault
			members(t, w.zipped(t))
		})
	})
}

func TestLogsWaitForTheStoreUntilTheirDeadline(t *testing.T) {
	down := errors.New("the bucket is \x1b[31maway")
	t.Run("and are tried once more when it fails at the deadline", func(t *testing.T) {
		sink := &vault{fail: func(n int) error {
			if n == 1 {
				return down
			}
			return nil
		}}
		withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": hangs(stamp + "a\n")}}, sink: sink}, func(t *testing.T, w *logWorld) {
			if errs := w.passes(t); len(errs) != 1 {
				t.Errorf("errors = %q, want one", errs)
			}
			checkLogItem(t, w, v1alpha1.EvidencePartial, "incomplete: app")
			checkIndex(t, w, []IndexedLog{{Container: "app", Bytes: int64(len(stamp) + 2), Lines: 1, Incomplete: true, Problem: "time for it was over"}})
		})
	})
	t.Run("that panics", func(t *testing.T) {
		sink := &vault{fail: func(n int) error {
			if n == 1 {
				panic("in the store")
			}
			return nil
		}}
		withLogs(t, &logWorld{source: &script{pod: onePod(), logs: map[string]answer{"app": says(stamp)}}, sink: sink}, func(t *testing.T, w *logWorld) {
			if errs := w.passes(t); len(errs) != 1 || !strings.Contains(errs[0], "in the store") {
				t.Errorf("errors = %q, want one", errs)
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
		checkLogItem(t, w, v1alpha1.EvidenceGap, "had not ended when the time for it was over")
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

// meter is a Sink that keeps what it gets in a file, and looks at the heap while it reads.
type meter struct {
	file *os.File
	peak uint64
}

func (m *meter) PutItem(_ context.Context, _ string, r io.Reader) (store.Object, error) {
	buf := make([]byte, 32<<10)
	var size int64
	for i := 0; ; i++ {
		n, err := r.Read(buf)
		if _, wrong := m.file.Write(buf[:n]); wrong != nil {
			return store.Object{}, wrong
		}
		size += int64(n)
		if i%256 == 0 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			m.peak = max(m.peak, stats.HeapAlloc)
		}
		if errors.Is(err, io.EOF) {
			return store.Object{Key: "k", PlainDigest: "sha256:x", PlainSize: size}, nil
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
	file, err := os.Create(filepath.Join(t.TempDir(), "logs.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	sink := &meter{file: file}
	w := &logWorld{source: source, sink: sink, orders: v1alpha1.EvidenceOrders{Logs: v1alpha1.LogOrders{MaxBytes: 16 << 30}}}
	withLogs(t, w, func(t *testing.T, w *logWorld) {
		w.passes(t)
		checkLogItem(t, w, v1alpha1.EvidenceCollected, "")
	})
	index, err := ReadIndex(file, w.item.Size)
	if err != nil {
		t.Fatal(err)
	}
	if got := index.Logs[0].Bytes; got != size {
		t.Errorf("%d bytes came through, want %d", got, size)
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
	pod := manyContainers("app", "endless")
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
	index, err := ReadIndex(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if app := index.Logs[0]; app.Lines != 1_000_000 || app.Truncated || app.Incomplete {
		t.Errorf("app = %+v, want a million lines", app)
	}
	defaultBytes := w.execution().Orders.Logs.MaxBytes
	if cut := index.Logs[1]; cut.Bytes != defaultBytes || !cut.Truncated {
		t.Errorf("endless = %+v, want it cut at 64 MiB", cut)
	}
	keys, err := st.Keys(t.Context(), "incidents/inc-uid/items/")
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff([]string{w.item.Location}, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if err := st.Verify(t.Context(), store.Object{Key: w.item.Location, Digest: w.item.Digest, Size: w.item.Size}); err != nil {
		t.Error(err)
	}
	logs := members(t, raw)
	if got, want := logs["container/app/current.log"], strings.Repeat(string(line), 1_000_000); got != want {
		t.Errorf("the log of a million lines is another one, of %d bytes", len(got))
	}
	if got := logs["container/endless/current.log"]; int64(len(got)) != defaultBytes {
		t.Errorf("the log without an end has %d bytes", len(got))
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
