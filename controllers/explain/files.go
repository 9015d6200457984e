package explain

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Files are the objects that files hold.
type Files struct {
	// namespace is that of objects which do not say theirs; explicit says that somebody gave it.
	namespace string
	explicit  bool

	objects    []origin
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
	others     []*unstructured.Unstructured
	unread     []*unstructured.Unstructured
	namespaces []*corev1.Namespace
	incidents  []*v1alpha1.Incident
	services   []*corev1.Service
	slices     []*discoveryv1.EndpointSlice
	ingresses  []*networkingv1.Ingress
	routes     []*unstructured.Unstructured
	grants     []*unstructured.Unstructured
	gaps       []Gap
}

// origin is an object and where it stands.
type origin struct {
	object *unstructured.Unstructured
	at     string
}

// ReadFiles reads objects from files, from folders with everything below them (.yaml, .yml, .json), and for the path "-" from in. YAML may hold several documents, and lists count as their items.
// Objects that do not say their namespace are in the given one, or in "default" if none is given. Objects of kinds that have no part in the answer are passed over.
//
// It is an error, which names file and line, if something is not YAML or JSON, if an object that has a part in the answer cannot be read, if a policy has a field that does not exist, or if two different objects have the same name.
func ReadFiles(paths []string, in io.Reader, namespace string) (*Files, error) {
	documents, err := readDocuments(paths, in)
	if err != nil {
		return nil, err
	}
	f := &Files{namespace: cmp.Or(namespace, metav1.NamespaceDefault), explicit: namespace != ""}
	for _, d := range documents {
		if err := f.add(d, d.value, schema.GroupVersionKind{}, 0); err != nil {
			return nil, err
		}
	}
	if err := f.unambiguous(); err != nil {
		return nil, err
	}
	for _, o := range f.objects {
		if err := f.take(o); err != nil {
			return nil, fmt.Errorf("%s: %s %s cannot be read: %w", o.at, o.object.GetKind(), o.object.GetName(), err)
		}
	}
	return f, nil
}

// maxDepth is how deep lists may be in lists.
const maxDepth = 8

