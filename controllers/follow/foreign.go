package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"cofferdam.dev/cofferdam/controllers/isolation"
)

// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=adminnetworkpolicies;baselineadminnetworkpolicies;clusternetworkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumnetworkpolicies;ciliumclusterwidenetworkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=crd.projectcalico.org,resources=networkpolicies;globalnetworkpolicies;tiers,verbs=list;watch
// +kubebuilder:rbac:groups=projectcalico.org,resources=networkpolicies;globalnetworkpolicies;tiers,verbs=list;watch

// discoverEvery is how often the API server is asked which policy APIs it serves. One that is installed in the middle of an incident is noticed within it.
const discoverEvery = time.Minute

// syncCheck is how often it is looked whether a kind that has begun to be followed is complete.
const syncCheck = 100 * time.Millisecond

// foreign is a kind of another API that is followed.
type foreign struct {
	kind     schema.GroupVersionKind
	informer cache.Informer
	handler  toolscache.ResourceEventHandlerRegistration
	complete bool
}

// discover follows kinds as they come, until ctx ends.
func (f *Follower) discover(ctx context.Context) {
	log := ctrl.LoggerFrom(ctx).WithName("follow")
	for {
		err := f.follow(ctx)
		if err != nil {
			log.Error(err, "Looking for network policy APIs; verdicts are Unknown until it succeeds")
		}
		f.mu.Lock()
		f.asked, f.failed = true, err
		f.mu.Unlock()
		deadline := time.After(discoverEvery)
		if err != nil {
			deadline = time.After(discoverEvery / 12)
		}
		if !f.settle(ctx, deadline) {
			return
		}
	}
}

// settle wakes every holder as soon as a kind has become complete, and returns true after the deadline.
func (f *Follower) settle(ctx context.Context, deadline <-chan time.Time) bool {
	tick := time.NewTicker(syncCheck)
	defer tick.Stop()
	for {
		if f.completed() {
			f.wake(f.Index.Holders())
		}
		select {
		case <-ctx.Done():
			return false
		case <-deadline:
			return true
		case <-tick.C:
		}
	}
}

// completed notes which kinds have become complete, and says whether there was one.
func (f *Follower) completed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	some := false
	for _, one := range f.foreign {
		if !one.complete && one.handler.HasSynced() {
			one.complete, some = true, true
		}
	}
	return some
}

// follow begins to follow the kinds that are served, and ends it for those that are not any more.
func (f *Follower) follow(ctx context.Context) error {
	served, err := f.served()
	if err != nil {
		return err
	}
	var failures []error
	for _, gvk := range served {
		failures = append(failures, f.followKind(ctx, gvk))
	}
	f.mu.Lock()
	var gone []*foreign
	for kind, one := range f.foreign {
		if !slices.ContainsFunc(served, func(gvk schema.GroupVersionKind) bool { return gvk.GroupKind() == kind }) {
			gone = append(gone, one)
			delete(f.foreign, kind)
		}
	}
	f.mu.Unlock()
	for _, one := range gone {
		failures = append(failures, f.forget(ctx, one.kind))
	}
	return errors.Join(failures...)
}

// served are the kinds that the package isolation reads and the API server serves, each in the version that the server prefers.
func (f *Follower) served() ([]schema.GroupVersionKind, error) {
	groups, err := f.Discovery.ServerGroups()
	if err != nil {
		return nil, fmt.Errorf("asking the API server for its API groups: %w", err)
	}
	known := isolation.Kinds()
	var out []schema.GroupVersionKind
	for _, g := range groups.Groups {
		if !slices.ContainsFunc(known, func(k schema.GroupKind) bool { return k.Group == g.Name }) {
			continue
		}
		// Not every version of a group serves the same kinds; the preferred one comes first.
		for _, v := range g.Versions {
			resources, err := f.Discovery.ServerResourcesForGroupVersion(v.GroupVersion)
			if err != nil {
				return nil, fmt.Errorf("asking the API server for the resources of %s: %w", v.GroupVersion, err)
			}
			for _, r := range resources.APIResources {
				gvk := schema.GroupVersionKind{Group: g.Name, Version: v.Version, Kind: r.Kind}
				again := slices.ContainsFunc(out, func(o schema.GroupVersionKind) bool { return o.GroupKind() == gvk.GroupKind() })
				if slices.Contains(known, gvk.GroupKind()) && !again && !strings.Contains(r.Name, "/") {
					out = append(out, gvk)
				}
			}
		}
	}
	return out, nil
}

