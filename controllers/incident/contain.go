package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/controllers/remedy"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=patch
// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=incidents,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=incidents/status,verbs=update

// recordTargets adds what the targets consist of now to what was recorded before. Entries are never taken away: a pod that is gone is Gone.
func (s *scope) recordTargets() {
	if s.closing() || s.unauthorised() {
		return // nothing new is touched without authority; what is held stays
	}
	for _, r := range s.view.Revisions {
		known := slices.ContainsFunc(s.next.Revisions, func(o v1alpha1.RevisionStatus) bool { return o.ID == r.ID })
		switch {
		case known || s.recovered(r.Workload):
		case len(s.next.Revisions) >= v1alpha1.MaxRevisions:
			s.overflow = append(s.overflow, fmt.Sprintf("a revision of %s %s/%s", r.Workload.Kind, r.Workload.Namespace, r.Workload.Name))
		default:
			s.next.Revisions = append(s.next.Revisions, r)
		}
		s.noteRelapsed(r)
	}
	s.forgetGonePods()
	for _, p := range s.view.Pods {
		known := slices.ContainsFunc(s.next.Pods, func(o v1alpha1.PodStatus) bool { return o.UID == string(p.Pod.UID) })
		if known || target.Ended(p.Pod) || s.recovered(p.Workload) && !s.heldRevision(s.next.Revisions, p.Revision) {
			continue
		}
		entry := v1alpha1.PodStatus{
			Namespace: p.Pod.Namespace, Name: p.Pod.Name, UID: string(p.Pod.UID), Owner: p.Workload, Revision: p.Revision,
			Handling: v1alpha1.HandlingPending, Verdict: v1alpha1.VerdictUnknown, Claims: claimsOf(p.Pod),
		}
		if s.heldRevision(s.incident.Status.Revisions, p.Revision) {
			entry.Replacement = "Yes"
		}
		if len(s.next.Pods) >= v1alpha1.MaxStatusPods {
			s.overflow = append(s.overflow, fmt.Sprintf("Pod %s/%s", entry.Namespace, entry.Name))
			continue
		}
		s.next.Pods = append(s.next.Pods, entry)
	}
}

// unauthorised says that the declarer has, or is known to have, no right to what is done in their name.
func (s *scope) unauthorised() bool {
	return s.problem != nil && (s.problem.Reason == v1alpha1.ReasonNotAuthorized || s.problem.Reason == v1alpha1.ReasonDeclarerUnknown)
}

// claimsOf are the names of the claims that a pod uses: they outlive it, and so may what is on them.
func claimsOf(pod *corev1.Pod) []string {
	var out []string
	for key := range evidence.Claims([]*corev1.Pod{pod}) {
		out = append(out, key.Name)
	}
	slices.Sort(out)
	return out[:min(len(out), maxClaims)]
}

// recovered reports whether the recovery plan has already brought the workload back. What is rolled out after that is the application team's own.
func (s *scope) recovered(workload v1alpha1.ObjectRef) bool {
	rec := s.incident.Status.Recovery
	if rec == nil || recovery.Relapsed(rec, workload) || recovery.CompromisedByNow(s.incident, workload) {
		return false
	}
	for i, step := range rec.Plan.Steps {
		if i >= len(rec.Steps) || rec.Steps[i].State != v1alpha1.StepSucceeded {
			continue
		}
		one := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{step}}
		if step.Release != nil && s.inWave(step, workload) || recovery.RolledBack(one, workload) {
			return true
		}
	}
	return false
}

func (s *scope) heldRevision(revisions []v1alpha1.RevisionStatus, id string) bool {
	return id != "" && slices.ContainsFunc(revisions, func(r v1alpha1.RevisionStatus) bool {
		return r.ID == id && r.State == v1alpha1.RevisionHeld
	})
}

// roomForPods is how many pods are remembered before those that are gone are forgotten.
const roomForPods = v1alpha1.MaxStatusPods * 3 / 4

