package evidence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var owner = types.NamespacedName{Namespace: "soc", Name: "inc-1"}

// inBackground runs the test with a Background that is started and wakes nobody but a channel that the test may read. Time is that of the bubble, and a goroutine that is left over when the test
// ends fails it.
func inBackground(t *testing.T, slots int, test func(t *testing.T, b *Background, woken <-chan types.NamespacedName, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := NewBackground(slots)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Start(ctx) }()
		woken := make(chan types.NamespacedName, 1000)
		go func() {
			for {
				select {
				case e := <-b.Wake:
					woken <- e.Object
				case <-ctx.Done():
					return
				}
			}
		}()
		stopped := false
		stop := func() {
			if stopped {
				return
			}
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Start() = %v", err)
			}
		}
		synctest.Wait()
		test(t, b, woken, stop)
		stop()
	})
}

func named(id string) Result { return Result{Item: v1alpha1.EvidenceItem{ID: id}} }

func TestBackgroundKeepsAResultUntilItIsForgotten(t *testing.T) {
	inBackground(t, 1, func(t *testing.T, b *Background, woken <-chan types.NamespacedName, _ func()) {
		runs := 0
		fn := func(context.Context) Result { runs++; return named(fmt.Sprint("run ", runs)) }
		if r, ended := b.Do("a", owner, time.Minute, fn); ended {
			t.Fatalf("Do() = %+v, ended, before the task had a chance to run", r)
		}
		synctest.Wait()
		if got := <-woken; got != owner {
			t.Errorf("woke %s, want %s", got, owner)
		}
		for range 3 {
			if r, ended := b.Do("a", owner, time.Minute, fn); !ended || r.Item.ID != "run 1" || r.Err != nil {
				t.Errorf("Do() = %+v, %v, want the result of the first run", r, ended)
			}
		}
		b.Forget("a")
		b.Do("a", owner, time.Minute, fn)
		synctest.Wait()
		if r, ended := b.Do("a", owner, time.Minute, fn); !ended || r.Item.ID != "run 2" {
			t.Errorf("Do() after Forget = %+v, %v, want the result of a second run", r, ended)
		}
	})
}

func TestBackgroundRunsATaskOnce(t *testing.T) {
	inBackground(t, 4, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		begun, release := make(chan struct{}, 100), make(chan struct{})
		fn := func(context.Context) Result { begun <- struct{}{}; <-release; return named("a") }
		for range 50 {
			if _, ended := b.Do("a", owner, time.Minute, fn); ended {
				t.Fatal("ended while it was under way")
			}
			synctest.Wait()
		}
		if len(begun) != 1 {
			t.Errorf("the task was begun %d times, want once", len(begun))
		}
		close(release)
	})
}

func TestBackgroundEndsATaskAfterItsLimit(t *testing.T) {
	inBackground(t, 1, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		started := time.Now()
		first := func(ctx context.Context) Result { <-ctx.Done(); return Result{Err: ctx.Err()} }
		b.Do("first", owner, time.Minute, first)
		synctest.Wait()
		// The second waits for the only slot, which does not count.
		var left time.Duration
		second := func(ctx context.Context) Result {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return named("second")
		}
		b.Do("second", owner, time.Minute, second)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r, ended := b.Do("first", owner, time.Minute, first); !ended || !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("Do() = %+v, %v, want a task that ended at its limit", r, ended)
		}
		if got := time.Since(started); got != time.Minute || left != time.Minute {
			t.Errorf("the first ended after %s and the second had %s, want a minute each", got, left)
		}
	})
}

func TestBackgroundCancels(t *testing.T) {
	for name, end := range map[string]func(b *Background, stop func()){
		"Forget":    func(b *Background, _ func()) { b.Forget("inc/a"); b.Forget("inc/waits") },
		"ForgetAll": func(b *Background, _ func()) { b.ForgetAll("inc/") },
		"shutdown":  func(_ *Background, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			inBackground(t, 1, func(t *testing.T, b *Background, woken <-chan types.NamespacedName, stop func()) {
				ended := make(chan error, 2)
				fn := func(ctx context.Context) Result { <-ctx.Done(); ended <- ctx.Err(); return Result{} }
				b.Do("inc/a", owner, time.Hour, fn)
				synctest.Wait()
				b.Do("inc/waits", owner, time.Hour, fn) // for the slot
				synctest.Wait()
				end(b, stop)
				synctest.Wait()
				if len(ended) != 1 || !errors.Is(<-ended, context.Canceled) {
					t.Error("want the task that ran to be cancelled, and the one that waited not to be begun")
				}
				if len(woken) > 0 {
					t.Error("somebody was woken for a task that nobody asks for any more")
				}
			})
		})
	}
}

