package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

const (
	// pauseSettles is how long a manager is looked at after it was paused: one that was comparing at that moment may still begin an operation that it has decided on before.
	pauseSettles = 5 * time.Second
	// maxUndone is how often a manager that others resume is paused again. After that people have to find out who does it.
	maxUndone = 3
	// operatorManager is the field manager of the operator.
	operatorManager = "cofferdam"
	// maxBefore is how many bytes are recorded of one manager.
	maxBefore = 1024
)

// pauseGitOps pauses what would take the recovery back.
type pauseGitOps struct{}

func (pauseGitOps) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	objects, why, err := managedBy(ctx, x, step.PauseGitOps)
	if err != nil || why != "" {
		return waiting("%s", why), err
	}
	managers, free, why, err := managersOf(ctx, x, objects)
	if err != nil || why != "" {
		return waiting("%s", why).after(managersPoll), err
	}
	var said []string
	for _, m := range managers {
		if why := cmp.Or(beyond(step.PauseGitOps, m.ref()), gitops.Unpausable(m.object)); why != "" {
			return waiting("%s", why), nil
		}
	}
	for _, m := range managers {
		out, err := pauseOne(ctx, x, step, m)
		if err != nil || !out.Done && !x.rehearses() {
			return out, err // what is below is paused once nothing above would undo it
		}
		said = append(said, out.Message)
	}
	for _, name := range free {
		said = append(said, "nothing manages "+name)
	}
	return done("%s", strings.Join(said, "; ")), nil
}

// Examine finds whether the managers are there and can be paused, and whether the operator may do that.
func (pauseGitOps) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	x := &Execution{
		Reader: e.Client, Live: e.Client, Mapper: e.Client.RESTMapper(), Plan: e.Plan, Incident: &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace}},
	}
	objects, why, err := managedBy(ctx, x, step.PauseGitOps)
	if err != nil || why != "" {
		return Finding{v1alpha1.ReasonUnknownWorkload, why}, err
	}
	managers, _, why, err := managersOf(ctx, x, objects)
	if err != nil || why != "" {
		return Finding{v1alpha1.ReasonUnpausable, why}, err
	}
	for _, m := range managers {
		if why := cmp.Or(beyond(step.PauseGitOps, m.ref()), gitops.Unpausable(m.object)); why != "" {
			return Finding{v1alpha1.ReasonUnpausable, why}, nil
		}
		mapping, err := x.Mapper.RESTMapping(gitops.GroupKind(m.object.GetKind()))
		if err != nil {
			return Finding{}, fmt.Errorf("looking up the kind %s: %w", m.object.GetKind(), err)
		}
		if found, err := e.allowed(ctx, need{"patch", mapping.Resource.Group, mapping.Resource.Resource, m.object.GetNamespace()}); err != nil || found.Why != "" {
			return found, err
		}
	}
	return Finding{}, nil
}

// beyond says why the step does not allow a manager to be touched, or "".
func beyond(step *v1alpha1.PauseGitOpsStep, ref v1alpha1.ObjectRef) string {
	allowed, field := step.FluxNamespaces, "fluxNamespaces"
	if gitops.OfArgoCD(ref.Kind) {
		allowed, field = step.ArgoCDNamespaces, "argoCDNamespaces"
	}
	if slices.Contains(allowed, ref.Namespace) {
		return ""
	}
	return fmt.Sprintf("%s would take the recovery back, and the step may not pause it: its namespace is not among %s", nameOf(ref), field)
}

// rehearses says that this is a dry run, in which nothing is recorded and nothing comes true.
func (x *Execution) rehearses() bool { return x.Pauses == nil }

// pauseOf is what is recorded of a manager, or nil.
func (x *Execution) pauseOf(ref v1alpha1.ObjectRef, child string) *v1alpha1.GitOpsPause {
	if x.rehearses() {
		return nil
	}
	for i := range *x.Pauses {
		if p := &(*x.Pauses)[i]; p.Object == ref && p.Child == child {
			return p
		}
	}
	return nil
}

