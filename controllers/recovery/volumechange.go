package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=list;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=patch

// ready is what is recorded of a staged claim before anything names it: its volume was checked, and nobody has used it since.
const ready = `{"ready":true}`

func changesClaim(step v1alpha1.RecoveryStep) bool {
	return step.RestoreVolumes.CutOver == v1alpha1.CutOverChangeClaim
}

// changeClaims has the Deployments of the step name the staged claims, once all of those are ready. The claims that they have named keep their volumes, and quarantined pods those claims.
func changeClaims(ctx context.Context, x *Execution, all []*restoration) (Outcome, error) {
	for _, phase := range []func(*restoration, context.Context) (Outcome, error){(*restoration).stage, (*restoration).keepOld} {
		out, err := each(all, func(r *restoration) (Outcome, error) { return phase(r, ctx) })
		if err != nil || !out.Done {
			return out, err
		}
	}
	names := map[string]string{}
	for _, r := range all {
		if why := r.unfit(); why != "" {
			return waiting("%s", why), nil
		}
		names[r.choice.Object.Name] = r.stagedName()
	}
	if out, err := rename(ctx, x, all, names, true); err != nil || !out.Done {
		return out, err
	}
	return each(all, func(r *restoration) (Outcome, error) { return r.handOver(ctx) })
}

// returnClaims has the Deployments name the claims again that they have named, and lets the others go.
func returnClaims(ctx context.Context, x *Execution, all []*restoration) (Outcome, error) {
	names := map[string]string{}
	for _, r := range all {
		named := slices.ContainsFunc(r.workloads.all, func(w templated) bool { return w.names(r.stagedName()) })
		if r.was != nil && named && (r.old == nil || !r.boundTo(r.old)) {
			return waiting("%s %s does not have volume %s any more: nothing can be given back; skip the step", claimKind, r.choice.Object.Name, r.was.Spec.VolumeName), nil
		}
		names[r.stagedName()] = r.choice.Object.Name
	}
	if out, err := rename(ctx, x, all, names, false); err != nil || !out.Done {
		return out, err
	}
	return each(all, func(r *restoration) (Outcome, error) { return r.abandon(ctx) })
}

// keepOld holds the volume that the claim has, as evidence.
func (r *restoration) keepOld(ctx context.Context) (Outcome, error) {
	if r.old == nil {
		return done("there is nothing to hold"), nil
	}
	if held, err := r.hold(ctx, r.old, "it is evidence"); err != nil || !held {
		return waiting("%s %s is about to be held as evidence", volumeKind, r.old.Name), err
	}
	return done("%s %s is held", volumeKind, r.old.Name), nil
}

// setReady notes that the staged claim may be named, once nobody uses it.
func (r *restoration) setReady() Outcome {
	for _, p := range podsUsing(r.x.All, r.x.Incident.Namespace, r.stagedName()) {
		return waiting("Pod %s uses %s %s, which is not in place yet: find out who has created it, and delete it", p.Name, claimKind, r.stagedName())
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: claimRef(r.staged), ResourceVersion: r.staged.ResourceVersion, Data: ready})
	return waiting("%s %s is about to be named", claimKind, r.stagedName())
}

// isReady reports whether the staged claim was recorded as ready.
func (r *restoration) isReady() bool {
	return r.fresh != nil && r.staged != nil && r.made.Staged == string(r.staged.UID) && r.x.Recorded(r.step.Name, claimRef(r.staged)) != nil
}

// unfit says why the claim cannot be changed now, or "": something else uses it than what people have approved of.
func (r *restoration) unfit() string {
	consumers, why := r.workloads.consumers(r.choice.Object.Name, r.x.All)
	if why != "" {
		return why
	}
	for _, c := range consumers {
		if !slices.Contains(r.choice.Consumers, c) {
			return fmt.Sprintf("%s %s names %s %s since the recovery has begun, and nobody has approved of changing it: have it name another claim, or declare another Incident", c.Kind, c.Name, claimKind, r.choice.Object.Name)
		}
	}
	return ""
}

