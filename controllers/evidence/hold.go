package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// A snapshot that is evidence carries the label v1alpha1.EvidenceLabel, which the admission policy "cofferdam-evidence-snapshots" looks at, and the finalizer v1alpha1.EvidenceFinalizer, which keeps the
// object where nobody enforces that policy. The snapshot controller deletes the content of a snapshot that is being deleted unless the content says Retain, whatever finalizers there are. So
// the label says how far we are, and the snapshot may go with its namespace only when its content stays.
const (
	// evidenceTaking is on a snapshot whose content may not be retained yet.
	evidenceTaking = "taking"
	// evidenceKept is on contents that are retained, and on their snapshots.
	evidenceKept = "kept"
)

// heldLabels are the labels of a snapshot that is created for the Incident.
func heldLabels(inc *v1alpha1.Incident) map[string]string {
	out := measure.OwnedLabels(inc)
	out[v1alpha1.EvidenceLabel] = evidenceTaking
	return out
}

// held reports whether the finalizer is on the object.
func held(obj metav1.Object) bool {
	return slices.Contains(obj.GetFinalizers(), v1alpha1.EvidenceFinalizer)
}

func retained(content *snapshotv1.VolumeSnapshotContent) bool {
	return content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain && content.Labels[v1alpha1.EvidenceLabel] == evidenceKept
}

// unkept returns the snapshot if its mark, or its finalizer, has to be written. One that is being deleted takes no new finalizers.
func unkept(snap *snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshot {
	if snap.Labels[v1alpha1.EvidenceLabel] == evidenceKept && (held(snap) || !snap.DeletionTimestamp.IsZero()) {
		return nil
	}
	return snap
}

// operation is one operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// sameUID makes a patch be about this object and none of its namesakes.
func sameUID(obj metav1.Object) operation {
	return operation{Op: "test", Path: "/metadata/uid", Value: string(obj.GetUID())}
}

// unchanged makes a patch be about the object as it was read, for where a map or list would be replaced as a whole.
func unchanged(obj metav1.Object) operation {
	return operation{Op: "test", Path: "/metadata/resourceVersion", Value: obj.GetResourceVersion()}
}

// addLabels puts labels on an object.
func addLabels(obj metav1.Object, labels map[string]string) []operation {
	if len(obj.GetLabels()) == 0 {
		return []operation{unchanged(obj), {Op: "add", Path: "/metadata/labels", Value: labels}}
	}
	var out []operation
	for key, value := range labels {
		out = append(out, operation{Op: "add", Path: "/metadata/labels/" + pointer(key), Value: value})
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// pointer escapes a key for a JSON pointer (RFC 6901).
func pointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// retainPatch is a JSON patch that makes exactly this content outlive its snapshot and its namespace, and marks it as evidence.
func retainPatch(content metav1.Object) ([]byte, error) {
	return json.Marshal(slices.Concat(
		[]operation{sameUID(content)}, addLabels(content, map[string]string{v1alpha1.EvidenceLabel: evidenceKept}),
		[]operation{{Op: "replace", Path: "/spec/deletionPolicy", Value: string(snapshotv1.VolumeSnapshotContentRetain)}},
	))
}

// keepPatch marks an object as evidence that stays, and puts the finalizer on it.
func keepPatch(obj metav1.Object, labels map[string]string) ([]byte, error) {
	ops := append([]operation{sameUID(obj)}, addLabels(obj, labels)...)
	switch {
	case held(obj) || !obj.GetDeletionTimestamp().IsZero():
	case len(obj.GetFinalizers()) == 0:
		ops = append(ops, unchanged(obj), operation{Op: "add", Path: "/metadata/finalizers", Value: []string{v1alpha1.EvidenceFinalizer}})
	default:
		ops = append(ops, operation{Op: "add", Path: "/metadata/finalizers/-", Value: v1alpha1.EvidenceFinalizer})
	}
	return json.Marshal(ops)
}

// releasePatch takes the mark and the finalizer off again. It returns nil when there is neither.
func releasePatch(obj metav1.Object) ([]byte, error) {
	ops := []operation{sameUID(obj)}
	if _, marked := obj.GetLabels()[v1alpha1.EvidenceLabel]; marked {
		ops = append(ops, operation{Op: "remove", Path: "/metadata/labels/" + pointer(v1alpha1.EvidenceLabel)})
	}
	if i := slices.Index(obj.GetFinalizers(), v1alpha1.EvidenceFinalizer); i >= 0 {
		path := fmt.Sprintf("/metadata/finalizers/%d", i)
		ops = append(ops, operation{Op: "test", Path: path, Value: v1alpha1.EvidenceFinalizer}, operation{Op: "remove", Path: path})
	}
	if len(ops) == 1 {
		return nil, nil
	}
	return json.Marshal(ops)
}

func refOf(kind string, obj metav1.Object) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: string(obj.GetUID())}
}

// keepDetail says why a snapshot is changed when its content is retained.
const keepDetail = "mark it as evidence whose content is retained"

const (
	snapshotKind = "VolumeSnapshot"
	contentKind  = "VolumeSnapshotContent"
)

// perform writes what a step says, and reports whether the mark of a snapshot waits for its intent to be durable. That it took effect is observed by the next look.
func perform(ctx context.Context, x *Execution, step Step) (waits bool, err error) {
	if step.Retained != nil {
		x.Journal.Done(v1alpha1.ActionRetainSnapshot, refOf(contentKind, step.Retained))
	}
	if step.Snapshot != nil && unkept(step.Snapshot) == nil {
		x.Journal.Done(v1alpha1.ActionRetainSnapshot, refOf(snapshotKind, step.Snapshot))
	}
	switch {
	case step.Create != nil:
		return false, create(ctx, x, step.Create)
	case step.Retain != nil:
		if step.Snapshot != nil && unkept(step.Snapshot) != nil {
			x.Journal.Intend(v1alpha1.ActionRetainSnapshot, refOf(snapshotKind, step.Snapshot), keepDetail) // comes next
		}
		return false, retain(ctx, x, step.Retain)
	case step.Keep != nil:
		return keep(ctx, x, step.Keep)
	case step.Remove != nil:
		return false, remove(ctx, x, refOf(snapshotKind, step.Remove), step.Remove)
	}
	return false, nil
}

// keep marks a snapshot whose content is retained, and reports whether that waits for its intent to be durable. Nobody looks at a snapshot that is kept any more, so the API server's answer is what tells the effect.
func keep(ctx context.Context, x *Execution, snap *snapshotv1.VolumeSnapshot) (waits bool, err error) {
	ref := refOf(snapshotKind, snap)
	if !x.Journal.IntendAnew(v1alpha1.ActionRetainSnapshot, ref, keepDetail) {
		return true, nil
	}
	patch, err := keepPatch(snap, map[string]string{v1alpha1.EvidenceLabel: evidenceKept})
	if err != nil {
		return false, err
	}
	if err := patchObject(ctx, x, ref, snap, patch, keepDetail); err != nil {
		return false, err
	}
	if unkept(snap) == nil {
		x.Journal.Done(v1alpha1.ActionRetainSnapshot, ref)
	}
	return false, nil
}

func create(ctx context.Context, x *Execution, snap *snapshotv1.VolumeSnapshot) error {
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: snapshotKind, Namespace: snap.Namespace, Name: snap.Name},
		Detail: fmt.Sprintf("snapshot PersistentVolumeClaim %s with class %s; its content is then set to Retain", *snap.Spec.Source.PersistentVolumeClaimName, *snap.Spec.VolumeSnapshotClassName)}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, snap))
	})
}

