package evidence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const toolImage = "registry.example.com/tool@sha256:0000000000000000000000000000000000000000000000000000000000000000"

// scribe writes to the fake API server and notes what it wrote; in a dry run it only notes.
type scribe struct {
	c       client.Client
	dryRun  bool
	written []string
}

func (s *scribe) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	s.written = append(s.written, op.Verb+" "+op.Object.Kind+" "+op.Object.Namespace)
	if s.dryRun {
		return nil
	}
	return fn(ctx, s.c)
}

// jobWorld is one job for one pod, on a fake API server.
type jobWorld struct {
	t      *testing.T
	c      client.Client
	scribe *scribe
	source *script
	sink   *vault
	orders v1alpha1.EvidenceOrders
	pod    *corev1.Pod
	b      *Background
	jobs   *Jobs
	item   v1alpha1.EvidenceItem
	fail   func(obj client.Object) error // of creations
}

func withJob(t *testing.T, order v1alpha1.EvidenceJob, test func(w *jobWorld)) {
	t.Helper()
	inBackground(t, 1, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		w := &jobWorld{t: t, source: &script{}, sink: &vault{}, pod: onePod(), b: b, orders: effective(v1alpha1.EvidenceOrders{Jobs: []v1alpha1.EvidenceJob{order}})}
		scheme := runtime.NewScheme()
		if err := clientgoscheme.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		byUID := func(obj client.Object) []string { return []string{string(obj.(*corev1.Event).InvolvedObject.UID)} }
		w.c = fake.NewClientBuilder().WithScheme(scheme).WithIndex(&corev1.Event{}, "involvedObject.uid", byUID).WithStatusSubresource(&batchv1.Job{}, &corev1.Pod{}).
			WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				if w.fail != nil {
					if err := w.fail(obj); err != nil {
						return err
					}
				}
				obj.SetUID(types.UID(strings.ToLower(fmt.Sprintf("%T-uid", obj)[1:])))
				obj.SetCreationTimestamp(metav1.Now())
				return c.Create(ctx, obj, opts...)
			}}).Build()
		w.scribe, w.jobs = &scribe{c: w.c}, &Jobs{Source: w.source}
		w.item = w.jobs.Begin(w.execution(), []*corev1.Pod{w.pod})[0]
		test(w)
	})
}

func (w *jobWorld) execution() *Execution {
	return &Execution{
		Reader: w.c, Writer: w.scribe, Sink: w.sink, Background: w.b, Orders: w.orders, Now: time.Now(),
		Incident: &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: "inc-uid"}},
		Pod: func(uid string) *corev1.Pod {
			if w.pod == nil || string(w.pod.UID) != uid {
				return nil
			}
			return w.pod
		},
	}
}

func (w *jobWorld) pass() error {
	item, err := w.jobs.Collect(w.t.Context(), w.execution(), w.item)
	w.item = item
	synctest.Wait()
	time.Sleep(2 * time.Second)
	return err
}

// passes lets so many passes go by without an error.
func (w *jobWorld) passes(n int) {
	w.t.Helper()
	for range n {
		if err := w.pass(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *jobWorld) job() *batchv1.Job {
	w.t.Helper()
	var job batchv1.Job
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: JobNamespace, Name: JobName("inc-uid", w.item.ID)}, &job); err != nil {
		w.t.Fatal(err)
	}
	return &job
}

// runs makes the pod of the job, as the Job controller and a kubelet would.
func (w *jobWorld) runs(status corev1.PodStatus) {
	w.t.Helper()
	job := w.job()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: JobNamespace, Name: "job-pod", Labels: job.Spec.Template.Labels, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID, Controller: new(true),
		}}},
		Spec: job.Spec.Template.Spec,
	}
	if err := w.c.Create(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Status = status
	if err := w.c.Status().Update(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
	w.source.pod = pod
}

func (w *jobWorld) jobEnds(kind batchv1.JobConditionType, reason, message string) {
	w.t.Helper()
	job := w.job()
	job.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message}}
	if err := w.c.Status().Update(w.t.Context(), job); err != nil {
		w.t.Fatal(err)
	}
}

