package image

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/registry"
)

const issuer = "https://issuer.example.com"

func keyless(identity, expression string) v1alpha1.ImageVerification {
	return v1alpha1.ImageVerification{Signers: []v1alpha1.ImageSigner{{
		Name: "ann", Keyless: v1alpha1.KeylessIdentity{Issuer: issuer, Identity: identity, IdentityRegexp: expression},
	}}}
}

// withoutCT are the authorities for tests without their certificate log, because their certificates carry no word of it.
type withoutCT struct{ *ca.VirtualSigstore }

func (withoutCT) CTLogs() map[string]*root.TransparencyLog { return nil }

// leaf is a key with the certificate that authorities for tests have issued for it.
type leaf struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (leaf) GetHashAlgorithm() protocommon.HashAlgorithm { return protocommon.HashAlgorithm_SHA2_256 }

func (leaf) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}
func (leaf) GetHint() []byte                  { return nil }
func (leaf) GetKeyAlgorithm() string          { return "ECDSA" }
func (l leaf) GetPublicKey() crypto.PublicKey { return l.key.Public() }
func (leaf) GetPublicKeyPem() (string, error) { return "", nil }

func (l leaf) SignData(_ context.Context, data []byte) (signature, digest []byte, err error) {
	sum := sha256.Sum256(data)
	signature, err = ecdsa.SignASN1(rand.Reader, l.key, sum[:])
	return signature, sum[:], err
}

func (l leaf) GetCertificate(context.Context, sign.Keypair, *sign.CertificateProviderOptions) ([]byte, error) {
	return l.cert.Raw, nil
}

// signed is a bundle that somebody has made with a certificate, with a time stamp and an entry in the log unless they are left out.
func signed(t *testing.T, authority *ca.VirtualSigstore, identity, by, digest string, stamped, logged bool) *protobundle.Bundle {
	t.Helper()
	cert, key, err := authority.GenerateLeafCert(identity, by)
	must(t, err)
	l := leaf{cert: cert, key: key.(*ecdsa.PrivateKey)}
	bundle, err := sign.Bundle(registry.Statement(digest, registry.CosignSign), l, sign.BundleOptions{CertificateProvider: l})
	must(t, err)
	made := bundle.GetDsseEnvelope()
	if stamped {
		stamp, err := authority.TimestampResponse(made.Signatures[0].Sig)
		must(t, err)
		bundle.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
		}
	}
	if logged {
		raw, err := protojson.Marshal(made)
		must(t, err)
		var envelope dsse.Envelope
		must(t, json.Unmarshal(raw, &envelope))
		entry, err := authority.GenerateTlogEntry(cert, &envelope, made.Signatures[0].Sig, time.Now().Add(time.Minute).Unix(), true)
		must(t, err)
		logged := entry.TransparencyLogEntry()
		logged.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
		bundle.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{logged}
	}
	return bundle
}

func TestKeylessSignatures(t *testing.T) {
	trusted, err := ca.NewVirtualSigstore()
	must(t, err)
	foreign, err := ca.NewVirtualSigstore()
	must(t, err)
	r := started(t, true)
	const ann = "ann@example.com"
	cases := map[string]struct {
		authority       *ca.VirtualSigstore
		identity, by    string
		unstamped       bool
		unlogged, other bool
		terms           v1alpha1.ImageVerification
		state           State
		why             string
	}{
		"by the identity":             {terms: keyless(ann, ""), state: Good},
		"by one that matches":         {terms: keyless("", `[a-z]+@example\.com`), state: Good},
		"only a part matches":         {terms: keyless("", `example\.com`), state: Unverified, why: "none of its 1 signatures"},
		"a beginning matches":         {identity: "ann@example.com.evil.org", terms: keyless("", `[a-z]+@example\.com`), state: Unverified, why: "none of its 1 signatures"},
		"an alternative, anchored":    {identity: "evil-ann@example.com", terms: keyless("", `ann@example\.com|bob@example\.com`), state: Unverified, why: "none of its 1 signatures"},
		"another identity":            {terms: keyless("bob@example.com", ""), state: Unverified, why: "none of its 1 signatures"},
		"a dot is a dot":              {identity: "ann@exampleXcom", terms: keyless(ann, ""), state: Unverified, why: "none of its 1 signatures"},
		"another issuer":              {by: "https://elsewhere.example.com", terms: keyless(ann, ""), state: Unverified, why: "none of its 1 signatures"},
		"another authority":           {authority: foreign, terms: keyless(ann, ""), state: Unverified, why: "none of its 1 signatures"},
		"without an entry in the log": {unlogged: true, terms: keyless(ann, ""), state: Unverified, why: "log"},
		"without a time stamp":        {unstamped: true, terms: keyless(ann, ""), state: Unverified, why: "timestamp"},
		"of another image":            {other: true, terms: keyless(ann, ""), state: Unverified, why: "none of its 1 signatures"},
		"where a key is asked for":    {terms: func() v1alpha1.ImageVerification { _, pem := newKey(t); return byKey(pem) }(), state: Unverified, why: "expected key signature"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			image := pushed(t, r, "shop/web", 1)
			if tc.authority == nil {
				tc.authority = trusted
			}
			if tc.identity == "" {
				tc.identity = ann
			}
			if tc.by == "" {
				tc.by = issuer
			}
			digest := image.Digest
			if tc.other {
				digest = "sha256:" + strings.Repeat("0", 64)
			}
			must(t, r.Attach(image, signed(t, tc.authority, tc.identity, tc.by, digest, !tc.unstamped, !tc.unlogged)))
			got := (&Checker{Root: withoutCT{trusted}}).Check(t.Context(), image.Reference, tc.terms)
			if got.State != tc.state || !strings.Contains(got.Why, tc.why) {
				t.Errorf("Check() = %+v, want state %d and %q", got, tc.state, tc.why)
			}
		})
	}
	t.Run("without the word of a certificate log that there is", func(t *testing.T) {
		image := pushed(t, r, "shop/web", 1)
		must(t, r.Attach(image, signed(t, trusted, ann, issuer, image.Digest, true, true)))
		if got := (&Checker{Root: trusted}).Check(t.Context(), image.Reference, keyless(ann, "")); got.State != Unverified || !strings.Contains(got.Why, "certificate timestamp") {
			t.Errorf("Check() = %+v, want it unverified", got)
		}
	})
}
