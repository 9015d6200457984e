package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

const hashLabel = "rollouts-pod-template-hash"

var _ = Describe("What another controller keeps", Ordered, func() {
	BeforeAll(func(ctx SpecContext) { Expect(server.Serve(ctx, cluster.Rollout, cluster.Database)).To(Succeed()) })

	DescribeTable("is rolled back in an Argo Rollout, and judged by its pods", func(ctx SpecContext, referred bool) {
		shop := openShop(ctx)
		d := builder.Deployment(shop.Namespace, "victim", scenario.BadImage, 2)
		rollout := object(shop.Namespace, "argoproj.io/v1alpha1", "Rollout", "victim", map[string]any{"replicas": int64(2)})
		if referred {
			d.Spec.Replicas = new(int32(0))
			Expect(shop.Admin.Create(ctx, d)).To(Succeed())
			Expect(unstructured.SetNestedStringMap(rollout.Object, map[string]string{"apiVersion": "apps/v1", "kind": "Deployment", "name": "victim"}, "spec", "workloadRef")).To(Succeed())
		} else {
			template, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&d.Spec.Template)
			Expect(err).NotTo(HaveOccurred())
			Expect(unstructured.SetNestedMap(rollout.Object, template, "spec", "template")).To(Succeed())
		}
		Expect(shop.Admin.Create(ctx, rollout)).To(Succeed())
		simulate(ctx, func(ctx context.Context) { argo(ctx, shop, rollout.GetName()) })
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(2))

		plan := builder.Plan(shop.Namespace, "rollout", builder.RollBack("back", v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableRollout, Name: "victim"}), builder.Approve("look"))
		plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood(v1alpha1.RecoverableRollout, "victim", "app", builder.GoodImage)}
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		set := metav1.GetControllerOf(&running(ctx, shop)[0]).Name
		declare(ctx, shop, "miner", builder.Targets(builder.Target(v1alpha1.TargetReplicaSet, "", set)), builder.UsePlan("rollout"))
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		pause(ctx, shop, rollout, true)
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "saying that it is paused", stepSays("back", "Rollout victim is paused, at a step of its canary"))
		pause(ctx, shop, rollout, false)
		await(ctx, shop, "miner", "rolled back", stepIs("back", v1alpha1.StepSucceeded))
		pods := running(ctx, shop)
		Expect(pods).To(HaveLen(2))
		for _, p := range pods {
			Expect(p.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
			Expect(selectedByUs(ctx, shop, &p)).To(BeEmpty(), "what came back is free")
		}

		By("taking it back")
		Expect(shop.Intervene(ctx, "miner", "back", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "miner", "undone", stepIs("back", v1alpha1.StepUndone))
		template := templateOfRollout(ctx, shop, "victim")
		Expect(template.Spec.Containers[0].Image).To(Equal(scenario.BadImage))
		Expect(template.Annotations).NotTo(HaveKey(v1alpha1.RecoveredByAnnotation))
		await(ctx, shop, "miner", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	},
		Entry("with a template of its own", false),
		Entry("that refers to a Deployment", true),
	)

	It("is changed in the custom resource above it, if the platform team allows that, and never below", func(ctx SpecContext) {
		shop := openShop(ctx)
		db := object(shop.Namespace, "example.com/v1", "Database", "main", map[string]any{"nodes": []any{map[string]any{"image": scenario.BadImage}}})
		Expect(shop.Admin.Create(ctx, db)).To(Succeed())
		d := builder.Deployment(shop.Namespace, "victim", scenario.BadImage, 1)
		d.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Database", Name: "main", UID: db.GetUID(), Controller: new(true)}}
		Expect(shop.Admin.Create(ctx, d)).To(Succeed())
		simulate(ctx, func(ctx context.Context) { operate(ctx, shop) })
		Eventually(ctx, func() []corev1.Pod { return running(ctx, shop) }).WithTimeout(scenario.Patience).Should(HaveLen(1))
		below, above := builder.KnownGood("Deployment", "victim", "app", builder.GoodImage), builder.KnownGood("Deployment", "victim", "app", builder.GoodImage)
		above.Owner = v1alpha1.WorkloadOwner{APIVersion: "example.com/v1", Kind: "Database", Name: "main"}
		above.Containers[0].Path = "/spec/nodes/0/image"
		for name, images := range map[string]v1alpha1.KnownGoodImages{"below": below, "above": above} {
			plan := builder.Plan(shop.Namespace, name, builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: "victim"}), builder.Approve("look"))
			plan.Spec.Images = []v1alpha1.KnownGoodImages{images}
			Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
			declare(ctx, shop, name, builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", "victim")), builder.UsePlan(name))
			await(ctx, shop, name, "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
			if name == "below" {
				Expect(shop.SetGoal(ctx, name, v1alpha1.GoalRecover)).To(Succeed())
				await(ctx, shop, name, "naming what keeps it", stepSays("back", "Deployment victim is kept by Database main (example.com/v1), which would undo a change of it"))
			}
		}
		Expect(shop.SetGoal(ctx, "above", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "above", "saying what it may not", stepSays("back", "labelled containment.cofferdam.dev/aggregate-to-recover=true"))
		allow(ctx)
		await(ctx, shop, "above", "recovered", stepIs("back", v1alpha1.StepSucceeded))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(d.Spec.Template.Spec.Containers[0].Image).To(Equal(builder.GoodImage))
		Expect(d.Spec.Template.Annotations).NotTo(HaveKey(v1alpha1.RecoveredByAnnotation))

		By("taking it back")
		Expect(shop.Intervene(ctx, "above", "back", v1alpha1.InterventionUndo)).To(Succeed())
		await(ctx, shop, "above", "undone", stepIs("back", v1alpha1.StepUndone))
		Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db)).To(Succeed())
		Expect(db.Object["spec"]).To(Equal(map[string]any{"nodes": []any{map[string]any{"image": scenario.BadImage}}}))
		await(ctx, shop, "above", "without an intent of which the outcome is not known", func(inc *v1alpha1.Incident) bool { return len(openIntents(inc)) == 0 })
	})
})

