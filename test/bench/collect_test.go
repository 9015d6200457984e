// Package bench has benchmarks that need a control plane. It has no tests: without -bench nothing is started.
package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

const (
	namespace = "crowd"
	podCount  = 500
	// atOnce is how many pods either side works on at a time; the operator's own number (controllers/setup.go).
	atOnce = 16
	rounds = 5
	// logLines is how many lines the simulated kubelet has of each container, of about 80 bytes each. Logs cost the collector more than the bare client, which only reads them: with none the comparison would flatter it.
	logLines = "200"
	// poll is how soon the reconciler looks again should nothing wake it (controllers/incident).
	poll = 2 * time.Second
	// maxDifference is by how much the numbers of requests of both sides may differ, as a part of the collector's.
	maxDifference = 0.02
	// maxRatio is how much longer the collector may take than the bare client.
	maxRatio = 1.2
)

// BenchmarkCollect measures how long it takes until 500 pods are collected, as a ratio to the time that the same requests take when bare client-go makes them at the same concurrency: what is above 1 is ours, not the
// API server's. It fails above 1.2.
//
// An op is the collection of all pods, in the two steps of the reconciler: everything about the pods is recorded in ConfigMaps, one request after the other (record-ratio), and then those and the logs are settled
// evidence, 16 at a time (settle-ratio). Every ratio is the median of those of the rounds, whose halves follow each other, so that what else the machine does counts for little. What the store takes is not in it: what
// is collected is hashed and dropped.
func BenchmarkCollect(b *testing.B) {
	config, pods := crowd(b)
	collector, bare := newSide(b, config), newSide(b, config)
	reconciler := newReconciler(b, collector, pods)
	// What is connected, discovered and cached by the first one to come helps both alike from now on.
	collector.measure(b, reconciler.record)
	collector.measure(b, reconciler.settle)
	compareCollections(b, reconciler, bare)
	var all []round
	for b.Loop() {
		for range rounds {
			r := compareCollections(b, reconciler, bare)
			b.Logf("recorded in %v, bare client %v; settled in %v, bare client %v", r.record.ours, r.record.theirs, r.settle.ours, r.settle.theirs)
			all = append(all, r)
		}
	}
	whole := func(r round) comparison { return r.record.plus(r.settle) }
	ratio := median(all, func(r round) float64 { return whole(r).ratio() })
	b.ReportMetric(median(all, func(r round) float64 { return float64(whole(r).ours) }), "ns/op")
	b.ReportMetric(median(all, func(r round) float64 { return float64(whole(r).theirs) }), "bare-ns/op")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(median(all, func(r round) float64 { return r.record.ratio() }), "record-ratio")
	b.ReportMetric(median(all, func(r round) float64 { return r.settle.ratio() }), "settle-ratio")
	b.ReportMetric(float64(whole(all[0]).requests), "requests/op")
	if ratio > maxRatio {
		b.Errorf("the collector takes %.3f times as long as the bare client", ratio)
	}
}

// round is one collection and its replay, step by step.
type round struct{ record, settle comparison }

// comparison is how long each of both sides took for the same requests.
type comparison struct {
	ours, theirs time.Duration
	requests     int
}

func (c comparison) ratio() float64 { return float64(c.ours) / float64(c.theirs) }

func (c comparison) plus(other comparison) comparison {
	return comparison{ours: c.ours + other.ours, theirs: c.theirs + other.theirs, requests: c.requests + other.requests}
}

