package admission

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	. "cofferdam.dev/cofferdam/test/builder"
)

// refusals are how many requests an admission policy has refused so far.
func refusals(ctx context.Context, policy string) int {
	GinkgoHelper()
	metrics, err := server.KubectlContext(ctx, "get", "--raw", "/metrics")
	Expect(err).NotTo(HaveOccurred())
	sum := 0
	for _, match := range regexp.MustCompile(
		`(?m)^apiserver_validating_admission_policy_check_total\{.*enforcement_action="deny".*policy="`+policy+`".*\} (\d+)$`,
	).FindAllSubmatch(metrics, -1) {
		count, err := strconv.Atoi(string(match[1]))
		Expect(err).NotTo(HaveOccurred())
		sum += count
	}
	return sum
}

var _ = Describe("Kubernetes' own controllers", Ordered, func() {
	var namespace string
	var refusedBefore map[string]int
	// What quarantine does while it keeps pods attached, and when it takes them from their owners.
	const attach = `{"metadata":{"labels":{"` + quarantineLabel + `":"held"}}}`
	detach := func(taken string) string {
		return `{"metadata":{"labels":{"` + quarantineLabel + `":"held",` + taken + `}}}`
	}
	pods := func(g Gomega, ctx context.Context, label string) []corev1.Pod {
		var list corev1.PodList
		g.Expect(admin.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{label})).To(Succeed())
		return list.Items
	}
	quarantine := func(ctx context.Context, pod *corev1.Pod, body string) {
		GinkgoHelper()
		Expect(operator.Patch(ctx, pod, client.RawPatch(types.MergePatchType, []byte(body)))).To(Succeed())
	}
	change := func(ctx context.Context, object client.Object, body string) {
		GinkgoHelper()
		Expect(admin.Patch(ctx, object, client.RawPatch(types.StrategicMergePatchType, []byte(body)))).To(Succeed())
	}
	ready := func(pods []corev1.Pod) int {
		count := 0
		for _, pod := range pods {
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
					count++
				}
			}
		}
		return count
	}
	const newRevision = `{"spec":{"template":{"metadata":{"annotations":{"revision":"two"}}}}}`

	BeforeAll(func(ctx context.Context) {
		namespace = fresh()
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		Expect(admin.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
		refusedBefore = map[string]int{}
		for _, guard := range []string{"cofferdam-quarantine-labels", "cofferdam-quarantine-access"} {
			refusedBefore[guard] = refusals(ctx, guard)
		}
	})

	It("scale and roll out a Deployment around an attached pod, and let go of one that is detached", func(ctx context.Context) {
		web := Deployment(namespace, "web", GoodImage, 3)
		Expect(admin.Create(ctx, web)).To(Succeed())
		Eventually(ctx, func(g Gomega) { g.Expect(ready(pods(g, ctx, "pod-template-hash"))).To(Equal(3)) }).Should(Succeed())
		replicas := pods(Default, ctx, "pod-template-hash")
		attached, detached := &replicas[0], &replicas[1]
		quarantine(ctx, attached, attach)
		quarantine(ctx, detached, detach(`"app":null,"pod-template-hash":null`))

		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(detached), detached)).To(Succeed())
			g.Expect(detached.OwnerReferences).To(BeEmpty(), "released by its ReplicaSet")
			g.Expect(ready(pods(g, ctx, "pod-template-hash"))).To(Equal(3), "replaced")
		}).Should(Succeed())
		change(ctx, web, `{"spec":{"replicas":5}}`)
		Eventually(ctx, func(g Gomega) { g.Expect(ready(pods(g, ctx, "pod-template-hash"))).To(Equal(5)) }).Should(Succeed())
		change(ctx, web, newRevision)
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(web), web)).To(Succeed())
			g.Expect(web.Status.ObservedGeneration).To(Equal(web.Generation))
			g.Expect(web.Status.UpdatedReplicas).To(BeEquivalentTo(5))
			g.Expect(web.Status.Replicas).To(BeEquivalentTo(5))
		}).Should(Succeed())
	})

	It("scale and roll out a StatefulSet around an attached pod, and let go of one that is detached", func(ctx context.Context) {
		db := StatefulSet(namespace, "db", GoodImage, 2)
		Expect(admin.Create(ctx, db)).To(Succeed())
		const index = appsv1.PodIndexLabel
		Eventually(ctx, func(g Gomega) { g.Expect(ready(pods(g, ctx, index))).To(Equal(2)) }).Should(Succeed())
		attached, detached := Pod(namespace, "db-0"), Pod(namespace, "db-1")
		quarantine(ctx, attached, attach)
		change(ctx, db, `{"spec":{"replicas":3}}`)
		Eventually(ctx, func(g Gomega) { g.Expect(ready(pods(g, ctx, index))).To(Equal(3)) }).Should(Succeed())
		change(ctx, db, newRevision)
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(db), db)).To(Succeed())
			g.Expect(db.Status.UpdatedReplicas).To(BeEquivalentTo(3))
			g.Expect(db.Status.ReadyReplicas).To(BeEquivalentTo(3))
		}).Should(Succeed())

		quarantine(ctx, detached, detach(`"app":null,"controller-revision-hash":null,"statefulset.kubernetes.io/pod-name":null,"`+index+`":null`))
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(detached), detached)).To(Succeed())
			g.Expect(detached.OwnerReferences).To(BeEmpty(), "released by its StatefulSet")
		}).Should(Succeed())
	})

	It("scale down a Deployment, and finish a Job and roll out a DaemonSet, with attached pods", func(ctx context.Context) {
		agent := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent"}}
		agent.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agent"}}
		agent.Spec.Template = Deployment(namespace, "agent", GoodImage, 1).Spec.Template
		Expect(admin.Create(ctx, agent)).To(Succeed())
		run := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "run"}}
		run.Spec.Template.Spec = Pod(namespace, "run").Spec
		run.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		Expect(admin.Create(ctx, run)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(pods(g, ctx, "pod-template-generation")).NotTo(BeEmpty())
			g.Expect(pods(g, ctx, batchv1.JobNameLabel)).To(HaveLen(1))
		}).Should(Succeed())
		for _, pod := range append(pods(Default, ctx, "pod-template-generation"), pods(Default, ctx, batchv1.JobNameLabel)...) {
			quarantine(ctx, &pod, attach)
		}
		for _, pod := range pods(Default, ctx, batchv1.JobNameLabel) {
			end := client.RawPatch(types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`))
			Expect(admin.Status().Patch(ctx, &pod, end)).To(Succeed(), "as its kubelet would")
		}
		change(ctx, agent, newRevision)
		change(ctx, Deployment(namespace, "web", GoodImage, 1), `{"spec":{"replicas":1}}`)
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(agent), agent)).To(Succeed())
			g.Expect(agent.Status.ObservedGeneration).To(Equal(agent.Generation))
			g.Expect(agent.Status.UpdatedNumberScheduled).To(Equal(agent.Status.DesiredNumberScheduled))
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(run), run)).To(Succeed())
			g.Expect(run.Status.Succeeded).To(BeEquivalentTo(1))
			for _, pod := range pods(g, ctx, batchv1.JobNameLabel) {
				g.Expect(pod.Finalizers).To(BeEmpty(), "accounted for by the Job")
			}
			g.Expect(ready(pods(g, ctx, "pod-template-hash"))).To(Equal(1))
		}).Should(Succeed())
	})

	It("were refused nothing in that", func(ctx context.Context) {
		for guard, before := range refusedBefore {
			Expect(refusals(ctx, guard)).To(Equal(before), guard)
		}
		var events corev1.EventList
		Expect(admin.List(ctx, &events, client.InNamespace(namespace))).To(Succeed())
		Expect(events.Items).NotTo(BeEmpty())
		for _, event := range events.Items {
			Expect(event.Message).NotTo(ContainSubstring("ValidatingAdmissionPolicy"), fmt.Sprint(event.Reason, " of ", event.InvolvedObject.Name))
		}
	})

	It("would have been counted", func(ctx context.Context) {
		before := refusals(ctx, "cofferdam-quarantine-labels")
		Expect(admin.Create(ctx, Pod(shop, "new", quarantineLabel, "held"), client.DryRunAll)).NotTo(Succeed())
		Expect(refusals(ctx, "cofferdam-quarantine-labels")).To(BeNumerically(">", before))
	})
})
