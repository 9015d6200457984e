package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshots,verbs=get;create
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshotcontents,verbs=get;patch
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshotclasses,verbs=list
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims;persistentvolumes,verbs=get

const (
	// defaultClassAnnotation marks the default VolumeSnapshotClass of a driver (external-snapshotter).
	defaultClassAnnotation = "snapshot.storage.kubernetes.io/is-default-class"
)

// Claims returns the PersistentVolumeClaims that the pods use, as namespace/name, with the UIDs of the pods. Claims of generic ephemeral volumes
// are named after the pod and the volume (KEP-1698).
func Claims(pods []*corev1.Pod) map[client.ObjectKey][]string {
	out := map[client.ObjectKey][]string{}
	for _, p := range pods {
		for _, v := range p.Spec.Volumes {
			var name string
			switch {
			case v.PersistentVolumeClaim != nil:
				name = v.PersistentVolumeClaim.ClaimName
			case v.Ephemeral != nil:
				name = p.Name + "-" + v.Name
			default:
				continue
			}
			key := client.ObjectKey{Namespace: p.Namespace, Name: name}
			if !slices.Contains(out[key], string(p.UID)) {
				out[key] = append(out[key], string(p.UID))
			}
		}
	}
	for _, uids := range out {
		slices.Sort(uids)
	}
	return out
}

// SnapshotID is the ID of the snapshot item of a claim.
func SnapshotID(claim client.ObjectKey) string {
	return "snapshot-" + shortHash(claim.String())
}

// Step is what has to be written next for a snapshot, or what was found written; at most one field is set.
type Step struct {
	// Create is a VolumeSnapshot to create.
	Create *snapshotv1.VolumeSnapshot
	// Retain is a content whose deletionPolicy has to become Retain.
	Retain *snapshotv1.VolumeSnapshotContent
	// Retained is a content whose deletionPolicy was observed to be Retain.
	Retained *snapshotv1.VolumeSnapshotContent
}

// Snapshots observes the snapshots of one Incident and says what has to be written next.
type Snapshots struct {
	Reader   client.Reader
	Incident *v1alpha1.Incident
	Orders   v1alpha1.EvidenceOrders
	Now      time.Time
}

// Begin returns the item of a claim that was not seen before.
func (s *Snapshots) Begin(claim client.ObjectKey, pods []string) v1alpha1.EvidenceItem {
	item := v1alpha1.EvidenceItem{
		ID: SnapshotID(claim), Type: v1alpha1.EvidenceVolumeSnapshot, Pods: pods, State: v1alpha1.EvidencePending,
		Subject:  v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name},
		Deadline: metav1.NewTime(s.Now.Add(time.Duration(s.Orders.SnapshotDeadlineSeconds) * time.Second)),
	}
	if s.Orders.VolumeSnapshots == v1alpha1.SnapshotSkip {
		return gap(item, "the ContainmentPolicy skips volume snapshots")
	}
	return item
}

// Observe looks at the snapshot of an item and returns the item as it is now, with what has to be written next. An item that is settled stays as
// it is. When the API server cannot be read the item stays pending, with the error: not knowing is not a gap until the deadline.
func (s *Snapshots) Observe(ctx context.Context, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, Step, error) {
	if item.State != v1alpha1.EvidencePending {
		return item, Step{}, nil
	}
	observed, step, err := s.look(ctx, item)
	if err != nil && s.Now.After(item.Deadline.Time) {
		return gap(observed, "not done before the deadline: "+err.Error()), Step{}, nil
	}
	return observed, step, err
}

func (s *Snapshots) look(ctx context.Context, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, Step, error) {
	var snap snapshotv1.VolumeSnapshot
	key := client.ObjectKey{Namespace: item.Subject.Namespace, Name: s.snapshotName(item)}
	err := s.Reader.Get(ctx, key, &snap)
	switch {
	case apimeta.IsNoMatchError(err):
		return gap(item, "the API snapshot.storage.k8s.io is not installed on this cluster: no volume can be snapshotted"), Step{}, nil
	case apierrors.IsNotFound(err):
		return s.prepare(ctx, item, key)
	case err != nil:
		return item, Step{}, fmt.Errorf("reading VolumeSnapshot %s: %w", key, err)
	}
	return s.follow(ctx, item, &snap)
}

func (s *Snapshots) snapshotName(item v1alpha1.EvidenceItem) string {
	return fmt.Sprintf("cofferdam-%s-%s", s.Incident.UID, strings.TrimPrefix(item.ID, "snapshot-"))
}

