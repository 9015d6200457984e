package isolation

import (
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	// kindCiliumClusterwide is the kind of cilium.io that applies in all namespaces; the other one applies in its own.
	kindCiliumClusterwide = "CiliumClusterwideNetworkPolicy"
	// conditionValid is the one condition that Cilium writes (from 1.16 on).
	conditionValid = "Valid"
)

// ciliumSpec is a set of rules: the spec, or an element of the specs, of both kinds of cilium.io/v2.
type ciliumSpec struct {
	EndpointSelector *metav1.LabelSelector `json:"endpointSelector"`
	NodeSelector     *metav1.LabelSelector `json:"nodeSelector"`

	Ingress     []ciliumRule   `json:"ingress"`
	IngressDeny []ciliumRule   `json:"ingressDeny"`
	Egress      []ciliumEgress `json:"egress"`
	EgressDeny  []ciliumEgress `json:"egressDeny"`

	EnableDefaultDeny struct {
		Ingress *bool `json:"ingress"`
		Egress  *bool `json:"egress"`
	} `json:"enableDefaultDeny"`

	// These are for people and for logs.
	Labels      json.RawMessage `json:"labels"`
	Description json.RawMessage `json:"description"`
	Log         json.RawMessage `json:"log"`
}

// ciliumRule is a rule of any of the four lists.
type ciliumRule struct {
	Endpoints []metav1.LabelSelector `json:"fromEndpoints"`
	Nodes     []metav1.LabelSelector `json:"fromNodes"`
	CIDR      []string               `json:"fromCIDR"`
	CIDRSet   []ciliumCIDR           `json:"fromCIDRSet"`
	Entities  []string               `json:"fromEntities"`
	Groups    []json.RawMessage      `json:"fromGroups"`
	Requires  []json.RawMessage      `json:"fromRequires"`
	Services  []json.RawMessage      `json:"-"`
	FQDNs     []ciliumFQDN           `json:"-"`

	ToPorts        []ciliumPorts         `json:"toPorts"`
	ICMPs          []json.RawMessage     `json:"icmps"`
	Authentication *ciliumAuthentication `json:"authentication"`
}

// ciliumEgress has the fields of ciliumRule under the names that they have for egress.
type ciliumEgress struct {
	Endpoints []metav1.LabelSelector `json:"toEndpoints"`
	Nodes     []metav1.LabelSelector `json:"toNodes"`
	CIDR      []string               `json:"toCIDR"`
	CIDRSet   []ciliumCIDR           `json:"toCIDRSet"`
	Entities  []string               `json:"toEntities"`
	Groups    []json.RawMessage      `json:"toGroups"`
	Requires  []json.RawMessage      `json:"toRequires"`
	Services  []json.RawMessage      `json:"toServices"`
	FQDNs     []ciliumFQDN           `json:"toFQDNs"`

	ToPorts        []ciliumPorts         `json:"toPorts"`
	ICMPs          []json.RawMessage     `json:"icmps"`
	Authentication *ciliumAuthentication `json:"authentication"`
}

type ciliumCIDR struct {
	CIDR          string          `json:"cidr"`
	GroupRef      string          `json:"cidrGroupRef"`
	GroupSelector json.RawMessage `json:"cidrGroupSelector"`
	Except        []string        `json:"except"`
}

type ciliumFQDN struct {
	MatchName    string `json:"matchName"`
	MatchPattern string `json:"matchPattern"`
}

type ciliumAuthentication struct {
	Mode string `json:"mode"`
}

// ciliumPorts is an element of toPorts. All but the ports narrow what a connection on them may be used for.
type ciliumPorts struct {
	Ports          []ciliumPort    `json:"ports"`
	TerminatingTLS json.RawMessage `json:"terminatingTLS"`
	OriginatingTLS json.RawMessage `json:"originatingTLS"`
	ServerNames    json.RawMessage `json:"serverNames"`
	Listener       json.RawMessage `json:"listener"`
	Rules          json.RawMessage `json:"rules"`
}

type ciliumPort struct {
	Port     string `json:"port"`
	EndPort  int32  `json:"endPort"`
	Protocol string `json:"protocol"`
}

