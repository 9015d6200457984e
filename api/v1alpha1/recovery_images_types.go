package v1alpha1

// ImageChoice says how known-good images are found.
// +kubebuilder:validation:Enum=Listed;NewestRevision
type ImageChoice string

const (
	// ImagesListed says that the plan lists them.
	ImagesListed ImageChoice = "Listed"
	// ImagesOfNewestRevision says that they are those of the newest revision from before the incident.
	ImagesOfNewestRevision ImageChoice = "NewestRevision"
)

// KnownGoodImages are the images that one workload may come back with.
// +kubebuilder:validation:XValidation:rule="(self.choose == 'NewestRevision') != has(self.containers)",message="known-good images are either listed in containers, or chosen with choose NewestRevision"
// +kubebuilder:validation:XValidation:rule="self.choose != 'NewestRevision' || self.workload.kind in ['Deployment', 'StatefulSet', 'DaemonSet']",message="only Deployments, StatefulSets and DaemonSets have revisions to choose from: list the images in containers"
// +kubebuilder:validation:XValidation:rule="has(self.containers) ? self.containers.all(c, has(c.path) == (has(self.owner) && !(has(c.foundIn) && c.foundIn == 'Pods'))) : !has(self.owner)",message="path says where an image stands in the owner: every container of the template has one if an owner is given, and none if not"
type KnownGoodImages struct {
	// workload is the workload.
	// +required
	Workload WorkloadRef `json:"workload,omitempty,omitzero"`

	// owner is the object that keeps the workload and would undo a change of it: the controller in its ownerReferences, or one above that, up to the topmost. The images are changed there, at the path of each container, and pods of
	// the workload have to come to run them. The operator takes "get" and "patch" on its kind, in a ClusterRole labelled containment.cofferdam.dev/aggregate-to-recover=true.
	// +optional
	Owner WorkloadOwner `json:"owner,omitempty,omitzero"`

	// choose says how the images are found. "Listed" (default): they are those in containers. "NewestRevision": they are those of the newest revision of the workload that was created before spec.suspectedSince of the
	// Incident, has every container that the workload has now, gives all its images by digest, and names none of spec.compromisedDigests. That is decided when the recovery begins, shown in
	// status.recovery.choices of the Incident and approved with the plan; without such a revision the recovery does not begin. Whoever may write ReplicaSets in the namespace can write that history: look at what
	// was chosen before you approve it.
	// +optional
	// +default="Listed"
	Choose ImageChoice `json:"choose,omitempty"`

	// containers are the known-good images by container. Containers that are not listed keep the image they have. Not set where the images are chosen.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Containers []ContainerImage `json:"containers,omitempty"`
}
