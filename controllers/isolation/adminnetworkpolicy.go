package isolation

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// anpSpec is the spec of an AdminNetworkPolicy.
type anpSpec struct {
	Priority *int32       `json:"priority"`
	Subject  adminSubject `json:"subject"`
	Ingress  []anpRule    `json:"ingress"`
	Egress   []anpRule    `json:"egress"`
}

// banpSpec is the spec of a BaselineAdminNetworkPolicy. There is at most one such object in a cluster, and so it has no priority.
type banpSpec struct {
	Subject adminSubject `json:"subject"`
	Ingress []anpRule    `json:"ingress"`
	Egress  []anpRule    `json:"egress"`
}

type anpRule struct {
	Name   string      `json:"name"`
	Action string      `json:"action"`
	From   []adminPeer `json:"from"`
	To     []adminPeer `json:"to"`
	Ports  []anpPort   `json:"ports"`
}

// anpPort has exactly one of its fields.
type anpPort struct {
	PortNumber *anpPortNumber `json:"portNumber"`
	NamedPort  *string        `json:"namedPort"`
	PortRange  *anpPortRange  `json:"portRange"`
}

type anpPortNumber struct {
	Protocol corev1.Protocol `json:"protocol"`
	Port     int32           `json:"port"`
}

type anpPortRange struct {
	Protocol corev1.Protocol `json:"protocol"`
	Start    int32           `json:"start"`
	End      int32           `json:"end"`
}

// maxOVNPriority is the last priority of an AdminNetworkPolicy that OVN-Kubernetes puts into effect; the API allows more.
const maxOVNPriority = 99

// readAdminNetworkPolicy reads an AdminNetworkPolicy of policy.networking.k8s.io/v1alpha1. It shares its tier with the ClusterNetworkPolicies of the Admin tier: the two APIs do not say
// who comes first at the same priority. Objects with the fields sameLabels, notSameLabels and namespaces.namespaceSelector, which the first releases of v1alpha1 had, are undecided.
func readAdminNetworkPolicy(u *unstructured.Unstructured) *Policy {
	ref := refOf(u)
	var spec anpSpec
	if field, err := decodeSpec(u, &spec); err != nil {
		return undecidedPolicy(ref, field, err)
	}
	if err := checkAdminPriority(spec.Priority); err != nil {
		return undecidedPolicy(ref, "spec.priority", err)
	}
	r := newAdminReader(u, spec.Subject, tier{order: orderAdmin, priority: float64(*spec.Priority)})
	r.actions = map[string]action{"Allow": accept, "Deny": deny, "Pass": pass}
	r.domainNames = true
	if *spec.Priority > maxOVNPriority && r.status.byZone {
		r.status.refuse("OVN-Kubernetes, which reports by zone, puts no priority above 99 into effect")
	}
	return r.read(ordered(spec.Ingress), ordered(spec.Egress))
}

// readBaselineAdminNetworkPolicy reads a BaselineAdminNetworkPolicy of policy.networking.k8s.io/v1alpha1. Together with ClusterNetworkPolicies of the Baseline tier it comes last.
func readBaselineAdminNetworkPolicy(u *unstructured.Unstructured) *Policy {
	var spec banpSpec
	if field, err := decodeSpec(u, &spec); err != nil {
		return undecidedPolicy(refOf(u), field, err)
	}
	r := newAdminReader(u, spec.Subject, tier{order: orderBaseline, priority: maxAdminPriority})
	r.actions = map[string]action{"Allow": accept, "Deny": deny}
	return r.read(ordered(spec.Ingress), ordered(spec.Egress))
}

func (r anpRule) ordered() adminRule {
	list, ok := portsOf(r.Ports, anpPort.ports)
	return adminRule{action: r.Action, from: r.From, to: r.To, portsField: "ports", ports: list, portsReadable: ok}
}

// ports returns the ports as a NetworkPolicy has them.
func (p anpPort) ports() (out []networkingv1.NetworkPolicyPort, ok bool) {
	fields := 0
	if n := p.PortNumber; n != nil {
		fields++
		out = append(out, portsBetween(cmp.Or(n.Protocol, corev1.ProtocolTCP), n.Port, n.Port))
	}
	if r := p.PortRange; r != nil {
		fields++
		out = append(out, portsBetween(cmp.Or(r.Protocol, corev1.ProtocolTCP), r.Start, r.End))
	}
	if p.NamedPort != nil {
		fields++
		out = append(out, portsNamed(*p.NamedPort)...)
	}
	return out, fields == 1
}
