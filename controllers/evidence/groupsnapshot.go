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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups=groupsnapshot.storage.k8s.io,resources=volumegroupsnapshots,verbs=get;create;patch;delete
// +kubebuilder:rbac:groups=groupsnapshot.storage.k8s.io,resources=volumegroupsnapshotcontents,verbs=get;patch;delete
// +kubebuilder:rbac:groups=groupsnapshot.storage.k8s.io,resources=volumegroupsnapshotclasses,verbs=list
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=list;patch

const (
	groupAPI         = "groupsnapshot.storage.k8s.io"
	groupKind        = "VolumeGroupSnapshot"
	groupContentKind = "VolumeGroupSnapshotContent"
	groupClassKind   = "VolumeGroupSnapshotClass"
	claimKind        = "PersistentVolumeClaim"
	// groupLocation begins, while an item is pending, the location that says which group takes its snapshot. It is the memory of which claims belong together.
	groupLocation = groupKind + " "
	// groupLabelPrefix begins the key of the label by which a group selects its claims.
	groupLabelPrefix = "containment.cofferdam.dev/group-"
	// defaultGroupClassAnnotation marks the default VolumeGroupSnapshotClass of a driver (external-snapshotter).
	defaultGroupClassAnnotation = "groupsnapshot.storage.kubernetes.io/is-default-class"
	noGroupAPI                  = "the API " + groupAPI + " is not installed on this cluster: volumes cannot be snapshotted together"
)

// groupVersions are the versions of the API that say what members a group has, the newest first.
var groupVersions = []string{"v1", "v1beta2"}

// groups takes snapshots of the volumes of one workload at one moment. What it decides is remembered in the location of the pending items; the rest is looked up in every pass.
type groups struct {
	*Snapshots
	x *Execution
}

// group is one VolumeGroupSnapshot.
type group struct {
	key client.ObjectKey
	// label and value are the label by which the group selects its claims.
	label, value string
	// members are the items that are taken by it, as they were when the pass began, ordered by ID.
	members []v1alpha1.EvidenceItem
}

// groupOf is the group that takes, or has taken, the snapshot of an item.
func groupOf(item v1alpha1.EvidenceItem) (client.ObjectKey, bool) {
	i := strings.LastIndex(item.Location, groupLocation)
	if item.Type != v1alpha1.EvidenceVolumeSnapshot || i < 0 {
		return client.ObjectKey{}, false
	}
	namespace, name, found := strings.Cut(item.Location[i+len(groupLocation):], "/")
	return client.ObjectKey{Namespace: namespace, Name: name}, found
}

