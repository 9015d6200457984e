package custody

import (
	"crypto/x509"
	"time"
)

// VerifyOptions are what the reader knows from elsewhere. All are optional; the report says what cannot be known without them.
type VerifyOptions struct {
	// KeyIDs are the ids of the keys that the operator has signed with. The last head has to be signed by one of them.
	KeyIDs []string
	// Head is a head that was seen before, for example in the status of the Incident.
	Head *Pin
	// Roots are the certificates that are trusted to vouch for time-stamp authorities. With them, every time stamp in the archive has to lead to one.
	Roots *x509.CertPool
}

// Pin is the number and the digest ("sha256:<hex>") of an entry as somebody has noted them.
type Pin struct {
	Seq    int64
	Digest string
}

// Report is what a verification has found. Texts in it come from the archive and are not to be trusted, least of all by a terminal.
type Report struct {
	// Incident is what the manifest says; the UID is the one that the ledger belongs to.
	Incident Incident
	// ExportedAt and Tool are what the manifest says.
	ExportedAt time.Time
	Tool       string
	// Entries are how many entries are good, and Digest is that of the last one.
	Entries int64
	Digest  string
	// First and Last are when the first and the last entry were recorded.
	First, Last time.Time
	// Signed is the number of the last entry that a head covers, and Heads are the heads.
	Signed int64
	Heads  []HeadReport
	// Items and ItemBytes are what is there, Encrypted how many of them are encrypted, and Removed how many are not there because the ledger tells of their removal.
	Items     int
	ItemBytes int64
	Encrypted int
	Removed   int
	// Notes say what the reader should know, and what this verification cannot show.
	Notes []string
	// Problems are what is wrong, the first one first; empty for a genuine archive.
	Problems []*DamageError
}

// HeadReport is what is known of a head whose signature is right.
type HeadReport struct {
	Seq    int64
	Digest string
	At     time.Time
	KeyID  string
	// Timestamp is nil without a time stamp.
	Timestamp *TimestampReport
}

// Bounds of the lists: an archive may be made to have no end of them, and after the first ones the others say little.
const (
	maxProblems = 100
	maxNotes    = 100
)
