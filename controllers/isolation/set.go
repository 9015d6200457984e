package isolation

import (
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Set is a collection of policies together with what it takes to evaluate them: the labels of namespaces, tiers, and which implementations have proven themselves. Policies are found by
// the namespace and the labels that they select. The zero value is not usable; see [NewSet]. It is not safe for concurrent use.
type Set struct {
	policies   map[Ref]*Policy
	namespaces map[string]map[string]string
	tiers      map[string]Tier
	proven     map[string]bool
	// byNamespace holds the policies that select pods of one namespace, anywhere the others.
	byNamespace map[string]*bucket
	anywhere    *bucket
	// added and hidden make a set that differs a little from another one without copying it.
	added  []*Policy
	hidden map[Ref]bool
}

// With returns a view of the set in which the policies are present too, each in the place of an earlier state of the same object. It holds for as long as s does not change.
func (s *Set) With(policies ...*Policy) *Set {
	refs := make([]Ref, 0, len(policies))
	for _, p := range policies {
		refs = append(refs, p.Ref)
	}
	view := s.Without(refs...)
	view.added = append(view.added, policies...)
	return view
}

// Without returns a view of the set in which the objects are missing. It holds for as long as s does not change.
func (s *Set) Without(refs ...Ref) *Set {
	view := *s
	view.hidden = maps.Clone(s.hidden)
	if view.hidden == nil {
		view.hidden = map[Ref]bool{}
	}
	gone := map[Ref]bool{}
	for _, r := range refs {
		view.hidden[r.key()], gone[r.key()] = true, true
	}
	view.added = slices.DeleteFunc(slices.Clone(s.added), func(p *Policy) bool { return gone[p.Ref.key()] })
	return &view
}

// NewSet returns a set of the policies.
func NewSet(policies ...*Policy) *Set {
	s := &Set{
		policies: map[Ref]*Policy{}, namespaces: map[string]map[string]string{}, tiers: map[string]Tier{}, proven: map[string]bool{},
		byNamespace: map[string]*bucket{}, anywhere: newBucket(),
	}
	for _, p := range policies {
		s.Put(p)
	}
	return s
}

// Put adds a policy, in the place of an earlier state of the same object.
func (s *Set) Put(p *Policy) {
	s.Remove(p.Ref)
	s.policies[p.Ref.key()] = p
	for namespace, b := range s.buckets(p) {
		if b == nil {
			b = newBucket()
			s.byNamespace[namespace] = b
		}
		b.put(p)
	}
}

// Remove takes a policy out; nothing happens if it is not in the set.
func (s *Set) Remove(ref Ref) {
	p, found := s.policies[ref.key()]
	if !found {
		return
	}
	delete(s.policies, ref.key())
	for namespace, b := range s.buckets(p) {
		b.remove(p)
		if namespace != "" && b.size == 0 {
			delete(s.byNamespace, namespace)
		}
	}
}

// Policies are the policies of the set, in no particular order.
func (s *Set) Policies() iter.Seq[*Policy] { return maps.Values(s.policies) }

// PutNamespace tells the labels of a namespace; the one with its name needs not be among them.
func (s *Set) PutNamespace(name string, labels map[string]string) {
	if labels[corev1.LabelMetadataName] != name {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[corev1.LabelMetadataName] = name
	}
	s.namespaces[name] = labels
}

// RemoveNamespace forgets a namespace.
func (s *Set) RemoveNamespace(name string) { delete(s.namespaces, name) }

// PutTier tells a tier, in the place of an earlier state of it.
func (s *Set) PutTier(t Tier) { s.tiers[t.Name] = t }

// RemoveTier forgets a tier.
func (s *Set) RemoveTier(name string) { delete(s.tiers, name) }

// SetProven says whether an implementation of an API group has proven itself on this cluster, so that what its policies deny counts as denied even though they report nothing.
func (s *Set) SetProven(group string, proven bool) { s.proven[group] = proven }

// AdminPriorities are the priorities of the policies that are evaluated ahead of every NetworkPolicy in the Network Policy API's admin tier, except for those whose names begin with the prefix, sorted.
func (s *Set) AdminPriorities(exceptPrefix string) []int32 {
	var out []int32
	for _, p := range s.policies {
		for _, section := range slices.Concat(p.ingress, p.egress) {
			if section.tier.name == "" && section.tier.order == orderAdmin && !strings.HasPrefix(p.Ref.Name, exceptPrefix) {
				out = append(out, int32(section.tier.priority))
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

func (s *Set) effective(p *Policy) bool {
	return p.reported || s.proven[p.Ref.Group] && !p.refused
}

func (s *Set) namespaceLabels(name string) map[string]string {
	if labels, found := s.namespaces[name]; found {
		return labels
	}
	return map[string]string{corev1.LabelMetadataName: name}
}

// candidates are the policies that may select the pod.
func (s *Set) candidates(pod *corev1.Pod) iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		visible := func(p *Policy) bool { return s.hidden[p.Ref.key()] || yield(p) }
		for _, b := range []*bucket{s.byNamespace[pod.Namespace], s.anywhere} {
			if b != nil && !b.each(pod.Labels, visible) {
				return
			}
		}
		for _, p := range s.added {
			own := p.Ref.Namespace == "" || p.Ref.Namespace == pod.Namespace
			if own && !yield(p) {
				return
			}
		}
	}
}

// buckets are where a policy is kept, by namespace; "" stands for anywhere.
func (s *Set) buckets(p *Policy) map[string]*bucket {
	names := p.subject.namespaces(p.Ref.Namespace)
	if len(names) == 0 {
		return map[string]*bucket{"": s.anywhere}
	}
	out := map[string]*bucket{}
	for _, name := range names {
		out[name] = s.byNamespace[name]
	}
	return out
}

// namespaces are those that the subject is in, or none if that cannot be said. own is the namespace of the object.
func (s subject) namespaces(own string) []string {
	if s.invalid != "" || len(s.parts) == 0 {
		if own == "" {
			return nil
		}
		return []string{own}
	}
	var out []string
	for _, part := range s.parts {
		names := part.finite(ofNamespace, corev1.LabelMetadataName)
		if len(names) == 0 {
			return nil
		}
		out = append(out, names...)
	}
	return sorted(out)
}

// finite returns the values that the constraint leaves to a label, if they are a list and the label has to be there.
func (c constraint) finite(d domain, key string) []string {
	for _, r := range c {
		if r.domain == d && r.key == key && !r.values.absent && !r.values.negated {
			return r.values.list
		}
	}
	return nil
}

// bucket holds policies by a label that they require of pods.
type bucket struct {
	byLabel map[pair][]*Policy
	rest    []*Policy
	size    int
}

type pair struct{ key, value string }

func newBucket() *bucket { return &bucket{byLabel: map[pair][]*Policy{}} }

func (b *bucket) put(p *Policy) {
	b.size++
	pairs := p.subject.pairs()
	if len(pairs) == 0 {
		b.rest = append(b.rest, p)
	}
	for _, l := range pairs {
		b.byLabel[l] = append(b.byLabel[l], p)
	}
}

func (b *bucket) remove(p *Policy) {
	b.size--
	same := func(q *Policy) bool { return q == p }
	pairs := p.subject.pairs()
	if len(pairs) == 0 {
		b.rest = slices.DeleteFunc(b.rest, same)
	}
	for _, l := range pairs {
		if b.byLabel[l] = slices.DeleteFunc(b.byLabel[l], same); len(b.byLabel[l]) == 0 {
			delete(b.byLabel, l)
		}
	}
}

// each calls yield for every policy that pods with the labels may be subject to, once.
func (b *bucket) each(labels map[string]string, yield func(*Policy) bool) bool {
	for key, value := range labels {
		for _, p := range b.byLabel[pair{key, value}] {
			if !yield(p) {
				return false
			}
		}
	}
	for _, p := range b.rest {
		if !yield(p) {
			return false
		}
	}
	return true
}

// pairs are labels of which a pod of the subject has exactly one; none if there is no such list.
func (s subject) pairs() []pair {
	if s.invalid != "" || s.undecided != "" || len(s.parts) != 1 {
		return nil
	}
	for _, r := range s.parts[0] {
		if r.domain != ofPod || r.values.absent || r.values.negated {
			continue
		}
		var out []pair
		for _, v := range r.values.list {
			out = append(out, pair{r.key, v})
		}
		return out
	}
	return nil
}

// SetOf reads NetworkPolicies into a set. It is a shorthand for those who have no other kinds.
func SetOf(policies ...*networkingv1.NetworkPolicy) *Set {
	s := NewSet()
	for _, p := range policies {
		if p != nil {
			s.Put(ReadNetworkPolicy(p))
		}
	}
	return s
}
