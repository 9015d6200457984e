package outbound

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const ns = "cofferdam-system"

func TestQuery(t *testing.T) {
	answers := map[string]string{
		"up":     `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"web"},"value":[1700000000,"1"]},{"metric":{"job":"db"},"value":[1700000000,"0.5"]}]}}`,
		"gone":   `{"status":"success","data":{"resultType":"vector","result":[]}}`,
		"scalar": `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"3"]}}`,
		"range":  `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1700000000,"1"]]}]}}`,
		"partly": `{"status":"success","warnings":["store was down"],"data":{"resultType":"vector","result":[{"metric":{"job":"web"},"value":[1700000000,"1"]}]}}`,
		"spread": `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"web"},"histogram":[1700000000,{"count":"4","sum":"2","buckets":[[0,"0","1","4"]]}]}]}}`,
		"long":   `{"status":"success","data":{"resultType":"string","result":[1700000000,"` + strings.Repeat("x", maxAnswer) + `"]}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		switch answer, known := answers[query]; {
		case query == "hang":
			<-r.Context().Done()
		case query == "elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case query == "down":
			w.WriteHeader(http.StatusServiceUnavailable)
		case !known:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"parse error"}`))
		default:
			_, _ = w.Write([]byte(answer))
		}
	}))
	defer server.Close()
	cases := map[string]struct {
		want    []Sample
		refused bool
		unknown bool
	}{
		"up":        {want: []Sample{{Value: 1, Labels: map[string]string{"job": "web"}}, {Value: 0.5, Labels: map[string]string{"job": "db"}}}},
		"gone":      {want: []Sample{}},
		"scalar":    {want: []Sample{{Value: 3}}},
		"range":     {refused: true},
		"partly":    {unknown: true},
		"spread":    {refused: true},
		"long":      {unknown: true},
		"((":        {refused: true},
		"down":      {unknown: true},
		"elsewhere": {unknown: true},
		"hang":      {unknown: true},
	}
	for query, tc := range cases {
		t.Run(query, func(t *testing.T) {
			got, err := (&Caller{}).Query(t.Context(), &v1alpha1.Endpoint{Name: "main", URL: server.URL}, query, time.Now())
			var refused RefusedError
			if errors.As(err, &refused) != tc.refused || (err != nil) != (tc.refused || tc.unknown) {
				t.Fatalf("Query() = %v, want refused %v, unknown %v", err, tc.refused, tc.unknown)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The token and the authority come from a Secret in the operator's namespace.
func TestCredentials(t *testing.T) {
	authorization := ""
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1700000000,"3"]}}`))
	}))
	defer server.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	reader := fake.NewClientBuilder().WithObjects(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "whole"}, Data: map[string][]byte{"token": []byte("s3cret\n"), "ca.crt": authority}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "token"}, Data: map[string][]byte{"token": []byte("s3cret")}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "damaged"}, Data: map[string][]byte{"ca.crt": []byte("no certificate")}},
	).Build()
	for secret, word := range map[string]string{"whole": "", "token": "certificate", "damaged": "has no certificate in ca.crt", "missing": "not found"} {
		t.Run(secret, func(t *testing.T) {
			authorization = ""
			caller := &Caller{Reader: reader, Namespace: ns}
			_, err := caller.Query(context.Background(), &v1alpha1.Endpoint{Name: "main", URL: server.URL, SecretName: secret}, "up", time.Now())
			if (err == nil) != (word == "") || err != nil && !strings.Contains(err.Error(), word) {
				t.Errorf("Query() = %v, want an error with %q", err, word)
			}
			if err == nil && authorization != "Bearer s3cret" {
				t.Errorf("the server has got %q", authorization)
			}
		})
	}
}

// An address that is itself a secret is called, and nobody is told.
func TestPostToASecretAddress(t *testing.T) {
	called := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called++
		if r.URL.Path != "/hooks/s3cret" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	for name, tc := range map[string]struct {
		address string
		called  int
		says    string
	}{
		"called":           {address: server.URL + "/hooks/s3cret", called: 1},
		"not over the net": {address: "http://192.0.2.1/hooks/s3cret", says: "is no https URL"},
		"no URL":           {address: "hooks s3cret", says: "is no https URL"},
		"nobody answers":   {address: "http://127.0.0.1:1/hooks/s3cret", says: "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			called = 0
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "chat"}, Data: map[string][]byte{"url": []byte(tc.address + "\n")}}
			c := &Caller{Reader: fake.NewClientBuilder().WithObjects(secret).Build(), Namespace: ns}
			_, err := c.Post(t.Context(), &v1alpha1.Endpoint{Name: "chat", URL: "https://chat.example.com/", SecretName: "chat"}, "key", []byte("{}"))
			if called != tc.called || (err == nil) != (tc.says == "") {
				t.Fatalf("called %d times, %v", called, err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "s3cret")) {
				t.Errorf("says %q, want %q in it, and no secret", err, tc.says)
			}
		})
	}
}
