package isolation

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// generator makes random policies and exceptions from a small vocabulary, so that they often have to do with one another.
type generator struct {
	*rand.Rand
	// plain leaves out what the package cannot answer exactly, such as named ports of peers, which no set of numbers can stand for.
	plain bool
}

func newGenerator(seed uint64, plain bool) generator {
	return generator{Rand: rand.New(rand.NewPCG(seed, 0)), plain: plain}
}

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// oneIn is true once in n times.
func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

// labels of a pod or a namespace.
func (g generator) labels(keys map[string][]string) labelSet {
	out := labelSet{}
	for _, key := range sortedKeys(keys) {
		if value := pick(g, append([]string{""}, keys[key]...)...); value != "" {
			out[key] = value
		}
	}
	return out
}

func podLabels() map[string][]string {
	return map[string][]string{"app": {"a", "b", "web"}, "tier": {"x", "y"}}
}

func namespaceLabels() map[string][]string {
	return map[string][]string{"team": {"x", "y"}}
}

func sortedKeys(m map[string][]string) []string {
	var out []string
	for key := range m {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// selectorOf asks for some of the keys, possibly for something that contradicts itself.
func (g generator) selectorOf(keys map[string][]string) metav1.LabelSelector {
	var out metav1.LabelSelector
	for _, key := range sortedKeys(keys) {
		for range g.IntN(5) / 2 {
			values := keys[key]
			switch g.IntN(5) {
			case 0:
				out.MatchLabels = labelSet{key: pick(g, values...)}
			case 1:
				out.MatchExpressions = append(out.MatchExpressions, requires(key, metav1.LabelSelectorOpExists))
			case 2:
				out.MatchExpressions = append(out.MatchExpressions, requires(key, metav1.LabelSelectorOpDoesNotExist))
			case 3:
				out.MatchExpressions = append(out.MatchExpressions, requires(key, metav1.LabelSelectorOpIn, pick(g, values...), pick(g, values...)))
			default:
				out.MatchExpressions = append(out.MatchExpressions, requires(key, metav1.LabelSelectorOpNotIn, pick(g, values...), "other"))
			}
		}
	}
	return out
}

func requires(key string, op metav1.LabelSelectorOperator, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: values}
}

func (g generator) selector() metav1.LabelSelector { return g.selectorOf(podLabels()) }

func (g generator) namespaceSelector() metav1.LabelSelector {
	if g.oneIn(6) {
		return labelled(corev1.LabelMetadataName, pick(g, namespace, "other"))
	}
	return g.selectorOf(namespaceLabels())
}

func (g generator) cidr() string {
	base := pick(g, "10.0.0.0", "10.0.0.0", "10.0.0.0", "255.255.255.248", "2001:db8::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8")
	addr := netip.MustParseAddr(base)
	for range g.IntN(8) {
		addr = addr.Next()
	}
	bits := addr.BitLen() - g.IntN(4)
	if g.oneIn(8) {
		bits = pick(g, 0, 1, 8)
	}
	return netip.PrefixFrom(addr, bits).String()
}

func (g generator) block() npPeer {
	out := blockPeer(g.cidr())
	for range g.IntN(5) / 2 {
		out.IPBlock.Except = append(out.IPBlock.Except, g.cidr())
	}
	return out
}

func (g generator) peer() npPeer {
	switch g.IntN(5) {
	case 0:
		return podsPeer(g.selector())
	case 1:
		return namespacesPeer(g.namespaceSelector())
	case 2:
		return bothPeer(g.namespaceSelector(), g.selector())
	}
	return g.block()
}

func (g generator) number() int32 { return pick[int32](g, 1, 2, 79, 80, 81, 443, 65534, 65535) }

func (g generator) ports(d Direction) []npPort {
	var out []npPort
	for range g.IntN(3) {
		protocol := pick(g, tcp, tcp, udp, sctp)
		low, high := g.number(), g.number()
		choices := []npPort{
			port(protocol, low), port(protocol, high), portRange(protocol, min(low, high), max(low, high)), portRange(protocol, 1, 65535), wholeProtocol(protocol),
		}
		if d == DirectionIngress || !g.plain {
			choices = append(choices, portNamed(protocol, "http"), portNamed(protocol, "unknown"))
		}
		out = append(out, pick(g, choices...))
	}
	return out
}

func (g generator) direction() Direction { return pick(g, DirectionIngress, DirectionEgress) }

func (g generator) exceptions() []Exception {
	var out []Exception
	for i := range g.IntN(4) {
		d := g.direction()
		out = append(out, Exception{Name: fmt.Sprint(i), Direction: d, Peer: g.peer(), Ports: g.ports(d)})
	}
	return out
}

// peersNear returns a rule's peers: none, random ones, or those of an exception.
func (g generator) peersNear(exceptions []Exception) []npPeer {
	var out []npPeer
	for range 1 + g.IntN(12)%3 {
		if len(exceptions) > 0 && g.oneIn(2) {
			out = append(out, pick(g, exceptions...).Peer)
			continue
		}
		out = append(out, g.peer())
	}
	if g.oneIn(10) {
		return nil
	}
	return out
}

func (g generator) portsNear(d Direction, exceptions []Exception) []npPort {
	if len(exceptions) > 0 && g.oneIn(2) {
		if e := pick(g, exceptions...); e.Direction == d {
			return e.Ports
		}
	}
	return g.ports(d)
}

// policies returns a few NetworkPolicies whose rules are often close to the exceptions.
func (g generator) policies(exceptions []Exception) []*policy {
	var out []*policy
	if !g.oneIn(4) {
		out = append(out, newPolicy("deny", DenySpec(everything(), exceptions)))
	}
	for i := range g.IntN(3) {
		s := spec{PodSelector: pick(g, everything(), everything(), labelled("app", "web"), g.selector())}
		for range g.IntN(3) {
			s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{
				From: g.peersNear(exceptions), Ports: g.portsNear(DirectionIngress, exceptions),
			})
		}
		for range g.IntN(3) {
			s.Egress = append(s.Egress, networkingv1.NetworkPolicyEgressRule{
				To: g.peersNear(exceptions), Ports: g.portsNear(DirectionEgress, exceptions),
			})
		}
		s.PolicyTypes = pick(g, nil, nil, []networkingv1.PolicyType{typeIngress}, []networkingv1.PolicyType{typeEgress},
			[]networkingv1.PolicyType{typeIngress, typeEgress})
		p := newPolicy(fmt.Sprint("p", i), s)
		p.Namespace = pick(g, namespace, namespace, namespace, "other")
		out = append(out, p)
	}
	return out
}

