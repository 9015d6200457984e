package custody

import "fmt"

// void is an object that does not count, because it is not complete: it ends within a line, or it is a segment without its seal. So the store leaves what it has cut off while it was written; and so is what somebody
// else has put there who has no key.
type void struct {
	// name is that of the object, below the folder of the Incident.
	name string
	// digest and size are those of the whole object.
	digest string
	size   int
	// lines is how many lines of a segment follow the ledger, and next the number of the first of them. at is where the segment ends, or where the line begins within which it does.
	lines  int64
	next   int64
	at     Place
	within bool
	// noted says that an entry tells of it.
	noted bool
}

// fact is what the ledger records about it. It depends on nothing but the object.
func (v *void) fact() Fact {
	return Fact{
		ID:      voidPrefix + v.name,
		Actor:   Actor{Kind: ActorObservation, Name: "custody"},
		Action:  ActionVoid,
		Subject: Subject{Kind: "StoreObject", Name: v.name},
		Detail:  fmt.Sprintf("this object is not complete and has no signature: the store has cut it off, or somebody else has written it; nothing in it counts. It has %d bytes (SHA-256 %s)", v.size, v.digest),
	}
}

// cut is the number of the entry at the end of a segment that is not there.
func (v *void) cut() int64 { return v.next + v.lines }

// problem says what is wrong with a segment where something is missing.
func (v *void) problem() string {
	where := fmt.Sprintf("after entry %d, before its seal", v.cut()-1)
	switch {
	case v.within:
		where = fmt.Sprintf("within entry %d or its seal", v.cut())
	case v.lines == 0:
		where = "before its first entry"
	}
	return fmt.Sprintf("this segment was cut off, so that nothing in it counts (or it was written by a version that did not seal segments): it ends %s", where)
}

// settleVoids finds the entries that tell of voids, and checks that these have not changed since.
func (l *Ledger) settleVoids() *DamageError {
	for i := range l.voids {
		v := &l.voids[i]
		want := v.fact()
		seq := l.chain.ids[want.ID]
		if v.noted || seq == 0 {
			continue
		}
		if l.entries[seq-1].Detail != want.Detail {
			return damagef(Place{Object: l.key(v.name)}, seq, "it has changed since the ledger told that it does not count: it has %d bytes now, with the SHA-256 %s", v.size, v.digest)
		}
		v.noted = true
	}
	return nil
}

// unnoted are the facts about voids that the ledger has yet to tell of.
func (l *Ledger) unnoted() []Fact {
	var out []Fact
	for i := range l.voids {
		if !l.voids[i].noted {
			out = append(out, l.voids[i].fact())
		}
	}
	return out
}
