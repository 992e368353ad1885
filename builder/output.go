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
)

// ErrOutput says that an output is in the way; test with errors.Is.
var ErrOutput = errors.New("exists and is not a regular file")

// checkFile refuses to replace what is no regular file: a folder, a device.
func checkFile(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !info.Mode().IsRegular() {
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
