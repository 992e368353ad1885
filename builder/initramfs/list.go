// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// ErrFormat says that something is not an archive as Write makes them; test
// with errors.Is.
var ErrFormat = errors.New("invalid initramfs")

// Limits on what a stranger may hand us: what rootfs.DefaultLimits lets into an
// image, with room for what a build adds.
const (
	maxEntries = 5 << 20
	maxNames   = 1 << 30  // bytes of all names and link targets together
	maxArchive = 80 << 30 // bytes
	maxKept    = 64 << 20 // bytes of a file whose content is kept
)

// Entry is one name of an archive.
type Entry struct {
	Name         string // clean, without a leading slash; "." for the root
	Type         rootfs.Type
	Perm         uint32 // permission bits with setuid 04000, setgid 02000 and sticky 01000
	UID, GID     int
	ModTime      time.Time
	Size         int64             // of a regular file, in bytes
	Digest       [sha256.Size]byte // of the content of a regular file
	Target       string            // of a symlink
	Major, Minor uint32            // of a device

	// Link is the first name of the same inode where this is a later one, and
	// empty otherwise.
	Link string

	// Content is what a regular file holds that List was asked to keep.
	Content string
}

// List calls visit for each entry of an archive, in order, and returns visit's
// first error. It reads r to its end and holds no file's content but that of the
// names in keep, which is an error beyond 64 MiB. What is no archive, or one that the kernel's unpacker would understand in another way
// than a list of its entries can show, is an error that wraps ErrFormat: names
// that occur twice or are not clean, hard links whose names disagree, content
// of what has none, anything after the trailer.
func List(r io.Reader, visit func(Entry) error, keep ...string) error {
	l := &lister{
		r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New(), buf: make([]byte, 1<<16),
		seen: map[string]bool{}, inodes: map[inodeKey]inode{}, keep: keep,
	}
	for {
		e, err := l.next()
		if err == errTrailer {
			return l.rest()
		}
		if err == nil {
			err = visit(*e)
		}
		if err != nil {
			return err
		}
	}
}

// lister reads by hand: the library takes what is no number for 0, panics on a
// negative size, and has no device numbers.
type lister struct {
	r      *bufio.Reader
	offset int64 // in the archive
	sum    hash.Hash
	buf    []byte
	names  int // bytes
	seen   map[string]bool
	inodes map[inodeKey]inode
	keep   []string
}

// inodeKey is what the kernel knows a hard link's inode by.
type inodeKey struct {
	major, minor, number uint32
	typ                  rootfs.Type
}

// inode is what the first name said of an inode.
type inode struct {
	first Entry
	links uint32
}

// header has the fields of newc in their order, all but the magic number.
type header struct {
	ino, mode, uid, gid, nlink, mtime, filesize      uint32
	devMajor, devMinor, rdevMajor, rdevMinor, length uint32
}

// errTrailer ends the archive.
var errTrailer = errors.New("trailer")

func (l *lister) wrong(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %w", ErrFormat, l.offset, fmt.Errorf(format, args...))
}

// read fills p. Errors of the underlying reader stay what they are.
func (l *lister) read(p []byte) error {
	n, err := io.ReadFull(l.r, p)
	l.offset += int64(n)
	return l.ended(err)
}

func (l *lister) ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return l.wrong("the archive ends too early")
	}
	return err
}

func (l *lister) pad() error {
	var p [3]byte
	return l.read(p[:-l.offset&3])
}

func (l *lister) next() (*Entry, error) {
	h, err := l.header()
	if err != nil {
		return nil, err
	}
	name, err := l.name(h.length)
	if err != nil {
		return nil, err
	}
	if name == "TRAILER!!!" {
		return nil, errTrailer
	}
	typ, ok := typeOf(h.mode)
	switch {
	case !ok:
		return nil, l.wrong("%q: mode %o is of no type of file that we write", name, h.mode)
	case name == root && (typ != rootfs.Directory || len(l.seen) > 0):
		return nil, l.wrong("the root is not the first entry, or no directory")
	case name != path.Clean(name) || strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../"):
		return nil, l.wrong("name %q is not clean", name)
	case l.seen[name]:
		return nil, l.wrong("name %q occurs twice", name)
	case len(l.seen) >= maxEntries:
		return nil, l.wrong("more than %d entries", maxEntries)
	}
	l.seen[name] = true
	e := &Entry{
		Name: name, Type: typ, Perm: h.mode & 0o7777, UID: int(h.uid), GID: int(h.gid),
		ModTime: time.Unix(int64(h.mtime), 0).UTC(), Size: int64(h.filesize),
	}
	if typ == rootfs.CharDevice || typ == rootfs.BlockDevice {
		e.Major, e.Minor = h.rdevMajor, h.rdevMinor
	}
	if err := l.body(e); err != nil {
		return nil, err
	}
	return e, l.link(e, h)
}

