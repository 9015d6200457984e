// Package gitops simulates, from what their documentation says, how the controllers of Argo CD and Flux treat what they apply: they put back what others have changed, faster than the real ones, unless they are paused.
package gitops

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Marks on what is applied.
const (
	trackingID    = "argocd.argoproj.io/tracking-id"
	kustomizeName = "kustomize.toolkit.fluxcd.io/name"
)

// Git is a repository: the manifests by path, as of the newest revision.
type Git struct {
	mu       sync.Mutex
	revision int
	paths    map[string][]*unstructured.Unstructured
}

// Commit replaces what is in a path.
func (g *Git) Commit(path string, manifests ...*unstructured.Unstructured) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paths == nil {
		g.paths = map[string][]*unstructured.Unstructured{}
	}
	g.revision++
	g.paths[path] = manifests
}

// Render is what is in a path, and the revision.
func (g *Git) Render(path string) (manifests []*unstructured.Unstructured, revision string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.paths[path] {
		manifests = append(manifests, m.DeepCopy())
	}
	return manifests, fmt.Sprintf("rev-%d", g.revision)
}

// Deployment is what Git says of a Deployment that exists: the image of its container "app".
func Deployment(namespace, name, image string) *unstructured.Unstructured {
	return object("apps/v1", "Deployment", namespace, name, map[string]any{
		"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "app", "image": image}}}},
	})
}

// Application is an Application that syncs a path by itself.
func Application(namespace, name, path string) *unstructured.Unstructured {
	return object("argoproj.io/v1alpha1", "Application", namespace, name, map[string]any{
		"project": "default", "source": map[string]any{"path": path},
		"syncPolicy": map[string]any{"automated": map[string]any{"prune": true, "selfHeal": true}},
	})
}

// ApplicationSet makes one Application, of the name and for the path.
func ApplicationSet(namespace, name, application, path string) *unstructured.Unstructured {
	return object("argoproj.io/v1alpha1", "ApplicationSet", namespace, name, map[string]any{
		"template": map[string]any{"metadata": map[string]any{"name": application}, "spec": Application(namespace, application, path).Object["spec"]},
	})
}

// Kustomization applies a path.
func Kustomization(namespace, name, path string) *unstructured.Unstructured {
	return object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", namespace, name, map[string]any{"path": path, "prune": true, "interval": "10m"})
}

func object(apiVersion, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
	}}
}

// within reports whether everything that Git says of an object is so in the cluster. Lists of named things are compared by name.
func within(want, have any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		for k, v := range want {
			if !ok || !within(v, have[k]) {
				return false
			}
		}
		return true
	case []any:
		have, ok := have.([]any)
		for i, v := range want {
			if !ok || !within(v, counterpart(have, v, i)) {
				return false
			}
		}
		return true
	}
	return fmt.Sprint(want) == fmt.Sprint(have)
}

func counterpart(list []any, of any, i int) any {
	if m, ok := of.(map[string]any); ok && m["name"] != nil {
		for _, other := range list {
			if o, ok := other.(map[string]any); ok && o["name"] == m["name"] {
				return o
			}
		}
		return nil
	}
	if i < len(list) {
		return list[i]
	}
	return nil
}
