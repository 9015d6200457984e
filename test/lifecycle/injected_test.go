package lifecycle

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A container that is injected into the pods", func() {
	It("keeps a rollback from succeeding while it runs a compromised digest, though no template names it", func(ctx SpecContext) {
		shop := openShop(ctx)
		policy := inject(ctx, shop, "example.org/proxy:1")
		digest := openInjected(ctx, shop)
		declareInjected(ctx, shop, builder.KnownGood("Deployment", "victim", "app", builder.GoodImage))
		nameCompromised(ctx, shop, "example.org/proxy@"+digest)
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "naming the container", stepSays("back", "reports the compromised digest "+digest+" for container proxy"))

		By("correcting what injects it")
		changed := policy.DeepCopy()
		changed.Spec.Mutations[0].JSONPatch.Expression = proxy(builder.GoodImage)
		Expect(shop.Admin.Patch(ctx, changed, client.MergeFrom(policy))).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			for _, p := range running(ctx, shop) {
				if p.Spec.Containers[1].Image != builder.GoodImage {
					g.Expect(client.IgnoreNotFound(shop.Admin.Delete(ctx, &p))).To(Succeed())
				}
			}
			g.Expect(running(ctx, shop)).To(ConsistOf(HaveField("Spec.Containers", ContainElement(And(HaveField("Name", "proxy"), HaveField("Image", builder.GoodImage))))))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
	})

	It("is judged by its digest where the plan lists it, and is in no template", func(ctx SpecContext) {
		shop := openShop(ctx)
		inject(ctx, shop, "example.org/proxy:1")
		digest := openInjected(ctx, shop)
		good := builder.KnownGood("Deployment", "victim", "app", builder.GoodImage, "proxy", "example.org/proxy@"+digest)
		good.Containers[1].FoundIn = v1alpha1.InPods
		declareInjected(ctx, shop, good)
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
		Expect(running(ctx, shop)).To(ConsistOf(HaveField("Spec.Containers", HaveLen(2))))
	})
})

func proxy(image string) string {
	return fmt.Sprintf(`[JSONPatch{op: "add", path: "/spec/containers/-", value: {"name": "proxy", "image": %q}}]`, image)
}

// inject puts a container into the pods of the shop's victim, as a service mesh does.
func inject(ctx context.Context, shop *scenario.Shop, image string) *admissionv1.MutatingAdmissionPolicy {
	GinkgoHelper()
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "inject-" + shop.Namespace},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"shop": shop.Namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}}},
			},
			MatchConditions:    []admissionv1.MatchCondition{{Name: "victim", Expression: `has(object.metadata.labels) && "app" in object.metadata.labels && object.metadata.labels["app"] == "victim"`}},
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			Mutations:          []admissionv1.Mutation{{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{Expression: proxy(image)}}},
		},
	}
	binding := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy.Name}, Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: policy.Name}}
	for _, obj := range []client.Object{policy, binding} {
		Expect(shop.Admin.Create(ctx, obj)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(shop.Admin.Delete(ctx, obj)).To(Succeed()) })
	}
	probe := builder.Pod(shop.Namespace, "probe", "app", "victim")
	Eventually(ctx, func() ([]corev1.Container, error) {
		got := probe.DeepCopy()
		err := shop.Admin.Create(ctx, got, client.DryRunAll)
		return got.Spec.Containers, err
	}).WithTimeout(scenario.Patience).Should(HaveLen(2), "the policy is in force")
	return policy
}

// openInjected creates the victim and returns the digest that its injected container reports.
func openInjected(ctx context.Context, shop *scenario.Shop) string {
	GinkgoHelper()
	Expect(shop.Admin.Create(ctx, builder.Deployment(shop.Namespace, "victim", scenario.BadImage, 1))).To(Succeed())
	Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(1))
	for _, s := range running(ctx, shop)[0].Status.ContainerStatuses {
		if s.Name == "proxy" {
			return digestOf(s.ImageID)
		}
	}
	Fail("no container was injected")
	return ""
}

func declareInjected(ctx context.Context, shop *scenario.Shop, good v1alpha1.KnownGoodImages) {
	GinkgoHelper()
	plan := builder.Plan(shop.Namespace, "injected", builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: "victim"}), builder.Approve("look"))
	plan.Spec.Images = []v1alpha1.KnownGoodImages{good}
	Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
	declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", "victim")), builder.UsePlan("injected"))
	await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
}
