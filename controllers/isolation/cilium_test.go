package isolation

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	kindCilium  = "CiliumNetworkPolicy"
	ciliumValid = "Valid=True"
)

// ciliumObject is an object of cilium.io/v2 of generation 3 with the given fields, which are JSON. Conditions are written "Type=Status".
func ciliumObject(kind, fields string, conditions ...string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte("{"+fields+"}"), &u.Object); err != nil {
		panic(fmt.Sprintf("%v: %s", err, fields))
	}
	metadata := map[string]any{"name": "c", "generation": int64(3)}
	if kind == kindCilium {
		metadata["namespace"] = namespace
	}
	list := []any{}
	for _, c := range conditions {
		typ, status, _ := strings.Cut(c, "=")
		list = append(list, map[string]any{"type": typ, "status": status})
	}
	u.Object["apiVersion"], u.Object["kind"], u.Object["metadata"] = "cilium.io/v2", kind, metadata
	u.Object["status"] = map[string]any{"conditions": list}
	return u
}

// cilium is a valid CiliumNetworkPolicy about all pods of its namespace.
func cilium(rules string) *Policy {
	return readCilium(ciliumObject(kindCilium, `"spec":{"endpointSelector":{},`+rules+`}`, ciliumValid))
}

// ciliumClusterwide is a valid CiliumClusterwideNetworkPolicy about all pods.
func ciliumClusterwide(rules string) *Policy {
	return readCilium(ciliumObject(kindCiliumClusterwide, `"spec":{"endpointSelector":{},`+rules+`}`, ciliumValid))
}

// ciliumBesides is the operator's own deny policy.
func ciliumBesides() *Policy { return ReadNetworkPolicy(denyPolicy()) }

// ciliumSayings puts leaks into a few words each: what, by which rule, and what cannot be decided after a question mark.
func ciliumSayings(leaks []Leak) []string {
	var out []string
	for _, l := range leaks {
		text := strings.ReplaceAll(l.Flows(), " on all ports", "")
		switch {
		case l.Source.Name == "":
			text += " by nothing"
		case l.Rule != noRule:
			text += strings.TrimRight(fmt.Sprintf(" by %s%d", strings.TrimSuffix(l.List+" ", " "), l.Rule), " ")
		}
		if l.Undecided != "" {
			why, _, _ := strings.Cut(l.Undecided, " of CiliumNetworkPolicy shop/c cannot be decided")
			text += " ? " + why
		}
		out = append(out, text)
	}
	return out
}

func ciliumSaying(policies ...*Policy) []string {
	return ciliumSayings(Evaluate(stripped(), NewSet(policies...), nil, nil))
}

const (
	ciliumOpenIngress = "ingress from any peer by nothing"
	ciliumOpenEgress  = "egress to any peer by nothing"
)

