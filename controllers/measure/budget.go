package measure

import (
	"math"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Budget is the PodDisruptionBudget, in one of the Incident's namespaces, under which the Eviction API evicts no running pod that the Incident holds.
//
// It asks for more available pods than there can be. That has to be a whole number: for maxUnavailable, and for a percentage, Kubernetes looks up the scale of the
// pods' controllers, and a detached pod has none (https://kubernetes.io/docs/tasks/run-application/configure-pdb/, "Arbitrary workloads and arbitrary selectors"). A pod that
// another budget selects too is not evicted either, since the Eviction API refuses pods with two budgets. Pods that are pending or have ended it evicts in spite of every budget.
func Budget(inc *v1alpha1.Incident, namespace string) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: DenyPolicyName(inc), Labels: OwnedLabels(inc), Annotations: OwnedAnnotations(inc)},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: new(intstr.FromInt32(math.MaxInt32)),
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{QuarantineLabel(inc.UID): v1alpha1.QuarantineLabelValue}},
			// A pod that is cut off may well stop being ready, and is evidence all the same.
			UnhealthyPodEvictionPolicy: new(policyv1.IfHealthyBudget),
		},
	}
}
