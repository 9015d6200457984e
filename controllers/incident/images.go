package incident

import (
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/image"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// lookAtImages tells of images what the plan asks to be known of them, or is nil where it asks for nothing.
func (s *scope) lookAtImages(plan v1alpha1.RecoveryPlanSpec) recovery.LookAtImage {
	if plan.Verification == nil {
		return nil
	}
	return func(name string) (image.Verdict, bool) {
		return s.Images.Look(client.ObjectKeyFromObject(s.incident), name, *plan.Verification)
	}
}

// verifyImages finds out, before the recovery begins and anything is changed, whether every image of the plan is what it asks for.
func (s *scope) verifyImages(plan v1alpha1.RecoveryPlanSpec) (images []v1alpha1.VerifiedImage, verified bool) {
	look := s.lookAtImages(plan)
	if look == nil {
		return nil, true
	}
	images, reason, why := recovery.VerifyImages(plan, look, false)
	if why == "" {
		why = recovery.CompromisedPart(images, s.incident.Spec.CompromisedDigests)
	}
	if why == "" {
		return images, true
	}
	s.planReason = v1alpha1.ReasonPlanInvalid
	if reason == v1alpha1.ReasonImagesUnknown {
		s.planReason, why = reason, "nothing is changed before every image of the plan is verified: "+why
	}
	s.planProblem = fmt.Sprintf("RecoveryPlan %s/%s: %s", s.incident.Namespace, s.incident.Spec.RecoveryPlanRef.Name, why)
	s.lookAgainAfter(choicePoll)
	return nil, false
}
