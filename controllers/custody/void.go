package custody

import "fmt"

// void is an object, or the end of one, that does not count because the store has cut it off while it was written: it ends within a line.
type void struct {
	// name is that of the object, below the folder of the Incident.
	name string
	// digest and size are those of the whole object.
	digest string
	size   int
	// lines is how many of its lines count.
	lines int
	// next is the number of the first entry that did not count, and at where it would have been.
	next int64
	at   Place
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
		Detail:  fmt.Sprintf("the store has cut off this object: its first %d lines count, and what follows them of its %d bytes (SHA-256 %s) does not", v.lines, v.size, v.digest),
	}
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
			return damagef(Place{Object: l.key(v.name)}, seq, "it has changed since the ledger told that it was cut off: it has %d bytes now, with the SHA-256 %s", v.size, v.digest)
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