// readCilium reads a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy of cilium.io/v2. Its rules add up with those of NetworkPolicies, and what it denies comes before all that such
// rules allow (Cilium's documentation, "Deny Policies").
//
// An object that Cilium would refuse is undecided as a whole: Cilium then goes on with the last state of it that it did not refuse, and nobody can know that one.
//
// Which labels Cilium looks at can be configured. What is read here holds for its default ("Limiting Identity-Relevant Labels"), and labels that the default leaves out are undecided.
// Replies to what a peer has begun pass in spite of any rule of Cilium's; they are no flows of their own here, as with every other kind.
func readCilium(u *unstructured.Unstructured) *Policy {
	ref := refOf(u)
	status, invalid := ciliumEffect(u)
	if invalid {
		return undecidedPolicy(ref, "status.conditions", errors.New("this state of it is invalid to Cilium, which may go on with an earlier one"))
	}
	p, err := readCiliumSpecs(u, ref)
	if refused, ok := errors.AsType[*refusedField](err); ok {
		return undecidedPolicy(ref, refused.field, refused.why)
	}
	p.reported, p.refused, p.notReported = status.reported, status.refused, status.why
	return p
}

// refusedField is a field because of which Cilium refuses an object, or that this package cannot read.
type refusedField struct {
	field string
	why   error
}

// Error names the field and what is wrong with it.
func (e *refusedField) Error() string { return fmt.Sprintf("%s: %v", e.field, e.why) }

func refuse(field, format string, args ...any) error {
	return &refusedField{field: field, why: fmt.Errorf(format, args...)}
}

// ciliumEffect says whether an object is in effect, which is so if its condition Valid is True: Cilium's operator has validated it as the agents do. That is the operator's word and not a
// datapath's, and Cilium does not say which generation it was about, so that for a moment after an edit the word may be about the state before. invalid says that the condition is False.
func ciliumEffect(u *unstructured.Unstructured) (e effect, invalid bool) {
	conditions, err := conditionsOf(u)
	if err != nil {
		return effect{refused: true, why: "status.conditions cannot be read"}, false
	}
	e.why = "Cilium has not reported that it is valid (status.conditions has no condition Valid)"
	for _, c := range conditions {
		switch {
		case c.Type == conditionValid && c.Status == metav1.ConditionFalse:
			return effect{}, true
		case e.refused:
		case c.Status != metav1.ConditionTrue:
			e.refuse(fmt.Sprintf("its condition %s is not True", c.Type))
		case c.ObservedGeneration != 0 && c.ObservedGeneration != u.GetGeneration():
			e.refuse(fmt.Sprintf("its condition %s is about generation %d of it, and there is generation %d", c.Type, c.ObservedGeneration, u.GetGeneration()))
		case c.Type != conditionValid:
			e.refuse(fmt.Sprintf("its condition %s is True, and what that type means is not known", c.Type))
		default:
			e.reported = true
		}
	}
	if e.reported {
		e.why = ""
	}
	return e, false
}

// ciliumSet is a set of rules and where it is in its object.
type ciliumSet struct {
	path string
	ciliumSpec
}

