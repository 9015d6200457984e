package isolation

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Kinds of Calico, in the API groups projectcalico.org (v3) and crd.projectcalico.org (v1). Both serve the same objects.
const (
	calicoKindNetworkPolicy                 = "NetworkPolicy"
	calicoKindGlobalNetworkPolicy           = "GlobalNetworkPolicy"
	calicoKindStagedNetworkPolicy           = "StagedNetworkPolicy"
	calicoKindStagedGlobalNetworkPolicy     = "StagedGlobalNetworkPolicy"
	calicoKindStagedKubernetesNetworkPolicy = "StagedKubernetesNetworkPolicy"
	calicoKindTier                          = "Tier"
)

const (
	// calicoTierDefault is the tier of policies that name none, and of NetworkPolicies.
	calicoTierDefault = "default"
	// calicoConditionValid says, in versions of Calico that report at all, whether the object could be read. That does not mean that it is in effect.
	calicoConditionValid = "Valid"
)

// calicoSpec is the spec of either kind.
type calicoSpec struct {
	Tier                   string       `json:"tier"`
	Order                  *float64     `json:"order"`
	Selector               string       `json:"selector"`
	ServiceAccountSelector string       `json:"serviceAccountSelector"`
	Types                  []string     `json:"types"`
	Ingress                []calicoRule `json:"ingress"`
	Egress                 []calicoRule `json:"egress"`
	PerformanceHints       any          `json:"performanceHints"` // never changes what is enforced

	// These are fields of GlobalNetworkPolicies only. With one of the first two a policy applies to host endpoints only; the third is about them.
	DoNotTrack        bool   `json:"doNotTrack"`
	PreDNAT           bool   `json:"preDNAT"`
	ApplyOnForward    bool   `json:"applyOnForward"`
	NamespaceSelector string `json:"namespaceSelector"`
}

// readCalico reads a NetworkPolicy or a GlobalNetworkPolicy of Calico. It returns nil for the staged kinds, which show what a policy would do and enforce nothing. Calico does not report
// what it enforces: what such a policy denies counts only once its API group has proven itself.
func readCalico(u *unstructured.Unstructured) *Policy {
	ref := refOf(u)
	switch ref.Kind {
	case calicoKindStagedNetworkPolicy, calicoKindStagedGlobalNetworkPolicy, calicoKindStagedKubernetesNetworkPolicy:
		return nil
	}
	namespaced := ref.Kind == calicoKindNetworkPolicy
	if namespaced != (ref.Namespace != "") || !namespaced && ref.Kind != calicoKindGlobalNetworkPolicy {
		p := undecidedPolicy(ref, "kind", errors.New("it is not known, or does not go with the namespace"))
		p.subject.parts = []constraint{nil} // it can be about every pod
		return p
	}
	var spec calicoSpec
	if field, err := spec.decode(u, namespaced); err != nil {
		return undecidedPolicy(ref, field, err)
	}
	p := &Policy{
		Ref: ref, subject: spec.subject(ref.Namespace),
		notReported: "Calico reports nothing in status; what it denies counts only once it has been seen to be enforced",
	}
	if spec.DoNotTrack || spec.PreDNAT {
		return p
	}
	r := &calicoReader{namespace: ref.Namespace}
	for _, d := range Directions() {
		if spec.governs(d) {
			p.addSection(d, r.section(d, spec))
		}
	}
	p.refuse(u, r.unreadable)
	return p
}

// decode reads the spec of an object. field names what is wrong.
func (s *calicoSpec) decode(u *unstructured.Unstructured, namespaced bool) (field string, err error) {
	if field, err := decodeSpec(u, s); err != nil {
		return field, err
	}
	for i, t := range s.Types {
		if !strings.EqualFold(t, string(DirectionIngress)) && !strings.EqualFold(t, string(DirectionEgress)) {
			return fmt.Sprintf("spec.types[%d]", i), fmt.Errorf("%q is no direction", clip(t))
		}
	}
	if namespaced && (s.NamespaceSelector != "" || s.DoNotTrack || s.PreDNAT || s.ApplyOnForward) {
		return "spec", fmt.Errorf("it has a field that only a %s has", calicoKindGlobalNetworkPolicy)
	}
	return "", nil
}

// refuse marks a policy that Calico may not have in effect, though it has others.
func (p *Policy) refuse(u *unstructured.Unstructured, unreadable string) {
	if unreadable != "" {
		p.refused, p.notReported = true, unreadable+" cannot be read, for which Calico may refuse all of it"
	}
	conditions, err := conditionsOf(u)
	if err != nil {
		p.refused, p.notReported = true, "status.conditions cannot be read"
	}
	for _, c := range conditions {
		if c.Type == calicoConditionValid && c.Status != metav1.ConditionTrue {
			p.refused, p.notReported = true, fmt.Sprintf("its condition %s is %s", c.Type, cmp.Or(c.Status, metav1.ConditionUnknown))
		}
	}
}

