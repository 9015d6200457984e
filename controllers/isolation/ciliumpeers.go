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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// ciliumContext is the rule that is being read.
type ciliumContext struct {
	ciliumReader
	direction Direction
	action    action
	// field is where the rule is.
	field string
}

// name is the name of a field that has another prefix for each direction.
func (c ciliumContext) name(suffix string) string {
	if c.direction == DirectionEgress {
		return c.field + ".to" + suffix
	}
	return c.field + ".from" + suffix
}

// ciliumEnd is what a part of a rule's peers stands for.
type ciliumEnd struct {
	box box
	// field is where the part is, fit how well the box stands for it.
	field string
	fit   fit
}

// ends reads the peers of a rule. A rule has one list of them at most. Without any it is about everybody, but only if it has ports; one that has neither matches nothing, and neither does
// one with a list that has no elements (Cilium's documentation of fromEndpoints). narrowed says that fromRequires or toRequires, which Cilium had until 1.18, take something away.
func (c ciliumContext) ends(in ciliumRule, narrowed bool) ([]ciliumEnd, error) {
	out, lists, err := c.lists(in)
	if err != nil {
		return nil, err
	}
	switch {
	case lists > 1:
		return nil, refuse(c.field, "Cilium does not let several kinds of peers be combined")
	case in.matchesNobody(), lists == 0 && len(in.ToPorts) == 0 && len(in.Requires) == 0, len(in.ToPorts) == 0 && len(in.ICMPs) > 0:
		return nil, nil
	case lists == 0:
		out = []ciliumEnd{{box: anyBox(), field: c.field}}
	}
	out = slices.DeleteFunc(out, func(e ciliumEnd) bool { return e.box.empty() })
	for i := range out {
		switch {
		case len(in.Requires) > 0:
			out[i].field, out[i].fit = c.name("Requires"), fitUnknown
		case in.Authentication != nil && in.Authentication.Mode != "disabled":
			out[i].field, out[i].fit = c.field+".authentication", fitUnknown
		case narrowed:
			out[i].fit = max(out[i].fit, fitSome)
		}
	}
	return out, nil
}

// matchesNobody says whether the rule has a list of peers without elements. Lists of Services, domain names and groups do not count: without elements it is as if they were not there.
func (r ciliumRule) matchesNobody() bool {
	return r.Endpoints != nil && len(r.Endpoints) == 0 || r.Nodes != nil && len(r.Nodes) == 0 || r.CIDR != nil && len(r.CIDR) == 0 ||
		r.CIDRSet != nil && len(r.CIDRSet) == 0 || r.Entities != nil && len(r.Entities) == 0
}

// lists reads all lists of peers and counts those that have elements.
func (c ciliumContext) lists(in ciliumRule) (out []ciliumEnd, count int, err error) {
	for _, read := range []struct {
		length int
		one    func(i int) ([]ciliumEnd, error)
	}{
		{len(in.Endpoints), func(i int) ([]ciliumEnd, error) { return c.endpoints(c.at("Endpoints", i), &in.Endpoints[i]) }},
		{len(in.Nodes), func(i int) ([]ciliumEnd, error) { return c.nodes(c.at("Nodes", i), &in.Nodes[i]) }},
		{len(in.CIDR), func(i int) ([]ciliumEnd, error) { return c.block(c.at("CIDR", i), in.CIDR[i], nil) }},
		{len(in.CIDRSet), func(i int) ([]ciliumEnd, error) { return c.blocks(c.at("CIDRSet", i), in.CIDRSet[i]) }},
		{len(in.Entities), func(i int) ([]ciliumEnd, error) { return c.entity(c.at("Entities", i), in.Entities[i]) }},
		{len(in.FQDNs), func(i int) ([]ciliumEnd, error) { return c.domain(c.at("FQDNs", i), in.FQDNs[i]) }},
		{min(len(in.Groups), 1), func(int) ([]ciliumEnd, error) {
			return []ciliumEnd{{box: outsidePeers("groups of a cloud provider"), field: c.name("Groups"), fit: fitSome}}, nil
		}},
		{min(len(in.Services), 1), func(int) ([]ciliumEnd, error) { return c.services(), nil }},
	} {
		for i := range read.length {
			ends, err := read.one(i)
			if err != nil {
				return nil, 0, err
			}
			out = append(out, ends...)
		}
		if read.length > 0 {
			count++
		}
	}
	return out, count, nil
}