func (f *Follower) followKind(ctx context.Context, gvk schema.GroupVersionKind) error {
	f.mu.Lock()
	one := f.foreign[gvk.GroupKind()]
	f.mu.Unlock()
	if one != nil && one.kind == gvk {
		return nil
	}
	if one != nil {
		if err := f.forget(ctx, one.kind); err != nil {
			return err
		}
	}
	informer, err := f.Cache.GetInformer(ctx, objectOf(gvk), cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("following %s: %w", gvk.GroupKind(), err)
	}
	registration, err := informer.AddEventHandler(handle(f, f.putForeign, f.removeForeign))
	if err != nil {
		return fmt.Errorf("following %s: %w", gvk.GroupKind(), err)
	}
	f.mu.Lock()
	f.foreign[gvk.GroupKind()] = &foreign{kind: gvk, informer: informer, handler: registration}
	f.mu.Unlock()
	f.wake(f.Index.Holders()) // nothing of the kind is known yet
	return nil
}

// forget ends following a kind. What it allowed or denied is forgotten with it.
func (f *Follower) forget(ctx context.Context, gvk schema.GroupVersionKind) error {
	if err := f.Cache.RemoveInformer(ctx, objectOf(gvk)); err != nil {
		return fmt.Errorf("ending to follow %s: %w", gvk.GroupKind(), err)
	}
	f.wake(f.Index.RemoveKind(gvk.GroupKind()))
	return nil
}

func (f *Follower) putForeign(u *unstructured.Unstructured) []string {
	policy, tier := isolation.Read(u)
	switch {
	case policy != nil:
		return f.Index.PutPolicy(policy)
	case tier != nil:
		return f.Index.PutTier(*tier)
	}
	return nil
}

func (f *Follower) removeForeign(u *unstructured.Unstructured) []string {
	policy, tier := isolation.Read(u)
	switch {
	case policy != nil:
		return f.Index.RemovePolicy(policy.Ref)
	case tier != nil:
		return f.Index.RemoveTier(tier.Name)
	}
	return nil
}

// Missing says which policies are not known, so that no pod can be called isolated; "" when all are.
func (f *Follower) Missing() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return fmt.Sprintf("whether there are network policies of other APIs could not be found out: %v", f.failed)
	}
	var names []string
	for kind, one := range f.foreign {
		if !one.complete {
			names = append(names, kind.String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("not read yet: %s, and what they allow is not known; if this stays, see whether the operator may list and watch them", strings.Join(names, ", "))
}

// Kinds are the kinds of other APIs that are followed, those of which everything is known and those that are not read yet, in order.
func (f *Follower) Kinds() (complete, missing []schema.GroupVersionKind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.foreign {
		if one.complete {
			complete = append(complete, one.kind)
		} else {
			missing = append(missing, one.kind)
		}
	}
	for _, kinds := range [][]schema.GroupVersionKind{complete, missing} {
		slices.SortFunc(kinds, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	}
	return complete, missing
}

// Serves says whether a kind of another API is followed.
func (f *Follower) Serves(kind schema.GroupKind) (version string, served bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.foreign[kind]
	if one == nil {
		return "", false
	}
	return one.kind.Version, true
}

func objectOf(gvk schema.GroupVersionKind) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u
}
