package recovery

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestIntervene(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	steps := graph("a", "b: a", "ask: b", "let-go: ask")
	steps[2].Approve, steps[3].Release = &v1alpha1.ApproveStep{Required: 1}, &v1alpha1.ReleaseStep{}
	by := func(step string, action v1alpha1.InterventionAction) []v1alpha1.Intervention {
		return []v1alpha1.Intervention{{Step: step, Action: action, Author: "ann", Reason: "the vendor says so"}}
	}
	cases := map[string]struct {
		status []v1alpha1.StepStatus
		wish   []v1alpha1.Intervention
		want   string // the states
		says   string // of the step
	}{
		"retry of a failed step":                 {status: states("a=Failed", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Retry"), want: "Pending/Pending/Pending/Pending", says: "Retry by ann: the vendor says so"},
		"retry of an overdue step":               {status: states("a=Overdue", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Retry"), want: "Pending/Pending/Pending/Pending", says: "Retry by ann"},
		"no retry of one that runs":              {status: states("a=Running", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Retry"), want: "Running/Pending/Pending/Pending", says: "Retry by ann was refused: a step that is Running is not retried"},
		"skip of a step that has not begun":      {status: states("a=Running", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("b", "Skip"), want: "Running/Skipped/Pending/Pending", says: "Skip by ann"},
		"skip of a failed step":                  {status: states("a=Failed", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Skip"), want: "Skipped/Pending/Pending/Pending", says: "Skip by ann"},
		"no skip of an approve step":             {status: states("a=Succeeded", "b=Succeeded", "ask=Running", "let-go=Pending"), wish: by("ask", "Skip"), want: "Succeeded/Succeeded/Running/Pending", says: "an approve step is not skipped"},
		"no skip of what has succeeded":          {status: states("a=Succeeded", "b=Running", "ask=Pending", "let-go=Pending"), wish: by("a", "Skip"), want: "Succeeded/Running/Pending/Pending", says: "the step has succeeded"},
		"undo of the last step that ran":         {status: states("a=Succeeded", "b=Succeeded", "ask=Pending", "let-go=Pending"), wish: by("b", "Undo"), want: "Succeeded/Undoing/Pending/Pending", says: "Undo by ann"},
		"no undo while another builds on it":     {status: states("a=Succeeded", "b=Succeeded", "ask=Pending", "let-go=Pending"), wish: by("a", "Undo"), want: "Succeeded/Succeeded/Pending/Pending", says: "undo that one first"},
		"undo once that is undone":               {status: states("a=Succeeded", "b=Undone", "ask=Pending", "let-go=Pending"), wish: by("a", "Undo"), want: "Undoing/Undone/Pending/Pending", says: "Undo by ann"},
		"no undo of what was released":           {status: states("a=Succeeded", "b=Succeeded", "ask=Succeeded", "let-go=Running"), wish: by("b", "Undo"), want: "Succeeded/Succeeded/Succeeded/Running", says: "what was released is not taken back"},
		"skip of one whose undoing does not end": {status: states("a=Undoing", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Skip"), want: "Skipped/Pending/Pending/Pending", says: "Skip by ann"},
		"no skip of a release that has begun":    {status: states("a=Succeeded", "b=Succeeded", "ask=Succeeded", "let-go=Failed"), wish: by("let-go", "Skip"), want: "Succeeded/Succeeded/Succeeded/Failed", says: "a release step that has begun is not skipped"},
		"no undo once a release is retried":      {status: retried(states("a=Succeeded", "b=Succeeded", "ask=Succeeded", "let-go=Pending"), "let-go"), wish: by("b", "Undo"), want: "Succeeded/Succeeded/Succeeded/Pending", says: "what was released is not taken back"},
		"no undo of what has not begun":          {status: states("a=Pending", "b=Pending", "ask=Pending", "let-go=Pending"), wish: by("a", "Undo"), want: "Pending/Pending/Pending/Pending", says: "the step has not started"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			plan := v1alpha1.RecoveryPlanSpec{Steps: steps}
			got := Intervene(plan, tc.status, tc.wish, now)
			var is []string
			for _, s := range got {
				is = append(is, string(s.State))
			}
			if diff := gocmp.Diff(tc.want, strings.Join(is, "/")); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			for _, s := range got {
				if s.Name == tc.wish[0].Step && (!strings.Contains(s.LastIntervention, tc.says) || s.Interventions != 1) {
					t.Errorf("step says %q after %d interventions, want %q after 1", s.LastIntervention, s.Interventions, tc.says)
				}
			}
			if diff := gocmp.Diff(got, Intervene(plan, got, tc.wish, now)); diff != "" {
				t.Errorf("an intervention counts twice (-once +twice):\n%s", diff)
			}
		})
	}
}

func retried(status []v1alpha1.StepStatus, step string) []v1alpha1.StepStatus {
	for i := range status {
		if status[i].Name == step {
			status[i].Tries = 1
		}
	}
	return status
}

// A job that still runs is not run a second time beside itself, neither by a retry that is refused nor by one of a step that is overdue.
func TestOnlyARetryThatIsCarriedOutCounts(t *testing.T) {
	steps := graph("a")
	steps[0].RunJob = &v1alpha1.RunJobStep{Image: goodImage}
	retry := []v1alpha1.Intervention{{Step: "a", Action: "Retry", Author: "ann"}}
	for state, want := range map[string]int32{"Running": 0, "Overdue": 0, "Failed": 1} {
		got := Intervene(v1alpha1.RecoveryPlanSpec{Steps: steps}, states("a="+state), retry, metav1.Now())[0]
		if got.Tries != want || got.Interventions != 1 {
			t.Errorf("after a retry while it is %s: %d tries, %d interventions; want %d and 1", state, got.Tries, got.Interventions, want)
		}
	}
}

// What is asked for once more is done once more.
func TestInterveneInTurn(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Steps: graph("a")}
	wishes := []v1alpha1.Intervention{{Step: "a", Action: "Retry", Author: "ann"}, {Step: "a", Action: "Skip", Author: "bob"}}
	got := Intervene(plan, states("a=Failed"), wishes, metav1.Now())
	if got[0].State != v1alpha1.StepSkipped || got[0].Interventions != 2 {
		t.Errorf("step is %s after %d interventions, want Skipped after 2", got[0].State, got[0].Interventions)
	}
}

func TestAdvanceOnFailure(t *testing.T) {
	start := metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	cases := map[string]struct {
		state   v1alpha1.StepState
		policy  v1alpha1.OnFailure
		outcome Outcome
		seconds int
		want    v1alpha1.StepState
	}{
		"fails and halts":              {v1alpha1.StepRunning, v1alpha1.OnFailureHalt, failed("no"), 1, v1alpha1.StepFailed},
		"fails and goes on":            {v1alpha1.StepRunning, v1alpha1.OnFailureContinue, failed("no"), 1, v1alpha1.StepFailed},
		"fails and is undone":          {v1alpha1.StepRunning, v1alpha1.OnFailureUndo, failed("no"), 1, v1alpha1.StepUndoing},
		"late and goes on":             {v1alpha1.StepRunning, v1alpha1.OnFailureContinue, waiting("waits"), 61, v1alpha1.StepFailed},
		"late and is undone":           {v1alpha1.StepRunning, v1alpha1.OnFailureUndo, waiting("waits"), 61, v1alpha1.StepUndoing},
		"late and done all the same":   {v1alpha1.StepRunning, v1alpha1.OnFailureUndo, done("there"), 61, v1alpha1.StepSucceeded},
		"not late":                     {v1alpha1.StepRunning, v1alpha1.OnFailureContinue, waiting("waits"), 60, v1alpha1.StepRunning},
		"being undone, waits":          {v1alpha1.StepUndoing, v1alpha1.OnFailureUndo, waiting("waits"), 99, v1alpha1.StepUndoing},
		"being undone, over":           {v1alpha1.StepUndoing, v1alpha1.OnFailureHalt, done("back"), 99, v1alpha1.StepUndone},
		"being undone does not fail":   {v1alpha1.StepUndoing, v1alpha1.OnFailureContinue, failed("no"), 99, v1alpha1.StepUndoing},
		"starts anew after a retry":    {v1alpha1.StepPending, v1alpha1.OnFailureHalt, waiting("waits"), 1, v1alpha1.StepRunning},
		"overdue fails where it halts": {v1alpha1.StepOverdue, v1alpha1.OnFailureHalt, failed("no"), 99, v1alpha1.StepFailed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			step := v1alpha1.RecoveryStep{Name: "a", DeadlineSeconds: 60, OnFailure: tc.policy}
			before := v1alpha1.StepStatus{Name: "a", State: tc.state, StartedAt: start}
			got := Advance(before, step, tc.outcome, metav1.NewTime(start.Add(time.Duration(tc.seconds)*time.Second)))
			if got.State != tc.want || got.Message != tc.outcome.Message {
				t.Errorf("Advance() = %s %q, want %s %q", got.State, got.Message, tc.want, tc.outcome.Message)
			}
		})
	}
}

func TestNoteApprovals(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) metav1.Time { return metav1.NewTime(start.Add(time.Duration(seconds) * time.Second)) }
	step := v1alpha1.RecoveryStep{Name: "ask", Approve: &v1alpha1.ApproveStep{Required: 2, ValidForSeconds: 60, From: []string{"ann", "bob"}}}
	inc := &v1alpha1.Incident{}
	inc.Spec.DeclaredBy.Username = "carl"
	approve := func(author, digest string) {
		inc.Spec.Approvals = append(inc.Spec.Approvals, v1alpha1.Approval{Step: "ask", Author: author, Digest: digest})
	}
	x := &Execution{Incident: inc, Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{step}}, PlanDigest: "sha256:plan", Steps: states("ask=Pending")}
	note := func(seconds int) v1alpha1.StepStatus {
		x.Now = at(seconds)
		NoteApprovals(x)
		return x.Steps[0]
	}
	asks := func() string {
		out, err := approveAgain(t, x, step)
		if err != nil {
			t.Fatal(err)
		}
		return out.Message
	}

	approve("ann", "sha256:plan")
	approve("dora", "sha256:plan") // is not asked
	approve("carl", "sha256:plan") // has declared it
	got := note(0)
	if diff := gocmp.Diff([]v1alpha1.SeenApproval{{Author: "ann", SeenAt: at(0)}}, got.Approvals); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if m := asks(); !strings.Contains(m, "waits for 1 of 2 approvals (so far: ann): one of ann, bob who") || !strings.Contains(m, "digest: sha256:plan}") {
		t.Errorf("the step says %q", m)
	}
	if got = note(60); got.ApprovalDigest != "sha256:plan" || len(got.Approvals) != 1 {
		t.Errorf("an approval lapses before its time: %+v", got)
	}
	got = note(61)
	if got.ApprovalDigest == "sha256:plan" || len(got.Approvals) != 0 {
		t.Errorf("an approval does not lapse: %+v", got)
	}
	if m := asks(); !strings.Contains(m, "waits for 2 of 2 approvals") || !strings.Contains(m, got.ApprovalDigest) {
		t.Errorf("the step says %q, want it to ask for approvals of %s", m, got.ApprovalDigest)
	}
	approve("bob", "sha256:plan") // too late
	approve("ann", got.ApprovalDigest)
	if got = note(70); len(got.Approvals) != 1 || got.Approvals[0].SeenAt != at(70) {
		t.Errorf("after the second round's first approval: %+v", got.Approvals)
	}
}

func approveAgain(t *testing.T, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	t.Helper()
	return approve{}.Run(t.Context(), x, step)
}
