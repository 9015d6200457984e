package isolation

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Reasons why NetworkPolicies cannot isolate a pod.
const (
	// ReasonHostNetwork means that the pod uses its node's network, which NetworkPolicies do not apply to.
	ReasonHostNetwork = "HostNetwork"
	// ReasonMirrorPod means that the kubelet owns the pod's manifest, so that its labels cannot be relied on.
	ReasonMirrorPod = "MirrorPod"
	// ReasonSecondaryInterface means that the pod has, or may have, another interface besides the one that NetworkPolicies apply to.
	ReasonSecondaryInterface = "SecondaryInterface"
)

// Residuals: ways in and out that a static proof of isolation does not exclude.
const (
	// ResidualEstablishedConnections stands for connections opened before the policies took effect.
	ResidualEstablishedConnections = "EstablishedConnections"
	// ResidualNodeLocal stands for traffic from and to the pod's own node, which is always allowed to reach the pod.
	ResidualNodeLocal = "NodeLocal"
	// ResidualICMP stands for protocols that NetworkPolicy is not defined for.
	ResidualICMP = "ICMP"
	// ResidualEnforcementNotProbed says that nobody has seen the installed network plugin enforce the policies.
	ResidualEnforcementNotProbed = "EnforcementNotProbed"
	// ResidualHostPort says that a container is published on a port of the node, where the true source may be hidden.
	ResidualHostPort = "HostPort"
	// ResidualPrivileged says that a container is privileged and may therefore enter the node's own network.
	ResidualPrivileged = "Privileged"
)

// Annotations of the Kubernetes Network Plumbing Working Group's multi-network specification, §4 and §5.
const (
	annotationNetworkStatus    = "k8s.v1.cni.cncf.io/network-status"
	annotationNetworkStatusOld = "k8s.v1.cni.cncf.io/networks-status"
	annotationNetworks         = "k8s.v1.cni.cncf.io/networks"
)

// NotEnforceable says whether, and why, NetworkPolicies cannot isolate the pod. The reason is one of [ReasonHostNetwork],
// [ReasonMirrorPod] and [ReasonSecondaryInterface]; the message is for people. ok is true if there is such a reason.
func NotEnforceable(pod *corev1.Pod) (reason, message string, ok bool) {
	if pod.Spec.HostNetwork {
		return ReasonHostNetwork, "the pod uses its node's network, which NetworkPolicies do not restrict", true
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return ReasonMirrorPod, "the pod is a static pod, whose labels and lifetime only its node's kubelet controls", true
	}
	if message := otherInterfaces(pod); message != "" {
		return ReasonSecondaryInterface, message, true
	}
	return "", "", false
}

// otherInterfaces says what is known of interfaces besides the default one; nothing if there are none.
func otherInterfaces(pod *corev1.Pod) string {
	reported := false
	for _, key := range []string{annotationNetworkStatus, annotationNetworkStatusOld} {
		value := pod.Annotations[key]
		if value == "" {
			continue
		}
		var interfaces []json.RawMessage
		if err := json.Unmarshal([]byte(value), &interfaces); err != nil {
			return fmt.Sprintf("annotation %s cannot be read, so the number of the pod's network interfaces is unknown", key)
		}
		if len(interfaces) > 1 {
			return fmt.Sprintf("the pod has %d network interfaces, and NetworkPolicies restrict the default one only", len(interfaces))
		}
		reported = true
	}
	if !reported && pod.Annotations[annotationNetworks] != "" {
		return fmt.Sprintf("annotation %s asks for more network interfaces, and nothing says whether the pod got them", annotationNetworks)
	}
	return ""
}

// Residuals names, in a fixed order, what a pod without leaks may still be reached by. A caller that has disproved one of them,
// for example by a probe, drops it.
func Residuals(pod *corev1.Pod) []string {
	out := []string{ResidualEstablishedConnections, ResidualNodeLocal, ResidualICMP, ResidualEnforcementNotProbed}
	for _, port := range declaredPorts(pod) {
		if port.HostPort != 0 {
			out = append(out, ResidualHostPort)
			break
		}
	}
	if privileged(pod) {
		out = append(out, ResidualPrivileged)
	}
	return out
}

func privileged(pod *corev1.Pod) bool {
	is := func(sc *corev1.SecurityContext) bool { return sc != nil && sc.Privileged != nil && *sc.Privileged }
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range list {
			if is(c.SecurityContext) {
				return true
			}
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if is(c.SecurityContext) {
			return true
		}
	}
	return false
}
