package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get

// LetGo looks after the snapshots of items that are settled, which no collector looks at any more; it is called in every pass. Snapshots that are deleted with their namespace are let go once
// their contents are seen to be retained, snapshots of gaps that were left over are removed, claims get their labels back, and a group whose members are all settled is marked as kept. It reads one list
// of VolumeSnapshots for each namespace with such items, each group, and each object that was to be let go.
func LetGo(ctx context.Context, x *Execution) error {
	if x.DryRun {
		return nil
	}
	g := &groups{Snapshots: snapshotsOf(x), x: x}
	open := x.Journal.Open(v1alpha1.ActionReleaseSnapshot)
	var failures []error
	namespaces, seen := map[string]bool{}, map[client.ObjectKey]bool{}
	for _, item := range x.Incident.Status.Evidence {
		if item.Type != v1alpha1.EvidenceVolumeSnapshot || item.State == v1alpha1.EvidenceRemoved {
			continue
		}
		namespaces[item.Subject.Namespace] = true
		if key, grouped := groupOf(item); grouped {
			if item.State != v1alpha1.EvidencePending {
				failures = append(failures, g.restoreLeftOver(ctx, item, g.group(key)))
			}
			if !seen[key] {
				failures = append(failures, g.letGroupGo(ctx, g.group(key)))
			}
			seen[key] = true
		}
	}
	for namespace := range namespaces {
		failures = append(failures, g.letSnapshotsGo(ctx, namespace))
	}
	return errors.Join(append(failures, g.noteReleases(ctx, open))...)
}

// noteReleases notes in the journal what of the objects that were to be let go when the pass began is let go, or gone.
func (g *groups) noteReleases(ctx context.Context, open []v1alpha1.ObjectRef) error {
	for _, ref := range open {
		key := client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
		var obj client.Object = &snapshotv1.VolumeSnapshot{}
		found := true
		var err error
		if ref.Kind == snapshotKind {
			found, err = g.find(ctx, key, obj)
		} else if obj, err = g.get(ctx, ref.Kind, key); apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			found, err = false, nil
		}
		if err != nil {
			return fmt.Errorf("reading %s %s: %w", ref.Kind, key, err)
		}
		if left := found && string(obj.GetUID()) == ref.UID; left {
			if patch, err := releasePatch(obj); err != nil || patch != nil {
				continue
			}
		}
		g.x.Journal.Done(v1alpha1.ActionReleaseSnapshot, ref)
	}
	return nil
}

// restoreLeftOver takes the group's label off a claim whose item was settled before that was done.
func (g *groups) restoreLeftOver(ctx context.Context, item v1alpha1.EvidenceItem, gr group) error {
	ref := v1alpha1.ObjectRef{Kind: claimKind, Namespace: item.Subject.Namespace, Name: item.Subject.Name, UID: item.Subject.UID}
	left := g.x.Journal.Intended(v1alpha1.ActionLabelClaim, ref) && !slices.ContainsFunc(g.x.Journal.Entries(), func(e v1alpha1.JournalEntry) bool {
		return e.Action == v1alpha1.ActionRestoreClaim && e.Object == ref && e.State == v1alpha1.JournalDone
	})
	if !left {
		return nil
	}
	_, err := g.restoreClaim(ctx, item, gr)
	return err
}

func (g *groups) letSnapshotsGo(ctx context.Context, namespace string) error {
	var list snapshotv1.VolumeSnapshotList
	err := g.Reader.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(g.Incident.UID)})
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the VolumeSnapshots of the Incident in namespace %s: %w", namespace, err)
	}
	var failures []error
	for i := range list.Items {
		snap := &list.Items[i]
		item := g.itemOf(snap)
		if item == nil {
			continue
		}
		failures = append(failures, g.letSnapshotGo(ctx, item, snap))
	}
	return errors.Join(failures...)
}

