// SPDX-License-Identifier: Apache-2.0

// Package rename renames without loss, also where renameat2(2) cannot: NFS and 9p know no flags.
//
// In: two paths in one file system. Out: the rename in one step where the file system has it, else in
// several. Refused: to replace anything.
package rename

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// renameat2 is another one in tests.
var renameat2 = unix.Renameat2

// NoReplace renames from to to. The error is fs.ErrExist when to exists.
//
// Without RENAME_NOREPLACE, a file has both names for a moment, and an empty directory that
// appears at to in that moment is replaced.
func NoReplace(from, to string) error {
	err := renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if lacks(err) {
		return noReplace(from, to)
	}
	return linkError("rename", from, to, err)
}

func noReplace(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if err := os.Link(from, to); err != nil { // which replaces nothing
			return err
		}
		return os.Remove(from)
	}
	if _, err := os.Lstat(to); err == nil {
		return linkError("rename", from, to, unix.EEXIST)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = unix.Rename(from, to) // rename(2) replaces a directory by a directory only, and only an empty one
	if err == unix.ENOTEMPTY || err == unix.ENOTDIR {
		err = unix.EEXIST
	}
	return linkError("rename", from, to, err)
}

// Exchange exchanges what is at two paths. When it fails, both are as they were, or the error says
// where the content of b is.
//
// Without RENAME_EXCHANGE, nothing is at b for a moment: a crash then leaves its content in a
// directory .NAME.old-* beside it. What others put at b in that moment stays, and is the error.
func Exchange(a, b string) error {
	err := renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if lacks(err) {
		return exchange(a, b)
	}
	return linkError("exchange", a, b, err)
}

func exchange(a, b string) error {
	if _, err := os.Lstat(a); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(b), "."+filepath.Base(b)+".old-") // nobody else puts anything there
	if err != nil {
		return err
	}
	aside := filepath.Join(dir, filepath.Base(b))
	if err := os.Rename(b, aside); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	if err := NoReplace(a, b); err != nil {
		if back := NoReplace(aside, b); back != nil {
			return fmt.Errorf("%w; what was at %s is now %s: %w", err, b, aside, back)
		}
		return errors.Join(err, os.Remove(dir))
	}
	if err := NoReplace(aside, a); err != nil {
		return fmt.Errorf("what was at %s is now %s: %w", b, aside, err)
	}
	return os.Remove(dir)
}

// lacks says whether the file system, or the kernel, does not know the flag.
func lacks(err error) bool {
	return err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP
}

func linkError(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}
