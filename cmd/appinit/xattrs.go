// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// applyXattrs sets the extended attributes of a table on the files below root.
// A program without its capabilities, or a file without its label, is not what
// the image has: the first that cannot be set is an error.
func applyXattrs(root string, table []byte) error {
	return manifest.EachXattr(table, func(x manifest.Xattr) error {
		path := root + "/" + x.Path
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("setting extended attribute %q of %q: %w", x.Name, path, err)
		}
		return nil
	})
}
