// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestLayers(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name" // does not fit a ustar header
	tests := []struct {
		name   string
		layers [][]member
		want   string
	}{
		{"no layers", nil, ""},
		{"empty layer", [][]member{{}}, ""},
		{"later layer wins", [][]member{{file("a", "1"), file("b", "1")}, {file("a", "2")}}, "a=2\nb=1\n"},
		{"later entry of one layer wins", [][]member{{file("a", "1"), file("a", "2")}}, "a=2\n"},
		{"global header", [][]member{{{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": "x"}}, ""}, file("a", "1")}}, "a=1\n"},
		{"parents that no layer has", [][]member{{file("a/b/c", "1")}}, "a/\na/b/\na/b/c=1\n"},
		{"parent after its child", [][]member{{file("a/b", "1"), owned(dir("a"), 5, 6, 0o700)}}, "a/ 700 5:6\na/b=1\n"},
		{"byte order", [][]member{{file("b", ""), file("a.b", ""), dir("a"), file("a/z", ""), file("B", "")}}, "B=\na/\na/z=\na.b=\nb=\n"},
		{"root entry", [][]member{{dir("./"), file("./a", "1")}}, "a=1\n"},

		{"whiteout", [][]member{{file("d/a", "1"), file("d/b", "1")}, {file("d/.wh.a", "")}}, "d/\nd/b=1\n"},
		{"whiteout of a folder", [][]member{{file("d/a/b", "1"), file("e", "1")}, {file(".wh.d", "")}}, "e=1\n"},
		{"whiteout of nothing", [][]member{{file("a", "1")}, {file(".wh.b", "")}}, "a=1\n"},
		{"whiteout before what replaces it", [][]member{{file("a", "1")}, {file(".wh.a", ""), file("a", "2")}}, "a=2\n"},
		{"whiteout after what replaces it", [][]member{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, "a=2\n"},
		{"whiteout before a folder of the same name", [][]member{{file("d/old", "1")}, {file(".wh.d", ""), dir("d"), file("d/new", "2")}}, "d/\nd/new=2\n"},
		{"whiteout after a folder of the same name", [][]member{{file("d/old", "1")}, {dir("d"), file("d/new", "2"), file(".wh.d", "")}}, "d/\nd/new=2\n"},
		{"whiteout before an implied folder", [][]member{{owned(dir("d"), 7, 7, 0o700), file("d/old", "1")}, {file(".wh.d", ""), file("d/new", "2")}}, "d/\nd/new=2\n"},
		{"whiteout after an implied folder", [][]member{{owned(dir("d"), 7, 7, 0o700), file("d/old", "1")}, {file("d/new", "2"), file(".wh.d", "")}}, "d/\nd/new=2\n"},
		{"whiteout, then back", [][]member{{file("a", "1")}, {file(".wh.a", "")}, {file("a", "3")}}, "a=3\n"},
		{"whiteout of the layer's own entry", [][]member{{file("a", "1"), file(".wh.a", "")}}, "a=1\n"},
		{"whiteout through a linked parent", [][]member{{file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {file("lib/.wh.a", "")}}, "lib -> usr/lib\nusr/\nusr/lib/\n"},
		{"whiteout in a folder that is new", [][]member{{file("a", "1")}, {file("d/.wh.a", ""), dir("d")}}, "a=1\nd/\n"},
		{"whiteout in a folder that was a file", [][]member{{file("d", "1")}, {dir("d"), file("d/.wh.a", ""), file("d/b", "2")}}, "d/\nd/b=2\n"},
		{"whiteouts twice and in a folder that goes", [][]member{{file("d/a", "1")}, {file(".wh.d", ""), file("d/.wh.a", ""), file(".wh.d", ""), file("d/b", "2")}}, "d/\nd/b=2\n"},
		{"whiteout of a symlink", [][]member{{file("a", "1"), symlink("s", "a")}, {file(".wh.s", "")}}, "a=1\n"},

		{"opaque before", [][]member{{file("d/a", "1"), file("d/e/b", "1")}, {file("d/.wh..wh..opq", ""), file("d/new", "2")}}, "d/\nd/new=2\n"},
		{"opaque after", [][]member{{file("d/a", "1"), file("d/e/b", "1")}, {file("d/new", "2"), file("d/.wh..wh..opq", "")}}, "d/\nd/new=2\n"},
		{"opaque and a kept subfolder", [][]member{{file("d/e/old", "1")}, {dir("d/e"), file("d/e/new", "2"), file("d/.wh..wh..opq", "")}}, "d/\nd/e/\nd/e/new=2\n"},
		{"opaque keeps the folder's own attributes", [][]member{{owned(dir("d"), 1, 2, 0o700), file("d/a", "1")}, {file("d/.wh..wh..opq", "")}}, "d/ 700 1:2\n"},
		{"opaque root", [][]member{{file("a", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}}, "b=2\n"},
		{"opaque hides no later layer", [][]member{{file("d/a", "1")}, {file("d/.wh..wh..opq", "")}, {file("d/a", "3")}}, "d/\nd/a=3\n"},

		{"folder to file", [][]member{{file("d/a", "1")}, {file("d", "2")}}, "d=2\n"},
		{"folder to file and back", [][]member{{file("d/a", "1")}, {file("d", "2")}, {file(".wh.d", ""), file("d/b", "3")}}, "d/\nd/b=3\n"},
		{"file to folder", [][]member{{file("d", "1")}, {dir("d"), file("d/b", "2")}}, "d/\nd/b=2\n"},
		{"folder to symlink", [][]member{{file("lib/a", "1")}, {symlink("lib", "usr/lib"), file("lib/b", "2")}}, "lib -> usr/lib\nusr/\nusr/lib/\nusr/lib/b=2\n"},
		{"symlink to folder", [][]member{{symlink("lib", "usr/lib"), file("lib/a", "1")}, {dir("lib"), file("lib/b", "2")}}, "lib/\nlib/b=2\nusr/\nusr/lib/\nusr/lib/a=1\n"},
		{"attributes of a folder", [][]member{{dir("d"), file("d/a", "1")}, {owned(dir("d"), 10, 20, 0o2775)}}, "d/ 2775 10:20\nd/a=1\n"},

		{"hard links", [][]member{{file("a", "1"), hardlink("b", "a"), hardlink("c", "b")}}, "a=1\nb=1 (a)\nc=1 (a)\n"},
		{"hard link over two layers", [][]member{{file("d/a", "1")}, {hardlink("b", "d/a")}}, "b=1\nd/\nd/a=1 (b)\n"},
		{"hard link whose target is replaced", [][]member{{file("a", "1"), hardlink("b", "a")}, {file("a", "2")}}, "a=2\nb=1\n"},
		{"hard link whose target is removed", [][]member{{file("a", "1"), hardlink("b", "a")}, {file(".wh.a", "")}}, "b=1\n"},
		{"hard link to itself", [][]member{{file("a", "1"), hardlink("a", "a")}}, "a=1\n"},
		{"hard link to a symlink", [][]member{{symlink("s", "nowhere"), hardlink("t", "s")}}, "s -> nowhere\nt -> nowhere (s)\n"},
		{"hard link to a device", [][]member{{device("a", 1, 3), hardlink("b", "a")}}, "a c1:3\nb c1:3 (a)\n"},
		{"hard link with an absolute target", [][]member{{file("d/a", "1"), hardlink("b", "/d/a")}}, "b=1\nd/\nd/a=1 (b)\n"},
		{"hard link through a linked parent", [][]member{{file("usr/lib/a", "1"), symlink("lib", "usr/lib"), hardlink("b", "lib/a")}}, "b=1\nlib -> usr/lib\nusr/\nusr/lib/\nusr/lib/a=1 (b)\n"},

		{"kinds", [][]member{{
			device("null", 1, 3),
			{tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 1}, ""},
			{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}, ""},
			owned(file("su", "x"), 0, 0, 0o4755), owned(file("sg", "x"), 0, 5, 0o2755), owned(dir("tmp"), 0, 0, 0o1777),
			owned(file("mail", ""), 1000, 1001, 0o600), owned(symlink("s", "x"), 3, 4, 0o777),
		}}, "mail= 600 1000:1001\nnull c1:3\npipe fifo 600\ns -> x 3:4\nsda b8:1 660 0:6\nsg=x 2755 0:5\nsu=x 4755\ntmp/ 1777\n"},
		{"owner beyond ustar", [][]member{{owned(file("a", ""), 1<<31, 4294967294, 0o644)}}, "a= 2147483648:4294967294\n"},

		{"linked parent", [][]member{{dir("usr/lib"), symlink("lib", "usr/lib")}, {file("lib/foo", "2")}}, "lib -> usr/lib\nusr/\nusr/lib/\nusr/lib/foo=2\n"},
		{"linked parent, absolute", [][]member{{symlink("lib", "/usr/lib"), file("lib/foo", "1")}}, "lib -> /usr/lib\nusr/\nusr/lib/\nusr/lib/foo=1\n"},
		{"linked parent over two links", [][]member{{symlink("a", "b/c"), symlink("b", "d"), file("a/foo", "1")}}, "a -> b/c\nb -> d\nd/\nd/c/\nd/c/foo=1\n"},

		{"dotdot", [][]member{{file("../../a", "1"), file("d/../../../b", "1")}}, "a=1\nb=1\n"},
		{"absolute", [][]member{{file("/etc/passwd", "1")}}, "etc/\netc/passwd=1\n"},
		{"symlink that leads outside", [][]member{{symlink("out", "../../../../etc"), file("out/passwd", "1")}}, "etc/\netc/passwd=1\nout -> ../../../../etc\n"},
		{"symlink to the root", [][]member{{symlink("d/root", "/"), file("d/root/a", "1")}}, "a=1\nd/\nd/root -> /\n"},
		{"dots and slashes", [][]member{{file("./d//./a", "1"), file("d/b/../c", "1")}}, "d/\nd/a=1\nd/c=1\n"},
		{"attributes by way of dotdot", [][]member{{dir("d/e"), owned(dir("d/e/.."), 0, 0, 0o700)}}, "d/ 700\nd/e/\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var layers []*blob
			for _, members := range test.layers {
				layers = append(layers, layer(t, members...))
			}
			tree, err := unpack(t, layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := list(t, tree); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
	t.Run("PAX long name and xattr", func(t *testing.T) {
		m := file(long, "x")
		m.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\xff"}
		tree, err := unpack(t, layer(t, m))
		if err != nil {
			t.Fatal(err)
		}
		n, err := tree.Lookup(long)
		if err != nil || n.Size != 1 || n.Xattrs["security.capability"] != "\x01\x00\xff" || n.ModTime.Unix() != 1 {
			t.Errorf("got %+v, %v", n, err)
		}
	})
}

func TestLayersRefused(t *testing.T) {
	deep := strings.Repeat(strings.Repeat("d", 99)+"/", 40)
	xattrs := file("a", "")
	xattrs.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", maxXattrs-len("user.x")+1)}
	tests := []struct {
		name    string
		members []member
		want    string
	}{
		{"hard link to a folder", []member{dir("d"), hardlink("a", "d")}, `"a": hard link to "d": is a directory`},
		{"hard link to nothing", []member{hardlink("a", "b")}, `"a": hard link to "b": file does not exist`},
		{"hard link into nothing", []member{hardlink("a", "b/c")}, `does not exist`},
		{"hard link to the root", []member{hardlink("a", "/")}, `does not exist`},
		{"hard link to a later entry", []member{hardlink("a", "b"), file("b", "")}, `does not exist`},
		{"file as a parent", []member{file("a", ""), file("a/b", "")}, "a parent is not a directory"},
		{"device as a parent", []member{device("a", 1, 3), file("a/b", "")}, "a parent is not a directory"},
		{"linked parent in a circle", []member{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}, "too many levels"},
		{"root as a file", []member{file(".", "x")}, "the root can only be a directory"},
		{"whiteout without a name", []member{file(".wh.", "")}, "whiteout without a name"},
		{"whiteout of dotdot", []member{file("d/.wh...", "")}, "whiteout without a name"},
		{"unknown type", []member{{tar.Header{Typeflag: 'Z', Name: "z"}, ""}}, `unknown entry type 'Z'`},
		{"device number beyond 32 bits", []member{device("a", 1<<40, 3)}, "device 1099511627776:3 does not exist"},
		{"negative device number", []member{device("a", -1, 3)}, "device -1:3 does not exist"},
		{"name beyond PATH_MAX", []member{file(strings.Repeat("d/", 200_000)+"x", "")}, "longer than 4095 bytes"},
		{"link target beyond PATH_MAX", []member{symlink("s", strings.Repeat("x", 4096))}, "longer than 4095 bytes"},
		// Each name is short enough; together they would nest without an end.
		{"path beyond PATH_MAX by way of links", []member{symlink("s", deep), symlink(deep+"t", deep), file("s/t/"+deep+"x", ""), symlink("u", "s/"+deep), file("u/x", "")}, "longer than 4095 bytes"},
		{"too many entries", make1001(), "than the limit allows"},
		{"too many parents that no layer has", []member{file(strings.Repeat("d/", 600)+"f", ""), file("e/"+strings.Repeat("d/", 600)+"f", "")}, "than the limit allows"},
		{"too many extended attributes", []member{xattrs}, "extended attributes of more than 65536 bytes"},
		{"too many bytes", []member{file("a", strings.Repeat("x", 1<<20)), file("b", "x")}, "than the limit allows"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := unpack(t, layer(t, test.members...))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func make1001() []member {
	members := make([]member, 1001)
	for i := range members {
		members[i] = file("a", "")
	}
	return members
}

// The limits hold for all layers together, which are read at the same time.
func TestLimitsOverLayers(t *testing.T) {
	var layers []*blob
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		layers = append(layers, layer(t, file(name, "1234")))
	}
	for _, test := range []struct {
		limits Limits
		fits   bool
	}{
		{Limits{Entries: 6, Bytes: 24}, true}, {Limits{Entries: 5, Bytes: 24}, false}, {Limits{Entries: 6, Bytes: 23}, false}, {Limits{Entries: 0, Bytes: 24}, false}, {Limits{Entries: 6, Bytes: 0}, false},
	} {
		tree, err := FromImage(t.Context(), image{layers: layers}, t.TempDir(), test.limits, quiet)
		if (err == nil) != test.fits || err != nil && !errors.Is(err, ErrEntries) && !errors.Is(err, ErrSize) {
			t.Errorf("%+v: %v", test.limits, err)
		}
		if err == nil {
			tree.Close()
		}
	}
}

// The memory for names and attributes is bounded for all layers together too,
// parents that no layer has included.
func TestMetadataLimit(t *testing.T) {
	m := symlink("name", "target")
	m.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "value"}
	l := layer(t, m, hardlink("b", "name"), file("dir/file", ""))
	need := 128 + len("name"+"target"+"user.x"+"value"+"b"+"name"+"dir/file"+"dir")
	for _, test := range []struct {
		limit int
		want  error
	}{{need, nil}, {need - 1, errMetadata}, {5, errMetadata}} {
		left := newBudget(DefaultLimits)
		left.metadata.Store(int64(test.limit))
		c, err := readBlob(t.Context(), l, l.digest, l.diffID, t.TempDir(), left, quiet)
		if c != nil {
			defer c.spool.Close()
		}
		if err == nil {
			err = New().apply(t.Context(), c, left)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%d bytes: %v", test.limit, err)
		}
	}
}

// What is kept of an entry does not keep its header, which can have 1 MiB.
func TestHeadersAreFreed(t *testing.T) {
	m := file(strings.Repeat("long/", 60)+"name", "")
	m.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "value", "comment": strings.Repeat("x", 1000<<10)}
	s := m
	s.Typeflag, s.Name, s.Linkname = tar.TypeSymlink, "s", m.Name
	members := []member{}
	for range 10 {
		members = append(members, m, s)
	}
	l := layer(t, members...)
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	c, err := readBlob(t.Context(), l, l.digest, l.diffID, t.TempDir(), newBudget(DefaultLimits), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.spool.Close()
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("%d entries take %d bytes", len(c.entries), grown)
	}
	runtime.KeepAlive(c.entries)
	runtime.KeepAlive(l)
}

// Whiteouts of a full folder that stand beside its files cost as much as any
// other entry.
func TestRepeatedWhiteouts(t *testing.T) {
	const n = 50_000
	var c changes
	for i := range n {
		c.entries = append(c.entries, change{name: fmt.Sprint("d/", i), inode: NewFile(nil, 0, 0o644)}, change{name: ".wh.d", inode: NewFile(nil, 0, 0)})
	}
	start := time.Now()
	tree := New()
	if err := tree.apply(t.Context(), &c, nil); err != nil || len(tree.root.children["d"].children) != n {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second { // each whiteout that looks at every file makes it a minute
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New().apply(ctx, &c, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCompression(t *testing.T) {
	plain := archive(t, file("a", strings.Repeat("content ", 1000)), file("b", "2"))
	half := len(plain) / 2
	tests := []struct {
		name string
		data []byte
	}{
		{"plain", plain},
		{"gzip", gzipped(t, plain)},
		{"gzip of several members", append(gzipped(t, plain[:half]), gzipped(t, plain[half:])...)},
		{"zstd", zstandard(t, plain)},
		{"zstd of several frames", append(zstandard(t, plain[:half]), zstandard(t, plain[half:])...)},
		{"zstd with a skippable frame", append(zstandard(t, plain), 0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'x', 'y')},
	}
	for _, test := range tests {
		// The media types of the wild lie about the compression.
		for _, mt := range []types.MediaType{types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer, types.DockerLayer, types.DockerUncompressedLayer} {
			t.Run(test.name+" as "+string(mt), func(t *testing.T) {
				l := layerOf(plain, test.data)
				l.mediaType = mt
				var read int64
				tree, err := FromImage(t.Context(), image{layers: []*blob{l}}, t.TempDir(), DefaultLimits, func(n int64) { read += n })
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				if got := list(t, tree); !strings.HasPrefix(got, "a=content content ") || !strings.HasSuffix(got, "b=2\n") {
					t.Errorf("got %.40q", got)
				}
				if read != int64(len(test.data)) {
					t.Errorf("progress of %d bytes, want %d", read, len(test.data))
				}
			})
		}
	}
}

func TestDamagedLayers(t *testing.T) {
	plain := archive(t, file("a", strings.Repeat("content ", 1000)))
	packed := gzipped(t, plain)
	wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0} // an empty frame that asks for a window of 2^28
	tests := []struct {
		name string
		lie  func(l *blob)
		want string
	}{
		{"gzip cut short", func(l *blob) { l.data = packed[:len(packed)-20] }, "truncated"},
		{"gzip cut short by its last byte", func(l *blob) { l.data = packed[:len(packed)-1] }, "truncated"},
		{"zstd cut short", func(l *blob) { l.data = zstandard(t, plain); l.data = l.data[:len(l.data)-8] }, "truncated"},
		{"plain cut short", func(l *blob) { *l = *layerOf(plain, plain); l.data = plain[:3000] }, "truncated"},
		{"plain without its end", func(l *blob) { *l = *layerOf(plain, plain); l.data = plain[:len(plain)-1024] }, "truncated: 1024 of"},
		{"cut to nothing", func(l *blob) { l.data = nil }, "truncated"},
		{"cut to a magic", func(l *blob) { l.data = packed[:2] }, "truncated"},
		{"archive cut inside good gzip", func(l *blob) {
			*l = *layerOf(plain[:3000], gzipped(t, plain[:3000]))
		}, "truncated"},
		{"digest mismatch", func(l *blob) { l.digest = digestOf([]byte("other")) }, "digest mismatch: the content is " + digestOf(packed).String()},
		{"flipped byte", func(l *blob) {
			l.data = []byte(strings.Replace(string(plain), "content", "Content", 1))
			l.size = int64(len(plain))
		}, "digest mismatch"},
		{"flipped byte in gzip", func(l *blob) { l.data = append([]byte{}, packed...); l.data[len(packed)/2] ^= 1 }, ""},
		{"diff id mismatch", func(l *blob) { l.diffID = digestOf([]byte("other")) }, "diff id mismatch: the config says " + digestOf([]byte("other")).String()},
		{"size too small", func(l *blob) { l.size-- }, "longer than its descriptor says"},
		{"size too large", func(l *blob) { l.size++ }, "truncated: 1 of"},
		{"negative size", func(l *blob) { l.size = -1 }, "longer than its descriptor says"},
		{"garbage after gzip", func(l *blob) { l.data = append(append([]byte{}, packed...), "garbage"...) }, ""},
		{"garbage after gzip that the digest covers", func(l *blob) { *l = *layerOf(plain, append(append([]byte{}, packed...), "much garbage"...)) }, "gzip: invalid header"},
		{"garbage after zstd that the digest covers", func(l *blob) { *l = *layerOf(plain, append(zstandard(t, plain), "garbage"...)) }, ""},
		{"garbage after the archive", func(l *blob) { l.data = append(append([]byte{}, plain...), "garbage"...); l.size = int64(len(l.data)) }, "digest mismatch"},
		{"garbage after the archive in gzip", func(l *blob) { *l = *layerOf(plain, gzipped(t, append(append([]byte{}, plain...), "garbage"...))) }, "diff id mismatch"},
		{"not an archive", func(l *blob) { b := []byte(strings.Repeat("hello ", 200)); *l = *layerOf(b, b) }, "invalid tar header"},
		{"zstd window of 256 MiB", func(l *blob) { *l = *layerOf(nil, wide) }, "window size exceeded"},
		{"foreign layer", func(l *blob) { l.mediaType = types.DockerForeignLayer }, "foreign layers are not supported"},
		{"restricted layer", func(l *blob) { l.mediaType = types.OCIRestrictedLayer }, "foreign layers are not supported"},
		{"plain restricted layer", func(l *blob) { l.mediaType = types.OCIUncompressedRestrictedLayer }, "foreign layers are not supported"},
		{"encrypted layer", func(l *blob) { l.mediaType = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }, "encrypted layers are not supported"},
		{"unknown media type", func(l *blob) { l.mediaType = "application/x-tar" }, `media type "application/x-tar" is not a layer`},
		{"no media type", func(l *blob) { l.mediaType = "" }, `media type "" is not a layer`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := layerOf(plain, packed)
			test.lie(bad)
			tmp := t.TempDir()
			tree, err := FromImage(t.Context(), image{layers: []*blob{layer(t, file("good", "")), bad}}, tmp, DefaultLimits, quiet)
			if err == nil || tree != nil {
				t.Fatal("taken")
			}
			for _, want := range []string{"layer 2 of 2: " + bad.digest.String() + ": ", test.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			}
			if left, _ := os.ReadDir(tmp); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("fewer diff ids than layers", func(t *testing.T) {
		_, err := FromImage(t.Context(), fewerDiffIDs{image{layers: []*blob{layerOf(plain, packed)}}}, t.TempDir(), DefaultLimits, quiet)
		if err == nil || err.Error() != "image config lists 0 diff ids, the manifest 1 layers" {
			t.Error(err)
		}
	})
}

type fewerDiffIDs struct{ image }

func (i fewerDiffIDs) ConfigFile() (*v1.ConfigFile, error) { return &v1.ConfigFile{}, nil }

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var opened int
	layers := make([]*blob, 50)
	for i := range layers {
		layers[i] = layer(t, file("a", strings.Repeat("x", 4<<20>>4)))
	}
	layers[0].opened = cancel
	last := layers[len(layers)-1]
	last.opened = func() { opened++ }
	_, err := FromImage(ctx, image{layers: layers}, t.TempDir(), DefaultLimits, quiet)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), layers[0].digest.String()) {
		t.Errorf("got %v", err)
	}
	if opened != 0 {
		t.Error("a layer was opened after the end")
	}
}

func TestFailureStopsTheOthers(t *testing.T) {
	bad := layer(t, file("a", ""))
	bad.digest = digestOf(nil)
	layers := []*blob{bad}
	for range 50 {
		layers = append(layers, layer(t, file("b", "")))
	}
	_, err := unpack(t, layers...)
	if err == nil || !strings.Contains(err.Error(), "layer 1 of 51") || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzLayer(f *testing.F) {
	f.Add(archive(f, file("a/b", "1"), hardlink("c", "a/b"), symlink("s", "../a"), file("s/.wh.b", ""), file("s/../../x", "")))
	f.Add(gzipped(f, archive(f, dir("d"), device("n", 1, 3), file("d/.wh..wh..opq", ""))))
	f.Add(zstandard(f, archive(f, file("a", ""), dir("a"))))
	f.Add(archive(f, file("d/.wh.s", ""), dir("s"), hardlink("i", "a/b"), file("s/.wh..wh..opq", ""), file("a/.wh.b", ""), file("d/l/.wh.b", "")))
	lower := layer(f, file("a/b", "1"), symlink("s", "/a"), hardlink("h", "a/b"), dir("d/e/f"), symlink("d/l", "../a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		upper := layerOf(nil, data)
		// The diff id is what the reader finds, so that it goes on to apply.
		left := newBudget(Limits{Entries: 1000, Bytes: 1 << 20})
		c, err := readBlob(t.Context(), upper, upper.digest, upper.diffID, t.TempDir(), left, quiet)
		if c != nil {
			defer c.spool.Close()
		}
		if err != nil && !strings.HasPrefix(err.Error(), "diff id mismatch") {
			return
		}
		tree, err := unpack(t, lower)
		if err != nil {
			t.Fatal(err)
		}
		failed := tree.apply(t.Context(), c, left)
		checkOrder(t, tree, failed, lower, c)
		if failed != nil || tree.Walk(checkLength) != nil {
			return
		}
		err = tree.Walk(func(name string, n *Inode) error {
			if n == tree.root {
				return nil
			}
			if name == "" || strings.HasPrefix(name, "/") || strings.Contains(name, "//") || strings.Contains("/"+name, "/"+whiteoutPrefix) ||
				strings.Contains("/"+name+"/", "/../") || strings.Contains("/"+name+"/", "/./") {
				t.Errorf("the tree has %q", name)
			}
			if got, err := tree.Lookup("/" + name); n.Type != Symlink && (err != nil || got != n) {
				t.Errorf("%q: looked up as %v, %v", name, got, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// checkOrder moves the whiteouts of a layer to its start and to its end, in
// their order and reversed, and wants the same tree.
func checkOrder(t *testing.T, want *Tree, failed error, lower *blob, c *changes) {
	t.Helper()
	var whiteouts, entries []change
	for _, ch := range c.entries {
		if _, ok := hides(ch.name); ok {
			whiteouts = append(whiteouts, ch)
		} else {
			entries = append(entries, ch)
		}
	}
	reversed := slices.Clone(whiteouts)
	slices.Reverse(reversed)
	for _, order := range [][]change{slices.Concat(whiteouts, entries), slices.Concat(entries, reversed)} {
		tree, err := unpack(t, lower)
		if err != nil {
			t.Fatal(err)
		}
		err = tree.apply(t.Context(), &changes{entries: order}, newBudget(Limits{Entries: 1000, Bytes: 1 << 20}))
		switch {
		case errors.Is(errors.Join(err, failed), ErrEntries) || errors.Is(errors.Join(err, failed), ErrSize):
		case (err == nil) != (failed == nil):
			t.Errorf("%v, in another order %v", failed, err)
		case err == nil && list(t, tree) != list(t, want):
			t.Errorf("got\n%sin another order\n%s", list(t, want), list(t, tree))
		}
	}
}
