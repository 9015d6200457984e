package evidence

import (
	corev1 "k8s.io/api/core/v1"
)

// Kinds of containers, in the order in which they start.
const (
	kindInit      = "init"
	kindSidecar   = "sidecar"
	kindOrdinary  = "container"
	kindEphemeral = "ephemeral"
)

const (
	instanceCurrent  = "current"
	instancePrevious = "previous"
)

// instances lists the instances of containers that a pod has or had, as far as its status knows, in the order init, sidecar, ordinary, ephemeral.
func instances(pod *corev1.Pod) []*podLog {
	var out []*podLog
	for _, c := range pod.Spec.InitContainers {
		kind := kindInit
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = kindSidecar
		}
		out = append(out, instancesOf(c.Name, kind, pod.Status.InitContainerStatuses)...)
	}
	for _, c := range pod.Spec.Containers {
		out = append(out, instancesOf(c.Name, kindOrdinary, pod.Status.ContainerStatuses)...)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		out = append(out, instancesOf(c.Name, kindEphemeral, pod.Status.EphemeralContainerStatuses)...)
	}
	if pod.Spec.NodeName == "" {
		for _, log := range out { // the API server would send empty logs
			log.done, log.Absent, log.Problem = true, true, "the pod was never on a node"
		}
	}
	return out
}

// instancesOf lists the current instance of a container, and the one before it. A container that waits to be started again has no current one: asked for it, the kubelet would send the log of the one before.
func instancesOf(name, kind string, statuses []corev1.ContainerStatus) []*podLog {
	status := statusOf(name, statuses)
	current := &podLog{IndexedLog: IndexedLog{
		Container: name, Kind: kind, Instance: instanceCurrent, ContainerID: currentID(status), ImageID: status.ImageID,
	}}
	last := status.LastTerminationState.Terminated
	if status.RestartCount == 0 && last == nil {
		return []*podLog{current}
	}
	previous := &podLog{IndexedLog: IndexedLog{Container: name, Kind: kind, Instance: instancePrevious}}
	if last != nil {
		previous.ContainerID = last.ContainerID // whose image may have been another one
	}
	if current.ContainerID == "" {
		current.done, current.Absent, current.Problem = true, true, notStarted(status)
	}
	return []*podLog{current, previous}
}

func statusOf(name string, statuses []corev1.ContainerStatus) corev1.ContainerStatus {
	for _, s := range statuses {
		if s.Name == name {
			return s
		}
	}
	return corev1.ContainerStatus{Name: name}
}

// currentID is the ID of the instance that runs or has ended, or "" when the container waits.
func currentID(status corev1.ContainerStatus) string {
	switch {
	case status.State.Running != nil:
		return status.ContainerID
	case status.State.Terminated != nil:
		return status.State.Terminated.ContainerID
	}
	return ""
}

// notStarted says why a container has no current instance.
func notStarted(status corev1.ContainerStatus) string {
	if waiting := status.State.Waiting; waiting != nil && waiting.Reason != "" {
		return "it has not started: " + quote(waiting.Reason)
	}
	return "it has not started"
}

// identify returns what the instance of the container is now.
func identify(pod *corev1.Pod, log *podLog) (containerID, imageID string) {
	for _, now := range instances(pod) {
		if now.Container == log.Container && now.Instance == log.Instance {
			return now.ContainerID, now.ImageID
		}
	}
	return "", ""
}
