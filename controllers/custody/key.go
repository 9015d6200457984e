package custody

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// Signer signs heads with an Ed25519 key.
type Signer interface {
	// PublicKey is the public key of all signatures.
	PublicKey() ed25519.PublicKey
	// Sign signs a message, as it is (pure Ed25519).
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Key is an Ed25519 key in memory. It is a Signer.
type Key struct {
	private ed25519.PrivateKey
}

// GenerateKey makes a new key.
func GenerateKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating an Ed25519 key: %w", err)
	}
	return &Key{private: private}, nil
}

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// KeyFromPEM reads the PKCS #8 form that PEM and "openssl genpkey -algorithm ed25519" write. The error never quotes what it was given.
func KeyFromPEM(data []byte) (*Key, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != privateBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("reading a key: it is not one PEM block %q", privateBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("reading a key: it is not in PKCS #8 form")
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading a key: it is not an Ed25519 key but a %T", parsed)
	}
	return &Key{private: private}, nil
}

// PEM is the key in PKCS #8 form. It is secret.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// PublicKey is the public half.
func (k *Key) PublicKey() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Sign signs a message.
func (k *Key) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}

// KeyID identifies a public key: the SHA-256 of its SubjectPublicKeyInfo in DER, in hexadecimal digits.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(publicDER(public))
	return hex.EncodeToString(sum[:])
}

// PublicPEM is a public key in PKIX form.
func PublicPEM(public ed25519.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: publicDER(public)})
}

// publicDER is the SubjectPublicKeyInfo of a key (RFC 8410, section 4).
func publicDER(public ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // every Ed25519 key can be encoded
	}
	return der
}

// keyFromDER reads a SubjectPublicKeyInfo with an Ed25519 key.
func keyFromDER(der []byte) (ed25519.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("it is not a public key: %w", err)
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("it is not an Ed25519 key but a %T", parsed)
	}
	return public, nil
}

// keyObject is the key in the store under which a public key can be found.
func keyObject(id string) string { return keysFolder + id + ".pem" }
