// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Cache is a directory of build results, each named by what it was made from:
//
//	source/HEX/    kernel sources, unpacked
//	config/HEX     resolved configurations
//	objects/HEX/   compiled kernels, ready to be linked again
//	kernel/HEX/    finished kernels
//	lock/          one lock file an entry in the making
//	tmp/           work in progress
//
// An entry appears by rename when it is complete and never changes after that,
// so a killed build leaves at most something in tmp, which a later one clears.
// Several processes may use one cache.
type Cache struct {
	dir string
	use *flock.Flock // held shared while the cache is open
}

// OpenCache opens the cache at dir, which is made when missing. An empty dir
// means the user's cache folder (~/.cache/tenon).
func OpenCache(dir string) (*Cache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding the cache folder: %w", err)
		}
		dir = filepath.Join(base, "tenon")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"source", "config", "objects", "kernel", "lock", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("opening the cache: %w", err)
		}
	}
	c := &Cache{dir: dir, use: flock.New(filepath.Join(dir, "lock", "use"))}
	if err := c.enter(); err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	return c, nil
}

// enter clears tmp when nobody else uses the cache, then marks it as used.
func (c *Cache) enter() error {
	alone, err := c.use.TryLock()
	if err != nil {
		return err
	}
	if alone {
		entries, err := os.ReadDir(c.Path("tmp", ""))
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(c.Path("tmp", e.Name())))
		}
		if err = errors.Join(err, c.use.Unlock()); err != nil {
			return err
		}
	}
	return c.use.RLock()
}

// Close says that this process no longer uses the cache.
func (c *Cache) Close() error { return c.use.Close() }

// Path returns the path of an entry.
func (c *Cache) Path(kind, key string) string { return filepath.Join(c.dir, kind, key) }

// TempDir makes a folder for work in progress in the cache's file system. The
// caller removes it; when the process is killed, a later one does.
func (c *Cache) TempDir() (string, error) { return os.MkdirTemp(c.Path("tmp", ""), "work-") }

// has says whether the entry is there.
func (c *Cache) has(kind, key string) bool {
	_, err := os.Lstat(c.Path(kind, key))
	return err == nil
}

// lock lets one process make an entry while others wait for it.
func (c *Cache) lock(ctx context.Context, kind, key string) (unlock func(), err error) {
	l := flock.New(c.Path("lock", kind+"-"+key))
	if _, err := l.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for another build of %s %.12s: %w", kind, key, err)
	}
	return func() { _ = l.Close() }, nil
}

// commit puts a finished file or folder in its place. When another process was
// faster, its result stays: it was made from the same inputs.
func (c *Cache) commit(from, kind, key string) error {
	to := c.Path(kind, key)
	if err := syncFS(from); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil && err != unix.EEXIST {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// syncFS writes everything in the path's file system to disk.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &fs.PathError{Op: "sync", Path: path, Err: err}
	}
	return nil
}
