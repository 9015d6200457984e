package isolation

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxPort is the highest port number. Port 0 counts as a port: a rule without ports lets it through.
const maxPort portNumber = 65535

// portNumber is wider than a port so that Next of the highest one does not wrap around.
type portNumber int32

// Compare orders port numbers.
func (p portNumber) Compare(other portNumber) int { return cmp.Compare(p, other) }

// Next returns the port number after p.
func (p portNumber) Next() portNumber { return p + 1 }

// Prev returns the port number before p.
func (p portNumber) Prev() portNumber { return p - 1 }

// namedPort is a port that is known by name only, because the name is resolved on peers.
type namedPort struct {
	protocol corev1.Protocol
	name     string
}

// portSet is a set of (protocol, port) pairs.
type portSet struct {
	numbers map[corev1.Protocol]spans[portNumber]
	// named holds the named ports of egress rules.
	named map[namedPort]bool
	// labels are the names under which an ingress rule asked for a port. They serve descriptions only.
	labels map[corev1.Protocol]map[portNumber]string
}

// protocols are those that NetworkPolicy is defined for. ICMP and others are outside of its reach.
func protocols() []corev1.Protocol {
	return []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
}

func newPortSet() portSet {
	return portSet{
		numbers: map[corev1.Protocol]spans[portNumber]{},
		named:   map[namedPort]bool{},
		labels:  map[corev1.Protocol]map[portNumber]string{},
	}
}

// everyPort is what a rule without ports means: all ports of all protocols.
func everyPort() portSet {
	s := newPortSet()
	for _, protocol := range protocols() {
		s.add(protocol, 0, maxPort)
	}
	return s
}

// add appends a range. The set is not in order before normalise.
func (s portSet) add(protocol corev1.Protocol, lo, hi portNumber) {
	s.numbers[protocol] = append(s.numbers[protocol], span[portNumber]{lo, hi})
}

// normalise sorts and merges what has been added.
func (s portSet) normalise() {
	for protocol, numbers := range s.numbers {
		s.numbers[protocol] = union(numbers...)
	}
}

func (s portSet) label(protocol corev1.Protocol, number portNumber, name string) {
	if s.labels[protocol] == nil {
		s.labels[protocol] = map[portNumber]string{}
	}
	s.labels[protocol][number] = name
}

func (s portSet) empty() bool {
	return len(s.numbers) == 0 && len(s.named) == 0
}

// whole says whether the set holds every port of the protocol.
func (s portSet) whole(protocol corev1.Protocol) bool {
	return s.numbers[protocol].equal(spans[portNumber]{{0, maxPort}})
}

// declarable says whether the set holds every port of the protocol that a container can declare, which port 0 is not one of.
func (s portSet) declarable(protocol corev1.Protocol) bool {
	return len(spans[portNumber]{{1, maxPort}}.minus(s.numbers[protocol])) == 0
}

// minus returns the ports of s that are not in other. A port known by name only is in other if other has the same name
// or all ports of the protocol that can have one.
func (s portSet) minus(other portSet) portSet {
	out := newPortSet()
	out.labels = s.labels
	for protocol, numbers := range s.numbers {
		if rest := numbers.minus(other.numbers[protocol]); len(rest) > 0 {
			out.numbers[protocol] = rest
		}
	}
	for port := range s.named {
		if !other.named[port] && !other.declarable(port.protocol) {
			out.named[port] = true
		}
	}
	return out
}

// intersect returns the ports that are in both sets. A port known by name only is in both if each of them may have it.
func (s portSet) intersect(other portSet) portSet {
	if s.everything() {
		return other
	}
	if other.everything() {
		return s
	}
	out := newPortSet()
	out.labels = s.labels
	for protocol, numbers := range s.numbers {
		if both := numbers.intersect(other.numbers[protocol]); len(both) > 0 {
			out.numbers[protocol] = both
		}
	}
	for port := range s.named {
		if other.named[port] || len(other.numbers[port.protocol]) > 0 {
			out.named[port] = true
		}
	}
	for port := range other.named {
		if len(s.numbers[port.protocol]) > 0 {
			out.named[port] = true
		}
	}
	return out
}

// union returns the ports that are in at least one of the sets.
func (s portSet) union(other portSet) portSet {
	out := newPortSet()
	for _, set := range []portSet{s, other} {
		for protocol, numbers := range set.numbers {
			out.numbers[protocol] = union(slices.Concat(out.numbers[protocol], numbers)...)
		}
		maps.Copy(out.named, set.named)
		for protocol, names := range set.labels {
			for number, name := range names {
				out.label(protocol, number, name)
			}
		}
	}
	return out
}

func (s portSet) equal(other portSet) bool {
	return maps.Equal(s.named, other.named) &&
		maps.EqualFunc(s.numbers, other.numbers, func(a, b spans[portNumber]) bool { return a.equal(b) })
}

