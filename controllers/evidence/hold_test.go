package evidence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	groupsnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
)

const (
	sourceFinalizer = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
	memberFinalizer = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"
	groupFinalizer  = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection"
)

// lab is a cluster in which passes are run over one Incident, with a snapshot controller that makes the objects that the real one (v8.7) makes.
type lab struct {
	t      *testing.T
	client client.Client
	inc    *v1alpha1.Incident
	orders v1alpha1.EvidenceOrders
	pods   []*corev1.Pod
	now    time.Time
	dryRun bool

	// unbound and unready are what the storage system does not get done; before is called before every write.
	unbound, unready bool
	before           func(v1alpha1.PlannedAction) error
	writes           []string
	// failing is why groups are not taken, slow the claim whose member is not ready, leftOut the one that the controller overlooks.
	failing, slow, leftOut string
	// again ends the names of what is taken, as the real controller gives every snapshot a content of its own.
	again string
}

func newLab(t *testing.T, claims ...string) *lab {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme, groupsnapshotv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t, inc: incident(), now: now, orders: v1alpha1.EvidenceOrders{SnapshotDeadlineSeconds: 60}}
	l.inc.Status = v1alpha1.IncidentStatus{}
	objs := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Finalizers: []string{"test"}}}, class("only", "csi.example", true),
	}
	for i, name := range claims {
		uid := types.UID(fmt.Sprintf("pod-%d", i))
		l.pods = append(l.pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: string(uid), UID: uid},
			Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}}}},
		})
		l.inc.Status.Pods = append(l.inc.Status.Pods, v1alpha1.PodStatus{
			Namespace: "shop", Name: string(uid), UID: string(uid), Handling: v1alpha1.HandlingDetached, Owner: v1alpha1.ObjectRef{Kind: "StatefulSet", Name: "db", UID: "db-uid"},
		})
		objs = append(objs,
			&corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name)}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
			},
			&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name}, Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example", VolumeHandle: "vol-" + name}},
			}})
	}
	l.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objs...).
		WithStatusSubresource(&snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotContent{}, &groupsnapshotv1.VolumeGroupSnapshot{}, &groupsnapshotv1.VolumeGroupSnapshotContent{}).Build()
	return l
}

// Write implements Writer.
func (l *lab) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	if l.before != nil {
		if err := l.before(op); err != nil {
			return err
		}
	}
	l.writes = append(l.writes, op.Verb+" "+op.Object.Kind)
	if l.dryRun {
		return nil
	}
	return fn(ctx, l.client)
}

func (l *lab) execution() *Execution {
	return &Execution{
		Reader: l.client, Writer: l, Journal: journal.New(l.inc.Status.Journal, metav1.NewTime(l.now), l.dryRun), Incident: l.inc.DeepCopy(), Orders: l.orders, Now: l.now, DryRun: l.dryRun,
		Pod: func(uid string) *corev1.Pod {
			i := slices.IndexFunc(l.pods, func(p *corev1.Pod) bool { return string(p.UID) == uid })
			if i < 0 {
				return nil
			}
			return l.pods[i]
		},
	}
}

// pass is one pass of the reconciler; one that crashes forgets what it has learned.
func (l *lab) pass(crash bool) error {
	l.t.Helper()
	x := l.execution()
	next := l.inc.Status.DeepCopy()
	for _, item := range (VolumeSnapshots{}).Begin(x, l.pods) {
		if !slices.ContainsFunc(next.Evidence, func(e v1alpha1.EvidenceItem) bool { return e.ID == item.ID }) {
			next.Evidence = append(next.Evidence, item)
		}
	}
	var failures []error
	for i := range next.Evidence {
		if next.Evidence[i].State != v1alpha1.EvidencePending {
			continue
		}
		observed, err := (VolumeSnapshots{}).Collect(context.Background(), x, next.Evidence[i])
		failures = append(failures, err)
		next.Evidence[i] = observed
	}
	failures = append(failures, LetGo(context.Background(), x))
	if !crash {
		next.Journal = x.Journal.Entries()
		l.inc.Status = *next
	}
	return errors.Join(failures...)
}

