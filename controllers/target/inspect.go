package target

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// What status.revisions holds of the images of a revision: how many, and how many characters of each.
const (
	maxImages      = 32
	maxImageLength = 512
)

// Pod is one pod of a target.
type Pod struct {
	// Pod is the pod as it was read.
	Pod *corev1.Pod
	// Workload is the target that the pod belongs to.
	Workload v1alpha1.ObjectRef
	// Revision is the ID of the revision that the pod was created from; empty for a bare pod.
	Revision string
}

// View is what the resolved targets consist of now. Recovered pods and revisions are left out: they are free.
type View struct {
	// Pods are the pods that belong to the targets, sorted by namespace and name.
	Pods []Pod
	// Revisions are the compromised revisions, sorted by ID.
	Revisions []v1alpha1.RevisionStatus
	// All are all pods of the namespaces that were inspected, by UID.
	All map[string]*corev1.Pod
}

// Recovered tells a pod, or a pod template, that the recovery plan has brought back from one that is compromised.
type Recovered func(workload v1alpha1.ObjectRef, annotations map[string]string, spec *corev1.PodSpec) bool

// Inspect reads what the resolved targets consist of now, in every namespace given.
func Inspect(ctx context.Context, r client.Reader, namespaces []string, targets []v1alpha1.ResolvedTarget, recovered Recovered) (*View, error) {
	v := &View{All: map[string]*corev1.Pod{}}
	for _, ns := range namespaces {
		in := &inspection{reader: r, namespace: ns, recovered: recovered, revisions: map[string]v1alpha1.RevisionStatus{}}
		if err := in.run(ctx, targets); err != nil {
			return nil, err
		}
		for _, p := range in.pods {
			v.All[string(p.UID)] = p
		}
		v.Pods = append(v.Pods, in.found...)
		v.Revisions = slices.AppendSeq(v.Revisions, maps.Values(in.revisions))
	}
	slices.SortFunc(v.Pods, func(a, b Pod) int {
		return strings.Compare(a.Pod.Namespace+"/"+a.Pod.Name, b.Pod.Namespace+"/"+b.Pod.Name)
	})
	slices.SortFunc(v.Revisions, func(a, b v1alpha1.RevisionStatus) int { return strings.Compare(a.ID, b.ID) })
	return v, nil
}

// inspection is the inspection of one namespace.
type inspection struct {
	reader    client.Reader
	namespace string
	recovered Recovered

	pods      []*corev1.Pod
	found     []Pod
	revisions map[string]v1alpha1.RevisionStatus
}