// layers returns a few policies of kinds that have tiers. They are of one API, or of none in particular.
func (g generator) layers(exceptions []Exception, doubtful bool) []layer {
	kinds := pick(g, []string{""}, []string{""}, []string{kindCNP}, []string{kindANP, kindANP, kindBANP}, []string{kindCNP, kindANP})
	var out []layer
	for i := range 1 + g.IntN(4) {
		l := layer{
			kind: pick(g, kinds...), name: fmt.Sprint("l", i), order: pick(g, orderAdmin, orderAdmin, orderBaseline), priority: 1 + g.IntN(3),
			pods: pick(g, everything(), everything(), labelled("app", "web"), g.selector()), rules: map[Direction][]layerRule{}, unreported: doubtful && g.oneIn(3),
		}
		if g.oneIn(4) {
			l.namespaces = g.namespaceSelector()
		}
		switch l.kind {
		case kindANP:
			l.order = orderAdmin
		case kindBANP:
			l.order, l.priority = orderBaseline, maxAdminPriority
		case "":
			g.freely(&l, doubtful)
		}
		for _, d := range Directions() {
			for range g.IntN(4) {
				l.rules[d] = append(l.rules[d], g.layerRule(l, d, exceptions, doubtful))
			}
		}
		out = append(out, l)
	}
	return out
}

// freely makes of a layer what some kind could be, such as those of Calico.
func (g generator) freely(l *layer, doubtful bool) {
	if g.oneIn(2) {
		l.order, l.priority = pick(g, 100, orderPassing, orderDefault, 2*orderDefault), pick(g, 500, priorityNetworkPolicy, 2000)
		l.isolates = g.oneIn(2)
	}
	if doubtful {
		l.undecided, l.unknownOrder = g.oneIn(10), g.oneIn(10)
	}
}

