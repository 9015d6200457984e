package sim

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations of a pod that change how it is simulated.
const (
	// CompleteAfterAnnotation ends a pod that is not restarted, after a duration.
	CompleteAfterAnnotation = "sim.cofferdam.dev/complete-after"
	// ExitCodeAnnotation is the exit code of a pod that ends; other than 0 the
	// pod fails.
	ExitCodeAnnotation = "sim.cofferdam.dev/exit-code"
	// NeverReadyAnnotation set to "true" keeps a pod running but not ready.
	NeverReadyAnnotation = "sim.cofferdam.dev/never-ready"
	// TerminateAfterAnnotation is how long a deleted pod takes to end.
	TerminateAfterAnnotation = "sim.cofferdam.dev/terminate-after"
)

// observation is what a kubelet knows about a pod besides the pod itself.
type observation struct {
	now          metav1.Time
	hostIP       string
	podIP        string
	finished     bool  // every container has ended by itself
	exitCode     int32 // with this code
	beingDeleted bool  // every container was told to end, and did
}

// sigtermExitCode is what the shell reports for a program ended by SIGTERM.
const sigtermExitCode = 128 + 15

// podStatus returns the status that a kubelet reports for a pod on its node.
// It keeps what it finds and only moves it forward, so that computing it again
// for the result changes nothing.
func podStatus(pod *corev1.Pod, o observation) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	if status.StartTime == nil {
		status.StartTime = &o.now
	}
	status.HostIP, status.HostIPs = o.hostIP, []corev1.HostIP{{IP: o.hostIP}}
	status.PodIP, status.PodIPs = o.podIP, []corev1.PodIP{{IP: o.podIP}}

	r := reporter{pod: pod, o: o}
	status.InitContainerStatuses, r.initialized = r.initContainers()
	status.ContainerStatuses = r.containers()
	status.EphemeralContainerStatuses = r.ephemeralContainers()
	status.Phase = r.phase(status)
	r.setConditions(&status)
	return status
}

// reporter computes the parts of one pod's status.
type reporter struct {
	pod         *corev1.Pod
	o           observation
	initialized bool // all init containers have done their part
}

// ended reports whether no container runs any more.
func (r *reporter) ended() bool {
	return r.o.finished || r.o.beingDeleted
}

// initContainers run one after the other: the first one that cannot start
// keeps those behind it waiting.
func (r *reporter) initContainers() (statuses []corev1.ContainerStatus, done bool) {
	done = true
	for _, container := range r.pod.Spec.InitContainers {
		previous := find(r.pod.Status.InitContainerStatuses, container.Name)
		sidecar := container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways
		var status corev1.ContainerStatus
		switch {
		case r.o.beingDeleted:
			status = interrupted(container, previous, r.o.now)
		case !done:
			status = waiting(container, previous, "PodInitializing", "")
		case sidecar:
			status = r.main(container, previous)
		case previous.State.Terminated != nil:
			status = previous
		case !pullable(container.Image):
			status = r.unpullable(container, previous)
		default:
			status = terminated(r.running(container, previous), r.o.now, 0)
			status.Ready = true // an init container that succeeded counts as ready
		}
		statuses = append(statuses, status)
		done = done && (status.State.Running != nil || status.State.Terminated != nil)
	}
	return statuses, done
}

func (r *reporter) containers() []corev1.ContainerStatus {
	var statuses []corev1.ContainerStatus
	for _, container := range r.pod.Spec.Containers {
		previous := find(r.pod.Status.ContainerStatuses, container.Name)
		if !r.initialized {
			statuses = append(statuses, waiting(container, previous, "PodInitializing", ""))
			continue
		}
		statuses = append(statuses, r.main(container, previous))
	}
	return statuses
}

func (r *reporter) ephemeralContainers() []corev1.ContainerStatus {
	var statuses []corev1.ContainerStatus
	for _, ephemeral := range r.pod.Spec.EphemeralContainers {
		container := corev1.Container(ephemeral.EphemeralContainerCommon)
		status := r.main(container, find(r.pod.Status.EphemeralContainerStatuses, container.Name))
		status.Ready, status.Started = false, nil // probes do not apply to them
		statuses = append(statuses, status)
	}
	return statuses
}

// main reports a container that is meant to run until the pod ends.
func (r *reporter) main(container corev1.Container, previous corev1.ContainerStatus) corev1.ContainerStatus {
	switch {
	case previous.State.Terminated != nil:
		return previous // a pod that has ended is not run again
	case r.o.beingDeleted:
		return interrupted(container, previous, r.o.now)
	case r.o.finished:
		return terminated(r.running(container, previous), r.o.now, r.o.exitCode)
	case !pullable(container.Image):
		return r.unpullable(container, previous)
	default:
		return r.running(container, previous)
	}
}

// running starts the container, or restarts it when its image was changed in
// place.
func (r *reporter) running(container corev1.Container, previous corev1.ContainerStatus) corev1.ContainerStatus {
	ready := r.pod.Annotations[NeverReadyAnnotation] != "true"
	if previous.State.Running != nil && previous.Image == container.Image {
		previous.Ready, previous.Started = ready, new(true)
		return previous
	}
	last := stopped(previous, r.o.now)
	restarts := previous.RestartCount
	if last.Terminated != nil {
		restarts++
	}
	return corev1.ContainerStatus{
		Name:                 container.Name,
		State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: r.o.now}},
		LastTerminationState: last,
		Ready:                ready,
		Started:              new(true),
		RestartCount:         restarts,
		Image:                container.Image,
		ImageID:              ImageID(container.Image),
		ContainerID:          containerID(string(r.pod.UID), container.Name, restarts),
	}
}

