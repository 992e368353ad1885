// SPDX-License-Identifier: Apache-2.0

// Package scan lists a directory as a file system shows it.
//
// In: a directory, of any depth. Out: its files, one comparable line each.
// Refused: nothing; it follows no symlink. It runs as a program of its own
// inside a kernel under test, so that it needs little and no /proc.
package scan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// File is one name of a file.
type File struct {
	Path         string // relative to the directory; "." for itself
	Type         string // file, dir, symlink, char, block, fifo
	Mode         uint32 // permission bits with setuid 04000, setgid 02000 and sticky 01000
	UID, GID     uint32
	Time         int64  // of modification, in seconds since 1970
	Size         int64  // of a regular file, in bytes
	SHA256       string // of the content of a regular file
	Target       string // of a symlink
	Major, Minor uint32 // of a device
	Xattrs       map[string]string

	// Link is the first path of the same file, in byte order, where this is a
	// later one, and empty otherwise.
	Link string
}

func (f File) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %s %04o %d:%d @%d", f.Path, f.Type, f.Mode, f.UID, f.GID, f.Time)
	switch f.Type {
	case "file":
		fmt.Fprintf(&b, " %d bytes sha256:%s", f.Size, f.SHA256)
	case "symlink":
		fmt.Fprintf(&b, " -> %q", f.Target)
	case "char", "block":
		fmt.Fprintf(&b, " %d:%d", f.Major, f.Minor)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
		fmt.Fprintf(&b, " %s=%q", name, f.Xattrs[name])
	}
	if f.Link != "" {
		fmt.Fprintf(&b, " = %q", f.Link)
	}
	return b.String()
}

// Dir lists a directory in the byte order of the paths, with extended
// attributes where xattrs says so; these need /proc.
func Dir(name string, xattrs bool) ([]File, error) {
	d := &dir{xattrs: xattrs}
	if err := d.entry(unix.AT_FDCWD, name, "."); err != nil {
		return nil, err
	}
	return Sorted(d.files, d.inodes), nil
}

type inode struct{ dev, ino uint64 }

type dir struct {
	xattrs bool
	files  []File
	inodes []inode
}

// Sorted brings files into the order of their paths and names the first of
// those with the same inode. An inode that is the zero value has one name.
func Sorted[I comparable](files []File, inodes []I) []File {
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(files[a].Path, files[b].Path) })
	var none I
	first := map[I]string{}
	out := make([]File, 0, len(files))
	for _, i := range order {
		f := files[i]
		if name, ok := first[inodes[i]]; ok && inodes[i] != none {
			f.Link = name
		} else {
			first[inodes[i]] = f.Path
		}
		out = append(out, f)
	}
	return out
}

// entry lists what has a name in an open directory. Paths can be longer than
// the kernel takes at once.
func (d *dir) entry(at int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	f := File{Path: path, Type: types[st.Mode&unix.S_IFMT], Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Time: st.Mtim.Sec}
	err := d.content(&f, &st, at, name)
	if err == nil && d.xattrs {
		f.Xattrs, err = attributes(at, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	id := inode{}
	if st.Nlink > 1 && f.Type != "dir" {
		id = inode{st.Dev, st.Ino}
	}
	d.files, d.inodes = append(d.files, f), append(d.inodes, id)
	if f.Type != "dir" {
		return nil
	}
	return d.children(at, name, path)
}

var types = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink",
	unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
}

func (d *dir) content(f *File, st *unix.Stat_t, at int, name string) error {
	switch f.Type {
	case "symlink":
		buf := make([]byte, 4097)
		n, err := unix.Readlinkat(at, name, buf)
		f.Target = string(buf[:max(n, 0)])
		return err
	case "char", "block":
		f.Major, f.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case "file":
		file, err := open(at, name, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		sum := sha256.New()
		f.Size, err = io.Copy(sum, file)
		f.SHA256 = hex.EncodeToString(sum.Sum(nil))
		return err
	}
	return nil
}

func open(at int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	return os.NewFile(uintptr(fd), name), err
}

func (d *dir) children(at int, name, path string) error {
	file, err := open(at, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer file.Close()
	names, err := file.Readdirnames(-1)
	if err != nil {
		return err
	}
	prefix := path + "/"
	if path == "." {
		prefix = ""
	}
	for _, child := range names {
		if err := d.entry(int(file.Fd()), child, prefix+child); err != nil {
			return err
		}
	}
	return nil
}

func attributes(at int, name string) (map[string]string, error) {
	if at != unix.AT_FDCWD {
		name = fmt.Sprintf("/proc/self/fd/%d/%s", at, name)
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	var out map[string]string
	for attr := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if attr == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(name, attr, value)
		if err != nil {
			return nil, os.NewSyscallError("getxattr "+attr, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[attr] = string(value[:n])
	}
	return out, nil
}
