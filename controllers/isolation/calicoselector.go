package isolation

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Labels that Calico gives to pods, or takes over from their namespaces and ServiceAccounts ("Calico automatic labels" in its documentation). What stands for a namespace or a
// ServiceAccount has a prefix; users cannot give labels with these prefixes to their pods.
const (
	calicoNamespacePrefix = "pcns."
	calicoAccountPrefix   = "pcsa."

	calicoLabelNamespace    = "projectcalico.org/namespace"
	calicoLabelOrchestrator = "projectcalico.org/orchestrator"
	calicoLabelAccount      = "projectcalico.org/serviceaccount"
	// calicoLabelName is a label of namespaces and of ServiceAccounts.
	calicoLabelName = "projectcalico.org/name"

	calicoOrchestrator = "k8s"
)

const (
	// maxSelectorTerms bounds how many comparisons and parentheses of a selector are read, and how many requirements it may make.
	maxSelectorTerms = 256
	// maxAlternatives bounds of how many parts the pods that a selector selects are made up.
	maxAlternatives = 64
)

// errIntricate says that a selector goes beyond the bounds, so that it is not known whether it can be read.
var errIntricate = errors.New("it is too intricate")

// alternatives is a set of pods: the union of its parts.
type alternatives struct {
	parts []constraint
	// why says why the parts may hold more pods than are meant. Empty if they hold exactly those.
	why string
}

// everyPod holds all pods.
func everyPod() alternatives { return alternatives{parts: []constraint{nil}} }

// morePods holds all pods because it is not known which ones are meant.
func morePods(why string) alternatives { return alternatives{parts: []constraint{nil}, why: why} }

func (a alternatives) and(o alternatives) alternatives {
	out, size := alternatives{why: cmp.Or(a.why, o.why)}, 0
	for _, p := range a.parts {
		for _, q := range o.parts {
			more, fewer := p, q
			if len(p) < len(q) {
				more, fewer = q, p
			}
			both, ok := more.and(fewer...)
			if !ok {
				continue
			}
			out.parts = append(out.parts, both)
			if size += len(both); size > maxSelectorTerms || len(out.parts) > maxAlternatives {
				return intricate()
			}
		}
	}
	if len(out.parts) == 0 {
		return alternatives{} // whatever else it is, it is in both
	}
	return out
}

func (a alternatives) or(o alternatives) alternatives {
	why := cmp.Or(a.why, o.why)
	switch {
	case len(a.parts) == 0 || o.everything() && o.why == "":
		return o
	case len(o.parts) == 0 || a.everything() && a.why == "":
		return a
	case a.everything() || o.everything():
		return morePods(why)
	case len(a.parts)+len(o.parts) > maxAlternatives:
		return intricate()
	}
	return alternatives{parts: slices.Concat(a.parts, o.parts), why: why}
}

// everything says that the parts hold all pods.
func (a alternatives) everything() bool { return len(a.parts) == 1 && len(a.parts[0]) == 0 }

func intricate() alternatives { return morePods("it is too intricate") }

// podsLabelled returns the pods for which Calico sees one of the values for a label. The keys of labels of namespaces and ServiceAccounts have their prefixes. ok is false if no pod
// can be among them.
func podsLabelled(key string, v values) (c constraint, ok bool) {
	if label, found := strings.CutPrefix(key, calicoNamespacePrefix); found {
		if label == calicoLabelName || label == corev1.LabelMetadataName {
			return podsInNamespace(v)
		}
		return c.and(requirement{domain: ofNamespace, key: label, values: v})
	}
	if label, found := strings.CutPrefix(key, calicoAccountPrefix); found {
		c, ok = c.and(requirement{domain: ofServiceAccount, key: label, values: v})
		if !ok || label != calicoLabelName || v.absent {
			return c, ok
		}
		// The label has the name of the pod's ServiceAccount as its value, as long as that exists.
		return c.and(accountNamed(v))
	}
	switch key {
	case calicoLabelNamespace:
		return podsInNamespace(v)
	case calicoLabelAccount:
		return c.and(accountNamed(v))
	case calicoLabelOrchestrator:
		return nil, v.has(map[string]string{key: calicoOrchestrator}, key)
	}
	return c.and(requirement{domain: ofPod, key: key, values: v})
}

