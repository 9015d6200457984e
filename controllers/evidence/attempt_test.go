package evidence

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// A try that fails is repeated until the deadline, and once more after it. Then its error is the reason of the gap.
func TestAttempts(t *testing.T) {
	for name, tc := range map[string]struct {
		fn      func() Result
		message string
	}{
		"an error":              {func() Result { return Result{Err: errors.New("away\nfrom here")} }, "not done before the deadline: away�from here"},
		"a panic":               {func() Result { panic("odd") }, "not done before the deadline: panicked: odd"},
		"an error of the store": {func() Result { return Result{Err: &storeError{err: errors.New("full")}} }, "could not be stored: full"},
	} {
		t.Run(name, func(t *testing.T) {
			inBackground(t, 1, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
				w := &logWorld{b: b}
				item := podItem(w.execution(), "logs-pod-uid", v1alpha1.EvidenceLogs, onePod(), time.Minute)
				begun, lastTry := time.Now(), time.Time{}
				for item.State == v1alpha1.EvidencePending {
					var err error
					if item, err = inTheBackground(w.execution(), item, func(context.Context, attempt) Result { lastTry = time.Now(); return tc.fn() }); err != nil && !strings.HasPrefix(item.Message, "is tried again: ") {
						t.Errorf("message %q after %v", item.Message, err)
					}
					synctest.Wait()
					time.Sleep(2 * time.Second)
				}
				if item.State != v1alpha1.EvidenceGap || item.Message != tc.message {
					t.Errorf("item is %s: %q, want a gap: %q", item.State, item.Message, tc.message)
				}
				if took := lastTry.Sub(begun); took < 56*time.Second || took > 66*time.Second {
					t.Errorf("the last try was after %s, want about a minute", took)
				}
			})
		})
	}
}

// Pods that were found to have the item while it was collected are not lost.
func TestAttemptsKeepPods(t *testing.T) {
	inBackground(t, 1, func(t *testing.T, b *Background, _ <-chan types.NamespacedName, _ func()) {
		w := &logWorld{b: b}
		item := podItem(w.execution(), "logs-pod-uid", v1alpha1.EvidenceLogs, onePod(), time.Minute)
		fn := func(context.Context, attempt) Result { return Result{Item: gap(item, "for a test")} }
		if _, err := inTheBackground(w.execution(), item, fn); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		now := item
		now.Pods = append(now.Pods, "another")
		got, err := inTheBackground(w.execution(), now, fn)
		if err != nil || len(got.Pods) != 2 || got.State != v1alpha1.EvidenceGap {
			t.Errorf("item = %+v, %v, want both pods", got, err)
		}
	})
}
