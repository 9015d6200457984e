package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/rand"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

// atOnce is how many runs share the control plane at a time.
const atOnce = 8

var _ = Describe("A crash of the operator", func() {
	It("before or after any write of containment, recovery and close changes nothing about the end", func(ctx SpecContext) {
		reference, writes, err := run(ctx, Never, 0)
		Expect(err).NotTo(HaveOccurred())
		for i, w := range writes {
			fmt.Fprintf(GinkgoWriter, "write %d: %s\n", i+1, w)
		}
		Expect(len(writes)).To(BeNumerically(">", 20))

		var (
			wait     sync.WaitGroup
			mu       sync.Mutex
			slots    = make(chan struct{}, atOnce)
			problems []string
			crashes  int
		)
		for at := 0; at <= len(writes); at++ {
			// What the API server knows before a write is what it knows after the one before, so that dying after each of them, and before the first,
			// is dying in every gap there is.
			moment, at := After, at
			if at == 0 {
				moment, at = Before, 1
			}
			wait.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				got, died, err := runTo(ctx, moment, at)
				mu.Lock()
				defer mu.Unlock()
				if died {
					crashes++
				}
				if err != nil {
					problems = append(problems, fmt.Sprintf("%s write %d: %v", moment, at, err))
				} else if diff := cmp.Diff(reference, got); diff != "" {
					problems = append(problems, fmt.Sprintf("%s write %d: the end state differs (-undisturbed +crashed):\n%s", moment, at, diff))
				}
			})
		}
		wait.Wait()
		slices.Sort(problems)
		Expect(problems).To(BeEmpty())
		// Runs differ by a write or two, because Kubernetes' controllers come in between; nearly all must have crashed.
		Expect(crashes).To(BeNumerically(">=", len(writes)-3), "the operator has to have died in these runs")
		fmt.Fprintf(GinkgoWriter, "%d crashes, each with the end state of an undisturbed run\n", crashes)
	})
})

func runTo(ctx context.Context, moment Moment, at int) (end []string, died bool, err error) {
	end, writes, err := run(ctx, moment, at)
	return end, len(writes) >= at, err
}

// run tells the whole story in a namespace of its own, with an operator that dies once at the given moment and is then started again. It returns the end state and
// the writes up to the death, or all of them.
func run(ctx context.Context, moment Moment, at int) (end, writes []string, err error) {
	shop, err := scenario.Open(ctx, server, "crash-"+rand.String(8))
	if err != nil {
		return nil, nil, err
	}
	if err := shop.Admin.Create(ctx, scenario.Policy(shop.Namespace)); err != nil {
		return nil, nil, err
	}
	faulty := NewClient(moment, at)
	stopped := make(chan error, 1)
	running, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		if stopErr := <-stopped; err == nil {
			err = stopErr
		}
	}()
	go func() { stopped <- supervise(running, shop.Namespace, faulty) }()
	inc, err := tell(ctx, shop)
	if err != nil {
		return nil, faulty.Writes(), err
	}
	end, err = EndState(ctx, shop, inc)
	return end, faulty.Writes(), err
}

// supervise runs the operator, and a fresh one once it has died.
func supervise(ctx context.Context, namespace string, faulty *Client) error {
	options := operator.Options{Namespaces: []string{namespace, cluster.OperatorNamespace}, Wrap: faulty.Wrap}
	first, err := operator.Start(ctx, server.OperatorConfig(), options)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return first.Stop()
	case <-faulty.Dead():
	}
	if err := first.Stop(); err != nil {
		return err
	}
	options.Wrap = nil
	second, err := operator.Start(ctx, server.OperatorConfig(), options)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return second.Stop()
}

// tell declares an Incident and takes it from containment over recovery to its close.
func tell(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(scenario.Targets()...), builder.UsePlan(scenario.PlanName))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	steps := []struct {
		what string
		ok   func(*v1alpha1.Incident) bool
		then func() error
	}{
		{"contained with evidence and replacements", contained, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"waiting for approval", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[3].State == v1alpha1.StepRunning
		}, func() error { return shop.Approve(ctx, "miner", "sign-off") }},
		{"recovered", scenario.Is(v1alpha1.ConditionRecovered), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionReady)(inc) && len(inc.Finalizers) == 0
		}, func() error { return nil }},
	}
	var last *v1alpha1.Incident
	for _, step := range steps {
		var err error
		if last, err = shop.Await(ctx, "miner", step.what, step.ok); err != nil {
			return nil, err
		}
		if err := step.then(); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// contained waits for the replacements of both web pods too, so that every run has the same story to tell.
func contained(inc *v1alpha1.Incident) bool {
	attached := 0
	for _, p := range inc.Status.Pods {
		if p.Handling == v1alpha1.HandlingAttached {
			attached++
		}
	}
	return scenario.Is(v1alpha1.ConditionReady)(inc) && attached == 2
}
