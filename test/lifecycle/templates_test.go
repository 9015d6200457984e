package lifecycle

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Bringing a whole template back", func() {
	DescribeTable("takes the revision from before the incident, and is undone exactly", func(ctx SpecContext, kind v1alpha1.RecoverableKind, create func(ns string) client.Object) {
		shop := openShop(ctx)
		workload := create(shop.Namespace)
		workload.SetAnnotations(map[string]string{"example.com/owner": "team-a", "kubernetes.io/change-cause": "the first"})
		withEnv(podTemplate(workload), "MODE", "safe")
		Expect(shop.Admin.Create(ctx, workload)).To(Succeed())
		settled(ctx, shop, workload, builder.GoodImage)
		since := nextSecond(ctx)
		By("somebody changing more than the image")
		changed := fmt.Sprintf(`{"metadata":{"annotations":{"kubernetes.io/change-cause":"the second"}},"spec":{"template":{"metadata":{"labels":{"miner":"yes"}},"spec":{
			"terminationGracePeriodSeconds":1,"hostAliases":[{"ip":"192.0.2.1","hostnames":["pool"]}],
			"containers":[{"name":"app","image":%q,"env":[{"name":"MODE","value":"mine"},{"name":"POOL","value":"pool"}]}]}}}}`, scenario.BadImage)
		Expect(shop.Admin.Patch(ctx, workload, client.RawPatch(types.StrategicMergePatchType, []byte(changed)))).To(Succeed())
		settled(ctx, shop, workload, scenario.BadImage)
		was := podTemplate(workload).DeepCopy()

		ref := v1alpha1.WorkloadRef{Kind: kind, Name: awkward}
		back := builder.RollBack("back", ref)
		back.RollBackImages.Restore = v1alpha1.RestoredTemplate
		plan := builder.Plan(shop.Namespace, awkward, back, builder.Approve("wait"))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood(kind, awkward, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetKind(kind), "", awkward)), builder.SuspectedSince(since))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "brought back", stepIs("back", v1alpha1.StepSucceeded))
		choice := inc.Status.Recovery.Choices[0]
		Expect(choice.Digest).To(HavePrefix("sha256:"))
		Expect(choice.Why).To(And(ContainSubstring("spec.containers[app].env"), ContainSubstring("spec.hostAliases"), ContainSubstring("metadata.labels")))

		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(workload), workload)).To(Succeed())
		template := podTemplate(workload)
		Expect(template.Spec.Containers[0].Env).To(ConsistOf(corev1.EnvVar{Name: "MODE", Value: "safe"}))
		Expect(template.Spec.HostAliases).To(BeEmpty())
		Expect(*template.Spec.TerminationGracePeriodSeconds).To(Equal(int64(30)))
		Expect(template.Labels).To(Equal(map[string]string{"app": awkward}))
		Expect(workload.GetAnnotations()).To(And(HaveKeyWithValue("example.com/owner", "team-a"), HaveKeyWithValue("kubernetes.io/change-cause", "the second")), "the workload's own annotations are its own")
		for _, p := range podsOf(ctx, shop, awkward) {
			Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
			Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty(), "what came back is free")
		}

		By("taking it back")
		Expect(shop.Intervene(ctx, "miner", "back", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "undone", stepIs("back", v1alpha1.StepUndone))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(workload), workload)).To(Succeed())
		Expect(podTemplate(workload)).To(Equal(was))
		await(ctx, shop, "miner", "still contained, without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && len(openIntents(inc)) == 0
		})
	},
		Entry("of a Deployment", v1alpha1.RecoverableKind("Deployment"), func(ns string) client.Object { return builder.Deployment(ns, awkward, builder.GoodImage, 2) }),
		Entry("of a StatefulSet", v1alpha1.RecoverableKind("StatefulSet"), func(ns string) client.Object { return builder.StatefulSet(ns, awkward, builder.GoodImage, 2) }),
	)

	It("says why no revision will do", func(ctx SpecContext) {
		shop := openShop(ctx)
		back := builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web})
		back.RollBackImages.Restore = v1alpha1.RestoredTemplate
		plan := builder.Plan(shop.Namespace, awkward, back)
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(awkward), builder.SuspectedSince(nextSecond(ctx)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "refusing the plan", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(message(inc, v1alpha1.ConditionRecovered)).To(And(ContainSubstring("no revision can come back as a whole"), ContainSubstring("is compromised"), ContainSubstring("Use restore Images")))
	})

	It("keeps a claim that another step has changed", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.OpenFiles(ctx, builder.GoodImage)).To(Succeed())
		_, since, err := shop.BackUpOf(ctx, "before", scenario.Files)
		Expect(err).NotTo(HaveOccurred())
		d := builder.Deployment(shop.Namespace, scenario.Files, "", 1)
		Expect(shop.Admin.Patch(ctx, d, client.RawPatch(types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":%q,"env":[{"name":"POOL","value":"pool"}]}]}}}}`, scenario.BadImage)))).To(Succeed())
		settled(ctx, shop, d, scenario.BadImage)
		back := builder.RollBack("back", filesRef)
		back.DependsOn = []string{"restore"}
		back.RollBackImages.Restore = v1alpha1.RestoredTemplate
		recoverFiles(ctx, shop, since, builder.Scale("stop", scenario.Files, v1alpha1.ScaleToZero), changeClaim("stop"), back,
			builder.Scale("start", scenario.Files, v1alpha1.ScaleToOriginal, "back"), builder.Approve("look"))
		await(ctx, shop, "miner", "started", stepIs("start", v1alpha1.StepSucceeded))
		Expect(claimOf(ctx, shop)).To(HavePrefix("files-restored-"))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(d.Spec.Template.Spec.Containers[0].Env).To(BeEmpty())
		Expect(imageOf(ctx, shop)).To(Equal(builder.GoodImage))
	})
})

func withEnv(t *corev1.PodTemplateSpec, name, value string) {
	t.Spec.Containers[0].Env = append(t.Spec.Containers[0].Env, corev1.EnvVar{Name: name, Value: value})
}

func podTemplate(obj client.Object) *corev1.PodTemplateSpec {
	if d, ok := obj.(*appsv1.Deployment); ok {
		return &d.Spec.Template
	}
	return templateOf(obj)
}

// settled waits until every pod of the workload runs the image, and reads the workload.
func settled(ctx context.Context, shop *scenario.Shop, workload client.Object, image string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		pods := podsOf(ctx, shop, workload.GetName())
		g.Expect(pods).NotTo(BeEmpty())
		for _, p := range pods {
			g.Expect(p.Spec.Containers[0].Image).To(Equal(image))
			g.Expect(p.Status.Phase).To(Equal(corev1.PodRunning))
		}
	}).WithTimeout(scenario.Patience).Should(Succeed())
	Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(workload), workload)).To(Succeed())
}

// nextSecond is the second after this one, once that has come: what exists now is older.
func nextSecond(ctx context.Context) time.Time {
	GinkgoHelper()
	next := time.Now().Add(time.Second).Truncate(time.Second)
	Eventually(ctx, func() bool { return time.Now().After(next.Add(time.Second)) }).WithTimeout(scenario.Patience).Should(BeTrue())
	return next
}
