package recovery

import (
	"cmp"
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Examination looks, while nothing is wrong, whether a plan would work today.
type Examination struct {
	// Client reads, and asks what the operator may do.
	Client    client.Client
	Namespace string
	Plan      v1alpha1.RecoveryPlanSpec
	Now       time.Time

	answers map[need]string
}

// Finding says why a plan would not work, with a reason of its Ready condition; it is empty when nothing was found.
type Finding struct {
	Reason, Why string
}

// Examiner is an Action that can tell beforehand that it would not work. What cannot be found out is an error.
type Examiner interface {
	Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error)
}

// Examine returns the first thing that would keep a step from working.
func Examine(ctx context.Context, e *Examination) (Finding, error) {
	e.answers = map[need]string{}
	for _, step := range e.Plan.Steps {
		found, err := e.step(ctx, step)
		if err != nil {
			return Finding{}, fmt.Errorf("step %s: %w", step.Name, err)
		}
		if found.Why != "" {
			return Finding{Reason: found.Reason, Why: fmt.Sprintf("step %s: %s", step.Name, found.Why)}, nil
		}
	}
	return Finding{}, nil
}

func (e *Examination) step(ctx context.Context, step v1alpha1.RecoveryStep) (Finding, error) {
	if examiner, ok := ActionFor(step).(Examiner); ok {
		if found, err := examiner.Examine(ctx, e, step); err != nil || found.Why != "" {
			return found, err
		}
	}
	return e.readable(ctx, step.Gate)
}

// need is something that the operator has to be allowed to do.
type need struct{ verb, group, resource, namespace string }

// allowed says which of the needs the operator is not allowed.
func (e *Examination) allowed(ctx context.Context, needs ...need) (Finding, error) {
	for _, n := range needs {
		why, known := e.answers[n]
		if !known {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: n.verb, Group: n.group, Resource: n.resource, Namespace: n.namespace},
			}}
			if err := e.Client.Create(ctx, review); err != nil {
				return Finding{}, fmt.Errorf("asking whether the operator may %s %s: %w", n.verb, n.resource, err)
			}
			if !review.Status.Allowed {
				why = fmt.Sprintf("the operator may not %s %s in namespace %s: grant it to its service account, or change the plan", n.verb, schema.GroupResource{Group: n.group, Resource: n.resource}, cmp.Or(n.namespace, e.Namespace))
			}
			e.answers[n] = why
		}
		if why != "" {
			return Finding{v1alpha1.ReasonMissingPermission, why}, nil
		}
	}
	return Finding{}, nil
}

// readable says which of the objects the operator could not look at.
func (e *Examination) readable(ctx context.Context, looks *v1alpha1.VerifyStep) (Finding, error) {
	if looks == nil {
		return Finding{}, nil
	}
	if runsJobs(looks) {
		if found, err := e.allowed(ctx, need{"create", "batch", "jobs", e.Namespace}); err != nil || found.Why != "" {
			return found, err
		}
	}
	for _, o := range looks.Objects {
		gv, err := schema.ParseGroupVersion(o.APIVersion)
		if err != nil {
			return Finding{v1alpha1.ReasonUnknownKind, fmt.Sprintf("apiVersion %q cannot be read: %v", o.APIVersion, err)}, nil
		}
		mapping, err := e.Client.RESTMapper().RESTMapping(gv.WithKind(o.Kind).GroupKind(), gv.Version)
		switch {
		case apimeta.IsNoMatchError(err):
			return Finding{v1alpha1.ReasonUnknownKind, fmt.Sprintf("the cluster does not serve %s of %s: install it, or correct the plan", o.Kind, o.APIVersion)}, nil
		case err != nil:
			return Finding{}, fmt.Errorf("looking up %s of %s: %w", o.Kind, o.APIVersion, err)
		}
		if found, err := e.allowed(ctx, need{"get", mapping.Resource.Group, mapping.Resource.Resource, e.Namespace}); err != nil || found.Why != "" {
			return found, err
		}
	}
	return Finding{}, nil
}

// resources are what has to be allowed to change workloads of a kind.
var resources = map[v1alpha1.RecoverableKind][]need{
	"Deployment": {{verb: "patch", group: "apps", resource: "deployments"}}, "StatefulSet": {{verb: "patch", group: "apps", resource: "statefulsets"}},
	"DaemonSet": {{verb: "patch", group: "apps", resource: "daemonsets"}}, "CronJob": {{verb: "patch", group: "batch", resource: "cronjobs"}},
	"Rollout": {{verb: "patch", group: "argoproj.io", resource: "rollouts"}},
	"Job":     {{verb: "create", group: "batch", resource: "jobs"}, {verb: "delete", group: "batch", resource: "jobs"}},
	"Pod":     {{verb: "create", resource: "pods"}, {verb: "delete", resource: "pods"}},
}

