// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tenon-build/tenon/builder/rootfs"
)

func list(r io.Reader) ([]Entry, error) {
	var entries []Entry
	err := List(r, func(e Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func TestList(t *testing.T) {
	setuid := text("linked")
	setuid.Perm, setuid.UID, setuid.GID, setuid.ModTime = 0o4755, 12, 1<<32-1, time.Unix(1<<32-1, 0)
	link := symlink("target")
	archive, _ := write(t, tree(t,
		named{"a", setuid}, named{"b/c", setuid}, named{"d", link}, named{"e", link}, named{"empty", text("")},
		named{"null", rootfs.NewDevice(1, 3, 0o666)}, named{"zz", rootfs.NewDevice(4095, 1<<20-1, 0o600)},
	))
	epoch, sum := time.Unix(0, 0).UTC(), sha256.Sum256([]byte("linked"))
	late, five := time.Unix(1<<32-1, 0).UTC(), time.Unix(5, 0).UTC()
	want := []Entry{
		{Name: ".", Type: rootfs.Directory, Perm: 0o755, ModTime: epoch},
		{Name: "a", Perm: 0o4755, UID: 12, GID: 1<<32 - 1, ModTime: late, Size: 6, Digest: sum},
		{Name: "b", Type: rootfs.Directory, Perm: 0o755, ModTime: epoch},
		{Name: "b/c", Perm: 0o4755, UID: 12, GID: 1<<32 - 1, ModTime: late, Size: 6, Digest: sum, Link: "a"},
		{Name: "d", Type: rootfs.Symlink, Perm: 0o777, ModTime: five, Target: "target"},
		{Name: "e", Type: rootfs.Symlink, Perm: 0o777, ModTime: five, Target: "target"},
		{Name: "empty", Perm: 0o644, ModTime: epoch, Digest: sha256.Sum256(nil)},
		{Name: "null", Type: rootfs.CharDevice, Perm: 0o666, ModTime: epoch, Major: 1, Minor: 3},
		{Name: "zz", Type: rootfs.CharDevice, Perm: 0o600, ModTime: epoch, Major: 4095, Minor: 1<<20 - 1},
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(archive), "byte by byte": iotest.OneByteReader(bytes.NewReader(archive)),
		"padded": bytes.NewReader(append(slices.Clone(archive), make([]byte, 512)...)),
	} {
		got, err := list(r)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

func TestListKeeps(t *testing.T) {
	linked := text("linked")
	archive, _ := write(t, tree(t, named{"a", text("body")}, named{"b", text("other")}, named{"c", linked}, named{"d", linked}))
	var got []string
	err := List(bytes.NewReader(archive), func(e Entry) error {
		got = append(got, e.Name+"="+e.Content)
		return nil
	}, "a", "c", "missing")
	if want := []string{".=", "a=body", "b=", "c=linked", "d="}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	head := raw(1, 0o100644, 1, "a", "")
	large := head[:54] + fmt.Sprintf("%08x", maxKept+1) + head[62:]
	if err := List(strings.NewReader(large), func(Entry) error { return nil }, "a"); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
}

// raw is an entry as a stranger may write it.
func raw(ino, mode, nlink int, name, body string) string {
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ino, mode, 0, 0, nlink, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
	s := head + name + "\x00"
	s += strings.Repeat("\x00", -len(s)&3) + body
	return s + strings.Repeat("\x00", -len(s)&3)
}

func TestListRefuses(t *testing.T) {
	trailer := raw(0, 0, 1, "TRAILER!!!", "")
	file := raw(1, 0o100644, 1, "a", "body")
	tests := []struct{ name, archive, want string }{
		{"nothing", "", "ends too early"},
		{"no trailer", file, "ends too early"},
		{"header that is cut", file[:50], "ends too early"},
		{"name that is cut", file[:111], "ends too early"},
		{"content that is cut", file[:len(file)-1], "ends too early"},
		{"other format", strings.Replace(file, "070701", "070707", 1), `"070707" is not the magic number`},
		{"checksums", strings.Replace(file, "070701", "070702", 1), "is not the magic number"},
		{"negative size", file[:54] + "-0000001" + file[62:], `"-0000001" is not a hexadecimal number`},
		{"sign", file[:54] + "+0000001" + file[62:], "is not a hexadecimal number"},
		{"letters", file[:6] + "0000000g" + file[14:], "is not a hexadecimal number"},
		{"no name", raw(1, 0o100644, 1, "", "") + trailer, "a name of 1 bytes"},
		{"long name", raw(1, 0o100644, 1, strings.Repeat("a", 4096), "") + trailer, "a name of 4097 bytes"},
		{"name without its end", strings.Replace(file, "a\x00", "ab", 1) + trailer, "does not end in its only NUL byte"},
		{"name with a NUL byte", raw(1, 0o100644, 1, "a\x00b", "") + trailer, "does not end in its only NUL byte"},
		{"absolute name", raw(1, 0o100644, 1, "/a", "") + trailer, `name "/a" is not clean`},
		{"root after a file", file + raw(2, 0o040755, 1, ".", "") + trailer, "the root is not the first entry"},
		{"root twice", raw(1, 0o040755, 1, ".", "") + raw(2, 0o040755, 1, ".", "") + trailer, "the root is not the first entry"},
		{"root that is a file", raw(1, 0o100755, 1, ".", "") + trailer, "or no directory"},
		{"dot dot", raw(1, 0o040755, 1, "../a", "") + trailer, `name "../a" is not clean`},
		{"slashes", raw(1, 0o100644, 1, "a//b", "") + trailer, `name "a//b" is not clean`},
		{"twice", file + file + trailer, `name "a" occurs twice`},
		{"socket", raw(1, 0o140644, 1, "a", "") + trailer, "mode 140644 is of no type"},
		{"no type", raw(1, 0o644, 1, "a", "") + trailer, "mode 644 is of no type"},
		{"more than a mode", raw(1, 0o1100644, 1, "a", "") + trailer, "mode 1100644 is of no type"},
		{"directory with content", raw(1, 0o040755, 1, "a", "x") + trailer, "1 bytes of content in what is not a regular file"},
		{"long target", raw(1, 0o120777, 1, "a", strings.Repeat("a", 4096)) + trailer, "a link target of 4096 bytes"},
		{"target with a NUL byte", raw(1, 0o120777, 1, "a", "b\x00c") + trailer, "with a NUL byte"},
		{"content in a later link", raw(1, 0o100644, 2, "a", "x") + raw(1, 0o100644, 2, "b", "y") + trailer, `a later name of "a" has content`},
		{"links of two modes", raw(1, 0o100644, 2, "a", "x") + raw(1, 0o104755, 2, "b", "") + trailer, `"b" and "a" are one file and disagree`},
		{"links of two counts", raw(1, 0o100644, 2, "a", "x") + raw(1, 0o100644, 3, "b", "") + trailer, "disagree"},
		{"second archive", file + trailer + file + trailer, "data after the trailer"},
		{"second archive after zeros", file + trailer + strings.Repeat("\x00", 1<<17) + file + trailer, "data after the trailer"},
	}
	for _, test := range tests {
		if got, err := list(strings.NewReader(test.archive)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
	}
	if _, err := list(strings.NewReader(file + trailer)); err != nil {
		t.Errorf("what the tests start from: %v", err)
	}
}

// Accidents of the reader are not the archive's fault, and visit's error comes back.
func TestListErrors(t *testing.T) {
	archive, _ := write(t, tree(t, named{"a", text("body")}))
	for n := range len(archive) {
		r := io.MultiReader(bytes.NewReader(archive[:n]), iotest.ErrReader(fs.ErrPermission))
		if _, err := list(r); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrFormat) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if err := List(bytes.NewReader(archive), func(Entry) error { return fs.ErrExist }); err != fs.ErrExist {
		t.Errorf("got %v", err)
	}
}

// FuzzList wants of whatever it is given an error or the entries that are there.
func FuzzList(f *testing.F) {
	trailer := raw(0, 0, 1, "TRAILER!!!", "")
	f.Add([]byte(raw(1, 0o100644, 2, "a", "x") + raw(1, 0o100644, 2, "b", "") + raw(3, 0o120777, 1, "l", "a") + trailer))
	f.Add([]byte(raw(1, 0o020644, 1, "a", "") + raw(1, 0o040755, 2, "b", "") + trailer + "\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := list(bytes.NewReader(data))
		if err != nil {
			return
		}
		want, err := parse(data)
		if err != nil {
			return // padding that is not zero, or zeros after the trailer
		}
		checkList(t, got, want)
	})
}

// checkList compares with what the tests' own reader finds.
func checkList(t *testing.T, got []Entry, want []newc) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	bodies := map[string]string{}
	for i, w := range want {
		g := got[i]
		perm, mtime := uint64(g.Perm), uint64(g.ModTime.Unix())
		if g.Name != w.name || perm != w.mode&0o7777 || uint64(g.UID) != w.uid || uint64(g.GID) != w.gid || mtime != w.mtime {
			t.Errorf("got %+v, want %+v", g, w)
		}
		body := w.body
		switch {
		case g.Link != "":
			body = bodies[g.Link]
		case g.Type == rootfs.Symlink && g.Target != body:
			t.Errorf("%q: target %q, want %q", g.Name, g.Target, body)
		}
		if bodies[g.Name] = body; g.Type == rootfs.Regular && (g.Size != int64(len(body)) || g.Digest != sha256.Sum256([]byte(body))) {
			t.Errorf("%q: content of %d bytes is not %q", g.Name, g.Size, body)
		}
		device := g.Type == rootfs.CharDevice || g.Type == rootfs.BlockDevice
		if device && (uint64(g.Major) != w.rMajor || uint64(g.Minor) != w.rMinor) {
			t.Errorf("%q: device %d:%d, want %d:%d", g.Name, g.Major, g.Minor, w.rMajor, w.rMinor)
		}
	}
}
