package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ContainmentPolicySpec is the standing orders for the Incidents that the policy governs.
type ContainmentPolicySpec struct {
	// appliesTo says which Incidents this policy governs when they name no policy themselves.
	// If not set, it governs every Incident. Exactly one policy must govern an Incident.
	// +optional
	AppliesTo AppliesTo `json:"appliesTo,omitempty,omitzero"`

	// isolation says how pods are cut off from the network.
	// +optional
	Isolation Isolation `json:"isolation,omitempty,omitzero"`

	// evidence says what is kept before anything is destroyed.
	// +optional
	Evidence EvidenceOrders `json:"evidence,omitempty,omitzero"`

	// limits bound what one Incident may touch. An Incident that exceeds them is not accepted and nothing is written.
	// +optional
	Limits Limits `json:"limits,omitempty,omitzero"`

	// protectedNamespaces names namespaces that no Incident under this policy may target. The namespaces kube-system,
	// kube-public and kube-node-lease, the operator's own, and the usual namespaces of network plugins are always protected.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	ProtectedNamespaces []string `json:"protectedNamespaces,omitempty"`

	// closing says what it takes to close an Incident and what happens to the pods it still holds.
	// +optional
	Closing Closing `json:"closing,omitempty,omitzero"`

	// recovery says what recoveries may use.
	// +optional
	Recovery RecoveryOrders `json:"recovery,omitempty,omitzero"`

	// notifications says whom recoveries may notify.
	// +optional
	Notifications Notifications `json:"notifications,omitempty,omitzero"`
}

// AppliesTo selects Incidents. Every criterion that is set must match.
// +kubebuilder:validation:MinProperties=1
type AppliesTo struct {
	// namespaceSelector selects the namespaces of the Incidents by label. If not set, every namespace.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// categories are the categories of the Incidents. If not set, every category.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Categories []Category `json:"categories,omitempty"`

	// severities are the severities of the Incidents. If not set, every severity.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Severities []Severity `json:"severities,omitempty"`
}

// PodHandling says what quarantine does to the labels of a pod.
// +kubebuilder:validation:Enum=Detach;KeepAttached
type PodHandling string

const (
	// PodHandlingDetach takes all original labels off the pod, so that Services, owners and other NetworkPolicies let go of it.
	PodHandlingDetach PodHandling = "Detach"
	// PodHandlingKeepAttached adds the quarantine label only. Other NetworkPolicies may go on allowing traffic, which is reported as a leak.
	PodHandlingKeepAttached PodHandling = "KeepAttached"
)

// ReplacementHandling says what happens to pods that controllers create from a compromised revision.
// +kubebuilder:validation:Enum=Quarantine;Refuse
type ReplacementHandling string

const (
	// ReplacementQuarantine lets them start under a deny policy that selects the revision, so that they are quarantined from
	// their first packet.
	ReplacementQuarantine ReplacementHandling = "Quarantine"
	// ReplacementRefuse refuses them at admission.
	ReplacementRefuse ReplacementHandling = "Refuse"
)

// DenyTierUse says whether a deny tier is used.
// +kubebuilder:validation:Enum=Auto;Never
type DenyTierUse string

const (
	// DenyTierAuto uses the deny tier that the cluster serves when detaching does not close every leak.
	DenyTierAuto DenyTierUse = "Auto"
	// DenyTierNever uses none.
	DenyTierNever DenyTierUse = "Never"
)

// ConflictHandling says what is done about somebody else's policy that leaks.
// +kubebuilder:validation:Enum=Report;CarveOut
type ConflictHandling string

const (
	// ConflictReport names the policy and the edit that closes the leak.
	ConflictReport ConflictHandling = "Report"
	// ConflictCarveOut takes the quarantined pods out of the policy's podSelector.
	ConflictCarveOut ConflictHandling = "CarveOut"
)

