package measure

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

func incident() *v1alpha1.Incident {
	return &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: first}}
}

func revision(ns, id string, state v1alpha1.RevisionState, selector *metav1.LabelSelector) v1alpha1.RevisionStatus {
	return v1alpha1.RevisionStatus{ID: id, Workload: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: ns, Name: "web", UID: "d1"}, Selector: selector, State: state}
}

func byHash(hash string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"pod-template-hash": hash}}
}

func TestExceptions(t *testing.T) {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	p443, p53 := intstr.FromInt32(443), intstr.FromInt32(53)
	collector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "collector"}}
	forensics := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "forensics"}}
	cases := map[string]struct {
		declared v1alpha1.EvidenceException
		want     isolation.Exception
	}{
		"block of addresses; the protocol is TCP when it is not said": {
			declared: v1alpha1.EvidenceException{Name: "a", Direction: "Egress", CIDR: "198.51.100.7/32", Ports: []v1alpha1.ExceptionPort{{Port: 443}}},
			want: isolation.Exception{
				Name: "a", Direction: isolation.DirectionEgress, Peer: networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "198.51.100.7/32"}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &p443}},
			},
		},
		"pods in namespaces, several ports": {
			declared: v1alpha1.EvidenceException{
				Name: "b", Direction: "Ingress", NamespaceSelector: forensics, PodSelector: collector,
				Ports: []v1alpha1.ExceptionPort{{Protocol: "UDP", Port: 53}, {Protocol: "TCP", Port: 443}},
			},
			want: isolation.Exception{
				Name: "b", Direction: isolation.DirectionIngress, Peer: networkingv1.NetworkPolicyPeer{NamespaceSelector: forensics, PodSelector: collector},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &p53}, {Protocol: &tcp, Port: &p443}},
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Exceptions([]v1alpha1.EvidenceException{tc.declared})
			if diff := cmp.Diff([]isolation.Exception{tc.want}, got); diff != "" {
				t.Errorf("Exceptions() (-want +got):\n%s", diff)
			}
			if err := got[0].Validate(); err != nil {
				t.Errorf("the evaluator does not accept it: %v", err)
			}
		})
	}
	if got := Exceptions(nil); len(got) != 0 {
		t.Errorf("Exceptions(nil) = %v", got)
	}
}

func TestDenyPolicies(t *testing.T) {
	inc := incident()
	exceptions := Exceptions([]v1alpha1.EvidenceException{{Name: "a", Direction: "Egress", CIDR: "198.51.100.7/32", Ports: []v1alpha1.ExceptionPort{{Port: 443}}}})
	base := "cofferdam-quarantine-aaaa"
	policy := func(ns, name string, selector metav1.LabelSelector) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ns, Name: name,
				Labels:      map[string]string{"app.kubernetes.io/managed-by": "cofferdam", v1alpha1.IncidentUIDLabel: "aaaa"},
				Annotations: map[string]string{v1alpha1.IncidentAnnotation: "soc/inc-1"},
			},
			Spec: isolation.DenySpec(selector, exceptions),
		}
	}
	held := metav1.LabelSelector{MatchLabels: map[string]string{"quarantine.cofferdam.dev/aaaa": "held"}}
	cases := map[string]struct {
		namespaces []string
		revisions  []v1alpha1.RevisionStatus
		want       []*networkingv1.NetworkPolicy
	}{
		"nothing":            {},
		"namespaces, sorted": {namespaces: []string{"shop", "bank"}, want: []*networkingv1.NetworkPolicy{policy("bank", base, held), policy("shop", base, held)}},
		"held revisions only, and only those with pods of their own": {
			namespaces: []string{"shop"},
			revisions: []v1alpha1.RevisionStatus{
				revision("shop", "rs1", v1alpha1.RevisionHeld, byHash("abc")),
				revision("shop", "rs2", v1alpha1.RevisionReleased, byHash("def")),
				revision("shop", "cron", v1alpha1.RevisionHeld, nil),
			},
			want: []*networkingv1.NetworkPolicy{policy("shop", base, held), policy("shop", RevisionPolicyName(inc, "rs1"), *byHash("abc"))},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := DenyPolicies(inc, tc.namespaces, tc.revisions, exceptions)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("DenyPolicies() (-want +got):\n%s", diff)
			}
		})
	}
}

