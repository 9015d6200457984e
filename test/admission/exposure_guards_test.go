package admission

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	. "cofferdam.dev/cofferdam/test/builder"
)

// line is how the operator writes the labels of held pods.
func line(namespace string, set map[string]string) string {
	var text strings.Builder
	text.WriteString(namespace + " ,")
	for _, k := range slices.Sorted(maps.Keys(set)) {
		text.WriteString(k + "=" + set[k] + ",")
	}
	return text.String()
}

func needs(key string, operator metav1.LabelSelectorOperator, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: values}
}

func all(requirements ...metav1.LabelSelectorRequirement) metav1.LabelSelector {
	return metav1.LabelSelector{MatchExpressions: requirements}
}

// opening is a policy that lets everything in to the pods that it selects.
func opening(selector metav1.LabelSelector) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, GenerateName: "opening-"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: selector,
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{}},
			PolicyTypes: []networkingv1.PolicyType{"Ingress"},
		},
	}
}

var _ = Describe("NetworkPolicies that select quarantined pods", func() {
	const message = "allows traffic of pods that Incident shop/miner holds in quarantine"
	detached := map[string]string{quarantineLabel: "held"}
	attached := map[string]string{quarantineLabel: "held", "app": "web", "example.com/tier": "front", "empty": ""}

	It("take a verb", func(ctx context.Context) {
		held(ctx, "shop/miner", lists{heldLabels: {line(pay, map[string]string{"app": "ledger"}), line(shop, detached)}})
		policy := opening(metav1.LabelSelector{})
		policy.Name, policy.GenerateName = "open", ""
		Expect(tenant.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(And(
			Satisfy(apierrors.IsForbidden),
			refusedWith("NetworkPolicy shop/open "+message+". Leave them out: add to its podSelector a matchExpressions entry with operator DoesNotExist, "+
				"and as key their label under quarantine.cofferdam.dev/; or wait until the Incident has released them"),
			refusedWith("takes the RBAC verb expose on incidents.containment.cofferdam.dev in namespace shop: see ClusterRole cofferdam-overrider"),
		))
		Expect(tenant.Create(ctx, opening(metav1.LabelSelector{}), client.DryRunAll)).To(refusedWith("NetworkPolicy shop/opening-"), "named by the server")
		for _, other := range []somebody{examiner, destroyer} {
			Expect(other.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(refusedWith(message), "another verb does not help")
		}
		Expect(overrider.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(Succeed())
		Expect(operatorAsTenant.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(Succeed())

		policy.Namespace = pay
		Expect(overrider.Create(ctx, policy, client.DryRunAll)).To(refusedWith("in namespace pay"), "the verb counts where the policy is")
		policy.Spec.PodSelector.MatchLabels = detached
		Expect(tenant.Create(ctx, policy, client.DryRunAll)).To(Succeed(), "the labels of pods in another namespace")
	})

	It("do so whatever they allow, and are free when they allow nothing", func(ctx context.Context) {
		held(ctx, "shop/miner", lists{heldLabels: {line(shop, detached)}})
		for what, change := range map[string]func(*networkingv1.NetworkPolicySpec){
			"egress":  func(s *networkingv1.NetworkPolicySpec) { s.Egress = []networkingv1.NetworkPolicyEgressRule{{}} },
			"ingress": func(s *networkingv1.NetworkPolicySpec) { s.Ingress = []networkingv1.NetworkPolicyIngressRule{{}} },
			"rules of no policy type": func(s *networkingv1.NetworkPolicySpec) {
				s.Ingress, s.PolicyTypes = []networkingv1.NetworkPolicyIngressRule{{}}, []networkingv1.PolicyType{"Egress"}
			},
		} {
			policy := opening(metav1.LabelSelector{})
			policy.Spec.Ingress, policy.Spec.PolicyTypes = nil, nil
			change(&policy.Spec)
			Expect(tenant.Create(ctx, policy, client.DryRunAll)).To(refusedWith(message), what)
		}
		denying := opening(metav1.LabelSelector{})
		denying.Spec.Ingress, denying.Spec.PolicyTypes = nil, []networkingv1.PolicyType{"Ingress", "Egress"}
		Expect(tenant.Create(ctx, denying, client.DryRunAll)).To(Succeed())
		denying = opening(metav1.LabelSelector{})
		denying.Spec.Ingress, denying.Spec.Egress = []networkingv1.NetworkPolicyIngressRule{}, []networkingv1.NetworkPolicyEgressRule{}
		Expect(tenant.Create(ctx, denying, client.DryRunAll)).To(Succeed())
	})

	It("may be changed in what is not their spec, or so that they select no such pod", func(ctx context.Context) {
		policy := opening(metav1.LabelSelector{})
		Expect(tenant.Create(ctx, policy)).To(Succeed())
		narrow := opening(metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}})
		Expect(tenant.Create(ctx, narrow)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(tenant.Delete(ctx, narrow)).To(Succeed()) })
		held(ctx, "shop/miner", lists{heldLabels: {line(shop, detached)}})

		labelled := policy.DeepCopy()
		labelled.Labels = map[string]string{"team": "a"}
		Expect(tenant.Update(ctx, labelled, client.DryRunAll)).To(Succeed())
		wider := policy.DeepCopy()
		wider.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
		Expect(tenant.Update(ctx, wider.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(overrider.Update(ctx, wider.DeepCopy(), client.DryRunAll)).To(Succeed())
		Expect(operatorAsTenant.Update(ctx, wider, client.DryRunAll)).To(Succeed())
		carved := policy.DeepCopy()
		carved.Spec.PodSelector = all(needs(quarantineLabel, "DoesNotExist"))
		Expect(tenant.Update(ctx, carved, client.DryRunAll)).To(Succeed())
		emptied := policy.DeepCopy()
		emptied.Spec.Ingress = nil
		Expect(tenant.Update(ctx, emptied, client.DryRunAll)).To(Succeed())

		moved := narrow.DeepCopy()
		moved.Spec.PodSelector = metav1.LabelSelector{}
		Expect(tenant.Update(ctx, moved, client.DryRunAll)).To(refusedWith(message))
		Expect(tenant.Delete(ctx, policy)).To(Succeed(), "a policy that allows may go")
	})

	It("are not told apart where the labels are too many to list", func(ctx context.Context) {
		list := held(ctx, "shop/miner", lists{heldLabels: {line(pay, detached), shop + " *"}})
		Expect(tenant.Create(ctx, opening(metav1.LabelSelector{MatchLabels: map[string]string{"no-such": "label"}}), client.DryRunAll)).To(refusedWith(message))
		elsewhere := opening(metav1.LabelSelector{MatchLabels: map[string]string{"no-such": "label"}})
		elsewhere.Namespace = pay
		Expect(tenant.Create(ctx, elsewhere, client.DryRunAll)).To(Succeed())
		listAgain(ctx, list, lists{heldLabels: {"shopping *", "shop-2 ,app=web,"}})
		Expect(tenant.Create(ctx, opening(metav1.LabelSelector{}), client.DryRunAll)).To(Succeed(), "namespaces whose names begin alike")
		listAgain(ctx, list, lists{heldLabels: {line(shop, nil)}})
		Expect(tenant.Create(ctx, opening(metav1.LabelSelector{}), client.DryRunAll)).To(refusedWith(message), "a pod without labels")
		Expect(tenant.Create(ctx, opening(all(needs("app", "Exists"))), client.DryRunAll)).To(Succeed())
		listAgain(ctx, list, nil)
		Expect(tenant.Create(ctx, opening(metav1.LabelSelector{}), client.DryRunAll)).To(Succeed(), "nothing held")
	})

	It("are found by every kind of selector", func(ctx context.Context) {
		held(ctx, "shop/miner", lists{heldLabels: {line(shop, attached)}})
		for _, selector := range []metav1.LabelSelector{
			{},
			{MatchLabels: map[string]string{"app": "web"}},
			{MatchLabels: map[string]string{"app": "web", "example.com/tier": "front", "empty": ""}},
			all(needs("app", "In", "api", "web")),
			all(needs("app", "NotIn", "api", "we", "webs")),
			all(needs("absent", "NotIn", "web")),
			all(needs("app", "Exists")),
			all(needs("empty", "Exists")),
			all(needs("ap", "DoesNotExist")),
			all(needs("tier", "DoesNotExist"), needs("app", "In", "web"), needs("pp", "DoesNotExist")),
			{MatchLabels: map[string]string{"app": "web"}, MatchExpressions: []metav1.LabelSelectorRequirement{needs("empty", "In", "")}},
		} {
			Expect(tenant.Create(ctx, opening(selector), client.DryRunAll)).To(refusedWith(message), metav1.FormatLabelSelector(&selector))
		}
		for _, selector := range []metav1.LabelSelector{
			{MatchLabels: map[string]string{"app": "api"}},
			{MatchLabels: map[string]string{"app": "we"}},
			{MatchLabels: map[string]string{"pp": "web"}},
			{MatchLabels: map[string]string{"app": "web", "example.com/tier": "back"}},
			all(needs("app", "In", "api", "we", "webs")),
			all(needs("app", "NotIn", "api", "web")),
			all(needs("empty", "NotIn", "")),
			all(needs("ap", "Exists")),
			all(needs("app", "DoesNotExist")),
			all(needs("empty", "DoesNotExist")),
			all(needs("app", "Exists"), needs("app", "NotIn", "web")),
			{MatchLabels: map[string]string{"app": "web"}, MatchExpressions: []metav1.LabelSelectorRequirement{needs("empty", "In", "x")}},
		} {
			Expect(tenant.Create(ctx, opening(selector), client.DryRunAll)).To(Succeed(), metav1.FormatLabelSelector(&selector))
		}
	})

	It("are those that Kubernetes would match, in random samples", func(ctx context.Context) {
		random := rand.New(rand.NewPCG(3, 14))
		sets := []map[string]string{}
		lines := []string{}
		for range 4 {
			set := map[string]string{quarantineLabel: "held"}
			for _, k := range []string{"a", "b", "a/b", "ab"} {
				if random.IntN(2) == 0 {
					set[k] = randomValue(random)
				}
			}
			sets, lines = append(sets, set), append(lines, line(shop, set))
		}
		held(ctx, "shop/miner", lists{heldLabels: lines})
		outcomes := map[bool]int{}
		for range 400 {
			selector := randomSelector(random)
			matcher, err := metav1.LabelSelectorAsSelector(&selector)
			Expect(err).NotTo(HaveOccurred())
			exposes := slices.ContainsFunc(sets, func(set map[string]string) bool { return matcher.Matches(labels.Set(set)) })
			outcomes[exposes]++
			err = tenant.Create(ctx, opening(selector), client.DryRunAll)
			if exposes {
				Expect(err).To(refusedWith(message), metav1.FormatLabelSelector(&selector))
			} else {
				Expect(err).NotTo(HaveOccurred(), metav1.FormatLabelSelector(&selector))
			}
		}
		Expect(outcomes[true]).To(BeNumerically(">", 100))
		Expect(outcomes[false]).To(BeNumerically(">", 100))
	})

	It("are judged within the server's bounds: 64 sets of labels, 20 expressions", func(ctx context.Context) {
		sets := []string{}
		for i := range 64 {
			set := map[string]string{quarantineLabel: "held", "row": fmt.Sprint("r", i)}
			for j := range 20 {
				set[fmt.Sprintf("example.com/%s-%d", Long(20), j)] = Long(40)
			}
			sets = append(sets, line(shop, set))
		}
		held(ctx, "shop/miner", lists{heldLabels: sets})
		expressions := []metav1.LabelSelectorRequirement{}
		for j := range 5 {
			present := fmt.Sprintf("example.com/%s-%d", Long(20), j)
			expressions = append(expressions, needs(present, "Exists"), needs(present, "In", "a", "b", "c", Long(40)),
				needs(present, "NotIn", "a", "b", "c", "d"), needs("example.com/none", "DoesNotExist"))
		}
		Expect(expressions).To(HaveLen(20))
		Expect(tenant.Create(ctx, opening(all(append(expressions, needs("row", "In", "r63"))...)), client.DryRunAll)).To(refusedWith(message))
		Expect(tenant.Create(ctx, opening(all(append(expressions, needs("row", "In", "r64"))...)), client.DryRunAll)).To(Succeed())
		Expect(overrider.Create(ctx, opening(all(append(expressions, needs("row", "In", "r63"))...)), client.DryRunAll)).To(Succeed())
	})

	It("are refused where their selector is too big to judge, and only where pods are held", func(ctx context.Context) {
		sets := []string{}
		for i := range 64 {
			sets = append(sets, line(shop, map[string]string{quarantineLabel: "held", "row": fmt.Sprint("r", i)}))
		}
		held(ctx, "shop/miner", lists{heldLabels: sets})
		values := []string{}
		for i := range 3000 {
			values = append(values, fmt.Sprint("v", i))
		}
		policy := opening(all(needs("row", "In", values...)))
		Expect(tenant.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(refusedWith("cost limit exceeded"))
		Expect(overrider.Create(ctx, policy.DeepCopy(), client.DryRunAll)).To(Succeed())
		policy.Namespace = pay
		Expect(tenant.Create(ctx, policy, client.DryRunAll)).To(Succeed())
	})
})

func randomValue(random *rand.Rand) string {
	return []string{"", "a", "b", "ab"}[random.IntN(4)]
}

func randomSelector(random *rand.Rand) metav1.LabelSelector {
	keys := []string{"a", "b", "a/b", "ab", quarantineLabel}
	selector := metav1.LabelSelector{}
	for range random.IntN(2) {
		selector.MatchLabels = map[string]string{keys[random.IntN(len(keys))]: randomValue(random)}
	}
	for range random.IntN(4) {
		r := needs(keys[random.IntN(len(keys))], []metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}[random.IntN(4)])
		if r.Operator == "In" || r.Operator == "NotIn" {
			for range 1 + random.IntN(3) {
				r.Values = append(r.Values, randomValue(random))
			}
		}
		selector.MatchExpressions = append(selector.MatchExpressions, r)
	}
	return selector
}
