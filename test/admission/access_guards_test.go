package admission

import (
	"context"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	. "cofferdam.dev/cofferdam/test/builder"
)

// connect asks to be connected to a pod, whose name stands for POD in the address, and returns why that failed: nothing answers there.
func connect(verb, name, subresource string, parameters ...string) func(context.Context, somebody, *corev1.Pod) error {
	return func(ctx context.Context, who somebody, pod *corev1.Pod) error {
		request := who.raw.CoreV1().RESTClient().Verb(verb).Namespace(pod.Namespace).Resource("pods").
			Name(strings.Replace(name, "POD", pod.Name, 1)).SubResource(subresource)
		for i := 0; i+1 < len(parameters); i += 2 {
			request.Param(parameters[i], parameters[i+1])
		}
		return request.Do(ctx).Error()
	}
}

// alter tries a strategic merge patch of a pod, through a subresource if one is given.
func alter(subresource, body string) func(context.Context, somebody, *corev1.Pod) error {
	return func(ctx context.Context, who somebody, pod *corev1.Pod) error {
		patch := client.RawPatch(types.StrategicMergePatchType, []byte(body))
		if subresource == "" {
			return who.Patch(ctx, pod.DeepCopy(), patch, client.DryRunAll)
		}
		return who.SubResource(subresource).Patch(ctx, pod.DeepCopy(), patch, client.DryRunAll)
	}
}

