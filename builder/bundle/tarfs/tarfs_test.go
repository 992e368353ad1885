// SPDX-License-Identifier: Apache-2.0

package tarfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

func archive(t testing.TB, members ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		body := h.PAXRecords["TEST.body"]
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Mode, h.PAXRecords = int64(len(body)), 0o644, nil
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, PAXRecords: map[string]string{"TEST.body": body}}
}

func link(kind byte, name, target string) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Linkname: target}
}

func open(t testing.TB, data []byte) (*FS, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := Open(path)
	if err == nil {
		t.Cleanup(func() { a.Close() })
	}
	return a, err
}

func TestOpen(t *testing.T) {
	a, err := open(t, archive(t,
		&tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, file("d/a", "one"), file("./b", "two"), file("empty", ""),
		file("twice", "first"), file("twice", "second"), file(strings.Repeat("long/", 60)+"name", "PAX"),
		link(tar.TypeSymlink, "d/up", "../b"), link(tar.TypeSymlink, "d/side", "a"), link(tar.TypeLink, "hard", "d/a"), link(tar.TypeSymlink, "over", "d/up"),
		link(tar.TypeSymlink, "loop", "loop"), link(tar.TypeSymlink, "out", "../../etc/passwd"), link(tar.TypeSymlink, "absolute", "/etc/passwd"), link(tar.TypeFifo, "fifo", ""),
	))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"d/a": "one", "./d/../d/a": "one", "b": "two", "empty": "", "twice": "second", strings.Repeat("long/", 60) + "name": "PAX",
		"d/up": "two", "d/side": "one", "hard": "one", "over": "two",
	} {
		got, err := fs.ReadFile(a, name)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		f, err := a.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != int64(len(want)) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for name, want := range map[string]error{
		"c": fs.ErrNotExist, "../b": fs.ErrNotExist, "out": fs.ErrNotExist, "absolute": fs.ErrNotExist, "loop": fs.ErrNotExist, "": fs.ErrNotExist,
		"d": fs.ErrInvalid, "fifo": fs.ErrInvalid,
	} {
		if _, err := a.Open(name); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	good := archive(t, file("a", strings.Repeat("x", 2000)))
	many := make([]*tar.Header, limit.ArchiveMembers+1)
	for i := range many {
		many[i] = &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint("d", i, "/")}
	}
	for name, data := range map[string][]byte{
		"garbage": bytes.Repeat([]byte("garbage "), 200), "cut in a file": good[:1000], "cut in a header": good[:100], "gzip": {0x1f, 0x8b, 8, 0}, "too many members": archive(t, many...),
	} {
		if _, err := open(t, data); err == nil || !strings.Contains(err.Error(), "a.tar: not an uncompressed tar archive, or truncated: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
