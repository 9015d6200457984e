package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

// resumeGitOps gives managers back what they had, once their source renders the known-good images.
type resumeGitOps struct{}

// applied is a workload with known-good images, and the managers that apply it.
type applied struct {
	managed
	good     v1alpha1.KnownGoodImages
	managers []*manager
}

func (resumeGitOps) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if x.rehearses() {
		return done("what was paused is resumed"), nil
	}
	workloads, managers, why, err := appliedWorkloads(ctx, x)
	if err != nil || why != "" {
		return waiting("%s", why).after(managersPoll), err
	}
	if x.resumes(step.Name) {
		if bad := otherImages(workloads); bad != "" {
			return x.pauseAgain(bad), nil
		}
	} else if why := x.unproven(step, workloads); why != "" {
		return waiting("%s", why), nil
	}
	if out, err := x.resumeAll(ctx, func(*v1alpha1.GitOpsPause) bool { return true }); err != nil || !out.Done {
		return out, err
	}
	return atRest(x, workloads, managers), nil
}

// appliedWorkloads are the workloads that pauseGitOps steps are about and that have known-good images, and all managers up to the top.
func appliedWorkloads(ctx context.Context, x *Execution) (out []applied, managers []*manager, why string, err error) {
	for _, step := range x.Plan.Steps {
		if step.PauseGitOps == nil {
			continue
		}
		objects, why, err := managedBy(ctx, x, step.PauseGitOps)
		if err != nil || why != "" {
			return nil, nil, why, err
		}
		found, _, why, err := managersOf(ctx, x, objects)
		if err != nil || why != "" {
			return nil, nil, why, err
		}
		managers = append(managers, found...)
		for _, o := range objects {
			if o.workload == nil {
				continue
			}
			good := knownGood(x.Plan, o.workload.ref.Kind, o.workload.ref.Name)
			if good == nil {
				continue
			}
			a := applied{managed: o, good: *good}
			for _, m := range found {
				if slices.ContainsFunc(m.applies, func(other managed) bool { return other.object == o.object }) {
					a.managers = append(a.managers, m)
				}
			}
			out = append(out, a)
		}
	}
	return out, managers, "", nil
}

// resumes reports whether the step has begun to resume: it has then seen what it has to see, or was overridden.
func (x *Execution) resumes(step string) bool {
	status := x.Status(step)
	return slices.ContainsFunc(*x.Pauses, func(p v1alpha1.GitOpsPause) bool {
		return p.State == v1alpha1.GitOpsResuming || byPlan(p) && !status.StartedAt.IsZero() && !p.ResumedAt.Before(&status.StartedAt)
	})
}

// byPlan reports whether a step has resumed it, and not people, or whoever has deleted it.
func byPlan(p v1alpha1.GitOpsPause) bool {
	return p.State == v1alpha1.GitOpsResumed && !p.ResumedAt.IsZero()
}

// otherImages says which workload has other images than the known-good ones, or "".
func otherImages(workloads []applied) string {
	for _, a := range workloads {
		if !imagesMatch(a.good, &a.workload.template.Spec) {
			return fmt.Sprintf("%s %s has other images than the known-good ones", a.workload.ref.Kind, a.workload.ref.Name)
		}
	}
	return ""
}

// unproven says why it is not proven that the source renders the known-good images, or "". People may override that, but never that they run in the cluster.
func (x *Execution) unproven(step v1alpha1.RecoveryStep, workloads []applied) string {
	if bad := otherImages(workloads); bad != "" {
		return bad + ": roll it back before anything is resumed"
	}
	status := x.Status(step.Name)
	if status == nil || status.Override != "" {
		return ""
	}
	var why []string
	for _, a := range workloads {
		for _, m := range a.managers {
			if p := x.pauseOf(m.ref(), m.child); p == nil || p.State == v1alpha1.GitOpsResumed || borrowed(*p) {
				continue // somebody else's pause is left alone
			}
			unseen := "the step has not started"
			if !status.StartedAt.IsZero() {
				unseen = gitops.Unseen(m.object, a.kind, a.object.GetNamespace(), a.object.GetName(), status.StartedAt.Time)
			}
			if unseen != "" {
				why = append(why, fmt.Sprintf("%s: %s", nameOf(m.ref()), unseen))
			}
		}
	}
	if len(why) == 0 {
		return ""
	}
	return fmt.Sprintf("it is not seen that the source renders the known-good images: %s; or make sure of it, and have the step overridden with a reason (spec.interventions, action Override)", strings.Join(why, "; "))
}

// pauseAgain lets everything that was resumed be paused again, which WatchPauses sees to.
func (x *Execution) pauseAgain(why string) Outcome {
	x.unresume("it was resumed, and " + why)
	return failed("%s after what applies it was resumed: everything is paused again. Correct the source, roll the workload back by hand or by another Incident, and have the step retried", why)
}

func (x *Execution) unresume(why string) {
	for i := range *x.Pauses {
		p := &(*x.Pauses)[i]
		if byPlan(*p) || p.State == v1alpha1.GitOpsResuming {
			x.Journal.Done(v1alpha1.ActionResumeGitOps, p.Object)
			p.State, p.Message = v1alpha1.GitOpsPausing, why
		}
	}
}

