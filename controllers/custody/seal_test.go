package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pinned is an entry as status has it.
func pinned(l *Ledger) *Pin { return &Pin{Seq: l.Seq(), Digest: l.Digest()} }

// openTrusting opens a ledger as the operator does.
func openTrusting(t testing.TB, m Objects, known *Pin, keys ...Signer) (*Ledger, error) {
	t.Helper()
	var ids []string
	for _, key := range keys {
		ids = append(ids, KeyID(key.PublicKey()))
	}
	return Open(t.Context(), m, uid, TrustOnly(ids, known))
}

// forged are lines that continue a ledger rightly, as anybody can write them who reads it.
func forged(l *Ledger, ids ...string) (lines [][]byte) {
	seq, previous := l.Seq(), l.Digest()
	for _, id := range ids {
		seq++
		line := AppendEntry(nil, &Entry{Seq: seq, RecordedAt: start, Previous: previous, Fact: fact(id)})
		previous = digest(line)
		lines = append(lines, append(line, '\n'))
	}
	return lines
}

// writtenByAStranger is what somebody writes into the store who has no key of the operator's, after entries 1 to 3.
type writtenByAStranger struct {
	write func(t *testing.T, m *memory, l *Ledger, own Signer)
	// void says that what was written does not count; otherwise it is damage.
	void bool
	want position
}

func strangers() map[string]writtenByAStranger {
	next := segmentKey(4, 0)
	return map[string]writtenByAStranger{
		"lines without a seal": {
			write: func(_ *testing.T, m *memory, l *Ledger, _ Signer) {
				m.objects[next] = slices.Concat(forged(l, "x1", "x2")...)
			},
			void: true,
		},
		"lines and the beginning of a seal": {
			write: func(t *testing.T, m *memory, l *Ledger, own Signer) {
				data := sealedBy(t, own, forged(l, "x1", "x2")...)
				m.objects[next] = data[:len(data)-1]
			},
			void: true,
		},
		"lines sealed by a key of his own": {
			write: func(t *testing.T, m *memory, l *Ledger, own Signer) {
				m.objects[next] = sealedBy(t, own, forged(l, "x1", "x2")...)
			},
			want: position{next, 3, 4, "the entries from 4 to 5 are signed by the key"},
		},
		"lines with the last seal of the operator": {
			write: func(_ *testing.T, m *memory, l *Ledger, _ Signer) {
				m.objects[next] = slices.Concat(append(forged(l, "x1", "x2"), m.sealOf(1))...)
			},
			want: position{next, 3, 5, "this is not the seal of entry 5: it is about entry 3"},
		},
		"lines with the key of the operator and a signature of his own": {
			write: func(t *testing.T, m *memory, l *Ledger, own Signer) {
				data := sealedBy(t, own, forged(l, "x1")...)
				seal, err := parseHead(data[bytes.LastIndex(data, []byte(`{"format"`)):], uid)
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := parseHead(m.sealOf(1), uid)
				if err != nil {
					t.Fatal(err)
				}
				seal.KeyID, seal.PublicKey = theirs.KeyID, theirs.PublicKey
				m.objects[next] = slices.Concat(append(forged(l, "x1"), seal.encode())...)
			},
			want: position{next, 2, 4, "this is not the seal of entry 4: its signature is not one of the key"},
		},
		"a head of lines without a seal": {
			write: func(t *testing.T, m *memory, l *Ledger, own Signer) {
				lines := forged(l, "x1", "x2")
				m.objects[next] = slices.Concat(lines...)
				head := sealedBy(t, own, lines...)
				m.objects[folder(uid)+headName(5)] = head[bytes.LastIndex(head, []byte(`{"format"`)):]
			},
			want: position{next, 3, 6, "before its seal: the ledger ends with entry 3, and it has had 5"},
		},
	}
}

