package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

// The entries of a credentials Secret for s3://.
const (
	credAccessKeyID     = "accessKeyID"
	credSecretAccessKey = "secretAccessKey"
	credSessionToken    = "sessionToken"
)

const (
	// s3CopyMax is the most that one CopyObject takes (S3 API Reference, CopyObject).
	s3CopyMax = 5 << 30
	// abortTimeout is how long an upload that has failed may take to tell the service so, when its own context has ended.
	abortTimeout = 10 * time.Second
)

// s3Bucket is what uploads need besides gocloud's bucket.
type s3Bucket struct {
	client       *s3.Client
	uploads      *transfermanager.Client
	name, prefix string
	sse          types.ServerSideEncryption
	kmsKey       string
}

// openS3 opens a bucket of S3 or of a service that speaks its language.
func openS3(ctx context.Context, at location, opts Options) (Backend, error) {
	name, err := at.bucket()
	if err != nil {
		return nil, err
	}
	cfg, err := s3Config(ctx, at, opts.Credentials)
	if err != nil {
		return nil, err
	}
	pathStyle := false
	if value := at.params.Get("use_path_style"); value != "" {
		if pathStyle, err = strconv.ParseBool(value); err != nil {
			return nil, errors.New("parameter \"use_path_style\": want true or false")
		}
	}
	s := &s3Bucket{name: name, prefix: at.prefix, sse: types.ServerSideEncryption(at.params.Get("ssetype")), kmsKey: at.params.Get("kmskeyid")}
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		if endpoint := at.params.Get(paramEndpoint); endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
	s.uploads = transfermanager.New(s.client, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = partSize, partSize, 1
		o.FailTimeout = abortTimeout
		o.RequestChecksumCalculation = cfg.RequestChecksumCalculation
	})
	inner, err := s3blob.OpenBucket(ctx, s.client, name, &s3blob.Options{
		EncryptionType: s.sse, KMSEncryptionID: s.kmsKey, RequestChecksumCalculation: cfg.RequestChecksumCalculation,
	})
	if err != nil {
		return nil, err
	}
	if at.prefix != "" {
		inner = blob.PrefixedBucket(inner, at.prefix)
	}
	return &bucket{
		Bucket: inner, url: at.String(), upload: s.upload, lockCopy: s3LockCopy, lockedUntil: s3LockedUntil, kind: s3Kind, copyMax: s3CopyMax, sweep: s.sweep,
	}, nil
}

func s3Config(ctx context.Context, at location, creds map[string][]byte) (aws.Config, error) {
	// What the client has to tell comes in its errors; its log would go past ours.
	options := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	region := at.params.Get("region")
	if region == "" && at.params.Get(paramEndpoint) != "" {
		// Services of others ignore it, but requests are signed for one.
		region = "us-east-1"
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	switch value := at.params.Get("request_checksum_calculation"); value {
	case "", "when_supported":
	case "when_required":
		// For services that do not know the checksums that are sent by default.
		options = append(options, config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired))
	default:
		return aws.Config{}, errors.New("parameter \"request_checksum_calculation\": want when_supported or when_required")
	}
	if creds != nil {
		id, secret, token := string(creds[credAccessKeyID]), string(creds[credSecretAccessKey]), string(creds[credSessionToken])
		if id == "" || secret == "" {
			return aws.Config{}, fmt.Errorf("the credentials Secret needs %s and %s", credAccessKeyID, credSecretAccessKey)
		}
		options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(id, secret, token)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("loading the configuration: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("parameter \"region\" is missing, and the environment names no region")
	}
	return cfg, nil
}

// upload writes with a transfer manager of its own: gocloud's keeps three times as much in memory for each upload, and leaves parts behind when the context ends.
func (s *s3Bucket) upload(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
	in := &transfermanager.UploadObjectInput{
		Bucket: aws.String(s.name), Key: aws.String(s.prefix + key), Body: until{ctx, r}, ContentType: aws.String(contentType),
		ServerSideEncryption: tmtypes.ServerSideEncryption(s.sse),
	}
	if s.kmsKey != "" {
		in.SSEKMSKeyID = aws.String(s.kmsKey)
	}
	if o.IfAbsent {
		in.IfNoneMatch = aws.String("*")
	}
	if !o.LockUntil.IsZero() {
		in.ObjectLockMode = tmtypes.ObjectLockMode(lockMode)
		in.ObjectLockRetainUntilDate = aws.Time(o.LockUntil)
		// S3 takes no lock without a checksum, whatever request_checksum_calculation says.
		in.ChecksumAlgorithm = tmtypes.ChecksumAlgorithmCrc32
	}
	_, err := s.uploads.UploadObject(ctx, in)
	return err
}

// lockMode is COMPLIANCE and not GOVERNANCE: a lock that an administrator of the account can lift proves nothing to those who trust neither the cluster nor us, and the credentials
// of an administrator are what an intruder looks for. The price is that nobody can take back a number of days that was too large.
const lockMode = types.ObjectLockModeCompliance

func s3LockCopy(as func(any) bool, lockUntil time.Time) error {
	var in *s3.CopyObjectInput
	if !as(&in) {
		return errors.New("the S3 client offers no way to lock a copy")
	}
	in.ObjectLockMode, in.ObjectLockRetainUntilDate = lockMode, aws.Time(lockUntil)
	return nil
}

// s3LockedUntil needs the permission s3:GetObjectRetention; without it the service does not tell.
func s3LockedUntil(a *blob.Attributes) time.Time {
	var out s3.HeadObjectOutput
	if !a.As(&out) || out.ObjectLockMode == "" {
		return time.Time{}
	}
	return aws.ToTime(out.ObjectLockRetainUntilDate)
}

// s3Kind reads the codes of the S3 API (S3 API Reference, Error responses).
func s3Kind(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case "NoSuchBucket":
			return errNoBucket
		case "NoSuchKey", "NotFound":
			return ErrNotFound
		case "PreconditionFailed", "ConditionalRequestConflict":
			// The second means that another request for the key was under way.
			return ErrExists
		case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
			return ErrDenied // With status 400.
		}
	}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return httpKind(response.HTTPStatusCode())
	}
	return nil
}

// sweep ends uploads in parts that were begun and never completed. They are in no list of objects, and cost what their parts weigh for ever.
func (s *s3Bucket) sweep(ctx context.Context, before time.Time) error {
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: aws.String(s.name), Prefix: aws.String(s.prefix + incoming)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("listing broken uploads: %w", err)
		}
		for _, u := range page.Uploads {
			if !aws.ToTime(u.Initiated).Before(before) {
				continue
			}
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: aws.String(s.name), Key: u.Key, UploadId: u.UploadId})
			if err != nil && !errors.Is(s3Kind(err), ErrNotFound) {
				return fmt.Errorf("ending a broken upload: %w", err)
			}
		}
	}
	return nil
}