// forgetGonePods keeps the status bounded: replacements that came and went are dropped, oldest first. Their evidence stays, and so do the pods that the Incident began with. What was done to them stays in the
// journal until the ledger has it.
func (s *scope) forgetGonePods() {
	excess := len(s.next.Pods) - roomForPods
	forgotten := 0
	s.next.Pods = slices.DeleteFunc(s.next.Pods, func(p v1alpha1.PodStatus) bool {
		if forgotten >= excess || p.Replacement == "" || p.Verdict != v1alpha1.VerdictGone {
			return false
		}
		forgotten++
		s.settlePod(podRef(&p))
		return true
	})
}

// observe reads the NetworkPolicies of the target namespaces, the other Incidents that hold the same pods, the admission guard, and looks for policy APIs that the evaluator does not read.
func (s *scope) observe(ctx context.Context) error {
	for _, ns := range s.namespaces() {
		var list networkingv1.NetworkPolicyList
		if err := s.Client.List(ctx, &list, client.InNamespace(ns)); err != nil {
			return fmt.Errorf("listing NetworkPolicies in namespace %s: %w", ns, err)
		}
		for i := range list.Items {
			s.policies[ns] = append(s.policies[ns], &list.Items[i])
		}
		// Read live: the cache would start an informer for each kind, and wait for ever where watching it is not allowed.
		why, err := s.Foreign.Find(ctx, s.Live, ns)
		if err != nil {
			return err
		}
		s.foreign[ns] = cmp.Or(s.Follower.Missing(), why)
	}
	s.findings, s.unguarded = s.Guard.Check(ctx, s.Cached)
	guardFindings.Set(float64(len(s.findings)))
	return s.readOthers(ctx)
}

// readOthers reads the other Incidents, if a pod is held by another one too.
func (s *scope) readOthers(ctx context.Context) error {
	shared := slices.ContainsFunc(s.next.Pods, func(p v1alpha1.PodStatus) bool {
		pod := s.live(&p)
		return pod != nil && len(measure.HeldByOthers(pod, s.incident.UID)) > 0
	})
	if !shared {
		return nil
	}
	var list v1alpha1.IncidentList
	if err := s.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing Incidents: %w", err)
	}
	s.incidents = map[string]*v1alpha1.Incident{}
	for i := range list.Items {
		s.incidents[string(list.Items[i].UID)] = &list.Items[i]
	}
	return nil
}

// denyFirst puts the deny policies in force, before anything slow: they are created under deterministic names and take nothing away, so that they
// need no journal entry. The finalizer follows, then the list of refused revisions. Where something that exists has to be changed, the intent is written right before (see protect). A policy that cannot be had holds up only
// the pods of its namespace.
func (s *scope) denyFirst(ctx context.Context) error {
	s.policiesInForce = true
	for _, want := range s.desiredPolicies() {
		if err := s.ensurePolicy(ctx, want); err != nil {
			s.notDenied[want.Namespace] = errors.Join(s.notDenied[want.Namespace], err)
		}
	}
	if err := s.ensureFinalizer(ctx); err != nil {
		return err
	}
	return inOrder(ctx, s.ensureRefusals, s.ensureHeld, s.ensureBudgets)
}

// policyFailures are why deny policies are not in force.
func (s *scope) policyFailures() error {
	var failures []error
	for _, ns := range slices.Sorted(maps.Keys(s.notDenied)) {
		failures = append(failures, s.notDenied[ns])
	}
	return errors.Join(failures...)
}

// desiredPolicies are the deny policies that have to be in force, without those that are being lifted.
func (s *scope) desiredPolicies() []*networkingv1.NetworkPolicy {
	return slices.DeleteFunc(s.policiesWith(s.open), func(p *networkingv1.NetworkPolicy) bool {
		ref := policyRef(p)
		return s.journal.Intended(v1alpha1.ActionLiftQuarantine, ref) || s.letGoing(v1alpha1.ActionReleaseRevision, ref, s.workloadOf(p))
	})
}

