package incident

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var (
	handlings = []v1alpha1.Handling{
		v1alpha1.HandlingPending, v1alpha1.HandlingDetached, v1alpha1.HandlingAttached, v1alpha1.HandlingUntouched, v1alpha1.HandlingReleased,
	}
	verdicts = []v1alpha1.Verdict{
		v1alpha1.VerdictIsolated, v1alpha1.VerdictLeaking, v1alpha1.VerdictNotEnforceable, v1alpha1.VerdictGone, v1alpha1.VerdictUnknown, v1alpha1.VerdictReleased,
	}
)

// everyPod is every combination of handling and verdict.
func everyPod() []v1alpha1.PodStatus {
	var out []v1alpha1.PodStatus
	for _, h := range handlings {
		for _, v := range verdicts {
			out = append(out, pod(h, v))
		}
	}
	return out
}

// proven reports whether a pod may be among those of a contained Incident.
func proven(p v1alpha1.PodStatus) bool {
	switch p.Verdict {
	case v1alpha1.VerdictGone:
		return true
	case v1alpha1.VerdictIsolated, v1alpha1.VerdictReleased:
		return p.Handling != v1alpha1.HandlingPending
	default:
		return false
	}
}

// Every combination of three pods, in every order: Contained is True exactly when all of them are proven, and never in a pass that saw less.
func TestContainedIsTrueOnlyWhenProven(t *testing.T) {
	all := everyPod()
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				s := contained(a, b, c)
				got := s.contained().Status == metav1.ConditionTrue
				isolated := a.Verdict == v1alpha1.VerdictIsolated || b.Verdict == v1alpha1.VerdictIsolated || c.Verdict == v1alpha1.VerdictIsolated
				released := a.Verdict == v1alpha1.VerdictReleased || b.Verdict == v1alpha1.VerdictReleased || c.Verdict == v1alpha1.VerdictReleased
				// Where everything was released nothing is contained any more.
				if want := proven(a) && proven(b) && proven(c) && (isolated || !released); got != want {
					t.Fatalf("Contained = %v with %s/%s, %s/%s, %s/%s, want %v", got, a.Handling, a.Verdict, b.Handling, b.Verdict, c.Handling, c.Verdict, want)
				}
			}
		}
	}
	less := map[string]func(*scope){
		"not accepted":             refused,
		"something was not read":   blind(errors.New("away")),
		"nothing was inspected":    func(s *scope) { s.view = nil },
		"a deny policy is missing": func(s *scope) { s.policiesInForce = false },
		"a refusal is missing":     func(s *scope) { s.refusalsInForce = false },
		"a dry run":                dryRun,
		"the quarantine is lifted": func(s *scope) { s.next.ReleasedAt = now },
	}
	for name, change := range less {
		for _, p := range all {
			if got := changed(contained(p), change).contained(); got.Status == metav1.ConditionTrue {
				t.Errorf("%s: Contained is True with %s/%s", name, p.Handling, p.Verdict)
			}
		}
	}
}

