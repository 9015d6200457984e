package lifecycle

import (
	"context"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A dry run", func() {
	It("writes nothing but status, and shows exactly what Enforce does", func(ctx SpecContext) {
		shop := openShop(ctx)
		for _, name := range []string{"loner-1", "loner-2"} {
			Expect(shop.Admin.Create(ctx, builder.Pod(shop.Namespace, name, "app", "loner"))).To(Succeed())
		}
		target := builder.Targets(builder.Selected(v1alpha1.TargetPod, "", "app", "loner"))
		declare(ctx, shop, "rehearsal", target, builder.Mode(v1alpha1.ModeDryRun))
		inc := await(ctx, shop, "rehearsal", "planned", scenario.Is(v1alpha1.ConditionReady))

		Expect(changes(shop.Namespace, string(inc.UID))).To(BeEmpty())
		Expect(inc.Finalizers).To(BeEmpty())
		for _, p := range inc.Status.Pods {
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictIsolated), "the predicted verdict")
			Expect(p.Handling).To(Equal(v1alpha1.HandlingPending))
		}
		planned := inc.Status.PlannedActions
		Expect(planned).NotTo(BeEmpty())

		Expect(shop.Responder.Patch(ctx, inc, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"mode":"Enforce"}}`)))).To(Succeed())
		await(ctx, shop, "rehearsal", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(writes(shop.Namespace, string(inc.UID))).To(ConsistOf(expected(planned)))
	})

	It("of a recovery shows the images it would change and changes none", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "rehearsal", builder.Mode(v1alpha1.ModeDryRun), builder.UsePlan(scenario.PlanName), builder.Goal(v1alpha1.GoalRecover))
		inc := await(ctx, shop, "rehearsal", "planned", scenario.Is(v1alpha1.ConditionReady))
		var details []string
		for _, a := range inc.Status.PlannedActions {
			details = append(details, a.Verb+" "+a.Object.Kind+" "+a.Object.Name+" "+a.Detail)
		}
		Expect(details).To(ContainElement(And(HavePrefix("patch Deployment web "), ContainSubstring(scenario.BadImage+" -> "+builder.GoodImage))))
		Expect(details).To(ContainElement(HavePrefix("patch StatefulSet db ")))
		Expect(changes(shop.Namespace, string(inc.UID))).To(BeEmpty())
		for _, p := range podsOf(ctx, shop, scenario.Web) {
			Expect(p.Spec.Containers[0].Image).To(Equal(scenario.BadImage))
		}
	})
})

var _ = Describe("A second look without a change", func() {
	It("writes nothing", func(ctx SpecContext) {
		shop := openShop(ctx)
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with evidence", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionReady)(inc)
		})
		settle(ctx, inc)
		before := recorder.Requests(shop.Namespace, string(inc.UID))
		passes := looks.At(inc.Namespace, inc.Name)
		By("touching a pod that it holds, which brings a pass")
		nudge(ctx, shop, originals(inc)[0].Name)
		Eventually(func() int { return looks.At(inc.Namespace, inc.Name) }).WithTimeout(scenario.Patience).Should(BeNumerically(">", passes))
		settle(ctx, inc)
		// The client writes the second of two like Events ten seconds late when the first was still on its way. A pass that has something to tell writes the status first.
		late := func(r operator.Request) bool { return r.Verb == "patch" && strings.Contains(r.Path, "/events/") }
		Expect(slices.DeleteFunc(recorder.Requests(shop.Namespace, string(inc.UID))[len(before):], late)).To(BeEmpty())
	})
})

// settle waits until no pass over the Incident is under way or due at once, and until the Events of earlier ones are written, which takes its time: two readings of the counters with nothing
// between them. Incidents of other specs may still be busy.
func settle(ctx context.Context, inc *v1alpha1.Incident) {
	GinkgoHelper()
	last := -1
	Eventually(ctx, func() bool {
		now := looks.At(inc.Namespace, inc.Name) + len(recorder.Requests(inc.Namespace, string(inc.UID)))
		same := now == last
		last = now
		return same
	}).WithTimeout(scenario.Patience).WithPolling(3e9).Should(BeTrue())
}

// counted adds up the counters of this process with the name and the label.
func counted(name, label, value string) float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == label && l.GetValue() == value }) {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// changes are the recorded writes except of status: Events, too, are writes.
func changes(words ...string) []operator.Request {
	return slices.DeleteFunc(recorder.Requests(words...), operator.Request.Status)
}

// writes are the recorded writes except of status and Events, as "verb resource name". A create is named after the resource only.
func writes(words ...string) []string {
	var out []string
	for _, r := range recorder.Requests(words...) {
		if r.Status() || strings.Contains(r.Path, "/events") {
			continue
		}
		out = append(out, r.Verb+" "+lastPart(r))
	}
	slices.Sort(out)
	return out
}

func lastPart(r operator.Request) string {
	parts := strings.Split(r.Path, "/")
	if r.Verb == "create" {
		return parts[len(parts)-1]
	}
	return parts[len(parts)-2] + "/" + parts[len(parts)-1]
}

// expected are planned actions in the form of writes. A ConfigMap is created in the operator's namespace, whose path names neither shop nor Incident.
func expected(planned []v1alpha1.PlannedAction) []string {
	resource := map[string]string{"NetworkPolicy": "networkpolicies", "Pod": "pods", "Incident": "incidents", "VolumeSnapshot": "volumesnapshots",
		"PodDisruptionBudget": "poddisruptionbudgets"}
	var out []string
	for _, a := range planned {
		switch {
		case a.Object.Kind == "ConfigMap":
			continue
		case a.Verb == "create":
			out = append(out, a.Verb+" "+resource[a.Object.Kind])
		default:
			out = append(out, a.Verb+" "+resource[a.Object.Kind]+"/"+a.Object.Name)
		}
	}
	slices.Sort(out)
	return out
}
