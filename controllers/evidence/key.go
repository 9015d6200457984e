package evidence

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers/custody"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=secrets,verbs=get;create

const (
	// KeySecret is the name of the Secret, in the operator's namespace, with the key that signs the custody ledgers.
	KeySecret = "cofferdam-custody-key"
	// keyData is its key in the Secret: an Ed25519 private key as PKCS#8 in PEM.
	keyData = "ed25519.pem"
)

// Keys finds the key that signs. The first operator that needs one makes it; afterwards the Secret is immutable. Somebody who replaces it begins a new key: heads say which key has signed them, and the
// public keys of all are kept in the store.
type Keys struct {
	// Client reads and creates the Secret, live.
	Client    client.Client
	Namespace string
}

// Signer returns the key.
func (k *Keys) Signer(ctx context.Context) (custody.Signer, error) {
	var secret corev1.Secret
	err := k.Client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: KeySecret}, &secret)
	if apierrors.IsNotFound(err) {
		if err = k.create(ctx); err == nil {
			err = k.Client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: KeySecret}, &secret)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("finding the key that signs, Secret %s/%s: %w", k.Namespace, KeySecret, err)
	}
	raw := secret.Data[keyData]
	if len(raw) == 0 {
		return nil, fmt.Errorf("Secret %s/%s has no %s: put an Ed25519 private key (PKCS#8, PEM) there, or delete the Secret and the operator makes one", k.Namespace, KeySecret, keyData) //nolint:staticcheck // begins with the name of a kind
	}
	signer, err := custody.KeyFromPEM(raw)
	if err != nil {
		// The text could quote the key.
		return nil, errors.New("the key in Secret " + k.Namespace + "/" + KeySecret + " is not an Ed25519 private key (PKCS#8, PEM)")
	}
	return signer, nil
}

// create makes a key. When another operator was faster, its key is the one.
func (k *Keys) create(ctx context.Context) error {
	key, err := custody.GenerateKey()
	if err != nil {
		return err
	}
	raw, err := key.PEM()
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: KeySecret, Labels: map[string]string{"app.kubernetes.io/managed-by": "cofferdam"}},
		Immutable:  new(true),
		Data:       map[string][]byte{keyData: raw},
	}
	return client.IgnoreAlreadyExists(k.Client.Create(ctx, secret))
}