func object(namespace, apiVersion, kind, name string, spec map[string]any) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	out.SetAPIVersion(apiVersion)
	out.SetKind(kind)
	out.SetNamespace(namespace)
	out.SetName(name)
	return out
}

// simulate does the work of a controller again and again until the spec ends.
func simulate(ctx context.Context, work func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			work(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	DeferCleanup(func() { cancel(); <-ended })
}

// allow lets the operator change Databases, as a platform team does.
func allow(ctx context.Context) {
	GinkgoHelper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "cofferdam-databases", Labels: map[string]string{"containment.cofferdam.dev/aggregate-to-recover": "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.com"}, Resources: []string{"databases"}, Verbs: []string{"get", "patch"}}},
	}
	admin, err := client.New(server.RESTConfig, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	Expect(admin.Create(ctx, role)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, role)).To(Succeed()) })
}

func pause(ctx context.Context, shop *scenario.Shop, rollout *unstructured.Unstructured, paused bool) {
	GinkgoHelper()
	Expect(shop.Admin.Patch(ctx, rollout.DeepCopy(), client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"paused":%t}}`, paused)))).To(Succeed())
}

func templateOfRollout(ctx context.Context, shop *scenario.Shop, name string) corev1.PodTemplateSpec {
	GinkgoHelper()
	rollout := object(shop.Namespace, "argoproj.io/v1alpha1", "Rollout", name, nil)
	Expect(shop.Admin.Get(ctx, client.ObjectKeyFromObject(rollout), rollout)).To(Succeed())
	template, _, err := readTemplate(ctx, shop, rollout)
	Expect(err).NotTo(HaveOccurred())
	return template
}

// readTemplate is the template of a Rollout, with the generation of the Deployment that it refers to, if it does.
func readTemplate(ctx context.Context, shop *scenario.Shop, rollout *unstructured.Unstructured) (template corev1.PodTemplateSpec, generation int64, err error) {
	if name, found, _ := unstructured.NestedString(rollout.Object, "spec", "workloadRef", "name"); found {
		var d appsv1.Deployment
		err = shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: name}, &d)
		return d.Spec.Template, d.Generation, err
	}
	content, _, err := unstructured.NestedMap(rollout.Object, "spec", "template")
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template)
	}
	return template, 0, err
}

// argo does what the controller of Argo Rollouts does, without steps: one ReplicaSet for each template, of which the present one has the replicas unless the Rollout is paused.
func argo(ctx context.Context, shop *scenario.Shop, name string) {
	rollout := object(shop.Namespace, "argoproj.io/v1alpha1", "Rollout", name, nil)
	if shop.Admin.Get(ctx, client.ObjectKeyFromObject(rollout), rollout) != nil {
		return
	}
	template, generation, err := readTemplate(ctx, shop, rollout)
	if err != nil {
		return
	}
	raw, err := json.Marshal(template)
	if err != nil {
		return
	}
	sum := sha256.Sum256(raw)
	hash := hex.EncodeToString(sum[:5])
	if paused, _, _ := unstructured.NestedBool(rollout.Object, "spec", "paused"); !paused {
		scaleSets(ctx, shop, rollout, template, hash)
	}
	status := map[string]any{"observedGeneration": strconv.FormatInt(rollout.GetGeneration(), 10), "currentPodHash": hash, "workloadObservedGeneration": strconv.FormatInt(generation, 10)}
	rollout.Object["status"] = status
	_ = shop.Admin.Status().Update(ctx, rollout) // it is tried again
}

func scaleSets(ctx context.Context, shop *scenario.Shop, rollout *unstructured.Unstructured, template corev1.PodTemplateSpec, hash string) {
	labels := maps.Clone(template.Labels)
	labels[hashLabel] = hash
	template.Labels = labels
	replicas, _, _ := unstructured.NestedInt64(rollout.Object, "spec", "replicas")
	_ = shop.Admin.Create(ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop.Namespace, Name: rollout.GetName() + "-" + hash, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: rollout.GetAPIVersion(), Kind: rollout.GetKind(), Name: rollout.GetName(), UID: rollout.GetUID(), Controller: new(true)}},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	})
	var sets appsv1.ReplicaSetList
	if shop.Admin.List(ctx, &sets, client.InNamespace(shop.Namespace), client.HasLabels{hashLabel}) != nil {
		return
	}
	for i := range sets.Items {
		wanted := int64(0)
		if sets.Items[i].Labels[hashLabel] == hash {
			wanted = replicas
		}
		if int64(*sets.Items[i].Spec.Replicas) != wanted {
			_ = shop.Admin.Patch(ctx, &sets.Items[i], client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, wanted)))
		}
	}
}

// operate does what the operator of Databases would do: the Deployment has the image of the first node, whatever somebody changes about it.
func operate(ctx context.Context, shop *scenario.Shop) {
	db := object(shop.Namespace, "example.com/v1", "Database", "main", nil)
	if shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db) != nil {
		return
	}
	nodes, _, _ := unstructured.NestedSlice(db.Object, "spec", "nodes")
	image := nodes[0].(map[string]any)["image"]
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "victim"}}
	_ = shop.Admin.Patch(ctx, d, client.RawPatch(types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":%q}]}}}}`, image)))
}
