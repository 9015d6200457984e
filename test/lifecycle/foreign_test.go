package lifecycle

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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

// nudge brings a pass by touching a pod that has nothing to do with the Incident.
func nudge(ctx context.Context, shop *scenario.Shop) {
	GinkgoHelper()
	blog := podsOf(ctx, shop, scenario.Clean)[0]
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, blog.ResourceVersion)
	Expect(shop.Admin.Patch(ctx, &blog, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// servePolicyKind makes the API server serve one foreign kind of network policy.
func servePolicyKind(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	admin, err := client.New(server.RESTConfig, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	if err := admin.Create(ctx, &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ciliumnetworkpolicies.cilium.io"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "cilium.io", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ciliumnetworkpolicies", Singular: "ciliumnetworkpolicy", Kind: "CiliumNetworkPolicy", ListKind: "CiliumNetworkPolicyList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v2", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}},
			}},
		},
	}); err != nil {
		return err
	}
	_, err = server.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/ciliumnetworkpolicies.cilium.io")
	return err
}
