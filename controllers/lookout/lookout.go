// Package lookout tells an Incident when something has changed that its recovery waits for, so that no step has to ask for it again and again. What a step reads is what it waits for: the reader that it is given
// begins to watch every object before it reads it, and nothing that changes after the read is missed.
package lookout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims;persistentvolumes,verbs=list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets;replicasets;controllerrevisions,verbs=list;watch
// +kubebuilder:rbac:groups=batch,resources=jobs;cronjobs,verbs=list;watch
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshots;volumesnapshotcontents,verbs=list;watch
// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=list;watch
// +kubebuilder:rbac:groups=argoproj.io,resources=applications;applicationsets,verbs=list;watch
// +kubebuilder:rbac:groups=kustomize.toolkit.fluxcd.io,resources=kustomizations,verbs=list;watch
// +kubebuilder:rbac:groups=helm.toolkit.fluxcd.io,resources=helmreleases,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=services,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=list;watch
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=list;watch

// Lookout watches, of the kinds that open recoveries wait for, the metadata of the objects in their namespaces. Its methods are safe for concurrent use.
type Lookout struct {
	metadata metadata.Interface
	mapper   apimeta.RESTMapper

	mu      sync.Mutex
	base    context.Context //nolint:containedctx // the life of the manager, which outlasts any one call
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	watches map[place]*watching
	// waits are what every Incident waits for.
	waits map[types.NamespacedName]map[wait]bool
	// absent are the kinds that the server was found not to serve, and when.
	absent map[schema.GroupKind]time.Time
}

// absentFor is how long a kind that is not served is not asked for again: that takes two requests, and most clusters have none of the things that a recovery looks for everywhere.
const absentFor = 10 * time.Second

// place is a kind in a namespace, or in the cluster.
type place struct {
	kind      schema.GroupVersionKind
	namespace string
}

// wait is an object that somebody waits for, or with no name any object at the place.
type wait struct {
	place
	name string
}

type watching struct {
	informer toolscache.SharedIndexInformer
	stop     context.CancelFunc
	users    map[types.NamespacedName]bool
}

// New returns a Lookout that reads with the client.
func New(client metadata.Interface, mapper apimeta.RESTMapper) *Lookout {
	return &Lookout{metadata: client, mapper: mapper, watches: map[place]*watching{}, waits: map[types.NamespacedName]map[wait]bool{}, absent: map[schema.GroupKind]time.Time{}}
}

// Start takes the queue of the Incident controller, as a source.Source does. Watches end with the context.
func (l *Lookout) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.queue = ctx, queue
	return nil
}

// expect notes that the Incident waits for what it is about to read. It says whether every change from now on brings a pass: not yet while the watch has just begun, and never where the operator may not watch.
// It also says whether the server does not serve the kind, as far as that was asked lately.
func (l *Lookout) expect(of types.NamespacedName, w wait) (seen, absent bool) {
	if l.isAbsent(w.kind.GroupKind()) {
		return false, true
	}
	mapping, err := l.mapper.RESTMapping(w.kind.GroupKind(), w.kind.Version)
	l.mu.Lock()
	defer l.mu.Unlock()
	if apimeta.IsNoMatchError(err) {
		l.absent[w.kind.GroupKind()] = time.Now()
		return false, true
	}
	if err != nil || l.base == nil {
		return false, false
	}
	if l.waits[of] == nil {
		l.waits[of] = map[wait]bool{}
	}
	l.waits[of][w] = true
	one := l.watches[w.place]
	if one == nil {
		if one = l.watch(w.place, mapping.Resource); one == nil {
			return false, false
		}
		l.watches[w.place] = one
	}
	one.users[of] = true
	return one.informer.HasSynced(), false
}

func (l *Lookout) isAbsent(kind schema.GroupKind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.absent[kind]
	if known && time.Since(at) > absentFor {
		delete(l.absent, kind)
		return false
	}
	return known
}

// waitsOf is what the Incident waits for.
func (l *Lookout) waitsOf(of types.NamespacedName) []wait {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.waits[of]))
}

// watch begins to watch a place.
func (l *Lookout) watch(where place, resource schema.GroupVersionResource) *watching {
	ctx, stop := context.WithCancel(l.base)
	log := ctrl.LoggerFrom(ctx).WithName("lookout").WithValues("resource", resource.String(), "namespace", where.namespace)
	informer := metadatainformer.NewFilteredMetadataInformer(l.metadata, resource, where.namespace, 0, toolscache.Indexers{}, nil).Informer()
	registration, err := l.prepare(ctx, informer, where)
	if err != nil {
		stop()
		log.Error(err, "What steps wait for is asked for again and again, since it cannot be watched")
		return nil
	}
	go informer.RunWithContext(ctx)
	go func() {
		// What was read before the watch had begun may have changed in between.
		if toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			l.wake(where, "")
		}
	}()
	return &watching{informer: informer, stop: stop, users: map[types.NamespacedName]bool{}}
}

// prepare makes the informer keep nothing but what tells one version of an object from the next, and wake whoever waits for it.
func (l *Lookout) prepare(ctx context.Context, informer toolscache.SharedIndexInformer, where place) (toolscache.ResourceEventHandlerRegistration, error) {
	err := informer.SetTransform(func(obj any) (any, error) {
		meta, ok := obj.(*metav1.PartialObjectMetadata)
		if !ok {
			return obj, nil
		}
		return &metav1.PartialObjectMetadata{TypeMeta: meta.TypeMeta, ObjectMeta: metav1.ObjectMeta{
			Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
		}}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("preparing a watch: %w", err)
	}
	// A watch that is refused is no error of the operator: what waits is polled.
	err = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		ctrl.LoggerFrom(ctx).V(1).Info("Watching what a step waits for", "kind", where.kind.String(), "namespace", where.namespace, "error", err.Error())
	})
	if err != nil {
		return nil, fmt.Errorf("preparing a watch: %w", err)
	}
	wake := func(obj any) {
		if last, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		if meta, ok := obj.(*metav1.PartialObjectMetadata); ok {
			l.wake(where, meta.Name)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, obj any) { wake(obj) }, DeleteFunc: wake})
	if err != nil {
		return nil, fmt.Errorf("preparing a watch: %w", err)
	}
	return registration, nil
}

// wake brings a pass to the Incidents that wait for the object, or with no name for anything at the place.
func (l *Lookout) wake(where place, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.watches[where]
	if one == nil {
		return
	}
	for of := range one.users {
		if name == "" || l.waits[of][wait{where, name}] || l.waits[of][wait{where, ""}] {
			l.queue.Add(reconcile.Request{NamespacedName: of})
		}
	}
}

// keep drops what the Incident does not wait for any more. Places stay watched until it is forgotten, since the next step mostly waits for objects of the same kinds.
func (l *Lookout) keep(of types.NamespacedName, still map[wait]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waits[of] {
		if !still[w] {
			delete(l.waits[of], w)
		}
	}
}

// Forget says that the Incident waits for nothing any more. What nobody waits for is not watched.
func (l *Lookout) Forget(of types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits[of] == nil {
		return
	}
	delete(l.waits, of)
	for where, one := range l.watches {
		delete(one.users, of)
		if len(one.users) == 0 {
			one.stop()
			delete(l.watches, where)
		}
	}
}
