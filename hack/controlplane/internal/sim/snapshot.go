package sim

import (
	"context"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	contentFinalizer        = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
	beingDeletedAnnotation  = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"
	snapshotDelay           = 200 * time.Millisecond
	volumeLookupRetry       = 250 * time.Millisecond
	snapshotGoneMessage     = "the snapshot does not exist in the storage system"
	snapshotNoVolumeMessage = "the volume does not exist in the storage system"
)

// snapshotter plays the CSI snapshotter sidecar: it takes the snapshots that
// the real snapshot controller asks for and deletes them again.
type snapshotter struct {
	client  client.Client
	backend *backend
	delays  *delays
}

func (s *snapshotter) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("csi-snapshotter").
		For(&snapshotv1.VolumeSnapshotContent{}).
		Complete(s)
}

// Reconcile moves one snapshot content forward.
func (s *snapshotter) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	content := &snapshotv1.VolumeSnapshotContent{}
	if err := s.client.Get(ctx, request.NamespacedName, content); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case content.Spec.Driver != Driver:
		return ctrl.Result{}, nil
	case content.DeletionTimestamp != nil:
		return ctrl.Result{}, ignoreStale(s.delete(ctx, content))
	case content.Status != nil && content.Status.SnapshotHandle != nil:
		return ctrl.Result{}, nil // taken
	case isGroupMember(content):
		return ctrl.Result{}, nil // taken with its group
	}
	if left := s.delays.remaining(string(content.UID), snapshotDelay); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	result, err := s.take(ctx, content)
	return result, ignoreStale(err)
}

// take makes the snapshot, or looks up the one that a pre-provisioned content
// names, and reports it.
func (s *snapshotter) take(ctx context.Context, content *snapshotv1.VolumeSnapshotContent) (ctrl.Result, error) {
	ready, err := s.classLetsReady(ctx, content)
	if err != nil {
		return ctrl.Result{}, err
	}
	handle, size := "snap-"+string(content.UID), int64(0)
	if preProvisioned := content.Spec.Source.SnapshotHandle; preProvisioned != nil {
		handle = *preProvisioned
	} else {
		var found bool
		if size, found, err = s.volumeSize(ctx, *content.Spec.Source.VolumeHandle); err != nil {
			return ctrl.Result{}, err
		}
		if !found {
			return ctrl.Result{RequeueAfter: volumeLookupRetry}, s.reportFailure(ctx, content, snapshotNoVolumeMessage)
		}
	}
	taken, ok := s.backend.snapshot(handle, size, time.Now())
	if !ok {
		return ctrl.Result{}, s.reportFailure(ctx, content, snapshotGoneMessage)
	}
	s.delays.forget(string(content.UID))
	return ctrl.Result{}, s.report(ctx, content, snapshotv1.VolumeSnapshotContentStatus{
		SnapshotHandle: &handle,
		CreationTime:   new(taken.created.UnixNano()),
		RestoreSize:    &taken.size,
		ReadyToUse:     &ready,
	})
}

// classLetsReady is false for a class that simulates a storage system that
// never finishes.
func (s *snapshotter) classLetsReady(ctx context.Context, content *snapshotv1.VolumeSnapshotContent) (bool, error) {
	if content.Spec.VolumeSnapshotClassName == nil {
		return true, nil
	}
	class := &snapshotv1.VolumeSnapshotClass{}
	err := s.client.Get(ctx, types.NamespacedName{Name: *content.Spec.VolumeSnapshotClassName}, class)
	if err != nil {
		return false, fmt.Errorf("read snapshot class: %w", err)
	}
	return class.Parameters[NeverReadyParameter] != "true", nil
}

func (s *snapshotter) volumeSize(ctx context.Context, handle string) (size int64, found bool, err error) {
	volumes := &corev1.PersistentVolumeList{}
	if err := s.client.List(ctx, volumes); err != nil {
		return 0, false, fmt.Errorf("list volumes: %w", err)
	}
	for _, volume := range volumes.Items {
		if volume.Spec.CSI != nil && volume.Spec.CSI.Driver == Driver && volume.Spec.CSI.VolumeHandle == handle {
			return volume.Spec.Capacity.Storage().Value(), true, nil
		}
	}
	return 0, false, nil
}

// reportFailure says once why there is no snapshot: a repeat would change the
// object and so bring the reconciler straight back.
func (s *snapshotter) reportFailure(ctx context.Context, content *snapshotv1.VolumeSnapshotContent, message string) error {
	if content.Status != nil && content.Status.Error != nil && content.Status.Error.Message != nil && *content.Status.Error.Message == message {
		return nil
	}
	return s.report(ctx, content, snapshotv1.VolumeSnapshotContentStatus{
		ReadyToUse: new(false),
		Error:      &snapshotv1.VolumeSnapshotError{Time: new(metav1.Now()), Message: &message},
	})
}

func (s *snapshotter) report(ctx context.Context, content *snapshotv1.VolumeSnapshotContent, status snapshotv1.VolumeSnapshotContentStatus) error {
	updated := content.DeepCopy()
	updated.Status = &status
	patch := client.MergeFromWithOptions(content, client.MergeFromWithOptimisticLock{})
	if err := s.client.Status().Patch(ctx, updated, patch); err != nil {
		return fmt.Errorf("report snapshot: %w", err)
	}
	return nil
}

// delete removes the snapshot if the policy says so and lets the object go.
// Like the sidecar, it waits for the snapshot controller to say that the
// VolumeSnapshot is being deleted, unless there never was one.
func (s *snapshotter) delete(ctx context.Context, content *snapshotv1.VolumeSnapshotContent) error {
	neverBound := content.Spec.Source.SnapshotHandle != nil && content.Spec.VolumeSnapshotRef.UID == ""
	if _, announced := content.Annotations[beingDeletedAnnotation]; !announced && !neverBound {
		return nil
	}
	s.delays.forget(string(content.UID))
	status := content.Status
	if content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete && status != nil && status.SnapshotHandle != nil {
		s.backend.remove(*status.SnapshotHandle)
		// Clearing the status first is what makes a repeat after a crash safe;
		// the change brings the reconciler back for the finalizer.
		return s.report(ctx, content, snapshotv1.VolumeSnapshotContentStatus{Error: status.Error})
	}
	updated := content.DeepCopy()
	if !controllerutil.RemoveFinalizer(updated, contentFinalizer) {
		return nil
	}
	return s.client.Patch(ctx, updated, client.MergeFromWithOptions(content, client.MergeFromWithOptimisticLock{}))
}
