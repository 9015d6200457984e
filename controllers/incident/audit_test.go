package incident

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
)

// storeVerdicts answers by key.
type storeVerdicts map[string]error

func (v storeVerdicts) Verify(_ context.Context, o store.Object) error { return v[o.Key] }

func TestAudit(t *testing.T) {
	items := []v1alpha1.EvidenceItem{
		{ID: "here", State: v1alpha1.EvidenceCollected, Digest: "sha256:1", Location: "incidents/i/items/1"},
		{ID: "gone", State: v1alpha1.EvidenceCollected, Digest: "sha256:2", Location: "incidents/i/items/2"},
		{ID: "other", State: v1alpha1.EvidenceCollected, Digest: "sha256:3", Location: "incidents/i/items/3"},
		{ID: "pending", State: v1alpha1.EvidencePending, Digest: "sha256:4", Location: "ConfigMap a/b"},
		{ID: "snapshot", State: v1alpha1.EvidenceCollected, Location: "VolumeSnapshotContent c"},
	}
	answers := storeVerdicts{"incidents/i/items/2": store.ErrNotFound, "incidents/i/items/3": store.ErrCorrupt}
	a := &audit{}
	if err := a.look(context.Background(), answers, storedItems(items)); err != nil {
		t.Fatal(err)
	}
	s := &scope{next: &v1alpha1.IncidentStatus{Evidence: items}, now: metav1.NewTime(time.Unix(0, 0))}
	s.noteLost(a)
	states := map[string]v1alpha1.EvidenceState{}
	for _, e := range s.next.Evidence {
		states[e.ID] = e.State
		if e.State == v1alpha1.EvidenceGap && !strings.HasPrefix(e.Message, "lost: ") {
			t.Errorf("%s says %q, want it to say that it is lost", e.ID, e.Message)
		}
	}
	want := map[string]v1alpha1.EvidenceState{
		"here": v1alpha1.EvidenceCollected, "gone": v1alpha1.EvidenceGap, "other": v1alpha1.EvidenceGap, "pending": v1alpha1.EvidencePending, "snapshot": v1alpha1.EvidenceCollected,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// A store that cannot be read has lost nothing as far as anybody knows.
func TestAuditOfAStoreThatIsAway(t *testing.T) {
	a := &audit{}
	items := []v1alpha1.EvidenceItem{{ID: "x", State: v1alpha1.EvidenceCollected, Digest: "sha256:1", Location: "incidents/i/items/1"}}
	if err := a.look(context.Background(), storeVerdicts{"incidents/i/items/1": errors.New("no route")}, items); err == nil || len(a.lost) > 0 {
		t.Errorf("look() = %v, lost %v, want an error and nothing lost", err, a.lost)
	}
}

// hanging is a store that answers nothing.
type hanging struct{}

func (hanging) Verify(ctx context.Context, _ store.Object) error {
	<-ctx.Done()
	return ctx.Err()
}

// A store that hangs is given up, so that it is asked again once it works; a large object may take longer than a small one.
func TestAuditOfAStoreThatHangs(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		want time.Duration
	}{
		"small": {size: 10, want: 30 * time.Second},
		"large": {size: 1 << 30, want: 30*time.Second + 1024*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				items := []v1alpha1.EvidenceItem{{ID: "x", State: v1alpha1.EvidenceCollected, Digest: "sha256:1", Location: "incidents/i/items/1", Size: test.size}}
				a := &audit{}
				if err := a.look(t.Context(), hanging{}, items); !errors.Is(err, context.DeadlineExceeded) || len(a.lost) > 0 {
					t.Errorf("look() = %v, lost %v, want a deadline and nothing lost", err, a.lost)
				}
				if took := time.Since(begun); took != test.want {
					t.Errorf("look() gave up after %v, want %v", took, test.want)
				}
			})
		})
	}
}

// What is removed while people recover for days is noticed before the next destructive step.
func TestAuditIsDoneOnceMoreAfterAnHour(t *testing.T) {
	begun := time.Unix(0, 0)
	a := &audit{}
	if a.outdated(begun.Add(100 * time.Hour)) {
		t.Error("an audit that is under way counts as outdated")
	}
	for _, now := range []time.Time{begun, begun.Add(time.Minute)} {
		(&scope{next: &v1alpha1.IncidentStatus{}, now: metav1.NewTime(now)}).noteLost(a)
	}
	if a.outdated(begun.Add(time.Hour - time.Second)) {
		t.Error("an audit is outdated before its hour is over")
	}
	if !a.outdated(begun.Add(time.Hour)) {
		t.Error("an audit still counts after an hour")
	}
	if a.outdated(begun.Add(2 * time.Hour)) {
		t.Error("an audit that was begun anew counts as outdated")
	}
}

// A store that hangs while it is opened is given up as well, and opened anew for the next attempt.
func TestAuditOfAStoreThatHangsWhileItIsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, given := 0, []time.Duration{}
		stores := &evidence.Stores{Default: "mem://", OpenStore: func(ctx context.Context, url string, opts store.Options) (*store.Store, error) {
			if opened++; opened > 1 {
				return store.Open(ctx, url, opts)
			}
			begun := time.Now()
			<-ctx.Done()
			given = append(given, time.Since(begun))
			return nil, ctx.Err()
		}}
		background := evidence.NewBackground(1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = background.Start(ctx) }()
		synctest.Wait()
		s := changed(contained(), goal(v1alpha1.GoalRecover))
		s.Reconciler = &Reconciler{Background: background, Books: NewBooks(stores, nil, background, nil)}
		s.books.begun = true
		if waiting := s.auditItems(); waiting != "" || !s.auditing {
			t.Errorf("while it is opened, auditItems() = %q, auditing %v", waiting, s.auditing)
		}
		<-background.Wake
		s.auditing = false
		if waiting := s.auditItems(); !strings.Contains(waiting, "deadline exceeded") || s.auditing {
			t.Errorf("once it is given up, auditItems() = %q, auditing %v", waiting, s.auditing)
		}
		if diff := cmp.Diff([]time.Duration{bookLimit}, given); diff != "" {
			t.Errorf("given up after (-want +got):\n%s", diff)
		}
		s.auditItems()
		<-background.Wake
		s.auditing = false
		if waiting := s.auditItems(); waiting != "" || s.auditing {
			t.Errorf("once it works, auditItems() = %q, auditing %v", waiting, s.auditing)
		}
		stop()
		synctest.Wait()
	})
}

// A snapshot that counts in part is looked for like a whole one.
func TestSnapshotItems(t *testing.T) {
	var items []v1alpha1.EvidenceItem
	for _, state := range []v1alpha1.EvidenceState{v1alpha1.EvidencePending, v1alpha1.EvidenceCollected, v1alpha1.EvidencePartial, v1alpha1.EvidenceGap, v1alpha1.EvidenceRemoved} {
		items = append(items, v1alpha1.EvidenceItem{ID: string(state), Type: v1alpha1.EvidenceVolumeSnapshot, State: state}, v1alpha1.EvidenceItem{ID: "logs", Type: v1alpha1.EvidenceLogs, State: state})
	}
	var got []string
	for _, item := range snapshotItems(items) {
		got = append(got, item.ID)
	}
	if diff := cmp.Diff([]string{"Collected", "Partial"}, got); diff != "" {
		t.Errorf("snapshotItems() (-want +got):\n%s", diff)
	}
}
