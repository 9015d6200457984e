package custody

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Ledger is the ledger of one Incident as it was last read. Its methods may be called at the same time.
type Ledger struct {
	objects  Objects
	incident string

	mu      sync.Mutex
	chain   chain
	entries []Entry
	// read are the names of the objects that were read.
	read  map[string]bool
	voids []void
	// seals are those of the segments, in order.
	seals []Head
	trust trust
	// attempts are how many segments began with an entry that none of them has, by the number of the entry.
	attempts map[int64]int
	heads    []Head
	// broken says why nothing can be appended to it.
	broken error
}

// openings is how often a ledger is read before it is said to be damaged. What comes from a disk or a network wrong once may come right the next time.
const openings = 2

// Open reads the ledger of the Incident and its heads, and verifies everything there is; an Incident without a ledger has an empty one. The error is a *DamageError when the ledger is not what was
// written. A ledger that ends in a segment that does not count is accepted; the next Append or Sign tells of it in an entry.
//
// Without TrustOnly it does not matter whose keys have signed: that is for the reader to judge. Whoever writes has to know whose lines it goes on from.
func Open(ctx context.Context, objects Objects, incidentUID string, options ...OpenOption) (*Ledger, error) {
	if err := checkUID(incidentUID); err != nil {
		return nil, fmt.Errorf("opening a ledger: %w", err)
	}
	l, err := openAny(ctx, objects, incidentUID, options...)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger of Incident %s: %w", incidentUID, err)
	}
	return l, nil
}

// openAny also returns a ledger that is damaged, as far as it could be read.
func openAny(ctx context.Context, objects Objects, incidentUID string, options ...OpenOption) (*Ledger, error) {
	for opening := 1; ; opening++ {
		l := &Ledger{objects: objects, incident: incidentUID, chain: newChain(incidentUID), read: map[string]bool{}, attempts: map[int64]int{}}
		for _, option := range options {
			option(l)
		}
		err := l.load(ctx)
		if err == nil && l.trust.known != nil {
			err = l.Contains(l.trust.known.Seq, l.trust.known.Digest)
		}
		if _, damaged := errors.AsType[*DamageError](err); !damaged || opening == openings {
			return l, err
		}
	}
}

// Has reports whether the ledger has a fact with the ID.
func (l *Ledger) Has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chain.ids[recordedID(id)] > 0
}

// Seq is the number of the last entry; 0 if there is none.
func (l *Ledger) Seq() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chain.seq()
}

// Digest is the digest of the last entry, which vouches for all before it.
func (l *Ledger) Digest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chain.previous
}

// Entries are the entries there were when it was called, in order.
func (l *Ledger) Entries() iter.Seq[Entry] {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Values(slices.Clip(l.entries))
}

// Heads are the signed heads there were when it was called, in order.
func (l *Ledger) Heads() []Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heads)
}

// Incomplete names the objects that do not count and that no entry tells of yet. The next Append or Sign writes those entries.
func (l *Ledger) Incomplete() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, f := range l.unnoted() {
		out = append(out, l.key(f.Subject.Name))
	}
	return out
}

// Contains checks that the entry has the digest, as somebody has noted it. The ledger was cut off or written anew otherwise, and the error is a *DamageError.
func (l *Ledger) Contains(seq int64, digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if damage := l.contains(seq, digest, l.chain.last); damage != nil {
		return damage
	}
	return nil
}

// contains is that of the chain. Where the end is not missing but in a segment that does not count, that is the place to look at.
func (l *Ledger) contains(seq int64, digest string, at Place) *DamageError {
	damage := l.chain.contains(seq, digest, at)
	if v := l.cutOff(); damage != nil && seq > l.chain.seq() && v != nil {
		return damagef(v.at, v.cut(), "%s: %s", v.problem(), damage.Problem)
	}
	return damage
}

func (c *chain) contains(seq int64, digest string, at Place) *DamageError {
	switch {
	case seq < 1:
		return damagef(at, 0, "%d is not the number of an entry", seq)
	case seq > c.seq():
		return damagef(at, c.seq()+1, "the ledger ends with entry %d, and it has had %d: its end was removed", c.seq(), seq)
	case c.digest(seq) != digest:
		return damagef(at, seq, "entry %d has the digest %s, and it has been %s: the ledger was written anew", seq, c.digest(seq), digest)
	}
	return nil
}

// key is the key of an object of the Incident.
func (l *Ledger) key(name string) string { return folder(l.incident) + name }

// maxListings is how often the segments are listed when one seems to be missing. A directory that is listed while somebody writes into it may show a later file and not an earlier one.
const maxListings = 3

