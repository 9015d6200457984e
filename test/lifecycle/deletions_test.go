package lifecycle

import (
	"cmp"
	"context"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

// What evidence is made of is deleted at each phase of an Incident: the pod, its claim, the snapshot, the content of the snapshot, the whole namespace. Users are refused by admission. These are deletions by somebody
// who gets past that, with the operator's own name and an administrator's rights, and who takes off the finalizers.
//
// Left out: snapshot and content before the Incident is accepted, because there is none yet; content after it was collected, and so while closing, because no object in Kubernetes is left that would still be the evidence:
// that it is gone is found by the audit, which has tests of its own.

// deletion is one deletion, and what becomes of the evidence.
type deletion struct {
	what    string
	destroy func(ctx context.Context, c *crime)
	// prepare changes the pod before it is created, meanwhile follows the deletion at once, and thereafter comes when all evidence is settled.
	prepare               func(pod *corev1.Pod)
	meanwhile, thereafter func(ctx context.Context, c *crime)
	// seconds is how long the snapshot may take, a minute if not set.
	seconds int32
	// gap is what the message about the snapshot says if it is lost; remark what that about the logs says if only a part of them was had.
	gap, remark string
	// refused is the reason of the condition Accepted if there was nothing left to contain.
	refused string
	// leaves says that the namespace of the victim goes.
	leaves bool
	// closing says that the deletion comes when closing waits for approval.
	closing bool
	// inside puts the Incident into the namespace of the victim.
	inside bool
}

// phase is when the deletions happen. Those of all phases are under way together, which saves most of the waiting.
type phase struct {
	name      string
	deletions []deletion
	// begin deals with the Incidents until then, and deletes.
	begin func(ctx context.Context, crimes []*crime)
}

// crime is a victim with one volume, in a namespace of its own, and the Incident about it.
type crime struct {
	deletion

	// records is the shop whose people deal with the Incident, in the namespace that the Incident is in.
	records  *scenario.Shop
	attacker client.Client
	// namespace is the victim's, and also the name of the ContainmentPolicy that the Incident names.
	namespace string
	// confirmed is the evidence that was safe before the deletion.
	confirmed []v1alpha1.EvidenceItem
}

const (
	victimPod   = "victim"
	victimClaim = "data"
)

var _ = Describe("What is deleted", Ordered, ContinueOnFailure, func() {
	slowly := func(c *crime) func(*v1alpha1.ContainmentPolicy) {
		return func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.VolumeSnapshotClassName = c.records.Namespace
			p.Spec.Evidence.SnapshotDeadlineSeconds = cmp.Or(c.seconds, 60)
			p.Spec.Evidence.Logs.DeadlineSeconds = 15
		}
	}

	var whole []deletion
	for _, closing := range []bool{false, true} {
		when := ""
		if closing {
			when = ", while closing waits for approval"
		}
		whole = append(whole,
			deletion{what: "a pod" + when, destroy: destroyPod, closing: closing},
			deletion{what: "a claim" + when, destroy: destroyClaim, closing: closing},
			deletion{what: "a snapshot" + when, destroy: destroySnapshot, closing: closing},
			deletion{what: "a namespace" + when, destroy: deleteNamespace, closing: closing, leaves: true},
			deletion{what: "a namespace with the Incident in it" + when, destroy: deleteNamespace, closing: closing, leaves: true, inside: true},
		)
	}
	// What has a deadline that has to pass comes first.
	phases := []phase{
		{"while its evidence is collected", []deletion{
			{what: "a namespace whose snapshot is never finished", destroy: deleteNamespace, seconds: 15, gap: "not done before the deadline", leaves: true},
			{what: "a pod", prepare: talkative, destroy: destroyPod, meanwhile: finishSnapshot, remark: "the pod was deleted while it was read"},
			{what: "a claim", destroy: destroyClaim, meanwhile: finishSnapshot},
			{what: "a snapshot", destroy: destroySnapshot, meanwhile: finishSnapshot},
			// The snapshot controller creates it anew for a snapshot that was never ready, and the new one has to be retained like the first.
			{what: "a content", destroy: destroyContent, meanwhile: finishSnapshot},
			{what: "a snapshot and the claim that it was taken of", destroy: destroySnapshotAndClaim, gap: "the claim does not exist any more"},
			{what: "a namespace", destroy: deleteNamespace, meanwhile: finishSnapshot, leaves: true},
		}, func(ctx context.Context, crimes []*crime) {
			for _, c := range crimes {
				c.order(ctx, slowly(c))
				c.declare(ctx)
			}
			for _, c := range crimes { // the one whose deadline has to pass comes first
				c.await(ctx, "waiting for the snapshot", func(inc *v1alpha1.Incident) bool {
					return strings.Contains(message(inc, v1alpha1.ConditionEvidenceCollected), "waits for the snapshot to be ready")
				})
				c.confirm(ctx)
				c.destroy(ctx, c)
			}
		}},
		{"after it was contained and its evidence was collected", whole, func(ctx context.Context, crimes []*crime) {
			for _, c := range crimes {
				c.order(ctx)
				c.declare(ctx)
			}
			for _, c := range crimes {
				c.await(ctx, "contained with evidence", func(inc *v1alpha1.Incident) bool {
					return scenario.Is(v1alpha1.ConditionReady)(inc) && scenario.Is(v1alpha1.ConditionEvidenceCollected)(inc)
				})
				c.confirm(ctx)
				if c.closing {
					Expect(c.records.SetGoal(ctx, c.incident(), v1alpha1.GoalClose)).To(Succeed())
				}
			}
			for _, c := range crimes {
				if c.closing {
					c.await(ctx, "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
				}
				c.destroy(ctx, c)
			}
		}},
		{"before the Incident is accepted", []deletion{
			{what: "a pod", destroy: destroyPod, refused: v1alpha1.ReasonTargetNotFound},
			{what: "a pod that takes its time", prepare: lingering, destroy: deletePod, thereafter: destroyPod},
			{what: "a claim that its pod still uses", destroy: deleteClaim, gap: "the claim is being deleted"},
			{what: "a claim, torn from its pod", destroy: destroyClaim, gap: "the claim does not exist any more"},
			{what: "a namespace", destroy: emptyNamespace, refused: v1alpha1.ReasonTargetNotFound, leaves: true},
			{what: "a namespace with a pod that takes its time", prepare: lingering, destroy: deleteWalledNamespace, thereafter: stillWalledIn,
				gap: "no snapshot can be created in it any more", leaves: true},
		}, func(ctx context.Context, crimes []*crime) {
			for _, c := range crimes {
				c.declare(ctx)
			}
			for _, c := range crimes {
				c.await(ctx, "without standing orders", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonNoPolicy))
				c.destroy(ctx, c)
				c.order(ctx)
			}
		}},
	}
	crimes := make([][]*crime, len(phases))
	BeforeAll(func(ctx SpecContext) {
		for i, p := range phases {
			crimes[i] = commit(ctx, p.deletions)
			p.begin(ctx, crimes[i])
			for _, c := range crimes[i] {
				if c.meanwhile != nil {
					c.meanwhile(ctx, c)
				}
			}
		}
	})
	for i, p := range phases {
		for j, d := range p.deletions {
			It(p.name+", "+d.what+": what was safe stays, what is lost is said to be lost", func(ctx SpecContext) { crimes[i][j].settles(ctx) })
		}
	}
	It("keeps an Incident from being closed until what is lost was waived, and no longer", func(ctx SpecContext) { closeAll(ctx, slices.Concat(crimes...)) })
})

