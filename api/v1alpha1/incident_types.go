package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Category is the kind of incident.
// +kubebuilder:validation:Enum=Malware;Ransomware;Intrusion;DataBreach;DenialOfService;SupplyChain;Other
type Category string

// Severity says how bad the incident is.
// +kubebuilder:validation:Enum=Low;Medium;High;Critical
type Severity string

// Severities from least to most severe.
const (
	SeverityLow      Severity = "Low"
	SeverityMedium   Severity = "Medium"
	SeverityHigh     Severity = "High"
	SeverityCritical Severity = "Critical"
)

// Mode says whether the operator acts.
// +kubebuilder:validation:Enum=Enforce;DryRun
type Mode string

const (
	// ModeEnforce acts.
	ModeEnforce Mode = "Enforce"
	// ModeDryRun writes nothing but status.
	ModeDryRun Mode = "DryRun"
)

// Goal is what the responders want next.
// +kubebuilder:validation:Enum=Contain;Recover;Close
type Goal string

const (
	// GoalContain isolates the targets and collects evidence.
	GoalContain Goal = "Contain"
	// GoalRecover executes the recovery plan.
	GoalRecover Goal = "Recover"
	// GoalClose ends the incident: what is still quarantined is removed or released, as the policy says.
	GoalClose Goal = "Close"
)

// TargetKind is a kind of object that can be contained.
// +kubebuilder:validation:Enum=Deployment;StatefulSet;DaemonSet;ReplicaSet;Job;CronJob;Pod
type TargetKind string

// Kinds of targets.
const (
	TargetDeployment  TargetKind = "Deployment"
	TargetStatefulSet TargetKind = "StatefulSet"
	TargetDaemonSet   TargetKind = "DaemonSet"
	TargetReplicaSet  TargetKind = "ReplicaSet"
	TargetJob         TargetKind = "Job"
	TargetCronJob     TargetKind = "CronJob"
	TargetPod         TargetKind = "Pod"
)

