package incident

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/target"
)

// SetupWithManager registers the reconciler. Everything that can change a verdict brings a pass: Incidents, pods and NetworkPolicies of target
// namespaces, and the policies and plans that an Incident waits for.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, opts controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("incident").
		WithOptions(opts).
		Watches(&v1alpha1.Incident{}, bySeverity{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.reachingInto)).
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(r.reachingInto)).
		Watches(&v1alpha1.ContainmentPolicy{}, handler.EnqueueRequestsFromMapFunc(r.waitingForPolicy)).
		Watches(&v1alpha1.RecoveryPlan{}, handler.EnqueueRequestsFromMapFunc(r.waitingForPlan)).
		Complete(r)
}

// Priority orders the work queue: severe Incidents go first.
func Priority(inc *v1alpha1.Incident) int {
	return 10 * slices.Index([]v1alpha1.Severity{v1alpha1.SeverityLow, v1alpha1.SeverityMedium, v1alpha1.SeverityHigh, v1alpha1.SeverityCritical}, inc.Spec.Severity)
}

// reachingInto returns the open Incidents that have targets in the object's namespace.
func (r *Reconciler) reachingInto(ctx context.Context, obj client.Object) []reconcile.Request {
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool {
		return slices.Contains(target.Namespaces(inc), obj.GetNamespace())
	})
}

// waitingForPolicy returns the Incidents that nothing governs yet.
func (r *Reconciler) waitingForPolicy(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool { return !slices.Contains(inc.Finalizers, v1alpha1.HoldFinalizer) })
}

// waitingForPlan returns the Incidents that name the plan and have not started to execute it.
func (r *Reconciler) waitingForPlan(ctx context.Context, plan client.Object) []reconcile.Request {
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool {
		return inc.Namespace == plan.GetNamespace() && inc.Spec.RecoveryPlanRef.Name == plan.GetName() && inc.Status.Recovery == nil
	})
}

func (r *Reconciler) openIncidents(ctx context.Context, match func(*v1alpha1.Incident) bool) []reconcile.Request {
	var list v1alpha1.IncidentList
	if err := r.Client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing Incidents for a watch event")
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		if inc := &list.Items[i]; inc.Status.ReleasedAt.IsZero() && match(inc) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(inc)})
		}
	}
	return out
}

// bySeverity enqueues Incidents with the priority of their severity.
type bySeverity struct{}

func (bySeverity) Create(_ context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	enqueue(e.Object, q)
}

func (bySeverity) Update(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	enqueue(e.ObjectNew, q)
}

func (bySeverity) Delete(_ context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	enqueue(e.Object, q)
}

func (bySeverity) Generic(_ context.Context, e event.GenericEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	enqueue(e.Object, q)
}

func enqueue(obj client.Object, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	req := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(obj)}
	pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request])
	inc, isIncident := obj.(*v1alpha1.Incident)
	if !ok || !isIncident {
		q.Add(req)
		return
	}
	pq.AddWithOpts(priorityqueue.AddOpts{Priority: new(Priority(inc))}, req)
}
