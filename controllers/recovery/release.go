package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// release lifts quarantine, and observes what comes of it.
type release struct{}

func (release) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	status := x.Status(step.Name)
	if status == nil || status.ObservedSince.IsZero() {
		return let(ctx, x, step, status)
	}
	why, unseen, err := relapse(ctx, x, step, status.ObservedSince)
	if err != nil {
		return Outcome{}, err // what cannot be seen is neither good nor bad; the next pass looks again
	}
	if why != "" {
		return x.quarantineAgain(step, why), nil
	}
	if unseen != "" {
		return waiting("released, and not observed at the moment: %s", unseen).after(unwatched), nil
	}
	end := status.ObservedSince.Add(time.Duration(step.Release.ObserveSeconds) * time.Second)
	if x.Now.Before(new(metav1.NewTime(end))) {
		return waiting("released, and observed until %s", end.UTC().Format(time.RFC3339)).after(sooner(end.Sub(x.Now.Time), asksAgain(&step.Release.Watched))), nil
	}
	return done("released, and observed for %d seconds", step.Release.ObserveSeconds), nil
}

// let releases, once what is watched is healthy, and begins to observe if the step says so. What is released once more after a relapse need not be healthy before: in quarantine it may not be able to.
func let(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, status *v1alpha1.StepStatus) (Outcome, error) {
	if why := compromisedWave(x, step); why != "" {
		return waiting("nothing is released: %s", why), nil
	}
	if !onceMore(x.Incident.Status.Recovery, step.Name) {
		if why, err := notBack(ctx, x, step); err != nil || why != "" {
			return waiting("nothing is released: %s", why), err
		}
		if out, err := watch(ctx, x, step); err != nil || !out.Done {
			return out, err
		}
	}
	out, err := x.Release(ctx, step)
	if err != nil || !out.Done || step.Release.ObserveSeconds == 0 || status == nil {
		return out, err
	}
	if healthy, err := watch(ctx, x, step); err != nil || !healthy.Done {
		return healthy, err
	}
	status.ObservedSince = x.Now
	return waiting("%s; what was released is observed now", out.Message).after(time.Second), nil
}

// notBack says which workload of the wave does not have its known-good images, or "". A step that was to roll it back may have been skipped, or have failed where that is allowed, and a workload without pods tells nothing.
func notBack(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (string, error) {
	if step.Release.HeldPods == v1alpha1.HeldPodRestore || x.Steps == nil {
		return "", nil // what is held was found to be clean; in a rehearsal nothing was rolled back
	}
	for _, ref := range Wave(x.Plan, step) {
		good := knownGood(x.Plan, string(ref.Kind), ref.Name)
		if good == nil || createdAnew(ref.Kind) {
			continue
		}
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil || w == nil {
			return why, err
		}
		if !imagesMatch(*good, &w.template.Spec) {
			return fmt.Sprintf("%s %s does not have its known-good images: have the step retried that rolls it back", ref.Kind, ref.Name), nil
		}
	}
	return "", nil
}

// onceMore reports whether the step has released something that relapsed.
func onceMore(rec *v1alpha1.RecoveryStatus, step string) bool {
	return rec != nil && slices.ContainsFunc(rec.Relapses, func(r v1alpha1.Relapse) bool { return r.Step == step })
}

// watch looks whether everything is healthy that the step watches.
func watch(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	watched := &step.Release.Watched
	if len(watched.Objects)+len(watched.Prometheus) == 0 {
		return done("nothing is watched"), nil
	}
	return observe(ctx, x, watched)
}

// relapse says why what was released has to be quarantined again, or "", and what could not be looked at.
func relapse(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, since metav1.Time) (why, unseen string, err error) {
	if why := compromisedWave(x, step); why != "" {
		return why, "", nil
	}
	out, err := watch(ctx, x, step)
	if err != nil {
		return "", "", err
	}
	found := strings.TrimPrefix(out.Message, "waits: ")
	switch {
	case out.Unseen:
		unseen = found
	case !out.Done:
		return "what is watched is not healthy any more: " + found, "", nil
	}
	others, err := x.Others(ctx)
	if err != nil {
		return "", "", err
	}
	for _, other := range others {
		if named := namedBy(&other, Wave(x.Plan, step), x.Incident.Namespace, since); named != "" {
			return fmt.Sprintf("Incident %s/%s, declared since, names %s", other.Namespace, other.Name, named), "", nil
		}
	}
	return "", unseen, nil
}

// namedBy is the workload of the wave that another Incident, declared at that time or later and in force, names as its target; or "".
func namedBy(other *v1alpha1.Incident, wave []v1alpha1.WorkloadRef, namespace string, since metav1.Time) string {
	if other.CreationTimestamp.Before(&since) || other.Spec.Mode != v1alpha1.ModeEnforce || !other.Status.ReleasedAt.IsZero() {
		return ""
	}
	for _, t := range other.Status.Targets {
		for _, w := range wave {
			if string(t.Kind) == string(w.Kind) && t.Name == w.Name && t.Namespace == namespace {
				return w.Name
			}
		}
	}
	return ""
}

// Wave are the workloads that a release step releases.
func Wave(plan v1alpha1.RecoveryPlanSpec, step v1alpha1.RecoveryStep) []v1alpha1.WorkloadRef {
	if len(step.Release.Workloads) > 0 {
		return step.Release.Workloads
	}
	var out []v1alpha1.WorkloadRef
	for _, s := range plan.Steps {
		if s.RollBackImages != nil {
			out = append(out, s.RollBackImages.Workloads...)
		}
	}
	return out
}

// InWave reports whether the release step releases the workload.
func InWave(plan v1alpha1.RecoveryPlanSpec, step v1alpha1.RecoveryStep, workload v1alpha1.ObjectRef) bool {
	return slices.Contains(Wave(plan, step), v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(workload.Kind), Name: workload.Name})
}

// quarantineAgain notes that the workloads of the wave are not what they were taken for. From the next pass on the current revisions of those that are targets are quarantined like compromised ones.
func (x *Execution) quarantineAgain(step v1alpha1.RecoveryStep, why string) Outcome {
	for _, w := range Wave(x.Plan, step) {
		x.Relapse(v1alpha1.Relapse{
			Workload: v1alpha1.ObjectRef{Kind: string(w.Kind), Namespace: x.Incident.Namespace, Name: w.Name}, Step: step.Name, At: x.Now, Why: why,
		})
	}
	for _, w := range Wave(x.Plan, step) {
		if createdAnew(w.Kind) {
			why += fmt.Sprintf("; %s %s was created anew, and is no target of this Incident: declare another one for it", w.Kind, w.Name)
		}
	}
	return failed("quarantined again: %s. Find out whether what came back is clean; if it is, have the step retried, which releases it once more; if not, declare another Incident with another plan", why)
}

// Relapsed reports whether the workload was quarantined again after its release.
func Relapsed(rec *v1alpha1.RecoveryStatus, workload v1alpha1.ObjectRef) bool {
	return rec != nil && slices.ContainsFunc(rec.Relapses, func(r v1alpha1.Relapse) bool {
		return r.ClearedAt.IsZero() && r.Workload.Kind == workload.Kind && r.Workload.Namespace == workload.Namespace && r.Workload.Name == workload.Name
	})
}
