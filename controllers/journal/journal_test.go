package journal

import (
	"slices"
	"strconv"
	"strings"
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
	of := func(number int64, action v1alpha1.Action, ref v1alpha1.ObjectRef) v1alpha1.JournalEntry {
		e := second
		e.Number, e.Action, e.Object = number, action, ref
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
			entries: []v1alpha1.JournalEntry{of(1, v1alpha1.ActionQuarantinePod, pod)},
		},
		"durable once it was persisted, and not recorded twice": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: pod, want: true,
			entries: []v1alpha1.JournalEntry{intended(pod)},
		},
		"a namesake is another object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: namesake,
			entries: []v1alpha1.JournalEntry{intended(pod), of(2, v1alpha1.ActionQuarantinePod, namesake)},
		},
		"the same name in another namespace is another object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionQuarantinePod, ref: elsewhere,
			entries: []v1alpha1.JournalEntry{intended(pod), of(2, v1alpha1.ActionQuarantinePod, elsewhere)},
		},
		"another action on the same object": {
			persisted: []v1alpha1.JournalEntry{intended(pod)}, action: v1alpha1.ActionDeletePod, ref: pod,
			entries: []v1alpha1.JournalEntry{intended(pod), of(2, v1alpha1.ActionDeletePod, pod)},
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

func doneEntry(ref v1alpha1.ObjectRef) v1alpha1.JournalEntry {
	e := intended(ref)
	e.State, e.DoneAt = v1alpha1.JournalDone, earlier
	return e
}

// What is needed again has an intent of its own each time, and waits for it each time.
func TestIntendAnew(t *testing.T) {
	again := v1alpha1.JournalEntry{
		Number: 2, Action: v1alpha1.ActionQuarantinePod, Object: pod, State: v1alpha1.JournalIntended, IntendedAt: later, Detail: "second",
	}
	first := again
	first.Number = 1
	cases := map[string]struct {
		persisted []v1alpha1.JournalEntry
		want      bool
		entries   []v1alpha1.JournalEntry
	}{
		"never before":               {entries: []v1alpha1.JournalEntry{first}},
		"intended, and not done yet": {persisted: []v1alpha1.JournalEntry{intended(pod)}, want: true, entries: []v1alpha1.JournalEntry{intended(pod)}},
		"done before":                {persisted: []v1alpha1.JournalEntry{doneEntry(pod)}, entries: []v1alpha1.JournalEntry{doneEntry(pod), again}},
		"intended again": {
			persisted: []v1alpha1.JournalEntry{doneEntry(pod), again}, want: true, entries: []v1alpha1.JournalEntry{doneEntry(pod), again},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			j := New(tc.persisted, later, false)
			for range 2 {
				if got := j.IntendAnew(v1alpha1.ActionQuarantinePod, pod, "second"); got != tc.want {
					t.Errorf("IntendAnew() = %v, want %v", got, tc.want)
				}
			}
			if diff := cmp.Diff(tc.entries, j.Entries()); diff != "" {
				t.Errorf("Entries() (-want +got):\n%s", diff)
			}
			j.Persisted(v1alpha1.ActionQuarantinePod, pod)
			if !j.IntendAnew(v1alpha1.ActionQuarantinePod, pod, "second") {
				t.Error("an intent that was persisted is not durable")
			}
			j.Done(v1alpha1.ActionQuarantinePod, pod)
			if last, _ := j.Last(v1alpha1.ActionQuarantinePod, pod); last.State != v1alpha1.JournalDone || len(j.Open(v1alpha1.ActionQuarantinePod)) != 0 {
				t.Errorf("last = %+v, want it done", last)
			}
		})
	}
	if j := New(nil, later, true); !j.IntendAnew(v1alpha1.ActionQuarantinePod, pod, "") || len(j.Entries()) > 0 {
		t.Error("a rehearsal waits, or records something")
	}
}

// entries are n entries, of which the given ones are open.
func entries(n int, open ...int) []v1alpha1.JournalEntry {
	out := make([]v1alpha1.JournalEntry, n)
	for i := range out {
		ref := pod
		ref.UID = strconv.Itoa(i)
		if out[i] = doneEntry(ref); slices.Contains(open, i) {
			out[i] = intended(ref)
		}
		out[i].Number = int64(i + 1)
	}
	return out
}

type leavingOut struct {
	persisted []v1alpha1.JournalEntry
	may       func(v1alpha1.JournalEntry) bool
	want      int64
	oldest    int64
}

