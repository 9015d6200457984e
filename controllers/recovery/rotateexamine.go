package recovery

import (
	"context"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Examine tells whether the operator is allowed what the step asks for. Whether the entries are there is asked when a recovery begins: a look at a Secret is a patch on trial, and nobody wants one every few minutes.
func (rotateSecrets) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	want := step.RotateSecrets
	var needs []need
	if len(want.Generate)+len(want.TokenSecrets) > 0 {
		needs = append(needs, need{"patch", "", "secrets", e.Namespace})
	}
	if len(want.TokenSecrets) > 0 {
		needs = append(needs, need{"delete", "", "secrets", e.Namespace})
	}
	if len(want.ExternalSecrets) > 0 {
		needs = append(needs, need{"patch", "external-secrets.io", "externalsecrets", e.Namespace})
	}
	if len(want.Certificates) > 0 {
		needs = append(needs, need{"get", "cert-manager.io", "certificates", e.Namespace})
	}
	found, err := e.allowed(ctx, needs...)
	if found.Why != "" {
		found.Why += "; the ClusterRole cofferdam-secret-rotation has what rotating takes"
	}
	if err != nil || found.Why != "" {
		return found, err
	}
	var workloads []v1alpha1.WorkloadRef
	for _, w := range want.Workloads {
		workloads = append(workloads, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(w.Kind), Name: w.Name})
	}
	return e.exists(ctx, workloads)
}
