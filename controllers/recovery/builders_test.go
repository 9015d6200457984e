package recovery

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/measure"
)

const (
	incidentUID = "inc-uid"
	badImage    = "registry/web:bad"
)

var (
	goodDigest = "sha256:" + strings.Repeat("a", 64)
	goodImage  = "registry/web@" + goodDigest
	badDigest  = "sha256:" + strings.Repeat("b", 64)
)

func good(workloads ...string) v1alpha1.KnownGoodImages {
	out := v1alpha1.KnownGoodImages{Workload: v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}}
	for _, name := range workloads {
		out.Containers = append(out.Containers, v1alpha1.ContainerImage{Name: name, Image: goodImage})
	}
	return out
}

func incident(plan *v1alpha1.RecoveryPlanSpec) *v1alpha1.Incident {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inc", UID: incidentUID}}
	if plan != nil {
		inc.Status.Recovery = &v1alpha1.RecoveryStatus{Plan: *plan}
	}
	return inc
}

func podSpec(image string) corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}}
}

// deployment is a workload as readDeployment describes it.
func deployment() *workload {
	return &workload{
		ref:      v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web", UID: "dep"},
		template: &corev1.PodTemplateSpec{Spec: podSpec(badImage)}, path: []string{"spec", "template"}, observed: true, wanted: 1,
		hash: "new", hashLabel: appsv1.DefaultDeploymentUniqueLabelKey, owners: []string{"rs-old", "rs-new"},
	}
}

// pod is a ready pod with the known-good digest; a test changes what is wrong about it.
func pod(name, ownerUID, hash string, changes ...func(*corev1.Pod)) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: hash},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: ownerUID, UID: types.UID(ownerUID), Controller: new(true)}},
		},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ImageID: "registry/web@" + goodDigest}},
		},
	}
	for _, change := range changes {
		change(out)
	}
	return out
}

func byUID(pods ...*corev1.Pod) map[string]*corev1.Pod {
	out := map[string]*corev1.Pod{}
	for _, p := range pods {
		out[string(p.UID)] = p
	}
	return out
}

// heldPod is a pod that the Incident has detached: without owner, with the quarantine label only.
func heldPod(name string, alsoHeldBy ...types.UID) *corev1.Pod {
	out := pod(name, "", "")
	out.OwnerReferences, out.Labels = nil, map[string]string{measure.QuarantineLabel(incidentUID): v1alpha1.QuarantineLabelValue}
	for _, uid := range alsoHeldBy {
		out.Labels[measure.QuarantineLabel(uid)] = v1alpha1.QuarantineLabelValue
	}
	return out
}

// writes collects what would be written, and writes nothing.
type writes struct{ ops []string }

func (w *writes) Write(_ context.Context, op v1alpha1.PlannedAction, _ func(context.Context, client.Client) error) error {
	w.ops = append(w.ops, op.Verb+" "+op.Object.Kind+" "+op.Object.Name)
	return nil
}

func execution(inc *v1alpha1.Incident, persisted ...v1alpha1.JournalEntry) (*Execution, *writes) {
	w := &writes{}
	return &Execution{Incident: inc, Writer: w, Journal: journal.New(persisted, metav1.Now(), false)}, w
}

func intended(action v1alpha1.Action, ref v1alpha1.ObjectRef) v1alpha1.JournalEntry {
	return v1alpha1.JournalEntry{Action: action, Object: ref, State: v1alpha1.JournalIntended}
}
