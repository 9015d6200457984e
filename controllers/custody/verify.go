package custody

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Bounds of the members that are read whole, in bytes.
const (
	maxReadme   = 1 << 20
	maxManifest = 64 << 20
	maxHead     = 1 << 20
	maxPEM      = 4 << 10
)

// VerifyArchive checks an archive, reading it once from beginning to end, with memory for the ledger but not for the items. It needs neither a cluster nor a store nor a network. The archive is genuine if the
// error is nil. If it is not, the error is the first of the *DamageErrors in the report; every other error is one of reading. The report is never nil.
//
// It checks that the archive has exactly the files it should have, in order, and not a byte more; the digest of every file; form, chain, numbers and IDs of all entries; that every head fits the ledger and is
// signed by its key; that time stamps are of those signatures; that every item that the ledger names is there, unless the ledger tells of its removal; and what the reader knows from elsewhere.
func VerifyArchive(r io.Reader, options VerifyOptions) (*Report, error) {
	v := &verifier{in: newTarReader(r), options: options, report: &Report{}, inventory: newInventory(), keys: map[string][]byte{}, present: map[string]bool{}}
	err := v.run()
	damage, damaged := errors.AsType[*DamageError](err)
	if err != nil && !damaged {
		return v.report, fmt.Errorf("reading the archive: %w", err)
	}
	if damaged {
		v.problem(damage)
	}
	if len(v.report.Problems) > 0 {
		return v.report, v.report.Problems[0]
	}
	return v.report, nil
}

// verifier is one verification under way. Its steps return a *DamageError when the archive cannot be read any further, and note what else is wrong.
type verifier struct {
	in      *tarReader
	options VerifyOptions
	report  *Report

	// at is the member that is to be read next; nil at the end.
	at *member
	// sums are what SHA256SUMS should say so far, and members what they are about.
	sums    []string
	members []*member

	manifest  manifest
	chain     chain
	inventory *inventory
	// broken says that the ledger could not be read to its end, so that nothing is known of what else it names.
	broken bool
	// keys are the public keys of the heads, by the name of their file.
	keys map[string][]byte
	// present are the items that are there, by digest.
	present map[string]bool
}

func (v *verifier) run() error {
	if err := v.advance(); err != nil {
		return err
	}
	if _, err := v.whole(readmeFile, maxReadme); err != nil {
		return err
	}
	for _, step := range []func() error{v.readManifest, v.readLedger, v.readHeads, v.readKeys, v.readSegments, v.readItems, v.readSums} {
		if err := step(); err != nil {
			return err
		}
	}
	v.checkManifest()
	v.checkPins()
	v.note()
	return nil
}

func (v *verifier) problem(damage *DamageError) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, damage)
	}
}

func (v *verifier) notef(format string, args ...any) {
	v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
}

// entryNotef notes something about one entry.
func (v *verifier) entryNotef(format string, args ...any) {
	switch n := len(v.report.Notes); {
	case n < maxNotes:
		v.notef(format, args...)
	case n == maxNotes:
		v.notef("There is more to say about single entries than is said here.")
	}
}

// advance reads the next header.
func (v *verifier) advance() error {
	m, err := v.in.next()
	if errors.Is(err, io.EOF) {
		v.at = nil
		return nil
	}
	if err != nil {
		return err
	}
	if len(v.members) > 0 && !m.modified.Equal(v.members[0].modified) {
		return damagef(m.place(), 0, "its time is not that of the export")
	}
	if !isMember(m.name) {
		return damagef(m.place(), 0, "this file is not of an evidence archive")
	}
	v.at = m
	return nil
}

// isMember reports whether an archive can have a file with the name.
func isMember(name string) bool {
	inFolder := func(folder string) bool { return strings.HasPrefix(name, folder) }
	return slices.Contains([]string{readmeFile, manifestFile, ledgerFile, sumsFile}, name) || slices.ContainsFunc([]string{headsFolder, keysFolder, segmentsFolder, itemsFolder}, inFolder)
}

// read reads the member that is next through a function, and goes on to the one after it. The function need not read it to its end.
func (v *verifier) read(f func(io.Reader) error) error {
	m, sum := v.at, sha256.New()
	content := &io.LimitedReader{R: v.in, N: m.size}
	body := io.TeeReader(content, sum)
	if err := f(body); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if content.N > 0 {
		return damagef(Place{Object: m.name, Offset: v.in.offset}, 0, "the archive ends within this file")
	}
	if err := v.in.pad(m); err != nil {
		return err
	}
	v.took(m, sum)
	return v.advance()
}

