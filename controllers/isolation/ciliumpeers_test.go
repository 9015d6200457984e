package isolation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// ciliumRuleCase is a rule that is read twice: as one that allows, beside the operator's deny policy, and as one that denies, beside a policy that allows everything.
type ciliumRuleCase struct {
	clusterwide bool
	// rule is the rule, with from and to left out of its fields' names: "Endpoints" stands for fromEndpoints and toEndpoints.
	rule string
	// allowed are the leaks of the rule that allows, left those that the rule that denies leaves; with partly, these are all addresses but one block, which takes many words.
	allowed, left []string
	partly        bool
}

// of turns a case's rule into one of a direction.
func (tc ciliumRuleCase) of(list, prefix string) string {
	return `"` + list + `":[{` + strings.ReplaceAll(tc.rule, `"*`, `"`+prefix) + `}]`
}

func (tc ciliumRuleCase) read(rules string) *Policy {
	if tc.clusterwide {
		return ciliumClusterwide(rules)
	}
	return cilium(rules)
}

// leftOf shortens what is left when one block is denied.
func (tc ciliumRuleCase) leftOf(list []string) []string {
	if !tc.partly || len(list) != 2 || !strings.Contains(list[0], "any address outside the cluster in ") || !strings.Contains(list[1], "any pod and any node by 0") {
		return list
	}
	return nil
}

func runCiliumRules(t *testing.T, cases map[string]ciliumRuleCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			policy := tc.read(tc.of("egress", "to"))
			if policy.subject.undecided != "" {
				t.Fatal(policy.subject.undecided)
			}
			if diff := cmp.Diff(tc.allowed, ciliumSaying(ciliumBesides(), policy)); diff != "" {
				t.Errorf("allowed for egress (-want +got):\n%s", diff)
			}
			anyone := ReadNetworkPolicy(newPolicy("a", egress(everything(), nil)))
			if diff := cmp.Diff(tc.left, tc.leftOf(ciliumSaying(ciliumBesides(), anyone, tc.read(tc.of("egressDeny", "to"))))); diff != "" {
				t.Errorf("left for egress (-want +got):\n%s", diff)
			}
			if strings.Contains(tc.rule, "*Services") || strings.Contains(tc.rule, "*FQDNs") || strings.Contains(strings.ToLower(tc.rule), `:"http"`) {
				return // what only egress has, and names that mean another thing
			}
			turned := func(list []string) []string {
				var out []string
				for _, s := range list {
					out = append(out, strings.NewReplacer("egress to", "ingress from", ".egress", ".ingress", "].toPorts", "].toPorts", "].to", "].from").Replace(s))
				}
				return out
			}
			if diff := cmp.Diff(turned(tc.allowed), ciliumSaying(ciliumBesides(), tc.read(tc.of("ingress", "from")))); diff != "" {
				t.Errorf("allowed for ingress (-want +got):\n%s", diff)
			}
			anyone = ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil)))
			if diff := cmp.Diff(turned(tc.left), tc.leftOf(ciliumSaying(ciliumBesides(), anyone, tc.read(tc.of("ingressDeny", "from"))))); diff != "" {
				t.Errorf("left for ingress (-want +got):\n%s", diff)
			}
		})
	}
}

// Leaks that occur often.
var (
	everybodyLeft  = []string{"egress to any peer by 0"}
	everybodyMaybe = func(field string) []string { return []string{"egress to any peer by 0 ? spec.egress" + field} }
	leftMaybe      = func(field string) []string { return []string{"egress to any peer by 0 ? spec.egressDeny" + field} }
)

const noPodLeft = "egress to any address that is not a pod's by 0"

