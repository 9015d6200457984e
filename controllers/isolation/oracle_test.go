package isolation

import (
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The oracle answers the same question as Evaluate, one probe at a time and in the most obvious way. It shares no code
// with the package.

// remote is the other end of a probe: a pod, or an address outside of the cluster if labels is nil.
type remote struct {
	namespace       string
	namespaceLabels labelSet
	labels          labelSet
	ip              string
	ports           []corev1.ContainerPort
}

// probe is one point of the space that Evaluate describes by sets.
type probe struct {
	direction Direction
	remote    remote
	protocol  corev1.Protocol
	port      int32
}

// oracle knows what the API leaves to the implementation.
type oracle struct {
	pod *corev1.Pod
	// blocksMatchPods says whether an ipBlock matches the addresses of pods. It does on most network plugins, and does not on Cilium.
	blocksMatchPods bool
}

// allowed says whether the policies let the probe through.
func (o oracle) allowed(policies []*policy, f probe) bool {
	restricted := false
	for _, p := range policies {
		if p.Namespace != o.pod.Namespace || !matches(&p.Spec.PodSelector, o.pod.Labels) {
			continue
		}
		types := p.Spec.PolicyTypes
		if len(types) == 0 {
			types = []networkingv1.PolicyType{typeIngress}
			if len(p.Spec.Egress) > 0 {
				types = append(types, typeEgress)
			}
		}
		if !slices.Contains(types, networkingv1.PolicyType(f.direction)) {
			continue
		}
		restricted = true
		if f.direction == DirectionIngress {
			for _, r := range p.Spec.Ingress {
				if o.peersMatch(r.From, f) && o.portsMatch(r.Ports, f) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if o.peersMatch(r.To, f) && o.portsMatch(r.Ports, f) {
				return true
			}
		}
	}
	return !restricted
}

// excused says whether an exception declares the probe.
func (o oracle) excused(exceptions []Exception, f probe) bool {
	for _, e := range exceptions {
		if e.Direction == f.direction && o.peerMatches(e.Peer, f) && o.portsMatch(e.Ports, f) {
			return true
		}
	}
	return false
}

func (o oracle) peersMatch(list []npPeer, f probe) bool {
	if len(list) == 0 {
		return true
	}
	for _, p := range list {
		if o.peerMatches(p, f) {
			return true
		}
	}
	return false
}

func (o oracle) peerMatches(p npPeer, f probe) bool {
	isPod := f.remote.labels != nil
	if p.IPBlock != nil {
		if isPod && !o.blocksMatchPods || !contains(p.IPBlock.CIDR, f.remote.ip) {
			return false
		}
		for _, e := range p.IPBlock.Except {
			if contains(e, f.remote.ip) {
				return false
			}
		}
		return true
	}
	if !isPod {
		return false
	}
	if p.NamespaceSelector == nil && f.remote.namespace != o.pod.Namespace {
		return false
	}
	if p.NamespaceSelector != nil && !matches(p.NamespaceSelector, f.remote.namespaceLabels) {
		return false
	}
	return p.PodSelector == nil || matches(p.PodSelector, f.remote.labels)
}

func contains(cidr, ip string) bool {
	_, block, err := net.ParseCIDR(cidr)
	return err == nil && block.Contains(net.ParseIP(ip))
}

func (o oracle) portsMatch(list []npPort, f probe) bool {
	if len(list) == 0 {
		return true
	}
	for _, p := range list {
		protocol := tcp
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if protocol != f.protocol {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if o.nameMatches(p.Port.StrVal, f) {
				return true
			}
		case p.EndPort != nil:
			if p.Port.IntVal <= f.port && f.port <= *p.EndPort {
				return true
			}
		case p.Port.IntVal == f.port:
			return true
		}
	}
	return false
}

func (o oracle) nameMatches(name string, f probe) bool {
	ports := f.remote.ports
	if f.direction == DirectionIngress {
		ports = nil
		for _, c := range append(slices.Clone(o.pod.Spec.Containers), o.pod.Spec.InitContainers...) {
			ports = append(ports, c.Ports...)
		}
	}
	for _, p := range ports {
		if p.Name == name && p.Protocol == f.protocol && p.ContainerPort == f.port {
			return true
		}
	}
	return false
}

func matches(s *metav1.LabelSelector, labels labelSet) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		got, ok := labels[e.Key]
		var holds bool
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			holds = ok && slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpNotIn:
			holds = !ok || !slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpExists:
			holds = ok
		case metav1.LabelSelectorOpDoesNotExist:
			holds = !ok
		}
		if !holds {
			return false
		}
	}
	return true
}
