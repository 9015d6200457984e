// Package preview says what a recovery would do if it began now: the resolved plan, what would change, what stands in the way, and about how long it takes. It reads, and has the API server try every change without
// making it.
package preview

import (
	"context"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Preview is what a recovery would do.
type Preview struct {
	Incident string `json:"incident"`
	Plan     string `json:"plan"`
	// Begun says that the recovery is under way: the plan is then the copy that it executes.
	Begun bool `json:"begun"`
	// Digest is what people approve, once the recovery has begun.
	Digest    string                `json:"digest,omitempty"`
	Choices   []v1alpha1.StepChoice `json:"choices,omitempty"`
	Steps     []Step                `json:"steps"`
	Obstacles []Obstacle            `json:"obstacles,omitempty"`
	// Unread says what could not be looked at with your rights.
	Unread   []string `json:"unread,omitempty"`
	Estimate Estimate `json:"estimate"`
	spec     v1alpha1.RecoveryPlanSpec
}

// Step is one step of the plan.
type Step struct {
	Name      string             `json:"name"`
	Action    string             `json:"action"`
	DependsOn []string           `json:"dependsOn,omitempty"`
	State     v1alpha1.StepState `json:"state,omitempty"`
	// Says is what the step would say now.
	Says    string   `json:"says,omitempty"`
	Changes []Change `json:"changes,omitempty"`
	// Takes is about how long it takes, if that can be told.
	Takes metav1.Duration `json:"takes,omitzero"`
}

// Change is one change that the step would make first, and what the API server says of it.
type Change struct {
	Verb   string             `json:"verb"`
	Object v1alpha1.ObjectRef `json:"object"`
	Detail string             `json:"detail,omitempty"`
	// Tried is "accepted", "refused", or "not tried" when you may not make such a change, or it is none of the cluster's.
	Tried string `json:"tried"`
	Why   string `json:"why,omitempty"`
	// Fields are the fields that differ after the change, as the API server would store it.
	Fields []string `json:"fields,omitempty"`
}

// Obstacle is something that stands in the way, or is to be known. One that blocks keeps the recovery from beginning, or a step from coming to its end, until somebody removes it.
type Obstacle struct {
	Blocks bool               `json:"blocks"`
	Object v1alpha1.ObjectRef `json:"object,omitzero"`
	Says   string             `json:"says"`
}

// Blocked reports whether something would keep the recovery from coming to its end.
func (p *Preview) Blocked() bool {
	for _, o := range p.Obstacles {
		if o.Blocks {
			return true
		}
	}
	return false
}

// Untried reports whether a change was not tried because whoever asks may not make it.
func (p *Preview) Untried() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		return slices.ContainsFunc(s.Changes, func(c Change) bool { return c.Tried == notTried && c.Why != "" })
	})
}

func (p *Preview) blocks(object v1alpha1.ObjectRef, format string, args ...any) {
	p.Obstacles = append(p.Obstacles, Obstacle{Blocks: true, Object: object, Says: fmt.Sprintf(format, args...)})
}

func (p *Preview) notes(object v1alpha1.ObjectRef, format string, args ...any) {
	p.Obstacles = append(p.Obstacles, Obstacle{Object: object, Says: fmt.Sprintf(format, args...)})
}

