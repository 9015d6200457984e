// Package remedy decides what is done about leaks: whether a pod can be detached, how quarantined pods are taken out of somebody else's policy, what denies ahead of it, and what a person would
// have to edit. Everything here is a pure function of what was observed; the Incident reconciler does the reading and writing.
package remedy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// maxText bounds the length of texts made from what anybody may write, in characters.
const maxText = 256

// Adopter is a controller that takes up every pod without a controller that its selector matches, and may then delete it.
type Adopter struct {
	Kind, Namespace, Name, UID string
	// Selector is that of the controller. One that is nil is not known, and may match every pod.
	Selector labels.Selector
}

// Decision says how a pod is quarantined.
type Decision struct {
	// Detach says that the pod's own labels are taken off.
	Detach bool
	// Why says, if they are not, why it would make things worse; empty if nobody wants it. At most 256 characters.
	Why string
}

// Handling decides whether the Incident detaches the pod, which must not be detached yet. It does as it is told by want, except that it keeps a pod attached if a controller would take it up
// with the labels that are left, or if policies would allow something to the detached pod that they do not allow to the attached one: containing a pod never opens anything.
//
// set are the policies as they will be, the Incident's deny policies included. adopters are the controllers of the pod's namespace, the pod's own among them.
func Handling(
	pod *corev1.Pod, incidentUID types.UID, set *isolation.Set, exceptions []isolation.Exception, adopters []Adopter, want v1alpha1.PodHandling,
) Decision {
	if want != v1alpha1.PodHandlingDetach {
		return Decision{}
	}
	detached, err := quarantined(pod, incidentUID, true)
	if err != nil {
		return Decision{Why: clip(err.Error())}
	}
	attached, err := quarantined(pod, incidentUID, false)
	if err != nil {
		return Decision{Why: clip(err.Error())}
	}
	for _, a := range adopters {
		if a.Namespace == pod.Namespace && (a.Selector == nil || a.Selector.Matches(labels.Set(detached.Labels))) {
			return Decision{Why: clip(fmt.Sprintf("%s %s/%s selects it without its labels too: it would keep it or take it up, and could delete it", a.Kind, a.Namespace, a.Name))}
		}
	}
	if why := opened(attached, detached, set, exceptions); why != "" {
		return Decision{Why: clip(why)}
	}
	return Decision{Detach: true}
}

func quarantined(pod *corev1.Pod, incidentUID types.UID, detach bool) (*corev1.Pod, error) {
	out := pod.DeepCopy()
	var err error
	out.Labels, out.Annotations, err = measure.Quarantined(pod, incidentUID, detach)
	return out, err
}

// cause is what allows something in a direction; no policy at all is a cause too.
type cause struct {
	direction isolation.Direction
	source    isolation.Ref
}

// opened says what the loss of its labels would open to the pod; empty if nothing.
func opened(attached, detached *corev1.Pod, set *isolation.Set, exceptions []isolation.Exception) string {
	causes, known := map[cause]bool{}, map[isolation.Leak]bool{}
	for _, l := range isolation.Evaluate(attached, set, exceptions, nil) {
		causes[cause{l.Direction, l.Source}], known[l] = true, true
	}
	leaks := isolation.Evaluate(detached, set, exceptions, nil)
	for _, l := range leaks {
		switch {
		case causes[cause{l.Direction, l.Source}]:
		case l.Source.Name == "":
			return "no policy restricts it once its labels are off: " + l.Flows()
		default:
			return fmt.Sprintf("%s allows something to it only once its labels are off: %s", l.Source, l.Flows())
		}
	}
	// The same policies can allow more, where one that denies selects the pod by its labels.
	for _, d := range isolation.Directions() {
		in := slices.DeleteFunc(slices.Clone(leaks), func(l isolation.Leak) bool { return l.Direction != d })
		if len(in) > 0 && isolation.Reachable(detached, set, d).Exceeds(isolation.Reachable(attached, set, d)) {
			i := max(0, slices.IndexFunc(in, func(l isolation.Leak) bool { return !known[l] }))
			return "policies allow more to it once its labels are off: " + in[i].Flows()
		}
	}
	return ""
}

// clip shortens a text that is made from what anybody may write.
func clip(text string) string {
	runes := []rune(text)
	if len(runes) <= maxText {
		return text
	}
	return string(runes[:maxText-1]) + "…"
}
