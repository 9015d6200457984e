package isolation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// generator makes random policies and exceptions over a tiny universe: see flows.
type generator struct {
	*rand.Rand
	// plain leaves out what Evaluate knowingly reports though no probe of the universe shows it: named ports of peers; selectors of
	// which one implies another (app=b implies that app exists) or which only several exceptions together cover; and address blocks
	// that exceptions cover in full.
	plain bool
}

func newGenerator(seed uint64, plain bool) generator {
	return generator{Rand: rand.New(rand.NewPCG(seed, 0)), plain: plain}
}

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) selector() metav1.LabelSelector {
	choices := []metav1.LabelSelector{
		everything(),
		labelled("app", "a"),
		expression("app", metav1.LabelSelectorOpIn, "a"),
		labelled("app", "b"),
		expression("app", metav1.LabelSelectorOpDoesNotExist),
	}
	if !g.plain {
		both := labelled("app", "a")
		both.MatchExpressions = exists("tier").MatchExpressions
		choices = append(choices, both,
			exists("app"),
			expression("app", metav1.LabelSelectorOpNotIn, "a"),
			expression("app", metav1.LabelSelectorOpIn, "b", "a"),
			expression("tier", metav1.LabelSelectorOpNotIn, "x", "y"))
	}
	return pick(g, choices...)
}

func (g generator) namespaceSelector() metav1.LabelSelector {
	choices := []metav1.LabelSelector{everything(), labelled("team", "x"), labelled("team", "y")}
	if !g.plain {
		choices = append(choices, expression("team", metav1.LabelSelectorOpNotIn, "x"))
	}
	return pick(g, choices...)
}

// cidr returns a block, which is as good as everything if wide.
func (g generator) cidr(wide bool) string {
	blocks := []string{"10.0.0.0/29", "10.0.0.0/30", "10.0.0.4/30", "10.0.0.2/31", "10.0.0.3/32", "2001:db8::/126", "2001:db8::2/127"}
	if wide {
		blocks = append(blocks, "0.0.0.0/0", "::/0", "10.0.0.0/8")
	}
	return pick(g, blocks...)
}

func (g generator) peer(exception bool) npPeer {
	switch g.IntN(4) {
	case 0:
		return podsPeer(g.selector())
	case 1:
		return namespacesPeer(g.namespaceSelector())
	case 2:
		return bothPeer(g.namespaceSelector(), g.selector())
	}
	block := blockPeer(g.cidr(!exception || !g.plain))
	for range g.IntN(3) {
		block.IPBlock.Except = append(block.IPBlock.Except, g.cidr(false))
	}
	return block
}

func (g generator) ports(d Direction) []npPort {
	var out []npPort
	for range g.IntN(3) {
		protocol := pick(g, tcp, tcp, udp, sctp)
		choices := []npPort{
			port(protocol, 80),
			port(protocol, 443),
			portRange(protocol, 80, 443),
			portRange(protocol, 442, 445),
			portRange(protocol, 1, 65535),
			wholeProtocol(protocol),
		}
		if d == DirectionIngress || !g.plain {
			choices = append(choices, portNamed(protocol, "http"), portNamed(protocol, "unknown"))
		}
		out = append(out, pick(g, choices...))
	}
	return out
}

func (g generator) exceptions() []Exception {
	var out []Exception
	for i := range g.IntN(4) {
		d := pick(g, DirectionIngress, DirectionEgress)
		out = append(out, Exception{Name: fmt.Sprint(i), Direction: d, Peer: g.peer(true), Ports: g.ports(d)})
	}
	return out
}

// peersNear returns a rule's peers: none, random ones, or those of an exception.
func (g generator) peersNear(exceptions []Exception) []npPeer {
	var out []npPeer
	for range g.IntN(12) % 4 {
		if len(exceptions) > 0 && g.IntN(2) == 0 {
			out = append(out, pick(g, exceptions...).Peer)
			continue
		}
		out = append(out, g.peer(false))
	}
	if len(out) == 0 && g.IntN(3) > 0 {
		out = append(out, g.peer(false))
	}
	return out
}

