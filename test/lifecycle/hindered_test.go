package lifecycle

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A quarantine that keeps failing", func() {
	It("for one pod keeps no evidence of the others from being collected, and the pod is named", func(ctx SpecContext) {
		shop := openShop(ctx)
		stubborn := podsOf(ctx, shop, scenario.Web)[0]
		forbid(ctx, shop, "pods", admissionregistrationv1.Update, "object.metadata.name != '"+stubborn.Name+"' || object.metadata.labels == oldObject.metadata.labels", func() error {
			changed := stubborn.DeepCopy()
			changed.Labels["probe"] = "probe"
			return shop.Admin.Patch(ctx, changed, client.MergeFrom(&stubborn), client.DryRunAll)
		})
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "collecting all but one pod's evidence", collectedBut(stubborn.Name))
		Expect(scenario.Is(v1alpha1.ConditionContained)(inc)).To(BeFalse())
		for _, kind := range []string{v1alpha1.ConditionContained, v1alpha1.ConditionStalled} {
			Expect(apimeta.FindStatusCondition(inc.Status.Conditions, kind).Message).To(ContainSubstring(shop.Namespace+"/"+stubborn.Name), kind)
		}

		By("keeping back what would destroy something")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		inc = await(ctx, shop, "miner", "asked to close", func(inc *v1alpha1.Incident) bool { return inc.Spec.Goal == v1alpha1.GoalClose })
		Expect(inc.Status.ReleasedAt.IsZero()).To(BeTrue())
	})

	It("for a namespace holds up only the pods of that namespace", func(ctx SpecContext) {
		shop, other := openShop(ctx), openShop(ctx)
		Expect(shop.Admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: other.Namespace, Name: "guest"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cofferdam-responder"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: shop.ResponderName}},
		})).To(Succeed())
		lift := forbid(ctx, other, "networkpolicies", admissionregistrationv1.Create, "false", func() error {
			return shop.Admin.Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: other.Namespace, Name: "probe"}}, client.DryRunAll)
		})
		Eventually(ctx, func() error {
			return shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "miner",
				builder.Targets(append(scenario.Targets(), builder.Target(v1alpha1.TargetDeployment, other.Namespace, scenario.Web))...)))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		inc := await(ctx, shop, "miner", "collecting the evidence of one namespace", func(inc *v1alpha1.Incident) bool {
			snapshots := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
			return len(snapshots) == 1 && snapshots[0].State == v1alpha1.EvidenceCollected
		})
		for _, p := range inc.Status.Pods {
			if p.Namespace == other.Namespace {
				Expect(p.Handling).To(Equal(v1alpha1.HandlingPending), "without the policy the pod keeps its labels")
				continue
			}
			Expect(p.Verdict).To(Equal(v1alpha1.VerdictIsolated))
		}
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionStalled).Message).To(ContainSubstring("NetworkPolicy " + other.Namespace + "/"))

		By("going on when the policy can be created")
		lift()
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
	})
})

// collectedBut reports whether a snapshot and the logs of every pod but one are safe.
func collectedBut(name string) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool {
		snapshots := evidenceOf(inc, v1alpha1.EvidenceVolumeSnapshot)
		if len(snapshots) != 1 || snapshots[0].State != v1alpha1.EvidenceCollected {
			return false
		}
		for _, p := range inc.Status.Pods {
			if p.Name != name && p.Handling == v1alpha1.HandlingPending {
				return false
			}
		}
		return true
	}
}

// forbid makes admission refuse what the rule is false for, in one namespace, and waits until it does. It returns what ends that.
func forbid(ctx context.Context, shop *scenario.Shop, resource string, op admissionregistrationv1.OperationType, rule string, refused func() error) func() {
	GinkgoHelper()
	name := "hinder-" + shop.Namespace
	group := map[string]string{"networkpolicies": "networking.k8s.io", "volumesnapshots": "snapshot.storage.k8s.io"}[resource]
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: shop.Namespace}},
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{op},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}},
				}}},
			},
			Validations: []admissionregistrationv1.Validation{{Expression: rule, Message: "hindered"}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	Expect(shop.Admin.Create(ctx, policy)).To(Succeed())
	Expect(shop.Admin.Create(ctx, binding)).To(Succeed())
	lift := func(ctx context.Context) {
		for _, obj := range []client.Object{binding, policy} {
			Expect(client.IgnoreNotFound(shop.Admin.Delete(ctx, obj))).To(Succeed())
		}
	}
	DeferCleanup(lift)
	Eventually(ctx, refused).WithTimeout(scenario.Patience).Should(MatchError(ContainSubstring("hindered")))
	return func() { lift(ctx) }
}
