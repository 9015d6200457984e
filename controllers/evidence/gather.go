package evidence

import (
	"context"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/route"
)

// +kubebuilder:rbac:groups="",resources=namespaces;nodes;persistentvolumeclaims;persistentvolumes;replicationcontrollers;serviceaccounts;services,verbs=get;list
// +kubebuilder:rbac:groups="",resources=events;limitranges;resourcequotas,verbs=list
// +kubebuilder:rbac:groups=apps,resources=daemonsets;deployments;replicasets;statefulsets,verbs=get;list
// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=list
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=list
// +kubebuilder:rbac:groups=batch,resources=cronjobs;jobs,verbs=get;list
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses;networkpolicies,verbs=list
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=list
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles;roles,verbs=get;list
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterrolebindings;rolebindings,verbs=list
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get;list

const (
	// maxOwnerKinds bounds the kinds of owners that are followed; a cluster's own and a few operators' have far fewer.
	maxOwnerKinds = 16
	// maxOtherEvents bounds the events of the namespace that are about nothing in the record.
	maxOtherEvents = 500
)

func all(*unstructured.Unstructured) bool { return true }

// workloads gathers the owners of the pods up to the top, their revisions, and what scales them.
func (g *gathering) workloads(ctx context.Context) error {
	owners, err := g.owners(ctx)
	if err != nil {
		return err
	}
	uids, names := map[types.UID]bool{}, map[string]bool{}
	for _, owner := range owners {
		uids[owner.GetUID()] = true
		names[owner.GetKind()+"/"+owner.GetName()] = true
	}
	for _, revisions := range []string{"ReplicaSet", "ControllerRevision"} {
		if _, err := g.list(ctx, kindIn("apps", "v1", revisions), g.namespace, func(obj *unstructured.Unstructured) bool { return ownedBy(obj, uids) }); err != nil {
			return err
		}
	}
	_, err = g.list(ctx, kindIn("autoscaling", "v2", "HorizontalPodAutoscaler"), g.namespace, func(obj *unstructured.Unstructured) bool {
		target := as[autoscalingv2.HorizontalPodAutoscaler](obj).Spec.ScaleTargetRef
		return names[target.Kind+"/"+target.Name]
	})
	return err
}

// owners follows owner references level by level, all pods at once.
func (g *gathering) owners(ctx context.Context) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	seen, kinds := map[objectKey]bool{}, map[schema.GroupVersionKind]bool{}
	refs := podOwners(g.pods)
	for level := 0; level < maxOwners && len(refs) > 0; level++ {
		wanted := map[schema.GroupVersionKind]map[string]types.UID{}
		for _, ref := range refs {
			gvk, key := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind), objectKey{ref.APIVersion, ref.Kind, g.namespace, ref.Name}
			if seen[key] {
				continue
			}
			seen[key] = true
			if holdsData(gvk) {
				g.refs.add(gvk.Kind, g.namespace, ref.Name, "owner reference", "", false, "")
				continue
			}
			if kinds[gvk] = true; len(kinds) > maxOwnerKinds {
				delete(kinds, gvk)
				g.leave("owners of further kinds", g.namespace, 1, "more kinds of owners than are followed")
				continue
			}
			if wanted[gvk] == nil {
				wanted[gvk] = map[string]types.UID{}
			}
			wanted[gvk][ref.Name] = ref.UID
		}
		found, err := g.ownersOf(ctx, wanted)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
		refs = nil
		for _, owner := range found {
			refs = append(refs, owner.GetOwnerReferences()...)
		}
	}
	return out, nil
}

// podOwners are the owners of the pods, and those that they had before another Incident detached them.
func podOwners(pods []*corev1.Pod) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, pod := range pods {
		out = append(out, pod.OwnerReferences...)
		if original, err := measure.OriginalOf(pod); err == nil && original != nil && original.Owner != nil {
			out = append(out, *original.Owner)
		}
	}
	return out
}

