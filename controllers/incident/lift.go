package incident

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/controllers/remedy"
)

// close lifts what is still held, once enough people have approved: pods first, then revisions, and the deny policy last, when no pod is left that it
// selects.
func (s *scope) close(ctx context.Context) error {
	s.next.CloseDigest = approval.CloseDigest(s.incident, s.next.Targets, s.policy.Closing.EvidencePods)
	if !s.closing() || s.dryRun() {
		return nil
	}
	if s.auditing || s.books.withheld != "" && s.books.trouble() == "" {
		s.closePaused = true // what is merely being written, or read, is waited for without a word: its end wakes us
		return nil
	}
	waiting, err := s.closeSteps(ctx)
	if err != nil {
		return err
	}
	if waiting != "" {
		s.closeWait = waiting
		return nil
	}
	if s.next.ReleasedAt.IsZero() {
		s.next.ReleasedAt = s.now
	}
	return nil
}

func (s *scope) closeSteps(ctx context.Context) (waiting string, err error) {
	if missing := approval.Missing(s.incident, v1alpha1.CloseStage, s.next.CloseDigest, s.policy.Closing.RequiredApprovals); missing != "" {
		return "closing " + missing, nil
	}
	if unguarded, err := approval.Guarded(ctx, s.Client); err != nil || unguarded != "" {
		return unguarded, err
	}
	if why := cmp.Or(s.books.trouble(), s.evidenceWait); why != "" {
		return why, nil
	}
	if what := s.exchanging(); what != "" {
		return fmt.Sprintf("waits until %s; see status.recovery.steps", what), nil
	}
	for _, e := range s.next.Evidence {
		if e.State == v1alpha1.EvidencePending {
			return fmt.Sprintf("waits for evidence of %s %s/%s to be collected or declared as a gap", e.Subject.Kind, e.Subject.Namespace, e.Subject.Name), nil
		}
	}
	all := func(*v1alpha1.PodStatus) bool { return true }
	if waiting, err := s.releasePods(ctx, all, s.policy.Closing.EvidencePods == v1alpha1.EvidencePodDelete); err != nil || waiting != "" {
		return waiting, err
	}
	if s.jobsLeft {
		return "waits until the Jobs of evidence tools are removed", nil
	}
	if waiting, err := s.restorePolicies(ctx); err != nil || waiting != "" {
		return waiting, err
	}
	for i := range s.next.Revisions {
		if waiting, err := s.liftRevision(ctx, &s.next.Revisions[i]); err != nil || waiting != "" {
			return waiting, err
		}
	}
	if waiting := s.liftRefusals(); waiting != "" {
		return waiting, nil
	}
	if !s.heldInForce || s.listed {
		s.lookAgainAfter(retryChanged)
		return "waits until the list of what is held is removed", nil
	}
	return s.liftQuarantine(ctx)
}

// heldPods are the entries of pods that exist and carry the Incident's label.
func (s *scope) heldPods() []*v1alpha1.PodStatus {
	var out []*v1alpha1.PodStatus
	for i := range s.next.Pods {
		if pod := s.live(&s.next.Pods[i]); pod != nil && measure.Holds(pod, s.incident.UID) {
			out = append(out, &s.next.Pods[i])
		}
	}
	return out
}

