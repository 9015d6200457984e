package evidence

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func at(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(d)) }

// mounted is a pod that was created an hour ago and uses the claim.
func mounted(changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "pod-uid", CreationTimestamp: at(-time.Hour)}}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func scheduledAt(when metav1.Time) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: when})
	}
}

func startedAt(when metav1.Time) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: when}}})
	}
}

func onNode(p *corev1.Pod) { p.Spec.NodeName = "node-1" }

func ofStatefulSet(p *corev1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "set-uid", Controller: new(true)}}
}

func TestReplacedUnder(t *testing.T) {
	cases := map[string]struct {
		name    string
		created metav1.Time
		ofPod   bool
		pod     *corev1.Pod
		want    string
	}{
		"older than the pod": {created: at(-2 * time.Hour), pod: mounted(onNode, startedAt(at(-time.Minute)))},
		"created in the second in which the pod was bound": {created: at(-time.Hour), pod: mounted(onNode, scheduledAt(at(-time.Hour)))},
		"created late, the pod waited for it":              {created: at(-50 * time.Minute), pod: mounted(onNode, scheduledAt(at(-40*time.Minute)), startedAt(at(-39*time.Minute)))},
		"created late, the pod still waits for it": {created: at(-50 * time.Minute), pod: mounted(func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: at(-time.Hour)}}
		})},
		"younger than the start of a container": {created: at(-10 * time.Minute), pod: mounted(onNode, startedAt(at(-59*time.Minute))), want: "start of its containers"},
		"younger than the first start of a container that was restarted": {created: at(-10 * time.Minute), pod: mounted(onNode, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{
				State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(-time.Minute)}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at(-30 * time.Minute)}},
			}}
		}), want: "start of its containers"},
		"younger than an init container's start": {created: at(-10 * time.Minute), pod: mounted(onNode, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at(-30 * time.Minute)}}}}
		}), want: "start of its containers"},
		"younger than the pod's scheduling, though its containers were restarted since": {
			created: at(-10 * time.Minute), pod: mounted(onNode, scheduledAt(at(-time.Hour)), startedAt(at(-time.Minute))), want: "scheduling",
		},
		"younger than a pod on a node that says nothing":             {created: at(-10 * time.Minute), pod: mounted(onNode), want: "creation"},
		"of a generic ephemeral volume, which follows its pod":       {created: at(-59 * time.Minute), ofPod: true, pod: mounted(onNode)},
		"of a generic ephemeral volume, torn away under a container": {created: at(-10 * time.Minute), ofPod: true, pod: mounted(onNode, startedAt(at(-time.Hour))), want: "start of its containers"},
		"made by a StatefulSet before its pod":                       {name: "data-web-0", created: at(-time.Hour), pod: mounted(ofStatefulSet, startedAt(at(-time.Minute)))},
		"made by a StatefulSet after its pod": {
			name: "data-web-0", created: at(-50 * time.Minute), pod: mounted(ofStatefulSet, scheduledAt(at(-40*time.Minute))), want: "creation",
		},
		"made by a StatefulSet after its pod, which was detached": {name: "data-web-0", created: at(-50 * time.Minute), pod: mounted(func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"owner":{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"set-uid"}}`}
		}), want: "creation"},
		"another claim of a StatefulSet's pod": {name: "shared", created: at(-50 * time.Minute), pod: mounted(ofStatefulSet, scheduledAt(at(-40*time.Minute)))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			claim := untouched().claim
			claim.Name, claim.CreationTimestamp = tc.name, tc.created
			if tc.ofPod {
				claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web-0", UID: "pod-uid", Controller: new(true)}}
			}
			got := replacedUnder(claim, tc.pod)
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("replacedUnder() = %q, want %q", got, tc.want)
			}
		})
	}
}

// claim is a claim of the lab.
func (l *lab) claim(name string) *corev1.PersistentVolumeClaim {
	l.t.Helper()
	var claim corev1.PersistentVolumeClaim
	l.must(l.client.Get(context.Background(), client.ObjectKey{Namespace: "shop", Name: name}, &claim))
	return &claim
}

// A claim that was torn away and created again is snapshotted, and nobody takes it for what the pod ran on.
func TestCollectTellsThatTheVolumeIsNotThePods(t *testing.T) {
	for _, group := range []bool{false, true} {
		l := newLab(t, "data", "log")
		if group {
			l = newGroupLab(t, v1alpha1.VolumeGroupRequire, "data", "log")
		}
		startedAt(at(-24 * time.Hour))(l.pods[0])
		claim := l.claim("data")
		claim.CreationTimestamp = at(-time.Hour)
		l.must(l.client.Update(t.Context(), claim))
		l.passes(3)
		l.pods = nil // what was found out outlives the pod
		l.passes(9)

		if diff := cmp.Diff([]string{"Partial data", "Collected log"}, l.states()); diff != "" {
			t.Fatalf("items (-want +got):\n%s\n%+v", diff, l.inc.Status.Evidence)
		}
		item := l.item()
		for _, want := range []string{"PersistentVolumeClaim shop/data", "Pod shop/pod-0", "not the volume that the pod ran on"} {
			if !strings.Contains(item.Message, want) {
				t.Errorf("message = %q, want it to contain %q", item.Message, want)
			}
		}
		if _, content := located(item); content == "" {
			t.Errorf("location = %q, want the snapshot that was taken all the same", item.Location)
		}
		if left := append(l.labels(), l.undone()...); len(left) > 0 {
			t.Errorf("left on claims and in the journal: %v", left)
		}
	}
}

// What is kept is kept, whole or not.
func TestLetGoKeepsWhatIsPartial(t *testing.T) {
	l := newLab(t, "data")
	startedAt(at(-24 * time.Hour))(l.pods[0])
	claim := l.claim("data")
	claim.CreationTimestamp = at(-time.Hour)
	l.must(l.client.Update(t.Context(), claim))
	l.passes(8)
	if diff := cmp.Diff([]string{"Partial data"}, l.states()); diff != "" {
		t.Fatalf("items (-want +got):\n%s", diff)
	}
	l.must(l.client.Delete(t.Context(), l.snapshot()))
	l.deleteNamespace()
	l.passes(3)
	if l.snapshot() != nil {
		t.Errorf("the VolumeSnapshot keeps its namespace, want it let go once its content is retained")
	}
	if why, err := SnapshotLost(t.Context(), l.client, new(l.item())); why != "" || err != nil {
		t.Errorf("SnapshotLost() = %q, %v, want the content still there", why, err)
	}
}
