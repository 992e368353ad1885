// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// newc is one entry as init/initramfs.c of the kernel reads it.
type newc struct {
	name                               string
	ino, mode, uid, gid, nlink, mtime  uint64
	devMajor, devMinor, rMajor, rMinor uint64
	body                               string
}

// parse reads an archive: buffer-format.rst, not the library that wrote it.
func parse(archive []byte) ([]newc, error) {
	var entries []newc
	for off := 0; ; {
		take := func(n int) (string, error) {
			if n < 0 || n > len(archive)-off {
				return "", fmt.Errorf("offset %d: %d bytes more are not there", off, n)
			}
			off += n
			return string(archive[off-n : off]), nil
		}
		pad := func() error {
			s, err := take(-off & 3)
			if err == nil && strings.Trim(s, "\x00") != "" {
				err = fmt.Errorf("offset %d: padding %q", off, s)
			}
			return err
		}
		head, err := take(110)
		if err != nil || head[:6] != "070701" {
			return nil, fmt.Errorf("offset %d: no header: %v", off, err)
		}
		var f [13]uint64
		for i := range f {
			if f[i], err = strconv.ParseUint(head[6+8*i:14+8*i], 16, 32); err != nil {
				return nil, fmt.Errorf("offset %d: %w", off, err)
			}
		}
		name, err := take(int(f[11]))
		if err != nil || !strings.HasSuffix(name, "\x00") || strings.Count(name, "\x00") != 1 || f[12] != 0 {
			return nil, fmt.Errorf("offset %d: name %q, check %d: %v", off, name, f[12], err)
		}
		if err := pad(); err != nil {
			return nil, err
		}
		body, err := take(int(f[6]))
		if err != nil {
			return nil, err
		}
		if err := pad(); err != nil {
			return nil, err
		}
		e := newc{strings.TrimSuffix(name, "\x00"), f[0], f[1], f[2], f[3], f[4], f[5], f[7], f[8], f[9], f[10], body}
		if e.name == "TRAILER!!!" {
			if off != len(archive) {
				return nil, fmt.Errorf("%d bytes after the trailer", len(archive)-off)
			}
			return entries, nil
		}
		entries = append(entries, e)
	}
}

func text(body string) *rootfs.Inode {
	return rootfs.NewFile(strings.NewReader(body), int64(len(body)), 0o644)
}

func symlink(target string) *rootfs.Inode {
	return &rootfs.Inode{Type: rootfs.Symlink, Perm: 0o777, Target: target, ModTime: time.Unix(5, 0)}
}

type named struct {
	name string
	n    *rootfs.Inode
}

