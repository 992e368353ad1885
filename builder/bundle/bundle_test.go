// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer/strictjson"
)

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// content is a bundle's content, sealed unless initramfs is given. The
// kernel's size is no multiple of 8.
func content(t testing.TB, initramfs string) Content {
	t.Helper()
	dir, sealed := t.TempDir(), initramfs == ""
	if sealed {
		initramfs = sealedInitramfs
	}
	m := &manifest.Manifest{
		Version: manifest.Version, Name: "web", Platform: "linux/amd64", Target: "qemu", CommandLine: "quiet",
		Kernel:    manifest.Kernel{Release: "6.1.0", Source: "sha256:" + sha(nil), Config: "sha256:" + sha([]byte("CONFIG_X=y\n"))},
		Initramfs: manifest.Initramfs{Sealed: sealed, Digest: "sha256:" + sha([]byte(initramfs)), Size: 9},
		App:       manifest.App{Entrypoint: []string{"/web"}},
		Claims:    manifest.Claims{CPUs: manifest.Range{Min: 1, Max: 2}, Memory: manifest.Range{Min: 1 << 20, Max: 2 << 20}},
		Image:     manifest.Image{Reference: "oci:web", Digest: "sha256:" + sha([]byte("image"))},
	}
	c := Content{
		Manifest: m, Kernel: write(t, filepath.Join(dir, "bzImage"), []byte("bzImage of 21 bytes..")),
		Config: write(t, filepath.Join(dir, "config"), []byte("CONFIG_X=y\n")), SystemMap: write(t, filepath.Join(dir, "System.map"), []byte("map")), Fidelity: []byte("{}"),
	}
	c.Initramfs = write(t, filepath.Join(dir, "initramfs"), []byte(initramfs))
	return c
}

const sealedInitramfs = "sealed initramfs"

// writeBundle makes a bundle and saves it.
func writeBundle(out string, c Content) (v1.Hash, error) {
	b, err := New(c)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("making bundle %q: %w", out, err)
	}
	return b.Digest, b.Save(context.Background(), out, nil)
}

// snapshot lists everything below a folder with its content.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprint(&out, rel, " ", d.Type())
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprint(&out, " ", sha(data))
		}
		fmt.Fprintln(&out)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

var allLayers = []types.MediaType{KernelType, ConfigType, SystemMapType, FidelityType, InitramfsType}

func TestWriteAndOpen(t *testing.T) {
	for _, initramfs := range []string{"", "initramfs"} {
		c := content(t, initramfs)
		dir := t.TempDir()
		var digests []string
		for _, out := range []string{"oci:" + dir + "/a", dir + "/b", "oci-archive:" + dir + "/c.tar", "oci:" + dir + "/d/"} {
			digest, err := writeBundle(out, c)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(strings.TrimPrefix(out, "oci-archive:"), "oci:")
			for _, ref := range []string{out, path} {
				b, err := Open(t.Context(), ref)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if b.Digest != digest || b.Manifest.Name != "web" {
					t.Errorf("%s: %v, %+v", ref, b.Digest, b.Manifest)
				}
				want := map[types.MediaType]string{
					KernelType: "bzImage of 21 bytes..\x00\x00\x00", ConfigType: "CONFIG_X=y\n", SystemMapType: "map", FidelityType: "{}", InitramfsType: cmp.Or(initramfs, sealedInitramfs),
				}
				for _, mt := range allLayers {
					got, err := b.ReadLayer(mt)
					if string(got) != want[mt] || err != nil || b.Size(mt) != int64(len(want[mt])) || b.LayerDigest(mt).Hex != sha(got) {
						t.Errorf("%s: %q, %v, size %d, digest %s", mt, got, err, b.Size(mt), b.LayerDigest(mt))
					}
				}
				if _, err := b.OpenLayer("x"); !errors.Is(err, ErrInvalid) {
					t.Errorf("a layer that does not exist: %v", err)
				}
			}
			digests = append(digests, digest.String())
		}
		if len(slices.Compact(digests)) != 1 {
			t.Errorf("digests differ: %v", digests)
		}
		if a, b := snapshot(t, dir+"/a"), snapshot(t, dir+"/b"); a != b {
			t.Errorf("two directories:\n%s\n%s", a, b)
		}
	}
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	old, renamed := content(t, ""), content(t, "initramfs")
	renamed.Manifest.Name = "new"
	forms := []string{"oci:" + dir + "/out", "oci-archive:" + dir + "/out"}
	for _, before := range forms {
		for _, after := range forms {
			if _, err := writeBundle(before, old); err != nil {
				t.Fatal(err)
			}
			digest, err := writeBundle(after, renamed)
			if err != nil {
				t.Errorf("%s over %s: %v", after, before, err)
				continue
			}
			b, err := Open(t.Context(), after)
			if err != nil || b.Digest != digest || b.Manifest.Name != "new" {
				t.Fatalf("%s over %s: %+v, %v", after, before, b, err)
			}
			b.Close()
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("%s over %s: left %v", after, before, left)
			}
		}
	}
	t.Run("open bundle goes on", func(t *testing.T) {
		for _, out := range forms {
			if _, err := writeBundle(out, old); err != nil {
				t.Fatal(err)
			}
			b, err := Open(t.Context(), out)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			r, err := b.OpenLayer(KernelType)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := writeBundle(out, renamed); err != nil {
				t.Fatal(err)
			}
			if data, err := io.ReadAll(r); err != nil || !strings.HasPrefix(string(data), "bzImage") {
				t.Errorf("%q, %v", data, err)
			}
		}
	})
	t.Run("symlink to a bundle", func(t *testing.T) {
		if _, err := writeBundle(dir+"/target", old); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("target", dir+"/link"); err != nil {
			t.Fatal(err)
		}
		want := snapshot(t, dir+"/target")
		if _, err := writeBundle(dir+"/link", renamed); err != nil {
			t.Fatal(err)
		}
		if snapshot(t, dir+"/target") != want {
			t.Error("what the link led to was changed")
		}
	})
}

