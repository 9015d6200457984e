package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/containmentpolicy"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=containmentpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// clockSkew is how far a declarer's clock may run ahead of ours.
const clockSkew = 5 * time.Minute

// admit decides whether the Incident may act: governed by exactly one policy, declared by somebody who is authorised in every target namespace, its
// targets found, none of them protected, and within limits. Nothing is written before that. What was accepted once stays accepted: if a target that
// was added later is not, the others stay contained.
func (s *scope) admit(ctx context.Context) error {
	targets, err := s.acceptable(ctx)
	if err := s.noteProblem(err); err != nil {
		return err
	}
	if s.problem != nil {
		targets = s.incident.Status.Targets
	}
	if err := s.inspect(ctx, targets); err != nil {
		return err
	}
	if s.problem == nil && len(targets) > len(s.incident.Status.Targets) {
		if err := s.noteProblem(s.withinBounds(targets)); err != nil {
			return err
		}
		if s.problem != nil {
			targets = s.incident.Status.Targets
			if err := s.inspect(ctx, targets); err != nil {
				return err
			}
		}
	}
	s.next.Targets = targets
	return nil
}

// noteProblem keeps a *target.Problem for the Accepted condition and passes on any other error.
func (s *scope) noteProblem(err error) error {
	if p, ok := errors.AsType[*target.Problem](err); ok {
		s.problem = p
		return nil
	}
	return err
}

func (s *scope) acceptable(ctx context.Context) ([]v1alpha1.ResolvedTarget, error) {
	if err := s.governed(ctx); err != nil {
		return nil, err
	}
	if err := s.timely(); err != nil {
		return nil, err
	}
	if s.closing() && len(s.incident.Status.Targets) > 0 {
		// Closing acts on nothing that was not accepted before, and the declarer may have left by then.
		return s.incident.Status.Targets, nil
	}
	if err := s.authorised(ctx); err != nil {
		return nil, err
	}
	return target.Resolve(ctx, s.Client, s.incident)
}

// governed finds the policy. Once something is held the copy in status stays in force, so that editing a policy never weakens containment.
func (s *scope) governed(ctx context.Context) error {
	if s.holds() && s.incident.Status.Policy != nil {
		s.policy = containmentpolicy.Effective(s.incident.Status.Policy.Spec) // it may be from before a field had its default
		return nil
	}
	var ns corev1.Namespace
	if err := s.Client.Get(ctx, client.ObjectKey{Name: s.incident.Namespace}, &ns); err != nil {
		return fmt.Errorf("reading namespace %s: %w", s.incident.Namespace, err)
	}
	var list v1alpha1.ContainmentPolicyList
	if err := s.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing ContainmentPolicies: %w", err)
	}
	policy, err := containmentpolicy.Match(s.incident, ns.Labels, list.Items)
	if err != nil {
		s.next.Policy = nil
		return err
	}
	s.policy = containmentpolicy.Effective(policy.Spec)
	s.next.Policy = &v1alpha1.GoverningPolicy{Name: policy.Name, UID: string(policy.UID), Generation: policy.Generation, Spec: s.policy}
	return nil
}

// timely repeats what admission has checked, for servers on which the admission policy is missing.
func (s *scope) timely() error {
	latest := s.now.Add(clockSkew)
	for name, at := range map[string]time.Time{"detectedAt": s.incident.Spec.DetectedAt.Time, "suspectedSince": s.incident.Spec.SuspectedSince.Time} {
		if at.After(latest) {
			return &target.Problem{Reason: v1alpha1.ReasonInvalidTimes, Message: fmt.Sprintf("spec.%s %s lies in the future; correct it", name, at.UTC().Format(time.RFC3339))}
		}
	}
	return nil
}

// authorised repeats the check of admission with the declarer's stored identity: rights may have been revoked in between.
func (s *scope) authorised(ctx context.Context) error {
	by := s.incident.Spec.DeclaredBy
	if by.Username == "" {
		return &target.Problem{Reason: v1alpha1.ReasonDeclarerUnknown,
			Message: "spec.declaredBy is empty: admission did not stamp who declared this Incident; apply config/guard and declare it again"}
	}
	for _, ns := range target.Namespaces(s.incident) {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: by.Username, UID: by.UID, Groups: by.Groups,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: ns, Verb: "create", Group: v1alpha1.SchemeGroupVersion.Group, Resource: "incidents",
			},
		}}
		if err := s.Client.Create(ctx, review); err != nil {
			return fmt.Errorf("asking whether %s may create Incidents in namespace %s: %w", by.Username, ns, err)
		}
		if !review.Status.Allowed {
			return &target.Problem{Reason: v1alpha1.ReasonNotAuthorized, Message: fmt.Sprintf(
				"%s, who declared this Incident, may not create Incidents in namespace %s and so may not contain anything there%s", by.Username, ns, s.untilClosed())}
		}
	}
	return nil
}

// untilClosed says what becomes of what is held when its declarer has lost the right to it, perhaps with the namespace, and what there is to do: nothing opens by itself.
func (s *scope) untilClosed() string {
	if !s.holds() {
		return ""
	}
	return fmt.Sprintf("; what is held stays held, and its evidence is collected, but nothing new is contained, and no recovery step is begun. Give the right back, or have the Incident closed: "+
		"somebody else who may create and update Incidents in namespace %s (ClusterRole cofferdam-responder) sets spec.goal to Close, and others approve that (ClusterRole cofferdam-approver)", s.incident.Namespace)
}

func (s *scope) inspect(ctx context.Context, targets []v1alpha1.ResolvedTarget) error {
	namespaces := namespacesOf(targets)
	if s.incident.Spec.Goal == v1alpha1.GoalRecover && !slices.Contains(namespaces, s.incident.Namespace) {
		namespaces = append(namespaces, s.incident.Namespace) // steps work there, and believe only pods
	}
	view, err := target.Inspect(ctx, s.Client, namespaces, targets, recovery.RecoveredBy(s.incident))
	if err != nil {
		return err
	}
	s.view = view
	return nil
}

func (s *scope) withinBounds(targets []v1alpha1.ResolvedTarget) error {
	namespaces := namespacesOf(targets)
	pods := slices.DeleteFunc(slices.Clone(s.view.Pods), func(p target.Pod) bool { return target.Ended(p.Pod) })
	if err := target.CheckProtected(namespaces, pods, s.policy, s.OperatorNamespace); err != nil {
		return err
	}
	if n := len(s.view.Revisions); n > v1alpha1.MaxRevisions {
		return &target.Problem{Reason: v1alpha1.ReasonLimitExceeded, Message: fmt.Sprintf(
			"the targets have %d revisions, an Incident holds at most %d; declare several Incidents", n, v1alpha1.MaxRevisions)}
	}
	return target.CheckLimits(namespaces, pods, s.view.All, s.policy.Limits)
}
