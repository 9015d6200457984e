package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/controllers/store/faulty"
	"cofferdam.dev/cofferdam/test/fakes3"
)

const (
	ledgerKey = "incidents/" + uid + "/ledger/000000000001-01.jsonl"
	evidence  = "what was found"
)

func evidenceKey() string { return store.HexKey(uid, sum([]byte(evidence))) }

// broken is a store over a backend that fails as planned. Its clock is two days ahead, so that Sweep takes every upload for abandoned.
func broken(t *testing.T, url string, plan ...faulty.Fault) (*store.Store, *faulty.Backend) {
	t.Helper()
	inner, err := store.OpenBackend(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bad := faulty.New(inner, plan...)
	s := mustNew(t, bad, store.Options{Clock: clocktesting.NewFakePassiveClock(time.Now().Add(48 * time.Hour))})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, bad
}

// places are URLs that can be broken: of each kind a new one each time.
func places(t *testing.T) map[string]func() string {
	t.Helper()
	return map[string]func() string{
		"memory":    newMemory,
		"directory": func() string { return "file://" + t.TempDir() },
	}
}

// write is something that stores; small is the size up to which items are written at once.
type write struct {
	name  string
	key   string
	small int
	do    func(context.Context, *store.Store) error
}

func writes() []write {
	put := func(ctx context.Context, s *store.Store) error {
		_, err := s.PutItem(ctx, uid, strings.NewReader(evidence))
		return err
	}
	return []write{
		{"create", ledgerKey, 0, func(ctx context.Context, s *store.Store) error { return s.Create(ctx, ledgerKey, []byte(evidence)) }},
		{"small item", evidenceKey(), 1 << 20, put},
		{"large item", evidenceKey(), 1, put},
	}
}

func TestFaults(t *testing.T) {
	// left is what may lie under the key afterwards.
	const nothing, whole, damaged = "nothing", evidence, "damaged"
	type result struct {
		err  error
		left string
	}
	// In the order of writes(): create, small item, large item.
	for _, c := range []struct {
		name  string
		fault faulty.Fault
		want  [3]result
	}{
		{"write fails", faulty.Fault{Op: faulty.Write}, [3]result{{faulty.ErrInjected, nothing}, {faulty.ErrInjected, nothing}, {faulty.ErrInjected, nothing}}},
		{"answer to the write is lost", faulty.Fault{Op: faulty.Write, Kind: faulty.Lose}, [3]result{{faulty.ErrInjected, whole}, {faulty.ErrInjected, whole}, {faulty.ErrInjected, nothing}}},
		{"write is cut", faulty.Fault{Op: faulty.Write, Kind: faulty.Truncate, N: 5}, [3]result{{store.ErrCorrupt, damaged}, {store.ErrCorrupt, damaged}, {store.ErrCorrupt, damaged}}},
		{"write is cut to nothing", faulty.Fault{Op: faulty.Write, Kind: faulty.Truncate}, [3]result{{store.ErrCorrupt, damaged}, {store.ErrCorrupt, damaged}, {store.ErrCorrupt, damaged}}},
		{"write is torn", faulty.Fault{Op: faulty.Write, Kind: faulty.Tear, N: 5}, [3]result{{faulty.ErrInjected, damaged}, {faulty.ErrInjected, damaged}, {faulty.ErrInjected, nothing}}},
		{"disk is full", faulty.Fault{Kind: faulty.Full, N: 5}, [3]result{{syscall.ENOSPC, nothing}, {syscall.ENOSPC, nothing}, {syscall.ENOSPC, nothing}}},
		{"read-only", faulty.Fault{Kind: faulty.ReadOnly}, [3]result{{syscall.EROFS, nothing}, {syscall.EROFS, nothing}, {syscall.EROFS, nothing}}},
		{"credentials lost", faulty.Fault{Kind: faulty.Denied}, [3]result{{store.ErrDenied, nothing}, {store.ErrDenied, nothing}, {store.ErrDenied, nothing}}},
		{"credentials lost before read-back", faulty.Fault{Op: faulty.Open, Kind: faulty.Denied}, [3]result{{store.ErrDenied, whole}, {store.ErrDenied, whole}, {store.ErrDenied, whole}}},
		{"wrong byte read back", faulty.Fault{Op: faulty.Open, Kind: faulty.Flip, N: 7}, [3]result{{store.ErrCorrupt, whole}, {store.ErrCorrupt, whole}, {store.ErrCorrupt, whole}}},
		{"read-back fails", faulty.Fault{Op: faulty.Open}, [3]result{{faulty.ErrInjected, whole}, {faulty.ErrInjected, whole}, {faulty.ErrInjected, whole}}},
		{"copy fails", faulty.Fault{Op: faulty.Copy}, [3]result{{nil, whole}, {nil, whole}, {faulty.ErrInjected, nothing}}},
		{"answer to the copy is lost", faulty.Fault{Op: faulty.Copy, Kind: faulty.Lose}, [3]result{{nil, whole}, {nil, whole}, {faulty.ErrInjected, whole}}},
		{"stat fails", faulty.Fault{Op: faulty.Stat}, [3]result{{nil, whole}, {nil, whole}, {nil, whole}}},
		{"upload cannot be removed", faulty.Fault{Op: faulty.Delete}, [3]result{{nil, whole}, {nil, whole}, {nil, whole}}},
	} {
		for i, w := range writes() {
			for kind, place := range places(t) {
				t.Run(c.name+"/"+w.name+"/"+kind, func(t *testing.T) {
					s, bad := broken(t, place(), c.fault)
					store.SetSmall(s, w.small)
					err := w.do(t.Context(), s)
					wantIs(t, w.name, err, c.want[i].err)
					if err != nil && (!strings.Contains(err.Error(), "incidents/"+uid) || !strings.Contains(err.Error(), bad.URL())) {
						t.Errorf("the error does not say what and where: %v", err)
					}
					bad.Plan()
					if got := state(t, s, w.key); got != c.want[i].left {
						t.Errorf("left is %s; want %s", got, c.want[i].left)
					}
					wantRecovery(t, s, w)
				})
			}
		}
	}
}

// state tells what lies under a key.
func state(t *testing.T, s *store.Store, key string) string {
	t.Helper()
	data, err := s.Read(t.Context(), key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "nothing"
	case err != nil:
		t.Error(err)
		return "an error"
	case string(data) == evidence:
		return evidence
	default:
		return "damaged"
	}
}

// wantRecovery fails unless a repeat on a healthy store leads to where an undisturbed run would have led. A key that was created is left as it is, and that is said.
func wantRecovery(t *testing.T, s *store.Store, w write) {
	t.Helper()
	before := state(t, s, w.key)
	err := w.do(t.Context(), s)
	if w.key == ledgerKey && before != "nothing" {
		wantIs(t, "repeat", err, store.ErrExists)
		if after := state(t, s, w.key); after != before {
			t.Errorf("%s became %s", before, after)
		}
	} else {
		wantIs(t, "repeat", err, nil)
		if after := state(t, s, w.key); after != evidence {
			t.Errorf("left is %s", after)
		}
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	wantKeys(t, s, "", w.key)
}

// TestKilledAtEveryByte lets the write end at each byte in turn, by the source, by the disk, and by a torn write.
func TestKilledAtEveryByte(t *testing.T) {
	for k := range int64(len(evidence)) {
		for _, w := range writes() {
			for kind, place := range places(t) {
				for name, fault := range map[string]faulty.Fault{
					"full": {Kind: faulty.Full, N: k}, "torn": {Op: faulty.Write, Kind: faulty.Tear, N: k}, "cut": {Op: faulty.Write, Kind: faulty.Truncate, N: k},
				} {
					t.Run(fmt.Sprintf("%s %s %s %d", kind, w.name, name, k), func(t *testing.T) {
						s, bad := broken(t, place(), fault)
						store.SetSmall(s, w.small)
						if err := w.do(t.Context(), s); err == nil {
							t.Error("stored")
						}
						bad.Plan()
						if name == "full" {
							wantKeys(t, s, "") // Not even in incoming/.
						}
						wantRecovery(t, s, w)
					})
				}
			}
		}
	}
}

func TestSourceFailsAtEveryByte(t *testing.T) {
	cause := errors.New("the stream broke off")
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s := open(store.Options{})
			for k := range len(evidence) + 1 {
				for _, small := range []int{0, 5, 1 << 20} {
					store.SetSmall(s, small)
					source := io.MultiReader(strings.NewReader(evidence[:k]), iotest.ErrReader(cause))
					_, err := s.PutItem(t.Context(), uid, source)
					wantIs(t, fmt.Sprintf("byte %d", k), err, cause)
					wantKeys(t, s, "")
				}
			}
			_, err := s.PutItem(t.Context(), uid, iotest.OneByteReader(strings.NewReader(evidence)))
			wantIs(t, "the whole", err, nil)
			wantKeys(t, s, "", evidenceKey())
		})
	}
}

