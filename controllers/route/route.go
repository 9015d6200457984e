package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Kinds of a [Route], besides those of Gateway API routes, which stand for themselves.
const (
	// KindService is a Service that selects the pod, or that has the pod in an EndpointSlice.
	KindService = "Service"
	// KindEndpointSlice is an EndpointSlice that lists the pod.
	KindEndpointSlice = "EndpointSlice"
	// KindIngress is an Ingress with a backend that leads to the pod.
	KindIngress = "Ingress"
	// KindNode is the pod's node, where it publishes a container's hostPort, or where the pod uses the node's own network.
	KindNode = "Node"
	// KindUnknown stands for a Gateway API route that does not tell its kind.
	KindUnknown = "Unknown"
)

// Objects are what may lead to a pod. Nil elements are skipped. Objects without a namespace count as being together in one.
type Objects struct {
	// Services are those of the pod's namespace and of all others that have something in one of the lists below. Nil means that they were not given: labels
	// of EndpointSlices are then believed.
	Services []*corev1.Service
	// Slices are EndpointSlices of any namespace, because anybody may list any address. Legacy core/v1 Endpoints need not be given: the
	// EndpointSliceMirroring controller mirrors hand-made ones into EndpointSlices, and these are read.
	Slices    []*discoveryv1.EndpointSlice
	Ingresses []*networkingv1.Ingress
	// Routes are HTTPRoutes, GRPCRoutes, TLSRoutes, TCPRoutes and UDPRoutes of gateway.networking.k8s.io in any version.
	Routes []*unstructured.Unstructured
	// Grants are ReferenceGrants of gateway.networking.k8s.io. Nil means that they were not given: every reference from a route to another namespace
	// counts as granted then. An empty list means that there are none.
	Grants []*unstructured.Unstructured
}

// Route is one object that leads to the pod. It is comparable, holds printable characters only, and is bounded in length.
type Route struct {
	// Kind is one of the Kind constants or the kind of a Gateway API route.
	Kind string
	// Namespace and Name are those of the object. A Node has no namespace.
	Namespace, Name string
	// Via is the object through which this one leads to the pod, as "Service web", or with the namespace if it is another one than the route's: "Service
	// shop/web". It is empty when the object names or selects the pod itself, and when nobody knows where it leads.
	Via string
	// Detail says in a phrase how the object leads to the pod: ports, hosts, parents, readiness.
	Detail string
}

// String describes the route for people: "Ingress shop/web (host shop.example, path /) via Service web".
func (r Route) String() string {
	out := r.title(true)
	if r.Detail != "" {
		out += " (" + r.Detail + ")"
	}
	if r.Via != "" {
		out += " via " + r.Via
	}
	return out
}

// title is the kind and the name of the object.
func (r Route) title(qualified bool) string {
	name := r.Name
	if qualified {
		name = join(r.Namespace, r.Name)
	}
	return strings.TrimSpace(r.Kind + " " + name)
}

// To returns what leads to the pod, sorted and without duplicates: Services that select these labels, EndpointSlices that list the pod, Services of these
// EndpointSlices, Ingresses and Gateway API routes to any of these Services, and the node where the pod publishes ports. The labels are a parameter so that one
// can ask for the pod as it is and as it was before its quarantine; they decide about Services only, while EndpointSlices say what is so now.
//
// A pod that gets no traffic because it is not ready is still led to; the details say so.
func To(pod *corev1.Pod, labels map[string]string, objs Objects) []Route {
	if pod == nil {
		return nil
	}
	s := newSearch(pod, labels, objs.Services)
	s.grants, s.grantsGiven = readGrants(objs.Grants), objs.Grants != nil
	s.addNode()
	s.addSelecting(objs.Services)
	for _, slice := range objs.Slices {
		s.addSlice(slice)
	}
	for _, ingress := range objs.Ingresses {
		s.addIngress(ingress)
	}
	for _, r := range objs.Routes {
		s.addGatewayRoute(r)
	}
	return tidy(s.found)
}

