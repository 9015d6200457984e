package isolation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What all kinds and versions of the Network Policy API (policy.networking.k8s.io) have in common.

// adminSubject has exactly one of its fields. Pods that use their node's network are in no subject.
type adminSubject struct {
	Namespaces *metav1.LabelSelector `json:"namespaces"`
	Pods       *adminPods            `json:"pods"`
}

// adminPods are pods by the labels of their namespaces and their own. An empty selector, and a missing selector of namespaces, selects everything.
type adminPods struct {
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       *metav1.LabelSelector `json:"podSelector"`
}

// adminPeer has exactly one of its fields. Only the first two are for ingress; domainNames is not for BaselineAdminNetworkPolicies.
type adminPeer struct {
	Namespaces  *metav1.LabelSelector `json:"namespaces"`
	Pods        *adminPods            `json:"pods"`
	Nodes       *metav1.LabelSelector `json:"nodes"`
	Networks    []string              `json:"networks"`
	DomainNames []string              `json:"domainNames"`
}

// adminRule is a rule of either version.
type adminRule struct {
	action   string
	from, to []adminPeer
	// portsField is the name of the list of ports; portsReadable says that every element of it has a meaning.
	portsField    string
	ports         []networkingv1.NetworkPolicyPort
	portsReadable bool
}

func ordered[T interface{ ordered() adminRule }](rules []T) []adminRule {
	out := make([]adminRule, 0, len(rules))
	for _, r := range rules {
		out = append(out, r.ordered())
	}
	return out
}

// portsOf joins the ports of the elements of a rule's list. The API has no empty lists: without a list, a rule is about all ports.
func portsOf[T any](list []T, ports func(T) ([]networkingv1.NetworkPolicyPort, bool)) (out []networkingv1.NetworkPolicyPort, ok bool) {
	for _, one := range list {
		some, good := ports(one)
		if !good {
			return nil, false
		}
		out = append(out, some...)
	}
	return out, list == nil || len(list) > 0
}

// adminReader reads one object.
type adminReader struct {
	ref     Ref
	subject subject
	at      tier
	status  effect
	// actions are those that the kind has, by their names; domainNames says that it has peers by domain name.
	actions     map[string]action
	domainNames bool
	// refusable is the first field that has no meaning, or that not every implementation supports.
	refusable string
}

func newAdminReader(u *unstructured.Unstructured, s adminSubject, at tier) *adminReader {
	return &adminReader{ref: refOf(u), subject: s.read(), at: at, status: effectOf(u)}
}

// read makes the policy. It has no say in a direction for which it has no rules.
func (r *adminReader) read(ingress, egress []adminRule) *Policy {
	p := &Policy{Ref: r.ref, subject: r.subject}
	for _, d := range Directions() {
		list := ingress
		if d == DirectionEgress {
			list = egress
		}
		s := &section{tier: r.at}
		for i, in := range list {
			s.rules = append(s.rules, r.rule(d, i, in)...)
		}
		opens := func(r rule) bool { return r.action != deny }
		// If nobody can read whom it selects, it counts as allowing everything, which it cannot do without such a rule.
		if len(s.rules) > 0 && (p.subject.invalid == "" || slices.ContainsFunc(s.rules, opens)) {
			p.addSection(d, s)
		}
	}
	if r.refusable != "" && !r.status.reported && !r.status.refused {
		r.status.refuse("an implementation may refuse all of it because of " + r.refusable)
	}
	p.reported, p.refused, p.notReported = r.status.reported, r.status.refused, r.status.why
	return p
}

func (s adminSubject) read() subject {
	const field = "spec.subject"
	switch {
	case (s.Namespaces == nil) == (s.Pods == nil):
		return subject{undecided: field + ": it needs either namespaces or pods"}
	case s.Pods != nil && s.Pods.PodSelector == nil:
		return subject{undecided: field + ".pods.podSelector: there is none"}
	}
	namespaces, pods := s.selectors()
	c, _, ok, err := parsePods("", namespaces, pods)
	switch {
	case err != nil && s.Pods != nil:
		return subject{invalid: field + ".pods"}
	case err != nil:
		return subject{invalid: field + ".namespaces"}
	case !ok:
		return subject{}
	}
	return subject{parts: []constraint{c}}
}

// selectors are those of namespaces, which is never missing, and of pods.
func (s adminSubject) selectors() (namespaces, pods *metav1.LabelSelector) {
	if s.Pods == nil {
		return s.Namespaces, nil
	}
	if s.Pods.NamespaceSelector == nil {
		return &metav1.LabelSelector{}, s.Pods.PodSelector
	}
	return s.Pods.NamespaceSelector, s.Pods.PodSelector
}

// adminEnd is what a rule's element of from or to stands for.
type adminEnd struct {
	box box
	// reason says why nobody knows whom it matches; the box then holds everybody.
	reason string
	// field is set with reason, and for ends whose addresses are not known; the box then holds too much.
	field string
}

