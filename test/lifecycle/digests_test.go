package lifecycle

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

func digestOf(image string) string {
	_, digest, _ := strings.Cut(image, "@")
	return digest
}

// nameCompromised adds the digest of an image to the Incident, as a responder does.
func nameCompromised(ctx SpecContext, shop *scenario.Shop, image string) {
	GinkgoHelper()
	inc, err := shop.Incident(ctx, "miner")
	Expect(err).NotTo(HaveOccurred())
	changed := inc.DeepCopy()
	changed.Spec.CompromisedDigests = append(changed.Spec.CompromisedDigests, digestOf(image))
	Expect(shop.Responder.Patch(ctx, changed, client.MergeFrom(inc))).To(Succeed())
}

var _ = Describe("Compromised digests", func() {
	It("start nowhere in the namespace until the Incident is closed, and recovery goes around them", func(ctx SpecContext) {
		shop := openShop(ctx)
		start := func() error {
			pod := builder.Pod(shop.Namespace, "again")
			pod.Spec.Containers[0].Image = scenario.BadImage
			return shop.Admin.Create(ctx, pod, client.DryRunAll)
		}
		list := func(inc *v1alpha1.Incident) error {
			return shop.Admin.Get(ctx, client.ObjectKey{Namespace: cluster.OperatorNamespace, Name: measure.RefusalsName(inc)}, &corev1.ConfigMap{})
		}
		Expect(start()).To(Succeed())
		inc := declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(start()).To(Succeed())

		By("adding the digest")
		nameCompromised(ctx, shop, scenario.BadImage)
		Eventually(ctx, start).WithTimeout(scenario.Patience).Should(MatchError(ContainSubstring("is compromised, says Incident " + shop.Namespace + "/miner")))

		By("recovering")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(start()).NotTo(Succeed())

		By("closing")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(start()).NotTo(Succeed())
		Expect(list(inc)).To(Succeed())
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		closed := await(ctx, shop, "miner", "closed", closedIncident)
		Expect(apierrors.IsNotFound(list(inc))).To(BeTrue())
		Eventually(ctx, start).WithTimeout(scenario.Patience).Should(Succeed())
		for _, j := range closed.Status.Journal {
			Expect(j.State).To(Equal(v1alpha1.JournalDone), "%s %s", j.Action, j.Object.Name)
		}
	})

	It("are in no plan that is executed, and are reported where they run", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName), builder.Compromised(digestOf(builder.GoodImage)))
		inc := await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		blog := podsOf(ctx, shop, scenario.Clean)[0]
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionContained).Message).
			To(ContainSubstring("a compromised digest runs in what is not held: Pod " + shop.Namespace + "/" + blog.Name + " (container app: " + digestOf(builder.GoodImage) + ")"))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc = await(ctx, shop, "miner", "stalled", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionRecovered).Message).
			To(ContainSubstring("of container app of Deployment web is compromised"))
		Expect(inc.Status.Recovery).To(BeNil())
		var web appsv1.Deployment
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Web}, &web)).To(Succeed())
		Expect(web.Spec.Template.Spec.Containers[0].Image).To(Equal(scenario.BadImage))
	})

	It("that come to light during the recovery are quarantined, and not released", func(ctx SpecContext) {
		shop := openShop(ctx)
		inc := declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		held := func() (n int) {
			for _, p := range podsOf(ctx, shop, scenario.Web) {
				if measure.Holds(&p, inc.UID) {
					n++
				}
			}
			return n
		}
		Expect(podsOf(ctx, shop, scenario.Web)).To(HaveLen(2))
		Expect(held()).To(BeZero())

		nameCompromised(ctx, shop, builder.GoodImage)
		Eventually(ctx, func(g Gomega) {
			inc, err := shop.Incident(ctx, "miner")
			g.Expect(err).NotTo(HaveOccurred())
			again := 0
			for _, p := range inc.Status.Pods {
				if p.Owner.Name == scenario.Web && p.Verdict == v1alpha1.VerdictIsolated {
					again++
				}
			}
			g.Expect(again).To(Equal(4), "two pods of each revision")
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		inc = await(ctx, shop, "miner", "releasing nothing", func(inc *v1alpha1.Incident) bool {
			i := len(inc.Status.Recovery.Steps) - 1
			return strings.HasPrefix(inc.Status.Recovery.Steps[i].Message, "nothing is released: the known-good image")
		})
		Expect(inc.Status.Revisions).To(HaveEach(HaveField("State", v1alpha1.RevisionHeld)))
	})
})