// resumeAll resumes from the bottom up, so that nothing that is still above, and not paused any more, can get ahead.
func (x *Execution) resumeAll(ctx context.Context, which func(*v1alpha1.GitOpsPause) bool) (Outcome, error) {
	var said []string
	for i := len(*x.Pauses) - 1; i >= 0; i-- {
		p := &(*x.Pauses)[i]
		if !which(p) {
			continue
		}
		why, err := x.resumeOne(ctx, p)
		if err != nil || why != "" {
			return waiting("%s", why).after(managersPoll), err
		}
		said = append(said, nameOf(p.Object))
	}
	if len(said) == 0 {
		return done("nothing was paused by this recovery"), nil
	}
	return done("resumed: %s", strings.Join(said, ", ")), nil
}

// resumeOne gives one manager back what it had, and says what it waits for, or "".
func (x *Execution) resumeOne(ctx context.Context, p *v1alpha1.GitOpsPause) (string, error) {
	if p.State == v1alpha1.GitOpsResumed {
		return "", nil
	}
	object, err := x.readManager(ctx, p.Object)
	if err != nil {
		return "", err
	}
	if object == nil {
		x.settle(p)
		return "", nil
	}
	if borrowed(*p) {
		x.settle(p)
		p.Message = "others had paused it before, and it is left to them"
		return "", nil
	}
	var was gitops.Before
	if err := json.Unmarshal([]byte(p.Before), &was); err != nil {
		return "", fmt.Errorf("reading what was recorded of %s: %w", nameOf(p.Object), err)
	}
	mark := string(x.Incident.UID)
	if x.pausedForOthers(*p) {
		mark = "" // the mark stays until the last of them is resumed
	}
	patch, err := gitops.ResumePatch(object, p.Child, was, mark)
	if err != nil {
		return "", err
	}
	if patch == nil {
		x.Journal.Done(v1alpha1.ActionPauseGitOps, p.Object)
		x.Journal.Done(v1alpha1.ActionResumeGitOps, p.Object)
		p.State, p.ResumedAt, p.Message = v1alpha1.GitOpsResumed, x.Now, "it has what it had"
		return "", nil
	}
	if forbidden, err := x.forbidden(ctx, p.Object); err != nil || forbidden != "" {
		return forbidden, err
	}
	p.State = v1alpha1.GitOpsResuming
	why := nameOf(p.Object) + " is about to be resumed"
	detail := "give back " + p.Before
	if !x.Journal.IntendAnew(v1alpha1.ActionResumeGitOps, p.Object, detail) {
		return why, nil
	}
	return why, x.writeResume(ctx, p.Object, object, patch, detail)
}

// pausedForOthers reports whether the ApplicationSet is still paused for another child.
func (x *Execution) pausedForOthers(p v1alpha1.GitOpsPause) bool {
	return slices.ContainsFunc(*x.Pauses, func(other v1alpha1.GitOpsPause) bool {
		return other.Object == p.Object && other.Child != p.Child && other.State != v1alpha1.GitOpsResumed && !borrowed(other)
	})
}

func (x *Execution) writeResume(ctx context.Context, ref v1alpha1.ObjectRef, object *unstructured.Unstructured, patch []byte, detail string) error {
	return x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch))
	})
}

// atRest waits until what was resumed has done what it had to do since the last of it was, and the known-good images run all the same.
func atRest(x *Execution, workloads []applied, managers []*manager) Outcome {
	var since metav1.Time
	for _, p := range *x.Pauses {
		if byPlan(p) && since.Before(&p.ResumedAt) {
			since = p.ResumedAt
		}
	}
	var said []string
	for _, m := range managers {
		p := x.pauseOf(m.ref(), m.child)
		if p == nil || !byPlan(*p) {
			continue
		}
		// What is above may have troubles of its own, which are not those of this recovery: it has to have looked, and to be idle.
		if why := gitops.Unrest(m.object, since.Time, len(m.applies) > 0); why != "" {
			return waiting("%s is resumed: %s", nameOf(m.ref()), why)
		}
		said = append(said, nameOf(m.ref())+" is at rest")
	}
	for _, a := range workloads {
		if a.workload.hashLabel == "" {
			continue
		}
		out := judge(x, a.workload, a.good)
		if !out.Done {
			return out
		}
		said = append(said, out.Message)
	}
	if len(said) == 0 {
		return done("everything has what it had")
	}
	return done("%s", strings.Join(said, "; "))
}

// Undo pauses everything again.
func (resumeGitOps) Undo(_ context.Context, x *Execution, _ v1alpha1.RecoveryStep) (Outcome, error) {
	x.unresume("resuming it was undone")
	for _, p := range *x.Pauses {
		if p.State != v1alpha1.GitOpsPaused && p.State != v1alpha1.GitOpsResumed {
			return waiting("%s is about to be paused again", nameOf(p.Object)), nil
		}
	}
	return done("everything is paused again"), nil
}

// Undo gives back what the step has taken. Whatever depended on it was undone before.
func (pauseGitOps) Undo(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return x.resumeAll(ctx, func(p *v1alpha1.GitOpsPause) bool { return p.Step == step.Name })
}
