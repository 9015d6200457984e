package isolation

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// peerKind says which of the other fields of a peer count.
type peerKind int

const (
	// peerUnreadable is a peer of which nobody knows whom it matches.
	peerUnreadable peerKind = iota
	// peerAny is what a rule without peers matches: everybody.
	peerAny
	// peerPods is a set of pods, given by selectors.
	peerPods
	// peerBlock is a set of addresses.
	peerBlock
)

// peer is one set of peers that a rule names.
type peer struct {
	kind       peerKind
	namespaces *selector // nil: the policy's own namespace
	pods       selector
	addrs      addresses
	text       string // what people are told
	reason     string // why it is unreadable
}

// parsePeers reads a rule's from or to list. An empty list matches everybody.
func parsePeers(list []networkingv1.NetworkPolicyPeer) []peer {
	if len(list) == 0 {
		return []peer{anyPeer()}
	}
	peers := make([]peer, 0, len(list))
	for _, p := range list {
		peers = append(peers, parsePeer(p))
	}
	return peers
}

// parsePeer reads an element of a rule's from or to list.
func parsePeer(in networkingv1.NetworkPolicyPeer) peer {
	selects := in.PodSelector != nil || in.NamespaceSelector != nil
	switch {
	case selects && in.IPBlock != nil:
		return unreadable(ReasonInvalidPeer, "a peer with both ipBlock and selectors")
	case selects:
		return parsePodPeer(in)
	case in.IPBlock == nil:
		return unreadable(ReasonInvalidPeer, "a peer without ipBlock and selectors")
	}
	addrs, text, err := parseBlock(*in.IPBlock)
	if err != nil {
		return unreadable(ReasonInvalidCIDR, fmt.Sprintf("CIDR %q except %q", in.IPBlock.CIDR, in.IPBlock.Except))
	}
	return peer{kind: peerBlock, addrs: addrs, text: text}
}

func parsePodPeer(in networkingv1.NetworkPolicyPeer) peer {
	p := peer{kind: peerPods}
	if in.PodSelector != nil {
		pods, err := parseSelector(in.PodSelector)
		if err != nil {
			return unreadable(ReasonInvalidSelector, "pods with an invalid selector")
		}
		p.pods = pods
	}
	if in.NamespaceSelector != nil {
		namespaces, err := parseSelector(in.NamespaceSelector)
		if err != nil {
			return unreadable(ReasonInvalidSelector, "namespaces with an invalid selector")
		}
		p.namespaces = &namespaces
	}
	p.text = describePods(p)
	return p
}

func unreadable(reason, text string) peer {
	return peer{kind: peerUnreadable, reason: reason, text: text}
}

func anyPeer() peer {
	return peer{kind: peerAny, text: textAnyPeer}
}

func describePods(p peer) string {
	pods := "all pods"
	if len(p.pods) > 0 {
		pods = "pods " + p.pods.String()
	}
	switch {
	case p.namespaces == nil:
		return pods + " in this namespace"
	case len(*p.namespaces) == 0:
		return "all namespaces / " + pods
	}
	return "namespaces " + p.namespaces.String() + " / " + pods
}

// selectsAllOf says whether p selects at least the pods that other selects. It compares selectors, not pods, so no is not
// a proof that it does not.
func (p peer) selectsAllOf(other peer) bool {
	if p.kind != peerPods || other.kind != peerPods || !p.pods.includes(other.pods) {
		return false
	}
	switch {
	case p.namespaces == nil:
		return other.namespaces == nil
	case other.namespaces == nil:
		return len(*p.namespaces) == 0
	}
	return p.namespaces.includes(*other.namespaces)
}

// selector is a label selector in canonical form: its requirements, all of which have to hold, each once and sorted.
// Equal selectors that are written differently (matchLabels or In with one value, any order) have the same form.
type selector []string

func parseSelector(in *metav1.LabelSelector) (selector, error) {
	parsed, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		return nil, err
	}
	requirements, _ := parsed.Requirements() // only a nil selector, which selects nothing, has none to give
	out := make(selector, 0, len(requirements))
	for _, r := range requirements {
		op, values := r.Operator(), slices.Sorted(slices.Values(r.ValuesUnsorted()))
		values = slices.Compact(values)
		if op == selection.In && len(values) == 1 {
			op = selection.Equals
		}
		canonical, err := labels.NewRequirement(r.Key(), op, values)
		if err != nil {
			return nil, err
		}
		out = append(out, canonical.String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// includes says whether everything that other matches is matched by s too, which is certain if s requires nothing that other
// does not require as well.
func (s selector) includes(other selector) bool {
	for _, requirement := range s {
		if _, found := slices.BinarySearch(other, requirement); !found {
			return false
		}
	}
	return true
}

// String joins the requirements.
func (s selector) String() string { return strings.Join(s, ",") }
