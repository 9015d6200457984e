package custody

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Objects is what the ledger needs of an evidence store. Keys have lower-case letters, digits, "/", "-" and ".".
type Objects interface {
	// Create writes an object, whole or not at all, if and only if there is none with the key, and returns nil only once it is durable. Every error is taken as "perhaps": the ledger looks at what the store
	// holds then. An object that anybody can have seen must not be deleted again when Create fails.
	Create(ctx context.Context, key string, data []byte) error
	// Read returns a whole object.
	Read(ctx context.Context, key string) ([]byte, error)
	// Keys lists the keys that begin with the prefix. Objects that were created before the call are in the list.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// OpenReader reads an object in pieces.
	OpenReader(ctx context.Context, key string) (io.ReadCloser, error)
}

const (
	ledgerFolder = "ledger/"
	headsFolder  = "heads/"
	itemsFolder  = "items/"
	keysFolder   = "keys/"
)

// Numbers have so many digits in keys, which makes the order of the keys that of the numbers.
const (
	seqDigits     = 12
	attemptDigits = 2
	maxAttempt    = 99
)

// ItemKey is the key of the item with the digest ("sha256:<hex>") in the store.
func ItemKey(incidentUID, digest string) string {
	return itemKey(incidentUID, strings.TrimPrefix(digest, "sha256:"))
}

func itemKey(incidentUID, hexDigest string) string {
	return folder(incidentUID) + itemsFolder + hexDigest
}

func folder(incidentUID string) string { return "incidents/" + incidentUID + "/" }

// segmentName and headName are names below the folder of the Incident.
func segmentName(first int64, attempt int) string {
	return fmt.Sprintf("%s%0*d-%0*d.jsonl", ledgerFolder, seqDigits, first, attemptDigits, attempt)
}

func headName(seq int64) string {
	return fmt.Sprintf("%s%0*d.json", headsFolder, seqDigits, seq)
}

// parseSegmentName is the number of the first entry and the attempt; ok is false if it is not the name of a segment.
func parseSegmentName(name string) (first int64, attempt int, ok bool) {
	text, ok := strings.CutPrefix(name, ledgerFolder)
	if !ok || len(text) < seqDigits+1+attemptDigits {
		return 0, 0, false
	}
	first, err := strconv.ParseInt(text[:seqDigits], 10, 64)
	if err != nil {
		return 0, 0, false
	}
	attempt, err = strconv.Atoi(text[seqDigits+1 : seqDigits+1+attemptDigits])
	if err != nil {
		return 0, 0, false
	}
	return first, attempt, first > 0 && attempt >= 0 && name == segmentName(first, attempt)
}

// parseHeadName is the number of the entry that a head is about; ok is false if it is not the name of a head.
func parseHeadName(name string) (seq int64, ok bool) {
	text, ok := strings.CutPrefix(name, headsFolder)
	if !ok || len(text) < seqDigits {
		return 0, false
	}
	seq, err := strconv.ParseInt(text[:seqDigits], 10, 64)
	return seq, err == nil && seq > 0 && name == headName(seq)
}

// checkUID refuses what would not be a name of a folder in every store.
func checkUID(incidentUID string) error {
	allowed := strings.Trim(incidentUID, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if incidentUID == "" || len(incidentUID) > 64 || !allowed {
		return fmt.Errorf("%q is not the UID of an Incident", incidentUID)
	}
	return nil
}
