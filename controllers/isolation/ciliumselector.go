package isolation

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Keys that Cilium gives to what is no label of a pod (Cilium's documentation, "Kubernetes Constructs in Policy").
const (
	ciliumNamespace       = "io.kubernetes.pod.namespace"
	ciliumNamespaceLabels = "io.cilium.k8s.namespace.labels."
	ciliumServiceAccount  = "io.cilium.k8s.policy.serviceaccount"
	ciliumCluster         = "io.cilium.k8s.policy.cluster"
	// ciliumOwn is the start of all keys of Cilium's own.
	ciliumOwn = "io.cilium."
)

// Sources of labels, which come before a key and a colon. Without one a key stands for labels of any source.
const (
	sourceAny        = "any"
	sourceKubernetes = "k8s"
	sourceReserved   = "reserved"
)

var ciliumSource = regexp.MustCompile(`^[A-Za-z0-9]+$`)

// ciliumLeftOut are the starts of the keys of labels that, by default, Cilium does not look at ("Limiting Identity-Relevant Labels").
func ciliumLeftOut() []string {
	return []string{
		"io.kubernetes", "kubernetes.io", "k8s.io", "topology.kubernetes.io", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
		"batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/controller-uid", "pod-template-generation", "pod-template-hash", "controller-revision-hash", "controller-uid",
		"annotation", "etcd_node",
	}
}

// ciliumLabels is what a selector of Cilium's asks for.
type ciliumLabels struct {
	// pods are the pods that meet it; none says that there can be no such pod.
	pods constraint
	none bool
	// onlyPods says that nobody but pods can meet it. Selectors are about all ends that Cilium knows, nodes and the outside world too, and these have hardly any labels.
	onlyPods bool
	// byName and byLabels say that it names namespaces.
	byName, byLabels bool
	// reserved are the labels that only ends have that are not pods.
	reserved []requirement
	// unsure is a label of which nobody can tell whether Cilium sees it; pods may then be too many.
	unsure string
	// size is the number of requirements.
	size int
}

// readCiliumSelector reads a selector at path.
func readCiliumSelector(path string, in *metav1.LabelSelector) (ciliumLabels, error) {
	var out ciliumLabels
	for _, key := range slices.Sorted(maps.Keys(in.MatchLabels)) {
		if err := out.add(metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{in.MatchLabels[key]}}); err != nil {
			return ciliumLabels{}, refuse(path+".matchLabels", "%w", err)
		}
	}
	for _, e := range in.MatchExpressions {
		if err := out.add(e); err != nil {
			return ciliumLabels{}, refuse(path+".matchExpressions", "%w", err)
		}
	}
	return out, nil
}

func (l *ciliumLabels) add(in metav1.LabelSelectorRequirement) error {
	source, key, found := strings.Cut(in.Key, ":")
	if !found {
		source, key = sourceAny, in.Key
	}
	if !ciliumSource.MatchString(source) {
		return errors.New("the source of a label is not a word")
	}
	in.Key = key
	parsed, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}})
	if err != nil {
		return err
	}
	requirements, _ := parsed.Requirements()
	v, err := valuesOf(requirements[0])
	if err != nil {
		return err
	}
	l.size++
	l.require(source, key, v)
	return nil
}

func (l *ciliumLabels) require(source, key string, v values) {
	label, ofNamespaces := strings.CutPrefix(key, ciliumNamespaceLabels)
	switch {
	case source == sourceReserved:
		l.reserved = append(l.reserved, requirement{domain: ofPod, key: key, values: v})
		return
	case source != sourceAny && source != sourceKubernetes, key == ciliumCluster:
		l.unsure = source + ":" + key
		return
	case key == ciliumNamespace:
		l.byName = true
		l.always(requirement{domain: ofNamespace, key: corev1.LabelMetadataName, values: v})
	case ofNamespaces && label == corev1.LabelMetadataName:
		l.byLabels = true
		l.always(requirement{domain: ofNamespace, key: label, values: v})
	case ofNamespaces:
		l.byLabels = true
		l.and(requirement{domain: ofNamespace, key: label, values: v})
	case key == ciliumServiceAccount:
		l.always(requirement{domain: ofServiceAccount, key: serviceAccountName, values: v})
	case unseen(key):
		l.unsure = key
		if !v.absent {
			l.and(requirement{domain: ofPod, key: key, values: v}) // if Cilium does not see the label, nobody has it
		}
		return
	default:
		l.and(requirement{domain: ofPod, key: key, values: v})
		if source == sourceAny {
			return // nodes can have labels too
		}
	}
	l.onlyPods = l.onlyPods || !v.absent
}

// unseen says whether Cilium, by default, does not look at labels with the key, or whether it may be a label of Cilium's own.
func unseen(key string) bool {
	starts := func(start string) bool { return strings.HasPrefix(key, start) }
	return starts(ciliumOwn) || strings.Contains(key, "beta.kubernetes.io") || slices.ContainsFunc(ciliumLeftOut(), starts)
}

func (l *ciliumLabels) and(r requirement) {
	c, ok := l.pods.and(r)
	if !ok {
		l.none = true
		return
	}
	l.pods = c
}

// always adds a requirement on something that every pod has.
func (l *ciliumLabels) always(r requirement) {
	if r.values.equal(present()) {
		return
	}
	if r.values.equal(present().complement()) {
		l.none = true
		return
	}
	l.and(r)
}

// ciliumReader reads one object.
type ciliumReader struct {
	namespace   string
	clusterwide bool
	// startup says that the set of rules being read says something of pods that Cilium does not know yet. A selector of peers in a clusterwide policy is then about all ends.
	startup bool
}

// subject reads to which pods a set of rules applies.
func (r *ciliumReader) subject(set ciliumSet) (subject, error) {
	field := set.path + ".endpointSelector"
	switch {
	case (set.EndpointSelector == nil) == (set.NodeSelector == nil):
		return subject{}, refuse(field, "there has to be either this or nodeSelector")
	case set.NodeSelector != nil && !r.clusterwide:
		return subject{}, refuse(set.path+".nodeSelector", "only a %s can have it", kindCiliumClusterwide)
	case set.NodeSelector != nil:
		_, err := readCiliumSelector(set.path+".nodeSelector", set.NodeSelector)
		return subject{}, err // a node's own network is no pod's
	}
	l, err := readCiliumSelector(field, set.EndpointSelector)
	if err != nil {
		return subject{}, err
	}
	r.startup = slices.ContainsFunc(l.reserved, func(l requirement) bool { return l.key == "init" })
	for _, reserved := range l.reserved {
		switch {
		case reserved.values.absent: // no pod has it
		case slices.Contains(neverPods(), reserved.key):
			l.none = true
		default:
			l.unsure = sourceReserved + ":" + reserved.key
		}
	}
	if l.none {
		return subject{}, nil
	}
	out := subject{parts: []constraint{l.pods}}
	if l.unsure != "" {
		out.undecided = field + ": whether Cilium sees label " + l.unsure + " on pods is not known"
	}
	if r.clusterwide {
		return out, nil
	}
	c, ok := l.pods.and(inNamespace(r.namespace))
	if !ok {
		// Cilium puts the policy's own namespace in the place of the other one, in some ways of writing it, and warns.
		return subject{undecided: field + ": it names another namespace"}, nil
	}
	out.parts[0] = c
	return out, nil
}

// neverPods are the reserved labels that no pod of Cilium's has, at any time of its life.
func neverPods() []string {
	return []string{"health", "host", "ingress", "kube-apiserver", "none", "remote-node", "unmanaged", "world", "world-ipv4", "world-ipv6"}
}