// governs says whether the policy has a say in a direction. The default for the types is that of the API; Calico's agents apply policies without types, which can only get past the API
// server, to both directions, but then a direction without rules is merely denied.
func (s calicoSpec) governs(d Direction) bool {
	if len(s.Types) > 0 {
		return slices.ContainsFunc(s.Types, func(t string) bool { return strings.EqualFold(t, string(d)) })
	}
	if d == DirectionEgress {
		return len(s.Egress) > 0
	}
	return len(s.Ingress) > 0 || len(s.Egress) == 0
}

// section reads the rules of one direction. At the end of a tier Calico drops what no policy of the tier has decided that applies to the pod in that direction.
func (r *calicoReader) section(d Direction, spec calicoSpec) *section {
	s := &section{tier: spec.place(), isolates: true}
	rules := spec.Ingress
	if d == DirectionEgress {
		rules = spec.Egress
	}
	for i, one := range rules {
		s.rules = append(s.rules, r.rule(d, i, one)...)
	}
	return s
}

// place is where the policy is evaluated. Without an order it comes after all others. Policies of the same order come in the order of their names, but of names that have differed
// from version to version: their order counts as undefined.
func (s calicoSpec) place() tier {
	t := tier{order: orderDefault, priority: math.Inf(1)}
	if s.Tier != "" && s.Tier != calicoTierDefault {
		t = tier{name: s.Tier, priority: t.priority}
	}
	if s.Order != nil {
		t.priority = *s.Order
	}
	return t
}

// subject reads whom the policy applies to.
func (s calicoSpec) subject(namespace string) subject {
	to := everyPod()
	for _, one := range []struct{ field, prefix, text string }{
		{"spec.selector", "", s.Selector},
		{"spec.namespaceSelector", calicoNamespacePrefix, s.NamespaceSelector},
		{"spec.serviceAccountSelector", calicoAccountPrefix, s.ServiceAccountSelector},
	} {
		selector, err := parseCalicoSelector(one.field, one.prefix, one.text, false)
		if _, nested := parseCalicoSelector(one.field, one.prefix, "("+one.text+")", false); err != nil && nested == nil {
			// Calico puts the text into parentheses and adds the namespace. This one closes them: who can write around validation can reach the pods of other namespaces with it.
			return subject{parts: []constraint{nil}, undecided: one.field + ": its parentheses do not match"}
		}
		if err != nil {
			return subject{invalid: one.field}
		}
		to = to.and(selector.pods(false))
	}
	if namespace != "" {
		to = to.and(alternatives{parts: []constraint{{inNamespace(namespace)}}})
	}
	return subject{parts: to.parts, undecided: to.why}
}

// readTier reads a Tier of Calico. ok is false if it cannot be read, and if its place among the tiers of Kubernetes' own kinds cannot be told: policies of a tier that is not known count
// as allowing what they may allow before everything else, and as denying nothing.
func readTier(u *unstructured.Unstructured) (t Tier, ok bool) {
	var spec struct {
		Order         *float64 `json:"order"`
		DefaultAction string   `json:"defaultAction"`
	}
	if _, err := decodeSpec(u, &spec); err != nil || u.GetKind() != calicoKindTier || u.GetName() == "" {
		return Tier{}, false
	}
	t = Tier{Name: u.GetName(), Order: math.Inf(1), DefaultPass: spec.DefaultAction == "Pass"}
	if spec.Order != nil {
		t.Order = *spec.Order
	}
	if t.Name == calicoTierDefault {
		return t, t.Order == orderDefault && !t.DefaultPass
	}
	for _, own := range calicoOwnTiers() {
		switch {
		case t.Name == own.first, t.Name == own.last:
			return Tier{}, false
		case t.Order != own.order || t.Name > own.last:
		case t.Name > own.first:
			return Tier{}, false
		default: // tiers of the same order come in the order of their names
			t.Order = math.Nextafter(t.Order, math.Inf(-1))
		}
	}
	return t, t.DefaultPass || spec.DefaultAction == "" || spec.DefaultAction == "Deny"
}

// calicoOwnTier is a well-known tier and the names that it has, by version of Calico.
type calicoOwnTier struct {
	order       float64
	first, last string
}

func calicoOwnTiers() []calicoOwnTier {
	return []calicoOwnTier{
		{order: orderAdmin, first: "adminnetworkpolicy", last: "kube-admin"},
		{order: orderDefault, first: calicoTierDefault, last: calicoTierDefault},
		{order: orderBaseline, first: "baselineadminnetworkpolicy", last: "kube-baseline"},
	}
}
