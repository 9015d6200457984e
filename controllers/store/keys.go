package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

const (
	// incoming is the folder of what is being uploaded. Nothing refers to it.
	incoming = "incoming/"
	// maxKey bounds a key, in bytes: S3 and GCS take 1024 and a prefix comes before it.
	maxKey = 512
	// maxSegment is what file systems take for one name.
	maxSegment = 255
)

// errKey marks a key that no store takes, so that it is found out before anything is asked of a backend.
var errKey = errors.New("not a key")

// checkKey accepts lower-case letters, digits, '-' and '.' in segments separated by single '/'. No segment is empty, "." or "..", so that no key leads out of a directory, and
// none needs escaping anywhere.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("%w: %d bytes long, not 1 to %d", errKey, len(key), maxKey)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if !validSegment(segment) {
			return fmt.Errorf("%w: segment %.64q", errKey, segment)
		}
	}
	return nil
}

// checkPrefix accepts every beginning of a key.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	// What ends in '/' or in a dot can be completed to a key, what leads elsewhere cannot.
	return checkKey(prefix + "x")
}

func validSegment(segment string) bool {
	if segment == "" || segment == "." || segment == ".." || len(segment) > maxSegment {
		return false
	}
	return !strings.ContainsFunc(segment, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// itemKey is the content address of an item of an Incident.
func itemKey(incidentUID, hexDigest string) string {
	return "incidents/" + incidentUID + "/items/" + hexDigest
}

// checkUID accepts the UID of an Incident: one segment of a key, and not one that hides in a listing of a directory.
func checkUID(uid string) error {
	if !validSegment(uid) || strings.HasPrefix(uid, ".") || len(uid) > 64 {
		return fmt.Errorf("%w: Incident UID %.64q", errKey, uid)
	}
	return nil
}

func isIncoming(key string) bool { return strings.HasPrefix(key, incoming) }

// newIncoming makes a name that nobody else uses.
func newIncoming() string { return incoming + strings.ToLower(rand.Text()) }
