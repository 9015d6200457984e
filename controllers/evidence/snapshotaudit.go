package evidence

import (
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// SnapshotLost says why the snapshot of a collected item cannot be had any more, or "" while it can. The error says that it could not be found out. It looks at the content, which is the evidence: the
// VolumeSnapshot may have gone with its namespace.
func SnapshotLost(ctx context.Context, r client.Reader, item *v1alpha1.EvidenceItem) (string, error) {
	_, name := located(*item)
	if name == "" {
		return fmt.Sprintf("its location %q names no VolumeSnapshotContent", item.Location), nil
	}
	var content snapshotv1.VolumeSnapshotContent
	err := r.Get(ctx, client.ObjectKey{Name: name}, &content)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("VolumeSnapshotContent %s does not exist any more; ask the storage for snapshot %s of volume %s", name, item.SnapshotHandle, item.Volume), nil
	case err != nil:
		return "", fmt.Errorf("reading VolumeSnapshotContent %s: %w", name, err)
	}
	handle := ""
	if content.Status != nil && content.Status.SnapshotHandle != nil {
		handle = *content.Status.SnapshotHandle
	}
	if item.SnapshotHandle != "" && handle != item.SnapshotHandle {
		// The snapshot controller creates a content of the same name again while the VolumeSnapshot exists: what is behind it then was taken after the fact.
		return fmt.Sprintf("VolumeSnapshotContent %s was removed and created again, and is now of snapshot %q; ask the storage for snapshot %s", name, handle, item.SnapshotHandle), nil
	}
	return "", nil
}