func (g *gathering) ownersOf(ctx context.Context, wanted map[schema.GroupVersionKind]map[string]types.UID) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for gvk, names := range wanted {
		k := kind{GroupVersionKind: gvk, cluster: gvk.Group == "" && gvk.Kind == "Node", foreign: !ownGroup(gvk.Group)}
		var keys []client.ObjectKey
		for name := range names {
			keys = append(keys, client.ObjectKey{Namespace: g.namespace, Name: name})
		}
		found, err := g.named(ctx, k, keys)
		if err != nil {
			return nil, err
		}
		for _, owner := range found {
			if uid := names[owner.GetName()]; uid != owner.GetUID() {
				g.missing(k, client.ObjectKeyFromObject(owner), "there is only a namesake: the owner had the UID "+string(uid))
				continue
			}
			out = append(out, owner)
		}
	}
	return out, nil
}

// network gathers how the pods are reached: Services and EndpointSlices that select or name them, in other namespaces too where EndpointSlices are made by hand, and Ingresses that lead to those Services.
func (g *gathering) network(ctx context.Context) error {
	service, slice := kindIn("", "v1", "Service"), kindIn("discovery.k8s.io", "v1", "EndpointSlice")
	services, err := g.list(ctx, service, g.namespace, func(obj *unstructured.Unstructured) bool {
		selector := as[corev1.Service](obj).Spec.Selector
		return len(selector) > 0 && g.selects(labels.SelectorFromValidatedSet(selector))
	})
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, s := range services {
		names[s.GetName()] = true
	}
	pods := map[string]bool{}
	for _, pod := range g.pods {
		for _, key := range route.PodKeys(pod) {
			pods[key] = true
		}
	}
	lists := func(obj *unstructured.Unstructured) bool {
		return slices.ContainsFunc(route.SliceKeys(as[discoveryv1.EndpointSlice](obj)), func(key string) bool { return pods[key] })
	}
	near, err := g.list(ctx, slice, g.namespace, func(obj *unstructured.Unstructured) bool {
		return names[obj.GetLabels()[discoveryv1.LabelServiceName]] || lists(obj)
	})
	if err != nil {
		return err
	}
	handMade, err := labels.Parse(discoveryv1.LabelManagedBy + "!=endpointslice-controller.k8s.io")
	if err != nil {
		return err
	}
	far, err := g.list(ctx, slice, "", func(obj *unstructured.Unstructured) bool { return obj.GetNamespace() != g.namespace && lists(obj) }, client.MatchingLabelsSelector{Selector: handMade})
	if err != nil {
		return err
	}
	var named []client.ObjectKey
	for _, s := range append(near, far...) {
		if name := s.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
			named = append(named, client.ObjectKey{Namespace: s.GetNamespace(), Name: name})
			names[name] = names[name] || s.GetNamespace() == g.namespace
		}
	}
	if _, err := g.named(ctx, service, named); err != nil {
		return err
	}
	return g.ingresses(ctx, names)
}

func (g *gathering) ingresses(ctx context.Context, services map[string]bool) error {
	found, err := g.list(ctx, kindIn("networking.k8s.io", "v1", "Ingress"), g.namespace, func(obj *unstructured.Unstructured) bool {
		spec := as[networkingv1.Ingress](obj).Spec
		if leadsTo(spec.DefaultBackend, services) {
			return true
		}
		for _, rule := range spec.Rules {
			if rule.HTTP != nil && slices.ContainsFunc(rule.HTTP.Paths, func(p networkingv1.HTTPIngressPath) bool { return leadsTo(&p.Backend, services) }) {
				return true
			}
		}
		return false
	})
	for _, obj := range found {
		for _, tls := range as[networkingv1.Ingress](obj).Spec.TLS {
			g.refs.add("Secret", g.namespace, tls.SecretName, "spec.tls of Ingress "+obj.GetName(), "", false, "")
		}
	}
	return err
}

