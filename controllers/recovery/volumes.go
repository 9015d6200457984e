package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;create;delete
// +kubebuilder:rbac:groups="",resources=persistentvolumes,verbs=get;patch

// restoreVolumes exchanges the volumes of claims for others that are made from snapshots. The new volume is made, held and checked beside the old one; both are set to Retain before a claim is deleted, and the new one is
// reserved for the name of the claim, so that nobody who creates the claim meanwhile, such as a StatefulSet's controller, gets an empty volume.
type restoreVolumes struct{}

func (restoreVolumes) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if why := unsettled(x); why != "" {
		return waiting("%s", why), nil
	}
	all, err := restorations(ctx, x, step)
	if err != nil {
		return Outcome{}, err
	}
	if changesClaim(step) {
		return changeClaims(ctx, x, all)
	}
	// No claim is touched before the last volume is ready, and before the last pod is gone.
	for _, phase := range []func(*restoration, context.Context) (Outcome, error){(*restoration).stage, (*restoration).free, (*restoration).exchange} {
		out, err := each(all, func(r *restoration) (Outcome, error) { return phase(r, ctx) })
		if err != nil || !out.Done {
			return out, err
		}
	}
	messages := make([]string, 0, len(all))
	for _, r := range all {
		messages = append(messages, r.told())
	}
	return done("%s", strings.Join(messages, "; ")), nil
}

// Undo gives every claim the volume back that it had, and lets go of the new one.
func (restoreVolumes) Undo(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	all, err := restorations(ctx, x, step)
	if err != nil {
		return Outcome{}, err
	}
	if changesClaim(step) {
		return returnClaims(ctx, x, all)
	}
	return each(all, func(r *restoration) (Outcome, error) { return r.undo(ctx) })
}

// restoration is one claim that a step restores, as it is now.
type restoration struct {
	x    *Execution
	step v1alpha1.RecoveryStep
	// choice names claim and snapshot.
	choice v1alpha1.StepChoice
	// was is what was recorded of the claim and its volume before anything was changed; nil if nothing was yet.
	was *claimRecord
	// claim is the claim of that name, and staged the one beside it; nil if there is none.
	claim, staged *corev1.PersistentVolumeClaim
	// old is the volume that the claim had, and fresh the one from the snapshot, of which made is recorded; nil if there is none.
	old, fresh *corev1.PersistentVolume
	made       volumeRecord
	// workloads are what may name the claim; only read where the step changes claims.
	workloads workloads
}

// claimRecord is what is needed to put a claim back.
type claimRecord struct {
	Labels      map[string]string                `json:"labels,omitempty"`
	Annotations map[string]string                `json:"annotations,omitempty"`
	Owners      []metav1.OwnerReference          `json:"owners,omitempty"`
	Spec        corev1.PersistentVolumeClaimSpec `json:"spec"`
	VolumeUID   string                           `json:"volumeUID"`
	// Policy is the reclaim policy of its volume.
	Policy corev1.PersistentVolumeReclaimPolicy `json:"policy"`
}

// volumeRecord is what is known of a volume that was made for a claim.
type volumeRecord struct {
	Claim string `json:"claim"`
	// Staged is the UID of the claim that it was made with.
	Staged string                               `json:"staged"`
	Policy corev1.PersistentVolumeReclaimPolicy `json:"policy"`
}

