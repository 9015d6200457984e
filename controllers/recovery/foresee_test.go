package recovery

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestSoon(t *testing.T) {
	with := func(change func(first *v1alpha1.RecoveryStep)) []v1alpha1.RecoveryStep {
		out := graph("a", "b: a", "c: b", "d: a c")
		for i := range out {
			out[i].Verify, out[i].RollBackImages = nil, &v1alpha1.RollBackImagesStep{}
		}
		change(&out[0])
		return out
	}
	steps := with(func(*v1alpha1.RecoveryStep) {})
	asks := with(func(s *v1alpha1.RecoveryStep) { s.RollBackImages, s.Approve = nil, &v1alpha1.ApproveStep{} })
	looks := with(func(s *v1alpha1.RecoveryStep) { s.RollBackImages, s.Verify = nil, &v1alpha1.VerifyStep{} })
	gated := with(func(s *v1alpha1.RecoveryStep) { s.Gate = &v1alpha1.VerifyStep{} })
	for name, tc := range map[string]struct {
		steps  []v1alpha1.RecoveryStep
		states []string
		want   []int
	}{
		"nothing has started":                            {steps, []string{"a=Pending", "b=Pending", "c=Pending", "d=Pending"}, nil},
		"the first is under way":                         {steps, []string{"a=Running", "b=Pending", "c=Pending", "d=Pending"}, []int{1}},
		"the second is":                                  {steps, []string{"a=Succeeded", "b=Running", "c=Pending", "d=Pending"}, []int{2}},
		"people are asked":                               {asks, []string{"a=Running", "b=Pending", "c=Pending", "d=Pending"}, nil},
		"something is verified, which may not stay true": {looks, []string{"a=Running", "b=Pending", "c=Pending", "d=Pending"}, nil},
		"something has a gate":                           {gated, []string{"a=Running", "b=Pending", "c=Pending", "d=Pending"}, nil},
		"people have agreed":                             {asks, []string{"a=Succeeded", "b=Pending", "c=Pending", "d=Pending"}, []int{1}},
		"a step has failed, and all halts":               {steps, []string{"a=Succeeded", "b=Failed", "c=Pending", "d=Pending"}, nil},
		"a step is undone":                               {steps, []string{"a=Running", "b=Undone", "c=Pending", "d=Pending"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, soon(tc.steps, states(tc.states...))); diff != "" {
				t.Errorf("soon() (-want +got):\n%s", diff)
			}
		})
	}
}

// What comes next has its intent, and what it needs to be undone, while the step before it is under way; and nothing is written.
func TestForesee(t *testing.T) {
	web := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "dep"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: corev1.PodTemplateSpec{Spec: podSpec(badImage)},
		},
	}
	plan := v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good("main")}, Steps: []v1alpha1.RecoveryStep{
		{Name: "zero", Scale: &v1alpha1.ScaleStep{To: v1alpha1.ScaleToZero, Workloads: []v1alpha1.ScaledWorkload{{Kind: "Deployment", Name: "web"}}}},
		{Name: "back", DependsOn: []string{"zero"}, RollBackImages: &v1alpha1.RollBackImagesStep{Workloads: []v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "web"}}}},
		{Name: "up", DependsOn: []string{"back"}, Scale: &v1alpha1.ScaleStep{To: v1alpha1.ScaleToOriginal, Workloads: []v1alpha1.ScaledWorkload{{Kind: "Deployment", Name: "web"}}}},
	}}
	ref := v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web", UID: "dep"}
	plan.Steps[2].DependsOn = []string{"zero", "back"}
	for name, tc := range map[string]struct {
		states   []string
		actions  []v1alpha1.Action
		recorded string
	}{
		"scaled to zero": {[]string{"zero=Running", "back=Pending", "up=Pending"}, []v1alpha1.Action{v1alpha1.ActionRollBackImages}, `{"images":{"main":"` + badImage + `"}}`},
		"rolled back":    {[]string{"zero=Succeeded", "back=Running", "up=Pending"}, []v1alpha1.Action{v1alpha1.ActionRestoreReplicas}, ""},
		"next to be scaled back, and not yet at zero for good": {[]string{"zero=Running", "back=Skipped", "up=Pending"}, nil, ""},
		"at the end": {[]string{"zero=Succeeded", "back=Succeeded", "up=Running"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			x, wrote := execution(incident(&plan))
			x.Plan, x.Steps = plan, states(tc.states...)
			x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(web).Build()
			x.Record("zero", v1alpha1.StepRecord{Object: ref, Data: `{"replicas":2}`})
			if err := Foresee(t.Context(), x); err != nil {
				t.Fatal(err)
			}
			var actions []v1alpha1.Action
			for _, e := range x.Journal.Entries() {
				if e.State != v1alpha1.JournalIntended || e.Object != ref {
					t.Errorf("journalled %+v", e)
				}
				actions = append(actions, e.Action)
			}
			if diff := cmp.Diff(tc.actions, actions); diff != "" || len(wrote.ops) > 0 {
				t.Errorf("wrote %v; intents (-want +got):\n%s", wrote.ops, diff)
			}
			recorded := ""
			if r := x.Recorded("back", ref); r != nil {
				recorded = r.Data
			}
			if recorded != tc.recorded {
				t.Errorf("recorded %s, want %s", recorded, tc.recorded)
			}
		})
	}
}
