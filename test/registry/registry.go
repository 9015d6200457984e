// Package registry is an OCI registry on the loopback interface, with images that tests sign.
package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	bundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	olderType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadType = "application/vnd.in-toto+json"
	// CosignSign is the predicate type of what "cosign sign" states.
	CosignSign = "https://sigstore.dev/cosign/sign/v1"
)

// Registry is a registry that runs.
type Registry struct {
	// Host is its address and port.
	Host   string
	server *httptest.Server
}

// Start starts a registry; referrers says whether it serves the API for them.
func Start(referrers bool) *Registry {
	handler := ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0)), ociregistry.WithReferrersSupport(referrers))
	server := httptest.NewServer(handler)
	return &Registry{Host: strings.TrimPrefix(server.URL, "http://"), server: server}
}

// Stop ends it.
func (r *Registry) Stop() { r.server.Close() }

// Image is an image in the registry.
type Image struct {
	// Reference is its name with its digest, which of an image for several platforms is that of the index.
	Reference, Digest string
	// Platforms are the digests of its manifests, and Configs those of their configurations.
	Platforms, Configs []string
}

// Push puts an image of random content into a repository: for one platform without an index, or for several with one.
func (r *Registry) Push(repository string, platforms int) (*Image, error) {
	repo, err := name.NewRepository(r.Host + "/" + repository)
	if err != nil {
		return nil, err
	}
	out := &Image{}
	var index v1.ImageIndex = empty.Index
	for i := range platforms {
		image, err := random.Image(64, 1)
		if err != nil {
			return nil, err
		}
		manifest, err := image.Digest()
		if err != nil {
			return nil, err
		}
		config, err := image.ConfigName()
		if err != nil {
			return nil, err
		}
		out.Platforms, out.Configs = append(out.Platforms, manifest.String()), append(out.Configs, config.String())
		out.Digest = manifest.String()
		if err := remote.Write(repo.Digest(out.Digest), image); err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)},
		}})
	}
	if platforms > 1 {
		digest, err := index.Digest()
		if err != nil {
			return nil, err
		}
		out.Digest = digest.String()
		if err := remote.WriteIndex(repo.Digest(out.Digest), index); err != nil {
			return nil, err
		}
	}
	out.Reference = repo.Digest(out.Digest).String()
	return out, nil
}

// Statement is what an in-toto statement of a predicate type says about a digest.
func Statement(digest, predicateType string) sign.Content {
	raw, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateType, "predicate": map[string]any{},
		"subject": []any{map[string]any{"name": "image", "digest": map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	return &sign.DSSEData{Data: raw, PayloadType: payloadType}
}

// Sign signs the image with the key, as "cosign sign --key" does.
func (r *Registry) Sign(image *Image, key sign.Keypair) error {
	bundle, err := sign.Bundle(Statement(image.Digest, CosignSign), key, sign.BundleOptions{})
	if err != nil {
		return err
	}
	return r.Attach(image, bundle)
}

// Attach puts a bundle beside the image.
func (r *Registry) Attach(image *Image, bundle *protobundle.Bundle) error {
	raw, err := protojson.Marshal(bundle)
	if err != nil {
		return err
	}
	return r.AttachRaw(image, raw)
}

// AttachRaw puts anything beside the image in place of a bundle.
func (r *Registry) AttachRaw(image *Image, raw []byte) error {
	ref, err := name.NewDigest(image.Reference)
	if err != nil {
		return err
	}
	subject, err := remote.Head(ref)
	if err != nil {
		return err
	}
	layered, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(raw, bundleType))
	if err != nil {
		return err
	}
	attached := mutate.Subject(mutate.ConfigMediaType(layered, bundleType), *subject).(v1.Image)
	digest, err := attached.Digest()
	if err != nil {
		return err
	}
	return remote.Write(ref.Context().Digest(digest.String()), attached)
}

// SignOlder signs a digest with the key, as cosign did before there were bundles, and puts that beside the image.
func (r *Registry) SignOlder(image *Image, digest string, key sign.Keypair) error {
	ref, err := name.NewDigest(image.Reference)
	if err != nil {
		return err
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	signature, _, err := key.SignData(context.Background(), payload)
	if err != nil {
		return err
	}
	signed, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer: static.NewLayer(payload, olderType), Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		return err
	}
	return remote.Write(ref.Context().Tag(strings.Replace(image.Digest, ":", "-", 1)+".sig"), signed)
}

// NewKey makes a key pair, and its public key in PEM form.
func NewKey() (sign.Keypair, string, error) {
	key, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, "", err
	}
	pem, err := key.GetPublicKeyPem()
	return key, pem, err
}