// Whoever can write to the store, and has no key, adds nothing to the ledger: neither when the operator opens it, nor while the operator has it open. What he writes is void, and told of, or damage.
func TestWhatAStrangerWritesIsNotTakenForTheOperators(t *testing.T) {
	for name, tc := range strangers() {
		t.Run(name, func(t *testing.T) { tc.check(t) })
	}
}

func (tc writtenByAStranger) check(t *testing.T) {
	t.Helper()
	key, own, m := newKey(t), newKey(t), newMemory()
	l, err := openTrusting(t, m, nil, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), key, facts("a", 3), start); err != nil {
		t.Fatal(err)
	}
	sign(t, l, key)
	known := pinned(l)
	tc.write(t, m, l, own)

	_, err = l.Append(t.Context(), key, []Fact{fact("b")}, start)
	if l.Has("x1") || slices.Contains(ids(l), "x1") {
		t.Error("what the stranger has written is in the ledger of the operator that is running")
	}
	if !tc.void {
		if err == nil {
			t.Error("the operator has written on")
		}
		if _, err := l.Sign(t.Context(), key, start); err == nil {
			t.Error("the operator has signed")
		}
	} else if err != nil {
		t.Fatal(err)
	}

	again, err := openTrusting(t, m, known, key)
	if !tc.void {
		checkPosition(t, err, tc.want)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	sign(t, again, key)
	if diff := cmp.Diff([]string{"a1", "a2", "a3", "void/ledger/000000000004-00.jsonl", "b"}, ids(again)); diff != "" {
		t.Error(diff)
	}
}

type strangersHead struct {
	// known is how many entries status knows, and by how many the ledger has grown since.
	known, more int
	// running says that the operator has read the ledger before the head was there.
	running bool
}

// A head by another key is never returned, whether the entry is one that status knows or not.
func TestAStrangersHeadIsNotTakenForTheOperators(t *testing.T) {
	cases := map[string]strangersHead{
		"of an entry that status does not know":          {3, 2, false},
		"of an entry that nobody knows":                  {0, 3, false},
		"of the entry that status knows":                 {3, 0, false},
		"under the hands of the operator":                {3, 2, true},
		"under the hands of the operator, in the status": {3, 0, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { tc.check(t) })
	}
}

func (tc strangersHead) check(t *testing.T) {
	t.Helper()
	key, own, m := newKey(t), newKey(t), newMemory()
	l := open(t, m)
	var known *Pin
	for i, n := range []int{tc.known, tc.more} {
		if _, err := l.Append(t.Context(), key, facts([]string{"a", "b"}[i], n), start); err != nil {
			t.Fatal(err)
		}
		if i == 0 && n > 0 {
			known = pinned(l)
		}
	}
	plant := func() {
		h, err := l.newHead(t.Context(), own, l.Seq(), l.Digest(), start)
		if err != nil {
			t.Fatal(err)
		}
		m.objects[folder(uid)+headName(l.Seq())] = h.encode()
	}
	if !tc.running {
		plant()
	}
	fresh, err := openTrusting(t, m, known, key)
	if tc.running {
		plant()
	}
	if err == nil {
		var h Head
		if h, err = fresh.Sign(t.Context(), key, start); err == nil {
			t.Errorf("the head is %+v", h)
		}
	}
	if tc.running { // what was there when it was written is damage when it is read again
		if fresh, err = openTrusting(t, m, known, key); err == nil {
			_, err = fresh.Sign(t.Context(), key, start)
		}
	}
	checkPosition(t, err, position{folder(uid) + headName(l.Seq()), 0, l.Seq(), "this head is signed by the key " + KeyID(own.PublicKey()) + ", which is not the operator's"})
}