// passes runs passes, and the snapshot controller after each.
func (l *lab) passes(n int) {
	l.t.Helper()
	for range n {
		if err := l.pass(false); err != nil {
			l.t.Fatal(err)
		}
		l.control()
	}
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// control is one round of the snapshot controller and the driver's sidecar.
func (l *lab) control() {
	l.t.Helper()
	ctx := context.Background()
	var snaps snapshotv1.VolumeSnapshotList
	l.must(l.client.List(ctx, &snaps))
	for i := range snaps.Items {
		snap := &snaps.Items[i]
		switch {
		case !snap.DeletionTimestamp.IsZero():
			l.finish(ctx, snap)
		case !controllerutil.ContainsFinalizer(snap, memberFinalizer):
			l.take(ctx, snap)
		}
	}
	l.controlGroups(ctx)
}

func (l *lab) take(ctx context.Context, snap *snapshotv1.VolumeSnapshot) {
	l.t.Helper()
	if snap.UID == "" {
		snap.UID = types.UID("uid-of-" + snap.Name + l.again) // the fake server gives none
	}
	controllerutil.AddFinalizer(snap, sourceFinalizer)
	l.must(l.client.Update(ctx, snap))
	if l.unbound {
		return
	}
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "content-" + snap.Name + l.again, UID: types.UID("content-of-" + snap.Name + l.again)},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: "csi.example",
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: snap.Namespace, Name: snap.Name, UID: snap.UID},
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: new("vol-" + *snap.Spec.Source.PersistentVolumeClaimName)},
		},
	}
	l.must(client.IgnoreAlreadyExists(l.client.Create(ctx, content)))
	l.must(l.client.Get(ctx, client.ObjectKeyFromObject(content), content))
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{ReadyToUse: new(!l.unready), CreationTime: new(now.UnixNano())}
	l.must(l.client.Status().Update(ctx, content))
	snap.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: new(content.Name), ReadyToUse: new(!l.unready)}
	l.must(l.client.Status().Update(ctx, snap))
}

// finish does what the controller does when a snapshot is deleted: the content goes with it, unless it is retained.
func (l *lab) finish(ctx context.Context, snap *snapshotv1.VolumeSnapshot) {
	l.t.Helper()
	if snap.Status != nil && snap.Status.BoundVolumeSnapshotContentName != nil {
		var content snapshotv1.VolumeSnapshotContent
		err := l.client.Get(ctx, client.ObjectKey{Name: *snap.Status.BoundVolumeSnapshotContentName}, &content)
		l.must(client.IgnoreNotFound(err))
		if err == nil && content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete {
			l.must(l.client.Delete(ctx, &content))
		}
	}
	controllerutil.RemoveFinalizer(snap, sourceFinalizer)
	controllerutil.RemoveFinalizer(snap, memberFinalizer)
	l.must(client.IgnoreNotFound(l.client.Update(ctx, snap)))
}

// item is the item of the first claim.
func (l *lab) item() v1alpha1.EvidenceItem { return l.inc.Status.Evidence[0] }

// snapshot is the snapshot that is taken of the first claim, or nil when it does not exist.
func (l *lab) snapshot() *snapshotv1.VolumeSnapshot {
	l.t.Helper()
	var snap snapshotv1.VolumeSnapshot
	key := client.ObjectKey{Namespace: "shop", Name: snapshotsOf(l.execution()).snapshotName(l.item())}
	err := l.client.Get(context.Background(), key, &snap)
	l.must(client.IgnoreNotFound(err))
	if err != nil {
		return nil
	}
	return &snap
}

// content is its content, or nil.
func (l *lab) content() *snapshotv1.VolumeSnapshotContent {
	l.t.Helper()
	var list snapshotv1.VolumeSnapshotContentList
	l.must(l.client.List(context.Background(), &list))
	if len(list.Items) == 0 {
		return nil
	}
	return &list.Items[0]
}

// undone are the entries of the journal whose effect was not observed.
func (l *lab) undone() []string {
	var out []string
	for _, e := range l.inc.Status.Journal {
		if e.State != v1alpha1.JournalDone {
			out = append(out, fmt.Sprintf("%s of %s", e.Action, e.Object.Kind))
		}
	}
	return out
}

func (l *lab) deleteNamespace() {
	l.t.Helper()
	l.must(l.client.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}))
}

