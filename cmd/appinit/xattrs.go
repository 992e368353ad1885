// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// applyXattrs sets the extended attributes of a table on the files below the
// working directory: a path from there is no longer than the kernel takes. A program without its capabilities, or a file without its label, is not what
// the image has: the first that cannot be set is an error.
func applyXattrs(table []byte) error {
	return manifest.EachXattr(table, func(x manifest.Xattr) error {
		path := x.Path
		if path == "" {
			path = "."
		}
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %q of %q: %w", x.Name, "/"+x.Path, err)
		}
		return nil
	})
}
