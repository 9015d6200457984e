package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

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

func TestRun(t *testing.T) {
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
			tc.checks.Seconds = 1
			err := Run(t.Context(), tc.checks)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Run() = %v, want an error with %q", err, tc.says)
			}
		})
	}
}

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
