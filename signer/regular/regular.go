// SPDX-License-Identifier: Apache-2.0

// Package regular opens regular files and nothing else.
//
// In: a path, or a directory whose files others chose. Out: an open file.
// Refused, without waiting for a writer as open(2) does for a FIFO: whatever
// is not a regular file, and names that lead out of the directory.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a name leads to a directory, FIFO, socket or device.
// It comes wrapped in an *fs.PathError.
var ErrNotRegular = errors.New("not a regular file")

const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY

// Open opens the regular file at a path for reading.
func Open(path string) (*os.File, error) {
	return check(os.OpenFile(path, flags, 0))
}

// Read reads a regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", limit)}
	}
	return data, err
}

// Cause returns what an error of Open or Read says, without the file's name, for callers who name
// it by themselves.
func Cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// FS shows the regular files below Root as an fs.FS. Symlinks are followed
// inside Root.
type FS struct{ Root *os.Root }

// Open opens a file for reading.
func (r FS) Open(name string) (fs.File, error) {
	f, err := check(r.Root.OpenFile(name, flags, 0))
	if err != nil {
		return nil, err // not a nil *os.File in an fs.File
	}
	return f, nil
}

func check(f *os.File, err error) (*os.File, error) {
	var path *fs.PathError
	if errors.Is(err, unix.ENXIO) && errors.As(err, &path) { // a socket, or a device that is not there
		return nil, &fs.PathError{Op: path.Op, Path: path.Path, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: ErrNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
