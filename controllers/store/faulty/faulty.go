// Package faulty wraps the backend of an evidence store and makes it fail as planned. It is for tests: nothing that runs in production imports it.
//
//	inner, err := store.OpenBackend(ctx, "mem://name", opts)
//	bad := faulty.New(inner, faulty.Fault{Op: faulty.Write, Key: "/ledger/", Nth: 3, Kind: faulty.Lose})
//	s, err := store.New(bad, opts)
//
// Operations are counted in the order in which they are made, so that a plan is deterministic wherever the caller is.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"cofferdam.dev/cofferdam/controllers/store"
)

// ErrInjected is in every error that a plan causes.
var ErrInjected = errors.New("injected")

// Op is an operation of a backend.
type Op string

// The operations. Write, Copy and Delete change something.
const (
	Any    Op = ""
	Write  Op = "write"
	Open   Op = "open"
	Stat   Op = "stat"
	Copy   Op = "copy"
	List   Op = "list"
	Delete Op = "delete"
)

// Changes reports whether the operation changes something.
func (o Op) Changes() bool { return o == Write || o == Copy || o == Delete }

// Kind is a way to fail.
type Kind int

// The kinds.
const (
	// Fail is an error before anything happens.
	Fail Kind = iota
	// Lose is an error after all has happened: the answer is lost.
	Lose
	// Truncate stores only the first N bytes of a Write and reports success. Other operations fail.
	Truncate
	// Tear stores only the first N bytes of a Write and reports an error. Other operations fail.
	Tear
	// Full is a disk on which N more bytes fit, counted over all writes that the fault applies to: the one that goes beyond stores nothing and gets ENOSPC. Other operations pass.
	Full
	// ReadOnly is EROFS for what changes something; other operations pass.
	ReadOnly
	// Denied is store.ErrDenied.
	Denied
	// Flip gives back a wrong byte at offset N, of an Open; other operations pass. Where the object is shorter the last byte is wrong.
	Flip
	// Hang does nothing until the context ends.
	Hang
)

// Fault is one entry of a plan. It applies to the operations that match Op and whose key contains Key.
type Fault struct {
	Op  Op
	Key string
	// Nth is which of the operations that match fails, from 1; 0 means all of them. With Onwards those after it fail as well.
	Nth     int
	Onwards bool
	Kind    Kind
	// N is a number of bytes; what it says depends on Kind.
	N int64
}

// Event is an operation that is about to be made, or that has been.
type Event struct {
	Op  Op
	Key string
	// Nth counts the operations that change something, from 1.
	Nth int
	// After is false before the operation and true after it, whether it succeeded or not.
	After bool
}

// Backend is a backend that fails as planned. The zero plan never fails.
type Backend struct {
	store.Backend

	mu      sync.Mutex
	faults  []*fault
	hook    func(Event) error
	changes int
	log     []Event
}

// fault is a Fault under way.
type fault struct {
	Fault
	seen int
	room int64
}

// New wraps a backend. The first fault that applies to an operation decides.
func New(inner store.Backend, plan ...Fault) *Backend {
	b := &Backend{Backend: inner}
	b.Plan(plan...)
	return b
}

// Plan replaces the plan, and starts counting for it from the beginning. An empty one heals the store.
func (b *Backend) Plan(plan ...Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = nil
	for _, f := range plan {
		b.faults = append(b.faults, &fault{Fault: f, room: f.N})
	}
}

// Hook sets a function that is called before and after each operation that changes something, from the goroutine that makes it; nil for none. It may
// stop the caller for good: panic, end the process, cancel a context. An error that it returns before keeps
// the operation from being made; one that it returns after takes the place of the answer.
func (b *Backend) Hook(hook func(Event) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// Changes are the operations that change something and that were made so far, failed ones included. An undisturbed run tells a crash test where to crash.
func (b *Backend) Changes() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Event(nil), b.log...)
}

// match counts the operation and returns the fault that applies to it, if any.
func (b *Backend) match(op Op, key string) *fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found *fault
	for _, f := range b.faults {
		if f.Op != Any && f.Op != op || !strings.Contains(key, f.Key) {
			continue
		}
		f.seen++
		applies := f.Nth == 0 || f.seen == f.Nth || f.Onwards && f.seen > f.Nth
		if applies && found == nil {
			found = f
		}
	}
	return found
}

// do makes an operation, with its faults and hooks. run is the operation itself.
func (b *Backend) do(ctx context.Context, op Op, key string, run func(*fault) error) error {
	if !op.Changes() {
		return b.fail(ctx, b.match(op, key), op, key, run)
	}
	b.mu.Lock()
	b.changes++
	event := Event{Op: op, Key: key, Nth: b.changes}
	b.log = append(b.log, event)
	hook := b.hook
	b.mu.Unlock()
	if hook == nil {
		return b.fail(ctx, b.match(op, key), op, key, run)
	}
	if err := hook(event); err != nil {
		return fmt.Errorf("%w: before %s %s: %w", ErrInjected, op, key, err)
	}
	err := b.fail(ctx, b.match(op, key), op, key, run)
	event.After = true
	if hookErr := hook(event); hookErr != nil {
		return fmt.Errorf("%w: after %s %s: %w", ErrInjected, op, key, hookErr)
	}
	return err
}

