package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/controllers/store/faulty"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

// storeFaults are the ways in which a store fails from the beginning.
var storeFaults = map[string][]faulty.Fault{
	"errors":                    {{Kind: faulty.Fail}},
	"answers that are lost":     {{Op: faulty.Write, Kind: faulty.Lose}, {Op: faulty.Copy, Kind: faulty.Lose}},
	"a ledger that is cut off":  {{Op: faulty.Write, Key: "/ledger/", Kind: faulty.Truncate, N: 200}},
	"writes that are torn":      {{Op: faulty.Write, Kind: faulty.Tear, N: 100}},
	"a full disk":               {{Op: faulty.Write, Kind: faulty.Full, N: 100}},
	"a read-only disk":          {{Kind: faulty.ReadOnly}},
	"credentials that are lost": {{Kind: faulty.Denied}},
	"a store that hangs":        {{Kind: faulty.Hang}},
	"another digest on reading": {{Op: faulty.Open, Kind: faulty.Flip, N: 10}},
}

var _ = Describe("A store that fails", func() {
	It("does not delay containment, holds back whatever is destructive, and nothing is missing once it works again", func(ctx SpecContext) {
		Expect(withFaults(slices.Collect(maps.Keys(storeFaults)), func(plan []faulty.Fault) error { return surviveStore(ctx, plan, policyFor(plan)) })).To(BeEmpty())
	})
})

// withFaults does something with each of the store's faults, side by side, and returns what went wrong.
func withFaults(names []string, do func([]faulty.Fault) error) []string {
	var (
		wait     sync.WaitGroup
		mu       sync.Mutex
		problems []string
	)
	for _, name := range names {
		wait.Go(func() {
			defer GinkgoRecover()
			if err := do(storeFaults[name]); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, name+": "+err.Error())
			}
		})
	}
	wait.Wait()
	slices.Sort(problems)
	return problems
}

// failing is a store that can be made to fail, and healed.
type failing struct {
	mu      sync.Mutex
	plan    []faulty.Fault
	backend []*faulty.Backend
}

// Open opens the store, and makes it fail if it is to.
func (f *failing) Open(ctx context.Context, url string, opts store.Options) (*store.Store, error) {
	inner, err := store.OpenBackend(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	backend := faulty.New(inner, f.plan...)
	f.backend = append(f.backend, backend)
	return store.New(backend, opts)
}

func (f *failing) heal() { f.fail() }

// fail makes the store fail from now on.
func (f *failing) fail(plan ...faulty.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = plan
	for _, b := range f.backend {
		b.Plan(plan...)
	}
}

// surviveStore contains an Incident while its store fails, tries to close it, heals the store, and looks at the end.
func surviveStore(ctx context.Context, plan []faulty.Fault, policy func(*v1alpha1.ContainmentPolicy)) (err error) {
	shop, err := openShop(ctx, policy)
	if err != nil {
		return err
	}
	bad := &failing{plan: plan}
	op, err := operator.Start(ctx, server.OperatorConfig(), operator.Options{
		Namespaces: []string{shop.Namespace, cluster.OperatorNamespace}, EvidenceStore: storeOf(shop.Namespace), OpenStore: bad.Open,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Stop()) }()
	if err := shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))); err != nil {
		return err
	}
	inc, err := shop.Await(ctx, "miner", "contained, and known to be without custody", func(inc *v1alpha1.Incident) bool {
		return scenario.Is(v1alpha1.ConditionContained)(inc) &&
			(scenario.HasReason(v1alpha1.ConditionCustody, v1alpha1.ReasonStoreUnavailable)(inc) || inHand(inc))
	})
	if err != nil {
		return err
	}
	if err := tryToClose(ctx, shop, inc); err != nil {
		return err
	}
	bad.heal()
	inc, err = shop.Await(ctx, "miner", "closed", closed)
	if err != nil {
		return err
	}
	return intact(ctx, shop, inc)
}

// policyFor leaves logs out where the store hangs: an upload of logs that hangs is given up at their deadline, for which nobody wants to wait here.
func policyFor(plan []faulty.Fault) func(*v1alpha1.ContainmentPolicy) {
	return func(p *v1alpha1.ContainmentPolicy) {
		if plan[0].Kind == faulty.Hang {
			p.Spec.Evidence.Logs.Collect = v1alpha1.Skip
		}
	}
}

// inHand says that the ledger is written all the same: some faults only cost attempts.
func inHand(inc *v1alpha1.Incident) bool {
	return scenario.HasReason(v1alpha1.ConditionCustody, v1alpha1.ReasonLedgerSigned)(inc)
}

// tryToClose has the Incident closed, which must not come about while the store fails.
func tryToClose(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident) error {
	if err := shop.SetGoal(ctx, "miner", v1alpha1.GoalClose); err != nil {
		return err
	}
	_, err := shop.Await(ctx, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
	if err != nil {
		return err
	}
	if err := shop.Approve(ctx, "miner", v1alpha1.CloseStage); err != nil {
		return err
	}
	if inHand(inc) {
		return nil
	}
	_, err = shop.Await(ctx, "miner", "held back", func(inc *v1alpha1.Incident) bool {
		return strings.Contains(scenario.Conditions(inc), "waits until the custody ledger can be written")
	})
	if err != nil {
		return err
	}
	var pod corev1.Pod
	if err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: inc.Status.Pods[0].Name}, &pod); err != nil {
		return fmt.Errorf("the quarantined pod: %w", err)
	}
	if !pod.DeletionTimestamp.IsZero() {
		return errors.New("the quarantined pod is deleted though its evidence is not safe")
	}
	return nil
}

