// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

// dockerImage opens an image in the format of docker save: manifest.json names
// a config and layers, which are plain tar files (then their digests are the
// diff ids of the config) or, from other tools, compressed.
func dockerImage(ctx context.Context, fsys fs.FS, tag string, progress func(int64)) (v1.Image, error) {
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := readJSON(fsys, "manifest.json", &images); err != nil {
		return nil, notFound(err)
	}
	var tags []string
	pick := -1
	for i, img := range images {
		tags = append(tags, img.RepoTags...)
		if slices.Contains(img.RepoTags, tag) || tag == "" && len(images) == 1 {
			pick = i
		}
	}
	if pick < 0 {
		return nil, fmt.Errorf("%w: want tag %q, the archive has: %s", ErrNotFound, tag, strings.Join(tags, ", "))
	}
	chosen := images[pick]

	rawConfig, err := readDocument(fsys, chosen.Config, limit.ImageConfig)
	if err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(rawConfig, &config); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(chosen.Layers) {
		return nil, fmt.Errorf("image config lists %d diff ids, manifest.json %d layers", len(config.RootFS.DiffIDs), len(chosen.Layers))
	}
	manifest := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	manifest.Config, err = describe(bytes.NewReader(rawConfig), types.OCIConfigJSON)
	if err != nil {
		return nil, err
	}
	// docker save names the config by its digest, other tools by anything.
	name := strings.TrimSuffix(path.Base(chosen.Config), ".json")
	if want, err := v1.NewHash("sha256:" + name); err == nil && want != manifest.Config.Digest {
		return nil, fmt.Errorf("image config: digest mismatch: %s has the content %s", chosen.Config, manifest.Config.Digest)
	}
	if len(chosen.Layers) > limit.ImageLayers { // before compressed ones are hashed
		return nil, fmt.Errorf("manifest.json: %d layers, at most %d are read", len(chosen.Layers), limit.ImageLayers)
	}
	files := map[v1.Hash]string{}
	for i, layer := range chosen.Layers {
		desc, err := describeLayer(ctx, fsys, layer, config.RootFS.DiffIDs[i], progress)
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", layer, err)
		}
		manifest.Layers = append(manifest.Layers, desc)
		files[desc.Digest] = layer
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&imageCore{
		mt: manifest.MediaType, manifest: manifest, rawManifest: rawManifest, rawConfig: rawConfig,
		open: func(d v1.Descriptor) (io.ReadCloser, error) { return fsys.Open(files[d.Digest]) },
	})
}

// describeLayer takes the diff id for the digest of a plain layer, which
// whoever reads the layer checks; a compressed one is hashed.
func describeLayer(ctx context.Context, fsys fs.FS, file string, diffID v1.Hash, progress func(int64)) (v1.Descriptor, error) {
	f, err := fsys.Open(file)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return v1.Descriptor{}, err
	}
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return v1.Descriptor{}, err
	}
	if bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) || bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return describe(counted{ctx, io.MultiReader(bytes.NewReader(magic[:n]), f), progress}, types.OCILayer)
	}
	return v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: info.Size(), Digest: diffID}, nil
}

func describe(r io.Reader, mt types.MediaType) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(r)
	return v1.Descriptor{MediaType: mt, Size: size, Digest: digest}, err
}
