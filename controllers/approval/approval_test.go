package approval

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func incident(approvals ...v1alpha1.Approval) *v1alpha1.Incident {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: "u1"}}
	inc.Spec.DeclaredBy.Username = "dora"
	inc.Spec.Approvals = approvals
	return inc
}

func by(author, step, digest string) v1alpha1.Approval {
	return v1alpha1.Approval{Author: author, Step: step, Digest: digest}
}

func TestAuthorsAndMissing(t *testing.T) {
	cases := map[string]struct {
		approvals []v1alpha1.Approval
		required  int32
		want      []string
		missing   string
	}{
		"nobody":                         {required: 1, missing: "1 of 1"},
		"one":                            {approvals: []v1alpha1.Approval{by("ann", "go", "d1")}, required: 1, want: []string{"ann"}},
		"two, sorted":                    {approvals: []v1alpha1.Approval{by("bob", "go", "d1"), by("ann", "go", "d1")}, required: 2, want: []string{"ann", "bob"}},
		"one of two":                     {approvals: []v1alpha1.Approval{by("ann", "go", "d1")}, required: 2, want: []string{"ann"}, missing: "1 of 2 approvals (so far: ann)"},
		"the declarer does not count":    {approvals: []v1alpha1.Approval{by("dora", "go", "d1")}, required: 1, missing: "1 of 1"},
		"the same person counts once":    {approvals: []v1alpha1.Approval{by("ann", "go", "d1"), by("ann", "go", "d1")}, required: 2, want: []string{"ann"}, missing: "1 of 2"},
		"another digest does not count":  {approvals: []v1alpha1.Approval{by("ann", "go", "d2"), by("bob", "go", "")}, required: 1, missing: "digest: d1"},
		"another step does not count":    {approvals: []v1alpha1.Approval{by("ann", "close", "d1")}, required: 1, missing: "step: go"},
		"more than needed is enough too": {approvals: []v1alpha1.Approval{by("ann", "go", "d1"), by("bob", "go", "d1")}, required: 1, want: []string{"ann", "bob"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			inc := incident(tc.approvals...)
			if diff := cmp.Diff(tc.want, Authors(inc, "go", "d1")); diff != "" {
				t.Errorf("Authors() (-want +got):\n%s", diff)
			}
			got := Missing(inc, "go", "d1", tc.required)
			if (got == "") != (tc.missing == "") || !strings.Contains(got, tc.missing) {
				t.Errorf("Missing() = %q, want %q", got, tc.missing)
			}
		})
	}
}

// guards answers with the guard of approvals as it is given.
type guards struct {
	client.Reader
	policy  *admissionregistrationv1.ValidatingAdmissionPolicy
	binding *admissionregistrationv1.ValidatingAdmissionPolicyBinding
	err     error
}

func (g guards) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if g.err != nil {
		return g.err
	}
	missing := apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	switch out := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		if g.policy == nil || key.Name != GuardName {
			return missing
		}
		g.policy.DeepCopyInto(out)
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		if g.binding == nil || key.Name != GuardName {
			return missing
		}
		g.binding.DeepCopyInto(out)
	}
	return nil
}

func TestGuarded(t *testing.T) {
	whole := func() guards {
		return guards{
			policy: &admissionregistrationv1.ValidatingAdmissionPolicy{},
			binding: &admissionregistrationv1.ValidatingAdmissionPolicyBinding{Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: GuardName, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			}},
		}
	}
	cases := map[string]struct {
		change func(*guards)
		want   string
	}{
		"whole":        {change: func(*guards) {}},
		"fails closed": {change: func(g *guards) { g.policy.Spec.FailurePolicy = new(admissionregistrationv1.Fail) }},
		"denies and audits": {change: func(g *guards) {
			g.binding.Spec.ValidationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Audit, admissionregistrationv1.Deny}
		}},
		"no policy":  {change: func(g *guards) { g.policy = nil }, want: "ValidatingAdmissionPolicy cofferdam-approvals does not exist"},
		"no binding": {change: func(g *guards) { g.binding = nil }, want: "ValidatingAdmissionPolicyBinding cofferdam-approvals does not exist"},
		"fails open": {change: func(g *guards) { g.policy.Spec.FailurePolicy = new(admissionregistrationv1.Ignore) }, want: "does not fail closed"},
		"only warns": {change: func(g *guards) {
			g.binding.Spec.ValidationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Warn}
		}, want: "does not deny"},
		"does nothing":              {change: func(g *guards) { g.binding.Spec.ValidationActions = nil }, want: "does not deny"},
		"binding of another policy": {change: func(g *guards) { g.binding.Spec.PolicyName = "harmless" }, want: "binds another policy"},
		"binding for a part only":   {change: func(g *guards) { g.binding.Spec.MatchResources = &admissionregistrationv1.MatchResources{} }, want: "a part of the cluster"},
		"policy with exempted requests": {change: func(g *guards) {
			g.policy.Spec.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "never", Expression: "false"}}
		}, want: "exempts requests"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := whole()
			tc.change(&g)
			got, err := Guarded(context.Background(), g)
			if err != nil {
				t.Fatal(err)
			}
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("Guarded() = %q, want %q", got, tc.want)
			}
		})
	}
}

// Not knowing is neither guarded nor unguarded.
func TestGuardedCannotBeRead(t *testing.T) {
	got, err := Guarded(context.Background(), guards{err: errors.New("away")})
	if err == nil || got != "" {
		t.Errorf("Guarded() = %q, %v, want an error", got, err)
	}
}

func TestDigests(t *testing.T) {
	inc, other := incident(), incident()
	other.UID = "u2"
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{{Name: "a"}}}
	changed := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{{Name: "a", DependsOn: []string{"b"}}}}
	targets := []v1alpha1.ResolvedTarget{{Name: "web", UID: "w"}}
	digests := map[string]string{
		"plan":                     PlanDigest(inc, "p1", plan, nil),
		"plan, other Incident":     PlanDigest(other, "p1", plan, nil),
		"plan, other plan":         PlanDigest(inc, "p2", plan, nil),
		"plan, other choice":       PlanDigest(inc, "p1", plan, []v1alpha1.StepChoice{{Step: "a", Why: "b"}}),
		"plan, changed":            PlanDigest(inc, "p1", changed, nil),
		"close":                    CloseDigest(inc, targets, v1alpha1.EvidencePodDelete),
		"close, other Incident":    CloseDigest(other, targets, v1alpha1.EvidencePodDelete),
		"close, other targets":     CloseDigest(inc, nil, v1alpha1.EvidencePodDelete),
		"close, other consequence": CloseDigest(inc, targets, v1alpha1.EvidencePodRelease),
	}
	seen := map[string]string{}
	for name, digest := range digests {
		if !strings.HasPrefix(digest, "sha256:") || len(digest) != len("sha256:")+64 {
			t.Errorf("%s: digest %q", name, digest)
		}
		if same, ok := seen[digest]; ok {
			t.Errorf("%s and %s have the same digest", name, same)
		}
		seen[digest] = name
	}
	if PlanDigest(inc, "p1", plan, nil) != PlanDigest(incident(by("ann", "a", "d")), "p1", *plan.DeepCopy(), nil) {
		t.Error("the digest of the same plan differs")
	}
}
