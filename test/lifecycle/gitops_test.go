package lifecycle

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/gitops"
	"cofferdam.dev/cofferdam/test/scenario"
)

// repository is a shop whose web tier is applied from Git.
type repository struct {
	*scenario.Shop
	*gitops.Simulation

	ns string
}

// fromGit lets the web tier of a shop be applied from Git, which renders the compromised image, by simulated controllers, in a namespace in which the responder may patch managers.
func fromGit(ctx context.Context, shop *scenario.Shop, managers ...*unstructured.Unstructured) *repository {
	GinkgoHelper()
	simulation, err := gitops.Prepare(ctx, shop, managers...)
	Expect(err).NotTo(HaveOccurred())
	r := &repository{Shop: shop, ns: simulation.Namespace, Simulation: simulation}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(running) }()
	DeferCleanup(func() {
		stop()
		Expect(<-ended).To(Succeed())
	})
	return r
}

// render commits the image of the web tier.
func (r *repository) render(image string) {
	r.Git.Commit("web", gitops.Deployment(r.Shop.Namespace, scenario.Web, image))
}

// awaitApplied waits until the web tier carries the mark of the manager.
func (r *repository) awaitApplied(ctx context.Context) {
	GinkgoHelper()
	Expect(gitops.AwaitApplied(ctx, r.Shop)).To(Succeed())
}

func (r *repository) web(ctx context.Context) *appsv1.Deployment {
	GinkgoHelper()
	var d appsv1.Deployment
	Expect(r.Admin.Get(ctx, client.ObjectKey{Namespace: r.Shop.Namespace, Name: scenario.Web}, &d)).To(Succeed())
	return &d
}

func (r *repository) image(ctx context.Context) string {
	GinkgoHelper()
	return r.web(ctx).Spec.Template.Spec.Containers[0].Image
}

// manager reads a manager.
func (r *repository) manager(ctx context.Context, like *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(like.GroupVersionKind())
	Expect(r.Admin.Get(ctx, client.ObjectKeyFromObject(like), out)).To(Succeed())
	return out
}

// phase is how far the operation of an Application has come.
func (r *repository) phase(ctx context.Context, app *unstructured.Unstructured) string {
	GinkgoHelper()
	phase, _, _ := unstructured.NestedString(r.manager(ctx, app).Object, "status", "operationState", "phase")
	return phase
}

// edit changes a manager as a person does.
func (r *repository) edit(ctx context.Context, like *unstructured.Unstructured, patch string) {
	GinkgoHelper()
	Expect(r.Admin.Patch(ctx, like.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner("somebody"))).To(Succeed())
}

