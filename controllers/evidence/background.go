package evidence

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Background runs what is slow outside the passes, so many tasks at a time. What was under way when the operator dies is begun anew by the next one: tasks are named after evidence items,
// and an item that is pending is asked for in every pass.
type Background struct {
	// Wake receives the Incident whose task has ended.
	Wake chan event.TypedGenericEvent[types.NamespacedName]

	slots chan struct{}
	mu    sync.Mutex
	base  context.Context //nolint:containedctx // the life of the manager, which outlasts any one call
	tasks map[string]*task
}

// Result is what came of a task: the item as it is now, or why nothing is known yet.
type Result struct {
	Item v1alpha1.EvidenceItem
	Err  error
	// last says that the try was begun after the item's deadline: there is no further one.
	last bool
}

type task struct {
	cancel context.CancelFunc
	ended  bool
	result Result
}

// NewBackground runs so many tasks at a time, as soon as it is started.
func NewBackground(atOnce int) *Background {
	return &Background{
		Wake: make(chan event.TypedGenericEvent[types.NamespacedName]), slots: make(chan struct{}, atOnce), tasks: map[string]*task{},
	}
}

// Start lets tasks run until the context ends; they end with it.
func (b *Background) Start(ctx context.Context) error {
	b.mu.Lock()
	b.base = ctx
	b.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Do returns the result of the task if it has ended. Otherwise it sees to it that the task runs, and the owner is woken when it ends. The context of the task ends after limit, counted from when it
// begins to run. A result is kept until it is forgotten, because the pass that reads it may not come to write it down. A panic in fn is the error of the task, and of nothing else.
func (b *Background) Do(id string, owner types.NamespacedName, limit time.Duration, fn func(context.Context) Result) (Result, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, known := b.tasks[id]; known {
		return t.result, t.ended
	}
	if b.base == nil || b.base.Err() != nil {
		return Result{}, false // not started yet, or over: a later pass, or operator, asks again
	}
	ctx, cancel := context.WithCancel(b.base)
	t := &task{cancel: cancel}
	b.tasks[id] = t
	go b.run(ctx, t, id, owner, limit, fn)
	return Result{}, false
}

func (b *Background) run(ctx context.Context, t *task, id string, owner types.NamespacedName, limit time.Duration, fn func(context.Context) Result) {
	defer t.cancel()
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	if ctx.Err() != nil { // of two cases that are ready, select takes either
		<-b.slots
		return
	}
	result := guarded(ctx, id, limit, fn)
	<-b.slots
	b.mu.Lock()
	t.result, t.ended = result, true
	b.mu.Unlock()
	if ctx.Err() != nil {
		return // forgotten meanwhile: nobody asks for it any more
	}
	select {
	case b.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: owner}:
	case <-ctx.Done():
	}
}

// guarded runs fn. A panic that left this goroutine would end the operator, and with it the containment of every other Incident, again and again: what a task reads comes from the pods that
// are investigated.
func guarded(ctx context.Context, id string, limit time.Duration, fn func(context.Context) Result) (result Result) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if err := panicked(ctx, recover()); err != nil {
			result = Result{Err: fmt.Errorf("task %s: %w", id, err)}
		}
	}()
	return fn(limited)
}

// panicked makes an error of what recover has returned.
func panicked(ctx context.Context, cause any) error {
	if cause == nil {
		return nil
	}
	err := fmt.Errorf("panicked: %v", cause)
	logf.FromContext(ctx).Error(err, "a background task panicked", "stack", string(debug.Stack()))
	return err
}

// Running reports whether there is nothing to do about the task but to wait. A pass asks that of every item that is pending, which may be a thousand, before it prepares what Do is given.
func (b *Background) Running(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, known := b.tasks[id]
	return known && !t.ended
}

// Result returns the result of the task if it has ended, and starts nothing.
func (b *Background) Result(id string) (Result, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, known := b.tasks[id]; known {
		return t.result, t.ended
	}
	return Result{}, false
}

// Forget drops a task and its result, and ends it if it is under way. The next Do begins it anew.
func (b *Background) Forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(id)
}

// ForgetAll forgets every task whose name begins with the prefix, such as all of an Incident that is over.
func (b *Background) ForgetAll(prefix string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.tasks {
		if strings.HasPrefix(id, prefix) {
			b.forget(id)
		}
	}
}

func (b *Background) forget(id string) {
	if t, known := b.tasks[id]; known {
		t.cancel()
		delete(b.tasks, id)
	}
}
