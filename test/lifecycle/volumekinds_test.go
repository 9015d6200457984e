package lifecycle

import (
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// books is a StatefulSet whose claims are of an unusual kind.
const books = "books"

var _ = Describe("Restoring an unusual volume", func() {
	// restored brings the volume of books back, and returns the claim and the volume before and after.
	restored := func(ctx context.Context, shop *scenario.Shop, change func(*appsv1.StatefulSetSpec), claim string, taken func(*snapshotv1.VolumeSnapshot)) (was, is *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) {
		GinkgoHelper()
		openBooks(ctx, shop, change)
		before, since, err := shop.BackUpOf(ctx, "before", claim)
		Expect(err).NotTo(HaveOccurred())
		taken(before)
		was, _ = claimWithVolume(ctx, shop, claim)
		restore := builder.RestoreVolumes("restore", []string{"stop"}, claim)
		restore.RestoreVolumes.Check = v1alpha1.VolumeCheck{Image: builder.GoodImage, Command: []string{"true"}}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, books,
			builder.ScaleSet("stop", books, v1alpha1.ScaleToZero), restore, builder.ScaleSet("start", books, v1alpha1.ScaleToOriginal, "restore"),
		))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(books), builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", books)), builder.SuspectedSince(since))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		is, volume = claimWithVolume(ctx, shop, claim)
		Expect(is.UID).NotTo(Equal(was.UID))
		Expect(volume.Spec.CSI.VolumeAttributes).To(HaveKey(restoredFrom))
		var set appsv1.StatefulSet
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: books}, &set)).To(Succeed())
		Expect(set.Status.ReadyReplicas).To(Equal(int32(1)), "it runs on what was restored")
		return was, is, volume
	}
	nothing := func(*snapshotv1.VolumeSnapshot) {}

	It("of a class that makes volumes only for a node makes it for the node that has used the old one", func(ctx SpecContext) {
		shop := openShop(ctx)
		class := &storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: "late-" + shop.Namespace}, Provisioner: "csi.sim.cofferdam.dev",
			ReclaimPolicy: new(corev1.PersistentVolumeReclaimDelete), VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
		}
		Expect(shop.Admin.Create(ctx, class)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(shop.Admin.Delete(ctx, class)).To(Succeed()) })
		was, is, volume := restored(ctx, shop, func(s *appsv1.StatefulSetSpec) { s.VolumeClaimTemplates[0].Spec.StorageClassName = &class.Name }, "data-books-0", nothing)
		Expect(was.Annotations).To(HaveKey("volume.kubernetes.io/selected-node"), "its class waits for the first consumer")
		Expect(is.Spec.StorageClassName).To(HaveValue(Equal(class.Name)))
		Expect(volume.Spec.StorageClassName).To(Equal(class.Name))
	})

	It("that is a block device is checked and used as one", func(ctx SpecContext) {
		shop := openShop(ctx)
		_, is, volume := restored(ctx, shop, func(s *appsv1.StatefulSetSpec) {
			s.VolumeClaimTemplates[0].Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
			c := &s.Template.Spec.Containers[0]
			c.VolumeMounts, c.VolumeDevices = nil, []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
		}, "data-books-0", nothing)
		Expect(is.Spec.VolumeMode).To(HaveValue(Equal(corev1.PersistentVolumeBlock)))
		Expect(volume.Spec.VolumeMode).To(HaveValue(Equal(corev1.PersistentVolumeBlock)))
	})

	It("gets the size that its snapshot needs, which may be more than the claim has asked for", func(ctx SpecContext) {
		shop := openShop(ctx)
		was, is, volume := restored(ctx, shop, func(*appsv1.StatefulSetSpec) {}, "data-books-0", func(snapshot *snapshotv1.VolumeSnapshot) {
			grown := client.RawPatch(types.MergePatchType, []byte(`{"status":{"restoreSize":"1536Mi"}}`))
			Expect(shop.Admin.Status().Patch(ctx, snapshot, grown)).To(Succeed(), "drivers round up")
		})
		Expect(volume.Spec.Capacity[corev1.ResourceStorage]).To(Equal(resource.MustParse("1536Mi")))
		Expect(is.Spec.Resources).To(Equal(was.Spec.Resources), "the claim asks for what it has asked for")
	})

	It("of a StatefulSet whose ordinals begin later is found by its name", func(ctx SpecContext) {
		shop := openShop(ctx)
		restored(ctx, shop, func(s *appsv1.StatefulSetSpec) { s.Ordinals = &appsv1.StatefulSetOrdinals{Start: 7} }, "data-books-7", nothing)
	})
})

// openBooks creates the StatefulSet, and waits until it runs.
func openBooks(ctx context.Context, shop *scenario.Shop, change func(*appsv1.StatefulSetSpec)) {
	GinkgoHelper()
	set := builder.StatefulSet(shop.Namespace, books, builder.GoodImage, 1)
	set.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}}
	change(&set.Spec)
	Expect(shop.Admin.Create(ctx, set)).To(Succeed())
	Eventually(ctx, func() error {
		if err := shop.Admin.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil || set.Status.ReadyReplicas == 1 {
			return err
		}
		return fmt.Errorf("%s has %d ready pods", books, set.Status.ReadyReplicas)
	}).WithTimeout(scenario.Patience).Should(Succeed())
}
