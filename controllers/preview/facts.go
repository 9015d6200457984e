package preview

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// facts are what the namespace of the plan has that matters to a recovery.
type facts struct {
	workloads map[v1alpha1.WorkloadRef]*workload
	claims    []corev1.PersistentVolumeClaim
	budgets   []policyv1.PodDisruptionBudget
	scalers   []autoscalingv2.HorizontalPodAutoscaler
	quotas    []corev1.ResourceQuota
	// unread says what you may not read.
	unread []string
}

// workload is a workload as far as it matters to how long things take.
type workload struct {
	ref      v1alpha1.ObjectRef
	template *corev1.PodTemplateSpec
	replicas int32
	// oneByOne says that its pods are started and ended one after the other.
	oneByOne, paused bool
	history          *int32
	// starts is how long its pods have taken to be ready, or zero if none tells.
	starts time.Duration
}

// guessedStart is how long a pod takes to be ready when none tells.
const guessedStart = 30 * time.Second

func read(ctx context.Context, c client.Client, x *recovery.Execution) (*facts, error) {
	f := &facts{workloads: map[v1alpha1.WorkloadRef]*workload{}}
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		daemonSets   appsv1.DaemonSetList
		claims       corev1.PersistentVolumeClaimList
		budgets      policyv1.PodDisruptionBudgetList
		scalers      autoscalingv2.HorizontalPodAutoscalerList
		quotas       corev1.ResourceQuotaList
	)
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets, &claims, &budgets, &scalers, &quotas} {
		err := c.List(ctx, list, client.InNamespace(x.Incident.Namespace))
		if apierrors.IsForbidden(err) {
			f.unread = append(f.unread, err.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading what is in namespace %s: %w", x.Incident.Namespace, err)
		}
	}
	f.claims, f.budgets, f.scalers, f.quotas = claims.Items, budgets.Items, scalers.Items, quotas.Items
	add := func(kind string, meta *metav1.ObjectMeta, w workload) {
		w.ref = v1alpha1.ObjectRef{Kind: kind, Namespace: meta.Namespace, Name: meta.Name, UID: string(meta.UID)}
		w.starts = startsOf(x.All, w.template)
		f.workloads[v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(kind), Name: meta.Name}] = &w
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		add("Deployment", &d.ObjectMeta, workload{
			template: &d.Spec.Template, replicas: ptr.Deref(d.Spec.Replicas, 1), paused: d.Spec.Paused, history: d.Spec.RevisionHistoryLimit,
		})
	}
	for i := range statefulSets.Items {
		s := &statefulSets.Items[i]
		add("StatefulSet", &s.ObjectMeta, workload{
			template: &s.Spec.Template, replicas: ptr.Deref(s.Spec.Replicas, 1), oneByOne: s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement, history: s.Spec.RevisionHistoryLimit,
		})
	}
	for i := range daemonSets.Items {
		d := &daemonSets.Items[i]
		add("DaemonSet", &d.ObjectMeta, workload{template: &d.Spec.Template, replicas: d.Status.DesiredNumberScheduled, oneByOne: true, history: d.Spec.RevisionHistoryLimit})
	}
	return f, nil
}

// startsOf is the longest time from the creation of a pod with these labels until it was ready.
func startsOf(pods map[string]*corev1.Pod, template *corev1.PodTemplateSpec) time.Duration {
	longest := time.Duration(0)
	selector := labels.SelectorFromSet(template.Labels)
	for _, p := range pods {
		i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
		if i >= 0 && len(template.Labels) > 0 && selector.Matches(labels.Set(p.Labels)) {
			longest = max(longest, p.Status.Conditions[i].LastTransitionTime.Sub(p.CreationTimestamp.Time))
		}
	}
	return longest
}

// up and down are about how long the pods of a workload take to be ready, and to end.
func (w *workload) up() time.Duration {
	if w.oneByOne {
		return cmp.Or(w.starts, guessedStart) * time.Duration(max(w.replicas, 1))
	}
	return cmp.Or(w.starts, guessedStart)
}

func (w *workload) down() time.Duration {
	grace := time.Duration(ptr.Deref(w.template.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)) * time.Second
	if w.oneByOne {
		return grace * time.Duration(max(w.replicas, 1))
	}
	return grace
}

// obstacles are what stands in the way of the plan's steps, or is to be known.
func (f *facts) obstacles(x *recovery.Execution) []Obstacle {
	p := &Preview{}
	for _, step := range x.Plan.Steps {
		switch {
		case step.RollBackImages != nil:
			for _, ref := range step.RollBackImages.Workloads {
				f.rolledBack(p, step.Name, ref)
			}
		case step.Scale != nil:
			for _, s := range step.Scale.Workloads {
				f.scaled(p, step, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name})
			}
		case step.RestoreVolumes != nil:
			f.restored(p, x, step)
		}
	}
	if slices.ContainsFunc(x.Plan.Steps, startsPods) {
		f.full(p)
	}
	return p.Obstacles
}

