package incident

import (
	"strings"
	"testing"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
)

var relapsing = v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}

// A release that was intended before its workload was quarantined again counts no more, not even while the Incident is asked to close; one that was intended since does.
func TestLetGoing(t *testing.T) {
	pod := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "u"}
	intended := []v1alpha1.JournalEntry{{Number: 7, Action: v1alpha1.ActionReleasePod, Object: pod, State: v1alpha1.JournalDone}}
	relapse := func(after int64, workload v1alpha1.ObjectRef, cleared metav1.Time) []v1alpha1.Relapse {
		return []v1alpha1.Relapse{{Workload: workload, Step: "out", AfterEntry: after, ClearedAt: cleared}}
	}
	other := relapsing
	other.Name = "db"
	cases := map[string]struct {
		entries  []v1alpha1.JournalEntry
		relapses []v1alpha1.Relapse
		goal     v1alpha1.Goal
		want     bool
	}{
		"not intended":                       {relapses: relapse(9, relapsing, metav1.Time{})},
		"intended":                           {entries: intended, want: true},
		"before a relapse":                   {entries: intended, relapses: relapse(7, relapsing, metav1.Time{})},
		"before a relapse, and to be closed": {entries: intended, relapses: relapse(7, relapsing, metav1.Time{}), goal: v1alpha1.GoalClose},
		"after it":                           {entries: intended, relapses: relapse(6, relapsing, metav1.Time{}), want: true},
		"before one that was cleared":        {entries: intended, relapses: relapse(7, relapsing, now), want: true},
		"before one of another workload":     {entries: intended, relapses: relapse(7, other, metav1.Time{}), want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := changed(contained(), goal(tc.goal))
			s.journal = journal.New(tc.entries, now, false)
			s.incident.Status.Recovery = &v1alpha1.RecoveryStatus{Relapses: tc.relapses}
			if got := s.letGoing(v1alpha1.ActionReleasePod, pod, relapsing); got != tc.want {
				t.Errorf("letGoing() = %t", got)
			}
		})
	}
}

// What a relapse holds, and what clearing it releases, is what came back, and not the evidence of what was compromised before.
func TestNoteRelapsed(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"pod-template-hash": "x"}}
	revision := func(id string) v1alpha1.RevisionStatus {
		return v1alpha1.RevisionStatus{ID: id, Workload: relapsing, Selector: selector, State: v1alpha1.RevisionReleased}
	}
	s := contained()
	rec := &v1alpha1.RecoveryStatus{Relapses: []v1alpha1.Relapse{{Workload: relapsing, Step: "out"}}}
	s.incident.Status.Revisions, s.incident.Status.Recovery = []v1alpha1.RevisionStatus{revision("compromised")}, rec
	s.next.Revisions, s.next.Recovery = []v1alpha1.RevisionStatus{revision("compromised"), revision("recovered")}, rec.DeepCopy()
	s.next.Pods = []v1alpha1.PodStatus{
		{UID: "a", Revision: "compromised", Handling: v1alpha1.HandlingDetached}, {UID: "b", Revision: "recovered", Handling: v1alpha1.HandlingReleased},
	}
	for _, r := range s.next.Revisions {
		s.noteRelapsed(r)
	}
	if got := s.next.Recovery.Relapses[0].Revisions; len(got) != 1 || got[0] != "recovered" {
		t.Errorf("the relapse is about the revisions %v", got)
	}
	if s.next.Revisions[0].State != v1alpha1.RevisionReleased || s.next.Revisions[1].State != v1alpha1.RevisionHeld {
		t.Errorf("the revisions are %s and %s", s.next.Revisions[0].State, s.next.Revisions[1].State)
	}
	if s.next.Pods[0].Handling != v1alpha1.HandlingDetached || s.next.Pods[1].Handling != v1alpha1.HandlingPending {
		t.Errorf("the pods are %s and %s", s.next.Pods[0].Handling, s.next.Pods[1].Handling)
	}
}

// Cleared relapses make room; what is said fits into status.
func TestRelapsesAreBounded(t *testing.T) {
	s := contained()
	s.next.Recovery = &v1alpha1.RecoveryStatus{}
	for i := range maxRelapses {
		r := v1alpha1.Relapse{Workload: relapsing, Step: "out"}
		if i == 3 {
			r.ClearedAt = now
		}
		s.next.Recovery.Relapses = append(s.next.Recovery.Relapses, r)
	}
	s.relapse(v1alpha1.Relapse{Workload: relapsing, Step: "last", Why: strings.Repeat("x", 5000)})
	got := s.next.Recovery.Relapses
	if last := got[len(got)-1]; len(got) != maxRelapses || last.Step != "last" || utf8.RuneCountInString(last.Why) > 1024 {
		t.Errorf("%d relapses; the last is of step %s and says %d bytes", len(got), last.Step, len(last.Why))
	}
}