func TestBackgroundForgetAllLeavesOthersAlone(t *testing.T) {
	inBackground(t, 2, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		fn := func(context.Context) Result { return named("x") }
		b.Do("uid-1/a", owner, time.Hour, fn)
		b.Do("uid-2/a", owner, time.Hour, fn)
		synctest.Wait()
		b.ForgetAll("uid-1/")
		if _, ended := b.Do("uid-2/a", owner, time.Hour, fn); !ended {
			t.Error("the task of another Incident was forgotten")
		}
		if _, ended := b.Do("uid-1/a", owner, time.Hour, fn); ended {
			t.Error("the task was not forgotten")
		}
	})
}

func TestBackgroundSlots(t *testing.T) {
	inBackground(t, 3, func(t *testing.T, b *Background, woken <-chan types.NamespacedName, _ func()) {
		begun, release := make(chan struct{}, 100), make(chan struct{})
		fn := func(context.Context) Result { begun <- struct{}{}; <-release; return Result{} }
		for i := range 20 {
			b.Do(fmt.Sprint(i), owner, time.Minute, fn)
		}
		for want := 3; want <= 20; want++ {
			synctest.Wait()
			if len(begun) != want {
				t.Fatalf("%d tasks were begun, want %d: three at a time", len(begun), want)
			}
			release <- struct{}{}
		}
		close(release)
		synctest.Wait()
		if len(woken) != 20 {
			t.Errorf("woke %d times, want once for each of 20 tasks", len(woken))
		}
	})
}

// The slots are free again although nobody takes the wake: a reconciler that is slow holds up nobody's evidence.
func TestBackgroundDoesNotWaitForWhoIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBackground(1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = b.Start(ctx) }() // always nil
		synctest.Wait()
		fn := func(context.Context) Result { return named("x") }
		for i := range 5 {
			b.Do(fmt.Sprint(i), owner, time.Minute, fn)
		}
		synctest.Wait()
		for i := range 5 {
			if _, ended := b.Do(fmt.Sprint(i), owner, time.Minute, fn); !ended {
				t.Errorf("task %d did not run", i)
			}
		}
		cancel()
	})
}

func TestBackgroundSurvivesAPanic(t *testing.T) {
	inBackground(t, 1, func(t *testing.T, b *Background, woken <-chan types.NamespacedName, _ func()) {
		fn := func(context.Context) Result { panic("a log that nobody expected") }
		b.Do("a", owner, time.Minute, fn)
		synctest.Wait()
		r, ended := b.Do("a", owner, time.Minute, fn)
		if !ended || r.Err == nil || !strings.Contains(r.Err.Error(), "a log that nobody expected") {
			t.Errorf("Do() = %+v, %v, want the panic as its error", r, ended)
		}
		if len(woken) != 1 {
			t.Error("nobody was woken")
		}
		b.Do("b", owner, time.Minute, func(context.Context) Result { return named("b") })
		synctest.Wait()
		if r, ended := b.Do("b", owner, time.Minute, nil); !ended || r.Item.ID != "b" {
			t.Errorf("Do() = %+v, %v, want the slot of the task that panicked to be free", r, ended)
		}
	})
}

func TestBackgroundDoesNothingUnlessItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := func(context.Context) Result { t.Error("ran"); return Result{} }
		b := NewBackground(1)
		if _, ended := b.Do("a", owner, time.Minute, fn); ended {
			t.Error("ended before Start")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Start(ctx); err != nil {
			t.Error(err)
		}
		if _, ended := b.Do("a", owner, time.Minute, fn); ended {
			t.Error("ended after the end")
		}
		synctest.Wait()
	})
}

// What a dead operator had begun is begun anew by the next one, from nothing but the item that is pending.
func TestBackgroundIsBegunAnew(t *testing.T) {
	runs := 0
	for range 2 {
		inBackground(t, 1, func(_ *testing.T, b *Background, _ <-chan types.NamespacedName, stop func()) {
			fn := func(ctx context.Context) Result { runs++; <-ctx.Done(); return Result{} }
			b.Do("a", owner, time.Hour, fn)
			synctest.Wait()
			stop()
		})
	}
	if runs != 2 {
		t.Errorf("the task was begun %d times by two operators, want once by each", runs)
	}
}
