package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// maxLevels bounds the walk up the owners.
const maxLevels = 8

// grant says what a platform team has to do before the operator may act on an object of a kind that it does not know.
const grant = `grant get and patch on its kind in a ClusterRole labelled containment.cofferdam.dev/aggregate-to-recover=true`

// changeOwner changes the images in the object that keeps the workload. It says what it waits for, or "" once the workload has the images.
func changeOwner(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, w *workload, good v1alpha1.KnownGoodImages) (string, error) {
	if step.RollBackImages.Restore == v1alpha1.RestoredTemplate {
		return fmt.Sprintf("%s %s is kept by %s %s, which gives no whole template back: use restore Images", w.ref.Kind, w.ref.Name, good.Owner.Kind, good.Owner.Name), nil
	}
	for _, want := range good.Containers {
		if want.FoundIn != v1alpha1.InPods && container(&w.template.Spec, want.Name) == nil {
			return fmt.Sprintf("%s %s has no container %s: correct the plan", w.ref.Kind, w.ref.Name, want.Name), nil
		}
	}
	owner, why, err := readOwner(ctx, x, w, good.Owner)
	if err != nil || why != "" {
		return why, err
	}
	values := map[string]string{}
	for _, c := range good.Containers {
		if c.FoundIn != v1alpha1.InPods {
			values[c.Path] = c.Image
		}
	}
	if why, err := setValues(ctx, x, step.Name, owner, values); err != nil || why != "" {
		return why, err
	}
	if !imagesMatch(good, &w.template.Spec) {
		return fmt.Sprintf("%s %s has the known-good images, and its controller has not yet changed %s %s", good.Owner.Kind, good.Owner.Name, w.ref.Kind, w.ref.Name), nil
	}
	return "", nil
}

// undoOwner gives the owner the images back that it had.
func undoOwner(ctx context.Context, x *Execution, step string, w *workload, good v1alpha1.KnownGoodImages) (Outcome, error) {
	owner, why, err := readOwner(ctx, x, w, good.Owner)
	if err != nil || why != "" {
		return waiting("%s", why), err
	}
	record := x.Recorded(step, refOf(owner))
	if record == nil {
		return done("%s %s was not changed", good.Owner.Kind, good.Owner.Name), nil
	}
	was := map[string]string{}
	if err := json.Unmarshal([]byte(record.Data), &was); err != nil {
		return Outcome{}, fmt.Errorf("reading what was recorded of %s %s: %w", good.Owner.Kind, good.Owner.Name, err)
	}
	if why, err := setValues(ctx, x, step, owner, was); err != nil || why != "" {
		return waiting("%s", why), err
	}
	return done("%s %s has the images again that it had", good.Owner.Kind, good.Owner.Name), nil
}

// setValues gives the object the strings at these paths. It says what it waits for, or "" once it has them.
func setValues(ctx context.Context, x *Execution, step string, object *unstructured.Unstructured, values map[string]string) (string, error) {
	ref, changed := refOf(object), object.DeepCopy()
	id := ref.Kind + " " + ref.Name
	was := map[string]string{}
	var changes []string
	for _, path := range slices.Sorted(maps.Keys(values)) {
		value, ok := at(changed.Object, path, nil)
		if !ok {
			return fmt.Sprintf("%s has no string at %s: correct the path in spec.images", id, path), nil
		}
		was[path] = value
		if value != values[path] {
			at(changed.Object, path, new(values[path]))
			changes = append(changes, fmt.Sprintf("%s: %s -> %s", path, value, values[path]))
		}
	}
	if len(changes) == 0 {
		x.Journal.Done(v1alpha1.ActionRollBackImages, ref)
		return "", nil
	}
	data, err := json.Marshal(was)
	if err != nil {
		return "", fmt.Errorf("recording the images of %s: %w", id, err)
	}
	x.Record(step, v1alpha1.StepRecord{Object: ref, ResourceVersion: object.GetResourceVersion(), Data: string(data)})
	waits, detail := id+" is about to get other images", strings.Join(changes, "; ")
	if !x.Journal.IntendAnew(v1alpha1.ActionRollBackImages, ref, detail) {
		return waits, nil
	}
	// The resourceVersion in the patch makes the API server refuse it for a namesake, and for what has changed since.
	patch, err := client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{}).Data(changed)
	if err != nil {
		return "", fmt.Errorf("changing the images of %s: %w", id, err)
	}
	err = x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, object.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	})
	switch {
	case apierrors.IsConflict(err):
		return waits, nil // somebody was faster; the next pass judges anew
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("%s may not be changed by the operator: %s", id, grant), nil
	case err != nil:
		return "", fmt.Errorf("changing the images of %s: %w", id, err)
	}
	return waits, nil
}