func TestWriteRefusesToDestroy(t *testing.T) {
	other := map[string]func(path string) error{
		"file":             func(p string) error { return os.WriteFile(p, []byte("precious"), 0o644) },
		"empty file":       func(p string) error { return os.WriteFile(p, nil, 0o644) },
		"folder":           func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(p+"/f", nil, 0o644)) },
		"empty folder":     func(p string) error { return os.Mkdir(p, 0o755) },
		"dangling symlink": func(p string) error { return os.Symlink("nowhere", p) },
		"another layout": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(p+"/index.json", []byte(`{"schemaVersion":2,"manifests":[]}`), 0o644))
		},
		"bundle with notes in it": func(p string) error {
			_, err := writeBundle(p, content(t, ""))
			return errors.Join(err, os.WriteFile(p+"/notes.txt", nil, 0o644))
		},
		"bundle with a folder in it": func(p string) error {
			_, err := writeBundle(p, content(t, ""))
			return errors.Join(err, os.Mkdir(p+"/blobs/sub", 0o755))
		},
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o644) },
		"fifo for an index": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), unix.Mkfifo(p+"/index.json", 0o644))
		},
		"bundle beside an image": func(p string) error {
			_, err := writeBundle(p, content(t, ""))
			image := fmt.Sprintf(`"manifests":[{"mediaType":%q,"digest":"sha256:%s","size":1},`, types.OCIManifestSchema1, sha(nil))
			damaged{t, p}.replace("index.json", `"manifests":[`, image)
			return err
		},
	}
	for name, make := range other {
		for _, form := range []string{"", "oci:", "oci-archive:"} {
			t.Run(name+" "+form, func(t *testing.T) {
				dir := t.TempDir()
				if err := make(dir + "/out"); err != nil {
					t.Fatal(err)
				}
				before := snapshot(t, dir)
				if err := CheckOutput(form + dir + "/out"); !errors.Is(err, ErrExists) {
					t.Errorf("CheckOutput: %v", err)
				}
				if _, err := writeBundle(form+dir+"/out", content(t, "")); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), dir+"/out") {
					t.Errorf("Write: %v", err)
				}
				if got := snapshot(t, dir); got != before {
					t.Errorf("got\n%swant\n%s", got, before)
				}
			})
		}
	}
}

