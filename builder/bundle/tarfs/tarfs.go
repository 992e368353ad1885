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

	"github.com/tenon-build/tenon/signer/regular"
)

// FS is an open tar file.
type FS struct {
	file    *os.File
	members map[string]member
}

type member struct {
	header *tar.Header
	offset int64
}

const maxMembers = 100_000

// Open indexes the tar file at a path, which must be a regular file.
func Open(file string) (*FS, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, err
	}
	a := &FS{file: f, members: map[string]member{}}
	if err := a.index(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: not an uncompressed tar archive, or truncated: %w", file, err)
	}
	return a, nil
}

func (a *FS) index() error {
	tr := tar.NewReader(a.file)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(a.members) >= maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		a.members[path.Clean(h.Name)] = member{h, offset}
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
		switch m.header.Typeflag {
		case tar.TypeReg:
			return &openMember{m.header, io.NewSectionReader(a.file, m.offset, m.header.Size)}, nil
		case tar.TypeSymlink:
			name = path.Join(path.Dir(name), m.header.Linkname)
		case tar.TypeLink:
			name = m.header.Linkname
		default:
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// openMember is a member as an fs.File.
type openMember struct {
	header *tar.Header
	*io.SectionReader
}

func (m *openMember) Stat() (fs.FileInfo, error) { return m.header.FileInfo(), nil }
func (m *openMember) Close() error               { return nil }
