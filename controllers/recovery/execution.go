package recovery

import (
	"context"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/outbound"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Outcome is what a step has come to in this pass.
type Outcome struct {
	// Done says that what the step is for was observed.
	Done bool
	// Failed says that the step has come to nothing, and that waiting does not help.
	Failed bool
	// Again is how soon the step is to be looked at again though nothing has changed that it has read; zero means never.
	Again time.Duration
	// Message says what was observed, or what the step waits for and what a person can do about it.
	Message string
	// Unseen says that nothing was found to be wrong, but that something could not be looked at.
	Unseen bool
}

func done(format string, args ...any) Outcome {
	return Outcome{Done: true, Message: fmt.Sprintf(format, args...)}
}

func waiting(format string, args ...any) Outcome {
	return Outcome{Message: fmt.Sprintf(format, args...)}
}

func failed(format string, args ...any) Outcome {
	return Outcome{Failed: true, Message: fmt.Sprintf(format, args...)}
}

// each brings every one of a step's objects on, and waits for all of them. Where one has failed, the step has.
func each[T any](objects []T, one func(T) (Outcome, error)) (Outcome, error) {
	var ready, notYet, hopeless []string
	var again time.Duration
	for _, object := range objects {
		out, err := one(object)
		if err != nil {
			return Outcome{}, err
		}
		again = sooner(again, out.Again)
		switch {
		case out.Done:
			ready = append(ready, out.Message)
		case out.Failed:
			hopeless = append(hopeless, out.Message)
		default:
			notYet = append(notYet, out.Message)
		}
	}
	if len(hopeless) > 0 {
		return failed("%s", strings.Join(hopeless, "; ")), nil
	}
	if len(notYet) > 0 {
		return waiting("waits: %s", strings.Join(notYet, "; ")).after(again), nil
	}
	return done("%s", strings.Join(ready, "; ")), nil
}

// after is the outcome, with how soon it is looked at again.
func (o Outcome) after(again time.Duration) Outcome {
	o.Again = again
	return o
}

// sooner is the shorter of two times, of which zero means never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// Writer performs a write, or in a dry run only notes it.
type Writer interface {
	Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(ctx context.Context, c client.Client) error) error
}

// Execution is what the steps of one Incident work with during one pass.
type Execution struct {
	Reader   client.Reader
	Writer   Writer
	Journal  *journal.Journal
	Incident *v1alpha1.Incident
	// Plan is the copy that is executed, and PlanDigest its digest.
	Plan       v1alpha1.RecoveryPlanSpec
	PlanDigest string
	// Look tells of images what the plan asks to be known of them; nil where it asks for nothing. Verified is what was found out when the recovery began.
	Look     LookAtImage
	Verified []v1alpha1.VerifiedImage
	// Steps are the status of the steps as this pass will write it, and Choices what was decided when the recovery began. Now is when the pass began.
	Steps   []v1alpha1.StepStatus
	Choices []v1alpha1.StepChoice
	Now     metav1.Time
	// Pods are the pods of the Incident with what was done to them, Evidence what was kept, All the live pods of the namespaces by UID.
	Pods     []v1alpha1.PodStatus
	Evidence []v1alpha1.EvidenceItem
	All      map[string]*corev1.Pod
	// GapsWaived says that people have waived the evidence gaps there are: what could not be had holds nothing back any more.
	GapsWaived bool
	// Leaks says by which policies a pod that is about to be created could reach something, or be reached, when the deny policy is in force.
	Leaks func(pod *corev1.Pod, deny *networkingv1.NetworkPolicy) []string
	// Release lifts quarantine as a release step asks.
	Release func(ctx context.Context, step v1alpha1.RecoveryStep) (Outcome, error)
	// Others are the other Incidents there are, and Relapse notes that a workload is quarantined again.
	Others  func(ctx context.Context) ([]v1alpha1.Incident, error)
	Relapse func(v1alpha1.Relapse)
	// Live reads what is not to be waited for: Reader may watch whatever it reads. Mapper knows which version of a kind the server serves. May reports whether the declarer may do something.
	Live   client.Reader
	Mapper apimeta.RESTMapper
	May    func(ctx context.Context, what authorizationv1.ResourceAttributes) (bool, error)
	// Pauses are what the recovery has paused, as this pass will write it; nil in a dry run. Unpaused says which of it is known not to be, or may still change something; set by WatchPauses.
	Pauses   *[]v1alpha1.GitOpsPause
	Unpaused string
	// Policy is the copy of the standing orders, Outbound calls the services that they name, and ProbeImage is the image with which is probed.
	Policy     v1alpha1.ContainmentPolicySpec
	Outbound   *outbound.Caller
	ProbeImage string
	// DryRun makes requests that change nothing: whether they would be granted, and what they would be made on, is what it is for.
	DryRun client.Client

	// callsUntil is when the time for calls is over in this pass.
	callsUntil time.Time
}

