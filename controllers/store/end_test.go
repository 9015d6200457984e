package store_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"cofferdam.dev/cofferdam/controllers/store"
)

// errHungUp is what net/http says when a server hangs up instead of answering.
var errHungUp error = &url.Error{Op: "Get", URL: "https://store.example", Err: io.EOF}

// hangingUp is a service that hangs up in the middle of a listing and of an object.
type hangingUp struct{ driver.Bucket }

func (hangingUp) ListPaged(_ context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	if len(o.PageToken) > 0 {
		return nil, errHungUp
	}
	return &driver.ListPage{Objects: []*driver.ListObject{{Key: "a"}}, NextPageToken: []byte("next")}, nil
}

func (hangingUp) NewRangeReader(context.Context, string, int64, int64, *driver.ReaderOptions) (driver.Reader, error) {
	return hungUp{io.NopCloser(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errHungUp)))}, nil
}

func (hangingUp) ErrorCode(error) gcerrors.ErrorCode { return gcerrors.Unknown }

func (hangingUp) Close() error { return nil }

type hungUp struct{ io.ReadCloser }

func (hungUp) Attributes() *driver.ReaderAttributes { return &driver.ReaderAttributes{Size: 8} }

func (hungUp) As(any) bool { return false }

// TestHangingUpIsNoEnd: the error of a connection that broke off wraps io.EOF, and must not pass for the end.
func TestHangingUpIsNoEnd(t *testing.T) {
	s, err := store.New(store.NewBucket(blob.NewBucket(hangingUp{})), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := s.Keys(t.Context(), ""); err == nil {
		t.Errorf("half a listing passes for all of it: %v", keys)
	}
	r, err := s.OpenReader(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if failure, ok := errors.AsType[*store.Error](err); !ok || failure.Key != "a" {
		t.Errorf("read %q, %v; want an error that names the object", got, err)
	}
	if err := errors.Join(r.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}
