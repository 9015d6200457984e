package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// serves is a discovery that serves kinds by group version, the first version of a group being the preferred one.
type serves struct {
	versions []string
	kinds    map[string][]metav1.APIResource
	err      error
}

func (s *serves) ServerGroupsAndResourcesWithContext(context.Context) ([]*metav1.APIGroup, []*metav1.APIResourceList, error) {
	var groups []*metav1.APIGroup
	var lists []*metav1.APIResourceList
	for _, v := range s.versions {
		gv, _ := schema.ParseGroupVersion(v)
		version := metav1.GroupVersionForDiscovery{GroupVersion: v, Version: gv.Version}
		i := slices.IndexFunc(groups, func(g *metav1.APIGroup) bool { return g.Name == gv.Group })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &metav1.APIGroup{Name: gv.Group, PreferredVersion: version})
		}
		groups[i].Versions = append(groups[i].Versions, version)
		lists = append(lists, &metav1.APIResourceList{GroupVersion: v, APIResources: s.kinds[v]})
	}
	return groups, lists, s.err
}

func served(kind, plural string, namespaced bool) metav1.APIResource {
	return metav1.APIResource{Name: plural, Kind: kind, Namespaced: namespaced, Verbs: []string{"get", "list"}}
}

// everyKind serves everything that can have a part in an answer.
func everyKind() *serves {
	return &serves{
		versions: []string{
			"v1", "containment.cofferdam.dev/v1alpha1", "policy.networking.k8s.io/v1alpha2", "policy.networking.k8s.io/v1alpha1", "cilium.io/v2", "crd.antrea.io/v1beta1",
			"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1",
		},
		kinds: map[string][]metav1.APIResource{
			"v1":                                 {served("Pod", "pods", true), served("Pod", "pods/log", true)},
			"containment.cofferdam.dev/v1alpha1": {served("Incident", "incidents", true), served("Incident", "incidents/status", true)},
			"policy.networking.k8s.io/v1alpha2":  {served("ClusterNetworkPolicy", "clusternetworkpolicies", false)},
			"policy.networking.k8s.io/v1alpha1":  {served("ClusterNetworkPolicy", "oldpolicies", false), served("AdminNetworkPolicy", "adminnetworkpolicies", false)},
			"cilium.io/v2":                       {served("CiliumNetworkPolicy", "ciliumnetworkpolicies", true), served("CiliumNode", "ciliumnodes", false)},
			"crd.antrea.io/v1beta1":              {served("NetworkPolicy", "networkpolicies", true)},
			"gateway.networking.k8s.io/v1":       {served("HTTPRoute", "httproutes", true)},
			"gateway.networking.k8s.io/v1beta1":  {served("ReferenceGrant", "referencegrants", true)},
		},
	}
}

// world is a cluster of fakes that notes what it is asked for.
type world struct {
	core    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	kinds   *serves
	asked   []string
}

func newWorld(objects ...runtime.Object) *world {
	var typed, others []runtime.Object
	for _, o := range objects {
		if _, is := o.(*unstructured.Unstructured); is {
			others = append(others, o)
			continue
		}
		typed = append(typed, o)
	}
	w := &world{kinds: everyKind(), core: fake.NewClientset(append(typed, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}})...)}
	lists := map[schema.GroupVersionResource]string{}
	for version, kinds := range w.kinds.kinds {
		gv, _ := schema.ParseGroupVersion(version)
		for _, kind := range kinds {
			lists[gv.WithResource(kind.Name)] = kind.Kind + "List"
		}
	}
	w.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, others...)
	note := func(action clienttesting.Action) (bool, runtime.Object, error) {
		w.asked = append(w.asked, fmt.Sprintf("%s %s %s", action.GetVerb(), action.GetResource().GroupResource(), action.GetNamespace()))
		return false, nil, nil
	}
	w.core.PrependReactor("*", "*", note)
	w.dynamic.PrependReactor("*", "*", note)
	return w
}

// refuse makes the cluster refuse a verb on a resource with an error; in the namespace, or "*" for all requests.
func (w *world) refuse(verb, resource, namespace string, err error) *world {
	react := func(action clienttesting.Action) (bool, runtime.Object, error) {
		if namespace != "*" && action.GetNamespace() != namespace {
			return false, nil, nil
		}
		w.asked = append(w.asked, fmt.Sprintf("refused %s %s %s", verb, action.GetResource().GroupResource(), action.GetNamespace()))
		return true, nil, err
	}
	w.core.PrependReactor(verb, resource, react)
	w.dynamic.PrependReactor(verb, resource, react)
	return w
}

