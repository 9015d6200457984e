package recovery

import (
	"context"
	"encoding/json"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=list;patch

// scalersFromZero are the HorizontalPodAutoscalers of the workload that may scale it up from zero: those with minReplicas 0 (KEP-2021, on by default from Kubernetes 1.37). All others are disabled by the API's contract
// while a workload has no replicas.
func scalersFromZero(ctx context.Context, r client.Reader, w *workload) ([]autoscaler, error) {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := r.List(ctx, &list, client.InNamespace(w.ref.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the HorizontalPodAutoscalers in namespace %s: %w", w.ref.Namespace, err)
	}
	var out []autoscaler
	for i := range list.Items {
		h := &list.Items[i]
		target := h.Spec.ScaleTargetRef
		if target.Kind != w.ref.Kind || target.Name != w.ref.Name || ptr.Deref(h.Spec.MinReplicas, 1) > 0 {
			continue
		}
		a, err := pausedByBehavior(h)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// pausedByBehavior forbids it to scale up, which is how the API lets one direction be disabled (Kubernetes documentation, "Horizontal Pod Autoscaling", scaling policies).
func pausedByBehavior(h *autoscalingv2.HorizontalPodAutoscaler) (autoscaler, error) {
	data, err := json.Marshal(h.Spec.Behavior)
	if err != nil {
		return autoscaler{}, fmt.Errorf("recording HorizontalPodAutoscaler %s/%s: %w", h.Namespace, h.Name, err)
	}
	b := h.Spec.Behavior
	return autoscaler{
		ref:    v1alpha1.ObjectRef{Kind: "HorizontalPodAutoscaler", Namespace: h.Namespace, Name: h.Name, UID: string(h.UID)},
		object: h, was: string(data), back: behaviorBack,
		paused: b != nil && b.ScaleUp != nil && ptr.Deref(b.ScaleUp.SelectPolicy, "") == autoscalingv2.DisabledPolicySelect,
		pause:  behavior(map[string]any{"scaleUp": map[string]any{"selectPolicy": autoscalingv2.DisabledPolicySelect}}),
	}, nil
}

// behaviorBack gives back how it scaled up; how it scales down is left as it is by now.
func behaviorBack(was string) (map[string]any, error) {
	var b *autoscalingv2.HorizontalPodAutoscalerBehavior
	if err := json.Unmarshal([]byte(was), &b); err != nil {
		return nil, err
	}
	if b == nil {
		return behavior(nil), nil
	}
	return behavior(map[string]any{"scaleUp": b.ScaleUp}), nil
}

func behavior(fields map[string]any) map[string]any {
	var value any
	if fields != nil {
		value = fields
	}
	return map[string]any{"spec": map[string]any{"behavior": value}}
}
