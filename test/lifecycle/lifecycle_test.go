package lifecycle

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("An Incident", func() {
	It("is contained, its evidence kept, the service brought back, and closed", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner", builder.UsePlan(scenario.PlanName))

		By("containing")
		inc := await(ctx, shop, "miner", "contained with evidence", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionContained)(inc) && scenario.Is(v1alpha1.ConditionEvidenceCollected)(inc)
		})
		Expect(inc.Spec.DeclaredBy.Username).To(Equal(shop.ResponderName))
		Expect(inc.Finalizers).To(ContainElement(v1alpha1.HoldFinalizer))
		for _, p := range originals(inc) {
			pod := pod(ctx, shop, p.Name)
			Expect(pod.Labels).To(Equal(map[string]string{measure.QuarantineLabel(inc.UID): v1alpha1.QuarantineLabelValue}))
			Expect(pod.OwnerReferences).To(BeEmpty(), "the owner lets go of a detached pod")
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictIsolated))
			Expect(p.Residuals).To(ContainElement("EstablishedConnections"))
		}
		Expect(evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)).To(HaveLen(1))
		Expect(refused(ctx, shop, "miner")).To(ContainSubstring("Close"), "deleting a contained Incident is refused with the way to close it")

		By("recovering")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		expectEvents(ctx, shop, await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered)))
		for _, name := range []string{scenario.Web, scenario.DB} {
			pods := podsOf(ctx, shop, name)
			Expect(pods).NotTo(BeEmpty())
			for _, p := range pods {
				Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
				Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty(), "a recovered revision comes out free")
			}
		}

		By("closing")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		inc = await(ctx, shop, "miner", "closed", closedIncident)
		Expect(ourPolicies(ctx, shop, inc)).To(BeEmpty())
		for _, j := range inc.Status.Journal {
			Expect(j.State).To(Equal(v1alpha1.JournalDone), "%s %s", j.Action, j.Object.Name)
		}
		for _, p := range originals(inc) {
			Expect(gone(ctx, shop, p)).To(BeTrue(), "evidence pod %s is removed", p.Name)
		}
		Expect(shop.Responder.Delete(ctx, inc)).To(Succeed())
	})
})

// expectEvents looks whether each turn of a pod, of an item of evidence and of a step is an Event of its own, with its own words.
func expectEvents(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var told eventsv1.EventList
		g.Expect(shop.Admin.List(ctx, &told, client.InNamespace(shop.Namespace))).To(Succeed())
		for _, entry := range inc.Status.Timeline {
			if strings.HasPrefix(entry.Reason, "Step") || strings.HasPrefix(entry.Reason, "Pod") || strings.HasPrefix(entry.Reason, "Evidence") {
				g.Expect(told.Items).To(ContainElement(And(HaveField("Reason", entry.Reason), HaveField("Note", HavePrefix(entry.Message)))))
			}
		}
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

// declare creates an Incident on the compromised workloads as the responder.
func declare(ctx context.Context, shop *scenario.Shop, name string, changes ...func(*v1alpha1.Incident)) *v1alpha1.Incident {
	GinkgoHelper()
	all := append([]func(*v1alpha1.Incident){builder.Targets(scenario.Targets()...)}, changes...)
	inc := builder.Incident(shop.Namespace, name, all...)
	Expect(shop.Responder.Create(ctx, inc)).To(Succeed())
	return inc
}

// originals are the pods that the Incident began with.
func originals(inc *v1alpha1.Incident) []v1alpha1.PodStatus {
	var out []v1alpha1.PodStatus
	for _, p := range inc.Status.Pods {
		if p.Replacement == "" {
			out = append(out, p)
		}
	}
	return out
}

func evidenceOf(inc *v1alpha1.Incident, kind v1alpha1.EvidenceType) []v1alpha1.EvidenceItem {
	var out []v1alpha1.EvidenceItem
	for _, e := range inc.Status.Evidence {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

func stepIs(name string, state v1alpha1.StepState) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool {
		if inc.Status.Recovery == nil {
			return false
		}
		for _, st := range inc.Status.Recovery.Steps {
			if st.Name == name {
				return st.State == state
			}
		}
		return false
	}
}

func pod(ctx context.Context, shop *scenario.Shop, name string) *corev1.Pod {
	GinkgoHelper()
	var p corev1.Pod
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: name}, &p)).To(Succeed())
	return &p
}

// podsOf are the pods that carry the label of a workload.
func podsOf(ctx context.Context, shop *scenario.Shop, app string) []corev1.Pod {
	GinkgoHelper()
	var list corev1.PodList
	Expect(shop.Admin.List(ctx, &list, client.InNamespace(shop.Namespace), client.MatchingLabels{"app": app})).To(Succeed())
	return list.Items
}

// gone reports whether the pod, by its UID, does not exist any more.
func gone(ctx context.Context, shop *scenario.Shop, p v1alpha1.PodStatus) bool {
	GinkgoHelper()
	var live corev1.Pod
	err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Name}, &live)
	if apierrors.IsNotFound(err) {
		return true
	}
	Expect(err).NotTo(HaveOccurred())
	return string(live.UID) != p.UID
}

// ourPolicies are the policies that the operator has created for the Incident.
func ourPolicies(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident) []networkingv1.NetworkPolicy {
	GinkgoHelper()
	var list networkingv1.NetworkPolicyList
	Expect(shop.Admin.List(ctx, &list, client.InNamespace(shop.Namespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(inc.UID)})).To(Succeed())
	return list.Items
}

// refused deletes the Incident as the responder and returns the answer, which has to be a refusal.
func refused(ctx context.Context, shop *scenario.Shop, name string) string {
	GinkgoHelper()
	err := shop.Responder.Delete(ctx, builder.Incident(shop.Namespace, name))
	Expect(err).To(HaveOccurred())
	return strings.TrimSpace(err.Error())
}
