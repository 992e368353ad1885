// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/signer/rename"
)

// ErrExists says that the output exists and is not a bundle, or not only one,
// so that writing would destroy something else.
var ErrExists = errors.New("exists and is not a bundle and nothing else")

// Content is what a bundle is made from. Paths name files; Initramfs is empty
// when sealed.
type Content struct {
	Manifest  *manifest.Manifest
	Kernel    string
	Initramfs string
	Config    string
	SystemMap string
	Fidelity  []byte
}

// Progress receives how many of the bytes of all blobs have been moved. It is
// called from several goroutines, and may be nil.
type Progress func(done, total int64)

// Save writes the bundle with its referrers to oci:DIR, oci-archive:FILE or a
// path to a directory. A bundle that stands there is replaced in one step;
// anything else there is refused with ErrExists. When it fails, nothing has
// changed.
func (b *Bundle) Save(ctx context.Context, out string, progress Progress) error {
	if err := CheckOutput(out); err != nil {
		return err
	}
	files, err := b.files()
	if err == nil {
		files = counted(files, progress)
		if path, archive := outputPath(out); archive {
			err = writeArchive(ctx, path, files)
		} else {
			err = writeDir(ctx, path, files)
		}
	}
	if err != nil {
		return fmt.Errorf("writing bundle %q: %w", out, err)
	}
	return nil
}

// CheckOutput says whether Save would refuse out, before long work is done.
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
	if err := checkReplaced(path); err != nil {
		return fmt.Errorf("output %q: %w", out, err)
	}
	return nil
}

// checkReplaced refuses, with ErrExists, what is not a bundle and nothing else.
func checkReplaced(path string) error {
	b, err := Open(context.Background(), "oci:"+path)
	switch {
	case errors.Is(err, ErrInvalid) || errors.Is(err, fs.ErrNotExist): // a symlink may lead nowhere
		return ErrExists
	case err != nil:
		return err
	case !b.alone():
		err = ErrExists
	default:
		err = checkFiles(path)
	}
	return errors.Join(err, b.Close())
}

// checkFiles says whether a directory has something that is not of a layout.
func checkFiles(dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		blob, inBlobs := strings.CutPrefix(rel, "blobs/sha256/")
		if inBlobs && d.Type().IsRegular() && (len(blob) == 64 || strings.HasPrefix(blob, ".")) ||
			slices.Contains([]string{".", "oci-layout", "index.json", "blobs", "blobs/sha256"}, rel) || strings.HasPrefix(rel, ".index.json.tmp-") {
			return nil
		}
		return fmt.Errorf("%w: it has %q", ErrExists, rel)
	})
}

// outputPath takes a reference apart. Without a transport, an archive that
// stands there is replaced by an archive.
func outputPath(out string) (path string, archive bool) {
	transport, path := cutTransport(out)
	if path = filepath.Clean(path); path == "." || strings.HasSuffix(path, "..") {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs // which can be renamed
		}
	}
	if info, err := os.Lstat(path); err == nil && transport == "" && info.Mode().IsRegular() {
		archive = true
	}
	return path, archive || transport == "oci-archive:"
}

// blob is one file of a layout.
type blob struct {
	name string
	desc descriptor
	open func() (io.ReadCloser, error)
}

