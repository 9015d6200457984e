package explain

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	shop  = "shop"
	miner = "11111111-2222-4333-8444-555555555555"
)

// podNamed is a pod of the shop with labels, given as key and value in turn.
func podNamed(name string, labels ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		pod.Labels[labels[i]] = labels[i+1]
	}
	return pod
}

// held is a pod that the Incident holds and has detached.
func held() *corev1.Pod {
	pod := podNamed("web", v1alpha1.QuarantineLabelPrefix+miner, v1alpha1.QuarantineLabelValue)
	pod.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"labels":{"app":"web"},"owner":{"kind":"ReplicaSet","name":"web-5d4f"}}`}
	return pod
}

// policy is a NetworkPolicy of the shop for both directions.
func policy(name string, selector map[string]string, changes ...func(*networkingv1.NetworkPolicy)) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, Generation: 2},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: selector},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		},
	}
	for _, change := range changes {
		change(np)
	}
	return np
}

func from(peers ...networkingv1.NetworkPolicyPeer) func(*networkingv1.NetworkPolicy) {
	return func(np *networkingv1.NetworkPolicy) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers})
	}
}

func to(peers ...networkingv1.NetworkPolicyPeer) func(*networkingv1.NetworkPolicy) {
	return func(np *networkingv1.NetworkPolicy) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers})
	}
}

// ofIncident makes it a policy that the operator wrote.
func ofIncident(np *networkingv1.NetworkPolicy) {
	np.Labels = map[string]string{v1alpha1.IncidentUIDLabel: miner}
	np.Annotations = map[string]string{v1alpha1.IncidentAnnotation: "desk/miner"}
	np.Spec.PodSelector.MatchLabels = map[string]string{v1alpha1.QuarantineLabelPrefix + miner: v1alpha1.QuarantineLabelValue}
}

func addresses(cidr string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}
}

func pods(key, value string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}}
}

// incident is the Incident of which the pods made by held tell. It declares that pods may send to 192.0.2.0/24.
func incident(states ...v1alpha1.ExceptionStatus) *v1alpha1.Incident {
	return &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Namespace: "desk", Name: "miner", UID: miner},
		Spec:       v1alpha1.IncidentSpec{Title: "miner"},
		Status: v1alpha1.IncidentStatus{
			Policy: &v1alpha1.GoverningPolicy{Spec: v1alpha1.ContainmentPolicySpec{Isolation: v1alpha1.Isolation{
				Exceptions: []v1alpha1.EvidenceException{{Name: "upload", Direction: "Egress", CIDR: "192.0.2.0/24"}},
			}}},
			Exceptions: states,
			Pods:       []v1alpha1.PodStatus{{Namespace: shop, Name: "web", UID: "uid-web", Verdict: v1alpha1.VerdictIsolated}},
		},
	}
}

func upload(namespace string, state v1alpha1.ExceptionState) v1alpha1.ExceptionStatus {
	return v1alpha1.ExceptionStatus{Namespace: namespace, Name: "upload", State: state}
}

// factsOf are facts of a cluster about the pod, with nobody else in it.
func factsOf(pod *corev1.Pod, policies ...*networkingv1.NetworkPolicy) *Facts {
	return &Facts{Source: SourceCluster, Pod: pod, NetworkPolicies: policies, PodsWithin: ScopeCluster, Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: shop}}}}
}

// fromYAML reads facts about Pod web of the shop.
func fromYAML(t *testing.T, text string) (*Facts, error) {
	t.Helper()
	files, err := ReadFiles([]string{stdin}, strings.NewReader(text), shop)
	if err != nil {
		return nil, err
	}
	return files.Facts("web")
}
