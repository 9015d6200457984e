package evidence

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func readerOf(objs ...client.Object) client.Reader {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objs...).Build()
}

// failing answers some kinds with an error.
type failing struct {
	client.Reader
	errs map[string]error
}

func (f failing) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := f.errs[kindOf(obj)]; err != nil {
		return err
	}
	return f.Reader.Get(ctx, key, obj, opts...)
}

func (f failing) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := f.errs[kindOf(list)]; err != nil {
		return err
	}
	return f.Reader.List(ctx, list, opts...)
}

func kindOf(obj any) string {
	switch obj.(type) {
	case *snapshotv1.VolumeSnapshot:
		return "VolumeSnapshot"
	case *snapshotv1.VolumeSnapshotContent:
		return "VolumeSnapshotContent"
	case *snapshotv1.VolumeSnapshotClassList:
		return "VolumeSnapshotClassList"
	case *corev1.PersistentVolumeClaim:
		return "PersistentVolumeClaim"
	case *corev1.PersistentVolume:
		return "PersistentVolume"
	}
	return ""
}

var claimKey = client.ObjectKey{Namespace: "shop", Name: "data"}

// world is everything that a snapshot depends on, whole until a test changes it.
type world struct {
	claim   *corev1.PersistentVolumeClaim
	volume  *corev1.PersistentVolume
	classes []*snapshotv1.VolumeSnapshotClass
	snap    *snapshotv1.VolumeSnapshot
	content *snapshotv1.VolumeSnapshotContent
	item    v1alpha1.EvidenceItem
	orders  v1alpha1.EvidenceOrders
	errs    map[string]error
	now     time.Time
}

func class(name, driver string, isDefault bool) *snapshotv1.VolumeSnapshotClass {
	out := &snapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Driver: driver}
	if isDefault {
		out.Annotations = map[string]string{defaultClassAnnotation: "true"}
	}
	return out
}

// untouched is a claim that can be snapshotted and was not yet.
func untouched() *world {
	w := &world{
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim-uid"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
		},
		volume: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example", VolumeHandle: "vol-1"}},
		}},
		classes: []*snapshotv1.VolumeSnapshotClass{class("only", "csi.example", false), class("other", "csi.other", true)},
		orders:  v1alpha1.EvidenceOrders{VolumeSnapshots: v1alpha1.SnapshotCollect, SnapshotDeadlineSeconds: 60},
		errs:    map[string]error{},
		now:     now,
	}
	w.item = w.snapshots().Begin(claimKey, []string{"pod-uid"})
	return w
}

// safe is a claim whose snapshot is bound, retained and ready.
func safe() *world {
	w := untouched()
	w.item.Subject.UID, w.item.Volume = "claim-uid", "vol-1"
	w.snap = w.snapshots().build(client.ObjectKey{Namespace: "shop", Name: w.snapshots().snapshotName(w.item)}, w.claim.Name, "only")
	w.snap.UID, w.snap.Labels[v1alpha1.EvidenceLabel] = "snap-uid", "kept"
	w.snap.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: new("content"), ReadyToUse: new(true)}
	w.content = &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "content", UID: "content-uid", Labels: map[string]string{v1alpha1.EvidenceLabel: "kept"}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy:    snapshotv1.VolumeSnapshotContentRetain,
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: w.snap.Name, UID: "snap-uid"},
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: new("vol-1")},
		},
		Status: &snapshotv1.VolumeSnapshotContentStatus{ReadyToUse: new(true), CreationTime: new(now.Add(-time.Minute).UnixNano())},
	}
	return w
}

func (w *world) snapshots() *Snapshots {
	var objs []client.Object
	if w.claim != nil {
		objs = append(objs, w.claim)
	}
	if w.volume != nil {
		objs = append(objs, w.volume)
	}
	for _, c := range w.classes {
		objs = append(objs, c)
	}
	if w.snap != nil {
		objs = append(objs, w.snap)
	}
	if w.content != nil {
		objs = append(objs, w.content)
	}
	return &Snapshots{Reader: failing{Reader: readerOf(objs...), errs: w.errs}, Incident: incident(), Orders: w.orders, Now: w.now}
}

