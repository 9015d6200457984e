package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAppendAndOpen(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	if l.Seq() != 0 || l.Digest() != genesis(uid) {
		t.Errorf("an empty ledger ends with entry %d, %s", l.Seq(), l.Digest())
	}
	add(t, l, facts("a", 3)...)
	added, err := l.Append(t.Context(), operator, []Fact{fact("a2"), fact("b"), fact("b"), fact("a1")}, start.Add(time.Hour))
	if added != 1 || err != nil {
		t.Errorf("of four facts, of which one is new, %d were added: %v", added, err)
	}
	again := open(t, m)
	if diff := cmp.Diff(slices.Collect(l.Entries()), slices.Collect(again.Entries())); diff != "" {
		t.Errorf("what was read is not what was written (-written +read):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a1", "a2", "a3", "b"}, ids(again)); diff != "" {
		t.Error(diff)
	}
	if again.Seq() != 4 || again.Digest() != l.Digest() || !again.Has("b") || again.Has("c") {
		t.Errorf("entry %d, %s", again.Seq(), again.Digest())
	}
	if got := slices.Collect(again.Entries())[3].RecordedAt; !got.Equal(start.Add(time.Hour)) {
		t.Errorf("recorded at %s", got)
	}
	keys, _ := m.Keys(t.Context(), "")
	if diff := cmp.Diff([]string{"incidents/" + uid + "/ledger/000000000001-00.jsonl", "incidents/" + uid + "/ledger/000000000004-00.jsonl"}, keys); diff != "" {
		t.Error(diff)
	}
}

func TestAFactWithoutATimeHasThatOfItsRecord(t *testing.T) {
	l := open(t, newMemory())
	f := fact("a")
	f.At = time.Time{}
	add(t, l, f)
	for e := range l.Entries() {
		if !e.At.Equal(start) {
			t.Errorf("it happened at %s", e.At)
		}
	}
}

