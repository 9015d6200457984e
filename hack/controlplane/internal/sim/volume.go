package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	provisionerAnnotation   = "volume.kubernetes.io/storage-provisioner" // set by the PV controller
	provisionedByAnnotation = "pv.kubernetes.io/provisioned-by"
	provisionerFinalizer    = "external-provisioner.volume.kubernetes.io/finalizer"
	sourceRetryInterval     = 250 * time.Millisecond
)

// provisioner plays the CSI provisioner: it makes a volume for every claim
// that the PV controller hands to the driver. The real controller binds them.
type provisioner struct {
	client    client.Client
	backend   *backend
	snapshots bool
	recorder  events.EventRecorder
}

func (p *provisioner) setup(mgr ctrl.Manager) error {
	p.recorder = mgr.GetEventRecorder(Driver)
	return ctrl.NewControllerManagedBy(mgr).
		Named("csi-provisioner").
		For(&corev1.PersistentVolumeClaim{}).
		Complete(p)
}

// Reconcile provisions one claim.
func (p *provisioner) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	claim := &corev1.PersistentVolumeClaim{}
	if err := p.client.Get(ctx, request.NamespacedName, claim); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if claim.Annotations[provisionerAnnotation] != Driver || claim.Spec.VolumeName != "" ||
		claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return ctrl.Result{}, nil
	}
	class := &storagev1.StorageClass{}
	if err := p.client.Get(ctx, types.NamespacedName{Name: *claim.Spec.StorageClassName}, class); err != nil {
		return ctrl.Result{}, fmt.Errorf("read storage class: %w", err)
	}
	source, err := p.sourceHandle(ctx, claim)
	if notYet, ok := errors.AsType[*sourceError](err); ok {
		p.recorder.Eventf(claim, nil, corev1.EventTypeWarning, "ProvisioningFailed", "Provision", "%s", notYet.Error())
		return ctrl.Result{RequeueAfter: sourceRetryInterval}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, client.IgnoreAlreadyExists(p.client.Create(ctx, newVolume(claim, class, source)))
}

// sourceError says why a volume cannot be made from its source yet.
type sourceError struct{ message string }

func (e *sourceError) Error() string { return e.message }

func notYet(format string, args ...any) error {
	return &sourceError{message: fmt.Sprintf(format, args...)}
}

// sourceHandle returns the handle of what the claim's volume is made from, or
// "" for an empty volume.
func (p *provisioner) sourceHandle(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	source := claim.Spec.DataSourceRef
	if source == nil {
		return "", nil
	}
	if source.Namespace != nil && *source.Namespace != claim.Namespace {
		return "", notYet("a source in another namespace is not supported")
	}
	key := types.NamespacedName{Namespace: claim.Namespace, Name: source.Name}
	switch {
	case source.Kind == "VolumeSnapshot" && p.snapshots:
		return p.snapshotHandle(ctx, key, claim)
	case source.Kind == "PersistentVolumeClaim":
		return p.claimHandle(ctx, key)
	default:
		return "", notYet("a source of kind %s is not supported", source.Kind)
	}
}

// snapshotHandle accepts a snapshot that is ready, bound in both directions
// and no larger than the claim.
func (p *provisioner) snapshotHandle(ctx context.Context, key types.NamespacedName, claim *corev1.PersistentVolumeClaim) (string, error) {
	snapshot := &snapshotv1.VolumeSnapshot{}
	if err := p.client.Get(ctx, key, snapshot); err != nil {
		return "", notYet("snapshot %s: %v", key.Name, err)
	}
	status := snapshot.Status
	if snapshot.DeletionTimestamp != nil || status == nil || status.ReadyToUse == nil || !*status.ReadyToUse ||
		status.BoundVolumeSnapshotContentName == nil {
		return "", notYet("snapshot %s is not ready", key.Name)
	}
	content := &snapshotv1.VolumeSnapshotContent{}
	if err := p.client.Get(ctx, types.NamespacedName{Name: *status.BoundVolumeSnapshotContentName}, content); err != nil {
		return "", notYet("content of snapshot %s: %v", key.Name, err)
	}
	switch {
	case content.Spec.VolumeSnapshotRef.UID != snapshot.UID:
		return "", notYet("content %s is not bound to snapshot %s", content.Name, key.Name)
	case content.Spec.Driver != Driver:
		return "", notYet("content %s belongs to driver %s", content.Name, content.Spec.Driver)
	case content.Status == nil || content.Status.SnapshotHandle == nil || !p.backend.exists(*content.Status.SnapshotHandle):
		return "", notYet("content %s has no snapshot behind it", content.Name)
	}
	if requested := claim.Spec.Resources.Requests.Storage(); status.RestoreSize != nil && requested.Cmp(*status.RestoreSize) < 0 {
		return "", notYet("requested size %s is less than the snapshot's %s", requested, status.RestoreSize)
	}
	return *content.Status.SnapshotHandle, nil
}

