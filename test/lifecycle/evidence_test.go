package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Evidence", func() {
	It("is what the pod was before the operator changed it, and nobody else deletes it", func(ctx SpecContext) {
		shop := openShop(ctx)
		before := podsOf(ctx, shop, scenario.DB)[0]
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "evidence collected", scenario.Is(v1alpha1.ConditionEvidenceCollected))

		for _, item := range evidenceOf(inc, v1alpha1.EvidenceManifests) {
			if item.Subject.Name != before.Name {
				continue
			}
			record := readRecord(ctx, item)
			Expect(record.Pod.Labels).To(Equal(before.Labels))
			Expect(record.Pod.UID).To(Equal(before.UID))
			Expect(record.Owners).NotTo(BeEmpty())
			Expect(string(record.Owners[0])).To(ContainSubstring(`"kind":"StatefulSet"`))
		}
		volumes := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
		Expect(volumes).To(HaveLen(1))
		Expect(volumes[0].TakenAt.IsZero()).To(BeFalse())

		By("deleting the snapshot as a cluster administrator would, which is refused")
		var list snapshotv1.VolumeSnapshotList
		Expect(shop.Admin.List(ctx, &list, client.InNamespace(shop.Namespace))).To(Succeed())
		content := *list.Items[0].Status.BoundVolumeSnapshotContentName
		Expect(shop.Admin.Delete(ctx, &list.Items[0])).To(MatchError(ContainSubstring("evidence")))
		var kept snapshotv1.VolumeSnapshotContent
		Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: content}, &kept)).To(Succeed())
		Expect(kept.Spec.DeletionPolicy).To(Equal(snapshotv1.VolumeSnapshotContentRetain))
	})

	It("is a declared gap when a snapshot is not ready before its deadline, and the Incident goes on", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.VolumeSnapshotClassName = "slow"
			p.Spec.Evidence.SnapshotDeadlineSeconds = 5
		})
		slow := &snapshotv1.VolumeSnapshotClass{
			ObjectMeta: metav1.ObjectMeta{Name: "slow"}, Driver: "csi.sim.cofferdam.dev",
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Parameters: map[string]string{"neverReady": "true"},
		}
		Expect(shop.Admin.Create(ctx, slow)).To(Succeed())
		DeferCleanup(func(ctx context.Context) error { return shop.Admin.Delete(ctx, slow) })
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "left with a gap", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)).To(ConsistOf(And(
			HaveField("State", v1alpha1.EvidenceGap), HaveField("Message", ContainSubstring("deadline")))))
		Expect(scenario.Is(v1alpha1.ConditionReady)(inc)).To(BeTrue())
	})

	It("holds back the deletion of a blocking pod when it has a gap", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.VolumeSnapshots = v1alpha1.SnapshotSkip })
		declare(ctx, shop, "miner", func(inc *v1alpha1.Incident) { inc.Spec.RecoveryPlanRef.Name = scenario.PlanName })
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "blocked", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && strings.Contains(inc.Status.Recovery.Steps[0].Message, "hold the names of their replacements")
		})
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("db-0"))
		Expect(pod(ctx, shop, "db-0").DeletionTimestamp.IsZero()).To(BeTrue())

		By("a person deciding that what there is suffices")
		Expect(shop.Admin.Delete(ctx, pod(ctx, shop, "db-0"))).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
	})
})

var _ = Describe("Without the snapshot API", func() {
	It("volumes are declared gaps, and everything else works", func(ctx SpecContext) {
		bare, err := cluster.StartInstalled(ctx, "external", "--no-snapshot-crds")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() error { return bare.Stop() })
		op, err := operator.Start(ctx, bare.OperatorConfig(), operator.Options{})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(op.Stop)
		shop, err := scenario.Open(ctx, bare, "bare")
		Expect(err).NotTo(HaveOccurred())
		Expect(shop.Admin.Create(ctx, scenario.Policy("bare"))).To(Succeed())
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with a gap", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps)(inc)
		})
		Expect(evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)).To(ConsistOf(HaveField("Message", ContainSubstring("snapshot.storage.k8s.io is not installed"))))
	})
})

// readRecord reads a record back from the store and checks its digest.
func readRecord(ctx context.Context, item v1alpha1.EvidenceItem) evidence.Record {
	GinkgoHelper()
	raw := readItem(ctx, item)
	sum := sha256.Sum256(raw)
	Expect(item.Digest).To(Equal("sha256:" + hex.EncodeToString(sum[:])))
	var record evidence.Record
	Expect(json.Unmarshal(raw, &record)).To(Succeed())
	return record
}
