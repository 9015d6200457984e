package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

// atOnce is how many runs share the control plane at a time.
const atOnce = 8

// story is one way through an Incident.
type story struct {
	policy func(*v1alpha1.ContainmentPolicy)
	tell   func(context.Context, *scenario.Shop) (*v1alpha1.Incident, error)
	// writes is the least number of writes at which the operator is killed, and at says which those are.
	writes int
	at     func(Write) bool
}

// toServer are the writes to the API server. Of those of an Incident's status, most of which only follow the ledger, the first ones and every eighth.
func toServer(w Write) bool {
	follows := strings.HasPrefix(w.Kind, "status ") && w.Nth > 4 && w.Nth%8 != 0
	return !inStore(w) && !follows
}

func inStore(w Write) bool { return strings.HasPrefix(w.Kind, "store ") }

// toStore are the writes to the evidence store. Of the heads and of what is incoming, which are written the same way again and again, the first ones; of the ledger and its keys, which are written in
// every pass that has something to tell, the first ones and every sixth.
func toStore(w Write) bool {
	repeated := strings.HasSuffix(w.Kind, " heads") || strings.HasSuffix(w.Kind, " incoming")
	steady := (strings.HasSuffix(w.Kind, " ledger") || strings.HasSuffix(w.Kind, " keys")) && w.Nth%6 == 0
	often := repeated || strings.HasSuffix(w.Kind, " ledger") || strings.HasSuffix(w.Kind, " keys")
	return inStore(w) && (!often || steady || w.Nth <= 4)
}

// removing are the writes to the store, and those to the API server by which snapshots and what was spooled are removed.
func removing(w Write) bool {
	return toStore(w) || strings.Contains(w.Kind, "VolumeSnapshot") || w.Kind == "delete *v1.ConfigMap"
}

var _ = DescribeTable("A crash of the operator between any two writes changes nothing about the end",
	func(ctx SpecContext, story story) {
		reference, writes, err := run(ctx, story, Never, Write{})
		Expect(err).NotTo(HaveOccurred())
		writes = slices.DeleteFunc(writes, func(w Write) bool { return !story.at(w) })
		for i, w := range writes {
			fmt.Fprintf(GinkgoWriter, "write %d: %s, number %d\n", i+1, w.Kind, w.Nth)
		}
		Expect(len(writes)).To(BeNumerically(">", story.writes))
		fatal, problems := crashEverywhere(ctx, story, writes, reference)
		Expect(problems).To(BeEmpty())
		// Runs differ by a few writes, because Kubernetes' controllers come in between. That the operator died often, and at every kind of write, has to hold all
		// the same.
		Expect(len(fatal)).To(BeNumerically(">=", story.writes))
		Expect(kinds(fatal)).To(ContainElements(kinds(writes)))
		fmt.Fprintf(GinkgoWriter, "%d crashes, each with the end state of an undisturbed run\n", len(fatal))
	},
	Entry("contained, recovered and closed", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: recovered, writes: 45, at: toServer}),
	Entry("a false alarm: replacements refused, a policy of others carved out, two Incidents on one pod, everything given back", story{policy: lenient, tell: falseAlarm, writes: 45, at: toServer}),
	Entry("evidence kept, and removed after an approved release", story{policy: removable, tell: kept, writes: 32, at: removing}),
	Entry("evidence of every kind: tools, checkpoints, volumes taken together, all of it encrypted and then removed", story{policy: everything, tell: thorough, writes: 32, at: besides}),
	Entry("images chosen, and digests refused", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: chosen, writes: 12, at: ofImages}),
	Entry("Argo CD paused, images rolled back, Argo CD resumed", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: fromGit, writes: 5, at: ofManagers}),
	Entry("two waves released, of which the second relapses, is held again, and released once more", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: inWaves, writes: 20, at: ofWaves}),
	Entry("a volume restored, given back, and restored again", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: restored, writes: 25, at: ofVolumes}),
	Entry("a secret rotated, those that use it restarted, and somebody told", story{policy: tellingHook, tell: rotated, writes: 7, at: ofRotation}),
	Entry("a Job and a bare pod created anew", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: createdAnew, writes: 6, at: ofJobs}),
	Entry("a Deployment made to name a restored claim, the former one again, and the restored one again", story{policy: func(*v1alpha1.ContainmentPolicy) {}, tell: renamed, writes: 15, at: ofClaims}),
)

// crashEverywhere tells the story once for every gap between two writes, with a crash in that gap. It returns the writes at which the operator died.
//
// What the API server knows before a write is what it knows after the one before, so that dying after each of them, and before the first, is dying in every gap
// there is.
func crashEverywhere(ctx context.Context, story story, writes []Write, reference []string) (fatal []Write, problems []string) {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		slots = make(chan struct{}, atOnce)
	)
	crash := func(moment Moment, at Write) {
		slots <- struct{}{}
		defer func() { <-slots }()
		got, made, err := run(ctx, story, moment, at)
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(made, at) {
			fatal = append(fatal, at)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s %v: %v", moment, at, err))
		} else if diff := cmp.Diff(reference, got); diff != "" {
			problems = append(problems, fmt.Sprintf("%s %v: the end state differs (-undisturbed +crashed):\n%s", moment, at, diff))
		}
	}
	wait.Go(func() { crash(Before, writes[0]) })
	for _, w := range writes {
		wait.Go(func() { crash(After, w) })
	}
	wait.Wait()
	slices.Sort(problems)
	return fatal, problems
}

