package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// templateRecord is what is needed to put a template back.
type templateRecord struct {
	// Images are the images of the containers that the plan lists.
	Images map[string]string `json:"images"`
	// Mark is the annotation by which an Incident had marked it; empty if none had.
	Mark      string `json:"mark,omitempty"`
	Partition int32  `json:"partition,omitempty"`
	// Template is all of it, where all of it is changed.
	Template *corev1.PodTemplateSpec `json:"template,omitempty"`
}

// recordTemplate records what a rollback is about to change. It says why that cannot be recorded, or "".
func recordTemplate(x *Execution, step v1alpha1.RecoveryStep, w *workload, good v1alpha1.KnownGoodImages) (string, error) {
	was := templateRecord{Images: map[string]string{}, Mark: w.template.Annotations[v1alpha1.RecoveredByAnnotation], Partition: w.partition}
	for _, want := range good.Containers {
		if c := container(&w.template.Spec, want.Name); c != nil {
			was.Images[want.Name] = c.Image
		}
	}
	if step.RollBackImages.Restore == v1alpha1.RestoredTemplate {
		was.Template = w.template
	}
	data, err := json.Marshal(was)
	if err != nil {
		return "", fmt.Errorf("recording the template of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	if why := x.unrecordable(step.Name, w.ref, data); why != "" {
		return fmt.Sprintf("the pod template of %s %s cannot be recorded, and so not be put back: %s; or use restore Images", w.ref.Kind, w.ref.Name, why), nil
	}
	x.Record(step.Name, v1alpha1.StepRecord{Object: w.ref, ResourceVersion: w.object.GetResourceVersion(), Data: string(data)})
	return "", nil
}

// templateBefore is what was recorded of a workload, or nil.
func templateBefore(x *Execution, step string, w *workload) (*templateRecord, error) {
	record := x.Recorded(step, w.ref)
	if record == nil {
		return nil, nil
	}
	var was templateRecord
	if err := json.Unmarshal([]byte(record.Data), &was); err != nil {
		return nil, fmt.Errorf("reading what was recorded of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	return &was, nil
}

// Undo gives every workload the images back that it had. They are those of the compromised revision, whose quarantine is still in force: a step that a release depends on cannot be undone once that has begun.
func (rollBackImages) Undo(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return each(step.RollBackImages.Workloads, func(ref v1alpha1.WorkloadRef) (Outcome, error) {
		if createdAnew(ref.Kind) {
			return undoRecreation(ctx, x, step, ref)
		}
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil || w == nil {
			return waiting("%s", why), err
		}
		if good := knownGood(x.Plan, string(ref.Kind), ref.Name); good != nil && good.Owner.Name != "" {
			return undoOwner(ctx, x, step.Name, w, *good)
		}
		was, err := templateBefore(x, step.Name, w)
		if err != nil || was == nil {
			return done("%s %s was not changed", ref.Kind, ref.Name), err
		}
		return putBack(ctx, x, w, was)
	})
}

func putBack(ctx context.Context, x *Execution, w *workload, was *templateRecord) (Outcome, error) {
	if w.partition != was.Partition {
		return waiting("%s %s is about to have its partition again", w.ref.Kind, w.ref.Name), setPartition(ctx, x, v1alpha1.ActionReturnPartition, w, was.Partition)
	}
	before := v1alpha1.KnownGoodImages{}
	for _, name := range slices.Sorted(maps.Keys(was.Images)) {
		before.Containers = append(before.Containers, v1alpha1.ContainerImage{Name: name, Image: was.Images[name]})
	}
	patch, detail, impossible := w.change(before, was.Mark)
	if was.Template != nil {
		var err error
		if patch, detail, err = w.replaceTemplate(x, was.Template, "as it was"); err != nil {
			return Outcome{}, err
		}
		impossible = ""
	}
	if impossible != "" {
		return waiting("%s", impossible), nil
	}
	if patch == nil {
		x.Journal.Done(v1alpha1.ActionReturnPartition, w.ref)
		x.Journal.Done(v1alpha1.ActionRollBackImages, w.changed())
		return done("%s %s has the pod template again that it had", w.ref.Kind, w.ref.Name), nil
	}
	return applyChange(ctx, x, w, patch, detail)
}