// prepare finds out whether the claim can be snapshotted, and how.
func (s *Snapshots) prepare(ctx context.Context, item v1alpha1.EvidenceItem, key client.ObjectKey) (v1alpha1.EvidenceItem, Step, error) {
	item, driver, err := s.identify(ctx, item)
	if err != nil || item.State != v1alpha1.EvidencePending || driver == "" {
		return item, Step{}, err
	}
	class, why, err := s.class(ctx, driver)
	if err != nil {
		return item, Step{}, err
	}
	if class == "" {
		return gap(item, why), Step{}, nil
	}
	if s.Now.After(item.Deadline.Time) {
		return gap(item, "no snapshot could be created before the deadline"), Step{}, nil
	}
	item.Message = "waits for the VolumeSnapshot to be created"
	return item, Step{Create: s.build(key, item.Subject.Name, class)}, nil
}

// identify finds the volume behind the claim. It returns the CSI driver, or "" while the claim has no volume yet; the item is a gap when there is nothing that
// could be snapshotted.
func (s *Snapshots) identify(ctx context.Context, item v1alpha1.EvidenceItem) (_ v1alpha1.EvidenceItem, driver string, _ error) {
	var claim corev1.PersistentVolumeClaim
	err := s.Reader.Get(ctx, client.ObjectKey{Namespace: item.Subject.Namespace, Name: item.Subject.Name}, &claim)
	switch {
	case apierrors.IsNotFound(err):
		return gap(item, "the claim does not exist any more"), "", nil
	case err != nil:
		return item, "", fmt.Errorf("reading PersistentVolumeClaim %s/%s: %w", item.Subject.Namespace, item.Subject.Name, err)
	case item.Subject.UID != "" && item.Subject.UID != string(claim.UID):
		return gap(item, "the claim was replaced by a namesake"), "", nil
	case !claim.DeletionTimestamp.IsZero():
		return gap(item, "the claim is being deleted, and the snapshot controller refuses such claims"), "", nil
	}
	item.Subject.UID = string(claim.UID)
	if claim.Spec.VolumeName == "" {
		item, _, err := s.wait(item, "waits for the claim to be bound to a volume")
		return item, "", err
	}
	var pv corev1.PersistentVolume
	err = s.Reader.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, &pv)
	if apierrors.IsNotFound(err) {
		return gap(item, fmt.Sprintf("PersistentVolume %s does not exist any more: the claim has lost its volume", claim.Spec.VolumeName)), "", nil
	}
	if err != nil {
		return item, "", fmt.Errorf("reading PersistentVolume %s: %w", claim.Spec.VolumeName, err)
	}
	if pv.Spec.CSI == nil {
		return gap(item, fmt.Sprintf("PersistentVolume %s is not a CSI volume and cannot be snapshotted", pv.Name)), "", nil
	}
	item.Volume = pv.Spec.CSI.VolumeHandle
	return item, pv.Spec.CSI.Driver, nil
}

func (s *Snapshots) build(key client.ObjectKey, claim, class string) *snapshotv1.VolumeSnapshot {
	return &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, Labels: measure.OwnedLabels(s.Incident), Annotations: measure.OwnedAnnotations(s.Incident),
		},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new(claim)},
			VolumeSnapshotClassName: new(class),
		},
	}
}

// class chooses the VolumeSnapshotClass for a driver: the policy's, the driver's default, or its only one. It returns "" and why when there is none.
func (s *Snapshots) class(ctx context.Context, driver string) (name, why string, err error) {
	var list snapshotv1.VolumeSnapshotClassList
	if err := s.Reader.List(ctx, &list); err != nil {
		// A server that has just lost the CRDs answers 404 until discovery notices.
		if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return "", "the API snapshot.storage.k8s.io is not installed on this cluster: no volume can be snapshotted", nil
		}
		return "", "", fmt.Errorf("listing VolumeSnapshotClasses: %w", err)
	}
	var all, defaults []string
	for _, c := range list.Items {
		if c.Driver != driver {
			continue
		}
		if c.Name == s.Orders.VolumeSnapshotClassName {
			return c.Name, "", nil
		}
		all = append(all, c.Name)
		if c.Annotations[defaultClassAnnotation] == "true" {
			defaults = append(defaults, c.Name)
		}
	}
	switch {
	case len(defaults) == 1:
		return defaults[0], "", nil
	case len(all) == 1:
		return all[0], "", nil
	case len(all) == 0:
		return "", fmt.Sprintf("there is no VolumeSnapshotClass for driver %s; create one", driver), nil
	}
	return "", fmt.Sprintf("driver %s has several VolumeSnapshotClasses and not exactly one default; name one in the ContainmentPolicy (evidence.volumeSnapshotClassName)", driver), nil
}

