package incident

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/remedy"
	"cofferdam.dev/cofferdam/controllers/route"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Residuals that only the reconciler can see, besides those of package isolation.
const (
	// residualManualEndpointSlice says that an EndpointSlice that no controller keeps still names the pod.
	residualManualEndpointSlice = "ManualEndpointSlice"
	// residualReplacementBlocked says that the pod holds the name that its StatefulSet needs for a replacement.
	residualReplacementBlocked = "ReplacementBlocked"
	// residualAdopted says that another controller has taken up the detached pod, and may delete it.
	residualAdopted = "Adopted"
)

// verify judges every pod by what was observed in this pass.
func (s *scope) verify(ctx context.Context) {
	held := map[types.UID]bool{}
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		p.Leaks, p.LeakCount, p.UndecidedCount, p.Residuals, p.Proof, p.Message = nil, 0, 0, nil, "", ""
		pod := s.live(p)
		switch {
		case s.blind != nil:
			p.Verdict, p.Message = v1alpha1.VerdictUnknown, "could not be judged: "+s.blind.Error()
			held[types.UID(p.UID)] = true // what changes meanwhile still has to wake us
		case pod == nil:
			p.Verdict, p.Message = v1alpha1.VerdictGone, "the pod with this UID does not exist any more"
			s.settlePod(podRef(p))
		case target.Ended(pod):
			s.journal.Done(v1alpha1.ActionQuarantinePod, podRef(p)) // nothing runs any more that could be cut off
			s.journal.Done(v1alpha1.ActionRepairMeasure, podRef(p))
			p.Verdict, p.Message = v1alpha1.VerdictGone, fmt.Sprintf("the pod has ended (%s)", pod.Status.Phase)
		case p.Handling == v1alpha1.HandlingReleased:
			p.Verdict = v1alpha1.VerdictReleased
		default:
			held[pod.UID] = true
			s.judge(ctx, p, pod)
		}
	}
	s.Index.Release(s.holder(), held)
}

func (s *scope) judge(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) {
	reason, message, no := isolation.NotEnforceable(pod)
	s.Index.Hold(s.holder(), pod, s.exceptionsOf(pod))
	leaks, _ := s.Index.Leaks(pod.UID)
	if s.dryRun() && !no {
		leaks = s.predicted(ctx, p, pod)
	}
	s.leaks[p.UID] = leaks
	undecided := 0
	for _, l := range leaks {
		if l.Undecided != "" {
			undecided++
		}
	}
	p.LeakCount, p.UndecidedCount = bounded(len(leaks)), bounded(undecided)
	for _, l := range leaks[:min(len(leaks), v1alpha1.MaxStatusLeaks)] {
		p.Leaks = append(p.Leaks, s.statusLeak(l))
	}
	unread := s.foreign[pod.Namespace]
	switch {
	case no:
		p.Verdict, p.Message = v1alpha1.VerdictNotEnforceable, fmt.Sprintf("%s: %s", reason, message)
	case len(leaks) > undecided:
		p.Verdict, p.Message = v1alpha1.VerdictLeaking, leaks[0].String()
		if p.Handling == v1alpha1.HandlingPending {
			p.Message = "quarantine is being put in place; " + p.Message
		}
	case unread != "":
		p.Verdict, p.Message = v1alpha1.VerdictUnknown, unread
	case undecided > 0:
		p.Verdict, p.Message = v1alpha1.VerdictUnknown, leaks[0].String()
	default:
		p.Verdict, p.Proof = v1alpha1.VerdictIsolated, v1alpha1.ProofStatic
	}
	if !no {
		p.Residuals = s.residuals(p, pod)
	}
}

func bounded(n int) int32 { return int32(min(n, 1<<20)) } //nolint:gosec // bounded in the same expression

// predicted are the leaks that would be left once a dry run were enforced.
func (s *scope) predicted(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) []isolation.Leak {
	detach, err := s.detaches(ctx, p, pod)
	if err != nil {
		s.blind = err
	}
	labels, annotations, err := measure.Quarantined(pod, s.incident.UID, detach)
	if err != nil {
		leaks, _ := s.Index.Leaks(pod.UID)
		return leaks
	}
	would := pod.DeepCopy()
	would.Labels, would.Annotations = labels, annotations
	deny := s.denyIn(pod.Namespace)
	var leaks []isolation.Leak
	s.Index.Read(func(set *isolation.Set, peers *isolation.Peers) {
		leaks = isolation.Evaluate(would, set.With(deny...), s.exceptionsOf(pod), peers)
	})
	return leaks
}

// residuals are what a verdict about policies does not cover.
func (s *scope) residuals(p *v1alpha1.PodStatus, pod *corev1.Pod) []string {
	out := isolation.Residuals(pod)
	if len(route.HandMade(pod, s.Follower.HandMadeSlices())) > 0 {
		out = append(out, residualManualEndpointSlice)
	}
	original, err := measure.OriginalOf(pod)
	if err != nil || original == nil || p.Handling != v1alpha1.HandlingDetached {
		return out
	}
	if original.Owner != nil && original.Owner.Kind == "StatefulSet" {
		out = append(out, residualReplacementBlocked)
	}
	// Until it has released the pod its former controller is still named.
	if owner := metav1.GetControllerOf(pod); owner != nil && (original.Owner == nil || owner.UID != original.Owner.UID) {
		out = append(out, residualAdopted)
	}
	return out
}

func (s *scope) statusLeak(l isolation.Leak) v1alpha1.Leak {
	out := v1alpha1.Leak{
		Direction: v1alpha1.TrafficDirection(l.Direction), Kind: l.Source.Kind, Policy: l.Source.Name, Generation: l.Source.Generation,
		Rule: new(int32(l.Rule)), //nolint:gosec // a rule's index is small
		Peer: l.Peer, Ports: l.Ports, State: v1alpha1.LeakState(l.State), Undecided: clip(l.Undecided, 256), Remedy: clip(s.remedyFor(l), 256),
	}
	if l.Source.Namespace != "" {
		out.Policy = l.Source.Namespace + "/" + l.Source.Name
	}
	return out
}

// remedyFor says what is done about a leak, or what a person would do.
func (s *scope) remedyFor(l isolation.Leak) string {
	if s.carvesOut(l) {
		return fmt.Sprintf("the operator takes the quarantined pods out of its podSelector: {key: %s, operator: DoesNotExist}", measure.QuarantineLabel(s.incident.UID))
	}
	if i := slices.IndexFunc(s.next.Measures, isTier); i >= 0 {
		m := s.next.Measures[i]
		return fmt.Sprintf("%s %s denies it once an implementation reports that it is in effect; until then: %s", m.Kind, m.Name, remedy.Advice(l))
	}
	return remedy.Advice(l)
}
