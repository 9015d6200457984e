package isolation

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// To whom a policy applies: surely, surely not, or maybe.
func TestCiliumSubjects(t *testing.T) {
	const (
		yes   = "applies"
		no    = "does not apply"
		maybe = "may apply"
	)
	is := func(key, value string) string { return fmt.Sprintf(`{"matchLabels":{%q:%q}}`, key, value) }
	asks := func(key, operator string, values ...string) string {
		list, _ := json.Marshal(values)
		if len(values) == 0 {
			list = []byte("null")
		}
		return fmt.Sprintf(`{"matchExpressions":[{"key":%q,"operator":%q,"values":%s}]}`, key, operator, list)
	}
	pod := relabelled(labelSet{"app": "web", "pod-template-hash": "1", "app.kubernetes.io/name": "w"})
	pod.Spec.ServiceAccountName = "builder"

	cases := map[string]struct {
		clusterwide    bool
		selector, want string
	}{
		"everything":                      {selector: `{}`, want: yes},
		"a label":                         {selector: is("app", "web"), want: yes},
		"a label from any source":         {selector: is("any:app", "web"), want: yes},
		"a label from Kubernetes":         {selector: is("k8s:app", "web"), want: yes},
		"a label from elsewhere":          {selector: is("container:app", "web"), want: maybe},
		"a label with another value":      {selector: is("k8s:app", "db"), want: no},
		"two labels":                      {selector: `{"matchLabels":{"app":"web","tier":"fe"}}`, want: no},
		"a recommended label":             {selector: is("app.kubernetes.io/name", "w"), want: yes},
		"one of several values":           {selector: asks("app", "In", "db", "web"), want: yes},
		"none of several values":          {selector: asks("app", "NotIn", "db", "web"), want: no},
		"not this value, or no label":     {selector: asks("tier", "NotIn", "fe"), want: yes},
		"a label with any value":          {selector: asks("app", "Exists"), want: yes},
		"no such label":                   {selector: asks("app", "DoesNotExist"), want: no},
		"what contradicts itself":         {selector: `{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}`, want: no},
		"the account":                     {selector: is("io.cilium.k8s.policy.serviceaccount", "builder"), want: yes},
		"another account":                 {selector: is("k8s:io.cilium.k8s.policy.serviceaccount", "default"), want: no},
		"any account":                     {selector: asks("io.cilium.k8s.policy.serviceaccount", "Exists"), want: yes},
		"no account":                      {selector: asks("io.cilium.k8s.policy.serviceaccount", "DoesNotExist"), want: no},
		"the cluster":                     {selector: is("io.cilium.k8s.policy.cluster", "default"), want: maybe},
		"a hash that the pod has":         {selector: is("pod-template-hash", "1"), want: maybe},
		"a hash that the pod does not":    {selector: is("pod-template-hash", "2"), want: no},
		"not a hash that the pod has":     {selector: asks("pod-template-hash", "NotIn", "1"), want: maybe},
		"a label of Cilium's own":         {selector: asks("io.cilium.k8s.named-ports", "DoesNotExist"), want: maybe},
		"a label of the cloud's":          {selector: asks("failure-domain.beta.kubernetes.io/zone", "DoesNotExist"), want: maybe},
		"a label of a StatefulSet's":      {selector: is("statefulset.kubernetes.io/pod-name", "v"), want: no},
		"a start with no meaning":         {selector: asks("annotations", "DoesNotExist"), want: maybe},
		"its namespace":                   {selector: is("k8s:io.kubernetes.pod.namespace", namespace), want: yes},
		"any namespace":                   {selector: asks("io.kubernetes.pod.namespace", "Exists"), want: yes},
		"another namespace":               {selector: is("k8s:io.kubernetes.pod.namespace", "x"), want: maybe},
		"no namespace":                    {selector: asks("io.kubernetes.pod.namespace", "DoesNotExist"), want: no},
		"its namespace's label":           {selector: is("io.cilium.k8s.namespace.labels.team", "a"), want: yes},
		"another label of its namespace":  {selector: is("k8s:io.cilium.k8s.namespace.labels.team", "b"), want: no},
		"its namespace's name by a label": {selector: is("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", namespace), want: yes},

		"clusterwide: everything":        {clusterwide: true, selector: `{}`, want: yes},
		"clusterwide: a namespace":       {clusterwide: true, selector: is("k8s:io.kubernetes.pod.namespace", namespace), want: yes},
		"clusterwide: another namespace": {clusterwide: true, selector: is("k8s:io.kubernetes.pod.namespace", "x"), want: no},
		"clusterwide: not kube-system":   {clusterwide: true, selector: asks("io.kubernetes.pod.namespace", "NotIn", "kube-system"), want: yes},
		"clusterwide: a namespace label": {clusterwide: true, selector: is("io.cilium.k8s.namespace.labels.team", "a"), want: yes},
		"clusterwide: Envoy":             {clusterwide: true, selector: asks("reserved:ingress", "Exists"), want: no},
		"clusterwide: health checks":     {clusterwide: true, selector: is("reserved:health", ""), want: no},
		"clusterwide: anything but":      {clusterwide: true, selector: asks("reserved:ingress", "DoesNotExist"), want: yes},
		"clusterwide: pods that start":   {clusterwide: true, selector: is("reserved:init", ""), want: maybe},
		"clusterwide: but those":         {clusterwide: true, selector: asks("reserved:init", "DoesNotExist"), want: yes},
		"clusterwide: what is not known": {clusterwide: true, selector: is("reserved:all", ""), want: maybe},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			kind := kindCilium
			if tc.clusterwide {
				kind = kindCiliumClusterwide
			}
			p := readCilium(ciliumObject(kind, `"spec":{"endpointSelector":`+tc.selector+`,"ingress":[{"fromEntities":["all"]}]}`, ciliumValid))
			set := NewSet(ciliumBesidesAll(), p)
			set.PutNamespace(namespace, labelSet{"team": "a"})
			leaks := Evaluate(pod, set, nil, nil)
			got := no
			switch {
			case len(leaks) > 0 && leaks[0].Undecided == "":
				got = yes
			case len(leaks) > 0 && strings.HasPrefix(leaks[0].Undecided, "whether CiliumNetworkPolicy shop/c applies to the pod cannot be decided: spec.endpointSelector: "),
				len(leaks) > 0 && strings.HasPrefix(leaks[0].Undecided, "whether CiliumClusterwideNetworkPolicy c applies to the pod cannot be decided: spec.endpointSelector: "):
				got = maybe
			}
			if got != tc.want || len(leaks) > 1 {
				t.Errorf("the policy %s, want: %s (%v)", got, tc.want, leaks)
			}
		})
	}
}

