package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/target"
)

const (
	// evidencePoll is how often an item that is under way is looked at, should nothing wake us first. Snapshots are not watched, because their API may be missing.
	evidencePoll = 2 * time.Second
	// retryChanged is how soon an object that changed under our hands is judged anew, should no watch event tell first.
	retryChanged = time.Second
)

// maxClaims is how many claims of one pod are remembered.
const maxClaims = 32

// addItem records a new item. What the status cannot hold becomes one gap of its own, so that nobody takes the evidence to be complete.
func (s *scope) addItem(item v1alpha1.EvidenceItem) {
	if len(s.next.Evidence) < v1alpha1.MaxEvidence-1 {
		s.next.Evidence = append(s.next.Evidence, item)
		return
	}
	s.overflow = append(s.overflow, fmt.Sprintf("%s of %s %s/%s", item.Type, item.Subject.Kind, item.Subject.Namespace, item.Subject.Name))
	gap := s.item(overflowID)
	if gap == nil {
		s.next.Evidence = append(s.next.Evidence, evidence.GapItem(overflowID, item.Type, item.Subject, nil, ""))
		gap = &s.next.Evidence[len(s.next.Evidence)-1]
	}
	for _, uid := range item.Pods {
		if !slices.Contains(gap.Pods, uid) && len(gap.Pods) < v1alpha1.MaxStatusPods {
			gap.Pods = append(gap.Pods, uid)
		}
	}
	gap.Message = fmt.Sprintf("the Incident has more evidence than its status can hold: this and what else follows of %d pods was not collected; declare a second Incident for them", len(gap.Pods))
}

// overflowID is the ID of the gap that stands for all items for which there is no room.
const overflowID = "overflow"

func (s *scope) item(id string) *v1alpha1.EvidenceItem {
	for i := range s.next.Evidence {
		if s.next.Evidence[i].ID == id {
			return &s.next.Evidence[i]
		}
	}
	return nil
}

// recorded reports whether the pod's manifests are safe, in the store or on their way to it, or declared lost: only then may the pod be changed. In a dry run nothing is stored.
func (s *scope) recorded(p *v1alpha1.PodStatus) bool {
	item := s.item(evidence.ManifestsID(p.UID))
	return s.dryRun() || item != nil && (item.State != v1alpha1.EvidencePending || item.Location != "")
}

// recordManifests stores every pod as it is before the operator changes it.
func (s *scope) recordManifests(ctx context.Context) error {
	var failures []error
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		if s.item(evidence.ManifestsID(p.UID)) != nil {
			continue
		}
		pod := s.live(p)
		if pod == nil {
			s.addItem(evidence.GapItem(evidence.ManifestsID(p.UID), v1alpha1.EvidenceManifests, podRef(p), []string{p.UID},
				"the pod was gone before its manifests could be recorded"))
			continue
		}
		failures = append(failures, s.recordPod(ctx, p, pod))
	}
	return errors.Join(failures...)
}

func (s *scope) recordPod(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) error {
	record, err := evidence.Gather(ctx, s.Client, pod, s.selecting(pod))
	if err != nil {
		return err
	}
	objects, err := evidence.RecordObjects(s.incident, s.OperatorNamespace, record)
	if err != nil {
		return s.unlessTooLarge(err, evidence.GapItem(evidence.ManifestsID(p.UID), v1alpha1.EvidenceManifests, podRef(p), []string{p.UID},
			fmt.Sprintf("the record of Pod %s/%s, with its owners, events and policies, is not kept: %s", p.Namespace, p.Name, err)))
	}
	return s.spool(ctx, objects, fmt.Sprintf("record the manifests, owners, events and policies of Pod %s/%s", p.Namespace, p.Name), func(index *corev1.ConfigMap) (v1alpha1.EvidenceItem, error) {
		return evidence.SpooledItem(index, evidence.ManifestsID(p.UID), v1alpha1.EvidenceManifests, podRef(p), []string{p.UID}, s.now.Time)
	})
}

