package lifecycle

import (
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("How a pod is handled", func() {
	It("case 44: it is not detached when another controller would adopt it", func(ctx SpecContext) {
		shop := openShop(ctx)
		// A ReplicaSet that takes whatever carries no app label: a detached pod would be its first.
		adopter := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "collector"}}
		adopter.Spec.Template = builder.Deployment(shop.Namespace, "collector", builder.GoodImage, 1).Spec.Template
		adopter.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpDoesNotExist}}}
		adopter.Spec.Template.Labels = map[string]string{"role": "any"}
		Expect(shop.Admin.Create(ctx, adopter)).To(Succeed())
		inc := declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc = await(ctx, shop, inc.Name, "contained", scenario.Is(v1alpha1.ConditionContained))
		for _, p := range originals(inc) {
			Expect(p.Handling).To(Equal(v1alpha1.HandlingAttached))
			Expect(pod(ctx, shop, p.Name).Labels).To(HaveKeyWithValue("app", scenario.Web))
		}
		Expect(inc.Status.Journal).To(ContainElement(HaveField("Detail", ContainSubstring("ReplicaSet "+shop.Namespace+"/collector"))), "and says why")
	})

	It("case 5: it is not detached when another policy would begin to select it", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "strangers", metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpDoesNotExist}},
		}))).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(originals(inc)).To(HaveEach(HaveField("Handling", v1alpha1.HandlingAttached)))
		Expect(inc.Status.Journal).To(ContainElement(HaveField("Detail", ContainSubstring("strangers"))))
	})

	It("case 43: the name that a StatefulSet waits for is a residual", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(inc.Status.Pods).To(HaveEach(HaveField("Residuals", ContainElement("ReplacementBlocked"))))
	})

	It("is recorded with what could reach it before, and what led to it", func(ctx SpecContext) {
		shop := openShop(ctx, refuseReplacements) // which would leak through the policy below
		Expect(shop.Admin.Create(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "only-blog"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Web}},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
					PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Clean}},
				}}}},
			},
		})).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		for _, p := range originals(inc) {
			Expect(p.Before.Ingress).To(Equal("pods app=blog in this namespace on all ports"))
			Expect(p.Before.Egress).To(Equal("any peer on all ports"))
			Expect(p.Routes).To(ContainElement("Service " + shop.Namespace + "/" + scenario.Web))
		}
	})
})

var _ = Describe("A proof", func() {
	It("is revoked by a leak that a namespace's label makes usable, and says so at once", func(ctx SpecContext) {
		shop := openShop(ctx, withoutTier)
		team := shop.Namespace + "-team"
		Expect(shop.Admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team}})).To(Succeed())
		Expect(shop.Admin.Create(ctx, builder.Pod(team, "peer", "app", "peer"))).To(Succeed())
		Expect(shop.Admin.Create(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "team-in"},
			Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": shop.Namespace}},
			}}}}},
		})).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "leaking", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking))
		Expect(originals(inc)).To(HaveEach(HaveField("Leaks", HaveEach(HaveField("State", v1alpha1.LeakLatent)))), "case 15: nobody matches yet")

		var ns corev1.Namespace
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: team}, &ns)).To(Succeed())
		ns.Labels["team"] = shop.Namespace
		Expect(shop.Admin.Update(ctx, &ns)).To(Succeed())
		await(ctx, shop, "miner", "an active leak", func(inc *v1alpha1.Incident) bool {
			return !slices.ContainsFunc(originals(inc), func(p v1alpha1.PodStatus) bool { return len(p.Leaks) == 0 || p.Leaks[0].State != v1alpha1.LeakActive })
		})
	})

	It("names residuals that a hand-made EndpointSlice causes, as soon as it is there", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		held := originals(inc)[0]
		Expect(held.Residuals).NotTo(ContainElement("ManualEndpointSlice"))
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: shop.Namespace, Name: "by-hand"},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"198.51.100.9"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: shop.Namespace, Name: held.Name, UID: types.UID(held.UID)}}},
		}
		Expect(shop.Admin.Create(ctx, slice)).To(Succeed())
		has := func(inc *v1alpha1.Incident) bool {
			return slices.ContainsFunc(originals(inc), func(p v1alpha1.PodStatus) bool {
				return p.UID == held.UID && slices.Contains(p.Residuals, "ManualEndpointSlice")
			})
		}
		await(ctx, shop, "miner", "told of the EndpointSlice", has)
		Expect(shop.Admin.Delete(ctx, slice)).To(Succeed())
		await(ctx, shop, "miner", "rid of it", func(inc *v1alpha1.Incident) bool { return !has(inc) })
	})
})