func (p *provisioner) claimHandle(ctx context.Context, key types.NamespacedName) (string, error) {
	source := &corev1.PersistentVolumeClaim{}
	if err := p.client.Get(ctx, key, source); err != nil {
		return "", notYet("claim %s: %v", key.Name, err)
	}
	if source.Status.Phase != corev1.ClaimBound {
		return "", notYet("claim %s is not bound", key.Name)
	}
	volume := &corev1.PersistentVolume{}
	if err := p.client.Get(ctx, types.NamespacedName{Name: source.Spec.VolumeName}, volume); err != nil {
		return "", notYet("volume of claim %s: %v", key.Name, err)
	}
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != Driver {
		return "", notYet("volume of claim %s belongs to another driver", key.Name)
	}
	return volume.Spec.CSI.VolumeHandle, nil
}

func newVolume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, source string) *corev1.PersistentVolume {
	csi := &corev1.CSIPersistentVolumeSource{Driver: Driver, VolumeHandle: "vol-" + string(claim.UID), FSType: "ext4"}
	if source != "" {
		csi.VolumeAttributes = map[string]string{RestoredFromAttribute: source}
	}
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "pvc-" + string(claim.UID),
			Annotations: map[string]string{provisionedByAnnotation: Driver},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *claim.Spec.Resources.Requests.Storage()},
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: csi},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
		},
	}
}

// volumeReconciler plays the other half of the CSI provisioner: it deletes
// released volumes whose policy says so, and holds a finalizer on them so that
// none disappears before its storage does.
type volumeReconciler struct {
	client client.Client
}

func (r *volumeReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("csi-volumes").
		For(&corev1.PersistentVolume{}).
		Complete(r)
}

// Reconcile maintains one volume.
func (r *volumeReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	volume := &corev1.PersistentVolume{}
	if err := r.client.Get(ctx, request.NamespacedName, volume); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if volume.Annotations[provisionedByAnnotation] != Driver {
		return ctrl.Result{}, nil
	}
	discard := volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	released := slices.Contains([]corev1.PersistentVolumePhase{corev1.VolumeReleased, corev1.VolumeFailed}, volume.Status.Phase)
	if discard && released && volume.DeletionTimestamp == nil {
		err := r.client.Delete(ctx, volume, client.Preconditions{UID: &volume.UID, ResourceVersion: &volume.ResourceVersion})
		return ctrl.Result{}, ignoreStale(err)
	}
	// A volume that is being deleted while it is in use keeps the finalizer
	// until it is released; one that is to be retained does not need it.
	keep := discard && !released
	return ctrl.Result{}, r.setFinalizer(ctx, volume, keep)
}

func (r *volumeReconciler) setFinalizer(ctx context.Context, volume *corev1.PersistentVolume, want bool) error {
	updated := volume.DeepCopy()
	var changed bool
	if want {
		// The API server refuses new finalizers on an object being deleted.
		changed = volume.DeletionTimestamp == nil && controllerutil.AddFinalizer(updated, provisionerFinalizer)
	} else {
		changed = controllerutil.RemoveFinalizer(updated, provisionerFinalizer)
	}
	if !changed {
		return nil
	}
	patch := client.MergeFromWithOptions(volume, client.MergeFromWithOptimisticLock{})
	return ignoreStale(r.client.Patch(ctx, updated, patch))
}
