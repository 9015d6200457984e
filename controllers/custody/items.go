package custody

import (
	"iter"
	"slices"
	"time"
)

// itemState says what became of an item.
type itemState string

const (
	// itemPresent says that it is in the archive.
	itemPresent itemState = "Present"
	// itemRemoved says that the ledger tells of its removal, and that it is gone.
	itemRemoved itemState = "Removed"
	// itemMissing says that it should be in the store, and could not be read, or was not what the ledger says.
	itemMissing itemState = "Missing"
)

// archiveFormat is the format of archives that this version writes, and the only one that it reads.
const archiveFormat = "cofferdam.dev/evidence-archive/v1"

// manifest is manifest.json.
type manifest struct {
	Format     string           `json:"format"`
	Incident   manifestIncident `json:"incident"`
	ExportedAt time.Time        `json:"exportedAt"`
	Tool       string           `json:"tool"`
	Ledger     manifestLedger   `json:"ledger"`
	Items      []manifestItem   `json:"items"`
}

type manifestIncident struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

type manifestLedger struct {
	Entries int64  `json:"entries"`
	Digest  string `json:"digest"`
	// Incomplete are the objects that do not count, because they are not complete, and that no entry tells of.
	Incomplete []string `json:"incomplete,omitempty"`
	// Damage says what is wrong with the ledger in the store. Entries and Digest are then of what is in order before that.
	Damage *manifestDamage `json:"damage,omitempty"`
}

// manifestDamage is a *DamageError.
type manifestDamage struct {
	Object  string `json:"object,omitempty"`
	Line    int    `json:"line,omitempty"`
	Byte    int64  `json:"byte"`
	Entry   int64  `json:"entry,omitempty"`
	Problem string `json:"problem"`
}

// manifestItem is one entry of the ledger that names an item. Several may name the same one. Where the ledger is damaged, items that no entry names have the number 0.
type manifestItem struct {
	Seq         int64     `json:"seq"`
	State       itemState `json:"state"`
	File        string    `json:"file,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Name        string    `json:"name,omitempty"`
	MediaType   string    `json:"mediaType,omitempty"`
	Digest      string    `json:"digest"`
	Size        int64     `json:"size"`
	PlainDigest string    `json:"plainDigest,omitempty"`
	PlainSize   int64     `json:"plainSize,omitempty"`
	Encrypted   bool      `json:"encrypted"`
}

// item is one object in the store, by its digest.
type item struct {
	digest, key string
	size        int64
	// seq is the first entry that names it, and removed the last one that tells of its removal; 0 if it was stored again later, or never removed.
	seq, removed int64
	encrypted    bool
}

// file is its name in an archive.
func (i *item) file() string {
	text, _ := hexOf(i.digest)
	return itemsFolder + text
}

// inventory is what entries say about items.
type inventory struct {
	// items are in the order in which the ledger names them first.
	items []*item
	named []manifestItem
	// byDigest finds items.
	byDigest map[string]*item
}

func newInventory() *inventory { return &inventory{byDigest: map[string]*item{}} }

// take takes an entry, and returns what is wrong with it in the light of earlier ones; "" if nothing is.
func (inv *inventory) take(e *Entry) string {
	if e.Stored == nil {
		return ""
	}
	s := e.Stored
	known := inv.byDigest[s.Digest]
	removal := e.Action == ActionRemoveEvidence
	switch {
	case known == nil && removal:
		return "" // nothing can be missed
	case known == nil:
		known = &item{digest: s.Digest, key: s.Key, size: s.Size, seq: e.Seq, encrypted: s.Encrypted}
		inv.items = append(inv.items, known)
		inv.byDigest[s.Digest] = known
	case known.size != s.Size:
		return "it gives the item " + s.Digest + " another size than earlier entries"
	}
	if removal {
		known.removed = e.Seq
		return ""
	}
	known.removed = 0
	inv.named = append(inv.named, manifestItem{
		Seq: e.Seq, Name: s.Name, MediaType: s.MediaType, Digest: s.Digest, Size: s.Size,
		PlainDigest: s.PlainDigest, PlainSize: s.PlainSize, Encrypted: s.Encrypted,
	})
	return ""
}

// inventoryOf is what a whole ledger says. What is wrong with it is left to a verifier.
func inventoryOf(entries iter.Seq[Entry]) *inventory {
	inv := newInventory()
	for e := range entries {
		inv.take(&e)
	}
	return inv
}

// manifestItems are the items as the manifest has them, given the reasons, by digest, why some are not in the archive.
func (inv *inventory) manifestItems(absent map[string]string) []manifestItem {
	out := slices.Clone(inv.named)
	for i := range out {
		known := inv.byDigest[out[i].Digest]
		reason, isAbsent := absent[known.digest]
		switch {
		case !isAbsent:
			out[i].State, out[i].File = itemPresent, known.file()
		case known.removed > 0:
			out[i].State = itemRemoved
		default:
			out[i].State, out[i].Reason = itemMissing, reason
		}
	}
	return out
}
