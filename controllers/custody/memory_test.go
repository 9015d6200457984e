package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const uid = "0f9a1c52-8f5e-4a62-9d0b-6f1c2f3e4d5a"

var (
	errExists = errors.New("exists")
	errStore  = errors.New("the store is down")
	start     = time.Date(2026, 9, 14, 7, 31, 29, 0, time.UTC)
	// operator is the key that seals where it does not matter which one does.
	operator = mustGenerateKey()
)

func mustGenerateKey() *Key {
	k, err := GenerateKey()
	if err != nil {
		panic(err)
	}
	return k
}

// memory is a store in memory that creates objects if and only if they are not there.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	// before is called before a create; it may change what is written, and its error keeps it from being written. after is called after one; its error is the answer.
	before func(key string, data []byte) ([]byte, error)
	after  func(key string) error
	reads  int
}

func newMemory() *memory { return &memory{objects: map[string][]byte{}} }

func (m *memory) Create(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.objects[key]; taken {
		return fmt.Errorf("creating %s: %w", key, errExists)
	}
	written := slices.Clone(data)
	if m.before != nil {
		var err error
		if written, err = m.before(key, written); err != nil {
			return err
		}
	}
	m.objects[key] = written
	if !bytes.Equal(written, data) {
		return errors.New("what is read back is not what was written")
	}
	if m.after != nil {
		return m.after(key)
	}
	return nil
}

func (m *memory) Read(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	data, found := m.objects[key]
	if !found {
		return nil, errors.New("not found")
	}
	return slices.Clone(data), nil
}

func (m *memory) Keys(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for key := range m.objects {
		if strings.HasPrefix(key, prefix) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (m *memory) OpenReader(ctx context.Context, key string) (io.ReadCloser, error) {
	data, err := m.Read(ctx, key)
	return io.NopCloser(bytes.NewReader(data)), err
}

// put stores an item and returns how a fact names it.
func (m *memory) put(content, name string) *Stored {
	d := digest([]byte(content))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[ItemKey(uid, d)] = []byte(content)
	return &Stored{Key: ItemKey(uid, d), Digest: d, Size: int64(len(content)), PlainDigest: d, PlainSize: int64(len(content)), MediaType: "text/plain", Name: name}
}

// copy is a store with the same objects.
func (m *memory) copy() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := newMemory()
	for key, data := range m.objects {
		out.objects[key] = slices.Clone(data)
	}
	return out
}

func fact(id string) Fact {
	return Fact{ID: id, At: start, Actor: Actor{Kind: ActorOperator, Name: "cofferdam"}, Action: "QuarantinePod", Phase: PhaseIntent, Subject: Subject{Kind: "Pod", Namespace: "shop", Name: "web-" + id, UID: "u-" + id}}
}

func facts(prefix string, n int) []Fact {
	out := make([]Fact, n)
	for i := range out {
		out[i] = fact(fmt.Sprintf("%s%d", prefix, i+1))
	}
	return out
}

func open(t testing.TB, m Objects) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), m, uid)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t testing.TB, l *Ledger, facts ...Fact) {
	t.Helper()
	added, err := l.Append(t.Context(), operator, facts, start)
	if err != nil || added != len(facts) {
		t.Fatalf("appended %d of %d: %v", added, len(facts), err)
	}
}

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, l *Ledger, k Signer) Head {
	t.Helper()
	h, err := l.Sign(t.Context(), k, start)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ids are the IDs in the ledger, in order.
func ids(l *Ledger) []string {
	var out []string
	for e := range l.Entries() {
		out = append(out, e.ID)
	}
	return out
}

// damageOf is the damage in an error; the test fails if there is none.
// wantDamage is damageOf where it does not matter which damage it is.
func wantDamage(t testing.TB, err error) {
	t.Helper()
	_ = damageOf(t, err)
}

func damageOf(t testing.TB, err error) *DamageError {
	t.Helper()
	damage, ok := errors.AsType[*DamageError](err)
	if !ok {
		t.Fatalf("no damage was found, but: %v", err)
	}
	return damage
}
