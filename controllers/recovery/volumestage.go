package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get

// selectedNode tells the provisioner, for a class that waits for the first consumer, for which node a volume is made (sigs.k8s.io/sig-storage-lib-external-provisioner). The scheduler sets it otherwise.
const selectedNode = "volume.kubernetes.io/selected-node"

// stage makes the new volume, holds it, and has it checked.
func (r *restoration) stage(ctx context.Context) (Outcome, error) {
	if r.under() {
		return done("staged"), nil
	}
	if r.was == nil {
		if out, err := r.remember(ctx); err != nil || !out.Done {
			return out, err
		}
	}
	if r.fresh == nil || r.unstaged() {
		return r.make(ctx)
	}
	if held, err := r.hold(ctx, r.fresh, "it is to be the volume of "+r.choice.Object.Name); err != nil || !held {
		return waiting("%s %s is about to be held", volumeKind, r.fresh.Name), err
	}
	out, err := r.check(ctx)
	if err != nil || !out.Done || !changesClaim(r.step) {
		return out, err
	}
	return r.setReady(), nil
}

// unstaged reports whether somebody has taken away the claim that the new volume was made with. What is on it then, nobody knows.
func (r *restoration) unstaged() bool {
	if r.staged != nil && string(r.staged.UID) == r.made.Staged {
		return false
	}
	ours := v1alpha1.ObjectRef{Kind: claimKind, Namespace: r.x.Incident.Namespace, Name: r.stagedName(), UID: r.made.Staged}
	return !r.x.Journal.Intended(v1alpha1.ActionReplaceClaim, ours)
}

// remember records the claim and its volume before anything is changed.
func (r *restoration) remember(ctx context.Context) (out Outcome, err error) {
	if r.claim == nil || string(r.claim.UID) != r.choice.Object.UID {
		return waiting("%s %s is not the one that the snapshot was chosen for: it was deleted or replaced since", claimKind, r.choice.Object.Name), nil
	}
	if r.old, err = readVolume(ctx, r.x, r.claim.Spec.VolumeName); err != nil || r.old == nil {
		return waiting("%s %s of %s does not exist", volumeKind, r.claim.Spec.VolumeName, r.choice.Object.Name), err
	}
	r.was = &claimRecord{
		Labels: kept(r.claim.Labels), Annotations: kept(r.claim.Annotations), Owners: r.claim.OwnerReferences, Spec: r.claim.Spec,
		VolumeUID: string(r.old.UID), Policy: r.old.Spec.PersistentVolumeReclaimPolicy,
	}
	data, err := json.Marshal(r.was)
	if err != nil {
		return Outcome{}, fmt.Errorf("recording %s %s: %w", claimKind, r.choice.Object.Name, err)
	}
	if why := r.x.unrecordable(r.step.Name, r.choice.Object, data); why != "" {
		return failed("the labels and annotations of %s %s cannot be recorded, and so not be put back: %s; take some off, and retry the step", claimKind, r.choice.Object.Name, why), nil
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: r.choice.Object, ResourceVersion: r.claim.ResourceVersion, Data: string(data)})
	return done("recorded"), nil
}

// kept are the labels or annotations of a claim that are its own, and neither ours nor about the volume that it is bound to. What kubectl last applied is left out, as it may be long.
func kept(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		ofBinding := strings.HasPrefix(k, "pv.kubernetes.io/") || strings.HasPrefix(k, "volume.kubernetes.io/") || k == "volume.beta.kubernetes.io/storage-provisioner"
		ours := strings.HasPrefix(k, v1alpha1.SchemeGroupVersion.Group+"/")
		if !ofBinding && !ours && k != corev1.LastAppliedConfigAnnotation {
			out[k] = v
		}
	}
	return out
}