func (g generator) layerRule(l layer, d Direction, exceptions []Exception, doubtful bool) layerRule {
	r := layerRule{action: pick(g, accept, deny, deny, pass), peers: g.peersNear(exceptions)}
	if g.oneIn(2) {
		r.ports = g.portsNear(d, exceptions)
	}
	if l.kind == "" {
		r.undecided = doubtful && g.oneIn(8)
		return r
	}
	return r.fit(l.kind, d)
}

// subject is the pod of the random tests.
func (g generator) subject() *corev1.Pod {
	pod := relabelled(pick(g, labelSet{"app": "web"}, labelSet{"app": "db"}, labelSet{quarantineKey: ""}, g.labels(podLabels())))
	http := corev1.Container{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: tcp}}}
	if g.plain {
		pod.Spec.Containers = append(pod.Spec.Containers, http)
	} else {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, http)
	}
	return pod
}

func leaksIn(leaks []Leak, d Direction) []Leak {
	return slices.DeleteFunc(slices.Clone(leaks), func(l Leak) bool { return l.Direction != d })
}

// shuffledSet holds the same as set, put in another order and among other things that are taken out again.
func (s situation) shuffledSet(g generator) *Set {
	set, other := NewSet(), g.situation()
	for p := range other.set().Policies() {
		set.Put(p)
	}
	for _, i := range g.Perm(len(s.policies)) {
		set.Put(ReadNetworkPolicy(s.policies[i]))
	}
	for _, i := range g.Perm(len(s.layers)) {
		set.Put(s.layers[i].read())
	}
	kept := s.set()
	for p := range other.set().Policies() {
		if kept.policies[p.Ref.key()] == nil {
			set.Remove(p.Ref)
		}
	}
	set.namespaces, set.tiers = kept.namespaces, kept.tiers
	return set
}

func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		s := g.situation()
		want := Evaluate(s.pod, s.set(), s.exceptions, nil)
		shuffled := slices.Clone(s.exceptions)
		g.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(want, Evaluate(s.pod, s.shuffledSet(g), shuffled, nil)); diff != "" {
			t.Fatalf("seed %d: (-before +after shuffling):\n%s\n%s", seed, diff, s)
		}
	}
}

// with returns the situation with one layer more.
func (s situation) with(l layer) situation {
	s.layers = append(slices.Clone(s.layers), l)
	return s
}

// allowances are what is allowed in both directions.
type allowances map[Direction]Reach

func (s situation) reach() allowances {
	set, out := s.set(), allowances{}
	for _, d := range Directions() {
		out[d] = Reachable(s.pod, set, d)
	}
	return out
}

// exceeds says in which directions more is allowed than in another situation.
func (a allowances) exceeds(other allowances) []Direction {
	return slices.DeleteFunc(Directions(), func(d Direction) bool { return !a[d].Exceeds(other[d]) })
}

// One more rule that accepts never takes anything away, wherever it stands, and one more rule that denies never adds anything; if it is not reported to be in effect, it changes nothing.
func TestMonotony(t *testing.T) {
	grows, shrinks := 0, 0
	for seed := range uint64(1200) {
		g := newGenerator(seed, true)
		s := g.situationOf(true, g.oneIn(2))
		more := layer{name: "more", order: pick(g, 100, orderAdmin, orderDefault, orderBaseline), priority: pick(g, 1, 2, 3, priorityNetworkPolicy)}
		r := layerRule{action: accept, peers: g.peersNear(s.exceptions), ports: g.ports(DirectionEgress)}
		more.rules = map[Direction][]layerRule{DirectionIngress: {r}, DirectionEgress: {r}}
		before, after := s.reach(), s.with(more).reach()
		if wrong := before.exceeds(after); len(wrong) > 0 {
			t.Fatalf("seed %d: one rule more accepts, and less is allowed %v\n%s", seed, wrong, s.with(more))
		}
		grows += len(after.exceeds(before))

		r.action = deny
		more.rules = map[Direction][]layerRule{DirectionIngress: {r}, DirectionEgress: {r}}
		after = s.with(more).reach()
		if wrong := after.exceeds(before); len(wrong) > 0 {
			t.Fatalf("seed %d: one rule more denies, and more is allowed %v\n%s", seed, wrong, s.with(more))
		}
		shrinks += len(before.exceeds(after))

		more.unreported = true
		after = s.with(more).reach()
		if wrong := append(after.exceeds(before), before.exceeds(after)...); len(wrong) > 0 {
			t.Fatalf("seed %d: a rule more that may not be in effect denies, and that changes what may be allowed %v\n%s", seed, wrong, s.with(more))
		}
	}
	if min(grows, shrinks) < 200 {
		t.Errorf("the rules are of no consequence: %d times something was added, %d times taken away", grows, shrinks)
	}
}

