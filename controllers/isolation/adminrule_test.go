package isolation

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Specs are written as JSON, as the API server has them.
const (
	everyNamespace = `{"namespaces":{}}`
	teamA          = `{"namespaces":{"matchLabels":{"team":"a"}}}`
	appB           = `{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"b"}}}}`
	everyNetwork   = `{"networks":["0.0.0.0/0","::/0"]}`
	badSelector    = `{"matchExpressions":[{"key":"team","operator":"Like"}]}`
)

// adminObject is an object of the Network Policy API of generation 3. Conditions are written "Type=Status".
func adminObject(kind, name, specJSON string, conditions ...string) *unstructured.Unstructured {
	version := "v1alpha1"
	if kind == "ClusterNetworkPolicy" {
		version = "v1alpha2"
	}
	var spec any
	if err := json.Unmarshal([]byte(specJSON), &spec); err != nil {
		panic(fmt.Sprintf("%v: %s", err, specJSON))
	}
	list := []any{}
	for _, c := range conditions {
		typ, status, _ := strings.Cut(c, "=")
		list = append(list, map[string]any{"type": typ, "status": status})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy.networking.k8s.io/" + version, "kind": kind,
		"metadata": map[string]any{"name": name, "generation": int64(3)},
		"spec":     spec,
		"status":   map[string]any{"conditions": list},
	}}
}

// readAdminObject reads an object by its kind.
func readAdminObject(u *unstructured.Unstructured) *Policy {
	switch u.GetKind() {
	case "ClusterNetworkPolicy":
		return readClusterNetworkPolicy(u)
	case "AdminNetworkPolicy":
		return readAdminNetworkPolicy(u)
	}
	return readBaselineAdminNetworkPolicy(u)
}

// cnp is a ClusterNetworkPolicy about all pods that is reported to be in effect. Rules are written "ingress: {...}".
func cnp(name, tier string, priority int, rules ...string) *Policy {
	return readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", name, cnpJSON(tier, priority, rules...), "Ready=True"))
}

func cnpJSON(tier string, priority int, rules ...string) string {
	return fmt.Sprintf(`{"tier":%q,"priority":%d,%s}`, tier, priority, rulesJSON(rules...))
}

func anp(name string, priority int, rules ...string) *Policy {
	return readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", name, anpJSON(priority, rules...), "Ready-In-Zone-a=True"))
}

func anpJSON(priority int, rules ...string) string {
	return fmt.Sprintf(`{"priority":%d,%s}`, priority, rulesJSON(rules...))
}

func banp(rules ...string) *Policy {
	return readBaselineAdminNetworkPolicy(adminObject("BaselineAdminNetworkPolicy", "default", "{"+rulesJSON(rules...)+"}", "Ready-In-Zone-a=True"))
}

// rulesJSON are the fields that all kinds have.
func rulesJSON(rules ...string) string {
	by := map[string][]string{}
	for _, r := range rules {
		direction, text, _ := strings.Cut(r, ": ")
		by[direction] = append(by[direction], text)
	}
	return fmt.Sprintf(`"subject":{"namespaces":{}},"ingress":[%s],"egress":[%s]`, strings.Join(by["ingress"], ","), strings.Join(by["egress"], ","))
}

func ruleIn(act string, peers ...string) string {
	return fmt.Sprintf(`ingress: {"action":%q,"from":[%s]}`, act, strings.Join(peers, ","))
}

func ruleOut(act string, peers ...string) string {
	return fmt.Sprintf(`egress: {"action":%q,"to":[%s]}`, act, strings.Join(peers, ","))
}

// with adds fields to a rule.
func withFields(rule, fields string) string {
	return strings.TrimSuffix(rule, "}") + "," + fields + "}"
}

// Verdicts, as the field notes on network policies have them.
const (
	verdictIsolated = "ISO"
	verdictLeaking  = "LEAK"
	verdictUnknown  = "UNK"
)

func verdictOf(leaks []Leak) string {
	switch {
	case len(leaks) == 0:
		return verdictIsolated
	case slices.ContainsFunc(leaks, func(l Leak) bool { return l.Undecided == "" }):
		return verdictLeaking
	}
	return verdictUnknown
}

// linesOf writes leaks for comparison: "egress to PEER on PORTS by SOURCE rule 0: REASON ? UNDECIDED".
func linesOf(leaks []Leak) []string {
	var out []string
	for _, l := range leaks {
		line := l.Flows()
		if l.Source.Name != "" {
			line += " by " + l.Source.Name
		}
		if l.Rule != noRule {
			line += fmt.Sprintf(" rule %d", l.Rule)
		}
		if l.Reason != ReasonAllowRule {
			line += ": " + l.Reason
		}
		if l.Undecided != "" {
			line += " ? " + l.Undecided
		}
		out = append(out, line)
	}
	return out
}

