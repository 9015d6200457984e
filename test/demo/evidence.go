package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// inspectEvidence shows what is kept, and looks whether it is there.
func (d *demo) inspectEvidence(ctx context.Context) error {
	inc, err := d.await(ctx, "the evidence is settled", func(inc *v1alpha1.Incident) string {
		if d.snapshots {
			return is(v1alpha1.ConditionEvidenceCollected)(inc)
		}
		return hasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps)(inc)
	})
	if err != nil {
		return err
	}
	showEvidence(inc)
	blank()
	d.check("every pod's record is stored; each digest, computed anew, is the one in status; each record names its pod and the labels it had",
		d.recordsHold(inc))
	if d.snapshots {
		d.check("the snapshot of the database's volume is ready, bound in both directions, and its content is set to Retain", d.snapshotHolds(ctx, inc))
	} else {
		d.check("the volume that cannot be snapshotted is a declared gap, with the reason", gapDeclared(inc))
	}
	d.check("blog was not touched: the same pods with the same labels, annotations and owners", d.untouched(ctx, blog))
	return nil
}

// recordsHold says which record is missing, or is not what status says.
func (d *demo) recordsHold(inc *v1alpha1.Incident) error {
	var problems []error
	for _, p := range inc.Status.Pods {
		i := slices.IndexFunc(inc.Status.Evidence, func(e v1alpha1.EvidenceItem) bool {
			return e.Type == v1alpha1.EvidenceManifests && e.Subject.UID == p.UID && e.State == v1alpha1.EvidenceCollected
		})
		if i < 0 {
			problems = append(problems, fmt.Errorf("there is no record of pod %s", p.Name))
			continue
		}
		problems = append(problems, d.recordHolds(inc.Status.Evidence[i], p))
	}
	return errors.Join(problems...)
}

func (d *demo) recordHolds(item v1alpha1.EvidenceItem, p v1alpha1.PodStatus) error {
	raw, err := os.ReadFile(filepath.Join(d.storeDir(), filepath.FromSlash(item.Location)))
	if err != nil {
		return fmt.Errorf("read the record of pod %s: %w", p.Name, err)
	}
	sum := sha256.Sum256(raw)
	if digest := "sha256:" + hex.EncodeToString(sum[:]); digest != item.Digest {
		return fmt.Errorf("the record of pod %s has digest %s, status says %s", p.Name, digest, item.Digest)
	}
	var record struct {
		Pod corev1.Pod `json:"pod"`
	}
	if err := json.Unmarshal(raw, &record); err != nil {
		return fmt.Errorf("the record of pod %s: %w", p.Name, err)
	}
	if pod := record.Pod; string(pod.UID) != p.UID || pod.Labels[appLabel] != p.Owner.Name {
		return fmt.Errorf("the record of pod %s is of pod %s with labels %v", p.Name, pod.Name, pod.Labels)
	}
	return nil
}

func volumeItem(inc *v1alpha1.Incident) v1alpha1.EvidenceItem {
	for _, e := range inc.Status.Evidence {
		if e.Type == v1alpha1.EvidenceVolumeSnapshot && e.Subject.Name == "data-db-0" {
			return e
		}
	}
	return v1alpha1.EvidenceItem{}
}

// snapshotHolds looks at the snapshot and its content.
func (d *demo) snapshotHolds(ctx context.Context, inc *v1alpha1.Incident) error {
	item := volumeItem(inc)
	if item.State != v1alpha1.EvidenceCollected {
		return fmt.Errorf("the snapshot is %q: %s", item.State, item.Message)
	}
	where, contentName, _ := strings.Cut(item.Location, ", VolumeSnapshotContent ")
	var snapshot snapshotv1.VolumeSnapshot
	key := client.ObjectKey{Namespace: namespace, Name: strings.TrimPrefix(where, "VolumeSnapshot "+namespace+"/")}
	if err := d.admin.Get(ctx, key, &snapshot); err != nil {
		return fmt.Errorf("read the snapshot: %w", err)
	}
	var content snapshotv1.VolumeSnapshotContent
	if err := d.admin.Get(ctx, client.ObjectKey{Name: contentName}, &content); err != nil {
		return fmt.Errorf("read its content: %w", err)
	}
	var problems []error
	if content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain {
		problems = append(problems, fmt.Errorf("its deletionPolicy is %s", content.Spec.DeletionPolicy))
	}
	if content.Spec.VolumeSnapshotRef.UID != snapshot.UID {
		problems = append(problems, errors.New("the content does not point back to the snapshot"))
	}
	if s := snapshot.Status; s == nil || s.BoundVolumeSnapshotContentName == nil || *s.BoundVolumeSnapshotContentName != content.Name {
		problems = append(problems, errors.New("the snapshot is not bound to the content"))
	} else if s.ReadyToUse == nil || !*s.ReadyToUse {
		problems = append(problems, errors.New("it is not ready to use"))
	}
	return errors.Join(problems...)
}

func gapDeclared(inc *v1alpha1.Incident) error {
	if item := volumeItem(inc); item.State != v1alpha1.EvidenceGap || item.Message == "" {
		return fmt.Errorf("the item is %q: %q", item.State, item.Message)
	}
	return nil
}

func clock(at metav1.Time) string { return at.UTC().Format(time.TimeOnly) + " UTC" }

// tryToUndo tries the ways out of a quarantine that are open to whoever administers a namespace.
func (d *demo) tryToUndo(ctx context.Context) error {
	inc, err := d.read(ctx)
	if err != nil {
		return err
	}
	err = d.refused(ctx, tenant, "still holds a quarantine", "delete", "incident", incidentName)
	d.check("deleting the Incident is refused, with the way to close it", err)
	err = d.refused(ctx, tenant, "the Cofferdam operator alone", "delete", "networkpolicy", "cofferdam-quarantine-"+d.uid)
	d.check("deleting the deny policy is refused", err)
	err = d.refused(ctx, tenant, "the Cofferdam operator alone", "label", "pod", d.evidencePods[0].Name, v1alpha1.QuarantineLabelPrefix+d.uid+"-")
	d.check("taking the quarantine label off a pod is refused", err)
	err = d.refused(ctx, tenant, "cofferdam-quarantine-keep", "delete", "pod", d.evidencePods[0].Name)
	d.check("deleting a quarantined pod is refused", err)
	err = d.refused(ctx, tenant, "cofferdam-quarantine-access", "exec", d.evidencePods[0].Name, "--", "sh")
	d.check("entering a quarantined pod is refused", err)
	err = d.refused(ctx, tenant, "cofferdam-quarantine-exposure", "create", "-f", manifests+"reopen.yaml")
	d.check("creating a policy that selects quarantined pods and allows something is refused", err)
	d.check("all of it is still in place", errors.Join(d.detached(ctx), d.closedOff(ctx, inc)))
	return nil
}
