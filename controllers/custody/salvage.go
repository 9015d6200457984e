package custody

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
)

// segmentsFolder has, in the archive of a damaged ledger, the objects that it consists of in the store.
const segmentsFolder = "segments/"

// record is a ledger as an archive has it.
type record struct {
	// entries are those that are in order, and lines all lines.
	entries []Entry
	lines   []byte
	// seq and digest are of the last entry.
	seq    int64
	digest string
	// heads are those of the store and, for entries that have none there, the seals of their segments.
	heads []object
	// keys are the public keys of the heads, by the name of their file.
	keys map[string][]byte
	// chain is that of a damaged ledger.
	chain      chain
	incomplete []string
	// damage says what is wrong, if anything is. segments are the objects of such a ledger.
	damage   *DamageError
	segments []object
}

// object is one of the small files.
type object struct {
	name    string
	content []byte
}

// record is the ledger as it was read.
func (l *Ledger) record() (*record, error) {
	out := &record{entries: slices.Collect(l.Entries()), seq: l.Seq(), digest: l.Digest(), keys: map[string][]byte{}, incomplete: l.Incomplete()}
	for i := range out.entries {
		out.lines = append(AppendEntry(out.lines, &out.entries[i]), '\n')
	}
	for _, h := range l.signed() {
		public, err := h.key()
		if err != nil {
			return nil, err
		}
		out.keys[keyObject(h.KeyID)] = PublicPEM(public)
		out.heads = append(out.heads, object{headName(h.Seq), h.encode()})
	}
	return out, nil
}

