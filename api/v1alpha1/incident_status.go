package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of the lists in an Incident's status, so that it always fits into one object.
const (
	MaxStatusPods     = 400
	MaxStatusLeaks    = 8
	MaxTimelineLength = 100
	MaxRevisions      = 128
	MaxEvidence       = 1000
	MaxPlannedActions = 1000
	MaxMeasures       = 320
	MaxTampering      = 50
	MaxJournal        = 2000
	MaxRecoveryTurns  = 32
	MaxExceptionState = 256
)

// ObjectRef names one object, not its namesake.
type ObjectRef struct {
	// kind is the kind of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`

	// namespace is the namespace of the object; empty for cluster-scoped kinds.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is the UID of the object, where it exists already.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
}

// GoverningPolicy is the copy of the standing orders that was in force when the Incident was accepted.
type GoverningPolicy struct {
	// name is the name of the ContainmentPolicy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is its UID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// generation is its generation at that time.
	// +required
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`

	// spec is the copy.
	// +optional
	Spec ContainmentPolicySpec `json:"spec,omitempty,omitzero"`
}

// ResolvedTarget is one object that an entry of spec.targets stands for. Only objects recorded here, and what they own, are touched.
type ResolvedTarget struct {
	// key identifies the entry of spec.targets: a digest of its content.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Key string `json:"key,omitempty"`

	// kind is the kind of the object.
	// +required
	Kind TargetKind `json:"kind,omitempty"`

	// namespace is the namespace of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is the UID of the object. A namesake that is created later is another object and is not touched.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
}

// Verdict says whether a pod is isolated.
// +kubebuilder:validation:Enum=Isolated;Leaking;NotEnforceable;Gone;Unknown;Released
type Verdict string

const (
	// VerdictIsolated says that the union of all policies that select the pod allows nothing but the declared exceptions.
	VerdictIsolated Verdict = "Isolated"
	// VerdictLeaking says that a policy still allows something; leaks name it.
	VerdictLeaking Verdict = "Leaking"
	// VerdictNotEnforceable says that NetworkPolicy cannot isolate this pod, for example because it uses the host's network.
	VerdictNotEnforceable Verdict = "NotEnforceable"
	// VerdictGone says that the pod, by its UID, does not exist any more or has ended.
	VerdictGone Verdict = "Gone"
	// VerdictUnknown says that the verdict could not be computed; the message says why.
	VerdictUnknown Verdict = "Unknown"
	// VerdictReleased says that this Incident's quarantine of the pod was lifted.
	VerdictReleased Verdict = "Released"
)

// LeakState says whether a leak can be used now.
// +kubebuilder:validation:Enum=Active;Latent
type LeakState string

const (
	// LeakActive says that somebody can use the leak now: it is open to addresses, or a pod exists that it names.
	LeakActive LeakState = "Active"
	// LeakLatent says that nobody matches the leak now; a new pod or a label is enough.
	LeakLatent LeakState = "Latent"
)

// Leak is something that is still allowed to or from a quarantined pod.
type Leak struct {
	// direction is Ingress or Egress, as seen from the pod.
	// +required
	Direction TrafficDirection `json:"direction,omitempty"`

	// kind is the kind of the policy that allows it, such as NetworkPolicy or ClusterNetworkPolicy. Empty when no policy restricts the direction.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`

	// policy is the policy that allows it, as namespace/name, or its name alone if it is cluster-scoped. Empty when no policy restricts the direction.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Policy string `json:"policy,omitempty"`

	// generation is the metadata.generation of the policy that was evaluated.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`

	// rule is the index of the rule in the policy's list for the direction, counted from 0; -1 when there is no rule.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	Rule *int32 `json:"rule,omitempty"`

	// peer says who is allowed, in words.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Peer string `json:"peer,omitempty"`

	// ports says which ports are allowed, in words.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Ports string `json:"ports,omitempty"`

	// state is Active when somebody can use the leak now, and Latent when nobody matches it at present.
	// +optional
	State LeakState `json:"state,omitempty"`

	// undecided says why it is not certain that this is allowed. Not set for a certain leak.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Undecided string `json:"undecided,omitempty"`

	// remedy says what the operator does about it, or which edit closes it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Remedy string `json:"remedy,omitempty"`
}

// Proof says how a verdict was reached.
// +kubebuilder:validation:Enum=Static
type Proof string

// ProofStatic says that the verdict was computed from the policies in force. Whether the network plugin enforces them was not probed.
const ProofStatic Proof = "Static"

// Handling says what was done to a pod.
// +kubebuilder:validation:Enum=Pending;Detached;Attached;Untouched;Released
type Handling string

