package admission

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	. "cofferdam.dev/cofferdam/test/builder"
)

const notDeleted = "and is not deleted or evicted. Recover or close the Incident: it is free again when the pods are released"

// evidence matches the refusal to delete something that is kept for the Incident shop/miner, which needs a permission in a namespace.
func evidence(what, namespace string) OmegaMatcher {
	return And(
		Satisfy(apierrors.IsForbidden),
		refusedWith(what+" is evidence of Incident shop/miner "+notDeleted),
		refusedWith("Destroying it all the same takes the RBAC verb destroy on incidents.containment.cofferdam.dev in namespace "+namespace+
			": see ClusterRole cofferdam-overrider"),
	)
}

func claimOf(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new(string),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

// volumeOf is a volume of a claim; without one it is free.
func volumeOf(name string, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}},
		},
	}
	if claim != nil {
		volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name}
	}
	return volume
}

var _ = Describe("Quarantined pods", func() {
	gone := func(ctx context.Context, who client.Client, pod *corev1.Pod) error {
		return who.Delete(ctx, pod.DeepCopy(), client.DryRunAll, client.GracePeriodSeconds(0))
	}

	It("are not deleted or evicted without a verb", func(ctx context.Context) {
		kept, elsewhere, entered, free := waiting(ctx, shop, "set", "a"), waiting(ctx, pay), waiting(ctx, shop), waiting(ctx, shop, "set", "b")
		held(ctx, "shop/miner", lists{heldPods: {key(kept), key(elsewhere), key(entered)}, heldKept: {key(kept), key(elsewhere)}})
		refused := evidence("Pod "+key(kept), shop)

		Expect(gone(ctx, tenant, kept)).To(refused)
		Expect(tenant.Delete(ctx, kept.DeepCopy())).To(refused, "in earnest")
		Expect(evict(ctx, tenant, kept.Name)).To(refused)
		Expect(tenant.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(shop), client.MatchingLabels{"set": "a"})).To(refused, "as one of many")
		for _, other := range []somebody{examiner, exposer} {
			Expect(gone(ctx, other, kept)).To(refused, "another verb does not help")
			Expect(evict(ctx, other, kept.Name)).To(refused, "another verb does not help")
		}
		Expect(gone(ctx, overrider, elsewhere)).To(evidence("Pod "+key(elsewhere), pay), "the verb counts where the pod is")

		Expect(gone(ctx, overrider, kept)).To(Succeed())
		Expect(gone(ctx, destroyer, kept)).To(Succeed())
		Expect(evict(ctx, overrider, kept.Name)).To(Succeed())
		Expect(gone(ctx, operatorAsTenant, kept)).To(Succeed())
		Expect(evict(ctx, operatorAsTenant, kept.Name)).To(Succeed())
		for what, pod := range map[string]*corev1.Pod{"held, but not kept": entered, "free": free} {
			Expect(gone(ctx, tenant, pod)).To(Succeed(), what)
			Expect(evict(ctx, tenant, pod.Name)).To(Succeed(), what)
		}
		Expect(tenant.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(shop), client.MatchingLabels{"set": "b"})).To(Succeed())
		namesake := waiting(ctx, pay)
		held(ctx, "", lists{heldKept: {shop + "/" + namesake.Name}})
		Expect(gone(ctx, tenant, namesake)).To(Succeed(), "its name in another namespace")
		Expect(evict(ctx, tenant, namesake.Name)).To(refusedWith("is evidence of Incident unknown, see ConfigMap"))
	})

	It("stay for controllers, schedulers and drains too", func(ctx context.Context) {
		kept, free := waiting(ctx, shop), waiting(ctx, shop)
		held(ctx, "shop/miner", lists{heldKept: {key(kept)}})
		for _, name := range []string{
			"system:kube-scheduler",
			"system:serviceaccount:kube-system:daemon-set-controller",
			"system:serviceaccount:kube-system:generic-garbage-collector",
			"system:serviceaccount:kube-system:job-controller",
			"system:serviceaccount:kube-system:namespace-controller",
			"system:serviceaccount:kube-system:node-controller",
			"system:serviceaccount:kube-system:pod-garbage-collector",
			"system:serviceaccount:kube-system:replicaset-controller",
			"system:serviceaccount:kube-system:statefulset-controller",
		} {
			controller := user(name)
			Expect(gone(ctx, controller, free)).To(Succeed(), name)
			Expect(gone(ctx, controller, kept)).To(evidence("Pod "+key(kept), shop), name)
		}
	})

	It("are let go by a kubelet when their deletion had begun before", func(ctx context.Context) {
		const node = "quiet-node"
		Expect(admin.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})).To(Succeed())
		DeferCleanup(func(ctx context.Context) {
			Expect(admin.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})).To(Succeed())
		})
		on := func() *corev1.Pod {
			pod := Pod(shop, fresh())
			pod.Spec.NodeName = node
			Expect(operator.Create(ctx, pod)).To(Succeed())
			DeferCleanup(func(ctx context.Context) {
				Expect(client.IgnoreNotFound(operator.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
			})
			return pod
		}
		running, ending := on(), on()
		Expect(tenant.Delete(ctx, ending.DeepCopy())).To(Succeed())
		held(ctx, "shop/miner", lists{heldKept: {key(running), key(ending)}})

		kubelet := user("system:node:"+node, "system:nodes")
		Eventually(ctx, gone).WithArguments(kubelet, ending).Should(Succeed())
		Expect(gone(ctx, kubelet, running)).To(evidence("Pod "+key(running), shop))
		Expect(evict(ctx, kubelet, ending.Name)).To(evidence("Pod "+key(ending), shop))
		for _, other := range []somebody{tenant, user("tenant", "system:nodes"), user("system:serviceaccount:kube-system:pod-garbage-collector")} {
			Expect(gone(ctx, other, ending)).To(evidence("Pod "+key(ending), shop), "in a hurry")
		}
		Expect(kubelet.Delete(ctx, ending, client.GracePeriodSeconds(0))).To(Succeed())
	})

	It("keep their volumes", func(ctx context.Context) {
		kept, elsewhere, free := claimOf(shop, fresh()), claimOf(pay, fresh()), claimOf(shop, fresh())
		objects := []client.Object{
			kept, elsewhere, free, volumeOf(fresh(), kept), volumeOf(fresh(), elsewhere), volumeOf(fresh(), free),
			volumeOf(fresh(), nil), volumeOf(fresh(), claimOf(pay, kept.Name)), claimOf(pay, kept.Name),
		}
		for _, object := range objects {
			Expect(admin.Create(ctx, object)).To(Succeed())
			DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
		}
		held(ctx, "shop/miner", lists{heldClaims: {key(kept), key(elsewhere)}})
		remove := func(who client.Client, object client.Object) error {
			return who.Delete(ctx, object.DeepCopyObject().(client.Object), client.DryRunAll)
		}
		for i, what := range map[int]string{0: "PersistentVolumeClaim " + key(kept), 3: "PersistentVolume " + objects[3].GetName()} {
			refused := evidence(what, shop)
			Expect(remove(tenant, objects[i])).To(refused)
			for _, other := range []somebody{examiner, exposer} {
				Expect(remove(other, objects[i])).To(refused, "another verb does not help")
			}
			Expect(remove(user("system:serviceaccount:kube-system:generic-garbage-collector"), objects[i])).To(refused)
			Expect(remove(overrider, objects[i])).To(Succeed())
			Expect(remove(operatorAsTenant, objects[i])).To(Succeed())
		}
		Expect(tenant.DeleteAllOf(ctx, &corev1.PersistentVolumeClaim{}, client.InNamespace(shop), client.DryRunAll)).
			To(evidence("PersistentVolumeClaim "+key(kept), shop))
		Expect(remove(user("system:serviceaccount:kube-system:persistent-volume-binder"), objects[3])).To(evidence("PersistentVolume "+objects[3].GetName(), shop))
		Expect(remove(overrider, elsewhere)).To(refusedWith("in namespace pay"), "the verb counts where the claim is")
		Expect(remove(overrider, objects[4])).To(refusedWith("in namespace pay"), "and for a volume as well")
		for _, other := range []int{2, 5, 6, 7, 8} {
			Expect(remove(tenant, objects[other])).To(Succeed(), "%T %s", objects[other], key(objects[other]))
		}
	})
})

