// Package outbound calls the services that standing orders name: briefly, without following redirects, and with no more of an answer than is needed.
package outbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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

// client is an HTTP client for one call, and the address to be called. It keeps no connection.
func (c *Caller) client(ctx context.Context, e *v1alpha1.Endpoint) (caller *http.Client, address string, err error) {
	known, err := c.credentials(ctx, e)
	if err != nil {
		return nil, "", err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: Limit,
		TLSClientConfig: &tls.Config{RootCAs: known.authorities, MinVersion: tls.VersionTLS12},
	}
	return &http.Client{
		Transport: authorized{token: known.token, next: transport}, Timeout: Limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, cmp.Or(known.address, e.URL), nil
}

// credentials are what the Secret of an endpoint has. No authorities means the system's, and no address the endpoint's url.
type credentials struct {
	token, address string
	authorities    *x509.CertPool
}

func (c *Caller) credentials(ctx context.Context, e *v1alpha1.Endpoint) (known credentials, err error) {
	if e.SecretName == "" {
		return known, nil
	}
	var secret corev1.Secret
	if err := c.Reader.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: e.SecretName}, &secret); err != nil {
		return known, fmt.Errorf("reading the Secret of endpoint %s: %w", e.Name, err)
	}
	if pem := secret.Data["ca.crt"]; len(pem) > 0 {
		if known.authorities, err = x509.SystemCertPool(); err != nil {
			known.authorities = x509.NewCertPool()
		}
		if !known.authorities.AppendCertsFromPEM(pem) {
			return known, fmt.Errorf("the Secret %s/%s has no certificate in ca.crt", c.Namespace, e.SecretName)
		}
	}
	known.token, known.address = strings.TrimSpace(string(secret.Data["token"])), strings.TrimSpace(string(secret.Data["url"]))
	if !callable(known.address, e.Plaintext) {
		return known, fmt.Errorf("the entry url of the Secret %s/%s is no https URL; with plaintext Allow it may be an http URL", c.Namespace, e.SecretName)
	}
	return known, nil
}

// callable reports whether an address from a Secret may be called: none at all, or what admission would let url be.
func callable(address string, plaintext v1alpha1.PlaintextUse) bool {
	if address == "" {
		return true
	}
	to, err := url.Parse(address)
	if err != nil || to.Host == "" || to.User != nil {
		return false
	}
	ip := net.ParseIP(to.Hostname())
	near := to.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return to.Scheme == "https" || to.Scheme == "http" && (near || plaintext == v1alpha1.PlaintextAllow)
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