// allowEverything is a NetworkPolicy that lets every pod of the namespace do everything.
func allowEverything() *Policy {
	s := egress(everything(), nil)
	s.Ingress = ingress(everything(), nil).Ingress
	s.PolicyTypes = append(s.PolicyTypes, typeIngress)
	return ReadNetworkPolicy(newPolicy("a", s))
}

func quarantine() *Policy { return ReadNetworkPolicy(denyPolicy()) }

// subjectPod has ports that implementations find, or do not find, by their names.
func subjectPod() *corev1.Pod {
	pod := stripped()
	pod.Spec.Containers = []corev1.Container{
		{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "dns", ContainerPort: 53, Protocol: udp}, {Name: "twice", ContainerPort: 81}}},
		{Name: "other", Ports: []corev1.ContainerPort{{Name: "twice", ContainerPort: 82}}},
	}
	pod.Spec.InitContainers = []corev1.Container{{Name: "sidecar", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}}}
	return pod
}

type adminCase struct {
	policies []*Policy
	verdict  string
	want     []string
}

func runAdminCases(t *testing.T, pod *corev1.Pod, cases map[string]adminCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			leaks := Evaluate(pod, NewSet(tc.policies...), nil, nil)
			if diff := cmp.Diff(tc.want, linesOf(leaks)); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
			if got := verdictOf(leaks); tc.verdict != "" && got != tc.verdict {
				t.Errorf("verdict %s, want %s", got, tc.verdict)
			}
		})
	}
}

