package incident

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// maxMessage bounds a condition's message well below the API server's own limit, in characters.
const maxMessage = 1024

// setConditions derives every condition from what the pass has observed.
func (s *scope) setConditions(failure error) {
	for _, c := range []metav1.Condition{s.accepted(), s.contained(), s.guarded(), s.evidenceCollected(), s.custody(), s.recoveredCondition(), s.released()} {
		s.set(c)
	}
	if c := s.gitOpsPaused(); c != nil {
		s.set(*c)
	}
	for _, c := range s.kstatus(failure) {
		s.set(c)
	}
	s.next.ObservedGeneration = s.incident.Generation
	s.next.Summary = summary(s.next)
	if s.next.ContainedAt.IsZero() && s.is(v1alpha1.ConditionContained, metav1.ConditionTrue) {
		s.next.ContainedAt = s.now
	}
}

func (s *scope) set(c metav1.Condition) {
	c.ObservedGeneration = s.incident.Generation
	c.Message = clip(c.Message, maxMessage)
	c.LastTransitionTime = s.now // used only when the status changes
	apimeta.SetStatusCondition(&s.next.Conditions, c)
}

func (s *scope) is(conditionType string, status metav1.ConditionStatus) bool {
	return apimeta.IsStatusConditionPresentAndEqual(s.next.Conditions, conditionType, status)
}

func condition(kind string, status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (s *scope) accepted() metav1.Condition {
	const kind = v1alpha1.ConditionAccepted
	switch {
	case s.problem != nil:
		return condition(kind, metav1.ConditionFalse, s.problem.Reason, "%s", s.problem.Message)
	case s.view == nil && s.blind != nil:
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonUnreadable, "%v", s.blind)
	case s.view == nil:
		return s.unchanged(kind, condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "not examined: the goal is %s and nothing is held", s.incident.Spec.Goal))
	}
	return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "governed by ContainmentPolicy %s; declared by %s; %d targets resolved",
		s.next.Policy.Name, s.incident.Spec.DeclaredBy.Username, len(s.next.Targets))
}

// unchanged keeps a condition that this pass had no reason to examine.
func (s *scope) unchanged(kind string, otherwise metav1.Condition) metav1.Condition {
	if c := apimeta.FindStatusCondition(s.incident.Status.Conditions, kind); c != nil {
		return *c
	}
	return otherwise
}

func (s *scope) contained() metav1.Condition {
	const kind = v1alpha1.ConditionContained
	no := func(reason, format string, args ...any) metav1.Condition {
		return condition(kind, metav1.ConditionFalse, reason, format, args...)
	}
	switch {
	case !s.next.ReleasedAt.IsZero():
		return no(v1alpha1.ReasonLifted, "the quarantine was lifted by an approved close")
	case s.blind != nil:
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonVerdictUnknown, "%v; what was put in place stays", s.blind)
	case s.dryRun() && s.problem == nil && s.view != nil:
		return no(v1alpha1.ReasonDryRun, "dry run, nothing was done; enforced, %s", s.verdicts())
	case s.view == nil || s.problem != nil && !s.holds():
		return no(v1alpha1.ReasonNotAccepted, "nothing is contained because the Incident is not accepted")
	case s.problem != nil:
		return no(v1alpha1.ReasonNotAccepted, "not every target is contained: %s", s.problem.Message)
	}
	c := s.judged(no)
	if why := s.runningCompromised(); why != "" {
		c.Message += "; " + why
	}
	return c
}

