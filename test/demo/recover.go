package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	agreeStep   = "agree"
	approveStep = "sign-off"
)

// recover executes the plan.
func (d *demo) recover(ctx context.Context) error {
	wish := `{"spec":{"goal":"Recover"}}`
	if d.snapshots {
		say("The responder has found out since when the attacker was in. Only what was snapshotted before that can be trusted.")
		wish = fmt.Sprintf(`{"spec":{"goal":"Recover","suspectedSince":%q}}`, d.backedUp.UTC().Format(time.RFC3339))
	}
	_, given, err := d.shown(ctx, responder, "patch", "incident", incidentName, "--type=merge", "-p", wish)
	if err != nil {
		return err
	}
	approvals := "/spec/approvals"
	if d.snapshots {
		inc, err := d.await(ctx, "the plan asks for agreement", func(inc *v1alpha1.Incident) string {
			if step(inc, agreeStep).State == v1alpha1.StepRunning {
				return ""
			}
			return progress(inc)
		})
		if err != nil {
			return err
		}
		blank()
		if err := d.agree(ctx, inc); err != nil {
			return err
		}
		approvals += "/-"
	}
	blank()
	say("The quarantined db-0 keeps the name that its replacement needs, and the volume in use. It goes once its evidence is complete. Its controller has " +
		"tried in vain to replace it, ever more slowly, so that it may take some seconds to notice:")
	seen := map[string]string{}
	inc, err := d.await(ctx, "the plan asks for approval", func(inc *v1alpha1.Incident) string {
		d.narrate(inc, seen, given)
		if step(inc, approveStep).State == v1alpha1.StepRunning {
			return ""
		}
		return d.helpAlong(ctx, inc)
	})
	if err != nil {
		return err
	}
	digest := inc.Status.Recovery.PlanDigest
	err = d.refused(ctx, responder, "not approved by the one who declared it", approve(responder, approveStep, digest, approvals)...)
	d.check("the declarer's own approval is refused", err)
	if err := d.kubectl(ctx, approver, approve(approver, approveStep, digest, approvals)...); err != nil {
		return err
	}
	blank()
	inc, err = d.await(ctx, "the plan is complete", func(inc *v1alpha1.Incident) string {
		d.narrate(inc, seen, given)
		if is(v1alpha1.ConditionRecovered)(inc) == "" {
			return ""
		}
		return progress(inc)
	})
	if err != nil {
		return err
	}
	d.measure("from the command to recover until Recovered was True, approval included", time.Since(given))
	if err := d.kubectl(ctx, responder, "get", "incident", incidentName); err != nil {
		return err
	}
	if d.snapshots {
		d.compareVolumes(ctx, inc)
	}
	return d.compareImages(ctx, inc)
}

// narrate prints every step whose state has changed.
func (d *demo) narrate(inc *v1alpha1.Incident, seen map[string]string, since time.Time) {
	if inc.Status.Recovery == nil {
		return
	}
	for _, st := range inc.Status.Recovery.Steps {
		if st.State == v1alpha1.StepPending || seen[st.Name] == string(st.State) {
			continue
		}
		seen[st.Name] = string(st.State)
		text := wrap(clip(st.Message, 2*(width-40)), width-40)
		fmt.Printf("    %7s  %-9s  %-14s  %s\n", seconds(time.Since(since)), st.State, st.Name, text[0])
		for _, l := range text[1:] {
			fmt.Printf("%39s %s\n", "", l)
		}
	}
}

// helpAlong deletes the quarantined database pod where its volume could not be snapshotted: with a gap in its evidence the operator leaves that
// to a person.
func (d *demo) helpAlong(ctx context.Context, inc *v1alpha1.Incident) string {
	state := progress(inc)
	if d.snapshots || !strings.Contains(state, "hold the names of their replacements") {
		return state
	}
	if err := d.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "db-0"}, &corev1.Pod{}); apierrors.IsNotFound(err) {
		return state
	}
	blank()
	say("The evidence of db-0 has a gap, so that a person decides what becomes of the pod: its replacement needs the name.")
	if err := d.kubectl(ctx, platformEngineer, "delete", "pod", "db-0"); err != nil {
		return err.Error()
	}
	return state
}

func step(inc *v1alpha1.Incident, name string) v1alpha1.StepStatus {
	if inc.Status.Recovery != nil {
		for _, st := range inc.Status.Recovery.Steps {
			if st.Name == name {
				return st
			}
		}
	}
	return v1alpha1.StepStatus{}
}