// TestKilledBetweenWrites stops before and after each change in turn, for good, as a manager that is killed does, and starts again.
func TestKilledBetweenWrites(t *testing.T) {
	for _, w := range writes() {
		for kind, place := range places(t) {
			s, bad := broken(t, place())
			store.SetSmall(s, w.small)
			wantIs(t, "undisturbed", w.do(t.Context(), s), nil)
			changes := bad.Changes()
			if want := map[string]int{"create": 1, "small item": 1, "large item": 3}[w.name]; len(changes) != want {
				t.Errorf("%s: %v", w.name, changes)
			}
			for _, at := range changes {
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %s %d %t", kind, w.name, at.Nth, after), func(t *testing.T) {
						s, bad := broken(t, place())
						store.SetSmall(s, w.small)
						ctx, kill := context.WithCancel(t.Context())
						defer kill()
						bad.Hook(func(e faulty.Event) error {
							if e.Nth > at.Nth || e.Nth == at.Nth && e.After == after {
								kill()
								return ctx.Err()
							}
							return nil
						})
						if err := w.do(ctx, s); err == nil && at.Op != faulty.Delete {
							t.Error("survived")
						}
						bad.Hook(nil)
						wantRecovery(t, s, w)
					})
				}
			}
		}
	}
}

func TestContexts(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s := open(store.Options{})
			o, err := s.PutItem(t.Context(), uid, strings.NewReader(evidence))
			wantIs(t, "putting", err, nil)
			r, err := s.OpenReader(t.Context(), o.Key)
			wantIs(t, "opening", err, nil)
			wantIs(t, "closing", r.Close(), nil)
			ctx, cancel := context.WithCancel(t.Context())
			open, err := s.OpenReader(ctx, o.Key)
			wantIs(t, "opening", err, nil)
			cancel()
			_, err = open.Read(make([]byte, 10))
			wantIs(t, "reading on", err, context.Canceled)
			_ = open.Close() // It may say so too.
			late, end := context.WithDeadline(t.Context(), time.Unix(0, 0))
			defer end()
			for what, err := range calls(late, s, o) {
				wantIs(t, what, err, context.DeadlineExceeded)
			}
			wantKeys(t, s, "", o.Key)
		})
	}
}