// kinds are the distinct kinds of writes.
func kinds(writes []Write) []string {
	var out []string
	for _, w := range writes {
		if !slices.Contains(out, w.Kind) {
			out = append(out, w.Kind)
		}
	}
	return out
}

// run tells the whole story in a namespace of its own, with an operator that dies once at the given moment and is then started again. It returns the end state and
// the writes up to the death, or all of them.
func run(ctx context.Context, story story, moment Moment, at Write) (end []string, writes []Write, err error) {
	shop, err := scenario.Open(ctx, server, "crash-"+rand.String(8))
	if err != nil {
		return nil, nil, err
	}
	if err := shop.Admin.Create(ctx, scenario.Policy(shop.Namespace, story.policy)); err != nil {
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
	inc, err := story.tell(ctx, shop)
	if err != nil {
		return nil, faulty.Writes(), err
	}
	end, err = EndState(ctx, shop, inc)
	return end, faulty.Writes(), err
}

// supervise runs the operator, and a fresh one once it has died.
func supervise(ctx context.Context, namespace string, faulty *Client) error {
	options := operator.Options{
		Namespaces: []string{namespace, cluster.OperatorNamespace, evidence.JobNamespace}, Wrap: faulty.Wrap, EvidenceStore: storeOf(namespace), OpenStore: faulty.OpenStore,
		KubeletCAs: kubeletCAs(), KubeletAddressTypes: []corev1.NodeAddressType{corev1.NodeExternalIP},
	}
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
	options.Wrap, options.OpenStore = nil, nil
	second, err := operator.Start(ctx, server.OperatorConfig(), options)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return second.Stop()
}

// ofVolumes are the writes that exchange volumes, and those of the pods and workloads that stand in the way.
func ofVolumes(w Write) bool {
	return slices.ContainsFunc([]string{"PersistentVolume", "StatefulSet", "*v1.Pod"}, func(kind string) bool { return strings.Contains(w.Kind, kind) })
}

// restored gives the database a volume from before the incident, takes that back, and does it once more.
func restored(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	plan := builder.Plan(shop.Namespace, "volumes",
		builder.ScaleSet("stop", scenario.DB, v1alpha1.ScaleToZero), builder.RestoreVolumes("restore", []string{"stop"}, scenario.DBClaim), builder.Approve("look"),
	)
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return nil, err
	}
	_, since, err := shop.BackUp(ctx, "before")
	if err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)), builder.UsePlan("volumes"), builder.SuspectedSince(since))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return backAndForth(ctx, shop)
}

// backAndForth recovers, takes back what the second step of the plan has done, has it done once more, and closes.
func backAndForth(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	is := func(state v1alpha1.StepState) func(*v1alpha1.Incident) bool {
		return func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[1].State == state
		}
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"restored", is(v1alpha1.StepSucceeded), func() error { return shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionUndo) }},
		{"undone", is(v1alpha1.StepUndone), func() error { return shop.Intervene(ctx, "miner", "restore", v1alpha1.InterventionRetry) }},
		{"restored again", is(v1alpha1.StepSucceeded), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}

// ofJobs are the writes by which Jobs and pods are deleted and created.
func ofJobs(w Write) bool {
	return strings.Contains(w.Kind, "*v1.Job") || strings.Contains(w.Kind, "*v1.Pod") && !strings.HasPrefix(w.Kind, "patch")
}

// createdAnew brings back a Job and a bare pod, and closes.
func createdAnew(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	d := builder.Deployment(shop.Namespace, "import", scenario.BadImage, 1)
	d.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	shell := builder.Pod(shop.Namespace, "shell", "app", "shell")
	shell.Spec.Containers[0].Image = scenario.BadImage
	job, pod := v1alpha1.WorkloadRef{Kind: "Job", Name: "import"}, v1alpha1.WorkloadRef{Kind: "Pod", Name: "shell"}
	plan := builder.Plan(shop.Namespace, "anew", builder.RollBack("back", job, pod), builder.Approve("look"))
	plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Job", "import", "app", builder.GoodImage), builder.KnownGood("Pod", "shell", "app", builder.GoodImage)}
	for _, obj := range []client.Object{&batchv1.Job{ObjectMeta: d.ObjectMeta, Spec: batchv1.JobSpec{Template: d.Spec.Template}}, shell, plan} {
		if err := shop.Admin.Create(ctx, obj); err != nil {
			return nil, err
		}
	}
	if err := shop.WaitPods(ctx, "import", "shell"); err != nil {
		return nil, err
	}
	targets := builder.Targets(builder.Target(v1alpha1.TargetJob, "", "import"), builder.Target(v1alpha1.TargetPod, "", "shell"))
	if err := shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "miner", targets, builder.UsePlan("anew"))); err != nil {
		return nil, err
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"brought back", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[0].State == v1alpha1.StepSucceeded
		}, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}

