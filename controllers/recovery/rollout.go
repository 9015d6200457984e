package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=argoproj.io,resources=rollouts,verbs=get;list;watch;patch

const (
	rolloutAPI = "argoproj.io/v1alpha1"
	// rolloutHash is the label by which Argo Rollouts tells the revisions of a Rollout apart.
	rolloutHash = "rollouts-pod-template-hash"
)

// readRollout reads an Argo Rollout, with the template of the Deployment that it refers to if it has none of its own. It says why its images cannot be changed.
func readRollout(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, string, error) {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(rolloutAPI)
	u.SetKind(string(v1alpha1.RecoverableRollout))
	err := r.Get(ctx, key, u)
	if apimeta.IsNoMatchError(err) {
		return nil, fmt.Sprintf("Rollout %s: the cluster does not serve %s", key, rolloutAPI), nil
	}
	if err != nil {
		return nil, "", err
	}
	out := &workload{object: u, hashLabel: rolloutHash, wanted: replicasOf(u), halted: haltedRollout(u), observed: observedAs(u, "observedGeneration", u.GetGeneration())}
	// Its controller computes the hash from a template with all defaults filled in, and tells what it is.
	out.hash, _, _ = unstructured.NestedString(u.Object, "status", "currentPodHash")
	var sets appsv1.ReplicaSetList
	if err := r.List(ctx, &sets, client.InNamespace(key.Namespace)); err != nil {
		return nil, "", err
	}
	for i := range sets.Items {
		if owner := metav1.GetControllerOf(&sets.Items[i]); owner != nil && owner.UID == u.GetUID() {
			out.owners = append(out.owners, string(sets.Items[i].UID))
		}
	}
	if ref, found, _ := unstructured.NestedStringMap(u.Object, "spec", "workloadRef"); found {
		why, err := out.refer(ctx, r, key, u, ref)
		if err != nil || why != "" {
			return nil, why, err
		}
		return out, "", nil
	}
	content, _, _ := unstructured.NestedMap(u.Object, "spec", "template")
	out.template, out.custom = &corev1.PodTemplateSpec{}, u
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, out.template); err != nil {
		return nil, fmt.Sprintf("the pod template of Rollout %s cannot be read: %v", key, err), nil
	}
	return out, "", nil
}

// refer takes the template from the Deployment that the Rollout refers to. It says why that cannot be done, or "".
func (w *workload) refer(ctx context.Context, r client.Reader, key client.ObjectKey, rollout *unstructured.Unstructured, ref map[string]string) (string, error) {
	if ref["kind"] != "Deployment" {
		return fmt.Sprintf("Rollout %s has its template from %s %s: only Deployments are supported; change it by hand, and skip the step", key, ref["kind"], ref["name"]), nil
	}
	var d appsv1.Deployment
	err := r.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: ref["name"]}, &d)
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("Deployment %s, from which Rollout %s has its template, does not exist: create it, or correct the Rollout", ref["name"], key), nil
	}
	if err != nil {
		return "", err
	}
	w.self, w.object, w.template, w.path = rollout, &d, &d.Spec.Template, []string{"spec", "template"}
	w.observed = w.observed && observedAs(rollout, "workloadObservedGeneration", d.Generation)
	return "", nil
}

func replicasOf(u *unstructured.Unstructured) int32 {
	n, found, err := unstructured.NestedInt64(u.Object, "spec", "replicas")
	if err != nil || !found {
		return 1
	}
	return int32(min(max(n, 0), 1<<30)) //nolint:gosec // bounded
}

// observedAs reports whether the status field, which is a string, names the generation.
func observedAs(u *unstructured.Unstructured, field string, generation int64) bool {
	seen, _, _ := unstructured.NestedString(u.Object, "status", field)
	return seen == strconv.FormatInt(generation, 10)
}

// haltedRollout says why the Rollout does not go on by itself, or "".
func haltedRollout(u *unstructured.Unstructured) string {
	if aborted, _, _ := unstructured.NestedBool(u.Object, "status", "abort"); aborted {
		return "is aborted, and its pods are those of the revision before: retry it (kubectl argo rollouts retry rollout " + u.GetName() + ")"
	}
	paused, _, _ := unstructured.NestedBool(u.Object, "spec", "paused")
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "pauseConditions")
	if paused || len(conditions) > 0 {
		return "is paused, at a step of its canary or before it goes live: promote it (kubectl argo rollouts promote " + u.GetName() + ")"
	}
	return ""
}

// customChange is the patch of a workload whose API knows no strategic merge: lists are replaced as a whole, as they were read and with other images, and only if nothing has changed since.
func (w *workload) customChange(good v1alpha1.KnownGoodImages, mark any, detail string) (patch []byte, changes, impossible string) {
	spec := map[string]any{}
	for _, list := range []string{"containers", "initContainers"} {
		containers, found, err := unstructured.NestedSlice(w.custom.Object, "spec", "template", "spec", list)
		if err != nil || !found {
			continue
		}
		for _, c := range containers {
			fields, ok := c.(map[string]any)
			if !ok {
				continue
			}
			if i := slices.IndexFunc(good.Containers, func(g v1alpha1.ContainerImage) bool { return g.Name == fields["name"] }); i >= 0 {
				fields["image"] = good.Containers[i].Image
			}
		}
		spec[list] = containers
	}
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.custom.GetResourceVersion()},
		"spec": map[string]any{"template": map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{v1alpha1.RecoveredByAnnotation: mark}}, "spec": spec,
		}},
	})
	if err != nil {
		return nil, "", fmt.Sprintf("the patch cannot be encoded: %v", err)
	}
	return raw, detail, ""
}
