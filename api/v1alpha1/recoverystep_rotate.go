package v1alpha1

// ValueCharset says of which characters a generated value consists.
// +kubebuilder:validation:Enum=Alphanumeric;Hex;Printable
type ValueCharset string

const (
	// CharsetAlphanumeric are letters and digits: 5.95 bits a character.
	CharsetAlphanumeric ValueCharset = "Alphanumeric"
	// CharsetHex are 0 to 9 and a to f: 4 bits a character.
	CharsetHex ValueCharset = "Hex"
	// CharsetPrintable are letters, digits and the marks !#$%&()*+,-./:;<=>?@[]^_{|}~: 6.47 bits a character.
	CharsetPrintable ValueCharset = "Printable"
)

// GeneratedKey is one entry of a Secret that gets a new random value.
type GeneratedKey struct {
	// name is the name of the entry. It has to exist.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// length is how many characters the value has, 16 to 256. Default 32.
	// +optional
	// +default=32
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=256
	Length int32 `json:"length,omitempty"`

	// charset is "Alphanumeric" (default), "Hex" or "Printable".
	// +optional
	// +default="Alphanumeric"
	Charset ValueCharset `json:"charset,omitempty"`
}

// GeneratedSecret is a Secret of which some entries get new random values.
type GeneratedSecret struct {
	// secretName is the name of the Secret in the plan's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`

	// keys are the entries that get new values. The others stay.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Keys []GeneratedKey `json:"keys,omitempty"`
}

// TokenSecret is a Secret of type kubernetes.io/service-account-token.
type TokenSecret struct {
	// secretName is the name of the Secret in the plan's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`

	// serviceAccountName is the ServiceAccount that its token is of. A Secret of another one is left alone.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// RestartedWorkload names a workload in the plan's namespace that is restarted.
type RestartedWorkload struct {
	// kind is Deployment, StatefulSet or DaemonSet.
	// +required
	// +kubebuilder:validation:Enum=Deployment;StatefulSet;DaemonSet
	// +kubebuilder:validation:MaxLength=16
	Kind string `json:"kind,omitempty"`

	// name is the name of the workload.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// RestartMode says which workloads are restarted once the new values are there.
// +kubebuilder:validation:Enum=Consumers;Listed;None
type RestartMode string

const (
	// RestartConsumers restarts the workloads that are listed, and then all others that refer to what was rotated.
	RestartConsumers RestartMode = "Consumers"
	// RestartListed restarts the workloads that are listed.
	RestartListed RestartMode = "Listed"
	// RestartNone restarts none.
	RestartNone RestartMode = "None"
)

// RotateSecretsStep replaces secrets, and restarts those that use them. The operator may do that only in namespaces where somebody has bound the ClusterRole cofferdam-secret-rotation for it; it never reads what is in a
// Secret. A rotation is not undone. A step that is retried rotates once more.
// +kubebuilder:validation:XValidation:rule="has(self.generate) || has(self.externalSecrets) || has(self.certificates) || has(self.tokenSecrets)",message="nothing is rotated: give at least one of generate, externalSecrets, certificates, tokenSecrets"
// +kubebuilder:validation:XValidation:rule="self.restart != 'Listed' || has(self.workloads)",message="restart Listed takes workloads"
// +kubebuilder:validation:XValidation:rule="self.restart != 'None' || !has(self.workloads)",message="restart None takes no workloads"
type RotateSecretsStep struct {
	// generate are Secrets that get new random values. Whoever else has to know a value, such as a database, has to learn it from the Secret. Who writes this into a plan has to be allowed to patch Secrets.
	// +optional
	// +listType=map
	// +listMapKey=secretName
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Generate []GeneratedSecret `json:"generate,omitempty"`

	// externalSecrets are names of ExternalSecrets (external-secrets.io) that are synchronised anew. The value has to be replaced at the provider beforehand. One with refreshPolicy CreatedOnce never is.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	ExternalSecrets []string `json:"externalSecrets,omitempty"`

	// certificates are names of Certificates (cert-manager.io) that are issued anew. Whether the private key is a new one, their spec.privateKey.rotationPolicy says.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Certificates []string `json:"certificates,omitempty"`

	// tokenSecrets are Secrets with tokens of ServiceAccounts that are deleted, which makes these tokens invalid and no others. Tokens that kubelets have projected into pods end with their pods; tokens that were requested
	// from the API server without being bound stay valid until they expire.
	// +optional
	// +listType=map
	// +listMapKey=secretName
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	TokenSecrets []TokenSecret `json:"tokenSecrets,omitempty"`

	// restart is "Consumers" (default): once all new values are there, workloads is restarted, and then every other Deployment, StatefulSet and DaemonSet of the namespace whose pod template refers to a Secret that got
	// one; the step ends when no pod is left that refers to one and is older. "Listed": workloads alone. "None": nothing. What is restarted is decided when the recovery begins. A workload that the Incident
	// holds is restarted only once it is rolled back.
	// +optional
	// +default="Consumers"
	Restart RestartMode `json:"restart,omitempty"`

	// workloads are restarted one after the other, in this order, each when all pods of the one before are ready.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Workloads []RestartedWorkload `json:"workloads,omitempty"`
}