var _ = Describe("Exceptions", func() {
	collector := v1alpha1.EvidenceException{
		Name: "collector", Direction: "Egress", CIDR: "198.51.100.7/32", Ports: []v1alpha1.ExceptionPort{{Protocol: "TCP", Port: 443}},
	}

	It("are withheld where policies had kept their flow closed: containing opens nothing", func(ctx SpecContext) {
		shop := openShop(ctx, builder.Exception(collector))
		Expect(shop.Admin.Create(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "no-way-out"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Web}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			},
		})).To(Succeed())
		inc := declare(ctx, shop, "miner")
		inc = await(ctx, shop, inc.Name, "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(inc.Status.Exceptions).To(ConsistOf(And(HaveField("Name", "collector"), HaveField("State", v1alpha1.ExceptionWithheld))))
		for _, p := range ourPolicies(ctx, shop, inc) {
			Expect(p.Spec.Egress).To(BeEmpty(), p.Name)
		}
		Expect(inc.Status.Timeline).To(ContainElement(HaveField("Reason", "ExceptionWithheld")))
	})

	It("of every Incident that holds a pod count", func(ctx SpecContext) {
		shop := openShop(ctx, builder.Exception(collector))
		web := builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web))
		declare(ctx, shop, "first", web)
		await(ctx, shop, "first", "contained", scenario.Is(v1alpha1.ConditionContained))
		declare(ctx, shop, "second", web)
		await(ctx, shop, "second", "contained", scenario.Is(v1alpha1.ConditionContained))
		await(ctx, shop, "first", "still contained", scenario.Is(v1alpha1.ConditionContained))
	})
})

var _ = Describe("Evidence pods", func() {
	It("are kept from eviction, and are as they were after release", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Closing.EvidencePods = v1alpha1.EvidencePodRelease })
		loner := builder.Pod(shop.Namespace, "loner", "app", "loner")
		loner.Annotations = map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
		Expect(shop.Admin.Create(ctx, loner)).To(Succeed())
		inc := declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetPod, "", "loner")))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(pod(ctx, shop, "loner").Annotations).To(And(
			HaveKeyWithValue("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), HaveKeyWithValue("karpenter.sh/do-not-disrupt", "true")))
		// The administrator holds every verb, so that it is the budget that refuses, not admission.
		evict := func() error {
			return shop.Admin.SubResource("eviction").Create(ctx, pod(ctx, shop, "loner"), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "loner", Namespace: shop.Namespace}})
		}
		Eventually(ctx, evict).WithTimeout(scenario.Patience).Should(Satisfy(apierrors.IsTooManyRequests))

		closeIncident(ctx, shop, "miner")
		after := pod(ctx, shop, "loner")
		Expect(after.Labels).To(Equal(map[string]string{"app": "loner"}))
		Expect(after.Annotations).To(Equal(map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}))
		var budgets policyv1.PodDisruptionBudgetList
		Expect(shop.Admin.List(ctx, &budgets, client.InNamespace(shop.Namespace))).To(Succeed())
		Expect(budgets.Items).To(BeEmpty())
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: "cofferdam-system", Name: measure.HeldListName(inc)}, &corev1.ConfigMap{})).To(Satisfy(apierrors.IsNotFound))
	})
})

