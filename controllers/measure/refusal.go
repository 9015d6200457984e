package measure

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=configmaps,verbs=get;create;update;delete

// Keys of the lists in the ConfigMap; config/guard reads them.
const (
	// RefusedKey lists the revisions that may not start.
	RefusedKey = "refused"
	// DigestsKey lists the digests of images that may not start, DigestNamespacesKey the namespaces in which they may not.
	DigestsKey          = "digests"
	DigestNamespacesKey = "digest-namespaces"
)

// RefusalsName is the name of the ConfigMap, in the operator's namespace, that lists the Incident's refused revisions.
func RefusalsName(inc *v1alpha1.Incident) string {
	return "refusals-" + string(inc.UID)
}

// Refusals is the ConfigMap from which admission reads what may not start: one line for each revision, "namespace/owner UID" or
// "namespace/owner UID/revision hash". New Jobs of a CronJob are always refused, because a CronJob has no revisions that a policy could select.
// In the namespaces of digestsIn, if there are any, the Incident's compromised digests are refused as well. It returns nil when nothing is refused.
func Refusals(
	inc *v1alpha1.Incident, operatorNamespace string, revisions []v1alpha1.RevisionStatus, replacements v1alpha1.ReplacementHandling, digestsIn []string,
) *corev1.ConfigMap {
	var lines []string
	for _, r := range revisions {
		if r.State != v1alpha1.RevisionHeld {
			continue
		}
		if replacements == v1alpha1.ReplacementRefuse || r.Selector == nil {
			lines = append(lines, r.Workload.Namespace+"/"+r.ID)
		}
	}
	data := map[string]string{}
	if len(lines) > 0 {
		data[RefusedKey] = list(lines)
	}
	if len(digestsIn) > 0 && len(inc.Spec.CompromisedDigests) > 0 {
		data[DigestsKey], data[DigestNamespacesKey] = list(inc.Spec.CompromisedDigests), list(digestsIn)
	}
	if len(data) == 0 {
		return nil
	}
	labels := OwnedLabels(inc)
	labels[v1alpha1.RefusalsLabel] = "true"
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   operatorNamespace,
			Name:        RefusalsName(inc),
			Labels:      labels,
			Annotations: OwnedAnnotations(inc),
		},
		Data: data,
	}
}

// list is how admission reads entries: sorted, each once, one a line.
func list(entries []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(entries))), "\n") + "\n"
}
