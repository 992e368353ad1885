// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/testdata/memory"
)

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// documents are the texts of an image, each of which may be replaced.
type documents struct {
	index, manifest, config, docker []byte
}

// hostile writes an image with one document that is not what a tool would write.
func (d documents) layout(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(data []byte, mt types.MediaType) v1.Descriptor {
		hex := fmt.Sprintf("%x", sha256.Sum256(data))
		write("blobs/sha256/"+hex, data)
		return v1.Descriptor{MediaType: mt, Digest: v1.Hash{Algorithm: "sha256", Hex: hex}, Size: int64(len(data))}
	}
	if d.config == nil {
		d.config = []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	}
	config := blob(d.config, types.OCIConfigJSON)
	if d.manifest == nil {
		d.manifest = encode(t, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{}})
	}
	manifest := blob(d.manifest, types.OCIManifestSchema1)
	if d.index == nil {
		d.index = encode(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{manifest}})
	}
	write("index.json", d.index)
	if d.docker == nil {
		d.docker = []byte(`[{"Config":"blobs/sha256/` + config.Digest.Hex + `","RepoTags":null,"Layers":[]}]`)
	}
	write("manifest.json", d.docker)
	return dir
}

func encode(t testing.TB, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// many is a JSON document with a list of n elements.
func many(before, element, after string, n int) []byte {
	return []byte(before + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + after)
}

// wide is a JSON document of size bytes, most of them texts in an object.
func wide(before, after string, size int) []byte {
	texts := bytes.Repeat([]byte("x"), size-len(before)-len(after))
	const next = `","x":"`
	for at := 1 << 19; at+len(next) < len(texts); at += 1 << 19 {
		copy(texts[at:], next)
	}
	return slices.Concat([]byte(before), texts, []byte(after))
}

// Each document just at its limit is read, and just over it refused, in every transport.
func TestDocumentLimits(t *testing.T) {
	const (
		config   = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},`
		empty    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[`
		index    = `{"schemaVersion":2,"manifests":[`
		platform = `{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`
	)
	values := limit.ImageValues
	tests := []struct {
		name       string
		transports string
		docs       documents
		want       string // empty: read
	}{
		{"config of most bytes", "oci docker-archive oci-archive", documents{config: wide(config+`"author":"`, `"}`, limit.ImageConfig)}, ""},
		{"config of a byte more", "oci docker-archive oci-archive", documents{config: wide(config+`"author":"`, `"}`, limit.ImageConfig+1)}, "larger than 8388608 bytes"},
		{"config of most values", "oci docker-archive", documents{config: many(config+`"history":[`, `{}`, `]}`, values/2-20)}, ""},
		{"config of too many values", "oci docker-archive", documents{config: many(config+`"history":[`, `{}`, `]}`, values/2)}, "more than 100000 values"},
		{"manifest of a byte more", "oci oci-archive", documents{manifest: wide(empty+`],"x":"`, `"}`, limit.ImageManifest+1)}, "larger than 4194304 bytes"},
		{"manifest of too many values", "oci", documents{manifest: many(empty, `{}`, `]}`, values/2)}, "more than 100000 values"},
		{"index of a byte more", "oci oci-archive", documents{index: wide(index+`],"x":"`, `"}`, limit.ImageManifest+1)}, "index.json: larger than 4194304 bytes"},
		{"index of too many values", "oci", documents{index: many(index, platform, `]}`, values/2)}, "index.json: more than 100000 values"},
		{"index of most values", "oci", documents{index: many(index, `{}`, `]}`, values/2-20)}, "the index has no image"},
		{"manifest.json of a byte more", "docker-archive", documents{docker: wide(`[{"Config":"`, `"}]`, limit.ImageManifest+1)}, "manifest.json: larger than 4194304 bytes"},
		{"manifest.json of too many values", "docker-archive", documents{docker: many(`[`, `{}`, `]`, values/2)}, "manifest.json: more than 100000 values"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := test.docs.layout(t)
			for transport := range strings.FieldsSeq(test.transports) {
				reference := transport + ":" + dir
				if transport != "oci" {
					reference = transport + ":" + archiveOf(t, dir)
				}
				var err error
				used := memory.Peak(func() {
					var img *Image
					if img, err = Open(t.Context(), reference, amd64, silent); err == nil {
						err = img.Close()
					}
				})
				if test.want == "" && err != nil || test.want != "" && !contains(err, test.want) {
					t.Errorf("%s: got %.300v", transport, err)
				}
				t.Logf("%s: %d MiB of memory", transport, used>>20)
				if most := uint64(limit.ImageConfig + 64<<20); used > most {
					t.Errorf("%s: %d bytes of memory, more than %d", transport, used, most)
				}
			}
		})
	}
}

