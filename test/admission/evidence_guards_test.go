package admission

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	snapshots = "snapshot.storage.k8s.io/v1"
	groups    = "groupsnapshot.storage.k8s.io/v1"

	onlyLabels     = "the labels containment.cofferdam.dev/evidence and containment.cofferdam.dev/incident-uid are put on and taken off objects of kind "
	onlyFinalizers = "the finalizer containment.cofferdam.dev/evidence is put on and taken off objects of kind "
	onlyPolicies   = "is evidence of Incident shop/miner, and its deletionPolicy keeps it when its snapshot goes"
	onlyDeletions  = "is evidence of Incident shop/miner and is not deleted. It goes when the removal of the Incident's evidence was approved"
)

// snapshotObject is an object of the snapshot APIs; value is its mark, and none when it is empty.
func snapshotObject(apiVersion, kind, namespace, value string, spec map[string]any) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetAPIVersion(apiVersion)
	object.SetKind(kind)
	object.SetNamespace(namespace)
	object.SetName(fresh())
	object.SetAnnotations(map[string]string{containmentv1alpha1.IncidentAnnotation: "shop/miner"})
	if value != "" {
		object.SetLabels(map[string]string{containmentv1alpha1.EvidenceLabel: value, containmentv1alpha1.IncidentUIDLabel: "11111111-1111-1111-1111-111111111111"})
		if namespace != "" {
			object.SetFinalizers([]string{containmentv1alpha1.EvidenceFinalizer})
		}
	}
	return object
}

// snapshotOf is a VolumeSnapshot of a claim.
func snapshotOf(namespace, claim, value string) *unstructured.Unstructured {
	return snapshotObject(snapshots, "VolumeSnapshot", namespace, value, map[string]any{"source": map[string]any{"persistentVolumeClaimName": claim}})
}

// contentOf is a content that nothing acts on: its driver does not exist.
func contentOf(value string) *unstructured.Unstructured {
	return snapshotObject(snapshots, "VolumeSnapshotContent", "", value, map[string]any{
		"deletionPolicy": "Retain", "driver": "nobody.example.com", "source": map[string]any{"snapshotHandle": "handle"},
		"volumeSnapshotRef": map[string]any{"namespace": shop, "name": "nowhere"},
	})
}

func groupSnapshotOf(value string) *unstructured.Unstructured {
	return snapshotObject(groups, "VolumeGroupSnapshot", shop, value, map[string]any{
		"volumeGroupSnapshotClassName": "nobody", "source": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "nobody"}}},
	})
}

func groupContentOf(value string) *unstructured.Unstructured {
	return snapshotObject(groups, "VolumeGroupSnapshotContent", "", value, map[string]any{
		"deletionPolicy": "Retain", "driver": "nobody.example.com", "source": map[string]any{"volumeHandles": []any{"handle"}},
		"volumeGroupSnapshotRef": map[string]any{"namespace": shop, "name": "nowhere"},
	})
}

// patched sends a merge patch, and takes in what came of it only when it is not a dry run.
func patched(ctx context.Context, who client.Client, object *unstructured.Unstructured, patch string, opts ...client.PatchOption) error {
	if len(opts) > 0 {
		object = object.DeepCopy()
	}
	return who.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)), opts...)
}

// kept creates an object as the operator does, and removes it afterwards.
func kept(ctx context.Context, object *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	Expect(operator.Create(ctx, object)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		Expect(client.IgnoreNotFound(operator.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))))).To(Succeed())
		Expect(client.IgnoreNotFound(operator.Delete(ctx, object))).To(Succeed())
	})
	return object
}

const (
	unlabel      = `{"metadata":{"labels":{"containment.cofferdam.dev/evidence":null}}}`
	relabel      = `{"metadata":{"labels":{"containment.cofferdam.dev/evidence":"other"}}}`
	disown       = `{"metadata":{"labels":{"containment.cofferdam.dev/incident-uid":null}}}`
	noFinalizers = `{"metadata":{"finalizers":null}}`
	replaced     = `{"metadata":{"finalizers":["example.com/other"]}}`
	addOther     = `{"metadata":{"labels":{"example.com/other":"x"},"annotations":{"example.com/other":"x"},"finalizers":["containment.cofferdam.dev/evidence","example.com/other"]}}`
	otherMeta    = `{"metadata":{"labels":{"example.com/other":"x"},"annotations":{"example.com/other":"x"},"finalizers":["example.com/other"]}}`
	toDelete     = `{"spec":{"deletionPolicy":"Delete"}}`
)

