package image

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/sigstore-go/pkg/sign"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/registry"
)

func started(t *testing.T, referrers bool) *registry.Registry {
	t.Helper()
	r := registry.Start(referrers)
	t.Cleanup(r.Stop)
	return r
}

func pushed(t *testing.T, r *registry.Registry, repository string, platforms int) *registry.Image {
	t.Helper()
	image, err := r.Push(repository, platforms)
	must(t, err)
	return image
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) (sign.Keypair, string) {
	t.Helper()
	key, pem, err := registry.NewKey()
	must(t, err)
	return key, pem
}

func byKey(pem string, repositories ...string) v1alpha1.ImageVerification {
	return v1alpha1.ImageVerification{Signers: []v1alpha1.ImageSigner{{Name: "release", PublicKey: pem, Repositories: repositories}}}
}

func TestDigests(t *testing.T) {
	r := started(t, true)
	one, many := pushed(t, r, "shop/web", 1), pushed(t, r, "shop/web", 3)
	cases := map[string]struct {
		image string
		want  []string
		state State
	}{
		"one platform":              {image: one.Reference, want: []string{one.Digest, one.Configs[0]}, state: Good},
		"several":                   {image: many.Reference, want: slices.Concat([]string{many.Digest}, many.Platforms, many.Configs), state: Good},
		"one of several":            {image: r.Host + "/shop/web@" + many.Platforms[1], want: []string{many.Platforms[1], many.Configs[1]}, state: Good},
		"beside a tag":              {image: strings.Replace(one.Reference, "@", ":1.2@", 1), want: []string{one.Digest, one.Configs[0]}, state: Good},
		"another repository":        {image: r.Host + "/shop/db@" + one.Digest, state: Missing},
		"another digest":            {image: r.Host + "/shop/web@sha256:" + strings.Repeat("0", 64), state: Missing},
		"a configuration, no image": {image: r.Host + "/shop/web@" + one.Configs[0], state: Missing},
		"no digest":                 {image: r.Host + "/shop/web:1", state: Missing},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := (&Checker{}).Check(t.Context(), tc.image, v1alpha1.ImageVerification{})
			if got.State != tc.state {
				t.Fatalf("Check() = %+v, want state %d", got, tc.state)
			}
			slices.Sort(got.Digests)
			slices.Sort(tc.want)
			if diff := cmp.Diff(tc.want, got.Digests); diff != "" {
				t.Errorf("digests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSignaturesByKey(t *testing.T) {
	ours, pem := newKey(t)
	theirs, _ := newKey(t)
	for _, referrers := range []bool{true, false} {
		r := started(t, referrers)
		statement := func(predicate string, of *registry.Image) func(*registry.Image) error {
			return func(image *registry.Image) error {
				bundle, err := sign.Bundle(registry.Statement(of.Digest, predicate), ours, sign.BundleOptions{})
				if err != nil {
					return err
				}
				return r.Attach(image, bundle)
			}
		}
		other := pushed(t, r, "shop/other", 1)
		cases := map[string]struct {
			attach []func(*registry.Image) error
			terms  v1alpha1.ImageVerification
			state  State
			why    string
		}{
			"none is asked for": {terms: v1alpha1.ImageVerification{}, state: Good},
			"signed":            {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.Sign(i, ours) }}, state: Good},
			"among others": {
				terms: byKey(pem), state: Good,
				attach: []func(*registry.Image) error{
					func(i *registry.Image) error { return r.Sign(i, theirs) },
					func(i *registry.Image) error { return r.AttachRaw(i, []byte(`{"mediaType": 7`)) },
					func(i *registry.Image) error { return r.Sign(i, ours) },
				},
			},
			"provenance":       {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return statement("https://slsa.dev/provenance/v1", i)(i) }}, state: Good},
			"the older form":   {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.SignOlder(i, i.Digest, ours) }}, state: Good},
			"not signed":       {terms: byKey(pem), state: Unverified, why: "carries no signature"},
			"by somebody else": {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.Sign(i, theirs) }}, state: Unverified, why: "none of its 1 signatures is verified to be of signer release"},
			"of another image": {terms: byKey(pem), attach: []func(*registry.Image) error{statement(registry.CosignSign, other)}, state: Unverified, why: "none of its 1 signatures"},
			"a scan": {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error {
				return statement("https://cosign.sigstore.dev/attestation/vuln/v1", i)(i)
			}}, state: Unverified, why: "which is no signature"},
			"not readable":      {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.AttachRaw(i, []byte("{}")) }}, state: Unverified, why: "carries no signature that can be read"},
			"older, theirs":     {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.SignOlder(i, i.Digest, theirs) }}, state: Unverified, why: "it is not by this key"},
			"older, of another": {terms: byKey(pem), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.SignOlder(i, other.Digest, ours) }}, state: Unverified, why: "it is of another image"},
			"unsigned allowed":  {terms: v1alpha1.ImageVerification{Signers: byKey(pem).Signers, UnsignedRepositories: []string{r.Host + "/shop/*"}}, state: Good},
			"no signer's word":  {terms: byKey(pem, r.Host+"/shop/db"), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.Sign(i, ours) }}, state: Unverified, why: "in which no signer's word counts"},
			"the signer's word": {terms: byKey(pem, r.Host+"/shop/web"), attach: []func(*registry.Image) error{func(i *registry.Image) error { return r.Sign(i, ours) }}, state: Good},
			"no root":           {terms: keyless("ann@example.com", ""), state: Unverified, why: "the manager was given no trusted root"},
		}
		for name, tc := range cases {
			t.Run(map[bool]string{true: "referrers/", false: "fallback tag/"}[referrers]+name, func(t *testing.T) {
				for _, platforms := range []int{1, 2} {
					image := pushed(t, r, "shop/web", platforms)
					for _, attach := range tc.attach {
						must(t, attach(image))
					}
					got := (&Checker{}).Check(t.Context(), image.Reference, tc.terms)
					if got.State != tc.state || !strings.Contains(got.Why, tc.why) || (got.State == Good) != (got.Why == "") {
						t.Errorf("with %d platforms Check() = %+v, want state %d and %q", platforms, got, tc.state, tc.why)
					}
					if signed := len(tc.attach) > 0 && tc.state == Good; signed != (got.Signer == "release") {
						t.Errorf("signer is %q", got.Signer)
					}
				}
			})
		}
	}
}

