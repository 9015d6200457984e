package lifecycle

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("The volumes of one workload", func() {
	It("are snapshotted at one moment where the standing orders want it", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.VolumeGroups = v1alpha1.VolumeGroupRequire
		})
		db := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: scenario.DB}}
		Expect(shop.Admin.Patch(ctx, db, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":2}}`)))).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db)).To(Succeed())
			g.Expect(db.Status.ReadyReplicas).To(BeEquivalentTo(2))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "evidence collected", scenario.Is(v1alpha1.ConditionEvidenceCollected))

		volumes := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
		Expect(volumes).To(HaveLen(2))
		Expect(volumes[0].TakenAt).To(Equal(volumes[1].TakenAt), "one moment")
		Expect(volumes[0].TakenAt.IsZero()).To(BeFalse())
		Expect(volumes).To(HaveEach(And(
			HaveField("Location", ContainSubstring("VolumeGroupSnapshot "+shop.Namespace+"/")), HaveField("Message", ContainSubstring("taken at one moment")))))

		By("holding the group, its members and their contents")
		groups := &unstructured.UnstructuredList{}
		groups.SetAPIVersion("groupsnapshot.storage.k8s.io/v1")
		groups.SetKind("VolumeGroupSnapshotList")
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.List(ctx, groups, client.InNamespace(shop.Namespace))).To(Succeed())
			g.Expect(groups.Items).To(HaveLen(1))
			g.Expect(groups.Items[0].GetLabels()).To(HaveKeyWithValue(v1alpha1.EvidenceLabel, "kept"))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(groups.Items[0].GetFinalizers()).To(ContainElement(v1alpha1.EvidenceFinalizer))
		var members snapshotv1.VolumeSnapshotList
		Expect(shop.Admin.List(ctx, &members, client.InNamespace(shop.Namespace))).To(Succeed())
		Expect(members.Items).To(HaveLen(2))
		for _, m := range members.Items {
			Expect(m.Labels).To(HaveKeyWithValue(v1alpha1.EvidenceLabel, "kept"))
			Expect(m.Finalizers).To(ContainElement(v1alpha1.EvidenceFinalizer))
			var content snapshotv1.VolumeSnapshotContent
			Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: *m.Status.BoundVolumeSnapshotContentName}, &content)).To(Succeed())
			Expect(content.Spec.DeletionPolicy).To(Equal(snapshotv1.VolumeSnapshotContentRetain))
		}

		By("leaving the claims as they were")
		var claims corev1.PersistentVolumeClaimList
		Expect(shop.Admin.List(ctx, &claims, client.InNamespace(shop.Namespace))).To(Succeed())
		for _, c := range claims.Items {
			Expect(c.Labels).NotTo(HaveKey(HavePrefix("containment.cofferdam.dev/")))
		}
		for _, e := range inc.Status.Journal {
			if e.Action == v1alpha1.ActionLabelClaim || e.Action == v1alpha1.ActionRestoreClaim {
				Expect(e.State).To(Equal(v1alpha1.JournalDone), "%s of %s", e.Action, e.Object.Name)
			}
		}
	})
})
