package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
)

// exchange gives the claim the new volume.
func (r *restoration) exchange(ctx context.Context) (Outcome, error) {
	if r.old != nil {
		if held, err := r.hold(ctx, r.old, "it is evidence"); err != nil || !held {
			return waiting("%s %s is about to be held as evidence", volumeKind, r.old.Name), err
		}
	}
	if r.staged != nil {
		return r.dropStaged(ctx)
	}
	return r.bring(ctx, r.fresh, r.old, r.made.Policy)
}

// undo gives the claim the old volume back, from wherever the restoration has come to, and lets the new one go.
func (r *restoration) undo(ctx context.Context) (Outcome, error) {
	name := r.choice.Object.Name
	switch {
	case r.was == nil:
		return done("%s %s was not touched", claimKind, name), nil
	case r.old == nil:
		return waiting("%s %s, which %s had, does not exist any more: nothing can be given back; skip the step", volumeKind, r.was.Spec.VolumeName, name), nil
	case r.claim != nil && !r.claim.DeletionTimestamp.IsZero():
		// Its volume goes with it as soon as the last pod is gone, unless it is held.
		return waiting("waits until %s %s is gone; held by %s", claimKind, name, strings.Join(r.claim.Finalizers, ", ")), nil
	case !r.boundTo(r.old):
		if out, err := r.vacate(ctx, name); err != nil || r.claim != nil && !out.Done {
			return out, err
		}
		if r.fresh != nil {
			if held, err := r.hold(ctx, r.fresh, "it was the volume of "+name); err != nil || !held {
				return waiting("%s %s is about to be held", volumeKind, r.fresh.Name), err
			}
		}
		return r.bring(ctx, r.old, r.fresh, r.was.Policy)
	}
	if out, err := r.giveBack(ctx, r.old, r.was.Policy); err != nil || !out.Done {
		return out, err
	}
	if out, err := r.letGo(ctx); err != nil || !out.Done {
		return out, err
	}
	return done("%s %s has volume %s again", claimKind, name, r.old.Name), nil
}

// boundTo reports whether the claim and the volume are bound to one another, as both say.
func (r *restoration) boundTo(volume *corev1.PersistentVolume) bool {
	return r.claim != nil && r.claim.Spec.VolumeName == volume.Name && volume.Spec.ClaimRef != nil && volume.Spec.ClaimRef.UID == r.claim.UID
}

// letGo gives the new volume the reclaim policy that its class gave it, and leaves it without a claim: the storage removes it, if that is the policy.
func (r *restoration) letGo(ctx context.Context) (Outcome, error) {
	if r.fresh != nil {
		if out, err := r.giveBack(ctx, r.fresh, r.made.Policy); err != nil || !out.Done {
			return out, err
		}
		if ref := r.fresh.Spec.ClaimRef; ref != nil && ref.UID == "" {
			out := waiting("%s %s is about to be let go", volumeKind, r.fresh.Name)
			if !r.x.Journal.IntendAnew(v1alpha1.ActionRebindVolume, volumeRef(r.fresh), "reserve it for nobody any more") {
				return out, nil
			}
			return out, r.reserve(ctx, r.fresh, r.stagedName(), r.made.Staged)
		}
		r.x.Journal.Done(v1alpha1.ActionRebindVolume, volumeRef(r.fresh))
	}
	if r.staged != nil {
		return r.dropStaged(ctx)
	}
	return done("nothing is left"), nil
}

// bring makes the claim be bound to one volume, where it had another. Each pass does one thing:
// the volume is reserved for the name of the claim, then the claim is deleted, then it is created again.
func (r *restoration) bring(ctx context.Context, to, from *corev1.PersistentVolume, policy corev1.PersistentVolumeReclaimPolicy) (Outcome, error) {
	name := r.choice.Object.Name
	if r.claim != nil && r.claim.Spec.VolumeName == to.Name {
		if r.claim.Status.Phase != corev1.ClaimBound || to.Spec.ClaimRef == nil || to.Spec.ClaimRef.UID != r.claim.UID {
			return waiting("waits until %s %s is bound to volume %s", claimKind, name, to.Name), nil
		}
		if !r.claim.DeletionTimestamp.IsZero() {
			return waiting("%s %s is being deleted: it is created again when it is gone", claimKind, name), nil
		}
		return r.giveBack(ctx, to, policy)
	}
	if !r.reserved(to) {
		return r.rebind(ctx, to)
	}
	r.x.Journal.Done(v1alpha1.ActionRebindVolume, volumeRef(to))
	switch {
	// Available says that the controller that binds has seen the reservation: it binds whatever claim has the name to this volume.
	case to.Status.Phase != corev1.VolumeAvailable:
		return waiting("waits until %s %s is available", volumeKind, to.Name), nil
	case r.claim == nil:
		return r.createClaim(ctx, to)
	case r.claim.Spec.VolumeName == "":
		return waiting("waits until %s %s, which somebody else has created, is bound to volume %s", claimKind, name, to.Name), nil
	case from == nil || r.claim.Spec.VolumeName != from.Name:
		return waiting("%s %s has volume %s, which is neither the one that it had nor the restored one: find out who gave it that, and delete the claim", claimKind, name, r.claim.Spec.VolumeName), nil
	}
	return r.deleteClaim(ctx, r.claim, "it gets volume "+to.Name)
}

