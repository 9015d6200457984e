package lifecycle

import (
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("An Incident that cannot be accepted", func() {
	DescribeTable("says why, and nothing is half-done",
		func(ctx SpecContext, prepare func(context.Context, *scenario.Shop), change func(*v1alpha1.Incident), reason, message string) {
			shop := openShop(ctx)
			if prepare != nil {
				prepare(ctx, shop)
			}
			declare(ctx, shop, "odd", change)
			inc := await(ctx, shop, "odd", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, reason))
			Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionAccepted).Message).To(ContainSubstring(message))
			Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue())
			Expect(scenario.Is(v1alpha1.ConditionReady)(inc)).To(BeFalse())
			Expect(inc.Finalizers).To(BeEmpty())
			Expect(writes(shop.Namespace, string(inc.UID))).To(BeEmpty())
			Expect(shop.Responder.Delete(ctx, inc)).To(Succeed(), "an Incident that holds nothing can be deleted")
		},
		Entry("target that does not exist", nil, builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", "nobody")),
			v1alpha1.ReasonTargetNotFound, "nobody does not exist"),
		Entry("selector that matches nothing", nil, builder.Targets(builder.Selected(v1alpha1.TargetPod, "", "app", "nobody")),
			v1alpha1.ReasonNothingSelected, "matches no Pod"),
		Entry("targets beyond the limit of pods", limit(v1alpha1.Limits{MaxPods: 1}), builder.Targets(scenario.Targets()...),
			v1alpha1.ReasonLimitExceeded, "have 3 pods, the ContainmentPolicy allows 1"),
		Entry("targets beyond the share of the namespace", limit(v1alpha1.Limits{MaxNamespacePercent: 50}), builder.Targets(scenario.Targets()...),
			v1alpha1.ReasonLimitExceeded, "3 of 4 running pods"),
		Entry("namespace that the policy protects", protect, builder.Targets(scenario.Targets()...), v1alpha1.ReasonProtected, "protected by the ContainmentPolicy"),
		Entry("no policy", removePolicy, builder.Targets(scenario.Targets()...), v1alpha1.ReasonNoPolicy, "no ContainmentPolicy governs"),
		Entry("two policies", secondPolicy, builder.Targets(scenario.Targets()...), v1alpha1.ReasonAmbiguousPolicy, "-second"),
		Entry("policy that does not exist", nil, builder.UsePolicy("nowhere"), v1alpha1.ReasonNoPolicy, "nowhere, named by spec.policyRef, does not exist"),
		Entry("pod that serves DNS", dns, builder.Targets(builder.Target(v1alpha1.TargetPod, "", "resolver")), v1alpha1.ReasonProtected, "DNS"),
	)

	It("is refused for a namespace of the cluster itself, even to an administrator", func(ctx SpecContext) {
		shop := openShop(ctx)
		inc := builder.Incident(shop.Namespace, "odd", builder.Targets(builder.Selected(v1alpha1.TargetPod, "kube-system", "app", "any")))
		sys := builder.Pod("kube-system", "any-"+shop.Namespace, "app", "any")
		Expect(shop.Admin.Create(ctx, sys)).To(Succeed())
		DeferCleanup(func(ctx context.Context) error { return shop.Admin.Delete(ctx, sys) })
		Expect(shop.Admin.Create(ctx, inc)).To(Succeed())
		await(ctx, shop, "odd", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonProtected))
	})

	It("is accepted as soon as what was missing is there", func(ctx SpecContext) {
		shop := openShop(ctx)
		removePolicy(ctx, shop)
		declare(ctx, shop, "early")
		await(ctx, shop, "early", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonNoPolicy))
		Expect(shop.Admin.Create(ctx, scenario.Policy(shop.Namespace))).To(Succeed())
		await(ctx, shop, "early", "contained", scenario.Is(v1alpha1.ConditionContained))
	})
})

