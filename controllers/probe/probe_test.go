package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// shop answers like an application: well, badly, elsewhere.
func shop() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("all is well")) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/healthz", http.StatusFound) })
	return mux
}

func TestRound(t *testing.T) {
	plain, secure := httptest.NewServer(shop()), httptest.NewTLSServer(shop())
	defer plain.Close()
	defer secure.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := port(t, closed.Addr())
	_ = closed.Close() // nobody listens there any more
	there := port(t, plain.Listener.Addr())
	cases := map[string]struct {
		checks Checks
		says   string
	}{
		"well":                      {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/healthz"}}, TCP: []v1alpha1.TCPCheck{{Host: "127.0.0.1", Port: there}}}},
		"with a text":               {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/healthz", Contains: "is well"}}}},
		"without the text":          {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/healthz", Contains: "is ill"}}}, says: `/healthz: the answer does not contain "is ill"`},
		"an error":                  {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/broken"}}}, says: "the status is 500, not 200 to 299"},
		"the error that is wanted":  {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/broken", Status: 500}}}},
		"another than is wanted":    {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/healthz", Status: 204}}}, says: "the status is 200, not 204"},
		"redirected":                {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/moved"}}}, says: "the status is 302"},
		"an unknown certificate":    {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: secure.URL + "/healthz"}}}, says: "certificate"},
		"any certificate":           {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: secure.URL + "/healthz", Certificate: v1alpha1.CertificateIgnore}}}},
		"nobody listens":            {checks: Checks{TCP: []v1alpha1.TCPCheck{{Host: "127.0.0.1", Port: nobody}}}, says: "connection refused"},
		"one of two is well":        {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/healthz"}}, TCP: []v1alpha1.TCPCheck{{Host: "127.0.0.1", Port: nobody}}}, says: "connection refused"},
		"both of two are not there": {checks: Checks{HTTP: []v1alpha1.HTTPCheck{{URL: plain.URL + "/broken"}, {URL: plain.URL + "/nowhere"}}}, says: "the status is 404"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := round(t.Context(), tc.checks)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("round() = %v, want an error with %q", err, tc.says)
			}
		})
	}
}

// The clock of these is synctest's. What a round finds after its time is not what was wrong, even when the network noticed the end before the context did.
func TestRepeat(t *testing.T) {
	refused, timeout := errors.New("connection refused"), errors.New("i/o timeout")
	cases := map[string]struct {
		rounds []error
		takes  time.Duration
		want   error
	}{
		"a last round that is cut short":         {rounds: []error{refused, timeout}, takes: 2 * time.Second, want: refused},
		"the only round is cut short":            {rounds: []error{timeout}, takes: 3 * time.Second, want: timeout},
		"rounds that end in time":                {rounds: []error{timeout, refused}, takes: time.Second, want: refused},
		"well in the last moment before the end": {rounds: []error{refused, nil}, takes: time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(deadlineOnly{t.Context(), time.Now().Add(4 * time.Second)})
				defer cancel()
				made := 0
				got := repeat(ctx, func(context.Context) error {
					time.Sleep(tc.takes)
					if made >= len(tc.rounds) {
						cancel()
						return timeout
					}
					made++
					return tc.rounds[made-1]
				})
				if !errors.Is(got, tc.want) {
					t.Errorf("repeat() = %v, want %v", got, tc.want)
				}
			})
		})
	}
}

// deadlineOnly has a deadline of which its own end tells nothing yet.
type deadlineOnly struct {
	context.Context
	at time.Time
}

func (d deadlineOnly) Deadline() (time.Time, bool) { return d.at, true }

// A service that becomes well while there is time is well.
func TestRunAgain(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if err := Run(context.Background(), Checks{HTTP: []v1alpha1.HTTPCheck{{URL: server.URL}}, Seconds: 60}); err != nil || asked != 3 {
		t.Errorf("Run() = %v after %d requests, want none after 3", err, asked)
	}
}

func TestEncode(t *testing.T) {
	want := Checks{HTTP: []v1alpha1.HTTPCheck{{URL: "http://web/healthz", Status: 204, Contains: "well"}}, TCP: []v1alpha1.TCPCheck{{Host: "db", Port: 5432}}, Seconds: 60}
	arg, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(arg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "nothing", "{}"} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("Decode(%q) succeeded", bad)
		}
	}
}

func port(t *testing.T, addr net.Addr) int32 {
	t.Helper()
	_, text, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}
