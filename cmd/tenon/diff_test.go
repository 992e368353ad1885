// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/diff"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

var update = flag.Bool("update", false, "rewrite testdata/diff.*")

// detached is a detached bundle for tests to change before it is written.
type detached struct {
	manifest manifest.Manifest
	files    *rootfs.Tree
	config   string
	fidelity fidelity.Report
}

func newDetached(t *testing.T) *detached {
	t.Helper()
	zeros := "sha256:" + strings.Repeat("0", 64)
	d := &detached{
		manifest: manifest.Manifest{
			Version: manifest.Version, Name: "web", Platform: "linux/amd64", Target: "qemu", Recipe: "static", CommandLine: "quiet console=ttyS0",
			Kernel:    manifest.Kernel{Release: "6.1.0", Source: zeros, Config: zeros},
			Initramfs: manifest.Initramfs{Size: 3 << 20, Unpacked: 8 << 20, Entries: 9},
			App:       manifest.App{Entrypoint: []string{"/bin/web"}, Env: []string{"PATH=/bin", "MODE=fast"}},
			Claims: manifest.Claims{
				CPUs: manifest.Range{Min: 1, Max: 2}, Memory: manifest.Range{Min: 64 << 20, Max: 128 << 20},
				Devices: []manifest.Device{{Kind: "net", Count: manifest.Range{Min: 1, Max: 1}}},
			},
			Image: manifest.Image{Reference: "registry.example/web:1", Digest: zeros},
		},
		files: rootfs.New(), config: "CONFIG_EXPERT=y\nCONFIG_NR_CPUS=64\n", fidelity: fidelity.Report{Version: fidelity.Version, Entries: 9},
	}
	d.put(t, "bin/web", d.file("web 1", 0o755))
	d.put(t, "etc/web.conf", d.file("threads 4\n", 0o644))
	return d
}

func (d *detached) file(content string, perm uint32) *rootfs.Inode {
	return rootfs.NewFile(strings.NewReader(content), int64(len(content)), perm)
}

func (d *detached) put(t *testing.T, name string, n *rootfs.Inode) {
	t.Helper()
	if err := d.files.Put(name, n); err != nil {
		t.Fatal(err)
	}
}

// xattrs puts a table of extended attributes.
func (d *detached) xattrs(t *testing.T, list ...manifest.Xattr) {
	t.Helper()
	var table []byte
	for _, x := range list {
		table = manifest.AppendXattr(table, x)
	}
	d.put(t, manifest.XattrsPath, d.file(string(table), 0o600))
}