// A direction is closed by any rule in one of its two lists, be the rule empty, unless the policy says that it is not.
func TestCiliumDefaultDeny(t *testing.T) {
	cases := map[string]struct {
		rules string
		want  []string
	}{
		"no lists":                                  {rules: `"description":"x"`, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"lists without elements":                    {rules: `"ingress":[],"egress":[],"ingressDeny":[],"egressDeny":[]`, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"no lists, and default deny asked for":      {rules: `"enableDefaultDeny":{"ingress":true,"egress":true}`, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"an empty rule allows nothing":              {rules: `"ingress":[{}],"egress":[{}]`},
		"one direction only":                        {rules: `"ingress":[{}]`, want: []string{ciliumOpenEgress}},
		"a rule that denies closes all":             {rules: `"egressDeny":[{"toCIDR":["192.0.2.0/24"]}]`, want: []string{ciliumOpenIngress}},
		"an empty rule that denies":                 {rules: `"ingressDeny":[{}],"egress":[{}]`},
		"default deny switched off":                 {rules: `"enableDefaultDeny":{"ingress":false},"ingress":[{}],"egress":[{}]`, want: []string{ciliumOpenIngress}},
		"default deny switched off for egress":      {rules: `"enableDefaultDeny":{"egress":false},"ingress":[{}],"egress":[{}]`, want: []string{ciliumOpenEgress}},
		"default deny asked for":                    {rules: `"enableDefaultDeny":{"ingress":true,"egress":null},"ingress":[{}],"egress":[{}]`},
		"switched off, with a rule that denies all": {rules: `"enableDefaultDeny":{"ingress":false},"ingressDeny":[{"fromEntities":["all"]}],"egress":[{}]`},
		"switched off, with a rule that allows some": {
			rules: `"enableDefaultDeny":{"ingress":false},"ingress":[{"fromEntities":["world"]}],"egress":[{}]`,
			want:  []string{ciliumOpenIngress, "ingress from entity world by 0"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, ciliumSaying(cilium(tc.rules))); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// What a policy denies, by default deny or by a rule, counts only if Cilium has found this state of the policy valid.
func TestCiliumStatus(t *testing.T) {
	notInEffect := func(why string) []string {
		doubt := " ? CiliumNetworkPolicy shop/c may not be in effect: " + why
		return []string{"egress to any peer by nothing" + doubt, "ingress from any peer by nothing" + doubt}
	}
	const none = "Cilium has not reported that it is valid (status.conditions has no condition Valid)"
	refused := "whether CiliumNetworkPolicy shop/c applies to the pod cannot be decided: status.conditions: this state of it is invalid to Cilium, which may go on with an earlier one"

	cases := map[string]struct {
		conditions []string
		status     string
		want       []string
	}{
		"valid":                         {conditions: []string{ciliumValid}},
		"no condition":                  {want: notInEffect(none)},
		"unknown":                       {conditions: []string{"Valid=Unknown"}, want: notInEffect("its condition Valid is not True")},
		"another condition only":        {conditions: []string{"Other=True"}, want: notInEffect("its condition Other is True, and what that type means is not known")},
		"another condition is not True": {conditions: []string{ciliumValid, "Other=False"}, want: notInEffect("its condition Other is not True")},
		"another condition too":         {conditions: []string{ciliumValid, "Other=True"}, want: notInEffect("its condition Other is True, and what that type means is not known")},
		"a status that cannot be read":  {status: `{"conditions":"x"}`, want: notInEffect("status.conditions cannot be read")},
		"no status":                     {status: `null`, want: notInEffect(none)},
		"about this generation":         {status: `{"conditions":[{"type":"Valid","status":"True","observedGeneration":3}]}`},
		"about another generation":      {status: `{"conditions":[{"type":"Valid","status":"True","observedGeneration":2}]}`, want: notInEffect("its condition Valid is about generation 2 of it, and there is generation 3")},
		"invalid: an earlier state rules": {conditions: []string{"Valid=False"}, want: []string{
			ciliumOpenEgress, "egress to any peer ? " + refused, ciliumOpenIngress, "ingress from any peer ? " + refused,
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, deniesBy := range []string{`"ingress":[{}],"egress":[{}]`, `"ingressDeny":[{"fromEntities":["all"]}],"egressDeny":[{"toEntities":["all"]}],"enableDefaultDeny":{"ingress":false,"egress":false}`} {
				u := ciliumObject(kindCilium, `"spec":{"endpointSelector":{},`+deniesBy+`}`, tc.conditions...)
				if tc.status != "" {
					var status any
					if err := json.Unmarshal([]byte(tc.status), &status); err != nil {
						t.Fatal(err)
					}
					u.Object["status"] = status
				}
				if diff := cmp.Diff(tc.want, ciliumSaying(readCilium(u))); diff != "" {
					t.Errorf("leaks mismatch with %s (-want +got):\n%s", deniesBy, diff)
				}
			}
		})
	}
}

func TestCiliumProven(t *testing.T) {
	const rules = `"spec":{"endpointSelector":{},"ingress":[{}],"egress":[{}]}`
	for name, tc := range map[string]struct {
		conditions []string
		want       string
	}{
		"nothing reported": {want: verdictIsolated},
		"refused":          {conditions: []string{"Valid=Unknown"}, want: verdictUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			set := NewSet(readCilium(ciliumObject(kindCilium, rules, tc.conditions...)))
			set.SetProven(groupCilium, true)
			if got := verdictOf(Evaluate(stripped(), set, nil, nil)); got != tc.want {
				t.Errorf("verdict %s, want %s", got, tc.want)
			}
		})
	}
}

// Rules of all kinds add up, and what Cilium denies comes before all of them.
func TestCiliumAndNetworkPolicies(t *testing.T) {
	const denyAll = `"ingressDeny":[{"fromEntities":["all"]}],"egressDeny":[{"toEntities":["all"]}]`
	anyone := ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil)))
	unreported := readCilium(ciliumObject(kindCilium, `"spec":{"endpointSelector":{},`+denyAll+`}`))
	podBlock := ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(blockPeer("10.244.0.0/16")))))

	cases := map[string]struct {
		policies []*Policy
		want     []string
	}{
		"an allow beside the operator's policy": {
			policies: []*Policy{ciliumBesides(), cilium(`"ingress":[{"fromEntities":["all"]}]`)},
			want:     []string{"ingress from any peer by 0"},
		},
		"a NetworkPolicy beside default deny": {
			policies: []*Policy{cilium(`"ingress":[{}],"egress":[{}]`), anyone},
			want:     []string{"ingress from any peer by 0"},
		},
		"a deny beats a NetworkPolicy":                {policies: []*Policy{anyone, cilium(denyAll)}},
		"a deny beats an allow of Cilium's":           {policies: []*Policy{cilium(denyAll + `,"ingress":[{"fromEntities":["all"]}]`)}},
		"a clusterwide deny beats an allow in place":  {policies: []*Policy{ciliumClusterwide(denyAll), cilium(`"ingress":[{"fromEntities":["all"]}]`)}},
		"a deny alone isolates":                       {policies: []*Policy{cilium(denyAll)}},
		"a deny that is not reported leaves the rest": {policies: []*Policy{ciliumBesides(), unreported}},
		"a deny that is not reported leaves a doubt": {
			policies: []*Policy{ciliumBesides(), unreported, anyone},
			want: []string{
				"ingress from any peer by 0 ? CiliumNetworkPolicy shop/c may not be in effect: Cilium has not reported that it is valid (status.conditions has no condition Valid)",
			},
		},
		"case 19: on Cilium, a block may hold the pods that have its addresses": {
			policies: []*Policy{ciliumBesides(), podBlock, cilium(`"egressDeny":[{"toEntities":["world"]}]`)},
			want:     []string{"egress to any pod and any node in 10.244.0.0/16 by 0"},
		},
		"case 19: an address block of Cilium's own": {
			policies: []*Policy{ciliumBesides(), cilium(`"egress":[{"toCIDR":["10.244.0.0/16"]}]`)},
			want:     []string{"egress to CIDR 10.244.0.0/16 by 0"},
		},
		"a deny by labels takes the pods of a block too": {
			policies: []*Policy{ciliumBesides(), podBlock, ciliumClusterwide(`"egressDeny":[{"toEndpoints":[{}]}]`)},
			want:     []string{"egress to CIDR 10.244.0.0/16 (pods excluded) by 0"},
		},
		"a deny of the world leaves pods and nodes": {
			policies: []*Policy{cilium(`"ingressDeny":[{"fromEntities":["world"]}],"egress":[{}]`), anyone},
			want:     []string{"ingress from any pod and any node by 0"},
		},
		"a deny by address leaves pods and nodes with the address, maybe": {
			policies: []*Policy{ciliumBesides(), podBlock, cilium(`"egressDeny":[{"toCIDR":["10.244.0.0/16"]}]`)},
			want:     []string{"egress to any pod and any node in 10.244.0.0/16 by 0 ? spec.egressDeny[0].toCIDR[0]"},
		},
		"a deny by address does not take what labels let through": {
			policies: []*Policy{ciliumBesides(), ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(podsPeer(labelled("app", "b")))))), cilium(`"egressDeny":[{"toCIDR":["0.0.0.0/0","::/0"]}]`)},
			want:     []string{"egress to pods app=b in this namespace by 0"},
		},
		"a deny of all pods leaves the others": {
			policies: []*Policy{cilium(`"ingressDeny":[{"fromEntities":["cluster-mesh"]}],"egress":[{}]`), anyone},
			want:     []string{"ingress from any address that is not a pod's by 0"},
		},
		"a name denied may be another port than the name allowed": {
			policies: []*Policy{ciliumBesides(), cilium(`"egress":[{"toPorts":[{"ports":[{"port":"http","protocol":"TCP"}]}]}],"egressDeny":[{"toPorts":[{"ports":[{"port":"http","protocol":"TCP"}]}]}]`)},
			want:     []string{"egress to any peer on TCP/http (named) by 0 ? spec.egressDeny[0].toPorts"},
		},
		"a deny of everybody bit by bit leaves it open whether anybody was forgotten": {
			policies: []*Policy{cilium(`"ingressDeny":[{"fromEntities":["cluster-mesh","world"]}],"egress":[{}]`), anyone},
			want:     []string{"ingress from any node by 0 ? spec.ingressDeny[0].fromEntities[0]"},
		},
		"a deny of the cluster may leave pods of other clusters": {
			policies: []*Policy{cilium(`"ingressDeny":[{"fromEntities":["cluster","world"]}],"egress":[{}]`), anyone},
			want:     []string{"ingress from any pod and any node by 0 ? spec.ingressDeny[0].fromEntities[0]"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, ciliumSaying(tc.policies...)); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Case 63: that the pod may reply to what a peer has begun is the same for every policy and every plugin, so that no rule here could show it. It is named as a residual.

// One object can hold several sets of rules, each with pods of its own.
func TestCiliumSpecs(t *testing.T) {
	const (
		webIngress = `{"endpointSelector":{"matchLabels":{"app":"web"}},"ingress":[{"fromEntities":["world"]}]}`
		dbDeny     = `{"endpointSelector":{"matchLabels":{"app":"db"}},"ingressDeny":[{"fromEntities":["all"]}],"egress":[{}]}`
		allIngress = `{"endpointSelector":{},"ingress":[{},{"fromEntities":["host"]}]}`
		nodes      = `{"nodeSelector":{},"ingress":[{"fromEntities":["all"]}]}`
		unseenPods = `{"endpointSelector":{"matchLabels":{"pod-template-hash":"1"}},"ingress":[{"fromEntities":["all"]}]}`
	)
	web, db := relabelled(labelSet{"app": "web"}), relabelled(labelSet{"app": "db", "pod-template-hash": "1"})
	cases := map[string]struct {
		kind, fields string
		pod          *corev1.Pod
		want         []string
	}{
		"spec and specs": {
			pod: web, fields: `"spec":` + webIngress + `,"specs":[` + allIngress + `]`,
			want: []string{ciliumOpenEgress, "ingress from entity world by 0", "ingress from entity host by specs[0].ingress1"},
		},
		"each set for its own pods": {
			pod: web, fields: `"specs":[` + webIngress + `,` + dbDeny + `]`,
			want: []string{ciliumOpenEgress, "ingress from entity world by specs[0].ingress0"},
		},
		"the other set":         {pod: db, fields: `"specs":[` + webIngress + `,` + dbDeny + `]`},
		"neither set":           {pod: stripped(), fields: `"specs":[` + webIngress + `,` + dbDeny + `]`, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"specs alone, one":      {pod: db, fields: `"specs":[` + dbDeny + `]`},
		"nodes are not pods":    {kind: kindCiliumClusterwide, pod: web, fields: `"spec":` + nodes, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"nodes and pods":        {kind: kindCiliumClusterwide, pod: db, fields: `"spec":` + nodes + `,"specs":[` + dbDeny + `]`},
		"nodes and other pods":  {kind: kindCiliumClusterwide, pod: web, fields: `"spec":` + nodes + `,"specs":[` + dbDeny + `]`, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"one set is unsure":     {pod: web, fields: `"specs":[` + webIngress + `,` + unseenPods + `]`, want: []string{ciliumOpenEgress, "ingress from entity world by specs[0].ingress0"}},
		"one set is unsure, db": {pod: db, fields: `"specs":[` + dbDeny + `,` + unseenPods + `]`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			kind := tc.kind
			if kind == "" {
				kind = kindCilium
			}
			set := NewSet(readCilium(ciliumObject(kind, tc.fields, ciliumValid)))
			if diff := cmp.Diff(tc.want, ciliumSayings(Evaluate(tc.pod, set, nil, nil))); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// What cannot be read, or what Cilium would refuse, is undecided as a whole, and says where.
func TestCiliumUndecidedObjects(t *testing.T) {
	spec := func(rules string) string { return `"spec":{"endpointSelector":{},` + rules + `}` }
	ingress := func(rule string) string { return spec(`"ingress":[{},{` + rule + `}]`) }
	egress := func(rule string) string { return spec(`"egress":[{` + rule + `}]`) }
	cases := map[string]struct {
		kind, fields, want string
	}{
		"case 37: a field that is not known":  {fields: spec(`"novelty":1`), want: `spec: its field "novelty" is not known to this version of Cofferdam`},
		"case 37: in a rule":                  {fields: ingress(`"fromMoon":[]`), want: `spec: its field "fromMoon" is not known to this version of Cofferdam`},
		"case 37: in specs":                   {fields: `"specs":[{"endpointSelector":{}},{"novelty":1}]`, want: `specs[1]: its field "novelty" is not known to this version of Cofferdam`},
		"a field of egress in ingress":        {fields: ingress(`"toServices":[{}]`), want: `spec: its field "toServices" is not known to this version of Cofferdam`},
		"a type that the API does not have":   {fields: ingress(`"fromCIDR":"10.0.0.0/8"`), want: `spec.ingress.fromCIDR: it has a type that the API does not have`},
		"a port that is a number":             {fields: egress(`"toPorts":[{"ports":[{"port":80}]}]`), want: `spec.egress.toPorts.ports.port: it has a type that the API does not have`},
		"neither spec nor specs":              {fields: `"x":1`, want: `spec: there is none`},
		"an empty spec":                       {fields: `"spec":null`, want: `spec: there is none`},
		"specs that are no list":              {fields: `"specs":{}`, want: `specs: it is not a list`},
		"specs with nothing in it":            {fields: `"specs":[null]`, want: `specs[0]: there is none`},
		"no selector":                         {fields: `"spec":{"ingress":[{}]}`, want: `spec.endpointSelector: there has to be either this or nodeSelector`},
		"two selectors":                       {kind: kindCiliumClusterwide, fields: `"spec":{"endpointSelector":{},"nodeSelector":{}}`, want: `spec.endpointSelector: there has to be either this or nodeSelector`},
		"nodes of a namespace":                {fields: `"spec":{"nodeSelector":{}}`, want: `spec.nodeSelector: only a CiliumClusterwideNetworkPolicy can have it`},
		"a selector of nodes":                 {kind: kindCiliumClusterwide, fields: `"spec":{"nodeSelector":{"matchLabels":{"a/b/c":"d"}}}`, want: `spec.nodeSelector.matchLabels: `},
		"rules for nodes that cannot be read": {kind: kindCiliumClusterwide, fields: `"spec":{"nodeSelector":{},"ingress":[{"fromEntities":["moon"]}]}`, want: `spec.ingress[0].fromEntities[0]: "moon" is not an entity of Cilium's`},
		"selector with an unknown operator":   {fields: `"spec":{"endpointSelector":{"matchExpressions":[{"key":"a","operator":"Like","values":["b"]}]}}`, want: `spec.endpointSelector.matchExpressions: "Like" is not a valid label selector operator`},
		"peers with an unknown operator":      {fields: ingress(`"fromEndpoints":[{},{"matchExpressions":[{"key":"a","operator":"In"}]}]`), want: `spec.ingress[1].fromEndpoints[1].matchExpressions: `},
		"nodes with an unknown operator":      {fields: egress(`"toNodes":[{"matchExpressions":[{"key":"a","operator":"In"}]}]`), want: `spec.egress[0].toNodes[0].matchExpressions: `},
		"a label without a source":            {fields: `"spec":{"endpointSelector":{"matchLabels":{":a":"b"}}}`, want: `spec.endpointSelector.matchLabels: the source of a label is not a word`},
		"a label with two sources":            {fields: `"spec":{"endpointSelector":{"matchLabels":{"k8s:any:a":"b"}}}`, want: `spec.endpointSelector.matchLabels: `},
		"two kinds of peers":                  {fields: ingress(`"fromEndpoints":[{}],"fromEntities":["world"]`), want: `spec.ingress[1]: Cilium does not let several kinds of peers be combined`},
		"domain names and addresses":          {fields: egress(`"toFQDNs":[{"matchName":"a"}],"toCIDR":["192.0.2.0/24"]`), want: `spec.egress[0]: Cilium does not let several kinds of peers be combined`},
		"groups and Services":                 {fields: egress(`"toGroups":[{}],"toServices":[{}]`), want: `spec.egress[0]: Cilium does not let several kinds of peers be combined`},
		"ICMP and ports":                      {fields: ingress(`"fromEntities":["all"],"icmps":[{}],"toPorts":[{}]`), want: `spec.ingress[1].icmps: Cilium does not let it be combined with toPorts`},
		"an unknown entity":                   {fields: ingress(`"fromEntities":["world","moon"]`), want: `spec.ingress[1].fromEntities[1]: "moon" is not an entity of Cilium's`},
		"a bad address":                       {fields: egress(`"toCIDR":["10.0.0.300/8"]`), want: `spec.egress[0].toCIDR[0]: reading CIDR`},
		"a bad block":                         {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.0/33"}]`), want: `spec.egress[0].toCIDRSet[0]: reading CIDR`},
		"an address where a block has to be":  {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.1"}]`), want: `spec.egress[0].toCIDRSet[0].cidr: it is not a CIDR`},
		"a bad exception":                     {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.0.0.0/99"]}]`), want: `spec.egress[0].toCIDRSet[0]: reading CIDR`},
		"an exception outside":                {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["11.0.0.0/16"]}]`), want: `spec.egress[0].toCIDRSet[0].except: 11.0.0.0/16 is not within 10.0.0.0/8`},
		"an exception that is wider":          {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.0.0.0/7"]}]`), want: `spec.egress[0].toCIDRSet[0].except: 10.0.0.0/7 is not within 10.0.0.0/8`},
		"no block and no group":               {fields: egress(`"toCIDRSet":[{}]`), want: `spec.egress[0].toCIDRSet[0]: it has to have one of cidr, cidrGroupRef and cidrGroupSelector`},
		"a block and a group":                 {fields: egress(`"toCIDRSet":[{"cidr":"10.0.0.0/8","cidrGroupRef":"g"}]`), want: `spec.egress[0].toCIDRSet[0]: it has to have one of cidr, cidrGroupRef and cidrGroupSelector`},
		"two groups":                          {fields: egress(`"toCIDRSet":[{"cidrGroupSelector":{},"cidrGroupRef":"g"}]`), want: `spec.egress[0].toCIDRSet[0]: it has to have one of cidr, cidrGroupRef and cidrGroupSelector`},
		"a domain without a name":             {fields: egress(`"toFQDNs":[{}]`), want: `spec.egress[0].toFQDNs[0]: it has to have either a name or a pattern`},
		"a domain with name and pattern":      {fields: egress(`"toFQDNs":[{"matchName":"a","matchPattern":"b"}]`), want: `spec.egress[0].toFQDNs[0]: it has to have either a name or a pattern`},
		"an unknown protocol":                 {fields: egress(`"toPorts":[{"ports":[{"port":"1"},{"port":"1","protocol":"DCCP"}]}]`), want: `spec.egress[0].toPorts[0].ports[1].protocol: "DCCP" is not a protocol of Cilium's`},
		"a port without number":               {fields: egress(`"toPorts":[{"ports":[{}]}]`), want: `spec.egress[0].toPorts[0].ports[0].port: "" is neither a port nor the name of one`},
		"a port that is too high":             {fields: egress(`"toPorts":[{"ports":[{"port":"65536"}]}]`), want: `spec.egress[0].toPorts[0].ports[0].port: "65536" is neither a port nor the name of one`},
		"an octal port":                       {fields: egress(`"toPorts":[{"ports":[{"port":"010"}]}]`), want: `spec.egress[0].toPorts[0].ports[0].port: "010" is neither a port nor the name of one`},
		"a name that cannot be one":           {fields: egress(`"toPorts":[{},{"ports":[{"port":"a--b"}]}]`), want: `spec.egress[0].toPorts[1].ports[0].port: "a--b" is neither a port nor the name of one`},
		"an end that is no port":              {fields: egress(`"toPorts":[{"ports":[{"port":"1","endPort":65536}]}]`), want: `spec.egress[0].toPorts[0].ports[0].endPort: 65536 is not a port`},
		"in a list of what is denied":         {fields: spec(`"egressDeny":[{"toEntities":["moon"]}]`), want: `spec.egressDeny[0].toEntities[0]: "moon" is not an entity of Cilium's`},
		"in specs, in what is denied":         {fields: `"specs":[{"endpointSelector":{},"ingressDeny":[{"fromCIDR":["x"]}]}]`, want: `specs[0].ingressDeny[0].fromCIDR[0]: reading CIDR`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			kind := tc.kind
			if kind == "" {
				kind = kindCilium
			}
			p := readCilium(ciliumObject(kind, tc.fields, ciliumValid))
			if !strings.HasPrefix(p.subject.undecided, tc.want) {
				t.Fatalf("undecided %q, want %q", p.subject.undecided, tc.want)
			}
			leaks := Evaluate(stripped(), NewSet(ciliumBesides(), p), nil, nil)
			if got := verdictOf(leaks); got != verdictUnknown {
				t.Errorf("verdict %s, want %s: %v", got, verdictUnknown, leaks)
			}
			if got := verdictOf(Evaluate(stripped(), NewSet(p), nil, nil)); got == verdictIsolated {
				t.Error("it isolates")
			}
		})
	}
}

func TestCiliumNamespaceMissing(t *testing.T) {
	u := ciliumObject(kindCilium, `"spec":{"endpointSelector":{}}`, ciliumValid)
	unstructured.RemoveNestedField(u.Object, "metadata", "namespace")
	if got, want := readCilium(u).subject.undecided, "metadata.namespace: there is none"; got != want {
		t.Errorf("undecided %q, want %q", got, want)
	}
}

// A policy of another namespace, or of one pod's, is found neither for others nor missed by the index of the set.
func TestCiliumIsFoundByNamespaceAndLabel(t *testing.T) {
	p := readCilium(ciliumObject(kindCilium, `"spec":{"endpointSelector":{"matchLabels":{"k8s:app":"web"}},"ingress":[{"fromEntities":["all"]}]}`, ciliumValid))
	other := victim()
	other.Namespace = "other"
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want []string
	}{
		"selected":          {pod: attached(), want: []string{ciliumOpenEgress, "ingress from any peer by 0"}},
		"other labels":      {pod: stripped(), want: []string{ciliumOpenEgress, ciliumOpenIngress}},
		"another namespace": {pod: other, want: []string{ciliumOpenEgress, ciliumOpenIngress}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, ciliumSayings(Evaluate(tc.pod, NewSet(p), nil, nil))); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// An exception opens nothing new only where all of it was open for sure.
func TestCiliumPermitted(t *testing.T) {
	collector := Exception{Name: "e", Direction: DirectionEgress, Peer: podsPeer(labelled("app", "collector")), Ports: []npPort{port(tcp, 443)}}
	cases := map[string]struct {
		rules string
		want  bool
	}{
		"any pod of the namespace":    {rules: `"egress":[{"toEndpoints":[{}]}]`, want: true},
		"the cluster":                 {rules: `"egress":[{"toEntities":["cluster"]}]`, want: true},
		"everybody, on the port":      {rules: `"egress":[{"toPorts":[{"ports":[{"port":"443"}]}]}]`, want: true},
		"on the port, by rules":       {rules: `"egress":[{"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}],"rules":{"http":[{}]}}]}]`},
		"by authentication":           {rules: `"egress":[{"toEndpoints":[{}],"authentication":{"mode":"required"}}]`},
		"authentication switched off": {rules: `"egress":[{"toEndpoints":[{}],"authentication":{"mode":"disabled"}}]`, want: true},
		"Services":                    {rules: `"egress":[{"toServices":[{}]}]`},
		"unmanaged pods":              {rules: `"egress":[{"toEntities":["unmanaged"]}]`},
		"other pods":                  {rules: `"egress":[{"toEndpoints":[{"matchLabels":{"app":"b"}}]}]`},
		"narrowed by requirements":    {rules: `"egress":[{"toEndpoints":[{}]},{"toRequires":[{}]}]`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := len(Permitted(stripped(), NewSet(cilium(tc.rules)), []Exception{collector})) == 1; got != tc.want {
				t.Errorf("permitted: %v, want %v", got, tc.want)
			}
		})
	}
}

// Whatever an object holds, reading it ends with a policy that can be evaluated.
func FuzzReadCilium(f *testing.F) {
	for _, seed := range []string{
		`{"spec":{"endpointSelector":{"matchLabels":{"k8s:app":"a","reserved:init":""}},"ingress":[{"fromEndpoints":[{}],"toPorts":[{"ports":[{"port":"80","endPort":90,"protocol":"TCP"}]}]}]}}`,
		`{"specs":[{"endpointSelector":{},"egressDeny":[{"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.0.0.0/9"]}]}],"enableDefaultDeny":{"egress":false}},{"nodeSelector":{}}]}`,
		`{"spec":{"endpointSelector":{},"egress":[{"toEntities":["cluster","world-ipv4"]},{"toFQDNs":[{"matchPattern":"*"}]},{"toServices":[{}]},{"toGroups":[{}]},{"toNodes":[{}]},{"toRequires":[{}]}]}}`,
		`{"spec":{"endpointSelector":{},"ingress":[{"icmps":[{}]},{"authentication":{"mode":"required"}},{"fromCIDRSet":[{"cidrGroupRef":"g"}]},{"toPorts":[{"ports":[{"port":"http"}],"rules":{}}]}]}}`,
		`{"kind":"CiliumClusterwideNetworkPolicy","spec":{"endpointSelector":{}},"status":{"conditions":[{"type":"Valid","status":"False"}]},"metadata":{"name":1}}`,
		`{"spec":[],"specs":{},"status":[],"metadata":7}`, `{}`, `null`, `{"spec":{"endpointSelector":{},"ingress":[null,{"fromEndpoints":[null]}]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var object map[string]any
		if json.Unmarshal(raw, &object) != nil {
			return
		}
		p := readCilium(&unstructured.Unstructured{Object: object})
		if p == nil {
			t.Fatal("no policy")
		}
		set := NewSet(p)
		for _, pod := range []*corev1.Pod{victim(), stripped()} {
			for _, l := range Evaluate(pod, set, nil, nil) {
				if l.String() == "" || l.Peer == "" || l.Ports == "" {
					t.Errorf("a leak says nothing: %+v", l)
				}
			}
		}
	})
}

// Objects that are not made from JSON do not make the reader panic either.
func TestCiliumObjectsThatNoServerSends(t *testing.T) {
	for name, object := range map[string]map[string]any{
		"nothing":         nil,
		"a number":        {"spec": math.NaN()},
		"a function":      {"spec": func() {}},
		"an int":          {"spec": map[string]any{"endpointSelector": 1}, "status": map[string]any{"conditions": []any{1}}},
		"a typed list":    {"specs": []string{"a"}},
		"a typed status":  {"status": map[string]any{"conditions": []string{"a"}}, "spec": map[string]any{"endpointSelector": map[string]any{}}},
		"odd identifiers": {"apiVersion": 1, "kind": 2, "metadata": map[string]any{"name": 3, "namespace": 4, "generation": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			if p := readCilium(&unstructured.Unstructured{Object: object}); p == nil || p.subject.undecided == "" && p.reported {
				t.Errorf("read %+v", p)
			}
		})
	}
}
