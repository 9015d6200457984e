package recovery

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=list;patch

const (
	scaledObjectKind = "ScaledObject"
	// kedaPaused lets KEDA leave the workload of a ScaledObject alone (KEDA documentation, "Pausing autoscaling").
	kedaPaused = "autoscaling.keda.sh/paused"
)

// scaledObject is the ScaledObject that scales the workload, or nil.
func scaledObject(ctx context.Context, r client.Reader, w *workload) (*unstructured.Unstructured, error) {
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
	for i := range list.Items {
		target, _, _ := unstructured.NestedStringMap(list.Items[i].Object, "spec", "scaleTargetRef")
		kind := target["kind"]
		if kind == "" {
			kind = "Deployment" // KEDA's default
		}
		if kind == w.ref.Kind && target["name"] == w.ref.Name {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// pauseKEDA pauses the ScaledObject of a workload, if it has one that is not paused, and reports whether nothing is left to be done.
func pauseKEDA(ctx context.Context, x *Execution, step string, w *workload) (bool, error) {
	object, err := scaledObject(ctx, x.Reader, w)
	if err != nil || object == nil {
		return err == nil, err
	}
	ref := v1alpha1.ObjectRef{Kind: scaledObjectKind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
	if _, paused := object.GetAnnotations()[kedaPaused]; paused {
		x.Journal.Done(v1alpha1.ActionPauseAutoscaler, ref)
		return true, nil
	}
	x.Record(step, v1alpha1.StepRecord{Object: ref, ResourceVersion: object.GetResourceVersion(), Data: "{}"})
	if !x.Journal.IntendAnew(v1alpha1.ActionPauseAutoscaler, ref, "the workload is scaled by the recovery") {
		return false, nil
	}
	return false, annotate(ctx, x, ref, object, "true")
}

// resumeKEDA takes that back, if it was this recovery that paused it, and reports whether nothing is left to be done.
func resumeKEDA(ctx context.Context, x *Execution, w *workload) (bool, error) {
	object, err := scaledObject(ctx, x.Reader, w)
	if err != nil || object == nil {
		return err == nil, err
	}
	ref := v1alpha1.ObjectRef{Kind: scaledObjectKind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
	_, paused := object.GetAnnotations()[kedaPaused]
	if !paused || recordedAnywhere(x, ref) == nil {
		x.Journal.Done(v1alpha1.ActionResumeAutoscaler, ref)
		return true, nil
	}
	if !x.Journal.IntendAnew(v1alpha1.ActionResumeAutoscaler, ref, "the workload has its replicas again") {
		return false, nil
	}
	return false, annotate(ctx, x, ref, object, nil)
}

// annotate sets the annotation, or takes it off.
func annotate(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, object client.Object, value any) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": ref.UID, "resourceVersion": object.GetResourceVersion(), "annotations": map[string]any{kedaPaused: value},
	}})
	if err != nil {
		return fmt.Errorf("pausing or resuming ScaledObject %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: fmt.Sprintf("%s: %v", kedaPaused, value)}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, object, client.RawPatch(types.MergePatchType, body))
	})
}
