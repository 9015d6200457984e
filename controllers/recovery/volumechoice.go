package recovery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshots,verbs=list
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshotcontents,verbs=get

// candidate is a snapshot that a claim might be restored from.
type candidate struct {
	snapshot *snapshotv1.VolumeSnapshot
	// taken is when the storage took it.
	taken time.Time
	group string
}

// Choose decides from which snapshot each claim is restored: none of them is younger than what is suspected.
func (restoreVolumes) Choose(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) ([]v1alpha1.StepChoice, string, error) {
	since := x.Incident.Spec.SuspectedSince
	if since.IsZero() {
		return nil, "spec.suspectedSince of the Incident is not set: without it no snapshot is known to be older than the incident; set it to the earliest time at which the targets may have been compromised", nil
	}
	margin := time.Duration(ptr.Deref(step.RestoreVolumes.MarginSeconds, 0)) * time.Second
	s := selection{x: x, before: since.Add(-margin), of: map[string][]candidate{}}
	if why, err := s.read(ctx, step.RestoreVolumes.Claims); err != nil || why != "" {
		return nil, why, err
	}
	if step.RestoreVolumes.Snapshots == v1alpha1.SnapshotOneGroup {
		if why := s.keepOneGroup(); why != "" {
			return nil, why, nil
		}
	}
	if changesClaim(step) {
		if why, err := s.readConsumers(ctx); err != nil || why != "" {
			return nil, why, err
		}
	}
	choices := make([]v1alpha1.StepChoice, 0, len(s.claims))
	for _, claim := range s.claims {
		c := newest(s.of[claim.Name])
		choices = append(choices, v1alpha1.StepChoice{
			Step: step.Name, Object: claimRef(claim), Consumers: s.consumers[claim.Name],
			Source: v1alpha1.ObjectRef{Kind: snapshotKind, Namespace: c.snapshot.Namespace, Name: c.snapshot.Name, UID: string(c.snapshot.UID)},
			Why:    fmt.Sprintf("taken at %s, %s before the incident is suspected to have begun", c.taken.UTC().Format(time.RFC3339), since.Sub(c.taken).Truncate(time.Second)),
		})
	}
	return choices, "", nil
}

const (
	snapshotKind = "VolumeSnapshot"
	claimKind    = "PersistentVolumeClaim"
	volumeKind   = "PersistentVolume"
)

func claimRef(claim *corev1.PersistentVolumeClaim) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: claimKind, Namespace: claim.Namespace, Name: claim.Name, UID: string(claim.UID)}
}

// selection looks for snapshots that are older than a time.
type selection struct {
	x      *Execution
	before time.Time
	claims []*corev1.PersistentVolumeClaim
	// of are the snapshots of a claim that are old enough.
	of map[string][]candidate
	// consumers are the Deployments that use a claim; only read where the step changes claims.
	consumers map[string][]v1alpha1.ObjectRef
}

// maxConsumers is how many Deployments of one claim are recorded.
const maxConsumers = 16

// readConsumers finds the Deployments that use the claims. It says why those cannot be made to name others.
func (s *selection) readConsumers(ctx context.Context) (why string, err error) {
	all, err := readWorkloads(ctx, s.x)
	if err != nil {
		return "", err
	}
	s.consumers = map[string][]v1alpha1.ObjectRef{}
	for _, claim := range s.claims {
		found, why := all.consumers(claim.Name, s.x.All)
		switch {
		case why != "":
			return why, nil
		case len(found) == 0:
			return fmt.Sprintf("no Deployment uses %s %s: there is none to be made to name another claim; use cutOver InPlace", claimKind, claim.Name), nil
		case len(found) > maxConsumers:
			return fmt.Sprintf("%d Deployments use %s %s, and no more than %d can be made to name another claim; use cutOver InPlace", len(found), claimKind, claim.Name, maxConsumers), nil
		}
		s.consumers[claim.Name] = found
	}
	return "", nil
}

// read finds the claims and their snapshots. It says which claim has none, and why those that it has do not do.
func (s *selection) read(ctx context.Context, names []string) (why string, err error) {
	var all snapshotv1.VolumeSnapshotList
	err = s.x.Reader.List(ctx, &all, client.InNamespace(s.x.Incident.Namespace))
	if apimeta.IsNoMatchError(err) {
		return "the cluster does not serve snapshot.storage.k8s.io/v1: no volume can be restored from a snapshot", nil
	}
	if err != nil {
		return "", fmt.Errorf("listing the VolumeSnapshots in namespace %s: %w", s.x.Incident.Namespace, err)
	}
	for _, name := range names {
		claim, volume, why, err := s.bound(ctx, name)
		if err != nil || why != "" {
			return why, err
		}
		s.claims = append(s.claims, claim)
		var refused []string
		for i := range all.Items {
			c, why, err := s.judge(ctx, &all.Items[i], name, volume)
			switch {
			case err != nil:
				return "", err
			case why != "":
				refused = append(refused, all.Items[i].Name+" "+why)
			case c != nil:
				s.of[name] = append(s.of[name], *c)
			}
		}
		if len(s.of[name]) == 0 {
			return fmt.Sprintf("no snapshot of %s %s can be used: %s", claimKind, name, cmp.Or(strings.Join(refused, "; "), "there is none")), nil
		}
	}
	return "", nil
}