// policiesWith are the deny policies with the exceptions that are open in each namespace.
func (s *scope) policiesWith(open map[string][]isolation.Exception) []*networkingv1.NetworkPolicy {
	var all []*networkingv1.NetworkPolicy
	for _, ns := range s.namespaces() {
		revisions := slices.DeleteFunc(slices.Clone(s.next.Revisions), func(r v1alpha1.RevisionStatus) bool { return r.Workload.Namespace != ns })
		all = append(all, measure.DenyPolicies(s.incident, []string{ns}, revisions, open[ns])...)
	}
	return all
}

// policyRef names a policy of ours. Its name contains the Incident's UID, which makes it unique without its own.
func policyRef(p *networkingv1.NetworkPolicy) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name}
}

func (s *scope) ensurePolicy(ctx context.Context, want *networkingv1.NetworkPolicy) error {
	have, ref := s.policyInForce(want), policyRef(want)
	if have != nil && equality.Semantic.DeepEqual(have.Spec, want.Spec) && have.Labels[v1alpha1.IncidentUIDLabel] == string(s.incident.UID) {
		s.inForce(ref, have)
		return nil
	}
	if have != nil {
		s.policiesInForce = false
		return s.repairPolicy(ctx, have, want)
	}
	// Nothing new starts in a namespace that goes, and what still runs there is judged by the policies that are left.
	leaving, err := s.wentAlong(ctx, ref)
	if leaving {
		s.undenied[want.Namespace] = true
		return nil
	}
	s.policiesInForce = false
	if err != nil {
		return err
	}
	s.lost(ref, "it was deleted; it is created again")
	op := v1alpha1.PlannedAction{Verb: "create", Object: ref, Detail: fmt.Sprintf(
		"deny all traffic, with %d exceptions, to and from pods that match %s", len(s.open[want.Namespace]), metav1.FormatLabelSelector(&want.Spec.PodSelector))}
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		// AlreadyExists means that our cache is behind: the next pass compares the content.
		return client.IgnoreAlreadyExists(c.Create(ctx, want.DeepCopy()))
	})
}

// repairPolicy puts back what the policy should be. It differs because somebody changed it, or because a new pod has made us withhold an exception.
func (s *scope) repairPolicy(ctx context.Context, have, want *networkingv1.NetworkPolicy) error {
	wanted := slices.ContainsFunc(s.policiesWith(s.wereOpen()), func(p *networkingv1.NetworkPolicy) bool {
		return p.Namespace == have.Namespace && p.Name == have.Name && equality.Semantic.DeepEqual(p.Spec, have.Spec)
	})
	detail := "an exception is withheld from now on"
	if !wanted || have.Labels[v1alpha1.IncidentUIDLabel] != string(s.incident.UID) {
		detail = "its content was changed by somebody else; it is put back"
		s.tampered(policyRef(want), "its content was changed; it is put back", have)
	}
	repaired := have.DeepCopy()
	repaired.Spec, repaired.Labels, repaired.Annotations = want.Spec, want.Labels, want.Annotations
	s.protect(ctx, v1alpha1.ActionRepairMeasure, policyRef(want), detail)
	op := v1alpha1.PlannedAction{Verb: "update", Object: policyRef(want), Detail: detail}
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error { return c.Update(ctx, repaired) })
}

// wereOpen are the exceptions that were open when the pass began.
func (s *scope) wereOpen() map[string][]isolation.Exception {
	out := map[string][]isolation.Exception{}
	for _, ns := range s.namespaces() {
		out[ns] = openExceptions(s.policy, s.incident.Status.Exceptions, ns)
	}
	return out
}

func (s *scope) policyInForce(want *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	for _, p := range s.policies[want.Namespace] {
		if p.Name == want.Name {
			return p
		}
	}
	return nil
}

