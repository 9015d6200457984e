package route

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// generator makes random objects over two namespaces, three Services and two addresses, so that most of them have to do with each other.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 0))} }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func some[T any](g generator, upTo int, one func() T) []T {
	var out []T
	for range g.IntN(upTo + 1) {
		out = append(out, one())
	}
	return out
}

func (g generator) namespace() string { return pick(g, "shop", "bank") }

func (g generator) name() string { return pick(g, "a", "b", "c") }

func (g generator) labels() labelSet { return pick(g, web, labelSet{"app": "db"}, detached, nil) }

func (g generator) pod() *corev1.Pod {
	return victim(pick(g, func(*corev1.Pod) {}, notReady, terminating), func(p *corev1.Pod) { p.Spec.HostNetwork = g.IntN(4) == 0 })
}

func (g generator) service() *service {
	kind := pick(g, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeExternalName)
	return newService(g.name(), g.labels(), inNamespace[*service](g.namespace()), ofType(kind))
}

func (g generator) slice() *slice {
	return newSlice(g.name(), pick(g, g.name(), ""), inNamespace[*slice](g.namespace()), managedBy(pick(g, "", managedByController, managedByMirroring)), func(s *slice) {
		s.Endpoints = some(g, 2, func() endpoint {
			return pick(g, address("10.0.0.5"), address("10.0.0.6"), target(podRef("web-0", "uid-0"), "10.0.0.5"), target(podRef("web-0", "uid-0")), target(podRef("web-0", "")), target(podRef("web-1", "uid-1"), "10.0.0.6"))
		})
		if g.IntN(8) == 0 {
			s.DeletionTimestamp = &metav1.Time{}
		}
	})
}

func (g generator) ingress() *ingress {
	return newIngress(g.name(), inNamespace[*ingress](g.namespace()), pick(g,
		rule("", "/", toService(g.name())), byDefault(toService(g.name())), rule("", "/", toResource(nil, "Bucket", g.name()))))
}

// broken now and then replaces a value by one of another type.
func (g generator) broken(value any) any {
	if g.IntN(12) > 0 {
		return value
	}
	return pick[any](g, nil, "text", 1.5, []any{}, []any{nil}, map[string]any{}, true)
}

func (g generator) list(one func() any) any {
	items := []any{}
	for range 1 + g.IntN(2) {
		items = append(items, g.broken(one()))
	}
	return g.broken(items)
}

func (g generator) reference() any {
	ref := map[string]any{"name": g.broken(g.name())}
	if g.IntN(3) == 0 {
		ref["namespace"] = g.broken(g.namespace())
	}
	if g.IntN(4) == 0 {
		ref["kind"] = g.broken(pick(g, "Service", "Backend"))
	}
	if g.IntN(4) == 0 {
		ref["weight"] = g.broken(0.0)
	}
	return g.broken(ref)
}

func (g generator) routeOrGrant(kind string, spec any) *anyObject {
	return &anyObject{Object: map[string]any{
		"apiVersion": g.broken("gateway.networking.k8s.io/v1"), "kind": g.broken(kind), "spec": g.broken(spec),
		"metadata": g.broken(map[string]any{"namespace": g.broken(g.namespace()), "name": g.broken(g.name())}),
	}}
}

func (g generator) route() *anyObject {
	filter := func() any {
		return map[string]any{"type": "RequestMirror", "requestMirror": g.broken(map[string]any{"backendRef": g.reference()})}
	}
	return g.routeOrGrant(pick(g, "HTTPRoute", "TCPRoute"), map[string]any{
		"hostnames": g.broken([]any{"shop.example"}), "parentRefs": g.list(g.reference),
		"rules": g.list(func() any {
			return map[string]any{"backendRefs": g.list(g.reference), "filters": pick(g, nil, g.list(filter))}
		}),
	})
}

func (g generator) grant() *anyObject {
	return g.routeOrGrant("ReferenceGrant", map[string]any{
		"from": g.list(func() any {
			return map[string]any{"group": gatewayGroup, "kind": g.broken(pick(g, "HTTPRoute", "TCPRoute")), "namespace": g.broken(g.namespace())}
		}),
		"to": g.list(func() any { return map[string]any{"group": g.broken(""), "kind": g.broken("Service")} }),
	})
}

func (g generator) objects() Objects {
	objs := Objects{
		Services: some(g, 4, g.service), Slices: some(g, 3, g.slice), Ingresses: some(g, 3, g.ingress),
		Routes: some(g, 4, g.route), Grants: []*anyObject{},
	}
	objs.Grants = append(objs.Grants, some(g, 2, g.grant)...)
	return objs
}