// pauseOne brings the pause of one manager on. What somebody else had paused before is left as it is.
func pauseOne(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, m *manager) (Outcome, error) {
	name, p := nameOf(m.ref()), x.pauseOf(m.ref(), m.child)
	anew := p == nil || p.State == v1alpha1.GitOpsResumed
	p, why := x.begin(step, m, p)
	if why != "" {
		return waiting("%s", why), nil
	}
	if anew && gitops.Paused(m.object, m.child) {
		p.Borrowed, p.State, p.Message = new(true), v1alpha1.GitOpsPaused, "others had paused it before"
	}
	why, err := x.keepPaused(ctx, p, m.object)
	if err != nil || why != "" {
		return waiting("%s", why).after(managersPoll), err
	}
	if borrowed(*p) {
		return done("%s is paused already, and stays so", name), nil
	}
	if left := p.Since.Add(pauseSettles).Sub(x.Now.Time); left > 0 {
		return waiting("%s is paused, and is looked at again in a moment: what it has begun before may still come", name).after(left), nil
	}
	return done("%s is paused until %s", name, p.ExpiresAt.UTC().Format(time.RFC3339)), nil
}

// borrowed reports whether a manager is paused by others, who also decide when it is resumed.
func borrowed(p v1alpha1.GitOpsPause) bool { return ptr.Deref(p.Borrowed, false) }

// begin records what a manager has, before it is paused.
func (x *Execution) begin(step v1alpha1.RecoveryStep, m *manager, p *v1alpha1.GitOpsPause) (*v1alpha1.GitOpsPause, string) {
	if p != nil && p.State != v1alpha1.GitOpsResumed {
		return p, ""
	}
	before, err := json.Marshal(gitops.Record(m.object))
	if err != nil || len(before) > maxBefore {
		return nil, fmt.Sprintf("what %s has cannot be recorded (%d bytes): pause it by hand", nameOf(m.ref()), len(before))
	}
	fresh := v1alpha1.GitOpsPause{
		Object: m.ref(), Child: m.child, Step: step.Name, State: v1alpha1.GitOpsPausing, Before: string(before), Since: x.Now,
		ExpiresAt: metav1.NewTime(x.Now.Add(time.Duration(step.PauseGitOps.LeaseSeconds) * time.Second)),
	}
	switch {
	case x.rehearses():
		return &fresh, ""
	case p != nil:
		*p = fresh
		return p, ""
	case len(*x.Pauses) >= maxManagers:
		return nil, fmt.Sprintf("there are more than %d managers to be paused: pause %s by hand", maxManagers, nameOf(m.ref()))
	}
	*x.Pauses = append(*x.Pauses, fresh)
	return &(*x.Pauses)[len(*x.Pauses)-1], ""
}

// keepPaused looks whether a manager is paused and at rest, and pauses it, again if it was undone. It says what is waited for, or "".
func (x *Execution) keepPaused(ctx context.Context, p *v1alpha1.GitOpsPause, object *unstructured.Unstructured) (string, error) {
	name := nameOf(p.Object)
	if gitops.Paused(object, p.Child) {
		if p.State != v1alpha1.GitOpsPaused {
			x.Journal.Done(v1alpha1.ActionPauseGitOps, p.Object)
			p.State, p.Since, p.ResumedAt = v1alpha1.GitOpsPaused, x.Now, metav1.Time{}
			p.Message = cmp.Or(p.Message, "paused")
		}
		if busy := gitops.InFlight(object); busy != "" {
			return fmt.Sprintf("%s is paused, and %s: it is waited for", name, busy), nil
		}
		return "", nil
	}
	if p.State == v1alpha1.GitOpsPaused {
		p.State, p.Undone = v1alpha1.GitOpsUndone, p.Undone+1
		p.Message = undoneBy(object)
	}
	if borrowed(*p) {
		if why := x.takeOver(p, object); why != "" {
			return why, nil
		}
	}
	if p.Undone > maxUndone {
		return fmt.Sprintf("%s was resumed %d times though the recovery is under way, and is not paused once more: %s. Find out who does that, and have it paused", name, p.Undone, p.Message), nil
	}
	why := fmt.Sprintf("%s is about to be paused", name)
	if p.State == v1alpha1.GitOpsUndone {
		why += " again: " + p.Message
	}
	if forbidden, err := x.forbidden(ctx, p.Object); err != nil || forbidden != "" {
		return forbidden, err
	}
	detail := "pause until " + p.ExpiresAt.UTC().Format(time.RFC3339) + "; it had " + p.Before
	if !x.Journal.IntendAnew(v1alpha1.ActionPauseGitOps, p.Object, detail) {
		return why, nil
	}
	return why, x.writePause(ctx, p, object, detail)
}

