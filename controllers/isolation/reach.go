package isolation

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// States of a leak.
const (
	// StateActive says that somebody can use the leak now: it lets in, or out to, addresses, or a pod exists that it names.
	StateActive = "Active"
	// StateLatent says that nobody matches the leak now. A new pod, or a label, is enough to make it active.
	StateLatent = "Latent"
)

// Peers are the pods of the cluster, for telling active leaks from latent ones. The zero value has no pods: every leak that names pods is latent. It is not safe for concurrent use.
type Peers struct {
	pods map[types.UID]peerPod
	// seen are the first two pods that a box holds, by the box's description, until a pod changes.
	seen map[string][]types.UID
}

type peerPod struct {
	namespace, labels map[string]string
	account           string
	addresses         []netip.Addr
}

// Put adds a pod with the labels of its namespace, in the place of an earlier state of it. Pods that have ended, and those that use their node's network, are nobody's peer.
func (p *Peers) Put(pod *corev1.Pod, namespaceLabels map[string]string) {
	p.seen = nil
	if !isPeer(pod) {
		delete(p.pods, pod.UID)
		return
	}
	if p.pods == nil {
		p.pods = map[types.UID]peerPod{}
	}
	p.pods[pod.UID] = newPeerPod(pod, namespaceLabels)
}

// Remove takes a pod out.
func (p *Peers) Remove(uid types.UID) {
	p.seen = nil
	delete(p.pods, uid)
}

func isPeer(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func newPeerPod(pod *corev1.Pod, namespaceLabels map[string]string) peerPod {
	one := peerPod{labels: pod.Labels, namespace: namespaceLabels, account: pod.Spec.ServiceAccountName}
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			one.addresses = append(one.addresses, addr)
		}
	}
	return one
}

// judge completes leaks with their states, and sorts them.
func (p *Peers) judge(pod *corev1.Pod, all []open) []Leak {
	if len(all) == 0 {
		return nil
	}
	leaks := make([]Leak, 0, len(all))
	for _, o := range all {
		o.leak.State = p.state(pod, o.box)
		leaks = append(leaks, o.leak)
	}
	slices.SortFunc(leaks, compareLeaks)
	return slices.Clip(slices.Compact(leaks))
}

// state says whether anybody but the pod itself is in the box. Addresses count as used: who is behind them is not known.
func (p *Peers) state(pod *corev1.Pod, b box) string {
	if p == nil || b.sorts&noPods != 0 {
		return StateActive
	}
	if slices.ContainsFunc(p.matching(b), func(uid types.UID) bool { return uid != pod.UID }) {
		return StateActive
	}
	return StateLatent
}

// matching returns the first two pods in the box.
func (p *Peers) matching(b box) []types.UID {
	b.text = ""                               // two authors can mean different pods by the same words, such as "in this namespace"
	key := fmt.Sprint(b.peer(), " ", b.addrs) // of many addresses the description names some only
	if found, ok := p.seen[key]; ok {
		return found
	}
	found := []types.UID{}
	for uid, one := range p.pods {
		if len(found) == 2 {
			break
		}
		if one.in(b) {
			found = append(found, uid)
		}
	}
	if p.seen == nil {
		p.seen = map[string][]types.UID{}
	}
	p.seen[key] = found
	return found
}

// in says whether the pod is a peer in the box. A pod whose addresses are not known yet may get any.
func (p peerPod) in(b box) bool {
	if !b.labels.matches(p.namespace, p.labels, p.account) {
		return false
	}
	return len(p.addresses) == 0 || slices.ContainsFunc(p.addresses, b.addrs.contains)
}

// Reach is everything that policies allow to or from a pod in one direction.
type Reach struct{ flows flows }

// Reachable returns what the policies of the set allow to (DirectionIngress) or from (DirectionEgress) the pod. What may be allowed counts as allowed.
func Reachable(pod *corev1.Pod, set *Set, d Direction) Reach {
	e := evaluation{pod: pod, set: set, direction: d}
	e.run()
	var all flows
	for _, f := range e.findings {
		all = append(all, f.flows...)
	}
	return Reach{flows: all}
}

// Nothing says that no flow is allowed.
func (r Reach) Nothing() bool { return len(r.flows) == 0 }

// Exceeds says whether r holds flows that other does not hold. When that is too much work to find out, it does.
func (r Reach) Exceeds(other Reach) bool {
	rest, exact := r.flows.minus(other.flows)
	return !exact || len(rest) > 0
}

// String lists the flows for people: "any peer on all ports", "pods app=web in namespace shop on TCP/80; CIDR 10.0.0.0/8 on all ports", "nothing".
func (r Reach) String() string {
	if r.Nothing() {
		return "nothing"
	}
	var parts []string
	for _, b := range r.flows.merge() {
		parts = append(parts, b.peer()+" on "+b.ports.String())
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), "; ")
}

// Permitted returns, of the exceptions, those that open nothing that the policies keep closed to the pod: containing a pod must never widen what it can reach or be reached by.
func Permitted(pod *corev1.Pod, set *Set, exceptions []Exception) []Exception {
	var out []Exception
	for _, e := range exceptions {
		opened := declared(pod, e.Direction, []Exception{e})
		if !(Reach{flows: opened}).Exceeds(certainly(pod, set, e.Direction)) {
			out = append(out, e)
		}
	}
	return out
}

// certainly returns what is allowed without any doubt.
func certainly(pod *corev1.Pod, set *Set, d Direction) Reach {
	e := evaluation{pod: pod, set: set, direction: d}
	e.run()
	var all, doubtful flows
	for _, d := range e.doubts {
		doubtful = append(doubtful, d.flows...)
	}
	for _, f := range e.findings {
		if f.undecided != "" || f.rule.inexact || f.rule.reason != "" && f.rule.reason != ReasonNotSelected {
			continue
		}
		for _, b := range f.flows {
			rest, exact := flows{b}.minus(doubtful)
			// Ports that are known by name only may be among the doubtful ones.
			if exact && len(rest.intersectAll(doubtful)) == 0 {
				all = append(all, rest...)
			}
		}
	}
	return Reach{flows: all}
}