var _ = Describe("Recovery", func() {
	It("waits for a waiver of what was deleted before, and is not kept up by what is deleted meanwhile", func(ctx SpecContext) {
		shop := openShop(ctx)
		removePolicy(ctx, shop)
		declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName))
		await(ctx, shop, "miner", "without standing orders", scenario.HasReason(v1alpha1.ConditionAccepted, v1alpha1.ReasonNoPolicy))
		c := &crime{deletion: deletion{what: "a claim"}, records: shop, attacker: newAttacker(), namespace: shop.Namespace}
		// Only begun: torn from its pod, the claim would at once be replaced by its StatefulSet, with an empty volume.
		Expect(c.attacker.Delete(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "data-db-0"}})).To(Succeed())
		c.order(ctx)
		await(ctx, shop, "miner", "left with a gap", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))

		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "waiting for the waiver", func(inc *v1alpha1.Incident) bool {
			return scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonWaitingForEvidence)(inc) && inc.Status.GapDigest != ""
		})
		Expect(inc.Status.Recovery.Steps).To(HaveEach(HaveField("State", v1alpha1.StepPending)))
		Expect(ourPolicies(ctx, shop, inc)).NotTo(BeEmpty())
		for _, p := range originals(inc) {
			Expect(gone(ctx, shop, p)).To(BeFalse(), "%s is still there", p.Name)
		}

		// The StatefulSet's controller may start one more pod from the compromised template in the moment in which the name is free. What is not had of that one is a gap too, and is asked about anew.
		waived := ""
		for !stepIs("sign-off", v1alpha1.StepRunning)(inc) {
			waived = inc.Status.GapDigest
			Expect(shop.Approve(ctx, "miner", v1alpha1.WaiveStage)).To(Succeed())
			inc = await(ctx, shop, "miner", "waiting for approval, or for another waiver", func(inc *v1alpha1.Incident) bool {
				return stepIs("sign-off", v1alpha1.StepRunning)(inc) || scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonWaitingForEvidence)(inc) && inc.Status.GapDigest != waived && inc.Status.GapDigest != ""
			})
		}
		for _, p := range originals(inc) {
			if !gone(ctx, shop, p) {
				c.tear(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
			}
		}
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		for _, item := range inc.Status.Evidence {
			if item.State == v1alpha1.EvidenceCollected {
				c.isThere(ctx, item)
			}
		}
	})
})

