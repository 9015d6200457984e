// Package bench has benchmarks that need a control plane. It has no tests: without -bench nothing is started.
package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
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
	rounds = 3
	// logLines is how many lines the simulated kubelet has of each container, of about 80 bytes each. Logs cost the collector more than the bare client, which only reads them: with none the comparison would flatter it.
	logLines = "200"
	// poll is how soon the reconciler looks again should nothing wake it (controllers/incident).
	poll = 2 * time.Second
	// maxDifference is by how much the numbers of requests of both sides may differ, as a part of the collector's.
	maxDifference = 0.02
)

// BenchmarkCollectLogs measures how long it takes until the logs of 500 pods are settled evidence, as a ratio to the time that the same requests take when bare client-go makes them at the same concurrency: what
// is above 1 is ours, not the API server's. An op is one collection of all pods. ns/op and bare-ns/op are medians, and ratio is the one of them divided by the other. What the store takes is not in it: what is
// collected is hashed and dropped.
func BenchmarkCollectLogs(b *testing.B) {
	ctx := b.Context()
	config, pods := crowd(b)
	collector, bare := newSide(b, config), newSide(b, config)
	reconciler := newReconciler(b, collector.client, pods)
	compare := func() (collected, replayed time.Duration) {
		collected = collector.measure(b, func() error { return reconciler.collect(ctx) })
		plan := collector.requests()
		replayed = bare.measure(b, func() error { return replay(ctx, bare.client, plan) })
		checkSame(b, collector, bare)
		return collected, replayed
	}
	compare() // what is connected and cached by the first one to come helps both alike from now on
	var collections, replays []time.Duration
	for b.Loop() {
		for range rounds {
			collected, replayed := compare()
			b.Logf("collector %v, bare client %v", collected, replayed)
			collections, replays = append(collections, collected), append(replays, replayed)
		}
	}
	collection, bareTime := median(collections), median(replays)
	b.ReportMetric(float64(collection), "ns/op")
	b.ReportMetric(float64(bareTime), "bare-ns/op")
	b.ReportMetric(float64(collection)/float64(bareTime), "ratio")
	b.ReportMetric(float64(collector.count()), "requests/op")
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// checkSame fails when both sides have not done the same work, because the ratio would then say nothing.
func checkSame(b *testing.B, collector, bare *side) {
	b.Helper()
	ours, theirs := collector.count(), bare.count()
	if difference := float64(ours-theirs) / float64(ours); max(difference, -difference) > maxDifference {
		b.Fatalf("the collector made %d requests and the bare client %d", ours, theirs)
	}
}

// crowd starts a control plane with the pods, all of them running, and returns how the operator reaches it.
func crowd(b *testing.B) (operator *rest.Config, pods []*corev1.Pod) {
	b.Helper()
	server, err := cluster.StartInstalled(b.Context(), "external")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
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

// each calls fn for every item, 16 at a time, until one fails.
func each[T any](items []T, fn func(T) error) error {
	var (
		queue   = make(chan T)
		workers sync.WaitGroup
		first   error
		once    sync.Once
		failed  = make(chan struct{})
	)
	for range atOnce {
		workers.Go(func() {
			for item := range queue {
				if err := fn(item); err != nil {
					once.Do(func() {
						first = err
						close(failed)
					})
					return
				}
			}
		})
	}
	func() {
		defer close(queue)
		for _, item := range items {
			select {
			case queue <- item:
			case <-failed:
				return
			}
		}
	}()
	workers.Wait()
	return first
}

// side is one of the two that are compared: a client whose requests are noted.
type side struct {
	client *kubernetes.Clientset

	mu   sync.Mutex
	made map[string][]*url.URL // by the path of the pod, in the order in which they were made
}

func newSide(b *testing.B, config *rest.Config) *side {
	b.Helper()
	s := &side{}
	own := rest.CopyConfig(config)
	own.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return noting(func(r *http.Request) (*http.Response, error) {
			s.note(r)
			return next.RoundTrip(r)
		})
	})
	var err error
	if s.client, err = kubernetes.NewForConfig(own); err != nil {
		b.Fatal(err)
	}
	return s
}

// noting is a transport.
type noting func(*http.Request) (*http.Response, error)

func (n noting) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

func (s *side) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod := strings.TrimSuffix(r.URL.Path, logSuffix)
	s.made[pod] = append(s.made[pod], r.URL)
}

