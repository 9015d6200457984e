package route

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// shopOnly are a Service that leads to the victim, and one that does not.
func shopOnly() Objects {
	return Objects{Services: []*service{
		newService("web", web, func(s *service) { s.Spec.Ports = nil }),
		newService("db", labelSet{"app": "db"}),
		newService("alias", web, ofType(corev1.ServiceTypeExternalName)),
	}}
}

// withoutServices leaves out the routes that every case of shopOnly has.
func withoutServices(routes []Route) []string {
	return texts(slices.DeleteFunc(routes, func(r Route) bool { return r.Kind == KindService }))
}

func TestGatewayRoutesLeadToServices(t *testing.T) {
	tail := func(kind, version, spec string) string {
		return "{apiVersion: gateway.networking.k8s.io/" + version + ", kind: " + kind + ", metadata: {namespace: shop, name: r}, spec: " + spec + "}"
	}
	cases := map[string]struct {
		route string
		want  []string
	}{
		"HTTPRoute": {route: httpRoute("shop", `{parentRefs: [{name: public, namespace: infra, sectionName: https}], hostnames: [shop.example, "*.shop.example"], rules: [{backendRefs: [{name: web, port: 80}]}]}`),
			want: []string{"HTTPRoute shop/r (hostnames shop.example, *.shop.example; parents Gateway infra/public section https) via Service web"}},
		"GRPCRoute": {route: tail("GRPCRoute", "v1", `{parentRefs: [{name: g}], rules: [{backendRefs: [{group: "", kind: Service, name: web, namespace: shop}]}]}`),
			want: []string{"GRPCRoute shop/r (any hostname; parents Gateway g) via Service web"}},
		"TLSRoute": {route: tail("TLSRoute", "v1alpha3", `{parentRefs: [{name: g}], hostnames: [a.example], rules: [{backendRefs: [{name: web}]}]}`),
			want: []string{"TLSRoute shop/r (hostnames a.example; parents Gateway g) via Service web"}},
		"TCPRoute": {route: tail("TCPRoute", "v1alpha2", `{parentRefs: [{kind: Service, group: "", name: front}], rules: [{backendRefs: [{name: web}]}]}`),
			want: []string{"TCPRoute shop/r (parents Service front) via Service web"}},
		"UDPRoute without parents": {route: tail("UDPRoute", "v1alpha2", `{rules: [{backendRefs: [{name: web}]}]}`),
			want: []string{"UDPRoute shop/r (no parent) via Service web"}},
		"null counts as absent": {route: httpRoute("shop", `{parentRefs: null, hostnames: null, rules: [{filters: null, backendRefs: [{group: null, kind: null, name: web, namespace: null, weight: null}]}, {backendRefs: null}]}`),
			want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"empty strings count as absent": {route: httpRoute("shop", `{rules: [{backendRefs: [{group: "", kind: "", name: web, namespace: ""}]}]}`),
			want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"second backend of the second rule": {route: httpRoute("shop", `{rules: [{}, {backendRefs: [{name: db}, {name: web}]}]}`),
			want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"other Services":           {route: httpRoute("shop", `{rules: [{backendRefs: [{name: db}, {name: none}, {name: alias}]}]}`)},
		"no backend":               {route: httpRoute("shop", `{rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: web}}]}]}`)},
		"no rules":                 {route: httpRoute("shop", `{hostnames: [web]}`)},
		"weight 0":                 {route: httpRoute("shop", `{rules: [{backendRefs: [{name: web, weight: 0}]}]}`), want: []string{"HTTPRoute shop/r (weight 0, so that it gets no traffic at present; any hostname; no parent) via Service web"}},
		"weight 0 in one rule":     {route: httpRoute("shop", `{rules: [{backendRefs: [{name: web, weight: 0}]}, {backendRefs: [{name: web, weight: 1}]}]}`), want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"weight that is no number": {route: httpRoute("shop", `{rules: [{backendRefs: [{name: web, weight: "0"}]}]}`), want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"mirror of a rule": {route: httpRoute("shop", `{rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web}}}], backendRefs: [{name: db}]}]}`),
			want: []string{"HTTPRoute shop/r (by filter requestMirror; any hostname; no parent) via Service web"}},
		"mirror of a backend": {route: httpRoute("shop", `{rules: [{backendRefs: [{name: db, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web}}}]}]}]}`),
			want: []string{"HTTPRoute shop/r (by filter requestMirror; any hostname; no parent) via Service web"}},
		"asked for authorization, and mirrored to": {route: httpRoute("shop", `{rules: [{filters: [{requestMirror: {backendRef: {name: web}}}, {externalAuth: {backendRef: {name: web}}}], backendRefs: [{name: web, weight: 0}]}]}`),
			want: []string{"HTTPRoute shop/r (by filter requestMirror, externalAuth; weight 0, so that it gets no traffic at present; any hostname; no parent) via Service web"}},
		"mirror and backend": {route: httpRoute("shop", `{rules: [{filters: [{requestMirror: {backendRef: {name: web}}}], backendRefs: [{name: web}]}]}`),
			want: []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}},
		"another kind of backend": {route: httpRoute("shop", `{rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web}]}]}`),
			want: []string{"HTTPRoute shop/r (backend ServiceImport (multicluster.x-k8s.io) web is not followed: whether it leads to the pod is not known; any hostname; no parent)"}},
		"another group's Service": {route: httpRoute("shop", `{rules: [{backendRefs: [{group: serving.example, name: web}]}]}`),
			want: []string{"HTTPRoute shop/r (backend Service (serving.example) web is not followed: whether it leads to the pod is not known; any hostname; no parent)"}},
		"another kind of the core": {route: httpRoute("shop", `{rules: [{backendRefs: [{kind: Backend, name: web}]}]}`),
			want: []string{"HTTPRoute shop/r (backend Backend web is not followed: whether it leads to the pod is not known; any hostname; no parent)"}},
		"another kind, elsewhere":  {route: httpRoute("bank", `{rules: [{backendRefs: [{kind: Backend, name: web}]}]}`)},
		"namesake elsewhere":       {route: httpRoute("bank", `{rules: [{backendRefs: [{name: web}]}]}`)},
		"namesake referred to":     {route: httpRoute("shop", `{rules: [{backendRefs: [{name: web, namespace: bank}]}]}`)},
		"description of any shape": {route: httpRoute("shop", `{hostnames: [1, a.example, {}], parentRefs: [1, {name: 2}, {kind: [], namespace: {}, sectionName: 3}], rules: [{backendRefs: [{name: web}]}]}`), want: []string{"HTTPRoute shop/r (hostnames a.example; parents one that cannot be read) via Service web"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			objs := shopOnly()
			objs.Routes = []*anyObject{nil, parse(t, tc.route)}
			if diff := cmp.Diff(append([]string{}, tc.want...), withoutServices(To(victim(), web, objs))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Gateway API, ReferenceGrant: without a grant in the backend's namespace the reference is refused.
func TestRoutesOfOtherNamespacesNeedAGrant(t *testing.T) {
	const (
		from  = "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]"
		to    = `to: [{group: "", kind: Service}]`
		route = `{rules: [{backendRefs: [{name: web, namespace: shop}]}]}`
		tail  = "; any hostname; no parent) via Service shop/web"
	)
	granted := []string{"HTTPRoute bank/r (granted by ReferenceGrant shop/g" + tail}
	assumed := []string{"HTTPRoute bank/r (assuming the grant of ReferenceGrant shop/g, which cannot be read" + tail}
	grant := func(spec string) []string { return []string{referenceGrant("shop", "g", spec)} }
	cases := map[string]struct {
		route  string
		grants []string
		want   []string
	}{
		"not given":                     {route: route, want: []string{"HTTPRoute bank/r (into another namespace, assuming that a ReferenceGrant allows it" + tail}},
		"none":                          {route: route, grants: []string{}},
		"any Service":                   {route: route, grants: grant("{" + from + "," + to + "}"), want: granted},
		"this Service":                  {route: route, grants: grant("{" + from + `, to: [{group: "", kind: Service, name: web}]}`), want: granted},
		"null is the core group":        {route: route, grants: grant("{" + from + `, to: [{group: null, kind: Service, name: null}]}`), want: granted},
		"one of several":                {route: route, grants: grant(`{from: [{group: example, kind: Job, namespace: bank}, {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}], to: [{kind: Secret}, {kind: Service}]}`), want: granted},
		"another Service":               {route: route, grants: grant("{" + from + `, to: [{group: "", kind: Service, name: db}]}`)},
		"Secrets":                       {route: route, grants: grant("{" + from + `, to: [{group: "", kind: Secret}]}`)},
		"Services of another group":     {route: route, grants: grant("{" + from + `, to: [{group: serving.example, kind: Service}]}`)},
		"from another namespace":        {route: route, grants: grant("{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]," + to + "}")},
		"from another kind":             {route: route, grants: grant("{from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: bank}]," + to + "}")},
		"from another group":            {route: route, grants: grant("{from: [{group: example, kind: HTTPRoute, namespace: bank}]," + to + "}")},
		"in another namespace":          {route: route, grants: []string{referenceGrant("bank", "g", "{"+from+","+to+"}")}},
		"two":                           {route: route, grants: []string{referenceGrant("shop", "a", "{"+from+", to: 1}"), referenceGrant("shop", "g", "{"+from+","+to+"}")}, want: granted},
		"cannot be read: no spec":       {route: route, grants: []string{"{metadata: {namespace: shop, name: g}}"}, want: assumed},
		"cannot be read: spec":          {route: route, grants: grant("[]"), want: assumed},
		"cannot be read: from":          {route: route, grants: grant("{from: {}, " + to + "}"), want: assumed},
		"cannot be read: entry":         {route: route, grants: grant("{from: [bank], " + to + "}"), want: assumed},
		"cannot be read: field":         {route: route, grants: grant("{" + from + ", to: [{kind: 1}]}"), want: assumed},
		"cannot be read: no from":       {route: route, grants: grant("{" + to + "}"), want: assumed},
		"cannot be read: no to":         {route: route, grants: grant("{" + from + "}"), want: assumed},
		"cannot be read: metadata":      {route: route, grants: []string{"{metadata: 1, spec: 1}"}, want: []string{"HTTPRoute bank/r (assuming the grant of ReferenceGrant , which cannot be read" + tail}},
		"cannot be read, but elsewhere": {route: route, grants: []string{referenceGrant("bank", "g", "[]")}},
		"for another kind of backend": {route: `{rules: [{backendRefs: [{kind: Backend, name: web, namespace: shop}]}]}`, grants: grant("{" + from + `, to: [{kind: Backend}]}`),
			want: []string{"HTTPRoute bank/r (backend Backend shop/web is not followed: whether it leads to the pod is not known; granted by ReferenceGrant shop/g; any hostname; no parent)"}},
		"for Services, not for that": {route: `{rules: [{backendRefs: [{kind: Backend, name: web, namespace: shop}]}]}`, grants: grant("{" + from + "," + to + "}")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			objs := shopOnly()
			objs.Routes = []*anyObject{parse(t, httpRoute("bank", tc.route))}
			objs.Grants = parseAll(t, tc.grants)
			if objs.Grants != nil {
				objs.Grants = append(objs.Grants, nil)
			}
			if diff := cmp.Diff(append([]string{}, tc.want...), withoutServices(To(victim(), web, objs))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// A route within one namespace needs no grant, whatever the grants are.
func TestRoutesWithinANamespaceNeedNoGrant(t *testing.T) {
	objs := shopOnly()
	objs.Routes = []*anyObject{parse(t, httpRoute("shop", `{rules: [{backendRefs: [{name: web, namespace: shop}]}]}`))}
	objs.Grants = []*anyObject{}
	want := []string{"HTTPRoute shop/r (any hostname; no parent) via Service web"}
	if diff := cmp.Diff(want, withoutServices(To(victim(), web, objs))); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}

func TestRoutesThatCannotBeReadAreNamed(t *testing.T) {
	const prefix = "cannot be read, so that it may lead to the pod: "
	inShop := func(problem string) []string {
		return []string{"HTTPRoute shop/r (" + prefix + problem + "; any hostname; no parent)"}
	}
	const fromBank = "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]"
	inBank := []string{"HTTPRoute bank/r (" + prefix + "spec.rules is not a list; any hostname; no parent)"}
	cases := map[string]struct {
		route  string
		grants []string
		want   []string
	}{
		"spec is missing":        {route: "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {namespace: shop, name: r}}", want: inShop("spec is missing")},
		"spec":                   {route: httpRoute("shop", "[]"), want: inShop("spec is not an object")},
		"rules":                  {route: httpRoute("shop", "{rules: {}}"), want: inShop("spec.rules is not a list")},
		"rule":                   {route: httpRoute("shop", "{rules: [1]}"), want: inShop("spec.rules[0] is not an object")},
		"backendRefs":            {route: httpRoute("shop", "{rules: [{backendRefs: {name: web}}]}"), want: inShop("spec.rules[0].backendRefs is not a list")},
		"backendRef":             {route: httpRoute("shop", "{rules: [{}, {backendRefs: [{name: db}, web]}]}"), want: inShop("spec.rules[1].backendRefs[1] is not an object")},
		"name":                   {route: httpRoute("shop", "{rules: [{backendRefs: [{name: 1}]}]}"), want: inShop("spec.rules[0].backendRefs[0].name is not a string")},
		"no name":                {route: httpRoute("shop", "{rules: [{backendRefs: [{port: 80}]}]}"), want: inShop("spec.rules[0].backendRefs[0].name is missing")},
		"kind":                   {route: httpRoute("shop", "{rules: [{backendRefs: [{kind: [], name: web}]}]}"), want: inShop("spec.rules[0].backendRefs[0].kind is not a string")},
		"group":                  {route: httpRoute("shop", "{rules: [{backendRefs: [{group: {}, name: web}]}]}"), want: inShop("spec.rules[0].backendRefs[0].group is not a string")},
		"namespace":              {route: httpRoute("shop", "{rules: [{backendRefs: [{namespace: true, name: web}]}]}"), want: inShop("spec.rules[0].backendRefs[0].namespace is not a string")},
		"filters":                {route: httpRoute("shop", "{rules: [{filters: 1}]}"), want: inShop("spec.rules[0].filters is not a list")},
		"filter":                 {route: httpRoute("shop", "{rules: [{filters: [a]}]}"), want: inShop("spec.rules[0].filters[0] is not an object")},
		"requestMirror":          {route: httpRoute("shop", "{rules: [{filters: [{type: 1, requestMirror: web}]}]}"), want: inShop("spec.rules[0].filters[0].requestMirror is not an object")},
		"backendRef of a filter": {route: httpRoute("shop", "{rules: [{filters: [{requestMirror: {backendRef: web}}]}]}"), want: inShop("spec.rules[0].filters[0].requestMirror.backendRef is not an object")},
		"filter of a backendRef": {route: httpRoute("shop", "{rules: [{backendRefs: [{name: db, filters: [1]}]}]}"), want: inShop("spec.rules[0].backendRefs[0].filters[0] is not an object")},
		"many":                   {route: httpRoute("shop", "{rules: [1, 2, 3, 4, 5, 6]}"), want: inShop("spec.rules[0] is not an object, spec.rules[1] is not an object, spec.rules[2] is not an object, spec.rules[3] is not an object and 2 more")},
		"a part of it": {route: httpRoute("shop", "{rules: [{backendRefs: [{name: web}, {}]}]}"), want: []string{
			"HTTPRoute shop/r (" + prefix + "spec.rules[0].backendRefs[1].name is missing; any hostname; no parent)",
			"HTTPRoute shop/r (any hostname; no parent) via Service web",
		}},
		"nothing at all":                     {route: "{}", want: []string{"Unknown (" + prefix + "spec is missing, metadata.namespace is missing; no parent)"}},
		"metadata":                           {route: "{kind: HTTPRoute, metadata: 1, spec: {rules: [{backendRefs: [{name: web}]}]}}", want: []string{"HTTPRoute (" + prefix + "metadata.namespace is missing; any hostname; no parent)"}},
		"metadata, no grants":                {route: "{kind: HTTPRoute, metadata: {name: r}, spec: {}}", grants: []string{}, want: []string{"HTTPRoute r (" + prefix + "metadata.namespace is missing; any hostname; no parent)"}},
		"kind of the route":                  {route: "{kind: 1, metadata: {namespace: shop, name: r}, spec: {rules: [{backendRefs: [{name: web}]}]}}", want: []string{"Unknown shop/r (no parent) via Service web"}},
		"elsewhere, grants not given":        {route: httpRoute("bank", "{rules: {}}"), want: inBank},
		"elsewhere, no grants":               {route: httpRoute("bank", "{rules: {}}"), grants: []string{}},
		"elsewhere, grant to Services":       {route: httpRoute("bank", "{rules: {}}"), grants: []string{referenceGrant("shop", "g", "{"+fromBank+", to: [{kind: Service}]}")}, want: inBank},
		"elsewhere, grant to something":      {route: httpRoute("bank", "{rules: {}}"), grants: []string{referenceGrant("shop", "g", "{"+fromBank+", to: [{kind: Backend, name: b}]}")}, want: inBank},
		"elsewhere, grant that is no help":   {route: httpRoute("bank", "{rules: {}}"), grants: []string{referenceGrant("mine", "g", "{"+fromBank+", to: [{kind: Service}]}")}},
		"elsewhere, grant to another route":  {route: httpRoute("bank", "{rules: {}}"), grants: []string{referenceGrant("shop", "g", "{from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: bank}], to: [{kind: Service}]}")}},
		"elsewhere, kind of route not known": {route: "{metadata: {namespace: bank, name: r}}", grants: []string{referenceGrant("shop", "g", "{"+fromBank+", to: [{kind: Service}]}")}, want: []string{"Unknown bank/r (" + prefix + "spec is missing; no parent)"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			objs := shopOnly()
			objs.Routes = []*anyObject{parse(t, tc.route)}
			objs.Grants = parseAll(t, tc.grants)
			if diff := cmp.Diff(append([]string{}, tc.want...), withoutServices(To(victim(), web, objs))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Such a route is named even where no Service leads to the pod: it may refer to something that does and that is not seen.
func TestARouteThatCannotBeReadIsNamedWithoutServices(t *testing.T) {
	objs := Objects{Routes: []*anyObject{parse(t, httpRoute("shop", "{rules: 1}")), parse(t, httpRoute("bank", "{rules: 1}"))}, Grants: []*anyObject{}}
	want := []string{"HTTPRoute shop/r (cannot be read, so that it may lead to the pod: spec.rules is not a list; any hostname; no parent)"}
	if diff := cmp.Diff(want, texts(To(victim(), detached, objs))); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}

// A Service elsewhere that has the pod in a hand-made slice brings the routes of its namespace, and of those with a grant there.
func TestRoutesThroughAHandMadeSliceElsewhere(t *testing.T) {
	objs := Objects{
		Slices: []*slice{newSlice("s", "front", inNamespace[*slice]("bank"), with(address("10.0.0.5")))},
		Routes: []*anyObject{
			parse(t, httpRoute("bank", `{rules: [{backendRefs: [{name: front}]}]}`)),
			parse(t, httpRoute("bank", `{rules: 1}`)),
			parse(t, httpRoute("desk", `{rules: 1}`)),
			parse(t, httpRoute("attic", `{rules: 1}`)),
		},
		Grants: []*anyObject{parse(t, referenceGrant("bank", "g", `{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: desk}], to: [{kind: Service}]}`))},
	}
	want := []string{
		"EndpointSlice bank/s (hand-made: no controller keeps it in step with the pod's labels; of Service front; lists the pod's address 10.0.0.5; ports http 8080/TCP)",
		"HTTPRoute bank/r (cannot be read, so that it may lead to the pod: spec.rules is not a list; any hostname; no parent)",
		"HTTPRoute bank/r (any hostname; no parent) via Service front",
		"HTTPRoute desk/r (cannot be read, so that it may lead to the pod: spec.rules is not a list; any hostname; no parent)",
	}
	if diff := cmp.Diff(want, withoutServices(To(victim(), detached, objs))); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}

// Files without namespaces are all of one.
func TestManifestsWithoutNamespaces(t *testing.T) {
	pod := victim(func(p *corev1.Pod) { p.Namespace = "" })
	objs := Objects{
		Services: []*service{newService("web", web, inNamespace[*service](""))},
		Routes:   []*anyObject{parse(t, "{kind: HTTPRoute, metadata: {name: r}, spec: {rules: [{backendRefs: [{name: web}]}]}}")},
	}
	want := []string{"Service web (ports http 80->8080/TCP)", "HTTPRoute r (any hostname; no parent) via Service web"}
	if diff := cmp.Diff(want, texts(To(pod, web, objs))); diff != "" {
		t.Errorf("To() mismatch (-want +got):\n%s", diff)
	}
}

// Unstructured objects that a program made hold numbers as int64, and those read from JSON as int64 or float64.
func TestWeightsOfEveryNumberType(t *testing.T) {
	for name, zero := range map[string]any{"int64": int64(0), "float64": float64(0)} {
		t.Run(name, func(t *testing.T) {
			objs := shopOnly()
			objs.Routes = []*anyObject{{Object: map[string]any{
				"kind": "TCPRoute", "metadata": map[string]any{"namespace": "shop", "name": "r"},
				"spec": map[string]any{"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "weight": zero}}}}},
			}}}
			want := []string{"TCPRoute shop/r (weight 0, so that it gets no traffic at present; no parent) via Service web"}
			if diff := cmp.Diff(want, withoutServices(To(victim(), web, objs))); diff != "" {
				t.Errorf("To() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}
