package v1alpha1

// SnapshotSelection says how snapshots of several claims are chosen.
// +kubebuilder:validation:Enum=Newest;OneGroup
type SnapshotSelection string

const (
	// SnapshotNewest takes the newest snapshot of each claim that is old enough.
	SnapshotNewest SnapshotSelection = "Newest"
	// SnapshotOneGroup takes the members of the newest VolumeGroupSnapshot that is old enough and has one of every claim.
	SnapshotOneGroup SnapshotSelection = "OneGroup"
)

// HoldingPods says what happens to quarantined pods that keep a claim in use.
// +kubebuilder:validation:Enum=DeletePod;Wait
type HoldingPods string

const (
	// HoldingPodsDelete deletes them once their evidence is complete.
	HoldingPodsDelete HoldingPods = "DeletePod"
	// HoldingPodsWait waits for a person to delete them.
	HoldingPodsWait HoldingPods = "Wait"
)

// CutOver says how a workload comes to use a restored volume.
// +kubebuilder:validation:Enum=InPlace;ChangeClaim
type CutOver string

const (
	// CutOverInPlace exchanges the volume of the claim, which keeps its name.
	CutOverInPlace CutOver = "InPlace"
	// CutOverChangeClaim leaves the claim as it is, and has Deployments name another one.
	CutOverChangeClaim CutOver = "ChangeClaim"
)

// VolumeCheck is a job that looks at a volume before it is put in place.
type VolumeCheck struct {
	// image is the image, pinned by digest: "registry/repository@sha256:<64 hex digits>".
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",message="the image of a check is pinned by digest: repository@sha256:<64 hex digits>"
	Image string `json:"image,omitempty"`

	// command is the command; if not set, the image's own. It ends with 0 if the volume is good.
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

	// mountPath is where the volume is in the container; a block volume is a device there. Default "/volume".
	// +optional
	// +default="/volume"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	MountPath string `json:"mountPath,omitempty"`

	// access is "ReadOnly" (default) or "ReadWrite", which a file system check that repairs needs, and a database that has to start to be asked.
	// +optional
	// +default="ReadOnly"
	// +kubebuilder:validation:Enum=ReadOnly;ReadWrite
	// +kubebuilder:validation:MaxLength=16
	Access string `json:"access,omitempty"`

	// timeoutSeconds is how long the check may run, in seconds, 5 to 86400. One that takes longer has failed. Default 1800.
	// +optional
	// +default=1800
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}

// RestoreVolumesStep gives claims a volume made from a snapshot that is older than the incident. The claim keeps its name, labels and annotations, unless cutOver says otherwise; the volume that it had is kept as evidence.
// The new volume is made, and checked, beside the old one, which is exchanged only then. Who writes such a step into a plan has to be allowed to create and delete PersistentVolumeClaims there, and to create Jobs if it has a check.
type RestoreVolumesStep struct {
	// claims are the names of the PersistentVolumeClaims in the plan's namespace. The workloads that use them have to be scaled to zero by an earlier step: claims are exchanged together once no pod uses any of them.
	// With cutOver ChangeClaim only compromised workloads that no earlier step has rolled back have to be.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Claims []string `json:"claims,omitempty"`

	// cutOver is "InPlace" (default): the claim gets the new volume, and keeps its name; no pod may use it meanwhile, quarantined ones included. Or "ChangeClaim", for claims that only Deployments use: the claim keeps the
	// volume that it has, as evidence, and quarantined pods keep it; the new volume stays with a claim of its own, "<claim>-restored-<8 hex digits>", and the pod templates of the Deployments name that one.
	// Which Deployments those are is in status.recovery.choices, and part of what people approve.
	// +optional
	// +default="InPlace"
	CutOver CutOver `json:"cutOver,omitempty"`

	// marginSeconds is how much older than spec.suspectedSince of the Incident a snapshot has to be, in seconds, 0 to 31536000 (a year). It is measured by the time at which the storage took the snapshot.
	// Default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	MarginSeconds *int32 `json:"marginSeconds,omitempty"`

	// dwellSeconds is how long an incident may have gone unnoticed, in seconds, 1 to 31536000 (a year): the plan is Ready only while every claim has a snapshot that is older than this and marginSeconds together. A recovery
	// goes by spec.suspectedSince of the Incident alone. If not set, any snapshot that can be used makes the plan Ready.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=31536000
	DwellSeconds int32 `json:"dwellSeconds,omitempty"`

	// snapshots is "Newest" (default): of each claim the newest snapshot that is old enough; or "OneGroup": the members of the newest VolumeGroupSnapshot that is old enough and has one of every claim, as volumes
	// need that have to agree with one another. What is chosen is in status.recovery.choices, and part of what people approve.
	// +optional
	// +default="Newest"
	Snapshots SnapshotSelection `json:"snapshots,omitempty"`

	// check is run on each new volume before anything is exchanged, without network. If one fails, nothing has changed.
	// +optional
	Check VolumeCheck `json:"check,omitempty,omitzero"`

	// holdingPods says what happens to quarantined pods that keep a claim in use: Kubernetes deletes no claim that a pod still names. "DeletePod" (default) deletes such a pod once every evidence item of it is
	// Collected; with a gap it waits. "Wait" always waits for a person to delete the pod.
	// +optional
	// +default="DeletePod"
	HoldingPods HoldingPods `json:"holdingPods,omitempty"`
}
