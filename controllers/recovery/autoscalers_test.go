package recovery

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/test/builder"
)

// scaledBy is a ScaledObject with the annotations.
func scaledBy(name string, annotations map[string]string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"scaleTargetRef": map[string]any{"name": name}}}}
	u.SetAPIVersion("keda.sh/v1alpha1")
	u.SetKind(scaledObjectKind)
	u.SetNamespace("shop")
	u.SetName("auto")
	u.SetUID("auto")
	u.SetAnnotations(annotations)
	return u
}

// fromZero is a HorizontalPodAutoscaler.
func fromZero(minReplicas int32, behavior *autoscalingv2.HorizontalPodAutoscalerBehavior) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "auto", UID: "auto"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}, MinReplicas: &minReplicas, MaxReplicas: 3, Behavior: behavior,
		},
	}
}

func up(policy autoscalingv2.ScalingPolicySelect) *autoscalingv2.HorizontalPodAutoscalerBehavior {
	return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{SelectPolicy: &policy}}
}

// cluster is a client of a cluster that has the object, and the API of KEDA.
func cluster(t *testing.T, object client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := autoscalingv2.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	clients := fake.NewClientBuilder().WithScheme(scheme).WithObjects(scaledBy("nothing", nil))
	if object != nil {
		clients = fake.NewClientBuilder().WithScheme(scheme).WithObjects(object)
	}
	return clients.Build()
}

// applies performs writes.
type applies struct {
	client client.Client
	n      int
}

func (a *applies) Write(ctx context.Context, _ v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	a.n++
	return fn(ctx, a.client)
}

var web = &workload{ref: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}, object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}}

// Whatever an autoscaler was like: paused it leaves the workload alone, and resumed it is as it was.
func TestPauseAndResumeAutoscalers(t *testing.T) {
	disabled := string(autoscalingv2.DisabledPolicySelect)
	for name, tc := range map[string]struct {
		object client.Object
		// writes is how many it takes to pause it, and paused what it is then, as read tells.
		writes int
		read   func(client.Object) any
		paused any
	}{
		"no autoscaler":                    {},
		"a ScaledObject of something else": {object: scaledBy("api", nil), read: annotationsOf, paused: map[string]string(nil)},
		"a ScaledObject":                   {object: scaledBy("web", nil), writes: 1, read: annotationsOf, paused: map[string]string{kedaPaused: "true"}},
		"one that somebody has paused":     {object: scaledBy("web", map[string]string{kedaPaused: ""}), read: annotationsOf, paused: map[string]string{kedaPaused: ""}},
		"one that says that it is not":     {object: scaledBy("web", map[string]string{kedaPaused: "false"}), writes: 1, read: annotationsOf, paused: map[string]string{kedaPaused: "true"}},
		"one that is paused at zero":       {object: scaledBy("web", map[string]string{kedaPausedAt: "0"}), read: annotationsOf, paused: map[string]string{kedaPausedAt: "0"}},
		"one that is paused at four":       {object: scaledBy("web", map[string]string{kedaPausedAt: "4", kedaPaused: "true"}), writes: 1, read: annotationsOf, paused: map[string]string{kedaPausedAt: "0", kedaPaused: "true"}},
		"a HorizontalPodAutoscaler":        {object: fromZero(1, nil), read: policyOf, paused: ""},
		"one that scales from zero":        {object: fromZero(0, nil), writes: 1, read: policyOf, paused: disabled},
		"one with a policy of its own":     {object: fromZero(0, up(autoscalingv2.MinChangePolicySelect)), writes: 1, read: policyOf, paused: disabled},
		"one that may not scale up anyway": {object: fromZero(0, up(autoscalingv2.DisabledPolicySelect)), read: policyOf, paused: disabled},
		"one that scales down by a policy": {object: fromZero(0, &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{}}), writes: 1, read: policyOf, paused: disabled},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			c := cluster(t, tc.object)
			w := &applies{client: c}
			x := &Execution{
				Reader: c, Writer: w, Incident: incident(nil), Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{builder.Scale("zero", "web", v1alpha1.ScaleToZero)}},
				Steps: []v1alpha1.StepStatus{{Name: "zero"}}, Journal: journal.New(nil, metav1.Now(), false),
			}
			read := func() client.Object {
				if tc.object == nil {
					return nil
				}
				out := tc.object.DeepCopyObject().(client.Object)
				if err := c.Get(ctx, client.ObjectKeyFromObject(tc.object), out); err != nil {
					t.Fatal(err)
				}
				return out
			}
			before := read()
			until(t, x, func() (bool, error) { return pauseAutoscalers(ctx, x, "zero", web) })
			if w.n != tc.writes {
				t.Errorf("pausing took %d writes, want %d", w.n, tc.writes)
			}
			if tc.read != nil {
				if diff := cmp.Diff(tc.paused, tc.read(read())); diff != "" {
					t.Errorf("paused (-want +got):\n%s", diff)
				}
			}
			until(t, x, func() (bool, error) { return resumeAutoscalers(ctx, x, web) })
			if diff := cmp.Diff(contentOf(t, before), contentOf(t, read())); diff != "" {
				t.Errorf("resumed (-before +after):\n%s", diff)
			}
		})
	}
}

// until makes passes until nothing is left to be done; each finds durable what the one before has intended.
func until(t *testing.T, x *Execution, one func() (bool, error)) {
	t.Helper()
	for range 4 {
		ready, err := one()
		if err != nil {
			t.Fatal(err)
		}
		if ready {
			return
		}
		x.Journal = journal.New(x.Journal.Entries(), metav1.Now(), false)
	}
	t.Fatal("it is not ready after four passes")
}

func annotationsOf(o client.Object) any { return o.GetAnnotations() }

func policyOf(o client.Object) any {
	b := o.(*autoscalingv2.HorizontalPodAutoscaler).Spec.Behavior
	if b == nil || b.ScaleUp == nil || b.ScaleUp.SelectPolicy == nil {
		return ""
	}
	return string(*b.ScaleUp.SelectPolicy)
}

// contentOf is the object without what tells one version from the next, and without fields that are empty.
func contentOf(t *testing.T, o client.Object) map[string]any {
	t.Helper()
	if o == nil {
		return nil
	}
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	meta := out["metadata"].(map[string]any)
	delete(meta, "resourceVersion")
	if a, ok := meta["annotations"].(map[string]any); ok && len(a) == 0 {
		delete(meta, "annotations")
	}
	return out
}

// What is done may have been left out of the journal: the record is what tells whose pause it is.
func TestResumesOnlyWhatItHasPaused(t *testing.T) {
	for name, tc := range map[string]struct {
		records []v1alpha1.StepRecord
		writes  int
	}{
		"paused by somebody else, and left": {},
		"paused by a step of this recovery": {records: []v1alpha1.StepRecord{{Object: v1alpha1.ObjectRef{Kind: scaledObjectKind, Namespace: "shop", Name: "auto", UID: "auto"}, Data: "{}"}}, writes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, scaledBy("web", map[string]string{kedaPaused: "true"}))
			w := &applies{client: c}
			x := &Execution{
				Reader: c, Writer: w, Incident: incident(nil), Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{builder.Scale("zero", "web", v1alpha1.ScaleToZero)}},
				Steps: []v1alpha1.StepStatus{{Name: "zero", Records: tc.records}}, Journal: journal.New(nil, metav1.Now(), false),
			}
			until(t, x, func() (bool, error) { return resumeAutoscalers(t.Context(), x, web) })
			if w.n != tc.writes {
				t.Errorf("resuming took %d writes, want %d", w.n, tc.writes)
			}
		})
	}
}
