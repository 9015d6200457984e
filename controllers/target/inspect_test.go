package target

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// found is a view in short: the pods with their revisions, and the revisions with their selectors.
type found struct {
	pods      map[string]string
	revisions map[string]string
}

func shorten(v *View) found {
	out := found{pods: map[string]string{}, revisions: map[string]string{}}
	for _, p := range v.Pods {
		out.pods[p.Pod.Name] = p.Revision
	}
	for _, r := range v.Revisions {
		out.revisions[r.ID] = metav1.FormatLabelSelector(r.Selector)
	}
	return out
}

func TestInspect(t *testing.T) {
	const hashKey = appsv1.ControllerRevisionHashLabelKey
	byHash := func(hash string) string { return "app=web," + hashKey + "=" + hash }
	unobserved := statefulSet("sts", bad, "h2")
	unobserved.Generation = 2
	held := detached(hashed("db-0", "sts", bad, "h1"))
	annotated := pod("web-1", "rs", bad, nil)
	annotated.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"labels":{}}`}
	posing := pod("posing", "", bad, nil)
	posing.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"labels":{},"owner":{"uid":"rs"}}`}
	unreadableNote := detached(pod("web-1", "rs", bad, nil))
	unreadableNote.OwnerReferences = pod("web-1", "rs", bad, nil).OwnerReferences
	unreadableNote.Annotations[v1alpha1.OriginalAnnotation] = `{`

	cases := map[string]struct {
		target    v1alpha1.ResolvedTarget
		objs      []client.Object
		pods      map[string]string
		revisions map[string]string
	}{
		"Deployment: pods of its ReplicaSets, old and new": {
			target: resolved(v1alpha1.TargetDeployment, "web", "dep"),
			objs: []client.Object{
				replicaSet("web-old", "rs-old", "dep", bad, 0), replicaSet("web-new", "rs-new", "dep", bad, 2), replicaSet("other", "rs-other", "dep2", bad, 2),
				pod("old", "rs-old", bad, nil), pod("new", "rs-new", bad, nil), pod("other", "rs-other", bad, nil), pod("bare", "", bad, nil),
			},
			pods:      map[string]string{"old": "rs-old", "new": "rs-new"},
			revisions: map[string]string{"rs-old": "pod-template-hash=rs-old", "rs-new": "pod-template-hash=rs-new"},
		},
		"Deployment: a ReplicaSet without pods is history": {
			target: resolved(v1alpha1.TargetDeployment, "web", "dep"),
			objs:   []client.Object{replicaSet("web-old", "rs-old", "dep", bad, 0), replicaSet("web-new", "rs-new", "dep", bad, 1)},
			pods:   map[string]string{}, revisions: map[string]string{"rs-new": "pod-template-hash=rs-new"},
		},
		"Deployment: a ReplicaSet at zero that a detached pod came from is not": {
			target: resolved(v1alpha1.TargetDeployment, "web", "dep"),
			objs:   []client.Object{replicaSet("web-old", "rs", "dep", bad, 0), detached(pod("web-1", "rs", bad, nil))},
			pods:   map[string]string{"web-1": "rs"}, revisions: map[string]string{"rs": "pod-template-hash=rs"},
		},
		"Deployment: what was recovered is left out": {
			target: resolved(v1alpha1.TargetDeployment, "web", "dep"),
			objs: []client.Object{
				replicaSet("web-old", "rs-old", "dep", bad, 1), replicaSet("web-new", "rs-new", "dep", good, 1),
				pod("old", "rs-old", bad, nil), pod("new", "rs-new", good, nil),
			},
			pods: map[string]string{"old": "rs-old"}, revisions: map[string]string{"rs-old": "pod-template-hash=rs-old"},
		},
		"ReplicaSet: even at zero, because it is the target itself": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"),
			objs:   []client.Object{replicaSet("web", "rs", "", bad, 0)},
			pods:   map[string]string{}, revisions: map[string]string{"rs": "pod-template-hash=rs"},
		},
		"ReplicaSet: pods outlive it": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"), objs: []client.Object{pod("web-1", "rs", bad, nil)},
			pods: map[string]string{"web-1": "rs"}, revisions: map[string]string{},
		},
		"ReplicaSet: a namesake is not touched": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"), objs: []client.Object{replicaSet("web", "rs-namesake", "", bad, 1), pod("web-2", "rs-namesake", bad, nil)},
			pods: map[string]string{}, revisions: map[string]string{},
		},
		"StatefulSet: attached and detached pods, and the revision that is rolling out": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"),
			objs:   []client.Object{statefulSet("sts", bad, "h2"), held, hashed("db-1", "sts", bad, "h2"), hashed("other", "sts2", bad, "h3")},
			pods:   map[string]string{"db-0": "sts/h1", "db-1": "sts/h2"}, revisions: map[string]string{"sts/h1": byHash("h1"), "sts/h2": byHash("h2")},
		},
		"StatefulSet: without pods, its revision is held all the same": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"), objs: []client.Object{statefulSet("sts", bad, "h1")},
			pods: map[string]string{}, revisions: map[string]string{"sts/h1": byHash("h1")},
		},
		"StatefulSet: a status that speaks of an older spec says nothing": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"), objs: []client.Object{unobserved},
			pods: map[string]string{}, revisions: map[string]string{},
		},
		"StatefulSet: what was recovered is left out": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"),
			objs:   []client.Object{statefulSet("sts", good, "h2"), held, hashed("db-1", "sts", good, "h2")},
			pods:   map[string]string{"db-0": "sts/h1"}, revisions: map[string]string{"sts/h1": byHash("h1")},
		},
		"StatefulSet: gone": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"), objs: []client.Object{held},
			pods: map[string]string{"db-0": "sts/h1"}, revisions: map[string]string{},
		},
		"StatefulSet: a namesake is not touched, not even by the hash that it shares": {
			target: resolved(v1alpha1.TargetStatefulSet, "db", "sts"),
			objs:   []client.Object{statefulSet("sts-namesake", bad, "h1"), held, hashed("db-1", "sts-namesake", bad, "h1")},
			pods:   map[string]string{"db-0": "sts/h1"}, revisions: map[string]string{},
		},
		"DaemonSet": {
			target: resolved(v1alpha1.TargetDaemonSet, "agent", "ds"),
			objs:   []client.Object{daemonSet("ds", bad), hashed("agent-1", "ds", bad, "h1"), detached(hashed("agent-2", "ds", bad, "h1")), hashed("agent-3", "ds", good, "h2")},
			pods:   map[string]string{"agent-1": "ds/h1", "agent-2": "ds/h1"}, revisions: map[string]string{"ds/h1": byHash("h1")},
		},
		"DaemonSet: a namesake is not touched": {
			target: resolved(v1alpha1.TargetDaemonSet, "agent", "ds"),
			objs:   []client.Object{daemonSet("ds-namesake", bad), hashed("agent-1", "ds-namesake", bad, "h1"), detached(hashed("agent-2", "ds", bad, "h1"))},
			pods:   map[string]string{"agent-2": "ds/h1"}, revisions: map[string]string{},
		},
		"Job": {
			target: resolved(v1alpha1.TargetJob, "once", "uid-once"),
			objs:   []client.Object{job("once", "", bad), pod("once-1", "uid-once", bad, nil), detached(pod("once-2", "uid-once", bad, nil)), pod("twice-1", "uid-twice", bad, nil)},
			pods:   map[string]string{"once-1": "uid-once", "once-2": "uid-once"}, revisions: map[string]string{"uid-once": batchv1.ControllerUidLabel + "=uid-once"},
		},
		"Job: what it has left behind is its own, what another controller has is not": {
			target: resolved(v1alpha1.TargetJob, "once", "uid-once"),
			objs:   []client.Object{pod("once-1", "", bad, map[string]string{batchv1.ControllerUidLabel: "uid-once"}), pod("once-2", "uid-twice", bad, map[string]string{batchv1.ControllerUidLabel: "uid-once"}), pod("once-3", "", bad, map[string]string{batchv1.ControllerUidLabel: "uid-twice"})},
			pods:   map[string]string{"once-1": "uid-once"}, revisions: map[string]string{"uid-once": batchv1.ControllerUidLabel + "=uid-once"},
		},
		"CronJob: its Jobs, and new ones refused": {
			target: resolved(v1alpha1.TargetCronJob, "nightly", "cron"),
			objs: []client.Object{
				cronJob("cron", bad), job("n-1", "cron", bad), job("other", "cron2", bad),
				pod("n-1-a", "uid-n-1", bad, nil), pod("other-a", "uid-other", bad, nil),
			},
			pods:      map[string]string{"n-1-a": "uid-n-1"},
			revisions: map[string]string{"cron": "<none>", "uid-n-1": batchv1.ControllerUidLabel + "=uid-n-1"},
		},
		"CronJob: what was recovered is left out, what runs from before is not": {
			target: resolved(v1alpha1.TargetCronJob, "nightly", "cron"),
			objs: []client.Object{
				cronJob("cron", good), job("n-1", "cron", bad), job("n-2", "cron", good), pod("n-1-a", "uid-n-1", bad, nil), pod("n-2-a", "uid-n-2", good, nil),
			},
			pods: map[string]string{"n-1-a": "uid-n-1"}, revisions: map[string]string{"uid-n-1": batchv1.ControllerUidLabel + "=uid-n-1"},
		},
		"CronJob: a namesake is not touched": {
			target: resolved(v1alpha1.TargetCronJob, "nightly", "cron"), objs: []client.Object{cronJob("cron-namesake", bad), job("n-1", "cron-namesake", bad)},
			pods: map[string]string{}, revisions: map[string]string{},
		},
		"Pod": {
			target: resolved(v1alpha1.TargetPod, "web", "uid-web"), objs: []client.Object{pod("web", "rs", bad, nil), pod("web2", "rs", bad, nil)},
			pods: map[string]string{"web": ""}, revisions: map[string]string{},
		},
		"Pod: a namesake is not touched": {
			target: resolved(v1alpha1.TargetPod, "web", "uid-of-an-earlier-web"), objs: []client.Object{pod("web", "", bad, nil)},
			pods: map[string]string{}, revisions: map[string]string{},
		},
		"an annotation on a pod that nobody holds does not hide it": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"), objs: []client.Object{annotated},
			pods: map[string]string{"web-1": "rs"}, revisions: map[string]string{},
		},
		"nor does it make the pod a part of the target": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"), objs: []client.Object{posing},
			pods: map[string]string{}, revisions: map[string]string{},
		},
		"an annotation that cannot be read leaves the pod with the owner that it has": {
			target: resolved(v1alpha1.TargetReplicaSet, "web", "rs"), objs: []client.Object{unreadableNote},
			pods: map[string]string{"web-1": "rs"}, revisions: map[string]string{},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v, err := Inspect(context.Background(), reader(tc.objs...), []string{"shop"}, []v1alpha1.ResolvedTarget{tc.target, tc.target}, runsGood)
			if err != nil {
				t.Fatal(err)
			}
			want := found{pods: tc.pods, revisions: tc.revisions}
			if diff := cmp.Diff(want, shorten(v), cmp.AllowUnexported(found{})); diff != "" {
				t.Errorf("Inspect() (-want +got):\n%s", diff)
			}
			ref := v1alpha1.ObjectRef{Kind: string(tc.target.Kind), Namespace: "shop", Name: tc.target.Name, UID: tc.target.UID}
			for _, p := range v.Pods {
				if p.Workload != ref {
					t.Errorf("Pod %s belongs to %v, want %v", p.Pod.Name, p.Workload, ref)
				}
			}
			for _, r := range v.Revisions {
				if r.Workload != ref || r.State != v1alpha1.RevisionHeld {
					t.Errorf("revision %s of %v is %s, want %v, Held", r.ID, r.Workload, r.State, ref)
				}
			}
		})
	}
}

