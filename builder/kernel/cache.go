// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/rename"
)

// Cache is a directory of build results, each named by what it was made from:
//
//	source/HEX/    kernel sources, unpacked, as they came and with drivers added
//	config/HEX     resolved configurations
//	objects/HEX/   compiled kernels of one source, HEX/ for each configuration
//	kernel/HEX/    finished kernels
//	lock/          one lock file an entry in the making
//	tmp/           work in progress
//
// An entry appears by rename when it is complete and never changes after that,
// so a killed build leaves at most something in tmp, or a folder work beside its objects.
// A later build clears both. Several processes of one user may use one cache. What others
// could have written is never used: it would become part of kernels.
type Cache struct {
	dir     string
	use     *os.File // locked shared while the cache is open
	waiting func(what string)
}

// ErrShared says that others than the user and root can write to the cache; test with errors.Is.
var ErrShared = errors.New("the cache is not private")

// CacheOptions say how OpenCache opens a cache.
type CacheOptions struct {
	Dir      string            // made when missing; empty: the user's cache folder (~/.cache/tenon)
	TrustDir bool              // use Dir even when others can write to it: what they write there can get into kernels
	Waiting  func(what string) // called about every ten seconds while another process holds what is needed, with who that is; may be nil
}

// OpenCache opens a cache. One to which others can write is refused with ErrShared, unless
// TrustDir is set; the error wraps ownership.ErrUnsafe, too.
func OpenCache(ctx context.Context, o CacheOptions) (*Cache, error) {
	dir := o.Dir
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
	if strings.ContainsAny(dir, " \t\n:'\"\\$#%") {
		return nil, fmt.Errorf("opening the cache: %q: the kernel's build cannot work in a folder with spaces, colons, quotes or one of $#%% in its path", dir)
	}
	c := &Cache{dir: dir, waiting: o.Waiting}
	if err := c.prepare(o.TrustDir); err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	if err := c.enter(ctx); err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	return c, nil
}

// kinds are the folders of a cache. Who can open a lock can hold it, so that those are for nobody else.
var kinds = map[string]fs.FileMode{"source": 0o755, "config": 0o755, "objects": 0o755, "kernel": 0o755, "lock": 0o700, "tmp": 0o755}

// prepare makes the folders. Unless the cache is trusted, it looks who else can write to them, before
// anything in them is read.
func (c *Cache) prepare(trusted bool) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if !trusted {
		if err := shared(ownership.Check(c.dir)); err != nil {
			return err
		}
	}
	for kind, mode := range kinds {
		dir := c.Path(kind, "")
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if !trusted {
			if err := checkEntries(dir); err != nil {
				return err
			}
		}
	}
	if trusted {
		return nil // a folder of somebody else has the mode that its owner wants
	}
	return closeLocks(c.Path("lock", ""))
}

// shared says of an error whether others can write to the cache.
func shared(err error) error {
	if errors.Is(err, ownership.ErrUnsafe) {
		return fmt.Errorf("%w: %w", ErrShared, err)
	}
	return err
}

// checkEntries checks a folder of the cache and what is in it.
func checkEntries(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	err = ownership.CheckEntry(dir)
	for _, e := range entries {
		if err == nil {
			err = ownership.CheckEntry(filepath.Join(dir, e.Name()))
		}
		if errors.Is(err, fs.ErrNotExist) { // another build removes what it no longer needs
			err = nil
		}
	}
	return shared(err)
}

// closeLocks keeps others from opening locks: an older version made them for all to read.
func closeLocks(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() == kinds["lock"] {
		return err
	}
	return os.Chmod(dir, kinds["lock"])
}

// enter clears what killed builds left when nobody else uses the cache, then marks it as used. What
// cannot be cleared harms nobody.
func (c *Cache) enter(ctx context.Context) (err error) {
	if c.use, err = openLock(c.Path("lock", "use")); err != nil {
		return err
	}
	alone, err := flock.Try(c.use)
	if alone {
		_ = c.clear()
	}
	if err == nil {
		err = c.wait(ctx, c.use, flock.TryShare)
	}
	if err != nil {
		return errors.Join(err, c.use.Close())
	}
	return nil
}

// patience is after which time, and how often, it is said who holds a lock.
const (
	patience    = time.Second
	sayInterval = 10 * time.Second
)

// wait tries until it has the lock, or ctx ends.
func (c *Cache) wait(ctx context.Context, f *os.File, try func(*os.File) (bool, error)) error {
	for next := time.Now().Add(patience); ; {
		if locked, err := try(f); locked || err != nil {
			return err
		}
		if time.Now().After(next) && c.waiting != nil {
			c.waiting(fmt.Sprintf("%s, which holds %s", flock.Holder(f), f.Name()))
			next = time.Now().Add(sayInterval)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s, which holds %s: %w", flock.Holder(f), f.Name(), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// clear removes what killed builds left. What a killed build started may still write in a
// folder work: then its lock is held, and a later build removes the folder.
func (c *Cache) clear() error {
	root := os.DirFS(c.dir)
	left, err := fs.Glob(root, "tmp/*")
	if err != nil {
		return err
	}
	works, err := fs.Glob(root, "objects/*/work")
	if err != nil {
		return err
	}
	for _, work := range works {
		lock, err := openLock(c.Path("lock", "objects-"+path.Base(path.Dir(work))))
		if err != nil {
			return err
		}
		defer lock.Close()
		if free, err := flock.Try(lock); err != nil {
			return err
		} else if free {
			left = append(left, work)
		}
	}
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.dir, name)))
	}
	return err
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

// lock lets one process make an entry while others wait for it. The lock is
// held until the file is closed, also by processes that inherit it: the make of
// a killed build still writes for a while.
func (c *Cache) lock(ctx context.Context, kind, key string) (*os.File, error) {
	f, err := openLock(c.Path("lock", kind+"-"+key))
	if err != nil {
		return nil, err
	}
	if err := c.wait(ctx, f, flock.Try); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

// commit puts a finished file or folder in its place. When another process was
// faster, its result stays: it was made from the same inputs.
func (c *Cache) commit(from, kind, key string) error {
	to := c.Path(kind, key)
	if err := syncFS(from); err != nil {
		return err
	}
	if err := rename.NoReplace(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
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
