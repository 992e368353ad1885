// SPDX-License-Identifier: Apache-2.0

// Package image says where an image comes from: a registry, an OCI image layout, the
// format of docker save, or a directory.
//
// In: a reference and a platform. Out: an Image, whose layers are read when they are
// wanted. Refused: images for another platform; manifests and configurations that do not
// have the digest by which they are named, or are beyond the limits of package limit.
// Layers are checked by whoever reads them.
package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/regular"
)

// Sentinels for images that cannot be had; test with errors.Is.
var (
	ErrNotFound = errors.New("no such image")
	ErrPlatform = errors.New("no image for this platform")
)

// An Image is an OCI image that is ready to be read. Close it after use.
type Image struct {
	v1.Image
	Reference string // registry reference, or TRANSPORT[:TAG]: where a local image lies is not part of it
	Name      string // registry reference, or absolute path of the local image
	close     func() error
}

// Close releases the image's files.
func (i *Image) Close() error {
	if i.close == nil {
		return nil
	}
	return i.close()
}

// Open opens the image that reference names: a registry reference, reached by the
// registry.Client of ctx, or oci:DIR[:TAG],
// oci-archive:FILE[:TAG], docker-archive:FILE[:REF], dir:ROOTFS. Archives may be
// compressed with gzip, bzip2, xz or zstd. From an index it takes the manifest for
// platform; an image for another platform is refused with ErrPlatform. Layers are not
// read yet. progress is called with the number of bytes read since the last call, where
// an archive is unpacked or content is hashed first.
func Open(ctx context.Context, reference string, platform v1.Platform, progress func(n int64)) (*Image, error) {
	img, err := open(ctx, reference, platform, progress)
	if err != nil {
		return nil, fmt.Errorf("opening image %q: %w", reference, err)
	}
	if err := img.check(platform); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image %q: %w", reference, err), img.Close())
	}
	return img, nil
}

// check reads the manifest and the config, within their limits, and compares the platform.
func (i *Image) check(platform v1.Platform) error {
	raw, err := i.RawManifest()
	if err != nil {
		return err
	}
	if err := checkDocument(raw, limit.ImageManifest); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	manifest, err := i.Manifest()
	if err != nil {
		return err
	}
	if len(manifest.Layers) > limit.ImageLayers {
		return fmt.Errorf("manifest: %d layers, at most %d are read", len(manifest.Layers), limit.ImageLayers)
	}
	if size := manifest.Config.Size; size < 0 || size > limit.ImageConfig { // before a registry is asked for it
		return fmt.Errorf("image config: %d bytes, want at most %d", size, limit.ImageConfig)
	}
	if raw, err = i.RawConfigFile(); err != nil {
		return err
	}
	if err := checkDocument(raw, limit.ImageConfig); err != nil {
		return fmt.Errorf("image config: %w", err)
	}
	config, err := i.ConfigFile()
	if err != nil {
		return err
	}
	have := v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	if rank(have, platform) < 0 {
		return fmt.Errorf("%w: it is for %s, want %s", ErrPlatform, cmp.Or(have.String(), "none that it names"), platform)
	}
	return nil
}

func open(ctx context.Context, reference string, platform v1.Platform, progress func(int64)) (*Image, error) {
	transportName, rest, _ := strings.Cut(reference, ":")
	switch transportName {
	case "oci":
		file, tag := splitTag(rest)
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, notFound(err)
		}
		img, err := layoutImage(regular.FS{Root: root}, tag, platform)
		return finish(img, err, localName("oci", tag), absolute(file), root.Close)
	case "oci-archive", "docker-archive":
		file, tag := splitTag(rest)
		archive, err := openArchive(ctx, file, progress)
		if err != nil {
			return nil, notFound(err)
		}
		var img v1.Image
		if transportName == "docker-archive" {
			img, err = dockerImage(ctx, archive, tag, progress)
		} else {
			img, err = layoutImage(archive, tag, platform)
		}
		return finish(img, err, localName(transportName, tag), absolute(file), archive.Close)
	case "dir":
		img, err := dirImage(ctx, rest, platform, progress)
		return finish(img, notFound(err), localName("dir", ""), absolute(rest), nil)
	}
	// docker://REF is skopeo's form; docker:TAG is an image of that name.
	return remoteImage(ctx, strings.TrimPrefix(reference, "docker://"), platform)
}

func finish(img v1.Image, err error, reference, name string, closer func() error) (*Image, error) {
	i := &Image{Image: img, Reference: reference, Name: name, close: closer}
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// splitTag splits FILE[:TAG]. The longest file that exists wins, as both parts
// may have colons of their own.
func splitTag(s string) (file, tag string) {
	for i := len(s); i > 0; i = strings.LastIndexByte(s[:i], ':') {
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], strings.TrimPrefix(s[i:], ":")
		}
	}
	file, tag, _ = strings.Cut(s, ":")
	return file, tag
}

// localName names a local image without its path, so that bundles do not depend
// on where they were built.
func localName(transportName, tag string) string {
	if tag == "" {
		return transportName
	}
	return transportName + ":" + tag
}

// absolute makes a path that has a last element, as "." has none.
func absolute(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

// refNames lists the tags of a layout.
func refNames(manifests []v1.Descriptor) []string {
	var names []string
	for _, d := range manifests {
		if n := d.Annotations[refNameAnnotation]; n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

const refNameAnnotation = "org.opencontainers.image.ref.name"
