package lifecycle

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// Images of the revisions that a workload has had, apart from the good and the bad one.
var (
	trojan  = "registry.example.com/app@sha256:" + strings.Repeat("a", 64)
	movable = "registry.example.com/app:latest"
)

// versioned is a workload of any kind with revisions.
func versioned(kind v1alpha1.RecoverableKind, ns, image string) (object client.Object, template *corev1.PodTemplateSpec) {
	switch kind {
	case "StatefulSet":
		s := builder.StatefulSet(ns, awkward, image, 1)
		return s, &s.Spec.Template
	case "DaemonSet":
		d := builder.Deployment(ns, awkward, image, 1)
		s := &appsv1.DaemonSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.DaemonSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
		return s, &s.Spec.Template
	default:
		d := builder.Deployment(ns, awkward, image, 1)
		return d, &d.Spec.Template
	}
}

// rollOut gives the workload an image and waits until its pods run it.
func rollOut(ctx SpecContext, shop *scenario.Shop, object client.Object, template *corev1.PodTemplateSpec, image string) {
	GinkgoHelper()
	if object.GetUID() == "" {
		Expect(shop.Admin.Create(ctx, object)).To(Succeed())
	} else {
		before := object.DeepCopyObject().(client.Object)
		template.Spec.Containers[0].Image = image
		Expect(shop.Admin.Patch(ctx, object, client.MergeFrom(before))).To(Succeed())
	}
	Eventually(ctx, func(g Gomega) {
		pods := podsOf(ctx, shop, awkward)
		g.Expect(pods).NotTo(BeEmpty())
		for _, p := range pods {
			g.Expect(p.Spec.Containers[0].Image).To(Equal(image))
			g.Expect(p.Status.ContainerStatuses).To(HaveEach(HaveField("Ready", true)))
		}
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

// afterThis is the beginning of the next second, which is how exactly the server remembers when something was created.
func afterThis(ctx SpecContext) time.Time {
	next := time.Now().Truncate(time.Second).Add(time.Second)
	Eventually(ctx, time.Now).WithTimeout(scenario.Patience).Should(BeTemporally(">=", next))
	return next
}

var _ = Describe("Images that are chosen", func() {
	plan := func(ctx SpecContext, shop *scenario.Shop, kind v1alpha1.RecoverableKind) *v1alpha1.RecoveryPlan {
		p := builder.Plan(shop.Namespace, awkward, builder.RollBack("back", v1alpha1.WorkloadRef{Kind: kind, Name: awkward}), builder.Approve("sign-off", "back"), builder.Release("let-go", "sign-off"))
		p.Spec.Images = []v1alpha1.KnownGoodImages{builder.ChosenImages(kind, awkward)}
		Expect(shop.Admin.Create(ctx, p)).To(Succeed())
		return p
	}

	DescribeTable("are those of the newest revision from before the incident that is neither compromised nor given by tag",
		func(ctx SpecContext, kind v1alpha1.RecoverableKind, source string) {
			shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Isolation.Pods = v1alpha1.PodHandlingKeepAttached })
			object, template := versioned(kind, shop.Namespace, builder.GoodImage)
			rollOut(ctx, shop, object, template, builder.GoodImage)
			rollOut(ctx, shop, object, template, trojan)
			rollOut(ctx, shop, object, template, movable)
			since := afterThis(ctx)
			rollOut(ctx, shop, object, template, scenario.BadImage)

			declare(ctx, shop, "miner", builder.UsePlan(plan(ctx, shop, kind).Name), builder.SuspectedSince(since), builder.Compromised(digestOf(trojan)),
				builder.Targets(builder.Target(v1alpha1.TargetKind(kind), "", awkward)))
			await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
			Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
			inc := await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
			Expect(inc.Status.Recovery.Choices).To(HaveLen(1))
			choice := inc.Status.Recovery.Choices[0]
			Expect(choice.Source.Kind).To(Equal(source))
			Expect(choice.Images).To(Equal([]v1alpha1.ChosenImage{{Name: "app", Image: builder.GoodImage}}))
			Expect(choice.Why).To(And(ContainSubstring("was created at"), ContainSubstring("gives the image of container app by tag"), ContainSubstring("has a compromised digest in container app")))
			Expect(inc.Status.Recovery.Plan.Images[0].Containers).To(Equal([]v1alpha1.ContainerImage{{Name: "app", Image: builder.GoodImage}}))
			Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
			await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
			for _, p := range podsOf(ctx, shop, awkward) {
				Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
				Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty())
			}
		},
		Entry("of a Deployment", v1alpha1.RecoverableKind("Deployment"), "ReplicaSet"),
		Entry("of a StatefulSet", v1alpha1.RecoverableKind("StatefulSet"), "ControllerRevision"),
		Entry("of a DaemonSet", v1alpha1.RecoverableKind("DaemonSet"), "ControllerRevision"),
	)

	It("keep a plan from beginning, and say why, while no revision does", func(ctx SpecContext) {
		shop := openShop(ctx)
		object, template := versioned("Deployment", shop.Namespace, movable)
		rollOut(ctx, shop, object, template, movable)
		p := plan(ctx, shop, "Deployment")
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(p), p)).To(Succeed())
			c := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
			g.Expect(c).NotTo(BeNil())
			g.Expect(c.Status).To(Equal(metav1.ConditionFalse))
			g.Expect(c.Reason).To(Equal(v1alpha1.ReasonNoRevision))
			g.Expect(c.Message).To(ContainSubstring("by tag: " + movable))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		since := afterThis(ctx)
		rollOut(ctx, shop, object, template, scenario.BadImage)

		declare(ctx, shop, "miner", builder.UsePlan(p.Name), builder.SuspectedSince(since), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", awkward)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "stalled", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(inc.Status.Recovery).To(BeNil())
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionRecovered).Message).To(And(
			ContainSubstring("step back: no revision of Deployment awkward can be chosen"), ContainSubstring("only what was created before"), ContainSubstring("by tag: "+movable)))
	})
})
