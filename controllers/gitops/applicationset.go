package gitops

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// ignored is the field of an ApplicationSet's spec that names what it leaves alone in the Applications that it makes.
const ignored = "ignoreApplicationDifferences"

// pointers are what an ApplicationSet has to leave alone in a child that is paused: the pause, and our marks, which it would take off.
func pointers() []string {
	return []string{
		"/spec/syncPolicy",
		"/metadata/annotations/" + escaped(v1alpha1.GitOpsLeaseAnnotation),
		"/metadata/labels/" + escaped(v1alpha1.GitOpsPausedLabel),
	}
}

// Unpausable says why a manager cannot be paused, or "".
func Unpausable(obj *unstructured.Unstructured) string {
	if kind, _, _ := unstructured.NestedString(obj.Object, "spec", "strategy", "type"); obj.GetKind() == ApplicationSet && kind == "RollingSync" {
		return fmt.Sprintf("ApplicationSet %s/%s syncs its Applications itself (spec.strategy.type is RollingSync), and pausing them does not keep it from that: change the strategy, or pause it by hand and have the step skipped",
			obj.GetNamespace(), obj.GetName())
	}
	return ""
}

func escaped(key string) string { return strings.ReplaceAll(key, "/", "~1") }

// rule is what we add for one child.
func rule(child string) map[string]any {
	var all []any
	for _, p := range pointers() {
		all = append(all, p)
	}
	return map[string]any{"name": child, "jsonPointers": all}
}

func isOurs(r any, child string) bool { return reflect.DeepEqual(r, any(rule(child))) }

func rules(set *unstructured.Unstructured) []any {
	out, _, _ := unstructured.NestedSlice(set.Object, "spec", ignored)
	return out
}

// leavesAlone reports whether an ApplicationSet leaves alone, in the child, everything that has to be.
func leavesAlone(set *unstructured.Unstructured, child string) bool {
	var have []string
	for _, r := range rules(set) {
		m, _ := r.(map[string]any)
		if name, _ := m["name"].(string); name != "" && name != child {
			continue
		}
		list, _, _ := unstructured.NestedStringSlice(m, "jsonPointers")
		have = append(have, list...)
	}
	return !slices.ContainsFunc(pointers(), func(p string) bool {
		return !slices.ContainsFunc(have, func(h string) bool { return h == p || strings.HasPrefix(p, h+"/") })
	})
}
