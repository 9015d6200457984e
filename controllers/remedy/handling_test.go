package remedy

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

func adopter(kind, name, selector string) Adopter {
	parsed, err := labels.Parse(selector)
	if err != nil {
		panic(err)
	}
	return Adopter{Kind: kind, Namespace: "shop", Name: name, UID: "uid-" + name, Selector: parsed}
}

func elsewhere(a Adopter) Adopter {
	a.Namespace = "bank"
	return a
}

func TestHandlingHeedsAdopters(t *testing.T) {
	would := func(name string) string {
		return name + " selects it without its labels too: it would keep it or take it up, and could delete it"
	}
	cases := map[string]struct {
		adopters []Adopter
		want     Decision
	}{
		"nobody": {want: Decision{Detach: true}},
		"its own controller, which lets go of it":       {adopters: []Adopter{adopter("ReplicaSet", "web-abc", "app=web,pod-template-hash=abc")}, want: Decision{Detach: true}},
		"its own controller, which would keep it":       {adopters: []Adopter{adopter("ReplicaSet", "web-abc", "app notin (db)")}, want: Decision{Why: would("ReplicaSet shop/web-abc")}},
		"one that selects pods without a label":         {adopters: []Adopter{adopter("ReplicaSet", "web-abc", "app=web"), adopter("DaemonSet", "stray", "!app")}, want: Decision{Why: would("DaemonSet shop/stray")}},
		"one that selects everything":                   {adopters: []Adopter{adopter("ReplicationController", "all", "")}, want: Decision{Why: would("ReplicationController shop/all")}},
		"one that selects the quarantine label":         {adopters: []Adopter{adopter("Job", "greedy", "quarantine.cofferdam.dev/aaaa=held")}, want: Decision{Why: would("Job shop/greedy")}},
		"one of another namespace":                      {adopters: []Adopter{elsewhere(adopter("ReplicaSet", "all", ""))}, want: Decision{Detach: true}},
		"one that selects nothing":                      {adopters: []Adopter{{Kind: "ReplicaSet", Namespace: "shop", Name: "none", Selector: labels.Nothing()}}, want: Decision{Detach: true}},
		"one of which it is not known what it is about": {adopters: []Adopter{{Kind: "ReplicaSet", Namespace: "shop", Name: "odd"}}, want: Decision{Why: would("ReplicaSet shop/odd")}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := webPod()
			got := Handling(pod, first, isolation.SetOf(denyAll()), nil, tc.adopters, v1alpha1.PodHandlingDetach)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Handling() (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(webPod(), pod); diff != "" {
				t.Errorf("the pod that was read was changed (-want +got):\n%s", diff)
			}
			// Who would be adopted is nobody's concern if the labels stay.
			kept := Handling(pod, first, isolation.SetOf(denyAll()), nil, tc.adopters, v1alpha1.PodHandlingKeepAttached)
			if diff := cmp.Diff(Decision{}, kept); diff != "" {
				t.Errorf("kept attached (-want +got):\n%s", diff)
			}
		})
	}
}

// adminDeny is a policy ahead of NetworkPolicies that denies pods of the labels something, and is in effect.
func adminDeny(subject map[string]any, ingress ...any) *isolation.Policy {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": map[string]any{"name": "guardrail", "generation": int64(1)},
		"spec": map[string]any{
			"tier": "Admin", "priority": int64(10), "ingress": ingress,
			"subject": map[string]any{"pods": map[string]any{"namespaceSelector": map[string]any{}, "podSelector": subject}},
		},
		"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True", "observedGeneration": int64(1)}}},
	}}
	p, _ := isolation.Read(u)
	return p
}

// onPort is the policy with its ingress rules for one port.
func onPort(number int32, np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	for i := range np.Spec.Ingress {
		np.Spec.Ingress[i].Ports = []networkingv1.NetworkPolicyPort{port("TCP", number)}
	}
	return np
}

