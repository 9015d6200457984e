package recovery

import (
	"context"
	"fmt"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Unusable says why a plan cannot be executed, with a reason of the plan's Ready condition, or "" when it can be. It finds what admission cannot: CEL rules
// neither walk a graph nor compile expressions.
func Unusable(plan v1alpha1.RecoveryPlanSpec) (reason, why string) {
	if circle := Cycle(plan.Steps); circle != nil {
		return v1alpha1.ReasonCyclicDependencies, "steps depend on one another in a circle: " + strings.Join(circle, " -> ")
	}
	for _, step := range plan.Steps {
		for _, looks := range []*v1alpha1.VerifyStep{step.Verify, step.Gate} {
			if err := compileAll(looks); err != nil {
				return v1alpha1.ReasonInvalidExpression, fmt.Sprintf("step %s: %v", step.Name, err)
			}
		}
	}
	return "", ""
}

func compileAll(looks *v1alpha1.VerifyStep) error {
	if looks == nil {
		return nil
	}
	for _, o := range looks.Objects {
		if o.Expression == "" {
			continue
		}
		if err := Compile(o.Expression); err != nil {
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
