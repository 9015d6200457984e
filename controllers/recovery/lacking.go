package recovery

import (
	"fmt"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// lacking says what a step needs of the standing orders, or of the operator, that is not there, or "". A recovery does not begin that would come to its end there.
func lacking(x *Execution, step v1alpha1.RecoveryStep) string {
	if step.Notify != nil {
		for _, route := range step.Notify.Routes {
			if outbound.Find(x.Policy.Notifications.Routes, route) == nil {
				return lackingRoute(route)
			}
		}
	}
	for _, what := range looksAt(step) {
		if probes(what) && x.ProbeImage == "" {
			return lackingProbeImage
		}
		for _, check := range what.Prometheus {
			if outbound.Find(x.Policy.Recovery.Prometheus, check.Source) == nil {
				return lackingSource(check.Source)
			}
		}
	}
	return ""
}

// Lacks says what the plan needs of the operator, or of the standing orders, and none of those has that may govern an Incident whose recovery it is; or "".
func Lacks(plan v1alpha1.RecoveryPlanSpec, probeImage string, orders []v1alpha1.ContainmentPolicySpec) string {
	for _, step := range plan.Steps {
		why := lacking(&Execution{ProbeImage: probeImage}, step)
		for _, o := range orders {
			if why = lacking(&Execution{ProbeImage: probeImage, Policy: o}, step); why == "" {
				break
			}
		}
		if why != "" {
			return fmt.Sprintf("step %s: %s", step.Name, why)
		}
	}
	return ""
}

// looksAt is everything that a step verifies.
func looksAt(step v1alpha1.RecoveryStep) []*v1alpha1.VerifyStep {
	var out []*v1alpha1.VerifyStep
	if step.Verify != nil {
		out = append(out, step.Verify)
	}
	if step.Gate != nil {
		out = append(out, step.Gate)
	}
	if step.Release != nil {
		out = append(out, &step.Release.Watched)
	}
	return out
}
