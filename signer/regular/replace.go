// SPDX-License-Identifier: Apache-2.0

package regular

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

// CheckOutput refuses to write where no file can be: in a folder where none can be
// made, or, with ErrOutput, in the place of what is no regular file: a folder, a
// device, a symbolic link. The error names the file.
func CheckOutput(name string) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = unix.Access(filepath.Dir(name), unix.W_OK)
	case err == nil && !info.Mode().IsRegular():
		err = ErrOutput
	}
	return writing(name, err)
}

// Replace makes a file of what write writes, whole or not at all, with mode 0644 less
// the umask. A file that is there is replaced; what CheckOutput refuses is refused.
// The error names the file.
func Replace(name string, write func(io.Writer) error) error {
	if err := CheckOutput(name); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Dir(name)), renameio.WithPermissions(0o644))
	if err != nil {
		return writing(name, err)
	}
	defer f.Cleanup() //nolint:errcheck // does nothing once the file is in its place
	err = write(f)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	return writing(name, err)
}

func writing(name string, err error) error {
	if err != nil {
		return fmt.Errorf("writing %q: %w", name, err)
	}
	return nil
}
