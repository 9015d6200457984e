package remedy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/controllers/isolation"
)

func collectorPods() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "collector"}}
}

func forensics() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": "forensics"}}
}

const wantClusterNetworkPolicy = `
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata:
  name: cofferdam-quarantine-aaaa
  labels: {app.kubernetes.io/managed-by: cofferdam, containment.cofferdam.dev/incident-uid: aaaa}
  annotations: {containment.cofferdam.dev/incident: soc/inc-1}
spec:
  tier: Admin
  priority: 0
  subject:
    pods:
      namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [bank, shop]}]}
      podSelector: {matchExpressions: [{key: quarantine.cofferdam.dev/aaaa, operator: Exists}]}
  ingress:
  - {name: quarantine, action: Deny, from: [{namespaces: {}}]}
  egress:
  - {name: quarantine, action: Deny, to: [{namespaces: {}}, {networks: ["0.0.0.0/0", "::/0"]}]}
`

const wantCilium = `
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: cofferdam-quarantine-aaaa
  labels: {app.kubernetes.io/managed-by: cofferdam, containment.cofferdam.dev/incident-uid: aaaa}
  annotations: {containment.cofferdam.dev/incident: soc/inc-1}
spec:
  endpointSelector:
    matchExpressions:
    - {key: "k8s:quarantine.cofferdam.dev/aaaa", operator: Exists}
    - {key: "k8s:io.kubernetes.pod.namespace", operator: In, values: [bank, shop]}
  ingressDeny: [{fromEntities: [all]}]
  egressDeny: [{toEntities: [all]}]
`

// asYAML compares objects as people write them.
func asYAML(t *testing.T, u *unstructured.Unstructured) any {
	t.Helper()
	raw, err := yaml.Marshal(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, string(raw))
}

func parsed(t *testing.T, text string) any {
	t.Helper()
	var out any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheTierDeniesEverything(t *testing.T) {
	namespaces := []string{"shop", "bank", "shop"}
	cnp, err := ClusterNetworkPolicyDeny(incident(), namespaces, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parsed(t, wantClusterNetworkPolicy), asYAML(t, cnp)); diff != "" {
		t.Errorf("ClusterNetworkPolicyDeny() (-want +got):\n%s", diff)
	}
	cilium, err := CiliumDeny(incident(), namespaces, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parsed(t, wantCilium), asYAML(t, cilium)); diff != "" {
		t.Errorf("CiliumDeny() (-want +got):\n%s", diff)
	}
	for _, u := range []*unstructured.Unstructured{cnp, cilium} {
		if u.GetName() != TierName(incident()) {
			t.Errorf("name %q, want %q", u.GetName(), TierName(incident()))
		}
		u.DeepCopy() // panics unless it is made of what JSON is made of
	}
}

func TestTheTierComesFirst(t *testing.T) {
	cases := map[string]struct {
		existing []int32
		want     int64
		problem  string
	}{
		"nobody else":                {want: 0},
		"one other":                  {existing: []int32{10}, want: 9},
		"before the first of them":   {existing: []int32{500, 3, 1000}, want: 2},
		"the last place but one":     {existing: []int32{1}, want: 0},
		"nothing goes before 0":      {existing: []int32{7, 0}, problem: "priority 0"},
		"a number that cannot be":    {existing: []int32{-5}, problem: "priority 0"},
		"a number beyond the bounds": {existing: []int32{5000}, want: 1000},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := ClusterNetworkPolicyDeny(incident(), []string{"shop"}, nil, tc.existing)
			if tc.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tc.problem) {
					t.Fatalf("error %v, want one about %s", err, tc.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := unstructured.NestedInt64(u.Object, "spec", "priority"); got != tc.want {
				t.Errorf("priority %d, want %d", got, tc.want)
			}
		})
	}
}

