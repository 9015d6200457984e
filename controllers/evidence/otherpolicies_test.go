package evidence

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// cached answers like a cache: all at once, or not.
type cached struct {
	client.Reader

	err error
}

func (c *cached) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if c.err != nil {
		return c.err
	}
	return c.Reader.List(ctx, list, opts...)
}

// The policies of a network plugin that may be about the pods are in the record, out of the cache; what is not known is named.
func TestGatherSurroundingsHasPoliciesOfOtherAPIs(t *testing.T) {
	policy := func(gvk schema.GroupVersionKind, namespace, name string) client.Object {
		obj := &unstructured.Unstructured{}
		obj.SetGroupVersionKind(gvk)
		obj.SetNamespace(namespace)
		obj.SetName(name)
		obj.SetUID(types.UID("uid-" + namespace + "-" + name))
		return obj
	}
	cilium := schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumNetworkPolicy"}
	wide := schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumClusterwideNetworkPolicy"}
	calico := schema.GroupVersionKind{Group: "crd.projectcalico.org", Version: "v1", Kind: "NetworkPolicy"}
	late := schema.GroupVersionKind{Group: "policy.networking.k8s.io", Version: "v1alpha2", Kind: "ClusterNetworkPolicy"}
	followed := &cached{Reader: readerOf(policy(cilium, "shop", "allow"), policy(cilium, "bank", "other"), policy(wide, "", "everybody"), policy(calico, "shop", "default.allow"))}
	others := PolicyKinds{Cache: followed, Complete: []schema.GroupVersionKind{cilium, wide, calico}, Missing: []schema.GroupVersionKind{late}}

	asked := live(t)
	s, err := GatherSurroundings(t.Context(), asked, "shop", []*corev1.Pod{{ObjectMeta: metaOf("shop", "alone")}}, others)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CiliumClusterwideNetworkPolicy everybody", "CiliumNetworkPolicy shop/allow", "NetworkPolicy shop/default.allow"}, names(t, s)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	read := map[string]int{}
	for _, l := range s.Read {
		read[l.APIVersion+" "+l.Kind] = l.Kept
	}
	for kind, kept := range map[string]int{"cilium.io/v2 CiliumNetworkPolicy": 1, "crd.projectcalico.org/v1 NetworkPolicy": 1, "networking.k8s.io/v1 NetworkPolicy": 0} {
		if got, counted := read[kind]; got != kept || !counted {
			t.Errorf("account of %s: %d, %t, want %d", kind, got, counted, kept)
		}
	}
	if want := "ClusterNetworkPolicy : not read yet when the record was made"; !slices.Contains(notRead(s), want) {
		t.Errorf("not read: %q, want %q", notRead(s), want)
	}

	followed.err = errors.New("the cache is not filled")
	s, err = GatherSurroundings(t.Context(), asked, "shop", []*corev1.Pod{{ObjectMeta: metaOf("shop", "alone")}}, others)
	if err != nil || !slices.Contains(notRead(s), "CiliumNetworkPolicy : the cache is not filled") {
		t.Errorf("not read: %q, %v, want what the cache does not have named, and no error", notRead(s), err)
	}
}