// What a rule accepts shows as a leak past a NetworkPolicy that denies everything.
func TestWhatARuleAccepts(t *testing.T) {
	pod := subjectPod()
	in := func(peer, fields string) adminCase {
		r := ruleIn("Accept", peer)
		if fields != "" {
			r = withFields(r, fields)
		}
		return adminCase{policies: []*Policy{quarantine(), cnp("x", "Admin", 5, r)}}
	}
	out := func(peer, fields string) adminCase {
		c := in(peer, fields)
		r := ruleOut("Accept", peer)
		if fields != "" {
			r = withFields(r, fields)
		}
		c.policies[1] = cnp("x", "Admin", 5, r)
		return c
	}
	gives := func(c adminCase, want ...string) adminCase {
		c.want = want
		return c
	}
	// The same with the ports of v1alpha1.
	old := func(ports string) adminCase {
		return adminCase{policies: []*Policy{quarantine(), anp("x", 5, withFields(ruleIn("Allow", appB), `"ports":`+ports))}}
	}
	const fromB, toB = "ingress from all namespaces / pods app=b on ", "egress to all namespaces / pods app=b on "
	const invalidPort = "all ports by x rule 0: InvalidPort"
	runAdminCases(t, pod, map[string]adminCase{
		"namespaces":                        gives(in(teamA, ""), "ingress from namespaces team=a / all pods on all ports by x rule 0"),
		"every namespace":                   gives(in(everyNamespace, ""), "ingress from all namespaces / all pods on all ports by x rule 0"),
		"namespaces with a bad selector":    gives(in(`{"namespaces":`+badSelector+`}`, ""), "ingress from namespaces with an invalid selector on all ports by x rule 0: InvalidSelector"),
		"namespaces that contradict":        gives(in(`{"namespaces":{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"a","operator":"DoesNotExist"}]}}`, "")),
		"pods":                              gives(in(appB, ""), fromB+"all ports by x rule 0"),
		"pods of namespaces":                gives(in(`{"pods":{"namespaceSelector":{"matchLabels":{"team":"a"}},"podSelector":{"matchLabels":{"app":"b"}}}}`, ""), "ingress from namespaces team=a / pods app=b on all ports by x rule 0"),
		"pods of namespaces that go unsaid": gives(in(`{"pods":{"podSelector":{"matchLabels":{"app":"b"}}}}`, ""), fromB+"all ports by x rule 0"),
		"pods with empty selectors":         gives(in(`{"pods":{"namespaceSelector":{},"podSelector":{}}}`, ""), "ingress from all namespaces / all pods on all ports by x rule 0"),
		"pods without podSelector":          gives(in(`{"pods":{"namespaceSelector":{}}}`, ""), "ingress from a peer that the API does not have on all ports by x rule 0: InvalidPeer"),
		"pods with a bad selector":          gives(in(`{"pods":{"podSelector":`+badSelector+`}}`, ""), "ingress from pods with an invalid selector on all ports by x rule 0: InvalidSelector"),
		"a peer without fields":             gives(in(`{}`, ""), "ingress from a peer that the API does not have on all ports by x rule 0: InvalidPeer"),
		"a peer with two fields":            gives(out(`{"namespaces":{},"networks":["10.0.0.0/8"]}`, ""), "egress to a peer that the API does not have on all ports by x rule 0: InvalidPeer"),
		"no peers":                          gives(in(``, ""), "ingress from any peer on all ports by x rule 0: InvalidPeer"),
		"networks":                          gives(out(`{"networks":["10.1.0.0/8","fd00::/8"]}`, ""), "egress to CIDR 10.0.0.0/8, fd00::/8 on all ports by x rule 0"),
		"networks with a bad CIDR":          gives(out(`{"networks":["10.0.0.0/8","10.0.0.0/40"]}`, ""), `egress to CIDR "10.0.0.0/40" on all ports by x rule 0: InvalidCIDR`),
		"no networks":                       gives(out(`{"networks":[]}`, ""), "egress to CIDR  on all ports by x rule 0: InvalidCIDR"),
		"networks for ingress":              gives(in(`{"networks":["10.0.0.0/8"]}`, ""), "ingress from a peer that the API does not have on all ports by x rule 0: InvalidPeer"),
		"nodes":                             gives(out(`{"nodes":{"matchLabels":{"role":"edge"}}}`, ""), "egress to nodes role=edge on all ports by x rule 0"),
		"all nodes":                         gives(out(`{"nodes":{}}`, ""), "egress to all nodes on all ports by x rule 0"),
		"nodes with a bad selector":         gives(out(`{"nodes":`+badSelector+`}`, ""), "egress to nodes with an invalid selector on all ports by x rule 0: InvalidSelector"),
		"nodes that contradict":             gives(out(`{"nodes":{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"a","operator":"DoesNotExist"}]}}`, "")),
		"nodes for ingress":                 gives(in(`{"nodes":{}}`, ""), "ingress from a peer that the API does not have on all ports by x rule 0: InvalidPeer"),
		"domain names":                      gives(out(`{"domainNames":["example.com","*.example.org"]}`, ""), "egress to domain names example.com, *.example.org on all ports by x rule 0"),
		"no domain names":                   gives(out(`{"domainNames":[]}`, ""), "egress to domain names where the API has none on all ports by x rule 0: InvalidPeer"),
		"a good peer next to a bad one": gives(in(appB+`,{}`, `"protocols":[{"tcp":{"destinationPort":{"number":80}}}]`),
			"ingress from a peer that the API does not have on TCP/80 by x rule 0: InvalidPeer", fromB+"TCP/80 by x rule 0"),

		"a bad peer on a named port of a sidecar": gives(in(`{}`, `"protocols":[{"destinationNamedPort":"metrics"}]`),
			"ingress from a peer that the API does not have on TCP/9090 (metrics) by x rule 0: InvalidPeer"),

		"a name is for people":           gives(in(appB, `"name":"n"`), fromB+"all ports by x rule 0"),
		"an action that does not exist":  gives(in(appB, `"action":"Log"`), "ingress from any peer on all ports by x rule 0 ? spec.ingress[0].action of ClusterNetworkPolicy x cannot be decided"),
		"an ingress rule with to":        gives(in(appB, `"to":[`+teamA+`]`), "ingress from any peer on all ports by x rule 0 ? spec.ingress[0] of ClusterNetworkPolicy x cannot be decided"),
		"an egress rule with from":       gives(out(appB, `"from":[`+teamA+`]`), "egress to any peer on all ports by x rule 0 ? spec.egress[0] of ClusterNetworkPolicy x cannot be decided"),
		"protocols that go unsaid":       gives(in(appB, `"protocols":null`), fromB+"all ports by x rule 0"),
		"no protocols":                   gives(in(appB, `"protocols":[]`), fromB+invalidPort),
		"a TCP port":                     gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80}}}]`), fromB+"TCP/80 by x rule 0"),
		"ports of all protocols":         gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80}}},{"udp":{"destinationPort":{"number":53}}},{"sctp":{"destinationPort":{"number":9}}}]`), fromB+"TCP/80, UDP/53, SCTP/9 by x rule 0"),
		"a range of ports":               gives(in(appB, `"protocols":[{"udp":{"destinationPort":{"range":{"start":80,"end":90}}}}]`), fromB+"UDP/80-90 by x rule 0"),
		"the highest port":               gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":65535}}}}]`), fromB+"TCP/1-65535 by x rule 0"),
		"a range that goes backwards":    gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"range":{"start":90,"end":80}}}}]`), fromB+invalidPort),
		"a port that is too high":        gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":65536}}}]`), fromB+invalidPort),
		"port 0":                         gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":0}}}]`), fromB+invalidPort),
		"a port and a range":             gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80,"range":{"start":80,"end":90}}}}]`), fromB+invalidPort),
		"neither a port nor a range":     gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{}}}]`), fromB+invalidPort),
		"a protocol without a port":      gives(in(appB, `"protocols":[{"tcp":{}}]`), fromB+invalidPort),
		"two protocols in one":           gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80}},"udp":{"destinationPort":{"number":80}}}]`), fromB+invalidPort),
		"a protocol and a name":          gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80}},"destinationNamedPort":"http"}]`), fromB+invalidPort),
		"an element without a protocol":  gives(in(appB, `"protocols":[{}]`), fromB+invalidPort),
		"one bad element among good":     gives(in(appB, `"protocols":[{"tcp":{"destinationPort":{"number":80}}},{}]`), fromB+invalidPort),
		"a named port":                   gives(in(appB, `"protocols":[{"destinationNamedPort":"http"}]`), fromB+"TCP/8080 (http) by x rule 0"),
		"a named port of UDP":            gives(in(appB, `"protocols":[{"destinationNamedPort":"dns"}]`), fromB+"UDP/53 (dns) by x rule 0"),
		"a name that nothing has":        gives(in(appB, `"protocols":[{"destinationNamedPort":"nothing"}]`)),
		"a name that cannot be one":      gives(in(appB, `"protocols":[{"destinationNamedPort":"80"}]`), fromB+invalidPort),
		"an empty name":                  gives(in(appB, `"protocols":[{"destinationNamedPort":""}]`), fromB+invalidPort),
		"a named port of a sidecar":      gives(in(appB, `"protocols":[{"destinationNamedPort":"metrics"}]`), fromB+"TCP/9090 (metrics) by x rule 0 ? spec.ingress[0].protocols of ClusterNetworkPolicy x cannot be decided"),
		"a name that two containers use": gives(in(appB, `"protocols":[{"destinationNamedPort":"twice"}]`), fromB+"TCP/81-82 by x rule 0 ? spec.ingress[0].protocols of ClusterNetworkPolicy x cannot be decided"),
		"a named port of peers":          gives(out(appB, `"protocols":[{"destinationNamedPort":"http"}]`), toB+"TCP/http (named), UDP/http (named), SCTP/http (named) by x rule 0"),
		"a named port of networks":       gives(out(`{"networks":["10.0.0.0/8"]}`, `"protocols":[{"destinationNamedPort":"http"}]`), "egress to CIDR 10.0.0.0/8 on "+invalidPort),
		"a named port of nodes":          gives(out(`{"nodes":{}}`, `"protocols":[{"destinationNamedPort":"http"}]`), "egress to all nodes on "+invalidPort),

		"v1alpha1: a port":                    gives(old(`[{"portNumber":{"protocol":"UDP","port":53}}]`), fromB+"UDP/53 by x rule 0"),
		"v1alpha1: a port of TCP":             gives(old(`[{"portNumber":{"port":80}}]`), fromB+"TCP/80 by x rule 0"),
		"v1alpha1: a range":                   gives(old(`[{"portRange":{"protocol":"SCTP","start":80,"end":90}}]`), fromB+"SCTP/80-90 by x rule 0"),
		"v1alpha1: a range of TCP":            gives(old(`[{"portRange":{"start":80,"end":90}}]`), fromB+"TCP/80-90 by x rule 0"),
		"v1alpha1: a named port":              gives(old(`[{"namedPort":"http"}]`), fromB+"TCP/8080 (http) by x rule 0"),
		"v1alpha1: several":                   gives(old(`[{"namedPort":"dns"},{"portNumber":{"port":80}}]`), fromB+"TCP/80, UDP/53 (dns) by x rule 0"),
		"v1alpha1: another protocol":          gives(old(`[{"portNumber":{"protocol":"ICMP","port":80}}]`), fromB+invalidPort),
		"v1alpha1: a bad range":               gives(old(`[{"portRange":{"start":0,"end":90}}]`), fromB+invalidPort),
		"v1alpha1: two in one":                gives(old(`[{"namedPort":"http","portNumber":{"port":80}}]`), fromB+invalidPort),
		"v1alpha1: nothing in one":            gives(old(`[{}]`), fromB+invalidPort),
		"v1alpha1: none":                      gives(old(`[]`), fromB+invalidPort),
		"v1alpha1: a name that cannot be one": gives(old(`[{"namedPort":""}]`), fromB+invalidPort),
		"v1alpha1: a name of a sidecar":       gives(old(`[{"namedPort":"metrics"}]`), fromB+"TCP/9090 (metrics) by x rule 0 ? spec.ingress[0].ports of AdminNetworkPolicy x cannot be decided"),
	})
}