// ensureFinalizer keeps the record of the quarantine for as long as there is one.
func (s *scope) ensureFinalizer(ctx context.Context) error {
	if s.holds() {
		s.journal.Done(v1alpha1.ActionHoldIncident, s.incidentRef())
		return nil
	}
	const why = "from now on the Incident holds a quarantine"
	s.protect(ctx, v1alpha1.ActionHoldIncident, s.incidentRef(), why)
	return s.patchFinalizer(ctx, v1alpha1.ActionHoldIncident, why, func(inc *v1alpha1.Incident) {
		controllerutil.AddFinalizer(inc, v1alpha1.HoldFinalizer)
	})
}

// holdStrayPolicies takes up the deny policies of a pass that died before it wrote the finalizer: with it, they are lifted by an approved close like any other.
func (s *scope) holdStrayPolicies(ctx context.Context) error {
	if s.dryRun() || !s.incident.DeletionTimestamp.IsZero() {
		return nil // a finalizer cannot be added to what is being deleted
	}
	for _, ns := range target.Namespaces(s.incident) {
		var list networkingv1.NetworkPolicyList
		err := s.Client.List(ctx, &list, client.InNamespace(ns), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(s.incident.UID)})
		if err != nil {
			return fmt.Errorf("listing NetworkPolicies in namespace %s: %w", ns, err)
		}
		if len(list.Items) > 0 {
			return s.ensureFinalizer(ctx)
		}
	}
	return nil
}

// patchFinalizer writes the finalizers, of which the API server's answer tells that they are written.
func (s *scope) patchFinalizer(ctx context.Context, action v1alpha1.Action, why string, change func(*v1alpha1.Incident)) error {
	return s.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: s.incidentRef(), Detail: why}, func(ctx context.Context, c client.Client) error {
		changed := s.incident.DeepCopy()
		change(changed)
		// The list of finalizers is replaced as a whole, so it must not have changed since it was read.
		if err := c.Patch(ctx, changed, client.MergeFromWithOptions(s.incident, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
		s.incident.ResourceVersion = changed.ResourceVersion
		s.incident.Finalizers = changed.Finalizers
		s.journal.Done(action, s.incidentRef())
		return nil
	})
}

// ensureList keeps a list that admission reads as it should be; want is nil when there should be none. It reports whether it is.
func (s *scope) ensureList(ctx context.Context, key client.ObjectKey, want *corev1.ConfigMap, why string) (inForce bool, err error) {
	var have corev1.ConfigMap
	err = s.Client.Get(ctx, key, &have)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("reading ConfigMap %s: %w", key, err)
	}
	exists, ref := err == nil, v1alpha1.ObjectRef{Kind: "ConfigMap", Namespace: key.Namespace, Name: key.Name}
	if exists == (want != nil) && (!exists || equality.Semantic.DeepEqual(have.Data, want.Data) && maps.Equal(have.Labels, want.Labels)) {
		s.journal.Done(v1alpha1.ActionUpdateList, ref)
		return true, nil
	}
	// ConfigMaps are not watched: that the write took effect is seen by looking again.
	s.lookAgainAfter(retryChanged)
	return false, s.writeList(ctx, ref, &have, want, why)
}

// writeList creates, updates or deletes a list; have is what there is, without a UID when there is none.
func (s *scope) writeList(ctx context.Context, ref v1alpha1.ObjectRef, have, want *corev1.ConfigMap, why string) error {
	op := v1alpha1.PlannedAction{Object: ref}
	if want == nil {
		op.Verb, op.Detail = "delete", "nothing is left of what it lists"
		uid := have.UID
		s.protect(ctx, v1alpha1.ActionUpdateList, ref, op.Detail)
		return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return client.IgnoreNotFound(c.Delete(ctx, have, client.Preconditions{UID: &uid}))
		})
	}
	op.Detail = why
	if have.UID == "" {
		op.Verb = "create"
		return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return client.IgnoreAlreadyExists(c.Create(ctx, want))
		})
	}
	op.Verb = "update"
	s.protect(ctx, v1alpha1.ActionUpdateList, ref, why)
	have.Data, have.Labels = want.Data, want.Labels
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error { return c.Update(ctx, have) })
}

