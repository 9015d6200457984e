package lifecycle

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Isolation", func() {
	keepAttached := func(p *v1alpha1.ContainmentPolicy) {
		p.Spec.Isolation.Pods = v1alpha1.PodHandlingKeepAttached
	}

	It("is never claimed for a pod that an unrelated policy still selects, and names policy, rule and direction", func(ctx SpecContext) {
		shop := openShop(ctx, withoutTier)
		open := scenario.AllowAll(shop.Namespace, "allow-everything", metav1.LabelSelector{})
		Expect(shop.Admin.Create(ctx, open)).To(Succeed())
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "leaking", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking))
		Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue())
		for _, p := range originals(inc) {
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictLeaking))
			Expect(p.Leaks).To(ConsistOf(
				leak(v1alpha1.TrafficDirection("Egress"), shop.Namespace+"/allow-everything"),
				leak(v1alpha1.TrafficDirection("Ingress"), shop.Namespace+"/allow-everything"),
			))
			Expect(p.Message).To(ContainSubstring("allow-everything"))
		}

		By("removing the policy, as the message says")
		Expect(shop.Admin.Delete(ctx, open)).To(Succeed())
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))

		By("case 55: opening a new leak, which revokes what was proven, with an Event and a metric")
		revoked := counted("cofferdam_containment_revoked_total", "reason", v1alpha1.ReasonLeaking)
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "late", metav1.LabelSelector{}))).To(Succeed())
		await(ctx, shop, "miner", "leaking again", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking))
		Eventually(ctx, func() float64 {
			return counted("cofferdam_containment_revoked_total", "reason", v1alpha1.ReasonLeaking)
		}).
			WithTimeout(scenario.Patience).Should(BeNumerically(">", revoked))
		Eventually(ctx, func(g Gomega) {
			var told eventsv1.EventList
			g.Expect(shop.Admin.List(ctx, &told, client.InNamespace(shop.Namespace))).To(Succeed())
			g.Expect(told.Items).To(ContainElement(And(HaveField("Reason", "Contained_Leaking"), HaveField("Note", ContainSubstring("late")))))
		}).WithTimeout(scenario.Patience).Should(Succeed())
	})

	It("escapes a policy that selects by labels, by taking the labels off", func(ctx SpecContext) {
		shop := openShop(ctx, refuseReplacements)
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "allow-web", metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Web}}))).To(Succeed())
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
	})

	It("leaks through such a policy when pods stay attached", func(ctx SpecContext) {
		shop := openShop(ctx, keepAttached, withoutTier)
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "allow-web", metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Web}}))).To(Succeed())
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "leaking", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking))
		for _, p := range inc.Status.Pods {
			want := v1alpha1.VerdictIsolated
			if p.Owner.Name == scenario.Web {
				want = v1alpha1.VerdictLeaking
			}
			Expect(p.Verdict).To(Equal(want), p.Name)
			Expect(pod(ctx, shop, p.Name).Labels).To(HaveKeyWithValue("app", p.Owner.Name), "the pod keeps its labels")
		}
	})

	It("says that a pod on the host's network cannot be isolated, and leaves it alone", func(ctx SpecContext) {
		shop := openShop(ctx)
		agent := builder.Pod(shop.Namespace, "agent", "app", "agent")
		agent.Spec.HostNetwork = true
		Expect(shop.Admin.Create(ctx, agent)).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetPod, "", "agent")))
		inc := await(ctx, shop, "miner", "not enforceable", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonNotEnforceable))
		Expect(inc.Status.Pods).To(ConsistOf(And(
			HaveField("Verdict", v1alpha1.VerdictNotEnforceable), HaveField("Handling", v1alpha1.HandlingUntouched))))
		Expect(pod(ctx, shop, "agent").Labels).To(Equal(map[string]string{"app": "agent"}))
		Expect(evidenceOf(inc, v1alpha1.EvidenceManifests)).To(HaveLen(1), "its manifests are kept all the same")
	})

	It("keeps the declared exceptions open, and nothing else", func(ctx SpecContext) {
		shop := openShop(ctx, builder.Exception(v1alpha1.EvidenceException{
			Name: "collector", Direction: "Ingress", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "collector"}},
			Ports: []v1alpha1.ExceptionPort{{Protocol: "TCP", Port: 8443}},
		}))
		inc := declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		for _, p := range ourPolicies(ctx, shop, inc) {
			Expect(p.Spec.PolicyTypes).To(ConsistOf(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress))
			Expect(p.Spec.Egress).To(BeEmpty())
			Expect(p.Spec.Ingress).To(HaveLen(1))
			Expect(p.Spec.Ingress[0].Ports).To(HaveLen(1))
		}
	})

	It("is repaired when the deny policy is changed or removed", func(ctx SpecContext) {
		shop := openShop(ctx)
		inc := declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		// Only the operator may do this; somebody who has its identity, or who has removed the guard, stands in for the attacker.
		intruder, err := client.New(server.OperatorConfig(), client.Options{Scheme: shop.Admin.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		key := client.ObjectKey{Namespace: shop.Namespace, Name: measure.DenyPolicyName(inc)}
		var deny networkingv1.NetworkPolicy
		Expect(shop.Admin.Get(ctx, key, &deny)).To(Succeed())
		opened := deny.DeepCopy()
		opened.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
		Expect(intruder.Update(ctx, opened)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			var now networkingv1.NetworkPolicy
			g.Expect(shop.Admin.Get(ctx, key, &now)).To(Succeed())
			g.Expect(now.Spec.Ingress).To(BeEmpty())
			g.Expect(now.ResourceVersion).NotTo(Equal(deny.ResourceVersion))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(intruder.Delete(ctx, &deny)).To(Succeed())
		Eventually(ctx, func() error { return shop.Admin.Get(ctx, key, &networkingv1.NetworkPolicy{}) }).WithTimeout(scenario.Patience).Should(Succeed())
		await(ctx, shop, "miner", "contained again", scenario.Is(v1alpha1.ConditionContained))
	})

	It("does not take a namesake for the pod that was recorded", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, builder.Pod(shop.Namespace, "loner", "app", "loner"))).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetPod, "", "loner")))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.Admin.Delete(ctx, builder.Pod(shop.Namespace, "loner"))).To(Succeed())
		Eventually(ctx, func() error {
			return shop.Admin.Create(ctx, builder.Pod(shop.Namespace, "loner", "app", "loner"))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		inc := await(ctx, shop, "miner", "gone", func(inc *v1alpha1.Incident) bool { return inc.Status.Pods[0].Verdict == v1alpha1.VerdictGone })
		Expect(inc.Status.Pods).To(HaveLen(1))
		Expect(pod(ctx, shop, "loner").Labels).To(Equal(map[string]string{"app": "loner"}))
	})
})

