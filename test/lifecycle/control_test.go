package lifecycle

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A recovery in the hands of people", func() {
	// missing waits for a Service that does not exist.
	missing := func(name, service string, dependsOn ...string) v1alpha1.RecoveryStep {
		return builder.Verify(name, "v1", "Service", service, "", dependsOn...)
	}
	begin := func(ctx SpecContext, steps ...v1alpha1.RecoveryStep) *scenario.Shop {
		GinkgoHelper()
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "guided", steps...))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("guided"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		return shop
	}
	bringBack := func(ctx SpecContext, shop *scenario.Shop) {
		GinkgoHelper()
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	}
	serve := func(shop *scenario.Shop, name string) {
		GinkgoHelper()
		_, err := server.Kubectl("create", "service", "clusterip", name, "--tcp=80", "-n", shop.Namespace)
		Expect(err).NotTo(HaveOccurred())
	}
	message := func(inc *v1alpha1.Incident) string {
		return apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionRecovered).Message
	}

	It("is paused and goes on, halts at what fails, and lets steps be skipped and retried with a reason", func(ctx SpecContext) {
		late := missing("late", "never")
		late.DeadlineSeconds = 1
		gated := builder.Verify("gated", "v1", "Service", scenario.Web, "", "late")
		gated.Gate = missing("", "gate").Verify
		shop := begin(ctx, late, gated, missing("last", "final", "gated"))

		By("pausing it before it begins")
		Expect(shop.Pause(ctx, "miner", true)).To(Succeed())
		bringBack(ctx, shop)
		inc := await(ctx, shop, "miner", "paused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPaused))
		Expect(message(inc)).To(ContainSubstring("wait for the vendor"))
		Expect(inc.Status.Recovery.Steps).To(HaveEach(HaveField("State", v1alpha1.StepPending)))
		Expect(shop.Pause(ctx, "miner", false)).To(Succeed())

		By("skipping what is overdue")
		await(ctx, shop, "miner", "overdue", stepIs("late", v1alpha1.StepOverdue))
		Expect(shop.Intervene(ctx, "miner", "late", v1alpha1.InterventionSkip)).To(Succeed())

		By("waiting for the gate")
		inc = await(ctx, shop, "miner", "at the gate", func(inc *v1alpha1.Incident) bool {
			return stepIs("gated", v1alpha1.StepRunning)(inc) && strings.Contains(inc.Status.Recovery.Steps[1].Message, "its gate waits: Service "+shop.Namespace+"/gate does not exist")
		})
		Expect(inc.Status.Recovery.Steps[0].LastIntervention).To(Equal("Skip by " + shop.LeadName + ": as agreed on the bridge"))
		Expect(inc.Status.Recovery.Steps[2].State).To(Equal(v1alpha1.StepPending))
		serve(shop, "gate")
		serve(shop, "final")
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(message(inc)).To(ContainSubstring("skipped by people: late"))

		By("reading in the ledger who did what")
		settle(ctx, inc)
		entries := ledgerOf(ctx, inc.UID)
		for action, who := range map[string]string{"RecoveryPaused": shop.ResponderName, "RecoveryResumed": shop.LeadName} {
			Expect(entries).To(ContainElement(And(HaveField("Action", action), HaveField("Actor", custody.Actor{Kind: custody.ActorPerson, Name: who}))))
		}
		Expect(entries).To(ContainElement(And(HaveField("Action", "Intervene"), HaveField("Actor", custody.Actor{Kind: custody.ActorPerson, Name: shop.LeadName}),
			HaveField("Detail", "Skip of step late: as agreed on the bridge"))))
	})

	It("is paused while a step runs, and takes up that step where it was", func(ctx SpecContext) {
		shop := begin(ctx, missing("wait", "extra"), builder.Scale("down", scenario.Clean, v1alpha1.ScaleToZero, "wait"))
		bringBack(ctx, shop)
		await(ctx, shop, "miner", "waiting", stepSays("wait", "extra does not exist"))
		Expect(shop.Pause(ctx, "miner", true)).To(Succeed())
		await(ctx, shop, "miner", "paused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPaused))
		serve(shop, "extra")

		By("having it look at the Incident once more")
		before, err := shop.Incident(ctx, "miner")
		Expect(err).NotTo(HaveOccurred())
		retitled := before.DeepCopy()
		retitled.Spec.Recovery.Reason = "the vendor is on the line"
		Expect(shop.Responder.Patch(ctx, retitled, client.MergeFrom(before))).To(Succeed())
		inc := await(ctx, shop, "miner", "paused for another reason", func(inc *v1alpha1.Incident) bool {
			return strings.Contains(message(inc), "the vendor is on the line")
		})
		Expect(stepIs("wait", v1alpha1.StepRunning)(inc)).To(BeTrue())
		Expect(stepIs("down", v1alpha1.StepPending)(inc)).To(BeTrue())
		Expect(shop.Pause(ctx, "miner", false)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("goes on where a step may fail, and is not recovered before that step is retried", func(ctx SpecContext) {
		optional := missing("optional", "extra")
		optional.DeadlineSeconds, optional.OnFailure = 1, v1alpha1.OnFailureContinue
		shop := begin(ctx, optional, missing("next", scenario.Web, "optional"))
		bringBack(ctx, shop)
		inc := await(ctx, shop, "miner", "past the failed step", func(inc *v1alpha1.Incident) bool {
			return stepIs("optional", v1alpha1.StepFailed)(inc) && stepIs("next", v1alpha1.StepSucceeded)(inc)
		})
		Expect(scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonStepFailed)(inc)).To(BeTrue(), scenario.Conditions(inc))
		Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue())
		serve(shop, "extra")
		Expect(shop.Intervene(ctx, "miner", "optional", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("takes back what a step has done that passes its deadline, where the plan says so, and begins no other", func(ctx SpecContext) {
		down := builder.Scale("down", scenario.Clean, v1alpha1.ScaleToZero)
		down.DeadlineSeconds, down.OnFailure = 5, v1alpha1.OnFailureUndo
		down.Gate = missing("", "extra").Verify
		shop := begin(ctx, down, missing("next", scenario.Web, "down"))
		bringBack(ctx, shop)
		inc := await(ctx, shop, "miner", "taken back", stepIs("down", v1alpha1.StepUndone))
		Expect(stepIs("next", v1alpha1.StepPending)(inc)).To(BeTrue())
		Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue(), scenario.Conditions(inc))
		Expect(openIntents(inc)).To(BeEmpty())
		Expect(shop.WaitRunning(ctx)).To(Succeed())

		By("having it done once more, now that its gate can come true")
		serve(shop, "extra")
		Expect(shop.Intervene(ctx, "miner", "down", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})
})
