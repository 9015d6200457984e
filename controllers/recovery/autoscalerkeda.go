package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=list;patch

const (
	scaledObjectKind = "ScaledObject"
	// kedaPaused has KEDA leave the workload of a ScaledObject alone, and kedaPausedAt scale it to a number and then leave it alone; with both, the number counts (KEDA documentation, "Pausing autoscaling").
	kedaPaused   = "autoscaling.keda.sh/paused"
	kedaPausedAt = "autoscaling.keda.sh/paused-replicas"
)

// kedaRecord is what the annotations of a ScaledObject were; null where it had none.
type kedaRecord struct {
	Paused   *string `json:"paused,omitempty"`
	PausedAt *string `json:"pausedAt,omitempty"`
}

// scaledObjects are the ScaledObjects that scale the workload.
func scaledObjects(ctx context.Context, r client.Reader, w *workload) ([]autoscaler, error) {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("keda.sh/v1alpha1")
	list.SetKind(scaledObjectKind + "List")
	err := r.List(ctx, list, client.InNamespace(w.ref.Namespace))
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing KEDA ScaledObjects in namespace %s: %w", w.ref.Namespace, err)
	}
	var out []autoscaler
	for i := range list.Items {
		o := &list.Items[i]
		target, _, _ := unstructured.NestedStringMap(o.Object, "spec", "scaleTargetRef")
		kind := target["kind"]
		if kind == "" {
			kind = "Deployment" // KEDA's default
		}
		if kind != w.ref.Kind || target["name"] != w.ref.Name {
			continue
		}
		a, err := pausedByAnnotation(o)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func pausedByAnnotation(o *unstructured.Unstructured) (autoscaler, error) {
	var was kedaRecord
	if v, ok := o.GetAnnotations()[kedaPaused]; ok {
		was.Paused = &v
	}
	if v, ok := o.GetAnnotations()[kedaPausedAt]; ok {
		was.PausedAt = &v
	}
	data, err := json.Marshal(was)
	if err != nil {
		return autoscaler{}, fmt.Errorf("recording %s %s/%s: %w", scaledObjectKind, o.GetNamespace(), o.GetName(), err)
	}
	pause := map[string]any{kedaPaused: "true"}
	if was.PausedAt != nil {
		pause = map[string]any{kedaPausedAt: "0"}
	}
	return autoscaler{
		ref:    v1alpha1.ObjectRef{Kind: scaledObjectKind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID())},
		object: o, paused: was.leavesAlone(), pause: annotations(pause), was: string(data), back: kedaBack,
	}, nil
}

// leavesAlone reports whether KEDA leaves a workload without replicas alone. It takes a value that it cannot read for a wish to pause.
func (r kedaRecord) leavesAlone() bool {
	switch {
	case r.PausedAt != nil:
		return *r.PausedAt == "0"
	case r.Paused == nil:
		return false
	}
	paused, err := strconv.ParseBool(*r.Paused)
	return paused || err != nil
}

func kedaBack(was string) (map[string]any, error) {
	var r kedaRecord
	if err := json.Unmarshal([]byte(was), &r); err != nil {
		return nil, err
	}
	return annotations(map[string]any{kedaPaused: r.Paused, kedaPausedAt: r.PausedAt}), nil
}

func annotations(values map[string]any) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": values}}
}