func TestTooManyLayers(t *testing.T) {
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":1,"digest":"sha256:` + strings.Repeat("0", 64) + `"}`
	manifest := many(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"size":2,"digest":"sha256:`+strings.Repeat("0", 64)+`"},"layers":[`, layer, `]}`, limit.ImageLayers+1)
	img := &stubImage{raw: manifest}
	if err := (&Image{Image: img}).check(amd64); !contains(err, "501 layers") {
		t.Errorf("got %v", err)
	}
	id := `"sha256:` + strings.Repeat("0", 64) + `"`
	docs := documents{config: many(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[`, id, `]}}`, limit.ImageLayers+1)}
	docs.docker = many(`[{"Config":"blobs/sha256/`+fmt.Sprintf("%x", sha256.Sum256(docs.config))+`","Layers":[`, `"l"`, `]}]`, limit.ImageLayers+1)
	if _, err := Open(t.Context(), "docker-archive:"+archiveOf(t, docs.layout(t)), amd64, silent); !contains(err, "501 layers") {
		t.Errorf("docker-archive: got %v", err)
	}
}

// stubImage is a v1.Image that has a manifest alone.
type stubImage struct {
	v1.Image
	raw []byte
}

func (s *stubImage) RawManifest() ([]byte, error) { return s.raw, nil }
func (s *stubImage) Manifest() (*v1.Manifest, error) {
	return v1.ParseManifest(bytes.NewReader(s.raw))
}

// A registry says how large a config is, and may send a manifest without an end.
func TestRegistryLimits(t *testing.T) {
	img := imageOf(t, "intel", amd64)
	for what, want := range map[string]string{"manifest without an end": "the registry's answer is larger than 4194304 bytes", "config of a gigabyte": "image config: 1073741824 bytes, want at most 8388608"} {
		t.Run(what, func(t *testing.T) {
			lying, asked := false, false
			host := server(t, func(w http.ResponseWriter, r *http.Request) bool {
				if !lying || r.Method != http.MethodGet {
					return false
				}
				switch {
				case strings.Contains(r.URL.Path, "/blobs/"):
					asked = true
					return false
				case !strings.Contains(r.URL.Path, "/manifests/"):
					return false
				}
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				if want[0] == 'i' {
					manifest, err := img.Manifest()
					if err != nil {
						t.Error(err)
						return false
					}
					large := manifest.DeepCopy()
					large.Config.Size = 1 << 30
					_, _ = w.Write(encode(t, large))
					return true
				}
				for _, err := io.WriteString(w, `{"x":"`); err == nil; {
					_, err = w.Write(make([]byte, 1<<20))
				}
				return true
			})
			ref, err := name.ParseReference(host + "/app:one")
			if err == nil {
				err = remote.Write(ref, img)
			}
			if err != nil {
				t.Fatal(err)
			}
			lying = true
			used := memory.Peak(func() { _, err = Open(t.Context(), host+"/app:one", amd64, silent) })
			t.Logf("%d MiB of memory", used>>20)
			if !contains(err, want) || asked || used > limit.ImageManifest+64<<20 {
				t.Errorf("got %v, blobs asked for: %v, %d bytes", err, asked, used)
			}
		})
	}
}
