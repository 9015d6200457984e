package store_test

import (
	"context"
	"io"
	"runtime"
	"testing"

	"filippo.io/age"

	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/fakes3"
)

// gauge looks at the heap for every MiB that passes, on the way in and on the way back.
type gauge struct {
	store.Backend
	peak uint64
}

type gauged struct {
	io.Reader
	g    *gauge
	next int
}

func (r *gauged) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.next -= n; r.next <= 0 {
		r.next = 1 << 20
		r.g.look()
	}
	return n, err
}

func (g *gauge) look() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	g.peak = max(g.peak, m.HeapAlloc)
}

func (g *gauge) Write(ctx context.Context, key string, r io.Reader, o store.WriteOptions) error {
	return g.Backend.Write(ctx, key, &gauged{Reader: r, g: g}, o)
}

func (g *gauge) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := g.Backend.Open(ctx, key)
	return struct {
		io.Reader
		io.Closer
	}{&gauged{Reader: r, g: g}, r}, err
}

// pattern is a stream that does not repeat in step with any buffer.
type pattern struct{ n byte }

func (r *pattern) Read(p []byte) (int, error) {
	for i := range p {
		r.n = r.n*5 + 17
		p[i] = r.n
	}
	return len(p), nil
}

func TestMemoryIsBounded(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	fake := fakes3.New(t)
	for name, c := range map[string]struct {
		url         string
		size, bound int64
		opts        store.Options
	}{
		"directory": {"file://" + t.TempDir(), 256 << 20, 16 << 20, store.Options{}},
		"encrypted": {"file://" + t.TempDir(), 64 << 20, 16 << 20, store.Options{Recipients: []string{identity.Recipient().String()}}},
		// Three parts of 5 MiB, and what the collector has not yet come to.
		"s3": {fake.StoreURL(""), 96 << 20, 64 << 20, store.Options{Credentials: s3Credentials}},
	} {
		t.Run(name, func(t *testing.T) {
			inner, err := store.OpenBackend(t.Context(), c.url, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			g := &gauge{Backend: inner}
			s := mustNew(t, g, c.opts)
			runtime.GC()
			g.look()
			before := g.peak
			o, err := s.PutItem(t.Context(), uid, io.LimitReader(&pattern{}, c.size))
			if err != nil {
				t.Fatal(err)
			}
			if o.PlainSize != c.size {
				t.Errorf("%d bytes of %d", o.PlainSize, c.size)
			}
			used := int64(g.peak - before)
			t.Logf("%d MiB took %d KiB", c.size>>20, used>>10)
			if used > c.bound {
				t.Errorf("%d MiB took %d MiB of memory", c.size>>20, used>>20)
			}
			wantKeys(t, s, "", o.Key)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
