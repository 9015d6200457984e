package lifecycle

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/registry"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Images that a plan verifies", func() {
	var (
		store *registry.Registry
		terms *v1alpha1.ImageVerification
		sign  func(*registry.Image)
	)
	BeforeEach(func() {
		store = registry.Start(true)
		DeferCleanup(store.Stop)
		key, pem, err := registry.NewKey()
		Expect(err).NotTo(HaveOccurred())
		terms = &v1alpha1.ImageVerification{Signers: []v1alpha1.ImageSigner{{Name: "release", PublicKey: pem, Repositories: []string{store.Host + "/shop/*"}}}}
		sign = func(image *registry.Image) { Expect(store.Sign(image, key)).To(Succeed()) }
	})
	push := func() *registry.Image {
		GinkgoHelper()
		image, err := store.Push("shop/app", 2)
		Expect(err).NotTo(HaveOccurred())
		return image
	}
	planFor := func(ctx SpecContext, shop *scenario.Shop, images v1alpha1.KnownGoodImages) *v1alpha1.RecoveryPlan {
		GinkgoHelper()
		p := builder.Plan(shop.Namespace, awkward, builder.RollBack("back", images.Workload), builder.Approve("sign-off", "back"), builder.Release("let-go", "sign-off"))
		p.Spec.Images, p.Spec.Verification = []v1alpha1.KnownGoodImages{images}, terms
		Expect(shop.Admin.Create(ctx, p)).To(Succeed())
		return p
	}
	isReady := func(ctx SpecContext, shop *scenario.Shop, p *v1alpha1.RecoveryPlan, status metav1.ConditionStatus, reason, message string) {
		GinkgoHelper()
		Eventually(ctx, func(g Gomega) {
			g.Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(p), p)).To(Succeed())
			c := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
			g.Expect(c).NotTo(BeNil())
			g.Expect(c.Reason).To(Equal(reason), c.Message)
			g.Expect(c.Status).To(Equal(status))
			g.Expect(c.Message).To(ContainSubstring(message))
		}).WithTimeout(scenario.Patience).Should(Succeed())
	}
	recoverWith := func(ctx SpecContext, shop *scenario.Shop, changes ...func(*v1alpha1.Incident)) {
		GinkgoHelper()
		declare(ctx, shop, "miner", append([]func(*v1alpha1.Incident){
			builder.UsePlan(awkward), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", awkward)),
		}, changes...)...)
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
	}
	// report says what the kubelet says of a pod whose container runs, with the imageID that its runtime reports.
	report := func(ctx SpecContext, shop *scenario.Shop, pod *corev1.Pod, imageID string) {
		GinkgoHelper()
		before := pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: "app", Ready: true, Image: pod.Spec.Containers[0].Image, ImageID: imageID,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}
		Expect(shop.Admin.Status().Patch(ctx, pod, client.MergeFrom(before))).To(Succeed())
	}
	recovered := func(message string) func(*v1alpha1.Incident) bool {
		return func(inc *v1alpha1.Incident) bool {
			c := apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionRecovered)
			return c != nil && strings.Contains(c.Message, message)
		}
	}

	It("change nothing before they are signed, and are recognised by the digest of a platform", func(ctx SpecContext) {
		shop := openShop(ctx)
		d := builder.Deployment(shop.Namespace, awkward, scenario.BadImage, 1)
		d.Spec.Template.Spec.SchedulerName = "by-hand" // the simulated node would report the digest of the index
		Expect(shop.Admin.Create(ctx, d)).To(Succeed())
		image := push()
		p := planFor(ctx, shop, builder.KnownGood("Deployment", awkward, "app", image.Reference))
		isReady(ctx, shop, p, metav1.ConditionFalse, v1alpha1.ReasonImageUnverified, "the image "+image.Reference+" carries no signature")
		recoverWith(ctx, shop)
		inc := await(ctx, shop, "miner", "stalled", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonPlanInvalid))
		Expect(recovered("the image " + image.Reference + " carries no signature")(inc)).To(BeTrue())
		Expect(inc.Status.Recovery).To(BeNil())
		var now appsv1.Deployment
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(d), &now)).To(Succeed())
		Expect(now.Spec).To(Equal(d.Spec))

		By("signing it")
		sign(image)
		inc = await(ctx, shop, "miner", "begun", stepIs("back", v1alpha1.StepRunning))
		Expect(inc.Status.Recovery.Images).To(HaveLen(1))
		found := inc.Status.Recovery.Images[0]
		Expect(found.Signer).To(Equal("release"))
		Expect(found.Digests).To(ConsistOf(append(append([]string{image.Digest}, image.Platforms...), image.Configs...)))

		By("running something else, then a platform of it")
		var pod *corev1.Pod
		Eventually(ctx, func(g Gomega) {
			for _, one := range podsOf(ctx, shop, awkward) {
				if one.Spec.Containers[0].Image == image.Reference {
					pod = &one
				}
			}
			g.Expect(pod).NotTo(BeNil())
		}).WithTimeout(scenario.Patience).Should(Succeed())
		report(ctx, shop, pod, "registry.example.com/other@"+digestOf(scenario.BadImage))
		await(ctx, shop, "miner", "not satisfied", recovered("reports digest \""+digestOf(scenario.BadImage)+"\" for container app"))
		report(ctx, shop, pod, store.Host+"/shop/app@"+image.Platforms[1])
		await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(shop.Approve(ctx, "miner", "sign-off")).To(Succeed())
		await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
	})

	It("make an older revision be chosen when a newer one is not signed", func(ctx SpecContext) {
		shop := openShop(ctx)
		signed, unsigned := push(), push()
		sign(signed)
		d := builder.Deployment(shop.Namespace, awkward, signed.Reference, 1)
		rollOut(ctx, shop, d, &d.Spec.Template, signed.Reference)
		rollOut(ctx, shop, d, &d.Spec.Template, unsigned.Reference)
		since := afterThis(ctx)
		rollOut(ctx, shop, d, &d.Spec.Template, scenario.BadImage)
		p := planFor(ctx, shop, builder.ChosenImages("Deployment", awkward))
		isReady(ctx, shop, p, metav1.ConditionTrue, v1alpha1.ReasonPlanUsable, "0 images are verified")
		recoverWith(ctx, shop, builder.SuspectedSince(since))
		inc := await(ctx, shop, "miner", "waiting for approval", stepIs("sign-off", v1alpha1.StepRunning))
		Expect(inc.Status.Recovery.Choices[0].Images).To(Equal([]v1alpha1.ChosenImage{{Name: "app", Image: signed.Reference}}))
		Expect(inc.Status.Recovery.Choices[0].Why).To(ContainSubstring("has an image in container app that carries no signature"))
	})

	It("are waited for while their registry is away, and refused when it does not have them", func(ctx SpecContext) {
		shop := openShop(ctx)
		d := builder.Deployment(shop.Namespace, awkward, scenario.BadImage, 1)
		rollOut(ctx, shop, d, &d.Spec.Template, scenario.BadImage)
		image := push()
		store.Stop()
		p := planFor(ctx, shop, builder.KnownGood("Deployment", awkward, "app", image.Reference))
		isReady(ctx, shop, p, metav1.ConditionUnknown, v1alpha1.ReasonImagesUnknown, "the image "+image.Reference+" could not be looked up")
		recoverWith(ctx, shop)
		// A replacement that is being quarantined makes Contained False for a moment.
		inc := await(ctx, shop, "miner", "waiting, and contained", func(inc *v1alpha1.Incident) bool {
			return scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonImagesUnknown)(inc) && scenario.Is(v1alpha1.ConditionContained)(inc)
		})
		Expect(inc.Status.Recovery).To(BeNil())

		other := registry.Start(true)
		DeferCleanup(other.Stop)
		missing := p.DeepCopy()
		missing.Spec.Images[0].Containers[0].Image = other.Host + "/shop/app@" + image.Digest
		Expect(shop.Admin.Patch(ctx, missing, client.MergeFrom(p))).To(Succeed())
		isReady(ctx, shop, missing, metav1.ConditionFalse, v1alpha1.ReasonImageMissing, "does not exist in its registry under this digest")
		await(ctx, shop, "miner", "stalled", recovered("does not exist in its registry under this digest"))
	})
})