func TestTheTierPassesExceptionsOn(t *testing.T) {
	pods := networkingv1.NetworkPolicyPeer{NamespaceSelector: forensics(), PodSelector: collectorPods()}
	ranged := port(corev1.ProtocolUDP, 53)
	ranged.EndPort = new(int32(60))
	single := port(corev1.ProtocolSCTP, 7)
	single.EndPort = new(int32(7))
	cases := map[string]struct {
		namespaces      []string
		exceptions      []isolation.Exception
		ingress, egress string // the rules before the one that denies
	}{
		"pods of other namespaces": {
			exceptions: []isolation.Exception{exception(isolation.DirectionIngress, pods, port(corev1.ProtocolTCP, 443))},
			ingress: `{name: exception collector, action: Pass, protocols: [{tcp: {destinationPort: {number: 443}}}], from: [{pods: {
				namespaceSelector: {matchLabels: {team: forensics}}, podSelector: {matchLabels: {app: collector}}}}]}`,
		},
		"every pod of other namespaces, and no ports": {
			exceptions: []isolation.Exception{exception(isolation.DirectionIngress, networkingv1.NetworkPolicyPeer{NamespaceSelector: forensics()})},
			ingress:    `{name: exception collector, action: Pass, from: [{namespaces: {matchLabels: {team: forensics}}}]}`,
		},
		"pods of the same namespace": {
			exceptions: []isolation.Exception{exception(isolation.DirectionEgress, networkingv1.NetworkPolicyPeer{PodSelector: collectorPods()}, port(corev1.ProtocolTCP, 443))},
			egress: `{name: exception collector, action: Pass, protocols: [{tcp: {destinationPort: {number: 443}}}], to: [{pods: {
				namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [shop]}]}, podSelector: {matchLabels: {app: collector}}}}]}`,
		},
		"addresses": {
			exceptions: []isolation.Exception{exception(isolation.DirectionEgress, block("198.51.100.7/32"), port(corev1.ProtocolTCP, 443))},
			egress:     `{name: exception collector, action: Pass, protocols: [{tcp: {destinationPort: {number: 443}}}], to: [{networks: ["198.51.100.7/32"]}]}`,
		},
		"addresses that come in, which the tier does not know": {
			exceptions: []isolation.Exception{exception(isolation.DirectionIngress, block("198.51.100.7/32"), port(corev1.ProtocolTCP, 443))},
		},
		"ports of all sorts": {
			exceptions: []isolation.Exception{exception(isolation.DirectionEgress, block("::/0"), ranged, single, networkingv1.NetworkPolicyPort{})},
			egress: `{name: exception collector, action: Pass, to: [{networks: ["::/0"]}], protocols: [{udp: {destinationPort: {range: {start: 53, end: 60}}}},
				{sctp: {destinationPort: {number: 7}}}, {tcp: {destinationPort: {range: {start: 1, end: 65535}}}}]}`,
		},
		"several, in their order": {
			namespaces: []string{"bank", "shop"},
			exceptions: []isolation.Exception{
				exception(isolation.DirectionEgress, block("10.0.0.0/8")), exception(isolation.DirectionIngress, pods), exception(isolation.DirectionEgress, block("192.0.2.0/24")),
			},
			ingress: `{name: exception collector, action: Pass, from: [{pods: {namespaceSelector: {matchLabels: {team: forensics}}, podSelector: {matchLabels: {app: collector}}}}]}`,
			egress: `{name: exception collector, action: Pass, to: [{networks: ["10.0.0.0/8"]}]},
				{name: exception collector, action: Pass, to: [{networks: ["192.0.2.0/24"]}]}`,
		},
		"one that has no meaning opens nothing": {exceptions: []isolation.Exception{exception(isolation.DirectionEgress, block("10.0.0.0/99"))}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.namespaces == nil {
				tc.namespaces = []string{"shop"}
			}
			u, err := ClusterNetworkPolicyDeny(incident(), tc.namespaces, tc.exceptions, nil)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := ClusterNetworkPolicyDeny(incident(), tc.namespaces, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for direction, before := range map[string]string{"ingress": tc.ingress, "egress": tc.egress} {
				got, _, _ := unstructured.NestedSlice(u.Object, "spec", direction)
				deny, _, _ := unstructured.NestedSlice(plain.Object, "spec", direction)
				want := append(parsed(t, "["+before+"]").([]any), deny...)
				if diff := cmp.Diff(want, parsed(t, string(mustYAML(t, got)))); diff != "" {
					t.Errorf("%s (-want +got):\n%s", direction, diff)
				}
			}
		})
	}
}

