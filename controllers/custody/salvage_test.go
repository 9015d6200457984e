package custody

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exportDamaged exports what should be a damaged ledger.
func exportDamaged(t *testing.T, m Objects, options ExportOptions) (*Exported, []byte) {
	t.Helper()
	var out bytes.Buffer
	options.Now, options.Tool = start, "test"
	done, err := Export(t.Context(), m, incident, &out, options)
	if err != nil {
		t.Fatalf("nothing was exported: %v", err)
	}
	if done.Damage == nil {
		t.Fatal("the ledger is said to be good")
	}
	return done, out.Bytes()
}

// Whatever was done to a ledger, what there is of it is in the archive, and whoever verifies that is led to the first bad entry.
func TestDamagedLedgersAreExported(t *testing.T) {
	key := newKey(t)
	// Where the name of a segment is the damage, the archive has the same entries in another place. Where it is a seal, the archive has that among the heads, and the entry that is missing comes first.
	elsewhere := map[string]int64{"Gap": 4, "LastEntryOfASegmentRemoved": 3}
	for name, tc := range damageCases(key) {
		t.Run(name, func(t *testing.T) {
			m := two(t)
			sign(t, open(t, m), key)
			tc.damage(t, m)
			done, archive := exportDamaged(t, m, ExportOptions{})
			checkPosition(t, done.Damage, tc.want)
			checkSalvaged(t, m, archive, tc.want.object)
			report, err := verify(archive, VerifyOptions{})
			damage, want := damageOf(t, err), tc.want.seq
			if other := elsewhere[name]; other > 0 {
				want = other
			}
			if damage.Seq != want {
				t.Errorf("verify names entry %d first, want %d: %v", damage.Seq, want, damage)
			}
			last := report.Problems[len(report.Problems)-1]
			if !strings.Contains(last.Problem, "the ledger was damaged in the store when the archive was made: "+tc.want.object) || last.Seq != tc.want.seq {
				t.Errorf("in the end, verify says %v", last)
			}
			if damage.Object == ledgerFile && !bytes.Equal(archive[damage.Offset-1:damage.Offset], []byte("\n")) && damage.Line > 1 {
				t.Errorf("there is no line at byte %d", damage.Offset)
			}
			if report.Entries != done.Entries {
				t.Errorf("verify finds %d entries in order, and %d were exported", report.Entries, done.Entries)
			}
		})
	}
}

// checkSalvaged checks that the archive has everything that is in the store, as it is there, and names the object.
func checkSalvaged(t *testing.T, m *memory, archive []byte, object string) {
	t.Helper()
	u := unpack(t, archive)
	for stored, content := range m.objects {
		name := strings.Replace(strings.TrimPrefix(stored, folder(uid)), ledgerFolder, segmentsFolder, 1)
		if i := u.index(t, name); !bytes.Equal(u[i].content, content) {
			t.Errorf("%s is not in the archive as it is in the store", name)
		}
	}
	for _, told := range []string{readmeFile, manifestFile} {
		if i := u.index(t, told); !bytes.Contains(u[i].content, []byte(object)) {
			t.Errorf("%s does not name %s", told, object)
		}
	}
}

