package v1alpha1

// JobClaim is a PersistentVolumeClaim that a job uses.
type JobClaim struct {
	// claimName is the name of the claim in the plan's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClaimName string `json:"claimName,omitempty"`

	// mountPath is where the volume is in the container.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	MountPath string `json:"mountPath,omitempty"`

	// access is "ReadOnly" (default) or "ReadWrite".
	// +optional
	// +default="ReadOnly"
	// +kubebuilder:validation:Enum=ReadOnly;ReadWrite
	// +kubebuilder:validation:MaxLength=16
	Access string `json:"access,omitempty"`
}

// RunJobStep runs a job once in the plan's namespace, and succeeds when the job does. Who writes such a step into a plan has to be allowed to create Jobs there.
type RunJobStep struct {
	// image is the image, pinned by digest: "registry/repository@sha256:<64 hex digits>".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",message="the image of a job is pinned by digest: repository@sha256:<64 hex digits>"
	Image string `json:"image,omitempty"`

	// command is the command; if not set, the image's own.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	Command []string `json:"command,omitempty"`

	// args are the arguments of the command.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	Args []string `json:"args,omitempty"`

	// envFrom are the names of Secrets in the plan's namespace whose entries are the job's environment, as with database passwords. The operator does not read them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	EnvFrom []string `json:"envFrom,omitempty"`

	// claims are the claims that the job uses.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MaxItems=8
	Claims []JobClaim `json:"claims,omitempty"`

	// timeoutSeconds is how long the job may run, in seconds, 5 to 86400. A job that takes longer has failed. Default 1800.
	// +optional
	// +default=1800
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}
