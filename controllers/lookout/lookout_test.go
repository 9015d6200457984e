package lookout

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var (
	first, second = types.NamespacedName{Namespace: "shop", Name: "first"}, types.NamespacedName{Namespace: "shop", Name: "second"}
	configMaps    = schema.GroupResource{Resource: "configmaps"}
)

// bench is a Lookout over a fake cluster.
type bench struct {
	t        *testing.T
	metadata *metadatafake.FakeMetadataClient
	client   client.Client
	lookout  *Lookout
	queue    workqueue.TypedRateLimitingInterface[reconcile.Request]
}

func newBench(t *testing.T) *bench {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	mapper := apimeta.NewDefaultRESTMapper(nil)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), apimeta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), apimeta.RESTScopeNamespace)
	b := &bench{
		t: t, metadata: metadatafake.NewSimpleMetadataClient(scheme), client: fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).Build(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]()),
	}
	b.lookout = New(b.metadata, mapper)
	if err := b.lookout.Start(t.Context(), b.queue); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.queue.ShutDown)
	return b
}

// pass reads the objects in one pass over the Incident, and says whether changes of theirs bring the next.
func (b *bench) pass(of types.NamespacedName, objects ...client.Object) bool {
	b.t.Helper()
	reader := b.lookout.Reader(of, b.client, func(obj runtime.Object) bool { _, pod := obj.(*corev1.Pod); return pod })
	for _, o := range objects {
		if err := reader.Get(b.t.Context(), client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil {
			b.t.Fatal(err)
		}
	}
	return reader.Done()
}

// watched makes a pass whose objects are watched already, or takes the request that the beginning of a watch brings.
func (b *bench) watched(of types.NamespacedName, object client.Object) {
	b.t.Helper()
	b.lookout.mu.Lock()
	before := len(b.lookout.watches)
	b.lookout.mu.Unlock()
	if b.pass(of, object) && before > 0 {
		return
	}
	b.woken(of)
	if !b.pass(of, object) {
		b.t.Fatal("the watch has begun, and the pass is said to need a further look")
	}
}

// woken waits until a pass over the Incident is asked for.
func (b *bench) woken(want types.NamespacedName) {
	b.t.Helper()
	request, _ := b.queue.Get()
	b.queue.Done(request)
	if request.NamespacedName != want {
		b.t.Fatalf("a pass over %v was asked for, not over %v", request, want)
	}
}

// change makes a Deployment, of which there is nothing but metadata.
func (b *bench) change(name string) {
	b.t.Helper()
	object := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "1"},
	}
	if err := b.metadata.Tracker().Add(object); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) quiet() {
	b.t.Helper()
	if n := b.queue.Len(); n != 0 {
		b.t.Fatalf("%d passes were asked for", n)
	}
}

func deployment(name string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

func TestAChangeOfWhatWasReadBringsAPass(t *testing.T) {
	b := newBench(t)
	b.watched(first, deployment("web")) // the watch has begun: what came before it is looked at once more
	b.watched(second, deployment("api"))

	b.change("web")
	b.woken(first)
	b.change("api")
	b.woken(second)
	b.quiet()
}

func TestWhatIsNotWaitedForAnyMoreBringsNoPass(t *testing.T) {
	b := newBench(t)
	b.watched(first, deployment("web"))
	b.watched(second, deployment("web"))
	b.watched(first, deployment("api"))
	b.change("web")
	b.woken(second)
	b.quiet()
}

func TestAListIsWaitedForAsAWhole(t *testing.T) {
	b := newBench(t)
	list := func() bool {
		reader := b.lookout.Reader(first, b.client, func(runtime.Object) bool { return false })
		if err := reader.List(t.Context(), &appsv1.DeploymentList{}, client.InNamespace("shop")); err != nil {
			t.Fatal(err)
		}
		return reader.Done()
	}
	list()
	b.woken(first)
	if !list() {
		t.Error("a list that is watched is said to need a further look")
	}
	b.change("anything")
	b.woken(first)
}

func TestAListIsReadOnceInAPass(t *testing.T) {
	b := newBench(t)
	reader := b.lookout.Reader(first, b.client, func(runtime.Object) bool { return false })
	read := func(r *Reader, namespace string) int {
		var list appsv1.DeploymentList
		if err := r.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			list.Items[i].Name = "changed by who has read it"
		}
		return len(list.Items)
	}
	if err := b.client.Create(t.Context(), deployment("web")); err != nil {
		t.Fatal(err)
	}
	if n := read(reader, "shop"); n != 1 {
		t.Fatalf("%d Deployments", n)
	}
	if err := b.client.Create(t.Context(), deployment("api")); err != nil {
		t.Fatal(err)
	}
	if n, elsewhere := read(reader, "shop"), read(reader, "elsewhere"); n != 1 || elsewhere != 0 {
		t.Errorf("%d Deployments, and %d elsewhere", n, elsewhere)
	}
	var again appsv1.DeploymentList
	if err := reader.List(t.Context(), &again, client.InNamespace("shop")); err != nil || again.Items[0].Name != "web" {
		t.Errorf("what one step does with its list shows in that of the next: %v, %v", again.Items, err)
	}
	if n := read(b.lookout.Reader(first, b.client, func(runtime.Object) bool { return false }), "shop"); n != 2 {
		t.Errorf("%d Deployments in the next pass", n)
	}
}