// write writes the bundle into the working directory.
func (d *detached) write(t *testing.T, name string) {
	t.Helper()
	var archive bytes.Buffer
	if _, err := initramfs.Write(&archive, d.files); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll(archive.Bytes(), nil)
	d.manifest.Initramfs.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(packed))
	fidelity, err := json.Marshal(d.fidelity)
	if err != nil {
		t.Fatal(err)
	}
	c := bundle.Content{
		Manifest: &d.manifest, Kernel: writeTemp(t, "bzImage", "kernel"), Config: writeTemp(t, "config", d.config),
		SystemMap: writeTemp(t, "map", "m"), Fidelity: fidelity, Initramfs: writeTemp(t, "initramfs", string(packed)),
	}
	b, err := bundle.New(c)
	if err == nil {
		err = b.Save(t.Context(), name, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// twoBundles writes a.tenon and b.tenon, which differ in all that they can.
func twoBundles(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	a, b := newDetached(t), newDetached(t)
	both := func(name string, na, nb *rootfs.Inode) {
		if na != nil {
			a.put(t, name, na)
		}
		if nb != nil {
			b.put(t, name, nb)
		}
	}
	both("bin/su", a.file("su", 0o4755), b.file("su", 0o755))
	both("bin/passwd", a.file("passwd", 0o755), b.file("passwd", 0o6755))
	both("bin/new", nil, b.file("new", 0o4755))
	both("bin/\x1b[2Jold\xff", a.file("old", 0o2755), nil)
	both("etc/hosts", a.file("127.0.0.1 a\n", 0o644), b.file("127.0.0.1 other\n", 0o644))
	both("etc/link", &rootfs.Inode{Type: rootfs.Symlink, Perm: 0o777, Target: "hosts", ModTime: time.Unix(0, 0)}, &rootfs.Inode{Type: rootfs.Symlink, Perm: 0o777, Target: "web.conf", ModTime: time.Unix(0, 0)})
	both("dev/node", rootfs.NewDevice(1, 3, 0o666), rootfs.NewDevice(1, 5, 0o666))
	both("dev/disk", &rootfs.Inode{Type: rootfs.BlockDevice, Perm: 0o600, Major: 8, ModTime: time.Unix(0, 0)}, &rootfs.Inode{Type: rootfs.FIFO, Perm: 0o600, ModTime: time.Unix(0, 0)})
	owned, later := b.file("data", 0o600), b.file("later", 0o644)
	owned.UID, owned.GID, later.ModTime = 100, 101, time.Unix(1e9, 0)
	both("data", a.file("data", 0o600), owned)
	both("later", a.file("later", 0o644), later)
	linked := b.file("linked", 0o644)
	both("linked/1", a.file("linked", 0o644), linked)
	both("linked/2", a.file("linked", 0o644), linked)
	both("same", a.file("same", 0o4755), b.file("same", 0o4755))

	both("bin/ping", a.file("ping", 0o755), b.file("ping", 0o755))
	both("bin/traceroute", nil, b.file("traceroute", 0o755))
	netRaw := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	a.xattrs(t, manifest.Xattr{Name: "trusted.x"}, manifest.Xattr{Path: "bin/ping", Name: "security.capability", Value: []byte(netRaw)}, manifest.Xattr{Path: "bin/web", Name: "security.ima", Value: []byte("1")})
	b.xattrs(t, manifest.Xattr{Name: "trusted.x"}, manifest.Xattr{Path: "bin/traceroute", Name: "security.capability", Value: []byte(netRaw)},
		manifest.Xattr{Path: "bin/web", Name: "security.ima", Value: []byte("2")}, manifest.Xattr{Path: "linked/2", Name: "security.capability", Value: []byte(netRaw)})
	b.fidelity.Dropped = []fidelity.Dropped{{By: "recipe static", Entries: 3, Bytes: 4096}, {By: "waiver big*", Path: "big", Why: "size", Entries: 1, Bytes: 4096}}
	b.fidelity.Changed = []fidelity.Change{{Path: "etc/hosts", What: "xattr user.x dropped", By: "waiver **"}}
	a.config += "CONFIG_MODULES=y\nCONFIG_ODD=y\n"
	b.config += "# CONFIG_MODULES is not set\nCONFIG_NET=y\nCONFIG_VIRTIO_NET=y\n"
	m := &b.manifest
	m.CommandLine += " panic=1"
	m.App.Env = []string{"MODE=safe", "PATH=/bin", "EXTRA=1"}
	m.App.Health = &manifest.Health{TCP: 80, Interval: time.Second, Timeout: time.Second, Retries: 3}
	m.Claims.Memory.Max = 1 << 30
	a.manifest.Parameters = []manifest.Parameter{{Name: "TZ", Type: "string"}, {Name: "N", Type: "int"}}
	m.Parameters = []manifest.Parameter{{Name: "TZ", Type: "string", Description: "time zone"}}
	m.Image.Reference, m.Image.Digest = "registry.example/web:2", "sha256:"+strings.Repeat("1", 64)
	m.Initramfs.Size, m.Initramfs.Unpacked, m.Initramfs.Entries = 2<<20, 9<<20, 10
	a.write(t, "a.tenon")
	b.write(t, "b.tenon")
}

// digestRE takes the digests out of what is compared with the golden files: they
// depend on what zstd makes of the archives.
var digestRE = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

func TestDiff(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	twoBundles(t)
	for format, args := range map[string][]string{"txt": {"diff", "a.tenon", "b.tenon"}, "json": {"diff", "--format", "json", "a.tenon", "b.tenon"}} {
		r := invoke(t, args...)
		if r.code != 1 || r.stderr != "" {
			t.Errorf("%q: %+v", args, r)
		}
		got := digestRE.ReplaceAllString(r.stdout, "sha256:...")
		golden := filepath.Join(here, "testdata", "diff."+format)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s (-update writes it): %v\n%s", golden, err, got)
		}
	}
}

func TestDiffSame(t *testing.T) {
	twoBundles(t)
	if r := invoke(t, "diff", "a.tenon", "oci:a.tenon"); r != (reply{}) {
		t.Errorf("%+v", r)
	}
	r := invoke(t, "diff", "a.tenon", "a.tenon", "--format", "json")
	var got diff.Report
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 || !got.Same || got.Files == nil || len(got.Files) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestDiffInterrupted(t *testing.T) {
	twoBundles(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := invokeContext(t, ctx, "diff", "a.tenon", "b.tenon"); r.code != 2 || r.stderr != "tenon: error: interrupted\n" || r.stdout != "" {
		t.Errorf("%+v", r)
	}
}

// A difference that has no name yet is one all the same.
func TestDiffDigestAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	newDetached(t).write(t, "a.tenon")
	d := newDetached(t)
	d.fidelity.Added = []string{} // as null before
	d.write(t, "b.tenon")
	if r := invoke(t, "diff", "a.tenon", "b.tenon"); r.code != 1 || !strings.Contains(r.stdout, "layers.fidelity") || strings.Count(r.stdout, "\n") > 6 {
		t.Errorf("%+v", r)
	}
}

func TestDiffTrouble(t *testing.T) {
	t.Chdir(t.TempDir())
	newDetached(t).write(t, "good.tenon")
	damage := func(name string, change func(d *detached)) {
		d := newDetached(t)
		change(d)
		d.write(t, name)
	}
	damage("config.tenon", func(d *detached) { d.config = "odd\n" })
	damage("fidelity.tenon", func(d *detached) { d.fidelity.Version = 1 })
	damage("xattrs.tenon", func(d *detached) { d.xattrs(t, manifest.Xattr{Path: "nowhere", Name: "trusted.x"}) })
	damage("table.tenon", func(d *detached) { d.put(t, manifest.XattrsPath, d.file("odd", 0o600)) })
	damage("flipped.tenon", func(*detached) {})
	blobs, err := filepath.Glob("flipped.tenon/blobs/sha256/*")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(blobs, func(path string) bool {
		data, err := os.ReadFile(path)
		return err == nil && bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd})
	})
	data, err := os.ReadFile(blobs[i])
	if err == nil {
		data[len(data)-1] ^= 1 // zstd's own checksum
		err = os.WriteFile(blobs[i], data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"", "accepts 2 arg(s), received 0 (see 'tenon diff --help')"},
		{"good.tenon", "accepts 2 arg(s), received 1"},
		{"a b c", "accepts 2 arg(s), received 3"},
		{"good.tenon good.tenon --format yaml", `--format "yaml" is neither text nor json`},
		{"good.tenon missing", `opening bundle "missing"`},
		{"missing good.tenon", `opening bundle "missing"`},
		{"good.tenon config.tenon", `reading bundle "config.tenon": invalid bundle: .config:1`},
		{"fidelity.tenon good.tenon", `reading bundle "fidelity.tenon": fidelity report: unsupported version 1`},
		{"good.tenon xattrs.tenon", `reading bundle "xattrs.tenon": invalid bundle: initramfs: table of extended attributes: there is no file "nowhere"`},
		{"good.tenon table.tenon", `reading bundle "table.tenon": invalid bundle: initramfs: table of extended attributes: cut off`},
		{"good.tenon flipped.tenon", `reading bundle "flipped.tenon": initramfs: `},
	} {
		r := invoke(t, append([]string{"diff"}, strings.Fields(test.args)...)...)
		if r.code != 2 || !strings.Contains(r.stderr, test.want) || r.stdout != "" || strings.Count(r.stderr, "tenon: error: ") != 1 {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
}
