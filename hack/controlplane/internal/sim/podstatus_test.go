package sim

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	earlier = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	later   = metav1.NewTime(earlier.Add(time.Minute))
)

// newPod returns a pod with one container, changed by the options.
func newPod(options ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "uid", Generation: 1, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app:1"}}},
	}
	for _, option := range options {
		option(pod)
	}
	return pod
}

func withImage(image string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].Image = image }
}

func withInit(image string, policy *corev1.ContainerRestartPolicy) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = []corev1.Container{{Name: "init", Image: image, RestartPolicy: policy}}
	}
}

// running makes it a pod whose status was already reported.
func running(pod *corev1.Pod) {
	pod.Status = podStatus(pod, observation{now: earlier, hostIP: "h", podIP: "p"})
}

// summary is the part of a status that the cases below are about.
type summary struct {
	Phase    corev1.PodPhase
	Ready    corev1.ConditionStatus
	Reason   string // of the Ready condition
	State    string // of the main container
	Restarts int32
}

func summarize(status corev1.PodStatus) summary {
	s := summary{Phase: status.Phase, Restarts: status.ContainerStatuses[0].RestartCount}
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodReady {
			s.Ready, s.Reason = condition.Status, condition.Reason
		}
	}
	switch state := status.ContainerStatuses[0].State; {
	case state.Running != nil:
		s.State = "Running"
	case state.Waiting != nil:
		s.State = state.Waiting.Reason
	case state.Terminated != nil:
		s.State = state.Terminated.Reason
	}
	return s
}

func TestPodStatus(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	cases := map[string]struct {
		pod  *corev1.Pod
		o    observation
		want summary
	}{
		"a new pod runs and is ready": {
			pod:  newPod(),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionTrue, State: "Running"},
		},
		"a pod may be told never to be ready": {
			pod:  newPod(func(pod *corev1.Pod) { pod.Annotations[NeverReadyAnnotation] = "true" }),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionFalse, Reason: "ContainersNotReady", State: "Running"},
		},
		"an image that does not exist keeps the pod pending": {
			pod:  newPod(withImage("app:does-not-exist")),
			want: summary{Phase: corev1.PodPending, Ready: corev1.ConditionFalse, Reason: "ContainersNotReady", State: "ImagePullBackOff"},
		},
		"an init container that cannot start keeps the others waiting": {
			pod:  newPod(withInit("init:does-not-exist", nil)),
			want: summary{Phase: corev1.PodPending, Ready: corev1.ConditionFalse, Reason: "ContainersNotReady", State: "PodInitializing"},
		},
		"init containers and sidecars come first": {
			pod:  newPod(withInit("init:1", &always)),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionTrue, State: "Running"},
		},
		"a new image restarts the container": {
			pod:  newPod(running, withImage("app:2")),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionTrue, State: "Running", Restarts: 1},
		},
		"a new image that does not exist stops the container": {
			pod:  newPod(running, withImage("app:does-not-exist")),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionFalse, Reason: "ContainersNotReady", State: "ImagePullBackOff"},
		},
		"a container comes back after a bad image": {
			pod:  newPod(running, withImage("app:does-not-exist"), running, withImage("app:1")),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionTrue, State: "Running", Restarts: 1},
		},
		"a finished pod succeeds": {
			pod: newPod(running), o: observation{finished: true},
			want: summary{Phase: corev1.PodSucceeded, Ready: corev1.ConditionFalse, Reason: "PodCompleted", State: "Completed"},
		},
		"an exit code other than 0 fails the pod": {
			pod: newPod(running), o: observation{finished: true, exitCode: 3},
			want: summary{Phase: corev1.PodFailed, Ready: corev1.ConditionFalse, Reason: "PodCompleted", State: "Error"},
		},
		"a deleted pod ends before it goes": {
			pod: newPod(running), o: observation{beingDeleted: true},
			want: summary{Phase: corev1.PodFailed, Ready: corev1.ConditionFalse, Reason: "PodCompleted", State: "Error"},
		},
		"a pod deleted before it ran has never run": {
			pod: newPod(), o: observation{beingDeleted: true},
			want: summary{Phase: corev1.PodFailed, Ready: corev1.ConditionFalse, Reason: "PodCompleted", State: "ContainerCreating"},
		},
		"a readiness gate of others is respected": {
			pod: newPod(func(pod *corev1.Pod) {
				pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.org/gate"}}
			}),
			want: summary{Phase: corev1.PodRunning, Ready: corev1.ConditionFalse, Reason: "ReadinessGatesNotReady", State: "Running"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.o.now, tc.o.hostIP, tc.o.podIP = later, "h", "p"
			got := podStatus(tc.pod, tc.o)
			if diff := cmp.Diff(tc.want, summarize(got)); diff != "" {
				t.Errorf("podStatus() mismatch (-want +got):\n%s", diff)
			}
			// What was reported once must not change by being computed again.
			tc.pod.Status = got
			tc.o.now = metav1.NewTime(later.Add(time.Minute))
			if diff := cmp.Diff(got, podStatus(tc.pod, tc.o)); diff != "" {
				t.Errorf("a second podStatus() differs (-first +second):\n%s", diff)
			}
		})
	}
}

func TestPodStatusKeepsConditionsOfOthers(t *testing.T) {
	foreign := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: earlier}
	pod := newPod(running, func(pod *corev1.Pod) { pod.Status.Conditions = append(pod.Status.Conditions, foreign) })
	got := podStatus(pod, observation{now: later, hostIP: "h", podIP: "p"})
	if diff := cmp.Diff(pod.Status, got); diff != "" {
		t.Errorf("podStatus() changed something (-want +got):\n%s", diff)
	}
}

func TestAddressesAreStableAndUnique(t *testing.T) {
	a := newAddresses()
	first, second := a.of("one"), a.of("two")
	if first == second || first != a.of("one") {
		t.Errorf("got %s, %s and %s", first, second, a.of("one"))
	}
	a.release("one")
	if again := a.of("three"); again == first {
		t.Errorf("address %s was given out again at once", again)
	}
}

func TestFinishes(t *testing.T) {
	runs := func(policy corev1.RestartPolicy, command ...string) *corev1.Pod {
		return newPod(func(pod *corev1.Pod) { pod.Spec.RestartPolicy = policy; pod.Spec.Containers[0].Command = command })
	}
	cases := map[string]struct {
		pod  *corev1.Pod
		ends bool
		code int32
	}{
		"a program that is not known":          {pod: runs(corev1.RestartPolicyNever, "server")},
		"the image's own":                      {pod: runs(corev1.RestartPolicyNever)},
		"a brief one":                          {pod: runs(corev1.RestartPolicyNever, "test", "-d", "/volume"), ends: true},
		"a brief one that fails":               {pod: runs(corev1.RestartPolicyNever, "false"), ends: true, code: 1},
		"a brief one that is started for ever": {pod: runs(corev1.RestartPolicyAlways, "true")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, ends := finishes(tc.pod)
			if ends != tc.ends || ends && exitCode(tc.pod) != tc.code {
				t.Errorf("ends %t with %d, want %t with %d", ends, exitCode(tc.pod), tc.ends, tc.code)
			}
		})
	}
}
