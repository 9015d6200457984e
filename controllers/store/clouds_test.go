package store_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"cofferdam.dev/cofferdam/controllers/store"
)

// answering is a server that notes the requests and answers each as it is told. It shows what is sent to services that there is no fake of here.
type answering struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	status   int
	header   http.Header
	body     string
}

func newAnswering(t *testing.T) *answering {
	t.Helper()
	a := &answering{status: 200, header: http.Header{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.requests = append(a.requests, fmt.Sprintf("%s %s %v %s", r.Method, r.URL, r.Header, body))
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, a.body)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// sent fails unless there was a request with all of these in it.
func (a *answering) sent(t *testing.T, method string, parts ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, request := range a.requests {
		missing := !strings.HasPrefix(request, method+" ")
		for _, part := range parts {
			missing = missing || !strings.Contains(request, part)
		}
		if !missing {
			return
		}
	}
	t.Errorf("no %s with %q among %q", method, parts, a.requests)
}

// sentOnly fails if there was a request of another method.
func (a *answering) sentOnly(t *testing.T, method string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, request := range a.requests {
		if !strings.HasPrefix(request, method+" ") {
			t.Errorf("sent: %s", request)
		}
	}
}

func (a *answering) answer(status int, body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.body, a.requests = status, body, nil
}

func TestGCSRequests(t *testing.T) {
	server := newAnswering(t)
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(server.URL, "http://"))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s, ctx := mustOpen(t, "gs://evidence?prefix=team", store.Options{LockDays: 1, Clock: clocktesting.NewFakePassiveClock(now)}), t.Context()
	server.header.Set("Content-Type", "application/json")
	server.answer(200, `{"name":"team/a"}`)
	if err := s.Create(ctx, "a", []byte(evidence)); err == nil {
		t.Error("another content was not noticed")
	}
	server.sent(t, "POST", "/b/evidence/o?", "ifGenerationMatch=0", `"name":"team/a"`, `"retention":{"mode":"Locked","retainUntilTime":"2026-03-02T12:00:00Z"}`, evidence)
	server.answer(200, `{"name":"team/b","size":"3","done":true,"resource":{}}`)
	wantIs(t, "copying", store.BackendOf(s).Copy(ctx, "b", "a", now), nil)
	server.sent(t, "POST", "/o/team%2Fa/rewriteTo/b/evidence/o/team%2Fb", `"retention":{"mode":"Locked"`)
	for _, small := range []int{1, 100} {
		server.answer(200, `{}`)
		store.SetSmall(s, small)
		cause := errors.New("the stream broke off")
		_, err := s.PutItem(ctx, uid, io.MultiReader(strings.NewReader(evidence), iotest.ErrReader(cause)))
		wantIs(t, "putting half of an item", err, cause)
		server.sentOnly(t, "DELETE")
	}
	refusals(t, s, server, map[int]error{412: store.ErrExists, 403: store.ErrDenied, 401: store.ErrDenied}, `{"error":{"message":"no","code":%d}}`)
	server.answer(404, `{"error":{"message":"no","code":404}}`)
	wantIs(t, "verifying", s.Verify(ctx, store.Object{Key: "a"}), store.ErrNotFound)
}

// refusals creates an object and checks what a status means.
func refusals(t *testing.T, s *store.Store, server *answering, kinds map[int]error, body string) {
	t.Helper()
	for status, kind := range kinds {
		if strings.Contains(body, "%d") {
			server.answer(status, fmt.Sprintf(body, status))
		} else {
			server.answer(status, body)
		}
		err := s.Create(t.Context(), "a", []byte(evidence))
		wantIs(t, fmt.Sprintf("creating, status %d", status), err, kind)
		if status == 403 {
			_, err := s.Read(t.Context(), "a")
			wantIs(t, "a refusal while reading", err, store.ErrDenied)
			if errors.Is(err, store.ErrNotFound) {
				t.Error("a refusal passes for absence")
			}
			_, err = s.Keys(t.Context(), "")
			wantIs(t, "a refusal while listing", err, store.ErrDenied)
		}
	}
}

func TestAzureRequests(t *testing.T) {
	for _, name := range []string{"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"} {
		t.Setenv(name, "")
	}
	server := newAnswering(t)
	url := "azblob://evidence?prefix=team&protocol=http&domain=" + strings.TrimPrefix(server.URL, "http://")
	for _, creds := range []map[string][]byte{
		{"storageAccount": []byte("account"), "storageKey": []byte("c2VjcmV0IGtleQ==\n")},
		{"storageAccount": []byte("account"), "sasToken": []byte("?sv=2024-11-04&sig=c2lnbmF0dXJl%3D\n")},
	} {
		s, ctx := mustOpen(t, url, store.Options{Credentials: creds}), t.Context()
		if _, sas := creds["sasToken"]; strings.Contains(s.URL(), "sig") == sas && sas {
			t.Error(s.URL())
		}
		server.header.Set("Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT")
		server.answer(201, "")
		if err := s.Create(ctx, "a", []byte(evidence)); err == nil {
			t.Error("another content was not noticed")
		}
		server.sent(t, "PUT", "/account/evidence/team%2Fa", "If-None-Match:[*]", evidence)
		for _, small := range []int{1, 100} {
			server.answer(201, "")
			store.SetSmall(s, small)
			cause := errors.New("the stream broke off")
			_, err := s.PutItem(ctx, uid, io.MultiReader(strings.NewReader(evidence), iotest.ErrReader(cause)))
			wantIs(t, "putting half of an item", err, cause)
			server.sentOnly(t, "DELETE")
		}
		for status, c := range map[int]struct {
			code string
			kind error
		}{409: {"BlobAlreadyExists", store.ErrExists}, 412: {"ConditionNotMet", store.ErrExists}, 403: {"AuthenticationFailed", store.ErrDenied}} {
			server.header.Set("X-Ms-Error-Code", c.code)
			refusals(t, s, server, map[int]error{status: c.kind}, "")
		}
		server.header.Set("X-Ms-Error-Code", "BlobNotFound")
		server.answer(404, "")
		wantIs(t, "verifying", s.Verify(ctx, store.Object{Key: "a"}), store.ErrNotFound)
		server.header.Set("X-Ms-Error-Code", "ContainerNotFound")
		if err := s.Verify(ctx, store.Object{Key: "a"}); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("a missing container passes for a missing object: %v", err)
		}
	}
}
