package isolation

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Random policies, and the comparison of what Evaluate says of them with what the oracle says.

// orderPassing is the order of a tier that passes on what it does not decide.
const orderPassing = 200

// situation is a random question.
type situation struct {
	pod             *corev1.Pod
	namespaceLabels labelSet
	policies        []*policy
	layers          []layer
	exceptions      []Exception
	// exact says that the answer has to be exactly right, and not merely not too small.
	exact bool
}

// situation makes one of four kinds: with NetworkPolicies only, with tiers, and each of them with what leaves doubts.
func (g generator) situation() situation {
	tiers, doubts := g.IntN(5) < 2, g.oneIn(4)
	g.plain = !doubts
	return g.situationOf(tiers, doubts)
}

func (g generator) situationOf(tiers, doubts bool) situation {
	s := situation{pod: g.subject(), namespaceLabels: g.labels(namespaceLabels()), exceptions: g.exceptions(), exact: g.plain && !doubts}
	s.namespaceLabels[corev1.LabelMetadataName] = namespace
	s.policies = g.policies(s.exceptions)
	if tiers {
		s.layers = g.layers(s.exceptions, doubts)
	}
	return s
}

func (s situation) set() *Set {
	set := NewSet()
	set.PutNamespace(namespace, s.namespaceLabels)
	for _, p := range s.policies {
		set.Put(ReadNetworkPolicy(p))
	}
	for _, l := range s.layers {
		set.Put(l.read())
		if !l.unknownOrder {
			set.PutTier(Tier{Name: fmt.Sprint(l.order), Order: float64(l.order), DefaultPass: l.order == orderPassing})
		}
	}
	return set
}

// mayDoubt says whether there can be flows of which nobody knows whether they are allowed.
func (s situation) mayDoubt() bool { return !s.exact || len(s.layers) > 0 }

func (s situation) oracle(blocksMatchPods bool) *oracle {
	return &oracle{
		pod: s.pod, namespaceLabels: s.namespaceLabels, blocksMatchPods: blocksMatchPods, policies: s.policies, layers: s.layers, exceptions: s.exceptions,
	}
}

// String writes the situation down for people.
func (s situation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %v in a namespace with %v\n", s.pod.Labels, s.namespaceLabels)
	for _, p := range s.policies {
		fmt.Fprintf(&b, "NetworkPolicy %s/%s: %s\n", p.Namespace, p.Name, p.Spec.String())
	}
	for _, l := range s.layers {
		fmt.Fprintf(&b, "%s %s at %d/%d (unknown %v, unreported %v, undecided %v, isolates %v) of namespaces %v pods %v\n",
			cmp.Or(l.kind, "layer"), l.name, l.order, l.priority, l.unknownOrder, l.unreported, l.undecided, l.isolates, l.namespaces.String(), l.pods.String())
		for _, d := range Directions() {
			for _, r := range l.rules[d] {
				fmt.Fprintf(&b, "  %s %v undecided %v peers %v ports %v\n", d, []string{"accept", "deny", "pass"}[r.action], r.undecided, r.peers, r.ports)
			}
		}
	}
	for _, e := range s.exceptions {
		fmt.Fprintf(&b, "exception %s %v %v\n", e.Direction, e.Peer.String(), e.Ports)
	}
	return b.String()
}

// read makes a policy of the layer, if it is of a kind by way of the object.
func (l layer) read() *Policy {
	if l.kind != "" {
		p, _ := Read(l.object())
		return p
	}
	p := &Policy{Ref: Ref{Group: "example.org", Kind: "Layer", Name: l.name, Generation: 1}, reported: !l.unreported}
	namespaces, some, _ := parseSelector(ofNamespace, &l.namespaces)
	pods, others, _ := parseSelector(ofPod, &l.pods)
	if both, ok := namespaces.and(pods...); ok && some && others {
		p.subject.parts = []constraint{both}
	}
	if l.undecided {
		p.subject.undecided = "spec.selector"
	}
	at := tier{order: float64(l.order), priority: float64(l.priority)}
	if known := []int{orderAdmin, orderDefault, orderBaseline}; l.unknownOrder || !slices.Contains(known, l.order) {
		at.name = fmt.Sprint(l.order)
	}
	if l.unknownOrder {
		at.name = "unknown"
	}
	for _, d := range Directions() {
		rules, concerned := l.rules[d]
		if !concerned {
			continue
		}
		section := &section{tier: at, isolates: l.isolates}
		for i, r := range rules {
			section.rules = append(section.rules, r.read(d, i))
		}
		p.addSection(d, section)
	}
	return p
}

