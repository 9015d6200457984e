package incident

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/journal"
)

// journalTries is how often an intent that cannot wait is written to status when others write the Incident at the same time.
const journalTries = 3

// protect records the intent of a write that keeps containment in force, right before it. It waits for no other pass and not for the store. Whatever becomes of the record, containment goes on: what cannot be
// written to status is remembered for the ledger.
func (s *scope) protect(ctx context.Context, action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) {
	if s.dryRun() {
		return
	}
	durable := s.journal.IntendAnew(action, ref, clip(detail, maxMessage))
	entry, recorded := s.journal.Last(action, ref)
	if !recorded {
		s.rememberIntent(action, ref, detail, "the journal is full")
		return
	}
	if err := s.journalNow(ctx, entry, durable); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "An intent could not be written to status before containment was repaired", "action", action, "object", ref)
		s.rememberIntent(action, ref, detail, "status could not be written: "+err.Error())
		return
	}
	s.journal.Persisted(action, ref)
}

// journalNow sees to it that one intent is in status, ahead of the one write of status that ends the pass. One that was read counts only if the API server has it so too: the copy that the pass began with may
// be behind, and tell of an earlier time as if it were not over.
func (s *scope) journalNow(ctx context.Context, entry v1alpha1.JournalEntry, wasRead bool) error {
	inc := s.incident.DeepCopy()
	for try := range journalTries {
		if try > 0 || wasRead {
			// Where somebody else was first, this pass will not be able to write its status either, but the intent goes into the one that counts.
			if err := s.Live.Get(ctx, client.ObjectKeyFromObject(s.incident), inc); err != nil {
				return err
			}
			if inc.UID != s.incident.UID {
				return fmt.Errorf("incident %s/%s is another one by now", inc.Namespace, inc.Name)
			}
		}
		before := len(inc.Status.Journal)
		entries, has := journal.Append(inc.Status.Journal, entry)
		if !has {
			return fmt.Errorf("the journal of Incident %s/%s is full", inc.Namespace, inc.Name)
		}
		if len(entries) == before {
			return nil
		}
		read := inc.ResourceVersion
		inc.Status.Journal = entries
		err := s.Client.Status().Update(ctx, inc)
		if err == nil && read == s.incident.ResourceVersion {
			s.incident.ResourceVersion = inc.ResourceVersion
		}
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return fmt.Errorf("incident %s/%s was changed by others again and again", s.incident.Namespace, s.incident.Name)
}

// rememberIntent tells the ledger of an intent that status could not take.
func (s *scope) rememberIntent(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail, why string) {
	s.acts = append(s.acts, custody.Fact{
		ID: fmt.Sprintf("write/%s/%d", s.passID, len(s.acts)), At: s.Clock.Now(), Actor: operator(), Action: string(action), Phase: custody.PhaseIntent, Subject: subjectOf(ref),
		Detail: fmt.Sprintf("%s (not in the journal of status: %s)", detail, why),
	})
}

// intendContainment is IntendAnew for what may wait for one pass, and for no longer: it goes on while the journal has no room, as when the store has been away for long.
func (s *scope) intendContainment(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) bool {
	if s.journal.IntendAnew(action, ref, clip(detail, maxMessage)) {
		return true
	}
	if last, recorded := s.journal.Last(action, ref); recorded && last.State != v1alpha1.JournalDone {
		return false
	}
	s.rememberIntent(action, ref, detail, "the journal is full")
	return true
}

// incidentRef names the Incident itself.
func (s *scope) incidentRef() v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "Incident", Namespace: s.incident.Namespace, Name: s.incident.Name, UID: string(s.incident.UID)}
}

// settlePod notes that whatever was intended for a pod that is gone has nothing left to be done to.
func (s *scope) settlePod(ref v1alpha1.ObjectRef) {
	for _, action := range []v1alpha1.Action{v1alpha1.ActionQuarantinePod, v1alpha1.ActionRepairMeasure, v1alpha1.ActionReleasePod, v1alpha1.ActionDeletePod} {
		s.journal.Done(action, ref)
	}
}

// leaveOutEntries keeps the journal bounded: the oldest entries whose outcome is known, which the signed ledger has, and which nothing looks up any more are left out, and counted.
func (s *scope) leaveOutEntries() {
	k := s.Books.of(s.owner(), s.incident.UID)
	s.next.JournalOmitted += s.journal.LeaveOut(func(e v1alpha1.JournalEntry) bool {
		return !s.looksUp(e) && k.hasSigned(journalFacts(e, removedItem(s.incident, e)))
	})
}

// looksUp reports whether a decision of a later pass asks for the entry though its outcome is known.
func (s *scope) looksUp(e v1alpha1.JournalEntry) bool {
	switch e.Action {
	case v1alpha1.ActionReleasePod, v1alpha1.ActionDeletePod: // a pod that was released is not quarantined again
		return slices.ContainsFunc(s.next.Pods, func(p v1alpha1.PodStatus) bool { return p.UID == e.Object.UID && p.Verdict != v1alpha1.VerdictGone })
	case v1alpha1.ActionCarveOutPolicy, v1alpha1.ActionRestorePolicy, // what has to be taken back at the end, and what was
		v1alpha1.ActionLabelClaim, v1alpha1.ActionRestoreClaim,
		v1alpha1.ActionPauseAutoscaler,                                // only what this recovery has paused is resumed
		v1alpha1.ActionLiftQuarantine, v1alpha1.ActionReleaseRevision, // what was lifted is not created again
		v1alpha1.ActionDeleteSnapshot: // what was given up is not retained again
		return true
	default:
		return false
	}
}

// hasSigned reports whether the ledger has the facts, and its head is signed.
func (k *book) hasSigned(facts []custody.Fact) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ledger == nil || k.head == nil || k.head.Entries != k.ledger.Seq() {
		return false
	}
	return !slices.ContainsFunc(facts, func(f custody.Fact) bool { return !k.has(f.ID) })
}
