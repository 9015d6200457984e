package isolation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The world of random Calico policies: some pods, some addresses, and network sets that the package is never told of. Whether a flow gets through is found out rule by rule and address by
// address, as Calico does it. This shares no code with the package.

// calicoPod is a pod with its addresses; host is set for who is no pod.
type calicoPod struct {
	seen
	ip   string
	host bool
}

// networkSet has the labels that Calico compares.
type networkSet struct {
	labels labelSet
	cidrs  []string
}

// calicoWorld answers for the pod that is first of its pods.
type calicoWorld struct {
	pods      []calicoPod
	sets      []networkSet
	selectors map[string]func(labelSet) bool // by their texts
	tiers     map[string]Tier
	objects   []*unstructured.Unstructured
	allow     []*policy
	backwards bool // policies of the same order come in the reverse order of their names
}

// flow is one flow to or from the first pod.
type flow struct {
	direction Direction
	peer      calicoPod
	protocol  corev1.Protocol
	port      int
}

// selected says whether an address belongs to an endpoint or a network set with the labels. The selector may only see those of one namespace.
func (w *calicoWorld) selected(ip string, match func(labelSet) bool) bool {
	for _, p := range w.pods {
		if !p.host && p.ip == ip && match(p.calico) {
			return true
		}
	}
	for _, s := range w.sets {
		if match(s.labels) && slices.ContainsFunc(s.cidrs, func(cidr string) bool { return contains(cidr, ip) }) {
			return true
		}
	}
	return false
}

func field[T any](m map[string]any, name string) T {
	v, _ := m[name].(T)
	return v
}

// matchesEntity says whether one end of a flow is what a rule says of it.
func (w *calicoWorld) matchesEntity(e map[string]any, ip, namespace string) bool {
	in := func(list []any) bool {
		return slices.ContainsFunc(list, func(v any) bool { return contains(v.(string), ip) })
	}
	if nets := field[[]any](e, "nets"); len(nets) > 0 && !in(nets) {
		return false
	}
	if in(field[[]any](e, "notNets")) {
		return false
	}
	selector, spaces, not := field[string](e, "selector"), field[string](e, "namespaceSelector"), field[string](e, "notSelector")
	names := field[[]any](field[map[string]any](e, "serviceAccounts"), "names")
	if selector+spaces != "" || len(names) > 0 || not != "" && namespace != "" {
		match := func(labels labelSet) bool {
			switch {
			case selector != "" && !w.selectors[selector](labels):
				return false
			case len(names) > 0 && !slices.Contains(names, any(labels["projectcalico.org/serviceaccount"])):
				return false
			case spaces != "":
				return w.selectors["pcns:"+spaces](labels)
			}
			return namespace == "" || labels["projectcalico.org/namespace"] == namespace
		}
		if !w.selected(ip, match) {
			return false
		}
	}
	return not == "" || !w.selected(ip, w.selectors[not])
}

func (w *calicoWorld) matchesRule(r map[string]any, f flow, namespace string) bool {
	src, dst := f.peer.ip, w.pods[0].ip
	if f.direction == DirectionEgress {
		src, dst = dst, src
	}
	addr := netip.MustParseAddr(f.peer.ip)
	if v, limited := r["ipVersion"]; limited && (v == int64(4)) != addr.Is4() {
		return false
	}
	if p := field[string](r, "protocol"); p != "" && p != string(f.protocol) || field[string](r, "notProtocol") == string(f.protocol) {
		return false
	}
	from, to := field[map[string]any](r, "source"), field[map[string]any](r, "destination")
	hit := func(v any) bool {
		text := fmt.Sprint(v)
		var lo, hi int
		if n, _ := fmt.Sscanf(text, "%d:%d", &lo, &hi); n == 2 {
			return lo <= f.port && f.port <= hi
		}
		return text == fmt.Sprint(f.port) || text == "metrics" && f.direction == DirectionIngress && f.protocol == tcp && f.port == 9090
	}
	if ports := field[[]any](to, "ports"); len(ports) > 0 && !slices.ContainsFunc(ports, hit) {
		return false
	}
	return !slices.ContainsFunc(field[[]any](to, "notPorts"), hit) && w.matchesEntity(from, src, namespace) && w.matchesEntity(to, dst, namespace)
}

