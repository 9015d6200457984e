package incident

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
)

var (
	declaredAt = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	later      = declaredAt.Add(time.Minute)
)

// told is a fact as a line: what tests are about.
func told(facts []custody.Fact) []string {
	var out []string
	for _, f := range facts {
		out = append(out, strings.TrimSpace(strings.Join([]string{string(f.Actor.Kind), f.Actor.Name, f.Action, f.Phase, f.Subject.Kind, f.Subject.Name}, " ")))
	}
	return out
}

func storyOf(change func(*v1alpha1.Incident)) *v1alpha1.Incident {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "miner", UID: "inc", CreationTimestamp: declaredAt}}
	inc.Spec.DeclaredBy.Username = "alice"
	inc.Spec.Goal = v1alpha1.GoalContain
	change(inc)
	return inc
}

func TestFacts(t *testing.T) {
	pod := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-1", UID: "p1"}
	cases := map[string]struct {
		change func(*v1alpha1.Incident)
		want   []string
	}{
		"a declaration": {change: func(*v1alpha1.Incident) {}, want: nil},
		"people": {
			change: func(inc *v1alpha1.Incident) {
				inc.Spec.Goal = v1alpha1.GoalClose
				inc.Spec.Approvals = []v1alpha1.Approval{{Step: "close", Author: "bob", Digest: "sha256:1"}, {Step: "close", Author: "bob", Digest: "sha256:2"}}
			},
			want: []string{"Observation cofferdam GoalSet  Incident miner", "Person bob Approve  Incident miner", "Person bob Approve  Incident miner"},
		},
		"what people do to a recovery": {
			change: func(inc *v1alpha1.Incident) {
				inc.Spec.Interventions = []v1alpha1.Intervention{
					{Step: "db", Action: v1alpha1.InterventionRetry, Author: "carol", Reason: "fixed"}, {Step: "db", Action: v1alpha1.InterventionSkip, Author: "dave", Reason: "agreed"},
				}
				inc.Status.Recovery = &v1alpha1.RecoveryStatus{Steps: []v1alpha1.StepStatus{{Name: "db", Interventions: 1, LastIntervention: "Retry by carol: fixed"}, {Name: "web"}}}
				inc.Status.RecoveryTurns = []v1alpha1.RecoveryTurn{{Generation: 2, State: v1alpha1.RecoveryPaused, Author: "carol"}, {Generation: 3, State: v1alpha1.RecoveryResumed, Author: "dave"}}
			},
			want: []string{
				"Person carol Intervene  Incident miner", "Person dave Intervene  Incident miner", "Observation cofferdam InterventionTaken  Incident miner",
				"Person carol RecoveryPaused  Incident miner", "Person dave RecoveryResumed  Incident miner",
			},
		},
		"exceptions": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Exceptions = []v1alpha1.ExceptionStatus{
					{Namespace: "shop", Name: "dns", State: v1alpha1.ExceptionOpen}, {Namespace: "shop", Name: "agent", State: v1alpha1.ExceptionWithheld, Pod: "web-1"},
				}
			},
			want: []string{"Observation cofferdam ExceptionOpen  Namespace shop", "Observation cofferdam ExceptionWithheld  Namespace shop"},
		},
		"an action that was needed twice": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Journal = []v1alpha1.JournalEntry{
					{Number: 1, Action: v1alpha1.ActionRepairMeasure, Object: pod, State: v1alpha1.JournalDone}, {Number: 2, Action: v1alpha1.ActionRepairMeasure, Object: pod, State: v1alpha1.JournalIntended},
				}
			},
			want: []string{"Operator cofferdam RepairMeasure Intent Pod web-1", "Operator cofferdam RepairMeasure Outcome Pod web-1", "Operator cofferdam RepairMeasure Intent Pod web-1"},
		},
		"an action that was intended": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Journal = []v1alpha1.JournalEntry{{Action: v1alpha1.ActionDeletePod, Object: pod, State: v1alpha1.JournalIntended}}
			},
			want: []string{"Operator cofferdam DeletePod Intent Pod web-1"},
		},
		"an action that was observed has its intent before its outcome": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Journal = []v1alpha1.JournalEntry{{Action: v1alpha1.ActionDeletePod, Object: pod, State: v1alpha1.JournalDone}}
			},
			want: []string{"Operator cofferdam DeletePod Intent Pod web-1", "Operator cofferdam DeletePod Outcome Pod web-1"},
		},
		"turns of conditions, but not of the ledger's own": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Conditions = []metav1.Condition{
					{Type: v1alpha1.ConditionContained, Status: metav1.ConditionTrue}, {Type: v1alpha1.ConditionCustody, Status: metav1.ConditionTrue},
					{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue},
				}
			},
			want: []string{"Observation cofferdam Contained=True  Incident miner"},
		},
		"tampering": {
			change: func(inc *v1alpha1.Incident) {
				inc.Status.Tampering = []v1alpha1.Tampering{{At: declaredAt, Object: pod, What: "its label was taken off", By: "kubectl"}}
			},
			want: []string{"Observation cofferdam Tampering  Pod web-1"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := told(facts(storyOf(tc.change), later))
			want := append([]string{"Person alice DeclareIncident  Incident miner"}, tc.want...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("facts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestItemFacts(t *testing.T) {
	subject := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-1", UID: "p1"}
	plain := v1alpha1.EvidenceItem{
		ID: "logs-p1", Type: v1alpha1.EvidenceLogs, Subject: subject, State: v1alpha1.EvidenceCollected, Digest: "sha256:aa", Size: 10, Location: "incidents/inc/items/aa",
	}
	sealed := plain
	sealed.StoredDigest, sealed.StoredSize = "sha256:bb", 300
	elsewhere := plain
	elsewhere.Location, elsewhere.Digest = "VolumeSnapshotContent c", ""
	cases := map[string]struct {
		item v1alpha1.EvidenceItem
		want *custody.Stored
	}{
		"as it was collected": {item: plain, want: &custody.Stored{
			Key: "incidents/inc/items/aa", Name: "Logs of Pod shop/web-1", MediaType: "application/zip", Digest: "sha256:aa", Size: 10, PlainDigest: "sha256:aa", PlainSize: 10,
		}},
		"encrypted": {item: sealed, want: &custody.Stored{
			Key: "incidents/inc/items/aa", Name: "Logs of Pod shop/web-1", MediaType: "application/zip", Digest: "sha256:bb", Size: 300, PlainDigest: "sha256:aa", PlainSize: 10,
			Encrypted: true,
		}},
		"not in the store": {item: elsewhere},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := itemFacts(&tc.item, later)
			if len(got) != 1 || got[0].Phase != custody.PhaseOutcome {
				t.Fatalf("facts = %+v, want one outcome", got)
			}
			if diff := cmp.Diff(tc.want, got[0].Stored); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
		})
	}
}

// What a pass reports again has the ID that it had, whatever the time; what is something else has another.
func TestFactsHaveStableIDs(t *testing.T) {
	full := func(inc *v1alpha1.Incident) {
		ref := func(name string) v1alpha1.ObjectRef {
			return v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: name, UID: name}
		}
		inc.Status.Pods = []v1alpha1.PodStatus{{Namespace: "shop", Name: "a", UID: "a"}, {Namespace: "shop", Name: "b", UID: "b"}}
		inc.Status.Measures = []v1alpha1.ObjectRef{ref("a"), ref("b")}
		inc.Status.Journal = []v1alpha1.JournalEntry{
			{Number: 7, Action: v1alpha1.ActionRepairMeasure, Object: ref("a"), State: v1alpha1.JournalDone}, {Number: 8, Action: v1alpha1.ActionRepairMeasure, Object: ref("a"), State: v1alpha1.JournalDone},
			{Action: v1alpha1.ActionDeletePod, Object: ref("a"), State: v1alpha1.JournalDone}, {Action: v1alpha1.ActionReleasePod, Object: ref("a"), State: v1alpha1.JournalDone},
		}
		inc.Status.Evidence = []v1alpha1.EvidenceItem{{ID: "x", State: v1alpha1.EvidencePending}, {ID: "y", State: v1alpha1.EvidenceGap}, {ID: "z", State: v1alpha1.EvidenceRemoved}}
		inc.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionContained, Status: metav1.ConditionTrue, LastTransitionTime: declaredAt},
		}
	}
	ids := func(now time.Time) []string {
		var out []string
		for _, f := range facts(storyOf(full), now) {
			out = append(out, f.ID)
		}
		return out
	}
	first := ids(later)
	if diff := cmp.Diff(first, ids(later.Add(time.Hour))); diff != "" {
		t.Errorf("IDs change with the time:\n%s", diff)
	}
	sorted := slices.Sorted(slices.Values(first))
	if unique := slices.Compact(slices.Clone(sorted)); len(unique) != len(sorted) {
		t.Errorf("IDs are not unique: %v", sorted)
	}
	again := func(inc *v1alpha1.Incident) {
		full(inc)
		inc.Status.Conditions[0].LastTransitionTime = metav1.NewTime(later)
	}
	if last := facts(storyOf(again), later); last[len(last)-1].ID == first[len(first)-1] {
		t.Error("a condition that turned again has the ID of its first turn")
	}
}

