// SPDX-License-Identifier: Apache-2.0

// Package rootfs turns an OCI image into one file tree, in memory but for the
// contents of files.
//
// In: a v1.Image. Out: a *Tree, walked in the order of its paths. Refused:
// blobs that do not match their digests, layers that break the rules of the
// OCI image specification, names that lead out of the tree, more than the
// Limits allow. Contents are spooled to one unlinked temporary file a layer;
// nothing of the image is ever written to a path.
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Type is the kind of an inode.
type Type uint8

// The kinds of inodes.
const (
	Regular Type = iota
	Directory
	Symlink
	CharDevice
	BlockDevice
	FIFO
)

// Inode is a file without its names. Hard links share one.
type Inode struct {
	Type         Type
	Perm         uint32 // permission bits with setuid 04000, setgid 02000 and sticky 01000
	UID, GID     int
	ModTime      time.Time
	Size         int64  // of a regular file, in bytes
	Target       string // of a symlink
	Major, Minor uint32 // of a device
	Xattrs       map[string]string

	data     io.ReaderAt // contents of a regular file, from offset on
	offset   int64
	children map[string]*Inode // of a directory
}

// Open returns the contents of a regular file.
func (n *Inode) Open() io.Reader {
	if n.Size == 0 {
		return strings.NewReader("")
	}
	return io.NewSectionReader(n.data, n.offset, n.Size)
}

// NewFile returns a regular file owned by root with the given contents.
func NewFile(data io.ReaderAt, size int64, perm uint32) *Inode {
	return &Inode{Type: Regular, Perm: perm, Size: size, data: data, ModTime: time.Unix(0, 0)}
}

// Tree is a file tree. The zero value is not ready: use New or FromImage.
type Tree struct {
	root   *Inode
	spools []*os.File
}

// New returns a tree with an empty root directory of mode 0755.
func New() *Tree { return &Tree{root: newDir()} }

func newDir() *Inode {
	return &Inode{Type: Directory, Perm: 0o755, ModTime: time.Unix(0, 0), children: map[string]*Inode{}}
}

// Close releases the contents; the tree is not usable afterwards.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range t.spools {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Walk calls fn for every name: the root, which is ".", then parents before
// children, siblings in byte order. Paths have no leading slash.
func (t *Tree) Walk(fn func(path string, n *Inode) error) error {
	if err := fn(".", t.root); err != nil {
		return err
	}
	return walk("", t.root, fn)
}

