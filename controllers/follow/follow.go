// Package follow keeps an isolation.Index in step with the cluster: every network policy of every API that can be read, pods, namespaces, and the EndpointSlices that no
// controller keeps. Whatever can matter to a held pod wakes the Incident that holds it, and nothing else does.
package follow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"cofferdam.dev/cofferdam/controllers/isolation"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=pods;namespaces,verbs=list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch

// Follower follows the cluster. Its methods are safe for concurrent use.
type Follower struct {
	Cache     cache.Cache
	Discovery discovery.DiscoveryInterface
	Index     *isolation.Index
	// Priority is the place of an Incident in the work queue.
	Priority func(types.NamespacedName) int

	mu      sync.Mutex
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	core    []toolscache.ResourceEventHandlerRegistration
	foreign map[schema.GroupKind]*foreign
	// asked says that the API server was asked once which kinds it serves; failed says why it could not be asked the last time.
	asked  bool
	failed error
	// slices are the EndpointSlices that no controller keeps.
	slices map[types.UID]*discoveryv1.EndpointSlice
}

// Register follows the kinds that every cluster serves. It is called before the cache is started.
func (f *Follower) Register(ctx context.Context) error {
	f.foreign = map[schema.GroupKind]*foreign{}
	f.slices = map[types.UID]*discoveryv1.EndpointSlice{}
	for _, kind := range []struct {
		object  client.Object
		handler toolscache.ResourceEventHandlerFuncs
	}{
		{&networkingv1.NetworkPolicy{}, handle(f, f.putNetworkPolicy, f.removeNetworkPolicy)},
		{&corev1.Pod{}, handle(f, f.Index.PutPod, func(p *corev1.Pod) []string { return f.Index.RemovePod(p.UID) })},
		{&corev1.Namespace{}, handle(f, f.putNamespace, func(*corev1.Namespace) []string { return nil })},
		{&discoveryv1.EndpointSlice{}, handle(f, f.putSlice, f.removeSlice)},
	} {
		informer, err := f.Cache.GetInformer(ctx, kind.object)
		if err != nil {
			return fmt.Errorf("following %T: %w", kind.object, err)
		}
		registration, err := informer.AddEventHandler(kind.handler)
		if err != nil {
			return fmt.Errorf("following %T: %w", kind.object, err)
		}
		f.core = append(f.core, registration)
	}
	return nil
}

// handle passes objects to the index and wakes whomever it names.
func handle[T any](f *Follower, put, remove func(T) []string) toolscache.ResourceEventHandlerFuncs {
	call := func(fn func(T) []string, obj any) {
		if last, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		if one, ok := obj.(T); ok {
			f.wake(fn(one))
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { call(put, obj) },
		UpdateFunc: func(_, obj any) { call(put, obj) },
		DeleteFunc: func(obj any) { call(remove, obj) },
	}
}

func (f *Follower) putNetworkPolicy(np *networkingv1.NetworkPolicy) []string {
	return f.Index.PutPolicy(isolation.ReadNetworkPolicy(np))
}

func (f *Follower) removeNetworkPolicy(np *networkingv1.NetworkPolicy) []string {
	return f.Index.RemovePolicy(isolation.ReadNetworkPolicy(np).Ref)
}

func (f *Follower) putNamespace(ns *corev1.Namespace) []string {
	return f.Index.PutNamespace(ns.Name, ns.Labels)
}

func (f *Follower) putSlice(slice *discoveryv1.EndpointSlice) []string {
	f.mu.Lock()
	before := f.slices[slice.UID]
	f.slices[slice.UID] = slice
	f.mu.Unlock()
	return f.listed(before, slice)
}

func (f *Follower) removeSlice(slice *discoveryv1.EndpointSlice) []string {
	f.mu.Lock()
	delete(f.slices, slice.UID)
	f.mu.Unlock()
	return f.listed(slice)
}

// listed returns the holders of the pods that the slices list.
func (f *Follower) listed(all ...*discoveryv1.EndpointSlice) []string {
	addresses, pods := map[string]bool{}, map[types.NamespacedName]bool{}
	for _, slice := range all {
		if slice == nil {
			continue
		}
		for _, e := range slice.Endpoints {
			for _, a := range e.Addresses {
				addresses[a] = true
			}
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				pods[types.NamespacedName{Namespace: e.TargetRef.Namespace, Name: e.TargetRef.Name}] = true
			}
		}
	}
	return f.Index.HoldersOf(func(pod *corev1.Pod) bool {
		return pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] ||
			slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return addresses[ip.IP] })
	})
}

// HandMadeSlices are the EndpointSlices that no controller keeps, in no particular order.
func (f *Follower) HandMadeSlices() []*discoveryv1.EndpointSlice {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*discoveryv1.EndpointSlice, 0, len(f.slices))
	for _, slice := range f.slices {
		out = append(out, slice)
	}
	return out
}

// Start takes the queue of the Incident controller, as a source.Source does.
func (f *Follower) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	f.mu.Lock()
	f.queue = queue
	f.mu.Unlock()
	go f.discover(ctx)
	return nil
}

// WaitForSync waits until everything that the cluster held at the start is in the index, so that no verdict rests on a part of it. Kinds of other APIs are not waited for, since it can take for
// ever where the operator may not read them; see Missing.
func (f *Follower) WaitForSync(ctx context.Context) error {
	synced := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.asked && !slices.ContainsFunc(f.core, func(r toolscache.ResourceEventHandlerRegistration) bool { return !r.HasSynced() })
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced) {
		return fmt.Errorf("waiting for the network policies of the cluster: %w", context.Cause(ctx))
	}
	return nil
}

// wake brings a pass to Incidents, given as namespace/name.
func (f *Follower) wake(holders []string) {
	f.mu.Lock()
	queue := f.queue
	f.mu.Unlock()
	if queue == nil {
		return // the first pass over every Incident comes after this
	}
	for _, holder := range holders {
		namespace, name, _ := strings.Cut(holder, "/")
		key := types.NamespacedName{Namespace: namespace, Name: name}
		request := reconcile.Request{NamespacedName: key}
		if ordered, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok && f.Priority != nil {
			ordered.AddWithOpts(priorityqueue.AddOpts{Priority: new(f.Priority(key))}, request)
			continue
		}
		queue.Add(request)
	}
}
