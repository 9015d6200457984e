package evidence

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

type fixedToken string

func (t fixedToken) Token(context.Context) (string, error) {
	if t == "" {
		return "", errors.New("no such ServiceAccount")
	}
	return string(t), nil
}

// asked is a kubelet that notes what it is asked.
type asked struct {
	mu       sync.Mutex
	requests []string
	tokens   []string
}

func (a *asked) serve(answer http.HandlerFunc) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.Method+" "+r.URL.Path)
		a.tokens = append(a.tokens, r.Header.Get("Authorization"))
		a.mu.Unlock()
		answer(w, r)
	}))
	server.Config.ErrorLog = nil
	server.StartTLS()
	return server
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// archived answers as a kubelet that can do it.
func archived(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if n, err := strconv.Atoi(r.URL.Query().Get("timeout")); err != nil || n < 1 || n > 300 {
		http.Error(w, "timeout "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, `{"items":["/var/lib/kubelet/checkpoints/checkpoint-%s_%s-%s.tar"]}`, parts[3], parts[2], parts[4])
}

// checkpointWorld is one try at the checkpoints of one pod.
type checkpointWorld struct {
	collector *Checkpoints
	source    *script
	node      *corev1.Node
	left      time.Duration // until the item's deadline
	progress  podCheckpoints
}

func (w *checkpointWorld) try(t *testing.T) Result {
	t.Helper()
	nodes := fake.NewClientBuilder()
	if w.node != nil {
		nodes = nodes.WithObjects(w.node)
	}
	item := v1alpha1.EvidenceItem{
		ID: "checkpoint-pod-uid", Type: v1alpha1.EvidenceCheckpoint, State: v1alpha1.EvidencePending,
		Subject: v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "pod-uid"},
	}
	now := time.Now()
	run := &checkpointRun{
		Checkpoints: w.collector, attempt: attempt{begun: now, now: now, deadline: now.Add(w.left)},
		nodes: nodes.Build(), item: item, pod: &w.progress,
	}
	return run.do(t.Context())
}

// nodeAt is a node whose kubelet is the server.
func nodeAt(t *testing.T, server *httptest.Server) *corev1.Node {
	t.Helper()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(at.Host)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "node-a"}, {Type: corev1.NodeInternalIP, Address: host}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n)}},
	}}
}

func trusting(server *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return pool
}

