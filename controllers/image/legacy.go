package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore/pkg/signature"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// What cosign wrote before there were bundles: an image under a tag made of the digest, with a layer for each signature.
const (
	olderType      = "application/vnd.dev.cosign.simplesigning.v1+json"
	olderSignature = "dev.cosignproject.cosign/signature"
)

// errNone says that there is no signature of this form.
var errNone = errors.New("there is none")

// olderSignature looks for a signature by the signer's key under the ".sig" tag of the image. It returns nil for one that holds, else why none does; problem says that the registry could not tell.
func (q *query) olderSignature(s v1alpha1.ImageSigner) (why, problem error) {
	key, err := keyOf(s)
	if err != nil {
		return err, nil
	}
	tag := q.ref.Context().Tag(strings.Replace(q.ref.DigestStr(), ":", "-", 1) + ".sig")
	image, err := remote.Image(tag, q.options...)
	if err != nil {
		return errNone, fault(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return err, nil
	}
	why = errNone
	for i, described := range manifest.Layers {
		if described.MediaType != olderType || i >= maxBundles {
			continue
		}
		layer, err := image.LayerByDigest(described.Digest)
		if err != nil {
			return err, nil
		}
		payload, problem := content(layer)
		if problem != nil {
			return nil, problem
		}
		if why = holds(key, payload, described.Annotations[olderSignature], q.ref.DigestStr()); why == nil {
			return nil, nil
		}
	}
	return why, nil
}

// holds says why a signature does not hold, or nil.
func holds(key signature.Verifier, payload []byte, encoded, digest string) error {
	made, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return errors.New("it is not encoded in base64")
	}
	if err := key.VerifySignature(bytes.NewReader(made), bytes.NewReader(payload)); err != nil {
		return fmt.Errorf("it is not by this key: %w", err)
	}
	var signed struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &signed); err != nil || signed.Critical.Image.Digest != digest {
		return errors.New("it is of another image")
	}
	return nil
}
