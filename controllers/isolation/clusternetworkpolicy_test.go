package isolation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
)

// The cases are those of the field notes on network policies, §7. In each of them the operator's deny policy selects the pod.
func TestClusterNetworkPolicyCases(t *testing.T) {
	q, a := quarantine(), allowEverything()
	allowIn := ReadNetworkPolicy(newPolicy("a", ingress(everything(), nil)))
	allowOut := ReadNetworkPolicy(newPolicy("a", egress(everything(), nil)))
	egressOnly := ReadNetworkPolicy(newPolicy("e", spec{PolicyTypes: []networkingv1.PolicyType{typeEgress}}))
	denyIn, denyOut := ruleIn("Deny", everyNamespace), ruleOut("Deny", everyNamespace, everyNetwork)
	unimplemented := readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x", cnpJSON("Admin", 1, denyIn, denyOut)))
	const (
		notReported = " ? ClusterNetworkPolicy x may not be in effect: no implementation has reported that it is in effect (status.conditions is empty)"
		tie         = "contradict one another at the same priority, and the order is undefined"
		anyIn       = "ingress from any peer on all ports by a rule 0"
		anyOut      = "egress to any peer on all ports by a rule 0"
		noPod       = "any address that is not a pod's on all ports by a rule 0"
	)
	runAdminCases(t, stripped(), map[string]adminCase{
		"case 26: an Admin deny of pods and networks does not close ingress from outside the pod network": {
			policies: []*Policy{q, a, cnp("x", "Admin", 1, denyIn, denyOut)}, verdict: verdictLeaking, want: []string{"ingress from " + noPod},
		},
		"case 26: egress is isolated": {
			policies: []*Policy{q, allowOut, cnp("x", "Admin", 1, denyIn, denyOut)}, verdict: verdictIsolated,
		},
		"case 27: an Admin accept at priority 5 over a deny at 10": {
			policies: []*Policy{q, cnp("x", "Admin", 5, ruleIn("Accept", appB)), cnp("y", "Admin", 10, denyIn, denyOut)},
			verdict:  verdictLeaking, want: []string{"ingress from all namespaces / pods app=b on all ports by x rule 0"},
		},
		"case 27: the other way round": {
			policies: []*Policy{q, cnp("x", "Admin", 10, ruleIn("Accept", appB)), cnp("y", "Admin", 5, denyIn, denyOut)}, verdict: verdictIsolated,
		},
		"case 28: accept and deny at the same priority": {
			policies: []*Policy{q, cnp("x", "Admin", 5, ruleIn("Accept", appB)), cnp("y", "Admin", 5, denyIn)},
			verdict:  verdictUnknown,
			want: []string{"ingress from all namespaces / pods app=b on all ports by x rule 0 ? another policy denies or passes on what ClusterNetworkPolicy x allows, " +
				"both have the same priority, and the order is undefined"},
		},
		"case 28: pass and deny at the same priority": {
			policies: []*Policy{q, allowOut, cnp("x", "Admin", 5, ruleOut("Pass", appB)), cnp("y", "Admin", 5, denyOut)},
			verdict:  verdictUnknown,
			want:     []string{"egress to all namespaces / pods app=b on all ports by a rule 0 ? ClusterNetworkPolicy x and ClusterNetworkPolicy y " + tie},
		},
		"case 28: the same priority in different tiers": {
			policies: []*Policy{q, cnp("x", "Baseline", 5, ruleIn("Accept", appB)), cnp("y", "Admin", 5, denyIn)}, verdict: verdictIsolated,
		},
		"case 28: the same priority, of different peers": {
			policies: []*Policy{q, cnp("x", "Admin", 5, ruleIn("Accept", appB)), cnp("y", "Admin", 5, ruleIn("Deny", `{"pods":{"podSelector":{"matchLabels":{"app":"c"}}}}`))},
			verdict:  verdictLeaking, want: []string{"ingress from all namespaces / pods app=b on all ports by x rule 0"},
		},
		"case 29: pass at 1 and deny at 2, and a NetworkPolicy allows": {
			policies: []*Policy{q, allowOut, cnp("x", "Admin", 1, ruleOut("Pass", everyNamespace, everyNetwork)), cnp("y", "Admin", 2, denyOut)},
			verdict:  verdictLeaking, want: []string{anyOut},
		},
		"case 29: pass at 1 and deny at 2, and no NetworkPolicy allows": {
			policies: []*Policy{q, cnp("x", "Admin", 1, ruleOut("Pass", everyNamespace, everyNetwork)), cnp("y", "Admin", 2, denyOut)}, verdict: verdictIsolated,
		},
		"case 30: a Baseline deny does not override a NetworkPolicy": {
			policies: []*Policy{q, a, cnp("x", "Baseline", 1, denyIn, denyOut)}, verdict: verdictLeaking, want: []string{anyOut, anyIn},
		},
		"case 31: an egress deny of pods only": {
			policies: []*Policy{q, allowOut, cnp("x", "Admin", 1, ruleOut("Deny", everyNamespace))}, verdict: verdictLeaking, want: []string{"egress to " + noPod},
		},
		"case 32: nothing implements it": {
			policies: []*Policy{q, a, unimplemented}, verdict: verdictLeaking, // from outside of the cluster; of the rest nothing is known
			want: []string{anyOut + notReported, anyIn},
		},
		"case 32: nothing implements it, and no NetworkPolicy allows": {policies: []*Policy{q, unimplemented}, verdict: verdictIsolated},
		"case 32: nothing implements an accept": {
			policies: []*Policy{q, readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x", cnpJSON("Admin", 1, ruleIn("Accept", appB))))},
			verdict:  verdictUnknown, want: []string{"ingress from all namespaces / pods app=b on all ports by x rule 0" + notReported},
		},
		"case 33: no rules":                     {policies: []*Policy{q, allowIn, cnp("x", "Admin", 1)}, verdict: verdictLeaking, want: []string{anyIn}},
		"case 33: no rules, and nothing allows": {policies: []*Policy{q, cnp("x", "Admin", 1)}, verdict: verdictIsolated},
		"case 33: rules for the other direction": {
			policies: []*Policy{q, allowIn, cnp("x", "Admin", 1, denyOut)}, verdict: verdictLeaking, want: []string{anyIn},
		},
		"case 33: another subject": {
			policies: []*Policy{q, allowOut, readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x",
				`{"tier":"Admin","priority":1,"subject":{"pods":{"podSelector":{"matchLabels":{"app":"db"}}}},"egress":[{"action":"Deny","to":[`+everyNamespace+`,`+everyNetwork+`]}]}`, "Ready=True"))},
			verdict: verdictLeaking, want: []string{anyOut},
		},
		"case 36: selected by an Egress policy only, a Baseline deny of ingress holds": {
			policies: []*Policy{egressOnly, cnp("x", "Baseline", 1, denyIn)}, verdict: verdictLeaking,
			want: []string{"ingress from any address that is not a pod's on all ports: NotSelected"},
		},
		"case 36: selected by an Ingress policy that allows nothing": {
			policies: []*Policy{q, cnp("x", "Baseline", 1, ruleIn("Accept", everyNamespace))}, verdict: verdictIsolated,
		},
		"a Baseline pass leads to what nothing restricts": {
			policies: []*Policy{egressOnly, cnp("x", "Baseline", 1, ruleIn("Pass", appB), denyIn)}, verdict: verdictLeaking,
			want: []string{
				"ingress from all namespaces / pods app=b on all ports: NotSelected",
				"ingress from any address that is not a pod's on all ports: NotSelected",
			},
		},
	})
}

