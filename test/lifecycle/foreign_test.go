package lifecycle

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
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