func (r *reporter) unpullable(container corev1.Container, previous corev1.ContainerStatus) corev1.ContainerStatus {
	previous.LastTerminationState = stopped(previous, r.o.now)
	return waiting(container, previous, "ImagePullBackOff", "Back-off pulling image \""+container.Image+"\"")
}

// waiting reports a container that does not run, keeping what is known about
// its earlier runs.
func waiting(container corev1.Container, previous corev1.ContainerStatus, reason, message string) corev1.ContainerStatus {
	previous.Name = container.Name
	previous.Image = container.Image
	previous.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	previous.Ready, previous.Started = false, new(false)
	return previous
}

// terminated ends a container; one that never ran stays as it is.
func terminated(status corev1.ContainerStatus, now metav1.Time, exitCode int32) corev1.ContainerStatus {
	if status.State.Running == nil {
		return status
	}
	reason := "Completed"
	if exitCode != 0 {
		reason = "Error"
	}
	status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: exitCode, Reason: reason,
		StartedAt: status.State.Running.StartedAt, FinishedAt: now,
		ContainerID: status.ContainerID,
	}}
	status.Ready, status.Started = false, new(false)
	return status
}

// interrupted ends a container that was told to; one that never ran keeps waiting.
func interrupted(container corev1.Container, previous corev1.ContainerStatus, now metav1.Time) corev1.ContainerStatus {
	if previous.State == (corev1.ContainerState{}) {
		return waiting(container, previous, "ContainerCreating", "")
	}
	return terminated(previous, now, sigtermExitCode)
}

// stopped returns how the latest run of a container ended, which is now if it
// is still running.
func stopped(previous corev1.ContainerStatus, now metav1.Time) corev1.ContainerState {
	if previous.State.Running == nil {
		return previous.LastTerminationState
	}
	return terminated(previous, now, sigtermExitCode).State
}

// phase follows the kubelet: a pod is Pending until every container has run
// once, and stays Running while containers are restarted.
func (r *reporter) phase(status corev1.PodStatus) corev1.PodPhase {
	switch {
	case r.o.beingDeleted, r.o.finished && r.o.exitCode != 0:
		return corev1.PodFailed
	case r.o.finished:
		return corev1.PodSucceeded
	case !r.initialized:
		return corev1.PodPending
	}
	for _, container := range status.ContainerStatuses {
		if container.State.Running == nil && container.LastTerminationState.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

func (r *reporter) setConditions(status *corev1.PodStatus) {
	set := func(kind corev1.PodConditionType, why string, message string) {
		setCondition(status, corev1.PodCondition{
			Type: kind, Status: boolStatus(why == ""), Reason: why, Message: message,
			ObservedGeneration: r.pod.Generation, LastTransitionTime: r.o.now,
		})
	}
	set(corev1.PodScheduled, "", "")
	set(corev1.PodReadyToStartContainers, unless(!r.ended(), "PodCompleted"), "")
	set(corev1.PodInitialized, unless(r.initialized, "ContainersNotInitialized"), "")

	unready := unreadyContainers(*status)
	reason, message := "", ""
	switch {
	case r.ended():
		reason = "PodCompleted"
	case len(unready) > 0:
		reason = "ContainersNotReady"
		message = "containers with unready status: [" + strings.Join(unready, " ") + "]"
	}
	set(corev1.ContainersReady, reason, message)
	if reason == "" && !r.gatesOpen(*status) {
		reason, message = "ReadinessGatesNotReady", "a readiness gate is not met"
	}
	set(corev1.PodReady, reason, message)
}

// gatesOpen reports whether others have met the pod's own readiness gates.
func (r *reporter) gatesOpen(status corev1.PodStatus) bool {
	for _, gate := range r.pod.Spec.ReadinessGates {
		open := slices.ContainsFunc(status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		})
		if !open {
			return false
		}
	}
	return true
}

func unreadyContainers(status corev1.PodStatus) []string {
	var names []string
	for _, container := range status.ContainerStatuses {
		if !container.Ready {
			names = append(names, container.Name)
		}
	}
	return names
}

// setCondition replaces the condition of that type. The transition time only
// changes with the status, and conditions of others stay untouched.
func setCondition(status *corev1.PodStatus, condition corev1.PodCondition) {
	for i, existing := range status.Conditions {
		if existing.Type != condition.Type {
			continue
		}
		if existing.Status == condition.Status {
			condition.LastTransitionTime = existing.LastTransitionTime
			condition.LastProbeTime = existing.LastProbeTime
		}
		status.Conditions[i] = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}

func boolStatus(ok bool) corev1.ConditionStatus {
	if ok {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// unless returns the reason when the condition does not hold.
func unless(holds bool, reason string) string {
	if holds {
		return ""
	}
	return reason
}

func find(statuses []corev1.ContainerStatus, name string) corev1.ContainerStatus {
	for _, status := range statuses {
		if status.Name == name {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

// durationAnnotation reads a duration; ok is false when there is none or it
// cannot be parsed.
func durationAnnotation(pod *corev1.Pod, name string) (duration time.Duration, ok bool) {
	value, found := pod.Annotations[name]
	if !found {
		return 0, false
	}
	duration, err := time.ParseDuration(value)
	return duration, err == nil
}