// That a policy is reported to be in effect, or that it is gone, adds nothing to what could be before.
func TestReportsSettleDoubts(t *testing.T) {
	settled := 0
	for seed := range uint64(3000) {
		g := newGenerator(seed, true)
		s := g.situationOf(true, true)
		i := slices.IndexFunc(s.layers, func(l layer) bool { return l.unreported })
		if i < 0 {
			continue
		}
		reported, gone := s, s
		reported.layers, gone.layers = slices.Clone(s.layers), slices.Delete(slices.Clone(s.layers), i, i+1)
		reported.layers[i].unreported = false
		before := s.reach()
		for name, after := range map[string]allowances{"reported": reported.reach(), "gone": gone.reach()} {
			if wrong := after.exceeds(before); len(wrong) > 0 {
				t.Fatalf("seed %d: layer %s is %s, and more is allowed than it could be %v\n%s", seed, s.layers[i].name, name, wrong, s)
			}
			settled += len(before.exceeds(after))
		}
	}
	if settled < 200 {
		t.Errorf("the reports are of no consequence: %d times less is allowed", settled)
	}
}

// Where a direction is restricted already, one more NetworkPolicy takes no leak away. One more exception adds none.
func TestMonotonyOfLeaks(t *testing.T) {
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		policies, pod := g.policies(exceptions), g.subject()
		before := evaluate(pod, policies, exceptions)

		more := newPolicy("more", ingress(everything(), g.peersNear(exceptions), g.ports(DirectionIngress)...))
		after := evaluate(pod, append(slices.Clone(policies), more), exceptions)
		for _, l := range before {
			if l.Reason != ReasonNotSelected && !slices.Contains(after, l) {
				t.Fatalf("seed %d: one policy more, and %v is gone", seed, l)
			}
		}

		s := g.situation()
		isolated := Evaluate(s.pod, s.set(), s.exceptions, nil)
		for _, d := range Directions() {
			one := Exception{Direction: d, Peer: g.peer(), Ports: g.ports(d)}
			now := Evaluate(s.pod, s.set(), append(slices.Clone(s.exceptions), one), nil)
			if len(leaksIn(isolated, d)) == 0 && len(leaksIn(now, d)) > 0 {
				t.Fatalf("seed %d: one exception more, and there are leaks\n%s", seed, s)
			}
		}
	}
}

// Quarantine.

// quarantined is the situation after the operator has done its work. With detached the pod has lost its own labels.
func (s situation) quarantined(detached bool) situation {
	deny := newPolicy("quarantine", DenySpec(exists(quarantineKey), Permitted(s.pod, s.set(), s.exceptions)))
	s.policies = append(slices.Clone(s.policies), deny)
	s.pod = s.pod.DeepCopy()
	if detached {
		s.pod.Labels = labelSet{}
	}
	s.pod.Labels[quarantineKey] = ""
	return s
}

// comparable says whether detaching changes nothing but that NetworkPolicies cease to select the pod. The operator looks at what would be allowed before it detaches a pod, because in all
// other cases more may be: a NetworkPolicy that selects pods without a label may begin to select it, and a policy of a tier that denied something may cease to.
func (s situation) comparable(after situation) bool {
	for _, p := range s.policies {
		if !matches(&p.Spec.PodSelector, s.pod.Labels) && matches(&p.Spec.PodSelector, after.pod.Labels) {
			return false
		}
	}
	return !slices.ContainsFunc(s.layers, func(l layer) bool { return matches(&l.pods, s.pod.Labels) != matches(&l.pods, after.pod.Labels) })
}