// newAttacker acts with the operator's own name, which admission lets through, and an administrator's rights.
func newAttacker() client.Client {
	GinkgoHelper()
	attacker, err := client.New(server.Impersonate(cluster.OperatorUser, "system:masters"), client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	return attacker
}

// commit lets all deletions have their victims, and people who deal with them.
func commit(ctx context.Context, deletions []deletion) []*crime {
	GinkgoHelper()
	home := openRecords(ctx)
	attacker := newAttacker()
	out := make([]*crime, 0, len(deletions))
	for _, d := range deletions {
		c := &crime{deletion: d, records: home, attacker: attacker, namespace: "victim-" + rand.String(6)}
		if d.inside {
			inside := *home
			inside.Namespace = c.namespace
			c.records = &inside
		}
		c.commit(ctx)
		out = append(out, c)
	}
	for _, c := range out {
		c.awaitRunning(ctx)
	}
	return out
}

// openRecords creates a namespace for Incidents alone, and people who deal with those of every namespace. Its name is also that of a class of snapshots that are never finished.
func openRecords(ctx context.Context) *scenario.Shop {
	GinkgoHelper()
	name := "records-" + rand.String(6)
	home := &scenario.Shop{Namespace: name, ResponderName: name + "-responder", ApproverName: name + "-approver", WaiverName: name + "-waiver"}
	for who, config := range map[*client.WithWatch]*rest.Config{
		&home.Admin: server.RESTConfig, &home.Responder: server.Impersonate(home.ResponderName), &home.Approver: server.Impersonate(home.ApproverName),
		&home.Waiver: server.Impersonate(home.WaiverName),
	} {
		var err error
		*who, err = client.NewWithWatch(config, client.Options{Scheme: controllers.NewScheme()})
		Expect(err).NotTo(HaveOccurred())
	}
	class := &snapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Driver: "csi.sim.cofferdam.dev",
		DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Parameters: map[string]string{"neverReady": "true"},
	}
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, class}
	for user, role := range map[string]string{home.ResponderName: "cofferdam-responder", home.ApproverName: "cofferdam-approver", home.WaiverName: "cofferdam-evidence-waiver"} {
		objects = append(objects, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		})
	}
	for _, obj := range objects {
		Expect(home.Admin.Create(ctx, obj)).To(Succeed())
	}
	DeferCleanup(func(ctx context.Context) error { return home.Admin.Delete(ctx, class) })
	return home
}

