// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
)

// Whiteouts, as in the OCI image specification, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// apply changes the tree as layer number layer says. Whiteouts hide what lower
// layers made, wherever they stand in the layer, and never its own entries.
func (t *Tree) apply(c *changes, layer int) error {
	for _, ch := range c.entries {
		if err := t.applyOne(ch, layer); err != nil {
			return fmt.Errorf("%s: %.200q: %w", c.digest, ch.name, err)
		}
	}
	return nil
}

func (t *Tree) applyOne(ch change, layer int) error {
	dir, base, err := t.mkparents(ch.name, layer)
	if err != nil {
		return err
	}
	switch {
	case base == "":
		if ch.inode == nil || ch.inode.Type != Directory {
			return errors.New("the root can only be a directory")
		}
		dir.become(ch.inode)
		return nil
	case base == opaqueName:
		prune(dir, layer)
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		hidden := strings.TrimPrefix(base, whiteoutPrefix)
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("whiteout without a name")
		}
		pruneEntry(dir, hidden, layer)
		return nil
	}
	n := ch.inode
	if n == nil {
		if n, err = t.linkTarget(ch.hardlink); err != nil {
			return fmt.Errorf("hard link to %q: %w", ch.hardlink, err)
		}
	}
	if old := dir.children[base]; old != nil && old.inode.Type == Directory && n.Type == Directory {
		old.inode.become(n)
		old.layer = layer
		return nil
	}
	dir.children[base] = &entry{inode: n, layer: layer}
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
	e := dir.children[base]
	if e == nil {
		return nil, os.ErrNotExist
	}
	if e.inode.Type == Directory {
		return nil, errors.New("is a directory")
	}
	return e.inode, nil
}

// prune removes what layers below layer put into dir.
func prune(dir *Inode, layer int) {
	for name := range maps.Clone(dir.children) {
		pruneEntry(dir, name, layer)
	}
}

func pruneEntry(dir *Inode, name string, layer int) {
	e := dir.children[name]
	if e == nil {
		return
	}
	if e.inode.Type == Directory {
		prune(e.inode, layer)
		if len(e.inode.children) > 0 { // something of this layer is in it
			if e.layer < layer {
				// As if the whiteout had stood before what is in it.
				e.inode.become(newDir())
				e.layer = layer
			}
			return
		}
	}
	if e.layer < layer {
		delete(dir.children, name)
	}
}
