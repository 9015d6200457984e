package remedy

import (
	"encoding/json"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// selectorPath is where, in a NetworkPolicy, the list of requirements is that a carve-out adds one to.
const selectorPath = "/spec/podSelector/matchExpressions"

// exclusion is the requirement that takes the Incident's pods out of a selector.
func exclusion(incidentUID types.UID) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: measure.QuarantineLabel(incidentUID), Operator: metav1.LabelSelectorOpDoesNotExist}
}

func isExclusion(r metav1.LabelSelectorRequirement, incidentUID types.UID) bool {
	return r.Key == measure.QuarantineLabel(incidentUID) && r.Operator == metav1.LabelSelectorOpDoesNotExist && len(r.Values) == 0
}

// CarvedOut says whether the Incident's pods are taken out of the policy.
func CarvedOut(np *networkingv1.NetworkPolicy, incidentUID types.UID) bool {
	return slices.ContainsFunc(np.Spec.PodSelector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return isExclusion(r, incidentUID) })
}

// CarveOut returns a JSON patch (RFC 6902) that takes the Incident's pods out of the podSelector of exactly this version of exactly this policy. ok is false if there is nothing to do, or nothing that may
// be done: they are out already, the policy is one of Cofferdam's own, which hold quarantines, or its podSelector cannot be read.
func CarveOut(np *networkingv1.NetworkPolicy, incidentUID types.UID) (patch []byte, ok bool) {
	if _, ours := np.Labels[v1alpha1.IncidentUIDLabel]; ours || CarvedOut(np, incidentUID) {
		return nil, false
	}
	if _, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector); err != nil {
		return nil, false
	}
	add := operation{Op: "add", Path: selectorPath + "/-", Value: exclusion(incidentUID)}
	if len(np.Spec.PodSelector.MatchExpressions) == 0 {
		// The API server leaves out an empty list, so that there may be none to append to.
		add = operation{Op: "add", Path: selectorPath, Value: []metav1.LabelSelectorRequirement{exclusion(incidentUID)}}
	}
	return patchOf(np, add)
}

// Restore returns the JSON patch that takes back what [CarveOut] did, wherever it is in the list now, and nothing else. ok is false if it is not there: then somebody has written the selector anew, and
// nothing in it is ours.
func Restore(np *networkingv1.NetworkPolicy, incidentUID types.UID) (patch []byte, ok bool) {
	var remove []operation
	list := np.Spec.PodSelector.MatchExpressions
	for i, r := range slices.Backward(list) { // from the end, so that the places of those before stay the same
		if isExclusion(r, incidentUID) {
			remove = append(remove, operation{Op: "remove", Path: fmt.Sprintf("%s/%d", selectorPath, i)})
		}
	}
	switch len(remove) {
	case 0:
		return nil, false
	case len(list):
		remove = []operation{{Op: "remove", Path: selectorPath}}
	}
	return patchOf(np, remove...)
}

// Owned says whether the field manager still owns what a carve-out wrote. A label selector is one value to the API server, its list of requirements is no field of its own
// (structType=atomic, https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy), so that whoever else changes anything in it owns it alone.
func Owned(np *networkingv1.NetworkPolicy, manager string) bool {
	return slices.ContainsFunc(np.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == manager && entry.Subresource == "" && entry.FieldsV1 != nil &&
			owns(entry.FieldsV1.GetRawBytes(), "f:spec", "f:podSelector", "f:matchExpressions")
	})
}

// owns says whether the path, or a field on the way to it that is owned as a whole, is in a set of fields. What cannot be read owns nothing.
func owns(raw []byte, path ...string) bool {
	for _, name := range path {
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil {
			return false
		}
		child, found := fields[name]
		if !found {
			return len(fields) == 0 // nothing below it is told apart
		}
		raw = child
	}
	return true
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patchOf is a patch that fails when the policy was replaced by a namesake or has changed since it was read.
func patchOf(np *networkingv1.NetworkPolicy, operations ...operation) ([]byte, bool) {
	tests := []operation{
		{Op: "test", Path: "/metadata/uid", Value: string(np.UID)},
		{Op: "test", Path: "/metadata/resourceVersion", Value: np.ResourceVersion},
	}
	patch, err := json.Marshal(append(tests, operations...))
	return patch, err == nil
}
