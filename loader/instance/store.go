// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/flock"
)

// DefaultDir is where a host keeps what it knows of its instances: in memory, as
// nothing of it outlives a boot.
const DefaultDir = "/run/mortise"

// ErrNotFound says that there is no instance of a name.
var ErrNotFound = errors.New("no such instance")

// ErrExists says that the name is taken.
var ErrExists = errors.New("exists already")

// ErrUnsafe says that a directory or file is a link or of another kind, belongs to
// another user, or can be written by others.
var ErrUnsafe = errors.New("unsafe")

// Store is the directory Dir: of each instance a directory of its name, with its
// record in it. It is made when it is missing, with mode 0700, in a directory that
// exists. What others own, or can write to, is refused, and so are links.
//
// Records are replaced by rename after fsync: when the disk is full, or the process or
// the host dies, the old record stays. What a killed process leaves goes away with
// the instance or at the next Lock.
type Store struct{ Dir string }

const (
	recordFile = "record.json"
	scratch    = ".tmp" // what comes or goes; no instance has that name
	hidden     = 64     // names that are no instances, at most
)

// Path returns an instance's directory. Sockets, logs and what else belongs to the
// instance may lie in it; Remove removes all. Names that begin with "record.json" or
// ".record.json" are this package's.
func (s *Store) Path(name string) string { return filepath.Join(s.Dir, name) }

// Get returns the record of an instance. It waits for nobody.
func (s *Store) Get(name string) (*Record, error) {
	for {
		dir, err := s.Open(name)
		if err != nil {
			return nil, err
		}
		r, err := read(dir.Name())
		if err == nil && r.Name != name {
			err = fmt.Errorf("%w: it is of %q", ErrRecord, r.Name)
		}
		there := leadsTo(dir)
		dir.Close()
		if err == nil {
			return r, nil
		}
		if there {
			return nil, named(name, err)
		}
		// It was removed, or removed and created, meanwhile.
	}
}

