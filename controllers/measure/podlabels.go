// Package measure holds the containment measures: what is written to cut a pod off, and how it is undone. Everything here is a pure function of
// what was observed; the Incident reconciler does the writing.
package measure

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Original is what quarantine took from a pod, kept in an annotation of the pod.
type Original struct {
	// Labels are the labels before the first quarantine that detached the pod.
	Labels map[string]string `json:"labels"`
	// Owner is the controller that the pod had then.
	Owner *metav1.OwnerReference `json:"owner,omitempty"`
}

// OriginalOf returns what quarantine took from the pod, or nil when it took nothing. A pod whose annotation cannot be read is an error:
// the labels must then be restored by hand from the evidence.
func OriginalOf(pod *corev1.Pod) (*Original, error) {
	raw, ok := pod.Annotations[v1alpha1.OriginalAnnotation]
	if !ok {
		return nil, nil
	}
	var o Original
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		return nil, fmt.Errorf("annotation %s of Pod %s/%s cannot be read: %w", v1alpha1.OriginalAnnotation, pod.Namespace, pod.Name, err)
	}
	return &o, nil
}

// QuarantineLabel is the label key with which an Incident holds pods.
func QuarantineLabel(incidentUID types.UID) string {
	return v1alpha1.QuarantineLabelPrefix + string(incidentUID)
}

// Holds reports whether the Incident holds the pod.
func Holds(pod *corev1.Pod, incidentUID types.UID) bool {
	return pod.Labels[QuarantineLabel(incidentUID)] == v1alpha1.QuarantineLabelValue
}

// HeldByOthers returns the UIDs of other Incidents that hold the pod.
func HeldByOthers(pod *corev1.Pod, incidentUID types.UID) []string {
	var out []string
	for k := range pod.Labels {
		if uid, ok := strings.CutPrefix(k, v1alpha1.QuarantineLabelPrefix); ok && uid != string(incidentUID) {
			out = append(out, uid)
		}
	}
	return out
}

// Quarantined returns the labels and annotations that the pod has once the Incident holds it. With detach, only quarantine labels remain and
// the originals are kept in an annotation; what an earlier Incident kept there stays. Either way the pod gets the [EvictionAnnotations], and what they
// replace is kept in another annotation.
//
// For a pod that is known to have been held, and has lost its label, see [Repaired].
func Quarantined(pod *corev1.Pod, incidentUID types.UID, detach bool) (labels, annotations map[string]string, err error) {
	annotations = copyOf(pod.Annotations)
	own := withoutQuarantine(pod.Labels)
	held := len(own) < len(pod.Labels)
	if !held && len(own) > 0 {
		// Nobody holds the pod, so that the annotations are not ours: whoever writes pod templates could have put them there.
		delete(annotations, v1alpha1.OriginalAnnotation)
		delete(annotations, v1alpha1.OriginalAnnotationsAnnotation)
	}
	if _, kept := annotations[v1alpha1.OriginalAnnotation]; !kept && detach {
		if err := recordOriginal(pod, annotations, Original{Labels: own, Owner: metav1.GetControllerOf(pod)}); err != nil {
			return nil, nil, err
		}
	}
	if err := keepFromEviction(pod, annotations, held); err != nil {
		return nil, nil, err
	}
	return heldLabels(pod, incidentUID, detach), annotations, nil
}

// heldLabels are the labels of a pod that the Incident holds.
func heldLabels(pod *corev1.Pod, incidentUID types.UID, detached bool) map[string]string {
	labels := map[string]string{}
	for k, v := range pod.Labels {
		if !detached || strings.HasPrefix(k, v1alpha1.QuarantineLabelPrefix) {
			labels[k] = v
		}
	}
	labels[QuarantineLabel(incidentUID)] = v1alpha1.QuarantineLabelValue
	return labels
}

func recordOriginal(pod *corev1.Pod, annotations map[string]string, o Original) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("recording the labels of Pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	annotations[v1alpha1.OriginalAnnotation] = string(raw)
	return nil
}

func copyOf(in map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, in)
	return out
}

// Released returns the labels and annotations that the pod has once the Incident lets go of it. The originals come back only when no other
// Incident holds the pod.
func Released(pod *corev1.Pod, incidentUID types.UID) (labels, annotations map[string]string, err error) {
	labels = maps.Clone(pod.Labels)
	delete(labels, QuarantineLabel(incidentUID))
	annotations = maps.Clone(pod.Annotations)
	original, err := OriginalOf(pod)
	if err != nil {
		return nil, nil, err
	}
	replaced, err := replacedAnnotations(pod)
	if err != nil {
		return nil, nil, err
	}
	if len(HeldByOthers(pod, incidentUID)) > 0 {
		return labels, annotations, nil
	}
	restoreAnnotations(annotations, replaced)
	if original == nil {
		return labels, annotations, nil
	}
	// Labels that somebody added during quarantine are dropped: the pod gets back exactly what it had.
	labels = maps.Clone(original.Labels)
	delete(annotations, v1alpha1.OriginalAnnotation)
	return labels, annotations, nil
}

func withoutQuarantine(labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if !strings.HasPrefix(k, v1alpha1.QuarantineLabelPrefix) {
			out[k] = v
		}
	}
	return out
}

type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// MetadataPatch is a JSON patch (RFC 6902) that replaces the labels and annotations of exactly this version of exactly this object: it
// fails when the object was replaced by a namesake or changed since it was read.
func MetadataPatch(pod *corev1.Pod, labels, annotations map[string]string) ([]byte, error) {
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	return json.Marshal([]patchOp{
		{Op: "test", Path: "/metadata/uid", Value: string(pod.UID)},
		{Op: "test", Path: "/metadata/resourceVersion", Value: pod.ResourceVersion},
		{Op: "add", Path: "/metadata/labels", Value: labels},
		{Op: "add", Path: "/metadata/annotations", Value: annotations},
	})
}
