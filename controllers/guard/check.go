package guard

import (
	"context"
	"fmt"
	"slices"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingadmissionpolicies;validatingadmissionpolicybindings,verbs=get;list;watch

// Checker tells what is wrong with the guard of a cluster. It remembers what it has found: every pass asks, and the policies hardly ever change. Its methods are safe for concurrent use.
type Checker struct {
	Options Options

	mu sync.Mutex
	// versions are of what was examined last; nil when nothing was.
	versions []string
	findings []Finding
}

// Check reads the cluster's admission policies, from a cache, and returns what is wrong with the guard. An error means that nothing is known about it.
func (c *Checker) Check(ctx context.Context, cached client.Reader) ([]Finding, error) {
	// What the cache has is only read here.
	var policies admissionregistrationv1.ValidatingAdmissionPolicyList
	if err := cached.List(ctx, &policies, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing ValidatingAdmissionPolicies: %w", err)
	}
	var bindings admissionregistrationv1.ValidatingAdmissionPolicyBindingList
	if err := cached.List(ctx, &bindings, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing ValidatingAdmissionPolicyBindings: %w", err)
	}
	found := make([]string, 0, len(policies.Items)+len(bindings.Items))
	for i := range policies.Items {
		found = append(found, versionOf(&policies.Items[i]))
	}
	for i := range bindings.Items {
		found = append(found, versionOf(&bindings.Items[i]))
	}
	slices.Sort(found) // a cache has no order
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.versions == nil || !slices.Equal(c.versions, found) {
		c.findings, c.versions = Examine(Shipped(c.Options), policies.Items, bindings.Items), found
	}
	return c.findings, nil
}

func versionOf(obj client.Object) string {
	return string(obj.GetUID()) + "/" + obj.GetResourceVersion()
}
