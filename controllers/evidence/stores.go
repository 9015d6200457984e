package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=secrets,verbs=get

// Stores opens the stores that standing orders name, and keeps them open.
type Stores struct {
	// Default is the URL of the store that is used when the orders name none.
	Default string
	// Reader reads Secrets, live.
	Reader client.Reader
	// Namespace is the operator's own, where the Secrets with credentials are.
	Namespace string
	Clock     clock.PassiveClock
	// OpenStore replaces store.Open, for tests that make stores fail.
	OpenStore func(ctx context.Context, url string, opts store.Options) (*store.Store, error)

	mu   sync.Mutex
	open map[string]*store.Store
}

// For returns the store that the orders name. Credentials that were changed are noticed.
func (s *Stores) For(ctx context.Context, orders v1alpha1.EvidenceStore) (*store.Store, error) {
	url := orders.URL
	if url == "" {
		url = s.Default
	}
	if url == "" {
		return nil, errors.New("no evidence store is configured: start the operator with --evidence-store, or name one in the ContainmentPolicy (evidence.store.url)")
	}
	opts := store.Options{Recipients: orders.EncryptTo, LockDays: int(orders.LockDays), Clock: s.Clock}
	version := ""
	if orders.CredentialsSecret != "" {
		var secret corev1.Secret
		if err := s.Reader.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: orders.CredentialsSecret}, &secret); err != nil {
			return nil, fmt.Errorf("reading the credentials of the evidence store: %w", err)
		}
		opts.Credentials, version = secret.Data, string(secret.UID)+"/"+secret.ResourceVersion
	}
	key := fmt.Sprint(url, version, strings.Join(orders.EncryptTo, ","), orders.LockDays)
	if st := s.known(key); st != nil {
		return st, nil
	}
	// Not under the lock: a store that hangs must not keep others from being opened.
	st, err := s.tryOut(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	return s.keep(key, st), nil
}

// tryOut opens a store, and finds out whether it does what the ledger relies on: some services take a second object under a key that is taken.
func (s *Stores) tryOut(ctx context.Context, url string, opts store.Options) (*store.Store, error) {
	open := store.Open
	if s.OpenStore != nil {
		open = s.OpenStore
	}
	st, err := open(ctx, url, opts)
	if err != nil {
		return nil, fmt.Errorf("opening the evidence store: %w", err)
	}
	if err := st.Check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("trying out the evidence store: %w", err), st.Close())
	}
	if _, err := st.Sweep(ctx); err != nil {
		logf.FromContext(ctx).Error(err, "What uploads that broke off have left in the evidence store could not be removed", "store", st.URL())
	}
	return st, nil
}

func (s *Stores) known(key string) *store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[key]
}

// keep remembers an open store. Where somebody else was faster, theirs is the one.
func (s *Stores) keep(key string, st *store.Store) *store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.open[key]; first != nil {
		_ = st.Close() // nothing was written through it that has to be flushed
		return first
	}
	if s.open == nil {
		s.open = map[string]*store.Store{}
	}
	s.open[key] = st
	return st
}

// Sink is the store of the orders, opened when something is put into it.
func (s *Stores) Sink(orders v1alpha1.EvidenceStore) Sink { return sink{stores: s, orders: orders} }

type sink struct {
	stores *Stores
	orders v1alpha1.EvidenceStore
}

func (s sink) PutItem(ctx context.Context, incidentUID string, r io.Reader) (store.Object, error) {
	st, err := s.stores.For(ctx, s.orders)
	if err != nil {
		return store.Object{}, err
	}
	return st.PutItem(ctx, incidentUID, r)
}
