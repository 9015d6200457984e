package incident

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers/remedy"
)

// +kubebuilder:rbac:groups="",resources=replicationcontrollers,verbs=list
// +kubebuilder:rbac:groups=apps,resources=statefulsets;daemonsets;replicasets,verbs=list
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=list

// adoptersIn are the controllers of a namespace that take up pods by their labels. They are read when pods are about to be detached, and not in every pass.
func (s *scope) adoptersIn(ctx context.Context, ns string) ([]remedy.Adopter, error) {
	if known, read := s.adopters[ns]; read {
		return known, nil
	}
	var (
		out     []remedy.Adopter
		sets    appsv1.ReplicaSetList
		states  appsv1.StatefulSetList
		daemons appsv1.DaemonSetList
		jobs    batchv1.JobList
		rcs     corev1.ReplicationControllerList
	)
	for _, list := range []client.ObjectList{&sets, &states, &daemons, &jobs, &rcs} {
		if err := s.Live.List(ctx, list, client.InNamespace(ns)); err != nil {
			return nil, fmt.Errorf("listing what could adopt detached pods in namespace %s: %w", ns, err)
		}
	}
	add := func(kind string, obj client.Object, selector *metav1.LabelSelector) {
		// A selector that cannot be read selects nothing for its controller either.
		if parsed, err := metav1.LabelSelectorAsSelector(selector); err == nil {
			out = append(out, remedy.Adopter{Kind: kind, Namespace: ns, Name: obj.GetName(), UID: string(obj.GetUID()), Selector: parsed})
		}
	}
	for i := range sets.Items {
		add("ReplicaSet", &sets.Items[i], sets.Items[i].Spec.Selector)
	}
	for i := range states.Items {
		add("StatefulSet", &states.Items[i], states.Items[i].Spec.Selector)
	}
	for i := range daemons.Items {
		add("DaemonSet", &daemons.Items[i], daemons.Items[i].Spec.Selector)
	}
	for i := range jobs.Items {
		add("Job", &jobs.Items[i], jobs.Items[i].Spec.Selector)
	}
	for i := range rcs.Items {
		rc := &rcs.Items[i]
		out = append(out, remedy.Adopter{
			Kind: "ReplicationController", Namespace: ns, Name: rc.Name, UID: string(rc.UID), Selector: labels.SelectorFromSet(rc.Spec.Selector),
		})
	}
	if s.adopters == nil {
		s.adopters = map[string][]remedy.Adopter{}
	}
	s.adopters[ns] = out
	return out, nil
}