// Isolation says how pods are cut off.
// +kubebuilder:validation:MinProperties=1
type Isolation struct {
	// pods says what quarantine does to a pod's labels.
	// "Detach" (default) takes all labels off, so that Services, owners and other NetworkPolicies let go of the pod; the labels are
	// kept in an annotation. "KeepAttached" only adds the quarantine label.
	// +optional
	// +default="Detach"
	Pods PodHandling `json:"pods,omitempty"`

	// replacements says what happens to new pods of a compromised revision.
	// "Quarantine" (default) lets them start, quarantined from their first packet. "Refuse" refuses them at admission.
	// New Jobs of a targeted CronJob are refused in both cases, because a CronJob has no revisions to tell good from bad.
	// +optional
	// +default="Quarantine"
	Replacements ReplacementHandling `json:"replacements,omitempty"`

	// denyTier says what happens when detaching a pod does not close every leak, because a policy selects it whatever its labels.
	// "Auto" (default) creates a ClusterNetworkPolicy (or, where that is not served, a CiliumClusterwideNetworkPolicy) that denies, ahead of every
	// NetworkPolicy, all traffic of quarantined pods but the exceptions. It counts as a remedy only once an implementation has reported that it is in effect. "Never" creates none.
	// +optional
	// +default="Auto"
	DenyTier DenyTierUse `json:"denyTier,omitempty"`

	// conflictingPolicies says what is done about somebody else's NetworkPolicy that still allows something to a quarantined pod.
	// "Report" (default) names it and the edit that closes the leak. "CarveOut" takes the quarantined pods out of its podSelector by one more
	// requirement, and takes that back when the Incident is closed. If the policy comes from Git, its pipeline may undo the edit; the leak is then reported again.
	// +optional
	// +default="Report"
	ConflictingPolicies ConflictHandling `json:"conflictingPolicies,omitempty"`

	// exceptions are the only flows that a quarantined pod has, for an evidence path such as a collector. An exception is opened in a namespace only if, before the
	// quarantine, the policies there allowed its flow to every pod that is held: containing a pod never opens anything. status.exceptions of the Incident says what became of each.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Exceptions []EvidenceException `json:"exceptions,omitempty"`
}

// TrafficDirection is a direction of traffic as seen from the quarantined pod.
// +kubebuilder:validation:Enum=Ingress;Egress
type TrafficDirection string

// EvidenceException is one flow between quarantined pods and an evidence path.
// +kubebuilder:validation:XValidation:rule="has(self.cidr) != (has(self.namespaceSelector) || has(self.podSelector))",message="an exception names either a cidr, or a namespaceSelector and/or podSelector"
type EvidenceException struct {
	// name tells the exception apart from the others of the policy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// direction is "Ingress" (to the quarantined pod) or "Egress" (from it).
	// +required
	Direction TrafficDirection `json:"direction,omitempty"`

	// namespaceSelector selects the namespaces of the peer pods. If not set, the quarantined pod's own namespace.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// podSelector selects the peer pods. If not set while namespaceSelector is, every pod of those namespaces.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// cidr is a block of peer addresses, such as "198.51.100.7/32" or "2001:db8::/64".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be an IPv4 or IPv6 block such as 198.51.100.7/32"
	CIDR string `json:"cidr,omitempty"`

	// ports are the ports of the flow, at least one: an exception never opens every port.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Ports []ExceptionPort `json:"ports,omitempty"`
}

// Protocol is a transport protocol that NetworkPolicy knows.
// +kubebuilder:validation:Enum=TCP;UDP;SCTP
type Protocol string

