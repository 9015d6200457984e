package recovery

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Intervene returns the status of the steps after every intervention that was not yet carried out has been, or was refused. Each counts once, whatever comes of it.
func Intervene(plan v1alpha1.RecoveryPlanSpec, status []v1alpha1.StepStatus, interventions []v1alpha1.Intervention, now metav1.Time) []v1alpha1.StepStatus {
	out := slices.Clone(status)
	for i := range out {
		var mine []v1alpha1.Intervention
		for _, v := range interventions {
			if v.Step == out[i].Name {
				mine = append(mine, v)
			}
		}
		for int(out[i].Interventions) < len(mine) {
			v := mine[out[i].Interventions]
			why := refusal(plan, out, i, v.Action)
			if why == "" {
				out[i] = intervened(out[i], v, now)
			}
			out[i].Interventions++
			out[i].LastIntervention = told(v, why)
		}
	}
	return out
}

func told(v v1alpha1.Intervention, refused string) string {
	if refused != "" {
		return fmt.Sprintf("%s by %s was refused: %s", v.Action, v.Author, refused)
	}
	return fmt.Sprintf("%s by %s: %s", v.Action, v.Author, v.Reason)
}

func intervened(s v1alpha1.StepStatus, v v1alpha1.Intervention, now metav1.Time) v1alpha1.StepStatus {
	s.Message = told(v, "")
	switch v.Action {
	case v1alpha1.InterventionRetry:
		s.Tries++
		s.Override = ""
		s.State, s.StartedAt, s.FinishedAt = v1alpha1.StepPending, metav1.Time{}, metav1.Time{}
		s.ObservedSince, s.NotObservedSince, s.NotObservedSeconds = metav1.Time{}, metav1.Time{}, 0
	case v1alpha1.InterventionSkip:
		s.State, s.FinishedAt = v1alpha1.StepSkipped, now
	case v1alpha1.InterventionUndo:
		s.State, s.FinishedAt = v1alpha1.StepUndoing, metav1.Time{}
	case v1alpha1.InterventionOverride:
		s.Override = told(v, "")
	}
	return s
}

// refusal says why the step does not allow the intervention now, or "" when it does.
func refusal(plan v1alpha1.RecoveryPlanSpec, status []v1alpha1.StepStatus, i int, action v1alpha1.InterventionAction) string {
	step, state := plan.Steps[i], status[i].State
	switch action {
	case v1alpha1.InterventionRetry:
		if !slices.Contains([]v1alpha1.StepState{v1alpha1.StepFailed, v1alpha1.StepUndone, v1alpha1.StepOverdue, v1alpha1.StepSkipped}, state) {
			return fmt.Sprintf("a step that is %s is not retried", state)
		}
		if state == v1alpha1.StepOverdue && (step.RunJob != nil || step.RestoreVolumes != nil || runsJobs(step.Verify) || runsJobs(step.Gate)) {
			return "a step that is Overdue is still under way, and what it has started is not started a second time beside it"
		}
		if len(status[i].Records) > maxRecords/2 {
			return "it was retried so often that there is no room for what another try would record: declare another Incident"
		}
	case v1alpha1.InterventionSkip:
		switch {
		case step.Approve != nil:
			return "an approve step is not skipped: it is what people have to agree to"
		case state == v1alpha1.StepSucceeded:
			return "the step has succeeded"
		case step.Release != nil && begun(status[i]):
			return "a release step that has begun is not skipped: have it retried, or close the Incident"
		}
	case v1alpha1.InterventionUndo:
		return undoRefusal(plan, status, i)
	case v1alpha1.InterventionOverride:
		switch {
		case step.ResumeGitOps == nil:
			return "only a resumeGitOps step is overridden: it then resumes what it cannot see to render the known-good images"
		case state != v1alpha1.StepRunning && state != v1alpha1.StepOverdue:
			return fmt.Sprintf("a step that is %s waits for nothing that could be overridden", state)
		}
	}
	return ""
}

func undoRefusal(plan v1alpha1.RecoveryPlanSpec, status []v1alpha1.StepStatus, i int) string {
	name := plan.Steps[i].Name
	switch status[i].State {
	case v1alpha1.StepPending:
		return "the step has not started"
	case v1alpha1.StepUndoing, v1alpha1.StepUndone:
		return "the step is undone already"
	case v1alpha1.StepRunning, v1alpha1.StepOverdue, v1alpha1.StepSucceeded, v1alpha1.StepFailed, v1alpha1.StepSkipped:
	}
	for j, other := range plan.Steps {
		if other.Release != nil && begun(status[j]) {
			return fmt.Sprintf("release step %s has begun: what was released is not taken back", other.Name)
		}
	}
	for j, other := range plan.Steps {
		if slices.Contains(other.DependsOn, name) && !idle(status[j].State) {
			return fmt.Sprintf("step %s depends on it and has started: undo that one first", other.Name)
		}
	}
	return ""
}

// begun reports whether a release step may have released something. One that is retried is Pending for a while.
func begun(s v1alpha1.StepStatus) bool { return s.Tries > 0 || !idle(s.State) }

// idle reports whether nothing of a step in this state is in effect.
func idle(state v1alpha1.StepState) bool {
	return state == v1alpha1.StepPending || state == v1alpha1.StepSkipped || state == v1alpha1.StepUndone
}