// make has the volume made by way of a claim of its own, and records it once it is there.
func (r *restoration) make(ctx context.Context) (Outcome, error) {
	switch {
	case r.staged == nil:
		return r.createStaged(ctx)
	case !r.asChosen(r.staged):
		return failed("%s %s was not made from snapshot %s for this recovery: delete or rename it, and retry the step", claimKind, r.staged.Name, r.choice.Source.Name), nil
	case r.staged.Status.Phase == corev1.ClaimLost:
		return failed("the volume of %s %s was deleted: delete the claim, and retry the step", claimKind, r.staged.Name), nil
	case r.staged.Status.Phase != corev1.ClaimBound:
		return waiting("waits until a volume from snapshot %s is made for %s %s", r.choice.Source.Name, claimKind, r.staged.Name), nil
	}
	volume, err := readVolume(ctx, r.x, r.staged.Spec.VolumeName)
	if err != nil {
		return Outcome{}, err
	}
	// The binding is believed when both sides agree.
	if volume == nil || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != r.staged.UID {
		return waiting("waits until %s %s is bound to %s", volumeKind, r.staged.Spec.VolumeName, r.staged.Name), nil
	}
	if volume.CreationTimestamp.Before(&r.staged.CreationTimestamp) {
		return failed("%s %s is older than %s, and so not what was made from snapshot %s: delete the claim, and retry the step", volumeKind, volume.Name, r.staged.Name, r.choice.Source.Name), nil
	}
	if _, why, err := r.snapshot(ctx); err != nil || why != "" {
		return waiting("%s", why), err
	}
	r.fresh, r.made = volume, volumeRecord{Claim: r.choice.Object.Name, Staged: string(r.staged.UID), Policy: volume.Spec.PersistentVolumeReclaimPolicy}
	data, err := json.Marshal(r.made)
	if err != nil {
		return Outcome{}, fmt.Errorf("recording %s %s: %w", volumeKind, volume.Name, err)
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: volumeRef(volume), ResourceVersion: volume.ResourceVersion, Data: string(data)})
	_, err = r.hold(ctx, volume, "it is to be the volume of "+r.choice.Object.Name)
	return waiting("%s %s is about to be held", volumeKind, volume.Name), err
}

// asChosen reports whether a claim has our mark and is filled from the snapshot that people have approved. The mark alone anybody may set.
func (r *restoration) asChosen(claim *corev1.PersistentVolumeClaim) bool {
	from := claim.Spec.DataSourceRef
	return claim.Labels[v1alpha1.IncidentUIDLabel] == string(r.x.Incident.UID) && from != nil && from.Kind == snapshotKind && from.Name == r.choice.Source.Name &&
		(from.Namespace == nil || *from.Namespace == claim.Namespace)
}

func volumeRef(volume *corev1.PersistentVolume) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: volumeKind, Name: volume.Name, UID: string(volume.UID)}
}

func (r *restoration) createStaged(ctx context.Context) (Outcome, error) {
	claim, why, err := r.newStaged(ctx)
	if err != nil || why != "" {
		return waiting("%s", why), err
	}
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: claimKind, Namespace: claim.Namespace, Name: claim.Name}, Detail: "a volume from snapshot " + r.choice.Source.Name}
	err = r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, claim)) // the next pass sees whose it is
	})
	return waiting("%s %s is about to be made from snapshot %s", claimKind, claim.Name, r.choice.Source.Name), err
}

// newStaged is a claim like the original, without its labels, by which something may select it, and filled from the snapshot.
func (r *restoration) newStaged(ctx context.Context) (claim *corev1.PersistentVolumeClaim, why string, err error) {
	snapshot, why, err := r.snapshot(ctx)
	if err != nil || why != "" {
		return nil, why, err
	}
	spec := *r.was.Spec.DeepCopy()
	spec.VolumeName, spec.DataSource = "", nil
	spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: new(snapshotv1.GroupName), Kind: snapshotKind, Name: snapshot.Name}
	if size := snapshot.Status.RestoreSize; size != nil && size.Cmp(*spec.Resources.Requests.Storage()) > 0 {
		spec.Resources.Requests[corev1.ResourceStorage] = *size
	}
	claim = &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.x.Incident.Namespace, Name: r.stagedName(), Labels: measure.OwnedLabels(r.x.Incident), Annotations: measure.OwnedAnnotations(r.x.Incident),
		},
		Spec: spec,
	}
	node, why, err := r.node(ctx)
	if node != "" {
		claim.Annotations[selectedNode] = node
	}
	return claim, why, err
}

