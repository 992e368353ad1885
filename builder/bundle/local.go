// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/tenon-build/tenon/builder/bundle/tarfs"
	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/regular"
)

func openLocal(file string) (store, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		return &dirStore{file, root}, nil
	}
	a, err := tarfs.Open(file)
	if err != nil {
		return nil, judge(err)
	}
	return &archiveStore{file, a}, nil
}

// openFile opens a file of a layout.
func openFile(fsys fs.FS, name string) (io.ReadCloser, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, judge(err)
	}
	return f, nil
}

// dirStore is a layout in a directory.
type dirStore struct {
	path string
	root *os.Root
}

func (s *dirStore) open(name string) (io.ReadCloser, error) {
	return openFile(regular.FS{Root: s.root}, name)
}

func (s *dirStore) Close() error { return s.root.Close() }

func (s *dirStore) lock(ctx context.Context) (store, func(), error) { return lockLocal(ctx, s.path) }

// add replaces file by file. Blobs are named by their content, and whatever a
// file is that the index does not name yet, it harms nobody.
func (s *dirStore) add(ctx context.Context, files []blob) error {
	last := len(files) - 1
	if err := writeFiles(ctx, s.root, files[:last]); err != nil {
		return err
	}
	return writeFiles(ctx, s.root, files[last:])
}

// writers is how many files are written, or fetched, at once.
const writers = 4

// writeFiles writes files below root, each to a temporary name first, and
// returns when they are on the disk.
func writeFiles(ctx context.Context, root *os.Root, files []blob) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, b := range files {
		group.Go(func() error { return writeFile(ctx, root, b) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, b := range files {
		if dir := path.Dir(b.name); !seen[dir] {
			seen[dir] = true
			d, err := root.Open(dir)
			if err != nil {
				return err
			}
			if err := errors.Join(d.Sync(), d.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeFile(ctx context.Context, root *os.Root, b blob) (err error) {
	tmp := path.Join(path.Dir(b.name), fmt.Sprintf(".%s.tmp-%d", path.Base(b.name), os.Getpid()))
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(copyBlob(ctx, f, b), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	if err := root.Rename(tmp, b.name); err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return nil
}

// archiveStore is a layout in a tar archive.
type archiveStore struct {
	path string
	*tarfs.FS
}

func (s *archiveStore) open(name string) (io.ReadCloser, error) { return openFile(s.FS, name) }

func (s *archiveStore) lock(ctx context.Context) (store, func(), error) {
	return lockLocal(ctx, s.path)
}

// add writes a new archive: what the old one had, but for the files that are
// added.
func (s *archiveStore) add(ctx context.Context, files []blob) error {
	target, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return err
	}
	old, err := regular.Open(target)
	if err != nil {
		return err
	}
	defer old.Close()
	added := map[string]bool{}
	for _, b := range files {
		added[b.name] = true
	}
	unchanged := func(name string) error {
		same, err := leadsTo(name, old)
		if err == nil && !same {
			err = errors.New("somebody else replaced it meanwhile")
		}
		return err
	}
	return writeTar(target, unchanged, func(tw *tar.Writer) error {
		tr := tar.NewReader(old)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				return writeMembers(ctx, tw, files)
			}
			if err != nil {
				return err
			}
			if added[path.Clean(h.Name)] {
				continue
			}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.Copy(contextWriter{ctx, tw}, tr); err != nil {
				return err
			}
		}
	})
}

// lockLocal waits until nobody else attaches to what lies at path, and opens it
// then.
func lockLocal(ctx context.Context, path string) (store, func(), error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		err = flock.Lock(ctx, f)
		if err == nil {
			var same bool
			if same, err = leadsTo(path, f); err == nil && !same {
				f.Close() // somebody replaced it in the meantime
				continue
			}
		}
		var s store
		if err == nil {
			s, err = openLocal(path)
		}
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		return s, func() { f.Close() }, nil
	}
}

func leadsTo(path string, f *os.File) (bool, error) {
	there, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	here, err := f.Stat()
	return os.SameFile(there, here), err
}
