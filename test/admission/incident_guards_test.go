package admission

import (
	"context"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/guard"
	. "cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

// declared makes and stores an Incident of the lead's in namespace shop.
func declared(ctx context.Context, changes ...func(*incident)) *incident {
	GinkgoHelper()
	object := Incident(shop, fresh(), changes...)
	Expect(lead.Create(ctx, object)).To(Succeed())
	return object
}

// recovering is an Incident whose recovery has begun, with steps of these names.
func recovering(ctx context.Context, steps ...string) *incident {
	GinkgoHelper()
	object := declared(ctx)
	begin(ctx, object, steps...)
	return object
}

// begin lets the recovery of the Incident have begun, with steps of these names.
func begin(ctx context.Context, object *incident, steps ...string) {
	GinkgoHelper()
	object.Status.Recovery = &containmentv1alpha1.RecoveryStatus{PlanName: "plan", PlanUID: "uid", PlanDigest: "sha256:1"}
	for _, name := range steps {
		object.Status.Recovery.Plan.Steps = append(object.Status.Recovery.Plan.Steps, Plan(shop, "plan", Approve(name)).Spec.Steps...)
		object.Status.Recovery.Steps = append(object.Status.Recovery.Steps, containmentv1alpha1.StepStatus{Name: name, State: containmentv1alpha1.StepPending})
	}
	Expect(operator.Status().Update(ctx, object)).To(Succeed())
}

// changed is a changed copy.
func changed(object *incident, changes ...func(*incident)) *incident {
	object = object.DeepCopy()
	for _, change := range changes {
		change(object)
	}
	return object
}

func hold(object *incident) {
	controllerutil.AddFinalizer(object, containmentv1alpha1.HoldFinalizer)
}

func letGo(object *incident) {
	controllerutil.RemoveFinalizer(object, containmentv1alpha1.HoldFinalizer)
}

var _ = Describe("The declarer of an Incident", func() {
	Context("where the server stamps it", func() {
		It("is the requester, whatever the request says", func(ctx context.Context) {
			for _, claimed := range []func(*incident){Severity("High"), DeclaredBy("somebody-else", "system:masters")} {
				object := Incident(shop, "i", claimed)
				Expect(responder.Create(ctx, object, client.DryRunAll)).To(Succeed())
				Expect(object.Spec.DeclaredBy).To(Equal(containmentv1alpha1.Declarer{Username: "responder", Groups: []string{"system:authenticated"}}))
			}
		})

		It("keeps the UID that the server knows, and no other", func(ctx context.Context) {
			config := server.Impersonate("admin", "system:masters")
			config.Impersonate.UID = "4711"
			object := Incident(shop, "i", func(i *incident) { i.Spec.DeclaredBy = containmentv1alpha1.Declarer{Username: "x", UID: "0815"} })
			Expect(as(config).Create(ctx, object.DeepCopy(), client.DryRunAll)).To(Succeed())
			stamped := object.DeepCopy()
			Expect(as(config).Create(ctx, stamped, client.DryRunAll)).To(Succeed())
			Expect(stamped.Spec.DeclaredBy.UID).To(Equal("4711"))
			Expect(responder.Create(ctx, object, client.DryRunAll)).To(Succeed())
			Expect(object.Spec.DeclaredBy.UID).To(BeEmpty())
		})

		It("is known by the first 256 groups", func(ctx context.Context) {
			groups := []string{"system:masters"}
			for i := range 300 {
				groups = append(groups, fmt.Sprintf("group-%d", i))
			}
			object := Incident(shop, "i")
			Expect(as(server.Impersonate("many", groups...)).Create(ctx, object, client.DryRunAll)).To(Succeed())
			Expect(object.Spec.DeclaredBy.Groups).To(HaveLen(256))
			Expect(object.Spec.DeclaredBy.Groups[:2]).To(Equal([]string{"system:masters", "group-0"}))
		})
	})

	Context("where nothing stamps it", Ordered, Serial, func() {
		BeforeAll(func(ctx context.Context) {
			DeferCleanup(func(ctx context.Context) { Expect(server.Install(ctx, "external")).To(Succeed()) })
			_, err := server.Kubectl("delete", "mutatingadmissionpolicybinding", "cofferdam-stamp-declarer")
			Expect(err).NotTo(HaveOccurred())
			Eventually(ctx, func() error {
				return responder.Create(ctx, Incident(shop, "i", DeclaredBy("somebody-else")), client.DryRunAll)
			}).Should(HaveOccurred())
		})

		DescribeTable("has to be the requester", func(ctx context.Context, claim func(*incident), message string) {
			err := responder.Create(ctx, Incident(shop, "i", claim), client.DryRunAll)
			if message == "" {
				Expect(err).NotTo(HaveOccurred())
			} else {
				Expect(err).To(refusedWith(message))
			}
		},
			Entry("themselves", DeclaredBy("responder", "system:authenticated"), ""),
			Entry("themselves, without groups", DeclaredBy("responder"), ""),
			Entry("nobody", Severity("High"), "set spec.declaredBy.username to your own user name, responder"),
			Entry("somebody else", DeclaredBy("lead"), "spec.declaredBy.username has to be your own user name, responder"),
			Entry("a group that they are not in", DeclaredBy("responder", "system:masters"), "spec.declaredBy.groups names a group that you are not in"),
			Entry("another UID", func(i *incident) {
				i.Spec.DeclaredBy = containmentv1alpha1.Declarer{Username: "responder", UID: "0815"}
			}, "spec.declaredBy.uid has to be your own UID"),
		)
	})
})

var _ = Describe("Targets in other namespaces", func() {
	const message = "a target is in namespace pay: that takes the permission to create incidents.containment.cofferdam.dev there"
	elsewhere := Target("Deployment", pay, "ledger")

	It("are allowed to who may create Incidents there", func(ctx context.Context) {
		Expect(lead.Create(ctx, Incident(shop, "i", Targets(elsewhere)), client.DryRunAll)).To(Succeed())
		Expect(responder.Create(ctx, Incident(shop, "i", Targets(elsewhere)), client.DryRunAll)).To(refusedWith(message))
		Expect(responder.Create(ctx, Incident(shop, "i", Targets(Target("Pod", shop, "a"))), client.DryRunAll)).To(Succeed(), "its own namespace by name")
	})

	It("are checked up to the last", func(ctx context.Context) {
		for last := range 16 {
			targets := []containmentv1alpha1.Target{}
			for i := range 16 {
				namespace := shop
				if i >= last {
					namespace = pay
				}
				targets = append(targets, Target("Deployment", namespace, fmt.Sprint("web-", i)))
			}
			Expect(lead.Create(ctx, Incident(shop, "i", Targets(targets...)), client.DryRunAll)).To(Succeed())
			Expect(responder.Create(ctx, Incident(shop, "i", Targets(targets...)), client.DryRunAll)).To(refusedWith(message))
		}
	})

	It("are each checked on its own", func(ctx context.Context) {
		for i := range 16 {
			targets := []containmentv1alpha1.Target{}
			for j := range 16 {
				namespace := pay
				if i == j {
					namespace = "kube-system"
				}
				targets = append(targets, Target("Deployment", namespace, fmt.Sprint("web-", j)))
			}
			Expect(lead.Create(ctx, Incident(shop, "i", Targets(targets...)), client.DryRunAll)).To(refusedWith("a target is in namespace kube-system"))
		}
	})

	It("may be big", func(ctx context.Context) {
		targets := []containmentv1alpha1.Target{}
		for i := range 16 {
			target := Selected("Deployment", pay, "app", "web")
			for j := range 40 {
				target.Selector.MatchLabels[fmt.Sprintf("example.com/label-%d-%d", i, j)] = Long(63)
			}
			targets = append(targets, target)
		}
		object := declared(ctx, Targets(targets...))
		Expect(lead.Update(ctx, changed(object, Severity("Low")), client.DryRunAll)).To(Succeed())
	})

	It("are checked again only when they are new", func(ctx context.Context) {
		object := declared(ctx, Targets(elsewhere))
		Expect(responder.Update(ctx, changed(object, Severity("Low")), client.DryRunAll)).To(Succeed())
		more := changed(object, Targets(elsewhere, Target("Deployment", pay, "accounts")))
		Expect(responder.Update(ctx, more.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(lead.Update(ctx, more, client.DryRunAll)).To(Succeed())
	})

	It("are checked again when a digest is added that is refused there", func(ctx context.Context) {
		object := declared(ctx, Targets(elsewhere), Compromised(digestA))
		Expect(responder.Update(ctx, changed(object, Severity("Low")), client.DryRunAll)).To(Succeed())
		Expect(responder.Update(ctx, changed(object, Compromised(digestA, digestB)), client.DryRunAll)).To(refusedWith(message))
		Expect(lead.Update(ctx, changed(object, Compromised(digestA, digestB)), client.DryRunAll)).To(Succeed())
		first := declared(ctx, Targets(elsewhere))
		Expect(responder.Update(ctx, changed(first, Compromised(digestA)), client.DryRunAll)).To(refusedWith(message))
		here := declared(ctx)
		Expect(responder.Update(ctx, changed(here, Compromised(digestA)), client.DryRunAll)).To(Succeed())
	})
})

var _ = Describe("The times of an Incident", func() {
	DescribeTable("do not lie after its declaration", func(ctx context.Context, change func(*incident), message string) {
		err := responder.Create(ctx, Incident(shop, "i", change), client.DryRunAll)
		if message == "" {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(refusedWith(message))
		}
	},
		Entry("detected just now", DetectedAgo(0), ""),
		Entry("detected by a clock that is fast", DetectedAgo(-4*time.Minute), ""),
		Entry("detected in the future", DetectedAgo(-6*time.Minute), "detectedAt lies after the declaration of the Incident"),
		Entry("suspected since yesterday", SuspectedAgo(24*time.Hour), ""),
		Entry("suspected since tomorrow", SuspectedAgo(-24*time.Hour), "suspectedSince lies after the declaration of the Incident"),
	)

	It("do not move there later", func(ctx context.Context) {
		object := declared(ctx)
		Expect(responder.Update(ctx, changed(object, SuspectedAgo(time.Hour)), client.DryRunAll)).To(Succeed())
		Expect(responder.Update(ctx, changed(object, SuspectedAgo(-time.Hour)), client.DryRunAll)).
			To(refusedWith("suspectedSince lies after the declaration of the Incident"))
		Expect(responder.Update(ctx, changed(object, DetectedAgo(-time.Hour)), client.DryRunAll)).
			To(refusedWith("detectedAt lies after the declaration of the Incident"))
	})
})

var _ = Describe("Approvals", func() {
	It("are not part of a new Incident", func(ctx context.Context) {
		Expect(lead.Create(ctx, Incident(shop, "i", Approval("close", "lead", "sha256:1")), client.DryRunAll)).
			To(refusedWith("a new Incident has no approvals"))
	})

	DescribeTable("are given", func(ctx context.Context, who *client.Client, message string, changes ...func(*incident)) {
		object := declared(ctx)
		err := (*who).Update(ctx, changed(object, changes...), client.DryRunAll)
		if message == "" {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(refusedWith(message))
		}
	},
		Entry("by an approver", &approver, "", Approval("close", "approver", "sha256:1")),
		Entry("not two at once", &approver, "one request adds at most one approval",
			Approval("close", "approver", "sha256:1"), Approval("sign-off", "approver", "sha256:1")),
		Entry("not in another name", &approver, "the author of an approval has to be your own user name, approver", Approval("close", "lead", "sha256:1")),
		Entry("not by the declarer", &lead, "an Incident is not approved by the one who declared it", Approval("close", "lead", "sha256:1")),
		Entry("waived by a waiver", &waiver, "", Approval("waive-gaps", "waiver", "sha256:1")),
		Entry("not waived by an approver", &approver, "waiving evidence gaps takes the RBAC verb waive", Approval("waive-gaps", "approver", "sha256:1")),
		Entry("not approved by a waiver", &waiver, "approving takes the RBAC verb approve", Approval("close", "waiver", "sha256:1")),
		Entry("not without the verb", &responder, "approving takes the RBAC verb approve", Approval("close", "responder", "sha256:1")),
		Entry("not along with another change", &chief, "a request that adds an approval or an intervention changes nothing else in spec",
			Approval("close", "chief", "sha256:1"), Severity("Low")),
		Entry("not along with a new field", &chief, "a request that adds an approval or an intervention changes nothing else in spec",
			Approval("close", "chief", "sha256:1"), UsePlan("shop")),
	)

	It("are not given by a declarer who may approve", func(ctx context.Context) {
		object := Incident(shop, fresh())
		Expect(chief.Create(ctx, object)).To(Succeed())
		Expect(chief.Update(ctx, changed(object, Approval("close", "chief", "sha256:1")), client.DryRunAll)).
			To(refusedWith("an Incident is not approved by the one who declared it"))
	})

	It("are all that an approver may change", func(ctx context.Context) {
		object := declared(ctx)
		Expect(approver.Update(ctx, changed(object, Goal("Close")), client.DryRunAll)).
			To(refusedWith("changing what an Incident says, other than its approvals and interventions, takes the permission to create"))
		Expect(responder.Update(ctx, changed(object, Goal("Close")), client.DryRunAll)).To(Succeed())
	})

	It("may be as many and as long as the API allows", func(ctx context.Context) {
		object := declared(ctx)
		for i := range 64 {
			Approval(fmt.Sprintf("step-%d", i), "approver", Long(128))(object)
			object.Spec.Approvals[i].Comment = Long(1024)
			Expect(approver.Update(ctx, object)).To(Succeed())
		}
		Expect(responder.Update(ctx, changed(object, Goal("Close")), client.DryRunAll)).To(Succeed())
	})
})

var _ = Describe("Interventions", func() {
	It("are not part of a new Incident", func(ctx context.Context) {
		Expect(lead.Create(ctx, Incident(shop, "i", Intervention("a", "Skip", "lead")), client.DryRunAll)).To(refusedWith("a new Incident has no interventions"))
	})

	It("are not made before the recovery has begun", func(ctx context.Context) {
		err := recoveryLead.Update(ctx, changed(declared(ctx), Intervention("a", "Skip", "recovery-lead")), client.DryRunAll)
		Expect(err).To(refusedWith("the recovery has no step a: see status.recovery.steps, which is there once the recovery has begun"))
	})

	DescribeTable("are made", func(ctx context.Context, who *client.Client, message string, changes ...func(*incident)) {
		err := (*who).Update(ctx, changed(recovering(ctx, "a", "b"), changes...), client.DryRunAll)
		if message == "" {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(refusedWith(message))
		}
	},
		Entry("by a recovery lead", &recoveryLead, "", Intervention("a", "Skip", "recovery-lead")),
		Entry("not in a step that there is not", &recoveryLead, "the recovery has no step c", Intervention("c", "Skip", "recovery-lead")),
		Entry("not two at once", &recoveryLead, "one request adds at most one intervention", Intervention("a", "Skip", "recovery-lead"), Intervention("b", "Skip", "recovery-lead")),
		Entry("not in another name", &recoveryLead, "the author of an intervention has to be your own user name, recovery-lead", Intervention("a", "Skip", "lead")),
		Entry("not without the verb", &approver, "intervening in a recovery takes the RBAC verb intervene", Intervention("a", "Skip", "approver")),
		Entry("not by a responder", &responder, "intervening in a recovery takes the RBAC verb intervene", Intervention("a", "Skip", "responder")),
		Entry("not along with another change", &chief, "a request that adds an approval or an intervention changes nothing else in spec", Intervention("a", "Skip", "chief"), Severity("Low")),
		Entry("not along with an approval", &chief, "a request adds an approval or an intervention, not both", Intervention("a", "Skip", "chief"), Approval("close", "chief", "sha256:1")),
	)

	DescribeTable("are not needed to hold a recovery back: that has rules of its own", func(ctx context.Context, who *client.Client, message string, changes ...func(*incident)) {
		before := declared(ctx)
		if len(changes) > 1 {
			before = changed(before, changes[0])
			Expect(responder.Update(ctx, before)).To(Succeed())
			changes = changes[1:]
		}
		err := (*who).Update(ctx, changed(before, changes...), client.DryRunAll)
		if message == "" {
			Expect(err).NotTo(HaveOccurred())
		} else {
			Expect(err).To(refusedWith(message))
		}
	},
		Entry("a responder pauses it", &responder, "", recoveryHeld(true, "responder")),
		Entry("a recovery lead does", &recoveryLead, "", recoveryHeld(true, "recovery-lead")),
		Entry("an approver does not", &approver, "pausing a recovery takes the permission to create", recoveryHeld(true, "approver")),
		Entry("nobody does in another name", &responder, "the author of spec.recovery has to be your own user name, responder", recoveryHeld(true, "lead")),
		Entry("nobody does without a reason", &responder, "spec.recovery.reason", func(i *incident) { recoveryHeld(true, "responder")(i); i.Spec.Recovery.Reason = "" }),
		Entry("a recovery lead lets it go on", &recoveryLead, "", recoveryHeld(true, "responder"), recoveryHeld(false, "recovery-lead")),
		Entry("a responder does not", &responder, "letting a recovery go on that was paused takes the RBAC verb intervene", recoveryHeld(true, "responder"), recoveryHeld(false, "responder")),
		Entry("a responder says why anew", &responder, "", recoveryHeld(true, "responder"), func(i *incident) { recoveryHeld(true, "responder")(i); i.Spec.Recovery.Reason = "lunch" }),
		Entry("nobody does along with an approval", &chief, "a request that adds an approval or an intervention changes nothing else in spec", func(i *incident) {
			recoveryHeld(true, "chief")(i)
			Approval("close", "chief", "sha256:1")(i)
		}),
	)

	It("are all that a recovery lead may change", func(ctx context.Context) {
		Expect(recoveryLead.Update(ctx, changed(declared(ctx), Goal("Close")), client.DryRunAll)).To(refusedWith("changing what an Incident says"))
	})
})

var _ = Describe("A recovery plan", func() {
	It("may have 200 steps that depend on one another, and runs jobs and restores volumes only for those who may", func(ctx context.Context) {
		steps := []containmentv1alpha1.RecoveryStep{Approve("step-0")}
		for i := 1; i < 200; i++ {
			steps = append(steps, Verify(fmt.Sprintf("step-%d", i), "v1", "Pod", "x", "", fmt.Sprintf("step-%d", i-1), "step-0"))
		}
		steps[1].DependsOn = []string{"step-0"}
		steps[199] = Release("step-199", "step-198", "step-0")
		Expect(author.Create(ctx, Plan(shop, "p", steps...), client.DryRunAll)).To(Succeed())
		Expect(author.Create(ctx, Plan(shop, "p", RunJob("a", GoodImage)), client.DryRunAll)).To(refusedWith("takes the permission to create jobs.batch"))
		Expect(chief.Create(ctx, Plan(shop, "p", RunJob("a", GoodImage)), client.DryRunAll)).To(Succeed())
		gated := Verify("g", "v1", "Pod", "x", "")
		gated.Gate = &containmentv1alpha1.VerifyStep{Job: containmentv1alpha1.RunJobStep{Image: GoodImage}}
		for _, step := range []containmentv1alpha1.RecoveryStep{gated, looking(containmentv1alpha1.VerifyStep{TCP: []containmentv1alpha1.TCPCheck{{Host: "db", Port: 5432}}})} {
			Expect(author.Create(ctx, Plan(shop, "p", step), client.DryRunAll)).To(refusedWith("verifies by http, tcp or job takes the permission to create jobs.batch"))
			Expect(chief.Create(ctx, Plan(shop, "p", step), client.DryRunAll)).To(Succeed())
		}
		for permission, change := range map[string]func(*containmentv1alpha1.RotateSecretsStep){
			"patch secrets": func(*containmentv1alpha1.RotateSecretsStep) {},
			"delete secrets": func(r *containmentv1alpha1.RotateSecretsStep) {
				r.Generate, r.TokenSecrets = nil, []containmentv1alpha1.TokenSecret{{SecretName: "token", ServiceAccountName: "builder"}}
			},
			"patch externalsecrets.external-secrets.io": func(r *containmentv1alpha1.RotateSecretsStep) { r.Generate, r.ExternalSecrets = nil, []string{"db"} },
			"patch certificates.cert-manager.io/status": func(r *containmentv1alpha1.RotateSecretsStep) { r.Generate, r.Certificates = nil, []string{"web"} },
		} {
			plan := Plan(shop, "p", rotating(change))
			Expect(author.Create(ctx, plan.DeepCopy(), client.DryRunAll)).To(refusedWith("takes the permission to " + permission))
			Expect(chief.Create(ctx, plan, client.DryRunAll)).To(Succeed())
		}
		Expect(author.Create(ctx, Plan(shop, "p", RestoreVolumes("a", nil, "data")), client.DryRunAll)).To(refusedWith("takes the permission to create and delete persistentvolumeclaims"))
		keeper := storekeeper(ctx)
		Expect(keeper.Create(ctx, Plan(shop, "p", rotating(listing("Listed"))), client.DryRunAll)).To(refusedWith("takes the permission to patch deployments, statefulsets and daemonsets"))
		Expect(keeper.Create(ctx, Plan(shop, "p", checked(GoodImage)), client.DryRunAll)).To(refusedWith("has a check takes the permission to create jobs.batch"))
		Expect(chief.Create(ctx, Plan(shop, "p", checked(GoodImage)), client.DryRunAll)).To(Succeed())
		Expect(author.Create(ctx, Plan(shop, "p", PauseGitOps("g", []string{"argocd"}, nil)), client.DryRunAll)).To(refusedWith("takes the permission to patch applications.argoproj.io"))
		Expect(author.Create(ctx, Plan(shop, "p", PauseGitOps("g", nil, []string{"flux-system"})), client.DryRunAll)).To(refusedWith("takes the permission to patch kustomizations.kustomize.toolkit.fluxcd.io"))
		renaming := RestoreVolumes("a", nil, "data")
		renaming.RestoreVolumes.CutOver = containmentv1alpha1.CutOverChangeClaim
		Expect(keeper.Create(ctx, Plan(shop, "p", renaming), client.DryRunAll)).To(refusedWith("has cutOver ChangeClaim takes the permission to patch deployments.apps"))
		Expect(chief.Create(ctx, Plan(shop, "p", renaming), client.DryRunAll)).To(Succeed())
		for workload, permission := range map[containmentv1alpha1.WorkloadRef]string{
			{Kind: "Deployment", Name: "web"}: "patch deployments.apps", {Kind: "StatefulSet", Name: "web"}: "patch statefulsets.apps", {Kind: "DaemonSet", Name: "web"}: "patch daemonsets.apps",
			{Kind: "CronJob", Name: "web"}: "patch cronjobs.batch", {Kind: "Rollout", Name: "web"}: "patch rollouts.argoproj.io", {Kind: "Job", Name: "web"}: "create and delete jobs.batch",
			{Kind: "Pod", Name: "web"}: "create and delete pods",
		} {
			plan := images(Plan(shop, "p", RollBack("r", workload)), KnownGood(workload.Kind, "web", "app", GoodImage))
			Expect(author.Create(ctx, plan.DeepCopy(), client.DryRunAll)).To(refusedWith("takes the permission to " + permission + " in its namespace"))
			Expect(chief.Create(ctx, plan, client.DryRunAll)).To(Succeed())
		}
		for kind, step := range map[string]containmentv1alpha1.RecoveryStep{
			"deployments": Scale("s", "web", containmentv1alpha1.ScaleToZero), "statefulsets": ScaleSet("s", "web", containmentv1alpha1.ScaleToZero),
		} {
			Expect(author.Create(ctx, Plan(shop, "p", step), client.DryRunAll)).To(refusedWith("takes the permission to patch " + kind + ".apps in its namespace"))
			Expect(chief.Create(ctx, Plan(shop, "p", step), client.DryRunAll)).To(Succeed())
		}
		steps[100].DependsOn = []string{"nobody"}
		Expect(author.Create(ctx, Plan(shop, "p", steps...), client.DryRunAll)).To(refusedWith("step-100 depends on nobody"))
	})
})

var _ = Describe("A field that a RecoveryPlan does not have", func() {
	It("is refused by whoever asks for strict validation, as kubectl does", func(ctx context.Context) {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(Plan(shop, "p", Approve("a")))
		Expect(err).NotTo(HaveOccurred())
		u := &unstructured.Unstructured{Object: object}
		u.SetGroupVersionKind(containmentv1alpha1.SchemeGroupVersion.WithKind("RecoveryPlan"))
		Expect(author.Create(ctx, u.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict"))).To(Succeed())
		Expect(unstructured.SetNestedField(u.Object, int64(3), "spec", "maxParalel")).To(Succeed())
		Expect(author.Create(ctx, u, client.DryRunAll, client.FieldValidation("Strict"))).To(MatchError(ContainSubstring(`unknown field "spec.maxParalel"`)))
	})
})

// storekeeper writes plans, and may create and delete claims and patch Secrets, but run no jobs and restart nothing.
func storekeeper(ctx context.Context) client.Client {
	GinkgoHelper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "storekeeper"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{containmentv1alpha1.SchemeGroupVersion.Group}, Resources: []string{"recoveryplans"}, Verbs: []string{"create", "get"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: []string{"create", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"patch"}},
	}}
	Expect(admin.Create(ctx, role)).To(Succeed())
	DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, role)).To(Succeed()) })
	return person(ctx, "storekeeper", role.Name, shop)
}

