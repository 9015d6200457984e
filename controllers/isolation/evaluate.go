package isolation

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Direction is seen from the isolated pod.
type Direction string

const (
	// DirectionIngress is traffic to the pod.
	DirectionIngress Direction = Direction(networkingv1.PolicyTypeIngress)
	// DirectionEgress is traffic from the pod.
	DirectionEgress Direction = Direction(networkingv1.PolicyTypeEgress)
)

// Directions are both directions, in the order of results.
func Directions() []Direction { return []Direction{DirectionEgress, DirectionIngress} }

// Evaluate returns what the policies of the set still allow to and from the pod that no exception declares. No leak means that the pod is
// isolated, as far as network policies can do that: see [NotEnforceable] and [Residuals]. The result depends neither on the order in which policies were put
// into the set nor on that of the exceptions, and is sorted. There is one leak for each peer of a rule (a few more if only a part of its flows is left), and about 100 for a rule at most;
// callers that store leaks limit them further.
//
// pod must not be nil. Leaks are [StateLatent] unless somebody in peers matches; with nil peers that is not looked at, and every leak is [StateActive].
func Evaluate(pod *corev1.Pod, set *Set, exceptions []Exception, peers *Peers) []Leak {
	return peers.judge(pod, evaluateAll(pod, set, exceptions))
}

// open is a leak together with the flows that it describes.
type open struct {
	leak Leak
	box  box
}

// evaluateAll evaluates both directions. The result holds for every pod that has the same namespace, labels, ServiceAccount and ports.
func evaluateAll(pod *corev1.Pod, set *Set, exceptions []Exception) []open {
	var out []open
	for _, d := range Directions() {
		e := evaluation{pod: pod, set: set, direction: d}
		e.run()
		excused := declared(pod, d, exceptions)
		for _, f := range e.findings {
			out = append(out, f.leaks(e, excused)...)
		}
	}
	return out
}

// maxLeaksPerRule bounds the work that a rule made to cause much of it can cause. More leaks would not change the verdict.
const maxLeaksPerRule = 100

// evaluation answers for one direction.
type evaluation struct {
	pod       *corev1.Pod
	set       *Set
	direction Direction

	// findings are what is allowed, rule by rule.
	findings []finding
	// doubts are flows that something would have denied that may not be in effect.
	doubts []doubt
}

// finding is a set of flows that one rule, or the lack of any, allows.
type finding struct {
	policy *Policy // nil if nothing restricts the direction
	rule   rule
	flows  flows
	// undecided says why it is not certain that they are allowed.
	undecided string
}

// doubt is a set of flows that may be denied, and why that is not certain.
type doubt struct {
	flows flows
	why   string
}

// run goes through the tiers. What is left at the end nothing has decided, and so it is allowed.
func (e *evaluation) run() {
	rest := flows{anyBox()}
	for _, stage := range e.stages() {
		rest = e.runStage(stage, rest)
		if len(rest) == 0 {
			return
		}
	}
	e.findings = append(e.findings, finding{rule: rule{index: noRule, reason: ReasonNotSelected}, flows: rest})
}

// applied is a section of a policy that applies, or may apply, to the pod.
type applied struct {
	policy  *Policy
	section *section
	at      tier // where it is evaluated, once its tier has been looked up
	// isolates is that of the section, unless its tier passes on what no policy of it decides.
	isolates bool
	// doubt says why it is not certain that what it denies is denied; empty when it is.
	doubt   string
	invalid bool // nobody can read whom it selects
}

// stages groups what applies to the pod by tier, in order.
func (e *evaluation) stages() [][]applied {
	byTier := map[tier][]applied{}
	for p := range e.set.candidates(e.pod) {
		for _, s := range p.sections(e.direction) {
			if a, selected := e.apply(p, s); selected {
				place := tier{name: a.at.name, order: a.at.order}
				byTier[place] = append(byTier[place], a)
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(byTier), func(a, b tier) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.name, b.name))
	})
	out := make([][]applied, 0, len(order))
	for _, place := range order {
		out = append(out, byTier[place])
	}
	return out
}

