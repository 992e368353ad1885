// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/regular"
	"github.com/tenon-build/tenon/builder/bundle/tarfs"
)

// Bundle is an open bundle. Its manifest has been read and checked; layers are
// checked as they are read.
type Bundle struct {
	Manifest *manifest.Manifest
	Digest   v1.Hash // of the OCI manifest: the bundle's identity
	layers   []descriptor
	alone    bool // the index names nothing else
	fsys     fs.FS
	closer   io.Closer
}

// Open opens oci:DIR, oci-archive:FILE, or a path to either. Errors about what
// it found there wrap ErrInvalid; accidents on the way, such as too many open
// files, do not.
func Open(ref string) (*Bundle, error) {
	fsys, closer, err := openLayout(ref)
	if err != nil {
		return nil, fmt.Errorf("opening bundle %q: %w", ref, err)
	}
	b := &Bundle{fsys: fsys, closer: closer}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening bundle %q: %w", ref, err), closer.Close())
	}
	return b, nil
}

// Close closes the bundle's files.
func (b *Bundle) Close() error { return b.closer.Close() }

func openLayout(ref string) (fs.FS, io.Closer, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(ref, "oci:"), "oci-archive:")
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		a, err := tarfs.Open(path)
		return a, a, judge(err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	return regular.FS{Root: root}, root, nil
}

// judge wraps in ErrInvalid what says that a layout has no regular file of some
// name, or no layout is there. The system's own errors stay what they are, but
// for those by which it says just that.
func judge(err error) error {
	var system syscall.Errno
	if errors.As(err, &system) && !slices.Contains([]syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP}, system) {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

func (b *Bundle) read() error {
	data, err := readAll(b.fsys, "index.json", maxDocument)
	if err != nil {
		return err
	}
	var index ociIndex
	if err := manifest.DecodeStrict(data, maxDocument, &index); err != nil {
		return fmt.Errorf("%w: index.json: %w", ErrInvalid, err)
	}
	var found []descriptor
	for _, d := range index.Manifests {
		if d.ArtifactType == ArtifactType {
			found = append(found, d)
		}
	}
	if len(found) == 0 && len(index.Manifests) == 1 && index.Manifests[0].ArtifactType == "" {
		found = index.Manifests // some tools copy descriptors without their artifact type
	}
	if len(found) != 1 {
		return fmt.Errorf("%w: index.json: has %d bundles, want 1", ErrInvalid, len(found))
	}
	b.alone = len(index.Manifests) == 1
	b.Digest = found[0].Digest
	if data, err = b.document("manifest", found[0], maxDocument); err != nil {
		return err
	}
	var m ociManifest
	if err := manifest.DecodeStrict(data, maxDocument, &m); err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if data, err = b.document("bundle manifest", m.Config, manifest.MaxSize); err != nil {
		return err
	}
	if b.Manifest, err = manifest.Decode(data); err != nil {
		return fmt.Errorf("%w: bundle manifest: %w", ErrInvalid, err)
	}
	b.layers = m.Layers
	if _, detached := b.layer(InitramfsType); detached == b.Manifest.Initramfs.Sealed {
		return fmt.Errorf("%w: bundle manifest: sealed is %v, and an initramfs layer is there: %v", ErrInvalid, b.Manifest.Initramfs.Sealed, detached)
	}
	return nil
}

func (b *Bundle) layer(mt types.MediaType) (descriptor, bool) {
	for _, d := range b.layers {
		if d.MediaType == mt {
			return d, true
		}
	}
	return descriptor{}, false
}

// Size returns the size of a layer in bytes, 0 when there is none of that type.
func (b *Bundle) Size(mt types.MediaType) int64 {
	d, _ := b.layer(mt)
	return d.Size
}

// LayerDigest returns the digest of a layer.
func (b *Bundle) LayerDigest(mt types.MediaType) v1.Hash {
	d, _ := b.layer(mt)
	return d.Digest
}

// OpenLayer returns a layer's content. Reading it to its end returns an error
// that wraps ErrInvalid, instead of io.EOF, unless size and digest match.
func (b *Bundle) OpenLayer(mt types.MediaType) (io.ReadCloser, error) {
	d, ok := b.layer(mt)
	if !ok {
		return nil, fmt.Errorf("%w: no layer of type %q", ErrInvalid, mt)
	}
	return b.blob(string(mt), d)
}

func (b *Bundle) document(what string, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%w: %s: larger than %d bytes", ErrInvalid, what, limit)
	}
	r, err := b.blob(what, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (b *Bundle) blob(what string, d descriptor) (io.ReadCloser, error) {
	f, err := b.fsys.Open("blobs/sha256/" + d.Digest.Hex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s: no blob %s", ErrInvalid, what, d.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, judge(err))
	}
	return &blobReader{what: what, file: f, desc: d, left: d.Size, sum: sha256.New()}, nil
}

// blobReader checks what it reads.
type blobReader struct {
	what string
	file io.ReadCloser
	desc descriptor
	left int64
	sum  hash.Hash
}

func (r *blobReader) Close() error { return r.file.Close() }

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.sum.Write(p[:n])
	r.left -= int64(n)
	switch {
	case r.left < 0:
		return 0, fmt.Errorf("%w: %s %s is longer than %d bytes", ErrInvalid, r.what, r.desc.Digest, r.desc.Size)
	case err == io.EOF && r.left > 0:
		return 0, fmt.Errorf("%w: %s %s is truncated: %d of %d bytes are missing", ErrInvalid, r.what, r.desc.Digest, r.left, r.desc.Size)
	case err == io.EOF:
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.desc.Digest.Hex {
			return 0, fmt.Errorf("%w: %s: digest mismatch: %s has the content sha256:%s", ErrInvalid, r.what, r.desc.Digest, got)
		}
	}
	return n, err
}

func readAll(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, judge(err)
	}
	defer f.Close()
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: %s: larger than %d bytes", ErrInvalid, name, limit)
	}
	return b.Bytes(), err
}
