package incident

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
)

// The ledger follows the Incident: facts are derived from the Incident as it was read, which is durable, and each has an ID that is the same in every pass. Whatever dies in between, the next pass
// finds what the ledger does not have yet. An action runs only after its intent was read back from status, and by then the ledger has the intent too.

// operatorName is the operator in the ledger.
const operatorName = "cofferdam"

// facts are what the ledger has to know of an Incident, oldest kinds first.
func facts(inc *v1alpha1.Incident, now time.Time) []custody.Fact {
	out := declaration(inc, now)
	for _, t := range inc.Status.Targets {
		out = append(out, observed("target/"+t.Key+"/"+t.UID, now, "TargetResolved",
			custody.Subject{Kind: string(t.Kind), Namespace: t.Namespace, Name: t.Name, UID: t.UID}, ""))
	}
	for i := range inc.Status.Pods {
		p := &inc.Status.Pods[i]
		out = append(out, observed("pod/"+p.UID, now, "PodRecorded", subjectOf(podRef(p)), podDetail(p)))
	}
	for _, e := range inc.Status.Exceptions {
		out = append(out, exceptionFact(e, now))
	}
	for _, m := range inc.Status.Measures {
		out = append(out, custody.Fact{
			ID: "measure/" + refID(m), At: now, Actor: operator(), Action: "MeasureInForce", Phase: custody.PhaseOutcome, Subject: subjectOf(m),
			Detail: "seen in force, as it should be",
		})
	}
	for i := range inc.Status.Evidence {
		out = append(out, itemFacts(&inc.Status.Evidence[i], now)...)
	}
	for _, e := range inc.Status.Journal {
		out = append(out, journalFacts(e, removedItem(inc, e))...)
	}
	for _, t := range inc.Status.Tampering {
		out = append(out, tamperingFact(t))
	}
	return append(out, turnFacts(inc)...)
}

// Recorded reports whether a ledger has all that is known of the Incident.
func Recorded(inc *v1alpha1.Incident, has func(id string) bool) bool {
	return !slices.ContainsFunc(facts(inc, time.Time{}), func(f custody.Fact) bool { return !has(f.ID) })
}

func operator() custody.Actor { return custody.Actor{Kind: custody.ActorOperator, Name: operatorName} }

func observed(id string, at time.Time, action string, subject custody.Subject, detail string) custody.Fact {
	return custody.Fact{ID: id, At: at, Actor: custody.Actor{Kind: custody.ActorObservation, Name: operatorName}, Action: action, Subject: subject, Detail: detail}
}

func subjectOf(ref v1alpha1.ObjectRef) custody.Subject {
	return custody.Subject{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, UID: ref.UID}
}

func subjectOfIncident(inc *v1alpha1.Incident) custody.Subject {
	return custody.Subject{Kind: "Incident", Namespace: inc.Namespace, Name: inc.Name, UID: string(inc.UID)}
}

func refID(ref v1alpha1.ObjectRef) string {
	return strings.Join([]string{ref.Kind, ref.Namespace, ref.Name, ref.UID}, "/")
}

// declaration is what people have said: who declared the Incident, where the goal stands, who approved what.
func declaration(inc *v1alpha1.Incident, now time.Time) []custody.Fact {
	incident := subjectOfIncident(inc)
	out := []custody.Fact{{
		ID: "declared", At: inc.CreationTimestamp.Time, Actor: custody.Actor{Kind: custody.ActorPerson, Name: inc.Spec.DeclaredBy.Username},
		Action: "DeclareIncident", Subject: incident, Detail: inc.Spec.Title,
	}}
	if p := inc.Status.Policy; p != nil {
		out = append(out, observed("accepted", now, "IncidentAccepted", incident,
			fmt.Sprintf("governed by ContainmentPolicy %s, generation %d (uid %s)", p.Name, p.Generation, p.UID)))
	}
	if inc.Spec.Goal != v1alpha1.GoalContain {
		// Who has set it is in the API server's audit log; the object does not tell.
		out = append(out, observed("goal/"+string(inc.Spec.Goal), now, "GoalSet", incident, "the goal is "+string(inc.Spec.Goal)+"; the Incident does not record who has set it"))
	}
	for _, a := range inc.Spec.Approvals {
		out = append(out, custody.Fact{
			ID: "approval/" + digestOf(a.Step, a.Author, a.Digest), At: now, Actor: custody.Actor{Kind: custody.ActorPerson, Name: a.Author},
			Action: "Approve", Subject: incident, Detail: strings.TrimSuffix(fmt.Sprintf("step %s, digest %s: %s", a.Step, a.Digest, a.Comment), ": "),
		})
	}
	return append(out, interventionFacts(inc, now)...)
}

