package incident

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/store"
)

var denyRef = v1alpha1.ObjectRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "cofferdam-deny"}

// protecting is a pass that reads the Incident from a server that may fail to take its status.
func protecting(t *testing.T, before []v1alpha1.JournalEntry, status func(calls int) error) *scope {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := contained()
	s.incident.Status.Journal = before
	calls := 0
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(s.incident).WithStatusSubresource(s.incident).WithInterceptorFuncs(interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			calls++
			if err := status(calls); err != nil {
				return err
			}
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	}).Build()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(s.incident), s.incident); err != nil {
		t.Fatal(err)
	}
	s.next = s.incident.Status.DeepCopy()
	s.Reconciler = &Reconciler{Client: c, Live: c, Clock: clockOf(now), Books: NewBooks(nil, nil, nil, nil)}
	s.journal = journal.New(s.incident.Status.Journal, now, false)
	return s
}

// What holds the quarantine is repaired at once: its intent is in status by then, or remembered for the ledger when status cannot take it.
func TestProtect(t *testing.T) {
	fine := func(int) error { return nil }
	entry := func(number int64, state v1alpha1.JournalState) v1alpha1.JournalEntry {
		return v1alpha1.JournalEntry{Number: number, Action: v1alpha1.ActionRepairMeasure, Object: denyRef, State: state, IntendedAt: now, Detail: "put back"}
	}
	full := make([]v1alpha1.JournalEntry, v1alpha1.MaxJournal)
	for i := range full {
		full[i] = entry(int64(i+1), v1alpha1.JournalIntended)
		full[i].Object.Name = strconv.Itoa(i)
	}
	type outcome struct {
		Durable    []int64 // the numbers of the entries about the object that are in status
		Remembered string
	}
	cases := map[string]struct {
		before []v1alpha1.JournalEntry
		status func(int) error
		want   outcome
	}{
		"for the first time":              {status: fine, want: outcome{Durable: []int64{1}}},
		"intended by a pass that died":    {before: []v1alpha1.JournalEntry{entry(1, v1alpha1.JournalIntended)}, status: fine, want: outcome{Durable: []int64{1}}},
		"once more":                       {before: []v1alpha1.JournalEntry{entry(1, v1alpha1.JournalDone)}, status: fine, want: outcome{Durable: []int64{1, 2}}},
		"status cannot be written":        {status: func(int) error { return errors.New("away") }, want: outcome{Remembered: "put back (not in the journal of status: status could not be written: away)"}},
		"there is no room in the journal": {before: full, status: fine, want: outcome{Remembered: "put back (not in the journal of status: the journal is full)"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := protecting(t, tc.before, tc.status)
			for range 2 { // the second time there is nothing left to be written
				s.protect(t.Context(), v1alpha1.ActionRepairMeasure, denyRef, "put back")
				if tc.want.Remembered != "" {
					break
				}
			}
			if diff := cmp.Diff(tc.want, outcome{durable(t, s), strings.Join(details(s.acts), ", ")}); diff != "" {
				t.Errorf("protect() (-want +got):\n%s", diff)
			}
		})
	}
}

func details(facts []custody.Fact) []string {
	var out []string
	for _, f := range facts {
		if f.Phase == custody.PhaseIntent {
			out = append(out, f.Detail)
		}
	}
	return out
}

// durable are the numbers of the entries about the deny policy, as the API server has them.
func durable(t *testing.T, s *scope) []int64 {
	t.Helper()
	var inc v1alpha1.Incident
	if err := s.Live.Get(t.Context(), client.ObjectKeyFromObject(s.incident), &inc); err != nil {
		t.Fatal(err)
	}
	var out []int64
	for _, e := range inc.Status.Journal {
		if e.Object == denyRef {
			out = append(out, e.Number)
		}
	}
	return out
}

// Whoever has changed the Incident meanwhile keeps nothing from being repaired with an intent before it; the pass itself can write nothing any more.
func TestProtectOfAStalePass(t *testing.T) {
	s := protecting(t, nil, func(int) error { return nil })
	var other v1alpha1.Incident
	if err := s.Live.Get(t.Context(), client.ObjectKeyFromObject(s.incident), &other); err != nil {
		t.Fatal(err)
	}
	other.Status.Journal = []v1alpha1.JournalEntry{{Number: 1, Action: v1alpha1.ActionDeletePod, Object: v1alpha1.ObjectRef{Kind: "Pod", Name: "web-1"}, State: v1alpha1.JournalIntended}}
	if err := s.Client.Status().Update(t.Context(), &other); err != nil {
		t.Fatal(err)
	}
	s.protect(t.Context(), v1alpha1.ActionRepairMeasure, denyRef, "put back")
	if diff := cmp.Diff([]int64{2}, durable(t, s)); diff != "" || len(s.acts) != 0 {
		t.Errorf("entries (-want +got), %d remembered:\n%s", len(s.acts), diff)
	}
	if s.incident.ResourceVersion != "" && s.incident.ResourceVersion == other.ResourceVersion {
		t.Error("the pass takes itself for current")
	}
	if !s.journal.IntendAnew(v1alpha1.ActionRepairMeasure, denyRef, "") {
		t.Error("the intent does not count as durable")
	}
}