func TestCollectHoldsWhatItTakes(t *testing.T) {
	l := newLab(t, "data")
	l.passes(1)
	if snap := l.snapshot(); snap == nil || !held(snap) || snap.Labels[v1alpha1.EvidenceLabel] != "taking" {
		t.Fatalf("snapshot = %+v, want it held from its creation", snap)
	}
	l.passes(2)
	if diff := cmp.Diff([]string{"create VolumeSnapshot", "patch VolumeSnapshotContent"}, l.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	content := l.content()
	if content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain || content.Labels[v1alpha1.EvidenceLabel] != "kept" {
		t.Errorf("content = %+v, want it retained and marked", content)
	}
	if l.snapshot().Labels[v1alpha1.EvidenceLabel] != "taking" || l.item().State != v1alpha1.EvidencePending {
		t.Error("the snapshot counts as kept before Retain was observed")
	}
	l.passes(1)
	snap := l.snapshot()
	if l.item().State != v1alpha1.EvidenceCollected || snap.Labels[v1alpha1.EvidenceLabel] != "kept" || !held(snap) || !slices.Contains(snap.Finalizers, sourceFinalizer) {
		t.Errorf("item = %+v, snapshot = %+v, want it collected and kept", l.item(), snap.ObjectMeta)
	}
	if left := l.undone(); len(left) > 0 {
		t.Errorf("left in the journal: %v", left)
	}
}

func TestCollectSaysNothingIsKeptBeforeItIsMarked(t *testing.T) {
	l := newLab(t, "data")
	l.passes(3)
	l.before = func(v1alpha1.PlannedAction) error { return errors.New("away") }
	if err := l.pass(false); err == nil || l.item().State != v1alpha1.EvidencePending {
		t.Errorf("pass() = %v, item = %+v, want it pending until its snapshot is marked", err, l.item())
	}
	l.before = nil
	l.passes(1)
	if l.item().State != v1alpha1.EvidenceCollected {
		t.Errorf("item = %+v", l.item())
	}
}

// What a pass that crashes has written is found by the next.
func TestCollectSurvivesCrashes(t *testing.T) {
	for after := range 5 {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			l := newLab(t, "data")
			l.passes(after)
			l.must(l.pass(true))
			l.control()
			l.passes(5)
			if l.item().State != v1alpha1.EvidenceCollected || l.snapshot().Labels[v1alpha1.EvidenceLabel] != "kept" {
				t.Errorf("item = %+v, want it collected", l.item())
			}
			if left := l.undone(); len(left) > 0 {
				t.Errorf("left in the journal: %v", left)
			}
		})
	}
}

func TestCollectOnlyPlansInADryRun(t *testing.T) {
	l := newLab(t, "data")
	l.dryRun, l.orders.VolumeGroups = true, v1alpha1.VolumeGroupPrefer
	l.must(l.pass(true))
	if diff := cmp.Diff([]string{"create VolumeSnapshot"}, l.writes); diff != "" {
		t.Errorf("planned (-want +got):\n%s", diff)
	}
}

func TestCollectRemovesWhatCameToNothing(t *testing.T) {
	cases := map[string]struct {
		unbound bool
		want    string
	}{
		"not ready": {want: late + ": waits for the snapshot to be ready to use"},
		"not bound": {unbound: true, want: late + ": waits for the snapshot to be bound to its content"},
	}
	for name, tc := range cases {
		for crash := range 4 {
			t.Run(fmt.Sprintf("%s, crash after %d", name, crash), func(t *testing.T) {
				l := newLab(t, "data")
				l.unready, l.unbound = true, tc.unbound
				l.passes(4)
				l.now = l.now.Add(time.Minute + 1)
				l.passes(crash)
				l.must(l.pass(true))
				l.control()
				l.passes(5)
				if item := l.item(); item.State != v1alpha1.EvidenceGap || item.Message != tc.want {
					t.Errorf("item = %s %q, want a gap: %q", item.State, item.Message, tc.want)
				}
				if snap := l.snapshot(); snap != nil {
					t.Errorf("snapshot = %+v, want it gone: it keeps its claim from being deleted", snap.ObjectMeta)
				}
				if content := l.content(); !tc.unbound && (content == nil || !retained(content)) {
					t.Errorf("content = %+v, want it kept: it may still become what it should be", content)
				}
				if left := l.undone(); len(left) > 0 {
					t.Errorf("left in the journal: %v", left)
				}
			})
		}
	}
}

