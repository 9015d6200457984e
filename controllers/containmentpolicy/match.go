// Package containmentpolicy decides which standing orders govern an Incident. Nothing here reads or writes the cluster.
package containmentpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Match returns the one policy that governs the Incident: the one it names, or the one whose appliesTo matches. namespaceLabels are the labels of
// the Incident's namespace. A *target.Problem is returned when there is none, or more than one.
func Match(inc *v1alpha1.Incident, namespaceLabels map[string]string, policies []v1alpha1.ContainmentPolicy) (*v1alpha1.ContainmentPolicy, error) {
	if name := inc.Spec.PolicyRef.Name; name != "" {
		for i := range policies {
			if policies[i].Name == name {
				return &policies[i], nil
			}
		}
		return nil, problem(v1alpha1.ReasonNoPolicy, "ContainmentPolicy %s, named by spec.policyRef, does not exist; create it or declare the Incident with another one", name)
	}
	var matching []*v1alpha1.ContainmentPolicy
	for i := range policies {
		ok, err := governs(&policies[i], inc, namespaceLabels)
		if err != nil {
			return nil, err
		}
		if ok {
			matching = append(matching, &policies[i])
		}
	}
	switch len(matching) {
	case 0:
		return nil, problem(v1alpha1.ReasonNoPolicy, "no ContainmentPolicy governs an Incident of category %s and severity %s in namespace %s; create one, or name one in spec.policyRef",
			inc.Spec.Category, inc.Spec.Severity, inc.Namespace)
	case 1:
		return matching[0], nil
	}
	names := make([]string, 0, len(matching))
	for _, p := range matching {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return nil, problem(v1alpha1.ReasonAmbiguousPolicy, "%d ContainmentPolicies govern this Incident: %s; narrow their appliesTo, or name one in spec.policyRef",
		len(names), strings.Join(names, ", "))
}

func governs(p *v1alpha1.ContainmentPolicy, inc *v1alpha1.Incident, namespaceLabels map[string]string) (bool, error) {
	at := p.Spec.AppliesTo
	if len(at.Categories) > 0 && !slices.Contains(at.Categories, inc.Spec.Category) {
		return false, nil
	}
	if len(at.Severities) > 0 && !slices.Contains(at.Severities, inc.Spec.Severity) {
		return false, nil
	}
	if at.NamespaceSelector == nil {
		return true, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(at.NamespaceSelector)
	if err != nil {
		// A policy that cannot be read might have been the one: guessing another would be worse than asking.
		return false, problem(v1alpha1.ReasonInvalidPolicy, "ContainmentPolicy %s: spec.appliesTo.namespaceSelector cannot be read: %v", p.Name, err)
	}
	return sel.Matches(labels.Set(namespaceLabels)), nil
}

// MayGovern returns the policies that govern some Incident or other in a namespace with these labels. One whose selector cannot be read may be meant for it.
func MayGovern(namespaceLabels map[string]string, policies []v1alpha1.ContainmentPolicy) []v1alpha1.ContainmentPolicy {
	var out []v1alpha1.ContainmentPolicy
	for _, p := range policies {
		sel := labels.Everything()
		if selector := p.Spec.AppliesTo.NamespaceSelector; selector != nil {
			if read, err := metav1.LabelSelectorAsSelector(selector); err == nil {
				sel = read
			}
		}
		if sel.Matches(labels.Set(namespaceLabels)) {
			out = append(out, p)
		}
	}
	return out
}

func problem(reason, format string, args ...any) error {
	return &target.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Effective returns the standing orders with every default filled in. The API server fills defaults only inside objects that are present, so that an
// absent "isolation" has none.
func Effective(spec v1alpha1.ContainmentPolicySpec) v1alpha1.ContainmentPolicySpec {
	out := *spec.DeepCopy()
	out.Isolation.Pods = cmp.Or(out.Isolation.Pods, v1alpha1.PodHandlingDetach)
	out.Isolation.Replacements = cmp.Or(out.Isolation.Replacements, v1alpha1.ReplacementQuarantine)
	out.Isolation.DenyTier = cmp.Or(out.Isolation.DenyTier, v1alpha1.DenyTierAuto)
	out.Isolation.ConflictingPolicies = cmp.Or(out.Isolation.ConflictingPolicies, v1alpha1.ConflictReport)
	out.Evidence.Logs.Collect = cmp.Or(out.Evidence.Logs.Collect, v1alpha1.Collect)
	out.Evidence.Logs.MaxBytes = cmp.Or(out.Evidence.Logs.MaxBytes, 64<<20)
	out.Evidence.Logs.DeadlineSeconds = cmp.Or(out.Evidence.Logs.DeadlineSeconds, 600)
	out.Evidence.Checkpoints.Collect = cmp.Or(out.Evidence.Checkpoints.Collect, v1alpha1.Skip)
	out.Evidence.Checkpoints.DeadlineSeconds = cmp.Or(out.Evidence.Checkpoints.DeadlineSeconds, 300)
	out.Evidence.VolumeGroups = cmp.Or(out.Evidence.VolumeGroups, v1alpha1.VolumeGroupNever)
	out.Evidence.Gaps = cmp.Or(out.Evidence.Gaps, v1alpha1.GapContinue)
	out.Evidence.Retention.RequiredApprovals = cmp.Or(out.Evidence.Retention.RequiredApprovals, 2)
	out.Evidence.VolumeSnapshots = cmp.Or(out.Evidence.VolumeSnapshots, v1alpha1.SnapshotCollect)
	out.Evidence.SnapshotDeadlineSeconds = cmp.Or(out.Evidence.SnapshotDeadlineSeconds, 600)
	for i := range out.Evidence.Jobs {
		job := &out.Evidence.Jobs[i]
		job.Access = cmp.Or(job.Access, "None")
		job.DeadlineSeconds = cmp.Or(job.DeadlineSeconds, 600)
		job.MaxParallel = cmp.Or(job.MaxParallel, 4)
	}
	out.Limits.MaxPods = cmp.Or(out.Limits.MaxPods, 50)
	out.Limits.MaxNamespaces = cmp.Or(out.Limits.MaxNamespaces, 4)
	out.Limits.MaxNamespacePercent = cmp.Or(out.Limits.MaxNamespacePercent, 100)
	out.Closing.RequiredApprovals = cmp.Or(out.Closing.RequiredApprovals, 1)
	out.Closing.EvidencePods = cmp.Or(out.Closing.EvidencePods, v1alpha1.EvidencePodDelete)
	return out
}