var _ = Describe("Snapshots that are evidence", func() {
	It("keep their marks", func(ctx context.Context) {
		for _, object := range []*unstructured.Unstructured{
			kept(ctx, snapshotOf(shop, "nowhere", "taking")), kept(ctx, contentOf("kept")), kept(ctx, groupSnapshotOf("taking")), kept(ctx, groupContentOf("kept")),
		} {
			kind := object.GetKind()
			for _, patch := range []string{unlabel, relabel, disown} {
				Expect(patched(ctx, admin, object, patch, client.DryRunAll)).To(And(Satisfy(apierrors.IsForbidden), refusedWith(onlyLabels+kind)), kind)
				Expect(patched(ctx, operator, object, patch, client.DryRunAll)).To(Succeed(), kind)
			}
			other := otherMeta
			if object.GetNamespace() != "" {
				for _, patch := range []string{noFinalizers, replaced} {
					Expect(patched(ctx, admin, object, patch, client.DryRunAll)).To(And(Satisfy(apierrors.IsForbidden), refusedWith(onlyFinalizers+kind)), kind)
					Expect(patched(ctx, operator, object, patch, client.DryRunAll)).To(Succeed(), kind)
				}
				other = addOther
			}
			Expect(patched(ctx, admin, object, other, client.DryRunAll)).To(Succeed(), "%s: what is not the operator's is anybody's", kind)
		}
	})

	It("are marked by the operator alone", func(ctx context.Context) {
		for _, build := range []func(string) *unstructured.Unstructured{
			func(value string) *unstructured.Unstructured { return snapshotOf(shop, "nowhere", value) }, contentOf, groupSnapshotOf, groupContentOf,
		} {
			marked := build("kept")
			kind := marked.GetKind()
			Expect(admin.Create(ctx, marked.DeepCopy(), client.DryRunAll)).To(refusedWith(onlyLabels+kind), kind)
			Expect(operator.Create(ctx, marked.DeepCopy(), client.DryRunAll)).To(Succeed(), kind)
			finalized := build("")
			finalized.SetFinalizers([]string{containmentv1alpha1.EvidenceFinalizer})
			Expect(admin.Create(ctx, finalized, client.DryRunAll)).To(refusedWith(onlyFinalizers+kind), kind)

			ordinary := build("")
			Expect(admin.Create(ctx, ordinary)).To(Succeed(), kind)
			Expect(patched(ctx, admin, ordinary, relabel, client.DryRunAll)).To(refusedWith(onlyLabels+kind), kind)
			Expect(patched(ctx, admin, ordinary, `{"metadata":{"finalizers":["containment.cofferdam.dev/evidence"]}}`, client.DryRunAll)).To(refusedWith(onlyFinalizers+kind), kind)
			Expect(patched(ctx, admin, ordinary, otherMeta)).To(Succeed(), kind)
			if ordinary.GetNamespace() == "" {
				Expect(patched(ctx, admin, ordinary, toDelete)).To(Succeed(), "%s: one that is not held", kind)
			}
			Expect(patched(ctx, admin, ordinary, noFinalizers)).To(Succeed(), kind)
			Expect(client.IgnoreNotFound(admin.Delete(ctx, ordinary))).To(Succeed(), kind)
		}
	})

	It("keep the policy that keeps them", func(ctx context.Context) {
		for _, object := range []*unstructured.Unstructured{kept(ctx, contentOf("kept")), kept(ctx, groupContentOf("kept"))} {
			Expect(patched(ctx, admin, object, toDelete, client.DryRunAll)).To(And(Satisfy(apierrors.IsForbidden), refusedWith(onlyPolicies)))
			Expect(patched(ctx, operator, object, toDelete, client.DryRunAll)).To(Succeed())
		}
	})

	It("are not deleted", func(ctx context.Context) {
		for _, object := range []*unstructured.Unstructured{
			kept(ctx, snapshotOf(shop, "nowhere", "taking")), kept(ctx, snapshotOf(shop, "nowhere", "kept")), kept(ctx, contentOf("kept")),
			kept(ctx, groupSnapshotOf("kept")), kept(ctx, groupContentOf("kept")),
		} {
			refused := And(Satisfy(apierrors.IsForbidden), refusedWith(object.GetKind()+" "+object.GetName()+" "+onlyDeletions))
			Expect(admin.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refused)
			Expect(admin.Delete(ctx, object.DeepCopy())).To(refused, "in earnest")
			for _, name := range []string{
				"snapshot-controller", "system:serviceaccount:kube-system:generic-garbage-collector", "system:serviceaccount:kube-system:namespace-controller",
			} {
				Expect(as(server.Impersonate(name, "system:masters")).Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refused, name)
			}
			Expect(operator.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(Succeed())
		}
		held := kept(ctx, snapshotOf(shop, "nowhere", "kept"))
		Expect(admin.DeleteAllOf(ctx, held.DeepCopy(), client.InNamespace(shop), client.MatchingLabels{containmentv1alpha1.EvidenceLabel: "kept"})).
			To(refusedWith(onlyDeletions), "as one of many")

		Expect(operator.Delete(ctx, held.DeepCopy())).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(held), held)).To(Succeed(), "its finalizer keeps it")
		Expect(patched(ctx, admin, held, noFinalizers, client.DryRunAll)).To(refusedWith(onlyFinalizers))
		Expect(admin.Delete(ctx, held.DeepCopy())).To(Succeed(), "what is being deleted may be deleted again")
	})
})