// quarantinePods puts the quarantine label on every pod whose manifests are safe.
func (s *scope) quarantinePods(ctx context.Context) error {
	var failures []error
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		pod := s.live(p)
		if pod == nil || target.Ended(pod) || p.Handling == v1alpha1.HandlingReleased {
			continue
		}
		p.Node, p.IPs = pod.Spec.NodeName, podIPs(pod)
		if reason, _, no := isolation.NotEnforceable(pod); no && reason != isolation.ReasonSecondaryInterface {
			p.Handling = v1alpha1.HandlingUntouched
			continue
		}
		if s.notDenied[p.Namespace] != nil && !measure.Holds(pod, s.incident.UID) {
			s.failed[p.UID] = s.notDenied[p.Namespace]
			continue // without the policy its labels are what protects it
		}
		// One pod that cannot be cut off is no reason to leave the others open.
		err := s.quarantinePod(ctx, p, pod)
		s.failed[p.UID] = err
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func (s *scope) quarantinePod(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) error {
	ref := podRef(p)
	if measure.Holds(pod, s.incident.UID) {
		was := p.Handling
		p.Handling = v1alpha1.HandlingAttached
		if isDetached(pod) || was == v1alpha1.HandlingDetached {
			p.Handling = v1alpha1.HandlingDetached
		}
		s.journal.Done(v1alpha1.ActionQuarantinePod, ref)
		return s.repairPod(ctx, p, pod)
	}
	if s.letGoing(v1alpha1.ActionReleasePod, ref, p.Owner) || s.journal.Intended(v1alpha1.ActionDeletePod, ref) || !s.recorded(p) {
		return nil
	}
	if p.Handling == v1alpha1.HandlingDetached || p.Handling == v1alpha1.HandlingAttached {
		return s.holdAgain(ctx, p, pod)
	}
	detach, err := s.detaches(ctx, p, pod)
	if err != nil {
		return err
	}
	detail := "add the quarantine label"
	if detach {
		detail = "take all labels off and add the quarantine label; the labels are kept in an annotation"
	} else if why := s.decisions[p.UID].Why; why != "" {
		detail += "; the pod's own labels stay, because " + why
	}
	if !s.intendContainment(v1alpha1.ActionQuarantinePod, ref, detail) {
		return nil
	}
	labels, annotations, err := measure.Quarantined(pod, s.incident.UID, detach)
	if err != nil {
		return err
	}
	return s.patchPod(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, pod, labels, annotations)
}

// holdAgain puts the quarantine label back on a pod that somebody has taken it off.
func (s *scope) holdAgain(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) error {
	s.tampered(podRef(p), "its quarantine label was taken off; it is put back", pod)
	return s.putBack(ctx, p, pod, "put the quarantine label back")
}

// isDetached says whether quarantine took the pod's labels.
func isDetached(pod *corev1.Pod) bool {
	_, kept := pod.Annotations[v1alpha1.OriginalAnnotation]
	return kept && len(measure.HeldByOthers(pod, "")) > 0
}

// repairPod undoes what others changed on a pod that is held: labels that were put back, annotations that were taken away.
func (s *scope) repairPod(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) error {
	ref, detached := podRef(p), p.Handling == v1alpha1.HandlingDetached
	drift := measure.Drift(pod, s.incident.UID, detached)
	if len(drift) == 0 {
		s.journal.Done(v1alpha1.ActionRepairMeasure, ref)
	}
	if len(drift) == 0 || s.letGoing(v1alpha1.ActionReleasePod, ref, p.Owner) || s.journal.Intended(v1alpha1.ActionDeletePod, ref) || s.closing() {
		return nil
	}
	what := strings.Join(drift, ", ") + "; it is put back"
	s.tampered(ref, what, pod)
	return s.putBack(ctx, p, pod, what)
}

// putBack gives a pod the labels and annotations that it has to have while it is held.
func (s *scope) putBack(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod, why string) error {
	detached := p.Handling == v1alpha1.HandlingDetached
	var original *measure.Original
	if known, unreadable := measure.OriginalOf(pod); detached && (known == nil || unreadable != nil) {
		var err error
		if original, err = s.originalFromEvidence(ctx, p); err != nil {
			return err
		}
	}
	labels, annotations, lost, err := measure.Repaired(pod, s.incident.UID, detached, original)
	if err != nil {
		return err
	}
	if lost && maps.Equal(labels, pod.Labels) && maps.Equal(annotations, pod.Annotations) {
		s.journal.Done(v1alpha1.ActionRepairMeasure, podRef(p))
		return nil // what is lost cannot be put back; the release says so
	}
	s.protect(ctx, v1alpha1.ActionRepairMeasure, podRef(p), why)
	return s.patchPod(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: podRef(p), Detail: why}, pod, labels, annotations)
}

