package faults

import (
	"context"
	"errors"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store/faulty"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("A store that begins to fail during recovery", func() {
	It("holds back every step that destroys something, and the recovery goes on when it works again", func(ctx SpecContext) {
		names := []string{"errors", "a full disk", "a read-only disk", "credentials that are lost", "a store that hangs"}
		Expect(withFaults(names, func(faults []faulty.Fault) error { return recoverThrough(ctx, faults) })).To(BeEmpty())
	})
})

// recoverThrough recovers the database by a plan that first asks, and has the store fail while it does.
func recoverThrough(ctx context.Context, faults []faulty.Fault) (err error) {
	shop, err := openShop(ctx)
	if err != nil {
		return err
	}
	db := builder.RollBack("db", v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: scenario.DB})
	db.DependsOn = []string{"go"}
	plan := builder.Plan(shop.Namespace, "ask-first", builder.Approve("go"), db)
	plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", scenario.DB, "app", builder.GoodImage)}
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return err
	}
	bad := &failing{}
	op, err := operator.Start(ctx, server.OperatorConfig(), operator.Options{
		Namespaces: []string{shop.Namespace, cluster.OperatorNamespace}, EvidenceStore: storeOf(shop.Namespace), OpenStore: bad.Open,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Stop()) }()
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)), builder.UsePlan("ask-first"))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return err
	}
	// A step may begin, and have its intent written down; what it intends waits until the ledger has that.
	_, err = follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"waiting for approval", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[0].State == v1alpha1.StepRunning
		}, func() error {
			bad.fail(faults...)
			return shop.Approve(ctx, "miner", "go")
		}},
		{"held back", scenario.HasReason(v1alpha1.ConditionRecovered, v1alpha1.ReasonWaitingForEvidence), func() error { return untouched(ctx, shop) }},
	})
	if err != nil {
		return err
	}
	bad.heal()
	inc, err = follow(ctx, shop, "miner", []turn{
		{"recovered", scenario.Is(v1alpha1.ConditionRecovered), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
	if err != nil {
		return err
	}
	return intact(ctx, shop, inc)
}

// untouched says what was done to the database though nothing may be.
func untouched(ctx context.Context, shop *scenario.Shop) error {
	var set appsv1.StatefulSet
	if err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.DB}, &set); err != nil {
		return err
	}
	if image := set.Spec.Template.Spec.Containers[0].Image; image != scenario.BadImage {
		return fmt.Errorf("the database was rolled back to %s", image)
	}
	var pod corev1.Pod
	if err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.DB + "-0"}, &pod); err != nil {
		return fmt.Errorf("the quarantined pod: %w", err)
	}
	if !pod.DeletionTimestamp.IsZero() {
		return errors.New("the quarantined pod is deleted")
	}
	return nil
}
