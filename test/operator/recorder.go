package operator

import (
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// Request is one request that changes something.
type Request struct {
	// Verb is create, update, patch or delete.
	Verb string
	// Path is the path of the URL.
	Path string
}

// Recorder records, at the transport, every request of the operator that could change something. Nothing that the operator does can bypass it.
type Recorder struct {
	mu       sync.Mutex
	requests []Request
}

// Attach makes the recorder see the requests of clients that are made from the configuration.
func (r *Recorder) Attach(cfg *rest.Config) *rest.Config {
	out := rest.CopyConfig(cfg)
	out.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			r.record(req)
			return next.RoundTrip(req)
		})
	})
	return out
}

func (r *Recorder) record(req *http.Request) {
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[req.Method]
	// Reviews are questions that are asked by POST; the API server keeps nothing of them.
	if verb == "" || strings.HasSuffix(req.URL.Path, "reviews") {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, Request{Verb: verb, Path: req.URL.Path})
}

// Requests returns what was recorded so far and mentions one of the words in its path.
func (r *Recorder) Requests(words ...string) []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Request
	for _, req := range r.requests {
		for _, w := range words {
			if strings.Contains(req.Path, w) {
				out = append(out, req)
				break
			}
		}
	}
	return out
}

// Status reports whether the request writes the status of one of our kinds, and nothing else.
func (r Request) Status() bool { return strings.HasSuffix(r.Path, "/status") }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
