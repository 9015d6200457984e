package isolation

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// sorts is a set of sorts of peers. Whether an address block holds the pods that have its addresses depends on the network plugin, so that pods come in two
// sorts, and neither stands for the other.
type sorts uint8

const (
	// podsByLabel are pods as label selectors see them.
	podsByLabel sorts = 1 << iota
	// podsByAddress are pods as address blocks see them.
	podsByAddress
	// outside are addresses outside the cluster.
	outside
	// nodes are nodes, what shares a node's network, and pods of other clusters: ends that are not pods of this one, and that a network plugin may know by other means than their
	// addresses, so that not every address block holds them.
	nodes

	// noPods are all ends that are not pods.
	noPods  = outside | nodes
	anyPod  = podsByLabel | podsByAddress
	anySort = anyPod | noPods
	// byAddress is what an address block stands for.
	byAddress = podsByAddress | noPods
)

// box is a set of flows in one direction that is a product: these peers, with these labels and these addresses, on these ports. A box that holds noPods has no
// labels, because only pods have them.
type box struct {
	sorts  sorts
	labels constraint
	addrs  addresses
	ports  portSet
	// text is how the author of a rule put the peers. It is lost when a part of them is taken away.
	text string
}

// allAddresses are those of IPv4 and of IPv6.
func allAddresses() addresses {
	return union(spanOf(netip.MustParsePrefix("0.0.0.0/0")), spanOf(netip.MustParsePrefix("::/0")))
}

var everyAddress = allAddresses()

// anyBox holds every flow.
func anyBox() box {
	return box{sorts: anySort, addrs: everyAddress, ports: everyPort(), text: textAnyPeer}
}

func (b box) empty() bool { return b.sorts == 0 || len(b.addrs) == 0 || b.ports.empty() }

// samePeers says whether two boxes differ in their ports at most.
func (b box) samePeers(o box) bool {
	return b.sorts == o.sorts && b.addrs.equal(o.addrs) && b.labels.equal(o.labels)
}

// intersect returns what is in both boxes; ok is false when that is nothing. A port that is known by name only may be any port of its protocol, so the result
// may be too large, but it is never too small.
func (b box) intersect(o box) (out box, ok bool) {
	out = b
	out.sorts &= o.sorts
	if out.sorts == 0 {
		return box{}, false
	}
	if len(b.labels)+len(o.labels) > 0 {
		out.sorts &^= noPods
		if out.labels, ok = b.labels.and(o.labels...); !ok {
			return box{}, false
		}
	}
	if out.addrs = b.addrs.intersect(o.addrs); len(out.addrs) == 0 {
		return box{}, false
	}
	out.ports = b.ports.intersect(o.ports)
	if !out.samePeers(b) {
		out.text = ""
	}
	return out, !out.empty()
}

// minus returns boxes that have nothing in common and together are b without o.
func (b box) minus(o box) []box {
	rest, overlap := b.intersect(o)
	if !overlap {
		return []box{b}
	}
	var out []box
	cut := func(part box) {
		if part.empty() {
			return
		}
		if !part.samePeers(b) {
			part.text = ""
		}
		out = append(out, part)
	}
	part := b
	part.sorts = b.sorts &^ rest.sorts
	cut(part)
	for _, l := range b.labels.minus(o.labels) {
		part = b
		part.sorts, part.labels = rest.sorts, l
		cut(part)
	}
	part = b
	part.sorts, part.labels, part.addrs = rest.sorts, rest.labels, b.addrs.minus(o.addrs)
	cut(part)
	part.addrs, part.ports = rest.addrs, b.ports.minus(o.ports)
	cut(part)
	return out
}

// maxBoxes bounds the work that policies made to cause much of it can cause.
const maxBoxes = 2048

// flows is a set of flows in one direction: the union of its boxes, which may overlap.
type flows []box

// minus takes other away. exact is false when that became too much work; the result is then too large, but never too small.
func (f flows) minus(other flows) (rest flows, exact bool) {
	rest = f
	for _, o := range other {
		var next flows
		for _, b := range rest {
			next = append(next, b.minus(o)...)
		}
		if len(next) > maxBoxes {
			return rest, false
		}
		rest = next
	}
	return rest, true
}

