package isolation

import (
	"cmp"
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
	if p := parsePeer("", e.Peer); p.reason != "" {
		return fmt.Errorf("exception %q: %s: %s", e.Name, p.reason, p.box.text)
	}
	if _, err := parsePorts(&corev1.Pod{}, e.Direction, e.Ports); err != nil {
		return fmt.Errorf("exception %q: %w", e.Name, err)
	}
	return nil
}

// declared returns the flows that the exceptions allow to pod in direction d. What cannot be read stands for no flow.
func declared(pod *corev1.Pod, d Direction, exceptions []Exception) flows {
	var out flows
	for _, e := range exceptions {
		if e.Direction != d {
			continue
		}
		ports, err := parsePorts(pod, d, e.Ports)
		p := parsePeer(pod.Namespace, e.Peer)
		if err != nil || p.reason != "" || p.box.empty() || ports.empty() {
			continue
		}
		b := p.box
		b.ports = ports
		out = append(out, b)
	}
	// Which parts are left must not depend on the order in which exceptions are written.
	slices.SortFunc(out, func(a, b box) int {
		return cmp.Compare(a.peer()+"\x00"+a.ports.String(), b.peer()+"\x00"+b.ports.String())
	})
	return out
}

// unexcused returns the part of an allowed box that no exception declares. Nothing is said twice: pods that are let through by their labels are left out as addresses, and an exception
// that declares pods by their labels takes nothing out of what is let through by address, so that an address block stays one.
func (b box) unexcused(excused flows) (rest flows, exact bool) {
	if b.sorts == anyPod {
		b.sorts = podsByLabel
	}
	if b.sorts&noPods != 0 {
		excused = slices.Clone(excused)
		for i := range excused {
			if excused[i].sorts == anyPod {
				excused[i].sorts = podsByLabel
			}
		}
	}
	return flows{b}.minus(excused)
}