func TestUIDsThatAreNoNamesOfFolders(t *testing.T) {
	for _, bad := range []string{"", "../x", "A", "a/b", "a b", strings.Repeat("a", 65)} {
		if _, err := Open(t.Context(), newMemory(), bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestALargeAppendIsSplit(t *testing.T) {
	m := newMemory()
	list := facts("a", 2500)
	for i := range list {
		list[i].Detail = strings.Repeat("x", 1000)
	}
	add(t, open(t, m), list...)
	for key, data := range m.objects {
		if len(data) > maxSegmentBytes+maxLine || bytes.Count(data, []byte("\n")) > maxSegmentEntries+1 { // one is the seal
			t.Errorf("%s has %d bytes", key, len(data))
		}
	}
	if got := open(t, m).Seq(); got != 2500 {
		t.Errorf("the ledger has %d entries", got)
	}
}

// two returns a store whose ledger has two segments, entries 1 to 3 and 4 to 6.
func two(t testing.TB) *memory {
	t.Helper()
	m := newMemory()
	l := open(t, m)
	add(t, l, facts("a", 3)...)
	add(t, l, facts("b", 3)...)
	return m
}

func segmentKey(first int64, attempt int) string { return folder(uid) + segmentName(first, attempt) }

// linesOf are the entries of a segment, with their newlines, and sealOf is what follows them.
func (m *memory) linesOf(first int64) [][]byte {
	lines := slices.Collect(bytes.Lines(bytes.Clone(m.objects[segmentKey(first, 0)])))
	return slices.DeleteFunc(lines, isSeal)
}

func (m *memory) sealOf(first int64) []byte {
	return m.objects[segmentKey(first, 0)][len(slices.Concat(m.linesOf(first)...)):]
}

// setLines changes the entries of a segment and leaves its seal, and setAll changes both.
func (m *memory) setLines(first int64, lines ...[]byte) {
	m.setAll(first, append(lines, m.sealOf(first))...)
}

func (m *memory) setAll(first int64, lines ...[]byte) {
	var out []byte
	for _, line := range lines {
		out = append(append(out, bytes.TrimSuffix(line, []byte("\n"))...), '\n')
	}
	m.objects[segmentKey(first, 0)] = out
}

// sealedBy are lines with a seal by the key, as somebody makes one who knows the format. Only the last line matters.
func sealedBy(t testing.TB, key Signer, lines ...[]byte) []byte {
	t.Helper()
	out := slices.Concat(lines...)
	last := bytes.TrimSuffix(lines[len(lines)-1], []byte("\n"))
	e, err := parseEntry(last)
	if err != nil {
		t.Fatal(err)
	}
	l := &Ledger{incident: uid}
	h, err := l.newHead(t.Context(), key, e.Seq, digest(last), start)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, h.encode()...)
}

// forge changes an entry as somebody does who knows the format.
func forge(t testing.TB, line []byte, change func(*Entry)) []byte {
	t.Helper()
	e, err := parseEntry(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		t.Fatal(err)
	}
	change(&e)
	return AppendEntry(nil, &e)
}

// position is what a *DamageError says of where.
type position struct {
	object string
	line   int
	seq    int64
	text   string
}

func checkPosition(t *testing.T, err error, want position) {
	t.Helper()
	damage := damageOf(t, err)
	got := position{object: damage.Object, line: damage.Line, seq: damage.Seq, text: want.text}
	if !strings.Contains(damage.Problem, want.text) {
		got.text = damage.Problem
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(position{})); diff != "" {
		t.Errorf("position (-want +got):\n%s\nthe error is: %v", diff, err)
	}
}

// damageCase is one way to damage the ledger of two.
type damageCase struct {
	damage func(t *testing.T, m *memory)
	want   position
}

func damageCases(key Signer) map[string]damageCase {
	first, second := segmentKey(1, 0), segmentKey(4, 0)
	return map[string]damageCase{
		"TruncatedInTheMiddle": {
			damage: func(_ *testing.T, m *memory) {
				lines := m.linesOf(1)
				m.objects[first] = bytes.TrimSuffix(slices.Concat(lines...), lines[2][len(lines[2])-20:])
			},
			want: position{first, 3, 3, "it ends within entry 3"},
		},
		"TruncatedInTheSeal": {
			damage: func(_ *testing.T, m *memory) { m.objects[first] = m.objects[first][:len(m.objects[first])-20] },
			want:   position{first, 4, 4, "it ends within entry 4 or its seal"},
		},
		"TruncatedAtALine": {
			damage: func(_ *testing.T, m *memory) { m.setAll(1, m.linesOf(1)[:2]...) },
			want:   position{first, 3, 3, "this segment was cut off, so that nothing in it counts"},
		},
		"TruncatedAtTheEndBelowAHead": {
			damage: func(_ *testing.T, m *memory) { m.setAll(4, m.linesOf(4)[:2]...) },
			want:   position{second, 3, 6, "the ledger ends with entry 3, and it has had 6: its end was removed"},
		},
		"LastEntryOfASegmentRemoved": {
			damage: func(_ *testing.T, m *memory) { m.setLines(1, m.linesOf(1)[:2]...) },
			want:   position{first, 3, 2, "this is not the seal of entry 2: it is about entry 3"},
		},
		"SealRemoved": {
			damage: func(_ *testing.T, m *memory) { m.setAll(1, m.linesOf(1)...) },
			want:   position{first, 4, 4, "it ends after entry 3, before its seal"},
		},
		"SealRemovedAtTheEnd": {
			damage: func(_ *testing.T, m *memory) { m.setAll(4, m.linesOf(4)...) },
			want:   position{second, 4, 7, "it ends after entry 6, before its seal: the ledger ends with entry 3, and it has had 6"},
		},
		"SealChanged": {
			damage: func(_ *testing.T, m *memory) {
				m.objects[first] = bytes.Replace(m.objects[first], []byte(`"at":"2026-09-14T07:31:29Z","keyID"`), []byte(`"at":"2026-09-14T07:31:30Z","keyID"`), 1)
			},
			want: position{first, 4, 3, "this is not the seal of entry 3: its signature is not one of the key"},
		},
		"SealOfAnotherSegment": {
			damage: func(_ *testing.T, m *memory) { m.setAll(1, append(m.linesOf(1), m.sealOf(4))...) },
			want:   position{first, 4, 3, "this is not the seal of entry 3: it is about entry 6"},
		},
		"SealOfAnotherIncident": {
			damage: func(t *testing.T, m *memory) {
				l := &Ledger{incident: "another"}
				h, err := l.newHead(t.Context(), operator, 3, digest(bytes.TrimSuffix(m.linesOf(1)[2], []byte("\n"))), start)
				if err != nil {
					t.Fatal(err)
				}
				m.setAll(1, append(m.linesOf(1), h.encode())...)
			},
			want: position{first, 4, 3, `it is of the Incident with the UID "another"`},
		},
		"SealWithATimeStamp": {
			damage: func(t *testing.T, m *memory) {
				h, err := parseHead(m.sealOf(1), uid)
				if err != nil {
					t.Fatal(err)
				}
				h.Timestamp = "AAAA"
				m.setAll(1, append(m.linesOf(1), h.encode())...)
			},
			want: position{first, 4, 3, "it has a time stamp"},
		},
		"NothingButASeal": {
			damage: func(_ *testing.T, m *memory) { m.objects[segmentKey(7, 0)] = m.sealOf(4) },
			want:   position{segmentKey(7, 0), 1, 7, "this line is not entry 7"},
		},
		"SomethingAfterTheSeal": {
			damage: func(_ *testing.T, m *memory) { m.objects[second] = append(m.objects[second], 'x') },
			want:   position{second, 4, 7, "this line is not entry 7"},
		},
		"SegmentRemoved": {
			damage: func(_ *testing.T, m *memory) { delete(m.objects, first) },
			want:   position{second, 1, 1, "entry 1 is missing"},
		},
		"EditedByHand": {
			damage: func(_ *testing.T, m *memory) {
				m.objects[first] = bytes.Replace(m.objects[first], []byte("web-a2"), []byte("web-x2"), 1)
			},
			want: position{first, 2, 2, "the line was changed"},
		},
		"EditedWithCare": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(1)
				lines[1] = forge(t, lines[1], func(e *Entry) { e.Subject.Name = "web-x2" })
				m.setLines(1, lines...)
			},
			want: position{first, 2, 2, "entry 2 is not the one that entry 3 was written after"},
		},
		"EditedWithCareAtTheEndOfASegment": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(1)
				lines[2] = forge(t, lines[2], func(e *Entry) { e.Subject.Name = "web-x3" })
				m.setLines(1, lines...)
			},
			want: position{first, 4, 3, "this seal does not fit the segment: entry 3 has the digest"},
		},
		"EditedWithCareAndSealedAnew": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(1)
				lines[2] = append(forge(t, lines[2], func(e *Entry) { e.Subject.Name = "web-x3" }), '\n')
				m.objects[first] = sealedBy(t, newKey(t), lines...)
			},
			want: position{first, 3, 3, "entry 3 is not the one that entry 4 was written after"},
		},
		"EditedWithCareAtTheEndOfTheLedger": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(4)
				lines[2] = forge(t, lines[2], func(e *Entry) { e.Subject.Name = "web-x" })
				m.setLines(4, lines...)
			},
			want: position{second, 4, 6, "the ledger was written anew"},
		},
		"EditedWithCareAndSealedAnewAtTheEndOfTheLedger": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(4)
				lines[2] = append(forge(t, lines[2], func(e *Entry) { e.Subject.Name = "web-x" }), '\n')
				m.objects[second] = sealedBy(t, newKey(t), lines...)
			},
			want: position{folder(uid) + headName(6), 0, 6, "the ledger was written anew"},
		},
		"Reordered": {
			damage: func(_ *testing.T, m *memory) {
				lines := m.linesOf(1)
				m.setLines(1, lines[0], lines[2], lines[1])
			},
			want: position{first, 2, 2, "entry 2 is missing: entry 3 follows entry 1"},
		},
		"Replayed": {
			damage: func(_ *testing.T, m *memory) {
				lines := m.linesOf(4)
				m.setLines(4, append(lines, lines[0])...)
			},
			want: position{second, 4, 4, "entry 4 is here again"},
		},
		"ReplayedWithCare": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(4)
				again := forge(t, lines[1], func(e *Entry) {
					e.Seq, e.Previous = 7, digest(bytes.TrimSuffix(lines[2], []byte("\n")))
				})
				m.setLines(4, append(lines, again)...)
			},
			want: position{second, 4, 7, "it repeats entry 5"},
		},
		"EntryRemoved": {
			damage: func(_ *testing.T, m *memory) {
				lines := m.linesOf(4)
				m.setLines(4, lines[0], lines[2])
			},
			want: position{second, 2, 5, "entry 5 is missing: entry 6 follows entry 4"},
		},
		"FirstEntryOfAnotherIncident": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(1)
				lines[0] = forge(t, lines[0], func(e *Entry) { e.Previous = genesis("another") })
				m.setLines(1, lines...)
			},
			want: position{first, 1, 1, "does not begin the ledger of the Incident"},
		},
		"Forked": {
			damage: func(t *testing.T, m *memory) {
				lines := m.linesOf(4)
				m.objects[segmentKey(4, 1)] = sealedBy(t, key, append(forge(t, lines[0], func(e *Entry) { e.Detail = "another story" }), '\n'))
			},
			want: position{segmentKey(4, 1), 1, 4, "the ledger is forked: entry 4 is in " + second},
		},
		"ForkedInTheMiddle": {
			damage: func(_ *testing.T, m *memory) { m.objects[segmentKey(2, 0)] = m.linesOf(1)[1] },
			want:   position{segmentKey(2, 0), 1, 2, "the ledger is forked"},
		},
		"Gap": {
			damage: func(_ *testing.T, m *memory) { m.objects[segmentKey(9, 0)] = m.linesOf(4)[0] },
			want:   position{segmentKey(9, 0), 1, 7, "entry 7 is missing"},
		},
		"HeadOfAnotherLedger": {
			damage: func(t *testing.T, m *memory) {
				h, err := parseHead(m.objects[folder(uid)+headName(6)], uid)
				if err != nil {
					t.Fatal(err)
				}
				h.Digest = digest([]byte("x"))
				h.Signature = signatureOf(t, key, &h)
				m.objects[folder(uid)+headName(6)] = h.encode()
			},
			want: position{folder(uid) + headName(6), 0, 6, "this head does not fit the ledger"},
		},
		"HeadChanged": {
			damage: func(_ *testing.T, m *memory) {
				name := folder(uid) + headName(6)
				m.objects[name] = bytes.Replace(m.objects[name], []byte(`"at":"2026`), []byte(`"at":"2025`), 1)
			},
			want: position{folder(uid) + headName(6), 0, 6, "its signature is not one of the key"},
		},
	}
}

