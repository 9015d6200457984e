package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// liveReader answers as the API server does: pages, and what it refuses.
type liveReader struct {
	client.Reader
	t testing.TB
	// page bounds a page below what is asked for.
	page int
	// errs are what a kind is answered with; expire makes that many lists of the kind expire at their second page.
	errs   map[string]error
	expire map[string]int
	// asked counts requests: "list Service", "get Node".
	asked map[string]int
}

func (r *liveReader) requests() int {
	n := 0
	for _, count := range r.asked {
		n += count
	}
	return n
}

func (r *liveReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	gvk := obj.GetObjectKind().GroupVersionKind()
	r.asked["get "+gvk.Kind]++
	if _, metadata := obj.(*metav1.PartialObjectMetadata); (gvk.Kind == "Secret" || gvk.Kind == "ConfigMap") && !metadata {
		r.t.Errorf("%s %s is read with its data", gvk.Kind, key)
	}
	if err := r.errs[gvk.Kind]; err != nil {
		return err
	}
	return r.Reader.Get(ctx, key, obj, opts...)
}

func (r *liveReader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(opts)
	page, ok := list.(*unstructured.UnstructuredList)
	if !ok || options.Limit == 0 {
		r.t.Errorf("a list of type %T is asked for with limit %d", list, options.Limit)
	}
	kind := page.GroupVersionKind().Kind
	kind = kind[:len(kind)-len("List")]
	r.asked["list "+kind]++
	if kind == "Secret" || kind == "ConfigMap" {
		r.t.Errorf("%s is listed", kind)
	}
	if err := r.errs[kind]; err != nil {
		return err
	}
	from, _ := strconv.Atoi(options.Continue)
	if from > 0 && r.expire[kind] > 0 {
		r.expire[kind]--
		return apierrors.NewResourceExpired("too old")
	}
	limit := int(options.Limit)
	if r.page > 0 {
		limit = min(limit, r.page)
	}
	options.Limit, options.Continue = 0, ""
	if err := r.Reader.List(ctx, page, &options); err != nil {
		return err
	}
	to := min(from+limit, len(page.Items))
	if rest := int64(len(page.Items) - to); rest > 0 {
		page.SetContinue(strconv.Itoa(to))
		page.SetRemainingItemCount(&rest)
	}
	page.Items = page.Items[from:to]
	return nil
}

func live(t testing.TB, objs ...client.Object) *liveReader {
	return &liveReader{Reader: readerOf(objs...), t: t, errs: map[string]error{}, expire: map[string]int{}, asked: map[string]int{}}
}

func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", nil)
}

func metaOf(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)}
}

// owned is in the namespace of its owner, which is of apps/v1.
func owned(name string, owner client.Object, kind string) metav1.ObjectMeta {
	m := metaOf(owner.GetNamespace(), name)
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: new(true)}}
	return m
}

// canary stands in the data of every Secret and ConfigMap, and must be nowhere else.
const canary = "canary-8c1f"

