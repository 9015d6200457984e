//go:build linux || darwin

// Package filelock keeps two processes from working on the same folder.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrHeld is returned by TryAcquire when another process holds the lock.
var ErrHeld = errors.New("lock is held by another process")

// Lock is a held lock. The kernel drops it when the process ends, however it
// ends, so a lock file that is left behind blocks nobody.
type Lock struct {
	file *os.File
}

// TryAcquire takes the lock at path, or returns ErrHeld at once.
func TryAcquire(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrHeld
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{file: file}, nil
}

// Acquire takes the lock at path and waits while another process holds it;
// waiting is called once when it has to.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	for first := true; ; first = false {
		lock, err := TryAcquire(path)
		if !errors.Is(err, ErrHeld) {
			return lock, err
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Release gives the lock back.
func (l *Lock) Release() error {
	return l.file.Close()
}
