package recovery

import (
	"cmp"
	"context"
	"encoding/json"
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
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;create;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;create;delete

// createdAnew reports whether objects of the kind are deleted and created anew, because their images cannot be changed.
func createdAnew(kind v1alpha1.RecoverableKind) bool {
	return kind == v1alpha1.RecoverableJob || kind == v1alpha1.RecoverablePod
}

func readJob(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var j batchv1.Job
	if err := r.Get(ctx, key, &j); err != nil {
		return nil, err
	}
	return &workload{object: &j, template: &j.Spec.Template, observed: true}, nil
}

func readPod(ctx context.Context, r client.Reader, key client.ObjectKey) (*workload, error) {
	var p corev1.Pod
	if err := r.Get(ctx, key, &p); err != nil {
		return nil, err
	}
	return &workload{object: &p, template: &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, observed: true}, nil
}

// recreation is a Job or bare pod that a step creates anew, as it is now.
type recreation struct {
	x    *Execution
	step v1alpha1.RecoveryStep
	name v1alpha1.WorkloadRef
	good v1alpha1.KnownGoodImages
	// current is the object of that name; nil if there is none.
	current *workload
	// origin is the object that was recorded, and was what is needed of it; nil if none was.
	origin v1alpha1.ObjectRef
	was    *objectRecord
	// made reports whether this try has created the object.
	made bool
}

// objectRecord is what is needed to create a Job or a pod anew.
type objectRecord struct {
	Labels      map[string]string       `json:"labels,omitempty"`
	Annotations map[string]string       `json:"annotations,omitempty"`
	Owners      []metav1.OwnerReference `json:"owners,omitempty"`
	Pod         *corev1.PodSpec         `json:"pod,omitempty"`
	Job         *batchv1.JobSpec        `json:"job,omitempty"`
	// Created is, of what a step has created, one more than the try in which it did: there is nothing else to be recorded of it.
	Created int32 `json:"created,omitempty"`
}

// recreate deletes the object, once it is recorded and nothing is lost by it, creates it anew with the known-good images, and believes only pods.
func recreate(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, name v1alpha1.WorkloadRef) (Outcome, error) {
	good := knownGood(x.Plan, string(name.Kind), name.Name)
	if good == nil {
		return waiting("%s %s has no known-good images in the plan", name.Kind, name.Name), nil
	}
	r, why, err := readRecreation(ctx, x, step, name, *good)
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case r.ours():
		if err := r.rememberMade(r.current.ref.UID); err != nil {
			return Outcome{}, err
		}
		// What the former Job had made a moment before it was deleted may be seen only now.
		if why, err := r.clearFormer(ctx); err != nil || why != "" {
			return waiting("%s", why), err
		}
		return r.judge(), nil
	case r.current == nil:
		return r.replace(ctx, why)
	case r.was != nil && r.current.ref.UID != r.origin.UID:
		return waiting("somebody else has created %s %s meanwhile: delete it, or skip the step", name.Kind, name.Name), nil
	case r.over():
		return done("%s %s has ended, and is not run again", name.Kind, name.Name), nil
	}
	if why, err := r.refusal(); err != nil || why != "" {
		return waiting("%s", why), err
	}
	if why, err := r.remember(); err != nil || why != "" {
		return failed("%s", why), err
	}
	return r.remove(ctx, r.current.ref, "it is created anew with known-good images; its evidence is complete")
}

// replace creates what is not there, once what was made by the former one is gone. Missing says that it is not there.
func (r *recreation) replace(ctx context.Context, missing string) (Outcome, error) {
	if r.was == nil {
		return waiting("%s; what was kept of it is in status.evidence: create it by hand with known-good images, and skip the step", missing), nil
	}
	if r.made && r.name.Kind == v1alpha1.RecoverableJob {
		return failed("Job %s was created anew, and is gone before it was seen what came of it: its ttlSecondsAfterFinished may be over, or somebody has deleted it. It is not run twice by itself: skip the step if it has done its work, or have it retried, which runs it once more", r.name.Name), nil
	}
	if why, err := r.clearFormer(ctx); err != nil || why != "" {
		return waiting("%s", why), err
	}
	return r.create(ctx)
}

