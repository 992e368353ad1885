// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

// File is an entry of a layer, or a file that an image is expected to have.
type File struct {
	Header  tar.Header
	Body    string
	xattrs  map[string]string
	implied bool
}

func newFile(typ byte, path string, mode int64) File {
	return File{Header: tar.Header{Typeflag: typ, Name: path, Mode: mode, ModTime: time.Unix(1000, 0)}}
}

func file(path, body string) File {
	f := newFile(tar.TypeReg, path, 0o644)
	f.Body = body
	return f
}

func dir(path string) File  { return newFile(tar.TypeDir, path, 0o755) }
func fifo(path string) File { return newFile(tar.TypeFifo, path, 0o600) }

// implied is a directory that no layer has, but whose children one has.
func implied(path string) File {
	f := dir(path).at(0)
	f.implied = true
	return f
}

func symlink(path, target string) File {
	f := newFile(tar.TypeSymlink, path, 0o777)
	f.Header.Linkname = target
	return f
}

// link is a hard link: in a layer to target, in an expectation to the first of
// the file's paths.
func link(path, target string) File {
	f := newFile(tar.TypeLink, path, 0o644)
	f.Header.Linkname = target
	return f
}

func char(path string, major, minor int64) File {
	f := newFile(tar.TypeChar, path, 0o600)
	f.Header.Devmajor, f.Header.Devminor = major, minor
	return f
}

func block(path string, major, minor int64) File {
	f := char(path, major, minor)
	f.Header.Typeflag = tar.TypeBlock
	return f
}

// whiteout hides a path; opaque all that is in a directory.
func whiteout(path string) File {
	i := strings.LastIndexByte(path, '/') + 1
	return file(path[:i]+".wh."+path[i:], "")
}

func opaque(dir string) File { return file(dir+"/.wh..wh..opq", "") }

func (f File) mode(mode int64) File {
	f.Header.Mode = mode
	return f
}

func (f File) owned(uid, gid int) File {
	f.Header.Uid, f.Header.Gid = uid, gid
	return f
}

func (f File) at(seconds int64) File {
	f.Header.ModTime = time.Unix(seconds, 0)
	return f
}

func (f File) format(format tar.Format) File {
	f.Header.Format = format
	return f
}

// attr adds an extended attribute.
func (f File) attr(name, value string) File {
	records := map[string]string{"SCHILY.xattr." + name: value}
	xattrs := map[string]string{name: value}
	for k, v := range f.xattrs {
		records["SCHILY.xattr."+k], xattrs[k] = v, v
	}
	f.Header.PAXRecords, f.xattrs = records, xattrs
	return f
}

// expectation turns files into a list as scan.Dir makes it.
func expectation(want []File) (files []scan.File, impliedPaths []string) {
	if !slices.ContainsFunc(want, func(f File) bool { return f.Header.Name == "." }) {
		want = append([]File{implied(".")}, want...)
	}
	known := map[string]scan.File{}
	var groups []string // of hard links, named by the first path
	for _, f := range want {
		path, group := f.Header.Name, f.Header.Name
		if f.implied {
			impliedPaths = append(impliedPaths, path)
		}
		s := f.scanned()
		if f.Header.Typeflag == tar.TypeLink {
			group = f.Header.Linkname
			s = known[group]
			s.Path = path
		}
		known[path] = s
		files, groups = append(files, s), append(groups, group)
	}
	return scan.Sorted(files, groups), impliedPaths
}

func (f File) scanned() scan.File {
	h := f.Header
	s := scan.File{
		Path: h.Name, Mode: uint32(h.Mode), UID: uint32(h.Uid), GID: uint32(h.Gid), Time: h.ModTime.Unix(), Xattrs: f.xattrs,
		Type: map[byte]string{
			tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink",
			tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
		}[h.Typeflag],
	}
	switch h.Typeflag {
	case tar.TypeReg:
		sum := sha256.Sum256([]byte(f.Body))
		s.Size, s.SHA256 = int64(len(f.Body)), hex.EncodeToString(sum[:])
	case tar.TypeSymlink:
		s.Target = h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		s.Major, s.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	return s
}