// fail makes the operation fail as f says. The kinds that concern bytes are left to run.
func (b *Backend) fail(ctx context.Context, f *fault, op Op, key string, run func(*fault) error) error {
	if f == nil {
		return run(nil)
	}
	injected := func(err error) error { return fmt.Errorf("%w: %s %s: %w", ErrInjected, op, key, err) }
	switch f.Kind {
	case Lose:
		if err := run(nil); err != nil {
			return err
		}
		return injected(errors.New("the answer is lost"))
	case ReadOnly:
		if !op.Changes() {
			return run(nil)
		}
		return injected(syscall.EROFS)
	case Denied:
		return injected(store.ErrDenied)
	case Hang:
		<-ctx.Done()
		return injected(ctx.Err())
	case Flip:
		return run(f)
	case Truncate, Tear, Full:
		if op == Write {
			return run(f)
		}
		if f.Kind == Full {
			return run(nil)
		}
	case Fail:
	}
	return injected(errors.New("failure"))
}

// Write is store.Backend's.
func (b *Backend) Write(ctx context.Context, key string, r io.Reader, o store.WriteOptions) error {
	return b.do(ctx, Write, key, func(f *fault) error {
		if f == nil {
			return b.Backend.Write(ctx, key, r, o)
		}
		switch f.Kind {
		case Full:
			return b.Backend.Write(ctx, key, &filling{b: b, f: f, r: r}, o)
		case Truncate:
			return b.Backend.Write(ctx, key, &cutting{r: r, left: f.N}, o)
		case Tear:
			if err := b.Backend.Write(ctx, key, &cutting{r: r, left: f.N}, o); err != nil {
				return err
			}
			return fmt.Errorf("%w: write %s: torn after %d bytes", ErrInjected, key, f.N)
		default:
			return b.Backend.Write(ctx, key, r, o)
		}
	})
}

// cutting takes all and passes on the first bytes.
type cutting struct {
	r    io.Reader
	left int64
}

func (c *cutting) Read(p []byte) (int, error) {
	n, err := io.LimitReader(c.r, c.left).Read(p)
	c.left -= int64(n)
	if err == io.EOF || c.left == 0 {
		if _, err := io.Copy(io.Discard, c.r); err != nil {
			return n, err
		}
		return n, io.EOF
	}
	return n, err
}

// filling fails the write once there is no room left. What has been written of it before does not take up room: it is gone again.
type filling struct {
	b *Backend
	f *fault
	r io.Reader
	n int64
}

func (w *filling) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.n += int64(n)
	w.f.room -= int64(n)
	if w.f.room < 0 {
		w.f.room += w.n
		return 0, fmt.Errorf("%w: %w", ErrInjected, syscall.ENOSPC)
	}
	return n, err
}

// Open is store.Backend's.
func (b *Backend) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := b.do(ctx, Open, key, func(f *fault) (err error) {
		if r, err = b.Backend.Open(ctx, key); err != nil || f == nil || f.Kind != Flip {
			return err
		}
		info, err := b.Backend.Stat(ctx, key)
		if err != nil {
			return err
		}
		r = &flipping{ReadCloser: r, at: min(f.N, info.Size-1)}
		return nil
	})
	if err != nil && r != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, err
}

// flipping changes one bit of what is read.
type flipping struct {
	io.ReadCloser
	at int64
}

func (r *flipping) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.at >= 0 && r.at < int64(n) {
		p[r.at] ^= 1
	}
	r.at -= int64(n)
	return n, err
}

// Stat is store.Backend's.
func (b *Backend) Stat(ctx context.Context, key string) (info store.Info, err error) {
	err = b.do(ctx, Stat, key, func(*fault) (err error) {
		info, err = b.Backend.Stat(ctx, key)
		return err
	})
	return info, err
}

// Copy is store.Backend's.
func (b *Backend) Copy(ctx context.Context, dst, src string, lockUntil time.Time) error {
	return b.do(ctx, Copy, dst, func(*fault) error { return b.Backend.Copy(ctx, dst, src, lockUntil) })
}

// List is store.Backend's.
func (b *Backend) List(ctx context.Context, prefix string) (infos []store.Info, err error) {
	err = b.do(ctx, List, prefix, func(*fault) (err error) {
		infos, err = b.Backend.List(ctx, prefix)
		return err
	})
	return infos, err
}

// Delete is store.Backend's.
func (b *Backend) Delete(ctx context.Context, key string) error {
	return b.do(ctx, Delete, key, func(*fault) error { return b.Backend.Delete(ctx, key) })
}