func readRecreation(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, name v1alpha1.WorkloadRef, good v1alpha1.KnownGoodImages) (*recreation, string, error) {
	r := &recreation{x: x, step: step, name: name, good: good}
	var (
		why string
		err error
	)
	if r.current, why, err = readWorkload(ctx, x.Reader, x.Incident.Namespace, name); err != nil {
		return nil, "", err
	}
	if status := x.Status(step.Name); status != nil {
		for _, record := range slices.Backward(status.Records) {
			if record.Object.Kind != string(name.Kind) || record.Object.Name != name.Name {
				continue
			}
			var was objectRecord
			if err := json.Unmarshal([]byte(record.Data), &was); err != nil {
				return nil, "", fmt.Errorf("reading what was recorded of %s %s: %w", name.Kind, name.Name, err)
			}
			if was.Created > 0 {
				r.made = r.made || was.Created == x.tries(step.Name)+1
				continue
			}
			r.origin, r.was = record.Object, &was
			break
		}
	}
	r.settle()
	return r, why, nil
}

// settle notes that objects of the name are gone that were to be deleted.
func (r *recreation) settle() {
	for _, e := range r.x.Journal.Entries() {
		ours := e.Action == v1alpha1.ActionReplaceWorkload && e.Object.Kind == string(r.name.Kind) && e.Object.Namespace == r.x.Incident.Namespace && e.Object.Name == r.name.Name
		if ours && (r.current == nil || r.current.ref.UID != e.Object.UID) {
			r.x.Journal.Done(e.Action, e.Object)
		}
	}
}

// ours reports whether the object is what this recovery has created in the place of the one that it has recorded.
func (r *recreation) ours() bool {
	return r.current != nil && r.was != nil && r.current.ref.UID != r.origin.UID &&
		r.current.object.GetAnnotations()[v1alpha1.RecoveredByAnnotation] == string(r.x.Incident.UID) && imagesMatch(r.good, &r.current.template.Spec)
}

// over reports whether the object had come to its end, and is nothing to be brought back.
func (r *recreation) over() bool {
	switch o := r.current.object.(type) {
	case *batchv1.Job:
		return jobEnded(o)
	case *corev1.Pod:
		return o.Status.Phase == corev1.PodSucceeded
	}
	return false
}