func (e *evaluation) apply(p *Policy, s *section) (applied, bool) {
	a := applied{policy: p, section: s, at: s.tier, isolates: s.isolates}
	to := p.subject
	if s.subject != nil {
		to = *s.subject
	}
	switch {
	case to.invalid != "":
		a.invalid, a.doubt = true, fmt.Sprintf("%s of %s cannot be read", to.invalid, p.Ref)
	case !e.selected(to, false) && (to.undecided == "" || len(to.parts) > 0):
		return applied{}, false
	case to.undecided != "":
		a.doubt = fmt.Sprintf("whether %s applies to the pod cannot be decided: %s", p.Ref, to.undecided)
	case !e.selected(to, true):
		a.doubt = fmt.Sprintf("whether %s applies to the pod depends on the labels of its ServiceAccount, which are not known", p.Ref)
	case !e.set.effective(p):
		a.doubt = fmt.Sprintf("%s may not be in effect: %s", p.Ref, cmp.Or(p.notReported, "nothing shows that it is implemented"))
	}
	if s.tier.name != "" {
		t, known := e.set.tiers[s.tier.name]
		if !known {
			a.doubt = fmt.Sprintf("the order of tier %s, which %s belongs to, is not known", s.tier.name, p.Ref)
			t.Order = math.Inf(-1) // what it allows may come before everything that denies
		}
		a.at.order, a.isolates = t.Order, s.isolates && !t.DefaultPass
	}
	return a, true
}

// selected says whether the pod is one of the subject's or, with certainly, whether that is so whatever labels the pod's ServiceAccount has.
func (e *evaluation) selected(s subject, certainly bool) bool {
	namespace := e.set.namespaceLabels(e.pod.Namespace)
	return slices.ContainsFunc(s.parts, func(c constraint) bool {
		return c.matches(namespace, e.pod.Labels, e.pod.Spec.ServiceAccountName) && (!certainly || !c.asksAccountLabels())
	})
}

// outcome is what policies do with the flows that reach them.
type outcome struct {
	accepted []finding
	denied   flows
	passed   flows
	decided  flows // what rules certainly decide, whether it reaches them or not
	rest     flows // what no rule has decided
}

// runStage evaluates the policies of one tier and returns the flows that go on to the next.
func (e *evaluation) runStage(stage []applied, in flows) flows {
	slices.SortFunc(stage, func(a, b applied) int {
		return cmp.Or(cmp.Compare(a.at.priority, b.at.priority), a.policy.Ref.compare(b.policy.Ref))
	})
	rest, passed, isolates := in, flows(nil), false
	var unsure []string
	for _, a := range stage {
		if a.isolates && a.doubt == "" {
			isolates = true
		} else if a.isolates && !a.invalid {
			unsure = append(unsure, a.doubt)
		}
	}
	for len(stage) > 0 {
		n := 1
		for n < len(stage) && stage[n].at.priority == stage[0].at.priority {
			n++
		}
		out := e.runEqual(stage[:n], rest)
		rest, passed, stage = out.rest, append(passed, out.passed...), stage[n:]
		e.findings = append(e.findings, out.accepted...)
	}
	if isolates {
		return passed
	}
	if len(unsure) > 0 {
		e.doubts = append(e.doubts, doubt{flows: rest, why: unsure[0]})
	}
	return append(slices.Clone(rest), passed...)
}

// runEqual evaluates policies of the same priority. Where they contradict one another the API leaves open who wins: what one of them lets through then counts as let through, but not
// as certain.
func (e *evaluation) runEqual(equal []applied, in flows) outcome {
	if len(equal) == 1 {
		return e.runPolicy(equal[0], in)
	}
	outs := make([]outcome, 0, len(equal))
	var strict []int // those that can contradict others
	for i, a := range equal {
		outs = append(outs, e.runPolicy(a, in))
		if len(outs[i].denied)+len(outs[i].passed) > 0 {
			strict = append(strict, i)
		}
	}
	total := outcome{rest: in}
	for i, out := range outs {
		var opposed flows
		for _, j := range strict {
			if j == i {
				continue
			}
			opposed = slices.Concat(opposed, outs[j].denied, outs[j].passed)
			if both := out.passed.intersectAll(outs[j].denied); len(both) > 0 {
				why := fmt.Sprintf("%s and %s contradict one another at the same priority, and the order is undefined", equal[i].policy.Ref, equal[j].policy.Ref)
				e.doubts = append(e.doubts, doubt{flows: both, why: why})
			}
		}
		for _, f := range out.accepted {
			total.accepted = append(total.accepted, e.splitOpposed(f, opposed)...)
		}
		total.passed = append(total.passed, out.passed...)
		total.rest = e.subtract(total.rest, out.decided)
	}
	return total
}

// splitOpposed keeps apart the part of a finding that a policy of the same priority denies or passes on.
func (e *evaluation) splitOpposed(f finding, opposed flows) []finding {
	if len(opposed) == 0 || f.undecided != "" {
		return []finding{f}
	}
	conflict := f
	conflict.flows = f.flows.intersectAll(opposed)
	if len(conflict.flows) == 0 {
		return []finding{f}
	}
	conflict.undecided = fmt.Sprintf("another policy denies or passes on what %s allows, both have the same priority, and the order is undefined", f.policy.Ref)
	f.flows = e.subtract(f.flows, opposed)
	if len(f.flows) == 0 {
		return []finding{conflict}
	}
	return []finding{f, conflict}
}

