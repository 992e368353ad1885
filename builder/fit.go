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
// allowed. xattr says which extended attributes are held.
func (c *content) fit(allowed []string, xattr func(name, value string) error) error {
	all, err := misfits(c.tree, xattr)
	if err != nil {
		return err
	}
	refused := map[string]bool{}
	var first *misfit
	for i := range all {
		m := &all[i]
		j := slices.IndexFunc(allowed, func(pattern string) bool { return recipes.MatchPattern(pattern, m.name) })
		switch {
		case j >= 0:
			m.waiver = "waiver " + allowed[j]
			continue
		case first == nil:
			first = m
		}
		refused[m.name] = true
	}
	switch more := len(refused) - 1; {
	case more > 0:
		return fmt.Errorf("%q: %w (and %d more files)", first.name, first.err, more)
	case first != nil:
		return fmt.Errorf("%q: %w", first.name, first.err)
	}
	c.waive(all)
	return nil
}

// misfits lists what the initramfs has no place for, in the order of the paths.
func misfits(t *rootfs.Tree, xattr func(name, value string) error) ([]misfit, error) {
	var out []misfit
	err := t.Walk(func(name string, n *rootfs.Inode) error {
		if err := initramfs.Check(name, n); err != nil {
			if name == "." {
				return err // no tree is without a root
			}
			out = append(out, misfit{name: name, inode: n, err: err})
			return nil
		}
		if err := initramfs.CheckTime(n); err != nil {
			out = append(out, misfit{name: name, inode: n, err: err, time: true})
		}
		for _, attr := range slices.Sorted(maps.Keys(n.Xattrs)) {
			if err := xattr(attr, n.Xattrs[attr]); err != nil {
				out = append(out, misfit{name: name, inode: n, err: err, xattr: attr})
			}
		}
		return nil
	})
	return out, err
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
			delete(m.inode.Xattrs, m.xattr)
			change.What = "xattr " + m.xattr + " dropped"
		case m.time:
			// A second name finds it clamped already.
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