func jobEnded(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

// refusal says why the object is not deleted now, or "".
func (r *recreation) refusal() (string, error) {
	id := r.current.ref.Kind + " " + r.current.ref.Name
	for _, want := range r.good.Containers {
		if want.FoundIn != v1alpha1.InPods && container(&r.current.template.Spec, want.Name) == nil {
			return fmt.Sprintf("%s has no container %s: correct the plan", id, want.Name), nil
		}
	}
	digests := r.x.Incident.Spec.CompromisedDigests
	if why := cmp.Or(compromisedGood(r.good, digests, r.x.Verified), keepsCompromised(r.current, r.good, digests)); why != "" {
		return why, nil
	}
	why, err := r.unsuitable(id)
	if err != nil || why != "" {
		return why, err
	}
	pods, known := r.pods()
	if !known {
		return id + " is no target of this Incident, so that no evidence of it was collected: name it in spec.targets, or take it out of the plan", nil
	}
	for _, uid := range pods {
		p := r.x.All[uid]
		if p == nil {
			continue
		}
		if !complete(r.x.Evidence, uid, r.x.GapsWaived) {
			return fmt.Sprintf("%s is not deleted: the evidence of Pod %s is not complete; delete it when that suffices", id, p.Name), nil
		}
		if len(measure.HeldByOthers(p, r.x.Incident.UID)) > 0 {
			return fmt.Sprintf("%s is not deleted: another Incident holds Pod %s; it is replaced when that one has let go of it", id, p.Name), nil
		}
	}
	if !r.current.object.GetDeletionTimestamp().IsZero() {
		return fmt.Sprintf("waits until %s is gone", id), nil
	}
	if r.step.RollBackImages.BlockedReplacements == v1alpha1.BlockedReplacementWait {
		if why, err := r.remember(); err != nil || why != "" {
			return why, err
		}
		return id + " holds the name of its replacement: delete it when its evidence suffices", nil
	}
	return "", nil
}

// unsuitable says why the object cannot be created anew, or "": something else would create it again, or it would not be the same.
func (r *recreation) unsuitable(id string) (string, error) {
	if above := ownerAbove(r.current.object); above != "" {
		return fmt.Sprintf("%s is of %s: roll that one back instead", id, above), nil
	}
	switch o := r.current.object.(type) {
	case *batchv1.Job:
		if o.Spec.ManualSelector != nil && *o.Spec.ManualSelector {
			return id + " has a selector of its own (manualSelector), which would select the pods of the former Job too: create it anew by hand under another name, and skip the step", nil
		}
	case *corev1.Pod:
		if o.Annotations[corev1.MirrorPodAnnotationKey] != "" {
			return id + " is a static pod: change its file on the node, and skip the step", nil
		}
		original, err := measure.OriginalOf(o)
		if err != nil {
			return "", err
		}
		if original != nil && original.Owner != nil {
			return fmt.Sprintf("%s was of %s %s: roll that one back instead", id, original.Owner.Kind, original.Owner.Name), nil
		}
	}
	return "", nil
}

// pods are the UIDs of the Incident's pods that go with the object. It reports whether the object is of the Incident at all.
func (r *recreation) pods() (uids []string, known bool) {
	uid := r.current.ref.UID
	known = slices.ContainsFunc(r.x.Incident.Status.Targets, func(t v1alpha1.ResolvedTarget) bool { return t.UID == uid })
	for _, p := range r.x.Pods {
		if p.UID == uid || p.Owner.UID == uid {
			uids = append(uids, p.UID)
		}
	}
	// Of a pod that had ended before there was an Incident nothing was collected.
	return uids, known && r.name.Kind != v1alpha1.RecoverablePod || len(uids) > 0
}

// clearFormer deletes the pods of the former Job that were not detached, once nothing is lost by it. It says what it waits for, or "".
func (r *recreation) clearFormer(ctx context.Context) (string, error) {
	if r.origin.Kind != "Job" {
		return "", nil
	}
	for uid, p := range r.x.All {
		owner := metav1.GetControllerOf(p)
		former := p.Labels[batchv1.ControllerUidLabel] == r.origin.UID && (owner == nil || string(owner.UID) == r.origin.UID)
		if !former || p.Namespace != r.x.Incident.Namespace || target.Ended(p) {
			continue
		}
		why := fmt.Sprintf("waits until Pod %s of the former Job is gone: delete it when its evidence suffices", p.Name)
		wait := r.step.RollBackImages.BlockedReplacements == v1alpha1.BlockedReplacementWait || !p.DeletionTimestamp.IsZero() || !measure.Holds(p, r.x.Incident.UID)
		if wait || !complete(r.x.Evidence, uid, r.x.GapsWaived) || len(measure.HeldByOthers(p, r.x.Incident.UID)) > 0 {
			return why, nil
		}
		ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: uid}
		return why, DeletePod(ctx, r.x, ref, "the Job that it was of is created anew; its evidence is complete")
	}
	return "", nil
}