var _ = Describe("What the operator alone writes", func() {
	It("is the hold finalizer", func(ctx context.Context) {
		const message = "the finalizer containment.cofferdam.dev/hold is put on and taken off by the Cofferdam operator alone"
		Expect(admin.Create(ctx, Incident(shop, "i", hold), client.DryRunAll)).To(refusedWith(message))
		object := declared(ctx)
		Expect(admin.Update(ctx, changed(object, hold), client.DryRunAll)).To(refusedWith(message))
		hold(object)
		Expect(operator.Update(ctx, object)).To(Succeed())
		Expect(admin.Update(ctx, changed(object, letGo), client.DryRunAll)).To(refusedWith(message))
		Expect(admin.Update(ctx, changed(object, func(i *incident) { i.Finalizers = append(i.Finalizers, "example.com/other") }), client.DryRunAll)).To(Succeed())
		Expect(operator.Update(ctx, changed(object, letGo), client.DryRunAll)).To(Succeed())
	})

	It("is the status of Incidents and RecoveryPlans", func(ctx context.Context) {
		const message = "status is written by the Cofferdam operator alone"
		object := declared(ctx)
		object.Status.CloseDigest = "sha256:1"
		Expect(admin.Status().Update(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(operator.Status().Update(ctx, object, client.DryRunAll)).To(Succeed())

		recovery := Plan(shop, fresh(), Approve("a"))
		Expect(author.Create(ctx, recovery)).To(Succeed())
		recovery.Status.ObservedGeneration = 1
		Expect(admin.Status().Update(ctx, recovery.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(operator.Status().Update(ctx, recovery, client.DryRunAll)).To(Succeed())
	})
})

var _ = Describe("Deleting an Incident", func() {
	It("is refused while it holds a quarantine, with the way to close it", func(ctx context.Context) {
		object := declared(ctx)
		hold(object)
		Expect(operator.Update(ctx, object)).To(Succeed())
		namespaces := as(server.Impersonate("system:serviceaccount:kube-system:namespace-controller", "system:masters"))
		for _, who := range []client.Client{lead, admin, operator, namespaces} {
			Expect(who.Delete(ctx, object.DeepCopy())).To(And(
				refusedWith("Incident shop/"+object.Name+" still holds a quarantine and cannot be deleted"),
				refusedWith("set spec.goal to Close, have the step close approved in spec.approvals, wait for the condition Released to be True, then delete it"),
			))
		}
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		Expect(object.DeletionTimestamp.IsZero()).To(BeTrue())

		letGo(object)
		Expect(operator.Update(ctx, object)).To(Succeed())
		Expect(lead.Delete(ctx, object)).To(Succeed())
	})

	It("does not come about by deleting its namespace, which waits and says why", func(ctx context.Context) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fresh()}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		object := Incident(namespace.Name, "i", hold)
		Expect(operator.Create(ctx, object)).To(Succeed())
		Expect(admin.Delete(ctx, namespace)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)).To(Succeed())
			g.Expect(namespace.Status.Conditions).To(ContainElement(HaveField("Message", ContainSubstring("still holds a quarantine and cannot be deleted"))))
		}).Should(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		Expect(object.DeletionTimestamp.IsZero()).To(BeTrue())
		letGo(object)
		Expect(operator.Update(ctx, object)).To(Succeed())
	})
})