func (v *verifier) took(m *member, sum hash.Hash) {
	v.members = append(v.members, m)
	v.sums = append(v.sums, hex.EncodeToString(sum.Sum(nil))+"  "+m.name+"\n")
}

// expect checks that the next member is the one with the name.
func (v *verifier) expect(name string) error {
	switch {
	case v.at == nil:
		return damagef(Place{Object: name, Offset: v.in.offset}, 0, "it is missing: the archive ends before it")
	case v.at.name == name:
		return nil
	case slices.ContainsFunc(v.members, func(m *member) bool { return m.name == v.at.name }):
		return damagef(v.at.place(), 0, "this file is in the archive twice")
	}
	return damagef(v.at.place(), 0, "this file is not in its place: %s belongs here", name)
}

// whole reads a member that fits into memory.
func (v *verifier) whole(name string, limit int64) ([]byte, error) {
	if err := v.expect(name); err != nil {
		return nil, err
	}
	if v.at.size > limit {
		return nil, damagef(v.at.place(), 0, "it has %d bytes, and cannot have more than %d", v.at.size, limit)
	}
	var content []byte
	err := v.read(func(r io.Reader) (err error) {
		content, err = io.ReadAll(r)
		return err
	})
	return content, err
}

// damaged reports whether the ledger was damaged when the archive was made.
func (v *verifier) damaged() bool { return v.manifest.Ledger.Damage != nil }

func (v *verifier) readManifest() error {
	if err := v.expect(manifestFile); err != nil {
		return err
	}
	at := v.at.place()
	content, err := v.whole(manifestFile, maxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, &v.manifest); err != nil {
		return damagef(at, 0, "it is not a manifest: %v", err)
	}
	m := &v.manifest
	if m.Format != archiveFormat {
		return damagef(at, 0, "the format of the archive is %q; this program reads %q", m.Format, archiveFormat)
	}
	if err := checkUID(m.Incident.UID); err != nil {
		return damagef(at, 0, "%v", err)
	}
	again, err := encodeManifest(m)
	if err != nil || !bytes.Equal(again, content) {
		v.problem(damagef(at, 0, "it is not a manifest that Cofferdam has written"))
	}
	if !m.ExportedAt.Equal(v.members[0].modified) {
		v.problem(damagef(at, 0, "the time of the export is not that of the files"))
	}
	v.report.Incident = Incident{Namespace: m.Incident.Namespace, Name: m.Incident.Name, UID: m.Incident.UID}
	v.report.ExportedAt, v.report.Tool = m.ExportedAt, m.Tool
	return nil
}

func (v *verifier) readLedger() error {
	if err := v.expect(ledgerFile); err != nil {
		return err
	}
	v.chain = newChain(v.manifest.Incident.UID)
	begin, buffer := v.in.offset, int(min(v.at.size, maxLine))+1
	return v.read(func(r io.Reader) error {
		lines := bufio.NewReaderSize(r, buffer)
		at := Place{Object: ledgerFile, Line: 1, Offset: begin}
		for {
			line, err := lines.ReadSlice('\n')
			switch {
			case errors.Is(err, io.EOF) && len(line) == 0:
				v.ledgerEnd(at)
				return nil
			case errors.Is(err, io.EOF):
				v.broke(damagef(at, v.chain.seq()+1, "the ledger ends within this line"))
				return nil
			case errors.Is(err, bufio.ErrBufferFull):
				v.broke(damagef(at, v.chain.seq()+1, "this line is longer than an entry can be"))
				return nil
			case err != nil:
				return err
			}
			if damage := v.takeEntry(line[:len(line)-1], at); damage != nil {
				v.broke(damage)
				return nil
			}
			at.Line++
			at.Offset += int64(len(line))
		}
	})
}

func (v *verifier) ledgerEnd(at Place) {
	if v.chain.seq() == 0 {
		v.broke(damagef(at, 1, "the ledger is empty"))
	}
}

// broke notes that the ledger is of no use from a line on.
func (v *verifier) broke(damage *DamageError) {
	v.broken = true
	v.problem(damage)
}

