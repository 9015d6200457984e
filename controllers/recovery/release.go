package recovery

import (
	"context"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// release lifts quarantine.
type release struct{}

func (release) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return x.Release(ctx, *step.Release)
}