func TestCiliumPeers(t *testing.T) {
	podsLeft := func(pods string) []string { return []string{noPodLeft, "egress to " + pods + " by 0"} }
	runCiliumRules(t, map[string]ciliumRuleCase{
		"pods of the namespace": {
			rule: `"*Endpoints":[{"matchLabels":{"app":"b"}}]`, allowed: []string{"egress to pods app=b in this namespace by 0"},
			left: []string{
				noPodLeft, "egress to namespaces kubernetes.io/metadata.name notin (shop) / all pods by 0", "egress to pods app notin (b) in namespace shop by 0",
			},
		},
		"all pods of the namespace": {
			rule: `"*Endpoints":[{}]`, allowed: []string{"egress to all pods in this namespace by 0"},
			left: podsLeft("namespaces kubernetes.io/metadata.name notin (shop) / all pods"),
		},
		"all pods": {clusterwide: true, rule: `"*Endpoints":[{}]`, allowed: []string{"egress to all namespaces / all pods by 0"}, left: []string{noPodLeft}},
		"two selectors": {
			rule: `"*Endpoints":[{"matchLabels":{"app":"b"}},{"matchLabels":{"app":"c"}}]`, allowed: []string{"egress to pods app=b in this namespace by 0", "egress to pods app=c in this namespace by 0"},
			left: []string{noPodLeft, "egress to namespaces kubernetes.io/metadata.name notin (shop) / all pods by 0", "egress to pods app notin (b,c) in namespace shop by 0"},
		},
		"no selectors":           {rule: `"*Endpoints":[]`, left: everybodyLeft},
		"no selectors, on ports": {rule: `"*Endpoints":[],"toPorts":[{"ports":[{"port":"80"}]}]`, left: everybodyLeft},
		"no addresses":           {rule: `"*CIDR":[],"toPorts":[{"ports":[{"port":"80"}]}]`, left: everybodyLeft},
		"no blocks":              {rule: `"*CIDRSet":[],"toPorts":[{"ports":[{"port":"80"}]}]`, left: everybodyLeft},
		"no entities":            {rule: `"*Entities":[],"toPorts":[{"ports":[{"port":"80"}]}]`, left: everybodyLeft},
		"no nodes":               {rule: `"*Nodes":[],"toPorts":[{"ports":[{"port":"80"}]}]`, left: everybodyLeft},
		"no groups is no list of groups": {
			rule: `"*Groups":[],"toPorts":[{"ports":[{"port":"0"}]}]`, allowed: everybodyLeft,
		},
		"no domain names is no list of domain names": {
			rule: `"*FQDNs":[],"toPorts":[{"ports":[{"port":"0"}]}]`, allowed: everybodyLeft,
		},
		"no peers at all":            {rule: `"toPorts":[{"ports":[{"port":"0"}]}]`, allowed: everybodyLeft},
		"no peers and no ports":      {rule: ``, left: everybodyLeft},
		"a selector nobody can meet": {rule: `"*Endpoints":[{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}]`, left: everybodyLeft},
		"pods by a label that Cilium may not see": {
			rule:    `"*Endpoints":[{"matchLabels":{"pod-template-hash":"1"}}]`,
			allowed: []string{"egress to pods pod-template-hash=1 in this namespace by 0 ? spec.egress[0].toEndpoints[0] (label pod-template-hash)"},
			left:    everybodyLeft,
		},
		"pods without a label that Cilium may not see": {
			rule:    `"*Endpoints":[{"matchExpressions":[{"key":"pod-template-hash","operator":"NotIn","values":["1"]}]}]`,
			allowed: []string{"egress to all pods in this namespace by 0 ? spec.egress[0].toEndpoints[0] (label pod-template-hash)"},
			left:    everybodyLeft,
		},
		"pods of another namespace": {
			rule: `"*Endpoints":[{"matchLabels":{"k8s:io.kubernetes.pod.namespace":"x","app":"b"}}]`, allowed: []string{"egress to pods app=b in namespace x by 0"},
			left: []string{
				noPodLeft, "egress to namespaces kubernetes.io/metadata.name notin (x) / all pods by 0", "egress to pods app notin (b) in namespace x by 0",
			},
		},
		"pods by the labels of their namespaces": {
			rule: `"*Endpoints":[{"matchLabels":{"k8s:io.cilium.k8s.namespace.labels.team":"a"}}]`, allowed: []string{"egress to namespaces team=a / all pods by 0"},
			left: podsLeft("namespaces team notin (a) / all pods"),
		},
		"a selector of other namespaces is one of the outside world too": {
			rule: `"*Endpoints":[{"matchExpressions":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"NotIn","values":["x"]}]}]`,
			allowed: []string{
				"egress to ends that are not pods and lack labels by 0", "egress to namespaces kubernetes.io/metadata.name notin (x) / all pods by 0",
			},
			left: []string{"egress to all pods in namespace x by 0", noPodLeft + " ? spec.egressDeny[0].toEndpoints[0]"},
		},
		"a label from any source may be a node's": {
			rule: `"*Endpoints":[{"matchLabels":{"app":"b"},"matchExpressions":[{"key":"io.kubernetes.pod.namespace","operator":"NotIn","values":["x"]}]}]`,
			allowed: []string{
				"egress to ends that are not pods and lack labels by 0", "egress to namespaces kubernetes.io/metadata.name notin (x) / pods app=b by 0",
			},
			left: []string{"egress to all pods in namespace x by 0", "egress to namespaces kubernetes.io/metadata.name notin (x) / pods app notin (b) by 0", noPodLeft + " ? spec.egressDeny[0].toEndpoints[0]"},
		},
		"a label from Kubernetes is a pod's": {
			rule:    `"*Endpoints":[{"matchLabels":{"k8s:app":"b"},"matchExpressions":[{"key":"io.kubernetes.pod.namespace","operator":"NotIn","values":["x"]}]}]`,
			allowed: []string{"egress to namespaces kubernetes.io/metadata.name notin (x) / pods app=b by 0"},
			left:    []string{"egress to all pods in namespace x by 0", noPodLeft, "egress to namespaces kubernetes.io/metadata.name notin (x) / pods app notin (b) by 0"},
		},
		"the same, clusterwide": {
			clusterwide: true, rule: `"*Endpoints":[{"matchExpressions":[{"key":"k8s:io.cilium.k8s.namespace.labels.team","operator":"DoesNotExist"}]}]`,
			allowed: []string{"egress to namespaces !team / all pods by 0"}, left: podsLeft("namespaces team / all pods"),
		},
		"an address":                {rule: `"*CIDR":["192.0.2.1"]`, allowed: []string{"egress to CIDR 192.0.2.1/32 by 0"}, partly: true},
		"an IPv6 address":           {rule: `"*CIDR":["2001:db8::1"]`, allowed: []string{"egress to CIDR 2001:db8::1/128 by 0"}, partly: true},
		"blocks":                    {rule: `"*CIDRSet":[{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]`, allowed: []string{"egress to CIDR 10.0.0.0/8 except 10.1.0.0/16 by 0"}, partly: true},
		"a block with nothing left": {rule: `"*CIDRSet":[{"cidr":"10.0.0.0/8","except":["10.0.0.0/9","10.128.0.0/9"]}]`, left: everybodyLeft},
		"half of the addresses": {
			rule: `"*CIDR":["128.0.0.0/1"]`, allowed: []string{"egress to CIDR 128.0.0.0/1 by 0"},
			left: []string{"egress to any address outside the cluster in 0.0.0.0/1, ::/0 by 0", "egress to any pod and any node by 0"},
		},
		"all but half of the addresses": {
			rule: `"*CIDRSet":[{"cidr":"0.0.0.0/0","except":["0.0.0.0/1"]}]`, allowed: []string{"egress to CIDR 0.0.0.0/0 except 0.0.0.0/1 by 0"},
			left: []string{"egress to any address outside the cluster in 0.0.0.0/1, ::/0 by 0", "egress to any pod and any node by 0"},
		},
		"every address": {
			rule: `"*CIDR":["0.0.0.0/0","::/0"]`, allowed: []string{"egress to CIDR 0.0.0.0/0 by 0", "egress to CIDR ::/0 by 0"}, left: []string{"egress to any pod and any node by 0"},
		},
		"a group of blocks": {
			rule: `"*CIDRSet":[{"cidrGroupRef":"g"}]`, allowed: []string{"egress to addresses of CiliumCIDRGroup g by 0 ? spec.egress[0].toCIDRSet[0]"}, left: everybodyLeft,
		},
		"groups of blocks by their labels": {
			rule: `"*CIDRSet":[{"cidrGroupSelector":{}}]`, allowed: []string{"egress to addresses of CiliumCIDRGroup by 0 ? spec.egress[0].toCIDRSet[0]"}, left: everybodyLeft,
		},
		"nodes":                  {rule: `"*Nodes":[{"matchLabels":{"a":"b"}}]`, allowed: []string{"egress to nodes by their labels by 0"}, left: everybodyLeft},
		"groups of a provider":   {rule: `"*Groups":[{"aws":{}},{}]`, allowed: []string{"egress to groups of a cloud provider by 0"}, left: everybodyLeft},
		"Services":               {rule: `"*Services":[{"k8sService":{}},{}]`, allowed: []string{"egress to whoever is behind Services by 0"}, left: leftMaybe("[0].toServices")},
		"domain names":           {rule: `"*FQDNs":[{"matchName":"example.org"},{"matchPattern":"a*.example.com"}]`, allowed: []string{"egress to domain name a*.example.com by 0", "egress to domain name example.org by 0"}, left: everybodyLeft},
		"requirements":           {rule: `"*Endpoints":[{}],"*Requires":[{}]`, allowed: []string{"egress to all pods in this namespace by 0 ? spec.egress[0].toRequires"}, left: everybodyLeft},
		"requirements alone":     {rule: `"*Requires":[{}]`, allowed: everybodyMaybe("[0].toRequires"), left: leftMaybe("[0].toRequires")},
		"no requirements":        {rule: `"*Entities":["all"],"*Requires":[]`, allowed: everybodyLeft},
		"authentication":         {rule: `"*Entities":["all"],"authentication":{"mode":"required"}`, allowed: everybodyMaybe("[0].authentication"), left: leftMaybe("[0].authentication")},
		"authentication to fail": {rule: `"*Entities":["all"],"authentication":{"mode":"test-always-fail"}`, allowed: everybodyMaybe("[0].authentication"), left: leftMaybe("[0].authentication")},
		"no authentication":      {rule: `"*Entities":["all"],"authentication":{"mode":"disabled"}`, allowed: everybodyLeft},
		"ICMP is another matter": {rule: `"*Entities":["all"],"icmps":[{"fields":[{"type":8}]}]`, left: everybodyLeft},
		"ICMP of anybody":        {rule: `"icmps":[{"fields":[{"type":8}]}]`, left: everybodyLeft},
		"no ICMP":                {rule: `"*Entities":["all"],"icmps":[]`, allowed: everybodyLeft},
	})
}