// Action executes one kind of step. Run looks, does what comes next, and says what it waits for. It is idempotent and does not block.
type Action interface {
	Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error)
}

// Undoer is an Action whose effects can be taken back. Undo does what comes next of that, and says what it waits for. It is idempotent, does not block, and works from wherever Run has come to.
type Undoer interface {
	Undo(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error)
}

// Chooser is an Action that decides on something when the recovery begins, so that people approve the choice and not a rule. It says why nothing can be chosen: the recovery then does not begin.
type Chooser interface {
	Choose(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (choices []v1alpha1.StepChoice, why string, err error)
}

// Run brings a step on by what comes next.
func Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	action := ActionFor(step)
	if s := x.Status(step.Name); s != nil && s.State == v1alpha1.StepUndoing {
		if undoer, ok := action.(Undoer); ok {
			return undoer.Undo(ctx, x, step)
		}
		return done("there is nothing to take back"), nil
	}
	if why := x.heldBack(step); why != "" {
		return waiting("waits: %s", why), nil
	}
	out, err := action.Run(ctx, x, step)
	if err != nil || !out.Done || step.Gate == nil {
		return out, err
	}
	gate, err := lookAt(ctx, x, step.Name, "gate", step.Gate)
	if err != nil || gate.Done {
		return out, err
	}
	if gate.Failed {
		return failed("%s; its gate has failed: %s", out.Message, gate.Message), nil
	}
	return waiting("%s; its gate %s", out.Message, gate.Message).after(gate.Again), nil
}

// ChooseAll asks every step of the plan for its choices, in the order of the plan. It says why the plan cannot be executed now, or "".
func ChooseAll(ctx context.Context, x *Execution) (choices []v1alpha1.StepChoice, why string, err error) {
	for _, step := range x.Plan.Steps {
		if why := lacking(x, step); why != "" {
			return nil, fmt.Sprintf("step %s: %s", step.Name, why), nil
		}
		chooser, ok := ActionFor(step).(Chooser)
		if !ok {
			continue
		}
		got, why, err := chooser.Choose(ctx, x, step)
		if err != nil {
			return nil, "", fmt.Errorf("step %s: %w", step.Name, err)
		}
		if why != "" {
			return nil, fmt.Sprintf("step %s: %s", step.Name, why), nil
		}
		choices = append(choices, got...)
	}
	return choices, "", nil
}

// Status is the status of the step that this pass will write, or nil in a dry run.
func (x *Execution) Status(step string) *v1alpha1.StepStatus {
	for i := range x.Steps {
		if x.Steps[i].Name == step {
			return &x.Steps[i]
		}
	}
	return nil
}

// tries is how often the step was retried.
func (x *Execution) tries(step string) int32 {
	if s := x.Status(step); s != nil {
		return s.Tries
	}
	return 0
}

// Choice is what was chosen for the object, or nil.
func (x *Execution) Choice(step string, object v1alpha1.ObjectRef) *v1alpha1.StepChoice {
	for i := range x.Choices {
		if c := &x.Choices[i]; c.Step == step && c.Object == object {
			return c
		}
	}
	return nil
}

// Bounds of what a step records.
const (
	maxRecord  = 16384 // bytes of one record
	maxRecords = 256
	// maxRecorded is how many bytes all records of a recovery have. They share the Incident, which etcd keeps up to 1.5 MiB of, with all else that its status has to hold.
	maxRecorded = 320 << 10
)

// unrecordable says why something cannot be recorded of the object, or "". What is not recorded is not changed: nobody could put it back.
func (x *Execution) unrecordable(step string, object v1alpha1.ObjectRef, data []byte) string {
	if x.Recorded(step, object) != nil {
		return ""
	}
	if len(data) > maxRecord {
		return fmt.Sprintf("it has more than %d bytes", maxRecord)
	}
	all := len(data)
	for _, s := range x.Steps {
		for _, r := range s.Records {
			all += len(r.Data)
		}
	}
	if all > maxRecorded {
		return fmt.Sprintf("together with what this recovery has recorded before it would have %d bytes, and the Incident has room for %d: recover the rest with another Incident and another plan", all, maxRecorded)
	}
	return ""
}

