package explain

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var readPods = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}}

func denyAll(namespace string) *networkingv1.NetworkPolicy {
	np := scenario.AllowAll(namespace, "deny", metav1.LabelSelector{})
	np.Spec.Ingress, np.Spec.Egress = nil, nil
	return np
}

var _ = Describe("kubectl incident explain", func() {
	It("says that a pod leaks, and after a deny policy that it is isolated", func(ctx SpecContext) {
		ns := namespaceWithPod(ctx)
		Expect(admin.Create(ctx, scenario.AllowAll(ns, "allow-all", metav1.LabelSelector{}))).To(Succeed())
		open := explainPod(ctx, ns, "web")
		Expect(open.code).To(Equal(explain.ExitLeaking))
		Expect(open.document.Verdict).To(Equal(v1alpha1.VerdictLeaking))
		Expect(open.document.Ingress.Leaks).To(ConsistOf(And(HaveField("Policy.Name", "allow-all"), HaveField("Policy.UID", Not(BeEmpty())), HaveField("State", v1alpha1.LeakActive))))

		Expect(admin.Delete(ctx, scenario.AllowAll(ns, "allow-all", metav1.LabelSelector{}))).To(Succeed())
		Expect(admin.Create(ctx, denyAll(ns))).To(Succeed())
		closed := explainPod(ctx, ns, "web")
		Expect(closed.code).To(Equal(explain.ExitIsolated), closed.document.Message)
		Expect(closed.document.Policies).To(ConsistOf(And(HaveField("Name", "deny"), HaveField("Ingress", "nothing"), HaveField("Egress", "nothing"))))
		Expect(closed.err).To(BeEmpty())
	})

	It("says Unknown, and what is missing, to somebody who may not list NetworkPolicies", func(ctx SpecContext) {
		ns := namespaceWithPod(ctx)
		Expect(admin.Create(ctx, denyAll(ns))).To(Succeed())
		allow(ctx, ns+"-tenant", ns, readPods)
		got := explainPod(ctx, ns, "web", "--as", ns+"-tenant")
		Expect(got.code).To(Equal(explain.ExitUnknown))
		Expect(got.document.Verdict).To(Equal(v1alpha1.VerdictUnknown))
		Expect(got.document.NotLookedAt).To(ContainElement(And(
			HaveField("Decisive", true), HaveField("Why", ContainSubstring("you may not list networkpolicies.networking.k8s.io in namespace "+ns)))))
	})

	It("tells somebody who may see one namespace what active and latent are about", func(ctx SpecContext) {
		ns := namespaceWithPod(ctx)
		np := denyAll(ns)
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "debug"}},
		}}}}
		Expect(admin.Create(ctx, np)).To(Succeed())
		allow(ctx, ns+"-tenant", ns, readPods,
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}},
			rbacv1.PolicyRule{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"networkpolicies"}, Verbs: []string{"list"}})
		got := explainPod(ctx, ns, "web", "--as", ns+"-tenant")
		Expect(got.code).To(Equal(explain.ExitLeaking), got.document.Message)
		Expect(got.document.LatentWithin).To(Equal(explain.ScopeNamespace))
		Expect(got.document.Ingress.Leaks).To(ConsistOf(HaveField("State", v1alpha1.LeakLatent)))
	})

	It("is an error to ask for a pod that does not exist, or that one may not read", func(ctx SpecContext) {
		ns := namespaceWithPod(ctx)
		missing := explainPod(ctx, ns, "nobody")
		Expect(missing.code).To(Equal(explain.ExitUnknown))
		Expect(missing.err).To(ContainSubstring("there is no Pod nobody in namespace " + ns))
		stranger := explainPod(ctx, ns, "web", "--as", ns+"-stranger")
		Expect(stranger.code).To(Equal(explain.ExitUnknown))
		Expect(stranger.err).To(ContainSubstring("you may not read Pod " + ns + "/web"))
	})

	It("explains a pod that an Incident holds, with what it was before", func(ctx SpecContext) {
		ns := "shop-" + rand.String(6)
		shop, err := scenario.Open(ctx, server, ns)
		Expect(err).NotTo(HaveOccurred())
		Expect(admin.Create(ctx, scenario.Policy(ns))).To(Succeed())
		Expect(shop.Responder.Create(ctx, builder.Incident(ns, "miner", builder.Targets(scenario.Targets()...)))).To(Succeed())
		inc, err := shop.Await(ctx, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(err).NotTo(HaveOccurred())

		var pods corev1.PodList
		Expect(admin.List(ctx, &pods, client.InNamespace(ns), client.HasLabels{v1alpha1.QuarantineLabelPrefix + string(inc.UID)})).To(Succeed())
		Expect(pods.Items).NotTo(BeEmpty())
		detached := 0
		for _, pod := range pods.Items {
			got := explainPod(ctx, ns, pod.Name)
			Expect(got.code).To(Equal(explain.ExitIsolated), got.document.Message)
			Expect(got.document.Quarantine).NotTo(BeNil())
			Expect(got.document.Quarantine.Incidents).To(ConsistOf(And(HaveField("Name", "miner"), HaveField("UID", string(inc.UID)))))
			Expect(got.document.Ingress.Wider).To(BeFalse())
			Expect(got.document.Ingress.Before).To(Equal("any peer on all ports"))
			if got.document.Quarantine.Detached {
				detached++
				Expect(got.document.Quarantine.LabelsBefore).To(HaveKey("app"))
			}
		}
		Expect(detached).To(BeNumerically(">", 0))
	})
})
