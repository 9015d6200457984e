package recovery

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets,verbs=patch
// +kubebuilder:rbac:groups=batch,resources=cronjobs,verbs=patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=delete

// rollBackImages brings pod templates to known-good images, and believes only the pods.
type rollBackImages struct{}

func (rollBackImages) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if why := unsettled(x); why != "" {
		return waiting("%s", why), nil
	}
	return each(step.RollBackImages.Workloads, func(ref v1alpha1.WorkloadRef) (Outcome, error) {
		if createdAnew(ref.Kind) {
			return recreate(ctx, x, step, ref)
		}
		return rollBack(ctx, x, step, ref)
	})
}

// unsettled says which evidence is still being collected: a rollout deletes pods, and nothing is destroyed before its evidence is settled.
func unsettled(x *Execution) string {
	n := 0
	for _, e := range x.Evidence {
		if e.State == v1alpha1.EvidencePending {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("waits for %d evidence items to be collected or declared as gaps; see status.evidence", n)
}

func rollBack(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, ref v1alpha1.WorkloadRef) (Outcome, error) {
	blocked := step.RollBackImages.BlockedReplacements
	w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
	if err != nil {
		return Outcome{}, err
	}
	if w == nil {
		return waiting("%s", why), nil
	}
	good := knownGood(x.Plan, string(ref.Kind), ref.Name)
	if good == nil {
		return waiting("%s %s has no known-good images in the plan", ref.Kind, ref.Name), nil
	}
	if why := cmp.Or(compromisedGood(*good, x.Incident.Spec.CompromisedDigests, x.Verified), keepsCompromised(w, *good, x.Incident.Spec.CompromisedDigests)); why != "" {
		return waiting("%s", why), nil
	}
	if good.Owner.Name != "" {
		w.partition = 0 // what keeps the workload would put it back
	}
	patch, detail, impossible, err := nextChange(ctx, x, step, w, *good)
	switch {
	case err != nil:
		return Outcome{}, err
	case impossible != "":
		return waiting("%s", impossible), nil
	case patch != nil:
		if why, err := recordTemplate(x, step, w, *good); err != nil || why != "" {
			return failed("%s", why), err
		}
		// Names are freed first: the StatefulSet controller tries ever more rarely to create a pod whose name is taken, and it is the change of the template that
		// wakes it. The intent is durable by then, so that the change comes in the pass that sees a name to be free, before a pod of the compromised template takes it.
		x.Journal.IntendAnew(v1alpha1.ActionRollBackImages, w.changed(), detail)
		if err := unblock(ctx, x, w, blocked); err != nil {
			return Outcome{}, err
		}
		if left := blockers(x, w); left != "" {
			return waiting("%s %s: %s", ref.Kind, ref.Name, left), nil
		}
		return applyChange(ctx, x, w, patch, detail)
	}
	return prove(ctx, x, step, w, *good)
}

// prove has the pods replaced of a workload whose template is right, and waits until they prove it.
func prove(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, w *workload, good v1alpha1.KnownGoodImages) (Outcome, error) {
	x.Journal.Done(v1alpha1.ActionRollBackImages, w.changed())
	if w.hashLabel == "" {
		return done("%s %s has known-good images", w.ref.Kind, w.ref.Name), nil
	}
	if err := unblock(ctx, x, w, step.RollBackImages.BlockedReplacements); err != nil {
		return Outcome{}, err
	}
	if step.RollBackImages.OldPods != v1alpha1.OldPodsWait {
		if why, err := replaceOldPods(ctx, x, w); err != nil || why != "" {
			return waiting("%s %s: %s", w.ref.Kind, w.ref.Name, why), err
		}
	}
	out := judge(x, w, good)
	if !out.Done {
		return out, nil
	}
	if returned, err := returnPartition(ctx, x, step.Name, w); err != nil || !returned {
		return waiting("%s; its partition is about to be as it was", out.Message), err
	}
	return out, nil
}

// nextChange is the patch that brings the workload to what the step is for; see change.
func nextChange(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, w *workload, good v1alpha1.KnownGoodImages) (patch []byte, detail, impossible string, err error) {
	switch {
	case good.Owner.Name != "":
		impossible, err = changeOwner(ctx, x, step, w, good)
		return nil, "", impossible, err
	case ownerAbove(w.object) != "":
		return nil, "", keptAbove(ctx, x, w), nil
	case step.RollBackImages.Restore == v1alpha1.RestoredTemplate:
		return changeTemplate(ctx, x, step.Name, w, good)
	}
	patch, detail, impossible = w.change(good, string(x.Incident.UID))
	return patch, detail, impossible, nil
}

func applyChange(ctx context.Context, x *Execution, w *workload, patch []byte, detail string) (Outcome, error) {
	ref := w.changed()
	out := waiting("%s %s is about to get its known-good images", w.ref.Kind, w.ref.Name)
	if !x.Journal.IntendAnew(v1alpha1.ActionRollBackImages, ref, detail) {
		return out, nil
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}
	err := x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, w.object, client.RawPatch(w.patchType(), patch))
	})
	if apierrors.IsConflict(err) {
		return out, nil // somebody was faster; the next pass judges anew
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("rolling back the images of %s %s/%s: %w", ref.Kind, ref.Namespace, ref.Name, err)
	}
	return out, nil
}

