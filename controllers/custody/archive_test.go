package custody

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var incident = Incident{Namespace: "shop", Name: "inc-1", UID: uid}

// sample is a store with a ledger of six entries in three segments, two items and two heads by different keys, of the entries 2 and 6. The segments are sealed by a third key.
func sample(t testing.TB) (m *memory, last Head) {
	t.Helper()
	m = newMemory()
	l := open(t, m)
	collected := fact("log")
	collected.Action, collected.Phase, collected.Stored = "Collected", PhaseOutcome, m.put("line 1\nline 2\n", "logs/shop/web/app.log")
	secret := fact("manifests")
	secret.Stored = m.put("not to be read", "manifests")
	secret.Stored.Encrypted, secret.Stored.PlainDigest, secret.Stored.PlainSize = true, digest([]byte("plain")), 5
	add(t, l, fact("a"), collected)
	sign(t, l, newKey(t))
	add(t, l, fact("b"), secret)
	same := fact("again") // the same bytes as the first item
	same.Stored = collected.Stored
	add(t, l, same, fact("c"))
	return m, sign(t, l, newKey(t))
}

func exported(t testing.TB, m Objects) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := Export(t.Context(), m, incident, &out, ExportOptions{Now: start, Tool: "test"}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func verify(archive []byte, options VerifyOptions) (*Report, error) {
	return VerifyArchive(bytes.NewReader(archive), options)
}

// unpacked is an archive in pieces.
type unpacked []file

type file struct {
	name    string
	content []byte
}

func unpack(t testing.TB, archive []byte) unpacked {
	t.Helper()
	var out unpacked
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, file{h.Name, content})
	}
}

func (u unpacked) index(t testing.TB, prefix string) int {
	t.Helper()
	i := slices.IndexFunc(u, func(f file) bool { return strings.HasPrefix(f.name, prefix) })
	if i < 0 {
		t.Fatalf("the archive has no %s", prefix)
	}
	return i
}

