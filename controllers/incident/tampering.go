package incident

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// FieldManager is the name under which the operator's writes are recorded in metadata.managedFields.
const FieldManager = "cofferdam"

// tampered records that somebody else changed what holds the quarantine. obj is the object as it was found, nil if it is gone. What was recorded by an earlier pass, which could not repair it yet, is not
// counted again.
func (s *scope) tampered(ref v1alpha1.ObjectRef, what string, obj metav1.Object) {
	if s.dryRun() {
		return
	}
	entry := v1alpha1.Tampering{At: s.now, Object: ref, What: clip(what, 512)}
	if obj != nil {
		seen := fmt.Sprintf("%s %s %s", obj.GetUID(), obj.GetResourceVersion(), what)
		if _, again := s.Seen.Get(seen); again {
			return
		}
		s.Seen.Add(seen, true)
		by, at := lastWriter(obj)
		entry.By, entry.ChangedAt = clip(by, 128), metav1.NewTime(at)
	}
	s.next.Tampering = append(s.next.Tampering, entry)
	s.next.Tampering = s.next.Tampering[max(0, len(s.next.Tampering)-v1alpha1.MaxTampering):]
	s.next.TamperingCount++
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