func newBlob(mt types.MediaType, data []byte) blob {
	digest, size, _ := v1.SHA256(bytes.NewReader(data)) // reading memory does not fail
	return blob{blobName(digest), descriptor{MediaType: mt, Digest: digest, Size: size}, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// memoryStore is the layout of a bundle that has not been written anywhere.
type memoryStore map[string]blob

func (s memoryStore) open(name string) (io.ReadCloser, error) {
	b, ok := s[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return b.open()
}

func (s memoryStore) add(_ context.Context, files []blob) error {
	for _, b := range files {
		s[b.name] = b
	}
	return nil
}

func (s memoryStore) Close() error { return nil }

// New makes a bundle of content, which must stay as it is until Save has
// written it.
func New(c Content) (*Bundle, error) {
	config, err := json.Marshal(c.Manifest)
	if err != nil {
		return nil, err
	}
	if _, err := manifest.Decode(config); err != nil {
		return nil, fmt.Errorf("bundle manifest: %w", err)
	}
	files := []blob{newBlob(ManifestType, config)}
	for _, l := range []struct {
		mt   types.MediaType
		open func() (io.ReadCloser, error)
	}{
		{KernelType, padded(c.Kernel)}, {ConfigType, file(c.Config)}, {SystemMapType, file(c.SystemMap)},
		{FidelityType, newBlob(FidelityType, c.Fidelity).open}, {InitramfsType, file(c.Initramfs)},
	} {
		b, err := measured(l.mt, l.open)
		if err != nil {
			return nil, err
		}
		files = append(files, b)
	}
	m := ociManifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ArtifactType, Config: files[0].desc}
	for _, b := range files[1:] {
		m.Layers = append(m.Layers, b.desc)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	top := newBlob(m.MediaType, data)
	b := &Bundle{Digest: top.desc.Digest, top: top.desc, store: memoryStore{}}
	_ = b.store.add(context.Background(), append(files, top)) // into memory: does not fail
	return b, b.readManifest()
}

// measured is a blob with the size and digest of what open returns.
func measured(mt types.MediaType, open func() (io.ReadCloser, error)) (blob, error) {
	r, err := open()
	if err != nil {
		return blob{}, err
	}
	defer r.Close()
	digest, size, err := v1.SHA256(r)
	return blob{blobName(digest), descriptor{MediaType: mt, Digest: digest, Size: size}, open}, err
}

func file(path string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(path) }
}

// padded is a file with zeros up to a multiple of 8 bytes, where a
// WIN_CERTIFICATE may begin.
func padded(path string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
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
	}
}

// files lists all files of a layout of the bundle and its referrers, index.json
// last.
func (b *Bundle) files() ([]blob, error) {
	layout := newBlob("", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	layout.name = "oci-layout"
	files := []blob{layout}
	listed := map[v1.Hash]bool{}
	add := func(what string, descriptors ...descriptor) {
		for _, d := range descriptors {
			if !listed[d.Digest] {
				listed[d.Digest] = true
				files = append(files, blob{blobName(d.Digest), d, func() (io.ReadCloser, error) { return b.blob(what, d) }})
			}
		}
	}
	add("bundle manifest", b.config)
	for _, l := range b.layers {
		add("layer "+string(l.MediaType), l)
	}
	add("manifest", b.top)
	if b.leftOut != nil {
		return nil, b.leftOut
	}
	for i, r := range b.referrers {
		r, err := b.whole(r)
		if err != nil {
			return nil, err // it cannot be copied
		}
		b.referrers[i] = r
		add("referrer "+r.Digest.String(), append(r.layers, r.config, r.desc)...)
	}
	index, err := b.indexes(nil)
	return append(files, index...), err
}

// counted reports what is read of files.
func counted(files []blob, progress Progress) []blob {
	if progress == nil {
		return files
	}
	var done atomic.Int64
	var total int64
	for _, b := range files {
		total += b.desc.Size
	}
	out := make([]blob, len(files))
	for i, b := range files {
		open := b.open
		b.open = func() (io.ReadCloser, error) {
			r, err := open()
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{readerFunc(func(p []byte) (int, error) {
				n, err := r.Read(p)
				progress(min(done.Add(int64(n)), total), total) // more is read when something is tried again
				return n, err
			}), r}, nil
		}
		out[i] = b
	}
	return out
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func writeDir(ctx context.Context, path string, files []blob) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = remove(tmp, err) }()
	if err := errors.Join(os.Chmod(tmp, 0o755), os.MkdirAll(filepath.Join(tmp, "blobs", "sha256"), 0o755)); err != nil {
		return err
	}
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	if err := errors.Join(writeFiles(ctx, root, files), root.Close()); err != nil {
		return err
	}
	return replace(tmp, path, checkReplaced)
}

// replace puts what is at tmp at path. What stood there, a directory or a file, has the name tmp
// afterwards, for the caller to remove. What check refuses of that is put back: it appeared there
// meanwhile. Where that fails, the error is errKept.
func replace(tmp, path string, check func(old string) error) error {
	err := rename.NoReplace(tmp, path)
	if errors.Is(err, fs.ErrExist) {
		err = exchange(tmp, path, check)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// errKept says that what has the temporary name is not ours to remove.
var errKept = errors.New("it is kept")

// remove removes what has a temporary name when the work is done, unless err is errKept.
func remove(tmp string, err error) error {
	if errors.Is(err, errKept) {
		return err
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// exchange exchanges two names, and looks at what it took away: before, somebody could still write
// there.
func exchange(tmp, path string, check func(old string) error) error {
	ours, err := os.Lstat(tmp)
	if err != nil {
		return err
	}
	if err := rename.Exchange(tmp, path); err != nil {
		return err
	}
	refused := check(tmp)
	if refused == nil {
		return nil
	}
	err = rename.Exchange(tmp, path)
	if errors.Is(err, fs.ErrNotExist) { // somebody took ours away
		err = rename.NoReplace(tmp, path)
	}
	left, statErr := os.Lstat(tmp)
	if errors.Is(statErr, fs.ErrNotExist) || statErr == nil && os.SameFile(ours, left) {
		return errors.Join(refused, err)
	}
	return fmt.Errorf("%w; what somebody put at %q meanwhile is now %q: %w", errors.Join(refused, err, statErr), path, tmp, errKept)
}

func copyBlob(ctx context.Context, w io.Writer, b blob) error {
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(contextWriter{ctx, w}, r)
	if err == nil && n != b.desc.Size {
		err = fmt.Errorf("%s changed while it was written", b.name)
	}
	return err
}

func writeArchive(ctx context.Context, path string, files []blob) error {
	return writeTar(path, checkReplaced, func(tw *tar.Writer) error { return writeMembers(ctx, tw, files) })
}

func writeMembers(ctx context.Context, tw *tar.Writer, files []blob) error {
	for _, b := range files {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: b.name, Size: b.desc.Size, Mode: 0o644}); err != nil {
			return err
		}
		if err := copyBlob(ctx, tw, b); err != nil {
			return err
		}
	}
	return nil
}

// writeTar writes an archive to a temporary name and puts it at path, as replace does.
func writeTar(path string, check func(old string) error, write func(*tar.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = remove(f.Name(), errors.Join(err, f.Close())) }()
	tw := tar.NewWriter(f)
	if err := write(tw); err != nil {
		return err
	}
	if err := errors.Join(tw.Close(), f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	return replace(f.Name(), path, check)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
