package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var (
	web      = labelSet{"app": "web"}
	detached = labelSet{"containment.cofferdam.dev/incident-1": ""}
)

func TestServicesLeadToThePodsTheySelect(t *testing.T) {
	const ports = "ports http 80->8080/TCP"
	plain := []string{"Service shop/web (" + ports + ")"}
	cases := map[string]struct {
		service *service
		labels  labelSet // nil: the pod's own
		want    []string
	}{
		"one label":                 {service: newService("web", web), want: plain},
		"all of several labels":     {service: newService("web", labelSet{"app": "web", "tier": "fe"}), want: plain},
		"one of several labels":     {service: newService("web", labelSet{"app": "web", "tier": "be"})},
		"another value":             {service: newService("web", labelSet{"app": "db"})},
		"empty value, label absent": {service: newService("web", labelSet{"new": ""})},
		"after the quarantine":      {service: newService("web", web), labels: detached},
		"without any label":         {service: newService("web", web), labels: labelSet{}},
		"no selector":               {service: newService("web", nil)},
		"empty selector":            {service: newService("web", labelSet{})},
		"another namespace":         {service: newService("web", web, inNamespace[*service]("bank"))},
		"ExternalName":              {service: newService("web", web, ofType(corev1.ServiceTypeExternalName))},
		"a quarantine label":        {service: newService("web", detached), labels: detached, want: plain},
		"NodePort": {service: newService("web", web, ofType(corev1.ServiceTypeNodePort), func(s *service) { s.Spec.Ports[0].NodePort = 30080 }),
			want: []string{"Service shop/web (type NodePort, open on every node; " + ports + " (node port 30080))"}},
		"LoadBalancer": {service: newService("web", web, ofType(corev1.ServiceTypeLoadBalancer), func(s *service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}, {Hostname: "lb.example"}, {}}
		}), want: []string{"Service shop/web (type LoadBalancer at 203.0.113.7, lb.example; " + ports + ")"}},
		"LoadBalancer without an address": {service: newService("web", web, ofType(corev1.ServiceTypeLoadBalancer)),
			want: []string{"Service shop/web (type LoadBalancer; " + ports + ")"}},
		"external IPs": {service: newService("web", web, func(s *service) { s.Spec.ExternalIPs = []string{"192.0.2.1", "192.0.2.2"} }),
			want: []string{"Service shop/web (external IPs 192.0.2.1, 192.0.2.2; " + ports + ")"}},
		"headless": {service: newService("web", web, func(s *service) { s.Spec.ClusterIP = corev1.ClusterIPNone }),
			want: []string{"Service shop/web (headless, so that DNS gives out the pod's own address; " + ports + ")"}},
		"no ports": {service: newService("web", web, func(s *service) { s.Spec.Ports = nil }), want: []string{"Service shop/web"}},
		"defaults of ports": {service: newService("web", web, func(s *service) {
			s.Spec.Ports = []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}, {Port: 9}}
		}),
			want: []string{"Service shop/web (ports 53->53/UDP, 9->9/TCP)"}},
		"named port": {service: newService("web", web, func(s *service) { s.Spec.Ports[0].TargetPort = intstr.FromString("web") }), want: plain},
		"named port of another protocol": {service: newService("web", web, func(s *service) {
			s.Spec.Ports[0].TargetPort, s.Spec.Ports[0].Protocol = intstr.FromString("web"), corev1.ProtocolUDP
		}), want: []string{"Service shop/web (ports http 80->web (no such port on the pod)/UDP)"}},
		"many ports": {service: newService("web", web, func(s *service) {
			for port := range int32(5) {
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: port + 1})
			}
		}), want: []string{"Service shop/web (ports http 80->8080/TCP, 1->1/TCP, 2->2/TCP, 3->3/TCP and 2 more)"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := victim()
			labels := tc.labels
			if labels == nil {
				labels = pod.Labels
			}
			got := texts(To(pod, labels, Objects{Services: []*service{nil, tc.service, tc.service}}))
			if diff := cmp.Diff(append([]string{}, tc.want...), got); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// The EndpointSlice controller looks for named ports in native sidecars, and not in other init containers.
func TestNamedPortsOfSidecars(t *testing.T) {
	svc := newService("web", web, func(s *service) { s.Spec.Ports[0].TargetPort = intstr.FromString("proxy") })
	cases := map[string]struct {
		restart *corev1.ContainerRestartPolicy
		want    string
	}{
		"sidecar":        {restart: new(corev1.ContainerRestartPolicyAlways), want: "ports http 80->15001/TCP"},
		"init container": {want: "ports http 80->proxy (no such port on the pod)/TCP"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := victim(func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{RestartPolicy: tc.restart, Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15001}}}}
			})
			want := []Route{{Kind: KindService, Namespace: "shop", Name: "web", Detail: tc.want}}
			if diff := cmp.Diff(want, To(pod, pod.Labels, Objects{Services: []*service{svc}})); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadinessIsTold(t *testing.T) {
	cases := map[string]struct {
		pod     *corev1.Pod
		publish bool
		want    string
	}{
		"ready":                      {pod: victim(), want: ""},
		"ready, published":           {pod: victim(), publish: true, want: ""},
		"not ready":                  {pod: victim(notReady), want: "the pod is not ready, so that it gets no new traffic"},
		"not ready, published":       {pod: victim(notReady), publish: true, want: "the pod is not ready and gets traffic all the same (publishNotReadyAddresses)"},
		"readiness unknown":          {pod: victim(func(p *corev1.Pod) { p.Status.Conditions = nil }), want: "the pod is not ready, so that it gets no new traffic"},
		"terminating":                {pod: victim(terminating), want: "the pod is terminating and gets new traffic only while no other pod is ready"},
		"terminating, published":     {pod: victim(terminating), publish: true, want: "the pod is terminating and gets traffic all the same (publishNotReadyAddresses)"},
		"ended, published":           {pod: victim(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), publish: true, want: "the pod has ended, so that it gets no traffic"},
		"done":                       {pod: victim(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), want: "the pod has ended, so that it gets no traffic"},
		"no address, published":      {pod: victim(func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "", nil }), publish: true, want: "the pod has no address yet, so that it gets no traffic"},
		"a manifest without status":  {pod: victim(func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }), want: ""},
		"the address in podIPs only": {pod: victim(func(p *corev1.Pod) { p.Status.PodIP = "" }), want: ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			svc := newService("web", web, func(s *service) { s.Spec.Ports, s.Spec.PublishNotReadyAddresses = nil, tc.publish })
			want := []Route{{Kind: KindService, Namespace: "shop", Name: "web", Detail: tc.want}}
			if diff := cmp.Diff(want, To(tc.pod, tc.pod.Labels, Objects{Services: []*service{svc}})); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheNodeLeadsToPublishedPorts(t *testing.T) {
	cases := map[string]struct {
		change func(*corev1.Pod)
		want   []string
	}{
		"no hostPort": {change: func(*corev1.Pod) {}},
		"hostPort": {change: func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 80 },
			want: []string{"Node n1 (hostPort 80->8080/TCP)"}},
		"hostPort of an init container at one address": {change: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostIP: "::1", HostPort: 53, ContainerPort: 5353, Protocol: corev1.ProtocolUDP}}}}
		}, want: []string{"Node n1 (hostPort [::1]:53->5353/UDP)"}},
		"hostNetwork": {change: func(p *corev1.Pod) { p.Spec.HostNetwork = true },
			want: []string{"Node n1 (the pod uses the node's network, so that every port it opens is one of the node)"}},
		"not scheduled": {change: func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.Containers[0].Ports[0].HostPort = "", 80 },
			want: []string{"Node (hostPort 80->8080/TCP)"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(append([]string{}, tc.want...), texts(To(victim(tc.change), web, Objects{}))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndpointSlicesLeadToThePodsTheyList(t *testing.T) {
	const (
		mine    = "lists the pod"
		byIP    = "lists the pod's address 10.0.0.5"
		another = " as that of Pod web-1"
	)
	cases := map[string]struct {
		slice *slice
		pod   *corev1.Pod
		want  string // how; "" if it does not
	}{
		"target with UID":               {slice: newSlice("s", "", with(target(podRef("web-0", "uid-0"), "10.0.0.5"))), want: mine},
		"target of another UID":         {slice: newSlice("s", "", with(target(podRef("web-0", "uid-9"), "10.0.0.9")))},
		"target of the UID, renamed":    {slice: newSlice("s", "", with(target(podRef("x", "uid-0"), "10.0.0.9"))), want: mine},
		"target by name":                {slice: newSlice("s", "", with(target(podRef("web-0", ""), "10.0.0.9"))), want: mine},
		"target by another name":        {slice: newSlice("s", "", with(target(podRef("web-1", ""), "10.0.0.9")))},
		"target in another namespace":   {slice: newSlice("s", "", with(target(corev1.ObjectReference{Kind: "Pod", Namespace: "bank", Name: "web-0"}, "10.0.0.9")))},
		"target in the slice's":         {slice: newSlice("s", "", with(target(corev1.ObjectReference{Kind: "Pod", Name: "web-0"}, "10.0.0.9"))), want: mine},
		"target in the slice's, other":  {slice: newSlice("s", "", inNamespace[*slice]("bank"), with(target(corev1.ObjectReference{Kind: "Pod", Name: "web-0"}, "10.0.0.9")))},
		"target of another kind":        {slice: newSlice("s", "", with(target(corev1.ObjectReference{Kind: "Node", Namespace: "shop", Name: "web-0"}, "10.0.0.9")))},
		"a pod from a manifest":         {slice: newSlice("s", "", with(target(podRef("web-0", "uid-0")))), pod: victim(func(p *corev1.Pod) { p.UID = "" }), want: mine},
		"address":                       {slice: newSlice("s", "", with(address("10.0.0.9"), address("10.0.0.5"))), want: byIP},
		"address, from a namespace":     {slice: newSlice("s", "", inNamespace[*slice]("bank"), with(address("10.0.0.5"))), want: byIP},
		"address, said to be another's": {slice: newSlice("s", "", with(target(podRef("web-1", "uid-1"), "10.0.0.5"))), want: byIP + another},
		"address of another pod":        {slice: newSlice("s", "", with(target(podRef("web-1", "uid-1"), "10.0.0.6")))},
		"address, in podIP only":        {slice: newSlice("s", "", with(address("10.0.0.5"))), pod: victim(func(p *corev1.Pod) { p.Status.PodIPs = nil }), want: byIP},
		"second address":                {slice: newSlice("s", "", with(address("10.0.0.9", "10.0.0.5"))), want: byIP},
		"IPv6 address in long form":     {slice: newSlice("s", "", with(address("2001:0db8:0::0005"))), want: "lists the pod's address 2001:db8::5"},
		"IPv6 address with a zone":      {slice: newSlice("s", "", with(address("2001:db8::5%eth0"))), want: "lists the pod's address 2001:db8::5"},
		"IPv4 address with zeros":       {slice: newSlice("s", "", with(address("010.000.000.005"))), want: byIP},
		"IPv4 address within IPv6":      {slice: newSlice("s", "", with(address("::ffff:10.0.0.5"))), want: byIP},
		"not an address":                {slice: newSlice("s", "", with(address("", "web-0", "10.0.0.5/32")))},
		"address of a pod without one":  {slice: newSlice("s", "", with(address("", "0.0.0.0"))), pod: victim(func(p *corev1.Pod) { p.Status = corev1.PodStatus{} })},
		"FQDN":                          {slice: newSlice("s", "", func(s *slice) { s.AddressType = discoveryv1.AddressTypeFQDN }, with(target(podRef("web-0", "uid-0"), "10.0.0.5")))},
		"no endpoints":                  {slice: newSlice("s", "")},
		"twice":                         {slice: newSlice("s", "", with(address("10.0.0.5"), target(podRef("web-0", "")))), want: byIP + "; " + mine},
		"ready":                         {slice: newSlice("s", "", with(endpoint{Addresses: []string{"10.0.0.5"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(false)}})), want: byIP},
		"not ready":                     {slice: newSlice("s", "", with(endpoint{Addresses: []string{"10.0.0.5"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}})), want: byIP + ", not ready: no new traffic"},
		"not serving":                   {slice: newSlice("s", "", with(endpoint{Addresses: []string{"10.0.0.5"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}})), want: byIP + ", not ready: no new traffic"},
		"terminating":                   {slice: newSlice("s", "", with(endpoint{Addresses: []string{"10.0.0.5"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)}})), want: byIP + ", terminating: traffic only while no other endpoint is ready"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := tc.pod
			if pod == nil {
				pod = victim()
			}
			want := []string{}
			if tc.want != "" {
				want = append(want, fmt.Sprintf("EndpointSlice %s/s (hand-made: no controller keeps it in step with the pod's labels; %s; ports http 8080/TCP)", tc.slice.Namespace, tc.want))
			}
			slices := []*slice{nil, tc.slice}
			if diff := cmp.Diff(want, texts(To(pod, detached, Objects{Slices: slices}))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, texts(HandMade(pod, slices))); diff != "" {
				t.Errorf("HandMade() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortsOfSlices(t *testing.T) {
	cases := map[string]struct {
		ports []discoveryv1.EndpointPort
		want  string
	}{
		"none":        {want: "lists the pod's address 10.0.0.5"},
		"all":         {ports: []discoveryv1.EndpointPort{{}}, want: "ports all ports/TCP"},
		"one of each": {ports: []discoveryv1.EndpointPort{{Port: new(int32(53)), Protocol: new(corev1.ProtocolUDP), Name: new("")}, {Port: new(int32(1))}}, want: "ports 53/UDP, 1/TCP"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := To(victim(), detached, Objects{Slices: []*slice{newSlice("s", "", with(address("10.0.0.5")), func(s *slice) { s.Ports = tc.ports })}})
			if len(got) != 1 || !strings.HasSuffix(got[0].Detail, "; "+tc.want) {
				t.Errorf("To() = %v, want one that ends in %q", got, tc.want)
			}
		})
	}
}

// Case 42 of the field notes: quarantine takes the pod out of the slices of the EndpointSlice controller, and out of no others.
func TestHandMadeSlicesAreToldFromKeptOnes(t *testing.T) {
	const abandoned = "as good as hand-made: the EndpointSlice controller made it, or its label says so, but does not keep it, because "
	listed := with(target(podRef("web-0", "uid-0"), "10.0.0.5"))
	cases := map[string]struct {
		slice    *slice
		services []*service // nil: not given
		labels   labelSet
		handMade bool
		want     []string
	}{
		"of nobody": {slice: newSlice("s", "web", listed), services: []*service{newService("web", nil)}, handMade: true, want: []string{
			"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
			"EndpointSlice shop/s (hand-made: no controller keeps it in step with the pod's labels; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"of nobody, next to a selector that matches": {slice: newSlice("s", "web", listed), services: []*service{newService("web", web)}, labels: web, handMade: true, want: []string{
			"Service shop/web (ports http 80->8080/TCP)",
			"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
			"EndpointSlice shop/s (hand-made: no controller keeps it in step with the pod's labels; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"of some tool": {slice: newSlice("s", "web", managedBy("tool.example"), listed), services: []*service{}, handMade: true, want: []string{
			"Service shop/web (not among the Services that were read, so that its ports and its type are not known) via EndpointSlice s",
			"EndpointSlice shop/s (hand-made: managed by tool.example, and not kept in step with the pod's labels by Kubernetes; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"mirrored": {slice: newSlice("s", "web", managedBy(managedByMirroring), listed), services: []*service{newService("web", nil)}, handMade: true, want: []string{
			"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
			"EndpointSlice shop/s (hand-made: mirrored from Endpoints web, which no controller keeps in step with the pod's labels; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"of an ExternalName Service, which no proxy reads": {slice: newSlice("s", "web", listed), services: []*service{newService("web", web, ofType(corev1.ServiceTypeExternalName))}, handMade: true, want: []string{
			"EndpointSlice shop/s (hand-made: no controller keeps it in step with the pod's labels; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"kept": {slice: newSlice("s", "web", kept, listed), services: []*service{newService("web", web)}, labels: web, want: []string{
			"Service shop/web (ports http 80->8080/TCP)",
			"EndpointSlice shop/s (kept by the EndpointSlice controller; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"kept, lagging": {slice: newSlice("s", "web", kept, listed), services: []*service{newService("web", web)}, want: []string{
			"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
			"EndpointSlice shop/s (kept by the EndpointSlice controller, which has yet to take the pod out; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"kept, by its label": {slice: newSlice("s", "web", kept, listed), want: []string{
			"Service shop/web (not among the Services that were read, so that its ports and its type are not known) via EndpointSlice s",
			"EndpointSlice shop/s (kept by the EndpointSlice controller; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"with a kept one's label, of no Service": {slice: newSlice("s", "", kept, listed), handMade: true, want: []string{
			"EndpointSlice shop/s (" + abandoned + "it is of no Service; lists the pod; ports http 8080/TCP)",
		}},
		"with a kept one's label, held by a finalizer": {slice: newSlice("s", "web", kept, listed, func(s *slice) { s.DeletionTimestamp = &metav1.Time{} }),
			services: []*service{newService("web", web)}, handMade: true, want: []string{
				"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
				"EndpointSlice shop/s (" + abandoned + "it is being deleted; of Service web; lists the pod; ports http 8080/TCP)",
			}},
		"with a kept one's label, selector lost": {slice: newSlice("s", "web", kept, listed), services: []*service{newService("web", nil)}, handMade: true, want: []string{
			"Service shop/web (ports http 80->8080/TCP) via EndpointSlice s",
			"EndpointSlice shop/s (" + abandoned + "Service web has no selector; of Service web; lists the pod; ports http 8080/TCP)",
		}},
		"with a kept one's label, Service gone": {slice: newSlice("s", "web", kept, listed), services: []*service{newService("web", web, inNamespace[*service]("bank"))}, handMade: true, want: []string{
			"Service shop/web (not among the Services that were read, so that its ports and its type are not known) via EndpointSlice s",
			"EndpointSlice shop/s (" + abandoned + "Service web does not exist; of Service web; lists the pod; ports http 8080/TCP)",
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			labels := tc.labels
			if labels == nil {
				labels = detached
			}
			pod := victim(func(p *corev1.Pod) { p.Labels = labels })
			got := To(pod, labels, Objects{Services: tc.services, Slices: []*slice{tc.slice}})
			if diff := cmp.Diff(tc.want, texts(got)); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
			var want []Route
			if tc.handMade {
				want = got[len(got)-1:]
			}
			if diff := cmp.Diff(want, HandMade(pod, []*slice{tc.slice}, tc.services...)); diff != "" {
				t.Errorf("HandMade() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKeysOfAnIndexOfSlices(t *testing.T) {
	if diff := cmp.Diff([]string{"address 10.0.0.5", "address 2001:db8::5", "pod shop/web-0", "uid uid-0"}, PodKeys(victim())); diff != "" {
		t.Errorf("PodKeys() mismatch (-want +got):\n%s", diff)
	}
	cases := map[string]struct {
		slice *slice
		want  []string
	}{
		"no slice":     {},
		"no endpoints": {slice: newSlice("s", "web")},
		"target":       {slice: newSlice("s", "web", with(target(podRef("web-0", "uid-0"), "010.0.0.5", "web"))), want: []string{"address 10.0.0.5", "pod shop/web-0", "uid uid-0"}},
		"target in the slice's namespace, twice": {slice: newSlice("s", "web", with(target(corev1.ObjectReference{Kind: "Pod", Name: "web-0"}), target(podRef("web-0", "")))),
			want: []string{"pod shop/web-0"}},
		"FQDN": {slice: newSlice("s", "web", with(address("10.0.0.5")), func(s *slice) { s.AddressType = discoveryv1.AddressTypeFQDN })},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, SliceKeys(tc.slice)); diff != "" {
				t.Errorf("SliceKeys() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoPodHasNoRoutes(t *testing.T) {
	slices := []*slice{newSlice("s", "", with(address("10.0.0.5")))}
	if got := To(nil, web, Objects{Slices: slices}); got != nil {
		t.Errorf("To() = %v, want none", got)
	}
	if got := HandMade(nil, slices); got != nil {
		t.Errorf("HandMade() = %v, want none", got)
	}
	if got := PodKeys(nil); got != nil {
		t.Errorf("PodKeys() = %v, want none", got)
	}
}

func TestIngressesLeadToServices(t *testing.T) {
	const handMade = "EndpointSlice shop/manual (hand-made: no controller keeps it in step with the pod's labels; of Service legacy; lists the pod's address 10.0.0.5)"
	objs := Objects{
		Services: []*service{
			newService("web", web, func(s *service) { s.Spec.Ports = nil }),
			newService("db", labelSet{"app": "db"}),
			newService("alias", web, ofType(corev1.ServiceTypeExternalName)),
			newService("legacy", nil, func(s *service) { s.Spec.Ports = nil }),
		},
		Slices: []*slice{newSlice("manual", "legacy", with(address("10.0.0.5")), func(s *slice) { s.Ports = nil })},
	}
	always := []string{"Service shop/legacy via EndpointSlice manual", "Service shop/web", handMade}
	cases := map[string]struct {
		ingress *ingress
		want    []string
	}{
		"rule":                            {ingress: newIngress("i", rule("shop.example", "/", toService("web"))), want: []string{"Ingress shop/i (host shop.example, path /) via Service web"}},
		"rule without host and path":      {ingress: newIngress("i", rule("", "", toService("web"))), want: []string{"Ingress shop/i (any host, any path) via Service web"}},
		"default backend":                 {ingress: newIngress("i", byDefault(toService("web"))), want: []string{"Ingress shop/i (default backend) via Service web"}},
		"hand-made slice":                 {ingress: newIngress("i", rule("", "/", toService("legacy"))), want: []string{"Ingress shop/i (any host, path /) via Service legacy"}},
		"Service that does not lead here": {ingress: newIngress("i", byDefault(toService("db")), rule("", "/", toService("none")))},
		"ExternalName":                    {ingress: newIngress("i", byDefault(toService("alias")))},
		"namesake in another namespace":   {ingress: newIngress("i", inNamespace[*ingress]("bank"), byDefault(toService("web")))},
		"no backend":                      {ingress: newIngress("i", rule("", "/", toResource(nil, "", "")), func(i *ingress) { i.Spec.Rules[0].HTTP.Paths[0].Backend.Resource = nil }, func(i *ingress) { i.Spec.Rules = append(i.Spec.Rules, i.Spec.Rules[0]); i.Spec.Rules[1].HTTP = nil })},
		"two Services": {ingress: newIngress("i", byDefault(toService("legacy")), rule("a.example", "/", toService("web")), rule("b.example", "/x", toService("web"))), want: []string{
			"Ingress shop/i (default backend) via Service legacy",
			"Ingress shop/i (host a.example, path /; host b.example, path /x) via Service web",
		}},
		"many rules": {ingress: newIngress("i", rule("", "/1", toService("web")), rule("", "/2", toService("web")), rule("", "/3", toService("web")),
			rule("", "/4", toService("web")), rule("", "/5", toService("web")), rule("", "/6", toService("web"))), want: []string{
			"Ingress shop/i (any host, path /1; any host, path /2; any host, path /3; any host, path /4 and 2 more) via Service web",
		}},
		"resource": {ingress: newIngress("i", rule("", "/s", toResource(new("store.example"), "Bucket", "b")), byDefault(toResource(nil, "ConfigMap", "c"))), want: []string{
			"Ingress shop/i (backend Bucket (store.example) b is not followed: whether it leads to the pod is not known; any host, path /s)",
			"Ingress shop/i (backend ConfigMap c is not followed: whether it leads to the pod is not known; default backend)",
		}},
		"resource in another namespace": {ingress: newIngress("i", inNamespace[*ingress]("bank"), byDefault(toResource(nil, "Bucket", "b")))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			objs.Ingresses = []*ingress{nil, tc.ingress}
			if diff := cmp.Diff(append(append([]string{}, always...), tc.want...), texts(To(victim(), web, objs))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// The slice of another namespace takes its Service, and what leads to that, to the pod.
func TestAnotherNamespaceLeadsToThePodByAddress(t *testing.T) {
	got := texts(To(victim(), detached, Objects{
		Services:  []*service{newService("front", nil, inNamespace[*service]("bank")), newService("web", web)},
		Slices:    []*slice{newSlice("s", "front", inNamespace[*slice]("bank"), with(address("10.0.0.5")))},
		Ingresses: []*ingress{newIngress("i", inNamespace[*ingress]("bank"), byDefault(toService("front")), rule("", "/", toResource(nil, "Bucket", "b")))},
	}))
	want := []string{
		"Service bank/front (ports http 80->8080/TCP) via EndpointSlice s",
		"EndpointSlice bank/s (hand-made: no controller keeps it in step with the pod's labels; of Service front; lists the pod's address 10.0.0.5; ports http 8080/TCP)",
		"Ingress bank/i (backend Bucket b is not followed: whether it leads to the pod is not known; any host, path /)",
		"Ingress bank/i (default backend) via Service front",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}

func TestSummary(t *testing.T) {
	shop := func(kind, name string) Route { return Route{Kind: kind, Namespace: "shop", Name: name} }
	five := []Route{shop("Service", "web"), shop("Ingress", "shop"), shop("Ingress", "old"), shop("HTTPRoute", "r"), {Kind: "Node", Name: "n1"}}
	cases := map[string]struct {
		routes []Route
		limit  int
		want   string
	}{
		"none":                        {limit: 3},
		"one":                         {routes: five[:1], limit: 3, want: "Service web"},
		"two":                         {routes: five[:2], limit: 3, want: "Service web and Ingress shop"},
		"as many as fit":              {routes: five[:3], limit: 3, want: "Service web, Ingress shop and Ingress old"},
		"one too many":                {routes: five[:3], limit: 2, want: "Service web, Ingress shop and 1 more"},
		"more":                        {routes: five, limit: 2, want: "Service web, Ingress shop and 3 more"},
		"no room":                     {routes: five, limit: 0, want: "Service web and 4 more"},
		"one object on two routes":    {routes: []Route{five[0], {Kind: "Service", Namespace: "shop", Name: "web", Via: "EndpointSlice s"}, five[1]}, limit: 2, want: "Service web and Ingress shop"},
		"the node is of no namespace": {routes: five[3:], limit: 2, want: "HTTPRoute r and Node n1"},
		"two namespaces":              {routes: []Route{five[0], {Kind: "Service", Namespace: "bank", Name: "web"}}, limit: 2, want: "Service shop/web and Service bank/web"},
		"text that is not printable":  {routes: []Route{shop("Service", "a\nb\x1b")}, limit: 1, want: "Service a\ufffdb\ufffd"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Summary(tc.routes, tc.limit); got != tc.want {
				t.Errorf("Summary() = %q, want %q", got, tc.want)
			}
		})
	}
}

// Names and hosts come from tenants and end on a responder's terminal.
func TestTextIsCleanAndBounded(t *testing.T) {
	svc := newService("w\x1b[2Jeb\u202e", web, func(s *service) {
		s.Spec.Ports = nil
		s.Spec.ExternalIPs = []string{strings.Repeat("é", 2*maxText)}
	})
	got := To(victim(), web, Objects{Services: []*service{svc}})
	want := []Route{{Kind: KindService, Namespace: "shop", Name: "w\ufffd[2Jeb\ufffd", Detail: "external IPs " + strings.Repeat("é", maxText-len("external IPs ")-1) + "…"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}