// signed are the heads and, for entries that have none, the seals, in order.
func (l *Ledger) signed() []Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.heads)
	for i := range l.seals {
		if _, headed := l.headOf(l.seals[i].Seq); !headed {
			out = append(out, l.seals[i])
		}
	}
	slices.SortFunc(out, func(a, b Head) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

// salvage reads what there is of a ledger that is damaged. Its lines are the entries that are in order, and after them what follows them in the store, as it is, so that whoever verifies them comes to the damage.
func (l *Ledger) salvage(ctx context.Context, damage *DamageError) (*record, error) {
	out := &record{damage: damage, keys: map[string][]byte{}}
	var err error
	if out.segments, err = l.raw(ctx, ledgerFolder); err != nil {
		return nil, err
	}
	if out.heads, err = l.raw(ctx, headsFolder); err != nil {
		return nil, err
	}
	out.chain = newChain(l.incident)
	out.join(damage, l.key(""))
	for i := range out.segments {
		out.segments[i].name = segmentsFolder + strings.TrimPrefix(out.segments[i].name, ledgerFolder)
	}
	if err := out.addKeys(ctx, l.objects); err != nil {
		return nil, err
	}
	for _, head := range out.heads {
		h, err := parseHead(head.content, l.incident)
		if seq, _ := parseHeadName(head.name); err != nil || h.Seq != seq {
			continue
		}
		if public, err := h.key(); err == nil {
			out.keys[keyObject(h.KeyID)] = PublicPEM(public)
		}
	}
	return out, nil
}

// addKeys adds the keys in the store: a head that was changed does not lead to its own any more.
func (r *record) addKeys(ctx context.Context, objects Objects) error {
	names, err := objects.Keys(ctx, keysFolder)
	if err != nil {
		return fmt.Errorf("listing %s: %w", keysFolder, err)
	}
	for _, name := range names {
		text, pem := strings.CutSuffix(strings.TrimPrefix(name, keysFolder), ".pem")
		if _, id := hexOf("sha256:" + text); !pem || !id {
			continue
		}
		if r.keys[name], err = objects.Read(ctx, name); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return nil
}

// raw reads all objects in a folder of the ledger, in order, whether they were read before or not.
func (l *Ledger) raw(ctx context.Context, in string) ([]object, error) {
	fresh := &Ledger{objects: l.objects, incident: l.incident}
	names, err := fresh.unread(ctx, in)
	if err != nil {
		return nil, err
	}
	contents, err := fresh.readAll(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make([]object, 0, len(names))
	for i, name := range names {
		out = append(out, object{name, contents[i]})
	}
	return out, nil
}

// join makes one text of the segments. While all is in order, one without its seal does not count, as in a ledger that is not damaged, unless it is the damage itself. Seals become heads, also those that are wrong.
func (r *record) join(damage *DamageError, folder string) {
	broken := false
	for _, segment := range r.segments {
		if broken {
			r.asIs(segment.content)
			continue
		}
		before, entries, lines := r.chain.mark(), len(r.entries), len(r.lines)
		at, seal, wrong := r.chain.segment(folder+segment.name, segment.content, func(e Entry, line []byte) {
			r.entries = append(r.entries, e)
			r.lines = append(append(r.lines, line...), '\n')
		})
		switch {
		case wrong == nil && seal != nil:
			r.addHead(object{headName(r.chain.seq()), seal})
		case wrong == nil && folder+segment.name != damage.Object:
			r.chain.back(before)
			r.entries, r.lines = r.entries[:entries], r.lines[:lines]
		default:
			rest := segment.content[at.Offset:]
			broken = wrong != nil || len(rest) > 0
			r.asIs(rest)
		}
	}
	r.seq, r.digest = r.chain.seq(), r.chain.previous
}

// headProblem says how a damaged ledger, as far as it is in order, does not fit a head that was seen before; nil if it does, or none was.
func (r *record) headProblem(pin *Pin) error {
	if pin == nil {
		return nil
	}
	if damage := r.chain.contains(pin.Seq, pin.Digest, r.chain.last); damage != nil {
		return damage
	}
	return nil
}

// asIs adds what follows a damage.
func (r *record) asIs(content []byte) {
	if r.lines = append(r.lines, content...); len(content) > 0 && content[len(content)-1] != '\n' {
		r.lines = append(r.lines, '\n')
	}
}

// addHead adds a seal to the heads, unless its entry has a head.
func (r *record) addHead(seal object) {
	i, found := slices.BinarySearchFunc(r.heads, seal, func(a, b object) int { return cmp.Compare(a.name, b.name) })
	if !found {
		r.heads = slices.Insert(r.heads, i, seal)
	}
}

// unnamed adds the items in the store that no entry names which is in order: the entries that do may be those that are lost.
func (x *export) unnamed(ctx context.Context) error {
	folder := itemKey(x.incident.UID, "")
	keys, err := x.objects.Keys(ctx, folder)
	if err != nil {
		return fmt.Errorf("listing %s: %w", folder, err)
	}
	for _, key := range keys {
		text := strings.TrimPrefix(key, folder)
		if _, ok := hexOf("sha256:" + text); !ok || x.inventory.byDigest["sha256:"+text] != nil {
			continue
		}
		found := &item{digest: "sha256:" + text, key: key}
		if reason := x.measure(ctx, found); reason != "" {
			x.absent[found.digest] = bounded(reason, MaxDetail)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		x.inventory.items = append(x.inventory.items, found)
		x.inventory.byDigest[found.digest] = found
		x.inventory.named = append(x.inventory.named, manifestItem{Digest: found.digest, Size: found.size})
	}
	return nil
}

// measure finds out the size of an item of which nothing is known but its name, or says why it cannot be had.
func (x *export) measure(ctx context.Context, item *item) string {
	r, err := x.objects.OpenReader(ctx, item.key)
	if err != nil {
		return "it could not be opened: " + err.Error()
	}
	defer func() { _ = r.Close() }()
	hash := sha256.New()
	item.size, err = io.Copy(hash, r)
	switch found := "sha256:" + hex.EncodeToString(hash.Sum(nil)); {
	case err != nil:
		return "it could not be read: " + err.Error()
	case found != item.digest:
		return "it was changed: its digest is " + found
	}
	return ""
}

// damageNotice is what README.txt says first about a ledger that is damaged.
const damageNotice = `THE LEDGER IS DAMAGED

It was damaged in the store already when this archive was made:

  @DAMAGE@

So the archive is not genuine, and the checks below say BAD. What there is of the
ledger was put into it all the same:

- ledger.jsonl has the entries that are in order, and after them, as it is,
  whatever follows them in the store. The first line that check 2 complains of
  is the first bad one, unless it is a head that does not fit.
- segments/ has the objects that the ledger consists of in the store, unchanged.
  Each should end with the signed head of its last entry. One that does not is
  not complete, and its entries do not count.
- heads/ has all heads, also those that are damaged or do not fit, and, up to the
  damage, those at the end of segments.
- items/ also has items that no entry names which is in order.

Entries before the damage are as good as in any other ledger, as far as there is
a head whose signature is good and that fits them.


`

// damageText is one line for a text in which nothing else may be changed by it.
func damageText(damage *DamageError) string { return bounded(damage.Error(), MaxDetail) }