func (g *groups) group(key client.ObjectKey) group {
	out := group{key: key, value: string(g.Incident.UID), label: groupLabelPrefix + key.Name[strings.LastIndex(key.Name, "-")+1:]}
	for _, item := range g.Incident.Status.Evidence {
		if k, grouped := groupOf(item); grouped && k == key {
			out.members = append(out.members, item)
		}
	}
	slices.SortFunc(out.members, func(a, b v1alpha1.EvidenceItem) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func pending(items []v1alpha1.EvidenceItem) []v1alpha1.EvidenceItem {
	return slices.DeleteFunc(slices.Clone(items), func(i v1alpha1.EvidenceItem) bool { return i.State != v1alpha1.EvidencePending })
}

// tooLate reports whether half of the item's time is over: where volumes need not be taken together, the other half is for single snapshots.
func (g *groups) tooLate(item v1alpha1.EvidenceItem) bool {
	return g.Now.After(item.Deadline.Add(-seconds(g.Orders.SnapshotDeadlineSeconds) / 2))
}

func (g *groups) required() bool { return g.Orders.VolumeGroups == v1alpha1.VolumeGroupRequire }

// wanted reports whether it has to be decided if the item is taken by a group. A dry run has no items to remember it by.
func (g *groups) wanted(item v1alpha1.EvidenceItem) bool {
	return (g.required() || g.Orders.VolumeGroups == v1alpha1.VolumeGroupPrefer) && !g.x.DryRun &&
		item.State == v1alpha1.EvidencePending && item.Location == "" && item.Volume == ""
}

// assign decides which group takes the item. single says that it is taken by itself.
func (g *groups) assign(ctx context.Context, item v1alpha1.EvidenceItem) (_ v1alpha1.EvidenceItem, single bool, _ error) {
	if g.tooLate(item) && !g.required() {
		return item, true, nil
	}
	err := g.Reader.Get(ctx, client.ObjectKey{Namespace: item.Subject.Namespace, Name: g.snapshotName(item)}, &snapshotv1.VolumeSnapshot{})
	if err == nil || apimeta.IsNoMatchError(err) {
		return item, true, nil // begun by a pass that died, or impossible
	} else if !apierrors.IsNotFound(err) {
		return item, false, fmt.Errorf("reading the VolumeSnapshot of PersistentVolumeClaim %s/%s: %w", item.Subject.Namespace, item.Subject.Name, err)
	}
	if why := g.incomplete(item); why != "" && !g.tooLate(item) {
		item.Message = why
		return item, false, nil
	}
	identified, driver, err := g.identify(ctx, item)
	if err != nil || driver == "" {
		identified.Volume = ""
		return identified, false, err
	}
	names, err := g.companions(ctx, item, driver)
	if err != nil {
		return item, false, err
	}
	if len(names) < 2 {
		return item, true, nil
	}
	if _, _, why, err := g.groupClass(ctx, driver); err != nil || why != "" {
		switch {
		case err != nil:
			return item, false, err
		case g.required():
			return gap(item, why), false, nil
		}
		return item, true, nil
	}
	hash := shortHash(string(g.Incident.UID) + "/" + strings.Join(names, "/"))
	identified.Location = fmt.Sprintf("%s%s/cofferdam-%s-group-%s", groupLocation, item.Subject.Namespace, g.Incident.UID, hash)
	identified.Message = fmt.Sprintf("is snapshotted together with %d other volumes of its workload", len(names)-1)
	key, _ := groupOf(identified)
	_, err = g.labelClaim(ctx, identified, g.group(key)) // has the intent recorded with the decision
	return identified, false, err
}

// incomplete says why it is not known yet which volumes belong together, or "".
func (g *groups) incomplete(item v1alpha1.EvidenceItem) string {
	if !slices.ContainsFunc(g.Incident.Status.Evidence, func(e v1alpha1.EvidenceItem) bool { return e.ID == item.ID }) {
		return "waits for the other volumes of its workload to be recorded"
	}
	workload := g.workload(item)
	for _, p := range g.Incident.Status.Pods {
		if p.Handling == v1alpha1.HandlingPending && workloadOf(p) == workload && g.x.Pod(p.UID) != nil {
			return "waits for the other pods of its workload to be cut off"
		}
	}
	return ""
}

// workload is the workload of the item's pods; of several the first.
func (g *groups) workload(item v1alpha1.EvidenceItem) string {
	var out []string
	for _, p := range g.Incident.Status.Pods {
		if slices.Contains(item.Pods, p.UID) {
			out = append(out, workloadOf(p))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return slices.Min(out)
}

func workloadOf(p v1alpha1.PodStatus) string {
	if p.Owner.UID != "" {
		return p.Owner.UID
	}
	return p.UID
}

// companions are the IDs of the items, the given one among them, that can be taken together. Every one of them comes to the same result.
func (g *groups) companions(ctx context.Context, item v1alpha1.EvidenceItem, driver string) ([]string, error) {
	workload := g.workload(item)
	var out []string
	for _, other := range g.Incident.Status.Evidence {
		if other.Type != item.Type || !g.wanted(other) || other.Subject.Namespace != item.Subject.Namespace || g.workload(other) != workload {
			continue
		}
		identified, theirs, err := g.identify(ctx, other)
		if err != nil {
			return nil, err
		}
		if identified.State == v1alpha1.EvidencePending && theirs == driver {
			out = append(out, other.ID)
		}
	}
	slices.Sort(out)
	return out, nil
}

// versioned calls for each version of the API until one is served.
func versioned(kind string, call func(schema.GroupVersionKind) error) error {
	var err error
	for _, version := range groupVersions {
		if err = call(schema.GroupVersionKind{Group: groupAPI, Version: version, Kind: kind}); !apimeta.IsNoMatchError(err) {
			return err
		}
	}
	return err
}

func (g *groups) get(ctx context.Context, kind string, key client.ObjectKey) (*unstructured.Unstructured, error) {
	obj := &unstructured.Unstructured{}
	return obj, versioned(kind, func(gvk schema.GroupVersionKind) error {
		obj.SetGroupVersionKind(gvk)
		return g.Reader.Get(ctx, key, obj)
	})
}

// groupClass chooses the VolumeGroupSnapshotClass for a driver as is done for single snapshots. It returns "" and why when there is none.
func (g *groups) groupClass(ctx context.Context, driver string) (name, version, why string, err error) {
	var list unstructured.UnstructuredList
	err = versioned(groupClassKind, func(gvk schema.GroupVersionKind) error {
		version = gvk.Version
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		return g.Reader.List(ctx, &list)
	})
	switch {
	case apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err):
		return "", "", noGroupAPI, nil
	case err != nil:
		return "", "", "", fmt.Errorf("listing VolumeGroupSnapshotClasses: %w", err)
	}
	var all, defaults []string
	for i := range list.Items {
		class := &list.Items[i]
		if text(class, "driver") != driver {
			continue
		}
		if class.GetName() == g.Orders.VolumeSnapshotClassName {
			return class.GetName(), version, "", nil
		}
		all = append(all, class.GetName())
		if class.GetAnnotations()[defaultGroupClassAnnotation] == "true" {
			defaults = append(defaults, class.GetName())
		}
	}
	switch {
	case len(defaults) == 1:
		return defaults[0], version, "", nil
	case len(all) == 1:
		return all[0], version, "", nil
	case len(all) == 0:
		return "", "", fmt.Sprintf("there is no VolumeGroupSnapshotClass for driver %s; create one if the driver can take volumes together", driver), nil
	}
	return "", "", fmt.Sprintf("driver %s has several VolumeGroupSnapshotClasses and not exactly one default; mark one (annotation %s)", driver, defaultGroupClassAnnotation), nil
}

// text is a string of an object, or "".
func text(obj *unstructured.Unstructured, fields ...string) string {
	out, _, err := unstructured.NestedString(obj.Object, fields...)
	if err != nil {
		return ""
	}
	return out
}

// collect takes one look at an item that is taken by a group.
func (g *groups) collect(ctx context.Context, item v1alpha1.EvidenceItem, key client.ObjectKey) (v1alpha1.EvidenceItem, error) {
	gr := g.group(key)
	taken, err := g.get(ctx, groupKind, key)
	switch {
	case apimeta.IsNoMatchError(err):
		return g.leave(ctx, item, gr, nil, noGroupAPI)
	case apierrors.IsNotFound(err):
		g.settle(gr)
		if g.over(item) {
			return g.leave(ctx, item, gr, nil, reason(item, "no group snapshot was created"))
		}
		return g.prepareGroup(ctx, item, gr)
	case err != nil:
		return g.unknown(item, fmt.Errorf("reading VolumeGroupSnapshot %s: %w", key, err))
	}
	return g.followGroup(ctx, item, gr, taken)
}

// over reports whether a group that is not taken yet is waited for no longer.
func (g *groups) over(item v1alpha1.EvidenceItem) bool {
	return g.late(item) || g.tooLate(item) && !g.required()
}

// unknown keeps an item pending until its deadline, when something could not be read.
func (g *groups) unknown(item v1alpha1.EvidenceItem, err error) (v1alpha1.EvidenceItem, error) {
	if g.late(item) {
		return gap(item, late+": "+err.Error()), nil
	}
	return item, err
}

// reason is why a group came to nothing: what was said before, if it was said.
func reason(item v1alpha1.EvidenceItem, otherwise string) string {
	if said, found := strings.CutPrefix(item.Message, late+": "); found {
		return said
	}
	return otherwise
}

// settle notes that a deletion of the group that was intended was observed.
func (g *groups) settle(gr group) {
	for _, e := range g.x.Journal.Entries() {
		if e.Action == v1alpha1.ActionDeleteSnapshot && e.Object.Kind == groupKind && e.Object.Namespace == gr.key.Namespace && e.Object.Name == gr.key.Name {
			g.x.Journal.Done(e.Action, e.Object)
		}
	}
}

// prepareGroup labels the claim of the item, and creates the group when the claims of all members are labelled.
func (g *groups) prepareGroup(ctx context.Context, item v1alpha1.EvidenceItem, gr group) (v1alpha1.EvidenceItem, error) {
	identified, driver, err := g.identify(ctx, item)
	if err != nil || driver == "" {
		return identified, err
	}
	labelled, err := g.labelClaim(ctx, item, gr)
	if err != nil {
		return item, err
	}
	if !labelled {
		item.Message = "waits for its claim to be labelled for the group snapshot"
		return item, nil
	}
	why, err := g.unselected(ctx, gr)
	if err != nil || why != "" {
		item.Message = why
		return item, err
	}
	item.Message = "waits for the VolumeGroupSnapshot to be created"
	if first := pending(gr.members); len(first) > 0 && first[0].ID != item.ID {
		return item, nil // who comes first creates it
	}
	class, version, why, err := g.groupClass(ctx, driver)
	switch {
	case err != nil:
		return item, err
	case why != "":
		return g.leave(ctx, item, gr, nil, why)
	}
	err = g.createGroup(ctx, gr, class, version)
	if why := goingNamespace(err, gr.key.Namespace); why != "" {
		return g.leave(ctx, item, gr, nil, why)
	}
	return item, err
}

// unselected says why the label does not select just the claims of the members, or "".
func (g *groups) unselected(ctx context.Context, gr group) (string, error) {
	var list corev1.PersistentVolumeClaimList
	if err := g.Reader.List(ctx, &list, client.InNamespace(gr.key.Namespace), client.MatchingLabels{gr.label: gr.value}); err != nil {
		return "", fmt.Errorf("listing the PersistentVolumeClaims of VolumeGroupSnapshot %s: %w", gr.key, err)
	}
	selected := map[string]bool{}
	for i := range list.Items {
		name := list.Items[i].Name
		if !slices.ContainsFunc(gr.members, func(m v1alpha1.EvidenceItem) bool { return m.Subject.Name == name }) {
			return fmt.Sprintf("PersistentVolumeClaim %s carries the label %s, which is not for it: take it off", name, gr.label), nil
		}
		selected[name] = true
	}
	for _, m := range pending(gr.members) {
		if !selected[m.Subject.Name] {
			return fmt.Sprintf("waits for PersistentVolumeClaim %s to be labelled for the group snapshot", m.Subject.Name), nil
		}
	}
	return "", nil
}

// labelClaim puts the group's label on the claim of the item and reports whether it is there.
func (g *groups) labelClaim(ctx context.Context, item v1alpha1.EvidenceItem, gr group) (bool, error) {
	claim, err := g.claim(ctx, item)
	if err != nil || claim == nil {
		return false, err
	}
	ref := refOf(claimKind, claim)
	if claim.Labels[gr.label] == gr.value {
		g.x.Journal.Done(v1alpha1.ActionLabelClaim, ref)
		return true, nil
	}
	detail := fmt.Sprintf("label %s: selected by VolumeGroupSnapshot %s; taken off when the snapshot is taken", gr.label, gr.key.Name)
	if !g.x.Journal.IntendAnew(v1alpha1.ActionLabelClaim, ref, detail) {
		return false, nil
	}
	patch, err := json.Marshal(append([]operation{sameUID(claim)}, addLabels(claim, map[string]string{gr.label: gr.value})...))
	if err != nil {
		return false, err
	}
	return false, patchObject(ctx, g.x, ref, claim, patch, detail)
}

// restoreClaim takes the label off again and reports whether it is off. What others have written under the same key is theirs.
func (g *groups) restoreClaim(ctx context.Context, item v1alpha1.EvidenceItem, gr group) (bool, error) {
	claim, err := g.claim(ctx, item)
	if err != nil || claim == nil {
		return claim == nil && err == nil, err
	}
	ref := refOf(claimKind, claim)
	if claim.Labels[gr.label] != gr.value {
		g.x.Journal.Done(v1alpha1.ActionLabelClaim, ref)
		g.x.Journal.Done(v1alpha1.ActionRestoreClaim, ref)
		return true, nil
	}
	g.x.Journal.Done(v1alpha1.ActionLabelClaim, ref)
	detail := "take the label " + gr.label + " off again"
	if !g.x.Journal.IntendAnew(v1alpha1.ActionRestoreClaim, ref, detail) {
		return false, nil
	}
	path := "/metadata/labels/" + pointer(gr.label)
	patch, err := json.Marshal([]operation{sameUID(claim), {Op: "test", Path: path, Value: gr.value}, {Op: "remove", Path: path}})
	if err != nil {
		return false, err
	}
	return false, patchObject(ctx, g.x, ref, claim, patch, detail)
}

// claim reads the claim of an item; nil when it does not exist any more, or is a namesake.
func (g *groups) claim(ctx context.Context, item v1alpha1.EvidenceItem) (*corev1.PersistentVolumeClaim, error) {
	var claim corev1.PersistentVolumeClaim
	err := g.Reader.Get(ctx, client.ObjectKey{Namespace: item.Subject.Namespace, Name: item.Subject.Name}, &claim)
	switch {
	case apierrors.IsNotFound(err) || err == nil && string(claim.UID) != item.Subject.UID:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading PersistentVolumeClaim %s/%s: %w", item.Subject.Namespace, item.Subject.Name, err)
	}
	return &claim, nil
}

func (g *groups) createGroup(ctx context.Context, gr group, class, version string) error {
	obj := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"volumeGroupSnapshotClassName": class,
		"source":                       map[string]any{"selector": map[string]any{"matchLabels": map[string]any{gr.label: gr.value}}},
	}}}
	obj.SetGroupVersionKind(schema.GroupVersionKind{Group: groupAPI, Version: version, Kind: groupKind})
	obj.SetNamespace(gr.key.Namespace)
	obj.SetName(gr.key.Name)
	obj.SetLabels(heldLabels(g.Incident))
	obj.SetAnnotations(measure.OwnedAnnotations(g.Incident))
	obj.SetFinalizers([]string{v1alpha1.EvidenceFinalizer})
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: groupKind, Namespace: gr.key.Namespace, Name: gr.key.Name},
		Detail: fmt.Sprintf("snapshot %d claims at one moment with class %s", len(pending(gr.members)), class)}
	return g.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, obj))
	})
}

