package guard

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// itemised are the fields of spec whose items have owners of their own (listType map and set). Every other field is owned as a whole.
var itemised = []string{"matchConditions", "validationActions", "variables"}

// lastWriter returns the field manager that wrote a difference last, as far as managedFields tells, and when. The newest writer of the spec would often be the
// wrong one: an update that only removes is not recorded at all, and then that would be whoever installed the guard.
// See https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management.
func lastWriter(entries []metav1.ManagedFieldsEntry, want, got map[string]any) (manager string, at time.Time) {
	owned := differingFields(want, got)
	found := false
	for _, entry := range entries {
		if !slices.ContainsFunc(owned, func(path []string) bool { return owns(entry, path) }) {
			continue
		}
		var written time.Time
		if entry.Time != nil {
			written = entry.Time.UTC()
		}
		// Times are whole seconds. The API server lists those who applied first, so that of two in the same second the one who edited counts.
		if !found || !written.Before(at) {
			found, manager, at = true, entry.Manager, written
		}
	}
	return manager, at
}

// differingFields are the paths, as managedFields writes them, of what the cluster has and what was not shipped so.
func differingFields(want, got map[string]any) [][]string {
	var out [][]string
	for field, value := range got {
		switch {
		case reflect.DeepEqual(want[field], value):
		case slices.Contains(itemised, field):
			out = append(out, differingItems(field, want[field], value)...)
		default:
			out = append(out, []string{"f:spec", "f:" + field})
		}
	}
	return out
}

func differingItems(field string, want, got any) [][]string {
	before, _ := want.([]any)
	after, _ := got.([]any)
	var out [][]string
	for _, item := range after {
		if slices.ContainsFunc(before, func(w any) bool { return reflect.DeepEqual(w, item) }) {
			continue
		}
		out = append(out, []string{"f:spec", "f:" + field, itemKey(item)})
	}
	return out
}

// itemKey names an item as managedFields does: by its name, or by itself.
func itemKey(item any) string {
	prefix, key := "v:", item
	if object, ok := item.(map[string]any); ok {
		prefix, key = "k:", map[string]any{"name": object["name"]}
	}
	raw, err := json.Marshal(key)
	if err != nil {
		return "" // it came from JSON
	}
	return prefix + string(raw)
}

// owns tells whether the entry has the path. What cannot be read names nobody.
func owns(entry metav1.ManagedFieldsEntry, path []string) bool {
	raw := json.RawMessage(entry.FieldsV1.GetRawBytes())
	for _, name := range path {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return false
		}
		child, ok := fields[name]
		if !ok {
			return false
		}
		raw = child
	}
	return true
}
