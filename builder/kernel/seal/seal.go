// SPDX-License-Identifier: Apache-2.0

// Package seal has the source of the driver by which a kernel unpacks one initramfs, and
// none other.
package seal

import (
	"embed"
	"io/fs"
)

// Name is the driver's: its folder in a kernel tree is drivers/Name.
const Name = "tenon-seal"

//go:embed src
var src embed.FS

// Files are the driver's, with its Kconfig and its Makefile at the top.
func Files() fs.FS {
	files, err := fs.Sub(src, "src")
	if err != nil {
		panic(err) // the name above is valid
	}
	return files
}
