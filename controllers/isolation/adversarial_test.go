package isolation

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The 64 adversarial cases of the field notes on network policies, §7. Each has a test whose name begins with "case" and its number; more about a case can be in other files.
//
//	1-25, 36, 64     cases_test.go; 15 over time in index_test.go, 19 on Cilium in cilium_test.go, 64 with a cluster in test/lifecycle
//	26-33, 36        clusternetworkpolicy_test.go; for the older kinds, and 34, adminnetworkpolicy_test.go
//	35               calico_test.go
//	37, 63           cilium_test.go
//	38-41, 61        residual_test.go
//	42               controllers/route
//	43-45, 47        test/lifecycle, with a real API server and the controllers that own the pods
//	46               real-node suite: nothing is flushed or probed by this package
//	48-53, 58-60, 62 real-node suite: what a data path does with packets, and what a probe makes of it, cannot be seen in objects
//	54               test/lifecycle for the order of the writes, real-node suite for the packets in between
//	55, 56           test/lifecycle; that an edit wakes the right pods is in index_test.go
//	57               test/admission

// caseFiles are the files of that list that pure tests are in.
func caseFiles() map[string][]int {
	out := map[string][]int{
		"cases_test.go":                {36, 64},
		"index_test.go":                {15},
		"cilium_test.go":               {19, 37, 63},
		"calico_test.go":               {35},
		"residual_test.go":             {38, 39, 40, 41, 61},
		"../route/route_test.go":       {42},
		"clusternetworkpolicy_test.go": {36},
		"adminnetworkpolicy_test.go":   {34},
	}
	for n := 1; n <= 25; n++ {
		out["cases_test.go"] = append(out["cases_test.go"], n)
	}
	for n := 26; n <= 33; n++ {
		out["clusternetworkpolicy_test.go"] = append(out["clusternetworkpolicy_test.go"], n)
	}
	return out
}

func TestEveryPureCaseHasATest(t *testing.T) {
	for file, numbers := range caseFiles() {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range numbers {
			if !regexp.MustCompile(fmt.Sprintf(`(?i)case (\d+ and )?%d\b`, n)).Match(source) {
				t.Errorf("%s has no case %d", file, n)
			}
		}
	}
}

// Policies of no kind in particular, built from the model, for what the rules of evaluation say of all kinds.

// egressPolicy selects every pod of the test's namespace for egress. It is reported to be in effect.
func egressPolicy(name string, at tier, rules ...rule) *Policy {
	p := &Policy{Ref: Ref{Group: "example.org", Kind: "Policy", Name: name, Generation: 1}, reported: true}
	p.subject.parts = []constraint{{inNamespace(namespace)}}
	for i := range rules {
		rules[i].index = i
	}
	p.egress = []*section{{tier: at, rules: rules}}
	return p
}

func unreported(p *Policy) *Policy {
	p.reported, p.notReported = false, "no implementation has reported"
	return p
}

func ruleOf(a action, ports ports, peers ...box) rule {
	return rule{action: a, peers: peers, ports: ports}
}

func addressesOf(t *testing.T, cidr string) box {
	t.Helper()
	set, text, err := parseBlock(networkingv1.IPBlock{CIDR: cidr})
	if err != nil {
		t.Fatal(err)
	}
	return blockPeers(set, text)
}

func onPort(number portNumber) ports {
	s := newPortSet()
	s.add(tcp, number, number)
	s.normalise()
	return ports{set: s}
}

func onPortNamed(name string) ports {
	s := newPortSet()
	s.named[namedPort{tcp, name}] = true
	return ports{set: s}
}

func admin(priority float64) tier    { return tier{order: orderAdmin, priority: priority} }
func baseline(priority float64) tier { return tier{order: orderBaseline, priority: priority} }

// found is what a test looks at in a leak.
type found struct {
	source, peer, ports string
	undecided           bool
}

