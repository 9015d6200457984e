package incident

import (
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// FieldManager is the name under which the operator's writes are recorded in metadata.managedFields.
const FieldManager = "cofferdam"

// Tamperings are the changes by others that were seen and are not yet in status: a pass that repairs one may fail to write its status. It is safe for concurrent use.
type Tamperings struct {
	mu      sync.Mutex
	waiting map[types.UID][]v1alpha1.Tampering
	// seen are changes that were counted already, so that none is counted twice while it is being repaired.
	seen *lru.Cache
}

// seenChanges is how many changes by others are remembered.
const seenChanges = 4096

// NewTamperings returns an empty record.
func NewTamperings() *Tamperings {
	return &Tamperings{waiting: map[types.UID][]v1alpha1.Tampering{}, seen: lru.New(seenChanges)}
}

// first reports whether the change was not seen before.
func (t *Tamperings) first(change string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.seen.Get(change); again {
		return false
	}
	t.seen.Add(change, true)
	return true
}

func (t *Tamperings) add(incident types.UID, entry v1alpha1.Tampering) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[incident] = append(t.waiting[incident], entry)
}

func (t *Tamperings) of(incident types.UID) []v1alpha1.Tampering {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.waiting[incident])
}

// written forgets the first n, which are in status now.
func (t *Tamperings) written(incident types.UID, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[incident] = t.waiting[incident][n:]; len(t.waiting[incident]) == 0 {
		delete(t.waiting, incident)
	}
}

// tampered records that somebody else changed what holds the quarantine. obj is the object as it was found, nil if it is gone.
func (s *scope) tampered(ref v1alpha1.ObjectRef, what string, obj metav1.Object) {
	if s.dryRun() {
		return
	}
	change := goneChange(ref)
	if obj != nil {
		change = fmt.Sprintf("%s %s %s", obj.GetUID(), obj.GetResourceVersion(), what)
	}
	if !s.Tamperings.first(fmt.Sprintf("%s %s", s.incident.UID, change)) {
		return
	}
	entry := v1alpha1.Tampering{At: s.now, Object: ref, What: clip(what, 512)}
	if obj != nil {
		by, at := lastWriter(obj)
		entry.By, entry.ChangedAt = clip(by, 128), metav1.NewTime(at)
	}
	s.Tamperings.add(s.incident.UID, entry)
}

func goneChange(ref v1alpha1.ObjectRef) string { return "gone " + ref.UID }

// countTampering puts what was seen into the status that is about to be written, and returns how much that is.
func (s *scope) countTampering() int {
	fresh := s.Tamperings.of(s.incident.UID)
	all := append(slices.Clone(s.next.Tampering), fresh...)
	s.next.Tampering = all[max(0, len(all)-v1alpha1.MaxTampering):]
	if len(all) == 0 {
		s.next.Tampering = nil
	}
	s.next.TamperingCount += bounded(len(fresh))
	return len(fresh)
}

// lastWriter is the field manager, other than the operator, that has changed the object last, and when, if that was since the operator did. Who only takes something away leaves no trace in managedFields, and is
// not known; nobody else is blamed for it. Managers of status change nothing that matters here.
func lastWriter(obj metav1.Object) (manager string, at time.Time) {
	var ours time.Time
	for _, m := range obj.GetManagedFields() {
		switch {
		case m.Subresource != "" || m.Time == nil:
		case m.Manager == FieldManager:
			ours = latest(ours, m.Time.Time)
		case !m.Time.Time.Before(at):
			manager, at = m.Manager, m.Time.Time
		}
	}
	if at.Before(ours) {
		return "", time.Time{}
	}
	return manager, at
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
