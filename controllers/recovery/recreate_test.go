package recovery

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestDesired(t *testing.T) {
	mark := map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}
	of := func(kind v1alpha1.RecoverableKind, was objectRecord) *recreation {
		return &recreation{x: &Execution{Incident: incident(nil)}, name: v1alpha1.WorkloadRef{Kind: kind, Name: "web"}, good: good("main"), was: &was}
	}
	t.Run("a pod", func(t *testing.T) {
		spec := podSpec(badImage)
		spec.NodeName, spec.EphemeralContainers = "node-1", []corev1.EphemeralContainer{{}}
		got := of("Pod", objectRecord{Labels: map[string]string{"app": "web"}, Pod: &spec}).desired()
		want := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{"app": "web"}, Annotations: mark}, Spec: podSpec(goodImage)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("desired() (-want +got):\n%s", diff)
		}
	})
	t.Run("a Job", func(t *testing.T) {
		was := batchv1.JobSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: "old"}}, Parallelism: new(int32(2)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", batchv1.ControllerUidLabel: "old", batchv1.JobNameLabel: "web", "controller-uid": "old", "job-name": "web"}}, Spec: podSpec(badImage)},
		}
		got := of("Job", objectRecord{Job: &was}).desired()
		want := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: mark}, Spec: batchv1.JobSpec{
			Parallelism: new(int32(2)), Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: mark}, Spec: podSpec(goodImage)},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("desired() (-want +got):\n%s", diff)
		}
	})
}

func TestRecreationRefusal(t *testing.T) {
	bare := func(changes ...func(*corev1.Pod)) *corev1.Pod {
		p := heldPod("web")
		p.Spec = podSpec(badImage)
		for _, change := range changes {
			change(p)
		}
		return p
	}
	collected := []v1alpha1.EvidenceItem{{Pods: []string{"uid-web"}, State: v1alpha1.EvidenceCollected}}
	cases := map[string]struct {
		pod      *corev1.Pod
		evidence []v1alpha1.EvidenceItem
		stranger bool
		how      v1alpha1.BlockedReplacement
		want     string
	}{
		"with its evidence": {pod: bare(), evidence: collected},
		"without":           {pod: bare(), want: "the evidence of Pod web is not complete"},
		"of a controller":   {pod: bare(func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{keptBy("ReplicaSet", "web-1")} }), evidence: collected, want: "is of ReplicaSet web-1"},
		"detached from one": {pod: bare(func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"labels":{},"owner":{"kind":"ReplicaSet","name":"web-1"}}`}
		}), evidence: collected, want: "was of ReplicaSet web-1"},
		"a static pod":          {pod: bare(func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }), evidence: collected, want: "is a static pod"},
		"of no Incident":        {pod: bare(), evidence: collected, stranger: true, want: "is no target of this Incident"},
		"held by another":       {pod: func() *corev1.Pod { p := heldPod("web", "other"); p.Spec = podSpec(badImage); return p }(), evidence: collected, want: "another Incident holds Pod web"},
		"left to a person":      {pod: bare(), evidence: collected, how: v1alpha1.BlockedReplacementWait, want: "holds the name of its replacement"},
		"with other containers": {pod: bare(func(p *corev1.Pod) { p.Spec.Containers[0].Name = "other" }), evidence: collected, want: "has no container main"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x, _ := execution(incident(nil))
			x.All, x.Evidence = byUID(tc.pod), tc.evidence
			if !tc.stranger {
				x.Pods = []v1alpha1.PodStatus{{UID: "uid-web", Owner: v1alpha1.ObjectRef{Kind: "Pod", Name: "web", UID: "uid-web"}}}
			}
			r := &recreation{
				x: x, good: good("main"), name: v1alpha1.WorkloadRef{Kind: "Pod", Name: "web"},
				step:    v1alpha1.RecoveryStep{Name: "back", RollBackImages: &v1alpha1.RollBackImagesStep{BlockedReplacements: tc.how}},
				current: &workload{ref: v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web", UID: "uid-web"}, object: tc.pod, template: &corev1.PodTemplateSpec{Spec: tc.pod.Spec}},
			}
			got, err := r.refusal()
			if err != nil || !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("refusal() = %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// A pod that failed before any container of it ran tells nothing about what the Job runs.
func TestRecreatedJobOutlivesAPodThatNeverRan(t *testing.T) {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "j", UID: "job"},
		Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}},
	}
	ran := pod("j-2", "job", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	for name, tc := range map[string]struct {
		other *corev1.Pod
		want  bool
	}{
		"no room for it": {pod("j-1", "job", "", func(p *corev1.Pod) { p.Status.Phase, p.Status.ContainerStatuses = corev1.PodFailed, nil }), true},
		"ran the compromised image": {pod("j-1", "job", "", func(p *corev1.Pod) {
			p.Status.Phase, p.Status.ContainerStatuses[0].ImageID = corev1.PodFailed, "r/app@"+badDigest
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			x, _ := execution(incident(nil))
			x.All = byUID(ran, tc.other)
			r := &recreation{x: x, good: good("main"), current: &workload{ref: v1alpha1.ObjectRef{Kind: "Job", Name: "j"}, object: job}}
			if got := r.judge(); got.Done != tc.want {
				t.Errorf("judge() = %+v, want done: %t", got, tc.want)
			}
		})
	}
}

// A Job that was created anew, and is gone before it was seen what came of it, may have done its work: it is not run a second time by itself.
func TestRecreatedJobThatIsGoneIsNotRunTwice(t *testing.T) {
	ref := v1alpha1.WorkloadRef{Kind: "Job", Name: "import"}
	plan := v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{{Workload: ref, Containers: good("main").Containers}}}
	step := v1alpha1.RecoveryStep{Name: "back", RollBackImages: &v1alpha1.RollBackImagesStep{Workloads: []v1alpha1.WorkloadRef{ref}}}
	former := v1alpha1.StepRecord{Object: v1alpha1.ObjectRef{Kind: "Job", Namespace: "shop", Name: "import", UID: "former"}, Data: `{"job":{"template":{"spec":{"containers":[{"name":"main"}]}}}}`}
	made := v1alpha1.StepRecord{Object: v1alpha1.ObjectRef{Kind: "Job", Namespace: "shop", Name: "import", UID: "anew"}, Data: `{"created":1}`}
	for name, tc := range map[string]struct {
		records []v1alpha1.StepRecord
		tries   int32
		failed  bool
	}{
		"not created yet":      {records: []v1alpha1.StepRecord{former}},
		"created, and gone":    {records: []v1alpha1.StepRecord{former, made}, failed: true},
		"the step was retried": {records: []v1alpha1.StepRecord{former, made}, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			x, wrote := execution(incident(&plan))
			x.Plan, x.Reader = plan, fake.NewClientBuilder().WithScheme(scheme.Scheme).Build()
			x.Steps = []v1alpha1.StepStatus{{Name: "back", State: v1alpha1.StepRunning, Tries: tc.tries, Records: tc.records}}
			out, err := recreate(t.Context(), x, step, ref)
			if err != nil || out.Done || out.Failed != tc.failed || (len(wrote.ops) == 0) != tc.failed {
				t.Errorf("recreate() = %+v, %v, wrote %v", out, err, wrote.ops)
			}
		})
	}
}
