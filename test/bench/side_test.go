package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/evidence"
)

// side is one of the two that are compared: clients whose requests are noted. The bare client-go has no other than bare; the operator's are live and logs.
type side struct {
	bare, logs *kubernetes.Clientset
	live       client.Client

	mu   sync.Mutex
	made []request // in the order in which they were made
}

// request is one that a side has made.
type request struct {
	method, path, uri, accept, contentType string
	body                                   []byte
}

func newSide(b *testing.B, config *rest.Config) *side {
	b.Helper()
	s := &side{}
	own := rest.CopyConfig(config)
	own.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return noting(func(r *http.Request) (*http.Response, error) {
			if err := s.note(r); err != nil {
				return nil, err
			}
			return next.RoundTrip(r)
		})
	})
	var failures [3]error
	s.bare, failures[0] = kubernetes.NewForConfig(own)
	s.logs, failures[1] = kubernetes.NewForConfig(evidence.LogConfig(own))
	s.live, failures[2] = client.New(own, client.Options{Scheme: controllers.NewScheme()})
	if err := errors.Join(failures[:]...); err != nil {
		b.Fatal(err)
	}
	return s
}

// noting is a transport.
type noting func(*http.Request) (*http.Response, error)

func (n noting) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

func (s *side) note(r *http.Request) error {
	made := request{method: r.Method, path: r.URL.Path, uri: r.URL.RequestURI(), accept: r.Header.Get("Accept"), contentType: r.Header.Get("Content-Type")}
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return err
		}
		if made.body, err = io.ReadAll(body); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, made)
	return nil
}

// measure notes anew which requests a step makes, and returns how long it takes.
func (s *side) measure(b *testing.B, step func(context.Context) error) time.Duration {
	b.Helper()
	s.mu.Lock()
	s.made = nil
	s.mu.Unlock()
	runtime.GC() // nobody pays for the garbage of the other side
	begun := time.Now()
	err := step(b.Context())
	took := time.Since(begun)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

const logSuffix = "/log"

// byObject parts requests by the object that they are about, pods with their logs, in the order in which the first of each was made.
func byObject(made []request) (out [][]request) {
	at := map[string]int{}
	for _, r := range made {
		object := strings.TrimSuffix(r.path, logSuffix)
		i, known := at[object]
		if !known {
			i = len(out)
			at[object], out = i, append(out, nil)
		}
		out[i] = append(out[i], r)
	}
	return out
}

// renamed are the same requests, but of what they create there is none yet.
func renamed(b *testing.B, made []request) (out []request) {
	b.Helper()
	for _, r := range made {
		if r.method == http.MethodPost {
			obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(r.body, nil, nil)
			cm, ok := obj.(*corev1.ConfigMap)
			if err != nil || !ok {
				b.Fatalf("this benchmark does not know what %s creates: %v", r.uri, err)
			}
			cm.Name = "bare-" + cm.Name
			info, _ := apiruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), r.contentType)
			if r.body, err = apiruntime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), cm); err != nil {
				b.Fatal(err)
			}
		}
		out = append(out, r)
	}
	return out
}

// replay makes requests with nothing but client-go: those of one list one after the other, of 16 lists at a time.
func (s *side) replay(ctx context.Context, plan [][]request) error {
	return each(plan, func(requests []request) error {
		for _, r := range requests {
			if err := s.repeat(ctx, r); err != nil {
				return fmt.Errorf("repeating %s %s: %w", r.method, r.uri, err)
			}
		}
		return nil
	})
}

// repeat makes a request once more, and decodes the answer, or reads it if it is a log.
func (s *side) repeat(ctx context.Context, r request) error {
	call := s.bare.CoreV1().RESTClient().Verb(r.method).RequestURI(r.uri).SetHeader("Accept", r.accept)
	if strings.HasSuffix(r.path, logSuffix) {
		log, err := call.Stream(ctx)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, log)
		return errors.Join(err, log.Close())
	}
	if r.body != nil {
		call = call.SetHeader("Content-Type", r.contentType).Body(r.body)
	}
	_, err := call.Do(ctx).Get()
	if apierrors.IsNotFound(err) {
		return nil // as the collector was told
	}
	return err
}

// each calls fn for every item, 16 at a time, until one fails.
func each[T any](items []T, fn func(T) error) error {
	var (
		queue   = make(chan T)
		workers sync.WaitGroup
		first   error
		once    sync.Once
		failed  = make(chan struct{})
	)
	for range atOnce {
		workers.Go(func() {
			for item := range queue {
				if err := fn(item); err != nil {
					once.Do(func() {
						first = err
						close(failed)
					})
					return
				}
			}
		})
	}
	func() {
		defer close(queue)
		for _, item := range items {
			select {
			case queue <- item:
			case <-failed:
				return
			}
		}
	}()
	workers.Wait()
	return first
}
