package guard

import (
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noon is a time; tests count from it.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample is a guard that uses every field of both objects.
func sample() Policy {
	return Policy{
		Policy: admissionregistrationv1.ValidatingAdmissionPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "cofferdam-sample"},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
				ParamKind:        &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
				MatchConstraints: match(),
				Validations: []admissionregistrationv1.Validation{
					{Expression: "variables.known", Message: "no", Reason: new(metav1.StatusReasonForbidden)},
					{Expression: "object.spec.x > 1", MessageExpression: `"no " + object.metadata.name`},
				},
				AuditAnnotations: []admissionregistrationv1.AuditAnnotation{{Key: "seen", ValueExpression: `"yes"`}},
				MatchConditions: []admissionregistrationv1.MatchCondition{
					{Name: "not-the-operator", Expression: `request.userInfo.username != "operator"`}, {Name: "has-an-owner", Expression: "true"},
				},
				Variables: []admissionregistrationv1.Variable{{Name: "known", Expression: "true"}, {Name: "other", Expression: "variables.known"}},
			},
		},
		Binding: admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "cofferdam-sample"},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: "cofferdam-sample",
				ParamRef: &admissionregistrationv1.ParamRef{
					Namespace: "cofferdam-system", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"test/held": "true"}},
					ParameterNotFoundAction: new(admissionregistrationv1.AllowAction),
				},
				MatchResources: match(),
				ValidationActions: []admissionregistrationv1.ValidationAction{
					admissionregistrationv1.Deny, admissionregistrationv1.Audit,
				},
			},
		},
	}
}

func match() *admissionregistrationv1.MatchResources {
	return &admissionregistrationv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", "kube-public"}},
		}},
		ObjectSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		ResourceRules:        []admissionregistrationv1.NamedRuleWithOperations{rule("pods"), rule("services")},
		ExcludeResourceRules: []admissionregistrationv1.NamedRuleWithOperations{rule("secrets")},
		MatchPolicy:          new(admissionregistrationv1.Exact),
	}
}

func rule(resource string) admissionregistrationv1.NamedRuleWithOperations {
	return admissionregistrationv1.NamedRuleWithOperations{
		ResourceNames: []string{"one"},
		RuleWithOperations: admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Delete},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}, Scope: new(admissionregistrationv1.NamespacedScope),
			},
		},
	}
}

// examineOne examines a cluster that has exactly the objects of live.
func examineOne(shipped, live Policy) []Finding {
	return Examine([]Policy{shipped},
		[]admissionregistrationv1.ValidatingAdmissionPolicy{live.Policy}, []admissionregistrationv1.ValidatingAdmissionPolicyBinding{live.Binding})
}

// wrote is an entry of managedFields.
func wrote(manager string, after time.Duration, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	at := metav1.NewTime(noon.Add(after).In(time.FixedZone("local", 3600)))
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: operation, Time: &at, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields),
	}
}
