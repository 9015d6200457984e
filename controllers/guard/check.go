package guard

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingadmissionpolicies;validatingadmissionpolicybindings,verbs=get;list;watch

// Check reads the cluster's admission policies and returns what is wrong with the guard. An error means that nothing is known about it.
func Check(ctx context.Context, r client.Reader, opts Options) ([]Finding, error) {
	var policies admissionregistrationv1.ValidatingAdmissionPolicyList
	if err := r.List(ctx, &policies); err != nil {
		return nil, fmt.Errorf("listing ValidatingAdmissionPolicies: %w", err)
	}
	var bindings admissionregistrationv1.ValidatingAdmissionPolicyBindingList
	if err := r.List(ctx, &bindings); err != nil {
		return nil, fmt.Errorf("listing ValidatingAdmissionPolicyBindings: %w", err)
	}
	return Examine(Shipped(opts), policies.Items, bindings.Items), nil
}