var _ = Describe("Namespaces that no Incident can target", func() {
	It("are not guarded, whatever a list says", func(ctx context.Context) {
		const system = metav1.NamespaceSystem
		pod := waiting(ctx, system)
		claim := claimOf(system, fresh())
		Expect(admin.Create(ctx, claim)).To(Succeed())
		held(ctx, "shop/miner", lists{
			heldPods: {key(pod)}, heldKept: {key(pod)}, heldClaims: {key(claim)}, heldLabels: {system + " *"},
		})
		policy := opening(metav1.LabelSelector{})
		policy.Namespace = system
		Expect(tenant.Create(ctx, policy, client.DryRunAll)).To(Succeed())
		Expect(alter("", `{"spec":{"activeDeadlineSeconds":1}}`)(ctx, tenant, pod)).To(Succeed())
		Expect(tenant.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Expect(tenant.Delete(ctx, claim)).To(Succeed())
	})
})

var _ = Describe("A namespace with quarantined pods", func() {
	named := func(name string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}

	It("is not deleted without a verb", func(ctx context.Context) {
		held(ctx, "shop/miner", lists{heldNamespaces: {shop, "somewhere"}})
		refused := And(
			Satisfy(apierrors.IsForbidden),
			refusedWith("Namespace shop holds quarantined pods, the evidence of Incident shop/miner "+notDeleted),
			refusedWith("takes the RBAC verb destroy on incidents.containment.cofferdam.dev in namespace shop: see ClusterRole cofferdam-overrider"),
		)
		for _, who := range []somebody{tenant, examiner, exposer, user("system:serviceaccount:kube-system:namespace-controller")} {
			Expect(who.Delete(ctx, named(shop), client.DryRunAll)).To(refused)
		}
		Expect(tenant.Delete(ctx, named(shop))).To(refused, "in earnest")
		for _, who := range []somebody{overrider, overseer, destroyer, operatorAsTenant} {
			Expect(who.Delete(ctx, named(shop), client.DryRunAll)).To(Succeed())
		}
		Expect(tenant.Delete(ctx, named(pay), client.DryRunAll)).To(Succeed(), "another one")
	})

	It("goes with all that is kept in it when somebody deletes it who may", func(ctx context.Context) {
		namespace := named(fresh())
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		pod, claim := waiting(ctx, namespace.Name), claimOf(namespace.Name, "data")
		ours := metav1.ObjectMeta{
			Namespace: namespace.Name, Name: "quarantine", Labels: map[string]string{containmentv1alpha1.IncidentUIDLabel: "11111111-1111-1111-1111-111111111111"},
		}
		objects := []client.Object{claim, &networkingv1.NetworkPolicy{ObjectMeta: ours}, &policyv1.PodDisruptionBudget{ObjectMeta: ours}}
		for _, object := range objects {
			Expect(operator.Create(ctx, object)).To(Succeed())
		}
		held(ctx, "shop/miner", lists{heldNamespaces: {namespace.Name}, heldKept: {key(pod)}, heldClaims: {key(claim)}})
		Expect(overrider.Delete(ctx, namespace.DeepCopy())).To(refusedWith("in namespace "+namespace.Name), "the verb counts there")
		Expect(overseer.Delete(ctx, namespace)).To(Succeed())
		for _, object := range append(objects, pod) {
			Eventually(ctx, func() error { return admin.Get(ctx, client.ObjectKeyFromObject(object), object) }).Should(Satisfy(apierrors.IsNotFound))
		}
		Eventually(ctx, func() error { return admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace) }).Should(Satisfy(apierrors.IsNotFound))
	})
})

