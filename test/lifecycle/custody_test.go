package lifecycle

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("The custody ledger", func() {
	It("has everything that was done, each intent before its outcome, and verifies against the head in status", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		inc := closeAndRead(ctx, shop, "miner")

		entries := ledgerOf(ctx, inc.UID)
		Expect(entries[0].Action).To(Equal("DeclareIncident"))
		Expect(entries[0].Actor).To(Equal(custody.Actor{Kind: custody.ActorPerson, Name: shop.ResponderName}))
		intents, outcomes := map[string]int64{}, map[string]int64{}
		for _, e := range entries {
			subject := e.Action + " " + e.Subject.Kind + "/" + e.Subject.Name + "/" + e.Subject.UID
			switch e.Phase {
			case custody.PhaseIntent:
				intents[subject] = e.Seq
			case custody.PhaseOutcome:
				outcomes[subject] = e.Seq
			}
		}
		Expect(inc.Status.Journal).NotTo(BeEmpty())
		for _, j := range inc.Status.Journal {
			subject := string(j.Action) + " " + j.Object.Kind + "/" + j.Object.Name + "/" + j.Object.UID
			Expect(intents).To(HaveKey(subject))
			Expect(outcomes).To(HaveKey(subject))
			Expect(intents[subject]).To(BeNumerically("<", outcomes[subject]), subject)
		}
		Expect(entries).To(ContainElement(And(HaveField("Action", "Approve"), HaveField("Actor", custody.Actor{Kind: custody.ActorPerson, Name: shop.ApproverName}))))
		Expect(entries).To(ContainElement(HaveField("Action", "Released=True")))
		Expect(entries).To(ContainElement(And(HaveField("Action", "Write"), HaveField("Detail", HavePrefix("create: deny all traffic")))))

		By("exporting and verifying, with the key and the head that status names")
		report, err := verify(ctx, inc)
		Expect(err).NotTo(HaveOccurred())
		Expect(report.Entries).To(BeNumerically(">=", inc.Status.Custody.Entries))
	})

	It("is begun with the first write, and stays as it is while nothing changes", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		settle(ctx, inc)
		before := ledgerOf(ctx, inc.UID)
		passes := looks.At(inc.Namespace, inc.Name)
		nudge(ctx, shop, originals(inc)[0].Name)
		Eventually(func() int { return looks.At(inc.Namespace, inc.Name) }).WithTimeout(scenario.Patience).Should(BeNumerically(">", passes))
		settle(ctx, inc)
		Expect(ledgerOf(ctx, inc.UID)).To(Equal(before))
	})

	It("is written by nobody in a dry run", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "rehearsal", builder.Mode(v1alpha1.ModeDryRun))
		inc := await(ctx, shop, "rehearsal", "planned", scenario.Is(v1alpha1.ConditionReady))
		keys, err := evidenceStore(ctx).Keys(ctx, "incidents/"+string(inc.UID)+"/")
		Expect(err).NotTo(HaveOccurred())
		Expect(keys).To(BeEmpty())
		Expect(inc.Status.Custody).To(BeNil())
	})
})

var _ = Describe("Lines that somebody else has written into the store", func() {
	It("are not signed by the operator; the ledger counts as damaged, and nothing is lifted until they are gone", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		settle(ctx, inc)

		By("writing as somebody does who has the credentials of the store, but not the key")
		own, err := custody.GenerateKey()
		Expect(err).NotTo(HaveOccurred())
		ledger, err := custody.Open(ctx, evidenceStore(ctx), string(inc.UID))
		Expect(err).NotTo(HaveOccurred())
		before := ledger.Seq()
		_, err = ledger.Append(ctx, own, []custody.Fact{{
			ID: "forged", Actor: custody.Actor{Kind: custody.ActorPerson, Name: shop.ApproverName}, Action: "Approve", Subject: custody.Subject{Kind: "Incident"},
		}}, time.Now())
		Expect(err).NotTo(HaveOccurred())
		forged, err := evidenceStore(ctx).Keys(ctx, fmt.Sprintf("incidents/%s/ledger/%012d-", inc.UID, before+1))
		Expect(err).NotTo(HaveOccurred())
		Expect(forged).To(HaveLen(1))

		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		inc = await(ctx, shop, "miner", "damaged", scenario.HasReason(v1alpha1.ConditionCustody, v1alpha1.ReasonLedgerDamaged))
		Expect(scenario.Conditions(inc)).To(ContainSubstring("signed by the key " + custody.KeyID(own.PublicKey()) + ", which is not the operator's"))
		passes := looks.At(inc.Namespace, inc.Name) // it is tried again and again
		Eventually(func() int { return looks.At(inc.Namespace, inc.Name) }).WithTimeout(scenario.Patience).Should(BeNumerically(">", passes+3))
		inc, err = shop.Incident(ctx, "miner")
		Expect(err).NotTo(HaveOccurred())
		Expect(inc.Status.Custody.Entries).To(Equal(before))
		Expect(inc.Status.Custody.KeyID).NotTo(Equal(custody.KeyID(own.PublicKey())))
		Expect(ourPolicies(ctx, shop, inc)).NotTo(BeEmpty(), "nothing is lifted")

		By("taking away what was written")
		Expect(evidenceStore(ctx).Delete(ctx, forged[0])).To(Succeed())
		inc = await(ctx, shop, "miner", "closed", closedIncident)
		Expect(ledgerOf(ctx, inc.UID)).NotTo(ContainElement(HaveField("ID", "forged")))
		_, err = verify(ctx, inc)
		Expect(err).NotTo(HaveOccurred())
	})
})

