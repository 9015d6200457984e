package incident

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// verify judges every pod by what was observed in this pass.
func (s *scope) verify() {
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		p.Leaks, p.LeakCount, p.Residuals, p.Proof, p.Message = nil, 0, nil, "", ""
		pod := s.live(p)
		switch {
		case s.blind != nil:
			p.Verdict, p.Message = v1alpha1.VerdictUnknown, "could not be judged: "+s.blind.Error()
		case pod == nil:
			p.Verdict, p.Message = v1alpha1.VerdictGone, "the pod with this UID does not exist any more"
		case target.Ended(pod):
			p.Verdict, p.Message = v1alpha1.VerdictGone, fmt.Sprintf("the pod has ended (%s)", pod.Status.Phase)
		case p.Handling == v1alpha1.HandlingReleased:
			p.Verdict = v1alpha1.VerdictReleased
		default:
			s.judge(p, pod)
		}
	}
}

func (s *scope) judge(p *v1alpha1.PodStatus, pod *corev1.Pod) {
	reason, message, no := isolation.NotEnforceable(pod)
	policies := s.policies[pod.Namespace]
	if s.dryRun() && !no {
		pod, policies = s.predicted(p, pod, policies)
	}
	leaks := isolation.Evaluate(pod, policies, s.exceptions)
	p.LeakCount = int32(min(len(leaks), 1<<20)) //nolint:gosec // bounded in the same expression
	for _, l := range leaks[:min(len(leaks), v1alpha1.MaxStatusLeaks)] {
		p.Leaks = append(p.Leaks, statusLeak(l))
	}
	switch {
	case no:
		p.Verdict, p.Message = v1alpha1.VerdictNotEnforceable, fmt.Sprintf("%s: %s", reason, message)
	case len(leaks) > 0:
		p.Verdict, p.Message = v1alpha1.VerdictLeaking, leaks[0].String()
		if p.Handling == v1alpha1.HandlingPending {
			p.Message = "quarantine is being put in place; " + p.Message
		}
	case s.foreign[pod.Namespace] != "":
		p.Verdict, p.Message = v1alpha1.VerdictUnknown, s.foreign[pod.Namespace]
	default:
		p.Verdict, p.Proof = v1alpha1.VerdictIsolated, v1alpha1.ProofStatic
		p.Residuals = isolation.Residuals(pod)
	}
}

// predicted is the pod and the policies as they would be once a dry run were enforced.
func (s *scope) predicted(p *v1alpha1.PodStatus, pod *corev1.Pod, policies []*networkingv1.NetworkPolicy) (*corev1.Pod, []*networkingv1.NetworkPolicy) {
	labels, annotations, err := measure.Quarantined(pod, s.incident.UID, s.detaches(p))
	if err != nil {
		return pod, policies
	}
	would := pod.DeepCopy()
	would.Labels, would.Annotations = labels, annotations
	all := slices.Clone(policies)
	for _, d := range s.desiredPolicies() {
		if d.Namespace == pod.Namespace {
			all = append(all, d)
		}
	}
	return would, all
}

func statusLeak(l isolation.Leak) v1alpha1.Leak {
	out := v1alpha1.Leak{Direction: v1alpha1.TrafficDirection(l.Direction), Peer: l.Peer, Ports: l.Ports, Rule: new(int32(l.Rule))} //nolint:gosec // a rule's index is small
	if l.Policy.Name != "" {
		out.Policy = l.Policy.String()
	}
	return out
}
