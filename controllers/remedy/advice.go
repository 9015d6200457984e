package remedy

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// labelKey is the key of the quarantine label as advice spells it: a leak does not know the Incident.
const labelKey = v1alpha1.QuarantineLabelPrefix + "<Incident UID>"

// Advice says what a person would edit to close the leak, naming the object and the place in it. At most 256 characters.
func Advice(l isolation.Leak) string {
	edits := edits(l)
	text := fitting(edits)
	if l.Undecided == "" {
		return clip(text)
	}
	// What is wrong with the object, or with another one that would have denied it, may be easier to set right.
	if whole := text + ", or resolve the doubt: " + l.Undecided; len([]rune(whole)) <= maxText {
		return whole
	}
	return clip(edits[0] + ", or resolve the doubt: " + l.Undecided)
}

// fitting joins as many of the alternatives as there is room for.
func fitting(edits []string) string {
	text := edits[0]
	for _, e := range edits[1:] {
		if longer := text + ", or " + e; len([]rune(longer)) <= maxText {
			text = longer
		}
	}
	return text
}

// edits are the edits that close the leak, the surest first.
func edits(l isolation.Leak) []string {
	switch {
	case l.Source.Name == "":
		return []string{fmt.Sprintf("add a NetworkPolicy to the pod's namespace that selects the pod, has %s among its spec.policyTypes and no rules for it", l.Direction)}
	case strings.HasPrefix(l.Source.Name, measure.DenyPolicyPrefix):
		// To take pods out of a deny policy would open everything.
		return []string{fmt.Sprintf("remove %s of %s, which Cofferdam did not write", place(l), l.Source)}
	case l.Rule < 0 && l.Reason == isolation.ReasonInvalidSelector:
		return []string{fmt.Sprintf("correct the selector of %s, which cannot be read", l.Source)}
	case l.Rule < 0:
		return []string{fmt.Sprintf("change or remove %s", l.Source), exclude(l.Source)}
	case l.Reason != isolation.ReasonAllowRule:
		return []string{fmt.Sprintf("correct %s of %s, which cannot be read (%s)", place(l), l.Source, l.Reason), "remove it", exclude(l.Source)}
	}
	return []string{fmt.Sprintf("remove %s of %s", place(l), l.Source), exclude(l.Source)}
}

// place is where in its object the rule is, such as "spec.ingress[0]".
func place(l isolation.Leak) string {
	name := l.List
	if name == "" {
		name = strings.ToLower(string(l.Direction))
	}
	if !strings.HasPrefix(name, "spec") {
		name = "spec." + name
	}
	if l.Rule < 0 {
		return name
	}
	return fmt.Sprintf("%s[%d]", name, l.Rule)
}

// exclude says how quarantined pods are taken out of a policy, in the words of its API.
func exclude(source isolation.Ref) string {
	absent := func(key string) string { return fmt.Sprintf("{key: %s, operator: DoesNotExist}", key) }
	switch source.Group {
	case networkingv1.GroupName:
		return "add to its spec.podSelector.matchExpressions: " + absent(labelKey)
	case "policy.networking.k8s.io":
		return "add to the podSelector.matchExpressions of its spec.subject.pods: " + absent(labelKey)
	case "cilium.io":
		return "add to its spec.endpointSelector.matchExpressions: " + absent("k8s:"+labelKey)
	case "projectcalico.org", "crd.projectcalico.org":
		return "append to its spec.selector: && !has(" + labelKey + ")"
	}
	return "keep its selector off the pod"
}
