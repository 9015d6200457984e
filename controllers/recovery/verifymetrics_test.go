package recovery

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// prometheusServer answers the query "up" with so many samples of the value, and all others with nothing; without samples at all it is down.
func prometheusServer(t *testing.T, values ...string) *v1alpha1.Endpoint {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var result []string
		for i, v := range values {
			result = append(result, fmt.Sprintf(`{"metric":{"pod":"web-%d"},"value":[1700000000,%q]}`, i, v))
		}
		switch {
		case len(values) == 0:
			w.WriteHeader(http.StatusBadGateway)
			return
		case r.FormValue("query") != "up":
			result = nil
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, strings.Join(result, ","))
	}))
	t.Cleanup(server.Close)
	return &v1alpha1.Endpoint{Name: "main", URL: server.URL}
}

func asking(endpoints ...*v1alpha1.Endpoint) *Execution {
	x, _ := execution(incident(nil))
	x.Outbound = &outbound.Caller{}
	for _, e := range endpoints {
		x.Policy.Recovery.Prometheus = append(x.Policy.Recovery.Prometheus, *e)
	}
	return x
}

func TestVerifyMetric(t *testing.T) {
	cases := map[string]struct {
		values            []string
		query, expression string
		says              string
		unseen            bool
	}{
		"true of all":        {values: []string{"1", "2"}, query: "up", expression: "value >= 1"},
		"by label":           {values: []string{"1", "0"}, query: "up", expression: `labels["pod"] != "web-0" || value == 1`},
		"false of one":       {values: []string{"1", "0"}, query: "up", expression: "value >= 1.0", says: `false of {pod="web-1"} 0`},
		"no data":            {values: []string{"1"}, query: "down", expression: "true", says: "there is no data, which proves nothing"},
		"not a number":       {values: []string{"NaN"}, query: "up", expression: "value < 0.01", says: "NaN"},
		"a missing label":    {values: []string{"1"}, query: "up", expression: `labels["x"] == "y"`, says: "no such key"},
		"does not answer":    {query: "up", expression: "true", says: "was not answered", unseen: true},
		"too many samples":   {values: make([]string, maxSamples+1), query: "up", expression: "true", says: "was not answered", unseen: true},
		"more than can be":   {values: strings.Split(strings.Repeat("1,", maxSamples)+"1", ","), query: "up", expression: "true", says: "aggregate it"},
		"another expression": {values: []string{"1"}, query: "up", expression: "object.ok", says: "does not compile"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := asking(prometheusServer(t, tc.values...))
			why, unseen := verifyMetric(t.Context(), x, v1alpha1.PrometheusCheck{Source: "main", Query: tc.query, Expression: tc.expression})
			if (why == "") != (tc.says == "") || !strings.Contains(why, tc.says) || unseen != tc.unseen {
				t.Errorf("verifyMetric() = %q, %v, want %q, %v", why, unseen, tc.says, tc.unseen)
			}
		})
	}
}

// A plan names a source; nobody who writes one can have the operator call anything else.
func TestLacking(t *testing.T) {
	metrics := &v1alpha1.VerifyStep{Prometheus: []v1alpha1.PrometheusCheck{{Source: "main", Query: "up", Expression: "true"}}}
	probing := &v1alpha1.VerifyStep{TCP: []v1alpha1.TCPCheck{{Host: "db", Port: 5432}}}
	main := &v1alpha1.Endpoint{Name: "main", URL: "http://127.0.0.1:1"}
	cases := map[string]struct {
		step v1alpha1.RecoveryStep
		x    *Execution
		says string
	}{
		"nothing":         {step: v1alpha1.RecoveryStep{Approve: &v1alpha1.ApproveStep{}}, x: asking()},
		"a source":        {step: v1alpha1.RecoveryStep{Verify: metrics}, x: asking(main)},
		"no source":       {step: v1alpha1.RecoveryStep{Verify: metrics}, x: asking(), says: `names no Prometheus "main"`},
		"in a gate":       {step: v1alpha1.RecoveryStep{Gate: metrics}, x: asking(), says: `names no Prometheus "main"`},
		"what is watched": {step: v1alpha1.RecoveryStep{Release: &v1alpha1.ReleaseStep{Watched: *metrics}}, x: asking(), says: `names no Prometheus "main"`},
		"no image":        {step: v1alpha1.RecoveryStep{Verify: probing}, x: asking(), says: "--probe-image"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := lacking(tc.x, tc.step); (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
				t.Errorf("lacking() = %q, want %q", got, tc.says)
			}
		})
	}
}

// What is watched and cannot be asked neither lets a wave go nor takes it back; what answers and is bad takes it back.
func TestWatchedMetrics(t *testing.T) {
	step := v1alpha1.RecoveryStep{Name: "go", Release: &v1alpha1.ReleaseStep{ObserveSeconds: 60, Watched: v1alpha1.VerifyStep{
		Prometheus: []v1alpha1.PrometheusCheck{{Source: "main", Query: "up", Expression: "value == 1"}},
	}}}
	cases := map[string]struct {
		values       []string
		done, unseen bool
	}{
		"well":            {values: []string{"1"}, done: true},
		"bad":             {values: []string{"0"}},
		"does not answer": {unseen: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := watch(t.Context(), asking(prometheusServer(t, tc.values...)), step)
			if err != nil || out.Done != tc.done || out.Unseen != tc.unseen || out.Failed {
				t.Errorf("watch() = %+v, %v, want done %v, unseen %v", out, err, tc.done, tc.unseen)
			}
		})
	}
}