// reserved reports whether the volume can be bound to nothing but a claim of the name, or is being bound to it.
func (r *restoration) reserved(volume *corev1.PersistentVolume) bool {
	ref := volume.Spec.ClaimRef
	if ref == nil || ref.Namespace != r.x.Incident.Namespace || ref.Name != r.choice.Object.Name {
		return false
	}
	return ref.UID == "" || r.claim != nil && ref.UID == r.claim.UID
}

// rebind reserves a volume that is free of its claim.
func (r *restoration) rebind(ctx context.Context, volume *corev1.PersistentVolume) (Outcome, error) {
	ref := volume.Spec.ClaimRef
	if ref != nil && (ref.Namespace != r.x.Incident.Namespace || ref.Name != r.stagedName() && ref.Name != r.choice.Object.Name) {
		return waiting("%s %s is claimed by %s/%s: find out who gave it away", volumeKind, volume.Name, ref.Namespace, ref.Name), nil
	}
	if volume.Status.Phase == corev1.VolumeBound {
		return waiting("waits until %s %s is released", volumeKind, volume.Name), nil
	}
	if !r.x.Journal.IntendAnew(v1alpha1.ActionRebindVolume, volumeRef(volume), "reserve the volume for "+r.choice.Object.Name) {
		return waiting("%s %s is about to be reserved", volumeKind, volume.Name), nil
	}
	return waiting("%s %s is about to be reserved", volumeKind, volume.Name), r.reserve(ctx, volume, r.choice.Object.Name, "")
}

func (r *restoration) reserve(ctx context.Context, volume *corev1.PersistentVolume, name, uid string) error {
	claim := map[string]any{"apiVersion": "v1", "kind": claimKind, "namespace": r.x.Incident.Namespace, "name": name, "uid": nil, "resourceVersion": nil}
	if uid != "" {
		claim["uid"] = uid
	}
	return r.patchVolume(ctx, volume, "reserve it for "+name, map[string]any{"spec": map[string]any{"claimRef": claim}})
}

// dropStaged deletes the claim that the volume was made with. The volume is held.
func (r *restoration) dropStaged(ctx context.Context) (Outcome, error) {
	// Of a claim whose volume is recorded the UID tells; one that a Deployment was made to name has no mark any more.
	recorded := r.made.Staged != ""
	if recorded && r.made.Staged != string(r.staged.UID) || !recorded && !r.asChosen(r.staged) {
		return waiting("%s %s was not made for this recovery: delete or rename it", claimKind, r.staged.Name), nil
	}
	if why, err := r.clearChecks(ctx); err != nil || why != "" {
		return waiting("%s", why), err
	}
	return r.deleteClaim(ctx, r.staged, "its volume is given to "+r.choice.Object.Name)
}

// deleteClaim deletes exactly this claim, once the intent is durable.
func (r *restoration) deleteClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, why string) (Outcome, error) {
	ref := claimRef(claim)
	if !claim.DeletionTimestamp.IsZero() {
		return waiting("waits until %s %s is gone; held by %s", claimKind, claim.Name, strings.Join(claim.Finalizers, ", ")), nil
	}
	out := waiting("%s %s is about to be replaced", claimKind, claim.Name)
	if !r.x.Journal.IntendAnew(v1alpha1.ActionReplaceClaim, ref, why) {
		return out, nil
	}
	op := v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}
	return out, r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Delete(ctx, claim.DeepCopy(), client.Preconditions{UID: &claim.UID, ResourceVersion: &claim.ResourceVersion})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or changed: the next pass sees which
		}
		return err
	})
}

// createClaim puts the claim back as it was, with another volume.
func (r *restoration) createClaim(ctx context.Context, volume *corev1.PersistentVolume) (Outcome, error) {
	spec := *r.was.Spec.DeepCopy()
	spec.VolumeName, spec.DataSource, spec.DataSourceRef = volume.Name, nil, nil
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.x.Incident.Namespace, Name: r.choice.Object.Name, Labels: r.was.Labels, Annotations: r.was.Annotations, OwnerReferences: lasting(r.was.Owners),
		},
		Spec: spec,
	}
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: claimKind, Namespace: claim.Namespace, Name: claim.Name}, Detail: fmt.Sprintf("with volume %s", volume.Name)}
	err := r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, claim)) // whoever creates it gets this volume
	})
	return waiting("%s %s is about to be created with volume %s", claimKind, claim.Name, volume.Name), err
}