// snapshot reads the snapshot that was chosen, but not a namesake of it.
func (r *restoration) snapshot(ctx context.Context) (*snapshotv1.VolumeSnapshot, string, error) {
	var snapshot snapshotv1.VolumeSnapshot
	err := r.x.Reader.Get(ctx, client.ObjectKey{Namespace: r.choice.Source.Namespace, Name: r.choice.Source.Name}, &snapshot)
	if apierrors.IsNotFound(err) || err == nil && string(snapshot.UID) != r.choice.Source.UID {
		return nil, fmt.Sprintf("%s %s, which was chosen, does not exist any more: declare another Incident, whose recovery chooses anew", snapshotKind, r.choice.Source.Name), nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading %s %s/%s: %w", snapshotKind, r.choice.Source.Namespace, r.choice.Source.Name, err)
	}
	return &snapshot, "", nil
}

// node is the node for which a volume is made whose class waits for the first consumer: one that has used the old volume, so that the new one is made where it can be reached too. It is "" for other classes. It says why there
// is none.
func (r *restoration) node(ctx context.Context) (node, why string, err error) {
	name := ptr.Deref(r.was.Spec.StorageClassName, "")
	if name == "" {
		return "", "", nil
	}
	var class storagev1.StorageClass
	err = r.x.Reader.Get(ctx, client.ObjectKey{Name: name}, &class)
	if apierrors.IsNotFound(err) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("reading StorageClass %s: %w", name, err)
	}
	if ptr.Deref(class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingImmediate {
		return "", "", nil
	}
	if node = lastNode(r.x.Pods, r.x.Incident.Namespace, r.choice.Object.Name); node == "" {
		why = fmt.Sprintf("StorageClass %s makes a volume only for a node, and no pod of the Incident is known to have used %s %s: restore it by hand, and skip the step", name, claimKind, r.choice.Object.Name)
	}
	return node, why, nil
}

// lastNode is the node of a pod of the Incident that used the claim.
func lastNode(pods []v1alpha1.PodStatus, namespace, claim string) string {
	for _, p := range pods {
		if p.Namespace != namespace || p.Node == "" {
			continue
		}
		if slices.Contains(p.Claims, claim) {
			return p.Node
		}
	}
	return ""
}

// hold sets the reclaim policy of a volume to Retain and marks it, and reports whether that was seen to be so.
func (r *restoration) hold(ctx context.Context, volume *corev1.PersistentVolume, why string) (bool, error) {
	ref := volumeRef(volume)
	if volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain && volume.Labels[v1alpha1.IncidentUIDLabel] == string(r.x.Incident.UID) {
		r.x.Journal.Done(v1alpha1.ActionHoldVolume, ref)
		return true, nil
	}
	if !r.x.Journal.IntendAnew(v1alpha1.ActionHoldVolume, ref, "keep the volume: "+why) {
		return false, nil
	}
	return false, r.patchVolume(ctx, volume, "set its reclaim policy to Retain: "+why, map[string]any{
		"metadata": map[string]any{"labels": measure.OwnedLabels(r.x.Incident), "annotations": measure.OwnedAnnotations(r.x.Incident)},
		"spec":     map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimRetain},
	})
}

// patchVolume changes exactly the volume that was read.
func (r *restoration) patchVolume(ctx context.Context, volume *corev1.PersistentVolume, detail string, body map[string]any) error {
	meta, _ := body["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		body["metadata"] = meta
	}
	meta["uid"], meta["resourceVersion"] = volume.UID, volume.ResourceVersion
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding a change of %s %s: %w", volumeKind, volume.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: volumeRef(volume), Detail: detail}
	return r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Patch(ctx, volume.DeepCopy(), client.RawPatch(types.MergePatchType, raw))
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // somebody was faster; the next pass judges anew
		}
		return err
	})
}
