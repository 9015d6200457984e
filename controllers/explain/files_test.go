package explain

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const podAndDeny = `
kind: Pod
apiVersion: v1
metadata: {name: web, namespace: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
`

func TestVerdictsFromFiles(t *testing.T) {
	cases := map[string]struct {
		in      string
		verdict v1alpha1.Verdict
		message string
		fails   string
	}{
		"nothing but a deny policy": {in: podAndDeny, verdict: "Isolated", message: "as far as the files show"},
		"kinds that have no part in it": {
			in: podAndDeny + "kind: Deployment\nmetadata: {name: [not, a, name]}\n---\njust: values\n---\n- a list\n---\ntext\n", verdict: "Isolated",
		},
		"objects without a namespace are in that of -n": {
			in: "kind: Pod\napiVersion: v1\nmetadata: {name: web}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}", verdict: "Isolated",
		},
		"a policy of another namespace": {
			in: "kind: Pod\napiVersion: v1\nmetadata: {name: web}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: bank}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}", verdict: "Leaking",
		},
		"lists in lists": {
			in: `{"kind":"List","apiVersion":"v1","items":[
				{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"web"}}]},
				{"kind":"NetworkPolicyList","apiVersion":"networking.k8s.io/v1","items":[{"metadata":{"name":"a"},"spec":{"podSelector":{},"policyTypes":["Ingress","Egress"]}}]}]}`,
			verdict: "Isolated",
		},
		"the same object twice":        {in: podAndDeny + podAndDeny, verdict: "Isolated"},
		"a name that two objects have": {in: podAndDeny + strings.Replace(podAndDeny, "[Ingress, Egress]", "[Ingress]", 1), fails: "standard input:16: there is another NetworkPolicy deny at standard input:6"},
		"lists without end":            {in: strings.Repeat(`{"kind":"List","items":[`, 10) + strings.Repeat("]}", 10), fails: "more than 8 lists in lists"},
		"a policy with a slip of the pen": {
			in: podAndDeny + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: slip}\nspec:\n  podSelecter: {}\n", fails: `unknown field "spec.podSelecter"`,
		},
		"a policy with a field of the wrong type": {
			in: podAndDeny + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: slip}\nspec:\n  podSelector: all\n", fails: "standard input:11: NetworkPolicy slip cannot be read:",
		},
		"a policy as a cluster of old exported it": {
			in: podAndDeny + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: old, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\nstatus: {conditions: []}\n", verdict: "Isolated",
		},
		"a pod with a field of the wrong type": {in: "kind: Pod\napiVersion: v1\nmetadata: {name: web}\nspec: {hostNetwork: very}\n", fails: "standard input:1: Pod web cannot be read:"},
		"a policy of a version that is not read": {
			in: podAndDeny + "apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: old}\n", verdict: "Unknown", message: "NetworkPolicy (networking.k8s.io) shop/old",
		},
		"a policy of a group of old":           {in: podAndDeny + "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: old, namespace: shop}\n", verdict: "Unknown", message: "extensions"},
		"a policy that nobody evaluates":       {in: podAndDeny + "apiVersion: networking.gke.io/v1alpha1\nkind: FQDNNetworkPolicy\nmetadata: {name: out, namespace: shop}\n", verdict: "Unknown", message: "FQDNNetworkPolicy (networking.gke.io) shop/out"},
		"one in another namespace":             {in: podAndDeny + "apiVersion: networking.gke.io/v1alpha1\nkind: FQDNNetworkPolicy\nmetadata: {name: out, namespace: bank}\n", verdict: "Isolated"},
		"one that is staged":                   {in: podAndDeny + "apiVersion: projectcalico.org/v3\nkind: StagedGlobalNetworkPolicy\nmetadata: {name: out}\n", verdict: "Isolated"},
		"one about other networks":             {in: podAndDeny + "apiVersion: k8s.cni.cncf.io/v1beta1\nkind: MultiNetworkPolicy\nmetadata: {name: out, namespace: shop}\n", verdict: "Isolated"},
		"a policy by labels of the namespace":  {in: podAndDeny + "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: open}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: b}}}}\n", verdict: "Unknown", message: "the labels of Namespace shop, by which policies such as ClusterNetworkPolicy (policy.networking.k8s.io) open may select the pod: the files do not hold it"},
		"the same and the namespace":           {in: podAndDeny + "kind: Namespace\napiVersion: v1\nmetadata: {name: shop}\n---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: open}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: b}}}}\n", verdict: "Isolated"},
		"a policy of Cilium, other namespace":  {in: podAndDeny + "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: open, namespace: bank}\nspec: {what: ever}\n", verdict: "Isolated"},
		"an Ingress of a version not read":     {in: podAndDeny + "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: web}\nspec: {rules: 3}\n", verdict: "Isolated"},
		"a pod that only a template describes": {in: "kind: Deployment\nmetadata: {name: web}\n", fails: "the files hold no Pods at all"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			facts, err := fromYAML(t, tc.in)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("error %v, want %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := Explain(facts); got.Verdict != tc.verdict || !strings.Contains(got.Message, tc.message) {
				t.Errorf("%s: %s\nwant %s with %q", got.Verdict, got.Message, tc.verdict, tc.message)
			}
		})
	}
}