func TestDamagedLedgersAreRefusedWithThePosition(t *testing.T) {
	key := newKey(t)
	for name, tc := range damageCases(key) {
		t.Run(name, func(t *testing.T) {
			m := two(t)
			sign(t, open(t, m), key)
			tc.damage(t, m)
			_, err := Open(t.Context(), m, uid)
			checkPosition(t, err, tc.want)
		})
	}
}

func TestContains(t *testing.T) {
	m := two(t)
	l := open(t, m)
	seq, d := l.Seq(), l.Digest()
	add(t, l, fact("c"))
	if err := l.Contains(seq, d); err != nil {
		t.Errorf("the ledger has what was noted, and says: %v", err)
	}
	delete(m.objects, segmentKey(4, 0))
	delete(m.objects, segmentKey(7, 0))
	cut := open(t, m)
	checkPosition(t, cut.Contains(seq, d), position{segmentKey(1, 0), 3, 4, "its end was removed"})
	checkPosition(t, cut.Contains(3, d), position{segmentKey(1, 0), 3, 3, "written anew"})
	if err := cut.Contains(0, d); err == nil {
		t.Error("entry 0 is contained")
	}
}

func TestOthersFilesAreInNobodysWay(t *testing.T) {
	m := two(t)
	for _, name := range []string{"ledger/.nfs0001", "ledger/000000000004-00.jsonl.tmp", "ledger/readme", "heads/x.json", "ledger/000000000000-00.jsonl"} {
		m.objects[folder(uid)+name] = []byte("x")
	}
	if got := open(t, m).Seq(); got != 6 {
		t.Errorf("the ledger has %d entries", got)
	}
}

