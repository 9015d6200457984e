package incident

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/target"
)

var now = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

// contained is a scope at the end of a pass in which everything that is written is in force.
func contained(pods ...v1alpha1.PodStatus) *scope {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inc", UID: "inc-uid", Generation: 3, Finalizers: []string{v1alpha1.HoldFinalizer}}}
	inc.Spec.Mode, inc.Spec.Goal, inc.Spec.DeclaredBy.Username = v1alpha1.ModeEnforce, v1alpha1.GoalContain, "dora"
	return &scope{
		Reconciler: &Reconciler{}, incident: inc, now: now, view: &target.View{}, policiesInForce: true, refusalsInForce: true,
		next:    &v1alpha1.IncidentStatus{Pods: pods, Policy: &v1alpha1.GoverningPolicy{Name: "standard"}},
		journal: journal.New(nil, now, false),
	}
}

func changed(s *scope, changes ...func(*scope)) *scope {
	for _, change := range changes {
		change(s)
	}
	return s
}

func goal(g v1alpha1.Goal) func(*scope) { return func(s *scope) { s.incident.Spec.Goal = g } }
func dryRun(s *scope)                   { s.incident.Spec.Mode = v1alpha1.ModeDryRun; s.incident.Finalizers = nil }
func deleted(s *scope)                  { s.incident.DeletionTimestamp = new(now) }
func nothingHeld(s *scope)              { s.incident.Finalizers = nil }

func refused(s *scope) {
	s.problem = &target.Problem{Reason: v1alpha1.ReasonNoPolicy, Message: "no ContainmentPolicy"}
}

func blind(err error) func(*scope) {
	return func(s *scope) { s.blind = err }
}

func items(states ...v1alpha1.EvidenceState) func(*scope) {
	return func(s *scope) {
		for _, state := range states {
			s.next.Evidence = append(s.next.Evidence, v1alpha1.EvidenceItem{
				ID: string(state), Type: v1alpha1.EvidenceVolumeSnapshot, State: state, Message: "because",
				Subject: v1alpha1.ObjectRef{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data"},
			})
		}
	}
}

func steps(states ...v1alpha1.StepState) func(*scope) {
	return func(s *scope) {
		s.next.Recovery = &v1alpha1.RecoveryStatus{PlanName: "plan"}
		for _, state := range states {
			s.next.Recovery.Steps = append(s.next.Recovery.Steps, v1alpha1.StepStatus{Name: "step-" + string(state), State: state, Message: "because"})
		}
	}
}

func pod(handling v1alpha1.Handling, verdict v1alpha1.Verdict) v1alpha1.PodStatus {
	return v1alpha1.PodStatus{Namespace: "shop", Name: "web", UID: "uid", Handling: handling, Verdict: verdict, Message: "because"}
}

func isolated() v1alpha1.PodStatus { return pod(v1alpha1.HandlingDetached, v1alpha1.VerdictIsolated) }

// failingClient fails every read and write.
type failingClient struct {
	client.Client
	err error
}

func (c failingClient) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return c.err
}
