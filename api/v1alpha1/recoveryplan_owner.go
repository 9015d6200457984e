package v1alpha1

// WorkloadOwner is what keeps a workload, such as the custom resource of an operator: it would undo a change of the workload, so that the images are changed in it.
type WorkloadOwner struct {
	// apiVersion is the group and version of the owner, such as "postgresql.example.com/v1".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	APIVersion string `json:"apiVersion,omitempty"`

	// kind is the kind of the owner, such as "Database".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self != 'Secret'",message="Secrets are neither read nor changed by Cofferdam"
	Kind string `json:"kind,omitempty"`

	// name is the name of the owner in the plan's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}
