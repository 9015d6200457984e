package route

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SliceKeys returns keys for an index of EndpointSlices, sorted. One that lists a pod has a key in common with the pod's [PodKeys]; one that has need not
// list it.
func SliceKeys(slice *discoveryv1.EndpointSlice) []string {
	if slice == nil || slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	keys := map[string]bool{}
	for _, endpoint := range slice.Endpoints {
		if ref := endpoint.TargetRef; ref != nil {
			addPodKeys(keys, ref.UID, cmp.Or(ref.Namespace, slice.Namespace), ref.Name)
		}
		for _, text := range endpoint.Addresses {
			if address, ok := parseAddress(text); ok {
				keys[addressKey(address)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// PodKeys returns the keys under which an index by [SliceKeys] holds the EndpointSlices that list the pod, sorted.
func PodKeys(pod *corev1.Pod) []string {
	if pod == nil {
		return nil
	}
	keys := map[string]bool{}
	addPodKeys(keys, pod.UID, pod.Namespace, pod.Name)
	for address := range addressesOf(pod) {
		keys[addressKey(address)] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// addPodKeys adds the UID and the name: the name counts where one side has no UID.
func addPodKeys(keys map[string]bool, uid types.UID, namespace, name string) {
	if uid != "" {
		keys["uid "+string(uid)] = true
	}
	keys["pod "+join(namespace, name)] = true
}

func addressKey(address netip.Addr) string { return "address " + address.String() }
