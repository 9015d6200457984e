package isolation

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
)

// The cases are those of the field notes on network policies, §7, for the kinds that ClusterNetworkPolicy replaces.
func TestAdminNetworkPolicyCases(t *testing.T) {
	q, a := quarantine(), allowEverything()
	allowOut := ReadNetworkPolicy(newPolicy("a", egress(everything(), nil)))
	egressOnly := ReadNetworkPolicy(newPolicy("e", spec{PolicyTypes: []networkingv1.PolicyType{typeEgress}}))
	denyIn, denyOut := ruleIn("Deny", everyNamespace), ruleOut("Deny", everyNamespace, everyNetwork)
	const (
		noPod      = "any address that is not a pod's on all ports by a rule 0"
		fromB      = "ingress from all namespaces / pods app=b on all ports by x rule 0"
		fromPodsBy = "ingress from all namespaces / all pods on all ports by "
	)
	tie := func(x string) string {
		return fmt.Sprintf(" ? another policy denies or passes on what %s x allows, both have the same priority, and the order is undefined", x)
	}
	runAdminCases(t, stripped(), map[string]adminCase{
		"case 26: a deny of pods and networks": {
			policies: []*Policy{q, a, anp("x", 1, denyIn, denyOut)}, verdict: verdictLeaking, want: []string{"ingress from " + noPod},
		},
		"case 27: an allow at priority 5 over a deny at 10": {
			policies: []*Policy{q, anp("x", 5, ruleIn("Allow", appB)), anp("y", 10, denyIn)}, verdict: verdictLeaking, want: []string{fromB},
		},
		"case 28: allow and deny at the same priority": {
			policies: []*Policy{q, anp("x", 5, ruleIn("Allow", appB)), anp("y", 5, denyIn)}, verdict: verdictUnknown, want: []string{fromB + tie("AdminNetworkPolicy")},
		},
		"case 28: allow and deny at the same priority, by the two APIs": {
			policies: []*Policy{q, anp("x", 5, ruleIn("Allow", appB)), cnp("y", "Admin", 5, denyIn)}, verdict: verdictUnknown, want: []string{fromB + tie("AdminNetworkPolicy")},
		},
		"case 28: deny and accept at the same priority, by the two APIs": {
			policies: []*Policy{q, cnp("x", "Admin", 5, ruleIn("Accept", appB)), anp("y", 5, denyIn)}, verdict: verdictUnknown, want: []string{fromB + tie("ClusterNetworkPolicy")},
		},
		"case 29: pass at 1 and deny at 2, and a NetworkPolicy allows": {
			policies: []*Policy{q, allowOut, anp("x", 1, ruleOut("Pass", appB)), anp("y", 2, denyOut)}, verdict: verdictLeaking,
			want: []string{"egress to all namespaces / pods app=b on all ports by a rule 0"},
		},
		"case 30: a baseline deny does not override a NetworkPolicy": {
			policies: []*Policy{q, allowOut, banp(denyIn, denyOut)}, verdict: verdictLeaking, want: []string{"egress to any peer on all ports by a rule 0"},
		},
		"case 31: an egress deny of pods only": {
			policies: []*Policy{q, allowOut, anp("x", 1, ruleOut("Deny", everyNamespace))}, verdict: verdictLeaking, want: []string{"egress to " + noPod},
		},
		"case 33: no rules": {policies: []*Policy{q, anp("x", 1), banp()}, verdict: verdictIsolated},
		"case 34: OVN-Kubernetes and priority 99": {
			policies: []*Policy{q, allowOut, anp("x", 99, denyOut)}, verdict: verdictIsolated,
		},
		"case 34: OVN-Kubernetes and priority 500": {
			policies: []*Policy{q, allowOut, anp("x", 500, denyOut)}, verdict: verdictUnknown,
			want: []string{"egress to any peer on all ports by a rule 0 ? AdminNetworkPolicy x may not be in effect: OVN-Kubernetes, which reports by zone, puts no priority above 99 into effect"},
		},
		"case 34: another implementation and priority 500": {
			policies: []*Policy{q, allowOut, readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(500, denyOut), "Ready=True"))}, verdict: verdictIsolated,
		},
		"case 36: selected by an Egress policy only, a baseline deny of ingress holds": {
			policies: []*Policy{egressOnly, banp(denyIn)}, verdict: verdictLeaking, want: []string{"ingress from any address that is not a pod's on all ports: NotSelected"},
		},
		"a baseline allows what comes before its deny": {
			policies: []*Policy{egressOnly, banp(ruleIn("Allow", appB), denyIn)}, verdict: verdictLeaking,
			want: []string{
				"ingress from any address that is not a pod's on all ports: NotSelected",
				"ingress from all namespaces / pods app=b on all ports by default rule 0",
			},
		},
		"a baseline cannot pass on": {
			policies: []*Policy{egressOnly, banp(ruleIn("Pass", appB), denyIn)}, verdict: verdictLeaking,
			want: []string{
				"ingress from any address that is not a pod's on all ports: NotSelected",
				"ingress from any peer on all ports by default rule 0 ? spec.ingress[0].action of BaselineAdminNetworkPolicy default cannot be decided",
			},
		},
		"accept is the word of the other API": {
			policies: []*Policy{q, anp("x", 1, ruleIn("Accept", everyNamespace))}, verdict: verdictUnknown,
			want: []string{"ingress from any peer on all ports by x rule 0 ? spec.ingress[0].action of AdminNetworkPolicy x cannot be decided"},
		},
		"allow is not a word of the other API": {
			policies: []*Policy{q, cnp("x", "Admin", 1, ruleIn("Allow", everyNamespace))}, verdict: verdictUnknown,
			want: []string{"ingress from any peer on all ports by x rule 0 ? spec.ingress[0].action of ClusterNetworkPolicy x cannot be decided"},
		},
		"a NetworkPolicy comes before the baseline": {
			policies: []*Policy{ReadNetworkPolicy(newPolicy("a", ingress(everything(), peers(namespacesPeer(everything()))))), egressOnly, banp(denyIn)},
			verdict:  verdictLeaking, want: []string{fromPodsBy + "a rule 0"},
		},
	})
}

