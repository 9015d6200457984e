package admission

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	. "cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

// The ConfigMaps that tell admission what is held, and their lists. See config/guard/quarantine-access.yaml.
const (
	heldLabel      = "containment.cofferdam.dev/held"
	heldNamespaces = "namespaces"
	heldPods       = "pods"
	heldKept       = "kept"
	heldClaims     = "claims"
	heldLabels     = "labels"
)

// somebody acts under a name of their own: through a client, and through the one that also connects to pods.
type somebody struct {
	client.Client
	raw kubernetes.Interface
}

func user(name string, groups ...string) somebody {
	GinkgoHelper()
	config := server.Impersonate(name, groups...)
	raw, err := kubernetes.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	return somebody{Client: as(config), raw: raw}
}

// mayEdit is what the role edit lacks and the guards could stop. It holds no verb of the operator's own API.
var mayEdit = &rbacv1.ClusterRole{
	ObjectMeta: metav1.ObjectMeta{Name: "may-edit"},
	Rules: []rbacv1.PolicyRule{
		{
			APIGroups: []string{""}, Verbs: []string{"*"}, Resources: []string{
				"namespaces", "persistentvolumes", "persistentvolumeclaims", "configmaps", "bindings",
				"pods", "pods/binding", "pods/ephemeralcontainers", "pods/eviction", "pods/resize", "pods/status",
			},
		},
		{
			Verbs: []string{"*"}, Resources: []string{"*"}, APIGroups: []string{
				"networking.k8s.io", "policy", "policy.networking.k8s.io", "cilium.io", "projectcalico.org", "crd.projectcalico.org", "crd.antrea.io",
			},
		},
	},
}

// holding is a role that holds one of the verbs of the guards.
func holding(verb string) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "holds-" + verb},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{containmentv1alpha1.SchemeGroupVersion.Group}, Resources: []string{"incidents"}, Verbs: []string{"get", verb},
		}},
	}
}

// resident makes somebody who may edit, and holds a role in namespaces (everywhere when none is given), and waits until the API server knows.
func resident(ctx context.Context, name, role string, namespaces ...string) somebody {
	GinkgoHelper()
	bind(ctx, name, "edit", shop, pay)
	bind(ctx, name, mayEdit.Name)
	if role != "" {
		bind(ctx, name, role, namespaces...)
	}
	who := user(name)
	Eventually(ctx, func(g Gomega) {
		g.Expect(who.List(ctx, &corev1.PodList{}, client.InNamespace(pay))).To(Succeed())
		g.Expect(who.List(ctx, &corev1.PersistentVolumeList{})).To(Succeed())
		g.Expect(role == "" || may(ctx, who, shop, "get", "incidents", "")).To(BeTrue())
	}).Should(Succeed())
	return who
}

// lists are the lines of a held list, by key.
type lists map[string][]string

// held stores a held list as the operator does, under an Incident's name, and returns when the guards know it.
func held(ctx context.Context, incident string, all lists) *corev1.ConfigMap {
	GinkgoHelper()
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: cluster.OperatorNamespace, Name: fresh(), Labels: map[string]string{heldLabel: "true"},
	}}
	if incident != "" {
		list.Annotations = map[string]string{containmentv1alpha1.IncidentAnnotation: incident}
	}
	list.Data = dataOf(all, list.Name)
	Expect(operator.Create(ctx, list)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		Expect(operator.Delete(ctx, list)).To(Succeed())
		Eventually(ctx, evictProbe).WithArguments(list.Name).Should(Satisfy(apierrors.IsNotFound))
	})
	Eventually(ctx, evictProbe).WithArguments(list.Name).Should(refusedWith("is not deleted or evicted"))
	return list
}

// listAgain replaces what a held list says and returns when the guards know it.
func listAgain(ctx context.Context, list *corev1.ConfigMap, all lists) {
	GinkgoHelper()
	probe := fresh()
	list.Data = dataOf(all, list.Name, probe)
	Expect(operator.Update(ctx, list)).To(Succeed())
	Eventually(ctx, evictProbe).WithArguments(probe).Should(refusedWith("is not deleted or evicted"))
}

// dataOf writes lists down, and adds pods that do not exist: as soon as their eviction is refused, the list is in effect in all guards, which
// the API server serves from one watch.
func dataOf(all lists, probes ...string) map[string]string {
	data := map[string]string{}
	for key, lines := range all {
		data[key] = strings.Join(lines, "\n") + "\n"
	}
	for _, probe := range probes {
		data[heldKept] += shop + "/" + probe + "\n"
	}
	return data
}

func evictProbe(ctx context.Context, name string) error {
	return evict(ctx, tenant, name)
}

// evict tries to evict a pod of the shop and leaves it where it is.
func evict(ctx context.Context, who somebody, name string) error {
	return who.raw.PolicyV1().Evictions(shop).Evict(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: shop, Name: name},
		DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}},
	})
}

// waiting stores a pod that no scheduler takes, so that nothing happens to it but what a test does.
func waiting(ctx context.Context, namespace string, labels ...string) *corev1.Pod {
	GinkgoHelper()
	pod := Pod(namespace, fresh(), labels...)
	pod.Spec.SchedulerName = "nobody"
	Expect(operator.Create(ctx, pod)).To(Succeed())
	DeferCleanup(func(ctx context.Context) {
		Expect(client.IgnoreNotFound(operator.Delete(ctx, pod, client.GracePeriodSeconds(0)))).To(Succeed())
	})
	return pod
}

func key(object client.Object) string {
	return object.GetNamespace() + "/" + object.GetName()
}

// passed matches what comes of a request that neither RBAC nor a guard refused. It may fail later: nothing answers in a pod of these tests.
func passed() OmegaMatcher {
	return Not(Satisfy(func(err error) bool {
		return apierrors.IsForbidden(err) || err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
	}))
}