// load reads what was not read before.
func (l *Ledger) load(ctx context.Context) error {
	if l.broken != nil {
		return l.broken
	}
	// The heads are listed first: every entry that they are about is there by then.
	heads, err := l.unread(ctx, headsFolder)
	if err != nil {
		return err
	}
	if err := l.loadSegments(ctx); err != nil {
		return err
	}
	contents, err := l.readAll(ctx, heads)
	if err != nil {
		return err
	}
	damage := l.takeHeads(heads, contents)
	if damage == nil {
		damage = l.settleVoids()
	}
	return l.breaks(damage)
}

func (l *Ledger) loadSegments(ctx context.Context) error {
	for listing := 1; ; listing++ {
		segments, err := l.unread(ctx, ledgerFolder)
		if err != nil {
			return err
		}
		contents, err := l.readAll(ctx, segments)
		if err != nil {
			return err
		}
		gap, damage := l.takeSegments(segments, contents)
		if damage == nil && gap != nil && listing == maxListings {
			damage = l.cause(gap)
		}
		if damage != nil || gap == nil {
			return l.breaks(damage)
		}
	}
}

// breaks keeps a damage, and returns it as an error.
func (l *Ledger) breaks(damage *DamageError) error {
	if damage == nil {
		return nil
	}
	l.broken = damage
	return damage
}

// cause is what a gap comes from: where the segment before it does not count, that is the place to look at.
func (l *Ledger) cause(gap *DamageError) *DamageError {
	if v := l.cutOff(); v != nil {
		return damagef(v.at, v.cut(), "%s", v.problem())
	}
	return gap
}

// cutOff is the segment that does not count in the place of the next one, the longest if there are several; nil if there is none.
func (l *Ledger) cutOff() (longest *void) {
	for i := range l.voids {
		if v := &l.voids[i]; v.next == l.chain.seq()+1 && (longest == nil || v.lines > longest.lines) {
			longest = v
		}
	}
	return longest
}

// unread lists the names in a folder of the Incident that were not read, in order. Names that are not the ledger's, such as those of a file that somebody put there, are passed over: they cannot hide
// or replace anything.
func (l *Ledger) unread(ctx context.Context, in string) ([]string, error) {
	keys, err := l.objects.Keys(ctx, l.key(in))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", l.key(in), err)
	}
	var out []string
	for _, key := range keys {
		name, below := strings.CutPrefix(key, folder(l.incident))
		_, _, segment := parseSegmentName(name)
		_, head := parseHeadName(name)
		if below && (segment || head) && !l.read[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// readers is how many objects are read at a time: a ledger of many small segments in a store that is far away would take long otherwise.
const readers = 8

func (l *Ledger) readAll(ctx context.Context, names []string) ([][]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	contents := make([][]byte, len(names))
	next := make(chan int)
	var done sync.WaitGroup
	for range min(readers, len(names)) {
		done.Go(func() {
			for i := range next {
				content, err := l.objects.Read(ctx, l.key(names[i]))
				if err != nil {
					cancel(fmt.Errorf("reading %s: %w", l.key(names[i]), err))
				}
				contents[i] = content
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	done.Wait()
	// The cause is the first error of a read, not those of the reads that were given up because of it.
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return contents, nil
}

// takeSegments takes segments in order. gap says that one is missing before a segment; it and those after it are not taken.
func (l *Ledger) takeSegments(names []string, contents [][]byte) (gap, damage *DamageError) {
	for i, name := range names {
		first, attempt, _ := parseSegmentName(name)
		at, want := Place{Object: l.key(name), Line: 1}, l.chain.seq()+1
		switch {
		case first > want:
			return damagef(at, want, "entry %d is missing: this segment begins with entry %d, and the one before it ends with entry %d", want, first, want-1), nil
		case first < want:
			return nil, damagef(at, first, "the ledger is forked: entry %d is in %s as well", first, l.chain.last.Object)
		}
		l.read[name] = true
		l.attempts[first] = max(l.attempts[first], attempt+1)
		if damage := l.takeSegment(name, contents[i]); damage != nil {
			return nil, damage
		}
	}
	return nil, nil
}

// takeSegment takes a segment, or nothing of it: a segment without its seal is void.
func (l *Ledger) takeSegment(name string, content []byte) *DamageError {
	before, entries := l.chain.mark(), len(l.entries)
	at, seal, damage := l.chain.segment(l.key(name), content, func(e Entry, _ []byte) { l.entries = append(l.entries, e) })
	if damage == nil && seal != nil {
		damage = l.takeSeal(seal, before.seq+1, at)
	}
	if damage == nil && seal != nil {
		return nil
	}
	if damage == nil {
		l.voids = append(l.voids, void{name: name, digest: digest(content), size: len(content), lines: l.chain.seq() - before.seq, next: before.seq + 1, at: at, within: at.Offset < int64(len(content))})
	}
	l.chain.back(before)
	l.entries = l.entries[:entries]
	return damage
}
