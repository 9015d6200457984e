package lifecycle

import (
	"context"
	"crypto/x509"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("What the standing orders ask for besides", func() {
	It("is collected: a checkpoint by an account that may do nothing else, and what a tool prints behind its own policy", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.Checkpoints.Collect = v1alpha1.Collect
			p.Spec.Evidence.Jobs = []v1alpha1.EvidenceJob{{
				Name: "memory", Image: builder.GoodImage,
				Egress: []v1alpha1.EvidenceJobEgress{{CIDR: "198.51.100.7/32", Ports: []v1alpha1.ExceptionPort{{Port: 443}}}},
			}}
		})
		loner := builder.Pod(shop.Namespace, "loner", "app", "loner")
		loner.Annotations = map[string]string{"sim.cofferdam.dev/checkpoint": "ok"}
		Expect(shop.Admin.Create(ctx, loner)).To(Succeed())
		Eventually(ctx, func() corev1.PodPhase { return pod(ctx, shop, "loner").Status.Phase }).WithTimeout(scenario.Patience).Should(Equal(corev1.PodRunning))
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetPod, "", "loner")))

		By("letting the tool end, which the simulated node has to be told")
		var job batchv1.Job
		Eventually(ctx, func(g Gomega) {
			var jobs batchv1.JobList
			g.Expect(shop.Admin.List(ctx, &jobs, client.InNamespace(evidence.JobNamespace))).To(Succeed())
			g.Expect(jobs.Items).To(HaveLen(1))
			job = jobs.Items[0]
			tool := toolPod(ctx, g, shop, &job)
			g.Expect(tool.Spec.AutomountServiceAccountToken).To(HaveValue(BeFalse()))
			var policies networkingv1.NetworkPolicyList
			g.Expect(shop.Admin.List(ctx, &policies, client.InNamespace(evidence.JobNamespace), client.HasLabels{evidence.JobLabel})).To(Succeed())
			g.Expect(policies.Items).To(ConsistOf(HaveField("Spec.Egress", HaveLen(1))), "there is a policy before there is a pod")
			changed := tool.DeepCopy()
			changed.Annotations = map[string]string{"sim.cofferdam.dev/complete-after": "10ms"}
			g.Expect(shop.Admin.Patch(ctx, changed, client.MergeFrom(tool))).To(Succeed())
		}).WithTimeout(scenario.Patience).Should(Succeed())

		inc := await(ctx, shop, "miner", "everything collected", scenario.Is(v1alpha1.ConditionEvidenceCollected))
		Expect(evidenceOf(inc, v1alpha1.EvidenceCheckpoint)).To(ConsistOf(And(
			HaveField("State", v1alpha1.EvidenceCollected), HaveField("Location", ContainSubstring("/var/lib/kubelet/checkpoints/")), HaveField("Digest", BeEmpty()))))
		printed := evidenceOf(inc, v1alpha1.EvidenceJobOutput)
		Expect(printed).To(HaveLen(1))
		Expect(readItem(ctx, printed[0])).NotTo(BeEmpty())

		By("cleaning up after the tool")
		Eventually(ctx, func(g Gomega) {
			objects, err := evidence.JobObjects(ctx, shop.Admin, inc.UID)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(objects).To(BeEmpty())
		}).WithTimeout(scenario.Patience).Should(Succeed())
	})

	It("is a gap where the runtime cannot checkpoint, and that stops nothing", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Checkpoints.Collect = v1alpha1.Collect })
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
		inc := await(ctx, shop, "miner", "left with a gap", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(evidenceOf(inc, v1alpha1.EvidenceCheckpoint)).To(ContainElement(And(HaveField("State", v1alpha1.EvidenceGap), HaveField("Message", Not(BeEmpty())))))
		Expect(scenario.Is(v1alpha1.ConditionReady)(inc)).To(BeTrue())
	})
})

// toolPod is the pod of a Job.
func toolPod(ctx context.Context, g Gomega, shop *scenario.Shop, job *batchv1.Job) *corev1.Pod {
	var pods corev1.PodList
	g.Expect(shop.Admin.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.JobNameLabel: job.Name})).To(Succeed())
	g.Expect(pods.Items).To(HaveLen(1))
	return &pods.Items[0]
}

// kubeletCAs are the certificates that vouch for the simulated kubelets: the cluster's own.
func kubeletCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(server.RESTConfig.CAData)
	return pool
}

var _ = Describe("Logs", func() {
	It("of a million lines, and of one that never ends, are kept as far as the orders go, and said to be cut", func(ctx SpecContext) {
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.Logs = v1alpha1.LogOrders{MaxBytes: 1 << 20, DeadlineSeconds: 20}
		})
		for name, annotation := range map[string]string{"long": "sim.cofferdam.dev/log-lines=1000000", "endless": "sim.cofferdam.dev/log-endless=true"} {
			key, value, _ := strings.Cut(annotation, "=")
			p := builder.Pod(shop.Namespace, name, "app", "loner")
			p.Annotations = map[string]string{key: value}
			Expect(shop.Admin.Create(ctx, p)).To(Succeed())
			Eventually(ctx, func() corev1.PodPhase { return pod(ctx, shop, name).Status.Phase }).WithTimeout(scenario.Patience).Should(Equal(corev1.PodRunning))
		}
		declare(ctx, shop, "miner", builder.Targets(builder.Selected(v1alpha1.TargetPod, "", "app", "loner")))
		inc := await(ctx, shop, "miner", "everything read as far as it goes", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonGaps))
		Expect(evidenceOf(inc, v1alpha1.EvidenceLogs)).To(ConsistOf(
			And(HaveField("Subject.Name", "long"), HaveField("State", v1alpha1.EvidenceCollected), HaveField("Message", ContainSubstring("cut at the length"))),
			And(HaveField("Subject.Name", "endless"), HaveField("State", v1alpha1.EvidencePartial), HaveField("Message", ContainSubstring("incomplete"))),
		))
	})
})
