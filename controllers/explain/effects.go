package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/remedy"
)

// effects are the policies that select the pod, or may select it, and what each of them leaves open by itself.
func (q *question) effects() []PolicyEffect {
	// An index says of a policy whether it can matter to a pod that is held.
	index := isolation.NewIndex()
	for _, ns := range q.Namespaces {
		if ns.Name == q.pod.Namespace {
			index.PutNamespace(ns.Name, ns.Labels)
		}
	}
	index.Hold("", q.pod, nil)
	var out []PolicyEffect
	for _, p := range q.policies {
		if len(index.PutPolicy(p)) > 0 {
			out = append(out, q.effect(p))
		}
	}
	slices.SortFunc(out, func(a, b PolicyEffect) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (q *question) effect(p *isolation.Policy) PolicyEffect {
	out := PolicyEffect{PolicyRef: policyRef(p.Ref), IncidentUID: q.writtenFor[p.Ref], Ingress: notRestricted, Egress: notRestricted}
	if q.outsidePolicies() {
		return out
	}
	alone := q.base.With(p)
	leaks := isolation.Evaluate(q.pod, alone, nil, nil)
	out.Ingress = q.open(alone, isolation.DirectionIngress, leaks)
	out.Egress = q.open(alone, isolation.DirectionEgress, leaks)
	for _, l := range leaks {
		out.Undecided = cmp.Or(out.Undecided, l.Undecided)
	}
	return out
}

// notRestricted says that a policy has no say in a direction.
const notRestricted = "not restricted"

// open says what a policy leaves open in a direction, leaks being all that it leaves open.
func (q *question) open(alone *isolation.Set, d isolation.Direction, leaks []isolation.Leak) string {
	restricted := slices.ContainsFunc(leaks, func(l isolation.Leak) bool { return l.Direction == d && (l.Source.Name != "" || l.Undecided != "") })
	reach := isolation.Reachable(q.pod, alone, d).String()
	if !restricted && reach == isolation.Reachable(q.pod, q.base, d).String() {
		return notRestricted
	}
	return reach
}

// placeholder is how package remedy spells the key of a quarantine label, since a leak does not know the Incident.
const placeholder = v1alpha1.QuarantineLabelPrefix + "<Incident UID>"

// remedy is the edit that closes a leak.
func (q *question) remedy(l isolation.Leak) string {
	doubt, mayBeDeclared := "", q.mayBeDeclared(l)
	if l.Undecided != "" {
		doubt = ", or resolve the doubt"
	}
	l.Undecided = ""
	advice := remedy.Advice(l)
	switch {
	case mayBeDeclared:
		return fmt.Sprintf("nothing, if the Incident declares it; otherwise remove %s", cause(l))
	case !strings.Contains(advice, placeholder):
	case len(q.holders) > 0:
		advice = strings.ReplaceAll(advice, placeholder, measure.QuarantineLabel(types.UID(q.holders[0])))
	default:
		// A pod that nobody holds has no quarantine label to be told apart by.
		advice = fmt.Sprintf("remove %s, or change its selector so that it does not select the pod", cause(l))
	}
	return advice + doubt
}

// cause names the rule that a leak comes from, or the policy if it is no single one.
func cause(l isolation.Leak) string {
	if l.Rule < 0 {
		return l.Source.String()
	}
	list := l.List
	if list == "" {
		list = strings.ToLower(string(l.Direction))
	}
	return fmt.Sprintf("%s rule %d of %s", strings.TrimPrefix(list, "spec."), l.Rule, l.Source)
}