// patchable says which of the workloads the operator may not change.
func (e *Examination) patchable(ctx context.Context, workloads []v1alpha1.WorkloadRef) (Finding, error) {
	for _, w := range workloads {
		for _, n := range resources[w.Kind] {
			n.namespace = e.Namespace
			if found, err := e.allowed(ctx, n); err != nil || found.Why != "" {
				return found, err
			}
		}
	}
	return Finding{}, nil
}

// exists says which of the workloads does not exist.
func (e *Examination) exists(ctx context.Context, workloads []v1alpha1.WorkloadRef) (Finding, error) {
	for _, ref := range workloads {
		w, why, err := readWorkload(ctx, e.Client, e.Namespace, ref)
		if err != nil {
			return Finding{}, err
		}
		if w == nil {
			return Finding{v1alpha1.ReasonUnknownWorkload, why}, nil
		}
	}
	return Finding{}, nil
}

// Examine finds whether the operator may change the workloads, and delete the pods that their controllers leave.
func (rollBackImages) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	if found, err := e.patchable(ctx, step.RollBackImages.Workloads); err != nil || found.Why != "" {
		return found, err
	}
	return e.allowed(ctx, need{"delete", "", "pods", e.Namespace})
}

// Examine finds whether the workloads exist, and the operator may change them.
func (scale) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	var workloads []v1alpha1.WorkloadRef
	for _, s := range step.Scale.Workloads {
		workloads = append(workloads, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(s.Kind), Name: s.Name})
	}
	if found, err := e.exists(ctx, workloads); err != nil || found.Why != "" {
		return found, err
	}
	return e.patchable(ctx, workloads)
}

// Examine finds whether the operator may run a job.
func (runJob) Examine(ctx context.Context, e *Examination, _ v1alpha1.RecoveryStep) (Finding, error) {
	return e.allowed(ctx, need{"create", "batch", "jobs", e.Namespace})
}

// Examine finds whether the operator can look at what is verified.
func (verify) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	return e.readable(ctx, step.Verify)
}

// Examine finds whether the operator can look at what is watched.
func (release) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	return e.readable(ctx, &step.Release.Watched)
}

// Examine finds whether every claim has a snapshot that would do if an incident were declared now, and whether volumes of its class can be made from it.
func (restoreVolumes) Examine(ctx context.Context, e *Examination, step v1alpha1.RecoveryStep) (Finding, error) {
	needs := []need{{"create", "", "persistentvolumeclaims", e.Namespace}, {"delete", "", "persistentvolumeclaims", e.Namespace}, {"patch", "", "persistentvolumes", ""}}
	if step.RestoreVolumes.Check.Image != "" {
		needs = append(needs, need{"create", "batch", "jobs", e.Namespace})
	}
	if found, err := e.allowed(ctx, needs...); err != nil || found.Why != "" {
		return found, err
	}
	old := time.Duration(step.RestoreVolumes.DwellSeconds+ptr.Deref(step.RestoreVolumes.MarginSeconds, 0)) * time.Second
	x := &Execution{Reader: e.Client, Incident: &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace}}}
	s := selection{x: x, before: e.Now.Add(-old), of: map[string][]candidate{}}
	why, err := s.read(ctx, step.RestoreVolumes.Claims)
	if err == nil && why == "" && step.RestoreVolumes.Snapshots == v1alpha1.SnapshotOneGroup {
		why = s.keepOneGroup()
	}
	if err != nil || why != "" {
		return Finding{v1alpha1.ReasonNoUsableSnapshot, why}, err
	}
	return s.examineClasses(ctx, e)
}

// examineClasses finds whether the class of every claim exists, and is of the driver of its volume: another driver makes no volume from the snapshot.
func (s *selection) examineClasses(ctx context.Context, e *Examination) (Finding, error) {
	for _, claim := range s.claims {
		name := ptr.Deref(claim.Spec.StorageClassName, "")
		if name == "" {
			return Finding{v1alpha1.ReasonStorageMismatch, fmt.Sprintf("%s %s names no StorageClass, and no volume can be made for it", claimKind, claim.Name)}, nil
		}
		var class storagev1.StorageClass
		err := e.Client.Get(ctx, client.ObjectKey{Name: name}, &class)
		if apierrors.IsNotFound(err) {
			return Finding{v1alpha1.ReasonStorageMismatch, fmt.Sprintf("StorageClass %s of %s %s does not exist: create it again", name, claimKind, claim.Name)}, nil
		}
		if err != nil {
			return Finding{}, fmt.Errorf("reading StorageClass %s: %w", name, err)
		}
		_, volume, why, err := s.bound(ctx, claim.Name)
		if err != nil || why != "" {
			return Finding{v1alpha1.ReasonStorageMismatch, why}, err
		}
		if class.Provisioner != volume.Spec.CSI.Driver {
			return Finding{v1alpha1.ReasonStorageMismatch, fmt.Sprintf("StorageClass %s of %s %s is of %s, and its volume of %s: no volume of this class can be made from its snapshots",
				name, claimKind, claim.Name, class.Provisioner, volume.Spec.CSI.Driver)}, nil
		}
	}
	return Finding{}, nil
}
