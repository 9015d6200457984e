package isolation

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxAdminPriority is the highest priority, and so the last place, of a policy within its tier. It is the same in all versions of the API.
const maxAdminPriority = 1000

// cnpSpec is the spec of a ClusterNetworkPolicy.
type cnpSpec struct {
	Tier     string       `json:"tier"`
	Priority *int32       `json:"priority"`
	Subject  adminSubject `json:"subject"`
	Ingress  []cnpRule    `json:"ingress"`
	Egress   []cnpRule    `json:"egress"`
}

type cnpRule struct {
	Name      string        `json:"name"`
	Action    string        `json:"action"`
	From      []adminPeer   `json:"from"`
	To        []adminPeer   `json:"to"`
	Protocols []cnpProtocol `json:"protocols"`
}

// cnpProtocol has exactly one of its fields.
type cnpProtocol struct {
	TCP                  *cnpTransport `json:"tcp"`
	UDP                  *cnpTransport `json:"udp"`
	SCTP                 *cnpTransport `json:"sctp"`
	DestinationNamedPort *string       `json:"destinationNamedPort"`
}

type cnpTransport struct {
	DestinationPort *cnpPort `json:"destinationPort"`
}

// cnpPort has exactly one of its fields.
type cnpPort struct {
	Number *int32        `json:"number"`
	Range  *cnpPortRange `json:"range"`
}

type cnpPortRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}

// readClusterNetworkPolicy reads a ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2, or of a later version that has the same fields. What the API server would not have let in,
// and what the API has no meaning for, allows what it may allow and denies nothing.
func readClusterNetworkPolicy(u *unstructured.Unstructured) *Policy {
	ref := refOf(u)
	var spec cnpSpec
	if field, err := decodeSpec(u, &spec); err != nil {
		return undecidedPolicy(ref, field, err)
	}
	at := tier{}
	switch spec.Tier {
	case "Admin":
		at.order = orderAdmin
	case "Baseline":
		at.order = orderBaseline
	default:
		return undecidedPolicy(ref, "spec.tier", fmt.Errorf("%q is neither Admin nor Baseline", spec.Tier))
	}
	if err := checkAdminPriority(spec.Priority); err != nil {
		return undecidedPolicy(ref, "spec.priority", err)
	}
	at.priority = float64(*spec.Priority)
	r := newAdminReader(u, spec.Subject, at)
	r.actions = map[string]action{"Accept": accept, "Deny": deny, "Pass": pass}
	r.domainNames = true
	return r.read(ordered(spec.Ingress), ordered(spec.Egress))
}

func checkAdminPriority(priority *int32) error {
	switch {
	case priority == nil:
		return errors.New("there is none")
	case *priority < 0 || *priority > maxAdminPriority:
		return fmt.Errorf("%d is not within 0-%d", *priority, maxAdminPriority)
	}
	return nil
}

func (r cnpRule) ordered() adminRule {
	list, ok := portsOf(r.Protocols, cnpProtocol.ports)
	return adminRule{action: r.Action, from: r.From, to: r.To, portsField: "protocols", ports: list, portsReadable: ok}
}

// ports returns the ports as a NetworkPolicy has them. A name without a protocol means the port of that name, whatever its protocol.
func (p cnpProtocol) ports() (out []networkingv1.NetworkPolicyPort, ok bool) {
	transports := map[corev1.Protocol]*cnpTransport{corev1.ProtocolTCP: p.TCP, corev1.ProtocolUDP: p.UDP, corev1.ProtocolSCTP: p.SCTP}
	for _, protocol := range protocols() {
		if t := transports[protocol]; t != nil {
			port, good := t.port(protocol)
			if !good {
				return nil, false
			}
			out = append(out, port)
		}
	}
	if p.DestinationNamedPort == nil {
		return out, len(out) == 1
	}
	return portsNamed(*p.DestinationNamedPort), len(out) == 0
}

func (t cnpTransport) port(protocol corev1.Protocol) (networkingv1.NetworkPolicyPort, bool) {
	p := t.DestinationPort
	switch {
	case p == nil || (p.Number == nil) == (p.Range == nil):
		return networkingv1.NetworkPolicyPort{}, false
	case p.Number != nil:
		return portsBetween(protocol, *p.Number, *p.Number), true
	}
	return portsBetween(protocol, p.Range.Start, p.Range.End), true
}

func portsBetween(protocol corev1.Protocol, lo, hi int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: new(intstr.FromInt32(lo)), EndPort: &hi}
}

// portsNamed are the ports of one name, of every protocol.
func portsNamed(name string) []networkingv1.NetworkPolicyPort {
	out := make([]networkingv1.NetworkPolicyPort, 0, len(protocols()))
	for _, protocol := range protocols() {
		out = append(out, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: new(intstr.FromString(name))})
	}
	return out
}
