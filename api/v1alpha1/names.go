package v1alpha1

// Names that the operator writes on objects of other kinds. They are part of the API: policies, guards and people match on them.
const (
	// QuarantineLabelPrefix is followed by the UID of an Incident. A Pod that carries the label is held by that Incident,
	// and a NetworkPolicy of the Incident selects it. Each Incident has its own label, so that releasing one frees
	// nothing that another one holds.
	QuarantineLabelPrefix = "quarantine.cofferdam.dev/"

	// QuarantineLabelValue is the value of the quarantine label.
	QuarantineLabelValue = "held"

	// OriginalAnnotation keeps, as JSON, what quarantine took from a Pod: its labels and its controlling owner.
	OriginalAnnotation = "containment.cofferdam.dev/original"

	// IncidentUIDLabel names, on every object that the operator creates, the UID of the Incident it belongs to.
	IncidentUIDLabel = "containment.cofferdam.dev/incident-uid"

	// IncidentAnnotation names, on every object that the operator creates, the Incident as namespace/name.
	IncidentAnnotation = "containment.cofferdam.dev/incident"

	// RecoveredByAnnotation is put on a pod template when its images are rolled back. Its value is the UID of the Incident.
	// It makes the recovered revision differ from every earlier one, even when the images are the same.
	RecoveredByAnnotation = "containment.cofferdam.dev/recovered-by"

	// RotationAnnotation is put on a Secret when entries of it are replaced, and on a pod template when its workload is restarted after that. Its value tells one rotation from another.
	RotationAnnotation = "containment.cofferdam.dev/rotation"

	// HoldFinalizer stays on an Incident for as long as it holds a quarantine.
	HoldFinalizer = "containment.cofferdam.dev/hold"

	// RefusalsLabel marks the ConfigMaps, in the operator's namespace, from which the admission policy
	// "cofferdam-refuse-compromised-revisions" reads the revisions that may not start.
	RefusalsLabel = "containment.cofferdam.dev/refusals"

	// HeldLabel marks the ConfigMaps, in the operator's namespace, from which the admission policies around quarantined pods read what is held.
	HeldLabel = "containment.cofferdam.dev/held"

	// OriginalAnnotationsAnnotation keeps, as JSON, the annotations of a Pod that quarantine has replaced.
	OriginalAnnotationsAnnotation = "containment.cofferdam.dev/original-annotations"

	// EvidenceLabel marks the ConfigMaps, in the operator's namespace, that keep recorded evidence.
	EvidenceLabel = "containment.cofferdam.dev/evidence"

	// GitOpsLeaseAnnotation keeps, as JSON, on what a recovery has paused, the lease by which it did: Incident, reason, when, and until when.
	GitOpsLeaseAnnotation = "containment.cofferdam.dev/gitops-lease"

	// GitOpsPausedLabel marks what a recovery has paused. Its value is the UID of the Incident.
	GitOpsPausedLabel = "containment.cofferdam.dev/gitops-paused"

	// CloseStage is the value of an approval's step that approves closing the Incident.
	CloseStage = "close"

	// WaiveStage is the value of an approval's step that waives the evidence gaps there are. It takes the RBAC verb "waive".
	WaiveStage = "waive-gaps"

	// RemoveStage is the value of an approval's step that lets the evidence of a closed Incident be removed.
	RemoveStage = "remove-evidence"

	// EvidenceFinalizer stays on a VolumeSnapshot for as long as it is held as evidence.
	EvidenceFinalizer = "containment.cofferdam.dev/evidence"
)
