package incident

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/guard"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/lookout"
	"cofferdam.dev/cofferdam/controllers/remedy"
	"cofferdam.dev/cofferdam/controllers/target"
)

// scope is one pass over one Incident: what was read, and the status that the pass arrives at.
type scope struct {
	*Reconciler

	// incident is the Incident as it was read; only its resourceVersion changes, when the finalizer is written.
	incident *v1alpha1.Incident
	// next is the status that is being built; it starts as a copy of what was persisted.
	next    *v1alpha1.IncidentStatus
	now     metav1.Time
	journal *journal.Journal

	// policy is the standing orders in force; set by admit.
	policy v1alpha1.ContainmentPolicySpec
	// problem says why the Incident, or a target that was added to it, is not accepted; set by admit.
	problem *target.Problem
	// blind says what could not be read; verdicts are then Unknown. Set by whoever fails to read.
	blind error
	// view is what the targets consist of; set by admit.
	view *target.View
	// policies are the NetworkPolicies in force by namespace, and foreign names, by namespace, objects of other policy APIs that may allow or deny
	// what the evaluator cannot see; set by observe.
	policies map[string][]*networkingv1.NetworkPolicy
	foreign  map[string]string
	// open are, by namespace, the exceptions of the standing orders that are open there; set by decideExceptions.
	open map[string][]isolation.Exception
	// decisions are how pods that are not yet quarantined will be handled, adopters who could take them up, by namespace.
	decisions map[string]remedy.Decision
	adopters  map[string][]remedy.Adopter
	// leaks are what the evaluator found, by the UID of the pod; set by verify.
	leaks map[string][]isolation.Leak
	// incidents are the other open Incidents by UID, read when a pod is held by one of them too.
	incidents map[string]*v1alpha1.Incident
	// noTier says why no deny tier can be put in place though a leak calls for one.
	noTier string
	// findings are what is wrong with the admission guard; unguarded says why that could not be found out. Set by observe.
	findings  []guard.Finding
	unguarded error
	// policiesInForce says that every deny policy was observed with the content it should have.
	policiesInForce bool
	// undenied are the namespaces that are being deleted, and in which a deny policy is missing that cannot be created any more.
	undenied map[string]bool
	// notDenied says, by namespace, why a deny policy is not in force, and failed, by the UID of the pod, why it could not be quarantined in this pass.
	notDenied map[string]error
	failed    map[string]error
	// collecting says that evidence is under way, which has deadlines.
	collecting bool
	// refusalsInForce and heldInForce say that the lists that admission reads are what they should be.
	refusalsInForce, heldInForce bool
	// listed says that the list of what is held had something in it when the pass began to act.
	listed bool
	// planProblem and planReason say why the recovery plan cannot be executed; closeWait what closing waits for.
	planReason, planProblem, closeWait string
	// overflow names what the status cannot hold; Contained is then not claimed.
	overflow []string
	// books is what the pass knows of the custody ledger; set by keepBooks. acts are the pass's own writes, which the ledger has not got yet.
	books bookkeeping
	acts  []custody.Fact
	// evidenceWait says which evidence destructive measures and recovery wait for; set by collect. closePaused says that closing was not looked at in this pass.
	evidenceWait string
	closePaused  bool
	// jobsLeft says that Jobs of evidence tools are still to be removed; set by collect.
	jobsLeft bool
	// auditing says that what is in the store is being looked at again; nothing destructive is done meanwhile.
	auditing bool
	// removalWait says what the removal of evidence waits for; set by removeEvidence.
	removalWait string
	// written is the Incident as this pass has written it; nil if it has written no status.
	written *v1alpha1.Incident
	// reading is what the steps of a recovery read with; set by read.
	reading *lookout.Reader
	// passID tells the writes of this pass from those of any other.
	passID string
	// planned is what a dry run would write.
	planned []v1alpha1.PlannedAction
	// requeueAfter is when to look again though nothing has changed; zero for never.
	requeueAfter time.Duration
}

func newScope(r *Reconciler, inc *v1alpha1.Incident) *scope {
	now := metav1.NewTime(r.Clock.Now().Truncate(time.Second))
	return &scope{
		Reconciler: r,
		incident:   inc,
		next:       inc.Status.DeepCopy(),
		now:        now,
		journal:    journal.New(inc.Status.Journal, now, inc.Spec.Mode == v1alpha1.ModeDryRun),
		foreign:    map[string]string{},
		policies:   map[string][]*networkingv1.NetworkPolicy{},
		open:       map[string][]isolation.Exception{},
		decisions:  map[string]remedy.Decision{},
		undenied:   map[string]bool{},
		notDenied:  map[string]error{},
		failed:     map[string]error{},
		leaks:      map[string][]isolation.Leak{},
		passID:     string(uuid.NewUUID()),
	}
}

func (s *scope) dryRun() bool { return s.incident.Spec.Mode == v1alpha1.ModeDryRun }

// holds reports whether the Incident holds, or may hold, a quarantine.
func (s *scope) holds() bool {
	return controllerutil.ContainsFinalizer(s.incident, v1alpha1.HoldFinalizer)
}

// closing reports whether the goal is to lift the quarantine: nothing new is held any more.
func (s *scope) closing() bool { return s.incident.Spec.Goal == v1alpha1.GoalClose }

// Write performs a write, or in a dry run only notes what would be written.
func (s *scope) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	if s.dryRun() {
		s.planned = append(s.planned, op)
		return nil
	}
	if s.reading != nil {
		// Another step may read it while it is being changed, and must not keep what it was.
		s.reading.Changed(op.Object.Kind, op.Object.Namespace, op.Object.Name)
		defer s.reading.Changed(op.Object.Kind, op.Object.Namespace, op.Object.Name)
	}
	err := fn(ctx, s.Client)
	s.act(op, err)
	if err != nil {
		return fmt.Errorf("%s %s %s: %w", op.Verb, op.Object.Kind, client.ObjectKey{Namespace: op.Object.Namespace, Name: op.Object.Name}, err)
	}
	return nil
}

// lookAgainAfter asks for another pass at the latest after d.
func (s *scope) lookAgainAfter(d time.Duration) {
	if s.requeueAfter == 0 || d < s.requeueAfter {
		s.requeueAfter = max(d, time.Second)
	}
}

// namespaces are the namespaces of the resolved targets, sorted.
func (s *scope) namespaces() []string {
	return namespacesOf(s.next.Targets)
}

func namespacesOf(targets []v1alpha1.ResolvedTarget) []string {
	var out []string
	for _, t := range targets {
		if !slices.Contains(out, t.Namespace) {
			out = append(out, t.Namespace)
		}
	}
	slices.Sort(out)
	return out
}

// live returns the pod of a status entry if it still exists, by UID.
func (s *scope) live(p *v1alpha1.PodStatus) *corev1.Pod {
	if s.view == nil {
		return nil
	}
	return s.view.All[p.UID]
}

func podRef(p *v1alpha1.PodStatus) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
}

// holder names the Incident to those who hold pods for it.
func (s *scope) holder() string { return client.ObjectKeyFromObject(s.incident).String() }
