// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	tenonregistry "github.com/tenon-build/tenon/builder/bundle/registry"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/signer/regular"
)

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = v1.Platform{OS: "linux", Architecture: "arm64"}
)

func silent(int64) {}

// oneFile is a layer with the file "who" in it.
func oneFile(t testing.TB, who string) []byte {
	t.Helper()
	return tarOf(t, "who", who)
}

// tarOf makes an archive of names and contents in turn; a content that starts
// with "-> " makes a symlink.
func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}
		target, link := strings.CutPrefix(files[i+1], "-> ")
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if !link {
			if _, err := io.WriteString(w, files[i+1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageOf is an image of one plain layer with the file "who" in it.
func imageOf(t testing.TB, who string, p v1.Platform) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(oneFile(t, who), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func indexOf(t testing.TB, media types.MediaType, children ...mutate.IndexAddendum) v1.ImageIndex {
	t.Helper()
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, media), children...)
}

func child(img mutate.Appendable, p *v1.Platform) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}}
}

func tagged(img mutate.Appendable, tag string) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Annotations: map[string]string{refNameAnnotation: tag}}}
}

func layoutOf(t testing.TB, index v1.ImageIndex) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	if _, err := layout.Write(dir, index); err != nil {
		t.Fatal(err)
	}
	return dir
}

// archiveOf packs a layout as oci-archive has it.
func archiveOf(t testing.TB, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return fileOf(t, "image.tar", b.Bytes())
}

