// SPDX-License-Identifier: Apache-2.0

// Package tarfs shows an uncompressed tar file as an fs.FS: members are read
// in place, nothing is unpacked. It serves the oci-archive and docker-archive
// transports.
package tarfs

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/regular"
)

// FS is an open tar file.
type FS struct {
	file    *os.File
	members map[string]member
}

// member is what is kept of a header: a whole one may have 1 MiB of records.
type member struct {
	kind         byte
	link         string
	offset, size int64
}

// Open indexes the tar file at a path, which must be a regular file.
func Open(file string) (*FS, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, err
	}
	return New(f)
}

// New indexes an open tar file. The FS closes it.
func New(f *os.File) (*FS, error) {
	a := &FS{file: f, members: map[string]member{}}
	if err := a.index(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: not an uncompressed tar archive, or truncated: %w", f.Name(), err)
	}
	return a, nil
}

func (a *FS) index() error {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tr := tar.NewReader(a.file)
	for members, names := 1, 0; ; members++ {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		names += len(h.Name) + len(h.Linkname)
		switch {
		case members > limit.ArchiveMembers:
			return fmt.Errorf("more than %d members", limit.ArchiveMembers)
		case names > limit.ArchiveNames:
			return fmt.Errorf("more than %d bytes of names", limit.ArchiveNames)
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		// Package tar cuts names out of larger texts.
		a.members[strings.Clone(path.Clean(h.Name))] = member{h.Typeflag, strings.Clone(h.Linkname), offset, h.Size}
	}
}

// Close closes the archive's file.
func (a *FS) Close() error { return a.file.Close() }

// Open opens a member; links to other members, which old docker versions
// write for layers, are followed.
func (a *FS) Open(name string) (fs.File, error) {
	for range 4 {
		m, ok := a.members[path.Clean(name)]
		if !ok {
			break
		}
		switch m.kind {
		case tar.TypeReg:
			return &openMember{path.Base(name), io.NewSectionReader(a.file, m.offset, m.size)}, nil
		case tar.TypeSymlink:
			name = path.Join(path.Dir(name), m.link)
		case tar.TypeLink:
			name = m.link
		default:
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// openMember is a member as an fs.File.
type openMember struct {
	name string
	*io.SectionReader
}

func (m *openMember) Stat() (fs.FileInfo, error) { return info{m.name, m.Size()}, nil }
func (m *openMember) Close() error               { return nil }

// info is what is known of a member: a regular file that can only be read.
type info struct {
	name string
	size int64
}

func (i info) Name() string     { return i.name }
func (i info) Size() int64      { return i.size }
func (info) Mode() fs.FileMode  { return 0o444 }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }
