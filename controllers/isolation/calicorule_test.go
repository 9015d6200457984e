package isolation

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// calicoObject is an object of generation 3. A namespace makes it a namespaced one.
func calicoObject(t testing.TB, group, kind, namespace, name, specYAML string) *unstructured.Unstructured {
	t.Helper()
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(specYAML, "\t", "  ")), &spec); err != nil {
		t.Fatalf("%v: %s", err, specYAML)
	}
	version := "v3"
	if group != "projectcalico.org" {
		version = "v1"
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/" + version, "kind": kind, "spec": spec}}
	u.SetNamespace(namespace)
	u.SetName(name)
	u.SetGeneration(3)
	return u
}

// calicoGlobal is a GlobalNetworkPolicy.
func calicoGlobal(t testing.TB, name, specYAML string) *Policy {
	t.Helper()
	return readCalico(calicoObject(t, "projectcalico.org", "GlobalNetworkPolicy", "", name, specYAML))
}

// calicoNamespaced is a NetworkPolicy of Calico, in the namespace of the tests.
func calicoNamespaced(t testing.TB, name, specYAML string) *Policy {
	t.Helper()
	return readCalico(calicoObject(t, "projectcalico.org", "NetworkPolicy", namespace, name, specYAML))
}

// describeRules writes one line for each rule: "Allow pods app=web on TCP/80", then what is wrong with it.
func describeRules(pod *corev1.Pod, s *section) []string {
	actions := map[action]string{accept: "Allow", deny: "Deny", pass: "Pass"}
	var out []string
	for _, r := range s.rules {
		var peers []string
		for _, b := range r.peers {
			peers = append(peers, b.peer())
		}
		set, err := r.ports.of(pod)
		text := fmt.Sprintf("%d %s %s on %s", r.index, actions[r.action], strings.Join(peers, "; "), set)
		if err != nil {
			text += " error " + err.Error()
		}
		if r.reason != "" {
			text += " " + r.reason
		}
		if r.inexact {
			text += " inexact"
		}
		if r.undecided != "" {
			text += " ?? " + r.undecided
		}
		out = append(out, text)
	}
	return out
}

// ruleLines are the lines of a rule about all ports that each of the actions makes.
func ruleLines(lines ...string) map[string][]string {
	out := map[string][]string{}
	for _, line := range lines {
		names, text, _ := strings.Cut(line, ": ")
		for name := range strings.SplitSeq(names, ",") {
			out[name] = append(out[name], fmt.Sprintf("0 %s %s", name, text))
		}
	}
	return out
}

const (
	all3         = "Allow,Deny,Pass"
	setsOf       = " (which network sets and host endpoints it selects is not known)"
	someSets     = ": addresses of network sets and host endpoints on all ports ?? spec.ingress[0].source."
	everyPodText = "all namespaces / all pods"
	noPod        = "any address that is not a pod's"
)

