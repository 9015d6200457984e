package isolation

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// calicoRule is a rule of a Calico policy. All that it says has to hold for it to match.
type calicoRule struct {
	Action      string              `json:"action"`
	IPVersion   *int                `json:"ipVersion"`
	Protocol    *intstr.IntOrString `json:"protocol"`
	NotProtocol *intstr.IntOrString `json:"notProtocol"`
	ICMP        any                 `json:"icmp"`
	NotICMP     any                 `json:"notICMP"`
	Source      calicoEntity        `json:"source"`
	Destination calicoEntity        `json:"destination"`
	HTTP        any                 `json:"http"`
	Metadata    any                 `json:"metadata"`
}

// calicoEntity is one end of a rule's flows.
type calicoEntity struct {
	Nets              []string             `json:"nets"`
	NotNets           []string             `json:"notNets"`
	Selector          string               `json:"selector"`
	NotSelector       string               `json:"notSelector"`
	NamespaceSelector string               `json:"namespaceSelector"`
	ServiceAccounts   *calicoAccounts      `json:"serviceAccounts"`
	Services          any                  `json:"services"`
	Ports             []intstr.IntOrString `json:"ports"`
	NotPorts          []intstr.IntOrString `json:"notPorts"`
}

// calicoAccounts are ServiceAccounts by their names and by their labels; both have to hold.
type calicoAccounts struct {
	Names    []string `json:"names"`
	Selector string   `json:"selector"`
}

// calicoActions are what rules can do. The action Log decides nothing.
func calicoActions() map[string]action {
	return map[string]action{"Allow": accept, "Deny": deny, "Pass": pass}
}

const calicoActionLog = "Log"

// calicoEnds are ends of flows that a rule is about.
type calicoEnds struct {
	boxes []box
	// undecided names the field that makes it uncertain which of the ends are meant; inexact says that some of them certainly are.
	undecided string
	inexact   bool
	// reason says why the field in undecided cannot be read.
	reason string
}

// calicoReader reads the rules of one policy.
type calicoReader struct {
	// namespace is that of the policy; empty for a GlobalNetworkPolicy.
	namespace string
	// unreadable is the first field that has no meaning.
	unreadable string
}

// cannotRead notes the field and returns ends that may be everybody.
func (r *calicoReader) cannotRead(field, reason, text string) []calicoEnds {
	r.unreadable = cmp.Or(r.unreadable, field)
	b := anyBox()
	b.text = text
	return []calicoEnds{{boxes: []box{b}, undecided: field, reason: reason}}
}

// rule reads one rule. What is certain in it and what is not become rules of their own, with the same index.
func (r *calicoReader) rule(d Direction, index int, in calicoRule) []rule {
	field := fmt.Sprintf("spec.%s[%d]", strings.ToLower(string(d)), index)
	act, known := calicoActions()[in.Action]
	if in.Action == calicoActionLog {
		return nil
	}
	on := r.ports(field, d, act, in)
	if on.nothing {
		return nil // such as a rule about ICMP alone
	}
	base := rule{index: index, action: act, ports: on.ports, reason: on.reason, undecided: on.undecided}
	switch {
	case !known:
		r.unreadable = cmp.Or(r.unreadable, field+".action")
		base.undecided = field + ".action"
	case base.undecided == "":
		base.undecided = in.narrowed(field, d, act)
	}
	peer, name := in.Source, field+".source"
	if d == DirectionEgress {
		peer, name = in.Destination, field+".destination"
	}
	var out []rule
	for _, ends := range r.ends(name, act, peer, in.addresses()) {
		one := base
		one.peers = ends.boxes
		if act == accept && (ends.reason != "" || ends.inexact) {
			one.reason, one.inexact = cmp.Or(base.reason, ends.reason), ends.inexact
		} else {
			one.undecided = cmp.Or(base.undecided, ends.undecided)
		}
		out = append(out, one)
	}
	return out
}

// addresses are those of the IP version that the rule is about.
func (in calicoRule) addresses() addresses {
	if in.IPVersion == nil {
		return everyAddress
	}
	switch *in.IPVersion {
	case 4:
		return union(spanOf(netip.MustParsePrefix("0.0.0.0/0")))
	case 6:
		return union(spanOf(netip.MustParsePrefix("::/0")))
	}
	return everyAddress
}

