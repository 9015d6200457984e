package evidence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// maxMessage is how long the message of an item may be, in characters (api/v1alpha1).
const maxMessage = 1024

// attempt is one try at an item, outside the passes.
type attempt struct {
	// begun is when it was asked for, on this machine's clock and on the pass's.
	begun, now time.Time
	// deadline is the item's, on this machine's clock.
	deadline time.Time
}

func newAttempt(x *Execution, item v1alpha1.EvidenceItem) attempt {
	begun := time.Now()
	return attempt{begun: begun, now: x.Now, deadline: begun.Add(item.Deadline.Sub(x.Now))}
}

// time is the time by the clock of the passes.
func (a attempt) time() time.Time { return a.now.Add(time.Since(a.begun)) }

// over reports whether the item's deadline has passed.
func (a attempt) over() bool { return !time.Now().Before(a.deadline) }

// until is when an attempt that begins now has to stop reading: at the item's deadline, or after a short turn if that is later.
func (a attempt) until() time.Time {
	if turn := time.Now().Add(lateTurn); turn.After(a.deadline) {
		return turn
	}
	return a.deadline
}

// inTheBackground asks for an item until it is settled. A try that fails is reported and repeated; once the deadline has passed there is one last try, whose error is the reason of the gap. Whether an
// item could be had therefore does not depend on whether an operator was there at its deadline.
func inTheBackground(x *Execution, item v1alpha1.EvidenceItem, fn func(context.Context, attempt) Result) (v1alpha1.EvidenceItem, error) {
	id, last, a := x.TaskID(item.ID), x.Late(item), newAttempt(x, item)
	limit := max(0, time.Until(a.deadline)) + lateTurn + storeGrace
	result, ended := x.Background.Do(id, x.Owner(), limit, func(ctx context.Context) (result Result) {
		defer func() {
			if err := panicked(ctx, recover()); err != nil {
				result = Result{Err: err}
			}
			result.last = last
		}()
		return fn(ctx, a)
	})
	switch {
	case !ended:
		return item, nil
	case result.Err == nil:
		result.Item.Pods = item.Pods // more may have come meanwhile
		return result.Item, nil
	}
	x.Background.Forget(id)
	var unstored *storeError
	switch {
	case errors.As(result.Err, &unstored) && result.last:
		return gap(item, shorten("could not be stored: "+explain.Clean(result.Err.Error()), maxMessage)), nil
	case result.last:
		return gap(item, shorten("not done before the deadline: "+explain.Clean(result.Err.Error()), maxMessage)), nil
	}
	item.Message = shorten("is tried again: "+explain.Clean(result.Err.Error()), maxMessage)
	return item, fmt.Errorf("collecting %s: %w", item.ID, result.Err)
}

// noStore says what becomes of an item that needs the store while there is none.
func noStore(x *Execution, item v1alpha1.EvidenceItem) v1alpha1.EvidenceItem {
	if x.Late(item) {
		return gap(item, shorten("could not be stored: "+explain.Clean(x.SinkProblem), maxMessage))
	}
	item.Message = shorten("waits for the evidence store: "+explain.Clean(x.SinkProblem), maxMessage)
	return item
}

// seconds is a duration of the orders.
func seconds(ordered int32) time.Duration { return time.Duration(ordered) * time.Second }

// memory is how far background tasks have come, by name. It is only kept so that a repeat need not begin from the start: an operator that has lost it does more, and nothing else.
type memory[T any] struct {
	mu    sync.Mutex
	tasks map[string]*T
}

func (m *memory[T]) of(id string) *T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks == nil {
		m.tasks = map[string]*T{}
	}
	if m.tasks[id] == nil {
		m.tasks[id] = new(T)
	}
	return m.tasks[id]
}

func (m *memory[T]) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tasks, id)
}