var _ = Describe("Evidence gaps that have to be waived", func() {
	It("hold closing back until a person with the verb has waived exactly these", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.VolumeSnapshots = v1alpha1.SnapshotSkip
			p.Spec.Evidence.Gaps = v1alpha1.GapRequireWaiver
		})
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "left with a gap", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		inc := await(ctx, shop, "miner", "waiting for the waiver", func(inc *v1alpha1.Incident) bool {
			return strings.Contains(scenario.Conditions(inc), "evidence gaps have to be waived: waits for 1 of 1 approvals: someone who holds the verb waive")
		})
		Expect(inc.Status.GapDigest).NotTo(BeEmpty())
		Expect(ourPolicies(ctx, shop, inc)).NotTo(BeEmpty(), "nothing is lifted before")

		Expect(shop.Approve(ctx, "miner", v1alpha1.WaiveStage)).To(Succeed())
		inc = await(ctx, shop, "miner", "closed", closedIncident)
		Expect(ledgerOf(ctx, inc.UID)).To(ContainElement(And(
			HaveField("Action", "Approve"), HaveField("Actor.Name", shop.WaiverName), HaveField("Detail", HavePrefix("step waive-gaps")))))
	})
})

var _ = Describe("Evidence that somebody has removed from the store", func() {
	It("is found to be lost before anything destructive happens, and the ledger tells", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Gaps = v1alpha1.GapRequireWaiver })
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		logs := evidenceOf(inc, v1alpha1.EvidenceLogs)
		Expect(logs).NotTo(BeEmpty())
		Expect(evidenceStore(ctx).Delete(ctx, logs[0].Location)).To(Succeed())

		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		inc = await(ctx, shop, "miner", "without the logs", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(evidenceOf(inc, v1alpha1.EvidenceLogs)).To(ContainElement(And(
			HaveField("State", v1alpha1.EvidenceGap), HaveField("Message", ContainSubstring("it is not in the store any more")))))
		Expect(inc.Status.GapDigest).NotTo(BeEmpty())
		settle(ctx, inc)
		Expect(ledgerOf(ctx, inc.UID)).To(ContainElement(And(HaveField("Action", "CollectEvidence"), HaveField("Detail", ContainSubstring("lost: ")))))
	})
})

var _ = Describe("A snapshot whose content somebody has removed by force", func() {
	It("is found to be lost before anything destructive happens", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Gaps = v1alpha1.GapRequireWaiver })
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		taken := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
		Expect(taken).NotTo(BeEmpty())
		_, name, _ := strings.Cut(taken[0].Location, "VolumeSnapshotContent ")

		By("removing it as only the operator may")
		privileged, err := client.New(server.OperatorConfig(), client.Options{Scheme: shop.Admin.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: name}}
		Expect(privileged.Delete(ctx, content)).To(Succeed())
		Eventually(ctx, func() bool {
			_ = privileged.Patch(ctx, content, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
			return apierrors.IsNotFound(shop.Admin.Get(ctx, client.ObjectKeyFromObject(content), content))
		}).WithTimeout(scenario.Patience).Should(BeTrue())

		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		inc = await(ctx, shop, "miner", "without the snapshot", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)).To(ContainElement(And(
			HaveField("State", v1alpha1.EvidenceGap), HaveField("Message", ContainSubstring("lost: VolumeSnapshotContent "+name)))))
		Expect(inc.Status.GapDigest).NotTo(BeEmpty())
		Expect(ourPolicies(ctx, shop, inc)).NotTo(BeEmpty(), "nothing is lifted before the gap is waived")
	})
})

