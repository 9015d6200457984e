package incident

import (
	"context"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/remedy"
)

// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies,verbs=get;create;update;delete
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumclusterwidenetworkpolicies,verbs=get;create;update;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=patch

var (
	kindClusterNetworkPolicy = schema.GroupKind{Group: "policy.networking.k8s.io", Kind: "ClusterNetworkPolicy"}
	kindCiliumClusterwide    = schema.GroupKind{Group: "cilium.io", Kind: "CiliumClusterwideNetworkPolicy"}
)

func isTier(ref v1alpha1.ObjectRef) bool {
	return ref.Kind == kindClusterNetworkPolicy.Kind || ref.Kind == kindCiliumClusterwide.Kind
}

// closeLeaks does what can be done about policies that select pods whatever their labels: a tier that denies ahead of them, then, where the standing orders allow it, a carve-out. What is left is
// reported with the edit that closes it.
func (s *scope) closeLeaks(ctx context.Context) error {
	if seeing := s.blind == nil; !seeing || s.closing() {
		return nil
	}
	leaks := s.openLeaks()
	if err := s.ensureTier(ctx, leaks); err != nil {
		return err
	}
	for _, np := range s.offending(leaks) {
		if err := s.carveOut(ctx, np); err != nil {
			return err
		}
	}
	return nil
}

// openLeaks are the leaks of pods that are quarantined and leak all the same, or may do so.
func (s *scope) openLeaks() []isolation.Leak {
	var out []isolation.Leak
	for _, p := range s.next.Pods {
		quarantined := p.Handling == v1alpha1.HandlingDetached || p.Handling == v1alpha1.HandlingAttached || s.dryRun()
		if quarantined && (p.Verdict == v1alpha1.VerdictLeaking || p.Verdict == v1alpha1.VerdictUnknown) {
			out = append(out, s.leaks[p.UID]...)
		}
	}
	return out
}

// ensureTier puts a deny ahead of every NetworkPolicy, if the cluster serves an API for it and a leak calls for it. Once there it stays until the Incident is closed.
func (s *scope) ensureTier(ctx context.Context, leaks []isolation.Leak) error {
	placed := slices.ContainsFunc(s.next.Measures, isTier)
	calls := slices.ContainsFunc(leaks, func(l isolation.Leak) bool { return l.Source.Name != "" })
	if s.policy.Isolation.DenyTier != v1alpha1.DenyTierAuto || !placed && !calls {
		return nil
	}
	want, why := s.tier()
	if want == nil {
		s.noTier = why
		return nil
	}
	ref := v1alpha1.ObjectRef{Kind: want.GetKind(), Name: want.GetName()}
	have := &unstructured.Unstructured{}
	have.SetGroupVersionKind(want.GroupVersionKind())
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(want), have)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading %s %s: %w", ref.Kind, ref.Name, err)
	}
	if apierrors.IsNotFound(err) {
		s.lost(ref, "it was deleted; it is created again")
		op := v1alpha1.PlannedAction{Verb: "create", Object: ref, Detail: "deny all traffic of quarantined pods, with the exceptions, ahead of every NetworkPolicy"}
		s.lookAgainAfter(retryChanged)
		return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return client.IgnoreAlreadyExists(c.Create(ctx, want))
		})
	}
	if equality.Semantic.DeepEqual(want.Object["spec"], have.Object["spec"]) && have.GetLabels()[v1alpha1.IncidentUIDLabel] == string(s.incident.UID) {
		s.inForce(ref, have)
		return nil
	}
	s.tampered(ref, "its content was changed; it is put back", have)
	want.SetResourceVersion(have.GetResourceVersion())
	op := v1alpha1.PlannedAction{Verb: "update", Object: ref, Detail: "put back what it should be"}
	s.protect(ctx, v1alpha1.ActionRepairMeasure, ref, op.Detail)
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error { return c.Update(ctx, want) })
}

// tier is the object that denies ahead of NetworkPolicies, or why there can be none.
func (s *scope) tier() (*unstructured.Unstructured, string) {
	if version, served := s.Follower.Serves(kindClusterNetworkPolicy); served {
		// Those of other Incidents deny as well, and so may share the priority.
		var priorities []int32
		s.Index.Read(func(set *isolation.Set, _ *isolation.Peers) {
			priorities = set.AdminPriorities(measure.DenyPolicyPrefix)
		})
		u, err := remedy.ClusterNetworkPolicyDeny(s.incident, s.namespaces(), s.openEverywhere(), priorities)
		return versioned(u, version), message(err)
	}
	if version, served := s.Follower.Serves(kindCiliumClusterwide); served {
		// Cilium's deny cuts the pod's own node off too, and a container whose probes fail is restarted, which loses its memory.
		if name := s.restartsWhenCutOff(); name != "" {
			return nil, fmt.Sprintf("Cilium would keep the kubelet from probing Pod %s, and its containers would be restarted", name)
		}
		u, err := remedy.CiliumDeny(s.incident, s.namespaces(), s.openEverywhere())
		return versioned(u, version), message(err)
	}
	return nil, ""
}

// restartsWhenCutOff names a held pod that does not survive being unreachable for its own node.
func (s *scope) restartsWhenCutOff() string {
	for i := range s.next.Pods {
		if pod := s.live(&s.next.Pods[i]); pod != nil && remedy.RestartsWhenUnreachable(pod) {
			return pod.Namespace + "/" + pod.Name
		}
	}
	return ""
}

