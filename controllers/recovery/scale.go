package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// scale changes the replicas of workloads. What they were is in the records of the step that scaled them down.
type scale struct{}

// scaled is what is recorded of a workload before it is scaled.
type scaled struct {
	Replicas int32 `json:"replicas"`
	// WhenScaled is the retention policy of a StatefulSet's claims, if scaling down would have deleted them.
	WhenScaled string `json:"whenScaled,omitempty"`
}

func (scale) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if why := unsettled(x); why != "" && step.Scale.To == v1alpha1.ScaleToZero {
		return waiting("%s", why), nil
	}
	return eachScaled(ctx, x, step, func(w *workload) (Outcome, error) {
		if step.Scale.To == v1alpha1.ScaleToZero {
			return scaleToZero(ctx, x, step.Name, w)
		}
		record := recordedAnywhere(x, w.ref)
		if record == nil && x.Steps == nil {
			return done("%s %s gets the replicas back that it had", w.ref.Kind, w.ref.Name), nil // nothing is recorded in a rehearsal
		}
		if record == nil {
			return waiting("%s %s was not scaled by this recovery: skip the step, or correct the plan", w.ref.Kind, w.ref.Name), nil
		}
		return scaleBack(ctx, x, w, record)
	})
}

// Undo gives the workloads back what this step took; what it gave back is not taken again.
func (scale) Undo(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return eachScaled(ctx, x, step, func(w *workload) (Outcome, error) {
		record := x.Recorded(step.Name, w.ref)
		if record == nil {
			return done("%s %s was not scaled by this step", w.ref.Kind, w.ref.Name), nil
		}
		return scaleBack(ctx, x, w, record)
	})
}

// eachScaled reads every workload of the step and brings it on.
func eachScaled(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, one func(*workload) (Outcome, error)) (Outcome, error) {
	return each(step.Scale.Workloads, func(s v1alpha1.ScaledWorkload) (Outcome, error) {
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name})
		if err != nil || w == nil {
			return waiting("%s", why), err
		}
		return one(w)
	})
}

func scaleToZero(ctx context.Context, x *Execution, step string, w *workload) (Outcome, error) {
	name := w.ref.Kind + " " + w.ref.Name
	if paused, err := pauseAutoscalers(ctx, x, step, w); err != nil || !paused {
		return waiting("%s: what scales it by itself is about to be paused", name), err
	}
	if retained, err := retainClaims(ctx, x, step, w); err != nil || !retained {
		return waiting("%s: waits until scaling it down deletes no claim", name), err
	}
	if w.wanted > 0 || x.Recorded(step, w.ref) == nil {
		return setReplicas(ctx, x, step, w, 0)
	}
	x.Journal.Done(v1alpha1.ActionScale, w.ref)
	if !w.observed {
		return waiting("%s: its controller has not yet seen that it is to have no replicas", name), nil
	}
	if left := livePods(x, w); len(left) > 0 {
		return waiting("%s: pods have not ended: %s", name, strings.Join(left, ", ")), nil
	}
	return done("%s has no pods", name), nil
}

// livePods are the pods that the workload still has. Quarantined pods that were detached are not among them.
func livePods(x *Execution, w *workload) []string {
	var out []string
	for _, p := range workloadPods(x.All, w) {
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			out = append(out, p.Name)
		}
	}
	return out
}

func scaleBack(ctx context.Context, x *Execution, w *workload, record *v1alpha1.StepRecord) (Outcome, error) {
	name := w.ref.Kind + " " + w.ref.Name
	var was scaled
	if err := json.Unmarshal([]byte(record.Data), &was); err != nil {
		return Outcome{}, fmt.Errorf("reading what was recorded of %s: %w", name, err)
	}
	if w.wanted == 0 && was.Replicas > 0 {
		return restoreReplicas(ctx, x, w, was.Replicas)
	}
	x.Journal.Done(v1alpha1.ActionRestoreReplicas, w.ref)
	if resumed, err := resumeAutoscalers(ctx, x, w); err != nil || !resumed {
		return waiting("%s: what scales it by itself is about to be resumed", name), err
	}
	if returned, err := returnRetention(ctx, x, w, was); err != nil || !returned {
		return waiting("%s is about to have its retention policy for claims again", name), err
	}
	ready := int32(0)
	for _, p := range workloadPods(x.All, w) {
		if isReady(p) {
			ready++
		}
	}
	if ready < w.wanted {
		return waiting("%s: %d of %d pods are ready", name, ready, w.wanted), nil
	}
	return done("%s has %d pods again", name, ready), nil
}

// recordedAnywhere is what any step of the recovery has recorded of the replicas of a workload, first of all the one that did so first.
func recordedAnywhere(x *Execution, ref v1alpha1.ObjectRef) *v1alpha1.StepRecord {
	for i, step := range x.Plan.Steps {
		if step.Scale == nil || i >= len(x.Steps) {
			continue
		}
		if r := x.Recorded(step.Name, ref); r != nil {
			return r
		}
	}
	return nil
}

func setReplicas(ctx context.Context, x *Execution, step string, w *workload, replicas int32) (Outcome, error) {
	if err := recordReplicas(x, step, w); err != nil {
		return Outcome{}, err
	}
	out := waiting("%s %s is about to be scaled from %d to %d", w.ref.Kind, w.ref.Name, w.wanted, replicas)
	detail := fmt.Sprintf("scale from %d to %d", w.wanted, replicas)
	if !x.Journal.IntendAnew(v1alpha1.ActionScale, w.ref, detail) {
		return out, nil
	}
	return out, patchReplicas(ctx, x, w, replicas, detail)
}

// recordReplicas records what is needed to scale the workload back.
func recordReplicas(x *Execution, step string, w *workload) error {
	was := scaled{Replicas: w.wanted}
	if deletesClaims(w) {
		was.WhenScaled = string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType)
	}
	data, err := json.Marshal(was)
	if err != nil {
		return fmt.Errorf("recording the replicas of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	x.Record(step, v1alpha1.StepRecord{Object: w.ref, ResourceVersion: w.object.GetResourceVersion(), Data: string(data)})
	return nil
}

func restoreReplicas(ctx context.Context, x *Execution, w *workload, replicas int32) (Outcome, error) {
	out := waiting("%s %s is about to have its %d replicas again", w.ref.Kind, w.ref.Name, replicas)
	detail := scaleBackDetail(replicas)
	if !x.Journal.IntendAnew(v1alpha1.ActionRestoreReplicas, w.ref, detail) {
		return out, nil
	}
	return out, patchReplicas(ctx, x, w, replicas, detail)
}

func scaleBackDetail(replicas int32) string { return fmt.Sprintf("scale from 0 back to %d", replicas) }

// patchReplicas writes the replicas of exactly this workload, as it was read: somebody else who scales it at the same time is seen first.
func patchReplicas(ctx context.Context, x *Execution, w *workload, replicas int32, detail string) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()},
		"spec":     map[string]any{"replicas": replicas},
	})
	if err != nil {
		return fmt.Errorf("scaling %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: w.ref, Detail: detail}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, w.object, client.RawPatch(types.MergePatchType, body))
	})
}