func TestManyWritersOneChain(t *testing.T) {
	const writers, rounds = 12, 15
	m := newMemory()
	var group sync.WaitGroup
	failed, counts := make(chan error, writers), make(chan int, writers)
	for w := range writers {
		l := open(t, m)
		group.Go(func() {
			count := 0
			for r := range rounds {
				// Of three facts one is this writer's alone, and two are everybody's.
				list := []Fact{fact(fmt.Sprintf("w%d-%d", w, r)), fact(fmt.Sprintf("all-%d", r)), fact(fmt.Sprintf("all-%d", r+1))}
				added, err := l.Append(context.Background(), operator, list, start.Add(time.Duration(w)*time.Minute))
				count += added
				if err != nil {
					failed <- err
					return
				}
			}
			counts <- count
		})
	}
	group.Wait()
	close(failed)
	close(counts)
	for err := range failed {
		t.Error(err)
	}
	total := 0
	for n := range counts {
		total += n
	}
	l := open(t, m)
	seen := map[string]int{}
	for _, id := range ids(l) {
		seen[id]++
	}
	if want := writers*rounds + rounds + 1; len(seen) != want || l.Seq() != int64(want) || total != want {
		t.Errorf("%d facts in %d entries, %d of them counted as added; want %d", len(seen), l.Seq(), total, want)
	}
}