func TestContained(t *testing.T) {
	leaking, unknown := pod(v1alpha1.HandlingDetached, v1alpha1.VerdictLeaking), pod(v1alpha1.HandlingDetached, v1alpha1.VerdictUnknown)
	hostNetwork, pending := pod(v1alpha1.HandlingUntouched, v1alpha1.VerdictNotEnforceable), pod(v1alpha1.HandlingPending, v1alpha1.VerdictLeaking)
	cases := map[string]struct {
		scope  *scope
		status metav1.ConditionStatus
		reason string
		word   string
	}{
		"isolated":          {scope: contained(isolated(), pod(v1alpha1.HandlingDetached, v1alpha1.VerdictGone)), status: metav1.ConditionTrue, reason: v1alpha1.ReasonIsolated, word: "1 of 2 pods isolated, 1 gone"},
		"no pods":           {scope: contained(), status: metav1.ConditionTrue, reason: v1alpha1.ReasonIsolated, word: "not probed"},
		"pending":           {scope: contained(leaking, pending), status: metav1.ConditionFalse, reason: v1alpha1.ReasonIsolating},
		"leaking":           {scope: contained(isolated(), unknown, hostNetwork, leaking), status: metav1.ConditionFalse, reason: v1alpha1.ReasonLeaking, word: "1 of 4 pods isolated, 1 leaking, 1 not enforceable, 1 unknown; Pod shop/web: because"},
		"not enforceable":   {scope: contained(isolated(), unknown, hostNetwork), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotEnforceable},
		"unknown":           {scope: contained(isolated(), unknown), status: metav1.ConditionUnknown, reason: v1alpha1.ReasonVerdictUnknown},
		"blind":             {scope: changed(contained(isolated()), blind(errors.New("away"))), status: metav1.ConditionUnknown, reason: v1alpha1.ReasonVerdictUnknown, word: "away"},
		"policies missing":  {scope: changed(contained(isolated()), func(s *scope) { s.policiesInForce = false }), status: metav1.ConditionFalse, reason: v1alpha1.ReasonIsolating},
		"dry run":           {scope: changed(contained(isolated()), dryRun), status: metav1.ConditionFalse, reason: v1alpha1.ReasonDryRun, word: "nothing was done"},
		"dry run, refused":  {scope: changed(contained(), dryRun, refused), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotAccepted},
		"refused":           {scope: changed(contained(), nothingHeld, refused), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotAccepted, word: "nothing is contained"},
		"later one refused": {scope: changed(contained(isolated()), refused), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotAccepted, word: "not every target"},
		"lifted":            {scope: changed(contained(isolated()), func(s *scope) { s.next.ReleasedAt = now }), status: metav1.ConditionFalse, reason: v1alpha1.ReasonLifted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.scope.contained()
			if got.Status != tc.status || got.Reason != tc.reason || !strings.Contains(got.Message, tc.word) {
				t.Errorf("contained() = %+v, want %s %s %q", got, tc.status, tc.reason, tc.word)
			}
		})
	}
}

// What could not be read is not in force.
func TestRefusalsThatCannotBeReadAreNotInForce(t *testing.T) {
	s := contained(isolated())
	s.Client = failingClient{err: errors.New("away")}
	s.refusalsInForce = false
	s.next.Revisions = []v1alpha1.RevisionStatus{{ID: "cron", State: v1alpha1.RevisionHeld}}
	if err := s.ensureRefusals(context.Background()); err == nil {
		t.Fatal("ensureRefusals() succeeded")
	}
	if c := s.contained(); c.Status == metav1.ConditionTrue {
		t.Errorf("contained() = %+v, though the list of refusals was not read", c)
	}
}

func TestEvidenceCollected(t *testing.T) {
	pending := pod(v1alpha1.HandlingPending, v1alpha1.VerdictLeaking)
	cases := map[string]struct {
		scope  *scope
		status metav1.ConditionStatus
		reason string
	}{
		"all safe":              {scope: changed(contained(isolated()), items(v1alpha1.EvidenceCollected)), status: metav1.ConditionTrue, reason: v1alpha1.ReasonCollected},
		"nothing to keep":       {scope: contained(), status: metav1.ConditionTrue, reason: v1alpha1.ReasonCollected},
		"pending before gaps":   {scope: changed(contained(isolated()), items(v1alpha1.EvidenceGap, v1alpha1.EvidencePending)), status: metav1.ConditionFalse, reason: v1alpha1.ReasonCollecting},
		"pods wait":             {scope: changed(contained(pending), items(v1alpha1.EvidenceCollected)), status: metav1.ConditionFalse, reason: v1alpha1.ReasonCollecting},
		"gaps":                  {scope: changed(contained(isolated()), items(v1alpha1.EvidenceCollected, v1alpha1.EvidenceGap)), status: metav1.ConditionFalse, reason: v1alpha1.ReasonGaps},
		"dry run":               {scope: changed(contained(isolated()), dryRun), status: metav1.ConditionFalse, reason: v1alpha1.ReasonDryRun},
		"refused":               {scope: changed(contained(), refused, nothingHeld), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotAccepted},
		"nothing could be read": {scope: changed(contained(), blind(errors.New("away"))), status: metav1.ConditionUnknown, reason: v1alpha1.ReasonUnreadable},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.scope.evidenceCollected(); got.Status != tc.status || got.Reason != tc.reason {
				t.Errorf("evidenceCollected() = %+v, want %s %s", got, tc.status, tc.reason)
			}
		})
	}
}

