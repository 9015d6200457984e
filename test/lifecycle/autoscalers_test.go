package lifecycle

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Scaling to zero", func() {
	It("pauses what might scale a workload up again, and gives it back as it was", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, builder.Deployment(shop.Namespace, "queue", builder.GoodImage, 2))).To(Succeed())
		Expect(shop.WaitPods(ctx, "queue")).To(Succeed())
		fromZero := &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "from-zero"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: scenario.Clean}, MinReplicas: new(int32(0)), MaxReplicas: 3,
				Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "messages"}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("10"))},
				}}},
			},
		}
		Expect(shop.Admin.Create(ctx, fromZero)).To(Succeed())
		keda := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"scaleTargetRef": map[string]any{"name": "queue"}}}}
		keda.SetAPIVersion("keda.sh/v1alpha1")
		keda.SetKind("ScaledObject")
		keda.SetNamespace(shop.Namespace)
		keda.SetName("queue")
		keda.SetAnnotations(map[string]string{"autoscaling.keda.sh/paused": "false"})
		Expect(shop.Admin.Create(ctx, keda)).To(Succeed())
		both := func(name string, to v1alpha1.ScaleTo, dependsOn ...string) v1alpha1.RecoveryStep {
			step := builder.Scale(name, scenario.Clean, to, dependsOn...)
			step.Scale.Workloads = append(step.Scale.Workloads, v1alpha1.ScaledWorkload{Kind: "Deployment", Name: "queue"})
			return step
		}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "quiet",
			both("stop", v1alpha1.ScaleToZero), builder.Approve("look", "stop"), both("start", v1alpha1.ScaleToOriginal, "look")))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("quiet"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "waiting for approval", stepIs("look", v1alpha1.StepRunning))
		Expect(stepIs("stop", v1alpha1.StepSucceeded)(inc)).To(BeTrue())

		scaler, scaled := &autoscalingv2.HorizontalPodAutoscaler{}, keda.DeepCopy()
		read := func() {
			GinkgoHelper()
			Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(fromZero), scaler)).To(Succeed())
			Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(keda), scaled)).To(Succeed())
		}
		read()
		Expect(scaler.Spec.Behavior.ScaleUp.SelectPolicy).To(HaveValue(Equal(autoscalingv2.DisabledPolicySelect)))
		Expect(scaled.GetAnnotations()).To(Equal(map[string]string{"autoscaling.keda.sh/paused": "true"}))
		Expect(podsOf(ctx, shop, "queue")).To(BeEmpty())

		Expect(shop.Approve(ctx, "miner", "look")).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		read()
		Expect(scaler.Spec).To(Equal(fromZero.Spec), "as it was")
		Expect(scaled.GetAnnotations()).To(Equal(keda.GetAnnotations()), "as it was")
		var queue appsv1.Deployment
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: "queue"}, &queue)).To(Succeed())
		Expect(*queue.Spec.Replicas).To(Equal(int32(2)))
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	})
})