// itemOf is the item whose snapshot it is: its name says so, or, for a member of a group, the item does.
func (g *groups) itemOf(snap *snapshotv1.VolumeSnapshot) *v1alpha1.EvidenceItem {
	for i := range g.Incident.Status.Evidence {
		item := &g.Incident.Status.Evidence[i]
		if item.Type != v1alpha1.EvidenceVolumeSnapshot || item.Subject.Namespace != snap.Namespace || !ofClaim(snap, item.Subject.Name) {
			continue
		}
		if _, grouped := groupOf(*item); grouped || snap.Name == g.snapshotName(*item) {
			return item
		}
	}
	return nil
}

func (g *groups) letSnapshotGo(ctx context.Context, item *v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot) error {
	deleting := !snap.DeletionTimestamp.IsZero()
	_, grouped := groupOf(*item)
	ref := refOf(snapshotKind, snap)
	switch {
	case item.State == v1alpha1.EvidenceGap && deleting:
		return release(ctx, g.x, ref, snap, "let go what came to nothing")
	case item.State == v1alpha1.EvidenceGap && !grouped && (snap.Status == nil || !isTrue(snap.Status.ReadyToUse)):
		return remove(ctx, g.x, ref, snap)
	case !isPreserved(*item) || !deleting || !held(snap):
		return nil
	}
	if goes, err := g.namespaceGoes(ctx, snap.Namespace); err != nil || !goes {
		return err
	}
	if snap.Status == nil || snap.Status.BoundVolumeSnapshotContentName == nil {
		return nil
	}
	var content snapshotv1.VolumeSnapshotContent
	err := g.Reader.Get(ctx, client.ObjectKey{Name: *snap.Status.BoundVolumeSnapshotContentName}, &content)
	switch {
	case apierrors.IsNotFound(err): // nothing is left that the snapshot could lead to
		return release(ctx, g.x, ref, snap, "its content does not exist any more, and its namespace is being deleted")
	case err != nil:
		return fmt.Errorf("reading VolumeSnapshotContent %s: %w", *snap.Status.BoundVolumeSnapshotContentName, err)
	case misbound(item.Volume, snap, &content) != "":
		return nil
	case !retained(&content) && !g.x.Journal.Intended(v1alpha1.ActionDeleteSnapshot, refOf(contentKind, &content)): // unless its removal was approved
		return retain(ctx, g.x, &content)
	}
	return release(ctx, g.x, ref, snap, "its content is retained, and its namespace is being deleted")
}

func (g *groups) namespaceGoes(ctx context.Context, name string) (bool, error) {
	var namespace corev1.Namespace
	if err := g.Reader.Get(ctx, client.ObjectKey{Name: name}, &namespace); err != nil {
		return false, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	return !namespace.DeletionTimestamp.IsZero(), nil
}

// letGroupGo marks a group as kept when all of its members are settled, and lets it go with its namespace.
func (g *groups) letGroupGo(ctx context.Context, gr group) error {
	if len(pending(gr.members)) > 0 {
		return nil
	}
	taken, err := g.get(ctx, groupKind, gr.key)
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) || err == nil && taken.GetLabels()[v1alpha1.IncidentUIDLabel] != string(g.Incident.UID) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading VolumeGroupSnapshot %s: %w", gr.key, err)
	}
	ref := refOf(groupKind, taken)
	if taken.GetDeletionTimestamp().IsZero() {
		const detail = "mark it as evidence whose contents are retained"
		if taken.GetLabels()[v1alpha1.EvidenceLabel] != evidenceTaking {
			g.x.Journal.Done(v1alpha1.ActionRetainSnapshot, ref)
			return nil
		}
		if !g.x.Journal.IntendAnew(v1alpha1.ActionRetainSnapshot, ref, detail) {
			return nil
		}
		patch, err := keepPatch(taken, map[string]string{v1alpha1.EvidenceLabel: evidenceKept})
		if err != nil {
			return err
		}
		return patchObject(ctx, g.x, ref, taken, patch, detail)
	}
	if goes, err := g.namespaceGoes(ctx, gr.key.Namespace); err != nil || !goes || !held(taken) {
		return err
	}
	content, why, err := g.groupContent(ctx, taken)
	if err != nil {
		return err
	}
	if why == "" {
		if kept, err := g.retainGroup(ctx, content); err != nil || !kept {
			return err
		}
	}
	return release(ctx, g.x, ref, taken, "its content is retained, and its namespace is being deleted")
}

