package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"filippo.io/age"
)

// smallItem is the size up to which an item is written at once, in bytes. Most evidence is manifests and short logs, and an upload by way of incoming/ takes three times as many requests.
const smallItem = 256 << 10

// PutItem stores what r yields under the digest of the stored bytes, encrypted if there are recipients, and returns only after it was read back and compared.
//
// It holds a few parts of the item in memory, never the whole. An item that fails halfway leaves nothing but, at worst, an upload in incoming/ that nothing refers to and Sweep removes.
// Repeating it is harmless: unencrypted, the same bytes come to lie in the same place; encrypted, every attempt has a place of its own.
//
// When the context ends PutItem returns even if r blocks; nobody else may read from r afterwards.
func (s *Store) PutItem(ctx context.Context, incidentUID string, r io.Reader) (Object, error) {
	if err := checkUID(incidentUID); err != nil {
		return Object{}, s.wrap("put item", "", err)
	}
	source, stop := interruptible(ctx, r)
	defer stop()
	o, err := s.putItem(ctx, incidentUID, source)
	if err != nil {
		key := o.Key
		if key == "" {
			key = itemKey(incidentUID, "")
		}
		return Object{}, s.wrap("put item", key, err)
	}
	return o, nil
}

func (s *Store) putItem(ctx context.Context, incidentUID string, source io.Reader) (Object, error) {
	in, err := s.measure(source)
	if err != nil {
		return Object{}, err
	}
	var head bytes.Buffer
	n, err := io.Copy(&head, io.LimitReader(in, int64(s.small)+1))
	if err != nil {
		return Object{}, fmt.Errorf("reading the item: %w", err)
	}
	lock := s.lockUntil()
	if n <= int64(s.small) {
		o := in.object(incidentUID)
		return o, s.place(ctx, o, lock, func(replace bool) error {
			return s.backend.Write(ctx, o.Key, bytes.NewReader(head.Bytes()), WriteOptions{IfAbsent: !replace, LockUntil: lock})
		})
	}
	temp := newIncoming()
	defer s.forget(ctx, temp)
	if err := s.backend.Write(ctx, temp, io.MultiReader(&head, in), WriteOptions{}); err != nil {
		return Object{}, fmt.Errorf("uploading to %s: %w", temp, err)
	}
	// What the store has not taken was not hashed either: read back, the shorter item would look whole.
	switch rest, err := io.Copy(io.Discard, in); {
	case err != nil:
		return Object{}, fmt.Errorf("reading the item: %w", err)
	case rest > 0:
		return Object{}, fmt.Errorf("uploading to %s: %w: the store left out the last %d bytes", temp, ErrCorrupt, rest)
	}
	o := in.object(incidentUID)
	return o, s.place(ctx, o, lock, func(replace bool) error {
		if !replace {
			if info, err := s.backend.Stat(ctx, o.Key); err == nil && info.Size == o.Size {
				return ErrExists
			}
		}
		return s.backend.Copy(ctx, o.Key, temp, lock)
	})
}

// place puts an item at its content address and reads it back. What is there already is left alone if it is what it should be; if not, it is damaged, and replaced.
func (s *Store) place(ctx context.Context, o Object, lock time.Time, put func(replace bool) error) error {
	err := put(false)
	if errors.Is(err, ErrExists) {
		if err = s.readBack(ctx, o, lock); !errors.Is(err, ErrCorrupt) {
			return err
		}
		err = put(true)
	}
	if err != nil {
		return err
	}
	return s.readBack(ctx, o, lock)
}

// forget removes an upload. Where that fails, or there is no time left for it, Sweep will.
func (s *Store) forget(ctx context.Context, temp string) { _ = s.backend.Delete(ctx, temp) }

// measured is an item on its way: what is read from it is what is to be stored, and it has counted and hashed what went in and what came out.
type measured struct {
	io.Reader
	plain, stored *meter
	encrypted     bool
}

func (s *Store) measure(source io.Reader) (*measured, error) {
	plain := newMeter(source)
	if len(s.recipients) == 0 {
		return &measured{Reader: plain, plain: plain, stored: plain}, nil
	}
	sealed, err := age.EncryptReader(plain, s.recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	stored := newMeter(sealed)
	return &measured{Reader: stored, plain: plain, stored: stored, encrypted: true}, nil
}

// object describes what has gone by, after the end.
func (m *measured) object(incidentUID string) Object {
	return Object{
		Key:    itemKey(incidentUID, hex.EncodeToString(m.stored.hash.Sum(nil))),
		Digest: digest(m.stored.hash.Sum(nil)), Size: m.stored.size,
		PlainDigest: digest(m.plain.hash.Sum(nil)), PlainSize: m.plain.size,
		Encrypted: m.encrypted,
	}
}

// meter counts and hashes what is read through it.
type meter struct {
	r    io.Reader
	hash hash.Hash
	size int64
}

func newMeter(r io.Reader) *meter { return &meter{r: r, hash: sha256.New()} }

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.hash.Write(p[:n])
	m.size += int64(n)
	return n, err
}

// interruptible makes a reader fail when the context ends, even in the middle of a Read that does not return. Such a Read keeps its goroutine until it does.
func interruptible(ctx context.Context, r io.Reader) (io.Reader, func()) {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	release := context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	return out, func() {
		release()
		_ = out.Close() // It never fails.
	}
}

// parseRecipients does not repeat what it was given in errors: somebody may have taken the private key for the public one.
func parseRecipients(recipients []string) ([]age.Recipient, error) {
	var parsed []age.Recipient
	for i, text := range recipients {
		text = strings.TrimSpace(text)
		if strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY-") {
			return nil, fmt.Errorf("recipient %d is a private key; wanted is the public one, age1…", i+1)
		}
		one, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(one) != 1 {
			return nil, fmt.Errorf("recipient %d is not a public key of age (age1…)", i+1)
		}
		parsed = append(parsed, one[0])
	}
	return parsed, nil
}