// podsInNamespace is for a label that every pod has.
func podsInNamespace(v values) (constraint, bool) {
	v.absent = v.negated // so that "any value" is no restriction
	return constraint(nil).and(requirement{domain: ofNamespace, key: corev1.LabelMetadataName, values: v})
}

// accountNamed turns the values of Calico's label into those of the name, which is empty for pods without a ServiceAccount. They have no such label.
func accountNamed(v values) requirement {
	list := slices.DeleteFunc(slices.Clone(v.list), func(s string) bool { return s == "" })
	if v.absent != v.negated {
		list = sorted(append(list, ""))
	}
	return requirement{domain: ofServiceAccount, key: serviceAccountName, values: values{absent: v.negated, negated: v.negated, list: list}}
}

// calicoSelector is an expression in the language of Calico's selectors.
type calicoSelector struct {
	// field is where it stands, prefix what has to be put before its keys.
	field, prefix string
	root          *selectorNode
}

// selectorNode is a part of an expression: one of the kinds below, with what belongs to it.
type selectorNode struct {
	kind  selectorKind
	nodes []*selectorNode // those that are joined or, for notNode, the one that is negated
	// For labelNode: the values that the label may have. With inside, these are those that a comparison looks into, without it being known which of them pass.
	key    string
	values values
	inside bool
}

type selectorKind int

const (
	allNode selectorKind = iota
	globalNode
	labelNode
	notNode
	andNode
	orNode
	// unreadNode stands for an expression that goes beyond the bounds.
	unreadNode
)

// pods returns the pods that the selector selects or, with negated, those that it does not select.
func (s calicoSelector) pods(negated bool) alternatives {
	out := s.root.pods(s.prefix, negated)
	if out.why != "" {
		out.why = fmt.Sprintf("%s (%s)", s.field, out.why)
	}
	return out
}

func (n *selectorNode) pods(prefix string, negated bool) alternatives {
	switch n.kind {
	case notNode:
		return n.nodes[0].pods(prefix, !negated)
	case andNode, orNode:
		join := alternatives.or
		if (n.kind == andNode) != negated { // negation turns one into the other
			join = alternatives.and
		}
		out := n.nodes[0].pods(prefix, negated)
		for _, m := range n.nodes[1:] {
			out = join(out, m.pods(prefix, negated))
		}
		return out
	case labelNode:
		return n.labelled(prefix, negated)
	case unreadNode:
		return intricate()
	case allNode, globalNode:
	}
	if (n.kind == allNode) == negated {
		return alternatives{} // what global() stands for is no pod
	}
	return everyPod()
}

func (n *selectorNode) labelled(prefix string, negated bool) alternatives {
	why, v := "", n.values
	switch {
	case n.inside && negated:
		return morePods("it looks into the value of label " + n.key)
	case n.inside:
		why = "it looks into the value of label " + n.key
	case negated:
		v = v.complement()
	}
	c, ok := podsLabelled(prefix+n.key, v)
	if !ok {
		return alternatives{}
	}
	return alternatives{parts: []constraint{c}, why: why}
}

// parseCalicoSelector reads a selector, by the grammar in the documentation of spec.selector of NetworkPolicy in projectcalico.org/v3. The empty one selects everything. global says that
// global() is allowed. An error says that it is no selector.
func parseCalicoSelector(field, prefix, text string, global bool) (calicoSelector, error) {
	s := calicoSelector{field: field, prefix: prefix, root: &selectorNode{kind: allNode}}
	p := selectorParser{rest: text, global: global}
	if p.skip(); p.rest == "" {
		return s, nil
	}
	root, err := p.joined(orNode)
	switch {
	case errors.Is(err, errIntricate):
		s.root = &selectorNode{kind: unreadNode}
		return s, nil
	case err != nil:
		return s, fmt.Errorf("reading %s: %w", field, err)
	case p.rest != "":
		return s, fmt.Errorf("reading %s: %w", field, p.unexpected("&& or ||"))
	}
	s.root = root
	return s, nil
}

// selectorParser reads an expression from its beginning. Every method leaves what follows, without blanks, in rest.
type selectorParser struct {
	rest   string
	terms  int
	global bool
}

func (p *selectorParser) skip() { p.rest = strings.TrimLeft(p.rest, " \t") }

// take takes words off the beginning, if they are all there. There may be blanks between them, but there need not be.
func (p *selectorParser) take(words ...string) bool {
	before := p.rest
	for _, word := range words {
		rest, found := strings.CutPrefix(p.rest, word)
		if !found {
			p.rest = before
			return false
		}
		p.rest = rest
		p.skip()
	}
	return true
}

