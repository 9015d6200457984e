package evidence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	groupsnapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// controlGroups is one round of the snapshot controller and the driver's sidecar over the groups.
func (l *lab) controlGroups(ctx context.Context) {
	l.t.Helper()
	var list groupsnapshotv1.VolumeGroupSnapshotList
	if err := l.client.List(ctx, &list); apimeta.IsNoMatchError(err) {
		return
	}
	for i := range list.Items {
		group := &list.Items[i]
		if !group.DeletionTimestamp.IsZero() {
			l.finishGroup(ctx, group)
			continue
		}
		if group.UID == "" {
			group.UID = types.UID("uid-of-" + group.Name)
		}
		controllerutil.AddFinalizer(group, groupFinalizer)
		l.must(l.client.Update(ctx, group))
		if !l.unbound {
			l.takeGroup(ctx, group)
		}
	}
}

func (l *lab) takeGroup(ctx context.Context, group *groupsnapshotv1.VolumeGroupSnapshot) {
	l.t.Helper()
	content := &groupsnapshotv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "groupcontent-" + group.Name, UID: types.UID("groupcontent-of-" + group.Name)},
		Spec: groupsnapshotv1.VolumeGroupSnapshotContentSpec{
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: "csi.example",
			VolumeGroupSnapshotRef: corev1.ObjectReference{Namespace: group.Namespace, Name: group.Name, UID: group.UID},
			Source:                 groupsnapshotv1.VolumeGroupSnapshotContentSource{VolumeHandles: l.selected(ctx, group)},
		},
	}
	l.must(client.IgnoreAlreadyExists(l.client.Create(ctx, content)))
	l.must(l.client.Get(ctx, client.ObjectKeyFromObject(content), content))
	group.Status = &groupsnapshotv1.VolumeGroupSnapshotStatus{BoundVolumeGroupSnapshotContentName: new(content.Name), ReadyToUse: new(!l.unready)}
	if l.failing != "" {
		group.Status.Error = &snapshotv1.VolumeSnapshotError{Message: new(l.failing)}
	}
	l.must(l.client.Status().Update(ctx, group))
	if l.failing != "" {
		return
	}
	content.Status = &groupsnapshotv1.VolumeGroupSnapshotContentStatus{
		VolumeGroupSnapshotHandle: new("group"), ReadyToUse: new(!l.unready), CreationTime: new(metav1.NewTime(now.Add(-time.Minute))),
	}
	l.must(l.client.Status().Update(ctx, content))
	for _, volume := range content.Spec.Source.VolumeHandles {
		l.takeMember(ctx, group, content.Spec.DeletionPolicy, volume)
	}
}

// selected are the volumes of the claims that the group selects.
func (l *lab) selected(ctx context.Context, group *groupsnapshotv1.VolumeGroupSnapshot) []string {
	l.t.Helper()
	var claims corev1.PersistentVolumeClaimList
	by := client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(group.Spec.Source.Selector.MatchLabels)}
	l.must(l.client.List(ctx, &claims, client.InNamespace(group.Namespace), by))
	var out []string
	for _, c := range claims.Items {
		if c.Name != l.leftOut {
			out = append(out, "vol-"+c.Name)
		}
	}
	return out
}

func (l *lab) takeMember(ctx context.Context, group *groupsnapshotv1.VolumeGroupSnapshot, policy snapshotv1.DeletionPolicy, volume string) {
	l.t.Helper()
	claim := strings.TrimPrefix(volume, "vol-")
	snap := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: group.Namespace, Name: "snapshot-" + claim, UID: types.UID("member-" + claim), Finalizers: []string{memberFinalizer},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "groupsnapshot.storage.k8s.io/v1", Kind: "VolumeGroupSnapshot", Name: group.Name, UID: group.UID}},
		},
		Spec: snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new(claim)}},
	}
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "snapcontent-" + claim, UID: types.UID("membercontent-" + claim), Annotations: map[string]string{"groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle": "group"}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy: policy, Driver: "csi.example", Source: snapshotv1.VolumeSnapshotContentSource{VolumeHandle: new(volume)},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: snap.Namespace, Name: snap.Name, UID: snap.UID},
		},
	}
	ready := !l.unready && claim != l.slow
	l.must(client.IgnoreAlreadyExists(l.client.Create(ctx, content)))
	l.must(client.IgnoreAlreadyExists(l.client.Create(ctx, snap)))
	l.must(l.client.Get(ctx, client.ObjectKeyFromObject(content), content))
	l.must(l.client.Get(ctx, client.ObjectKeyFromObject(snap), snap))
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{ReadyToUse: new(ready), CreationTime: new(now.UnixNano()), VolumeGroupSnapshotHandle: new("group")}
	l.must(l.client.Status().Update(ctx, content))
	snap.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: new(content.Name), ReadyToUse: new(ready), VolumeGroupSnapshotName: new(group.Name)}
	l.must(l.client.Status().Update(ctx, snap))
}

