package admission

import (
	"context"
	"fmt"
	"maps"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	. "cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

const quarantineLabel = containmentv1alpha1.QuarantineLabelPrefix + "11111111-1111-1111-1111-111111111111"

var _ = Describe("Compromised revisions", func() {
	// refuse stores a ConfigMap as the operator does, and waits until it is in effect.
	refuse := func(ctx context.Context, incident string, lines ...string) *corev1.ConfigMap {
		GinkgoHelper()
		refusals := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: cluster.OperatorNamespace, Name: fresh(),
				Labels: map[string]string{containmentv1alpha1.RefusalsLabel: "true"},
			},
			Data: map[string]string{"refused": strings.Join(lines, "\n")},
		}
		if incident != "" {
			refusals.Annotations = map[string]string{containmentv1alpha1.IncidentAnnotation: incident}
		}
		Expect(operator.Create(ctx, refusals)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(operator.Delete(ctx, refusals)).To(Succeed()) })
		return refusals
	}
	ownedBy := func(uid string) []metav1.OwnerReference {
		controller := true
		return []metav1.OwnerReference{
			{APIVersion: "example.com/v1", Kind: "Bystander", Name: "b", UID: "bystander"},
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: types.UID(uid), Controller: &controller},
		}
	}
	podOf := func(namespace, uid string, labels ...string) *corev1.Pod {
		pod := Pod(namespace, "replacement", labels...)
		pod.OwnerReferences = ownedBy(uid)
		return pod
	}
	jobOf := func(namespace, uid string) *batchv1.Job {
		pod := Pod(namespace, "job")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "run", OwnerReferences: ownedBy(uid)},
			Spec:       batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: pod.Spec}},
		}
	}
	const hash = "controller-revision-hash"

	It("do not start again", func(ctx context.Context) {
		refuse(ctx, "shop/miner", "shop/uid-1", "shop/uid-2/hash-a", "")
		refuse(ctx, "", "shop/uid-3")
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-1"), client.DryRunAll) }).
			Should(refusedWith("shop/uid-1 is a compromised revision of Incident shop/miner; it may start again when the Incident releases it"))
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-3"), client.DryRunAll) }).
			Should(refusedWith("is a compromised revision of Incident unknown, see ConfigMap"))

		Expect(admin.Create(ctx, podOf(shop, "uid-1", hash, "any"), client.DryRunAll)).To(refusedWith("of Incident shop/miner"))
		Expect(admin.Create(ctx, podOf(shop, "uid-2", hash, "hash-a"), client.DryRunAll)).To(refusedWith("shop/uid-2/hash-a is a compromised revision"))
		Expect(admin.Create(ctx, jobOf(shop, "uid-1"), client.DryRunAll)).To(refusedWith("of Incident shop/miner"))
		Expect(operator.Create(ctx, podOf(shop, "uid-1"), client.DryRunAll)).To(refusedWith("of Incident shop/miner"), "nobody is exempt")

		for what, object := range map[string]client.Object{
			"a recovered revision":    podOf(shop, "uid-2", hash, "hash-b"),
			"no revision":             podOf(shop, "uid-2"),
			"another owner":           podOf(shop, "uid-9"),
			"another namespace":       podOf(pay, "uid-1"),
			"a pod of its own":        Pod(shop, "own"),
			"a Job of another owner":  jobOf(shop, "uid-9"),
			"a Job of another place":  jobOf(pay, "uid-1"),
			"an owner, not in charge": func() client.Object { p := podOf(shop, "uid-1"); p.OwnerReferences[1].Controller = nil; return p }(),
		} {
			Expect(admin.Create(ctx, object, client.DryRunAll)).To(Succeed(), what)
		}
	})

	It("do not keep a protected namespace from starting pods", func(ctx context.Context) {
		refuse(ctx, "shop/miner", "kube-system/uid-5", "shop/uid-5")
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-5"), client.DryRunAll) }).Should(HaveOccurred())
		Expect(admin.Create(ctx, podOf("kube-system", "uid-5"), client.DryRunAll)).To(Succeed())
	})

	It("start again when they are released", func(ctx context.Context) {
		refusals := refuse(ctx, "shop/miner", "shop/uid-6")
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-6"), client.DryRunAll) }).Should(HaveOccurred())
		refusals.Data = nil
		Expect(operator.Update(ctx, refusals)).To(Succeed())
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-6"), client.DryRunAll) }).Should(Succeed())
	})

	It("may be as many as one ConfigMap holds", func(ctx context.Context) {
		namespace := Long(63)
		lines := []string{}
		for i := range 9000 {
			lines = append(lines, fmt.Sprintf("%s/11111111-1111-1111-1111-%012d/76b9c8f4d", namespace, i))
		}
		refuse(ctx, "shop/miner", append(lines, "shop/uid-7")...)
		Eventually(ctx, func() error { return admin.Create(ctx, podOf(shop, "uid-7"), client.DryRunAll) }).
			Should(refusedWith("shop/uid-7 is a compromised revision"))
		Expect(admin.Create(ctx, podOf(shop, "uid-8"), client.DryRunAll)).To(Succeed())
	})
})

