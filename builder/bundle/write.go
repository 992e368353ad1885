// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// ErrExists says that the output exists and is not a bundle, or not only one,
// so that writing would destroy something else.
var ErrExists = errors.New("exists and is not a bundle and nothing else")

// Content is what a bundle is written from. Paths name files; Initramfs is
// empty when sealed.
type Content struct {
	Manifest  *manifest.Manifest
	Kernel    string
	Initramfs string
	Config    string
	SystemMap string
	Fidelity  []byte
}

// Write writes a bundle to oci:DIR, oci-archive:FILE or a path to a directory,
// and returns its digest. A bundle that stands there is replaced in one step;
// anything else there is refused with ErrExists. When it fails, nothing has
// changed.
func Write(out string, c Content) (digest v1.Hash, err error) {
	path, archive := outputPath(out)
	if err := CheckOutput(out); err != nil {
		return v1.Hash{}, err
	}
	files, digest, err := layout(c)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("writing bundle %q: %w", out, err)
	}
	write := writeDir
	if archive {
		write = writeArchive
	}
	if err := write(path, files); err != nil {
		return v1.Hash{}, fmt.Errorf("writing bundle %q: %w", out, err)
	}
	return digest, nil
}

// CheckOutput says whether Write would refuse out, before long work is done.
func CheckOutput(out string) error {
	path, _ := outputPath(out)
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("output %q: %w", out, err)
	}
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output %q: %w", out, err)
	}
	b, err := Open(path)
	switch {
	case errors.Is(err, ErrInvalid) || errors.Is(err, fs.ErrNotExist): // a symlink may lead nowhere
		return fmt.Errorf("output %q: %w", out, ErrExists)
	case err != nil:
		return fmt.Errorf("output %q: %w", out, err)
	case !b.alone:
		err = fmt.Errorf("output %q: %w", out, ErrExists)
	}
	return errors.Join(err, b.Close())
}

func outputPath(out string) (path string, archive bool) {
	path, archive = strings.CutPrefix(out, "oci-archive:")
	if !archive {
		path = strings.TrimPrefix(out, "oci:")
	}
	return filepath.Clean(path), archive
}

// blob is one file of a layout.
type blob struct {
	name string
	size int64
	open func() (io.ReadCloser, error)
}

// layout lists all files of the bundle, with the digest of its manifest.
func layout(c Content) ([]blob, v1.Hash, error) {
	config, err := json.Marshal(c.Manifest)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	if _, err := manifest.Decode(config); err != nil {
		return nil, v1.Hash{}, fmt.Errorf("bundle manifest: %w", err)
	}
	files := []blob{document("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))}
	add := func(mt types.MediaType, b blob) (descriptor, error) {
		r, err := b.open()
		if err != nil {
			return descriptor{}, err
		}
		defer r.Close()
		digest, size, err := v1.SHA256(r)
		if err != nil {
			return descriptor{}, err
		}
		b.name, b.size = "blobs/sha256/"+digest.Hex, size
		files = append(files, b)
		return descriptor{MediaType: mt, Digest: digest, Size: size}, nil
	}
	m := ociManifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ArtifactType}
	if m.Config, err = add(ManifestType, document("", config)); err != nil {
		return nil, v1.Hash{}, err
	}
	layers := []struct {
		mt types.MediaType
		b  blob
	}{
		{KernelType, padded(c.Kernel)}, {ConfigType, file(c.Config)}, {SystemMapType, file(c.SystemMap)}, {FidelityType, document("", c.Fidelity)},
	}
	if c.Initramfs != "" {
		layers = append(layers, struct {
			mt types.MediaType
			b  blob
		}{InitramfsType, file(c.Initramfs)})
	}
	for _, l := range layers {
		d, err := add(l.mt, l.b)
		if err != nil {
			return nil, v1.Hash{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	if err := m.check(); err != nil {
		return nil, v1.Hash{}, err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	top, err := add(m.MediaType, document("", raw))
	if err != nil {
		return nil, v1.Hash{}, err
	}
	top.ArtifactType = ArtifactType
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": c.Manifest.Name}
	index, err := json.Marshal(ociIndex{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []descriptor{top}})
	if err != nil {
		return nil, v1.Hash{}, err
	}
	return append(files, document("index.json", index)), top.Digest, nil
}

func document(name string, data []byte) blob {
	return blob{name, int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

func file(path string) blob {
	return blob{open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

// padded is a file with zeros up to a multiple of 8 bytes, where a
// WIN_CERTIFICATE may begin.
func padded(path string) blob {
	return blob{open: func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		zeros := bytes.NewReader(make([]byte, (8-info.Size()%8)%8))
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(f, zeros), f}, nil
	}}
}

func writeDir(path string, files []blob) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := errors.Join(os.Chmod(tmp, 0o755), os.MkdirAll(filepath.Join(tmp, "blobs", "sha256"), 0o755)); err != nil {
		return err
	}
	for _, b := range files {
		if err := writeFile(filepath.Join(tmp, b.name), b); err != nil {
			return err
		}
	}
	return replace(tmp, path)
}

// replace puts what is at tmp at path. What stood there, a directory or a file,
// has the name tmp afterwards, for the caller to remove.
func replace(tmp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err == unix.ENOENT {
		err = os.Rename(tmp, path)
	} else if err != nil {
		err = &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeFile(path string, b blob) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(copyBlob(f, b), f.Sync(), f.Close())
}

func copyBlob(w io.Writer, b blob) error {
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != b.size {
		err = fmt.Errorf("%s changed while it was written", b.name)
	}
	return err
}

func writeArchive(path string, files []blob) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.RemoveAll(f.Name())) }()
	tw := tar.NewWriter(f)
	for _, b := range files {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: b.name, Size: b.size, Mode: 0o644}); err != nil {
			return err
		}
		if err := copyBlob(tw, b); err != nil {
			return err
		}
	}
	if err := errors.Join(tw.Close(), f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	return replace(f.Name(), path)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