var _ = Describe("Tampering", Serial, func() {
	It("is repaired and counted, with who is known, when the guard is gone; and a missing guard is told loudly", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "contained and guarded", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && scenario.Is(v1alpha1.ConditionGuarded)(inc)
		})
		DeferCleanup(func(ctx SpecContext) { restoreGuard(ctx, shop.Admin) })
		removeGuard()
		await(ctx, shop, "miner", "unguarded", scenario.HasReason(v1alpha1.ConditionGuarded, v1alpha1.ReasonGuardTampered))

		held := originals(inc)[0]
		intruder := client.WithFieldOwner(shop.Admin, "intruder")
		By("putting labels back on a detached pod")
		Eventually(ctx, func() error {
			return intruder.Patch(ctx, pod(ctx, shop, held.Name), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"web"}}}`)))
		}).WithTimeout(scenario.Patience).Should(Succeed(), "admission forgets a policy with some delay")
		Eventually(ctx, func() map[string]string { return pod(ctx, shop, held.Name).Labels }).WithTimeout(scenario.Patience).ShouldNot(HaveKey("app"))

		By("taking the quarantine label off")
		label := measure.QuarantineLabel(inc.UID)
		Expect(intruder.Patch(ctx, pod(ctx, shop, held.Name), client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, label)))).To(Succeed())
		Eventually(ctx, func() map[string]string { return pod(ctx, shop, held.Name).Labels }).WithTimeout(scenario.Patience).Should(HaveKey(label))
		Expect(pod(ctx, shop, held.Name).Annotations[v1alpha1.OriginalAnnotation]).To(ContainSubstring(`"app":"web"`))

		By("deleting the deny policy")
		var deny networkingv1.NetworkPolicy
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: measure.DenyPolicyName(inc)}, &deny)).To(Succeed())
		Eventually(ctx, func() error { return intruder.Delete(ctx, &deny) }).WithTimeout(scenario.Patience).Should(Succeed())

		By("taking the record of the labels away")
		Expect(intruder.Patch(ctx, pod(ctx, shop, held.Name), client.RawPatch(types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, v1alpha1.OriginalAnnotation)))).To(Succeed())
		Eventually(ctx, func() string { return pod(ctx, shop, held.Name).Annotations[v1alpha1.OriginalAnnotation] }).
			WithTimeout(scenario.Patience).Should(ContainSubstring(`"app":"web"`), "it comes back from the evidence")

		inc = await(ctx, shop, "miner", "contained again, with everything counted", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && inc.Status.TamperingCount >= 4
		})
		Expect(inc.Status.Tampering).To(ContainElements(
			And(HaveField("Object.Name", held.Name), HaveField("By", "intruder"), HaveField("ChangedAt.Time", Not(BeZero()))),
			And(HaveField("Object.Name", deny.Name), HaveField("What", ContainSubstring("deleted"))),
		))
		restoreGuard(ctx, shop.Admin)
		await(ctx, shop, "miner", "guarded again", scenario.Is(v1alpha1.ConditionGuarded))
	})
})

// removeGuard takes away what keeps others from changing pods and policies of a quarantine.
func removeGuard() {
	GinkgoHelper()
	for _, name := range []string{"cofferdam-quarantine-labels", "cofferdam-quarantine-policies"} {
		out, err := server.Kubectl("delete", "validatingadmissionpolicybinding", name)
		Expect(err).NotTo(HaveOccurred(), string(out))
	}
}

var _ = Describe("A policy that selects a pod whatever its labels", func() {
	carveOut := func(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.ConflictingPolicies = v1alpha1.ConflictCarveOut }

	It("is told with the edit that closes the leak", func(ctx SpecContext) {
		shop := openShop(ctx, withoutTier)
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{}))).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "leaking", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking))
		Expect(originals(inc)).To(HaveEach(HaveField("Leaks", HaveEach(HaveField("Remedy", ContainSubstring("everybody"))))))
	})

	It("is carved out where the standing orders allow it, again when that is undone, and restored at the end", func(ctx SpecContext) {
		shop := openShop(ctx, carveOut)
		author := scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{})
		Expect(shop.Admin.Create(ctx, author)).To(Succeed())
		inc := declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		carved := metav1.LabelSelectorRequirement{Key: measure.QuarantineLabel(inc.UID), Operator: metav1.LabelSelectorOpDoesNotExist}
		read := func() []metav1.LabelSelectorRequirement {
			var now networkingv1.NetworkPolicy
			Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(author), &now)).To(Succeed())
			return now.Spec.PodSelector.MatchExpressions
		}
		Expect(read()).To(ContainElement(carved))

		By("case 56: a pipeline that puts its own version back")
		var now networkingv1.NetworkPolicy
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(author), &now)).To(Succeed())
		now.Spec = author.Spec
		Expect(shop.Admin.Update(ctx, &now)).To(Succeed())
		inc = await(ctx, shop, "miner", "contained again", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && inc.Status.TamperingCount > 0
		})
		Expect(inc.Status.Tampering).To(ContainElement(HaveField("Object.Name", "everybody")))
		Expect(read()).To(ContainElement(carved))

		closeIncident(ctx, shop, "miner")
		Expect(read()).To(BeEmpty())
	})
})

var _ = Describe("The deny tier", func() {
	It("case 32: is put ahead of a policy that selects everybody, and counts only once an implementation reports it", func(ctx SpecContext) {
		shop := openShop(ctx)
		everybody := scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{})
		anyPod := []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}
		everybody.Spec.Ingress[0].From, everybody.Spec.Egress[0].To = anyPod, anyPod
		Expect(shop.Admin.Create(ctx, everybody)).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		tier := &unstructured.Unstructured{}
		tier.SetAPIVersion("policy.networking.k8s.io/v1alpha2")
		tier.SetKind("ClusterNetworkPolicy")
		inc := await(ctx, shop, "miner", "denied by a tier that nobody has reported", func(inc *v1alpha1.Incident) bool {
			i := slices.IndexFunc(inc.Status.Measures, func(m v1alpha1.ObjectRef) bool { return m.Kind == tier.GetKind() })
			if i >= 0 {
				tier.SetName(inc.Status.Measures[i].Name)
			}
			return i >= 0
		})
		// Whether the deny is in effect is not known, and so it is not known whether the pods leak.
		Expect(scenario.Is(v1alpha1.ConditionContained)(inc)).To(BeFalse())
		Expect(originals(inc)).To(HaveEach(HaveField("Verdict", BeElementOf(v1alpha1.VerdictUnknown, v1alpha1.VerdictLeaking))))

		By("an implementation that reports")
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(tier), tier)).To(Succeed())
		Expect(unstructured.SetNestedSlice(tier.Object, []any{map[string]any{
			"type": "Programmed", "status": "True", "reason": "Programmed", "observedGeneration": tier.GetGeneration(), "lastTransitionTime": "2026-01-01T00:00:00Z",
		}}, "status", "conditions")).To(Succeed())
		Expect(shop.Admin.Status().Update(ctx, tier)).To(Succeed())
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))

		closeIncident(ctx, shop, "miner")
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(tier), tier)).To(Satisfy(apierrors.IsNotFound))
	})
})
