package incident

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
)

// noteRecoveryTurn records that people have paused the recovery, or let it go on, since an earlier pass looked. What the ledger does not have yet is not dropped: a turn is then noted later.
func (s *scope) noteRecoveryTurn() {
	if s.dryRun() || !s.holds() {
		return
	}
	turns, state := s.next.RecoveryTurns, v1alpha1.RecoveryResumed
	if ptr.Deref(s.incident.Spec.Recovery.Paused, false) {
		state = v1alpha1.RecoveryPaused
	}
	was := v1alpha1.RecoveryResumed
	if len(turns) > 0 {
		was = turns[len(turns)-1].State
	}
	if state == was {
		return
	}
	if len(turns) >= v1alpha1.MaxRecoveryTurns {
		k := s.Books.of(s.owner(), s.incident.UID)
		if !k.hasSigned([]custody.Fact{turnOfRecovery(s.incident, turns[0])}) {
			return
		}
		turns = turns[1:]
	}
	s.next.RecoveryTurns = append(turns, v1alpha1.RecoveryTurn{
		At: s.now, Generation: s.incident.Generation, State: state, Reason: clip(s.incident.Spec.Recovery.Reason, maxMessage),
		By: clip(managerOf(s.incident.ManagedFields, "f:spec", "f:recovery", "f:paused"), 128),
	})
}

// managerOf is the field manager that owns a field, or "". The one that wrote it last, where several do.
func managerOf(entries []metav1.ManagedFieldsEntry, path ...string) string {
	var last metav1.ManagedFieldsEntry
	for _, e := range entries {
		if e.Subresource == "" && owns(e, path) && (last.Time == nil || e.Time != nil && !e.Time.Before(last.Time)) {
			last = e
		}
	}
	return last.Manager
}

func owns(e metav1.ManagedFieldsEntry, path []string) bool {
	if e.FieldsV1 == nil {
		return false
	}
	raw := json.RawMessage(e.FieldsV1.GetRawBytes())
	for _, field := range path {
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil || fields[field] == nil {
			return false
		}
		raw = fields[field]
	}
	return true
}