func TestWriteFails(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *Content)
		want   string
	}{
		{"no kernel", func(c *Content) { c.Kernel += ".missing" }, "bzImage.missing"},
		{"empty kernel", func(c *Content) { _ = os.Truncate(c.Kernel, 0) }, "kernel.v1 has 0 bytes"},
		{"no fidelity report", func(c *Content) { c.Fidelity = nil }, "fidelity.v1+json has 0 bytes"},
		{"folder for a file", func(c *Content) { c.SystemMap = t.TempDir() }, "is a directory"},
		{"manifest that is not good", func(c *Content) { c.Manifest.Name = "No Label" }, `bundle manifest: name: "No Label"`},
		{"huge kernel", func(c *Content) { _ = os.Truncate(c.Config, 4<<20+1) }, "config.v1 has 4194305 bytes, want 1 to 4194304"},
	}
	for _, test := range tests {
		for _, form := range []string{"oci:", "oci-archive:"} {
			for _, exists := range []bool{false, true} {
				t.Run(fmt.Sprint(test.name, " ", form, exists), func(t *testing.T) {
					dir := t.TempDir()
					if exists {
						if _, err := writeBundle(form+dir+"/out", content(t, "")); err != nil {
							t.Fatal(err)
						}
					}
					before := snapshot(t, dir)
					c := content(t, "")
					test.change(&c)
					_, err := writeBundle(form+dir+"/out", c)
					if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir+"/out") {
						t.Errorf("got  %v\nwant %s", err, test.want)
					}
					if got := snapshot(t, dir); got != before {
						t.Errorf("got\n%swant\n%s", got, before)
					}
				})
			}
		}
	}
	t.Run("no folder to write to", func(t *testing.T) {
		if _, err := writeBundle("oci:"+t.TempDir()+"/no/out", content(t, "")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	// A file that changes between its digest and its copy.
	t.Run("kernel that grows", func(t *testing.T) {
		for _, form := range []string{"oci:", "oci-archive:"} {
			dir := t.TempDir()
			c := content(t, "")
			b, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.Kernel, []byte("a kernel that is quite another one"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := b.Save(t.Context(), form+dir+"/out", nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), string(KernelType)) {
				t.Error(err)
			}
			if got := snapshot(t, dir); got != ". d---------\n" {
				t.Errorf("left behind:\n%s", got)
			}
		}
	})
}

// A damaged bundle on disk. Documents are changed with everything that names
// them, so that their digests are right.
type damaged struct {
	t   testing.TB
	dir string
}

func (d damaged) read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

func (d damaged) remove(name string) {
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
		d.t.Fatal(err)
	}
}

// What appears at the output while a bundle is written is somebody else's.
func TestSaveOverWhatAppears(t *testing.T) {
	for _, form := range []string{"oci:", "oci-archive:"} {
		for what, appear := range map[string]func(path string) error{
			"file":          func(path string) error { return os.WriteFile(path, []byte("precious"), 0o644) },
			"folder":        func(path string) error { return os.MkdirAll(filepath.Join(path, "precious"), 0o755) },
			"symbolic link": func(path string) error { return os.Symlink("precious", path) },
			"bundle":        func(path string) error { _, err := writeBundle(path, content(t, "")); return err },
		} {
			t.Run(form+what, func(t *testing.T) {
				b, err := New(content(t, ""))
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(t.TempDir(), "out")
				once := sync.OnceFunc(func() {
					if err := appear(path); err != nil {
						t.Error(err)
					}
				})
				err = b.Save(t.Context(), form+path, func(int64, int64) { once() })
				if what == "bundle" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !errors.Is(err, ErrExists) {
					t.Errorf("got %v", err)
				}
				left, err := os.ReadDir(filepath.Dir(path))
				if info, missing := os.Lstat(path); err != nil || len(left) != 1 || missing != nil || what == "file" && info.Size() != 8 || what == "symbolic link" && info.Mode().Type() != fs.ModeSymlink {
					t.Errorf("left: %v, %v, %v", left, err, missing)
				}
			})
		}
	}
}

func (d damaged) replace(name, old, new string) {
	data := string(d.read(name))
	if strings.Count(data, old) != 1 {
		d.t.Fatalf("%s has %q %d times: %s", name, old, strings.Count(data, old), data)
	}
	write(d.t, filepath.Join(d.dir, name), []byte(strings.Replace(data, old, new, 1)))
}

// blobs returns the names of the OCI manifest, the config and the layers.
func (d damaged) blobs() (oci, config string, layers map[types.MediaType]string) {
	var index ociIndex
	var m ociManifest
	if err := json.Unmarshal(d.read("index.json"), &index); err != nil {
		d.t.Fatal(err)
	}
	oci = "blobs/sha256/" + index.Manifests[0].Digest.Hex
	if err := json.Unmarshal(d.read(oci), &m); err != nil {
		d.t.Fatal(err)
	}
	layers = map[types.MediaType]string{}
	for _, l := range m.Layers {
		layers[l.MediaType] = "blobs/sha256/" + l.Digest.Hex
	}
	return oci, "blobs/sha256/" + m.Config.Digest.Hex, layers
}

// rehash gives a blob that was changed its new name, and tells the document
// that names it.
func (d damaged) rehash(blob, namedIn string, oldSize int) {
	data := d.read(blob)
	old := filepath.Base(blob)
	if err := os.Rename(filepath.Join(d.dir, blob), filepath.Join(d.dir, "blobs/sha256", sha(data))); err != nil {
		d.t.Fatal(err)
	}
	d.replace(namedIn, fmt.Sprintf(`sha256:%s","size":%d`, old, oldSize), fmt.Sprintf(`sha256:%s","size":%d`, sha(data), len(data)))
}

// oci changes the OCI manifest.
func (d damaged) oci(old, new string) {
	oci, _, _ := d.blobs()
	size := len(d.read(oci))
	d.replace(oci, old, new)
	d.rehash(oci, "index.json", size)
}

// config changes the bundle manifest.
func (d damaged) config(old, new string) {
	oci, config, _ := d.blobs()
	ociSize, size := len(d.read(oci)), len(d.read(config))
	d.replace(config, old, new)
	d.rehash(config, oci, size)
	d.rehash(oci, "index.json", ociSize)
}

func TestOpenRefuses(t *testing.T) {
	const kernelType, configType = string(KernelType), string(ConfigType)
	tests := []struct {
		name, initramfs string
		damage          func(d damaged)
		want            string
	}{
		{"no index", "", func(d damaged) { d.remove("index.json") }, "index.json"},
		{"index that is no JSON", "", func(d damaged) { write(d.t, d.dir+"/index.json", []byte("<html>")) }, "index.json: invalid character"},
		{"index that is too large", "", func(d damaged) { write(d.t, d.dir+"/index.json", make([]byte, limit.Document+1)) }, "index.json: larger than 1048576 bytes"},
		{"index with an unknown field", "", func(d damaged) { d.replace("index.json", `{"schemaVersion"`, `{"x":1,"schemaVersion"`) }, `index.json: unknown field "x"`},
		{"index with a field twice", "", func(d damaged) {
			d.replace("index.json", `{"schemaVersion":2`, `{"schemaVersion":2,"schemaVersion":2`)
		}, `index.json: field "schemaVersion" occurs twice`},
		{"index of an image", "", func(d damaged) { d.replace("index.json", ArtifactType, "application/x") }, "index.json: has 0 bundles, want 1"},
		{"index with two bundles", "", func(d damaged) {
			s := string(d.read("index.json"))
			one := s[strings.Index(s, "[{")+1 : strings.LastIndex(s, "}]")+1]
			oci, _, _ := d.blobs()
			d.replace("index.json", one, one+","+strings.Replace(one, filepath.Base(oci), sha(nil), 1))
		}, "index.json: has 2 bundles, want 1"},
		{"index with a path for a digest", "", func(d damaged) {
			oci, _, _ := d.blobs()
			d.replace("index.json", filepath.Base(oci), "../../../etc/passwd")
		}, "index.json: "},
		{"index that calls the bundle an index", "", func(d damaged) {
			d.replace("index.json", `"mediaType":"application/vnd.oci.image.manifest.v1+json"`, `"mediaType":"application/vnd.oci.image.index.v1+json"`)
		}, "index.json: a bundle of media type"},
		{"index without a digest", "", func(d damaged) {
			oci, _, _ := d.blobs()
			d.replace("index.json", `"digest":"sha256:`+filepath.Base(oci)+`",`, "")
		}, "manifest: "},
		{"index with another size", "", func(d damaged) {
			oci, _, _ := d.blobs()
			d.replace("index.json", fmt.Sprintf(`"size":%d`, len(d.read(oci))), `"size":5`)
		}, "manifest sha256:"},
		{"index with a negative size", "", func(d damaged) {
			oci, _, _ := d.blobs()
			d.replace("index.json", fmt.Sprintf(`"size":%d`, len(d.read(oci))), `"size":-1`)
		}, "manifest sha256:"},
		{"index with a manifest that is too large", "", func(d damaged) {
			oci, _, _ := d.blobs()
			d.replace("index.json", fmt.Sprintf(`"size":%d`, len(d.read(oci))), `"size":1048577`)
		}, "manifest: larger than 1048576 bytes"},

		{"no OCI manifest", "", func(d damaged) { oci, _, _ := d.blobs(); d.remove(oci) }, "manifest: no blob sha256:"},
		{"another artifact type", "", func(d damaged) { d.oci(ArtifactType, "application/vnd.tenon.bundle.v2") }, `manifest: artifact type "application/vnd.tenon.bundle.v2", this program reads`},
		{"another media type", "", func(d damaged) { d.oci(string(types.OCIManifestSchema1), string(types.DockerManifestSchema2)) }, "not an OCI manifest"},
		{"another schema version", "", func(d damaged) { d.oci(`"schemaVersion":2`, `"schemaVersion":3`) }, "schema version 3"},
		{"unknown field", "", func(d damaged) { d.oci(`{"schemaVersion"`, `{"subject":{},"schemaVersion"`) }, `manifest: unknown field "subject"`},
		{"field twice", "", func(d damaged) { d.oci(`"schemaVersion":2`, `"schemaVersion":2,"schemaVersion":2`) }, `manifest: field "schemaVersion" occurs twice`},
		{"field in another case", "", func(d damaged) { d.oci(`"layers"`, `"Layers"`) }, `manifest: unknown field "Layers"`},
		{"config of another type", "", func(d damaged) { d.oci(string(ManifestType), "application/json") }, `manifest: config of type "application/json"`},
		{"layer of an unknown type", "", func(d damaged) { d.oci(string(SystemMapType), "application/x") }, `manifest: unknown layer type "application/x"`},
		{"two kernels", "", func(d damaged) { d.oci(configType, kernelType) }, `manifest: two layers of type "` + kernelType},
		{"bundle manifest as a layer too", "", func(d damaged) {
			d.oci(`"layers":[`, `"layers":[{"mediaType":"`+string(ManifestType)+`","digest":"sha256:`+sha(nil)+`","size":1},`)
		}, `manifest: two layers of type "` + string(ManifestType)},
		{"no kernel", "", func(d damaged) {
			_, _, layers := d.blobs()
			d.oci(`{"mediaType":"`+kernelType+`","digest":"sha256:`+filepath.Base(layers[KernelType])+`","size":24},`, "")
		}, `manifest: no layer of type "` + kernelType},
		{"kernel that is too large", "", func(d damaged) { d.oci(`"size":24}`, `"size":1073741825}`) }, "manifest: " + kernelType + " has 1073741825 bytes, want 1 to 1073741824"},
		{"kernel of no size", "", func(d damaged) { d.oci(`"size":24}`, `"size":0}`) }, "manifest: " + kernelType + " has 0 bytes"},
		{"digest of another algorithm", "", func(d damaged) {
			_, _, l := d.blobs()
			d.oci(`"digest":"sha256:`+filepath.Base(l[KernelType]), `"digest":"md5:`+filepath.Base(l[KernelType]))
		}, "manifest: "},
		{"layer without a digest", "", func(d damaged) {
			_, _, l := d.blobs()
			d.oci(`"digest":"sha256:`+filepath.Base(l[KernelType])+`",`, "")
		}, `manifest: ` + kernelType + `: digest algorithm "" is not sha256`},
		{"config that is too large", "", func(d damaged) {
			_, c, _ := d.blobs()
			d.oci(fmt.Sprintf(`"size":%d`, len(d.read(c))), `"size":1048577`)
		}, "has 1048577 bytes"},

		{"no bundle manifest", "", func(d damaged) { _, c, _ := d.blobs(); d.remove(c) }, "bundle manifest: no blob sha256:"},
		{"newer version", "", func(d damaged) { d.config(`{"version":2`, `{"version":3`) }, "bundle manifest: unsupported version 3"},
		{"older version", "", func(d damaged) { d.config(`{"version":2`, `{"version":1`) }, "bundle manifest: unsupported version 1"},
		{"unknown field of the bundle manifest", "", func(d damaged) { d.config(`"target":"qemu"`, `"target":"qemu","mounts":[]`) }, `bundle manifest: unknown field "mounts"`},
		{"field of the bundle manifest twice", "", func(d damaged) { d.config(`"target":"qemu"`, `"target":"qemu","target":"kexec"`) }, `bundle manifest: field "target" occurs twice`},
		{"unknown target", "", func(d damaged) { d.config(`"target":"qemu"`, `"target":"vmware"`) }, `bundle manifest: target: "vmware"`},
		{"no initramfs", "", func(d damaged) {
			_, _, l := d.blobs()
			d.oci(fmt.Sprintf(`,{"mediaType":"%s","digest":"sha256:%s","size":%d}`, InitramfsType, filepath.Base(l[InitramfsType]), len(sealedInitramfs)), "")
		}, `manifest: no layer of type "` + string(InitramfsType)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := damaged{t, filepath.Join(t.TempDir(), "b")}
			if _, err := writeBundle(d.dir, content(t, test.initramfs)); err != nil {
				t.Fatal(err)
			}
			test.damage(d)
			for _, ref := range []string{d.dir, pack(t, d.dir)} {
				b, err := Open(t.Context(), ref)
				if err == nil {
					b.Close()
					t.Fatal("taken")
				}
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Count(err.Error(), "invalid bundle") != 1 || strings.Contains(err.Error(), "\n") {
					t.Errorf("got  %v\nwant %s", err, test.want)
				}
				if errors.Is(err, strictjson.ErrVersion) != strings.HasSuffix(test.name, "er version") {
					t.Errorf("ErrVersion: %v", err)
				}
			}
		})
	}
}