func mustYAML(t *testing.T, value any) []byte {
	t.Helper()
	raw, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestATierThatCannotBe(t *testing.T) {
	egress := isolation.DirectionEgress
	var many []isolation.Exception
	for i := range 25 {
		e := exception(egress, block("10.0.0.0/8"))
		e.Name = fmt.Sprintf("e%d", i)
		many = append(many, e)
	}
	var ports []networkingv1.NetworkPolicyPort
	for i := range int32(26) {
		ports = append(ports, port(corev1.ProtocolTCP, i+1))
	}
	named := networkingv1.NetworkPolicyPort{Port: new(intstr.FromString("http"))}
	one := []string{"shop"}
	cases := map[string]struct {
		namespaces []string
		exceptions []isolation.Exception
		problem    string // of a ClusterNetworkPolicy; empty if there can be one
	}{
		"without a namespace":              {problem: "no namespace"},
		"too many exceptions":              {namespaces: one, exceptions: many, problem: "25 rules"},
		"as many exceptions as there fit":  {namespaces: one, exceptions: many[1:]},
		"too many ports":                   {namespaces: one, exceptions: []isolation.Exception{exception(egress, block("10.0.0.0/8"), ports...)}, problem: "26 ports"},
		"as many ports as there fit":       {namespaces: one, exceptions: []isolation.Exception{exception(egress, block("10.0.0.0/8"), ports[1:]...)}},
		"a port by name":                   {namespaces: one, exceptions: []isolation.Exception{exception(egress, networkingv1.NetworkPolicyPeer{PodSelector: collectorPods()}, named)}, problem: "named ports"},
		"a block without some of it":       {namespaces: one, exceptions: []isolation.Exception{exception(egress, block("10.0.0.0/8", "10.1.0.0/16"))}, problem: "exceptions of their own"},
		"the same namespace, for several":  {namespaces: []string{"bank", "shop"}, exceptions: []isolation.Exception{exception(egress, networkingv1.NetworkPolicyPeer{PodSelector: collectorPods()})}, problem: "namespaceSelector"},
		"the same namespace, which is one": {namespaces: one, exceptions: []isolation.Exception{exception(egress, networkingv1.NetworkPolicyPeer{PodSelector: collectorPods()})}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := ClusterNetworkPolicyDeny(incident(), tc.namespaces, tc.exceptions, nil)
			if tc.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.problem) || u != nil {
				t.Errorf("ClusterNetworkPolicyDeny() = %v, error %v; want one about %q", u, err, tc.problem)
			}
		})
	}
}

func TestCiliumLeavesOutDirectionsWithExceptions(t *testing.T) {
	in, out := exception(isolation.DirectionIngress, block("10.0.0.0/8")), exception(isolation.DirectionEgress, block("10.0.0.0/8"))
	invalid := exception(isolation.DirectionEgress, block("nowhere"))
	cases := map[string]struct {
		exceptions      []isolation.Exception
		ingress, egress bool
	}{
		"none":                        {ingress: true, egress: true},
		"one that comes in":           {exceptions: []isolation.Exception{in}, egress: true},
		"one that goes out":           {exceptions: []isolation.Exception{out}, ingress: true},
		"one that has no meaning":     {exceptions: []isolation.Exception{invalid}, ingress: true, egress: true},
		"both: nothing can be denied": {exceptions: []isolation.Exception{in, out}},
		"both, one without a meaning": {exceptions: []isolation.Exception{in, invalid}, egress: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := CiliumDeny(incident(), []string{"shop"}, tc.exceptions)
			if !tc.ingress && !tc.egress {
				if err == nil {
					t.Errorf("CiliumDeny() = %v", u)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, ingress, _ := unstructured.NestedSlice(u.Object, "spec", "ingressDeny")
			_, egress, _ := unstructured.NestedSlice(u.Object, "spec", "egressDeny")
			if ingress != tc.ingress || egress != tc.egress {
				t.Errorf("ingressDeny %v, egressDeny %v", ingress, egress)
			}
		})
	}
	if u, err := CiliumDeny(incident(), nil, nil); err == nil {
		t.Errorf("without a namespace CiliumDeny() = %v", u)
	}
}

// reported is the object as an implementation reports it to be in effect.
func reported(u *unstructured.Unstructured, condition string) *unstructured.Unstructured {
	out := u.DeepCopy()
	out.SetGeneration(1)
	out.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": condition, "status": "True", "observedGeneration": int64(1)}}}
	return out
}

func read(t *testing.T, u *unstructured.Unstructured) *isolation.Policy {
	t.Helper()
	p, _ := isolation.Read(u)
	if p == nil {
		t.Fatalf("package isolation does not read %s", u.GetKind())
	}
	return p
}

// leaksWith evaluates a quarantined pod under a tier and a policy that selects every pod of its namespace, whatever its labels.
func leaksWith(t *testing.T, u *unstructured.Unstructured, np *networkingv1.NetworkPolicy, exceptions []isolation.Exception) []string {
	t.Helper()
	set := isolation.SetOf(np, denyAll(exceptions...))
	set.Put(read(t, u))
	var out []string
	for _, detach := range []bool{true, false} {
		leaks := isolation.Evaluate(held(webPod(), detach), set, exceptions, nil)
		for _, l := range leaks {
			out = append(out, l.Flows())
		}
	}
	return out
}

// What is built here, read back and in effect, closes what no label can close; in effect only when somebody says so.
func TestTheTierClosesLeaks(t *testing.T) {
	e := exception(isolation.DirectionEgress, block("198.51.100.7/32"), port(corev1.ProtocolTCP, 443))
	everywhere, everybody := allowEgress(metav1.LabelSelector{}), allowIngress(metav1.LabelSelector{})
	fromPods := allowIngress(metav1.LabelSelector{}, everyPod())
	const outside = "ingress from any address that is not a pod's on all ports"
	cases := map[string]struct {
		spec       networkingv1.NetworkPolicySpec
		exceptions []isolation.Exception
		// cnp are the leaks that a ClusterNetworkPolicy leaves, of a detached pod and of an attached one; with cilium, Cilium's policy leaves some too.
		cnp    []string
		cilium bool
	}{
		"egress to anywhere":         {spec: everywhere},
		"egress to pods":             {spec: allowEgress(metav1.LabelSelector{}, everyPod())},
		"egress to addresses":        {spec: allowEgress(metav1.LabelSelector{}, block("10.0.0.0/8"), block("::/0"))},
		"ingress from pods":          {spec: fromPods},
		"ingress from anywhere":      {spec: everybody, cnp: []string{outside, outside}},
		"egress, with an exception":  {spec: everywhere, exceptions: []isolation.Exception{e}, cilium: true},
		"ingress, with an exception": {spec: fromPods, exceptions: []isolation.Exception{e}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			np := policyNamed("a", tc.spec)
			cnp, err := ClusterNetworkPolicyDeny(incident(), []string{"shop"}, tc.exceptions, nil)
			if err != nil {
				t.Fatal(err)
			}
			cilium, err := CiliumDeny(incident(), []string{"shop"}, tc.exceptions)
			if err != nil {
				t.Fatal(err)
			}
			t.Run("ClusterNetworkPolicy", func(t *testing.T) {
				if diff := cmp.Diff(tc.cnp, leaksWith(t, reported(cnp, "Ready"), np, tc.exceptions)); diff != "" {
					t.Errorf("leaks (-want +got):\n%s", diff)
				}
				if len(leaksWith(t, cnp, np, tc.exceptions)) == 0 {
					t.Error("there is no leak though nobody reports the policy to be in effect")
				}
			})
			t.Run("Cilium", func(t *testing.T) {
				leaks := leaksWith(t, reported(cilium, "Valid"), np, tc.exceptions)
				if (len(leaks) > 0) != tc.cilium {
					t.Errorf("leaks %q, want some: %v", leaks, tc.cilium)
				}
				if len(leaksWith(t, cilium, np, tc.exceptions)) == 0 {
					t.Error("there is no leak though nobody reports the policy to be in effect")
				}
			})
		})
	}
}