// entries are the ways into a pod, with the word that the refusal uses.
var entries = []struct {
	name, word string
	try        func(context.Context, somebody, *corev1.Pod) error
}{
	{"exec", "exec", connect(http.MethodPost, "POD", "exec", "command", "id", "stdout", "true")},
	{"exec by WebSocket", "exec", connect(http.MethodGet, "POD", "exec", "command", "id", "stdout", "true")},
	{"attach", "attach", connect(http.MethodPost, "POD", "attach", "stdout", "true")},
	{"attach by WebSocket", "attach", connect(http.MethodGet, "POD", "attach", "stdout", "true")},
	{"port-forward", "portforward", connect(http.MethodPost, "POD", "portforward", "ports", "80")},
	{"port-forward by WebSocket", "portforward", connect(http.MethodGet, "POD", "portforward", "ports", "80")},
	{"proxy", "proxy", connect(http.MethodGet, "POD", "proxy")},
	{"proxy that changes something", "proxy", connect(http.MethodPost, "POD", "proxy")},
	{"proxy to a port", "proxy", connect(http.MethodGet, "POD:80", "proxy")},
	{"proxy by scheme and port", "proxy", connect(http.MethodGet, "https:POD:80", "proxy")},
	{"proxy by an empty scheme", "proxy", connect(http.MethodGet, ":POD:80", "proxy")},
	{"ephemeral container", "ephemeralcontainers", alter("ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"`+GoodImage+`"}]}}`)},
	{"resize", "resize", alter("resize", `{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"200m"}}}]}}`)},
	{"another image", "a change of its spec", alter("", `{"spec":{"containers":[{"name":"app","image":"registry.k8s.io/pause:3.9"}]}}`)},
	{"a deadline", "a change of its spec", alter("", `{"spec":{"activeDeadlineSeconds":1}}`)},
}

var _ = Describe("Entering a quarantined pod", func() {
	var pod, elsewhere, free *corev1.Pod
	BeforeEach(func(ctx context.Context) {
		sized := func(namespace string) *corev1.Pod {
			pod := Pod(namespace, fresh())
			pod.Spec.SchedulerName = "nobody"
			pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
			Expect(operator.Create(ctx, pod)).To(Succeed())
			DeferCleanup(func(ctx context.Context) {
				Expect(operator.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
			})
			return pod
		}
		pod, elsewhere, free = sized(shop), sized(pay), sized(shop)
		held(ctx, "shop/miner", lists{heldNamespaces: {shop, pay}, heldPods: {shop + "/other", key(pod), key(elsewhere)}})
	})

	for _, entry := range entries {
		It("takes a verb: "+entry.name, func(ctx context.Context) {
			Expect(entry.try(ctx, tenant, pod)).To(And(
				Satisfy(apierrors.IsForbidden),
				refusedWith("Pod "+key(pod)+" is held in quarantine by Incident shop/miner, and "+entry.word+" changes the evidence"),
				refusedWith("It takes the RBAC verb examine on incidents.containment.cofferdam.dev in namespace shop: see ClusterRole cofferdam-examiner"),
			))
			Expect(entry.try(ctx, overseer, pod)).To(refusedWith("It takes the RBAC verb examine"), "other verbs do not help")
			Expect(entry.try(ctx, examiner, elsewhere)).To(refusedWith("in namespace pay"), "the verb counts where the pod is")

			Expect(entry.try(ctx, examiner, pod)).To(passed())
			Expect(entry.try(ctx, operatorAsTenant, pod)).To(passed())
			Expect(entry.try(ctx, tenant, free)).To(passed(), "a free pod")
			namesake := pod.DeepCopy()
			namesake.Namespace = pay
			Expect(entry.try(ctx, tenant, namesake)).To(passed(), "its name in another namespace")
		})
	}

	It("is not looking at it, nor changing what is beside its spec", func(ctx context.Context) {
		for _, subresource := range []string{"", "status"} {
			Expect(tenant.raw.CoreV1().RESTClient().Get().Namespace(shop).Resource("pods").Name(pod.Name).SubResource(subresource).Do(ctx).Error()).To(Succeed())
		}
		Expect(tenant.raw.CoreV1().Pods(shop).GetLogs(pod.Name, &corev1.PodLogOptions{}).Do(ctx).Error()).To(passed())
		Expect(alter("", `{"metadata":{"annotations":{"note":"b"}}}`)(ctx, tenant, pod)).To(Succeed())
		Expect(alter("", `{"spec":{"containers":[{"name":"app","image":"`+GoodImage+`"}]}}`)(ctx, tenant, pod)).To(Succeed(), "the same image")
	})

	It("is free again when the pod leaves the list, and one list does not free what another holds", func(ctx context.Context) {
		exec := entries[0].try
		second := held(ctx, "", lists{heldPods: {key(pod)}})
		Expect(exec(ctx, tenant, pod)).To(refusedWith("is held in quarantine by Incident "))
		third := held(ctx, "", lists{heldPods: {key(free)}})
		Expect(exec(ctx, tenant, free)).To(refusedWith("by Incident unknown, see ConfigMap " + third.Name))
		listAgain(ctx, second, nil)
		Expect(exec(ctx, tenant, pod)).To(refusedWith("by Incident shop/miner"))
		listAgain(ctx, third, nil)
		Expect(exec(ctx, tenant, free)).To(passed())
	})

	It("does not happen by a Binding that carries labels or annotations", func(ctx context.Context) {
		bindTo := func(who somebody, to *corev1.Pod, legacy bool, labels, annotations map[string]string) error {
			binding := &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: to.Name, Labels: labels, Annotations: annotations},
				Target:     corev1.ObjectReference{Kind: "Node", Name: "nowhere"},
			}
			request := who.raw.CoreV1().RESTClient().Post().Namespace(shop).Resource("pods").Name(to.Name).SubResource("binding")
			if legacy {
				request = who.raw.CoreV1().RESTClient().Post().Namespace(shop).Resource("bindings")
			}
			return request.Param("dryRun", metav1.DryRunAll).Body(binding).Do(ctx).Error()
		}
		ordinary := map[string]string{"app": "web"}
		place := map[string]string{"topology.kubernetes.io/zone": "a"}
		const message = "is held in quarantine by Incident shop/miner: a Binding carries no labels or annotations onto it"
		for _, legacy := range []bool{false, true} {
			for _, who := range []somebody{tenant, examiner} {
				Expect(bindTo(who, pod, legacy, ordinary, nil)).To(refusedWith(message))
				Expect(bindTo(who, pod, legacy, nil, ordinary)).To(refusedWith(message))
				Expect(bindTo(who, pod, legacy, nil, nil)).To(Succeed())
				Expect(bindTo(who, pod, legacy, place, nil)).To(Succeed())
			}
			Expect(bindTo(tenant, free, legacy, ordinary, ordinary)).To(Succeed(), "a free pod")
			Expect(bindTo(tenant, free, legacy, map[string]string{quarantineLabel: "held"}, nil)).To(refusedWith("labels under quarantine.cofferdam.dev/"))
		}
	})

	It("is looked up among as many pods as one ConfigMap holds", func(ctx context.Context) {
		lines := []string{}
		for len(lines) < 3500 {
			lines = append(lines, Long(63)+"/"+Long(200)+fresh())
		}
		held(ctx, "shop/big", lists{heldPods: append(lines, key(free))})
		Expect(entries[0].try(ctx, tenant, free)).To(refusedWith("is held in quarantine by Incident shop/big"))
		Expect(entries[0].try(ctx, examiner, free)).To(passed())
		Expect(entries[0].try(ctx, tenant, waiting(ctx, shop))).To(passed())
	})
})