func TestCollectRemovesNothingThatBecameReady(t *testing.T) {
	l := newLab(t, "data")
	l.unready = true
	l.passes(4)
	l.now = l.now.Add(time.Minute + 1)
	l.passes(1) // has the intent
	becomesReady := func() {
		l.unready = false
		l.control()
	}
	l.before = func(op v1alpha1.PlannedAction) error { // after it was looked at
		if op.Verb == "delete" {
			becomesReady()
		}
		return nil
	}
	l.passes(1)
	if !slices.Contains(l.writes, "delete VolumeSnapshot") {
		t.Fatalf("writes = %v, want the deletion to be tried", l.writes)
	}
	if snap := l.snapshot(); snap == nil || !snap.DeletionTimestamp.IsZero() {
		t.Fatalf("snapshot = %+v, want it not deleted: it has become ready", snap)
	}
	l.passes(1)
	if l.item().State != v1alpha1.EvidenceCollected || !held(l.snapshot()) {
		t.Errorf("item = %+v, want it collected late", l.item())
	}
}

func TestLetGo(t *testing.T) {
	ctx := context.Background()
	deleted := func(l *lab) { l.must(l.client.Delete(ctx, l.snapshot())) }
	change := func(change func(*snapshotv1.VolumeSnapshotContent)) func(*lab) {
		return func(l *lab) {
			content := l.content()
			change(content)
			l.must(l.client.Update(ctx, content))
		}
	}
	cases := map[string]struct {
		changes []func(*lab)
		stays   bool
	}{
		"its namespace goes":       {changes: []func(*lab){deleted, (*lab).deleteNamespace}},
		"its namespace stays":      {changes: []func(*lab){deleted}, stays: true},
		"it is not deleted itself": {changes: []func(*lab){(*lab).deleteNamespace}, stays: true},
		"its content is made to go": {changes: []func(*lab){change(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete
		}), deleted, (*lab).deleteNamespace}},
		"its content is of another": {changes: []func(*lab){change(func(c *snapshotv1.VolumeSnapshotContent) { c.Spec.VolumeSnapshotRef.UID = "other" }), deleted, (*lab).deleteNamespace}, stays: true},
		"its content is gone":       {changes: []func(*lab){func(l *lab) { l.must(l.client.Delete(ctx, l.content())) }, deleted, (*lab).deleteNamespace}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "data")
			l.passes(4)
			for _, change := range tc.changes {
				change(l)
			}
			var policies []snapshotv1.DeletionPolicy
			for range 4 {
				if content := l.content(); content != nil {
					policies = append(policies, content.Spec.DeletionPolicy)
				}
				l.must(l.pass(false))
				if l.snapshot() != nil && held(l.snapshot()) {
					continue
				}
				l.control()
			}
			if got := l.snapshot() != nil; got != tc.stays {
				t.Errorf("snapshot stays: %v, want %v", got, tc.stays)
			}
			if content := l.content(); len(policies) > 2 && (content == nil || content.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain) {
				t.Errorf("content = %+v, want it retained before its snapshot goes", content)
			}
		})
	}
}

// A gap may have been declared when the API server could not be read.
func TestLetGoRemovesWhatGapsLeft(t *testing.T) {
	l := newLab(t, "data")
	l.unready = true
	l.passes(4)
	l.inc.Status.Evidence[0].State, l.inc.Status.Evidence[0].Message = v1alpha1.EvidenceGap, "away"
	l.passes(4)
	if l.snapshot() != nil || l.item().Message != "away" {
		t.Errorf("snapshot = %+v, item = %+v, want what was left removed", l.snapshot(), l.item())
	}

	l = newLab(t, "data")
	l.passes(4)
	l.inc.Status.Evidence[0].State = v1alpha1.EvidenceGap
	l.passes(4)
	if l.snapshot() == nil {
		t.Error("a snapshot that is ready was removed because its item is a gap")
	}
}

// removal calls ReleaseSnapshotHold for the items until all are gone, as passes do.
func (l *lab) removal(n int) bool {
	l.t.Helper()
	done := false
	for range n {
		x := l.execution()
		done = true
		for _, item := range l.inc.Status.Evidence {
			gone, err := ReleaseSnapshotHold(context.Background(), x, item)
			l.must(err)
			done = done && gone
		}
		l.inc.Status.Journal = x.Journal.Entries()
		if done {
			return true
		}
		l.control()
	}
	return done
}

