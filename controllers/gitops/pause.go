package gitops

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// reconcileLabel, "disabled" on an object in the cluster, keeps every Kustomization from applying and from pruning it.
const (
	reconcileLabel = "kustomize.toolkit.fluxcd.io/reconcile"
	disabled       = "disabled"
)

// Lease is the annotation on what is paused, for people who find it.
type Lease struct {
	Incident string      `json:"incident"`
	UID      string      `json:"uid"`
	Reason   string      `json:"reason"`
	Since    metav1.Time `json:"since"`
	Expires  metav1.Time `json:"expires"`
}

// ReadLease reads the lease of an object that has one.
func ReadLease(obj metav1.Object) (Lease, bool) {
	var lease Lease
	raw := obj.GetAnnotations()[v1alpha1.GitOpsLeaseAnnotation]
	return lease, raw != "" && json.Unmarshal([]byte(raw), &lease) == nil
}

// Before is what a manager had before it was paused.
type Before struct {
	// Automated is spec.syncPolicy.automated of an Application, null if it had none.
	Automated map[string]any `json:"automated,omitzero"`
	// Ignores says that an ApplicationSet had spec.ignoreApplicationDifferences.
	Ignores bool `json:"ignores,omitempty"`
	// Suspend is spec.suspend of Flux, null if it was not set.
	Suspend *bool `json:"suspend,omitempty"`
	// Reconcile is the label that fences it off, null if it had none.
	Reconcile *string `json:"reconcile,omitempty"`
}

// Record is what has to be given back.
func Record(obj *unstructured.Unstructured) Before {
	var out Before
	switch obj.GetKind() {
	case Application:
		out.Automated = automated(obj)
	case ApplicationSet:
		_, out.Ignores, _ = unstructured.NestedSlice(obj.Object, "spec", ignored)
	default:
		if suspended, found, _ := unstructured.NestedBool(obj.Object, "spec", "suspend"); found {
			out.Suspend = &suspended
		}
	}
	if value, found := obj.GetLabels()[reconcileLabel]; found {
		out.Reconcile = &value
	}
	return out
}

// Paused reports whether the manager changes nothing by itself, and nothing above it that is not paused undoes that. An ApplicationSet is paused for one child.
func Paused(obj *unstructured.Unstructured, child string) bool {
	return still(obj, child) && (!Fenced(obj.GetKind(), obj) || fenced(obj))
}

func still(obj *unstructured.Unstructured, child string) bool {
	switch obj.GetKind() {
	case Application:
		policy := automated(obj)
		return policy == nil || policy["enabled"] == false
	case ApplicationSet:
		return leavesAlone(obj, child)
	default:
		suspended, _, _ := unstructured.NestedBool(obj.Object, "spec", "suspend")
		return suspended
	}
}

func fenced(obj metav1.Object) bool {
	return strings.EqualFold(obj.GetLabels()[reconcileLabel], disabled) || strings.EqualFold(obj.GetAnnotations()[reconcileLabel], disabled)
}

// automated is spec.syncPolicy.automated, or nil.
func automated(app *unstructured.Unstructured) map[string]any {
	policy, _, _ := unstructured.NestedMap(app.Object, "spec", "syncPolicy", "automated")
	return policy
}

// PausePatch is the merge patch that pauses exactly what was read. Without is for servers whose Applications do not know the field enabled: automated is then taken away as a whole.
func PausePatch(obj *unstructured.Unstructured, child string, lease Lease, without bool) ([]byte, error) {
	raw, err := json.Marshal(lease)
	if err != nil {
		return nil, fmt.Errorf("writing the lease of %s %s/%s: %w", obj.GetKind(), obj.GetNamespace(), obj.GetName(), err)
	}
	labels := map[string]any{v1alpha1.GitOpsPausedLabel: lease.UID}
	body := map[string]any{}
	if Fenced(obj.GetKind(), obj) && !fenced(obj) {
		labels[reconcileLabel] = disabled
	}
	if !still(obj, child) {
		body["spec"] = stillness(obj, child, without)
	}
	return patch(obj, body, labels, map[string]any{v1alpha1.GitOpsLeaseAnnotation: string(raw)})
}

