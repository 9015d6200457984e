package lifecycle

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/guard"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

// editedGuard is the policy, and the binding, that the specs edit: no other spec of the suite depends on it.
const editedGuard = "cofferdam-times"

var _ = Describe("The admission guard", func() {
	var admin client.Client
	checker := &guard.Checker{} // one for all, as the operator has: what it remembers must not hide what changes
	BeforeEach(func(ctx SpecContext) {
		var err error
		admin, err = client.New(server.RESTConfig, client.Options{Scheme: controllers.NewScheme()})
		Expect(err).NotTo(HaveOccurred())
		awaitTypeChecking(ctx, admin)
		Expect(checker.Check(ctx, admin)).To(BeEmpty(), "nothing is wrong with a guard that was just installed")
	})

	It("is missing when a binding is deleted, and whole when it is applied again", func(ctx SpecContext) {
		DeferCleanup(restoreGuard, admin)
		Expect(admin.Delete(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: editedGuard}})).To(Succeed())
		Expect(checker.Check(ctx, admin)).To(ConsistOf(
			guard.Finding{Kind: "ValidatingAdmissionPolicyBinding", Name: editedGuard, Problem: guard.Missing},
		))
		applyGuard(ctx)
		Expect(checker.Check(ctx, admin)).To(BeEmpty())
	})

	It("is missing while a policy is being deleted", func(ctx SpecContext) {
		DeferCleanup(restoreGuard, admin)
		hold := func(ctx context.Context, finalizers ...string) {
			editPolicyOfGuard(ctx, admin, func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { p.Finalizers = finalizers })
		}
		hold(ctx, "example.com/wait")
		DeferCleanup(func(ctx SpecContext) { hold(ctx) })
		Expect(admin.Delete(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: editedGuard}})).To(Succeed())
		Expect(checker.Check(ctx, admin)).To(ConsistOf(
			guard.Finding{Kind: "ValidatingAdmissionPolicy", Name: editedGuard, Problem: guard.Missing, Detail: "is being deleted"},
		))
	})

	DescribeTable("is changed", func(ctx SpecContext, edit func(context.Context, client.Client), kind, field, manager string) {
		DeferCleanup(restoreGuard, admin)
		before := time.Now().Truncate(time.Second) // managedFields counts in seconds
		edit(ctx, admin)
		findings, err := checker.Check(ctx, admin)
		Expect(err).NotTo(HaveOccurred())
		Expect(findings).To(HaveLen(1))
		Expect(findings[0]).To(And(HaveField("Kind", kind), HaveField("Name", editedGuard), HaveField("Problem", guard.Changed),
			HaveField("Field", field), HaveField("Manager", manager)))
		if manager == "" {
			Expect(findings[0].At).To(BeZero())
		} else {
			Expect(findings[0].At).To(And(BeTemporally(">=", before), BeTemporally("<=", time.Now())))
		}
		By("following its advice")
		Expect(findings[0].String()).To(ContainSubstring("kubectl replace -k config/guard"))
		_, err = server.KubectlContext(ctx, "replace", "-k", "config/guard")
		Expect(err).NotTo(HaveOccurred())
		Expect(checker.Check(ctx, admin)).To(BeEmpty())
	},
		// An update that only takes away is not recorded: without this the installer would be accused.
		Entry("when a binding only audits", withActions("Audit"), "ValidatingAdmissionPolicyBinding", "spec.validationActions", ""),
		Entry("when a binding warns instead", withActions("Audit", "Warn"), "ValidatingAdmissionPolicyBinding", "spec.validationActions", "tamperer"),
		Entry("when a condition lets every request through", withCondition("false"), "ValidatingAdmissionPolicy", "spec.matchConditions", "tamperer"),
		Entry("when the rules are narrowed", narrowRules, "ValidatingAdmissionPolicy", "spec.matchConstraints.resourceRules[0].operations", "tamperer"),
		Entry("when a namespace is excepted", exceptNamespaces, "ValidatingAdmissionPolicyBinding", "spec.matchResources", "tamperer"),
		Entry("when one expression is changed", changeExpression, "ValidatingAdmissionPolicy", "spec.validations[1].expression", "tamperer"),
	)

	It("does not work when the API server finds a mistake in an expression", func(ctx SpecContext) {
		broken := guard.Policy{
			Policy: admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "cofferdam-broken"},
				Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
					MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
						RuleWithOperations: admissionregistrationv1.RuleWithOperations{
							Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Delete},
							Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
						},
					}}},
					Validations: []admissionregistrationv1.Validation{{Expression: "true"}, {Expression: "oldObject.spec.nonsense > 1"}},
				}},
			// It is in effect for nobody.
			Binding: admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "cofferdam-broken"},
				Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
					PolicyName:        "cofferdam-nobody",
					ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Audit},
				}},
		}
		for _, obj := range []client.Object{broken.Policy.DeepCopy(), broken.Binding.DeepCopy()} {
			Expect(admin.Create(ctx, obj)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, obj)).To(Succeed()) })
		}
		awaitTypeChecking(ctx, admin)
		Expect(checker.Check(ctx, admin)).To(BeEmpty(), "a policy that was not shipped is ignored")
		policies, bindings := guardsOf(ctx, admin)
		findings := guard.Examine([]guard.Policy{broken}, policies, bindings)
		Expect(findings).To(HaveLen(1))
		Expect(findings[0]).To(And(HaveField("Problem", guard.NotWorking), HaveField("Name", "cofferdam-broken"),
			HaveField("Field", "spec.validations[1].expression"), HaveField("Detail", ContainSubstring("undefined field 'nonsense'"))))
	})
})

