package recovery

import (
	"context"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
)

// approve waits until enough people have approved this very plan, with what was chosen for it.
type approve struct{}

func (approve) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	digest := x.PlanDigest
	if s := x.Status(step.Name); s != nil {
		digest = s.ApprovalDigest
	}
	authors := approvers(x, step, digest)
	if missing := approval.Asks(x.Incident, step.Name, digest, step.Approve.Required, authors, step.Approve.From); missing != "" {
		return waiting("%s", missing), nil
	}
	unguarded, err := approval.Guarded(ctx, x.Reader)
	if err != nil {
		return Outcome{}, err
	}
	if unguarded != "" {
		return waiting("%s", unguarded), nil
	}
	return done("approved by %s", strings.Join(authors, ", ")), nil
}

// NoteApprovals records when the approvals of every approve step were first seen, also of those that are not reached yet, and lets them lapse together once one of them is too old: who agreed a week ago
// has not agreed to what is known today.
func NoteApprovals(x *Execution) {
	for _, step := range x.Plan.Steps {
		s := x.Status(step.Name)
		if step.Approve == nil || Settled(s.State) {
			continue
		}
		if s.ApprovalDigest == "" {
			s.ApprovalDigest = x.PlanDigest
		}
		s.Approvals = seen(s.Approvals, approvers(x, step, s.ApprovalDigest), x.Now)
		if lapsed(s.Approvals, step.Approve.ValidForSeconds, x.Now) {
			s.Approvals, s.ApprovalDigest = nil, approval.NextDigest(s.ApprovalDigest, x.Now.Time)
		}
	}
}

// approvers are the people whose approvals of the digest count.
func approvers(x *Execution, step v1alpha1.RecoveryStep, digest string) []string {
	authors := approval.Authors(x.Incident, step.Name, digest)
	if from := step.Approve.From; len(from) > 0 {
		authors = slices.DeleteFunc(authors, func(a string) bool { return !slices.Contains(from, a) })
	}
	return authors
}

// seen adds the authors who were not seen before.
func seen(before []v1alpha1.SeenApproval, authors []string, now metav1.Time) []v1alpha1.SeenApproval {
	for _, a := range authors {
		if !slices.ContainsFunc(before, func(s v1alpha1.SeenApproval) bool { return s.Author == a }) {
			before = append(before, v1alpha1.SeenApproval{Author: a, SeenAt: now})
		}
	}
	return before
}

func lapsed(approvals []v1alpha1.SeenApproval, validForSeconds int32, now metav1.Time) bool {
	return slices.ContainsFunc(approvals, func(s v1alpha1.SeenApproval) bool {
		return now.Sub(s.SeenAt.Time) > time.Duration(validForSeconds)*time.Second
	})
}