func (v *verifier) takeEntry(line []byte, at Place) *DamageError {
	e, damage := v.chain.next(line, at)
	if damage != nil {
		return damage
	}
	if problem := v.inventory.take(&e); problem != "" {
		v.problem(damagef(at, e.Seq, "%s", problem))
	}
	if e.Action == ActionVoid && strings.HasPrefix(e.ID, voidPrefix) {
		v.entryNotef("Entry %d tells of %s: %s.", e.Seq, e.Subject.Name, e.Detail)
	}
	r := v.report
	if r.Entries == 0 {
		r.First = e.RecordedAt
	} else if e.RecordedAt.Before(r.Last) {
		v.entryNotef("Entry %d was recorded at an earlier time than the entry before it: the operator's clock was set, or two operators' clocks differ.", e.Seq)
	}
	r.Entries, r.Digest, r.Last = e.Seq, v.chain.previous, e.RecordedAt
	return nil
}

func (v *verifier) readHeads() error {
	for v.at != nil && strings.HasPrefix(v.at.name, headsFolder) {
		m := v.at
		seq, ok := parseHeadName(m.name)
		if !ok || seq <= v.report.Signed {
			return damagef(m.place(), 0, "this file is not a head, or not in its place")
		}
		content, err := v.whole(m.name, maxHead)
		if err != nil {
			return err
		}
		v.report.Signed = seq
		v.takeHead(m, seq, content)
	}
	return nil
}

// takeHead checks a head against the ledger.
func (v *verifier) takeHead(m *member, seq int64, content []byte) {
	h, err := parseHead(content, v.manifest.Incident.UID)
	if err == nil && h.Seq != seq {
		err = fmt.Errorf("it is about entry %d", h.Seq)
	}
	if err != nil {
		v.problem(damagef(m.place(), seq, "this is not the head of entry %d: %v", seq, err))
		return
	}
	if damage := v.chain.contains(seq, h.Digest, m.place()); damage != nil && (!v.broken || seq <= v.chain.seq()) {
		damage.Problem = "this head does not fit the ledger: " + damage.Problem
		v.problem(damage)
	}
	if public, err := h.key(); err == nil {
		v.keys[keyObject(h.KeyID)] = PublicPEM(public)
	}
	found := HeadReport{Seq: seq, Digest: h.Digest, At: h.At, KeyID: h.KeyID}
	if h.Timestamp != "" {
		found.Timestamp, err = h.stamp(v.options.Roots)
		if err != nil {
			v.problem(damagef(m.place(), seq, "%v", err))
		}
	}
	v.report.Heads = append(v.report.Heads, found)
}

// readKeys checks that the files of the keys are those in the heads.
func (v *verifier) readKeys() error {
	for _, name := range slices.Sorted(maps.Keys(v.keys)) {
		if err := v.passOver(keysFolder, name); err != nil {
			return err
		}
		if err := v.expect(name); err != nil {
			return err
		}
		m := v.at
		content, err := v.whole(name, maxPEM)
		if err != nil {
			return err
		}
		if !bytes.Equal(content, v.keys[name]) {
			v.problem(damagef(m.place(), 0, "it is not the public key of the heads that name it"))
		}
	}
	return v.passOver(keysFolder, "")
}

// readSegments passes over the objects of a damaged ledger.
func (v *verifier) readSegments() error { return v.passOver(segmentsFolder, "") }

