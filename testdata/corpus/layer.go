// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Layer is an archive and how it is packed.
type Layer struct {
	plain, blob []byte
	mediaType   types.MediaType
}

func layers(l ...Layer) []Layer { return l }

// layer is an archive that is not compressed.
func layer(files ...File) Layer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(f.Body))
		}
		must(struct{}{}, w.WriteHeader(&h))
		must(io.WriteString(w, f.Body))
	}
	must(struct{}{}, w.Close())
	return bytesLayer(b.Bytes())
}

func bytesLayer(archive []byte) Layer {
	return Layer{archive, archive, types.OCIUncompressedLayer}
}

// must is for what can only fail when a case is written wrongly.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// gzip packs the archive into so many gzip members.
func (l Layer) gzip(members int) Layer {
	l.blob, l.mediaType = nil, types.OCILayer
	for part := range split(l.plain, members) {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		must(w.Write(part))
		must(struct{}{}, w.Close())
		l.blob = append(l.blob, b.Bytes()...)
	}
	return l
}

// zstd packs the archive into so many zstd frames.
func (l Layer) zstd(frames int) Layer {
	l.blob, l.mediaType = nil, types.OCILayerZStd
	w := must(zstd.NewWriter(nil))
	for part := range split(l.plain, frames) {
		l.blob = w.EncodeAll(part, l.blob)
	}
	return l
}

func split(data []byte, parts int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for i := range parts {
			if !yield(data[len(data)*i/parts : len(data)*(i+1)/parts]) {
				return
			}
		}
	}
}

// as lies about the media type.
func (l Layer) as(mt types.MediaType) Layer {
	l.mediaType = mt
	return l
}

// Over is an image of a small layer and one of any bytes over it, for fuzzing.
func Over(archive []byte) Case {
	lower := layer(dir("d"), file("d/a", "1"), link("b", "d/a"), symlink("s", "d"), dir("e"), symlink("e/up", "../d"), char("n", 1, 3))
	return Case{Layers: layers(lower, bytesLayer(archive))}
}

// Archives returns what the layers hold, not compressed.
func (c Case) Archives() [][]byte {
	var out [][]byte
	for _, l := range c.Layers {
		out = append(out, l.plain)
	}
	return out
}

// Image returns the image of a case. Its bytes depend on nothing but the case.
func (c Case) Image() (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, l := range c.Layers {
		if img, err = mutate.AppendLayers(img, stored{l}); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return img, nil
}

// stored is a layer as v1.Image wants it.
type stored struct{ l Layer }

func (s stored) Digest() (v1.Hash, error)            { return hash(s.l.blob) }
func (s stored) DiffID() (v1.Hash, error)            { return hash(s.l.plain) }
func (s stored) Size() (int64, error)                { return int64(len(s.l.blob)), nil }
func (s stored) MediaType() (types.MediaType, error) { return s.l.mediaType, nil }
func (s stored) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.l.blob)), nil
}
func (s stored) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.l.plain)), nil
}

func hash(data []byte) (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(data))
	return h, err
}
