package v1alpha1

// VerifiedObject is one object that a verify step looks at.
type VerifiedObject struct {
	// apiVersion is the group and version of the object, such as "apps/v1".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	APIVersion string `json:"apiVersion,omitempty"`

	// kind is the kind of the object, such as "Deployment".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self != 'Secret'",message="Secrets are not read by Cofferdam; verify something that depends on them"
	Kind string `json:"kind,omitempty"`

	// name is the name of the object in the plan's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// expression is a CEL expression over the variable "object" that has to be true as well, such as
	// "object.status.readyReplicas >= 2". If not set, kstatus alone decides.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Expression string `json:"expression,omitempty"`
}

// CertificateHandling says what is made of the certificate of a server.
// +kubebuilder:validation:Enum=Verify;Ignore
type CertificateHandling string

const (
	// CertificateVerify refuses a certificate that the system's authorities do not vouch for.
	CertificateVerify CertificateHandling = "Verify"
	// CertificateIgnore accepts any, as the probes of kubelets do.
	CertificateIgnore CertificateHandling = "Ignore"
)

// HTTPCheck is one HTTP request of a probe pod.
type HTTPCheck struct {
	// url is the http or https URL to get. It is resolved in the plan's namespace, as in "http://web/healthz". Redirects are not followed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https')",message="the url of a check is an http or https URL"
	URL string `json:"url,omitempty"`

	// status is the status code that the answer has to have, 100 to 599. If not set, any of 200 to 299.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=599
	Status int32 `json:"status,omitempty"`

	// contains is a text that the first 65536 bytes of the answer have to contain. If not set, the answer may be anything.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Contains string `json:"contains,omitempty"`

	// certificate is "Verify" (default), or "Ignore", which accepts any certificate.
	// +optional
	// +default="Verify"
	Certificate CertificateHandling `json:"certificate,omitempty"`
}

// TCPCheck is one TCP connection of a probe pod.
type TCPCheck struct {
	// host is the name or address to connect to. A name is resolved in the plan's namespace, as in "db".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`

	// port is the port, 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// PrometheusCheck is one instant query of a Prometheus.
type PrometheusCheck struct {
	// source is the name of an entry in spec.recovery.prometheus of the ContainmentPolicy that governs the Incident.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Source string `json:"source,omitempty"`

	// query is a PromQL query whose result is a vector or a scalar.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Query string `json:"query,omitempty"`

	// expression is a CEL expression over the variables "value", a number, and "labels", a map of strings, such as "value < 0.01". It has to be true of every sample of the result. A result without samples is
	// no success.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Expression string `json:"expression,omitempty"`
}

// VerifyStep succeeds when everything that it names holds at the same time. Objects and Prometheus are asked first, and again and again; the probe pod and the job, which run once, start only when these are well.
// +kubebuilder:validation:XValidation:rule="has(self.objects) || has(self.http) || has(self.tcp) || has(self.prometheus) || has(self.job)",message="nothing is looked at: give at least one of objects, http, tcp, prometheus, job"
// +kubebuilder:validation:MinProperties=1
type VerifyStep struct {
	// objects are objects that have to be Current (kstatus), with their expressions true.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Objects []VerifiedObject `json:"objects,omitempty"`

	// http are HTTP requests that a probe pod makes, a Job of the operator's own image in the plan's namespace. The NetworkPolicies of the namespace apply to it. It repeats them until all have succeeded within one
	// round, or probeSeconds are over, which fails the step.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	HTTP []HTTPCheck `json:"http,omitempty"`

	// tcp are TCP connections that the same pod opens, and closes at once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	TCP []TCPCheck `json:"tcp,omitempty"`

	// probeSeconds is how long the probe pod tries, in seconds, 5 to 3600. Default 60.
	// +optional
	// +default=60
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=3600
	ProbeSeconds int32 `json:"probeSeconds,omitempty"`

	// prometheus are queries whose results have to satisfy their expressions. All queries of one step take up to 5 seconds; what is not answered by then is asked again in the next pass.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Prometheus []PrometheusCheck `json:"prometheus,omitempty"`

	// job is a job that runs once in the plan's namespace, as with runJob, and has to succeed.
	// +optional
	Job RunJobStep `json:"job,omitempty,omitzero"`
}
