// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// checkXattr says whether the table can carry an attribute: whether a tmpfs of
// Linux 6.1 takes it from PID 1.
func checkXattr(name, value string) error {
	if name == rootfs.AccessACL || name == rootfs.DefaultACL {
		if err := rootfs.CheckACL(value); err != nil {
			return fmt.Errorf("%w: access control list %s: %w", initramfs.ErrMisfit, name, err)
		}
		return nil
	}
	if name == rootfs.FileFlags {
		return fmt.Errorf("%w: file flags %q: a tmpfs has none", initramfs.ErrMisfit, value)
	}
	namespace, rest, _ := strings.Cut(name, ".")
	if namespace != "security" && namespace != "trusted" || rest == "" || len(name) > 255 {
		return fmt.Errorf("%w: extended attribute %.255s: the app's root file system takes security.*, trusted.* and POSIX access control lists", initramfs.ErrMisfit, name)
	}
	if name == fidelity.CapabilityXattr {
		if _, err := fidelity.FormatCapability([]byte(value)); err != nil {
			return fmt.Errorf("%w: extended attribute %s: %w", initramfs.ErrMisfit, name, err)
		}
	}
	return nil
}

// checkNoXattr says that nothing applies extended attributes.
func checkNoXattr(name, _ string) error {
	return fmt.Errorf("%w: extended attribute %.255s: the format has no place for any", initramfs.ErrMisfit, name)
}

// putXattrs puts the table of extended attributes into the tree, if there are any, and
// returns its size in bytes. fit has seen to it that the table can carry them all.
func (c *content) putXattrs() (size int64, err error) {
	var table []byte
	seen := map[*rootfs.Inode]bool{}
	err = c.tree.Walk(func(name string, n *rootfs.Inode) error {
		if len(n.Xattrs) == 0 || seen[n] && n.Type != rootfs.Symlink { // the kernel does not link symlinks
			return nil
		}
		seen[n] = true
		path := name
		if name == "." { // the table's name of the root
			path = ""
		}
		for _, attr := range slices.Sorted(maps.Keys(n.Xattrs)) {
			value := []byte(n.Xattrs[attr])
			table = manifest.AppendXattr(table, manifest.Xattr{Path: path, Name: attr, Value: value})
			if len(table) > manifest.MaxXattrTable {
				return fmt.Errorf("extended attributes of more than %d bytes", manifest.MaxXattrTable)
			}
			if err := c.carried(name, attr, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(table) == 0 {
		return 0, err
	}
	return int64(len(table)), c.put(manifest.XattrsPath, rootfs.NewFile(bytes.NewReader(table), int64(len(table)), 0o600))
}

// carried reports an attribute that the table has.
func (c *content) carried(name, attr string, value []byte) error {
	c.fidelity.Xattrs.Count++
	if attr != fidelity.CapabilityXattr {
		return nil
	}
	text, err := fidelity.FormatCapability(value)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	c.fidelity.Xattrs.Capabilities = append(c.fidelity.Xattrs.Capabilities, fidelity.Capability{Path: name, Capabilities: text})
	return nil
}