// followGroup observes a group that exists, and the item's member of it.
func (g *groups) followGroup(ctx context.Context, item v1alpha1.EvidenceItem, gr group, taken *unstructured.Unstructured) (v1alpha1.EvidenceItem, error) {
	selector, _, err := unstructured.NestedStringMap(taken.Object, "spec", "source", "selector", "matchLabels")
	if err != nil || taken.GetLabels()[v1alpha1.IncidentUIDLabel] != string(g.Incident.UID) || len(selector) != 1 || selector[gr.label] != gr.value {
		return g.leave(ctx, item, gr, nil, fmt.Sprintf("VolumeGroupSnapshot %s is not ours", gr.key))
	}
	content, why, err := g.groupContent(ctx, taken)
	switch {
	case err != nil:
		return g.unknown(item, err)
	case why == "" && text(content, "status", "volumeGroupSnapshotHandle") != "":
	case g.over(item) || !taken.GetDeletionTimestamp().IsZero():
		return g.leave(ctx, item, gr, taken, reason(item, "waits for the group snapshot"+said(why)+groupError(taken)))
	case why != "":
		item.Message = "waits for the group snapshot" + said(why) + groupError(taken)
		return item, nil
	}
	// What belongs to the group is fixed now. None of the writes that follow has to wait for another.
	restored, err := g.restoreClaim(ctx, item, gr)
	if err != nil {
		return item, err
	}
	if !slices.Contains(handles(content), item.Volume) {
		return g.leave(ctx, item, gr, nil, fmt.Sprintf("VolumeGroupSnapshot %s was taken without this volume", gr.key))
	}
	kept, err := g.retainGroup(ctx, content)
	if err != nil {
		return item, err
	}
	member, err := g.followMember(ctx, item, gr, taken, content)
	if (!restored || !kept) && isPreserved(member) {
		item.Message = "waits for the claim to have its labels back and the group content's deletionPolicy to be Retain"
		return item, err
	}
	return member, err
}

