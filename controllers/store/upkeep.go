package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Sweep removes what uploads that broke off more than 24 hours ago have left in incoming/, and returns how many objects that were. What cannot be removed does not keep the rest from being.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	before := s.opts.clock().Now().Add(-staleAfter)
	infos, err := s.backend.List(ctx, incoming)
	if err != nil {
		return 0, s.wrap("sweep", incoming, err)
	}
	removed := 0
	var errs []error
	for _, info := range infos {
		if !info.Modified.Before(before) || checkKey(info.Key) != nil {
			continue
		}
		switch err := s.backend.Delete(ctx, info.Key); {
		case err == nil:
			removed++
		case !errors.Is(err, ErrNotFound):
			errs = append(errs, s.wrap("sweep", info.Key, err))
		}
	}
	if b, ok := s.backend.(sweeper); ok {
		errs = append(errs, s.wrap("sweep", incoming, b.Sweep(ctx, before)))
	}
	return removed, errors.Join(errs...)
}

// ErrNotExclusive says that a store lets a second create of a key succeed. The ledger would not be safe in it under two leaders. Some services that speak the language of S3 are such.
var ErrNotExclusive = errors.New("the store does not refuse to create a key twice")

// Check finds out whether the store does what is needed of it: takes an object, refuses a second one under the same key, gives back the first, and lists it. The object is in incoming/ and
// removed afterwards.
func (s *Store) Check(ctx context.Context) error {
	key := newIncoming()
	defer s.forget(ctx, key)
	return s.wrap("check", key, s.check(ctx, key))
}

func (s *Store) check(ctx context.Context, key string) error {
	first, second := []byte("first"), []byte("second")
	if err := s.backend.Write(ctx, key, bytes.NewReader(first), WriteOptions{IfAbsent: true}); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	switch err := s.backend.Write(ctx, key, bytes.NewReader(second), WriteOptions{IfAbsent: true}); {
	case err == nil:
		return ErrNotExclusive
	case !errors.Is(err, ErrExists):
		return fmt.Errorf("writing a second time: %w", err)
	}
	got, err := s.read(ctx, key)
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if !bytes.Equal(got, first) {
		return fmt.Errorf("%w: %d other bytes are read back", ErrCorrupt, len(got))
	}
	infos, err := s.backend.List(ctx, key)
	if err != nil {
		return fmt.Errorf("listing: %w", err)
	}
	if len(infos) != 1 || infos[0].Key != key {
		return fmt.Errorf("listing: %d objects found instead of the one that was written", len(infos))
	}
	return nil
}
