package route

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// addSelecting adds the Services whose selectors match the labels.
func (s *search) addSelecting(services []*corev1.Service) {
	for _, svc := range services {
		if svc == nil || !s.selects(svc) {
			continue
		}
		s.leading[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] = true
		s.found = append(s.found, Route{Kind: KindService, Namespace: svc.Namespace, Name: svc.Name, Detail: phrases(s.readiness(svc), s.describe(svc))})
	}
}

// selects says whether the Service's selector matches. One without a selector selects nothing, and the selector of an ExternalName Service is ignored.
func (s *search) selects(svc *corev1.Service) bool {
	if svc.Namespace != s.pod.Namespace || !hasSelector(svc) {
		return false
	}
	for key, want := range svc.Spec.Selector {
		if got, ok := s.labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// hasSelector says whether the EndpointSlice controller looks for the Service's pods.
func hasSelector(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName && len(svc.Spec.Selector) > 0
}

// readiness says why the Service sends the pod less traffic than its selector suggests. It follows the EndpointSlice controller, which leaves out pods that
// have ended or have no address, and kube-proxy, which uses pods that terminate only while there are no others (KEP-1669). A pod whose status says nothing
// at all comes from a manifest, and nothing is known of it.
func (s *search) readiness(svc *corev1.Service) string {
	status := s.pod.Status
	publish := svc.Spec.PublishNotReadyAddresses
	switch {
	case status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed:
		return "the pod has ended, so that it gets no traffic"
	case status.Phase == "" && len(status.Conditions) == 0:
		return ""
	case len(s.addresses) == 0:
		return "the pod has no address yet, so that it gets no traffic"
	case s.pod.DeletionTimestamp != nil && publish:
		return "the pod is terminating and gets traffic all the same (publishNotReadyAddresses)"
	case s.pod.DeletionTimestamp != nil:
		return "the pod is terminating and gets new traffic only while no other pod is ready"
	case podReady(s.pod):
		return ""
	case publish:
		return "the pod is not ready and gets traffic all the same (publishNotReadyAddresses)"
	}
	return "the pod is not ready, so that it gets no new traffic"
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// describe says where the Service is reached and on which ports it sends to the pod.
func (s *search) describe(svc *corev1.Service) string {
	var exposure, external string
	switch {
	case svc.Spec.Type == corev1.ServiceTypeNodePort:
		exposure = "type NodePort, open on every node"
	case svc.Spec.Type == corev1.ServiceTypeLoadBalancer:
		exposure = "type LoadBalancer" + loadBalancer(svc)
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		exposure = "headless, so that DNS gives out the pod's own address"
	}
	if len(svc.Spec.ExternalIPs) > 0 {
		external = "external IPs " + enumerate(svc.Spec.ExternalIPs, ", ")
	}
	return phrases(exposure, external, s.servicePorts(svc))
}

func loadBalancer(svc *corev1.Service) string {
	var at []string
	for _, point := range svc.Status.LoadBalancer.Ingress {
		if address := cmp.Or(point.IP, point.Hostname); address != "" {
			at = append(at, address)
		}
	}
	if len(at) == 0 {
		return ""
	}
	return " at " + enumerate(at, ", ")
}

// servicePorts describes ports as "ports http 80->8080/TCP (node port 30080), 53->53/UDP".
func (s *search) servicePorts(svc *corev1.Service) string {
	ports := make([]string, 0, len(svc.Spec.Ports))
	for _, port := range svc.Spec.Ports {
		text := fmt.Sprintf("%d->%s/%s", port.Port, s.targetPort(port), cmp.Or(port.Protocol, corev1.ProtocolTCP))
		if port.Name != "" {
			text = port.Name + " " + text
		}
		if port.NodePort != 0 {
			text += fmt.Sprintf(" (node port %d)", port.NodePort)
		}
		ports = append(ports, text)
	}
	if len(ports) == 0 {
		return ""
	}
	return "ports " + enumerate(ports, ", ")
}

// targetPort is the port on the pod. A named one is looked up where the EndpointSlice controller looks: containers and native sidecars.
func (s *search) targetPort(port corev1.ServicePort) string {
	if port.TargetPort.Type == intstr.Int {
		return fmt.Sprint(cmp.Or(port.TargetPort.IntVal, port.Port))
	}
	containers := slices.Clone(s.pod.Spec.Containers)
	for _, c := range s.pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, declared := range c.Ports {
			if declared.Name == port.TargetPort.StrVal && cmp.Or(declared.Protocol, corev1.ProtocolTCP) == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
				return fmt.Sprint(declared.ContainerPort)
			}
		}
	}
	return port.TargetPort.StrVal + " (no such port on the pod)"
}

// addNode adds the node when the pod is reached at the node's own addresses, past any Service.
func (s *search) addNode() {
	var ports []string
	for _, c := range slices.Concat(s.pod.Spec.InitContainers, s.pod.Spec.Containers) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, hostPort(port))
			}
		}
	}
	var network, published string
	if s.pod.Spec.HostNetwork {
		network = "the pod uses the node's network, so that every port it opens is one of the node"
	}
	if len(ports) > 0 {
		published = "hostPort " + enumerate(ports, ", ")
	}
	if detail := phrases(network, published); detail != "" {
		s.found = append(s.found, Route{Kind: KindNode, Name: s.pod.Spec.NodeName, Detail: detail})
	}
}

func hostPort(port corev1.ContainerPort) string {
	at := strconv.Itoa(int(port.HostPort))
	if port.HostIP != "" {
		at = net.JoinHostPort(port.HostIP, at)
	}
	return fmt.Sprintf("%s->%d/%s", at, port.ContainerPort, cmp.Or(port.Protocol, corev1.ProtocolTCP))
}