// ofClaims are the writes that have a Deployment name another claim.
func ofClaims(w Write) bool {
	return slices.ContainsFunc([]string{"PersistentVolume", "Deployment"}, func(kind string) bool { return strings.Contains(w.Kind, kind) })
}

// renamed has a Deployment name a restored claim, takes that back, and does it once more.
func renamed(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	if err := shop.OpenFiles(ctx, scenario.BadImage); err != nil {
		return nil, err
	}
	restore := builder.RestoreVolumes("restore", []string{"stop"}, scenario.Files)
	restore.RestoreVolumes.CutOver = v1alpha1.CutOverChangeClaim
	plan := builder.Plan(shop.Namespace, "volumes", builder.Scale("stop", scenario.Files, v1alpha1.ScaleToZero), restore, builder.Approve("look"))
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return nil, err
	}
	_, since, err := shop.BackUpOf(ctx, "before", scenario.Files)
	if err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Files)), builder.UsePlan("volumes"), builder.SuspectedSince(since))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return backAndForth(ctx, shop)
}

// removable lets evidence be removed with one approval.
func removable(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Retention.RequiredApprovals = 1 }

// kept contains the database, keeps its evidence, closes, and removes the evidence.
func kept(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	target := builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB))
	if err := shop.Responder.Create(ctx, builder.Incident(shop.Namespace, "miner", target)); err != nil {
		return nil, err
	}
	return throughRemoval(ctx, shop)
}

// throughRemoval closes an Incident once its evidence is collected, and has the evidence removed.
func throughRemoval(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"asking about removal", func(inc *v1alpha1.Incident) bool { return closed(inc) && inc.Status.RemovalDigest != "" }, func() error {
			return shop.Approve(ctx, "miner", v1alpha1.RemoveStage)
		}},
		{"without evidence", scenario.HasReason(v1alpha1.ConditionEvidenceCollected, v1alpha1.ReasonRemoved), func() error { return nil }},
	})
}

// recovered declares an Incident and takes it from containment over recovery to its close.
func recovered(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(scenario.Targets()...), builder.UsePlan(scenario.PlanName))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	return follow(ctx, shop, "miner", []turn{
		{"contained with evidence and replacements", contained, func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		// After a crash the step may be found to have come true when it begins.
		{"rolling back the web tier", func(inc *v1alpha1.Incident) bool {
			return inc.Status.Recovery != nil && inc.Status.Recovery.Steps[3].State != v1alpha1.StepPending
		}, func() error { return shop.Approve(ctx, "miner", "sign-off") }},
		{"recovered", scenario.Is(v1alpha1.ConditionRecovered), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalClose) }},
		{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
			return shop.Approve(ctx, "miner", v1alpha1.CloseStage)
		}},
		{"closed", closed, func() error { return nil }},
	})
}

// turn is a point of a story: what has to come true, and what people do then.
type turn struct {
	what string
	ok   func(*v1alpha1.Incident) bool
	then func() error
}

// follow goes through the turns of an Incident and returns it as it is at the end.
func follow(ctx context.Context, shop *scenario.Shop, name string, steps []turn) (*v1alpha1.Incident, error) {
	var last *v1alpha1.Incident
	for _, step := range steps {
		var err error
		if last, err = shop.Await(ctx, name, step.what, step.ok); err != nil {
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

// lenient refuses replacements, takes pods out of policies that select everybody, and gives everything back at the end.
func lenient(p *v1alpha1.ContainmentPolicy) {
	p.Spec.Isolation.ConflictingPolicies = v1alpha1.ConflictCarveOut
	p.Spec.Isolation.Replacements = v1alpha1.ReplacementRefuse
	p.Spec.Closing.EvidencePods = v1alpha1.EvidencePodRelease
}

// falseAlarm contains the web tier though a policy selects every pod, lets a second Incident hold it as well, and closes both. The cluster serves a deny tier that nobody implements.
func falseAlarm(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	if err := shop.Admin.Create(ctx, scenario.AllowAll(shop.Namespace, "everybody", metav1.LabelSelector{})); err != nil {
		return nil, err
	}
	target := builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web))
	ready := scenario.Is(v1alpha1.ConditionReady)
	for _, name := range []string{"miner", "second"} {
		if err := shop.Responder.Create(ctx, builder.Incident(shop.Namespace, name, target)); err != nil {
			return nil, err
		}
		if _, err := shop.Await(ctx, name, "contained with evidence", ready); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"second", "miner"} {
		if err := shop.SetGoal(ctx, name, v1alpha1.GoalClose); err != nil {
			return nil, err
		}
		closing := []turn{
			{"waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval), func() error {
				return shop.Approve(ctx, name, v1alpha1.CloseStage)
			}},
			{"closed", closed, func() error { return nil }},
		}
		if inc, err := follow(ctx, shop, name, closing); err != nil || name == "miner" {
			return inc, err
		}
	}
	return nil, nil
}

func closed(inc *v1alpha1.Incident) bool {
	return scenario.Is(v1alpha1.ConditionReady)(inc) && scenario.LetGo(inc)
}
