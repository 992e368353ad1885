// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// ErrOutput says that an output is in the way; test with errors.Is.
var ErrOutput = errors.New("exists and is not a regular file")

// ErrOutputName says that an output's name does not say its form; test with errors.Is.
var ErrOutputName = errors.New("the name ends neither in .cpio nor in .zst")

// checkFile refuses to write where no file can be: in a folder where none can be
// made, or in the place of what is no regular file: a folder, a device.
func checkFile(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = unix.Access(filepath.Dir(name), unix.W_OK)
	case err == nil && !info.Mode().IsRegular():
		err = ErrOutput
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	return nil
}

// ReplaceFile makes a file of what write writes, whole or not at all. A file that
// is there is replaced; what is no file is refused with ErrOutput.
func ReplaceFile(name string, write func(io.Writer) error) error {
	if err := checkFile(name); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Dir(name)), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	defer f.Cleanup() //nolint:errcheck // does nothing once the file is in its place
	err = write(f)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	return nil
}
