package faults

import (
	"context"
	"errors"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/gitops"
	"cofferdam.dev/cofferdam/test/scenario"
)

// ofManagers are the writes to managers, that to what they apply, and of those of the status every eighth.
func ofManagers(w Write) bool {
	switch {
	case inStore(w):
		return false
	case strings.HasPrefix(w.Kind, "status "):
		return w.Nth%8 == 0
	}
	return strings.Contains(w.Kind, "Unstructured") || strings.Contains(w.Kind, "Deployment")
}

// fromGit recovers a web tier that Argo CD applies from Git, which somebody corrects in the meantime.
func fromGit(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	simulation, err := gitops.Prepare(ctx, shop, gitops.Application(gitops.NamespaceOf(shop), "web", "web"))
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- simulation.Run(running) }()
	inc, err := pausedAndResumed(ctx, shop, simulation)
	stop()
	return inc, errors.Join(err, <-ended)
}

func pausedAndResumed(ctx context.Context, shop *scenario.Shop, simulation *gitops.Simulation) (*v1alpha1.Incident, error) {
	if err := gitops.AwaitApplied(ctx, shop); err != nil {
		return nil, err
	}
	if err := shop.Admin.Create(ctx, gitops.Plan(shop)); err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.UsePlan("gitops"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence and replacements", contained, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"refusing to resume", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && strings.Contains(inc.Status.Recovery.Steps[2].Message, "renders Deployment web otherwise")
		}, func() error {
			simulation.Git.Commit("web", gitops.Deployment(shop.Namespace, scenario.Web, builder.GoodImage))
			return nil
		}},
		{"recovered", scenario.Is(v1alpha1.ConditionRecovered), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}
