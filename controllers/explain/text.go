package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

// maxShown is how many items of a list are told to people before the others are counted.
const maxShown = 20

// headlines are the first words of a text, by verdict.
var headlines = map[v1alpha1.Verdict]string{
	v1alpha1.VerdictIsolated:       "ISOLATED",
	v1alpha1.VerdictLeaking:        "LEAKING",
	v1alpha1.VerdictNotEnforceable: "NOT ENFORCEABLE",
	v1alpha1.VerdictUnknown:        "UNKNOWN",
}

// WriteText writes the explanation for people: the verdict in the first line, then why, then the edits to make, then everything else.
func (x *PodExplanation) WriteText(w io.Writer) error {
	t := &text{}
	t.line(0, "%s: Pod %s/%s: %s", headlines[x.Verdict], x.Pod.Namespace, x.Pod.Name, x.Message)
	t.gaps("Not known, and decisive", x.NotLookedAt, true)
	t.leaks(x)
	t.notes(x.Notes)
	t.allowed(x)
	t.quarantine(x)
	t.exceptions(x.Exceptions)
	t.policies(x)
	t.routes("Routes to the pod", x.Routes)
	t.routes("Routes that led to the pod before its quarantine", x.RoutesBefore)
	t.residuals(x.Residuals)
	t.gaps("Not looked at, without bearing on the verdict", x.NotLookedAt, false)
	t.identity(x.Pod)
	_, err := io.WriteString(w, t.String())
	return err
}

// text is a text that is being written.
type text struct{ strings.Builder }

func (t *text) line(indent int, format string, args ...any) {
	fmt.Fprintf(t, strings.Repeat("  ", indent)+format+"\n", args...)
}

func (t *text) heading(title string) { t.line(0, "\n%s", title) }

// more counts what is not shown.
func (t *text) more(n int) {
	if n > 0 {
		t.line(1, "and %d more; -o yaml shows them", n)
	}
}

// shown returns the items that are shown, and how many are not.
func shown[T any](items []T) ([]T, int) {
	n := min(len(items), maxShown)
	return items[:n], len(items) - n
}

func (t *text) gaps(title string, all []Gap, decisive bool) {
	var these []Gap
	for _, g := range all {
		if g.Decisive == decisive {
			these = append(these, g)
		}
	}
	if len(these) == 0 {
		return
	}
	t.heading(title)
	some, rest := shown(these)
	for _, g := range some {
		t.line(1, "- %s: %s", g.What, g.Why)
	}
	t.more(rest)
}

func (t *text) leaks(x *PodExplanation) {
	if len(x.Ingress.Leaks)+len(x.Egress.Leaks) == 0 {
		return
	}
	t.heading("What is open, and the edit that closes it")
	number := 0
	for _, side := range []struct {
		name string
		Direction
	}{{"ingress from", x.Ingress}, {"egress to", x.Egress}} {
		some, rest := shown(side.Leaks)
		for _, l := range some {
			number++
			t.leak(number, side.name, l, x)
		}
		t.more(rest + side.MoreLeaks)
	}
	if x.Quarantine == nil {
		t.line(1, "Nobody holds the pod. To cut it off, declare an Incident that targets it.")
	}
}

func (t *text) leak(number int, side string, l Leak, x *PodExplanation) {
	t.line(1, "%d. %s %s on %s (%s)", number, side, l.Peer, l.Ports, state(l, x))
	t.line(2, " because %s", because(l))
	if l.Undecided != "" {
		t.line(2, " not certain: %s", l.Undecided)
	}
	t.line(2, " to close it: %s", l.Remedy)
}

// state says whether anybody can use a leak now, as far as anybody looked.
func state(l Leak, x *PodExplanation) string {
	if l.State == v1alpha1.LeakActive {
		return "active"
	}
	within := map[Scope]string{ScopeCluster: "in the cluster", ScopeFiles: "in the files", ScopeNamespace: "in namespace " + x.Pod.Namespace + ", and others were not looked at,"}
	return fmt.Sprintf("latent: no pod %s matches now", within[x.LatentWithin])
}

func because(l Leak) string {
	switch {
	case l.Policy == nil && l.Undecided != "":
		return "no policy that is certainly in effect restricts it"
	case l.Policy == nil:
		return "no policy restricts it"
	case l.Rule < 0:
		return fmt.Sprintf("of %s (%s)", l.Policy, l.Reason)
	}
	list := ""
	if l.List != "" {
		list = l.List + " "
	}
	why := ""
	if l.Reason != isolation.ReasonAllowRule {
		why = fmt.Sprintf(", which cannot be read (%s)", l.Reason)
	}
	return fmt.Sprintf("of %srule %d of %s%s", list, l.Rule, l.Policy, why)
}

// String names the policy for people: "NetworkPolicy shop/allow-web, generation 3".
func (p PolicyRef) String() string {
	out := p.Kind + " " + p.Name
	if p.Namespace != "" {
		out = p.Kind + " " + p.Namespace + "/" + p.Name
	}
	if p.Generation > 0 {
		out += fmt.Sprintf(", generation %d", p.Generation)
	}
	return out
}

