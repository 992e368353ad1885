// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
)

// misfit is something of a file that the initramfs has no place for.
type misfit struct {
	name   string
	inode  *rootfs.Inode
	err    error
	xattr  string // the attribute; empty when it is about something else
	time   bool
	waiver string // the pattern that lets it go
}

// fit makes the tree one that an initramfs holds. What it does not hold is an
// error that wraps initramfs.ErrMisfit, unless a pattern allows to drop it: then
// the attribute goes, the time moves to the nearest one, or else the file goes.
// A file with several names changes under all of them, so that all must be
// allowed; the report has it under the first. xattr says which extended attributes are held.
func (c *content) fit(allowed []string, xattr func(name, value string) error) error {
	var waived []misfit
	var first error
	refused := 0
	known := map[*rootfs.Inode][]misfit{} // of files with several names: once
	err := c.tree.Walk(func(name string, n *rootfs.Inode) error {
		found, again := known[n]
		if err := initramfs.Check(name, n); err != nil {
			if name == "." {
				return err // no tree is without a root
			}
			found, again = []misfit{{inode: n, err: err}}, false
		} else if !again {
			if found = misfits(n, xattr); len(found) == 0 {
				return nil
			}
			known[n] = found[:1:1] // enough to refuse its other names
		}
		i := slices.IndexFunc(allowed, func(pattern string) bool { return recipes.MatchPattern(pattern, name) })
		switch {
		case i >= 0 && !again && first == nil:
			for _, m := range found {
				m.name, m.waiver = name, "waiver "+allowed[i]
				waived = append(waived, m)
			}
		case i >= 0:
		case first == nil:
			first = fmt.Errorf("%q: %w", name, found[0].err)
		default:
			refused++
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case refused > 0:
		return fmt.Errorf("%w (and %d more files)", first, refused)
	case first != nil:
		return first
	}
	c.waive(waived)
	return nil
}

// misfits lists what the initramfs has no place for in a file that it can hold:
// its time, and extended attributes.
func misfits(n *rootfs.Inode, xattr func(name, value string) error) []misfit {
	var out []misfit
	if err := initramfs.CheckTime(n); err != nil {
		out = append(out, misfit{inode: n, err: err, time: true})
	}
	for _, attr := range slices.Sorted(maps.Keys(n.Xattrs)) {
		if err := xattr(attr, n.Xattrs[attr]); err != nil {
			out = append(out, misfit{inode: n, err: err, xattr: attr})
		}
	}
	return out
}

// waive lets go what is allowed to go, and reports it.
func (c *content) waive(all []misfit) {
	gone := ""
	for _, m := range all {
		change := fidelity.Change{Path: m.name, By: m.waiver, Why: m.err.Error()}
		switch {
		case gone != "" && strings.HasPrefix(m.name, gone):
			continue
		case m.xattr != "":
			change.What = "xattr " + m.xattr + " dropped"
			if before := m.inode.Perm; m.xattr == rootfs.AccessACL {
				if m.inode.Perm = rootfs.WithoutACL(before, m.inode.Xattrs[m.xattr]); m.inode.Perm != before {
					change.What += fmt.Sprintf(", mode %04o", m.inode.Perm)
				}
			}
			delete(m.inode.Xattrs, m.xattr)
		case m.time:
			m.inode.ModTime = initramfs.ClampTime(m.inode.ModTime)
			change.What = "time clamped to " + m.inode.ModTime.UTC().Format(time.RFC3339)
		default:
			entries, size := c.tree.Remove(func(name string) bool { return name == m.name })
			gone = m.name + "/"
			c.fidelity.Dropped = append(c.fidelity.Dropped, fidelity.Dropped{By: m.waiver, Path: m.name, Why: change.Why, Entries: entries, Bytes: size})
			continue
		}
		c.fidelity.Changed = append(c.fidelity.Changed, change)
	}
}