func leadsTo(backend *networkingv1.IngressBackend, services map[string]bool) bool {
	return backend != nil && backend.Service != nil && services[backend.Service.Name]
}

// policies gathers what restricts the pods and the namespace.
func (g *gathering) policies(ctx context.Context) error {
	for _, k := range []kind{guardedKind("networking.k8s.io", "v1", "NetworkPolicy"), kindIn("", "v1", "ResourceQuota"), kindIn("", "v1", "LimitRange")} {
		if _, err := g.list(ctx, k, g.namespace, all); err != nil {
			return err
		}
	}
	g.otherPolicies(ctx)
	_, err := g.list(ctx, guardedKind("policy", "v1", "PodDisruptionBudget"), g.namespace, func(obj *unstructured.Unstructured) bool {
		selector, err := metav1.LabelSelectorAsSelector(as[policyv1.PodDisruptionBudget](obj).Spec.Selector)
		return err != nil || g.selects(selector)
	})
	return err
}

// PolicyKinds are the kinds of network policies of other APIs than Kubernetes' own, and the cache in which they are followed.
type PolicyKinds struct {
	Cache client.Reader
	// Complete are the kinds of which the cache has everything, Missing those that are served and not read yet.
	Complete, Missing []schema.GroupVersionKind
}

// cacheLimit bounds the reading of a cache, which answers at once unless the kind has just ceased to be followed: containment waits for it.
const cacheLimit = 5 * time.Second

// otherPolicies gathers the policies of other APIs that may be about the namespace, whatever they select: what that is, each API says in its own way. They come from the cache, so that an API whose
// server hangs delays nothing.
func (g *gathering) otherPolicies(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cacheLimit)
	defer cancel()
	live := g.reader
	defer func() { g.reader = live }()
	g.reader = g.others.Cache
	about := func(obj *unstructured.Unstructured) bool {
		return obj.GetNamespace() == "" || obj.GetNamespace() == g.namespace
	}
	for _, gvk := range g.others.Complete {
		// A cache knows no pages.
		if _, err := g.list(ctx, kind{GroupVersionKind: gvk, foreign: true}, "", about, client.Limit(0)); err != nil {
			g.notRead[objectKey{gvk.GroupVersion().String(), gvk.Kind, "", ""}] = oneLine(err.Error())
		}
	}
	for _, gvk := range g.others.Missing {
		g.notRead[objectKey{gvk.GroupVersion().String(), gvk.Kind, "", ""}] = "not read yet when the record was made"
	}
}

// place gathers the namespace and the nodes that the pods run on.
func (g *gathering) place(ctx context.Context) error {
	if _, err := g.named(ctx, clusterKind("", "Namespace"), []client.ObjectKey{{Name: g.namespace}}); err != nil {
		return err
	}
	var nodes []client.ObjectKey
	for _, pod := range g.pods {
		nodes = append(nodes, client.ObjectKey{Name: pod.Spec.NodeName})
	}
	_, err := g.named(ctx, clusterKind("", "Node"), nodes)
	return err
}

