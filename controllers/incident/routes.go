package incident

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/route"
)

// +kubebuilder:rbac:groups="",resources=services,verbs=list
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=list

// maxRoutes is how many routes are told of each pod, and maxRoute how much of each, in characters.
const (
	maxRoutes = 8
	maxRoute  = 128
)

// recordRoutes notes which Services and Ingresses led to the pods, while their labels still tell: that is what the quarantine takes away from users. It is for people; a failure to read them
// holds nothing up.
func (s *scope) recordRoutes(ctx context.Context) {
	objects := map[string]*route.Objects{}
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		pod := s.live(p)
		if pod == nil || p.Handling != v1alpha1.HandlingPending || measure.Holds(pod, s.incident.UID) || p.Routes != nil {
			continue
		}
		if objects[p.Namespace] == nil {
			objects[p.Namespace] = s.readRoutes(ctx, p.Namespace)
		}
		for _, r := range route.To(pod, pod.Labels, *objects[p.Namespace]) {
			name := clip(fmt.Sprintf("%s %s/%s", r.Kind, r.Namespace, r.Name), maxRoute)
			if len(p.Routes) < maxRoutes && !slices.Contains(p.Routes, name) {
				p.Routes = append(p.Routes, name)
			}
		}
	}
}

func (s *scope) readRoutes(ctx context.Context, ns string) *route.Objects {
	out := &route.Objects{Slices: s.Follower.HandMadeSlices()}
	var services corev1.ServiceList
	if err := s.Live.List(ctx, &services, client.InNamespace(ns)); err == nil {
		for i := range services.Items {
			out.Services = append(out.Services, &services.Items[i])
		}
	}
	var ingresses networkingv1.IngressList
	if err := s.Live.List(ctx, &ingresses, client.InNamespace(ns)); err == nil {
		for i := range ingresses.Items {
			out.Ingresses = append(out.Ingresses, &ingresses.Items[i])
		}
	}
	return out
}
