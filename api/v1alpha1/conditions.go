package v1alpha1

// Conditions of an Incident. Every condition is always present; what is not known is Unknown.
const (
	// ConditionAccepted is True once the policy is found, the declarer is authorised in every target namespace, every
	// target is resolved and the limits hold. Nothing is written outside status before that.
	ConditionAccepted = "Accepted"

	// ConditionContained is True when every pod's isolation is proven: each one is Isolated or Gone, leaving out those that an approved step
	// has released.
	ConditionContained = "Contained"

	// ConditionGuarded is True when the admission policies that keep others from undoing the quarantine are in place as they were shipped. While it is False the
	// operator goes on by repairing what they would have refused.
	ConditionGuarded = "Guarded"

	// ConditionEvidenceCollected is True when every evidence item is Collected. It is False with reason Gaps when
	// everything else is settled but some of it could not be had.
	ConditionEvidenceCollected = "EvidenceCollected"

	// ConditionCustody is True when everything that was done and collected is in the ledger, whose head is signed, and the store has confirmed both. While it is not True, nothing
	// destructive is done.
	ConditionCustody = "Custody"

	// ConditionRecovered is True when every step of the recovery plan has succeeded.
	ConditionRecovered = "Recovered"

	// ConditionReleased is True when no quarantine of this Incident is left. It is False while anything is held.
	ConditionReleased = "Released"

	// ConditionGitOpsPaused is True while something of Argo CD or Flux is paused by this Incident, and False when all of it is resumed. It is there once something was paused.
	ConditionGitOpsPaused = "GitOpsPaused"

	// ConditionReady is True when the goal of spec.goal is reached (kstatus: Current).
	ConditionReady = "Ready"

	// ConditionReconciling is True while the operator works towards the goal (kstatus: InProgress).
	ConditionReconciling = "Reconciling"

	// ConditionStalled is True when only a person can help (kstatus: Failed). Containment in place stays.
	ConditionStalled = "Stalled"
)

// Reasons of the Accepted condition when it is True.
const (
	// ReasonAccepted says that the Incident is governed, authorised, resolved and within limits.
	ReasonAccepted = "Accepted"
)

// Reasons of the Accepted condition when it is not True.
const (
	// ReasonNoPolicy says that no ContainmentPolicy governs the Incident.
	ReasonNoPolicy = "NoPolicy"
	// ReasonAmbiguousPolicy says that more than one ContainmentPolicy governs the Incident; the message names them.
	ReasonAmbiguousPolicy = "AmbiguousPolicy"
	// ReasonInvalidPolicy says that a ContainmentPolicy has a selector that cannot be read.
	ReasonInvalidPolicy = "InvalidPolicy"
	// ReasonDeclarerUnknown says that the Incident carries no declaredBy: admission did not stamp it.
	ReasonDeclarerUnknown = "DeclarerUnknown"
	// ReasonNotAuthorized says that the declarer may not create Incidents in a target namespace.
	ReasonNotAuthorized = "NotAuthorized"
	// ReasonTargetNotFound says that a named target does not exist.
	ReasonTargetNotFound = "TargetNotFound"
	// ReasonNothingSelected says that a target's selector matches nothing.
	ReasonNothingSelected = "NothingSelected"
	// ReasonProtected says that a target is in a protected namespace or is part of the cluster's DNS.
	ReasonProtected = "Protected"
	// ReasonLimitExceeded says that the targets exceed a limit of the policy; the message has the numbers.
	ReasonLimitExceeded = "LimitExceeded"
	// ReasonInvalidTimes says that suspectedSince or detectedAt lies in the future.
	ReasonInvalidTimes = "InvalidTimes"
	// ReasonUnreadable says that something could not be read from the API server; the message says what.
	ReasonUnreadable = "Unreadable"
)