// interventionFacts are what people have done to a recovery: each intervention, what came of the last one of each step, and each time the recovery was paused or let go on.
func interventionFacts(inc *v1alpha1.Incident, now time.Time) []custody.Fact {
	incident := subjectOfIncident(inc)
	var out []custody.Fact
	for i, v := range inc.Spec.Interventions { // admission lets the list only grow at its end
		out = append(out, custody.Fact{
			ID: fmt.Sprintf("intervention/%d", i), At: now, Actor: custody.Actor{Kind: custody.ActorPerson, Name: v.Author}, Action: "Intervene", Subject: incident,
			Detail: fmt.Sprintf("%s of step %s: %s", v.Action, v.Step, v.Reason),
		})
	}
	if rec := inc.Status.Recovery; rec != nil {
		for _, st := range rec.Steps {
			if st.Interventions > 0 {
				out = append(out, observed(fmt.Sprintf("intervened/%s/%d", st.Name, st.Interventions), now, "InterventionTaken", incident, "step "+st.Name+": "+st.LastIntervention))
			}
		}
	}
	for _, t := range inc.Status.RecoveryTurns {
		out = append(out, turnOfRecovery(inc, t))
	}
	return out
}

// turnOfRecovery tells who has paused the recovery, or let it go on, and why.
func turnOfRecovery(inc *v1alpha1.Incident, t v1alpha1.RecoveryTurn) custody.Fact {
	return custody.Fact{
		ID: fmt.Sprintf("recovery/%d/%s", t.Generation, t.State), At: t.At.Time, Actor: custody.Actor{Kind: custody.ActorPerson, Name: t.Author},
		Action: "Recovery" + string(t.State), Subject: subjectOfIncident(inc), Detail: t.Reason,
	}
}

// exceptionFact tells that an exception of the standing orders is open in a namespace, or withheld.
func exceptionFact(e v1alpha1.ExceptionStatus, now time.Time) custody.Fact {
	detail := "exception " + e.Name
	if e.Pod != "" {
		detail += ": it would open what was closed to Pod " + e.Pod + " before"
	}
	return observed(fmt.Sprintf("exception/%s/%s/%s", e.Namespace, e.Name, e.State), now, "Exception"+string(e.State), custody.Subject{Kind: "Namespace", Name: e.Namespace}, detail)
}

func podDetail(p *v1alpha1.PodStatus) string {
	detail := "on node " + p.Node
	if p.Owner.Name != "" {
		detail += fmt.Sprintf(", of %s %s", p.Owner.Kind, p.Owner.Name)
	}
	if p.Replacement != "" {
		detail += ", a replacement that was created after quarantine began"
	}
	return detail
}

// itemFacts say what became of an evidence item.
func itemFacts(item *v1alpha1.EvidenceItem, now time.Time) []custody.Fact {
	id := "evidence/" + item.ID + "/"
	at := now
	if !item.TakenAt.IsZero() {
		at = item.TakenAt.Time
	}
	subject := subjectOf(item.Subject)
	switch item.State {
	case v1alpha1.EvidencePending:
		return []custody.Fact{{ID: id + "begun", At: now, Actor: operator(), Action: "CollectEvidence", Phase: custody.PhaseIntent, Subject: subject, Detail: string(item.Type)}}
	case v1alpha1.EvidenceGap:
		return []custody.Fact{{ID: id + "gap", At: now, Actor: operator(), Action: "CollectEvidence", Phase: custody.PhaseOutcome, Subject: subject,
			Detail: fmt.Sprintf("%s: a gap, could not be had: %s%s", item.Type, item.Message, leftOf(item))}}
	case v1alpha1.EvidencePartial:
		return []custody.Fact{{ID: id + "partial", At: at, Actor: operator(), Action: "CollectEvidence", Phase: custody.PhaseOutcome, Subject: subject,
			Detail: fmt.Sprintf("%s: a part of it is safe in %s; %s", item.Type, evidence.Whereabouts(*item), item.Message), Stored: storedAs(item)}}
	case v1alpha1.EvidenceCollected:
		return []custody.Fact{{ID: id + "collected", At: at, Actor: operator(), Action: "CollectEvidence", Phase: custody.PhaseOutcome, Subject: subject,
			Detail: strings.TrimSuffix(fmt.Sprintf("%s: safe in %s; %s", item.Type, evidence.Whereabouts(*item), item.Message), "; "), Stored: storedAs(item)}}
	case v1alpha1.EvidenceRemoved:
		return []custody.Fact{{ID: id + "removed", At: now, Actor: operator(), Action: custody.ActionRemoveEvidence, Phase: custody.PhaseOutcome, Subject: subject,
			Detail: "removed from the store after an approved release", Stored: storedAs(item)}}
	}
	return nil
}