const (
	// HandlingPending says that the pod is not yet labelled.
	HandlingPending Handling = "Pending"
	// HandlingDetached says that all its labels were taken off.
	HandlingDetached Handling = "Detached"
	// HandlingAttached says that it carries the quarantine label and keeps its own.
	HandlingAttached Handling = "Attached"
	// HandlingUntouched says that it was left as it is, because quarantine cannot be enforced on it.
	HandlingUntouched Handling = "Untouched"
	// HandlingReleased says that this Incident holds it no more.
	HandlingReleased Handling = "Released"
)

// PodStatus is what is known of one pod.
type PodStatus struct {
	// namespace is the namespace of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is the UID of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// node is the node that the pod runs on.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// ips are the addresses of the pod.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=64
	IPs []string `json:"ips,omitempty"`

	// owner is the target workload that the pod belonged to when it was recorded.
	// +optional
	Owner ObjectRef `json:"owner,omitempty,omitzero"`

	// revision is the id, in status.revisions, of the revision that the pod was created from. A bare pod has none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Revision string `json:"revision,omitempty"`

	// replacement is "Yes" when the pod was created from a compromised revision after quarantine began.
	// +optional
	// +kubebuilder:validation:Enum=Yes
	// +kubebuilder:validation:MaxLength=3
	Replacement string `json:"replacement,omitempty"`

	// handling says what was done to the pod.
	// +required
	Handling Handling `json:"handling,omitempty"`

	// verdict says whether the pod is isolated.
	// +required
	Verdict Verdict `json:"verdict,omitempty"`

	// proof says how the verdict was reached, when it is Isolated.
	// +optional
	Proof Proof `json:"proof,omitempty"`

	// message explains the verdict and names what to do next.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// leaks are the first things that are still allowed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Leaks []Leak `json:"leaks,omitempty"`

	// leakCount is the number of leaks found, which may be more than are listed. Not set when there are none.
	// +optional
	// +kubebuilder:validation:Minimum=1
	LeakCount int32 `json:"leakCount,omitempty"`

	// undecidedCount is how many of the leaks are not certain. Not set when all of them are.
	// +optional
	// +kubebuilder:validation:Minimum=1
	UndecidedCount int32 `json:"undecidedCount,omitempty"`

	// before says what the policies allowed to and from the pod when it was recorded, before anything was changed.
	// +optional
	Before Reach `json:"before,omitempty,omitzero"`

	// claims are the PersistentVolumeClaims that the pod used when it was recorded.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	Claims []string `json:"claims,omitempty"`

	// routes are the first Services, EndpointSlices, Ingresses and Gateway routes that led to the pod when it was recorded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=256
	Routes []string `json:"routes,omitempty"`

	// residuals name what the proof does not cover. EstablishedConnections: connections opened before. NodeLocal: the pod's own node.
	// ICMP: protocols that policies do not know. EnforcementNotProbed: nobody has seen the network plugin enforce the policies. HostPort, Privileged: what the pod's
	// manifest allows beyond its network. ManualEndpointSlice: an EndpointSlice that no controller keeps still names the pod. ReplacementBlocked: the pod holds a
	// name that its StatefulSet needs for a replacement. Adopted: another controller has taken up the detached pod.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	Residuals []string `json:"residuals,omitempty"`
}

// Reach is what policies allow, in words.
// +kubebuilder:validation:MinProperties=1
type Reach struct {
	// ingress says who may reach the pod.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Ingress string `json:"ingress,omitempty"`

	// egress says whom the pod may reach.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Egress string `json:"egress,omitempty"`
}

// ExceptionState says whether an exception of the standing orders is open.
// +kubebuilder:validation:Enum=Open;Withheld
type ExceptionState string

const (
	// ExceptionOpen says that the flow is allowed to the quarantined pods of the namespace.
	ExceptionOpen ExceptionState = "Open"
	// ExceptionWithheld says that it is not: a policy kept the flow closed to at least one pod before, and containing never opens anything.
	ExceptionWithheld ExceptionState = "Withheld"
)

// ExceptionStatus says what became of an exception in one namespace.
type ExceptionStatus struct {
	// namespace is the namespace of the quarantined pods.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the exception in the standing orders.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// state is Open or Withheld. It never goes back to Open.
	// +required
	State ExceptionState `json:"state,omitempty"`

	// pod is the first pod to which the flow was closed before.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
}

// Tampering is a change, by somebody else, of something that holds the quarantine.
type Tampering struct {
	// at is when the operator saw it.
	// +required
	At metav1.Time `json:"at,omitempty,omitzero"`

	// object is what was changed.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// what says what was changed and what was done about it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	What string `json:"what,omitempty"`

	// by is the field manager that changed the object last, as far as metadata.managedFields tells. A deleted object does not tell. It is the name of a program, not of a person: the audit log has the person.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	By string `json:"by,omitempty"`

	// changedAt is when that field manager changed the object.
	// +optional
	ChangedAt metav1.Time `json:"changedAt,omitempty,omitzero"`
}

