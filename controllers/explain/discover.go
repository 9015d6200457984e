package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// Discovery tells which kinds an API server serves. A client of client-go's package discovery does; with an error of type [discovery.ErrGroupDiscoveryFailed] it tells of the other groups all the same.
type Discovery interface {
	ServerGroupsAndResourcesWithContext(ctx context.Context) ([]*metav1.APIGroup, []*metav1.APIResourceList, error)
}

// resource is a kind that is served, in one version.
type resource struct {
	schema.GroupVersionResource
	kind                 schema.GroupKind
	namespaced, listable bool
}

// String is the resource as RBAC and kubectl have it: "clusternetworkpolicies.policy.networking.k8s.io".
func (r resource) String() string { return r.GroupResource().String() }

// discover finds out which kinds with a part in the answer are served. Groups that do not answer, because the server behind them is down, are gaps: decisive if they may have policies.
func (r *reading) discover(ctx context.Context) error {
	groups, lists, err := r.Discovery.ServerGroupsAndResourcesWithContext(ctx)
	failed, partial := discovery.GroupDiscoveryFailedErrorGroups(err)
	if err != nil && !partial {
		return fmt.Errorf("asking the API server which kinds it serves: %w", err)
	}
	for gv, failure := range failed {
		r.facts.gap(mayServePolicies(gv.Group), fmt.Sprintf("which kinds API group %s serves", gv), failure.Error())
	}
	slices.SortFunc(r.facts.Gaps, func(a, b Gap) int { return strings.Compare(a.What, b.What) })
	byVersion := map[string]*metav1.APIResourceList{}
	for _, list := range lists {
		byVersion[list.GroupVersion] = list
	}
	for _, group := range groups {
		// Not every version serves the same kinds; the preferred one comes first.
		for _, version := range append([]metav1.GroupVersionForDiscovery{group.PreferredVersion}, group.Versions...) {
			if list := byVersion[version.GroupVersion]; list != nil {
				r.addServed(schema.GroupVersion{Group: group.Name, Version: version.Version}, list.APIResources)
			}
		}
	}
	return nil
}

func (r *reading) addServed(gv schema.GroupVersion, resources []metav1.APIResource) {
	for _, one := range resources {
		kind := schema.GroupKind{Group: gv.Group, Kind: one.Kind}
		if strings.Contains(one.Name, "/") || !matters(kind) {
			continue
		}
		if _, known := r.find(kind); !known {
			r.served = append(r.served, resource{
				GroupVersionResource: gv.WithResource(one.Name), kind: kind, namespaced: one.Namespaced, listable: slices.Contains(one.Verbs, "list"),
			})
		}
	}
}

// find returns how a kind is served.
func (r *reading) find(kind schema.GroupKind) (resource, bool) {
	i := slices.IndexFunc(r.served, func(s resource) bool { return s.kind == kind })
	if i < 0 {
		return resource{}, false
	}
	return r.served[i], true
}
