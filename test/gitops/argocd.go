package gitops

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// application makes one pass over an Application: it compares it with its source, and syncs it when automated sync says so.
func (s *Simulation) application(ctx context.Context, app *unstructured.Unstructured) error {
	before := app.DeepCopy()
	path, _, _ := unstructured.NestedString(app.Object, "spec", "source", "path")
	manifests, revision := s.Git.Render(path)
	phase, _, _ := unstructured.NestedString(app.Object, "status", "operationState", "phase")
	if phase == "Running" {
		if s.holds(app.GetName()) {
			return nil
		}
		if err := s.sync(ctx, app); err != nil {
			return err
		}
	} else if automatic(app) && unstructuredString(app, "status", "sync", "status") == "OutOfSync" {
		set(app, "Running", "status", "operationState", "phase")
		// What is rendered now is what the operation applies, whatever Git says when it comes to an end.
		s.begin(app.GetName(), manifests)
		return s.Client.Update(ctx, app)
	}
	if err := s.compare(ctx, app, manifests, revision); err != nil {
		return err
	}
	if fmt.Sprint(before.Object["status"]) == fmt.Sprint(app.Object["status"]) {
		return nil
	}
	return s.Client.Update(ctx, app) // Applications have no status subresource
}

// automatic reports whether automated sync is on: an enabled that is not set counts as true.
func automatic(app *unstructured.Unstructured) bool {
	policy, found, _ := unstructured.NestedMap(app.Object, "spec", "syncPolicy", "automated")
	return found && policy["enabled"] != false
}

// sync ends the operation that is running: it applies what was rendered when it began.
func (s *Simulation) sync(ctx context.Context, app *unstructured.Unstructured) error {
	for _, m := range s.rendered(app.GetName()) {
		group, _, _ := strings.Cut(m.GetAPIVersion(), "/")
		m.SetAnnotations(map[string]string{trackingID: fmt.Sprintf("%s:%s/%s:%s/%s", app.GetName(), group, m.GetKind(), m.GetNamespace(), m.GetName())})
		if err := s.apply(ctx, m, "argocd-controller"); err != nil {
			return err
		}
	}
	set(app, "Succeeded", "status", "operationState", "phase")
	return nil
}

// compare writes what an Application says about itself.
func (s *Simulation) compare(ctx context.Context, app *unstructured.Unstructured, manifests []*unstructured.Unstructured, revision string) error {
	status, resources := "Synced", []any{}
	images := []any{}
	for _, m := range manifests {
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(m.GroupVersionKind())
		one := "Synced"
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(m), live); client.IgnoreNotFound(err) != nil {
			return err
		} else if err != nil || !within(m.Object["spec"], live.Object["spec"]) || live.GetAnnotations()[trackingID] == "" {
			one, status = "OutOfSync", "OutOfSync"
		}
		group, _, _ := strings.Cut(m.GetAPIVersion(), "/")
		resources = append(resources, map[string]any{"group": group, "kind": m.GetKind(), "namespace": m.GetNamespace(), "name": m.GetName(), "status": one})
		// Of what runs, whatever Git says.
		containers, _, _ := unstructured.NestedSlice(live.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			images = append(images, c.(map[string]any)["image"])
		}
	}
	set(app, status, "status", "sync", "status")
	set(app, revision, "status", "sync", "revision")
	set(app, "Healthy", "status", "health", "status")
	set(app, resources, "status", "resources")
	set(app, images, "status", "summary", "images")
	set(app, time.Now().UTC().Format(time.RFC3339), "status", "reconciledAt")
	return nil
}

// applicationSet makes one pass over an ApplicationSet: its Application becomes what the template says, but for what is to be ignored.
func (s *Simulation) applicationSet(ctx context.Context, set *unstructured.Unstructured) error {
	name, _, _ := unstructured.NestedString(set.Object, "spec", "template", "metadata", "name")
	spec, _, _ := unstructured.NestedMap(set.Object, "spec", "template", "spec")
	owner := map[string]any{"apiVersion": set.GetAPIVersion(), "kind": set.GetKind(), "name": set.GetName(), "uid": string(set.GetUID()), "controller": true}
	live := &unstructured.Unstructured{}
	live.SetAPIVersion(set.GetAPIVersion())
	live.SetKind("Application")
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: set.GetNamespace(), Name: name}, live)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil {
		made := object(set.GetAPIVersion(), "Application", set.GetNamespace(), name, spec)
		made.Object["metadata"].(map[string]any)["ownerReferences"] = []any{owner}
		return s.Client.Create(ctx, made)
	}
	want := live.DeepCopy()
	want.Object["spec"] = spec
	want.SetLabels(nil)
	want.SetAnnotations(nil)
	rules, _, _ := unstructured.NestedSlice(set.Object, "spec", "ignoreApplicationDifferences")
	for _, r := range rules {
		rule := r.(map[string]any)
		if rule["name"] != nil && rule["name"] != "" && rule["name"] != name {
			continue
		}
		for _, p := range rule["jsonPointers"].([]any) {
			keep(live, want, p.(string))
		}
	}
	same := fmt.Sprint(want.Object["spec"], want.GetLabels(), want.GetAnnotations()) == fmt.Sprint(live.Object["spec"], live.GetLabels(), live.GetAnnotations())
	if same {
		return nil
	}
	return s.Client.Update(ctx, want)
}

// keep lets a field be as it is in the cluster.
func keep(live, want *unstructured.Unstructured, pointer string) {
	var path []string
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		path = append(path, strings.ReplaceAll(part, "~1", "/"))
	}
	unstructured.RemoveNestedField(want.Object, path...)
	if value, found, _ := unstructured.NestedFieldCopy(live.Object, path...); found {
		set(want, value, path...)
	}
}

func unstructuredString(u *unstructured.Unstructured, path ...string) string {
	out, _, _ := unstructured.NestedString(u.Object, path...)
	return out
}

func set(u *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		panic(fmt.Sprintf("an object of the simulation has no room for %v: %v", path, err))
	}
}
