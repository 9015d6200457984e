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
	calicoUnproven = "may not be in effect: Calico reports nothing in status; what it denies counts only once it has been seen to be enforced"
	denyBoth       = "types: [Ingress, Egress], ingress: [{action: Deny}], egress: [{action: Deny}]"
)

// calicoSet holds policies of Calico, which has proven itself, NetworkPolicies and tiers.
func calicoSet(policies []*Policy, more []*policy, tiers ...Tier) *Set {
	s := NewSet(policies...)
	for _, p := range more {
		s.Put(ReadNetworkPolicy(p))
	}
	for _, t := range tiers {
		s.PutTier(t)
	}
	s.SetProven("projectcalico.org", true)
	return s
}

// tell writes a line for each leak: "Ingress g[0] any peer on all ports", then what is wrong with it.
func tell(leaks []Leak) []string {
	var out []string
	for _, l := range leaks {
		text := fmt.Sprintf("%s %s[%d] %s on %s", l.Direction, l.Source.Name, l.Rule, l.Peer, l.Ports)
		if l.Reason != ReasonAllowRule {
			text += " " + l.Reason
		}
		if l.Undecided != "" {
			text += " ?? " + l.Undecided
		}
		out = append(out, text)
	}
	return out
}

const (
	openEgress  = "Egress [-1] any peer on all ports NotSelected"
	openIngress = "Ingress [-1] any peer on all ports NotSelected"
)

