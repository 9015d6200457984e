package evidence

import (
	"archive/zip"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/controllers/store"
)

// errAbandoned is what the store is told of a zip that is not to be kept.
var errAbandoned = errors.New("what was read is not kept")

// logArchive is a zip that goes into the store as it is written. Nothing of it is in the store unless finish has returned without an error.
type logArchive struct {
	put func(io.Reader) (store.Object, error)
	// failed is called when the store has ended before the zip has.
	failed func()

	zip    *zip.Writer
	pipe   *io.PipeWriter
	result chan putResult
	over   bool
}

// compressors are used again: each has more than a megabyte, which to get and to clear for every log takes longer than to compress a short one.
var compressors sync.Pool

// compressor is one that is given back when its member ends. One of a member that does not end is left to the garbage collector.
type compressor struct{ *flate.Writer }

func newCompressor(w io.Writer) (io.WriteCloser, error) {
	if used, ok := compressors.Get().(*flate.Writer); ok {
		used.Reset(w)
		return &compressor{used}, nil
	}
	fresh, err := flate.NewWriter(w, flate.BestSpeed)
	return &compressor{fresh}, err
}

// Close ends the member. The zip writer calls it once.
func (c *compressor) Close() error {
	err := c.Writer.Close()
	c.Reset(io.Discard) // so that nothing of the zip is held on to
	compressors.Put(c.Writer)
	c.Writer = nil
	return err
}

type putResult struct {
	object store.Object
	err    error
}

// begun reports whether there is a zip: it begins with its first member.
func (a *logArchive) begun() bool { return a.zip != nil }

// create begins the next member, which ends when the one after it begins.
func (a *logArchive) create(ctx context.Context, name string, at time.Time) (io.Writer, error) {
	if !a.begun() {
		a.begin(ctx)
	}
	return a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at.UTC()})
}

func (a *logArchive) begin(ctx context.Context) {
	out, in := io.Pipe()
	a.pipe, a.result, a.zip = in, make(chan putResult, 1), zip.NewWriter(in)
	// The store is asked to keep up with what kubelets send; how small it gets matters less.
	a.zip.RegisterCompressor(zip.Deflate, newCompressor)
	go func() {
		object, err := a.store(ctx, out)
		if err != nil {
			_ = out.CloseWithError(err) // it never fails
			a.failed()
		}
		a.result <- putResult{object: object, err: err}
	}()
}

func (a *logArchive) store(ctx context.Context, out io.Reader) (object store.Object, err error) {
	defer func() {
		if cause := panicked(ctx, recover()); cause != nil {
			object, err = store.Object{}, cause
		}
	}()
	if object, err = a.put(out); err != nil {
		return store.Object{}, err
	}
	if n, err := io.Copy(io.Discard, out); err != nil || n > 0 {
		return store.Object{}, errors.Join(errors.New("the store has left out the end"), err)
	}
	return object, nil
}

// finish writes the index, closes the zip and waits for the store to have it. An error is the store's.
func (a *logArchive) finish(ctx context.Context, index *Index) (store.Object, error) {
	err := a.conclude(ctx, index)
	a.over = true
	_ = a.pipe.CloseWithError(err) // it never fails; without an error it is the end of the zip
	result := <-a.result
	if result.err != nil {
		return store.Object{}, result.err // which is why the zip could not be written, if it could not
	}
	return result.object, err
}

func (a *logArchive) conclude(ctx context.Context, index *Index) error {
	member, err := a.create(ctx, indexMember, index.TakenAt.Time)
	if err != nil {
		return fmt.Errorf("writing the index of logs: %w", err)
	}
	encoder := json.NewEncoder(member)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(index); err != nil {
		return fmt.Errorf("writing the index of logs: %w", err)
	}
	if err := a.zip.Close(); err != nil {
		return fmt.Errorf("writing the end of the zip of logs: %w", err)
	}
	return nil
}

// abandon sees to it that nothing is kept, and returns what the store says to it. After finish it does nothing.
func (a *logArchive) abandon() error {
	if !a.begun() || a.over {
		return nil
	}
	a.over = true
	_ = a.pipe.CloseWithError(errAbandoned) // it never fails
	return (<-a.result).err
}
