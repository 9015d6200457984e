package gitops

import (
	"context"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kustomization makes one pass over a Kustomization: unless it is suspended, everything in its path is applied, but for what carries the label that disables that.
func (s *Simulation) kustomization(ctx context.Context, k *unstructured.Unstructured) error {
	if suspended, _, _ := unstructured.NestedBool(k.Object, "spec", "suspend"); suspended && !s.running(k.GetName()) {
		return nil
	}
	path, _, _ := unstructured.NestedString(k.Object, "spec", "path")
	manifests, revision := s.Git.Render(path)
	if !s.running(k.GetName()) {
		s.begin(k.GetName(), manifests)
		if s.holds(k.GetName()) {
			return s.ready(ctx, k, "Unknown", "Progressing", revision)
		}
	}
	if s.holds(k.GetName()) {
		return nil
	}
	for _, m := range s.rendered(k.GetName()) {
		if err := s.applyUnlessDisabled(ctx, k, m); err != nil {
			return err
		}
	}
	return s.ready(ctx, k, "True", "ReconciliationSucceeded", revision)
}

func (s *Simulation) applyUnlessDisabled(ctx context.Context, k, m *unstructured.Unstructured) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(m.GroupVersionKind())
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(m), live); client.IgnoreNotFound(err) != nil {
		return err
	}
	const reconcile = "kustomize.toolkit.fluxcd.io/reconcile"
	if strings.EqualFold(live.GetLabels()[reconcile], "disabled") || strings.EqualFold(live.GetAnnotations()[reconcile], "disabled") {
		return nil
	}
	labels := map[string]string{kustomizeName: k.GetName(), "kustomize.toolkit.fluxcd.io/namespace": k.GetNamespace()}
	maps.Copy(labels, m.GetLabels())
	m.SetLabels(labels)
	return s.apply(ctx, m, "kustomize-controller")
}

// ready writes the status of a Kustomization.
func (s *Simulation) ready(ctx context.Context, k *unstructured.Unstructured, status, reason, revision string) error {
	before := k.DeepCopy()
	set(k, k.GetGeneration(), "status", "observedGeneration")
	set(k, revision, "status", "lastAppliedRevision")
	set(k, []any{map[string]any{"type": "Ready", "status": status, "reason": reason, "message": reason}}, "status", "conditions")
	if within(k.Object["status"], before.Object["status"]) {
		return nil
	}
	return s.Client.Status().Patch(ctx, k, client.MergeFrom(before))
}