// Reasons of the Contained condition.
const (
	// ReasonIsolated (True) says that every pod is Isolated or Gone.
	ReasonIsolated = "Isolated"
	// ReasonLeaking (False) says that at least one pod can still be reached, or reach out, through a policy.
	ReasonLeaking = "Leaking"
	// ReasonNotEnforceable (False) says that at least one pod cannot be isolated by NetworkPolicy.
	ReasonNotEnforceable = "NotEnforceable"
	// ReasonVerdictUnknown (Unknown) says that at least one pod's verdict could not be computed.
	ReasonVerdictUnknown = "VerdictUnknown"
	// ReasonIsolating (False) says that quarantine is being put in place.
	ReasonIsolating = "Isolating"
	// ReasonNotAccepted (False) says that the Incident is not accepted.
	ReasonNotAccepted = "NotAccepted"
	// ReasonDryRun (False) says that nothing was done because spec.mode is DryRun.
	ReasonDryRun = "DryRun"
	// ReasonLifted (False) says that the quarantine was lifted by an approved close.
	ReasonLifted = "Lifted"
)

// Reasons of the Guarded condition.
const (
	// ReasonGuardInPlace (True) says that every admission policy of config/guard is as it was shipped.
	ReasonGuardInPlace = "GuardInPlace"
	// ReasonGuardTampered (False) says that one of them is missing, changed or does not work; the message names it.
	ReasonGuardTampered = "GuardTampered"
)

// Reasons of the EvidenceCollected condition.
const (
	// ReasonCollected (True) says that every item is safe.
	ReasonCollected = "Collected"
	// ReasonCollecting (False) says that items are still being collected.
	ReasonCollecting = "Collecting"
	// ReasonGaps (False) says that everything is settled, and that the named items could not be had.
	ReasonGaps = "Gaps"
	// ReasonRemoved (False) says that evidence was removed after an approved release.
	ReasonRemoved = "Removed"
)

// Reasons of the Custody condition.
const (
	// ReasonLedgerSigned (True) says that the ledger has everything and that its head is signed.
	ReasonLedgerSigned = "LedgerSigned"
	// ReasonStoreUnavailable (Unknown) says that the store could not be written or read; the message says why.
	ReasonStoreUnavailable = "StoreUnavailable"
	// ReasonLedgerDamaged (False) says that the ledger in the store is not what was written; the message names the place.
	ReasonLedgerDamaged = "LedgerDamaged"
	// ReasonRecording (Unknown) says that entries are being written.
	ReasonRecording = "Recording"
)

// Reasons of the Recovered and Released conditions.
const (
	// ReasonRecovered (True) says that every step has succeeded.
	ReasonRecovered = "Recovered"
	// ReasonNotRequested (False) says that spec.goal has not asked for it yet.
	ReasonNotRequested = "NotRequested"
	// ReasonStepsRunning (False) says that steps are running; the message says what each one waits for.
	ReasonStepsRunning = "StepsRunning"
	// ReasonStepOverdue (False) says that a step has passed its deadline; its dependents wait.
	ReasonStepOverdue = "StepOverdue"
	// ReasonStepFailed says that a step has failed or was undone, and waits for a person.
	ReasonStepFailed = "StepFailed"
	// ReasonPausedByLease says that what was paused is paused, and its lease is running.
	ReasonPausedByLease = "PausedByLease"
	// ReasonPauseUndone says that something was resumed that the plan had not come to. No step that depends on it goes on.
	ReasonPauseUndone = "PauseUndone"
	// ReasonLeaseExpired says that something is paused for longer than it should have been.
	ReasonLeaseExpired = "LeaseExpired"
	// ReasonLeaseOutlived says that something is still paused though the Incident is closed.
	ReasonLeaseOutlived = "LeaseOutlived"
	// ReasonResumed (False) says that everything has what it had.
	ReasonResumed = "Resumed"
	// ReasonPaused says that people hold the recovery back.
	ReasonPaused = "Paused"
	// ReasonPlanNotFound (False) says that the RecoveryPlan does not exist.
	ReasonPlanNotFound = "PlanNotFound"
	// ReasonImagesUnknown (False) says that what the plan asks to be known of its images could not be found out yet. On a RecoveryPlan Ready is Unknown then.
	ReasonImagesUnknown = "ImagesUnknown"
	// ReasonPlanInvalid (False) says that the RecoveryPlan cannot be executed; the message says why.
	ReasonPlanInvalid = "PlanInvalid"
	// ReasonWaitingForEvidence (False) says that nothing destructive starts before the evidence is settled.
	ReasonWaitingForEvidence = "WaitingForEvidence"
	// ReasonWaitingForApproval (False) says that more approvals are needed; the message says how many and for what.
	ReasonWaitingForApproval = "WaitingForApproval"
	// ReasonHeld (False) says that quarantine is in place.
	ReasonHeld = "Held"
	// ReasonPartlyReleased (False) says that recovered workloads are released and evidence is still held.
	ReasonPartlyReleased = "PartlyReleased"
	// ReasonReleasing (False) says that quarantine is being lifted.
	ReasonReleasing = "Releasing"
	// ReasonReleased (True) says that nothing is held any more.
	ReasonReleased = "Released"
	// ReasonNothingHeld (True) says that nothing was ever held.
	ReasonNothingHeld = "NothingHeld"
)