func tree(t testing.TB, files ...named) *rootfs.Tree {
	t.Helper()
	tree := rootfs.New()
	for _, f := range files {
		if err := tree.Put(f.name, f.n); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func write(t testing.TB, tree *rootfs.Tree) ([]byte, Stats) {
	t.Helper()
	var b bytes.Buffer
	stats, err := Write(&b, tree)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), stats
}

func TestWrite(t *testing.T) {
	linked, null, link, pipe := text("linked"), rootfs.NewDevice(1, 3, 0o666), symlink("target"), &rootfs.Inode{Type: rootfs.FIFO, Perm: 0o600, ModTime: time.Unix(0, 0)}
	owned := text("12345")
	owned.UID, owned.GID, owned.Perm, owned.ModTime = math.MaxUint32, 1000, 0o4755, time.Unix(math.MaxUint32, 999)
	disk := &rootfs.Inode{Type: rootfs.BlockDevice, Perm: 0o660, Major: 4095, Minor: 1<<20 - 1, ModTime: time.Unix(0, 0)}
	in := tree(t,
		named{"z/second", linked}, named{"a/first", linked}, named{"b/third", linked},
		named{"dev/null", null}, named{"dev/zero", null}, named{"dev/disk", disk},
		named{"s1", link}, named{"s2", link}, named{"p1", pipe}, named{"p2", pipe},
		named{"owned", owned}, named{"empty", text("")}, named{"x/TRAILER!!!", text("no trailer")},
		// A header is told from a body of its length.
		named{"body of 110 bytes", text(strings.Repeat("h", 110))}, named{strings.Repeat("n", 109), text("")},
	)
	archive, stats := write(t, in)
	got, err := parse(archive)
	if err != nil {
		t.Fatal(err)
	}
	const (
		reg, dir, lnk, chr, blk, fifo = 0o100000, 0o040000, 0o120000, 0o020000, 0o060000, 0o010000
	)
	want := []newc{
		{name: ".", ino: 1, mode: dir | 0o755, nlink: 1},
		{name: "a", ino: 2, mode: dir | 0o755, nlink: 1},
		{name: "a/first", ino: 3, mode: reg | 0o644, nlink: 3, body: "linked"},
		{name: "b", ino: 4, mode: dir | 0o755, nlink: 1},
		{name: "b/third", ino: 3, mode: reg | 0o644, nlink: 3},
		{name: "body of 110 bytes", ino: 6, mode: reg | 0o644, nlink: 1, body: strings.Repeat("h", 110)},
		{name: "dev", ino: 7, mode: dir | 0o755, nlink: 1},
		{name: "dev/disk", ino: 8, mode: blk | 0o660, nlink: 1, rMajor: 4095, rMinor: 1<<20 - 1},
		{name: "dev/null", ino: 9, mode: chr | 0o666, nlink: 2, rMajor: 1, rMinor: 3},
		{name: "dev/zero", ino: 9, mode: chr | 0o666, nlink: 2, rMajor: 1, rMinor: 3},
		{name: "empty", ino: 11, mode: reg | 0o644, nlink: 1},
		{name: strings.Repeat("n", 109), ino: 12, mode: reg | 0o644, nlink: 1},
		{name: "owned", ino: 13, mode: reg | 0o4755, uid: math.MaxUint32, gid: 1000, nlink: 1, mtime: math.MaxUint32, body: "12345"},
		{name: "p1", ino: 14, mode: fifo | 0o600, nlink: 2},
		{name: "p2", ino: 14, mode: fifo | 0o600, nlink: 2},
		// The kernel does not link symlinks: each is one of its own.
		{name: "s1", ino: 16, mode: lnk | 0o777, nlink: 1, mtime: 5, body: "target"},
		{name: "s2", ino: 17, mode: lnk | 0o777, nlink: 1, mtime: 5, body: "target"},
		{name: "x", ino: 18, mode: dir | 0o755, nlink: 1},
		{name: "x/TRAILER!!!", ino: 19, mode: reg | 0o644, nlink: 1, body: "no trailer"},
		{name: "z", ino: 20, mode: dir | 0o755, nlink: 1},
		{name: "z/second", ino: 3, mode: reg | 0o644, nlink: 3},
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("entry %d:\ngot  %+v\nwant %+v", i, got[min(i, len(got)-1):][:1], want[min(i, len(want)-1):][:1])
		}
	}
	// Inodes, not names; whole pages.
	if inodes := int64(len(want) - 4); stats != (Stats{Entries: len(want), Bytes: 6 + 5 + 110 + 10, Unpacked: inodes*inodeCost + 4*pageSize}) {
		t.Errorf("stats are %+v", stats)
	}
	if again, _ := write(t, in); !bytes.Equal(archive, again) {
		t.Error("a second archive of the same tree is another one")
	}
}

func TestWriteNothing(t *testing.T) {
	archive, stats := write(t, rootfs.New())
	if got, err := parse(archive); err != nil || len(got) != 1 || got[0].name != "." || stats != (Stats{Entries: 1, Unpacked: inodeCost}) {
		t.Errorf("got %v, %+v, %v", got, stats, err)
	}
}

