package cluster

import (
	"context"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// PolicyKind is a kind of network policy of another API, or whatever else a cluster may serve.
type PolicyKind struct {
	Group, Version, Kind, Plural string
	Scope                        apiextensionsv1.ResourceScope
}

// ClusterNetworkPolicy and CiliumNetworkPolicy are kinds that clusters serve whether anything implements them or not; Rollout is of Argo Rollouts, and Database of
// an operator that there is none of.
var (
	ClusterNetworkPolicy = PolicyKind{"policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", apiextensionsv1.ClusterScoped}
	Rollout              = PolicyKind{"argoproj.io", "v1alpha1", "Rollout", "rollouts", apiextensionsv1.NamespaceScoped}
	Database             = PolicyKind{"example.com", "v1", "Database", "databases", apiextensionsv1.NamespaceScoped}
	CiliumNetworkPolicy  = PolicyKind{"cilium.io", "v2", "CiliumNetworkPolicy", "ciliumnetworkpolicies", apiextensionsv1.NamespaceScoped}
)

// ExternalSecret and Certificate are kinds of other operators that keep Secrets. Whoever uses them in a test does what these operators do.
var (
	ExternalSecret = PolicyKind{"external-secrets.io", "v1", "ExternalSecret", "externalsecrets", apiextensionsv1.NamespaceScoped}
	Certificate    = PolicyKind{"cert-manager.io", "v1", "Certificate", "certificates", apiextensionsv1.NamespaceScoped}
)

// ScaledObject is KEDA's.
var ScaledObject = PolicyKind{"keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", apiextensionsv1.NamespaceScoped}

// Serve makes the API server serve the kinds. Their objects may say anything: that an API server takes them proves nothing.
func (c *Cluster) Serve(ctx context.Context, kinds ...PolicyKind) error {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	admin, err := client.New(c.RESTConfig, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	for _, k := range kinds {
		crd := k.definition()
		if err := admin.Create(ctx, crd); err != nil {
			return fmt.Errorf("create CustomResourceDefinition %s: %w", crd.Name, err)
		}
		if out, err := c.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/"+crd.Name); err != nil {
			return fmt.Errorf("wait for %s: %w: %s", crd.Name, err, out)
		}
	}
	return nil
}

func (k PolicyKind) definition() *apiextensionsv1.CustomResourceDefinition {
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: k.Plural + "." + k.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: k.Group, Scope: k.Scope,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: k.Plural, Singular: strings.ToLower(k.Kind), Kind: k.Kind, ListKind: k.Kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: k.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true),
				}},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			}},
		},
	}
	if strings.HasSuffix(k.Group, ".k8s.io") {
		crd.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "unapproved, for a test"}
	}
	return crd
}