// takeOver makes the pause one of this Incident: whoever had it before has resumed the manager, or the one that was paused was deleted and made anew. It says why it cannot, or "".
func (x *Execution) takeOver(p *v1alpha1.GitOpsPause, object *unstructured.Unstructured) string {
	before, err := json.Marshal(gitops.Record(object))
	if err != nil || len(before) > maxBefore {
		return fmt.Sprintf("what %s has cannot be recorded (%d bytes): pause it by hand", nameOf(p.Object), len(before))
	}
	p.Borrowed, p.Before, p.Since, p.Object.UID = nil, string(before), x.Now, string(object.GetUID())
	return ""
}

// undoneBy says who probably has resumed a manager.
func undoneBy(object *unstructured.Unstructured) string {
	var who []string
	if by := gitops.Writer(object, operatorManager); by != "" {
		who = append(who, fmt.Sprintf("field manager %s has changed it last, as far as managedFields tells", by))
	}
	for _, c := range gitops.Claims(object.GetKind(), object) {
		who = append(who, fmt.Sprintf("%s applies it", c.Manager))
	}
	if len(who) == 0 {
		return "it was resumed, and who did it has left no trace in managedFields"
	}
	return "it was resumed; " + strings.Join(who, "; ")
}

// forbidden says that the declarer of the Incident may not do to a manager what is done in their name, or "".
func (x *Execution) forbidden(ctx context.Context, ref v1alpha1.ObjectRef) (string, error) {
	mapping, err := x.Mapper.RESTMapping(gitops.GroupKind(ref.Kind))
	if err != nil {
		return "", fmt.Errorf("looking up the kind %s: %w", ref.Kind, err)
	}
	may, err := x.May(ctx, authorizationv1.ResourceAttributes{
		Namespace: ref.Namespace, Name: ref.Name, Verb: "patch", Group: mapping.Resource.Group, Resource: mapping.Resource.Resource,
	})
	if err != nil || may {
		return "", err
	}
	return fmt.Sprintf("%s, who declared this Incident, may not patch %s in namespace %s: give them the right, or pause and resume %s by hand", x.Incident.Spec.DeclaredBy.Username,
		mapping.Resource.GroupResource(), ref.Namespace, nameOf(ref)), nil
}

// writePause pauses the manager. Whether the server knows the field that pauses an Application, it is asked first: where it does not, it would drop it without a word.
func (x *Execution) writePause(ctx context.Context, p *v1alpha1.GitOpsPause, object *unstructured.Unstructured, detail string) error {
	lease := gitops.Lease{
		Incident: x.Incident.Namespace + "/" + x.Incident.Name, UID: string(x.Incident.UID), Reason: x.Incident.Spec.Title, Since: p.Since, Expires: p.ExpiresAt,
	}
	return x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: p.Object, Detail: detail}, func(ctx context.Context, c client.Client) error {
		raw, err := gitops.PausePatch(object, p.Child, lease, false)
		if err != nil {
			return err
		}
		would := object.DeepCopy()
		if err := c.Patch(ctx, would, client.RawPatch(types.MergePatchType, raw), client.DryRunAll); err != nil {
			return err
		}
		if !gitops.Paused(would, p.Child) {
			if object.GetKind() != gitops.Application {
				return fmt.Errorf("the API server does not know the field that pauses %s: pause it by hand", nameOf(p.Object))
			}
			if raw, err = gitops.PausePatch(object, p.Child, lease, true); err != nil {
				return err
			}
		}
		return c.Patch(ctx, object, client.RawPatch(types.MergePatchType, raw))
	})
}

// WatchPauses looks at everything that is paused, and pauses again what was resumed by others. What is known not to be paused, or not to be at rest, holds back every step that depends on a pause.
func WatchPauses(ctx context.Context, x *Execution) error {
	if x.rehearses() {
		return nil
	}
	var failures []error
	for i := range *x.Pauses {
		p := &(*x.Pauses)[i]
		if p.State == v1alpha1.GitOpsResumed || p.State == v1alpha1.GitOpsResuming && !x.skipsResuming() || x.underWay(p.Step) {
			continue
		}
		watch := x.watchPause
		if x.skipped(p.Step) || p.State == v1alpha1.GitOpsResuming {
			watch = x.letBe
		}
		why, err := watch(ctx, p)
		if err != nil {
			failures = append(failures, err)
			why = err.Error()
		}
		x.Unpaused = cmp.Or(x.Unpaused, why)
	}
	return errors.Join(failures...)
}

func (x *Execution) watchPause(ctx context.Context, p *v1alpha1.GitOpsPause) (string, error) {
	object, err := x.readManager(ctx, p.Object)
	if err != nil {
		return "", err
	}
	if object == nil {
		return x.watchSuccessor(ctx, p)
	}
	return x.keepPaused(ctx, p, object)
}