func median(rounds []round, of func(round) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// compareCollections makes one collection and replays it.
func compareCollections(b *testing.B, r *reconciler, bare *side) (out round) {
	b.Helper()
	out.record = compare(b, r.side, bare, r.record, func(made []request) [][]request { return [][]request{renamed(b, made)} })
	out.settle = compare(b, r.side, bare, r.settle, byObject)
	return out
}

// compare measures a step of the collector, and then the same requests of the bare client: those of each of the lists that inOrder returns one after the other, of 16 lists at a time.
func compare(b *testing.B, collector, bare *side, step func(context.Context) error, inOrder func([]request) [][]request) comparison {
	b.Helper()
	ours := collector.measure(b, step)
	plan := inOrder(collector.made)
	theirs := bare.measure(b, func(ctx context.Context) error { return bare.replay(ctx, plan) })
	checkSame(b, collector, bare)
	return comparison{ours: ours, theirs: theirs, requests: len(collector.made)}
}

// checkSame fails when both sides have not done the same work, because the ratio would then say nothing.
func checkSame(b *testing.B, collector, bare *side) {
	b.Helper()
	ours, theirs := len(collector.made), len(bare.made)
	if difference := float64(ours-theirs) / float64(ours); max(difference, -difference) > maxDifference {
		b.Fatalf("the collector made %d requests and the bare client %d", ours, theirs)
	}
}

// crowd starts a control plane with the pods, all of them running, and returns how the operator reaches it.
func crowd(b *testing.B) (operator *rest.Config, pods []*corev1.Pod) {
	b.Helper()
	server := startCluster(b)
	admin, err := server.Client()
	if err != nil {
		b.Fatal(err)
	}
	if err := createPods(b.Context(), admin); err != nil {
		b.Fatal(err)
	}
	if pods, err = awaitRunning(b.Context(), admin); err != nil {
		b.Fatal(err)
	}
	operator = server.OperatorConfig()
	operator.QPS, operator.Burst = -1, -1 // as the manager
	return operator, pods
}

func createPods(ctx context.Context, admin kubernetes.Interface) error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the namespace: %w", err)
	}
	names := make([]string, podCount)
	for i := range names {
		names[i] = fmt.Sprintf("pod-%03d", i)
	}
	return each(names, func(name string) error {
		pod := builder.Pod(namespace, name, "app", "crowd")
		pod.Annotations = map[string]string{"sim.cofferdam.dev/log-lines": logLines} // hack/controlplane/internal/sim
		_, err := admin.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
}

func awaitRunning(ctx context.Context, admin kubernetes.Interface) (pods []*corev1.Pod, err error) {
	err = wait.PollUntilContextTimeout(ctx, time.Second, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := admin.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err != nil || len(list.Items) < podCount {
			return false, err
		}
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for %d pods to run: %w", podCount, err)
	}
	return pods, nil
}

// reconciler drives the collectors in passes, as the one of controllers/incident does.
type reconciler struct {
	side       *side
	background *evidence.Background
	pods       []*corev1.Pod
	byUID      map[string]*corev1.Pod
	// woken holds at most one wake-up: those that come during a pass are answered by one further pass.
	woken chan struct{}
	// round makes each collection one of another Incident, whose evidence items are spooled by its first step.
	round   int
	spooled []v1alpha1.EvidenceItem
}

func newReconciler(b *testing.B, collector *side, pods []*corev1.Pod) *reconciler {
	b.Helper()
	r := &reconciler{
		side: collector, background: evidence.NewBackground(atOnce), pods: pods, byUID: map[string]*corev1.Pod{}, woken: make(chan struct{}, 1),
	}
	for _, pod := range pods {
		r.byUID[string(pod.UID)] = pod
	}
	ctx, cancel := context.WithCancel(b.Context())
	var ended sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		ended.Wait()
	})
	ended.Go(func() { _ = r.background.Start(ctx) }) // it ends with the context, without an error
	ended.Go(func() { r.listen(ctx) })
	// It runs nothing before it has been started, and does not tell when it has.
	err := wait.PollUntilContextTimeout(ctx, time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		_, started := r.background.Do("probe", types.NamespacedName{}, time.Minute, func(context.Context) evidence.Result { return evidence.Result{} })
		return started, nil
	})
	if err != nil {
		b.Fatalf("starting the background: %v", err)
	}
	return r
}

// listen takes what wakes the reconciler, as the queue of a controller does: nobody who wakes it has to wait.
func (r *reconciler) listen(ctx context.Context) {
	for {
		select {
		case <-r.background.Wake:
		case <-ctx.Done():
			return
		}
		select {
		case r.woken <- struct{}{}:
		default:
		}
	}
}

