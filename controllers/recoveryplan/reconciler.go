// Package recoveryplan keeps the status of a RecoveryPlan true: whether it would work today. It never acts.
package recoveryplan

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/containmentpolicy"
	"cofferdam.dev/cofferdam/controllers/image"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=recoveryplans,verbs=get;list;watch
// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=recoveryplans/status,verbs=update
// +kubebuilder:rbac:groups=containment.cofferdam.dev,resources=containmentpolicies,verbs=list
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get

// recheck is how often workloads are looked up again; they are not watched.
const recheck = 5 * time.Minute

// Reconciler reconciles RecoveryPlans.
type Reconciler struct {
	Client client.Client
	Clock  clock.PassiveClock
	// Images finds out about the images of plans.
	Images *image.Inspector
	// ProbeImage is the image with which steps probe; empty when the operator has none.
	ProbeImage string
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, opts controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).Named("recoveryplan").WithOptions(opts).
		For(&v1alpha1.RecoveryPlan{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})). // what it writes itself tells it nothing
		WatchesRawSource(source.TypedChannel(r.Images.Wake, handler.TypedEnqueueRequestsFromMapFunc(woken))).
		Complete(r)
}

// woken returns the plan about one of whose images something was found out.
func woken(_ context.Context, name types.NamespacedName) []ctrl.Request {
	return []ctrl.Request{{NamespacedName: name}}
}

// Reconcile looks whether the plan would work today.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var plan v1alpha1.RecoveryPlan
	if err := r.Client.Get(ctx, req.NamespacedName, &plan); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	ready, unread := r.judge(ctx, &plan)
	ready.Type = v1alpha1.ConditionReady
	ready.ObservedGeneration = plan.Generation
	ready.LastTransitionTime = metav1.NewTime(r.Clock.Now().Truncate(time.Second))
	updated := plan.DeepCopy()
	apimeta.SetStatusCondition(&updated.Status.Conditions, ready)
	updated.Status.ObservedGeneration = plan.Generation
	if !equality.Semantic.DeepEqual(plan.Status, updated.Status) {
		if err := r.Client.Status().Update(ctx, updated); err != nil {
			return ctrl.Result{}, fmt.Errorf("writing the status of RecoveryPlan %s: %w", req, client.IgnoreNotFound(err))
		}
	}
	if unread != nil {
		return ctrl.Result{}, unread
	}
	return ctrl.Result{RequeueAfter: recheck}, nil
}

func (r *Reconciler) judge(ctx context.Context, plan *v1alpha1.RecoveryPlan) (metav1.Condition, error) {
	if reason, why := recovery.Unusable(plan.Spec); why != "" {
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: why}, nil
	}
	found, err := r.examine(ctx, plan)
	if err != nil {
		return metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotExamined, Message: err.Error()}, err
	}
	if found.Why != "" {
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: found.Reason, Message: found.Why}, nil
	}
	return r.judgeImages(plan), nil
}

func (r *Reconciler) examine(ctx context.Context, plan *v1alpha1.RecoveryPlan) (recovery.Finding, error) {
	why, err := recovery.MissingWorkload(ctx, r.Client, plan)
	if err != nil || why != "" {
		return recovery.Finding{Reason: v1alpha1.ReasonUnknownWorkload, Why: why}, err
	}
	why, err = recovery.NoRevision(ctx, r.Client, plan)
	if err != nil || why != "" {
		return recovery.Finding{Reason: v1alpha1.ReasonNoRevision, Why: why}, err
	}
	why, err = r.lacks(ctx, plan)
	if err != nil || why != "" {
		return recovery.Finding{Reason: v1alpha1.ReasonMissingService, Why: why}, err
	}
	return recovery.Examine(ctx, &recovery.Examination{Client: r.Client, Namespace: plan.Namespace, Plan: plan.Spec, Now: r.Clock.Now()})
}

// lacks says which route, which Prometheus or which image a step needs that nobody has set up, or "".
func (r *Reconciler) lacks(ctx context.Context, plan *v1alpha1.RecoveryPlan) (string, error) {
	var (
		namespace corev1.Namespace
		policies  v1alpha1.ContainmentPolicyList
	)
	if err := r.Client.Get(ctx, client.ObjectKey{Name: plan.Namespace}, &namespace); err != nil {
		return "", fmt.Errorf("reading Namespace %s: %w", plan.Namespace, err)
	}
	if err := r.Client.List(ctx, &policies); err != nil {
		return "", fmt.Errorf("listing ContainmentPolicies: %w", err)
	}
	var orders []v1alpha1.ContainmentPolicySpec
	for _, p := range containmentpolicy.MayGovern(namespace.Labels, policies.Items) {
		orders = append(orders, containmentpolicy.Effective(p.Spec))
	}
	return recovery.Lacks(plan.Spec, r.ProbeImage, orders), nil
}

// judgeImages says whether the images that the plan lists are what it asks for. Those that are to be chosen are looked at when the recovery begins.
func (r *Reconciler) judgeImages(plan *v1alpha1.RecoveryPlan) metav1.Condition {
	fine := fmt.Sprintf("%d steps are in order; what they need exists, and the operator may do what they ask for", len(plan.Spec.Steps))
	if plan.Spec.Verification == nil {
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPlanUsable, Message: fine}
	}
	verified, reason, why := recovery.VerifyImages(plan.Spec, func(name string) (image.Verdict, bool) {
		return r.Images.Look(client.ObjectKeyFromObject(plan), name, *plan.Spec.Verification)
	}, true)
	switch {
	case reason == v1alpha1.ReasonImagesUnknown:
		return metav1.Condition{Status: metav1.ConditionUnknown, Reason: reason, Message: why}
	case why != "":
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: why}
	}
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPlanUsable, Message: fmt.Sprintf("%s; %d images are verified", fine, len(verified))}
}
