package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"
)

// Values of the label endpointslice.kubernetes.io/managed-by that Kubernetes' own controllers set.
const (
	managedByController = "endpointslice-controller.k8s.io"
	managedByMirroring  = "endpointslicemirroring-controller.k8s.io"
)

// addresses are the addresses of a pod.
type addresses map[netip.Addr]bool

func addressesOf(pod *corev1.Pod) addresses {
	out := addresses{}
	add := func(text string) {
		if address, ok := parseAddress(text); ok {
			out[address] = true
		}
	}
	add(pod.Status.PodIP)
	for _, ip := range pod.Status.PodIPs {
		add(ip.IP)
	}
	return out
}

// parseAddress reads an address as generously as kube-proxy does, with zeros in front of numbers too, so that no spelling hides one.
func parseAddress(text string) (netip.Addr, bool) {
	if address, err := netip.ParseAddr(text); err == nil {
		return address.Unmap().WithZone(""), true
	}
	address, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	return address.Unmap(), ok
}

// listing says how a slice lists the pod, one phrase for each endpoint.
type listing []string

// listing says whether and how the slice lists the pod: as the target of an endpoint, or by one of its addresses, whatever the target says.
func (s *search) listing(slice *discoveryv1.EndpointSlice) (listing, bool) {
	if slice == nil || slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil, false
	}
	var out listing
	for _, endpoint := range slice.Endpoints {
		if how := s.endpoint(slice.Namespace, endpoint); how != "" {
			out = append(out, how+conditions(endpoint.Conditions))
		}
	}
	return out, len(out) > 0
}

// endpoint says how the endpoint of a slice in the namespace is the pod, or "" if it is not.
func (s *search) endpoint(namespace string, endpoint discoveryv1.Endpoint) string {
	if s.targets(namespace, endpoint.TargetRef) {
		return "lists the pod"
	}
	for _, text := range endpoint.Addresses {
		if address, ok := parseAddress(text); ok && s.addresses[address] {
			how := fmt.Sprintf("lists the pod's address %s", address)
			if ref := endpoint.TargetRef; ref != nil {
				how += fmt.Sprintf(" as that of %s %s", ref.Kind, near(s.pod.Namespace, ref.Namespace, ref.Name))
			}
			return how
		}
	}
	return ""
}

// targets says whether the reference is to the pod. The UID decides if both have one: names are used again.
func (s *search) targets(namespace string, ref *corev1.ObjectReference) bool {
	if ref == nil || ref.Kind != "Pod" {
		return false
	}
	if ref.UID != "" && s.pod.UID != "" {
		return ref.UID == s.pod.UID
	}
	return cmp.Or(ref.Namespace, namespace) == s.pod.Namespace && ref.Name == s.pod.Name
}

// conditions says why an endpoint gets less traffic. A condition that is not set counts as ready, as discovery.k8s.io/v1 defines.
func conditions(c discoveryv1.EndpointConditions) string {
	is := func(value *bool, unset bool) bool {
		if value == nil {
			return unset
		}
		return *value
	}
	switch {
	case is(c.Ready, true):
		return ""
	case is(c.Serving, true) && is(c.Terminating, false):
		return ", terminating: traffic only while no other endpoint is ready"
	}
	return ", not ready: no new traffic"
}

// handMade says why nothing keeps the slice in step with the pod's labels, or "" if the EndpointSlice controller does. That one keeps the slices with its label
// of every Service with a selector, and leaves all others alone: those of a Service that has lost its selector or is gone, and those that are
// being deleted but are held by a finalizer.
func (s *search) handMade(slice *discoveryv1.EndpointSlice) string {
	by, service := slice.Labels[discoveryv1.LabelManagedBy], slice.Labels[discoveryv1.LabelServiceName]
	switch by {
	case managedByController:
	case managedByMirroring:
		return fmt.Sprintf("hand-made: mirrored from Endpoints %s, which no controller keeps in step with the pod's labels", service)
	case "":
		return "hand-made: no controller keeps it in step with the pod's labels"
	default:
		return fmt.Sprintf("hand-made: managed by %s, and not kept in step with the pod's labels by Kubernetes", by)
	}
	const abandoned = "as good as hand-made: the EndpointSlice controller made it, or its label says so, but does not keep it, because "
	if slice.DeletionTimestamp != nil {
		return abandoned + "it is being deleted"
	}
	if service == "" {
		return abandoned + "it is of no Service"
	}
	if !s.servicesGiven {
		return ""
	}
	known := s.services[types.NamespacedName{Namespace: slice.Namespace, Name: service}]
	if len(known) == 0 {
		return abandoned + fmt.Sprintf("Service %s does not exist", service)
	}
	for _, svc := range known {
		if !hasSelector(svc) {
			return abandoned + fmt.Sprintf("Service %s has no selector", service)
		}
	}
	return ""
}

// addSlice adds the slice, and its Service, if it lists the pod.
func (s *search) addSlice(slice *discoveryv1.EndpointSlice) {
	l, ok := s.listing(slice)
	if !ok {
		return
	}
	s.found = append(s.found, s.sliceRoute(slice, l))
	if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" {
		s.addServiceOf(slice, types.NamespacedName{Namespace: slice.Namespace, Name: name})
	}
}

func (s *search) sliceRoute(slice *discoveryv1.EndpointSlice, l listing) Route {
	keeper := s.handMade(slice)
	service := slice.Labels[discoveryv1.LabelServiceName]
	if keeper == "" {
		keeper = "kept by the EndpointSlice controller"
		if s.lags(slice) {
			keeper += ", which has yet to take the pod out"
		}
	}
	if service != "" {
		service = "of Service " + service
	}
	return Route{
		Kind: KindEndpointSlice, Namespace: slice.Namespace, Name: slice.Name,
		Detail: phrases(keeper, service, enumerate(l, "; "), slicePorts(slice)),
	}
}

// lags says whether the slice lists the pod though its Service no longer selects it.
func (s *search) lags(slice *discoveryv1.EndpointSlice) bool {
	known := s.services[types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}]
	return len(known) > 0 && !slices.ContainsFunc(known, s.selects)
}

// addServiceOf adds the slice's Service as one that leads to the pod through the slice. Where the slice is kept and the Service selects the pod, that is the
// same way once more.
func (s *search) addServiceOf(slice *discoveryv1.EndpointSlice, key types.NamespacedName) {
	r := Route{Kind: KindService, Namespace: key.Namespace, Name: key.Name, Via: KindEndpointSlice + " " + slice.Name}
	known := s.services[key]
	if len(known) == 0 {
		s.leading[key] = true
		r.Detail = "not among the Services that were read, so that its ports and its type are not known"
		s.found = append(s.found, r)
	}
	for _, svc := range known {
		if svc.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		s.leading[key] = true
		if s.selects(svc) && s.handMade(slice) == "" {
			continue
		}
		r.Detail = s.describe(svc)
		s.found = append(s.found, r)
	}
}

func slicePorts(slice *discoveryv1.EndpointSlice) string {
	ports := make([]string, 0, len(slice.Ports))
	for _, port := range slice.Ports {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		text := fmt.Sprintf("all ports/%s", protocol)
		if port.Port != nil {
			text = fmt.Sprintf("%d/%s", *port.Port, protocol)
		}
		if port.Name != nil && *port.Name != "" {
			text = *port.Name + " " + text
		}
		ports = append(ports, text)
	}
	if len(ports) == 0 {
		return ""
	}
	return "ports " + enumerate(ports, ", ")
}
