package route

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// gatewayGroup is the group of the Gateway API.
const gatewayGroup = "gateway.networking.k8s.io"

// gatewayRoute is what matters of a Gateway API route, of whatever kind and version: their rules have had one shape since v1alpha2.
type gatewayRoute struct {
	// group and kind are empty if the object does not tell.
	group, kind     string
	namespace, name string
	backends        []backend
	hostnames       []string
	parents         []string
	// problems say what cannot be read.
	problems []string
}

// backend is a reference from a route.
type backend struct {
	group, kind     string
	namespace, name string
	// filter is the field of the filter that the reference is in: such a backend gets copies of requests, or is asked about them.
	filter string
	// idle says that the weight is 0.
	idle bool
}

// addGatewayRoute adds the route once for each backend that leads to the pod, and once more if something in it cannot be read.
func (s *search) addGatewayRoute(obj *unstructured.Unstructured) {
	if obj == nil {
		return
	}
	r := readGatewayRoute(obj)
	if r.namespace == "" && s.pod.Namespace != "" {
		r.problems = append(r.problems, "metadata.namespace is missing")
	}
	base := Route{Kind: cmp.Or(r.kind, KindUnknown), Namespace: r.namespace, Name: r.name}
	references := map[backend][]backend{}
	for _, b := range r.backends {
		key := backend{group: b.group, kind: b.kind, namespace: b.namespace, name: b.name}
		references[key] = append(references[key], b)
	}
	for to, refs := range references {
		found := base
		grant, granted := s.grant(r, to)
		switch service := to.group == "" && to.kind == KindService; {
		case !granted:
			continue
		case service && s.leading[types.NamespacedName{Namespace: to.namespace, Name: to.name}]:
			found.Via = KindService + " " + near(r.namespace, to.namespace, to.name)
		case !service && s.concerns(to.namespace):
			grant = phrases(notFollowed(to.title(r.namespace)), grant)
		default:
			continue
		}
		found.Detail = phrases(grant, usage(refs), r.describe())
		s.found = append(s.found, found)
	}
	if len(r.problems) > 0 && s.mayConcern(r) {
		base.Detail = phrases("cannot be read, so that it may lead to the pod: "+enumerate(r.problems, ", "), r.describe())
		s.found = append(s.found, base)
	}
}

// mayConcern says whether a route that cannot be read might refer to a Service that leads to the pod: it is in the namespace of one, or a grant lets it
// refer there.
func (s *search) mayConcern(r gatewayRoute) bool {
	may := func(namespace string) bool {
		_, ok := s.grant(r, backend{namespace: namespace, kind: anyKind})
		return ok
	}
	if r.namespace == "" || may(s.pod.Namespace) {
		return true
	}
	for key := range s.leading {
		if may(key.Namespace) {
			return true
		}
	}
	return false
}

func (b backend) title(from string) string {
	if b.group == "" {
		return b.kind + " " + near(from, b.namespace, b.name)
	}
	return fmt.Sprintf("%s (%s) %s", b.kind, b.group, near(from, b.namespace, b.name))
}

// usage says what the references to one backend are for, if it is less than to send it requests.
func usage(refs []backend) string {
	var filters []string
	idle := false
	for _, b := range refs {
		switch {
		case b.filter != "":
			filters = append(filters, b.filter)
		case b.idle:
			idle = true
		default:
			return ""
		}
	}
	var mirrored, weight string
	if len(filters) > 0 {
		mirrored = "by filter " + enumerate(filters, ", ")
	}
	if idle {
		weight = "weight 0, so that it gets no traffic at present"
	}
	return phrases(mirrored, weight)
}

// describe names the hosts and the parents of the route.
func (r gatewayRoute) describe() string {
	hosts, parents := "", "no parent"
	switch {
	case len(r.hostnames) > 0:
		hosts = "hostnames " + enumerate(r.hostnames, ", ")
	case r.kind == "HTTPRoute" || r.kind == "GRPCRoute" || r.kind == "TLSRoute":
		hosts = "any hostname"
	}
	if len(r.parents) > 0 {
		parents = "parents " + enumerate(r.parents, ", ")
	}
	return phrases(hosts, parents)
}

// readGatewayRoute reads an object of any shape.
func readGatewayRoute(obj *unstructured.Unstructured) gatewayRoute {
	r := gatewayRoute{kind: obj.GetKind(), namespace: obj.GetNamespace(), name: obj.GetName()}
	if gv, err := schema.ParseGroupVersion(obj.GetAPIVersion()); err == nil {
		r.group = gv.Group
	}
	root := object{fields: obj.Object, problems: &r.problems}
	spec, ok := root.object("spec")
	if !ok {
		if len(r.problems) == 0 {
			root.problem("spec", "is missing")
		}
		return r
	}
	for _, rule := range spec.objects("rules") {
		r.readFilters(rule)
		for _, ref := range rule.objects("backendRefs") {
			r.readFilters(ref)
			r.readBackend(ref, "")
		}
	}
	r.readDescription(spec)
	return r
}

// readFilters reads the backends of filters. Those with one hold it in a field of their own, as requestMirror does.
func (r *gatewayRoute) readFilters(owner object) {
	for _, filter := range owner.objects("filters") {
		for _, field := range slices.Sorted(maps.Keys(filter.fields)) {
			if field == "type" {
				continue
			}
			if settings, ok := filter.object(field); ok {
				if ref, ok := settings.object("backendRef"); ok {
					r.readBackend(ref, field)
				}
			}
		}
	}
}

func (r *gatewayRoute) readBackend(ref object, filter string) {
	group, groupOK := ref.text("group", "")
	kind, kindOK := ref.text("kind", KindService)
	namespace, namespaceOK := ref.text("namespace", r.namespace)
	name, nameOK := ref.text("name", "")
	if nameOK && name == "" {
		ref.problem("name", "is missing")
		nameOK = false
	}
	if groupOK && kindOK && namespaceOK && nameOK {
		b := backend{group: group, kind: cmp.Or(kind, KindService), namespace: cmp.Or(namespace, r.namespace), name: name, filter: filter}
		b.idle = ref.zero("weight")
		r.backends = append(r.backends, b)
	}
}

// readDescription reads what only people need. Where it cannot be read, the rules still say where the route leads.
func (r *gatewayRoute) readDescription(spec object) {
	spec.problems = new([]string)
	hostnames, _ := spec.fields["hostnames"].([]any)
	for _, h := range hostnames {
		if name, ok := h.(string); ok {
			r.hostnames = append(r.hostnames, name)
		}
	}
	for _, parent := range spec.objects("parentRefs") {
		kind, _ := parent.text("kind", "Gateway")
		namespace, _ := parent.text("namespace", r.namespace)
		name, _ := parent.text("name", "")
		if kind == "" || name == "" {
			r.parents = append(r.parents, "one that cannot be read")
			continue
		}
		title := kind + " " + near(r.namespace, cmp.Or(namespace, r.namespace), name)
		if section, _ := parent.text("sectionName", ""); section != "" {
			title += " section " + section
		}
		r.parents = append(r.parents, title)
	}
}