// intact says what is wrong with the ledger and the items at the end.
func intact(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident) error {
	original := originals(inc)
	for _, e := range inc.Status.Evidence {
		if e.State != v1alpha1.EvidenceCollected && !ofReplacement(e, original) {
			return fmt.Errorf("%s of %s is %s: %s", e.Type, e.Subject.Name, e.State, e.Message)
		}
	}
	st, err := store.Open(ctx, storeOf(shop.Namespace), store.Options{})
	if err != nil {
		return err
	}
	if _, err := settledLedger(ctx, st, shop, inc); err != nil {
		return err
	}
	return describeStore(ctx, shop, inc, func(string, ...any) {})
}

var _ = Describe("A ledger that somebody has changed in the store", func() {
	for name, change := range map[string]func(context.Context, *store.Store, []string) error{
		"its end cut off": func(ctx context.Context, st *store.Store, keys []string) error {
			var err error
			segments := 0
			for _, k := range keys {
				ledger := strings.Contains(k, "/ledger/")
				if ledger {
					segments++
				}
				if ledger && segments > 1 || strings.Contains(k, "/heads/") {
					err = errors.Join(err, st.Delete(ctx, k))
				}
			}
			return err
		},
		"an entry edited": func(ctx context.Context, st *store.Store, keys []string) error {
			first := keys[slices.IndexFunc(keys, func(k string) bool { return strings.Contains(k, "/ledger/") })]
			raw, err := st.Read(ctx, first)
			if err != nil {
				return err
			}
			edited := strings.Replace(string(raw), "DeclareIncident", "DenyEverything!", 1)
			return errors.Join(st.Delete(ctx, first), st.Create(ctx, first, []byte(edited)))
		},
	} {
		It("is noticed by the next operator, which does nothing destructive: "+name, func(ctx SpecContext) {
			Expect(damaged(ctx, change)).To(Succeed())
		})
	}
})

// damaged contains an Incident, changes its ledger while no operator runs, and looks what the next one does.
func damaged(ctx context.Context, change func(context.Context, *store.Store, []string) error) (err error) {
	shop, err := openShop(ctx)
	if err != nil {
		return err
	}
	options := operator.Options{Namespaces: []string{shop.Namespace, cluster.OperatorNamespace}, EvidenceStore: storeOf(shop.Namespace)}
	first, err := operator.Start(ctx, server.OperatorConfig(), options)
	if err != nil {
		return err
	}
	if err := shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))); err != nil {
		return errors.Join(err, first.Stop())
	}
	inc, err := shop.Await(ctx, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
	if err = errors.Join(err, first.Stop()); err != nil {
		return err
	}
	st, err := store.Open(ctx, storeOf(shop.Namespace), store.Options{})
	if err != nil {
		return err
	}
	keys, err := st.Keys(ctx, "incidents/"+string(inc.UID)+"/")
	if err != nil {
		return err
	}
	if err := change(ctx, st, keys); err != nil {
		return err
	}
	second, err := operator.Start(ctx, server.OperatorConfig(), options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	if err := shop.SetGoal(ctx, "miner", v1alpha1.GoalClose); err != nil {
		return err
	}
	_, err = shop.Await(ctx, "miner", "known to be damaged", scenario.HasReason(v1alpha1.ConditionCustody, v1alpha1.ReasonLedgerDamaged))
	if err != nil {
		return err
	}
	if err := shop.Approve(ctx, "miner", v1alpha1.CloseStage); err != nil {
		return err
	}
	_, err = shop.Await(ctx, "miner", "held back", func(inc *v1alpha1.Incident) bool {
		return strings.Contains(scenario.Conditions(inc), "Released=False (Releasing) waits until the custody ledger can be written")
	})
	return err
}

var _ = Describe("Two operators that both believe to lead", func() {
	It("arrive at the end state of one, with one ledger", func(ctx SpecContext) {
		story := story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: recovered}
		reference, _, err := run(ctx, story, Never, Write{})
		Expect(err).NotTo(HaveOccurred())
		got, inc, shop, err := runTwo(ctx, story)
		Expect(err).NotTo(HaveOccurred())
		Expect(cmp.Diff(reference, got)).To(BeEmpty())

		st, err := store.Open(ctx, storeOf(shop.Namespace), store.Options{})
		Expect(err).NotTo(HaveOccurred())
		ledger, err := custody.Open(ctx, st, string(inc.UID))
		Expect(err).NotTo(HaveOccurred())
		seen := map[string]bool{}
		for e := range ledger.Entries() {
			Expect(seen).NotTo(HaveKey(e.ID))
			seen[e.ID] = true
		}
	})
})

// runTwo tells a story with two operators at work from the beginning to the end.
func runTwo(ctx context.Context, story story) (end []string, inc *v1alpha1.Incident, shop *scenario.Shop, err error) {
	if shop, err = openShop(ctx, story.policy); err != nil {
		return nil, nil, nil, err
	}
	for range 2 {
		op, startErr := operator.Start(ctx, server.OperatorConfig(), operator.Options{
			Namespaces: []string{shop.Namespace, cluster.OperatorNamespace}, EvidenceStore: storeOf(shop.Namespace),
		})
		if startErr != nil {
			return nil, nil, nil, startErr
		}
		defer func() { err = errors.Join(err, op.Stop()) }()
	}
	if inc, err = story.tell(ctx, shop); err != nil {
		return nil, nil, nil, err
	}
	end, err = EndState(ctx, shop, inc)
	return end, inc, shop, err
}

// openShop opens a shop in a namespace of its own, with a policy of its own.
func openShop(ctx context.Context, changes ...func(*v1alpha1.ContainmentPolicy)) (*scenario.Shop, error) {
	shop, err := scenario.Open(ctx, server, "faults-"+rand.String(8))
	if err != nil {
		return nil, err
	}
	return shop, shop.Admin.Create(ctx, scenario.Policy(shop.Namespace, changes...))
}