// originalFromEvidence reads what the pod was from the record that was made before it was changed; nil if there is none.
func (s *scope) originalFromEvidence(ctx context.Context, p *v1alpha1.PodStatus) (*measure.Original, error) {
	record, err := evidence.ReadRecord(ctx, s.Client, s.OperatorNamespace, evidence.RecordName(s.incident, p.UID))
	if errors.Is(err, evidence.ErrSpoolGone) || errors.Is(err, evidence.ErrSpoolDamaged) {
		return nil, nil // a record that cannot be read is no record; the pod is then repaired without it, and that is said
	}
	if err != nil || record.Pod == nil || string(record.Pod.UID) != p.UID {
		return nil, err
	}
	if original, err := measure.OriginalOf(record.Pod); err == nil && original != nil {
		return original, nil // another Incident had detached it before
	}
	return &measure.Original{Labels: record.Pod.Labels, Owner: metav1.GetControllerOf(record.Pod)}, nil
}

// detaches decides, once for each pod, whether it is detached. A replacement is not: its controller would at once create another one, without end.
func (s *scope) detaches(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) (bool, error) {
	if s.policy.Isolation.Pods != v1alpha1.PodHandlingDetach || p.Replacement != "" {
		return false, nil
	}
	if d, decided := s.decisions[p.UID]; decided {
		return d.Detach, nil
	}
	adopters, err := s.adoptersIn(ctx, pod.Namespace)
	if err != nil {
		return false, err
	}
	deny := s.denyIn(pod.Namespace)
	s.Index.Read(func(set *isolation.Set, _ *isolation.Peers) {
		s.decisions[p.UID] = remedy.Handling(pod, s.incident.UID, set.With(deny...), s.exceptionsOf(pod), adopters, v1alpha1.PodHandlingDetach)
	})
	return s.decisions[p.UID].Detach, nil
}

// denyIn are the Incident's deny policies in a namespace, those too that are about to be in force. Where one cannot be created, because the namespace is being deleted, none is counted on.
func (s *scope) denyIn(namespace string) []*isolation.Policy {
	if s.undenied[namespace] {
		return nil
	}
	var out []*isolation.Policy
	for _, want := range s.desiredPolicies() {
		if want.Namespace == namespace {
			out = append(out, isolation.ReadNetworkPolicy(want))
		}
	}
	return out
}

// patchPod replaces labels and annotations of exactly the version of the pod that was read. When it has changed, or is gone, the next pass judges anew.
func (s *scope) patchPod(ctx context.Context, op v1alpha1.PlannedAction, pod *corev1.Pod, labels, annotations map[string]string) error {
	patch, err := measure.MetadataPatch(pod, labels, annotations)
	if err != nil {
		return err
	}
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Patch(ctx, pod.DeepCopy(), client.RawPatch(types.JSONPatchType, patch))
		if apierrors.IsNotFound(err) || isFailedTest(err) {
			s.lookAgainAfter(retryChanged)
			return nil
		}
		return err
	})
}

func podIPs(pod *corev1.Pod) []string {
	var out []string
	for _, ip := range pod.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return out
}
