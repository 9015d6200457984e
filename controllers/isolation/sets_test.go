package isolation

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sets of intervals agree with sets of single points.
func TestSpansAgreeWithPoints(t *testing.T) {
	const size = 24
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() (spans[portNumber], [size]bool) {
		var in []span[portNumber]
		var points [size]bool
		for range rng.IntN(6) {
			lo := rng.IntN(size)
			hi := lo + rng.IntN(size-lo)
			in = append(in, span[portNumber]{portNumber(lo), portNumber(hi)})
			for i := lo; i <= hi; i++ {
				points[i] = true
			}
		}
		return union(in...), points
	}
	check := func(what string, set spans[portNumber], want func(i int) bool) {
		t.Helper()
		for i, s := range set {
			if s.lo > s.hi || i > 0 && s.lo <= set[i-1].hi+1 {
				t.Fatalf("%s: %v is not in normal form", what, set)
			}
		}
		for i := range size {
			got := false
			for _, s := range set {
				got = got || s.lo <= portNumber(i) && portNumber(i) <= s.hi
			}
			if got != want(i) {
				t.Fatalf("%s: %v has %d: %v", what, set, i, got)
			}
		}
	}
	for range 20000 {
		a, pa := random()
		b, pb := random()
		check("union", a, func(i int) bool { return pa[i] })
		check("minus", a.minus(b), func(i int) bool { return pa[i] && !pb[i] })
		check("intersect", a.intersect(b), func(i int) bool { return pa[i] && pb[i] })
		if a.equal(b) != (pa == pb) {
			t.Fatalf("equal(%v, %v) = %v", a, b, a.equal(b))
		}
	}
}

func TestParseBlock(t *testing.T) {
	cases := map[string]struct {
		cidr   string
		except []string
		want   string // the addresses that remain
	}{
		"host bits are ignored":         {cidr: "10.1.2.3/8", want: "CIDR 10.0.0.0/8"},
		"single address":                {cidr: "255.255.255.255/32", want: "CIDR 255.255.255.255/32"},
		"top of IPv4 does not overflow": {cidr: "0.0.0.0/0", except: []string{"255.255.255.255/32", "128.0.0.0/1"}, want: "CIDR 0.0.0.0/1"},
		"top of IPv6 does not overflow": {cidr: "::/0", except: []string{"8000::/1"}, want: "CIDR ::/1"},
		"hole":                          {cidr: "10.0.0.0/30", except: []string{"10.0.0.1/32"}, want: "CIDR 10.0.0.0/32, 10.0.0.2/31"},
		"except outside":                {cidr: "10.0.0.0/30", except: []string{"10.0.0.4/30"}, want: "CIDR 10.0.0.0/30"},
		"except wider":                  {cidr: "10.0.0.0/30", except: []string{"10.0.0.0/8"}, want: "CIDR "},
		"bounded": {
			cidr: "::/0", except: []string{"::1/128"},
			want: "CIDR ::/128, ::2/127, ::4/126, ::8/125, ::10/124, ::20/123, ::40/122, ::80/121, ::100/120, ::200/119, " +
				"::400/118, ::800/117, ::1000/116, ::2000/115, ::4000/114, ::8000/113 and more",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, _, err := parseBlock(networkingv1.IPBlock{CIDR: tc.cidr, Except: tc.except})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, describeAddresses(got)); diff != "" {
				t.Errorf("parseBlock() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever can be read makes a set from which taking the block's own prefixes leaves nothing.
func FuzzParseBlock(f *testing.F) {
	f.Add("10.0.0.0/8", "10.0.0.0/9")
	f.Add("0.0.0.0/0", "255.255.255.255/32")
	f.Add("::/0", "::ffff:0:0/96")
	f.Add("fe80::1%eth0/64", "")
	f.Add("2001:db8::/32", "2001:db8:8000::/33")
	f.Fuzz(func(t *testing.T, cidr, except string) {
		block := networkingv1.IPBlock{CIDR: cidr}
		if except != "" {
			block.Except = []string{except}
		}
		set, _, err := parseBlock(block)
		if err != nil {
			return
		}
		var back []span[netip.Addr]
		for _, p := range prefixes(set, 300) {
			if p != p.Masked() {
				t.Fatalf("%v has host bits", p)
			}
			back = append(back, spanOf(p))
		}
		if !union(back...).equal(set) {
			t.Errorf("prefixes of %v make up %v", set, union(back...))
		}
		if e, err := parseCIDR(except); err == nil && len(set.intersect(union(spanOf(e)))) > 0 {
			t.Errorf("%v holds addresses of %v", set, e)
		}
	})
}

func TestExceptionValidate(t *testing.T) {
	good := Exception{Name: "e", Direction: DirectionEgress, Peer: blockPeer("10.0.0.0/8"), Ports: []npPort{port(tcp, 443)}}
	cases := map[string]struct {
		change func(*Exception)
		want   string
	}{
		"good":      {change: func(*Exception) {}},
		"direction": {change: func(e *Exception) { e.Direction = "egress" }, want: `exception "e": direction "egress" is neither Ingress nor Egress`},
		"peer":      {change: func(e *Exception) { e.Peer = npPeer{} }, want: `exception "e": InvalidPeer: a peer without ipBlock and selectors`},
		"block":     {change: func(e *Exception) { e.Peer = blockPeer("x") }, want: `exception "e": InvalidCIDR: CIDR "x" except []`},
		"port":      {change: func(e *Exception) { e.Ports[0] = port(tcp, 70000) }, want: `exception "e": port range 70000-70000 is not within 1-65535`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			e := good
			e.Ports = append([]npPort(nil), good.Ports...)
			tc.change(&e)
			got := ""
			if err := e.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Validate() mismatch (-want +got):\n%s", diff)
			}
			if spec := DenySpec(everything(), []Exception{e}); (len(spec.Egress)+len(spec.Ingress) == 0) != (tc.want != "") {
				t.Errorf("DenySpec() made rules %v %v", spec.Ingress, spec.Egress)
			}
		})
	}
}

func TestDenySpec(t *testing.T) {
	selector := exists(quarantineKey)
	exceptions := []Exception{
		{Direction: DirectionEgress, Peer: blockPeer("10.0.0.1/32"), Ports: []npPort{port(tcp, 443)}},
		{Direction: DirectionIngress, Peer: podsPeer(labelled("app", "a"))},
	}
	want := spec{
		PodSelector: selector,
		PolicyTypes: []networkingv1.PolicyType{typeIngress, typeEgress},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: peers(podsPeer(labelled("app", "a")))}},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: peers(blockPeer("10.0.0.1/32")), Ports: []npPort{port(tcp, 443)}}},
	}
	got := DenySpec(selector, exceptions)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("DenySpec() mismatch (-want +got):\n%s", diff)
	}
	got.Egress[0].Ports[0].Port.IntVal = 1
	got.PodSelector.MatchExpressions[0].Key = "x"
	if exceptions[0].Ports[0].Port.IntVal != 443 || selector.MatchExpressions[0].Key != quarantineKey {
		t.Error("the spec shares memory with its inputs")
	}
}

