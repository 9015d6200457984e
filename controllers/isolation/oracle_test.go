package isolation

import (
	"cmp"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The oracle answers the same question as Evaluate, one probe at a time and in the most obvious way. It shares no code with the package.

// remote is the other end of a probe: a pod, or without labels a node or somebody outside of the cluster.
type remote struct {
	node            bool
	namespace       string
	namespaceLabels labelSet
	labels          labelSet
	ip              string
	ports           []corev1.ContainerPort
}

func (r remote) isPod() bool { return r.labels != nil }

// probe is one point of the space that Evaluate describes by sets.
type probe struct {
	direction Direction
	remote    remote
	protocol  corev1.Protocol
	port      int32
}

// layer is a policy of a kind that has tiers: those of the Network Policy API, and others like them.
type layer struct {
	kind, name string
	// order places its tier, priority itself within the tier; the lower one comes first.
	order, priority int
	// unknownOrder says that nobody knows the place of its tier.
	unknownOrder bool
	// unreported says that it may, or may not, be in effect; undecided that nobody knows whether it applies to those that it seems to select.
	unreported, undecided bool
	// isolates says that the end of the tier denies.
	isolates bool
	// namespaces and pods are its subject.
	namespaces, pods metav1.LabelSelector
	// rules are what it says about a direction; a direction that is not there is none of its business.
	rules map[Direction][]layerRule
}

// layerRule is a rule of a layer. Without peers it is about everybody, without ports about all of them.
type layerRule struct {
	action action
	peers  []npPeer
	ports  []npPort
	// undecided says that it may match less than it says.
	undecided bool
}

// oracle knows what the API leaves to the implementation, and what the objects do not tell.
type oracle struct {
	pod             *corev1.Pod
	namespaceLabels labelSet
	// blocksMatchPods says whether an ipBlock matches the addresses of pods. It does on most network plugins, and does not on Cilium.
	blocksMatchPods bool
	policies        []*policy
	layers          []layer
	exceptions      []Exception

	blocks map[string]*net.IPNet // parsed before
}

// answer says how a probe can end. It is undefined where it can end in both ways: that depends on what only the implementation knows.
type answer struct{ allowed, denied bool }

// fate is a set of the things that a policy can do with a probe.
type fate uint8

const (
	leavesIt fate = 1 << iota
	acceptsIt
	deniesIt
	passesIt
)

// opinion is what one policy has to say about one probe.
type opinion struct {
	name            string
	order, priority int
	fate            fate
	isolates        bool
	// optional says that it may not be in effect.
	optional bool
	// anywhere says that its order is not known.
	anywhere bool
}

// placesOfTiers are places before, between and after all tiers that have a known place.
func placesOfTiers() []int { return []int{0, 500, 500_000, 1_500_000, 5_000_000, 50_000_000} }

// ask says how the probe ends, whatever is left open.
func (o *oracle) ask(f probe) answer {
	var total answer
	for _, opinions := range worlds(o.opinions(f)) {
		a := settle(opinions)
		total.allowed, total.denied = total.allowed || a.allowed, total.denied || a.denied
	}
	return total
}

// allowed says whether NetworkPolicies alone let the probe through.
func (o oracle) allowed(policies []*policy, f probe) bool {
	o.policies = policies
	return o.ask(f).allowed
}

// worlds are all ways to fill in what is not known.
func worlds(opinions []opinion) [][]opinion {
	if !slices.ContainsFunc(opinions, func(op opinion) bool { return op.optional || op.anywhere }) {
		return [][]opinion{opinions}
	}
	out := [][]opinion{nil}
	for _, op := range opinions {
		var next [][]opinion
		for _, world := range out {
			if op.optional {
				next = append(next, world)
			}
			for _, place := range op.places() {
				next = append(next, append(slices.Clone(world), place))
			}
		}
		out = next
	}
	return out
}

func (op opinion) places() []opinion {
	if !op.anywhere {
		return []opinion{op}
	}
	var out []opinion
	for _, order := range placesOfTiers() {
		op.order = order
		out = append(out, op)
	}
	return out
}

// settle goes through tiers and priorities. Policies of the same priority come in any order.
func settle(opinions []opinion) answer {
	slices.SortStableFunc(opinions, func(a, b opinion) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.priority, b.priority))
	})
	var end answer
	for len(opinions) > 0 {
		n := 1
		for n < len(opinions) && opinions[n].order == opinions[0].order {
			n++
		}
		of := settleTier(opinions[:n])
		end.allowed, end.denied = end.allowed || of&acceptsIt != 0, end.denied || of&deniesIt != 0
		if of&passesIt == 0 {
			return end
		}
		opinions = opinions[n:]
	}
	end.allowed = true
	return end
}

// settleTier says what a tier can do with a probe. What nobody in it decides goes on, or is denied if somebody isolates.
func settleTier(tier []opinion) fate {
	isolates := slices.ContainsFunc(tier, func(op opinion) bool { return op.isolates })
	var all fate
	for len(tier) > 0 {
		n, undecided := 0, true
		for n < len(tier) && tier[n].priority == tier[0].priority {
			all |= tier[n].fate &^ leavesIt
			undecided = undecided && tier[n].fate&leavesIt != 0
			n++
		}
		if !undecided {
			return all
		}
		tier = tier[n:]
	}
	if isolates {
		return all | deniesIt
	}
	return all | passesIt
}

