// SPDX-License-Identifier: Apache-2.0

// Package initramfs writes a rootfs.Tree as the cpio archive that the Linux
// kernel unpacks, and lists what such an archive holds: format "newc" of
// Documentation/driver-api/early-userspace/buffer-format.rst.
//
// In: a tree. Out: a byte stream that depends on nothing but the tree. Refused:
// what newc or the kernel's unpacker cannot hold: files of 4 GiB and more,
// owners and times beyond 32 bits, device numbers beyond 12 and 20, names and
// link targets that the kernel would skip: longer than PATH_MAX, with an element
// longer than NAME_MAX, or empty.
// And back: an archive in, its entries out, refused as List documents.
//
// This is the only user of the cpio library, and works around what the library
// does silently: it never writes device numbers, it cuts values that do not
// fit, it changes the header it is given, and it forgets that writing the
// trailer failed.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"github.com/cavaliergopher/cpio"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// pathMax is the kernel's PATH_MAX: names and targets with their NUL byte.
const pathMax = 4096

// nameMax is the kernel's NAME_MAX: one element of a name, without a NUL byte.
const nameMax = 255

// root is the name of the root directory. Without an entry of its own it has
// the mode of a new tmpfs, in which everybody may write.
const root = "."

const pageSize = 4096

// The kernel puts 12 and 20 bits into one number, and cuts what is above.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// inodeCost is about what one inode and its directory entry take in kernel
// memory on x86-64, in bytes (tmpfs inode cache 712, dentry 192, rounded up).
const inodeCost = 1024

// Stats describe an archive.
type Stats struct {
	Entries  int
	Unpacked int64 // memory that the unpacked files take, in bytes
}

// Write writes the archive to w.
func Write(w io.Writer, t *rootfs.Tree) (Stats, error) {
	var stats Stats
	links := map[*rootfs.Inode]int{}
	err := walk(t, func(_ string, n *rootfs.Inode) error {
		links[n]++
		return nil
	})
	if err != nil {
		return stats, err
	}
	out := &writer{dst: w}
	out.cpio = cpio.NewWriter(out)
	numbers := map[*rootfs.Inode]int64{}
	err = walk(t, func(name string, n *rootfs.Inode) error {
		number, written := numbers[n]
		if !written || n.Type == rootfs.Symlink { // the kernel does not link symlinks
			number = int64(stats.Entries + 1)
			numbers[n] = number
			stats.Unpacked += inodeCost + (n.Size+pageSize-1)/pageSize*pageSize
		}
		stats.Entries++
		first := number == int64(stats.Entries)
		if err := out.entry(name, n, number, links[n], first); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return stats, err
	}
	return stats, errors.Join(out.cpio.Close(), out.err)
}

// walk is Tree.Walk with the root before everything else.
func walk(t *rootfs.Tree, fn func(string, *rootfs.Inode) error) error {
	n, err := t.Lookup("/")
	if err != nil {
		return err
	}
	if err := fn(root, n); err != nil {
		return err
	}
	return t.Walk(fn)
}

// writer stands between the library and the destination and puts the device
// numbers into the header that the library writes next.
type writer struct {
	cpio         *cpio.Writer
	dst          io.Writer
	device       bool
	major, minor uint32
	err          error // the first one of dst
}

// headerSize is the length of a newc header without the name.
const headerSize = 110

func (w *writer) Write(p []byte) (int, error) {
	if w.device && len(p) == headerSize {
		w.device = false
		copy(p[78:94], fmt.Sprintf("%08X%08X", w.major, w.minor)) // c_rdevmajor, c_rdevminor
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.dst.Write(p)
	w.err = err
	return n, err
}

// entry writes one name. Of several names of one inode the first carries the
// contents.
func (w *writer) entry(name string, n *rootfs.Inode, number int64, links int, contents bool) error {
	if err := checkLength(name, n); err != nil {
		return err
	}
	if strings.ContainsRune(name, 0) || strings.ContainsRune(n.Target, 0) {
		return errors.New("name or link target with a NUL byte")
	}
	if name == "TRAILER!!!" {
		return errors.New("the kernel would take this name for the end of the archive")
	}
	size := n.Size
	if n.Type == rootfs.Symlink {
		size, links = int64(len(n.Target)), 1
	}
	if !contents {
		size = 0
	}
	for _, field := range []struct {
		what  string
		value int64
	}{{"uid", int64(n.UID)}, {"gid", int64(n.GID)}, {"modification time", n.ModTime.Unix()}, {"size", size}} {
		if field.value < 0 || field.value > math.MaxUint32 {
			return fmt.Errorf("%s %d does not fit the initramfs format (32 bits)", field.what, field.value)
		}
	}
	h := cpio.Header{
		Name: name, Inode: number, Links: links, Size: size,
		Mode: modes[n.Type] | cpio.FileMode(n.Perm), Uid: n.UID, Guid: n.GID, ModTime: n.ModTime,
	}
	if n.Type == rootfs.CharDevice || n.Type == rootfs.BlockDevice {
		if n.Major > maxMajor || n.Minor > maxMinor {
			return fmt.Errorf("device %d:%d does not fit the kernel's numbers", n.Major, n.Minor)
		}
		w.device, w.major, w.minor = true, n.Major, n.Minor
	}
	if err := w.cpio.WriteHeader(&h); err != nil {
		return err
	}
	switch {
	case size == 0:
		return nil
	case n.Type == rootfs.Symlink:
		_, err := io.WriteString(w.cpio, n.Target)
		return err
	default:
		written, err := io.Copy(w.cpio, n.Open())
		if err == nil && written != size {
			err = fmt.Errorf("content has %d bytes, want %d", written, size)
		}
		return err
	}
}

func checkLength(name string, n *rootfs.Inode) error {
	switch {
	case len(name)+1 > pathMax || len(n.Target)+1 > pathMax:
		return fmt.Errorf("name or link target longer than %d bytes", pathMax-1)
	case len(path.Base(name)) > nameMax:
		return fmt.Errorf("last element of the name longer than %d bytes", nameMax)
	case n.Type == rootfs.Symlink && n.Target == "":
		return errors.New("symlink without a target")
	}
	return nil
}

var modes = map[rootfs.Type]cpio.FileMode{
	rootfs.Regular:     cpio.TypeReg,
	rootfs.Directory:   cpio.TypeDir,
	rootfs.Symlink:     cpio.TypeSymlink,
	rootfs.CharDevice:  cpio.TypeChar,
	rootfs.BlockDevice: cpio.TypeBlock,
	rootfs.FIFO:        cpio.TypeFifo,
}