var _ = Describe("Authorisation", func() {
	It("is asked again when acting: rights that were revoked after admission count", func(ctx SpecContext) {
		shop := openShop(ctx)
		other := openShop(ctx)
		grant := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: other.Namespace, Name: "guest"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cofferdam-responder"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: shop.ResponderName}},
		}
		foreign := builder.Target(v1alpha1.TargetDeployment, other.Namespace, scenario.Web)
		refusedInc := builder.Incident(shop.Namespace, "reaching", builder.Targets(foreign))
		Expect(shop.Responder.Create(ctx, refusedInc)).To(MatchError(ContainSubstring(other.Namespace)), "without the right admission refuses")

		Expect(shop.Admin.Create(ctx, grant)).To(Succeed())
		removePolicy(ctx, shop) // so that nothing happens before the right is gone
		Eventually(ctx, func() error {
			return shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "reaching", builder.Targets(foreign)))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(shop.Admin.Delete(ctx, grant)).To(Succeed())
		Eventually(ctx, func() error {
			return shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "second", builder.Targets(foreign)))
		}).WithTimeout(scenario.Patience).Should(HaveOccurred())
		Expect(shop.Admin.Create(ctx, scenario.Policy(shop.Namespace))).To(Succeed())

		inc := await(ctx, shop, "reaching", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonNotAuthorized))
		Expect(inc.Finalizers).To(BeEmpty())
		Expect(writes(string(inc.UID))).To(BeEmpty())
	})

	It("lets a declarer with the right reach into another namespace", func(ctx SpecContext) {
		shop := openShop(ctx)
		other := openShop(ctx)
		Expect(shop.Admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: other.Namespace, Name: "guest"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cofferdam-responder"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: shop.ResponderName}},
		})).To(Succeed())
		Eventually(ctx, func() error {
			return shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "reaching",
				builder.Targets(builder.Target(v1alpha1.TargetDeployment, other.Namespace, scenario.Web))))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		inc := await(ctx, shop, "reaching", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(inc.Status.Pods).To(HaveEach(HaveField("Namespace", other.Namespace)))
	})

	It("keeps what is contained, and goes on with its evidence, when the declarer loses the right to it, and says who may close it", func(ctx SpecContext) {
		shop := openShop(ctx)
		lift := forbid(ctx, shop, "volumesnapshots", admissionregistrationv1.Create, "false", func() error {
			return shop.Admin.Create(ctx, &snapshotv1.VolumeSnapshot{
				ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "probe"},
				Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new("data-db-0")}},
			}, client.DryRunAll)
		})
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.Admin.Delete(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: shop.ResponderName}})).To(Succeed())
		await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonNotAuthorized))

		lift()
		inc := await(ctx, shop, "miner", "left with its evidence", func(inc *v1alpha1.Incident) bool {
			taken := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
			return len(taken) == 1 && taken[0].State == v1alpha1.EvidenceCollected && scenario.Is(v1alpha1.ConditionEvidenceCollected)(inc)
		})
		Expect(ourPolicies(ctx, shop, inc)).NotTo(BeEmpty())
		for _, p := range originals(inc) {
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictIsolated))
		}
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionStalled)).To(And(HaveField("Status", metav1.ConditionTrue),
			HaveField("Message", And(ContainSubstring("what is held stays held"), ContainSubstring("namespace "+shop.Namespace+" (ClusterRole cofferdam-responder) sets spec.goal to Close")))))

		By("closing it as somebody else")
		changed := inc.DeepCopy()
		changed.Spec.Goal = v1alpha1.GoalClose
		Expect(shop.Admin.Patch(ctx, changed, client.MergeFrom(inc))).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		await(ctx, shop, "miner", "closed", closedIncident)
	})

	It("keeps what is contained when a target that is added later is not accepted", func(ctx SpecContext) {
		shop := openShop(ctx)
		inc := declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		patch := fmt.Sprintf(`{"spec":{"targets":[{"kind":"Deployment","name":%q},{"kind":"StatefulSet","name":%q},{"kind":"Deployment","name":"nobody"}]}}`, scenario.Web, scenario.DB)
		Expect(shop.Responder.Patch(ctx, inc, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
		inc = await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonTargetNotFound))
		Expect(scenario.Is(v1alpha1.ConditionContained)(inc)).To(BeFalse(), "not every target is contained")
		for _, p := range originals(inc) {
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictIsolated))
		}
	})
})

func limit(limits v1alpha1.Limits) func(context.Context, *scenario.Shop) {
	return func(ctx context.Context, shop *scenario.Shop) {
		editPolicy(ctx, shop, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Limits = limits })
	}
}

func protect(ctx context.Context, shop *scenario.Shop) {
	editPolicy(ctx, shop, func(p *v1alpha1.ContainmentPolicy) { p.Spec.ProtectedNamespaces = []string{shop.Namespace} })
}

func editPolicy(ctx context.Context, shop *scenario.Shop, change func(*v1alpha1.ContainmentPolicy)) {
	GinkgoHelper()
	var p v1alpha1.ContainmentPolicy
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: shop.Namespace}, &p)).To(Succeed())
	change(&p)
	Expect(shop.Admin.Update(ctx, &p)).To(Succeed())
}

func removePolicy(ctx context.Context, shop *scenario.Shop) {
	GinkgoHelper()
	Expect(shop.Admin.Delete(ctx, builder.Policy(shop.Namespace))).To(Succeed())
}

func secondPolicy(ctx context.Context, shop *scenario.Shop) {
	GinkgoHelper()
	second := scenario.Policy(shop.Namespace)
	second.Name += "-second"
	Expect(shop.Admin.Create(ctx, second)).To(Succeed())
}

func dns(ctx context.Context, shop *scenario.Shop) {
	GinkgoHelper()
	Expect(shop.Admin.Create(ctx, builder.Pod(shop.Namespace, "resolver", "k8s-app", "kube-dns"))).To(Succeed())
	Eventually(ctx, func() corev1.PodPhase { return pod(ctx, shop, "resolver").Status.Phase }).WithTimeout(scenario.Patience).Should(Equal(corev1.PodRunning))
}