func TestWhatMayNotBeWatchedIsLookedAtAgain(t *testing.T) {
	b := newBench(t)
	b.metadata.PrependReactor("list", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(configMaps, "", nil)
	})
	for range 3 {
		if b.pass(first, configMap("settings")) {
			t.Error("what the operator may not watch is said to need no further look")
		}
	}
	if b.pass(first, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "unmapped"}}) {
		t.Error("a kind that is not served is said to need no further look")
	}
	if !b.pass(second, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0"}}) {
		t.Error("what brings passes anyway is said to need a further look")
	}
}

// Most clusters have none of the things that a recovery looks for everywhere: that takes neither requests nor further looks.
func TestAKindThatIsNotServedIsNotAskedForInEveryPass(t *testing.T) {
	b := newBench(t)
	mapper := &countingMapper{RESTMapper: apimeta.NewDefaultRESTMapper(nil)}
	b.lookout.mapper = mapper
	for range 3 {
		reader := b.lookout.Reader(first, b.client, func(runtime.Object) bool { return false })
		if err := reader.List(t.Context(), &corev1.ConfigMapList{}); !apimeta.IsNoMatchError(err) {
			t.Errorf("List() = %v", err)
		}
		if !reader.Done() {
			t.Error("a further look is said to be needed")
		}
	}
	if mapper.asked != 1 {
		t.Errorf("the server was asked %d times", mapper.asked)
	}
}

type countingMapper struct {
	apimeta.RESTMapper
	asked int
}

func (m *countingMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*apimeta.RESTMapping, error) {
	m.asked++
	return m.RESTMapper.RESTMapping(kind, versions...)
}

// A workload is read once in a pass, and once more after the pass has changed it. What the last pass has read is read ahead.
func TestAWorkloadIsReadOnce(t *testing.T) {
	b := newBench(t)
	reads := 0
	web := deployment("web")
	b.client = interceptor.NewClient(fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(web).Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			reads++
			return c.Get(ctx, key, obj, opts...)
		},
	})
	read := func(r *Reader, want int, labels string) {
		t.Helper()
		var got appsv1.Deployment
		if err := r.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, &got); err != nil || reads != want || got.Labels["version"] != labels {
			t.Errorf("Get() = %v with label %q after %d reads, want %q after %d", err, got.Labels["version"], reads, labels, want)
		}
		got.Labels = map[string]string{"version": "what a step does with its own copy"}
	}
	begin := func() *Reader { return b.lookout.Reader(first, b.client, func(runtime.Object) bool { return false }) }
	reader := begin()
	read(reader, 1, "")
	read(reader, 1, "")
	changed := web.DeepCopy()
	changed.Labels = map[string]string{"version": "two"}
	if err := b.client.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	reader.Changed("Deployment", "shop", "api")
	read(reader, 1, "")
	reader.Changed("Deployment", "shop", "web")
	read(reader, 2, "two")
	reader.Done()

	next := begin()
	next.ReadAhead(t.Context())
	if reads != 3 {
		t.Errorf("%d reads ahead of the pass, want one", reads-2)
	}
	read(next, 3, "two")
}

func TestWhatNobodyWaitsForIsNotWatched(t *testing.T) {
	b := newBench(t)
	b.watched(first, deployment("web"))
	b.watched(second, deployment("web"))
	b.lookout.Forget(first)
	b.change("web")
	b.woken(second)
	b.quiet()
	b.lookout.Forget(second)
	b.lookout.mu.Lock()
	defer b.lookout.mu.Unlock()
	if len(b.lookout.watches) != 0 || len(b.lookout.waits) != 0 {
		t.Errorf("%d watches and %d waits are left", len(b.lookout.watches), len(b.lookout.waits))
	}
}

func TestNothingIsWatchedBeforeTheManagerRuns(t *testing.T) {
	b := newBench(t)
	b.lookout = New(b.metadata, apimeta.NewDefaultRESTMapper(nil))
	if b.pass(first, deployment("web")) {
		t.Error("a pass without watches is said to need no further look")
	}
	b.lookout.Forget(first)
}
