// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of a recording, which may come from a stranger.
const (
	maxEntries   = 1 << 19
	maxRecording = 128 << 20 // bytes of content
	maxName      = 256       // bytes of a name, or of where a link leads
)

// Record writes a tar of what this package reads of a host: the files, links and
// directories that Read reads, and those that Host.Begin and Taking.Commit read. Names are relative,
// in order, and without times or owners, so that a host that has not changed gives
// the same bytes. Nothing else is in it: no process, no serial number.
func Record(root Root, w io.Writer) error {
	rec := &recorder{Root: root, files: map[string]string{}, links: map[string]string{}, dirs: map[string]bool{}}
	t, err := Read(rec)
	if err != nil {
		return err
	}
	if _, err := readAffinities(rec); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if _, err := rec.ReadFile(defaultIRQ); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("recording: %w", err)
	}
	if err := t.Cpuset.peek(rec); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := rec.write(w); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// recorder keeps what is read through it.
type recorder struct {
	Root
	files, links map[string]string
	dirs         map[string]bool
}

func (r *recorder) ReadFile(name string) ([]byte, error) {
	data, err := r.Root.ReadFile(name)
	if err == nil {
		r.files[name] = string(data)
	}
	return data, err
}

func (r *recorder) ReadLink(name string) (string, error) {
	to, err := r.Root.ReadLink(name)
	if err == nil {
		r.links[name] = to
	}
	return to, err
}

// ReadDir keeps what is below a directory only when it is read, too; the names of
// directories matter of their own.
func (r *recorder) ReadDir(name string) ([]string, error) {
	names, err := r.Root.ReadDir(name)
	if err == nil {
		r.dirs[name] = true
	}
	return names, err
}

func (r *recorder) write(w io.Writer) error {
	out := tar.NewWriter(w)
	headers := map[string]tar.Header{}
	for name := range r.dirs {
		headers[name] = tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}
	}
	for name, to := range r.links {
		headers[name] = tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	for name, data := range r.files {
		headers[name] = tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		h := headers[name]
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := io.WriteString(out, r.files[name]); err != nil {
			return err
		}
	}
	return out.Close()
}

// Recording is what Record wrote, as a Root that cannot be written to.
type Recording struct {
	Files map[string]string // content by name
	Links map[string]string // where they lead, by name
	dirs  map[string][]string
}

// Replay reads a recording. Refused are entries of other kinds than files,
// directories and links, names that are not clean and relative, names that come
// twice or below a file, and more than the limits allow. Links are never followed.
func Replay(r io.Reader) (*Recording, error) {
	rec := &Recording{Files: map[string]string{}, Links: map[string]string{}, dirs: map[string][]string{".": nil}}
	in := tar.NewReader(r)
	size, entries := int64(0), 0
	for {
		h, err := in.Next()
		if err == io.EOF {
			return rec, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a recording: %w", err)
		}
		entries++
		if size += h.Size; entries > maxEntries || h.Size > maxFile || size > maxRecording {
			return nil, fmt.Errorf("reading a recording: %s: beyond the limits: %d entries, %d bytes each, %d bytes together", quoted(h.Name), maxEntries, maxFile, maxRecording)
		}
		if err := rec.add(h, in); err != nil {
			return nil, fmt.Errorf("reading a recording: %s: %w", quoted(h.Name), err)
		}
	}
}

func (rec *Recording) add(h *tar.Header, content io.Reader) error {
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if !fs.ValidPath(name) || name == "." || len(name) > maxName || len(h.Linkname) > maxName {
		return errors.New("not a clean relative name")
	}
	if _, isDir := rec.dirs[name]; isDir && h.Typeflag == tar.TypeDir {
		return nil // what is below it came first
	} else if isDir || rec.isFile(name) {
		return errors.New("comes twice")
	}
	for at := path.Dir(name); at != "."; at = path.Dir(at) {
		if rec.isFile(at) {
			return fmt.Errorf("%s is not a directory", quoted(at))
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		rec.dirs[name] = nil
	case tar.TypeReg:
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		rec.Files[name] = string(data)
	case tar.TypeSymlink:
		rec.Links[name] = h.Linkname
	default:
		return fmt.Errorf("an entry of kind %q", h.Typeflag)
	}
	rec.link(name)
	return nil
}

func (rec *Recording) isFile(name string) bool {
	_, file := rec.Files[name]
	_, link := rec.Links[name]
	return file || link
}

// link adds a name to its directory, and that to its own.
func (rec *Recording) link(name string) {
	for {
		dir := path.Dir(name)
		_, known := rec.dirs[dir]
		rec.dirs[dir] = append(rec.dirs[dir], path.Base(name))
		if known {
			return
		}
		name = dir
	}
}

// ReadFile implements Root.
func (rec *Recording) ReadFile(name string) ([]byte, error) {
	data, ok := rec.Files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(data), nil
}

// ReadDir implements Root.
func (rec *Recording) ReadDir(name string) ([]string, error) {
	names, ok := rec.dirs[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Sorted(slices.Values(names)), nil
}

// ReadLink implements Root.
func (rec *Recording) ReadLink(name string) (string, error) {
	to, ok := rec.Links[name]
	if !ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrNotExist}
	}
	return to, nil
}

// WriteFile implements Root: a recording cannot be written to.
func (rec *Recording) WriteFile(name string, _ []byte) error { return readOnly("write", name) }

// Mkdir implements Root: a recording cannot be written to.
func (rec *Recording) Mkdir(name string) error { return readOnly("mkdir", name) }

// Remove implements Root: a recording cannot be written to.
func (rec *Recording) Remove(name string) error { return readOnly("remove", name) }

func readOnly(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: errors.New("this is a recording")}
}
