package custody

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Names of the members of an archive, in their order. Between ledger and sums are heads/<number>.json, keys/<key id>.pem, segments/<name> if the ledger is damaged, and items/<sha256>.
const (
	readmeFile   = "README.txt"
	manifestFile = "manifest.json"
	ledgerFile   = "ledger.jsonl"
	sumsFile     = "SHA256SUMS"
)

//go:embed readme.txt
var readmeText string

// ErrNoLedger says that the store has no ledger of the Incident.
var ErrNoLedger = errors.New("the store has no ledger of this Incident")

// Incident names an Incident. Only the UID is protected by the ledger.
type Incident struct {
	Namespace string
	Name      string
	UID       string
}

// ExportOptions say what an archive says about its making.
type ExportOptions struct {
	// Now is the time of the export.
	Now time.Time
	// Tool is the program and its version.
	Tool string
	// Head, if set, is a head that was seen before; Exported tells whether the ledger still fits it.
	Head *Pin
	// Progress, if set, is told after each piece what is being done, and how much of it, in bytes.
	Progress func(step string, done, total int64)
}

// Exported says what went into an archive.
type Exported struct {
	Size    int64
	Entries int64
	Items   int
	// Removed is how many items are not there because they were removed, as the ledger tells.
	Removed int
	// Missing has the reason, by digest, why an item is not there that should be. VerifyArchive does not accept such an archive.
	Missing map[string]string
	// Incomplete names objects that do not count and that no entry tells of: the operator was writing, or did not come to tell. VerifyArchive does not accept such an archive.
	Incomplete []string
	// Unsigned is how many entries follow the last head or seal, and KeyID the key of that; empty if it is damaged, or there is none. Whose key that is, the store cannot tell.
	Unsigned int64
	KeyID    string
	// Damage says what is wrong with the ledger in the store; nil if nothing is. The archive has what there is of it, and VerifyArchive does not accept it.
	Damage *DamageError
	// HeadProblem says how the ledger does not fit the head that was given: it was cut off or written anew. It is a *DamageError, and nil if the head fits or none was given.
	HeadProblem error
}

// Export writes the archive of an Incident to w: the ledger, its heads and keys, and every item that it names, once. What the store holds is verified first. Of a ledger
// that is not what was written, what there is goes into the archive, which says so. Memory is bounded by the size of the ledger. Every item is read twice: once to see whether it is what the ledger says, because the manifest has to tell and a tar file cannot be changed
// behind the position of writing, and once to write it. On an error what was written is not an archive.
func Export(ctx context.Context, objects Objects, incident Incident, w io.Writer, options ExportOptions) (*Exported, error) {
	if err := checkUID(incident.UID); err != nil {
		return nil, fmt.Errorf("exporting the ledger: %w", err)
	}
	x := &export{objects: objects, incident: incident, options: options, absent: map[string]string{}}
	if err := x.survey(ctx); err != nil {
		return nil, fmt.Errorf("exporting Incident %s: %w", incident.UID, err)
	}
	x.out = tarWriter{w: w, modified: inSeconds(options.Now)}
	if err := x.write(ctx); err != nil {
		return nil, fmt.Errorf("exporting Incident %s: %w", incident.UID, err)
	}
	return x.result(), nil
}

// export is one export under way.
type export struct {
	objects Objects
	// record is the ledger, and headProblem how it does not fit the head that was given.
	record      *record
	headProblem error
	inventory   *inventory
	incident    Incident
	options     ExportOptions
	// absent are the items that cannot be had, with the reason.
	absent map[string]string
	out    tarWriter
	sums   bytes.Buffer
}

// survey reads the ledger and every item.
func (x *export) survey(ctx context.Context) error {
	if err := x.readLedger(ctx); err != nil {
		return err
	}
	x.inventory = inventoryOf(slices.Values(x.record.entries))
	if err := x.readItems(ctx); err != nil || x.record.damage == nil {
		return err
	}
	return x.unnamed(ctx)
}