func (g generator) portsNear(d Direction, exceptions []Exception) []npPort {
	if len(exceptions) > 0 && g.IntN(2) == 0 {
		if e := pick(g, exceptions...); e.Direction == d {
			return e.Ports
		}
	}
	return g.ports(d)
}

// policies returns a few policies whose rules are often close to the exceptions.
func (g generator) policies(exceptions []Exception) []*policy {
	var out []*policy
	if g.IntN(4) > 0 {
		out = append(out, newPolicy("deny", DenySpec(everything(), exceptions)))
	}
	for i := range g.IntN(3) {
		s := spec{PodSelector: pick(g, everything(), everything(), labelled("app", "web"), exists("app"), expression("app", metav1.LabelSelectorOpNotIn, "db"))}
		for range g.IntN(2) {
			s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{
				From: g.peersNear(exceptions), Ports: g.portsNear(DirectionIngress, exceptions),
			})
		}
		for range g.IntN(2) {
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

// subject is the pod of the random tests.
func (g generator) subject() *corev1.Pod {
	pod := relabelled(pick(g, labelSet{"app": "web"}, labelSet{"app": "db"}, labelSet{quarantineKey: ""}))
	pod.Spec.InitContainers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: tcp}}}}
	return pod
}

// flows is the universe: every combination of some remotes with ports inside, at the edges and outside of the ranges that the
// generator uses.
func universe() []probe {
	http := []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: tcp}}
	var remotes []remote
	ip := 0
	for _, ns := range []string{namespace, "x", "y", "z", "plain"} {
		nsLabels := labelSet{"team": ns}
		if ns == namespace || ns == "plain" {
			nsLabels = labelSet{}
		}
		for _, labels := range []labelSet{{}, {"app": "a"}, {"app": "b"}, {"app": "c"}, {"app": "a", "tier": "x"}} {
			remotes = append(remotes, remote{namespace: ns, namespaceLabels: nsLabels, labels: labels, ip: fmt.Sprintf("10.0.0.%d", ip%12), ports: http})
			ip++
		}
	}
	for i := range 9 {
		remotes = append(remotes, remote{ip: fmt.Sprintf("10.0.0.%d", i)})
	}
	for _, ip := range []string{"2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "0.0.0.0", "10.255.255.255", "255.255.255.255"} {
		remotes = append(remotes, remote{ip: ip})
	}
	var out []probe
	for _, d := range []Direction{DirectionIngress, DirectionEgress} {
		for _, r := range remotes {
			for _, protocol := range protocols() {
				for _, number := range []int32{0, 1, 79, 80, 200, 441, 442, 443, 444, 445, 446, 65535} {
					out = append(out, probe{direction: d, remote: r, protocol: protocol, port: number})
				}
			}
		}
	}
	return out
}

func leaksIn(leaks []Leak, d Direction) []Leak {
	return slices.DeleteFunc(slices.Clone(leaks), func(l Leak) bool { return l.Direction != d })
}

// witness returns an allowed probe that no exception excuses, if there is one.
func witness(o oracle, d Direction, all []probe, policies []*policy, exceptions []Exception) (probe, bool) {
	for _, f := range all {
		if f.direction == d && o.allowed(policies, f) && !o.excused(exceptions, f) {
			return f, true
		}
	}
	return probe{}, false
}

func describeInput(policies []*policy, exceptions []Exception) string {
	text := ""
	for _, p := range policies {
		text += fmt.Sprintf("%s/%s: %v\n", p.Namespace, p.Name, p.Spec.String())
	}
	for _, e := range exceptions {
		text += fmt.Sprintf("exception %s %v %v\n", e.Direction, e.Peer.String(), e.Ports)
	}
	return text
}