func (w *world) observe(t *testing.T) (v1alpha1.EvidenceItem, Step) {
	t.Helper()
	item, step, err := w.snapshots().observe(context.Background(), w.item)
	if err != nil {
		t.Fatal(err)
	}
	return item, step
}

func (w *world) after(d time.Duration) *world {
	w.now = w.now.Add(d)
	return w
}

func changed(w *world, changes ...func(*world)) *world {
	for _, change := range changes {
		change(w)
	}
	return w
}

// cameToNothing is a claim whose snapshot is bound and retained, and does not become ready.
func cameToNothing() *world {
	return changed(safe(), func(w *world) { w.snap.Status.ReadyToUse, w.content.Status.ReadyToUse = new(false), new(false) })
}

func beingDeleted(w *world) { w.snap.DeletionTimestamp = new(metav1.NewTime(now)) }

func TestClaims(t *testing.T) {
	mounting := func(name, uid string, volumes ...corev1.Volume) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)}, Spec: corev1.PodSpec{Volumes: volumes}}
	}
	claim := func(volume, name string) corev1.Volume {
		return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}
	}
	scratch := corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}
	empty := corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	elsewhere := mounting("web-3", "u3", claim("v", "data"))
	elsewhere.Namespace = "bank"

	want := map[client.ObjectKey][]string{
		{Namespace: "shop", Name: "data"}:          {"u1", "u2"},
		{Namespace: "shop", Name: "web-1-scratch"}: {"u1"},
		{Namespace: "bank", Name: "data"}:          {"u3"},
	}
	got := Claims([]*corev1.Pod{mounting("web-2", "u2", claim("v", "data"), claim("w", "data"), empty), mounting("web-1", "u1", scratch, claim("v", "data")), elsewhere})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Claims() (-want +got):\n%s", diff)
	}
}

func TestBegin(t *testing.T) {
	w := untouched()
	want := v1alpha1.EvidenceItem{
		ID: SnapshotID(claimKey), Type: v1alpha1.EvidenceVolumeSnapshot, Pods: []string{"pod-uid"}, State: v1alpha1.EvidencePending,
		Subject: v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data"}, Deadline: metav1.NewTime(now.Add(time.Minute)),
	}
	if diff := cmp.Diff(want, w.item); diff != "" {
		t.Errorf("Begin() (-want +got):\n%s", diff)
	}
	w.orders.VolumeSnapshots = v1alpha1.SnapshotSkip
	if got := w.snapshots().Begin(claimKey, nil); got.State != v1alpha1.EvidenceGap || got.Message == "" {
		t.Errorf("Begin() with Skip = %+v, want a declared gap", got)
	}
}