// in is what a policy has to say in one of the worlds, if it is in effect there.
func (op opinion) in(world uint64) (opinion, bool) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(op.name)) // never fails
	r := rand.New(rand.NewPCG(world, h.Sum64()))
	if op.optional && r.IntN(2) == 0 {
		return opinion{}, false
	}
	op = op.places()[r.IntN(len(op.places()))]
	op.priority = op.priority<<20 + r.IntN(1<<20) // no two are equal
	for op.fate&(op.fate-1) != 0 {
		op.fate &^= 1 << r.IntN(4)
	}
	return op, true
}

// askIn says how the probe ends in one world, in which everything has been decided.
func (o *oracle) askIn(world uint64, f probe) answer {
	var decided []opinion
	for _, op := range o.opinions(f) {
		if one, exists := op.in(world); exists {
			decided = append(decided, one)
		}
	}
	return settle(decided)
}

// Whatever a cluster does with what the API leaves open: a pod in quarantine can reach, and be reached by, nobody that it could not be before.
func TestQuarantineNeverWidens(t *testing.T) {
	compared := map[bool]int{}
	for seed := range uint64(4000) {
		g := newGenerator(seed, false)
		before := g.situation()
		delete(before.pod.Labels, quarantineKey)
		probes := g.probes(before, 20)
		for _, detached := range []bool{false, true} {
			after := before.quarantined(detached)
			if detached && !before.comparable(after) {
				continue
			}
			compared[detached]++
			if wrong := after.reach().exceeds(before.reach()); len(wrong) > 0 {
				t.Fatalf("seed %d: detached %v: more is allowed %v\n%s", seed, detached, wrong, after)
			}
			for world := range uint64(4) {
				then, now := before.oracle(world%2 == 0), after.oracle(world%2 == 0)
				for _, f := range probes {
					if now.askIn(world, f).allowed && !then.askIn(world, f).allowed {
						t.Fatalf("seed %d: detached %v, world %d: %s %v %s/%d is allowed, and was not\n%s", seed, detached, world, f.direction, f.remote, f.protocol, f.port, after)
					}
				}
			}
		}
	}
	if compared[true] < 1000 {
		t.Errorf("only %d times detaching could be compared", compared[true])
	}
}

// The operator's own policy is clean because of what it contains, and neither of its directions is left open.
func TestDenySpecDoesNotLeak(t *testing.T) {
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		s := situation{pod: g.subject(), policies: []*policy{newPolicy("deny", DenySpec(everything(), exceptions))}, exceptions: exceptions}
		if leaks := evaluate(s.pod, s.policies, exceptions); len(leaks) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, leaks, s)
		}
	}
}

// Evaluate does not change what it is given.
func TestInputsAreNotChanged(t *testing.T) {
	for seed := range uint64(1000) {
		s := newGenerator(seed, false).situation()
		set := s.set()
		before := s.String() + s.pod.String()
		want := Evaluate(s.pod, set, s.exceptions, nil)
		if diff := cmp.Diff(before, s.String()+s.pod.String()); diff != "" {
			t.Fatalf("seed %d: (-before +after):\n%s", seed, diff)
		}
		if diff := cmp.Diff(want, Evaluate(s.pod, set, s.exceptions, nil)); diff != "" {
			t.Fatalf("seed %d: asking twice makes a difference (-first +second):\n%s", seed, diff)
		}
	}
}

// The laws of sets, point by point.

func (g generator) values() values {
	v := values{absent: g.oneIn(2), negated: g.oneIn(2)}
	for _, s := range []string{"a", "b", "c"} {
		if g.oneIn(3) {
			v.list = append(v.list, s)
		}
	}
	return v
}