// pack makes an archive of a layout.
func pack(t testing.TB, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(t.TempDir(), "b.tar"), b.Bytes())
}

// Whatever byte is changed, cut or added in whatever blob: opening and reading
// all layers fails, and names the blob.
func TestDamagedBlobs(t *testing.T) {
	for _, initramfs := range []string{"", "initramfs"} {
		good := filepath.Join(t.TempDir(), "good")
		if _, err := writeBundle(good, content(t, initramfs)); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(good + "/blobs/sha256/*")
		if err != nil || len(names) < 6 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			flip := func(i int) []byte { b := slices.Clone(data); b[i] ^= 1; return b }
			damages := map[string][]byte{"cut": data[:len(data)-1], "empty": {}, "longer": append(slices.Clone(data), 0)}
			for _, i := range []int{0, len(data) / 2, len(data) - 1} {
				damages[fmt.Sprint("flipped at ", i)] = flip(i)
			}
			for what, bad := range damages {
				dir := filepath.Join(t.TempDir(), "b")
				if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, "blobs/sha256", filepath.Base(name)), bad)
				if err := openAndRead(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), filepath.Base(name)) {
					t.Errorf("%s %s: %v", filepath.Base(name), what, err)
				}
			}
			dir := filepath.Join(t.TempDir(), "b")
			if err := errors.Join(os.CopyFS(dir, os.DirFS(good)), os.Remove(filepath.Join(dir, "blobs/sha256", filepath.Base(name)))); err != nil {
				t.Fatal(err)
			}
			if err := openAndRead(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("%s missing: %v", filepath.Base(name), err)
			}
		}
	}
}

