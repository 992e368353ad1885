// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tenon-build/tenon/builder/decompress"
)

// ErrNoSource says that the kernel source is not on this machine.
var ErrNoSource = errors.New("kernel source not found")

// Source is a kernel source tree in the cache. It is never written to.
type Source struct {
	Dir    string
	Digest string // "sha256:HEX" of the tarball, or of all names and contents of a folder
}

// OpenSource takes debian:VERSION (the tarball of Debian's package
// linux-source-VERSION), a tarball (plain, gz, bz2, xz, zst) or a folder, and
// puts its content into the cache unless it is there.
func OpenSource(ctx context.Context, cache *Cache, spec string) (*Source, error) {
	path := spec
	if version, ok := strings.CutPrefix(spec, "debian:"); ok {
		path = "/usr/src/linux-source-" + version + ".tar.xz"
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %q: no file %s", ErrNoSource, spec, path)
	case err != nil:
		return nil, fmt.Errorf("kernel source %q: %w", spec, err)
	}
	fill := unpackTarball
	sum := digestFile
	if info.IsDir() {
		fill, sum = copyTree, digestTree
	}
	digest, err := sum(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("kernel source %q: %w", spec, err)
	}
	s, err := cache.source(ctx, digest, func(tree string) error {
		if err := fill(ctx, path, tree, digest); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(tree, "Kconfig")); err != nil {
			return errors.New("not a kernel source tree: no Kconfig at its top")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel source %q: %w", spec, err)
	}
	return s, nil
}

// source returns the tree of a digest in hexadecimal. fill fills the folder that is to
// become it, unless it is there.
func (c *Cache) source(ctx context.Context, digest string, fill func(tree string) error) (*Source, error) {
	s := &Source{Dir: c.Path("source", digest), Digest: "sha256:" + digest}
	if c.has("source", digest) {
		return s, nil
	}
	lock, err := c.lock(ctx, "source", digest)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if c.has("source", digest) {
		return s, nil
	}
	tmp, err := c.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return nil, err
	}
	return s, c.commit(tmp, "source", digest)
}

func digestFile(_ context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hexSum(h), err
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// digestTree hashes names, types, executable bits and contents in the order of
// the names; .git is not part of the source.
func digestTree(ctx context.Context, root string) (string, error) {
	h := sha256.New()
	err := walkSource(ctx, root, func(rel string, d fs.DirEntry) error {
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %v %v\n", rel, info.Mode().Type(), info.Mode()&0o100 != 0)
		switch {
		case info.Mode().IsRegular():
			fmt.Fprintln(h, info.Size())
			f, err := os.Open(filepath.Join(root, rel))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(h, f)
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(filepath.Join(root, rel))
			fmt.Fprintf(h, "%q\n", target)
			return err
		}
		return nil
	})
	return hexSum(h), err
}

func walkSource(ctx context.Context, root string, fn func(rel string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if rel == ".git" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return fn(rel, d)
	})
}

// errChanged says that what was copied is not what was hashed before, whose digest the cache
// would have it under.
var errChanged = errors.New("it changed while it was copied: try again")

// copyTree copies a folder and checks that the copy is what was hashed.
func copyTree(ctx context.Context, from, to, digest string) error {
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	err = walkSource(ctx, from, func(rel string, d fs.DirEntry) error {
		if err := copyMember(root, from, rel, d); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	got, err := digestTree(ctx, to)
	if err == nil && got != digest {
		err = errChanged
	}
	return err
}

// copyMember copies as if the file came out of a tarball.
func copyMember(root *os.Root, from, rel string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	target, data := "", io.Reader(nil)
	switch path := filepath.Join(from, rel); {
	case d.Type() == fs.ModeSymlink:
		target, err = os.Readlink(path)
	case d.Type().IsRegular():
		var f *os.File
		if f, err = os.Open(path); err == nil {
			defer f.Close()
		}
		data = f
	}
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	return extractMember(root, rel, h, data)
}

// unpackTarball unpacks a kernel tarball without its top folder, and checks that it is what was
// hashed.
func unpackTarball(ctx context.Context, path, to, digest string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	packed := io.TeeReader(f, h)
	plain, _, err := decompress.New(ctx, packed)
	if err != nil {
		return err
	}
	defer plain.Close()
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := extract(ctx, tar.NewReader(plain), root); err != nil {
		return err
	}
	// What follows the archive: its end must be sound too.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return err
	}
	if err := plain.Close(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if hexSum(h) != digest {
		return errChanged
	}
	return nil
}

func extract(ctx context.Context, tr *tar.Reader, root *os.Root) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, ok := belowTop(h.Name)
		if !ok || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := extractMember(root, name, h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// belowTop cuts the top folder off.
func belowTop(name string) (string, bool) {
	_, name, ok := strings.Cut(path.Clean(name), "/")
	return name, ok
}

func extractMember(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return extractFile(root, name, h, r)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target, _ := belowTop(h.Linkname)
		return root.Link(target, name)
	}
	return fmt.Errorf("entry type %q does not belong into a source tree", h.Typeflag)
}

func extractFile(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|fs.FileMode(h.Mode)&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close(), root.Chtimes(name, h.ModTime, h.ModTime))
}
