// Package outbound calls the services that standing orders name: briefly, without following redirects, and with no more of an answer than is needed.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=secrets,verbs=get

const (
	// Limit is how long one call may take: calls are made during a pass, and an Incident waits meanwhile.
	Limit = 2 * time.Second
	// maxAnswer is how many bytes of an answer are read.
	maxAnswer = 1 << 20
)

// Caller calls services.
type Caller struct {
	// Reader reads Secrets, live, and Namespace is the operator's own, where they are.
	Reader    client.Reader
	Namespace string
}

// Find returns the endpoint of that name, or nil.
func Find(endpoints []v1alpha1.Endpoint, name string) *v1alpha1.Endpoint {
	for i := range endpoints {
		if endpoints[i].Name == name {
			return &endpoints[i]
		}
	}
	return nil
}

// client is an HTTP client for one call. It keeps no connection.
func (c *Caller) client(ctx context.Context, e *v1alpha1.Endpoint) (*http.Client, error) {
	token, cas, err := c.credentials(ctx, e)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: Limit,
		TLSClientConfig: &tls.Config{RootCAs: cas, MinVersion: tls.VersionTLS12},
	}
	return &http.Client{
		Transport: authorized{token: token, next: transport}, Timeout: Limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// credentials are the token and the authorities of an endpoint. No authorities means the system's.
func (c *Caller) credentials(ctx context.Context, e *v1alpha1.Endpoint) (token string, cas *x509.CertPool, err error) {
	if e.SecretName == "" {
		return "", nil, nil
	}
	var secret corev1.Secret
	if err := c.Reader.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: e.SecretName}, &secret); err != nil {
		return "", nil, fmt.Errorf("reading the Secret of endpoint %s: %w", e.Name, err)
	}
	if pem := secret.Data["ca.crt"]; len(pem) > 0 {
		if cas, err = x509.SystemCertPool(); err != nil {
			cas = x509.NewCertPool()
		}
		if !cas.AppendCertsFromPEM(pem) {
			return "", nil, fmt.Errorf("the Secret %s/%s has no certificate in ca.crt", c.Namespace, e.SecretName)
		}
	}
	return strings.TrimSpace(string(secret.Data["token"])), cas, nil
}

// authorized adds a token to requests, and bounds what is read of answers.
type authorized struct {
	token string
	next  http.RoundTripper
}

func (a authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = bounded{Reader: http.MaxBytesReader(nil, resp.Body, maxAnswer), Closer: resp.Body}
	return resp, nil
}

type bounded struct {
	io.Reader
	io.Closer
}

// brief says what went wrong with a call, without its URL, which may have more in it than status should show.
func brief(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
		if _, wrapsMore := err.(interface{ Unwrap() error }); !wrapsMore {
			break
		}
	}
	return err
}
