package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/filelock"
)

// markerName is the lock file of a state folder. It also marks the folder as
// ours: nothing is ever deleted from a folder that does not have it.
const markerName = ".controlplane"

// state is the folder of one running cluster.
type state struct {
	dir  string
	lock *filelock.Lock
}

// openState takes the folder for this process and empties it of an earlier
// run: every start is a new cluster.
func openState(dir string) (*state, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve state folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read state folder: %w", err)
	}
	marker := filepath.Join(dir, markerName)
	if _, err := os.Stat(marker); err != nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is neither empty nor a state folder of this tool; choose another --dir", dir)
	}
	lock, err := filelock.TryAcquire(marker)
	if errors.Is(err, filelock.ErrHeld) {
		return nil, fmt.Errorf("another control plane is running in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	s := &state{dir: dir, lock: lock}
	return s, s.reset()
}

// reset removes everything but the marker and makes the folders anew.
func (s *state) reset() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read state folder: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == markerName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, entry.Name())); err != nil {
			return fmt.Errorf("empty state folder: %w", err)
		}
	}
	for _, dir := range []string{s.pki(""), s.log("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create state folder: %w", err)
		}
	}
	return nil
}

// close gives the folder back, and removes it when asked to.
func (s *state) close(remove bool) error {
	if remove {
		if err := os.RemoveAll(s.dir); err != nil {
			return fmt.Errorf("remove state folder: %w", err)
		}
	}
	return s.lock.Release()
}

func (s *state) pki(name string) string  { return filepath.Join(s.dir, "pki", name) }
func (s *state) log(name string) string  { return filepath.Join(s.dir, "logs", name) }
func (s *state) path(name string) string { return filepath.Join(s.dir, name) }