func TestWriteLast(t *testing.T) {
	in := tree(t, named{"a", text("1")}, named{"m/marker", text("2")}, named{"z", text("3")})
	var b bytes.Buffer
	stats, err := Write(&b, in, "m/marker", "none")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(b.Bytes())
	if err != nil || len(got) != 5 || got[4].name != "m/marker" || got[3].name != "z" || stats.Entries != 5 {
		t.Errorf("%+v, %+v, %v", got, stats, err)
	}
	if _, plain := write(t, in); plain != stats {
		t.Errorf("stats %+v, in another order %+v", plain, stats)
	}
}

// zeros is a file of any size that costs nothing.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func TestWriteRefuses(t *testing.T) {
	with := func(change func(n *rootfs.Inode)) *rootfs.Inode {
		n := text("body")
		change(n)
		return n
	}
	tests := []struct {
		name, path string
		n          *rootfs.Inode
		want       string
	}{
		{"file of 4 GiB", "big", rootfs.NewFile(zeros{}, 1<<32, 0o644), `"big": size 4294967296 does not fit the initramfs format (32 bits)`},
		{"largest size", "big", rootfs.NewFile(zeros{}, math.MaxInt64, 0o644), "does not fit"},
		{"negative size", "a", rootfs.NewFile(zeros{}, -1, 0o644), "size -1 does not fit"},
		{"time before 1970", "a", with(func(n *rootfs.Inode) { n.ModTime = time.Unix(-1, 0) }), "modification time -1 does not fit"},
		{"half a second before 1970", "a", with(func(n *rootfs.Inode) { n.ModTime = time.Unix(0, -5e8) }), "modification time -1 does not fit"},
		{"time after 2106", "a", with(func(n *rootfs.Inode) { n.ModTime = time.Unix(1<<32, 0) }), "modification time 4294967296 does not fit"},
		{"uid of 33 bits", "a", with(func(n *rootfs.Inode) { n.UID = 1 << 32 }), "uid 4294967296 does not fit"},
		{"negative uid", "a", with(func(n *rootfs.Inode) { n.UID = -1 }), "uid -1 does not fit"},
		{"gid of 33 bits", "a", with(func(n *rootfs.Inode) { n.GID = 1 << 32 }), "gid 4294967296 does not fit"},
		{"device major of 13 bits", "a", rootfs.NewDevice(1<<12, 0, 0o600), "device 4096:0 does not fit"},
		{"device minor of 21 bits", "a", rootfs.NewDevice(0, 1<<20, 0o600), "device 0:1048576 does not fit"},
		{"name of 4096 bytes", strings.Repeat("d/", 2047) + "ab", text(""), "longer than 4095 bytes"},
		{"target of 4096 bytes", "s", symlink(strings.Repeat("x", 4096)), "longer than 4095 bytes"},
		{"name of 256 bytes", "d/" + strings.Repeat("x", 256), text(""), "longer than 255 bytes"},
		{"symlink without a target", "s", symlink(""), "without a target"},
		{"name of the trailer", "TRAILER!!!", text(""), "end of the archive"},
		{"name with a NUL", "a\x00b", text(""), "NUL"},
		{"target with a NUL", "s", symlink("a\x00b"), "NUL"},
		{"content shorter than its size", "a", rootfs.NewFile(strings.NewReader("1234"), 5, 0o644), "content has 4 bytes, want 5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Write(io.Discard, tree(t, named{test.path, test.n}))
			misfit := !strings.HasPrefix(test.name, "content")
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\x00") || errors.Is(err, ErrMisfit) != misfit {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	t.Run("longest name and target", func(t *testing.T) {
		archive, _ := write(t, tree(t, named{strings.Repeat("d/", 2047) + "a", text("1")}, named{"s", symlink(strings.Repeat("x", 4095))}))
		if _, err := parse(archive); err != nil {
			t.Error(err)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		full := errors.New("disk full")
		for n := range 464 { // all of it has 464 bytes
			if _, err := Write(&limited{n, full}, tree(t, named{"a", text("body")}, named{"n", rootfs.NewDevice(1, 3, 0o600)})); !errors.Is(err, full) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
	})
}

type limited struct {
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, l.err
	}
	l.left -= len(p)
	return len(p), nil
}

