package isolation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Index follows a cluster and keeps the leaks of the pods that are held. A change makes stale only those pods that it can matter to, and a stale pod is evaluated again when it is asked for.
// It is safe for concurrent use. Objects that are passed to it must not be changed afterwards.
type Index struct {
	mu    sync.Mutex
	set   *Set
	peers Peers
	held  map[types.UID]*heldPod
	// byNamespace holds the same pods by namespace, naming those whose leaks name pods, pods all pods of the cluster that were put.
	byNamespace map[string]map[types.UID]*heldPod
	naming      map[types.UID]*heldPod
	pods        map[types.UID]*corev1.Pod
	inNamespace map[string]map[types.UID]bool
	// memo are results by what they depend on, until a policy changes. Pods in quarantine have few labels, and so they have much in common.
	memo        map[string][]open
	evaluations int
}

// heldPod is a pod whose leaks are kept.
type heldPod struct {
	pod *corev1.Pod
	// holders are those who hold it, and what they declare.
	holders map[string][]Exception
	fresh   bool
	leaks   []Leak
	// named are the sets of pods that its leaks name.
	named []box
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		set: NewSet(), held: map[types.UID]*heldPod{}, byNamespace: map[string]map[types.UID]*heldPod{}, naming: map[types.UID]*heldPod{},
		pods: map[types.UID]*corev1.Pod{}, inNamespace: map[string]map[types.UID]bool{},
	}
}

// Hold makes the index keep the leaks of a pod. Exceptions of all holders of a pod count.
func (x *Index) Hold(holder string, pod *corev1.Pod, exceptions []Exception) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.held[pod.UID]
	if h == nil {
		h = &heldPod{pod: pod, holders: map[string][]Exception{}}
		x.held[pod.UID] = h
		put(x.byNamespace, pod.Namespace, pod.UID, h)
	}
	if known, found := h.holders[holder]; !found || !sameExceptions(known, exceptions) {
		h.holders[holder], h.fresh = exceptions, false
	}
	if !sameSubject(h.pod, pod) {
		h.fresh = false
	}
	h.pod = pod
}

// Release ends what Hold began, for all pods but those to keep.
func (x *Index) Release(holder string, keep map[types.UID]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for uid, h := range x.held {
		if _, holds := h.holders[holder]; !holds || keep[uid] {
			continue
		}
		delete(h.holders, holder)
		h.fresh = false
		if len(h.holders) == 0 {
			delete(x.held, uid)
			delete(x.naming, uid)
			delete(x.byNamespace[h.pod.Namespace], uid)
		}
	}
}

// Leaks returns the leaks of a held pod, as [Evaluate] does. The result must not be changed. held is false if nobody holds the pod.
func (x *Index) Leaks(uid types.UID) (leaks []Leak, held bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.held[uid]
	if h == nil {
		return nil, false
	}
	if !h.fresh {
		x.refresh(h)
	}
	return h.leaks, true
}

// Holders are all who hold a pod, sorted.
func (x *Index) Holders() []string {
	return x.HoldersOf(func(*corev1.Pod) bool { return true })
}

