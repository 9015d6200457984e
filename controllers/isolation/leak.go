package isolation

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Reasons of a leak.
const (
	// ReasonNotSelected means that no policy restricts the pod in this direction, so everything is allowed.
	ReasonNotSelected = "NotSelected"
	// ReasonAllowRule means that a rule allows more than the exceptions do.
	ReasonAllowRule = "AllowRule"
	// ReasonInvalidSelector means that a label selector cannot be read, so that it is unknown whom the policy or the rule matches.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonInvalidCIDR means that an address block cannot be read.
	ReasonInvalidCIDR = "InvalidCIDR"
	// ReasonInvalidPeer means that a peer has no selector and no address block, or both.
	ReasonInvalidPeer = "InvalidPeer"
	// ReasonInvalidPort means that the ports of a rule cannot be read; it counts as allowing all.
	ReasonInvalidPort = "InvalidPort"
)

const (
	// noRule is the index of a leak that no rule causes.
	noRule = -1
	// maxText bounds the length of texts made from policies, in characters.
	maxText = 256

	textAnyPeer = "any peer"
)

// Leak is one set of flows that is still allowed though no exception declares it. It is comparable.
type Leak struct {
	// Direction is seen from the isolated pod.
	Direction Direction
	// Policy allows the flows. It is empty if they are allowed because no policy restricts the direction.
	Policy types.NamespacedName
	// PolicyUID and PolicyGeneration say which state of the policy was evaluated.
	PolicyUID        types.UID
	PolicyGeneration int64
	// Rule is the index into spec.ingress or spec.egress of the policy, or -1 if no single rule is the cause.
	Rule int
	// Peer describes the other end: "any peer", "pods app=web in this namespace", "namespaces team=a / pods app=b",
	// "CIDR 10.0.0.0/8 except 10.1.0.0/16". At most 256 characters.
	Peer string
	// Ports describes the destination ports: "all ports", "TCP/8080 (http), UDP/1-65535". At most 256 characters.
	Ports string
	// Reason is one of the Reason constants.
	Reason string
}

// String says in a sentence what is allowed, by what, and what closes it.
func (l Leak) String() string {
	preposition := "from"
	if l.Direction == DirectionEgress {
		preposition = "to"
	}
	flows := fmt.Sprintf("%s %s %s on %s", strings.ToLower(string(l.Direction)), preposition, l.Peer, l.Ports)
	switch {
	case l.Policy.Name == "":
		return fmt.Sprintf("%s is allowed because no NetworkPolicy selects the pod for %s: add one that does", flows, l.Direction)
	case l.Rule == noRule:
		return fmt.Sprintf("%s may be allowed by NetworkPolicy %s (%s): correct its podSelector", flows, l.Policy, l.Reason)
	case l.Reason != ReasonAllowRule:
		return fmt.Sprintf("%s may be allowed by rule %d of NetworkPolicy %s (%s): correct the rule, or keep its podSelector off the pod",
			flows, l.Rule, l.Policy, l.Reason)
	}
	return fmt.Sprintf("%s is allowed by rule %d of NetworkPolicy %s: remove the rule, or keep its podSelector off the pod",
		flows, l.Rule, l.Policy)
}

func compareLeaks(a, b Leak) int {
	return cmp.Or(
		cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Policy.Namespace, b.Policy.Namespace),
		cmp.Compare(a.Policy.Name, b.Policy.Name),
		cmp.Compare(a.PolicyUID, b.PolicyUID),
		cmp.Compare(a.PolicyGeneration, b.PolicyGeneration),
		cmp.Compare(a.Rule, b.Rule),
		cmp.Compare(a.Peer, b.Peer),
		cmp.Compare(a.Ports, b.Ports),
		cmp.Compare(a.Reason, b.Reason),
	)
}

// clip shortens a text that is made from policies, which anybody may fill.
func clip(text string) string {
	runes := []rune(text)
	if len(runes) <= maxText {
		return text
	}
	return string(runes[:maxText-1]) + "…"
}
