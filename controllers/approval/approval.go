// Package approval counts who has approved what.
package approval

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// GuardName is the name of the ValidatingAdmissionPolicy, and of its binding, that checks the author of an approval.
const GuardName = "cofferdam-approvals"

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingadmissionpolicies;validatingadmissionpolicybindings,resourceNames=cofferdam-approvals,verbs=get

// Authors returns the distinct people who approved the step with this digest, without the declarer, sorted.
func Authors(inc *v1alpha1.Incident, step, digest string) []string {
	var out []string
	for _, a := range inc.Spec.Approvals {
		if a.Step == step && a.Digest == digest && a.Author != inc.Spec.DeclaredBy.Username && !slices.Contains(out, a.Author) {
			out = append(out, a.Author)
		}
	}
	slices.Sort(out)
	return out
}

// Missing says, in a sentence with the next thing to do, what is still missing for a step; it is empty when enough people have approved.
func Missing(inc *v1alpha1.Incident, step, digest string, required int32) string {
	return Asks(inc, step, digest, required, Authors(inc, step, digest), nil)
}

// Asks is Missing for authors that were counted already. Only the approvals of the people in from count, if it names any.
func Asks(inc *v1alpha1.Incident, step, digest string, required int32, authors, from []string) string {
	if len(authors) >= int(required) {
		return ""
	}
	got := ""
	if len(authors) > 0 {
		got = " (so far: " + strings.Join(authors, ", ") + ")"
	}
	verb := "approve"
	if step == v1alpha1.WaiveStage {
		verb = "waive"
	}
	who := "someone"
	if len(from) > 0 {
		who = "one of " + strings.Join(from, ", ")
	}
	return fmt.Sprintf("waits for %d of %d approvals%s: %s who holds the verb %s and is not %s adds to spec.approvals {step: %s, author: <own user name>, digest: %s}",
		int(required)-len(authors), required, got, who, verb, inc.Spec.DeclaredBy.Username, step, digest)
}

// Guarded returns why approvals cannot be trusted now, or "" when they can: the author of an approval is only what it says if admission checks it.
func Guarded(ctx context.Context, r client.Reader) (string, error) {
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
	for _, obj := range []client.Object{&policy, &binding} {
		err := r.Get(ctx, client.ObjectKey{Name: GuardName}, obj)
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("approvals cannot be trusted: %T %s does not exist, so nobody checks their authors; apply config/guard again", obj, GuardName), nil
		}
		if err != nil {
			return "", fmt.Errorf("reading the guard of approvals: %w", err)
		}
	}
	if policy.Spec.FailurePolicy != nil && *policy.Spec.FailurePolicy != admissionregistrationv1.Fail {
		return fmt.Sprintf("approvals cannot be trusted: ValidatingAdmissionPolicy %s does not fail closed; apply config/guard again", GuardName), nil
	}
	if len(policy.Spec.MatchConditions) > 0 {
		return fmt.Sprintf("approvals cannot be trusted: ValidatingAdmissionPolicy %s exempts requests by matchConditions; apply config/guard again", GuardName), nil
	}
	if binding.Spec.PolicyName != GuardName {
		return fmt.Sprintf("approvals cannot be trusted: ValidatingAdmissionPolicyBinding %s binds another policy; apply config/guard again", GuardName), nil
	}
	if binding.Spec.MatchResources != nil {
		return fmt.Sprintf("approvals cannot be trusted: ValidatingAdmissionPolicyBinding %s binds for a part of the cluster only; apply config/guard again", GuardName), nil
	}
	if !slices.Contains(binding.Spec.ValidationActions, admissionregistrationv1.Deny) {
		return fmt.Sprintf("approvals cannot be trusted: ValidatingAdmissionPolicyBinding %s does not deny; apply config/guard again", GuardName), nil
	}
	return "", nil
}

// PlanDigest is the digest of a plan that is about to be executed, with what was chosen for its steps; approvals of its steps name it.
func PlanDigest(inc *v1alpha1.Incident, planUID string, plan v1alpha1.RecoveryPlanSpec, choices []v1alpha1.StepChoice) string {
	return digest("recover", string(inc.UID), planUID, plan, choices)
}

// NextDigest is the digest that approvals have to name after those of this one have lapsed at that time. Nobody knows it before, and can approve ahead.
func NextDigest(lapsed string, at time.Time) string {
	return digest("lapsed", lapsed, at.UTC().Format(time.RFC3339Nano))
}

// CloseDigest is the digest of what closing does: to which targets, and what becomes of their pods.
func CloseDigest(inc *v1alpha1.Incident, targets []v1alpha1.ResolvedTarget, pods v1alpha1.EvidencePodHandling) string {
	return digest("close", string(inc.UID), targets, pods)
}

// GapDigest is the digest of evidence gaps; approvals that waive them name it. Another gap makes another digest.
func GapDigest(inc *v1alpha1.Incident, itemIDs []string) string {
	return digest("waive", string(inc.UID), slices.Sorted(slices.Values(itemIDs)))
}

// RemovalDigest is the digest of evidence that would be removed; approvals of its removal name it.
func RemovalDigest(inc *v1alpha1.Incident, itemIDs []string) string {
	return digest("remove", string(inc.UID), slices.Sorted(slices.Values(itemIDs)))
}

func digest(parts ...any) string {
	raw, err := json.Marshal(parts)
	if err != nil {
		panic(fmt.Sprintf("API types always marshal: %v", err))
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}