func TestCheckpoints(t *testing.T) {
	two := func() *corev1.Pod {
		return onePod(func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side"}, corev1.Container{Name: "waits"})
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus("side", 0))
		})
	}
	cases := map[string]struct {
		answer   http.HandlerFunc
		world    func(*checkpointWorld)
		state    v1alpha1.EvidenceState // Pending for an error
		message  string
		location string
		requests int
	}{
		"of all that run": {
			answer: archived, state: v1alpha1.EvidenceCollected, message: "on the node's disk", requests: 2,
			location: "node node-a: /var/lib/kubelet/checkpoints/checkpoint-web-0_shop-app.tar, /var/lib/kubelet/checkpoints/checkpoint-web-0_shop-side.tar",
		},
		"of some": {
			answer: func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/side") {
					answers(500, "checkpointing of shop/web-0/side failed (criu \x1b[31mfailed)")(w, r)
					return
				}
				archived(w, r)
			},
			state: v1alpha1.EvidencePartial, message: "missing: side: the node's container runtime cannot make checkpoints (500: checkpointing of shop/web-0/side failed (criu �[31mfailed))", requests: 2,
			location: "node node-a: /var/lib/kubelet/checkpoints/checkpoint-web-0_shop-app.tar",
		},
		"feature off":       {answer: answers(404, "404 page not found"), state: v1alpha1.EvidenceGap, message: "feature ContainerCheckpoint is off (404", requests: 2},
		"method":            {answer: answers(405, ""), state: v1alpha1.EvidenceGap, message: "feature ContainerCheckpoint is off (405", requests: 2},
		"not implemented":   {answer: answers(501, ""), state: v1alpha1.EvidenceGap, message: "feature ContainerCheckpoint is off (501", requests: 2},
		"unknown pod":       {answer: answers(404, "pod does not exist"), state: v1alpha1.EvidenceGap, message: "the kubelet refuses (404: pod does not exist)", requests: 2},
		"runtime":           {answer: answers(500, "rpc error: code = Unimplemented"), state: v1alpha1.EvidenceGap, message: "container runtime cannot make checkpoints (500", requests: 2},
		"not allowed":       {answer: answers(403, "Forbidden"), state: v1alpha1.EvidenceGap, message: "does not let ServiceAccount cofferdam-checkpointer create checkpoints (403", requests: 2},
		"busy":              {answer: answers(503, "busy"), state: v1alpha1.EvidencePending, message: "503", requests: 2},
		"busy till the end": {answer: answers(503, "busy"), world: func(w *checkpointWorld) { w.left = -1 }, state: v1alpha1.EvidenceGap, message: "503", requests: 2},
		"nonsense":          {answer: answers(200, "\x1b[2J"), state: v1alpha1.EvidenceGap, message: "its answer cannot be read: �[2J", requests: 2},
		"nowhere":           {answer: answers(200, `{"items":[]}`), state: v1alpha1.EvidenceGap, message: "but not where it is", requests: 2},
		"redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, state: v1alpha1.EvidenceGap, message: "the kubelet refuses (307", requests: 2},
		"unverified": {answer: archived, world: func(w *checkpointWorld) { w.collector.CAs = x509.NewCertPool() }, state: v1alpha1.EvidencePending, message: "certificate signed by unknown authority"},
		"no token":   {answer: archived, world: func(w *checkpointWorld) { w.collector.Tokens = fixedToken("") }, state: v1alpha1.EvidencePending, message: "no such ServiceAccount"},
		"node gone":  {answer: archived, world: func(w *checkpointWorld) { w.node = nil }, state: v1alpha1.EvidenceGap, message: "node node-a is gone"},
		"node without port": {
			answer: archived, world: func(w *checkpointWorld) { w.node.Status.DaemonEndpoints.KubeletEndpoint.Port = 0 }, state: v1alpha1.EvidenceGap, message: "does not say where its kubelet listens",
		},
		"pod gone":     {answer: archived, world: func(w *checkpointWorld) { w.source.pod = nil }, state: v1alpha1.EvidenceGap, message: "the pod is gone"},
		"pod replaced": {answer: archived, world: func(w *checkpointWorld) { w.source.pod.UID = "other" }, state: v1alpha1.EvidenceGap, message: "replaced by a namesake"},
		"pod replaced meanwhile": {
			answer: archived, world: func(w *checkpointWorld) {
				w.source.onLook = func(s *script, n int) error {
					if n == 2 {
						s.pod.UID = "other"
					}
					return nil
				}
			}, state: v1alpha1.EvidenceGap, message: "may be the namesake's", requests: 1,
		},
		"nothing runs": {answer: archived, world: func(w *checkpointWorld) { w.source.pod.Status = corev1.PodStatus{} }, state: v1alpha1.EvidenceGap, message: "no container of the pod is running"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			kubelet := &asked{}
			server := kubelet.serve(tc.answer)
			defer server.Close()
			w := &checkpointWorld{collector: &Checkpoints{Tokens: fixedToken("s3cret"), CAs: trusting(server)}, source: &script{pod: two()}, node: nodeAt(t, server), left: 5 * time.Minute}
			w.collector.Pods = w.source
			if tc.world != nil {
				tc.world(w)
			}
			got := w.try(t)
			checkCheckpoint(t, got, tc.state, tc.message, tc.location)
			if len(kubelet.requests) != tc.requests {
				t.Errorf("requests = %q, want %d", kubelet.requests, tc.requests)
			}
			for i, token := range kubelet.tokens {
				if token != "Bearer s3cret" || !strings.HasPrefix(kubelet.requests[i], "POST /checkpoint/shop/web-0/") {
					t.Errorf("request %q with %q", kubelet.requests[i], token)
				}
			}
		})
	}
}