// record spools what there is to know about every pod, and what is around all of them, before anything would be done to them.
func (r *reconciler) record(ctx context.Context) error {
	r.round++
	r.spooled = nil
	x := r.execution()
	for _, pod := range r.pods {
		record, err := evidence.Gather(ctx, r.side.live, pod, nil)
		if err != nil {
			return err
		}
		objects, err := evidence.RecordObjects(x.Incident, x.OperatorNamespace, record)
		if err != nil {
			return err
		}
		subject := v1alpha1.ObjectRef{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
		if err := r.spool(ctx, objects, evidence.ManifestsID(subject.UID), v1alpha1.EvidenceManifests, subject); err != nil {
			return err
		}
	}
	surroundings, err := evidence.GatherSurroundings(ctx, r.side.live, namespace, r.pods, evidence.PolicyKinds{})
	if err != nil {
		return err
	}
	objects, err := evidence.SurroundingsObjects(x.Incident, x.OperatorNamespace, surroundings)
	if err != nil {
		return err
	}
	return r.spool(ctx, objects, evidence.SurroundingsID(namespace), v1alpha1.EvidenceSurroundings, v1alpha1.ObjectRef{Kind: "Namespace", Name: namespace})
}

func (r *reconciler) spool(ctx context.Context, objects []*corev1.ConfigMap, id string, kind v1alpha1.EvidenceType, subject v1alpha1.ObjectRef) error {
	index, err := evidence.WriteSpool(ctx, r.side.live, objects)
	if err != nil {
		return err
	}
	item, err := evidence.SpooledItem(index, id, kind, subject, nil, time.Now())
	r.spooled = append(r.spooled, item)
	return err
}

// settle makes passes until every item is settled: what was recorded is in the store, and the logs are. They have to have been had: a gap would be quicker.
func (r *reconciler) settle(ctx context.Context) error {
	logs := evidence.NewLogs(evidence.NewLogSource(r.side.logs.CoreV1()))
	collectors := map[v1alpha1.EvidenceType]evidence.Collector{
		v1alpha1.EvidenceManifests: evidence.Manifests{}, v1alpha1.EvidenceSurroundings: evidence.Surroundings{}, v1alpha1.EvidenceLogs: logs,
	}
	items := append(r.spooled, logs.Begin(r.execution(), r.pods)...)
	if len(items) != 2*len(r.pods)+1 {
		return fmt.Errorf("%d items for %d pods", len(items), len(r.pods))
	}
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		pending, err := r.pass(ctx, collectors, items)
		if err != nil || pending == 0 {
			return err
		}
		select {
		case <-r.woken:
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pass lets the collectors look at every item that is pending.
func (r *reconciler) pass(ctx context.Context, collectors map[v1alpha1.EvidenceType]evidence.Collector, items []v1alpha1.EvidenceItem) (pending int, err error) {
	x := r.execution()
	for i := range items {
		if items[i].State != v1alpha1.EvidencePending {
			continue
		}
		if items[i], err = collectors[items[i].Type].Collect(ctx, x, items[i]); err != nil {
			return 0, err // on a server that answers nothing has to be tried again
		}
		switch items[i].State {
		case v1alpha1.EvidencePending:
			pending++
		case v1alpha1.EvidenceCollected:
			r.background.Forget(x.TaskID(items[i].ID))
		default:
			return 0, fmt.Errorf("%s of %s are %s: %s", items[i].Type, items[i].Subject.Name, items[i].State, items[i].Message)
		}
	}
	return pending, nil
}

func (r *reconciler) execution() *evidence.Execution {
	incident := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bench", UID: types.UID(fmt.Sprintf("round-%d", r.round))}}
	return &evidence.Execution{
		Incident: incident, Pod: func(uid string) *corev1.Pod { return r.byUID[uid] }, Reader: r.side.live, Sink: hashingSink{}, Background: r.background,
		OperatorNamespace: cluster.OperatorNamespace, Now: time.Now(),
	}
}

// hashingSink keeps nothing but digests, which every store computes.
type hashingSink struct{}

// PutItem reads everything.
func (hashingSink) PutItem(_ context.Context, incidentUID string, r io.Reader) (store.Object, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err != nil {
		return store.Object{}, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	return store.Object{
		Key: "incidents/" + incidentUID + "/items/" + digest, Digest: "sha256:" + digest, Size: n, PlainDigest: "sha256:" + digest, PlainSize: n,
	}, nil
}