// ExceptionPort is one port of an exception.
type ExceptionPort struct {
	// protocol is TCP (default), UDP or SCTP.
	// +optional
	// +default="TCP"
	Protocol Protocol `json:"protocol,omitempty"`

	// port is the port number at the receiving side, 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// SnapshotOrder says whether volumes are snapshotted.
// +kubebuilder:validation:Enum=Collect;Skip
type SnapshotOrder string

const (
	// SnapshotCollect takes a VolumeSnapshot of every PersistentVolumeClaim of the quarantined pods.
	SnapshotCollect SnapshotOrder = "Collect"
	// SnapshotSkip takes none; the volumes are listed as declared gaps.
	SnapshotSkip SnapshotOrder = "Skip"
)

// VolumeGroupUse says whether volumes that belong together are snapshotted at one moment.
// +kubebuilder:validation:Enum=Never;Prefer;Require
type VolumeGroupUse string

const (
	// VolumeGroupNever takes a snapshot of each volume by itself.
	VolumeGroupNever VolumeGroupUse = "Never"
	// VolumeGroupPrefer takes one VolumeGroupSnapshot where the cluster and the driver can, and single snapshots elsewhere.
	VolumeGroupPrefer VolumeGroupUse = "Prefer"
	// VolumeGroupRequire takes a VolumeGroupSnapshot or declares a gap.
	VolumeGroupRequire VolumeGroupUse = "Require"
)

// CollectOrder says whether something is collected.
// +kubebuilder:validation:Enum=Collect;Skip
type CollectOrder string

const (
	// Collect collects it.
	Collect CollectOrder = "Collect"
	// Skip leaves it out.
	Skip CollectOrder = "Skip"
)

// GapHandling says what an evidence gap holds back.
// +kubebuilder:validation:Enum=Continue;RequireWaiver
type GapHandling string

const (
	// GapContinue names the gap and goes on.
	GapContinue GapHandling = "Continue"
	// GapRequireWaiver holds every destructive measure and every recovery step until a person has waived the gaps.
	GapRequireWaiver GapHandling = "RequireWaiver"
)

// LogOrders says what is kept of the containers' logs.
// +kubebuilder:validation:MinProperties=1
type LogOrders struct {
	// collect is "Collect" (default) or "Skip".
	// +optional
	// +default="Collect"
	Collect CollectOrder `json:"collect,omitempty"`

	// maxBytes is how much is kept of each log, that is of each instance of each container, in bytes, 1024 to 17179869184 (16 GiB). A log that is longer is cut at its end, and
	// the evidence says so. Default 67108864 (64 MiB).
	// +optional
	// +default=67108864
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=17179869184
	MaxBytes int64 `json:"maxBytes,omitempty"`

	// deadlineSeconds is how long the logs of one pod may take, in seconds, 5 to 86400. What has arrived by then is kept, and said to be incomplete. Default 600.
	// +optional
	// +default=600
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	DeadlineSeconds int32 `json:"deadlineSeconds,omitempty"`
}

// CheckpointOrders says whether containers are checkpointed.
// +kubebuilder:validation:MinProperties=1
type CheckpointOrders struct {
	// collect is "Skip" (default), or "Collect", which asks the kubelet for a checkpoint of every running container: its memory and its open files. A checkpoint contains every
	// secret that the container had in memory. It stays on the node's disk, and the evidence says where. Where kubelet or container runtime cannot do it, that is a gap.
	// +optional
	// +default="Skip"
	Collect CollectOrder `json:"collect,omitempty"`

	// deadlineSeconds is how long the checkpoints of one pod may take, in seconds, 5 to 86400. Default 300.
	// +optional
	// +default=300
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	DeadlineSeconds int32 `json:"deadlineSeconds,omitempty"`
}

// EvidenceJobEgress is one flow that the pod of an evidence job has.
type EvidenceJobEgress struct {
	// cidr is a block of addresses that the job may reach, such as "198.51.100.7/32".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be an IPv4 or IPv6 block such as 198.51.100.7/32"
	CIDR string `json:"cidr,omitempty"`

	// ports are the ports, at least one.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Ports []ExceptionPort `json:"ports,omitempty"`
}

// EvidenceJob is a tool that is run once for each quarantined pod, on its node, in the namespace cofferdam-evidence. What it prints on its standard output is kept as evidence.
type EvidenceJob struct {
	// name tells the job apart from the others of the policy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="name must be lower-case letters, digits and hyphens"
	Name string `json:"name,omitempty"`

	// image is the image of the tool, pinned by digest, such as "registry.example.com/forensics@sha256:…": a tag can be moved by whoever is being investigated.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",message="image must be pinned by digest: name@sha256:<64 hexadecimal digits>"
	Image string `json:"image,omitempty"`

	// command is the command; if not set, the image's own. The environment has COFFERDAM_NAMESPACE, COFFERDAM_POD, COFFERDAM_POD_UID and COFFERDAM_NODE.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	Command []string `json:"command,omitempty"`

	// args are the arguments of the command.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	Args []string `json:"args,omitempty"`

	// access is "None" (default): an unprivileged pod. "Node" shares the node's processes and runs privileged, as memory and disk tools need; the namespace cofferdam-evidence has to
	// admit such pods, which it does not as it is shipped.
	// +optional
	// +default="None"
	// +kubebuilder:validation:Enum=None;Node
	// +kubebuilder:validation:MaxLength=8
	Access string `json:"access,omitempty"`

	// egress are the only flows that the job's pod has. If not set, none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Egress []EvidenceJobEgress `json:"egress,omitempty"`

	// deadlineSeconds is how long the job may take for one pod, in seconds, 5 to 86400. After that it is ended, and the evidence is a declared gap. Default 600.
	// +optional
	// +default=600
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	DeadlineSeconds int32 `json:"deadlineSeconds,omitempty"`

	// maxParallel is for how many pods of one Incident the job runs at the same time, 1 to 50. The other pods wait for their turn, and deadlineSeconds counts from then. Default 4.
	// +optional
	// +default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=50
	MaxParallel int32 `json:"maxParallel,omitempty"`
}

// EvidenceStore says where evidence goes.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.credentialsSecret) || has(self.url)",message="credentialsSecret goes with url"
type EvidenceStore struct {
	// url names the store: "s3://bucket?region=…" (with endpoint=… for S3-compatible servers), "gs://bucket" or "azblob://container"; prefix=… in the query puts everything below a folder. If not set, the
	// store of the operator's --evidence-store, which is a directory on a volume of its own unless the installation says otherwise.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(s3|gs|azblob)://[A-Za-z0-9]')",message="url must begin with s3://, gs:// or azblob://"
	// +kubebuilder:validation:XValidation:rule="!self.contains('@')",message="url must not contain credentials: name a Secret in credentialsSecret"
	URL string `json:"url,omitempty"`

	// credentialsSecret is the name of the Secret, in the operator's namespace, with the credentials of url: accessKeyID, secretAccessKey and, if need be, sessionToken for S3;
	// serviceAccount.json for GCS; storageAccount and storageKey or sasToken for Azure. If not set, the operator's own identity.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	CredentialsSecret string `json:"credentialsSecret,omitempty"`

	// encryptTo are age public keys ("age1…"). If set, everything that is collected is encrypted to them, and not even the operator can read it again. The ledger is not encrypted.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^age1[0-9a-z]{58}$'))",message="encryptTo must be age public keys such as age1…"
	EncryptTo []string `json:"encryptTo,omitempty"`

	// lockDays asks the store to refuse every deletion and change for so many days, 1 to 3650, where it can (S3 object lock). If not set, nothing is locked. Where the store cannot, the Incident's condition Custody says so.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3650
	LockDays int32 `json:"lockDays,omitempty"`

	// timeAuthorityURL is an RFC 3161 time-stamp authority that is asked to confirm when the ledger was signed after a condition of the Incident has turned or somebody has approved something. It is sent a digest and nothing else. If not set, none is asked.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https')",message="timeAuthorityURL must be an http or https URL"
	TimeAuthorityURL string `json:"timeAuthorityURL,omitempty"`
}

// EvidenceRetention says when evidence may be removed.
// +kubebuilder:validation:MinProperties=1
type EvidenceRetention struct {
	// requiredApprovals is the number of distinct people, none of them the declarer, who have to approve the step "remove-evidence" of a closed Incident before its evidence is removed, 1 to 10. Default 2.
	// +optional
	// +default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	RequiredApprovals int32 `json:"requiredApprovals,omitempty"`

	// days is how long evidence is kept after the Incident was closed, even if its removal is approved, in days, 1 to 3650. If not set, removal may follow at once.
	// Nothing is ever removed without approval, and nothing while the Incident is open.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3650
	Days int32 `json:"days,omitempty"`
}

// EvidenceOrders says what is kept. Pod manifests, owners, events and the policies that selected the pod are always recorded.
// +kubebuilder:validation:MinProperties=1
type EvidenceOrders struct {
	// logs says what is kept of the containers' logs. If not set, up to 64 MiB of each.
	// +optional
	Logs LogOrders `json:"logs,omitempty,omitzero"`

	// checkpoints says whether the memory of containers is kept. If not set, it is not.
	// +optional
	Checkpoints CheckpointOrders `json:"checkpoints,omitempty,omitzero"`

	// volumeSnapshots says whether a VolumeSnapshot is taken of every PersistentVolumeClaim of the pods: "Collect" (default) or
	// "Skip", which declares a gap for each volume.
	// +optional
	// +default="Collect"
	VolumeSnapshots SnapshotOrder `json:"volumeSnapshots,omitempty"`

	// volumeSnapshotClassName is the VolumeSnapshotClass to use for volumes of its driver. If not set, or for volumes of another
	// driver, the driver's default class is used, or its only one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	VolumeSnapshotClassName string `json:"volumeSnapshotClassName,omitempty"`

	// volumeGroups says whether the volumes of one workload that have the same driver are snapshotted at one moment, by a VolumeGroupSnapshot: "Never" (default), "Prefer", where the
	// cluster and the driver can, or "Require", which declares a gap for each volume where they cannot.
	// +optional
	// +default="Never"
	VolumeGroups VolumeGroupUse `json:"volumeGroups,omitempty"`

	// snapshotDeadlineSeconds is how long a snapshot may take to be ready, in seconds, 5 to 86400. After that it becomes a declared
	// gap and nothing waits for it any more. Default 600.
	// +optional
	// +default=600
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	SnapshotDeadlineSeconds int32 `json:"snapshotDeadlineSeconds,omitempty"`

	// jobs are tools that are run for each quarantined pod, such as memory or disk imagers.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Jobs []EvidenceJob `json:"jobs,omitempty"`

	// gaps says what evidence that could not be had holds back. "Continue" (default): nothing but what would destroy more of the same. "RequireWaiver": every destructive measure and every
	// recovery step, until a person who holds the RBAC verb "waive" approves the step "waive-gaps".
	// +optional
	// +default="Continue"
	Gaps GapHandling `json:"gaps,omitempty"`

	// store says where evidence goes.
	// +optional
	Store EvidenceStore `json:"store,omitempty,omitzero"`

	// retention says when evidence may be removed. If not set, two approvals are needed, and none is removed without them.
	// +optional
	Retention EvidenceRetention `json:"retention,omitempty,omitzero"`
}

// Limits bound one Incident. They are checked before the first write and never trim silently.
// +kubebuilder:validation:MinProperties=1
type Limits struct {
	// maxPods is the number of running pods that one Incident may quarantine, 1 to 200. Default 50.
	// +optional
	// +default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=200
	MaxPods int32 `json:"maxPods,omitempty"`

	// maxNamespaces is the number of namespaces that one Incident may reach into, 1 to 16. Default 4.
	// +optional
	// +default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	MaxNamespaces int32 `json:"maxNamespaces,omitempty"`

	// maxNamespacePercent is the share of the running pods of any one namespace that may be quarantined, in percent, 1 to 100.
	// Default 100.
	// +optional
	// +default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxNamespacePercent int32 `json:"maxNamespacePercent,omitempty"`
}

// EvidencePodHandling says what closing does to pods that are still quarantined.
// +kubebuilder:validation:Enum=Delete;Release
type EvidencePodHandling string

const (
	// EvidencePodDelete removes them.
	EvidencePodDelete EvidencePodHandling = "Delete"
	// EvidencePodRelease gives them their labels back and lifts the quarantine.
	EvidencePodRelease EvidencePodHandling = "Release"
)

// Closing says what it takes to close an Incident.
// +kubebuilder:validation:MinProperties=1
type Closing struct {
	// requiredApprovals is the number of distinct people, none of them the declarer, who have to approve the step "close" before
	// quarantine is lifted, 1 to 10. Default 1.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	RequiredApprovals int32 `json:"requiredApprovals,omitempty"`

	// evidencePods says what closing does to pods that are still quarantined. "Delete" (default) removes them, once their evidence is
	// settled and no other Incident holds them. "Release" gives them their labels back and lifts the quarantine; the controller that a pod
	// came from then takes it up again, and may delete it as one too many.
	// +optional
	// +default="Delete"
	EvidencePods EvidencePodHandling `json:"evidencePods,omitempty"`
}

// ContainmentPolicy is the platform team's standing orders: which Incidents it governs, how their targets are isolated, what evidence
// is kept, how far an Incident may reach, and what closing takes.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=cpol,categories=cofferdam
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.spec.isolation.pods`
// +kubebuilder:printcolumn:name="Replacements",type=string,JSONPath=`.spec.isolation.replacements`
// +kubebuilder:printcolumn:name="Max Pods",type=integer,JSONPath=`.spec.limits.maxPods`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ContainmentPolicy struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is the standing orders. An Incident keeps the copy that was in force when it was accepted.
	// +optional
	Spec ContainmentPolicySpec `json:"spec,omitempty,omitzero"`
}

// ContainmentPolicyList is a list of ContainmentPolicies.
//
// +kubebuilder:object:root=true
type ContainmentPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ContainmentPolicy `json:"items"`
}