// List returns the records of all instances, by name. Those that cannot be read do
// not hide the others: the error joins one error for each.
func (s *Store) List() ([]*Record, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	var out []*Record
	var errs []error
	for _, name := range names {
		r, err := s.Get(name)
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, ErrNotFound): // somebody removed it meanwhile
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Update changes the record of an instance, while nobody else does: change gets it and
// may alter all but name and ID. When change returns an error, that is Update's, and
// nothing is written. Update returns the new record. It waits for others until ctx ends, and
// for 5 seconds at most.
// change must not take a lock.
func (s *Store) Update(ctx context.Context, name string, change func(*Record) error) (*Record, error) {
	var r *Record
	err := s.locked(ctx, name, func(dir *os.File) (err error) {
		if r, err = s.Get(name); err != nil {
			return err
		}
		id := r.ID
		if err := change(r); err != nil {
			return err
		}
		if r.Name != name || r.ID != id {
			return named(name, errors.New("its name and ID do not change"))
		}
		return named(name, r.write(dir))
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Lock is the lock of a Store's directory.
type Lock struct {
	store *Store
	dir   *os.File
}

// Lock waits until nobody else has the directory's lock, or ctx ends. Resources are
// planned, applied and given back under it, so that no two instances get the same.
// It ends with Unlock, or with the process.
func (s *Store) Lock(ctx context.Context) (*Lock, error) {
	if err := os.Mkdir(s.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	dir, err := lock(ctx, func() (*os.File, error) { return openDir(s.Dir) })
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.Path(scratch)); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &Lock{s, dir}, nil
}

// Holder names the process that has the directory's lock, as flock.Holder does.
func (s *Store) Holder() string {
	dir, err := openDir(s.Dir)
	if err != nil {
		return "somebody"
	}
	defer dir.Close()
	return flock.Holder(dir)
}

// Unlock gives the lock back.
func (l *Lock) Unlock() { l.dir.Close() } // closing what was only locked cannot fail

// Create claims the name of a new instance. Of r, it fills in Version, ID, State,
// BootID and Created. Who takes something for it notes that, and itself as Supervisor, by
// Update before. There is never an instance without a whole record.
func (l *Lock) Create(r *Record, now time.Time) error {
	if err := CheckName(r.Name); err != nil {
		return err
	}
	return named(r.Name, l.create(r, now))
}

func (l *Lock) create(r *Record, now time.Time) (err error) {
	path, tmp := l.store.Path(r.Name), l.store.Path(scratch)
	if _, err := os.Lstat(path); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id) // never fails
	r.Version, r.ID, r.State, r.Created = Version, hex.EncodeToString(id), Created, now.UTC()
	if r.BootID, err = bootID(); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	dir, err := openDir(tmp)
	if err == nil {
		err = errors.Join(r.write(dir), dir.Close())
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return l.dir.Sync()
}

// Remove removes an instance and all in its directory, if Record.CheckRemovable allows it.
func (l *Lock) Remove(ctx context.Context, name string) error {
	return l.store.locked(ctx, name, func(*os.File) error {
		r, err := l.store.Get(name)
		if err == nil {
			err = r.CheckRemovable()
		}
		if err != nil {
			return err
		}
		return named(name, l.remove(name))
	})
}

// Discard removes an instance whose record cannot be used, with all in its directory.
// What it held is not known, so that has to be looked for elsewhere. An instance with
// a good record is for Remove.
func (l *Lock) Discard(name string) error {
	_, err := l.store.Get(name)
	if err == nil {
		return named(name, errors.New("its record is good, so it is not discarded"))
	}
	if !errors.Is(err, ErrRecord) {
		return err
	}
	return named(name, l.remove(name))
}

// RemoveUnnoted removes an instance of which Reconcile has just said ErrUnnoted, with all in
// its directory.
func (l *Lock) RemoveUnnoted(name string) error { return named(name, l.remove(name)) }

func (l *Lock) remove(name string) error {
	tmp := l.store.Path(scratch)
	if err := os.Rename(l.store.Path(name), tmp); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(tmp), l.dir.Sync())
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("instance %q: %w", name, err)
}

// OpenFile opens a regular file in an instance's directory, without following links or waiting
// for a FIFO's other end. What is something else is ErrUnsafe. A new file has mode 0600.
func (s *Store) OpenFile(name, file string, flags int) (*os.File, error) {
	dir, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := filepath.Join(dir.Name(), file)
	fd, err := unix.Openat(int(dir.Fd()), file, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := checkOwn(f, "a regular file", fs.FileMode.IsRegular); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Names lists the instances, also those whose records cannot be read: what the
// directory has, but for hidden names.
func (s *Store) Names() ([]string, error) {
	dir, err := openDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(limit.Instances + hidden + 1)
	if err != nil && err != io.EOF { // of which it says that it is empty
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, ".") })
	if len(names) > limit.Instances {
		return nil, fmt.Errorf("%s has more than %d instances", s.Dir, limit.Instances)
	}
	slices.Sort(names)
	return names, nil
}

// read reads the record in a directory.
func read(dir string) (*Record, error) {
	f, err := os.OpenFile(filepath.Join(dir, recordFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // missing, a link, a socket
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkOwn(f, "a regular file", fs.FileMode.IsRegular); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit.Record+1))
	if err != nil {
		return nil, err
	}
	r, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return r, nil
}

// write replaces the record in a directory.
func (r *Record) write(dir *os.File) error {
	data, err := r.encode()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := renameio.WriteFile(filepath.Join(dir.Name(), recordFile), data, 0o600, renameio.WithTempDir(dir.Name())); err != nil {
		return err
	}
	return dir.Sync()
}

// Open opens an instance's directory, which is no link.
func (s *Store) Open(name string) (*os.File, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	store, err := openDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, named(name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	store.Close()
	dir, err := openDir(s.Path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = ErrNotFound
	case errors.Is(err, ErrUnsafe):
		err = fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return dir, named(name, err)
}

// lockPatience is how long a lock of one instance is waited for: whoever has it writes a
// record, and no more. Whoever waits may keep others from the directory.
const lockPatience = 5 * time.Second

// locked holds an instance's lock meanwhile.
func (s *Store) locked(ctx context.Context, name string, do func(dir *os.File) error) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	dir, err := lock(ctx, func() (*os.File, error) { return s.Open(name) })
	if errors.Is(err, context.DeadlineExceeded) {
		return named(name, err)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

// lock opens a directory and locks it, until it is closed.
func lock(ctx context.Context, open func() (*os.File, error)) (*os.File, error) {
	for {
		dir, err := open()
		if err != nil {
			return nil, err
		}
		if err := flock.Lock(ctx, dir); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		if leadsTo(dir) {
			return dir, nil
		}
		dir.Close() // it was removed, or removed and made again, meanwhile
	}
}

// leadsTo says whether an open directory is still where it was opened.
func leadsTo(dir *os.File) bool {
	there, err := os.Lstat(dir.Name())
	if err != nil {
		return false
	}
	here, err := dir.Stat()
	return err == nil && os.SameFile(there, here)
}

// openDir opens a directory that only this user can write to.
func openDir(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is not a directory", ErrUnsafe, path)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwn(dir, "a directory", fs.FileMode.IsDir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// checkOwn refuses files of another kind, and those that others own or can write to.
func checkOwn(f *os.File, what string, is func(fs.FileMode) bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case !is(info.Mode()):
		return fmt.Errorf("%w: %s is not %s", ErrUnsafe, f.Name(), what)
	case owner != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to user %d, not to user %d", ErrUnsafe, f.Name(), owner, os.Geteuid())
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("%w: %s can be written by others: mode %04o", ErrUnsafe, f.Name(), info.Mode().Perm())
	}
	return nil
}