// narrowed names a field by which the rule matches less than its peers and ports say. What it says of the end that is not the peer is about the pod itself, and depends on its labels,
// addresses and Services; the ports from which a connection comes are anybody's choice. The field http counts for nothing with Allow: what it lets through of TCP is let through.
func (in calicoRule) narrowed(field string, d Direction, act action) string {
	own, name := in.Destination, ".destination."
	own.Ports, own.NotPorts = in.Source.Ports, in.Source.NotPorts
	if d == DirectionEgress {
		own, name = in.Source, ".source."
	}
	fields := []struct {
		name string
		set  bool
	}{
		{".ipVersion", in.IPVersion != nil && *in.IPVersion != 4 && *in.IPVersion != 6},
		{".icmp", in.ICMP != nil},
		{".notICMP", in.NotICMP != nil},
		{".http", in.HTTP != nil && act != accept},
		{name + "nets", len(own.Nets) > 0},
		{name + "notNets", len(own.NotNets) > 0},
		{name + "selector", own.Selector != ""},
		{name + "notSelector", own.NotSelector != ""},
		{name + "namespaceSelector", own.NamespaceSelector != ""},
		{name + "serviceAccounts", own.ServiceAccounts != nil},
		{name + "services", own.Services != nil},
		{".source.ports", len(own.Ports) > 0},
		{".source.notPorts", len(own.NotPorts) > 0},
	}
	for _, f := range fields {
		if f.set {
			return field + f.name
		}
	}
	return ""
}

// ends reads an end of the rule's flows that has one of the addresses.
func (r *calicoReader) ends(field string, act action, in calicoEntity, within addresses) []calicoEnds {
	addrs, bad, err := in.addresses(within)
	switch {
	case err != nil:
		return r.cannotRead(field+"."+bad, ReasonInvalidCIDR, fmt.Sprintf("CIDR %q except %q", in.Nets, in.NotNets))
	case len(addrs) == 0:
		return nil
	}
	whoever := box{sorts: anySort, addrs: addrs, ports: everyPort(), text: in.text(within)}
	if act == accept && !addrs.equal(everyAddress) {
		// Calico compares the addresses of pods too, so that whoever has one is affected, in whatever way other policies see it. Who is let through is said once, though.
		whoever.sorts = byAddress
	}
	if in.Services != nil {
		return []calicoEnds{{boxes: []box{whoever}, undecided: field + ".services"}}
	}
	chosen, left, bad := r.selectors(field, in)
	switch {
	case bad != "":
		return r.cannotRead(bad, ReasonInvalidSelector, "endpoints with an invalid selector")
	case chosen == nil && left == nil:
		return []calicoEnds{{boxes: []box{whoever}}}
	}
	return in.selected(field, act, chosen, left, addrs)
}

// selected returns the ends that are chosen, everybody if chosen is nil, and that notSelector leaves, if left is not nil.
//
// Beside pods, Calico selects network sets and host endpoints by their labels, even with all(), and turns all of them into addresses. These may be addresses of pods too. Nobody who
// reads policies only knows them. So it is not certain who else is chosen, and not certain of anybody that notSelector leaves it.
func (in calicoEntity) selected(field string, act action, chosen, left *alternatives, addrs addresses) []calicoEnds {
	const unknown = " (which network sets and host endpoints it selects is not known)"
	others := box{sorts: anySort, addrs: addrs, ports: everyPort(), text: "addresses of network sets and host endpoints"}
	if act == accept {
		others.sorts = byAddress
	}
	pods := everyPod()
	if chosen != nil {
		pods = *chosen
	} else {
		others.sorts, others.text = noPods, ""
	}
	ends := calicoEnds{undecided: pods.why}
	if left != nil {
		pods = pods.and(*left)
		ends.undecided, ends.inexact = cmp.Or(pods.why, field+".notSelector"+unknown), pods.why == ""
	}
	for _, c := range pods.parts {
		ends.boxes = append(ends.boxes, box{sorts: anyPod, labels: c, addrs: addrs, ports: everyPort()})
	}
	out := []calicoEnds{{boxes: []box{others}, undecided: in.selecting(field) + unknown, inexact: chosen == nil}}
	if len(ends.boxes) > 0 {
		out = append(out, ends)
	}
	return out
}

// selectors returns the pods that the entity selects, or nil if it does not ask for endpoints, and those that notSelector leaves, or nil without it. In a namespaced policy all of
// them are in its namespace unless there is a namespaceSelector. bad names a field that cannot be read.
func (r *calicoReader) selectors(at string, in calicoEntity) (chosen, left *alternatives, bad string) {
	accounts := calicoAccounts{}
	if in.ServiceAccounts != nil {
		accounts = *in.ServiceAccounts
	}
	var of []alternatives
	for _, one := range []struct{ name, prefix, text string }{
		{".selector", "", in.Selector},
		{".namespaceSelector", calicoNamespacePrefix, in.NamespaceSelector},
		{".serviceAccounts.selector", calicoAccountPrefix, accounts.Selector},
	} {
		s, err := parseCalicoSelector(at+one.name, one.prefix, one.text, one.prefix == calicoNamespacePrefix)
		switch {
		case err != nil:
			return nil, nil, at + one.name
		case one.text != "":
			of = append(of, s.pods(false))
		}
	}
	if len(accounts.Names) > 0 {
		named, ok := namedAccounts(accounts.Names)
		if !ok {
			return nil, nil, at + ".serviceAccounts.names"
		}
		of = append(of, named)
	}
	if in.NotSelector != "" {
		s, err := parseCalicoSelector(at+".notSelector", "", in.NotSelector, false)
		if err != nil {
			return nil, nil, at + ".notSelector"
		}
		left = new(s.pods(true))
	}
	if r.namespace != "" && in.NamespaceSelector == "" && (len(of) > 0 || left != nil) {
		of = append(of, alternatives{parts: []constraint{{inNamespace(r.namespace)}}})
	}
	for i, a := range of {
		if i > 0 {
			a = chosen.and(a)
		}
		chosen = &a
	}
	return chosen, left, ""
}

