package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/lookout"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=recoveryplans,verbs=get;list;watch

// stepPoll is how often steps that wait for what cannot be watched are looked at.
const stepPoll = 2 * time.Second

// choicePoll is how often a recovery that cannot begin looks again.
const choicePoll = 10 * time.Second

// recover executes the recovery plan.
func (s *scope) recover(ctx context.Context) error {
	if rec := s.next.Recovery; rec != nil && !s.dryRun() {
		recovery.LoseSight(rec.Steps, s.now, !s.Writes.knows(s.incident))
	}
	switch {
	case s.finishing() && s.exchanging() != "":
		// A claim that is missing at the moment is put back.
	case s.incident.Spec.Goal != v1alpha1.GoalRecover:
		return nil
	case s.unauthorised():
		s.planReason, s.planProblem = s.problem.Reason, s.problem.Message
		return nil
	}
	begins := s.next.Recovery == nil
	if begins || s.dryRun() {
		if err := s.beginRecovery(ctx); err != nil || s.next.Recovery == nil {
			return err
		}
	}
	if why := s.pending(); why != "" && !s.dryRun() {
		s.planReason, s.planProblem = v1alpha1.ReasonStepsRunning, why
		return nil
	}
	if !s.dryRun() && (s.books.withheld != "" || s.auditing || s.evidenceWait != "") {
		// What is merely being written, or read, is waited for without a word: the writing wakes us.
		if why := cmp.Or(s.books.trouble(), s.evidenceWait); why != "" {
			s.planReason, s.planProblem = v1alpha1.ReasonWaitingForEvidence, why
		}
		return nil
	}
	return s.runSteps(ctx, begins)
}

// recovering says that steps are under way, or may be.
func (s *scope) recovering() bool {
	rec := s.next.Recovery
	return rec != nil && s.incident.Spec.Goal == v1alpha1.GoalRecover && !recovery.Complete(rec.Steps)
}

// finishing says that nothing new of the recovery is begun: the Incident is to be closed, or its declarer has lost the right to what the recovery does.
func (s *scope) finishing() bool { return s.closing() || s.unauthorised() }

// exchanging says what an exchange of volumes that is under way waits for, or "". One whose step people have skipped is theirs.
func (s *scope) exchanging() string {
	rec := s.next.Recovery
	if rec == nil || len(recovery.Exchangers(s.incident, rec.Plan, rec.Steps, s.journal)) == 0 {
		return ""
	}
	return recovery.Exchanging(s.journal)
}

// pending says which pods are not yet quarantined: recovery does not start before containment is in place.
func (s *scope) pending() string {
	for _, p := range s.next.Pods {
		if p.Handling == v1alpha1.HandlingPending && p.Verdict != v1alpha1.VerdictGone {
			return fmt.Sprintf("waits until Pod %s/%s is quarantined", p.Namespace, p.Name)
		}
	}
	return ""
}

