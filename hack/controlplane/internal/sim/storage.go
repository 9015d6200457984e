package sim

import (
	"context"
	"fmt"
	"sync"
	"time"

	groupsnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Driver is the name of the simulated CSI driver.
	Driver = "csi.sim.cofferdam.dev"
	// ClassName is the name of its storage class and of its snapshot classes.
	ClassName = "sim"
	// RestoredFromAttribute is the volume attribute that names the snapshot or
	// volume that a volume was made from.
	RestoredFromAttribute = "sim.cofferdam.dev/restored-from"
	// NeverReadyParameter of a snapshot class, set to "true", leaves its
	// snapshots unready for ever.
	NeverReadyParameter = "neverReady"
)

// createClasses registers the driver and makes it the default for volumes and
// snapshots.
func (s *Simulator) createClasses(ctx context.Context) error {
	// Not the manager's client: its cache is not running yet, and is not needed.
	direct, err := client.New(s.Config, client.Options{Scheme: s.manager.GetScheme(), Mapper: s.manager.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("create client: %w", err)
	}
	objects := []client.Object{
		&storagev1.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: Driver},
			Spec: storagev1.CSIDriverSpec{
				// Nothing has to be attached to a node that does not exist.
				AttachRequired: new(false),
				FSGroupPolicy:  new(storagev1.FileFSGroupPolicy),
			},
		},
		&storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{
				Name:        ClassName,
				Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
			},
			Provisioner:       Driver,
			ReclaimPolicy:     new(corev1.PersistentVolumeReclaimDelete),
			VolumeBindingMode: new(storagev1.VolumeBindingImmediate),
		},
	}
	if s.Snapshots {
		objects = append(objects, &snapshotv1.VolumeSnapshotClass{
			ObjectMeta: metav1.ObjectMeta{
				Name:        ClassName,
				Annotations: map[string]string{"snapshot.storage.kubernetes.io/is-default-class": "true"},
			},
			Driver:         Driver,
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
		}, &groupsnapshotv1.VolumeGroupSnapshotClass{
			ObjectMeta: metav1.ObjectMeta{
				Name:        ClassName,
				Annotations: map[string]string{"groupsnapshot.storage.kubernetes.io/is-default-class": "true"},
			},
			Driver:         Driver,
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
		})
	}
	for _, object := range objects {
		if err := direct.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}

// backend is the storage system behind the driver: it knows which snapshots
// were taken and which of them are gone.
type backend struct {
	mu        sync.Mutex
	snapshots map[string]*storedSnapshot
}

type storedSnapshot struct {
	created time.Time
	size    int64
	deleted bool
}

func newBackend() *backend {
	return &backend{snapshots: map[string]*storedSnapshot{}}
}

// snapshot takes a snapshot, or returns the one already taken under that
// handle. ok is false when it was deleted.
func (b *backend) snapshot(handle string, size int64, now time.Time) (taken storedSnapshot, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stored, found := b.snapshots[handle]
	if !found {
		stored = &storedSnapshot{created: now, size: size}
		b.snapshots[handle] = stored
	}
	return *stored, !stored.deleted
}

// exists reports whether a volume can be made from the snapshot.
func (b *backend) exists(handle string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	stored, found := b.snapshots[handle]
	return found && !stored.deleted
}

func (b *backend) remove(handle string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if stored, found := b.snapshots[handle]; found {
		stored.deleted = true
	}
}

// ignoreStale drops errors that mean that the object changed or went away: a
// watch event is on its way and brings the reconciler back.
func ignoreStale(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