// remember records the object before it is deleted. It says why it cannot be recorded, or "".
func (r *recreation) remember() (string, error) {
	was := objectRecord{Labels: r.current.object.GetLabels(), Annotations: r.current.object.GetAnnotations()}
	switch o := r.current.object.(type) {
	case *batchv1.Job:
		was.Job = &o.Spec
	case *corev1.Pod:
		var err error
		if was.Labels, was.Annotations, err = measure.Released(o, r.x.Incident.UID); err != nil {
			return "", err
		}
		was.Pod = &o.Spec
	}
	was.Annotations = kept(was.Annotations)
	for _, owner := range r.current.object.GetOwnerReferences() {
		if owner.Controller == nil || !*owner.Controller {
			was.Owners = append(was.Owners, owner)
		}
	}
	data, err := json.Marshal(was)
	if err != nil {
		return "", fmt.Errorf("recording %s %s: %w", r.name.Kind, r.name.Name, err)
	}
	if why := r.x.unrecordable(r.step.Name, r.current.ref, data); why != "" {
		return fmt.Sprintf("the manifest of %s %s cannot be recorded, and so not be created anew: %s; or create it by hand with known-good images, and skip the step", r.name.Kind, r.name.Name, why), nil
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: r.current.ref, ResourceVersion: r.current.object.GetResourceVersion(), Data: string(data)})
	return "", nil
}

// remove deletes exactly this object, once the intent is durable. The pods of the former Job stay: nothing was collected of those that had ended before.
func (r *recreation) remove(ctx context.Context, ref v1alpha1.ObjectRef, why string) (Outcome, error) {
	out := waiting("%s %s is about to be replaced", ref.Kind, ref.Name)
	former := r.was == nil || ref.UID == r.origin.UID
	if former && ref.Kind == "Pod" {
		return out, DeletePod(ctx, r.x, ref, why)
	}
	if !r.x.Journal.IntendAnew(v1alpha1.ActionReplaceWorkload, ref, why) {
		return out, nil
	}
	op := v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}
	return out, r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		uid := r.current.object.GetUID()
		pods := metav1.DeletePropagationBackground
		if former {
			pods = metav1.DeletePropagationOrphan
		}
		err := c.Delete(ctx, r.current.object, client.Preconditions{UID: &uid}, client.PropagationPolicy(pods))
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or replaced by a namesake: the next pass sees which
		}
		return err
	})
}

// create creates the object anew, under its name.
func (r *recreation) create(ctx context.Context) (Outcome, error) {
	out := waiting("%s %s is about to be created with known-good images", r.name.Kind, r.name.Name)
	object := r.desired()
	ref := v1alpha1.ObjectRef{Kind: string(r.name.Kind), Namespace: r.x.Incident.Namespace, Name: r.name.Name}
	op := v1alpha1.PlannedAction{Verb: "create", Object: ref, Detail: "anew, with known-good images"}
	return out, r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		if err := c.Create(ctx, object); err != nil {
			return client.IgnoreAlreadyExists(err) // the next pass sees whose it is
		}
		return r.rememberMade(string(object.GetUID()))
	})
}

// rememberMade records that this try has created the object: what is gone after that was there.
func (r *recreation) rememberMade(uid string) error {
	data, err := json.Marshal(objectRecord{Created: r.x.tries(r.step.Name) + 1})
	if err != nil {
		return fmt.Errorf("recording %s %s: %w", r.name.Kind, r.name.Name, err)
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: v1alpha1.ObjectRef{Kind: string(r.name.Kind), Namespace: r.x.Incident.Namespace, Name: r.name.Name, UID: uid}, Data: string(data)})
	return nil
}

// desired is the object as it was, with the known-good images and our mark, and without what the API server and the scheduler have added.
func (r *recreation) desired() client.Object {
	meta := metav1.ObjectMeta{Namespace: r.x.Incident.Namespace, Name: r.name.Name, Labels: r.was.Labels, Annotations: r.marked(r.was.Annotations), OwnerReferences: r.was.Owners}
	if r.was.Pod != nil {
		spec := r.was.Pod.DeepCopy()
		spec.NodeName, spec.EphemeralContainers = "", nil
		return &corev1.Pod{ObjectMeta: meta, Spec: withImages(&corev1.PodTemplateSpec{Spec: *spec}, r.good).Spec}
	}
	spec := r.was.Job.DeepCopy()
	spec.Selector = nil
	spec.Template = *withImages(&spec.Template, r.good)
	spec.Template.Annotations = r.marked(spec.Template.Annotations)
	for _, labels := range []map[string]string{meta.Labels, spec.Template.Labels} {
		for _, ofFormer := range []string{batchv1.ControllerUidLabel, batchv1.JobNameLabel, "controller-uid", "job-name"} {
			delete(labels, ofFormer)
		}
	}
	return &batchv1.Job{ObjectMeta: meta, Spec: *spec}
}

