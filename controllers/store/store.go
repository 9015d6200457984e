// Package store keeps evidence: bytes under keys, in a directory, in S3 and compatible services, in GCS, in Azure, or in memory for tests.
//
// What it promises, whatever is below: an object is whole or not there; of several who create a key one succeeds; nothing counts as stored that has not been read back and
// compared; items lie under the SHA-256 of their bytes; and memory is bounded, however large an item. What is promised about locks against removal differs, and Locks says it.
//
// The credentials in use need to write, read, stat and list objects. Without the permission to delete, evidence is as safe, and only leftovers of uploads in incoming/ stay:
// a lifecycle rule of the bucket can remove them.
package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"k8s.io/utils/clock"
)

const (
	// MaxRead bounds what Create takes and Read returns, in bytes.
	MaxRead = 64 << 20
	// staleAfter is the age from which an upload under way counts as abandoned.
	staleAfter = 24 * time.Hour
)

// Options say how a store is used.
type Options struct {
	// Recipients are the public keys of age (age1…) to which items are encrypted; none means that they are not. Only who holds one of the private keys can read them, and that
	// should not be the cluster. What Create writes never is encrypted.
	Recipients []string
	// Credentials is the data of the credentials Secret. For s3: accessKeyID, secretAccessKey and, with temporary credentials, sessionToken. For gs: serviceAccount.json. For azblob:
	// storageAccount, and storageKey or sasToken. Nil means the identity that the environment offers (IRSA, workload identity, …).
	Credentials map[string][]byte
	// LockDays is for how many days new objects are locked against change and removal, from when they are written; 0 for none. What is in incoming/ is never locked. Whether the
	// store does it is for Locks to say.
	LockDays int
	// Clock tells the time; nil means the machine's.
	Clock clock.PassiveClock
}

func (o Options) clock() clock.PassiveClock {
	if o.Clock == nil {
		return clock.RealClock{}
	}
	return o.Clock
}

// Store keeps evidence. It may be used by several goroutines at once.
type Store struct {
	backend    Backend
	opts       Options
	recipients []age.Recipient
	secrets    scrubber
	// small is the size up to which an item is held in memory and written at once, in bytes.
	small int
	// unlocked is set once the backend has shown no lock on an object for which one was asked.
	unlocked atomic.Bool
}

// Object is something that was stored.
type Object struct {
	// Key is where it is.
	Key string
	// Digest ("sha256:" and hexadecimal digits) and Size (in bytes) are those of the bytes as stored.
	Digest string
	Size   int64
	// PlainDigest and PlainSize are those of what was handed in; the same unless it was encrypted.
	PlainDigest string
	PlainSize   int64
	Encrypted   bool
}

// Open opens a store by its URL:
//
//	file:///DIRECTORY     a directory, made if it is missing; hard links must be possible in it
//	mem://NAME            memory of this process, for tests
//	s3://BUCKET           region=, endpoint=, use_path_style=, ssetype=, kmskeyid=, request_checksum_calculation=
//	gs://BUCKET
//	azblob://CONTAINER    storage_account=, domain=, protocol=
//
// Each takes prefix=FOLDER besides. Open asks nothing of a service yet; Check does.
func Open(ctx context.Context, url string, opts Options) (*Store, error) {
	backend, err := OpenBackend(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	s, err := New(backend, opts)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	return s, nil
}

// OpenBackend opens what is below a store, for those who put something between it and New.
func OpenBackend(ctx context.Context, url string, opts Options) (Backend, error) {
	at, o, err := parse(url)
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	backend, err := o.open(ctx, at, opts)
	if err != nil {
		// Without the parameters: one of them may be what is wrong, and anything may stand in it.
		place := location{scheme: at.scheme, host: at.host, path: at.path}
		return nil, &Error{Op: "open", Store: place.String(), Err: newScrubber(opts.Credentials).clean(err)}
	}
	return backend, nil
}

// New makes a store of a backend, which it closes when it is closed.
func New(backend Backend, opts Options) (*Store, error) {
	recipients, err := parseRecipients(opts.Recipients)
	if err != nil {
		return nil, &Error{Op: "open", Store: backend.URL(), Err: err}
	}
	if opts.LockDays < 0 {
		return nil, &Error{Op: "open", Store: backend.URL(), Err: fmt.Errorf("a lock of %d days", opts.LockDays)}
	}
	return &Store{backend: backend, opts: opts, recipients: recipients, secrets: newScrubber(opts.Credentials), small: smallItem}, nil
}

// Close releases what the store holds. Readers that are open must be closed before.
func (s *Store) Close() error { return s.wrap("close", "", s.backend.Close()) }

// URL names the store without anything secret.
func (s *Store) URL() string { return s.backend.URL() }

// Locks reports whether what is stored is locked against change and removal, and if not, why. It knows better after the first write: a service may take the request for a lock
// and not heed it, or not let us see whether it did.
func (s *Store) Locks() (bool, string) {
	if s.opts.LockDays == 0 {
		return false, "no lock is asked for"
	}
	if ok, why := s.backend.Locks(); !ok {
		return false, why
	}
	if s.unlocked.Load() {
		return false, "the store took the request for a lock but shows none on what it stored; on S3 this needs the permission s3:GetObjectRetention"
	}
	return true, ""
}

// Create stores data under a key that nobody has taken, and reads it back. Of several who try at once, in whatever process, one succeeds and the others get ErrExists. With any other
// error the key may or may not be taken; with ErrCorrupt it is, by something else than data.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	return s.wrap("create", key, s.create(ctx, key, data))
}

