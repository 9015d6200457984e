package recovery

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// sender performs what is sent, and creates nothing.
type sender struct{ created int }

func (s *sender) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	if op.Verb == "create" {
		s.created++
		return nil
	}
	return fn(ctx, nil)
}

// receiver answers with the statuses, one after the other and the last one for ever, and remembers what it got.
type receiver struct {
	statuses     []int
	keys, bodies []string
	server       *httptest.Server
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	r := &receiver{statuses: statuses}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		status := r.statuses[min(len(r.keys), len(r.statuses)-1)]
		r.keys, r.bodies = append(r.keys, req.Header.Get("Idempotency-Key")), append(r.bodies, string(body))
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// notified is what the passes have come to: the status and the journal as they were written at the end of the last one.
type notified struct {
	x    *Execution
	sent *sender
	out  Outcome
}

func newNotified(r *receiver) *notified {
	x, _ := execution(incident(nil))
	sent := &sender{}
	x.Writer, x.Outbound, x.Steps = sent, &outbound.Caller{}, states("tell=Running")
	x.Policy.Notifications.Routes = []v1alpha1.Endpoint{{Name: "oncall", URL: r.server.URL}}
	x.Now = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	return &notified{x: x, sent: sent}
}

var telling = v1alpha1.RecoveryStep{Name: "tell", Notify: &v1alpha1.NotifyStep{Message: "the shop is back", Routes: []string{"oncall"}}}

// pass makes one pass, so much later. When it is lost, nothing of it was written to the status.
func (n *notified) pass(t *testing.T, later time.Duration, lost bool) {
	t.Helper()
	before, _ := json.Marshal(n.x.Steps)
	entries := n.x.Journal.Entries()
	n.x.Now = metav1.NewTime(n.x.Now.Add(later))
	n.x.Journal, n.x.callsUntil = journal.New(entries, n.x.Now, false), time.Time{}
	out, err := notify{}.Run(t.Context(), n.x, telling)
	if err != nil {
		t.Fatal(err)
	}
	n.out = out
	if lost {
		n.x.Steps = nil
		if err := json.Unmarshal(before, &n.x.Steps); err != nil {
			t.Fatal(err)
		}
		n.x.Journal = journal.New(entries, n.x.Now, false)
	}
}

func TestNotifyRetries(t *testing.T) {
	r := newReceiver(t, 503, 302, 204)
	n := newNotified(r)
	n.pass(t, 0, false)
	if len(r.keys) != 0 || !strings.Contains(n.out.Message, "about to be notified") {
		t.Fatalf("nothing is sent before the intent is durable, but %d messages were: %s", len(r.keys), n.out.Message)
	}
	n.pass(t, time.Second, false)
	if n.out.Done || n.out.Failed || !strings.Contains(n.out.Message, "status 503; tried 1 times, and again at 2026-01-01T12:00:03Z") {
		t.Fatalf("after a refusal: %+v", n.out)
	}
	n.pass(t, time.Second, false)
	if len(r.keys) != 1 {
		t.Fatalf("%d messages were sent, one of them before its time", len(r.keys))
	}
	n.pass(t, time.Second, false) // a redirect, which is not followed
	n.pass(t, 3*time.Second, false)
	n.pass(t, time.Second, false)
	if len(r.keys) != 3 || !n.out.Done || !strings.Contains(n.out.Message, "route oncall was notified: it answered with status 204") {
		t.Fatalf("at the end, after %d messages: %+v", len(r.keys), n.out)
	}
	for i := range r.keys {
		if r.keys[i] != r.keys[0] || r.bodies[i] != r.bodies[0] || r.keys[i] == "" {
			t.Errorf("a repeat differs: %s %s, %s %s", r.keys[0], r.bodies[0], r.keys[i], r.bodies[i])
		}
	}
	if n.sent.created != 1 {
		t.Errorf("%d Events were made", n.sent.created)
	}
	var got Notification
	if err := json.Unmarshal([]byte(r.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	want := Notification{
		Schema: NotificationSchema, Step: "tell", Message: "the shop is back", Time: "2026-01-01T12:00:00Z",
		Incident: NotificationIncident{Namespace: "shop", Name: "inc", UID: incidentUID, Contained: "Unknown", Recovered: "Unknown"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The operator dies between sending and writing that down: what is sent again has the same key and the same body.
func TestNotifyCrash(t *testing.T) {
	r := newReceiver(t, 200)
	n := newNotified(r)
	n.pass(t, 0, false)
	n.pass(t, time.Second, true)
	n.pass(t, time.Hour, false)
	if !n.out.Done || len(r.keys) != 2 || r.keys[0] != r.keys[1] || r.bodies[0] != r.bodies[1] {
		t.Errorf("after a crash: %+v, keys %v, bodies %v", n.out, r.keys, r.bodies)
	}
	n.x.Steps[0].Tries++
	n.pass(t, time.Second, false)
	n.pass(t, time.Second, false)
	if len(r.keys) != 3 || r.keys[2] == r.keys[0] {
		t.Errorf("a step that is retried is another message: %v", r.keys)
	}
}

func TestNotifyLacking(t *testing.T) {
	n := newNotified(newReceiver(t, 200))
	n.x.Policy.Notifications.Routes = nil
	if why := lacking(n.x, telling); !strings.Contains(why, `names no route "oncall"`) {
		t.Errorf("lacking() = %q", why)
	}
	n.pass(t, 0, false)
	if !n.out.Failed {
		t.Errorf("Run() = %+v, want it to fail", n.out)
	}
}

// Waits double, up to a bound.
func TestPauses(t *testing.T) {
	now := metav1.Now()
	d := delivery{}
	var pauses []time.Duration
	for range 12 {
		d = after(d, 0, io.EOF, now)
		pauses = append(pauses, d.After.Sub(now.Time))
	}
	if pauses[0] != firstPause || pauses[2] != 4*firstPause || pauses[11] != lastPause {
		t.Errorf("the pauses are %v", pauses)
	}
}
