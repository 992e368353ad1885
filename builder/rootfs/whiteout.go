// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
)

// slot is a place for a name in a directory.
type slot struct {
	dir  *Inode
	name string
}

// lower is what the entries of a layer mean in the tree as the layers below
// left it. All of it is found out before anything is changed, so that the order
// of whiteouts means nothing.
type lower struct {
	// Names that whiteouts hide, and symlinks that the layer replaces. A
	// whiteout beneath one of them is in a directory of the layer's own: what an
	// old link led to stays.
	gone map[slot]bool
	// Directories that opaque whiteouts empty.
	emptied map[*Inode]bool
	// Targets of hard links that whiteouts take away, by the number of the
	// entry. The link holds before and after the whiteout, as in "ln a b; rm a".
	targets map[int]*Inode
}

// hideAll applies the whiteouts of a layer, and nothing else of it. It returns
// the targets of hard links that they took away.
func (t *Tree) hideAll(ctx context.Context, c *changes) (map[int]*Inode, error) {
	if !c.whiteouts() {
		return nil, nil
	}
	low := &lower{map[slot]bool{}, map[*Inode]bool{}, map[int]*Inode{}}
	err := c.each(ctx, func(i int, ch change) error { return t.remember(low, i, ch) })
	if err != nil {
		return nil, err
	}
	var hidden []slot
	err = c.each(ctx, func(_ int, ch change) error {
		name, ok := hides(ch.name)
		if !ok {
			return nil
		}
		if dir, _, err := t.descend(ch.name, descent{low: low}); err == nil {
			hidden = append(hidden, slot{dir, name})
		} // else there is nothing to hide
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range hidden {
		if s.name == opaque {
			clear(s.dir.children)
		}
		delete(s.dir.children, s.name)
	}
	for i, n := range low.targets {
		if still, err := t.linkTarget(c.entries[i].hardlink); err == nil && still == n {
			delete(low.targets, i)
		}
	}
	return low.targets, nil
}

func (c *changes) whiteouts() bool {
	for _, ch := range c.entries {
		if _, ok := hides(ch.name); ok {
			return true
		}
	}
	return false
}

// remember notes what an entry is about to hide, to replace or to link.
func (t *Tree) remember(low *lower, i int, ch change) error {
	hidden, whiteout := hides(ch.name)
	if whiteout && (hidden == "" || hidden == "." || hidden == "..") {
		return errors.New("whiteout without a name")
	}
	dir, base, err := t.parent(ch.name)
	switch {
	case err != nil: // lower layers have nothing there
	case hidden == opaque:
		low.emptied[dir] = true
	case whiteout:
		low.gone[slot{dir, hidden}] = true
	default:
		if n := dir.children[base]; n != nil && n.Type == Symlink {
			low.gone[slot{dir, base}] = true
		}
	}
	if ch.inode == nil && !whiteout {
		if n, err := t.linkTarget(ch.hardlink); err == nil {
			low.targets[i] = n
		}
	}
	return nil
}

// hides says that what has a name in dir is no way for a whiteout.
func (l *lower) hides(dir *Inode, name string) bool {
	return l != nil && (l.emptied[dir] || l.gone[slot{dir, name}])
}
