// Package foreign looks for network policies of APIs that the evaluator does not read. What they allow or deny is not known, so that a pod they may
// apply to is never called isolated.
package foreign

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=crd.antrea.io,resources=networkpolicies;clusternetworkpolicies,verbs=list

// kinds are the policies of other APIs by API group; the value is the set of kinds.
var kinds = map[string][]string{
	"crd.antrea.io": {"NetworkPolicy", "ClusterNetworkPolicy"},
}

// discoveryTTL is how long the list of served groups is believed. A policy API that is installed in the middle of an incident is noticed within it.
const discoveryTTL = time.Minute

// Finder finds foreign policies. It is safe for concurrent use.
type Finder struct {
	Discovery discovery.DiscoveryInterface
	Clock     clock.PassiveClock

	mu     sync.Mutex
	served []schema.GroupVersionKind
	global map[schema.GroupVersionKind]bool
	readAt time.Time
}

// Find returns a sentence that names the first foreign policy that may apply to pods of the namespace, or "" when there is none.
func (f *Finder) Find(ctx context.Context, r client.Reader, namespace string) (string, error) {
	served, global, err := f.kindsServed()
	if err != nil {
		return "", err
	}
	for _, gvk := range served {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		opts := []client.ListOption{client.Limit(1)}
		if !global[gvk] {
			opts = append(opts, client.InNamespace(namespace))
		}
		err := r.List(ctx, list, opts...)
		switch {
		case apierrors.IsForbidden(err):
			return fmt.Sprintf("the operator may not list %s of %s, and what they allow is not known; grant list on them", gvk.Kind, gvk.Group), nil
		case apimeta.IsNoMatchError(err), apierrors.IsNotFound(err):
			continue
		case err != nil:
			return "", fmt.Errorf("listing %s of %s: %w", gvk.Kind, gvk.Group, err)
		case len(list.Items) > 0:
			return fmt.Sprintf("%s (%s) %s exists, and what it allows or denies is not evaluated; check by hand that it does not select the pod", gvk.Kind, gvk.Group, list.Items[0].Name), nil
		}
	}
	return "", nil
}

func (f *Finder) kindsServed() ([]schema.GroupVersionKind, map[schema.GroupVersionKind]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.readAt.IsZero() && f.Clock.Since(f.readAt) < discoveryTTL {
		return f.served, f.global, nil
	}
	groups, err := f.Discovery.ServerGroups()
	if err != nil {
		return nil, nil, fmt.Errorf("asking the API server for its API groups: %w", err)
	}
	f.served, f.global = nil, map[schema.GroupVersionKind]bool{}
	for _, g := range groups.Groups {
		if len(kinds[g.Name]) == 0 {
			continue
		}
		// Not every version of a group serves the same kinds; the preferred one comes first.
		for _, v := range g.Versions {
			if err := f.addVersion(g.Name, v.GroupVersion); err != nil {
				return nil, nil, err
			}
		}
	}
	f.readAt = f.Clock.Now()
	return f.served, f.global, nil
}

func (f *Finder) addVersion(group, groupVersion string) error {
	resources, err := f.Discovery.ServerResourcesForGroupVersion(groupVersion)
	if err != nil {
		return fmt.Errorf("asking the API server for the resources of %s: %w", groupVersion, err)
	}
	gv, err := schema.ParseGroupVersion(groupVersion)
	if err != nil {
		return fmt.Errorf("the API server names the group version %q: %w", groupVersion, err)
	}
	for _, res := range resources.APIResources {
		for _, kind := range kinds[group] {
			if gvk := gv.WithKind(kind); res.Kind == kind && !f.has(gvk) {
				f.served = append(f.served, gvk)
				f.global[gvk] = !res.Namespaced
			}
		}
	}
	return nil
}

func (f *Finder) has(gvk schema.GroupVersionKind) bool {
	return slices.ContainsFunc(f.served, func(s schema.GroupVersionKind) bool { return s.GroupKind() == gvk.GroupKind() })
}
