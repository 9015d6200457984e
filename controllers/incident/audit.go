package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
)

const (
	// auditLimit is how long it may take to read again everything that an Incident has in the store.
	auditLimit = 24 * time.Hour
	// slowestStore is what the slowest store delivers, in bytes a second. One that is slower is taken to hang.
	slowestStore = 1 << 20
	// auditValid is how long a look counts. Recovery may take days; what is removed meanwhile has to be noticed before the next destructive step.
	auditValid = time.Hour
)

// audit is a look at everything that is in the store, before anything is done that would make it impossible to collect it once more.
type audit struct {
	mu   sync.Mutex
	lost map[string]string
	// noted is when a pass read what came of it; zero while it is under way.
	noted time.Time
}

// auditItems reads again, before destructive measures and every hour until they are over, every item that is in the store, and looks whether every snapshot still exists. What is not there any more, or
// is not what was stored, is recorded as lost. It says why that could not be done; while it is being done, auditing is set.
func (s *scope) auditItems() (waiting string) {
	goal := s.incident.Spec.Goal
	if s.dryRun() || goal == v1alpha1.GoalContain || !s.books.begun || s.books.trouble() != "" {
		return "" // a store that cannot take the ledger holds back more than an audit would
	}
	k := s.Books.of(s.owner(), s.incident.UID)
	a := k.auditOf(goal)
	task := string(s.incident.UID) + "/audit/" + string(goal)
	if over := goal == v1alpha1.GoalRecover && !s.incident.Status.RecoveredAt.IsZero(); !over && a.outdated(s.now.Time) {
		s.Background.Forget(task)
	}
	items, snapshots := storedItems(s.incident.Status.Evidence), snapshotItems(s.incident.Status.Evidence)
	stores, orders, reader := s.Books.Stores, s.orders().Store, s.Client
	result, ended := s.Background.Do(task, s.owner(), auditLimit, func(ctx context.Context) evidence.Result {
		opening, cancel := context.WithTimeout(ctx, bookLimit)
		defer cancel()
		st, err := stores.For(opening, orders)
		if err != nil {
			return evidence.Result{Err: err}
		}
		if err := a.look(ctx, st, items); err != nil {
			return evidence.Result{Err: err}
		}
		return evidence.Result{Err: a.lookAtSnapshots(ctx, reader, snapshots)}
	})
	switch {
	case !ended:
		s.auditing = true // the end of the task wakes us
		return ""
	case result.Err != nil:
		s.Background.Forget(task)
		s.lookAgainAfter(bookRetry)
		return "waits until what is in the evidence store can be looked at again: " + result.Err.Error()
	}
	s.noteLost(a)
	return ""
}

// verifier is what an audit needs of a store.
type verifier interface {
	Verify(ctx context.Context, object store.Object) error
}

// look verifies the items. The error is of the store; that an item is lost is a finding.
func (a *audit) look(ctx context.Context, st verifier, items []v1alpha1.EvidenceItem) error {
	lost := map[string]string{}
	for i := range items {
		stored := storedAs(&items[i])
		err := verifyInTime(ctx, st, store.Object{Key: stored.Key, Digest: stored.Digest, Size: stored.Size})
		switch {
		case err == nil:
		case errors.Is(err, store.ErrNotFound):
			lost[items[i].ID] = "it is not in the store any more"
		case errors.Is(err, store.ErrCorrupt):
			lost[items[i].ID] = "what is in the store is not what was stored"
		default:
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = lost
	return nil
}

// lookAtSnapshots adds the snapshots that are lost.
func (a *audit) lookAtSnapshots(ctx context.Context, r client.Reader, items []v1alpha1.EvidenceItem) error {
	for i := range items {
		why, err := evidence.SnapshotLost(ctx, r, &items[i])
		if err != nil {
			return err
		}
		if why != "" {
			a.mu.Lock()
			a.lost[items[i].ID] = why
			a.mu.Unlock()
		}
	}
	return nil
}

// verifyInTime verifies one object. A store that hangs is given up after a time that goes with the object's size, so that it is asked again.
func verifyInTime(ctx context.Context, st verifier, object store.Object) error {
	limited, cancel := context.WithTimeout(ctx, bookLimit+time.Duration(object.Size/slowestStore)*time.Second)
	defer cancel()
	return st.Verify(limited, object)
}

// outdated reports whether the audit has to be done once more, and if so begins it anew.
func (a *audit) outdated(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.noted.IsZero() || now.Sub(a.noted) < auditValid {
		return false
	}
	a.noted = time.Time{}
	return true
}

// noteLost records which items are lost.
func (s *scope) noteLost(a *audit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.noted.IsZero() {
		a.noted = s.now.Time
	}
	for i := range s.next.Evidence {
		item := &s.next.Evidence[i]
		if why, lost := a.lost[item.ID]; lost && had(item) {
			item.State = v1alpha1.EvidenceGap
			item.Message = fmt.Sprintf("lost: %s (%s); found on %s", why, item.Location, s.now.UTC().Format(time.RFC3339))
		}
	}
}

// had reports whether the item, or a part of it, was safe.
func had(item *v1alpha1.EvidenceItem) bool {
	return item.State == v1alpha1.EvidenceCollected || item.State == v1alpha1.EvidencePartial
}

// storedItems are the items that should be in the store.
func storedItems(items []v1alpha1.EvidenceItem) []v1alpha1.EvidenceItem {
	var out []v1alpha1.EvidenceItem
	for i := range items {
		if had(&items[i]) && evidence.InStore(&items[i]) {
			out = append(out, items[i])
		}
	}
	return out
}

// snapshotItems are the snapshots that were taken.
func snapshotItems(items []v1alpha1.EvidenceItem) []v1alpha1.EvidenceItem {
	return slices.DeleteFunc(slices.Clone(items), func(e v1alpha1.EvidenceItem) bool {
		return !had(&e) || e.Type != v1alpha1.EvidenceVolumeSnapshot
	})
}

func (k *book) auditOf(goal v1alpha1.Goal) *audit {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.audits == nil {
		k.audits = map[v1alpha1.Goal]*audit{}
	}
	if k.audits[goal] == nil {
		k.audits[goal] = &audit{}
	}
	return k.audits[goal]
}
