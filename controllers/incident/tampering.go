package incident

import (
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
		by, at := lastWriter(obj)
		entry.By, entry.ChangedAt = clip(by, 128), metav1.NewTime(at)
	}
	for _, known := range s.next.Tampering {
		if known.Object == ref && known.What == entry.What && known.ChangedAt.Time.Equal(entry.ChangedAt.Time) && (obj != nil || known.At.Time.Equal(s.now.Time)) {
			return
		}
	}
	s.next.Tampering = append(s.next.Tampering, entry)
	s.next.Tampering = s.next.Tampering[max(0, len(s.next.Tampering)-v1alpha1.MaxTampering):]
	s.next.TamperingCount++
}

// lastWriter is the field manager, other than the operator, that changed the object last, and when. Managers that write the status only change nothing that matters here.
func lastWriter(obj metav1.Object) (manager string, at time.Time) {
	for _, m := range obj.GetManagedFields() {
		if m.Manager == FieldManager || m.Subresource != "" || m.Time == nil || m.Time.Time.Before(at) {
			continue
		}
		manager, at = m.Manager, m.Time.Time
	}
	return manager, at
}