// leftOf names what is retained of a snapshot that came to nothing.
func leftOf(item *v1alpha1.EvidenceItem) string {
	if item.Type != v1alpha1.EvidenceVolumeSnapshot || item.Location == "" && len(item.Earlier) == 0 {
		return ""
	}
	return "; what was begun is in " + evidence.Whereabouts(*item)
}

// storedAs names the object in the store; nil for evidence that is kept elsewhere.
func storedAs(item *v1alpha1.EvidenceItem) *custody.Stored {
	if !evidence.InStore(item) {
		return nil
	}
	out := &custody.Stored{
		Key: item.Location, Name: fmt.Sprintf("%s of %s %s/%s", item.Type, item.Subject.Kind, item.Subject.Namespace, item.Subject.Name), MediaType: evidence.MediaType(item),
		Digest: item.Digest, Size: item.Size, PlainDigest: item.Digest, PlainSize: item.Size,
	}
	if item.StoredDigest != "" {
		out.Digest, out.Size, out.Encrypted = item.StoredDigest, item.StoredSize, true
	}
	return out
}

// removedItem is the object in the store that an intent to remove evidence is about: whoever verifies the ledger has to know that it may be gone from then on, whatever becomes of the operator.
func removedItem(inc *v1alpha1.Incident, e v1alpha1.JournalEntry) *custody.Stored {
	if e.Action != v1alpha1.ActionRemoveEvidence {
		return nil
	}
	for i := range inc.Status.Evidence {
		if item := &inc.Status.Evidence[i]; itemRef(item) == e.Object {
			return storedAs(item)
		}
	}
	return nil
}

func journalFacts(e v1alpha1.JournalEntry, about *custody.Stored) []custody.Fact {
	id := "journal/" + string(e.Action) + "/" + refID(e.Object)
	if e.Number > 0 {
		id = fmt.Sprintf("journal/%d/%s/%s", e.Number, e.Action, refID(e.Object))
	}
	intent := custody.Fact{
		ID: id + "/intent", At: e.IntendedAt.Time, Actor: operator(), Action: string(e.Action), Phase: custody.PhaseIntent, Subject: subjectOf(e.Object), Detail: e.Detail, Stored: about,
	}
	if e.State != v1alpha1.JournalDone {
		return []custody.Fact{intent}
	}
	outcome := intent
	outcome.Stored = nil // the item itself tells that it was removed
	outcome.ID, outcome.At, outcome.Phase, outcome.Detail = id+"/outcome", e.DoneAt.Time, custody.PhaseOutcome, "the effect was observed"
	return []custody.Fact{intent, outcome}
}

func tamperingFact(t v1alpha1.Tampering) custody.Fact {
	detail := t.What
	if t.By != "" {
		detail += "; changed last by field manager " + t.By
	}
	return observed("tampering/"+digestOf(refID(t.Object), t.What, t.At.UTC().Format(time.RFC3339)), t.At.Time, "Tampering", subjectOf(t.Object), detail)
}

// turnFacts are the turns of the conditions that tell how far the Incident has come.
func turnFacts(inc *v1alpha1.Incident) []custody.Fact {
	tells := []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionContained, v1alpha1.ConditionGuarded, v1alpha1.ConditionEvidenceCollected, v1alpha1.ConditionRecovered, v1alpha1.ConditionReleased}
	var out []custody.Fact
	for _, c := range inc.Status.Conditions {
		if !slices.Contains(tells, c.Type) {
			continue
		}
		out = append(out, observed(fmt.Sprintf("condition/%s/%s/%s", c.Type, c.Status, stamp(c.LastTransitionTime)), c.LastTransitionTime.Time,
			fmt.Sprintf("%s=%s", c.Type, c.Status), subjectOfIncident(inc), c.Message))
	}
	return out
}

func stamp(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }

func digestOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}