// refused is what the Job controller says when admission lets no pod through.
func (w *jobWorld) refused() {
	w.t.Helper()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: JobNamespace, Name: "e"}, InvolvedObject: corev1.ObjectReference{UID: w.job().UID},
		Type: corev1.EventTypeWarning, Reason: "FailedCreate", Message: `violates PodSecurity "restricted"`,
	}
	if err := w.c.Create(w.t.Context(), event); err != nil {
		w.t.Fatal(err)
	}
}

func endedWith(code int32, reason string) corev1.PodStatus {
	return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, ContainerID: "c0", FinishedAt: metav1.NewTime(time.Unix(1000, 0))},
	}}}}
}

func waitsWith(reason, message string) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message},
	}}}}
}

func portOf(n int) *intstr.IntOrString { return new(intstr.FromInt(n)) }

var tool = v1alpha1.EvidenceJob{Name: "mem", Image: toolImage, DeadlineSeconds: 300, MaxParallel: 4}

func TestJobsBegin(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	orders := effective(v1alpha1.EvidenceOrders{Jobs: []v1alpha1.EvidenceJob{tool, {Name: "disk", Image: toolImage}}})
	other := onePod(func(p *corev1.Pod) { p.Name, p.UID = "web-1", "pod-uid-1" })
	got := map[string]time.Duration{}
	for _, item := range (&Jobs{}).Begin(&Execution{Now: now, Orders: orders}, []*corev1.Pod{onePod(), other}) {
		got[item.ID+" "+item.Job+" "+item.Subject.Name] = item.Deadline.Sub(now)
	}
	want := map[string]time.Duration{
		"job-mem-pod-uid mem web-0": 6 * time.Minute, "job-mem-pod-uid-1 mem web-1": 6 * time.Minute,
		"job-disk-pod-uid disk web-0": 11 * time.Minute, "job-disk-pod-uid-1 disk web-1": 11 * time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Begin() (-want +got):\n%s", diff)
	}
	if got := (&Jobs{}).About().Deadline(orders); got != 11*time.Minute {
		t.Errorf("the deadline is %s", got)
	}
	if id := JobID(strings.Repeat("x", 40), types.UID(strings.Repeat("0", 36))); len(id) > 128 || len(JobName("inc-uid", id)) > 63 {
		t.Errorf("%s is too long", id)
	}
}

func TestJobsStartOnlyBehindTheirPolicy(t *testing.T) {
	order := tool
	order.Egress = []v1alpha1.EvidenceJobEgress{
		{CIDR: "198.51.100.7/32", Ports: []v1alpha1.ExceptionPort{{Port: 443}, {Protocol: "UDP", Port: 53}}}, {CIDR: "203.0.113.0/24"},
	}
	withJob(t, order, func(w *jobWorld) {
		w.passes(1)
		if diff := cmp.Diff([]string{"create NetworkPolicy cofferdam-evidence"}, w.scribe.written); diff != "" {
			t.Errorf("the first pass wrote (-want +got):\n%s", diff)
		}
		w.passes(3)
		if diff := cmp.Diff([]string{"create NetworkPolicy cofferdam-evidence", "create Job cofferdam-evidence"}, w.scribe.written); diff != "" {
			t.Errorf("wrote (-want +got):\n%s", diff)
		}
		job := w.job()
		var policy networkingv1.NetworkPolicy
		if err := w.c.Get(t.Context(), client.ObjectKeyFromObject(job), &policy); err != nil {
			t.Fatal(err)
		}
		tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
		want := networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{JobLabel: job.Spec.Template.Labels[JobLabel]}},
			PolicyTypes: []networkingv1.PolicyType{"Ingress", "Egress"},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "198.51.100.7/32"}}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: portOf(443)}, {Protocol: &udp, Port: portOf(53)}},
			}},
		}
		if diff := cmp.Diff(want, policy.Spec); diff != "" {
			t.Errorf("policy (-want +got):\n%s", diff)
		}
		objects, err := JobObjects(t.Context(), w.c, "inc-uid")
		if err != nil || len(objects) != 2 {
			t.Errorf("JobObjects() = %v, %v, want the Job and its policy", objects, err)
		}
		if objects, err := JobObjects(t.Context(), w.c, "other"); err != nil || len(objects) != 0 {
			t.Errorf("JobObjects() of another Incident = %v, %v", objects, err)
		}
	})
}