// namedAccounts are the pods with one of the ServiceAccounts. Calico makes a selector of the names, so that a quote in one of them can mean anything.
func namedAccounts(names []string) (pods alternatives, ok bool) {
	if slices.ContainsFunc(names, func(s string) bool { return strings.Contains(s, "'") }) {
		return alternatives{}, false
	}
	if c, some := podsLabelled(calicoLabelAccount, oneOf(names...)); some {
		pods.parts = []constraint{c}
	}
	return pods, true
}

// selecting names the field by which the entity selects endpoints.
func (in calicoEntity) selecting(at string) string {
	switch {
	case in.Selector != "":
		return at + ".selector"
	case in.NamespaceSelector != "":
		return at + ".namespaceSelector"
	case in.ServiceAccounts != nil && in.ServiceAccounts.Selector+strings.Join(in.ServiceAccounts.Names, "") != "":
		return at + ".serviceAccounts"
	}
	return at + ".notSelector"
}

// addresses are those of within that nets and notNets leave. field says which of them cannot be read.
func (in calicoEntity) addresses(within addresses) (out addresses, field string, err error) {
	out = within
	if len(in.Nets) > 0 {
		nets, err := readNets(in.Nets)
		if err != nil {
			return nil, "nets", err
		}
		out = out.intersect(nets)
	}
	excluded, err := readNets(in.NotNets)
	if err != nil {
		return nil, "notNets", err
	}
	return out.minus(excluded), "", nil
}

// text says in words what addresses says.
func (in calicoEntity) text(within addresses) string {
	switch {
	case !within.equal(everyAddress):
		return ""
	case len(in.Nets)+len(in.NotNets) == 0:
		return textAnyPeer
	case len(in.NotNets) == 0:
		return "CIDR " + strings.Join(in.Nets, ", ")
	case len(in.Nets) == 0:
		return "any address except " + strings.Join(in.NotNets, ", ")
	}
	return fmt.Sprintf("CIDR %s except %s", strings.Join(in.Nets, ", "), strings.Join(in.NotNets, ", "))
}

// readNets reads CIDRs and single addresses.
func readNets(list []string) (addresses, error) {
	out := make([]span[netip.Addr], 0, len(list))
	for _, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			s = netip.PrefixFrom(addr, addr.BitLen()).String()
		}
		prefix, err := parseCIDR(s)
		if err != nil {
			return nil, err
		}
		out = append(out, spanOf(prefix))
	}
	return union(out...), nil
}

// calicoPorts are the ports of a rule.
type calicoPorts struct {
	ports ports
	// nothing says that the rule is about protocols only that are not those of a NetworkPolicy.
	nothing bool
	// reason and undecided are those of a rule.
	reason, undecided string
}

// ports reads the protocols and the ports of a rule, which are the ports of the destination in both directions.
func (r *calicoReader) ports(field string, d Direction, act action, in calicoRule) calicoPorts {
	cannotRead := func(name string) calicoPorts {
		field += name
		r.unreadable = cmp.Or(r.unreadable, field)
		if act == accept {
			return calicoPorts{ports: allPorts(), reason: ReasonInvalidPort}
		}
		return calicoPorts{ports: allPorts(), undecided: field}
	}
	among, bad, err := in.protocols()
	switch {
	case err != nil:
		return cannotRead(bad)
	case len(among) == 0:
		return calicoPorts{nothing: true}
	}
	yes, not := in.Destination.Ports, in.Destination.NotPorts
	if in.Protocol == nil && len(yes)+len(not) > 0 {
		return cannotRead(".protocol")
	}
	named := func(list []intstr.IntOrString) bool { return slices.ContainsFunc(list, isPortName) }
	of := func(pod *corev1.Pod) (portSet, error) { return readCalicoPorts(pod, d, among, yes, not) }
	set, err := of(&corev1.Pod{})
	out := calicoPorts{ports: ports{set: set}}
	switch {
	case err != nil:
		return cannotRead(".destination.ports")
	case named(not):
		set, _ = readCalicoPorts(&corev1.Pod{}, d, among, nil, nil)
		return calicoPorts{ports: ports{set: set}, undecided: field + ".destination.notPorts"}
	case !named(yes):
		out.nothing = set.empty()
	case act == accept && d == DirectionIngress:
		out.ports = ports{resolve: of}
	case act == deny && d == DirectionIngress:
		// Not every version of Calico knows the ports of init containers.
		out.ports = ports{resolve: func(pod *corev1.Pod) (portSet, error) {
			return of(&corev1.Pod{Spec: corev1.PodSpec{Containers: pod.Spec.Containers}})
		}}
	case act != accept:
		set, _ = readCalicoPorts(&corev1.Pod{}, d, among, nil, nil)
		return calicoPorts{ports: ports{set: set}, undecided: field + ".destination.ports"}
	}
	return out
}