func TestLeaveOut(t *testing.T) {
	const limit = v1alpha1.MaxJournal - Room
	all := func(v1alpha1.JournalEntry) bool { return true }
	long := entries(limit)
	for i := range long {
		long[i].Detail = strings.Repeat("x", 1024)
	}
	cases := map[string]leavingOut{
		"empty":                       {may: all},
		"as many as there may be":     {persisted: entries(limit), may: all, oldest: 1},
		"the oldest ones":             {persisted: entries(limit + 7), may: all, want: 7, oldest: 8},
		"full":                        {persisted: entries(v1alpha1.MaxJournal), may: all, want: Room, oldest: Room + 1},
		"none that is open":           {persisted: entries(limit+7, 0, 1, 2), may: all, want: 7, oldest: 1},
		"none that is still needed":   {persisted: entries(limit + 7), may: func(e v1alpha1.JournalEntry) bool { return e.Number > 3 }, want: 7, oldest: 1},
		"nothing is in the ledger":    {persisted: entries(limit + 7), may: func(v1alpha1.JournalEntry) bool { return false }, oldest: 1},
		"only the last one may go":    {persisted: entries(limit + 7), may: func(e v1alpha1.JournalEntry) bool { return e.Number == limit+7 }, oldest: 1},
		"few, but large all the same": {persisted: long, may: all, want: 1394, oldest: 1395},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { tc.check(t) })
	}
}

func (tc leavingOut) check(t *testing.T) {
	t.Helper()
	before := slices.Clone(tc.persisted)
	j := New(tc.persisted, later, false)
	if got := j.LeaveOut(tc.may); got != tc.want {
		t.Errorf("LeaveOut() = %d, want %d", got, tc.want)
	}
	if got := j.LeaveOut(tc.may); got != 0 {
		t.Errorf("LeaveOut() once more = %d, want 0", got)
	}
	if diff := cmp.Diff(before, tc.persisted); diff != "" {
		t.Errorf("the persisted entries have changed:\n%s", diff)
	}
	left := j.Entries()
	if len(left) != len(tc.persisted)-int(tc.want) {
		t.Fatalf("%d entries are left", len(left))
	}
	if len(left) == 0 {
		return
	}
	if left[0].Number != tc.oldest {
		t.Errorf("the oldest entry is number %d, want %d", left[0].Number, tc.oldest)
	}
	for _, e := range before {
		if e.State == v1alpha1.JournalIntended && !j.Intend(e.Action, e.Object, "") {
			t.Errorf("entry %d, which is open, was left out, or is not durable any more", e.Number)
		}
	}
	j.Intend(v1alpha1.ActionDeletePod, pod, "")
	if got, want := left[len(left)-1].Number+1, j.Entries()[len(left)].Number; got != want {
		t.Errorf("the next entry has number %d, want %d", got, want)
	}
}

// Nothing may run whose intent finds no room.
func TestFull(t *testing.T) {
	j := New(entries(v1alpha1.MaxJournal-1), later, false)
	if j.Full() || j.Refused() {
		t.Fatal("full too early")
	}
	other := pod
	other.UID = "other"
	j.Intend(v1alpha1.ActionDeletePod, pod, "")
	j.Intend(v1alpha1.ActionDeletePod, other, "")
	j.Persisted(v1alpha1.ActionDeletePod, other)
	if !j.Full() || !j.Refused() || len(j.Entries()) != v1alpha1.MaxJournal || j.Intend(v1alpha1.ActionDeletePod, other, "") {
		t.Errorf("full = %v, refused = %v, %d entries", j.Full(), j.Refused(), len(j.Entries()))
	}
	ref := pod
	ref.UID = "0"
	if j.IntendAnew(v1alpha1.ActionQuarantinePod, ref, "") {
		t.Error("what was done may run once more though its intent found no room")
	}
	if j.Intended(v1alpha1.ActionDeletePod, other) || !j.Intended(v1alpha1.ActionQuarantinePod, ref) {
		t.Error("what found no room counts as intended, or what is there does not")
	}
}

func TestAppend(t *testing.T) {
	e := intended(pod)
	numbered := func(n int64) v1alpha1.JournalEntry {
		out := e
		out.Number = n
		return out
	}
	cases := map[string]struct {
		before, want []v1alpha1.JournalEntry
		has          bool
	}{
		"to none":                   {want: []v1alpha1.JournalEntry{numbered(1)}, has: true},
		"one that is open":          {before: []v1alpha1.JournalEntry{numbered(4)}, want: []v1alpha1.JournalEntry{numbered(4)}, has: true},
		"one that is done":          {before: []v1alpha1.JournalEntry{doneEntry(pod)}, want: []v1alpha1.JournalEntry{doneEntry(pod), numbered(2)}, has: true},
		"to a journal that is full": {before: entries(v1alpha1.MaxJournal), want: entries(v1alpha1.MaxJournal)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, has := Append(tc.before, e)
			if diff := cmp.Diff(tc.want, got); diff != "" || has != tc.has {
				t.Errorf("Append() has = %v (-want +got):\n%s", has, diff)
			}
		})
	}
}
