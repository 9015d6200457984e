package isolation

import (
	"cmp"
	"fmt"
	"strings"
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
	// Source is the policy that allows the flows, in the state that was evaluated. It is empty if they are allowed because no policy restricts the direction.
	Source Ref
	// Rule is the index into the policy's list of rules for the direction, or -1 if no single rule is the cause.
	Rule int
	// List is the name of that list if it is not the one that goes by the name of the direction.
	List string
	// Peer describes the other end: "any peer", "pods app=web in this namespace", "namespaces team=a / pods app=b",
	// "CIDR 10.0.0.0/8 except 10.1.0.0/16". At most 256 characters.
	Peer string
	// Ports describes the destination ports: "all ports", "TCP/8080 (http), UDP/1-65535". At most 256 characters.
	Ports string
	// Reason is one of the Reason constants.
	Reason string
	// State is [StateActive] or [StateLatent].
	State string
	// Undecided says why it is not certain that the flows are allowed. Empty for a certain leak. At most 256 characters.
	Undecided string
}

// String says in a sentence what is allowed, by what, and what closes it.
func (l Leak) String() string {
	flows := l.Flows()
	switch {
	case l.Undecided != "" && l.Source.Name == "":
		return fmt.Sprintf("%s may be allowed: %s", flows, l.Undecided)
	case l.Undecided != "":
		return fmt.Sprintf("%s may be allowed by %s: %s", flows, l.where(), l.Undecided)
	case l.Source.Name == "":
		return fmt.Sprintf("%s is allowed because no NetworkPolicy selects the pod for %s: add one that does", flows, l.Direction)
	case l.Rule == noRule:
		return fmt.Sprintf("%s may be allowed by %s (%s): correct its podSelector", flows, l.Source, l.Reason)
	case l.Reason != ReasonAllowRule:
		return fmt.Sprintf("%s may be allowed by %s (%s): correct the rule, or keep its podSelector off the pod", flows, l.where(), l.Reason)
	}
	return fmt.Sprintf("%s is allowed by %s: remove the rule, or keep its podSelector off the pod", flows, l.where())
}

// Flows says what is allowed: "ingress from any peer on TCP/80".
func (l Leak) Flows() string {
	preposition := "from"
	if l.Direction == DirectionEgress {
		preposition = "to"
	}
	text := fmt.Sprintf("%s %s %s on %s", strings.ToLower(string(l.Direction)), preposition, l.Peer, l.Ports)
	if l.State == StateLatent {
		text += " (nobody matches now)"
	}
	return text
}

// where names the rule.
func (l Leak) where() string {
	if l.Rule == noRule {
		return l.Source.String()
	}
	list := ""
	if l.List != "" {
		list = l.List + " "
	}
	return fmt.Sprintf("%srule %d of %s", list, l.Rule, l.Source)
}

func compareLeaks(a, b Leak) int {
	return cmp.Or(
		cmp.Compare(a.Direction, b.Direction),
		// What is certain comes first, and of that what can be used now.
		cmp.Compare(a.Undecided, b.Undecided),
		cmp.Compare(a.State, b.State),
		a.Source.compare(b.Source),
		cmp.Compare(a.List, b.List),
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