var _ = Describe("The NetworkPolicies of an Incident", func() {
	deny := func(labels map[string]string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: fresh(), Labels: labels},
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress", "Egress"}},
		}
	}
	ours := map[string]string{containmentv1alpha1.IncidentUIDLabel: "11111111-1111-1111-1111-111111111111"}

	It("belong to the operator", func(ctx context.Context) {
		const label = "the label containment.cofferdam.dev/incident-uid is put on objects of kind NetworkPolicy by the Cofferdam operator alone"
		const message = "this NetworkPolicy is the quarantine of an Incident"
		Expect(admin.Create(ctx, deny(ours), client.DryRunAll)).To(refusedWith(label))
		object := deny(ours)
		Expect(operator.Create(ctx, object)).To(Succeed())

		weaker := object.DeepCopy()
		weaker.Spec.PolicyTypes = []networkingv1.PolicyType{"Ingress"}
		Expect(admin.Update(ctx, weaker.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(operator.Update(ctx, weaker, client.DryRunAll)).To(Succeed())
		disowned := object.DeepCopy()
		disowned.Labels = nil
		Expect(admin.Update(ctx, disowned, client.DryRunAll)).To(refusedWith(message))
		Expect(admin.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(admin.DeleteAllOf(ctx, &networkingv1.NetworkPolicy{}, client.InNamespace(shop), client.MatchingLabels(ours))).To(refusedWith(message))
		Expect(operator.Delete(ctx, object)).To(Succeed())
	})

	It("go with their namespace", func(ctx context.Context) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fresh()}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		object := deny(ours)
		object.Namespace = namespace.Name
		Expect(operator.Create(ctx, object)).To(Succeed())
		Expect(admin.Delete(ctx, namespace)).To(Succeed())
		Eventually(ctx, func() bool {
			return client.IgnoreNotFound(admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)) == nil &&
				admin.Get(ctx, client.ObjectKeyFromObject(object), object) != nil
		}).Should(BeTrue())
	})

	It("are not anybody else's", func(ctx context.Context) {
		object := deny(map[string]string{"app": "web"})
		Expect(admin.Create(ctx, object)).To(Succeed())
		object.Spec.PolicyTypes = []networkingv1.PolicyType{"Ingress"}
		Expect(admin.Update(ctx, object)).To(Succeed())
		taken := object.DeepCopy()
		taken.Labels = ours
		Expect(admin.Update(ctx, taken, client.DryRunAll)).To(refusedWith("is put on objects of kind NetworkPolicy by the Cofferdam operator alone"))
		Expect(admin.Delete(ctx, object)).To(Succeed())
	})
})

