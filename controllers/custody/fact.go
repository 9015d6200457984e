package custody

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// ActorKind says on whose account something is in the ledger.
type ActorKind string

const (
	// ActorOperator is what the operator did.
	ActorOperator ActorKind = "Operator"
	// ActorPerson is what a person did; the name is the one that the API server authenticated.
	ActorPerson ActorKind = "Person"
	// ActorObservation is what was seen, whoever caused it.
	ActorObservation ActorKind = "Observation"
)

// Phases of an action that changes something. Everything else has none.
const (
	// PhaseIntent is written before the action.
	PhaseIntent = "Intent"
	// PhaseOutcome is written after it.
	PhaseOutcome = "Outcome"
)

// ActionRemoveEvidence is the action of an entry that tells that the item named in Stored was, or is about to be, removed from the store. From that entry on the item may be absent.
const ActionRemoveEvidence = "RemoveEvidence"

// ActionVoid is the action of the entries that the ledger writes itself about objects that do not count, because they are not complete. IDs that begin with "void/" are theirs.
const ActionVoid = "VoidObject"

const voidPrefix = "void/"

// Bounds of an entry, in characters. Longer texts are cut, and end with "…".
const (
	MaxID     = 256
	MaxDetail = 1024
	maxName   = 320
)

// Actor is who acted.
type Actor struct {
	Kind ActorKind `json:"kind"`
	Name string    `json:"name,omitempty"`
}

// Subject is the object that a fact is about.
type Subject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// Stored names an item in the store.
type Stored struct {
	// Key is ItemKey(incident, Digest).
	Key string `json:"key"`
	// Digest ("sha256:<hex>") and Size, in bytes, are those of what is in the store.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// PlainDigest and PlainSize are those of what was collected, before encryption.
	PlainDigest string `json:"plainDigest,omitempty"`
	PlainSize   int64  `json:"plainSize,omitempty"`
	Encrypted   bool   `json:"encrypted,omitempty"`
	MediaType   string `json:"mediaType,omitempty"`
	// Name says to people what the item is, such as "logs/shop/web-1/app.log". It is not the name of a file anywhere.
	Name string `json:"name,omitempty"`
}

// Fact is what somebody wants recorded.
type Fact struct {
	// ID is unique within the Incident, and the same whenever the same fact is reported again: a fact with an ID that the ledger has is not recorded twice.
	ID string `json:"id"`
	// At is when it happened. The ledger keeps seconds, in UTC. Not set means: when it was recorded.
	At    time.Time `json:"at"`
	Actor Actor     `json:"actor"`
	// Action is what was done or seen, such as "QuarantinePod", "Declare" or "Contained=True".
	Action string `json:"action"`
	// Phase is PhaseIntent, PhaseOutcome or empty.
	Phase   string  `json:"phase,omitempty"`
	Subject Subject `json:"subject"`
	// Detail says more, in one line. Characters that have no place in a line become "�".
	Detail string `json:"detail,omitempty"`
	// Stored is what was put into the store, if anything was.
	Stored *Stored `json:"stored,omitempty"`
}

// Entry is a fact in the ledger.
type Entry struct {
	// Seq is the number of the entry, from 1.
	Seq int64 `json:"seq"`
	// RecordedAt is when the operator wrote it, by its own clock, in seconds and UTC.
	RecordedAt time.Time `json:"recordedAt"`
	// Previous is the digest of the line before it.
	Previous string `json:"previous"`
	Fact
}

// digest names bytes by their SHA-256.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hexOf is the hexadecimal part of a digest, and whether it is one.
func hexOf(digest string) (string, bool) {
	text, found := strings.CutPrefix(digest, "sha256:")
	return text, found && isHex(text, sha256.Size)
}

// isHex reports whether the text is so many bytes in lower-case hexadecimal digits.
func isHex(text string, bytes int) bool {
	return len(text) == 2*bytes && strings.Trim(text, "0123456789abcdef") == ""
}

