package recovery

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/test/builder"
)

// Whoever has begun brings it to its end; what was given up half-way too, and what people had undone or skipped is theirs.
func TestExchangers(t *testing.T) {
	inc := incident(nil)
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{builder.RestoreVolumes("volumes", nil, "data")}}
	of := func(claim string) []v1alpha1.JournalEntry {
		return []v1alpha1.JournalEntry{intended(v1alpha1.ActionReplaceClaim, v1alpha1.ObjectRef{Kind: claimKind, Namespace: "shop", Name: claim})}
	}
	staged := stagedPrefix + suffixOf(inc, "volumes", "data")
	for name, tc := range map[string]struct {
		state   v1alpha1.StepState
		journal []v1alpha1.JournalEntry
		want    []int
	}{
		"not begun":                           {state: v1alpha1.StepPending, journal: of("other")},
		"running":                             {state: v1alpha1.StepRunning, want: []int{0}},
		"being undone":                        {state: v1alpha1.StepUndoing, want: []int{0}},
		"failed before anything was changed":  {state: v1alpha1.StepFailed, journal: of("other")},
		"failed half-way":                     {state: v1alpha1.StepFailed, journal: of("data"), want: []int{0}},
		"failed when only the staged is gone": {state: v1alpha1.StepFailed, journal: of(staged), want: []int{0}},
		"retried half-way":                    {state: v1alpha1.StepPending, journal: of("data"), want: []int{0}},
		"undone while another one is at it":   {state: v1alpha1.StepUndone, journal: of("other")},
		"skipped half-way":                    {state: v1alpha1.StepSkipped, journal: of("data")},
		"succeeded":                           {state: v1alpha1.StepSucceeded},
	} {
		t.Run(name, func(t *testing.T) {
			got := Exchangers(inc, plan, []v1alpha1.StepStatus{{State: tc.state}}, journal.New(tc.journal, metav1.Now(), false))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Exchangers() (-want +got):\n%s", diff)
			}
		})
	}
}

// In a pause nothing could go on: its time is not the step's.
func TestPostpone(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	steps := []v1alpha1.StepStatus{{State: v1alpha1.StepRunning, StartedAt: at}, {State: v1alpha1.StepPending}, {State: v1alpha1.StepSucceeded, StartedAt: at}}
	Postpone(steps, time.Hour)
	want := []v1alpha1.StepStatus{{State: v1alpha1.StepRunning, StartedAt: metav1.NewTime(at.Add(time.Hour))}, {State: v1alpha1.StepPending}, {State: v1alpha1.StepSucceeded, StartedAt: at}}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("Postpone() (-want +got):\n%s", diff)
	}
}

// Nothing is released that has not come back, whatever became of the step that was to bring it back.
func TestNotBack(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := appsv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		image  string
		change func(*v1alpha1.RecoveryStep)
		want   string
	}{
		"as the plan has it": {image: goodImage},
		"never rolled back":  {image: "registry/web@" + badDigest, want: "Deployment web does not have its known-good images"},
		"found to be clean":  {image: "registry/web@" + badDigest, change: func(s *v1alpha1.RecoveryStep) { s.Release.HeldPods = v1alpha1.HeldPodRestore }},
	} {
		t.Run(name, func(t *testing.T) {
			x, _ := execution(incident(nil))
			x.Reader = fake.NewClientBuilder().WithScheme(scheme).WithObjects(builder.Deployment("shop", "web", tc.image, 0)).Build()
			step := builder.Release("free", "ask")
			if tc.change != nil {
				tc.change(&step)
			}
			x.Plan = v1alpha1.RecoveryPlanSpec{
				Images: []v1alpha1.KnownGoodImages{good("app")}, Steps: []v1alpha1.RecoveryStep{builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}), step},
			}
			x.Steps = states("back=Skipped", "free=Running")
			why, err := notBack(t.Context(), x, step)
			if err != nil || (why == "") != (tc.want == "") || !strings.Contains(why, tc.want) {
				t.Errorf("notBack() = %q, %v, want %q", why, err, tc.want)
			}
		})
	}
}