// Every field of a rule, with every action that decides something. What cannot be decided names its field.
func TestCalicoRuleFields(t *testing.T) {
	unreadableField := func(reason, text, field string) map[string][]string {
		return ruleLines("Allow: "+text+" "+reason, "Deny,Pass: "+text+" ?? spec.ingress[0]."+field)
	}
	const anyPeerAllPorts = "any peer on all ports"
	undecided := func(field string) map[string][]string {
		return ruleLines(all3 + ": " + anyPeerAllPorts + " ?? spec.ingress[0]." + field)
	}
	cases := map[string]struct {
		fields     string // of an ingress rule
		namespaced bool
		want       map[string][]string
	}{
		"no field at all":           {want: ruleLines(all3 + ": " + anyPeerAllPorts)},
		"metadata says nothing":     {fields: `{metadata: {annotations: {a: b}}, source: {}, destination: {}}`, want: ruleLines(all3 + ": " + anyPeerAllPorts)},
		"a protocol by its name":    {fields: `{protocol: TCP}`, want: ruleLines(all3 + ": any peer on all TCP ports")},
		"a protocol by its number":  {fields: `{protocol: 17}`, want: ruleLines(all3 + ": any peer on all UDP ports")},
		"a number that is a string": {fields: `{protocol: "132"}`, want: ruleLines(all3 + ": any peer on all SCTP ports")},
		"the case does not matter":  {fields: `{protocol: udp}`, want: ruleLines(all3 + ": any peer on all UDP ports")},
		"another protocol":          {fields: `{protocol: ICMP, icmp: {type: 8}}`},
		"another number":            {fields: `{protocol: 50}`},
		"unknown protocol":          {fields: `{protocol: any}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "protocol")},
		"no such number":            {fields: `{protocol: 256}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "protocol")},
		"not a protocol":            {fields: `{notProtocol: TCP}`, want: ruleLines(all3 + ": any peer on all UDP ports, all SCTP ports")},
		"not another protocol":      {fields: `{notProtocol: ICMPv6}`, want: ruleLines(all3 + ": " + anyPeerAllPorts)},
		"a protocol and not it":     {fields: `{protocol: TCP, notProtocol: 6}`},
		"not an unknown protocol":   {fields: `{notProtocol: x}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "notProtocol")},
		"ICMP of any protocol":      {fields: `{icmp: {type: 8}}`, want: undecided("icmp")},
		"not ICMP":                  {fields: `{notICMP: {type: 8}}`, want: undecided("notICMP")},
		"IPv4":                      {fields: `{ipVersion: 4}`, want: ruleLines(all3 + ": CIDR 0.0.0.0/0 on all ports")},
		"IPv6":                      {fields: `{ipVersion: 6}`, want: ruleLines(all3 + ": CIDR ::/0 on all ports")},
		"no such IP version":        {fields: `{ipVersion: 5}`, want: undecided("ipVersion")},
		"http lets TCP through": {
			fields: `{http: {methods: [GET]}}`,
			want:   ruleLines("Allow: "+anyPeerAllPorts, "Deny,Pass: "+anyPeerAllPorts+" ?? spec.ingress[0].http"),
		},
		"ports": {
			fields: `{protocol: TCP, destination: {ports: [80, "443", "8080:8090", 81]}}`, want: ruleLines(all3 + ": any peer on TCP/80-81, TCP/443, TCP/8080-8090"),
		},
		"not ports": {fields: `{protocol: TCP, destination: {notPorts: ["1:65535"]}}`, want: ruleLines(all3 + ": any peer on TCP/0")},
		"ports and not ports": {
			fields: `{protocol: TCP, destination: {ports: ["80:90"], notPorts: [85]}}`, want: ruleLines(all3 + ": any peer on TCP/80-84, TCP/86-90"),
		},
		"no port is left":     {fields: `{protocol: TCP, destination: {ports: [80], notPorts: [80]}}`},
		"ports of any":        {fields: `{destination: {ports: [80]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "protocol")},
		"ports of ICMP":       {fields: `{protocol: ICMP, destination: {ports: [80]}}`},
		"port out of range":   {fields: `{protocol: TCP, destination: {ports: [65536]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"negative port":       {fields: `{protocol: TCP, destination: {ports: [-1]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"range of names":      {fields: `{protocol: TCP, destination: {ports: ["80:http"]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"range turned round":  {fields: `{protocol: TCP, destination: {ports: ["90:80"]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"a name with a space": {fields: `{protocol: TCP, destination: {ports: ["a b"]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"an empty name":       {fields: `{protocol: TCP, destination: {ports: [""]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"bad not port":        {fields: `{protocol: TCP, destination: {notPorts: ["80-90 "]}}`, want: unreadableField(ReasonInvalidPort, anyPeerAllPorts, "destination.ports")},
		"a name": {
			fields: `{protocol: TCP, destination: {ports: [metrics, 80]}}`,
			want: ruleLines("Allow,Deny: any peer on TCP/80, TCP/9090 (metrics)",
				"Pass: any peer on all TCP ports ?? spec.ingress[0].destination.ports"),
		},
		"a name of an init container": {
			fields: `{protocol: UDP, destination: {ports: [probe]}}`,
			want: ruleLines("Allow: any peer on UDP/7 (probe)", "Deny: any peer on ",
				"Pass: any peer on all UDP ports ?? spec.ingress[0].destination.ports"),
		},
		"a name for another protocol": {
			fields: `{protocol: UDP, destination: {ports: [metrics]}}`,
			want:   ruleLines("Allow,Deny: any peer on ", "Pass: any peer on all UDP ports ?? spec.ingress[0].destination.ports"),
		},
		"not a name": {
			fields: `{protocol: TCP, destination: {ports: [80], notPorts: [metrics]}}`,
			want:   ruleLines(all3 + ": any peer on all TCP ports ?? spec.ingress[0].destination.notPorts"),
		},
		"ports that a connection comes from":     {fields: `{protocol: TCP, source: {ports: [80]}}`, want: ruleLines(all3 + ": any peer on all TCP ports ?? spec.ingress[0].source.ports")},
		"ports that it does not come from":       {fields: `{protocol: TCP, source: {notPorts: [80]}}`, want: ruleLines(all3 + ": any peer on all TCP ports ?? spec.ingress[0].source.notPorts")},
		"addresses of the pod":                   {fields: `{destination: {nets: [10.0.0.0/8]}}`, want: undecided("destination.nets")},
		"not addresses of the pod":               {fields: `{destination: {notNets: [10.0.0.0/8]}}`, want: undecided("destination.notNets")},
		"selector of the pod":                    {fields: `{destination: {selector: all()}}`, want: undecided("destination.selector")},
		"selector that excludes the pod":         {fields: `{destination: {notSelector: all()}}`, want: undecided("destination.notSelector")},
		"namespace of the pod":                   {fields: `{destination: {namespaceSelector: all()}}`, want: undecided("destination.namespaceSelector")},
		"ServiceAccount of the pod":              {fields: `{destination: {serviceAccounts: {names: [x]}}}`, want: undecided("destination.serviceAccounts")},
		"Service of the pod":                     {fields: `{destination: {services: {name: x}}}`, want: undecided("destination.services")},
		"Service of the peer":                    {fields: `{source: {services: {name: x}}}`, want: undecided("source.services")},
		"nets":                                   {fields: `{source: {nets: [10.1.2.3/8, 2001:db8::1]}}`, want: ruleLines(all3 + ": CIDR 10.1.2.3/8, 2001:db8::1 on all ports")},
		"nets and not nets":                      {fields: `{source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}`, want: ruleLines(all3 + ": CIDR 10.0.0.0/8 except 10.1.0.0/16 on all ports")},
		"not nets":                               {fields: `{source: {notNets: [10.0.0.0/8]}}`, want: ruleLines(all3 + ": any address except 10.0.0.0/8 on all ports")},
		"nets of the other IP version":           {fields: `{ipVersion: 6, source: {nets: [10.0.0.0/8]}}`},
		"nets of one IP version":                 {fields: `{ipVersion: 4, source: {nets: [10.0.0.0/8, "::/0"]}}`, want: ruleLines(all3 + ": CIDR 10.0.0.0/8 on all ports")},
		"no address is left":                     {fields: `{source: {nets: [10.0.0.0/8], notNets: [0.0.0.0/0]}}`},
		"bad net":                                {fields: `{source: {nets: [10.0.0.0/33]}}`, want: unreadableField(ReasonInvalidCIDR, `CIDR ["10.0.0.0/33"] except [] on all ports`, "source.nets")},
		"bad not net":                            {fields: `{source: {notNets: [x]}}`, want: unreadableField(ReasonInvalidCIDR, `CIDR [] except ["x"] on all ports`, "source.notNets")},
		"a net with a zone":                      {fields: `{source: {nets: ["fe80::1%eth0"]}}`, want: unreadableField(ReasonInvalidCIDR, `CIDR ["fe80::1%eth0"] except [] on all ports`, "source.nets")},
		"selector in any namespace":              {fields: `{source: {selector: app == 'web'}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": all namespaces / pods app=web on all ports")},
		"selector in the policy's namespace":     {fields: `{source: {selector: app == 'web'}}`, namespaced: true, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": pods app=web in namespace shop on all ports")},
		"all() selects endpoints":                {fields: `{source: {selector: all()}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": "+everyPodText+" on all ports")},
		"namespaceSelector":                      {fields: `{source: {namespaceSelector: team == 'a'}}`, namespaced: true, want: ruleLines(all3+someSets+"namespaceSelector"+setsOf, all3+": namespaces team=a / all pods on all ports")},
		"namespaceSelector and selector":         {fields: `{source: {namespaceSelector: projectcalico.org/name == 'x', selector: app == 'web'}}`, namespaced: true, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": pods app=web in namespace x on all ports")},
		"global() selects no pod":                {fields: `{source: {namespaceSelector: global()}}`, want: ruleLines(all3 + someSets + "namespaceSelector" + setsOf)},
		"selectors that contradict each other":   {fields: `{source: {selector: "app == 'a' && app == 'b'"}}`, want: ruleLines(all3 + someSets + "selector" + setsOf)},
		"ServiceAccounts by name":                {fields: `{source: {serviceAccounts: {names: [x, z]}}}`, namespaced: true, want: ruleLines(all3+someSets+"serviceAccounts"+setsOf, all3+": all pods with ServiceAccount name in (x,z) in namespace shop on all ports")},
		"ServiceAccounts by label":               {fields: `{source: {serviceAccounts: {selector: role == 'x'}}}`, want: ruleLines(all3+someSets+"serviceAccounts"+setsOf, all3+": all namespaces / all pods with ServiceAccount role=x on all ports")},
		"ServiceAccounts and selector":           {fields: `{source: {selector: has(app), serviceAccounts: {names: [x], selector: role == 'x'}}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": all namespaces / pods app with ServiceAccount name=x,role=x on all ports")},
		"ServiceAccounts that are not named":     {fields: `{source: {serviceAccounts: {}}}`, namespaced: true, want: ruleLines(all3 + ": " + anyPeerAllPorts)},
		"ServiceAccount with a quote":            {fields: `{source: {serviceAccounts: {names: ["x' , 'y"]}}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.serviceAccounts.names")},
		"bad selector":                           {fields: `{source: {selector: "app = 'web'"}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.selector")},
		"bad namespaceSelector":                  {fields: `{source: {namespaceSelector: x}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.namespaceSelector")},
		"bad selector of ServiceAccounts":        {fields: `{source: {serviceAccounts: {selector: x}}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.serviceAccounts.selector")},
		"bad notSelector":                        {fields: `{source: {notSelector: x}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.notSelector")},
		"global() where it is not allowed":       {fields: `{source: {selector: global()}}`, want: unreadableField(ReasonInvalidSelector, "endpoints with an invalid selector on all ports", "source.selector")},
		"selector that is not decided":           {fields: `{source: {selector: app contains 'w'}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": all namespaces / pods app on all ports ?? spec.ingress[0].source.selector (it looks into the value of label app)")},
		"selector and nets":                      {fields: `{source: {selector: app == 'web', nets: [10.0.0.0/8]}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": all namespaces / pods app=web with an address in 10.0.0.0/8 on all ports")},
		"selector with alternatives is one rule": {fields: `{source: {selector: "app == 'a' || app == 'b'"}}`, want: ruleLines(all3+someSets+"selector"+setsOf, all3+": all namespaces / pods app=a; all namespaces / pods app=b on all ports")},
		"notSelector leaves who is no endpoint": {
			fields: `{source: {notSelector: app == 'web'}}`,
			want: ruleLines("Allow: "+noPod+" on all ports inexact", "Allow: all namespaces / pods app notin (web) on all ports inexact",
				"Deny,Pass: "+noPod+" on all ports ?? spec.ingress[0].source.notSelector"+setsOf,
				"Deny,Pass: all namespaces / pods app notin (web) on all ports ?? spec.ingress[0].source.notSelector"+setsOf),
		},
		"notSelector of a namespaced policy stays in its namespace": {
			fields: `{source: {notSelector: app == 'web'}}`, namespaced: true,
			want: ruleLines(all3+someSets+"notSelector"+setsOf,
				"Allow: pods app notin (web) in namespace shop on all ports inexact",
				"Deny,Pass: pods app notin (web) in namespace shop on all ports ?? spec.ingress[0].source.notSelector"+setsOf),
		},
		"notSelector and selector": {
			fields: `{source: {selector: has(tier), notSelector: app == 'web'}}`,
			want: ruleLines(all3+someSets+"selector"+setsOf,
				"Allow: all namespaces / pods app notin (web),tier on all ports inexact",
				"Deny,Pass: all namespaces / pods app notin (web),tier on all ports ?? spec.ingress[0].source.notSelector"+setsOf),
		},
		"notSelector that is not decided": {
			fields: `{source: {notSelector: app contains 'w'}}`,
			want: ruleLines("Allow: "+noPod+" on all ports inexact", "Deny,Pass: "+noPod+" on all ports ?? spec.ingress[0].source.notSelector"+setsOf,
				all3+": "+everyPodText+" on all ports ?? spec.ingress[0].source.notSelector (it looks into the value of label app)"),
		},
		"notSelector of everything leaves who is no endpoint": {
			fields: `{source: {notSelector: all()}}`,
			want:   ruleLines("Allow: "+noPod+" on all ports inexact", "Deny,Pass: "+noPod+" on all ports ?? spec.ingress[0].source.notSelector"+setsOf),
		},
	}
	pod := victim()
	pod.Spec.InitContainers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "probe", ContainerPort: 7, Protocol: corev1.ProtocolUDP}}}}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, act := range []string{"Allow", "Deny", "Pass"} {
				fields := strings.TrimSuffix(strings.TrimPrefix(tc.fields, "{"), "}")
				specYAML := fmt.Sprintf("ingress: [{action: %s, %s}]", act, fields)
				p := calicoGlobal(t, "g", specYAML)
				if tc.namespaced {
					p = calicoNamespaced(t, "n", specYAML)
				}
				if len(p.ingress) != 1 || len(p.egress) != 0 {
					t.Fatalf("%d and %d sections: %s", len(p.ingress), len(p.egress), p.subject.undecided)
				}
				if diff := cmp.Diff(tc.want[act], describeRules(pod, p.ingress[0])); diff != "" {
					t.Errorf("%s mismatch (-want +got):\n%s", act, diff)
				}
			}
		})
	}
}

// For egress the ends change places, and the names of ports are those of peers.
func TestCalicoEgressRules(t *testing.T) {
	cases := map[string]struct {
		rule string
		want []string
	}{
		"peer": {
			rule: `{action: Allow, protocol: TCP, destination: {nets: [10.0.0.0/8], ports: [80]}}`, want: []string{"0 Allow CIDR 10.0.0.0/8 on TCP/80"},
		},
		"named port":           {rule: `{action: Allow, protocol: TCP, destination: {ports: [http]}}`, want: []string{"0 Allow any peer on TCP/http (named)"}},
		"named port, denied":   {rule: `{action: Deny, protocol: TCP, destination: {ports: [http]}}`, want: []string{"0 Deny any peer on all TCP ports ?? spec.egress[0].destination.ports"}},
		"selector of the pod":  {rule: `{action: Deny, source: {selector: all()}}`, want: []string{"0 Deny any peer on all ports ?? spec.egress[0].source.selector"}},
		"addresses of the pod": {rule: `{action: Allow, source: {nets: [10.0.0.0/8]}}`, want: []string{"0 Allow any peer on all ports ?? spec.egress[0].source.nets"}},
		"its own ports":        {rule: `{action: Allow, protocol: TCP, source: {ports: [80]}}`, want: []string{"0 Allow any peer on all TCP ports ?? spec.egress[0].source.ports"}},
		"peer's Service":       {rule: `{action: Allow, destination: {services: {name: x}}}`, want: []string{"0 Allow any peer on all ports ?? spec.egress[0].destination.services"}},
		"Log decides nothing":  {rule: `{action: Log}`},
		"unknown action":       {rule: `{action: Reject}`, want: []string{"0 Allow any peer on all ports ?? spec.egress[0].action"}},
		"no action":            {rule: `{}`, want: []string{"0 Allow any peer on all ports ?? spec.egress[0].action"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := calicoGlobal(t, "g", "egress: ["+tc.rule+"]")
			if len(p.egress) != 1 || len(p.ingress) != 0 {
				t.Fatalf("%d and %d sections: %s", len(p.egress), len(p.ingress), p.subject.undecided)
			}
			if diff := cmp.Diff(tc.want, describeRules(victim(), p.egress[0])); diff != "" {
				t.Errorf("rules mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Who has one of the addresses is let through as what address blocks see, and denied as whatever other policies see.
func TestCalicoAddressesArePodsToo(t *testing.T) {
	for fields, want := range map[string]map[string]sorts{
		"source: {}":                    {"Allow": anySort, "Deny": anySort, "Pass": anySort},
		"source: {nets: [10.0.0.0/8]}":  {"Allow": byAddress, "Deny": anySort, "Pass": anySort},
		"source: {selector: global(x)}": {"Allow": anySort, "Deny": anySort, "Pass": anySort},
		"source: {selector: all()}":     {"Allow": byAddress, "Deny": anySort, "Pass": anySort},
	} {
		for act, sorts := range want {
			p := calicoGlobal(t, "g", fmt.Sprintf("ingress: [{action: %s, %s}]", act, fields))
			if got := p.ingress[0].rules[0].peers[0].sorts; got != sorts {
				t.Errorf("%s %s is about %b, want %b", act, fields, got, sorts)
			}
		}
	}
}
