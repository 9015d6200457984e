// Package recovery executes the steps of a RecoveryPlan. Execution state lives in the Incident's status, so that a restart resumes where it was.
package recovery

import (
	"slices"

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

// Runnable returns the indexes of the steps that may run now: those that have started and are not finished, and, as many as the plan lets run at the same time, those whose dependencies let them start.
// While a step holds the plan up, none starts.
func Runnable(plan v1alpha1.RecoveryPlanSpec, status []v1alpha1.StepStatus) []int {
	passed, halted := map[string]bool{}, false
	under, free := map[string]bool{}, int(plan.MaxParallel)
	for i, step := range plan.Steps {
		state := status[i].State
		passed[step.Name] = lets(step, state)
		halted = halted || halts(step, state)
		if started(state) {
			under[step.Name] = true
			if step.Approve == nil {
				free--
			}
		}
	}
	var out []int
	for i, step := range plan.Steps {
		switch {
		case under[step.Name]:
		case halted, status[i].State != v1alpha1.StepPending, slices.ContainsFunc(step.DependsOn, func(d string) bool { return !passed[d] }):
			continue
		case step.Approve == nil && free <= 0:
			continue
		case step.Approve == nil:
			free--
		}
		out = append(out, i)
	}
	return out
}

// started reports whether a step in this state is looked at in every pass.
func started(state v1alpha1.StepState) bool {
	return state == v1alpha1.StepRunning || state == v1alpha1.StepOverdue || state == v1alpha1.StepUndoing
}

// lets reports whether steps that depend on one in this state may start.
func lets(step v1alpha1.RecoveryStep, state v1alpha1.StepState) bool {
	return Settled(state) || state == v1alpha1.StepFailed && step.OnFailure == v1alpha1.OnFailureContinue
}

// halts reports whether a step in this state keeps all others from starting.
func halts(step v1alpha1.RecoveryStep, state v1alpha1.StepState) bool {
	switch state {
	case v1alpha1.StepOverdue, v1alpha1.StepUndoing, v1alpha1.StepUndone:
		return true
	case v1alpha1.StepFailed:
		return step.OnFailure != v1alpha1.OnFailureContinue
	case v1alpha1.StepPending, v1alpha1.StepRunning, v1alpha1.StepSucceeded, v1alpha1.StepSkipped:
	}
	return false
}
