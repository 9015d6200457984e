package incident

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// sideBySide runs steps in their order. While one of them waits for the API server to answer a patch, the next goes on, so that what is independent in the plan is not done one after the other. Everything else
// of a step happens while no other one does anything: what it decides on, and what it notes, is never seen half-done.
func sideBySide(ctx context.Context, x *recovery.Execution, steps []v1alpha1.RecoveryStep, runnable []int) ([]recovery.Outcome, []error) {
	outcomes, errs := make([]recovery.Outcome, len(runnable)), make([]error, len(runnable))
	var (
		turn    sync.Mutex
		running sync.WaitGroup
	)
	for n, i := range runnable {
		step := steps[i]
		if !writesMuch(step) {
			turn.Lock()
			outcomes[n], errs[n] = guardedStep(ctx, x, step)
			turn.Unlock()
			continue
		}
		own, let := *x, &letting{writer: x.Writer, turn: &turn, first: make(chan struct{})}
		own.Writer = let
		running.Go(func() {
			defer let.begun()
			turn.Lock()
			defer turn.Unlock()
			outcomes[n], errs[n] = guardedStep(ctx, &own, step)
		})
		<-let.first
	}
	running.Wait()
	return outcomes, errs
}

// writesMuch reports whether a step changes workloads, and keeps nothing in the Execution itself, of which it gets a copy.
func writesMuch(step v1alpha1.RecoveryStep) bool {
	return step.Scale != nil || step.RollBackImages != nil
}

// guardedStep runs a step. A panic that left its goroutine would end the operator, and with it the containment of every other Incident.
func guardedStep(ctx context.Context, x *recovery.Execution, step v1alpha1.RecoveryStep) (out recovery.Outcome, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panicked: %v", cause)
			ctrl.LoggerFrom(ctx).Error(err, "A step panicked", "step", step.Name, "stack", string(debug.Stack()))
		}
	}()
	return recovery.Run(ctx, x, step)
}

// letting lets others have their turn while a workload is patched. Other writes come right before a patch, as the deletion of the pod whose name is needed does: whatever comes in between gives Kubernetes time to
// start one more pod from the template that is about to be changed.
type letting struct {
	writer recovery.Writer
	turn   *sync.Mutex
	once   sync.Once
	// first is closed when the step's first patch is under way, or when it has ended.
	first chan struct{}
}

func (l *letting) begun() { l.once.Do(func() { close(l.first) }) }

func (l *letting) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	if op.Verb != "patch" {
		return l.writer.Write(ctx, op, fn)
	}
	return l.writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		l.turn.Unlock()
		defer l.turn.Lock()
		l.begun()
		return fn(ctx, c)
	})
}