// follow observes a VolumeSnapshot that exists: binding in both directions, Retain, readiness.
func (s *Snapshots) follow(ctx context.Context, item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot) (v1alpha1.EvidenceItem, Step, error) {
	if snap.Labels[v1alpha1.IncidentUIDLabel] != string(s.Incident.UID) || !ofClaim(snap, item.Subject.Name) {
		return gap(item, fmt.Sprintf("VolumeSnapshot %s/%s is not ours", snap.Namespace, snap.Name)), Step{}, nil
	}
	if item.Volume == "" {
		// Created by a pass that died before it wrote status: the volume is looked up again, from nothing that a tenant can write on the snapshot.
		var err error
		if item, _, err = s.identify(ctx, item); err != nil || item.Volume == "" {
			return item, Step{}, err
		}
	}
	if snap.Status == nil || snap.Status.BoundVolumeSnapshotContentName == nil {
		return s.wait(item, "waits for the snapshot to be bound to its content"+snapshotError(snap))
	}
	var content snapshotv1.VolumeSnapshotContent
	name := *snap.Status.BoundVolumeSnapshotContentName
	if err := s.Reader.Get(ctx, client.ObjectKey{Name: name}, &content); err != nil {
		if apierrors.IsNotFound(err) {
			return s.wait(item, fmt.Sprintf("waits for VolumeSnapshotContent %s, to which the snapshot says it is bound", name))
		}
		return item, Step{}, fmt.Errorf("reading VolumeSnapshotContent %s: %w", name, err)
	}
	if why := misbound(item.Volume, snap, &content); why != "" {
		return s.wait(item, why)
	}
	item.Location = fmt.Sprintf("VolumeSnapshot %s/%s, VolumeSnapshotContent %s", snap.Namespace, snap.Name, content.Name)
	if content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain {
		// Our own write, which no deadline ends: what was taken is not given up because it took long.
		item.Message = "waits for the content's deletionPolicy to be Retain"
		return item, Step{Retain: &content}, nil
	}
	retained := Step{Retained: &content}
	if !ready(snap.Status.ReadyToUse) || content.Status == nil || !ready(content.Status.ReadyToUse) {
		item, _, err := s.wait(item, "waits for the snapshot to be ready to use"+snapshotError(snap))
		return item, retained, err
	}
	item.State = v1alpha1.EvidenceCollected
	item.Message = ""
	if content.Status.CreationTime != nil {
		item.TakenAt = metav1.NewTime(time.Unix(0, *content.Status.CreationTime))
	}
	return item, retained, nil
}

func ofClaim(snap *snapshotv1.VolumeSnapshot, name string) bool {
	source := snap.Spec.Source.PersistentVolumeClaimName
	return source != nil && *source == name
}

// misbound says why the content does not belong to the snapshot, or "". Consumers have to verify the binding in both directions
// (external-snapshotter API documentation), and the volume has to be the one that was meant.
func misbound(volume string, snap *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) string {
	ref := content.Spec.VolumeSnapshotRef
	if ref.Namespace != snap.Namespace || ref.Name != snap.Name || ref.UID != snap.UID {
		return fmt.Sprintf("VolumeSnapshotContent %s points back to %s/%s (uid %s), not to this snapshot", content.Name, ref.Namespace, ref.Name, ref.UID)
	}
	if got := content.Spec.Source.VolumeHandle; got == nil || *got != volume {
		return fmt.Sprintf("VolumeSnapshotContent %s is of another volume than %s", content.Name, volume)
	}
	return ""
}

// wait keeps the item pending until its deadline, and declares a gap after that.
func (s *Snapshots) wait(item v1alpha1.EvidenceItem, message string) (v1alpha1.EvidenceItem, Step, error) {
	if s.Now.After(item.Deadline.Time) {
		return gap(item, "not done before the deadline: "+message), Step{}, nil
	}
	item.Message = message
	return item, Step{}, nil
}

// RetainPatch is a JSON patch that makes exactly this content outlive its snapshot and its namespace.
func RetainPatch(content *snapshotv1.VolumeSnapshotContent) ([]byte, error) {
	return json.Marshal([]map[string]string{
		{"op": "test", "path": "/metadata/uid", "value": string(content.UID)},
		{"op": "replace", "path": "/spec/deletionPolicy", "value": string(snapshotv1.VolumeSnapshotContentRetain)},
	})
}

func gap(item v1alpha1.EvidenceItem, message string) v1alpha1.EvidenceItem {
	item.State = v1alpha1.EvidenceGap
	item.Message = message
	return item
}

func ready(b *bool) bool { return b != nil && *b }

func snapshotError(snap *snapshotv1.VolumeSnapshot) string {
	if snap.Status == nil || snap.Status.Error == nil || snap.Status.Error.Message == nil {
		return ""
	}
	return ": " + *snap.Status.Error.Message
}
