package lifecycle

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/gitops"
	"cofferdam.dev/cofferdam/test/scenario"
)

// manageByGit lets Argo CD apply the web tier, and somebody correct Git once the known-good image runs.
func manageByGit(ctx SpecContext, shop *scenario.Shop) {
	GinkgoHelper()
	r := fromGit(ctx, shop, gitops.Application(gitops.NamespaceOf(shop), "web", "web"))
	r.awaitApplied(ctx)
	DeferCleanup(func(ctx SpecContext) { Expect(r.image(ctx)).To(Equal(builder.GoodImage)) })
	go func() {
		defer GinkgoRecover()
		Eventually(ctx, r.image).WithTimeout(scenario.Patience).Should(Equal(builder.GoodImage))
		r.render(builder.GoodImage)
	}()
}

// The waits that a sample has for people are cut short: how long something is observed, and how old a snapshot has to be.
var _ = DescribeTable("A plan of config/samples brings its application back", func(ctx SpecContext, file string, target v1alpha1.Target, approvals []string) {
	shop := openShop(ctx)
	raw, err := os.ReadFile(filepath.Join(server.Root, "config", "samples", file))
	Expect(err).NotTo(HaveOccurred())
	var plan v1alpha1.RecoveryPlan
	Expect(yaml.UnmarshalStrict(raw, &plan)).To(Succeed())
	plan.Namespace = shop.Namespace
	for i := range plan.Spec.Steps {
		if r := plan.Spec.Steps[i].Release; r != nil && r.ObserveSeconds > 0 {
			r.ObserveSeconds = 1
		}
		if r := plan.Spec.Steps[i].RestoreVolumes; r != nil {
			r.MarginSeconds = nil
		}
		if p := plan.Spec.Steps[i].PauseGitOps; p != nil {
			p.ArgoCDNamespaces = []string{gitops.NamespaceOf(shop)}
			manageByGit(ctx, shop)
		}
	}
	Expect(shop.Admin.Create(ctx, &plan)).To(Succeed())
	_, since, err := shop.BackUp(ctx, "before")
	Expect(err).NotTo(HaveOccurred())
	declare(ctx, shop, "miner", builder.UsePlan(plan.Name), builder.Targets(target), builder.SuspectedSince(since))
	await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
	Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	for _, step := range approvals {
		await(ctx, shop, "miner", "asking for approval of "+step, stepIs(step, v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", step)).To(Succeed())
	}
	inc := await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	Expect(inc.Status.Recovery.Relapses).To(BeEmpty())
},
	Entry("a stateless web tier", "recoveryplan_web.yaml", builder.Target(v1alpha1.TargetDeployment, "", scenario.Web), []string{"sign-off"}),
	Entry("a database in a StatefulSet", "recoveryplan_database.yaml", builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB), []string{"agree", "sign-off"}),
	Entry("a web tier that Argo CD applies", "recoveryplan_gitops.yaml", builder.Target(v1alpha1.TargetDeployment, "", scenario.Web), []string{"sign-off"}),
	Entry("a web tier and its database", "recoveryplan.yaml", builder.Target(v1alpha1.TargetDeployment, "", scenario.Web), []string{"sign-off"}),
)
