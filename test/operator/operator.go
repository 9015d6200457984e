// Package operator runs the operator inside a test process, with the permissions that it has in production.
package operator

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/store"
)

// Options say how the operator is run.
type Options struct {
	// Namespaces restricts what the operator sees, so that several can share a control plane. Empty means everything.
	Namespaces []string
	// Wrap wraps the client with which the operator acts.
	Wrap func(client.Client) client.Client
	// EvidenceStore is the URL of the evidence store. Default a store in memory that all operators of the process share.
	EvidenceStore string
	// KubeletCAs and KubeletAddressTypes say how kubelets are reached for checkpoints.
	KubeletCAs          *x509.CertPool
	KubeletAddressTypes []corev1.NodeAddressType
	// OpenStore replaces the opening of stores, for tests that make them fail.
	OpenStore func(ctx context.Context, url string, opts store.Options) (*store.Store, error)
}

// MemoryStore is the store that operators share unless they are told otherwise.
const MemoryStore = "mem://operators"

// ProbeImage is the image that operators give to probe pods. The simulated nodes run none, so that tests end these pods.
const ProbeImage = "cofferdam.dev/cofferdam/manager:dev"

// Operator is a running operator.
type Operator struct {
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
	err    error
}

// Start runs the operator with the identity of the configuration, and returns once its caches are filled.
func Start(ctx context.Context, cfg *rest.Config, opts Options) (*Operator, error) {
	options := ctrl.Options{
		Scheme:     controllers.NewScheme(),
		Client:     controllers.ClientOptions(),
		Cache:      controllers.CacheOptions(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: controllerConfig(),
	}
	if len(opts.Namespaces) > 0 {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for _, ns := range opts.Namespaces {
			options.Cache.DefaultNamespaces[ns] = cache.Config{}
		}
	}
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("prepare the manager: %w", err)
	}
	setup := controllers.Options{
		Controller: controller.Options{MaxConcurrentReconciles: 2}, EvidenceStore: cmp.Or(opts.EvidenceStore, MemoryStore), OpenStore: opts.OpenStore,
		KubeletCAs: opts.KubeletCAs, KubeletAddressTypes: opts.KubeletAddressTypes, ProbeImage: ProbeImage,
	}
	if opts.Wrap != nil {
		setup.Client = opts.Wrap(mgr.GetClient())
	}
	if err := controllers.Setup(mgr, setup); err != nil {
		return nil, fmt.Errorf("set up the controllers: %w", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o := &Operator{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.err = mgr.Start(running)
	}()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return nil, errors.Join(errors.New("the caches were not filled in time"), o.Stop())
	}
	return o, nil
}

// Stop ends the operator and waits until it has ended.
func (o *Operator) Stop() error {
	o.once.Do(o.cancel)
	<-o.done
	return o.err
}

// controllerConfig lets several operators run in one process, which production never does.
func controllerConfig() config.Controller {
	return config.Controller{SkipNameValidation: new(true)}
}