// Pods that the Incident does not hold, and pods of other namespaces, are none of its business.
func TestTheTierIsAboutHeldPodsOnly(t *testing.T) {
	cnp, err := ClusterNetworkPolicyDeny(incident(), []string{"shop"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cilium, err := CiliumDeny(incident(), []string{"shop"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := held(webPod(), true)
	other.Namespace = "bank"
	for name, pod := range map[string]*corev1.Pod{"a free pod": webPod(), "a pod of another namespace": other} {
		for _, u := range []*unstructured.Unstructured{reported(cnp, "Ready"), reported(cilium, "Valid")} {
			p := read(t, u)
			for _, d := range isolation.Directions() {
				if isolation.Reachable(pod, isolation.NewSet(), d).Exceeds(isolation.Reachable(pod, isolation.NewSet(p), d)) {
					t.Errorf("%s: %s takes %s away", name, u.GetKind(), d)
				}
			}
		}
	}
}

func TestRestartsWhenUnreachable(t *testing.T) {
	with := func(change func(*corev1.Container)) *corev1.Pod {
		c := corev1.Container{Name: "web"}
		change(&c)
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "first"}, c}}}
	}
	probe := func(h corev1.ProbeHandler) *corev1.Probe { return &corev1.Probe{ProbeHandler: h} }
	http := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{}}
	sidecar := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "proxy", LivenessProbe: probe(http)}}}}
	cases := map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"no probe":              {pod: with(func(*corev1.Container) {})},
		"readiness":             {pod: with(func(c *corev1.Container) { c.ReadinessProbe = probe(http) })},
		"liveness by a command": {pod: with(func(c *corev1.Container) { c.LivenessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{}}) })},
		"liveness by HTTP":      {pod: with(func(c *corev1.Container) { c.LivenessProbe = probe(http) }), want: true},
		"liveness by TCP": {pod: with(func(c *corev1.Container) {
			c.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}})
		}), want: true},
		"liveness by gRPC":     {pod: with(func(c *corev1.Container) { c.LivenessProbe = probe(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}) }), want: true},
		"startup by HTTP":      {pod: with(func(c *corev1.Container) { c.StartupProbe = probe(http) }), want: true},
		"a sidecar's liveness": {pod: sidecar, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := RestartsWhenUnreachable(tc.pod); got != tc.want {
				t.Errorf("RestartsWhenUnreachable() = %v, want %v", got, tc.want)
			}
		})
	}
}