var _ = Describe("Replacements of a compromised revision", func() {
	It("start quarantined from their first packet", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with replacements", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && len(replacements(inc)) == 2
		})
		for _, r := range replacements(inc) {
			live := pod(ctx, shop, r.Name)
			Expect(live.OwnerReferences).NotTo(BeEmpty(), "a replacement stays attached, or its controller would create another without end")
			older := false
			for _, p := range ourPolicies(ctx, shop, inc) {
				if selects(p, withoutOurs(live, inc)) {
					older = older || !p.CreationTimestamp.After(live.CreationTimestamp.Time)
				}
			}
			Expect(older).To(BeTrue(), "a deny policy selected the pod by the labels it was created with, before it was created")
		}
	})

	It("are refused when the policy says so, until the Incident is closed", func(ctx SpecContext) {
		shop := openShop(ctx, refuseReplacements, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Closing.EvidencePods = v1alpha1.EvidencePodRelease })
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Eventually(ctx, func() ([]corev1.Event, error) {
			var events corev1.EventList
			err := shop.Admin.List(ctx, &events, client.InNamespace(shop.Namespace))
			return events.Items, err
		}).WithTimeout(scenario.Patience).Should(ContainElement(And(
			HaveField("Reason", "FailedCreate"), HaveField("Message", ContainSubstring(shop.Namespace+"/miner")))))
		Expect(replacements(inc)).To(BeEmpty())
		Expect(podsOf(ctx, shop, scenario.Web)).To(BeEmpty())

		By("closing a false alarm, which gives the pods their labels back")
		closeIncident(ctx, shop, "miner")
		Eventually(ctx, func() []corev1.Pod { return podsOf(ctx, shop, scenario.Web) }).WithTimeout(scenario.Patience).Should(HaveLen(2))
	})
})