// judged sums up the verdicts: the worst one decides, and names the first pod that has it.
func (s *scope) judged(no func(reason, format string, args ...any) metav1.Condition) metav1.Condition {
	pending := s.firstPod(func(p v1alpha1.PodStatus) bool {
		return p.Handling == v1alpha1.HandlingPending && p.Verdict != v1alpha1.VerdictGone && p.Verdict != v1alpha1.VerdictNotEnforceable
	})
	if p := s.firstPod(func(p v1alpha1.PodStatus) bool { return pending != nil && s.failed[p.UID] != nil }); p != nil {
		return no(v1alpha1.ReasonIsolating, "Pod %s/%s could not be quarantined, and it is tried again: %v", p.Namespace, p.Name, s.failed[p.UID])
	}
	if p := pending; p != nil {
		return no(v1alpha1.ReasonIsolating, "Pod %s/%s is being quarantined", p.Namespace, p.Name)
	}
	if p := s.firstPod(withVerdict(v1alpha1.VerdictLeaking)); p != nil {
		return no(v1alpha1.ReasonLeaking, "%s; Pod %s/%s: %s%s", s.verdicts(), p.Namespace, p.Name, p.Message, s.whyNoTier())
	}
	if p := s.firstPod(withVerdict(v1alpha1.VerdictNotEnforceable)); p != nil {
		return no(v1alpha1.ReasonNotEnforceable, "%s; Pod %s/%s: %s", s.verdicts(), p.Namespace, p.Name, p.Message)
	}
	if p := s.firstPod(withVerdict(v1alpha1.VerdictUnknown)); p != nil {
		return condition(v1alpha1.ConditionContained, metav1.ConditionUnknown, v1alpha1.ReasonVerdictUnknown, "Pod %s/%s: %s", p.Namespace, p.Name, p.Message)
	}
	if p := s.firstPod(unproven); p != nil {
		return condition(v1alpha1.ConditionContained, metav1.ConditionUnknown, v1alpha1.ReasonVerdictUnknown, "Pod %s/%s has the verdict %q", p.Namespace, p.Name, p.Verdict)
	}
	if len(s.overflow) > 0 {
		return condition(v1alpha1.ConditionContained, metav1.ConditionUnknown, v1alpha1.ReasonVerdictUnknown,
			"the Incident has more than its status can hold, and %d of it are not judged: %s; declare a second Incident for them", len(s.overflow), strings.Join(s.overflow, ", "))
	}
	if s.firstPod(withVerdict(v1alpha1.VerdictReleased)) != nil && s.firstPod(withVerdict(v1alpha1.VerdictIsolated)) == nil {
		return no(v1alpha1.ReasonLifted, "the quarantine of every pod was lifted by an approved release")
	}
	if !s.policiesInForce || !s.refusalsInForce {
		return no(v1alpha1.ReasonIsolating, "deny policies are being put in place")
	}
	return condition(v1alpha1.ConditionContained, metav1.ConditionTrue, v1alpha1.ReasonIsolated,
		"%s; proven by evaluating every network policy in force, not probed", s.verdicts())
}

func (s *scope) whyNoTier() string {
	if s.noTier == "" {
		return ""
	}
	return "; no deny tier can be put ahead of it: " + s.noTier
}

// guarded says whether admission keeps others from undoing the quarantine.
func (s *scope) guarded() metav1.Condition {
	const kind = v1alpha1.ConditionGuarded
	switch {
	case s.unguarded != nil:
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonUnreadable, "the admission policies could not be read: %v", s.unguarded)
	case s.findings == nil && s.view == nil:
		return s.unchanged(kind, condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "not examined: nothing is held"))
	case len(s.findings) > 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonGuardTampered,
			"%d findings; what the policies would have refused is repaired instead, after the fact. %v", len(s.findings), s.findings[0])
	}
	return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonGuardInPlace, "every admission policy is as it was shipped")
}

func (s *scope) firstPod(match func(v1alpha1.PodStatus) bool) *v1alpha1.PodStatus {
	if i := slices.IndexFunc(s.next.Pods, match); i >= 0 {
		return &s.next.Pods[i]
	}
	return nil
}

// unproven tells every verdict that is not known to be fine, those that nobody has thought of included.
func unproven(p v1alpha1.PodStatus) bool {
	return p.Verdict != v1alpha1.VerdictIsolated && p.Verdict != v1alpha1.VerdictGone && p.Verdict != v1alpha1.VerdictReleased
}

func withVerdict(v v1alpha1.Verdict) func(v1alpha1.PodStatus) bool {
	return func(p v1alpha1.PodStatus) bool { return p.Verdict == v }
}

// verdicts counts the verdicts in words, such as "2 of 3 pods isolated, 1 leaking".
func (s *scope) verdicts() string {
	count := map[v1alpha1.Verdict]int{}
	for _, p := range s.next.Pods {
		count[p.Verdict]++
	}
	out := []string{fmt.Sprintf("%d of %d pods isolated", count[v1alpha1.VerdictIsolated], len(s.next.Pods))}
	for _, v := range []struct {
		verdict v1alpha1.Verdict
		word    string
	}{
		{v1alpha1.VerdictLeaking, "leaking"}, {v1alpha1.VerdictNotEnforceable, "not enforceable"}, {v1alpha1.VerdictUnknown, "unknown"},
		{v1alpha1.VerdictGone, "gone"}, {v1alpha1.VerdictReleased, "released"},
	} {
		if n := count[v.verdict]; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, v.word))
		}
	}
	return strings.Join(out, ", ")
}

