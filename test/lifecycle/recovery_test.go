package lifecycle

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Recovery", func() {
	recovering := func(ctx SpecContext, shop *scenario.Shop, plan string) {
		GinkgoHelper()
		declare(ctx, shop, "miner", builder.UsePlan(plan), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	}

	It("does not start with a plan that does not exist, and starts once it does", func(ctx SpecContext) {
		shop := openShop(ctx)
		recovering(ctx, shop, "later")
		// A replacement that is being quarantined makes Contained False for a moment.
		await(ctx, shop, "miner", "stalled and contained", func(inc *v1alpha1.Incident) bool {
			return scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanNotFound)(inc) &&
				scenario.Is(v1alpha1.ConditionStalled)(inc) && scenario.Is(v1alpha1.ConditionContained)(inc)
		})
		plan := builder.Plan(shop.Namespace, "later", builder.Verify("look", "v1", "Service", scenario.Web, ""))
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("does not start with a plan whose steps form a circle", func(ctx SpecContext) {
		shop := openShop(ctx)
		first, second := builder.Approve("first", "second"), builder.Approve("second", "first")
		plan := builder.Plan(shop.Namespace, "circle", first, second)
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		Eventually(ctx, func() string {
			Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(plan), plan)).To(Succeed())
			if c := apimeta.FindStatusCondition(plan.Status.Conditions, v1alpha1.ConditionReady); c != nil {
				return c.Reason
			}
			return ""
		}).WithTimeout(scenario.Patience).Should(Equal(v1alpha1.ReasonCyclicDependencies))
		recovering(ctx, shop, "circle")
		inc := await(ctx, shop, "miner", "stalled", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionRecovered).Message).To(ContainSubstring("first -> second -> first"))
		Expect(inc.Status.Recovery).To(BeNil())
	})

	It("stalls at a deadline, says what it waits for, and goes on when that comes true", func(ctx SpecContext) {
		shop := openShop(ctx)
		step := builder.Verify("look", "v1", "Service", "missing", "")
		step.DeadlineSeconds = 1
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "slow", step))).To(Succeed())
		recovering(ctx, shop, "slow")
		inc := await(ctx, shop, "miner", "overdue", stepIs("look", v1alpha1.StepOverdue))
		Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue())
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("missing does not exist"))
		_, err := server.Kubectl("create", "service", "clusterip", "missing", "--tcp=80", "-n", shop.Namespace)
		Expect(err).NotTo(HaveOccurred())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("executes the plan that it started with, and counts only approvals of that plan", func(ctx SpecContext) {
		shop := openShop(ctx)
		plan := builder.Plan(shop.Namespace, "stable", builder.Approve("sign-off"))
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		recovering(ctx, shop, "stable")
		inc := await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		digest := inc.Status.Recovery.PlanDigest

		By("editing the plan, and approving something else")
		edited := plan.DeepCopy()
		edited.Spec.Steps[0].Approve.Required = 2
		Expect(shop.Admin.Patch(ctx, edited, client.MergeFrom(plan))).To(Succeed())
		wrong := inc.DeepCopy()
		builder.Approval("sign-off", shop.ApproverName, "sha256:0")(wrong)
		Expect(shop.Approver.Patch(ctx, wrong, client.MergeFrom(inc))).To(Succeed())
		inc = await(ctx, shop, "miner", "still waiting", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(inc.Status.Recovery.PlanDigest).To(Equal(digest))
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("waits for 1 of 1 approvals"))

		By("approving it")
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("waits for as many different people as the plan says, whoever approves how often", func(ctx SpecContext) {
		shop := openShop(ctx)
		both := builder.Approve("sign-off")
		both.Approve.Required = 2
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "two", both))).To(Succeed())
		second := shop.Namespace + "-second"
		Expect(shop.Admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: second}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cofferdam-approver"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: second}},
		})).To(Succeed())
		recovering(ctx, shop, "two")
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))

		By("having one person approve twice")
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "waiting for another", stepSays("sign-off", "waits for 1 of 2 approvals"))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(MatchError(ContainSubstring("Duplicate value")))
		inc := await(ctx, shop, "miner", "still waiting", stepSays("sign-off", "waits for 1 of 2 approvals"))

		By("having another one approve")
		other, err := client.New(server.Impersonate(second), client.Options{Scheme: controllers.NewScheme()})
		Expect(err).NotTo(HaveOccurred())
		approved := inc.DeepCopy()
		builder.Approval("sign-off", second, inc.Status.Recovery.PlanDigest)(approved)
		Expect(other.Patch(ctx, approved, client.MergeFrom(inc))).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("asks anew when an approval has become too old before enough people have approved", func(ctx SpecContext) {
		shop := openShop(ctx)
		both := builder.Approve("sign-off")
		both.Approve.Required, both.Approve.ValidForSeconds = 2, 3600
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "old", both))).To(Succeed())
		recovering(ctx, shop, "old")
		asked := await(ctx, shop, "miner", "waiting for approval", stepSays("sign-off", "waits for 2 of 2 approvals")).Status.Recovery.Steps[0].ApprovalDigest
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "waiting for another", stepSays("sign-off", "waits for 1 of 2 approvals"))

		By("letting time pass: only the operator writes status")
		operator, err := client.New(server.OperatorConfig(), client.Options{Scheme: controllers.NewScheme()})
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func(g Gomega) {
			inc, err := shop.Incident(ctx, "miner")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(inc.Status.Recovery.Steps[0].Approvals).To(HaveLen(1))
			inc.Status.Recovery.Steps[0].Approvals[0].SeenAt = metav1.NewTime(time.Now().Add(-time.Hour - time.Second))
			g.Expect(operator.Status().Update(ctx, inc)).To(Succeed())
		}).WithTimeout(scenario.Patience).Should(Succeed())
		inc := await(ctx, shop, "miner", "asking anew", stepSays("sign-off", "waits for 2 of 2 approvals"))
		Expect(inc.Status.Recovery.Steps[0].ApprovalDigest).NotTo(Equal(asked))
		Expect(inc.Status.Recovery.Steps[0].Approvals).To(BeEmpty())
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed(), "the same person may approve again")
		await(ctx, shop, "miner", "waiting for another", stepSays("sign-off", "waits for 1 of 2 approvals"))
	})

	It("executes a plan of as many steps as a plan may have, each after those that it waits for", func(ctx SpecContext) {
		shop := openShop(ctx)
		const steps, width = 200, 5
		plan := builder.Plan(shop.Namespace, "long")
		name := func(i int) string { return fmt.Sprintf("step-%03d", i) }
		for i := range steps {
			step := builder.Verify(name(i), "v1", "Service", scenario.Web, "")
			for before := i - width; before >= 0 && before > i-2*width; before-- {
				step.DependsOn = append(step.DependsOn, name(before))
			}
			plan.Spec.Steps = append(plan.Spec.Steps, step)
		}
		plan.Spec.Steps[steps/2].Verify.Objects[0].Name = "signal"
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		recovering(ctx, shop, "long")
		inc := await(ctx, shop, "miner", "waiting half-way", func(inc *v1alpha1.Incident) bool {
			return stepSays(name(steps/2), "signal does not exist")(inc) && stepIs(name(steps/2+width-1), v1alpha1.StepSucceeded)(inc)
		})
		for i := range steps {
			want := v1alpha1.StepPending
			switch {
			case i == steps/2:
				want = v1alpha1.StepRunning
			case i < steps/2+width:
				want = v1alpha1.StepSucceeded
			}
			Expect(stepIs(name(i), want)(inc)).To(BeTrue(), "%s is to be %s", name(i), want)
		}
		_, err := server.Kubectl("create", "service", "clusterip", "signal", "--tcp=80", "-n", shop.Namespace)
		Expect(err).NotTo(HaveOccurred())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(inc.Status.Recovery.Steps).To(And(HaveLen(steps), HaveEach(HaveField("State", v1alpha1.StepSucceeded))))
	})

	It("gives clean pods their labels back when the release says so", func(ctx SpecContext) {
		shop := openShop(ctx, refuseReplacements)
		release := builder.Release("let-go", "sign-off")
		release.Release.HeldPods = v1alpha1.HeldPodRestore
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "false-alarm", builder.Approve("sign-off"), release))).To(Succeed())
		recovering(ctx, shop, "false-alarm")
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(podsOf(ctx, shop, scenario.Web)).To(BeEmpty())
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		inc := await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		for _, p := range originals(inc) {
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictReleased))
			Expect(pod(ctx, shop, p.Name).Labels).To(HaveKeyWithValue("app", scenario.Web))
		}
	})
})
