package recovery

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func taken(name string, minute int, group string) candidate {
	return candidate{
		snapshot: &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Name: name}}, taken: time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC), group: group,
	}
}

func TestNewest(t *testing.T) {
	cases := map[string]struct {
		candidates []candidate
		want       string
	}{
		"one":                      {candidates: []candidate{taken("a", 1, "")}, want: "a"},
		"the youngest":             {candidates: []candidate{taken("a", 1, ""), taken("b", 3, ""), taken("c", 2, "")}, want: "b"},
		"of two the first by name": {candidates: []candidate{taken("b", 1, ""), taken("a", 1, "")}, want: "a"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := newest(tc.candidates).snapshot.Name; got != tc.want {
				t.Errorf("newest() = %s, want %s", got, tc.want)
			}
		})
	}
}

// Whoever may write the snapshot may say that it is older; the content says when it was taken.
func TestTakenAt(t *testing.T) {
	early := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	late := early.Add(time.Hour)
	content := func(at time.Time) *snapshotv1.VolumeSnapshotContent {
		return &snapshotv1.VolumeSnapshotContent{Status: &snapshotv1.VolumeSnapshotContentStatus{CreationTime: new(at.UnixNano())}}
	}
	cases := map[string]struct {
		says    time.Time
		content *snapshotv1.VolumeSnapshotContent
		want    time.Time
	}{
		"the content says nothing": {early, &snapshotv1.VolumeSnapshotContent{}, early},
		"they agree":               {early, content(early), early},
		"the content is younger":   {early, content(late), late},
		"the snapshot is younger":  {late, content(early), late},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			snapshot := &snapshotv1.VolumeSnapshot{Status: &snapshotv1.VolumeSnapshotStatus{CreationTime: new(metav1.NewTime(tc.says))}}
			if got := takenAt(snapshot, tc.content); !got.Equal(tc.want) {
				t.Errorf("takenAt() = %s, want %s", got, tc.want)
			}
		})
	}
}

func TestEachFailsWithOne(t *testing.T) {
	outcomes := map[string]Outcome{"good": done("good"), "slow": waiting("slow"), "bad": failed("bad")}
	cases := map[string]struct {
		objects []string
		want    Outcome
	}{
		"all good":           {[]string{"good", "good"}, Outcome{Done: true, Message: "good; good"}},
		"one takes its time": {[]string{"good", "slow"}, Outcome{Message: "waits: slow"}},
		"one has failed":     {[]string{"slow", "bad", "good"}, Outcome{Failed: true, Message: "bad"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := each(tc.objects, func(o string) (Outcome, error) { return outcomes[o], nil })
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
				t.Errorf("each() (-want +got): %v\n%s", err, diff)
			}
		})
	}
}

func TestKeepOneGroup(t *testing.T) {
	cases := map[string]struct {
		data, log []candidate
		// want are the snapshots that are left of each; nil if there is no group.
		want []string
	}{
		"no group":                                        {data: []candidate{taken("d", 1, "")}, log: []candidate{taken("l", 1, "")}},
		"a group without one of the claims":               {data: []candidate{taken("d", 1, "g")}, log: []candidate{taken("l", 1, "")}},
		"a group":                                         {data: []candidate{taken("d", 1, "g"), taken("d9", 9, "")}, log: []candidate{taken("l", 1, "g")}, want: []string{"d", "l"}},
		"the younger of two groups":                       {data: []candidate{taken("d1", 1, "g1"), taken("d2", 2, "g2")}, log: []candidate{taken("l1", 1, "g1"), taken("l2", 2, "g2")}, want: []string{"d2", "l2"}},
		"a younger group that is not whole":               {data: []candidate{taken("d1", 1, "g1"), taken("d2", 2, "g2")}, log: []candidate{taken("l1", 1, "g1")}, want: []string{"d1", "l1"}},
		"never members of different groups":               {data: []candidate{taken("d1", 1, "g1")}, log: []candidate{taken("l2", 2, "g2")}},
		"two members of one claim, and none of the other": {data: []candidate{taken("d1", 1, "g"), taken("d2", 2, "g")}, log: []candidate{taken("l", 1, "")}},
		"an earlier group of the same name":               {data: []candidate{taken("d1", 1, "g"), taken("d2", 2, "g")}, log: []candidate{taken("l", 2, "g")}},
		"judged by the oldest of its members":             {data: []candidate{taken("d1", 5, "g1"), taken("d2", 4, "g2")}, log: []candidate{taken("l1", 1, "g1"), taken("l2", 4, "g2")}, want: []string{"d2", "l2"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := selection{of: map[string][]candidate{"data": slices.Clone(tc.data), "log": slices.Clone(tc.log)}}
			for _, claim := range []string{"data", "log"} {
				s.claims = append(s.claims, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: claim}})
			}
			why := s.keepOneGroup()
			if (why != "") != (tc.want == nil) {
				t.Fatalf("keepOneGroup() = %q, want a group: %t", why, tc.want != nil)
			}
			if why != "" {
				return
			}
			got := []string{newest(s.of["data"]).snapshot.Name, newest(s.of["log"]).snapshot.Name}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKeptAnnotations(t *testing.T) {
	got := kept(map[string]string{
		"pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n", "volume.beta.kubernetes.io/storage-provisioner": "p",
		corev1.LastAppliedConfigAnnotation: "{}", "volume.beta.kubernetes.io/storage-class": "fast", "example.com/owner": "team-a",
		"containment.cofferdam.dev/incident-uid": "u",
	})
	want := map[string]string{"volume.beta.kubernetes.io/storage-class": "fast", "example.com/owner": "team-a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept() (-want +got):\n%s", diff)
	}
}

func TestLastingOwners(t *testing.T) {
	got := lasting([]metav1.OwnerReference{{Kind: "Pod", Name: "db-0"}, {Kind: "StatefulSet", Name: "db"}, {Kind: "Database", Name: "db"}})
	if diff := cmp.Diff([]metav1.OwnerReference{{Kind: "Database", Name: "db"}}, got); diff != "" {
		t.Errorf("lasting() (-want +got):\n%s", diff)
	}
}

func TestLastNode(t *testing.T) {
	pods := []v1alpha1.PodStatus{
		{Namespace: "other", Node: "n0", Claims: []string{"data"}}, {Namespace: "shop", Node: "n1", Claims: []string{"log"}},
		{Namespace: "shop", Claims: []string{"data"}}, {Namespace: "shop", Node: "n2", Claims: []string{"log", "data"}},
	}
	if got := lastNode(pods, "shop", "data"); got != "n2" {
		t.Errorf("lastNode() = %q", got)
	}
	if got := lastNode(pods, "shop", "unknown"); got != "" {
		t.Errorf("lastNode() of a claim that nobody used = %q", got)
	}
}

func TestPodsUsing(t *testing.T) {
	using := func(name, claim string) *corev1.Pod {
		return pod(name, "", "", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
		})
	}
	ended := using("a", "data")
	ended.Status.Phase = corev1.PodSucceeded
	elsewhere := using("c", "data")
	elsewhere.Namespace = "other"
	var got []string
	for _, p := range podsUsing(byUID(using("b", "data"), ended, elsewhere, using("d", "log")), "shop", "data") {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Errorf("podsUsing() (-want +got):\n%s", diff)
	}
}