func (s *scope) evidenceCollected() metav1.Condition {
	const kind = v1alpha1.ConditionEvidenceCollected
	var pending, gaps []string
	removed := 0
	for _, e := range s.next.Evidence {
		name := fmt.Sprintf("%s of %s %s/%s: %s", e.Type, e.Subject.Kind, e.Subject.Namespace, e.Subject.Name, e.Message)
		switch e.State {
		case v1alpha1.EvidencePending:
			pending = append(pending, name)
		case v1alpha1.EvidenceGap, v1alpha1.EvidencePartial:
			gaps = append(gaps, name)
		case v1alpha1.EvidenceCollected:
		case v1alpha1.EvidenceRemoved:
			removed++
		}
	}
	switch {
	case removed > 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonRemoved, "%d of %d items were removed after an approved release; the ledger says which", removed, len(s.next.Evidence))
	case s.dryRun():
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonDryRun, "dry run, nothing was collected")
	case len(s.next.Pods) == 0 && s.problem != nil:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted, "nothing is collected because the Incident is not accepted")
	case s.blind != nil && len(s.next.Evidence) == 0:
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonUnreadable, "%v", s.blind)
	case len(pending) > 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonCollecting, "%s", strings.Join(pending, "; "))
	case s.awaitsEvidence():
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonCollecting, "pods are being quarantined; volumes follow")
	case len(gaps) > 0:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonGaps, "%d of %d items are safe; declared gaps: %s",
			len(s.next.Evidence)-len(gaps), len(s.next.Evidence), strings.Join(gaps, "; "))
	}
	return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonCollected, "%d items are safe", len(s.next.Evidence))
}

// custody says whether the ledger has everything.
func (s *scope) custody() metav1.Condition {
	const kind = v1alpha1.ConditionCustody
	b, head := s.books, s.next.Custody
	switch {
	case s.dryRun():
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonDryRun, "dry run, nothing was recorded")
	case b.damaged:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonLedgerDamaged,
			"%s; nothing destructive is done. Compare the store with a copy or an export of the ledger, and put back what was written", b.problem)
	case b.problem != "":
		return condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonStoreUnavailable, "%s; containment goes on, nothing destructive is done, and it is tried again", b.problem)
	case !b.begun || head == nil:
		return s.unchanged(kind, condition(kind, metav1.ConditionUnknown, v1alpha1.ReasonRecording, "the ledger is not begun"))
	}
	message := fmt.Sprintf("%d entries in %s, signed by key %.12s", head.Entries, head.Store, head.KeyID)
	if s.removalWait != "" {
		message += "; " + s.removalWait
	}
	if b.warning != "" {
		message += "; " + b.warning
	}
	if b.unlocks != "" {
		message += "; the store does not lock what is in it: " + b.unlocks
	}
	return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonLedgerSigned, "%s", message)
}

// awaitsEvidence reports whether there are pods whose evidence was not yet begun.
func (s *scope) awaitsEvidence() bool {
	return s.firstPod(func(p v1alpha1.PodStatus) bool {
		return p.Handling == v1alpha1.HandlingPending && p.Verdict != v1alpha1.VerdictGone
	}) != nil
}

func (s *scope) recoveredCondition() metav1.Condition {
	const kind = v1alpha1.ConditionRecovered
	no := func(reason, format string, args ...any) metav1.Condition {
		return condition(kind, metav1.ConditionFalse, reason, format, args...)
	}
	rec := s.next.Recovery
	switch {
	case !s.next.RecoveredAt.IsZero() && rec != nil:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonRecovered, "%s", recoveredBy(rec))
	case s.planProblem != "":
		return no(s.planReason, "%s", s.planProblem)
	case rec == nil && s.dryRun() && s.incident.Spec.Goal == v1alpha1.GoalRecover:
		return no(v1alpha1.ReasonDryRun, "dry run, nothing was done")
	case rec == nil:
		return no(v1alpha1.ReasonNotRequested, "the goal was not set to Recover")
	}
	reason, steps := underWay(rec)
	return no(reason, "%s", strings.Join(append([]string{fmt.Sprintf("RecoveryPlan %s is executed", rec.PlanName)}, steps...), "; "))
}