// bound reads a claim and its volume.
func (s *selection) bound(ctx context.Context, name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume, string, error) {
	claim, err := readClaim(ctx, s.x, name)
	switch {
	case err != nil:
		return nil, nil, "", err
	case claim == nil:
		return nil, nil, fmt.Sprintf("%s %s/%s does not exist: create it, or correct the plan", claimKind, s.x.Incident.Namespace, name), nil
	case claim.Status.Phase != corev1.ClaimBound:
		return nil, nil, fmt.Sprintf("%s %s/%s is not bound to a volume", claimKind, claim.Namespace, name), nil
	}
	volume, err := readVolume(ctx, s.x, claim.Spec.VolumeName)
	if err != nil || volume == nil || volume.Spec.CSI == nil {
		return nil, nil, fmt.Sprintf("the volume of %s %s/%s is not one of a CSI driver: it cannot be restored from a snapshot", claimKind, claim.Namespace, name), err
	}
	return claim, volume, "", nil
}

// judge says whether a snapshot of the claim can be used; it is neither a candidate nor refused when it is of another claim.
func (s *selection) judge(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot, claim string, volume *corev1.PersistentVolume) (*candidate, string, error) {
	status := snapshot.Status
	switch {
	case ptr.Deref(snapshot.Spec.Source.PersistentVolumeClaimName, "") != claim:
		return nil, "", nil
	case !snapshot.DeletionTimestamp.IsZero():
		return nil, "is being deleted", nil
	case status == nil || !ptr.Deref(status.ReadyToUse, false) || status.CreationTime == nil || status.BoundVolumeSnapshotContentName == nil:
		return nil, "is not ready", nil
	}
	var content snapshotv1.VolumeSnapshotContent
	err := s.x.Reader.Get(ctx, client.ObjectKey{Name: *status.BoundVolumeSnapshotContentName}, &content)
	switch {
	case apierrors.IsNotFound(err):
		return nil, "has lost its VolumeSnapshotContent", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading VolumeSnapshotContent %s: %w", *status.BoundVolumeSnapshotContentName, err)
	// Whoever may write a snapshot may point it to the content of another.
	case content.Spec.VolumeSnapshotRef.UID != snapshot.UID:
		return nil, fmt.Sprintf("is not what VolumeSnapshotContent %s belongs to", content.Name), nil
	case content.Spec.Driver != volume.Spec.CSI.Driver:
		return nil, fmt.Sprintf("is of the driver %s, and the volume of %s", content.Spec.Driver, volume.Spec.CSI.Driver), nil
	}
	was, is := ptr.Deref(content.Spec.SourceVolumeMode, ""), ptr.Deref(volume.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	if was != "" && was != is {
		return nil, fmt.Sprintf("is of a volume of mode %s, and the claim of mode %s", was, is), nil
	}
	taken := takenAt(snapshot, &content)
	if !taken.Before(s.before) {
		return nil, fmt.Sprintf("was taken at %s, and only what was taken before %s is known to be older than the incident",
			taken.UTC().Format(time.RFC3339), s.before.UTC().Format(time.RFC3339)), nil
	}
	return &candidate{snapshot: snapshot, taken: taken, group: ptr.Deref(status.VolumeGroupSnapshotName, "")}, "", nil
}

// takenAt is when the storage took the snapshot: what the content says, to which people of a namespace have no access, unless the snapshot itself says that it was later.
func takenAt(snapshot *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) time.Time {
	taken := snapshot.Status.CreationTime.Time
	if content.Status != nil && content.Status.CreationTime != nil {
		if t := time.Unix(0, *content.Status.CreationTime); t.After(taken) {
			return t
		}
	}
	return taken
}

// newest is the youngest of the candidates; of two of the same second the one whose name comes first.
func newest(candidates []candidate) candidate {
	return slices.MinFunc(candidates, func(a, b candidate) int {
		return cmp.Or(b.taken.Compare(a.taken), strings.Compare(a.snapshot.Name, b.snapshot.Name))
	})
}

// keepOneGroup leaves of every claim the member of one group: the one whose oldest member is the youngest. It says why there is no such group, or "".
func (s *selection) keepOneGroup() string {
	oldest := map[string]time.Time{}
	members := map[string]map[string]int{}
	for _, claim := range s.claims {
		for _, c := range s.of[claim.Name] {
			if c.group == "" {
				continue
			}
			if members[c.group] == nil {
				members[c.group] = map[string]int{}
			}
			members[c.group][claim.Name]++
			if t, known := oldest[c.group]; !known || c.taken.Before(t) {
				oldest[c.group] = c.taken
			}
		}
	}
	best := ""
	for group, of := range members {
		better := best == "" || oldest[group].After(oldest[best]) || oldest[group].Equal(oldest[best]) && group < best
		if s.whole(of) && better {
			best = group
		}
	}
	if best == "" {
		return "no VolumeGroupSnapshot that is old enough has one ready member of every claim: list fewer claims, or set snapshots to Newest"
	}
	for name := range s.of {
		s.of[name] = slices.DeleteFunc(s.of[name], func(c candidate) bool { return c.group != best })
	}
	return ""
}

// whole reports whether a group has exactly one member of every claim. Groups are told apart by their names: where there are two of a claim, one is of an earlier group of that name.
func (s *selection) whole(members map[string]int) bool {
	return !slices.ContainsFunc(s.claims, func(claim *corev1.PersistentVolumeClaim) bool { return members[claim.Name] != 1 })
}
