package gitops

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// InFlight says what the manager is still doing, or "". Being paused does not stop it.
func InFlight(obj *unstructured.Unstructured) string {
	switch obj.GetKind() {
	case Application:
		if _, found, _ := unstructured.NestedMap(obj.Object, "operation"); found {
			return "an operation was requested and has not begun"
		}
		phase, _, _ := unstructured.NestedString(obj.Object, "status", "operationState", "phase")
		if phase == "Running" || phase == "Terminating" {
			return "its operation is " + phase
		}
	case Kustomization, HelmRelease:
		// Reconciling alone does not tell: it stays, with the reason ProgressingWithRetry, between two attempts that fail.
		if ready := condition(obj, "Ready"); ready["status"] == "Unknown" || ready["reason"] == "Progressing" {
			return "it is being reconciled"
		}
	}
	return ""
}

// Unrest says why a manager that was resumed has not yet come to rest, or "". What it did before that time does not count. With well, it also has to agree with its source, and to be healthy.
func Unrest(obj *unstructured.Unstructured, since time.Time, well bool) string {
	if busy := InFlight(obj); busy != "" {
		return busy
	}
	switch obj.GetKind() {
	case Application:
		if !comparedAfter(obj, since) {
			return "it has not compared itself with its source since"
		}
		sync, _, _ := unstructured.NestedString(obj.Object, "status", "sync", "status")
		health, _, _ := unstructured.NestedString(obj.Object, "status", "health", "status")
		if well && (sync != "Synced" || health != "Healthy") {
			return fmt.Sprintf("it is %s and %s", orNothing(sync), orNothing(health))
		}
	case Kustomization, HelmRelease:
		observed, _, _ := unstructured.NestedInt64(obj.Object, "status", "observedGeneration")
		if observed != obj.GetGeneration() {
			return "it has not been reconciled since"
		}
		if ready := condition(obj, "Ready"); well && ready["status"] != "True" {
			return fmt.Sprintf("it is not Ready: %v", ready["message"])
		}
	}
	return ""
}

func orNothing(s string) string {
	if s == "" {
		return "silent"
	}
	return s
}

// condition is a condition of the object; without one, an empty map.
func condition(obj *unstructured.Unstructured, kind string) map[string]any {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return m
		}
	}
	return map[string]any{}
}

// comparedAfter reports whether an Application has resolved its source and compared itself with it after that time.
func comparedAfter(app *unstructured.Unstructured, since time.Time) bool {
	raw, _, _ := unstructured.NestedString(app.Object, "status", "reconciledAt")
	at, err := time.Parse(time.RFC3339, raw)
	return err == nil && at.After(since)
}

// Unseen says why it is not seen that the source of a manager renders an object as it is in the cluster, or "" when it is seen.
//
// Only Argo CD compares while it is paused. status.summary.images is no evidence: it has the images of the pods that run, whatever the source renders. What counts is that the object itself is Synced, in a comparison with the
// newest revision of the source after that time, and that nothing hides its images from the comparison.
func Unseen(obj *unstructured.Unstructured, kind, namespace, name string, since time.Time) string {
	if obj.GetKind() != Application {
		return fmt.Sprintf("%s does not compare the cluster with its source while it is suspended", obj.GetKind())
	}
	if rule := hides(obj, kind, name); rule != "" {
		return fmt.Sprintf("its spec.ignoreDifferences (%s) may hide the images of %s %s", rule, kind, name)
	}
	if !comparedAfter(obj, since) {
		return "it has not compared itself with its source since the step has started: refresh it"
	}
	failed, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, c := range failed {
		if m, _ := c.(map[string]any); m["type"] == "ComparisonError" {
			return fmt.Sprintf("it cannot compare itself with its source: %v", m["message"])
		}
	}
	resource := resourceOf(obj, kind, namespace, name)
	if resource == nil {
		return fmt.Sprintf("it does not list %s %s/%s", kind, namespace, name)
	}
	if resource["status"] != "Synced" {
		revision, _, _ := unstructured.NestedString(obj.Object, "status", "sync", "revision")
		return fmt.Sprintf("its source, at revision %q, renders %s %s otherwise than with the known-good images (%v): correct it there", revision, kind, name, resource["status"])
	}
	return ""
}

// glob are the characters that make the kind of a rule a pattern.
const glob = `*?[]{}!\`

// hides is the first rule of an Application that may keep the images of the object from being compared, or "".
func hides(app *unstructured.Unstructured, kind, name string) string {
	list, _, _ := unstructured.NestedSlice(app.Object, "spec", "ignoreDifferences")
	for _, r := range list {
		m, _ := r.(map[string]any)
		if of, _ := m["kind"].(string); of != kind && !strings.ContainsAny(of, glob) {
			continue // a pattern is taken to fit
		}
		if of, _ := m["name"].(string); of != "" && of != name {
			continue
		}
		for _, field := range []string{"jqPathExpressions", "managedFieldsManagers"} {
			if values, _, _ := unstructured.NestedStringSlice(m, field); len(values) > 0 {
				return field + " " + strings.Join(values, ", ")
			}
		}
		pointers, _, _ := unstructured.NestedStringSlice(m, "jsonPointers")
		if i := slices.IndexFunc(pointers, meetsTemplate); i >= 0 {
			return pointers[i]
		}
	}
	return ""
}

// meetsTemplate reports whether a pointer leads to, into, or past the pod template.
func meetsTemplate(pointer string) bool {
	for _, template := range []string{"/spec/template", "/spec/jobTemplate"} {
		if strings.HasPrefix(pointer, template) || strings.HasPrefix(template, strings.TrimSuffix(pointer, "/")) {
			return true
		}
	}
	return false
}