// rule reads one rule. What is certain in it, what may be in it, and what cannot be read become rules of their own, with the same index.
func (r *adminReader) rule(d Direction, index int, in adminRule) []rule {
	field := fmt.Sprintf("spec.%s[%d]", strings.ToLower(string(d)), index)
	act, known := r.actions[in.action]
	if !known {
		return r.undecided(index, accept, field+".action")
	}
	peers, name, other := in.from, ".from", in.to
	if d == DirectionEgress {
		peers, name, other = in.to, ".to", in.from
	}
	switch {
	case other != nil:
		return r.undecided(index, act, field)
	case len(peers) == 0 && act == accept:
		return []rule{{index: index, action: accept, peers: anyPeers(), ports: allPorts(), reason: r.cannotRead(field+name, ReasonInvalidPeer)}}
	case len(peers) == 0:
		return r.undecided(index, act, field+name)
	}
	var sure []box
	var rest []adminEnd
	for i, p := range peers {
		for _, end := range r.ends(d, act, p, fmt.Sprintf("%s%s[%d]", field, name, i)) {
			switch {
			case end.box.empty():
			case end.field == "":
				sure = append(sure, end.box)
			default:
				rest = append(rest, end)
			}
		}
	}
	on := r.portsOf(d, in, field)
	if act == accept {
		return acceptRules(index, sure, rest, on)
	}
	return restrictRules(rule{index: index, action: act}, sure, rest, on)
}

// undecided is a rule that may be about everything.
func (r *adminReader) undecided(index int, act action, field string) []rule {
	r.cannotRead(field, "")
	return []rule{{index: index, action: act, peers: anyPeers(), ports: allPorts(), undecided: field}}
}

// cannotRead notes the field and returns the reason.
func (r *adminReader) cannotRead(field, reason string) string {
	r.refusable = cmp.Or(r.refusable, field)
	return reason
}

// acceptRules are the rules of a rule that accepts. Only what is certain keeps flows from the rules after it.
func acceptRules(index int, sure []box, rest []adminEnd, on adminPorts) []rule {
	var out []rule
	for _, end := range rest {
		one := rule{index: index, action: accept, peers: []box{end.box}, ports: on.most, reason: end.reason}
		if one.reason == "" {
			one.reason, one.inexact = on.reason, true
		}
		out = append(out, one)
	}
	if len(sure) == 0 {
		return out
	}
	out = append(out, rule{index: index, action: accept, peers: sure, ports: on.sure, reason: on.reason})
	if on.field != "" && on.reason == "" {
		out = append(out, rule{index: index, action: accept, peers: sure, ports: on.most, undecided: on.field})
	}
	return out
}

// restrictRules are the rules of a rule that denies or passes on. One with a part that cannot be read has no certain effect: implementations differ in what they then do with the others.
func restrictRules(base rule, sure []box, rest []adminEnd, on adminPorts) []rule {
	unread := slices.IndexFunc(rest, func(end adminEnd) bool { return end.reason != "" })
	if unread >= 0 || on.reason != "" {
		base.ports, base.peers, base.undecided = on.most, slices.Clone(sure), on.field
		for _, end := range rest {
			base.peers = append(base.peers, end.box)
		}
		if unread >= 0 {
			base.undecided = rest[unread].field
		}
		return []rule{base}
	}
	var out []rule
	add := func(peers []box, on ports, undecided string) {
		one := base
		one.peers, one.ports, one.undecided = peers, on, undecided
		out = append(out, one)
	}
	if len(sure) > 0 {
		add(sure, on.sure, "")
		if on.field != "" {
			add(sure, on.most, on.field)
		}
	}
	for _, end := range rest {
		add([]box{end.box}, on.most, end.field)
	}
	return out
}

// ends reads an element of from or to. By the API, networks hold whoever has one of the addresses. Cilium, which does not report in status, knows pods and nodes by other means than their
// addresses, so that a network which is denied or passed on holds no nodes for certain unless an implementation has reported.
func (r *adminReader) ends(d Direction, act action, p adminPeer, field string) []adminEnd {
	end := r.end(d, act, p, field)
	if end.field != "" || end.box.sorts&nodes == 0 || act == accept || r.status.reported {
		return []adminEnd{end}
	}
	other := adminEnd{box: end.box, field: field + ".networks (whether they hold nodes)"}
	end.box.sorts &^= nodes
	other.box.sorts, other.box.text = nodes, ""
	return []adminEnd{end, other}
}

