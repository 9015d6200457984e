package lifecycle

import (
	"context"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Restoring a volume by another claim", func() {
	It("lets a quarantined pod keep its claim, and has the Deployment name the restored one once that has passed its check", func(ctx SpecContext) {
		shop, before, since := openFiles(ctx)
		evidence := podsOf(ctx, shop, scenario.Files)[0]
		restore := changeClaim("stop")
		restore.RestoreVolumes.Check = v1alpha1.VolumeCheck{Image: builder.GoodImage}
		back := builder.RollBack("back", filesRef)
		back.DependsOn = []string{"restore"}
		recoverFiles(ctx, shop, since,
			builder.Scale("stop", scenario.Files, v1alpha1.ScaleToZero), restore, back, builder.Scale("start", scenario.Files, v1alpha1.ScaleToOriginal, "back"),
			builder.Approve("sign-off", "start"), builder.Release("let-go", "sign-off"))
		inc := await(ctx, shop, "miner", "checking the volume", stepSays("restore", "waits for Job"))
		Expect(inc.Status.Recovery.Choices).To(HaveLen(1))
		Expect(inc.Status.Recovery.Choices[0].Consumers).To(ConsistOf(HaveField("Name", scenario.Files)))
		Expect(claimOf(ctx, shop)).To(Equal(scenario.Files), "nothing is changed before the check has passed")
		completePods(ctx, shop, client.HasLabels{"containment.cofferdam.dev/volume-check"})
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))

		restored, fresh := claimWithVolume(ctx, shop, claimOf(ctx, shop))
		Expect(restored.Name).To(MatchRegexp("^files-restored-[0-9a-f]{8}$"))
		Expect(restored.Labels).To(Equal(map[string]string{"tier": "data"}))
		Expect(fresh.Spec.CSI.VolumeAttributes).To(HaveKeyWithValue(restoredFrom, handleOf(ctx, shop, before)))
		Expect(fresh.Spec.PersistentVolumeReclaimPolicy).To(Equal(corev1.PersistentVolumeReclaimDelete), "as its class has it")
		Expect(fresh.Labels).NotTo(HaveKey(v1alpha1.IncidentUIDLabel))
		_, old := claimWithVolume(ctx, shop, scenario.Files)
		Expect(old.Spec.PersistentVolumeReclaimPolicy).To(Equal(corev1.PersistentVolumeReclaimRetain))
		Expect(old.Labels).To(HaveKeyWithValue(v1alpha1.IncidentUIDLabel, string(inc.UID)))

		By("finding the evidence as it was, and the application on the restored volume")
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(&evidence), &evidence)).To(Succeed())
		Expect(evidence.DeletionTimestamp).To(BeNil())
		Expect(evidence.Status.Phase).To(Equal(corev1.PodRunning))
		pods := podsOf(ctx, shop, scenario.Files)
		Expect(pods).To(HaveLen(1))
		Expect(pods[0].Spec.Volumes[0].PersistentVolumeClaim.ClaimName).To(Equal(restored.Name))
		Expect(pods[0].Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		Expect(selectedByUs(ctx, shop, &pods[0])).To(BeEmpty())
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	})

	It("comes after a rollback without stopping anything, and is undone to the claim that was", func(ctx SpecContext) {
		shop, before, since := openFiles(ctx)
		_, old := claimWithVolume(ctx, shop, scenario.Files)
		recoverFiles(ctx, shop, since, builder.RollBack("back", filesRef), changeClaim("back"), builder.Approve("look"))
		await(ctx, shop, "miner", "restored", stepIs("restore", v1alpha1.StepSucceeded))
		restored, fresh := claimWithVolume(ctx, shop, claimOf(ctx, shop))
		Expect(fresh.Spec.CSI.VolumeAttributes).To(HaveKeyWithValue(restoredFrom, handleOf(ctx, shop, before)))
		Expect(imageOf(ctx, shop)).To(Equal(builder.GoodImage))

		Expect(shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "undone", stepIs("restore", v1alpha1.StepUndone))
		Expect(claimOf(ctx, shop)).To(Equal(scenario.Files))
		Expect(imageOf(ctx, shop)).To(Equal(builder.GoodImage), "what another step has done stays")
		_, again := claimWithVolume(ctx, shop, scenario.Files)
		Expect(again.UID).To(Equal(old.UID))
		Expect(again.Spec.PersistentVolumeReclaimPolicy).To(Equal(old.Spec.PersistentVolumeReclaimPolicy))
		Expect(again.Labels).NotTo(HaveKey(v1alpha1.IncidentUIDLabel))
		for _, gone := range []client.Object{restored, fresh} {
			Eventually(ctx, func() bool { return apierrors.IsNotFound(shop.Admin.Get(ctx, client.ObjectKeyFromObject(gone), gone)) }).
				WithTimeout(scenario.Patience).Should(BeTrue(), gone.GetName())
		}
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })

		By("restoring it once more")
		Expect(shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionRetry)).To(Succeed())
		await(ctx, shop, "miner", "restored again", stepIs("restore", v1alpha1.StepSucceeded))
		Expect(claimOf(ctx, shop)).To(Equal(restored.Name))
	})

	It("begins with nothing that cannot be made to name another claim, and gives a compromised revision that runs no restored volume", func(ctx SpecContext) {
		shop, _, since := openFiles(ctx)
		other := builder.StatefulSet(shop.Namespace, "other", builder.GoodImage, 0)
		other.Spec.Template.Spec.Volumes = filesVolume()
		Expect(shop.Admin.Create(ctx, other)).To(Succeed())
		recoverFiles(ctx, shop, since, changeClaim())
		inc := await(ctx, shop, "miner", "refusing the plan", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(message(inc, v1alpha1.ConditionRecovered)).To(ContainSubstring("StatefulSet other uses PersistentVolumeClaim files: only Deployments can be made to name another claim"))
		Expect(shop.Admin.Delete(ctx, other)).To(Succeed())
		await(ctx, shop, "miner", "waiting for the Deployment to be stopped", stepSays("restore", "Deployment files is compromised, and would run on the restored volume"))

		By("somebody using the claim too")
		late := builder.Deployment(shop.Namespace, "late", builder.GoodImage, 0)
		late.Spec.Template.Spec.Volumes = filesVolume()
		Expect(shop.Admin.Create(ctx, late)).To(Succeed())
		await(ctx, shop, "miner", "waiting for that", stepSays("restore", "Deployment late names PersistentVolumeClaim files since the recovery has begun"))
		Expect(claimOf(ctx, shop)).To(Equal(scenario.Files))
		Expect(shop.Admin.Delete(ctx, late)).To(Succeed())
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: scenario.Files}}
		Expect(shop.Admin.Patch(ctx, d, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`)))).To(Succeed())
		await(ctx, shop, "miner", "restored", stepIs("restore", v1alpha1.StepSucceeded))
	})
})

// filesRef names the Deployment that keeps its files on a claim.
var filesRef = v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Files}

func filesVolume() []corev1.Volume {
	return []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: scenario.Files}}}}
}

// openFiles opens a shop with a Deployment that has a claim, of which there is a snapshot; the incident began after that.
func openFiles(ctx context.Context) (*scenario.Shop, *snapshotv1.VolumeSnapshot, time.Time) {
	GinkgoHelper()
	shop := openShop(ctx)
	Expect(shop.OpenFiles(ctx, scenario.BadImage)).To(Succeed())
	snapshot, since, err := shop.BackUpOf(ctx, "before", scenario.Files)
	Expect(err).NotTo(HaveOccurred())
	return shop, snapshot, since
}

// changeClaim is a step that has the Deployment name another claim.
func changeClaim(dependsOn ...string) v1alpha1.RecoveryStep {
	step := builder.RestoreVolumes("restore", dependsOn, scenario.Files)
	step.RestoreVolumes.CutOver = v1alpha1.CutOverChangeClaim
	return step
}

// recoverFiles contains the Deployment and asks for its recovery by the steps.
func recoverFiles(ctx context.Context, shop *scenario.Shop, since time.Time, steps ...v1alpha1.RecoveryStep) {
	GinkgoHelper()
	plan := builder.Plan(shop.Namespace, "volumes", steps...)
	plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Deployment", scenario.Files, "app", builder.GoodImage)}
	Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
	declare(ctx, shop, "miner", builder.UsePlan("volumes"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Files)), builder.SuspectedSince(since))
	await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
	Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
}

// claimOf is the claim that the Deployment's pod template names.
func claimOf(ctx context.Context, shop *scenario.Shop) string {
	GinkgoHelper()
	var d appsv1.Deployment
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Files}, &d)).To(Succeed())
	return d.Spec.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName
}

func imageOf(ctx context.Context, shop *scenario.Shop) string {
	GinkgoHelper()
	var d appsv1.Deployment
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Files}, &d)).To(Succeed())
	return d.Spec.Template.Spec.Containers[0].Image
}

func claimWithVolume(ctx context.Context, shop *scenario.Shop, name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	GinkgoHelper()
	var claim corev1.PersistentVolumeClaim
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: name}, &claim)).To(Succeed())
	return &claim, volumeNamed(ctx, shop, claim.Spec.VolumeName)
}