func TestReleaseSnapshotHold(t *testing.T) {
	ctx := context.Background()
	t.Run("removes snapshot and content", func(t *testing.T) {
		l := newLab(t, "data")
		l.passes(4)
		l.writes = nil
		if !l.removal(10) || l.snapshot() != nil || l.content() != nil {
			t.Errorf("snapshot = %+v, content = %+v, want both gone", l.snapshot(), l.content())
		}
		if diff := cmp.Diff([]string{"patch VolumeSnapshotContent", "patch VolumeSnapshot", "delete VolumeSnapshot"}, l.writes); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		if left := l.undone(); len(left) > 0 {
			t.Errorf("left in the journal: %v", left)
		}
	})
	t.Run("after its namespace has gone", func(t *testing.T) {
		l := newLab(t, "data")
		l.passes(4)
		l.must(l.client.Delete(ctx, l.snapshot()))
		l.deleteNamespace()
		l.passes(2)
		if l.snapshot() != nil || l.content() == nil {
			t.Fatal("want the content to outlive its snapshot")
		}
		if !l.removal(10) || l.content() != nil {
			t.Errorf("content = %+v, want it gone", l.content())
		}
	})
	t.Run("touches nothing of others", func(t *testing.T) {
		l := newLab(t, "data")
		l.passes(4)
		snap, content := l.snapshot(), l.content()
		snap.Labels[v1alpha1.IncidentUIDLabel] = "other"
		l.must(l.client.Update(ctx, snap))
		content.Spec.VolumeSnapshotRef.Name = "other"
		l.must(l.client.Update(ctx, content))
		l.writes = nil
		if !l.removal(1) || len(l.writes) > 0 {
			t.Errorf("writes = %v, want none", l.writes)
		}
	})
	t.Run("of a gap", func(t *testing.T) {
		l := newLab(t, "data")
		l.orders.VolumeSnapshots = v1alpha1.SnapshotSkip
		l.passes(1)
		if !l.removal(1) {
			t.Error("a gap cannot be removed")
		}
	})
}

func TestPatches(t *testing.T) {
	bare := &metav1.ObjectMeta{UID: "u", ResourceVersion: "7"}
	full := &metav1.ObjectMeta{UID: "u", Labels: map[string]string{"a": "b", v1alpha1.EvidenceLabel: "kept"}, Finalizers: []string{"x", v1alpha1.EvidenceFinalizer}}
	going := &metav1.ObjectMeta{UID: "u", ResourceVersion: "7", DeletionTimestamp: new(metav1.NewTime(now))}
	labels := map[string]string{v1alpha1.EvidenceLabel: "kept"}
	const uid = `{"op":"test","path":"/metadata/uid","value":"u"}`
	const rv = `{"op":"test","path":"/metadata/resourceVersion","value":"7"}`
	const mark = `{"op":"add","path":"/metadata/labels/containment.cofferdam.dev~1evidence","value":"kept"}`
	const marks = `{"op":"add","path":"/metadata/labels","value":{"containment.cofferdam.dev/evidence":"kept"}}`
	const finalizers = `{"op":"add","path":"/metadata/finalizers","value":["containment.cofferdam.dev/evidence"]}`
	const retain = `{"op":"replace","path":"/spec/deletionPolicy","value":"Retain"}`
	keep := func(obj metav1.Object) func() ([]byte, error) {
		return func() ([]byte, error) { return keepPatch(obj, labels) }
	}
	cases := map[string]struct {
		patch func() ([]byte, error)
		want  []string
	}{
		"retain, without labels": {func() ([]byte, error) { return retainPatch(bare) }, []string{uid, rv, marks, retain}},
		"retain, with labels":    {func() ([]byte, error) { return retainPatch(full) }, []string{uid, mark, retain}},
		"keep what has nothing":  {keep(bare), []string{uid, rv, marks, rv, finalizers}},
		"keep what is held":      {keep(full), []string{uid, mark}},
		"keep what is going":     {keep(going), []string{uid, rv, marks}},
		"release": {func() ([]byte, error) { return releasePatch(full) }, []string{
			uid, `{"op":"remove","path":"/metadata/labels/containment.cofferdam.dev~1evidence"}`,
			`{"op":"test","path":"/metadata/finalizers/1","value":"containment.cofferdam.dev/evidence"}`, `{"op":"remove","path":"/metadata/finalizers/1"}`,
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			raw, err := tc.patch()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("["+strings.Join(tc.want, ",")+"]", string(raw)); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
		})
	}
	if raw, err := releasePatch(bare); raw != nil || err != nil {
		t.Errorf("releasePatch() of what is not held = %s, %v, want nothing", raw, err)
	}
}
