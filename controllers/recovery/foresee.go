package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// foreseer is an Action that can say what it will change before its turn comes. Foresee journals that, and records what has to be recorded, where it can be known already; it writes nothing.
type foreseer interface {
	Foresee(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) error
}

// Foresee journals what the steps will change that wait for nothing but steps that are under way. When those succeed, what was foreseen is durable, and is done in the same pass, instead of after one more status and one
// more entry of the ledger. A crash in between leaves an intent, and steps that look at the cluster anew.
func Foresee(ctx context.Context, x *Execution) error {
	for _, i := range soon(x.Plan.Steps, x.Steps) {
		step := x.Plan.Steps[i]
		action, ok := ActionFor(step).(foreseer)
		if !ok || x.heldBack(step) != "" {
			continue
		}
		if err := action.Foresee(ctx, x, step); err != nil {
			return fmt.Errorf("step %s: %w", step.Name, err)
		}
	}
	return nil
}

// soon are the steps that have not started, and whose dependencies have succeeded or are about to. A step whose success is not durable is looked at anew after a crash: what is done meanwhile must leave it true. That is so
// of steps that roll back and scale, with the exception in scale.Foresee, and not of what may be asked of any object; people decide for themselves.
func soon(steps []v1alpha1.RecoveryStep, status []v1alpha1.StepStatus) []int {
	near := map[string]bool{}
	for i, step := range steps {
		state := status[i].State
		if halts(step, state) {
			return nil
		}
		near[step.Name] = lets(step, state) || state == v1alpha1.StepRunning && (step.RollBackImages != nil || step.Scale != nil) && step.Gate == nil
	}
	var out []int
	for i, step := range steps {
		if status[i].State == v1alpha1.StepPending && len(step.DependsOn) > 0 && !slices.ContainsFunc(step.DependsOn, func(d string) bool { return !near[d] }) {
			out = append(out, i)
		}
	}
	return out
}

// Foresee journals that workloads get the replicas back that were recorded.
func (scale) Foresee(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) error {
	if step.Scale.To == v1alpha1.ScaleToZero {
		return nil // how many there are then is recorded then
	}
	for _, s := range step.Scale.Workloads {
		w, _, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name})
		if err != nil {
			return err
		}
		if w == nil || beingScaledDown(x, s) {
			continue
		}
		record := recordedAnywhere(x, w.ref)
		var was scaled
		if record == nil || json.Unmarshal([]byte(record.Data), &was) != nil || was.Replicas == 0 {
			continue
		}
		x.Journal.IntendAnew(v1alpha1.ActionRestoreReplicas, w.ref, scaleBackDetail(was.Replicas))
	}
	return nil
}

// beingScaledDown reports whether a step is under way that scales the workload to zero: it would begin again if the workload had its replicas back before its success is durable.
func beingScaledDown(x *Execution, workload v1alpha1.ScaledWorkload) bool {
	for i, step := range x.Plan.Steps {
		if step.Scale != nil && step.Scale.To == v1alpha1.ScaleToZero && started(x.Steps[i].State) && slices.Contains(step.Scale.Workloads, workload) {
			return true
		}
	}
	return false
}

// Foresee journals that workloads get their known-good images, where that is one change of one object.
func (rollBackImages) Foresee(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) error {
	for _, ref := range step.RollBackImages.Workloads {
		good := knownGood(x.Plan, string(ref.Kind), ref.Name)
		if good == nil || good.Owner.Name != "" || createdAnew(ref.Kind) {
			continue
		}
		w, _, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil {
			return err
		}
		if w == nil || ownerAbove(w.object) != "" {
			continue
		}
		patch, detail, impossible := w.change(*good, string(x.Incident.UID))
		if patch == nil || impossible != "" {
			continue
		}
		if why, err := recordTemplate(x, step, w, *good); err != nil || why != "" {
			return err // it is said when its turn comes
		}
		x.Journal.IntendAnew(v1alpha1.ActionRollBackImages, w.changed(), detail)
	}
	return nil
}
