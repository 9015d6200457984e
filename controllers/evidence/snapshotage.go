package evidence

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// replaced says why the claim is not the one that the pods of the item began to run on, or "". A claim that was torn away under a running pod, its finalizer taken off, is made again by its StatefulSet
// under the same name, with an empty volume; the pod goes on with the old one.
func (s *Snapshots) replaced(item v1alpha1.EvidenceItem, claim *corev1.PersistentVolumeClaim) string {
	if s.Pod == nil {
		return ""
	}
	for _, uid := range item.Pods {
		pod := s.Pod(uid)
		if pod == nil {
			continue // what cannot be compared is not doubted
		}
		if why := replacedUnder(claim, pod); why != "" {
			return shorten(why, maxMessage)
		}
	}
	return ""
}

// replacedUnder says why the claim is not the one that the pod began to run on, or "".
func replacedUnder(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) string {
	what, used := firstUse(claim, pod)
	if used.IsZero() || !claim.CreationTimestamp.After(used.Time) {
		return ""
	}
	return fmt.Sprintf("PersistentVolumeClaim %s/%s was created at %s, after the %s of Pod %s/%s at %s: its volume is not the volume that the pod ran on; "+
		"look for that one among the released PersistentVolumes and in the storage system",
		claim.Namespace, claim.Name, stampOf(claim.CreationTimestamp), what, pod.Namespace, pod.Name, stampOf(used))
}

func stampOf(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }

// firstUse is the earliest moment that is known by which the pod's claim existed. That a pod was created says little: a claim may be created after the pod that waits for it. But a StatefulSet creates
// the claims of a pod before the pod, the scheduler places no pod whose claim does not exist, and no container starts before its volumes are mounted.
func firstUse(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) (what string, when metav1.Time) {
	earlier := func(name string, at metav1.Time) {
		if !at.IsZero() && (when.IsZero() || at.Before(&when)) {
			what, when = name, at
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			earlier("scheduling", c.LastTransitionTime)
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		for _, at := range startsOf(c) {
			earlier("start of its containers", at)
		}
	}
	// A pod that is on a node and says nothing is taken to run.
	silent := when.IsZero() && pod.Spec.NodeName != "" && !metav1.IsControlledBy(claim, pod)
	if silent || madeByStatefulSet(claim, pod) {
		earlier("creation", pod.CreationTimestamp)
	}
	return what, when
}

// startsOf are the starts of a container that its status still tells of.
func startsOf(c corev1.ContainerStatus) []metav1.Time {
	var out []metav1.Time
	for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
		if state.Running != nil {
			out = append(out, state.Running.StartedAt)
		}
		if state.Terminated != nil {
			out = append(out, state.Terminated.StartedAt)
		}
	}
	return out
}

// madeByStatefulSet reports whether the claim is made from a template of the StatefulSet that the pod is, or was before it was detached, a replica of.
func madeByStatefulSet(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) bool {
	return strings.HasSuffix(claim.Name, "-"+pod.Name) &&
		slices.ContainsFunc(podOwners([]*corev1.Pod{pod}), func(o metav1.OwnerReference) bool { return o.Kind == "StatefulSet" })
}

// preserved is the item when its snapshot is: whole, or, when something is known against it, in part.
func preserved(item v1alpha1.EvidenceItem, message string) v1alpha1.EvidenceItem {
	if len(item.Earlier) > 0 {
		message = strings.TrimPrefix(message+"; its snapshot was deleted by somebody else while it was taken, and was taken again: what was taken first is retained in "+earlierContents(item), "; ")
	}
	item.State, item.Message = v1alpha1.EvidenceCollected, shorten(message, maxMessage)
	if item.Caveat != "" {
		item.State = v1alpha1.EvidencePartial
		item.Message = shorten(strings.TrimSuffix(item.Caveat+"; "+message, "; "), maxMessage)
	}
	return item
}

// isPreserved reports whether the item's snapshot is kept, whole or in part.
func isPreserved(item v1alpha1.EvidenceItem) bool {
	return item.State == v1alpha1.EvidenceCollected || item.State == v1alpha1.EvidencePartial
}
