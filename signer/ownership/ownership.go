// SPDX-License-Identifier: Apache-2.0

// Package ownership says whether other users can change what a path leads to.
//
// In: a path. Out: nothing, or an error that names the file or directory, its owner or its
// mode. Refused: every file, directory and symbolic link on the way that belongs to somebody
// else than root and this user, and what others can write to. They can write to a directory with
// the sticky bit, such as /tmp, but not replace what is not theirs in it. A group that has the
// number of the owner is taken for the owner's own: many systems make one for each user. In a user
// namespace, directories on the way may belong to users that it does not have. Of
// what is no file and no directory the mode says nothing here: package regular refuses it.
package ownership

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that others can change a file; test with errors.Is.
var ErrUnsafe = errors.New("others can change it")

const maxLinks = 40 // as the kernel

// Check refuses a path of which others can change what it leads to, or where.
func Check(path string) error { return check(path, true) }

// CheckParents does so for all but the last part of the path, which need not be there.
func CheckParents(path string) error { return check(path, false) }

func check(path string, last bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if !last {
		path = filepath.Dir(path)
	}
	at, rest, links := "/", parts(path), 0
	if err := checkOne(at, len(rest) > 0 || !last); err != nil {
		return err
	}
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0]) // at has no links, so that ".." is where it seems to be
		rest = rest[1:]
		if err := checkOne(next, len(rest) > 0 || !last); err != nil {
			return err
		}
		to, err := os.Readlink(next)
		if err != nil { // it is no link
			at = next
			continue
		}
		if links++; links > maxLinks {
			return &fs.PathError{Op: "readlink", Path: path, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = slices.Concat(parts(to), rest)
	}
	return nil
}

// parts are the elements of a path, ".." among them.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// CheckEntry looks at one file, directory or link alone, not at the way to it.
func CheckEntry(path string) error { return checkOne(path, false) }

// checkOne looks at one file, directory or link. With through, it is a directory in which the
// path goes on.
func checkOne(path string, through bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		if e := new(fs.PathError); errors.As(err, &e) {
			e.Op = "open" // which is what comes next
		}
		return err
	}
	owner, mode := info.Sys().(*syscall.Stat_t), info.Mode()
	ours := owner.Uid == 0 || int(owner.Uid) == os.Geteuid()
	if !ours && (!through || owner.Uid != unmapped()) {
		return fmt.Errorf("%w: %s belongs to user %d, and this is user %d", ErrUnsafe, path, owner.Uid, os.Geteuid())
	}
	others := fs.FileMode(0o022)
	if owner.Uid == owner.Gid && !hasACL(path) {
		others = 0o002
	}
	if !mode.IsRegular() && !mode.IsDir() || mode.Perm()&others == 0 || through && mode&fs.ModeSticky != 0 {
		return nil
	}
	return fmt.Errorf("%w: %s has the mode %04o, owner %d and group %d", ErrUnsafe, path, mode.Perm(), owner.Uid, owner.Gid)
}

// hasACL says whether a POSIX access control list gives others rights, which the mode shows as the
// group's.
func hasACL(path string) bool {
	_, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return err == nil
}

// unmapped is the owner that a user namespace shows for users that it does not have, such as the
// host's root, to whom the directories at the top belong. In the first namespace it is nobody: 0.
var unmapped = sync.OnceValue(func() uint32 {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"}) {
		return 0
	}
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return 0
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(id)
})