func (f *facts) rolledBack(p *Preview, step string, ref v1alpha1.WorkloadRef) {
	w := f.workloads[ref]
	if w == nil {
		return // the step itself says so
	}
	if w.paused {
		p.blocks(w.ref, "step %s: its rollout is paused: resume it (kubectl rollout resume)", step)
	}
	if w.history != nil && *w.history == 0 {
		p.notes(w.ref, "it keeps no history (revisionHistoryLimit 0): what it runs now is in the evidence alone once it is rolled back")
	}
	f.scalersOf(p, w, func(*autoscalingv2.HorizontalPodAutoscaler) string {
		return "may change its replicas while it is rolled back"
	})
	f.budgetsOf(p, w)
}

func (f *facts) scaled(p *Preview, step v1alpha1.RecoveryStep, ref v1alpha1.WorkloadRef) {
	w := f.workloads[ref]
	if w == nil || step.Scale.To != v1alpha1.ScaleToZero {
		return
	}
	f.scalersOf(p, w, func(s *autoscalingv2.HorizontalPodAutoscaler) string {
		if ptr.Deref(s.Spec.MinReplicas, 1) == 0 {
			return "is paused while its workload has no replicas, since it may scale it up from zero, and resumed after that"
		}
		return "does nothing while its workload has no replicas, and goes on once it has some again"
	})
	f.budgetsOf(p, w)
}

func (f *facts) scalersOf(p *Preview, w *workload, what func(*autoscalingv2.HorizontalPodAutoscaler) string) {
	for i := range f.scalers {
		s := &f.scalers[i]
		if t := s.Spec.ScaleTargetRef; t.Kind == w.ref.Kind && t.Name == w.ref.Name {
			p.notes(v1alpha1.ObjectRef{Kind: "HorizontalPodAutoscaler", Namespace: s.Namespace, Name: s.Name}, "of %s %s: it %s", w.ref.Kind, w.ref.Name, what(s))
		}
	}
}

func (f *facts) budgetsOf(p *Preview, w *workload) {
	for _, b := range f.budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(w.template.Labels)) && b.Status.DisruptionsAllowed == 0 {
			p.notes(v1alpha1.ObjectRef{Kind: "PodDisruptionBudget", Namespace: b.Namespace, Name: b.Name},
				"allows no disruption of %s %s: rollouts and the operator delete pods and do not ask it, node drains do", w.ref.Kind, w.ref.Name)
		}
	}
}

// restored finds what keeps claims in use, or from going away.
func (f *facts) restored(p *Preview, x *recovery.Execution, step v1alpha1.RecoveryStep) {
	if step.RestoreVolumes.CutOver == v1alpha1.CutOverChangeClaim {
		return // the claim stays where it is
	}
	for _, claim := range f.claims {
		if !slices.Contains(step.RestoreVolumes.Claims, claim.Name) {
			continue
		}
		ref := v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name}
		for _, finalizer := range claim.Finalizers {
			if finalizer != "kubernetes.io/pvc-protection" {
				p.blocks(ref, "step %s: the finalizer %s keeps it from being exchanged: see what it waits for", step.Name, finalizer)
			}
		}
		for _, pod := range x.All {
			if pod.Namespace == claim.Namespace && uses(pod, claim.Name) {
				f.holding(p, x, step, pod, claim.Name)
			}
		}
	}
}

func uses(pod *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
}

func (f *facts) holding(p *Preview, x *recovery.Execution, step v1alpha1.RecoveryStep, pod *corev1.Pod, claim string) {
	ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	switch held := measure.Holds(pod, x.Incident.UID); {
	case held && step.RestoreVolumes.HoldingPods == v1alpha1.HoldingPodsWait:
		p.blocks(ref, "step %s: this quarantined pod holds %s, and the step waits for a person to delete it", step.Name, claim)
	case held:
		p.notes(ref, "step %s: this quarantined pod holds %s, and is deleted once its evidence is complete", step.Name, claim)
	case !scaledToZeroBefore(x.Plan, step):
		p.blocks(ref, "step %s: this pod uses %s, and no step before scales its workload to zero", step.Name, claim)
	}
}

// scaledToZeroBefore reports whether a step that this one depends on, directly or by others, scales something to zero.
func scaledToZeroBefore(plan v1alpha1.RecoveryPlanSpec, step v1alpha1.RecoveryStep) bool {
	for _, other := range plan.Steps {
		if slices.Contains(step.DependsOn, other.Name) && (other.Scale != nil && other.Scale.To == v1alpha1.ScaleToZero || scaledToZeroBefore(plan, other)) {
			return true
		}
	}
	return false
}

func startsPods(step v1alpha1.RecoveryStep) bool {
	return step.RollBackImages != nil || step.RunJob != nil || step.RestoreVolumes != nil || step.RotateSecrets != nil || step.Scale != nil && step.Scale.To != v1alpha1.ScaleToZero
}

// full finds quotas that have no room for one pod more: a rollout that starts new pods before it ends old ones waits there.
func (f *facts) full(p *Preview) {
	for _, q := range f.quotas {
		for _, name := range []corev1.ResourceName{corev1.ResourcePods, "count/pods"} {
			hard, limited := q.Status.Hard[name]
			used := q.Status.Used[name]
			if limited && used.Cmp(hard) >= 0 {
				p.blocks(v1alpha1.ObjectRef{Kind: "ResourceQuota", Namespace: q.Namespace, Name: q.Name},
					"there is no room for one pod more (%s of %s): quarantined pods count, and a rollout that starts new pods first would wait", used.String(), hard.String())
			}
		}
	}
}