// What DenyPolicies and Quarantined write together isolates the pod, whichever way it was handled; a revision's policy does so before any label.
func TestThePoliciesIsolate(t *testing.T) {
	inc := incident()
	all := DenyPolicies(inc, []string{"shop"}, []v1alpha1.RevisionStatus{revision("shop", "rs1", v1alpha1.RevisionHeld, byHash("abc"))}, nil)
	revisionOnly := all[1:]
	cases := map[string]struct {
		pod      *corev1.Pod
		policies []*networkingv1.NetworkPolicy
		want     bool
	}{
		"detached":                        {pod: act{by: first, detach: true}.on(t, webPod()), policies: all[:1], want: true},
		"attached":                        {pod: act{by: first}.on(t, webPod()), policies: all[:1], want: true},
		"new pod of the revision":         {pod: webPod(), policies: revisionOnly, want: true},
		"free pod":                        {pod: webPod(), policies: all[:1]},
		"held by another Incident's hand": {pod: act{by: second, detach: true}.on(t, webPod()), policies: all},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if leaks := isolation.Evaluate(tc.pod, isolation.SetOf(tc.policies...), nil, nil); (len(leaks) == 0) != tc.want {
				t.Errorf("Evaluate() = %v, want isolated: %v", leaks, tc.want)
			}
		})
	}
}

func TestRevisionPolicyName(t *testing.T) {
	inc := incident()
	inc.UID = "0fba4f4e-0f3c-4f2b-9d3e-0123456789ab"
	a, b := RevisionPolicyName(inc, "rs1"), RevisionPolicyName(inc, "rs2")
	if a == b || a == DenyPolicyName(inc) || a != RevisionPolicyName(inc, "rs1") {
		t.Errorf("names %q, %q: want them different and stable", a, b)
	}
	if len(a) > 253 || !strings.HasPrefix(a, DenyPolicyName(inc)) {
		t.Errorf("name %q, want a bounded name that begins with %q", a, DenyPolicyName(inc))
	}
}

func TestRefusals(t *testing.T) {
	revisions := []v1alpha1.RevisionStatus{
		revision("shop", "rs1", v1alpha1.RevisionHeld, byHash("abc")),
		revision("shop", "ds1/xyz", v1alpha1.RevisionHeld, byHash("xyz")),
		revision("shop", "rs2", v1alpha1.RevisionReleased, byHash("def")),
		revision("bank", "cron", v1alpha1.RevisionHeld, nil),
		revision("bank", "old-cron", v1alpha1.RevisionReleased, nil),
	}
	cases := map[string]struct {
		revisions    []v1alpha1.RevisionStatus
		replacements v1alpha1.ReplacementHandling
		want         string
	}{
		"quarantine refuses only what has no revisions": {revisions: revisions, replacements: v1alpha1.ReplacementQuarantine, want: "bank/cron\n"},
		"refuse refuses every held revision, sorted":    {revisions: revisions, replacements: v1alpha1.ReplacementRefuse, want: "bank/cron\nshop/ds1/xyz\nshop/rs1\n"},
		"nothing to refuse":                             {revisions: revisions[:1], replacements: v1alpha1.ReplacementQuarantine},
		"everything released":                           {revisions: revisions[2:3], replacements: v1alpha1.ReplacementRefuse},
		"nothing":                                       {replacements: v1alpha1.ReplacementRefuse},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var want *corev1.ConfigMap
			if tc.want != "" {
				want = &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: "cofferdam-system", Name: "refusals-aaaa",
						Labels: map[string]string{
							"app.kubernetes.io/managed-by": "cofferdam", v1alpha1.IncidentUIDLabel: "aaaa", v1alpha1.RefusalsLabel: "true",
						},
						Annotations: map[string]string{v1alpha1.IncidentAnnotation: "soc/inc-1"},
					},
					Data: map[string]string{"refused": tc.want},
				}
			}
			if diff := cmp.Diff(want, Refusals(incident(), "cofferdam-system", tc.revisions, tc.replacements, []string{"shop"})); diff != "" {
				t.Errorf("Refusals() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusalsOfDigests(t *testing.T) {
	held := []v1alpha1.RevisionStatus{revision("bank", "cron", v1alpha1.RevisionHeld, nil)}
	cases := map[string]struct {
		revisions []v1alpha1.RevisionStatus
		digests   []string
		in        []string
		want      map[string]string
	}{
		"each digest and namespace once, sorted": {
			digests: []string{"sha256:bb", "sha256:aa"}, in: []string{"shop", "bank", "shop"},
			want: map[string]string{"digests": "sha256:aa\nsha256:bb\n", "digest-namespaces": "bank\nshop\n"},
		},
		"beside revisions": {
			revisions: held, digests: []string{"sha256:aa"}, in: []string{"bank"},
			want: map[string]string{"refused": "bank/cron\n", "digests": "sha256:aa\n", "digest-namespaces": "bank\n"},
		},
		"lifted":     {revisions: held, digests: []string{"sha256:aa"}, want: map[string]string{"refused": "bank/cron\n"}},
		"none":       {revisions: held, in: []string{"bank"}, want: map[string]string{"refused": "bank/cron\n"}},
		"all lifted": {digests: []string{"sha256:aa"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			inc := incident()
			inc.Spec.CompromisedDigests = tc.digests
			var got map[string]string
			if list := Refusals(inc, "cofferdam-system", tc.revisions, v1alpha1.ReplacementQuarantine, tc.in); list != nil {
				got = list.Data
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Refusals() (-want +got):\n%s", diff)
			}
		})
	}
}
