package measure

import (
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// EvictionAnnotations are the annotations that make tools which move pods leave one alone, with the values that they honour:
//   - the Cluster Autoscaler does not remove the node of a pod that is not "safe-to-evict" (its FAQ, "What types of pods can prevent CA from removing a node?");
//   - Karpenter does not disrupt the node of a pod with "do-not-disrupt" (https://karpenter.sh/docs/concepts/disruption/#pod-level-controls);
//   - the Descheduler evicts a pod with "prefer-no-eviction" last, or never, as it is configured; it looks at the key only.
//
// They are requests. What refuses an eviction is the Incident's PodDisruptionBudget, and admission.
func EvictionAnnotations() map[string]string {
	return map[string]string{
		"cluster-autoscaler.kubernetes.io/safe-to-evict":     "false",
		"karpenter.sh/do-not-disrupt":                        "true",
		"descheduler.alpha.kubernetes.io/prefer-no-eviction": "true",
	}
}

// replacedAnnotations returns what quarantine replaced of the pod's annotations, or nil if it replaced nothing.
func replacedAnnotations(pod *corev1.Pod) (map[string]string, error) {
	raw, ok := pod.Annotations[v1alpha1.OriginalAnnotationsAnnotation]
	if !ok {
		return nil, nil
	}
	var replaced map[string]string
	if err := json.Unmarshal([]byte(raw), &replaced); err != nil {
		return nil, fmt.Errorf("annotation %s of Pod %s/%s cannot be read: %w", v1alpha1.OriginalAnnotationsAnnotation, pod.Namespace, pod.Name, err)
	}
	if replaced == nil {
		replaced = map[string]string{}
	}
	return replaced, nil
}

// keepFromEviction puts the eviction annotations among the pod's annotations. What they replace is recorded, unless there is a record. On a pod that was held before, and has lost the
// record, a value like ours was put there by quarantine.
func keepFromEviction(pod *corev1.Pod, annotations map[string]string, heldBefore bool) error {
	wanted := EvictionAnnotations()
	if _, recorded := annotations[v1alpha1.OriginalAnnotationsAnnotation]; !recorded {
		replaced := map[string]string{}
		for key, ours := range wanted {
			if value, found := annotations[key]; found && (value != ours || !heldBefore) {
				replaced[key] = value
			}
		}
		raw, err := json.Marshal(replaced)
		if err != nil {
			return fmt.Errorf("recording the annotations of Pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		annotations[v1alpha1.OriginalAnnotationsAnnotation] = string(raw)
	}
	maps.Copy(annotations, wanted)
	return nil
}

// restoreAnnotations gives the annotations back what quarantine replaced. Without a record quarantine replaced nothing.
func restoreAnnotations(annotations, replaced map[string]string) {
	if replaced == nil {
		return
	}
	for key := range EvictionAnnotations() {
		delete(annotations, key)
		if value, had := replaced[key]; had {
			annotations[key] = value
		}
	}
	delete(annotations, v1alpha1.OriginalAnnotationsAnnotation)
}
