package v1alpha1

// PlaintextUse says whether a service may be called without TLS.
// +kubebuilder:validation:Enum=Refuse;Allow
type PlaintextUse string

const (
	// PlaintextRefuse calls it by https only, or on the loopback address.
	PlaintextRefuse PlaintextUse = "Refuse"
	// PlaintextAllow calls it by http as well.
	PlaintextAllow PlaintextUse = "Allow"
)

// Endpoint is a service that the operator itself calls. The platform team chooses it; plans name it, so that nobody who writes a plan decides where the operator sends requests.
// +kubebuilder:validation:XValidation:rule="!isURL(self.url) || url(self.url).getScheme() != 'http' || url(self.url).getHostname() in ['localhost', '127.0.0.1', '::1', '[::1]'] || self.plaintext == 'Allow'",message="an http URL that is not on the loopback address takes plaintext Allow"
type Endpoint struct {
	// name is the name by which plans refer to it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name of an endpoint consists of lower-case letters, digits and dashes"
	Name string `json:"name,omitempty"`

	// url is its http or https URL, without credentials. It is copied into the status of Incidents: an address that is itself a secret, as those of many chat services are, belongs into the Secret. Redirects are not followed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https') && !self.contains('@')",message="the url of an endpoint is an http or https URL without credentials"
	URL string `json:"url,omitempty"`

	// plaintext is "Refuse" (default), or "Allow", which lets url be an http URL that is not on the loopback address. What is sent, a token included, can then be read on the way.
	// +optional
	// +default="Refuse"
	Plaintext PlaintextUse `json:"plaintext,omitempty"`

	// secretName is the name of a Secret in the operator's namespace. Its entry "token" is sent as a bearer token, and its entry "ca.crt" has the certificates, in PEM, that vouch for the server besides the system's. Its
	// entry "url", if there is one, is called instead of url, which then only tells people what it is about. Each may be left out. If not set, no token is sent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`
}

// RecoveryOrders says what recoveries may use.
// +kubebuilder:validation:MinProperties=1
type RecoveryOrders struct {
	// prometheus are the Prometheus servers that plans may query. The operator queries them with the token given here, whoever wrote the plan, and tells the result in the status of the Incident: name one that shows only
	// what authors of plans may see.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Prometheus []Endpoint `json:"prometheus,omitempty"`
}
