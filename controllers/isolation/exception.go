package isolation

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Exception is a flow that the standing orders declare as allowed, for example for an evidence collector.
type Exception struct {
	// Name is for people; it takes no part in the evaluation.
	Name string
	// Direction is seen from the isolated pod.
	Direction Direction
	// Peer is the other end. As in a NetworkPolicy, a podSelector alone means the isolated pod's own namespace.
	Peer networkingv1.NetworkPolicyPeer
	// Ports means what it means in a NetworkPolicy, so an empty list is all ports. Whoever finds that too generous has to
	// refuse it before it gets here.
	Ports []networkingv1.NetworkPolicyPort
}

// Validate says why the exception has no meaning. [DenySpec] and [Evaluate] pass over such an exception: nothing is allowed
// in its name, and nothing is excused.
func (e Exception) Validate() error {
	if e.Direction != DirectionIngress && e.Direction != DirectionEgress {
		return fmt.Errorf("exception %q: direction %q is neither %s nor %s", e.Name, e.Direction, DirectionIngress, DirectionEgress)
	}
	if p := parsePeer(e.Peer); p.kind == peerUnreadable {
		return fmt.Errorf("exception %q: %s: %s", e.Name, p.reason, p.text)
	}
	if _, err := parsePorts(&corev1.Pod{}, e.Direction, e.Ports); err != nil {
		return fmt.Errorf("exception %q: %w", e.Name, err)
	}
	return nil
}

// traffic is a set of flows in one direction: every peer combined with every port.
type traffic struct {
	peer  peer
	ports portSet
}

// declared returns the flows that the exceptions allow to pod in direction d. An unreadable peer stands for no flow.
func declared(pod *corev1.Pod, d Direction, exceptions []Exception) []traffic {
	var out []traffic
	for _, e := range exceptions {
		if e.Direction != d {
			continue
		}
		ports, err := parsePorts(pod, d, e.Ports)
		if p := parsePeer(e.Peer); err == nil && p.kind != peerUnreadable {
			out = append(out, traffic{peer: p, ports: ports})
		}
	}
	return out
}

// without returns what is left of t after the exceptions have been taken away, one element for each set of ports.
func (t traffic) without(exceptions []traffic) []traffic {
	rest := nonEmpty(t)
	for _, e := range exceptions {
		var next []traffic
		for _, r := range rest {
			next = append(next, r.minus(e)...)
		}
		rest = next
	}
	return t.merge(rest)
}

// minus takes one exception away. Pods are never taken away by address nor addresses by selector, since it depends on the
// implementation whether an ipBlock matches pods.
func (t traffic) minus(e traffic) []traffic {
	if t.peer.kind != peerBlock || e.peer.kind != peerBlock {
		if e.peer.selectsAllOf(t.peer) {
			t.ports = t.ports.minus(e.ports)
		}
		return nonEmpty(t)
	}
	outside, inside := t, t
	outside.peer.addrs = t.peer.addrs.minus(e.peer.addrs)
	inside.peer.addrs = t.peer.addrs.intersect(e.peer.addrs)
	inside.ports = t.ports.minus(e.ports)
	return append(nonEmpty(outside), nonEmpty(inside)...)
}

// merge joins those parts of t that have the same ports, so that it does not show in which order the parts came about.
func (t traffic) merge(parts []traffic) []traffic {
	var out []traffic
	seen := map[string]int{}
	for _, part := range parts {
		key := part.ports.String()
		i, found := seen[key]
		if !found {
			seen[key] = len(out)
			out = append(out, part)
			continue
		}
		out[i].peer.addrs = union(slices.Concat(out[i].peer.addrs, part.peer.addrs)...)
	}
	for i := range out {
		if !out[i].peer.addrs.equal(t.peer.addrs) {
			out[i].peer.text = describeAddresses(out[i].peer.addrs)
		}
	}
	return out
}

// nonEmpty returns t unless it holds no flow.
func nonEmpty(t traffic) []traffic {
	if t.ports.empty() || t.peer.kind == peerBlock && len(t.peer.addrs) == 0 {
		return nil
	}
	return []traffic{t}
}