func said(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func groupError(obj *unstructured.Unstructured) string {
	return said(text(obj, "status", "error", "message"))
}

func handles(content *unstructured.Unstructured) []string {
	out, _, err := unstructured.NestedStringSlice(content.Object, "spec", "source", "volumeHandles")
	if err != nil {
		return nil
	}
	return out
}

// groupContent reads the content of a group and verifies the binding in both directions. why says what is missing.
func (g *groups) groupContent(ctx context.Context, taken *unstructured.Unstructured) (_ *unstructured.Unstructured, why string, _ error) {
	name := text(taken, "status", "boundVolumeGroupSnapshotContentName")
	if name == "" {
		return nil, "it is not bound to a content", nil
	}
	content, err := g.get(ctx, groupContentKind, client.ObjectKey{Name: name})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("VolumeGroupSnapshotContent %s does not exist", name), nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading VolumeGroupSnapshotContent %s: %w", name, err)
	}
	ref := func(field string) string { return text(content, "spec", "volumeGroupSnapshotRef", field) }
	if ref("namespace") != taken.GetNamespace() || ref("name") != taken.GetName() || ref("uid") != string(taken.GetUID()) {
		return nil, fmt.Sprintf("VolumeGroupSnapshotContent %s points back to %s/%s (uid %s)", name, ref("namespace"), ref("name"), ref("uid")), nil
	}
	return content, "", nil
}

