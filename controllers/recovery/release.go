package recovery

import (
	"context"
	"fmt"
	"math"
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
	seenAgain(status, x.Now)
	end := status.ObservedSince.Add(time.Duration(step.Release.ObserveSeconds+status.NotObservedSeconds) * time.Second)
	if x.Now.Before(new(metav1.NewTime(end))) {
		return waiting("released, and observed until %s%s", end.UTC().Format(time.RFC3339), notCounted(status)).after(sooner(end.Sub(x.Now.Time), asksAgain(&step.Release.Watched))), nil
	}
	return done("released, and observed for %d seconds", step.Release.ObserveSeconds), nil
}

func notCounted(status *v1alpha1.StepStatus) string {
	if status.NotObservedSeconds == 0 {
		return ""
	}
	return fmt.Sprintf(", not counting %d seconds in which it could not be looked at", status.NotObservedSeconds)
}

// LoseSight notes, at the beginning of a pass, that what was released is not looked at from now on, until its step has. In a process that has not looked yet, nobody knows what was to be seen before.
func LoseSight(status []v1alpha1.StepStatus, now metav1.Time, neverLooked bool) {
	for i := range status {
		st := &status[i]
		if st.ObservedSince.IsZero() || !started(st.State) {
			continue
		}
		if neverLooked {
			st.NotObservedSince, st.NotObservedSeconds = st.ObservedSince, 0
		} else if st.NotObservedSince.IsZero() {
			st.NotObservedSince = now
		}
	}
}

// seenAgain adds up the time in which nothing could be seen.
func seenAgain(status *v1alpha1.StepStatus, now metav1.Time) {
	if status.NotObservedSince.IsZero() {
		return
	}
	status.NotObservedSeconds += int32(math.Ceil(now.Sub(status.NotObservedSince.Time).Seconds()))
	status.NotObservedSince = metav1.Time{}
}

// let releases, once what is watched is healthy, and begins to observe if the step says so. What is released once more after a relapse need not be healthy before: in quarantine it may not be able to.
func let(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, status *v1alpha1.StepStatus) (Outcome, error) {
	if why, err := relapsedOnTheWay(ctx, x, step, status); err != nil {
		return Outcome{}, err
	} else if why != "" {
		return x.quarantineAgain(step, why), nil
	}
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

// relapsedOnTheWay says why a wave of which a part is out already has to be quarantined again before the rest of it is, or "".
func relapsedOnTheWay(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, status *v1alpha1.StepStatus) (string, error) {
	wave := Wave(x.Plan, step)
	out := slices.ContainsFunc(x.Incident.Status.Revisions, func(r v1alpha1.RevisionStatus) bool {
		return r.State == v1alpha1.RevisionReleased && r.Workload.Namespace == x.Incident.Namespace && inWave(wave, r.Workload) && !Relapsed(x.Incident.Status.Recovery, r.Workload)
	})
	if !out || status == nil || status.StartedAt.IsZero() {
		return "", nil
	}
	if why := compromisedWave(x, step); why != "" {
		return why, nil
	}
	return x.namedByOthers(ctx, wave, status.StartedAt)
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
	why, err = x.namedByOthers(ctx, Wave(x.Plan, step), since)
	return why, unseen, err
}

// namedByOthers says which other Incident, declared since, names a workload of the wave, or "".
func (x *Execution) namedByOthers(ctx context.Context, wave []v1alpha1.WorkloadRef, since metav1.Time) (string, error) {
	others, err := x.Others(ctx)
	if err != nil {
		return "", err
	}
	for _, other := range others {
		if named := namedBy(&other, wave, x.Incident.Namespace, since); named != "" {
			return fmt.Sprintf("Incident %s/%s, declared since, names %s", other.Namespace, other.Name, named), nil
		}
	}
	return "", nil
}

// namedBy is the workload of the wave that another Incident, declared at that time or later and in force, names as its target, itself or by one of its pods or ReplicaSets; or "".
func namedBy(other *v1alpha1.Incident, wave []v1alpha1.WorkloadRef, namespace string, since metav1.Time) string {
	if other.CreationTimestamp.Before(&since) || other.Spec.Mode != v1alpha1.ModeEnforce || !other.Status.ReleasedAt.IsZero() {
		return ""
	}
	for _, t := range other.Status.Targets {
		if ref := (v1alpha1.ObjectRef{Kind: string(t.Kind), Name: t.Name}); t.Namespace == namespace && inWave(wave, ref) {
			return t.Name
		}
	}
	for _, p := range other.Status.Pods {
		if p.Namespace == namespace && inWave(wave, p.Owner) {
			return fmt.Sprintf("Pod %s of %s", p.Name, p.Owner.Name)
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
	return inWave(Wave(plan, step), workload)
}

func inWave(wave []v1alpha1.WorkloadRef, workload v1alpha1.ObjectRef) bool {
	return slices.Contains(wave, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(workload.Kind), Name: workload.Name})
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