var _ = Describe("The PodDisruptionBudgets of an Incident", func() {
	It("belong to the operator", func(ctx context.Context) {
		budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: fresh(), Labels: map[string]string{containmentv1alpha1.IncidentUIDLabel: "11111111-1111-1111-1111-111111111111"},
		}}
		Expect(admin.Create(ctx, budget.DeepCopy(), client.DryRunAll)).
			To(refusedWith("the label containment.cofferdam.dev/incident-uid is put on objects of kind PodDisruptionBudget by the Cofferdam operator alone"))
		Expect(operator.Create(ctx, budget)).To(Succeed())
		const message = "this PodDisruptionBudget is the quarantine of an Incident, or a part of it"
		Expect(admin.Delete(ctx, budget.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		// Patches: the disruption controller writes the status at any time.
		disown := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null}}`))
		Expect(admin.Patch(ctx, budget.DeepCopy(), disown, client.DryRunAll)).To(refusedWith(message))
		Expect(operator.Patch(ctx, budget.DeepCopy(), disown, client.DryRunAll)).To(Succeed())
		namespaces := as(server.Impersonate("system:serviceaccount:kube-system:namespace-controller", "system:masters"))
		Expect(namespaces.Delete(ctx, budget.DeepCopy(), client.DryRunAll)).To(refusedWith(message), "its namespace stays")
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(budget), budget)).To(Succeed())
			g.Expect(budget.Status.ObservedGeneration).To(Equal(budget.Generation), "the disruption controller may report on it")
		}).Should(Succeed())
		Expect(operator.Delete(ctx, budget)).To(Succeed())
	})

	It("are not anybody else's", func(ctx context.Context) {
		budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: fresh(), Labels: map[string]string{"app": "web"}}}
		Expect(tenant.Create(ctx, budget)).To(Succeed())
		Expect(tenant.Patch(ctx, budget, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"api"}}}`)))).To(Succeed())
		Expect(tenant.Delete(ctx, budget)).To(Succeed())
	})
})
