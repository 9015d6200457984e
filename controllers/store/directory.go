package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// directory keeps objects as files. A file gets its name by a hard link after its content has reached the disk, which makes two things true that a rename or gocloud's
// fileblob does not give: of several processes that create a key exactly one succeeds, and what has a name is whole, even after a loss of power.
type directory struct {
	// root keeps every access below the directory, also where somebody has put symbolic links into it.
	root *os.Root
	url  string
	// sync makes a file or a directory durable. Tests replace it.
	sync func(*os.File) error
}

func openDirectory(_ context.Context, at location, _ Options) (Backend, error) {
	if at.host != "" && at.host != "localhost" || !strings.HasPrefix(at.path, "/") {
		return nil, errors.New("want file:///DIRECTORY, an absolute path")
	}
	dir := filepath.Join(filepath.FromSlash(at.path), filepath.FromSlash(at.prefix))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, markFile(fmt.Errorf("making the directory: %w", err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, markFile(fmt.Errorf("opening the directory: %w", err))
	}
	d := &directory{root: root, url: at.String(), sync: (*os.File).Sync}
	// The directory's own name has to last as well.
	parent, err := os.Open(filepath.Dir(dir))
	if err == nil {
		err = errors.Join(d.sync(parent), parent.Close())
	}
	// A parent that may not be read was not made here.
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, errors.Join(fmt.Errorf("syncing the directory's parent: %w", err), root.Close())
	}
	return d, nil
}

func (d *directory) Write(ctx context.Context, key string, r io.Reader, o WriteOptions) error {
	if o.IfAbsent {
		if _, err := d.root.Lstat(key); err == nil {
			return ErrExists
		}
	}
	// Nothing refers to what is incoming, so it needs no second name to be whole under.
	if isIncoming(key) && !o.IfAbsent {
		return markFile(d.fill(ctx, key, r))
	}
	temp := newIncoming()
	if err := d.fill(ctx, temp, r); err != nil {
		return markFile(err)
	}
	defer d.forget(temp)
	if o.IfAbsent {
		return markFile(d.link(temp, key))
	}
	return markFile(d.replace(temp, key))
}

// fill writes a new file and makes it durable, or leaves none.
func (d *directory) fill(ctx context.Context, name string, r io.Reader) (err error) {
	if err := d.mkdir(path.Dir(name)); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.forget(name)
		}
	}()
	if _, err := io.Copy(f, until{ctx, r}); err != nil {
		return errors.Join(err, f.Close())
	}
	// Nobody has a reason to write to it again.
	if err := f.Chmod(0o400); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(d.sync(f), f.Close())
}

// forget removes a name of the store's own. Where that fails Sweep will find it.
func (d *directory) forget(name string) { _ = d.root.Remove(name) }

// mkdir makes a directory and those above it, durably.
func (d *directory) mkdir(dir string) error {
	if _, err := d.root.Stat(dir); err == nil {
		return nil
	}
	parent := path.Dir(dir)
	if err := d.mkdir(parent); err != nil {
		return err
	}
	if err := d.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(parent)
}

func (d *directory) syncDir(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.sync(f), f.Close())
}

// link gives a complete file its name, unless the name is taken.
func (d *directory) link(from, to string) error {
	if err := d.mkdir(path.Dir(to)); err != nil {
		return err
	}
	if err := d.root.Link(from, to); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return ErrExists
		}
		return err
	}
	return d.syncDir(path.Dir(to))
}

// replace gives a complete file a name, whoever has it.
func (d *directory) replace(from, to string) error {
	if err := d.mkdir(path.Dir(to)); err != nil {
		return err
	}
	if err := d.root.Rename(from, to); err != nil {
		return err
	}
	return d.syncDir(path.Dir(to))
}

func (d *directory) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := d.root.Open(key)
	if err != nil {
		return nil, markAbsent(err)
	}
	return untilCloser{until{ctx, f}, f}, nil
}

func (d *directory) Stat(ctx context.Context, key string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	info, err := d.root.Stat(key)
	if err != nil {
		return Info{}, markAbsent(err)
	}
	if !info.Mode().IsRegular() {
		return Info{}, fmt.Errorf("%w: not a file", ErrNotFound)
	}
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Copy shares the bytes: both names lead to one file, which nobody writes to.
func (d *directory) Copy(ctx context.Context, dst, src string, _ time.Time) error {
	if _, err := d.Stat(ctx, src); err != nil {
		return err
	}
	err := d.link(src, dst)
	if !errors.Is(err, ErrExists) {
		return markFile(err)
	}
	temp := newIncoming()
	if err := d.link(src, temp); err != nil {
		return markFile(err)
	}
	// A rename between two names of one file leaves both.
	defer d.forget(temp)
	return markFile(d.replace(temp, dst))
}

func (d *directory) List(ctx context.Context, prefix string) ([]Info, error) {
	var infos []Info
	err := fs.WalkDir(d.root.FS(), path.Dir(prefix+"x"), func(name string, entry fs.DirEntry, err error) error {
		if ctxErr := ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // Removed meanwhile, or never there.
			}
			return err
		}
		if name != "." && checkKey(name) != nil {
			// Not ours: lost+found of a file system, .nfs… of another.
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		infos = append(infos, Info{Key: name, Size: info.Size(), Modified: info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, markFile(err)
	}
	return infos, nil
}

func (d *directory) Delete(ctx context.Context, key string) error {
	if _, err := d.Stat(ctx, key); err != nil {
		return err
	}
	if err := d.root.Remove(key); err != nil {
		return markAbsent(err)
	}
	return markFile(d.syncDir(path.Dir(key)))
}

func (d *directory) Locks() (bool, string) {
	return false, "a directory cannot be locked: whoever may write to the volume can remove its files; use an object store where that matters"
}

func (d *directory) URL() string  { return d.url }
func (d *directory) Close() error { return d.root.Close() }

// markFile says which errors of the file system are refusals.
func markFile(err error) error {
	if err != nil && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

// markAbsent says besides which mean that the object is not there. Where a write meets a missing directory that is another matter.
func markAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return markFile(err)
}