func TestCiliumEntities(t *testing.T) {
	entity := func(names string) string { return `"*Entities":[` + names + `]` }
	one := func(name string) []string { return []string{"egress to entity " + name + " by 0"} }
	runCiliumRules(t, map[string]ciliumRuleCase{
		"all":            {rule: entity(`"all"`), allowed: everybodyLeft},
		"none":           {rule: entity(`"none"`), left: everybodyLeft},
		"world":          {rule: entity(`"world"`), allowed: one("world"), left: []string{"egress to any pod and any node by 0"}},
		"world-ipv4":     {rule: entity(`"world-ipv4"`), allowed: one("world-ipv4"), left: everybodyLeft},
		"world-ipv6":     {rule: entity(`"world-ipv6"`), allowed: one("world-ipv6"), left: everybodyLeft},
		"cluster":        {rule: entity(`"cluster"`), allowed: []string{"egress to all namespaces / all pods by 0", "egress to entity cluster by 0"}, left: everybodyLeft},
		"cluster-mesh":   {rule: entity(`"cluster-mesh"`), allowed: []string{"egress to all namespaces / all pods by 0", "egress to entity cluster-mesh by 0"}, left: []string{noPodLeft}},
		"host":           {rule: entity(`"host"`), allowed: one("host"), left: everybodyLeft},
		"remote-node":    {rule: entity(`"remote-node"`), allowed: one("remote-node"), left: everybodyLeft},
		"ingress":        {rule: entity(`"ingress"`), allowed: one("ingress"), left: everybodyLeft},
		"health":         {rule: entity(`"health"`), allowed: one("health"), left: everybodyLeft},
		"kube-apiserver": {rule: entity(`"kube-apiserver"`), allowed: one("kube-apiserver"), left: everybodyLeft},
		"unmanaged":      {rule: entity(`"unmanaged"`), allowed: []string{"egress to all namespaces / all pods by 0", "egress to entity unmanaged by 0"}, left: everybodyLeft},
		"init":           {rule: entity(`"init"`), allowed: []string{"egress to all namespaces / all pods by 0"}, left: everybodyLeft},
		"two":            {rule: entity(`"world","host"`), allowed: []string{"egress to entity host by 0", "egress to entity world by 0"}, left: []string{"egress to any pod and any node by 0"}},

		"by a reserved label":           {rule: `"*Endpoints":[{"matchLabels":{"reserved:host":""}}]`, allowed: one("host"), left: everybodyLeft},
		"by a reserved label's key":     {rule: `"*Endpoints":[{"matchExpressions":[{"key":"reserved:world","operator":"Exists"}]}]`, allowed: one("world"), left: everybodyLeft},
		"by a reserved label of pods":   {rule: `"*Endpoints":[{"matchLabels":{"reserved:init":""}}]`, allowed: []string{"egress to all namespaces / all pods by 0"}, left: everybodyLeft},
		"by the lack of one":            {rule: `"*Endpoints":[{"matchExpressions":[{"key":"reserved:host","operator":"DoesNotExist"}]}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
		"by one with a value":           {rule: `"*Endpoints":[{"matchLabels":{"reserved:host":"x"}}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
		"by any value but one":          {rule: `"*Endpoints":[{"matchExpressions":[{"key":"reserved:host","operator":"NotIn","values":["x"]}]}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
		"by one and another label":      {rule: `"*Endpoints":[{"matchLabels":{"reserved:host":"","a":"b"}}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
		"by one that is no entity":      {rule: `"*Endpoints":[{"matchLabels":{"reserved:all":""}}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
		"by one that Cilium never gave": {rule: `"*Endpoints":[{"matchLabels":{"reserved:moon":""}}]`, allowed: everybodyMaybe("[0].toEndpoints[0]"), left: leftMaybe("[0].toEndpoints[0]")},
	})
}

// A clusterwide policy that says something of pods that start, in whatever way, is about all ends where its peers have no namespace.
func TestCiliumSelectorsOfPeersInPoliciesAboutStart(t *testing.T) {
	for name, operator := range map[string]string{"start": "Exists", "no start": "DoesNotExist"} {
		t.Run(name, func(t *testing.T) {
			p := readCilium(ciliumObject(kindCiliumClusterwide, `"spec":{"endpointSelector":{"matchExpressions":[{"key":"reserved:init","operator":"`+operator+`"}]},"egress":[{"toEndpoints":[{}]}]}`, ciliumValid))
			want := []string{"egress to all namespaces / all pods", "egress to ends that are not pods and lack labels"}
			var got []string
			for _, s := range ciliumSaying(ciliumBesides(), p) {
				what, _, _ := strings.Cut(s, " by 0")
				got = append(got, what)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCiliumPorts(t *testing.T) {
	to := func(elements string) string { return `"toPorts":[` + elements + `]` }
	ports := func(list string) string { return to(`{"ports":[` + list + `]}`) }
	on := func(ports string) []string { return []string{"egress to any peer on " + ports + " by 0"} }
	narrowed := func(field string) ciliumRuleCase {
		return ciliumRuleCase{
			rule: to(`{"ports":[{"port":"80","protocol":"TCP"}],` + field + `}`), allowed: on("TCP/80"), left: everybodyLeft,
		}
	}
	runCiliumRules(t, map[string]ciliumRuleCase{
		"a port": {
			rule: ports(`{"port":"80","protocol":"TCP"}`), allowed: on("TCP/80"), left: on("TCP/0-79, TCP/81-65535, all UDP ports, all SCTP ports"),
		},
		"any protocol":           {rule: ports(`{"port":"53","protocol":"ANY"}`), allowed: on("TCP/53, UDP/53, SCTP/53"), left: on("TCP/0-52, TCP/54-65535, UDP/0-52, UDP/54-65535, SCTP/0-52, SCTP/54-65535")},
		"no protocol is any":     {rule: ports(`{"port":"53"}`), allowed: on("TCP/53, UDP/53, SCTP/53"), left: on("TCP/0-52, TCP/54-65535, UDP/0-52, UDP/54-65535, SCTP/0-52, SCTP/54-65535")},
		"a protocol in any case": {rule: ports(`{"port":"0","protocol":"udp"}`), allowed: on("all UDP ports"), left: on("all TCP ports, all SCTP ports")},
		"port 0 is all":          {rule: ports(`{"port":"0"}`), allowed: everybodyLeft},
		"port 0 to an end":       {rule: ports(`{"port":"0","endPort":10}`), allowed: everybodyLeft},
		"a range":                {rule: ports(`{"port":"1","endPort":65535,"protocol":"SCTP"}`), allowed: on("SCTP/1-65535"), left: on("all TCP ports, all UDP ports, SCTP/0")},
		"an end below the port":  {rule: ports(`{"port":"80","endPort":79,"protocol":"TCP"}`), allowed: on("TCP/80"), left: on("TCP/0-79, TCP/81-65535, all UDP ports, all SCTP ports")},
		"several ports and elements": {
			rule: to(`{"ports":[{"port":"1","protocol":"TCP"},{"port":"2","protocol":"TCP"}]},{"ports":[{"port":"3","protocol":"TCP"}]}`), allowed: on("TCP/1-3"),
			left: on("TCP/0, TCP/4-65535, all UDP ports, all SCTP ports"),
		},
		"other protocols are another matter": {rule: ports(`{"protocol":"ICMP"},{"port":"0","protocol":"GRE"},{"protocol":"esp"}`), left: everybodyLeft},
		"other protocols and a port":         {rule: ports(`{"protocol":"IPIP"},{"port":"0","protocol":"TCP"}`), allowed: on("all TCP ports"), left: on("all UDP ports, all SCTP ports")},
		"an element without ports":           {rule: to(`{}`), allowed: everybodyMaybe("[0].toPorts[0].ports"), left: leftMaybe("[0].toPorts[0].ports")},
		"no elements, of somebody":           {rule: `"*Entities":["all"],` + to(``), allowed: everybodyLeft},
		"no elements":                        {rule: to(``), left: everybodyLeft},
		"rules for requests":                 narrowed(`"rules":{"http":[{"method":"GET"}]}`),
		"names of servers":                   narrowed(`"serverNames":["example.org"]`),
		"a listener":                         narrowed(`"listener":{"name":"a"}`),
		"TLS that ends here":                 narrowed(`"terminatingTLS":{"secret":{"name":"a"}}`),
		"TLS that starts here":               narrowed(`"originatingTLS":{"secret":{"name":"a"}}`),
		"nothing narrows": {
			rule: to(`{"ports":[{"port":"0"}],"rules":null,"listener":null}`), allowed: everybodyLeft,
		},
		"one element is narrowed": {
			rule: to(`{"ports":[{"port":"80","protocol":"TCP"}],"rules":{}},{"ports":[{"port":"0","protocol":"UDP"}]}`), allowed: []string{"egress to any peer on TCP/80 by 0", "egress to any peer on all UDP ports by 0"},
			left: on("all TCP ports, all SCTP ports"),
		},
		"one element is narrowed, and nobody knows who the peers are": {
			rule:    `"authentication":{"mode":"required"},` + to(`{"ports":[{"port":"80","protocol":"TCP"}],"rules":{}},{"ports":[{"port":"0","protocol":"UDP"}]}`),
			allowed: []string{"egress to any peer on TCP/80 by 0 ? spec.egress[0].authentication", "egress to any peer on all UDP ports by 0 ? spec.egress[0].authentication"},
			left:    everybodyLeft,
		},
		"peers and ports": {
			rule: `"*Entities":["world"],` + ports(`{"port":"80","protocol":"TCP"}`), allowed: []string{"egress to entity world on TCP/80 by 0"},
			left: []string{"egress to any address outside the cluster on TCP/0-79, TCP/81-65535, all UDP ports, all SCTP ports by 0", "egress to any pod and any node by 0"},
		},
		"a name is the peers' affair": {
			rule: ports(`{"port":"HTTP","protocol":"TCP"}`), allowed: on("TCP/http (named)"), left: everybodyLeft,
		},
		"a name and a port": {
			rule: ports(`{"port":"http","protocol":"TCP"},{"port":"0","protocol":"UDP"}`), allowed: on("all UDP ports, TCP/http (named)"), left: on("all TCP ports, all SCTP ports"),
		},
	})
}

// For ingress, it is the pod that says what a name means. What is denied by a name counts only where all agree on that.
func TestCiliumNamedPortsOfIngress(t *testing.T) {
	pod := stripped()
	pod.Spec.Containers = []corev1.Container{
		{Ports: []corev1.ContainerPort{{Name: "one", ContainerPort: 1, Protocol: tcp}, {Name: "two", ContainerPort: 2, Protocol: tcp}}},
		{Ports: []corev1.ContainerPort{{Name: "two", ContainerPort: 22, Protocol: tcp}}},
	}
	pod.Spec.InitContainers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "early", ContainerPort: 3, Protocol: tcp}}}}
	anyone := ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil)))
	only := func(name string, at portNumber) string {
		return "ingress from any peer on " + onNamed(name, at) + " by 0"
	}

	for name, tc := range map[string]struct {
		port          string
		allowed, left []string
	}{
		"one":     {port: "ONE", allowed: []string{only("one", 1)}, left: []string{"ingress from any peer on TCP/0, TCP/2-65535, all UDP ports, all SCTP ports by 0"}},
		"two":     {port: "two", allowed: []string{"ingress from any peer on TCP/2 (two), TCP/22 (two) by 0"}, left: []string{"ingress from any peer by 0"}},
		"early":   {port: "early", allowed: []string{only("early", 3)}, left: []string{"ingress from any peer by 0"}},
		"unknown": {port: "unknown", left: []string{"ingress from any peer by 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			list := `[{"toPorts":[{"ports":[{"port":"` + tc.port + `"}]}]}]`
			if diff := cmp.Diff(tc.allowed, ciliumSayings(Evaluate(pod, NewSet(ciliumBesides(), cilium(`"ingress":`+list)), nil, nil))); diff != "" {
				t.Errorf("allowed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.left, ciliumSayings(Evaluate(pod, NewSet(ciliumBesides(), anyone, cilium(`"ingressDeny":`+list)), nil, nil))); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

func onNamed(name string, at portNumber) string {
	s := newPortSet()
	s.add(tcp, at, at)
	s.normalise()
	s.label(tcp, at, name)
	return s.String()
}
