package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// workload is a workload whose images a plan rolls back, in the terms in which every kind is judged.
type workload struct {
	ref      v1alpha1.ObjectRef
	object   client.Object
	template *corev1.PodTemplateSpec
	// self is the workload, where its template is another object's: the Deployment of a Rollout.
	self client.Object
	// custom is the content of a workload of an API that knows no strategic merge.
	custom *unstructured.Unstructured
	// path leads to the template in the object.
	path []string
	// observed says that the workload's controller has seen the current spec.
	observed bool
	// paused says that the rollout is paused.
	paused bool
	// halted says why its controller does not go on by itself, and what there is to do; or "".
	halted string
	// onDelete says that its controller replaces no pod by itself, partition below which ordinal it does not, and ordered that it waits for each pod to be ready before it goes on.
	onDelete  bool
	partition int32
	ordered   bool
	// wanted is the number of pods that have to run; for a CronJob none.
	wanted int32
	// hash is the revision hash of the pods of the current template, "" while it is not known; hashLabel is the label that carries it.
	hash, hashLabel string
	// names are the names that the pods of a StatefulSet have to have.
	names []string
	// owners are the UIDs of the objects that own the workload's pods.
	owners []string
}

// readWorkload reads the workload. It returns nil and why when there is nothing that could be rolled back.
func readWorkload(ctx context.Context, r client.Reader, ns string, w v1alpha1.WorkloadRef) (*workload, string, error) {
	key := client.ObjectKey{Namespace: ns, Name: w.Name}
	var (
		out *workload
		err error
	)
	switch string(w.Kind) {
	case "Deployment":
		out, err = readDeployment(ctx, r, key)
	case "StatefulSet":
		out, err = readStatefulSet(ctx, r, key)
	case "DaemonSet":
		out, err = readDaemonSet(ctx, r, key)
	case "CronJob":
		out, err = readCronJob(ctx, r, key)
	case "Rollout":
		var why string
		if out, why, err = readRollout(ctx, r, key); err == nil && out == nil {
			return nil, why, nil
		}
	case "Job":
		out, err = readJob(ctx, r, key)
	case "Pod":
		out, err = readPod(ctx, r, key)
	default:
		return nil, fmt.Sprintf("%s is not a kind that can be rolled back", w.Kind), nil
	}
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("%s %s does not exist: create it, or correct the plan", w.Kind, key), nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading %s %s: %w", w.Kind, key, err)
	}
	self := out.object
	if out.self != nil {
		self = out.self
	}
	out.ref = v1alpha1.ObjectRef{Kind: string(w.Kind), Namespace: ns, Name: w.Name, UID: string(self.GetUID())}
	return out, "", nil
}

// changed is the object that is patched to change the template.
func (w *workload) changed() v1alpha1.ObjectRef {
	if w.self == nil {
		return w.ref
	}
	return v1alpha1.ObjectRef{Kind: "Deployment", Namespace: w.object.GetNamespace(), Name: w.object.GetName(), UID: string(w.object.GetUID())}
}

// patchType is the kind of patch that the API of the workload knows.
func (w *workload) patchType() types.PatchType {
	if w.custom != nil {
		return types.MergePatchType
	}
	return types.StrategicMergePatchType
}

func readDeployment(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var d appsv1.Deployment
	if err := r.Get(ctx, key, &d); err != nil {
		return nil, err
	}
	out := &workload{
		object: &d, template: &d.Spec.Template, path: []string{"spec", "template"}, paused: d.Spec.Paused,
		observed: d.Status.ObservedGeneration >= d.Generation, wanted: orOne(d.Spec.Replicas), hashLabel: appsv1.DefaultDeploymentUniqueLabelKey,
	}
	var sets appsv1.ReplicaSetList
	if err := r.List(ctx, &sets, client.InNamespace(key.Namespace)); err != nil {
		return nil, err
	}
	for i := range sets.Items {
		rs := &sets.Items[i]
		if owner := metav1.GetControllerOf(rs); owner == nil || owner.UID != d.UID {
			continue
		}
		out.owners = append(out.owners, string(rs.UID))
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			out.hash = rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		}
	}
	return out, nil
}