// ReleaseSnapshotHold removes the snapshot of an item whose removal was approved, content included, and reports whether it is gone. The hold ends first: mark and finalizer are taken off, and the content gets the
// deletionPolicy Delete, so that the driver frees the storage. It is called again until it is done. The members of a group go together, when the removal of every one of them has begun.
func ReleaseSnapshotHold(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem) (bool, error) {
	g := &groups{Snapshots: snapshotsOf(x), x: x}
	if gone, err := g.removeEarlier(ctx, item); err != nil || !gone {
		return false, err
	}
	name, contentName := located(item)
	if name == "" {
		return true, nil // nothing was taken
	}
	var content snapshotv1.VolumeSnapshotContent
	hasContent, err := g.find(ctx, client.ObjectKey{Name: contentName}, &content)
	if err != nil {
		return false, err
	}
	if ref := content.Spec.VolumeSnapshotRef; hasContent && (ref.Namespace != item.Subject.Namespace || ref.Name != name) {
		hasContent = false // a namesake
	}
	if hasContent && content.DeletionTimestamp.IsZero() {
		if ended, err := g.unretain(ctx, refOf(contentKind, &content), &content, string(content.Spec.DeletionPolicy)); err != nil || !ended {
			return false, err
		}
	}
	var snap snapshotv1.VolumeSnapshot
	found, err := g.find(ctx, client.ObjectKey{Namespace: item.Subject.Namespace, Name: name}, &snap)
	if err != nil {
		return false, err
	}
	if found && snap.Labels[v1alpha1.IncidentUIDLabel] == string(x.Incident.UID) {
		return false, g.endSnapshot(ctx, item, &snap)
	}
	if hasContent {
		return false, g.approvedDelete(ctx, refOf(contentKind, &content), &content)
	}
	g.settleRemoval(item.Subject.Namespace, name, contentName)
	if key, grouped := groupOf(item); grouped {
		return g.groupGone(ctx, key)
	}
	return true, nil
}

// groupGone reports whether a group and its content are gone, and notes so in the journal.
func (g *groups) groupGone(ctx context.Context, key client.ObjectKey) (bool, error) {
	gone := true
	for _, e := range g.x.Journal.Entries() {
		about := e.Object.Kind == groupKind && e.Object.Namespace == key.Namespace && e.Object.Name == key.Name || e.Object.Kind == groupContentKind
		if e.Action != v1alpha1.ActionDeleteSnapshot || !about {
			continue
		}
		left, err := g.get(ctx, e.Object.Kind, client.ObjectKey{Namespace: e.Object.Namespace, Name: e.Object.Name})
		switch {
		case apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err):
			g.x.Journal.Done(e.Action, e.Object)
		case err != nil:
			return false, fmt.Errorf("reading %s %s: %w", e.Object.Kind, e.Object.Name, err)
		case e.Object.Kind == groupKind || text(left, "spec", "volumeGroupSnapshotRef", "name") == key.Name:
			gone = false
		}
	}
	return gone, nil
}

// located are the names of the snapshot and of the content of an item that was collected.
func located(item v1alpha1.EvidenceItem) (snapshot, content string) {
	for part := range strings.SplitSeq(item.Location, ", ") {
		kind, name, _ := strings.Cut(part, " ")
		switch kind {
		case snapshotKind:
			_, snapshot, _ = strings.Cut(name, "/")
		case contentKind:
			content = name
		}
	}
	return snapshot, content
}

// find reads an object that may be gone, or whose API may be.
func (g *groups) find(ctx context.Context, key client.ObjectKey, obj client.Object) (bool, error) {
	err := g.Reader.Get(ctx, key, obj)
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %T %s: %w", obj, key, err)
	}
	return true, nil
}

// approved is what the journal says about removals.
const approved = "its removal was approved"

