package explain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

// object is an object of any kind.
func object(apiVersion, kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

// letEveryoneIn is a ClusterNetworkPolicy for the namespaces with the label team=front. No implementation has reported it.
func letEveryoneIn() *unstructured.Unstructured {
	return object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", "open", map[string]any{
		"tier": "Admin", "priority": int64(1), "subject": map[string]any{"namespaces": map[string]any{"matchLabels": map[string]any{"team": "front"}}},
		"ingress": []any{map[string]any{"action": "Accept", "from": []any{map[string]any{"namespaces": map[string]any{}}}}},
	})
}

func TestVerdicts(t *testing.T) {
	deny, deniesHeld := policy("deny", nil), policy("cofferdam-quarantine-"+miner, nil, ofIncident, to(addresses("192.0.2.0/24")))
	hostNetwork := podNamed("web")
	hostNetwork.Spec.HostNetwork = true
	static := podNamed("web")
	static.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	with := func(f *Facts, change func(*Facts)) *Facts {
		change(f)
		return f
	}
	quarantined := func(inc *v1alpha1.Incident) *Facts {
		return with(factsOf(held(), deniesHeld), func(f *Facts) { f.Incidents = []*v1alpha1.Incident{inc} })
	}
	cases := map[string]struct {
		facts   *Facts
		verdict v1alpha1.Verdict
		code    int
		message string
	}{
		"denied in both directions":             {facts: factsOf(podNamed("web"), deny), verdict: "Isolated", code: 0, message: "allow nothing to or from the pod"},
		"no policy at all":                      {facts: factsOf(podNamed("web")), verdict: "Leaking", code: 1, message: "ingress from any peer on all ports is allowed, and 1 more"},
		"a latent leak only":                    {facts: factsOf(podNamed("web"), policy("a", nil, from(pods("a", "b")))), verdict: "Leaking", code: 1, message: "(latent)"},
		"the pod's node's network":              {facts: factsOf(hostNetwork, deny), verdict: "NotEnforceable", code: 1, message: "HostNetwork"},
		"a static pod that is denied":           {facts: factsOf(static, deny), verdict: "NotEnforceable", code: 2, message: "MirrorPod"},
		"a static pod that is not denied":       {facts: factsOf(static), verdict: "NotEnforceable", code: 1, message: "MirrorPod"},
		"an exception that is open":             {facts: quarantined(incident(upload(shop, v1alpha1.ExceptionOpen))), verdict: "Isolated", code: 0, message: "but one declared exception"},
		"an exception that is withheld":         {facts: quarantined(incident(upload(shop, v1alpha1.ExceptionWithheld))), verdict: "Leaking", code: 1, message: "egress to CIDR 192.0.2.0/24 on all ports is allowed"},
		"an exception open in other namespaces": {facts: quarantined(incident(upload("bank", v1alpha1.ExceptionOpen))), verdict: "Leaking", code: 1, message: "192.0.2.0/24"},
		"an exception that is not spoken of":    {facts: quarantined(incident()), verdict: "Leaking", code: 1, message: "192.0.2.0/24"},
		"an exception of another Incident": {
			facts: with(factsOf(podNamed("web"), policy("a", nil, to(addresses("192.0.2.0/24")))), func(f *Facts) {
				f.Incidents = []*v1alpha1.Incident{incident(upload(shop, v1alpha1.ExceptionOpen))}
			}),
			verdict: "Leaking", code: 1, message: "192.0.2.0/24",
		},
		"an Incident that does not exist": {facts: factsOf(held(), deniesHeld), verdict: "Leaking", code: 1, message: "192.0.2.0/24"},
		"an Incident that was not read": {
			facts:   with(factsOf(held(), deniesHeld), func(f *Facts) { f.IncidentsUnread = "you may not" }),
			verdict: "Unknown", code: 2, message: "may declare it as an exception, was not read: you may not",
		},
		"an Incident that was not read, and a leak that is none of its": {
			facts:   with(factsOf(held(), deniesHeld, policy("open", nil, from())), func(f *Facts) { f.IncidentsUnread = "you may not" }),
			verdict: "Leaking", code: 1, message: "ingress from any peer on all ports is allowed; of 1 more it is not certain",
		},
		"an Incident that was not read, and nothing open": {
			facts:   with(factsOf(held(), deny), func(f *Facts) { f.IncidentsUnread = "you may not" }),
			verdict: "Isolated", code: 0,
		},
		"the label of an Incident on somebody else's policy": {
			facts: with(factsOf(podNamed("web"), policy("a", nil, func(np *networkingv1.NetworkPolicy) {
				np.Labels = map[string]string{v1alpha1.IncidentUIDLabel: miner}
			}, from())), func(f *Facts) { f.IncidentsUnread = "you may not" }),
			verdict: "Leaking", code: 1,
		},
		"kinds that could not be listed": {
			facts:   with(factsOf(podNamed("web"), deny), func(f *Facts) { f.gap(true, "which policies there are", "you may not list them") }),
			verdict: "Unknown", code: 2, message: "not known: which policies there are: you may not list them",
		},
		"kinds that could not be listed, and a leak that they may deny": {
			facts:   with(factsOf(podNamed("web")), func(f *Facts) { f.gap(true, "which policies there are", "you may not list them") }),
			verdict: "Unknown", code: 2,
		},
		"a static pod of which not everything is known": {
			facts:   with(factsOf(static), func(f *Facts) { f.gap(true, "which policies there are", "you may not list them") }),
			verdict: "NotEnforceable", code: 2,
		},
		"something not looked at that has no bearing": {
			facts:   with(factsOf(podNamed("web"), deny), func(f *Facts) { f.gap(false, "which Ingresses there are", "you may not list them") }),
			verdict: "Isolated", code: 0,
		},
		"a policy of another API that may not be in effect": {
			facts: with(factsOf(podNamed("web"), deny), func(f *Facts) {
				f.Others = append(f.Others, letEveryoneIn())
				f.Namespaces[0].Labels = map[string]string{"team": "front"}
			}),
			verdict: "Unknown", code: 2, message: "ClusterNetworkPolicy open may not be in effect",
		},
		"a policy of another API for other namespaces": {
			facts:   with(factsOf(podNamed("web"), deny), func(f *Facts) { f.Others = append(f.Others, letEveryoneIn()) }),
			verdict: "Isolated", code: 0,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Explain(tc.facts)
			if got.Verdict != tc.verdict || got.ExitCode != tc.code || !strings.Contains(got.Message, tc.message) {
				t.Errorf("%s (exit code %d): %s\nwant %s (%d) with %q", got.Verdict, got.ExitCode, got.Message, tc.verdict, tc.code, tc.message)
			}
			var text strings.Builder
			if err := got.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), headlines[tc.verdict]+": Pod shop/web: ") {
				t.Errorf("the text begins wrongly (%v):\n%s", err, text.String())
			}
		})
	}
}

