package remedy

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// Limits of ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
const (
	// maxTierRules is how many rules there can be for a direction, and how many ports in one of them.
	maxTierRules = 25
	// maxTierPriority is the last place in a tier; 0 is the first.
	maxTierPriority = 1000
	// maxRuleName is the length of a rule's name, in characters.
	maxRuleName = 100
)

// object is a JSON object.
type object = map[string]any

// TierName is the name of the cluster-scoped object that denies the Incident's pods everything, ahead of every NetworkPolicy.
func TierName(inc *v1alpha1.Incident) string { return measure.DenyPolicyName(inc) }

// ClusterNetworkPolicyDeny is the ClusterNetworkPolicy in the Admin tier that denies the pods that the Incident holds in the namespaces everything but the exceptions, which it passes on for the NetworkPolicies
// to decide. It goes before the policies of the tier that exist, whose priorities existing holds (AdminNetworkPolicies are in the same tier). An error says why there can be none.
//
// The API has no ingress peers but pods, so that what comes from outside the pod network stays with the NetworkPolicies, and a pod gets in under the address of an exception no more. To pass a flow on is to skip the
// other policies of the tier too: exceptions must be those that are open in every one of the namespaces, or one that a policy of the tier keeps closed could be opened.
func ClusterNetworkPolicyDeny(
	inc *v1alpha1.Incident, namespaces []string, exceptions []isolation.Exception, existing []int32,
) (*unstructured.Unstructured, error) {
	subject, err := tierSubject(inc, namespaces)
	if err != nil {
		return nil, err
	}
	priority, err := tierPriority(existing)
	if err != nil {
		return nil, err
	}
	everyPod := object{"namespaces": object{}}
	everywhere := object{"networks": []any{"0.0.0.0/0", "::/0"}}
	ingress, err := tierRules(isolation.DirectionIngress, namespaces, exceptions, everyPod)
	if err != nil {
		return nil, err
	}
	egress, err := tierRules(isolation.DirectionEgress, namespaces, exceptions, everyPod, everywhere)
	if err != nil {
		return nil, err
	}
	return tierObject(inc, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", object{
		"tier": "Admin", "priority": int64(priority), "subject": object{"pods": subject}, "ingress": ingress, "egress": egress,
	}), nil
}

// tierSubject are the pods that the Incident holds in the namespaces.
func tierSubject(inc *v1alpha1.Incident, namespaces []string) (object, error) {
	if len(namespaces) == 0 {
		return nil, errors.New("there is no namespace to deny anything in")
	}
	held := requirement(measure.QuarantineLabel(inc.UID), metav1.LabelSelectorOpExists)
	return object{"namespaceSelector": namespaceSelector(namespaces), "podSelector": selector(held)}, nil
}

func namespaceSelector(namespaces []string) object {
	return selector(requirement(corev1.LabelMetadataName, metav1.LabelSelectorOpIn, namespaces...))
}

func selector(requirements ...any) object { return object{"matchExpressions": requirements} }

// requirement is one of a label selector; the values are sorted, each of them once.
func requirement(key string, op metav1.LabelSelectorOperator, values ...string) object {
	out := object{"key": key, "operator": string(op)}
	if len(values) > 0 {
		out["values"] = list(slices.Compact(slices.Sorted(slices.Values(values))))
	}
	return out
}

func list(values []string) []any {
	out := make([]any, 0, len(values))
	for _, v := range values {
		out = append(out, v)
	}
	return out
}

// tierPriority is a place in the tier before all others. Of two policies at the same place it is not defined which one wins.
func tierPriority(existing []int32) (int32, error) {
	if len(existing) == 0 {
		return 0, nil
	}
	first := slices.Min(existing)
	if first <= 0 {
		return 0, errors.New("another policy of the Admin tier has priority 0 already, and nothing goes before that; give that policy a higher number")
	}
	return min(first-1, maxTierPriority), nil
}

// tierRules are the rules of a direction: those that pass the exceptions on, then the one that denies everything to the peers.
func tierRules(d isolation.Direction, namespaces []string, exceptions []isolation.Exception, peers ...any) ([]any, error) {
	end := "from"
	if d == isolation.DirectionEgress {
		end = "to"
	}
	var rules []any
	for _, e := range exceptions {
		// Addresses are no ingress peers: what comes from them is not denied, and so needs not be passed on.
		if e.Direction != d || e.Validate() != nil || d == isolation.DirectionIngress && e.Peer.IPBlock != nil {
			continue
		}
		peer, err := tierPeer(e, namespaces)
		if err != nil {
			return nil, err
		}
		ports, err := tierPorts(e)
		if err != nil {
			return nil, err
		}
		rule := object{"name": ruleName(e), "action": "Pass", end: []any{peer}}
		if len(ports) > 0 {
			rule["protocols"] = ports
		}
		rules = append(rules, rule)
	}
	rules = append(rules, object{"name": "quarantine", "action": "Deny", end: peers})
	if len(rules) > maxTierRules {
		return nil, fmt.Errorf("%d exceptions for %s and what denies the rest are more than the %d rules that a ClusterNetworkPolicy can have", len(rules)-1, d, maxTierRules)
	}
	return rules, nil
}

func ruleName(e isolation.Exception) string {
	runes := []rune("exception " + e.Name)
	return string(runes[:min(len(runes), maxRuleName)])
}