func (c ciliumContext) at(list string, i int) string { return fmt.Sprintf("%s[%d]", c.name(list), i) }

// services are whoever is behind Services. If no Service matches, a rule with ports is about everybody: Cilium puts the peers of Services into the rule before it looks whether it has any.
func (c ciliumContext) services() []ciliumEnd {
	b := anyBox()
	b.text = "whoever is behind Services"
	return []ciliumEnd{{box: b, field: c.name("Services"), fit: fitSome}}
}

// endpoints reads a selector of peers. If it does not say in which namespaces they are, it is the policy's own, or all for a clusterwide policy.
func (c ciliumContext) endpoints(field string, in *metav1.LabelSelector) ([]ciliumEnd, error) {
	l, err := readCiliumSelector(field, in)
	if err != nil {
		return nil, err
	}
	if len(l.reserved) > 0 {
		return c.reserved(field, l)
	}
	own := !c.clusterwide && !l.byName && !l.byLabels
	if own {
		l.and(inNamespace(c.namespace))
	}
	fits := fitExact
	if l.unsure != "" {
		fits, field = fitUnknown, field+" (label "+l.unsure+")"
	}
	var out []ciliumEnd
	if !l.none {
		text := describePods(l.pods)
		if own {
			text = describeOnlyPods(l.pods) + " in this namespace"
		}
		out = append(out, ciliumEnd{box: podPeers(l.pods, text), field: field, fit: fits})
	}
	if own || l.onlyPods || c.clusterwide && !l.byName && !c.startup {
		return out, nil
	}
	// Nothing in it keeps ends out that have no labels, such as the outside world.
	return append(out, ciliumEnd{box: outsidePeers("ends that are not pods and lack labels"), field: field, fit: max(fits, fitSome)}), nil
}

// reserved reads a selector that asks for reserved labels. One that asks for a single one is another way of writing an entity.
func (c ciliumContext) reserved(field string, l ciliumLabels) ([]ciliumEnd, error) {
	asked := l.reserved[0]
	if l.size > 1 || !asked.values.has(map[string]string{asked.key: ""}, asked.key) || asked.values.absent || !slices.Contains(append(neverPods(), "init"), asked.key) {
		return []ciliumEnd{{box: anyBox(), field: field, fit: fitUnknown}}, nil
	}
	out, err := c.entity(field, asked.key)
	for i := range out {
		out[i].fit = max(out[i].fit, fitSome) // an entity can be more than the label of its name
	}
	return out, err
}

// entity reads one of Cilium's entities. What denies one counts only for those that are sure to hold all of the ends: another cluster's pods and nodes, for example, are in no "cluster".
func (c ciliumContext) entity(field, name string) ([]ciliumEnd, error) {
	text := "entity " + name
	pods := box{sorts: anyPod, addrs: everyAddress, ports: everyPort()}
	others := outsidePeers(text)
	world, hosts := others, others
	world.sorts, hosts.sorts = outside, nodes
	if c.action == deny {
		others = hosts // what else they hold of the outside is so little that it need not be doubted that the rest is allowed
	}
	end := func(b box, f fit) ciliumEnd { return ciliumEnd{box: b, field: field, fit: f} }
	switch name {
	case "all":
		return []ciliumEnd{end(anyBox(), fitExact)}, nil
	case "world":
		return []ciliumEnd{end(world, fitExact)}, nil
	case "world-ipv4":
		world.addrs = union(spanOf(netip.MustParsePrefix("0.0.0.0/0")))
		return []ciliumEnd{end(world, fitSome)}, nil
	case "world-ipv6":
		world.addrs = union(spanOf(netip.MustParsePrefix("::/0")))
		return []ciliumEnd{end(world, fitSome)}, nil
	case "cluster":
		return []ciliumEnd{end(pods, fitWeak), end(others, fitSome)}, nil
	case "cluster-mesh":
		return []ciliumEnd{end(pods, fitExact), end(others, fitSome)}, nil
	case "host", "remote-node", "ingress", "health":
		return []ciliumEnd{end(hosts, fitSome)}, nil
	case "kube-apiserver":
		return []ciliumEnd{end(others, fitSome)}, nil
	case "unmanaged":
		return []ciliumEnd{end(pods, fitSome), end(others, fitSome)}, nil
	case "init":
		return []ciliumEnd{end(pods, fitSome)}, nil
	case "none":
		return nil, nil
	}
	return nil, refuse(field, "%q is not an entity of Cilium's", name)
}