// What status vouches for may be signed by whomever, what follows may not.
func TestWhatIsKnownVouchesForWhatIsBefore(t *testing.T) {
	first, second, key, m := newKey(t), newKey(t), newKey(t), newMemory()
	l := open(t, m)
	for i, k := range []Signer{first, second} {
		if _, err := l.Append(t.Context(), k, facts([]string{"a", "b"}[i], 2), start); err != nil {
			t.Fatal(err)
		}
		sign(t, l, k)
	}
	known := pinned(l)
	if _, err := openTrusting(t, m, known, key); err != nil {
		t.Errorf("what status vouches for is refused: %v", err)
	}
	_, err := openTrusting(t, m, &Pin{Seq: 3, Digest: slices.Collect(l.Entries())[3].Previous}, key)
	checkPosition(t, err, position{segmentKey(3, 0), 3, 3, "the entries from 3 to 4 are signed by the key " + KeyID(second.PublicKey())})
	_, err = openTrusting(t, m, &Pin{Seq: 4, Digest: digest([]byte("x"))}, first, second, key)
	checkPosition(t, err, position{segmentKey(3, 0), 2, 4, "the ledger was written anew"})
}

// The Secret is replaced between two writes. What was written before counts, though status does not know it yet, because status knows the key.
func TestAChangeOfKeys(t *testing.T) {
	old, young, m := newKey(t), newKey(t), newMemory()
	add := func(l *Ledger, key Signer, id string) {
		t.Helper()
		if added, err := l.Append(t.Context(), key, []Fact{fact(id)}, start); added != 1 || err != nil {
			t.Fatalf("%d were added: %v", added, err)
		}
	}
	l, err := openTrusting(t, m, nil, old)
	if err != nil {
		t.Fatal(err)
	}
	add(l, old, "a")
	sign(t, l, old)
	known := pinned(l)
	add(l, old, "not in status")
	other, err := openTrusting(t, m, known, old) // a second operator
	if err != nil {
		t.Fatal(err)
	}

	next, err := openTrusting(t, m, known, young, old)
	if err != nil {
		t.Fatal(err)
	}
	add(next, young, "key")
	if h := sign(t, next, young); h.KeyID != KeyID(young.PublicKey()) {
		t.Errorf("the head is %+v", h)
	}
	// Operators that have the ledger open go on with the key that they are given.
	add(l, young, "b")
	add(other, young, "c")
	sign(t, l, young)
	if diff := cmp.Diff([]string{"a", "not in status", "key", "b", "c"}, ids(open(t, m))); diff != "" {
		t.Error(diff)
	}
	if _, err := openTrusting(t, m, pinned(next), young); err != nil {
		t.Errorf("once status has the new key, the old one is still needed: %v", err)
	}
	// An operator that has read the Secret before it was replaced does not take the new key for right, and says so only once it has looked again.
	late, err := openTrusting(t, m.copy(), known, old)
	wantDamage(t, err)
	if late != nil {
		t.Error("a ledger was returned")
	}
	_, err = other.Append(t.Context(), old, []Fact{fact("d")}, start)
	if err != nil {
		t.Errorf("an older key that was trusted is not any more: %v", err)
	}
}

// While the operator has the ledger open, another one with a key that it does not know yet writes. That is not called damage before the ledger was opened anew, with the keys that there are then.
func TestAnotherKeyInALostRace(t *testing.T) {
	old, young, m := newKey(t), newKey(t), newMemory()
	l, err := openTrusting(t, m, nil, old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, m).Append(t.Context(), young, []Fact{fact("a")}, start); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = l.Append(t.Context(), old, []Fact{fact("b")}, start)
		if _, damaged := errors.AsType[*DamageError](err); err == nil || damaged || !strings.Contains(err.Error(), "which is not the operator's") {
			t.Errorf("the error is: %v", err)
		}
	}
	if again, err := openTrusting(t, m, nil, young, old); err != nil || !again.Has("a") {
		t.Errorf("%v", err)
	}
}