// What a rule does not deny for certain shows past a NetworkPolicy that allows everything.
func TestWhatARuleDenies(t *testing.T) {
	pod := subjectPod()
	in := func(rule string) []*Policy {
		egressOnly := ReadNetworkPolicy(newPolicy("q", spec{PolicyTypes: []networkingv1.PolicyType{typeEgress}}))
		return []*Policy{egressOnly, ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil))), cnp("x", "Admin", 5, rule)}
	}
	out := func(rule string) []*Policy {
		ingressOnly := ReadNetworkPolicy(newPolicy("q", spec{PolicyTypes: []networkingv1.PolicyType{typeIngress}}))
		return []*Policy{ingressOnly, ReadNetworkPolicy(newPolicy("a", egress(everything(), nil))), cnp("x", "Admin", 5, rule)}
	}
	undecided := func(field string) string { return " ? " + field + " of ClusterNetworkPolicy x cannot be decided" }
	const (
		allIn  = "ingress from any peer on all ports by a rule 0"
		allOut = "egress to any peer on all ports by a rule 0"
		noPod  = "any address that is not a pod's on all ports by a rule 0"
	)
	runAdminCases(t, pod, map[string]adminCase{
		"pods of every namespace, from which nodes and others remain": {
			policies: in(ruleIn("Deny", everyNamespace)), verdict: verdictLeaking, want: []string{"ingress from " + noPod},
		},
		"networks, of which pods remain where blocks do not match them": {
			policies: out(ruleOut("Deny", everyNetwork)), verdict: verdictLeaking, want: []string{"egress to all namespaces / all pods on all ports by a rule 0"},
		},
		"networks and pods": {policies: out(ruleOut("Deny", everyNetwork, everyNamespace)), verdict: verdictIsolated},
		"networks with a bad CIDR": {
			policies: out(ruleOut("Deny", `{"networks":["0.0.0.0/0","::/0","x"]}`, everyNamespace)), verdict: verdictUnknown,
			want: []string{allOut + undecided("spec.egress[0].to[0].networks")},
		},
		"peers of which one cannot be read": {
			policies: in(ruleIn("Deny", everyNamespace, `{"namespaces":`+badSelector+`}`)), verdict: verdictUnknown,
			want: []string{allIn + undecided("spec.ingress[0].from[1]")},
		},
		"a peer without fields": {
			policies: in(ruleIn("Deny", `{}`)), verdict: verdictUnknown, want: []string{allIn + undecided("spec.ingress[0].from[0]")},
		},
		"no peers": {policies: in(ruleIn("Deny")), verdict: verdictUnknown, want: []string{allIn + undecided("spec.ingress[0].from")}},
		"an ingress rule with to": {
			policies: in(withFields(ruleIn("Deny", everyNamespace), `"to":[]`)), verdict: verdictUnknown,
			want: []string{allIn + undecided("spec.ingress[0]")},
		},
		"nodes, which are not known": {
			policies: out(ruleOut("Deny", everyNamespace, `{"nodes":{}}`)), verdict: verdictUnknown,
			want: []string{"egress to " + noPod + undecided("spec.egress[0].to[1].nodes")},
		},
		"domain names, which the API does not let be denied": {
			policies: out(ruleOut("Deny", everyNamespace, `{"domainNames":["example.com"]}`)), verdict: verdictUnknown,
			want: []string{allOut + undecided("spec.egress[0].to[1].domainNames")},
		},
		"ports that cannot be read": {
			policies: out(withFields(ruleOut("Deny", everyNamespace, everyNetwork), `"protocols":[{}]`)), verdict: verdictUnknown,
			want: []string{allOut + undecided("spec.egress[0].protocols")},
		},
		"a named port": {
			policies: in(withFields(ruleIn("Deny", everyNamespace), `"protocols":[{"destinationNamedPort":"http"}]`)), verdict: verdictLeaking,
			want: []string{
				"ingress from all namespaces / all pods on TCP/0-8079, TCP/8081-65535, all UDP ports, all SCTP ports by a rule 0",
				"ingress from " + noPod,
			},
		},
		"a named port that some implementations do not find": {
			policies: in(withFields(ruleIn("Deny", everyNamespace), `"protocols":[{"destinationNamedPort":"metrics"}]`)), verdict: verdictLeaking,
			want: []string{allIn},
		},
		"a named port of peers, whose numbers are not known": {
			policies: out(withFields(ruleOut("Deny", everyNamespace), `"protocols":[{"destinationNamedPort":"http"}]`)), verdict: verdictLeaking,
			want: []string{allOut},
		},
		"a named port of networks": {
			policies: out(withFields(ruleOut("Deny", everyNetwork), `"protocols":[{"destinationNamedPort":"http"}]`)), verdict: verdictLeaking,
			want: []string{allOut}, // networks deny no pods by their labels, so that there is no doubt about those
		},
	})
}

