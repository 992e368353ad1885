// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
)

// lower is what a layer's entries mean in the tree as the layers below left it.
type lower struct {
	// Symlinks that the layer replaces or hides. A whiteout beneath one of them
	// is in a directory of the layer's own: what the old link led to stays.
	replaced map[slot]bool
	// Targets of hard links that whiteouts took away, by the number of the
	// entry. The order of whiteouts means nothing, so the link holds whether it
	// stands before or after the whiteout, as in "ln a b; rm a".
	targets map[int]*Inode
}

// slot is a place for a name in a directory.
type slot struct {
	dir  *Inode
	name string
}

// hideAll applies the whiteouts of a layer, and nothing else of it.
func (t *Tree) hideAll(ctx context.Context, c *changes) (lower, error) {
	low := lower{map[slot]bool{}, map[int]*Inode{}}
	if !c.whiteouts() {
		return low, nil
	}
	err := c.each(ctx, func(i int, ch change) error {
		t.remember(&low, i, ch)
		return nil
	})
	if err != nil {
		return low, err
	}
	err = c.each(ctx, func(_ int, ch change) error {
		if hidden, ok := hides(ch.name); ok {
			return t.hide(ch.name, hidden, low.replaced)
		}
		return nil
	})
	for i, n := range low.targets {
		if still, err := t.linkTarget(c.entries[i].hardlink); err == nil && still == n {
			delete(low.targets, i)
		}
	}
	return low, err
}

func (c *changes) whiteouts() bool {
	for _, ch := range c.entries {
		if _, ok := hides(ch.name); ok {
			return true
		}
	}
	return false
}

// remember looks at what an entry is about to change or to link.
func (t *Tree) remember(low *lower, i int, ch change) {
	if dir, base, err := t.parent(ch.name); err == nil {
		if hidden, ok := hides(ch.name); ok {
			base = hidden
		}
		if n := dir.children[base]; n != nil && n.Type == Symlink {
			low.replaced[slot{dir, base}] = true
		}
	}
	if ch.inode == nil {
		if n, err := t.linkTarget(ch.hardlink); err == nil {
			low.targets[i] = n
		}
	}
}

func (t *Tree) hide(name, hidden string, replaced map[slot]bool) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return errors.New("whiteout without a name")
	}
	dir, _, err := t.descend(name, descent{barred: replaced})
	switch {
	case err != nil: // lower layers have no such directory, so there is nothing to hide
	case hidden == opaque:
		clear(dir.children)
	default:
		delete(dir.children, hidden)
	}
	return nil
}