func TestEveryKindThatLeadsToAPodIsReadFromFiles(t *testing.T) {
	facts, err := fromYAML(t, podAndDeny+`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: bank}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mine, namespace: bank, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web, namespace: shop}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: bank}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: edge}
spec: {rules: [{backendRefs: [{name: web, namespace: bank, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: refused, namespace: other}
spec: {rules: [{backendRefs: [{name: web, namespace: bank, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: edge, namespace: bank}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge}], to: [{group: "", kind: Service}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	x := Explain(facts)
	var got []string
	for _, r := range x.Routes {
		got = append(got, r.Kind+" "+r.Namespace+"/"+r.Name)
	}
	if diff := cmp.Diff([]string{"Service bank/web", "EndpointSlice bank/mine", "Ingress bank/web", "HTTPRoute edge/web"}, got); diff != "" {
		t.Errorf("routes mismatch (-want +got):\n%s", diff)
	}
	if last := x.Residuals[len(x.Residuals)-1]; last.Name != "ManualEndpointSlice" {
		t.Errorf("residuals %+v", x.Residuals)
	}
}

func TestAPodIsFoundByItsNameAlone(t *testing.T) {
	const two = "{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: a}}\n---\n{kind: Pod, apiVersion: v1, metadata: {name: db, namespace: b}}\n---\n{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: b}}"
	for name, tc := range map[string]struct{ namespace, pod, want, fails string }{
		"one of the name":            {pod: "db", want: "b/db"},
		"two of the name":            {pod: "web", fails: "in namespaces a, b; say which one is meant with -n"},
		"two, and a namespace":       {namespace: "b", pod: "web", want: "b/web"},
		"another namespace":          {namespace: "a", pod: "db", fails: "the files hold no Pod db in namespace a, but a/web, b/db, b/web"},
		"a pod that does not exist":  {pod: "api", fails: "the files hold no Pod api, but a/web, b/db, b/web"},
		"a prefix of the pod's name": {pod: "we", fails: "no Pod we"},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := ReadFiles([]string{"-"}, strings.NewReader(two), tc.namespace)
			if err != nil {
				t.Fatal(err)
			}
			facts, err := files.Facts(tc.pod)
			switch {
			case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
				t.Errorf("error %v, want %q", err, tc.fails)
			case tc.fails == "" && (err != nil || facts.Pod.Namespace+"/"+facts.Pod.Name != tc.want):
				t.Errorf("found %v, %v, want %s", facts, err, tc.want)
			}
		})
	}
}

// FuzzFiles looks for files that make the reading, the evaluation or the writing panic, or that make something unprintable come out.
func FuzzFiles(f *testing.F) {
	f.Add(podAndDeny)
	f.Add(podAndDeny + "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x, namespace: shop}\nspec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n")
	f.Add(podAndDeny + "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: x}\nspec: {selector: all(), types: [Ingress], ingress: [{action: Allow}]}\n")
	f.Add(podAndDeny + "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: x}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n")
	f.Add("kind: PodList\nitems: [{metadata: {name: web}}, 3, null]\n...\n--- |\n x")
	f.Fuzz(func(t *testing.T, in string) {
		facts, err := fromYAML(t, in)
		if err != nil {
			return
		}
		var text strings.Builder
		if err := Explain(facts).WriteText(&text); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			if line = strings.TrimSuffix(line, "\n"); Clean(line) != line && len(line) < maxText {
				t.Fatalf("a line that is not clean: %q", line)
			}
		}
	})
}
