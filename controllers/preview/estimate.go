package preview

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// Estimate is about how long the recovery takes from now on. What people take is not in it.
type Estimate struct {
	// Total is the time of the longest way through the steps.
	Total metav1.Duration `json:"total,omitzero"`
	// Approvals is how many approve steps are still to come.
	Approvals int        `json:"approvals"`
	Downtime  []Downtime `json:"downtime,omitempty"`
}

// Downtime is about how long a workload serves nobody from now on, or from when it is scaled to zero.
type Downtime struct {
	Workload v1alpha1.WorkloadRef `json:"workload"`
	For      metav1.Duration      `json:"for,omitzero"`
	Why      string               `json:"why"`
}

// How long things take of which nothing tells it.
const (
	guessedStage = time.Minute // a volume from a snapshot
	guessedJob   = time.Minute
	guessedSync  = 10 * time.Second
)

// takes is about how long a step takes.
func (f *facts) takes(step v1alpha1.RecoveryStep) time.Duration {
	total := time.Duration(0)
	switch {
	case step.RollBackImages != nil:
		for _, ref := range step.RollBackImages.Workloads {
			if w := f.workloads[ref]; w != nil && w.replicas > 0 {
				total = max(total, w.down()+w.up())
			}
		}
	case step.Scale != nil:
		for _, s := range step.Scale.Workloads {
			w := f.workloads[v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name}]
			switch {
			case w == nil:
			case step.Scale.To == v1alpha1.ScaleToZero:
				total = max(total, w.down())
			default:
				total = max(total, w.up())
			}
		}
	case step.RestoreVolumes != nil:
		total = guessedStage
		if step.RestoreVolumes.Check.Image != "" {
			total += guessedJob
		}
	case step.RunJob != nil:
		total = guessedJob
	case step.RotateSecrets != nil:
		total = guessedSync
	case step.PauseGitOps != nil, step.ResumeGitOps != nil:
		total = guessedSync
	case step.Release != nil:
		total = time.Duration(step.Release.ObserveSeconds) * time.Second
	}
	return total
}

// estimate follows the steps that are not over yet.
func (f *facts) estimate(x *recovery.Execution) Estimate {
	var out Estimate
	starts, ends := f.schedule(x)
	for _, step := range x.Plan.Steps {
		out.Total.Duration = max(out.Total.Duration, ends[step.Name])
		if step.Approve != nil && ends[step.Name] >= 0 && !over(x, step.Name) {
			out.Approvals++
		}
	}
	for _, good := range x.Plan.Images {
		out.Downtime = append(out.Downtime, f.isolated(x, good.Workload, ends)...)
	}
	for _, step := range x.Plan.Steps {
		if step.Scale == nil || step.Scale.To != v1alpha1.ScaleToZero {
			continue
		}
		for _, s := range step.Scale.Workloads {
			ref := v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name}
			if slices.ContainsFunc(out.Downtime, func(d Downtime) bool { return d.Workload == ref }) {
				continue
			}
			if back := backAt(x, ref, ends); back > 0 {
				out.Downtime = append(out.Downtime, Downtime{Workload: ref, For: metav1.Duration{Duration: back - starts[step.Name]}, Why: "from step " + step.Name + " until it has its replicas again"})
			} else {
				out.Downtime = append(out.Downtime, Downtime{Workload: ref, Why: "scaled to zero by step " + step.Name + ", and no step scales it back"})
			}
		}
	}
	return out
}

// isolated is the downtime of a workload that is quarantined: until it is released.
func (f *facts) isolated(x *recovery.Execution, ref v1alpha1.WorkloadRef, ends map[string]time.Duration) []Downtime {
	held := slices.ContainsFunc(x.Incident.Status.Revisions, func(r v1alpha1.RevisionStatus) bool {
		return r.State != v1alpha1.RevisionReleased && r.Workload.Namespace == x.Incident.Namespace && r.Workload.Kind == string(ref.Kind) && r.Workload.Name == ref.Name
	})
	if !held {
		return nil
	}
	for _, step := range x.Plan.Steps {
		if step.RollBackImages == nil || !slices.Contains(step.RollBackImages.Workloads, ref) {
			continue
		}
		// A recovered revision comes out free before anything is released.
		back := max(ends[step.Name], backAt(x, ref, ends))
		return []Downtime{{Workload: ref, For: metav1.Duration{Duration: back}, Why: "quarantined until it runs its known-good revision"}}
	}
	return []Downtime{{Workload: ref, Why: "quarantined, and rolled back by no step"}}
}

// backAt is when the workload has its replicas again, or zero.
func backAt(x *recovery.Execution, ref v1alpha1.WorkloadRef, ends map[string]time.Duration) time.Duration {
	at := time.Duration(0)
	for _, step := range x.Plan.Steps {
		if step.Scale != nil && step.Scale.To != v1alpha1.ScaleToZero && slices.ContainsFunc(step.Scale.Workloads, func(s v1alpha1.ScaledWorkload) bool {
			return v1alpha1.RecoverableKind(s.Kind) == ref.Kind && s.Name == ref.Name
		}) {
			at = max(at, ends[step.Name])
		}
	}
	return at
}

func over(x *recovery.Execution, step string) bool {
	rec := x.Incident.Status.Recovery
	return rec != nil && slices.ContainsFunc(rec.Steps, func(s v1alpha1.StepStatus) bool { return s.Name == step && recovery.Settled(s.State) })
}

// schedule is when each step starts and ends if it waits for nothing but the steps that it depends on. The plan has no circles.
func (f *facts) schedule(x *recovery.Execution) (starts, ends map[string]time.Duration) {
	starts, ends = map[string]time.Duration{}, map[string]time.Duration{}
	byName := map[string]v1alpha1.RecoveryStep{}
	for _, step := range x.Plan.Steps {
		byName[step.Name] = step
	}
	var end func(name string) time.Duration
	end = func(name string) time.Duration {
		if at, known := ends[name]; known {
			return at
		}
		step := byName[name]
		for _, d := range step.DependsOn {
			starts[name] = max(starts[name], end(d))
		}
		ends[name] = starts[name]
		if !over(x, name) {
			ends[name] += f.takes(step)
		}
		return ends[name]
	}
	for _, step := range x.Plan.Steps {
		end(step.Name)
	}
	return starts, ends
}