// restorations reads what there is of every claim of the step.
func restorations(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) ([]*restoration, error) {
	var users workloads
	if changesClaim(step) {
		var err error
		if users, err = readWorkloads(ctx, x); err != nil {
			return nil, err
		}
	}
	var out []*restoration
	for _, choice := range x.Choices {
		if choice.Step != step.Name {
			continue
		}
		r := &restoration{x: x, step: step, choice: choice, workloads: users}
		if err := r.read(ctx); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (r *restoration) read(ctx context.Context) error {
	var err error
	if r.claim, err = readClaim(ctx, r.x, r.choice.Object.Name); err != nil {
		return err
	}
	if r.staged, err = readClaim(ctx, r.x, r.stagedName()); err != nil {
		return err
	}
	if record := r.x.Recorded(r.step.Name, r.choice.Object); record != nil {
		r.was = &claimRecord{}
		if err := json.Unmarshal([]byte(record.Data), r.was); err != nil {
			return fmt.Errorf("reading what was recorded of %s %s: %w", claimKind, r.choice.Object.Name, err)
		}
		if r.old, err = readVolumeOf(ctx, r.x, r.was.Spec.VolumeName, r.was.VolumeUID); err != nil {
			return err
		}
	}
	return r.readFresh(ctx)
}

// readFresh finds the newest of the volumes that were made for the claim, are still there, and were not let go.
func (r *restoration) readFresh(ctx context.Context) error {
	status := r.x.Status(r.step.Name)
	if status == nil {
		return nil
	}
	for _, record := range slices.Backward(status.Records) {
		if record.Object.Kind != volumeKind {
			continue
		}
		var made volumeRecord
		if err := json.Unmarshal([]byte(record.Data), &made); err != nil {
			return fmt.Errorf("reading what was recorded of %s %s: %w", volumeKind, record.Object.Name, err)
		}
		if made.Claim != r.choice.Object.Name {
			continue
		}
		volume, err := readVolumeOf(ctx, r.x, record.Object.Name, record.Object.UID)
		if err != nil {
			return err
		}
		if volume != nil && r.keeps(volume) {
			r.fresh, r.made = volume, made
			return nil
		}
		r.settle(record.Object)
	}
	return nil
}

// keeps reports whether a volume that was made is still held, or is the claim's: one that an undo has let go was written to by the workload, or is about to be removed.
func (r *restoration) keeps(volume *corev1.PersistentVolume) bool {
	if volume.Labels[v1alpha1.IncidentUIDLabel] == string(r.x.Incident.UID) || r.reserved(volume) {
		return true
	}
	ref := volume.Spec.ClaimRef
	return ref != nil && r.staged != nil && ref.UID == r.staged.UID
}

// settle notes that nothing is left to be done to a volume that is gone.
func (r *restoration) settle(volume v1alpha1.ObjectRef) {
	for _, action := range []v1alpha1.Action{v1alpha1.ActionHoldVolume, v1alpha1.ActionRebindVolume, v1alpha1.ActionReturnVolume} {
		r.x.Journal.Done(action, volume)
	}
}

// exchanged reports whether the claim has the volume from the snapshot.
func (r *restoration) exchanged() bool {
	return r.claim != nil && r.fresh != nil && r.claim.Spec.VolumeName == r.fresh.Name
}

// under says that the exchange has begun: the new volume, which has passed its check by then, is the claim's, or reserved for it. That the claim is gone says nothing: anybody may have deleted it.
func (r *restoration) under() bool {
	if changesClaim(r.step) {
		return r.isReady()
	}
	return r.fresh != nil && (r.exchanged() || r.reserved(r.fresh))
}

func (r *restoration) told() string {
	if changesClaim(r.step) {
		var names []string
		for _, c := range r.choice.Consumers {
			names = append(names, c.Name)
		}
		return fmt.Sprintf("%s %s has volume %s from snapshot %s, and is named by Deployments %s; %s keeps the volume that it has", claimKind, r.stagedName(), r.fresh.Name, r.choice.Source.Name,
			strings.Join(names, ", "), r.choice.Object.Name)
	}
	kept := "is gone"
	if r.old != nil {
		kept = "is kept"
	}
	return fmt.Sprintf("%s %s has volume %s from snapshot %s; %s, which it had, %s", claimKind, r.choice.Object.Name, r.fresh.Name, r.choice.Source.Name, r.was.Spec.VolumeName, kept)
}

// suffix tells the objects apart that are made for a claim.
func (r *restoration) suffix() string {
	return suffixOf(r.x.Incident, r.step.Name, r.choice.Object.Name)
}

func suffixOf(inc *v1alpha1.Incident, step, claim string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%s", inc.UID, step, claim))
	return hex.EncodeToString(sum[:8])
}

const stagedPrefix = "cofferdam-staged-"

// stagedName is the name of the claim that the new volume is made with. Where a Deployment is to name it, it keeps that name, which says what it is for.
func (r *restoration) stagedName() string {
	if !changesClaim(r.step) {
		return stagedPrefix + r.suffix()
	}
	const most, digits = 253, 8
	tail := "-restored-" + r.suffix()[:digits]
	name := r.choice.Object.Name
	return strings.TrimRight(name[:min(len(name), most-len(tail))], "-.") + tail
}

// free waits until the claim can be exchanged. One that was exchanged may be used.
func (r *restoration) free(ctx context.Context) (Outcome, error) {
	if r.exchanged() {
		return done("exchanged"), nil
	}
	return r.vacate(ctx, r.choice.Object.Name)
}

// vacate waits until no pod uses the claim, those of checks left out. Quarantined pods that do are deleted, if the step says so and nothing is lost by it.
func (r *restoration) vacate(ctx context.Context, claim string) (Outcome, error) {
	var users []string
	for _, p := range podsUsing(r.x.All, r.x.Incident.Namespace, claim) {
		if claim == r.stagedName() && p.Labels[volumeCheckLabel] == string(r.x.Incident.UID) {
			continue
		}
		users = append(users, p.Name)
		if !r.expendable(p) {
			continue
		}
		ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
		if err := DeletePod(ctx, r.x, ref, "it keeps a claim in use whose volume is restored; its evidence is complete"); err != nil {
			return Outcome{}, err
		}
	}
	if len(users) > 0 {
		return waiting("%s %s is used by pods %s: scale their workload to zero in an earlier step; delete quarantined ones when their evidence suffices",
			claimKind, claim, strings.Join(users, ", ")), nil
	}
	return done("not in use"), nil
}

// expendable reports whether the pod may be deleted: it is one of ours, and nothing is lost by it.
func (r *restoration) expendable(p *corev1.Pod) bool {
	return r.step.RestoreVolumes.HoldingPods != v1alpha1.HoldingPodsWait && p.DeletionTimestamp.IsZero() &&
		measure.Holds(p, r.x.Incident.UID) && len(measure.HeldByOthers(p, r.x.Incident.UID)) == 0 && complete(r.x.Evidence, string(p.UID), r.x.GapsWaived)
}

// podsUsing are the pods that keep the claim from being deleted, those that have ended included (k8s.io/kubernetes, pkg/controller/volume/pvcprotection).
func podsUsing(all map[string]*corev1.Pod, namespace, claim string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range all {
		uses := slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		})
		if p.Namespace == namespace && uses {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// readClaim reads a claim in the plan's namespace; nil if there is none.
func readClaim(ctx context.Context, x *Execution, name string) (*corev1.PersistentVolumeClaim, error) {
	var claim corev1.PersistentVolumeClaim
	err := x.Reader.Get(ctx, client.ObjectKey{Namespace: x.Incident.Namespace, Name: name}, &claim)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", claimKind, x.Incident.Namespace, name, err)
	}
	return &claim, nil
}

// readVolume reads a volume; nil if there is none.
func readVolume(ctx context.Context, x *Execution, name string) (*corev1.PersistentVolume, error) {
	var volume corev1.PersistentVolume
	err := x.Reader.Get(ctx, client.ObjectKey{Name: name}, &volume)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", volumeKind, name, err)
	}
	return &volume, nil
}

// readVolumeOf reads a volume, but not a namesake of it.
func readVolumeOf(ctx context.Context, x *Execution, name, uid string) (*corev1.PersistentVolume, error) {
	volume, err := readVolume(ctx, x, name)
	if err != nil || volume == nil || volume.UID != types.UID(uid) {
		return nil, err
	}
	return volume, nil
}