// A stale leader goes on where the other one is.
func TestALostRaceIsRejoined(t *testing.T) {
	m := newMemory()
	a, b := open(t, m), open(t, m)
	add(t, a, facts("a", 2)...)
	if added, err := b.Append(t.Context(), operator, []Fact{fact("a1"), fact("b1"), fact("a2")}, start.Add(time.Second)); added != 1 || err != nil {
		t.Errorf("the loser adds %d: %v", added, err)
	}
	if diff := cmp.Diff([]string{"a1", "a2", "b1"}, ids(open(t, m))); diff != "" {
		t.Error(diff)
	}
	if added, err := a.Append(t.Context(), operator, []Fact{fact("b1")}, start); added != 0 || err != nil {
		t.Errorf("the winner adds %d: %v", added, err)
	}
	if diff := cmp.Diff(ids(b), ids(a)); diff != "" {
		t.Error(diff)
	}
}

func TestRacesAreNotJoinedForEver(t *testing.T) {
	m := newMemory()
	l, n := open(t, m), 0
	// Somebody else is always faster.
	m.before = func(key string, _ []byte) ([]byte, error) {
		n++
		other := newChain(uid)
		for _, k := range slices.Sorted(maps.Keys(m.objects)) {
			if _, _, damage := other.segment(k, m.objects[k], func(Entry, []byte) {}); damage != nil {
				return nil, damage
			}
		}
		e := Entry{Seq: other.seq() + 1, RecordedAt: start, Previous: other.previous, Fact: fact(fmt.Sprint("other", n))}
		m.objects[key] = sealedBy(t, operator, append(AppendEntry(nil, &e), '\n'))
		return nil, errExists
	}
	if added, err := l.Append(t.Context(), operator, []Fact{fact("a")}, start); added != 0 || !errors.Is(err, ErrContended) || n != maxRejoins {
		t.Errorf("after %d attempts %d were added: %v", n, added, err)
	}
}

// An answer that is lost is no reason to write anything twice.
func TestALostAnswerIsAWrite(t *testing.T) {
	m := newMemory()
	l, lost := open(t, m), 0
	m.after = func(string) error { lost++; return errStore }
	list := facts("a", 3)
	if added, err := l.Append(t.Context(), operator, list, start); added != 3 || err != nil {
		t.Errorf("%d were added: %v", added, err)
	}
	h, err := l.Sign(t.Context(), newKey(t), start)
	if err != nil || h.Seq != 3 {
		t.Errorf("the head is %+v: %v", h, err)
	}
	if lost != 3 { // a segment, the key, a head
		t.Errorf("%d answers were lost", lost)
	}
	m.after = nil
	if added, err := l.Append(t.Context(), operator, append(list, fact("b")), start); added != 1 || err != nil {
		t.Errorf("%d were added: %v", added, err)
	}
	if diff := cmp.Diff([]string{"a1", "a2", "a3", "b"}, ids(open(t, m))); diff != "" {
		t.Error(diff)
	}
}

func TestAStoreThatIsDown(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	add(t, l, fact("a"))
	m.before = func(string, []byte) ([]byte, error) { return nil, errStore }
	if added, err := l.Append(t.Context(), operator, []Fact{fact("b")}, start); added != 0 || !errors.Is(err, errStore) {
		t.Errorf("%d were added: %v", added, err)
	}
	if _, err := l.Sign(t.Context(), newKey(t), start); !errors.Is(err, errStore) {
		t.Errorf("a head was signed: %v", err)
	}
	m.before = nil
	add(t, l, fact("b"))
	sign(t, l, newKey(t))
	if diff := cmp.Diff([]string{"a", "b"}, ids(open(t, m))); diff != "" {
		t.Error(diff)
	}
}