// watchSuccessor looks whether a manager that is gone was made anew under its name, as an ApplicationSet or a parent app does. The new one knows nothing of the pause.
func (x *Execution) watchSuccessor(ctx context.Context, p *v1alpha1.GitOpsPause) (string, error) {
	object, err := x.readNamed(ctx, p.Object)
	if err != nil {
		return "", err
	}
	gone := p.Object
	if object == nil || x.pauseOf(managerRef(object), p.Child) != nil {
		x.settle(p)
		return "", nil
	}
	if why := x.takeOver(p, object); why != "" {
		return why, nil
	}
	x.Journal.Done(v1alpha1.ActionPauseGitOps, gone)
	p.State, p.Undone, p.Message = v1alpha1.GitOpsUndone, p.Undone+1, "it was deleted and made anew, and the new one is not paused"
	return x.keepPaused(ctx, p, object)
}

// letBe looks at what people do not want to be paused, or resumed, by this recovery any more: they have skipped the step. Nothing is changed, and nothing waits for it.
func (x *Execution) letBe(ctx context.Context, p *v1alpha1.GitOpsPause) (string, error) {
	object, err := x.readManager(ctx, p.Object)
	if err != nil {
		return "", err
	}
	switch {
	case object == nil:
		x.settle(p)
	case !gitops.Paused(object, p.Child):
		x.settle(p)
		p.Message = "it is not paused, and the step that dealt with it was skipped"
	case p.State != v1alpha1.GitOpsPaused:
		x.Journal.Done(v1alpha1.ActionPauseGitOps, p.Object)
		x.Journal.Done(v1alpha1.ActionResumeGitOps, p.Object)
		p.State, p.Message = v1alpha1.GitOpsPaused, "it is still paused, and the step that dealt with it was skipped: resume it by hand, or have the step retried"
	}
	return "", nil
}

func (x *Execution) skipped(step string) bool {
	s := x.Status(step)
	return s != nil && s.State == v1alpha1.StepSkipped
}

// skipsResuming reports whether people have skipped all that could resume.
func (x *Execution) skipsResuming() bool {
	return !slices.ContainsFunc(x.Plan.Steps, func(s v1alpha1.RecoveryStep) bool { return s.ResumeGitOps != nil && !x.skipped(s.Name) })
}

// underWay reports whether the step looks after its pauses itself.
func (x *Execution) underWay(step string) bool {
	s := x.Status(step)
	return s != nil && (started(s.State) || s.State == v1alpha1.StepPending)
}

// settle notes that a manager is gone.
func (x *Execution) settle(p *v1alpha1.GitOpsPause) {
	x.Journal.Done(v1alpha1.ActionPauseGitOps, p.Object)
	x.Journal.Done(v1alpha1.ActionResumeGitOps, p.Object)
	p.State, p.ResumedAt, p.Message = v1alpha1.GitOpsResumed, metav1.Time{}, "it does not exist any more"
}

// heldBack says why a step does not go on for the moment, or "".
func (x *Execution) heldBack(step v1alpha1.RecoveryStep) string {
	if x.Unpaused == "" || step.PauseGitOps != nil || step.ResumeGitOps != nil || step.Approve != nil || !afterPause(x.Plan.Steps, step) {
		return ""
	}
	return x.Unpaused
}

// afterPause reports whether a step depends, directly or by way of others, on a pauseGitOps step.
func afterPause(steps []v1alpha1.RecoveryStep, step v1alpha1.RecoveryStep) bool {
	byName := map[string]v1alpha1.RecoveryStep{}
	for _, s := range steps {
		byName[s.Name] = s
	}
	seen, next := map[string]bool{}, step.DependsOn
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		if byName[name].PauseGitOps != nil {
			return true
		}
		next = append(slices.Clone(next), byName[name].DependsOn...)
	}
	return false
}

// LookAtPauses looks whether people have resumed what was paused, and changes nothing.
func LookAtPauses(ctx context.Context, x *Execution) error {
	for i := range *x.Pauses {
		p := &(*x.Pauses)[i]
		if p.State == v1alpha1.GitOpsResumed {
			continue
		}
		object, err := x.readManager(ctx, p.Object)
		if err != nil {
			return err
		}
		switch {
		case object == nil, borrowed(*p):
			x.settle(p)
		case object.GetLabels()[v1alpha1.GitOpsPausedLabel] != string(x.Incident.UID) || !gitops.Paused(object, p.Child):
			x.settle(p)
			p.Message = "it was resumed, or taken over, by others"
		}
	}
	return nil
}