var _ = Describe("Claims that are snapshotted together", func() {
	It("are labelled by the operator alone", func(ctx context.Context) {
		const message = "labels that begin with containment.cofferdam.dev/group- are put on and taken off PersistentVolumeClaims by the Cofferdam operator alone"
		const label = `{"metadata":{"labels":{"containment.cofferdam.dev/group-1":"x"}}}`
		claim := claimOf(shop, fresh())
		Expect(admin.Create(ctx, claim)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(admin.Delete(ctx, claim)).To(Succeed()) })
		send := func(who client.Client, patch string, opts ...client.PatchOption) error {
			object := claim
			if len(opts) > 0 {
				object = claim.DeepCopy()
			}
			return who.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)), opts...)
		}
		marked := claimOf(shop, fresh())
		marked.Labels = map[string]string{"containment.cofferdam.dev/group-1": "x"}
		Expect(admin.Create(ctx, marked.DeepCopy(), client.DryRunAll)).To(refusedWith(message))
		Expect(operator.Create(ctx, marked.DeepCopy(), client.DryRunAll)).To(Succeed())

		Expect(send(admin, label, client.DryRunAll)).To(refusedWith(message))
		Expect(send(operator, label)).To(Succeed())
		for _, patch := range []string{
			`{"metadata":{"labels":{"containment.cofferdam.dev/group-1":null}}}`, `{"metadata":{"labels":{"containment.cofferdam.dev/group-1":"y"}}}`,
			`{"metadata":{"labels":{"containment.cofferdam.dev/group-2":"x"}}}`,
		} {
			Expect(send(admin, patch, client.DryRunAll)).To(refusedWith(message))
			Expect(send(operator, patch, client.DryRunAll)).To(Succeed())
		}
		Expect(send(admin, `{"metadata":{"labels":{"app":"web"}}}`)).To(Succeed())
	})
})