// progress says what the first step that is under way waits for.
func progress(inc *v1alpha1.Incident) string {
	if inc.Status.Recovery != nil {
		for _, st := range inc.Status.Recovery.Steps {
			if st.State == v1alpha1.StepRunning || st.State == v1alpha1.StepOverdue {
				return orDash(strings.TrimPrefix(st.Message, "waits: "))
			}
		}
	}
	return "no step has started"
}

// approve is the command with which somebody approves a step. The path is that of the list for the first approval, and "/spec/approvals/-", its
// end, for those that follow.
func approve(who person, step, digest, path string) []string {
	entry := fmt.Sprintf(`{"step":%q,"author":%q,"digest":%q}`, step, who, digest)
	if !strings.HasSuffix(path, "/-") {
		entry = "[\n" + entry + "]"
	} else {
		entry = "\n" + entry
	}
	return []string{"patch", "incident", incidentName, "--type=json", "-p", fmt.Sprintf(`[{"op":"add","path":%q,"value":%s}]`, path, entry)}
}

// compareImages prints the images before and after, as the pods report them, and looks whether what was recovered is free.
func (d *demo) compareImages(ctx context.Context, inc *v1alpha1.Incident) error {
	now, err := d.podsByApp(ctx)
	if err != nil {
		return err
	}
	blank()
	say("Images before and after, as the pods report them (imageID):")
	for _, app := range []string{db, web, blog} {
		for _, when := range []struct {
			word string
			pods []corev1.Pod
		}{{"before", d.before[app]}, {"after", now[app]}} {
			for _, p := range when.pods {
				fmt.Printf("    %-6s  %-22s  %s\n", when.word, p.Name, imageID(&p))
			}
		}
	}
	blank()
	d.check("web and db run the known-good digests of the plan, in full number and ready", d.knownGood(inc, now))
	d.check("the recovered pods are free: no quarantine label, and no policy of the Incident selects them", d.free(ctx, now))
	d.check("the pods that were running are still held as evidence, db-0 excepted, whose name its replacement needed", d.stillHeld(ctx))
	return nil
}

func imageID(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) == 0 {
		return "not reported"
	}
	return strings.TrimPrefix(pod.Status.ContainerStatuses[0].ImageID, "docker-pullable://")
}

// knownGood compares what pods report with what the plan wants.
func (d *demo) knownGood(inc *v1alpha1.Incident, now map[string][]corev1.Pod) error {
	problems := []error{}
	if missing := d.notRunning(now); missing != "" {
		problems = append(problems, errors.New(missing))
	}
	for _, images := range inc.Status.Recovery.Plan.Images {
		_, want, _ := strings.Cut(images.Containers[0].Image, "@")
		for _, p := range d.before[images.Workload.Name] {
			if strings.HasSuffix(imageID(&p), "@"+want) {
				problems = append(problems, fmt.Errorf("pod %s ran the known-good image from the start", p.Name))
			}
		}
		for _, p := range now[images.Workload.Name] {
			if !strings.HasSuffix(imageID(&p), "@"+want) {
				problems = append(problems, fmt.Errorf("pod %s reports %s, not %s", p.Name, imageID(&p), want))
			}
		}
	}
	return errors.Join(problems...)
}

// free says which recovered pod the Incident still has a hand on.
func (d *demo) free(ctx context.Context, now map[string][]corev1.Pod) error {
	policies, err := d.policies(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range slices.Concat(now[web], now[db]) {
		if p.Labels[v1alpha1.QuarantineLabelPrefix+d.uid] != "" {
			problems = append(problems, fmt.Errorf("pod %s is labelled", p.Name))
		}
		for _, policy := range denying(&p, policies) {
			problems = append(problems, fmt.Errorf("NetworkPolicy %s denies pod %s", policy.Name, p.Name))
		}
	}
	return errors.Join(problems...)
}

// stillHeld says which evidence pod is not held any more.
func (d *demo) stillHeld(ctx context.Context) error {
	pods, err := d.pods(ctx)
	if err != nil {
		return err
	}
	policies, err := d.policies(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, s := range d.evidencePods {
		i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return string(p.UID) == s.UID })
		switch {
		case s.Owner.Name == db && i >= 0:
			problems = append(problems, fmt.Errorf("pod %s is still there", s.Name))
		case s.Owner.Name == db:
		case i < 0:
			problems = append(problems, fmt.Errorf("pod %s is gone", s.Name))
		case len(denying(&pods[i], policies)) == 0:
			problems = append(problems, fmt.Errorf("pod %s is not denied", s.Name))
		}
	}
	return errors.Join(problems...)
}