func (w *world) facts(t *testing.T) (*Facts, error) {
	t.Helper()
	return Cluster{Core: w.core, Dynamic: w.dynamic, Discovery: w.kinds}.Facts(t.Context(), types.NamespacedName{Namespace: shop, Name: "web"})
}

func (w *world) explain(t *testing.T) *PodExplanation {
	t.Helper()
	facts, err := w.facts(t)
	if err != nil {
		t.Fatal(err)
	}
	return Explain(facts)
}

var forbidden = apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no"))

func asObject(t *testing.T, inc *v1alpha1.Incident) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(inc)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: fields}
	u.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("Incident"))
	return u
}

func TestWhatMayNotBeReadIsNamed(t *testing.T) {
	web, deny := podNamed("web"), policy("deny", nil)
	antrea := object("crd.antrea.io/v1beta1", "NetworkPolicy", shop, "odd", nil)
	cases := map[string]struct {
		world   *world
		verdict v1alpha1.Verdict
		// named is what is not looked at, decisive what of it makes the verdict Unknown.
		named, decisive string
	}{
		"everything may be read":        {world: newWorld(web, deny), verdict: "Isolated"},
		"NetworkPolicies":               {world: newWorld(web, deny).refuse("list", "networkpolicies", shop, forbidden), verdict: "Unknown", decisive: "you may not list networkpolicies.networking.k8s.io in namespace shop"},
		"policies of the cluster":       {world: newWorld(web, deny).refuse("list", "clusternetworkpolicies", "*", forbidden), verdict: "Unknown", decisive: "you may not list clusternetworkpolicies.policy.networking.k8s.io of the cluster"},
		"a version that is not wanted":  {world: newWorld(web, deny).refuse("list", "oldpolicies", "*", forbidden), verdict: "Isolated"},
		"a kind of an older version":    {world: newWorld(web, deny).refuse("list", "adminnetworkpolicies", "*", forbidden), verdict: "Unknown", decisive: "adminnetworkpolicies.policy.networking.k8s.io"},
		"policies of the namespace":     {world: newWorld(web, deny).refuse("list", "ciliumnetworkpolicies", shop, errors.New("out of order")), verdict: "Unknown", decisive: "which objects of kind CiliumNetworkPolicy (cilium.io) there are: out of order"},
		"what nobody evaluates":         {world: newWorld(web, deny, antrea), verdict: "Unknown", decisive: "what NetworkPolicy (crd.antrea.io) shop/odd allows or denies"},
		"what is in another namespace":  {world: newWorld(web, deny, object("crd.antrea.io/v1beta1", "NetworkPolicy", "bank", "odd", nil)), verdict: "Isolated"},
		"whether there is any of these": {world: newWorld(web, deny).refuse("list", "networkpolicies", shop, forbidden), verdict: "Unknown", decisive: "whether there are policies of kind NetworkPolicy (crd.antrea.io), which are not evaluated"},
		"a kind that has just gone":     {world: newWorld(web, deny).refuse("list", "ciliumnetworkpolicies", shop, apierrors.NewNotFound(schema.GroupResource{}, "")), verdict: "Isolated"},
		"Services":                      {world: newWorld(web, deny).refuse("list", "services", shop, forbidden), verdict: "Isolated", named: "you may not list services in namespace shop"},
		"Ingresses":                     {world: newWorld(web, deny).refuse("list", "ingresses", shop, forbidden), verdict: "Isolated", named: "you may not list ingresses.networking.k8s.io in namespace shop"},
		"EndpointSlices elsewhere":      {world: newWorld(web, deny).refuse("list", "endpointslices", "", forbidden), verdict: "Isolated", named: "you may not list endpointslices.discovery.k8s.io in all namespaces"},
		"routes of the Gateway API":     {world: newWorld(web, deny).refuse("list", "httproutes", "*", forbidden), verdict: "Isolated", named: "you may not list httproutes.gateway.networking.k8s.io in namespace shop"},
		"the namespace, without need":   {world: newWorld(web, deny).refuse("get", "namespaces", "*", forbidden), verdict: "Isolated"},
		"the namespace, in need": {
			world: newWorld(web, deny, letEveryoneIn()).refuse("get", "namespaces", "*", forbidden), verdict: "Unknown", decisive: "you may not read it; ask for the permission to get namespace shop",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.world.explain(t)
			var decisive, other []string
			for _, g := range got.NotLookedAt {
				if g.Decisive {
					decisive = append(decisive, g.What+": "+g.Why)
					continue
				}
				other = append(other, g.What+": "+g.Why)
			}
			if got.Verdict != tc.verdict {
				t.Errorf("%s: %s, want %s", got.Verdict, got.Message, tc.verdict)
			}
			for _, check := range []struct {
				found []string
				want  string
			}{{decisive, tc.decisive}, {other, tc.named}} {
				if all := strings.Join(check.found, "\n"); !strings.Contains(all, check.want) || check.want == "" && all != "" {
					t.Errorf("not looked at:\n%s\nwant %q", all, check.want)
				}
			}
		})
	}
}