// HoldersOf returns those who hold a pod that match says yes to, sorted.
func (x *Index) HoldersOf(match func(*corev1.Pod) bool) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]bool{}
	for _, h := range x.held {
		if match(h.pod) {
			for holder := range h.holders {
				out[holder] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// RemoveKind forgets every policy of a kind and returns the holders of the pods that they can have mattered to.
func (x *Index) RemoveKind(kind schema.GroupKind) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var gone []*Policy
	for p := range x.set.Policies() {
		if p.Ref.Group == kind.Group && p.Ref.Kind == kind.Kind {
			gone = append(gone, p)
		}
	}
	for _, p := range gone {
		x.set.Remove(p.Ref)
	}
	return x.touched(gone...)
}

// Evaluations is how many times a pod was evaluated anew, for those who want to know what a change costs.
func (x *Index) Evaluations() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.evaluations
}

// Read calls fn with what the index knows of the cluster, for questions beyond the leaks of held pods. fn must not keep or change what it gets.
func (x *Index) Read(fn func(set *Set, peers *Peers)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fn(x.set, &x.peers)
}

func (x *Index) refresh(h *heldPod) {
	x.evaluations++
	var exceptions []Exception
	for _, holder := range slices.Sorted(maps.Keys(h.holders)) {
		exceptions = append(exceptions, h.holders[holder]...)
	}
	key := signature(h.pod, exceptions)
	all, known := x.memo[key]
	if !known {
		all = evaluateAll(h.pod, x.set, exceptions)
		if x.memo == nil {
			x.memo = map[string][]open{}
		}
		x.memo[key] = all
	}
	h.leaks, h.fresh, h.named = x.peers.judge(h.pod, all), true, nil
	for _, o := range all {
		if o.box.sorts&noPods == 0 {
			h.named = append(h.named, o.box)
		}
	}
	delete(x.naming, h.pod.UID)
	if len(h.named) > 0 {
		x.naming[h.pod.UID] = h
	}
}

// PutPolicy takes up a policy, or a new state of it, and returns the holders of the pods that it can matter to.
func (x *Index) PutPolicy(p *Policy) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.set.policies[p.Ref.key()]
	counted := p.Ref.Generation != 0 // not every aggregated API server counts generations
	if before != nil && counted && before.Ref == p.Ref && before.reported == p.reported && before.refused == p.refused && before.notReported == p.notReported {
		return nil // whatever has changed, it is not what it allows
	}
	x.set.Put(p)
	return x.touched(before, p)
}

// RemovePolicy forgets a policy and returns the holders of the pods that it can have mattered to.
func (x *Index) RemovePolicy(ref Ref) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.set.policies[ref.key()]
	if before == nil {
		return nil
	}
	x.set.Remove(ref)
	return x.touched(before)
}

// touched makes stale the held pods that one of the policies may apply to.
func (x *Index) touched(policies ...*Policy) []string {
	x.memo = nil
	woken := map[string]bool{}
	for _, p := range policies {
		if p == nil {
			continue
		}
		for h := range x.reached(p) {
			x.stale(h, woken)
		}
	}
	return slices.Sorted(maps.Keys(woken))
}

// reached are the held pods that the policy may apply to.
func (x *Index) reached(p *Policy) func(func(*heldPod) bool) {
	return func(yield func(*heldPod) bool) {
		groups := []map[types.UID]*heldPod{x.held}
		if names := p.subject.namespaces(p.Ref.Namespace); len(names) > 0 {
			groups = nil
			for _, name := range names {
				groups = append(groups, x.byNamespace[name])
			}
		}
		for _, group := range groups {
			for _, h := range group {
				if p.subject.mayHold(h.pod, x.set.namespaceLabels(h.pod.Namespace)) && !yield(h) {
					return
				}
			}
		}
	}
}

// mayHold says whether the pod is, or may be, one of the subject's.
func (s subject) mayHold(pod *corev1.Pod, namespace map[string]string) bool {
	return s.invalid != "" || s.undecided != "" && len(s.parts) == 0 || slices.ContainsFunc(s.parts, func(c constraint) bool {
		return c.matches(namespace, pod.Labels, pod.Spec.ServiceAccountName)
	})
}

func (x *Index) stale(h *heldPod, woken map[string]bool) {
	h.fresh = false
	for holder := range h.holders {
		woken[holder] = true
	}
}

// PutTier takes up a tier and returns the holders of the pods that it can matter to: those of all policies of the tier.
func (x *Index) PutTier(t Tier) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.set.tiers[t.Name] == t {
		return nil
	}
	x.set.PutTier(t)
	return x.touched(x.inTier(t.Name)...)
}

// RemoveTier forgets a tier and returns the holders of the pods that it can have mattered to.
func (x *Index) RemoveTier(name string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.set.RemoveTier(name)
	return x.touched(x.inTier(name)...)
}

func (x *Index) inTier(name string) []*Policy {
	var out []*Policy
	for _, p := range x.set.policies {
		in := func(s *section) bool { return s.tier.name == name }
		if slices.ContainsFunc(p.ingress, in) || slices.ContainsFunc(p.egress, in) {
			out = append(out, p)
		}
	}
	return out
}

// PutNamespace takes up the labels of a namespace and returns the holders of the pods that they can matter to: its own, and those whose leaks name pods of it.
func (x *Index) PutNamespace(name string, labels map[string]string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.set.namespaceLabels(name)
	x.set.PutNamespace(name, labels)
	after := x.set.namespaceLabels(name)
	if maps.Equal(before, after) {
		return nil
	}
	x.memo = nil
	woken := map[string]bool{}
	for _, h := range x.byNamespace[name] {
		x.stale(h, woken)
	}
	for uid := range x.inNamespace[name] {
		x.changedPeer(x.pods[uid], before, x.pods[uid], after, woken)
	}
	return slices.Sorted(maps.Keys(woken))
}

