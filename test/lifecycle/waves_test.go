package lifecycle

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// wavePlan rolls database and web tier back, and releases first the one and then the other; the web tier is observed.
func wavePlan(shop *scenario.Shop, observeSeconds int32) *v1alpha1.RecoveryPlan {
	db, web := v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: scenario.DB}, v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web}
	first, second := builder.Release("first", "sign-off"), builder.Release("second", "sign-off", "first")
	first.Release.Workloads, second.Release.Workloads = []v1alpha1.WorkloadRef{db}, []v1alpha1.WorkloadRef{web}
	second.Release.ObserveSeconds = observeSeconds
	second.Release.Watched = *builder.Verify("", "v1", "Service", "all-is-well", "").Verify
	approve := builder.Approve("sign-off", "back")
	plan := builder.Plan(shop.Namespace, "waves", builder.RollBack("back", db, web), approve, first, second)
	plan.Spec.Images = []v1alpha1.KnownGoodImages{
		builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage), builder.KnownGood("StatefulSet", scenario.DB, "app", builder.GoodImage),
	}
	return plan
}

var _ = Describe("Releasing in waves", func() {
	var shop *scenario.Shop
	well := func() *corev1.Service {
		m := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		m.Namespace, m.Name = shop.Namespace, "all-is-well"
		return m
	}
	// observed brings the shop to where its second wave is observed.
	observed := func(ctx SpecContext, seconds int32) *v1alpha1.Incident {
		shop = openShop(ctx)
		Expect(shop.Admin.Create(ctx, well())).To(Succeed())
		Expect(shop.Admin.Create(ctx, wavePlan(shop, seconds))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("waves"), builder.Targets(scenario.Targets()...))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		return await(ctx, shop, "miner", "observing the second wave", stepSays("second", "observed"))
	}
	webPods := func(g Gomega, ctx SpecContext) (held, free int) {
		var pods corev1.PodList
		g.Expect(shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace))).To(Succeed())
		for i := range pods.Items {
			p := &pods.Items[i]
			switch {
			case p.Spec.Containers[0].Image != builder.GoodImage:
			case measure.Holds(p, uidOf(ctx, shop, "miner")):
				held++
			case p.Labels["app"] == scenario.Web:
				free++
			}
		}
		return held, free
	}

	It("succeeds when what was released was observed to stay well", func(ctx SpecContext) {
		inc := observed(ctx, 2)
		Expect(inc.Status.Recovery.Steps[2].State).To(Equal(v1alpha1.StepSucceeded), "the first wave is over")
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(inc.Status.Recovery.Relapses).To(BeEmpty())
	})

	It("quarantines the wave again when a condition fails, and releases it once more when a person has looked", func(ctx SpecContext) {
		observed(ctx, 3600)
		_, free := webPods(Default, ctx)
		Expect(free).To(Equal(2), "the recovered revision has come out free")

		Expect(shop.Admin.Delete(ctx, well())).To(Succeed())
		inc := await(ctx, shop, "miner", "with a relapse", stepIs("second", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[3].Message).To(ContainSubstring("quarantined again: what is watched is not healthy any more: Service"))
		Expect(inc.Status.Recovery.Relapses).To(HaveLen(1))
		Eventually(ctx, func(g Gomega) {
			held, free := webPods(g, ctx)
			g.Expect(held).To(BeNumerically(">=", 2))
			g.Expect(free).To(BeZero(), "what comes after is quarantined from its first packet")
		}).WithTimeout(scenario.Patience).Should(Succeed())
		await(ctx, shop, "miner", "proven to be contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(podsOf(ctx, shop, scenario.DB)).NotTo(BeEmpty())

		By("having it released once more")
		Expect(shop.Admin.Create(ctx, well())).To(Succeed())
		Expect(shop.Intervene(ctx, "miner", "second", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "observing the second wave again", stepSays("second", "observed"))
		Eventually(ctx, func(g Gomega) {
			var d appsv1.Deployment
			g.Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Web}, &d)).To(Succeed())
			g.Expect(d.Status.ReadyReplicas).To(Equal(int32(2)))
			held, free := webPods(g, ctx)
			g.Expect(held).To(BeZero())
			g.Expect(free).To(BeNumerically(">=", 2))
		}).WithTimeout(scenario.Patience).Should(Succeed())

		By("finding that the evidence of the compromised revision is held all the while")
		var pods corev1.PodList
		Expect(shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace))).To(Succeed())
		bad := 0
		for i := range pods.Items {
			if p := &pods.Items[i]; p.Spec.Containers[0].Image == scenario.BadImage {
				bad++
				Expect(measure.Holds(p, uidOf(ctx, shop, "miner"))).To(BeTrue(), p.Name)
			}
		}
		Expect(bad).To(BeNumerically(">=", 2))

		By("having it fail once more")
		Expect(shop.Admin.Delete(ctx, well())).To(Succeed())
		await(ctx, shop, "miner", "with a second relapse", stepIs("second", v1alpha1.StepFailed))
		Eventually(ctx, func(g Gomega) {
			held, free := webPods(g, ctx)
			g.Expect(held).To(BeNumerically(">=", 2))
			g.Expect(free).To(BeZero(), "what was released once more is quarantined once more")
		}).WithTimeout(scenario.Patience).Should(Succeed())
		await(ctx, shop, "miner", "proven to be contained", scenario.Is(v1alpha1.ConditionContained))
	})

	It("quarantines the wave again when another Incident names one of its workloads", func(ctx SpecContext) {
		observed(ctx, 3600)
		declare(ctx, shop, "again", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "with a relapse", stepIs("second", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[3].Message).To(ContainSubstring("/again, declared since, names web"))
		await(ctx, shop, "miner", "proven to be contained", scenario.Is(v1alpha1.ConditionContained))
	})
})

func uidOf(ctx SpecContext, shop *scenario.Shop, name string) types.UID {
	GinkgoHelper()
	inc, err := shop.Incident(ctx, name)
	Expect(err).NotTo(HaveOccurred())
	return inc.UID
}
