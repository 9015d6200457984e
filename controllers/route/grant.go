package route

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// anyKind stands for a backend whose group, kind and name are not known.
const anyKind = "*"

// grant is a ReferenceGrant: in its namespace, what one of the from entries matches may refer to what one of the to entries matches.
type grant struct {
	namespace, name string
	from            []grantFrom
	to              []grantTo
	// unreadable says that it might grant anything.
	unreadable bool
}

type grantFrom struct{ group, kind, namespace string }

type grantTo struct{ group, kind, name string }

// grant says whether the route may refer to the backend (Gateway API, ReferenceGrant: a reference to another namespace needs a grant there), and in a phrase by
// what.
func (s *search) grant(r gatewayRoute, to backend) (string, bool) {
	if to.namespace == r.namespace {
		return "", true
	}
	if !s.grantsGiven {
		return "into another namespace, assuming that a ReferenceGrant allows it", true
	}
	best := ""
	for _, g := range s.grants {
		if !g.allows(r, to) {
			continue
		}
		text := "granted by ReferenceGrant " + join(g.namespace, g.name)
		if g.unreadable {
			text = "assuming the grant of ReferenceGrant " + join(g.namespace, g.name) + ", which cannot be read"
		}
		// The last in order is one that can be read, if there is such a one.
		best = max(best, text)
	}
	return best, best != ""
}

func (g grant) allows(r gatewayRoute, to backend) bool {
	if g.namespace != to.namespace && g.namespace != "" {
		return false
	}
	if g.unreadable {
		return true
	}
	from := false
	for _, f := range g.from {
		from = from || f.namespace == r.namespace && (r.group == "" || f.group == r.group) && (r.kind == "" || f.kind == r.kind)
	}
	if !from {
		return false
	}
	for _, t := range g.to {
		if to.kind == anyKind || t.group == to.group && t.kind == to.kind && (t.name == "" || t.name == to.name) {
			return true
		}
	}
	return false
}

func readGrants(objs []*unstructured.Unstructured) []grant {
	var out []grant
	for _, obj := range objs {
		if obj != nil {
			out = append(out, readGrant(obj))
		}
	}
	return out
}

// readGrant reads an object of any shape. One with entries missing, which the API server would not have taken, cannot be read either.
func readGrant(obj *unstructured.Unstructured) grant {
	g := grant{namespace: obj.GetNamespace(), name: obj.GetName()}
	var problems []string
	spec, ok := object{fields: obj.Object, problems: &problems}.object("spec")
	if !ok {
		g.unreadable = true
		return g
	}
	for _, entry := range spec.objects("from") {
		group, _ := entry.text("group", "")
		kind, _ := entry.text("kind", "")
		namespace, _ := entry.text("namespace", "")
		g.from = append(g.from, grantFrom{group, kind, namespace})
	}
	for _, entry := range spec.objects("to") {
		group, _ := entry.text("group", "")
		kind, _ := entry.text("kind", "")
		name, _ := entry.text("name", "")
		g.to = append(g.to, grantTo{group, kind, name})
	}
	g.unreadable = len(problems) > 0 || len(g.from) == 0 || len(g.to) == 0
	return g
}