// opinions asks everyone who selects the pod in the probe's direction.
func (o *oracle) opinions(f probe) []opinion {
	var out []opinion
	for _, p := range o.policies {
		if op, selects := o.askPolicy(p, f); selects {
			out = append(out, op)
		}
	}
	for _, l := range o.layers {
		rules, concerned := l.rules[f.direction]
		if !concerned || !matches(&l.namespaces, o.namespaceLabels) || !matches(&l.pods, o.pod.Labels) {
			continue
		}
		out = append(out, opinion{
			name: l.name, order: l.order, priority: l.priority, isolates: l.isolates && l.order != orderPassing, optional: l.unreported || l.undecided, anywhere: l.unknownOrder,
			fate: o.fateBy(rules, f),
		})
	}
	return out
}

// fateBy follows rules of which the first match decides.
func (o *oracle) fateBy(rules []layerRule, f probe) fate {
	var possible fate
	for _, r := range rules {
		if !o.peersMatch(r.peers, f) || !o.portsMatch(r.ports, f) {
			continue
		}
		switch r.action {
		case accept:
			possible |= acceptsIt
		case deny:
			possible |= deniesIt
		case pass:
			possible |= passesIt
		}
		if !r.undecided {
			return possible
		}
	}
	return possible | leavesIt
}

// askPolicy asks a NetworkPolicy. All of them have one place in the default tier, which they share with nobody but kinds that have a priority in it.
func (o *oracle) askPolicy(p *policy, f probe) (opinion, bool) {
	if p.Namespace != o.pod.Namespace || !matches(&p.Spec.PodSelector, o.pod.Labels) {
		return opinion{}, false
	}
	types := p.Spec.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{typeIngress}
		if len(p.Spec.Egress) > 0 {
			types = append(types, typeEgress)
		}
	}
	if !slices.Contains(types, networkingv1.PolicyType(f.direction)) {
		return opinion{}, false
	}
	op := opinion{name: p.Name, order: 1_000_000, priority: 1_000, isolates: true, fate: leavesIt}
	if f.direction == DirectionIngress {
		for _, r := range p.Spec.Ingress {
			if o.peersMatch(r.From, f) && o.portsMatch(r.Ports, f) {
				op.fate = acceptsIt
			}
		}
		return op, true
	}
	for _, r := range p.Spec.Egress {
		if o.peersMatch(r.To, f) && o.portsMatch(r.Ports, f) {
			op.fate = acceptsIt
		}
	}
	return op, true
}

// excused says whether an exception declares the probe.
func (o *oracle) excused(f probe) bool {
	return slices.ContainsFunc(o.exceptions, func(e Exception) bool { return o.declares(e, f) })
}

// excusedByAddress leaves out exceptions that name pods by their labels.
func (o *oracle) excusedByAddress(f probe) bool {
	return slices.ContainsFunc(o.exceptions, func(e Exception) bool { return e.Peer.IPBlock != nil && o.declares(e, f) })
}

func (o *oracle) declares(e Exception, f probe) bool {
	return e.Direction == f.direction && o.peerMatches(e.Peer, f) && o.portsMatch(e.Ports, f)
}

func (o *oracle) peersMatch(list []npPeer, f probe) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(p npPeer) bool { return o.peerMatches(p, f) })
}

func (o *oracle) peerMatches(p npPeer, f probe) bool {
	if p.IPBlock != nil {
		if f.remote.isPod() && !o.blocksMatchPods || !o.contains(p.IPBlock.CIDR, f.remote.ip) {
			return false
		}
		return !slices.ContainsFunc(p.IPBlock.Except, func(e string) bool { return o.contains(e, f.remote.ip) })
	}
	if !f.remote.isPod() {
		return false
	}
	if p.NamespaceSelector == nil && f.remote.namespace != o.pod.Namespace {
		return false
	}
	if p.NamespaceSelector != nil && !matches(p.NamespaceSelector, f.remote.namespaceLabels) {
		return false
	}
	return p.PodSelector == nil || matches(p.PodSelector, f.remote.labels)
}

func (o *oracle) contains(cidr, ip string) bool {
	block, known := o.blocks[cidr]
	if !known {
		_, block, _ = net.ParseCIDR(cidr)
		if o.blocks == nil {
			o.blocks = map[string]*net.IPNet{}
		}
		o.blocks[cidr] = block
	}
	return block != nil && block.Contains(net.ParseIP(ip))
}

func contains(cidr, ip string) bool { return new(oracle{}).contains(cidr, ip) }

func (o *oracle) portsMatch(list []npPort, f probe) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(p npPort) bool { return o.portMatches(p, f) })
}

func (o *oracle) portMatches(p npPort, f probe) bool {
	protocol := tcp
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	switch {
	case protocol != f.protocol:
		return false
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return o.nameMatches(p.Port.StrVal, f)
	case p.EndPort != nil:
		return p.Port.IntVal <= f.port && f.port <= *p.EndPort
	}
	return p.Port.IntVal == f.port
}

func (o *oracle) nameMatches(name string, f probe) bool {
	ports := f.remote.ports
	if f.direction == DirectionIngress {
		ports = nil
		for _, c := range append(slices.Clone(o.pod.Spec.Containers), o.pod.Spec.InitContainers...) {
			ports = append(ports, c.Ports...)
		}
	}
	return slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool {
		return p.Name == name && p.Protocol == f.protocol && p.ContainerPort == f.port
	})
}

func matches(s *metav1.LabelSelector, labels labelSet) bool {
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		got, ok := labels[e.Key]
		var holds bool
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			holds = ok && slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpNotIn:
			holds = !ok || !slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpExists:
			holds = ok
		case metav1.LabelSelectorOpDoesNotExist:
			holds = !ok
		}
		if !holds {
			return false
		}
	}
	return true
}