func fileOf(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// who opens an image and returns the content of its file "who".
func who(t testing.TB, reference string, p v1.Platform) (string, *Image, error) {
	t.Helper()
	img, err := Open(t.Context(), reference, p, silent)
	if err != nil {
		return "", nil, err
	}
	defer img.Close()
	tree, err := rootfs.FromImage(t.Context(), img, t.TempDir(), rootfs.DefaultLimits, func(int64) {})
	if err != nil {
		return "", img, err
	}
	defer tree.Close()
	n, err := tree.Lookup("who")
	if err != nil {
		return "", img, err
	}
	data, err := io.ReadAll(n.Open())
	return string(data), img, err
}

func TestOpenLayout(t *testing.T) {
	intel, arm := imageOf(t, "intel", amd64), imageOf(t, "arm", arm64)
	multi := indexOf(t, types.OCIImageIndex, child(arm, &arm64), child(intel, &amd64))
	attested := indexOf(t, types.OCIImageIndex, child(arm, &v1.Platform{OS: "unknown", Architecture: "unknown"}), child(intel, &amd64))
	deep := multi
	for range 4 {
		deep = indexOf(t, types.OCIImageIndex, child(deep, nil))
	}
	tests := []struct {
		name  string
		index v1.ImageIndex
		tag   string
		want  string
		err   error
		text  string
	}{
		{"one image", indexOf(t, types.OCIImageIndex, child(intel, nil)), "", "intel", nil, ""},
		{"one image with a tag", indexOf(t, types.OCIImageIndex, tagged(intel, "v1")), ":v1", "intel", nil, ""},
		{"one image with a tag, not asked for", indexOf(t, types.OCIImageIndex, tagged(intel, "v1")), "", "intel", nil, ""},
		{"wrong tag", indexOf(t, types.OCIImageIndex, tagged(intel, "v1")), ":v2", "", ErrNotFound, `no tag "v2", the layout has: v1`},
		{"a tag where there are none", indexOf(t, types.OCIImageIndex, child(intel, nil)), ":v2", "", ErrNotFound, `the layout has: none`},
		{"first of two tags", indexOf(t, types.OCIImageIndex, tagged(intel, "v1"), tagged(imageOf(t, "other", amd64), "v2")), ":v1", "intel", nil, ""},
		{"second of two tags", indexOf(t, types.OCIImageIndex, tagged(imageOf(t, "other", amd64), "v1"), tagged(intel, "v2")), ":v2", "intel", nil, ""},
		{"two tags, none asked for", indexOf(t, types.OCIImageIndex, tagged(intel, "v1"), tagged(imageOf(t, "other", amd64), "v2")), "", "", ErrNotFound, `the layout has: v1, v2`},
		{"a tag with a colon", indexOf(t, types.OCIImageIndex, tagged(intel, "r.example/app:1")), ":r.example/app:1", "intel", nil, ""},
		{"a tag of several platforms", indexOf(t, types.OCIImageIndex, tagged(multi, "v1"), tagged(arm, "v2")), ":v1", "intel", nil, ""},
		{"platforms in the layout's own index", multi, "", "intel", nil, ""},
		{"nested index", indexOf(t, types.OCIImageIndex, child(multi, nil)), "", "intel", nil, ""},
		{"nested docker list", indexOf(t, types.OCIImageIndex, child(indexOf(t, types.DockerManifestList, child(intel, &amd64)), nil)), "", "intel", nil, ""},
		{"attestation beside the image", indexOf(t, types.OCIImageIndex, child(attested, nil)), "", "intel", nil, ""},
		{"nested too deeply", deep, "", "", nil, "indexes nested too deeply"},
		{"wrong platform", indexOf(t, types.OCIImageIndex, child(arm, nil)), "", "", ErrPlatform, "it is for linux/arm64, want linux/amd64"},
		{"wrong platform in an index", indexOf(t, types.OCIImageIndex, child(arm, &arm64), child(imageOf(t, "s390", amd64), &v1.Platform{OS: "linux", Architecture: "s390x"})), "", "", ErrPlatform, "the index has linux/arm64, linux/s390x"},
		{"index that lies about the platform", indexOf(t, types.OCIImageIndex, child(arm, &amd64)), "", "", ErrPlatform, "it is for linux/arm64"},
		{"another system", indexOf(t, types.OCIImageIndex, child(imageOf(t, "windows", v1.Platform{OS: "windows", Architecture: "amd64"}), nil)), "", "", ErrPlatform, "it is for windows/amd64"},
		{"several without a platform", indexOf(t, types.OCIImageIndex, child(intel, nil), child(arm, nil)), "", "", ErrPlatform, "the index has 2 without a platform"},
		{"empty", indexOf(t, types.OCIImageIndex), "", "", ErrNotFound, "the layout is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := layoutOf(t, test.index)
			for transport, file := range map[string]string{"oci": dir, "oci-archive": archiveOf(t, dir)} {
				reference := transport + ":" + file + test.tag
				got, img, err := who(t, reference, amd64)
				if got != test.want || (err == nil) != (test.text == "") || test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("%s: got %q, %v", transport, got, err)
				}
				if err != nil && (!strings.HasPrefix(err.Error(), "opening image \""+reference+"\": ") || !strings.Contains(err.Error(), test.text)) {
					t.Errorf("got  %v\nwant %s", err, test.text)
				}
				if want := transport + test.tag; err == nil && img.Reference != want {
					t.Errorf("reference is %q, want %q", img.Reference, want)
				}
			}
		})
	}
}

func TestOpenLayoutInColonFolder(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "a:b")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "img:x")
	if _, err := layout.Write(dir, indexOf(t, types.OCIImageIndex, tagged(imageOf(t, "intel", amd64), "v1"))); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"", ":v1"} {
		if got, _, err := who(t, "oci:"+dir+tag, amd64); err != nil || got != "intel" {
			t.Errorf("%q: %q, %v", tag, got, err)
		}
	}
}