// A ledger of a version that did not seal segments is refused, and nothing is written over or after it.
func TestALedgerWithoutSeals(t *testing.T) {
	cases := map[string]struct {
		segments []int64
		head     bool
		known    bool
		want     position
	}{
		"with a head":            {[]int64{1}, true, false, position{segmentKey(1, 0), 4, 4, "or it was written by a version that did not seal segments"}},
		"that status knows":      {[]int64{1}, false, true, position{segmentKey(1, 0), 4, 4, "or it was written by a version that did not seal segments"}},
		"with a second segment":  {[]int64{1, 4}, false, false, position{segmentKey(1, 0), 4, 4, "or it was written by a version that did not seal segments"}},
		"as it usually is there": {[]int64{1, 4}, true, true, position{segmentKey(1, 0), 4, 4, "or it was written by a version that did not seal segments"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m, last := newMemory(), 3*int64(len(tc.segments))
			full := two(t)
			l := open(t, full)
			for _, first := range tc.segments {
				m.objects[segmentKey(first, 0)] = slices.Concat(full.linesOf(first)...)
			}
			pin := &Pin{Seq: last, Digest: l.chain.digest(last)}
			if tc.head {
				h, err := l.newHead(t.Context(), operator, pin.Seq, pin.Digest, start)
				if err != nil {
					t.Fatal(err)
				}
				m.objects[folder(uid)+headName(last)] = h.encode()
			}
			if !tc.known {
				pin = nil
			}
			before := m.copy().objects
			_, err := openTrusting(t, m, pin, operator)
			checkPosition(t, err, tc.want)
			if diff := cmp.Diff(before, m.objects); diff != "" {
				t.Errorf("the store has changed:\n%s", diff)
			}
		})
	}
}

// The seal is for every reader: without the operator's keys it shows at least that the lines are as somebody has signed them, and by which key.
func TestSealsAreHeadsInAnArchive(t *testing.T) {
	key, own, m := newKey(t), newKey(t), newMemory()
	l := open(t, m)
	if _, err := l.Append(t.Context(), key, facts("a", 2), start); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), own, facts("x", 2), start.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	report, err := verify(exported(t, m), VerifyOptions{KeyIDs: []string{KeyID(key.PublicKey())}})
	checkPosition(t, err, position{headName(4), 0, 4, "the last head is signed by the key " + KeyID(own.PublicKey()) + ", which is not one that was given"})
	want := []HeadReport{{Seq: 2, Digest: l.chain.digest(2), At: start, KeyID: KeyID(key.PublicKey())}, {Seq: 4, Digest: l.Digest(), At: start.Add(time.Second), KeyID: KeyID(own.PublicKey())}}
	if diff := cmp.Diff(want, report.Heads); diff != "" {
		t.Error(diff)
	}
}

// counting counts what it signs.
type counting struct {
	*Key
	n int
}

func (c *counting) Sign(ctx context.Context, message []byte) ([]byte, error) {
	c.n++
	return c.Key.Sign(ctx, message)
}

// A signer may be slow: what it has signed as a seal is the head as well, unless another key has.
func TestAnAdditionIsSignedOnce(t *testing.T) {
	m, key := newMemory(), &counting{Key: newKey(t)}
	l := open(t, m)
	for i := range 3 {
		if _, err := l.Append(t.Context(), key, []Fact{fact(fmt.Sprint(i))}, start); err != nil {
			t.Fatal(err)
		}
		h, err := l.Sign(t.Context(), key, start.Add(time.Minute))
		if err != nil || h.Seq != int64(i+1) || !h.At.Equal(start) {
			t.Errorf("the head is %+v: %v", h, err)
		}
	}
	if added, err := l.Append(t.Context(), key, []Fact{fact("0")}, start); added != 0 || err != nil || key.n != 3 {
		t.Errorf("%d signatures for three additions; %d were added: %v", key.n, added, err)
	}
	add(t, l, fact("b"))
	if h, err := l.Sign(t.Context(), key, start.Add(time.Minute)); err != nil || key.n != 4 || h.KeyID != KeyID(key.PublicKey()) || !h.At.Equal(start.Add(time.Minute)) {
		t.Errorf("%d signatures; the head is %+v: %v", key.n, h, err)
	}
	if got := len(open(t, m).Heads()); got != 4 {
		t.Errorf("%d heads", got)
	}
}
