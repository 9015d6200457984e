package remedy

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/controllers/isolation"
)

func leakOf(group, kind, namespace, name string, rule int) isolation.Leak {
	return isolation.Leak{
		Direction: isolation.DirectionIngress, Source: isolation.Ref{Group: group, Kind: kind, Namespace: namespace, Name: name}, Rule: rule, Reason: isolation.ReasonAllowRule,
	}
}

func because(reason string, l isolation.Leak) isolation.Leak {
	l.Reason = reason
	return l
}

func doubtful(why string, l isolation.Leak) isolation.Leak {
	l.Undecided = why
	return l
}

func in(list string, l isolation.Leak) isolation.Leak {
	l.List = list
	return l
}

func TestAdvice(t *testing.T) {
	const (
		key    = "quarantine.cofferdam.dev/<Incident UID>"
		absent = "{key: " + key + ", operator: DoesNotExist}"
	)
	allowAll := leakOf("networking.k8s.io", "NetworkPolicy", "shop", "allow-all", 0)
	nobody := isolation.Leak{Direction: isolation.DirectionEgress, Rule: -1, Reason: isolation.ReasonNotSelected}
	outgoing := allowAll
	outgoing.Direction, outgoing.Rule = isolation.DirectionEgress, 2
	cases := map[string]struct {
		leak isolation.Leak
		want string
	}{
		"a rule of a NetworkPolicy": {
			leak: allowAll, want: "remove spec.ingress[0] of NetworkPolicy shop/allow-all, or add to its spec.podSelector.matchExpressions: " + absent,
		},
		"another rule, of the other direction": {
			leak: outgoing, want: "remove spec.egress[2] of NetworkPolicy shop/allow-all, or add to its spec.podSelector.matchExpressions: " + absent,
		},
		"no policy": {leak: nobody, want: "add a NetworkPolicy to the pod's namespace that selects the pod, has Egress among its spec.policyTypes and no rules for it"},
		"a selector that cannot be read": {
			leak: because(isolation.ReasonInvalidSelector, leakOf("networking.k8s.io", "NetworkPolicy", "shop", "odd", -1)),
			want: "correct the selector of NetworkPolicy shop/odd, which cannot be read",
		},
		"a rule that cannot be read": {
			leak: because(isolation.ReasonInvalidCIDR, allowAll),
			want: "correct spec.ingress[0] of NetworkPolicy shop/allow-all, which cannot be read (InvalidCIDR), or remove it, or add to its spec.podSelector.matchExpressions: " + absent,
		},
		"a peer's selector that cannot be read": {
			leak: because(isolation.ReasonInvalidSelector, allowAll),
			want: "correct spec.ingress[0] of NetworkPolicy shop/allow-all, which cannot be read (InvalidSelector), or remove it, or add to its spec.podSelector.matchExpressions: " + absent,
		},
		"a rule that somebody added to a deny policy, which must go on selecting the pod": {
			leak: leakOf("networking.k8s.io", "NetworkPolicy", "shop", "cofferdam-quarantine-aaaa", 1),
			want: "remove spec.ingress[1] of NetworkPolicy shop/cofferdam-quarantine-aaaa, which Cofferdam did not write",
		},
		"a ClusterNetworkPolicy": {
			leak: leakOf("policy.networking.k8s.io", "ClusterNetworkPolicy", "", "guardrail", 3),
			want: "remove spec.ingress[3] of ClusterNetworkPolicy guardrail, or add to the podSelector.matchExpressions of its spec.subject.pods: " + absent,
		},
		"Cilium": {
			leak: in("specs[1].ingress", leakOf("cilium.io", "CiliumNetworkPolicy", "shop", "l7", 0)),
			want: "remove specs[1].ingress[0] of CiliumNetworkPolicy shop/l7, or add to its spec.endpointSelector.matchExpressions: {key: k8s:" + key + ", operator: DoesNotExist}",
		},
		"Calico's kind of the same name": {
			leak: leakOf("projectcalico.org", "NetworkPolicy", "shop", "web", 0),
			want: "remove spec.ingress[0] of NetworkPolicy shop/web, or append to its spec.selector: && !has(" + key + ")",
		},
		"a kind of which only the list is known": {
			leak: in("rules", leakOf("example.org", "Firewall", "", "edge", 4)), want: "remove spec.rules[4] of Firewall edge, or keep its selector off the pod",
		},
		"an object as a whole": {leak: leakOf("example.org", "Firewall", "", "edge", -1), want: "change or remove Firewall edge, or keep its selector off the pod"},
		"a doubt": {
			leak: doubtful("spec.rules[0].app cannot be decided", leakOf("example.org", "Firewall", "", "edge", 0)),
			want: "remove spec.ingress[0] of Firewall edge, or keep its selector off the pod, or resolve the doubt: spec.rules[0].app cannot be decided",
		},
		"a doubt for which there is less room": {
			leak: doubtful("ClusterNetworkPolicy guardrail may not be in effect: no implementation has reported that it is in effect (status.conditions is empty)", allowAll),
			want: "remove spec.ingress[0] of NetworkPolicy shop/allow-all, or resolve the doubt: ClusterNetworkPolicy guardrail may not be in effect: " +
				"no implementation has reported that it is in effect (status.conditions is empty)",
		},
		"a doubt about the lack of a policy": {
			leak: doubtful("Firewall edge may not be in effect", nobody),
			want: "add a NetworkPolicy to the pod's namespace that selects the pod, has Egress among its spec.policyTypes and no rules for it, or resolve the doubt: Firewall edge may not be in effect",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Advice(tc.leak)); diff != "" {
				t.Errorf("Advice() (-want +got):\n%s", diff)
			}
		})
	}
}

