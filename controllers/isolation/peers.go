package isolation

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// parsedPeer is one element of a rule's from or to list.
type parsedPeer struct {
	box    box
	reason string // why nobody knows whom it matches; the box then holds everybody
}

// parsePeers reads a rule's from or to list. An empty list matches everybody. Peers that match nobody, whatever happens, are left out.
func parsePeers(namespace string, list []networkingv1.NetworkPolicyPeer) []parsedPeer {
	if len(list) == 0 {
		return []parsedPeer{{box: anyBox()}}
	}
	peers := make([]parsedPeer, 0, len(list))
	for _, p := range list {
		if parsed := parsePeer(namespace, p); !parsed.box.empty() {
			peers = append(peers, parsed)
		}
	}
	return peers
}

// parsePeer reads a peer of a policy in the namespace. The box of one that can match nobody is empty.
func parsePeer(namespace string, in networkingv1.NetworkPolicyPeer) parsedPeer {
	selects := in.PodSelector != nil || in.NamespaceSelector != nil
	switch {
	case selects && in.IPBlock != nil:
		return unreadable(ReasonInvalidPeer, "a peer with both ipBlock and selectors")
	case selects:
		c, text, ok, err := parsePods(namespace, in.NamespaceSelector, in.PodSelector)
		if err != nil {
			return unreadable(ReasonInvalidSelector, text)
		}
		if !ok {
			return parsedPeer{}
		}
		return parsedPeer{box: podPeers(c, text)}
	case in.IPBlock == nil:
		return unreadable(ReasonInvalidPeer, "a peer without ipBlock and selectors")
	}
	addrs, text, err := parseBlock(*in.IPBlock)
	if err != nil {
		return unreadable(ReasonInvalidCIDR, fmt.Sprintf("CIDR %q except %q", in.IPBlock.CIDR, in.IPBlock.Except))
	}
	return parsedPeer{box: blockPeers(addrs, text)}
}

// parsePods reads the two selectors of a peer. Without a namespaceSelector the peer is in the given namespace; without a podSelector it is any pod. ok is false when no pod can ever
// match. With an error, the text says which selector cannot be read.
func parsePods(namespace string, namespaces, pods *metav1.LabelSelector) (c constraint, text string, ok bool, err error) {
	possible := true
	if namespaces == nil {
		c, _ = c.and(inNamespace(namespace))
	} else if c, possible, err = parseSelector(ofNamespace, namespaces); err != nil {
		return nil, "namespaces with an invalid selector", false, err
	}
	var podLabels constraint
	if pods != nil {
		var some bool
		if podLabels, some, err = parseSelector(ofPod, pods); err != nil {
			return nil, "pods with an invalid selector", false, err
		}
		possible = possible && some
	}
	if !possible {
		return nil, "", false, nil
	}
	c, ok = c.and(podLabels...)
	text = describePods(c)
	if namespaces == nil {
		text = describeOnlyPods(c) + " in this namespace"
	}
	return c, text, ok, nil
}

func unreadable(reason, text string) parsedPeer {
	b := anyBox()
	b.text = text
	return parsedPeer{box: b, reason: reason}
}
