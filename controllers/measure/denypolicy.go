package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;update;delete

// DenyPolicyPrefix is what the names of all deny policies begin with.
const DenyPolicyPrefix = "cofferdam-quarantine-"

// DenyPolicyName is the name of the Incident's deny policy in every target namespace.
func DenyPolicyName(inc *v1alpha1.Incident) string {
	return DenyPolicyPrefix + string(inc.UID)
}

// RevisionPolicyName is the name of the policy that quarantines new pods of a revision.
func RevisionPolicyName(inc *v1alpha1.Incident, revisionID string) string {
	return DenyPolicyName(inc) + "-" + shortHash(revisionID)
}

// shortHash shortens an identifier to a part of a name. 40 bits tell apart the at most 128 revisions of one Incident.
func shortHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:5])
}

// Exceptions translates the standing orders' exceptions for the evaluator and for the deny policies.
func Exceptions(declared []v1alpha1.EvidenceException) []isolation.Exception {
	out := make([]isolation.Exception, 0, len(declared))
	for _, d := range declared {
		e := isolation.Exception{Name: d.Name, Direction: isolation.Direction(d.Direction)}
		if d.CIDR != "" {
			e.Peer.IPBlock = &networkingv1.IPBlock{CIDR: d.CIDR}
		} else {
			e.Peer.NamespaceSelector = d.NamespaceSelector
			e.Peer.PodSelector = d.PodSelector
		}
		for _, p := range d.Ports {
			protocol, port := corev1.Protocol(p.Protocol), intstr.FromInt32(p.Port)
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			e.Ports = append(e.Ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
		}
		out = append(out, e)
	}
	return out
}

// DenyPolicies are the policies that have to be in force: in every namespace one that selects the pods that the Incident holds, and one for each
// held revision, so that a new pod of it is quarantined from its first packet. They have no owner reference: if the Incident went away by
// force, containment would stay.
func DenyPolicies(inc *v1alpha1.Incident, namespaces []string, revisions []v1alpha1.RevisionStatus, exceptions []isolation.Exception) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, ns := range namespaces {
		selector := metav1.LabelSelector{MatchLabels: map[string]string{QuarantineLabel(inc.UID): v1alpha1.QuarantineLabelValue}}
		out = append(out, denyPolicy(inc, ns, DenyPolicyName(inc), selector, exceptions))
	}
	for _, r := range revisions {
		if r.State == v1alpha1.RevisionHeld && r.Selector != nil {
			out = append(out, denyPolicy(inc, r.Workload.Namespace, RevisionPolicyName(inc, r.ID), *r.Selector, exceptions))
		}
	}
	slices.SortFunc(out, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return out
}

func denyPolicy(inc *v1alpha1.Incident, ns, name string, selector metav1.LabelSelector, exceptions []isolation.Exception) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   ns,
			Name:        name,
			Labels:      OwnedLabels(inc),
			Annotations: OwnedAnnotations(inc),
		},
		Spec: isolation.DenySpec(selector, exceptions),
	}
}

// OwnedLabels are the labels of every object that the operator creates for the Incident.
func OwnedLabels(inc *v1alpha1.Incident) map[string]string {
	return map[string]string{
		"app.kubernetes.io/managed-by": "cofferdam",
		v1alpha1.IncidentUIDLabel:      string(inc.UID),
	}
}

// OwnedAnnotations are the annotations of every object that the operator creates for the Incident.
func OwnedAnnotations(inc *v1alpha1.Incident) map[string]string {
	return map[string]string{v1alpha1.IncidentAnnotation: fmt.Sprintf("%s/%s", inc.Namespace, inc.Name)}
}
