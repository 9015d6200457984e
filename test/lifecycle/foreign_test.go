package lifecycle

import (
	"context"
	"fmt"
	"strings"

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

// nudge brings a pass by touching a pod of the Incident.
func nudge(ctx context.Context, shop *scenario.Shop, name string) {
	GinkgoHelper()
	held := pod(ctx, shop, name)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, held.ResourceVersion)
	Expect(shop.Admin.Patch(ctx, held, client.RawPatch("application/merge-patch+json", []byte(patch)))).To(Succeed())
}

// servePolicyKinds makes the API server serve foreign kinds of network policies.
func servePolicyKinds(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	admin, err := client.New(server.RESTConfig, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	for _, crd := range []*apiextensionsv1.CustomResourceDefinition{
		policyKind("cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies", apiextensionsv1.NamespaceScoped),
		policyKind("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", apiextensionsv1.ClusterScoped),
	} {
		if err := admin.Create(ctx, crd); err != nil {
			return err
		}
		if _, err := server.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/"+crd.Name); err != nil {
			return err
		}
	}
	return nil
}

// policyKind is a kind whose objects may say anything: that an API server takes them proves nothing.
func policyKind(group, version, kind, plural string, scope apiextensionsv1.ResourceScope) *apiextensionsv1.CustomResourceDefinition {
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: scope,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true),
				}},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			}},
		},
	}
	if strings.HasSuffix(group, ".k8s.io") {
		crd.Annotations = map[string]string{"api-approved.kubernetes.io": "unapproved, for a test"}
	}
	return crd
}
