package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/image"
)

// Unusable says why a plan cannot be executed, with a reason of the plan's Ready condition, or "" when it can be. It finds what admission cannot: CEL rules
// neither walk a graph nor compile expressions.
func Unusable(plan v1alpha1.RecoveryPlanSpec) (reason, why string) {
	if why := Oversized(plan, nil); why != "" {
		return v1alpha1.ReasonUnsoundSteps, why
	}
	if circle := Cycle(plan.Steps); circle != nil {
		return v1alpha1.ReasonCyclicDependencies, "steps depend on one another in a circle: " + strings.Join(circle, " -> ")
	}
	if why := unsound(plan.Steps); why != "" {
		return v1alpha1.ReasonUnsoundSteps, why
	}
	if why := rotatedTwice(plan.Steps); why != "" {
		return v1alpha1.ReasonUnsoundSteps, why
	}
	if why := image.Invalid(plan.Verification); why != "" {
		return v1alpha1.ReasonInvalidVerification, "spec.verification: " + why
	}
	for _, step := range plan.Steps {
		for _, looks := range looksAt(step) {
			if err := compileAll(looks); err != nil {
				return v1alpha1.ReasonInvalidExpression, fmt.Sprintf("step %s: %v", step.Name, err)
			}
		}
	}
	return "", ""
}

// maxPlan is how many bytes of JSON a plan may have together with what was chosen for it. The Incident keeps a copy of both, beside all else.
const maxPlan = 256 << 10

// Oversized says that an Incident could not hold the plan and what was chosen for it, or "".
func Oversized(plan v1alpha1.RecoveryPlanSpec, choices []v1alpha1.StepChoice) string {
	raw, err := json.Marshal([]any{plan, choices})
	if err != nil {
		return fmt.Sprintf("it cannot be written as JSON: %v", err)
	}
	if len(raw) <= maxPlan {
		return ""
	}
	return fmt.Sprintf("the plan, with what was chosen for it, has %d bytes, and an Incident holds %d of them: divide it into several plans, for an Incident each", len(raw), maxPlan)
}

// unsound says what the guard of recovery plans refuses: a plan may be older than the guard.
func unsound(steps []v1alpha1.RecoveryStep) string {
	approving, names, pausing := map[string]bool{}, map[string]bool{}, ""
	for _, step := range steps {
		names[step.Name], approving[step.Name] = true, step.Approve != nil
	}
	for _, step := range steps {
		for _, d := range step.DependsOn {
			if !names[d] {
				return fmt.Sprintf("step %s depends on %s, which the plan does not have", step.Name, d)
			}
		}
		if step.Release != nil && !slices.ContainsFunc(step.DependsOn, func(d string) bool { return approving[d] }) {
			return fmt.Sprintf("release step %s does not depend directly on an approve step: containment is never lifted without an approval", step.Name)
		}
		if step.RestoreVolumes != nil && step.OnFailure == v1alpha1.OnFailureContinue {
			return fmt.Sprintf("step %s restores volumes, and onFailure is Continue: what depends on it would start while some volumes are from before the incident, and others are not; use Halt or Undo", step.Name)
		}
		if step.PauseGitOps != nil && pausing != "" {
			return fmt.Sprintf("steps %s and %s are both pauseGitOps: a plan has one, which pauses everything", pausing, step.Name)
		}
		if step.PauseGitOps != nil {
			pausing = step.Name
		}
		if step.ResumeGitOps != nil && !afterPause(steps, step) {
			return fmt.Sprintf("resumeGitOps step %s depends on no pauseGitOps step: there is nothing that it could resume", step.Name)
		}
	}
	return ""
}

// rotatedTwice says which secret several steps would rotate, or "": the second would take from its consumers what the first has given them.
func rotatedTwice(steps []v1alpha1.RecoveryStep) string {
	by := map[string]string{}
	for _, step := range steps {
		if step.RotateSecrets == nil {
			continue
		}
		var rotated []string
		for _, g := range step.RotateSecrets.Generate {
			rotated = append(rotated, "Secret "+g.SecretName)
		}
		for _, t := range step.RotateSecrets.TokenSecrets {
			rotated = append(rotated, "Secret "+t.SecretName)
		}
		for _, name := range step.RotateSecrets.ExternalSecrets {
			rotated = append(rotated, "ExternalSecret "+name)
		}
		for _, name := range step.RotateSecrets.Certificates {
			rotated = append(rotated, "Certificate "+name)
		}
		for _, r := range rotated {
			if first, again := by[r]; again {
				return fmt.Sprintf("%s is rotated by step %s and again by step %s: rotate it once", r, first, step.Name)
			}
			by[r] = step.Name
		}
	}
	return ""
}

func compileAll(looks *v1alpha1.VerifyStep) error {
	for _, o := range looks.Objects {
		if o.Expression == "" {
			continue
		}
		if err := Compile(o.Expression); err != nil {
			return err
		}
	}
	for _, check := range looks.Prometheus {
		if err := compileSample(check.Expression); err != nil {
			return err
		}
	}
	return nil
}

// MissingWorkload says which workload or container of the plan does not exist now, or "" when all do.
func MissingWorkload(ctx context.Context, r client.Reader, plan *v1alpha1.RecoveryPlan) (string, error) {
	for _, good := range plan.Spec.Images {
		w, why, err := readWorkload(ctx, r, plan.Namespace, good.Workload)
		if err != nil || w == nil {
			return why, err
		}
		if _, _, impossible := w.change(good, ""); impossible != "" {
			return impossible, nil
		}
	}
	return "", nil
}