func (t *text) notes(notes []string) {
	if len(notes) == 0 {
		return
	}
	t.heading("Notes")
	some, rest := shown(notes)
	for _, n := range some {
		t.line(1, "- %s", n)
	}
	t.more(rest)
}

func (t *text) allowed(x *PodExplanation) {
	if slices.ContainsFunc(x.NotLookedAt, func(g Gap) bool { return g.Decisive }) {
		t.heading("What the policies that were read allow now")
	} else {
		t.heading("What policies allow now")
	}
	t.line(1, "ingress from: %s", x.Ingress.Allowed)
	t.line(1, "egress to:    %s", x.Egress.Allowed)
	if x.Ingress.Before == "" {
		return
	}
	wider := func(d Direction) string {
		if d.Wider {
			return "   (less than now: quarantine must not widen anything, so see who changed what)"
		}
		return ""
	}
	t.heading("What the same policies, without those of Incidents, allow to the labels of before")
	t.line(1, "ingress from: %s%s", x.Ingress.Before, wider(x.Ingress))
	t.line(1, "egress to:    %s%s", x.Egress.Before, wider(x.Egress))
}

func (t *text) quarantine(x *PodExplanation) {
	q := x.Quarantine
	if q == nil {
		return
	}
	t.heading("Quarantine")
	for _, inc := range q.Incidents {
		switch {
		case inc.Name == "":
			t.line(1, "held by Incident %s: %s", inc.UID, inc.Problem)
		case inc.Problem != "":
			t.line(1, "held by Incident %s/%s, %q: %s", inc.Namespace, inc.Name, inc.Title, inc.Problem)
		default:
			t.line(1, "held by Incident %s/%s, %q, whose status says %s", inc.Namespace, inc.Name, inc.Title, inc.Verdict)
		}
	}
	if !q.Detached {
		t.line(1, "it kept its own labels")
		return
	}
	t.line(1, "its own labels were taken off: %s", cmp.Or(labels(q.LabelsBefore), "it had none"))
	if q.OwnerBefore != "" {
		t.line(1, "it belonged to %s", q.OwnerBefore)
	}
}

func (t *text) exceptions(all []Exception) {
	if len(all) == 0 {
		return
	}
	t.heading("Declared exceptions")
	some, rest := shown(all)
	for _, e := range some {
		state := string(e.State)
		if state == "" {
			state = "not open, as far as the Incident says"
		}
		t.line(1, "- %s: %s %s; by Incident %s: %s", e.Name, strings.ToLower(string(e.Direction)), e.Flows, e.Incident, state)
	}
	t.more(rest)
}

func (t *text) policies(x *PodExplanation) {
	t.heading("Policies that select the pod, and what each would leave open by itself")
	some, rest := shown(x.Policies)
	for _, p := range some {
		t.line(1, "- %s", p.PolicyRef)
		t.line(2, "ingress: %s; egress: %s", p.Ingress, p.Egress)
		if p.Undecided != "" {
			t.line(2, "not certain: %s", p.Undecided)
		}
	}
	if len(some) == 0 {
		t.line(1, "none")
	}
	t.more(rest + x.MorePolicies)
}

func (t *text) routes(title string, all []Route) {
	if len(all) == 0 {
		return
	}
	t.heading(title)
	some, rest := shown(all)
	for _, r := range some {
		t.line(1, "- %s", r)
	}
	t.more(rest)
}

// String describes the route for people: "Ingress shop/web (host shop.example) via Service web".
func (r Route) String() string {
	out := r.Kind + " " + r.Name
	if r.Namespace != "" {
		out = r.Kind + " " + r.Namespace + "/" + r.Name
	}
	if r.Detail != "" {
		out += " (" + r.Detail + ")"
	}
	if r.Via != "" {
		out += " via " + r.Via
	}
	return out
}

func (t *text) residuals(all []Residual) {
	if len(all) == 0 {
		return
	}
	t.heading("What this answer does not cover")
	for _, r := range all {
		t.line(1, "- %s: %s", r.Name, r.Meaning)
	}
}

func (t *text) identity(p PodIdentity) {
	t.heading("The pod")
	for _, field := range [][2]string{
		{"name", p.Namespace + "/" + p.Name}, {"uid", p.UID}, {"phase", p.Phase}, {"node", p.Node}, {"IPs", strings.Join(p.IPs, ", ")}, {"labels", labels(p.Labels)},
	} {
		if field[1] != "" {
			t.line(1, "%-7s %s", field[0]+":", field[1])
		}
	}
}

// labels are written as kubectl does: "app=web,tier=front".
func labels(all map[string]string) string {
	parts := make([]string, 0, len(all))
	for _, key := range sortedKeys(all) {
		parts = append(parts, key+"="+all[key])
	}
	some, rest := shown(parts)
	out := strings.Join(some, ",")
	if rest > 0 {
		out += fmt.Sprintf(" and %d more", rest)
	}
	return out
}
