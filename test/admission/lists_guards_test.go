package admission

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/cluster"
)

var _ = Describe("The records and lists of the operator", func() {
	const record = "is a record of the Cofferdam operator, which alone changes and deletes it"
	const mark = "the labels held, refusals and evidence under containment.cofferdam.dev/ are put on ConfigMaps in this namespace by the Cofferdam operator alone"
	marked := func(namespace, label string) *corev1.ConfigMap {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fresh()}}
		if label != "" {
			object.Labels = map[string]string{label: "anything"}
		}
		return object
	}

	DescribeTable("are written by the operator alone", func(ctx context.Context, label string) {
		Expect(admin.Create(ctx, marked(cluster.OperatorNamespace, label), client.DryRunAll)).To(refusedWith(mark))
		object := marked(cluster.OperatorNamespace, label)
		Expect(operator.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(operator.Delete(ctx, object)).To(Succeed()) })

		changed := object.DeepCopy()
		changed.Data = map[string]string{"a": "b"}
		Expect(operator.Update(ctx, changed.DeepCopy(), client.DryRunAll)).To(Succeed())
		disowned := object.DeepCopy()
		disowned.Labels = nil
		namespaces := as(server.Impersonate("system:serviceaccount:kube-system:namespace-controller", "system:masters"))
		for _, who := range []client.Client{admin, overseer, namespaces} {
			Expect(who.Update(ctx, changed.DeepCopy(), client.DryRunAll)).To(refusedWith("ConfigMap " + object.Name + " " + record))
			Expect(who.Update(ctx, disowned.DeepCopy(), client.DryRunAll)).To(refusedWith(record))
			Expect(who.Delete(ctx, object.DeepCopy(), client.DryRunAll)).To(refusedWith(record))
			Expect(who.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(cluster.OperatorNamespace), client.HasLabels{label})).To(refusedWith(record))
		}
		Expect(tenant.Create(ctx, marked(shop, label), client.DryRunAll)).To(Succeed(), "in any other namespace it means nothing")
	},
		Entry("what is held", heldLabel),
		Entry("what is refused", containmentv1alpha1.RefusalsLabel),
		Entry("evidence", containmentv1alpha1.EvidenceLabel),
	)

	It("are not the other ConfigMaps beside them", func(ctx context.Context) {
		object := marked(cluster.OperatorNamespace, "")
		Expect(tenant.Create(ctx, object)).To(Succeed())
		object.Data = map[string]string{"a": "b"}
		Expect(tenant.Update(ctx, object)).To(Succeed())
		taken := object.DeepCopy()
		taken.Labels = map[string]string{heldLabel: "true"}
		Expect(tenant.Update(ctx, taken, client.DryRunAll)).To(refusedWith(mark))
		Expect(tenant.Delete(ctx, object)).To(Succeed())
	})
})