// finishGroup does what the controller does when a group is deleted: its members go with it, and what is not retained.
func (l *lab) finishGroup(ctx context.Context, group *groupsnapshotv1.VolumeGroupSnapshot) {
	l.t.Helper()
	var content groupsnapshotv1.VolumeGroupSnapshotContent
	err := l.client.Get(ctx, client.ObjectKey{Name: "groupcontent-" + group.Name}, &content)
	l.must(client.IgnoreNotFound(err))
	if err == nil && content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete {
		l.must(l.client.Delete(ctx, &content))
	}
	var members snapshotv1.VolumeSnapshotList
	l.must(l.client.List(ctx, &members))
	for i := range members.Items {
		snap := &members.Items[i]
		if !slices.ContainsFunc(snap.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == group.UID }) || !snap.DeletionTimestamp.IsZero() {
			continue
		}
		if _, marked := snap.Labels[v1alpha1.EvidenceLabel]; marked {
			return // admission refuses it; the controller tries again
		}
		l.must(l.client.Delete(ctx, snap))
	}
	controllerutil.RemoveFinalizer(group, groupFinalizer)
	l.must(client.IgnoreNotFound(l.client.Update(ctx, group)))
}

// newGroupLab has a class for groups, and standing orders that want them.
func newGroupLab(t *testing.T, use v1alpha1.VolumeGroupUse, claims ...string) *lab {
	t.Helper()
	l := newLab(t, claims...)
	l.orders.VolumeGroups = use
	l.must(l.client.Create(context.Background(), &groupsnapshotv1.VolumeGroupSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "groups"}, Driver: "csi.example"}))
	return l
}

func (l *lab) groups() []groupsnapshotv1.VolumeGroupSnapshot {
	l.t.Helper()
	var list groupsnapshotv1.VolumeGroupSnapshotList
	l.must(l.client.List(context.Background(), &list))
	return list.Items
}

// labels are the labels of the claims that are not their own.
func (l *lab) labels() []string {
	l.t.Helper()
	var list corev1.PersistentVolumeClaimList
	l.must(l.client.List(context.Background(), &list))
	var out []string
	for _, c := range list.Items {
		for key := range c.Labels {
			out = append(out, c.Name+": "+key)
		}
	}
	return out
}

func (l *lab) states() []string {
	var out []string
	for _, e := range l.inc.Status.Evidence {
		out = append(out, string(e.State)+" "+e.Subject.Name)
	}
	return out
}

// single are the claims that were snapshotted by themselves.
func (l *lab) single() []string {
	l.t.Helper()
	var list snapshotv1.VolumeSnapshotList
	l.must(l.client.List(context.Background(), &list))
	var out []string
	for _, s := range list.Items {
		if len(s.OwnerReferences) == 0 {
			out = append(out, *s.Spec.Source.PersistentVolumeClaimName)
		}
	}
	slices.Sort(out)
	return out
}

func TestCollectTakesVolumesTogether(t *testing.T) {
	for crash := -1; crash < 9; crash++ {
		t.Run(fmt.Sprintf("crash after %d", crash), func(t *testing.T) {
			l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
			if crash >= 0 {
				l.passes(crash)
				l.must(l.pass(true))
				l.control()
			}
			l.passes(12)
			if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" {
				t.Fatalf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
			}
			groups := l.groups()
			if len(groups) != 1 || len(l.single()) > 0 {
				t.Fatalf("groups = %+v, single snapshots = %v, want one group", groups, l.single())
			}
			item := l.item()
			at := "shop/" + groups[0].Name
			if want := "VolumeSnapshot shop/snapshot-data, VolumeSnapshotContent snapcontent-data, VolumeGroupSnapshot " + at; item.Location != want {
				t.Errorf("location = %q, want %q", item.Location, want)
			}
			if !strings.Contains(item.Message, "VolumeGroupSnapshot "+at) || !item.TakenAt.Time.Equal(now.Add(-time.Minute)) || item.Volume != "vol-data" {
				t.Errorf("item = %+v, want the group's name and time", item)
			}
			if left := append(l.labels(), l.undone()...); len(left) > 0 {
				t.Errorf("left on claims and in the journal: %v", left)
			}
			l.checkHeld(groups[0])
		})
	}
}