// spool puts a document where it is as safe as the Incident itself, from where it goes on to the store: a store that is away holds up nothing.
func (s *scope) spool(ctx context.Context, objects []*corev1.ConfigMap, why string, item func(*corev1.ConfigMap) (v1alpha1.EvidenceItem, error)) error {
	index := objects[len(objects)-1]
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: "ConfigMap", Namespace: index.Namespace, Name: index.Name}, Detail: why}
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		// Where a pass that died has stored it before, the first record stands: it is nearest to what was not touched yet.
		stored, err := evidence.WriteSpool(ctx, c, objects, s.takeOver)
		if err != nil {
			return err
		}
		s.noteTakeOvers(objects)
		spooled, err := item(stored)
		if err != nil {
			return err
		}
		s.addItem(spooled)
		return nil
	})
}

// recordSurroundings stores what is around the pods of each namespace, once, before anything about them is changed. Where that cannot be had, containment goes on all the same.
func (s *scope) recordSurroundings(ctx context.Context) error {
	var failures []error
	for _, ns := range s.namespaces() {
		id := evidence.SurroundingsID(ns)
		if s.item(id) != nil || s.dryRun() {
			continue
		}
		pods, known := s.podsIn(ns)
		if len(pods) == 0 {
			if known {
				s.addItem(evidence.GapItem(id, v1alpha1.EvidenceSurroundings, v1alpha1.ObjectRef{Kind: "Namespace", Name: ns}, nil,
					"every pod was gone before what is around them could be recorded"))
			}
			continue
		}
		failures = append(failures, s.recordNamespace(ctx, ns, id, pods))
	}
	return errors.Join(failures...)
}

func (s *scope) recordNamespace(ctx context.Context, ns, id string, pods []*corev1.Pod) error {
	complete, missing := s.Follower.Kinds()
	others := evidence.PolicyKinds{Cache: s.Cached, Complete: complete, Missing: missing}
	surroundings, err := evidence.GatherSurroundings(ctx, s.Client, ns, pods, others)
	if err != nil {
		return err
	}
	subject := v1alpha1.ObjectRef{Kind: "Namespace", Name: ns}
	objects, err := evidence.SurroundingsObjects(s.incident, s.OperatorNamespace, surroundings)
	if err != nil {
		return s.unlessTooLarge(err, evidence.GapItem(id, v1alpha1.EvidenceSurroundings, subject, nil,
			fmt.Sprintf("the record of what is around the pods of namespace %s is not kept: %s", ns, err)))
	}
	return s.spool(ctx, objects, "record what is around the pods of namespace "+ns, func(index *corev1.ConfigMap) (v1alpha1.EvidenceItem, error) {
		item, err := evidence.SpooledItem(index, id, v1alpha1.EvidenceSurroundings, subject, nil, s.now.Time)
		if s.firstPod(func(p v1alpha1.PodStatus) bool { return p.Namespace == ns && p.Handling != v1alpha1.HandlingPending }) != nil {
			item.Message = "recorded after the first pods had been quarantined; their own labels are in their manifests"
		}
		return item, err
	})
}

// unlessTooLarge returns the error, unless it is that a document is too large, which does not change when it is tried again: that is declared as a gap.
func (s *scope) unlessTooLarge(err error, gap v1alpha1.EvidenceItem) error {
	if !errors.Is(err, evidence.ErrTooLarge) {
		return err
	}
	s.addItem(gap)
	return nil
}

// podsIn are the live pods of the Incident in a namespace; known says whether it has, or had, any there.
func (s *scope) podsIn(ns string) (out []*corev1.Pod, known bool) {
	for i := range s.next.Pods {
		if p := &s.next.Pods[i]; p.Namespace == ns {
			known = true
			if pod := s.live(p); pod != nil {
				out = append(out, pod)
			}
		}
	}
	return out, known
}

// selecting are the policies of others that select the pod as it is.
func (s *scope) selecting(pod *corev1.Pod) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, p := range s.policies[pod.Namespace] {
		sel, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if _, ours := p.Labels[v1alpha1.IncidentUIDLabel]; !ours && (err != nil || sel.Matches(labels.Set(pod.Labels))) {
			out = append(out, p)
		}
	}
	return out
}

// collect lets every collector look at its items, the most volatile kind of evidence first.
func (s *scope) collect(ctx context.Context) error {
	x := s.collection()
	for _, e := range s.incident.Status.Evidence {
		if e.State != v1alpha1.EvidencePending {
			s.Background.Forget(x.TaskID(e.ID)) // what came of it is durable
		}
	}
	var failures []error
	for _, c := range s.Collectors {
		if !s.closing() {
			s.begin(c, x)
		}
		failures = append(failures, s.collectItems(ctx, c, x)...)
	}
	failures = append(failures, evidence.LetGo(ctx, x), s.removeJobs(ctx))
	if s.dryRun() {
		s.next.Evidence = nil
	}
	// First what is lost, then what has to be waived.
	s.evidenceWait = cmp.Or(s.auditItems(), s.evidenceHold())
	return errors.Join(failures...)
}

