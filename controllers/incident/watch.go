package incident

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Fields of Incidents by which they are found.
const (
	byUID       = "metadata.uid"
	byNamespace = "targets.namespace"
)

// SetupWithManager registers the reconciler. What can change a verdict comes from the Follower, which knows whom it can matter to. Besides, a pass is brought by Incidents, by pods that belong or may come to
// belong to a target, by objects of ours, by the admission guard, and by the policies and plans that an Incident waits for.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, opts controller.Options) error {
	indexer := mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &v1alpha1.Incident{}, byUID, func(o client.Object) []string { return []string{string(o.GetUID())} }); err != nil {
		return fmt.Errorf("indexing Incidents by UID: %w", err)
	}
	namespaces := func(o client.Object) []string {
		if inc, ok := o.(*v1alpha1.Incident); ok {
			return target.Namespaces(inc)
		}
		return nil
	}
	if err := indexer.IndexField(ctx, &v1alpha1.Incident{}, byNamespace, namespaces); err != nil {
		return fmt.Errorf("indexing Incidents by target namespace: %w", err)
	}
	shipped := builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool { return strings.HasPrefix(o.GetName(), "cofferdam-") }))
	return ctrl.NewControllerManagedBy(mgr).
		Named("incident").
		WithOptions(opts).
		Watches(&v1alpha1.Incident{}, bySeverity{}).
		Watches(&v1alpha1.Incident{}, handler.EnqueueRequestsFromMapFunc(r.observing)).
		WatchesRawSource(r.Follower).
		WatchesRawSource(r.Lookout).
		WatchesRawSource(source.TypedChannel(r.Background.Wake, handler.TypedEnqueueRequestsFromMapFunc(r.woken))).
		WatchesRawSource(source.TypedChannel(r.Images.Wake, handler.TypedEnqueueRequestsFromMapFunc(r.woken))).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.concerned)).
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(r.creatorOf)).
		Watches(&policyv1.PodDisruptionBudget{}, handler.EnqueueRequestsFromMapFunc(r.creatorOf)).
		Watches(&admissionregistrationv1.ValidatingAdmissionPolicy{}, handler.EnqueueRequestsFromMapFunc(r.holding), shipped).
		Watches(&admissionregistrationv1.ValidatingAdmissionPolicyBinding{}, handler.EnqueueRequestsFromMapFunc(r.holding), shipped).
		Watches(&v1alpha1.ContainmentPolicy{}, handler.EnqueueRequestsFromMapFunc(r.waitingForPolicy)).
		Watches(&v1alpha1.RecoveryPlan{}, handler.EnqueueRequestsFromMapFunc(r.waitingForPlan)).
		Complete(r)
}

// woken returns the Incident whose background task has ended.
func (r *Reconciler) woken(_ context.Context, name types.NamespacedName) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: name}}
}

// Priority orders the work queue: severe Incidents go first.
func Priority(inc *v1alpha1.Incident) int {
	return 10 * slices.Index([]v1alpha1.Severity{v1alpha1.SeverityLow, v1alpha1.SeverityMedium, v1alpha1.SeverityHigh, v1alpha1.SeverityCritical}, inc.Spec.Severity)
}

// PriorityOf is the place of an Incident in the work queue, by name.
func (r *Reconciler) PriorityOf(key types.NamespacedName) int {
	var inc v1alpha1.Incident
	if err := r.Client.Get(context.Background(), key, &inc); err != nil { // from the cache, which needs no context
		return 0
	}
	return Priority(&inc)
}

// concerned returns the open Incidents that a pod belongs, or may come to belong, to.
func (r *Reconciler) concerned(ctx context.Context, obj client.Object) []reconcile.Request {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool { return concerns(inc, pod) }, client.MatchingFields{byNamespace: pod.Namespace})
}

// concerns says whether the Incident has to look at the pod. It rather says yes too often: a pass that finds nothing to do costs little, a pod that nobody looks at is free.
func concerns(inc *v1alpha1.Incident, pod *corev1.Pod) bool {
	st := &inc.Status
	if len(st.Pods) == 0 || measure.Holds(pod, inc.UID) || st.Recovery != nil && st.RecoveredAt.IsZero() {
		return true
	}
	if slices.ContainsFunc(st.Pods, func(p v1alpha1.PodStatus) bool { return p.UID == string(pod.UID) }) {
		return true
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return false
	}
	ofRevision := func(r v1alpha1.RevisionStatus) bool { return strings.HasPrefix(r.ID, string(owner.UID)) }
	// ReplicaSets and Jobs that are made after the Incident was accepted carry the names of their makers.
	ofTarget := func(t v1alpha1.ResolvedTarget) bool {
		made := t.Kind == v1alpha1.TargetDeployment && owner.Kind == "ReplicaSet" || t.Kind == v1alpha1.TargetCronJob && owner.Kind == "Job"
		return t.UID == string(owner.UID) || made && strings.HasPrefix(owner.Name, t.Name+"-")
	}
	return slices.ContainsFunc(st.Revisions, ofRevision) || slices.ContainsFunc(st.Targets, ofTarget)
}

// creatorOf returns the Incident that the object was created for.
func (r *Reconciler) creatorOf(ctx context.Context, obj client.Object) []reconcile.Request {
	uid := obj.GetLabels()[v1alpha1.IncidentUIDLabel]
	if uid == "" {
		return nil
	}
	return r.openIncidents(ctx, func(*v1alpha1.Incident) bool { return true }, client.MatchingFields{byUID: uid})
}

// observing returns the Incidents that observe what they have released, and quarantine it again when another one names it.
func (r *Reconciler) observing(ctx context.Context, other client.Object) []reconcile.Request {
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool {
		return inc.UID != other.GetUID() && inc.Status.Recovery != nil && slices.ContainsFunc(inc.Status.Recovery.Steps, func(s v1alpha1.StepStatus) bool {
			return !s.ObservedSince.IsZero() && s.FinishedAt.IsZero()
		})
	})
}

// holding returns the Incidents that hold something.
func (r *Reconciler) holding(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.openIncidents(ctx, func(inc *v1alpha1.Incident) bool { return slices.Contains(inc.Finalizers, v1alpha1.HoldFinalizer) })
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

func (r *Reconciler) openIncidents(ctx context.Context, match func(*v1alpha1.Incident) bool, opts ...client.ListOption) []reconcile.Request {
	var list v1alpha1.IncidentList
	if err := r.Client.List(ctx, &list, opts...); err != nil {
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
