package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"regexp"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

const dbSecret = "db-credentials"

func secretOf(ctx context.Context, shop *scenario.Shop, name string) *corev1.Secret {
	GinkgoHelper()
	var s corev1.Secret
	Expect(shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: name}, &s)).To(Succeed())
	return &s
}

// foreignObject is an object of another operator.
func foreignObject(ns, apiVersion, kind, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

// synchronise does once what the External Secrets Operator does: it takes any change of annotations as a reason to synchronise, and notes what it has synchronised.
func synchronise(ctx context.Context, g Gomega, shop *scenario.Shop, name string) {
	u := foreignObject(shop.Namespace, "external-secrets.io/v1", "ExternalSecret", name, nil)
	g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(u), u)).To(Succeed())
	hash := fnv.New32a()
	_ = json.NewEncoder(hash).Encode(u.GetAnnotations())
	u.Object["status"] = map[string]any{
		"syncedResourceVersion": fmt.Sprintf("%d-%x", u.GetGeneration(), hash.Sum(nil)), "refreshTime": time.Now().UTC().Format(time.RFC3339),
		"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "SecretSynced"}},
	}
	g.Expect(shop.Admin.Status().Update(ctx, u)).To(Succeed())
}

// issue does once what cert-manager does about a certificate that is to be issued, and reports whether it was.
func issue(ctx context.Context, g Gomega, shop *scenario.Shop, name string, fails bool) {
	u := foreignObject(shop.Namespace, "cert-manager.io/v1", "Certificate", name, nil)
	g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(u), u)).To(Succeed())
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	var others []any
	wanted := false
	for _, c := range conditions {
		if m := c.(map[string]any); m["type"] == "Issuing" {
			wanted = m["status"] == "True"
		} else {
			others = append(others, c)
		}
	}
	g.Expect(wanted).To(BeTrue(), "nobody has asked for it")
	status := u.Object["status"].(map[string]any)
	if fails {
		others = append(others, map[string]any{"type": "Issuing", "status": "False", "reason": "Failed", "message": "the issuer is not ready"})
		status["lastFailureTime"] = time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	} else {
		revision, _, _ := unstructured.NestedInt64(u.Object, "status", "revision")
		status["revision"] = revision + 1
		delete(status, "lastFailureTime")
	}
	status["conditions"] = others
	g.Expect(shop.Admin.Status().Update(ctx, u)).To(Succeed())
}