func egressOf(leaks []Leak) []found {
	var out []found
	for _, l := range leaksIn(leaks, DirectionEgress) {
		out = append(out, found{l.Source.Name, l.Peer, l.Ports, l.Undecided != ""})
	}
	return out
}

func TestTiersAndPriorities(t *testing.T) {
	allPods := podPeers(nil, "all namespaces / all pods")
	block := addressesOf(t, "10.0.0.0/8")
	everybody := func(a action) rule { return ruleOf(a, allPorts(), anyBox()) }
	allowPods := ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(podsPeer(labelled("app", "b"))))))
	denies := ReadNetworkPolicy(newPolicy("q", egressDenied()))

	cases := map[string]struct {
		policies   []*Policy
		exceptions []Exception
		want       []found
	}{
		// Where blocks match pods, those with an address in the block get past the deny.
		"pods passed on by their addresses and allowed by their labels": {
			policies: []*Policy{
				egressPolicy("guard", admin(1), ruleOf(pass, allPorts(), block), ruleOf(deny, allPorts(), allPods)), denies, allowPods,
			},
			want: []found{{"a", "pods app=b in namespace shop with an address in 10.0.0.0/8", "all ports", false}},
		},
		"pods passed on by their addresses and excused by their labels": {
			policies: []*Policy{
				egressPolicy("guard", admin(1), ruleOf(pass, allPorts(), block), ruleOf(deny, allPorts(), allPods)), denies, allowPods,
			},
			exceptions: []Exception{{Direction: DirectionEgress, Peer: podsPeer(labelled("app", "b"))}},
		},
		"a pass that may not be in effect leaves what it lets through undecided": {
			policies: []*Policy{
				unreported(egressPolicy("open", admin(1), everybody(pass))), egressPolicy("closed", admin(2), everybody(deny)), allowPods,
			},
			want: []found{{"a", "pods app=b in this namespace", "all ports", true}},
		},
		"what one of two equals passes on does not reach the next priority": {
			policies: []*Policy{
				egressPolicy("pass", admin(5), ruleOf(pass, onPort(80), anyBox())),
				egressPolicy("other", admin(5), ruleOf(pass, onPort(81), anyBox())),
				egressPolicy("accept", admin(6), ruleOf(accept, onPort(80), anyBox())),
				denies,
			},
		},
		"what one of two equals accepts does not reach the next priority": {
			policies: []*Policy{
				egressPolicy("accept", admin(5), ruleOf(accept, onPort(80), anyBox())),
				egressPolicy("other", admin(5), ruleOf(accept, onPort(81), anyBox())),
				egressPolicy("late", admin(6), ruleOf(accept, onPort(80), anyBox())),
				denies,
			},
			want: []found{{"accept", "any peer", "TCP/80", false}, {"other", "any peer", "TCP/81", false}},
		},
		"equals that accept and pass contradict one another": {
			policies: []*Policy{
				egressPolicy("accept", admin(5), everybody(accept)), egressPolicy("pass", admin(5), everybody(pass)), denies,
			},
			want: []found{{"accept", "any peer", "all ports", true}},
		},
		"equals that pass and deny contradict one another": {
			policies: []*Policy{
				egressPolicy("deny", admin(5), everybody(deny)), egressPolicy("pass", admin(5), everybody(pass)), denies, allowPods,
			},
			want: []found{{"a", "pods app=b in this namespace", "all ports", true}},
		},
		"equals that deny a number do not deny a name": {
			policies: []*Policy{
				egressPolicy("pass", admin(5), ruleOf(pass, onPortNamed("http"), allPods), everybody(deny)),
				egressPolicy("one", baseline(5), ruleOf(deny, onPort(80), anyBox())),
				egressPolicy("other", baseline(5), ruleOf(deny, onPort(81), anyBox())),
			},
			want: []found{{"", "all namespaces / all pods", "TCP/http (named)", false}},
		},
		"labels of ServiceAccounts are not known": {
			policies: []*Policy{func() *Policy {
				p := egressPolicy("accounts", admin(1), everybody(deny))
				p.subject.parts = []constraint{{inNamespace(namespace), {domain: ofServiceAccount, key: "team", values: oneOf("sec")}}}
				return p
			}()},
			want: []found{{"", "any peer", "all ports", true}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := egressOf(Evaluate(stripped(), NewSet(tc.policies...), tc.exceptions, nil))
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(found{})); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// egressDenied isolates every pod of its namespace for egress.
func egressDenied() spec {
	return spec{PodSelector: metav1.LabelSelector{}, PolicyTypes: []networkingv1.PolicyType{typeEgress}}
}

// An exception may open nothing that is closed without any doubt, or that may be closed.
func TestPermittedLeavesOutWhatMayBeClosed(t *testing.T) {
	toPods := Exception{Direction: DirectionEgress, Peer: podsPeer(labelled("app", "b"))}
	toAddress := Exception{Direction: DirectionEgress, Peer: blockPeer("10.0.0.1/32")}
	cases := map[string]struct {
		exception Exception
		policies  []*Policy
		want      bool
	}{
		"nothing is closed": {exception: toAddress, want: true},
		"a deny that may be in effect": {
			exception: toAddress,
			policies:  []*Policy{unreported(egressPolicy("guard", admin(1), ruleOf(deny, allPorts(), addressesOf(t, "10.0.0.0/30"))))},
		},
		"a deny that may be in effect, elsewhere": {
			exception: toAddress,
			policies:  []*Policy{unreported(egressPolicy("guard", admin(1), ruleOf(deny, allPorts(), addressesOf(t, "10.0.0.2/31"))))},
			want:      true,
		},
		// Where blocks match pods, the baseline denies the pods, and a NetworkPolicy that allows them comes before it.
		"pods that a baseline denies by their addresses": {
			exception: toPods,
			policies:  []*Policy{egressPolicy("guard", baseline(1), ruleOf(deny, allPorts(), addressesOf(t, "0.0.0.0/0"), addressesOf(t, "::/0")))},
		},
		"pods that a rule allows by their labels": {
			exception: toPods,
			policies:  []*Policy{ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(podsPeer(everything())))))},
			want:      true,
		},
		"pods that a rule allows by their addresses": {
			exception: toPods,
			policies:  []*Policy{ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(blockPeer("0.0.0.0/0"), blockPeer("::/0")))))},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Permitted(victim(), NewSet(tc.policies...), []Exception{tc.exception})
			if (len(got) == 1) != tc.want {
				t.Errorf("Permitted() = %v, want it: %v", got, tc.want)
			}
		})
	}
}

// A leak is active if somebody matches it, however many address blocks it takes to describe it.
func TestStateOfPeersWithManyAddresses(t *testing.T) {
	at := func(name, ip string) *corev1.Pod {
		pod := podOf("other", name, labelSet{"app": "b"})
		pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
		return pod
	}
	without := func(ips ...string) box {
		var cut []string
		for _, ip := range ips {
			cut = append(cut, ip+"/128")
		}
		set, _, err := parseBlock(*blockPeer("::/0", cut...).IPBlock)
		if err != nil {
			t.Fatal(err)
		}
		b := labelledPods("app", "b")
		b.addrs = set
		return b
	}
	var everybody Peers
	everybody.Put(at("a", "2001:db8::5"), nil)
	if got := everybody.state(victim(), without("::1")); got != StateActive {
		t.Errorf("a pod has an address that is let through, and the leak is %s", got)
	}
	if got := everybody.state(victim(), without("::1", "2001:db8::5")); got != StateLatent {
		t.Errorf("no pod has an address that is let through, and the leak is %s", got)
	}
}

// labelledPods are pods with a label, of every namespace.
func labelledPods(key, value string) box {
	return podPeers(constraint{{domain: ofPod, key: key, values: oneOf(value)}}, "")
}