// PutPod takes up a pod of the cluster, held or not, and returns the holders of the pods that it can matter to: itself, and those whose leaks name it.
func (x *Index) PutPod(pod *corev1.Pod) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.pods[pod.UID]
	x.pods[pod.UID] = pod
	put(x.inNamespace, pod.Namespace, pod.UID, true)
	woken := map[string]bool{}
	if h := x.held[pod.UID]; h != nil && !sameSubject(h.pod, pod) {
		h.pod = pod
		x.stale(h, woken)
	}
	namespace := x.set.namespaceLabels(pod.Namespace)
	x.changedPeer(before, namespace, pod, namespace, woken)
	return slices.Sorted(maps.Keys(woken))
}

// RemovePod forgets a pod and returns the holders of the pods that it can have mattered to.
func (x *Index) RemovePod(uid types.UID) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.pods[uid]
	if before == nil {
		return nil
	}
	delete(x.pods, uid)
	delete(x.inNamespace[before.Namespace], uid)
	woken := map[string]bool{}
	if h := x.held[uid]; h != nil {
		x.stale(h, woken)
	}
	x.changedPeer(before, x.set.namespaceLabels(before.Namespace), nil, nil, woken)
	return slices.Sorted(maps.Keys(woken))
}

// changedPeer follows a pod as the peer of others: makes stale those whose leaks it joins or leaves.
func (x *Index) changedPeer(before *corev1.Pod, beforeIn map[string]string, after *corev1.Pod, afterIn map[string]string, woken map[string]bool) {
	was, is := before != nil && isPeer(before), after != nil && isPeer(after)
	var old, now peerPod
	if was {
		old = newPeerPod(before, beforeIn)
	}
	if is {
		now = newPeerPod(after, afterIn)
	}
	switch {
	case was && is && old.same(now):
		return
	case is:
		x.peers.Put(after, afterIn)
	case was:
		x.peers.Remove(before.UID)
	default:
		return
	}
	for _, h := range x.naming {
		joins := func(b box) bool { return (was && old.in(b)) != (is && now.in(b)) }
		if h.fresh && slices.ContainsFunc(h.named, joins) {
			x.stale(h, woken)
		}
	}
}

func (p peerPod) same(o peerPod) bool {
	return p.account == o.account && maps.Equal(p.labels, o.labels) && maps.Equal(p.namespace, o.namespace) && slices.Equal(p.addresses, o.addresses)
}

// sameSubject says whether policies see no difference between two states of a pod. Declared ports cannot change.
func sameSubject(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && a.Spec.ServiceAccountName == b.Spec.ServiceAccountName
}

func sameExceptions(a, b []Exception) bool {
	return slices.EqualFunc(a, b, func(a, b Exception) bool { return exceptionKey(a) == exceptionKey(b) })
}

func exceptionKey(e Exception) string {
	return fmt.Sprintf("%s %s %v", e.Direction, e.Peer.String(), e.Ports)
}

// signature tells apart pods for which evaluateAll can have different results.
func signature(pod *corev1.Pod, exceptions []Exception) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", pod.Namespace, pod.Spec.ServiceAccountName)
	for _, key := range slices.Sorted(maps.Keys(pod.Labels)) {
		fmt.Fprintf(&b, " %q=%q", key, pod.Labels[key])
	}
	regular := 0 // some kinds of policies tell the ports of init containers apart
	for _, c := range pod.Spec.Containers {
		regular += len(c.Ports)
	}
	for i, p := range declaredPorts(pod) {
		if p.Name != "" {
			fmt.Fprintf(&b, " %q:%d/%s %t", p.Name, p.ContainerPort, p.Protocol, i < regular)
		}
	}
	for _, e := range exceptions {
		b.WriteString(exceptionKey(e))
	}
	return b.String()
}

func put[K comparable, V any](m map[string]map[K]V, group string, key K, value V) {
	if m[group] == nil {
		m[group] = map[K]V{}
	}
	m[group][key] = value
}
