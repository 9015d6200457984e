package isolation

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestNotEnforceable(t *testing.T) {
	annotated := func(key, value string) *corev1.Pod {
		pod := stripped()
		pod.Annotations = map[string]string{key: value}
		return pod
	}
	answered := annotated(annotationNetworks, `macvlan`)
	answered.Annotations[annotationNetworkStatus] = `[{"name":"a","interface":"eth0"}]`
	hostNetwork := stripped()
	hostNetwork.Spec.HostNetwork = true

	cases := map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"ordinary pod":                     {pod: stripped()},
		"case 38: host network":            {pod: hostNetwork, want: ReasonHostNetwork},
		"case 39: second interface":        {pod: annotated(annotationNetworkStatus, `[{"name":"a","interface":"eth0"},{"name":"b","interface":"net1"}]`), want: ReasonSecondaryInterface},
		"old name of the annotation":       {pod: annotated(annotationNetworkStatusOld, `[{},{}]`), want: ReasonSecondaryInterface},
		"one interface":                    {pod: annotated(annotationNetworkStatus, `[{"name":"a","interface":"eth0","default":true}]`)},
		"no interface yet":                 {pod: annotated(annotationNetworkStatus, `[]`)},
		"empty status":                     {pod: annotated(annotationNetworkStatus, ``)},
		"status that cannot be read":       {pod: annotated(annotationNetworkStatus, `[{"name":`), want: ReasonSecondaryInterface},
		"status that is not a list":        {pod: annotated(annotationNetworkStatus, `{"name":"a"}`), want: ReasonSecondaryInterface},
		"networks asked for, none told of": {pod: annotated(annotationNetworks, `macvlan`), want: ReasonSecondaryInterface},
		"networks asked for, not granted":  {pod: answered},
		"case 40: mirror pod":              {pod: annotated(corev1.MirrorPodAnnotationKey, "0123"), want: ReasonMirrorPod},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			reason, message, ok := NotEnforceable(tc.pod)
			if reason != tc.want || ok != (tc.want != "") || ok != (message != "") {
				t.Errorf("NotEnforceable() = %q, %q, %v, want reason %q", reason, message, ok, tc.want)
			}
		})
	}
}

// Case 39: that the pod has a second interface changes nothing about the first one.
func TestSecondInterfaceDoesNotChangeTheEvaluation(t *testing.T) {
	pod := stripped()
	pod.Annotations = map[string]string{annotationNetworkStatus: `[{},{}]`}
	if got := evaluate(pod, []*policy{denyPolicy()}, nil); len(got) != 0 {
		t.Errorf("evaluate() = %v, want none", got)
	}
}

func TestResiduals(t *testing.T) {
	always := []string{"EstablishedConnections", "NodeLocal", "ICMP", "EnforcementNotProbed"}
	hostPort := stripped()
	hostPort.Spec.Containers[0].Ports[0].HostPort = 9090
	privilegedPod := stripped()
	privilegedPod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: &corev1.SecurityContext{Privileged: new(true)}},
	}}
	sidecar := stripped()
	sidecar.Spec.InitContainers = []corev1.Container{{
		Ports:           []corev1.ContainerPort{{ContainerPort: 1, HostPort: 1}},
		SecurityContext: &corev1.SecurityContext{Privileged: new(true)},
	}}

	cases := map[string]struct {
		pod  *corev1.Pod
		want []string
	}{
		"case 41 and 61: node and ICMP":     {pod: stripped(), want: always},
		"host port":                         {pod: hostPort, want: append(slices.Clone(always), "HostPort")},
		"privileged debug container":        {pod: privilegedPod, want: append(slices.Clone(always), "Privileged")},
		"init container with both of these": {pod: sidecar, want: append(slices.Clone(always), "HostPort", "Privileged")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Residuals(tc.pod)); diff != "" {
				t.Errorf("Residuals() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}
