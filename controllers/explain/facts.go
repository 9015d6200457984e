package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/route"
)

// Facts are the objects that an explanation is made from, and what is known to be missing among them. They are not changed.
type Facts struct {
	Source Source
	// Pod is the pod to explain.
	Pod *corev1.Pod
	// NetworkPolicies are those of the pod's namespace; others do no harm.
	NetworkPolicies []*networkingv1.NetworkPolicy
	// Others are the objects of [isolation.Kinds] that are cluster-scoped or in the pod's namespace.
	Others []*unstructured.Unstructured
	// Namespaces give the labels of namespaces, first of all of the pod's own.
	Namespaces []*corev1.Namespace
	// Pods are the pods in PodsWithin, for telling active leaks from latent ones. With [ScopeNone] every leak counts as active.
	Pods       []*corev1.Pod
	PodsWithin Scope
	// Incidents are those that may hold the pod. IncidentsUnread says why there may be more; empty if there are none.
	Incidents       []*v1alpha1.Incident
	IncidentsUnread string
	// Routes is what may lead to the pod.
	Routes route.Objects
	// Gaps name what could not be read.
	Gaps []Gap
}

func (f *Facts) gap(decisive bool, what, why string) {
	f.Gaps = append(f.Gaps, Gap{What: what, Why: why, Decisive: decisive})
}

// noteNamespace notes that the labels of the pod's namespace are not known, if they are not. NetworkPolicies do not look at them, but policies of other APIs select pods by them.
func (f *Facts) noteNamespace(why string) {
	known := slices.ContainsFunc(f.Namespaces, func(ns *corev1.Namespace) bool { return ns.Name == f.Pod.Namespace })
	if known || len(f.Others) == 0 {
		return
	}
	f.gap(true, fmt.Sprintf("the labels of Namespace %s, by which policies such as %s may select the pod", f.Pod.Namespace, title(f.Others[0])), why)
}

// title names an object for people.
func title(u *unstructured.Unstructured) string {
	name := u.GetName()
	if u.GetNamespace() != "" {
		name = u.GetNamespace() + "/" + name
	}
	return fmt.Sprintf("%s (%s) %s", u.GetKind(), u.GroupVersionKind().Group, name)
}

// kindNetworkPolicy is the one kind of policy that is not among isolation.Kinds.
var kindNetworkPolicy = schema.GroupKind{Group: networkingv1.GroupName, Kind: "NetworkPolicy"}

// readable says whether package isolation reads the kind, as a policy or as a tier.
func readable(kind schema.GroupKind) bool { return slices.Contains(isolation.Kinds(), kind) }

// unreadable says whether the kind is one of network policies, by its name, that nobody here can evaluate, so that it is not known what an object of it allows or denies. Known ones are those of Antrea, FQDNNetworkPolicy
// of GKE, ClusterNetworkPolicy of AWS and IsovalentNetworkPolicy; by the name those that come later are found too.
func unreadable(kind schema.GroupKind) bool {
	if !strings.HasSuffix(kind.Kind, "NetworkPolicy") || kind == kindNetworkPolicy || readable(kind) {
		return false
	}
	switch {
	case strings.HasPrefix(kind.Kind, "Staged") && strings.HasSuffix(kind.Group, "projectcalico.org"):
		return false // Calico does not enforce what is staged
	case kind.Group == "k8s.cni.cncf.io":
		return false // it is about networks beside the default one, and a pod that has any is not enforceable
	case kind.Group == "controlplane.antrea.io":
		return false // what Antrea's controller computes from the policies that people write
	}
	return true
}

// mayServePolicies says whether the group is known to have network policies, so that not to know what it serves is decisive.
func mayServePolicies(group string) bool {
	return group == "crd.antrea.io" || slices.ContainsFunc(isolation.Kinds(), func(k schema.GroupKind) bool { return k.Group == group })
}

// notEvaluated notes an object of a kind that nobody can evaluate.
func (f *Facts) notEvaluated(object string) {
	f.gap(true, "what "+object+" allows or denies", "policies of this kind are not evaluated; check by hand that it does not select the pod")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