// retainGroup makes the content of a group outlive it, and reports whether it does.
func (g *groups) retainGroup(ctx context.Context, content *unstructured.Unstructured) (bool, error) {
	ref := refOf(groupContentKind, content)
	if text(content, "spec", "deletionPolicy") == string(snapshotv1.VolumeSnapshotContentRetain) && content.GetLabels()[v1alpha1.EvidenceLabel] == evidenceKept {
		g.x.Journal.Done(v1alpha1.ActionRetainSnapshot, ref)
		return true, nil
	}
	const detail = "deletionPolicy: Retain"
	if !g.x.Journal.IntendAnew(v1alpha1.ActionRetainSnapshot, ref, detail) {
		return false, nil
	}
	patch, err := retainPatch(content)
	if err != nil {
		return false, err
	}
	return false, patchObject(ctx, g.x, ref, content, patch, detail)
}

// followMember observes the snapshot of the item's volume in a group that was taken.
func (g *groups) followMember(ctx context.Context, item v1alpha1.EvidenceItem, gr group, taken, groupContent *unstructured.Unstructured) (v1alpha1.EvidenceItem, error) {
	snap, content, why, err := g.member(ctx, item, taken)
	switch {
	case err != nil:
		return g.unknown(item, err)
	case why != "":
		return g.waitMember(ctx, item, gr, taken, why)
	}
	// From here on the item names what may be retained, whatever becomes of the group.
	item = supersede(item, content.Name)
	item.Location = fmt.Sprintf("VolumeSnapshot %s/%s, VolumeSnapshotContent %s, %s%s", snap.Namespace, snap.Name, content.Name, groupLocation, gr.key)
	if !retained(content) {
		item.Message = "waits for the content's deletionPolicy to be Retain"
		g.x.Journal.Intend(v1alpha1.ActionRetainSnapshot, refOf(snapshotKind, snap), keepDetail) // comes next
		return item, retain(ctx, g.x, content)
	}
	g.x.Journal.Done(v1alpha1.ActionRetainSnapshot, refOf(contentKind, content))
	ready := g.ready(item, snap, content)
	if !ready && g.late(item) { // what is given up is not marked again
		return g.waitMember(ctx, item, gr, taken, waitsForReady+snapshotError(snap))
	}
	if kept, err := g.keepMember(ctx, snap); err != nil || !kept {
		item.Message = "waits for the snapshot to be marked as evidence"
		return item, err
	}
	if !ready {
		return g.waitMember(ctx, item, gr, taken, waitsForReady+snapshotError(snap))
	}
	item = preserved(item, fmt.Sprintf("taken at one moment with the other volumes of its workload by VolumeGroupSnapshot %s, VolumeGroupSnapshotContent %s", gr.key, groupContent.GetName()))
	item.TakenAt, item.SnapshotHandle = takenAt(groupContent, content), ptr.Deref(content.Status.SnapshotHandle, "")
	return item, nil
}