func (s *scope) beginRecovery(ctx context.Context) error {
	var plan v1alpha1.RecoveryPlan
	key := client.ObjectKey{Namespace: s.incident.Namespace, Name: s.incident.Spec.RecoveryPlanRef.Name}
	err := s.Client.Get(ctx, key, &plan)
	if apierrors.IsNotFound(err) {
		s.planReason, s.planProblem = v1alpha1.ReasonPlanNotFound, fmt.Sprintf("RecoveryPlan %s does not exist; create it, or correct spec.recoveryPlanRef", key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading RecoveryPlan %s: %w", key, err)
	}
	if _, why := recovery.Unusable(plan.Spec); why != "" {
		s.planReason, s.planProblem = v1alpha1.ReasonPlanInvalid, fmt.Sprintf("RecoveryPlan %s: %s", key, why)
		return nil
	}
	if why := recovery.CompromisedImage(plan.Spec, s.incident.Spec.CompromisedDigests); why != "" {
		s.planReason, s.planProblem = v1alpha1.ReasonPlanInvalid, fmt.Sprintf("RecoveryPlan %s: %s", key, why)
		return nil
	}
	x := s.execution(&v1alpha1.RecoveryStatus{Plan: plan.Spec})
	if !s.dryRun() {
		x.Reader = s.read(ctx, recovery.Named(s.incident.Namespace, plan.Spec)...)
	}
	choices, why, err := recovery.ChooseAll(ctx, x)
	if err != nil {
		return err
	}
	if why != "" {
		s.planReason, s.planProblem = v1alpha1.ReasonPlanInvalid, fmt.Sprintf("RecoveryPlan %s: %s", key, why)
		s.lookAgainAfter(choicePoll)
		return nil
	}
	chosen := recovery.WithChosen(plan.Spec, choices)
	if why := recovery.Oversized(chosen, choices); why != "" {
		s.planReason, s.planProblem = v1alpha1.ReasonPlanInvalid, fmt.Sprintf("RecoveryPlan %s: %s", key, why)
		return nil
	}
	images, verified := s.verifyImages(chosen)
	if !verified {
		return nil
	}
	s.next.Recovery = &v1alpha1.RecoveryStatus{
		PlanName: plan.Name, PlanUID: string(plan.UID), Plan: chosen, Choices: choices, Images: images,
		PlanDigest: approval.PlanDigest(s.incident, string(plan.UID), chosen, choices),
		Steps:      recovery.Begin(chosen.Steps),
	}
	return nil
}

// execution is what the steps of a recovery work with. In a dry run they record nothing.
func (s *scope) execution(rec *v1alpha1.RecoveryStatus) *recovery.Execution {
	x := &recovery.Execution{
		Reader: s.Client, Writer: s, Journal: s.journal, Incident: s.incident, Plan: rec.Plan, PlanDigest: rec.PlanDigest, Choices: rec.Choices, Now: s.now,
		Pods: s.next.Pods, Evidence: s.next.Evidence, All: s.view.All, Release: s.releaseStep, Leaks: s.leaksOf, Others: s.others, Relapse: s.relapse,
		Look: s.lookAtImages(rec.Plan), Verified: rec.Images, Live: s.Client, Mapper: s.Client.RESTMapper(), May: s.declarerMay,
		GapsWaived: s.next.GapDigest != "" && s.evidenceWait == "",
	}
	x.Outbound, x.ProbeImage, x.DryRun = s.Outbound, s.ProbeImage, client.NewDryRunClient(s.Client)
	if s.next.Policy != nil {
		x.Policy = s.next.Policy.Spec
	}
	if !s.dryRun() {
		x.Steps, x.Pauses = rec.Steps, &rec.Pauses
	}
	return x
}

// runSteps runs every step that may run now. One step's failure does not keep the others from being looked at. In the pass in which the recovery begins, steps write nothing but their intents: the copy of the plan has to
// be durable before the first of them does anything.
func (s *scope) runSteps(ctx context.Context, begins bool) error {
	rec := s.next.Recovery
	if s.dryRun() {
		return s.rehearse(ctx, rec)
	}
	rec.Steps = recovery.Intervene(rec.Plan, rec.Steps, s.incident.Spec.Interventions, s.now)
	x := s.execution(rec)
	reader := s.read(ctx)
	x.Reader = reader
	recovery.NoteApprovals(x)
	recovery.NoteGone(x)
	unwatched := s.watchPauses(ctx, x)
	if ptr.Deref(s.incident.Spec.Recovery.Paused, false) {
		s.planReason, s.planProblem = v1alpha1.ReasonPaused, cmp.Or(s.incident.Spec.Recovery.Reason, "spec.recovery.paused is true")
		s.endReading(reader)
		return unwatched
	}
	runnable := recovery.Runnable(rec.Plan, rec.Steps)
	if s.finishing() {
		runnable = recovery.Exchangers(s.incident, rec.Plan, rec.Steps, s.journal)
	}
	failures := []error{unwatched}
	if begins {
		runnable = nil
	}
	failures = append(failures, s.runThese(ctx, x, runnable)...)
	if !s.finishing() {
		x.Writer = foreseen{s, begins}
		failures = append(failures, s.runNext(ctx, x, runnable)...)
	}
	s.endReading(reader)
	switch complete := recovery.Complete(rec.Steps); {
	case !complete:
		s.next.RecoveredAt = metav1.Time{} // people may have had a step retried, or undone, that was settled
	case s.next.RecoveredAt.IsZero():
		s.next.RecoveredAt = s.now
	}
	return errors.Join(failures...)
}

// read is what the steps of this pass read with. What they will most likely ask for is read first, several objects at a time.
func (s *scope) read(ctx context.Context, likely ...client.Object) *lookout.Reader {
	if s.reading == nil {
		s.reading = s.Lookout.Reader(client.ObjectKeyFromObject(s.incident), s.Client, seenAnyway)
		s.reading.ReadAhead(ctx, likely...)
	}
	return s.reading
}

// endReading ends the reading of the pass, and asks for another one where changes of that would not bring one.
func (s *scope) endReading(reader *lookout.Reader) {
	if !reader.Done() {
		s.lookAgainAfter(stepPoll)
	}
}

// runThese runs steps, and notes in rec what has come of them.
func (s *scope) runThese(ctx context.Context, x *recovery.Execution, runnable []int) (failures []error) {
	rec := s.next.Recovery
	outcomes, errs := sideBySide(ctx, x, rec.Plan.Steps, runnable)
	for n, i := range runnable {
		step, outcome := rec.Plan.Steps[i], outcomes[n]
		if err := errs[n]; err != nil {
			failures = append(failures, fmt.Errorf("step %s: %w", step.Name, err))
			outcome = recovery.Outcome{Message: "could not be carried out: " + err.Error()}
		}
		rec.Steps[i] = recovery.Advance(rec.Steps[i], step, outcome, s.now)
		s.lookAgainAtDeadline(rec.Steps[i], step)
		if outcome.Again > 0 {
			s.lookAgainAfter(outcome.Again)
		}
	}
	return failures
}

// runNext begins, in the pass in which steps have succeeded, those that waited for them. That what they depend on has come true is not durable yet: they write nothing but what was foreseen, whose intent is.
func (s *scope) runNext(ctx context.Context, x *recovery.Execution, ran []int) (failures []error) {
	rec := s.next.Recovery
	for {
		var next []int
		for _, i := range recovery.Runnable(rec.Plan, rec.Steps) {
			if !slices.Contains(ran, i) && recovery.BeginsByIntent(rec.Plan.Steps[i]) {
				next = append(next, i)
			}
		}
		if len(next) == 0 {
			return append(failures, recovery.Foresee(ctx, x))
		}
		failures = append(failures, s.runThese(ctx, x, next)...)
		ran = append(ran, next...)
	}
}

// foreseen changes workloads, of which every change has its intent before it, and leaves every other write to the next pass; in the pass in which the recovery begins, every write.
type foreseen struct {
	scope  *scope
	begins bool
}

func (f foreseen) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	if op.Verb != "patch" || f.begins {
		return nil
	}
	return f.scope.Write(ctx, op, fn)
}