func TestCalicoSubject(t *testing.T) {
	const undecided = " ?? whether GlobalNetworkPolicy g applies to the pod cannot be decided: "
	closed := []string(nil)
	neither := []string{openEgress, openIngress}
	cases := map[string]struct {
		namespaced, spec string
		want             []string
	}{
		"no selector":                         {spec: `{}`, want: closed},
		"all()":                               {spec: `{selector: all()}`, want: closed},
		"the pod's label":                     {spec: `{selector: app == 'web'}`, want: closed},
		"another label":                       {spec: `{selector: app == 'db'}`, want: neither},
		"a label that the pod has not":        {spec: `{selector: app != 'db'}`, want: closed},
		"alternatives":                        {spec: `{selector: "app == 'db' || has(tier)"}`, want: closed},
		"the namespace as a label":            {spec: `{selector: projectcalico.org/namespace == 'shop'}`, want: closed},
		"another namespace as a label":        {spec: `{selector: projectcalico.org/namespace == 'other'}`, want: neither},
		"the namespace's label":               {spec: `{namespaceSelector: team == 'a'}`, want: closed},
		"another label of the namespace":      {spec: `{namespaceSelector: team == 'b'}`, want: neither},
		"the ServiceAccount as a label":       {spec: `{selector: projectcalico.org/serviceaccount == 'web'}`, want: closed},
		"another ServiceAccount as a label":   {spec: `{selector: projectcalico.org/serviceaccount == 'db'}`, want: neither},
		"another ServiceAccount by its name":  {spec: `{serviceAccountSelector: projectcalico.org/name == 'db'}`, want: neither},
		"all ServiceAccounts":                 {spec: `{serviceAccountSelector: all()}`, want: closed},
		"namespaced":                          {namespaced: namespace, spec: `{}`, want: closed},
		"namespaced, in another namespace":    {namespaced: "other", spec: `{}`, want: neither},
		"namespaced, naming another one":      {namespaced: namespace, spec: `{selector: projectcalico.org/namespace == 'other'}`, want: neither},
		"host endpoints before tracking":      {spec: `{doNotTrack: true, applyOnForward: true}`, want: neither},
		"host endpoints before NAT":           {spec: `{preDNAT: true, applyOnForward: true}`, want: neither},
		"forwarded traffic is that of pods":   {spec: `{applyOnForward: true}`, want: closed},
		"hints change nothing":                {spec: `{performanceHints: [AssumeNeededOnEveryNode]}`, want: closed},
		"only what a pod has for sure":        {spec: `{selector: other contains 'x'}`, want: neither},
		"a value that is looked into":         {spec: `{selector: app contains 'x'}`, want: bothDoubtful(undecided + "spec.selector (it looks into the value of label app)")},
		"the ServiceAccount by its name":      {spec: `{serviceAccountSelector: projectcalico.org/name == 'web'}`, want: bothDoubtful(" ?? whether GlobalNetworkPolicy g applies to the pod depends on the labels of its ServiceAccount, which are not known")},
		"labels of the ServiceAccount":        {spec: `{serviceAccountSelector: role == 'x'}`, want: bothDoubtful(" ?? whether GlobalNetworkPolicy g applies to the pod depends on the labels of its ServiceAccount, which are not known")},
		"parentheses that do not match":       {namespaced: "other", spec: `{selector: "all()) || (all()"}`, want: bothDoubtful(" ?? whether NetworkPolicy other/n applies to the pod cannot be decided: spec.selector: its parentheses do not match")},
		"a selector that cannot be read":      {spec: `{selector: "app = 'web'"}`, want: invalidBoth("g")},
		"a bad namespaceSelector":             {spec: `{namespaceSelector: x}`, want: invalidBoth("g")},
		"global() does not belong there":      {spec: `{namespaceSelector: global()}`, want: invalidBoth("g")},
		"a bad serviceAccountSelector":        {namespaced: namespace, spec: `{serviceAccountSelector: x}`, want: invalidBoth("n")},
		"a bad selector in another namespace": {namespaced: "other", spec: `{selector: x}`, want: neither},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			specYAML := strings.Replace(tc.spec, "{", "{types: [Ingress, Egress], ", 1)
			kind, object := "GlobalNetworkPolicy", "g"
			if tc.namespaced != "" {
				kind, object = "NetworkPolicy", "n"
			}
			p := readCalico(calicoObject(t, "projectcalico.org", kind, tc.namespaced, object, specYAML))
			set := calicoSet([]*Policy{p}, nil)
			set.PutNamespace(namespace, labelSet{"team": "a"})
			pod := victim()
			pod.Spec.ServiceAccountName = "web"
			got := tell(Evaluate(pod, set, nil, nil))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Evaluate() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// bothDoubtful are the leaks of a policy that only denies and may not apply.
func bothDoubtful(why string) []string { return []string{openEgress + why, openIngress + why} }

// invalidBoth are the leaks of a policy that may allow everything, since nobody knows to whom it applies.
func invalidBoth(name string) []string {
	var out []string
	for _, d := range []string{"Egress", "Ingress"} {
		out = append(out, d+" [-1] any peer on all ports NotSelected", fmt.Sprintf("%s %s[-1] any peer on all ports InvalidSelector", d, name))
	}
	return out
}

func TestCalicoTypes(t *testing.T) {
	const rules = "{action: Deny}"
	cases := map[string]struct {
		spec            string
		ingress, egress bool
	}{
		"nothing":                  {spec: "{}", ingress: true},
		"ingress rules":            {spec: "ingress: [" + rules + "]", ingress: true},
		"egress rules":             {spec: "egress: [" + rules + "]", egress: true},
		"both":                     {spec: "{ingress: [" + rules + "], egress: [" + rules + "]}", ingress: true, egress: true},
		"types come first":         {spec: "{types: [Ingress], egress: [" + rules + "]}", ingress: true},
		"types without rules":      {spec: "types: [Egress, Ingress]", ingress: true, egress: true},
		"the case does not matter": {spec: "types: [egress]", egress: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := calicoNamespaced(t, "n", tc.spec)
			if len(p.ingress) == 1 != tc.ingress || len(p.egress) == 1 != tc.egress {
				t.Errorf("%d and %d sections", len(p.ingress), len(p.egress))
			}
		})
	}
}

// What nobody can make sense of may allow everything, before everything else, and denies nothing.
func TestCalicoPolicyThatCannotBeDecided(t *testing.T) {
	cases := map[string]struct{ kind, namespace, spec, want string }{
		"unknown field":         {spec: "{selector: all(), egressGateway: {}}", want: `spec: its field "egressGateway" is not known to this version of Cofferdam`},
		"unknown field of rule": {spec: "{ingress: [{action: Deny, source: {domains: [example.org]}}]}", want: `spec: its field "domains" is not known to this version of Cofferdam`},
		"field of the other kind": {
			kind: "NetworkPolicy", namespace: namespace, spec: "{namespaceSelector: all()}", want: `spec: it has a field that only a GlobalNetworkPolicy has`,
		},
		"wrong type":             {spec: "{selector: [all()]}", want: "spec.selector: it has a type that the API does not have"},
		"unknown direction":      {spec: "{types: [Ingress, Forward]}", want: `spec.types[1]: "Forward" is no direction`},
		"no namespace":           {kind: "NetworkPolicy", spec: "{" + denyBoth + "}", want: "kind: it is not known, or does not go with the namespace"},
		"a namespace too many":   {namespace: "other", spec: "{" + denyBoth + "}", want: "kind: it is not known, or does not go with the namespace"},
		"a kind that is unknown": {kind: "SecurityPolicy", namespace: namespace, spec: "{" + denyBoth + "}", want: "kind: it is not known, or does not go with the namespace"},
		"a kind of no namespace": {kind: "Profile", spec: "{" + denyBoth + "}", want: "kind: it is not known, or does not go with the namespace"},
		"no spec":                {want: "spec: there is none"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = "GlobalNetworkPolicy"
			}
			u := calicoObject(t, "projectcalico.org", tc.kind, tc.namespace, "g", tc.spec)
			if tc.spec == "" {
				delete(u.Object, "spec")
			}
			p := readCalico(u)
			if diff := cmp.Diff(tc.want, p.subject.undecided); diff != "" {
				t.Errorf("undecided mismatch (-want +got):\n%s", diff)
			}
			// A tier that denies everything does not hide it.
			first := calicoGlobal(t, "first", "{tier: first, "+denyBoth+"}")
			leaks := Evaluate(victim(), calicoSet([]*Policy{p, first}, nil, Tier{Name: "first", Order: -5}), nil, nil)
			if len(leaks) != 2 || leaks[0].Undecided == "" || leaks[1].Undecided == "" || leaks[0].Source != p.Ref {
				t.Errorf("leaks %q", tell(leaks))
			}
		})
	}
}

