package incident

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/target"
)

// What there is no room for is one gap, which names the pods that it is about: it can be waived, and no condition calls the evidence complete.
func TestEvidenceThatDoesNotFit(t *testing.T) {
	s := &scope{next: &v1alpha1.IncidentStatus{}}
	for i := range v1alpha1.MaxEvidence + 5 {
		s.addItem(v1alpha1.EvidenceItem{ID: fmt.Sprintf("i%d", i), Type: v1alpha1.EvidenceLogs, State: v1alpha1.EvidenceCollected, Pods: []string{fmt.Sprintf("p%d", i)},
			Subject: v1alpha1.ObjectRef{Kind: "Pod", Name: "a"}})
	}
	if got := len(s.next.Evidence); got != v1alpha1.MaxEvidence {
		t.Fatalf("%d items, want %d", got, v1alpha1.MaxEvidence)
	}
	gap := s.next.Evidence[v1alpha1.MaxEvidence-1]
	if gap.State != v1alpha1.EvidenceGap || !strings.Contains(gap.Message, "declare a second Incident") {
		t.Errorf("the last item is %s: %q, want a gap that says what to do", gap.State, gap.Message)
	}
	want := []string{"p999", "p1000", "p1001", "p1002", "p1003", "p1004"}
	if diff := cmp.Diff(want, gap.Pods); diff != "" {
		t.Errorf("pods of the gap (-want +got):\n%s", diff)
	}
	if len(s.overflow) != len(want) {
		t.Errorf("%d items are counted as left out, want %d", len(s.overflow), len(want))
	}
}

// What a pod that is gone takes with it is a gap; its volumes stay, and are snapshotted.
func TestEvidenceOfAPodThatIsGone(t *testing.T) {
	s := &scope{
		Reconciler: &Reconciler{}, incident: &v1alpha1.Incident{}, view: &target.View{All: map[string]*corev1.Pod{}},
		next: &v1alpha1.IncidentStatus{Pods: []v1alpha1.PodStatus{
			{Namespace: "shop", Name: "db-0", UID: "u1", Handling: v1alpha1.HandlingPending, Verdict: v1alpha1.VerdictGone, Claims: []string{"data-db-0"}},
		}},
	}
	x := &evidence.Execution{Incident: s.incident, Orders: v1alpha1.EvidenceOrders{Logs: v1alpha1.LogOrders{Collect: v1alpha1.Collect}, VolumeSnapshots: v1alpha1.SnapshotCollect}}
	for range 2 {
		s.begin(evidence.NewLogs(nil), x)
		s.begin(evidence.VolumeSnapshots{}, x)
	}
	got := map[string]v1alpha1.EvidenceState{}
	for _, e := range s.next.Evidence {
		got[string(e.Type)+" of "+e.Subject.Name] = e.State
	}
	want := map[string]v1alpha1.EvidenceState{"Logs of db-0": v1alpha1.EvidenceGap, "VolumeSnapshot of data-db-0": v1alpha1.EvidencePending}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	if len(s.next.Evidence) != 2 {
		t.Errorf("%d items after a second pass, want 2", len(s.next.Evidence))
	}
}

// From the intent on an item may be gone, whatever becomes of the operator and of the Incident: the ledger has to say so before.
func TestIntentToRemoveNamesTheObject(t *testing.T) {
	item := v1alpha1.EvidenceItem{ID: "logs-1", Type: v1alpha1.EvidenceLogs, State: v1alpha1.EvidenceCollected, Digest: "sha256:1", Size: 1, Location: "incidents/i/items/1"}
	inc := &v1alpha1.Incident{Status: v1alpha1.IncidentStatus{Evidence: []v1alpha1.EvidenceItem{item}}}
	entry := v1alpha1.JournalEntry{Action: v1alpha1.ActionRemoveEvidence, Object: itemRef(&item), State: v1alpha1.JournalIntended}
	facts := journalFacts(entry, removedItem(inc, entry))
	if len(facts) != 1 || facts[0].Phase != custody.PhaseIntent || facts[0].Stored == nil || facts[0].Stored.Digest != "sha256:1" {
		t.Errorf("facts = %+v, want one intent that names sha256:1", facts)
	}
	if other := removedItem(inc, v1alpha1.JournalEntry{Action: v1alpha1.ActionDeletePod, Object: itemRef(&item)}); other != nil {
		t.Errorf("another action is about %v, want nothing in the store", other)
	}
}
