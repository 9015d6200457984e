package lifecycle

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/probe"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

// metric is a Prometheus that knows one value, until it is told to be silent.
type metric struct {
	value  atomic.Value // a string
	silent atomic.Bool
	server *httptest.Server
}

func newMetric(value string) *metric {
	m := &metric{}
	m.value.Store(value)
	m.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if m.silent.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"web"},"value":[1700000000,%q]}]}}`, m.value.Load())
	}))
	DeferCleanup(m.server.Close)
	return m
}

// orders names the Prometheus in standing orders.
func (m *metric) orders(p *v1alpha1.ContainmentPolicy) {
	p.Spec.Recovery.Prometheus = []v1alpha1.Endpoint{{Name: "main", URL: m.server.URL}}
}

// few asks whether there are few errors.
func few() []v1alpha1.PrometheusCheck {
	return []v1alpha1.PrometheusCheck{{Source: "main", Query: "errors", Expression: "value < 0.01"}}
}

// jobPod waits for a running pod of a Job of the step "look".
func jobPod(ctx context.Context, shop *scenario.Shop) *corev1.Pod {
	GinkgoHelper()
	var found *corev1.Pod
	Eventually(ctx, func(g Gomega) {
		var pods corev1.PodList
		g.Expect(shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace), client.MatchingLabels{recovery.RecoveryJobLabel: "look"})).To(Succeed())
		found = nil
		for i := range pods.Items {
			if pods.Items[i].Status.Phase == corev1.PodRunning {
				found = &pods.Items[i]
			}
		}
		g.Expect(found).NotTo(BeNil())
	}).WithTimeout(scenario.Patience).Should(Succeed())
	return found
}

// endPod ends a pod of a Job well, which the simulated node would let run.
func endPod(ctx context.Context, shop *scenario.Shop, pod *corev1.Pod) {
	GinkgoHelper()
	end := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"sim.cofferdam.dev/complete-after":"0s"}}}`))
	Expect(shop.Admin.Patch(ctx, pod, end)).To(Succeed())
}

// failPod ends a pod as the kubelet reports one that has failed with a message.
func failPod(ctx context.Context, shop *scenario.Shop, pod *corev1.Pod, message string) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		pod.Status.Phase = corev1.PodFailed
		pod.Status.ContainerStatuses[0].Ready = false
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: message, FinishedAt: metav1.Now()}}
		g.Expect(shop.Admin.Status().Update(ctx, pod)).To(Succeed())
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

var _ = Describe("Verifying", func() {
	It("asks Prometheus, then probes from a pod, then runs a job, and says which policies the probe pod met", func(ctx SpecContext) {
		errors := newMetric("0.5")
		site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well") }))
		DeferCleanup(site.Close)
		shop := openShop(ctx, errors.orders)
		look := builder.Verify("look", "apps/v1", "Deployment", scenario.Clean, "")
		look.Verify.Prometheus = few()
		look.Verify.HTTP = []v1alpha1.HTTPCheck{{URL: site.URL, Contains: "is well"}}
		look.Verify.Job = v1alpha1.RunJobStep{Image: builder.GoodImage}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "verify", look))).To(Succeed())
		Expect(shop.Admin.Create(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "default-deny"},
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
		})).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("verify"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for few errors", stepSays("look", `the expression "value < 0.01" is false of {job="web"} 0.5`))

		errors.value.Store("0")
		pod := jobPod(ctx, shop)
		Expect(pod.Spec.Containers[0].Image).To(Equal(operator.ProbeImage))
		checks, err := probe.Decode(pod.Spec.Containers[0].Args[1])
		Expect(err).NotTo(HaveOccurred())
		Expect(probe.Run(ctx, checks)).To(Succeed(), "what the pod would have done")
		failPod(ctx, shop, pod, "dial tcp: no route to host")
		inc := await(ctx, shop, "miner", "with a failed probe", stepIs("look", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[0].Message).To(And(ContainSubstring("no route to host"), ContainSubstring("egress of the probe pod: default-deny.")))

		By("having it looked at once more")
		Expect(shop.Intervene(ctx, "miner", "look", v1alpha1.InterventionRetry)).To(Succeed())
		endPod(ctx, shop, jobPod(ctx, shop))
		Eventually(ctx, func(g Gomega) {
			g.Expect(jobPod(ctx, shop).Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		endPod(ctx, shop, jobPod(ctx, shop))
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("1 objects are healthy, 1 queries of Prometheus yield what they have to; Job"))
	})

	It("does not begin a recovery that would ask a Prometheus which the standing orders do not name", func(ctx SpecContext) {
		shop := openShop(ctx)
		look := v1alpha1.RecoveryStep{Name: "look", Verify: &v1alpha1.VerifyStep{Prometheus: few()}}
		Expect(shop.Admin.Create(ctx, builder.Plan(shop.Namespace, "verify", look))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("verify"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		inc := await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(inc.Status.Recovery).To(BeNil())
		Expect(scenario.Conditions(inc)).To(ContainSubstring(`names no Prometheus "main"`))
	})

	It("quarantines a wave again when a query says so, and not while Prometheus is silent", func(ctx SpecContext) {
		errors := newMetric("0")
		shop := openShop(ctx, errors.orders)
		web := v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web}
		free := builder.Release("free", "sign-off")
		free.Release.ObserveSeconds, free.Release.Watched = 3600, v1alpha1.VerifyStep{Prometheus: few()}
		plan := builder.Plan(shop.Namespace, "watched", builder.RollBack("back", web), builder.Approve("sign-off", "back"), free)
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("watched"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "observing", stepSays("free", "observed until"))

		errors.silent.Store(true)
		inc := await(ctx, shop, "miner", "blind", stepSays("free", "not observed at the moment"))
		Expect(inc.Status.Recovery.Relapses).To(BeEmpty())
		errors.value.Store("0.5")
		errors.silent.Store(false)
		inc = await(ctx, shop, "miner", "with a relapse", stepIs("free", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[2].Message).To(ContainSubstring("quarantined again: what is watched is not healthy any more: Prometheus main"))
	})
})