func TestGroupsThatDoNotAnswer(t *testing.T) {
	for group, want := range map[string]v1alpha1.Verdict{"projectcalico.org": "Unknown", "crd.antrea.io": "Unknown", "metrics.k8s.io": "Isolated"} {
		w := newWorld(podNamed("web"), policy("deny", nil))
		w.kinds.err = &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{{Group: group, Version: "v3"}: errors.New("the server is down")}}
		got := w.explain(t)
		if got.Verdict != want || len(got.NotLookedAt) != 1 || !strings.Contains(got.NotLookedAt[0].What, group) {
			t.Errorf("%s is down: %s, %+v, want %s", group, got.Verdict, got.NotLookedAt, want)
		}
	}
	w := newWorld(podNamed("web"))
	w.kinds.err = errors.New("away")
	if _, err := w.facts(t); err == nil || !strings.Contains(err.Error(), "which kinds it serves: away") {
		t.Errorf("nothing answers: %v", err)
	}
	w = newWorld(podNamed("web"), policy("deny", nil))
	w.kinds.kinds["cilium.io/v2"][0].Verbs = []string{"get"}
	if got := w.explain(t); got.Verdict != v1alpha1.VerdictUnknown || !strings.Contains(got.Message, "no way to list ciliumnetworkpolicies.cilium.io") {
		t.Errorf("a kind that cannot be listed: %s: %s", got.Verdict, got.Message)
	}
}

func TestAPodThatCannotBeReadIsAnError(t *testing.T) {
	for want, w := range map[string]*world{
		"there is no Pod web in namespace shop; kubectl get pods -n shop":                     newWorld(),
		"you may not read Pod shop/web; ask for the permission to get pods in namespace shop": newWorld(podNamed("web")).refuse("get", "pods", shop, forbidden),
		"reading Pod shop/web: away": newWorld(podNamed("web")).refuse("get", "pods", shop, errors.New("away")),
	} {
		if _, err := w.facts(t); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	w := newWorld(podNamed("web"))
	_, err := Cluster{Core: w.core, Dynamic: w.dynamic, Discovery: w.kinds}.Facts(ctx, types.NamespacedName{Namespace: shop, Name: "web"})
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("an end in the middle: %v", err)
	}
}

func TestOnlyWhatIsNeededIsRead(t *testing.T) {
	listed := func(w *world, what string) bool {
		return slices.Contains(w.asked, "list "+what)
	}
	isolated := newWorld(podNamed("web"), policy("deny", nil))
	if isolated.explain(t); listed(isolated, "pods ") || listed(isolated, "namespaces ") || slices.ContainsFunc(isolated.asked, func(a string) bool { return strings.Contains(a, "incidents") }) {
		t.Errorf("for an isolated pod that nobody holds, this was read: %q", isolated.asked)
	}
	leaking := newWorld(podNamed("web"))
	if leaking.explain(t); !listed(leaking, "pods ") || !listed(leaking, "namespaces ") {
		t.Errorf("for a leaking pod, this was read: %q", leaking.asked)
	}
	for _, w := range []*world{isolated, leaking} {
		for _, a := range w.asked {
			if !strings.HasPrefix(a, "get ") && !strings.HasPrefix(a, "list ") {
				t.Errorf("it does more than read: %s", a)
			}
			if strings.Contains(a, "secrets") || strings.Contains(a, "configmaps") {
				t.Errorf("it reads what it does not need: %s", a)
			}
		}
	}
}

