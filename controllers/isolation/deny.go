package isolation

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DenySpec returns a policy that isolates the pods that podSelector matches, except for the given flows, one rule each in
// the given order. Both directions are named in policyTypes, because a policy without egress rules would not restrict egress by
// default. Exceptions that do not pass [Exception.Validate] are left out.
func DenySpec(podSelector metav1.LabelSelector, exceptions []Exception) networkingv1.NetworkPolicySpec {
	spec := networkingv1.NetworkPolicySpec{
		PodSelector: *podSelector.DeepCopy(),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
	}
	for _, e := range exceptions {
		if e.Validate() != nil {
			continue
		}
		peers := []networkingv1.NetworkPolicyPeer{*e.Peer.DeepCopy()}
		switch e.Direction {
		case DirectionIngress:
			r := networkingv1.NetworkPolicyIngressRule{From: peers, Ports: e.Ports}
			spec.Ingress = append(spec.Ingress, *r.DeepCopy())
		case DirectionEgress:
			r := networkingv1.NetworkPolicyEgressRule{To: peers, Ports: e.Ports}
			spec.Egress = append(spec.Egress, *r.DeepCopy())
		}
	}
	return spec
}