func secret(namespace, name string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metaOf(namespace, name), Data: map[string][]byte{"password": []byte(canary)}, StringData: map[string]string{"more": canary}}
	s.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"password":"` + canary + `"}}`, "tool/copy": canary}
	return s
}

func configMap(namespace, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metaOf(namespace, name), Data: map[string]string{"config": canary}, BinaryData: map[string][]byte{"bin": []byte(canary)}}
}

// shopPod is pod number i of a StatefulSet in the namespace shop, with everything that a pod can refer to.
func shopPod(i int, owner *appsv1.StatefulSet) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: owned(fmt.Sprintf("web-%d", i), owner, "StatefulSet")}
	pod.Labels = map[string]string{"app": "web", "statefulset.kubernetes.io/pod-name": pod.Name}
	pod.Status.PodIP = fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
	pod.Spec = corev1.PodSpec{
		NodeName: fmt.Sprintf("node-%d", i%3), ServiceAccountName: "web",
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		Containers: []corev1.Container{{
			Name: "main", Env: []corev1.EnvVar{{Name: "PLAIN", Value: "plain"}, secretEnv("DB", "db")},
			EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Optional: new(true)}}},
		}},
		Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprintf("data-web-%d", i)}}}},
	}
	return pod
}

func secretEnv(name, secret string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "password"}}}
}

// shop is a namespace with so many pods, what belongs to them, and what does not.
func shop(pods int) ([]*corev1.Pod, []client.Object) {
	top := &appsv1.Deployment{ObjectMeta: metaOf("shop", "top")} // owns the StatefulSet, as an operator's object does
	set := &appsv1.StatefulSet{ObjectMeta: owned("web", top, "Deployment")}
	var out []*corev1.Pod
	objs := []client.Object{top, set}
	for i := range 3 {
		objs = append(objs, &corev1.Node{ObjectMeta: metaOf("", fmt.Sprintf("node-%d", i))})
	}
	for i := range pods {
		pod := shopPod(i, set)
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metaOf("shop", fmt.Sprintf("data-web-%d", i)), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: fmt.Sprintf("pv-%d", i), StorageClassName: new("fast")}}
		volume := &corev1.PersistentVolume{ObjectMeta: metaOf("", fmt.Sprintf("pv-%d", i)), Spec: corev1.PersistentVolumeSpec{StorageClassName: "fast", PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", NodeStageSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "stage"}},
		}}}
		objs = append(objs, claim, volume, &corev1.Event{ObjectMeta: metaOf("shop", fmt.Sprintf("event-%d", i)), InvolvedObject: corev1.ObjectReference{UID: pod.UID}})
		out = append(out, pod)
	}
	return out, slices.Concat(objs, shopNetwork(), shopRights(), shopRest(set))
}

func serviceOf(namespace, name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metaOf(namespace, name), Spec: corev1.ServiceSpec{Selector: selector}}
}

func sliceOf(namespace, name, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metaOf(namespace, name), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}}}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	return s
}

func ingressTo(name, service string) *networkingv1.Ingress {
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service}}
	ing := &networkingv1.Ingress{ObjectMeta: metaOf("shop", name), Spec: networkingv1.IngressSpec{TLS: []networkingv1.IngressTLS{{SecretName: "tls-" + name}}}}
	ing.Spec.Rules = []networkingv1.IngressRule{{IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Backend: backend}}}}}}
	return ing
}

func shopNetwork() []client.Object {
	ours := &networkingv1.NetworkPolicy{ObjectMeta: metaOf("shop", "cofferdam-quarantine-x")}
	ours.Labels = map[string]string{v1alpha1.IncidentUIDLabel: "x"}
	// The label keeps nothing else out of the evidence.
	labelled := serviceOf("shop", "labelled", map[string]string{"app": "web"})
	labelled.Labels = map[string]string{v1alpha1.IncidentUIDLabel: "x"}
	return []client.Object{
		serviceOf("shop", "web", map[string]string{"app": "web"}), labelled, serviceOf("shop", "not-db", map[string]string{"app": "db"}),
		serviceOf("shop", "manual", nil), sliceOf("shop", "manual-1", "manual", "10.0.0.1"), sliceOf("shop", "web-1", "web", "10.9.9.9"), sliceOf("shop", "not-db-1", "not-db", "10.9.9.9"),
		serviceOf("mallory", "in", nil), sliceOf("mallory", "in-1", "in", "10.0.0.1"), sliceOf("mallory", "not-1", "not", "10.9.9.9"),
		ingressTo("web", "web"), ingressTo("not-db", "not-db"),
		&networkingv1.NetworkPolicy{ObjectMeta: metaOf("shop", "allow-all")}, ours, &networkingv1.NetworkPolicy{ObjectMeta: metaOf("mallory", "not-here")},
		&policyv1.PodDisruptionBudget{ObjectMeta: metaOf("shop", "web"), Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
		&policyv1.PodDisruptionBudget{ObjectMeta: metaOf("shop", "not-db"), Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}},
	}
}

func subject(kind, namespace, name string) []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: kind, Namespace: namespace, Name: name}}
}

func bindingIn(namespace, name, role string, subjects []rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metaOf(namespace, name), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: role}, Subjects: subjects}
}

func clusterBinding(name, role string, subjects []rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metaOf("", name), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}, Subjects: subjects}
}

func shopRights() []client.Object {
	account := &corev1.ServiceAccount{ObjectMeta: metaOf("shop", "web"), Secrets: []corev1.ObjectReference{{Name: "web-token"}}}
	out := []client.Object{
		account, &corev1.ServiceAccount{ObjectMeta: metaOf("shop", "not-used")},
		bindingIn("shop", "anybody", "local", subject("User", "", "jane")),
		bindingIn("mallory", "far", "far", subject("ServiceAccount", "shop", "web")),
		bindingIn("mallory", "not-far", "not-far", subject("ServiceAccount", "mallory", "web")),
		clusterBinding("by-account", "admin", subject("ServiceAccount", "shop", "web")),
		clusterBinding("by-user-name", "view", subject("User", "", "system:serviceaccount:shop:web")),
		clusterBinding("by-group", "view", subject("Group", "", "system:serviceaccounts:shop")),
		clusterBinding("by-all-accounts", "gone", subject("Group", "", "system:serviceaccounts")),
		clusterBinding("by-everybody", "view", subject("Group", "", "system:authenticated")),
		clusterBinding("not-other-account", "not", subject("ServiceAccount", "shop", "not-used")),
		clusterBinding("not-other-group", "not", subject("Group", "", "system:serviceaccounts:mallory")),
	}
	for _, role := range []string{"admin", "view", "not"} {
		out = append(out, &rbacv1.ClusterRole{ObjectMeta: metaOf("", role)})
	}
	return append(out, &rbacv1.Role{ObjectMeta: metaOf("shop", "local")}, &rbacv1.Role{ObjectMeta: metaOf("mallory", "far")}, &rbacv1.Role{ObjectMeta: metaOf("mallory", "not-far")})
}

func shopRest(set *appsv1.StatefulSet) []client.Object {
	hpa := func(name, target string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metaOf("shop", name), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "StatefulSet", Name: target}}}
	}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metaOf("", "shop")}, &corev1.Namespace{ObjectMeta: metaOf("", "not-mallory")},
		&appsv1.ControllerRevision{ObjectMeta: owned("web-rev", set, "StatefulSet"), Data: runtime.RawExtension{Raw: []byte(`{"spec":{}}`)}},
		&appsv1.ControllerRevision{ObjectMeta: metaOf("shop", "not-rev")},
		&appsv1.ReplicaSet{ObjectMeta: owned("top-rs", &appsv1.Deployment{ObjectMeta: metaOf("shop", "top")}, "Deployment")},
		&appsv1.ReplicaSet{ObjectMeta: metaOf("shop", "not-rs")}, &appsv1.Deployment{ObjectMeta: metaOf("shop", "not-owner")},
		hpa("web", "web"), hpa("not-db", "db"),
		&storagev1.StorageClass{ObjectMeta: metaOf("", "fast")}, &storagev1.StorageClass{ObjectMeta: metaOf("", "not-slow")},
		&corev1.Node{ObjectMeta: metaOf("", "not-node")}, &corev1.PersistentVolume{ObjectMeta: metaOf("", "not-pv")}, &corev1.PersistentVolumeClaim{ObjectMeta: metaOf("shop", "not-claim")},
		&corev1.ResourceQuota{ObjectMeta: metaOf("shop", "quota")}, &corev1.LimitRange{ObjectMeta: metaOf("shop", "limits")},
		secret("shop", "db"), secret("shop", "pull"), secret("storage", "stage"), secret("shop", "web-token"), secret("shop", "tls-web"), configMap("shop", "settings"), secret("shop", "not-secret"),
		&corev1.Event{ObjectMeta: metaOf("shop", "event-other"), InvolvedObject: corev1.ObjectReference{UID: "other"}},
	}
}

// names are the objects in the record as "Kind namespace/name".
func names(t *testing.T, s *SurroundingsRecord) []string {
	t.Helper()
	var out []string
	for _, raw := range s.Objects {
		var obj metav1.PartialObjectMetadata
		if err := json.Unmarshal(raw, &obj); err != nil {
			t.Fatal(err)
		}
		out = append(out, nameOf(obj.Kind, obj.Namespace, obj.Name))
	}
	return out
}

func nameOf(kind, namespace, name string) string {
	if namespace == "" {
		return kind + " " + name
	}
	return kind + " " + namespace + "/" + name
}