func (in *inspection) run(ctx context.Context, targets []v1alpha1.ResolvedTarget) error {
	var list corev1.PodList
	if err := in.reader.List(ctx, &list, client.InNamespace(in.namespace)); err != nil {
		return fmt.Errorf("listing pods in namespace %s: %w", in.namespace, err)
	}
	for i := range list.Items {
		in.pods = append(in.pods, &list.Items[i])
	}
	seen := map[string]bool{}
	for _, t := range targets {
		if t.Namespace != in.namespace || seen[t.UID] {
			continue
		}
		seen[t.UID] = true
		if err := in.inspect(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspection) inspect(ctx context.Context, t v1alpha1.ResolvedTarget) error {
	ref := v1alpha1.ObjectRef{Kind: string(t.Kind), Namespace: t.Namespace, Name: t.Name, UID: t.UID}
	switch t.Kind {
	case v1alpha1.TargetDeployment:
		return in.deployment(ctx, ref)
	case v1alpha1.TargetReplicaSet:
		return in.replicaSet(ctx, ref)
	case v1alpha1.TargetStatefulSet:
		return in.statefulSet(ctx, ref)
	case v1alpha1.TargetDaemonSet:
		return in.daemonSet(ctx, ref)
	case v1alpha1.TargetJob:
		in.job(ref, ref)
		return nil
	case v1alpha1.TargetCronJob:
		return in.cronJob(ctx, ref)
	case v1alpha1.TargetPod:
		for _, p := range in.pods {
			if string(p.UID) == ref.UID {
				in.found = append(in.found, Pod{Pod: p, Workload: ref})
			}
		}
		return nil
	}
	return fmt.Errorf("unknown target kind %q", t.Kind)
}

func (in *inspection) deployment(ctx context.Context, ref v1alpha1.ObjectRef) error {
	var sets appsv1.ReplicaSetList
	if err := in.reader.List(ctx, &sets, client.InNamespace(in.namespace)); err != nil {
		return fmt.Errorf("listing ReplicaSets in namespace %s: %w", in.namespace, err)
	}
	for i := range sets.Items {
		if rs := &sets.Items[i]; controllerUID(rs) == ref.UID {
			in.revision(ref, rs)
		}
	}
	return nil
}

func (in *inspection) replicaSet(ctx context.Context, ref v1alpha1.ObjectRef) error {
	var rs appsv1.ReplicaSet
	found, err := in.get(ctx, ref, &rs)
	if err != nil {
		return err
	}
	if !found {
		in.ownedPods(ref, ref.UID)
		return nil
	}
	in.revision(ref, &rs)
	return nil
}

// revision records a ReplicaSet that has, or is about to have, pods. One that is scaled to zero and never had a quarantined pod is history, not
// compromised.
func (in *inspection) revision(ref v1alpha1.ObjectRef, rs *appsv1.ReplicaSet) {
	if in.recovered(ref, rs.Spec.Template.Annotations, &rs.Spec.Template.Spec) {
		return
	}
	id := string(rs.UID)
	pods := in.ownedPods(ref, id)
	wanted := rs.Spec.Replicas == nil || *rs.Spec.Replicas > 0
	if !wanted && pods == 0 && ref.Kind == string(v1alpha1.TargetDeployment) {
		return
	}
	in.hold(id, ref, rs.Spec.Selector, &rs.Spec.Template.Spec)
}

func (in *inspection) statefulSet(ctx context.Context, ref v1alpha1.ObjectRef) error {
	var sts appsv1.StatefulSet
	found, err := in.get(ctx, ref, &sts)
	if err != nil {
		return err
	}
	if !found {
		in.hashedPods(ref, nil)
		return nil
	}
	in.hashedPods(ref, sts.Spec.Selector)
	current := sts.Status.ObservedGeneration == sts.Generation && sts.Status.UpdateRevision != ""
	if current && !in.recovered(ref, sts.Spec.Template.Annotations, &sts.Spec.Template.Spec) {
		in.holdHash(ref, sts.Spec.Selector, sts.Status.UpdateRevision, &sts.Spec.Template.Spec)
	}
	return nil
}

func (in *inspection) daemonSet(ctx context.Context, ref v1alpha1.ObjectRef) error {
	var ds appsv1.DaemonSet
	found, err := in.get(ctx, ref, &ds)
	if err != nil {
		return err
	}
	if !found {
		in.hashedPods(ref, nil)
		return nil
	}
	in.hashedPods(ref, ds.Spec.Selector)
	return nil
}

func (in *inspection) cronJob(ctx context.Context, ref v1alpha1.ObjectRef) error {
	var cron batchv1.CronJob
	found, err := in.get(ctx, ref, &cron)
	if err != nil {
		return err
	}
	template := &cron.Spec.JobTemplate.Spec.Template
	if found && !in.recovered(ref, template.Annotations, &template.Spec) {
		in.hold(ref.UID, ref, nil, &template.Spec)
	}
	var jobs batchv1.JobList
	if err := in.reader.List(ctx, &jobs, client.InNamespace(in.namespace)); err != nil {
		return fmt.Errorf("listing Jobs in namespace %s: %w", in.namespace, err)
	}
	for i := range jobs.Items {
		job := &jobs.Items[i]
		if controllerUID(job) != ref.UID || in.recovered(ref, job.Spec.Template.Annotations, &job.Spec.Template.Spec) {
			continue
		}
		in.job(ref, v1alpha1.ObjectRef{Kind: "Job", Namespace: job.Namespace, Name: job.Name, UID: string(job.UID)})
	}
	return nil
}

// job records the pods of a Job. All pods of a Job are of one revision, which the controller marks with the Job's UID.
func (in *inspection) job(workload, job v1alpha1.ObjectRef) {
	in.ownedPods(workload, job.UID)
	in.orphans(workload, job.UID)
	in.hold(job.UID, workload, &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: job.UID}}, nil)
}

