package incident

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

const (
	// outlivedPoll is how often a closed Incident looks whether people have resumed it.
	outlivedPoll = 30 * time.Second
)

// declarerMay reports whether the declarer of the Incident may do something.
func (s *scope) declarerMay(ctx context.Context, what authorizationv1.ResourceAttributes) (bool, error) {
	by := s.incident.Spec.DeclaredBy
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: by.Username, UID: by.UID, Groups: by.Groups, ResourceAttributes: &what}}
	if err := s.Client.Create(ctx, review); err != nil {
		return false, fmt.Errorf("asking whether %s may %s %s in namespace %s: %w", by.Username, what.Verb, what.Resource, what.Namespace, err)
	}
	return review.Status.Allowed, nil
}

// watchPauses looks at what the recovery has paused.
func (s *scope) watchPauses(ctx context.Context, x *recovery.Execution) error {
	return recovery.WatchPauses(ctx, x)
}

// outlivedPauses looks, for an Incident that is closed, whether what it has paused is still paused. Nothing is resumed: nobody has seen what would come of it.
func (s *scope) outlivedPauses(ctx context.Context) error {
	if s.dryRun() || len(heldPauses(s.next)) == 0 {
		return nil
	}
	x := &recovery.Execution{Reader: s.Client, Mapper: s.Client.RESTMapper(), Journal: s.journal, Incident: s.incident, Now: s.now, Pauses: &s.next.Recovery.Pauses}
	if err := recovery.LookAtPauses(ctx, x); err != nil {
		return err
	}
	if len(heldPauses(s.next)) > 0 {
		s.lookAgainAfter(outlivedPoll)
	}
	return nil
}

// heldPauses are what was paused by this Incident and not resumed.
func heldPauses(st *v1alpha1.IncidentStatus) []v1alpha1.GitOpsPause {
	if st.Recovery == nil {
		return nil
	}
	var out []v1alpha1.GitOpsPause
	for _, p := range st.Recovery.Pauses {
		if p.State != v1alpha1.GitOpsResumed && !ptr.Deref(p.Borrowed, false) {
			out = append(out, p)
		}
	}
	return out
}

// stateOf is how a pause stands, as a reason of the condition.
func stateOf(st *v1alpha1.IncidentStatus, p v1alpha1.GitOpsPause, now metav1.Time) string {
	switch {
	case !st.ReleasedAt.IsZero():
		return v1alpha1.ReasonLeaseOutlived
	case p.State == v1alpha1.GitOpsUndone:
		return v1alpha1.ReasonPauseUndone
	case !now.Before(&p.ExpiresAt):
		return v1alpha1.ReasonLeaseExpired
	}
	return v1alpha1.ReasonPausedByLease
}

func countPauses(st *v1alpha1.IncidentStatus, now metav1.Time) map[string]int {
	out := map[string]int{}
	for _, p := range heldPauses(st) {
		out[stateOf(st, p, now)]++
	}
	return out
}

// gitOpsPaused says what is paused, and raises the alarm when that was undone, or goes on for too long. The worst of it is the reason.
func (s *scope) gitOpsPaused() *metav1.Condition {
	const kind = v1alpha1.ConditionGitOpsPaused
	if s.next.Recovery == nil || !slices.ContainsFunc(s.next.Recovery.Pauses, func(p v1alpha1.GitOpsPause) bool { return !ptr.Deref(p.Borrowed, false) }) {
		return nil // what others have paused is theirs to tell
	}
	advice := map[string]string{
		v1alpha1.ReasonLeaseOutlived: "still paused though the Incident is closed: look what its source renders, give it back what it had (status.recovery.pauses[].before), and take the label " + v1alpha1.GitOpsPausedLabel + " off",
		v1alpha1.ReasonPauseUndone:   "not paused any more",
		v1alpha1.ReasonLeaseExpired:  "paused for longer than its lease: have the recovery come to its resumeGitOps step, or resume it by hand",
		v1alpha1.ReasonPausedByLease: "paused",
	}
	said := map[string][]string{}
	for _, p := range heldPauses(s.next) {
		state := stateOf(s.next, p, s.now)
		text := fmt.Sprintf("%s %s/%s until %s", p.Object.Kind, p.Object.Namespace, p.Object.Name, p.ExpiresAt.UTC().Format(time.RFC3339))
		if state == v1alpha1.ReasonPauseUndone {
			text += " (" + p.Message + ")"
		}
		said[state] = append(said[state], text)
	}
	reason := ""
	var message []string
	for _, r := range []string{v1alpha1.ReasonLeaseOutlived, v1alpha1.ReasonPauseUndone, v1alpha1.ReasonLeaseExpired, v1alpha1.ReasonPausedByLease} {
		if len(said[r]) > 0 {
			reason = cmp.Or(reason, r)
			message = append(message, fmt.Sprintf("%s: %s", advice[r], strings.Join(said[r], ", ")))
		}
	}
	if reason == "" {
		return new(condition(kind, metav1.ConditionFalse, v1alpha1.ReasonResumed, "everything that was paused is resumed"))
	}
	status := metav1.ConditionTrue
	if reason == v1alpha1.ReasonPauseUndone {
		status = metav1.ConditionFalse
	}
	return new(condition(kind, status, reason, "%s", strings.Join(message, "; ")))
}

// pauseTurns tells how the condition has changed, and each time that a pause was undone.
func pauseTurns(old, next *v1alpha1.IncidentStatus) []turn {
	var out []turn
	if next.Recovery != nil {
		for i, p := range next.Recovery.Pauses {
			var before int32
			if old.Recovery != nil && i < len(old.Recovery.Pauses) {
				before = old.Recovery.Pauses[i].Undone
			}
			if p.Undone > before {
				out = append(out, turn{reason: "GitOpsPauseUndone", warning: true, message: fmt.Sprintf(
					"%s %s/%s was resumed %d times though the recovery is under way: %s", p.Object.Kind, p.Object.Namespace, p.Object.Name, p.Undone, p.Message)})
			}
		}
	}
	return append(out, alarmTurns(old, next)...)
}

func alarmTurns(old, next *v1alpha1.IncidentStatus) []turn {
	was, is := findCondition(old, v1alpha1.ConditionGitOpsPaused), findCondition(next, v1alpha1.ConditionGitOpsPaused)
	if is.Reason == "" || is.Reason == was.Reason || is.Reason == v1alpha1.ReasonPauseUndone {
		return nil
	}
	alarm := is.Reason == v1alpha1.ReasonLeaseExpired || is.Reason == v1alpha1.ReasonLeaseOutlived
	return []turn{{reason: v1alpha1.ConditionGitOpsPaused + "_" + is.Reason, message: is.Message, warning: alarm}}
}

func findCondition(st *v1alpha1.IncidentStatus, kind string) metav1.Condition {
	for _, c := range st.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}
