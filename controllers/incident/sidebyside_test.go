package incident

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// direct performs every write.
type direct struct{}

func (direct) Write(ctx context.Context, _ v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	return fn(ctx, nil)
}

// Others have their turn while a patch is under way, and never otherwise.
func TestLetting(t *testing.T) {
	for verb, lets := range map[string]bool{"patch": true, "delete": false, "create": false} {
		t.Run(verb, func(t *testing.T) {
			var turn sync.Mutex
			free := func() bool {
				got := turn.TryLock()
				if got {
					turn.Unlock()
				}
				return got
			}
			let := &letting{writer: direct{}, turn: &turn, first: make(chan struct{})}
			turn.Lock()
			during := false
			if err := let.Write(t.Context(), v1alpha1.PlannedAction{Verb: verb}, func(context.Context, client.Client) error {
				during = free()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			begun := false
			select {
			case <-let.first:
				begun = true
			default:
			}
			if diff := cmp.Diff([]bool{lets, false, lets}, []bool{during, free(), begun}); diff != "" {
				t.Errorf("free during, free after, the next one begins (-want +got):\n%s", diff)
			}
		})
	}
}

// A step that panics is an error of its own, and the others are run all the same.
func TestSideBySideOutlivesAPanic(t *testing.T) {
	steps := []v1alpha1.RecoveryStep{
		{Name: "none"}, // no action at all: what a plan cannot say
		{Name: "scale", Scale: &v1alpha1.ScaleStep{}},
	}
	outcomes, errs := sideBySide(t.Context(), &recovery.Execution{Incident: &v1alpha1.Incident{}}, steps, []int{0, 1, 0})
	if errs[0] == nil || errs[1] != nil || errs[2] == nil {
		t.Errorf("errors %v, want one for each step without an action", errs)
	}
	if len(outcomes) != 3 {
		t.Errorf("%d outcomes", len(outcomes))
	}
}
