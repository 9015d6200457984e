package custody

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// isSeal reports whether a line is, or was meant to be, the seal of a segment and not an entry.
func isSeal(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"format":`)) }

// takeSeal checks the seal of a segment whose entries, from the first one on, were taken.
func (l *Ledger) takeSeal(line []byte, first int64, at Place) *DamageError {
	seq := l.chain.seq()
	seal, err := parseSeal(line, l.incident, seq)
	if err != nil {
		return damagef(at, seq, "this is not the seal of entry %d: %v", seq, err)
	}
	if damage := l.chain.contains(seq, seal.Digest, at); damage != nil {
		damage.Problem = "this seal does not fit the segment: " + damage.Problem
		return damage
	}
	if l.trust.refuses(&seal) {
		return damagef(at, first, "the entries from %d to %d are signed by the key %s, which is not the operator's", first, seq, seal.KeyID)
	}
	l.seals = append(l.seals, seal)
	return nil
}

// parseSeal reads the seal of the entry. A seal is a head that nobody was asked to time-stamp.
func parseSeal(line []byte, incidentUID string, seq int64) (Head, error) {
	if len(line) > maxLine {
		return Head{}, errors.New("it is longer than a seal can be")
	}
	h, err := parseHead(line, incidentUID)
	switch {
	case err != nil:
		return h, err
	case h.Seq != seq:
		return h, fmt.Errorf("it is about entry %d", h.Seq)
	case h.Timestamp != "":
		return h, errors.New("it has a time stamp")
	}
	return h, nil
}

// trust is whose signatures the ledger goes on from.
type trust struct {
	// only says that keys are all that are trusted. Otherwise every key is.
	only bool
	keys []string
	// known is an entry that was noted elsewhere, and vouches for all before it.
	known *Pin
}

// OpenOption changes how a ledger is opened.
type OpenOption func(*Ledger)

// TrustOnly makes Open, and whatever is read later, take nothing that was not signed by one of the keys, or by the one that Append or Sign is given, for the ledger: whoever can write to the store could add to
// it otherwise. known, if set, is an entry that was noted where others cannot write: the ledger has to contain it, and, as its digest vouches for what is before it, whose keys have signed that does not matter.
func TrustOnly(keyIDs []string, known *Pin) OpenOption {
	return func(l *Ledger) { l.trust = trust{only: true, keys: slices.Clone(keyIDs), known: known} }
}

// add trusts a key.
func (t *trust) add(keyID string) {
	if t.foreign(keyID) {
		t.keys = append(t.keys, keyID)
	}
}

// foreign reports whether the key is not one that is trusted.
func (t *trust) foreign(keyID string) bool { return t.only && !slices.Contains(t.keys, keyID) }

// refuses reports whether nothing vouches for a head.
func (t *trust) refuses(h *Head) bool {
	return t.foreign(h.KeyID) && (t.known == nil || h.Seq > t.known.Seq)
}
