package sim

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// terminationDelay is how long a deleted pod takes to end, unless its
// annotation says otherwise.
const terminationDelay = 150 * time.Millisecond

// podReconciler plays the kubelets of all nodes.
type podReconciler struct {
	cache     client.Reader
	kubelets  map[string]*kubelet
	addresses *addresses
	delays    *delays
}

func (r *podReconciler) setup(mgr ctrl.Manager) error {
	r.cache = mgr.GetClient()
	return ctrl.NewControllerManagedBy(mgr).
		Named("kubelet").
		For(&corev1.Pod{}).
		// The object is needed to know which of its namesakes is gone.
		Watches(&corev1.Pod{}, handler.Funcs{DeleteFunc: r.podGone}).
		Complete(r)
}

func (r *podReconciler) podGone(_ context.Context, e event.DeleteEvent, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	uid := e.Object.GetUID()
	r.addresses.release(uid)
	r.delays.forget(finishKey(e.Object))
	r.delays.forget(terminationKey(e.Object))
}

func finishKey(pod client.Object) string      { return "finish/" + string(pod.GetUID()) }
func terminationKey(pod client.Object) string { return "terminate/" + string(pod.GetUID()) }

// Reconcile moves one pod forward.
func (r *podReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	pod := &corev1.Pod{}
	if err := r.cache.Get(ctx, request.NamespacedName, pod); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	kubelet, ours := r.kubelets[pod.Spec.NodeName]
	switch {
	case !ours:
		return ctrl.Result{}, nil
	case pod.DeletionTimestamp != nil:
		return r.terminate(ctx, kubelet, pod)
	case hasEnded(pod):
		return ctrl.Result{}, nil
	default:
		return r.run(ctx, kubelet, pod)
	}
}

// run reports the pod as running, and as finished when its time has come.
func (r *podReconciler) run(ctx context.Context, kubelet *kubelet, pod *corev1.Pod) (ctrl.Result, error) {
	o := r.observe(kubelet, pod)
	var result ctrl.Result
	if after, ok := finishes(pod); ok && pod.Status.Phase == corev1.PodRunning {
		left := r.delays.remaining(finishKey(pod), after)
		o.finished, o.exitCode = left <= 0, exitCode(pod)
		result.RequeueAfter = max(left, 0)
	}
	return result, kubelet.report(ctx, pod, podStatus(pod, o))
}

// terminate does what a kubelet does with a deleted pod: it ends the
// containers, reports that, and then removes the object.
func (r *podReconciler) terminate(ctx context.Context, kubelet *kubelet, pod *corev1.Pod) (ctrl.Result, error) {
	if pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 {
		return ctrl.Result{}, nil // done; only finalizers of others keep it
	}
	delay := terminationDelay
	if wanted, ok := durationAnnotation(pod, TerminateAfterAnnotation); ok {
		delay = wanted
	}
	if left := r.delays.remaining(terminationKey(pod), delay); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	if !hasEnded(pod) {
		o := r.observe(kubelet, pod)
		o.beingDeleted = true
		return ctrl.Result{}, kubelet.report(ctx, pod, podStatus(pod, o))
	}
	return ctrl.Result{}, kubelet.remove(ctx, pod)
}

func (r *podReconciler) observe(kubelet *kubelet, pod *corev1.Pod) observation {
	o := observation{now: metav1.Now().Rfc3339Copy(), hostIP: kubelet.ip, podIP: kubelet.ip}
	if !pod.Spec.HostNetwork {
		o.podIP = r.addresses.of(pod.UID)
	}
	return o
}

// report writes the status if it says something new. The resource version in
// the patch protects conditions that others set meanwhile.
func (k *kubelet) report(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	if equality.Semantic.DeepEqual(pod.Status, status) {
		return nil
	}
	updated := pod.DeepCopy()
	updated.Status = status
	patch := client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{})
	if err := k.client.Status().Patch(ctx, updated, patch); err != nil {
		return ignoreStale(fmt.Errorf("report status: %w", err))
	}
	return nil
}

// remove takes the object out of the API server, but never a namesake.
func (k *kubelet) remove(ctx context.Context, pod *corev1.Pod) error {
	err := k.client.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	return ignoreStale(err)
}

func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// finishes reports whether and when the pod ends by itself. A pod whose
// containers are always restarted never does.
func finishes(pod *corev1.Pod) (after time.Duration, ok bool) {
	if pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		return 0, false
	}
	if after, ok := durationAnnotation(pod, CompleteAfterAnnotation); ok {
		return after, true
	}
	return 0, !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return !brief(c) })
}

// brief reports whether a container runs a program that is known to end at once: "test" and "true" with success, "false" without.
func brief(c corev1.Container) bool {
	return len(c.Command) > 0 && slices.Contains([]string{"test", "true", "false"}, c.Command[0])
}

func exitCode(pod *corev1.Pod) int32 {
	if slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return brief(c) && c.Command[0] == "false" }) {
		return 1
	}
	// An annotation that is missing or no number means success.
	code, _ := strconv.ParseInt(pod.Annotations[ExitCodeAnnotation], 10, 32)
	return int32(code)
}