// Items are in the archive even if the entries that name them are not.
func TestItemsOfADamagedLedger(t *testing.T) {
	cases := map[string]struct {
		damage         func(m *memory)
		pin            *Pin
		entries, items int64
		missing        int
		first          string
	}{
		"the first entry is not readable": {func(m *memory) { m.objects[segmentKey(1, 0)][5] = 'x' }, nil, 0, 2, 0, "this line is not entry 1"},
		"a segment is removed":            {func(m *memory) { delete(m.objects, segmentKey(3, 0)) }, nil, 2, 2, 0, "entry 3 is missing: entry 5 follows entry 2"},
		"the end is removed":              {func(m *memory) { delete(m.objects, segmentKey(5, 0)) }, nil, 4, 2, 0, "its end was removed"},
		"all segments are removed": {func(m *memory) {
			delete(m.objects, segmentKey(1, 0))
			delete(m.objects, segmentKey(3, 0))
			delete(m.objects, segmentKey(5, 0))
		}, nil, 0, 2, 0, "the ledger is empty"},
		"ledger and heads are removed": {func(m *memory) {
			for key := range m.objects {
				if !strings.Contains(key, itemsFolder) {
					delete(m.objects, key)
				}
			}
		}, &Pin{Seq: 6, Digest: digest([]byte("x"))}, 0, 2, 0, "the ledger is empty"},
		"an item is changed too": {func(m *memory) {
			m.objects[segmentKey(1, 0)][5] = 'x'
			m.objects[itemKey(uid, strings.TrimPrefix(digest([]byte("not to be read")), "sha256:"))] = []byte("changed")
		}, nil, 0, 1, 1, "this line is not entry 1"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m, _ := sample(t)
			tc.damage(m)
			done, archive := exportDamaged(t, m, ExportOptions{Head: tc.pin})
			if done.Entries != tc.entries || int64(done.Items) != tc.items || len(done.Missing) != tc.missing || done.Removed != 0 {
				t.Errorf("exported %+v", done)
			}
			report, err := verify(archive, VerifyOptions{})
			if damage := damageOf(t, err); !strings.Contains(damage.Problem, tc.first) {
				t.Errorf("verify says first: %v", damage)
			}
			if int64(report.Items) != tc.items {
				t.Errorf("verify finds %d items, want %d", report.Items, tc.items)
			}
			var wrong []string
			for _, p := range report.Problems {
				if strings.Contains(p.Object, itemsFolder) || p.Object == sumsFile {
					wrong = append(wrong, p.Error())
				}
			}
			if diff := cmp.Diff([]string(nil), wrong); diff != "" {
				t.Errorf("what verify says of items (-want +got):\n%s", diff)
			}
		})
	}
}

// Whoever takes the statement out of an archive does not make it good.
func TestDamageThatIsKeptQuiet(t *testing.T) {
	m, _ := sample(t)
	delete(m.objects, segmentKey(3, 0))
	_, archive := exportDamaged(t, m, ExportOptions{})
	for _, without := range []bool{false, true} {
		u := unpack(t, archive)
		i := u.index(t, manifestFile)
		before, rest, _ := bytes.Cut(u[i].content, []byte(",\n    \"damage\""))
		_, after, _ := bytes.Cut(rest, []byte("    }\n"))
		u[i].content = append(append(bytes.Clone(before), '\n'), after...)
		var kept unpacked
		for _, f := range u {
			if !without || !strings.HasPrefix(f.name, segmentsFolder) {
				kept = append(kept, f)
			}
		}
		_, err := verify(kept.pack(t), VerifyOptions{})
		wantDamage(t, err)
	}
}

// The instructions say what is wrong, and refuse the archive.
func TestTheInstructionsOfADamagedLedger(t *testing.T) {
	need(t, "sh", "sha256sum", "openssl")
	m, _ := sample(t)
	m.objects[segmentKey(3, 0)] = bytes.Replace(m.objects[segmentKey(3, 0)], []byte("web-b"), []byte("web-x"), 1)
	_, archive := exportDamaged(t, m, ExportOptions{})
	u := unpack(t, archive)
	if text := string(u[0].content); !strings.Contains(text, "THE LEDGER IS DAMAGED") || strings.Contains(text, "@DAMAGE@") {
		t.Errorf("README.txt begins %.300s", text)
	}
	out, good := shell(t, writeFiles(t, u), commands(t, u[0].content))
	if good || !strings.Contains(out, "check 1, files: good") || !strings.Contains(out, "ledger.jsonl, line 4 does not follow") {
		t.Errorf("accepted: %v:\n%s", good, out)
	}
}
