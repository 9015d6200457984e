package isolation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	tcp  = corev1.ProtocolTCP
	udp  = corev1.ProtocolUDP
	sctp = corev1.ProtocolSCTP

	typeIngress = networkingv1.PolicyTypeIngress
	typeEgress  = networkingv1.PolicyTypeEgress
)

// evaluateCase is one situation. The numbers in the names of the cases are those of the field notes on network policies, §7.
type evaluateCase struct {
	pod        *corev1.Pod // stripped() if nil
	policies   []*policy
	exceptions []Exception
	want       []Leak
}

func runCases(t *testing.T, cases map[string]evaluateCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := tc.pod
			if pod == nil {
				pod = stripped()
			}
			got := evaluate(pod, tc.policies, tc.exceptions)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("evaluate() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEvaluateSelection(t *testing.T) {
	anyone := ingress(everything(), nil)
	webOnly := newPolicy("a", ingress(labelled("app", "web"), nil))
	runCases(t, map[string]evaluateCase{
		"no policy at all": {want: []Leak{unrestricted(DirectionEgress), unrestricted(DirectionIngress)}},
		"case 1: deny policy and nothing else": {
			policies: []*policy{denyPolicy()},
		},
		"case 2: policy on app=web, pod keeps its labels": {
			pod:      attached(),
			policies: []*policy{denyPolicy(), webOnly},
			want:     []Leak{leakOf(DirectionIngress, "a", 0, "any peer", "all ports")},
		},
		"case 2: policy on app=web, pod stripped": {
			policies: []*policy{denyPolicy(), webOnly},
		},
		"case 3: empty podSelector": {
			policies: []*policy{denyPolicy(), newPolicy("a", anyone)},
			want:     []Leak{leakOf(DirectionIngress, "a", 0, "any peer", "all ports")},
		},
		"case 4: NotIn matches the absent label": {
			policies: []*policy{denyPolicy(), newPolicy("a", egress(expression("app", metav1.LabelSelectorOpNotIn, "db"), nil))},
			want:     []Leak{leakOf(DirectionEgress, "a", 0, "any peer", "all ports")},
		},
		"case 5: DoesNotExist does not match before the relabelling": {
			pod:      attached(),
			policies: []*policy{denyPolicy(), newPolicy("a", ingress(expression("app", metav1.LabelSelectorOpDoesNotExist), nil))},
		},
		"case 5: DoesNotExist matches because of the relabelling": {
			policies: []*policy{denyPolicy(), newPolicy("a", ingress(expression("app", metav1.LabelSelectorOpDoesNotExist), nil))},
			want:     []Leak{leakOf(DirectionIngress, "a", 0, "any peer", "all ports")},
		},
		"case 6: policy on the quarantine label": {
			policies: []*policy{denyPolicy(), newPolicy("a", egress(exists(quarantineKey), nil))},
			want:     []Leak{leakOf(DirectionEgress, "a", 0, "any peer", "all ports")},
		},
		"case 7: deny policy in another namespace": {
			policies: []*policy{in(denyPolicy(), "other")},
			want:     []Leak{unrestricted(DirectionEgress), unrestricted(DirectionIngress)},
		},
		"a policy in another namespace allows nothing here": {
			policies: []*policy{denyPolicy(), in(newPolicy("a", anyone), "other")},
		},
		"case 8: no policyTypes and no egress rules": {
			policies: []*policy{newPolicy("q", spec{PodSelector: exists(quarantineKey)})},
			want:     []Leak{unrestricted(DirectionEgress)},
		},
		"no policyTypes, with egress rules, restricts both": {
			policies: []*policy{newPolicy("q", typed(egress(everything(), nil)))},
			want:     []Leak{leakOf(DirectionEgress, "q", 0, "any peer", "all ports")},
		},
		"case 9: policyTypes Egress only": {
			policies: []*policy{newPolicy("q", spec{PolicyTypes: []networkingv1.PolicyType{typeEgress}})},
			want:     []Leak{unrestricted(DirectionIngress)},
		},
		"ingress rules without policyTypes Ingress count for nothing": {
			policies: []*policy{denyPolicy(), newPolicy("a", typed(anyone, typeEgress))},
		},
		"case 10: an empty rule is not the absence of rules": {
			policies: []*policy{newPolicy("q", typed(ingress(exists(quarantineKey), nil), typeIngress, typeEgress))},
			want:     []Leak{leakOf(DirectionIngress, "q", 0, "any peer", "all ports")},
		},
		"case 11: empty but non-nil rules": {
			policies: []*policy{newPolicy("q", spec{
				PolicyTypes: []networkingv1.PolicyType{typeIngress, typeEgress},
				Ingress:     []networkingv1.NetworkPolicyIngressRule{},
				Egress:      []networkingv1.NetworkPolicyEgressRule{},
			})},
		},
		"case 12: directions are independent": {
			pod:      attached(),
			policies: []*policy{denyPolicy(), webOnly},
			want:     []Leak{leakOf(DirectionIngress, "a", 0, "any peer", "all ports")},
		},
		"case 36: selected by an egress policy only": {
			policies: []*policy{newPolicy("e", spec{PolicyTypes: []networkingv1.PolicyType{typeEgress}})},
			want:     []Leak{unrestricted(DirectionIngress)},
		},
		"invalid podSelector is a leak both ways and restricts nothing": {
			policies: []*policy{newPolicy("a", spec{PodSelector: expression("app", metav1.LabelSelectorOpIn)})},
			want: []Leak{
				unrestricted(DirectionEgress),
				leakOf(DirectionEgress, "a", -1, "any peer", "all ports").because(ReasonInvalidSelector),
				unrestricted(DirectionIngress),
				leakOf(DirectionIngress, "a", -1, "any peer", "all ports").because(ReasonInvalidSelector),
			},
		},
		"a missing policy is passed over": {policies: []*policy{nil, denyPolicy()}},
	})
}

func TestEvaluateTwoIncidents(t *testing.T) {
	const otherKey = "containment.cofferdam.dev/incident-2"
	first, second := denyPolicy(), newPolicy("q2", DenySpec(exists(otherKey), nil))
	runCases(t, map[string]evaluateCase{
		"case 64: both policies": {
			pod:      relabelled(labelSet{quarantineKey: "", otherKey: ""}),
			policies: []*policy{first, second},
		},
		"case 64: first policy removed": {
			pod:      relabelled(labelSet{quarantineKey: "", otherKey: ""}),
			policies: []*policy{second},
		},
		"case 64: first policy and first label removed": {
			pod:      relabelled(labelSet{otherKey: ""}),
			policies: []*policy{second},
		},
		"case 64: second policy and second label removed": {
			pod:      relabelled(labelSet{quarantineKey: ""}),
			policies: []*policy{first},
		},
		"case 64: both released": {
			pod:      relabelled(nil),
			policies: []*policy{first, second},
			want:     []Leak{unrestricted(DirectionEgress), unrestricted(DirectionIngress)},
		},
	})
}

func TestEvaluatePeers(t *testing.T) {
	in := func(from ...npPeer) []*policy {
		return []*policy{denyPolicy(), newPolicy("a", ingress(everything(), from))}
	}
	out := func(to ...npPeer) []*policy {
		return []*policy{denyPolicy(), newPolicy("a", egress(everything(), to))}
	}
	leak := func(peer string) Leak { return leakOf(DirectionIngress, "a", 0, peer, "all ports") }
	leakOut := func(peer string) Leak { return leakOf(DirectionEgress, "a", 0, peer, "all ports") }
	app, team := labelled("app", "b"), labelled("team", "a")

	runCases(t, map[string]evaluateCase{
		"case 14: podSelector alone means this namespace": {
			policies: in(podsPeer(app)),
			want:     []Leak{leak("pods app=b in this namespace")},
		},
		"case 14: both in one element are an AND": {
			policies: in(bothPeer(team, app)),
			want:     []Leak{leak("namespaces team=a / pods app=b")},
		},
		"case 14: two elements are an OR": {
			policies: in(podsPeer(app), namespacesPeer(team)),
			want:     []Leak{leak("namespaces team=a / all pods"), leak("pods app=b in this namespace")},
		},
		"all pods of this namespace, of all namespaces": {
			policies: in(podsPeer(everything()), namespacesPeer(everything())),
			want:     []Leak{leak("all namespaces / all pods"), leak("all pods in this namespace")},
		},
		"case 15: a namespace label that nobody has leaks all the same": {
			policies: in(namespacesPeer(labelled("nobody", "yet"))),
			want:     []Leak{leak("namespaces nobody=yet / all pods")},
		},
		"case 16: except covers the whole block": {
			policies: in(blockPeer("10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9")),
		},
		"case 17: another policy allows what except takes out": {
			policies: append(in(blockPeer("10.0.0.0/8", "10.1.0.0/16")), newPolicy("b", ingress(everything(), peers(blockPeer("10.1.0.0/16"))))),
			want: []Leak{
				leak("CIDR 10.0.0.0/8 except 10.1.0.0/16"),
				leakOf(DirectionIngress, "b", 0, "CIDR 10.1.0.0/16", "all ports"),
			},
		},
		"case 18: dual stack, IPv6 only": {
			policies: in(blockPeer("::/0")),
			want:     []Leak{leak("CIDR ::/0")},
		},
		"case 18: except for IPv4 leaves IPv6": {
			policies: in(blockPeer("::/0", "0.0.0.0/0")),
			want:     []Leak{leak("CIDR ::/0 except 0.0.0.0/0")},
		},
		"case 19: the block of the pods": {
			policies: out(blockPeer("10.244.0.0/16")),
			want:     []Leak{leakOut("CIDR 10.244.0.0/16")},
		},
		"case 25: what the peer's own policies forbid leaks all the same": {
			policies: append(out(podsPeer(app)), newPolicy("b", spec{PodSelector: app, PolicyTypes: []networkingv1.PolicyType{typeIngress}})),
			want:     []Leak{leakOut("pods app=b in this namespace")},
		},
		"invalid block, invalid except": {
			policies: in(blockPeer("10.0.0.300/8"), blockPeer("10.0.0.0/8", "10.0.0.0/33")),
			want: []Leak{
				leak(`CIDR "10.0.0.0/8" except ["10.0.0.0/33"]`).because(ReasonInvalidCIDR),
				leak(`CIDR "10.0.0.300/8" except []`).because(ReasonInvalidCIDR),
			},
		},
		"blocks that implementations read differently": {
			policies: in(blockPeer("::ffff:10.0.0.0/104"), blockPeer("010.0.0.0/8")),
			want: []Leak{
				leak(`CIDR "010.0.0.0/8" except []`).because(ReasonInvalidCIDR),
				leak(`CIDR "::ffff:10.0.0.0/104" except []`).because(ReasonInvalidCIDR),
			},
		},
		"invalid selectors": {
			policies: in(podsPeer(expression("app", "Like", "b")), bothPeer(expression("team", metav1.LabelSelectorOpIn), app)),
			want: []Leak{
				leak("namespaces with an invalid selector").because(ReasonInvalidSelector),
				leak("pods with an invalid selector").because(ReasonInvalidSelector),
			},
		},
		"the same peer twice is one leak": {
			policies: in(podsPeer(app), podsPeer(expression("app", metav1.LabelSelectorOpIn, "b"))),
			want:     []Leak{leak("pods app=b in this namespace")},
		},
		"empty peer, peer with everything": {
			policies: in(npPeer{}, npPeer{PodSelector: &app, IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}),
			want: []Leak{
				leak("a peer with both ipBlock and selectors").because(ReasonInvalidPeer),
				leak("a peer without ipBlock and selectors").because(ReasonInvalidPeer),
			},
		},
	})
}

func TestEvaluatePorts(t *testing.T) {
	in := func(ports ...npPort) []*policy {
		return []*policy{denyPolicy(), newPolicy("a", ingress(everything(), nil, ports...))}
	}
	out := func(ports ...npPort) []*policy {
		return []*policy{denyPolicy(), newPolicy("a", egress(everything(), nil, ports...))}
	}
	leak := func(ports string) []Leak { return []Leak{leakOf(DirectionIngress, "a", 0, "any peer", ports)} }
	leakOut := func(ports string) []Leak { return []Leak{leakOf(DirectionEgress, "a", 0, "any peer", ports)} }
	unclear := []Leak{leakOf(DirectionIngress, "a", 0, "any peer", "all ports").because(ReasonInvalidPort)}
	sidecar := stripped()
	sidecar.Spec.InitContainers = []corev1.Container{{
		Name:          "proxy",
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Ports:         []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
	}}

	runCases(t, map[string]evaluateCase{
		"case 13: one port, any peer":            {policies: in(port(tcp, 8080)), want: leak("TCP/8080")},
		"case 20: name not declared":             {policies: in(portNamed(tcp, "http"))},
		"case 20: name declared":                 {policies: in(portNamed(tcp, "metrics")), want: leak("TCP/9090 (metrics)")},
		"case 20: name on a native sidecar":      {pod: sidecar, policies: in(portNamed(tcp, "http")), want: leak("TCP/8080 (http)")},
		"case 20: name of another protocol":      {pod: sidecar, policies: in(portNamed(udp, "http"))},
		"egress names are the peers' affair":     {policies: out(portNamed(tcp, "http")), want: leakOut("TCP/http (named)")},
		"case 21: UDP range":                     {policies: in(portRange(udp, 1, 65535)), want: leak("UDP/1-65535")},
		"case 21: SCTP only":                     {policies: in(wholeProtocol(sctp)), want: leak("all SCTP ports")},
		"case 22: no protocol is TCP":            {policies: in(npPort{Port: port(tcp, 80).Port}), want: leak("TCP/80")},
		"neither protocol nor port is TCP":       {policies: in(npPort{}), want: leak("all TCP ports")},
		"case 23: DNS":                           {policies: out(port(udp, 53), port(tcp, 53)), want: leakOut("TCP/53, UDP/53")},
		"overlapping and adjacent ranges merge":  {policies: in(portRange(tcp, 5, 9), portRange(tcp, 1, 4), port(tcp, 7)), want: leak("TCP/1-9")},
		"every protocol by name is all ports":    {policies: in(wholeProtocol(udp), wholeProtocol(tcp), wholeProtocol(sctp)), want: leak("all ports")},
		"port 0":                                 {policies: in(port(tcp, 0)), want: unclear},
		"endPort below port":                     {policies: in(portRange(tcp, 80, 79)), want: unclear},
		"endPort beyond 65535":                   {policies: in(portRange(tcp, 80, 65536)), want: unclear},
		"endPort with a name":                    {policies: in(npPort{Port: portNamed(tcp, "http").Port, EndPort: new(int32(90))}), want: unclear},
		"endPort without port":                   {policies: in(npPort{EndPort: new(int32(90))}), want: unclear},
		"number as a name":                       {policies: in(portNamed(tcp, "80")), want: unclear},
		"empty name":                             {policies: in(portNamed(tcp, "")), want: unclear},
		"protocol that policies know nothing of": {policies: in(wholeProtocol("ICMP")), want: unclear},
	})
}

func TestEvaluateExceptions(t *testing.T) {
	app, team := labelled("app", "collector"), labelled("team", "sec")
	collector := podsPeer(app)
	to := func(p npPeer, ports ...npPort) Exception {
		return Exception{Name: "e", Direction: DirectionEgress, Peer: p, Ports: ports}
	}
	from := func(p npPeer, ports ...npPort) Exception {
		return Exception{Name: "e", Direction: DirectionIngress, Peer: p, Ports: ports}
	}
	// allows is a rule beside the operator's deny policy, which is made from the same exceptions.
	allows := func(want []Leak, rule spec, exceptions ...Exception) evaluateCase {
		return evaluateCase{
			policies:   []*policy{denyPolicy(exceptions...), newPolicy("a", rule)},
			exceptions: exceptions,
			want:       want,
		}
	}
	out := func(p npPeer, ports ...npPort) spec { return egress(everything(), peers(p), ports...) }
	leak := func(peer, ports string) Leak { return leakOf(DirectionEgress, "a", 0, peer, ports) }

	tampered := denyPolicy(to(collector, port(tcp, 443)))
	tampered.Spec.Egress = append(tampered.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers(collector), Ports: []npPort{port(tcp, 22)}})

	manner := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "zone", Operator: metav1.LabelSelectorOpIn, Values: []string{"b", "a", "b"}},
		{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"collector"}},
	}}
	otherManner := metav1.LabelSelector{
		MatchLabels:      labelSet{"app": "collector"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "zone", Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}},
	}
	narrower := metav1.LabelSelector{MatchLabels: labelSet{"app": "collector", "x": "y"}}

	runCases(t, map[string]evaluateCase{
		"the operator's policy with a rule added": {
			policies:   []*policy{tampered},
			exceptions: []Exception{to(collector, port(tcp, 443))},
			want:       []Leak{leakOf(DirectionEgress, "q", 1, "pods app=collector in this namespace", "TCP/22")},
		},
		"the operator's policy with an exception that is no longer declared": {
			policies: []*policy{denyPolicy(to(collector, port(tcp, 443)))},
			want:     []Leak{leakOf(DirectionEgress, "q", 0, "pods app=collector in this namespace", "TCP/443")},
		},
		"case 24: one port beyond the exception": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/444")},
			out(collector, portRange(tcp, 443, 444)), to(collector, port(tcp, 443))),
		"a hole in the middle": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/440-442, TCP/444-450")},
			out(collector, portRange(tcp, 440, 450)), to(collector, port(tcp, 443))),
		"another protocol": allows(
			[]Leak{leak("pods app=collector in this namespace", "UDP/443")},
			out(collector, port(udp, 443)), to(collector, port(tcp, 443))),
		"the other direction": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/443")},
			out(collector, port(tcp, 443)), from(collector, port(tcp, 443))),
		"exceptions add up": allows(nil,
			out(collector, portRange(tcp, 443, 444)), to(collector, port(tcp, 443)), to(collector, port(tcp, 444))),
		"case 23: DNS as an exception": allows(nil,
			out(bothPeer(labelled("kubernetes.io/metadata.name", "kube-system"), labelled("k8s-app", "kube-dns")), port(udp, 53), port(tcp, 53)),
			to(bothPeer(labelled("kubernetes.io/metadata.name", "kube-system"), labelled("k8s-app", "kube-dns")), port(tcp, 53), port(udp, 53))),
		"an exception without ports is all ports": allows(nil, out(collector), to(collector)),
		"1-65535 is not all ports": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/0")},
			out(collector, wholeProtocol(tcp)), to(collector, portRange(tcp, 1, 65535))),
		"the same selector written differently": allows(nil, out(podsPeer(manner)), to(podsPeer(otherManner))),
		"a narrower peer":                       allows(nil, out(podsPeer(narrower)), to(collector)),
		"a wider peer": allows(
			[]Leak{leak("pods app=collector,x notin (y) in namespace shop", "all ports")},
			out(collector), to(podsPeer(narrower))),
		"any peer is covered by every address and every pod together": allows(nil,
			egress(everything(), nil), to(blockPeer("0.0.0.0/0")), to(blockPeer("::/0")), to(namespacesPeer(everything()))),
		"any peer is not covered by addresses alone, which may not be those of pods": allows(
			[]Leak{leak("all namespaces / all pods", "all ports")},
			egress(everything(), nil), to(blockPeer("0.0.0.0/0")), to(blockPeer("::/0"))),
		"same pods in another namespace": allows(
			[]Leak{leak("namespaces kubernetes.io/metadata.name notin (shop),team=sec / pods app=collector", "all ports")},
			out(bothPeer(team, app)), to(collector)),
		"this namespace is one of all namespaces": allows(nil, out(collector), to(namespacesPeer(everything()))),
		"this namespace may not be one of the team's": allows(
			[]Leak{leak("namespaces kubernetes.io/metadata.name=shop,team notin (sec) / pods app=collector", "all ports")},
			out(collector), to(bothPeer(team, app))),
		"an address is not a pod": allows(
			[]Leak{leak("CIDR 10.0.0.0/24", "all ports")},
			out(blockPeer("10.0.0.0/24")), to(namespacesPeer(everything()))),
		"a pod is not an address": allows(
			[]Leak{leak("pods app=collector in this namespace", "all ports")},
			out(collector), to(blockPeer("0.0.0.0/0"))),
		"block within the exception": allows(nil, out(blockPeer("10.1.0.0/16")), to(blockPeer("10.0.0.0/8"))),
		"block beyond the exception": allows(
			[]Leak{leak("CIDR 10.0.0.0/10, 10.128.0.0/9", "all ports")},
			out(blockPeer("10.0.0.0/8")), to(blockPeer("10.64.0.0/10"))),
		"block with ports": allows(
			[]Leak{leak("CIDR 10.0.0.0/25", "TCP/444"), leak("CIDR 10.0.0.128/25", "TCP/443-444")},
			out(blockPeer("10.0.0.0/24"), portRange(tcp, 443, 444)), to(blockPeer("10.0.0.0/25"), port(tcp, 443))),
		"an exception for other ports does not split the block": allows(
			[]Leak{leak("CIDR 10.0.0.0/24", "TCP/443")},
			out(blockPeer("10.0.0.0/24"), port(tcp, 443)), to(blockPeer("10.0.0.0/25"), port(tcp, 22))),
		"halves of a block add up": allows(nil,
			out(blockPeer("2001:db8::/32")), to(blockPeer("2001:db8::/33")), to(blockPeer("2001:db8:8000::/33"))),
		"except of the exception": allows(
			[]Leak{leak("CIDR 10.0.0.7/32", "all ports")},
			out(blockPeer("10.0.0.0/24")), to(blockPeer("10.0.0.0/24", "10.0.0.7/32"))),
		"the same name on the same peer": allows(nil, out(collector, portNamed(tcp, "http")), to(collector, portNamed(tcp, "http"))),
		"a name within the whole protocol": allows(nil,
			out(collector, portNamed(tcp, "http")), to(collector, wholeProtocol(tcp))),
		"a name within all ports that can have one": allows(nil,
			out(collector, portNamed(tcp, "http")), to(collector, portRange(tcp, 1, 65535))),
		"a name is not a number": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/http (named)")},
			out(collector, portNamed(tcp, "http")), to(collector, port(tcp, 80))),
		"a name on the pod itself is a number": allows(nil,
			ingress(everything(), peers(collector), port(tcp, 9090)), from(collector, portNamed(tcp, "metrics"))),
		"an exception whose ports mean nothing excuses nothing": allows(
			[]Leak{leak("pods app=collector in this namespace", "TCP/443")},
			out(collector, port(tcp, 443)), to(collector, port(tcp, 443), port(tcp, 0))),
		"an exception that means nothing excuses nothing": {
			policies:   []*policy{denyPolicy(), newPolicy("a", out(npPeer{}))},
			exceptions: []Exception{to(npPeer{})},
			want:       []Leak{leak("a peer without ipBlock and selectors", "all ports").because(ReasonInvalidPeer)},
		},
	})
}

func TestLeakString(t *testing.T) {
	cases := map[string]struct {
		leak Leak
		want string
	}{
		"no policy": {
			leak: unrestricted(DirectionEgress),
			want: "egress to any peer on all ports is allowed because no NetworkPolicy selects the pod for Egress: add one that does",
		},
		"rule": {
			leak: leakOf(DirectionIngress, "a", 2, "CIDR ::/0", "TCP/80"),
			want: "ingress from CIDR ::/0 on TCP/80 is allowed by rule 2 of NetworkPolicy shop/a: remove the rule, or keep its podSelector off the pod",
		},
		"unreadable rule": {
			leak: leakOf(DirectionIngress, "a", 0, "any peer", "all ports").because(ReasonInvalidPort),
			want: "ingress from any peer on all ports may be allowed by rule 0 of NetworkPolicy shop/a (InvalidPort): correct the rule, or keep its podSelector off the pod",
		},
		"unreadable policy": {
			leak: leakOf(DirectionIngress, "a", -1, "any peer", "all ports").because(ReasonInvalidSelector),
			want: "ingress from any peer on all ports may be allowed by NetworkPolicy shop/a (InvalidSelector): correct its podSelector",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.leak.String()); diff != "" {
				t.Errorf("String() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}
