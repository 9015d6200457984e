package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/route"
)

// quarantine says who holds the pod; nil if nobody does and nothing was taken from it.
func (q *question) quarantine() *Quarantine {
	before := q.before()
	if before == nil {
		return nil
	}
	out := &Quarantine{LabelsBefore: before.Labels}
	original, err := measure.OriginalOf(q.pod)
	if err == nil && original != nil {
		out.Detached = true
		if original.Owner != nil {
			out.OwnerBefore = original.Owner.Kind + " " + original.Owner.Name
		}
	}
	for _, uid := range q.holders {
		out.Incidents = append(out.Incidents, q.holder(uid))
	}
	return out
}

func (q *question) holder(uid string) HoldingIncident {
	inc := q.incident(uid)
	if inc == nil {
		problem := "there is no such Incident, so that no exception is declared in its name"
		if q.IncidentsUnread != "" {
			problem = "it was not read: " + q.IncidentsUnread
		}
		return HoldingIncident{UID: uid, Problem: problem}
	}
	out := HoldingIncident{UID: uid, Namespace: inc.Namespace, Name: inc.Name, Title: inc.Spec.Title}
	for _, p := range inc.Status.Pods {
		if p.UID == string(q.pod.UID) {
			out.Verdict = p.Verdict
			return out
		}
	}
	out.Problem = "its status does not speak of this pod"
	return out
}

// before is the pod with the labels that it had before its quarantine; nil if it was not quarantined, or nobody can tell what they were.
func (q *question) before() *corev1.Pod {
	original, err := measure.OriginalOf(q.pod)
	if err != nil || original == nil && len(q.holders) == 0 {
		return nil
	}
	was := q.pod.Labels
	if original != nil {
		was = original.Labels
	}
	out := *q.pod
	out.Labels = map[string]string{}
	maps.Copy(out.Labels, was)
	maps.DeleteFunc(out.Labels, func(key, _ string) bool { return strings.HasPrefix(key, v1alpha1.QuarantineLabelPrefix) })
	return &out
}

// setBefore are the policies without those that were written for an Incident.
func (q *question) setBefore() *isolation.Set {
	return q.set.Without(slices.Collect(maps.Keys(q.writtenFor))...)
}

// notes are remarks on what does not fit together.
func (q *question) notes() []string {
	var out []string
	if _, _, no := isolation.NotEnforceable(q.pod); no {
		out = append(out, "what cuts it off instead: the firewall of its node, or to delete it once its evidence is kept")
	}
	original, err := measure.OriginalOf(q.pod)
	switch {
	case err != nil:
		out = append(out, fmt.Sprintf("what the pod was before its quarantine is not known: %v; the evidence of the Incident has it", err))
	case original != nil && len(q.holders) == 0:
		out = append(out, fmt.Sprintf("the pod carries the annotation %s, but no Incident holds it: its quarantine label was taken off, or somebody else wrote the annotation; what was before is told by it all the same",
			v1alpha1.OriginalAnnotation))
	}
	for _, key := range sortedKeys(q.pod.Labels) {
		if strings.HasPrefix(key, v1alpha1.QuarantineLabelPrefix) && q.pod.Labels[key] != v1alpha1.QuarantineLabelValue {
			out = append(out, fmt.Sprintf("the label %s has the value %q and not %q, so that no quarantine selects the pod by it", key, q.pod.Labels[key], v1alpha1.QuarantineLabelValue))
		}
	}
	if phase := q.pod.Status.Phase; phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		out = append(out, fmt.Sprintf("the pod has ended (%s): nothing runs in it any more", phase))
	}
	return out
}

// exceptionStates are all exceptions that the holding Incidents declare, with what became of them in the pod's namespace.
func (q *question) exceptionStates() []Exception {
	var out []Exception
	for _, uid := range q.holders {
		inc := q.incident(uid)
		for _, e := range declaredBy(inc) {
			out = append(out, Exception{
				Incident: inc.Namespace + "/" + inc.Name, Name: e.Name, Direction: e.Direction,
				State: stateOf(inc, q.pod.Namespace, e.Name), Flows: q.describe(measure.Exceptions([]v1alpha1.EvidenceException{e})[0]),
			})
		}
	}
	out, _ = first(out)
	return out
}

// describe says in words what an exception allows: that which a deny policy with nothing but the exception does.
func (q *question) describe(e isolation.Exception) string {
	if err := e.Validate(); err != nil {
		return fmt.Sprintf("nothing, because it cannot be read: %v", err)
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: q.pod.Namespace, Name: "exception"}}
	np.Spec = isolation.DenySpec(metav1.LabelSelector{}, []isolation.Exception{e})
	return isolation.Reachable(q.pod, isolation.SetOf(np), e.Direction).String()
}

// residualManualEndpointSlice is what the status of an Incident calls an EndpointSlice that no controller keeps in step with the pod's labels.
const residualManualEndpointSlice = "ManualEndpointSlice"

var meanings = map[string]string{
	isolation.ResidualEstablishedConnections: "connections that were open before the policies took effect may go on",
	isolation.ResidualNodeLocal:              "the pod's own node can always reach it",
	isolation.ResidualICMP:                   "policies are not defined for ICMP and other protocols than TCP, UDP and SCTP",
	isolation.ResidualEnforcementNotProbed:   "nobody has seen the network plugin enforce the policies",
	isolation.ResidualHostPort:               "a container is published on a port of the node, where the true source may be hidden",
	isolation.ResidualPrivileged:             "a container is privileged and may enter the node's own network",
	residualManualEndpointSlice:              "an EndpointSlice that no controller keeps in step with the pod's labels lists the pod, and quarantine does not take it out",
}

// residuals are what a verdict about policies does not speak of.
func (q *question) residuals() []Residual {
	if q.outsidePolicies() {
		return nil
	}
	names := isolation.Residuals(q.pod)
	if len(route.HandMade(q.Pod, q.Routes.Slices, q.Routes.Services...)) > 0 {
		names = append(names, residualManualEndpointSlice)
	}
	out := make([]Residual, 0, len(names))
	for _, name := range names {
		out = append(out, Residual{Name: name, Meaning: meanings[name]})
	}
	return out
}