func TestALeakSaysWhereItComesFromAndWhatClosesIt(t *testing.T) {
	quarantineLabel := v1alpha1.QuarantineLabelPrefix + miner
	got := Explain(factsOf(held(), policy("deny", nil), policy("open", nil, from(addresses("10.0.0.0/8")), from(pods("app", "peer")))))
	np := &PolicyRef{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: shop, Name: "open", Generation: 2}
	remedy := func(rule int) string {
		return fmt.Sprintf("remove spec.ingress[%d] of NetworkPolicy shop/open, or add to its spec.podSelector.matchExpressions: {key: %s, operator: DoesNotExist}", rule, quarantineLabel)
	}
	want := []Leak{
		{Peer: "CIDR 10.0.0.0/8", Ports: "all ports", Policy: np, Rule: 0, Reason: "AllowRule", State: "Active", Remedy: remedy(0)},
		{Peer: "pods app=peer in this namespace", Ports: "all ports", Policy: np, Rule: 1, Reason: "AllowRule", State: "Latent", Remedy: remedy(1)},
	}
	if diff := cmp.Diff(want, got.Ingress.Leaks); diff != "" {
		t.Errorf("leaks mismatch (-want +got):\n%s", diff)
	}
}

func TestALeakIsLatentOnlyWhereSomebodyLooked(t *testing.T) {
	facts := func(within Scope, others ...*corev1.Pod) *Facts {
		f := factsOf(podNamed("web"), policy("a", nil, from(pods("role", "debug"))))
		f.Pods, f.PodsWithin = append(others, f.Pod), within
		return f
	}
	nameless := func() *corev1.Pod {
		pod := podNamed("debug", "role", "debug")
		pod.UID = ""
		return pod
	}
	idle := podNamed("idle")
	idle.UID, idle.Name = "", ""
	second := *idle
	template := nameless()
	template.Name = ""
	cases := map[string]struct {
		facts *Facts
		state v1alpha1.LeakState
		text  string
	}{
		"nobody matches":              {facts: facts(ScopeCluster, podNamed("other")), state: "Latent", text: "latent: no pod in the cluster matches now"},
		"somebody matches":            {facts: facts(ScopeCluster, podNamed("other", "role", "debug")), state: "Active", text: "(active)"},
		"in the namespace only":       {facts: facts(ScopeNamespace), state: "Latent", text: "latent: no pod in namespace shop, and others were not looked at, matches now"},
		"in files":                    {facts: facts(ScopeFiles), state: "Latent", text: "latent: no pod in the files matches now"},
		"nobody looked":               {facts: facts(ScopeNone), state: "Active", text: "(active)"},
		"a manifest matches":          {facts: facts(ScopeFiles, nameless(), idle), state: "Active", text: "(active)"},
		"a manifest without any name": {facts: facts(ScopeFiles, template, idle, &second), state: "Active", text: "(active)"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Explain(tc.facts)
			if len(got.Ingress.Leaks) != 1 || got.Ingress.Leaks[0].State != tc.state {
				t.Fatalf("leaks %+v, want one that is %s", got.Ingress.Leaks, tc.state)
			}
			var text strings.Builder
			_ = got.WriteText(&text)
			if !strings.Contains(text.String(), tc.text) {
				t.Errorf("the text lacks %q:\n%s", tc.text, text.String())
			}
		})
	}
}