// recoveredBy says what a recovery has come to that is over.
func recoveredBy(rec *v1alpha1.RecoveryStatus) string {
	var skipped []string
	for _, st := range rec.Steps {
		if st.State == v1alpha1.StepSkipped {
			skipped = append(skipped, st.Name)
		}
	}
	if len(skipped) == 0 {
		return fmt.Sprintf("all %d steps of RecoveryPlan %s have succeeded", len(rec.Steps), rec.PlanName)
	}
	return fmt.Sprintf("%d steps of RecoveryPlan %s have succeeded; skipped by people: %s", len(rec.Steps)-len(skipped), rec.PlanName, strings.Join(skipped, ", "))
}

// underWay says which steps are under way or hold the recovery up, and the worst of it as a reason.
func underWay(rec *v1alpha1.RecoveryStatus) (reason string, steps []string) {
	reason = v1alpha1.ReasonStepsRunning
	for _, st := range rec.Steps {
		switch st.State {
		case v1alpha1.StepFailed, v1alpha1.StepUndone, v1alpha1.StepUndoing:
			reason = v1alpha1.ReasonStepFailed
			steps = append(steps, fmt.Sprintf("step %s is %s: %s", st.Name, st.State, st.Message))
		case v1alpha1.StepOverdue:
			if reason == v1alpha1.ReasonStepsRunning {
				reason = v1alpha1.ReasonStepOverdue
			}
			steps = append(steps, fmt.Sprintf("step %s is overdue: %s", st.Name, st.Message))
		case v1alpha1.StepRunning:
			steps = append(steps, fmt.Sprintf("step %s: %s", st.Name, st.Message))
		case v1alpha1.StepPending, v1alpha1.StepSucceeded, v1alpha1.StepSkipped:
		}
	}
	return reason, steps
}

func (s *scope) released() metav1.Condition {
	const kind = v1alpha1.ConditionReleased
	lifted := slices.ContainsFunc(s.next.Revisions, func(r v1alpha1.RevisionStatus) bool { return r.State == v1alpha1.RevisionReleased }) ||
		s.firstPod(withVerdict(v1alpha1.VerdictReleased)) != nil
	switch {
	case !s.next.ReleasedAt.IsZero():
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonReleased, "nothing is held any more")
	case !s.holds():
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonNothingHeld, "nothing is held")
	case s.closePaused:
		return s.unchanged(kind, condition(kind, metav1.ConditionFalse, v1alpha1.ReasonReleasing, "waits until what is intended is in the custody ledger"))
	case s.closeWait != "" && strings.HasPrefix(s.closeWait, "closing "):
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonWaitingForApproval, "%s", s.closeWait)
	case s.closeWait != "":
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonReleasing, "%s", s.closeWait)
	case lifted:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonPartlyReleased, "recovered workloads are released; %d pods are held until the Incident is closed", len(s.heldPods()))
	}
	return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonHeld, "%d pods and their revisions are held; only the recovery plan's release step or closing lifts this", len(s.heldPods()))
}

// kstatus derives Ready, Reconciling and Stalled, so that tools that follow kstatus see Current, InProgress or Failed.
func (s *scope) kstatus(failure error) []metav1.Condition {
	ready, reason, message := s.goalReached()
	stalled, why := s.stalledBy(failure)
	state := func(b bool) metav1.ConditionStatus {
		if b {
			return metav1.ConditionTrue
		}
		return metav1.ConditionFalse
	}
	if s.dryRun() && failure != nil {
		ready = false // the list of what Enforce would do ends where the pass ended
	}
	ready = ready && !stalled
	if stalled {
		reason, message = why.Reason, why.Message
	}
	return []metav1.Condition{
		condition(v1alpha1.ConditionReady, state(ready), reason, "%s", message),
		condition(v1alpha1.ConditionReconciling, state(!ready && !stalled), reason, "%s", message),
		condition(v1alpha1.ConditionStalled, state(stalled), reason, "%s", message),
	}
}