// closeAll closes all Incidents side by side.
func closeAll(ctx context.Context, crimes []*crime) {
	GinkgoHelper()
	crimes = slices.DeleteFunc(slices.Clone(crimes), func(c *crime) bool { return c.refused != "" })
	for _, c := range crimes {
		Expect(c.records.SetGoal(ctx, c.incident(), v1alpha1.GoalClose)).To(Succeed())
	}
	for _, c := range crimes {
		c.await(ctx, "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(c.records.Approve(ctx, c.incident(), v1alpha1.CloseStage)).To(Succeed())
	}
	for _, c := range crimes {
		if c.gap == "" && c.remark == "" {
			continue
		}
		inc := c.await(ctx, "waiting for the waiver", func(inc *v1alpha1.Incident) bool {
			return strings.Contains(message(inc, v1alpha1.ConditionReleased), "evidence gaps have to be waived")
		})
		Expect(inc.Status.GapDigest).NotTo(BeEmpty(), c.what)
		Expect(inc.Finalizers).To(ContainElement(v1alpha1.HoldFinalizer), c.what)
		if !c.leaves {
			Expect(c.policies(ctx, inc)).NotTo(BeEmpty(), "%s: nothing is lifted before", c.what)
		}
		Expect(c.records.Approve(ctx, c.incident(), v1alpha1.WaiveStage)).To(Succeed())
	}
	for _, c := range crimes {
		c.ends(ctx)
	}
}

// commit creates the victim.
func (c *crime) commit(ctx context.Context) {
	GinkgoHelper()
	pod := builder.Pod(c.namespace, victimPod, "app", victimPod)
	pod.Spec.Volumes = []corev1.Volume{{Name: victimClaim, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: victimClaim}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: victimClaim, MountPath: "/data"}}
	if c.prepare != nil {
		c.prepare(pod)
	}
	for _, obj := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}},
		&corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: victimClaim},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		},
		pod,
	} {
		Expect(c.records.Admin.Create(ctx, obj)).To(Succeed())
	}
}

func (c *crime) awaitRunning(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		pod := c.pod()
		g.Expect(c.records.Admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Phase).To(Equal(corev1.PodRunning))
	}).WithTimeout(scenario.Patience).Should(Succeed(), c.what)
}

// order gives the standing orders, under which every gap has to be waived.
func (c *crime) order(ctx context.Context, changes ...func(*v1alpha1.ContainmentPolicy)) {
	GinkgoHelper()
	waived := func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Gaps = v1alpha1.GapRequireWaiver }
	Expect(c.records.Admin.Create(ctx, scenario.Policy(c.namespace, append(changes, waived)...))).To(Succeed())
}

// incident is the name of the Incident.
func (c *crime) incident() string { return "about-" + c.namespace }

func (c *crime) declare(ctx context.Context) {
	GinkgoHelper()
	target := builder.Targets(builder.Target(v1alpha1.TargetPod, c.namespace, victimPod))
	Eventually(ctx, func() error {
		return c.records.Responder.Create(ctx, builder.Incident(c.records.Namespace, c.incident(), builder.UsePolicy(c.namespace), target))
	}).WithTimeout(scenario.Patience).Should(Succeed(), "the right to do so takes a moment to be known")
}

func (c *crime) await(ctx context.Context, what string, ok func(*v1alpha1.Incident) bool) *v1alpha1.Incident {
	GinkgoHelper()
	inc, err := c.records.Await(ctx, c.incident(), what, ok)
	Expect(err).NotTo(HaveOccurred(), c.what)
	return inc
}