func TestJobSpec(t *testing.T) {
	order := tool
	order.Command, order.Args = []string{"/tool"}, []string{"-v"}
	spec := specOf(order)
	if *spec.BackoffLimit != 0 || *spec.ActiveDeadlineSeconds != 330 || spec.TTLSecondsAfterFinished != nil {
		t.Errorf("job = %+v", spec)
	}
	pod := spec.Template.Spec
	if *pod.ActiveDeadlineSeconds != 300 || *pod.AutomountServiceAccountToken || pod.NodeName != "node-a" || pod.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("pod = %+v", pod)
	}
	env := map[string]string{}
	for _, e := range pod.Containers[0].Env {
		env[e.Name] = e.Value
	}
	wantEnv := map[string]string{"COFFERDAM_NAMESPACE": "shop", "COFFERDAM_POD": "web-0", "COFFERDAM_POD_UID": "pod-uid", "COFFERDAM_NODE": "node-a"}
	if diff := cmp.Diff(wantEnv, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	c := pod.Containers[0]
	if c.Image != toolImage || c.Command[0] != "/tool" || c.Args[0] != "-v" {
		t.Errorf("container = %+v", c)
	}
}

// A tool gets what it needs of the node only when that is ordered.
func TestJobAccess(t *testing.T) {
	pod := specOf(tool).Template.Spec
	c := pod.Containers[0]
	restricted := pod.HostPID || !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*c.SecurityContext.AllowPrivilegeEscalation || c.SecurityContext.Privileged != nil || c.SecurityContext.Capabilities.Drop[0] != "ALL"
	if restricted {
		t.Errorf("without access: %+v, %+v", pod.SecurityContext, c.SecurityContext)
	}
	order := tool
	order.Access = "Node"
	pod = specOf(order).Template.Spec
	if !pod.HostPID || !*pod.Containers[0].SecurityContext.Privileged || pod.HostNetwork || pod.HostIPC || *pod.AutomountServiceAccountToken {
		t.Errorf("with access to the node: %+v", pod)
	}
}

// specOf is of the Job that is made for the order.
func specOf(order v1alpha1.EvidenceJob) batchv1.JobSpec {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: "inc-uid"}}
	return jobFor(inc, "job-mem-pod-uid", order, onePod()).Spec
}

func TestJobsOutput(t *testing.T) {
	cases := map[string]struct {
		status  corev1.PodStatus
		output  answer
		state   v1alpha1.EvidenceState
		message string
		kept    string
	}{
		"printed":             {endedWith(0, "Completed"), says("\x00\x1b[31mmemory"), v1alpha1.EvidenceCollected, "", "\x00\x1b[31mmemory"},
		"failed with output":  {endedWith(3, "Error"), says("half"), v1alpha1.EvidenceCollected, "exit code 3 (Error)", "half"},
		"printed nothing":     {endedWith(0, "Completed"), says(""), v1alpha1.EvidenceGap, "it printed nothing", ""},
		"failed silently":     {endedWith(137, "OOMKilled"), says(""), v1alpha1.EvidenceGap, "it printed nothing; the tool failed with exit code 137 (OOMKilled)", ""},
		"ended at its end":    {func() corev1.PodStatus { s := endedWith(137, "Error"); s.Reason = "DeadlineExceeded"; return s }(), says("half"), v1alpha1.EvidenceGap, "ended at its deadline; what it had printed is kept", "half"},
		"breaks off":          {endedWith(0, "Completed"), breaks("half", errors.New("reset")), v1alpha1.EvidenceCollected, "the output is incomplete: it broke off: reset", "half"},
		"lost by the kubelet": {endedWith(0, "Completed"), says("unable to retrieve container logs for containerd://c0"), v1alpha1.EvidenceGap, "unable to retrieve container logs", ""},
		"refused":             {endedWith(0, "Completed"), nil, v1alpha1.EvidenceGap, "its output could not be read", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			withJob(t, tool, func(w *jobWorld) {
				w.passes(3)
				w.runs(tc.status)
				if tc.output != nil {
					w.source.logs = map[string]answer{jobContainer: tc.output}
				}
				w.passes(2)
				if w.item.State != tc.state || !strings.Contains(w.item.Message, tc.message) || tc.message == "" && w.item.Message != "" {
					t.Errorf("item is %s: %q, want %s: %q", w.item.State, w.item.Message, tc.state, tc.message)
				}
				if got := string(w.sink.objects[w.item.Location]); got != tc.kept || (w.item.Digest != "") != (tc.kept != "") {
					t.Errorf("kept %q at %q with digest %q, want %q", got, w.item.Location, w.item.Digest, tc.kept)
				}
			})
		})
	}
}