func TestWithheld(t *testing.T) {
	intent := custody.Fact{ID: "journal/DeletePod/intent", Phase: custody.PhaseIntent}
	signed := &v1alpha1.CustodyStatus{Entries: 0}
	cases := map[string]struct {
		book *book
		all  []custody.Fact
		want string
	}{
		"not begun":                    {book: &book{}, want: "begun"},
		"a store that is away":         {book: &book{head: signed, problem: "no route"}, want: "no route"},
		"an intent that is not there":  {book: &book{head: signed}, all: []custody.Fact{intent}, want: "intended"},
		"only an outcome is not there": {book: &book{head: signed}, all: []custody.Fact{{ID: "x", Phase: custody.PhaseOutcome}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.book.state(tc.all, false).withheld
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("withheld = %q, want it to contain %q", got, tc.want)
			}
		})
	}
}

func TestNoteIsBounded(t *testing.T) {
	k := &book{}
	acts := make([]custody.Fact, maxActs+5)
	k.note(acts)
	k.note(acts[:1])
	if len(k.acts) != maxActs || !strings.Contains(k.acts[maxActs-1].Detail, "not recorded one by one") {
		t.Errorf("%d writes are remembered, the last one says %q", len(k.acts), k.acts[len(k.acts)-1].Detail)
	}
}
