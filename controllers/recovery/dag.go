// Package recovery executes the steps of a RecoveryPlan. Execution state lives in the Incident's status, so that a restart resumes where it was.
package recovery

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Cycle returns the names of steps that depend on one another in a circle, in order, or nil when there is none.
func Cycle(steps []v1alpha1.RecoveryStep) []string {
	byName := map[string]v1alpha1.RecoveryStep{}
	for _, s := range steps {
		byName[s.Name] = s
	}
	const visiting, visited = 1, 2
	mark := map[string]int{}
	var path []string
	var visit func(name string) []string
	visit = func(name string) []string {
		switch mark[name] {
		case visited:
			return nil
		case visiting:
			return append(slices.Clone(path[slices.Index(path, name):]), name)
		}
		mark[name] = visiting
		path = append(path, name)
		for _, d := range byName[name].DependsOn {
			if circle := visit(d); circle != nil {
				return circle
			}
		}
		path = path[:len(path)-1]
		mark[name] = visited
		return nil
	}
	for _, s := range steps {
		if circle := visit(s.Name); circle != nil {
			return circle
		}
	}
	return nil
}

// Begin returns the status of every step of a plan that is about to be executed.
func Begin(steps []v1alpha1.RecoveryStep) []v1alpha1.StepStatus {
	out := make([]v1alpha1.StepStatus, 0, len(steps))
	for _, s := range steps {
		out = append(out, v1alpha1.StepStatus{Name: s.Name, State: v1alpha1.StepPending})
	}
	return out
}

// Runnable returns the indexes of the steps that may run now: those that are not finished and whose dependencies have all succeeded.
func Runnable(steps []v1alpha1.RecoveryStep, status []v1alpha1.StepStatus) []int {
	done := map[string]bool{}
	for _, s := range status {
		done[s.Name] = s.State == v1alpha1.StepSucceeded
	}
	var out []int
	for i, s := range steps {
		waiting := slices.ContainsFunc(s.DependsOn, func(d string) bool { return !done[d] })
		if !done[s.Name] && !waiting {
			out = append(out, i)
		}
	}
	return out
}

// Complete reports whether every step has succeeded.
func Complete(status []v1alpha1.StepStatus) bool {
	return !slices.ContainsFunc(status, func(s v1alpha1.StepStatus) bool { return s.State != v1alpha1.StepSucceeded })
}

// Advance returns the status of a step after it ran with this outcome at this time. A step that passes its deadline is Overdue and is still
// watched: what it waits for may come true late, and giving up would leave the service down for good.
func Advance(status v1alpha1.StepStatus, step v1alpha1.RecoveryStep, outcome Outcome, now metav1.Time) v1alpha1.StepStatus {
	if status.StartedAt.IsZero() {
		status.StartedAt = now
	}
	status.Message = outcome.Message
	if outcome.Done {
		status.State = v1alpha1.StepSucceeded
		status.FinishedAt = now
		return status
	}
	status.State = v1alpha1.StepRunning
	if now.After(Deadline(status, step)) {
		status.State = v1alpha1.StepOverdue
	}
	return status
}

// Deadline is when a started step becomes overdue.
func Deadline(status v1alpha1.StepStatus, step v1alpha1.RecoveryStep) time.Time {
	return status.StartedAt.Add(time.Duration(step.DeadlineSeconds) * time.Second)
}
