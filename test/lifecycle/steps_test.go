package lifecycle

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Steps of a recovery", func() {
	It("scale workloads to zero, run a job that is retried after it has failed, and give the replicas back", func(ctx SpecContext) {
		shop := openShop(ctx)
		steps := []v1alpha1.RecoveryStep{
			builder.Scale("stop", scenario.Clean, v1alpha1.ScaleToZero), builder.RunJob("migrate", builder.GoodImage, "stop"), builder.Scale("start", scenario.Clean, v1alpha1.ScaleToOriginal, "migrate"),
		}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "steps", steps...))).To(Succeed())
		blog := func() *appsv1.Deployment {
			var d appsv1.Deployment
			Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Clean}, &d)).To(Succeed())
			return &d
		}
		scaled := blog()
		scaled.Spec.Replicas = new(int32(2))
		Expect(shop.Admin.Update(ctx, scaled)).To(Succeed())
		full := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "full"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
		}
		declare(ctx, shop, "miner", builder.UsePlan("steps"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.Admin.Create(ctx, full)).To(Succeed())
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())

		await(ctx, shop, "miner", "waiting for a job that has no room", func(inc *v1alpha1.Incident) bool {
			return stepIs("migrate", v1alpha1.StepRunning)(inc) && strings.HasPrefix(inc.Status.Recovery.Steps[1].Message, "waits for Job")
		})
		Expect(shop.Admin.DeleteAllOf(ctx, &batchv1.Job{}, client.InNamespace(shop.Namespace), client.MatchingLabels{recovery.RecoveryJobLabel: "migrate"},
			client.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
		inc := await(ctx, shop, "miner", "with a failed job", stepIs("migrate", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[1].Message).To(ContainSubstring("was deleted before it had ended: retry the step"))
		Expect(*blog().Spec.Replicas).To(BeZero())
		Expect(podsOf(ctx, shop, scenario.Clean)).To(BeEmpty())

		Expect(shop.Admin.Delete(ctx, full)).To(Succeed())
		Expect(shop.Intervene(ctx, "miner", "migrate", v1alpha1.InterventionRetry)).To(Succeed())
		By("ending the job's pod, which the simulated node would let run")
		Eventually(ctx, func(g Gomega) {
			var pods corev1.PodList
			g.Expect(shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace), client.MatchingLabels{recovery.RecoveryJobLabel: "migrate"})).To(Succeed())
			g.Expect(pods.Items).To(HaveLen(1))
			end := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"sim.cofferdam.dev/complete-after":"0s"}}}`))
			g.Expect(shop.Admin.Patch(ctx, &pods.Items[0], end)).To(Succeed())
		}).WithTimeout(scenario.Patience).Should(Succeed())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(*blog().Spec.Replicas).To(Equal(int32(2)))
		Expect(inc.Status.Recovery.Steps[2].Message).To(ContainSubstring("Deployment blog has 2 pods again"))
	})
})
