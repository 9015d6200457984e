package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=apps,resources=deployments;replicasets;statefulsets;daemonsets,verbs=list
// +kubebuilder:rbac:groups=batch,resources=jobs;cronjobs,verbs=list

// templated is a workload with its pod template.
type templated struct {
	ref      v1alpha1.ObjectRef
	object   client.Object
	template *corev1.PodTemplateSpec
}

// workloads are the workloads of a namespace that create pods.
type workloads struct {
	all []templated
	// deploymentOf leads from the UID of a ReplicaSet to the Deployment that it is of.
	deploymentOf map[string]string
}

// readWorkloads lists the workloads of the plan's namespace. Those that another of them keeps, and Jobs that have ended, are left out.
func readWorkloads(ctx context.Context, x *Execution) (workloads, error) {
	out := workloads{deploymentOf: map[string]string{}}
	for _, list := range []client.ObjectList{
		&appsv1.DeploymentList{}, &appsv1.ReplicaSetList{}, &appsv1.StatefulSetList{}, &appsv1.DaemonSetList{}, &batchv1.JobList{}, &batchv1.CronJobList{},
	} {
		if err := x.Reader.List(ctx, list, client.InNamespace(x.Incident.Namespace)); err != nil {
			return workloads{}, fmt.Errorf("listing the workloads in namespace %s: %w", x.Incident.Namespace, err)
		}
		if err := apimeta.EachListItem(list, func(o runtime.Object) error { out.add(o); return nil }); err != nil {
			return workloads{}, fmt.Errorf("reading the workloads in namespace %s: %w", x.Incident.Namespace, err)
		}
	}
	return out, nil
}

func (w *workloads) add(o runtime.Object) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		w.note("Deployment", o, &o.Spec.Template)
	case *appsv1.ReplicaSet:
		if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == "Deployment" {
			w.deploymentOf[string(o.UID)] = string(owner.UID)
			return
		}
		w.note("ReplicaSet", o, &o.Spec.Template)
	case *appsv1.StatefulSet:
		w.note("StatefulSet", o, &o.Spec.Template)
	case *appsv1.DaemonSet:
		w.note("DaemonSet", o, &o.Spec.Template)
	case *batchv1.Job:
		if !jobEnded(o) {
			w.note("Job", o, &o.Spec.Template)
		}
	case *batchv1.CronJob:
		w.note("CronJob", o, &o.Spec.JobTemplate.Spec.Template)
	}
}

func (w *workloads) note(kind string, object client.Object, template *corev1.PodTemplateSpec) {
	ref := v1alpha1.ObjectRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
	w.all = append(w.all, templated{ref: ref, object: object, template: template})
}

func (w *workloads) find(ref v1alpha1.ObjectRef) *templated {
	for i := range w.all {
		if w.all[i].ref == ref {
			return &w.all[i]
		}
	}
	return nil
}

// names reports whether the workload's pods use the claim, those included that a StatefulSet makes for its pods, at whatever replicas it has.
func (w *templated) names(claim string) bool {
	named := slices.ContainsFunc(w.template.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
	s, ok := w.object.(*appsv1.StatefulSet)
	return named || ok && slices.ContainsFunc(s.Spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool {
		pod, ours := strings.CutPrefix(claim, c.Name+"-")
		return ours && strings.HasPrefix(pod, s.Name+"-") && ordinal(pod) >= 0
	})
}

// consumers are the Deployments that name the claim. It says why it cannot be left to them: something else uses the claim as well, or what keeps a Deployment would undo the change.
func (w *workloads) consumers(claim string, pods map[string]*corev1.Pod) (deployments []v1alpha1.ObjectRef, why string) {
	known := map[string]bool{}
	for _, user := range w.all {
		known[user.ref.UID] = user.ref.Kind == "Deployment"
		if !user.names(claim) {
			continue
		}
		if user.ref.Kind != "Deployment" {
			return nil, fmt.Sprintf("%s %s uses %s %s: only Deployments can be made to name another claim; use cutOver InPlace", user.ref.Kind, user.ref.Name, claimKind, claim)
		}
		if above := ownerAbove(user.object); above != "" {
			return nil, fmt.Sprintf("Deployment %s, which uses %s %s, is kept by %s, which would undo the change; use cutOver InPlace", user.ref.Name, claimKind, claim, above)
		}
		deployments = append(deployments, user.ref)
	}
	for _, p := range pods {
		uses := slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		})
		if !uses || target.Ended(p) || evidencePod(p) {
			continue
		}
		if owner := metav1.GetControllerOf(p); owner == nil || !known[w.deploymentOf[string(owner.UID)]] {
			return nil, fmt.Sprintf("Pod %s, which is of no Deployment, uses %s %s: delete it, or use cutOver InPlace", p.Name, claimKind, claim)
		}
	}
	return deployments, ""
}

// evidencePod reports whether an Incident holds the pod: it keeps the claim that it has.
func evidencePod(p *corev1.Pod) bool { return len(measure.HeldByOthers(p, "")) > 0 }