var _ = Describe("Rotating secrets", func() {
	// recoverWeb contains the web tier, and begins a recovery by the plan.
	recoverWeb := func(ctx context.Context, shop *scenario.Shop, plan *v1alpha1.RecoveryPlan) {
		GinkgoHelper()
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		declare(ctx, shop, "miner", builder.UsePlan(plan.Name), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	}

	It("generates values that nobody sees, restarts those that use them, once they are recovered, and leaves what was recovered free", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.UseSecret(ctx, dbSecret, map[string]string{"user": "shop", "password": "stolen", "api.key": "stolen"}, scenario.Web, scenario.Clean)).To(Succeed())
		web := v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web}
		rotate := builder.Rotate("rotate", dbSecret, nil, "password", "api.key")
		rotate.RotateSecrets.Generate[0].Keys[1] = v1alpha1.GeneratedKey{Name: "api.key", Length: 64, Charset: v1alpha1.CharsetHex}
		rotate.RotateSecrets.Workloads = []v1alpha1.RestartedWorkload{{Kind: "Deployment", Name: scenario.Web}}
		back := builder.RollBack("back", web)
		recoverWeb(ctx, shop, builder.Plan(shop.Namespace, "rotate", builder.Approve("wait"), rotate, func() v1alpha1.RecoveryStep { back.DependsOn = []string{"wait"}; return back }(),
			builder.Approve("sign-off", "back", "rotate"), builder.Release("free", "sign-off")))

		By("not beginning without the role")
		inc := await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(scenario.Conditions(inc)).To(ContainSubstring("bind the ClusterRole cofferdam-secret-rotation for it in namespace " + shop.Namespace))
		Expect(secretOf(ctx, shop, dbSecret).Data["password"]).To(BeEquivalentTo("stolen"))
		Expect(shop.AllowRotation(ctx)).To(Succeed())

		By("not restarting what is compromised")
		inc = await(ctx, shop, "miner", "waiting for the rollback", stepSays("rotate", "Deployment web is not restarted yet: the Incident holds it, and it is not rolled back"))
		Expect(inc.Status.Recovery.Choices).To(HaveLen(3))
		first := secretOf(ctx, shop, dbSecret)
		Expect(first.Data["user"]).To(BeEquivalentTo("shop"))
		Expect(string(first.Data["password"])).To(MatchRegexp("^[A-Za-z0-9]{32}$"))
		Expect(string(first.Data["api.key"])).To(MatchRegexp("^[0-9a-f]{64}$"))
		Expect(shop.Approve(ctx, "miner", "wait")).To(Succeed())
		inc = await(ctx, shop, "miner", "rotated", stepIs("rotate", v1alpha1.StepSucceeded))
		Expect(secretOf(ctx, shop, dbSecret).Data).To(Equal(first.Data), "it is rotated once")
		for _, name := range []string{scenario.Web, scenario.Clean} {
			Expect(inc.Status.Recovery.Steps[1].Message).To(MatchRegexp(regexp.QuoteMeta("Deployment "+name+" was restarted, and its ") + "[12] pods are ready"))
			for _, p := range podsOf(ctx, shop, name) {
				Expect(p.Annotations).To(HaveKey(v1alpha1.RotationAnnotation))
				Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty(), "a recovered revision comes out free, also when it is restarted")
			}
		}
		for _, p := range podsOf(ctx, shop, scenario.Web) {
			Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		}

		By("releasing")
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		for _, key := range []string{"password", "api.key"} {
			Expect(json.Marshal(inc)).NotTo(ContainSubstring(string(first.Data[key])))
		}
	})

	It("does not begin where an entry is missing, or the Secret is immutable", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.AllowRotation(ctx)).To(Succeed())
		Expect(shop.UseSecret(ctx, dbSecret, map[string]string{"pasword": "stolen"})).To(Succeed())
		recoverWeb(ctx, shop, builder.Plan(shop.Namespace, "rotate", builder.Rotate("rotate", dbSecret, nil, "password")))
		inc := await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(scenario.Conditions(inc)).To(ContainSubstring("Secret " + shop.Namespace + "/" + dbSecret + " cannot be rotated"))
		Expect(secretOf(ctx, shop, dbSecret).Data).To(HaveLen(1))
	})

	It("has External Secrets and certificates renewed by those that keep them, and believes what these note", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.AllowRotation(ctx)).To(Succeed())
		Expect(shop.UseSecret(ctx, "tls", map[string]string{"tls.key": "stolen"}, scenario.Clean)).To(Succeed())
		external := foreignObject(shop.Namespace, "external-secrets.io/v1", "ExternalSecret", "payments", map[string]any{"target": map[string]any{"name": "payments-key"}})
		certificate := foreignObject(shop.Namespace, "cert-manager.io/v1", "Certificate", "shop", map[string]any{"secretName": "tls"})
		for _, u := range []*unstructured.Unstructured{external, certificate} {
			Expect(shop.Admin.Create(ctx, u)).To(Succeed())
		}
		synchronise(ctx, Default, shop, "payments")
		certificate.Object["status"] = map[string]any{"revision": int64(1), "conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
		Expect(shop.Admin.Status().Update(ctx, certificate)).To(Succeed())
		step := v1alpha1.RecoveryStep{Name: "rotate", RotateSecrets: &v1alpha1.RotateSecretsStep{ExternalSecrets: []string{"payments"}, Certificates: []string{"shop"}}}
		recoverWeb(ctx, shop, builder.Plan(shop.Namespace, "rotate", step))

		await(ctx, shop, "miner", "waiting for the External Secrets Operator", stepSays("rotate", "ExternalSecret payments was not synchronised since"))
		Eventually(ctx, func(g Gomega) { issue(ctx, g, shop, "shop", true) }).WithTimeout(scenario.Patience).Should(Succeed())
		inc := await(ctx, shop, "miner", "with a failed issuance", stepIs("rotate", v1alpha1.StepFailed))
		Expect(inc.Status.Recovery.Steps[0].Message).To(ContainSubstring("Certificate shop could not be issued: the issuer is not ready"))

		By("having it retried")
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(certificate), certificate)).To(Succeed())
			certificate.Object["status"].(map[string]any)["lastFailureTime"] = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
			g.Expect(shop.Admin.Status().Update(ctx, certificate)).To(Succeed())
		}).WithTimeout(scenario.Patience).Should(Succeed())
		Expect(shop.Intervene(ctx, "miner", "rotate", v1alpha1.InterventionRetry)).To(Succeed())
		Eventually(ctx, func(g Gomega) { issue(ctx, g, shop, "shop", false) }).WithTimeout(scenario.Patience).Should(Succeed())
		await(ctx, shop, "miner", "waiting for the External Secrets Operator alone", stepSays("rotate", "waits: ExternalSecret payments was not synchronised since: is the External Secrets Operator running?"))
		Expect(podsOf(ctx, shop, scenario.Clean)[0].Annotations).NotTo(HaveKey(v1alpha1.RotationAnnotation), "nothing is restarted before all new values are there")
		Eventually(ctx, func(g Gomega) { synchronise(ctx, g, shop, "payments") }).WithTimeout(scenario.Patience).Should(Succeed())
		inc = await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(inc.Status.Recovery.Steps[0].Message).To(And(ContainSubstring("was issued anew, as revision 2"), ContainSubstring("ExternalSecret payments was synchronised"), ContainSubstring("Secret payments-key is as it was"), ContainSubstring("Deployment blog was restarted")))
	})

	It("does not begin with an ExternalSecret that is never synchronised anew", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.AllowRotation(ctx)).To(Succeed())
		Expect(shop.Admin.Create(ctx, foreignObject(shop.Namespace, "external-secrets.io/v1", "ExternalSecret", "once", map[string]any{"refreshPolicy": "CreatedOnce"}))).To(Succeed())
		recoverWeb(ctx, shop, builder.Plan(shop.Namespace, "rotate", v1alpha1.RecoveryStep{Name: "rotate", RotateSecrets: &v1alpha1.RotateSecretsStep{ExternalSecrets: []string{"once"}}}))
		inc := await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(scenario.Conditions(inc)).To(ContainSubstring("has the refreshPolicy CreatedOnce and is never synchronised anew"))
	})

	It("makes the tokens of a ServiceAccount invalid that are named, and no others", func(ctx SpecContext) {
		shop := openShop(ctx)
		Expect(shop.AllowRotation(ctx)).To(Succeed())
		whoAmI := map[string]func(g Gomega) error{}
		for _, name := range []string{"builder", "sibling"} {
			Expect(shop.Admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: name}})).To(Succeed())
			Expect(shop.Admin.Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: name + "-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: name}},
				Type:       corev1.SecretTypeServiceAccountToken,
			})).To(Succeed())
			Eventually(ctx, func() []byte { return secretOf(ctx, shop, name+"-token").Data["token"] }).WithTimeout(scenario.Patience).ShouldNot(BeEmpty())
			config := rest.AnonymousClientConfig(server.RESTConfig)
			config.BearerToken = string(secretOf(ctx, shop, name+"-token").Data["token"])
			c, err := client.New(config, client.Options{Scheme: shop.Admin.Scheme(), Mapper: shop.Admin.RESTMapper()})
			Expect(err).NotTo(HaveOccurred())
			whoAmI[name] = func(Gomega) error { return c.Create(ctx, &authenticationv1.SelfSubjectReview{}) }
			Eventually(ctx, whoAmI[name]).WithTimeout(scenario.Patience).Should(Succeed())
		}
		tokens := func(account string) v1alpha1.RecoveryStep {
			return v1alpha1.RecoveryStep{Name: "rotate", RotateSecrets: &v1alpha1.RotateSecretsStep{
				TokenSecrets: []v1alpha1.TokenSecret{{SecretName: "builder-token", ServiceAccountName: account}}, Restart: v1alpha1.RestartNone,
			}}
		}
		plan := builder.Plan(shop.Namespace, "rotate", tokens("sibling"))
		recoverWeb(ctx, shop, plan)
		inc := await(ctx, shop, "miner", "refused", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(scenario.Conditions(inc)).To(ContainSubstring("builder-token is no token of ServiceAccount sibling"))

		before := plan.DeepCopy()
		plan.Spec.Steps = []v1alpha1.RecoveryStep{tokens("builder")}
		Expect(shop.Admin.Patch(ctx, plan, client.MergeFrom(before))).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Eventually(ctx, whoAmI["builder"]).WithTimeout(scenario.Patience).ShouldNot(Succeed(), "its token is invalid")
		Expect(whoAmI["sibling"](Default)).To(Succeed())
	})
})