// releasePods takes the Incident's hold off the selected pods. With remove, detached pods are deleted instead, unless another Incident holds them. It says
// which pods it still waits for.
func (s *scope) releasePods(ctx context.Context, selected func(*v1alpha1.PodStatus) bool, remove bool) (waiting string, err error) {
	var names []string
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		if !selected(p) {
			continue
		}
		left, err := s.releasePod(ctx, p, remove)
		if err != nil {
			return "", err
		}
		if left {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	return "waits until pods are released: " + strings.Join(names, ", "), nil
}

// releasePod releases one pod and reports whether it is still held.
func (s *scope) releasePod(ctx context.Context, p *v1alpha1.PodStatus, remove bool) (held bool, err error) {
	pod, ref := s.live(p), podRef(p)
	switch {
	case pod == nil:
		s.settlePod(ref)
		return false, nil
	case s.dryRun():
		return false, nil // nothing is held, and nothing may look as if it had been released
	case !measure.Holds(pod, s.incident.UID):
		if p.Handling != v1alpha1.HandlingUntouched {
			p.Handling = v1alpha1.HandlingReleased
			p.Verdict, p.Leaks, p.LeakCount, p.UndecidedCount, p.Residuals, p.Proof, p.Message = v1alpha1.VerdictReleased, nil, 0, 0, nil, "", ""
		}
		s.journal.Done(v1alpha1.ActionReleasePod, ref)
		s.journal.Done(v1alpha1.ActionRepairMeasure, ref)
		return false, nil
	case remove && p.Handling == v1alpha1.HandlingDetached && len(measure.HeldByOthers(pod, s.incident.UID)) == 0:
		x := &recovery.Execution{Writer: s, Journal: s.journal}
		if !pod.DeletionTimestamp.IsZero() {
			return true, nil
		}
		return true, recovery.DeletePod(ctx, x, ref, "the Incident is closed and its ContainmentPolicy removes evidence pods")
	}
	if !s.journal.IntendAnew(v1alpha1.ActionReleasePod, ref, "take the Incident's label off; labels return when no other Incident holds the pod") {
		return true, nil
	}
	labels, annotations, err := measure.Released(pod, s.incident.UID)
	if err != nil {
		return true, err
	}
	return true, s.patchPod(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: "release from quarantine"}, pod, labels, annotations)
}

// liftRevision ends the quarantine of a revision. Its refusal ends with the next pass, which writes the list anew.
func (s *scope) liftRevision(ctx context.Context, r *v1alpha1.RevisionStatus) (waiting string, err error) {
	if r.State == v1alpha1.RevisionReleased || s.dryRun() {
		return "", nil
	}
	if r.Selector != nil {
		lifted, err := s.liftPolicy(ctx, v1alpha1.ActionReleaseRevision, r.Workload.Namespace, measure.RevisionPolicyName(s.incident, r.ID))
		if err != nil || !lifted {
			return fmt.Sprintf("waits until the quarantine of a revision of %s %s is lifted", r.Workload.Kind, r.Workload.Name), err
		}
	}
	r.State = v1alpha1.RevisionReleased
	return "", nil
}

// liftQuarantine deletes the Incident's deny policies.
func (s *scope) liftQuarantine(ctx context.Context) (waiting string, err error) {
	if waiting, err := s.liftOthers(ctx); err != nil || waiting != "" {
		return waiting, err
	}
	for _, ns := range s.namespaces() {
		for _, name := range s.ownPolicies(ns) {
			lifted, err := s.liftPolicy(ctx, v1alpha1.ActionLiftQuarantine, ns, name)
			if err != nil || !lifted {
				return fmt.Sprintf("waits until the deny policy %s in namespace %s is removed", name, ns), err
			}
		}
	}
	return "", nil
}

// liftOthers deletes what supports the deny policies: disruption budgets, and the deny tier.
func (s *scope) liftOthers(ctx context.Context) (waiting string, err error) {
	var objects []client.Object
	for _, ns := range s.namespaces() {
		b := measure.Budget(s.incident, ns)
		objects = append(objects, b)
	}
	// Whether or not status knows of one: a pass may have died between creating it and writing that down.
	for _, kind := range []schema.GroupKind{kindClusterNetworkPolicy, kindCiliumClusterwide} {
		if version, served := s.Follower.Serves(kind); served {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(kind.WithVersion(version))
			u.SetName(remedy.TierName(s.incident))
			objects = append(objects, u)
		}
	}
	for _, obj := range objects {
		gone, err := s.liftObject(ctx, obj)
		if err != nil || !gone {
			return fmt.Sprintf("waits until %s is removed", obj.GetName()), err
		}
	}
	return "", nil
}