// sameTemplate reports whether the Deployment's controller made the ReplicaSet from this very template: they are equal but for the revision hash. The mark
// alone does not tell revisions apart, because a template may be changed once more after it was rolled back.
func sameTemplate(ofReplicaSet, current *corev1.PodTemplateSpec) bool {
	a, b := ofReplicaSet.DeepCopy(), current.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

func readStatefulSet(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var s appsv1.StatefulSet
	if err := r.Get(ctx, key, &s); err != nil {
		return nil, err
	}
	out := &workload{
		object: &s, template: &s.Spec.Template, path: []string{"spec", "template"}, owners: []string{string(s.UID)},
		observed: s.Status.ObservedGeneration >= s.Generation, wanted: orOne(s.Spec.Replicas),
		hash: s.Status.UpdateRevision, hashLabel: appsv1.ControllerRevisionHashLabelKey,
	}
	out.onDelete = s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
	out.ordered = s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	if rolling := s.Spec.UpdateStrategy.RollingUpdate; rolling != nil {
		out.partition = ptr.Deref(rolling.Partition, 0)
	}
	start := int32(0)
	if s.Spec.Ordinals != nil {
		start = s.Spec.Ordinals.Start
	}
	for i := range out.wanted {
		out.names = append(out.names, fmt.Sprintf("%s-%d", s.Name, start+i))
	}
	return out, nil
}

func readDaemonSet(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var d appsv1.DaemonSet
	if err := r.Get(ctx, key, &d); err != nil {
		return nil, err
	}
	out := &workload{
		object: &d, template: &d.Spec.Template, path: []string{"spec", "template"}, owners: []string{string(d.UID)},
		observed: d.Status.ObservedGeneration >= d.Generation, wanted: d.Status.DesiredNumberScheduled, hashLabel: appsv1.ControllerRevisionHashLabelKey,
	}
	out.onDelete = d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
	var revisions appsv1.ControllerRevisionList
	if err := r.List(ctx, &revisions, client.InNamespace(key.Namespace)); err != nil {
		return nil, err
	}
	newest := int64(-1)
	for i := range revisions.Items {
		rev := &revisions.Items[i]
		if owner := metav1.GetControllerOf(rev); owner != nil && owner.UID == d.UID && rev.Revision > newest {
			newest, out.hash = rev.Revision, rev.Labels[appsv1.ControllerRevisionHashLabelKey]
		}
	}
	return out, nil
}

func readCronJob(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var c batchv1.CronJob
	if err := r.Get(ctx, key, &c); err != nil {
		return nil, err
	}
	return &workload{
		object: &c, template: &c.Spec.JobTemplate.Spec.Template, path: []string{"spec", "jobTemplate", "spec", "template"}, observed: true,
	}, nil
}

// change returns the patch that brings the template to the known-good images, what it changes in words, and why it cannot be made. The patch is empty
// when the template is there already. Without the UID of an Incident the mark is taken off. It is a strategic merge patch of our own fields only: everything else in the template stays.
func (w *workload) change(good v1alpha1.KnownGoodImages, incidentUID string) (patch []byte, detail, impossible string) {
	lists := map[string]any{}
	var changes []string
	for _, want := range good.Containers {
		c := container(&w.template.Spec, want.Name)
		if want.FoundIn == v1alpha1.InPods {
			if c != nil {
				return nil, "", fmt.Sprintf("container %s is in the pod template of %s %s/%s, and not only in its pods: correct the plan", want.Name, w.ref.Kind, w.ref.Namespace, w.ref.Name)
			}
			continue
		}
		if c == nil {
			return nil, "", fmt.Sprintf("%s %s/%s has no container %s: correct the plan; if it is injected into the pods, list it with foundIn: Pods", w.ref.Kind, w.ref.Namespace, w.ref.Name, want.Name)
		}
		list := "containers"
		if isInit(&w.template.Spec, want.Name) {
			list = "initContainers"
		}
		entries, _ := lists[list].([]any)
		lists[list] = append(entries, map[string]any{"name": want.Name, "image": want.Image})
		changes = append(changes, fmt.Sprintf("%s: %s -> %s", want.Name, c.Image, want.Image))
	}
	if w.template.Annotations[v1alpha1.RecoveredByAnnotation] == incidentUID && imagesMatch(good, &w.template.Spec) {
		return nil, "", ""
	}
	var mark any = incidentUID
	if incidentUID == "" {
		mark = nil
	}
	if w.custom != nil {
		return w.customChange(good, mark, strings.Join(changes, "; "))
	}
	var body any = map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1alpha1.RecoveredByAnnotation: mark}},
		"spec":     lists,
	}
	for _, field := range slices.Backward(w.path) {
		body = map[string]any{field: body}
	}
	// The UID makes the API server refuse the patch for a namesake.
	body.(map[string]any)["metadata"] = map[string]any{"uid": w.changed().UID}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, "", fmt.Sprintf("the patch cannot be encoded: %v", err)
	}
	return raw, strings.Join(changes, "; "), ""
}

func isInit(spec *corev1.PodSpec, name string) bool {
	return slices.ContainsFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func orOne(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

// Named are the workloads that the plan names and that the apps API has, empty but for their names.
func Named(namespace string, plan v1alpha1.RecoveryPlanSpec) []client.Object {
	var out []client.Object
	for _, good := range plan.Images {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: good.Workload.Name}
		switch string(good.Workload.Kind) {
		case string(v1alpha1.TargetDeployment):
			out = append(out, &appsv1.Deployment{ObjectMeta: meta})
		case string(v1alpha1.TargetStatefulSet):
			out = append(out, &appsv1.StatefulSet{ObjectMeta: meta})
		case string(v1alpha1.TargetDaemonSet):
			out = append(out, &appsv1.DaemonSet{ObjectMeta: meta})
		}
	}
	return out
}