// RevisionState says whether a compromised revision is held.
// +kubebuilder:validation:Enum=Held;Released
type RevisionState string

const (
	// RevisionHeld says that new pods of the revision are quarantined or refused.
	RevisionHeld RevisionState = "Held"
	// RevisionReleased says that they are not any more.
	RevisionReleased RevisionState = "Released"
)

// RevisionStatus is one compromised revision of a target workload.
type RevisionStatus struct {
	// id identifies the revision: the UID of its owner, and the revision hash where the owner has several.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id,omitempty"`

	// workload is the target workload.
	// +required
	Workload ObjectRef `json:"workload,omitempty,omitzero"`

	// selector selects the pods of the revision. If not set, the revision has no pods of its own (CronJob).
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// images are the images of the revision.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=512
	Images []string `json:"images,omitempty"`

	// state says whether the revision is held.
	// +required
	State RevisionState `json:"state,omitempty"`
}

// EvidenceType is a kind of evidence.
// +kubebuilder:validation:Enum=Manifests;Surroundings;Checkpoint;Logs;VolumeSnapshot;Job
type EvidenceType string

const (
	// EvidenceManifests is the pod, its owners, its events and the policies that selected it, as they were before the operator changed it.
	EvidenceManifests EvidenceType = "Manifests"
	// EvidenceSurroundings is what was around the pods of one namespace before the operator changed anything: workloads and their revisions, Services, policies, accounts and their rights, volumes, nodes, and the names,
	// but not the contents, of Secrets and ConfigMaps.
	EvidenceSurroundings EvidenceType = "Surroundings"
	// EvidenceCheckpoint is the memory and the open files of a pod's containers, as the kubelet wrote them to the node's disk.
	EvidenceCheckpoint EvidenceType = "Checkpoint"
	// EvidenceLogs are the logs of every container of a pod.
	EvidenceLogs EvidenceType = "Logs"
	// EvidenceJobOutput is what a tool of the standing orders printed about a pod.
	EvidenceJobOutput EvidenceType = "Job"
	// EvidenceVolumeSnapshot is a snapshot of one volume.
	EvidenceVolumeSnapshot EvidenceType = "VolumeSnapshot"
)

// EvidenceState says whether an item is safe.
// +kubebuilder:validation:Enum=Pending;Collected;Partial;Gap;Removed
type EvidenceState string

const (
	// EvidencePending says that the item is being collected.
	EvidencePending EvidenceState = "Pending"
	// EvidenceCollected says that the item is safe: observed, not assumed.
	EvidenceCollected EvidenceState = "Collected"
	// EvidencePartial says that a part of the item is safe and the rest could not be had; the message says what is missing. Like a gap, it may have to be waived.
	EvidencePartial EvidenceState = "Partial"
	// EvidenceGap says that the item could not be had; the message says why.
	EvidenceGap EvidenceState = "Gap"
	// EvidenceRemoved says that it was removed from the store after an approved release.
	EvidenceRemoved EvidenceState = "Removed"
)