// readLedger reads the ledger, or what there is of it.
func (x *export) readLedger(ctx context.Context) error {
	l, err := openAny(ctx, x.objects, x.incident.UID)
	damage, damaged := errors.AsType[*DamageError](err)
	if err != nil && !damaged {
		return err
	}
	if pin := x.options.Head; pin != nil {
		x.headProblem = l.Contains(pin.Seq, pin.Digest)
	}
	if l.Seq() == 0 && !damaged && x.headProblem != nil {
		// There was a ledger, and it is gone with its heads. What else there is of the Incident is all the more important.
		keys, err := x.objects.Keys(ctx, folder(x.incident.UID))
		if err != nil || len(keys) == 0 {
			return cmp.Or(err, ErrNoLedger)
		}
		damage, damaged = errors.AsType[*DamageError](x.headProblem)
	}
	switch {
	case damaged:
		if x.record, err = l.salvage(ctx, damage); err == nil {
			x.headProblem = x.record.headProblem(x.options.Head)
		}
	case l.Seq() == 0:
		return ErrNoLedger
	default:
		x.record, err = l.record()
	}
	return err
}

func (x *export) readItems(ctx context.Context) error {
	total := x.itemBytes()
	var done int64
	for _, item := range x.inventory.items {
		if reason := x.check(ctx, item, func(n int64) { x.progress("checking items", done+n, total) }); reason != "" {
			x.absent[item.digest] = bounded(reason, MaxDetail)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		done += item.size
	}
	return nil
}

// check says why an item cannot be had; "" if it can.
func (x *export) check(ctx context.Context, item *item, progress func(int64)) string {
	r, err := x.objects.OpenReader(ctx, item.key)
	if err != nil {
		return "it could not be opened: " + err.Error()
	}
	defer func() { _ = r.Close() }()
	hash := sha256.New()
	// One byte more than there should be is enough to see that it is too long.
	n, err := io.Copy(hash, &meter{r: io.LimitReader(r, item.size+1), progress: progress})
	switch found := "sha256:" + hex.EncodeToString(hash.Sum(nil)); {
	case err != nil:
		return "it could not be read: " + err.Error()
	case n > item.size:
		return fmt.Sprintf("it was changed: it has more than %d bytes", item.size)
	case n < item.size:
		return fmt.Sprintf("it was changed: it has %d of %d bytes", n, item.size)
	case found != item.digest:
		return "it was changed: its digest is " + found
	}
	return ""
}

func (x *export) write(ctx context.Context) error {
	m, err := x.manifest()
	if err != nil {
		return err
	}
	files := append([]object{{readmeFile, readme(x.incident.UID, x.record.damage)}, {manifestFile, m}, {ledgerFile, x.record.lines}}, x.record.heads...)
	for _, name := range slices.Sorted(maps.Keys(x.record.keys)) {
		files = append(files, object{name, x.record.keys[name]})
	}
	for _, f := range append(files, x.record.segments...) {
		if err := x.file(f.name, f.content); err != nil {
			return err
		}
	}
	if err := x.items(ctx); err != nil {
		return err
	}
	if err := x.out.member(sumsFile, int64(x.sums.Len()), &x.sums); err != nil {
		return err
	}
	return x.out.end()
}

// file writes a small member.
func (x *export) file(name string, content []byte) error {
	x.sum(name, digest(content))
	return x.out.member(name, int64(len(content)), bytes.NewReader(content))
}

// sum adds a line as sha256sum writes it.
func (x *export) sum(name, digest string) {
	fmt.Fprintf(&x.sums, "%s  %s\n", strings.TrimPrefix(digest, "sha256:"), name)
}

func (x *export) items(ctx context.Context) error {
	total := x.itemBytes()
	var done int64
	for _, item := range x.inventory.items {
		if _, absent := x.absent[item.digest]; absent {
			continue
		}
		if err := x.item(ctx, item, func(n int64) { x.progress("writing items", done+n, total) }); err != nil {
			return err
		}
		x.sum(item.file(), item.digest)
		done += item.size
	}
	return nil
}

// item writes an item. It was right a moment ago; if it is not any more, there is no archive.
func (x *export) item(ctx context.Context, item *item, progress func(int64)) error {
	r, err := x.objects.OpenReader(ctx, item.key)
	if err != nil {
		return fmt.Errorf("reading %s: %w", item.key, err)
	}
	defer func() { _ = r.Close() }()
	hash := sha256.New()
	if err := x.out.member(item.file(), item.size, io.TeeReader(&meter{r: r, progress: progress}, hash)); err != nil {
		return err
	}
	if found := "sha256:" + hex.EncodeToString(hash.Sum(nil)); found != item.digest {
		return fmt.Errorf("reading %s: its digest is %s, and was %s when it was read first", item.key, found, item.digest)
	}
	return nil
}

// itemBytes is the size of all items that can be had, as far as it is known.
func (x *export) itemBytes() int64 {
	var total int64
	for _, item := range x.inventory.items {
		if _, absent := x.absent[item.digest]; !absent {
			total += item.size
		}
	}
	return total
}

func (x *export) progress(step string, done, total int64) {
	if x.options.Progress != nil {
		x.options.Progress(step, done, total)
	}
}

func (x *export) manifest() ([]byte, error) {
	ledger := manifestLedger{Entries: x.record.seq, Digest: x.record.digest, Incomplete: x.record.incomplete}
	if d := x.record.damage; d != nil {
		ledger.Damage = &manifestDamage{Object: bounded(d.Object, MaxDetail), Line: d.Line, Byte: d.Offset, Entry: d.Seq, Problem: bounded(d.Problem, MaxDetail)}
	}
	return encodeManifest(&manifest{
		Format:     archiveFormat,
		Incident:   manifestIncident{Namespace: bounded(x.incident.Namespace, maxName), Name: bounded(x.incident.Name, maxName), UID: x.incident.UID},
		ExportedAt: inSeconds(x.options.Now),
		Tool:       bounded(x.options.Tool, maxName),
		Ledger:     ledger,
		Items:      x.inventory.manifestItems(x.absent),
	})
}

// encodeManifest writes the manifest for people.
func encodeManifest(m *manifest) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("encoding the manifest: %w", err)
	}
	return out.Bytes(), nil
}

