// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Root is where a host's /sys and /proc are: the real ones, a recording, or a test's.
// Names are slash-separated and relative to it, as in io/fs ("sys/devices/system/cpu").
// Errors are those of package os, so that errors.Is(err, fs.ErrNotExist) and the
// like hold.
type Root interface {
	// ReadFile returns a file's content.
	ReadFile(name string) ([]byte, error)

	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)

	// ReadLink returns where a symbolic link leads.
	ReadLink(name string) (string, error)

	// WriteFile replaces the content of a file that exists, by one write(2).
	WriteFile(name string, data []byte) error

	// Mkdir makes a directory, which makes a control group.
	Mkdir(name string) error

	// Remove removes a directory, which removes a control group.
	Remove(name string) error
}

// Dir returns the Root in a directory; "/" is the host itself.
func Dir(dir string) Root { return dirRoot(dir) }

type dirRoot string

// maxFile is how much of one file is read, in bytes. The largest ones are lists and
// masks of CPUs and a node's meminfo.
const maxFile = 64 << 10

func (d dirRoot) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d dirRoot) ReadFile(name string) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", f.Name(), maxFile)
	}
	return data, err
}

func (d dirRoot) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.path(name))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (d dirRoot) ReadLink(name string) (string, error) { return os.Readlink(d.path(name)) }

func (d dirRoot) WriteFile(name string, data []byte) error {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func (d dirRoot) Mkdir(name string) error { return os.Mkdir(d.path(name), 0o755) }

func (d dirRoot) Remove(name string) error { return os.Remove(d.path(name)) }