func TestClusterNetworkPolicySpec(t *testing.T) {
	const rules = `"ingress":[{"action":"Accept","from":[` + appB + `]}]`
	const open = "ingress from all namespaces / pods app=b on all ports by x rule 0"
	undecided := func(why string) []string {
		why = " on all ports by x ? whether ClusterNetworkPolicy x applies to the pod cannot be decided: " + why
		return []string{"egress to any peer" + why, "ingress from any peer" + why}
	}
	cases := map[string]struct {
		spec string
		want []string
	}{
		"Admin":    {spec: `{"tier":"Admin","priority":0,"subject":{"namespaces":{}},` + rules + `}`, want: []string{open}},
		"Baseline": {spec: `{"tier":"Baseline","priority":1000,"subject":{"namespaces":{}},` + rules + `}`}, // the deny policy comes before it
		"no tier": {
			spec: `{"priority":1,"subject":{"namespaces":{}},` + rules + `}`, want: undecided(`spec.tier: "" is neither Admin nor Baseline`),
		},
		"another tier": {
			spec: `{"tier":"admin","priority":1,"subject":{"namespaces":{}},` + rules + `}`, want: undecided(`spec.tier: "admin" is neither Admin nor Baseline`),
		},
		"no priority":           {spec: `{"tier":"Admin","subject":{"namespaces":{}},` + rules + `}`, want: undecided("spec.priority: there is none")},
		"a priority below zero": {spec: `{"tier":"Admin","priority":-1,"subject":{"namespaces":{}}}`, want: undecided("spec.priority: -1 is not within 0-1000")},
		"a priority too high":   {spec: `{"tier":"Admin","priority":1001,"subject":{"namespaces":{}}}`, want: undecided("spec.priority: 1001 is not within 0-1000")},
		"a priority of another type": {
			spec: `{"tier":"Admin","priority":"1","subject":{"namespaces":{}}}`, want: undecided("spec.priority: it has a type that the API does not have"),
		},
		"a field that is not known": {
			spec: `{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"egress":[{"action":"Deny","to":[{"services":{}}]}]}`,
			want: undecided(`spec: its field "services" is not known to this version of Cofferdam`),
		},
		"rules of another type": {
			spec: `{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"egress":[{"action":"Deny","to":[{"networks":"10.0.0.0/8"}]}]}`,
			want: undecided("spec.egress.to.networks: it has a type that the API does not have"),
		},
		"nothing": {spec: `null`, want: undecided(`spec.tier: "" is neither Admin nor Baseline`)},
	}
	for name, tc := range cases {
		for _, version := range []string{"v1alpha2", "v1beta1"} {
			t.Run(name+" in "+version, func(t *testing.T) {
				u := adminObject("ClusterNetworkPolicy", "x", tc.spec, "Ready=True")
				u.SetAPIVersion("policy.networking.k8s.io/" + version)
				p := readClusterNetworkPolicy(u)
				if want := (Ref{Group: "policy.networking.k8s.io", Kind: "ClusterNetworkPolicy", Name: "x", Generation: 3}); p.Ref != want {
					t.Errorf("Ref = %v, want %v", p.Ref, want)
				}
				got := linesOf(Evaluate(stripped(), NewSet(quarantine(), p), nil, nil))
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("leaks mismatch (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// Nobody knows where an object belongs that cannot be read, so that nothing comes before it.
func TestWhatCannotBeReadMayComeFirst(t *testing.T) {
	unknown := readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "x", `{"tier":"Admin","priority":0,"subject":{"namespaces":{}},"mode":"Audit"}`, "Ready=True"))
	denies := cnp("y", "Admin", 0, ruleOut("Deny", everyNamespace, everyNetwork))
	got := linesOf(leaksIn(Evaluate(stripped(), NewSet(quarantine(), denies, unknown), nil, nil), DirectionEgress))
	want := []string{"egress to any peer on all ports by x ? whether ClusterNetworkPolicy x applies to the pod cannot be decided: " +
		`spec: its field "mode" is not known to this version of Cofferdam`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("leaks mismatch (-want +got):\n%s", diff)
	}
}