func openAndRead(ref string) error {
	b, err := Open(context.Background(), ref)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, mt := range allLayers {
		if b.Size(mt) == 0 {
			continue
		}
		if _, err := b.ReadLayer(mt); err != nil {
			return err
		}
	}
	return nil
}

// A layout that someone else made can hold what keeps whoever opens it waiting.
func TestOpenIrregularFiles(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	if _, err := writeBundle(good, content(t, "initramfs")); err != nil {
		t.Fatal(err)
	}
	names := []string{"index.json"}
	blobs, err := os.ReadDir(good + "/blobs/sha256")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		names = append(names, "blobs/sha256/"+b.Name())
	}
	for _, name := range names {
		for what, put := range map[string]func(path string) error{
			"fifo":             func(p string) error { return unix.Mkfifo(p, 0o644) },
			"folder":           func(p string) error { return os.Mkdir(p, 0o755) },
			"link to itself":   func(p string) error { return os.Symlink(filepath.Base(p), p) },
			"link to a device": func(p string) error { return os.Symlink("/dev/zero", p) },
		} {
			dir := filepath.Join(t.TempDir(), "b")
			if err := errors.Join(os.CopyFS(dir, os.DirFS(good)), os.Remove(filepath.Join(dir, name)), put(filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
			if err := inTime(t, func() error { return openAndRead(dir) }); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("%s for %s: %v", what, name, err)
			}
		}
	}
	archive := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(archive, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := inTime(t, func() error { return openAndRead("oci-archive:" + archive) }); !errors.Is(err, ErrInvalid) {
		t.Errorf("fifo for an archive: %v", err)
	}
}

func inTime(t *testing.T, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("hangs")
	}
	return nil
}