// calls makes each call of a store and returns its errors.
func calls(ctx context.Context, s *store.Store, o store.Object) map[string]error {
	_, read := s.Read(ctx, o.Key)
	_, open := s.OpenReader(ctx, o.Key)
	_, keys := s.Keys(ctx, "")
	_, sweep := s.Sweep(ctx)
	_, small := s.PutItem(ctx, uid, strings.NewReader("other"))
	_, large := s.PutItem(ctx, uid, bytes.NewReader(make([]byte, 1<<20)))
	return map[string]error{
		"read": read, "open": open, "keys": keys, "sweep": sweep, "small": small, "large": large, "create": s.Create(ctx, "new", nil), "verify": s.Verify(ctx, o), "delete": s.Delete(ctx, o.Key), "check": s.Check(ctx),
	}
}

// TestStoreThatHangs ends the context as soon as the store hangs, in each operation in turn.
func TestStoreThatHangs(t *testing.T) {
	for _, op := range []faulty.Op{faulty.Write, faulty.Open, faulty.Stat, faulty.Copy, faulty.List} {
		s, bad := broken(t, newMemory())
		store.SetSmall(s, 1)
		o, err := s.PutItem(t.Context(), uid, strings.NewReader(evidence))
		wantIs(t, "putting", err, nil)
		bad.Plan(faulty.Fault{Op: op, Kind: faulty.Hang})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		hung := 0
		for _, err := range calls(ctx, s, o) {
			if errors.Is(err, faulty.ErrInjected) {
				hung++
				wantIs(t, string(op), err, context.Canceled)
			}
		}
		if hung == 0 && op != faulty.Stat && op != faulty.Copy {
			t.Errorf("nothing hung in %s", op)
		}
	}
}