var _ = Describe("The marks of quarantine on pods", func() {
	const labels = "labels under quarantine.cofferdam.dev/ are put on and taken off pods by the Cofferdam operator alone"
	const ordinary = "this pod is in quarantine, and its labels decide which policies select it"
	const annotation = "the annotations containment.cofferdam.dev/original and containment.cofferdam.dev/original-annotations keep what quarantine took from"
	const keeping = "keep it from being evicted: the Cofferdam operator alone changes them"
	keepers := map[string]string{
		"cluster-autoscaler.kubernetes.io/safe-to-evict":         "false",
		"karpenter.sh/do-not-disrupt":                            "true",
		"descheduler.alpha.kubernetes.io/prefer-no-eviction":     "true",
		"cluster-autoscaler.kubernetes.io/some-other-annotation": "true",
	}

	var held, free *corev1.Pod
	BeforeEach(func(ctx context.Context) {
		held = Pod(shop, fresh(), quarantineLabel, containmentv1alpha1.QuarantineLabelValue, "tier", "back")
		held.Annotations = maps.Clone(keepers)
		held.Annotations[containmentv1alpha1.OriginalAnnotation] = "{}"
		Expect(operator.Create(ctx, held)).To(Succeed())
		free = Pod(shop, fresh(), "app", "web")
		Expect(admin.Create(ctx, free)).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			for _, pod := range []*corev1.Pod{held, free} {
				Expect(client.IgnoreNotFound(admin.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
			}
		})
	})
	// patch tries a change, through a subresource if one is given, and returns what the pod would be.
	patch := func(ctx context.Context, who client.Client, pod *corev1.Pod, body, sub string) (*corev1.Pod, error) {
		pod = pod.DeepCopy()
		change := client.RawPatch(types.MergePatchType, []byte(body))
		if sub != "" {
			return pod, who.SubResource(sub).Patch(ctx, pod, change, client.DryRunAll)
		}
		return pod, who.Patch(ctx, pod, change, client.DryRunAll)
	}
	marks := func(pod *corev1.Pod) [2]map[string]string {
		return [2]map[string]string{pod.Labels, pod.Annotations}
	}

	DescribeTable("are written by the operator alone", func(ctx context.Context, pod **corev1.Pod, body, message string) {
		for sub, takesMetadata := range map[string]bool{"": true, "status": true, "ephemeralcontainers": false} {
			result, err := patch(ctx, operator, *pod, body, sub)
			Expect(err).NotTo(HaveOccurred(), "operator, %q", sub)
			_, err = patch(ctx, admin, *pod, body, sub)
			if takesMetadata {
				Expect(marks(result)).NotTo(Equal(marks(*pod)), "%q takes metadata", sub)
				Expect(err).To(refusedWith(message), "administrator, %q", sub)
			} else {
				Expect(marks(result)).To(Equal(marks(*pod)), "%q drops metadata", sub)
				Expect(err).NotTo(HaveOccurred(), "administrator, %q", sub)
			}
		}
	},
		Entry("label taken off", &held, `{"metadata":{"labels":{"`+quarantineLabel+`":null}}}`, labels),
		Entry("all labels taken off", &held, `{"metadata":{"labels":null}}`, labels),
		Entry("label changed", &held, `{"metadata":{"labels":{"`+quarantineLabel+`":"not"}}}`, labels),
		Entry("label put on", &free, `{"metadata":{"labels":{"`+quarantineLabel+`":"held"}}}`, labels),
		Entry("ordinary label taken off", &held, `{"metadata":{"labels":{"tier":null}}}`, ordinary),
		Entry("ordinary label changed", &held, `{"metadata":{"labels":{"tier":"front"}}}`, ordinary),
		Entry("ordinary label put on", &held, `{"metadata":{"labels":{"app":"web"}}}`, ordinary),
		Entry("annotation taken off", &held, `{"metadata":{"annotations":{"containment.cofferdam.dev/original":null}}}`, annotation),
		Entry("annotation changed", &held, `{"metadata":{"annotations":{"containment.cofferdam.dev/original":"{\"a\":1}"}}}`, annotation),
		Entry("annotation put on", &free, `{"metadata":{"annotations":{"containment.cofferdam.dev/original":"{}"}}}`, annotation),
		Entry("autoscaler's annotation taken off", &held, `{"metadata":{"annotations":{"cluster-autoscaler.kubernetes.io/safe-to-evict":null}}}`, keeping),
		Entry("autoscaler's annotation changed", &held, `{"metadata":{"annotations":{"cluster-autoscaler.kubernetes.io/safe-to-evict":"true"}}}`, keeping),
		Entry("Karpenter's annotation taken off", &held, `{"metadata":{"annotations":{"karpenter.sh/do-not-disrupt":null}}}`, keeping),
		Entry("Karpenter's annotation changed", &held, `{"metadata":{"annotations":{"karpenter.sh/do-not-disrupt":"false"}}}`, keeping),
		Entry("descheduler's annotation taken off", &held, `{"metadata":{"annotations":{"descheduler.alpha.kubernetes.io/prefer-no-eviction":null}}}`, keeping),
		Entry("descheduler's annotation changed", &held, `{"metadata":{"annotations":{"descheduler.alpha.kubernetes.io/prefer-no-eviction":""}}}`, keeping),
	)

	It("are not on a pod that is created", func(ctx context.Context) {
		Expect(admin.Create(ctx, Pod(shop, "new", quarantineLabel, "held"), client.DryRunAll)).To(refusedWith(labels))
		pod := Pod(shop, "new")
		pod.Annotations = map[string]string{containmentv1alpha1.OriginalAnnotation: "{}"}
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(refusedWith(annotation))
		Expect(admin.Create(ctx, Pod(shop, "new", "app", "web"), client.DryRunAll)).To(Succeed())
	})

	It("leave everything else about the pod to others", func(ctx context.Context) {
		const owner = `{"metadata":{"ownerReferences":[{"apiVersion":"example.com/v1","kind":"Owner","name":"o","uid":"1","controller":true}]}}`
		const others = `{"metadata":{"annotations":{"note":"b","cluster-autoscaler.kubernetes.io/some-other-annotation":null},"labels":{"tier":"back"}}}`
		_, err := patch(ctx, admin, held, others, "")
		Expect(err).NotTo(HaveOccurred(), "a label that it has already is no change")
		_, err = patch(ctx, admin, free, `{"metadata":{"labels":{"app":null,"team":"a"},"annotations":{"karpenter.sh/do-not-disrupt":"true"}}}`, "")
		Expect(err).NotTo(HaveOccurred())
		for _, pod := range []*corev1.Pod{held, free} {
			_, err = patch(ctx, admin, pod, owner, "")
			Expect(err).NotTo(HaveOccurred())
			_, err = patch(ctx, admin, pod, `{"status":{"message":"from the kubelet"}}`, "status")
			Expect(err).NotTo(HaveOccurred())
		}
	})

	It("cost little on a pod with many labels and annotations", func(ctx context.Context) {
		pod := Pod(shop, fresh())
		pod.Labels, pod.Annotations = map[string]string{}, map[string]string{}
		for i := range 500 {
			pod.Labels[fmt.Sprintf("example.com/label-%d", i)] = Long(63)
			pod.Annotations[fmt.Sprintf("example.com/annotation-%d", i)] = Long(400)
		}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		_, err := patch(ctx, admin, pod, `{"status":{"message":"from the kubelet"}}`, "status")
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
	})
})