// A pass that reads an intent of which a later one has noted the outcome already does not take it for its own.
func TestProtectAfterAnOutcomeThatWasNotRead(t *testing.T) {
	open := v1alpha1.JournalEntry{Number: 1, Action: v1alpha1.ActionRepairMeasure, Object: denyRef, State: v1alpha1.JournalIntended, IntendedAt: now}
	s := protecting(t, []v1alpha1.JournalEntry{open}, func(int) error { return nil })
	later := s.incident.DeepCopy()
	later.Status.Journal[0].State = v1alpha1.JournalDone
	if err := s.Client.Status().Update(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	s.protect(t.Context(), v1alpha1.ActionRepairMeasure, denyRef, "put back")
	if diff := cmp.Diff([]int64{1, 2}, durable(t, s)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// ledgerKey is a key of its own.
func ledgerKey(t *testing.T) custody.Signer {
	t.Helper()
	key, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ledgerWith is a ledger, in memory, that has the facts.
func ledgerWith(t *testing.T, facts []custody.Fact) *custody.Ledger {
	t.Helper()
	st, err := store.Open(t.Context(), "mem://"+rand.String(10), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := custody.Open(t.Context(), st, "inc-uid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Append(t.Context(), ledgerKey(t), facts, now.Time); err != nil {
		t.Fatal(err)
	}
	return ledger
}

// The oldest entries that are finished leave the journal once the signed ledger has them, unless something still looks them up; and the ledger is not told of anything again.
func TestLeaveOutEntries(t *testing.T) {
	const spare = 10
	many := func() []v1alpha1.JournalEntry {
		out := make([]v1alpha1.JournalEntry, v1alpha1.MaxJournal-journal.Room+spare)
		for i := range out {
			out[i] = v1alpha1.JournalEntry{Number: int64(i + 1), Action: v1alpha1.ActionRepairMeasure, Object: denyRef, State: v1alpha1.JournalDone, IntendedAt: now, DoneAt: now}
		}
		return out
	}
	about := func(action v1alpha1.Action, uid string) func([]v1alpha1.JournalEntry) {
		return func(entries []v1alpha1.JournalEntry) {
			entries[0].Action, entries[0].Object = action, v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web", UID: uid}
		}
	}
	gone := func(s *scope) { s.next.Pods[0].Verdict = v1alpha1.VerdictGone }
	cases := map[string]struct {
		entries func([]v1alpha1.JournalEntry)
		change  func(*scope)
		want    int64
		oldest  int64
	}{
		"in the signed ledger":           {want: spare, oldest: spare + 1},
		"counted on":                     {change: func(s *scope) { s.next.JournalOmitted = 5 }, want: spare + 5, oldest: spare + 1},
		"a head that is not signed":      {change: func(s *scope) { s.Books.of(s.owner(), s.incident.UID).head.Entries-- }, oldest: 1},
		"a ledger that was not read yet": {change: func(s *scope) { s.Books.of(s.owner(), s.incident.UID).ledger = nil }, oldest: 1},
		"not in the ledger": {change: func(s *scope) {
			k := s.Books.of(s.owner(), s.incident.UID)
			k.ledger, k.head = ledgerWith(t, nil), &v1alpha1.CustodyStatus{}
		}, oldest: 1},
		"the release of a pod that is there":  {entries: about(v1alpha1.ActionReleasePod, "here"), want: spare, oldest: 1},
		"the release of a pod that is gone":   {entries: about(v1alpha1.ActionReleasePod, "here"), change: gone, want: spare, oldest: spare + 1},
		"the release of a pod long forgotten": {entries: about(v1alpha1.ActionReleasePod, "forgotten"), want: spare, oldest: spare + 1},
		"what has to be taken back":           {entries: about(v1alpha1.ActionCarveOutPolicy, "x"), want: spare, oldest: 1},
		"one that is open":                    {entries: func(e []v1alpha1.JournalEntry) { e[0].State = v1alpha1.JournalIntended }, want: spare, oldest: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := contained(v1alpha1.PodStatus{UID: "here"})
			entries := many()
			if tc.entries != nil {
				tc.entries(entries)
			}
			s.incident.Status.Journal = entries
			s.journal = journal.New(entries, now, false)
			s.Reconciler = &Reconciler{Books: NewBooks(nil, nil, nil, nil), Clock: clockOf(now)}
			all := facts(s.incident, now.Time)
			k := s.Books.of(s.owner(), s.incident.UID)
			k.ledger = ledgerWith(t, all)
			k.head = &v1alpha1.CustodyStatus{Entries: k.ledger.Seq()}
			if tc.change != nil {
				tc.change(s)
			}
			s.leaveOutEntries()
			if left := s.journal.Entries(); s.next.JournalOmitted != tc.want || left[0].Number != tc.oldest {
				t.Errorf("%d are left out, the oldest one that is there is number %d; want %d and %d", s.next.JournalOmitted, left[0].Number, tc.want, tc.oldest)
			}
			s.incident.Status.Journal = s.journal.Entries()
			if told := ledgerWith(t, all); slices.ContainsFunc(facts(s.incident, now.Time), func(f custody.Fact) bool { return !told.Has(f.ID) }) {
				t.Error("something that the ledger has is told again")
			}
		})
	}
}

// fieldsOf is the entry of a field manager.
func TestNoteRecoveryTurn(t *testing.T) {
	was := func(states ...v1alpha1.RecoveryTurnState) []v1alpha1.RecoveryTurn {
		var out []v1alpha1.RecoveryTurn
		for i, st := range states {
			out = append(out, v1alpha1.RecoveryTurn{At: now, Generation: int64(i + 1), State: st})
		}
		return out
	}
	paused := func(s *scope) {
		s.incident.Spec.Recovery = v1alpha1.RecoveryControl{Paused: new(true), Author: "carol", Reason: "wait for the vendor"}
	}
	seen := v1alpha1.RecoveryTurn{At: now, Generation: 3, State: v1alpha1.RecoveryPaused, Reason: "wait for the vendor", Author: "carol"}
	full := was(slices.Repeat([]v1alpha1.RecoveryTurnState{v1alpha1.RecoveryPaused, v1alpha1.RecoveryResumed}, v1alpha1.MaxRecoveryTurns/2)...)
	cases := map[string]struct {
		before []v1alpha1.RecoveryTurn
		change func(*scope)
		want   []v1alpha1.RecoveryTurn
	}{
		"never paused":        {change: func(*scope) {}},
		"paused":              {change: paused, want: []v1alpha1.RecoveryTurn{seen}},
		"paused, as before":   {before: was(v1alpha1.RecoveryPaused), change: paused, want: was(v1alpha1.RecoveryPaused)},
		"let go on":           {before: was(v1alpha1.RecoveryPaused), change: func(*scope) {}, want: append(was(v1alpha1.RecoveryPaused), v1alpha1.RecoveryTurn{At: now, Generation: 3, State: v1alpha1.RecoveryResumed})},
		"paused once more":    {before: was(v1alpha1.RecoveryPaused, v1alpha1.RecoveryResumed), change: paused, want: append(was(v1alpha1.RecoveryPaused, v1alpha1.RecoveryResumed), seen)},
		"a dry run":           {change: func(s *scope) { paused(s); dryRun(s) }},
		"nothing is held yet": {change: func(s *scope) { paused(s); nothingHeld(s) }},
		"full, and the ledger has the oldest one": {before: full, change: func(s *scope) {
			paused(s)
			k := s.Books.of(s.owner(), s.incident.UID)
			k.ledger = ledgerWith(t, []custody.Fact{turnOfRecovery(s.incident, full[0])})
			k.head = &v1alpha1.CustodyStatus{Entries: k.ledger.Seq()}
		}, want: append(slices.Clone(full[1:]), seen)},
		"full, and the ledger does not have it": {before: full, change: paused, want: full},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := contained()
			s.Reconciler = &Reconciler{Books: NewBooks(nil, nil, nil, nil)}
			s.next.RecoveryTurns = slices.Clone(tc.before)
			tc.change(s)
			for range 2 {
				s.noteRecoveryTurn()
			}
			if diff := cmp.Diff(tc.want, s.next.RecoveryTurns); diff != "" {
				t.Errorf("turns (-want +got):\n%s", diff)
			}
		})
	}
}
