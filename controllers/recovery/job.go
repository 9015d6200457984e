package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;create

// RecoveryJobLabel is on the Job of a step and on its pod. Its value is the name of the step.
const RecoveryJobLabel = "containment.cofferdam.dev/recovery-step"

// runJob runs a Job once. Its name follows from Incident, step and try, so that nothing runs twice, and a step that is retried runs anew.
type runJob struct{}

func (runJob) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return runOnce(ctx, x, step.Name, "", jobFor(x, step))
}

// succeeded is what is recorded of a Job that has: what it was for holds also when somebody clears it away.
const succeeded = `{"succeeded":true}`

// runOnce brings a Job of a step on, which jobOf has made for that purpose. It is created once, whoever deletes it, and its result is remembered.
func runOnce(ctx context.Context, x *Execution, step, purpose string, wanted *batchv1.Job) (Outcome, error) {
	name := "Job " + wanted.Namespace + "/" + wanted.Name
	record := x.Recorded(step, jobRef(wanted))
	if record != nil && record.Data == succeeded {
		return done("%s has succeeded", name), nil
	}
	var job batchv1.Job
	err := x.Reader.Get(ctx, client.ObjectKeyFromObject(wanted), &job)
	switch {
	case apierrors.IsNotFound(err) && record != nil:
		return failed("%s was deleted before it had ended: retry the step", name), nil
	case apierrors.IsNotFound(err):
		why, err := former(ctx, x, step, func(try int32) string { return jobName(x, step, purpose, try) })
		if err != nil || why != "" {
			return waiting("%s", why), err
		}
		return startJob(ctx, x, wanted)
	case err != nil:
		return Outcome{}, fmt.Errorf("reading %s: %w", name, err)
	case job.Labels[v1alpha1.IncidentUIDLabel] != string(x.Incident.UID):
		return failed("%s is somebody else's: delete or rename it, and retry the step", name), nil
	}
	x.Record(step, v1alpha1.StepRecord{Object: jobRef(&job)})
	out := judgeJob(&job, name)
	if record := x.Recorded(step, jobRef(&job)); out.Done && record != nil {
		record.Data = succeeded
	}
	return out, nil
}

// former says which Job of an earlier try has not ended, or "". A step that was skipped, or undone, and is retried finds it running: what it does is not done twice at once.
func former(ctx context.Context, x *Execution, step string, named func(try int32) string) (string, error) {
	for try := range x.tries(step) {
		key := client.ObjectKey{Namespace: x.Incident.Namespace, Name: named(try)}
		var job batchv1.Job
		err := x.Reader.Get(ctx, key, &job)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reading Job %s: %w", key, err)
		}
		if out := judgeJob(&job, ""); job.Labels[v1alpha1.IncidentUIDLabel] == string(x.Incident.UID) && !out.Done && !out.Failed {
			return fmt.Sprintf("Job %s of an earlier try has not ended, and another one is not started beside it: it is waited for; or delete it together with its pods", key), nil
		}
	}
	return "", nil
}

// jobRef leaves the UID out: that the Job was there at all is what has to be known once it is not.
func jobRef(job *batchv1.Job) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "Job", Namespace: job.Namespace, Name: job.Name}
}

func startJob(ctx context.Context, x *Execution, job *batchv1.Job) (Outcome, error) {
	op := v1alpha1.PlannedAction{Verb: "create", Object: jobRef(job), Detail: "run " + job.Spec.Template.Spec.Containers[0].Image}
	err := x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, job)) // the next pass sees whose it is
	})
	return waiting("Job %s/%s is about to run", job.Namespace, job.Name), err
}

func judgeJob(job *batchv1.Job, name string) Outcome {
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return done("%s has succeeded", name)
		case batchv1.JobFailed:
			return failed("%s has failed (%s: %s); see kubectl logs -n %s job/%s", name, c.Reason, c.Message, job.Namespace, job.Name)
		case batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet:
		}
	}
	if job.Status.Active == 0 {
		return waiting("waits for %s, which has no pod: if that stays so, kubectl describe -n %s job/%s says why, such as a quota or the Pod Security of the namespace", name, job.Namespace, job.Name)
	}
	return waiting("waits for %s, of which %d pods are active", name, job.Status.Active)
}

func jobFor(x *Execution, step v1alpha1.RecoveryStep) *batchv1.Job {
	return jobOf(x, step.Name, "", step.RunJob.TimeoutSeconds, jobPod(step.RunJob))
}

// jobOf is a Job of a step, named after Incident, step and try, and after what it is for where a step has several.
func jobOf(x *Execution, step, purpose string, seconds int32, pod corev1.PodSpec) *batchv1.Job {
	labels := measure.OwnedLabels(x.Incident)
	labels[RecoveryJobLabel] = step
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: x.Incident.Namespace, Name: jobName(x, step, purpose, x.tries(step)), Labels: labels, Annotations: measure.OwnedAnnotations(x.Incident)},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)), ActiveDeadlineSeconds: new(int64(seconds)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(labels)}, Spec: pod},
		},
	}
}

func jobName(x *Execution, step, purpose string, try int32) string {
	id := fmt.Appendf(nil, "%s/%s/%d", x.Incident.UID, step, try)
	if purpose != "" {
		id = fmt.Appendf(id, "/%s", purpose)
	}
	sum := sha256.Sum256(id)
	return "cofferdam-" + hex.EncodeToString(sum[:8])
}

func jobPod(run *v1alpha1.RunJobStep) corev1.PodSpec {
	c := corev1.Container{Name: "job", Image: run.Image, Command: slices.Clone(run.Command), Args: slices.Clone(run.Args)}
	for _, secret := range run.EnvFrom {
		c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}})
	}
	spec := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false)}
	for i, claim := range run.Claims {
		name, readOnly := fmt.Sprintf("claim-%d", i), claim.Access != "ReadWrite"
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: claim.MountPath, ReadOnly: readOnly})
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.ClaimName, ReadOnly: readOnly},
		}})
	}
	spec.Containers = []corev1.Container{c}
	return spec
}