// decide returns what an object does with a flow, or nothing. governs says whether it is about flows in this direction to or from the pod.
func (w *calicoWorld) decide(u *unstructured.Unstructured, f flow) (decision string, governs bool) {
	spec := u.Object["spec"].(map[string]any)
	me := w.pods[0].calico
	if s := field[string](spec, "selector"); s != "" && !w.selectors[s](me) {
		return "", false
	}
	if s := field[string](spec, "namespaceSelector"); s != "" && !w.selectors["pcns:"+s](me) {
		return "", false
	}
	if u.GetNamespace() != "" && u.GetNamespace() != me["projectcalico.org/namespace"] || !slices.Contains(spec["types"].([]any), any(string(f.direction))) {
		return "", false
	}
	for _, r := range field[[]any](spec, strings.ToLower(string(f.direction))) {
		r := r.(map[string]any)
		if r["action"] != "Log" && w.matchesRule(r, f, u.GetNamespace()) {
			return r["action"].(string), true
		}
	}
	return "", true
}

// decideNetworkPolicy does the same for a NetworkPolicy.
func (w *calicoWorld) decideNetworkPolicy(p *policy, f flow) (decision string, governs bool) {
	me := w.pods[0]
	o := oracle{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: me.calico["projectcalico.org/namespace"], Labels: me.labels}}, blocksMatchPods: true}
	at := probe{direction: f.direction, protocol: f.protocol, port: int32(f.port), remote: remote{ip: f.peer.ip}}
	if !f.peer.host {
		at.remote = remote{ip: f.peer.ip, labels: f.peer.labels, namespaceLabels: f.peer.namespace, namespace: f.peer.calico["projectcalico.org/namespace"]}
	}
	if o.allowed([]*policy{p, nothing(f.direction)}, at) {
		return "Allow", true
	}
	return "", true // all of them are about both directions
}

// nothing is a NetworkPolicy that allows nothing to anybody.
func nothing(d Direction) *policy {
	return newPolicy("nothing", spec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyType(d)}})
}

// step is a policy at its place.
type step struct {
	tier, place float64
	name, of    string
	decide      func(flow) (string, bool)
}

