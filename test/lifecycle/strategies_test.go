package lifecycle

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// awkward is the workload whose controller does not replace its pods by itself.
const awkward = "awkward"

func set(strategy appsv1.StatefulSetUpdateStrategy) func(ns string) client.Object {
	return func(ns string) client.Object {
		s := builder.StatefulSet(ns, awkward, scenario.BadImage, 2)
		s.Spec.UpdateStrategy = strategy
		return s
	}
}

var _ = Describe("Rolling back", func() {
	DescribeTable("replaces the pods that their controller leaves as they are", func(ctx SpecContext, kind v1alpha1.RecoverableKind, create func(ns string) client.Object, pods int) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.Pods = v1alpha1.PodHandlingKeepAttached })
		if pods == 0 {
			var nodes corev1.NodeList
			Expect(shop.Admin.List(ctx, &nodes)).To(Succeed())
			pods = len(nodes.Items)
		}
		workload := create(shop.Namespace)
		Expect(shop.Admin.Create(ctx, workload)).To(Succeed())
		images := func() (good, bad int) {
			for _, p := range podsOf(ctx, shop, awkward) {
				switch p.Spec.Containers[0].Image {
				case builder.GoodImage:
					good++
				case scenario.BadImage:
					bad++
				}
			}
			return good, bad
		}
		Eventually(ctx, func(g Gomega) { _, bad := images(); g.Expect(bad).To(Equal(pods)) }).WithTimeout(scenario.Patience).Should(Succeed())
		plan := builder.Plan(shop.Namespace, awkward, builder.RollBack("back", v1alpha1.WorkloadRef{Kind: kind, Name: awkward}), builder.Approve("wait"))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood(kind, awkward, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetKind(kind), "", awkward)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
		good, bad := images()
		Expect([]int{good, bad}).To(Equal([]int{pods, 0}))
		after := create(shop.Namespace)
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(workload), after)).To(Succeed())
		if s, ok := after.(*appsv1.StatefulSet); ok {
			Expect(s.Spec.UpdateStrategy).To(Equal(workload.(*appsv1.StatefulSet).Spec.UpdateStrategy), "as it was")
		}

		By("taking it back")
		Expect(shop.Intervene(ctx, "miner", "back", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "undone", stepIs("back", v1alpha1.StepUndone))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(workload), after)).To(Succeed())
		Expect(templateOf(after).Spec.Containers[0].Image).To(Equal(scenario.BadImage))
		Expect(templateOf(after).Annotations).NotTo(HaveKey(v1alpha1.RecoveredByAnnotation))
		await(ctx, shop, "miner", "still contained", scenario.Is(v1alpha1.ConditionContained))
	},
		Entry("a StatefulSet with the strategy OnDelete", v1alpha1.RecoverableKind("StatefulSet"), set(appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}), 2),
		Entry("a StatefulSet with a partition", v1alpha1.RecoverableKind("StatefulSet"), set(appsv1.StatefulSetUpdateStrategy{
			Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(1))},
		}), 2),
		Entry("a DaemonSet with the strategy OnDelete", v1alpha1.RecoverableKind("DaemonSet"), func(ns string) client.Object {
			d := daemonSet(ns).(*appsv1.DaemonSet)
			d.Name = awkward
			d.Spec.Selector.MatchLabels = map[string]string{"app": awkward}
			d.Spec.Template.Labels = map[string]string{"app": awkward}
			d.Spec.Template.Spec.Containers[0].Image = scenario.BadImage
			d.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
			return d
		}, 0),
	)
})

func templateOf(obj client.Object) *corev1.PodTemplateSpec {
	switch o := obj.(type) {
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	}
	return nil
}
