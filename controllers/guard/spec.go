package guard

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// policySpec is the spec as JSON, with the defaults of the API server (documented on the fields of admissionregistration.k8s.io/v1).
func policySpec(spec admissionregistrationv1.ValidatingAdmissionPolicySpec) map[string]any {
	spec = *spec.DeepCopy()
	if spec.FailurePolicy == nil {
		spec.FailurePolicy = new(admissionregistrationv1.Fail)
	}
	defaultMatch(spec.MatchConstraints)
	return asJSON(spec)
}

// bindingSpec is the spec as JSON, with the defaults of the API server. The actions are a set.
func bindingSpec(spec admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec) map[string]any {
	spec = *spec.DeepCopy()
	defaultMatch(spec.MatchResources)
	slices.Sort(spec.ValidationActions)
	return asJSON(spec)
}

func defaultMatch(match *admissionregistrationv1.MatchResources) {
	if match == nil {
		return
	}
	if match.MatchPolicy == nil {
		match.MatchPolicy = new(admissionregistrationv1.Equivalent)
	}
	if match.NamespaceSelector == nil {
		match.NamespaceSelector = &metav1.LabelSelector{}
	}
	if match.ObjectSelector == nil {
		match.ObjectSelector = &metav1.LabelSelector{}
	}
	for _, rules := range [][]admissionregistrationv1.NamedRuleWithOperations{match.ResourceRules, match.ExcludeResourceRules} {
		for i := range rules {
			if rules[i].Scope == nil {
				rules[i].Scope = new(admissionregistrationv1.AllScopes)
			}
		}
	}
}

// blankLines are what "kubectl kustomize" adds when it writes a folded YAML string that has indented lines. Nothing but blank lines is forgiven: in CEL any other
// white space may be a part of a string, or end a comment. No shipped expression has a string over several lines, and to add one is more than a blank line.
var blankLines = regexp.MustCompile(`\n\s*\n`)

// asJSON forgets the difference between an empty list and none, as the API does, and blank lines.
func asJSON(spec any) map[string]any {
	raw, err := json.Marshal(spec)
	if err != nil {
		panic(fmt.Sprintf("API types always marshal: %v", err))
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(fmt.Sprintf("API types are always objects: %v", err))
	}
	return withoutBlankLines(out).(map[string]any)
}

func withoutBlankLines(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, child := range value {
			value[key] = withoutBlankLines(child)
		}
	case []any:
		for i, child := range value {
			value[i] = withoutBlankLines(child)
		}
	case string:
		return blankLines.ReplaceAllString(value, "\n")
	}
	return value
}

// difference is the path of the first place, in the order of names, at which the values differ, or "" when they are equal. Lists of words are named as a whole.
func difference(path string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		if got, ok := got.(map[string]any); ok {
			return differenceOfObjects(path, want, got)
		}
	case []any:
		if got, ok := got.([]any); ok {
			return differenceOfLists(path, want, got)
		}
	}
	if !reflect.DeepEqual(want, got) {
		return path
	}
	return ""
}

func differenceOfObjects(path string, want, got map[string]any) string {
	keys := slices.Concat(slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(got)))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		child := path + "." + key
		if strings.ContainsAny(key, "./") { // a label
			child = path + "[" + strconv.Quote(key) + "]"
		}
		if found := difference(child, want[key], got[key]); found != "" {
			return found
		}
	}
	return ""
}

func differenceOfLists(path string, want, got []any) string {
	if words(want) && words(got) {
		if !slices.Equal(want, got) {
			return path
		}
		return ""
	}
	for i := range max(len(want), len(got)) {
		child := path + "[" + strconv.Itoa(i) + "]"
		if i >= len(want) || i >= len(got) {
			return child
		}
		if found := difference(child, want[i], got[i]); found != "" {
			return found
		}
	}
	return ""
}

func words(list []any) bool {
	return !slices.ContainsFunc(list, func(item any) bool {
		_, word := item.(string)
		return !word
	})
}