func (c ciliumContext) nodes(field string, in *metav1.LabelSelector) ([]ciliumEnd, error) {
	if _, err := readCiliumSelector(field, in); err != nil {
		return nil, err
	}
	b := outsidePeers("nodes by their labels")
	b.sorts = nodes
	return []ciliumEnd{{box: b, field: field, fit: fitSome}}, nil
}

func (c ciliumContext) domain(field string, in ciliumFQDN) ([]ciliumEnd, error) {
	if (in.MatchName == "") == (in.MatchPattern == "") {
		return nil, refuse(field, "it has to have either a name or a pattern")
	}
	return []ciliumEnd{{box: outsidePeers("domain name " + cmp.Or(in.MatchName, in.MatchPattern)), field: field, fit: fitSome}}, nil
}

// blocks reads an element of fromCIDRSet or toCIDRSet.
func (c ciliumContext) blocks(field string, in ciliumCIDR) ([]ciliumEnd, error) {
	group := in.GroupRef != "" || given(in.GroupSelector)
	switch {
	case group == (in.CIDR != "") || in.GroupRef != "" && given(in.GroupSelector):
		return nil, refuse(field, "it has to have one of cidr, cidrGroupRef and cidrGroupSelector")
	case !group && !strings.Contains(in.CIDR, "/"):
		return nil, refuse(field+".cidr", "it is not a CIDR")
	case !group:
		return c.block(field, in.CIDR, in.Except)
	}
	return []ciliumEnd{{box: blockPeers(everyAddress, strings.TrimSpace("addresses of CiliumCIDRGroup "+in.GroupRef)), field: field, fit: fitUnknown}}, nil
}

