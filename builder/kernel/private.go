// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrShared says that others than the user and root can write to the cache; test with errors.Is.
var ErrShared = errors.New("others can write to the cache")

// checkPath checks a folder, all that it lies in, and the symbolic links by which it is reached: who
// can rename one of them can put another folder there.
func checkPath(path string) error {
	done, todo := "/", strings.Split(strings.Trim(path, "/"), "/")
	if err := checkParent("/"); err != nil {
		return err
	}
	for links := 0; len(todo) > 0; {
		elem := todo[0]
		todo = todo[1:]
		if elem == "" || elem == "." {
			continue
		}
		next := filepath.Join(done, elem) // ".." of a resolved path is what the kernel takes, too
		target, err := os.Readlink(next)
		if err == nil {
			if links++; links > 40 {
				return &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			if err := checkOwner(next); err != nil {
				return err
			}
			if filepath.IsAbs(target) {
				done = "/"
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		}
		check := checkParent
		if len(todo) == 0 {
			check = checkPrivate
		}
		if err := check(next); err != nil {
			return err
		}
		done = next
	}
	return nil
}

// checkParent checks a folder in which others may have names of their own, but not change ours, as
// in /tmp.
func checkParent(dir string) error {
	var info unix.Stat_t
	if err := unix.Lstat(dir, &info); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if info.Mode&unix.S_ISVTX != 0 {
		return checkOwner(dir)
	}
	return checkPrivate(dir)
}

// checkPrivate checks a file or folder that only the user and root may write to. A group that has
// the number of the user is taken for the user's own, as many distributions make one for each.
func checkPrivate(path string) error {
	if err := checkOwner(path); err != nil {
		return err
	}
	var info unix.Stat_t
	if err := unix.Lstat(path, &info); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	own := info.Uid == info.Gid
	switch mode := info.Mode & 0o777; {
	case info.Mode&unix.S_IFMT == unix.S_IFLNK:
		return nil // has no mode
	case mode&0o002 != 0, mode&0o020 != 0 && !own:
		return fmt.Errorf("%w: %s has the mode %04o, owner %d and group %d", ErrShared, path, mode, info.Uid, info.Gid)
	}
	return nil
}

// checkEntries checks a folder of the cache and what is in it.
func checkEntries(dir string) error {
	if err := checkPrivate(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := checkPrivate(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) { // another build removes what it no longer needs
			return err
		}
	}
	return nil
}

func checkOwner(path string) error {
	var info unix.Stat_t
	if err := unix.Lstat(path, &info); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if info.Uid != 0 && int(info.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d, and this is user %d", ErrShared, path, info.Uid, os.Geteuid())
	}
	return nil
}

// closeLocks keeps others from opening locks: an older version made them for all to read.
func closeLocks(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() == kinds["lock"] {
		return err
	}
	return os.Chmod(dir, kinds["lock"])
}