// pack makes an archive as somebody does who knows the format: the sums are those of the files.
func (u unpacked) pack(t testing.TB) []byte {
	t.Helper()
	var out, sums bytes.Buffer
	w := tarWriter{w: &out, modified: start}
	for _, f := range u {
		if f.name == sumsFile {
			f.content = sums.Bytes()
		}
		fmt.Fprintf(&sums, "%s  %s\n", strings.TrimPrefix(digest(f.content), "sha256:"), f.name)
		if err := w.member(f.name, int64(len(f.content)), bytes.NewReader(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchiveRoundTrip(t *testing.T) {
	m, last := sample(t)
	var out bytes.Buffer
	var steps []string
	got, err := Export(t.Context(), m, incident, &out, ExportOptions{Now: start, Tool: "test", Progress: func(step string, done, total int64) {
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
		if done > total {
			t.Errorf("%s: %d of %d", step, done, total)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := &Exported{Size: int64(out.Len()), Entries: 6, Items: 2, KeyID: last.KeyID, Missing: map[string]string{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"checking items", "writing items"}, steps); diff != "" {
		t.Error(diff)
	}
	report, err := verify(out.Bytes(), VerifyOptions{KeyIDs: []string{last.KeyID}, Head: &Pin{Seq: last.Seq, Digest: last.Digest}})
	if err != nil {
		t.Fatalf("a good archive is refused: %v", err)
	}
	heads := open(t, m).Heads()
	middle := slices.Collect(open(t, m).Entries())[4].Previous // where no head is, there is a seal
	wantReport := &Report{
		Incident: incident, ExportedAt: start, Tool: "test", Entries: 6, Digest: last.Digest, First: start, Last: start, Signed: 6, Items: 2, ItemBytes: 28, Encrypted: 1,
		Heads: []HeadReport{{Seq: 2, Digest: heads[0].Digest, At: start, KeyID: heads[0].KeyID}, {Seq: 4, Digest: middle, At: start, KeyID: KeyID(operator.PublicKey())}, {Seq: 6, Digest: last.Digest, At: start, KeyID: last.KeyID}},
		Notes: []string{
			"Earlier heads are signed by keys that were not given: " + heads[0].KeyID + ", " + KeyID(operator.PublicKey()) + ". What they cover is covered by the last head as well.",
			"Namespace and name of the Incident and the time of the export are what the manifest says. Nothing signed says so; the UID is in every signature.",
		},
	}
	if diff := cmp.Diff(wantReport, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if !bytes.Equal(exported(t, m), out.Bytes()) {
		t.Error("the same store gives two archives")
	}
}

// An archive is a tar file for everybody else too.
func TestTheArchiveIsATarFile(t *testing.T) {
	m, _ := sample(t)
	var names []string
	for _, f := range unpack(t, exported(t, m)) {
		names = append(names, strings.SplitN(f.name, "/", 2)[0])
		if f.name != strings.Trim(f.name, "/.") || strings.Contains(f.name, "..") {
			t.Errorf("%q is not a safe name", f.name)
		}
	}
	if diff := cmp.Diff([]string{"README.txt", "manifest.json", "ledger.jsonl", "heads", "heads", "heads", "keys", "keys", "keys", "items", "items", "SHA256SUMS"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestHeadersOfLargeFiles(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, maxOctal, maxOctal + 1, 1 << 45} {
		h := tarHeader("items/x", size, start)
		got, err := tar.NewReader(bytes.NewReader(h[:])).Next()
		if err != nil || got.Size != size || got.Name != "items/x" || !got.ModTime.Equal(start) || got.Typeflag != tar.TypeReg || got.FileInfo().Mode() != 0o644 {
			t.Errorf("%d bytes: %+v, %v", size, got, err)
		}
		m, err := newTarReader(bytes.NewReader(h[:])).next()
		if err != nil || m.size != size {
			t.Errorf("%d bytes: %+v, %v", size, m, err)
		}
	}
}

func TestEveryChangedByteIsFound(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	f := fact("a")
	f.Stored = m.put("x", "x")
	add(t, l, f)
	sign(t, l, newKey(t))
	archive := exported(t, m)
	if _, err := verify(archive, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	// Which bit is changed goes round with the position.
	for i := range archive {
		changes := []byte{1 << (i % 8)}
		if i%5 == 0 {
			changes = append(changes, 0xff)
		}
		for _, bits := range changes {
			archive[i] ^= bits
			_, err := verify(archive, VerifyOptions{})
			archive[i] ^= bits
			damage, ok := errors.AsType[*DamageError](err)
			if !ok || damage.Offset > int64(len(archive)) {
				t.Fatalf("byte %d changed by %#x: %v", i, bits, err)
			}
		}
	}
	for i := range len(archive) {
		if i%11 != 0 && i%blockSize != 0 {
			continue
		}
		for what, changed := range map[string][]byte{
			"only what is before":    archive[:i],
			"without the byte":       slices.Concat(archive[:i], archive[i+1:]),
			"one zero byte more":     slices.Insert(slices.Clone(archive), i, 0),
			"without the next block": slices.Concat(archive[:i], archive[min(i+blockSize, len(archive)):]),
		} {
			if _, err := verify(changed, VerifyOptions{}); err == nil {
				t.Fatalf("byte %d, %s: accepted", i, what)
			}
		}
	}
	if _, err := verify(append(archive, make([]byte, 512)...), VerifyOptions{}); err == nil {
		t.Error("a block after the end is accepted")
	}
}

// Somebody who changes an archive and makes new sums is found out by what is signed.
func TestDamagedArchivesAreRefusedWithThePosition(t *testing.T) {
	lines := func(change func([][]byte) [][]byte) func(*testing.T, unpacked) unpacked {
		return func(t *testing.T, u unpacked) unpacked {
			f := &u[u.index(t, ledgerFile)]
			f.content = bytes.Join(change(bytes.SplitAfter(bytes.TrimSuffix(f.content, []byte("\n")), []byte("\n"))), nil)
			if n := len(f.content); n > 0 && f.content[n-1] != '\n' {
				f.content = append(f.content, '\n')
			}
			return u
		}
	}
	cases := map[string]struct {
		change func(t *testing.T, u unpacked) unpacked
		want   position
	}{
		"Truncated":    {lines(func(l [][]byte) [][]byte { return l[:4] }), position{"heads/000000000006.json", 0, 5, "its end was removed"}},
		"EntryRemoved": {lines(func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }), position{ledgerFile, 3, 3, "entry 3 is missing"}},
		"Reordered":    {lines(func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }), position{ledgerFile, 2, 2, "entry 2 is missing"}},
		"Replayed":     {lines(func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[1]) }), position{ledgerFile, 4, 2, "entry 2 is here again"}},
		"Edited": {lines(func(l [][]byte) [][]byte {
			l[1] = append(forge(t, l[1], func(e *Entry) { e.Actor.Name = "mallory" }), '\n')
			return l
		}), position{ledgerFile, 2, 2, "entry 2 is not the one that entry 3 was written after"}},
		"EditedAtTheEnd": {lines(func(l [][]byte) [][]byte {
			l[5] = append(forge(t, l[5], func(e *Entry) { e.Actor.Name = "mallory" }), '\n')
			return l
		}), position{"heads/000000000006.json", 0, 6, "written anew"}},
		"Empty": {lines(func([][]byte) [][]byte { return nil }), position{ledgerFile, 1, 1, "the ledger is empty"}},
		"HalfALine": {func(t *testing.T, u unpacked) unpacked {
			f := &u[u.index(t, ledgerFile)]
			f.content = f.content[:len(f.content)-9]
			return u
		}, position{ledgerFile, 6, 6, "the ledger ends within this line"}},
		"EndlessLine": {func(t *testing.T, u unpacked) unpacked {
			f := &u[u.index(t, ledgerFile)]
			f.content = append(f.content, bytes.Repeat([]byte("x"), 10*maxLine)...)
			return u
		}, position{ledgerFile, 7, 7, "longer than an entry can be"}},
		"HeadsRemoved": {func(_ *testing.T, u unpacked) unpacked {
			return slices.DeleteFunc(u, func(f file) bool {
				return strings.HasPrefix(f.name, headsFolder) || strings.HasPrefix(f.name, keysFolder)
			})
		}, position{ledgerFile, 0, 1, "nobody has signed it"}},
		"HeadOfAnotherEntry": {func(t *testing.T, u unpacked) unpacked {
			u[u.index(t, "heads/000000000002")].name = "heads/000000000003.json"
			return u
		}, position{"heads/000000000003.json", 0, 3, "it is about entry 2"}},
		"HeadsReordered": {func(t *testing.T, u unpacked) unpacked {
			i := u.index(t, headsFolder)
			u[i], u[i+1] = u[i+1], u[i]
			return u
		}, position{"heads/000000000002.json", 0, 0, "not in its place"}},
		"AnotherKey": {func(t *testing.T, u unpacked) unpacked {
			u[u.index(t, keysFolder)].content = PublicPEM(newKey(t).PublicKey())
			return u
		}, position{"", 0, 0, "it is not the public key of the heads"}},
		"KeyRemoved": {func(t *testing.T, u unpacked) unpacked {
			i := u.index(t, keysFolder)
			return slices.Delete(u, i, i+1)
		}, position{"", 0, 0, "belongs here"}},
		"KeyThatNobodyUsed": {func(t *testing.T, u unpacked) unpacked {
			k := newKey(t).PublicKey()
			return slices.Insert(u, u.index(t, itemsFolder), file{"keys/zz" + KeyID(k)[2:] + ".pem", PublicPEM(k)})
		}, position{"", 0, 0, "this file is not in its place"}},
		"ItemRemoved": {func(t *testing.T, u unpacked) unpacked {
			i := u.index(t, itemsFolder)
			return slices.Delete(u, i, i+1)
		}, position{"", 0, 2, "the item that entry 2 names is missing"}},
		"ItemChanged": {func(t *testing.T, u unpacked) unpacked {
			u[u.index(t, itemsFolder)].content[0] ^= 1
			return u
		}, position{"", 0, 2, "this item was changed"}},
		"ItemThatNoEntryNames": {func(t *testing.T, u unpacked) unpacked {
			content := []byte("planted")
			return slices.Insert(u, u.index(t, sumsFile), file{"items/" + strings.TrimPrefix(digest(content), "sha256:"), content})
		}, position{"", 0, 0, "no entry of the ledger names this item"}},
		"ItemTwice": {func(t *testing.T, u unpacked) unpacked {
			i := u.index(t, itemsFolder)
			return slices.Insert(u, u.index(t, sumsFile), u[i])
		}, position{"", 0, 0, "this item is in the archive twice"}},
		"ItemsReordered": {func(t *testing.T, u unpacked) unpacked {
			i := u.index(t, itemsFolder)
			u[i], u[i+1] = u[i+1], u[i]
			return u
		}, position{"", 0, 0, "this item is not in its place"}},
		"ReadmeTwice": {func(_ *testing.T, u unpacked) unpacked { return slices.Insert(u, 1, u[0]) }, position{readmeFile, 0, 0, "twice"}},
		"ExtraFile":   {func(_ *testing.T, u unpacked) unpacked { return slices.Insert(u, 3, file{"../evil", []byte("x")}) }, position{"../evil", 0, 0, "not of an evidence archive"}},
		"ExtraFileAtTheEnd": {func(_ *testing.T, u unpacked) unpacked { return append(u, file{"evil", []byte("x")}) },
			position{"evil", 0, 0, "not of an evidence archive"}},
		"LedgerBeforeManifest": {func(_ *testing.T, u unpacked) unpacked { u[1], u[2] = u[2], u[1]; return u }, position{ledgerFile, 0, 0, "manifest.json belongs here"}},
		"ManifestOfAnotherIncident": {func(_ *testing.T, u unpacked) unpacked {
			u[1].content = bytes.Replace(u[1].content, []byte(uid), []byte("1"+uid[1:]), 1)
			return u
		}, position{ledgerFile, 1, 1, "does not begin the ledger of the Incident with the UID 1"}},
		"ManifestWithAnotherName": {func(_ *testing.T, u unpacked) unpacked {
			u[1].content = bytes.Replace(u[1].content, []byte("logs/shop"), []byte("logs/xxxx"), 1)
			return u
		}, position{manifestFile, 0, 0, "the items in it are not those"}},
		"ManifestWithAnotherTime": {func(_ *testing.T, u unpacked) unpacked {
			u[1].content = bytes.Replace(u[1].content, []byte("2026-"), []byte("2025-"), 1)
			return u
		}, position{manifestFile, 0, 0, "the time of the export"}},
		"ManifestWithMore": {func(_ *testing.T, u unpacked) unpacked {
			u[1].content = bytes.Replace(u[1].content, []byte("{\n"), []byte("{\n  \"x\": 1,\n"), 1)
			return u
		}, position{manifestFile, 0, 0, "not a manifest that Cofferdam has written"}},
		"AnotherFormat": {func(_ *testing.T, u unpacked) unpacked {
			u[1].content = bytes.Replace(u[1].content, []byte("archive/v1"), []byte("archive/v2"), 1)
			return u
		}, position{manifestFile, 0, 0, "this program reads"}},
	}
	m, _ := sample(t)
	archive := exported(t, m)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			report, err := verify(tc.change(t, unpack(t, archive)).pack(t), VerifyOptions{})
			damage := damageOf(t, err)
			want := tc.want
			if want.object == "" {
				want.object = damage.Object
			}
			checkPosition(t, err, want)
			if len(report.Problems) == 0 || report.Problems[0] != damage {
				t.Errorf("the report does not begin with the error: %v", report.Problems)
			}
		})
	}
}

func TestOffsetsAreThoseOfTheArchive(t *testing.T) {
	m, _ := sample(t)
	archive := exported(t, m)
	at := bytes.Index(archive, []byte("web-b"))
	archive[at] ^= 1
	_, err := verify(archive, VerifyOptions{})
	damage := damageOf(t, err)
	if begin := bytes.LastIndexByte(archive[:at], '\n') + 1; damage.Offset != int64(begin) || damage.Seq != 3 {
		t.Errorf("the line begins at byte %d, and the error is: %v", begin, err)
	}
	archive[at] ^= 1
	at = bytes.Index(archive, []byte("not to be read"))
	archive[at] ^= 1
	_, err = verify(archive, VerifyOptions{})
	if damage := damageOf(t, err); damage.Offset != int64(at-512) || damage.Seq != 4 || !strings.HasPrefix(damage.Object, "items/") {
		t.Errorf("the item begins at byte %d, and the error is: %v", at-512, err)
	}
}

// Cut off at the end together with its head, an archive looks right to somebody who knows nothing else.
func TestWhatOnlyAPinShows(t *testing.T) {
	m, last := sample(t)
	older := m.copy()
	for key := range older.objects {
		if strings.Contains(key, "/ledger/") && key > segmentKey(2, 0) || strings.HasSuffix(key, headName(6)) {
			delete(older.objects, key)
		}
	}
	archive := exported(t, older)
	report, err := verify(archive, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, "it is not known whether later entries were cut off") }) {
		t.Errorf("the report does not say what it cannot show: %q", report.Notes)
	}
	first := report.Heads[0].KeyID
	cases := map[string]struct {
		options VerifyOptions
		want    string
	}{
		"the head":     {VerifyOptions{Head: &Pin{Seq: last.Seq, Digest: last.Digest}}, "the ledger ends with entry 2, and it has had 6"},
		"a digest":     {VerifyOptions{Head: &Pin{Seq: 2, Digest: last.Digest}}, "written anew"},
		"the key":      {VerifyOptions{KeyIDs: []string{last.KeyID}}, "the last head is signed by the key " + first},
		"another head": {VerifyOptions{Head: &Pin{Seq: 2, Digest: report.Digest}, KeyIDs: []string{first, last.KeyID}}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := verify(archive, tc.options)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if damage := damageOf(t, err); !strings.Contains(damage.Problem, tc.want) {
				t.Errorf("the error is: %v", err)
			}
		})
	}
}

// A head in which somebody has put another key under the id of the operator's is not one of the operator's.
func TestAKeyUnderTheIDOfAnother(t *testing.T) {
	m, last := sample(t)
	mallory := newKey(t)
	forged := last
	forged.PublicKey = base64.StdEncoding.EncodeToString(publicDER(mallory.PublicKey()))
	forged.Signature = signatureOf(t, mallory, &forged)
	u := unpack(t, exported(t, m))
	u[u.index(t, headName(last.Seq))].content = forged.encode()
	u[u.index(t, keyObject(last.KeyID))].content = PublicPEM(mallory.PublicKey())
	_, err := verify(u.pack(t), VerifyOptions{KeyIDs: []string{last.KeyID}})
	checkPosition(t, err, position{headName(last.Seq), 0, last.Seq, "its public key is " + KeyID(mallory.PublicKey())})
}

func TestExportTellsWhenTheLedgerDoesNotFitAHead(t *testing.T) {
	m, last := sample(t)
	for seq, fits := range map[int64]bool{last.Seq: true, last.Seq + 1: false, 1: false} {
		x, err := Export(t.Context(), m, incident, io.Discard, ExportOptions{Now: start, Head: &Pin{Seq: seq, Digest: last.Digest}})
		if err != nil || (x.HeadProblem == nil) != fits {
			t.Errorf("entry %d: %v, %v", seq, x.HeadProblem, err)
		}
	}
}

func TestEntriesAfterTheLastHeadAreSaidNotToBeSigned(t *testing.T) {
	m, _ := sample(t)
	add(t, open(t, m), facts("later", 2)...)
	report, err := verify(exported(t, m), VerifyOptions{KeyIDs: []string{KeyID(operator.PublicKey())}})
	if err != nil || report.Signed != 8 {
		t.Fatalf("entries are not taken for signed up to their seal: %d, %v", report.Signed, err)
	}
	without := unpack(t, exported(t, m))
	without = slices.DeleteFunc(without, func(f file) bool {
		return f.name == headName(8) || f.name == headName(4) || f.name == keyObject(KeyID(operator.PublicKey()))
	})
	report, err = verify(without.pack(t), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Signed != 6 || report.Entries != 8 || !strings.HasPrefix(report.Notes[0], "NOT SIGNED: the last 2 entries, from entry 7 on") {
		t.Errorf("signed %d of %d; %q", report.Signed, report.Entries, report.Notes)
	}
}

func TestRemovedAndMissingItems(t *testing.T) {
	setUp := func(t *testing.T) (*memory, *Ledger, *Stored) {
		m := newMemory()
		l := open(t, m)
		f, g := fact("a"), fact("b")
		f.Stored, g.Stored = m.put("first", "first"), m.put("second", "second")
		add(t, l, f, g)
		sign(t, l, newKey(t))
		return m, l, f.Stored
	}
	remove := func(t *testing.T, l *Ledger, s *Stored) {
		f := fact("remove")
		f.Action, f.Stored = ActionRemoveEvidence, s
		add(t, l, f)
	}
	result := func(t *testing.T, m *memory) (*Exported, *Report, error) {
		var out bytes.Buffer
		x, err := Export(t.Context(), m, incident, &out, ExportOptions{Now: start})
		if err != nil {
			t.Fatal(err)
		}
		r, err := verify(out.Bytes(), VerifyOptions{})
		return x, r, err
	}
	t.Run("removed as the ledger tells", func(t *testing.T) {
		m, l, s := setUp(t)
		remove(t, l, s)
		delete(m.objects, s.Key)
		if x, r, err := result(t, m); err != nil || x.Removed != 1 || r.Removed != 1 || r.Items != 1 || len(x.Missing) != 0 {
			t.Errorf("%+v, %+v, %v", x, r, err)
		}
	})
	t.Run("still there", func(t *testing.T) {
		m, l, s := setUp(t)
		remove(t, l, s)
		if x, r, err := result(t, m); err != nil || x.Removed != 0 || r.Items != 2 {
			t.Errorf("%+v, %+v, %v", x, r, err)
		}
	})
	t.Run("stored again after the removal, and missing", func(t *testing.T) {
		m, l, s := setUp(t)
		remove(t, l, s)
		f := fact("again")
		f.Stored = s
		add(t, l, f)
		delete(m.objects, s.Key)
		_, _, err := result(t, m)
		wantDamage(t, err)
	})
	for name, damage := range map[string]func(m *memory, s *Stored){
		"missing":   func(m *memory, s *Stored) { delete(m.objects, s.Key) },
		"changed":   func(m *memory, s *Stored) { m.objects[s.Key] = []byte("forst") },
		"too long":  func(m *memory, s *Stored) { m.objects[s.Key] = []byte("first and more") },
		"truncated": func(m *memory, s *Stored) { m.objects[s.Key] = []byte("fir") },
	} {
		t.Run(name, func(t *testing.T) {
			m, _, s := setUp(t)
			damage(m, s)
			x, r, err := result(t, m)
			if x.Items != 1 || x.Missing[s.Digest] == "" || r.Items != 1 {
				t.Errorf("%+v, %+v", x, r)
			}
			checkPosition(t, err, position{"items/" + s.Digest[7:], 0, 1, "the item that entry 1 names is missing, as the manifest says"})
		})
	}
}

func TestAnArchiveOfALedgerThatEndsInAVoid(t *testing.T) {
	m, _ := sample(t)
	m.objects[segmentKey(7, 0)] = []byte(`{"seq":7,`)
	archive := exported(t, m)
	_, err := verify(archive, VerifyOptions{})
	checkPosition(t, err, position{ledgerFile, 0, 7, "the ledger is not complete"})
	l := open(t, m)
	sign(t, l, newKey(t))
	report, err := verify(exported(t, m), VerifyOptions{})
	if err != nil || !strings.HasPrefix(report.Notes[0], "Entry 7 tells of ledger/000000000007-00.jsonl: this object is not complete and has no signature") {
		t.Errorf("%v, %q", err, report.Notes)
	}
}

func TestClocksThatGoBackAreNoted(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	add(t, l, fact("a"))
	if _, err := l.Append(t.Context(), operator, []Fact{fact("b")}, start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	sign(t, l, newKey(t))
	report, err := verify(exported(t, m), VerifyOptions{})
	if err != nil || !strings.HasPrefix(report.Notes[0], "Entry 2 was recorded at an earlier time") {
		t.Errorf("%v, %q", err, report.Notes)
	}
}

func TestExportOfNothing(t *testing.T) {
	if _, err := Export(t.Context(), newMemory(), incident, io.Discard, ExportOptions{}); !errors.Is(err, ErrNoLedger) {
		t.Error(err)
	}
	if _, err := Export(t.Context(), newMemory(), incident, io.Discard, ExportOptions{Head: &Pin{Seq: 1}}); !errors.Is(err, ErrNoLedger) {
		t.Error(err)
	}
}

// What changes between the two times that an item is read ends the export.
func TestAnItemThatChangesDuringTheExport(t *testing.T) {
	for name, content := range map[string]string{"digest": "LINE 1\nline 2\n", "length": "line 1\n"} {
		t.Run(name, func(t *testing.T) {
			m, _ := sample(t)
			_, err := Export(t.Context(), m, incident, io.Discard, ExportOptions{Now: start, Progress: func(step string, _, _ int64) {
				if step == "writing items" {
					return
				}
				m.mu.Lock()
				defer m.mu.Unlock()
				for key, data := range m.objects {
					if string(data) == "line 1\nline 2\n" {
						m.objects[key] = []byte(content)
					}
				}
			}})
			if err == nil {
				t.Error("an item that was changed is in an archive")
			}
		})
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errStore
	}
	return len(p), nil
}

func (f *failing) Read(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errStore
	}
	clear(p)
	return len(p), nil
}

func TestErrorsOfReadingAndWritingAreNoDamage(t *testing.T) {
	m, _ := sample(t)
	archive := exported(t, m)
	for n := 0; n < len(archive); n += 400 {
		if _, err := Export(t.Context(), m, incident, &failing{after: n}, ExportOptions{Now: start}); !errors.Is(err, errStore) {
			t.Fatalf("the disk is full after %d bytes: %v", n, err)
		}
		_, err := VerifyArchive(io.MultiReader(bytes.NewReader(archive[:n]), &failing{}), VerifyOptions{})
		if _, damaged := errors.AsType[*DamageError](err); !errors.Is(err, errStore) || damaged {
			t.Fatalf("the disk cannot be read after %d bytes: %v", n, err)
		}
	}
}

func TestWhatComesFromOutsideIsCleanInAnArchive(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	f := fact("\x1b[2Jid")
	f.Detail, f.Subject.Name, f.Actor.Name, f.Action = "\x1b]8;;http://evil\a", "web\x07\u202e", "\x9b31m", "Say\r\n"
	f.Stored = m.put("x", "../../etc/passwd\x1b[31m\u2066")
	f.Stored.MediaType = "text/\x00"
	add(t, l, f)
	sign(t, l, newKey(t))
	delete(m.objects, f.Stored.Key)
	var out bytes.Buffer
	if _, err := Export(t.Context(), m, Incident{Namespace: "a\x1b[1m", Name: "b\a", UID: uid}, &out, ExportOptions{Now: start, Tool: "x\x1b"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range strings.ReplaceAll(out.String(), "\x00", "") {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Errorf("the archive has %U", r)
		}
	}
	if _, err := verify(out.Bytes(), VerifyOptions{}); err == nil || strings.Contains(err.Error(), "changed") {
		t.Error(err)
	}
}

func FuzzVerifyArchive(f *testing.F) {
	m, _ := sample(f)
	archive := exported(f, m)
	f.Add(600, []byte("x"))
	f.Add(bytes.Index(archive, []byte("heads/")), []byte("heads/999999999999"))
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		if at < 0 || at >= len(archive) {
			return
		}
		changed := slices.Clone(archive)
		copy(changed[at:], patch)
		report, err := verify(changed, VerifyOptions{})
		if (err == nil) != bytes.Equal(changed, archive) || report == nil {
			t.Fatalf("%q at %d: %v", patch, at, err)
		}
	})
}

// tenThousand is a store with 10,000 entries, one of a hundred with an item.
func tenThousand(t testing.TB) *memory {
	t.Helper()
	m := newMemory()
	l := open(t, m)
	list := facts("e", 10_000)
	for i := range list {
		list[i].Detail = "the pod was isolated; its labels were taken off and are kept in an annotation"
		if i%100 == 0 {
			list[i].Stored = m.put(fmt.Sprint("item ", i), fmt.Sprint("logs/", i))
		}
	}
	add(t, l, list...)
	sign(t, l, newKey(t))
	return m
}

// It is read once, and every entry is looked at.
func TestTenThousandEntries(t *testing.T) {
	m := tenThousand(t)
	m.reads = 0
	l := open(t, m)
	if l.Seq() != 10_000 || m.reads > 12 {
		t.Errorf("%d entries in %d reads", l.Seq(), m.reads)
	}
	archive := exported(t, m)
	counted := &counter{r: bytes.NewReader(archive)}
	report, err := VerifyArchive(counted, VerifyOptions{})
	if err != nil || report.Entries != 10_000 || report.Items != 100 || counted.n != len(archive) {
		t.Errorf("%d entries, %d items, %d of %d bytes: %v", report.Entries, report.Items, counted.n, len(archive), err)
	}
	at := bytes.Index(archive, []byte(`"e7777"`))
	archive[at+1] ^= 1
	_, err = verify(archive, VerifyOptions{})
	checkPosition(t, err, position{ledgerFile, 7777, 7777, "the line was changed"})
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// withItem is a store with one item that takes no memory.
type withItem struct {
	*memory
	key  string
	open func() io.Reader
}

func (w *withItem) OpenReader(ctx context.Context, key string) (io.ReadCloser, error) {
	if key == w.key {
		return io.NopCloser(w.open()), nil
	}
	return w.memory.OpenReader(ctx, key)
}

func TestItemsAreStreamed(t *testing.T) {
	if testing.Short() {
		t.Skip("64 MiB are read three times")
	}
	const size = 64 << 20
	zeros := func() io.Reader { return io.LimitReader(&failing{after: 1 << 40}, size) }
	hash := sha256.New()
	if _, err := io.Copy(hash, zeros()); err != nil {
		t.Fatal(err)
	}
	d := "sha256:" + hex.EncodeToString(hash.Sum(nil))
	m := newMemory()
	f := fact("a")
	f.Stored = &Stored{Key: ItemKey(uid, d), Digest: d, Size: size}
	l := open(t, m)
	add(t, l, f)
	sign(t, l, newKey(t))
	r, w := io.Pipe()
	go func() {
		_, err := Export(t.Context(), &withItem{memory: m, key: f.Stored.Key, open: zeros}, incident, w, ExportOptions{Now: start})
		w.CloseWithError(err)
	}()
	report, err := VerifyArchive(r, VerifyOptions{})
	if err != nil || report.ItemBytes != size {
		t.Errorf("%d bytes: %v", report.ItemBytes, err)
	}
}

// BenchmarkVerify10000 verifies an archive with 10,000 entries: ns/op is for all of them. ratio is to the least that anybody can do who looks at every entry, as decodeAlone does it in the same run.
func BenchmarkVerify10000(b *testing.B) {
	archive := exported(b, tenThousand(b))
	b.SetBytes(int64(len(archive)))
	againstDecoding(b, archive, func() {
		if _, err := verify(archive, VerifyOptions{}); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkOpen10000 opens a ledger of 10,000 entries, as the operator does when it is started: every entry is verified.
func BenchmarkOpen10000(b *testing.B) {
	m := tenThousand(b)
	againstDecoding(b, exported(b, m), func() { open(b, m) })
}

// againstDecoding measures what verifies, and compares it with decoding alone.
func againstDecoding(b *testing.B, archive []byte, verifying func()) {
	b.Helper()
	files := unpack(b, archive)
	lines := bytes.Split(bytes.TrimSpace(files[files.index(b, ledgerFile)].content), []byte("\n"))
	if len(lines) != 10_000 {
		b.Fatalf("%d entries", len(lines))
	}
	var alone time.Duration
	b.ReportAllocs()
	for b.Loop() {
		verifying()
		b.StopTimer() // what follows is in neither ns/op nor allocs/op
		begun := time.Now()
		decodeAlone(b, lines)
		alone += time.Since(begun)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(alone), "ratio")
}

// decodeAlone hashes and decodes every line once, and believes all of them.
func decodeAlone(b *testing.B, lines [][]byte) {
	b.Helper()
	for _, line := range lines {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			b.Fatal(err)
		}
		if sha256.Sum256(line) == [sha256.Size]byte{} {
			b.Fatal("no digest")
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		add(b, open(b, newMemory()), facts("a", 1000)...)
	}
}
