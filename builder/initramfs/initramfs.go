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
	"slices"

	"github.com/cavaliergopher/cpio"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// root is the name of the root directory. Without an entry of its own it has
// the mode of a new tmpfs, in which everybody may write.
const root = "."

const pageSize = 4096

// inodeCost is about what one inode and its directory entry take in kernel
// memory on x86-64, in bytes (tmpfs inode cache 712, dentry 192, rounded up).
const inodeCost = 1024

// Stats describe an archive.
type Stats struct {
	Entries  int
	Bytes    int64 // contents of regular files, a file with several names once
	Unpacked int64 // memory that the unpacked files take, in bytes
}

// Write writes the archive to w, the files that are named by last at its end. A kernel that
// cannot unpack an archive goes on with what it has unpacked by then: who finds the last file
// knows that all is there.
func Write(w io.Writer, t *rootfs.Tree, last ...string) (Stats, error) {
	var stats Stats
	links := map[*rootfs.Inode]int{}
	err := t.Walk(func(_ string, n *rootfs.Inode) error {
		links[n]++
		return nil
	})
	if err != nil {
		return stats, err
	}
	out := &writer{dst: w, buf: make([]byte, 1<<18)}
	out.cpio = cpio.NewWriter(out)
	numbers := map[*rootfs.Inode]int64{}
	write := func(name string, n *rootfs.Inode) error {
		number, written := numbers[n]
		if !written || n.Type == rootfs.Symlink { // the kernel does not link symlinks
			number = int64(stats.Entries + 1)
			numbers[n] = number
			stats.Bytes += n.Size
			stats.Unpacked += inodeCost + (n.Size+pageSize-1)/pageSize*pageSize
		}
		stats.Entries++
		first := number == int64(stats.Entries)
		if err := out.entry(name, n, number, links[n], first); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		return nil
	}
	held := map[string]*rootfs.Inode{}
	err = t.Walk(func(name string, n *rootfs.Inode) error {
		if slices.Contains(last, name) {
			held[name] = n
			return nil
		}
		return write(name, n)
	})
	for _, name := range last {
		if n := held[name]; n != nil && err == nil {
			err = write(name, n)
		}
	}
	if err != nil {
		return stats, err
	}
	return stats, errors.Join(out.cpio.Close(), out.err)
}

// writer stands between the library and the destination and puts the device
// numbers into the header that the library writes next.
type writer struct {
	cpio         *cpio.Writer
	dst          io.Writer
	buf          []byte // for contents on their way
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
	if err := Check(name, n); err != nil {
		return err
	}
	if err := CheckTime(n); err != nil {
		return err
	}
	size := n.Size
	if n.Type == rootfs.Symlink {
		size, links = int64(len(n.Target)), 1
	}
	if !contents {
		size = 0
	}
	h := cpio.Header{
		Name: name, Inode: number, Links: links, Size: size,
		Mode: modes[n.Type] | cpio.FileMode(n.Perm), Uid: n.UID, Guid: n.GID, ModTime: n.ModTime,
	}
	if n.Type == rootfs.CharDevice || n.Type == rootfs.BlockDevice {
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
		// Neither end may take the copy over: that costs a buffer a file.
		written, err := io.CopyBuffer(struct{ io.Writer }{w.cpio}, struct{ io.Reader }{n.Open()}, w.buf)
		if err == nil && written != size {
			err = fmt.Errorf("content has %d bytes, want %d", written, size)
		}
		return err
	}
}

var modes = map[rootfs.Type]cpio.FileMode{
	rootfs.Regular:     cpio.TypeReg,
	rootfs.Directory:   cpio.TypeDir,
	rootfs.Symlink:     cpio.TypeSymlink,
	rootfs.CharDevice:  cpio.TypeChar,
	rootfs.BlockDevice: cpio.TypeBlock,
	rootfs.FIFO:        cpio.TypeFifo,
}
