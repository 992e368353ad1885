// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Bundle is an open bundle. Its manifest has been read and checked, and so have
// the manifests of its referrers; blobs are checked as they are read.
type Bundle struct {
	Manifest  *manifest.Manifest
	Digest    v1.Hash // of the OCI manifest: the bundle's identity
	top       descriptor
	config    descriptor
	layers    []descriptor
	referrers []Referrer
	looked    int          // referrers whose manifests were read
	leftOut   error        // why some referrers are not here, so that no copy is whole
	others    []descriptor // what else the index names
	store     store
}

// store is where a bundle's layout lies. Files are named as in an OCI image
// layout.
type store interface {
	open(name string) (io.ReadCloser, error)
	// add adds files, the index last. When it fails, the bundle is as it was;
	// blobs that nothing names may stay.
	add(ctx context.Context, files []blob) error
	Close() error
}

// Open opens a bundle: oci:DIR, oci-archive:FILE or a path to either, or a
// reference in a registry, with or without docker:// before it: HOST/NAME with
// a tag or a digest; the host is never implied. Where a path begins like a host
// (my.dir/web), it needs ./ before it; ErrAmbiguous says so. Credentials come from the docker
// keychain. Errors about what was found there wrap ErrInvalid; accidents on the
// way, such as too many open files, do not. ctx also ends what is read later.
func Open(ctx context.Context, ref string) (*Bundle, error) {
	s, err := openStore(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("opening bundle %q: %w", ref, err)
	}
	b := &Bundle{store: s}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening bundle %q: %w", ref, err), s.Close())
	}
	return b, nil
}

// Close closes the bundle's files.
func (b *Bundle) Close() error { return b.store.Close() }

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
	entries, err := b.readIndex()
	if err != nil {
		return err
	}
	if err := b.readManifest(); err != nil {
		return err
	}
	return b.readReferrers(entries)
}

// entry is a manifest that the index names, and what it refers to.
type entry struct {
	descriptor
	subject v1.Hash
}

// readIndex finds the one bundle of the layout, and returns what else the index
// names.
func (b *Bundle) readIndex() ([]entry, error) {
	data, err := b.readIndexFile()
	if err != nil {
		return nil, err
	}
	var index ociIndex
	if err := strictjson.Decode(data, limit.Document, &index); err != nil {
		return nil, fmt.Errorf("%w: index.json: %w", ErrInvalid, err)
	}
	found := map[v1.Hash]bool{}
	var rest []entry
	for _, d := range index.Manifests {
		e := entry{descriptor: d}
		// Some tools copy descriptors without their artifact type: look inside.
		isBundle := d.ArtifactType == ArtifactType
		if isBundle && d.MediaType != types.OCIManifestSchema1 {
			return nil, fmt.Errorf("%w: index.json: a bundle of media type %q", ErrInvalid, d.MediaType)
		}
		if d.MediaType == types.OCIManifestSchema1 && !isBundle {
			if isBundle, e.subject, err = b.peek(d); err != nil {
				return nil, err
			}
		}
		if isBundle && !found[d.Digest] {
			found[d.Digest] = true
			b.top, b.Digest = d, d.Digest
		} else {
			rest = append(rest, e) // also the bundle under another name
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%w: index.json: has %d bundles, want 1", ErrInvalid, len(found))
	}
	return rest, nil
}

// alone says whether the layout has nothing but the bundle and its referrers.
func (b *Bundle) alone() bool {
	return !slices.ContainsFunc(b.others, func(d descriptor) bool { return d.Digest != b.Digest })
}

// peek looks into a manifest whose descriptor does not say that it is a bundle.
func (b *Bundle) peek(d descriptor) (isBundle bool, subject v1.Hash, err error) {
	data, err := b.document("manifest", d, limit.Document)
	if err != nil {
		return false, v1.Hash{}, err
	}
	var m struct {
		ArtifactType string      `json:"artifactType"`
		Subject      *descriptor `json:"subject"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return false, v1.Hash{}, fmt.Errorf("%w: manifest %s: %w", ErrInvalid, d.Digest, err)
	}
	if m.Subject != nil {
		return false, m.Subject.Digest, nil
	}
	return d.ArtifactType == "" && m.ArtifactType == ArtifactType, v1.Hash{}, nil
}

// readManifest reads the OCI manifest and the bundle manifest.
func (b *Bundle) readManifest() error {
	data, err := b.document("manifest", b.top, limit.Document)
	if err != nil {
		return err
	}
	var m ociManifest
	if err := strictjson.Decode(data, limit.Document, &m); err != nil {
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
	b.config, b.layers = m.Config, m.Layers
	if _, there := b.layer(InitramfsType); !there {
		return fmt.Errorf("%w: manifest: no layer of type %q", ErrInvalid, InitramfsType)
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

// Layers lists the types of the layers.
func (b *Bundle) Layers() []types.MediaType {
	var out []types.MediaType
	for _, d := range b.layers {
		out = append(out, d.MediaType)
	}
	return out
}

// OpenLayer returns a layer's content. Reading it to its end returns an error
// that wraps ErrInvalid, instead of io.EOF, unless size and digest match.
func (b *Bundle) OpenLayer(mt types.MediaType) (io.ReadCloser, error) {
	d, ok := b.layer(mt)
	if !ok {
		return nil, fmt.Errorf("%w: no layer of type %q", ErrInvalid, mt)
	}
	return b.blob("layer "+string(mt), d)
}

func (b *Bundle) document(what string, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%w: %s: larger than %d bytes", ErrInvalid, what, limit)
	}
	r, err := b.blob(what, d)
	if err != nil {
		return nil, err
	}
	return readWhole(r, d.Size)
}

// readWhole reads and closes what has size bytes, and takes memory for no more.
func readWhole(r io.ReadCloser, size int64) ([]byte, error) {
	defer r.Close()
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err := data.ReadFrom(r)
	return data.Bytes(), err
}

func (b *Bundle) blob(what string, d descriptor) (io.ReadCloser, error) {
	f, err := b.openBlob(what, d)
	if err != nil {
		return nil, err
	}
	return newBlobReader(what, f, d), nil
}

// openBlob opens a blob that nobody checks yet.
func (b *Bundle) openBlob(what string, d descriptor) (io.ReadCloser, error) {
	if d.Digest.Algorithm != "sha256" {
		return nil, fmt.Errorf("%w: %s: digest algorithm %q is not sha256", ErrInvalid, what, d.Digest.Algorithm)
	}
	f, err := b.store.open(blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s: no blob %s", ErrInvalid, what, d.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return f, nil
}

func blobName(h v1.Hash) string { return "blobs/sha256/" + h.Hex }

func (b *Bundle) readIndexFile() ([]byte, error) {
	f, err := b.store.open("index.json")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	n, err := data.ReadFrom(io.LimitReader(f, limit.Document+1))
	if err == nil && n > limit.Document {
		err = fmt.Errorf("%w: index.json: larger than %d bytes", ErrInvalid, limit.Document)
	}
	return data.Bytes(), err
}

// cutTransport splits a reference into transport and the rest; a reference
// without one has an empty transport.
func cutTransport(ref string) (transport, rest string) {
	for _, t := range []string{"oci:", "oci-archive:", "docker://"} {
		if rest, ok := strings.CutPrefix(ref, t); ok {
			return t, rest
		}
	}
	return "", ref
}