func TestRecoveredAndReleased(t *testing.T) {
	recovered := func(s *scope) { s.next.RecoveredAt = now }
	closeWait := func(text string) func(*scope) { return func(s *scope) { s.closeWait = text } }
	cases := map[string]struct {
		scope     *scope
		recovered string
		released  string
	}{
		"held":                    {scope: contained(isolated()), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonHeld},
		"nothing held":            {scope: changed(contained(), nothingHeld), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonNothingHeld},
		"steps run":               {scope: changed(contained(), steps(v1alpha1.StepSucceeded, v1alpha1.StepRunning, v1alpha1.StepPending)), recovered: v1alpha1.ReasonStepsRunning, released: v1alpha1.ReasonHeld},
		"a step is overdue":       {scope: changed(contained(), steps(v1alpha1.StepOverdue, v1alpha1.StepRunning)), recovered: v1alpha1.ReasonStepOverdue, released: v1alpha1.ReasonHeld},
		"recovered":               {scope: changed(contained(), steps(v1alpha1.StepSucceeded), recovered), recovered: v1alpha1.ReasonRecovered, released: v1alpha1.ReasonHeld},
		"recovered, plan lost":    {scope: changed(contained(), recovered), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonHeld},
		"a pod was released":      {scope: contained(isolated(), pod(v1alpha1.HandlingReleased, v1alpha1.VerdictReleased)), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonPartlyReleased},
		"waits for approval":      {scope: changed(contained(), goal(v1alpha1.GoalClose), closeWait("closing waits for 1 of 1 approvals")), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonWaitingForApproval},
		"is being released":       {scope: changed(contained(), goal(v1alpha1.GoalClose), closeWait("waits until pods are released")), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonReleasing},
		"released":                {scope: changed(contained(), goal(v1alpha1.GoalClose), func(s *scope) { s.next.ReleasedAt = now }), recovered: v1alpha1.ReasonNotRequested, released: v1alpha1.ReasonReleased},
		"plan cannot be executed": {scope: changed(contained(), func(s *scope) { s.planReason, s.planProblem = v1alpha1.ReasonPlanInvalid, "circle" }), recovered: v1alpha1.ReasonPlanInvalid, released: v1alpha1.ReasonHeld},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.scope.recoveredCondition(); got.Reason != tc.recovered || (got.Status == metav1.ConditionTrue) != (tc.recovered == v1alpha1.ReasonRecovered) {
				t.Errorf("recoveredCondition() = %+v, want %s", got, tc.recovered)
			}
			free := tc.released == v1alpha1.ReasonReleased || tc.released == v1alpha1.ReasonNothingHeld
			if got := tc.scope.released(); got.Reason != tc.released || (got.Status == metav1.ConditionTrue) != free {
				t.Errorf("released() = %+v, want %s", got, tc.released)
			}
		})
	}
}