// takenAt is when the group was taken; where the driver does not say, when the member was.
func takenAt(group *unstructured.Unstructured, content *snapshotv1.VolumeSnapshotContent) metav1.Time {
	if at, err := time.Parse(time.RFC3339, text(group, "status", "creationTime")); err == nil {
		return metav1.NewTime(at)
	}
	if content.Status != nil && content.Status.CreationTime != nil {
		return metav1.NewTime(time.Unix(0, *content.Status.CreationTime))
	}
	return metav1.Time{}
}

// waitMember keeps the item pending until its deadline.
func (g *groups) waitMember(ctx context.Context, item v1alpha1.EvidenceItem, gr group, taken *unstructured.Unstructured, message string) (v1alpha1.EvidenceItem, error) {
	if g.late(item) {
		return g.leave(ctx, item, gr, taken, reason(item, message))
	}
	item.Message = message
	return item, nil
}

// member finds the snapshot of the item's claim among those that the snapshot controller made of the group: the API has no list of them.
func (g *groups) member(ctx context.Context, item v1alpha1.EvidenceItem, taken *unstructured.Unstructured) (_ *snapshotv1.VolumeSnapshot, _ *snapshotv1.VolumeSnapshotContent, why string, _ error) {
	members, err := g.membersOf(ctx, taken)
	if err != nil {
		return nil, nil, "", err
	}
	i := slices.IndexFunc(members, func(s *snapshotv1.VolumeSnapshot) bool { return ofClaim(s, item.Subject.Name) })
	if i < 0 {
		return nil, nil, "waits for the group's VolumeSnapshot of the claim" + groupError(taken), nil
	}
	snap := members[i]
	if snap.Status == nil || snap.Status.BoundVolumeSnapshotContentName == nil {
		return nil, nil, "waits for the snapshot to be bound to its content" + snapshotError(snap), nil
	}
	var content snapshotv1.VolumeSnapshotContent
	name := *snap.Status.BoundVolumeSnapshotContentName
	err = g.Reader.Get(ctx, client.ObjectKey{Name: name}, &content)
	if apierrors.IsNotFound(err) {
		return nil, nil, fmt.Sprintf("waits for VolumeSnapshotContent %s, to which the snapshot says it is bound", name), nil
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("reading VolumeSnapshotContent %s: %w", name, err)
	}
	return snap, &content, misbound(item.Volume, snap, &content), nil
}