// liftObject deletes one object of ours, once the intent is durable, and reports whether it is gone.
func (s *scope) liftObject(ctx context.Context, obj client.Object) (bool, error) {
	ref := v1alpha1.ObjectRef{Kind: "PodDisruptionBudget", Namespace: obj.GetNamespace(), Name: obj.GetName()}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		ref.Kind = u.GetKind()
	}
	const detail = "delete what kept the quarantine in place"
	if !s.journal.Intend(v1alpha1.ActionLiftQuarantine, ref, detail) {
		return false, nil
	}
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(obj), obj)
	if apierrors.IsNotFound(err) || apimeta.IsNoMatchError(err) {
		s.journal.Done(v1alpha1.ActionLiftQuarantine, ref)
		s.forgetMeasure(ref)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s %s: %w", ref.Kind, obj.GetName(), err)
	}
	if !s.journal.IntendAnew(v1alpha1.ActionLiftQuarantine, ref, detail) {
		return false, nil // it was gone once, and somebody has created it again
	}
	uid := obj.GetUID()
	s.lookAgainAfter(retryChanged)
	return false, s.Write(ctx, v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: "lift the quarantine"}, func(ctx context.Context, c client.Client) error {
		err := c.Delete(ctx, obj, client.Preconditions{UID: &uid})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// ownPolicies are the names of the Incident's policies in a namespace: the one that has to be there, and whatever a pass that died has left.
func (s *scope) ownPolicies(ns string) []string {
	names := []string{measure.DenyPolicyName(s.incident)}
	for _, p := range s.policies[ns] {
		if p.Labels[v1alpha1.IncidentUIDLabel] == string(s.incident.UID) && p.Name != names[0] {
			names = append(names, p.Name)
		}
	}
	return names
}

// liftPolicy deletes one policy of ours, once the intent is durable, and reports whether it is gone.
func (s *scope) liftPolicy(ctx context.Context, action v1alpha1.Action, ns, name string) (bool, error) {
	want := &networkingv1.NetworkPolicy{}
	want.Namespace, want.Name = ns, name
	ref := policyRef(want)
	durable := s.journal.Intend(action, ref, "delete the deny policy")
	have := s.policyInForce(want)
	if have == nil && durable {
		// The cache may be behind; only the API server's word ends a quarantine.
		err := s.Live.Get(ctx, client.ObjectKeyFromObject(want), want)
		if !apierrors.IsNotFound(err) {
			s.lookAgainAfter(retryChanged)
			return false, err
		}
		s.forgetMeasure(ref)
		s.journal.Done(action, ref)
		return true, nil
	}
	if have == nil || !s.journal.IntendAnew(action, ref, "delete the deny policy") {
		return false, nil
	}
	uid := have.UID
	op := v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: "lift the quarantine"}
	return false, s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Delete(ctx, have.DeepCopy(), client.Preconditions{UID: &uid})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			s.lookAgainAfter(retryChanged)
			return nil
		}
		return err
	})
}

// letGo removes the finalizer once nothing is held, status says so, and the ledger has it all: after that the Incident may be deleted.
func (s *scope) letGo(ctx context.Context) error {
	const why = "nothing is held any more"
	if !s.holds() {
		s.journal.Done(v1alpha1.ActionLetIncidentGo, s.incidentRef())
		return nil
	}
	// With the intent, the ledger has to become current once more.
	if !s.books.current || !s.journal.Intend(v1alpha1.ActionLetIncidentGo, s.incidentRef(), why) {
		return nil
	}
	return s.patchFinalizer(ctx, v1alpha1.ActionLetIncidentGo, why, func(inc *v1alpha1.Incident) {
		controllerutil.RemoveFinalizer(inc, v1alpha1.HoldFinalizer)
	})
}
