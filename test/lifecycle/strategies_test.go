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

func set(change func(*appsv1.StatefulSetSpec)) func(ns string) client.Object {
	return func(ns string) client.Object {
		s := builder.StatefulSet(ns, awkward, scenario.BadImage, 2)
		change(&s.Spec)
		return s
	}
}

var _ = Describe("Rolling back", func() {
	DescribeTable("replaces every pod, whatever the strategy, also those that their controller leaves as they are", func(ctx SpecContext, kind v1alpha1.RecoverableKind, create func(ns string) client.Object, pods int) {
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
		Entry("a Deployment with the strategy Recreate", v1alpha1.RecoverableKind("Deployment"), func(ns string) client.Object {
			d := builder.Deployment(ns, awkward, scenario.BadImage, 2)
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
			return d
		}, 2),
		Entry("a StatefulSet with the strategy OnDelete", v1alpha1.RecoverableKind("StatefulSet"), set(func(s *appsv1.StatefulSetSpec) {
			s.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
		}), 2),
		Entry("a StatefulSet with a partition", v1alpha1.RecoverableKind("StatefulSet"), set(func(s *appsv1.StatefulSetSpec) {
			s.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
				Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(1))},
			}
		}), 2),
		Entry("a StatefulSet with a partition whose ordinals do not begin with 0", v1alpha1.RecoverableKind("StatefulSet"), set(func(s *appsv1.StatefulSetSpec) {
			s.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5}
			s.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
				Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(6))},
			}
		}), 2),
		Entry("a StatefulSet whose pods are managed in parallel", v1alpha1.RecoverableKind("StatefulSet"), set(func(s *appsv1.StatefulSetSpec) {
			s.PodManagementPolicy = appsv1.ParallelPodManagement
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

	It("gets a StatefulSet going that waits, pod by pod, for one that will never be ready", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.Pods = v1alpha1.PodHandlingKeepAttached })
		s := builder.StatefulSet(shop.Namespace, awkward, scenario.BadImage, 2)
		Expect(shop.Admin.Create(ctx, s)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
			g.Expect(s.Status.ReadyReplicas).To(Equal(int32(2)))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		By("breaking its newest revision, on which its controller waits for ever")
		s.Spec.Template.Spec.Containers[0].Image = "registry.example.org/does-not-exist@" + digestOf(scenario.BadImage)
		Expect(shop.Admin.Update(ctx, s)).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return podsOf(ctx, shop, awkward) }).WithTimeout(scenario.Patience).
			Should(ContainElement(And(HaveField("Name", awkward+"-1"), HaveField("Status.ContainerStatuses", ContainElement(HaveField("State.Waiting", Not(BeNil())))))))
		plan := builder.Plan(shop.Namespace, awkward, builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: awkward}))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", awkward, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", awkward)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "recovered, or waiting for gaps to be waived", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionRecovered)(inc) || stepIs("back", v1alpha1.StepFailed)(inc)
		})
		Expect(stepIs("back", v1alpha1.StepSucceeded)(inc)).To(BeTrue())
		Expect(podsOf(ctx, shop, awkward)).To(And(HaveLen(2), HaveEach(HaveField("Spec.Containers", ContainElement(HaveField("Image", builder.GoodImage))))))
	})

	It("leaves the old pods to a person where the plan says so", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.Pods = v1alpha1.PodHandlingKeepAttached })
		s := set(func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType })(shop.Namespace)
		Expect(shop.Admin.Create(ctx, s)).To(Succeed())
		Eventually(ctx, func() []corev1.Pod { return podsOf(ctx, shop, awkward) }).WithTimeout(scenario.Patience).Should(HaveLen(2))
		back := builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: awkward})
		back.RollBackImages.OldPods = v1alpha1.OldPodsWait
		plan := builder.Plan(shop.Namespace, awkward, back)
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", awkward, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", awkward)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "naming the old pods", stepSays("back", "pods of an old revision still run: awkward-0, awkward-1"))
		for _, p := range podsOf(ctx, shop, awkward) {
			Expect(p.DeletionTimestamp).To(BeNil())
			Expect(shop.Admin.Delete(ctx, &p)).To(Succeed())
		}
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
	})

	It("leaves the quarantined pods whose names are needed to a person where the plan says so", func(ctx SpecContext) {
		shop := openShop(ctx)
		back := builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: scenario.DB})
		back.RollBackImages.BlockedReplacements = v1alpha1.BlockedReplacementWait
		plan := builder.Plan(shop.Namespace, awkward, back)
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", scenario.DB, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "naming the pod", stepSays("back", "quarantined pods hold the names of their replacements: db-0; delete them when their evidence suffices"))
		var held corev1.Pod
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: "db-0"}, &held)).To(Succeed())
		Expect(string(held.UID)).To(Equal(inc.Status.Pods[0].UID))
		Expect(held.DeletionTimestamp).To(BeNil())
		Expect(shop.Admin.Delete(ctx, &held)).To(Succeed())
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
	})

	It("brings init containers and sidecars back too", func(ctx SpecContext) {
		shop := openShop(ctx)
		d := builder.Deployment(shop.Namespace, awkward, scenario.BadImage, 1)
		spec := &d.Spec.Template.Spec
		spec.InitContainers = []corev1.Container{
			{Name: "migrate", Image: "example.org/migrate:2"}, {Name: "proxy", Image: "example.org/proxy:2", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
		}
		spec.Containers = append(spec.Containers, corev1.Container{Name: "metrics", Image: "example.org/metrics:2"})
		Expect(shop.Admin.Create(ctx, d)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
			g.Expect(d.Status.ReadyReplicas).To(Equal(int32(1)))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		of := func(name string) string { return "example.org/" + name + "@" + digestOf(builder.GoodImage) }
		plan := builder.Plan(shop.Namespace, awkward, builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: awkward}))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{
			builder.KnownGood("Deployment", awkward, "app", builder.GoodImage, "migrate", of("migrate"), "proxy", of("proxy"), "metrics", of("metrics")),
		}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", awkward)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		spec = &d.Spec.Template.Spec
		Expect(spec.InitContainers).To(HaveExactElements(
			And(HaveField("Name", "migrate"), HaveField("Image", of("migrate"))),
			And(HaveField("Name", "proxy"), HaveField("Image", of("proxy")), HaveField("RestartPolicy", HaveValue(Equal(corev1.ContainerRestartPolicyAlways)))),
		), "in their order, and as they were but for the image")
		Expect(spec.Containers).To(ConsistOf(HaveField("Image", builder.GoodImage), HaveField("Image", of("metrics"))))
	})
})

func templateOf(obj client.Object) *corev1.PodTemplateSpec {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	}
	return nil
}
