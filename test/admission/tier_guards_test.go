package admission

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
)

// tierKind is a kind of policy that network plugins bring along, as far as the guards look at it.
type tierKind struct {
	group, version, plural, kind string
	namespaced                   bool
}

var tierKinds = []tierKind{
	{"policy.networking.k8s.io", "v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy", false},
	{"policy.networking.k8s.io", "v1alpha1", "baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy", false},
	{"policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy", false},
	{"cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy", true},
	{"cilium.io", "v2", "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", false},
	{"projectcalico.org", "v3", "networkpolicies", "NetworkPolicy", true},
	{"projectcalico.org", "v3", "globalnetworkpolicies", "GlobalNetworkPolicy", false},
	{"projectcalico.org", "v3", "tiers", "Tier", false},
	{"crd.projectcalico.org", "v1", "networkpolicies", "NetworkPolicy", true},
	{"crd.projectcalico.org", "v1", "globalnetworkpolicies", "GlobalNetworkPolicy", false},
	{"crd.projectcalico.org", "v1", "tiers", "Tier", false},
	{"crd.antrea.io", "v1beta1", "networkpolicies", "NetworkPolicy", true},
	{"crd.antrea.io", "v1beta1", "clusternetworkpolicies", "ClusterNetworkPolicy", false},
	{"crd.antrea.io", "v1beta1", "tiers", "Tier", false},
}

func (k tierKind) String() string {
	return k.plural + "." + k.group
}

// definition is a CRD that takes whatever it is given.
func (k tierKind) definition() *apiextensionsv1.CustomResourceDefinition {
	anything := true
	scope := apiextensionsv1.ClusterScoped
	if k.namespaced {
		scope = apiextensionsv1.NamespaceScoped
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{
			Name: k.String(),
			// The API server asks for this in groups of Kubernetes' own.
			Annotations: map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "unapproved, for a test"},
		},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: k.group, Scope: scope,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: k.plural, Kind: k.kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: k.version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{
					OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &anything},
				},
			}},
		},
	}
}

// object is one of the kind, in a namespace if the kind has namespaces.
func (k tierKind) object(namespace string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"order": int64(1)}}}
	object.SetAPIVersion(k.group + "/" + k.version)
	object.SetKind(k.kind)
	object.SetName(fresh())
	if k.namespaced {
		object.SetNamespace(namespace)
	}
	return object
}

// with is a copy in which a field says something else.
func with(object *unstructured.Unstructured, value any, path ...string) *unstructured.Unstructured {
	GinkgoHelper()
	object = object.DeepCopy()
	Expect(unstructured.SetNestedField(object.Object, value, path...)).To(Succeed())
	return object
}

func without(object *unstructured.Unstructured, path ...string) *unstructured.Unstructured {
	object = object.DeepCopy()
	unstructured.RemoveNestedField(object.Object, path...)
	return object
}