// checkHeld checks that everything of a group outlives its namespace.
func (l *lab) checkHeld(group groupsnapshotv1.VolumeGroupSnapshot) {
	l.t.Helper()
	ctx := context.Background()
	if group.Labels[v1alpha1.EvidenceLabel] != "kept" || !held(&group) {
		l.t.Errorf("group = %+v, want it kept", group.ObjectMeta)
	}
	var groupContents groupsnapshotv1.VolumeGroupSnapshotContentList
	l.must(l.client.List(ctx, &groupContents))
	for _, c := range groupContents.Items {
		if c.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain || c.Labels[v1alpha1.EvidenceLabel] != "kept" {
			l.t.Errorf("content of the group = %+v, want it retained and marked", c)
		}
	}
	var contents snapshotv1.VolumeSnapshotContentList
	l.must(l.client.List(ctx, &contents))
	for i := range contents.Items {
		if !retained(&contents.Items[i]) {
			l.t.Errorf("content of a member = %+v, want it retained and marked", contents.Items[i])
		}
	}
	var members snapshotv1.VolumeSnapshotList
	l.must(l.client.List(ctx, &members))
	for i := range members.Items {
		m := &members.Items[i]
		if unkept(m) != nil || m.Labels[v1alpha1.IncidentUIDLabel] != "inc-uid" || !slices.Contains(m.Finalizers, memberFinalizer) {
			l.t.Errorf("member = %+v, want it kept", m.ObjectMeta)
		}
	}
}

// The claims are labelled only while it is decided which volumes belong together, and the group is created when all of them are.
func TestCollectTakesAGroupInOrder(t *testing.T) {
	l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
	l.passes(12)
	want := []string{
		"patch PersistentVolumeClaim", "patch PersistentVolumeClaim", "create VolumeGroupSnapshot",
		"patch PersistentVolumeClaim", "patch VolumeGroupSnapshotContent", "patch VolumeSnapshotContent", "patch PersistentVolumeClaim", "patch VolumeSnapshotContent",
		"patch VolumeSnapshot", "patch VolumeSnapshot", "patch VolumeGroupSnapshot",
	}
	if diff := cmp.Diff(want, l.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

// noGroups makes the API of groups missing, or only its older version served.
func noGroups(l *lab, missing ...string) {
	l.client = interceptor.NewClient(l.client.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if err := noMatch(obj.GetObjectKind().GroupVersionKind(), missing); err != nil {
				return err
			}
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if err := noMatch(list.GetObjectKind().GroupVersionKind(), missing); err != nil {
				return err
			}
			return c.List(ctx, list, opts...)
		},
	})
}

func noMatch(gvk schema.GroupVersionKind, missing []string) error {
	if gvk.Group == groupAPI && slices.Contains(missing, gvk.Version) {
		return &apimeta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return nil
}

func TestCollectWithoutGroups(t *testing.T) {
	ctx := context.Background()
	noClass := func(l *lab) {
		l.must(l.client.DeleteAllOf(ctx, &groupsnapshotv1.VolumeGroupSnapshotClass{}))
	}
	classes := func(names ...string) func(*lab) {
		return func(l *lab) {
			noClass(l)
			for _, name := range names {
				l.must(l.client.Create(ctx, &groupsnapshotv1.VolumeGroupSnapshotClass{
					ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{defaultGroupClassAnnotation: strconv.FormatBool(strings.HasPrefix(name, "default"))}}, Driver: "csi.example",
				}))
			}
		}
	}
	cases := map[string]struct {
		change func(*lab)
		want   string
	}{
		"no API":              {func(l *lab) { noGroups(l, "v1", "v1beta2") }, "the API groupsnapshot.storage.k8s.io is not installed"},
		"no class":            {noClass, "no VolumeGroupSnapshotClass for driver csi.example"},
		"classes, no default": {classes("a", "b"), "several VolumeGroupSnapshotClasses"},
		"two defaults":        {classes("default-a", "default-b"), "not exactly one default"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
			tc.change(l)
			l.passes(8)
			if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" {
				t.Errorf("with Prefer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"data", "log"}, l.single()); diff != "" {
				t.Errorf("single snapshots with Prefer (-want +got):\n%s", diff)
			}
			l = newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
			tc.change(l)
			l.passes(8)
			if diff := cmp.Diff([]string{"Gap data", "Gap log"}, l.states()); diff != "" {
				t.Errorf("with Require (-want +got):\n%s", diff)
			}
			if got := l.item().Message; !strings.Contains(got, tc.want) || len(l.single()) > 0 || len(l.labels()) > 0 {
				t.Errorf("message = %q, single snapshots %v, labels %v, want a gap that names what is missing: %q", got, l.single(), l.labels(), tc.want)
			}
		})
	}
	t.Run("one of several classes is the default", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
		classes("a", "default-b")(l)
		l.passes(12)
		if groups := l.groups(); len(groups) != 1 || *groups[0].Spec.VolumeGroupSnapshotClassName != "default-b" {
			t.Errorf("groups = %+v, want one of class default-b", groups)
		}
	})
}

