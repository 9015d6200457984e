package evidence

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/store"
)

// memorySink keeps what it is given, and fails as often as it is told to.
type memorySink struct {
	mu        sync.Mutex
	errs      []error
	encrypted bool
	panics    int
	wrong     int
	puts      int
	kept      []byte
}

func (s *memorySink) PutItem(_ context.Context, incidentUID string, r io.Reader) (store.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	if s.panics > 0 {
		s.panics--
		panic("of a driver")
	}
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return store.Object{}, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return store.Object{}, err
	}
	if s.wrong > 0 {
		s.wrong--
		data = data[1:]
	}
	s.kept = data
	object := store.Object{Key: "incidents/" + incidentUID + "/items/x", Digest: digestOf(data), Size: int64(len(data)), PlainDigest: digestOf(data), PlainSize: int64(len(data))}
	if s.encrypted {
		object.Encrypted, object.Digest, object.Size = true, digestOf([]byte("sealed")), object.Size+100
	}
	return object, nil
}

// passes are looks at one spooled item, as the reconciler takes them.
type passes struct {
	t         *testing.T
	collector Collector
	x         *Execution
	item      v1alpha1.EvidenceItem
}

func passesOver(t *testing.T, c client.Client, sink Sink, collector Collector, item v1alpha1.EvidenceItem) *passes {
	t.Helper()
	background := NewBackground(2)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	background.base = ctx // as Start does, but at once
	x := &Execution{Reader: c, Incident: incident(), Background: background, OperatorNamespace: operatorNamespace, Now: now, Sink: sink}
	return &passes{t: t, collector: collector, x: x, item: item}
}

// look takes one look.
func (p *passes) look() v1alpha1.EvidenceItem {
	p.t.Helper()
	item, err := p.collector.Collect(context.Background(), p.x, p.item)
	if err != nil {
		p.t.Fatal(err)
	}
	p.item = item
	return item
}

// ended looks, waits for the task that is then under way, and looks again.
func (p *passes) ended() v1alpha1.EvidenceItem {
	p.t.Helper()
	p.look()
	<-p.x.Background.Wake
	return p.look()
}

