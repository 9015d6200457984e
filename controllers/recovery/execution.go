package recovery

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/target"
)

// Outcome is what a step has come to in this pass.
type Outcome struct {
	// Done says that what the step is for was observed.
	Done bool
	// Message says what was observed, or what the step waits for and what a person can do about it.
	Message string
}

func done(format string, args ...any) Outcome {
	return Outcome{Done: true, Message: fmt.Sprintf(format, args...)}
}

func waiting(format string, args ...any) Outcome {
	return Outcome{Message: fmt.Sprintf(format, args...)}
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
	// Pods are the pods of the Incident with what was done to them, Evidence what was kept, All the live pods of the namespaces by UID.
	Pods     []v1alpha1.PodStatus
	Evidence []v1alpha1.EvidenceItem
	All      map[string]*corev1.Pod
	// GapsWaived says that people have waived the evidence gaps there are: what could not be had holds nothing back any more.
	GapsWaived bool
	// Release lifts quarantine as a release step asks.
	Release func(ctx context.Context, step v1alpha1.ReleaseStep) (Outcome, error)
}

// Action executes one kind of step. Run looks, does what comes next, and says what it waits for. It is idempotent and does not block.
type Action interface {
	Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error)
}

// ActionFor returns the action of a step, or nil when the step has none that is known.
func ActionFor(step v1alpha1.RecoveryStep) Action {
	switch {
	case step.RollBackImages != nil:
		return rollBackImages{}
	case step.Verify != nil:
		return verify{}
	case step.Approve != nil:
		return approve{}
	case step.Release != nil:
		return release{}
	}
	return nil
}

// RecoveredBy tells what the plan of this Incident has brought back: it carries the Incident's mark and runs the known-good images. The mark alone
// proves nothing, since whoever can edit a template can write it.
func RecoveredBy(inc *v1alpha1.Incident) target.Recovered {
	return func(workload v1alpha1.ObjectRef, annotations map[string]string, spec *corev1.PodSpec) bool {
		if inc.Status.Recovery == nil || annotations[v1alpha1.RecoveredByAnnotation] != string(inc.UID) {
			return false
		}
		good := knownGood(inc.Status.Recovery.Plan, workload.Kind, workload.Name)
		return good != nil && workload.Namespace == inc.Namespace && imagesMatch(*good, spec)
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
	for _, want := range good.Containers {
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