func (s *scope) goalReached() (ready bool, reason, message string) {
	find := func(kind string) metav1.Condition { return *apimeta.FindStatusCondition(s.next.Conditions, kind) }
	progress := func(kind string) (bool, string, string) {
		return s.is(kind, metav1.ConditionTrue), v1alpha1.ReasonProgressing, find(kind).Message
	}
	switch goal := s.incident.Spec.Goal; {
	case s.dryRun():
		return s.view != nil, v1alpha1.ReasonPlanned, fmt.Sprintf("dry run: Enforce would do %d things; see status.plannedActions", len(s.planned))
	case goal == v1alpha1.GoalClose:
		ready, reason, message = progress(v1alpha1.ConditionReleased)
	case goal == v1alpha1.GoalRecover:
		ready, reason, message = progress(v1alpha1.ConditionRecovered)
	default:
		ready, reason, message = progress(v1alpha1.ConditionContained)
		if e := find(v1alpha1.ConditionEvidenceCollected); ready && e.Status != metav1.ConditionTrue {
			ready, message = e.Reason == v1alpha1.ReasonGaps, e.Message
		}
	}
	if ready {
		reason = v1alpha1.ReasonGoalReached
	}
	return ready, reason, message
}

// stalledBy finds what only a person can resolve.
func (s *scope) stalledBy(failure error) (bool, metav1.Condition) {
	find := func(kind string) metav1.Condition { return *apimeta.FindStatusCondition(s.next.Conditions, kind) }
	contained, recovered := find(v1alpha1.ConditionContained), find(v1alpha1.ConditionRecovered)
	switch {
	case s.problem != nil:
		return true, find(v1alpha1.ConditionAccepted)
	case failure != nil && needsPerson(failure):
		return true, condition("", "", v1alpha1.ReasonActionFailed, "%v; the operator tries again", failure)
	case !s.incident.DeletionTimestamp.IsZero() && s.holds() && !s.closing():
		return true, condition("", "", v1alpha1.ReasonHeld, "deletion waits because the Incident still holds a quarantine: set spec.goal to Close and have it approved")
	case s.blind == nil && s.incident.Spec.Goal == v1alpha1.GoalContain && slices.Contains([]string{v1alpha1.ReasonLeaking, v1alpha1.ReasonNotEnforceable, v1alpha1.ReasonVerdictUnknown}, contained.Reason):
		return true, contained
	case s.incident.Spec.Goal == v1alpha1.GoalRecover && slices.Contains([]string{v1alpha1.ReasonPlanNotFound, v1alpha1.ReasonPlanInvalid, v1alpha1.ReasonStepOverdue, v1alpha1.ReasonStepFailed}, recovered.Reason):
		return true, recovered
	}
	return false, metav1.Condition{}
}

func summary(st *v1alpha1.IncidentStatus) v1alpha1.Summary {
	var out v1alpha1.Summary
	isolated, live := 0, 0
	for _, p := range st.Pods {
		if p.Verdict != v1alpha1.VerdictGone && p.Verdict != v1alpha1.VerdictReleased {
			live++
		}
		if p.Verdict == v1alpha1.VerdictIsolated {
			isolated++
		}
	}
	if len(st.Pods) > 0 {
		out.Pods = fmt.Sprintf("%d/%d isolated", isolated, live)
	}
	safe, gaps := 0, 0
	for _, e := range st.Evidence {
		switch e.State {
		case v1alpha1.EvidenceCollected:
			safe++
		case v1alpha1.EvidenceGap, v1alpha1.EvidencePartial:
			gaps++
		case v1alpha1.EvidencePending, v1alpha1.EvidenceRemoved:
		}
	}
	if n := len(st.Evidence); n > 0 {
		out.Evidence = fmt.Sprintf("%d/%d safe", safe, n)
		if gaps > 0 {
			out.Evidence += fmt.Sprintf(", %d gaps", gaps)
		}
	}
	if rec := st.Recovery; rec != nil {
		succeeded := 0
		for _, step := range rec.Steps {
			if recovery.Settled(step.State) {
				succeeded++
			}
		}
		out.Recovery = fmt.Sprintf("%d/%d steps", succeeded, len(rec.Steps))
	}
	return out
}

// clip bounds a text that may contain what others wrote, in characters, and keeps control characters out of terminals and logs.
func clip(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		// Format characters, too: some turn the direction of the text that follows them.
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, text)
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit-1]) + "…"
}