func (p *selectorParser) unexpected(wanted string) error {
	if p.rest == "" {
		return fmt.Errorf("it ends where %s is expected", wanted)
	}
	return fmt.Errorf("there is no %s at %q", wanted, clip(p.rest))
}

// joined reads operands that are joined by || or, with andNode, by &&, which binds more tightly.
func (p *selectorParser) joined(kind selectorKind) (*selectorNode, error) {
	operand, operator := p.operand, "&&"
	if kind == orNode {
		operand, operator = func() (*selectorNode, error) { return p.joined(andNode) }, "||"
	}
	n := &selectorNode{kind: kind}
	for more := true; more; more = p.take(operator) {
		m, err := operand()
		if err != nil {
			return nil, err
		}
		n.nodes = append(n.nodes, m)
	}
	return n, nil
}

// operand reads what && joins.
func (p *selectorParser) operand() (*selectorNode, error) {
	if p.terms++; p.terms > maxSelectorTerms {
		return nil, errIntricate
	}
	negated := false
	for p.take("!") {
		negated = !negated
	}
	n, err := p.plain()
	if err == nil && negated {
		n = &selectorNode{kind: notNode, nodes: []*selectorNode{n}}
	}
	return n, err
}

// plain reads an operand without negation. Words that look like functions are labels unless a parenthesis follows at once.
func (p *selectorParser) plain() (*selectorNode, error) {
	n := &selectorNode{kind: allNode}
	switch {
	case p.take("("):
		inner, err := p.joined(orNode)
		if err != nil {
			return nil, err
		}
		n = inner
	case p.take("all("):
	case p.global && p.take("global("):
		n.kind = globalNode
	case p.take("has("):
		n.kind, n.key, n.values = labelNode, p.label(), present()
		if n.key == "" {
			return nil, p.unexpected("name of a label")
		}
	default:
		return p.comparison()
	}
	if !p.take(")") {
		return nil, p.unexpected("closing parenthesis")
	}
	return n, nil
}

// label reads the name of a label; it is empty if there is none.
func (p *selectorParser) label() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool { return !isLabelRune(r) })
	if end < 0 {
		end = len(p.rest)
	}
	name := p.rest[:end]
	p.take(name)
	return name
}

// isLabelRune says whether the name of a label can have the rune in it.
func isLabelRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_./-", r)
}

// comparison reads a label, an operator and what the label is compared with.
func (p *selectorParser) comparison() (*selectorNode, error) {
	n := &selectorNode{kind: labelNode, key: p.label()}
	if n.key == "" {
		return nil, p.unexpected("name of a label")
	}
	var err error
	one := func() values {
		var value string
		value, err = p.quoted()
		return oneOf(value)
	}
	switch {
	case p.take("=="):
		n.values = one()
	case p.take("!="):
		n.values = one().complement()
	case p.take("contains"), p.take("starts", "with"), p.take("ends", "with"):
		part := one()
		n.values, n.inside = present(), !part.equal(oneOf("")) // the empty string is in every value
	case p.take("not", "in"):
		n.values, err = p.set()
		n.values = n.values.complement()
	case p.take("in"):
		n.values, err = p.set()
	default:
		return nil, p.unexpected("operator")
	}
	return n, err
}

// set reads a list of values in braces. It may be empty, and may end with a comma.
func (p *selectorParser) set() (values, error) {
	if !p.take("{") {
		return values{}, p.unexpected("opening brace")
	}
	var list []string
	for more := true; more && !strings.HasPrefix(p.rest, "}"); more = p.take(",") {
		value, err := p.quoted()
		if err != nil {
			return values{}, err
		}
		list = append(list, value)
	}
	if !p.take("}") {
		return values{}, p.unexpected("closing brace")
	}
	return oneOf(list...), nil
}

// quoted reads a value. It ends with the quote that it begins with; nothing in it is escaped.
func (p *selectorParser) quoted() (string, error) {
	if p.rest == "" || !strings.ContainsRune("\"'", rune(p.rest[0])) {
		return "", p.unexpected("value in quotes")
	}
	value, rest, found := strings.Cut(p.rest[1:], p.rest[:1])
	if !found {
		return "", errors.New("a value has no closing quote")
	}
	p.rest = rest
	p.skip()
	return value, nil
}