// confirm notes what is safe.
func (c *crime) confirm(ctx context.Context) {
	GinkgoHelper()
	inc, err := c.records.Incident(ctx, c.incident())
	Expect(err).NotTo(HaveOccurred())
	for _, item := range inc.Status.Evidence {
		if item.State == v1alpha1.EvidenceCollected {
			c.confirmed = append(c.confirmed, item)
		}
	}
}

// settles waits until nothing is under way any more, and looks at what there is.
func (c *crime) settles(ctx context.Context) {
	GinkgoHelper()
	if c.refused != "" {
		inc := c.await(ctx, "refused", scenario.HasReason(v1alpha1.ConditionAccepted, c.refused))
		Expect(inc.Status.Evidence).To(BeEmpty(), "nothing is claimed")
		Expect(inc.Finalizers).To(BeEmpty())
		Expect(scenario.Is(v1alpha1.ConditionStalled)(inc)).To(BeTrue())
		return
	}
	if c.leaves && !c.inside && c.thereafter == nil {
		c.goesAltogether(ctx)
	}
	inc := c.await(ctx, "settled", func(inc *v1alpha1.Incident) bool {
		pending := slices.ContainsFunc(inc.Status.Evidence, func(e v1alpha1.EvidenceItem) bool { return e.State == v1alpha1.EvidencePending })
		busy := inc.Spec.Goal == v1alpha1.GoalContain && scenario.Is(v1alpha1.ConditionReconciling)(inc)
		return len(evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)) > 0 && !pending && !busy
	})
	c.examine(ctx, inc)
	if c.thereafter != nil {
		c.thereafter(ctx, c)
	}
}

// goesAltogether waits until the namespace of the victim is gone.
func (c *crime) goesAltogether(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		return c.records.Admin.Get(ctx, client.ObjectKey{Name: c.namespace}, &corev1.Namespace{})
	}).WithTimeout(scenario.Patience).Should(Satisfy(apierrors.IsNotFound), c.what)
}

// examine compares the evidence with what it should be, and reads it.
func (c *crime) examine(ctx context.Context, inc *v1alpha1.Incident) {
	GinkgoHelper()
	for _, was := range c.confirmed {
		Expect(inc.Status.Evidence).To(ContainElement(And(HaveField("ID", was.ID), HaveField("State", v1alpha1.EvidenceCollected), HaveField("Digest", was.Digest))), c.what)
	}
	for _, kind := range []v1alpha1.EvidenceType{v1alpha1.EvidenceManifests, v1alpha1.EvidenceSurroundings, v1alpha1.EvidenceLogs, v1alpha1.EvidenceVolumeSnapshot} {
		items := evidenceOf(inc, kind)
		Expect(items).To(HaveLen(1), "%s: %s", c.what, kind)
		if kind == v1alpha1.EvidenceVolumeSnapshot && c.gap != "" {
			c.isLost(ctx, inc, items[0])
			continue
		}
		want := v1alpha1.EvidenceCollected
		if kind == v1alpha1.EvidenceLogs && c.remark != "" {
			want = v1alpha1.EvidencePartial
		}
		Expect(items[0].State).To(Equal(want), "%s: %s", c.what, items[0].Message)
		c.isThere(ctx, items[0])
		if kind == v1alpha1.EvidenceLogs {
			Expect(items[0].Message).To(ContainSubstring(c.remark), c.what)
		}
	}
}

// isLost looks at how a loss is told.
func (c *crime) isLost(ctx context.Context, inc *v1alpha1.Incident, item v1alpha1.EvidenceItem) {
	GinkgoHelper()
	Expect(item).To(And(HaveField("State", v1alpha1.EvidenceGap), HaveField("Message", ContainSubstring(c.gap)), HaveField("Subject.Name", victimClaim)), c.what)
	Expect(message(inc, v1alpha1.ConditionEvidenceCollected)).To(And(ContainSubstring(c.namespace+"/"+victimClaim), ContainSubstring(c.gap)), c.what)
	Expect(inc.Status.GapDigest).NotTo(BeEmpty(), c.what)
	Eventually(ctx, func() []string {
		var told []string
		for _, e := range ledgerOf(ctx, inc.UID) {
			if e.Action == "CollectEvidence" && e.Subject.Name == victimClaim {
				told = append(told, e.Detail)
			}
		}
		return told
	}).WithTimeout(scenario.Patience).Should(ContainElement(And(ContainSubstring("a gap, could not be had: "), ContainSubstring(c.gap))), c.what)
}