// rename has the Deployments of the step name other claims, all of them together: none starts on a new volume while another is kept from it. It waits until no pod that runs names the former claims. Forward says that the
// restored claims are put in place, and not taken back.
func rename(ctx context.Context, x *Execution, all []*restoration, names map[string]string, forward bool) (Outcome, error) {
	var todo []templated
	for _, ref := range consumersOf(all) {
		w := all[0].workloads.find(ref)
		switch {
		case w == nil:
			x.Journal.Done(v1alpha1.ActionChangeClaim, ref)
			if forward {
				return waiting("%s %s, which is to name another claim, does not exist any more: skip the step, or declare another Incident", ref.Kind, ref.Name), nil
			}
		case len(w.changes(names)) > 0:
			if why := w.blocked(x, forward); why != "" {
				return waiting("%s", why), nil
			}
			todo = append(todo, *w)
		default:
			x.Journal.Done(v1alpha1.ActionChangeClaim, w.ref)
			if why := w.unnamed(all, forward); why != "" {
				return waiting("%s", why), nil
			}
			if !w.observed() {
				return waiting("%s %s: its controller has not yet seen the change", ref.Kind, ref.Name), nil
			}
		}
	}
	if len(todo) > 0 {
		return applyNames(ctx, x, todo, names)
	}
	for _, from := range slices.Sorted(maps.Keys(names)) {
		if left := inUse(x, from); forward && left != "" {
			return waiting("%s %s is still used by pods of an old revision: %s", claimKind, from, left), nil
		}
	}
	return done("named"), nil
}

// applyNames changes the templates, once the intent of the last one is durable.
func applyNames(ctx context.Context, x *Execution, todo []templated, names map[string]string) (Outcome, error) {
	durable := true
	for _, w := range todo {
		durable = x.Journal.IntendAnew(v1alpha1.ActionChangeClaim, w.ref, w.told(names)) && durable
	}
	out := waiting("%s %s is about to name %s", todo[0].ref.Kind, todo[0].ref.Name, todo[0].told(names))
	if !durable {
		return out, nil
	}
	for _, w := range todo {
		if err := w.patch(ctx, x, names); err != nil {
			return Outcome{}, err
		}
	}
	return out, nil
}

// consumersOf are the Deployments that people have approved of changing.
func consumersOf(all []*restoration) []v1alpha1.ObjectRef {
	var out []v1alpha1.ObjectRef
	for _, r := range all {
		for _, c := range r.choice.Consumers {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// inUse are the pods that run and name a claim, quarantined ones left out.
func inUse(x *Execution, claim string) string {
	var out []string
	for _, p := range podsUsing(x.All, x.Incident.Namespace, claim) {
		if !target.Ended(p) && !evidencePod(p) {
			out = append(out, p.Name)
		}
	}
	return strings.Join(out, ", ")
}

// changes are the volumes of the template that name a claim which is to be another, with that.
func (w *templated) changes(names map[string]string) []corev1.Volume {
	var out []corev1.Volume
	for _, v := range w.template.Spec.Volumes {
		if v.PersistentVolumeClaim == nil || names[v.PersistentVolumeClaim.ClaimName] == "" {
			continue
		}
		out = append(out, corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: names[v.PersistentVolumeClaim.ClaimName]},
		}})
	}
	return out
}

// told says which claims the template is about to name.
func (w *templated) told(names map[string]string) string {
	var out []string
	for _, v := range w.changes(names) {
		out = append(out, fmt.Sprintf("%s %s as volume %s", claimKind, v.PersistentVolumeClaim.ClaimName, v.Name))
	}
	return strings.Join(out, ", ")
}

// blocked says why the template may not be changed now, or "". Pods of a compromised revision would get the restored volume.
func (w *templated) blocked(x *Execution, forward bool) string {
	if above := ownerAbove(w.object); above != "" {
		return fmt.Sprintf("%s %s is kept by %s, which would undo the change", w.ref.Kind, w.ref.Name, above)
	}
	compromised := slices.ContainsFunc(x.Incident.Status.Revisions, func(r v1alpha1.RevisionStatus) bool { return r.Workload.UID == w.ref.UID })
	if d, ok := w.object.(*appsv1.Deployment); forward && ok && compromised && orOne(d.Spec.Replicas) > 0 && !RecoveredBy(x.Incident)(w.ref, w.template.Annotations, &w.template.Spec) {
		return fmt.Sprintf("%s %s is compromised, and would run on the restored volume: scale it to zero, or roll it back, in an earlier step", w.ref.Kind, w.ref.Name)
	}
	return ""
}