// runPolicy applies the rules of one policy in their order.
func (e *evaluation) runPolicy(a applied, in flows) outcome {
	if a.invalid {
		// Whether it allows anything to this pod is unknown, so it does, and restricts nothing.
		r := rule{index: noRule, reason: ReasonInvalidSelector}
		return outcome{accepted: []finding{{policy: a.policy, rule: r, flows: in}}, rest: in}
	}
	out := outcome{rest: in}
	for _, r := range a.section.rules {
		matched := e.matched(r)
		hit := out.rest.intersectAll(matched)
		if len(hit) == 0 {
			continue
		}
		why := cmp.Or(r.doubt(a.policy), a.doubt)
		certain := why == "" && r.reason == "" && !r.inexact
		switch r.action {
		case accept:
			out.accepted = append(out.accepted, finding{policy: a.policy, rule: r, flows: hit, undecided: why})
			certain = certain && !a.section.additive
		case deny:
			if certain {
				out.denied = append(out.denied, hit...)
			} else {
				e.doubts = append(e.doubts, doubt{flows: hit, why: why})
			}
		case pass:
			out.passed = append(out.passed, hit...)
			if !certain {
				e.doubts = append(e.doubts, doubt{flows: hit, why: why})
			}
		}
		if certain {
			out.decided = append(out.decided, matched...)
			out.rest = e.subtract(out.rest, matched)
		}
	}
	return out
}

// matched returns the flows that the rule is about.
func (e *evaluation) matched(r rule) flows {
	set, err := r.ports.of(e.pod)
	if err != nil {
		set = everyPort() // parsed when the policy was read; only the pod can make it fail
	}
	if set.empty() {
		return nil
	}
	out := make(flows, 0, len(r.peers))
	for _, b := range r.peers {
		b.ports = set
		out = append(out, b)
	}
	return out
}

// doubt says why it is not certain that the rule matches all that it seems to match.
func (r rule) doubt(p *Policy) string {
	if r.undecided == "" {
		return ""
	}
	return fmt.Sprintf("%s of %s cannot be decided", r.undecided, p.Ref)
}

// subtract takes flows away. When that is too much work it takes nothing away and notes the doubt.
func (e *evaluation) subtract(from, what flows) flows {
	rest, exact := from.minus(what)
	if !exact {
		e.doubts = append(e.doubts, doubt{flows: rest, why: "the policies are too intricate to be evaluated exactly"})
	}
	return rest
}

// leaks says what is left of a finding after the exceptions have been taken away.
func (f finding) leaks(e evaluation, excused flows) []open {
	var out []open
	for _, b := range f.flows {
		if len(out) >= maxLeaksPerRule {
			break
		}
		rest, exact := b.unexcused(excused)
		if len(rest) == 0 {
			continue
		}
		why := f.undecided
		if why == "" && !exact {
			why = "the exceptions are too intricate to be evaluated exactly"
		}
		for _, part := range readable(b, rest.merge()) {
			out = append(out, open{leak: f.leak(e, part, cmp.Or(why, e.doubtAbout(part))), box: part})
		}
	}
	return out
}

// maxParts is how many parts of a peer are told apart for people.
const maxParts = 4

// readable bounds the number of parts into which exceptions and other policies have cut a rule's peer.
func readable(whole box, parts flows) flows {
	if len(parts) <= maxParts {
		return parts
	}
	all := whole
	all.text = "a part of: " + whole.peer()
	return flows{all}
}

// doubtAbout says why it is not certain that the flows are allowed.
func (e *evaluation) doubtAbout(b box) string {
	var all flows
	for _, d := range e.doubts {
		all = append(all, d.flows...)
	}
	if rest, exact := (flows{b}).minus(all); len(e.doubts) == 0 || exact && len(rest) > 0 {
		return ""
	}
	for _, d := range e.doubts {
		if len(d.flows.intersect(b)) > 0 {
			return d.why
		}
	}
	return ""
}

func (f finding) leak(e evaluation, b box, undecided string) Leak {
	l := Leak{
		Direction: e.direction,
		Rule:      f.rule.index,
		List:      f.rule.list,
		Peer:      clip(b.peer()),
		Ports:     clip(b.ports.String()),
		Reason:    cmp.Or(f.rule.reason, ReasonAllowRule),
		State:     StateActive,
		Undecided: clip(undecided),
	}
	if f.policy != nil {
		l.Source = f.policy.Ref
	}
	return l
}