// intersect returns what is in f and in the box.
func (f flows) intersect(o box) flows {
	if len(f) == 1 && f[0].text == textAnyPeer && f[0].samePeers(everyFlow) && f[0].ports.everything() {
		return flows{o} // keeps the words of the rule's author
	}
	var out flows
	for _, b := range f {
		if both, ok := o.intersect(b); ok {
			out = append(out, both)
		}
	}
	return out.merge()
}

var everyFlow = anyBox()

// intersectAll returns what is in both sets.
func (f flows) intersectAll(other flows) flows {
	var out flows
	for _, o := range other {
		out = append(out, f.intersect(o)...)
	}
	return out
}

// merge joins boxes that differ in one respect only, so that it does not show in which order they came about.
func (f flows) merge() flows {
	out := slices.Clone(f)
	for merged := true; merged; {
		merged = false
		for i := 0; i < len(out); i++ {
			for j := i + 1; j < len(out); j++ {
				joined, ok := out[i].join(out[j])
				if !ok {
					continue
				}
				out[i] = joined
				out = slices.Delete(out, j, j+1)
				merged, j = true, i
			}
		}
	}
	return out
}

// join returns the union of two boxes if that is a box.
func (b box) join(o box) (box, bool) {
	sameAddrs, sameLabels, samePorts := b.addrs.equal(o.addrs), b.labels.equal(o.labels), b.ports.equal(o.ports)
	switch {
	case b.samePeers(o):
		b.ports = b.ports.union(o.ports)
	case samePorts && sameLabels && b.sorts == o.sorts:
		b.addrs, b.text = union(slices.Concat(b.addrs, o.addrs)...), ""
	case samePorts && sameLabels && sameAddrs && len(b.labels) == 0:
		b.sorts |= o.sorts
		b.text = ""
		if b.samePeers(everyFlow) {
			b.text = textAnyPeer
		}
	default:
		return box{}, false
	}
	return b, true
}

// peer says in words who the peers are.
func (b box) peer() string {
	if b.text != "" {
		return b.text
	}
	anyAddress := b.addrs.equal(everyAddress)
	if b.sorts&noPods != 0 {
		switch {
		case b.sorts == anySort && anyAddress:
			return textAnyPeer
		case b.sorts&noPods != noPods:
			return b.describePartly(anyAddress)
		case anyAddress && b.sorts == noPods:
			return "any address that is not a pod's"
		case anyAddress:
			return "any address"
		case b.sorts == noPods:
			return describeAddresses(b.addrs) + " (pods excluded)"
		}
		return describeAddresses(b.addrs)
	}
	text := describePods(b.labels)
	if !anyAddress {
		text += " with an address in " + strings.TrimPrefix(describeAddresses(b.addrs), "CIDR ")
	}
	return text
}

// describePartly is for boxes that hold nodes and nothing outside the cluster, or the reverse.
func (b box) describePartly(anyAddress bool) string {
	text := "any address outside the cluster"
	if b.sorts&nodes != 0 {
		text = "any node"
	}
	if b.sorts&anyPod != 0 {
		text = "any pod and " + text
	}
	if !anyAddress {
		text += " in " + strings.TrimPrefix(describeAddresses(b.addrs), "CIDR ")
	}
	return text
}

func describePods(c constraint) string {
	pods := describeOnlyPods(c)
	namespaces := c.text(ofNamespace)
	if name, found := strings.CutPrefix(namespaces, corev1.LabelMetadataName+"="); found && !strings.Contains(name, ",") {
		return pods + " in namespace " + name
	}
	if namespaces == "" {
		return "all namespaces / " + pods
	}
	return "namespaces " + namespaces + " / " + pods
}

// describeOnlyPods leaves out their namespaces.
func describeOnlyPods(c constraint) string {
	text := "all pods"
	if pods := c.text(ofPod); pods != "" {
		text = "pods " + pods
	}
	if accounts := c.text(ofServiceAccount); accounts != "" {
		text += " with ServiceAccount " + accounts
	}
	return text
}
