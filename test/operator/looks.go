package operator

import (
	"context"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Looks counts how many times the operator has looked at each Incident: at least once in every pass.
type Looks struct {
	mu     sync.Mutex
	counts map[client.ObjectKey]int
}

// Wrap counts what is read through the client.
func (l *Looks) Wrap(inner client.Client) client.Client {
	return &lookingClient{Client: inner, looks: l}
}

// At is how many times the operator has looked at the Incident.
func (l *Looks) At(namespace, name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[client.ObjectKey{Namespace: namespace, Name: name}]
}

type lookingClient struct {
	client.Client

	looks *Looks
}

// Get reads, and counts it if it is an Incident.
func (c *lookingClient) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if _, ok := obj.(*v1alpha1.Incident); ok {
		c.looks.mu.Lock()
		if c.looks.counts == nil {
			c.looks.counts = map[client.ObjectKey]int{}
		}
		c.looks.counts[key]++
		c.looks.mu.Unlock()
	}
	return c.Client.Get(ctx, key, obj, opts...)
}