// fsStore is a layout in an fs.FS.
type fsStore struct {
	fs.FS
	store
}

func (s fsStore) open(name string) (io.ReadCloser, error) { return openFile(s.FS, name) }

// brokenFS fails with err, when it opens or when it reads.
type brokenFS struct {
	fs.FS
	name   string
	err    error
	reader bool
}

func (b brokenFS) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, b.name) {
		return f, err
	}
	if b.reader {
		return brokenFile{f, b.err}, nil
	}
	return nil, errors.Join(&fs.PathError{Op: "open", Path: name, Err: b.err}, f.Close())
}

type brokenFile struct {
	fs.File
	err error
}

func (f brokenFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: "file", Err: f.err}
}

// That something could not be read says nothing about the bundle.
func TestAccidents(t *testing.T) {
	d := damaged{t, filepath.Join(t.TempDir(), "b")}
	if _, err := writeBundle(d.dir, content(t, "")); err != nil {
		t.Fatal(err)
	}
	oci, config, layers := d.blobs()
	for _, name := range []string{"index.json", oci, config, layers[KernelType]} {
		for _, reader := range []bool{false, true} {
			for _, accident := range []syscall.Errno{syscall.EMFILE, syscall.EACCES, syscall.EIO, syscall.ENOMEM} {
				b := &Bundle{store: fsStore{FS: brokenFS{os.DirFS(d.dir), name, accident, reader}}}
				err := b.read()
				if err == nil {
					_, err = b.ReadLayer(KernelType)
				}
				if !errors.Is(err, accident) || errors.Is(err, ErrInvalid) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	if os.Getuid() == 0 {
		return // nothing is unreadable
	}
	if err := os.Chmod(d.dir+"/index.json", 0); err != nil {
		t.Fatal(err)
	}
	if err := CheckOutput(d.dir); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrExists) {
		t.Errorf("CheckOutput: %v", err)
	}
}

func TestOpenNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(t.Context(), dir+"/missing"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrInvalid) {
		t.Errorf("missing: %v", err)
	}
	garbage := write(t, dir+"/garbage", bytes.Repeat([]byte("garbage "), 1000))
	empty := write(t, dir+"/empty", nil)
	for _, ref := range []string{dir, "oci:" + dir, garbage, "oci-archive:" + garbage, empty, "/dev/null"} {
		if _, err := Open(t.Context(), ref); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	outside := write(t, dir+"/outside", []byte("{}"))
	escape := t.TempDir()
	if err := os.Symlink(outside, escape+"/index.json"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), escape); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("symlink to the outside: %v", err)
	}
}