// A rule that may mean less than it says keeps nothing from the rules after it.
func TestRulesInOrder(t *testing.T) {
	const invalid = `{"namespaces":` + badSelector + `}`
	pass80 := withFields(ruleIn("Pass", everyNamespace), `"protocols":[{"destinationNamedPort":"metrics"}]`)
	cidr := ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(blockPeer("10.0.0.0/8")))))
	runAdminCases(t, subjectPod(), map[string]adminCase{
		"the first rule that matches decides": {
			policies: []*Policy{quarantine(), cnp("x", "Admin", 5, ruleIn("Deny", appB), ruleIn("Accept", everyNamespace))},
			want:     []string{"ingress from all namespaces / pods app notin (b) on all ports by x rule 1"},
		},
		"an accept that cannot be read": {
			policies: []*Policy{quarantine(), cnp("x", "Admin", 5, ruleIn("Accept", invalid), ruleIn("Accept", appB))},
			verdict:  verdictLeaking,
			want: []string{
				"ingress from namespaces with an invalid selector on all ports by x rule 0: InvalidSelector",
				"ingress from all namespaces / pods app=b on all ports by x rule 1",
			},
		},
		"an accept whose action is not known": {
			policies: []*Policy{quarantine(), cnp("x", "Admin", 5, ruleIn("Log", appB), ruleIn("Accept", appB))},
			verdict:  verdictLeaking,
			want: []string{
				"ingress from all namespaces / pods app=b on all ports by x rule 1",
				"ingress from any peer on all ports by x rule 0 ? spec.ingress[0].action of ClusterNetworkPolicy x cannot be decided",
			},
		},
		"an accept of addresses that are not known": {
			policies: []*Policy{quarantine(), cidr, cnp("x", "Admin", 5, ruleOut("Accept", `{"domainNames":["example.com"]}`))},
			verdict:  verdictLeaking,
			want: []string{
				"egress to CIDR 10.0.0.0/8 on all ports by a rule 0",
				"egress to domain names example.com on all ports by x rule 0",
			},
		},
		"a pass that cannot be read passes everything on": {
			policies: []*Policy{
				allowEverything(),
				cnp("x", "Admin", 5, ruleIn("Pass", invalid), ruleIn("Deny", everyNamespace), ruleOut("Deny", everyNamespace, everyNetwork)),
			},
			verdict: verdictUnknown,
			want:    []string{"ingress from any peer on all ports by a rule 0 ? spec.ingress[0].from[0] of ClusterNetworkPolicy x cannot be decided"},
		},
		"a pass by a name that some implementations do not find": {
			policies: []*Policy{
				allowEverything(), cnp("x", "Admin", 5, pass80, ruleIn("Deny", everyNamespace), ruleOut("Deny", everyNamespace, everyNetwork)),
			},
			verdict: verdictLeaking,
			want: []string{
				"ingress from any address that is not a pod's on all ports by a rule 0",
				"ingress from all namespaces / all pods on TCP/9090 (metrics) by a rule 0 ? spec.ingress[0].protocols of ClusterNetworkPolicy x cannot be decided",
			},
		},
	})
}