var _ = Describe("The evidence of a closed Incident", func() {
	It("is removed after an approved release, which the ledger tells; the ledger stays", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Retention.RequiredApprovals = 1 })
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		inc := closeAndRead(ctx, shop, "miner")
		items := itemKeys(ctx, inc.UID)
		Expect(items).NotTo(BeEmpty())

		inc = await(ctx, shop, "miner", "asking about removal", func(inc *v1alpha1.Incident) bool { return inc.Status.RemovalDigest != "" })
		settle(ctx, inc)
		Expect(itemKeys(ctx, inc.UID)).To(Equal(items), "nothing is removed without approval")
		Expect(shop.Approve(ctx, "miner", v1alpha1.RemoveStage)).To(Succeed())
		inc = await(ctx, shop, "miner", "without evidence", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonRemoved))
		Eventually(ctx, func() []string { return itemKeys(ctx, inc.UID) }).WithTimeout(scenario.Patience).Should(BeEmpty())

		settle(ctx, inc)
		removed := 0
		for _, e := range ledgerOf(ctx, inc.UID) {
			if e.Action == custody.ActionRemoveEvidence && e.Phase == custody.PhaseOutcome && e.Stored != nil {
				removed++
			}
		}
		stored := 0
		for _, e := range inc.Status.Evidence {
			if evidence.InStore(&e) {
				stored++
			}
		}
		Expect(removed).To(Equal(stored))
		inc, err := shop.Incident(ctx, "miner")
		Expect(err).NotTo(HaveOccurred())
		_, err = verify(ctx, inc)
		Expect(err).NotTo(HaveOccurred(), "an archive without the removed items is genuine: the ledger tells where they went")
	})

	It("is kept for as long as the standing orders say, whoever approves", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.Retention = v1alpha1.EvidenceRetention{RequiredApprovals: 1, Days: 30}
		})
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		closeIncident(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "asking about removal", func(inc *v1alpha1.Incident) bool { return inc.Status.RemovalDigest != "" })
		items := itemKeys(ctx, inc.UID)
		Expect(shop.Approve(ctx, "miner", v1alpha1.RemoveStage)).To(Succeed())
		await(ctx, shop, "miner", "waiting", func(inc *v1alpha1.Incident) bool {
			return strings.Contains(scenario.Conditions(inc), "removal is approved and waits until")
		})
		settle(ctx, inc)
		Expect(itemKeys(ctx, inc.UID)).To(Equal(items))
	})
})

// closeAndRead closes an Incident and reads it.
func closeAndRead(ctx context.Context, shop *scenario.Shop, name string) *v1alpha1.Incident {
	GinkgoHelper()
	closeIncident(ctx, shop, name)
	return await(ctx, shop, name, "closed", closedIncident)
}

func closedIncident(inc *v1alpha1.Incident) bool {
	return scenario.Is(v1alpha1.ConditionReady)(inc) && len(inc.Finalizers) == 0
}

// evidenceStore is the store of the suite's operator.
func evidenceStore(ctx context.Context) *store.Store {
	GinkgoHelper()
	st, err := store.Open(ctx, operator.MemoryStore, store.Options{})
	Expect(err).NotTo(HaveOccurred())
	return st
}

// ledgerOf reads and verifies the ledger of an Incident.
func ledgerOf(ctx context.Context, uid types.UID) []custody.Entry {
	GinkgoHelper()
	ledger, err := custody.Open(ctx, evidenceStore(ctx), string(uid))
	Expect(err).NotTo(HaveOccurred())
	var out []custody.Entry
	for e := range ledger.Entries() {
		out = append(out, e)
	}
	Expect(out).NotTo(BeEmpty())
	return out
}

func itemKeys(ctx context.Context, uid types.UID) []string {
	GinkgoHelper()
	keys, err := evidenceStore(ctx).Keys(ctx, "incidents/"+string(uid)+"/items/")
	Expect(err).NotTo(HaveOccurred())
	return keys
}

// verify exports an Incident and verifies the archive against what its status says.
func verify(ctx context.Context, inc *v1alpha1.Incident) (*custody.Report, error) {
	GinkgoHelper()
	var archive bytes.Buffer
	_, err := custody.Export(ctx, evidenceStore(ctx), custody.Incident{Namespace: inc.Namespace, Name: inc.Name, UID: string(inc.UID)}, &archive,
		custody.ExportOptions{Now: time.Unix(0, 0), Tool: "test"})
	Expect(err).NotTo(HaveOccurred())
	Expect(inc.Status.Custody).NotTo(BeNil())
	return custody.VerifyArchive(&archive, custody.VerifyOptions{
		KeyIDs: []string{inc.Status.Custody.KeyID}, Head: &custody.Pin{Seq: inc.Status.Custody.Entries, Digest: inc.Status.Custody.Digest},
	})
}

// readItem reads what the store has for an item.
func readItem(ctx context.Context, item v1alpha1.EvidenceItem) []byte {
	GinkgoHelper()
	Expect(evidence.InStore(&item)).To(BeTrue(), "%s is in %s", item.ID, item.Location)
	raw, err := evidenceStore(ctx).Read(ctx, item.Location)
	Expect(err).NotTo(HaveOccurred())
	return raw
}
