package admission

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	. "cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

var _ = Describe("Compromised digests", func() {
	bad, good := "registry.example.com/app:1.2@"+digestA, "registry.example.com/app@"+digestB

	// compromised stores a ConfigMap as the operator does, and waits until it is in effect.
	compromised := func(ctx context.Context) {
		GinkgoHelper()
		refusals := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: cluster.OperatorNamespace, Name: fresh(),
				Labels:      map[string]string{containmentv1alpha1.RefusalsLabel: "true"},
				Annotations: map[string]string{containmentv1alpha1.IncidentAnnotation: "shop/miner"},
			},
			Data: map[string]string{"digests": digestA + "\n", "digest-namespaces": shop + "\n"},
		}
		Expect(operator.Create(ctx, refusals)).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			Expect(operator.Delete(ctx, refusals)).To(Succeed())
			Eventually(ctx, func() error { return admin.Create(ctx, podWith(shop, bad), client.DryRunAll) }).Should(Succeed())
		})
		Eventually(ctx, func() error { return admin.Create(ctx, podWith(shop, bad), client.DryRunAll) }).
			Should(refusedWith("the digest of the image " + bad + " is compromised, says Incident shop/miner"))
	}

	It("start in no kind of workload, and in no place of a pod", func(ctx context.Context) {
		compromised(ctx)
		for kind, make := range workloadsOf {
			Expect(admin.Create(ctx, make(shop, bad), client.DryRunAll)).To(refusedWith("is compromised"), kind)
			Expect(operator.Create(ctx, make(shop, bad), client.DryRunAll)).To(refusedWith("is compromised"), "nobody is exempt: "+kind)
			Expect(admin.Create(ctx, make(shop, good), client.DryRunAll)).To(Succeed(), kind)
			Expect(admin.Create(ctx, make(pay, bad), client.DryRunAll)).To(Succeed(), "another namespace: "+kind)
		}
		inInit, inVolume := podWith(shop, good), podWith(shop, good)
		inInit.Spec.InitContainers = []corev1.Container{{Name: "init", Image: bad}}
		inVolume.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: bad}}}}
		Expect(admin.Create(ctx, inInit, client.DryRunAll)).To(refusedWith("is compromised"))
		Expect(admin.Create(ctx, inVolume, client.DryRunAll)).To(refusedWith("is compromised"))
		Expect(admin.Create(ctx, podWith(shop, "registry.example.com/app:1.2"), client.DryRunAll)).To(Succeed(), "a tag names no digest")
	})

	It("do not get into what exists", func(ctx context.Context) {
		compromised(ctx)
		for kind, make := range workloadsOf {
			if kind == "Job" {
				continue // its template never changes
			}
			object := make(shop, good)
			Expect(admin.Create(ctx, object)).To(Succeed())
			DeferCleanup(func(ctx context.Context) {
				Expect(admin.Delete(ctx, object, client.GracePeriodSeconds(0))).To(Succeed())
			})
			Expect(useImage(ctx, admin, object, bad, client.DryRunAll)).To(refusedWith("is compromised"), kind)
		}
		pod := podWith(shop, good)
		Expect(admin.Create(ctx, pod)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed()) })
		debugger := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: bad, ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		}}
		Eventually(ctx, func() error { // controllers write to the pod meanwhile
			if err := admin.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{debugger}
			return admin.SubResource("ephemeralcontainers").Update(ctx, pod, client.DryRunAll)
		}).Should(refusedWith("is compromised"))
	})

	It("that are there already can be scaled, labelled, taken out and put back by the operator", func(ctx context.Context) {
		d, pod := Deployment(shop, fresh(), bad, 2), podWith(shop, bad)
		Expect(admin.Create(ctx, d)).To(Succeed())
		Expect(admin.Create(ctx, pod)).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			Expect(admin.Delete(ctx, d)).To(Succeed())
			Expect(client.IgnoreNotFound(admin.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
		})
		compromised(ctx)
		before := d.DeepCopy()
		d.Spec.Replicas = new(int32(0))
		d.Spec.Template.Labels["note"] = "seen"
		Expect(admin.Patch(ctx, d, client.MergeFrom(before))).To(Succeed())
		unlabelled := pod.DeepCopy()
		pod.Labels = map[string]string{"note": "seen"}
		Expect(admin.Patch(ctx, pod, client.MergeFrom(unlabelled))).To(Succeed())
		Expect(useImage(ctx, operator, d, good)).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(useImage(ctx, admin, d, bad)).To(refusedWith("is compromised"))
		Expect(useImage(ctx, operator, d, bad)).To(Succeed(), "a rollback is taken back")
		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
	})
})

// useImage changes the image of an object's first container.
func useImage(ctx context.Context, who client.Client, object client.Object, image string, opts ...client.PatchOption) error {
	GinkgoHelper()
	changed := object.DeepCopyObject().(client.Object)
	var spec *corev1.PodSpec
	switch o := changed.(type) {
	case *corev1.Pod:
		spec = &o.Spec
	case *appsv1.Deployment:
		spec = &o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		spec = &o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		spec = &o.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		spec = &o.Spec.Template.Spec
	case *corev1.ReplicationController:
		spec = &o.Spec.Template.Spec
	case *batchv1.CronJob:
		spec = &o.Spec.JobTemplate.Spec.Template.Spec
	default:
		Fail("the image of this kind cannot be changed")
	}
	spec.Containers[0].Image = image
	// Without the resourceVersion: controllers write status meanwhile.
	return who.Patch(ctx, changed, client.MergeFrom(object), opts...)
}

func podWith(namespace, image string) *corev1.Pod {
	pod := Pod(namespace, fresh())
	pod.Spec.Containers[0].Image = image
	return pod
}

// workloadsOf make, for every kind that makes pods, one with an image.
var workloadsOf = map[string]func(namespace, image string) client.Object{
	"Pod":         func(ns, image string) client.Object { return podWith(ns, image) },
	"Deployment":  func(ns, image string) client.Object { return Deployment(ns, fresh(), image, 1) },
	"StatefulSet": func(ns, image string) client.Object { return StatefulSet(ns, fresh(), image, 1) },
	"DaemonSet": func(ns, image string) client.Object {
		d := Deployment(ns, fresh(), image, 1)
		return &appsv1.DaemonSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.DaemonSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
	},
	"ReplicaSet": func(ns, image string) client.Object {
		d := Deployment(ns, fresh(), image, 1)
		return &appsv1.ReplicaSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
	},
	"ReplicationController": func(ns, image string) client.Object {
		d := Deployment(ns, fresh(), image, 1)
		return &corev1.ReplicationController{ObjectMeta: d.ObjectMeta, Spec: corev1.ReplicationControllerSpec{Selector: d.Spec.Selector.MatchLabels, Template: &d.Spec.Template}}
	},
	"Job": func(ns, image string) client.Object {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fresh()}, Spec: batchv1.JobSpec{Template: onceOnly(ns, image)}}
	},
	"CronJob": func(ns, image string) client.Object {
		return &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fresh()}, Spec: batchv1.CronJobSpec{
			Schedule: "@yearly", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: onceOnly(ns, image)}},
		}}
	},
}

func onceOnly(namespace, image string) corev1.PodTemplateSpec {
	spec := podWith(namespace, image).Spec
	spec.RestartPolicy = corev1.RestartPolicyNever
	return corev1.PodTemplateSpec{Spec: spec}
}