// tierPeer is the other end of an exception as the API has it.
func tierPeer(e isolation.Exception, namespaces []string) (object, error) {
	cannot := func(what string) error {
		return fmt.Errorf("exception %q cannot be expressed in a ClusterNetworkPolicy, which has %s", e.Name, what)
	}
	if block := e.Peer.IPBlock; block != nil {
		if len(block.Except) > 0 {
			return nil, cannot("no blocks of addresses with exceptions of their own")
		}
		return object{"networks": []any{block.CIDR}}, nil
	}
	var within object
	var err error
	switch {
	case e.Peer.NamespaceSelector != nil:
		within, err = unstructuredSelector(e.Peer.NamespaceSelector)
	case len(namespaces) > 1:
		err = cannot("no way to say \"the same namespace\" for pods of several; give it a namespaceSelector")
	default:
		within = namespaceSelector(namespaces)
	}
	if err != nil {
		return nil, err
	}
	if e.Peer.PodSelector == nil {
		return object{"namespaces": within}, nil
	}
	pods, err := unstructuredSelector(e.Peer.PodSelector)
	if err != nil {
		return nil, err
	}
	return object{"pods": object{"namespaceSelector": within, "podSelector": pods}}, nil
}

func unstructuredSelector(s *metav1.LabelSelector) (object, error) {
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err != nil {
		return nil, fmt.Errorf("writing a label selector: %w", err)
	}
	return out, nil
}

// tierPorts are the ports of an exception as the API has them; none stand for all.
func tierPorts(e isolation.Exception) ([]any, error) {
	if len(e.Ports) > maxTierRules {
		return nil, fmt.Errorf("exception %q has %d ports, which are more than the %d that a rule of a ClusterNetworkPolicy can have", e.Name, len(e.Ports), maxTierRules)
	}
	var out []any
	for _, p := range e.Ports {
		if p.Port != nil && p.Port.Type == intstr.String {
			return nil, fmt.Errorf("exception %q cannot be expressed in a ClusterNetworkPolicy, which has no named ports of one protocol; give it a number", e.Name)
		}
		out = append(out, tierPort(p))
	}
	return out, nil
}

func tierPort(p networkingv1.NetworkPolicyPort) object {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	key := map[corev1.Protocol]string{corev1.ProtocolTCP: "tcp", corev1.ProtocolUDP: "udp", corev1.ProtocolSCTP: "sctp"}[protocol]
	// Unlike in a NetworkPolicy, all ports of a protocol have to be spelt out, and a range has at least two.
	first, last := int64(1), int64(65535)
	if p.Port != nil {
		first, last = int64(p.Port.IntVal), int64(p.Port.IntVal)
		if p.EndPort != nil {
			last = int64(*p.EndPort)
		}
	}
	port := object{"number": first}
	if first < last {
		port = object{"range": object{"start": first, "end": last}}
	}
	return object{key: object{"destinationPort": port}}
}

// CiliumDeny is the CiliumClusterwideNetworkPolicy that denies the pods that the Incident holds in the namespaces everything, ahead of everything that allows. To Cilium a denial beats every rule that allows, so that
// a direction that has an exception is left out; if both have one, there is nothing to deny, which is an error. See https://docs.cilium.io/en/stable/security/policy/deny/. It needs Cilium to
// take the quarantine label into the identities of pods, as it does unless it is told to limit their labels.
//
// The entity "all" holds the pod's own node too, and Cilium lets a written denial win over its default of letting the node in: the kubelet's probes then fail over the network, and for a pod that
// [RestartsWhenUnreachable] it restarts containers, which loses what is in their memory.
func CiliumDeny(inc *v1alpha1.Incident, namespaces []string, exceptions []isolation.Exception) (*unstructured.Unstructured, error) {
	if len(namespaces) == 0 {
		return nil, errors.New("there is no namespace to deny anything in")
	}
	spec := object{
		"endpointSelector": selector(
			requirement("k8s:"+measure.QuarantineLabel(inc.UID), metav1.LabelSelectorOpExists),
			requirement("k8s:io.kubernetes.pod.namespace", metav1.LabelSelectorOpIn, namespaces...),
		),
	}
	excepted := func(d isolation.Direction) bool {
		return slices.ContainsFunc(exceptions, func(e isolation.Exception) bool { return e.Direction == d && e.Validate() == nil })
	}
	if !excepted(isolation.DirectionIngress) {
		spec["ingressDeny"] = []any{object{"fromEntities": []any{"all"}}}
	}
	if !excepted(isolation.DirectionEgress) {
		spec["egressDeny"] = []any{object{"toEntities": []any{"all"}}}
	}
	if len(spec) == 1 {
		return nil, errors.New("there are exceptions for both directions, and what a CiliumClusterwideNetworkPolicy denies nothing can except")
	}
	return tierObject(inc, "cilium.io/v2", "CiliumClusterwideNetworkPolicy", spec), nil
}

// RestartsWhenUnreachable says whether the kubelet restarts containers of the pod when it cannot reach them over the network: they have a liveness or a startup probe that does so.
func RestartsWhenUnreachable(pod *corev1.Pod) bool {
	overNetwork := func(p *corev1.Probe) bool {
		return p != nil && (p.HTTPGet != nil || p.TCPSocket != nil || p.GRPC != nil)
	}
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		return overNetwork(c.LivenessProbe) || overNetwork(c.StartupProbe)
	})
}

func tierObject(inc *v1alpha1.Incident, apiVersion, kind string, spec object) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: object{"spec": spec}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetName(TierName(inc))
	u.SetLabels(measure.OwnedLabels(inc))
	u.SetAnnotations(measure.OwnedAnnotations(inc))
	return u
}
