// Package incident carries an Incident from declaration to close.
//
// One pass gathers what is there, decides, acts on what an earlier pass has journalled, verifies what it finds and writes the status once. Every phase may
// be repeated and every pass may be the last one before a crash.
package incident

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/follow"
	"cofferdam.dev/cofferdam/controllers/foreign"
	"cofferdam.dev/cofferdam/controllers/guard"
	"cofferdam.dev/cofferdam/controllers/image"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/lookout"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// resync is how often an open Incident is judged anew though no watch event asked for it: policies of other APIs, owners and revisions are not watched.
const resync = time.Minute

// failureRetry is how soon a pass follows one that has failed while evidence or a recovery is under way.
const failureRetry = 5 * time.Second

// Reconciler reconciles Incidents. It is safe to run in two processes at once: every write is either idempotent under a deterministic name or bound to the
// UID and version that was read.
type Reconciler struct {
	// Client reads pods, policies, namespaces and our own kinds from a cache, and everything else live.
	Client client.Client
	// Live reads from the API server, Cached from the cache whatever the kind.
	Live     client.Reader
	Cached   client.Reader
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
	// Follower keeps the Index in step with the cluster; the Index answers what can still reach a pod.
	Follower *follow.Follower
	Index    *isolation.Index
	// Lookout brings a pass when something changes that a step of a recovery waits for.
	Lookout    *lookout.Lookout
	Foreign    *foreign.Finder
	Tamperings *Tamperings
	// Guard tells what is wrong with the admission policies.
	Guard *guard.Checker
	// Writes tells whether the cache is behind what this process wrote.
	Writes *Writes
	// Books keeps the custody ledgers, Background does what is slow outside the passes, and Collectors collect evidence, in order of volatility.
	Books      *Books
	Background *evidence.Background
	Collectors []evidence.Collector
	// Images finds out about the images of recovery plans.
	Images *image.Inspector
	// OperatorNamespace is where evidence and refusals are kept. No Incident can target it.
	OperatorNamespace string
	// Outbound calls the services that standing orders name, and ProbeImage is the image of probe pods; without it there are none.
	Outbound   *outbound.Caller
	ProbeImage string
}

// Reconcile makes one pass over one Incident.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var inc v1alpha1.Incident
	if err := r.Client.Get(ctx, req.NamespacedName, &inc); err != nil {
		if apierrors.IsNotFound(err) {
			forgetMetrics(req.Namespace, req.Name)
			r.Index.Release(req.String(), nil)
			r.Books.forget(req.NamespacedName)
			r.Writes.forget(req.NamespacedName)
			r.Lookout.Forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	if r.Writes.behind(&inc) {
		return ctrl.Result{RequeueAfter: retryChanged}, r.lookBack(ctx, req.NamespacedName)
	}
	persisted := inc.Status.DeepCopy()
	forgetRehearsal(&inc)
	s := newScope(r, &inc)
	failure := s.run(ctx)
	s.setConditions(failure)
	err := errors.Join(failure, s.publish(ctx, persisted))
	s.rememberActs()
	s.bookAtOnce()
	if apierrors.IsConflict(err) {
		// Our copy was stale: the watch event that makes it current is on its way, and brings the next pass.
		return ctrl.Result{RequeueAfter: retryChanged}, nil
	}
	if err != nil && (s.collecting || s.recovering()) {
		// Errors make the passes rarer and rarer: evidence that is under way would come to its deadline unseen, and so would what is observed after its release, because of a step that has nothing to do with it.
		ctrl.LoggerFrom(ctx).Error(err, "The pass failed; evidence or a recovery is under way, and it is tried again soon")
		s.lookAgainAfter(failureRetry)
		err = nil
	}
	return ctrl.Result{RequeueAfter: s.requeueAfter, Priority: new(Priority(&inc))}, err
}

// forgetRehearsal starts anew when nothing was ever held: what a dry run or a refused attempt recorded binds nobody.
func forgetRehearsal(inc *v1alpha1.Incident) {
	st := &inc.Status
	if controllerutil.ContainsFinalizer(inc, v1alpha1.HoldFinalizer) || !st.ReleasedAt.IsZero() {
		return
	}
	st.Policy, st.Targets, st.Pods, st.Revisions, st.Evidence, st.Recovery, st.Exceptions = nil, nil, nil, nil, nil, nil, nil
}

// run goes through the phases. Order is what keeps evidence and containment safe: deny, record, quarantine, verify, then everything that may take long.
func (s *scope) run(ctx context.Context) error {
	switch {
	case !s.incident.Status.ReleasedAt.IsZero():
		s.Lookout.Forget(client.ObjectKeyFromObject(s.incident))
		s.keepBooks()
		return inOrder(ctx, s.letGo, s.removeEvidence, s.outlivedPauses)
	case !s.holds() && (s.closing() || !s.incident.DeletionTimestamp.IsZero()):
		return s.holdStrayPolicies(ctx)
	}
	if err := s.admit(ctx); err != nil {
		return s.unread(ctx, err)
	}
	if s.problem != nil && !s.holds() {
		return nil
	}
	s.lookAgainAfter(resync)
	s.noteRecoveryTurn()
	s.recordTargets()
	if err := s.observe(ctx); err != nil {
		return s.unread(ctx, err)
	}
	s.decideExceptions()
	err := s.denyFirst(ctx)
	if err == nil {
		s.recordRoutes(ctx)
		// Evidence that cannot be stored holds back only the pod that it is about.
		err = errors.Join(s.recordSurroundings(ctx), s.recordManifests(ctx), s.quarantinePods(ctx))
	}
	s.noteCarveOuts()
	s.verify(ctx)
	err = errors.Join(err, s.policyFailures(), s.closeLeaks(ctx))
	if !s.holds() && !s.dryRun() {
		return err // what would be begun now would be forgotten
	}
	// The ledger comes after containment, which waits for nothing, and before all that is destructive.
	s.keepBooks()
	s.sweepSpool(ctx)
	// Evidence of pods that are contained does not wait for one that cannot be; what destroys something does.
	collected := s.collect(ctx)
	if err != nil {
		return errors.Join(err, collected)
	}
	// A volume that cannot be read keeps its item pending, and that holds back whatever would destroy it.
	return errors.Join(collected, inOrder(ctx, s.recover, s.close))
}

// unread notes that something could not be read: every verdict is Unknown until it can be.
func (s *scope) unread(ctx context.Context, err error) error {
	s.blind = err
	s.verify(ctx)
	return err
}

func inOrder(ctx context.Context, phases ...func(context.Context) error) error {
	for _, phase := range phases {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return nil
}
