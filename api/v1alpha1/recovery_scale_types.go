package v1alpha1

// ScalableKind is a kind of workload whose replicas a plan can change.
// +kubebuilder:validation:Enum=Deployment;StatefulSet
type ScalableKind string

// ScaledWorkload names a workload in the plan's namespace.
type ScaledWorkload struct {
	// kind is Deployment or StatefulSet.
	// +required
	Kind ScalableKind `json:"kind,omitempty"`

	// name is the name of the workload.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// ScaleTo says how far workloads are scaled.
// +kubebuilder:validation:Enum=Zero;Original
type ScaleTo string

const (
	// ScaleToZero ends every pod of the workloads.
	ScaleToZero ScaleTo = "Zero"
	// ScaleToOriginal gives them the replicas that they had before this recovery scaled them.
	ScaleToOriginal ScaleTo = "Original"
)

// ScaleStep changes the replicas of workloads.
type ScaleStep struct {
	// workloads are the workloads to scale.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Workloads []ScaledWorkload `json:"workloads,omitempty"`

	// to is "Zero": every pod of the workloads ends, except quarantined ones; or "Original": the workloads have the replicas again that they had before an earlier step of this recovery scaled
	// them to zero. What may scale the workload up from zero by itself is paused with it and resumed with it: a KEDA ScaledObject by its annotations, a HorizontalPodAutoscaler with minReplicas 0 by a
	// scaleUp policy of Disabled. Any other HorizontalPodAutoscaler does nothing while a workload has no replicas.
	// +required
	To ScaleTo `json:"to,omitempty"`
}
