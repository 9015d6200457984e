package lifecycle

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A plan that nothing is wrong with yet", func() {
	var shop *scenario.Shop
	ready := func(ctx SpecContext, plan *v1alpha1.RecoveryPlan) func(Gomega) {
		return func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(plan), plan)).To(Succeed())
			condition := apimeta.FindStatusCondition(plan.Status.Conditions, v1alpha1.ConditionReady)
			g.Expect(condition).NotTo(BeNil())
			g.Expect(plan.Status.ObservedGeneration).To(Equal(plan.Generation))
			g.Expect(condition.ObservedGeneration).To(Equal(plan.Generation))
		}
	}
	// settles waits until the controller has judged the plan, and returns what it says.
	settles := func(ctx SpecContext, plan *v1alpha1.RecoveryPlan, reason string) metav1.Condition {
		GinkgoHelper()
		var condition metav1.Condition
		Eventually(ctx, func(g Gomega) {
			ready(ctx, plan)(g)
			condition = *apimeta.FindStatusCondition(plan.Status.Conditions, v1alpha1.ConditionReady)
			g.Expect(condition.Reason).To(Equal(reason), condition.Message)
		}).WithTimeout(scenario.Patience).Should(Succeed())
		return condition
	}
	// edit changes the plan, which has it judged anew.
	edit := func(ctx SpecContext, plan *v1alpha1.RecoveryPlan, change func(*v1alpha1.RestoreVolumesStep)) {
		GinkgoHelper()
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(plan), plan)).To(Succeed())
			change(plan.Spec.Steps[0].RestoreVolumes)
			g.Expect(shop.Admin.Update(ctx, plan)).To(Succeed())
		}).WithTimeout(scenario.Patience).Should(Succeed())
	}

	It("is Ready only while a snapshot is there that is old enough", func(ctx SpecContext) {
		shop = openShop(ctx)
		plan := builder.Plan(shop.Namespace, "volumes", builder.RestoreVolumes("back", nil, scenario.DBClaim))
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		said := settles(ctx, plan, v1alpha1.ReasonNoUsableSnapshot)
		Expect(said.Status).To(Equal(metav1.ConditionFalse))
		Expect(said.Message).To(ContainSubstring("no snapshot of PersistentVolumeClaim data-db-0 can be used: there is none"))

		_, _, err := shop.BackUp(ctx, "nightly")
		Expect(err).NotTo(HaveOccurred())
		edit(ctx, plan, func(step *v1alpha1.RestoreVolumesStep) { step.MarginSeconds = new(int32(0)) })
		Expect(settles(ctx, plan, v1alpha1.ReasonPlanUsable).Status).To(Equal(metav1.ConditionTrue))

		edit(ctx, plan, func(step *v1alpha1.RestoreVolumesStep) { step.DwellSeconds = int32((24 * time.Hour).Seconds()) })
		Expect(settles(ctx, plan, v1alpha1.ReasonNoUsableSnapshot).Message).To(ContainSubstring("nightly was taken at"))
	})

	It("is not Ready when a step looks at what the operator may not read, or what is not served", func(ctx SpecContext) {
		shop = openShop(ctx)
		hidden := builder.Plan(shop.Namespace, "hidden", builder.Verify("look", "v1", "ConfigMap", "settings", ""))
		Expect(shop.Admin.Create(ctx, hidden)).To(Succeed())
		Expect(settles(ctx, hidden, v1alpha1.ReasonMissingPermission).Message).To(ContainSubstring("step look: the operator may not get configmaps in namespace " + shop.Namespace))

		unknown := builder.Plan(shop.Namespace, "unknown", builder.Verify("look", "example.com/v1", "Widget", "one", ""))
		Expect(shop.Admin.Create(ctx, unknown)).To(Succeed())
		Expect(settles(ctx, unknown, v1alpha1.ReasonUnknownKind).Message).To(ContainSubstring("the cluster does not serve Widget of example.com/v1"))

		missing := builder.Plan(shop.Namespace, "missing", builder.Scale("zero", "nowhere", v1alpha1.ScaleToZero))
		Expect(shop.Admin.Create(ctx, missing)).To(Succeed())
		Expect(settles(ctx, missing, v1alpha1.ReasonUnknownWorkload).Message).To(ContainSubstring("step zero: Deployment " + shop.Namespace + "/nowhere does not exist"))
	})
})
