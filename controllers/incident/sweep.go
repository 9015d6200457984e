package incident

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
)

const (
	// sweepAge is how long ago something has to have been written to be taken for left over, how often it is looked for, and how long an operator is there before it looks for the first time. Whoever had the
	// lease before has long stopped writing by then.
	sweepAge = time.Hour
	// sweepMost bounds what one pass removes.
	sweepMost = 100
)

// sweepSpool removes the parts that passes which died have left of documents. An operator that crashes again and again would fill etcd with them otherwise. Nothing is removed while the ledger does not have
// everything: it is asked what is referred to, and it has to have the intents.
func (s *scope) sweepSpool(ctx context.Context) {
	if s.dryRun() || !s.books.current {
		return
	}
	ledger := s.Books.of(s.owner(), s.incident.UID).sweeps(s.now.Time, len(s.journal.Open(v1alpha1.ActionRemoveCopy)) > 0)
	if ledger == nil {
		return
	}
	left, err := evidence.SweepSpool(ctx, s.Client, s.OperatorNamespace, string(s.incident.UID), s.now.Add(-sweepAge), s.documents(ledger)...)
	var refs []v1alpha1.ObjectRef
	for i := range left {
		refs = append(refs, objectRef("ConfigMap", &left[i]))
	}
	if err == nil {
		s.noteGone(v1alpha1.ActionRemoveCopy, refs)
	}
	for i := 0; err == nil && i < min(len(left), sweepMost); i++ {
		cm, ref := &left[i], refs[i]
		const why = "a part of a document that was never completed, because the operator stopped while it was written; it stays if it is used after all by then"
		if !s.intendSome(v1alpha1.ActionRemoveCopy, ref, why) {
			continue
		}
		s.lookAgainAfter(retryChanged) // ConfigMaps are not watched
		err = s.Write(ctx, v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: why}, func(ctx context.Context, c client.Client) error {
			err := c.Delete(ctx, cm, client.Preconditions{UID: &cm.UID, ResourceVersion: &cm.ResourceVersion})
			if apierrors.IsConflict(err) {
				return nil // somebody uses it after all
			}
			return client.IgnoreNotFound(err)
		})
	}
	if err != nil {
		// It is looked for again later, and does no harm until then.
		ctrl.LoggerFrom(ctx).Error(err, "What was left of documents that were never completed could not be removed")
	}
}

// documents are the digests of what is referred to, in status as it was and as it will be, and in the ledger.
func (s *scope) documents(ledger *custody.Ledger) []string {
	var out []string
	for _, st := range []*v1alpha1.IncidentStatus{&s.incident.Status, s.next} {
		for _, item := range st.Evidence {
			out = append(out, item.Digest)
		}
	}
	for e := range ledger.Entries() {
		if e.Stored != nil {
			out = append(out, e.Stored.PlainDigest, e.Stored.Digest)
		}
	}
	return out
}

// sweeps returns the ledger if it is time to look for what was left over, or if that has begun, and notes that it was looked for.
func (k *book) sweeps(now time.Time, begun bool) *custody.Ledger {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.swept.IsZero() {
		k.swept = now
	}
	if begun {
		return k.ledger
	}
	if k.ledger == nil || now.Before(k.swept.Add(sweepAge)) {
		return nil
	}
	k.swept = now
	return k.ledger
}