// What is allowed and not excused is a leak, on network plugins of either kind.
func TestSoundness(t *testing.T) {
	all := universe()
	leaking, clean := 0, 0
	for seed := range uint64(3000) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		policies, pod := g.policies(exceptions), g.subject()
		leaks := evaluate(pod, policies, exceptions)
		for _, d := range []Direction{DirectionIngress, DirectionEgress} {
			if len(leaksIn(leaks, d)) > 0 {
				leaking++
				continue
			}
			clean++
			for _, blocksMatchPods := range []bool{false, true} {
				o := oracle{pod: pod, blocksMatchPods: blocksMatchPods}
				if f, found := witness(o, d, all, policies, exceptions); found {
					t.Fatalf("seed %d: no leak, but %+v is allowed (blocks match pods: %v)\n%s", seed, f, blocksMatchPods, describeInput(policies, exceptions))
				}
			}
		}
	}
	if min(leaking, clean) < 1000 {
		t.Errorf("the generator is lopsided: %d directions leak, %d do not", leaking, clean)
	}
}

// Where nothing is left to conservative judgement, every leak can be shown by a probe.
func TestCompleteness(t *testing.T) {
	all := universe()
	for seed := range uint64(3000) {
		g := newGenerator(seed, true)
		exceptions := g.exceptions()
		policies, pod := g.policies(exceptions), g.subject()
		leaks := evaluate(pod, policies, exceptions)
		for _, d := range []Direction{DirectionIngress, DirectionEgress} {
			_, found := witness(oracle{pod: pod}, d, all, policies, exceptions)
			if found != (len(leaksIn(leaks, d)) > 0) {
				t.Fatalf("seed %d: %s: probe found: %v, leaks: %v\n%s", seed, d, found, leaks, describeInput(policies, exceptions))
			}
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		policies, pod := append(g.policies(exceptions), g.policies(exceptions)...), g.subject()
		for i, p := range policies {
			p.Name = fmt.Sprint(i)
		}
		want := evaluate(pod, policies, exceptions)
		g.Shuffle(len(policies), func(i, j int) { policies[i], policies[j] = policies[j], policies[i] })
		g.Shuffle(len(exceptions), func(i, j int) { exceptions[i], exceptions[j] = exceptions[j], exceptions[i] })
		if diff := cmp.Diff(want, evaluate(pod, policies, exceptions)); diff != "" {
			t.Fatalf("seed %d: (-before +after shuffling):\n%s", seed, diff)
		}
	}
}

// Where a direction is restricted already, a further policy takes no leak away; an exception adds none.
func TestMonotony(t *testing.T) {
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

		for _, d := range []Direction{DirectionIngress, DirectionEgress} {
			one := Exception{Direction: d, Peer: g.peer(true), Ports: g.ports(d)}
			if len(leaksIn(before, d)) == 0 && len(leaksIn(evaluate(pod, policies, append(slices.Clone(exceptions), one)), d)) > 0 {
				t.Fatalf("seed %d: one exception more, and there are leaks", seed)
			}
		}
	}
}

// The operator's own policy is clean because of what it contains, and neither of its directions is left open.
func TestDenySpecDoesNotLeak(t *testing.T) {
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		deny := newPolicy("deny", DenySpec(everything(), exceptions))
		if leaks := evaluate(g.subject(), []*policy{deny}, exceptions); len(leaks) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, leaks, describeInput([]*policy{deny}, exceptions))
		}
	}
}

// Evaluate does not change what it is given.
func TestInputsAreNotChanged(t *testing.T) {
	for seed := range uint64(500) {
		g := newGenerator(seed, false)
		exceptions := g.exceptions()
		policies, pod := g.policies(exceptions), g.subject()
		before := describeInput(policies, exceptions) + pod.String()
		_ = evaluate(pod, policies, exceptions)
		if diff := cmp.Diff(before, describeInput(policies, exceptions)+pod.String()); diff != "" {
			t.Fatalf("seed %d: (-before +after):\n%s", seed, diff)
		}
	}
}