func (s *side) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, requests := range s.made {
		n += len(requests)
	}
	return n
}

// requests are those of the last measurement, pod by pod.
func (s *side) requests() [][]*url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]*url.URL
	for _, pod := range slices.Sorted(maps.Keys(s.made)) {
		out = append(out, s.made[pod])
	}
	return out
}

// measure notes anew which requests fn makes, and returns how long it takes.
func (s *side) measure(b *testing.B, fn func() error) time.Duration {
	b.Helper()
	s.mu.Lock()
	s.made = map[string][]*url.URL{}
	s.mu.Unlock()
	runtime.GC() // nobody pays for the garbage of the other side
	begun := time.Now()
	err := fn()
	took := time.Since(begun)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

const (
	podsPath  = "/api/v1/namespaces/" + namespace + "/pods/"
	logSuffix = "/log"
)

// replay makes the requests with nothing but client-go: those of one pod one after the other, of 16 pods at a time.
func replay(ctx context.Context, client kubernetes.Interface, plan [][]*url.URL) error {
	return each(plan, func(requests []*url.URL) error {
		for _, request := range requests {
			if err := repeat(ctx, client, request); err != nil {
				return fmt.Errorf("repeating %s: %w", request, err)
			}
		}
		return nil
	})
}

// repeat makes a request of the collector once more. It can only have been for a pod or for a log.
func repeat(ctx context.Context, client kubernetes.Interface, request *url.URL) error {
	below, ours := strings.CutPrefix(request.Path, podsPath)
	name, isLog := strings.CutSuffix(below, logSuffix)
	if !ours || strings.Contains(name, "/") || name == "" {
		return errors.New("this benchmark does not know this kind of request")
	}
	if !isLog {
		_, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}
	get := client.CoreV1().Pods(namespace).GetLogs(name, &corev1.PodLogOptions{})
	for option, values := range request.Query() {
		get.Param(option, values[0]) // options of logs have one value each
	}
	log, err := get.Stream(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, log)
	return errors.Join(err, log.Close())
}

// reconciler drives the collector in passes, as the one of controllers/incident does.
type reconciler struct {
	client     kubernetes.Interface
	background *evidence.Background
	pods       []*corev1.Pod
	byUID      map[string]*corev1.Pod
	// woken holds at most one wake-up: those that come during a pass are answered by one further pass.
	woken chan struct{}
	// round makes each collection one of another Incident.
	round int
}

func newReconciler(b *testing.B, client kubernetes.Interface, pods []*corev1.Pod) *reconciler {
	b.Helper()
	r := &reconciler{
		client: client, background: evidence.NewBackground(atOnce), pods: pods, byUID: map[string]*corev1.Pod{}, woken: make(chan struct{}, 1),
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

// collect makes passes until every item is settled. The logs have to have been had: a gap would be quicker.
func (r *reconciler) collect(ctx context.Context) error {
	r.round++
	logs := evidence.NewLogs(evidence.NewLogSource(r.client.CoreV1()))
	x := r.execution()
	items := logs.Begin(x, r.pods)
	if len(items) != len(r.pods) {
		return fmt.Errorf("%d items for %d pods", len(items), len(r.pods))
	}
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		pending, err := r.pass(ctx, logs, items)
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

// pass lets the collector look at every item that is pending.
func (r *reconciler) pass(ctx context.Context, logs *evidence.Logs, items []v1alpha1.EvidenceItem) (pending int, err error) {
	x := r.execution()
	for i := range items {
		if items[i].State != v1alpha1.EvidencePending {
			continue
		}
		if items[i], err = logs.Collect(ctx, x, items[i]); err != nil {
			return 0, err // on a server that answers nothing has to be tried again
		}
		switch items[i].State {
		case v1alpha1.EvidencePending:
			pending++
		case v1alpha1.EvidenceCollected:
			r.background.Forget(x.TaskID(items[i].ID))
		default:
			return 0, fmt.Errorf("the logs of pod %s are %s: %s", items[i].Subject.Name, items[i].State, items[i].Message)
		}
	}
	return pending, nil
}

func (r *reconciler) execution() *evidence.Execution {
	incident := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bench", UID: types.UID(fmt.Sprintf("round-%d", r.round))}}
	return &evidence.Execution{
		Incident: incident, Pod: func(uid string) *corev1.Pod { return r.byUID[uid] }, Sink: hashingSink{}, Background: r.background,
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