func TestCollectTakesByThemselvesWhatDoesNotBelongTogether(t *testing.T) {
	ctx := context.Background()
	cases := map[string]struct {
		use    v1alpha1.VolumeGroupUse
		change func(*lab)
	}{
		"never wanted": {v1alpha1.VolumeGroupNever, func(*lab) {}},
		"no orders":    {"", func(*lab) {}},
		"another workload": {v1alpha1.VolumeGroupRequire, func(l *lab) {
			l.inc.Status.Pods[1].Owner.UID = "other-uid"
		}},
		"bare pods": {v1alpha1.VolumeGroupRequire, func(l *lab) {
			l.inc.Status.Pods[0].Owner, l.inc.Status.Pods[1].Owner = v1alpha1.ObjectRef{}, v1alpha1.ObjectRef{}
		}},
		"another driver": {v1alpha1.VolumeGroupRequire, func(l *lab) {
			var pv corev1.PersistentVolume
			l.must(l.client.Get(ctx, client.ObjectKey{Name: "pv-log"}, &pv))
			pv.Spec.CSI.Driver = "csi.other"
			l.must(l.client.Update(ctx, &pv))
			l.must(l.client.Create(ctx, class("other", "csi.other", true)))
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newGroupLab(t, tc.use, "data", "log")
			tc.change(l)
			l.passes(8)
			if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" || len(l.groups()) > 0 || len(l.single()) != 2 {
				t.Errorf("groups = %v, single = %v, items (-want +got):\n%s", l.groups(), l.single(), diff)
			}
		})
	}
}

func TestCollectWaitsForAWorkloadToBeCutOff(t *testing.T) {
	l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
	l.inc.Status.Pods[1].Handling = v1alpha1.HandlingPending
	l.passes(3)
	if got := l.item().Message; len(l.writes) > 0 || !strings.Contains(got, "cut off") {
		t.Errorf("writes = %v, message = %q, want it to wait", l.writes, got)
	}
	l.inc.Status.Pods[1].Handling = v1alpha1.HandlingDetached
	l.passes(12)
	if len(l.groups()) != 1 || l.item().State != v1alpha1.EvidenceCollected {
		t.Errorf("item = %+v, want it taken with the group", l.item())
	}
}

// A group that comes to nothing costs half of the time, and leaves nothing behind.
func TestCollectFallsBack(t *testing.T) {
	cases := map[string]func(*lab){
		"nobody acts on it":   func(l *lab) { l.unbound = true },
		"the driver fails it": func(l *lab) { l.failing = "the driver cannot take groups" },
	}
	for name, change := range cases {
		for crash := range 6 {
			t.Run(fmt.Sprintf("%s, crash after %d", name, crash), func(t *testing.T) {
				l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
				change(l)
				l.passes(7)
				if len(l.groups()) != 1 || l.item().State != v1alpha1.EvidencePending {
					t.Fatalf("item = %+v, want it to wait for the group", l.item())
				}
				l.now = l.now.Add(31 * time.Second)
				l.passes(crash)
				l.must(l.pass(true))
				l.control()
				l.passes(6)
				l.unbound = false
				l.passes(6)
				if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" {
					t.Errorf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
				}
				if left := append(l.labels(), l.undone()...); len(left) > 0 || len(l.groups()) > 0 || len(l.single()) != 2 {
					t.Errorf("left on claims and in the journal: %v, groups %v, single %v", left, l.groups(), l.single())
				}
			})
		}
	}
	t.Run("not when it is required", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
		l.failing = "the driver cannot take groups"
		l.passes(7)
		l.now = l.now.Add(31 * time.Second)
		l.passes(4)
		if l.item().State != v1alpha1.EvidencePending || !strings.Contains(l.item().Message, "the driver cannot take groups") {
			t.Errorf("item = %+v, want it to wait until the deadline, and to say why", l.item())
		}
		l.now = l.now.Add(30 * time.Second)
		l.passes(8)
		if diff := cmp.Diff([]string{"Gap data", "Gap log"}, l.states()); diff != "" {
			t.Errorf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
		}
		if left := append(l.labels(), l.undone()...); len(left) > 0 || len(l.groups()) > 0 || len(l.single()) > 0 {
			t.Errorf("left on claims and in the journal: %v, groups %v, single %v", left, l.groups(), l.single())
		}
	})
}

