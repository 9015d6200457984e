package target

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// alwaysProtected are the namespaces that the cluster itself lives in: cutting one off can cut off everything, the operator included.
var alwaysProtected = []string{
	"kube-system", "kube-public", "kube-node-lease",
	"calico-system", "calico-apiserver", "tigera-operator", "kube-flannel", "kube-ovn", "cilium", "cilium-system", "antrea-system",
	"openshift-dns", "openshift-ovn-kubernetes", "openshift-sdn",
}

// CheckProtected returns a Problem when a target namespace is protected, or when a target pod serves the cluster's DNS.
func CheckProtected(namespaces []string, pods []Pod, policy v1alpha1.ContainmentPolicySpec, operatorNamespace string) error {
	for _, ns := range namespaces {
		switch {
		case ns == operatorNamespace:
			return protected("namespace %s is the operator's own; it cannot be contained", ns)
		case slices.Contains(alwaysProtected, ns):
			return protected("namespace %s belongs to the cluster itself; it is always protected", ns)
		case slices.Contains(policy.ProtectedNamespaces, ns):
			return protected("namespace %s is protected by the ContainmentPolicy; ask the platform team", ns)
		}
	}
	for _, p := range pods {
		if app := p.Pod.Labels["k8s-app"]; app == "kube-dns" || app == "coredns" {
			return protected("Pod %s/%s serves the cluster's DNS; it is always protected", p.Pod.Namespace, p.Pod.Name)
		}
	}
	return nil
}

func protected(format string, args ...any) error {
	return &Problem{Reason: v1alpha1.ReasonProtected, Message: fmt.Sprintf(format, args...)}
}

// CheckLimits returns a Problem, with the numbers, when the targets exceed a limit. all are all pods of the target namespaces.
func CheckLimits(namespaces []string, pods []Pod, all map[string]*corev1.Pod, limits v1alpha1.Limits) error {
	if n := len(namespaces); n > int(limits.MaxNamespaces) {
		return exceeded("the targets reach into %d namespaces, the ContainmentPolicy allows %d (limits.maxNamespaces)", n, limits.MaxNamespaces)
	}
	if n := len(pods); n > int(limits.MaxPods) {
		return exceeded("the targets have %d pods, the ContainmentPolicy allows %d (limits.maxPods); narrow the targets or ask the platform team", n, limits.MaxPods)
	}
	for _, ns := range namespaces {
		targeted, total := 0, 0
		for _, p := range pods {
			if p.Pod.Namespace == ns {
				targeted++
			}
		}
		for _, p := range all {
			if p.Namespace == ns && !Ended(p) {
				total++
			}
		}
		if targeted*100 > total*int(limits.MaxNamespacePercent) {
			return exceeded("the targets are %d of %d running pods in namespace %s, the ContainmentPolicy allows %d%% (limits.maxNamespacePercent)",
				targeted, total, ns, limits.MaxNamespacePercent)
		}
	}
	return nil
}

func exceeded(format string, args ...any) error {
	return &Problem{Reason: v1alpha1.ReasonLimitExceeded, Message: fmt.Sprintf(format, args...)}
}

// Ended reports whether the pod's containers have all ended for good.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