func TestObserveDeclaresGaps(t *testing.T) {
	noMatch := &apimeta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "snapshot.storage.k8s.io", Kind: "VolumeSnapshot"}}
	cases := map[string]struct {
		world *world
		want  string
	}{
		"API missing":                    {changed(untouched(), func(w *world) { w.errs["VolumeSnapshot"] = noMatch }), "not installed"},
		"API missing since a moment ago": {changed(untouched(), func(w *world) { w.errs["VolumeSnapshotClassList"] = apierrors.NewNotFound(schema.GroupResource{}, "") }), "not installed"},
		"API of classes missing":         {changed(untouched(), func(w *world) { w.errs["VolumeSnapshotClassList"] = noMatch }), "not installed"},
		"claim gone":                     {changed(untouched(), func(w *world) { w.claim = nil }), "does not exist any more"},
		"claim replaced":                 {changed(untouched(), func(w *world) { w.item.Subject.UID = "an-earlier-uid" }), "namesake"},
		"claim terminating": {changed(untouched(), func(w *world) {
			w.claim.DeletionTimestamp, w.claim.Finalizers = new(metav1.NewTime(now)), []string{"kubernetes.io/pvc-protection"}
		}), "being deleted"},
		"volume gone":            {changed(untouched(), func(w *world) { w.volume = nil }), "PersistentVolume pv does not exist"},
		"not CSI":                {changed(untouched(), func(w *world) { w.volume.Spec.CSI = nil }), "not a CSI volume"},
		"no class of the driver": {changed(untouched(), func(w *world) { w.classes = w.classes[1:] }), "no VolumeSnapshotClass for driver csi.example"},
		"several classes, none default": {changed(untouched(), func(w *world) {
			w.classes = append(w.classes, class("second", "csi.example", false))
		}), "several VolumeSnapshotClasses"},
		"several classes, two defaults": {changed(untouched(), func(w *world) {
			w.classes = []*snapshotv1.VolumeSnapshotClass{class("a", "csi.example", true), class("b", "csi.example", true)}
		}), "not exactly one default"},
		"unbound at the deadline":     {changed(untouched(), func(w *world) { w.claim.Spec.VolumeName = "" }).after(time.Minute + 1), "bound to a volume"},
		"not created at the deadline": {untouched().after(time.Minute + 1), "before the deadline"},
		"namesake of the snapshot": {changed(safe(), func(w *world) {
			w.snap.Labels[v1alpha1.IncidentUIDLabel] = "other"
		}), "not ours"},
		"snapshot of another claim": {changed(safe(), func(w *world) {
			w.snap.Spec.Source.PersistentVolumeClaimName = new("decoy")
		}), "not ours"},
		"removed after the deadline": {changed(untouched(), func(w *world) { w.item.Message = late + ": quota" }).after(time.Minute + 1), "quota"},
		"being deleted, and let go":  {changed(cameToNothing(), beingDeleted, func(w *world) { w.snap.Finalizers = []string{"other"} }).after(time.Minute + 1), "ready to use"},
		"unreadable at the deadline": {changed(safe(), func(w *world) { w.errs["VolumeSnapshot"] = errors.New("away") }).after(time.Minute + 1), "away"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			item, step := tc.world.observe(t)
			if item.State != v1alpha1.EvidenceGap || !strings.Contains(item.Message, tc.want) {
				t.Errorf("observe() = %s %q, want a gap: %q", item.State, item.Message, tc.want)
			}
			if step.Create != nil || step.Retain != nil || step.Keep != nil || step.Remove != nil {
				t.Errorf("step = %+v, want nothing to write for a gap", step)
			}
		})
	}
}

func TestObserveWaits(t *testing.T) {
	cases := map[string]struct {
		world *world
		want  string
	}{
		"claim not bound": {changed(untouched(), func(w *world) { w.claim.Spec.VolumeName = "" }), "bound to a volume"},
		"no status yet":   {changed(safe(), func(w *world) { w.snap.Status = nil }), "bound to its content"},
		"not bound, and why": {changed(safe(), func(w *world) {
			w.snap.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: new("quota")}}
		}), "quota"},
		"content not there":            {changed(safe(), func(w *world) { w.content = nil }), "VolumeSnapshotContent content"},
		"content of another namespace": {changed(safe(), func(w *world) { w.content.Spec.VolumeSnapshotRef.Namespace = "bank" }), "points back"},
		"content of another name":      {changed(safe(), func(w *world) { w.content.Spec.VolumeSnapshotRef.Name = "other" }), "points back"},
		"content of a namesake":        {changed(safe(), func(w *world) { w.content.Spec.VolumeSnapshotRef.UID = "" }), "points back"},
		"content of another volume":    {changed(safe(), func(w *world) { w.content.Spec.Source.VolumeHandle = new("vol-2") }), "another volume"},
		"content of no volume": {changed(safe(), func(w *world) {
			w.content.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: new("s")}
		}), "another volume"},
		"snapshot not ready":                   {changed(safe(), func(w *world) { w.snap.Status.ReadyToUse = nil }), "ready to use"},
		"content not ready":                    {changed(safe(), func(w *world) { w.content.Status.ReadyToUse = new(false) }), "ready to use"},
		"content without status":               {changed(safe(), func(w *world) { w.content.Status = nil }), "ready to use"},
		"not ready at the moment of the limit": {changed(safe(), func(w *world) { w.content.Status = nil }).after(time.Minute), "ready to use"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			item, step := tc.world.observe(t)
			if item.State != v1alpha1.EvidencePending || !strings.Contains(item.Message, tc.want) {
				t.Errorf("observe() = %s %q, want it to wait: %q", item.State, item.Message, tc.want)
			}
			if step.Create != nil || step.Retain != nil || step.Keep != nil || step.Remove != nil {
				t.Errorf("step = %+v, want nothing to write", step)
			}
			if got, want := step.Retained != nil, tc.want == "ready to use"; got != want {
				t.Errorf("Retain was observed: %v, want %v: only of a content that is bound both ways", got, want)
			}
		})
	}
}

