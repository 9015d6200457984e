package incident

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// keepFirst is how many of the oldest entries stay when the timeline is full: how it began is never forgotten.
const keepFirst = 10

// turn is one thing that changed between two statuses, for the timeline and for an Event.
type turn struct {
	reason, message string
	warning         bool
	// about is what has turned, where an Incident has several of its kind. Events of one reason that name nothing that tells them apart count as one that was repeated, of which only the first note is kept.
	about *corev1.ObjectReference
}

func (t turn) eventType() string {
	if t.warning {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// turns compares two statuses. What happened is derived from what is recorded, so that a crash between the two loses nothing.
func turns(old, next *v1alpha1.IncidentStatus) []turn {
	return slices.Concat(
		conditionTurns(old, next, v1alpha1.ConditionAccepted),
		podTurns(old, next),
		exceptionTurns(old, next),
		tamperTurns(old, next),
		evidenceTurns(old, next),
		recoveryTurns(old, next),
		pauseTurns(old, next),
		// The conditions that sum up come after what they sum up.
		conditionTurns(old, next, v1alpha1.ConditionContained, v1alpha1.ConditionGuarded, v1alpha1.ConditionEvidenceCollected,
			v1alpha1.ConditionCustody, v1alpha1.ConditionRecovered, v1alpha1.ConditionReleased),
	)
}

func conditionTurns(old, next *v1alpha1.IncidentStatus, kinds ...string) []turn {
	var out []turn
	for _, kind := range kinds {
		was, is := apimeta.FindStatusCondition(old.Conditions, kind), apimeta.FindStatusCondition(next.Conditions, kind)
		if is == nil || is.Reason == v1alpha1.ReasonNothingHeld || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		if quiet := was == nil && is.Status != metav1.ConditionTrue && kind != v1alpha1.ConditionAccepted; quiet {
			continue // the state in which every Incident begins is no news
		}
		t := turn{reason: kind + "_" + is.Reason, message: is.Message}
		switch {
		case is.Status == metav1.ConditionTrue:
			t.reason = kind
		case is.Reason == v1alpha1.ReasonCollecting, is.Reason == v1alpha1.ReasonIsolating, is.Reason == v1alpha1.ReasonStepsRunning, is.Reason == v1alpha1.ReasonHeld, is.Reason == v1alpha1.ReasonRecording:
			continue
		default:
			t.warning = is.Reason != v1alpha1.ReasonLifted && is.Reason != v1alpha1.ReasonPartlyReleased && is.Reason != v1alpha1.ReasonReleasing
		}
		out = append(out, t)
	}
	return out
}

func podTurns(old, next *v1alpha1.IncidentStatus) []turn {
	was := map[string]v1alpha1.PodStatus{}
	for _, p := range old.Pods {
		was[p.UID] = p
	}
	var out []turn
	for _, p := range next.Pods {
		before, name := was[p.UID], p.Namespace+"/"+p.Name
		about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}
		if p.Handling != before.Handling {
			switch p.Handling {
			case v1alpha1.HandlingDetached, v1alpha1.HandlingAttached:
				out = append(out, turn{reason: "PodQuarantined", about: about, message: fmt.Sprintf("Pod %s is quarantined (%s)", name, p.Handling)})
			case v1alpha1.HandlingReleased:
				out = append(out, turn{reason: "PodReleased", about: about, message: fmt.Sprintf("Pod %s is released", name)})
			case v1alpha1.HandlingPending, v1alpha1.HandlingUntouched:
			}
		}
		// While a pod is pending its verdict is no news yet: the policy of its revision may isolate it before it is labelled.
		if p.Handling == v1alpha1.HandlingPending || p.Verdict == before.Verdict && before.Handling != v1alpha1.HandlingPending {
			continue
		}
		switch p.Verdict {
		case v1alpha1.VerdictIsolated:
			out = append(out, turn{reason: "PodIsolated", about: about, message: fmt.Sprintf("Pod %s is proven isolated", name)})
		case v1alpha1.VerdictLeaking:
			out = append(out, turn{reason: "PodLeaking", about: about, message: fmt.Sprintf("Pod %s leaks: %s", name, p.Message), warning: true})
		case v1alpha1.VerdictNotEnforceable:
			out = append(out, turn{reason: "PodNotEnforceable", about: about, message: fmt.Sprintf("Pod %s cannot be isolated: %s", name, p.Message), warning: true})
		case v1alpha1.VerdictUnknown:
			out = append(out, turn{reason: "PodUnknown", about: about, message: fmt.Sprintf("Pod %s: %s", name, p.Message), warning: true})
		case v1alpha1.VerdictGone:
			out = append(out, turn{reason: "PodGone", about: about, message: fmt.Sprintf("Pod %s is gone", name)})
		case v1alpha1.VerdictReleased:
		}
	}
	return out
}

// tamperTurns tells what was added to the list of tampering, which keeps the latest only.
func tamperTurns(old, next *v1alpha1.IncidentStatus) []turn {
	added := min(int(next.TamperingCount-old.TamperingCount), len(next.Tampering))
	var out []turn
	for _, t := range next.Tampering[len(next.Tampering)-max(added, 0):] {
		by := ""
		if t.By != "" {
			by = fmt.Sprintf(" (last changed by field manager %s at %s)", t.By, t.ChangedAt.UTC().Format(time.RFC3339))
		}
		out = append(out, turn{reason: "Tampering", message: fmt.Sprintf("%s %s/%s: %s%s", t.Object.Kind, t.Object.Namespace, t.Object.Name, t.What, by), warning: true})
	}
	return out
}

// exceptionTurns tells which exceptions are withheld from now on.
func exceptionTurns(old, next *v1alpha1.IncidentStatus) []turn {
	var out []turn
	for _, e := range next.Exceptions {
		if e.State != v1alpha1.ExceptionWithheld || slices.Contains(old.Exceptions, e) {
			continue
		}
		out = append(out, turn{reason: "ExceptionWithheld", warning: true, message: fmt.Sprintf(
			"exception %s is not opened in namespace %s: policies kept it closed to Pod %s before, and containing opens nothing; who needs it allows it to the quarantined pods by a NetworkPolicy",
			e.Name, e.Namespace, e.Pod)})
	}
	return out
}

func evidenceTurns(old, next *v1alpha1.IncidentStatus) []turn {
	was := map[string]v1alpha1.EvidenceState{}
	for _, e := range old.Evidence {
		was[e.ID] = e.State
	}
	var out []turn
	for _, e := range next.Evidence {
		if was[e.ID] == e.State {
			continue
		}
		subject := fmt.Sprintf("%s %s/%s", e.Subject.Kind, e.Subject.Namespace, e.Subject.Name)
		about := &corev1.ObjectReference{Kind: e.Subject.Kind, Namespace: e.Subject.Namespace, Name: e.Subject.Name, UID: types.UID(e.Subject.UID), FieldPath: "evidence{" + e.ID + "}"}
		switch e.State {
		case v1alpha1.EvidenceCollected:
			out = append(out, turn{reason: "EvidenceSafe", about: about, message: fmt.Sprintf("%s of %s: %s", e.Type, subject, e.Location)})
		case v1alpha1.EvidencePartial:
			out = append(out, turn{reason: "EvidencePartial", about: about, message: fmt.Sprintf("%s of %s: %s", e.Type, subject, e.Message), warning: true})
		case v1alpha1.EvidenceGap:
			out = append(out, turn{reason: "EvidenceGap", about: about, message: fmt.Sprintf("%s of %s: %s", e.Type, subject, e.Message), warning: true})
		case v1alpha1.EvidenceRemoved:
			out = append(out, turn{reason: "EvidenceRemoved", about: about, message: fmt.Sprintf("%s of %s was removed after an approved release", e.Type, subject)})
		case v1alpha1.EvidencePending:
		}
	}
	return out
}

func recoveryTurns(old, next *v1alpha1.IncidentStatus) []turn {
	if next.Recovery == nil {
		return nil
	}
	var out []turn
	was := map[string]v1alpha1.StepState{}
	if old.Recovery == nil {
		out = append(out, turn{reason: "RecoveryStarted", message: fmt.Sprintf("RecoveryPlan %s is executed (%s)", next.Recovery.PlanName, next.Recovery.PlanDigest)})
	} else {
		for _, st := range old.Recovery.Steps {
			was[st.Name] = st.State
		}
	}
	for _, st := range next.Recovery.Steps {
		if was[st.Name] == st.State {
			continue
		}
		about := &corev1.ObjectReference{
			APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "RecoveryPlan", Name: next.Recovery.PlanName, FieldPath: "spec.steps{" + st.Name + "}",
		}
		switch st.State {
		case v1alpha1.StepRunning:
			out = append(out, turn{reason: "StepStarted", about: about, message: fmt.Sprintf("step %s has started: %s", st.Name, st.Message)})
		case v1alpha1.StepSucceeded:
			out = append(out, turn{reason: "StepSucceeded", about: about, message: fmt.Sprintf("step %s has succeeded: %s", st.Name, st.Message)})
		case v1alpha1.StepOverdue:
			out = append(out, turn{reason: "StepOverdue", about: about, message: fmt.Sprintf("step %s is overdue: %s", st.Name, st.Message), warning: true})
		case v1alpha1.StepFailed:
			out = append(out, turn{reason: "StepFailed", about: about, message: fmt.Sprintf("step %s has failed: %s", st.Name, st.Message), warning: true})
		case v1alpha1.StepSkipped:
			out = append(out, turn{reason: "StepSkipped", about: about, message: fmt.Sprintf("step %s is skipped: %s", st.Name, st.LastIntervention), warning: true})
		case v1alpha1.StepUndoing:
			out = append(out, turn{reason: "StepUndoing", about: about, message: fmt.Sprintf("step %s is being undone: %s", st.Name, st.Message), warning: true})
		case v1alpha1.StepUndone:
			out = append(out, turn{reason: "StepUndone", about: about, message: fmt.Sprintf("step %s is undone: %s", st.Name, st.Message), warning: true})
		case v1alpha1.StepPending:
			if was[st.Name] != "" {
				out = append(out, turn{reason: "StepRetried", about: about, message: fmt.Sprintf("step %s begins anew: %s", st.Name, st.LastIntervention)})
			}
		}
	}
	return out
}

// extend adds turns to a timeline and keeps it bounded.
func extend(timeline []v1alpha1.TimelineEntry, added []turn, now metav1.Time) []v1alpha1.TimelineEntry {
	for _, t := range added {
		timeline = append(timeline, v1alpha1.TimelineEntry{At: now, Reason: t.reason, Message: clip(t.message, 512)})
	}
	if excess := len(timeline) - v1alpha1.MaxTimelineLength; excess > 0 {
		timeline = append(timeline[:keepFirst:keepFirst], timeline[keepFirst+excess:]...)
	}
	return timeline
}