func TestBeforeAndNow(t *testing.T) {
	allowWeb := policy("allow-web", map[string]string{"app": "web"}, from(addresses("10.0.0.0/8")))
	// The policy that quarantines new pods of a revision selects them by the labels that this one had.
	ofRevision := policy("revision", nil, ofIncident, from(addresses("172.16.0.0/12")))
	ofRevision.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	f := factsOf(held(), allowWeb, policy("deny", nil, ofIncident), policy("new", map[string]string{"app": "x"}), ofRevision)
	f.Incidents = []*v1alpha1.Incident{incident()}
	got := Explain(f)
	if diff := cmp.Diff(Direction{Allowed: "nothing", Before: "CIDR 10.0.0.0/8 on all ports"}, got.Ingress); diff != "" {
		t.Errorf("ingress mismatch (-want +got):\n%s", diff)
	}
	want := &Quarantine{
		Detached: true, LabelsBefore: map[string]string{"app": "web"}, OwnerBefore: "ReplicaSet web-5d4f",
		Incidents: []HoldingIncident{{UID: miner, Namespace: "desk", Name: "miner", Title: "miner", Verdict: "Isolated"}},
	}
	if diff := cmp.Diff(want, got.Quarantine); diff != "" {
		t.Errorf("quarantine mismatch (-want +got):\n%s", diff)
	}

	wider := Explain(factsOf(held(), policy("deny", nil), policy("for-held", map[string]string{v1alpha1.QuarantineLabelPrefix + miner: "held"}, from())))
	if !wider.Ingress.Wider || wider.Egress.Wider {
		t.Errorf("a policy that selects the quarantined pod only makes ingress wider than before: %+v %+v", wider.Ingress, wider.Egress)
	}
	if free := Explain(factsOf(podNamed("web", "app", "web"), allowWeb)); free.Quarantine != nil || free.Ingress.Before != "" {
		t.Errorf("a pod that nobody holds has nothing before: %+v %+v", free.Quarantine, free.Ingress)
	}
}

func TestAnAttachedPodIsComparedWithItselfWithoutQuarantine(t *testing.T) {
	pod := podNamed("web", "app", "web", v1alpha1.QuarantineLabelPrefix+miner, v1alpha1.QuarantineLabelValue)
	got := Explain(factsOf(pod, policy("deny", nil, ofIncident)))
	if got.Quarantine == nil || got.Quarantine.Detached || !cmp.Equal(got.Quarantine.LabelsBefore, map[string]string{"app": "web"}) {
		t.Errorf("quarantine %+v", got.Quarantine)
	}
	if got.Ingress.Before != "any peer on all ports" || got.Ingress.Allowed != "nothing" {
		t.Errorf("ingress %+v", got.Ingress)
	}
}

func TestNotes(t *testing.T) {
	unreadable, loose, odd, ended := held(), held(), held(), podNamed("web")
	unreadable.Annotations[v1alpha1.OriginalAnnotation] = "{"
	loose.Labels = nil
	odd.Labels[v1alpha1.QuarantineLabelPrefix+"other"] = "maybe"
	ended.Status.Phase = corev1.PodFailed
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"originals that cannot be read":  {pod: unreadable, want: "what the pod was before its quarantine is not known"},
		"originals and no label":         {pod: loose, want: "but no Incident holds it"},
		"a label with another value":     {pod: odd, want: `has the value "maybe" and not "held"`},
		"a pod that has ended":           {pod: ended, want: "the pod has ended (Failed)"},
		"a pod that is as it should be":  {pod: held()},
		"a pod that nobody ever touched": {pod: podNamed("web")},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(Explain(factsOf(tc.pod)).Notes, "\n")
			if !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("notes %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPoliciesThatSelectThePod(t *testing.T) {
	ingressOnly := func(np *networkingv1.NetworkPolicy) {
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	}
	elsewhere := policy("elsewhere", nil)
	elsewhere.Namespace = "bank"
	invalid := policy("invalid", nil)
	invalid.Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}
	f := factsOf(podNamed("web", "app", "web"), policy("deny", nil), policy("only-in", map[string]string{"app": "web"}, ingressOnly, from(addresses("10.0.0.0/8"))),
		policy("not-me", map[string]string{"app": "db"}), elsewhere, invalid)
	f.Namespaces[0].Labels = map[string]string{"team": "front"}
	f.Others = append(f.Others, letEveryoneIn())
	got := Explain(f).Policies
	ref := func(name string) PolicyRef {
		return PolicyRef{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: shop, Name: name, Generation: 2}
	}
	want := []PolicyEffect{
		{PolicyRef: ref("deny"), Ingress: "nothing", Egress: "nothing"},
		{PolicyRef: ref("invalid"), Ingress: "any peer on all ports", Egress: "any peer on all ports"},
		{PolicyRef: ref("only-in"), Ingress: "CIDR 10.0.0.0/8 on all ports", Egress: "not restricted"},
	}
	if len(got) != 4 || got[3].Name != "open" || !strings.Contains(got[3].Undecided, "may not be in effect") {
		t.Fatalf("policies %+v", got)
	}
	if diff := cmp.Diff(want, got[:3]); diff != "" {
		t.Errorf("policies mismatch (-want +got):\n%s", diff)
	}
}