// judge believes only pods: every pod of the workload has to be of the new revision, ready, and report the known-good digests. What the controller
// says is not enough: with OnDelete or a partition it reports success while compromised pods still run.
func judge(x *Execution, w *workload, good v1alpha1.KnownGoodImages) Outcome {
	name := w.ref.Kind + " " + w.ref.Name
	switch {
	case w.paused:
		return waiting("%s is paused: resume its rollout (kubectl rollout resume)", name)
	case w.halted != "":
		return waiting("%s %s", name, w.halted)
	case !w.observed || w.hash == "":
		return waiting("%s: its controller has not yet seen the change", name)
	}
	var old, notReady []string
	proven := int32(0)
	for _, p := range workloadPods(x.All, w) {
		switch {
		case target.Ended(p): // an evicted pod may stay for ever, and runs nothing
		case p.Labels[w.hashLabel] != w.hash:
			old = append(old, p.Name)
		default:
			if why := unproven(x, p, good); why != "" {
				notReady = append(notReady, p.Name+" "+why)
			} else {
				proven++
			}
		}
	}
	switch {
	case len(old) > 0:
		return waiting("%s: pods of an old revision still run: %s", name, strings.Join(old, ", "))
	case len(notReady) > 0:
		return waiting("%s: %s", name, strings.Join(notReady, ", "))
	case proven < w.wanted:
		if left := blockers(x, w); left != "" {
			return waiting("%s: %d of %d pods run the known-good images; %s", name, proven, w.wanted, left)
		}
		return waiting("%s: %d of %d pods run the known-good images", name, proven, w.wanted)
	}
	return done("%s: %d pods run revision %s with the known-good digests", name, proven, w.hash)
}

// unproven says why a pod of the new revision does not count yet, or "".
func unproven(x *Execution, pod *corev1.Pod, good v1alpha1.KnownGoodImages) string {
	if !pod.DeletionTimestamp.IsZero() {
		return "is being deleted"
	}
	if !isReady(pod) {
		return "is not ready"
	}
	return wrongImage(x, pod, good)
}

// wrongImage says which container does not report its known-good digest, or which one, listed or not, in the template or injected since, reports one that is known to be compromised; or "".
func wrongImage(x *Execution, pod *corev1.Pod, good v1alpha1.KnownGoodImages) string {
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, want := range good.Containers {
		i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == want.Name })
		if i < 0 {
			return "reports no status of container " + want.Name
		}
		if got := digestOf(statuses[i].ImageID); !slices.Contains(x.accepted(want.Image), got) || slices.Contains(x.Incident.Spec.CompromisedDigests, got) {
			return fmt.Sprintf("reports digest %q for container %s, not %s", got, want.Name, digestOf(want.Image))
		}
	}
	if name, digest := RunsCompromised(pod, x.Incident.Spec.CompromisedDigests); name != "" {
		return fmt.Sprintf("reports the compromised digest %s for container %s", digest, name)
	}
	return ""
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// digestOf returns the part of an image reference, or of an imageID, behind the "@"; of an imageID without one, the digest of the configuration that it is.
func digestOf(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	image = strings.TrimPrefix(image, "docker://")
	if bareDigest.MatchString(image) {
		return "sha256:" + image
	}
	return image
}

