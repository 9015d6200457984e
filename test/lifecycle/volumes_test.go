package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// dbClaim is the claim of the shop's database, and restoredFrom the attribute by which the simulated driver tells what a volume was made from.
const (
	dbClaim      = scenario.DBClaim
	restoredFrom = "sim.cofferdam.dev/restored-from"
)

var _ = Describe("Restoring volumes", func() {
	It("exchanges the volume of a database for one from before the incident, though somebody keeps creating the claim anew, and keeps the old one", func(ctx SpecContext) {
		shop := openShop(ctx)
		before, since := backUp(ctx, shop, "before")
		tainted, _ := backUp(ctx, shop, "tainted")
		was, volume := claimAndVolume(ctx, shop)
		restore := builder.RestoreVolumes("restore", []string{"stop"}, dbClaim)
		restore.RestoreVolumes.Check = v1alpha1.VolumeCheck{Image: builder.GoodImage}
		plan := builder.Plan(shop.Namespace, "volumes",
			builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), restore,
			builder.RollBack("db", v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: scenario.DB}),
			builder.ScaleSet("start", scenario.DB, v1alpha1.ScaleToOriginal, "restore", "db"),
		)
		plan.Spec.Steps[2].DependsOn = []string{"restore"}
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", scenario.DB, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		recoverFrom(ctx, shop, since)

		inc := await(ctx, shop, "miner", "checking the volume", stepSays("restore", "waits for Job"))
		Expect(inc.Status.Recovery.Choices).To(HaveLen(1))
		Expect(inc.Status.Recovery.Choices[0].Source.Name).To(Equal(before.Name))
		Expect(inc.Status.Recovery.Choices[0].Why).To(ContainSubstring("before the incident is suspected to have begun"))
		By("finding that nothing was exchanged before the check has passed")
		now, _ := claimAndVolume(ctx, shop)
		Expect(now.UID).To(Equal(was.UID))

		stopRacing := race(ctx, shop, was)
		DeferCleanup(stopRacing)
		completePods(ctx, shop, client.HasLabels{"containment.cofferdam.dev/volume-check"})
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		stopRacing()

		now, fresh := claimAndVolume(ctx, shop)
		Expect(now.UID).NotTo(Equal(was.UID))
		Expect(fresh.Name).NotTo(Equal(volume.Name))
		Expect(fresh.Spec.CSI.VolumeAttributes).To(HaveKeyWithValue(restoredFrom, handleOf(ctx, shop, before)))
		Expect(handleOf(ctx, shop, before)).NotTo(Equal(handleOf(ctx, shop, tainted)))
		Expect(fresh.Spec.PersistentVolumeReclaimPolicy).To(Equal(corev1.PersistentVolumeReclaimDelete), "as its class has it")
		Expect(now.Spec.Resources).To(Equal(was.Spec.Resources))
		kept := volumeNamed(ctx, shop, volume.Name)
		Expect(kept.UID).To(Equal(volume.UID))
		Expect(kept.Spec.PersistentVolumeReclaimPolicy).To(Equal(corev1.PersistentVolumeReclaimRetain))
		Expect(kept.Labels).To(HaveKeyWithValue(v1alpha1.IncidentUIDLabel, string(inc.UID)))
		Eventually(ctx, func() corev1.PersistentVolumePhase { return volumeNamed(ctx, shop, volume.Name).Status.Phase }).WithTimeout(scenario.Patience).
			Should(Equal(corev1.VolumeReleased), "its controller sees in its own time that the claim is gone")
		Expect(podsOf(ctx, shop, scenario.DB)).To(HaveLen(1), "the database runs again")
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	})

	It("gives the old volume back when the step is undone, and lets the new one go", func(ctx SpecContext) {
		shop := openShop(ctx)
		before, since := backUp(ctx, shop, "before")
		was, volume := claimAndVolume(ctx, shop)
		Expect(shop.Admin.Patch(ctx, was, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"tier":"data"},"annotations":{"example.com/owner":"team-a"}}}`)))).To(Succeed())
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "volumes",
			builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), builder.RestoreVolumes("restore", []string{"stop"}, dbClaim), builder.Approve("look"),
		))).To(Succeed())
		recoverFrom(ctx, shop, since)
		await(ctx, shop, "miner", "restored", stepIs("restore", v1alpha1.StepSucceeded))
		_, fresh := claimAndVolume(ctx, shop)
		Expect(fresh.Name).NotTo(Equal(volume.Name))

		By("undoing it while the database runs on the new volume")
		scaleDB(ctx, shop, 1)
		Expect(shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "waiting for the database to stop", stepSays("restore", "is used by pods db-0"))
		used, _ := claimAndVolume(ctx, shop)
		Expect(used.DeletionTimestamp).To(BeNil(), "a claim that is used is not deleted")
		scaleDB(ctx, shop, 0)
		await(ctx, shop, "miner", "undone", stepIs("restore", v1alpha1.StepUndone))
		now, again := claimAndVolume(ctx, shop)
		Expect(again.UID).To(Equal(volume.UID))
		Expect(again.Spec.PersistentVolumeReclaimPolicy).To(Equal(volume.Spec.PersistentVolumeReclaimPolicy))
		Expect(again.Labels).NotTo(HaveKey(v1alpha1.IncidentUIDLabel))
		Expect(now.Labels).To(HaveKeyWithValue("tier", "data"))
		Expect(now.Annotations).To(HaveKeyWithValue("example.com/owner", "team-a"))
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(shop.Admin.Get(ctx, client.ObjectKeyFromObject(fresh), &corev1.PersistentVolume{}))
		}).WithTimeout(scenario.Patience).Should(BeTrue(), "the volume from the snapshot is removed")

		By("restoring it once more")
		Expect(shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "restored again", stepIs("restore", v1alpha1.StepSucceeded))
		_, third := claimAndVolume(ctx, shop)
		Expect(third.Spec.CSI.VolumeAttributes).To(HaveKeyWithValue(restoredFrom, handleOf(ctx, shop, before)))
	})

	It("exchanges nothing when the check fails", func(ctx SpecContext) {
		shop := openShop(ctx)
		_, since := backUp(ctx, shop, "before")
		was, _ := claimAndVolume(ctx, shop)
		restore := builder.RestoreVolumes("restore", []string{"stop"}, dbClaim)
		restore.RestoreVolumes.Check = v1alpha1.VolumeCheck{Image: builder.GoodImage, TimeoutSeconds: 5}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "volumes", builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), restore))).To(Succeed())
		recoverFrom(ctx, shop, since)
		inc := await(ctx, shop, "miner", "with a failed check", stepIs("restore", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[1].Message).To(ContainSubstring("did not pass its check, and nothing was exchanged"))
		now, _ := claimAndVolume(ctx, shop)
		Expect(now.UID).To(Equal(was.UID))

		By("taking back what was made")
		Expect(shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "undone", stepIs("restore", v1alpha1.StepUndone))
		var claims corev1.PersistentVolumeClaimList
		Expect(shop.Admin.List(ctx, &claims, client.InNamespace(shop.Namespace))).To(Succeed())
		Expect(claims.Items).To(HaveLen(1), "the staged claim is gone")
	})

	It("restores the claims of a StatefulSet from the members of one group, though one of them has a younger snapshot", func(ctx SpecContext) {
		shop := openShop(ctx)
		db := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: scenario.DB}}
		Expect(shop.Admin.Patch(ctx, db, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`)))).To(Succeed())
		scaleDB(ctx, shop, 2)
		members := groupOf(ctx, shop)
		_, since := backUp(ctx, shop, "younger")
		restore := builder.RestoreVolumes("restore", []string{"stop"}, dbClaim, "data-db-1")
		restore.RestoreVolumes.Snapshots = v1alpha1.SnapshotOneGroup
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "volumes",
			builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), restore, builder.ScaleSet("start", scenario.DB, v1alpha1.ScaleToOriginal, "restore"),
		))).To(Succeed())
		recoverFrom(ctx, shop, since)
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		for claim, member := range members {
			var c corev1.PersistentVolumeClaim
			Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: claim}, &c)).To(Succeed())
			Expect(volumeNamed(ctx, shop, c.Spec.VolumeName).Spec.CSI.VolumeAttributes).To(HaveKeyWithValue(restoredFrom, handleOf(ctx, shop, member)), claim)
		}
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db)).To(Succeed())
		Expect(*db.Spec.Replicas).To(Equal(int32(2)))
		Expect(db.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled).To(Equal(appsv1.DeletePersistentVolumeClaimRetentionPolicyType), "as it was")
	})

	It("takes no claim that somebody has put in the place of its own", func(ctx SpecContext) {
		shop := openShop(ctx)
		_, since := backUp(ctx, shop, "before")
		was, _ := claimAndVolume(ctx, shop)
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "volumes",
			builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), builder.Approve("go"), builder.RestoreVolumes("restore", []string{"stop", "go"}, dbClaim),
		))).To(Succeed())
		inc := recoverFrom(ctx, shop, since)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/restore/%s", inc.UID, dbClaim))
		forged := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: shop.Namespace, Name: "cofferdam-staged-" + hex.EncodeToString(sum[:8]), Labels: map[string]string{v1alpha1.IncidentUIDLabel: string(inc.UID)},
			},
			Spec: *was.Spec.DeepCopy(),
		}
		forged.Spec.VolumeName = ""
		Expect(shop.Admin.Create(ctx, forged)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("go", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "go")).To(Succeed())
		await(ctx, shop, "miner", "with a failed step", stepIs("restore", v1alpha1.StepFailed))
		inc = await(ctx, shop, "miner", "saying so", stepSays("restore", "was not made from snapshot before"))
		Expect(shop.Intervene(ctx, inc.Name, "restore", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "leaving it alone", stepSays("restore", "was not made for this recovery"))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(forged), forged)).To(Succeed())
		Expect(forged.DeletionTimestamp).To(BeNil())
		now, _ := claimAndVolume(ctx, shop)
		Expect(now.UID).To(Equal(was.UID))
	})

	It("does not begin without a snapshot that is known to be older than the incident, and starts no check that a policy of somebody else's would let out", func(ctx SpecContext) {
		shop := openShop(ctx)
		early := time.Now().Add(-time.Hour).Truncate(time.Second)
		_, later := backUp(ctx, shop, "young")
		restore := builder.RestoreVolumes("restore", []string{"stop"}, dbClaim)
		restore.RestoreVolumes.Check = v1alpha1.VolumeCheck{Image: builder.GoodImage}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "volumes", builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), restore))).To(Succeed())
		recoverFrom(ctx, shop, early)
		inc := await(ctx, shop, "miner", "without a snapshot", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(message(inc, v1alpha1.ConditionRecovered)).To(And(ContainSubstring("no snapshot of PersistentVolumeClaim data-db-0 can be used"), ContainSubstring("young was taken at")))

		By("beginning once it is said that the incident began later")
		Expect(shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{}))).To(Succeed())
		Expect(shop.Responder.Patch(ctx, inc, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspectedSince":"`+later.UTC().Format(time.RFC3339)+`"}}`)))).To(Succeed())
		await(ctx, shop, "miner", "not letting the check start", stepSays("restore", "would not be isolated"))
		Expect(shop.Admin.Delete(ctx, scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{}))).To(Succeed())
		await(ctx, shop, "miner", "checking", stepSays("restore", "waits for Job"))
	})
})