func (r *recreation) marked(annotations map[string]string) map[string]string {
	out := map[string]string{v1alpha1.RecoveredByAnnotation: string(r.x.Incident.UID)}
	maps.Copy(out, kept(annotations))
	return out
}

// judge believes only pods.
func (r *recreation) judge() Outcome {
	id := r.current.ref.Kind + " " + r.current.ref.Name
	if p, ok := r.current.object.(*corev1.Pod); ok {
		return judgePod(r.x, p, r.good, id)
	}
	job, ok := r.current.object.(*batchv1.Job)
	if !ok {
		return waiting("%s is not of a kind that is created anew", id)
	}
	proven, unready := 0, ""
	for _, p := range r.x.All {
		if owner := metav1.GetControllerOf(p); owner == nil || owner.UID != job.UID || neverRan(p) {
			continue
		}
		why := wrongImage(r.x, p, r.good)
		if why == "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && !isReady(p) {
			why = "is not ready"
		}
		if why != "" {
			unready = p.Name + " " + why
			continue
		}
		proven++
	}
	end := judgeJob(job, id)
	switch {
	case end.Failed:
		return failed("%s; undo the step, which removes it, and retry it, which creates it once more", end.Message)
	case job.Spec.Suspend != nil && *job.Spec.Suspend:
		return done("%s is suspended, as it was, and has the known-good images", id)
	case unready != "":
		return waiting("%s: Pod %s", id, unready)
	case proven == 0 && end.Done:
		return waiting("%s has succeeded, and none of its pods is left to prove what it ran: skip the step if you believe it", id)
	case proven == 0:
		return waiting("%s has no pods yet", id)
	}
	return done("%s was created anew, and starts from the beginning: %d pods with the known-good digests", id, proven)
}

// neverRan reports whether a pod has failed before any of its containers ran: there was no room on its node, or the node was lost. Its Job makes another one.
func neverRan(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed && !slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), func(s corev1.ContainerStatus) bool { return s.ImageID != "" })
}

func judgePod(x *Execution, p *corev1.Pod, good v1alpha1.KnownGoodImages, id string) Outcome {
	why := unproven(x, p, good)
	if p.Status.Phase == corev1.PodSucceeded {
		why = wrongImage(x, p, good)
	}
	if why != "" {
		return waiting("%s %s", id, why)
	}
	return done("%s was created anew, with the known-good digests", id)
}

// undoRecreation removes what was created anew. The compromised object is not created again: it would be another one, which no quarantine holds when it starts.
func undoRecreation(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep, name v1alpha1.WorkloadRef) (Outcome, error) {
	good := knownGood(x.Plan, string(name.Kind), name.Name)
	if good == nil {
		return done("%s %s was not replaced", name.Kind, name.Name), nil
	}
	r, _, err := readRecreation(ctx, x, step, name, *good)
	switch {
	case err != nil:
		return Outcome{}, err
	case r.ours() && !r.current.object.GetDeletionTimestamp().IsZero():
		return waiting("waits until %s %s is gone", name.Kind, name.Name), nil
	case r.ours():
		return r.remove(ctx, r.current.ref, "it was created by a step that is undone")
	case r.was == nil || r.current != nil && r.current.ref.UID == r.origin.UID:
		return done("%s %s was not replaced", name.Kind, name.Name), nil
	}
	return done("%s %s was removed; the compromised one is not created again, because it would start outside quarantine: its manifest is in status.recovery.steps[].records", name.Kind, name.Name), nil
}
