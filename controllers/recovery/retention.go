package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// deletesClaims reports whether scaling the workload down deletes claims: a StatefulSet whose retention policy says so (KEP-1847).
func deletesClaims(w *workload) bool {
	s, ok := w.object.(*appsv1.StatefulSet)
	return ok && s.Spec.PersistentVolumeClaimRetentionPolicy != nil && s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// retainClaims sees to it that scaling to zero deletes no claim, and reports whether it would not. The policy is changed first, and its effect awaited: a pod that owns a claim takes it along.
func retainClaims(ctx context.Context, x *Execution, step string, w *workload) (bool, error) {
	if deletesClaims(w) {
		if err := recordReplicas(x, step, w); err != nil {
			return false, err
		}
		if !x.Journal.IntendAnew(v1alpha1.ActionRetainClaims, w.ref, "persistentVolumeClaimRetentionPolicy.whenScaled: Delete -> Retain") {
			return false, nil
		}
		return false, patchRetention(ctx, x, w, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	}
	x.Journal.Done(v1alpha1.ActionRetainClaims, w.ref)
	for _, name := range claimsOf(w) {
		claim, err := readClaim(ctx, x, name)
		if err != nil {
			return false, err
		}
		if claim != nil && slices.ContainsFunc(claim.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Pod" }) {
			return false, nil
		}
	}
	return true, nil
}

// claimsOf are the names of the claims that a StatefulSet has for its pods.
func claimsOf(w *workload) []string {
	s, ok := w.object.(*appsv1.StatefulSet)
	if !ok {
		return nil
	}
	var out []string
	for _, template := range s.Spec.VolumeClaimTemplates {
		for _, pod := range w.names {
			out = append(out, template.Name+"-"+pod)
		}
	}
	return out
}

// returnRetention gives a StatefulSet the retention policy back that it had, and reports whether it has it.
func returnRetention(ctx context.Context, x *Execution, w *workload, was scaled) (bool, error) {
	if was.WhenScaled == "" || deletesClaims(w) {
		x.Journal.Done(v1alpha1.ActionReturnRetention, w.ref)
		return true, nil
	}
	if !x.Journal.IntendAnew(v1alpha1.ActionReturnRetention, w.ref, "persistentVolumeClaimRetentionPolicy.whenScaled: Retain -> Delete") {
		return false, nil
	}
	return false, patchRetention(ctx, x, w, appsv1.PersistentVolumeClaimRetentionPolicyType(was.WhenScaled))
}

func patchRetention(ctx context.Context, x *Execution, w *workload, policy appsv1.PersistentVolumeClaimRetentionPolicyType) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()},
		"spec":     map[string]any{"persistentVolumeClaimRetentionPolicy": map[string]any{"whenScaled": policy}},
	})
	if err != nil {
		return fmt.Errorf("changing the retention policy of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: w.ref, Detail: fmt.Sprintf("persistentVolumeClaimRetentionPolicy.whenScaled: %s", policy)}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, w.object, client.RawPatch(types.MergePatchType, body))
	})
}