// recoverFrom contains the database and asks for its recovery; the incident is suspected to have begun at the time.
func recoverFrom(ctx context.Context, shop *scenario.Shop, since time.Time) *v1alpha1.Incident {
	GinkgoHelper()
	declare(ctx, shop, "miner", builder.UsePlan("volumes"), builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)), builder.SuspectedSince(since))
	inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
	Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	return inc
}

// scaleDB scales the database, as a person does, and waits until it has its pods.
func scaleDB(ctx context.Context, shop *scenario.Shop, replicas int32) {
	GinkgoHelper()
	db := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: scenario.DB}}
	Expect(shop.Admin.Patch(ctx, db, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)))).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db)).To(Succeed())
		g.Expect(db.Status.ReadyReplicas).To(Equal(replicas))
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

// backUp takes a snapshot of the database's volume; what is suspected since the time that comes with it began after that.
func backUp(ctx context.Context, shop *scenario.Shop, name string) (*snapshotv1.VolumeSnapshot, time.Time) {
	GinkgoHelper()
	snapshot, after, err := shop.BackUp(ctx, name)
	Expect(err).NotTo(HaveOccurred())
	return snapshot, after
}

// groupOf takes a group snapshot of both claims of the database, and returns its members by claim.
func groupOf(ctx context.Context, shop *scenario.Shop) map[string]*snapshotv1.VolumeSnapshot {
	GinkgoHelper()
	for _, name := range []string{dbClaim, "data-db-1"} {
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: name}}
		Expect(shop.Admin.Patch(ctx, claim, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"backup":"nightly"}}}`)))).To(Succeed())
	}
	group := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"source": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"backup": "nightly"}}}}}}
	group.SetAPIVersion("groupsnapshot.storage.k8s.io/v1")
	group.SetKind("VolumeGroupSnapshot")
	group.SetNamespace(shop.Namespace)
	group.SetName("nightly")
	Expect(shop.Admin.Create(ctx, group)).To(Succeed())
	out := map[string]*snapshotv1.VolumeSnapshot{}
	Eventually(ctx, func(g Gomega) {
		var list snapshotv1.VolumeSnapshotList
		g.Expect(shop.Admin.List(ctx, &list, client.InNamespace(shop.Namespace))).To(Succeed())
		for i := range list.Items {
			m := &list.Items[i]
			if m.Spec.Source.PersistentVolumeClaimName != nil && m.Status != nil && m.Status.CreationTime != nil && m.Status.ReadyToUse != nil && *m.Status.ReadyToUse {
				out[*m.Spec.Source.PersistentVolumeClaimName] = m
			}
		}
		g.Expect(out).To(HaveLen(2))
	}).WithTimeout(scenario.Patience).Should(Succeed())
	return out
}

func claimAndVolume(ctx context.Context, shop *scenario.Shop) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	GinkgoHelper()
	var claim corev1.PersistentVolumeClaim
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: dbClaim}, &claim)).To(Succeed())
	Expect(claim.Status.Phase).To(Equal(corev1.ClaimBound))
	return &claim, volumeNamed(ctx, shop, claim.Spec.VolumeName)
}

func volumeNamed(ctx context.Context, shop *scenario.Shop, name string) *corev1.PersistentVolume {
	GinkgoHelper()
	var volume corev1.PersistentVolume
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: name}, &volume)).To(Succeed())
	return &volume
}

func handleOf(ctx context.Context, shop *scenario.Shop, snapshot *snapshotv1.VolumeSnapshot) string {
	GinkgoHelper()
	var content snapshotv1.VolumeSnapshotContent
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Name: *snapshot.Status.BoundVolumeSnapshotContentName}, &content)).To(Succeed())
	return *content.Status.SnapshotHandle
}

// race creates the claim, empty, whenever it is gone, as a StatefulSet's controller does, until the returned function is called.
func race(ctx context.Context, shop *scenario.Shop, claim *corev1.PersistentVolumeClaim) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			spec := *claim.Spec.DeepCopy()
			spec.VolumeName = ""
			_ = shop.Admin.Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, Labels: claim.Labels}, Spec: spec})
		}
	}()
	return func() { cancel(); <-ended }
}

// completePods ends pods that a simulated node would let run.
func completePods(ctx context.Context, shop *scenario.Shop, selector client.ListOption) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var pods corev1.PodList
		g.Expect(shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace), selector)).To(Succeed())
		g.Expect(pods.Items).NotTo(BeEmpty())
		for i := range pods.Items {
			end := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"sim.cofferdam.dev/complete-after":"0s"}}}`))
			g.Expect(shop.Admin.Patch(ctx, &pods.Items[i], end)).To(Succeed())
		}
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

// openIntents are the intents whose outcome is not known.
func openIntents(inc *v1alpha1.Incident) []v1alpha1.JournalEntry {
	var out []v1alpha1.JournalEntry
	for _, e := range inc.Status.Journal {
		if e.State == v1alpha1.JournalIntended {
			out = append(out, e)
		}
	}
	return out
}

// stepSays reports whether the message of a step has the text.
func stepSays(name, text string) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool {
		return inc.Status.Recovery != nil && slices.ContainsFunc(inc.Status.Recovery.Steps, func(s v1alpha1.StepStatus) bool {
			return s.Name == name && strings.Contains(s.Message, text)
		})
	}
}