// TestSourceThatHangs ends the context while PutItem waits for a log that says nothing more.
func TestSourceThatHangs(t *testing.T) {
	for name, open := range backends(t) {
		t.Run(name, func(t *testing.T) {
			s := open(store.Options{})
			for _, small := range []int{1, 1 << 20} {
				store.SetSmall(s, small)
				ctx, cancel := context.WithCancel(t.Context())
				silent, w := io.Pipe()
				go func() {
					_, _ = w.Write([]byte(evidence)) // Returns once all was read.
					cancel()
				}()
				_, err := s.PutItem(ctx, uid, silent)
				wantIs(t, "putting", err, context.Canceled)
				wantIs(t, "the other end", w.Close(), nil)
				wantKeys(t, s, "incidents/")
			}
		})
	}
}

// lazy stops reading after a few bytes and says that it has stored them all.
type lazy struct{ store.Backend }

func (l lazy) Write(ctx context.Context, key string, r io.Reader, o store.WriteOptions) error {
	return l.Backend.Write(ctx, key, io.LimitReader(r, 5), o)
}

func TestStoreThatDoesNotReadOn(t *testing.T) {
	inner, err := store.OpenBackend(t.Context(), newMemory(), store.Options{})
	wantIs(t, "opening", err, nil)
	s := mustNew(t, lazy{inner}, store.Options{})
	for _, w := range writes() {
		store.SetSmall(s, w.small)
		wantIs(t, w.name, w.do(t.Context(), s), store.ErrCorrupt)
		wantIs(t, "deleting", s.Delete(t.Context(), w.key), nil)
	}
	wantKeys(t, s, "")
}

func TestStoreThatIsNotExclusive(t *testing.T) {
	fake := fakes3.New(t)
	fake.Deaf = true
	s := mustOpen(t, fake.StoreURL(""), store.Options{Credentials: s3Credentials})
	wantIs(t, "checking", s.Check(t.Context()), store.ErrNotExclusive)
	wantKeys(t, s, "")
}

func TestFaultyCounts(t *testing.T) {
	s, bad := broken(t, newMemory(), faulty.Fault{Op: faulty.Write, Key: "/b", Nth: 2}, faulty.Fault{Op: faulty.Delete, Nth: 2, Onwards: true})
	var failed []string
	for _, key := range []string{"x/a1", "x/b1", "x/a2", "x/b2", "x/b3"} {
		if err := s.Create(t.Context(), key, nil); err != nil {
			failed = append(failed, key)
		}
	}
	for _, key := range []string{"x/a1", "x/b1", "x/a2"} {
		if err := s.Delete(t.Context(), key); err != nil {
			failed = append(failed, "-"+key)
		}
	}
	if diff := cmp.Diff([]string{"x/b2", "-x/b1", "-x/a2"}, failed); diff != "" {
		t.Error(diff)
	}
	if n := len(bad.Changes()); n != 8 {
		t.Errorf("%d changes", n)
	}
	bad.Plan(faulty.Fault{Kind: faulty.Full, N: 10})
	for i, want := range []error{nil, syscall.ENOSPC, nil, syscall.ENOSPC} {
		err := s.Create(t.Context(), fmt.Sprintf("y/%d", i), bytes.Repeat([]byte("x"), []int{6, 5, 4, 1}[i]))
		wantIs(t, fmt.Sprintf("write %d to a disk with room for 10", i), err, want)
	}
	if keys, err := s.Keys(t.Context(), "y/"); err != nil || !slices.Equal(keys, []string{"y/0", "y/2"}) {
		t.Errorf("%v, %v", keys, err)
	}
}