func TestJobsThatDoNotGetFar(t *testing.T) {
	cases := map[string]struct {
		world   func(w *jobWorld) // after three passes
		message string
		early   bool // settled before the deadline
	}{
		"image that cannot be pulled":                   {func(w *jobWorld) { w.runs(waitsWith("ImagePullBackOff", "no \x1b[31msuch image")) }, "waits for the tool to end: ImagePullBackOff: no �[31msuch image", false},
		"refused by admission":                          {func(w *jobWorld) { w.refused() }, `waits for the job's pod: FailedCreate: violates PodSecurity "restricted"`, false},
		"refused by admission until the Job's deadline": {func(w *jobWorld) { w.refused(); w.jobEnds(batchv1.JobFailed, "DeadlineExceeded", "too long") }, `could not be created: FailedCreate: violates`, true},
		"never ends": {func(w *jobWorld) { w.runs(corev1.PodStatus{Phase: corev1.PodRunning}) }, "waits for the tool to end", false},
		"pod failed before it ran": {func(w *jobWorld) {
			w.runs(corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfpods", Message: "node is full"})
		}, "failed before the tool ran: OutOfpods: node is full", true},
		"ended by the Job's deadline": {func(w *jobWorld) { w.jobEnds(batchv1.JobFailed, "DeadlineExceeded", "too long") }, "its pod is gone: DeadlineExceeded: too long", true},
		"ended without a pod":         {func(w *jobWorld) { w.jobEnds(batchv1.JobComplete, "", "") }, "its pod is gone, and its output with it", true},
		"removed by somebody": {func(w *jobWorld) {
			if err := w.c.Delete(w.t.Context(), w.job()); err != nil {
				w.t.Fatal(err)
			}
		}, "was removed by somebody before its output was read; it is not run again", true},
		"not ours": {func(w *jobWorld) {
			job := w.job()
			job.Labels[v1alpha1.IncidentUIDLabel] = "other"
			if err := w.c.Update(w.t.Context(), job); err != nil {
				w.t.Fatal(err)
			}
		}, "is not ours", true},
		"not ordered any more": {func(w *jobWorld) { w.orders.Jobs = nil }, "no such job any more", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			withJob(t, tool, func(w *jobWorld) {
				w.passes(3)
				tc.world(w)
				w.passes(1)
				if settled := w.item.State != v1alpha1.EvidencePending; settled != tc.early {
					t.Errorf("settled early: %v (%q), want %v", settled, w.item.Message, tc.early)
				}
				time.Sleep(10 * time.Minute)
				w.passes(1)
				if w.item.State != v1alpha1.EvidenceGap || !strings.Contains(w.item.Message, tc.message) {
					t.Errorf("item is %s: %q, want a gap: %q", w.item.State, w.item.Message, tc.message)
				}
				if w.item.Digest != "" {
					t.Errorf("a gap with a digest: %+v", w.item)
				}
			})
		})
	}
}