var _ = Describe("Policies of network plugins", Ordered, func() {
	BeforeAll(func(ctx context.Context) {
		for _, kind := range tierKinds {
			Expect(admin.Create(ctx, kind.definition())).To(Succeed())
			DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, kind.definition())).To(Succeed()) })
		}
		for _, kind := range tierKinds {
			Eventually(ctx, func() error { return admin.Create(ctx, kind.object(shop), client.DryRunAll) }).Should(Succeed())
		}
	})

	for _, kind := range tierKinds {
		It("are not written while pods are held: "+kind.String(), func(ctx context.Context) {
			stored := kind.object(shop)
			Expect(unstructured.SetNestedField(stored.Object, []any{map[string]any{"a": "b"}}, "specs")).To(Succeed())
			Expect(tenant.Create(ctx, stored)).To(Succeed(), "nothing is held")
			DeferCleanup(func(ctx context.Context) { Expect(tenant.Delete(ctx, stored)).To(Succeed()) })

			list := held(ctx, "shop/miner", lists{heldNamespaces: {"somewhere", shop}})
			wanted := kind.object(shop)
			permitted, where := overrider, "namespace shop"
			words := kind.kind + " shop/" + wanted.GetName() + " can allow traffic of pods that Incident shop/miner holds in quarantine there."
			if !kind.namespaced {
				permitted, where = overseer, "the whole cluster"
				words = kind.kind + " " + wanted.GetName() + " can allow traffic of pods that Incident shop/miner holds in quarantine in somewhere and other namespaces."
				Expect(overrider.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(refusedWith("can allow traffic"), "the verb in one namespace is not enough")
			}
			refused := And(
				Satisfy(apierrors.IsForbidden),
				refusedWith("takes the RBAC verb expose on incidents.containment.cofferdam.dev in "+where+": see ClusterRole cofferdam-overrider"),
			)
			Expect(tenant.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(And(refused, refusedWith(words)))
			for _, change := range []*unstructured.Unstructured{
				with(stored, int64(2), "spec", "order"), without(stored, "spec", "order"), without(stored, "spec"),
				with(stored, []any{}, "specs"), without(stored, "specs"), with(stored, "new", "another"),
			} {
				Expect(tenant.Update(ctx, change.DeepCopy(), client.DryRunAll)).To(refused)
				Expect(permitted.Update(ctx, change.DeepCopy(), client.DryRunAll)).To(Succeed())
				Expect(operatorAsTenant.Update(ctx, change, client.DryRunAll)).To(Succeed())
			}
			for _, other := range []somebody{examiner, destroyer} {
				Expect(other.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(refused, "another verb does not help")
			}
			Expect(exposer.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(Succeed())
			Expect(permitted.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(Succeed())
			Expect(operatorAsTenant.Create(ctx, wanted.DeepCopy(), client.DryRunAll)).To(Succeed())
			for _, harmless := range []*unstructured.Unstructured{
				stored, with(stored, "a", "metadata", "labels", "team"), with(stored, "a", "metadata", "annotations", "note"), with(stored, "True", "status", "ready"),
			} {
				Expect(tenant.Update(ctx, harmless.DeepCopy(), client.DryRunAll)).To(Succeed())
			}

			listAgain(ctx, list, lists{heldNamespaces: {pay}, heldPods: {shop + "/any"}})
			if kind.namespaced {
				Expect(tenant.Create(ctx, kind.object(shop), client.DryRunAll)).To(Succeed(), "held elsewhere")
				Expect(overrider.Create(ctx, kind.object(pay), client.DryRunAll)).To(refusedWith("in namespace pay"))
			} else {
				Expect(tenant.Create(ctx, kind.object(""), client.DryRunAll)).To(refusedWith("in quarantine in pay."))
			}
			listAgain(ctx, list, lists{heldNamespaces: {}})
			Expect(tenant.Create(ctx, kind.object(shop), client.DryRunAll)).To(Succeed(), "held nowhere")
		})

		It("belong to the operator when they are part of a quarantine: "+kind.String(), func(ctx context.Context) {
			object := kind.object(shop)
			object.SetLabels(map[string]string{containmentv1alpha1.IncidentUIDLabel: "11111111-1111-1111-1111-111111111111"})
			Expect(admin.Create(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith("is put on objects of kind " + kind.kind + " by the Cofferdam operator alone"))
			Expect(operator.Create(ctx, object)).To(Succeed())
			message := "this " + kind.kind + " is the quarantine of an Incident, or a part of it"
			Expect(admin.Update(ctx, with(object, int64(2), "spec", "order"), client.DryRunAll)).To(refusedWith(message))
			Expect(admin.Update(ctx, without(object, "metadata", "labels"), client.DryRunAll)).To(refusedWith(message))
			Expect(overseer.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
			namespaces := as(server.Impersonate("system:serviceaccount:kube-system:namespace-controller", "system:masters"))
			Expect(namespaces.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith(message), "its namespace, if it has one, stays")
			Expect(operator.Delete(ctx, object)).To(Succeed())
		})
	}

	It("are all those that the guards match", func(ctx context.Context) {
		for _, guard := range []string{"cofferdam-tier-exposure", "cofferdam-quarantine-policies"} {
			matched := matchedResources(ctx, guard)
			for _, kind := range tierKinds {
				Expect(matched).To(ContainElement(kind.String()), guard)
			}
			if guard == "cofferdam-tier-exposure" {
				Expect(matched).To(HaveLen(len(tierKinds)), "each of them is tested")
			}
		}
	})
})

// matchedResources are the resources that an admission policy matches, each as plural.group.
func matchedResources(ctx context.Context, name string) []string {
	GinkgoHelper()
	policy, err := user("reader", "system:masters").raw.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	found := []string{}
	for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				found = append(found, strings.TrimSuffix(resource+"."+group, "."))
			}
		}
	}
	return found
}
