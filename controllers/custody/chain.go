package custody

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
)

// chain checks entries one after the other. What it has accepted is a valid beginning of a ledger.
type chain struct {
	incident string
	// previous is the digest of the last line.
	previous string
	// digests are the SHA-256 of the lines, by number of the entry less one.
	digests [][sha256.Size]byte
	// ids has the number of the entry of each ID.
	ids map[string]int64
	// last is where the last line was.
	last Place
}

func newChain(incidentUID string) chain {
	return chain{incident: incidentUID, previous: genesis(incidentUID), ids: map[string]int64{}}
}

// genesis is what the first entry has as its previous digest. It ties a ledger to its Incident.
func genesis(incidentUID string) string {
	return digest([]byte("cofferdam ledger " + incidentUID))
}

func (c *chain) seq() int64 { return int64(len(c.digests)) }

// digest is the digest of an entry that is there.
func (c *chain) digest(seq int64) string {
	return "sha256:" + hex.EncodeToString(c.digests[seq-1][:])
}

// next checks that a line continues the ledger, and takes it. Nothing has changed when it does not.
func (c *chain) next(line []byte, at Place) (Entry, *DamageError) {
	e, err := parseEntry(line)
	if err != nil {
		return e, damagef(at, c.seq()+1, "this line is not entry %d: %v", c.seq()+1, err)
	}
	if damage := c.follows(&e, at); damage != nil {
		return e, damage
	}
	if e.Stored != nil {
		if problem := e.Stored.problem(c.incident); problem != "" {
			return e, damagef(at, e.Seq, "%s", problem)
		}
	}
	if earlier, taken := c.ids[e.ID]; taken {
		return e, damagef(at, e.Seq, "it repeats entry %d: both have the ID %q", earlier, e.ID)
	}
	c.append(&e, line, at)
	return e, nil
}

// mark is how far a chain was.
type mark struct {
	seq      int64
	previous string
	last     Place
}

func (c *chain) mark() mark { return mark{seq: c.seq(), previous: c.previous, last: c.last} }

// back takes back what was taken since.
func (c *chain) back(to mark) {
	if c.seq() == to.seq {
		return
	}
	c.digests, c.previous, c.last = c.digests[:to.seq], to.previous, to.last
	maps.DeleteFunc(c.ids, func(_ string, seq int64) bool { return seq > to.seq })
}

// segment takes the lines of a segment up to its seal, which it returns as it is, with its newline; none if the segment ends before it. at is where it stopped: at the seal, at the line that is wrong, or where the
// segment ends.
func (c *chain) segment(object string, content []byte, take func(e Entry, line []byte)) (at Place, seal []byte, damage *DamageError) {
	at = Place{Object: object, Line: 1}
	for rest := content; len(rest) > 0; {
		line, after, complete := bytes.Cut(rest, []byte("\n"))
		switch {
		case !complete:
			return at, nil, nil
		case isSeal(line) && len(after) == 0 && at.Line > 1:
			return at, rest, nil
		}
		e, damage := c.next(line, at)
		if damage != nil {
			return at, nil, damage
		}
		take(e, line)
		rest = after
		at.Line++
		at.Offset += int64(len(line)) + 1
	}
	return at, nil, nil
}

// follows checks number and digest.
func (c *chain) follows(e *Entry, at Place) *DamageError {
	want := c.seq() + 1
	switch {
	case e.Seq > want:
		return damagef(at, want, "entry %d is missing: entry %d follows entry %d", want, e.Seq, want-1)
	case e.Seq < want && e.Seq > 0:
		return damagef(at, e.Seq, "entry %d is here again, where entry %d belongs", e.Seq, want)
	case e.Seq < want:
		return damagef(at, want, "%d is not the number of an entry", e.Seq)
	case e.Previous == c.previous:
		return nil
	case want == 1:
		return damagef(at, want, "entry 1 does not begin the ledger of the Incident with the UID %s: its previous digest is %s, not %s", c.incident, e.Previous, c.previous)
	}
	// Which of the two lines is the wrong one, they do not tell. The digest in the later one was true when it was written, unless that line is a forgery from the first.
	return damagef(c.last, want-1, "entry %d is not the one that entry %d was written after: its digest is %s, and entry %d has %s", want-1, want, c.previous, want, e.Previous)
}

func (c *chain) append(e *Entry, line []byte, at Place) {
	sum := sha256.Sum256(line)
	c.digests = append(c.digests, sum)
	c.previous = "sha256:" + hex.EncodeToString(sum[:])
	c.ids[e.ID] = e.Seq
	c.last = at
}