// Reasons of the Ready, Reconciling and Stalled conditions.
const (
	// ReasonGoalReached says that the goal is reached.
	ReasonGoalReached = "GoalReached"
	// ReasonProgressing says that the operator works towards the goal.
	ReasonProgressing = "Progressing"
	// ReasonPlanned says that a dry run is complete: status.plannedActions shows what Enforce would do.
	ReasonPlanned = "Planned"
	// ReasonActionFailed says that the API server refused an action; the message names it.
	ReasonActionFailed = "ActionFailed"
)

// Reasons of the Ready condition of a RecoveryPlan.
const (
	// ReasonPlanUsable (True) says that the steps are in order, every workload and container exists, every claim that is restored has a snapshot that is old enough, storage classes and drivers match, and the operator
	// may do what the steps ask for.
	ReasonPlanUsable = "Usable"
	// ReasonCyclicDependencies (False) says that steps depend on one another in a circle; the message names it.
	ReasonCyclicDependencies = "CyclicDependencies"
	// ReasonUnsoundSteps (False) says that steps depend on what is not there, or release without an approval.
	ReasonUnsoundSteps = "UnsoundSteps"
	// ReasonInvalidVerification (False) says that spec.verification cannot be carried out as it is written, or not by this manager.
	ReasonInvalidVerification = "InvalidVerification"
	// ReasonImageMissing (False) says that a registry does not have an image of the plan under its digest.
	ReasonImageMissing = "ImageMissing"
	// ReasonImageUnverified (False) says that an image of the plan carries no signature of those that the plan asks for.
	ReasonImageUnverified = "ImageUnverified"
	// ReasonNoRevision (False) says that a workload whose images are to be chosen has no revision that gives them by digest.
	ReasonNoRevision = "NoRevision"
	// ReasonUnknownWorkload (False) says that a workload or container of the plan does not exist.
	ReasonUnknownWorkload = "UnknownWorkload"
	// ReasonUnknownKind (False) says that the cluster does not serve what a step looks at.
	ReasonUnknownKind = "UnknownKind"
	// ReasonUnpausable says that a manager of Argo CD or Flux is missing, cannot be paused, or may not be by the step; the message names it.
	ReasonUnpausable = "Unpausable"
	// ReasonMissingService (False) says what a step calls that none of the standing orders names that may govern an Incident here, or that the operator does not have.
	ReasonMissingService = "MissingService"
	// ReasonMissingPermission (False) says what the operator would have to be allowed.
	ReasonMissingPermission = "MissingPermission"
	// ReasonNoUsableSnapshot (False) says that a claim has no snapshot that is old enough; the message says why none of those that it has would do.
	ReasonNoUsableSnapshot = "NoUsableSnapshot"
	// ReasonStorageMismatch (False) says that no volume could be made from the snapshots of a claim.
	ReasonStorageMismatch = "StorageMismatch"
	// ReasonNotExamined (Unknown) says what could not be read.
	ReasonNotExamined = "NotExamined"
	// ReasonInvalidExpression (False) says that a verify expression does not compile.
	ReasonInvalidExpression = "InvalidExpression"
)
