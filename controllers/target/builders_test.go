package target

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

const (
	good = "registry/web@sha256:good"
	bad  = "registry/web:bad"
)

func reader(objs ...client.Object) client.Reader {
	return fake.NewClientBuilder().WithObjects(objs...).Build()
}

func meta(name, uid, ownerUID string, labels map[string]string) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), Labels: labels}
	if ownerUID != "" {
		out.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Owner", Name: "owner", UID: types.UID(ownerUID), Controller: new(true)}}
	}
	return out
}

func spec(image string) corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}}
}

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: spec(image)}
}

func selecting(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func pod(name, ownerUID, image string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta(name, "uid-"+name, ownerUID, labels), Spec: spec(image)}
}

func hashed(name, ownerUID, image, hash string) *corev1.Pod {
	return pod(name, ownerUID, image, map[string]string{"app": "web", appsv1.ControllerRevisionHashLabelKey: hash})
}

// detached is the pod after quarantine took its labels and its owner let go of it.
func detached(p *corev1.Pod) *corev1.Pod {
	out := p.DeepCopy()
	labels, annotations, err := measure.Quarantined(p, "incident", true)
	if err != nil {
		panic(err)
	}
	out.Labels, out.Annotations, out.OwnerReferences = labels, annotations, nil
	return out
}

func replicaSet(name, uid, ownerUID, image string, replicas int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: meta(name, uid, ownerUID, nil), Spec: appsv1.ReplicaSetSpec{
		Replicas: &replicas, Selector: selecting("pod-template-hash", uid), Template: template(image),
	}}
}

func statefulSet(uid, image, updateRevision string) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: meta("db", uid, "", nil),
		Spec:       appsv1.StatefulSetSpec{Selector: selecting("app", "web"), Template: template(image)},
		Status:     appsv1.StatefulSetStatus{UpdateRevision: updateRevision},
	}
}

func daemonSet(uid, image string) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: meta("agent", uid, "", nil), Spec: appsv1.DaemonSetSpec{Selector: selecting("app", "web"), Template: template(image)}}
}

func cronJob(uid, image string) *batchv1.CronJob {
	out := &batchv1.CronJob{ObjectMeta: meta("nightly", uid, "", nil)}
	out.Spec.JobTemplate.Spec.Template = template(image)
	return out
}

func job(name, ownerUID, image string) *batchv1.Job {
	return &batchv1.Job{ObjectMeta: meta(name, "uid-"+name, ownerUID, nil), Spec: batchv1.JobSpec{Template: template(image)}}
}

func resolved(kind v1alpha1.TargetKind, name, uid string) v1alpha1.ResolvedTarget {
	return v1alpha1.ResolvedTarget{Key: "k", Kind: kind, Namespace: "shop", Name: name, UID: uid}
}

// runsGood tells recovered pods and templates by their image.
func runsGood(_ v1alpha1.ObjectRef, _ map[string]string, spec *corev1.PodSpec) bool {
	return len(spec.Containers) > 0 && spec.Containers[0].Image == good
}
