package isolation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// domain says whose label a constraint is about.
type domain int

const (
	// ofNamespace are the labels of the pod's namespace.
	ofNamespace domain = iota
	// ofPod are the labels of the pod itself.
	ofPod
	// ofServiceAccount are the labels of the pod's ServiceAccount; serviceAccountName stands for its name.
	ofServiceAccount
)

// serviceAccountName is a key, no label can have it, that stands for the name of a ServiceAccount.
const serviceAccountName = "\x00name"

// values is a set of values that one label can have, not being there included. It is finite or, with negated, all but finitely many, so that unions,
// intersections and complements of sets are sets again.
type values struct {
	// absent says that the set holds the case that there is no such label.
	absent bool
	// negated says that the set holds every value but the listed ones.
	negated bool
	list    []string // sorted, without repetitions
}

// oneOf holds the given values and not the case that there is no label.
func oneOf(list ...string) values { return values{list: sorted(list)} }

// present holds every value, but not the case that there is no label.
func present() values { return values{negated: true} }

func sorted(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// complement is what v does not hold. A label selector's NotIn holds pods without the label, and so is exactly the complement of In.
func (v values) complement() values {
	return values{absent: !v.absent, negated: !v.negated, list: v.list}
}

func (v values) intersect(w values) values {
	out := values{absent: v.absent && w.absent}
	has := func(list []string) func(string) bool {
		return func(s string) bool { _, found := slices.BinarySearch(list, s); return found }
	}
	switch {
	case v.negated && w.negated:
		out.negated, out.list = true, sorted(slices.Concat(v.list, w.list))
	case v.negated:
		out.list = slices.DeleteFunc(slices.Clone(w.list), has(v.list))
	case w.negated:
		out.list = slices.DeleteFunc(slices.Clone(v.list), has(w.list))
	default:
		out.list = slices.DeleteFunc(slices.Clone(v.list), func(s string) bool { return !has(w.list)(s) })
	}
	return out
}

// empty says that no value is left. All but finitely many values are never none.
func (v values) empty() bool { return !v.absent && !v.negated && len(v.list) == 0 }

// whole says that every value and the lack of the label is allowed.
func (v values) whole() bool { return v.absent && v.negated && len(v.list) == 0 }

// has says whether the set holds the value that the labels have for key.
func (v values) has(set map[string]string, key string) bool {
	value, found := set[key]
	if !found {
		return v.absent
	}
	_, listed := slices.BinarySearch(v.list, value)
	return listed != v.negated
}

func (v values) equal(w values) bool {
	return v.absent == w.absent && v.negated == w.negated && slices.Equal(v.list, w.list)
}

// requirement limits one label.
type requirement struct {
	domain domain
	key    string
	values values
}

func (r requirement) compare(o requirement) int {
	return cmp.Or(cmp.Compare(r.domain, o.domain), cmp.Compare(r.key, o.key))
}

// constraint is a set of pods: those that meet all requirements. It has at most one requirement for a label, in order; without any it holds every pod.
type constraint []requirement

// and returns what is in both sets; ok is false when that is nothing.
func (c constraint) and(others ...requirement) (out constraint, ok bool) {
	out = slices.Clone(c)
	for _, r := range others {
		i, found := slices.BinarySearchFunc(out, r, requirement.compare)
		switch {
		case !found:
			out = slices.Insert(out, i, r)
		default:
			out[i].values = out[i].values.intersect(r.values)
		}
		if out[i].values.empty() {
			return nil, false
		}
		if out[i].values.whole() {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out, true
}

// minus returns sets that have nothing in common and together are c without other.
func (c constraint) minus(other constraint) []constraint {
	if _, overlap := c.and(other...); !overlap {
		return []constraint{c}
	}
	var out []constraint
	rest := c
	for _, r := range other {
		outside := requirement{domain: r.domain, key: r.key, values: r.values.complement()}
		if part, ok := rest.and(outside); ok {
			out = append(out, part)
		}
		rest, _ = rest.and(r) // the overlap is in it, so that it is never empty
	}
	return out
}

func (c constraint) equal(other constraint) bool {
	return slices.EqualFunc(c, other, func(a, b requirement) bool { return a.compare(b) == 0 && a.values.equal(b.values) })
}

// matches says whether a pod with these labels is in the set. What is not known about ServiceAccounts is taken to match.
func (c constraint) matches(namespace, pod map[string]string, account string) bool {
	for _, r := range c {
		switch {
		case r.domain == ofNamespace && !r.values.has(namespace, r.key),
			r.domain == ofPod && !r.values.has(pod, r.key),
			r.domain == ofServiceAccount && r.key == serviceAccountName && !r.values.has(map[string]string{r.key: account}, r.key):
			return false
		}
	}
	return true
}

// asksAccountLabels says whether the labels of ServiceAccounts, which are not known, matter.
func (c constraint) asksAccountLabels() bool {
	return slices.ContainsFunc(c, func(r requirement) bool { return r.domain == ofServiceAccount && r.key != serviceAccountName })
}

// inNamespace holds the pods of one namespace. The API server keeps the label, with the namespace's name, on every namespace.
func inNamespace(name string) requirement {
	return requirement{domain: ofNamespace, key: corev1.LabelMetadataName, values: oneOf(name)}
}

// parseSelector reads a label selector. An empty selector holds every pod.
func parseSelector(d domain, in *metav1.LabelSelector) (constraint, bool, error) {
	parsed, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		return nil, false, err
	}
	requirements, selectable := parsed.Requirements()
	if !selectable {
		return nil, false, nil
	}
	return parseRequirements(d, requirements)
}

func parseRequirements(d domain, in labels.Requirements) (out constraint, satisfiable bool, err error) {
	for _, r := range in {
		v, err := valuesOf(r)
		if err != nil {
			return nil, false, err
		}
		var ok bool
		if out, ok = out.and(requirement{domain: d, key: r.Key(), values: v}); !ok {
			return nil, false, nil // it contradicts itself, and so selects nothing
		}
	}
	return out, true, nil
}

func valuesOf(r labels.Requirement) (values, error) {
	list := sorted(r.ValuesUnsorted())
	switch r.Operator() {
	case selection.In, selection.Equals, selection.DoubleEquals:
		return values{list: list}, nil
	case selection.NotIn, selection.NotEquals:
		return values{list: list}.complement(), nil
	case selection.Exists:
		return present(), nil
	case selection.DoesNotExist:
		return present().complement(), nil
	case selection.GreaterThan, selection.LessThan:
	}
	return values{}, fmt.Errorf("operator %q is not one of a label selector", r.Operator())
}

// String writes the requirements as kubectl does: "app=web,tier in (a,b),!x".
func (r requirement) String() string {
	key := r.key
	if r.domain == ofServiceAccount && key == serviceAccountName {
		key = "name"
	}
	v := r.values
	list := strings.Join(v.list, ",")
	switch {
	case !v.negated && !v.absent && len(v.list) == 1:
		return key + "=" + list
	case !v.negated && !v.absent:
		return fmt.Sprintf("%s in (%s)", key, list)
	case !v.negated && len(v.list) == 0:
		return "!" + key
	case !v.negated:
		return fmt.Sprintf("%s in (%s) or absent", key, list)
	case !v.absent && len(v.list) == 0:
		return key
	case !v.absent:
		return fmt.Sprintf("%s,%s notin (%s)", key, key, list)
	}
	return fmt.Sprintf("%s notin (%s)", key, list)
}

// text joins the requirements on the labels of one domain.
func (c constraint) text(d domain) string {
	var parts []string
	for _, r := range c {
		if r.domain == d {
			parts = append(parts, r.String())
		}
	}
	return strings.Join(parts, ",")
}