func (x *export) result() *Exported {
	out := &Exported{
		Size: x.out.written, Entries: x.record.seq, Unsigned: x.record.seq, Items: len(x.inventory.items) - len(x.absent),
		Missing: map[string]string{}, Incomplete: x.record.incomplete, Damage: x.record.damage, HeadProblem: x.headProblem,
	}
	if heads := x.record.heads; len(heads) > 0 {
		last := heads[len(heads)-1]
		seq, _ := parseHeadName(last.name)
		out.Unsigned = max(0, out.Unsigned-seq)
		if h, err := parseHead(last.content, x.incident.UID); err == nil {
			out.KeyID = h.KeyID
		}
	}
	for digest, reason := range x.absent {
		if x.inventory.byDigest[digest].removed > 0 {
			out.Removed++
		} else {
			out.Missing[digest] = reason
		}
	}
	return out
}

// readme is the text for somebody who has the archive and not this program.
func readme(incidentUID string, damage *DamageError) []byte {
	notice := ""
	if damage != nil {
		notice = strings.ReplaceAll(damageNotice, "@DAMAGE@", damageText(damage))
	}
	return []byte(strings.NewReplacer("@UID@", incidentUID, "@NOTICE@", notice).Replace(readmeText))
}

// meter tells how much was read.
type meter struct {
	r        io.Reader
	n        int64
	progress func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.progress(m.n)
	return n, err
}