// stillness is what spec has to say for a manager to change nothing.
func stillness(obj *unstructured.Unstructured, child string, without bool) map[string]any {
	switch obj.GetKind() {
	case Application:
		var policy any = map[string]any{"enabled": false}
		if without {
			policy = nil
		}
		return map[string]any{"syncPolicy": map[string]any{"automated": policy}}
	case ApplicationSet:
		return map[string]any{ignored: append(rules(obj), rule(child))}
	default:
		return map[string]any{"suspend": true}
	}
}

// ResumePatch is the merge patch that gives back what was recorded, or nil when nothing is left to be given back. What others have changed meanwhile stays as they have it.
func ResumePatch(obj *unstructured.Unstructured, child string, was Before, incidentUID string) ([]byte, error) {
	body, labels, annotations := map[string]any{}, map[string]any{}, map[string]any{}
	if spec := motion(obj, child, was); spec != nil {
		body["spec"] = spec
	}
	if was.Reconcile == nil && obj.GetLabels()[reconcileLabel] == disabled {
		labels[reconcileLabel] = nil
	} else if was.Reconcile != nil && obj.GetLabels()[reconcileLabel] != *was.Reconcile {
		labels[reconcileLabel] = *was.Reconcile
	}
	if obj.GetLabels()[v1alpha1.GitOpsPausedLabel] == incidentUID {
		labels[v1alpha1.GitOpsPausedLabel] = nil
	}
	if lease, ok := ReadLease(obj); ok && lease.UID == incidentUID {
		annotations[v1alpha1.GitOpsLeaseAnnotation] = nil
	}
	if len(body) == 0 && len(labels) == 0 && len(annotations) == 0 {
		return nil, nil
	}
	return patch(obj, body, labels, annotations)
}

// motion is what spec has to say for a manager to do again what it did, or nil when it does.
func motion(obj *unstructured.Unstructured, child string, was Before) map[string]any {
	switch obj.GetKind() {
	case Application:
		if was.Automated == nil || !still(obj, child) {
			return nil
		}
		policy := was.Automated
		if automated(obj) != nil {
			policy = map[string]any{"enabled": was.Automated["enabled"]} // null if it had none
		}
		return map[string]any{"syncPolicy": map[string]any{"automated": policy}}
	case ApplicationSet:
		left := slices.DeleteFunc(rules(obj), func(r any) bool { return isOurs(r, child) })
		switch {
		case len(left) == len(rules(obj)):
			return nil
		case len(left) == 0 && !was.Ignores:
			return map[string]any{ignored: nil}
		}
		return map[string]any{ignored: left}
	default:
		if !still(obj, child) || was.Suspend != nil && *was.Suspend {
			return nil
		}
		if was.Suspend == nil {
			return map[string]any{"suspend": nil}
		}
		return map[string]any{"suspend": false}
	}
}

// patch binds a merge patch to the object as it was read: what somebody else changes at the same time is seen first.
func patch(obj *unstructured.Unstructured, body, labels, annotations map[string]any) ([]byte, error) {
	meta := map[string]any{"uid": string(obj.GetUID()), "resourceVersion": obj.GetResourceVersion()}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	if len(annotations) > 0 {
		meta["annotations"] = annotations
	}
	body["metadata"] = meta
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("changing %s %s/%s: %w", obj.GetKind(), obj.GetNamespace(), obj.GetName(), err)
	}
	return raw, nil
}

// Writer is the program, other than ourselves, that has changed the object last, as far as managedFields tells, or "". Who only takes something away leaves no trace there.
func Writer(obj metav1.Object, ourselves string) string {
	var name string
	var at time.Time
	for _, m := range obj.GetManagedFields() {
		if m.Subresource == "" && m.Manager != ourselves && m.Time != nil && !m.Time.Time.Before(at) {
			name, at = m.Manager, m.Time.Time
		}
	}
	return name
}
