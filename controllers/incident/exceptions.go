package incident

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// decideExceptions finds out which exceptions may be opened in which namespace, before anything is changed: those that open nothing to any pod that policies had kept closed. It also
// records what was allowed to each pod before. What was withheld once stays withheld: nobody knows any more what had been allowed to a pod after its labels are gone.
func (s *scope) decideExceptions() {
	for _, ns := range s.namespaces() {
		for _, e := range s.policy.Isolation.Exceptions {
			if s.exception(ns, e.Name) == nil {
				s.next.Exceptions = append(s.next.Exceptions, v1alpha1.ExceptionStatus{Namespace: ns, Name: e.Name, State: v1alpha1.ExceptionOpen})
			}
		}
	}
	s.Index.Read(func(set *isolation.Set, _ *isolation.Peers) {
		before := set.Without(s.ownRefs()...)
		for i := range s.next.Pods {
			p := &s.next.Pods[i]
			if pod := s.live(p); pod != nil && !target.Ended(pod) && p.Before == (v1alpha1.Reach{}) {
				s.recordBefore(p, pod, before)
			}
		}
	})
	for _, ns := range s.namespaces() {
		s.open[ns] = openExceptions(s.policy, s.next.Exceptions, ns)
	}
}

func (s *scope) exception(ns, name string) *v1alpha1.ExceptionStatus {
	for i := range s.next.Exceptions {
		if e := &s.next.Exceptions[i]; e.Namespace == ns && e.Name == name {
			return e
		}
	}
	return nil
}

func (s *scope) recordBefore(p *v1alpha1.PodStatus, pod *corev1.Pod, before *isolation.Set) {
	p.Before = v1alpha1.Reach{
		Ingress: clip(isolation.Reachable(pod, before, isolation.DirectionIngress).String(), maxReach),
		Egress:  clip(isolation.Reachable(pod, before, isolation.DirectionEgress).String(), maxReach),
	}
	if pod.Spec.HostNetwork {
		return // no policy says what it may do, and no exception opens anything to it
	}
	for _, declared := range s.policy.Isolation.Exceptions {
		permitted := isolation.Permitted(pod, before, measure.Exceptions([]v1alpha1.EvidenceException{declared}))
		if e := s.exception(pod.Namespace, declared.Name); len(permitted) == 0 && e.State == v1alpha1.ExceptionOpen {
			e.State, e.Pod = v1alpha1.ExceptionWithheld, pod.Name
		}
	}
}

// maxReach bounds how much is told of what was allowed before, in characters.
const maxReach = 256

// ownRefs are the policies of this Incident, which are no part of what was before it.
func (s *scope) ownRefs() []isolation.Ref {
	var out []isolation.Ref
	for _, list := range s.policies {
		for _, p := range list {
			if p.Labels[v1alpha1.IncidentUIDLabel] == string(s.incident.UID) {
				out = append(out, isolation.ReadNetworkPolicy(p).Ref)
			}
		}
	}
	return out
}

// openExceptions are the exceptions that are open in the namespace.
func openExceptions(policy v1alpha1.ContainmentPolicySpec, states []v1alpha1.ExceptionStatus, ns string) []isolation.Exception {
	var declared []v1alpha1.EvidenceException
	for _, e := range policy.Isolation.Exceptions {
		withheld := slices.ContainsFunc(states, func(st v1alpha1.ExceptionStatus) bool {
			return st.Namespace == ns && st.Name == e.Name && st.State == v1alpha1.ExceptionWithheld
		})
		if !withheld {
			declared = append(declared, e)
		}
	}
	return measure.Exceptions(declared)
}

// exceptionsOf are the exceptions that are declared for a pod: by this Incident, and by the others that hold it.
func (s *scope) exceptionsOf(pod *corev1.Pod) []isolation.Exception {
	out := slices.Clone(s.open[pod.Namespace])
	for _, uid := range measure.HeldByOthers(pod, s.incident.UID) {
		other := s.incidents[uid]
		if other == nil || other.Status.Policy == nil {
			continue
		}
		out = append(out, openExceptions(other.Status.Policy.Spec, other.Status.Exceptions, pod.Namespace)...)
	}
	return out
}