// replaced notes, once the claim is bound again, that the claims are gone that were to be deleted. Until then their intents are open: see Exchanging.
func (r *restoration) replaced() {
	for _, e := range r.x.Journal.Entries() {
		there := r.claim != nil && e.Object.UID == string(r.claim.UID) || r.staged != nil && e.Object.UID == string(r.staged.UID)
		ours := !there && (e.Object.Name == r.choice.Object.Name || e.Object.Name == r.stagedName())
		if (e.Action == v1alpha1.ActionReplaceClaim || e.Action == v1alpha1.ActionHandOverClaim) && e.Object.Namespace == r.x.Incident.Namespace && ours {
			r.x.Journal.Done(e.Action, e.Object)
		}
	}
}

// lasting leaves out owners that are on a claim only because of a StatefulSet's retention policy: its controller puts them on again, and one that is gone would have the claim deleted.
func lasting(owners []metav1.OwnerReference) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, o := range owners {
		if o.Kind != "Pod" && o.Kind != "StatefulSet" {
			out = append(out, o)
		}
	}
	return out
}

// giveBack gives a volume the reclaim policy that it had, and takes the mark off.
func (r *restoration) giveBack(ctx context.Context, volume *corev1.PersistentVolume, policy corev1.PersistentVolumeReclaimPolicy) (Outcome, error) {
	r.replaced()
	ref := volumeRef(volume)
	if volume.Spec.PersistentVolumeReclaimPolicy == policy && volume.Labels[v1alpha1.IncidentUIDLabel] == "" {
		r.x.Journal.Done(v1alpha1.ActionReturnVolume, ref)
		return done("%s %s has volume %s", claimKind, r.choice.Object.Name, volume.Name), nil
	}
	out := waiting("%s %s is about to have its reclaim policy %s again", volumeKind, volume.Name, policy)
	if !r.x.Journal.IntendAnew(v1alpha1.ActionReturnVolume, ref, fmt.Sprintf("reclaim policy %s", policy)) {
		return out, nil
	}
	return out, r.patchVolume(ctx, volume, fmt.Sprintf("set its reclaim policy to %s", policy), map[string]any{
		"metadata": map[string]any{
			"labels":      map[string]any{v1alpha1.IncidentUIDLabel: nil, "app.kubernetes.io/managed-by": nil},
			"annotations": map[string]any{v1alpha1.IncidentAnnotation: nil},
		},
		"spec": map[string]any{"persistentVolumeReclaimPolicy": policy},
	})
}

// Exchanging says what has to come true of a claim that is being exchanged, or of a Deployment that is made to name others, or "". A claim may not be there at all at the moment, and of several Deployments that share one
// some may name another already: nobody but the step that has begun with it brings it to its end.
func Exchanging(j *journal.Journal) string {
	if open := j.Open(v1alpha1.ActionReplaceClaim); len(open) > 0 {
		return fmt.Sprintf("%s %s/%s, whose volume is being exchanged, is there again", claimKind, open[0].Namespace, open[0].Name)
	}
	if open := j.Open(v1alpha1.ActionChangeClaim); len(open) > 0 {
		return fmt.Sprintf("Deployment %s/%s names the claims that it is being made to name", open[0].Namespace, open[0].Name)
	}
	return ""
}

// Exchangers are the indexes of the steps that exchange volumes and have begun to: an Incident is not closed while a claim is missing. What was given up is brought to its end only if it was given up half-way, and what
// people had undone or skipped is theirs.
func Exchangers(inc *v1alpha1.Incident, plan v1alpha1.RecoveryPlanSpec, status []v1alpha1.StepStatus, j *journal.Journal) []int {
	var out []int
	for i, step := range plan.Steps {
		if step.RestoreVolumes == nil {
			continue
		}
		begun := false
		switch status[i].State {
		case v1alpha1.StepRunning, v1alpha1.StepOverdue, v1alpha1.StepUndoing:
			begun = true
		case v1alpha1.StepPending, v1alpha1.StepFailed:
			begun = halfWay(inc, step, j)
		case v1alpha1.StepSucceeded, v1alpha1.StepSkipped, v1alpha1.StepUndone:
		}
		if begun {
			out = append(out, i)
		}
	}
	return out
}

// halfWay reports whether an exchange of the step has begun, and has not come to its end.
func halfWay(inc *v1alpha1.Incident, step v1alpha1.RecoveryStep, j *journal.Journal) bool {
	if changesClaim(step) {
		return len(j.Open(v1alpha1.ActionChangeClaim)) > 0
	}
	return slices.ContainsFunc(j.Open(v1alpha1.ActionReplaceClaim), func(claim v1alpha1.ObjectRef) bool {
		return slices.ContainsFunc(step.RestoreVolumes.Claims, func(name string) bool {
			return claim.Name == name || claim.Name == stagedPrefix+suffixOf(inc, step.Name, name)
		})
	})
}