var _ = Describe("The roles", func() {
	DescribeTable("allow what they are for and nothing else", func(ctx context.Context, name, resource string, verbs ...string) {
		who := as(server.Impersonate(name))
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "approve", "waive", "examine", "expose", "destroy"} {
			Expect(may(ctx, who, shop, verb, resource, "")).To(Equal(slices.Contains(verbs, verb)), "%s %s", verb, resource)
		}
		Expect(may(ctx, who, shop, "update", resource, "status")).To(BeFalse())
		Expect(may(ctx, who, "default", "get", resource, "")).To(BeFalse())
	},
		Entry("viewer", "viewer", "incidents", "get", "list", "watch"),
		Entry("viewer", "viewer", "recoveryplans", "get", "list", "watch"),
		Entry("viewer", "viewer", "containmentpolicies", "get", "list", "watch"),
		Entry("responder", "responder", "incidents", "get", "list", "watch", "create", "update", "patch", "delete"),
		Entry("responder", "responder", "recoveryplans", "get", "list", "watch"),
		Entry("responder", "responder", "containmentpolicies", "get", "list", "watch"),
		Entry("approver", "approver", "incidents", "get", "list", "watch", "update", "patch", "approve"),
		Entry("approver", "approver", "recoveryplans", "get", "list", "watch"),
		Entry("approver", "approver", "containmentpolicies", "get", "list", "watch"),
		Entry("waiver", "waiver", "incidents", "get", "list", "watch", "update", "patch", "waive"),
		Entry("waiver", "waiver", "recoveryplans", "get", "list", "watch"),
		Entry("waiver", "waiver", "containmentpolicies", "get", "list", "watch"),
		Entry("plan author", "author", "incidents"),
		Entry("plan author", "author", "recoveryplans", "get", "list", "watch", "create", "update", "patch", "delete"),
		Entry("plan author", "author", "containmentpolicies"),
		Entry("examiner", "examiner", "incidents", "get", "list", "watch", "examine"),
		Entry("examiner", "examiner", "recoveryplans", "get", "list", "watch"),
		Entry("examiner", "examiner", "containmentpolicies", "get", "list", "watch"),
		Entry("overrider", "overrider", "incidents", "get", "list", "watch", "expose", "destroy"),
		Entry("overrider", "overrider", "recoveryplans", "get", "list", "watch"),
		Entry("overrider", "overrider", "containmentpolicies", "get", "list", "watch"),
		Entry("tenant", "tenant", "incidents"),
	)

	It("are not part of view, edit or admin", func(ctx context.Context) {
		for _, role := range []string{"view", "edit", "admin"} {
			who := as(server.Impersonate("has-" + role))
			_, err := server.Kubectl("create", "rolebinding", "has-"+role, "--clusterrole="+role, "--user=has-"+role, "--namespace="+shop)
			Expect(err).NotTo(HaveOccurred())
			Eventually(ctx, func() error { return who.List(ctx, &corev1.PodList{}, client.InNamespace(shop)) }).Should(Succeed())
			for _, verb := range []string{"get", "examine", "expose", "destroy"} {
				Expect(may(ctx, who, shop, verb, "incidents", "")).To(BeFalse())
			}
		}
	})
})

var _ = Describe("The admission policies", func() {
	It("have no expression that the server warns about", func(ctx context.Context) {
		clients, err := kubernetes.NewForConfig(server.RESTConfig)
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func(g Gomega) {
			policies, err := clients.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			seen := 0
			for _, p := range policies.Items {
				if !hasPrefix(p.Name, "cofferdam-") || hasPrefix(p.Name, cluster.ProbePrefix) {
					continue
				}
				seen++
				g.Expect(p.Status.TypeChecking).NotTo(BeNil(), p.Name)
				g.Expect(p.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), p.Name)
			}
			g.Expect(seen).To(Equal(len(guard.Shipped(guard.Options{}))))
		}).Should(Succeed())
	})
})

// recoveryHeld pauses the recovery, or lets it go on.
func recoveryHeld(paused bool, author string) func(*incident) {
	return func(i *incident) {
		i.Spec.Recovery.Paused, i.Spec.Recovery.Author, i.Spec.Recovery.Reason = &paused, author, "wait for the vendor"
	}
}