// HandMade returns only the EndpointSlices that list the pod and that no controller keeps in step with its labels, so that quarantine by labels does not take
// the pod out of them. The Services, if given, are those of the slices' namespaces: they tell slices that merely carry the EndpointSlice controller's
// label from those that it keeps.
func HandMade(pod *corev1.Pod, endpointSlices []*discoveryv1.EndpointSlice, services ...*corev1.Service) []Route {
	if pod == nil {
		return nil
	}
	s := newSearch(pod, pod.Labels, services)
	for _, slice := range endpointSlices {
		if l, ok := s.listing(slice); ok && s.handMade(slice) != "" {
			s.found = append(s.found, s.sliceRoute(slice, l))
		}
	}
	return tidy(s.found)
}

// Summary names the first objects of the routes, at most limit and at least one, and counts the others: "Service web, Ingress shop and 3 more". Objects are
// named with their namespace if there is more than one. It returns "" if there are no routes.
func Summary(routes []Route, limit int) string {
	namespaces := map[string]bool{}
	for _, r := range routes {
		if r.Kind != KindNode {
			namespaces[r.Namespace] = true
		}
	}
	var titles []string
	seen := map[string]bool{}
	for _, r := range routes {
		if title := clean(r.title(len(namespaces) > 1), maxName); !seen[title] {
			seen[title] = true
			titles = append(titles, title)
		}
	}
	if rest := len(titles) - max(limit, 1); rest > 0 {
		return strings.Join(titles[:len(titles)-rest], ", ") + fmt.Sprintf(" and %d more", rest)
	}
	if last := len(titles) - 1; last > 0 {
		return strings.Join(titles[:last], ", ") + " and " + titles[last]
	}
	return strings.Join(titles, "")
}

// search is one search for what leads to a pod.
type search struct {
	pod       *corev1.Pod
	labels    map[string]string
	addresses addresses

	// services are all Services by name. Files may hold two of the same name, so there are lists.
	services      map[types.NamespacedName][]*corev1.Service
	servicesGiven bool
	grants        []grant
	grantsGiven   bool

	// leading are the Services that lead to the pod.
	leading map[types.NamespacedName]bool
	found   []Route
}

func newSearch(pod *corev1.Pod, labels map[string]string, services []*corev1.Service) *search {
	s := &search{
		pod:           pod,
		labels:        labels,
		addresses:     addressesOf(pod),
		services:      map[types.NamespacedName][]*corev1.Service{},
		servicesGiven: services != nil,
		leading:       map[types.NamespacedName]bool{},
	}
	for _, svc := range services {
		if svc != nil {
			key := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
			s.services[key] = append(s.services[key], svc)
		}
	}
	return s
}

// concerns says whether the namespace is the pod's, or that of a Service which leads to the pod. Only what refers to such a namespace can lead to the pod.
func (s *search) concerns(namespace string) bool {
	if namespace == s.pod.Namespace {
		return true
	}
	for key := range s.leading {
		if key.Namespace == namespace {
			return true
		}
	}
	return false
}

// tidy makes routes fit to be shown, sorts them and removes duplicates.
func tidy(routes []Route) []Route {
	for i, r := range routes {
		routes[i] = Route{
			Kind:      clean(r.Kind, maxName),
			Namespace: clean(r.Namespace, maxName),
			Name:      clean(r.Name, maxName),
			Via:       clean(r.Via, maxText),
			Detail:    clean(r.Detail, maxText),
		}
	}
	slices.SortFunc(routes, compareRoutes)
	return slices.Compact(routes)
}

// compareRoutes puts first what is nearest to the pod.
func compareRoutes(a, b Route) int {
	first := []string{KindService, KindEndpointSlice, KindIngress}
	rank := func(kind string) int {
		if i := slices.Index(first, kind); i >= 0 {
			return i
		}
		return len(first)
	}
	return cmp.Or(
		cmp.Compare(rank(a.Kind), rank(b.Kind)),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Via, b.Via),
		cmp.Compare(a.Detail, b.Detail),
	)
}