// at is the string to which a JSON pointer (RFC 6901) leads, and whether there is one. With a value it is replaced.
func at(object map[string]any, pointer string, value *string) (string, bool) {
	var here any = object
	tokens := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for n, token := range tokens {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		var next any
		var set func(any)
		switch h := here.(type) {
		case map[string]any:
			next, set = h[token], func(v any) { h[token] = v }
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(h) {
				return "", false
			}
			next, set = h[i], func(v any) { h[i] = v }
		default:
			return "", false
		}
		if n < len(tokens)-1 {
			here = next
			continue
		}
		found, ok := next.(string)
		if ok && value != nil {
			set(*value)
		}
		return found, ok
	}
	return "", false
}

// readOwner reads the owner that the plan names, if it is among the controllers above the workload, and the topmost of them. It says why it cannot be changed.
func readOwner(ctx context.Context, x *Execution, w *workload, wanted v1alpha1.WorkloadOwner) (*unstructured.Unstructured, string, error) {
	var object metav1.Object = w.object
	below := w.ref.Kind + " " + w.ref.Name
	for range maxLevels {
		owner := metav1.GetControllerOf(object)
		if owner == nil {
			break
		}
		above, why, err := readAbove(ctx, x.Reader, w.ref.Namespace, owner)
		if err != nil || why != "" {
			return nil, why, err
		}
		if owner.Kind == wanted.Kind && owner.Name == wanted.Name && groupOf(owner.APIVersion) == groupOf(wanted.APIVersion) {
			if higher := ownerAbove(above); higher != "" {
				return nil, fmt.Sprintf("%s %s is itself kept by %s, which would undo a change of it: name that one as owner", owner.Kind, owner.Name, higher), nil
			}
			return above, "", nil
		}
		object = above
	}
	return nil, fmt.Sprintf("%s is not kept by %s %s (%s), as its ownerReferences say: correct owner in spec.images", below, wanted.Kind, wanted.Name, wanted.APIVersion), nil
}

func groupOf(apiVersion string) string { return schema.FromAPIVersionAndKind(apiVersion, "").Group }

// readAbove reads the object to which an ownerReference leads. It says why there is nothing to read.
func readAbove(ctx context.Context, r client.Reader, namespace string, owner *metav1.OwnerReference) (*unstructured.Unstructured, string, error) {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(owner.APIVersion)
	u.SetKind(owner.Kind)
	id := owner.Kind + " " + owner.Name
	err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: owner.Name}, u)
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Sprintf("%s may not be read by the operator: %s", id, grant), nil
	case apierrors.IsNotFound(err), apimeta.IsNoMatchError(err), err == nil && u.GetUID() != owner.UID:
		return nil, fmt.Sprintf("%s, of which an ownerReference says that it keeps the workload, does not exist", id), nil
	case err != nil:
		return nil, "", fmt.Errorf("reading %s: %w", id, err)
	}
	return u, "", nil
}

// keptAbove says that a change of the workload would be undone, and by what: the topmost owner that can be made out.
func keptAbove(ctx context.Context, x *Execution, w *workload) string {
	top := ownerAbove(w.object)
	var object metav1.Object = w.object
	for range maxLevels {
		owner := metav1.GetControllerOf(object)
		if owner == nil {
			break
		}
		top = ownerAbove(object)
		above, why, err := readAbove(ctx, x.Reader, w.ref.Namespace, owner)
		if err != nil || why != "" {
			break // what is above that is not known
		}
		object = above
	}
	ref := w.changed()
	return fmt.Sprintf("%s %s is kept by %s, which would undo a change of it: name that as owner in spec.images, with the path of each image, or change it by hand and skip the step", ref.Kind, ref.Name, top)
}

func refOf(u *unstructured.Unstructured) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName(), UID: string(u.GetUID())}
}

// allAnew reports whether what runs the known-good images cannot be one of the compromised revisions: each of those lacks one of the images. It stands in for the mark, which a template that something else writes does not have.
func allAnew(inc *v1alpha1.Incident, workload v1alpha1.ObjectRef, good v1alpha1.KnownGoodImages) bool {
	for _, r := range inc.Status.Revisions {
		of := r.Workload.Kind == workload.Kind && r.Workload.Namespace == workload.Namespace && r.Workload.Name == workload.Name
		if of && !slices.ContainsFunc(good.Containers, func(c v1alpha1.ContainerImage) bool {
			return c.FoundIn != v1alpha1.InPods && !slices.Contains(r.Images, c.Image)
		}) {
			return false
		}
	}
	return true
}