// The strip of the labels must not open anything (cases 2 to 6 of the field notes, and what denies only by labels).
func TestHandlingHeedsWhatTheStripWouldOpen(t *testing.T) {
	everything := metav1.LabelSelector{}
	web := metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	bare := matching("app", metav1.LabelSelectorOpDoesNotExist)
	denyPods := map[string]any{"action": "Deny", "from": []any{map[string]any{"namespaces": map[string]any{}}}}
	onlyOnceOff := "NetworkPolicy shop/a allows something to it only once its labels are off: "
	cases := map[string]struct {
		policies []*networkingv1.NetworkPolicy
		tier     *isolation.Policy
		want     Decision
	}{
		"only the deny policy":                               {want: Decision{Detach: true}},
		"case 2: a policy that selects the labels":           {policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(web))}, want: Decision{Detach: true}},
		"case 3: a policy that selects every pod":            {policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(everything))}, want: Decision{Detach: true}},
		"case 4: a policy that selects pods that are not db": {policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(matching("app", metav1.LabelSelectorOpNotIn, "db")))}, want: Decision{Detach: true}},
		"case 4, where the labels kept it off": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(matching("app", metav1.LabelSelectorOpNotIn, "web")))},
			want:     Decision{Why: onlyOnceOff + "ingress from any peer on all ports"},
		},
		"case 5: a policy that selects pods without a label": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(bare, everyPod()))},
			want:     Decision{Why: onlyOnceOff + "ingress from all namespaces / all pods on all ports"},
		},
		"case 6: a policy that selects the quarantine label": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(matching("quarantine.cofferdam.dev/aaaa", metav1.LabelSelectorOpExists)))},
			want:     Decision{Detach: true},
		},
		"another policy for each state of the pod": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("w", allowIngress(web)), policyNamed("a", allowEgress(bare, block("10.0.0.0/8")))},
			want:     Decision{Why: onlyOnceOff + "egress to CIDR 10.0.0.0/8 on all ports"},
		},
		"a denial by labels hides a policy that selects every pod": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(everything, everyPod()))},
			tier:     adminDeny(map[string]any{"matchLabels": map[string]any{"app": "web"}}, denyPods),
			want:     Decision{Why: onlyOnceOff + "ingress from all namespaces / all pods on all ports"},
		},
		"a denial by labels hides a part of it": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(everything))},
			tier:     adminDeny(map[string]any{"matchLabels": map[string]any{"app": "web"}}, denyPods),
			want:     Decision{Why: "policies allow more to it once its labels are off: ingress from any peer on all ports"},
		},
		"a denial by labels hides a part of one policy, and another allows the same in both states": {
			policies: []*networkingv1.NetworkPolicy{onPort(81, policyNamed("a", allowIngress(everything))), onPort(80, policyNamed("b", allowIngress(everything)))},
			tier: adminDeny(map[string]any{"matchLabels": map[string]any{"app": "web"}}, map[string]any{
				"action": "Deny", "from": denyPods["from"], "protocols": []any{map[string]any{"tcp": map[string]any{"destinationPort": map[string]any{"number": int64(80)}}}},
			}),
			want: Decision{Why: "policies allow more to it once its labels are off: ingress from any peer on TCP/80"},
		},
		"a denial whatever the labels hides the same part of it in both states": {
			policies: []*networkingv1.NetworkPolicy{policyNamed("a", allowIngress(everything))},
			tier:     adminDeny(map[string]any{}, denyPods),
			want:     Decision{Detach: true},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := isolation.SetOf(append(tc.policies, denyAll())...)
			if tc.tier != nil {
				set.Put(tc.tier)
			}
			got := Handling(webPod(), first, set, nil, nil, v1alpha1.PodHandlingDetach)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Handling() (-want +got):\n%s", diff)
			}
		})
	}
}

// Without the Incident's deny policy nothing may restrict the detached pod any more.
func TestHandlingHeedsALackOfPolicies(t *testing.T) {
	web := metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	got := Handling(webPod(), first, isolation.SetOf(policyNamed("w", allowIngress(web, block("10.0.0.0/8")))), nil, nil, v1alpha1.PodHandlingDetach)
	want := Decision{Why: "no policy restricts it once its labels are off: ingress from any peer on all ports"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Handling() (-want +got):\n%s", diff)
	}
}

// A flow that is declared is not opened by the strip.
func TestHandlingExcusesExceptions(t *testing.T) {
	bare := matching("app", metav1.LabelSelectorOpDoesNotExist)
	e := exception(isolation.DirectionEgress, block("198.51.100.7/32"), port("TCP", 443))
	spec := allowEgress(bare, block("198.51.100.7/32"))
	spec.Egress[0].Ports = []networkingv1.NetworkPolicyPort{port("TCP", 443)}
	set := isolation.SetOf(policyNamed("a", spec), denyAll(e))
	if got := Handling(webPod(), first, set, []isolation.Exception{e}, nil, v1alpha1.PodHandlingDetach); !got.Detach {
		t.Errorf("Handling() = %+v", got)
	}
	if got := Handling(webPod(), first, isolation.SetOf(policyNamed("a", spec), denyAll()), nil, nil, v1alpha1.PodHandlingDetach); got.Detach {
		t.Error("the same flow, not declared, was overlooked")
	}
}

func TestReasonsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 300)
	for name, text := range map[string]string{
		"a name":   Handling(webPod(), first, isolation.SetOf(denyAll()), nil, []Adopter{adopter("ReplicaSet", long, "")}, v1alpha1.PodHandlingDetach).Why,
		"an error": clip(errors.New(long).Error()),
	} {
		if n := utf8.RuneCountInString(text); n != 256 || !strings.HasSuffix(text, "…") {
			t.Errorf("%s: %d characters: %s", name, n, text)
		}
	}
}