// everything says whether the set holds every port of every protocol.
func (s portSet) everything() bool {
	return len(s.numbers) == len(protocols()) && !slices.ContainsFunc(protocols(), func(p corev1.Protocol) bool { return !s.whole(p) })
}

// String describes the set: "all ports", "TCP/443-444, UDP/53", "all SCTP ports", "TCP/8080 (http)" for a port that the
// rule names and the pod declares, "TCP/http (named)" for one that peers declare.
func (s portSet) String() string {
	present := slices.SortedFunc(maps.Keys(s.numbers), compareProtocols)
	if slices.Equal(present, protocols()) && !slices.ContainsFunc(present, func(p corev1.Protocol) bool { return !s.whole(p) }) {
		return "all ports"
	}
	var parts []string
	for _, protocol := range present {
		if s.whole(protocol) {
			parts = append(parts, fmt.Sprintf("all %s ports", protocol))
			continue
		}
		for _, r := range s.numbers[protocol] {
			parts = append(parts, s.describe(protocol, r))
		}
	}
	named := slices.SortedFunc(maps.Keys(s.named), func(a, b namedPort) int {
		return cmp.Or(compareProtocols(a.protocol, b.protocol), cmp.Compare(a.name, b.name))
	})
	for _, port := range named {
		parts = append(parts, fmt.Sprintf("%s/%s (named)", port.protocol, port.name))
	}
	return strings.Join(parts, ", ")
}

func (s portSet) describe(protocol corev1.Protocol, r span[portNumber]) string {
	if r.lo != r.hi {
		return fmt.Sprintf("%s/%d-%d", protocol, r.lo, r.hi)
	}
	if name := s.labels[protocol][r.lo]; name != "" {
		return fmt.Sprintf("%s/%d (%s)", protocol, r.lo, name)
	}
	return fmt.Sprintf("%s/%d", protocol, r.lo)
}

// compareProtocols puts the known protocols first, in their usual order.
func compareProtocols(a, b corev1.Protocol) int {
	rank := func(p corev1.Protocol) int {
		if i := slices.Index(protocols(), p); i >= 0 {
			return i
		}
		return len(protocols())
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

// parsePorts returns the ports that a rule's list means for pod in direction d. Named ports of ingress rules are looked
// up on the pod, whose declared ports cannot change, so an unknown name means no port at all; names in egress rules stay names.
// An error says that the list would not pass API validation, so that nobody knows what it means.
func parsePorts(pod *corev1.Pod, d Direction, list []networkingv1.NetworkPolicyPort) (portSet, error) {
	if len(list) == 0 {
		return everyPort(), nil
	}
	s := newPortSet()
	for _, port := range list {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		if !slices.Contains(protocols(), protocol) {
			return portSet{}, fmt.Errorf("protocol %q is not TCP, UDP or SCTP", protocol)
		}
		var err error
		switch {
		case port.Port == nil && port.EndPort != nil:
			err = errors.New("endPort without port")
		case port.Port == nil:
			s.add(protocol, 0, maxPort)
		case port.Port.Type == intstr.String:
			err = s.addName(pod, d, protocol, port)
		default:
			err = s.addRange(protocol, port)
		}
		if err != nil {
			return portSet{}, err
		}
	}
	s.normalise()
	return s, nil
}

func (s portSet) addRange(protocol corev1.Protocol, port networkingv1.NetworkPolicyPort) error {
	lo := portNumber(port.Port.IntVal)
	hi := lo
	if port.EndPort != nil {
		hi = portNumber(*port.EndPort)
	}
	if lo < 1 || hi < lo || hi > maxPort {
		return fmt.Errorf("port range %d-%d is not within 1-%d", lo, hi, maxPort)
	}
	s.add(protocol, lo, hi)
	return nil
}

func (s portSet) addName(pod *corev1.Pod, d Direction, protocol corev1.Protocol, port networkingv1.NetworkPolicyPort) error {
	name := port.Port.StrVal
	if _, err := strconv.Atoi(name); err == nil || name == "" || port.EndPort != nil {
		return fmt.Errorf("%q cannot be the name of a port", name)
	}
	if d == DirectionEgress {
		s.named[namedPort{protocol, name}] = true
		return nil
	}
	for _, declared := range declaredPorts(pod) {
		if declared.Name == name && cmp.Or(declared.Protocol, corev1.ProtocolTCP) == protocol {
			number := portNumber(declared.ContainerPort)
			s.add(protocol, number, number)
			s.label(protocol, number, name)
		}
	}
	return nil
}

// declaredPorts returns the ports of all containers of the pod, native sidecars and other init containers included.
// Implementations differ in which of them they look at.
func declaredPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range list {
			ports = append(ports, c.Ports...)
		}
	}
	return ports
}