// A pod that belongs to nothing is still known, so that a pod that was recorded before is found by its UID; other namespaces are not read.
func TestInspectKnowsEveryPodOfItsNamespaces(t *testing.T) {
	a, b, c := pod("a", "", bad, nil), pod("b", "", bad, nil), pod("c", "", bad, nil)
	b.Namespace, c.Namespace = "bank", "elsewhere"
	v, err := Inspect(context.Background(), reader(a, b, c), []string{"shop", "bank"}, nil, runsGood)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.All) != 2 || v.All["uid-a"] == nil || v.All["uid-b"] == nil {
		t.Errorf("All = %v, want the pods a and b", v.All)
	}
}

func TestInspectTellsWhatCouldNotBeRead(t *testing.T) {
	if _, err := Inspect(context.Background(), unreadable{}, []string{"shop"}, nil, runsGood); err == nil {
		t.Error("Inspect() succeeded")
	}
	odd := resolved("Service", "web", "svc")
	if _, err := Inspect(context.Background(), reader(), []string{"shop"}, []v1alpha1.ResolvedTarget{odd}, runsGood); err == nil {
		t.Error("Inspect() of an unknown kind succeeded")
	}
}

// The selector of the target's own object is used by others: it must not be written into.
func TestHoldHashLeavesTheSelectorAlone(t *testing.T) {
	in := &inspection{revisions: map[string]v1alpha1.RevisionStatus{}}
	selector := selecting("app", "web")
	in.holdHash(v1alpha1.ObjectRef{UID: "u"}, selector, "h1", nil)
	if diff := cmp.Diff(selecting("app", "web"), selector); diff != "" {
		t.Errorf("selector (-want +got):\n%s", diff)
	}
}

