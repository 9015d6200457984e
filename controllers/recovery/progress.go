package recovery

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Settled reports whether nothing more is expected of a step in this state: it has succeeded, or people go on without it.
func Settled(state v1alpha1.StepState) bool {
	return state == v1alpha1.StepSucceeded || state == v1alpha1.StepSkipped
}

// Complete reports whether every step is settled.
func Complete(status []v1alpha1.StepStatus) bool {
	return !slices.ContainsFunc(status, func(s v1alpha1.StepStatus) bool { return !Settled(s.State) })
}

// Advance returns the status of a step after it ran with this outcome at this time. A step that halts the plan and passes its deadline is Overdue and is still watched: what it waits for may come true
// late, and giving up would leave the service down for good.
func Advance(status v1alpha1.StepStatus, step v1alpha1.RecoveryStep, outcome Outcome, now metav1.Time) v1alpha1.StepStatus {
	if status.StartedAt.IsZero() {
		status.StartedAt = now
	}
	status.Message = outcome.Message
	if status.State == v1alpha1.StepUndoing {
		if outcome.Done {
			status.State, status.FinishedAt = v1alpha1.StepUndone, now
		}
		return status
	}
	late := now.After(Deadline(status, step))
	switch {
	case outcome.Done:
		status.State, status.FinishedAt = v1alpha1.StepSucceeded, now
	case (outcome.Failed || late) && step.OnFailure == v1alpha1.OnFailureUndo:
		status.State = v1alpha1.StepUndoing
	case outcome.Failed, late && step.OnFailure == v1alpha1.OnFailureContinue:
		status.State, status.FinishedAt = v1alpha1.StepFailed, now
	case late:
		status.State = v1alpha1.StepOverdue
	default:
		status.State = v1alpha1.StepRunning
	}
	return status
}

// Postpone gives steps that have started, and have not come to an end, so much more time: in a pause nothing could go on.
func Postpone(steps []v1alpha1.StepStatus, by time.Duration) {
	for i := range steps {
		if st := &steps[i]; !st.StartedAt.IsZero() && (st.State == v1alpha1.StepRunning || st.State == v1alpha1.StepOverdue) {
			st.StartedAt = metav1.NewTime(st.StartedAt.Add(by))
		}
	}
}

// Deadline is when a started step becomes overdue.
func Deadline(status v1alpha1.StepStatus, step v1alpha1.RecoveryStep) time.Time {
	return status.StartedAt.Add(time.Duration(step.DeadlineSeconds) * time.Second)
}