func TestWhatIsNotKnown(t *testing.T) {
	digest := "sha256:" + strings.Repeat("1", 64)
	for status, why := range map[int]string{500: "answers 500", 401: "answers 401; give the manager credentials", 403: "answers 403", 429: "answers 429"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/v2/" {
				return
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(server.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := (&Checker{}).Check(ctx, strings.TrimPrefix(server.URL, "http://")+"/shop/web@"+digest, v1alpha1.ImageVerification{})
		cancel()
		if got.State != Unknown || !strings.Contains(got.Why, why) && !strings.Contains(got.Why, "in time") {
			t.Errorf("for %d Check() = %+v, want %q", status, got, why)
		}
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := (&Checker{}).Check(ctx, strings.TrimPrefix(gone.URL, "http://")+"/shop/web@"+digest, v1alpha1.ImageVerification{})
	if got.State != Unknown {
		t.Errorf("of a registry that is away Check() = %+v", got)
	}
	got = (&Checker{}).Check(ctx, "169.254.169.254/shop/web@"+digest, v1alpha1.ImageVerification{})
	if got.State != Unknown || !strings.Contains(got.Why, "is no address of a registry") {
		t.Errorf("of a link-local address Check() = %+v", got)
	}
}

// TestASignatureThatCannotBeReadIsNotMissing tells a registry that fails from an image without signatures.
func TestASignatureThatCannotBeReadIsNotMissing(t *testing.T) {
	r := started(t, true)
	image := pushed(t, r, "shop/web", 1)
	_, pem := newKey(t)
	failing := &Checker{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/referrers/") {
			return &http.Response{StatusCode: http.StatusTeapot, Body: http.NoBody, Request: req, Header: http.Header{}}, nil
		}
		return http.DefaultTransport.RoundTrip(req)
	})}
	if got := failing.Check(t.Context(), image.Reference, byKey(pem)); got.State != Unknown {
		t.Errorf("Check() = %+v, want it unknown", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestCovers(t *testing.T) {
	cases := map[string]struct {
		entry, repository string
		want              bool
	}{
		"itself":                    {"r.example.com/shop/web", "r.example.com/shop/web", true},
		"below":                     {"r.example.com/shop/*", "r.example.com/shop/web/api", true},
		"not a neighbour":           {"r.example.com/shop/*", "r.example.com/shopping/web", false},
		"not itself":                {"r.example.com/shop/*", "r.example.com/shop", false},
		"everything of a registry":  {"r.example.com/*", "r.example.com/shop/web", true},
		"no other registry":         {"r.example.com/*", "r.example.com.evil.org/shop/web", false},
		"Docker Hub":                {"docker.io/acme/*", "acme/web", true},
		"Docker Hub's own":          {"nginx", "docker.io/library/nginx", true},
		"no part":                   {"r.example.com/shop/web", "r.example.com/shop/web2", false},
		"a star is no other letter": {"r.example.com/shop*", "r.example.com/shop2", false},
	}
	for title, tc := range cases {
		t.Run(title, func(t *testing.T) {
			repository, err := name.NewRepository(tc.repository)
			must(t, err)
			if got := covers([]string{tc.entry}, repository); got != tc.want {
				t.Errorf("covers(%s, %s) = %t", tc.entry, tc.repository, got)
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	_, pem := newKey(t)
	expression := keyless("", "[")
	for title, tc := range map[string]struct {
		terms *v1alpha1.ImageVerification
		want  string
	}{
		"nothing":          {},
		"a key":            {terms: new(byKey(pem))},
		"no key":           {terms: new(byKey("-----BEGIN")), want: "signer release: publicKey is not a public key in PEM form"},
		"an identity":      {terms: new(keyless("ann@example.com", ""))},
		"not a expression": {terms: &expression, want: "signer ann: identityRegexp is not a regular expression"},
	} {
		t.Run(title, func(t *testing.T) {
			if got := Invalid(tc.terms); (got == "") != (tc.want == "") || !strings.HasPrefix(got, tc.want) {
				t.Errorf("Invalid() = %q, want %q", got, tc.want)
			}
		})
	}
}