// isThere reads what was collected from where it says that it is.
func (c *crime) isThere(ctx context.Context, item v1alpha1.EvidenceItem) {
	GinkgoHelper()
	if evidence.InStore(&item) {
		stored := store.Object{Key: item.Location, Digest: cmp.Or(item.StoredDigest, item.Digest), Size: cmp.Or(item.StoredSize, item.Size)}
		Expect(evidenceStore(ctx).Verify(ctx, stored)).To(Succeed(), c.what)
		return
	}
	_, name, found := strings.Cut(item.Location, "VolumeSnapshotContent ")
	Expect(found).To(BeTrue(), item.Location)
	var content snapshotv1.VolumeSnapshotContent
	Expect(c.records.Admin.Get(ctx, client.ObjectKey{Name: name}, &content)).To(Succeed(), c.what)
	Expect(content.Spec.DeletionPolicy).To(Equal(snapshotv1.VolumeSnapshotContentRetain), c.what)
	Expect(content.DeletionTimestamp.IsZero()).To(BeTrue(), c.what)
	Expect(content.Status.ReadyToUse).To(HaveValue(BeTrue()), c.what)
}

// ends waits until the Incident is closed and everything that was to go is gone, and looks at the evidence once more.
func (c *crime) ends(ctx context.Context) {
	GinkgoHelper()
	if !c.inside { // where it is inside, it goes with its namespace as soon as it may
		inc := c.await(ctx, "closed", closedIncident)
		c.examine(ctx, inc)
		Expect(c.policies(ctx, inc)).To(BeEmpty(), c.what)
	}
	if !c.leaves {
		return
	}
	c.goesAltogether(ctx)
	for _, was := range c.confirmed {
		c.isThere(ctx, was)
	}
}

func (c *crime) policies(ctx context.Context, inc *v1alpha1.Incident) []networkingv1.NetworkPolicy {
	GinkgoHelper()
	there := *c.records
	there.Namespace = c.namespace
	return ourPolicies(ctx, &there, inc)
}

func message(inc *v1alpha1.Incident, kind string) string {
	for _, cond := range inc.Status.Conditions {
		if cond.Type == kind {
			return cond.Message
		}
	}
	return ""
}

// lingering makes a pod take its time to end.
func lingering(pod *corev1.Pod) {
	pod.Annotations = map[string]string{"sim.cofferdam.dev/terminate-after": "1h"}
}

// talkative makes a pod write a log without end.
func talkative(pod *corev1.Pod) {
	pod.Annotations = map[string]string{"sim.cofferdam.dev/log-endless": "true"}
}

func (c *crime) pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: victimPod}}
}

func (c *crime) claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: victimClaim}}
}

// snapshot is the snapshot of the victim's volume, once it is bound to its content.
func (c *crime) snapshot(ctx context.Context) *snapshotv1.VolumeSnapshot {
	GinkgoHelper()
	var list snapshotv1.VolumeSnapshotList
	Eventually(ctx, func(g Gomega) {
		g.Expect(c.records.Admin.List(ctx, &list, client.InNamespace(c.namespace))).To(Succeed())
		g.Expect(list.Items).To(HaveLen(1))
		g.Expect(list.Items[0].Status).NotTo(BeNil())
		g.Expect(list.Items[0].Status.BoundVolumeSnapshotContentName).NotTo(BeNil())
	}).WithTimeout(scenario.Patience).Should(Succeed(), c.what)
	return &list.Items[0]
}

func (c *crime) content(ctx context.Context) *snapshotv1.VolumeSnapshotContent {
	GinkgoHelper()
	return &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: *c.snapshot(ctx).Status.BoundVolumeSnapshotContentName}}
}