func TestRoutesNowAndBefore(t *testing.T) {
	f := factsOf(held())
	service := func(name, key, value string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name}, Spec: corev1.ServiceSpec{Selector: map[string]string{key: value}}}
	}
	f.Routes.Services = []*corev1.Service{service("web", "app", "web"), service("odd", v1alpha1.QuarantineLabelPrefix+miner, "held"), service("db", "app", "db")}
	got := Explain(f)
	names := func(all []Route) (out []string) {
		for _, r := range all {
			out = append(out, r.String())
		}
		return out
	}
	if diff := cmp.Diff([]string{"Service shop/odd"}, names(got.Routes)); diff != "" {
		t.Errorf("routes mismatch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Service shop/web"}, names(got.RoutesBefore)); diff != "" {
		t.Errorf("routes before mismatch (-want +got):\n%s", diff)
	}
}

func TestEveryResidualAndVerdictHasWords(t *testing.T) {
	pod := podNamed("web")
	pod.Spec.Containers = []corev1.Container{{SecurityContext: &corev1.SecurityContext{Privileged: new(true)}, Ports: []corev1.ContainerPort{{HostPort: 80}}}}
	for _, r := range Explain(factsOf(pod)).Residuals {
		if r.Meaning == "" {
			t.Errorf("residual %s has no meaning", r.Name)
		}
	}
	if n := len(isolation.Residuals(pod)) + 1; n != len(meanings) {
		t.Errorf("%d meanings for %d residuals", len(meanings), n)
	}
}

func TestFactsAreNotChanged(t *testing.T) {
	facts := func() *Facts {
		f := factsOf(held(), policy("deny", nil, ofIncident), policy("open", nil, from()))
		f.Pod.Labels["odd"] = "\x1b[2J"
		f.gap(true, "\x1b", "\x1b")
		f.Incidents = []*v1alpha1.Incident{incident()}
		f.Incidents[0].Spec.Title = "\x1b"
		f.Others = []*unstructured.Unstructured{letEveryoneIn()}
		return f
	}
	f := facts()
	one, two := Explain(f), Explain(f)
	if diff := cmp.Diff(facts(), f); diff != "" {
		t.Errorf("the facts were changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(one, two); diff != "" {
		t.Errorf("the second answer is another one:\n%s", diff)
	}
}

func TestListsAreBounded(t *testing.T) {
	f := factsOf(podNamed("web"))
	for i := range maxItems + 7 {
		f.NetworkPolicies = append(f.NetworkPolicies, policy(fmt.Sprintf("p-%d", i), nil, from(addresses(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))))
	}
	f.Pod.UID = types.UID(strings.Repeat("x", maxText+1))
	got := Explain(f)
	if len(got.Ingress.Leaks) != maxItems || got.Ingress.MoreLeaks != 7 || len(got.Policies) != maxItems || got.MorePolicies != 7 {
		t.Errorf("%d leaks and %d more, %d policies and %d more", len(got.Ingress.Leaks), got.Ingress.MoreLeaks, len(got.Policies), got.MorePolicies)
	}
	if n := len([]rune(got.Pod.UID)); n != maxText {
		t.Errorf("a text of %d characters", n)
	}
	if n := len([]rune(got.Ingress.Allowed)); n > maxText {
		t.Errorf("%d characters of what is allowed", n)
	}
	var text strings.Builder
	_ = got.WriteText(&text)
	if lines := strings.Count(text.String(), "\n"); lines > 7*maxShown {
		t.Errorf("%d lines of text", lines)
	}
	if !strings.Contains(text.String(), fmt.Sprintf("and %d more; -o yaml shows them", maxItems+7-maxShown)) {
		t.Error("the text does not count what it leaves out")
	}
}