// Case 35 of the field notes, and the other kinds that show what a policy would do.
func TestCalicoStagedPoliciesHaveNoEffect(t *testing.T) {
	for _, kind := range []string{"StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"} {
		t.Run("case 35: "+kind, func(t *testing.T) {
			for _, namespaced := range []string{"", namespace} {
				if p := readCalico(calicoObject(t, "projectcalico.org", kind, namespaced, "staged", "{stagedAction: Set, selector: all(), "+denyBoth+"}")); p != nil {
					t.Fatalf("it was read as %+v", p)
				}
			}
		})
	}
	allow := newPolicy("a", ingress(everything(), nil))
	got := tell(Evaluate(stripped(), calicoSet(nil, []*policy{denyPolicy(), allow}), nil, nil))
	if diff := cmp.Diff([]string{"Ingress a[0] any peer on all ports"}, got); diff != "" {
		t.Errorf("Evaluate() mismatch (-want +got):\n%s", diff)
	}
}

// tierCase is a set of Calico's policies and NetworkPolicies that allow ingress from pods app=web and from an address block.
type tierCase struct {
	policies []string // in order of the alphabet, a, b, ...
	tiers    []Tier
	allow    []*policy
	exempt   []Exception
	unproven bool
	want     []string
}

func TestCalicoTiers(t *testing.T) {
	web := newPolicy("np", typed(ingress(everything(), peers(podsPeer(labelled("app", "web")))), typeIngress, typeEgress))
	first, last := Tier{Name: "first", Order: 10}, Tier{Name: "last", Order: 2_000_000}
	passing := first
	passing.DefaultPass = true
	byNP := []string{"Ingress np[0] pods app=web in this namespace on all ports"}
	unproven := func(name string) string { return " ?? GlobalNetworkPolicy " + name + " " + calicoUnproven }
	const setsUnknown = " ?? spec.ingress[0].source.selector" + setsOf + " of GlobalNetworkPolicy a cannot be decided"
	const anyIngress = " any peer on all ports"
	cases := map[string]tierCase{
		"NetworkPolicies alone":                           {allow: []*policy{web}, want: byNP},
		"a Deny before them":                              {policies: []string{"order: 999, " + denyBoth}, allow: []*policy{web}},
		"a Deny after them":                               {policies: []string{"order: 1001, " + denyBoth}, allow: []*policy{web}, want: byNP},
		"a Deny without an order comes last":              {policies: []string{denyBoth}, allow: []*policy{web}, want: byNP},
		"a Deny in an earlier tier":                       {policies: []string{"tier: first, " + denyBoth}, tiers: []Tier{first}, allow: []*policy{web}},
		"a Deny in a later tier":                          {policies: []string{"tier: last, " + denyBoth}, tiers: []Tier{last}, allow: []*policy{web}, want: byNP},
		"a later tier is not reached":                     {policies: []string{"tier: last, ingress: [{action: Allow}]"}, tiers: []Tier{last}, allow: []*policy{web}, want: byNP},
		"the default tier by its name":                    {policies: []string{"tier: default, order: 999, " + denyBoth}, allow: []*policy{web}},
		"a tier drops at its end what it has not decided": {policies: []string{"tier: first, types: [Ingress]"}, tiers: []Tier{first}, allow: []*policy{web}},
		"a tier that passes by default":                   {policies: []string{"tier: first, types: [Ingress]"}, tiers: []Tier{passing}, allow: []*policy{web}, want: byNP},
		"a tier that passes by default still denies":      {policies: []string{"tier: first, " + denyBoth}, tiers: []Tier{passing}, allow: []*policy{web}},
		"a tier without a policy for the pod":             {policies: []string{"tier: first, selector: app == 'other', types: [Ingress]"}, tiers: []Tier{first}, allow: []*policy{web}, want: byNP},
		"a tier with a policy for the other direction":    {policies: []string{"tier: first, egress: [{action: Deny}]"}, tiers: []Tier{first}, allow: []*policy{web}, want: byNP},
		"Pass goes to the next tier":                      {policies: []string{"tier: first, ingress: [{action: Pass}, {action: Deny}]"}, tiers: []Tier{first}, allow: []*policy{web}, want: byNP},
		"Pass of some":                                    {policies: []string{"tier: first, ingress: [{action: Pass, protocol: TCP}]"}, tiers: []Tier{first}, allow: []*policy{web}, want: []string{"Ingress np[0] pods app=web in this namespace on all TCP ports"}},
		"Log decides nothing":                             {policies: []string{"tier: first, ingress: [{action: Log}, {action: Deny}]"}, tiers: []Tier{first}, allow: []*policy{web}},
		"Pass in the default tier gets past NetworkPolicies": {
			policies: []string{"order: 1, ingress: [{action: Pass}]"}, allow: []*policy{web}, want: []string{openIngress},
		},
		"Pass in the default tier behind NetworkPolicies": {
			policies: []string{"order: 2000, ingress: [{action: Pass}]"}, allow: []*policy{denyPolicy()}, want: []string{openIngress},
		},
		"Allow in an earlier tier":        {policies: []string{"tier: first, ingress: [{action: Allow, protocol: TCP}]"}, tiers: []Tier{first}, allow: []*policy{denyPolicy()}, want: []string{"Ingress a[0]" + " any peer on all TCP ports"}},
		"the first rule decides":          {policies: []string{"tier: first, ingress: [{action: Deny, protocol: TCP}, {action: Allow}]"}, tiers: []Tier{first}, allow: []*policy{denyPolicy()}, want: []string{"Ingress a[1] any peer on all UDP ports, all SCTP ports"}},
		"the lower order decides":         {policies: []string{"order: 2, ingress: [{action: Deny}]", "order: 1, ingress: [{action: Allow}]"}, allow: []*policy{denyPolicy()}, want: []string{"Ingress b[0]" + anyIngress}},
		"the lower order of tiers":        {policies: []string{"tier: last, ingress: [{action: Deny}]", "tier: first, ingress: [{action: Allow}]"}, tiers: []Tier{first, last}, allow: []*policy{denyPolicy()}, want: []string{"Ingress b[0]" + anyIngress}},
		"Deny of pods by their labels":    {policies: []string{"order: 1, ingress: [{action: Deny, source: {selector: app == 'web'}}]"}, allow: []*policy{web}},
		"Deny of pods by their addresses": {policies: []string{"order: 1, ingress: [{action: Deny, source: {nets: [0.0.0.0/0, '::/0']}}]"}, allow: []*policy{web}},
		"Deny of half of the addresses":   {policies: []string{"order: 1, ingress: [{action: Deny, source: {nets: [0.0.0.0/1, '::/0']}}]"}, allow: []*policy{web}, want: []string{"Ingress np[0] pods app=web in namespace shop with an address in 128.0.0.0/1 on all ports"}},
		"Deny of other pods":              {policies: []string{"order: 1, ingress: [{action: Deny, source: {selector: app == 'db'}}]"}, allow: []*policy{web}, want: []string{byNP[0] + setsUnknown}},
		"a tie that is no contradiction":  {policies: []string{"order: 1000, ingress: [{action: Deny, source: {selector: app == 'db'}}]"}, allow: []*policy{web}, want: []string{byNP[0] + setsUnknown}},
		"a tie between Deny and Allow": {
			policies: []string{"order: 1000, ingress: [{action: Deny}]"}, allow: []*policy{web},
			want: []string{"Ingress np[0] pods app=web in namespace shop on all ports ?? another policy denies or passes on what NetworkPolicy shop/np allows, both have the same priority, and the order is undefined"},
		},
		"a tie of policies without an order": {
			policies: []string{"ingress: [{action: Deny}]", "ingress: [{action: Allow}]"}, allow: []*policy{denyPolicy()},
			want: []string{"Ingress b[0]" + anyIngress + " ?? another policy denies or passes on what GlobalNetworkPolicy b allows, both have the same priority, and the order is undefined"},
		},
		"a tier that is not known allows what it may": {
			policies: []string{"tier: unknown, ingress: [{action: Allow}]", "tier: first, " + denyBoth}, tiers: []Tier{{Name: "first", Order: -1}},
			want: []string{"Ingress a[0]" + anyIngress + " ?? the order of tier unknown, which GlobalNetworkPolicy a belongs to, is not known"},
		},
		"a tier that is not known denies nothing": {
			policies: []string{"tier: unknown, " + denyBoth}, allow: []*policy{web},
			want: []string{byNP[0] + " ?? the order of tier unknown, which GlobalNetworkPolicy a belongs to, is not known"},
		},
		"unproven, a Deny counts for nothing": {
			policies: []string{"order: 999, " + denyBoth}, allow: []*policy{web}, unproven: true, want: []string{byNP[0] + unproven("a")},
		},
		"unproven, the end of a tier counts for nothing": {
			policies: []string{"tier: first, types: [Ingress]"}, tiers: []Tier{first}, allow: []*policy{web}, unproven: true, want: []string{byNP[0] + unproven("a")},
		},
		"unproven, an Allow may be in effect": {
			policies: []string{"order: 999, ingress: [{action: Allow}]"}, allow: []*policy{denyPolicy()}, unproven: true, want: []string{"Ingress a[0]" + anyIngress + unproven("a")},
		},
		"unproven, a Pass may be in effect": {
			policies: []string{"order: 999, ingress: [{action: Pass}]"}, allow: []*policy{denyPolicy()}, unproven: true, want: []string{openIngress + unproven("a")},
		},
		"an Allow that is declared, and network sets that nobody declares": {
			policies: []string{"order: 1, ingress: [{action: Allow, source: {selector: app == 'web', namespaceSelector: all()}}]"}, allow: []*policy{denyPolicy()},
			exempt: []Exception{{Direction: DirectionIngress, Peer: bothPeer(everything(), labelled("app", "web"))}},
			want:   []string{"Ingress a[0] addresses of network sets and host endpoints on all ports" + setsUnknown},
		},
		"an Allow of declared addresses": {
			policies: []string{"order: 1, ingress: [{action: Allow, source: {nets: [10.0.0.1]}}]"}, allow: []*policy{denyPolicy()},
			exempt: []Exception{{Direction: DirectionIngress, Peer: blockPeer("10.0.0.1/32")}},
		},
		"a Deny that may be about fewer counts for nothing": {
			policies: []string{"order: 1, ingress: [{action: Deny, source: {notSelector: app == 'db'}}]"}, allow: []*policy{web},
			want: []string{byNP[0] + " ?? spec.ingress[0].source.notSelector" + setsOf + " of GlobalNetworkPolicy a cannot be decided"},
		},
		"a Pass of pods may pass addresses of network sets": {
			policies: []string{"tier: first, ingress: [{action: Pass, source: {selector: app == 'db'}}]"}, tiers: []Tier{first}, allow: []*policy{web},
			want: []string{byNP[0] + setsUnknown},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var policies []*Policy
			for i, specYAML := range tc.policies {
				policies = append(policies, calicoGlobal(t, string(rune('a'+i)), "{"+specYAML+"}"))
			}
			set := calicoSet(policies, append(tc.allow, newPolicy("egress", typed(spec{}, typeEgress))), tc.tiers...)
			set.SetProven("projectcalico.org", !tc.unproven)
			pod := victim()
			pod.Labels[quarantineKey] = ""
			if diff := cmp.Diff(tc.want, tell(Evaluate(pod, set, tc.exempt, nil))); diff != "" {
				t.Errorf("Evaluate() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// What Calico says against an object, or may refuse it for, keeps it from counting even though Calico has proven itself.
func TestCalicoPolicyThatMayBeRefused(t *testing.T) {
	condition := func(typ, status string) map[string]any {
		return map[string]any{"conditions": []any{map[string]any{"type": typ, "status": status}}}
	}
	const deny = "{order: 1, ingress: [{action: Deny}]}"
	const unread = " cannot be read, for which Calico may refuse all of it"
	cases := map[string]struct {
		spec   string
		status any
		want   string
	}{
		"no status":                     {spec: deny},
		"valid":                         {spec: deny, status: condition("Valid", "True")},
		"other conditions say nothing":  {spec: deny, status: condition("Seen", "False")},
		"not valid":                     {spec: deny, status: condition("Valid", "False"), want: "its condition Valid is False"},
		"perhaps valid":                 {spec: deny, status: condition("Valid", ""), want: "its condition Valid is Unknown"},
		"a status that cannot be read":  {spec: deny, status: "x", want: "status.conditions cannot be read"},
		"an action that is not one":     {spec: "{order: 1, ingress: [{action: Deny}, {action: deny}]}", want: "spec.ingress[1].action" + unread},
		"a port that is not one":        {spec: "{order: 1, ingress: [{action: Deny}], egress: [{action: Deny, protocol: TCP, destination: {ports: [-1]}}]}", want: "spec.egress[0].destination.ports" + unread},
		"a net that is not one":         {spec: "{order: 1, ingress: [{action: Deny}, {action: Deny, source: {nets: [x]}}]}", want: "spec.ingress[1].source.nets" + unread},
		"the first of several is named": {spec: "{order: 1, ingress: [{action: Deny, protocol: x}, {action: Deny, source: {selector: x}}]}", want: "spec.ingress[0].protocol" + unread},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u := calicoObject(t, "projectcalico.org", "GlobalNetworkPolicy", "", "g", tc.spec)
			if tc.status != nil {
				u.Object["status"] = tc.status
			}
			p := readCalico(u)
			if p.reported {
				t.Error("it counts as reported")
			}
			set := calicoSet([]*Policy{p}, []*policy{newPolicy("a", ingress(everything(), nil))})
			if p.refused != (tc.want != "") || p.refused && p.notReported != tc.want {
				t.Errorf("refused %v: %s", p.refused, p.notReported)
			}
			if strings.HasPrefix(tc.want, "spec.ingress[0]") {
				return // the rule is undecided for itself
			}
			want := []string(nil)
			if tc.want != "" {
				want = []string{"Ingress a[0] any peer on all ports ?? GlobalNetworkPolicy g may not be in effect: " + tc.want}
			}
			var got []string
			for _, line := range tell(Evaluate(victim(), set, nil, nil)) {
				if strings.HasPrefix(line, "Ingress a") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Evaluate() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// Both API groups serve the same objects, and each proves itself.
func TestCalicoGroupsReadTheSame(t *testing.T) {
	const specYAML = `{tier: first, order: 5, selector: "app == 'web' || has(tier)", ingress: [{action: Allow, protocol: TCP, source: {selector: all()}, destination: {ports: [80, metrics]}}, {action: Deny}]}`
	for _, tc := range []struct{ kind, namespace string }{{"GlobalNetworkPolicy", ""}, {"NetworkPolicy", namespace}} {
		var told [][]string
		for _, group := range []string{"projectcalico.org", "crd.projectcalico.org"} {
			p := readCalico(calicoObject(t, group, tc.kind, tc.namespace, "first.x", specYAML))
			if p.Ref.Group != group {
				t.Errorf("group %q", p.Ref.Group)
			}
			set := calicoSet([]*Policy{p}, nil, Tier{Name: "first", Order: 1})
			set.SetProven("projectcalico.org", false)
			set.SetProven(group, true)
			told = append(told, append(tell(Evaluate(victim(), set, nil, nil)), describeRules(victim(), p.ingress[0])...))
			if !p.ingress[0].isolates || p.ingress[0].additive || p.ingress[0].tier != (tier{name: "first", priority: 5}) {
				t.Errorf("section %+v", p.ingress[0])
			}
		}
		if diff := cmp.Diff(told[0], told[1]); diff != "" {
			t.Errorf("the groups differ:\n%s", diff)
		}
	}
}

func TestReadTier(t *testing.T) {
	infinite := math.Inf(1)
	cases := map[string]struct {
		name, spec string
		want       Tier // the zero value if it cannot be read
	}{
		"with an order":                     {name: "t", spec: "order: 10", want: Tier{Name: "t", Order: 10}},
		"a negative order":                  {name: "t", spec: "order: -1.5", want: Tier{Name: "t", Order: -1.5}},
		"without an order it is last":       {name: "t", spec: "{}", want: Tier{Name: "t", Order: infinite}},
		"denies by default":                 {name: "t", spec: "{order: 1, defaultAction: Deny}", want: Tier{Name: "t", Order: 1}},
		"passes by default":                 {name: "t", spec: "{order: 1, defaultAction: Pass}", want: Tier{Name: "t", Order: 1, DefaultPass: true}},
		"another default":                   {name: "t", spec: "{order: 1, defaultAction: Allow}"},
		"an unknown field":                  {name: "t", spec: "{order: 1, scope: x}"},
		"an order that is no number":        {name: "t", spec: "{order: first}"},
		"no name":                           {spec: "order: 1"},
		"the default tier":                  {name: "default", spec: "{order: 1000000, defaultAction: Deny}", want: Tier{Name: "default", Order: orderDefault}},
		"the default tier elsewhere":        {name: "default", spec: "order: 10"},
		"the default tier without a bottom": {name: "default", spec: "{order: 1000000, defaultAction: Pass}"},
		"a tier of Kubernetes' kinds":       {name: "kube-admin", spec: "{order: 1000, defaultAction: Pass}"},
		"its name in older versions":        {name: "adminnetworkpolicy", spec: "{order: 1000, defaultAction: Pass}"},
		"the lowest of them":                {name: "kube-baseline", spec: "{order: 10000000, defaultAction: Pass}"},
		"its older name":                    {name: "baselineadminnetworkpolicy", spec: "{order: 10000000, defaultAction: Pass}"},
		"beside one of them, by name ahead": {name: "a", spec: "order: 1000", want: Tier{Name: "a", Order: math.Nextafter(1000, 0)}},
		"by name behind":                    {name: "z", spec: "order: 1000", want: Tier{Name: "z", Order: 1000}},
		"by name in between":                {name: "b", spec: "order: 1000"},
		"ahead of the default tier":         {name: "a", spec: "order: 1000000", want: Tier{Name: "a", Order: math.Nextafter(1000000, 0)}},
		"behind the default tier":           {name: "e", spec: "order: 1000000", want: Tier{Name: "e", Order: 1000000}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := readTier(calicoObject(t, "projectcalico.org", "Tier", "", tc.name, tc.spec))
			if ok != (tc.want != Tier{}) || ok && got != tc.want {
				t.Errorf("readTier() = %+v, %v, want %+v", got, ok, tc.want)
			}
		})
	}
	if _, ok := readTier(&unstructured.Unstructured{}); ok {
		t.Error("an object without content was read")
	}
	if _, ok := readTier(calicoObject(t, "projectcalico.org", "NetworkPolicy", "", "t", "order: 1")); ok {
		t.Error("an object of another kind was read")
	}
}

// A tier with the order of the default tier comes before or after NetworkPolicies by its name.
func TestCalicoTiersOfTheSameOrder(t *testing.T) {
	web := newPolicy("np", ingress(everything(), peers(podsPeer(labelled("app", "web")))))
	for name, leaks := range map[string]int{"a": 0, "z": 1} {
		at, ok := readTier(calicoObject(t, "projectcalico.org", "Tier", "", name, "order: 1000000"))
		if !ok {
			t.Fatal("not read")
		}
		p := calicoGlobal(t, "g", "{tier: "+name+", ingress: [{action: Deny}]}")
		got := Evaluate(victim(), calicoSet([]*Policy{p}, []*policy{web, newPolicy("egress", typed(spec{}, typeEgress))}, at), nil, nil)
		if len(got) != leaks {
			t.Errorf("tier %s: leaks %q", name, tell(got))
		}
	}
}

// Calico's own API server does not count generations. A new state of an object is taken up all the same.
func TestIndexTakesUpPoliciesWithoutGeneration(t *testing.T) {
	x := NewIndex()
	x.PutPolicy(ReadNetworkPolicy(denyPolicy()))
	x.Hold("incident", stripped(), nil)
	state := func(specYAML string) *Policy {
		u := calicoObject(t, "projectcalico.org", "GlobalNetworkPolicy", "", "g", specYAML)
		u.SetGeneration(0)
		return readCalico(u)
	}
	for _, tc := range []struct {
		spec  string
		leaks int
	}{{"selector: app == 'other'", 0}, {"{order: 1, ingress: [{action: Allow}]}", 1}, {"ingress: [{action: Log}]", 0}} {
		x.PutPolicy(state(tc.spec))
		if leaks, held := x.Leaks(stripped().UID); !held || len(leaks) != tc.leaks {
			t.Errorf("%s: leaks %q", tc.spec, tell(leaks))
		}
	}
}

// Readers take whatever comes: arbitrary objects are read without a panic, and evaluated.
func FuzzReadCalico(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"kind":"NetworkPolicy","metadata":{"namespace":"shop"},"spec":{}}`, `{"kind":"GlobalNetworkPolicy","spec":{"selector":"has(app)","ingress":[{"action":"Deny"}]}}`,
		`{"kind":"GlobalNetworkPolicy","spec":{"tier":"t","order":1e400}}`, `{"kind":"GlobalNetworkPolicy","spec":null}`, `{"kind":"Tier","metadata":{"name":"t"},"spec":{"order":-1}}`,
		`{"kind":"NetworkPolicy","metadata":[],"spec":{"egress":[{"action":"Pass","protocol":6,"destination":{"ports":["1:2","x"],"nets":["::1"],"notSelector":"!has(a)"}}]},"status":{"conditions":[1]}}`,
		`{"kind":"GlobalNetworkPolicy","spec":{"ingress":[{"action":"Allow","protocol":"UDP","source":{"serviceAccounts":{"names":["x"],"selector":"a=='b'"},"services":{}},"icmp":{}}]}}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var object map[string]any
		if json.Unmarshal([]byte(text), &object) != nil {
			return
		}
		u := &unstructured.Unstructured{Object: object}
		set := NewSet()
		if at, ok := readTier(u); ok {
			set.PutTier(at)
		}
		p := readCalico(u)
		if p == nil {
			return
		}
		set.SetProven(p.Ref.Group, true)
		set.Put(p)
		for _, pod := range []*corev1.Pod{victim(), stripped()} {
			for _, l := range Evaluate(pod, set, nil, nil) {
				if l.Peer == "" || l.Ports == "" {
					t.Errorf("leak %+v says nothing", l)
				}
			}
		}
	})
}
