package recovery

import (
	"context"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
)

// approve waits until enough people have approved this very plan.
type approve struct{}

func (approve) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if missing := approval.Missing(x.Incident, step.Name, x.PlanDigest, step.Approve.Required); missing != "" {
		return waiting("%s", missing), nil
	}
	unguarded, err := approval.Guarded(ctx, x.Reader)
	if err != nil {
		return Outcome{}, err
	}
	if unguarded != "" {
		return waiting("%s", unguarded), nil
	}
	return done("approved by %s", strings.Join(approval.Authors(x.Incident, step.Name, x.PlanDigest), ", ")), nil
}