func TestCollectAfterTheDeadlineOfAGroup(t *testing.T) {
	late := func(l *lab) {
		l.passes(10)
		l.now = l.now.Add(time.Minute + 1)
		l.passes(10)
	}
	t.Run("no member is ready", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
		l.unready = true
		late(l)
		if diff := cmp.Diff([]string{"Gap data", "Gap log"}, l.states()); diff != "" || len(l.groups()) > 0 {
			t.Errorf("groups = %v, items (-want +got):\n%s\n%+v", l.groups(), diff, l.inc.Status.Evidence)
		}
		var members snapshotv1.VolumeSnapshotList
		l.must(l.client.List(context.Background(), &members))
		for _, m := range members.Items {
			if held(&m) {
				t.Errorf("member = %+v, want nothing of ours to keep it", m.ObjectMeta)
			}
		}
	})
	t.Run("one of two is ready", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
		l.slow = "log"
		late(l)
		if diff := cmp.Diff([]string{"Collected data", "Gap log"}, l.states()); diff != "" || len(l.groups()) != 1 || !l.groups()[0].DeletionTimestamp.IsZero() {
			t.Errorf("groups = %v, want it kept for the member that is ready; items (-want +got):\n%s", l.groups(), diff)
		}
	})
	t.Run("taken without a volume", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
		l.leftOut = "log"
		l.passes(12)
		if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" {
			t.Errorf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
		}
		if diff := cmp.Diff([]string{"log"}, l.single()); diff != "" {
			t.Errorf("single snapshots (-want +got):\n%s", diff)
		}
	})
}

func TestCollectTrustsNoGroupOfOthers(t *testing.T) {
	ctx := context.Background()
	change := func(change func(*groupsnapshotv1.VolumeGroupSnapshotContent)) func(*lab) {
		return func(l *lab) {
			var list groupsnapshotv1.VolumeGroupSnapshotContentList
			l.must(l.client.List(ctx, &list))
			change(&list.Items[0])
			l.must(l.client.Update(ctx, &list.Items[0]))
		}
	}
	cases := map[string]struct {
		after  int
		change func(*lab)
		want   string
	}{
		"a claim of others carries the label": {after: 2, change: func(l *lab) {
			key, _ := groupOf(l.item())
			label := (&groups{Snapshots: snapshotsOf(l.execution())}).group(key).label
			l.must(l.client.Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "decoy", Labels: map[string]string{label: "inc-uid"}}}))
		}, want: "PersistentVolumeClaim decoy carries the label"},
		"its content points elsewhere": {after: 5, change: change(func(c *groupsnapshotv1.VolumeGroupSnapshotContent) { c.Spec.VolumeGroupSnapshotRef.UID = "other" }), want: "points back to"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
			l.passes(tc.after)
			tc.change(l)
			for range 4 {
				l.must(l.pass(false))
			}
			if item := l.item(); item.State != v1alpha1.EvidencePending || !strings.Contains(item.Message, tc.want) {
				t.Errorf("item = %s %q, want it to wait: %q", item.State, item.Message, tc.want)
			}
		})
	}
	t.Run("a namesake", func(t *testing.T) {
		l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
		l.passes(2)
		key, _ := groupOf(l.item())
		theirs := &groupsnapshotv1.VolumeGroupSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		theirs.Spec.Source.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "decoy"}}
		l.must(l.client.Create(ctx, theirs))
		for range 6 {
			l.must(l.pass(false))
		}
		if item := l.item(); item.State != v1alpha1.EvidenceGap || !strings.Contains(item.Message, "is not ours") || len(l.labels()) > 0 {
			t.Errorf("item = %s %q, labels %v, want a gap", item.State, item.Message, l.labels())
		}
		if len(l.groups()) != 1 {
			t.Error("what is not ours was deleted")
		}
	})
}