// unretain ends the hold on a content, and reports whether it has ended.
func (g *groups) unretain(ctx context.Context, ref v1alpha1.ObjectRef, content client.Object, policy string) (bool, error) {
	ops := []operation{sameUID(content)}
	if _, marked := content.GetLabels()[v1alpha1.EvidenceLabel]; marked {
		ops = append(ops, operation{Op: "remove", Path: "/metadata/labels/" + pointer(v1alpha1.EvidenceLabel)})
	}
	if policy != string(snapshotv1.VolumeSnapshotContentDelete) {
		ops = append(ops, operation{Op: "replace", Path: "/spec/deletionPolicy", Value: string(snapshotv1.VolumeSnapshotContentDelete)})
	}
	if len(ops) == 1 {
		return true, nil
	}
	if !g.x.Journal.Intend(v1alpha1.ActionDeleteSnapshot, ref, approved) {
		return false, nil
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return false, err
	}
	return false, patchObject(ctx, g.x, ref, content, patch, "deletionPolicy: Delete, because "+approved)
}

// endSnapshot ends the hold on a snapshot and deletes it; the snapshot controller deletes its content.
func (g *groups) endSnapshot(ctx context.Context, item v1alpha1.EvidenceItem, snap *snapshotv1.VolumeSnapshot) error {
	ref := refOf(snapshotKind, snap)
	patch, err := releasePatch(snap)
	switch {
	case err != nil:
		return err
	case patch != nil:
		if !g.x.Journal.Intend(v1alpha1.ActionDeleteSnapshot, ref, approved) {
			return nil
		}
		return patchObject(ctx, g.x, ref, snap, patch, "end the hold, because "+approved)
	}
	if key, grouped := groupOf(item); grouped {
		return g.endGroup(ctx, key)
	}
	return g.approvedDelete(ctx, ref, snap)
}

// endGroup deletes a group, and by that its members, once none of them is held any more.
func (g *groups) endGroup(ctx context.Context, key client.ObjectKey) error {
	taken, err := g.get(ctx, groupKind, key)
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) || err == nil && taken.GetLabels()[v1alpha1.IncidentUIDLabel] != string(g.Incident.UID) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading VolumeGroupSnapshot %s: %w", key, err)
	}
	members, err := g.membersOf(ctx, taken)
	if err != nil || slices.ContainsFunc(members, func(s *snapshotv1.VolumeSnapshot) bool { return held(s) }) {
		return err
	}
	content, why, err := g.groupContent(ctx, taken)
	if err != nil {
		return err
	}
	if why == "" && content.GetDeletionTimestamp().IsZero() {
		if ended, err := g.unretain(ctx, refOf(groupContentKind, content), content, text(content, "spec", "deletionPolicy")); err != nil || !ended {
			return err
		}
	}
	ref := refOf(groupKind, taken)
	if patch, err := releasePatch(taken); err != nil || patch != nil {
		if err != nil || !g.x.Journal.Intend(v1alpha1.ActionDeleteSnapshot, ref, approved) {
			return err
		}
		return patchObject(ctx, g.x, ref, taken, patch, "end the hold, because "+approved)
	}
	return g.approvedDelete(ctx, ref, taken)
}

func (g *groups) approvedDelete(ctx context.Context, ref v1alpha1.ObjectRef, obj client.Object) error {
	if !obj.GetDeletionTimestamp().IsZero() {
		g.x.Journal.Done(v1alpha1.ActionDeleteSnapshot, ref)
		return nil
	}
	if !g.x.Journal.Intend(v1alpha1.ActionDeleteSnapshot, ref, approved) {
		return nil
	}
	return deleteObject(ctx, g.x, ref, obj, approved)
}

// settleRemoval notes that what was to be deleted is gone.
func (g *groups) settleRemoval(namespace, snapshot, content string) {
	for _, e := range g.x.Journal.Entries() {
		if e.Action == v1alpha1.ActionDeleteSnapshot &&
			(e.Object.Kind == snapshotKind && e.Object.Namespace == namespace && e.Object.Name == snapshot || e.Object.Kind == contentKind && e.Object.Name == content) {
			g.x.Journal.Done(e.Action, e.Object)
		}
	}
}
