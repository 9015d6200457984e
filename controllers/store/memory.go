package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// memory keeps objects until the process ends. It is for tests: several stores in one process that are opened under one name see the same objects.
type memory struct {
	shared *objects
	prefix string
	url    string
	clock  clock.PassiveClock
}

type objects struct {
	mu    sync.Mutex
	byKey map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var memories = struct {
	mu     sync.Mutex
	byName map[string]*objects
}{byName: map[string]*objects{}}

func openMemory(_ context.Context, at location, opts Options) (Backend, error) {
	if strings.Trim(at.path, "/") != "" {
		return nil, errors.New("want mem://NAME")
	}
	memories.mu.Lock()
	defer memories.mu.Unlock()
	shared, ok := memories.byName[at.host]
	if !ok {
		shared = &objects{byKey: map[string]object{}}
		memories.byName[at.host] = shared
	}
	return &memory{shared: shared, prefix: at.prefix, url: at.String(), clock: opts.clock()}, nil
}

func (m *memory) Write(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
	data, err := io.ReadAll(until{ctx, r})
	if err != nil {
		return err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	if _, taken := m.shared.byKey[m.prefix+key]; taken && o.IfAbsent {
		return ErrExists
	}
	m.shared.byKey[m.prefix+key] = object{data: data, modified: m.clock.Now()}
	return nil
}

func (m *memory) get(ctx context.Context, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	o, ok := m.shared.byKey[m.prefix+key]
	if !ok {
		return object{}, ErrNotFound
	}
	return o, nil
}

func (m *memory) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	o, err := m.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(until{ctx, bytes.NewReader(o.data)}), nil
}

func (m *memory) Stat(ctx context.Context, key string) (Info, error) {
	o, err := m.get(ctx, key)
	return Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}, err
}

func (m *memory) Copy(ctx context.Context, dst, src string, _ time.Time) error {
	o, err := m.get(ctx, src)
	if err != nil {
		return err
	}
	return m.Write(ctx, dst, bytes.NewReader(o.data), WriteOptions{})
}

func (m *memory) List(ctx context.Context, prefix string) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	var infos []Info
	for full, o := range m.shared.byKey {
		if key, ok := strings.CutPrefix(full, m.prefix); ok && strings.HasPrefix(key, prefix) {
			infos = append(infos, Info{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	return infos, nil
}

func (m *memory) Delete(ctx context.Context, key string) error {
	if _, err := m.get(ctx, key); err != nil {
		return err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	delete(m.shared.byKey, m.prefix+key)
	return nil
}

func (m *memory) Locks() (bool, string) { return false, "memory cannot be locked" }
func (m *memory) URL() string           { return m.url }
func (m *memory) Close() error          { return nil }
