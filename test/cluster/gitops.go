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

// ServeGitOps makes the API server serve the kinds of Argo CD and Flux, reduced to what matters here: groups, versions, names, which of them have a status of their own, and the fields of an Application's automated sync, which
// older releases know one of less.
func (c *Cluster) ServeGitOps(ctx context.Context) error {
	admin, err := c.extensions()
	if err != nil {
		return err
	}
	for _, crd := range []*apiextensionsv1.CustomResourceDefinition{
		gitOpsKind("argoproj.io", "v1alpha1", "Application", false, applicationSchema(true)),
		gitOpsKind("argoproj.io", "v1alpha1", "ApplicationSet", true, open()),
		gitOpsKind("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", true, open()),
		gitOpsKind("helm.toolkit.fluxcd.io", "v2", "HelmRelease", true, open()),
	} {
		if err := admin.Create(ctx, crd); err != nil {
			return fmt.Errorf("create CustomResourceDefinition %s: %w", crd.Name, err)
		}
		if out, err := c.KubectlContext(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/"+crd.Name); err != nil {
			return fmt.Errorf("wait for %s: %w: %s", crd.Name, err, out)
		}
	}
	return nil
}

// ServeApplications makes Applications know the field that turns automated sync off, as Argo CD 3.1 and later do, or drop it.
func (c *Cluster) ServeApplications(ctx context.Context, enabled bool) error {
	admin, err := c.extensions()
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := admin.Get(ctx, client.ObjectKey{Name: "applications.argoproj.io"}, &crd); err != nil {
		return err
	}
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema = applicationSchema(enabled)
	return admin.Update(ctx, &crd)
}

func (c *Cluster) extensions() (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.New(c.RESTConfig, client.Options{Scheme: scheme})
}

func gitOpsKind(group, version, kind string, status bool, schema *apiextensionsv1.JSONSchemaProps) *apiextensionsv1.CustomResourceDefinition {
	singular := strings.ToLower(kind)
	v := apiextensionsv1.CustomResourceDefinitionVersion{
		Name: version, Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: schema},
	}
	if status {
		v.Subresources = &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: singular + "s." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.NamespaceScoped,
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: singular + "s", Singular: singular, Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{v},
		},
	}
}

// open takes anything.
func open() *apiextensionsv1.JSONSchemaProps {
	return &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}
}

func applicationSchema(enabled bool) *apiextensionsv1.JSONSchemaProps {
	boolean := apiextensionsv1.JSONSchemaProps{Type: "boolean"}
	automated := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"prune": boolean, "selfHeal": boolean, "allowEmpty": boolean,
	}}
	if enabled {
		automated.Properties["enabled"] = boolean
	}
	policy := *open()
	policy.Properties = map[string]apiextensionsv1.JSONSchemaProps{"automated": automated}
	spec := *open()
	spec.Properties = map[string]apiextensionsv1.JSONSchemaProps{"syncPolicy": policy}
	out := open()
	out.Properties = map[string]apiextensionsv1.JSONSchemaProps{"spec": spec}
	return out
}