// passOver passes over files in a folder, up to the one with the name, that only the archive of a damaged ledger has. Nothing but SHA256SUMS vouches for them.
func (v *verifier) passOver(folder, until string) error {
	for last := ""; v.damaged() && v.at != nil && strings.HasPrefix(v.at.name, folder) && (until == "" || v.at.name < until); {
		if v.at.name <= last {
			return damagef(v.at.place(), 0, "this file is not in its place")
		}
		last = v.at.name
		if err := v.read(func(io.Reader) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// readItems checks items against the ledger. When the ledger is broken, or was damaged when the archive was made, only what they are named by can be checked.
func (v *verifier) readItems() error {
	if v.at != nil && !strings.HasPrefix(v.at.name, itemsFolder) && v.at.name != sumsFile {
		return v.expect(sumsFile)
	}
	for _, item := range v.inventory.items {
		if v.at != nil && v.at.name == item.file() {
			if err := v.readItem(item); err != nil {
				return err
			}
			continue
		}
		if item.removed == 0 && !v.broken {
			at := Place{Object: item.file(), Offset: v.in.offset}
			if v.at != nil {
				at.Offset = v.at.offset
			}
			v.problem(damagef(at, item.seq, "the item that entry %d names is missing%s", item.seq, v.reason(item)))
		}
	}
	for (v.broken || v.damaged()) && v.at != nil && strings.HasPrefix(v.at.name, itemsFolder) {
		if err := v.readItem(nil); err != nil {
			return err
		}
	}
	if v.at != nil && strings.HasPrefix(v.at.name, itemsFolder) {
		return v.surplus()
	}
	return nil
}

// surplus says why an item is not where it is.
func (v *verifier) surplus() error {
	digest := "sha256:" + strings.TrimPrefix(v.at.name, itemsFolder)
	switch {
	case v.present[digest]:
		return damagef(v.at.place(), 0, "this item is in the archive twice")
	case v.inventory.byDigest[digest] != nil:
		// It was noted as missing where it should have been.
		v.report.Problems = slices.DeleteFunc(v.report.Problems, func(p *DamageError) bool { return p.Object == v.at.name })
		return damagef(v.at.place(), 0, "this item is not in its place")
	}
	return damagef(v.at.place(), 0, "no entry of the ledger names this item")
}

// reason is what the manifest says about an item that is missing.
func (v *verifier) reason(item *item) string {
	for i := range v.manifest.Items {
		if m := &v.manifest.Items[i]; m.Digest == item.digest && m.State == itemMissing {
			return ", as the manifest says; it was not in the store when the archive was made: " + m.Reason
		}
	}
	return ""
}

// readItem reads the item that is next. item is nil when the ledger does not tell any more.
func (v *verifier) readItem(item *item) error {
	m := v.at
	if err := v.read(func(io.Reader) error { return nil }); err != nil {
		return err
	}
	found := v.sums[len(v.sums)-1][:2*sha256.Size]
	switch {
	case itemsFolder+found != m.name:
		v.problem(damagef(m.place(), seqOf(item), "this item was changed: its digest is sha256:%s", found))
	case item != nil && m.size != item.size:
		v.problem(damagef(m.place(), item.seq, "this item has %d bytes, and entry %d says %d", m.size, item.seq, item.size))
	}
	v.present["sha256:"+strings.TrimPrefix(m.name, itemsFolder)] = true
	v.report.Items++
	v.report.ItemBytes += m.size
	if item != nil && item.encrypted {
		v.report.Encrypted++
	}
	return nil
}

func seqOf(item *item) int64 {
	if item == nil {
		return 0
	}
	return item.seq
}

// readSums checks the last member and the end.
func (v *verifier) readSums() error {
	if err := v.expect(sumsFile); err != nil {
		return err
	}
	want, members := v.sums, v.members
	at := v.at.place()
	if v.at.size != int64(len(strings.Join(want, ""))) {
		v.problem(damagef(at, 0, "it is not the list of the digests of the other files"))
	}
	content, err := v.whole(sumsFile, maxManifest)
	if err != nil {
		return err
	}
	for i, line := range want {
		rest, same := bytes.CutPrefix(content, []byte(line))
		if !same {
			v.disagreement(members[i], at, i+1)
			break
		}
		content = rest
	}
	if v.at != nil {
		return v.expect("the end of the archive")
	}
	return nil
}

// disagreement notes that a member does not have the digest that SHA256SUMS has, unless something was found wrong with it already.
func (v *verifier) disagreement(m *member, sums Place, line int) {
	if slices.ContainsFunc(v.report.Problems, func(p *DamageError) bool { return p.Object == m.name }) {
		return
	}
	v.problem(damagef(m.place(), 0, "this file was changed, or line %d of %s, at byte %d, was: they do not agree", line, sums.Object, sums.Offset))
}

// checkManifest compares the manifest with what was found.
func (v *verifier) checkManifest() {
	at := Place{Object: manifestFile, Offset: v.members[1].offset}
	m := &v.manifest
	if d := m.Ledger.Damage; d != nil {
		was := &DamageError{Place: Place{Object: d.Object, Line: d.Line, Offset: d.Byte}, Seq: d.Entry, Problem: d.Problem}
		v.problem(damagef(at, d.Entry, "the ledger was damaged in the store when the archive was made: %s", was.Error()))
	}
	if v.broken || v.damaged() {
		return
	}
	if m.Ledger.Entries != v.chain.seq() || m.Ledger.Digest != v.chain.previous {
		v.problem(damagef(at, 0, "it says that the ledger has %d entries and ends with the digest %s; it has %d and ends with %s", m.Ledger.Entries, m.Ledger.Digest, v.chain.seq(), v.chain.previous))
	}
	for _, name := range m.Ledger.Incomplete {
		v.problem(damagef(Place{Object: ledgerFile, Offset: v.members[2].offset}, v.chain.seq()+1,
			"the ledger is not complete: when the archive was made, the object %q was cut off, as a store leaves it that fails while it is written to, or written by somebody else, and no entry told of it yet", name))
	}
	absent := map[string]string{}
	for _, item := range v.inventory.items {
		if v.present[item.digest] {
			continue
		}
		absent[item.digest] = ""
		if item.removed > 0 {
			v.report.Removed++
		}
	}
	want := v.inventory.manifestItems(absent)
	got := slices.Clone(m.Items)
	for i := range got {
		if got[i].State == itemMissing {
			got[i].Reason = ""
		}
	}
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		v.problem(damagef(at, 0, "the items in it are not those that the ledger names and the archive has"))
	}
}

// checkPins compares with what the reader knows.
func (v *verifier) checkPins() {
	if v.report.Signed == 0 && !v.broken {
		v.problem(damagef(Place{Object: ledgerFile, Offset: v.members[2].offset}, 1, "nobody has signed it: there is no head"))
	}
	if pin := v.options.Head; pin != nil {
		at := Place{Object: ledgerFile, Offset: v.members[2].offset}
		if damage := v.chain.contains(pin.Seq, pin.Digest, at); damage != nil && (!v.broken || pin.Seq <= v.chain.seq()) {
			damage.Problem = "the head that was given does not fit the ledger: " + damage.Problem
			v.problem(damage)
		}
	}
	heads := v.report.Heads
	if len(v.options.KeyIDs) == 0 || len(heads) == 0 {
		return
	}
	last := &heads[len(heads)-1]
	if !slices.Contains(v.options.KeyIDs, last.KeyID) {
		v.problem(damagef(Place{Object: headName(last.Seq)}, last.Seq, "the last head is signed by the key %s, which is not one that was given", last.KeyID))
	}
}

// note says what the reader should know.
func (v *verifier) note() {
	r := v.report
	if n := r.Entries - r.Signed; n > 0 && !v.broken {
		v.notef("NOT SIGNED: the last %d entries, from entry %d on, were recorded after the last signed head. Whoever could write to the store could have changed them.", n, r.Signed+1)
	}
	v.noteKeys()
	if v.options.Head == nil {
		v.notef("No head was given, so it is not known whether later entries were cut off together with their heads. Compare with another copy: status.custody of the Incident has number and digest of the last entry.")
	} else if v.options.Head.Seq < r.Entries {
		v.notef("The head that was given covers entry %d. Whether entries after entry %d were cut off is not known.", v.options.Head.Seq, r.Entries)
	}
	trusted, untrusted := 0, 0
	for _, h := range r.Heads {
		switch {
		case h.Timestamp == nil:
		case h.Timestamp.Trusted:
			trusted++
		default:
			untrusted++
		}
	}
	if untrusted > 0 {
		v.notef("%d heads have a time stamp that covers their signature. Whether its authority can be trusted is for the reader to establish: no roots were given.", untrusted)
	}
	if trusted > 0 {
		v.notef("%d heads have a time stamp that the given roots vouch for.", trusted)
	}
	v.notef("Namespace and name of the Incident and the time of the export are what the manifest says. Nothing signed says so; the UID is in every signature.")
}

func (v *verifier) noteKeys() {
	var ids, others []string
	for _, h := range v.report.Heads {
		if !slices.Contains(ids, h.KeyID) {
			ids = append(ids, h.KeyID)
		}
	}
	for _, id := range ids {
		if !slices.Contains(v.options.KeyIDs, id) {
			others = append(others, id)
		}
	}
	switch {
	case len(ids) == 0:
	case len(v.options.KeyIDs) == 0:
		v.notef("No key was given. That the key %s is the operator's is not known from the archive: compare it with another copy, such as status.custody.keyID of the Incident.", strings.Join(ids, ", "))
	case len(others) > 0:
		v.notef("Earlier heads are signed by keys that were not given: %s. What they cover is covered by the last head as well.", strings.Join(others, ", "))
	}
}