// block reads addresses. Whether they hold the pods and nodes that have them is a matter of Cilium's configuration (policy-cidr-match-mode), and by default they do not. So what is allowed
// holds them, and what is denied may or may not.
func (c ciliumContext) block(field, cidr string, except []string) ([]ciliumEnd, error) {
	if addr, err := netip.ParseAddr(cidr); err == nil {
		cidr = netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	set, text, err := parseBlock(networkingv1.IPBlock{CIDR: cidr, Except: except})
	if err != nil {
		return nil, refuse(field, "%w", err)
	}
	whole, _ := parseCIDR(cidr) // parseBlock has read it
	for _, e := range except {
		if part, _ := parseCIDR(e); part.Bits() < whole.Bits() || !whole.Contains(part.Addr()) {
			return nil, refuse(field+".except", "%s is not within %s", e, cidr)
		}
	}
	b := blockPeers(set, text)
	if c.action == accept {
		return []ciliumEnd{{box: b, field: field}}, nil
	}
	maybe := b
	b.sorts, maybe.sorts = outside, byAddress&^outside
	return []ciliumEnd{{box: b, field: field}, {box: maybe, field: field, fit: fitUnknown}}, nil
}

// given says whether a field that is not looked into is there.
func given(raw []byte) bool { return len(raw) > 0 && string(raw) != "null" }

// ciliumOn is what a part of a rule's ports stands for.
type ciliumOn struct {
	ports ports
	// field is where the part is, fit how well the ports stand for it.
	field string
	fit   fit
}

// ports reads the ports of a rule, which are all if toPorts is missing. ICMP and other protocols without ports are not flows that this package knows.
func (c ciliumContext) ports(in ciliumRule) ([]ciliumOn, error) {
	if len(in.ToPorts) == 0 {
		return []ciliumOn{{ports: allPorts()}}, nil
	}
	if len(in.ICMPs) > 0 {
		return nil, refuse(c.field+".icmps", "Cilium does not let it be combined with toPorts")
	}
	var sure, narrowed []ciliumPort
	var out []ciliumOn
	field := ""
	for i, one := range in.ToPorts {
		here := fmt.Sprintf("%s.toPorts[%d]", c.field, i)
		if err := checkCiliumPorts(here, one.Ports); err != nil {
			return nil, err
		}
		narrowing := one.narrowing()
		switch {
		case len(one.Ports) == 0:
			out = append(out, ciliumOn{ports: allPorts(), field: here + ".ports", fit: fitUnknown}) // present versions of Cilium match nothing
		case narrowing != "":
			narrowed, field = append(narrowed, one.Ports...), cmp.Or(field, here+"."+narrowing)
		default:
			sure = append(sure, one.Ports...)
		}
	}
	out = append(out, c.on(sure, ciliumOn{field: c.field + ".toPorts"})...)
	return append(out, c.on(narrowed, ciliumOn{field: field, fit: fitSome})...), nil
}

// narrowing names a field that restricts what a connection may be used for.
func (p ciliumPorts) narrowing() string {
	switch {
	case given(p.Rules):
		return "rules"
	case given(p.ServerNames):
		return "serverNames"
	case given(p.Listener):
		return "listener"
	case given(p.TerminatingTLS):
		return "terminatingTLS"
	case given(p.OriginatingTLS):
		return "originatingTLS"
	}
	return ""
}

// on completes base with the ports of a list. What is denied by the name of a port is sure only for those names of which it is clear which port they mean.
func (c ciliumContext) on(list []ciliumPort, base ciliumOn) []ciliumOn {
	if len(list) == 0 {
		return nil
	}
	names := slices.ContainsFunc(list, ciliumPort.named)
	var out []ciliumOn
	add := func(sure bool, f fit) {
		one := base
		one.fit = max(one.fit, f)
		one.ports.set = ciliumPortSet(&corev1.Pod{}, c.direction, list, sure)
		if names {
			one.ports.resolve = func(pod *corev1.Pod) (portSet, error) { return ciliumPortSet(pod, c.direction, list, sure), nil }
		}
		out = append(out, one)
	}
	if names && c.action == deny {
		add(true, fitExact)
		add(false, fitUnknown)
		return out
	}
	add(false, fitExact)
	return out
}

// transports are the protocols that an element of toPorts is about; ok is false for a name that Cilium has never had.
func (p ciliumPort) transports() (out []corev1.Protocol, ok bool) {
	switch name := strings.ToUpper(p.Protocol); name {
	case "", "ANY":
		return protocols(), true
	case "TCP", "UDP", "SCTP":
		return []corev1.Protocol{corev1.Protocol(name)}, true
	case "ICMP", "ICMPV6", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH":
		return nil, true
	}
	return nil, false
}

func (p ciliumPort) named() bool {
	_, err := strconv.ParseUint(p.Port, 10, 16)
	return err != nil
}

// checkCiliumPorts refuses what Cilium refuses, and numbers with leading zeros, which it reads as octal.
func checkCiliumPorts(field string, list []ciliumPort) error {
	for i, p := range list {
		here := fmt.Sprintf("%s.ports[%d]", field, i)
		transports, known := p.transports()
		switch {
		case !known:
			return refuse(here+".protocol", "%q is not a protocol of Cilium's", p.Protocol)
		case len(transports) == 0: // it has no ports
		case p.EndPort < 0 || p.EndPort > int32(maxPort):
			return refuse(here+".endPort", "%d is not a port", p.EndPort)
		case p.named() && len(validation.IsValidPortName(strings.ToLower(p.Port))) > 0, !p.named() && p.Port != "0" && strings.HasPrefix(p.Port, "0"):
			return refuse(here+".port", "%q is neither a port nor the name of one", p.Port)
		}
	}
	return nil
}

// ciliumPortSet returns the ports of a list that checkCiliumPorts has found good. With sure, names of which it is not clear which port they mean are left out.
func ciliumPortSet(pod *corev1.Pod, d Direction, list []ciliumPort, sure bool) portSet {
	if sure {
		pod = withSurePorts(pod)
	}
	s := newPortSet()
	for _, p := range list {
		transports, _ := p.transports()
		for _, protocol := range transports {
			number, err := strconv.ParseUint(p.Port, 10, 16)
			lo := portNumber(number)
			switch {
			case err != nil && sure && d == DirectionEgress: // it is the peers who say what a name means
			case err != nil:
				name := networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{Type: intstr.String, StrVal: strings.ToLower(p.Port)}}
				_ = s.addName(pod, d, protocol, name) // the name is good
			case lo == 0:
				s.add(protocol, 0, maxPort)
			default:
				s.add(protocol, lo, max(lo, portNumber(p.EndPort)))
			}
		}
	}
	s.normalise()
	return s
}