func TestSetsOfValuesAgreeWithPoints(t *testing.T) {
	points := []labelSet{{}, {"k": ""}, {"k": "a"}, {"k": "b"}, {"k": "c"}, {"k": "d"}}
	g := newGenerator(1, false)
	for range 5_000 {
		v, w := g.values(), g.values()
		empty, whole, same := true, true, true
		for _, p := range points {
			inV, inW := requirement{values: v, key: "k", domain: ofPod}.holds(remote{labels: p}), requirement{values: w, key: "k", domain: ofPod}.holds(remote{labels: p})
			empty, whole, same = empty && !inV, whole && inV, same && inV == inW
			if v.has(p, "k") != inV || v.complement().has(p, "k") == inV || v.intersect(w).has(p, "k") != (inV && inW) {
				t.Fatalf("%+v and %+v are wrong about %v", v, w, p)
			}
		}
		if v.empty() != empty || v.whole() != whole || v.equal(w) != same || !v.complement().complement().equal(v) {
			t.Fatalf("%+v: empty %v, whole %v, equal to %+v %v", v, v.empty(), v.whole(), w, v.equal(w))
		}
	}
}

// constraint returns one that is not empty.
func (g generator) constraint() constraint {
	var c constraint
	for range g.IntN(4) {
		r := requirement{domain: pick(g, ofPod, ofPod, ofNamespace), key: pick(g, "app", "tier", "team"), values: g.values()}
		if more, ok := c.and(r); ok && !r.values.empty() {
			c = more
		}
	}
	return c
}

func (g generator) portSet() portSet {
	s := newPortSet()
	for range g.IntN(4) {
		lo, hi := portNumber(g.number()), portNumber(g.number())
		s.add(pick(g, tcp, udp, sctp), min(lo, hi), max(lo, hi))
	}
	if g.oneIn(8) {
		s = everyPort()
	}
	if !g.plain && g.oneIn(3) {
		s.named[namedPort{pick(g, tcp, udp), pick(g, "http", "dns")}] = true
	}
	s.normalise()
	return s
}

// box returns one that may be empty.
func (g generator) box() box {
	block, _, _ := parseBlock(*g.block().IPBlock) // the generator makes none that cannot be read
	b := box{sorts: sorts(g.IntN(int(anySort) + 1)), addrs: pick(g, everyAddress, block), ports: g.portSet()}
	if g.oneIn(2) {
		b.sorts &= anyPod
		b.labels = g.constraint()
	}
	return b
}

func (g generator) flows() flows {
	var out flows
	for range g.IntN(4) {
		if b := g.box(); !b.empty() {
			out = append(out, b)
		}
	}
	return out
}

// flowProbe is any probe that has something to do with the generator's boxes, and the sort that it counts as.
func (g generator) flowProbe() (probe, sorts) {
	base := pick(g, "10.0.0.0", "255.255.255.250", "2001:db8::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffa")
	f := probe{protocol: pick(g, tcp, udp, sctp), port: g.number() + int32(g.IntN(2)) - 1}
	f.remote = g.remotePod(situation{namespaceLabels: labelSet{}}, base)
	f.remote.labels = g.labels(map[string][]string{"app": {"a", "b", "d"}, "tier": {"a", "c"}, "team": {"b"}})
	f.remote.namespaceLabels = g.labels(map[string][]string{"app": {"a"}, "team": {"a", "b"}})
	for range g.IntN(6) {
		f.remote.ip = netip.MustParseAddr(f.remote.ip).Next().String()
	}
	as := pick(g, podsByLabel, podsByAddress, outside, nodes)
	if as&anyPod == 0 {
		f.remote.labels, f.remote.namespaceLabels = nil, nil
	}
	return f, as
}

func TestConstraintsAgreeWithPoints(t *testing.T) {
	g := newGenerator(2, false)
	holds := func(c constraint, r remote) bool {
		return !slices.ContainsFunc(c, func(one requirement) bool { return !one.holds(r) })
	}
	for range 20_000 {
		a, b := g.constraint(), g.constraint()
		both, overlap := a.and(b...)
		rest := a.minus(b)
		for range 10 {
			f, _ := g.flowProbe()
			inA, inB := holds(a, f.remote), holds(b, f.remote)
			if a.matches(f.remote.namespaceLabels, f.remote.labels, "") != inA || (overlap && holds(both, f.remote)) != (inA && inB) {
				t.Fatalf("%v and %v are wrong about %v", a, b, f.remote)
			}
			times := 0
			for _, part := range rest {
				if holds(part, f.remote) {
					times++
				}
			}
			if want := inA && !inB; times > 1 || (times == 1) != want {
				t.Fatalf("%v without %v holds %v %d times", a, b, f.remote, times)
			}
		}
	}
}