// FuzzWrite makes a tree of the bytes, and wants it back from the archive.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("\x00a\x04body\x01b\x03a/b\x02c\x05\x01\x03\x00\x00\x03"))
	f.Add([]byte("\x00\x0aTRAILER!!!\x00\x06\x0ax/y/z\x00\x01a\x01b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() byte {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return b
		}
		str := func() string {
			n := min(int(next()), len(data))
			s := string(data[:n])
			data = data[n:]
			return s
		}
		in := rootfs.New()
		var last *rootfs.Inode
		for len(data) > 0 {
			kind, name := next(), str()
			n := &rootfs.Inode{Perm: uint32(next()) << 4, UID: int(next()), GID: int(next()) << 24, ModTime: time.Unix(int64(next())<<20, 0)}
			switch kind % 6 {
			case 0:
				body := str()
				file := rootfs.NewFile(strings.NewReader(body), int64(len(body)), n.Perm)
				file.UID, file.GID, file.ModTime = n.UID, n.GID, n.ModTime
				n = file
			case 1:
				n.Type, n.Target = rootfs.Symlink, str()
			case 2:
				n.Type, n.Major, n.Minor = rootfs.CharDevice, uint32(next())<<5, uint32(next())<<13
			case 3:
				n.Type, n.Major = rootfs.BlockDevice, uint32(next())
			case 4:
				n.Type = rootfs.FIFO
			case 5: // another name of the last one
				if last != nil {
					n = last
				}
			}
			if in.Put(name, n) == nil {
				last = n
			}
		}
		var b bytes.Buffer
		stats, err := Write(&b, in)
		if err != nil {
			return
		}
		entries, err := parse(b.Bytes())
		if err != nil || len(entries) != stats.Entries {
			t.Fatalf("%d entries, stats %+v, %v", len(entries), stats, err)
		}
		checkSame(t, in, entries)
		listed, err := list(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		checkList(t, listed, entries)
	})
}

// checkSame unpacks as the kernel does: the first name of an inode has the
// contents, names with its number are links.
func checkSame(t *testing.T, in *rootfs.Tree, entries []newc) {
	types := map[rootfs.Type]uint64{rootfs.Regular: 0o100000, rootfs.Directory: 0o040000, rootfs.Symlink: 0o120000, rootfs.CharDevice: 0o020000, rootfs.BlockDevice: 0o060000, rootfs.FIFO: 0o010000}
	numbers := map[uint64]*rootfs.Inode{}
	names := map[uint64]uint64{}
	links := map[uint64]uint64{}
	err := in.Walk(func(name string, n *rootfs.Inode) error {
		e := entries[0]
		entries = entries[1:]
		want := newc{
			name: name, ino: e.ino, mode: types[n.Type] | uint64(n.Perm), uid: uint64(n.UID), gid: uint64(n.GID), nlink: e.nlink,
			mtime: uint64(n.ModTime.Unix()), rMajor: uint64(n.Major), rMinor: uint64(n.Minor), body: n.Target,
		}
		if numbers[e.ino] == nil && n.Type == rootfs.Regular {
			body, err := io.ReadAll(n.Open())
			if err != nil {
				return err
			}
			want.body = string(body)
		}
		if e != want {
			t.Errorf("got  %+v\nwant %+v", e, want)
		}
		if first := numbers[e.ino]; first != nil && (first != n || n.Type == rootfs.Symlink) {
			t.Errorf("%q has the number of another file", name)
		}
		numbers[e.ino] = n
		names[e.ino]++
		links[e.ino] = e.nlink
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for number, n := range names {
		if links[number] != n {
			t.Errorf("inode %d has %d names and nlink %d", number, n, links[number])
		}
	}
}
