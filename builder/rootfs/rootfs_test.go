// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// member is one entry of a layer's archive.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func dir(name string) member {
	return member{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func device(name string, major, minor int64) member {
	return member{tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}, ""}
}

// owned changes owner and mode of an entry.
func owned(m member, uid, gid int, mode int64) member {
	m.Uid, m.Gid, m.Mode = uid, gid, mode
	return m
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		h.Size, h.ModTime = int64(len(m.body)), time.Unix(1, 0)
		if h.Typeflag == tar.TypeXGlobalHeader {
			h.ModTime = time.Time{}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blob is a v1.Layer that says of itself whatever a test wants.
type blob struct {
	data           []byte
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
	opened         func()
}

func (l *blob) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *blob) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l *blob) Size() (int64, error)                 { return l.size, nil }
func (l *blob) MediaType() (types.MediaType, error)  { return l.mediaType, nil }
func (l *blob) Uncompressed() (io.ReadCloser, error) { panic("not used") }
func (l *blob) Compressed() (io.ReadCloser, error) {
	if l.opened != nil {
		l.opened()
	}
	return io.NopCloser(bytes.NewReader(l.data)), nil
}

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// layerOf makes a layer of plain bytes, stored as data.
func layerOf(plain, data []byte) *blob {
	return &blob{data: data, digest: digestOf(data), diffID: digestOf(plain), size: int64(len(data)), mediaType: types.OCILayer}
}

func layer(t testing.TB, members ...member) *blob {
	t.Helper()
	plain := archive(t, members...)
	return layerOf(plain, plain)
}

// image has just what FromImage asks for.
type image struct {
	v1.Image
	layers []*blob
}

func (i image) Layers() ([]v1.Layer, error) {
	var out []v1.Layer
	for _, l := range i.layers {
		out = append(out, l)
	}
	return out, nil
}

func (i image) ConfigFile() (*v1.ConfigFile, error) {
	var c v1.ConfigFile
	for _, l := range i.layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.diffID)
	}
	return &c, nil
}

func quiet(int64) {}

func unpack(t testing.TB, layers ...*blob) (*Tree, error) {
	t.Helper()
	tree, err := FromImage(t.Context(), image{layers: layers}, t.TempDir(), Limits{Entries: 1000, Bytes: 1 << 20}, quiet)
	if err == nil {
		t.Cleanup(func() { tree.Close() })
	}
	return tree, err
}

// list shows a tree, one line a name: mode and owner where they are not the
// usual ones, contents, targets, and for hard links the first name.
func list(t testing.TB, tree *Tree) string {
	t.Helper()
	var out strings.Builder
	first := map[*Inode]string{}
	err := tree.Walk(func(name string, n *Inode) error {
		if n == tree.root {
			return nil
		}
		what := ""
		switch n.Type {
		case Regular:
			data, err := io.ReadAll(n.Open())
			if err != nil {
				return err
			}
			what = "=" + string(data)
		case Directory:
			what = "/"
		case Symlink:
			what = " -> " + n.Target
		case CharDevice:
			what = fmt.Sprintf(" c%d:%d", n.Major, n.Minor)
		case BlockDevice:
			what = fmt.Sprintf(" b%d:%d", n.Major, n.Minor)
		case FIFO:
			what = " fifo"
		}
		usual := map[Type]uint32{Regular: 0o644, Directory: 0o755, Symlink: 0o777, CharDevice: 0o600}[n.Type]
		if n.Perm != usual {
			what += fmt.Sprintf(" %o", n.Perm)
		}
		if n.UID != 0 || n.GID != 0 {
			what += fmt.Sprintf(" %d:%d", n.UID, n.GID)
		}
		if n.Type != Directory {
			if f := first[n]; f != "" {
				what += " (" + f + ")"
			}
			first[n] = cmp.Or(first[n], name)
		}
		fmt.Fprintf(&out, "%s%s\n", name, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// A few links can ask for more steps than any path, for each name of an image.
func TestLinksToFarAway(t *testing.T) {
	tree := New()
	for i := range 39 {
		target := strings.Repeat("x/../", 800) + fmt.Sprintf("l%d", i+1)
		if err := tree.Put(fmt.Sprintf("l%d", i), &Inode{Type: Symlink, Target: target}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x", "l39"} {
		if err := tree.Put(name, &Inode{Type: Directory, children: map[string]*Inode{}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tree.Lookup("l0"); !errors.Is(err, errTooManyLinks) {
		t.Errorf("got %v", err)
	}
	if _, err := tree.Lookup("l36"); err != nil {
		t.Error(err)
	}
}
