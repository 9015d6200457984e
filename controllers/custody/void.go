package custody

import "fmt"

// void is an object, or the end of one, that does not count because the store has damaged it.
type void struct {
	// name is that of the object, below the folder of the Incident.
	name string
	// digest and size are those of the whole object.
	digest string
	size   int
	// lines is how many of its lines count.
	lines int
	// next is the number of the first entry that did not count.
	next int64
	// torn says that the object ends within a line, as a store leaves it that was cut off.
	torn bool
	// damage says what is wrong with it.
	damage *DamageError
	// accepted says that the object is one that this process failed to write just now, so that the damage is no sign of anything but the failure.
	accepted bool
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
		Detail:  fmt.Sprintf("the store damaged this object when it was written: its first %d lines count, the rest of its %d bytes (SHA-256 %s) does not", v.lines, v.size, v.digest),
	}
}

// settleVoids finds the entries that tell of voids. A void that no entry tells of is damage, unless it is what a store leaves that was cut off, or the object that this process failed to write just now (own).
func (l *Ledger) settleVoids(own string) *DamageError {
	for i := range l.voids {
		v := &l.voids[i]
		if v.noted {
			continue
		}
		v.accepted = v.accepted || v.name == own
		want := v.fact()
		seq, noted := l.chain.ids[want.ID]
		switch {
		case noted && l.entries[seq-1].Detail != want.Detail:
			return damagef(Place{Object: l.key(v.name)}, seq, "it has changed since the ledger told that it is damaged: it has %d bytes now, with the SHA-256 %s", v.size, v.digest)
		case noted:
			v.noted = true
		case !v.torn && !v.accepted:
			return v.damage
		}
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