// Of looks at what the recovery of the Incident would do, with the rights of whoever the client is. What cannot be read is an error.
func Of(ctx context.Context, c client.Client, key client.ObjectKey, now time.Time) (*Preview, error) {
	var inc v1alpha1.Incident
	if err := c.Get(ctx, key, &inc); err != nil {
		return nil, fmt.Errorf("reading Incident %s: %w", key, err)
	}
	p := &Preview{Incident: key.String()}
	x, err := p.begin(ctx, c, &inc, metav1.NewTime(now))
	if err != nil {
		return nil, err
	}
	if x != nil {
		if err := p.rehearse(ctx, c, x); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// probeImage stands for the operator's image.
const probeImage = "cofferdam.dev/cofferdam/manager"

// begin resolves the plan. It returns nil when nothing can be said of its steps.
func (p *Preview) begin(ctx context.Context, c client.Client, inc *v1alpha1.Incident, now metav1.Time) (*recovery.Execution, error) {
	x := &recovery.Execution{
		Reader: c, Live: c, Journal: journal.New(nil, now, true), Incident: inc, Now: now, Pods: inc.Status.Pods, Evidence: inc.Status.Evidence,
		GapsWaived: inc.Status.GapDigest != "", Mapper: c.RESTMapper(), DryRun: client.NewDryRunClient(c), Release: released,
		// Whether the pods that check volumes are isolated is looked at when they are made.
		Leaks: func(*corev1.Pod, *networkingv1.NetworkPolicy) []string { return nil },
		// Nor is it known here what the declarer may do.
		May: func(context.Context, authorizationv1.ResourceAttributes) (bool, error) { return true, nil },
		// Nor with which image the operator probes: it is its own.
		ProbeImage: probeImage,
	}
	if inc.Status.Policy != nil {
		x.Policy = inc.Status.Policy.Spec
	}
	var err error
	if x.All, err = p.allPods(ctx, c, inc); err != nil {
		return nil, err
	}
	if rec := inc.Status.Recovery; rec != nil {
		p.Begun, p.Plan, p.Digest, p.Choices, p.spec = true, rec.PlanName, rec.PlanDigest, rec.Choices, rec.Plan
		x.Plan, x.PlanDigest, x.Choices, x.Verified = rec.Plan, rec.PlanDigest, rec.Choices, rec.Images
		return x, nil
	}
	var plan v1alpha1.RecoveryPlan
	key := client.ObjectKey{Namespace: inc.Namespace, Name: inc.Spec.RecoveryPlanRef.Name}
	p.Plan = key.Name
	if key.Name == "" {
		p.blocks(v1alpha1.ObjectRef{}, "the Incident names no plan: set spec.recoveryPlanRef")
		return nil, nil
	}
	if err := c.Get(ctx, key, &plan); err != nil {
		return nil, fmt.Errorf("reading RecoveryPlan %s: %w", key, err)
	}
	ref := v1alpha1.ObjectRef{Kind: "RecoveryPlan", Namespace: key.Namespace, Name: key.Name}
	p.spec, x.Plan = plan.Spec, plan.Spec
	if _, why := recovery.Unusable(plan.Spec); why != "" {
		p.blocks(ref, "%s", why)
		return nil, nil
	}
	if plan.Spec.Verification != nil {
		p.notes(ref, "its images are verified by the operator when the recovery begins; its condition Ready says what came of it last")
	}
	if why := recovery.CompromisedImage(plan.Spec, inc.Spec.CompromisedDigests); why != "" {
		p.blocks(ref, "%s", why)
	}
	return x, p.choose(ctx, x, ref)
}

// choose resolves what the steps choose. What cannot be chosen blocks, and the other steps are looked at all the same.
func (p *Preview) choose(ctx context.Context, x *recovery.Execution, plan v1alpha1.ObjectRef) error {
	choices, why, err := recovery.ChooseAll(ctx, x)
	if apierrors.IsForbidden(err) {
		p.Unread = append(p.Unread, "what is chosen cannot be told: "+err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if why != "" {
		p.blocks(plan, "%s", why)
	}
	x.Plan = recovery.WithChosen(x.Plan, choices)
	x.Choices, p.Choices, p.spec = choices, choices, x.Plan
	return nil
}

func released(_ context.Context, step v1alpha1.RecoveryStep) (recovery.Outcome, error) {
	what := "the quarantine of every revision that the plan has rolled back is lifted"
	if n := len(step.Release.Workloads); n > 0 {
		what = fmt.Sprintf("the quarantine of the compromised revisions of %d workloads is lifted", n)
	}
	return recovery.Outcome{Done: true, Message: what + "; evidence pods stay quarantined"}, nil
}

func (p *Preview) allPods(ctx context.Context, c client.Client, inc *v1alpha1.Incident) (map[string]*corev1.Pod, error) {
	out := map[string]*corev1.Pod{}
	for _, ns := range target.Namespaces(inc) {
		var list corev1.PodList
		err := c.List(ctx, &list, client.InNamespace(ns))
		if apierrors.IsForbidden(err) {
			p.Unread = append(p.Unread, err.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the pods in namespace %s: %w", ns, err)
		}
		for i := range list.Items {
			out[string(list.Items[i].UID)] = &list.Items[i]
		}
	}
	return out, nil
}

// rehearse runs every step as if those before it had succeeded.
func (p *Preview) rehearse(ctx context.Context, c client.Client, x *recovery.Execution) error {
	facts, err := read(ctx, c, x)
	if err != nil {
		return err
	}
	for i, step := range x.Plan.Steps {
		s := Step{Name: step.Name, Action: actionOf(step), DependsOn: step.DependsOn, Takes: metav1.Duration{Duration: facts.takes(step)}}
		if rec := x.Incident.Status.Recovery; rec != nil && i < len(rec.Steps) {
			s.State, s.Says = rec.Steps[i].State, rec.Steps[i].Message
		}
		if !recovery.Settled(s.State) && rehearsable(step) {
			try := &trial{client: c}
			x.Writer = try
			out, err := recovery.Run(ctx, x, withoutGate(step))
			switch {
			case apierrors.IsForbidden(err):
				p.Unread = append(p.Unread, fmt.Sprintf("step %s: %v", step.Name, err))
			case err != nil:
				p.blocks(v1alpha1.ObjectRef{}, "step %s: %v", step.Name, err)
			case out.Failed:
				p.blocks(v1alpha1.ObjectRef{}, "step %s: %s", step.Name, out.Message)
			}
			s.Says, s.Changes = out.Message, try.changes
			for _, change := range try.changes {
				if change.Tried == refused {
					p.blocks(change.Object, "step %s: the API server would refuse to %s it: %s", step.Name, change.Verb, change.Why)
				}
			}
		}
		p.Steps = append(p.Steps, s)
	}
	p.Obstacles, p.Unread = append(p.Obstacles, facts.obstacles(x)...), append(p.Unread, facts.unread...)
	p.Estimate = facts.estimate(x)
	return nil
}

// rehearsable reports whether trying the step asks nobody but the API server, and waits for nothing that only other steps bring.
func rehearsable(step v1alpha1.RecoveryStep) bool {
	return step.Verify == nil && step.Notify == nil && step.Approve == nil
}

func withoutGate(step v1alpha1.RecoveryStep) v1alpha1.RecoveryStep {
	step.Gate = nil
	if step.Release != nil {
		release := *step.Release
		release.Watched = v1alpha1.VerifyStep{}
		step.Release = &release
	}
	return step
}

// actionOf is the name of the field that the step's action has in the plan.
func actionOf(step v1alpha1.RecoveryStep) string {
	for name, set := range map[string]bool{
		"rollBackImages": step.RollBackImages != nil, "restoreVolumes": step.RestoreVolumes != nil, "scale": step.Scale != nil, "rotateSecrets": step.RotateSecrets != nil, "runJob": step.RunJob != nil,
		"verify": step.Verify != nil, "approve": step.Approve != nil, "notify": step.Notify != nil, "release": step.Release != nil,
		"pauseGitOps": step.PauseGitOps != nil, "resumeGitOps": step.ResumeGitOps != nil,
	} {
		if set {
			return name
		}
	}
	return ""
}