// takeOver journals that a part of a document which a pass has left that died is used after all. The pods are not quarantined before their record is complete, so this does not wait.
func (s *scope) takeOver(ctx context.Context, chunk *corev1.ConfigMap) {
	s.protect(ctx, v1alpha1.ActionTakeOverCopy, objectRef("ConfigMap", chunk), "mark it as a part that is used after all")
}

// noteTakeOvers notes that the document is complete, with the parts that were taken over.
func (s *scope) noteTakeOvers(objects []*corev1.ConfigMap) {
	for _, ref := range s.journal.Open(v1alpha1.ActionTakeOverCopy) {
		if slices.ContainsFunc(objects, func(cm *corev1.ConfigMap) bool { return cm.Name == ref.Name }) {
			s.journal.Done(v1alpha1.ActionTakeOverCopy, ref)
		}
	}
}

func objectRef(kind string, obj metav1.Object) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: string(obj.GetUID())}
}

// openAtOnce is how many objects that are no longer needed may be on their way out at a time, so that the journal has room for all else.
const openAtOnce = 100

// removeJobs removes the tools' Jobs, and the policies of their pods, once what came of all of them is durable and the ledger has the intent.
func (s *scope) removeJobs(ctx context.Context) error {
	begun := false
	for _, e := range s.incident.Status.Evidence {
		begun = begun || e.Type == v1alpha1.EvidenceJobOutput
		if e.Type == v1alpha1.EvidenceJobOutput && e.State == v1alpha1.EvidencePending {
			return nil
		}
	}
	if !begun || s.dryRun() {
		return nil
	}
	objects, err := evidence.JobObjects(ctx, s.Client, s.incident.UID)
	if err != nil {
		return err
	}
	var left []v1alpha1.ObjectRef
	for _, obj := range objects {
		if !obj.GetDeletionTimestamp().IsZero() {
			continue
		}
		kind := "NetworkPolicy"
		if _, ok := obj.(*batchv1.Job); ok {
			kind = "Job"
		}
		ref := objectRef(kind, obj)
		left = append(left, ref)
		if err := s.removeJob(ctx, ref, obj); err != nil {
			return err
		}
	}
	s.jobsLeft = len(left) > 0
	if s.jobsLeft {
		s.lookAgainAfter(evidencePoll) // Jobs are not watched
	}
	s.noteGone(v1alpha1.ActionRemoveJob, left)
	return nil
}

func (s *scope) removeJob(ctx context.Context, ref v1alpha1.ObjectRef, obj client.Object) error {
	const why = "what the tool has printed is kept"
	if !s.intendSome(v1alpha1.ActionRemoveJob, ref, why) || s.books.withheld != "" {
		return nil
	}
	uid := obj.GetUID()
	return s.Write(ctx, v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}, func(ctx context.Context, c client.Client) error {
		return client.IgnoreNotFound(c.Delete(ctx, obj, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	})
}

// intendSome is Intend for what there may be much of: only so many are open at a time, and the others follow.
func (s *scope) intendSome(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) bool {
	return (s.journal.Intended(action, ref) || len(s.journal.Open(action)) < openAtOnce) && s.journal.Intend(action, ref, detail)
}

// noteGone notes the outcome of removals of which nothing is left.
func (s *scope) noteGone(action v1alpha1.Action, left []v1alpha1.ObjectRef) {
	for _, ref := range s.journal.Open(action) {
		if !slices.Contains(left, ref) {
			s.journal.Done(action, ref)
			s.journal.Done(v1alpha1.ActionTakeOverCopy, ref) // by a pass that died as well, and whose document was written otherwise
		}
	}
}

// collection is what collectors work with in this pass.
func (s *scope) collection() *evidence.Execution {
	return &evidence.Execution{
		Reader: s.Client, Writer: s, Journal: s.journal, Incident: s.incident, Orders: s.policy.Evidence, Pod: s.podByUID,
		Sink: s.Books.Stores.Sink(s.policy.Evidence.Store), Background: s.Background, OperatorNamespace: s.OperatorNamespace, Now: s.now.Time, DryRun: s.dryRun(), Withheld: s.books.withheld != "" && !s.dryRun(),
	}
}

// podByUID returns a pod of the target namespaces as it is now, or nil when it is gone.
func (s *scope) podByUID(uid string) *corev1.Pod {
	if s.view == nil {
		return nil
	}
	return s.view.All[uid]
}

// begin adds the items that a collector should have for pods that are cut off.
func (s *scope) begin(c evidence.Collector, x *evidence.Execution) {
	var pods []*corev1.Pod
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		// A pod that has ended before it was cut off still has its volumes and its logs.
		if pod := s.live(p); pod != nil && (p.Handling != v1alpha1.HandlingPending || s.dryRun() || target.Ended(pod)) {
			pods = append(pods, pod)
		}
	}
	for _, item := range c.Begin(x, pods) {
		s.beginItem(item)
	}
	for _, item := range c.Begin(x, s.missedPods()) {
		// The volumes of a pod outlive it.
		if item.Type != v1alpha1.EvidenceVolumeSnapshot && s.item(item.ID) == nil {
			item = evidence.GapItem(item.ID, item.Type, item.Subject, item.Pods, "the pod was gone before this could be collected")
		}
		s.beginItem(item)
	}
}

