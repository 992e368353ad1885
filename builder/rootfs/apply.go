// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	for _, whiteouts := range []bool{true, false} {
		for _, ch := range c.entries {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%s: %w", c.digest, err)
			}
			hidden, whiteout := hides(ch.name)
			if whiteout != whiteouts {
				continue
			}
			var err error
			if whiteout {
				err = t.hide(ch.name, hidden)
			} else {
				err = t.applyOne(ch, left)
			}
			if err != nil {
				return fmt.Errorf("%s: %.200q: %w", c.digest, ch.name, err)
			}
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

func (t *Tree) hide(name, hidden string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return errors.New("whiteout without a name")
	}
	dir, _, err := t.parent(name)
	switch {
	case err != nil: // lower layers have no such directory, so there is nothing to hide
	case hidden == opaque:
		clear(dir.children)
	default:
		delete(dir.children, hidden)
	}
	return nil
}

func (t *Tree) applyOne(ch change, left *budget) error {
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
		if n, err = t.linkTarget(ch.hardlink); err != nil {
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
		return nil, os.ErrNotExist
	}
	if n.Type == Directory {
		return nil, errors.New("is a directory")
	}
	return n, nil
}
