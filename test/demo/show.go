package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// showVerdicts prints what is known of each pod.
func showVerdicts(inc *v1alpha1.Incident) {
	blank()
	say("The verdict on each pod (status.pods):")
	rows := [][]string{{"POD", "REPLACEMENT", "HANDLING", "VERDICT", "PROOF", "LEAKS THROUGH"}}
	for _, p := range inc.Status.Pods {
		through := map[string]bool{}
		for _, l := range p.Leaks {
			through[strings.TrimPrefix(l.Policy, namespace+"/")] = true
		}
		rows = append(rows, []string{p.Name, orDash(p.Replacement), string(p.Handling), string(p.Verdict), orDash(string(p.Proof)),
			orDash(strings.Join(slices.Sorted(maps.Keys(through)), ", "))})
	}
	table(rows)
}

// showLeaks prints what is still allowed, and to how many pods.
func showLeaks(inc *v1alpha1.Incident) {
	type way struct {
		policy, direction, rule, peer, ports string
	}
	count := map[way]int{}
	for _, p := range inc.Status.Pods {
		for _, l := range p.Leaks {
			w := way{policy: l.Policy, direction: string(l.Direction), rule: "none", peer: l.Peer, ports: l.Ports}
			if l.Rule != nil && *l.Rule >= 0 {
				w.rule = fmt.Sprintf("%d", *l.Rule)
			}
			count[w]++
		}
	}
	blank()
	say("What is still allowed, and by what:")
	rows := [][]string{{"POLICY", "DIRECTION", "RULE", "PEER", "PORTS", "PODS"}}
	for w, n := range count {
		rows = append(rows, []string{w.policy, w.direction, w.rule, w.peer, w.ports, fmt.Sprintf("%d", n)})
	}
	slices.SortFunc(rows[1:], slices.Compare)
	table(rows)
}

// showResiduals prints what the proof does not cover.
func showResiduals(inc *v1alpha1.Incident) {
	pods := map[string][]string{}
	for _, p := range inc.Status.Pods {
		if p.Verdict == v1alpha1.VerdictIsolated {
			key := strings.Join(p.Residuals, ", ")
			pods[key] = append(pods[key], p.Name)
		}
	}
	blank()
	for _, key := range slices.Sorted(maps.Keys(pods)) {
		say("What the proof does not cover, for %d of %d pods (residuals): %s", len(pods[key]), len(inc.Status.Pods), key)
	}
}

// showEvidence prints what is kept.
func showEvidence(inc *v1alpha1.Incident) {
	blank()
	say("What is kept (status.evidence):")
	for _, e := range inc.Status.Evidence {
		fmt.Printf("    %-9s  %s of %s %s\n", e.State, e.Type, e.Subject.Kind, e.Subject.Name)
		for part := range strings.SplitSeq(e.Location, ", ") {
			if part != "" {
				fmt.Println("               in " + part)
			}
		}
		switch {
		case e.Digest != "":
			fmt.Printf("               taken %s, %s\n", clock(e.TakenAt), e.Digest)
		case !e.TakenAt.IsZero():
			fmt.Printf("               taken %s\n", clock(e.TakenAt))
		}
		if e.Message != "" {
			for _, l := range wrap(e.Message, width-16) {
				fmt.Println("               " + l)
			}
		}
	}
}

// showTimeline prints what happened, in seconds since the declaration.
func showTimeline(inc *v1alpha1.Incident) {
	blank()
	say("The timeline (status.timeline), in seconds since the declaration:")
	for _, e := range inc.Status.Timeline {
		at := e.At.Sub(inc.CreationTimestamp.Time).Seconds()
		text := strings.ReplaceAll(e.Message, namespace+"/", "")
		fmt.Println(clip(fmt.Sprintf("    %+4.0f s  %-27s  %s", at, e.Reason, text), width+16))
	}
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