// protocols are those of the rule that a NetworkPolicy can have too.
func (in calicoRule) protocols() (out []corev1.Protocol, field string, err error) {
	out = protocols()
	if in.Protocol != nil {
		only, err := readProtocol(*in.Protocol)
		if err != nil {
			return nil, ".protocol", err
		}
		out = slices.DeleteFunc(out, func(p corev1.Protocol) bool { return p != only })
	}
	if in.NotProtocol != nil {
		but, err := readProtocol(*in.NotProtocol)
		if err != nil {
			return nil, ".notProtocol", err
		}
		out = slices.DeleteFunc(out, func(p corev1.Protocol) bool { return p == but })
	}
	return out, "", nil
}

// readProtocol reads a protocol by its name or its number, as assigned by IANA. The result is empty for one that a NetworkPolicy cannot have.
func readProtocol(in intstr.IntOrString) (corev1.Protocol, error) {
	number := int(in.IntVal)
	if in.Type == intstr.String {
		for _, p := range protocols() {
			if strings.EqualFold(in.StrVal, string(p)) {
				return p, nil
			}
		}
		for _, other := range []string{"ICMP", "ICMPv6", "UDPLite"} {
			if strings.EqualFold(in.StrVal, other) {
				return "", nil
			}
		}
		var err error
		if number, err = strconv.Atoi(in.StrVal); err != nil {
			return "", fmt.Errorf("protocol %q is not known", in.StrVal)
		}
	}
	switch number {
	case 6:
		return corev1.ProtocolTCP, nil
	case 17:
		return corev1.ProtocolUDP, nil
	case 132:
		return corev1.ProtocolSCTP, nil
	}
	if number < 1 || number > 255 {
		return "", fmt.Errorf("there is no protocol %d", number)
	}
	return "", nil
}

// readCalicoPorts returns the ports in yes, or all if there are none, without those in not. Names are looked up on the pod for ingress; for egress they stay names.
func readCalicoPorts(pod *corev1.Pod, d Direction, among []corev1.Protocol, yes, not []intstr.IntOrString) (portSet, error) {
	set, without := newPortSet(), newPortSet()
	for _, protocol := range among {
		if len(yes) == 0 {
			set.add(protocol, 0, maxPort)
		}
		for _, one := range yes {
			if err := set.addCalico(pod, d, protocol, one); err != nil {
				return portSet{}, err
			}
		}
		for _, one := range not {
			if err := without.addCalico(pod, d, protocol, one); err != nil {
				return portSet{}, err
			}
		}
	}
	set.normalise()
	without.normalise()
	return set.minus(without), nil
}

// addCalico adds a port: a number, a range such as "8080:8090", or a name.
func (s portSet) addCalico(pod *corev1.Pod, d Direction, protocol corev1.Protocol, in intstr.IntOrString) error {
	if isPortName(in) {
		return s.addName(pod, d, protocol, networkingv1.NetworkPolicyPort{Port: &in})
	}
	from, to, isRange := strings.Cut(in.String(), ":")
	if !isRange {
		to = from
	}
	lo, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return fmt.Errorf("reading port %q: %w", in.String(), err)
	}
	hi, err := strconv.ParseUint(to, 10, 16)
	if err != nil {
		return fmt.Errorf("reading port %q: %w", in.String(), err)
	}
	if lo > hi {
		return fmt.Errorf("port range %q has its ends the wrong way round", in.String())
	}
	s.add(protocol, portNumber(lo), portNumber(hi))
	return nil
}

// isPortName says whether a port goes by its name. One of digits only is a number.
func isPortName(in intstr.IntOrString) bool {
	inName := func(r rune) bool { return isLabelRune(r) && r != '/' }
	return in.Type == intstr.String && strings.Trim(in.StrVal, "0123456789") != "" && !strings.ContainsFunc(in.StrVal, func(r rune) bool { return !inName(r) })
}
