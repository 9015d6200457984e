package main

import (
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// cleanUp removes everything from an existing cluster, whatever state the demo has left it in. The operator is stopped by now, so that the guards
// go first: nobody else could let go of what is still held.
func (d *demo) cleanUp(ctx context.Context) error {
	steps := [][]string{
		{"delete", "--ignore-not-found", "-k", "config/guard"},
		{"delete", "--ignore-not-found", "-k", "config/guard/stamp"},
	}
	for _, args := range steps {
		if err := d.quietly(ctx, args...); err != nil {
			return err
		}
	}
	if err := d.until(ctx, "nothing is held any more", func(ctx context.Context) (string, error) { return "", d.letGo(ctx) }); err != nil {
		return err
	}
	steps = [][]string{
		{"delete", "--ignore-not-found", "-f", manifests + "people.yaml"},
		{"delete", "--ignore-not-found", "-k", "config/external"},
	}
	for _, args := range steps {
		if err := d.quietly(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) quietly(ctx context.Context, args ...string) error {
	_, err := d.server.KubectlContext(ctx, args...)
	return err
}

// letGo takes the finalizer off the Incident, and lets the contents of the demo's snapshots go with the snapshots.
func (d *demo) letGo(ctx context.Context) error {
	var incidents v1alpha1.IncidentList
	if err := d.admin.List(ctx, &incidents, client.InNamespace(namespace)); err != nil && !apimeta.IsNoMatchError(err) {
		return fmt.Errorf("list Incidents: %w", err)
	}
	for i := range incidents.Items {
		inc := &incidents.Items[i]
		changed := inc.DeepCopy()
		changed.Finalizers = nil
		if err := d.admin.Patch(ctx, changed, client.MergeFrom(inc)); err != nil {
			return fmt.Errorf("let go of Incident %s: %w", inc.Name, err)
		}
	}
	var contents snapshotv1.VolumeSnapshotContentList
	if err := d.admin.List(ctx, &contents); err != nil && !apimeta.IsNoMatchError(err) {
		return fmt.Errorf("list VolumeSnapshotContents: %w", err)
	}
	for i := range contents.Items {
		content := &contents.Items[i]
		if content.Spec.VolumeSnapshotRef.Namespace != namespace {
			continue
		}
		changed := content.DeepCopy()
		changed.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete
		if err := d.admin.Patch(ctx, changed, client.MergeFrom(content)); err != nil {
			return fmt.Errorf("let go of VolumeSnapshotContent %s: %w", content.Name, err)
		}
	}
	return d.letVolumesGo(ctx)
}

// letVolumesGo lets the volumes of the demo, of which one is kept as evidence, go with their claims.
func (d *demo) letVolumesGo(ctx context.Context) error {
	var volumes corev1.PersistentVolumeList
	if err := d.admin.List(ctx, &volumes); err != nil {
		return fmt.Errorf("list PersistentVolumes: %w", err)
	}
	for i := range volumes.Items {
		volume := &volumes.Items[i]
		if volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.Namespace != namespace {
			continue
		}
		changed := volume.DeepCopy()
		changed.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		if err := d.admin.Patch(ctx, changed, client.MergeFrom(volume)); err != nil {
			return fmt.Errorf("let go of PersistentVolume %s: %w", volume.Name, err)
		}
	}
	return nil
}
