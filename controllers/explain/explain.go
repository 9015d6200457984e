package explain

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/route"
)

// Explain answers for the pod of the facts. It never claims more than they show: what was not read and may matter makes the verdict Unknown.
func Explain(f *Facts) *PodExplanation {
	q := ask(f)
	out := &PodExplanation{
		APIVersion: APIVersion, Kind: Kind, Source: f.Source, Pod: identity(f.Pod), LatentWithin: f.PodsWithin, NotLookedAt: slices.Clone(f.Gaps),
		Exceptions: q.exceptionStates(), Residuals: q.residuals(), Notes: q.notes(),
	}
	if reason, message, no := isolation.NotEnforceable(f.Pod); no {
		out.NotEnforceable = &NotEnforceable{Reason: reason, Message: message}
	}
	out.Quarantine = q.quarantine()
	before := q.before()
	leaks := q.leaks()
	out.Ingress = q.direction(isolation.DirectionIngress, before, leaks)
	out.Egress = q.direction(isolation.DirectionEgress, before, leaks)
	out.Policies, out.MorePolicies = first(q.effects())
	out.Routes = routes(route.To(f.Pod, f.Pod.Labels, f.Routes))
	if before != nil {
		out.RoutesBefore = without(routes(route.To(f.Pod, before.Labels, f.Routes)), out.Routes)
	}
	judge(out, q, leaks)
	cleanAll(reflect.ValueOf(out))
	return out
}

func identity(pod *corev1.Pod) PodIdentity {
	out := PodIdentity{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName, Phase: string(pod.Status.Phase), Labels: pod.Labels,
	}
	for _, ip := range pod.Status.PodIPs {
		out.IPs = append(out.IPs, ip.IP)
	}
	return out
}

// direction says what is allowed in a direction, and was; before is the pod as it was, nil if it is not quarantined.
func (q *question) direction(d isolation.Direction, before *corev1.Pod, all []isolation.Leak) Direction {
	if q.outsidePolicies() {
		return Direction{Allowed: "any peer on all ports, as its node may"}
	}
	now := isolation.Reachable(q.pod, q.set, d)
	out := Direction{Allowed: now.String()}
	if before != nil {
		was := isolation.Reachable(before, q.setBefore(), d)
		out.Before, out.Wider = was.String(), now.Exceeds(was)
	}
	for _, l := range all {
		if l.Direction == d {
			out.Leaks = append(out.Leaks, q.leak(l))
		}
	}
	out.Leaks, out.MoreLeaks = first(out.Leaks)
	return out
}

func (q *question) leak(l isolation.Leak) Leak {
	out := Leak{
		Peer: l.Peer, Ports: l.Ports, Rule: l.Rule, List: l.List, Reason: l.Reason, State: v1alpha1.LeakState(l.State), Undecided: l.Undecided, Remedy: q.remedy(l),
	}
	if l.Source.Name != "" {
		ref := policyRef(l.Source)
		out.Policy = &ref
	}
	return out
}

func policyRef(r isolation.Ref) PolicyRef {
	return PolicyRef{Group: r.Group, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, UID: string(r.UID), Generation: r.Generation}
}

func routes(found []route.Route) []Route {
	out := make([]Route, 0, min(len(found), maxItems))
	for _, r := range found {
		if len(out) < maxItems {
			out = append(out, Route{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Via: r.Via, Detail: r.Detail})
		}
	}
	return out
}

// without returns the routes whose objects are not among the others.
func without(all, others []Route) []Route {
	type object struct{ kind, namespace, name string }
	known := map[object]bool{}
	for _, r := range others {
		known[object{r.Kind, r.Namespace, r.Name}] = true
	}
	var out []Route
	for _, r := range all {
		if !known[object{r.Kind, r.Namespace, r.Name}] {
			out = append(out, r)
		}
	}
	return out
}

// judge sets the verdict, its message and the exit code.
func judge(out *PodExplanation, q *question, leaks []isolation.Leak) {
	certain := len(slices.DeleteFunc(slices.Clone(leaks), func(l isolation.Leak) bool { return l.Undecided != "" }))
	unread := slices.IndexFunc(out.NotLookedAt, func(g Gap) bool { return g.Decisive })
	switch {
	case out.NotEnforceable != nil:
		out.Verdict, out.ExitCode = v1alpha1.VerdictNotEnforceable, ExitUnknown
		if q.outsidePolicies() || certain > 0 && unread < 0 {
			out.ExitCode = ExitLeaking
		}
		out.Message = fmt.Sprintf("%s: %s", out.NotEnforceable.Reason, out.NotEnforceable.Message)
	case unread >= 0:
		// A policy that was not read may also deny what the others allow.
		out.Verdict, out.ExitCode = v1alpha1.VerdictUnknown, ExitUnknown
		out.Message = fmt.Sprintf("not known: %s: %s", out.NotLookedAt[unread].What, out.NotLookedAt[unread].Why)
	case certain > 0:
		out.Verdict, out.ExitCode = v1alpha1.VerdictLeaking, ExitLeaking
		out.Message = leakMessage(leaks, certain)
	case len(leaks) > 0:
		out.Verdict, out.ExitCode = v1alpha1.VerdictUnknown, ExitUnknown
		out.Message = fmt.Sprintf("it is not certain whether %s is allowed: %s", flows(leaks[0]), leaks[0].Undecided)
	default:
		out.Verdict, out.ExitCode = v1alpha1.VerdictIsolated, ExitIsolated
		out.Message = q.isolatedMessage()
	}
}

// leakMessage names the first leak, which is a certain one.
func leakMessage(leaks []isolation.Leak, certain int) string {
	text := flows(leaks[0]) + " is allowed"
	if leaks[0].State == isolation.StateLatent {
		text += " (latent)"
	}
	if certain > 1 {
		text += fmt.Sprintf(", and %d more", certain-1)
	}
	if rest := len(leaks) - certain; rest > 0 {
		text += fmt.Sprintf("; of %d more it is not certain", rest)
	}
	return text
}

// flows says what a leak lets through: "ingress from any peer on TCP/80".
func flows(l isolation.Leak) string {
	preposition := "from"
	if l.Direction == isolation.DirectionEgress {
		preposition = "to"
	}
	return fmt.Sprintf("%s %s %s on %s", strings.ToLower(string(l.Direction)), preposition, l.Peer, l.Ports)
}

// compareLeaks puts first what is certain, of that what can be used now, and of that what lets something in.
func compareLeaks(a, b isolation.Leak) int {
	doubt := func(l isolation.Leak) int { return min(len(l.Undecided), 1) }
	return cmp.Or(cmp.Compare(doubt(a), doubt(b)), cmp.Compare(a.State, b.State), -cmp.Compare(a.Direction, b.Direction))
}

func (q *question) isolatedMessage() string {
	text := "the policies allow nothing to or from the pod"
	switch n := len(q.exceptions()); {
	case n == 1:
		text += " but one declared exception"
	case n > 1:
		text += fmt.Sprintf(" but %d declared exceptions", n)
	}
	if q.Source == SourceFiles {
		text += ", as far as the files show"
	}
	return text
}