// FuzzOpen replaces the two documents that are read before any digest can be
// checked by more than themselves.
func FuzzOpen(f *testing.F) {
	for _, initramfs := range []string{"", "initramfs"} {
		d := damaged{f, filepath.Join(f.TempDir(), "b")}
		if _, err := writeBundle(d.dir, content(f, initramfs)); err != nil {
			f.Fatal(err)
		}
		oci, config, _ := d.blobs()
		f.Add(d.read("index.json"), d.read(oci), d.read(config))
	}
	f.Fuzz(func(t *testing.T, index, oci, config []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(dir+"/blobs/sha256", 0o755); err != nil {
			t.Fatal(err)
		}
		// The digests are made right, so that what they cover is looked at.
		link := func(data, target []byte) []byte {
			i := bytes.Index(data, []byte("sha256:"))
			if i < 0 || len(data) < i+71 {
				return data
			}
			data = slices.Clone(data)
			copy(data[i+7:], sha(target))
			return data
		}
		oci = link(oci, config)
		index = link(index, oci)
		write(t, dir+"/index.json", index)
		write(t, dir+"/blobs/sha256/"+sha(oci), oci)
		write(t, dir+"/blobs/sha256/"+sha(config), config)
		b, err := Open(t.Context(), dir)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		defer b.Close()
		if err := b.Manifest.Check(); err != nil {
			t.Error(err)
		}
		if b.Digest.Hex != sha(oci) || b.Size(KernelType) < 1 || b.Size(KernelType) > limits[KernelType] {
			t.Errorf("%s, kernel of %d bytes", b.Digest, b.Size(KernelType))
		}
		if err := openAndRead(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("layers that are not there: %v", err)
		}
	})
}
