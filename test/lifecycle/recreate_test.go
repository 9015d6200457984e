package lifecycle

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Creating anew what cannot be changed", func() {
	DescribeTable("brings it back under its name, free, and takes it back without the compromised one", func(ctx SpecContext, kind v1alpha1.RecoverableKind, create func(ns string) client.Object) {
		shop := openShop(ctx)
		victim := create(shop.Namespace)
		victim.SetAnnotations(map[string]string{"example.com/owner": "team-a"})
		Expect(shop.Admin.Create(ctx, victim)).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(1))
		was := running(ctx, shop)[0]
		plan := builder.Plan(shop.Namespace, "anew", builder.RollBack("back", v1alpha1.WorkloadRef{Kind: kind, Name: "victim"}), builder.Approve("wait"))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood(kind, "victim", "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetKind(kind), "", "victim")), builder.UsePlan("anew"))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "brought back", stepIs("back", v1alpha1.StepSucceeded))
		Expect(inc.Status.Recovery.Steps[0].Records[0].Object.UID).To(Equal(string(victim.GetUID())))

		after := create(shop.Namespace)
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(victim), after)).To(Succeed())
		Expect(after.GetUID()).NotTo(Equal(victim.GetUID()))
		Expect(after.GetLabels()).To(HaveKeyWithValue("app", "victim"))
		Expect(after.GetAnnotations()).To(HaveKeyWithValue("example.com/owner", "team-a"))
		pods := running(ctx, shop)
		Expect(pods).To(HaveLen(1))
		Expect(pods[0].UID).NotTo(Equal(was.UID))
		Expect(pods[0].Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		Expect(selectedByUs(ctx, shop, &pods[0])).To(BeEmpty())
		err := shop.Admin.Get(ctx, client.ObjectKeyFromObject(&was), &was)
		if kind == v1alpha1.RecoverableJob {
			Expect(err).NotTo(HaveOccurred(), "the detached pod of the Job is evidence, and stays")
			Expect(was.DeletionTimestamp).To(BeNil())
		}
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })

		By("taking it back")
		Expect(shop.Intervene(ctx, "miner", "back", v1alpha1.InterventionUndo)).To(Succeed())
		inc = await(ctx, shop, "miner", "undone", stepIs("back", v1alpha1.StepUndone))
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("the compromised one is not created again"))
		Expect(apierrors.IsNotFound(shop.Admin.Get(ctx, client.ObjectKeyFromObject(victim), after))).To(BeTrue())
		Expect(shop.Intervene(ctx, "miner", "back", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "brought back again", stepIs("back", v1alpha1.StepSucceeded))
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	},
		Entry("a bare pod", v1alpha1.RecoverablePod, func(ns string) client.Object {
			p := builder.Pod(ns, "victim", "app", "victim")
			p.Spec.Containers[0].Image = scenario.BadImage
			return p
		}),
		Entry("a Job", v1alpha1.RecoverableJob, job),
	)

	It("leaves alone what something else creates, and what is no target", func(ctx SpecContext) {
		shop := openShop(ctx)
		cron := cronJob(shop.Namespace)
		Expect(shop.Admin.Create(ctx, cron)).To(Succeed())
		Expect(shop.Admin.Create(ctx, jobOf(cron, "victim-1"))).To(Succeed())
		bystander := builder.Pod(shop.Namespace, "bystander", "app", "bystander")
		bystander.Spec.Containers[0].Image = scenario.BadImage
		Expect(shop.Admin.Create(ctx, bystander)).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(1))
		ofJob, pod := v1alpha1.WorkloadRef{Kind: "Job", Name: "victim-1"}, v1alpha1.WorkloadRef{Kind: "Pod", Name: "bystander"}
		plan := builder.Plan(shop.Namespace, "anew", builder.RollBack("job", ofJob), builder.RollBack("pod", pod))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Job", "victim-1", "app", builder.GoodImage), builder.KnownGood("Pod", "bystander", "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetJob, "", "victim-1")), builder.UsePlan("anew"))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "naming the CronJob", stepSays("job", "Job victim-1 is of CronJob victim"))
		await(ctx, shop, "miner", "not touching the bystander", stepSays("pod", "Pod bystander is no target of this Incident"))
		var j batchv1.Job
		Expect(shop.Admin.Get(ctx, types.NamespacedName{Namespace: shop.Namespace, Name: "victim-1"}, &j)).To(Succeed())
		Expect(j.DeletionTimestamp).To(BeNil())
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(bystander), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{}})).To(Succeed())
	})
})