func (r layerRule) read(d Direction, index int) rule {
	out := rule{index: index, action: r.action}
	for _, p := range parsePeers(namespace, r.peers) {
		out.peers = append(out.peers, p.box)
	}
	out.ports, out.reason = readPorts(d, r.ports)
	if r.undecided {
		out.undecided = "spec.rule"
	}
	return out
}

// The kinds of the Network Policy API.
const (
	kindCNP  = "ClusterNetworkPolicy"
	kindANP  = "AdminNetworkPolicy"
	kindBANP = "BaselineAdminNetworkPolicy"
)

// fit changes a rule into one that the kind can have.
func (r layerRule) fit(kind string, d Direction) layerRule {
	if kind == kindBANP && r.action == pass {
		r.action = deny
	}
	peers, ports := r.peers, r.ports
	r.peers, r.ports = nil, nil
	named := false
	for _, p := range ports {
		switch {
		case p.Port == nil:
			r.ports = append(r.ports, portRange(*p.Protocol, 1, 65535))
		case p.Port.Type == intstr.String:
			named = true // of whatever protocol
			r.ports = append(r.ports, portNamed(tcp, p.Port.StrVal), portNamed(udp, p.Port.StrVal), portNamed(sctp, p.Port.StrVal))
		default:
			r.ports = append(r.ports, p)
		}
	}
	for _, p := range peers {
		switch {
		case p.IPBlock != nil && (d == DirectionIngress || named):
			p = namespacesPeer(everything())
		case p.IPBlock != nil:
			p = blockPeer(p.IPBlock.CIDR)
		case p.NamespaceSelector == nil:
			p = bothPeer(labelled(corev1.LabelMetadataName, namespace), *p.PodSelector)
		}
		r.peers = append(r.peers, p)
	}
	if len(r.peers) == 0 {
		r.peers = []npPeer{namespacesPeer(everything())}
	}
	return r
}

// object writes the layer down as an object of its kind.
func (l layer) object() *unstructured.Unstructured {
	type object = map[string]any
	subject := object{"namespaces": l.namespaces}
	if len(l.pods.MatchLabels)+len(l.pods.MatchExpressions) > 0 {
		subject = object{"pods": object{"namespaceSelector": l.namespaces, "podSelector": l.pods}}
	}
	spec := object{"priority": l.priority, "subject": subject}
	version := "v1alpha1"
	switch l.kind {
	case kindBANP:
		delete(spec, "priority")
	case kindCNP:
		version, spec["tier"] = "v1alpha2", "Admin"
		if l.order == orderBaseline {
			spec["tier"] = "Baseline"
		}
	}
	for d, rules := range l.rules {
		var list []object
		for _, r := range rules {
			list = append(list, r.object(l.kind, d))
		}
		spec[strings.ToLower(string(d))] = list
	}
	var conditions []metav1.Condition
	if !l.unreported {
		conditions = append(conditions, metav1.Condition{Type: conditionReady, Status: metav1.ConditionTrue, ObservedGeneration: 1})
	}
	return asObject(object{
		"apiVersion": groupNetworkPolicyAPI + "/" + version, "kind": l.kind, "metadata": object{"name": l.name, "generation": 1},
		"spec": spec, "status": object{"conditions": conditions},
	})
}