// ciliumSets reads all that the object says; an object can have a spec and specs.
func ciliumSets(u *unstructured.Unstructured) ([]ciliumSet, error) {
	var out []ciliumSet
	add := func(path string, part any) error {
		set := ciliumSet{path: path}
		if part == nil {
			return refuse(path, "there is none")
		}
		if field, err := decodePart(path, part, &set.ciliumSpec); err != nil {
			return refuse(field, "%w", err)
		}
		out = append(out, set)
		return nil
	}
	if spec, found := u.Object["spec"]; found {
		if err := add("spec", spec); err != nil {
			return nil, err
		}
	}
	if specs, found := u.Object["specs"]; found {
		list, ok := specs.([]any)
		if !ok {
			return nil, refuse("specs", "it is not a list")
		}
		for i, spec := range list {
			if err := add(fmt.Sprintf("specs[%d]", i), spec); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		return nil, refuse("spec", "there is none")
	}
	return out, nil
}

func readCiliumSpecs(u *unstructured.Unstructured, ref Ref) (*Policy, error) {
	sets, err := ciliumSets(u)
	if err != nil {
		return nil, err
	}
	r := ciliumReader{namespace: ref.Namespace, clusterwide: ref.Kind == kindCiliumClusterwide}
	if !r.clusterwide && r.namespace == "" {
		return nil, refuse("metadata.namespace", "there is none")
	}
	p := &Policy{Ref: ref}
	for _, set := range sets {
		s, err := r.subject(set)
		if err != nil {
			return nil, err
		}
		var own *subject
		if len(sets) > 1 {
			own = &s
		}
		if err := r.addSections(p, set, own); err != nil {
			return nil, err
		}
		p.subject.parts = append(p.subject.parts, s.parts...)
		if p.subject.undecided == "" {
			p.subject.undecided = s.undecided
		}
	}
	return p, nil
}

// addSections adds what a set of rules says. own is its subject if the policy has others.
//
// Any rule in one of the two lists of a direction puts it into default deny, unless enableDefaultDeny says otherwise; a list without elements does not, and enableDefaultDeny alone does not
// either (Cilium's documentation, "Policy Enforcement Modes" and "Deny Policies", and rule validation of Cilium 1.15 and 1.20). An empty rule allows nothing, but is a rule.
func (r ciliumReader) addSections(p *Policy, set ciliumSet, own *subject) error {
	for _, d := range Directions() {
		side := set.side(d)
		if len(side.allow)+len(side.deny) == 0 {
			continue
		}
		allowed := &section{tier: tier{order: orderDefault, priority: priorityNetworkPolicy}, additive: true, isolates: side.isolates, subject: own}
		denied := &section{tier: tier{order: orderDeny}, additive: true, subject: own}
		list := ""
		if len(set.path) > len("spec") {
			list = set.path + "." + side.list
		}
		if err := r.addRules(allowed, d, accept, set.path+"."+side.list, list, side.allow); err != nil {
			return err
		}
		if err := r.addRules(denied, d, deny, set.path+"."+side.list+"Deny", set.path+"."+side.list+"Deny", side.deny); err != nil {
			return err
		}
		p.addSection(d, allowed)
		if len(denied.rules) > 0 {
			p.addSection(d, denied)
		}
	}
	return nil
}

// ciliumSide is what a set of rules says of one direction.
type ciliumSide struct {
	// list is the name of the list of what is allowed; that of what is denied has Deny after it.
	list        string
	allow, deny []ciliumRule
	isolates    bool
}

func (s ciliumSpec) side(d Direction) ciliumSide {
	enabled := func(b *bool) bool { return b == nil || *b }
	if d == DirectionIngress {
		return ciliumSide{list: "ingress", allow: s.Ingress, deny: s.IngressDeny, isolates: enabled(s.EnableDefaultDeny.Ingress)}
	}
	side := ciliumSide{list: "egress", isolates: enabled(s.EnableDefaultDeny.Egress)}
	for _, e := range s.Egress {
		side.allow = append(side.allow, ciliumRule(e))
	}
	for _, e := range s.EgressDeny {
		side.deny = append(side.deny, ciliumRule(e))
	}
	return side
}

// addRules reads a list of rules; path is where it is, list its name in leaks.
func (r ciliumReader) addRules(s *section, d Direction, act action, path, list string, rules []ciliumRule) error {
	requires := false
	for _, in := range rules {
		requires = requires || len(in.Requires) > 0
	}
	for i, in := range rules {
		c := ciliumContext{ciliumReader: r, direction: d, action: act, field: fmt.Sprintf("%s[%d]", path, i)}
		ends, err := c.ends(in, requires)
		if err != nil {
			return err
		}
		on, err := c.ports(in)
		if err != nil {
			return err
		}
		s.rules = append(s.rules, c.combine(rule{index: i, list: list, action: act}, ends, on)...)
	}
	return nil
}

// fit says how well something that was read stands for what Cilium does.
type fit int

const (
	// fitExact is what Cilium matches, all of it and nothing else.
	fitExact fit = iota
	// fitWeak is the same, but ends that this package takes for the same may slip through where it denies.
	fitWeak
	// fitSome is more than Cilium matches.
	fitSome
	// fitUnknown may be matched or not.
	fitUnknown
)

// combine makes rules of who is at the other end and of the ports. Parts that fit differently become rules of their own, with the same index. An allow rule of which something is certain
// is a leak; a deny rule counts only where it is exact.
func (c ciliumContext) combine(base rule, ends []ciliumEnd, on []ciliumOn) []rule {
	var out []rule
	for _, o := range on {
		first := len(out)
		for _, e := range ends {
			one, worst, field := base, e.fit, e.field
			if o.fit > worst {
				worst, field = o.fit, o.field
			}
			switch {
			case c.action == accept && worst == fitSome:
				one.inexact = true
			case c.action == accept && worst == fitUnknown, c.action == deny && worst > fitExact:
				one.undecided = field
			}
			one.ports = o.ports
			out = joinRule(out, first, one, e.box)
		}
	}
	return out
}

// joinRule adds the box to a rule from first on that is like one, or to one.
func joinRule(out []rule, first int, one rule, b box) []rule {
	for i := first; i < len(out); i++ {
		if out[i].undecided == one.undecided && out[i].inexact == one.inexact {
			out[i].peers = append(out[i].peers, b)
			return out
		}
	}
	one.peers = []box{b}
	return append(out, one)
}
