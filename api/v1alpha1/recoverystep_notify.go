package v1alpha1

// Notifications says whom recoveries may notify.
// +kubebuilder:validation:MinProperties=1
type Notifications struct {
	// routes are the webhooks that notify steps of plans may name. A notification is a POST of JSON, repeated with the same Idempotency-Key header until an answer of 200 to 299.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Routes []Endpoint `json:"routes,omitempty"`
}

// NotifyStep tells people, or machines, how far the recovery has come.
type NotifyStep struct {
	// message is what they are told, besides which Incident, plan and step it is. It is sent as it is.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`

	// routes are names of entries in spec.notifications.routes of the ContainmentPolicy that governs the Incident. The step succeeds when every one of them has answered with a status of 200 to 299; until then, and until its
	// deadline, it is tried again. If not set, an Event on the Incident is all there is; there is one in any case.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Routes []string `json:"routes,omitempty"`
}