// What is only known to be among some addresses may not be declared open for one of them.
func TestAcceptOfUnknownAddressesPermitsNothing(t *testing.T) {
	for name, peer := range map[string]string{"nodes": `{"nodes":{}}`, "domain names": `{"domainNames":["example.com"]}`} {
		t.Run(name, func(t *testing.T) {
			set := NewSet(quarantine(), cnp("x", "Admin", 5, ruleOut("Accept", peer), ruleOut("Accept", everyNamespace)))
			one := Exception{Direction: DirectionEgress, Peer: blockPeer("192.0.2.1/32")}
			if got := Permitted(stripped(), set, []Exception{one}); len(got) > 0 {
				t.Errorf("Permitted() = %v, want nothing", got)
			}
		})
	}
}

func TestSubject(t *testing.T) {
	const rules = `"ingress":[{"action":"Accept","from":[{"namespaces":{}}]}]`
	const open = "ingress from all namespaces / all pods on all ports by x rule 0"
	doubt := func(why string) []string {
		return []string{open + " ? whether ClusterNetworkPolicy x applies to the pod cannot be decided: " + why}
	}
	invalid := []string{"ingress from any peer on all ports by x: InvalidSelector"}
	cases := map[string]struct {
		subject, rules string
		want           []string
	}{
		"namespaces":                         {subject: `{"namespaces":{"matchLabels":{"team":"x"}}}`, want: []string{open}},
		"other namespaces":                   {subject: `{"namespaces":{"matchLabels":{"team":"y"}}}`},
		"namespaces that contradict":         {subject: `{"namespaces":{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"a","operator":"DoesNotExist"}]}}`},
		"all namespaces":                     {subject: `{"namespaces":{}}`, want: []string{open}},
		"pods":                               {subject: `{"pods":{"namespaceSelector":{"matchLabels":{"team":"x"}},"podSelector":{"matchLabels":{"app":"web"}}}}`, want: []string{open}},
		"pods of all namespaces":             {subject: `{"pods":{"podSelector":{"matchLabels":{"app":"web"}}}}`, want: []string{open}},
		"other pods":                         {subject: `{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"db"}}}}`},
		"pods of other namespaces":           {subject: `{"pods":{"namespaceSelector":{"matchLabels":{"team":"y"}},"podSelector":{}}}`},
		"all pods":                           {subject: `{"pods":{"namespaceSelector":{},"podSelector":{}}}`, want: []string{open}},
		"no podSelector":                     {subject: `{"pods":{"namespaceSelector":{}}}`, want: doubt("spec.subject.pods.podSelector: there is none")},
		"nothing":                            {subject: `{}`, want: doubt("spec.subject: it needs either namespaces or pods")},
		"both":                               {subject: `{"namespaces":{},"pods":{"podSelector":{}}}`, want: doubt("spec.subject: it needs either namespaces or pods")},
		"a bad selector of namespaces":       {subject: `{"namespaces":` + badSelector + `}`, want: invalid},
		"a bad selector of pods":             {subject: `{"pods":{"podSelector":` + badSelector + `}}`, want: invalid},
		"a bad selector of pods' namespaces": {subject: `{"pods":{"namespaceSelector":` + badSelector + `,"podSelector":{}}}`, want: invalid},
		"a bad selector in a policy that can only deny": {
			subject: `{"namespaces":` + badSelector + `}`, rules: `"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]`,
		},
		"a bad selector in a policy that can pass on": {
			subject: `{"namespaces":` + badSelector + `}`, rules: `"ingress":[{"action":"Pass","from":[{"namespaces":{}}]}]`, want: invalid,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.rules == "" {
				tc.rules = rules
			}
			p := readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x", `{"tier":"Admin","priority":1,"subject":`+tc.subject+`,`+tc.rules+`}`, "Ready=True"))
			set := NewSet(ReadNetworkPolicy(newPolicy("q", spec{PolicyTypes: []networkingv1.PolicyType{typeIngress, typeEgress}})), p)
			set.PutNamespace(namespace, labelSet{"team": "x"})
			got := linesOf(Evaluate(victim(), set, nil, nil))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Pods that differ only in where a named port is declared have results of their own.
func TestIndexTellsPortsOfInitContainersApart(t *testing.T) {
	x := NewIndex()
	x.PutPolicy(quarantine())
	x.PutPolicy(cnp("x", "Admin", 5, withFields(ruleIn("Accept", appB), `"protocols":[{"destinationNamedPort":"metrics"}]`)))
	list := []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}}}
	plain, sidecar := stripped(), stripped()
	plain.UID, plain.Spec.Containers = "plain", list
	sidecar.UID, sidecar.Spec.Containers, sidecar.Spec.InitContainers = "sidecar", nil, list
	for pod, want := range map[*corev1.Pod]string{plain: verdictLeaking, sidecar: verdictUnknown} {
		x.Hold("incident", pod, nil)
		leaks, _ := x.Leaks(pod.UID)
		if got := verdictOf(leaks); got != want {
			t.Errorf("pod %s: verdict %s, want %s: %v", pod.UID, got, want, leaks)
		}
	}
}

