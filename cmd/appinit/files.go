// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// What is here does with system calls alone what package os does through its
// poller. A kernel that has just started has run none of that code yet: the
// fewer parts of the two PID 1 touches, the sooner the app starts.

// maxFile is the largest file that is read, in bytes: that of the table of extended
// attributes.
const maxFile = manifest.MaxXattrTable

var errNotRegular = errors.New("not a regular file")

// readFile reads a whole file, of the kernel or of the image, which may be
// anything. Its errors are plain ones: the caller names the file.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return nil, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNotRegular
	}
	if info.Size > maxFile {
		return nil, unix.EFBIG
	}
	data := make([]byte, 0, max(info.Size+1, 4096)) // files of the kernel have no size
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return data, nil
		default:
			data = data[:len(data)+n]
			if len(data) > maxFile {
				return nil, unix.EFBIG
			}
			if len(data) == cap(data) {
				data = append(make([]byte, 0, 4*cap(data)), data...)
			}
		}
	}
}

// readDir returns the names in a directory, in no order.
func readDir(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// mkdirAll makes a directory and those above it that are missing. What is there
// may be a symlink to a directory.
func mkdirAll(path string) error {
	if unix.Access(path+"/.", unix.F_OK) == nil {
		return nil
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		if err := mkdirAll(path[:i]); err != nil {
			return err
		}
	}
	return unix.Mkdir(path, 0o755)
}