func TestAdminNetworkPolicySpec(t *testing.T) {
	undecided := func(ref, why string) []string {
		why = fmt.Sprintf(" on all ports by x ? whether %s x applies to the pod cannot be decided: %s", ref, why)
		return []string{"egress to any peer" + why, "ingress from any peer" + why}
	}
	cases := map[string]struct {
		kind, spec string
		want       []string
	}{
		"no priority":  {kind: "AdminNetworkPolicy", spec: `{"subject":{"namespaces":{}}}`, want: undecided("AdminNetworkPolicy", "spec.priority: there is none")},
		"bad priority": {kind: "AdminNetworkPolicy", spec: `{"priority":1001,"subject":{}}`, want: undecided("AdminNetworkPolicy", "spec.priority: 1001 is not within 0-1000")},
		"domain names": {
			kind: "AdminNetworkPolicy", spec: anpJSON(1, ruleOut("Allow", `{"domainNames":["example.com"]}`)),
			want: []string{"egress to domain names example.com on all ports by x rule 0"},
		},
		"a tier, which is for the other API": {
			kind: "AdminNetworkPolicy", spec: `{"tier":"Admin","priority":1,"subject":{"namespaces":{}}}`,
			want: undecided("AdminNetworkPolicy", `spec: its field "tier" is not known to this version of Cofferdam`),
		},
		"protocols, which are for the other API": {
			kind: "AdminNetworkPolicy", spec: anpJSON(1, withFields(ruleOut("Allow", appB), `"protocols":[]`)),
			want: undecided("AdminNetworkPolicy", `spec: its field "protocols" is not known to this version of Cofferdam`),
		},
		"sameLabels of an early version": {
			kind: "AdminNetworkPolicy", spec: anpJSON(1, ruleIn("Deny", `{"namespaces":{"sameLabels":["team"]}}`)),
			want: undecided("AdminNetworkPolicy", `spec: its field "sameLabels" is not known to this version of Cofferdam`),
		},
		"notSameLabels of an early version": {
			kind: "AdminNetworkPolicy", spec: anpJSON(1, ruleIn("Deny", `{"namespaces":{"notSameLabels":["team"]}}`)),
			want: undecided("AdminNetworkPolicy", `spec: its field "notSameLabels" is not known to this version of Cofferdam`),
		},
		"namespaceSelector of an early version": {
			kind: "BaselineAdminNetworkPolicy", spec: `{` + rulesJSON(ruleIn("Deny", `{"namespaces":{"namespaceSelector":{}}}`)) + `}`,
			want: undecided("BaselineAdminNetworkPolicy", `spec: its field "namespaceSelector" is not known to this version of Cofferdam`),
		},
		"a priority, which a baseline has not": {
			kind: "BaselineAdminNetworkPolicy", spec: `{"priority":1,"subject":{"namespaces":{}}}`,
			want: undecided("BaselineAdminNetworkPolicy", `spec: its field "priority" is not known to this version of Cofferdam`),
		},
		"a baseline of nothing": {kind: "BaselineAdminNetworkPolicy", spec: `null`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := readAdminObject(adminObject(tc.kind, "x", tc.spec, "Ready=True"))
			if want := (Ref{Group: "policy.networking.k8s.io", Kind: tc.kind, Name: "x", Generation: 3}); p.Ref != want {
				t.Errorf("Ref = %v, want %v", p.Ref, want)
			}
			got := linesOf(Evaluate(stripped(), NewSet(quarantine(), p), nil, nil))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDomainNamesAreNotForBaselines(t *testing.T) {
	open := ReadNetworkPolicy(newPolicy("q", spec{PolicyTypes: []networkingv1.PolicyType{typeIngress}}))
	got := linesOf(Evaluate(stripped(), NewSet(open, banp(ruleOut("Allow", `{"domainNames":["example.com"]}`), ruleOut("Deny", everyNamespace, everyNetwork))), nil, nil))
	want := []string{"egress to domain names where the API has none on all ports by default rule 0: InvalidPeer"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("leaks mismatch (-want +got):\n%s", diff)
	}
}