func (s *Store) create(ctx context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if isIncoming(key) {
		return fmt.Errorf("%w: %s is for uploads under way", errKey, incoming)
	}
	if len(data) > MaxRead {
		return fmt.Errorf("%d bytes, more than the %d that can be read back at once", len(data), MaxRead)
	}
	lock := s.lockUntil()
	if err := s.backend.Write(ctx, key, bytes.NewReader(data), WriteOptions{IfAbsent: true, LockUntil: lock}); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	return s.readBack(ctx, Object{Key: key, Digest: digest(sum[:]), Size: int64(len(data))}, lock)
}

// Read returns an object, up to MaxRead bytes of it; a larger one is an error.
func (s *Store) Read(ctx context.Context, key string) ([]byte, error) {
	data, err := s.read(ctx, key)
	return data, s.wrap("read", key, err)
}

func (s *Store) read(ctx context.Context, key string) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	r, err := s.backend.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxRead+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if len(data) > MaxRead {
		return nil, fmt.Errorf("larger than %d bytes", MaxRead)
	}
	return data, nil
}

// OpenReader reads an object from its start. The context has to live until the reader is closed, and reads fail once it has ended.
func (s *Store) OpenReader(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := checkKey(key); err != nil {
		return nil, s.wrap("read", key, err)
	}
	r, err := s.backend.Open(ctx, key)
	if err != nil {
		return nil, s.wrap("read", key, err)
	}
	return &reader{s: s, key: key, r: r}, nil
}

// reader says in its errors what was being read.
type reader struct {
	s   *Store
	key string
	r   io.ReadCloser
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !isEnd(err) {
		err = r.s.wrap("read", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.s.wrap("close", r.key, r.r.Close()) }

// Keys lists the keys that begin with prefix, sorted.
func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, s.wrap("list", prefix, err)
	}
	infos, err := s.backend.List(ctx, prefix)
	if err != nil {
		return nil, s.wrap("list", prefix, err)
	}
	keys := make([]string, 0, len(infos))
	for _, info := range infos {
		// Whatever else somebody has put there cannot be asked for.
		if checkKey(info.Key) == nil {
			keys = append(keys, info.Key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Verify reads an object again and compares its size and digest: ErrNotFound if it is gone, ErrCorrupt if it is another. Only Key, Digest and Size of the Object count.
func (s *Store) Verify(ctx context.Context, o Object) error {
	err := checkKey(o.Key)
	if err == nil {
		err = s.compare(ctx, o)
	}
	return s.wrap("verify", o.Key, err)
}

// Delete removes an object. That there is none is no error. An object that is locked stays in the store, as an older version, though it is no longer found under its key.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := checkKey(key)
	if err == nil {
		err = s.backend.Delete(ctx, key)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return s.wrap("delete", key, err)
}

// readBack compares what has just been written, and notes whether it is locked as was asked.
func (s *Store) readBack(ctx context.Context, o Object, lock time.Time) error {
	err := s.compare(ctx, o)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: nothing is there after it was written", ErrCorrupt)
	}
	if err != nil || lock.IsZero() || s.unlocked.Load() {
		return err
	}
	if info, err := s.backend.Stat(ctx, o.Key); err != nil || info.LockedUntil.IsZero() {
		s.unlocked.Store(true)
	}
	return nil
}

func (s *Store) compare(ctx context.Context, o Object) error {
	r, err := s.backend.Open(ctx, o.Key)
	if err != nil {
		return err
	}
	hash := sha256.New()
	// One byte more than there should be is enough to know.
	n, err := io.Copy(hash, io.LimitReader(r, o.Size+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	switch got := digest(hash.Sum(nil)); {
	case n > o.Size:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrCorrupt, o.Size)
	case n < o.Size:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrCorrupt, n, o.Size)
	case got != o.Digest:
		return fmt.Errorf("%w: digest %s instead of %s", ErrCorrupt, got, o.Digest)
	default:
		return nil
	}
}

// lockUntil is the end of the retention of what is written now; zero if none is asked for or none is to be had.
func (s *Store) lockUntil() time.Time {
	if s.opts.LockDays == 0 {
		return time.Time{}
	}
	if ok, _ := s.backend.Locks(); !ok {
		return time.Time{}
	}
	return s.opts.clock().Now().UTC().Truncate(time.Second).AddDate(0, 0, s.opts.LockDays)
}

// wrap says what was done to what, and takes out what must not be told.
func (s *Store) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errKey) {
		// It could be anything.
		key = ""
	}
	return &Error{Op: op, Key: key, Store: s.backend.URL(), Err: s.secrets.clean(err)}
}

func digest(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }
