package recovery

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// graph makes steps of "name: dependency dependency".
func graph(lines ...string) []v1alpha1.RecoveryStep {
	var out []v1alpha1.RecoveryStep
	for _, line := range lines {
		name, deps, _ := strings.Cut(line, ":")
		out = append(out, v1alpha1.RecoveryStep{Name: name, DependsOn: strings.Fields(deps)})
	}
	return out
}

func TestCycle(t *testing.T) {
	cases := map[string]struct {
		steps []v1alpha1.RecoveryStep
		want  []string
	}{
		"nothing":                     {},
		"one step":                    {steps: graph("a")},
		"chain":                       {steps: graph("a", "b: a", "c: b")},
		"chain, written backwards":    {steps: graph("c: b", "b: a", "a")},
		"diamond":                     {steps: graph("a", "b: a", "c: a", "d: b c")},
		"two ways of unequal length":  {steps: graph("d: a c", "c: b", "b: a", "a")},
		"unknown step":                {steps: graph("a: nobody")},
		"itself":                      {steps: graph("a: a"), want: []string{"a", "a"}},
		"two":                         {steps: graph("a: b", "b: a"), want: []string{"a", "b", "a"}},
		"long":                        {steps: graph("a: d", "b: a", "c: b", "d: c"), want: []string{"a", "d", "c", "b", "a"}},
		"the way into it is left out": {steps: graph("in: a", "a: b", "b: c", "c: a"), want: []string{"a", "b", "c", "a"}},
		"behind a diamond":            {steps: graph("a", "b: a", "c: a", "d: b c x", "x: d"), want: []string{"d", "x", "d"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := gocmp.Diff(tc.want, Cycle(tc.steps)); diff != "" {
				t.Errorf("Cycle() (-want +got):\n%s", diff)
			}
		})
	}
}

func states(lines ...string) []v1alpha1.StepStatus {
	var out []v1alpha1.StepStatus
	for _, line := range lines {
		name, state, _ := strings.Cut(line, "=")
		out = append(out, v1alpha1.StepStatus{Name: name, State: v1alpha1.StepState(state)})
	}
	return out
}

func TestRunnable(t *testing.T) {
	diamond := graph("a", "b: a", "c: a", "d: b c")
	arms := graph("a", "b", "c", "d: c")
	with := func(steps []v1alpha1.RecoveryStep, change func([]v1alpha1.RecoveryStep)) []v1alpha1.RecoveryStep {
		out := slices.Clone(steps)
		change(out)
		return out
	}
	goesOn := func(s []v1alpha1.RecoveryStep) { s[0].OnFailure = v1alpha1.OnFailureContinue }
	asks := func(s []v1alpha1.RecoveryStep) { s[0].Approve = &v1alpha1.ApproveStep{Required: 1} }
	cases := map[string]struct {
		steps  []v1alpha1.RecoveryStep
		status []v1alpha1.StepStatus
		atOnce int32
		want   []int
	}{
		"at the beginning":                    {steps: diamond, status: Begin(diamond), want: []int{0}},
		"a running one goes on":               {steps: diamond, status: states("a=Running", "b=Pending", "c=Pending", "d=Pending"), want: []int{0}},
		"an overdue one is still seen":        {steps: diamond, status: states("a=Overdue", "b=Pending", "c=Pending", "d=Pending"), want: []int{0}},
		"both arms in parallel":               {steps: diamond, status: states("a=Succeeded", "b=Running", "c=Pending", "d=Pending"), want: []int{1, 2}},
		"waits for every dependency":          {steps: diamond, status: states("a=Succeeded", "b=Succeeded", "c=Overdue", "d=Pending"), want: []int{2}},
		"the last one":                        {steps: diamond, status: states("a=Succeeded", "b=Succeeded", "c=Succeeded", "d=Pending"), want: []int{3}},
		"nothing is left":                     {steps: diamond, status: states("a=Succeeded", "b=Succeeded", "c=Succeeded", "d=Succeeded")},
		"unknown dependency":                  {steps: graph("a: nobody"), status: states("a=Pending")},
		"an overdue one halts all others":     {steps: arms, status: states("a=Overdue", "b=Pending", "c=Running", "d=Pending"), want: []int{0, 2}},
		"a failed one halts all others":       {steps: arms, status: states("a=Failed", "b=Pending", "c=Running", "d=Pending"), want: []int{2}},
		"one that is undone halts all":        {steps: arms, status: states("a=Undone", "b=Pending", "c=Succeeded", "d=Pending")},
		"one that is being undone goes on":    {steps: arms, status: states("a=Undoing", "b=Pending", "c=Succeeded", "d=Pending"), want: []int{0}},
		"goes on without one that failed":     {steps: with(diamond, goesOn), status: states("a=Failed", "b=Pending", "c=Pending", "d=Pending"), want: []int{1, 2}},
		"goes on without one that is skipped": {steps: diamond, status: states("a=Skipped", "b=Pending", "c=Pending", "d=Pending"), want: []int{1, 2}},
		"as many as the plan lets":            {steps: arms, status: Begin(arms), atOnce: 2, want: []int{0, 1}},
		"what runs counts":                    {steps: arms, status: states("a=Pending", "b=Pending", "c=Running", "d=Pending"), atOnce: 2, want: []int{0, 2}},
		"what waits for people does not":      {steps: with(arms, asks), status: states("a=Running", "b=Pending", "c=Pending", "d=Pending"), atOnce: 2, want: []int{0, 1, 2}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			plan := v1alpha1.RecoveryPlanSpec{Steps: tc.steps, MaxParallel: cmp.Or(tc.atOnce, 8)}
			if diff := gocmp.Diff(tc.want, Runnable(plan, tc.status)); diff != "" {
				t.Errorf("Runnable() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	cases := map[string]struct {
		status []v1alpha1.StepStatus
		want   bool
	}{
		"all":     {status: states("a=Succeeded", "b=Succeeded"), want: true},
		"running": {status: states("a=Succeeded", "b=Running")},
		"overdue": {status: states("a=Overdue", "b=Succeeded")},
		"pending": {status: states("a=Pending")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Complete(tc.status); got != tc.want {
				t.Errorf("Complete() = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestAdvance(t *testing.T) {
	start := metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	at := func(seconds int) metav1.Time { return metav1.NewTime(start.Add(time.Duration(seconds) * time.Second)) }
	status := func(state v1alpha1.StepState, message string) v1alpha1.StepStatus {
		return v1alpha1.StepStatus{Name: "a", State: state, StartedAt: start, Message: message}
	}
	succeeded := status(v1alpha1.StepSucceeded, "ready")
	succeeded.FinishedAt = at(99)
	atOnce := status(v1alpha1.StepSucceeded, "ready")
	atOnce.FinishedAt = start
	cases := map[string]struct {
		before  v1alpha1.StepStatus
		outcome Outcome
		now     metav1.Time
		want    v1alpha1.StepStatus
	}{
		"starts":                         {before: v1alpha1.StepStatus{Name: "a", State: v1alpha1.StepPending}, outcome: waiting("waits"), now: start, want: status(v1alpha1.StepRunning, "waits")},
		"succeeds at once":               {before: v1alpha1.StepStatus{Name: "a", State: v1alpha1.StepPending}, outcome: done("ready"), now: start, want: atOnce},
		"goes on":                        {before: status(v1alpha1.StepRunning, "waits"), outcome: waiting("waits for b"), now: at(30), want: status(v1alpha1.StepRunning, "waits for b")},
		"is not overdue at its deadline": {before: status(v1alpha1.StepRunning, "waits"), outcome: waiting("waits"), now: at(60), want: status(v1alpha1.StepRunning, "waits")},
		"is overdue after it":            {before: status(v1alpha1.StepRunning, "waits"), outcome: waiting("waits"), now: at(61), want: status(v1alpha1.StepOverdue, "waits")},
		"stays overdue":                  {before: status(v1alpha1.StepOverdue, "waits"), outcome: waiting("still"), now: at(99), want: status(v1alpha1.StepOverdue, "still")},
		"succeeds late all the same":     {before: status(v1alpha1.StepOverdue, "waits"), outcome: done("ready"), now: at(99), want: succeeded},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Advance(tc.before, v1alpha1.RecoveryStep{Name: "a", DeadlineSeconds: 60}, tc.outcome, tc.now)
			if diff := gocmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Advance() (-want +got):\n%s", diff)
			}
		})
	}
}