// EvidenceItem is one piece of evidence.
type EvidenceItem struct {
	// id identifies the item within the Incident.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id,omitempty"`

	// type is the kind of evidence.
	// +required
	Type EvidenceType `json:"type,omitempty"`

	// subject is the pod or the PersistentVolumeClaim that the item preserves.
	// +required
	Subject ObjectRef `json:"subject,omitempty,omitzero"`

	// pods are the UIDs of the pods that the item belongs to.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:items:MaxLength=64
	Pods []string `json:"pods,omitempty"`

	// state says whether the item is safe.
	// +required
	State EvidenceState `json:"state,omitempty"`

	// location says where it is kept: the key in the evidence store, "VolumeSnapshotContent snapcontent-…", a file on a node, or, until it has been brought into the store, "ConfigMap cofferdam-system/evidence-…".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Location string `json:"location,omitempty"`

	// volume is the handle by which the CSI driver knows the volume that a snapshot is of.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Volume string `json:"volume,omitempty"`

	// snapshotHandle is the handle by which the CSI driver knows the snapshot itself. With it the snapshot can be found in the storage system without the cluster.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	SnapshotHandle string `json:"snapshotHandle,omitempty"`

	// digest is the SHA-256 of what was collected, before encryption, where the operator has read it: "sha256:<hex>". Logs have the digest of their zip, whose index.json has the digest of each log.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`

	// storedDigest is the SHA-256 of the bytes in the store, where it differs from digest because they are encrypted.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	StoredDigest string `json:"storedDigest,omitempty"`

	// storedSize is the number of bytes in the store, where it differs from size because they are encrypted.
	// +optional
	// +kubebuilder:validation:Minimum=1
	StoredSize int64 `json:"storedSize,omitempty"`

	// size is how much was collected, in bytes. Not set when nothing was stored.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Size int64 `json:"size,omitempty"`

	// job is the name of the job in the standing orders, for what a job printed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Job string `json:"job,omitempty"`

	// takenAt is when the evidence was taken: for a snapshot the driver's own creation time.
	// +optional
	TakenAt metav1.Time `json:"takenAt,omitempty,omitzero"`

	// deadline is when a pending item becomes a gap.
	// +optional
	Deadline metav1.Time `json:"deadline,omitempty,omitzero"`

	// earlier names the VolumeSnapshotContents of snapshots of the volume that were taken for this item before, were deleted by somebody else, and had to be taken again. What they hold is retained, and is
	// removed when the evidence is.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Earlier []string `json:"earlier,omitempty"`

	// caveat says why what is being collected is not all that the pods had. It is kept from when that is found out; an item that has one is never Collected but Partial, and its message then says the same.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Caveat string `json:"caveat,omitempty"`

	// message says what the item waits for, or why it is a gap.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// CustodyStatus is how far the ledger has come. Whoever keeps a copy of it can tell later whether the ledger was cut off.
type CustodyStatus struct {
	// store is the URL of the evidence store, without credentials.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Store string `json:"store,omitempty"`

	// entries is the number of entries in the ledger.
	// +required
	// +kubebuilder:validation:Minimum=1
	Entries int64 `json:"entries,omitempty"`

	// digest is the SHA-256 of the last entry, which vouches for all before it: "sha256:<hex>".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`

	// keyID identifies the public key that has signed this head of the ledger. Not set when it is not signed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	KeyID string `json:"keyID,omitempty"`

	// signature is the Ed25519 signature of the head, in base64.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Signature string `json:"signature,omitempty"`

	// signedAt is when the head was signed.
	// +optional
	SignedAt metav1.Time `json:"signedAt,omitempty,omitzero"`

	// attestedAt is when a time-stamp authority saw the head, by its own clock. Not set when none was asked, or none has answered.
	// +optional
	AttestedAt metav1.Time `json:"attestedAt,omitempty,omitzero"`
}

// Action is something that the operator does to an existing object.
// +kubebuilder:validation:Enum=QuarantinePod;CarveOutPolicy;RestorePolicy;RetainSnapshot;DeleteSnapshot;LabelClaim;RestoreClaim;RemoveEvidence;RollBackImages;LiftPartition;ReturnPartition;HoldVolume;RebindVolume;ReplaceClaim;ChangeClaim;HandOverClaim;ReplaceWorkload;ReturnVolume;RetainClaims;ReturnRetention;Scale;RestoreReplicas;PauseAutoscaler;ResumeAutoscaler;Notify;RotateSecret;SyncExternalSecret;RenewCertificate;DeleteToken;Restart;DeletePod;ReleasePod;ReleaseRevision;LiftQuarantine;HoldIncident;LetIncidentGo;RepairMeasure;UpdateList;ReleaseSnapshot;RemoveJob;RemoveCopy;TakeOverCopy;PauseGitOps;ResumeGitOps
type Action string

const (
	// ActionQuarantinePod puts the quarantine label on a pod and, when detaching, takes its own labels off.
	ActionQuarantinePod Action = "QuarantinePod"
	// ActionCarveOutPolicy takes quarantined pods out of the podSelector of somebody else's NetworkPolicy that leaks.
	ActionCarveOutPolicy Action = "CarveOutPolicy"
	// ActionRestorePolicy takes that back.
	ActionRestorePolicy Action = "RestorePolicy"
	// ActionRetainSnapshot sets the deletionPolicy of a VolumeSnapshotContent or VolumeGroupSnapshotContent to Retain and marks it as evidence; it puts mark and finalizer on a VolumeSnapshot that was taken with a group.
	ActionRetainSnapshot Action = "RetainSnapshot"
	// ActionDeleteSnapshot deletes a snapshot that was not ready in time, because it would keep its claim from being deleted, or one whose removal was approved.
	ActionDeleteSnapshot Action = "DeleteSnapshot"
	// ActionLabelClaim labels a PersistentVolumeClaim for a VolumeGroupSnapshot.
	ActionLabelClaim Action = "LabelClaim"
	// ActionRestoreClaim takes that label off again.
	ActionRestoreClaim Action = "RestoreClaim"
	// ActionRemoveEvidence removes an evidence item from the store, after an approved release.
	ActionRemoveEvidence Action = "RemoveEvidence"
	// ActionRollBackImages changes a pod template to known-good images.
	ActionRollBackImages Action = "RollBackImages"
	// ActionLiftPartition sets the partition of a StatefulSet's rolling update to 0, so that all of its pods are replaced.
	ActionLiftPartition Action = "LiftPartition"
	// ActionReturnPartition takes that back.
	ActionReturnPartition Action = "ReturnPartition"
	// ActionHoldVolume sets the reclaim policy of a PersistentVolume to Retain and marks it with the Incident.
	ActionHoldVolume Action = "HoldVolume"
	// ActionRebindVolume reserves a PersistentVolume for a claim that it is not bound to.
	ActionRebindVolume Action = "RebindVolume"
	// ActionReplaceClaim deletes a PersistentVolumeClaim, which is created anew with another volume.
	ActionReplaceClaim Action = "ReplaceClaim"
	// ActionReturnVolume gives a PersistentVolume the reclaim policy that it had.
	ActionReturnVolume Action = "ReturnVolume"
	// ActionChangeClaim changes which claims the volumes of a Deployment's pod template name.
	ActionChangeClaim Action = "ChangeClaim"
	// ActionHandOverClaim takes the mark off a claim that was made for a Deployment, and gives it the labels of the one in whose place it is used.
	ActionHandOverClaim Action = "HandOverClaim"
	// ActionReplaceWorkload deletes a Job that is created anew with known-good images, or a Job or pod that was created so, when that is taken back.
	ActionReplaceWorkload Action = "ReplaceWorkload"
	// ActionRetainClaims changes a StatefulSet's retention policy, so that scaling it down deletes no claim.
	ActionRetainClaims Action = "RetainClaims"
	// ActionReturnRetention takes that back.
	ActionReturnRetention Action = "ReturnRetention"
	// ActionScale changes the replicas of a workload.
	ActionScale Action = "Scale"
	// ActionRestoreReplicas gives a workload the replicas back that it had.
	ActionRestoreReplicas Action = "RestoreReplicas"
	// ActionPauseAutoscaler pauses what scales a workload by itself.
	ActionPauseAutoscaler Action = "PauseAutoscaler"
	// ActionResumeAutoscaler takes that back.
	ActionResumeAutoscaler Action = "ResumeAutoscaler"
	// ActionNotify sends a message to a route of the standing orders.
	ActionNotify Action = "Notify"
	// ActionRotateSecret replaces entries of a Secret by random values.
	ActionRotateSecret Action = "RotateSecret"
	// ActionSyncExternalSecret has an ExternalSecret synchronised anew.
	ActionSyncExternalSecret Action = "SyncExternalSecret"
	// ActionRenewCertificate has a Certificate issued anew.
	ActionRenewCertificate Action = "RenewCertificate"
	// ActionDeleteToken deletes a Secret with a token of a ServiceAccount.
	ActionDeleteToken Action = "DeleteToken"
	// ActionRestart changes an annotation of a pod template, so that the workload's pods are replaced.
	ActionRestart Action = "Restart"
	// ActionDeletePod deletes a quarantined pod.
	ActionDeletePod Action = "DeletePod"
	// ActionReleasePod takes this Incident's label off a pod, and gives it its labels back when no other Incident holds it.
	ActionReleasePod Action = "ReleasePod"
	// ActionReleaseRevision lifts the quarantine or refusal of a revision.
	ActionReleaseRevision Action = "ReleaseRevision"
	// ActionLiftQuarantine deletes the Incident's own deny policy in a namespace, once no pod there is held by it.
	ActionLiftQuarantine Action = "LiftQuarantine"
	// ActionHoldIncident puts the finalizer on the Incident: it cannot be deleted while it holds a quarantine.
	ActionHoldIncident Action = "HoldIncident"
	// ActionLetIncidentGo takes that finalizer off again.
	ActionLetIncidentGo Action = "LetIncidentGo"
	// ActionRepairMeasure makes something that holds the quarantine what it has to be again: somebody has changed it, or an exception is withheld from now on.
	ActionRepairMeasure Action = "RepairMeasure"
	// ActionUpdateList changes or deletes a list that admission reads, of revisions that are refused or of what is held.
	ActionUpdateList Action = "UpdateList"
	// ActionReleaseSnapshot takes the mark of evidence and the finalizer off a snapshot that is being deleted.
	ActionReleaseSnapshot Action = "ReleaseSnapshot"
	// ActionRemoveJob deletes the Job of an evidence tool, or its NetworkPolicy, once what the tool has printed is kept.
	ActionRemoveJob Action = "RemoveJob"
	// ActionRemoveCopy deletes a copy of evidence in the operator's namespace: after an approved removal, or because it is a part of a document that was never completed.
	ActionRemoveCopy Action = "RemoveCopy"
	// ActionTakeOverCopy marks such a part as one that is used after all.
	ActionTakeOverCopy Action = "TakeOverCopy"
	// ActionPauseGitOps pauses what applies workloads from Git, or lets it be paused.
	ActionPauseGitOps Action = "PauseGitOps"
	// ActionResumeGitOps takes that back.
	ActionResumeGitOps Action = "ResumeGitOps"
)

// JournalState says how far an action has come.
// +kubebuilder:validation:Enum=Intended;Done
type JournalState string

const (
	// JournalIntended is written before the action, so that a crash leaves a trace of what was about to happen.
	JournalIntended JournalState = "Intended"
	// JournalDone is written once the action's effect has been observed, or once its object was seen to be gone.
	JournalDone JournalState = "Done"
)

// JournalEntry is the record of one action on an existing object.
type JournalEntry struct {
	// number counts the entries of this Incident's journal from 1, those that were left out too. Not set on entries of early versions.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Number int64 `json:"number,omitempty"`

	// action is what is done.
	// +required
	Action Action `json:"action,omitempty"`

	// object is what it is done to.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// state is Intended before the action and Done once its effect was observed.
	// +required
	State JournalState `json:"state,omitempty"`

	// intendedAt is when the intent was recorded.
	// +required
	IntendedAt metav1.Time `json:"intendedAt,omitempty,omitzero"`

	// doneAt is when the effect was observed.
	// +optional
	DoneAt metav1.Time `json:"doneAt,omitempty,omitzero"`

	// detail says what is changed, for example the images before and after.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Detail string `json:"detail,omitempty"`
}

// PlannedAction is one thing that Enforce would do.
type PlannedAction struct {
	// verb is create, update, patch or delete, or notify, where a route of the standing orders would be sent a message.
	// +required
	// +kubebuilder:validation:Enum=create;update;patch;delete;notify
	Verb string `json:"verb,omitempty"`

	// object is what it would be done to.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// detail says what would change.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Detail string `json:"detail,omitempty"`
}

// StepState says how far a recovery step has come.
// +kubebuilder:validation:Enum=Pending;Running;Overdue;Succeeded;Failed;Skipped;Undoing;Undone
type StepState string

const (
	// StepPending says that the step waits for the steps it depends on, or for its turn.
	StepPending StepState = "Pending"
	// StepRunning says that the step has started.
	StepRunning StepState = "Running"
	// StepOverdue says that the step has passed its deadline and is still watched.
	StepOverdue StepState = "Overdue"
	// StepSucceeded says that what the step is for was observed.
	StepSucceeded StepState = "Succeeded"
	// StepFailed says that the step has come to nothing and is not tried any more.
	StepFailed StepState = "Failed"
	// StepSkipped says that a person has decided to go on without it.
	StepSkipped StepState = "Skipped"
	// StepUndoing says that what the step has done is being taken back.
	StepUndoing StepState = "Undoing"
	// StepUndone says that it was.
	StepUndone StepState = "Undone"
)

// StepRecord is what a step has seen of an object before it changed it.
type StepRecord struct {
	// object is the object.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// resourceVersion is the version that was seen.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ResourceVersion string `json:"resourceVersion,omitempty"`

	// data is what is needed to put the object back, in JSON.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Data string `json:"data,omitempty"`
}

// SeenApproval is an approval with the time at which the operator has first seen it.
type SeenApproval struct {
	// author is the approver's user name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Author string `json:"author,omitempty"`

	// seenAt is when the operator has first seen the approval.
	// +required
	SeenAt metav1.Time `json:"seenAt,omitempty,omitzero"`
}

// ChosenImage is the image that one container comes back with.
type ChosenImage struct {
	// name is the name of the container or init container.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// image is the image, pinned by digest.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`
}

// StepChoice is what a step will use, decided when the recovery began, so that people approve it and not a rule.
type StepChoice struct {
	// step is the name of the step.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step,omitempty"`

	// object is what is brought back, such as a workload or a PersistentVolumeClaim, or what is rotated or restarted.
	// +required
	Object ObjectRef `json:"object,omitempty,omitzero"`

	// source is the object that it is brought back from, such as a VolumeSnapshot.
	// +optional
	Source ObjectRef `json:"source,omitempty,omitzero"`

	// consumers are the Deployments whose pod templates will name another claim, where a step changes that.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Consumers []ObjectRef `json:"consumers,omitempty"`

	// digest is the SHA-256 of what is brought back, where that is read from the source only when it is needed: "sha256:<hex>".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`

	// images are the images that a workload comes back with.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Images []ChosenImage `json:"images,omitempty"`

	// why says why this was chosen.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Why string `json:"why,omitempty"`
}

// StepStatus is how far one step has come.
type StepStatus struct {
	// name is the name of the step.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// state says how far the step has come.
	// +required
	State StepState `json:"state,omitempty"`

	// startedAt is when the step started.
	// +optional
	StartedAt metav1.Time `json:"startedAt,omitempty,omitzero"`

	// finishedAt is when the step succeeded, failed, or was skipped or undone.
	// +optional
	FinishedAt metav1.Time `json:"finishedAt,omitempty,omitzero"`

	// observedSince is when everything was released that a release step releases. It is observed from then on.
	// +optional
	ObservedSince metav1.Time `json:"observedSince,omitempty,omitzero"`

	// notObservedSince is since when what was released could not be looked at, such as while the recovery was paused, the evidence store was away, or what is watched gave no answer. It is gone once it was looked at.
	// +optional
	NotObservedSince metav1.Time `json:"notObservedSince,omitempty,omitzero"`

	// notObservedSeconds is for how many seconds since observedSince what was released could not be looked at. They do not count as observed. After a restart of the operator, observation begins anew.
	// +optional
	// +kubebuilder:validation:Minimum=1
	NotObservedSeconds int32 `json:"notObservedSeconds,omitempty"`

	// records are what the step has seen of the objects that it changes.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Records []StepRecord `json:"records,omitempty"`

	// approvals are the approvals of approvalDigest that were seen.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Approvals []SeenApproval `json:"approvals,omitempty"`

	// approvalDigest is the digest that approvals of an approve step name. It is planDigest at first, and another one each time that approvals have lapsed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ApprovalDigest string `json:"approvalDigest,omitempty"`

	// interventions is how many of the step's interventions were carried out or refused.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Interventions int32 `json:"interventions,omitempty"`

	// tries is how often the step was retried.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Tries int32 `json:"tries,omitempty"`

	// override says who lets a resumeGitOps step resume without having seen what the source renders, and why. It counts until the step is retried.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Override string `json:"override,omitempty"`

	// lastIntervention says who intervened last, why, and what came of it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	LastIntervention string `json:"lastIntervention,omitempty"`

	// message says what the step waits for, or what it has observed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// Relapse is a workload that was quarantined again after it had been released.
type Relapse struct {
	// workload is the workload. Its pods are quarantined, whatever images they run, until clearedAt.
	// +required
	Workload ObjectRef `json:"workload,omitempty,omitzero"`

	// step is the release step that had released it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step,omitempty"`

	// at is when that was decided.
	// +required
	At metav1.Time `json:"at,omitempty,omitzero"`

	// why says what was observed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Why string `json:"why,omitempty"`

	// afterEntry is the number of the last journal entry there was by then. What had been released by then counts as released no more.
	// +optional
	// +kubebuilder:validation:Minimum=1
	AfterEntry int64 `json:"afterEntry,omitempty"`

	// revisions are the ids of the revisions that are held because of it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Revisions []string `json:"revisions,omitempty"`

	// clearedAt is when a person had the step retried, and with it the workload released once more.
	// +optional
	ClearedAt metav1.Time `json:"clearedAt,omitempty,omitzero"`
}

// RecoveryStatus is the execution of the recovery plan.
type RecoveryStatus struct {
	// planName is the name of the RecoveryPlan.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PlanName string `json:"planName,omitempty"`

	// planUID is its UID.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PlanUID string `json:"planUID,omitempty"`

	// planDigest is the SHA-256 of the plan that is executed, with what was chosen. Approvals name it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	PlanDigest string `json:"planDigest,omitempty"`

	// plan is the copy that is executed. Editing the RecoveryPlan does not change it.
	// +required
	Plan RecoveryPlanSpec `json:"plan,omitempty,omitzero"`

	// choices are what the steps will use, decided when the recovery began.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	Choices []StepChoice `json:"choices,omitempty"`

	// images are what was found out about the images of the plan when the recovery began, if the plan has spec.verification.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Images []VerifiedImage `json:"images,omitempty"`

	// relapses are the workloads that were quarantined again after they had been released.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Relapses []Relapse `json:"relapses,omitempty"`

	// pauses are the managers of Argo CD and Flux that the recovery has paused, in the order in which it did.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Pauses []GitOpsPause `json:"pauses,omitempty"`

	// steps are the steps in the order of the plan.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Steps []StepStatus `json:"steps,omitempty"`
}

// RecoveryTurnState says whether people hold a recovery back.
// +kubebuilder:validation:Enum=Paused;Resumed
type RecoveryTurnState string

const (
	// RecoveryPaused says that spec.recovery.paused was found to be true.
	RecoveryPaused RecoveryTurnState = "Paused"
	// RecoveryResumed says that it was found not to be any more.
	RecoveryResumed RecoveryTurnState = "Resumed"
)

// RecoveryTurn is one time that people paused the recovery, or let it go on.
type RecoveryTurn struct {
	// at is when the operator saw it.
	// +required
	At metav1.Time `json:"at,omitempty,omitzero"`

	// generation is the generation of the Incident in which the operator saw it.
	// +required
	// +kubebuilder:validation:Minimum=1
	Generation int64 `json:"generation,omitempty"`

	// state is Paused or Resumed.
	// +required
	State RecoveryTurnState `json:"state,omitempty"`

	// reason is the reason that was given in spec.recovery.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// author is who has set spec.recovery.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Author string `json:"author,omitempty"`
}

// TimelineEntry is one thing that happened.
type TimelineEntry struct {
	// at is when it was observed.
	// +required
	At metav1.Time `json:"at,omitempty,omitzero"`

	// reason is a word for machines.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message is a sentence for people.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// Summary is for columns and pages.
// +kubebuilder:validation:MinProperties=1
type Summary struct {
	// pods says how many of the pods are isolated, such as "2/3 isolated".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Pods string `json:"pods,omitempty"`

	// evidence says how many of the evidence items are safe, such as "5/6, 1 gap".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Evidence string `json:"evidence,omitempty"`

	// recovery says how many of the steps have succeeded, such as "3/4 steps".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Recovery string `json:"recovery,omitempty"`
}

// Nobody but the operator writes the status, and it writes the whole of it: its lists are atomic, so that what the API server records about who manages which field stays small.

// IncidentStatus is what the operator has observed and done.
// +kubebuilder:validation:MinProperties=1
type IncidentStatus struct {
	// conditions of the Incident: Accepted, Contained, Guarded, EvidenceCollected, Custody, Recovered, Released, and GitOpsPaused once something was paused; and Ready, Reconciling and Stalled for
	// tools that follow kstatus.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that the status speaks of.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// summary is for columns and pages.
	// +optional
	Summary Summary `json:"summary,omitempty,omitzero"`

	// policy is the copy of the standing orders that was in force when the Incident was accepted.
	// +optional
	Policy *GoverningPolicy `json:"policy,omitempty,omitzero"`

	// containedAt is when every pod was first proven isolated.
	// +optional
	ContainedAt metav1.Time `json:"containedAt,omitempty,omitzero"`

	// recoveredAt is when the recovery plan was completed.
	// +optional
	RecoveredAt metav1.Time `json:"recoveredAt,omitempty,omitzero"`

	// releasedAt is when the last quarantine was lifted.
	// +optional
	ReleasedAt metav1.Time `json:"releasedAt,omitempty,omitzero"`

	// closeDigest is the digest of what closing would do now. Approvals of the step "close" name it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	CloseDigest string `json:"closeDigest,omitempty"`

	// targets are the objects that spec.targets stands for, recorded when they were first resolved.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	Targets []ResolvedTarget `json:"targets,omitempty"`

	// pods are the pods of the targets, each with its verdict.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	Pods []PodStatus `json:"pods,omitempty"`

	// exceptions says which of the standing orders' exceptions are open, in each target namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Exceptions []ExceptionStatus `json:"exceptions,omitempty"`

	// measures are the objects that the operator has created to hold the quarantine and has seen in force: NetworkPolicies, PodDisruptionBudgets and the like.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=320
	Measures []ObjectRef `json:"measures,omitempty"`

	// tampering are the latest changes, by others, of what holds the quarantine. Each was repaired, or is being repaired.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Tampering []Tampering `json:"tampering,omitempty"`

	// tamperingCount is how many there were in all. Not set when there were none.
	// +optional
	// +kubebuilder:validation:Minimum=1
	TamperingCount int32 `json:"tamperingCount,omitempty"`

	// revisions are the compromised revisions of the targets.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Revisions []RevisionStatus `json:"revisions,omitempty"`

	// custody is the head of the ledger of this Incident. Not set before the first entry is written.
	// +optional
	Custody *CustodyStatus `json:"custody,omitempty,omitzero"`

	// gapDigest is the digest of the evidence gaps there are now. Approvals of the step "waive-gaps" name it. Not set when nothing has to be waived.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	GapDigest string `json:"gapDigest,omitempty"`

	// removalDigest is the digest of the evidence that would be removed. Approvals of the step "remove-evidence" name it. Not set before the Incident is closed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RemovalDigest string `json:"removalDigest,omitempty"`

	// evidence is what is kept.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Evidence []EvidenceItem `json:"evidence,omitempty"`

	// journal records every action on an existing object, before and after. An action that was needed again has an entry for each time. When it is about to be full, the oldest entries whose outcome is
	// known and which the custody ledger has are left out; those that are open never are.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Journal []JournalEntry `json:"journal,omitempty"`

	// journalOmitted is how many entries of the journal were left out. The custody ledger has them. Not set while there are none.
	// +optional
	// +kubebuilder:validation:Minimum=1
	JournalOmitted int64 `json:"journalOmitted,omitempty"`

	// recovery is the execution of the recovery plan.
	// +optional
	Recovery *RecoveryStatus `json:"recovery,omitempty,omitzero"`

	// recoveryTurns are the latest times that people paused the recovery or let it go on. The custody ledger has all of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	RecoveryTurns []RecoveryTurn `json:"recoveryTurns,omitempty"`

	// plannedActions is, in DryRun, what Enforce would do next, in order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	PlannedActions []PlannedAction `json:"plannedActions,omitempty"`

	// timeline is what happened, oldest first. When it is full the oldest entries after the first ten are dropped.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Timeline []TimelineEntry `json:"timeline,omitempty"`
}
