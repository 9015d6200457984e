package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// ofImages are the writes that refuse digests, that change images, and by which what was chosen comes into status.
func ofImages(w Write) bool {
	return strings.Contains(w.Kind, "Deployment") || toServer(w) && (strings.Contains(w.Kind, "ConfigMap") || strings.HasPrefix(w.Kind, "status ") && w.Nth%4 == 0)
}

// chosen has a Deployment come back with the images of its revision from before the incident, and the digest of the other one refused until the end.
func chosen(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	since, err := compromise(ctx, shop)
	if err != nil {
		return nil, err
	}
	plan := builder.Plan(shop.Namespace, "choose", builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Clean}), builder.Approve("look", "back"))
	plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.ChosenImages("Deployment", scenario.Clean)}
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return nil, err
	}
	_, digest, _ := strings.Cut(scenario.BadImage, "@")
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Clean)),
		builder.UsePlan("choose"), builder.SuspectedSince(since), builder.Compromised(digest))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"brought back", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[1].State == v1alpha1.StepRunning
		}, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}

// compromise rolls the bad image out in a second of its own, and returns the beginning of that second.
func compromise(ctx context.Context, shop *scenario.Shop) (since time.Time, err error) {
	since = time.Now().Truncate(time.Second).Add(time.Second)
	var d appsv1.Deployment
	changed := false
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, scenario.Patience, true, func(ctx context.Context) (bool, error) {
		if time.Now().Before(since) {
			return false, nil
		}
		if err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Clean}, &d); err != nil {
			return false, err
		}
		if changed {
			var pods corev1.PodList // the old one included, which the Deployment does not count while it terminates
			err := shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace), client.MatchingLabels{"app": scenario.Clean})
			st := d.Status
			return st.ObservedGeneration == d.Generation && st.UpdatedReplicas == 1 && st.ReadyReplicas == 1 && len(pods.Items) == 1, err
		}
		before := d.DeepCopy()
		d.Spec.Template.Spec.Containers[0].Image = scenario.BadImage
		changed = true
		return false, shop.Admin.Patch(ctx, &d, client.MergeFrom(before))
	})
	if err != nil {
		return since, fmt.Errorf("rolling the bad image out: %w", err)
	}
	return since, nil
}