func TestObserveCreates(t *testing.T) {
	cases := map[string]struct {
		world *world
		want  string
	}{
		"the only class of the driver": {untouched(), "only"},
		"the default of the driver":    {changed(untouched(), func(w *world) { w.classes = append(w.classes, class("default", "csi.example", true)) }), "default"},
		"the policy's class": {changed(untouched(), func(w *world) {
			w.classes = append(w.classes, class("default", "csi.example", true))
			w.orders.VolumeSnapshotClassName = "only"
		}), "only"},
		"not the policy's, other driver": {changed(untouched(), func(w *world) { w.orders.VolumeSnapshotClassName = "other" }), "only"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			item, step := tc.world.observe(t)
			if item.State != v1alpha1.EvidencePending || step.Create == nil || step.Retain != nil {
				t.Fatalf("observe() = %+v, %+v, want a snapshot to create", item, step)
			}
			if item.Subject.UID != "claim-uid" {
				t.Errorf("subject = %+v, want the UID of the claim to be recorded", item.Subject)
			}
			want := &snapshotv1.VolumeSnapshot{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "shop", Name: "cofferdam-inc-uid-" + strings.TrimPrefix(SnapshotID(claimKey), "snapshot-"),
					Labels: map[string]string{
						"app.kubernetes.io/managed-by": "cofferdam", v1alpha1.IncidentUIDLabel: "inc-uid", v1alpha1.EvidenceLabel: "taking",
					},
					Annotations: map[string]string{v1alpha1.IncidentAnnotation: "soc/inc-1"}, Finalizers: []string{v1alpha1.EvidenceFinalizer},
				},
				Spec: snapshotv1.VolumeSnapshotSpec{
					Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new("data")}, VolumeSnapshotClassName: new(tc.want),
				},
			}
			if diff := cmp.Diff(want, step.Create); diff != "" {
				t.Errorf("snapshot (-want +got):\n%s", diff)
			}
		})
	}
}

// The content is made to outlive the snapshot before anything waits for it to be ready.
func TestObserveRetainsFirst(t *testing.T) {
	w := changed(safe(), func(w *world) {
		w.content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete
		w.snap.Status.ReadyToUse, w.content.Status = nil, nil
	})
	item, step := w.observe(t)
	if item.State != v1alpha1.EvidencePending || step.Retain == nil || step.Retain.UID != "content-uid" || step.Create != nil {
		t.Errorf("observe() = %+v, %+v, want Retain first", item, step)
	}
	w = changed(safe(), func(w *world) { w.content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete })
	if item, step := w.observe(t); item.State != v1alpha1.EvidencePending || step.Retain == nil {
		t.Errorf("observe() of a ready snapshot = %+v, %+v, want Retain before it counts", item, step)
	}
	w = changed(safe(), func(w *world) { w.content.Labels = nil })
	if item, step := w.observe(t); item.State != v1alpha1.EvidencePending || step.Retain == nil {
		t.Errorf("observe() of a content that is retained and not marked = %+v, %+v, want it marked before it counts", item, step)
	}
}