// damageNext makes a store that damages the next object in the folder, and only that one.
func (m *memory) damageNext(in string, damage func([]byte) []byte) {
	m.before = func(key string, data []byte) ([]byte, error) {
		if strings.HasPrefix(key, folder(uid)+in) {
			m.before = nil
			return damage(data), nil
		}
		return data, nil
	}
}

func TestSegmentsThatTheStoreHasCutOff(t *testing.T) {
	afterLines := func(n, more int) func([]byte) []byte {
		return func(data []byte) []byte {
			end := 0
			for range n {
				end += bytes.IndexByte(data[end:], '\n') + 1
			}
			return data[:end+more]
		}
	}
	const voidID = "void/ledger/000000000002-00.jsonl"
	cases := map[string]struct {
		damage func([]byte) []byte
		want   []string
		keys   []string // of the second segment and after it
	}{
		"nothing is left":             {afterLines(0, 0), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"a part of the first line":    {afterLines(0, 40), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"one line":                    {afterLines(1, 0), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"one line and a part":         {afterLines(1, 40), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"all but the seal":            {afterLines(3, 0), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"a part of the seal":          {afterLines(3, 40), []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"all but the last newline":    {func(b []byte) []byte { return b[:len(b)-1] }, []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
		"the last newline is a space": {func(b []byte) []byte { b[len(b)-1] = ' '; return b }, []string{"z", voidID, "a1", "a2", "a3"}, []string{"2-00", "2-01"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			l := open(t, m)
			add(t, l, fact("z"))
			m.damageNext(ledgerFolder, tc.damage)
			add(t, l, facts("a", 3)...)
			if diff := cmp.Diff(tc.want, ids(l)); diff != "" {
				t.Errorf("the writer (-want +got):\n%s", diff)
			}
			again := open(t, m)
			if diff := cmp.Diff(tc.want, ids(again)); diff != "" {
				t.Errorf("a reader (-want +got):\n%s", diff)
			}
			if incomplete := again.Incomplete(); incomplete != nil {
				t.Errorf("still to be told: %v", incomplete)
			}
			var keys []string
			for _, k := range slices.Sorted(maps.Keys(m.objects))[1:] {
				keys = append(keys, strings.TrimLeft(strings.TrimSuffix(strings.TrimPrefix(k, folder(uid)+ledgerFolder), ".jsonl"), "0"))
			}
			if diff := cmp.Diff(tc.keys, keys); diff != "" {
				t.Errorf("segments (-want +got):\n%s", diff)
			}
			add(t, again, fact("c"))
			sign(t, again, newKey(t))
			if got := open(t, m).Seq(); got != int64(len(tc.want))+1 {
				t.Errorf("the ledger has %d entries", got)
			}
		})
	}
}

// The manager dies after the store has cut off its last segment. The next one finds that, and tells of it.
func TestALedgerThatEndsInATornSegment(t *testing.T) {
	m := two(t)
	m.objects[segmentKey(4, 0)] = m.objects[segmentKey(4, 0)][:len(m.linesOf(4)[0])+10]
	l := open(t, m)
	if diff := cmp.Diff([]string{segmentKey(4, 0)}, l.Incomplete()); diff != "" {
		t.Error(diff)
	}
	if added, err := l.Append(t.Context(), operator, nil, start); added != 0 || err != nil {
		t.Errorf("%d were added: %v", added, err)
	}
	add(t, l, facts("b", 3)...) // the first one was in the segment, and did not count
	again := open(t, m)
	if diff := cmp.Diff([]string{"a1", "a2", "a3", "void/ledger/000000000004-00.jsonl", "b1", "b2", "b3"}, ids(again)); diff != "" {
		t.Error(diff)
	}
	// What was told of must not change any more.
	m.objects[segmentKey(4, 0)] = append(m.objects[segmentKey(4, 0)], 'x')
	_, err := Open(t.Context(), m, uid)
	checkPosition(t, err, position{segmentKey(4, 0), 0, 4, "it has changed since the ledger told that it does not count"})
}

// What a store gives back wrong for a while is not taken for damage, and nothing is recorded twice once it is right again.
func TestAStoreThatGivesBackSomethingWrong(t *testing.T) {
	for name, flips := range map[string]int{"once": 1, "through an append": 2, "through an append and an opening": 3, "for longer": 9} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			l := open(t, m)
			add(t, l, fact("z"))
			bad := &flipping{memory: m, flips: flips}
			m.after = func(string) error { return errors.New("what is read back is not what was written") }
			l.objects = bad
			bad.flips--
			added, err := l.Append(t.Context(), operator, facts("a", 3), start)
			if _, damaged := errors.AsType[*DamageError](err); damaged || (err == nil) != (flips == 1) {
				t.Errorf("%d were added: %v", added, err)
			}
			m.after = nil
			again, err := Open(t.Context(), bad, uid)
			if flips > 3 {
				wantDamage(t, err)
				bad.flips = 0
				again = open(t, bad)
			} else if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Append(t.Context(), operator, facts("a", 4), start); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"z", "a1", "a2", "a3", "a4"}, ids(open(t, m))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// flipping gives back a wrong bit in the last ledger object, so many times.
type flipping struct {
	*memory
	flips int
}

func (f *flipping) Read(ctx context.Context, key string) ([]byte, error) {
	data, err := f.memory.Read(ctx, key)
	if key == segmentKey(2, 0) && f.flips > 0 {
		f.flips--
		data[50] ^= 1
	}
	return data, err
}

// A line that was changed after it was written is not taken for a failure of the store, not even in the last segment.
func TestAChangedLineAtTheEndIsNotVoid(t *testing.T) {
	m := two(t)
	m.objects[segmentKey(4, 0)] = bytes.Replace(m.objects[segmentKey(4, 0)], []byte("web-b2"), []byte("web-x2"), 1)
	_, err := Open(t.Context(), m, uid)
	checkPosition(t, err, position{segmentKey(4, 0), 2, 5, "the line was changed"})
}

func TestAStoreThatDamagesEverything(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	m.before = func(_ string, data []byte) ([]byte, error) { return data[:10], nil }
	if added, err := l.Append(t.Context(), operator, []Fact{fact("a")}, start); added != 0 || err == nil || len(m.objects) != maxTorn {
		t.Errorf("%d were added into %d objects: %v", added, len(m.objects), err)
	}
	m.before = nil
	add(t, l, fact("a"))
	if got := open(t, m).Seq(); got != maxTorn+1 {
		t.Errorf("the ledger has %d entries", got)
	}
}

// A directory that is listed while somebody writes may show a later file without an earlier one.
func TestAListingThatLacksASegment(t *testing.T) {
	m := two(t)
	s := &shortSighted{memory: m, hidden: segmentKey(1, 0), times: 1}
	l, err := Open(t.Context(), s, uid)
	if err != nil || l.Seq() != 6 {
		t.Errorf("%v", err)
	}
	s.times = maxListings * openings
	if _, err := Open(t.Context(), s, uid); err == nil {
		t.Error("a segment that is never listed is not missed")
	}
}

type shortSighted struct {
	*memory
	hidden string
	times  int
}

func (s *shortSighted) Keys(ctx context.Context, prefix string) ([]string, error) {
	keys, err := s.memory.Keys(ctx, prefix)
	if s.times > 0 && slices.Contains(keys, s.hidden) {
		s.times--
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == s.hidden })
	}
	return keys, err
}

// After damage nothing is written, whatever the ledger in memory was like.
func TestNothingIsAppendedToADamagedLedger(t *testing.T) {
	m := two(t)
	l := open(t, m)
	forged := forge(t, m.linesOf(4)[0], func(e *Entry) { e.ID, e.Detail = "other", "another story" })
	m.objects[segmentKey(4, 1)] = sealedBy(t, operator, append(forged, '\n'))
	m.objects[segmentKey(7, 0)] = m.objects[segmentKey(4, 1)]
	for range 2 {
		added, err := l.Append(t.Context(), operator, []Fact{fact("c")}, start)
		wantDamage(t, err)
		if added != 0 {
			t.Errorf("%d were added", added)
		}
	}
	if _, err := l.Sign(t.Context(), newKey(t), start); err == nil {
		t.Error("a damaged ledger was signed")
	}
}

func TestOpenStopsWhenTheStoreCannotBeRead(t *testing.T) {
	m := two(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, m, uid); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	_, err := Open(t.Context(), &unreadable{m}, uid)
	if _, damaged := errors.AsType[*DamageError](err); !errors.Is(err, errStore) || damaged {
		t.Errorf("the error is %v", err)
	}
}

type unreadable struct{ *memory }

func (u *unreadable) Read(context.Context, string) ([]byte, error) { return nil, errStore }
