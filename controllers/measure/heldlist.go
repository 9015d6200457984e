package measure

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Keys of the lists in the ConfigMap that HeldList makes; the policies in config/guard read them.
const (
	// HeldNamespacesKey lists the namespaces in which something is held.
	HeldNamespacesKey = "namespaces"
	// HeldPodsKey lists the pods that nobody enters, as namespace/name.
	HeldPodsKey = "pods"
	// KeptPodsKey lists those of them that nobody deletes or evicts.
	KeptPodsKey = "kept"
	// HeldClaimsKey lists the PersistentVolumeClaims that nobody deletes, as namespace/name.
	HeldClaimsKey = "claims"
	// HeldLabelsKey lists the sets of labels that held pods have: "namespace ,key=value,key=value," or, if there are too many of them, "namespace *".
	HeldLabelsKey = "labels"
)

// Bounds on the label sets of one namespace. They keep the list far below the 1 MiB that a ConfigMap may hold and the work of admission small, whatever labels an attacker's workload
// gives its pods.
const (
	maxLabelSets      = 64
	maxLabelSetsBytes = 16 << 10
)

// HeldPod is a pod that the Incident holds or is about to hold.
type HeldPod struct {
	// Pod is the pod; only its name and namespace are looked at.
	Pod *corev1.Pod
	// Labels are the labels that it has once it is held.
	Labels map[string]string
	// Kept says that nobody may delete or evict the pod.
	Kept bool
}

// HeldListName is the name of the ConfigMap, in the operator's namespace, that lists what the Incident holds.
func HeldListName(inc *v1alpha1.Incident) string {
	return "held-" + string(inc.UID)
}

// HeldList is the ConfigMap from which admission reads what the Incident holds: one list under each key, sorted, one entry a line. It returns nil when nothing is held.
func HeldList(inc *v1alpha1.Incident, operatorNamespace string, held []HeldPod, claims []types.NamespacedName) *corev1.ConfigMap {
	if len(held) == 0 && len(claims) == 0 {
		return nil
	}
	lines := map[string][]string{HeldLabelsKey: labelLines(held)}
	add := func(key, line string) { lines[key] = append(lines[key], line) }
	for _, h := range held {
		name := h.Pod.Namespace + "/" + h.Pod.Name
		add(HeldNamespacesKey, h.Pod.Namespace)
		add(HeldPodsKey, name)
		if h.Kept {
			add(KeptPodsKey, name)
		}
	}
	for _, c := range claims {
		// The end of a namespace would take its claims along.
		add(HeldNamespacesKey, c.Namespace)
		add(HeldClaimsKey, c.Namespace+"/"+c.Name)
	}
	data := map[string]string{}
	for key, list := range lines {
		slices.Sort(list)
		if list = slices.Compact(list); len(list) > 0 {
			data[key] = strings.Join(list, "\n") + "\n"
		}
	}
	labels := OwnedLabels(inc)
	labels[v1alpha1.HeldLabel] = "true"
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: HeldListName(inc), Labels: labels, Annotations: OwnedAnnotations(inc)},
		Data:       data,
	}
}

// labelLines are the distinct label sets of each namespace, or the line that stands for every set where there are too many.
func labelLines(held []HeldPod) []string {
	sets := map[string]map[string]bool{}
	for _, h := range held {
		if sets[h.Pod.Namespace] == nil {
			sets[h.Pod.Namespace] = map[string]bool{}
		}
		sets[h.Pod.Namespace][labelLine(h.Pod.Namespace, h.Labels)] = true
	}
	var out []string
	for namespace, lines := range sets {
		size := 0
		for line := range lines {
			size += len(line)
		}
		if len(lines) > maxLabelSets || size > maxLabelSetsBytes {
			out = append(out, namespace+" *")
			continue
		}
		out = slices.AppendSeq(out, maps.Keys(lines))
	}
	return out
}

func labelLine(namespace string, labels map[string]string) string {
	var b strings.Builder
	b.WriteString(namespace + " ,")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(key + "=" + labels[key] + ",")
	}
	return b.String()
}