// Record notes what was seen of an object before it is changed, once: what is recorded already stays. It is as durable as an intent that is journalled in the same pass.
func (x *Execution) Record(step string, record v1alpha1.StepRecord) {
	s := x.Status(step)
	if s != nil && x.Recorded(step, record.Object) == nil {
		s.Records = append(s.Records, record)
	}
}

// Recorded is what the step has recorded of the object, or nil.
func (x *Execution) Recorded(step string, object v1alpha1.ObjectRef) *v1alpha1.StepRecord {
	s := x.Status(step)
	if s == nil {
		return nil
	}
	for i := range s.Records {
		if s.Records[i].Object == object {
			return &s.Records[i]
		}
	}
	return nil
}

// ActionFor returns the action of a step, or nil when the step has none that is known.
func ActionFor(step v1alpha1.RecoveryStep) Action {
	switch {
	case step.RollBackImages != nil && step.RollBackImages.Restore == v1alpha1.RestoredTemplate:
		return restoreTemplates{}
	case step.RollBackImages != nil:
		return rollBackImages{}
	case step.RestoreVolumes != nil:
		return restoreVolumes{}
	case step.Scale != nil:
		return scale{}
	case step.RotateSecrets != nil:
		return rotateSecrets{}
	case step.RunJob != nil:
		return runJob{}
	case step.Verify != nil:
		return verify{}
	case step.Approve != nil:
		return approve{}
	case step.Notify != nil:
		return notify{}
	case step.Release != nil:
		return release{}
	case step.PauseGitOps != nil:
		return pauseGitOps{}
	case step.ResumeGitOps != nil:
		return resumeGitOps{}
	}
	return nil
}

// BeginsByIntent reports whether all that the step does to the cluster goes through Execution.Writer, so that it can begin with nothing but an intent.
func BeginsByIntent(step v1alpha1.RecoveryStep) bool {
	return step.RollBackImages != nil || step.Scale != nil || step.Verify != nil || step.Approve != nil
}

// RecoveredBy tells what the plan of this Incident has brought back: it carries the Incident's mark and runs the known-good images. The mark alone
// proves nothing, since whoever can edit a template can write it.
func RecoveredBy(inc *v1alpha1.Incident) target.Recovered {
	return func(workload v1alpha1.ObjectRef, annotations map[string]string, spec *corev1.PodSpec) bool {
		if inc.Status.Recovery == nil || Relapsed(inc.Status.Recovery, workload) {
			return false
		}
		good := knownGood(inc.Status.Recovery.Plan, workload.Kind, workload.Name)
		if good == nil || workload.Namespace != inc.Namespace || !imagesMatch(*good, spec) || CompromisedByNow(inc, workload) {
			return false
		}
		return annotations[v1alpha1.RecoveredByAnnotation] == string(inc.UID) || good.Owner.Name != "" && allAnew(inc, workload, *good)
	}
}

// RolledBack reports whether a step of the plan rolls the workload back.
func RolledBack(plan v1alpha1.RecoveryPlanSpec, workload v1alpha1.ObjectRef) bool {
	for _, s := range plan.Steps {
		if s.RollBackImages == nil {
			continue
		}
		for _, w := range s.RollBackImages.Workloads {
			if string(w.Kind) == workload.Kind && w.Name == workload.Name {
				return true
			}
		}
	}
	return false
}

func knownGood(plan v1alpha1.RecoveryPlanSpec, kind, name string) *v1alpha1.KnownGoodImages {
	for i := range plan.Images {
		if w := plan.Images[i].Workload; string(w.Kind) == kind && w.Name == name {
			return &plan.Images[i]
		}
	}
	return nil
}

func imagesMatch(good v1alpha1.KnownGoodImages, spec *corev1.PodSpec) bool {
	if len(good.Containers) == 0 {
		return false // none were chosen yet
	}
	for _, want := range good.Containers {
		if want.FoundIn == v1alpha1.InPods {
			continue // no template has it, and pods tell its digest
		}
		if c := container(spec, want.Name); c == nil || c.Image != want.Image {
			return false
		}
	}
	return true
}

func container(spec *corev1.PodSpec, name string) *corev1.Container {
	for i := range spec.Containers {
		if spec.Containers[i].Name == name {
			return &spec.Containers[i]
		}
	}
	for i := range spec.InitContainers {
		if spec.InitContainers[i].Name == name {
			return &spec.InitContainers[i]
		}
	}
	return nil
}
