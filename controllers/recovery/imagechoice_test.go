package recovery

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// began is when the incident of these tests may have begun.
var began = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// revisionSet is a revision of the Deployment web, created so long before the incident, as its ReplicaSet.
func revisionSet(name string, before time.Duration, containers ...string) *appsv1.ReplicaSet {
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(began.Add(-before)),
		OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Name: "web", UID: "dep", Controller: new(true)}},
	}}
	for i := 0; i+1 < len(containers); i += 2 {
		set.Spec.Template.Spec.Containers = append(set.Spec.Template.Spec.Containers, corev1.Container{Name: containers[i], Image: containers[i+1]})
	}
	return set
}

func TestChoosingImages(t *testing.T) {
	a, b := "r/app@"+digestA, "r/app@"+digestB
	old := revisionSet("old", 48*time.Hour, "app", b)
	foreign := revisionSet("foreign", time.Minute, "app", b)
	foreign.OwnerReferences[0].UID = "other"
	adjusted := revisionSet("adjusted", time.Minute, "app", b)
	adjusted.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "gone", Image: "r/gone:1"}}
	numbered := func(name, number, image string) *appsv1.ReplicaSet {
		set := revisionSet(name, time.Minute, "app", image)
		set.Annotations = map[string]string{revisionAnnotation: number}
		return set
	}
	cases := map[string]struct {
		revisions []*appsv1.ReplicaSet
		since     time.Time
		want      string
		image     string
		why       []string
	}{
		"the newest that is old enough": {
			revisions: []*appsv1.ReplicaSet{old, revisionSet("newer", time.Second, "app", b), revisionSet("young", 0, "app", b), revisionSet("younger", -time.Hour, "app", b)}, since: began,
			want: "newer", image: b, why: []string{"created at 2026-05-04T11:59:59Z", "passed over: younger was created at 2026-05-04T13:00:00Z", "young was created at 2026-05-04T12:00:00Z"},
		},
		"not a compromised one, nor one by tag, nor one without the sidecar": {
			revisions: []*appsv1.ReplicaSet{
				old, revisionSet("bad", time.Second, "app", a), revisionSet("tag", time.Minute, "app", "r/app:1"), revisionSet("lean", 2*time.Minute, "other", b), revisionSet("odd", 3*time.Minute, "app", "r/app@sha256:1"),
			},
			since: began, want: "old", image: b,
			why: []string{
				"bad has a compromised digest in container app: " + digestA, "tag gives the image of container app by tag: r/app:1", "lean does not have the container app, which would keep its image",
				"odd gives the image of container app by tag",
			},
		},
		"not another workload's":                   {revisions: []*appsv1.ReplicaSet{old, foreign}, since: began, want: "old", image: b},
		"though a container is not there any more": {revisions: []*appsv1.ReplicaSet{adjusted}, since: began, want: "adjusted", image: b},
		"none": {since: began, why: []string{"no revision of Deployment web can be chosen: it has none; list its images"}},
		"none that does": {
			revisions: []*appsv1.ReplicaSet{revisionSet("bad", time.Second, "app", a), revisionSet("young", 0, "app", b)}, since: began,
			why: []string{"no revision of Deployment web can be chosen: young was created", "bad has a compromised digest"},
		},
		"of those of one second the last": {
			revisions: []*appsv1.ReplicaSet{numbered("a", "9", b), numbered("b", "11", b), numbered("c", "10", b)}, since: began, want: "b", image: b,
		},
		"none without a time": {revisions: []*appsv1.ReplicaSet{old}, why: []string{"spec.suspectedSince of the Incident is not set"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "dep"}}
			web.Spec.Template.Spec.Containers = []corev1.Container{{Name: "app", Image: a}}
			objects := []client.Object{web}
			for _, r := range tc.revisions {
				objects = append(objects, r)
			}
			plan := v1alpha1.RecoveryPlanSpec{
				Images: []v1alpha1.KnownGoodImages{{Workload: v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}, Choose: v1alpha1.ImagesOfNewestRevision}},
				Steps: []v1alpha1.RecoveryStep{{Name: "back", RollBackImages: &v1alpha1.RollBackImagesStep{
					Workloads: []v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "web"}},
				}}},
			}
			inc := incident(nil)
			inc.Spec.CompromisedDigests = []string{digestA}
			if !tc.since.IsZero() {
				inc.Spec.SuspectedSince = metav1.NewTime(tc.since)
			}
			x := &Execution{Reader: reading(t, objects...), Incident: inc, Plan: plan}
			choices, why, err := ChooseAll(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want != "" {
				if len(choices) != 1 || choices[0].Source.Name != tc.want {
					t.Fatalf("ChooseAll() = %+v, %q, want %s", choices, why, tc.want)
				}
				why = choices[0].Why
				chosen := WithChosen(plan, choices).Images[0]
				want := v1alpha1.KnownGoodImages{
					Workload: chosen.Workload, Choose: v1alpha1.ImagesListed, Containers: []v1alpha1.ContainerImage{{Name: "app", Image: tc.image}},
				}
				if diff := cmp.Diff(want, chosen); diff != "" {
					t.Errorf("WithChosen() (-want +got):\n%s", diff)
				}
			}
			for _, part := range tc.why {
				if !strings.Contains(why, part) {
					t.Errorf("why is %q, want %q in it", why, part)
				}
			}
		})
	}
}

func TestControllerRevisions(t *testing.T) {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "sts"}}
	revisionOf := func(name, data string) *appsv1.ControllerRevision {
		return &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, CreationTimestamp: metav1.NewTime(began),
				OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "db", UID: "sts", Controller: new(true)}},
			},
			Data: runtime.RawExtension{Raw: []byte(data)},
		}
	}
	good := revisionOf("a", `{"spec":{"template":{"$patch":"replace","spec":{"containers":[{"name":"app","image":"r/db:1"}]}}}}`)
	w := &workload{ref: v1alpha1.ObjectRef{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, object: set, template: &corev1.PodTemplateSpec{}}
	got, err := history(t.Context(), reading(t, good, revisionOf("b", `[1]`)), w)
	if err != nil || len(got) != 2 {
		t.Fatalf("history() = %v, %v", got, err)
	}
	if image := got[0].template.Spec.Containers[0].Image; image != "r/db:1" || got[0].broken != "" {
		t.Errorf("the first revision has the image %q and is broken: %q", image, got[0].broken)
	}
	if !strings.HasPrefix(got[1].unusable(w, nil), "cannot be read: ") {
		t.Errorf("the second revision is usable")
	}
}

func TestNothingMatchesImagesThatWereNotChosen(t *testing.T) {
	if imagesMatch(v1alpha1.KnownGoodImages{Choose: v1alpha1.ImagesOfNewestRevision}, new(podSpec(badImage))) {
		t.Error("an empty list of known-good images matches")
	}
}

func reading(t *testing.T, objects ...client.Object) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}
