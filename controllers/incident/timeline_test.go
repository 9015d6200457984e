package incident

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func status(changes ...func(*v1alpha1.IncidentStatus)) *v1alpha1.IncidentStatus {
	out := &v1alpha1.IncidentStatus{}
	for _, change := range changes {
		change(out)
	}
	return out
}

func with(kind string, s metav1.ConditionStatus, reason string) func(*v1alpha1.IncidentStatus) {
	return func(st *v1alpha1.IncidentStatus) {
		st.Conditions = append(st.Conditions, metav1.Condition{Type: kind, Status: s, Reason: reason, Message: "because"})
	}
}

func withPod(h v1alpha1.Handling, v v1alpha1.Verdict) func(*v1alpha1.IncidentStatus) {
	return func(st *v1alpha1.IncidentStatus) { st.Pods = append(st.Pods, pod(h, v)) }
}

func withItem(state v1alpha1.EvidenceState) func(*v1alpha1.IncidentStatus) {
	return func(st *v1alpha1.IncidentStatus) {
		st.Evidence = []v1alpha1.EvidenceItem{{ID: "1", Type: v1alpha1.EvidenceManifests, State: state}}
	}
}

func withStep(state v1alpha1.StepState) func(*v1alpha1.IncidentStatus) {
	return func(st *v1alpha1.IncidentStatus) {
		st.Recovery = &v1alpha1.RecoveryStatus{PlanName: "plan", Steps: []v1alpha1.StepStatus{{Name: "a", State: state}}}
	}
}

