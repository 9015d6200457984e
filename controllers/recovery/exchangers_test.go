package recovery

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
)

// A step that was retried goes on where it was; one that was skipped is people's.
func TestExchangers(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{builder.RestoreVolumes("volumes", nil, "data")}}
	for name, tc := range map[string]struct {
		status v1alpha1.StepStatus
		want   []int
	}{
		"not begun": {status: v1alpha1.StepStatus{State: v1alpha1.StepPending}},
		"running":   {status: v1alpha1.StepStatus{State: v1alpha1.StepRunning}, want: []int{0}},
		"failed":    {status: v1alpha1.StepStatus{State: v1alpha1.StepFailed}, want: []int{0}},
		"retried":   {status: v1alpha1.StepStatus{State: v1alpha1.StepPending, Tries: 1}, want: []int{0}},
		"skipped":   {status: v1alpha1.StepStatus{State: v1alpha1.StepSkipped}},
		"succeeded": {status: v1alpha1.StepStatus{State: v1alpha1.StepSucceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Exchangers(plan, []v1alpha1.StepStatus{tc.status})); diff != "" {
				t.Errorf("Exchangers() (-want +got):\n%s", diff)
			}
		})
	}
}