// membersOf are the snapshots that say they were taken by the group. Which volume each is of is verified by its content.
func (g *groups) membersOf(ctx context.Context, taken *unstructured.Unstructured) ([]*snapshotv1.VolumeSnapshot, error) {
	var list snapshotv1.VolumeSnapshotList
	if err := g.Reader.List(ctx, &list, client.InNamespace(taken.GetNamespace())); err != nil {
		return nil, fmt.Errorf("listing the VolumeSnapshots of VolumeGroupSnapshot %s/%s: %w", taken.GetNamespace(), taken.GetName(), err)
	}
	var out []*snapshotv1.VolumeSnapshot
	for i := range list.Items {
		snap := &list.Items[i]
		owned := slices.ContainsFunc(snap.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == groupKind && o.UID == taken.GetUID() })
		if owned && (snap.Status == nil || snap.Status.VolumeGroupSnapshotName == nil || *snap.Status.VolumeGroupSnapshotName == taken.GetName()) {
			out = append(out, snap)
		}
	}
	return out, nil
}

// keepMember marks the snapshot of a member, which the snapshot controller has made, as what it is, and reports whether it is marked.
func (g *groups) keepMember(ctx context.Context, snap *snapshotv1.VolumeSnapshot) (bool, error) {
	ref := refOf(snapshotKind, snap)
	if unkept(snap) == nil && snap.Labels[v1alpha1.IncidentUIDLabel] == string(g.Incident.UID) {
		g.x.Journal.Done(v1alpha1.ActionRetainSnapshot, ref)
		return true, nil
	}
	if !g.x.Journal.IntendAnew(v1alpha1.ActionRetainSnapshot, ref, keepDetail) {
		return false, nil
	}
	labels := measure.OwnedLabels(g.Incident)
	labels[v1alpha1.EvidenceLabel] = evidenceKept
	patch, err := keepPatch(snap, labels)
	if err != nil {
		return false, err
	}
	return false, patchObject(ctx, g.x, ref, snap, patch, keepDetail)
}

