// Package sim stands in for the parts of a cluster that need machines: the
// kubelets that run pods, and a CSI driver with its provisioner and snapshotter.
// It does what they do to API objects and runs nothing.
package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	groupsnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Simulator simulates nodes and one CSI driver.
type Simulator struct {
	// Config authenticates the CSI driver's side; it also watches for everybody.
	Config *rest.Config
	// Nodes are the nodes to simulate.
	Nodes []Node
	// Snapshots says whether the VolumeSnapshot API is installed.
	Snapshots bool
	// Log receives one JSON object per line.
	Log io.Writer

	manager ctrl.Manager
}

// Node is one simulated node with the credentials of its kubelet.
type Node struct {
	Name   string
	Config *rest.Config
	// Serving is the certificate of the kubelet's own server, on loopback.
	// ClientCAs vouch for those who come with a certificate.
	Serving   tls.Certificate
	ClientCAs *x509.CertPool
}

// NodeNames returns the names of the first n nodes: node-a, node-b and so on.
func NodeNames(n int) []string {
	names := make([]string, 0, n)
	for i := range n {
		names = append(names, "node-"+string(rune('a'+i)))
	}
	return names
}

// MaxNodes is how many names NodeNames can make.
const MaxNodes = 26

// Prepare creates the nodes and the storage classes and sets up the
// controllers that Run runs.
func (s *Simulator) Prepare(ctx context.Context) error {
	log := logr.FromSlogHandler(slog.NewJSONHandler(s.Log, nil))
	logf.SetLogger(log)

	mgr, err := ctrl.NewManager(s.Config, manager.Options{
		Scheme:     newScheme(),
		Logger:     log,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Cache:      cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Controller: config.Controller{MaxConcurrentReconciles: 8},
	})
	if err != nil {
		return fmt.Errorf("create manager: %w", err)
	}
	s.manager = mgr
	if err := s.createClasses(ctx); err != nil {
		return err
	}
	kubelets, err := s.startNodes(ctx)
	if err != nil {
		return err
	}
	backend := newBackend()
	for _, setup := range []func(ctrl.Manager) error{
		(&podReconciler{kubelets: kubelets, addresses: newAddresses(), delays: newDelays()}).setup,
		(&provisioner{client: mgr.GetClient(), backend: backend, snapshots: s.Snapshots}).setup,
		(&volumeReconciler{client: mgr.GetClient()}).setup,
	} {
		if err := setup(mgr); err != nil {
			return fmt.Errorf("set up simulator: %w", err)
		}
	}
	if !s.Snapshots {
		return nil
	}
	snapshots := &snapshotter{client: mgr.GetClient(), backend: backend, delays: newDelays()}
	groups := &groupSnapshotter{client: mgr.GetClient(), snapshots: snapshots, delays: newDelays()}
	if err := errors.Join(snapshots.setup(mgr), groups.setup(mgr)); err != nil {
		return fmt.Errorf("set up simulator: %w", err)
	}
	return nil
}

// Run simulates until the context ends.
func (s *Simulator) Run(ctx context.Context) error {
	return s.manager.Start(ctx)
}

// startNodes registers every node and arranges its heartbeats.
func (s *Simulator) startNodes(ctx context.Context) (map[string]*kubelet, error) {
	kubelets := map[string]*kubelet{}
	for i, node := range s.Nodes {
		clientset, err := kubernetes.NewForConfig(node.Config)
		if err != nil {
			return nil, fmt.Errorf("create client of %s: %w", node.Name, err)
		}
		pods, err := client.New(node.Config, client.Options{Scheme: s.manager.GetScheme(), Mapper: s.manager.GetRESTMapper()})
		if err != nil {
			return nil, fmt.Errorf("create client of %s: %w", node.Name, err)
		}
		k := &kubelet{name: node.Name, ip: nodeIP(i), clientset: clientset, client: pods}
		server, err := k.listen(s.manager.GetClient(), node)
		if err != nil {
			return nil, err
		}
		if err := k.register(ctx); err != nil {
			return nil, errors.Join(err, server.listener.Close())
		}
		if err := s.manager.Add(manager.RunnableFunc(server.serve)); err != nil {
			return nil, fmt.Errorf("add server of %s: %w", node.Name, errors.Join(err, server.listener.Close()))
		}
		if err := s.manager.Add(manager.RunnableFunc(k.heartbeat)); err != nil {
			return nil, fmt.Errorf("add heartbeat of %s: %w", node.Name, err)
		}
		kubelets[node.Name] = k
	}
	return kubelets, nil
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(snapshotv1.AddToScheme(scheme))
	utilruntime.Must(groupsnapshotv1.AddToScheme(scheme))
	return scheme
}

// delays makes a reconciler wait before it acts on an object, without blocking
// a worker.
type delays struct {
	mu    sync.Mutex
	since map[string]time.Time
}

func newDelays() *delays {
	return &delays{since: map[string]time.Time{}}
}

// remaining returns how much of the delay is left; the delay begins at the
// first call for the key.
func (d *delays) remaining(key string, delay time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	begun, ok := d.since[key]
	if !ok {
		begun = time.Now()
		d.since[key] = begun
	}
	return delay - time.Since(begun)
}

func (d *delays) forget(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.since, key)
}