// A rule that is made to be expensive neither takes long nor makes a result without bounds.
func TestHostileRule(t *testing.T) {
	const size = 15000
	var ports []npPort
	var many []npPeer
	var except []string
	for i := range int32(size) {
		ports = append(ports, port(tcp, 2*i+1))
		many = append(many, podsPeer(metav1.LabelSelector{MatchLabels: labelSet{"app": "collector", "x": fmt.Sprint(i)}}))
		except = append(except, fmt.Sprintf("2001:db8::%x/128", 2*i))
	}
	many = append(many, blockPeer("2001:db8::/32", except...))
	exceptions := []Exception{
		{Direction: DirectionEgress, Peer: podsPeer(labelled("app", "collector")), Ports: []npPort{port(tcp, 1)}},
		{Direction: DirectionEgress, Peer: blockPeer("2001:db8::/64"), Ports: []npPort{port(tcp, 1)}},
	}
	policies := []*policy{
		denyPolicy(exceptions...),
		newPolicy("peers", egress(everything(), many, ports...)),
		newPolicy("block", egress(everything(), many[size:], ports...)),
	}
	start := time.Now()
	leaks := evaluate(stripped(), policies, exceptions)
	if took := time.Since(start); took > time.Minute { // about 3 s on two slow cores; without limits it would take hours
		t.Errorf("took %v", took)
	}
	if got, limit := len(leaks), 2*maxLeaksPerRule; got == 0 || got > limit {
		t.Errorf("got %d leaks, want 1 to %d", got, limit)
	}
	for _, l := range leaks {
		if utf8.RuneCountInString(l.Peer) > maxText || utf8.RuneCountInString(l.Ports) > maxText {
			t.Fatalf("a text is too long: %v", l)
		}
	}
	if !strings.HasSuffix(leaks[0].Ports, "…") {
		t.Errorf("a shortened text does not show it: %q", leaks[0].Ports)
	}
}
