package measure

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// maxNamed is how many labels are named one by one to people.
const maxNamed = 3

// Drift says what others changed about the quarantine of a pod that the Incident holds: a short phrase for each, in a fixed order; none if nothing was changed. detached says that the
// Incident detached the pod, as its status recorded. A phrase can be long where labels are, so callers that store it shorten it.
func Drift(pod *corev1.Pod, incidentUID types.UID, detached bool) []string {
	var out []string
	if !Holds(pod, incidentUID) {
		out = append(out, "its quarantine label was taken off")
	}
	if own := withoutQuarantine(pod.Labels); detached && len(own) > 0 {
		out = append(out, "it was given ordinary labels ("+named(slices.Sorted(maps.Keys(own)))+")")
	}
	wanted := EvictionAnnotations()
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		switch value, found := pod.Annotations[key]; {
		case !found:
			out = append(out, fmt.Sprintf("its annotation %s was removed", key))
		case value != wanted[key]:
			out = append(out, fmt.Sprintf("its annotation %s was changed", key))
		}
	}
	replaced, err := replacedAnnotations(pod)
	out = append(out, recordDrift(v1alpha1.OriginalAnnotationsAnnotation, replaced == nil, err)...)
	if detached {
		original, err := OriginalOf(pod)
		out = append(out, recordDrift(v1alpha1.OriginalAnnotation, original == nil, err)...)
	}
	return out
}

// recordDrift says what is wrong with an annotation that keeps originals.
func recordDrift(key string, missing bool, err error) []string {
	switch {
	case err != nil:
		return []string{fmt.Sprintf("its annotation %s was changed and cannot be read any more", key)}
	case missing:
		return []string{fmt.Sprintf("its annotation %s was removed", key)}
	}
	return nil
}

func named(keys []string) string {
	if more := len(keys) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(keys[:maxNamed], ", "), more)
	}
	return strings.Join(keys, ", ")
}

// Repaired returns the labels and annotations that a pod of which status says that the Incident holds it should have: the Incident's label is on, of a detached pod all ordinary labels are off,
// and the annotations are back. Unlike [Quarantined] it believes what the pod's annotations say of the time before, even if every quarantine label was taken off.
//
// Where a detached pod has lost the annotation with its original labels, or it cannot be read, recovered takes its place: what the evidence tells of the pod, nil if it tells nothing. lost
// says that the originals are not known; the labels then have to be put back by hand at the release, and [Drift] goes on naming the annotation.
func Repaired(pod *corev1.Pod, incidentUID types.UID, detached bool, recovered *Original) (labels, annotations map[string]string, lost bool, err error) {
	annotations = copyOf(pod.Annotations)
	original, _ := OriginalOf(pod) // what cannot be read is as good as lost
	switch {
	case !detached || original != nil:
	case recovered == nil:
		lost = true
	default:
		// The evidence may be from when another Incident held the pod; its label comes and goes with that Incident.
		was := Original{Labels: withoutQuarantine(recovered.Labels), Owner: recovered.Owner}
		if err := recordOriginal(pod, annotations, was); err != nil {
			return nil, nil, false, err
		}
	}
	if _, unreadable := replacedAnnotations(pod); unreadable != nil {
		delete(annotations, v1alpha1.OriginalAnnotationsAnnotation)
	}
	if err := keepFromEviction(pod, annotations, true); err != nil {
		return nil, nil, false, err
	}
	return heldLabels(pod, incidentUID, detached), annotations, lost, nil
}