// Where ports are known by name only, what is left may be too large, and never too small.
func TestSetsOfPortsAgreeWithPoints(t *testing.T) {
	for _, exact := range []bool{true, false} {
		g := newGenerator(3, exact)
		for range 8_000 {
			a, b := g.portSet(), g.portSet()
			both, rest, all := a.intersect(b), a.minus(b), a.union(b)
			for range 10 {
				f, _ := g.flowProbe()
				inA, inB := a.holds(f), b.holds(f)
				if all.holds(f) != (inA || inB) {
					t.Fatalf("the union of %v and %v is wrong about %v", a, b, f)
				}
				if wrong(both.holds(f), inA && inB, exact) || wrong(rest.holds(f), inA && !inB, exact) {
					t.Fatalf("%v and %v are wrong about %v", a, b, f)
				}
			}
			if a.equal(b) != b.equal(a) || !a.union(a).equal(a) || !a.intersect(a).equal(a) || !a.minus(a).empty() || !a.union(b).equal(b.union(a)) {
				t.Fatalf("%v and %v break the laws of sets", a, b)
			}
		}
	}
}

// wrong says whether a set is too small or, if it has to be exact, too large.
func wrong(got, want, exact bool) bool { return want && !got || exact && got && !want }

func TestSetsOfFlowsAgreeWithPoints(t *testing.T) {
	for _, exact := range []bool{true, false} {
		g := newGenerator(4, exact)
		hit, missed := 0, 0
		for range 10_000 {
			a, b := g.flows(), g.flows()
			rest, complete := a.minus(b)
			both, merged := a.intersectAll(b), a.merge()
			if !complete || len(merged) > len(a) || len(merged.merge()) != len(merged) {
				t.Fatalf("%v without %v is complete: %v; merged %v", a, b, complete, merged)
			}
			if slices.ContainsFunc(slices.Concat(rest, both), box.empty) {
				t.Fatalf("%v and %v leave empty boxes: %v, %v", a, b, rest, both)
			}
			for range 10 {
				f, as := g.flowProbe()
				inA, inB := a.holds(f, as), b.holds(f, as)
				if wrong(rest.holds(f, as), inA && !inB, exact) || wrong(both.holds(f, as), inA && inB, exact) || merged.holds(f, as) != inA {
					t.Fatalf("%v and %v are wrong about %v as %d", a, b, f, as)
				}
				hit, missed = hit+count(inA && inB), missed+count(inA && !inB)
			}
		}
		if min(hit, missed) < 300 {
			t.Errorf("the points are lopsided: %d in both sets, %d in the first alone", hit, missed)
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What is taken out of a box makes boxes that have nothing in common.
func TestBoxesAreCutCleanly(t *testing.T) {
	g := newGenerator(5, true)
	for range 20_000 {
		a, b := g.box(), g.box()
		if a.empty() {
			continue
		}
		parts := a.minus(b)
		for range 10 {
			f, as := g.flowProbe()
			times := 0
			for _, part := range parts {
				times += count(part.holds(f, as))
			}
			if times > 1 {
				t.Fatalf("%v without %v holds %v as %d %d times", a, b, f, as, times)
			}
		}
		if rest, _ := (flows{a}).minus(flows{a}); len(rest) > 0 {
			t.Fatalf("%v without itself leaves %v", a, rest)
		}
	}
}

// A box holds what its description says: two that are described by the same words hold the same.
func TestDescriptionsTellBoxesApart(t *testing.T) {
	g := newGenerator(6, true)
	seen := map[string]box{}
	for range 30_000 {
		b := g.box()
		if b.empty() || len(prefixes(b.addrs, maxPrefixes+1)) > maxPrefixes {
			continue
		}
		if b.sorts&anyPod != 0 {
			b.sorts |= anyPod // how pods are known does not show
		}
		words := b.peer() + " on " + b.ports.String()
		if other, found := seen[words]; found && (!other.ports.equal(b.ports) || !other.samePeers(b)) {
			t.Fatalf("%q stands for %+v and for %+v", words, other, b)
		}
		seen[words] = b
	}
	if len(seen) < 1000 {
		t.Errorf("only %d descriptions were compared", len(seen))
	}
}
