package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RecoverableKind is a kind of workload whose images a plan can roll back. The images of a Job, and of a pod that no controller keeps, cannot be changed: these are deleted, and created anew.
// +kubebuilder:validation:Enum=Deployment;StatefulSet;DaemonSet;CronJob;Rollout;Job;Pod
type RecoverableKind string

// Kinds beside those that keep pods by themselves in every cluster: Argo Rollouts, and what is created anew.
const (
	RecoverableRollout RecoverableKind = "Rollout"

	RecoverableJob RecoverableKind = "Job"
	RecoverablePod RecoverableKind = "Pod"
)

// WorkloadRef names a workload in the plan's namespace.
type WorkloadRef struct {
	// kind is Deployment, StatefulSet, DaemonSet, CronJob, Rollout (of Argo Rollouts, argoproj.io/v1alpha1), Job or Pod.
	// +required
	Kind RecoverableKind `json:"kind,omitempty"`

	// name is the name of the workload.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// ContainerPlace says where a container comes from.
// +kubebuilder:validation:Enum=Template;Pods
type ContainerPlace string

const (
	// InTemplate says that the container is in the pod template.
	InTemplate ContainerPlace = "Template"
	// InPods says that it is in the pods alone.
	InPods ContainerPlace = "Pods"
)

// ContainerImage is the known-good image of one container.
type ContainerImage struct {
	// name is the name of the container or init container.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// image is the known-good image, pinned by digest: "registry/repository[:tag]@sha256:<64 hex digits>". A tag alone is refused,
	// because whoever can push can move it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@\\\\s]+@sha256:[a-f0-9]{64}$')",message="a known-good image is pinned by digest: repository@sha256:<64 hex digits>"
	Image string `json:"image,omitempty"`

	// foundIn is "Template", which not to set means as well: the container or init container is in the pod template. Or "Pods": it is in none, because something at admission puts it into the pods; nothing about it is changed, but every pod has to have it,
	// and to report the digest.
	// +optional
	FoundIn ContainerPlace `json:"foundIn,omitempty"`

	// path is where the image stands in the owner of the workload, if one is given: a JSON pointer (RFC 6901) below /spec, to a string that is replaced, such as "/spec/containers/0/image".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^/spec(/[^/]+)+$')",message="a path is a JSON pointer below /spec, such as /spec/containers/0/image"
	Path string `json:"path,omitempty"`
}

// BlockedReplacement says what happens when a quarantined pod holds the name that its replacement needs.
// +kubebuilder:validation:Enum=DeletePod;Wait
type BlockedReplacement string

const (
	// BlockedReplacementDeletePod deletes the quarantined pod once its evidence is complete.
	BlockedReplacementDeletePod BlockedReplacement = "DeletePod"
	// BlockedReplacementWait waits for a person to delete it.
	BlockedReplacementWait BlockedReplacement = "Wait"
)

// OldPods says what happens to pods of an old revision that their controller does not replace.
// +kubebuilder:validation:Enum=Replace;Wait
type OldPods string

const (
	// OldPodsReplace deletes them one at a time.
	OldPodsReplace OldPods = "Replace"
	// OldPodsWait waits for a person to delete them.
	OldPodsWait OldPods = "Wait"
)

// RestoredPart says what of a pod template a rollback brings back.
// +kubebuilder:validation:Enum=Images;Template
type RestoredPart string

const (
	// RestoredImages changes images, and nothing else.
	RestoredImages RestoredPart = "Images"
	// RestoredTemplate brings a whole pod template back.
	RestoredTemplate RestoredPart = "Template"
)

// RollBackImagesStep changes pod templates to known-good images.
// +kubebuilder:validation:XValidation:rule="self.restore != 'Template' || self.workloads.all(w, w.kind in ['Deployment', 'StatefulSet', 'DaemonSet'])",message="restore Template takes the revisions that only Deployments, StatefulSets and DaemonSets keep"
type RollBackImagesStep struct {
	// workloads are the workloads to roll back, each one listed in spec.images, which admission checks. The step succeeds when every pod of each workload runs
	// the new revision, is ready, and reports the known-good digests as its imageIDs.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Workloads []WorkloadRef `json:"workloads,omitempty"`

	// restore is "Images" (default): the images of the containers are changed, and everything else stays as it is now. Or "Template": the whole pod template comes back, environment, volumes, accounts and all, from the newest
	// revision (ReplicaSet or ControllerRevision) that is older than spec.suspectedSince of the Incident and runs the known-good digests in every container. Which revision that is, and what it changes
	// besides images, is in status.recovery.choices, and part of what people approve.
	// +optional
	// +default="Images"
	Restore RestoredPart `json:"restore,omitempty"`

	// oldPods says what happens to pods of an old revision that their controller does not replace by itself: with the update strategy OnDelete, below the partition of a StatefulSet, or behind a pod that will never be
	// ready again. "Replace" (default) lifts the partition until the step has succeeded, and deletes the pods one at a time, those of the Incident only once every evidence item of theirs is Collected. "Wait" waits
	// for a person to delete them.
	// +optional
	// +default="Replace"
	OldPods OldPods `json:"oldPods,omitempty"`

	// blockedReplacements says what happens when a quarantined pod of a StatefulSet, a bare pod or a Job holds the name that its replacement needs.
	// "DeletePod" (default) deletes it once every evidence item of that pod, or of the pods of that Job, is Collected; with a gap it waits. "Wait" always waits for a
	// person to delete it.
	// +optional
	// +default="DeletePod"
	BlockedReplacements BlockedReplacement `json:"blockedReplacements,omitempty"`
}

// ApproveStep waits for people.
// +kubebuilder:validation:XValidation:rule="!has(self.from) || size(self.from) >= self.required",message="from names fewer people than are required"
type ApproveStep struct {
	// required is the number of distinct people, none of them the declarer, who have to approve this step in spec.approvals of the
	// Incident, 1 to 10.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Required int32 `json:"required,omitempty"`

	// from are the user names of the people whose approvals count: required of these have to approve. If not set, everybody's do who holds
	// the RBAC verb "approve".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	From []string `json:"from,omitempty"`

	// validForSeconds is how long an approval counts, in seconds from when the operator has first seen it, 60 to 604800 (a week). When one lapses
	// before enough people have approved, all lapse, and the step asks for approvals of a new digest. Default 86400 (a day).
	// +optional
	// +default=86400
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=604800
	ValidForSeconds int32 `json:"validForSeconds,omitempty"`
}

// HeldPodHandling says what release does to pods that are still quarantined.
// +kubebuilder:validation:Enum=Keep;Restore
type HeldPodHandling string

const (
	// HeldPodKeep leaves them quarantined, as evidence, until the Incident is closed.
	HeldPodKeep HeldPodHandling = "Keep"
	// HeldPodRestore gives them their labels back.
	HeldPodRestore HeldPodHandling = "Restore"
)

// ReleaseStep lifts quarantine in the plan's namespace: from the compromised revisions of the workloads that this plan rolled back, and from
// the refusal of their new Jobs. It waits until no pod of such a revision is left, except quarantined evidence. Jobs that a CronJob had started before stay
// quarantined until the Incident is closed. Several release steps that depend on one another release workloads in waves.
// +kubebuilder:validation:XValidation:rule="!has(self.watched) || has(self.observeSeconds)",message="watched objects are observed for observeSeconds: set it"
// +kubebuilder:validation:XValidation:rule="!has(self.watched) || (!has(self.watched.http) && !has(self.watched.tcp) && !has(self.watched.job))",message="what a release watches is looked at again and again: only objects and prometheus can be"
type ReleaseStep struct {
	// workloads are the workloads of this wave: it releases and observes these alone. They have to be rolled back by a step of the plan. If not set, all that the plan rolls back.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Workloads []WorkloadRef `json:"workloads,omitempty"`

	// observeSeconds is how long what was released is observed before the step succeeds, in seconds, 1 to 86400 (a day). Meanwhile its workloads are quarantined again, and the step fails, as soon as one
	// of the watched objects is not healthy any more, or another Incident that was declared since names one of them. If not set, nothing is observed.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	ObserveSeconds int32 `json:"observeSeconds,omitempty"`

	// watched is what has to be healthy before anything is released, and stay so for observeSeconds after that: objects and queries of Prometheus. A Prometheus that does not answer proves nothing: the step then goes on
	// observing, and does not succeed. One that answers without data is not healthy.
	// +optional
	Watched VerifyStep `json:"watched,omitempty,omitzero"`

	// heldPods says what happens to pods that are still quarantined. "Keep" (default) leaves them, as evidence, until the Incident is
	// closed. "Restore" gives them their labels back and releases the revisions of workloads that were not rolled back as well; use it
	// for targets that turned out to be clean.
	// +optional
	// +default="Keep"
	HeldPods HeldPodHandling `json:"heldPods,omitempty"`
}

// OnFailure says what happens when a step fails or passes its deadline.
// +kubebuilder:validation:Enum=Halt;Continue;Undo
type OnFailure string

const (
	// OnFailureHalt starts no further step.
	OnFailureHalt OnFailure = "Halt"
	// OnFailureContinue starts the steps that depend on it all the same.
	OnFailureContinue OnFailure = "Continue"
	// OnFailureUndo takes back what the step has done, and starts no further step.
	OnFailureUndo OnFailure = "Undo"
)

// RecoveryStep is one step of a plan. Exactly one action is set.
// +kubebuilder:validation:XValidation:rule="[has(self.rollBackImages), has(self.restoreVolumes), has(self.scale), has(self.rotateSecrets), has(self.runJob), has(self.verify), has(self.approve), has(self.notify), has(self.release), has(self.pauseGitOps), has(self.resumeGitOps)].filter(x, x).size() == 1",message="a step has exactly one of rollBackImages, restoreVolumes, scale, rotateSecrets, runJob, verify, approve, notify, release, pauseGitOps, resumeGitOps"
// +kubebuilder:validation:XValidation:rule="!has(self.dependsOn) || !(self.name in self.dependsOn)",message="a step cannot depend on itself"
// +kubebuilder:validation:XValidation:rule="(!has(self.approve) && !has(self.release)) || self.onFailure == 'Halt'",message="approve and release steps have onFailure Halt: containment is never lifted without an approval, and what was released is not taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.restoreVolumes) || self.onFailure != 'Continue'",message="a restoreVolumes step has onFailure Halt or Undo: what depends on it would start while some volumes are restored and others are not"
// +kubebuilder:validation:XValidation:rule="!(self.name in ['close', 'waive-gaps', 'remove-evidence'])",message="the names close, waive-gaps and remove-evidence are reserved: approvals of these steps approve closing the Incident, waiving evidence gaps and removing evidence"
type RecoveryStep struct {
	// name tells the step apart from the others of the plan. It is a DNS label. "close", "waive-gaps" and "remove-evidence" are reserved.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="a step's name consists of lower-case letters, digits and dashes"
	Name string `json:"name,omitempty"`

	// dependsOn names the steps that have to succeed before this one starts. Steps that do not depend on one another run in parallel.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	DependsOn []string `json:"dependsOn,omitempty"`

	// deadlineSeconds is how long the step may take from its start, in seconds, 1 to 604800 (a week). What happens after that, onFailure
	// says. Default 3600.
	// +optional
	// +default=3600
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=604800
	DeadlineSeconds int32 `json:"deadlineSeconds,omitempty"`

	// onFailure says what happens when the step fails or passes its deadline. "Halt" (default): no further step starts, the Incident is Stalled
	// and says what the step waits for; a step that is overdue is still watched, and the recovery goes on if what it waits for comes true.
	// "Continue": the step is Failed, and the steps that depend on it start all the same; the Incident is not Recovered before somebody has the
	// step retried or skipped. "Undo": what the step has done is taken back, and no further step starts.
	// +optional
	// +default="Halt"
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// gate has to be true besides, after the action has come to its end, before the step succeeds: steps that depend on it start only then.
	// +optional
	Gate *VerifyStep `json:"gate,omitempty,omitzero"`

	// rollBackImages changes pod templates to the known-good images of spec.images.
	// +optional
	RollBackImages *RollBackImagesStep `json:"rollBackImages,omitempty,omitzero"`

	// restoreVolumes gives claims volumes from before the incident.
	// +optional
	RestoreVolumes *RestoreVolumesStep `json:"restoreVolumes,omitempty,omitzero"`

	// scale changes the replicas of workloads.
	// +optional
	Scale *ScaleStep `json:"scale,omitempty,omitzero"`

	// rotateSecrets replaces secrets.
	// +optional
	RotateSecrets *RotateSecretsStep `json:"rotateSecrets,omitempty,omitzero"`

	// runJob runs a job.
	// +optional
	RunJob *RunJobStep `json:"runJob,omitempty,omitzero"`

	// verify waits until what it names is healthy.
	// +optional
	Verify *VerifyStep `json:"verify,omitempty,omitzero"`

	// approve waits for people.
	// +optional
	Approve *ApproveStep `json:"approve,omitempty,omitzero"`

	// notify tells others how far the recovery has come.
	// +optional
	Notify *NotifyStep `json:"notify,omitempty,omitzero"`

	// release lifts quarantine.
	// +optional
	Release *ReleaseStep `json:"release,omitempty"`

	// pauseGitOps keeps Argo CD and Flux from taking the recovery back.
	// +optional
	PauseGitOps *PauseGitOpsStep `json:"pauseGitOps,omitempty,omitzero"`

	// resumeGitOps lets them go on, once their source renders the known-good images.
	// +optional
	ResumeGitOps *ResumeGitOpsStep `json:"resumeGitOps,omitempty"`
}

// RecoveryPlanSpec is how an application comes back.
type RecoveryPlanSpec struct {
	// images are the known-good images, one entry for each workload.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(i, self.exists_one(j, j.workload == i.workload))",message="a workload is listed twice in images"
	Images []KnownGoodImages `json:"images,omitempty"`

	// verification says what has to be known of the images of this plan before it is executed, those of jobs and checks included. It is found out in their registries when the recovery begins, before anything is
	// changed; the recovery does not begin before, and status says what it waits for. The condition Ready of the plan tells it beforehand. If not set, nothing is asked of registries.
	// +optional
	Verification *ImageVerification `json:"verification,omitempty"`

	// maxParallel is how many steps run at the same time, 1 to 50. Approve steps do not count. Default 8.
	// +optional
	// +default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=50
	MaxParallel int32 `json:"maxParallel,omitempty"`

	// steps are the steps of the plan. They form a graph by dependsOn, without circles. Admission refuses a plan whose dependsOn names a step that it does not have, and one with a release step that does
	// not depend directly on an approve step: containment is never lifted without an approval.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=200
	Steps []RecoveryStep `json:"steps,omitempty"`
}

// RecoveryPlanStatus says whether the plan would work today.
// +kubebuilder:validation:MinProperties=1
type RecoveryPlanStatus struct {
	// conditions of the plan. "Ready" is True when the steps are in order, every expression compiles, every workload and container exists, every claim that is restored has a snapshot that is old enough (see dwellSeconds),
	// classes and drivers match, and the operator may do what the steps ask for. It is looked at again every five minutes. What cannot be found out is Unknown.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that the conditions speak of.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// RecoveryPlan is how an application comes back after an incident: known-good images and an ordered set of steps. It is reusable and
// lives beside the application; what happens during one recovery is recorded in the Incident.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rplan,categories=cofferdam
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RecoveryPlan struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the plan. An Incident that starts to recover keeps a copy, so that editing the plan changes nothing that is under way.
	// +required
	Spec RecoveryPlanSpec `json:"spec,omitempty,omitzero"`

	// status says whether the plan would work today.
	// +optional
	Status RecoveryPlanStatus `json:"status,omitempty,omitzero"`
}

// RecoveryPlanList is a list of RecoveryPlans.
//
// +kubebuilder:object:root=true
type RecoveryPlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []RecoveryPlan `json:"items"`
}