func walk(prefix string, dir *Inode, fn func(string, *Inode) error) error {
	for _, name := range slices.Sorted(maps.Keys(dir.children)) {
		n := dir.children[name]
		if err := fn(prefix+name, n); err != nil {
			return err
		}
		if n.Type == Directory {
			if err := walk(prefix+name+"/", n, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// Lookup returns the inode at a path, following symlinks inside the tree.
func (t *Tree) Lookup(name string) (*Inode, error) {
	dir, base, err := t.descend(name, descent{follow: true})
	if err != nil || base == "" {
		return dir, err
	}
	if n := dir.children[base]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
}

// Resolve follows a path from the root, as the kernel does under chroot. It returns the path
// without symlinks to which it leads, without a leading slash, and what is there: nil for nothing.
// The path is as far as it went where the error is not nil.
func (t *Tree) Resolve(name string) (real string, n *Inode, err error) {
	done, stack := []string{}, []*Inode{t.root}
	todo := elements(name)
	for links, steps := 0, 0; len(todo) > 0; steps++ {
		elem := todo[0]
		todo = todo[1:]
		if elem == ".." {
			done, stack = done[:max(1, len(done))-1], stack[:max(2, len(stack))-1]
			continue
		}
		next := stack[len(stack)-1].children[elem]
		at := path.Join(path.Join(done...), elem)
		switch {
		case next == nil:
			return path.Join(at, path.Join(todo...)), nil, nil
		case next.Type == Symlink:
			if links++; links > maxSymlinks || steps > maxSteps {
				return at, nil, errTooManyLinks
			}
			if path.IsAbs(next.Target) {
				done, stack = done[:0], stack[:1]
			}
			todo = append(elements(next.Target), todo...)
			continue
		case next.Type != Directory && len(todo) > 0:
			return at, nil, fmt.Errorf("%q is not a directory", "/"+at)
		}
		done, stack = append(done, elem), append(stack, next)
	}
	return path.Join(done...), stack[len(stack)-1], nil
}

// Put adds a file at a path, with its missing parents; what stood there is
// replaced. The limits of images do not count here.
func (t *Tree) Put(name string, n *Inode) error {
	dir, base, err := t.mkparents(name, nil)
	if err != nil {
		return err
	}
	if base == "" {
		return fmt.Errorf("%s: is the root", name)
	}
	dir.children[base] = n
	return nil
}

// NewDevice returns a character device owned by root.
func NewDevice(major, minor, perm uint32) *Inode {
	return &Inode{Type: CharDevice, Perm: perm, Major: major, Minor: minor, ModTime: time.Unix(0, 0)}
}

// Remove removes every path, with all below it, for which drop says so, and
// returns how many names went and how many bytes of regular files.
func (t *Tree) Remove(drop func(path string) bool) (entries int, bytes int64) {
	return remove("", t.root, drop)
}

func remove(prefix string, dir *Inode, drop func(string) bool) (entries int, bytes int64) {
	for name, n := range dir.children {
		all := drop
		gone := drop(prefix + name)
		if gone {
			delete(dir.children, name)
			entries++
			bytes += n.Size
			all = func(string) bool { return true }
		}
		if n.Type == Directory {
			e, b := remove(prefix+name+"/", n, all)
			entries, bytes = entries+e, bytes+b
		}
	}
	return entries, bytes
}

const (
	maxSymlinks = 40 // as the kernel's MAXSYMLINKS
	// maxSteps is more than the elements of any path, and of several link targets.
	// The kernel goes through 40 targets of 2048 each, but not for each name of an image.
	maxSteps = 4 * PathMax / 2
)

var (
	errTooManyLinks = errors.New("too many levels of symbolic links")
	errNotDirectory = errors.New("a parent is not a directory")
)

// parent finds the directory that holds the last element of name. Symlinks on
// the way are followed inside the tree, ".." stops at the root. base is empty
// for the root itself.
func (t *Tree) parent(name string) (dir *Inode, base string, err error) {
	return t.descend(name, descent{})
}

// mkparents is parent, but makes missing directories. Each is charged to left:
// one short name can ask for two thousand of them.
func (t *Tree) mkparents(name string, left *budget) (dir *Inode, base string, err error) {
	return t.descend(name, descent{missing: func(in *Inode, missing string) (*Inode, error) {
		if strings.HasPrefix(missing, whiteoutPrefix) {
			return nil, fmt.Errorf("the parent %.40q has the name of a whiteout", missing)
		}
		if err := left.take(0, len(missing)); err != nil {
			return nil, err
		}
		n := newDir()
		in.children[missing] = n
		return n, nil
	}})
}

// descent is how to go down a path.
type descent struct {
	follow  bool                                         // the last element too, where it is a symlink
	missing func(in *Inode, name string) (*Inode, error) // makes a parent that is not there; nil to fail
	low     *lower                                       // what is not to be gone through; nil for nothing
}

func (t *Tree) descend(name string, how descent) (*Inode, string, error) {
	fail := func(err error) (*Inode, string, error) {
		return nil, "", &fs.PathError{Op: "lookup", Path: name, Err: err}
	}
	stack := []*Inode{t.root}
	todo := elements(name)
	links := 0
	for steps := 0; len(todo) > 0; steps++ {
		if steps > maxSteps {
			return fail(errTooManyLinks)
		}
		elem := todo[0]
		todo = todo[1:]
		if elem == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		dir := stack[len(stack)-1]
		n := dir.children[elem]
		if last := len(todo) == 0; last && (!how.follow || n == nil || n.Type != Symlink) {
			return dir, elem, nil
		}
		if n == nil && how.missing == nil || how.low.hides(dir, elem) {
			return fail(fs.ErrNotExist)
		}
		if n == nil {
			var err error
			if n, err = how.missing(dir, elem); err != nil {
				return nil, "", err
			}
		}
		switch n.Type {
		case Directory:
			stack = append(stack, n)
		case Symlink:
			if links++; links > maxSymlinks {
				return fail(errTooManyLinks)
			}
			if path.IsAbs(n.Target) {
				stack = stack[:1]
			}
			todo = append(elements(n.Target), todo...)
		default:
			return fail(errNotDirectory)
		}
	}
	return stack[len(stack)-1], "", nil
}

// elements splits a path, without the empty elements and the dots.
func elements(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// Clean returns the form of a path that Walk uses.
func Clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
