package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// The demo does not take the operator's word for it: what follows looks at pods and NetworkPolicies itself. It is simpler than the operator's
// evaluator, because it may call anything a leak that is not plainly closed.

func (d *demo) policies(ctx context.Context) ([]networkingv1.NetworkPolicy, error) {
	var list networkingv1.NetworkPolicyList
	if err := d.admin.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the NetworkPolicies: %w", err)
	}
	return list.Items, nil
}

// selecting are the policies that select a pod with these labels. A selector that cannot be read selects everything.
func selecting(set labels.Set, policies []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
	var out []networkingv1.NetworkPolicy
	for _, p := range policies {
		sel, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil || sel.Matches(set) {
			out = append(out, p)
		}
	}
	return out
}

// denying are the policies of an Incident that select the pod and allow nothing in either direction.
func denying(pod *corev1.Pod, policies []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
	return slices.DeleteFunc(selecting(pod.Labels, policies), func(p networkingv1.NetworkPolicy) bool {
		return p.Labels[v1alpha1.IncidentUIDLabel] == "" || opens(&p) || !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) ||
			!slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	})
}

func opens(p *networkingv1.NetworkPolicy) bool { return len(p.Spec.Ingress)+len(p.Spec.Egress) > 0 }

// closedOff says which pod of the Incident is not closed off by the policies in force.
func (d *demo) closedOff(ctx context.Context, inc *v1alpha1.Incident) error {
	policies, err := d.policies(ctx)
	if err != nil {
		return err
	}
	pods, err := d.pods(ctx)
	if err != nil {
		return err
	}
	if len(inc.Status.Pods) != wanted[web]*2+wanted[db] {
		return fmt.Errorf("the Incident has %d pods", len(inc.Status.Pods))
	}
	var problems []error
	for _, s := range inc.Status.Pods {
		i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return string(p.UID) == s.UID })
		if i < 0 {
			problems = append(problems, fmt.Errorf("pod %s does not exist", s.Name))
			continue
		}
		if len(denying(&pods[i], policies)) == 0 {
			problems = append(problems, fmt.Errorf("no deny policy selects pod %s", s.Name))
		}
		for _, p := range selecting(pods[i].Labels, policies) {
			if opens(&p) {
				problems = append(problems, fmt.Errorf("NetworkPolicy %s opens pod %s", p.Name, s.Name))
			}
		}
	}
	return errors.Join(problems...)
}

// detached says which evidence pod still has labels of its own, or an owner.
func (d *demo) detached(ctx context.Context) error {
	pods, err := d.pods(ctx)
	if err != nil {
		return err
	}
	found := 0
	var problems []error
	for _, p := range pods {
		if !slices.ContainsFunc(d.evidencePods, func(s v1alpha1.PodStatus) bool { return s.UID == string(p.UID) }) {
			continue
		}
		found++
		only := map[string]string{v1alpha1.QuarantineLabelPrefix + d.uid: v1alpha1.QuarantineLabelValue}
		if !labels.Equals(p.Labels, only) || len(p.OwnerReferences) > 0 {
			problems = append(problems, fmt.Errorf("pod %s has labels %v and owners %v", p.Name, p.Labels, p.OwnerReferences))
		}
	}
	if found != wanted[web]+wanted[db] {
		problems = append(problems, fmt.Errorf("%d of the pods that were running exist", found))
	}
	return errors.Join(problems...)
}

// startedQuarantined says which replacement could have started before a deny policy selected it by the labels that its owner gave it.
func (d *demo) startedQuarantined(ctx context.Context, inc *v1alpha1.Incident) error {
	policies, err := d.policies(ctx)
	if err != nil {
		return err
	}
	pods, err := d.pods(ctx)
	if err != nil {
		return err
	}
	found := 0
	var problems []error
	for _, s := range inc.Status.Pods {
		i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return string(p.UID) == s.UID })
		if s.Replacement == "" || i < 0 {
			continue
		}
		found++
		born := pods[i].DeepCopy()
		delete(born.Labels, v1alpha1.QuarantineLabelPrefix+d.uid)
		before := slices.DeleteFunc(denying(born, policies), func(p networkingv1.NetworkPolicy) bool {
			return p.CreationTimestamp.After(born.CreationTimestamp.Time)
		})
		if len(before) == 0 {
			problems = append(problems, fmt.Errorf("every deny policy that selects pod %s by its own labels is younger", born.Name))
		}
	}
	if found != wanted[web] {
		problems = append(problems, fmt.Errorf("there are %d replacements", found))
	}
	return errors.Join(problems...)
}