func TestJobsThatCannotBeStarted(t *testing.T) {
	refused := errors.New("namespaces \"cofferdam-evidence\" not found")
	cases := map[string]struct {
		world   func(w *jobWorld)
		message string
		written int
	}{
		"the pod is gone":   {func(w *jobWorld) { w.pod = nil }, "the pod was gone before the job was started", 0},
		"the pod never ran": {func(w *jobWorld) { w.pod.Spec.NodeName = "" }, "waits for the pod to be on a node", 0},
		"no namespace":      {func(w *jobWorld) { w.fail = func(client.Object) error { return refused } }, "not found", -1},
		"job refused": {func(w *jobWorld) {
			w.fail = func(obj client.Object) error {
				if _, job := obj.(*batchv1.Job); job {
					return errors.New("exceeded quota")
				}
				return nil
			}
		}, "exceeded quota", -1},
		"policy that lets more through": {func(w *jobWorld) {
			policy := jobPolicy(w.execution().Incident, w.item.ID, tool)
			policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
			if err := w.c.Create(w.t.Context(), policy); err != nil {
				w.t.Fatal(err)
			}
		}, "is not what it has to be", 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			withJob(t, tool, func(w *jobWorld) {
				tc.world(w)
				w.untilSettled(tc.message)
				if w.item.State != v1alpha1.EvidenceGap || !strings.Contains(w.item.Message, tc.message) {
					t.Errorf("item is %s: %q, want a gap: %q", w.item.State, w.item.Message, tc.message)
				}
				if tc.written >= 0 && len(w.scribe.written) != tc.written {
					t.Errorf("wrote %v", w.scribe.written)
				}
				var jobs batchv1.JobList
				if err := w.c.List(t.Context(), &jobs); err != nil || len(jobs.Items) > 0 {
					t.Errorf("%d jobs were started, %v", len(jobs.Items), err)
				}
			})
		})
	}
}

// untilSettled makes passes, of which only that error may come.
func (w *jobWorld) untilSettled(message string) {
	w.t.Helper()
	for range 400 {
		if err := w.pass(); err != nil && !strings.Contains(err.Error(), message) {
			w.t.Fatal(err)
		}
		if w.item.State != v1alpha1.EvidencePending {
			return
		}
	}
}

// someJobs are items of one job for pods of one workload, with the objects of a cluster that never stops.
type someJobs struct {
	*jobWorld
	pods  map[string]*corev1.Pod
	items []v1alpha1.EvidenceItem
}

func manyPods(w *jobWorld, n int) *someJobs {
	many := &someJobs{jobWorld: w, pods: map[string]*corev1.Pod{}}
	for i := range n {
		pod := onePod(func(p *corev1.Pod) { p.Name, p.UID = fmt.Sprintf("web-%d", i), types.UID(fmt.Sprintf("pod-uid-%d", i)) })
		many.pods[string(pod.UID)] = pod
		many.items = append(many.items, w.jobs.Begin(w.execution(), []*corev1.Pod{pod})...)
	}
	return many
}

// pass lets every item be looked at, and forgets what came of it if the pass dies.
func (m *someJobs) pass(dies bool) {
	m.t.Helper()
	x := m.execution()
	x.Pod = func(uid string) *corev1.Pod { return m.pods[uid] }
	for i, item := range m.items {
		if item.State != v1alpha1.EvidencePending {
			continue
		}
		item, err := m.jobs.Collect(m.t.Context(), x, item)
		if err != nil {
			m.t.Fatal(err)
		}
		if !dies {
			m.items[i] = item
		}
	}
	synctest.Wait()
	time.Sleep(2 * time.Second)
}

// running are the jobs that have not ended.
func (m *someJobs) running() []batchv1.Job {
	m.t.Helper()
	var jobs batchv1.JobList
	if err := m.c.List(m.t.Context(), &jobs); err != nil {
		m.t.Fatal(err)
	}
	out := []batchv1.Job{}
	for _, job := range jobs.Items {
		if len(job.Status.Conditions) == 0 {
			out = append(out, job)
		}
	}
	return out
}

func (m *someJobs) count() map[v1alpha1.EvidenceState]int {
	out := map[v1alpha1.EvidenceState]int{}
	for _, item := range m.items {
		out[item.State]++
	}
	return out
}

// end ends jobs as the Job controller does.
func (m *someJobs) end(jobs []batchv1.Job) {
	m.t.Helper()
	for i := range jobs {
		jobs[i].Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
		if err := m.c.Status().Update(m.t.Context(), &jobs[i]); err != nil {
			m.t.Fatal(err)
		}
	}
}