func TestCollectKeepsGroupsPendingWhileItCannotRead(t *testing.T) {
	l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
	l.passes(3)
	whole := l.client
	l.client = interceptor.NewClient(whole.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if obj.GetObjectKind().GroupVersionKind().Kind == groupKind {
				return errors.New("away")
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	if err := l.pass(false); err == nil || l.item().State != v1alpha1.EvidencePending {
		t.Errorf("pass() = %v, item = %+v, want it pending with an error", err, l.item())
	}
	l.client = whole
	l.passes(12)
	if l.item().State != v1alpha1.EvidenceCollected {
		t.Errorf("item = %+v, want it collected after all", l.item())
	}
}

func TestLetGoOfGroups(t *testing.T) {
	ctx := context.Background()
	l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
	l.passes(12)
	group := l.groups()[0]
	l.must(l.client.Delete(ctx, &group))
	l.must(l.pass(false))
	if len(l.groups()) != 1 || !held(&l.groups()[0]) {
		t.Error("a group was let go though its namespace stays")
	}
	l.deleteNamespace()
	var members snapshotv1.VolumeSnapshotList
	l.must(l.client.List(ctx, &members))
	for i := range members.Items {
		l.must(l.client.Delete(ctx, &members.Items[i]))
	}
	l.passes(4)
	l.must(l.client.List(ctx, &members))
	if len(l.groups()) > 0 || len(members.Items) > 0 {
		t.Errorf("groups = %v, members = %v, want them to go with their namespace", l.groups(), members.Items)
	}
	var contents snapshotv1.VolumeSnapshotContentList
	l.must(l.client.List(ctx, &contents))
	if len(contents.Items) != 2 {
		t.Errorf("contents = %v, want them to stay", contents.Items)
	}
}

func TestReleaseSnapshotHoldOfGroups(t *testing.T) {
	ctx := context.Background()
	l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
	l.passes(12)
	if !l.removal(20) {
		t.Fatalf("not done; groups = %+v", l.groups())
	}
	var contents snapshotv1.VolumeSnapshotContentList
	l.must(l.client.List(ctx, &contents))
	var groupContents groupsnapshotv1.VolumeGroupSnapshotContentList
	l.must(l.client.List(ctx, &groupContents))
	if len(l.groups())+len(contents.Items)+len(groupContents.Items) > 0 {
		t.Errorf("groups = %v, contents = %v and %v, want everything gone", l.groups(), contents.Items, groupContents.Items)
	}
	if left := l.undone(); len(left) > 0 {
		t.Errorf("left in the journal: %v", left)
	}
}

// A cluster may serve an older version only.
func TestCollectUsesTheVersionThatIsServed(t *testing.T) {
	ctx := context.Background()
	older := func(kind string) *unstructured.Unstructured {
		obj := &unstructured.Unstructured{Object: map[string]any{}}
		obj.SetGroupVersionKind(schema.GroupVersionKind{Group: groupAPI, Version: "v1beta2", Kind: kind})
		return obj
	}
	l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
	served := older(groupClassKind)
	served.SetName("older")
	served.Object["driver"] = "csi.example"
	l.must(l.client.Create(ctx, served))
	whole := l.client
	noGroups(l, "v1")
	for range 5 {
		l.must(l.pass(false))
	}
	key, _ := groupOf(l.item())
	created := older(groupKind)
	if err := whole.Get(ctx, key, created); err != nil || text(created, "spec", "volumeGroupSnapshotClassName") != "older" {
		t.Errorf("group = %v, %v, want one of version v1beta2 and class older", created, err)
	}
}

// The item of a claim that is being deleted is a gap at once; the claim may be there for long.
func TestLetGoRestoresClaims(t *testing.T) {
	ctx := context.Background()
	l := newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
	l.passes(3)
	if len(l.labels()) != 2 {
		t.Fatalf("labels = %v, want both claims labelled", l.labels())
	}
	var claim corev1.PersistentVolumeClaim
	l.must(l.client.Get(ctx, client.ObjectKey{Namespace: "shop", Name: "data"}, &claim))
	claim.Finalizers = []string{"kubernetes.io/pvc-protection"}
	l.must(l.client.Update(ctx, &claim))
	l.must(l.client.Delete(ctx, &claim))
	l.passes(12)
	if diff := cmp.Diff([]string{"Gap data", "Collected log"}, l.states()); diff != "" {
		t.Errorf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
	}
	if left := append(l.labels(), l.undone()...); len(left) > 0 {
		t.Errorf("left on claims and in the journal: %v", left)
	}
}
