package evidence

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshots,verbs=get;list;create;patch;delete
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshotcontents,verbs=get;patch;delete
// +kubebuilder:rbac:groups=snapshot.storage.k8s.io,resources=volumesnapshotclasses,verbs=list
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims;persistentvolumes,verbs=get

const (
	// defaultClassAnnotation marks the default VolumeSnapshotClass of a driver (external-snapshotter).
	defaultClassAnnotation = "snapshot.storage.kubernetes.io/is-default-class"
	// late begins the message of what was not there in time.
	late = "not done before the deadline"
	// waitsForReady begins the message about a snapshot that is safe and not whole yet.
	waitsForReady = "waits for the snapshot to be ready to use"
)

// VolumeSnapshots collects a snapshot of every PersistentVolumeClaim of the pods.
type VolumeSnapshots struct{}

// About says what the collector is.
func (VolumeSnapshots) About() About {
	return About{
		Type:   v1alpha1.EvidenceVolumeSnapshot,
		Needs:  "a CSI driver with snapshots, the API snapshot.storage.k8s.io with its controller, and a VolumeSnapshotClass; for volume groups also the API groupsnapshot.storage.k8s.io and a VolumeGroupSnapshotClass",
		Alters: "creates VolumeSnapshots in the pods' namespaces; claims that are snapshotted as a group carry a label meanwhile. The volumes are not written",
		Deadline: func(orders v1alpha1.EvidenceOrders) time.Duration {
			return seconds(orders.SnapshotDeadlineSeconds)
		},
	}
}

// Begin returns one item for each claim of the pods.
func (VolumeSnapshots) Begin(x *Execution, pods []*corev1.Pod) []v1alpha1.EvidenceItem {
	claims := Claims(pods)
	keys := slices.SortedFunc(maps.Keys(claims), func(a, b client.ObjectKey) int { return strings.Compare(a.String(), b.String()) })
	out := make([]v1alpha1.EvidenceItem, 0, len(keys))
	for _, claim := range keys {
		out = append(out, snapshotsOf(x).Begin(claim, claims[claim]))
	}
	return out
}

// Collect looks at the snapshot of one claim and does what comes next.
func (VolumeSnapshots) Collect(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	g := &groups{Snapshots: snapshotsOf(x), x: x}
	if key, grouped := groupOf(item); grouped && item.State == v1alpha1.EvidencePending {
		return g.collect(ctx, item, key)
	}
	if g.wanted(item) {
		assigned, single, err := g.assign(ctx, item)
		if err != nil || !single {
			return assigned, err
		}
	}
	return collectOne(ctx, x, item)
}

// collectOne looks at a snapshot that is taken by itself.
func collectOne(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	observed, step, err := snapshotsOf(x).observe(ctx, item)
	if err != nil {
		return observed, err
	}
	if step.Gone {
		settle(x.Journal, v1alpha1.ActionDeleteSnapshot, observed)
	}
	waits, err := perform(ctx, x, step)
	if waits && observed.State != v1alpha1.EvidencePending {
		observed = item // what has to be written first is only intended
	}
	if err != nil {
		if why := goingNamespace(err, item.Subject.Namespace); step.Create != nil && why != "" {
			return gap(observed, why), nil
		}
		if observed.State != v1alpha1.EvidencePending {
			observed = item // what had to be written first is not written
		}
		return observed, err
	}
	return observed, nil
}

func snapshotsOf(x *Execution) *Snapshots {
	return &Snapshots{Reader: x.Reader, Incident: x.Incident, Orders: x.Orders, Pod: x.Pod, Now: x.Now}
}

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

// Step is what has to be written next for a snapshot, and what was found written.
type Step struct {
	// Create is a VolumeSnapshot to create.
	Create *snapshotv1.VolumeSnapshot
	// Retain is a content whose deletionPolicy has to become Retain, and which has to be marked as evidence.
	Retain *snapshotv1.VolumeSnapshotContent
	// Retained is a content that was observed to be so.
	Retained *snapshotv1.VolumeSnapshotContent
	// Snapshot is the one whose content has to be, or is, retained.
	Snapshot *snapshotv1.VolumeSnapshot
	// Keep is a VolumeSnapshot whose mark has to say that its content is retained.
	Keep *snapshotv1.VolumeSnapshot
	// Remove is a VolumeSnapshot that came to nothing and has to be deleted, or, when that has begun, to be let go.
	Remove *snapshotv1.VolumeSnapshot
	// Gone says that a deletion that was intended was observed.
	Gone bool
}

