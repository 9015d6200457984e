package preview

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// WriteText writes the preview for people.
func (p *Preview) WriteText(w io.Writer) error {
	var b strings.Builder
	state := "has not begun"
	if p.Begun {
		state = "is under way; people approve digest " + p.Digest
	}
	fmt.Fprintf(&b, "Recovery of Incident %s by RecoveryPlan %s: it %s.\n", p.Incident, cmp.Or(p.Plan, "(none)"), state)
	for _, c := range p.Choices {
		fmt.Fprintf(&b, "  chosen for step %s: %s %s", c.Step, c.Object.Kind, c.Object.Name)
		if c.Source.Name != "" {
			fmt.Fprintf(&b, " from %s %s", c.Source.Kind, c.Source.Name)
		}
		fmt.Fprintf(&b, " (%s)\n", c.Why)
	}
	if len(p.Steps) > 0 {
		b.WriteString("\nSteps\n")
	}
	for _, s := range p.Steps {
		p.writeStep(&b, s)
	}
	p.writeObstacles(&b)
	p.writeEstimate(&b)
	// What was read may hold anything; each line is cleaned by itself.
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, explain.Clean(strings.TrimSuffix(line, "\n"))+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func (p *Preview) writeStep(b *strings.Builder, s Step) {
	fmt.Fprintf(b, "  %s: %s", s.Name, s.Action)
	if len(s.DependsOn) > 0 {
		fmt.Fprintf(b, ", after %s", strings.Join(s.DependsOn, ", "))
	}
	if s.Takes.Duration > 0 {
		fmt.Fprintf(b, ", about %s", s.Takes.Round(time.Second))
	}
	if s.State != "" {
		fmt.Fprintf(b, " [%s]", s.State)
	}
	b.WriteString("\n")
	if s.Says != "" {
		fmt.Fprintf(b, "      %s\n", s.Says)
	}
	for _, c := range s.Changes {
		fmt.Fprintf(b, "      %s %s: %s: %s", c.Verb, nameOf(c.Object), c.Detail, c.Tried)
		if c.Why != "" {
			fmt.Fprintf(b, " (%s)", c.Why)
		}
		b.WriteString("\n")
		for _, field := range c.Fields {
			fmt.Fprintf(b, "        %s\n", field)
		}
	}
}

func (p *Preview) writeObstacles(b *strings.Builder) {
	b.WriteString("\nIn the way\n")
	if len(p.Obstacles)+len(p.Unread) == 0 {
		b.WriteString("  nothing that can be seen from here\n")
	}
	for _, what := range p.Unread {
		b.WriteString("  UNREAD " + what + "\n")
	}
	for _, o := range p.Obstacles {
		weight := "note  "
		if o.Blocks {
			weight = "BLOCKS"
		}
		fmt.Fprintf(b, "  %s ", weight)
		if o.Object.Name != "" {
			fmt.Fprintf(b, "%s: ", nameOf(o.Object))
		}
		b.WriteString(o.Says + "\n")
	}
}

func (p *Preview) writeEstimate(b *strings.Builder) {
	if len(p.Steps) == 0 {
		return
	}
	fmt.Fprintf(b, "\nEstimate: about %s", p.Estimate.Total.Round(time.Second))
	if p.Estimate.Approvals > 0 {
		fmt.Fprintf(b, ", and the time that %d approvals take", p.Estimate.Approvals)
	}
	b.WriteString("; how long volumes and jobs take is a guess\n")
	for _, d := range p.Estimate.Downtime {
		length := "for good"
		if d.For.Duration > 0 {
			length = "about " + d.For.Round(time.Second).String()
		}
		fmt.Fprintf(b, "  %s %s is down %s: %s\n", d.Workload.Kind, d.Workload.Name, length, d.Why)
	}
}

func nameOf(ref v1alpha1.ObjectRef) string {
	if ref.Namespace == "" {
		return ref.Kind + " " + ref.Name
	}
	return ref.Kind + " " + ref.Namespace + "/" + ref.Name
}