// asObject takes the way over JSON, as objects from a cluster do.
func asObject(in any) *unstructured.Unstructured {
	raw, err := json.Marshal(in)
	if err != nil {
		panic(err)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(raw); err != nil {
		panic(err)
	}
	return out
}

func (r layerRule) object(kind string, d Direction) map[string]any {
	type object = map[string]any
	actions := map[action]string{accept: "Accept", deny: "Deny", pass: "Pass"}
	if kind != kindCNP {
		actions[accept] = "Allow"
	}
	var peers, ports []object
	for _, p := range r.peers {
		switch {
		case p.IPBlock != nil:
			peers = append(peers, object{"networks": []string{p.IPBlock.CIDR}})
		case p.PodSelector == nil:
			peers = append(peers, object{"namespaces": p.NamespaceSelector})
		default:
			peers = append(peers, object{"pods": object{"namespaceSelector": p.NamespaceSelector, "podSelector": p.PodSelector}})
		}
	}
	for _, p := range r.ports {
		ports = append(ports, portObject(kind, p))
	}
	out := object{"action": actions[r.action], "from": peers}
	if d == DirectionEgress {
		out = object{"action": actions[r.action], "to": peers}
	}
	switch {
	case len(ports) > 0 && kind == kindCNP:
		out["protocols"] = ports
	case len(ports) > 0:
		out["ports"] = ports
	}
	return out
}

func portObject(kind string, p npPort) map[string]any {
	type object = map[string]any
	switch {
	case p.Port.Type == intstr.String && kind == kindCNP:
		return object{"destinationNamedPort": p.Port.StrVal}
	case p.Port.Type == intstr.String:
		return object{"namedPort": p.Port.StrVal}
	case kind == kindCNP && p.EndPort == nil:
		return object{strings.ToLower(string(*p.Protocol)): object{"destinationPort": object{"number": p.Port.IntVal}}}
	case kind == kindCNP:
		return object{strings.ToLower(string(*p.Protocol)): object{"destinationPort": object{"range": object{"start": p.Port.IntVal, "end": *p.EndPort}}}}
	case p.EndPort == nil:
		return object{"portNumber": object{"protocol": *p.Protocol, "port": p.Port.IntVal}}
	}
	return object{"portRange": object{"protocol": *p.Protocol, "start": p.Port.IntVal, "end": *p.EndPort}}
}

// What a situation says about ports and addresses, so that probes can be taken near it.

func (s situation) allPeers() (peers []npPeer, ports []npPort) {
	for _, p := range s.policies {
		for _, r := range p.Spec.Ingress {
			peers, ports = append(peers, r.From...), append(ports, r.Ports...)
		}
		for _, r := range p.Spec.Egress {
			peers, ports = append(peers, r.To...), append(ports, r.Ports...)
		}
	}
	for _, l := range s.layers {
		for _, d := range Directions() {
			for _, r := range l.rules[d] {
				peers, ports = append(peers, r.peers...), append(ports, r.ports...)
			}
		}
	}
	for _, e := range s.exceptions {
		peers, ports = append(peers, e.Peer), append(ports, e.Ports...)
	}
	return peers, ports
}

// edges are the addresses and ports at the edges of everything that the situation names, on both sides.
func (s situation) edges() (addresses []netip.Addr, numbers []int32) {
	addresses, numbers = []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:1::")}, []int32{0, 80, 8080}
	peers, ports := s.allPeers()
	for _, p := range peers {
		if p.IPBlock == nil {
			continue
		}
		for _, cidr := range append([]string{p.IPBlock.CIDR}, p.IPBlock.Except...) {
			prefix := netip.MustParsePrefix(cidr).Masked()
			first, last := prefix.Addr(), lastAddr(prefix)
			for _, a := range []netip.Addr{first.Prev(), first, last, last.Next()} {
				if a.IsValid() {
					addresses = append(addresses, a)
				}
			}
		}
	}
	for _, p := range ports {
		if p.Port == nil || p.Port.Type == intstr.String {
			continue
		}
		low, high := p.Port.IntVal, p.Port.IntVal
		if p.EndPort != nil {
			high = *p.EndPort
		}
		for _, n := range []int32{low - 1, low, high, high + 1} {
			if n <= int32(maxPort) {
				numbers = append(numbers, n)
			}
		}
	}
	return addresses, numbers
}

func (g generator) probes(s situation, count int) []probe {
	addresses, numbers := s.edges()
	out := make([]probe, 0, count)
	for range count {
		f := probe{direction: g.direction(), protocol: pick(g, tcp, tcp, udp, sctp), port: pick(g, numbers...)}
		f.remote.ip = pick(g, addresses...).String()
		if g.oneIn(10) {
			f.remote.node = true
		} else if !g.oneIn(3) {
			f.remote = g.remotePod(s, f.remote.ip)
		}
		out = append(out, f)
	}
	return out
}

func (g generator) remotePod(s situation, ip string) remote {
	r := remote{ip: ip, namespace: pick(g, namespace, "other"), labels: g.labels(podLabels()), namespaceLabels: g.labels(namespaceLabels())}
	r.namespaceLabels[corev1.LabelMetadataName] = r.namespace
	if r.namespace == namespace {
		r.namespaceLabels = s.namespaceLabels
	}
	if number := pick[int32](g, 0, 80, 81); number != 0 {
		r.ports = []corev1.ContainerPort{{Name: "http", ContainerPort: number, Protocol: pick(g, tcp, tcp, udp)}}
	}
	return r
}

// holds says whether the flows hold a probe whose other end counts as one of the sorts.
func (f flows) holds(p probe, as sorts) bool {
	return slices.ContainsFunc(f, func(b box) bool { return b.holds(p, as) })
}

func (b box) holds(p probe, as sorts) bool {
	if b.sorts&as == 0 || !b.ports.holds(p) || slices.ContainsFunc(b.labels, func(r requirement) bool { return !r.holds(p.remote) }) {
		return false
	}
	ip := netip.MustParseAddr(p.remote.ip)
	return slices.ContainsFunc(b.addrs, func(s span[netip.Addr]) bool { return s.lo.Compare(ip) <= 0 && ip.Compare(s.hi) <= 0 })
}

func (r requirement) holds(remote remote) bool {
	labels := remote.labels
	if r.domain == ofNamespace {
		labels = remote.namespaceLabels
	}
	value, found := labels[r.key]
	switch {
	case !found:
		return r.values.absent
	case r.values.negated:
		return !slices.Contains(r.values.list, value)
	}
	return slices.Contains(r.values.list, value)
}

// holds resolves ports that are known by name only on the other end.
func (s portSet) holds(p probe) bool {
	number := portNumber(p.port)
	if slices.ContainsFunc(s.numbers[p.protocol], func(r span[portNumber]) bool { return r.lo <= number && number <= r.hi }) {
		return true
	}
	return slices.ContainsFunc(p.remote.ports, func(c corev1.ContainerPort) bool {
		return c.Protocol == p.protocol && c.ContainerPort == p.port && s.named[namedPort{p.protocol, c.Name}]
	})
}

// Comparison.

// tally counts what was compared.
type tally struct {
	situations, leaking, clean int
	allowed, denied, undefined int
	// wide counts the directions of situations with doubts in which more counts as allowed than can be; vague those in which less counts as certain than is.
	doubtful, wide, vague int
}

func (t *tally) add(o tally) {
	t.situations, t.leaking, t.clean = t.situations+o.situations, t.leaking+o.leaking, t.clean+o.clean
	t.allowed, t.denied, t.undefined = t.allowed+o.allowed, t.denied+o.denied, t.undefined+o.undefined
	t.doubtful, t.wide, t.vague = t.doubtful+o.doubtful, t.wide+o.wide, t.vague+o.vague
}

// inSet is what the package says of one direction of a situation.
type inSet struct {
	reach, certain flows
	leaks          []open
}

// compare asks Evaluate and the oracle the same question.
func compare(t testing.TB, name string, s situation, probes []probe) tally {
	t.Helper()
	set := s.set()
	all := evaluateAll(s.pod, set, s.exceptions)
	sum := tally{situations: 1}
	results := map[Direction]inSet{}
	strange := map[Direction]*tally{}
	for _, d := range Directions() {
		results[d] = inSet{
			reach: Reachable(s.pod, set, d).flows,
			leaks: slices.DeleteFunc(slices.Clone(all), func(o open) bool { return o.leak.Direction != d }),
		}
		if s.mayDoubt() {
			r := results[d]
			r.certain = certainly(s.pod, set, d).flows
			results[d] = r
		}
		strange[d] = &tally{}
		if len(results[d].leaks) > 0 {
			sum.leaking++
			probes = append(probes, witnesses(d, results[d].leaks)...)
		} else {
			sum.clean++
		}
	}
	for _, blocksMatchPods := range []bool{false, true} {
		o := s.oracle(blocksMatchPods)
		for _, f := range probes {
			if blocksMatchPods && !f.remote.isPod() {
				continue // looked at already
			}
			if wrong := results[f.direction].check(o, f, s.exact, strange[f.direction]); wrong != "" {
				t.Fatalf("%s: %s: %s %v %s/%d (blocks match pods: %v)\n%s", name, wrong, f.direction, f.remote, f.protocol, f.port, blocksMatchPods, s)
			}
		}
	}
	for _, d := range Directions() {
		one := *strange[d]
		one.wide, one.vague = min(one.wide, 1), min(one.vague, 1)
		if !s.exact {
			one.doubtful = 1
		}
		sum.add(one)
	}
	return sum
}

// check compares one point, and says what is wrong.
func (r inSet) check(o *oracle, f probe, exact bool, sum *tally) string {
	as := f.sort(o.blocksMatchPods)
	a := o.ask(f)
	sum.note(a)
	in, certain := r.reach.holds(f, as), r.certain.holds(f, as)
	if !exact {
		sum.wide += count(in && !a.allowed)
		sum.vague += count(!certain && !a.denied)
	}
	switch {
	case a.allowed && !in:
		return "allowed, and not in the result"
	case in && !a.allowed && exact:
		return "in the result, and not allowed"
	// Ports that are known by name only stand for whatever they are on a peer.
	case certain && a.denied && len(f.remote.ports) == 0:
		return "certain, and yet it may be denied"
	}
	return r.checkLeak(o, f, as, a.allowed, exact)
}

// sort says which of the evaluator's sorts the other end counts as.
func (p probe) sort(blocksMatchPods bool) sorts {
	switch {
	case p.remote.node:
		return nodes
	case !p.remote.isPod():
		return outside
	case blocksMatchPods:
		return podsByAddress
	}
	return podsByLabel
}

func (t *tally) note(a answer) {
	switch {
	case a.allowed && a.denied:
		t.undefined++
	case a.allowed:
		t.allowed++
	default:
		t.denied++
	}
}

// checkLeak compares what is left after the exceptions. What blocks of addresses would let through as well is left out of leaks that name pods by their labels, so that either counts.
func (r inSet) checkLeak(o *oracle, f probe, as sorts, allowed, exact bool) string {
	either := as
	if as == podsByAddress {
		either = anyPod
	}
	var leaking, precise bool
	for _, l := range r.leaks {
		leaking = leaking || l.box.holds(f, either)
		precise = precise || l.box.holds(f, as) && !strings.HasPrefix(l.leak.Peer, "a part of: ")
	}
	// Exceptions that name pods by their labels do not excuse what blocks of addresses let through.
	excused := o.excused(f) && (as != podsByAddress || o.excusedByAddress(f))
	switch {
	case allowed && !o.excused(f) && !leaking && len(r.leaks) < maxLeaksPerRule:
		return "allowed and not excused, and not in a leak"
	case exact && precise && !allowed:
		return "in a leak, and not allowed"
	case exact && precise && excused:
		return "in a leak, and excused"
	}
	return ""
}

// witnesses are probes of which every leak has at least one, if it is not empty.
func witnesses(d Direction, leaks []open) []probe {
	var out []probe
	for _, l := range leaks {
		f := probe{direction: d, remote: remote{ip: l.box.addrs[0].lo.String(), node: l.box.sorts&noPods == nodes}}
		for _, protocol := range protocols() {
			if numbers := l.box.ports.numbers[protocol]; len(numbers) > 0 {
				f.protocol, f.port = protocol, int32(numbers[0].lo)
			}
		}
		for _, named := range slices.SortedFunc(maps.Keys(l.box.ports.named), func(a, b namedPort) int { return cmp.Compare(a.name, b.name) }) {
			if f.protocol == "" {
				f.protocol, f.port = named.protocol, 8080
				f.remote.ports = []corev1.ContainerPort{{Name: named.name, Protocol: named.protocol, ContainerPort: 8080}}
			}
		}
		if l.box.sorts&noPods == 0 {
			f.remote.labels, f.remote.namespaceLabels = l.box.labels.example(ofPod), l.box.labels.example(ofNamespace)
			if f.remote.namespaceLabels[corev1.LabelMetadataName] == "" {
				f.remote.namespaceLabels[corev1.LabelMetadataName] = "fresh"
			}
			f.remote.namespace = f.remote.namespaceLabels[corev1.LabelMetadataName]
		}
		out = append(out, f)
	}
	return out
}

// example returns labels that meet the constraint.
func (c constraint) example(d domain) labelSet {
	out := labelSet{}
	for _, r := range c {
		switch {
		case r.domain != d || r.values.absent:
		case r.values.negated:
			out[r.key] = "fresh"
		default:
			out[r.key] = r.values.list[0]
		}
	}
	return out
}

// randomSets is how many random sets are compared in every run of the tests, in shares that run side by side.
const (
	randomSets   = 100_000
	randomShares = 8
	probesPerSet = 24
)

func TestRandomSetsAgreeWithTheOracle(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // the sets are small and many
	shares := make([]tally, randomShares)
	var failed atomic.Bool
	t.Run("shares", func(t *testing.T) {
		for i := range shares {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				defer func() { failed.Store(failed.Load() || t.Failed()) }()
				for seed := uint64(i); seed < randomSets && !failed.Load(); seed += randomShares {
					g := newGenerator(seed, false)
					s := g.situation()
					shares[i].add(compare(t, fmt.Sprint("seed ", seed), s, g.probes(s, probesPerSet)))
				}
			})
		}
	})
	var sum tally
	for _, one := range shares {
		sum.add(one)
	}
	if failed.Load() {
		return
	}
	t.Logf("%+v", sum)
	directions := 2 * sum.situations
	if sum.situations < randomSets || min(sum.leaking, sum.clean) < directions/4 || min(sum.allowed, sum.denied) < 10*randomSets/4 || sum.undefined < randomSets/4 {
		t.Errorf("the generator is lopsided: %+v", sum)
	}
	if sum.wide > sum.doubtful/50 || sum.vague > sum.doubtful/20 {
		t.Errorf("of %d directions with doubts, in %d more counts as allowed than can be, and in %d less as certain than is", sum.doubtful, sum.wide, sum.vague)
	}
}

// chosen is a source of random numbers that takes bytes for as long as it has any, so that a fuzzer can steer every choice.
type chosen struct {
	bytes []byte
	then  rand.Source
}

// Uint64 implements rand.Source. The highest bits decide what IntN returns for small numbers.
func (c *chosen) Uint64() uint64 {
	if len(c.bytes) == 0 {
		return c.then.Uint64()
	}
	b := c.bytes[0]
	c.bytes = c.bytes[1:]
	return uint64(b)<<56 | 1<<55
}

func FuzzEvaluate(f *testing.F) {
	f.Add(uint64(1), []byte{})
	f.Add(uint64(2), []byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint64(3), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	for seed := range uint64(20) {
		f.Add(seed, binary.LittleEndian.AppendUint64(nil, seed*0x9e3779b97f4a7c15))
	}
	f.Fuzz(func(t *testing.T, seed uint64, choices []byte) {
		g := generator{Rand: rand.New(&chosen{bytes: choices, then: rand.NewPCG(seed, 0)})}
		s := g.situation()
		compare(t, "fuzz", s, g.probes(s, probesPerSet))
	})
}
