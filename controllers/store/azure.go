package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azblobblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"
)

// The entries of a credentials Secret for azblob://: the name of the account, and one of the other two.
const (
	credStorageAccount = "storageAccount"
	credStorageKey     = "storageKey"
	credSASToken       = "sasToken"
)

func openAzure(ctx context.Context, at location, opts Options) (Backend, error) {
	name, err := at.bucket()
	if err != nil {
		return nil, err
	}
	client, err := azureClient(at, name, opts.Credentials)
	if err != nil {
		return nil, err
	}
	inner, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, err
	}
	if at.prefix != "" {
		inner = blob.PrefixedBucket(inner, at.prefix)
	}
	return &bucket{
		Bucket: inner, url: at.String(), upload: azureUpload(client, at.prefix), kind: azureKind,
		noLock: "the Azure client cannot lock an object in the request that writes it; set a time-based retention policy on the container instead",
		// Copies always go through us: gocloud waits for those of the service without regard to the context, and panics if asking for their state fails once.
		copyMax: -1,
	}, nil
}

// azureUpload writes without gocloud, whose writer panics when a write fails.
func azureUpload(client *container.Client, prefix string) func(context.Context, string, io.Reader, WriteOptions) error {
	return func(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
		options := &blockblob.UploadStreamOptions{
			BlockSize: partSize, Concurrency: 1, HTTPHeaders: &azblobblob.HTTPHeaders{BlobContentType: new(contentType)},
		}
		if o.IfAbsent {
			options.AccessConditions = &azblobblob.AccessConditions{
				ModifiedAccessConditions: &azblobblob.ModifiedAccessConditions{IfNoneMatch: new(azcore.ETagAny)},
			}
		}
		_, err := client.NewBlockBlobClient(prefix+key).UploadStream(ctx, until{ctx, r}, options)
		return err
	}
}

func azureClient(at location, name string, creds map[string][]byte) (*container.Client, error) {
	account := strings.TrimSpace(string(creds[credStorageAccount]))
	if account == "" {
		account = at.params.Get("storage_account")
	}
	options := &azureblob.ServiceURLOptions{AccountName: account, StorageDomain: at.params.Get("domain"), Protocol: at.params.Get("protocol")}
	if creds == nil {
		return azureFromEnvironment(options, name)
	}
	if account == "" {
		return nil, fmt.Errorf("the credentials Secret needs %s", credStorageAccount)
	}
	key, token := strings.TrimSpace(string(creds[credStorageKey])), strings.TrimPrefix(strings.TrimSpace(string(creds[credSASToken])), "?")
	if (key == "") == (token == "") {
		return nil, fmt.Errorf("the credentials Secret needs one of %s and %s", credStorageKey, credSASToken)
	}
	options.SASToken = token
	address, err := azureAddress(options, name)
	if err != nil {
		return nil, err
	}
	if token != "" {
		return container.NewClientWithNoCredential(address, nil)
	}
	shared, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		return nil, fmt.Errorf("%s is not a key of a storage account", credStorageKey)
	}
	return container.NewClientWithSharedKeyCredential(address, shared, nil)
}

// azureFromEnvironment uses what the environment offers: workload identity, a managed identity, or AZURE_STORAGE_… variables.
func azureFromEnvironment(options *azureblob.ServiceURLOptions, name string) (*container.Client, error) {
	environment := azureblob.NewDefaultServiceURLOptions()
	if options.AccountName == "" {
		options.AccountName = environment.AccountName
	}
	// A token of the environment is not sent to an address that only the URL names.
	if options.AccountName == environment.AccountName && options.StorageDomain == "" && options.Protocol == "" {
		options.SASToken = environment.SASToken
		options.StorageDomain, options.Protocol = environment.StorageDomain, environment.Protocol
	}
	if options.AccountName == "" {
		return nil, errors.New("parameter \"storage_account\" is missing, and the environment names none")
	}
	service, err := azureblob.NewServiceURL(options)
	if err != nil {
		return nil, errors.New("the parameters make no address of a storage account")
	}
	client, err := azureblob.NewDefaultClient(service, azureblob.ContainerName(name))
	if err != nil {
		return nil, fmt.Errorf("%w: the environment has no identity for Azure: %w", ErrDenied, err)
	}
	return client, nil
}

func azureAddress(options *azureblob.ServiceURLOptions, name string) (string, error) {
	service, err := azureblob.NewServiceURL(options)
	if err == nil {
		var address string
		if address, err = url.JoinPath(string(service), name); err == nil {
			return address, nil
		}
	}
	// The error could repeat the token.
	return "", errors.New("the parameters make no address of a storage account")
}

func azureKind(err error) error {
	if bloberror.HasCode(err, bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted) {
		return errNoBucket
	}
	if bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet) {
		return ErrExists
	}
	if response, ok := errors.AsType[*azcore.ResponseError](err); ok {
		if response.StatusCode == 404 {
			return ErrNotFound
		}
		return httpKind(response.StatusCode)
	}
	return nil
}
