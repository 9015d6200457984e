package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

const (
	// partSize is what an upload sends at once, in bytes, and so what it holds in memory a few times over. It is the least that S3 takes.
	partSize = 5 << 20
	// smallestPart is what the parts of GCS are multiples of.
	smallestPart = 256 << 10
	// contentType is that of all objects. Nothing should open evidence by itself.
	contentType = "application/octet-stream"
)

// bucket keeps objects in a service that gocloud speaks to. What the services do differently is in the functions.
type bucket struct {
	*blob.Bucket
	url string
	// upload replaces the way of gocloud to write, where that is not good enough.
	upload func(ctx context.Context, key string, r io.Reader, o WriteOptions) error
	// lockWrite and lockCopy put a retention into a request before it is sent, and lockedUntil finds it in an answer; nil where that cannot be done.
	lockWrite   func(as func(any) bool, lockUntil time.Time) error
	lockCopy    func(as func(any) bool, lockUntil time.Time) error
	lockedUntil func(*blob.Attributes) time.Time
	// noLock says why they are nil.
	noLock string
	// kind says what a service means by an error, where gocloud does not: ErrExists, ErrDenied, another, or nil for "ask gocloud".
	kind func(error) error
	// copyMax is the size up to which the service copies by itself, in bytes.
	copyMax int64
	// sweep removes what the service keeps of broken uploads; nil where it does that itself.
	sweep func(ctx context.Context, before time.Time) error
}

func (b *bucket) Write(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
	upload := b.upload
	if upload == nil {
		upload = b.write
	}
	err := b.mark(ctx, upload(ctx, key, r, o))
	if err == nil || !o.IfAbsent || errors.Is(err, ErrExists) {
		return notOfObject(err)
	}
	if gcerrors.Code(err) == gcerrors.FailedPrecondition || gcerrors.Code(err) == gcerrors.AlreadyExists {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return notOfObject(err)
}

// notOfObject says that "not found" cannot mean an object where none was asked for: it must be the bucket.
func notOfObject(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %s", errNoBucket, err.Error())
	}
	return err
}

func (b *bucket) write(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := &blob.WriterOptions{ContentType: contentType, IfNotExist: o.IfAbsent, BufferSize: partSize, MaxConcurrency: 1}
	if sized, ok := r.(interface{ Len() int }); ok {
		options.BufferSize = min(partSize, (sized.Len()/smallestPart+1)*smallestPart)
	}
	if b.lockWrite != nil && !o.LockUntil.IsZero() {
		options.BeforeWrite = func(as func(any) bool) error { return b.lockWrite(as, o.LockUntil) }
	}
	w, err := b.NewWriter(ctx, key, options)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, until{ctx, r}); err != nil {
		// Close would store what has been written so far, were it not for this.
		cancel()
		return errors.Join(err, ignoreCanceled(w.Close()))
	}
	return w.Close()
}

// ignoreCanceled leaves out what is only the echo of a cancellation of our own.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) || gcerrors.Code(err) == gcerrors.Canceled {
		return nil
	}
	return err
}

func (b *bucket) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := b.NewReader(ctx, key, nil)
	if err != nil {
		return nil, b.mark(ctx, err)
	}
	return &bucketReader{b: b, ctx: ctx, r: r}, nil
}

// bucketReader says of what kind the errors are that come while reading.
type bucketReader struct {
	b   *bucket
	ctx context.Context
	r   *blob.Reader
}

func (r *bucketReader) Read(p []byte) (int, error) {
	n, err := until{r.ctx, r.r}.Read(p)
	if err != nil && !isEnd(err) {
		err = r.b.mark(r.ctx, err)
	}
	return n, err
}

func (r *bucketReader) Close() error { return r.r.Close() }

func (b *bucket) Stat(ctx context.Context, key string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	a, err := b.Attributes(ctx, key)
	if err != nil {
		return Info{}, b.mark(ctx, err)
	}
	info := Info{Key: key, Size: a.Size, Modified: a.ModTime}
	if b.lockedUntil != nil {
		info.LockedUntil = b.lockedUntil(a)
	}
	return info, nil
}

func (b *bucket) Copy(ctx context.Context, dst, src string, lockUntil time.Time) error {
	info, err := b.Stat(ctx, src)
	if err != nil {
		return err
	}
	if info.Size > b.copyMax {
		return b.copyThrough(ctx, dst, src, lockUntil)
	}
	options := &blob.CopyOptions{}
	if b.lockCopy != nil && !lockUntil.IsZero() {
		options.BeforeCopy = func(as func(any) bool) error { return b.lockCopy(as, lockUntil) }
	}
	return b.mark(ctx, b.Bucket.Copy(ctx, dst, src, options))
}

// copyThrough copies what the service does not copy by itself, through us.
func (b *bucket) copyThrough(ctx context.Context, dst, src string, lockUntil time.Time) error {
	r, err := b.Open(ctx, src)
	if err != nil {
		return err
	}
	return errors.Join(b.Write(ctx, dst, r, WriteOptions{LockUntil: lockUntil}), r.Close())
}

func (b *bucket) List(ctx context.Context, prefix string) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var infos []Info
	list := b.Bucket.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := list.Next(ctx)
		if isEnd(err) {
			return infos, nil
		}
		if err != nil {
			return nil, notOfObject(b.mark(ctx, err))
		}
		infos = append(infos, Info{Key: o.Key, Size: o.Size, Modified: o.ModTime})
	}
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.mark(ctx, b.Bucket.Delete(ctx, key))
}

func (b *bucket) Sweep(ctx context.Context, before time.Time) error {
	if b.sweep == nil {
		return nil
	}
	return b.mark(ctx, b.sweep(ctx, before))
}

func (b *bucket) Locks() (bool, string) { return b.noLock == "", b.noLock }
func (b *bucket) URL() string           { return b.url }

// mark says of what kind an error is. What the service means comes first: gocloud takes some refusals for absence, and absence of evidence is a grave thing to report.
func (b *bucket) mark(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return fmt.Errorf("%w: %w", ended, err)
	}
	kind := error(nil)
	if b.kind != nil {
		kind = b.kind(err)
	}
	if kind == nil {
		switch gcerrors.Code(err) {
		case gcerrors.NotFound:
			kind = ErrNotFound
		case gcerrors.PermissionDenied:
			kind = ErrDenied
		default:
			return err
		}
	}
	if errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// errNoBucket is not ErrNotFound: it says nothing about an object.
var errNoBucket = errors.New("no such bucket or container")

// httpKind says what a status means, whatever the service calls it.
func httpKind(status int) error {
	switch status {
	case 401, 403:
		return ErrDenied
	case 412:
		return ErrExists
	default:
		return nil
	}
}
