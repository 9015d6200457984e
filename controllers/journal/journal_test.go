package journal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var (
	earlier = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	later   = metav1.NewTime(earlier.Add(time.Minute))
	pod     = v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-1", UID: "u1"}
)

func intended(ref v1alpha1.ObjectRef) v1alpha1.JournalEntry {
	return v1alpha1.JournalEntry{Action: v1alpha1.ActionQuarantinePod, Object: ref, State: v1alpha1.JournalIntended, IntendedAt: earlier, Detail: "first"}
}

func TestIntend(t *testing.T) {
	namesake := pod
	namesake.UID = "u2"
	elsewhere := pod
	elsewhere.Namespace = "other"
	second := v1alpha1.JournalEntry{Action: v1alpha1.ActionQuarantinePod, State: v1alpha1.JournalIntended, IntendedAt: later, Detail: "second"}
	of := func(action v1alpha1.Action, ref v1alpha1.ObjectRef) v1alpha1.JournalEntry {
		e := second
		e.Action, e.Object = action, ref
		return e
	}

	cases := map[string]struct {
		persisted []v1alpha1.JournalEntry
		rehearse  bool
		action    v1alpha1.Action
		ref       v1alpha1.ObjectRef
		want      bool
		entries   []v1alpha1.JournalEntry
	}{
		"not durable in the pass that intends it": {
			action: v1alpha1.ActionQuarantinePod, ref: pod,
			entries: []v1alpha1.JournalEntry{of(v1alpha1.ActionQuarantinePod, pod)},
		},
		"durable once it was persisted, and not recorded twice": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: pod, want: true,
			entries: []v1alpha1.JournalEntry{intended(pod)},
		},
		"a namesake is another object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: namesake,
			entries: []v1alpha1.JournalEntry{intended(pod), of(v1alpha1.ActionQuarantinePod, namesake)},
		},
		"the same name in another namespace is another object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: elsewhere,
			entries: []v1alpha1.JournalEntry{intended(pod), of(v1alpha1.ActionQuarantinePod, elsewhere)},
		},
		"another action on the same object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionDeletePod, ref: pod,
			entries: []v1alpha1.JournalEntry{intended(pod), of(v1alpha1.ActionDeletePod, pod)},
		},
		"a rehearsal may always go on and records nothing": {
			rehearse: true, action: v1alpha1.ActionDeletePod, ref: pod, want: true,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			j := New(tc.persisted, later, tc.rehearse)
			for range 2 { // asking again in the same pass makes nothing durable
				if got := j.Intend(tc.action, tc.ref, "second"); got != tc.want {
					t.Errorf("Intend() = %v, want %v", got, tc.want)
				}
			}
			if diff := cmp.Diff(tc.entries, j.Entries()); diff != "" {
				t.Errorf("Entries() (-want +got):\n%s", diff)
			}
			if got, want := j.Intended(tc.action, tc.ref), !tc.rehearse; got != want {
				t.Errorf("Intended() = %v, want %v", got, want)
			}
		})
	}
}

func TestDone(t *testing.T) {
	finished := intended(pod)
	finished.State, finished.DoneAt = v1alpha1.JournalDone, earlier
	now := intended(pod)
	now.State, now.DoneAt = v1alpha1.JournalDone, later

	cases := map[string]struct {
		persisted []v1alpha1.JournalEntry
		action    v1alpha1.Action
		want      []v1alpha1.JournalEntry
	}{
		"what was intended is done now":       {persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, want: []v1alpha1.JournalEntry{now}},
		"what was done before keeps its time": {persisted: []v1alpha1.JournalEntry{finished}, action: v1alpha1.ActionQuarantinePod, want: []v1alpha1.JournalEntry{finished}},
		"what was never intended is not done": {persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionDeletePod, want: []v1alpha1.JournalEntry{intended(pod)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			j := New(tc.persisted, later, false)
			j.Done(tc.action, pod)
			if diff := cmp.Diff(tc.want, j.Entries()); diff != "" {
				t.Errorf("Entries() (-want +got):\n%s", diff)
			}
		})
	}
}

// The persisted status is compared with the new one at the end of a pass, so that the journal must not write into it.
func TestThePersistedEntriesStayAsTheyWere(t *testing.T) {
	persisted := append(make([]v1alpha1.JournalEntry, 0, 8), intended(pod))
	j := New(persisted, later, false)
	j.Done(v1alpha1.ActionQuarantinePod, pod)
	j.Intend(v1alpha1.ActionDeletePod, pod, "more")
	if diff := cmp.Diff([]v1alpha1.JournalEntry{intended(pod), {}}, persisted[:2]); diff != "" {
		t.Errorf("persisted entries (-want +got):\n%s", diff)
	}
}

func TestForget(t *testing.T) {
	now := metav1.Now()
	ref := func(uid string) v1alpha1.ObjectRef { return v1alpha1.ObjectRef{Kind: "Pod", Name: uid, UID: uid} }
	j := New(nil, now, false)
	for _, uid := range []string{"a", "b", "c"} {
		j.Intend(v1alpha1.ActionQuarantinePod, ref(uid), "")
	}
	j.Forget(map[string]bool{"a": true})
	j.Done(v1alpha1.ActionQuarantinePod, ref("c"))
	j.Done(v1alpha1.ActionQuarantinePod, ref("a"))
	got := map[string]v1alpha1.JournalState{}
	for _, e := range j.Entries() {
		got[e.Object.UID] = e.State
	}
	want := map[string]v1alpha1.JournalState{"b": v1alpha1.JournalIntended, "c": v1alpha1.JournalDone}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries mismatch (-want +got):\n%s", diff)
	}
}
