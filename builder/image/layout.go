// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

// layoutImage opens an image in an OCI image layout, a directory or an
// archive. Every document is checked against its digest; layers are checked by
// whoever reads them.
func layoutImage(fsys fs.FS, tag string, platform v1.Platform) (v1.Image, error) {
	var index v1.IndexManifest
	if err := readJSON(fsys, "index.json", &index); err != nil {
		return nil, notFound(err)
	}
	manifests := index.Manifests
	tags := refNames(manifests)
	if len(manifests) == 0 {
		return nil, fmt.Errorf("%w: the layout is empty", ErrNotFound)
	}
	if tag == "" && len(tags) > 1 {
		return nil, fmt.Errorf("%w without a tag, the layout has: %s", ErrNotFound, strings.Join(tags, ", "))
	}
	if tag != "" {
		manifests = slices.DeleteFunc(manifests, func(d v1.Descriptor) bool { return d.Annotations[refNameAnnotation] != tag })
		if len(manifests) == 0 {
			return nil, fmt.Errorf("%w: no tag %q, the layout has: %s", ErrNotFound, tag, cmp.Or(strings.Join(tags, ", "), "none"))
		}
	}
	for range 4 { // an index may lead to another one
		desc, err := choose(manifests, platform)
		if err != nil {
			return nil, err
		}
		data, err := verifiedBlob(fsys, desc, limit.ImageManifest)
		if err != nil {
			return nil, err
		}
		if desc.MediaType.IsImage() {
			return blobImage(fsys, desc.MediaType, data)
		}
		var inner v1.IndexManifest
		if err := json.Unmarshal(data, &inner); err != nil {
			return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		manifests = inner.Manifests
	}
	return nil, fmt.Errorf("indexes nested too deeply")
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// verifiedBlob reads a document and checks its size and digest.
func verifiedBlob(fsys fs.FS, desc v1.Descriptor, most int) ([]byte, error) {
	data, err := readDocument(fsys, blobPath(desc.Digest), most)
	if err != nil {
		return nil, err
	}
	got, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if got != desc.Digest {
		return nil, fmt.Errorf("digest mismatch: %s has the content %s", desc.Digest, got)
	}
	if int64(len(data)) != desc.Size {
		return nil, fmt.Errorf("size mismatch: %s has %d bytes, its descriptor says %d", desc.Digest, len(data), desc.Size)
	}
	return data, nil
}

// blobImage makes a v1.Image of a manifest whose blobs lie in fsys.
func blobImage(fsys fs.FS, mt types.MediaType, rawManifest []byte) (v1.Image, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(rawManifest))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	rawConfig, err := verifiedBlob(fsys, manifest.Config, limit.ImageConfig)
	if err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	return partial.CompressedToImage(&imageCore{
		mt: mt, manifest: manifest, rawManifest: rawManifest, rawConfig: rawConfig,
		open: func(d v1.Descriptor) (io.ReadCloser, error) { return fsys.Open(blobPath(d.Digest)) },
	})
}

// imageCore is what partial.CompressedToImage needs.
type imageCore struct {
	mt                     types.MediaType
	manifest               *v1.Manifest
	rawManifest, rawConfig []byte
	open                   func(v1.Descriptor) (io.ReadCloser, error)
}

func (c *imageCore) MediaType() (types.MediaType, error) { return c.mt, nil }
func (c *imageCore) RawManifest() ([]byte, error)        { return c.rawManifest, nil }
func (c *imageCore) RawConfigFile() ([]byte, error)      { return c.rawConfig, nil }

func (c *imageCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range c.manifest.Layers {
		if d.Digest == h {
			return &imageLayer{desc: d, open: c.open}, nil
		}
	}
	return nil, fmt.Errorf("the manifest has no layer %s", h)
}

type imageLayer struct {
	desc v1.Descriptor
	open func(v1.Descriptor) (io.ReadCloser, error)
}

func (l *imageLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *imageLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *imageLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *imageLayer) Compressed() (io.ReadCloser, error)  { return l.open(l.desc) }
func (l *imageLayer) Descriptor() (*v1.Descriptor, error) { return &l.desc, nil }
