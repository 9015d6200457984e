package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/filelock"
)

// Options say where the programs come from and where they go.
type Options struct {
	Bin     string    // folder that receives the programs
	Sources string    // the hack/build folder with the pinned modules
	Assets  string    // KUBEBUILDER_ASSETS; may be empty
	Log     io.Writer // progress
}

// artifact is one entry of the bin folder and the way to make it.
type artifact struct {
	name string
	want stamp
	verb string // "build", "link" or "copy", for progress lines
	make func(context.Context) error
}

// Ensure makes what is missing or outdated in the bin folder and returns a
// one-line summary. It may be interrupted and repeated at any time: a file
// appears under its name only when it is complete.
func Ensure(ctx context.Context, opts Options) (summary string, err error) {
	started := time.Now()
	if err := os.MkdirAll(filepath.Join(opts.Bin, ".controlplane"), 0o755); err != nil {
		return "", fmt.Errorf("create bin folder: %w", err)
	}
	artifacts, err := plan(ctx, opts)
	if err != nil {
		return "", err
	}
	if len(outdated(opts.Bin, artifacts)) == 0 {
		return fmt.Sprintf("%d artifacts up to date in %s", len(artifacts), opts.Bin), nil
	}

	lock, err := filelock.Acquire(ctx, filepath.Join(opts.Bin, ".controlplane", "lock"), func() {
		fmt.Fprintf(opts.Log, "another build is filling %s; waiting for it\n", opts.Bin)
	})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()

	// The build that held the lock may have made them meanwhile.
	todo := outdated(opts.Bin, artifacts)
	for i, a := range todo {
		if err := makeOne(ctx, opts, a, fmt.Sprintf("[%d/%d] %s %s", i+1, len(todo), a.name, a.want.Version), started); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d made, %d up to date in %s (%s)",
		len(todo), len(artifacts)-len(todo), opts.Bin, time.Since(started).Round(time.Second)), nil
}

func outdated(bin string, artifacts []artifact) []artifact {
	var todo []artifact
	for _, a := range artifacts {
		if !a.want.current(bin, a.name) {
			todo = append(todo, a)
		}
	}
	return todo
}

// makeOne makes an artifact and prints a line now and then, because a build can
// take minutes without a word of its own.
func makeOne(ctx context.Context, opts Options, a artifact, title string, started time.Time) error {
	begun := time.Now()
	fmt.Fprintf(opts.Log, "%s: %s\n", title, a.verb)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for ticker := time.NewTicker(10 * time.Second); ; {
			select {
			case <-done:
				ticker.Stop()
				return
			case <-ticker.C:
				fmt.Fprintf(opts.Log, "%s: still at it after %s (%s in all)\n", title,
					time.Since(begun).Round(time.Second), time.Since(started).Round(time.Second))
			}
		}
	}()

	// Without this, an interrupted rebuild would leave an old stamp that
	// vouches for a new file, or the reverse.
	if err := os.Remove(stampPath(opts.Bin, a.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stamp of %s: %w", a.name, err)
	}
	if err := a.make(ctx); err != nil {
		return fmt.Errorf("%s %s: %w", a.verb, a.name, err)
	}
	if err := a.want.save(opts.Bin, a.name); err != nil {
		return err
	}
	fmt.Fprintf(opts.Log, "%s: done in %s\n", title, time.Since(begun).Round(100*time.Millisecond))
	return nil
}
