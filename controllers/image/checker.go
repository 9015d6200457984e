package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/sigstore/sigstore-go/pkg/root"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Bounds of what is read from a registry. What it says is not trusted.
const (
	maxPlatforms = 31      // with their configurations, and the index itself, fewer than v1alpha1.VerifiedImage may list
	maxBundles   = 32      // signatures of one image that are looked at
	maxBundle    = 1 << 20 // bytes of one of them
	dialLimit    = 10 * time.Second
	attestation  = "vnd.docker.reference.type" // marks entries of an index that are no image
)

var zeroTime time.Time

// Checker asks registries.
type Checker struct {
	// Keychain has the credentials for registries; nil for none.
	Keychain authn.Keychain
	// Root is what keyless signatures are verified with; nil where none was given.
	Root root.TrustedMaterial
	// Transport reaches registries. Default one that reaches no link-local address, where clouds keep credentials of machines.
	Transport http.RoundTripper
}

// Check finds out whether the image is what the plan asks for. It takes as long as the registry does, or the context.
func (c *Checker) Check(ctx context.Context, image string, v v1alpha1.ImageVerification) Verdict {
	ref, err := name.NewDigest(image)
	if err != nil {
		return Verdict{State: Missing, Why: "is no reference by digest"}
	}
	q := &query{ctx: ctx, ref: ref, options: c.options(ctx)}
	digests, err := q.digests()
	if err != nil {
		return unreadable(err)
	}
	out := Verdict{State: Good, Digests: digests}
	signers, needed := signersFor(v, ref.Context())
	if !needed {
		return out
	}
	if len(signers) == 0 {
		return Verdict{State: Unverified, Why: "is in a repository in which no signer's word counts: add one to spec.verification, or the repository to unsignedRepositories", Digests: digests}
	}
	signer, why, err := c.signedBy(q, signers)
	switch {
	case err != nil:
		return unreadable(err)
	case signer == "":
		return Verdict{State: Unverified, Why: why, Digests: digests}
	}
	out.Signer = signer
	return out
}

func (c *Checker) options(ctx context.Context) []remote.Option {
	keychain, through := c.Keychain, c.Transport
	if keychain == nil {
		keychain = authn.NewMultiKeychain() // anonymous
	}
	if through == nil {
		through = careful
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain), remote.WithTransport(through), remote.WithUserAgent("cofferdam"), remote.WithJobs(1),
	}
}

// careful reaches no link-local address: a plan's author decides which hosts are asked.
var careful = func() http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialLimit, Control: refuseLinkLocal}).DialContext
	return t
}()

func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if addr := to.Addr().Unmap(); addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() {
		return fmt.Errorf("%s is no address of a registry", addr)
	}
	return nil
}

// unreadable says in our own words what a registry's answer means: what it writes itself is not passed on.
func unreadable(err error) Verdict {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return Verdict{Why: "could not be looked up in time: the registry does not answer, or slowly"}
		}
		return Verdict{Why: "could not be looked up: " + clip(err.Error())}
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return Verdict{State: Missing, Why: "does not exist in its registry under this digest"}
	case http.StatusUnauthorized, http.StatusForbidden:
		return Verdict{Why: fmt.Sprintf("could not be looked up: the registry answers %d; give the manager credentials for it (DOCKER_CONFIG), if the image exists", answer.StatusCode)}
	}
	return Verdict{Why: fmt.Sprintf("could not be looked up: the registry answers %d", answer.StatusCode)}
}

const maxError = 200

func clip(text string) string {
	if len(text) > maxError {
		text = text[:maxError] + "..."
	}
	return strings.ToValidUTF8(text, "")
}

// query is one question about one image.
type query struct {
	ctx     context.Context //nolint:containedctx // of one question, of which this is the state
	ref     name.Digest
	options []remote.Option
}

// digests are what a node may report as imageID of the image.
func (q *query) digests() ([]string, error) {
	got, err := remote.Get(q.ref, q.options...)
	if err != nil {
		return nil, err
	}
	out := []string{q.ref.DigestStr()}
	if !got.MediaType.IsIndex() {
		config, err := configOf(got.Manifest)
		return append(out, config...), err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(got.Manifest, &index); err != nil {
		return nil, fmt.Errorf("its index cannot be read: %w", err)
	}
	found := 0
	for _, m := range index.Manifests {
		if !m.MediaType.IsImage() || m.Annotations[attestation] != "" {
			continue
		}
		if found++; found > maxPlatforms {
			return nil, fmt.Errorf("its index has more than %d platforms", maxPlatforms)
		}
		platform, err := q.platform(m.Digest)
		if err != nil {
			return nil, err
		}
		out = append(out, platform...)
	}
	if found == 0 {
		return nil, errors.New("its index has no image")
	}
	slices.Sort(out[1:])
	return slices.Compact(out), nil
}

// platform are the digests of one entry of an index. An entry that the registry does not have runs nowhere.
func (q *query) platform(digest v1.Hash) ([]string, error) {
	got, err := remote.Get(q.ref.Context().Digest(digest.String()), q.options...)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	config, err := configOf(got.Manifest)
	return append(config, digest.String()), err
}

func configOf(raw []byte) ([]string, error) {
	var manifest v1.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return nil, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if manifest.Config.Digest.Algorithm != "sha256" {
		return nil, errors.New("its manifest has no configuration")
	}
	return []string{manifest.Config.Digest.String()}, nil
}
