package explain

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cofferdam.dev/cofferdam/controllers/route"
)

// routes reads what may lead to the pod. None of it bears on the verdict.
func (r *reading) routes(ctx context.Context) {
	namespaces := []string{r.namespace()}
	for _, slice := range r.endpointSlices(ctx) {
		r.facts.Routes.Slices = append(r.facts.Routes.Slices, slice)
		if !slices.Contains(namespaces, slice.Namespace) {
			namespaces = append(namespaces, slice.Namespace)
		}
	}
	// A Service elsewhere leads to the pod only if an EndpointSlice there lists it, and an Ingress only through a Service of its own namespace.
	for _, ns := range namespaces {
		r.servicesIn(ctx, ns)
		r.ingressesIn(ctx, ns)
	}
	for _, kind := range gatewayRoutes {
		found, _ := r.gateway(ctx, kind)
		r.facts.Routes.Routes = append(r.facts.Routes.Routes, found...)
	}
	// Without a complete list every reference to another namespace counts as granted.
	if grants, complete := r.gateway(ctx, kindGrant.Kind); complete {
		r.facts.Routes.Grants = grants
	}
}

// endpointSlices are those that may list the pod; anybody may list any address.
func (r *reading) endpointSlices(ctx context.Context) []*discoveryv1.EndpointSlice {
	keys := route.PodKeys(r.facts.Pod)
	concerns := func(slice *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(route.SliceKeys(slice), func(key string) bool { return slices.Contains(keys, key) })
	}
	found, within, err := wide(r.namespace(), func(ns string) ([]*discoveryv1.EndpointSlice, error) {
		return all(ctx, r.Core.DiscoveryV1().EndpointSlices(ns).List, func(l *discoveryv1.EndpointSliceList) []*discoveryv1.EndpointSlice {
			return slices.DeleteFunc(pointers(l.Items), func(s *discoveryv1.EndpointSlice) bool { return !concerns(s) })
		})
	})
	r.noteRoutes("EndpointSlices", "endpointslices.discovery.k8s.io", within, err)
	return found
}

// noteRoutes notes which objects that may lead to the pod could not be listed.
func (r *reading) noteRoutes(kind, resource string, within Scope, err error) {
	switch {
	case err != nil:
		r.facts.gap(false, "whether "+kind+" lead to the pod", why(err, resource, inNamespace(r.namespace())))
	case within == ScopeNamespace:
		r.facts.gap(false, "whether "+kind+" of other namespaces lead to the pod", fmt.Sprintf("you may not list %s %s; ask for that permission", resource, inAllNamespaces))
	}
}

func (r *reading) servicesIn(ctx context.Context, ns string) {
	found, err := all(ctx, r.Core.CoreV1().Services(ns).List, func(l *corev1.ServiceList) []corev1.Service { return l.Items })
	if err != nil {
		r.facts.gap(false, "which Services in namespace "+ns+" lead to the pod", why(err, "services", inNamespace(ns)))
		return
	}
	r.facts.Routes.Services = append(r.facts.Routes.Services, pointers(found)...)
}

func (r *reading) ingressesIn(ctx context.Context, ns string) {
	found, err := all(ctx, r.Core.NetworkingV1().Ingresses(ns).List, func(l *networkingv1.IngressList) []networkingv1.Ingress { return l.Items })
	if err != nil {
		r.facts.gap(false, "which Ingresses in namespace "+ns+" lead to the pod", why(err, "ingresses.networking.k8s.io", inNamespace(ns)))
		return
	}
	r.facts.Routes.Ingresses = append(r.facts.Routes.Ingresses, pointers(found)...)
}

// gateway lists objects of a kind of the Gateway API, if it is served, of all namespaces: routes may refer to other ones. complete says whether those of all were listed.
func (r *reading) gateway(ctx context.Context, kind string) (found []*unstructured.Unstructured, complete bool) {
	i := slices.IndexFunc(r.served, func(s resource) bool { return s.kind.Group == groupGateway && s.kind.Kind == kind })
	if i < 0 {
		return nil, false
	}
	res := r.served[i]
	found, within, err := wide(r.namespace(), func(ns string) ([]*unstructured.Unstructured, error) { return r.list(ctx, res, ns) })
	r.noteRoutes(kind+"s", res.String(), within, err)
	if err != nil || within == ScopeNamespace {
		return found, false
	}
	if found == nil {
		found = []*unstructured.Unstructured{} // there are none, which is not the same as not to know
	}
	return found, true
}