// allowed says whether a flow gets through.
func (w *calicoWorld) allowed(f flow) bool {
	var steps []step
	for _, u := range w.objects {
		order, has := u.Object["spec"].(map[string]any)["order"]
		place := 1e300
		if has {
			place = order.(float64)
		}
		tier := field[string](u.Object["spec"].(map[string]any), "tier")
		steps = append(steps, step{tier: w.tiers[tier].Order, of: tier, place: place, name: u.GetName(), decide: func(f flow) (string, bool) { return w.decide(u, f) }})
	}
	for _, p := range w.allow {
		steps = append(steps, step{tier: 1e6, of: "default", place: 1000, name: p.Name, decide: func(f flow) (string, bool) { return w.decideNetworkPolicy(p, f) }})
	}
	slices.SortFunc(steps, func(a, b step) int {
		switch {
		case a.tier != b.tier:
			return sign(a.tier < b.tier)
		case a.place != b.place:
			return sign(a.place < b.place)
		}
		return sign((a.name < b.name) != w.backwards)
	})
	for len(steps) > 0 {
		n := slices.IndexFunc(steps, func(s step) bool { return s.of != steps[0].of })
		if n < 0 {
			n = len(steps)
		}
		applies, decision := false, ""
		for _, s := range steps[:n] {
			d, governs := s.decide(f)
			applies = applies || governs
			if decision == "" {
				decision = d
			}
		}
		switch {
		case decision == "Allow":
			return true
		case decision == "Deny", decision == "" && applies && !w.tiers[steps[0].of].DefaultPass:
			return false
		}
		steps = steps[n:]
	}
	return true
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

// holdsFlow says whether a flow is among those of a set, whichever way the set sees pods.
func holdsFlow(set flows, f flow) bool {
	return slices.ContainsFunc(set, func(b box) bool {
		if !b.addrs.contains(netip.MustParseAddr(f.peer.ip)) || !b.ports.numbers[f.protocol].contains(portNumber(f.port)) {
			return false
		}
		if f.peer.host {
			return b.sorts&noPods != 0 && len(b.labels) == 0
		}
		return b.sorts&anyPod != 0 && alternatives{parts: []constraint{b.labels}}.holds(f.peer.seen)
	})
}

// randomWorld makes up everything.
type randomWorld struct {
	*rand.Rand
	w *calicoWorld
}

func (g randomWorld) oneOf(from ...string) string { return from[g.IntN(len(from))] }

func (g randomWorld) chance(n int) bool { return g.IntN(n) == 0 }

func (g randomWorld) selector(prefix string) string {
	text, match := randomSelector(g.Rand, g.IntN(2))
	for prefix != "" && strings.Contains(text, "pcns.") { // it would stand there twice
		text, match = randomSelector(g.Rand, g.IntN(2))
	}
	if prefix == "" {
		g.w.selectors[text] = match
		return text
	}
	g.w.selectors["pcns:"+text] = func(labels labelSet) bool {
		under := labelSet{}
		for k, v := range labels {
			if key, found := strings.CutPrefix(k, "pcns."); found {
				under[key] = v
			}
		}
		// all() in a namespaceSelector means every namespace.
		return match(under) && (!strings.Contains(text, "all()") || labels["projectcalico.org/namespace"] != "")
	}
	return text
}

var someNets = []string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.4/32", "192.0.2.0/24", "2001:db8::/32"}

func (g randomWorld) entity() map[string]any {
	e := map[string]any{}
	for name, n := range map[string]int{"nets": 4, "notNets": 6} {
		if g.chance(n) {
			e[name] = []any{g.oneOf(someNets...), g.oneOf(someNets...)}
		}
	}
	if g.chance(3) {
		e["selector"] = g.selector("")
	}
	if g.chance(6) {
		e["namespaceSelector"] = g.selector("pcns:")
	}
	if g.chance(8) {
		e["notSelector"] = g.selector("")
	}
	if g.chance(8) {
		e["serviceAccounts"] = map[string]any{"names": []any{"x"}}
	}
	return e
}

func (g randomWorld) rule(d Direction) map[string]any {
	peer, own := g.entity(), map[string]any{}
	if g.chance(12) {
		own = g.entity()
	}
	r := map[string]any{"action": g.oneOf("Allow", "Allow", "Deny", "Deny", "Pass", "Log"), "source": peer, "destination": own}
	if d == DirectionEgress {
		r["source"], r["destination"] = own, peer
	}
	if g.chance(3) {
		to := r["destination"].(map[string]any)
		r["protocol"] = g.oneOf("TCP", "TCP", "UDP")
		if g.chance(2) {
			to["ports"] = []any{int64(80), g.oneOf("79:81", "443", "9000:9100")}
			if d == DirectionIngress && g.chance(2) {
				to["ports"] = []any{"metrics"}
			}
		}
		if g.chance(4) {
			to["notPorts"] = []any{g.oneOf("80", "81:65535")}
		}
	} else if g.chance(8) {
		r["notProtocol"] = "TCP"
	}
	if g.chance(10) {
		r["ipVersion"] = int64(4 + 2*g.IntN(2))
	}
	return r
}

func (g randomWorld) object(name string) *unstructured.Unstructured {
	spec := map[string]any{"types": []any{"Ingress", "Egress"}}
	for _, d := range Directions() {
		var rules []any
		for range g.IntN(4) {
			rules = append(rules, g.rule(d))
		}
		if rules != nil {
			spec[strings.ToLower(string(d))] = rules
		}
	}
	if g.chance(4) {
		spec["types"] = []any{g.oneOf("Ingress", "Egress")}
	}
	if g.chance(3) {
		spec["selector"] = g.selector("")
	}
	spec["tier"] = g.oneOf("default", "default", "first", "second", "last")
	if !g.chance(4) {
		spec["order"] = []float64{1, 2, 1000, 3000}[g.IntN(4)]
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "spec": spec}}
	if g.chance(3) {
		u.SetKind("NetworkPolicy")
		u.SetNamespace(g.oneOf(namespace, namespace, "x"))
	} else if g.chance(3) {
		spec["namespaceSelector"] = g.selector("pcns:")
	}
	u.SetName(name)
	return u
}

