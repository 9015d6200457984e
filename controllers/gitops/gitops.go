// Package gitops knows, from the objects alone, who applies an object from Git, whether that manager is paused or at work, how it is paused and given back what it had, and what it says about its source. It
// reads and writes nothing.
//
// Managers are objects of Argo CD (Application, ApplicationSet) and Flux (Kustomization, HelmRelease). How each is paused:
//
//   - An Application has spec.syncPolicy.automated.enabled set to false (Argo CD 3.1 and later; drift stays visible), or, where the server does not know the field, loses automated as a whole.
//   - An ApplicationSet overwrites the Applications that it makes. It is told, for one of them, to ignore syncPolicy and our marks (spec.ignoreApplicationDifferences), and goes on with everything else.
//   - Kustomizations and HelmReleases are suspended.
//   - A manager that a Kustomization applies is fenced off from it besides, by the label kustomize.toolkit.fluxcd.io/reconcile=disabled. The Kustomization above goes on with everything else: suspending it, which may be
//     the root of the cluster, would stop far more than the recovery needs.
//   - Everything else above a manager is paused too, from the top down: it would put back what it has applied.
package gitops

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kinds of managers.
const (
	Application    = "Application"
	ApplicationSet = "ApplicationSet"
	Kustomization  = "Kustomization"
	HelmRelease    = "HelmRelease"
)

// Labels and annotations by which Argo CD and Flux mark what they apply.
const (
	trackingID    = "argocd.argoproj.io/tracking-id"
	instanceLabel = "app.kubernetes.io/instance"
	// ownInstanceLabel is what Argo CD's documentation advises to use instead (application.instanceLabelKey), since Helm charts set the other one.
	ownInstanceLabel = "argocd.argoproj.io/instance"
	kustomizeName    = "kustomize.toolkit.fluxcd.io/name"
	kustomizeNS      = "kustomize.toolkit.fluxcd.io/namespace"
	helmName         = "helm.toolkit.fluxcd.io/name"
	helmNS           = "helm.toolkit.fluxcd.io/namespace"
)

var groups = map[string]string{
	Application: "argoproj.io", ApplicationSet: "argoproj.io", Kustomization: "kustomize.toolkit.fluxcd.io", HelmRelease: "helm.toolkit.fluxcd.io",
}

// Kinds are all kinds of managers.
func Kinds() []schema.GroupKind {
	var out []schema.GroupKind
	for _, kind := range []string{ApplicationSet, Application, Kustomization, HelmRelease} {
		out = append(out, GroupKind(kind))
	}
	return out
}

// GroupKind is the group and kind of a manager.
func GroupKind(kind string) schema.GroupKind {
	return schema.GroupKind{Group: groups[kind], Kind: kind}
}

// OfArgoCD tells kinds of Argo CD from those of Flux.
func OfArgoCD(kind string) bool { return groups[kind] == "argoproj.io" }

// Ref names a manager.
type Ref struct{ Kind, Namespace, Name string }

// String is the manager as messages name it.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Claim is what an object says about who manages it.
type Claim struct {
	// Manager has no namespace where the object does not tell it.
	Manager Ref
	// Certain says that only the tool itself marks objects so. What is not certain has to be confirmed: see Lists.
	Certain bool
}

// Claims are who an object of a kind says its managers are. An object that a manager applies itself, as both tools may do, is nobody's child.
func Claims(kind string, obj metav1.Object) []Claim {
	var out []Claim
	self := Ref{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
	add := func(manager Ref, certain bool) {
		same := manager == self || manager.Namespace == "" && manager.Kind == self.Kind && manager.Name == self.Name
		if claim := (Claim{Manager: manager, Certain: certain}); !same && !slices.Contains(out, claim) {
			out = append(out, claim)
		}
	}
	for _, owner := range obj.GetOwnerReferences() {
		if gv, err := schema.ParseGroupVersion(owner.APIVersion); err == nil && gv.Group == groups[ApplicationSet] && owner.Kind == ApplicationSet {
			add(Ref{Kind: ApplicationSet, Namespace: obj.GetNamespace(), Name: owner.Name}, true)
		}
	}
	labels := obj.GetLabels()
	if app, ok := tracked(obj.GetAnnotations()[trackingID], self); ok {
		add(app, true)
	} else {
		for _, key := range []string{instanceLabel, ownInstanceLabel} {
			if name := labels[key]; name != "" {
				add(application(name), false)
			}
		}
	}
	if name := labels[kustomizeName]; name != "" {
		add(Ref{Kind: Kustomization, Namespace: labels[kustomizeNS], Name: name}, true)
	}
	if name := labels[helmName]; name != "" {
		add(Ref{Kind: HelmRelease, Namespace: labels[helmNS], Name: name}, true)
	}
	return out
}

// tracked is the Application of a tracking id, "[<namespace of the Application>_]<Application>:<group>/<kind>:<namespace>/<name>". An id that is about another object was copied along with it, and means nothing.
func tracked(id string, self Ref) (Ref, bool) {
	parts := strings.SplitN(id, ":", 3)
	if len(parts) != 3 {
		return Ref{}, false
	}
	_, kind, _ := strings.Cut(parts[1], "/")
	if kind != self.Kind || parts[2] != self.Namespace+"/"+self.Name {
		return Ref{}, false
	}
	return application(parts[0]), true
}

// application is the Application that Argo CD calls "<namespace>_<name>", or, in its own namespace, "<name>".
func application(id string) Ref {
	if ns, name, ok := strings.Cut(id, "_"); ok {
		return Ref{Kind: Application, Namespace: ns, Name: name}
	}
	return Ref{Kind: Application, Name: id}
}

// Lists reports whether an Application says that it manages the object. One that says nothing of its resources yet may.
func Lists(app *unstructured.Unstructured, kind, namespace, name string) bool {
	resources, _, _ := unstructured.NestedSlice(app.Object, "status", "resources")
	return len(resources) == 0 || resourceOf(app, kind, namespace, name) != nil
}

// resourceOf is what the status of an Application says of an object, or nil.
func resourceOf(app *unstructured.Unstructured, kind, namespace, name string) map[string]any {
	resources, _, _ := unstructured.NestedSlice(app.Object, "status", "resources")
	for _, r := range resources {
		if m, ok := r.(map[string]any); ok && m["kind"] == kind && m["name"] == name && (m["namespace"] == namespace || m["namespace"] == nil && namespace == "") {
			return m
		}
	}
	return nil
}

// Fenced reports whether a Kustomization applies the object, from which a pause has to fence it off.
func Fenced(kind string, obj metav1.Object) bool {
	return slices.ContainsFunc(Claims(kind, obj), func(c Claim) bool { return c.Manager.Kind == Kustomization })
}