// bareDigest is how CRI-O names an image by its configuration.
var bareDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// workloadPods are the pods that the workload owns now. Quarantined pods that were detached are not among them.
func workloadPods(all map[string]*corev1.Pod, w *workload) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range all {
		owner := metav1.GetControllerOf(p)
		if p.Namespace == w.ref.Namespace && owner != nil && slices.Contains(w.owners, string(owner.UID)) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// blocking are the quarantined pods of a StatefulSet whose names their replacements need: the controller gets AlreadyExists for as long as they
// exist.
func blocking(x *Execution, w *workload) []*corev1.Pod {
	if w.ref.Kind != "StatefulSet" {
		return nil
	}
	var out []*corev1.Pod
	for _, s := range x.Pods {
		p := x.All[s.UID]
		if s.Owner.UID == w.ref.UID && p != nil && slices.Contains(w.names, p.Name) && metav1.GetControllerOf(p) == nil && measure.Holds(p, x.Incident.UID) {
			out = append(out, p)
		}
	}
	return out
}

func blockers(x *Execution, w *workload) string {
	var names []string
	for _, p := range blocking(x, w) {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("quarantined pods hold the names of their replacements: %s; delete them when their evidence suffices", strings.Join(names, ", "))
}

// unblock deletes quarantined pods that hold the names of their replacements, once nothing would be lost by it.
func unblock(ctx context.Context, x *Execution, w *workload, how v1alpha1.BlockedReplacement) error {
	if how == v1alpha1.BlockedReplacementWait {
		return nil
	}
	for _, p := range blocking(x, w) {
		if !p.DeletionTimestamp.IsZero() || !complete(x.Evidence, string(p.UID), x.GapsWaived) || len(measure.HeldByOthers(p, x.Incident.UID)) > 0 {
			continue
		}
		ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
		if err := DeletePod(ctx, x, ref, "it holds the name that its replacement needs; its evidence is complete"); err != nil {
			return err
		}
	}
	return nil
}

// DeletePod deletes exactly this pod, once the intent is durable.
func DeletePod(ctx context.Context, x *Execution, ref v1alpha1.ObjectRef, why string) error {
	if !x.Journal.Intend(v1alpha1.ActionDeletePod, ref, why) {
		return nil
	}
	op := v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name}}
		uid := types.UID(ref.UID)
		err := c.Delete(ctx, pod, client.Preconditions{UID: &uid})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or replaced by a namesake: the next pass sees which.
		}
		if err != nil {
			return fmt.Errorf("deleting Pod %s/%s: %w", ref.Namespace, ref.Name, err)
		}
		return nil
	})
}

// NoteGone records of the pods that were to be deleted that they are gone.
func NoteGone(x *Execution) {
	for _, e := range x.Journal.Entries() {
		if e.Action == v1alpha1.ActionDeletePod && x.All[e.Object.UID] == nil {
			x.Journal.Done(e.Action, e.Object)
		}
	}
}

// complete reports whether every evidence item of the pod is collected, or waived, and there is at least one.
func complete(items []v1alpha1.EvidenceItem, podUID string, gapsWaived bool) bool {
	n := 0
	for _, e := range items {
		if !slices.Contains(e.Pods, podUID) {
			continue
		}
		lacking := e.State == v1alpha1.EvidenceGap || e.State == v1alpha1.EvidencePartial
		if e.State != v1alpha1.EvidenceCollected && (!lacking || !gapsWaived) {
			return false
		}
		n++
	}
	return n > 0
}
