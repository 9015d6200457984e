package isolation

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestEffectOf(t *testing.T) {
	condition := func(typ, status string, generation any) map[string]any {
		c := map[string]any{"type": typ, "status": status}
		if generation != nil {
			c["observedGeneration"] = generation
		}
		return c
	}
	const (
		nothing  = "no implementation has reported that it is in effect (status.conditions is empty)"
		accepted = "an implementation has reported that it accepted it, and nothing has reported that it is in effect"
	)
	cases := map[string]struct {
		conditions any
		want       effect
	}{
		"no conditions":            {conditions: []any{}, want: effect{why: nothing}},
		"conditions that are null": {conditions: nil, want: effect{why: nothing}},
		"OVN-Kubernetes by zone": {
			conditions: []any{condition("Ready-In-Zone-a", "True", int64(3)), condition("Ready-In-Zone-b", "True", nil)},
			want:       effect{reported: true, byZone: true},
		},
		"OVN-Kubernetes, failed in one zone": {
			conditions: []any{condition("Ready-In-Zone-a", "True", nil), condition("Ready-In-Zone-b", "False", nil)},
			want:       effect{refused: true, byZone: true, why: "its condition Ready-In-Zone-b is False"},
		},
		"OVN-Kubernetes, failed in the first zone": {
			conditions: []any{condition("Ready-In-Zone-a", "False", nil), condition("Ready-In-Zone-b", "True", nil)},
			want:       effect{refused: true, byZone: true, why: "its condition Ready-In-Zone-a is False"},
		},
		"OVN-Kubernetes for all zones": {conditions: []any{condition("Ready", "True", nil)}, want: effect{reported: true}},
		"programmed":                   {conditions: []any{condition("Programmed", "True", int64(3))}, want: effect{reported: true}},
		"accepted and programmed":      {conditions: []any{condition("Accepted", "True", nil), condition("Programmed", "True", nil)}, want: effect{reported: true}},
		"accepted only":                {conditions: []any{condition("Accepted", "True", nil)}, want: effect{why: accepted}},
		"accepted and not programmed": {
			conditions: []any{condition("Accepted", "True", nil), condition("Programmed", "False", nil)},
			want:       effect{refused: true, why: "its condition Programmed is False"},
		},
		"not known whether ready": {conditions: []any{condition("Ready", "Unknown", nil)}, want: effect{refused: true, why: "its condition Ready is Unknown"}},
		"no status":               {conditions: []any{map[string]any{"type": "Ready"}}, want: effect{refused: true, why: "its condition Ready is Unknown"}},
		"ready, and something that may be a failure": {
			conditions: []any{condition("Ready", "True", nil), condition("PartialFailure", "True", nil)},
			want:       effect{refused: true, why: "its condition PartialFailure is True, and what that type means is not known"},
		},
		"an earlier generation": {
			conditions: []any{condition("Ready", "True", int64(2))},
			want:       effect{refused: true, why: "its condition Ready is about generation 2 of it, and there is generation 3"},
		},
		"accepted in an earlier generation": {
			conditions: []any{condition("Ready", "True", int64(3)), condition("Accepted", "True", int64(2))},
			want:       effect{refused: true, why: "its condition Accepted is about generation 2 of it, and there is generation 3"},
		},
		"a type that begins in another way": {
			conditions: []any{condition("NotReady-In-Zone-a", "True", nil)},
			want:       effect{refused: true, why: "its condition NotReady-In-Zone-a is True, and what that type means is not known"},
		},
		"conditions that are no list":     {conditions: "Ready", want: effect{refused: true, why: "status.conditions cannot be read"}},
		"a condition of another type":     {conditions: []any{condition("Ready", "True", "3")}, want: effect{refused: true, why: "status.conditions cannot be read"}},
		"a condition that is no object":   {conditions: []any{"Ready"}, want: effect{refused: true, why: "status.conditions cannot be read"}},
		"conditions that JSON cannot say": {conditions: func() {}, want: effect{refused: true, why: "status.conditions cannot be read"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u := adminObject("AdminNetworkPolicy", "x", `{}`)
			u.Object["status"] = map[string]any{"conditions": tc.conditions}
			if diff := cmp.Diff(tc.want, effectOf(u), cmp.AllowUnexported(effect{})); diff != "" {
				t.Errorf("effectOf() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// What an API group has proven on a cluster stands in for a report, but not against one.
func TestProvenAndRefused(t *testing.T) {
	rule := ruleOut("Deny", everyNamespace, everyNetwork)
	toPods := ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(namespacesPeer(everything())))))
	toAddresses := ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(blockPeer("0.0.0.0/0")))))
	read := func(priority int, rule string, conditions ...string) *Policy {
		return readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(priority, rule), conditions...))
	}
	const (
		pods = "egress to all namespaces / all pods on all ports by a rule 0"
		may  = " ? AdminNetworkPolicy x may not be in effect: "
	)
	cases := map[string]struct {
		policies []*Policy
		want     []string
	}{
		"nothing reported":     {policies: []*Policy{toPods, read(5, rule)}},
		"accepted only":        {policies: []*Policy{toPods, read(5, rule, "Accepted=True")}},
		"reported":             {policies: []*Policy{toAddresses, read(5, rule, "Ready=True")}},
		"a report against it":  {policies: []*Policy{toPods, read(5, rule, "Ready=False")}, want: []string{pods + may + "its condition Ready is False"}},
		"a priority too high":  {policies: []*Policy{toPods, read(500, rule, "Ready-In-Zone-a=True")}, want: []string{pods + may + "OVN-Kubernetes, which reports by zone, puts no priority above 99 into effect"}},
		"a peer without field": {policies: []*Policy{toPods, anpOf(rule, ruleIn("Deny", `{}`))}, want: []string{pods + may + "an implementation may refuse all of it because of spec.ingress[0].from[0]"}},
		"nodes":                {policies: []*Policy{toPods, anpOf(rule, ruleOut("Deny", `{"nodes":{}}`))}, want: []string{pods + may + "an implementation may refuse all of it because of spec.egress[1].to[0]"}},
		"nodes, and reported": {
			policies: []*Policy{toPods, readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(5, rule, ruleOut("Deny", `{"nodes":{}}`)), "Ready=True"))},
		},
		"networks, which need not hold nodes if nothing was reported": {
			policies: []*Policy{toAddresses, read(5, rule)},
			want:     []string{"egress to any node in 0.0.0.0/0 on all ports by a rule 0 ? spec.egress[0].to[1].networks (whether they hold nodes) of AdminNetworkPolicy x cannot be decided"},
		},
		"a pass on networks, which need not hold nodes if nothing was reported": {
			policies: []*Policy{toAddresses, read(5, ruleOut("Pass", everyNetwork)), cnp("y", "Admin", 6, rule)},
			want:     []string{"egress to CIDR 0.0.0.0/0 on all ports by a rule 0"},
		},
		"an accept of nodes after a pass on networks": {
			policies: []*Policy{
				quarantine(), read(5, ruleOut("Pass", everyNetwork)),
				readClusterNetworkPolicy(adminObject("ClusterNetworkPolicy", "y", cnpJSON("Admin", 6, ruleOut("Accept", `{"nodes":{}}`)), "Ready=True")),
			},
			want: []string{"egress to any node on all ports by y rule 0 ? spec.egress[0].to[0].networks (whether they hold nodes) of AdminNetworkPolicy x cannot be decided"},
		},
		"domain names, which an implementation may not support": {
			policies: []*Policy{toPods, anpOf(rule, ruleOut("Allow", `{"domainNames":["example.com"]}`))},
			want: []string{
				pods + may + "an implementation may refuse all of it because of spec.egress[1].to[0]",
				"egress to domain names example.com on all ports by x rule 1" + may + "an implementation may refuse all of it because of spec.egress[1].to[0]",
			},
		},
		"a report against it, and a field that cannot be read": {
			policies: []*Policy{toPods, readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(5, rule, ruleIn("Deny", `{}`)), "Ready=False"))},
			want:     []string{pods + may + "its condition Ready is False"},
		},
		"an accept of networks": {
			policies: []*Policy{quarantine(), read(5, ruleOut("Allow", `{"networks":["0.0.0.0/0"]}`))},
			want:     []string{"egress to CIDR 0.0.0.0/0 on all ports by x rule 0"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := NewSet(append(tc.policies, ReadNetworkPolicy(newPolicy("q", DenySpec(everything(), nil))))...)
			set.SetProven("policy.networking.k8s.io", true)
			got := linesOf(Evaluate(stripped(), set, nil, nil))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("leaks mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

// anpOf is an AdminNetworkPolicy of which nothing has been reported.
func anpOf(rules ...string) *Policy {
	return readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(5, rules...)))
}

// A report that changes makes the pods stale that it can matter to, though the object's generation stays.
func TestIndexFollowsReports(t *testing.T) {
	x := NewIndex()
	pod := stripped()
	pod.UID = types.UID("v")
	x.Hold("incident", pod, nil)
	x.PutPolicy(quarantine())
	x.PutPolicy(ReadNetworkPolicy(newPolicy("a", egress(everything(), peers(namespacesPeer(everything()))))))
	var verdicts []string
	for _, conditions := range [][]string{nil, {"Ready=False"}, {"Programmed=False"}, {"Programmed=True"}, {"Programmed=True"}, nil} {
		woken := x.PutPolicy(readAdminNetworkPolicy(adminObject("AdminNetworkPolicy", "x", anpJSON(5, ruleOut("Deny", everyNamespace)), conditions...)))
		leaks, _ := x.Leaks(pod.UID)
		verdicts = append(verdicts, fmt.Sprintf("%s, woken %d", verdictOf(leaks), len(woken)))
	}
	want := []string{"UNK, woken 1", "UNK, woken 1", "UNK, woken 1", "ISO, woken 1", "ISO, woken 0", "UNK, woken 1"}
	if diff := cmp.Diff(want, verdicts); diff != "" {
		t.Errorf("verdicts mismatch (-want +got):\n%s", diff)
	}
}
