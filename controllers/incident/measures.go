package incident

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;update;delete

// measured returns the record of an object that was seen in force, or nil.
func (s *scope) measured(ref v1alpha1.ObjectRef) *v1alpha1.ObjectRef {
	for i := range s.next.Measures {
		if m := &s.next.Measures[i]; m.Kind == ref.Kind && m.Namespace == ref.Namespace && m.Name == ref.Name {
			return m
		}
	}
	return nil
}

// inForce records that an object was seen as it should be. One that has another UID than the one that was seen before was put there by somebody else.
func (s *scope) inForce(ref v1alpha1.ObjectRef, obj client.Object) {
	if s.dryRun() {
		return
	}
	s.journal.Done(v1alpha1.ActionRepairMeasure, ref)
	ref.UID = string(obj.GetUID())
	m := s.measured(ref)
	switch {
	case m == nil && len(s.next.Measures) < v1alpha1.MaxMeasures:
		s.next.Measures = append(s.next.Measures, ref)
	case m != nil && m.UID != ref.UID:
		// Counts once, whether the operator or somebody else has created the new one.
		s.tampered(*m, "it was deleted, and an object of the same name was created", nil)
		m.UID = ref.UID
	}
}

// lost records that an object that was seen in force is missing, and what is done about it.
func (s *scope) lost(ref v1alpha1.ObjectRef, what string) {
	if m := s.measured(ref); m != nil {
		s.tampered(*m, what, nil)
		s.forgetMeasure(ref)
	}
}

// wentAlong reports whether a missing object cannot be created because its namespace is being deleted, or is gone. That is the API server's word: the cache, which may be behind, is only asked first.
func (s *scope) wentAlong(ctx context.Context, ref v1alpha1.ObjectRef) (bool, error) {
	for _, reader := range []client.Reader{s.Client, s.Live} {
		var ns corev1.Namespace
		err := reader.Get(ctx, client.ObjectKey{Name: ref.Namespace}, &ns)
		if client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("reading namespace %s: %w", ref.Namespace, err)
		}
		if err == nil && ns.DeletionTimestamp.IsZero() {
			return false, nil
		}
	}
	s.lost(ref, "it was deleted with its namespace")
	return true, nil
}

func (s *scope) forgetMeasure(ref v1alpha1.ObjectRef) {
	s.journal.Done(v1alpha1.ActionRepairMeasure, ref) // there is nothing left to be put back
	s.next.Measures = slices.DeleteFunc(s.next.Measures, func(m v1alpha1.ObjectRef) bool {
		return m.Kind == ref.Kind && m.Namespace == ref.Namespace && m.Name == ref.Name
	})
}

func budgetRef(b *policyv1.PodDisruptionBudget) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "PodDisruptionBudget", Namespace: b.Namespace, Name: b.Name}
}

// ensureBudgets keeps drains, autoscalers and deschedulers from evicting what is held.
func (s *scope) ensureBudgets(ctx context.Context) error {
	for _, ns := range s.namespaces() {
		want := measure.Budget(s.incident, ns)
		if s.journal.Intended(v1alpha1.ActionLiftQuarantine, budgetRef(want)) {
			continue
		}
		if err := s.ensureBudget(ctx, want); err != nil {
			return err
		}
	}
	return nil
}

func (s *scope) ensureBudget(ctx context.Context, want *policyv1.PodDisruptionBudget) error {
	ref := budgetRef(want)
	var have policyv1.PodDisruptionBudget
	err := s.Client.Get(ctx, client.ObjectKeyFromObject(want), &have)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading PodDisruptionBudget %s/%s: %w", want.Namespace, want.Name, err)
	}
	if apierrors.IsNotFound(err) {
		if leaving, err := s.wentAlong(ctx, ref); err != nil || leaving {
			return err
		}
		s.lost(ref, "it was deleted; it is created again")
		op := v1alpha1.PlannedAction{Verb: "create", Object: ref, Detail: "keep quarantined pods from being evicted"}
		return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return client.IgnoreAlreadyExists(c.Create(ctx, want))
		})
	}
	if equality.Semantic.DeepEqual(have.Spec, want.Spec) && have.Labels[v1alpha1.IncidentUIDLabel] == string(s.incident.UID) {
		s.inForce(ref, &have)
		return nil
	}
	s.tampered(ref, "its content was changed; it is put back", &have)
	repaired := have.DeepCopy()
	repaired.Spec, repaired.Labels, repaired.Annotations = want.Spec, want.Labels, want.Annotations
	op := v1alpha1.PlannedAction{Verb: "update", Object: ref, Detail: "its content was changed by somebody else; it is put back"}
	s.protect(ctx, v1alpha1.ActionRepairMeasure, ref, op.Detail)
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error { return c.Update(ctx, repaired) })
}

// ensureHeld keeps the list of what is held, which admission reads, as it should be. It is written before the pods are labelled.
func (s *scope) ensureHeld(ctx context.Context) error {
	held, claims, err := s.holding(ctx)
	if err != nil {
		return err
	}
	want := measure.HeldList(s.incident, s.OperatorNamespace, held, claims)
	key := client.ObjectKey{Namespace: s.OperatorNamespace, Name: measure.HeldListName(s.incident)}
	s.listed = want != nil
	s.heldInForce, err = s.ensureList(ctx, key, want, "tell admission what is held")
	return err
}

// holding are the pods that are held or about to be, with the labels that they then have, and their claims.
func (s *scope) holding(ctx context.Context) ([]measure.HeldPod, []types.NamespacedName, error) {
	var held []measure.HeldPod
	var pods []*corev1.Pod
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		pod := s.live(p)
		if pod == nil || p.Handling == v1alpha1.HandlingReleased {
			continue
		}
		labels := pod.Labels
		if s.toBeHeld(p, pod) {
			detach, err := s.detaches(ctx, p, pod)
			if err != nil {
				return nil, nil, err
			}
			if labels, _, err = measure.Quarantined(pod, s.incident.UID, detach); err != nil {
				return nil, nil, err
			}
		}
		held = append(held, measure.HeldPod{Pod: pod, Labels: labels, Kept: s.kept(p)})
		pods = append(pods, pod)
	}
	var claims []types.NamespacedName
	for key := range evidence.Claims(pods) {
		claims = append(claims, key)
	}
	return held, claims, nil
}

// toBeHeld says whether the pod is still to get its label.
func (s *scope) toBeHeld(p *v1alpha1.PodStatus, pod *corev1.Pod) bool {
	reason, _, no := isolation.NotEnforceable(pod)
	untouchable := no && reason != isolation.ReasonSecondaryInterface
	return !untouchable && !target.Ended(pod) && !measure.Holds(pod, s.incident.UID) && !s.letGoing(v1alpha1.ActionReleasePod, podRef(p), p.Owner)
}

// kept says whether nobody may delete the pod. Replacements may go as they came, recovery lets controllers replace what is still theirs, and where no policy can isolate a pod, deleting it is
// the way to contain it.
func (s *scope) kept(p *v1alpha1.PodStatus) bool {
	recovering := s.next.Recovery != nil && p.Handling == v1alpha1.HandlingAttached
	return p.Replacement == "" && !recovering && p.Handling != v1alpha1.HandlingUntouched && p.Verdict != v1alpha1.VerdictNotEnforceable &&
		!s.journal.Intended(v1alpha1.ActionDeletePod, podRef(p))
}
