package image

import (
	"crypto"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Invalid says why a plan's verification cannot be carried out as it is written, or "".
func Invalid(v *v1alpha1.ImageVerification) string {
	if v == nil {
		return ""
	}
	for _, s := range v.Signers {
		if err := usable(s); err != nil {
			return fmt.Sprintf("signer %s: %v", s.Name, err)
		}
	}
	return ""
}

func usable(s v1alpha1.ImageSigner) error {
	if s.PublicKey != "" {
		_, err := keyOf(s)
		return err
	}
	_, err := subjectOf(s.Keyless)
	return err
}

// keyOf reads the public key of a signer.
func keyOf(s v1alpha1.ImageSigner) (signature.Verifier, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(s.PublicKey))
	if err != nil {
		return nil, errors.New("publicKey is not a public key in PEM form")
	}
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("publicKey cannot be used: %w", err)
	}
	return verifier, nil
}

// subjectOf is the expression that the whole subject of a keyless signer has to match.
func subjectOf(k v1alpha1.KeylessIdentity) (string, error) {
	if k.Identity != "" {
		return "^" + regexp.QuoteMeta(k.Identity) + "$", nil
	}
	if _, err := regexp.Compile(k.IdentityRegexp); err != nil {
		return "", fmt.Errorf("identityRegexp is not a regular expression: %w", err)
	}
	return "^(?:" + k.IdentityRegexp + ")$", nil
}

// trustOf is the key as something that signatures are verified with, whenever they were made.
func trustOf(verifier signature.Verifier) root.TrustedMaterial {
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(verifier, zeroTime, zeroTime), nil
	})
}

// signersFor are those whose word counts for a repository, and whether any is needed.
func signersFor(v v1alpha1.ImageVerification, repository name.Repository) (signers []v1alpha1.ImageSigner, needed bool) {
	if len(v.Signers) == 0 || covers(v.UnsignedRepositories, repository) {
		return nil, false
	}
	for _, s := range v.Signers {
		if len(s.Repositories) == 0 || covers(s.Repositories, repository) {
			signers = append(signers, s)
		}
	}
	return signers, true
}

// covers reports whether one of the entries stands for the repository.
func covers(entries []string, repository name.Repository) bool {
	return slices.ContainsFunc(entries, func(entry string) bool {
		if prefix, below := strings.CutSuffix(entry, "/*"); below {
			return strings.HasPrefix(repository.Name(), canonicalHost(prefix)+"/")
		}
		exact, err := name.NewRepository(entry)
		return err == nil && exact.Name() == repository.Name()
	})
}

// canonicalHost gives Docker Hub the name that references to it are read as.
func canonicalHost(prefix string) string {
	if prefix == "docker.io" || strings.HasPrefix(prefix, "docker.io/") {
		return "index." + prefix
	}
	return prefix
}