func TestWhoCanUseALeak(t *testing.T) {
	byTeam := networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}}
	bank := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bank", Labels: map[string]string{"team": "b"}}}
	teller := podNamed("teller")
	teller.Namespace = "bank"
	open := func() *world { return newWorld(podNamed("web"), policy("a", nil, from(byTeam)), bank, teller) }
	cases := map[string]struct {
		world  *world
		within Scope
		state  v1alpha1.LeakState
		gap    string
	}{
		"all may be read":                {world: open(), within: ScopeCluster, state: "Active"},
		"pods of the namespace only":     {world: open().refuse("list", "pods", "", forbidden), within: ScopeNamespace, state: "Latent", gap: "active and latent are about namespace shop only"},
		"no other namespaces":            {world: open().refuse("list", "namespaces", "", forbidden), within: ScopeNamespace, state: "Latent", gap: "active and latent are about namespace shop only"},
		"no pods":                        {world: open().refuse("list", "pods", "*", forbidden), within: ScopeNone, state: "Active", gap: "you may not list pods in namespace shop; ask for that permission; every leak counts as active"},
		"not even the pod's namespace":   {world: open().refuse("*", "namespaces", "*", forbidden), within: ScopeNone, state: "Active", gap: "every leak counts as active"},
		"an API server that has trouble": {world: open().refuse("list", "pods", "", errors.New("too much")), within: ScopeNone, state: "Active", gap: "too much"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.world.explain(t)
			if len(got.Ingress.Leaks) != 1 || got.Ingress.Leaks[0].State != tc.state || got.LatentWithin != tc.within {
				t.Errorf("leaks %+v within %s, want one that is %s within %s", got.Ingress.Leaks, got.LatentWithin, tc.state, tc.within)
			}
			gaps := ""
			for _, g := range got.NotLookedAt {
				gaps += g.Why
			}
			if !strings.Contains(gaps, tc.gap) || tc.gap == "" && gaps != "" || got.ExitCode != ExitLeaking {
				t.Errorf("gaps %q, want %q; exit code %d", gaps, tc.gap, got.ExitCode)
			}
		})
	}
}

func TestIncidentsThatHoldThePod(t *testing.T) {
	deny := policy("cofferdam-quarantine-"+miner, nil, ofIncident, to(addresses("192.0.2.0/24")))
	inc := asObject(t, incident(upload(shop, v1alpha1.ExceptionOpen)))
	namesake := inc.DeepCopy()
	namesake.SetUID("another")
	broken := inc.DeepCopy()
	broken.Object["status"] = "none"
	stranger := broken.DeepCopy()
	stranger.SetUID("another")
	stranger.SetName("another")
	cases := map[string]struct {
		world   *world
		verdict v1alpha1.Verdict
		want    string
	}{
		"read":                                 {world: newWorld(held(), deny, inc), verdict: "Isolated"},
		"named by a policy":                    {world: newWorld(held(), deny, inc).refuse("list", "incidents", "", forbidden), verdict: "Isolated"},
		"named by nothing that is read":        {world: newWorld(held(), policy("x", nil, ofIncident, from(), func(np *networkingv1.NetworkPolicy) { np.Annotations = nil }), inc).refuse("list", "incidents", "", forbidden), verdict: "Unknown", want: "you may not list incidents.containment.cofferdam.dev in all namespaces"},
		"a namesake":                           {world: newWorld(held(), deny, namesake), verdict: "Leaking", want: "192.0.2.0/24 on all ports is allowed"},
		"a namesake that is named":             {world: newWorld(held(), deny, namesake).refuse("list", "incidents", "", forbidden), verdict: "Unknown", want: "was not read"},
		"gone":                                 {world: newWorld(held(), deny), verdict: "Leaking", want: "192.0.2.0/24"},
		"not to be read at all":                {world: newWorld(held(), deny, inc).refuse("*", "incidents", "*", forbidden), verdict: "Unknown", want: "you may not list incidents.containment.cofferdam.dev in namespace shop"},
		"an API server that has trouble":       {world: newWorld(held(), deny, inc).refuse("list", "incidents", "", errors.New("too much")), verdict: "Unknown", want: "too much"},
		"not to be understood":                 {world: newWorld(held(), deny, broken), verdict: "Unknown", want: "Incident desk/miner cannot be read"},
		"another that is not to be understood": {world: newWorld(held(), deny, stranger), verdict: "Leaking", want: "192.0.2.0/24"},
		"held, and this is not their home":     {world: func() *world { w := newWorld(held(), deny); w.kinds.versions = w.kinds.versions[:1]; return w }(), verdict: "Unknown", want: "does not serve the kind Incident"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.world.explain(t); got.Verdict != tc.verdict || !strings.Contains(got.Message, tc.want) {
				t.Errorf("%s: %s\nwant %s with %q", got.Verdict, got.Message, tc.verdict, tc.want)
			}
		})
	}
}