func versioned(u *unstructured.Unstructured, version string) *unstructured.Unstructured {
	if u != nil {
		u.SetGroupVersionKind(u.GroupVersionKind().GroupKind().WithVersion(version))
	}
	return u
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// openEverywhere are the exceptions that are open in every namespace. The deny tier passes them on, ahead of other policies of the tier too, so that one that is withheld somewhere must not be among them.
func (s *scope) openEverywhere() []isolation.Exception {
	namespaces := s.namespaces()
	if len(namespaces) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.open[namespaces[0]]), func(e isolation.Exception) bool {
		return slices.ContainsFunc(namespaces, func(ns string) bool {
			return !slices.ContainsFunc(s.open[ns], func(o isolation.Exception) bool { return o.Name == e.Name })
		})
	})
}

// carvesOut says whether the operator closes the leak by an edit of the policy.
func (s *scope) carvesOut(l isolation.Leak) bool {
	return s.policy.Isolation.ConflictingPolicies == v1alpha1.ConflictCarveOut && len(s.offending([]isolation.Leak{l})) > 0
}

// offending are the NetworkPolicies of others that the leaks come from.
func (s *scope) offending(leaks []isolation.Leak) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	if s.policy.Isolation.ConflictingPolicies != v1alpha1.ConflictCarveOut {
		return nil
	}
	for ns, list := range s.policies {
		for _, np := range list {
			_, ours := np.Labels[v1alpha1.IncidentUIDLabel]
			leaks := slices.ContainsFunc(leaks, func(l isolation.Leak) bool {
				return l.Source.Group == networkingv1.GroupName && l.Source.Namespace == ns && l.Source.Name == np.Name && l.Reason != isolation.ReasonInvalidSelector
			})
			if leaks && !ours {
				out = append(out, np)
			}
		}
	}
	return out
}

func carvedRef(np *networkingv1.NetworkPolicy) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "NetworkPolicy", Namespace: np.Namespace, Name: np.Name, UID: string(np.UID)}
}

// carveOut takes the quarantined pods out of somebody else's policy.
func (s *scope) carveOut(ctx context.Context, np *networkingv1.NetworkPolicy) error {
	ref := carvedRef(np)
	patch, missing := remedy.CarveOut(np, s.incident.UID)
	if !missing {
		return nil // it leaks to a pod that does not carry the label yet
	}
	detail := "take the quarantined pods out of its podSelector"
	if s.carved(ref) {
		s.tampered(ref, "quarantined pods were selected again; they are taken out once more", np)
		s.protect(ctx, v1alpha1.ActionRepairMeasure, ref, detail+" once more")
	} else if !s.journal.Intend(v1alpha1.ActionCarveOutPolicy, ref, detail) {
		return nil
	}
	return s.patchPolicy(ctx, np, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, patch)
}

// carved says whether a carve-out of the policy was seen in effect.
func (s *scope) carved(ref v1alpha1.ObjectRef) bool {
	return slices.ContainsFunc(s.next.Journal, func(e v1alpha1.JournalEntry) bool {
		return e.Action == v1alpha1.ActionCarveOutPolicy && e.Object == ref && e.State == v1alpha1.JournalDone
	})
}

func (s *scope) patchPolicy(ctx context.Context, np *networkingv1.NetworkPolicy, op v1alpha1.PlannedAction, patch []byte) error {
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Patch(ctx, np.DeepCopy(), client.RawPatch(types.JSONPatchType, patch))
		if apierrors.IsNotFound(err) || isFailedTest(err) {
			s.lookAgainAfter(retryChanged)
			return nil
		}
		return err
	})
}

// noteCarveOuts records which carve-outs are in effect.
func (s *scope) noteCarveOuts() {
	for _, list := range s.policies {
		for _, np := range list {
			if remedy.CarvedOut(np, s.incident.UID) {
				s.journal.Done(v1alpha1.ActionCarveOutPolicy, carvedRef(np))
				s.journal.Done(v1alpha1.ActionRepairMeasure, carvedRef(np))
			}
		}
	}
}

// restorePolicies takes carve-outs back. A policy that was replaced meanwhile, or whose requirement somebody has taken out already, is left as it is.
func (s *scope) restorePolicies(ctx context.Context) (waiting string, err error) {
	for _, e := range s.next.Journal {
		if e.Action != v1alpha1.ActionCarveOutPolicy {
			continue
		}
		durable := s.journal.Intend(v1alpha1.ActionRestorePolicy, e.Object, "select again what its author selected")
		np := s.policyInForce(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: e.Object.Namespace, Name: e.Object.Name}})
		patch, ours := []byte(nil), false
		if np != nil && string(np.UID) == e.Object.UID {
			patch, ours = remedy.Restore(np, s.incident.UID)
		}
		if !ours && durable {
			s.journal.Done(v1alpha1.ActionRestorePolicy, e.Object)
			s.journal.Done(v1alpha1.ActionRepairMeasure, e.Object)
			continue
		}
		waiting = fmt.Sprintf("waits until NetworkPolicy %s/%s is as its author wrote it", e.Object.Namespace, e.Object.Name)
		if !durable {
			continue
		}
		op := v1alpha1.PlannedAction{Verb: "patch", Object: e.Object, Detail: "select again what its author selected"}
		if err := s.patchPolicy(ctx, np, op, patch); err != nil {
			return "", err
		}
	}
	return waiting, nil
}
