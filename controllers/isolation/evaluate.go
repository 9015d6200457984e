package isolation

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Direction is seen from the isolated pod.
type Direction string

const (
	// DirectionIngress is traffic to the pod.
	DirectionIngress Direction = Direction(networkingv1.PolicyTypeIngress)
	// DirectionEgress is traffic from the pod.
	DirectionEgress Direction = Direction(networkingv1.PolicyTypeEgress)
)

// Evaluate returns what the policies still allow to and from pod that no exception declares. No leak means that the pod is
// isolated, as far as NetworkPolicies can do that: see [NotEnforceable] and [Residuals]. The result depends on neither the order
// of the policies nor that of the exceptions, and is sorted. There is one leak for each peer of a rule (more if exceptions cover parts
// of an address block), and about 100 for a rule at most; callers that store leaks limit them further.
//
// pod must not be nil. policies may hold policies of other namespaces; they are passed over, because a policy applies to
// its own namespace. A policy that is being deleted counts until it is gone.
func Evaluate(pod *corev1.Pod, policies []*networkingv1.NetworkPolicy, exceptions []Exception) []Leak {
	var leaks []Leak
	for _, d := range []Direction{DirectionIngress, DirectionEgress} {
		e := evaluation{pod: pod, direction: d, exceptions: declared(pod, d, exceptions)}
		leaks = append(leaks, e.run(policies)...)
	}
	slices.SortFunc(leaks, compareLeaks)
	return slices.Compact(leaks)
}

// maxLeaksPerRule bounds the work that a rule made to cause much of it can cause. More leaks would not change the verdict.
const maxLeaksPerRule = 100

// evaluation answers for one direction.
type evaluation struct {
	pod        *corev1.Pod
	direction  Direction
	exceptions []traffic
}

func (e evaluation) run(policies []*networkingv1.NetworkPolicy) []Leak {
	var leaks []Leak
	restricted := false
	for _, policy := range policies {
		if policy == nil || policy.Namespace != e.pod.Namespace {
			continue
		}
		selected, err := selects(policy, e.pod)
		switch {
		case err != nil:
			// Whether it allows anything to this pod is unknown, so it does, and restricts nothing.
			leaks = append(leaks, e.leak(policy, noRule, anyPeer(), everyPort(), ReasonInvalidSelector))
		case selected && restricts(policy.Spec, e.direction):
			restricted = true
			leaks = append(leaks, e.leaksOf(policy)...)
		}
	}
	if !restricted {
		leaks = append(leaks, e.leak(nil, noRule, anyPeer(), everyPort(), ReasonNotSelected))
	}
	return leaks
}

// leaksOf returns what is left of the policy's rules after the exceptions have been taken away. A policy without rules
// allows nothing, whether its list is nil or empty.
func (e evaluation) leaksOf(policy *networkingv1.NetworkPolicy) []Leak {
	var leaks []Leak
	for i, r := range rulesOf(policy.Spec, e.direction) {
		leaks = append(leaks, e.leaksOfRule(policy, i, r)...)
	}
	return leaks
}

func (e evaluation) leaksOfRule(policy *networkingv1.NetworkPolicy, index int, r rule) []Leak {
	reason := ReasonAllowRule
	ports, err := parsePorts(e.pod, e.direction, r.ports)
	if err != nil {
		reason, ports = ReasonInvalidPort, everyPort()
	}
	var leaks []Leak
	for _, p := range parsePeers(r.peers) {
		if len(leaks) >= maxLeaksPerRule {
			break
		}
		for _, rest := range (traffic{peer: p, ports: ports}).without(e.exceptions) {
			leaks = append(leaks, e.leak(policy, index, rest.peer, rest.ports, cmp.Or(p.reason, reason)))
		}
	}
	return leaks
}

func (e evaluation) leak(policy *networkingv1.NetworkPolicy, index int, p peer, ports portSet, reason string) Leak {
	l := Leak{
		Direction: e.direction,
		Rule:      index,
		Peer:      clip(p.text),
		Ports:     clip(ports.String()),
		Reason:    reason,
	}
	if policy != nil {
		l.Policy = types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}
		l.PolicyUID = policy.UID
		l.PolicyGeneration = policy.Generation
	}
	return l
}

// rule is an ingress or an egress rule.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rulesOf(spec networkingv1.NetworkPolicySpec, d Direction) []rule {
	var rules []rule
	if d == DirectionIngress {
		for _, r := range spec.Ingress {
			rules = append(rules, rule{peers: r.From, ports: r.Ports})
		}
		return rules
	}
	for _, r := range spec.Egress {
		rules = append(rules, rule{peers: r.To, ports: r.Ports})
	}
	return rules
}

// restricts says whether the policy affects direction d. Without policyTypes the API server's default applies: always
// Ingress, and Egress if there are egress rules.
func restricts(spec networkingv1.NetworkPolicySpec, d Direction) bool {
	if len(spec.PolicyTypes) > 0 {
		return slices.Contains(spec.PolicyTypes, networkingv1.PolicyType(d))
	}
	return d == DirectionIngress || len(spec.Egress) > 0
}

// selects says whether the policy applies to a pod of its namespace. An empty selector matches every pod; NotIn and
// DoesNotExist match a pod without the label.
func selects(policy *networkingv1.NetworkPolicy, pod *corev1.Pod) (bool, error) {
	s, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	if err != nil {
		return false, err
	}
	return s.Matches(labels.Set(pod.Labels)), nil
}
