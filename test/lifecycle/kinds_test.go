package lifecycle

import (
	"context"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Every kind of target", func() {
	DescribeTable("is contained by name and by selector",
		func(ctx SpecContext, kind v1alpha1.TargetKind, pods int, victim func(ns string) client.Object) {
			shop := openShop(ctx)
			obj := victim(shop.Namespace)
			Expect(shop.Admin.Create(ctx, obj)).To(Succeed())
			Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(pods))
			for name, target := range map[string]v1alpha1.Target{
				"by-name":     builder.Target(kind, "", "victim"),
				"by-selector": builder.Selected(kind, "", "app", "victim"),
			} {
				if name == "by-selector" && kind == v1alpha1.TargetPod {
					continue // the first Incident has taken the label off
				}
				declare(ctx, shop, name, builder.Targets(target))
				inc := await(ctx, shop, name, "contained", scenario.Is(v1alpha1.ConditionContained))
				isolated := slices.DeleteFunc(slices.Clone(inc.Status.Pods), func(p v1alpha1.PodStatus) bool { return p.Verdict != v1alpha1.VerdictIsolated })
				Expect(len(isolated)).To(BeNumerically(">=", pods))
				Expect(inc.Status.Targets).To(ConsistOf(And(HaveField("Kind", kind), HaveField("UID", string(obj.GetUID())))))
			}
		},
		Entry("Deployment", v1alpha1.TargetDeployment, 2, func(ns string) client.Object { return builder.Deployment(ns, "victim", scenario.BadImage, 2) }),
		Entry("StatefulSet", v1alpha1.TargetStatefulSet, 1, func(ns string) client.Object { return builder.StatefulSet(ns, "victim", scenario.BadImage, 1) }),
		Entry("DaemonSet", v1alpha1.TargetDaemonSet, 2, daemonSet),
		Entry("ReplicaSet", v1alpha1.TargetReplicaSet, 2, replicaSet),
		Entry("Job", v1alpha1.TargetJob, 1, job),
		Entry("Pod", v1alpha1.TargetPod, 1, func(ns string) client.Object { return builder.Pod(ns, "victim", "app", "victim") }),
	)

	It("refuses new Jobs of a CronJob, and comes back by rolling the CronJob back", func(ctx SpecContext) {
		shop := openShop(ctx)
		cron := cronJob(shop.Namespace)
		Expect(shop.Admin.Create(ctx, cron)).To(Succeed())
		Expect(shop.Admin.Create(ctx, jobOf(cron, "victim-1"))).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(1))
		plan := builder.Plan(shop.Namespace, "cron",
			builder.RollBack("images", v1alpha1.WorkloadRef{Kind: "CronJob", Name: "victim"}),
			builder.Approve("sign-off", "images"), builder.Release("let-go", "sign-off"))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("CronJob", "victim", "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())

		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetCronJob, "", "victim")), builder.UsePlan("cron"))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Eventually(ctx, func() error { return shop.Admin.Create(ctx, jobOf(cron, "victim-2"), client.DryRunAll) }).
			WithTimeout(scenario.Patience).Should(MatchError(ContainSubstring(shop.Namespace + "/miner")))

		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(cron), cron)).To(Succeed())
		Expect(cron.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		Eventually(ctx, func() error { return shop.Admin.Create(ctx, jobOf(cron, "victim-3"), client.DryRunAll) }).
			WithTimeout(scenario.Patience).Should(Succeed(), "new Jobs may start again")
	})

	It("rolls a DaemonSet back pod by pod", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, daemonSet(shop.Namespace))).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(2))
		plan := builder.Plan(shop.Namespace, "agents", builder.RollBack("images", v1alpha1.WorkloadRef{Kind: "DaemonSet", Name: "victim"}))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("DaemonSet", "victim", "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDaemonSet, "", "victim")), builder.UsePlan("agents"))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		pods := running(ctx, shop)
		Expect(pods).To(HaveLen(2))
		for _, p := range pods {
			Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
			Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty())
		}
	})
})

// running are the running pods of the workload "victim".
func running(ctx context.Context, shop *scenario.Shop) []corev1.Pod {
	GinkgoHelper()
	return slices.DeleteFunc(podsOf(ctx, shop, "victim"), func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning })
}

func daemonSet(ns string) client.Object {
	d := builder.Deployment(ns, "victim", scenario.BadImage, 1)
	return &appsv1.DaemonSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.DaemonSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
}

func replicaSet(ns string) client.Object {
	d := builder.Deployment(ns, "victim", scenario.BadImage, 2)
	return &appsv1.ReplicaSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template}}
}

func job(ns string) client.Object {
	d := builder.Deployment(ns, "victim", scenario.BadImage, 1)
	d.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return &batchv1.Job{ObjectMeta: d.ObjectMeta, Spec: batchv1.JobSpec{Template: d.Spec.Template}}
}

func cronJob(ns string) *batchv1.CronJob {
	j := job(ns).(*batchv1.Job)
	return &batchv1.CronJob{ObjectMeta: j.ObjectMeta, Spec: batchv1.CronJobSpec{
		Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: j.Spec},
	}}
}

// jobOf is a Job as the CronJob's controller would create it.
func jobOf(cron *batchv1.CronJob, name string) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: cron.Namespace, Name: name, OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(cron, batchv1.SchemeGroupVersion.WithKind("CronJob")),
		}},
		Spec: cron.Spec.JobTemplate.Spec,
	}
}
