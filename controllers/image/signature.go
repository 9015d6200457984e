package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// bundleType begins the artifact type of Sigstore bundles of every version.
const bundleType = "application/vnd.dev.sigstore.bundle"

// emptyType is the type of a configuration that there is none of.
const emptyType = "application/vnd.oci.empty.v1+json"

// statements are the predicate types that say "this is ours": what "cosign sign" writes, and where an image was built. Any other statement, such as what a scan has found, says nothing like that.
var statements = []string{"https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"}

// signedBy is the first of the signers whose signature of the image is found and verified. Otherwise it says why there is none.
func (c *Checker) signedBy(q *query, signers []v1alpha1.ImageSigner) (signer, why string, err error) {
	bundles, looked, err := q.bundles()
	if err != nil {
		return "", "", err
	}
	var reasons []string
	for _, s := range signers {
		check, err := c.checkerOf(q.ref, s)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("signer %s: %s", s.Name, clip(err.Error())))
			continue
		}
		for _, b := range bundles {
			if err = check(b); err == nil {
				return s.Name, "", nil
			}
		}
		found := len(bundles)
		if s.PublicKey != "" {
			older, problem := q.olderSignature(s)
			if problem != nil {
				return "", "", problem
			}
			if older == nil {
				return s.Name, "", nil
			}
			if !errors.Is(older, errNone) {
				found, err = found+1, older
			}
		}
		if found > 0 {
			reasons = append(reasons, fmt.Sprintf("none of its %d signatures is verified to be of signer %s: %s", found, s.Name, clip(err.Error())))
		}
	}
	switch {
	case len(reasons) == 0 && looked > 0:
		return "", "carries no signature that can be read", nil
	case len(reasons) == 0:
		return "", "carries no signature", nil
	case looked > maxBundles:
		reasons = append(reasons, fmt.Sprintf("it has more, and only %d are looked at", maxBundles))
	}
	return "", strings.Join(reasons, "; "), nil
}

// checkerOf returns what verifies one bundle for a signer.
func (c *Checker) checkerOf(ref name.Digest, s v1alpha1.ImageSigner) (func(*bundle.Bundle) error, error) {
	trust, options, identity, err := c.termsOf(s)
	if err != nil {
		return nil, err
	}
	verifier, err := verify.NewVerifier(trust, options...)
	if err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(ref.DigestStr(), "sha256:"))
	if err != nil {
		return nil, err
	}
	policy := verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), identity)
	return func(b *bundle.Bundle) error {
		result, err := verifier.Verify(b, policy)
		if err != nil {
			return err
		}
		if result.Statement != nil && !slices.Contains(statements, result.Statement.PredicateType) {
			return fmt.Errorf("it states %q, which is no signature", clip(result.Statement.PredicateType))
		}
		return nil
	}, nil
}

// termsOf are the terms on which a signer's signatures are verified. Of a keyless one everything is asked that the trusted root has the means to verify.
func (c *Checker) termsOf(s v1alpha1.ImageSigner) (root.TrustedMaterial, []verify.VerifierOption, verify.PolicyOption, error) {
	if s.PublicKey != "" {
		key, err := keyOf(s)
		if err != nil {
			return nil, nil, nil, err
		}
		return trustOf(key), []verify.VerifierOption{verify.WithNoObserverTimestamps()}, verify.WithKey(), nil
	}
	if c.Root == nil {
		return nil, nil, nil, errors.New("the manager was given no trusted root (--sigstore-trusted-root)")
	}
	subject, err := subjectOf(s.Keyless)
	if err != nil {
		return nil, nil, nil, err
	}
	identity, err := verify.NewShortCertificateIdentity(s.Keyless.Issuer, "", "", subject)
	if err != nil {
		return nil, nil, nil, err
	}
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if len(c.Root.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(c.Root.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return c.Root, options, verify.WithCertificateIdentity(identity), nil
}

// bundles are the Sigstore bundles that refer to the image, and how many there are, if one more than are looked at. What cannot be read as one is left out: whoever may push could put it there.
func (q *query) bundles() (out []*bundle.Bundle, looked int, err error) {
	referrers, err := remote.Referrers(q.ref, q.options...)
	if err != nil {
		return nil, 0, err
	}
	index, err := referrers.IndexManifest()
	if err != nil {
		return nil, 0, err
	}
	for _, m := range index.Manifests {
		// Some registries do not say of which type a referrer is: its layer tells.
		if m.ArtifactType != "" && m.ArtifactType != emptyType && !strings.HasPrefix(m.ArtifactType, bundleType) {
			continue
		}
		if looked++; looked > maxBundles {
			return out, looked, nil
		}
		raw, err := q.onlyLayer(m.Digest)
		if err != nil {
			return nil, 0, err
		}
		one := &bundle.Bundle{}
		if len(raw) > 0 && one.UnmarshalJSON(raw) == nil {
			out = append(out, one)
		}
	}
	return out, looked, nil
}

// onlyLayer reads the layer of a referrer that has one; of any other, or of one that is too large, nothing.
func (q *query) onlyLayer(digest v1.Hash) ([]byte, error) {
	image, err := remote.Image(q.ref.Context().Digest(digest.String()), q.options...)
	if err != nil {
		return nil, fault(err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		return nil, fault(err)
	}
	kind, err := layers[0].MediaType()
	if err != nil || !strings.HasPrefix(string(kind), bundleType) {
		return nil, fault(err)
	}
	return content(layers[0])
}

func content(layer v1.Layer) ([]byte, error) {
	size, err := layer.Size()
	if err != nil || size > maxBundle {
		return nil, fault(err)
	}
	from, err := layer.Compressed()
	if err != nil {
		return nil, fault(err)
	}
	defer func() { _ = from.Close() }() // what was read is verified
	raw, err := io.ReadAll(io.LimitReader(from, maxBundle))
	if err != nil {
		return nil, fault(err)
	}
	return raw, nil
}

// fault is an error that the registry, or the way to it, is to blame for. One about what somebody has pushed is none: else whoever may push could keep an image from ever being verified.
func fault(err error) error {
	var answer *transport.Error
	var way *url.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return nil
	case errors.As(err, &answer), errors.As(err, &way), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	}
	return nil
}