func shuffled[T any](g generator, list []T) []T {
	if list == nil {
		return nil
	}
	out := append([]T{}, list...)
	g.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (g generator) shuffle(objs Objects) Objects {
	return Objects{
		Services: shuffled(g, objs.Services), Slices: shuffled(g, objs.Slices), Ingresses: shuffled(g, objs.Ingresses),
		Routes: shuffled(g, objs.Routes), Grants: shuffled(g, objs.Grants),
	}
}

// anywhere is a route without what may change when it is known better.
func anywhere(routes []Route) map[Route]bool {
	out := map[Route]bool{}
	for _, r := range routes {
		r.Detail = ""
		out[r] = true
	}
	return out
}

func checkForm(t *testing.T, routes []Route) {
	t.Helper()
	for i, r := range routes {
		if i > 0 && compareRoutes(routes[i-1], r) >= 0 {
			t.Errorf("%v comes before %v", routes[i-1], r)
		}
		text := r.String()
		if r.Kind == "" || !utf8.ValidString(text) || utf8.RuneCountInString(text) > 3*maxName+2*maxText+10 {
			t.Errorf("%q is not fit to be shown", text)
		}
		for _, c := range text {
			if !unicode.IsPrint(c) {
				t.Errorf("%q holds %q", text, c)
			}
		}
	}
}

func TestPropertiesOfRandomObjects(t *testing.T) {
	const rounds = 4_000
	counts := map[string]int{}
	for seed := range uint64(rounds) {
		g := newGenerator(seed)
		pod, labels, objs := g.pod(), g.labels(), g.objects()
		routes := To(pod, labels, objs)
		for _, r := range routes {
			counts[r.Kind]++
		}
		checkForm(t, routes)
		if diff := cmp.Diff(routes, To(pod, labels, g.shuffle(objs))); diff != "" {
			t.Errorf("the order of objects matters (-first +second):\n%s", diff)
		}
		checkThatDoubtAdds(t, pod, labels, objs)
		checkChains(t, routes)
		checkKeys(t, pod, objs.Slices)
		if manual := HandMade(pod, objs.Slices, objs.Services...); len(objs.Services) > 0 {
			checkHandMade(t, pod, labels, objs, manual)
		}
		if t.Failed() {
			text, _ := json.Marshal(objs)
			t.Fatalf("seed %d: pod %v, labels %v, objects %s", seed, pod.Status.Conditions, labels, text)
		}
	}
	for _, kind := range []string{KindService, KindEndpointSlice, KindIngress, KindNode, KindUnknown, "HTTPRoute", "TCPRoute"} {
		if counts[kind] < rounds/100 {
			t.Errorf("only %d routes of kind %s in %d rounds", counts[kind], kind, rounds)
		}
	}
}

// checkThatDoubtAdds says that what is not known, and one more object, never takes a route away.
func checkThatDoubtAdds(t *testing.T, pod *corev1.Pod, labels labelSet, objs Objects) {
	t.Helper()
	less, more := objs, objs
	more.Grants = nil
	less.Slices, less.Ingresses, less.Routes = dropFirst(objs.Slices), dropFirst(objs.Ingresses), dropFirst(objs.Routes)
	fewer := objs
	fewer.Grants = dropFirst(objs.Grants)
	all := anywhere(To(pod, labels, objs))
	for what, pair := range map[string][2]map[Route]bool{
		"grants that are not given": {all, anywhere(To(pod, labels, more))},
		"one more object":           {anywhere(To(pod, labels, less)), all},
		"one more grant":            {anywhere(To(pod, labels, fewer)), all},
	} {
		for r := range pair[0] {
			if !pair[1][r] {
				t.Errorf("%s: %v is gone", what, r)
			}
		}
	}
}

func dropFirst[T any](list []T) []T {
	if len(list) == 0 {
		return list
	}
	return list[1:]
}

// checkChains says that whatever leads to the pod through an object is listed together with that object.
func checkChains(t *testing.T, routes []Route) {
	t.Helper()
	names := map[string]bool{}
	for _, r := range routes {
		names[fmt.Sprintf("%s/%s %s", r.Namespace, r.Kind, r.Name)] = true
		names[fmt.Sprintf("%s/%s %s", r.Namespace, r.Kind, join(r.Namespace, r.Name))] = true
	}
	for _, r := range routes {
		here, elsewhere := names[r.Namespace+"/"+r.Via], names["shop/"+r.Via] || names["bank/"+r.Via]
		if r.Via != "" && !here && !elsewhere {
			t.Errorf("%v leads through nothing that is known", r)
		}
	}
}

// checkHandMade says that the hand-made slices are among the routes, and stay when the labels change.
func checkHandMade(t *testing.T, pod *corev1.Pod, labels labelSet, objs Objects, manual []Route) {
	t.Helper()
	for _, now := range []labelSet{labels, detached} {
		routes := To(pod, now, objs)
		for _, r := range manual {
			if !slices.Contains(routes, r) {
				t.Errorf("with labels %v, %v is not among %v", now, r, routes)
			}
		}
	}
}

// checkKeys says that an index of slices finds all that list the pod.
func checkKeys(t *testing.T, pod *corev1.Pod, list []*slice) {
	t.Helper()
	keys := PodKeys(pod)
	for _, s := range list {
		found := slices.ContainsFunc(SliceKeys(s), func(key string) bool { return slices.Contains(keys, key) })
		if listed := len(To(pod, nil, Objects{Slices: []*slice{s}})) > len(To(pod, nil, Objects{})); listed && !found {
			t.Errorf("slice %v lists pod %v, and keys %q and %q have nothing in common", s, pod, SliceKeys(s), keys)
		}
	}
}

// universe is what FuzzTo makes of its input.
type universe struct {
	Pod       *corev1.Pod       `json:"pod"`
	Labels    map[string]string `json:"labels"`
	Services  []*service        `json:"services"`
	Slices    []*slice          `json:"slices"`
	Ingresses []*ingress        `json:"ingresses"`
	Routes    []map[string]any  `json:"routes"`
	Grants    []map[string]any  `json:"grants"`
}

// Whatever the objects are, To answers with routes that are in order and fit to be shown, and the order of the objects does not matter.
func FuzzTo(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"pod":{},"services":[null,{}],"slices":[null,{"endpoints":[{"targetRef":{"kind":"Pod"}}]}],"ingresses":[null,{"spec":{"defaultBackend":{}}}],"routes":[null,{}],"grants":[null,{}]}`,
		`{"pod":{"metadata":{"namespace":"shop"},"status":{"podIP":"10.0.0.5"}},"labels":{"app":"web"},"services":[{"metadata":{"namespace":"shop","name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"targetPort":"web"}]}}],"routes":[{"kind":"HTTPRoute","metadata":{"namespace":"shop"},"spec":{"rules":[{"filters":[{"requestMirror":{"backendRef":{"name":"web"}}}],"backendRefs":[{"name":"web","weight":0},{"kind":{}}]}]}}]}`,
		`{"pod":{"metadata":{"namespace":"shop"},"status":{"podIPs":[{"ip":"::ffff:10.0.0.5"}]}},"slices":[{"metadata":{"namespace":"bank","labels":{"kubernetes.io/service-name":"front"}},"endpoints":[{"addresses":["010.0.0.5"],"conditions":{"ready":false}}],"ports":[{}]}],"routes":[{"kind":"HTTPRoute","metadata":{"namespace":"desk"},"spec":{"rules":[{"backendRefs":[{"name":"front","namespace":"bank"}]}]}}],"grants":[{"metadata":{"namespace":"bank"},"spec":{"from":[{"namespace":"desk","kind":"HTTPRoute"}],"to":[{"kind":"Service"}]}}]}`,
		`{"pod":{"metadata":{"namespace":"shop"},"spec":{"hostNetwork":true}},"routes":[{"metadata":[]},{"metadata":{"name":"\u001b[2J"},"spec":{"rules":[[]]}},{"spec":{"rules":{},"parentRefs":[{"name":{}}]}}],"grants":[{"spec":{"from":1}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var u universe
		if err := json.Unmarshal(text, &u); err != nil {
			return
		}
		objs := Objects{Services: u.Services, Slices: u.Slices, Ingresses: u.Ingresses, Routes: unstructuredObjects(u.Routes), Grants: unstructuredObjects(u.Grants)}
		routes := To(u.Pod, u.Labels, objs)
		checkForm(t, routes)
		reversed := objs
		reversed.Services, reversed.Slices, reversed.Ingresses = backwards(objs.Services), backwards(objs.Slices), backwards(objs.Ingresses)
		reversed.Routes, reversed.Grants = backwards(objs.Routes), backwards(objs.Grants)
		if diff := cmp.Diff(routes, To(u.Pod, u.Labels, reversed)); diff != "" {
			t.Errorf("the order of objects matters (-first +second):\n%s", diff)
		}
		checkKeys(t, u.Pod, u.Slices)
		checkForm(t, HandMade(u.Pod, u.Slices, u.Services...))
		Summary(routes, 3)
	})
}

func unstructuredObjects(list []map[string]any) []*anyObject {
	if list == nil {
		return nil
	}
	out := []*anyObject{nil}
	for _, fields := range list {
		out = append(out, &anyObject{Object: fields})
	}
	return out
}

func backwards[T any](list []T) []T {
	out := slices.Clone(list)
	slices.Reverse(out)
	return out
}
