package custody

import (
	"fmt"
	"strings"
)

// Place is where in the store or in an archive something is.
type Place struct {
	// Object is the key in the store, or the name within the archive.
	Object string
	// Line is the number of the line in it, from 1; 0 if it is not about a line.
	Line int
	// Offset is the position of the line, in bytes from the beginning of the object; within an archive, of the line or the member, from the beginning of the archive.
	Offset int64
}

// DamageError says that a ledger or an archive is not what was written, and where that begins.
type DamageError struct {
	Place
	// Seq is the number of the entry that is the first one not to be right, as far as it can be told; 0 if it is not about an entry.
	Seq int64
	// Problem says what is wrong. It may quote what was read, which is not to be trusted.
	Problem string
}

// Error is one line with the place and what is wrong there.
func (e *DamageError) Error() string {
	var place []string
	if e.Object != "" {
		place = append(place, e.Object)
	}
	if e.Line > 0 {
		place = append(place, fmt.Sprintf("line %d", e.Line))
	}
	if e.Seq > 0 {
		place = append(place, fmt.Sprintf("entry %d", e.Seq))
	}
	place = append(place, fmt.Sprintf("byte %d", e.Offset))
	return strings.Join(place, ", ") + ": " + e.Problem
}

// damagef makes a *DamageError.
func damagef(at Place, seq int64, format string, args ...any) *DamageError {
	return &DamageError{Place: at, Seq: seq, Problem: fmt.Sprintf(format, args...)}
}