func TestRoutesOfACluster(t *testing.T) {
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	slice := func(namespace, pod string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: meta(namespace, "s-"+pod), AddressType: discoveryv1.AddressTypeIPv4}
		s.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
		s.Endpoints = []discoveryv1.Endpoint{{TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: shop, Name: pod, UID: types.UID("uid-" + pod)}}}
		return s
	}
	ingress := &networkingv1.Ingress{ObjectMeta: meta("bank", "web"), Spec: networkingv1.IngressSpec{
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}},
	}}
	route := object("gateway.networking.k8s.io/v1", "HTTPRoute", "edge", "web", map[string]any{
		"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "namespace": "bank"}}}},
	})
	objects := []runtime.Object{
		podNamed("web"), slice("bank", "web"), slice("other", "db"), &corev1.Service{ObjectMeta: meta("bank", "web")}, &corev1.Service{ObjectMeta: meta("other", "web")}, ingress, route,
	}
	kinds := func(w *world) (out []string) {
		for _, r := range w.explain(t).Routes {
			out = append(out, r.Kind+" "+r.Namespace+"/"+r.Name)
		}
		return out
	}
	without := []string{"Service bank/web", "EndpointSlice bank/s-web", "Ingress bank/web"}
	w := newWorld(objects...)
	if diff := cmp.Diff(without, kinds(w)); diff != "" {
		t.Errorf("without a ReferenceGrant (-want +got):\n%s", diff)
	}
	if slices.Contains(w.asked, "list services other") {
		t.Error("the Services of a namespace without bearing were read")
	}
	all := append(slices.Clone(without), "HTTPRoute edge/web")
	for name, w := range map[string]*world{
		"the grants may not be read":             newWorld(objects...).refuse("list", "referencegrants", "*", forbidden),
		"the grants of one namespace may be":     newWorld(objects...).refuse("list", "referencegrants", "", forbidden),
		"Services may not be read":               newWorld(objects...).refuse("list", "services", "*", forbidden).refuse("list", "referencegrants", "*", forbidden),
		"the kind ReferenceGrant is not served ": func() *world { w := newWorld(objects...); w.kinds.versions = w.kinds.versions[:7]; return w }(),
	} {
		if diff := cmp.Diff(all, kinds(w)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestListsAreReadPageByPage(t *testing.T) {
	page := func(next string, names ...string) *corev1.PodList {
		l := &corev1.PodList{ListMeta: metav1.ListMeta{Continue: next}}
		for _, name := range names {
			l.Items = append(l.Items, *podNamed(name))
		}
		return l
	}
	expired := apierrors.NewResourceExpired("too old")
	for name, tc := range map[string]struct {
		answers map[string]any
		fails   bool
	}{
		"two pages":                   {answers: map[string]any{"500 ": page("2", "a", "b"), "500 2": page("", "c")}},
		"a page that came too late":   {answers: map[string]any{"500 ": page("2", "a", "x"), "500 2": expired, "0 ": page("", "a", "b", "c")}},
		"an error":                    {answers: map[string]any{"500 ": page("2", "a"), "500 2": errors.New("away")}, fails: true},
		"too late, and then an error": {answers: map[string]any{"500 ": page("2", "a"), "500 2": expired, "0 ": errors.New("away")}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			list := func(_ context.Context, o metav1.ListOptions) (*corev1.PodList, error) {
				switch answer := tc.answers[fmt.Sprintf("%d %s", o.Limit, o.Continue)].(type) {
				case *corev1.PodList:
					return answer, nil
				case error:
					return nil, answer
				}
				t.Fatalf("not expected: %+v", o)
				return nil, nil
			}
			got, err := all(t.Context(), list, func(l *corev1.PodList) []corev1.Pod { return l.Items })
			if tc.fails != (err != nil) {
				t.Fatalf("error %v", err)
			}
			if !tc.fails && (len(got) != 3 || got[0].Name != "a" || got[2].Name != "c") {
				t.Errorf("%d pods", len(got))
			}
		})
	}
}
