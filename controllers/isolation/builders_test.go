package isolation

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	namespace     = "shop"
	quarantineKey = "containment.cofferdam.dev/incident-1"
)

type (
	labelSet = map[string]string
	policy   = networkingv1.NetworkPolicy
	spec     = networkingv1.NetworkPolicySpec
	npPeer   = networkingv1.NetworkPolicyPeer
	npPort   = networkingv1.NetworkPolicyPort
)

// victim is the pod of the cases before it is relabelled.
func victim() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "v", Labels: labelSet{"app": "web", "tier": "fe"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name:  "web",
			Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090, Protocol: corev1.ProtocolTCP}},
		}}},
	}
}

// relabelled is the victim with nothing but the given labels.
func relabelled(labels labelSet) *corev1.Pod {
	pod := victim()
	pod.Labels = labels
	return pod
}

// stripped is the victim after the relabelling that detaches it.
func stripped() *corev1.Pod { return relabelled(labelSet{quarantineKey: ""}) }

// attached is the victim that kept its labels.
func attached() *corev1.Pod {
	return relabelled(labelSet{"app": "web", "tier": "fe", quarantineKey: ""})
}

func newPolicy(name string, s spec) *policy {
	return &policy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Generation: 3},
		Spec:       s,
	}
}

// denyPolicy is the operator's policy.
func denyPolicy(exceptions ...Exception) *policy {
	return newPolicy("q", DenySpec(exists(quarantineKey), exceptions))
}

func in(p *policy, ns string) *policy {
	p.Namespace = ns
	return p
}

func typed(s spec, t ...networkingv1.PolicyType) spec {
	s.PolicyTypes = t
	return s
}

func ingress(selector metav1.LabelSelector, from []npPeer, ports ...npPort) spec {
	return spec{
		PodSelector: selector,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: from, Ports: ports}},
	}
}

func egress(selector metav1.LabelSelector, to []npPeer, ports ...npPort) spec {
	return spec{
		PodSelector: selector,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: to, Ports: ports}},
	}
}

func everything() metav1.LabelSelector { return metav1.LabelSelector{} }

func labelled(key, value string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: labelSet{key: value}}
}

func expression(key string, op metav1.LabelSelectorOperator, values ...string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

func exists(key string) metav1.LabelSelector {
	return expression(key, metav1.LabelSelectorOpExists)
}

func peers(p ...npPeer) []npPeer { return p }

func podsPeer(s metav1.LabelSelector) npPeer { return npPeer{PodSelector: &s} }

func namespacesPeer(s metav1.LabelSelector) npPeer { return npPeer{NamespaceSelector: &s} }

func bothPeer(namespaces, pods metav1.LabelSelector) npPeer {
	return npPeer{NamespaceSelector: &namespaces, PodSelector: &pods}
}

func blockPeer(cidr string, except ...string) npPeer {
	return npPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

func port(protocol corev1.Protocol, number int32) npPort {
	return npPort{Protocol: &protocol, Port: new(intstr.FromInt32(number))}
}

func portRange(protocol corev1.Protocol, lo, hi int32) npPort {
	p := port(protocol, lo)
	p.EndPort = &hi
	return p
}

func wholeProtocol(protocol corev1.Protocol) npPort { return npPort{Protocol: &protocol} }

func portNamed(protocol corev1.Protocol, name string) npPort {
	return npPort{Protocol: &protocol, Port: new(intstr.FromString(name))}
}

// leakOf is a leak by a rule of one of the policies that newPolicy makes.
func leakOf(d Direction, name string, rule int, peer, ports string) Leak {
	return Leak{
		Direction: d,
		Source: Ref{
			Group: networkingv1.GroupName, Kind: "NetworkPolicy", Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Generation: 3,
		},
		Rule:   rule,
		Peer:   peer,
		Ports:  ports,
		Reason: ReasonAllowRule,
		State:  StateActive,
	}
}

func (l Leak) because(reason string) Leak {
	l.Reason = reason
	return l
}

// unrestricted is the leak of a direction that no policy restricts.
func unrestricted(d Direction) Leak {
	return Leak{Direction: d, Rule: -1, Peer: "any peer", Ports: "all ports", Reason: ReasonNotSelected, State: StateActive}
}

// evaluate evaluates NetworkPolicies only, and does not look who the peers are.
func evaluate(pod *corev1.Pod, policies []*policy, exceptions []Exception) []Leak {
	return Evaluate(pod, SetOf(policies...), exceptions, nil)
}
