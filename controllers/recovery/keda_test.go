package recovery

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/test/builder"
)

func scaledBy(name, paused string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"scaleTargetRef": map[string]any{"name": name}}}}
	u.SetAPIVersion("keda.sh/v1alpha1")
	u.SetKind(scaledObjectKind)
	u.SetNamespace("shop")
	u.SetName("auto")
	u.SetUID("auto")
	if paused != "" {
		u.SetAnnotations(map[string]string{kedaPaused: paused})
	}
	return u
}

func TestResumeKEDA(t *testing.T) {
	ref := v1alpha1.ObjectRef{Kind: scaledObjectKind, Namespace: "shop", Name: "auto", UID: "auto"}
	ours := []v1alpha1.StepRecord{{Object: ref, Data: "{}"}}
	for name, tc := range map[string]struct {
		object  *unstructured.Unstructured
		records []v1alpha1.StepRecord
		resumed bool
		writes  int
	}{
		"none":                              {resumed: true},
		"of another workload":               {object: scaledBy("api", "true"), records: ours, resumed: true},
		"not paused any more":               {object: scaledBy("web", ""), records: ours, resumed: true},
		"paused by somebody else, and left": {object: scaledBy("web", "true"), resumed: true},
		"paused by a step of this recovery": {object: scaledBy("web", "true"), records: ours, writes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			clients := fake.NewClientBuilder().WithScheme(runtime.NewScheme())
			if tc.object != nil {
				clients = clients.WithObjects(tc.object)
			} else {
				clients = clients.WithObjects(scaledBy("nothing", ""))
			}
			w := &writes{}
			x := &Execution{
				Reader: clients.Build(), Writer: w, Incident: incident(nil), Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{builder.Scale("zero", "web", v1alpha1.ScaleToZero)}},
				Steps: []v1alpha1.StepStatus{{Name: "zero", Records: tc.records}},
				// What is done may have been left out of the journal: the record is what tells whose pause it is.
				Journal: journal.New([]v1alpha1.JournalEntry{{Number: 1, Action: v1alpha1.ActionResumeAutoscaler, Object: ref, State: v1alpha1.JournalIntended}}, metav1.Now(), false),
			}
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
			resumed, err := resumeKEDA(context.Background(), x, &workload{ref: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}, object: d})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]any{tc.resumed, tc.writes}, []any{resumed, len(w.ops)}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