func TestTurns(t *testing.T) {
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	cont, acc, rel, ev := v1alpha1.ConditionContained, v1alpha1.ConditionAccepted, v1alpha1.ConditionReleased, v1alpha1.ConditionEvidenceCollected
	cases := map[string]struct {
		old, next *v1alpha1.IncidentStatus
		want      []string
	}{
		"nothing":                              {old: status(), next: status()},
		"accepted":                             {old: status(), next: status(with(acc, yes, "Accepted")), want: []string{"Accepted"}},
		"refused is news at once":              {old: status(), next: status(with(acc, no, "NoPolicy")), want: []string{"!Accepted_NoPolicy"}},
		"how every Incident begins is no news": {old: status(), next: status(with(cont, no, "Isolating"), with(rel, no, "Held"), with(ev, no, "Collecting"))},
		"nothing held is no news":              {old: status(), next: status(with(rel, yes, "NothingHeld"))},
		"the same again":                       {old: status(with(cont, yes, "Isolated")), next: status(with(cont, yes, "Isolated"))},
		"contained":                            {old: status(with(cont, no, "Isolating")), next: status(with(cont, yes, "Isolated")), want: []string{"Contained"}},
		"leaks":                                {old: status(with(cont, yes, "Isolated")), next: status(with(cont, no, "Leaking")), want: []string{"!Contained_Leaking"}},
		"another reason":                       {old: status(with(cont, no, "Leaking")), next: status(with(cont, no, "NotEnforceable")), want: []string{"!Contained_NotEnforceable"}},
		"lifted is no warning":                 {old: status(with(cont, yes, "Isolated")), next: status(with(cont, no, "Lifted")), want: []string{"Contained_Lifted"}},
		"released":                             {old: status(with(rel, no, "Held")), next: status(with(rel, yes, "Released")), want: []string{"Released"}},
		"gaps":                                 {old: status(with(ev, no, "Collecting")), next: status(with(ev, no, "Gaps")), want: []string{"!EvidenceCollected_Gaps"}},

		"pod seen":                       {old: status(), next: status(withPod("Pending", "Leaking"))},
		"pod quarantined and isolated":   {old: status(withPod("Pending", "Leaking")), next: status(withPod("Detached", "Isolated")), want: []string{"PodQuarantined", "PodIsolated"}},
		"isolated by its revision first": {old: status(withPod("Pending", "Isolated")), next: status(withPod("Detached", "Isolated")), want: []string{"PodQuarantined", "PodIsolated"}},
		"pod leaks":                      {old: status(withPod("Detached", "Isolated")), next: status(withPod("Detached", "Leaking")), want: []string{"!PodLeaking"}},
		"pod cannot be isolated":         {old: status(), next: status(withPod("Untouched", "NotEnforceable")), want: []string{"!PodNotEnforceable"}},
		"pod unknown":                    {old: status(withPod("Attached", "Isolated")), next: status(withPod("Attached", "Unknown")), want: []string{"!PodUnknown"}},
		"pod gone":                       {old: status(withPod("Attached", "Isolated")), next: status(withPod("Attached", "Gone")), want: []string{"PodGone"}},
		"pod released":                   {old: status(withPod("Detached", "Isolated")), next: status(withPod("Released", "Released")), want: []string{"PodReleased"}},
		"pod stays":                      {old: status(withPod("Detached", "Isolated")), next: status(withPod("Detached", "Isolated"))},

		"evidence begun": {old: status(), next: status(withItem("Pending"))},
		"evidence safe":  {old: status(withItem("Pending")), next: status(withItem("Collected")), want: []string{"EvidenceSafe"}},
		"evidence gap":   {old: status(withItem("Pending")), next: status(withItem("Gap")), want: []string{"!EvidenceGap"}},
		"evidence stays": {old: status(withItem("Gap")), next: status(withItem("Gap"))},

		"recovery starts":  {old: status(), next: status(withStep("Pending")), want: []string{"RecoveryStarted"}},
		"step starts":      {old: status(withStep("Pending")), next: status(withStep("Running")), want: []string{"StepStarted"}},
		"step is overdue":  {old: status(withStep("Running")), next: status(withStep("Overdue")), want: []string{"!StepOverdue"}},
		"step succeeds":    {old: status(withStep("Overdue")), next: status(withStep("Succeeded")), want: []string{"StepSucceeded"}},
		"step waits still": {old: status(withStep("Running")), next: status(withStep("Running"))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, turn := range turns(tc.old, tc.next) {
				reason := turn.reason
				if turn.eventType() == "Warning" {
					reason = "!" + reason
				}
				got = append(got, reason)
				if turn.message == "" || len(turn.reason) > 64 {
					t.Errorf("turn %+v: want a message, and a reason that fits", turn)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("turns() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExtend(t *testing.T) {
	numbered := func(from, n int) []turn {
		var out []turn
		for i := range n {
			out = append(out, turn{reason: "R", message: fmt.Sprint(from + i)})
		}
		return out
	}
	for name, tc := range map[string]struct {
		before, added int
	}{
		"from nothing": {added: 3}, "to the edge": {before: 98, added: 2}, "over the edge": {before: 100, added: 1}, "far over": {before: 60, added: 200}, "all at once": {added: 500},
	} {
		t.Run(name, func(t *testing.T) {
			timeline := extend(nil, numbered(0, tc.before), now)
			timeline = extend(timeline, numbered(tc.before, tc.added), now)
			total := tc.before + tc.added
			if len(timeline) != min(total, v1alpha1.MaxTimelineLength) {
				t.Fatalf("%d entries of %d", len(timeline), total)
			}
			for i, e := range timeline {
				want := i
				if i >= keepFirst {
					want = total - len(timeline) + i
				}
				if e.Message != fmt.Sprint(want) {
					t.Fatalf("entry %d is %s, want %d: the first %d and the last ones", i, e.Message, want, keepFirst)
				}
			}
		})
	}
	if got := extend(nil, []turn{{message: strings.Repeat("a\x1b", 600)}}, now)[0].Message; len([]rune(got)) > 512 || strings.Contains(got, "\x1b") {
		t.Errorf("message %q, want it clipped", got)
	}
}

func TestForgetRehearsal(t *testing.T) {
	full := func() *v1alpha1.Incident {
		inc := &v1alpha1.Incident{}
		inc.Status = v1alpha1.IncidentStatus{
			Policy: &v1alpha1.GoverningPolicy{}, Targets: []v1alpha1.ResolvedTarget{{}}, Pods: []v1alpha1.PodStatus{{}}, Revisions: []v1alpha1.RevisionStatus{{}},
			Evidence: []v1alpha1.EvidenceItem{{}}, Recovery: &v1alpha1.RecoveryStatus{}, Timeline: []v1alpha1.TimelineEntry{{}}, Journal: []v1alpha1.JournalEntry{{}},
		}
		return inc
	}
	held, released, other := full(), full(), full()
	held.Finalizers, other.Finalizers = []string{"x", v1alpha1.HoldFinalizer}, []string{"x"}
	released.Status.ReleasedAt = now
	for name, tc := range map[string]struct {
		inc    *v1alpha1.Incident
		forget bool
	}{
		"nothing was held": {inc: full(), forget: true}, "another finalizer": {inc: other, forget: true}, "held": {inc: held}, "released": {inc: released},
	} {
		t.Run(name, func(t *testing.T) {
			want := tc.inc.DeepCopy()
			if tc.forget {
				want.Status = v1alpha1.IncidentStatus{Timeline: want.Status.Timeline, Journal: want.Status.Journal}
			}
			forgetRehearsal(tc.inc)
			if diff := cmp.Diff(want, tc.inc); diff != "" {
				t.Errorf("forgetRehearsal() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	res := schema.GroupResource{Resource: "pods"}
	forbidden := apierrors.NewForbidden(res, "web", errors.New("no"))
	conflict := apierrors.NewConflict(res, "web", errors.New("changed"))
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", field.ErrorList{field.Required(field.NewPath("x"), "")})
	failedTest := apierrors.NewGenericServerResponse(422, "", schema.GroupResource{}, "", "testing value /metadata/uid failed", 0, false)
	cases := map[string]struct {
		err         error
		needsPerson bool
		failedTest  bool
	}{
		"nothing in particular":         {err: errors.New("away")},
		"not found":                     {err: apierrors.NewNotFound(res, "web")},
		"conflict":                      {err: conflict, failedTest: true},
		"forbidden":                     {err: forbidden, needsPerson: true},
		"forbidden, wrapped":            {err: fmt.Errorf("patch: %w", forbidden), needsPerson: true},
		"invalid":                       {err: invalid, needsPerson: true},
		"a JSON patch whose test fails": {err: failedTest, needsPerson: true, failedTest: true},
		"the same, wrapped":             {err: fmt.Errorf("patch: %w", failedTest), needsPerson: true, failedTest: true},
		"among others":                  {err: errors.Join(conflict, forbidden), needsPerson: true, failedTest: true},
		"among others, deeper":          {err: errors.Join(errors.New("away"), errors.Join(conflict, fmt.Errorf("step: %w", errors.Join(conflict, forbidden)))), needsPerson: true, failedTest: true},
		"several that pass":             {err: errors.Join(conflict, errors.Join(errors.New("away"), conflict)), failedTest: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := needsPerson(tc.err); got != tc.needsPerson {
				t.Errorf("needsPerson() = %v, want %v", got, tc.needsPerson)
			}
			if got := isFailedTest(tc.err); got != tc.failedTest {
				t.Errorf("isFailedTest() = %v, want %v", got, tc.failedTest)
			}
		})
	}
}

func TestPriority(t *testing.T) {
	last := -1
	for _, severity := range []v1alpha1.Severity{v1alpha1.SeverityLow, v1alpha1.SeverityMedium, v1alpha1.SeverityHigh, v1alpha1.SeverityCritical} {
		inc := &v1alpha1.Incident{}
		inc.Spec.Severity = severity
		if got := Priority(inc); got <= last {
			t.Errorf("Priority(%s) = %d, want more than %d", severity, got, last)
		} else {
			last = got
		}
	}
}