// add takes up a document, or the items of one that is a list. inList is the kind that items have which do not say theirs.
func (f *Files) add(d document, value any, inList schema.GroupVersionKind, depth int) error {
	fields, ok := value.(map[string]any)
	if !ok {
		return nil
	}
	u := &unstructured.Unstructured{Object: fields}
	if u.GetKind() == "" && inList.Kind != "" {
		u.SetGroupVersionKind(inList)
	}
	items, isList := fields["items"].([]any)
	if kind, named := strings.CutSuffix(u.GetKind(), "List"); named && isList {
		if depth == maxDepth {
			return fmt.Errorf("%s: there are more than %d lists in lists", d.at(), maxDepth)
		}
		gvk := u.GroupVersionKind()
		gvk.Kind = kind
		for _, item := range items {
			if err := f.add(d, item, gvk, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if u.GetKind() != "" {
		f.objects = append(f.objects, origin{object: u, at: d.at()})
	}
	return nil
}

// clusterScoped are the kinds among those with a part in the answer that have no namespace.
func clusterScoped(kind schema.GroupKind) bool {
	return slices.Contains([]string{
		"Namespace", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "CiliumClusterwideNetworkPolicy", "GlobalNetworkPolicy", "Tier",
	}, kind.Kind)
}

// unambiguous gives objects their namespaces, and refuses different objects of the same name: nobody knows which one is meant. The same object twice does no harm.
func (f *Files) unambiguous() error {
	type key struct {
		schema.GroupKind
		namespace, name string
	}
	known := map[key]origin{}
	var once []origin
	for _, o := range f.objects {
		kind := o.object.GroupVersionKind().GroupKind()
		if !matters(kind) {
			continue
		}
		if o.object.GetNamespace() == "" && !clusterScoped(kind) && !unreadable(kind) {
			o.object.SetNamespace(f.namespace)
		}
		k := key{GroupKind: kind, namespace: o.object.GetNamespace(), name: o.object.GetName()}
		if other, found := known[k]; found && k.name != "" {
			if reflect.DeepEqual(other.object.Object, o.object.Object) {
				continue
			}
			return fmt.Errorf("%s: there is another %s %s at %s, and which one is meant is not known; leave one of them out", o.at, kind.Kind, k.name, other.at)
		}
		known[k] = o
		once = append(once, o)
	}
	f.objects = once
	return nil
}

// Kinds that are read into their own types.
var (
	kindPod           = schema.GroupKind{Kind: "Pod"}
	kindNamespace     = schema.GroupKind{Kind: "Namespace"}
	kindService       = schema.GroupKind{Kind: "Service"}
	kindEndpointSlice = schema.GroupKind{Group: discoveryv1.GroupName, Kind: "EndpointSlice"}
	kindIngress       = schema.GroupKind{Group: networkingv1.GroupName, Kind: "Ingress"}
	kindIncident      = schema.GroupKind{Group: v1alpha1.SchemeGroupVersion.Group, Kind: "Incident"}
)

// groupGateway is the group of the Gateway API, gatewayRoutes are its kinds of routes.
const groupGateway = "gateway.networking.k8s.io"

var (
	gatewayRoutes = []string{"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"}
	kindGrant     = schema.GroupKind{Group: groupGateway, Kind: "ReferenceGrant"}
)

func isGatewayRoute(kind schema.GroupKind) bool {
	return kind.Group == groupGateway && slices.Contains(gatewayRoutes, kind.Kind)
}

// matters says whether objects of the kind have a part in the answer.
func matters(kind schema.GroupKind) bool {
	typed := []schema.GroupKind{kindPod, kindNetworkPolicy, kindNamespace, kindService, kindEndpointSlice, kindIngress, kindIncident, kindGrant}
	return slices.Contains(typed, kind) || isGatewayRoute(kind) || readable(kind) || unreadable(kind)
}

// take reads an object into its type.
func (f *Files) take(o origin) error {
	u := o.object
	switch kind := u.GroupVersionKind().GroupKind(); {
	case kind == kindPod:
		return into(u, &f.pods)
	case kind == kindNetworkPolicy:
		return f.takeNetworkPolicy(u)
	case kind == kindNamespace:
		return into(u, &f.namespaces)
	case kind == kindService:
		return into(u, &f.services)
	case (kind == kindEndpointSlice || kind == kindIngress) && u.GroupVersionKind().Version != "v1":
		f.gaps = append(f.gaps, Gap{What: "where " + title(u) + " leads", Why: "its version is not read, only v1 is"})
	case kind == kindEndpointSlice:
		return into(u, &f.slices)
	case kind == kindIngress:
		return into(u, &f.ingresses)
	case kind == kindIncident:
		return into(u, &f.incidents)
	case kind == kindGrant:
		f.grants = append(f.grants, u)
	case isGatewayRoute(kind):
		f.routes = append(f.routes, u)
	case readable(kind):
		f.others = append(f.others, u)
	default:
		f.unread = append(f.unread, u)
	}
	return nil
}

// takeNetworkPolicy refuses fields that do not exist: a policy with a slip of the pen means something else than its author thinks.
func (f *Files) takeNetworkPolicy(u *unstructured.Unstructured) error {
	if u.GroupVersionKind().Version != networkingv1.SchemeGroupVersion.Version {
		f.unread = append(f.unread, u)
		return nil
	}
	np := &networkingv1.NetworkPolicy{}
	// The status that NetworkPolicies had for a time is no slip.
	spec := u.DeepCopy()
	unstructured.RemoveNestedField(spec.Object, "status")
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(spec.Object, np, true); err != nil {
		return err
	}
	f.policies = append(f.policies, np)
	return nil
}

// into appends the object, read into its type.
func into[T any](u *unstructured.Unstructured, list *[]*T) error {
	one := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, one); err != nil {
		return err
	}
	*list = append(*list, one)
	return nil
}

// Facts are the facts about a pod of the files. If no namespace was given to [ReadFiles] and only one pod has the name, it is meant whatever its namespace.
func (f *Files) Facts(name string) (*Facts, error) {
	pod, err := f.find(name)
	if err != nil {
		return nil, err
	}
	out := &Facts{
		Source: SourceFiles, Pod: pod, NetworkPolicies: f.policies, Namespaces: f.namespaces, Pods: f.pods, PodsWithin: ScopeFiles, Incidents: f.incidents,
		IncidentsUnread: "the files do not hold it; add it", Gaps: slices.Clone(f.gaps),
	}
	out.Routes.Services, out.Routes.Slices, out.Routes.Ingresses, out.Routes.Routes, out.Routes.Grants = f.services, f.slices, f.ingresses, f.routes, f.grants
	for _, u := range f.others {
		if u.GetNamespace() == "" || u.GetNamespace() == pod.Namespace {
			out.Others = append(out.Others, u)
		}
	}
	out.noteNamespace("the files do not hold it; add it")
	for _, u := range f.unread {
		if u.GetNamespace() == "" || u.GetNamespace() == pod.Namespace {
			out.notEvaluated(title(u))
		}
	}
	return out, nil
}

// find returns the pod that is meant.
func (f *Files) find(name string) (*corev1.Pod, error) {
	var found []*corev1.Pod
	for _, pod := range f.pods {
		if pod.Name == name && (!f.explicit || pod.Namespace == f.namespace) {
			found = append(found, pod)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, f.notFound(name)
	}
	return nil, fmt.Errorf("the files hold Pod %s in namespaces %s; say which one is meant with -n", name, names(found, func(p *corev1.Pod) string { return p.Namespace }))
}

func (f *Files) notFound(name string) error {
	where := ""
	if f.explicit {
		where = " in namespace " + f.namespace
	}
	if len(f.pods) == 0 {
		return errors.New("the files hold no Pods at all; only Pods themselves can be explained, not the templates of workloads: add the output of kubectl get pod NAME -o yaml")
	}
	return fmt.Errorf("the files hold no Pod %s%s, but %s", name, where, names(f.pods, func(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }))
}

// names lists some of the pods.
func names(pods []*corev1.Pod, name func(*corev1.Pod) string) string {
	var all []string
	for _, p := range pods {
		all = append(all, name(p))
	}
	slices.Sort(all)
	some, rest := shown(slices.Compact(all))
	out := strings.Join(some, ", ")
	if rest > 0 {
		out += fmt.Sprintf(" and %d more", rest)
	}
	return out
}