// unnamed says which claim the Deployment should name by now and does not, or "".
func (w *templated) unnamed(all []*restoration, forward bool) string {
	for _, r := range all {
		if forward && slices.Contains(r.choice.Consumers, w.ref) && !w.names(r.stagedName()) {
			return fmt.Sprintf("%s %s names neither %s nor %s any more: find out who has changed that", w.ref.Kind, w.ref.Name, r.choice.Object.Name, r.stagedName())
		}
	}
	return ""
}

// observed reports whether the Deployment's controller has seen its template.
func (w *templated) observed() bool {
	d, ok := w.object.(*appsv1.Deployment)
	return ok && d.Status.ObservedGeneration >= d.Generation
}

// patch changes exactly these volumes of the Deployment that was read.
func (w *templated) patch(ctx context.Context, x *Execution, names map[string]string) error {
	var volumes []any
	for _, v := range w.changes(names) {
		volumes = append(volumes, map[string]any{"name": v.Name, "persistentVolumeClaim": map[string]any{"claimName": v.PersistentVolumeClaim.ClaimName}})
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()},
		"spec":     map[string]any{"template": map[string]any{"spec": map[string]any{"volumes": volumes}}},
	})
	if err != nil {
		return fmt.Errorf("changing the claims of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: w.ref, Detail: "name " + w.told(names)}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Patch(ctx, w.object, client.RawPatch(types.StrategicMergePatchType, body))
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // somebody was faster; the next pass judges anew
		}
		return err
	})
}

// handOver makes the new claim look as the one in whose place it is used, and its volume as its class has it.
func (r *restoration) handOver(ctx context.Context) (Outcome, error) {
	ref := claimRef(r.staged)
	if r.staged.Labels[v1alpha1.IncidentUIDLabel] == "" {
		r.x.Journal.Done(v1alpha1.ActionHandOverClaim, ref)
		if out, err := r.giveBack(ctx, r.fresh, r.made.Policy); err != nil || !out.Done {
			return out, err
		}
		return done("%s", r.told()), nil
	}
	out := waiting("%s %s is about to get the labels of %s", claimKind, r.staged.Name, r.choice.Object.Name)
	if !r.x.Journal.IntendAnew(v1alpha1.ActionHandOverClaim, ref, "it is used in the place of "+r.choice.Object.Name) {
		return out, nil
	}
	labels := map[string]any{v1alpha1.IncidentUIDLabel: nil, "app.kubernetes.io/managed-by": nil}
	annotations := map[string]any{v1alpha1.IncidentAnnotation: nil}
	for k, v := range r.was.Labels {
		labels[k] = v
	}
	for k, v := range r.was.Annotations {
		annotations[k] = v
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": ref.UID, "resourceVersion": r.staged.ResourceVersion, "labels": labels, "annotations": annotations,
	}})
	if err != nil {
		return Outcome{}, fmt.Errorf("handing over %s %s: %w", claimKind, r.staged.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: "labels and annotations of " + r.choice.Object.Name}
	return out, r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Patch(ctx, r.staged, client.RawPatch(types.MergePatchType, body))
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // somebody was faster; the next pass judges anew
		}
		return err
	})
}

// abandon lets the new claim go, once no pod uses it, and no longer holds the volume of the old one.
func (r *restoration) abandon(ctx context.Context) (Outcome, error) {
	name := r.choice.Object.Name
	if r.was == nil {
		return done("%s %s was not touched", claimKind, name), nil
	}
	r.replaced()
	if out, err := r.vacate(ctx, r.stagedName()); err != nil || !out.Done {
		return out, err
	}
	if r.old != nil {
		if out, err := r.giveBack(ctx, r.old, r.was.Policy); err != nil || !out.Done {
			return out, err
		}
	}
	if out, err := r.letGo(ctx); err != nil || !out.Done {
		return out, err
	}
	return done("%s %s is used again, as it was", claimKind, name), nil
}

// ownerAbove is what keeps the object, and would undo a change of it; "" if nothing does.
func ownerAbove(object metav1.Object) string {
	if owner := metav1.GetControllerOf(object); owner != nil {
		return owner.Kind + " " + owner.Name + " (" + owner.APIVersion + ")"
	}
	return ""
}
