package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
)

// credServiceAccount is the entry of a credentials Secret for gs://: the key file of a service account.
const credServiceAccount = "serviceAccount.json"

// gcsRetention makes a retention final, like COMPLIANCE in S3; see lockMode.
const gcsRetention = "Locked"

func openGCS(ctx context.Context, at location, opts Options) (Backend, error) {
	name, err := at.bucket()
	if err != nil {
		return nil, err
	}
	client, err := gcsClient(ctx, opts.Credentials)
	if err != nil {
		return nil, err
	}
	inner, err := gcsblob.OpenBucket(ctx, client, name, nil)
	if err != nil {
		return nil, err
	}
	if at.prefix != "" {
		inner = blob.PrefixedBucket(inner, at.prefix)
	}
	return &bucket{
		Bucket: inner, url: at.String(), lockWrite: gcsLockWrite, lockCopy: gcsLockCopy, lockedUntil: gcsLockedUntil, kind: gcsKind,
		// A rewrite takes any size.
		copyMax: math.MaxInt64,
	}, nil
}

func gcsClient(ctx context.Context, creds map[string][]byte) (*gcp.HTTPClient, error) {
	// Tokens are fetched long after Open has returned.
	ctx = context.WithoutCancel(ctx)
	if creds != nil {
		file := creds[credServiceAccount]
		if len(file) == 0 {
			return nil, fmt.Errorf("the credentials Secret needs %s", credServiceAccount)
		}
		// Of this type only: files of other types name programs to run and addresses to ask.
		c, err := google.CredentialsFromJSONWithType(ctx, file, google.ServiceAccount, storage.ScopeReadWrite)
		if err != nil {
			return nil, fmt.Errorf("%s is not the key file of a service account", credServiceAccount)
		}
		return gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(c))
	}
	if os.Getenv("STORAGE_EMULATOR_HOST") != "" {
		return gcp.NewAnonymousHTTPClient(gcp.DefaultTransport()), nil
	}
	c, err := gcp.DefaultCredentials(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: the environment has no identity for Google Cloud: %w", ErrDenied, err)
	}
	return gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(c))
}

// gcsLockWrite needs a bucket that was made with object retention enabled; others refuse the write.
func gcsLockWrite(as func(any) bool, lockUntil time.Time) error {
	var w *storage.Writer
	if !as(&w) {
		return errors.New("the GCS client offers no way to lock an object")
	}
	w.Retention = &storage.ObjectRetention{Mode: gcsRetention, RetainUntil: lockUntil}
	return nil
}

func gcsLockCopy(as func(any) bool, lockUntil time.Time) error {
	var c *storage.Copier
	if !as(&c) {
		return errors.New("the GCS client offers no way to lock a copy")
	}
	c.ContentType = contentType
	c.Retention = &storage.ObjectRetention{Mode: gcsRetention, RetainUntil: lockUntil}
	return nil
}

func gcsLockedUntil(a *blob.Attributes) time.Time {
	var o storage.ObjectAttrs
	if !a.As(&o) || o.Retention == nil {
		return time.Time{}
	}
	return o.Retention.RetainUntil
}

// gcsKind comes before gocloud, which reports a refusal as absence and does not look into wrapped errors.
func gcsKind(err error) error {
	if errors.Is(err, storage.ErrBucketNotExist) {
		return errNoBucket
	}
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		return httpKind(api.Code)
	}
	return nil
}