// leave takes an item out of its group: it is taken by itself if there is time and the standing orders let it, and is a gap otherwise. What was changed for the group is changed back first, and a
// group that came to nothing is deleted. Without taken nothing is known of the group, or it is not ours to delete.
func (g *groups) leave(ctx context.Context, item v1alpha1.EvidenceItem, gr group, taken *unstructured.Unstructured, why string) (v1alpha1.EvidenceItem, error) {
	item.Message = late + ": " + why
	if restored, err := g.restoreClaim(ctx, item, gr); err != nil || !restored {
		return item, err
	}
	if taken != nil {
		if gone, err := g.removeGroup(ctx, item, gr, taken); err != nil || !gone {
			return item, err
		}
	}
	if g.required() || g.late(item) {
		return gap(item, item.Message), nil
	}
	item = supersede(item, "")
	item.Location, item.Message = "", "is snapshotted by itself: "+why
	return item, nil
}

// removeGroup deletes a group that came to nothing, and reports whether there is nothing left to do about it. The snapshot controller deletes the members with it, which takes our mark off the item's.
func (g *groups) removeGroup(ctx context.Context, item v1alpha1.EvidenceItem, gr group, taken *unstructured.Unstructured) (bool, error) {
	members, err := g.membersOf(ctx, taken)
	if err != nil || useful(gr, members) {
		return err == nil, err
	}
	for _, snap := range members {
		if _, marked := snap.Labels[v1alpha1.EvidenceLabel]; ofClaim(snap, item.Subject.Name) && (marked || held(snap)) {
			return false, release(ctx, g.x, refOf(snapshotKind, snap), snap, "let go what goes with its group")
		}
	}
	if !taken.GetDeletionTimestamp().IsZero() && !held(taken) {
		return true, nil
	}
	return false, remove(ctx, g.x, refOf(groupKind, taken), taken)
}

// useful reports whether the group has the snapshot of any member: it is then kept.
func useful(gr group, members []*snapshotv1.VolumeSnapshot) bool {
	return slices.ContainsFunc(gr.members, isPreserved) ||
		slices.ContainsFunc(members, func(s *snapshotv1.VolumeSnapshot) bool { return s.Status != nil && isTrue(s.Status.ReadyToUse) })
}