var _ = Describe("Two Incidents on one pod", func() {
	It("both hold it, and releasing one frees nothing that the other holds", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Closing.EvidencePods = v1alpha1.EvidencePodRelease })
		Expect(shop.Admin.Create(ctx, builder.Pod(shop.Namespace, "loner", "app", "loner", "tier", "front"))).To(Succeed())
		target := builder.Targets(builder.Target(v1alpha1.TargetPod, "", "loner"))
		first := declare(ctx, shop, "first", target)
		await(ctx, shop, "first", "contained", scenario.Is(v1alpha1.ConditionContained))
		second := declare(ctx, shop, "second", target)
		await(ctx, shop, "second", "contained", scenario.Is(v1alpha1.ConditionContained))

		closeIncident(ctx, shop, "first")
		Expect(pod(ctx, shop, "loner").Labels).To(Equal(map[string]string{measure.QuarantineLabel(second.UID): v1alpha1.QuarantineLabelValue}))
		Expect(ourPolicies(ctx, shop, first)).To(BeEmpty())
		await(ctx, shop, "second", "still contained", scenario.Is(v1alpha1.ConditionContained))

		closeIncident(ctx, shop, "second")
		live := pod(ctx, shop, "loner")
		Expect(live.Labels).To(Equal(map[string]string{"app": "loner", "tier": "front"}), "the originals come back with the last release")
		Expect(live.Annotations).NotTo(HaveKey(v1alpha1.OriginalAnnotation))
	})

	It("does not delete an evidence pod that the other one still holds", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, builder.Pod(shop.Namespace, "loner", "app", "loner"))).To(Succeed())
		target := builder.Targets(builder.Target(v1alpha1.TargetPod, "", "loner"))
		declare(ctx, shop, "first", target)
		await(ctx, shop, "first", "contained", scenario.Is(v1alpha1.ConditionContained))
		second := declare(ctx, shop, "second", target)
		await(ctx, shop, "second", "contained", scenario.Is(v1alpha1.ConditionContained))
		uid := pod(ctx, shop, "loner").UID

		closeIncident(ctx, shop, "first")
		live := pod(ctx, shop, "loner")
		Expect(live.UID).To(Equal(uid))
		Expect(measure.Holds(live, second.UID)).To(BeTrue())
	})
})

// withoutTier makes what leaks certain: with a deny tier ahead that nobody has reported to be in effect, it is undecided.
func withoutTier(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.DenyTier = v1alpha1.DenyTierNever }

func refuseReplacements(p *v1alpha1.ContainmentPolicy) {
	p.Spec.Isolation.Replacements = v1alpha1.ReplacementRefuse
}

// closeIncident closes an Incident with the approver's approval and waits until nothing is held.
func closeIncident(ctx context.Context, shop *scenario.Shop, name string) {
	GinkgoHelper()
	await(ctx, shop, name, "settled", func(inc *v1alpha1.Incident) bool {
		for _, e := range inc.Status.Evidence {
			if e.State == v1alpha1.EvidencePending {
				return false
			}
		}
		return inc.Status.CloseDigest != ""
	})
	Expect(shop.SetGoal(ctx, name, v1alpha1.GoalClose)).To(Succeed())
	await(ctx, shop, name, "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
	Expect(shop.Approve(ctx, name, v1alpha1.CloseStage)).To(Succeed())
	await(ctx, shop, name, "closed", func(inc *v1alpha1.Incident) bool {
		c := apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionReleased)
		return c != nil && c.Status == metav1.ConditionTrue && len(inc.Finalizers) == 0
	})
}

func leak(direction v1alpha1.TrafficDirection, policy string) any {
	return And(HaveField("Direction", direction), HaveField("Policy", policy), HaveField("Rule", HaveValue(BeEquivalentTo(0))),
		HaveField("Peer", "any peer"), HaveField("Ports", "all ports"))
}

func replacements(inc *v1alpha1.Incident) []v1alpha1.PodStatus {
	var out []v1alpha1.PodStatus
	for _, p := range inc.Status.Pods {
		if p.Replacement != "" {
			out = append(out, p)
		}
	}
	return out
}

func withoutOurs(p *corev1.Pod, inc *v1alpha1.Incident) map[string]string {
	labels := map[string]string{}
	for k, v := range p.Labels {
		if k != measure.QuarantineLabel(inc.UID) {
			labels[k] = v
		}
	}
	return labels
}