// tear deletes an object whatever wants to keep it.
func (c *crime) tear(ctx context.Context, obj client.Object) {
	GinkgoHelper()
	Expect(c.attacker.Delete(ctx, obj, client.GracePeriodSeconds(0))).To(Succeed(), c.what)
	strip := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	Expect(client.IgnoreNotFound(c.attacker.Patch(ctx, obj, strip))).To(Succeed(), c.what)
}

func deletePod(ctx context.Context, c *crime) {
	GinkgoHelper()
	Expect(c.attacker.Delete(ctx, c.pod())).To(Succeed(), c.what)
}

func destroyPod(ctx context.Context, c *crime) {
	GinkgoHelper()
	c.tear(ctx, c.pod())
}

// wall is a policy of the tenant's that denies the victim everything, by the victim's own labels. It stays while its namespace goes.
func (c *crime) wall() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "wall", Finalizers: []string{"example.com/stays"}},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": victimPod}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		},
	}
}

func deleteWalledNamespace(ctx context.Context, c *crime) {
	GinkgoHelper()
	Expect(c.records.Admin.Create(ctx, c.wall())).To(Succeed())
	deleteNamespace(ctx, c)
}

// stillWalledIn sees that the pod has the labels by which the tenant's policy selects it: no deny policy could be created in a namespace that goes, so that taking them off would have opened it.
func stillWalledIn(ctx context.Context, c *crime) {
	GinkgoHelper()
	pod := c.pod()
	Expect(c.records.Admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
	Expect(pod.Labels).To(HaveKeyWithValue("app", victimPod), "containing never opens anything")
	c.tear(ctx, c.wall())
	destroyPod(ctx, c)
}

func deleteClaim(ctx context.Context, c *crime) {
	GinkgoHelper()
	Expect(c.attacker.Delete(ctx, c.claim())).To(Succeed(), c.what)
}

func destroyClaim(ctx context.Context, c *crime) {
	GinkgoHelper()
	c.tear(ctx, c.claim())
}

func destroySnapshot(ctx context.Context, c *crime) {
	GinkgoHelper()
	c.tear(ctx, c.snapshot(ctx))
}

// destroySnapshotAndClaim takes the claim first: a snapshot that is gone is taken once more.
func destroySnapshotAndClaim(ctx context.Context, c *crime) {
	GinkgoHelper()
	destroyClaim(ctx, c)
	destroySnapshot(ctx, c)
}

func destroyContent(ctx context.Context, c *crime) {
	GinkgoHelper()
	c.tear(ctx, c.content(ctx))
}

func deleteNamespace(ctx context.Context, c *crime) {
	GinkgoHelper()
	Expect(c.attacker.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}})).To(Succeed(), c.what)
}

// emptyNamespace deletes the namespace and waits until the victim is gone; the rest takes longer.
func emptyNamespace(ctx context.Context, c *crime) {
	GinkgoHelper()
	deleteNamespace(ctx, c)
	Eventually(ctx, func() error { return c.records.Admin.Get(ctx, client.ObjectKeyFromObject(c.pod()), c.pod()) }).
		WithTimeout(scenario.Patience).Should(Satisfy(apierrors.IsNotFound), c.what)
}

// finishSnapshot lets the storage finish a snapshot that it would never have finished.
func finishSnapshot(ctx context.Context, c *crime) {
	GinkgoHelper()
	content := c.content(ctx)
	Eventually(ctx, func(g Gomega) {
		g.Expect(c.records.Admin.Get(ctx, client.ObjectKeyFromObject(content), content)).To(Succeed())
		g.Expect(content.Status).NotTo(BeNil())
		g.Expect(content.Status.SnapshotHandle).NotTo(BeNil())
	}).WithTimeout(scenario.Patience).Should(Succeed(), c.what)
	ready := client.RawPatch(types.MergePatchType, []byte(`{"status":{"readyToUse":true}}`))
	Expect(c.attacker.Status().Patch(ctx, content, ready)).To(Succeed(), c.what)
}