func TestImages(t *testing.T) {
	many := &corev1.PodSpec{InitContainers: []corev1.Container{{Image: "a"}}, Containers: []corev1.Container{{Image: "b"}, {Image: "a"}}}
	if diff := cmp.Diff([]string{"a", "b"}, images(many)); diff != "" {
		t.Errorf("images() (-want +got):\n%s", diff)
	}
	if got := images(nil); got != nil {
		t.Errorf("images(nil) = %v", got)
	}
}

// The API bounds the images of a revision. A pod spec that exceeds the bounds must not make the status impossible to write: that would be a way to
// escape quarantine.
func TestImagesFitIntoStatus(t *testing.T) {
	spec := &corev1.PodSpec{}
	for i := range 100 {
		spec.Containers = append(spec.Containers, corev1.Container{Image: fmt.Sprint(i) + strings.Repeat("ä", 600)})
	}
	got := images(spec)
	if len(got) != 32 {
		t.Errorf("%d images, want 32", len(got))
	}
	for _, image := range got {
		if n := len([]rune(image)); n > 512 {
			t.Errorf("an image of %d characters, want at most 512", n)
		}
	}
}

func TestOriginOfAPodThatIsHeld(t *testing.T) {
	p := detached(hashed("db-0", "sts", bad, "h1"))
	owner, labels := origin(p)
	if owner != "sts" || labels[appsv1.ControllerRevisionHashLabelKey] != "h1" {
		t.Errorf("origin() = %s, %v", owner, labels)
	}
	released := p.DeepCopy()
	var err error
	if released.Labels, released.Annotations, err = measure.Released(p, "incident"); err != nil {
		t.Fatal(err)
	}
	if owner, labels := origin(released); owner != "" || labels["app"] != "web" {
		t.Errorf("origin() of the released pod = %s, %v, want no owner: its controller let go of it", owner, labels)
	}
}