// Target names what is compromised, by name or by label selector.
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.selector)",message="a target has either a name or a selector"
// +kubebuilder:validation:XValidation:rule="!has(self.selector) || (has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",message="an empty selector would match everything in the namespace: name labels"
type Target struct {
	// kind is the kind of the target: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob or Pod.
	// +required
	Kind TargetKind `json:"kind,omitempty"`

	// namespace is the namespace of the target. If not set, the Incident's own. Another namespace is allowed only to a declarer who may
	// create Incidents there.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of one object. Exactly one of name and selector is set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// selector selects objects of the kind by their labels.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// ObjectName names an object of a kind that the field implies.
type ObjectName struct {
	// name is the name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// Declarer is who declared the Incident, as the API server authenticated them.
type Declarer struct {
	// username is the name of the user or service account.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Username string `json:"username,omitempty"`

	// uid is the user's UID, where the authenticator gave one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	UID string `json:"uid,omitempty"`

	// groups are the user's groups.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=1024
	Groups []string `json:"groups,omitempty"`
}

// Approval is one person's approval of one step.
type Approval struct {
	// step is the name of the approve step in the recovery plan, or "close", "waive-gaps" or "remove-evidence".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step,omitempty"`

	// author is the approver's own user name; admission refuses any other, and refuses the declarer's.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Author string `json:"author,omitempty"`

	// digest is the digest of what is approved, so that nobody approves something else by accident. For a step of the recovery plan it is
	// status.recovery.planDigest; for "close" it is status.closeDigest, for "waive-gaps" status.gapDigest, for "remove-evidence" status.removalDigest. An approval with another digest does not count.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`

	// comment is for people: why it is approved.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Comment string `json:"comment,omitempty"`
}

// InterventionAction is what a person does to a step of a recovery.
// +kubebuilder:validation:Enum=Retry;Skip;Undo;Override
type InterventionAction string

const (
	// InterventionRetry begins a step anew that has failed, was undone or is overdue.
	InterventionRetry InterventionAction = "Retry"
	// InterventionSkip lets the steps that depend on it start without it.
	InterventionSkip InterventionAction = "Skip"
	// InterventionUndo takes back what a step has done.
	InterventionUndo InterventionAction = "Undo"
	// InterventionOverride lets a resumeGitOps step resume what it cannot see to render the known-good images.
	InterventionOverride InterventionAction = "Override"
)

// Intervention is what one person does to one step of a recovery that is under way.
type Intervention struct {
	// step is the name of the step.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step,omitempty"`

	// action is "Retry": the step has failed, was undone or is overdue, and begins anew; "Skip": the steps that depend on it start without it, which approve steps
	// do not allow; "Undo": what the step has done is taken back, until a release step has succeeded and unless a step that depends on it has started;
	// "Override": a resumeGitOps step, this time, resumes what it cannot see to render the known-good images.
	// +required
	Action InterventionAction `json:"action,omitempty"`

	// author is the person's own user name; admission refuses any other.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Author string `json:"author,omitempty"`

	// reason says why.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// RecoveryControl holds a recovery back, and lets it go on.
type RecoveryControl struct {
	// paused says that no step starts or goes on. What is under way in the cluster, such as a rollout, goes on by itself. Whoever may create Incidents may set it to true; to set it to false again takes the
	// RBAC verb "intervene" on the Incident.
	// +required
	Paused *bool `json:"paused,omitempty"`

	// author is the user name of the person who pauses the recovery, or lets it go on; admission refuses any other.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Author string `json:"author,omitempty"`

	// reason says why.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// IncidentSpec is what responders say about an incident.
// +kubebuilder:validation:XValidation:rule="!has(self.suspectedSince) || !has(self.detectedAt) || timestamp(self.suspectedSince) <= timestamp(self.detectedAt)",message="suspectedSince lies after detectedAt: nothing is suspected to begin after it was detected"
// +kubebuilder:validation:XValidation:rule="self.goal != 'Recover' || has(self.recoveryPlanRef)",message="goal Recover needs recoveryPlanRef"
// +kubebuilder:validation:XValidation:rule="self.goal == oldSelf.goal || oldSelf.goal == 'Contain' || self.goal == 'Close'",message="the goal never moves back: it goes from Contain to Recover to Close; declare another Incident instead"
// +kubebuilder:validation:XValidation:rule="oldSelf.mode != 'Enforce' || self.mode == 'Enforce'",message="an Incident that is enforced never goes back to DryRun: set goal Close"
// +kubebuilder:validation:XValidation:rule="oldSelf.mode != 'Enforce' || oldSelf.targets.all(t, self.targets.exists(u, u == t))",message="a target is never removed from an Incident that is enforced: release it by the recovery plan or close the Incident"
// +kubebuilder:validation:XValidation:rule="oldSelf.mode != 'Enforce' || !has(oldSelf.compromisedDigests) || (has(self.compromisedDigests) && oldSelf.compromisedDigests.all(d, d in self.compromisedDigests))",message="a compromised digest is never removed from an Incident that is enforced: close the Incident"
// +kubebuilder:validation:XValidation:rule="oldSelf.mode != 'Enforce' || (has(oldSelf.policyRef) == has(self.policyRef) && (!has(self.policyRef) || self.policyRef == oldSelf.policyRef))",message="policyRef cannot change once the Incident is enforced"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.detectedAt) || (has(self.detectedAt) && self.detectedAt == oldSelf.detectedAt)",message="detectedAt cannot change"
// +kubebuilder:validation:XValidation:rule="has(oldSelf.declaredBy) == has(self.declaredBy) && (!has(self.declaredBy) || self.declaredBy == oldSelf.declaredBy)",message="declaredBy cannot change"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.approvals) || (has(self.approvals) && oldSelf.approvals.all(a, self.approvals.exists(b, b == a)))",message="an approval is never changed or removed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.interventions) || (has(self.interventions) && size(self.interventions) >= size(oldSelf.interventions) && oldSelf.interventions.all(i, v, self.interventions[i] == v))",message="an intervention is never changed or removed: add the next one at the end"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.recovery) || has(self.recovery)",message="recovery is not taken away: set paused to false, with the reason"
type IncidentSpec struct {
	// title says in one line what happened, for people.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Title string `json:"title,omitempty"`

	// category is the kind of incident. Default "Other".
	// +optional
	// +default="Other"
	Category Category `json:"category,omitempty"`

	// severity is Low, Medium, High or Critical. More severe Incidents are worked on first.
	// +required
	Severity Severity `json:"severity,omitempty"`

	// detectedAt is when the incident was noticed. If not set, the time at which the Incident was created. It cannot lie in the future.
	// +optional
	DetectedAt metav1.Time `json:"detectedAt,omitempty,omitzero"`

	// suspectedSince is the earliest time at which the targets may have been compromised. It cannot lie after detectedAt or in the future.
	// +optional
	SuspectedSince metav1.Time `json:"suspectedSince,omitempty,omitzero"`

	// targets are what is compromised. Targets may be added at any time; they are never removed while the Incident is enforced.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Targets []Target `json:"targets,omitempty"`

	// compromisedDigests are the digests of images that are known to be compromised, "sha256:<64 hex digits>", as pods report them in imageID or name them in image. Until the Incident is closed, admission refuses in the
	// Incident's namespace and in those of its targets whatever would start with one of them, and the recovery plan brings nothing back with one. An image that is given by tag alone names no digest and is
	// not refused. Digests may be added at any time; they are never removed while the Incident is enforced.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=71
	// +kubebuilder:validation:items:Pattern=`^sha256:[a-f0-9]{64}$`
	CompromisedDigests []string `json:"compromisedDigests,omitempty"`

	// policyRef names the ContainmentPolicy that governs this Incident. If not set, the one whose appliesTo matches.
	// +optional
	PolicyRef ObjectName `json:"policyRef,omitempty,omitzero"`

	// recoveryPlanRef names the RecoveryPlan, in the Incident's namespace, that is executed when the goal is Recover.
	// +optional
	RecoveryPlanRef ObjectName `json:"recoveryPlanRef,omitempty,omitzero"`

	// mode is "Enforce" (default), or "DryRun", which writes nothing but status and shows in status.plannedActions what Enforce would do.
	// A dry run becomes real by changing the mode; there is no way back.
	// +optional
	// +default="Enforce"
	Mode Mode `json:"mode,omitempty"`

	// goal is "Contain" (default), then "Recover" (execute the recovery plan), then "Close". It never moves back.
	// +optional
	// +default="Contain"
	Goal Goal `json:"goal,omitempty"`

	// declaredBy is who declared the Incident. Admission stamps it; what the declarer writes here is replaced or refused.
	// +optional
	DeclaredBy Declarer `json:"declaredBy,omitempty,omitzero"`

	// approvals are given by people who hold the RBAC verb "approve" on the Incident ("waive" for the step "waive-gaps") and are not its declarer, one for each request.
	// +optional
	// +listType=map
	// +listMapKey=step
	// +listMapKey=author
	// +listMapKey=digest
	// +kubebuilder:validation:MaxItems=64
	Approvals []Approval `json:"approvals,omitempty"`

	// recovery holds the recovery back, as long as paused is true, and says who wants that, and why. Once set it stays: set paused to false to let the recovery go on.
	// +optional
	Recovery RecoveryControl `json:"recovery,omitempty,omitzero"`

	// interventions are made by people who hold the RBAC verb "intervene" on the Incident, one for each request, at the end of the list. Each is carried out once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Interventions []Intervention `json:"interventions,omitempty"`
}

// Incident is the durable record of one incident, from declaration to close: what is compromised, what was done about it, what is
// proven, what was kept, and who approved.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=inc,categories=cofferdam
// +kubebuilder:printcolumn:name="Severity",type=string,JSONPath=`.spec.severity`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`,priority=1
// +kubebuilder:printcolumn:name="Goal",type=string,JSONPath=`.spec.goal`
// +kubebuilder:printcolumn:name="Contained",type=string,JSONPath=`.status.conditions[?(@.type=="Contained")].status`
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.status.summary.pods`
// +kubebuilder:printcolumn:name="Evidence",type=string,JSONPath=`.status.summary.evidence`
// +kubebuilder:printcolumn:name="Recovery",type=string,JSONPath=`.status.summary.recovery`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Incident struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is what responders say.
	// +required
	Spec IncidentSpec `json:"spec,omitempty,omitzero"`

	// status is what the operator has observed and done.
	// +optional
	Status IncidentStatus `json:"status,omitempty,omitzero"`
}

// IncidentList is a list of Incidents.
//
// +kubebuilder:object:root=true
type IncidentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Incident `json:"items"`
}
