package incident

import (
	"k8s.io/utils/ptr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/recovery"
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
	if state == v1alpha1.RecoveryResumed && len(turns) > 0 && s.next.Recovery != nil {
		recovery.Postpone(s.next.Recovery.Steps, s.now.Sub(turns[len(turns)-1].At.Time))
	}
	s.next.RecoveryTurns = append(turns, v1alpha1.RecoveryTurn{
		At: s.now, Generation: s.incident.Generation, State: state, Author: s.incident.Spec.Recovery.Author, Reason: clip(s.incident.Spec.Recovery.Reason, maxMessage),
	})
}