// rights gathers the ServiceAccounts of the pods, every binding that gives them something, and the roles that it gives.
func (g *gathering) rights(ctx context.Context) error {
	accounts := map[string]bool{}
	var keys []client.ObjectKey
	for _, pod := range g.pods {
		accounts[accountOf(pod)] = true
		keys = append(keys, client.ObjectKey{Namespace: g.namespace, Name: accountOf(pod)})
	}
	found, err := g.named(ctx, kindIn("", "v1", "ServiceAccount"), keys)
	if err != nil {
		return err
	}
	for _, account := range found {
		g.refs.addAccount(as[corev1.ServiceAccount](account))
	}
	names := func(obj *unstructured.Unstructured) bool {
		return slices.ContainsFunc(as[rbacv1.ClusterRoleBinding](obj).Subjects, func(s rbacv1.Subject) bool { return namesAccount(s, g.namespace, accounts) })
	}
	const group = "rbac.authorization.k8s.io"
	here, err := g.list(ctx, kindIn(group, "v1", "RoleBinding"), g.namespace, all)
	if err != nil {
		return err
	}
	cluster, err := g.list(ctx, clusterKind(group, "ClusterRoleBinding"), "", names)
	if err != nil {
		return err
	}
	elsewhere, err := g.list(ctx, kindIn(group, "v1", "RoleBinding"), "", func(obj *unstructured.Unstructured) bool { return obj.GetNamespace() != g.namespace && names(obj) })
	if err != nil {
		return err
	}
	roles := map[string][]client.ObjectKey{}
	for _, binding := range slices.Concat(here, cluster, elsewhere) {
		ref := as[rbacv1.ClusterRoleBinding](binding).RoleRef
		roles[ref.Kind] = append(roles[ref.Kind], client.ObjectKey{Namespace: binding.GetNamespace(), Name: ref.Name})
	}
	if _, err = g.named(ctx, kindIn(group, "v1", "Role"), roles["Role"]); err != nil {
		return err
	}
	_, err = g.named(ctx, clusterKind(group, "ClusterRole"), roles["ClusterRole"])
	return err
}

// namesAccount reports whether the subject of a binding is one of the accounts of the namespace, or a group that every account of it is in (Kubernetes documentation, "Using RBAC Authorization", service accounts).
func namesAccount(s rbacv1.Subject, namespace string, accounts map[string]bool) bool {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		return s.Namespace == namespace && accounts[s.Name]
	case rbacv1.GroupKind:
		return s.Name == "system:authenticated" || s.Name == "system:serviceaccounts" || s.Name == "system:serviceaccounts:"+namespace
	case rbacv1.UserKind:
		for account := range accounts {
			if s.Name == "system:serviceaccount:"+namespace+":"+account {
				return true
			}
		}
	}
	return false
}

// volumes gathers the claims of the pods, the volumes behind them and their classes.
func (g *gathering) volumes(ctx context.Context) error {
	var claims, volumes, classes []client.ObjectKey
	for claim := range Claims(g.pods) {
		claims = append(claims, claim)
	}
	found, err := g.named(ctx, kindIn("", "v1", "PersistentVolumeClaim"), claims)
	if err != nil {
		return err
	}
	for _, obj := range found {
		spec := as[corev1.PersistentVolumeClaim](obj).Spec
		volumes = append(volumes, client.ObjectKey{Name: spec.VolumeName})
		if spec.StorageClassName != nil {
			classes = append(classes, client.ObjectKey{Name: *spec.StorageClassName})
		}
	}
	found, err = g.named(ctx, clusterKind("", "PersistentVolume"), volumes)
	if err != nil {
		return err
	}
	for _, obj := range found {
		volume := as[corev1.PersistentVolume](obj)
		classes = append(classes, client.ObjectKey{Name: volume.Spec.StorageClassName})
		g.refs.addVolume(volume)
	}
	_, err = g.named(ctx, clusterKind("storage.k8s.io", "StorageClass"), classes)
	return err
}

// events gathers the events of the namespace: all about the pods and what is in the record, and some about the rest, because events vanish after an hour.
func (g *gathering) events(ctx context.Context) error {
	known := map[types.UID]bool{}
	for _, pod := range g.pods {
		known[pod.UID] = true
	}
	for _, kept := range g.kept {
		known[kept.uid] = true
	}
	others := 0
	_, err := g.list(ctx, kindIn("", "v1", "Event"), g.namespace, func(obj *unstructured.Unstructured) bool {
		if known[as[corev1.Event](obj).InvolvedObject.UID] {
			return true
		}
		others++
		return others <= maxOtherEvents
	})
	g.leave("Event", g.namespace, max(0, others-maxOtherEvents), "about objects that are not in this record")
	return err
}

// ownGroup reports whether an API group is one of Kubernetes' own that have owners of pods.
func ownGroup(group string) bool { return slices.Contains([]string{"", "apps", "batch"}, group) }