// end reads an element of from or to. The box of one that can match nobody is empty.
func (r *adminReader) end(d Direction, act action, p adminPeer, field string) adminEnd {
	unreadable := func(field, reason, text string) adminEnd {
		return adminEnd{box: unreadable(reason, text).box, reason: r.cannotRead(field, reason), field: field}
	}
	if p.Nodes != nil || p.DomainNames != nil {
		r.refusable = cmp.Or(r.refusable, field) // they are experimental, and Cilium refuses them in some of its configurations
	}
	switch {
	case p.fields() != 1, p.Pods != nil && p.Pods.PodSelector == nil, d == DirectionIngress && p.hasAddresses():
		return unreadable(field, ReasonInvalidPeer, "a peer that the API does not have")
	case p.Networks != nil:
		set, text, ok := readNetworks(p.Networks)
		if !ok {
			return unreadable(field+".networks", ReasonInvalidCIDR, text)
		}
		return adminEnd{box: blockPeers(set, text)}
	case p.Nodes != nil:
		text, ok, err := describeNodes(p.Nodes)
		switch {
		case err != nil:
			return unreadable(field+".nodes", ReasonInvalidSelector, text)
		case !ok:
			return adminEnd{}
		}
		return adminEnd{box: outsidePeers(text), field: field + ".nodes"}
	case p.DomainNames != nil && (!r.domainNames || act != accept || len(p.DomainNames) == 0):
		return unreadable(field+".domainNames", ReasonInvalidPeer, "domain names where the API has none")
	case p.DomainNames != nil:
		return adminEnd{box: outsidePeers("domain names " + strings.Join(p.DomainNames, ", ")), field: field + ".domainNames"}
	}
	namespaces, pods := adminSubject{Namespaces: p.Namespaces, Pods: p.Pods}.selectors()
	c, text, ok, err := parsePods("", namespaces, pods)
	switch {
	case err != nil:
		return unreadable(field, ReasonInvalidSelector, text)
	case !ok:
		return adminEnd{}
	}
	return adminEnd{box: podPeers(c, text)}
}

// hasAddresses says whether the peer is one that is not made of pods.
func (p adminPeer) hasAddresses() bool {
	return p.Nodes != nil || p.Networks != nil || p.DomainNames != nil
}

func (p adminPeer) fields() int {
	n := 0
	for _, present := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, p.Networks != nil, p.DomainNames != nil} {
		if present {
			n++
		}
	}
	return n
}

// readNetworks reads CIDRs. They hold whoever has an address in them, pods of the cluster too where the implementation sees their addresses.
func readNetworks(list []string) (set addresses, text string, ok bool) {
	names := make([]string, 0, len(list))
	for _, s := range list {
		prefix, err := parseCIDR(s)
		if err != nil {
			return nil, fmt.Sprintf("CIDR %q", s), false
		}
		set = append(set, spanOf(prefix))
		names = append(names, prefix.String())
	}
	return union(set...), "CIDR " + strings.Join(names, ", "), len(list) > 0
}

// describeNodes says in words whom a selector of nodes selects; ok is false if that can be nobody.
func describeNodes(s *metav1.LabelSelector) (text string, ok bool, err error) {
	c, ok, err := parseSelector(ofPod, s)
	switch {
	case err != nil:
		return "nodes with an invalid selector", false, err
	case len(c) == 0:
		return "all nodes", ok, nil
	}
	return "nodes " + c.text(ofPod), ok, nil
}

// adminPorts are the ports of a rule.
type adminPorts struct {
	// sure are those that it certainly is about, most those that it may be about.
	sure, most ports
	// field is set if they differ; reason too if nobody can read them.
	field, reason string
}

// portsOf reads the ports of a rule; field is where the rule is.
func (r *adminReader) portsOf(d Direction, in adminRule, field string) adminPorts {
	field += "." + in.portsField
	byName := func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.Type == intstr.String }
	named := slices.ContainsFunc(in.ports, byName)
	// Only pods have named ports. The API refuses names together with other peers.
	most, reason := readPorts(d, in.ports)
	if !in.portsReadable || reason != "" || named && slices.ContainsFunc(in.to, adminPeer.hasAddresses) {
		return adminPorts{sure: allPorts(), most: allPorts(), field: field, reason: r.cannotRead(field, ReasonInvalidPort)}
	}
	if d == DirectionEgress || !named {
		return adminPorts{sure: most, most: most}
	}
	sure := ports{resolve: func(pod *corev1.Pod) (portSet, error) { return parsePorts(withSurePorts(pod), d, in.ports) }}
	return adminPorts{sure: sure, most: most, field: field}
}

// withSurePorts is the pod with those of its named ports that all implementations find: some do not look at init containers, and of two ports with the same name some see only one.
func withSurePorts(pod *corev1.Pod) *corev1.Pod {
	count := map[string]int{}
	for _, p := range declaredPorts(pod) {
		count[p.Name]++
	}
	var only corev1.Container
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if count[p.Name] == 1 {
				only.Ports = append(only.Ports, p)
			}
		}
	}
	return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{only}}}
}