// tampering marks what a spec writes in metadata.managedFields.
const tampering = client.FieldOwner("tamperer")

func editPolicyOfGuard(ctx context.Context, admin client.Client, edit func(*admissionregistrationv1.ValidatingAdmissionPolicy)) {
	GinkgoHelper()
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	Expect(admin.Get(ctx, client.ObjectKey{Name: editedGuard}, &policy)).To(Succeed())
	edit(&policy)
	Expect(admin.Update(ctx, &policy, tampering)).To(Succeed())
}

func editBindingOfGuard(ctx context.Context, admin client.Client, edit func(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)) {
	GinkgoHelper()
	var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
	Expect(admin.Get(ctx, client.ObjectKey{Name: editedGuard}, &binding)).To(Succeed())
	edit(&binding)
	Expect(admin.Update(ctx, &binding, tampering)).To(Succeed())
}

func withActions(actions ...admissionregistrationv1.ValidationAction) func(context.Context, client.Client) {
	return func(ctx context.Context, admin client.Client) {
		GinkgoHelper()
		editBindingOfGuard(ctx, admin, func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) { b.Spec.ValidationActions = actions })
	}
}

func withCondition(expression string) func(context.Context, client.Client) {
	return func(ctx context.Context, admin client.Client) {
		GinkgoHelper()
		editPolicyOfGuard(ctx, admin, func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
			p.Spec.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "never", Expression: expression}}
		})
	}
}

func narrowRules(ctx context.Context, admin client.Client) {
	GinkgoHelper()
	editPolicyOfGuard(ctx, admin, func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
		p.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Update}
	})
}

func exceptNamespaces(ctx context.Context, admin client.Client) {
	GinkgoHelper()
	editBindingOfGuard(ctx, admin, func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
		b.Spec.MatchResources = &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"guarded": "yes"}}}
	})
}

func changeExpression(ctx context.Context, admin client.Client) {
	GinkgoHelper()
	editPolicyOfGuard(ctx, admin, func(p *admissionregistrationv1.ValidatingAdmissionPolicy) { p.Spec.Validations[1].Expression = "true" })
}

func applyGuard(ctx context.Context) {
	GinkgoHelper()
	_, err := server.KubectlContext(ctx, "apply", "--server-side", "--force-conflicts", "-k", "config/guard")
	Expect(err).NotTo(HaveOccurred())
}

// restoreGuard puts the guard back for the specs that follow, and waits until it is in effect. New objects, because "kubectl apply" would leave what a spec added.
func restoreGuard(ctx SpecContext, admin client.Client) {
	for _, obj := range []client.Object{
		&admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: editedGuard}},
		&admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: editedGuard}},
	} {
		Expect(client.IgnoreNotFound(admin.Delete(ctx, obj))).To(Succeed())
	}
	applyGuard(ctx)
	kubernetes, err := server.Client()
	Expect(err).NotTo(HaveOccurred())
	Expect(cluster.WaitForGuards(ctx, kubernetes)).To(Succeed())
}

// awaitTypeChecking returns when the API server's type checking has seen every policy.
func awaitTypeChecking(ctx context.Context, admin client.Client) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		var policies admissionregistrationv1.ValidatingAdmissionPolicyList
		g.Expect(admin.List(ctx, &policies)).To(Succeed())
		for _, p := range policies.Items {
			g.Expect(p.Status.TypeChecking).NotTo(BeNil(), p.Name)
			g.Expect(p.Status.ObservedGeneration).To(Equal(p.Generation), p.Name)
		}
	}).WithTimeout(scenario.Patience).Should(Succeed())
}

func guardsOf(ctx context.Context, admin client.Client) ([]admissionregistrationv1.ValidatingAdmissionPolicy, []admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
	GinkgoHelper()
	var policies admissionregistrationv1.ValidatingAdmissionPolicyList
	Expect(admin.List(ctx, &policies)).To(Succeed())
	var bindings admissionregistrationv1.ValidatingAdmissionPolicyBindingList
	Expect(admin.List(ctx, &bindings)).To(Succeed())
	return policies.Items, bindings.Items
}