func TestOpenDamagedLayout(t *testing.T) {
	digest := func(h v1.Hash, err error) v1.Hash {
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	img := imageOf(t, "intel", amd64)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, layer := digest(img.Digest()), digest(img.ConfigName()), digest(layers[0].Digest())
	blob := func(h v1.Hash) string { return "blobs/sha256/" + h.Hex }
	flip := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	tests := []struct {
		name, file string
		change     func([]byte) []byte // nil removes the file
		want       string
	}{
		{"manifest with another byte", blob(manifest), flip, "digest mismatch: " + manifest.String()},
		{"manifest cut short", blob(manifest), func(b []byte) []byte { return b[:10] }, "digest mismatch: " + manifest.String()},
		{"no manifest", blob(manifest), nil, manifest.Hex},
		{"manifest that is too large", blob(manifest), func(b []byte) []byte { return append(b, make([]byte, limit.ImageManifest)...) }, "larger than 4194304 bytes"},
		{"config with another byte", blob(config), flip, "image config: digest mismatch: " + config.String()},
		{"no config", blob(config), nil, config.Hex},
		{"config that is too large", blob(config), func(b []byte) []byte { return append(b, make([]byte, limit.ImageConfig)...) }, "larger than 8388608 bytes"},
		{"layer with another byte", blob(layer), flip, layer.String()},
		{"layer cut short", blob(layer), func(b []byte) []byte { return b[:len(b)-512] }, layer.String() + ": truncated"},
		{"no layer", blob(layer), nil, layer.Hex},
		{"no index", "index.json", nil, "no such image"},
		{"index that is no JSON", "index.json", func([]byte) []byte { return []byte("<html>") }, "index.json: invalid character"},
		{"index with a smaller size", "index.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"size":`), []byte(`"size":1`), 1)
		}, "size mismatch: " + manifest.String()},
		{"index that is too large", "index.json", func(b []byte) []byte { return append(b, make([]byte, limit.ImageManifest)...) }, "larger than 4194304 bytes"},
		{"index that leads outside", "index.json", func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(manifest.Hex), []byte("../../../../../../etc/passwd"))
		}, "index.json: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := layoutOf(t, indexOf(t, types.OCIImageIndex, child(img, nil)))
			path := filepath.Join(dir, test.file)
			data, err := os.ReadFile(path)
			if err == nil && test.change == nil {
				err = os.Remove(path)
			} else if err == nil {
				err = os.WriteFile(path, test.change(data), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, reference := range []string{"oci:" + dir, "oci-archive:" + archiveOf(t, dir)} {
				if _, _, err := who(t, reference, amd64); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got  %v\nwant %s", err, test.want)
				}
			}
		})
	}
	t.Run("fifo", func(t *testing.T) {
		for _, name := range []string{"index.json", blob(manifest), blob(config), blob(layer)} {
			dir := layoutOf(t, indexOf(t, types.OCIImageIndex, child(img, nil)))
			if err := errors.Join(os.Remove(filepath.Join(dir, name)), unix.Mkfifo(filepath.Join(dir, name), 0o644)); err != nil {
				t.Fatal(err)
			}
			for _, reference := range []string{"oci:" + dir, "oci-archive:" + filepath.Join(dir, name), "docker-archive:" + filepath.Join(dir, name)} {
				if _, _, err := who(t, reference, amd64); !errors.Is(err, regular.ErrNotRegular) {
					t.Errorf("%s: %v", reference, err)
				}
			}
		}
	})
	t.Run("blob that is a symlink to the outside", func(t *testing.T) {
		dir := layoutOf(t, indexOf(t, types.OCIImageIndex, child(img, nil)))
		outside := filepath.Join(t.TempDir(), "manifest")
		path := filepath.Join(dir, blob(manifest))
		if err := errors.Join(os.Rename(path, outside), os.Symlink(outside, path)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := who(t, "oci:"+dir, amd64); err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenNothing(t *testing.T) {
	garbage := fileOf(t, "garbage.tar", bytes.Repeat([]byte("garbage "), 1000))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(oneFile(t, "x")); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	packed := fileOf(t, "packed.tar.gz", z.Bytes())
	missing := filepath.Join(t.TempDir(), "missing")
	for reference, want := range map[string]error{
		"oci:" + missing: ErrNotFound, "oci:" + missing + ":tag": ErrNotFound, "oci-archive:" + missing: ErrNotFound,
		"docker-archive:" + missing: ErrNotFound, "dir:" + missing: ErrNotFound, "oci:" + t.TempDir(): ErrNotFound,
		"oci:" + garbage: nil, "oci-archive:" + garbage: nil, "docker-archive:" + garbage: nil, "dir:" + garbage: nil,
		"oci-archive:" + packed: ErrNotFound, "docker-archive:" + packed: ErrNotFound, "docker-archive:" + t.TempDir(): nil,
		"oci-archive:" + fileOf(t, "no.tar", oneFile(t, "x")): ErrNotFound, "docker-archive:" + fileOf(t, "no.tar", oneFile(t, "x")): ErrNotFound,
		"Not A Reference": nil, "": nil,
	} {
		_, err := Open(t.Context(), reference, amd64, silent)
		if err == nil || want != nil && !errors.Is(err, want) || want == nil && errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", reference, err)
		}
	}
}

// dockerSave is the manifest.json of an archive.
func dockerSave(config, tags, layers string) string {
	return fmt.Sprintf(`[{"Config":%q,"RepoTags":[%s],"Layers":[%s]}]`, config, tags, layers)
}

func hashOf(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

func TestOpenDockerArchive(t *testing.T) {
	config := func(plain ...[]byte) string {
		c := v1.ConfigFile{OS: "linux", Architecture: "amd64"}
		for _, p := range plain {
			h, _, err := v1.SHA256(bytes.NewReader(p))
			if err != nil {
				t.Fatal(err)
			}
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, h)
		}
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	base, top := tarOf(t, "who", "base", "base", "1"), oneFile(t, "docker")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(top); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	both := config(base, top)
	two := strings.TrimSuffix(dockerSave("c.json", `"app:1"`, `"a/layer.tar","b/layer.tar"`), "]") + "," +
		strings.TrimPrefix(dockerSave("c.json", `"app:2"`, `"b/layer.tar","a/layer.tar"`), "[")
	tests := []struct {
		name  string
		files []string
		tag   string
		want  string
		text  string
	}{
		{"old style", []string{"c.json", both, "a/layer.tar", string(base), "b/layer.tar", string(top), "manifest.json", dockerSave("c.json", `"app:1"`, `"a/layer.tar","b/layer.tar"`)}, "", "docker", ""},
		{"old style with links to layers", []string{"c.json", config(base, top, base, top), "a/layer.tar", string(base), "b/layer.tar", string(top), "c/layer.tar", "-> ../a/layer.tar", "d/layer.tar", "-> ../b/layer.tar",
			"manifest.json", dockerSave("c.json", `"app:1"`, `"a/layer.tar","b/layer.tar","c/layer.tar","d/layer.tar"`)}, "", "docker", ""},
		{"new style", []string{"blobs/sha256/cc", both, "blobs/sha256/aa", string(base), "blobs/sha256/bb", string(top), "oci-layout", `{"imageLayoutVersion":"1.0.0"}`,
			"manifest.json", dockerSave("blobs/sha256/cc", `"app:1"`, `"blobs/sha256/aa","blobs/sha256/bb"`)}, ":app:1", "docker", ""},
		{"gzip layers", []string{"c.json", both, "a.tar", string(base), "b.tar.gz", z.String(), "manifest.json", dockerSave("c.json", ``, `"a.tar","b.tar.gz"`)}, "", "docker", ""},
		{"names with a dot", []string{"./c.json", config(top), "./a.tar", string(top), "./manifest.json", dockerSave("c.json", ``, `"a.tar"`)}, "", "docker", ""},
		{"first of two images", []string{"c.json", both, "a/layer.tar", string(base), "b/layer.tar", string(top), "manifest.json", two}, ":app:1", "docker", ""},
		{"two images, none asked for", []string{"c.json", both, "a/layer.tar", string(base), "b/layer.tar", string(top), "manifest.json", two}, "", "", "the archive has: app:1, app:2"},
		{"wrong tag", []string{"c.json", config(top), "a.tar", string(top), "manifest.json", dockerSave("c.json", `"app:1"`, `"a.tar"`)}, ":app:2", "", `no such image: want tag "app:2", the archive has: app:1`},
		{"no images", []string{"manifest.json", "[]"}, "", "", "no such image"},
		{"layers swapped", []string{"c.json", config(top, base), "a.tar", string(base), "b.tar", string(top), "manifest.json", dockerSave("c.json", ``, `"a.tar","b.tar"`)}, "", "", "digest mismatch"},
		{"gzip layer of other content", []string{"c.json", config(base), "b.tar.gz", z.String(), "manifest.json", dockerSave("c.json", ``, `"b.tar.gz"`)}, "", "", "diff id mismatch"},
		{"fewer layers than diff ids", []string{"c.json", both, "a.tar", string(base), "manifest.json", dockerSave("c.json", ``, `"a.tar"`)}, "", "", "image config lists 2 diff ids, manifest.json 1 layers"},
		{"layer that is missing", []string{"c.json", config(top), "manifest.json", dockerSave("c.json", ``, `"a.tar"`)}, "", "", `layer "a.tar": open a.tar: file does not exist`},
		{"layers that link to each other", []string{"c.json", config(top), "a.tar", "-> b.tar", "b.tar", "-> a.tar", "manifest.json", dockerSave("c.json", ``, `"a.tar"`)}, "", "", "file does not exist"},
		{"layer that links to the outside", []string{"c.json", config(top), "a.tar", "-> ../../../etc/passwd", "manifest.json", dockerSave("c.json", ``, `"a.tar"`)}, "", "", "file does not exist"},
		{"config named by its digest", []string{hashOf(both) + ".json", both, "a.tar", string(base), "b.tar", string(top), "manifest.json", dockerSave(hashOf(both)+".json", ``, `"a.tar","b.tar"`)}, "", "docker", ""},
		{"config named by another digest", []string{hashOf("") + ".json", both, "a.tar", string(base), "b.tar", string(top), "manifest.json", dockerSave(hashOf("")+".json", ``, `"a.tar","b.tar"`)}, "", "", "image config: digest mismatch: " + hashOf("")},
		{"config in a blob of another digest", []string{"blobs/sha256/" + hashOf(""), both, "a.tar", string(base), "b.tar", string(top), "manifest.json", dockerSave("blobs/sha256/"+hashOf(""), ``, `"a.tar","b.tar"`)}, "", "", "image config: digest mismatch: blobs/sha256/" + hashOf("")},
		{"config that is missing", []string{"manifest.json", dockerSave("c.json", ``, ``)}, "", "", "image config: open c.json"},
		{"manifest.json that is no JSON", []string{"manifest.json", "{"}, "", "", "manifest.json: unexpected end"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := fileOf(t, "save.tar", tarOf(t, test.files...))
			got, _, err := who(t, "docker-archive:"+path+test.tag, amd64)
			if got != test.want || (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got  %q, %v\nwant %q, %s", got, err, test.want, test.text)
			}
		})
	}
	t.Run("wrong platform", func(t *testing.T) {
		path := fileOf(t, "save.tar", tarOf(t, "c.json", config(top), "a.tar", string(top), "manifest.json", dockerSave("c.json", ``, `"a.tar"`)))
		if _, _, err := who(t, "docker-archive:"+path, arm64); !errors.Is(err, ErrPlatform) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenDir(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(at("d/e"), 0o755))
	must(os.WriteFile(at("who"), []byte("dir"), 0o644))
	must(os.WriteFile(at("d/su"), []byte("su"), 0o755))
	must(os.WriteFile(at("d/secret"), nil, 0o600))
	must(os.Link(at("who"), at("d/e/linked")))
	must(os.Symlink("../who", at("d/s")))
	must(os.Symlink("/etc/passwd", at("outside")))
	must(os.Link(at("outside"), at("outside2")))
	must(unix.Mkfifo(at("pipe"), 0o644))
	must(os.WriteFile(at(".wh.name"), []byte("not a whiteout here"), 0o644))
	must(os.Remove(at(".wh.name"))) // a layer has no form for such a name
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: at("socket")}); err != nil {
		t.Log("no socket:", err) // the path is too long for one
	}
	must(os.Chmod(at("d/su"), 0o755|os.ModeSetuid))
	must(os.Chmod(at("d/e"), 0o770|os.ModeSticky|os.ModeSetgid))
	must(os.Chmod(at("pipe"), 0o622))
	must(os.Chtimes(at("who"), time.Time{}, time.Unix(12345, 0)))

	got, img, err := who(t, "dir:"+dir, amd64)
	if err != nil || got != "dir" {
		t.Fatalf("%q, %v", got, err)
	}
	tree, err := rootfs.FromImage(t.Context(), img, t.TempDir(), rootfs.DefaultLimits, func(int64) {})
	must(err)
	defer tree.Close()
	var list strings.Builder
	inodes := map[*rootfs.Inode]string{}
	must(tree.Walk(func(name string, n *rootfs.Inode) error {
		fmt.Fprintf(&list, "%s %d %o %s %s\n", name, n.Type, n.Perm, n.Target, inodes[n])
		inodes[n] = name
		if n.UID != os.Getuid() || n.GID != os.Getgid() {
			t.Errorf("%s is owned by %d:%d", name, n.UID, n.GID)
		}
		return nil
	}))
	const want = `. 1 755  
d 1 755  
d/e 1 3770  
d/e/linked 0 644  
d/s 2 777 ../who 
d/secret 0 600  
d/su 0 4755  
outside 2 777 /etc/passwd 
outside2 2 777 /etc/passwd outside
pipe 5 622  
who 0 644  d/e/linked
`
	if list.String() != want {
		t.Errorf("got\n%s", list.String())
	}
	if n, err := tree.Lookup("who"); err != nil || !n.ModTime.Equal(time.Unix(12345, 0)) {
		t.Errorf("%+v, %v", n, err)
	}

	again, err := Open(t.Context(), "dir:"+dir, amd64, silent)
	must(err)
	first, err := img.Digest()
	must(err)
	if second, err := again.Digest(); err != nil || first != second {
		t.Errorf("%v and %v, %v", first, second, err)
	}
	// What changes after it was opened is no longer what was hashed.
	must(os.WriteFile(at("d/secret"), []byte("new"), 0o600))
	if _, err := rootfs.FromImage(t.Context(), again, t.TempDir(), rootfs.DefaultLimits, func(int64) {}); err == nil {
		t.Error("a directory that changed is taken")
	}
}

// server is an in-memory registry; handle may answer in its place.
func server(t *testing.T, handle func(w http.ResponseWriter, r *http.Request) (done bool)) string {
	t.Helper()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handle == nil || !handle(w, r) {
			reg.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // not the developer's own
	return strings.TrimPrefix(s.URL, "http://")
}

func TestOpenRemote(t *testing.T) {
	host := server(t, nil)
	intel, arm := imageOf(t, "intel", amd64), imageOf(t, "arm", arm64)
	push := func(tag string, what remote.Taggable) {
		ref, err := name.ParseReference(host + "/" + tag)
		if err != nil {
			t.Fatal(err)
		}
		switch what := what.(type) {
		case v1.Image:
			err = remote.Write(ref, what)
		case v1.ImageIndex:
			err = remote.WriteIndex(ref, what)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	push("app:one", intel)
	push("app:arm", arm)
	push("app:multi", indexOf(t, types.OCIImageIndex, child(arm, &arm64), child(intel, &amd64)))
	push("app:list", indexOf(t, types.DockerManifestList, child(arm, &arm64), child(intel, &amd64)))
	push("app:foreign", indexOf(t, types.OCIImageIndex, child(arm, &arm64)))
	digest, err := intel.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"/app:one", "/app:multi", "/app:list", "/app@" + digest.String()} {
		for _, transport := range []string{"", "docker://"} {
			got, img, err := who(t, transport+host+ref, amd64)
			if err != nil || got != "intel" || img.Reference != host+ref {
				t.Errorf("%s: %q, %v, %v", ref, got, img, err)
			}
		}
	}
	for ref, want := range map[string]error{
		"/app:none": ErrNotFound, "/none:one": ErrNotFound, "/app@sha256:" + strings.Repeat("0", 64): ErrNotFound,
		"/app:arm": ErrPlatform, "/app:foreign": ErrPlatform,
	} {
		if _, _, err := who(t, host+ref, amd64); !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", ref, err)
		}
	}
}

// "docker:27" is the image docker, not a transport.
func TestOpenDockerOfDocker(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var asked []string
	before := remote.DefaultTransport
	defer func() { remote.DefaultTransport = before }()
	remote.DefaultTransport = roundTripper(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Host+r.URL.Path)
		w := httptest.NewRecorder()
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
		response := w.Result()
		response.Request = r
		return response, nil
	})
	for reference, want := range map[string]string{
		"docker:27": "library/docker/manifests/27", "docker": "library/docker/manifests/latest",
		"docker://docker:27": "library/docker/manifests/27", "docker://redis": "library/redis/manifests/latest",
	} {
		asked = nil
		if _, err := Open(t.Context(), reference, amd64, silent); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v", reference, err)
		}
		if want := []string{"index.docker.io/v2/", "index.docker.io/v2/" + want}; !slices.Equal(asked, want) {
			t.Errorf("%s: asked for %v", reference, asked)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOpenRemoteWithPassword(t *testing.T) {
	host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "ci" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	login := func(password string) {
		auth := base64.StdEncoding.EncodeToString([]byte("ci:" + password))
		config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)
		if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := who(t, host+"/app:one", amd64); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("without a password: %v", err)
	}
	login("wrong")
	if _, _, err := who(t, host+"/app:one", amd64); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with the wrong password: %v", err)
	}
	login("secret")
	if _, _, err := who(t, host+"/app:one", amd64); !errors.Is(err, ErrNotFound) {
		t.Errorf("with the password: %v", err)
	}
}

func TestOpenRemoteThatLies(t *testing.T) {
	img := imageOf(t, "intel", amd64)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	rawConfig, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	rawManifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, ref string
		body            []byte
		want            string
	}{
		{"layer of other content", "/blobs/" + layer.String(), ":one", oneFile(t, "INTEL"), layer.Hex},
		{"shorter layer", "/blobs/" + layer.String(), ":one", oneFile(t, "intel")[:1024], layer.Hex},
		{"config of other content", "/blobs/" + config.String(), ":one", bytes.Replace(rawConfig, []byte("amd64"), []byte("arm64"), 1), config.Hex},
		{"manifest of other content", "/manifests/" + digest.String(), "@" + digest.String(), append([]byte(" "), rawManifest...), digest.Hex},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lying := false
			host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !lying || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, test.path) {
					return false
				}
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				_, _ = w.Write(test.body)
				return true
			})
			ref, err := name.ParseReference(host + "/app:one")
			if err == nil {
				err = remote.Write(ref, img)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := who(t, host+"/app"+test.ref, amd64); err != nil || got != "intel" {
				t.Fatalf("%q, %v", got, err)
			}
			lying = true
			got, _, err := who(t, host+"/app"+test.ref, amd64)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// A registry cannot make us hold more than the limits, or wait for ever.
func TestOpenRemoteThatHasTooMuch(t *testing.T) {
	manifest := func(size int) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":%d,"digest":"sha256:%s"},"layers":[]}`,
			types.OCIManifestSchema1, types.OCIConfigJSON, size, hashOf(""))
	}
	for name, test := range map[string]struct {
		media types.MediaType
		body  []byte
		want  string
	}{
		"configuration of no size": {types.OCIManifestSchema1, manifest(-1), "image config: -1 bytes"},
		"index of millions":        {types.OCIImageIndex, []byte(`{"manifests":[` + strings.Repeat("{},", 1<<20) + `{}]}`), "more than 100000 values"},
	} {
		host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", string(test.media))
			_, _ = w.Write(test.body)
			return true
		})
		if _, _, err := who(t, host+"/app:one", amd64); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	client, err := tenonregistry.New(tenonregistry.Settings{Silence: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := Open(tenonregistry.NewContext(t.Context(), client), silent.Addr().String()+"/app:one", amd64, func(int64) {}); !errors.Is(err, tenonregistry.ErrSilent) {
		t.Errorf("silent: %v", err)
	}
}
