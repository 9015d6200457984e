package lifecycle

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/test/scenario"
)

// selectedByUs names the NetworkPolicies of the shop that select the pod; the shop has none of its own unless a test creates one.
func selectedByUs(ctx context.Context, shop *scenario.Shop, pod *corev1.Pod) []string {
	GinkgoHelper()
	var list networkingv1.NetworkPolicyList
	Expect(shop.Admin.List(ctx, &list, client.InNamespace(shop.Namespace))).To(Succeed())
	var out []string
	for _, p := range list.Items {
		if selects(p, pod.Labels) {
			out = append(out, p.Name)
		}
	}
	return out
}

func selects(p networkingv1.NetworkPolicy, podLabels map[string]string) bool {
	GinkgoHelper()
	sel, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	Expect(err).NotTo(HaveOccurred())
	return sel.Matches(labels.Set(podLabels))
}
