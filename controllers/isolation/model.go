package isolation

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Ref names the object that a policy was read from, and the state of it.
type Ref struct {
	// Kind is the kind, and Group the API group, of the object.
	Group, Kind string
	// Namespace is empty for cluster-scoped kinds.
	Namespace, Name string
	UID             types.UID
	Generation      int64
}

// String names the object for people: "NetworkPolicy shop/allow-web", "ClusterNetworkPolicy guardrails".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return fmt.Sprintf("%s %s/%s", r.Kind, r.Namespace, r.Name)
}

func (r Ref) compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Group, o.Group), cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Namespace, o.Namespace), cmp.Compare(r.Name, o.Name),
		cmp.Compare(r.UID, o.UID), cmp.Compare(r.Generation, o.Generation))
}

// key identifies the object whatever its state.
func (r Ref) key() Ref {
	return Ref{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}

// Policy is an object of any of the kinds that the package reads, ready to be evaluated. It never changes. What could not be read, or has no meaning that can be decided, is in it
// too: it allows what it may allow and denies nothing.
type Policy struct {
	// Ref says where it came from.
	Ref Ref
	// subject says to whom the policy applies.
	subject subject
	// ingress and egress are what it says about a direction; a policy can have its say in several tiers.
	ingress, egress []*section
	// reported says that an implementation has reported, in the object's status, that it has put this generation into effect. Of kinds that have no such report, or none yet,
	// nothing is known: what they deny is not counted. notReported says what is missing.
	reported    bool
	notReported string
	// refused says that the object's status speaks against it, or that an implementation may refuse it: then it is not in effect even if its API group has proven itself.
	refused bool
}

// subject is a set of pods, as the union of its parts.
type subject struct {
	parts []constraint
	// invalid says that the selector cannot be read; undecided names the field whose meaning cannot be decided. In both cases the policy may apply to every pod of its namespace; if
	// there are parts beside undecided, then to no pod but those.
	invalid, undecided string
}

// Tier is a tier that an object of the cluster defines.
type Tier struct {
	// Name is the name that policies refer to it by.
	Name string
	// Order sorts it among the other tiers; lower ones come first.
	Order float64
	// DefaultPass says that what no policy of the tier decides goes on to the next tier, instead of being denied.
	DefaultPass bool
}

// action is what a rule does to the flows that it matches.
type action int

const (
	// accept lets a flow through and ends the evaluation.
	accept action = iota
	// deny drops a flow and ends the evaluation.
	deny
	// pass leaves a flow to the next tier.
	pass
)

// section is what a policy says about one direction.
type section struct {
	// tier says when the section is evaluated.
	tier tier
	// isolates says that, in the section's tier, what no rule accepts is denied.
	isolates bool
	// additive says that every rule counts on its own, in whatever order; otherwise the first match decides.
	additive bool
	rules    []rule
	// subject is set if the section does not apply to all of the policy's subject.
	subject *subject
}

// tier is a place in the order of evaluation.
type tier struct {
	// name is empty for the well-known tiers; otherwise it is the name of a Tier object, which has to be looked up for its order.
	name string
	// order sorts the tiers, priority the sections within a tier; lower ones come first. Sections with the same priority come in no defined order.
	order, priority float64
}

// The well-known tiers. The numbers are those of Calico, which is the only implementation that has other tiers in between; the order of the three is that of
// the Network Policy API (NPEP-137 and KEP-2091).
const (
	orderAdmin    = 1_000
	orderDeny     = 999_999
	orderDefault  = 1_000_000
	orderBaseline = 10_000_000

	// priorityNetworkPolicy is the place of NetworkPolicies within the default tier.
	priorityNetworkPolicy = 1_000
)

// rule is one rule of a section.
type rule struct {
	// index is the rule's place in its list, counted from 0, or noRule; list names the list where the kind has several, such as "egressDeny".
	index  int
	list   string
	action action
	// peers are the other ends; the ports of the boxes are not looked at.
	peers []box
	ports ports
	// reason is one of the Reason constants; empty for ReasonAllowRule.
	reason string
	// undecided names the field whose meaning cannot be decided, and why. The rule may then match less than it says.
	undecided string
	// inexact says that the rule is in force, but for fewer peers than it says, because their addresses are not known. It proves nothing of any one of them.
	inexact bool
}

// ports are the ports of a rule: a set, or something that depends on the pod.
type ports struct {
	set portSet
	// resolve is used instead of set when it is not nil.
	resolve func(*corev1.Pod) (portSet, error)
}

func (p ports) of(pod *corev1.Pod) (portSet, error) {
	if p.resolve == nil {
		return p.set, nil
	}
	return p.resolve(pod)
}

// allPorts are all ports of all protocols.
func allPorts() ports { return ports{set: everyPort()} }

// The ends that rules name.

// anyPeers is everybody.
func anyPeers() []box { return []box{anyBox()} }

// podPeers are the pods that a constraint holds.
func podPeers(c constraint, text string) box {
	return box{sorts: anyPod, labels: c, addrs: everyAddress, ports: everyPort(), text: text}
}

// blockPeers are those who have one of the addresses.
func blockPeers(set addresses, text string) box {
	return box{sorts: byAddress, addrs: set, ports: everyPort(), text: text}
}

// outsidePeers are ends that are not pods and whose addresses are not known, such as nodes or domain names.
func outsidePeers(text string) box {
	return box{sorts: noPods, addrs: everyAddress, ports: everyPort(), text: text}
}
