package lifecycle

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A policy of an API that is not evaluated", func() {
	It("makes verdicts Unknown and is named, and they come back when it goes", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))

		foreign := &unstructured.Unstructured{}
		foreign.SetAPIVersion("cilium.io/v2")
		foreign.SetKind("CiliumNetworkPolicy")
		foreign.SetNamespace(shop.Namespace)
		foreign.SetName("let-me-in")
		Expect(shop.Admin.Create(ctx, foreign)).To(Succeed())
		inc := await(ctx, shop, "miner", "unknown", scenario.HasReason(v1alpha1.ConditionContained, v1alpha1.ReasonVerdictUnknown))
		Expect(inc.Status.Pods).To(HaveEach(Or(HaveField("Verdict", v1alpha1.VerdictUnknown), HaveField("Verdict", v1alpha1.VerdictGone))))
		Expect(inc.Status.Pods[0].Message).To(ContainSubstring("let-me-in"))

		By("having it in the record of what is around the pods of an Incident that is declared now")
		declare(ctx, shop, "second", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		second := await(ctx, shop, "second", "recorded", func(inc *v1alpha1.Incident) bool {
			around := evidenceOf(inc, v1alpha1.EvidenceSurroundings)
			return len(around) == 1 && around[0].State == v1alpha1.EvidenceCollected
		})
		Expect(string(readItem(ctx, evidenceOf(second, v1alpha1.EvidenceSurroundings)[0]))).To(ContainSubstring(`"name":"let-me-in"`))

		Expect(shop.Admin.Delete(ctx, foreign)).To(Succeed())
		await(ctx, shop, "miner", "contained again", scenario.Is(v1alpha1.ConditionContained))
	})
})

// nudge brings a pass by touching a pod of the Incident.
func nudge(ctx context.Context, shop *scenario.Shop, name string) {
	GinkgoHelper()
	held := pod(ctx, shop, name)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, held.ResourceVersion)
	Expect(shop.Admin.Patch(ctx, held, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}
