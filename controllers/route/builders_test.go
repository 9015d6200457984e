package route

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

type (
	labelSet  = map[string]string
	service   = corev1.Service
	slice     = discoveryv1.EndpointSlice
	endpoint  = discoveryv1.Endpoint
	ingress   = networkingv1.Ingress
	anyObject = unstructured.Unstructured
)

// victim is the pod of the cases: ready, with an address of each family and a port named web.
func victim(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "uid-0", Labels: labelSet{"app": "web", "tier": "fe"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Name:  "web",
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.5", PodIPs: []corev1.PodIP{{IP: "10.0.0.5"}, {IP: "2001:db8::5"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func notReady(pod *corev1.Pod)    { pod.Status.Conditions[1].Status = corev1.ConditionFalse }
func terminating(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{} }

func newService(name string, selector labelSet, change ...func(*service)) *service {
	svc := &service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{
			Selector: selector, Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1",
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, f := range change {
		f(svc)
	}
	return svc
}

func ofType(t corev1.ServiceType) func(*service) { return func(s *service) { s.Spec.Type = t } }

func inNamespace[T metav1.Object](namespace string) func(T) {
	return func(obj T) { obj.SetNamespace(namespace) }
}

// newSlice is an EndpointSlice of the Service, hand-made unless it is changed.
func newSlice(name, svc string, change ...func(*slice)) *slice {
	s := &slice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labelSet{}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	if svc != "" {
		s.Labels[discoveryv1.LabelServiceName] = svc
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func managedBy(who string) func(*slice) {
	return func(s *slice) { s.Labels[discoveryv1.LabelManagedBy] = who }
}

// kept marks a slice as one of the EndpointSlice controller's.
func kept(s *slice) { managedBy(managedByController)(s) }

func with(endpoints ...endpoint) func(*slice) {
	return func(s *slice) { s.Endpoints = append(s.Endpoints, endpoints...) }
}

func address(of ...string) endpoint { return endpoint{Addresses: of} }

func target(ref corev1.ObjectReference, addresses ...string) endpoint {
	return endpoint{Addresses: addresses, TargetRef: &ref}
}

// podRef is the reference that the EndpointSlice controller makes to a pod of the shop.
func podRef(name, uid string) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: name, UID: types.UID(uid)}
}

func newIngress(name string, change ...func(*ingress)) *ingress {
	i := &ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	for _, f := range change {
		f(i)
	}
	return i
}

func toService(name string) networkingv1.IngressBackend {
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name}}
}

func toResource(group *string, kind, name string) networkingv1.IngressBackend {
	return networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{APIGroup: group, Kind: kind, Name: name}}
}

func byDefault(b networkingv1.IngressBackend) func(*ingress) {
	return func(i *ingress) { i.Spec.DefaultBackend = &b }
}

func rule(host, path string, b networkingv1.IngressBackend) func(*ingress) {
	return func(i *ingress) {
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, Backend: b}}},
		}})
	}
}

// parse reads YAML of any shape.
func parse(t testing.TB, text string) *anyObject {
	t.Helper()
	out := &anyObject{}
	if err := yaml.Unmarshal([]byte(text), &out.Object); err != nil {
		t.Fatal(err)
	}
	return out
}

func parseAll(t testing.TB, texts []string) []*anyObject {
	if texts == nil {
		return nil
	}
	out := make([]*anyObject, 0, len(texts))
	for _, text := range texts {
		out = append(out, parse(t, text))
	}
	return out
}

// httpRoute is an HTTPRoute named r in a namespace, with this spec in YAML's flow style.
func httpRoute(namespace, spec string) string {
	return "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {namespace: " + namespace + ", name: r}, spec: " + spec + "}"
}

// referenceGrant is a ReferenceGrant in a namespace, with this spec in YAML's flow style.
func referenceGrant(namespace, name, spec string) string {
	return "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {namespace: " + namespace + ", name: " + name + "}, spec: " + spec + "}"
}

func texts(routes []Route) []string {
	out := make([]string, 0, len(routes))
	for _, r := range routes {
		out = append(out, r.String())
	}
	return out
}