// ciliumBesidesAll isolates every pod of the test's namespace.
func ciliumBesidesAll() *Policy {
	return ReadNetworkPolicy(newPolicy("q", DenySpec(everything(), nil)))
}

// ciliumPod is a pod of the small world in which random selectors are tried.
type ciliumPod struct {
	namespace, account string
	team               string
	labels             labelSet
}

// identity are the labels that Cilium gives to the pod.
func (p ciliumPod) identity() labelSet {
	out := labelSet{"io.kubernetes.pod.namespace": p.namespace, "io.cilium.k8s.policy.serviceaccount": p.account, "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": p.namespace}
	if p.team != "" {
		out["io.cilium.k8s.namespace.labels.team"] = p.team
	}
	maps.Copy(out, p.labels)
	return out
}

func ciliumWorld() []ciliumPod {
	var out []ciliumPod
	for _, in := range []struct{ name, team string }{{namespace, ""}, {"x", "a"}, {"y", "b"}} {
		for _, account := range []string{"default", "builder"} {
			for _, labels := range []labelSet{{}, {"app": "a"}, {"app": "b", "tier": "a"}} {
				out = append(out, ciliumPod{namespace: in.name, account: account, team: in.team, labels: labels})
			}
		}
	}
	return out
}

func randomCiliumSelector(g *rand.Rand) metav1.LabelSelector {
	keys := []string{
		"app", "k8s:app", "any:tier", "io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace", "io.cilium.k8s.policy.serviceaccount", "k8s:io.cilium.k8s.namespace.labels.team",
		"any:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
	}
	values := []string{"a", "b", namespace, "x", "default"}
	pick := func(list []string) string { return list[g.IntN(len(list))] }
	s := metav1.LabelSelector{MatchLabels: map[string]string{}}
	for range g.IntN(3) {
		s.MatchLabels[pick(keys)] = pick(values)
	}
	for range g.IntN(3) {
		e := metav1.LabelSelectorRequirement{Key: pick(keys), Operator: metav1.LabelSelectorOpExists}
		switch g.IntN(4) {
		case 0:
			e.Operator = metav1.LabelSelectorOpDoesNotExist
		case 1:
			e.Operator, e.Values = metav1.LabelSelectorOpIn, []string{pick(values), pick(values)}
		case 2:
			e.Operator, e.Values = metav1.LabelSelectorOpNotIn, []string{pick(values), pick(values)}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

// withoutSources is the selector as it asks of the labels that Cilium gives.
func withoutSources(s metav1.LabelSelector) *metav1.LabelSelector {
	bare := func(key string) string {
		_, after, found := strings.Cut(key, ":")
		if !found {
			return key
		}
		return after
	}
	out := &metav1.LabelSelector{}
	for key, value := range s.MatchLabels {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: bare(key), Operator: metav1.LabelSelectorOpIn, Values: []string{value}})
	}
	for _, e := range s.MatchExpressions {
		e.Key = bare(e.Key)
		out.MatchExpressions = append(out.MatchExpressions, e)
	}
	return out
}

func mentions(s *metav1.LabelSelector, start string) bool {
	return slices.ContainsFunc(s.MatchExpressions, func(e metav1.LabelSelectorRequirement) bool { return strings.HasPrefix(e.Key, start) })
}

// Random selectors of peers hold the pods that they hold by the labels that Cilium gives to pods, and ends without labels only where Cilium's do. What they hold of these may be too much.
func TestCiliumSelectorsHoldWhatCiliumsHold(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	held, outsiders := 0, 0
	for range 20_000 {
		s := randomCiliumSelector(g)
		for _, r := range []ciliumReader{{namespace: namespace}, {clusterwide: true}} {
			pods, foreign := compareCiliumSelector(t, ciliumContext{ciliumReader: r}, s)
			held += pods
			if foreign {
				outsiders++
			}
		}
	}
	if held < 10_000 || outsiders < 1_000 {
		t.Errorf("the selectors are lopsided: %d pods held, %d times others", held, outsiders)
	}
}

// compareCiliumSelector returns how many pods of the small world the selector holds, and whether it holds ends without labels.
func compareCiliumSelector(t *testing.T, c ciliumContext, s metav1.LabelSelector) (pods int, foreign bool) {
	t.Helper()
	ends, err := c.endpoints("f", &s)
	if err != nil {
		t.Fatal(err)
	}
	bare := withoutSources(s)
	own := !c.clusterwide && !mentions(bare, "io.kubernetes.pod.namespace") && !mentions(bare, "io.cilium.k8s.namespace.labels.")
	for _, pod := range ciliumWorld() {
		want := matches(bare, pod.identity()) && (!own || pod.namespace == namespace)
		if got := holds(ends, pod); got != want {
			t.Fatalf("%+v holds %+v: %v, want %v", s, pod, got, want)
		}
		if want {
			pods++
		}
	}
	foreign = matches(bare, labelSet{}) && !own && (!c.clusterwide || mentions(bare, "io.kubernetes.pod.namespace"))
	if foreign && !slices.ContainsFunc(ends, func(e ciliumEnd) bool { return e.box.sorts&noPods == noPods }) {
		t.Fatalf("%+v leaves out ends that are not pods", s)
	}
	return pods, foreign
}

func holds(ends []ciliumEnd, pod ciliumPod) bool {
	namespaceLabels := labelSet{corev1.LabelMetadataName: pod.namespace}
	if pod.team != "" {
		namespaceLabels["team"] = pod.team
	}
	return slices.ContainsFunc(ends, func(e ciliumEnd) bool {
		return e.box.sorts&podsByLabel != 0 && e.box.labels.matches(namespaceLabels, pod.labels, pod.account)
	})
}

// The starts of keys that Cilium leaves out are starts, but no parts, of keys.
func TestCiliumLabelsThatAreLeftOut(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range []string{
		"app", "app.kubernetes.io/name", "pod-template", "pod-template-hash", "controller-revision-hash", "kubernetes.io/x", "my.kubernetes.io/x", "k8s.io/x", "my.k8s.io/x", "io.kubernetes.pod.name",
		"x.beta.kubernetes.io/y", "io.cilium.k8s.x", quarantineKey,
	} {
		seen[key] = !unseen(key)
	}
	want := map[string]bool{
		"app": true, "app.kubernetes.io/name": true, "pod-template": true, "pod-template-hash": false, "controller-revision-hash": false, "kubernetes.io/x": false, "my.kubernetes.io/x": true,
		"k8s.io/x": false, "my.k8s.io/x": true, "io.kubernetes.pod.name": false, "x.beta.kubernetes.io/y": false, "io.cilium.k8s.x": false, quarantineKey: true,
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("labels that are seen (-want +got):\n%s", diff)
	}
}
