package route

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// addIngress adds the Ingress once for each of its backends that leads to the pod.
func (s *search) addIngress(ingress *networkingv1.Ingress) {
	if ingress == nil {
		return
	}
	services, resources := map[string][]string{}, map[string][]string{}
	note := func(backend networkingv1.IngressBackend, match string) {
		if backend.Service != nil {
			services[backend.Service.Name] = append(services[backend.Service.Name], match)
		}
		if ref := backend.Resource; ref != nil {
			title := ref.Kind + " " + ref.Name
			if ref.APIGroup != nil && *ref.APIGroup != "" {
				title = fmt.Sprintf("%s (%s) %s", ref.Kind, *ref.APIGroup, ref.Name)
			}
			resources[title] = append(resources[title], match)
		}
	}
	if backend := ingress.Spec.DefaultBackend; backend != nil {
		note(*backend, "default backend")
	}
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, path := range rule.HTTP.Paths {
			note(path.Backend, ingressMatch(rule.Host, path.Path))
		}
	}
	for name, matches := range services {
		if s.leading[types.NamespacedName{Namespace: ingress.Namespace, Name: name}] {
			s.found = append(s.found, Route{
				Kind: KindIngress, Namespace: ingress.Namespace, Name: ingress.Name,
				Via: KindService + " " + name, Detail: enumerate(matches, "; "),
			})
		}
	}
	if !s.concerns(ingress.Namespace) {
		return
	}
	for title, matches := range resources {
		s.found = append(s.found, Route{
			Kind: KindIngress, Namespace: ingress.Namespace, Name: ingress.Name,
			Detail: phrases(notFollowed(title), enumerate(matches, "; ")),
		})
	}
}

func ingressMatch(host, path string) string {
	if host == "" {
		host = "any host"
	} else {
		host = "host " + host
	}
	if path == "" {
		return host + ", any path"
	}
	return host + ", path " + path
}

// notFollowed is the detail of a backend that only an extension can resolve.
func notFollowed(backend string) string {
	return fmt.Sprintf("backend %s is not followed: whether it leads to the pod is not known", backend)
}