func TestObserveCollects(t *testing.T) {
	w := safe()
	w.item.Message = "waits"
	item, step := w.observe(t)
	want := w.item
	want.State, want.Message, want.TakenAt = v1alpha1.EvidenceCollected, "", metav1.NewTime(now.Add(-time.Minute))
	want.Location = "VolumeSnapshot shop/" + w.snap.Name + ", VolumeSnapshotContent content"
	if diff := cmp.Diff(want, item); diff != "" {
		t.Errorf("observe() (-want +got):\n%s", diff)
	}
	if step.Create != nil || step.Retain != nil || step.Retained == nil || step.Retained.UID != "content-uid" {
		t.Errorf("step = %+v, want only that Retain was observed", step)
	}
	for what, w := range map[string]*world{
		"whose status is not copied any more since it is being deleted": changed(safe(), beingDeleted, func(w *world) { w.snap.Status.ReadyToUse = nil }),
		"whose status is copied late":                                   changed(safe(), func(w *world) { w.snap.Status.ReadyToUse = nil }).after(time.Minute + 1),
	} {
		if item, step := w.observe(t); item.State != v1alpha1.EvidenceCollected || step.Remove != nil {
			t.Errorf("a snapshot %s = %+v, %+v, want it collected", what, item, step)
		}
	}
	if late, _ := safe().after(time.Hour).observe(t); late.State != v1alpha1.EvidenceCollected {
		t.Errorf("a snapshot that is ready when it is first looked at after the deadline = %+v, want it collected", late)
	}
}

func TestObserveLeavesSettledItemsAlone(t *testing.T) {
	for _, state := range []v1alpha1.EvidenceState{v1alpha1.EvidenceCollected, v1alpha1.EvidenceGap} {
		w := untouched()
		w.item.State = state
		w.errs["VolumeSnapshot"] = errors.New("must not be read")
		if item, step := w.observe(t); !cmp.Equal(w.item, item) || step != (Step{}) {
			t.Errorf("observe() of a %s item = %+v, %+v", state, item, step)
		}
	}
}

// Not knowing is not a gap.
func TestObserveTellsWhatCouldNotBeRead(t *testing.T) {
	for kind, w := range map[string]*world{
		"VolumeSnapshot": untouched(), "PersistentVolumeClaim": untouched(), "PersistentVolume": untouched(), "VolumeSnapshotClassList": untouched(), "VolumeSnapshotContent": safe(),
	} {
		t.Run(kind, func(t *testing.T) {
			w.errs[kind] = errors.New("away")
			item, step, err := w.snapshots().observe(context.Background(), w.item)
			if err == nil || item.State != v1alpha1.EvidencePending || step != (Step{}) {
				t.Errorf("observe() = %+v, %+v, %v, want it pending with an error", item, step, err)
			}
		})
	}
}

// A snapshot that is not ready keeps its claim from being deleted, so it goes before the gap is declared.
func TestObserveRemovesWhatCameToNothing(t *testing.T) {
	cases := map[string]struct {
		world *world
		want  string
	}{
		"not ready at the deadline": {cameToNothing().after(time.Minute + 1), late + ": waits for the snapshot to be ready to use"},
		"unbound at the deadline":   {changed(safe(), func(w *world) { w.snap.Status = nil }).after(time.Minute + 1), "bound to its content"},
		"misbound at the deadline":  {changed(safe(), func(w *world) { w.content.Spec.VolumeSnapshotRef.UID = "other" }).after(time.Minute + 1), "points back"},
		"being deleted and held":    {changed(cameToNothing(), beingDeleted).after(time.Minute + 1), "ready to use"},
		"its claim is gone":         {changed(cameToNothing(), func(w *world) { w.item.Volume, w.claim = "", nil }), "the claim does not exist any more"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			item, step := tc.world.observe(t)
			if item.State != v1alpha1.EvidencePending || !strings.Contains(item.Message, tc.want) {
				t.Errorf("observe() = %s %q, want it pending until the snapshot is gone: %q", item.State, item.Message, tc.want)
			}
			if step.Remove == nil || step.Remove.UID != "snap-uid" || step.Keep != nil || step.Create != nil || step.Retain != nil {
				t.Errorf("step = %+v, want only the snapshot removed", step)
			}
		})
	}
}
