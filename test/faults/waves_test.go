package faults

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// ofWaves are the writes that roll back, lift quarantine and put it back.
func ofWaves(w Write) bool {
	return slices.Contains([]string{
		"create *v1.NetworkPolicy", "delete *v1.NetworkPolicy", "patch *v1.Pod", "patch *v1.Deployment", "patch *v1.StatefulSet", "delete *v1.Pod",
	}, w.Kind)
}

// inWaves releases the database and then the web tier, which is quarantined again, since what is watched goes away, and released once more.
func inWaves(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	db, web := v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: scenario.DB}, v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web}
	first, second := builder.Release("first", "sign-off"), builder.Release("second", "sign-off", "first")
	first.Release.Workloads, second.Release.Workloads = []v1alpha1.WorkloadRef{db}, []v1alpha1.WorkloadRef{web}
	second.Release.ObserveSeconds, second.Release.Watched = 3600, *builder.Verify("", "v1", "Service", "all-is-well", "").Verify
	plan := builder.Plan(shop.Namespace, "waves", builder.RollBack("back", db, web), builder.Approve("sign-off", "back"), first, second)
	plan.Spec.Images = []v1alpha1.KnownGoodImages{
		builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage), builder.KnownGood("StatefulSet", scenario.DB, "app", builder.GoodImage),
	}
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return nil, err
	}
	if err := shop.Admin.Create(ctx, allIsWell(shop)); err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(scenario.Targets()...), builder.UsePlan("waves"))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence and replacements", contained, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"waiting for approval", stepIs(1, v1alpha1.StepRunning), func() error { return shop.Approve(ctx, "miner", "sign-off") }},
		{"observing the second wave", observes, func() error { return shop.Admin.Delete(ctx, allIsWell(shop)) }},
		{"with a relapse that is held", relapsed, func() error {
			if err := shop.Admin.Create(ctx, allIsWell(shop)); err != nil {
				return err
			}
			return shop.Intervene(ctx, "miner", "second", v1alpha1.InterventionRetry)
		}},
		{"observing the second wave once more", observes, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}

func allIsWell(shop *scenario.Shop) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "all-is-well"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
}

func stepIs(i int, state v1alpha1.StepState) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool {
		return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[i].State == state
	}
}

// observes reports whether the second wave is out and observed.
func observes(inc *v1alpha1.Incident) bool {
	return stepIs(3, v1alpha1.StepRunning)(inc) && !inc.Status.Recovery.Steps[3].ObservedSince.IsZero()
}

// relapsed waits until both web pods that had come out free are held again, so that every run has the same story to tell.
func relapsed(inc *v1alpha1.Incident) bool {
	if !stepIs(3, v1alpha1.StepFailed)(inc) || len(inc.Status.Recovery.Relapses) != 1 || !scenario.Is(v1alpha1.ConditionContained)(inc) {
		return false
	}
	held := 0
	for _, p := range inc.Status.Pods {
		if slices.Contains(inc.Status.Recovery.Relapses[0].Revisions, p.Revision) && (p.Handling == v1alpha1.HandlingAttached || p.Handling == v1alpha1.HandlingDetached) {
			held++
		}
	}
	return held >= 2
}
