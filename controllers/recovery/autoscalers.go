package recovery

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// autoscaler is an object that has a workload scaled by itself, and what stops it from doing so.
type autoscaler struct {
	ref    v1alpha1.ObjectRef
	object client.Object
	// paused says that it leaves a workload without replicas alone.
	paused bool
	// pause are the fields that pause it, and was what is recorded of them: what they are before.
	pause map[string]any
	was   string
	// back are the fields that give it back what was recorded.
	back func(was string) (map[string]any, error)
}

// autoscalersOf are the autoscalers of the workload that would not leave it alone while it has no replicas, paused ones included.
func autoscalersOf(ctx context.Context, r client.Reader, w *workload) ([]autoscaler, error) {
	objects, err := scaledObjects(ctx, r, w)
	if err != nil {
		return nil, err
	}
	scalers, err := scalersFromZero(ctx, r, w)
	return append(objects, scalers...), err
}

// pauseAutoscalers pauses them, and reports whether nothing is left to be done.
func pauseAutoscalers(ctx context.Context, x *Execution, step string, w *workload) (bool, error) {
	all, err := autoscalersOf(ctx, x.Reader, w)
	if err != nil {
		return false, err
	}
	ready := true
	for _, a := range all {
		if a.paused {
			x.Journal.Done(v1alpha1.ActionPauseAutoscaler, a.ref)
			continue
		}
		ready = false
		if len(a.was) > maxRecord {
			return false, fmt.Errorf("%s %s/%s cannot be recorded, and so not be resumed: what it says of scaling has more than %d bytes", a.ref.Kind, a.ref.Namespace, a.ref.Name, maxRecord)
		}
		x.Record(step, v1alpha1.StepRecord{Object: a.ref, ResourceVersion: a.object.GetResourceVersion(), Data: a.was})
		if !x.Journal.IntendAnew(v1alpha1.ActionPauseAutoscaler, a.ref, "the workload is scaled by the recovery") {
			continue
		}
		if err := a.patch(ctx, x, a.pause, "pause: the workload is scaled by the recovery"); err != nil {
			return false, err
		}
	}
	return ready, nil
}

// resumeAutoscalers takes that back of those that this recovery has paused, and reports whether nothing is left to be done.
func resumeAutoscalers(ctx context.Context, x *Execution, w *workload) (bool, error) {
	all, err := autoscalersOf(ctx, x.Reader, w)
	if err != nil {
		return false, err
	}
	ready := true
	for _, a := range all {
		record := recordedAnywhere(x, a.ref)
		if !a.paused || record == nil {
			x.Journal.Done(v1alpha1.ActionResumeAutoscaler, a.ref)
			continue
		}
		ready = false
		if !x.Journal.IntendAnew(v1alpha1.ActionResumeAutoscaler, a.ref, "the workload has its replicas again") {
			continue
		}
		fields, err := a.back(record.Data)
		if err != nil {
			return false, fmt.Errorf("reading what was recorded of %s %s/%s: %w", a.ref.Kind, a.ref.Namespace, a.ref.Name, err)
		}
		if err := a.patch(ctx, x, fields, "resume: the workload has its replicas again"); err != nil {
			return false, err
		}
	}
	return ready, nil
}

// patch changes fields of exactly the object that was read.
func (a autoscaler) patch(ctx context.Context, x *Execution, fields map[string]any, detail string) error {
	meta, _ := fields["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		fields["metadata"] = meta
	}
	meta["uid"], meta["resourceVersion"] = a.ref.UID, a.object.GetResourceVersion()
	body, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("pausing or resuming %s %s/%s: %w", a.ref.Kind, a.ref.Namespace, a.ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: a.ref, Detail: detail}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, a.object, client.RawPatch(types.MergePatchType, body))
	})
}
