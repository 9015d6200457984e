package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;create
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;create

// volumeCheckLabel is on the pod of a check. Its value is the UID of the Incident.
const volumeCheckLabel = "containment.cofferdam.dev/volume-check"

// passed is what is recorded of a check that has succeeded. What it was run on is deleted after that.
const passed = `{"passed":true}`

// check runs the job that looks at the new volume, and removes its pod, which would keep the volume in use.
func (r *restoration) check(ctx context.Context) (Outcome, error) {
	if r.step.RestoreVolumes.Check.Image == "" {
		return done("%s %s is ready", volumeKind, r.fresh.Name), nil
	}
	wanted := r.checkJob()
	if r.x.Recorded(r.step.Name, jobRef(wanted)) != nil {
		why, err := r.clearChecks(ctx)
		if err != nil || why != "" {
			return waiting("%s", why), err
		}
		return done("%s %s has passed its check", volumeKind, r.fresh.Name), nil
	}
	name := "Job " + wanted.Namespace + "/" + wanted.Name
	var job batchv1.Job
	err := r.x.Reader.Get(ctx, client.ObjectKeyFromObject(wanted), &job)
	switch {
	case apierrors.IsNotFound(err):
		why, err := former(ctx, r.x, r.step.Name, r.checkName)
		if err != nil || why != "" {
			return waiting("%s", why), err
		}
		return r.startCheck(ctx, wanted)
	case err != nil:
		return Outcome{}, fmt.Errorf("reading %s: %w", name, err)
	case job.Labels[v1alpha1.IncidentUIDLabel] != string(r.x.Incident.UID):
		return failed("%s is somebody else's: delete or rename it, and retry the step", name), nil
	}
	out := judgeJob(&job, name)
	switch {
	case out.Failed:
		return failed("the volume from snapshot %s did not pass its check, and nothing was exchanged: %s", r.choice.Source.Name, out.Message), nil
	case out.Done:
		r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: jobRef(wanted), ResourceVersion: job.ResourceVersion, Data: passed})
		return waiting("%s: what it was run with is about to be removed", name), nil
	}
	return out, nil
}

// clearChecks deletes the pods of checks that have ended, failed ones of earlier tries included: they keep the staged claim in use. It says which pod it waits for, or "".
func (r *restoration) clearChecks(ctx context.Context) (string, error) {
	users := podsUsing(r.x.All, r.x.Incident.Namespace, r.stagedName())
	for _, p := range users {
		if p.Labels[volumeCheckLabel] != string(r.x.Incident.UID) || !target.Ended(p) || !p.DeletionTimestamp.IsZero() {
			continue
		}
		ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
		if err := DeletePod(ctx, r.x, ref, "the check that it was for has ended, and it keeps the volume in use"); err != nil {
			return "", err
		}
	}
	if len(users) == 0 {
		return "", nil
	}
	return fmt.Sprintf("waits until Pod %s, which uses %s, is gone", users[0].Name, r.stagedName()), nil
}

// startCheck creates the job, once its pod is known to have no network.
func (r *restoration) startCheck(ctx context.Context, job *batchv1.Job) (Outcome, error) {
	deny := r.checkPolicy()
	if why, err := r.undenied(ctx, deny); err != nil || why != "" {
		return waiting("%s", why), err
	}
	pod := &corev1.Pod{ObjectMeta: *job.Spec.Template.ObjectMeta.DeepCopy(), Spec: *job.Spec.Template.Spec.DeepCopy()}
	pod.Namespace = job.Namespace
	if leaks := r.x.Leaks(pod, deny); len(leaks) > 0 {
		return waiting("the check of %s does not start, because it would not be isolated: %s", r.stagedName(), strings.Join(leaks, "; ")), nil
	}
	return startJob(ctx, r.x, job)
}

// undenied says why the policy is not in force yet, or "", and creates it if there is none.
func (r *restoration) undenied(ctx context.Context, deny *networkingv1.NetworkPolicy) (string, error) {
	name := fmt.Sprintf("NetworkPolicy %s/%s", deny.Namespace, deny.Name)
	var there networkingv1.NetworkPolicy
	err := r.x.Reader.Get(ctx, client.ObjectKeyFromObject(deny), &there)
	switch {
	case err == nil && equality.Semantic.DeepEqual(there.Spec, deny.Spec):
		return "", nil
	case err == nil:
		return name + ", which isolates the checks of volumes, was changed: delete it, and it is created anew", nil
	case !apierrors.IsNotFound(err):
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: "NetworkPolicy", Namespace: deny.Namespace, Name: deny.Name}, Detail: "deny the checks of volumes everything"}
	return name + " is about to be created, for the checks of volumes", r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, deny))
	})
}

// checkPolicy denies every check of the Incident everything. It goes with the Incident.
func (r *restoration) checkPolicy() *networkingv1.NetworkPolicy {
	inc := r.x.Incident
	selector := metav1.LabelSelector{MatchLabels: map[string]string{volumeCheckLabel: string(inc.UID)}}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: inc.Namespace, Name: "cofferdam-checks-" + string(inc.UID), Annotations: measure.OwnedAnnotations(inc),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Incident", Name: inc.Name, UID: inc.UID}},
		},
		Spec: isolation.DenySpec(selector, nil),
	}
}

// checkJob is the job that looks at this volume in this try.
func (r *restoration) checkJob() *batchv1.Job {
	labels := measure.OwnedLabels(r.x.Incident)
	labels[RecoveryJobLabel] = r.step.Name
	check := r.step.RestoreVolumes.Check
	limit := int64(check.TimeoutSeconds)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.x.Incident.Namespace, Name: r.checkName(r.x.tries(r.step.Name)), Labels: labels, Annotations: measure.OwnedAnnotations(r.x.Incident),
		},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)), ActiveDeadlineSeconds: &limit,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{volumeCheckLabel: string(r.x.Incident.UID)}},
				Spec:       r.checkPod(check),
			},
		},
	}
}

func (r *restoration) checkName(try int32) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/check/%s/%d", r.suffix(), r.fresh.UID, try))
	return "cofferdam-check-" + hex.EncodeToString(sum[:8])
}

func (r *restoration) checkPod(check v1alpha1.VolumeCheck) corev1.PodSpec {
	readOnly := check.Access != "ReadWrite"
	c := corev1.Container{Name: "check", Image: check.Image, Command: slices.Clone(check.Command), Args: slices.Clone(check.Args)}
	if ptr.Deref(r.was.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock {
		c.VolumeDevices = []corev1.VolumeDevice{{Name: "volume", DevicePath: check.MountPath}}
	} else {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "volume", MountPath: check.MountPath, ReadOnly: readOnly}}
	}
	return corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false), Containers: []corev1.Container{c},
		Volumes: []corev1.Volume{{Name: "volume", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: r.stagedName(), ReadOnly: readOnly},
		}}},
	}
}