// Whatever an object holds, it can be read, and as long as it is not in effect it closes nothing.
func FuzzReadAdminObjects(f *testing.F) {
	for _, seed := range []struct{ kind, spec, status string }{
		{"ClusterNetworkPolicy", cnpJSON("Admin", 5, ruleIn("Accept", appB), ruleOut("Deny", everyNetwork, everyNamespace)), `{"conditions":[{"type":"Ready","status":"True"}]}`},
		{"ClusterNetworkPolicy", cnpJSON("Baseline", 1000, withFields(ruleIn("Pass", teamA), `"protocols":[{"destinationNamedPort":"http"}]`)), `{"conditions":[]}`},
		{"ClusterNetworkPolicy", cnpJSON("Admin", 5, withFields(ruleOut("Deny", `{"nodes":{}}`), `"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":2}}}}]`)), `{}`},
		{"AdminNetworkPolicy", anpJSON(100, withFields(ruleOut("Allow", `{"domainNames":["a.b"]}`), `"ports":[{"portNumber":{"port":80}}]`)), `{"conditions":[{"type":"Ready-In-Zone-a","status":"True","observedGeneration":3}]}`},
		{"AdminNetworkPolicy", `{"priority":1,"subject":{"namespaces":{"sameLabels":["a"]}}}`, `{"conditions":"none"}`},
		{"BaselineAdminNetworkPolicy", `{"subject":{"namespaces":` + badSelector + `},"egress":[{"action":"Deny","to":[]}]}`, `{"conditions":[{"status":1}]}`},
		{"BaselineAdminNetworkPolicy", `[]`, `null`},
		{"ClusterNetworkPolicy", `"x"`, `"x"`},
	} {
		f.Add(seed.kind, seed.spec, seed.status)
	}
	open, pod := allowEverything(), subjectPod()
	f.Fuzz(func(t *testing.T, kind, specJSON, statusJSON string) {
		var spec, status any
		if len(specJSON) > 4096 || json.Unmarshal([]byte(specJSON), &spec) != nil || json.Unmarshal([]byte(statusJSON), &status) != nil {
			return
		}
		u := &unstructured.Unstructured{Object: map[string]any{"kind": kind, "metadata": map[string]any{"name": "x"}, "spec": spec, "status": status}}
		for _, read := range []func(*unstructured.Unstructured) *Policy{readClusterNetworkPolicy, readAdminNetworkPolicy, readBaselineAdminNetworkPolicy} {
			p := read(u)
			if p == nil {
				t.Fatal("no policy")
			}
			if p.reported == (p.notReported != "") {
				t.Errorf("reported: %v, and why not: %q", p.reported, p.notReported)
			}
			for _, d := range Directions() {
				before, after := Reachable(pod, NewSet(open), d), Reachable(pod, NewSet(open, p), d)
				if !p.reported && before.Exceeds(after) {
					t.Errorf("%s: it closes something though it is not in effect: %v", d, after)
				}
			}
		}
	})
}

