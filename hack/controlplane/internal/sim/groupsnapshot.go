package sim

import (
	"context"
	"fmt"
	"time"

	groupsnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	groupContentFinalizer       = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"
	groupBeingDeletedAnnotation = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted"
	groupMemberAnnotation       = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
)

// groupSnapshotter plays the part of the CSI snapshotter sidecar that takes
// snapshots of several volumes at one moment.
type groupSnapshotter struct {
	client    client.Client
	snapshots *snapshotter
	delays    *delays
}

func (s *groupSnapshotter) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("csi-group-snapshotter").
		For(&groupsnapshotv1.VolumeGroupSnapshotContent{}).
		Complete(s)
}

// isGroupMember reports whether the snapshot was taken with its group: the
// snapshot controller copies its state from the group's content.
func isGroupMember(content *snapshotv1.VolumeSnapshotContent) bool {
	_, member := content.Annotations[groupMemberAnnotation]
	return member
}

// Reconcile moves one group's content forward.
func (s *groupSnapshotter) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	content := &groupsnapshotv1.VolumeGroupSnapshotContent{}
	if err := s.client.Get(ctx, request.NamespacedName, content); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case content.Spec.Driver != Driver:
		return ctrl.Result{}, nil
	case content.DeletionTimestamp != nil:
		return ctrl.Result{}, ignoreStale(s.delete(ctx, content))
	case content.Status != nil && content.Status.VolumeGroupSnapshotHandle != nil:
		return ctrl.Result{}, nil // taken
	}
	if left := s.delays.remaining(string(content.UID), snapshotDelay); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	result, err := s.take(ctx, content)
	return result, ignoreStale(err)
}

// take makes the snapshots of all volumes and reports them. A group is all or
// nothing.
func (s *groupSnapshotter) take(ctx context.Context, content *groupsnapshotv1.VolumeGroupSnapshotContent) (ctrl.Result, error) {
	ready, err := s.classLetsReady(ctx, content)
	if err != nil {
		return ctrl.Result{}, err
	}
	now := time.Now()
	var taken []groupsnapshotv1.VolumeSnapshotInfo
	for i, volume := range content.Spec.Source.VolumeHandles {
		size, found, err := s.snapshots.volumeSize(ctx, volume)
		if err != nil {
			return ctrl.Result{}, err
		}
		if !found {
			return ctrl.Result{RequeueAfter: volumeLookupRetry}, s.reportFailure(ctx, content, snapshotNoVolumeMessage)
		}
		handle := fmt.Sprintf("snap-%s-%d", content.UID, i)
		stored, _ := s.snapshots.backend.snapshot(handle, size, now)
		taken = append(taken, groupsnapshotv1.VolumeSnapshotInfo{
			VolumeHandle: volume, SnapshotHandle: handle, CreationTime: new(stored.created.UnixNano()), ReadyToUse: &ready, RestoreSize: &stored.size,
		})
	}
	s.delays.forget(string(content.UID))
	return ctrl.Result{}, s.report(ctx, content, groupsnapshotv1.VolumeGroupSnapshotContentStatus{
		VolumeGroupSnapshotHandle: new("group-" + string(content.UID)),
		CreationTime:              new(metav1.NewTime(now)),
		ReadyToUse:                &ready,
		VolumeSnapshotInfoList:    taken,
	})
}

// classLetsReady is false for a class that simulates a storage system that
// never finishes.
func (s *groupSnapshotter) classLetsReady(ctx context.Context, content *groupsnapshotv1.VolumeGroupSnapshotContent) (bool, error) {
	if content.Spec.VolumeGroupSnapshotClassName == nil {
		return true, nil
	}
	class := &groupsnapshotv1.VolumeGroupSnapshotClass{}
	err := s.client.Get(ctx, types.NamespacedName{Name: *content.Spec.VolumeGroupSnapshotClassName}, class)
	if err != nil {
		return false, fmt.Errorf("read group snapshot class: %w", err)
	}
	return class.Parameters[NeverReadyParameter] != "true", nil
}

// reportFailure says once why there is no snapshot.
func (s *groupSnapshotter) reportFailure(ctx context.Context, content *groupsnapshotv1.VolumeGroupSnapshotContent, message string) error {
	if content.Status != nil && content.Status.Error != nil && content.Status.Error.Message != nil && *content.Status.Error.Message == message {
		return nil
	}
	return s.report(ctx, content, groupsnapshotv1.VolumeGroupSnapshotContentStatus{
		ReadyToUse: new(false),
		Error:      &snapshotv1.VolumeSnapshotError{Time: new(metav1.Now()), Message: &message},
	})
}

func (s *groupSnapshotter) report(ctx context.Context, content *groupsnapshotv1.VolumeGroupSnapshotContent, status groupsnapshotv1.VolumeGroupSnapshotContentStatus) error {
	updated := content.DeepCopy()
	updated.Status = &status
	patch := client.MergeFromWithOptions(content, client.MergeFromWithOptimisticLock{})
	if err := s.client.Status().Patch(ctx, updated, patch); err != nil {
		return fmt.Errorf("report group snapshot: %w", err)
	}
	return nil
}

// delete removes the snapshots if the policy says so and lets the object go,
// once the snapshot controller says that the group is being deleted.
func (s *groupSnapshotter) delete(ctx context.Context, content *groupsnapshotv1.VolumeGroupSnapshotContent) error {
	if _, announced := content.Annotations[groupBeingDeletedAnnotation]; !announced {
		return nil
	}
	s.delays.forget(string(content.UID))
	status := content.Status
	if content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete && status != nil && status.VolumeGroupSnapshotHandle != nil {
		for _, info := range status.VolumeSnapshotInfoList {
			s.snapshots.backend.remove(info.SnapshotHandle)
		}
		// As with single snapshots, a cleared status makes a repeat safe.
		return s.report(ctx, content, groupsnapshotv1.VolumeGroupSnapshotContentStatus{VolumeSnapshotInfoList: status.VolumeSnapshotInfoList})
	}
	updated := content.DeepCopy()
	if !controllerutil.RemoveFinalizer(updated, groupContentFinalizer) {
		return nil
	}
	return s.client.Patch(ctx, updated, client.MergeFromWithOptions(content, client.MergeFromWithOptimisticLock{}))
}
