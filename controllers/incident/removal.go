package incident

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/approval"
	"cofferdam.dev/cofferdam/controllers/evidence"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=configmaps,verbs=list;delete

// removalLimit is how long one attempt to remove evidence from the store may take.
const removalLimit = 10 * time.Minute

// removeEvidence removes what was kept of a closed Incident, once enough people have approved exactly that and the time that the standing orders set has passed. The ledger is never removed: it says what was there.
func (s *scope) removeEvidence(ctx context.Context) error {
	if s.holds() || s.dryRun() || s.incident.Status.Policy == nil {
		return nil
	}
	kept := s.removable()
	if len(kept) == 0 {
		return nil
	}
	ids := make([]string, 0, len(kept))
	for _, item := range kept {
		ids = append(ids, item.ID)
	}
	s.next.RemovalDigest = approval.RemovalDigest(s.incident, ids)
	if may, err := s.mayRemove(ctx); err != nil || !may {
		return err
	}
	durable := true
	for _, item := range kept {
		durable = s.journal.Intend(v1alpha1.ActionRemoveEvidence, itemRef(item), "remove "+evidence.Whereabouts(*item)) && durable
	}
	if !durable || s.books.withheld != "" {
		s.removalWait = s.books.trouble()
		return nil
	}
	if !s.emptyStore() {
		return nil
	}
	if removed, err := s.removeSnapshots(ctx, kept); err != nil || !removed {
		return err
	}
	if empty, err := s.emptySpool(ctx); err != nil || !empty {
		return err
	}
	for _, item := range kept {
		item.State, item.Message = v1alpha1.EvidenceRemoved, "removed from the store after an approved release"
		s.journal.Done(v1alpha1.ActionRemoveEvidence, itemRef(item))
	}
	return nil
}

// removable are the items that are, or were, in the store, and the snapshots.
func (s *scope) removable() []*v1alpha1.EvidenceItem {
	var out []*v1alpha1.EvidenceItem
	for i := range s.next.Evidence {
		item := &s.next.Evidence[i]
		snapshot := item.Type == v1alpha1.EvidenceVolumeSnapshot && (item.Location != "" || len(item.Earlier) > 0)
		// What came to nothing may have left something behind: the content of a snapshot, a log in part.
		if (evidence.InStore(item) || snapshot) && item.State != v1alpha1.EvidencePending {
			out = append(out, item)
		}
	}
	return out
}

func itemRef(item *v1alpha1.EvidenceItem) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "EvidenceItem", Namespace: item.Subject.Namespace, Name: item.ID}
}

// mayRemove reports whether removal is approved and due, and whether anything is left to remove.
func (s *scope) mayRemove(ctx context.Context) (bool, error) {
	left := false
	for _, item := range s.removable() {
		left = left || item.State != v1alpha1.EvidenceRemoved
	}
	retention := s.orders().Retention
	if !left || approval.Missing(s.incident, v1alpha1.RemoveStage, s.next.RemovalDigest, retention.RequiredApprovals) != "" {
		return false, nil
	}
	unguarded, err := approval.Guarded(ctx, s.Client)
	if err != nil || unguarded != "" {
		s.removalWait = unguarded
		return false, err
	}
	due := s.next.ReleasedAt.AddDate(0, 0, int(retention.Days))
	// What a store has locked it does not remove sooner, whoever asks and however often; the last item was stored before the release.
	if locked := s.next.ReleasedAt.AddDate(0, 0, int(s.orders().Store.LockDays)); locked.After(due) && s.books.unlocks == "" {
		due = locked
	}
	if wait := due.Sub(s.now.Time); wait > 0 {
		s.removalWait = "removal is approved and waits until " + due.UTC().Format(time.RFC3339)
		s.lookAgainAfter(wait)
		return false, nil
	}
	return true, nil
}

// emptyStore removes what was collected from the store, in the background, and reports whether it is gone: the items, and what attempts that failed have left of them.
func (s *scope) emptyStore() bool {
	task := string(s.incident.UID) + "/removal"
	stores, orders, items := s.Books.Stores, s.orders().Store, "incidents/"+string(s.incident.UID)+"/items/"
	result, ended := s.Background.Do(task, s.owner(), removalLimit, func(ctx context.Context) evidence.Result {
		st, err := stores.For(ctx, orders)
		if err != nil {
			return evidence.Result{Err: err}
		}
		keys, err := st.Keys(ctx, items)
		for i := 0; err == nil && i < len(keys); i++ {
			err = st.Delete(ctx, keys[i])
		}
		return evidence.Result{Err: err}
	})
	if !ended {
		return false
	}
	s.Background.Forget(task)
	if result.Err != nil {
		s.removalWait = "evidence could not be removed: " + result.Err.Error()
		s.lookAgainAfter(time.Minute)
		return false
	}
	return true
}

// removeSnapshots ends the hold on snapshots and removes them, and reports whether they are gone.
func (s *scope) removeSnapshots(ctx context.Context, kept []*v1alpha1.EvidenceItem) (bool, error) {
	x, all := s.collection(), true
	for _, item := range kept {
		if item.Type != v1alpha1.EvidenceVolumeSnapshot {
			continue
		}
		gone, err := evidence.ReleaseSnapshotHold(ctx, x, *item)
		if err != nil {
			return false, err
		}
		all = all && gone
	}
	if !all {
		s.lookAgainAfter(evidencePoll)
	}
	return all, nil
}

// emptySpool deletes the copies in the operator's namespace, each once the ledger has the intent, and reports whether none is left.
func (s *scope) emptySpool(ctx context.Context) (bool, error) {
	var list corev1.ConfigMapList
	err := s.Client.List(ctx, &list, client.InNamespace(s.OperatorNamespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(s.incident.UID)}, client.HasLabels{v1alpha1.EvidenceLabel})
	if err != nil {
		return false, fmt.Errorf("listing records of evidence: %w", err)
	}
	const why = "its evidence is removed after an approved release"
	var left []v1alpha1.ObjectRef
	for i := range list.Items {
		cm := &list.Items[i]
		ref := objectRef("ConfigMap", cm)
		left = append(left, ref)
		if !s.intendSome(v1alpha1.ActionRemoveCopy, ref, why) {
			continue
		}
		err := s.Write(ctx, v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}, func(ctx context.Context, c client.Client) error {
			return client.IgnoreNotFound(c.Delete(ctx, cm, client.Preconditions{UID: &cm.UID}))
		})
		if err != nil {
			return false, err
		}
	}
	if len(left) > 0 {
		s.lookAgainAfter(retryChanged) // ConfigMaps are not watched
	}
	s.noteGone(v1alpha1.ActionRemoveCopy, left)
	return len(left) == 0, nil
}