// Of objects made of good and bad parts: one that is not in effect closes nothing, and one that is leaves nothing open that it would not leave open if it were not.
func TestOnlyWhatIsInEffectCloses(t *testing.T) {
	const bad = `{"namespaces":` + badSelector + `}`
	peers := []string{everyNamespace, everyNamespace, teamA, teamA, appB, appB, everyNetwork, everyNetwork, `{"networks":["10.0.0.0/8"]}`, `{"nodes":{}}`, `{"domainNames":["example.com"]}`, `{}`, bad, `{"networks":["x"]}`}
	ports := []string{
		"", "", "", `"protocols":[{"tcp":{"destinationPort":{"number":80}}}]`, `"protocols":[{"udp":{"destinationPort":{"range":{"start":1,"end":9}}}}]`,
		`"protocols":[{"destinationNamedPort":"http"}]`, `"protocols":[{"destinationNamedPort":"twice"}]`, `"protocols":[{}]`,
	}
	pod, closed := subjectPod(), 0
	for seed := range uint64(2000) {
		g := newGenerator(seed, false)
		var rules []string
		for range g.IntN(5) {
			direction := pick(g, ruleIn, ruleOut)
			r := direction(pick(g, "Accept", "Deny", "Deny", "Pass", "Log"), pick(g, peers...))
			if p := pick(g, ports...); p != "" {
				r = withFields(r, p)
			}
			rules = append(rules, r)
		}
		text := cnpJSON(pick(g, "Admin", "Admin", "Admin", "Baseline", "Other"), 5, rules...)
		read := func(conditions ...string) *Policy {
			return readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x", text, conditions...))
		}
		without := NewSet(allowEverything(), cnp("late", "Admin", 6, ruleOut("Accept", appB)))
		if g.IntN(2) == 0 {
			without = NewSet() // so that the baseline has a say
		}
		for _, d := range Directions() {
			before := Reachable(pod, without, d)
			idle, active := Reachable(pod, without.With(read("Ready=False")), d), Reachable(pod, without.With(read("Ready=True")), d)
			if before.Exceeds(idle) {
				t.Fatalf("seed %d: %s: not in effect, and it closes something: %v\n%s", seed, d, idle, text)
			}
			if active.Exceeds(idle) {
				t.Fatalf("seed %d: %s: in effect it opens more than if it may not be: %v, %v\n%s", seed, d, active, idle, text)
			}
			if idle.Exceeds(active) {
				closed++
			}
		}
	}
	if closed < 250 {
		t.Errorf("only %d directions were closed by anything", closed)
	}
}

// Objects that are made in memory can hold what JSON cannot.
func TestReadingNeverPanics(t *testing.T) {
	objects := map[string]map[string]any{
		"nothing":                {},
		"no map at all":          nil,
		"a spec that is no map":  {"spec": []any{1}},
		"a number that is none":  {"spec": map[string]any{"priority": math.NaN()}},
		"a function":             {"spec": func() {}},
		"a function in status":   {"spec": map[string]any{}, "status": map[string]any{"conditions": func() {}}},
		"a status that is none":  {"spec": map[string]any{}, "status": 7},
		"metadata that are none": {"metadata": "x", "apiVersion": 7, "kind": []any{}},
		"a spec that is null":    {"spec": nil},
	}
	for name, object := range objects {
		t.Run(name, func(t *testing.T) {
			for _, read := range []func(*unstructured.Unstructured) *Policy{readClusterNetworkPolicy, readAdminNetworkPolicy, readBaselineAdminNetworkPolicy} {
				p := read(&unstructured.Unstructured{Object: object})
				if p == nil || p.reported {
					t.Errorf("read %v, which is not in effect", p)
				}
			}
		})
	}
}
