package evidence

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// tear deletes a snapshot as somebody does who takes the finalizers off.
func (l *lab) tear(snap *snapshotv1.VolumeSnapshot) {
	l.t.Helper()
	snap.Finalizers = nil
	l.must(l.client.Update(l.t.Context(), snap))
	l.must(l.client.Delete(l.t.Context(), snap))
}

func (l *lab) contents() []string {
	l.t.Helper()
	var list snapshotv1.VolumeSnapshotContentList
	l.must(l.client.List(l.t.Context(), &list))
	var out []string
	for _, c := range list.Items {
		out = append(out, c.Name)
	}
	slices.Sort(out)
	return out
}

// What was retained of a snapshot that had to be taken again is named, and goes when the evidence goes.
func TestCollectNamesWhatWasTakenBefore(t *testing.T) {
	for crash := -1; crash < 5; crash++ {
		l := newLab(t, "data")
		l.unready = true
		l.passes(4)
		first := l.content()
		if !retained(first) || l.item().State != v1alpha1.EvidencePending {
			t.Fatalf("content = %+v, item = %+v, want the content retained and the item pending", first, l.item())
		}
		l.tear(l.snapshot())
		l.again, l.unready = "-again", false
		if crash >= 0 {
			l.passes(crash)
			l.must(l.pass(true))
			l.control()
		}
		l.passes(6)
		item := l.item()
		if item.State != v1alpha1.EvidenceCollected || !strings.Contains(item.Message, "VolumeSnapshotContent "+first.Name) {
			t.Errorf("item = %s %q, want it collected and the first content named", item.State, item.Message)
		}
		if diff := cmp.Diff([]string{first.Name}, item.Earlier); diff != "" {
			t.Errorf("earlier (-want +got):\n%s", diff)
		}
		if want := ", and, taken before, VolumeSnapshotContent " + first.Name; !strings.HasSuffix(Whereabouts(item), want) {
			t.Errorf("Whereabouts() = %q, want it to end with %q", Whereabouts(item), want)
		}
		if got := l.contents(); len(got) != 2 {
			t.Errorf("contents = %v, want both", got)
		}
		if !l.removal(12) || len(l.contents()) > 0 || l.snapshot() != nil {
			t.Errorf("contents = %v, want everything removed", l.contents())
		}
		if left := l.undone(); len(left) > 0 {
			t.Errorf("left in the journal: %v", left)
		}
	}
}

func TestRemovalOfWhatWasTakenBeforeTouchesNothingOfOthers(t *testing.T) {
	for name, change := range map[string]func(*snapshotv1.VolumeSnapshotContent){
		"of another namespace": func(c *snapshotv1.VolumeSnapshotContent) { c.Spec.VolumeSnapshotRef.Namespace = "bank" },
		"that is not evidence": func(c *snapshotv1.VolumeSnapshotContent) { c.Labels = nil },
	} {
		l := newLab(t, "data")
		l.passes(4)
		content := l.content()
		change(content)
		l.must(l.client.Update(t.Context(), content))
		item := &l.inc.Status.Evidence[0]
		item.Location, item.Earlier = "", []string{content.Name}
		l.writes = nil
		if !l.removal(3) || len(l.writes) > 0 {
			t.Errorf("a content %s: writes = %v, want none", name, l.writes)
		}
	}
}

func TestCollectDoesNotTakeASnapshotWithoutEnd(t *testing.T) {
	l := newLab(t, "data")
	l.orders.SnapshotDeadlineSeconds = 86400
	l.inc.Status.Evidence = nil
	l.passes(1)
	for i := range maxEarlier {
		l.unready, l.again = true, strings.Repeat("x", i)
		l.passes(4)
		l.tear(l.snapshot())
	}
	l.passes(4)
	item := l.item()
	if item.State != v1alpha1.EvidenceGap || len(item.Earlier) != maxEarlier || !strings.Contains(item.Message, "8 times") {
		t.Errorf("item = %+v, want a gap that names what is retained", item)
	}
}

// A member of a group that is retained and not ready is named by the item that is then taken by itself.
func TestCollectNamesTheMemberOfAGroupThatCameToNothing(t *testing.T) {
	l := newGroupLab(t, v1alpha1.VolumeGroupPrefer, "data", "log")
	l.orders.SnapshotDeadlineSeconds = 600
	l.slow = "data"
	l.passes(10)
	var member snapshotv1.VolumeSnapshot
	l.must(l.client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "snapshot-data"}, &member))
	l.tear(&member)
	var group = l.groups()[0]
	group.Finalizers = nil
	l.must(l.client.Update(t.Context(), &group))
	l.must(l.client.Delete(t.Context(), &group))
	l.now = l.now.Add(301 * time.Second)
	l.slow = ""
	l.passes(12)
	if diff := cmp.Diff([]string{"Collected data", "Collected log"}, l.states()); diff != "" {
		t.Fatalf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
	}
	if item := l.item(); !slices.Equal(item.Earlier, []string{"snapcontent-data"}) {
		t.Errorf("item = %+v, want it to name the member that is retained", item)
	}
}