// However long the others take, an item has all of its own time once its turn has come, and no pass starts more than may run, not even one after another that died.
func TestJobsWaitForTheirTurn(t *testing.T) {
	order := tool
	order.MaxParallel = 2
	withJob(t, order, func(w *jobWorld) {
		m := manyPods(w, 5)
		for turn, want := range []int{2, 2, 1} {
			m.pass(true)
			m.pass(true)
			m.pass(false)
			running := m.running()
			if len(running) != want {
				t.Fatalf("in turn %d %d jobs run, want %d", turn, len(running), want)
			}
			for _, item := range m.items[min(2*turn+2, 5):] {
				if !item.Deadline.IsZero() || item.Message != "waits for its turn: the ContainmentPolicy lets this job run for 2 pods at a time" {
					t.Errorf("in turn %d %s waits until %s: %q", turn, item.ID, item.Deadline, item.Message)
				}
			}
			time.Sleep(290 * time.Second)
			m.pass(false)
			for _, item := range m.items[2*turn : min(2*turn+2, 5)] {
				if left := time.Until(item.Deadline.Time); item.State != v1alpha1.EvidencePending || left < 50*time.Second {
					t.Errorf("in turn %d %s is %s, %q, with %s left", turn, item.ID, item.State, item.Message, left)
				}
			}
			m.end(running)
		}
		m.pass(false)
		if got := m.count(); got[v1alpha1.EvidenceGap] != 5 { // they ended without a pod; what counts is that all of them were run
			t.Errorf("in the end: %v", got)
		}
	})
}

func TestJobsOfAllIncidents(t *testing.T) {
	withJob(t, tool, func(w *jobWorld) {
		w.jobs.AtOnce = 3
		m := manyPods(w, 3)
		other := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-2", UID: "other-uid"}}
		for _, id := range []string{"job-mem-a", "job-mem-b"} {
			if err := w.c.Create(t.Context(), jobFor(other, id, tool, onePod())); err != nil {
				t.Fatal(err)
			}
		}
		m.pass(false)
		m.pass(false)
		if got := m.running(); len(got) != 3 || m.items[1].Message != "waits for its turn: the operator runs 3 evidence jobs at a time for all Incidents together" {
			t.Errorf("%d jobs run, and the second item says %q", len(got), m.items[1].Message)
		}
		// Nobody ends jobs any more: those that should have ended long ago take up no room.
		time.Sleep(10 * time.Minute)
		m.pass(false)
		if got := m.running(); len(got) != 5 || m.items[0].State != v1alpha1.EvidenceGap {
			t.Errorf("%d jobs run, and the first item is %s", len(got), m.items[0].State)
		}
	})
}

// That it waits for its turn does not keep an item that cannot be started from becoming a gap.
func TestJobsThatWaitedAndCannotBeStarted(t *testing.T) {
	withJob(t, tool, func(w *jobWorld) {
		w.jobs.AtOnce = 1
		other := jobFor(&v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: "other-uid"}}, "job-mem-a", tool, onePod())
		if err := w.c.Create(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		w.passes(2)
		if !w.item.Deadline.IsZero() {
			t.Fatalf("item %+v does not wait for its turn", w.item)
		}
		w.fail = func(client.Object) error { return errors.New("exceeded quota") }
		time.Sleep(10 * time.Minute)
		w.untilSettled("exceeded quota")
		if w.item.State != v1alpha1.EvidenceGap || !strings.Contains(w.item.Message, "exceeded quota") {
			t.Errorf("item is %s: %q", w.item.State, w.item.Message)
		}
	})
}

func TestJobsInADryRun(t *testing.T) {
	withJob(t, tool, func(w *jobWorld) {
		w.scribe.dryRun = true
		x := w.execution()
		x.DryRun = true
		item, err := w.jobs.Collect(t.Context(), x, w.item)
		if diff := cmp.Diff(w.item, item); diff != "" || err != nil {
			t.Errorf("Collect() changed the item: %v %s", err, diff)
		}
		if diff := cmp.Diff([]string{"create NetworkPolicy cofferdam-evidence", "create Job cofferdam-evidence"}, w.scribe.written); diff != "" {
			t.Errorf("planned (-want +got):\n%s", diff)
		}
	})
}

// The interface is what the reconciler has.
var _ = []Collector{&Logs{}, &Checkpoints{}, &Jobs{}}
