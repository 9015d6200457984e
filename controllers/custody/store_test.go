package custody_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/controllers/store/faulty"
)

const uid = "0f9a1c52-8f5e-4a62-9d0b-6f1c2f3e4d5a"

var start = time.Date(2026, 9, 14, 7, 31, 29, 0, time.UTC)

func openStore(t *testing.T, url string, plan ...faulty.Fault) (*store.Store, *faulty.Backend) {
	t.Helper()
	inner, err := store.OpenBackend(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bad := faulty.New(inner, plan...)
	s, err := store.New(bad, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, bad
}

func someFacts(prefix string, n int) []custody.Fact {
	out := make([]custody.Fact, n)
	for i := range out {
		out[i] = custody.Fact{ID: fmt.Sprint(prefix, i), At: start, Actor: custody.Actor{Kind: custody.ActorOperator}, Action: "Seen", Subject: custody.Subject{Kind: "Pod"}}
	}
	return out
}

// recorded are the IDs in the ledger, without those that the ledger has written itself.
func recorded(t *testing.T, s custody.Objects) []string {
	t.Helper()
	l, err := custody.Open(t.Context(), s, uid)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for e := range l.Entries() {
		if e.Action != custody.ActionVoid {
			out = append(out, e.ID)
		}
	}
	return out
}

// Several operators, each with a store of its own over one directory, write one chain.
func TestManyWritersOverADirectory(t *testing.T) {
	const writers, rounds = 6, 8
	url := "file://" + t.TempDir()
	key, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for w := range writers {
		s, _ := openStore(t, url)
		group.Go(func() {
			for r := range rounds {
				l, err := custody.Open(context.Background(), s, uid)
				if err == nil {
					_, err = l.Append(context.Background(), key, slices.Concat(someFacts(fmt.Sprintf("w%d-%d-", w, r), 1), someFacts(fmt.Sprintf("all-%d-", r), 2)), start)
				}
				if err == nil {
					_, err = l.Sign(context.Background(), key, start)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	s, _ := openStore(t, url)
	got := recorded(t, s)
	seen := map[string]bool{}
	for _, id := range got {
		seen[id] = true
	}
	if want := writers*rounds + 2*rounds; len(got) != want || len(seen) != want {
		t.Errorf("%d facts in %d entries, want %d", len(seen), len(got), want)
	}
}

// Whatever one operation of the store does, the operator's next passes record every fact exactly once, in order, and what is exported is genuine.
func TestEveryOperationOfTheStoreMayFail(t *testing.T) {
	// What the entries of one of the segments take, which its seal follows.
	var entries int64
	for _, fact := range someFacts("a", 3) {
		entries += int64(len(custody.AppendEntry(nil, &custody.Entry{Seq: 1, RecordedAt: start, Previous: "sha256:" + strings.Repeat("0", 64), Fact: fact}))) + 1
	}
	kinds := map[string]faulty.Fault{
		"fails":              {Kind: faulty.Fail},
		"answer lost":        {Kind: faulty.Lose},
		"nothing kept":       {Kind: faulty.Truncate},
		"cut off":            {Kind: faulty.Truncate, N: 700},
		"seal cut off":       {Kind: faulty.Truncate, N: entries + 100},
		"no seal":            {Kind: faulty.Truncate, N: entries},
		"torn":               {Kind: faulty.Tear, N: 700},
		"disk full":          {Kind: faulty.Full, N: 500},
		"read-only":          {Kind: faulty.ReadOnly},
		"denied":             {Kind: faulty.Denied},
		"wrong bit":          {Kind: faulty.Flip, N: 60},
		"wrong from then on": {Kind: faulty.Flip, N: 60, Onwards: true},
	}
	key, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	want := recordedOf(slices.Concat(someFacts("a", 3), someFacts("b", 3), someFacts("c", 3)))
	for name, fault := range kinds {
		t.Run(name, func(t *testing.T) {
			for nth := 1; nth <= 40; nth++ {
				s, bad := openStore(t, fmt.Sprintf("mem://x%x", sha256.Sum256([]byte(t.Name()+fmt.Sprint(nth)))))
				fault.Nth = nth
				bad.Plan(fault)
				comesRight(t, s, bad, key, nth)
				if diff := cmp.Diff(want, recorded(t, s)); diff != "" {
					t.Fatalf("operation %d (-want +got):\n%s", nth, diff)
				}
				exportsGenuine(t, s, key, nth)
			}
		})
	}
}

// comesRight makes passes until one goes well, and then ends the faults.
func comesRight(t *testing.T, s custody.Objects, bad *faulty.Backend, key custody.Signer, nth int) {
	t.Helper()
	for failures := 0; !pass(t, s, key); failures++ {
		if failures == 3 {
			bad.Plan() // what lasts has to be repaired by somebody
		}
		if failures == 6 {
			t.Fatalf("operation %d: the ledger does not come right again", nth)
		}
	}
	bad.Plan()
}

// exportsGenuine fails unless what is exported verifies by the key.
func exportsGenuine(t *testing.T, s custody.Objects, key custody.Signer, nth int) {
	t.Helper()
	var archive bytes.Buffer
	if _, err := custody.Export(t.Context(), s, custody.Incident{UID: uid}, &archive, custody.ExportOptions{Now: start}); err != nil {
		t.Fatalf("operation %d: %v", nth, err)
	}
	if _, err := custody.VerifyArchive(&archive, custody.VerifyOptions{KeyIDs: []string{custody.KeyID(key.PublicKey())}}); err != nil {
		t.Fatalf("operation %d: %v", nth, err)
	}
}

func recordedOf(facts []custody.Fact) (ids []string) {
	for i := range facts {
		ids = append(ids, facts[i].ID)
	}
	return ids
}

// pass is what an operator does in one pass: it opens the ledger, appends everything that there is to be told, and signs. It reports whether all of it went well.
func pass(t *testing.T, s custody.Objects, key custody.Signer) bool {
	l, err := custody.Open(t.Context(), s, uid)
	if err != nil {
		return false
	}
	var all []custody.Fact
	for _, prefix := range []string{"a", "b", "c"} {
		all = append(all, someFacts(prefix, 3)...)
		if _, err := l.Append(t.Context(), key, all, start); err != nil {
			if errors.Is(err, custody.ErrContended) {
				t.Error(err)
			}
			return false
		}
	}
	_, err = l.Sign(t.Context(), key, start)
	return err == nil
}