func newRandomWorld(seed uint64) *calicoWorld {
	w := &calicoWorld{selectors: map[string]func(labelSet) bool{}, tiers: map[string]Tier{
		"first": {Name: "first", Order: 10}, "second": {Name: "second", Order: 20, DefaultPass: true}, "default": {Name: "default", Order: 1e6}, "last": {Name: "last", Order: 2e6},
	}}
	g := randomWorld{rand.New(rand.NewPCG(seed, 21)), w}
	world := smallWorld()
	for i, p := range []seen{world[8], world[2], world[9], world[25], world[40]} {
		w.pods = append(w.pods, calicoPod{seen: p, ip: fmt.Sprintf("10.0.0.%d", 1+i)})
	}
	for _, ip := range []string{"10.0.0.200", "192.0.2.1", "2001:db8::1"} {
		w.pods = append(w.pods, calicoPod{ip: ip, host: true})
	}
	for range g.IntN(3) {
		labels := labelSet{}
		maps.Copy(labels, map[string]labelSet{"0": {"a": "x"}, "1": {"b": "x", "projectcalico.org/namespace": "shop", "pcns.projectcalico.org/name": "shop", "pcns.a": "x"}, "2": {}}[fmt.Sprint(g.IntN(3))])
		w.sets = append(w.sets, networkSet{labels: labels, cidrs: []string{g.oneOf(someNets...)}})
	}
	for i := range 1 + g.IntN(4) {
		w.objects = append(w.objects, g.object(fmt.Sprint("p", i)))
	}
	if g.chance(2) {
		p := newPolicy("np", typed(ingress(everything(), peers(podsPeer(labelled("a", "x")), blockPeer("10.0.0.0/30")), port(tcp, 80)), typeIngress, typeEgress))
		if g.chance(2) {
			p.Spec.Egress = egress(everything(), peers(namespacesPeer(everything()))).Egress
		}
		w.allow = append(w.allow, p)
	}
	w.backwards = g.chance(2)
	return w
}

func (w *calicoWorld) flows() []flow {
	var out []flow
	for _, d := range Directions() {
		for _, peer := range w.pods[1:] {
			for _, at := range []struct {
				protocol corev1.Protocol
				port     int
			}{{tcp, 80}, {tcp, 81}, {tcp, 9090}, {udp, 80}, {sctp, 443}} {
				out = append(out, flow{direction: d, peer: peer, protocol: at.protocol, port: at.port})
			}
		}
	}
	return out
}

func (w *calicoWorld) String() string {
	var lines []string
	for _, u := range w.objects {
		lines = append(lines, fmt.Sprint(u.Object))
	}
	for _, p := range w.allow {
		lines = append(lines, fmt.Sprint(p.Spec))
	}
	return strings.Join(append(lines, fmt.Sprint(w.sets)), "\n")
}

// Whatever Calico lets through, with network sets that nobody told of, the evaluation counts as allowed; and what it calls certain is let through.
func TestRandomCalicoWorlds(t *testing.T) {
	const worlds = 4000
	open, closed, certain := 0, 0, 0
	for seed := range uint64(worlds) {
		w := newRandomWorld(seed)
		set := NewSet()
		set.SetProven("projectcalico.org", true)
		for _, at := range w.tiers {
			set.PutTier(at)
		}
		for _, u := range w.objects {
			set.Put(readCalico(u))
		}
		for _, p := range w.allow {
			set.Put(ReadNetworkPolicy(p))
		}
		for _, p := range w.pods {
			if !p.host {
				set.PutNamespace(p.calico["projectcalico.org/namespace"], p.namespace)
			}
		}
		me := w.pods[0]
		pod := victim()
		pod.Namespace, pod.Labels, pod.Spec.ServiceAccountName = me.calico["projectcalico.org/namespace"], me.labels, me.account
		may, sure := map[Direction]flows{}, map[Direction]flows{}
		for _, d := range Directions() {
			may[d], sure[d] = Reachable(pod, set, d).flows, certainly(pod, set, d).flows
		}
		for _, f := range w.flows() {
			allowed, known, surely := w.allowed(f), holdsFlow(may[f.direction], f), holdsFlow(sure[f.direction], f)
			switch {
			case allowed && !known:
				t.Fatalf("seed %d: %s %v %s/%d gets through, and the evaluation says that it does not:\n%v", seed, f.direction, f.peer.ip, f.protocol, f.port, w)
			case surely && !allowed:
				t.Fatalf("seed %d: %s %v %s/%d does not get through, and the evaluation is certain that it does:\n%v", seed, f.direction, f.peer.ip, f.protocol, f.port, w)
			case !known:
				closed++
			case surely:
				certain++
			}
			if allowed {
				open++
			}
		}
	}
	t.Logf("%d flows got through, %d were certain to; %d were proven closed", open, certain, closed)
	if total := worlds * 70; closed < total/5 || certain < total/20 || open < total/5 {
		t.Errorf("of %d flows %d got through, %d were certain to, %d were proven closed: the test proves little", total, open, certain, closed)
	}
}
