package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Bounds of a segment. What is appended at once is written in as many segments as it takes.
const (
	maxSegmentEntries = 1000
	maxSegmentBytes   = 1 << 20
)

const (
	// maxRejoins is how often an append goes on after somebody else has written first. Each time, somebody has made progress.
	maxRejoins = 256
	// maxTorn is how many objects an append leaves behind in a store that cuts off what it is given.
	maxTorn = 3
)

// ErrContended says that others kept writing to the ledger, so that an append did not come to its turn. It may be tried again.
var ErrContended = errors.New("others keep writing to the ledger")

// Append records the facts that the ledger does not have, in the order given, each segment sealed with the key, and returns how many entries this call has written for them. Where another writer is faster, it reads what that one wrote,
// drops the facts that are there now, and goes on, so that several operators may append at the same time. When a write fails, what the store holds afterwards decides: a write whose answer was
// lost is a write. (Where another operator has written the very same line in the same second, it counts for both.)
//
// On an error some of the facts may have been recorded; appending all of them again is always right, after the ledger was opened anew: it may be of no more use as it is. Appending nothing writes only what
// the ledger has to tell about objects that do not count.
func (l *Ledger) Append(ctx context.Context, key Signer, facts []Fact, now time.Time) (added int, err error) {
	wanted := make([]Fact, 0, len(facts))
	for i, fact := range facts {
		fact, err := prepare(fact, l.incident)
		if err != nil {
			return 0, fmt.Errorf("fact %d (%q) cannot be recorded: %w", i, bounded(fact.ID, MaxID), err)
		}
		wanted = append(wanted, fact)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(ctx, key, wanted, inSeconds(now))
}

func (l *Ledger) append(ctx context.Context, key Signer, wanted []Fact, now time.Time) (added int, err error) {
	if l.broken != nil {
		return 0, l.broken
	}
	l.trust.add(KeyID(key.PublicKey()))
	rejoins, torn := 0, 0
	for {
		segment, err := l.segment(ctx, key, wanted, now)
		if err != nil || len(segment.entries) == 0 {
			return added, err
		}
		werr := l.objects.Create(ctx, l.key(segment.name), segment.data)
		if werr == nil {
			l.adopt(segment)
			added += segment.facts
			continue
		}
		seq, voids := l.chain.seq(), len(l.voids)
		if err := l.reload(ctx, segment.name, werr); err != nil {
			return added, fmt.Errorf("appending to the ledger: %w", err)
		}
		if l.chain.seq() == seq && len(l.voids) == voids {
			return added, fmt.Errorf("appending to the ledger: writing %s: %w", l.key(segment.name), werr)
		}
		added += segment.written(l.entries[seq:])
		if len(l.voids) > voids {
			torn++
		} else {
			rejoins++
		}
		switch {
		case torn >= maxTorn:
			return added, fmt.Errorf("appending to the ledger: the store has cut off %d objects in a row: %w", torn, werr)
		case rejoins >= maxRejoins:
			return added, fmt.Errorf("appending to the ledger: %w", ErrContended)
		}
	}
}

// reload reads what there is after a write has failed (werr). Where the object that was to be written is not right, that may well be because of the failure, and a disk or a network that gives back something wrong
// for a while. It is not said to be damaged before the ledger was opened anew.
func (l *Ledger) reload(ctx context.Context, name string, werr error) error {
	err := l.load(ctx)
	if damage, damaged := errors.AsType[*DamageError](err); damaged && damage.Object == l.key(name) {
		l.broken = fmt.Errorf("%w; and what is there is not what was written: %s", werr, damage.Error())
		return l.broken
	}
	if err != nil {
		return fmt.Errorf("%w; and reading it again: %w", werr, err)
	}
	return nil
}

// segment is what is to be written next.
type segment struct {
	name    string
	data    []byte
	entries []Entry
	// ends are where the lines of the entries end in data, before the newline.
	ends []int
	// seal is the line after them.
	seal Head
	// facts is how many of the entries the caller has asked for.
	facts int
}

// segment makes the next segment: first what there is to tell of objects that do not count, then the facts that are not in the ledger, and the seal.
func (l *Ledger) segment(ctx context.Context, key Signer, wanted []Fact, now time.Time) (*segment, error) {
	next := l.chain.seq() + 1
	attempt := l.attempts[next]
	if attempt > maxAttempt {
		return nil, fmt.Errorf("appending to the ledger: there are %d objects in the place of entry %d, and none of them counts", attempt, next)
	}
	s := &segment{name: segmentName(next, attempt)}
	inSegment := map[string]bool{}
	previous := l.chain.previous
	add := func(fact Fact) {
		if l.chain.ids[fact.ID] > 0 || inSegment[fact.ID] || len(s.entries) >= maxSegmentEntries || len(s.data) >= maxSegmentBytes {
			return
		}
		if fact.At.IsZero() {
			fact.At = now
		}
		e := Entry{Seq: next + int64(len(s.entries)), RecordedAt: now, Previous: previous, Fact: fact}
		begin := len(s.data)
		s.data = AppendEntry(s.data, &e)
		previous = digest(s.data[begin:])
		s.ends = append(s.ends, len(s.data))
		s.data = append(s.data, '\n')
		s.entries = append(s.entries, e)
		inSegment[fact.ID] = true
	}
	for _, fact := range l.unnoted() {
		add(fact)
	}
	notes := len(s.entries)
	for _, fact := range wanted {
		add(fact)
	}
	s.facts = len(s.entries) - notes
	if len(s.entries) == 0 {
		return s, nil
	}
	seal, err := l.newHead(ctx, key, next+int64(len(s.entries))-1, previous, now)
	if err != nil {
		return nil, fmt.Errorf("appending to the ledger: %w", err)
	}
	s.seal, s.data = seal, append(s.data, seal.encode()...)
	return s, nil
}

// line is a line of the segment.
func (s *segment) line(i int) []byte {
	begin := 0
	if i > 0 {
		begin = s.ends[i-1] + 1
	}
	return s.data[begin:s.ends[i]]
}

// written is how many of the entries, which the store has in the place of the segment, are those that the caller has asked for.
func (s *segment) written(there []Entry) int {
	same := 0
	for i := range min(len(s.entries), len(there)) {
		if !bytes.Equal(s.line(i), AppendEntry(nil, &there[i])) {
			break
		}
		same++
	}
	return max(0, same-(len(s.entries)-s.facts))
}

// adopt takes what was written.
func (l *Ledger) adopt(s *segment) {
	first := l.chain.seq() + 1
	at := Place{Object: l.key(s.name), Line: 1}
	for i := range s.entries {
		l.chain.append(&s.entries[i], s.line(i), at)
		l.entries = append(l.entries, s.entries[i])
		at.Line++
		at.Offset += int64(len(s.line(i))) + 1
	}
	l.seals = append(l.seals, s.seal)
	l.read[s.name] = true
	l.attempts[first]++
	// What was told of voids is known to be right: the facts were made from them.
	for i := range l.voids {
		l.voids[i].noted = l.voids[i].noted || l.chain.ids[voidPrefix+l.voids[i].name] > 0
	}
}
