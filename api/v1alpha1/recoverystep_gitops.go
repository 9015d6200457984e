package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxGitOpsPauses is how many managers one recovery pauses at most.
const MaxGitOpsPauses = 64

// PauseGitOpsStep keeps Argo CD and Flux from taking back what the steps after it do. It finds who applies each workload from Git and who applies that manager itself, and pauses them by lease, from the top down.
// A plan has at most one such step. Only kinds of a tool and namespaces that the step names are touched, and only if the author of the plan, at admission, and the declarer of the Incident, when it is done, may patch them.
// +kubebuilder:validation:XValidation:rule="has(self.argoCDNamespaces) || has(self.fluxNamespaces)",message="say where managers may be paused: argoCDNamespaces, fluxNamespaces or both"
type PauseGitOpsStep struct {
	// workloads are the workloads whose managers are paused. If not set, those of spec.images, of every step of the plan, and the claims of its restoreVolumes steps.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Workloads []WorkloadRef `json:"workloads,omitempty"`

	// argoCDNamespaces are the namespaces in which Applications and ApplicationSets of Argo CD may be paused, such as "argocd", at most 2. A manager in any other namespace is not touched: the step names it and waits.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	ArgoCDNamespaces []string `json:"argoCDNamespaces,omitempty"`

	// fluxNamespaces are the namespaces in which Kustomizations and HelmReleases of Flux may be paused, such as "flux-system", at most 2. A manager in any other namespace is not touched: the step names it and waits.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	FluxNamespaces []string `json:"fluxNamespaces,omitempty"`

	// leaseSeconds is for how long managers are paused, in seconds, 60 to 2592000 (30 days). Nothing is resumed when that is over: an alarm is raised (condition GitOpsPaused, an Event, a metric). Default 86400 (a day).
	// +optional
	// +default=86400
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=2592000
	LeaseSeconds int32 `json:"leaseSeconds,omitempty"`
}

// ResumeGitOpsStep gives every manager that this recovery has paused back what it had, from the bottom up, and waits until they have come to rest with the known-good images running. What somebody else had paused before stays
// paused. Nothing is resumed before the source is seen to render the known-good images: Argo CD compares a workload with its source, and reports it Synced after the step has started. Flux does not compare while it is suspended:
// there, and wherever it cannot be seen, a person intervenes with "Override" and a reason. If a compromised image comes back, everything is paused again, and the step fails.
type ResumeGitOpsStep struct{}

// GitOpsPauseState says how far pausing or resuming a manager has come.
// +kubebuilder:validation:Enum=Pausing;Paused;Undone;Resuming;Resumed
type GitOpsPauseState string

const (
	// GitOpsPausing says that the manager is about to be paused.
	GitOpsPausing GitOpsPauseState = "Pausing"
	// GitOpsPaused says that it was seen to be paused.
	GitOpsPaused GitOpsPauseState = "Paused"
	// GitOpsUndone says that it was seen not to be paused any more, though nobody has resumed it by the plan.
	GitOpsUndone GitOpsPauseState = "Undone"
	// GitOpsResuming says that it is about to get back what it had.
	GitOpsResuming GitOpsPauseState = "Resuming"
	// GitOpsResumed says that it was seen to have that, or that people have taken the lease off.
	GitOpsResumed GitOpsPauseState = "Resumed"
)

// GitOpsPause is one manager that the recovery has paused, and what it needs to be given back.
type GitOpsPause struct {
	// object is the manager: an Application, ApplicationSet, Kustomization or HelmRelease.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// child is the manager for which an ApplicationSet is paused: it goes on managing all others.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Child string `json:"child,omitempty"`

	// step is the name of the step that has paused it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step,omitempty"`

	// state says how far that has come.
	// +required
	State GitOpsPauseState `json:"state,omitempty"`

	// borrowed says that somebody else, such as another Incident, had paused it before. It is watched like the others; that it is paused is left to whoever has paused it, unless they resume it while the recovery depends on it:
	// then it is paused, and later resumed, by this Incident. Not set when this Incident has paused it.
	// +optional
	Borrowed *bool `json:"borrowed,omitempty"`

	// before is what is given back, in JSON.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Before string `json:"before,omitempty"`

	// since is when that was recorded.
	// +required
	Since metav1.Time `json:"since,omitempty,omitzero"`

	// expiresAt is when the lease ends. An alarm is raised then; nothing is resumed by itself.
	// +required
	ExpiresAt metav1.Time `json:"expiresAt,omitempty,omitzero"`

	// resumedAt is when it was seen to be resumed.
	// +optional
	ResumedAt metav1.Time `json:"resumedAt,omitempty,omitzero"`

	// undone is how often it was found resumed though the plan had not come to that. Not set when it never was.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Undone int32 `json:"undone,omitempty"`

	// message says what was seen last, and what there is to do.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}
