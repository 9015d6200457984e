package store

import (
	"math"
	"os"

	"gocloud.dev/blob"
)

// What tests outside the package need of its inside.

// SetSmall changes the size up to which an item is written at once.
func SetSmall(s *Store, bytes int) { s.small = bytes }

// BackendOf returns what is below a store.
func BackendOf(s *Store) Backend { return s.backend }

// NewBucket is a backend of any bucket that gocloud can open, without what the services do differently.
func NewBucket(b *blob.Bucket) Backend {
	return &bucket{Bucket: b, url: "bucket://test", noLock: "a test", copyMax: math.MaxInt64}
}

// SetCopyMax changes the size up to which the service copies by itself.
func SetCopyMax(b Backend, bytes int64) { b.(*bucket).copyMax = bytes }

// SetSync replaces what makes files and directories durable.
func SetSync(b Backend, sync func(*os.File) error) { b.(*directory).sync = sync }

// Scrub is what the text of an error goes through.
func Scrub(credentials map[string][]byte, text string) string {
	return newScrubber(credentials).text(text)
}

// HexKey is the key of an item.
func HexKey(uid, hex string) string { return itemKey(uid, hex) }