var _ = Describe("The snapshot controller", Ordered, func() {
	var namespace *corev1.Namespace
	var claim *corev1.PersistentVolumeClaim
	field := func(object *unstructured.Unstructured, fields ...string) any {
		value, _, err := unstructured.NestedFieldNoCopy(object.Object, fields...)
		Expect(err).NotTo(HaveOccurred())
		return value
	}
	look := func(ctx context.Context, object *unstructured.Unstructured) error {
		return admin.Get(ctx, client.ObjectKeyFromObject(object), object)
	}
	ready := func(snapshot *unstructured.Unstructured) bool {
		ready, _ := field(snapshot, "status", "readyToUse").(bool)
		return ready
	}
	// take has a snapshot taken as the operator does, and returns it and its content when the driver is done.
	take := func(ctx context.Context) (snapshot, content *unstructured.Unstructured) {
		GinkgoHelper()
		snapshot = snapshotOf(namespace.Name, claim.Name, "taking")
		Expect(operator.Create(ctx, snapshot)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(look(ctx, snapshot)).To(Succeed())
			g.Expect(ready(snapshot)).To(BeTrue())
		}).Should(Succeed())
		content = &unstructured.Unstructured{}
		content.SetAPIVersion(snapshots)
		content.SetKind("VolumeSnapshotContent")
		content.SetName(field(snapshot, "status", "boundVolumeSnapshotContentName").(string))
		Expect(look(ctx, content)).To(Succeed())
		return snapshot, content
	}

	BeforeAll(func(ctx context.Context) {
		namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fresh()}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		claim = claimOf(namespace.Name, "data")
		claim.Spec.StorageClassName = new("sim")
		Expect(admin.Create(ctx, claim)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(claim), claim)).To(Succeed())
			g.Expect(claim.Status.Phase).To(Equal(corev1.ClaimBound))
		}).Should(Succeed())
	})

	It("takes and deletes snapshots that are held, as the operator wants it", func(ctx context.Context) {
		snapshot, content := take(ctx)
		Expect(snapshot.GetFinalizers()).To(ContainElement("snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"), "its own finalizers")
		Expect(patched(ctx, operator, content, fmt.Sprintf(`{"metadata":{"labels":{%q:"kept"}},"spec":{"deletionPolicy":"Retain"}}`, containmentv1alpha1.EvidenceLabel))).To(Succeed())
		Expect(operator.Delete(ctx, snapshot)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(look(ctx, snapshot)).To(Succeed())
			g.Expect(snapshot.GetFinalizers()).To(ConsistOf(containmentv1alpha1.EvidenceFinalizer))
		}).Should(Succeed())
		Expect(patched(ctx, operator, snapshot, noFinalizers)).To(Succeed())
		Eventually(ctx, func() bool { return apierrors.IsNotFound(look(ctx, snapshot)) }).Should(BeTrue())
		Expect(look(ctx, content)).To(Succeed(), "it is retained")
		Expect(content.GetDeletionTimestamp()).To(BeNil())
		Expect(patched(ctx, operator, content, fmt.Sprintf(`{"metadata":{"labels":{%q:null}},"spec":{"deletionPolicy":"Delete"}}`, containmentv1alpha1.EvidenceLabel))).To(Succeed())
		Expect(operator.Delete(ctx, content)).To(Succeed())
		Eventually(ctx, func() bool { return apierrors.IsNotFound(look(ctx, content)) }).Should(BeTrue())
	})

	It("lets snapshots go with their namespace once they are kept, and their contents stay", func(ctx context.Context) {
		snapshot, content := take(ctx)
		Expect(admin.Delete(ctx, namespace)).To(Succeed())
		By("waiting while the snapshot is being taken")
		Eventually(ctx, func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)).To(Succeed())
			i := slices.IndexFunc(namespace.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == corev1.NamespaceDeletionContentFailure })
			g.Expect(i).To(BeNumerically(">=", 0))
			g.Expect(namespace.Status.Conditions[i].Message).To(ContainSubstring(onlyDeletions))
		}).Should(Succeed())
		Expect(look(ctx, snapshot)).To(Succeed())
		Expect(snapshot.GetDeletionTimestamp()).To(BeNil())
		By("going when it is kept")
		Expect(patched(ctx, operator, content, fmt.Sprintf(`{"metadata":{"labels":{%q:"kept"}},"spec":{"deletionPolicy":"Retain"}}`, containmentv1alpha1.EvidenceLabel))).To(Succeed())
		Expect(patched(ctx, operator, snapshot, fmt.Sprintf(`{"metadata":{"labels":{%q:"kept"}}}`, containmentv1alpha1.EvidenceLabel))).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			g.Expect(look(ctx, snapshot)).To(Succeed())
			g.Expect(snapshot.GetDeletionTimestamp()).NotTo(BeNil())
			g.Expect(snapshot.GetFinalizers()).To(ConsistOf(containmentv1alpha1.EvidenceFinalizer))
		}).Should(Succeed())
		Expect(patched(ctx, operator, snapshot, noFinalizers)).To(Succeed())
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace))
		}).Should(BeTrue())
		Expect(look(ctx, content)).To(Succeed())
		Expect(content.GetDeletionTimestamp()).To(BeNil())
		kept := content.DeepCopy()
		Expect(patched(ctx, operator, kept, unlabel)).To(Succeed())
		Expect(operator.Delete(ctx, kept)).To(Succeed())
	})
})
