package isolation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ReadNetworkPolicy reads a NetworkPolicy of networking.k8s.io/v1, which must not be nil. One that is being deleted counts until it is gone. That the installed network plugin
// enforces NetworkPolicies at all is assumed; see [ResidualEnforcementNotProbed].
func ReadNetworkPolicy(np *networkingv1.NetworkPolicy) *Policy {
	p := &Policy{
		Ref: Ref{
			Group: networkingv1.GroupName, Kind: "NetworkPolicy", Namespace: np.Namespace, Name: np.Name, UID: np.UID, Generation: np.Generation,
		},
		reported: true,
	}
	c, ok, err := parseSelector(ofPod, &np.Spec.PodSelector)
	switch {
	case err != nil:
		p.subject.invalid = "spec.podSelector"
	case ok:
		c, _ = c.and(inNamespace(np.Namespace))
		p.subject.parts = []constraint{c}
	}
	for _, d := range []Direction{DirectionIngress, DirectionEgress} {
		if !restricts(np.Spec, d) && err == nil {
			continue
		}
		s := &section{tier: tier{order: orderDefault, priority: priorityNetworkPolicy}, isolates: true, additive: true}
		for i, r := range rulesOf(np.Spec, d) {
			s.rules = append(s.rules, readRule(np.Namespace, d, i, r)...)
		}
		p.addSection(d, s)
	}
	return p
}

func (p *Policy) addSection(d Direction, s *section) {
	if d == DirectionIngress {
		p.ingress = append(p.ingress, s)
		return
	}
	p.egress = append(p.egress, s)
}

func (p *Policy) sections(d Direction) []*section {
	if d == DirectionIngress {
		return p.ingress
	}
	return p.egress
}

// allowRule is an ingress or an egress rule of a NetworkPolicy.
type allowRule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rulesOf(spec networkingv1.NetworkPolicySpec, d Direction) []allowRule {
	var rules []allowRule
	if d == DirectionIngress {
		for _, r := range spec.Ingress {
			rules = append(rules, allowRule{peers: r.From, ports: r.Ports})
		}
		return rules
	}
	for _, r := range spec.Egress {
		rules = append(rules, allowRule{peers: r.To, ports: r.Ports})
	}
	return rules
}

// readRule reads one rule. What cannot be read in it becomes a rule of its own, with the same index.
func readRule(namespace string, d Direction, index int, in allowRule) []rule {
	p, reason := readPorts(d, in.ports)
	if p.resolve == nil && p.set.empty() {
		return nil
	}
	var good []box
	var out []rule
	for _, peer := range parsePeers(namespace, in.peers) {
		if peer.reason == "" {
			good = append(good, peer.box)
			continue
		}
		out = append(out, rule{index: index, action: accept, peers: []box{peer.box}, ports: p, reason: peer.reason})
	}
	if len(good) > 0 {
		out = append(out, rule{index: index, action: accept, peers: good, ports: p, reason: reason})
	}
	return out
}

// readPorts reads a rule's list of ports. Ports that cannot be read count as all.
func readPorts(d Direction, list []networkingv1.NetworkPolicyPort) (p ports, reason string) {
	set, err := parsePorts(&corev1.Pod{}, d, list)
	if err != nil {
		return allPorts(), ReasonInvalidPort
	}
	byName := func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.Type == intstr.String }
	if d == DirectionIngress && slices.ContainsFunc(list, byName) {
		// Names in ingress rules are looked up on the pod that the rule is applied to.
		list = slices.Clone(list)
		return ports{resolve: func(pod *corev1.Pod) (portSet, error) { return parsePorts(pod, d, list) }}, ""
	}
	return ports{set: set}, ""
}

// restricts says whether the policy affects direction d. Without policyTypes the API server's default applies: always
// Ingress, and Egress if there are egress rules.
func restricts(spec networkingv1.NetworkPolicySpec, d Direction) bool {
	if len(spec.PolicyTypes) > 0 {
		return slices.Contains(spec.PolicyTypes, networkingv1.PolicyType(d))
	}
	return d == DirectionIngress || len(spec.Egress) > 0
}