// Snapshots observes the snapshots of one Incident and says what has to be written next.
type Snapshots struct {
	Reader   client.Reader
	Incident *v1alpha1.Incident
	Orders   v1alpha1.EvidenceOrders
	// Pod returns the pod with the UID as it is now, or nil when it is gone.
	Pod func(uid string) *corev1.Pod
	Now time.Time
}

// Begin returns the item of a claim that was not seen before.
func (s *Snapshots) Begin(claim client.ObjectKey, pods []string) v1alpha1.EvidenceItem {
	item := v1alpha1.EvidenceItem{
		ID: SnapshotID(claim), Type: v1alpha1.EvidenceVolumeSnapshot, Pods: pods, State: v1alpha1.EvidencePending,
		Subject:  v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name},
		Deadline: metav1.NewTime(s.Now.Add(seconds(s.Orders.SnapshotDeadlineSeconds))),
	}
	if s.Orders.VolumeSnapshots == v1alpha1.SnapshotSkip {
		return gap(item, "the ContainmentPolicy skips volume snapshots")
	}
	return item
}

// observe looks at the snapshot of an item and returns the item as it is now, with what has to be written next. An item that is settled stays as
// it is. When the API server cannot be read the item stays pending, with the error: not knowing is not a gap until the deadline.
func (s *Snapshots) observe(ctx context.Context, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, Step, error) {
	if item.State != v1alpha1.EvidencePending {
		return item, Step{}, nil
	}
	observed, step, err := s.look(ctx, item)
	if err != nil && s.late(item) {
		return gap(observed, late+": "+err.Error()), Step{}, nil
	}
	return observed, step, err
}

func (s *Snapshots) late(item v1alpha1.EvidenceItem) bool { return s.Now.After(item.Deadline.Time) }