func checkCheckpoint(t *testing.T, got Result, state v1alpha1.EvidenceState, message, location string) {
	t.Helper()
	said, is := got.Item.Message, got.Item.State
	if got.Err != nil {
		said, is = got.Err.Error(), v1alpha1.EvidencePending
	}
	if is != state || !strings.Contains(said, message) {
		t.Errorf("item is %s: %q, want %s: %q", is, said, state, message)
	}
	if got.Item.Location != location || got.Item.Digest != "" || strings.Contains(said, "s3cret") {
		t.Errorf("item = %+v, want it at %q", got.Item, location)
	}
}

// A repeat asks only for what is missing.
func TestCheckpointsAreNotMadeTwice(t *testing.T) {
	kubelet, busy := &asked{}, true
	server := kubelet.serve(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/side") && busy {
			busy = false
			answers(429, "later")(w, r)
			return
		}
		archived(w, r)
	})
	defer server.Close()
	w := &checkpointWorld{collector: &Checkpoints{Tokens: fixedToken("t"), CAs: trusting(server)}, node: nodeAt(t, server), left: time.Minute, source: &script{pod: onePod(func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side"})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, runningStatus("side", 0))
	})}}
	w.collector.Pods = w.source
	if got := w.try(t); got.Err == nil {
		t.Errorf("the first try = %+v, want an error", got)
	}
	if got := w.try(t); got.Item.State != v1alpha1.EvidenceCollected {
		t.Errorf("the second try = %+v, want it collected", got)
	}
	want := []string{"POST /checkpoint/shop/web-0/app", "POST /checkpoint/shop/web-0/side", "POST /checkpoint/shop/web-0/side"}
	if diff := cmp.Diff(want, kubelet.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestCheckpointsBegin(t *testing.T) {
	pods := []*corev1.Pod{onePod()}
	collect := effective(v1alpha1.EvidenceOrders{Checkpoints: v1alpha1.CheckpointOrders{Collect: v1alpha1.Collect}})
	if got := (&Checkpoints{CAs: x509.NewCertPool()}).Begin(&Execution{}, pods); len(got) > 0 {
		t.Errorf("Begin() = %+v, want nothing unless it is ordered", got)
	}
	if got := (&Checkpoints{}).Begin(&Execution{Orders: collect}, pods); len(got) != 1 || got[0].State != v1alpha1.EvidenceGap || !strings.Contains(got[0].Message, "--kubelet-ca-file") {
		t.Errorf("Begin() = %+v, want a gap where kubelets cannot be verified", got)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := (&Checkpoints{CAs: x509.NewCertPool()}).Begin(&Execution{Orders: collect, Now: now}, pods)
	if len(got) != 1 || got[0].ID != "checkpoint-pod-uid" || got[0].State != v1alpha1.EvidencePending || !got[0].Deadline.Time.Equal(now.Add(5*time.Minute)) {
		t.Errorf("Begin() = %+v, want it pending for five minutes", got)
	}
}

func TestCheckpointLocation(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("/var/lib/kubelet/checkpoints/checkpoint-web-0_shop-c%02d.tar", i))
	}
	if got, want := checkpointLocation("node-a", many), "node node-a: /var/lib/kubelet/checkpoints/checkpoint-web-0_shop-c*"; got != want {
		t.Errorf("location = %q, want %q", got, want)
	}
	if got := checkpointLocation("node-a", []string{"/" + strings.Repeat("x", 600)}); len([]rune(got)) > maxLocation {
		t.Errorf("location has %d characters", len(got))
	}
}