// beginItem adds an item, or the pods that an item has come to belong to since.
func (s *scope) beginItem(item v1alpha1.EvidenceItem) {
	known := s.item(item.ID)
	if known == nil {
		s.addItem(item)
		return
	}
	for _, uid := range item.Pods {
		if !slices.Contains(known.Pods, uid) {
			known.Pods = append(known.Pods, uid)
		}
	}
}

// missedPods stand for pods that are gone, with what is remembered of them.
func (s *scope) missedPods() []*corev1.Pod {
	if s.view == nil || s.dryRun() {
		return nil
	}
	var out []*corev1.Pod
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		if s.live(p) != nil {
			continue
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}}
		for _, claim := range p.Claims {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim,
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
		}
		out = append(out, pod)
	}
	return out
}

func (s *scope) collectItems(ctx context.Context, c evidence.Collector, x *evidence.Execution) []error {
	var failures []error
	for i := range s.next.Evidence {
		item := &s.next.Evidence[i]
		if item.Type != c.About().Type || item.State != v1alpha1.EvidencePending {
			continue
		}
		observed, err := c.Collect(ctx, x, *item)
		*item = observed
		if item.State == v1alpha1.EvidencePending && !s.dryRun() {
			s.collecting = true
			s.lookAgainAfter(evidencePoll)
		}
		if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
			// Not the API server: a store, or a kubelet. The item says so and is tried again soon; an error of the pass would make that later and later.
			ctrl.LoggerFrom(ctx).Info("Evidence could not be had yet", "item", item.ID, "because", err.Error())
			continue
		}
		// One item that cannot be had is no reason to forget the others.
		failures = append(failures, err)
	}
	return failures
}

// evidenceHold says what destructive measures and recovery wait for where the standing orders want every gap waived; empty when they may go on.
func (s *scope) evidenceHold() string {
	s.next.GapDigest = ""
	if s.policy.Evidence.Gaps != v1alpha1.GapRequireWaiver {
		return ""
	}
	var gaps []string
	for _, e := range s.next.Evidence {
		switch e.State {
		case v1alpha1.EvidencePending:
			return fmt.Sprintf("waits for evidence of %s %s/%s to be collected or declared as a gap", e.Subject.Kind, e.Subject.Namespace, e.Subject.Name)
		case v1alpha1.EvidenceGap, v1alpha1.EvidencePartial:
			gaps = append(gaps, e.ID)
		case v1alpha1.EvidenceCollected, v1alpha1.EvidenceRemoved:
		}
	}
	if len(gaps) == 0 {
		return ""
	}
	s.next.GapDigest = approval.GapDigest(s.incident, gaps)
	missing := approval.Missing(s.incident, v1alpha1.WaiveStage, s.next.GapDigest, 1)
	if missing == "" {
		return ""
	}
	return fmt.Sprintf("%d evidence gaps have to be waived: %s", len(gaps), missing)
}