// goingNamespace says that nothing can be created because the namespace is being deleted, which nobody can take back; it is empty when that is not why a write has failed.
func goingNamespace(err error, namespace string) string {
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return ""
	}
	return fmt.Sprintf("namespace %s is being deleted, and no snapshot can be created in it any more", namespace)
}

// retain makes a snapshot outlive its namespace.
func retain(ctx context.Context, x *Execution, content *snapshotv1.VolumeSnapshotContent) error {
	ref := refOf(contentKind, content)
	const detail = "deletionPolicy: Retain"
	if !x.Journal.IntendAnew(v1alpha1.ActionRetainSnapshot, ref, detail) {
		return nil
	}
	patch, err := retainPatch(content)
	if err != nil {
		return err
	}
	return patchObject(ctx, x, ref, content, patch, detail)
}

func patchObject(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, obj client.Object, patch []byte, detail string) error {
	return x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, obj, client.RawPatch(types.JSONPatchType, patch))
	})
}

// remove deletes an object as it was read, so that one that has changed since, and may have become what it should be, is looked at again instead; then it takes off what of ours keeps it.
func remove(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, obj client.Object) error {
	if obj.GetDeletionTimestamp().IsZero() {
		const detail = "it was not ready in time, and would keep its claim from being deleted"
		durable := x.Journal.Intend(v1alpha1.ActionDeleteSnapshot, ref, detail)
		if patch, err := releasePatch(obj); err == nil && patch != nil {
			x.Journal.Intend(v1alpha1.ActionReleaseSnapshot, ref, letGoDetail) // comes next
		}
		if !durable {
			return nil
		}
		return deleteObject(ctx, x, ref, obj, detail)
	}
	x.Journal.Done(v1alpha1.ActionDeleteSnapshot, ref)
	return release(ctx, x, ref, obj, letGoDetail)
}

// letGoDetail says why mark and finalizer are taken off what we delete ourselves.
const letGoDetail = "let go what is being deleted"

func deleteObject(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, obj client.Object, detail string) error {
	if x.Withheld {
		return nil // comes once the ledger tells of the intent
	}
	return x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: detail}, func(ctx context.Context, c client.Client) error {
		err := c.Delete(ctx, obj, client.Preconditions{UID: new(obj.GetUID()), ResourceVersion: new(obj.GetResourceVersion())})
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // the next look tells
		}
		return err
	})
}

// release takes mark and finalizer off, once the intent is durable. LetGo observes that they are off.
func release(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, obj client.Object, detail string) error {
	patch, err := releasePatch(obj)
	if err != nil || patch == nil || !x.Journal.IntendAnew(v1alpha1.ActionReleaseSnapshot, ref, detail) {
		return err
	}
	return patchObject(ctx, x, ref, obj, patch, detail)
}

// settle notes in the journal that what was intended for the snapshot of an item has nothing left to be done to. The UID is in the journal alone by now.
func settle(j *journal.Journal, action v1alpha1.Action, item v1alpha1.EvidenceItem) {
	suffix := strings.TrimPrefix(item.ID, "snapshot-")
	for _, e := range j.Entries() {
		if e.Action == action && e.Object.Kind == snapshotKind && e.Object.Namespace == item.Subject.Namespace && strings.HasSuffix(e.Object.Name, "-"+suffix) {
			j.Done(action, e.Object)
		}
	}
}
