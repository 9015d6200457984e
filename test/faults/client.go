// Package faults kills the operator between any two of its writes, and looks whether what comes after is what an undisturbed run arrives at.
package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/controllers/store/faulty"
)

// errDead is what a client of a dead operator answers: it can neither read nor write any more.
var errDead = errors.New("this operator is dead")

// Moment is when the operator dies with respect to a write.
type Moment string

const (
	// Never lets it live; the writes are counted all the same.
	Never Moment = "never"
	// Before is before the write reaches the API server.
	Before Moment = "before"
	// After is after the API server has carried it out and before the operator learns of it.
	After Moment = "after"
)

// Client counts the writes of an operator and kills it at one of them.
type Client struct {
	client.Client

	moment Moment
	at     Write

	mu     sync.Mutex
	counts map[string]int
	writes []Write
	dead   chan struct{}
	// dying is the write to the store after which the operator dies, while it is made.
	dying *storeWrite
}

// Write is one write of an operator: the nth of its kind, counted from 1. Runs differ in how many writes of status fall between the others, so that a write is
// known by its kind, not by its place.
type Write struct {
	Kind string
	Nth  int
}

// NewClient makes a client that dies at the given write.
func NewClient(moment Moment, at Write) *Client {
	return &Client{moment: moment, at: at, counts: map[string]int{}, dead: make(chan struct{})}
}

// Wrap makes the client act through another one.
func (c *Client) Wrap(inner client.Client) client.Client {
	c.Client = inner
	return c
}

// Dead is closed when the operator has died.
func (c *Client) Dead() <-chan struct{} { return c.dead }

// Writes are the writes so far.
func (c *Client) Writes() []Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

func (c *Client) alive() error {
	select {
	case <-c.dead:
		return errDead
	default:
		return nil
	}
}

// write counts a write and carries it out, unless the operator dies first.
func (c *Client) write(verb string, obj runtime.Object, fn func() error) error {
	c.mu.Lock()
	if err := c.alive(); err != nil {
		c.mu.Unlock()
		return err
	}
	kind := fmt.Sprintf("%s %T", verb, obj)
	c.counts[kind]++
	write := Write{Kind: kind, Nth: c.counts[kind]}
	c.writes = append(c.writes, write)
	fatal := c.moment != Never && write == c.at
	if fatal && c.moment == Before {
		close(c.dead)
		c.mu.Unlock()
		return errDead
	}
	defer c.mu.Unlock()
	err := fn()
	if fatal {
		close(c.dead)
		return errDead
	}
	return err
}

// OpenStore opens the operator's evidence store, whose writes are counted too: a store outlives the operators that write to it.
func (c *Client) OpenStore(ctx context.Context, url string, opts store.Options) (*store.Store, error) {
	inner, err := store.OpenBackend(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	backend := faulty.New(inner)
	backend.Hook(c.storeEvent)
	return store.New(backend, opts)
}

// storeEvent counts a write to the store, and keeps it from being made, or its answer from being heard, when the operator dies.
func (c *Client) storeEvent(e faulty.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := fmt.Sprintf("store %s %s", e.Op, folderOf(e.Key))
	if e.After {
		if dying := c.dying; dying != nil && *dying == (storeWrite{kind, e.Nth}) {
			close(c.dead)
			c.dying = nil
		}
		return c.alive()
	}
	if err := c.alive(); err != nil {
		return err
	}
	c.counts[kind]++
	write := Write{Kind: kind, Nth: c.counts[kind]}
	c.writes = append(c.writes, write)
	if c.moment == Never || write != c.at {
		return nil
	}
	if c.moment == Before {
		close(c.dead)
		return errDead
	}
	c.dying = &storeWrite{kind, e.Nth}
	return nil
}

// storeWrite is a write to the store by its number there.
type storeWrite struct {
	kind string
	nth  int
}

// folderOf is what kind of object a key names.
func folderOf(key string) string {
	parts := strings.Split(key, "/")
	if parts[0] == "incidents" && len(parts) > 2 {
		return parts[2]
	}
	return parts[0]
}

// Get reads, while the operator lives.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := c.alive(); err != nil {
		return err
	}
	return c.Client.Get(ctx, key, obj, opts...)
}

// List reads, while the operator lives.
func (c *Client) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := c.alive(); err != nil {
		return err
	}
	return c.Client.List(ctx, list, opts...)
}

// Create is counted, except for reviews, which are questions.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	do := func() error { return c.Client.Create(ctx, obj, opts...) }
	if obj.GetName() == "" {
		if err := c.alive(); err != nil {
			return err
		}
		return do()
	}
	return c.write("create", obj, do)
}

// Update is counted.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return c.write("update", obj, func() error { return c.Client.Update(ctx, obj, opts...) })
}

// Patch is counted.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return c.write("patch", obj, func() error { return c.Client.Patch(ctx, obj, patch, opts...) })
}

// Delete is counted.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	return c.write("delete", obj, func() error { return c.Client.Delete(ctx, obj, opts...) })
}

// Status returns a writer whose updates are counted.
func (c *Client) Status() client.SubResourceWriter {
	return &statusWriter{SubResourceWriter: c.Client.Status(), parent: c}
}

type statusWriter struct {
	client.SubResourceWriter

	parent *Client
}

// Update is counted.
func (w *statusWriter) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	return w.parent.write("status", obj, func() error { return w.SubResourceWriter.Update(ctx, obj, opts...) })
}