// Names are as long as their authors like; what there is no room for is left out from the end, and the object is always named.
func TestAdviceIsBounded(t *testing.T) {
	for length := range 254 {
		name := strings.Repeat("é", length+1)
		for _, l := range []isolation.Leak{
			leakOf("networking.k8s.io", "NetworkPolicy", "shop", name, 0),
			doubtful(name, leakOf("networking.k8s.io", "NetworkPolicy", "shop", name, 0)),
			because(isolation.ReasonInvalidPeer, leakOf("cilium.io", "CiliumClusterwideNetworkPolicy", "", name, 12)),
		} {
			text := Advice(l)
			if n := utf8.RuneCountInString(text); n > 256 {
				t.Fatalf("%d characters: %s", n, text)
			}
			if named := fmt.Sprintf("of %s", l.Source); length < 180 && !strings.Contains(text, named) {
				t.Fatalf("the object is not named: %s", text)
			}
			if l.Undecided == "" && length < 150 && strings.HasSuffix(text, "…") {
				t.Fatalf("an alternative that does not fit is begun: %s", text)
			}
		}
	}
}

// Who follows the advice has closed the leak.
func TestAdviceCloses(t *testing.T) {
	np := policyNamed("allow-all", allowIngress(metav1.LabelSelector{}))
	np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{everyPod()}})
	pod := held(webPod(), true)
	leaks := isolation.Evaluate(pod, isolation.SetOf(np, denyAll()), nil, nil)
	if len(leaks) != 2 {
		t.Fatalf("leaks %v", leaks)
	}
	for _, l := range leaks {
		if !strings.HasPrefix(Advice(l), fmt.Sprintf("remove spec.ingress[%d] of NetworkPolicy shop/allow-all", l.Rule)) {
			t.Errorf("Advice() = %q", Advice(l))
		}
		edited := np.DeepCopy()
		edited.Spec.Ingress = append(edited.Spec.Ingress[:l.Rule], edited.Spec.Ingress[l.Rule+1:]...)
		if left := isolation.Evaluate(pod, isolation.SetOf(edited, denyAll()), nil, nil); len(left) != 1 {
			t.Errorf("without rule %d: %v", l.Rule, left)
		}
	}
}
