package lifecycle

import (
	"bytes"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/preview"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A preview of a recovery", func() {
	previewed := func(ctx SpecContext, shop *scenario.Shop, who client.Client) (*preview.Preview, string) {
		GinkgoHelper()
		p, err := preview.Of(ctx, who, client.ObjectKey{Namespace: shop.Namespace, Name: "miner"}, time.Now())
		Expect(err).NotTo(HaveOccurred())
		var out bytes.Buffer
		Expect(p.WriteText(&out)).To(Succeed())
		return p, out.String()
	}

	It("says what would change and what stands in the way, and changes nothing", func(ctx SpecContext) {
		shop := openShop(ctx)
		budget := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "web"},
			Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt32(0)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": scenario.Web}}},
		}
		Expect(shop.Admin.Create(ctx, budget)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName), builder.Targets(scenario.Targets()...))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		var before, after appsv1.Deployment
		key := client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Web}
		Expect(shop.Admin.Get(ctx, key, &before)).To(Succeed())

		p, text := previewed(ctx, shop, shop.Admin)
		Expect(p.Blocked()).To(BeFalse(), text)
		Expect(p.Begun).To(BeFalse())
		Expect(text).To(ContainSubstring("web: rollBackImages, after db"))
		Expect(text).To(ContainSubstring("patch Deployment " + shop.Namespace + "/web: app: " + scenario.BadImage + " -> " + builder.GoodImage + ": accepted"))
		Expect(text).To(ContainSubstring(`spec.template.spec.containers[0].image: "` + scenario.BadImage + `" -> "` + builder.GoodImage + `"`))
		Expect(text).To(ContainSubstring("note   PodDisruptionBudget " + shop.Namespace + "/web: allows no disruption of Deployment web"))
		Expect(text).To(ContainSubstring("and the time that 1 approvals take"))
		Expect(text).To(ContainSubstring("Deployment web is down about"))
		Expect(text).To(ContainSubstring("Deployment blog is down about"))
		Expect(shop.Admin.Get(ctx, key, &after)).To(Succeed())
		Expect(after.ResourceVersion).To(Equal(before.ResourceVersion), "nothing was changed")

		By("pausing a rollout, and filling a quota")
		Expect(shop.Admin.Patch(ctx, &before, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"paused":true}}`)))).To(Succeed())
		full := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "full"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/pods": resource.MustParse("1")}}}
		Expect(shop.Admin.Create(ctx, full)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			p, text := previewed(ctx, shop, shop.Admin)
			g.Expect(p.Blocked()).To(BeTrue())
			g.Expect(text).To(ContainSubstring("BLOCKS Deployment " + shop.Namespace + "/web: step web: its rollout is paused: resume it"))
			g.Expect(text).To(ContainSubstring("BLOCKS ResourceQuota " + shop.Namespace + "/full: there is no room for one pod more"))
		}).WithTimeout(scenario.Patience).Should(Succeed())
	})

	It("says what a claim is held by, and which snapshot is missing", func(ctx SpecContext) {
		shop := openShop(ctx)
		plan := builder.Plan(shop.Namespace, "volumes", builder.RestoreVolumes("back", nil, scenario.DBClaim))
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("volumes"), builder.SuspectedAgo(time.Hour), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		p, text := previewed(ctx, shop, shop.Admin)
		Expect(p.Blocked()).To(BeTrue())
		Expect(text).To(ContainSubstring("BLOCKS RecoveryPlan " + shop.Namespace + "/volumes: step back: no snapshot of PersistentVolumeClaim data-db-0 can be used"))
		Expect(text).To(ContainSubstring("BLOCKS Pod " + shop.Namespace + "/db-0: step back: this pod uses data-db-0, and no step before scales its workload to zero"))

		By("asking as somebody who may not read volumes")
		p, text = previewed(ctx, shop, shop.Responder)
		Expect(p.Unread).NotTo(BeEmpty(), text)
		Expect(text).To(ContainSubstring("UNREAD what is chosen cannot be told:"))
	})
})