// header reads a header: buffer-format.rst, "new ascii" without checksums.
func (l *lister) header() (*header, error) {
	var raw [headerSize]byte
	if l.offset > maxArchive {
		return nil, l.wrong("larger than %d bytes", int64(maxArchive))
	}
	if err := l.read(raw[:]); err != nil {
		return nil, err
	}
	if string(raw[:6]) != "070701" {
		return nil, l.wrong("%q is not the magic number of newc", raw[:6])
	}
	var h header
	for i, field := range []*uint32{
		&h.ino, &h.mode, &h.uid, &h.gid, &h.nlink, &h.mtime, &h.filesize,
		&h.devMajor, &h.devMinor, &h.rdevMajor, &h.rdevMinor, &h.length,
	} {
		text := string(raw[6+8*i : 14+8*i])
		n, err := strconv.ParseUint(text, 16, 32)
		if err != nil {
			return nil, l.wrong("%q is not a hexadecimal number of 32 bits", text)
		}
		*field = uint32(n)
	}
	return &h, nil
}

func (l *lister) name(length uint32) (string, error) {
	if length < 2 || length > rootfs.PathMax {
		return "", l.wrong("a name of %d bytes", length)
	}
	raw, err := l.text(length)
	if err != nil {
		return "", err
	}
	name, end := raw[:length-1], raw[length-1]
	if end != 0 || strings.ContainsRune(name, 0) {
		return "", l.wrong("name %q does not end in its only NUL byte", raw)
	}
	return name, l.pad()
}

func (l *lister) text(length uint32) (string, error) {
	if l.names += int(length); l.names > maxNames {
		return "", l.wrong("names and link targets of more than %d bytes", maxNames)
	}
	p := l.buf[:length]
	err := l.read(p)
	return string(p), err
}

// body reads what follows the header and the name.
func (l *lister) body(e *Entry) error {
	switch {
	case e.Type == rootfs.Symlink:
		if e.Size >= rootfs.PathMax {
			return l.wrong("%q: a link target of %d bytes", e.Name, e.Size)
		}
		target, err := l.text(uint32(e.Size))
		if err != nil {
			return err
		}
		if strings.ContainsRune(target, 0) {
			return l.wrong("%q: link target %q with a NUL byte", e.Name, target)
		}
		e.Target, e.Size = target, 0
	case e.Type == rootfs.Regular:
		if err := l.content(e); err != nil {
			return err
		}
	case e.Size != 0:
		return l.wrong("%q: %d bytes of content in what is not a regular file", e.Name, e.Size)
	}
	return l.pad()
}

// content reads a regular file.
func (l *lister) content(e *Entry) error {
	l.sum.Reset()
	var to io.Writer = l.sum
	var kept bytes.Buffer
	if slices.Contains(l.keep, e.Name) {
		if e.Size > maxKept {
			return l.wrong("%q: larger than %d bytes", e.Name, maxKept)
		}
		to = io.MultiWriter(l.sum, &kept)
	}
	n, err := io.CopyBuffer(to, io.LimitReader(l.r, e.Size), l.buf)
	l.offset += n
	if err == nil && n < e.Size {
		err = io.EOF
	}
	if err != nil {
		return l.ended(err)
	}
	l.sum.Sum(e.Digest[:0])
	e.Content = kept.String()
	return nil
}

// link finds the first name of an inode, and fills in its content. The kernel
// would give all names what the last one says, so that all must say the same.
func (l *lister) link(e *Entry, h *header) error {
	if e.Type == rootfs.Symlink || e.Type == rootfs.Directory || h.nlink < 2 { // the kernel does not link these
		return nil
	}
	key := inodeKey{h.devMajor, h.devMinor, h.ino, e.Type}
	known, ok := l.inodes[key]
	if !ok {
		l.inodes[key] = inode{*e, h.nlink}
		return nil
	}
	if e.Size != 0 {
		return l.wrong("%q: a later name of %q has content", e.Name, known.first.Name)
	}
	same := known.first
	same.Name, same.Link, same.Content = e.Name, known.first.Name, ""
	e.Size, e.Digest, e.Link = same.Size, same.Digest, same.Link
	if !e.ModTime.Equal(same.ModTime) || *e != same || h.nlink != known.links {
		return l.wrong("%q and %q are one file and disagree about it", e.Name, e.Link)
	}
	return nil
}

// rest wants nothing after the trailer but zeros: the kernel would unpack
// another archive.
func (l *lister) rest() error {
	for {
		n, err := l.r.Read(l.buf)
		if len(bytes.Trim(l.buf[:n], "\x00")) > 0 {
			return l.wrong("data after the trailer")
		}
		if l.offset += int64(n); l.offset > maxArchive {
			return l.wrong("larger than %d bytes", int64(maxArchive))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func typeOf(mode uint32) (rootfs.Type, bool) {
	for t, m := range modes {
		if m == cpio.FileMode(mode)&^0o7777 {
			return t, true
		}
	}
	return 0, false
}
