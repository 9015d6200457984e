package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	dbClaim = "data-db-0"
	backup  = "nightly"
)

// backUp takes the snapshot from which the database comes back, and notes the second after it.
func (d *demo) backUp(ctx context.Context) error {
	for _, file := range []string{"backup.yaml", "plan-volumes.yaml"} {
		if err := d.kubectl(ctx, platformEngineer, "apply", "-f", manifests+file); err != nil {
			return err
		}
	}
	err := d.until(ctx, "the backup is ready", func(ctx context.Context) (string, error) {
		var s snapshotv1.VolumeSnapshot
		if err := d.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: backup}, &s); err != nil {
			return "", err
		}
		if s.Status == nil || s.Status.CreationTime == nil || !ptr.Deref(s.Status.ReadyToUse, false) {
			return "the snapshot is not ready", nil
		}
		d.backedUp = s.Status.CreationTime.Add(time.Second).Truncate(time.Second)
		if time.Now().Before(d.backedUp.Add(time.Second)) {
			return "the attack comes later", nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	d.volumeBefore, err = d.volume(ctx)
	return err
}

// volume is the volume of the database.
func (d *demo) volume(ctx context.Context) (*corev1.PersistentVolume, error) {
	var claim corev1.PersistentVolumeClaim
	if err := d.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: dbClaim}, &claim); err != nil {
		return nil, fmt.Errorf("read the claim of db: %w", err)
	}
	var volume corev1.PersistentVolume
	if err := d.admin.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &volume); err != nil {
		return nil, fmt.Errorf("read the volume of db: %w", err)
	}
	if claim.Status.Phase != corev1.ClaimBound || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		return nil, errors.New("the claim of db and its volume are not bound to one another")
	}
	return &volume, nil
}

// agree shows what was chosen, and has it approved.
func (d *demo) agree(ctx context.Context, inc *v1alpha1.Incident) error {
	for _, c := range inc.Status.Recovery.Choices {
		say("%s %s is restored from %s %s, %s.", c.Object.Kind, c.Object.Name, c.Source.Kind, c.Source.Name, c.Why)
	}
	say("This choice is part of what is approved: planDigest %s.", clip(inc.Status.Recovery.PlanDigest, 24))
	return d.kubectl(ctx, approver, approve(approver, agreeStep, inc.Status.Recovery.PlanDigest, "/spec/approvals")...)
}

// compareVolumes prints the volume of the database before and after.
func (d *demo) compareVolumes(ctx context.Context, inc *v1alpha1.Incident) {
	now, err := d.volume(ctx)
	if err != nil {
		d.check("the database has a volume", err)
		return
	}
	var old corev1.PersistentVolume
	err = d.admin.Get(ctx, client.ObjectKeyFromObject(d.volumeBefore), &old)
	blank()
	say("The volume of %s before and after:", dbClaim)
	fmt.Printf("    %-6s  %s  now %s, reclaim policy %s\n", "before", d.volumeBefore.Name, old.Status.Phase, old.Spec.PersistentVolumeReclaimPolicy)
	fmt.Printf("    %-6s  %s  made from snapshot %s\n", "after", now.Name, backup)
	blank()
	switch {
	case err != nil:
	case old.UID != d.volumeBefore.UID || old.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || old.Labels[v1alpha1.IncidentUIDLabel] != d.uid:
		err = fmt.Errorf("it has the reclaim policy %s", old.Spec.PersistentVolumeReclaimPolicy)
	}
	d.check("the volume that the attacker could write to is kept as evidence", err)
	d.check("the database has a volume that was made from the backup of before the incident", d.madeFromBackup(ctx, now))
	d.check("the volume was looked at before it was put in place, and the two waves were released one after the other", inOrder(inc))
}

// madeFromBackup says what is wrong with the origin of the volume. The simulated driver tells it in an attribute; of other drivers only the operator's claim, which has gone, said so.
func (d *demo) madeFromBackup(ctx context.Context, now *corev1.PersistentVolume) error {
	if now.UID == d.volumeBefore.UID {
		return errors.New("it has the volume that it had")
	}
	if d.existing {
		return nil
	}
	var s snapshotv1.VolumeSnapshot
	if err := d.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: backup}, &s); err != nil {
		return err
	}
	var content snapshotv1.VolumeSnapshotContent
	if err := d.admin.Get(ctx, client.ObjectKey{Name: *s.Status.BoundVolumeSnapshotContentName}, &content); err != nil {
		return err
	}
	if from := now.Spec.CSI.VolumeAttributes["sim.cofferdam.dev/restored-from"]; from != *content.Status.SnapshotHandle {
		return fmt.Errorf("it was made from %q", from)
	}
	return nil
}

// inOrder says which step came too early.
func inOrder(inc *v1alpha1.Incident) error {
	var problems []error
	after := func(later, earlier string) {
		if step(inc, earlier).FinishedAt.Time.IsZero() || step(inc, later).StartedAt.Time.Before(step(inc, earlier).FinishedAt.Time) {
			problems = append(problems, fmt.Errorf("%s has begun before %s had ended", later, earlier))
		}
	}
	looked := slices.ContainsFunc(step(inc, "restore-db").Records, func(r v1alpha1.StepRecord) bool { return r.Object.Kind == "Job" && r.Data != "" })
	if !looked {
		problems = append(problems, errors.New("no check of the volume has passed"))
	}
	after("stop-db", agreeStep)
	after("start-db", "restore-db")
	after("roll-back-web", "start-db")
	after("release-db", approveStep)
	after("release-web", "release-db")
	return errors.Join(problems...)
}