var _ = Describe("The Jobs of a recovery", func() {
	marked := func(labels ...string) *batchv1.Job {
		pod := Pod(shop, fresh(), "app", "job")
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: fresh(), Labels: map[string]string{"tier": "back"}}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: pod.Spec}}}
		for i := 0; i+1 < len(labels); i += 2 {
			job.Labels[labels[i]] = labels[i+1]
		}
		return job
	}
	const (
		owner, step = "containment.cofferdam.dev/incident-uid", "containment.cofferdam.dev/recovery-step"
		alone       = "are put on and taken off Jobs by the Cofferdam operator alone"
	)

	It("are made by the operator alone, and are otherwise anybody's", func(ctx context.Context) {
		for _, labels := range [][]string{{owner, "uid"}, {step, "migrate"}} {
			Expect(admin.Create(ctx, marked(labels...), client.DryRunAll)).To(refusedWith(alone))
			Expect(operator.Create(ctx, marked(labels...), client.DryRunAll)).To(Succeed())
		}
		Expect(admin.Create(ctx, marked(), client.DryRunAll)).To(Succeed())

		job := marked(owner, "uid")
		job.Spec.Suspend = new(true)
		Expect(operator.Create(ctx, job)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, job)).To(Succeed()) })
		for patch, want := range map[string]OmegaMatcher{
			`{"metadata":{"labels":{"containment.cofferdam.dev/incident-uid":null}}}`:       refusedWith(alone),
			`{"metadata":{"labels":{"containment.cofferdam.dev/incident-uid":"another"}}}`:  refusedWith(alone),
			`{"metadata":{"labels":{"containment.cofferdam.dev/recovery-step":"migrate"}}}`: refusedWith(alone),
			`{"metadata":{"labels":{"tier":"front"}},"spec":{"suspend":false}}`:             Succeed(),
		} {
			Expect(admin.Patch(ctx, job.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)), client.DryRunAll)).To(want, patch)
		}
	})
})