// seenAnyway says of which types every change brings a pass though no step asks for it, or which never change: the rules of a StorageClass do not.
func seenAnyway(obj runtime.Object) bool {
	switch obj.(type) {
	case *corev1.Pod, *corev1.PodList, *networkingv1.NetworkPolicy, *networkingv1.NetworkPolicyList, *storagev1.StorageClass,
		*admissionregistrationv1.ValidatingAdmissionPolicy, *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return true
	}
	return false
}

// rehearse runs every step as if those before it had succeeded, and leaves nothing behind but what it would have written.
func (s *scope) rehearse(ctx context.Context, rec *v1alpha1.RecoveryStatus) error {
	x := s.execution(rec)
	defer func() { s.next.Recovery = nil }()
	var failures []error
	for _, step := range rec.Plan.Steps {
		if _, err := recovery.Run(ctx, x, step); err != nil {
			failures = append(failures, fmt.Errorf("step %s: %w", step.Name, err))
		}
	}
	return errors.Join(failures...)
}

func (s *scope) lookAgainAtDeadline(status v1alpha1.StepStatus, step v1alpha1.RecoveryStep) {
	if recovery.Settled(status.State) || status.State == v1alpha1.StepFailed || status.State == v1alpha1.StepUndone {
		return
	}
	if left := recovery.Deadline(status, step).Sub(s.now.Time); left >= 0 {
		s.lookAgainAfter(left + time.Second)
	}
}

// attachedPods are the quarantined pods of the revision that were not detached as evidence and still run.
func (s *scope) attachedPods(r *v1alpha1.RevisionStatus) []string {
	var out []string
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		if p.Revision == r.ID && p.Handling == v1alpha1.HandlingAttached && p.Verdict != v1alpha1.VerdictGone {
			out = append(out, p.Name)
		}
	}
	slices.Sort(out)
	return out
}

// leaksOf are the leaks of a pod that is about to be created, beside a deny policy that selects it.
func (s *scope) leaksOf(pod *corev1.Pod, deny *networkingv1.NetworkPolicy) []string {
	var out []string
	s.Index.Read(func(set *isolation.Set, peers *isolation.Peers) {
		for _, leak := range isolation.Evaluate(pod, set.With(isolation.ReadNetworkPolicy(deny)), nil, peers) {
			out = append(out, leak.String())
		}
	})
	return out
}