// prepare makes a fact fit for the ledger of the Incident, or says why it cannot be. Text is cut and cleaned; what a program has got wrong is an error.
func prepare(fact Fact, incidentUID string) (Fact, error) {
	switch {
	case fact.ID == "":
		return fact, errors.New("it has no ID")
	case strings.HasPrefix(fact.ID, voidPrefix):
		return fact, fmt.Errorf("IDs that begin with %q are the ledger's own", voidPrefix)
	case !slices.Contains([]ActorKind{ActorOperator, ActorPerson, ActorObservation}, fact.Actor.Kind):
		return fact, fmt.Errorf("%q is not a kind of actor", fact.Actor.Kind)
	case !slices.Contains([]string{"", PhaseIntent, PhaseOutcome}, fact.Phase):
		return fact, fmt.Errorf("%q is not a phase", fact.Phase)
	case fact.Action == "":
		return fact, errors.New("it has no action")
	case fact.At.Year() < 1 || fact.At.Year() > 9999: // RFC 3339, section 5.6
		return fact, fmt.Errorf("the year %d cannot be written", fact.At.Year())
	}
	fact.ID = recordedID(fact.ID)
	fact.At = inSeconds(fact.At)
	fact.Detail = bounded(fact.Detail, MaxDetail)
	for _, name := range []*string{&fact.Actor.Name, &fact.Action, &fact.Subject.Kind, &fact.Subject.Namespace, &fact.Subject.Name, &fact.Subject.UID} {
		*name = bounded(*name, maxName)
	}
	if fact.Stored == nil {
		return fact, nil
	}
	stored := *fact.Stored // the caller's is not changed
	stored.Name, stored.MediaType = bounded(stored.Name, maxName), bounded(stored.MediaType, maxName)
	fact.Stored = &stored
	if problem := stored.problem(incidentUID); problem != "" {
		return fact, errors.New(problem)
	}
	return fact, nil
}

// problem says what is wrong with the name of an item; "" if nothing is.
func (s *Stored) problem(incidentUID string) string {
	text, ok := hexOf(s.Digest)
	switch {
	case !ok:
		return fmt.Sprintf("%q is not the digest of an item", s.Digest)
	case s.Key != itemKey(incidentUID, text):
		return fmt.Sprintf("the item with the digest %s cannot be kept under the key %q", s.Digest, s.Key)
	case s.Size < 0 || s.PlainSize < 0:
		return fmt.Sprintf("an item cannot have %d bytes", min(s.Size, s.PlainSize))
	}
	if _, ok := hexOf(s.PlainDigest); !ok && s.PlainDigest != "" {
		return fmt.Sprintf("%q is not the digest of an item", s.PlainDigest)
	}
	return ""
}

// recordedID is the ID under which a fact is recorded: as given, unless it is too long or has characters that have no place in a line. Such an ID keeps its beginning, and a digest keeps it unique.
func recordedID(id string) string {
	cleaned := bounded(id, MaxID)
	if cleaned == id {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	suffix := "~" + hex.EncodeToString(sum[:16])
	return bounded(clean(id), MaxID-len(suffix)) + suffix
}

// inSeconds is the time as the ledger keeps it.
func inSeconds(t time.Time) time.Time {
	return t.UTC().Truncate(time.Second)
}

// bounded is a text with so many characters at most, fit for the ledger.
func bounded(text string, characters int) string {
	text = clean(text)
	if utf8.RuneCountInString(text) <= characters {
		return text
	}
	return string([]rune(text)[:characters-1]) + "…"
}

// clean replaces what has no place in a line of text.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unfit(r) {
			return utf8.RuneError
		}
		return r
	}, text)
}

// unfit reports whether a character has no place in a line of text: it controls a terminal, ends a line, changes the direction of writing or cannot be seen. The list is written out here, because the one of
// package unicode grows with Unicode, and a ledger has to be canonical for every version of this program.
func unfit(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r <= 0x9f: // controls
		return true
	case r < 0xad:
		return false
	case r == 0xad, r == 0x61c, r == 0x180e, r == 0xfeff: // soft hyphen, Arabic letter mark, Mongolian vowel separator, byte order mark
		return true
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f: // zero width, line ends, directions
		return true
	case r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe0fff: // annotations, tags
		return true
	}
	return false
}