// orphans records the pods that the Job with the UID has left behind: whoever deletes a Job may leave its pods without an owner, and what it had made a moment before nobody has seen.
func (in *inspection) orphans(ref v1alpha1.ObjectRef, uid string) {
	for _, p := range in.pods {
		if owner, labels := origin(p); owner == "" && labels[batchv1.ControllerUidLabel] == uid && !in.recovered(ref, p.Annotations, &p.Spec) {
			in.found = append(in.found, Pod{Pod: p, Workload: ref, Revision: uid})
		}
	}
}

// ownedPods records the pods whose controller has the UID, and returns how many there are.
func (in *inspection) ownedPods(ref v1alpha1.ObjectRef, uid string) int {
	n := 0
	for _, p := range in.pods {
		owner, _ := origin(p)
		if owner != uid || in.recovered(ref, p.Annotations, &p.Spec) {
			continue
		}
		in.found = append(in.found, Pod{Pod: p, Workload: ref, Revision: uid})
		n++
	}
	return n
}

// hashedPods records the pods of a StatefulSet or DaemonSet, and every revision that one of them was created from. selector is nil when the owner is gone:
// it creates no more pods.
func (in *inspection) hashedPods(ref v1alpha1.ObjectRef, selector *metav1.LabelSelector) {
	for _, p := range in.pods {
		owner, labels := origin(p)
		if owner != ref.UID || in.recovered(ref, p.Annotations, &p.Spec) {
			continue
		}
		hash := labels[appsv1.ControllerRevisionHashLabelKey]
		in.found = append(in.found, Pod{Pod: p, Workload: ref, Revision: RevisionID(ref.UID, hash)})
		in.holdHash(ref, selector, hash, &p.Spec)
	}
}

func (in *inspection) holdHash(ref v1alpha1.ObjectRef, selector *metav1.LabelSelector, hash string, spec *corev1.PodSpec) {
	if hash == "" || selector == nil {
		return
	}
	narrowed := selector.DeepCopy()
	if narrowed.MatchLabels == nil {
		narrowed.MatchLabels = map[string]string{}
	}
	narrowed.MatchLabels[appsv1.ControllerRevisionHashLabelKey] = hash
	in.hold(RevisionID(ref.UID, hash), ref, narrowed, spec)
}

func (in *inspection) hold(id string, ref v1alpha1.ObjectRef, selector *metav1.LabelSelector, spec *corev1.PodSpec) {
	if _, ok := in.revisions[id]; ok {
		return
	}
	in.revisions[id] = v1alpha1.RevisionStatus{ID: id, Workload: ref, Selector: selector, Images: images(spec), State: v1alpha1.RevisionHeld}
}

func (in *inspection) get(ctx context.Context, ref v1alpha1.ObjectRef, obj client.Object) (bool, error) {
	err := in.reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, obj)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s %s/%s: %w", ref.Kind, ref.Namespace, ref.Name, err)
	}
	// A namesake is another object: it was never recorded.
	return string(obj.GetUID()) == ref.UID, nil
}

// RevisionID identifies a revision of an owner that has several.
func RevisionID(ownerUID, hash string) string {
	if hash == "" {
		return ownerUID
	}
	return ownerUID + "/" + hash
}

// origin returns the UID of the pod's controller and its labels, as they were before quarantine took them. A pod that nobody holds has what it shows: whoever
// writes pod templates could put the annotation there, to hide the pod.
func origin(pod *corev1.Pod) (ownerUID string, labels map[string]string) {
	if len(measure.HeldByOthers(pod, "")) == 0 {
		return controllerUID(pod), pod.Labels
	}
	// An annotation that cannot be read leaves the pod with what it has; the verdict says so where it matters.
	if o, err := measure.OriginalOf(pod); err == nil && o != nil {
		if o.Owner != nil {
			ownerUID = string(o.Owner.UID)
		}
		return ownerUID, o.Labels
	}
	return controllerUID(pod), pod.Labels
}

func controllerUID(obj metav1.Object) string {
	if owner := metav1.GetControllerOf(obj); owner != nil {
		return string(owner.UID)
	}
	return ""
}

// images are the images of a pod spec, within the bounds of status.revisions.
func images(spec *corev1.PodSpec) []string {
	if spec == nil {
		return nil
	}
	var out []string
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		image := c.Image
		if runes := []rune(image); len(runes) > maxImageLength {
			image = string(runes[:maxImageLength])
		}
		if len(out) < maxImages && !slices.Contains(out, image) {
			out = append(out, image)
		}
	}
	return out
}
