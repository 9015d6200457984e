package measure

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=configmaps,verbs=get;create;update;delete

// RefusedKey is the key of the list in the ConfigMap; config/guard reads it.
const RefusedKey = "refused"

// RefusalsName is the name of the ConfigMap, in the operator's namespace, that lists the Incident's refused revisions.
func RefusalsName(inc *v1alpha1.Incident) string {
	return "refusals-" + string(inc.UID)
}

// Refusals is the ConfigMap from which admission reads what may not start: one line for each revision, "namespace/owner UID" or
// "namespace/owner UID/revision hash". New Jobs of a CronJob are always refused, because a CronJob has no revisions that a policy could select.
// It returns nil when nothing is refused.
func Refusals(inc *v1alpha1.Incident, operatorNamespace string, revisions []v1alpha1.RevisionStatus, replacements v1alpha1.ReplacementHandling) *corev1.ConfigMap {
	var lines []string
	for _, r := range revisions {
		if r.State != v1alpha1.RevisionHeld {
			continue
		}
		if replacements == v1alpha1.ReplacementRefuse || r.Selector == nil {
			lines = append(lines, r.Workload.Namespace+"/"+r.ID)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	labels := OwnedLabels(inc)
	labels[v1alpha1.RefusalsLabel] = "true"
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   operatorNamespace,
			Name:        RefusalsName(inc),
			Labels:      labels,
			Annotations: OwnedAnnotations(inc),
		},
		Data: map[string]string{RefusedKey: strings.Join(lines, "\n") + "\n"},
	}
}