func (s *Snapshots) look(ctx context.Context, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, Step, error) {
	var snap snapshotv1.VolumeSnapshot
	key := client.ObjectKey{Namespace: item.Subject.Namespace, Name: s.snapshotName(item)}
	err := s.Reader.Get(ctx, key, &snap)
	switch {
	case apimeta.IsNoMatchError(err):
		return gap(item, "the API snapshot.storage.k8s.io is not installed on this cluster: no volume can be snapshotted"), Step{}, nil
	case apierrors.IsNotFound(err) && s.late(item) && strings.HasPrefix(item.Message, late):
		return gap(item, item.Message), Step{Gone: true}, nil
	case apierrors.IsNotFound(err):
		item, step, err := s.prepare(ctx, item, key)
		step.Gone = item.State == v1alpha1.EvidenceGap
		return item, step, err
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
	if s.late(item) {
		return gap(item, "no snapshot could be created before the deadline"), Step{}, nil
	}
	if why := tooOften(supersede(item, "")); why != "" {
		return gap(supersede(item, ""), why), Step{}, nil
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
	item.Subject.UID, item.Caveat = string(claim.UID), cmp.Or(item.Caveat, s.replaced(item, &claim))
	if claim.Spec.VolumeName == "" {
		const message = "waits for the claim to be bound to a volume"
		if s.late(item) {
			return gap(item, late+": "+message), "", nil
		}
		item.Message = message
		return item, "", nil
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
			Namespace: key.Namespace, Name: key.Name, Labels: heldLabels(s.Incident), Annotations: measure.OwnedAnnotations(s.Incident),
			Finalizers: []string{v1alpha1.EvidenceFinalizer},
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
		item, _, err = s.identify(ctx, item)
		switch {
		case err != nil:
			return item, Step{}, err
		case item.State == v1alpha1.EvidenceGap:
			return s.giveUp(item, snap, item.Message)
		case item.Volume == "":
			return item, Step{}, nil
		}
	}
	if snap.Status == nil || snap.Status.BoundVolumeSnapshotContentName == nil {
		return s.wait(item, snap, "waits for the snapshot to be bound to its content"+snapshotError(snap))
	}
	var content snapshotv1.VolumeSnapshotContent
	name := *snap.Status.BoundVolumeSnapshotContentName
	if err := s.Reader.Get(ctx, client.ObjectKey{Name: name}, &content); err != nil {
		if apierrors.IsNotFound(err) {
			return s.wait(item, snap, fmt.Sprintf("waits for VolumeSnapshotContent %s, to which the snapshot says it is bound", name))
		}
		return item, Step{}, fmt.Errorf("reading VolumeSnapshotContent %s: %w", name, err)
	}
	if why := misbound(item.Volume, snap, &content); why != "" {
		return s.wait(item, snap, why)
	}
	item = supersede(item, content.Name)
	item.Location = fmt.Sprintf("VolumeSnapshot %s/%s, VolumeSnapshotContent %s", snap.Namespace, snap.Name, content.Name)
	return s.secure(item, snap, &content)
}

// secure brings a snapshot that is bound as it should be to where nobody loses it any more.
func (s *Snapshots) secure(item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) (v1alpha1.EvidenceItem, Step, error) {
	if !retained(content) {
		// Our own write, which no deadline ends: what was taken is not given up because it took long.
		item.Message = "waits for the content's deletionPolicy to be Retain"
		return item, Step{Retain: content, Snapshot: snap}, nil
	}
	if !s.ready(item, snap, content) {
		item, step, err := s.wait(item, snap, waitsForReady+snapshotError(snap))
		step.Retained = content
		if step.Remove == nil {
			step.Keep, step.Snapshot = unkept(snap), snap
		}
		return item, step, err
	}
	item = preserved(item, "")
	item.SnapshotHandle = ptr.Deref(content.Status.SnapshotHandle, "")
	if content.Status.CreationTime != nil {
		item.TakenAt = metav1.NewTime(time.Unix(0, *content.Status.CreationTime))
	}
	return item, Step{Retained: content, Keep: unkept(snap), Snapshot: snap}, nil
}

// ready reports whether the snapshot can be used. The content knows; the snapshot controller copies that to the snapshot, but not once that is being deleted. What has become ready is
// not given up at the deadline because the copy is late.
func (s *Snapshots) ready(item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot, content *snapshotv1.VolumeSnapshotContent) bool {
	copied := snap.Status != nil && isTrue(snap.Status.ReadyToUse) || !snap.DeletionTimestamp.IsZero() || s.late(item)
	return copied && content.Status != nil && isTrue(content.Status.ReadyToUse)
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

// wait keeps the item pending until its deadline, and gives the snapshot up after that.
func (s *Snapshots) wait(item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot, message string) (v1alpha1.EvidenceItem, Step, error) {
	if s.late(item) {
		return s.giveUp(item, snap, late+": "+message)
	}
	item.Message = message
	return item, Step{}, nil
}

// giveUp declares a gap once the snapshot that came to nothing is being deleted and nothing of ours keeps it: while it exists, it keeps its claim from being deleted (finalizer
// snapshot.storage.kubernetes.io/pvc-as-source-protection).
func (s *Snapshots) giveUp(item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot, message string) (v1alpha1.EvidenceItem, Step, error) {
	if !snap.DeletionTimestamp.IsZero() && !held(snap) {
		return gap(item, message), Step{Gone: true}, nil
	}
	item.State, item.Message = v1alpha1.EvidencePending, message
	return item, Step{Remove: snap}, nil
}

func gap(item v1alpha1.EvidenceItem, message string) v1alpha1.EvidenceItem {
	item.State = v1alpha1.EvidenceGap
	item.Message = message
	return item
}

func isTrue(b *bool) bool { return b != nil && *b }

func snapshotError(snap *snapshotv1.VolumeSnapshot) string {
	if snap.Status == nil || snap.Status.Error == nil || snap.Status.Error.Message == nil {
		return ""
	}
	return ": " + *snap.Status.Error.Message
}
