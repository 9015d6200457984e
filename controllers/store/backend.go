package store

import (
	"context"
	"io"
	"time"
)

// Info is what a backend knows about an object without reading it.
type Info struct {
	// Key names the object; Size is in bytes.
	Key  string
	Size int64
	// Modified is when it was written, by the backend's clock.
	Modified time.Time
	// LockedUntil is the end of the retention that the backend reports; zero if it reports none.
	LockedUntil time.Time
}

// WriteOptions say how an object is written.
type WriteOptions struct {
	// IfAbsent makes the write fail with ErrExists where the key is taken, atomically, also between processes.
	IfAbsent bool
	// LockUntil asks for a retention until then; zero asks for none. A backend whose Locks says false ignores it.
	LockUntil time.Time
}

// Backend is where the bytes are: the seam between what a store promises and what a service or a file system does. Keys have passed checkKey. Errors say
// ErrExists, ErrNotFound and ErrDenied through errors.Is, and every call ends soon after its context does. A fault harness wraps it (package faulty).
type Backend interface {
	// Write stores all that r yields. An error of r, and any other, leaves the key as it was; only an answer that was lost on the way may mean the opposite. Without
	// IfAbsent what was there is replaced at once.
	Write(ctx context.Context, key string, r io.Reader, o WriteOptions) error
	// Open reads an object from its start. The context has to live until the reader is closed.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// Stat tells size, time and lock.
	Stat(ctx context.Context, key string) (Info, error)
	// Copy puts the bytes of src under dst, whole or not at all, and replaces what was there.
	Copy(ctx context.Context, dst, src string, lockUntil time.Time) error
	// List tells the objects whose keys begin with prefix, in any order, without LockedUntil.
	List(ctx context.Context, prefix string) ([]Info, error)
	// Delete removes an object; ErrNotFound if there is none.
	Delete(ctx context.Context, key string) error
	// Locks reports whether LockUntil is passed on, and if not, why not and what to do instead.
	Locks() (bool, string)
	// URL names the place without anything secret.
	URL() string
	Close() error
}

// sweeper is a backend with leftovers that List does not show.
type sweeper interface {
	// Sweep removes those that began before the time given.
	Sweep(ctx context.Context, before time.Time) error
}

// isEnd reports whether a reader or a listing has come to its end. That is io.EOF itself, as io.Reader has it: an error that wraps it comes from a connection that broke off
// (url.Error does), and to take it for the end would cut off what is read, or leave objects out of a listing.
func isEnd(err error) bool {
	return err == io.EOF //nolint:errorlint // Errors that wrap io.EOF are failures, see above.
}

// until makes reads fail once the context has ended, for readers that know nothing of it.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// untilCloser is until for a reader that is to be closed.
type untilCloser struct {
	until
	io.Closer
}
