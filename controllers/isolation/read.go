package isolation

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// API groups of the kinds that are read.
const (
	groupNetworkPolicyAPI = "policy.networking.k8s.io"
	groupCilium           = "cilium.io"
	groupCalico           = "projectcalico.org"
	groupCalicoStorage    = "crd.projectcalico.org"
)

// readers read the kinds of other APIs. A reader returns nil for an object that has no effect, whatever it says.
func readers() map[schema.GroupKind]func(*unstructured.Unstructured) *Policy {
	return map[schema.GroupKind]func(*unstructured.Unstructured) *Policy{
		{Group: groupNetworkPolicyAPI, Kind: "ClusterNetworkPolicy"}:       readClusterNetworkPolicy,
		{Group: groupNetworkPolicyAPI, Kind: "AdminNetworkPolicy"}:         readAdminNetworkPolicy,
		{Group: groupNetworkPolicyAPI, Kind: "BaselineAdminNetworkPolicy"}: readBaselineAdminNetworkPolicy,
		{Group: groupCilium, Kind: "CiliumNetworkPolicy"}:                  readCilium,
		{Group: groupCilium, Kind: "CiliumClusterwideNetworkPolicy"}:       readCilium,
		{Group: groupCalico, Kind: "NetworkPolicy"}:                        readCalico,
		{Group: groupCalico, Kind: "GlobalNetworkPolicy"}:                  readCalico,
		{Group: groupCalicoStorage, Kind: "NetworkPolicy"}:                 readCalico,
		{Group: groupCalicoStorage, Kind: "GlobalNetworkPolicy"}:           readCalico,
	}
}

// tierKinds are the kinds that define tiers.
func tierKinds() []schema.GroupKind {
	return []schema.GroupKind{{Group: groupCalico, Kind: "Tier"}, {Group: groupCalicoStorage, Kind: "Tier"}}
}

// Kinds are the kinds of APIs other than Kubernetes' own that [Read] reads, sorted. Tiers are among them.
func Kinds() []schema.GroupKind {
	out := slices.AppendSeq(tierKinds(), maps.Keys(readers()))
	slices.SortFunc(out, func(a, b schema.GroupKind) int {
		return slices.Compare([]string{a.Group, a.Kind}, []string{b.Group, b.Kind})
	})
	return out
}

// Read reads an object of one of the [Kinds]. It returns a policy or a tier, or neither for an object that has no effect or is of another kind.
func Read(u *unstructured.Unstructured) (*Policy, *Tier) {
	kind := u.GroupVersionKind().GroupKind()
	if read, known := readers()[kind]; known {
		return read(u), nil
	}
	if slices.Contains(tierKinds(), kind) {
		if t, ok := readTier(u); ok {
			return nil, &t
		}
	}
	return nil, nil
}