// kstatus calls an object Current, InProgress or Failed by exactly one of these.
func TestKstatus(t *testing.T) {
	const current, inProgress, failed = v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled
	leaking, unknown := pod(v1alpha1.HandlingDetached, v1alpha1.VerdictLeaking), pod(v1alpha1.HandlingDetached, v1alpha1.VerdictUnknown)
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "web", errors.New("no"))
	away := errors.New("away")
	recovered := func(s *scope) { s.next.RecoveredAt = now }
	plan := func(reason string) func(*scope) {
		return func(s *scope) { s.planReason, s.planProblem = reason, "plan" }
	}
	cases := map[string]struct {
		scope   *scope
		failure error
		want    string
		reason  string
	}{
		"contained, evidence safe":        {scope: changed(contained(isolated()), items(v1alpha1.EvidenceCollected)), want: current, reason: v1alpha1.ReasonGoalReached},
		"contained, with declared gaps":   {scope: changed(contained(isolated()), items(v1alpha1.EvidenceGap)), want: current, reason: v1alpha1.ReasonGoalReached},
		"contained, evidence pending":     {scope: changed(contained(isolated()), items(v1alpha1.EvidencePending)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"being quarantined":               {scope: contained(pod(v1alpha1.HandlingPending, v1alpha1.VerdictLeaking)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"leaking":                         {scope: contained(leaking), want: failed, reason: v1alpha1.ReasonLeaking},
		"not enforceable":                 {scope: contained(pod(v1alpha1.HandlingUntouched, v1alpha1.VerdictNotEnforceable)), want: failed, reason: v1alpha1.ReasonNotEnforceable},
		"a verdict that nobody can reach": {scope: contained(unknown), want: failed, reason: v1alpha1.ReasonVerdictUnknown},
		"could not be read this time":     {scope: changed(contained(unknown), blind(away)), failure: away, want: inProgress, reason: v1alpha1.ReasonProgressing},
		"may not be read":                 {scope: changed(contained(unknown), blind(forbidden)), failure: forbidden, want: failed, reason: v1alpha1.ReasonActionFailed},
		"refused":                         {scope: changed(contained(), nothingHeld, refused), want: failed, reason: v1alpha1.ReasonNoPolicy},
		"a target added later is refused": {scope: changed(contained(isolated()), refused), want: failed, reason: v1alpha1.ReasonNoPolicy},
		"an action is forbidden":          {scope: contained(isolated()), failure: fmt.Errorf("patching: %w", forbidden), want: failed, reason: v1alpha1.ReasonActionFailed},
		"an action failed for now":        {scope: contained(pod(v1alpha1.HandlingPending, v1alpha1.VerdictLeaking)), failure: away, want: inProgress, reason: v1alpha1.ReasonProgressing},
		"deleted while it holds":          {scope: changed(contained(isolated()), deleted), want: failed, reason: v1alpha1.ReasonHeld},
		"deleted while it closes":         {scope: changed(contained(isolated()), deleted, goal(v1alpha1.GoalClose)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"dry run":                         {scope: changed(contained(isolated()), dryRun), want: current, reason: v1alpha1.ReasonPlanned},
		"dry run, refused":                {scope: changed(contained(), dryRun, refused), want: failed, reason: v1alpha1.ReasonNoPolicy},
		"dry run that did not get far":    {scope: changed(contained(isolated()), dryRun), failure: away, want: inProgress, reason: v1alpha1.ReasonPlanned},
		"recovering":                      {scope: changed(contained(isolated()), goal(v1alpha1.GoalRecover), steps(v1alpha1.StepRunning)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"recovering while a pod leaks":    {scope: changed(contained(leaking), goal(v1alpha1.GoalRecover), steps(v1alpha1.StepRunning)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"recovered":                       {scope: changed(contained(isolated()), goal(v1alpha1.GoalRecover), steps(v1alpha1.StepSucceeded), recovered), want: current, reason: v1alpha1.ReasonGoalReached},
		"a step is overdue":               {scope: changed(contained(isolated()), goal(v1alpha1.GoalRecover), steps(v1alpha1.StepOverdue)), want: failed, reason: v1alpha1.ReasonStepOverdue},
		"no plan":                         {scope: changed(contained(isolated()), goal(v1alpha1.GoalRecover), plan(v1alpha1.ReasonPlanNotFound)), want: failed, reason: v1alpha1.ReasonPlanNotFound},
		"plan waits for the quarantine":   {scope: changed(contained(isolated()), goal(v1alpha1.GoalRecover), plan(v1alpha1.ReasonStepsRunning)), want: inProgress, reason: v1alpha1.ReasonProgressing},
		"closed":                          {scope: changed(contained(isolated()), goal(v1alpha1.GoalClose), func(s *scope) { s.next.ReleasedAt = now }), want: current, reason: v1alpha1.ReasonGoalReached},
		"closed before anything was held": {scope: changed(contained(), goal(v1alpha1.GoalClose), nothingHeld, func(s *scope) { s.view = nil }), want: current, reason: v1alpha1.ReasonGoalReached},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := tc.scope
			s.setConditions(tc.failure)
			for _, kind := range []string{current, inProgress, failed} {
				c := apimeta.FindStatusCondition(s.next.Conditions, kind)
				if c == nil || (c.Status == metav1.ConditionTrue) != (kind == tc.want) {
					t.Fatalf("%s = %+v, want only %s to be True", kind, c, tc.want)
				}
				if c.Reason != tc.reason || c.ObservedGeneration != 3 {
					t.Errorf("%s = %+v, want reason %s, generation 3", kind, c, tc.reason)
				}
			}
			if len(s.next.Conditions) != 10 {
				t.Errorf("%d conditions, want every one of the 10", len(s.next.Conditions))
			}
			if got, want := !s.next.ContainedAt.IsZero(), s.is(v1alpha1.ConditionContained, metav1.ConditionTrue); got != want {
				t.Errorf("containedAt is set: %v, want %v", got, want)
			}
		})
	}
}

func TestContainedAtIsTheFirstTime(t *testing.T) {
	s := contained(isolated())
	earlier := metav1.NewTime(now.Add(-1e12))
	s.next.ContainedAt = earlier
	s.setConditions(nil)
	if !s.next.ContainedAt.Equal(&earlier) {
		t.Errorf("containedAt = %v, want %v", s.next.ContainedAt, earlier)
	}
}

func TestSummary(t *testing.T) {
	full := changed(contained(isolated(), pod(v1alpha1.HandlingDetached, v1alpha1.VerdictLeaking), pod(v1alpha1.HandlingDetached, v1alpha1.VerdictGone), pod(v1alpha1.HandlingReleased, v1alpha1.VerdictReleased)),
		items(v1alpha1.EvidenceCollected, v1alpha1.EvidenceGap, v1alpha1.EvidencePending), steps(v1alpha1.StepSucceeded, v1alpha1.StepRunning))
	cases := map[string]struct {
		scope *scope
		want  v1alpha1.Summary
	}{
		"nothing": {scope: contained()},
		"full":    {scope: full, want: v1alpha1.Summary{Pods: "1/2 isolated", Evidence: "1/3 safe, 1 gaps", Recovery: "1/2 steps"}},
		"no gaps": {scope: changed(contained(isolated()), items(v1alpha1.EvidenceCollected)), want: v1alpha1.Summary{Pods: "1/1 isolated", Evidence: "1/1 safe"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, summary(tc.scope.next)); diff != "" {
				t.Errorf("summary() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClip(t *testing.T) {
	cases := map[string]struct {
		text  string
		limit int
		want  string
	}{
		"short":                  {text: "abc", limit: 3, want: "abc"},
		"long":                   {text: "abcd", limit: 3, want: "ab…"},
		"characters, not bytes":  {text: "äöü", limit: 3, want: "äöü"},
		"cut between characters": {text: "äöüß", limit: 3, want: "äö…"},
		"lines":                  {text: "a\nb\r\nc\td", limit: 20, want: "a b  c d"},
		"terminal escapes":       {text: "\x1b[31mred\x1b]0;title\x07", limit: 40, want: " [31mred ]0;title "},
		"C1 controls and DEL":    {text: "a\u009b31m\x7fb", limit: 20, want: "a 31m b"},
		"not UTF-8":              {text: "a\xffb", limit: 20, want: "a\ufffdb"},
		"empty":                  {limit: 5},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := clip(tc.text, tc.limit)
			if got != tc.want {
				t.Errorf("clip() = %q, want %q", got, tc.want)
			}
			if utf8.RuneCountInString(got) > tc.limit || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
				t.Errorf("clip() = %q, want at most %d printable characters", got, tc.limit)
			}
		})
	}
}

// The API server bounds the note of an Event in bytes.
func TestNoteFitsIntoAnEvent(t *testing.T) {
	for _, text := range []string{"short", strings.Repeat("a", 5000), strings.Repeat("ä", 5000), strings.Repeat("🔥", 5000), "a" + strings.Repeat("🔥", 255) + "ab"} {
		got := note(text)
		if len(got) > 1024 || !utf8.ValidString(got) || len(got) < min(len(text), 1000) {
			t.Errorf("note of %d bytes has %d bytes, valid: %v", len(text), len(got), utf8.ValidString(got))
		}
	}
}