// recover declares an Incident whose plan pauses, rolls back, and resumes.
func (r *repository) recover(ctx context.Context, changes ...func(*v1alpha1.RecoveryPlan)) {
	GinkgoHelper()
	plan := gitops.Plan(r.Shop)
	for _, change := range changes {
		change(plan)
	}
	Expect(r.Admin.Create(ctx, plan)).To(Succeed())
	declare(ctx, r.Shop, "miner", builder.UsePlan("gitops"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
	await(ctx, r.Shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
	Expect(r.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
}

// says waits until a step says something.
func (r *repository) says(ctx context.Context, step, what string) *v1alpha1.Incident {
	GinkgoHelper()
	return await(ctx, r.Shop, "miner", "saying in step "+step+": "+what, func(inc *v1alpha1.Incident) bool {
		return strings.Contains(statusOf(inc, step).Message, what)
	})
}

func statusOf(inc *v1alpha1.Incident, step string) v1alpha1.StepStatus {
	if inc.Status.Recovery != nil {
		for _, s := range inc.Status.Recovery.Steps {
			if s.Name == step {
				return s
			}
		}
	}
	return v1alpha1.StepStatus{}
}

func automated(app *unstructured.Unstructured) map[string]any {
	out, _, _ := unstructured.NestedMap(app.Object, "spec", "syncPolicy", "automated")
	return out
}

var _ = Describe("A workload that is applied from Git", func() {
	It("is put back by simulated controllers as it is by the real ones", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		good := client.RawPatch(types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"`+builder.GoodImage+`"}]}}}}`))
		Expect(shop.Admin.Patch(ctx, r.web(ctx), good)).To(Succeed())
		Eventually(ctx, r.image).WithTimeout(scenario.Patience).Should(Equal(scenario.BadImage))

		r.edit(ctx, app, `{"spec":{"syncPolicy":{"automated":{"enabled":false}}}}`)
		Expect(shop.Admin.Patch(ctx, r.web(ctx), good)).To(Succeed())
		Eventually(ctx, func() string {
			s, _, _ := unstructured.NestedString(r.manager(ctx, app).Object, "status", "sync", "status")
			return s
		}).WithTimeout(scenario.Patience).Should(Equal("OutOfSync"))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
	})

	It("by Argo CD stays rolled back, and Argo CD is resumed once Git renders the known-good image", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.recover(ctx)
		inc := r.says(ctx, "resume", "renders Deployment web otherwise than with the known-good images (OutOfSync)")
		Expect(statusOf(inc, "pause").Message).To(ContainSubstring("Application " + r.ns + "/web is paused until"))
		Expect(scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonPausedByLease)(inc)).To(BeTrue())
		paused := r.manager(ctx, app)
		Expect(automated(paused)).To(Equal(map[string]any{"prune": true, "selfHeal": true, "enabled": false}))
		Expect(paused.GetLabels()).To(HaveKeyWithValue(v1alpha1.GitOpsPausedLabel, string(inc.UID)))
		Expect(paused.GetAnnotations()[v1alpha1.GitOpsLeaseAnnotation]).To(ContainSubstring(`"incident":"` + shop.Namespace + `/miner"`))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))

		By("correcting Git")
		r.render(builder.GoodImage)
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		resumed := r.manager(ctx, app)
		Expect(automated(resumed)).To(Equal(map[string]any{"prune": true, "selfHeal": true}))
		Expect(resumed.GetLabels()).NotTo(HaveKey(v1alpha1.GitOpsPausedLabel))
		Expect(resumed.GetAnnotations()).NotTo(HaveKey(v1alpha1.GitOpsLeaseAnnotation))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
		Expect(apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionGitOpsPaused).Reason).To(Equal(v1alpha1.ReasonResumed))
	})

	It("by Flux stays rolled back, though the Kustomization above says suspend: false, and is resumed when somebody overrides", func(ctx SpecContext) {
		shop := openShop(ctx)
		child := gitops.Kustomization(gitops.NamespaceOf(shop), "web", "web")
		root := gitops.Kustomization(gitops.NamespaceOf(shop), "root", "root")
		r := fromGit(ctx, shop, root)
		said := child.DeepCopy()
		Expect(unstructured.SetNestedField(said.Object, false, "spec", "suspend")).To(Succeed())
		r.Git.Commit("root", said)
		r.awaitApplied(ctx)
		r.recover(ctx)
		r.says(ctx, "resume", "Kustomization does not compare the cluster with its source while it is suspended")
		suspended := r.manager(ctx, child)
		Expect(suspended.Object["spec"]).To(HaveKeyWithValue("suspend", true))
		Expect(r.manager(ctx, root).Object["spec"]).NotTo(HaveKey("suspend"), "what is above goes on with everything else")

		By("correcting Git, and overriding")
		r.render(builder.GoodImage)
		Expect(shop.Intervene(ctx, "miner", "resume", v1alpha1.InterventionOverride)).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(r.manager(ctx, child).Object["spec"]).To(HaveKeyWithValue("suspend", false))
		Expect(r.manager(ctx, child).GetLabels()).NotTo(HaveKey("kustomize.toolkit.fluxcd.io/reconcile"))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
	})

	It("by an Application of an ApplicationSet of an app of apps stays rolled back, and all three get back what they had, from the bottom up", func(ctx SpecContext) {
		shop := openShop(ctx)
		ns := gitops.NamespaceOf(shop)
		root, set, app := gitops.Application(ns, "root", "root"), gitops.ApplicationSet(ns, "tier", "web", "web"), gitops.Application(ns, "web", "web")
		r := fromGit(ctx, shop, root)
		r.Git.Commit("root", set)
		r.awaitApplied(ctx)
		r.recover(ctx)
		inc := r.says(ctx, "resume", "renders Deployment web otherwise")
		var order []string
		for _, p := range inc.Status.Recovery.Pauses {
			order = append(order, p.Object.Kind+" "+p.Object.Name)
		}
		Expect(order).To(Equal([]string{"Application root", "ApplicationSet tier", "Application web"}))
		Expect(automated(r.manager(ctx, app))).To(HaveKeyWithValue("enabled", false))
		Expect(r.manager(ctx, app).GetLabels()).To(HaveKey(v1alpha1.GitOpsPausedLabel), "the ApplicationSet leaves our marks alone")

		r.render(builder.GoodImage)
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		for _, m := range []*unstructured.Unstructured{root, app} {
			Expect(automated(r.manager(ctx, m))).To(Equal(map[string]any{"prune": true, "selfHeal": true}))
		}
		Expect(r.manager(ctx, set).Object["spec"]).NotTo(HaveKey("ignoreApplicationDifferences"))
		var resumed []string
		for _, e := range inc.Status.Journal {
			if e.Action == v1alpha1.ActionResumeGitOps {
				resumed = append(resumed, e.Object.Kind+" "+e.Object.Name)
			}
		}
		Expect(resumed).To(Equal([]string{"Application web", "ApplicationSet tier", "Application root"}))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
	})

	It("is not rolled back before the operation in flight has ended, by a manager in which Git turns automated sync on", func(ctx SpecContext) {
		shop := openShop(ctx)
		ns := gitops.NamespaceOf(shop)
		root, app := gitops.Application(ns, "root", "root"), gitops.Application(ns, "web", "web")
		Expect(unstructured.SetNestedField(app.Object, true, "spec", "syncPolicy", "automated", "enabled")).To(Succeed())
		r := fromGit(ctx, shop, root)
		r.Git.Commit("root", app)
		r.awaitApplied(ctx)
		r.Hold("web", true)
		r.render(strings.Replace(scenario.BadImage, ":3.10@", "@", 1))
		Eventually(ctx, func() string { return r.phase(ctx, app) }).WithTimeout(scenario.Patience).Should(Equal("Running"))
		r.recover(ctx)
		inc := r.says(ctx, "pause", "web is paused, and its operation is Running: it is waited for")
		Expect(statusOf(inc, "roll-back").State).To(Equal(v1alpha1.StepPending))
		Expect(automated(r.manager(ctx, app))).To(HaveKeyWithValue("enabled", false), "the root, which says true, is paused first")

		r.Hold("web", false)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
		r.render(builder.GoodImage)
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(automated(r.manager(ctx, app))).To(HaveKeyWithValue("enabled", true))
	})

	It("is not touched while somebody resumes its manager again and again, and goes on once it is paused", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.recover(ctx, func(plan *v1alpha1.RecoveryPlan) {
			plan.Spec.Steps = append(plan.Spec.Steps, builder.Approve("agree", "pause"))
			plan.Spec.Steps[1].DependsOn = []string{"agree"}
		})
		await(ctx, shop, "miner", "asking", stepIs("agree", v1alpha1.StepRunning))
		By("resuming it, and all that the operator pauses again")
		enable := `{"spec":{"syncPolicy":{"automated":{"enabled":true}}}}`
		r.edit(ctx, app, enable)
		inc := await(ctx, shop, "miner", "paused again", func(inc *v1alpha1.Incident) bool {
			p := inc.Status.Recovery.Pauses[0]
			return p.Undone == 1 && p.State == v1alpha1.GitOpsPaused
		})
		Expect(inc.Status.Recovery.Pauses[0].Message).To(ContainSubstring("field manager somebody has changed it last"))
		Expect(inc.Status.Timeline).To(ContainElement(HaveField("Reason", "GitOpsPauseUndone")))
		await(ctx, shop, "miner", "given up", func(inc *v1alpha1.Incident) bool {
			r.edit(ctx, app, enable)
			return inc.Status.Recovery.Pauses[0].Undone > 3
		})
		Expect(shop.Approve(ctx, "miner", "agree")).To(Succeed())
		inc = r.says(ctx, "roll-back", "was resumed 4 times though the recovery is under way, and is not paused once more")
		Expect(scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonPauseUndone)(inc)).To(BeTrue())
		Expect(r.image(ctx)).To(Equal(scenario.BadImage))

		By("pausing it by hand")
		r.edit(ctx, app, `{"spec":{"syncPolicy":{"automated":{"enabled":false}}}}`)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
	})

	It("gets its manager back as it was when pausing is undone, and is recovered when that is retried", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.Hold("web", true)
		r.render(strings.Replace(scenario.BadImage, ":3.10@", "@", 1))
		Eventually(ctx, func() string { return r.phase(ctx, app) }).WithTimeout(scenario.Patience).Should(Equal("Running"))
		r.recover(ctx)
		r.says(ctx, "pause", "its operation is Running: it is waited for")
		Expect(shop.Intervene(ctx, "miner", "pause", v1alpha1.InterventionUndo)).To(Succeed())
		inc := await(ctx, shop, "miner", "undone", stepIs("pause", v1alpha1.StepUndone))
		Expect(scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonResumed)(inc)).To(BeTrue(), scenario.Conditions(inc))
		Expect(automated(r.manager(ctx, app))).To(Equal(map[string]any{"prune": true, "selfHeal": true}))
		Expect(r.manager(ctx, app).GetLabels()).NotTo(HaveKey(v1alpha1.GitOpsPausedLabel))

		r.Hold("web", false)
		Expect(shop.Intervene(ctx, "miner", "pause", v1alpha1.InterventionRetry)).To(Succeed())
		r.says(ctx, "resume", "renders Deployment web otherwise")
		r.render(builder.GoodImage)
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(automated(r.manager(ctx, app))).To(Equal(map[string]any{"prune": true, "selfHeal": true}))
	})

	It("is shown, in a dry run, with every manager that would be paused, and nothing is written", func(ctx SpecContext) {
		shop := openShop(ctx)
		ns := gitops.NamespaceOf(shop)
		root, app := gitops.Application(ns, "root", "root"), gitops.Application(ns, "web", "web")
		r := fromGit(ctx, shop, root)
		r.Git.Commit("root", app)
		r.awaitApplied(ctx)
		Expect(shop.Admin.Create(ctx, gitops.Plan(shop))).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan("gitops"), builder.Mode(v1alpha1.ModeDryRun), builder.Goal(v1alpha1.GoalRecover),
			builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		inc := await(ctx, shop, "miner", "planned", scenario.Is(v1alpha1.ConditionReady))
		var planned []string
		for _, a := range inc.Status.PlannedActions {
			if a.Object.Kind == "Application" {
				planned = append(planned, a.Verb+" "+a.Object.Name)
			}
		}
		Expect(planned).To(Equal([]string{"patch root", "patch web"}))
		Expect(recorder.Requests("/namespaces/" + ns + "/")).To(BeEmpty())
	})

	It("by what somebody else has paused is rolled back, and stays paused", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.edit(ctx, app, `{"spec":{"syncPolicy":{"automated":{"enabled":false}}}}`)
		r.recover(ctx)
		inc := await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(statusOf(inc, "pause").Message).To(ContainSubstring("is paused already, and stays so"))
		Expect(inc.Status.Recovery.Pauses).To(ConsistOf(And(HaveField("Borrowed", HaveValue(BeTrue())), HaveField("State", v1alpha1.GitOpsResumed))))
		Expect(automated(r.manager(ctx, app))).To(HaveKeyWithValue("enabled", false))
		Expect(r.manager(ctx, app).GetLabels()).NotTo(HaveKey(v1alpha1.GitOpsPausedLabel))
		Expect(r.image(ctx)).To(Equal(builder.GoodImage))
	})

	It("is not rolled back while its manager is missing, or may not be paused by the declarer or by the step", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "tier", "web")
		r := fromGit(ctx, shop)
		tracked := `{"metadata":{"annotations":{"argocd.argoproj.io/tracking-id":"tier:apps/Deployment:` + shop.Namespace + `/web"}}}`
		Expect(shop.Admin.Patch(ctx, r.web(ctx), client.RawPatch(types.MergePatchType, []byte(tracked)))).To(Succeed())
		Expect(shop.Admin.Delete(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: "pause"}})).To(Succeed())
		r.recover(ctx)
		r.says(ctx, "pause", "Deployment web says that Application tier manages it, and there is none")
		Eventually(ctx, func(g Gomega) {
			var plan v1alpha1.RecoveryPlan
			g.Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: "gitops"}, &plan)).To(Succeed())
			g.Expect(plan.Status.Conditions).To(ContainElement(SatisfyAll(HaveField("Reason", v1alpha1.ReasonUnpausable), HaveField("Message", ContainSubstring("and there is none")))))
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(shop.Admin.Create(ctx, app.DeepCopy())).To(Succeed())
		inc := r.says(ctx, "pause", shop.ResponderName+", who declared this Incident, may not patch applications.argoproj.io in namespace "+r.ns)
		Expect(statusOf(inc, "roll-back").State).To(Equal(v1alpha1.StepPending))
		Expect(automated(r.manager(ctx, app))).NotTo(HaveKey("enabled"))
	})

	It("is paused again when Git, against somebody's word, brings the compromised image back", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.recover(ctx)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(shop.Intervene(ctx, "miner", "resume", v1alpha1.InterventionOverride)).To(Succeed())
		inc := await(ctx, shop, "miner", "failed", stepIs("resume", v1alpha1.StepFailed))
		Expect(statusOf(inc, "resume").Message).To(ContainSubstring("Deployment web has other images than the known-good ones after what applies it was resumed"))
		Expect(statusOf(inc, "resume").Override).To(ContainSubstring("as agreed on the bridge"))
		await(ctx, shop, "miner", "paused again", scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonPausedByLease))
		Eventually(ctx, func() map[string]any { return automated(r.manager(ctx, app)) }).WithTimeout(scenario.Patience).Should(HaveKeyWithValue("enabled", false))
	})

	It("raises the alarm when its manager is still paused after the Incident is closed, and when that is gone", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.recover(ctx)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		await(ctx, shop, "miner", "asking", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		inc := await(ctx, shop, "miner", "let go", scenario.LetGo)
		Expect(scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonLeaseOutlived)(inc)).To(BeTrue(), scenario.Conditions(inc))
		Expect(inc.Status.Timeline).To(ContainElement(HaveField("Reason", "GitOpsPaused_LeaseOutlived")))
		Expect(outlived(ctx, r)).To(BeEmpty(), "the Incident says it itself")
		Expect(shop.Admin.Delete(ctx, inc)).To(Succeed())
		Eventually(ctx, func() []string { return outlived(ctx, r) }).WithTimeout(scenario.Patience).Should(ContainElement(ContainSubstring("by Incident " + shop.Namespace + "/miner, which does not exist any more")))
	})

	It("is found resumed by people after the Incident was closed", func(ctx SpecContext) {
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		r.awaitApplied(ctx)
		r.recover(ctx)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		await(ctx, shop, "miner", "asking", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		await(ctx, shop, "miner", "with an alarm", scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonLeaseOutlived))
		r.edit(ctx, app, `{"metadata":{"labels":{"`+v1alpha1.GitOpsPausedLabel+`":null}},"spec":{"syncPolicy":{"automated":{"enabled":null}}}}`)
		await(ctx, shop, "miner", "resumed", scenario.HasReason(v1alpha1.ConditionGitOpsPaused, v1alpha1.ReasonResumed))
	})

	It("is paused by taking automated sync away where the server does not know how to turn it off", Serial, func(ctx SpecContext) {
		Expect(server.ServeApplications(ctx, false)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(server.ServeApplications(ctx, true)).To(Succeed()) })
		shop := openShop(ctx)
		app := gitops.Application(gitops.NamespaceOf(shop), "web", "web")
		r := fromGit(ctx, shop, app)
		Eventually(ctx, func() map[string]any {
			would := r.manager(ctx, app)
			Expect(shop.Admin.Patch(ctx, would, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"syncPolicy":{"automated":{"enabled":false}}}}`)), client.DryRunAll)).To(Succeed())
			return automated(would)
		}).WithTimeout(scenario.Patience).ShouldNot(HaveKey("enabled"))
		r.awaitApplied(ctx)
		r.recover(ctx)
		r.says(ctx, "resume", "renders Deployment web otherwise")
		Expect(automated(r.manager(ctx, app))).To(BeNil())
		r.render(builder.GoodImage)
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(automated(r.manager(ctx, app))).To(Equal(map[string]any{"prune": true, "selfHeal": true}))
	})
})

// outlived looks for leases that have outlived their Incidents, with the operator's own permissions, and returns what it says about those of the repository.
func outlived(ctx context.Context, r *repository) []string {
	GinkgoHelper()
	live, err := client.New(server.OperatorConfig(), client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	heard := &listener{namespace: r.ns}
	leases := &recovery.Leases{Live: live, Mapper: live.RESTMapper(), Recorder: heard}
	Expect(leases.Look(ctx)).To(Succeed())
	return heard.notes
}

// listener hears the Events about objects of one namespace.
type listener struct {
	namespace string
	notes     []string
}

func (l *listener) Eventf(regarding, _ runtime.Object, _, _, _, note string, args ...any) {
	if object, err := apimeta.Accessor(regarding); err == nil && object.GetNamespace() == l.namespace {
		l.notes = append(l.notes, fmt.Sprintf(note, args...))
	}
}