func spooledDocument(t *testing.T, document []byte) (client.WithWatch, v1alpha1.EvidenceItem) {
	t.Helper()
	c := clientOf()
	index, err := WriteSpool(context.Background(), c, spooled(t, SurroundingsName(incident(), "shop"), document))
	if err != nil {
		t.Fatal(err)
	}
	item, err := SpooledItem(index, SurroundingsID("shop"), v1alpha1.EvidenceSurroundings, v1alpha1.ObjectRef{Kind: "Namespace", Name: "shop"}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return c, item
}

func TestCollectSpooled(t *testing.T) {
	for name, tc := range map[string]struct {
		size      int
		encrypted bool
	}{"small": {size: 10}, "in chunks": {size: 2 * maxRecord}, "encrypted": {size: 10, encrypted: true}} {
		t.Run(name, func(t *testing.T) {
			document := noise(tc.size)
			c, item := spooledDocument(t, document)
			sink := &memorySink{encrypted: tc.encrypted}
			got := passesOver(t, c, sink, Surroundings{}, item).ended()
			want := v1alpha1.EvidenceItem{
				ID: "surroundings-shop", Type: v1alpha1.EvidenceSurroundings, Subject: v1alpha1.ObjectRef{Kind: "Namespace", Name: "shop"}, State: v1alpha1.EvidenceCollected,
				Location: "incidents/inc-uid/items/x", Digest: digestOf(document), Size: int64(tc.size), TakenAt: metav1.NewTime(now),
			}
			if tc.encrypted {
				want.StoredDigest, want.StoredSize = digestOf([]byte("sealed")), int64(tc.size)+100
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("item (-want +got):\n%s", diff)
			}
			if !bytes.Equal(sink.kept, document) {
				t.Errorf("stored are %d bytes, not the document", len(sink.kept))
			}
		})
	}
}

func TestCollectManifests(t *testing.T) {
	old, packedDigest := oldRecord(t, &Record{Pod: recordedPod()})
	ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-1", UID: "pod-uid"}
	byDocument, err := SpooledItem(old, ManifestsID("pod-uid"), v1alpha1.EvidenceManifests, ref, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	byPacked := byDocument // an item of before, whose digest is of the compressed record
	byPacked.Digest, byPacked.Size = packedDigest, 0
	for name, item := range map[string]v1alpha1.EvidenceItem{"by the digest of the document": byDocument, "by the digest of the compressed document": byPacked} {
		t.Run(name, func(t *testing.T) {
			sink := &memorySink{}
			if got := passesOver(t, clientOf(old.DeepCopy()), sink, Manifests{}, item).ended(); got.State != v1alpha1.EvidenceCollected || got.Digest != digestOf(sink.kept) {
				t.Errorf("item %+v", got)
			}
		})
	}
}

// A store that fails, in whatever way, is asked again for as long as it takes, and not more often than every ten seconds.
func TestCollectSpooledRetries(t *testing.T) {
	full := errors.New("the disk is full\x1b[2J")
	for name, sink := range map[string]*memorySink{"errors": {errs: []error{full, full, full}}, "panics": {panics: 3}, "stores something else": {wrong: 3}} {
		t.Run(name, func(t *testing.T) {
			c, item := spooledDocument(t, noise(10))
			p := passesOver(t, c, sink, Surroundings{}, item)
			p.look()
			for puts := 1; puts <= 3; puts++ {
				<-p.x.Background.Wake
				for range 3 { // passes for other reasons
					got := p.look()
					if got.State != v1alpha1.EvidencePending || !strings.Contains(got.Message, "is tried again") || strings.Contains(got.Message, "\x1b") {
						t.Fatalf("after %d failures: %s, %q", puts, got.State, got.Message)
					}
				}
				sink.mu.Lock()
				if sink.puts != puts {
					t.Fatalf("asked %d times, want %d", sink.puts, puts)
				}
				sink.mu.Unlock()
				p.x.Now = p.x.Now.Add(copyRetry + time.Hour*24*30)
				p.look()
			}
			<-p.x.Background.Wake
			if got := p.look(); got.State != v1alpha1.EvidenceCollected || got.Message != "" {
				t.Errorf("in the end: %s, %q", got.State, got.Message)
			}
		})
	}
}

func TestCollectSpooledWaits(t *testing.T) {
	c, item := spooledDocument(t, noise(10))
	p := passesOver(t, c, nil, Surroundings{}, item)
	p.x.Sink, p.x.SinkProblem = nil, "no credentials\x07"
	for range 3 {
		p.x.Now = p.x.Now.Add(365 * 24 * time.Hour)
		if got := p.look(); got.State != v1alpha1.EvidencePending || got.Message != "spooled; waits for the evidence store: no credentials\ufffd" {
			t.Errorf("%s, %q", got.State, got.Message)
		}
	}
	p.x.Sink = &memorySink{}
	if got := p.ended(); got.State != v1alpha1.EvidenceCollected {
		t.Errorf("once there is a store: %s, %q", got.State, got.Message)
	}
}

func TestCollectSpooledGap(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, c client.Client, item *v1alpha1.EvidenceItem){
		"the index is gone": func(t *testing.T, c client.Client, _ *v1alpha1.EvidenceItem) { drop(t, c, -1) },
		"a chunk is gone":   func(t *testing.T, c client.Client, _ *v1alpha1.EvidenceItem) { drop(t, c, 0) },
		"status has another digest": func(_ *testing.T, _ client.Client, item *v1alpha1.EvidenceItem) {
			item.Digest = digestOf([]byte("another"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, item := spooledDocument(t, noise(2*maxRecord))
			damage(t, c, &item)
			sink := &memorySink{}
			got := passesOver(t, c, sink, Surroundings{}, item).ended()
			if got.State != v1alpha1.EvidenceGap || !strings.Contains(got.Message, "it was recorded, but the spooled evidence is") || sink.puts > 0 {
				t.Errorf("%s, %q, stored %d times", got.State, got.Message, sink.puts)
			}
		})
	}
}

// drop deletes one of the ConfigMaps of the document, the last one for -1.
func drop(t *testing.T, c client.Client, i int) {
	t.Helper()
	objects := spooled(t, SurroundingsName(incident(), "shop"), noise(2*maxRecord))
	if i < 0 {
		i += len(objects)
	}
	if err := c.Delete(context.Background(), objects[i]); err != nil {
		t.Fatal(err)
	}
}

// An API server that does not answer is no gap.
func TestCollectSpooledServerDown(t *testing.T) {
	inner, item := spooledDocument(t, noise(10))
	var mu sync.Mutex
	down := true
	c := interceptor.NewClient(inner, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return apierrors.NewServiceUnavailable("down")
		}
		return c.Get(ctx, key, obj, opts...)
	}})
	p := passesOver(t, c, &memorySink{}, Surroundings{}, item)
	if got := p.ended(); got.State != v1alpha1.EvidencePending {
		t.Fatalf("%s, %q", got.State, got.Message)
	}
	mu.Lock()
	down = false
	mu.Unlock()
	p.x.Now = p.x.Now.Add(copyRetry)
	p.look()
	<-p.x.Background.Wake
	if got := p.look(); got.State != v1alpha1.EvidenceCollected {
		t.Errorf("%s, %q", got.State, got.Message)
	}
}

func TestCollectSpooledDoesNothing(t *testing.T) {
	c, item := spooledDocument(t, noise(10))
	settled := item
	settled.State = v1alpha1.EvidenceGap
	for name, tc := range map[string]struct {
		item   v1alpha1.EvidenceItem
		dryRun bool
	}{"in a dry run": {item: item, dryRun: true}, "once it is settled": {item: settled}} {
		t.Run(name, func(t *testing.T) {
			sink := &memorySink{}
			p := passesOver(t, c, sink, Surroundings{}, tc.item)
			p.x.DryRun = tc.dryRun
			if diff := cmp.Diff(tc.item, p.look()); diff != "" || sink.puts > 0 {
				t.Errorf("stored %d times, item (-want +got):\n%s", sink.puts, diff)
			}
		})
	}
	for _, collector := range []Collector{Manifests{}, Surroundings{}} {
		if items := collector.Begin(&Execution{}, nil); items != nil {
			t.Errorf("Begin() = %v", items)
		}
		if about := collector.About(); about.Alters != "nothing" || about.Deadline(v1alpha1.EvidenceOrders{}) != 0 {
			t.Errorf("About() = %+v", about)
		}
	}
}
