// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Whiteouts, as in the OCI image specification, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaque         = ".wh..opq" // what the opaque whiteout has after the prefix
)

// apply changes the tree as a layer says. All its whiteouts come before all
// its entries: they hide what lower layers made, wherever they stand in the
// layer, and never its own entries. What the entries imply is charged to left.
func (t *Tree) apply(ctx context.Context, c *changes, left *budget) error {
	targets, err := t.hideAll(ctx, c)
	if err != nil {
		return err
	}
	return c.each(ctx, func(i int, ch change) error {
		if _, whiteout := hides(ch.name); whiteout {
			return nil
		}
		return t.applyOne(ch, targets[i], left)
	})
}

// each calls fn for every change, in order, and names in its error which it was.
func (c *changes) each(ctx context.Context, fn func(i int, ch change) error) error {
	for i, ch := range c.entries {
		err := ctx.Err()
		if err != nil {
			return fmt.Errorf("%s: %w", c.digest, err)
		}
		if err = fn(i, ch); err != nil {
			return fmt.Errorf("%s: %.200q: %w", c.digest, ch.name, err)
		}
	}
	return nil
}

// hides returns what a whiteout names, and false for any other entry.
func hides(name string) (hidden string, ok bool) {
	e := elements(name)
	if len(e) == 0 {
		return "", false
	}
	return strings.CutPrefix(e[len(e)-1], whiteoutPrefix)
}

// applyOne applies an entry. hidden is the target of a hard link where the
// layer's whiteouts took it away.
func (t *Tree) applyOne(ch change, hidden *Inode, left *budget) error {
	dir, base, err := t.mkparents(ch.name, left)
	if err != nil {
		return err
	}
	if base == "" {
		if ch.inode == nil || ch.inode.Type != Directory {
			return errors.New("the root can only be a directory")
		}
		dir.become(ch.inode)
		return nil
	}
	n := ch.inode
	if n == nil {
		n, err = t.linkTarget(ch.hardlink)
		if errors.Is(err, fs.ErrNotExist) && hidden != nil {
			n, err = hidden, nil
		}
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", ch.hardlink, err)
		}
	}
	if old := dir.children[base]; old != nil && old.Type == Directory && n.Type == Directory {
		old.become(n)
		return nil
	}
	dir.children[base] = n
	return nil
}

// become takes over the attributes of another directory and keeps the entries.
func (n *Inode) become(other *Inode) {
	children := n.children
	*n = *other
	n.children = children
}

func (t *Tree) linkTarget(name string) (*Inode, error) {
	dir, base, err := t.parent(name)
	if err != nil {
		return nil, err
	}
	n := dir.children[base]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	if n.Type == Directory {
		return nil, errors.New("is a directory")
	}
	return n, nil
}
