// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
)

// content is the root file system in the making, with the report of how it differs from
// the image.
type content struct {
	tree     *rootfs.Tree
	size     int64 // bytes of the image's layers
	fidelity *fidelity.Report
}

// openImage opens the image. Archives and directories can take a while.
func openImage(ctx context.Context, reference string, platform v1.Platform, progress Progress) (*image.Image, error) {
	var done atomic.Int64
	progress(StageOpen, 0, 0)
	return image.Open(ctx, reference, platform, func(n int64) { progress(StageOpen, done.Add(n), 0) })
}

// unpack reads the image's layers into a tree. Their files are spooled in work.
func unpack(ctx context.Context, img *image.Image, work string, limits rootfs.Limits, progress Progress) (*content, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	c := &content{fidelity: fidelity.New()}
	for _, l := range layers {
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		c.size += size
	}
	var done atomic.Int64
	c.tree, err = rootfs.FromImage(ctx, img, work, limits, func(n int64) { progress(StageLayers, done.Add(n), c.size) })
	return c, err
}

// checkPatterns refuses patterns of the option or key of that name that match nothing: they were
// meant for something.
func (c *content) checkPatterns(option string, patterns []string) error {
	left := slices.Clone(patterns)
	err := c.tree.Walk(func(name string, _ *rootfs.Inode) error {
		left = slices.DeleteFunc(left, func(pattern string) bool { return recipes.MatchPattern(pattern, name) })
		return nil
	})
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s %q %w", option, left[0], recipes.ErrNoMatch)
	}
	return err
}

// drop leaves out what the recipe says.
func (c *content) drop(r *recipes.Recipe) error {
	if err := c.checkPatterns(fmt.Sprintf("recipe %q: drop:", r.Name), r.Drop); err != nil {
		return err
	}
	all := slices.Concat(r.Drop, r.DropIf)
	entries, size := c.tree.Remove(func(name string) bool { return recipes.Matches(all, name) })
	if entries > 0 {
		c.fidelity.Dropped = append(c.fidelity.Dropped, fidelity.Dropped{By: "recipe " + r.Name, Entries: entries, Bytes: size})
	}
	return c.tree.Walk(func(name string, _ *rootfs.Inode) error {
		if name == rootfs.Clean(manifest.Dir) { // be it a symlink to somewhere else
			return fmt.Errorf("the image has a file %s, which PID 1 needs for itself", manifest.Dir)
		}
		return nil
	})
}

// keepVolumes returns the volumes without those where PID 1 or the kernel has something
// mounted anyway, as images of systemd have them.
func (c *content) keepVolumes(volumes []string) (kept []string) {
	for _, v := range volumes {
		if dir := manifest.ReservedDir(v); dir != "" {
			c.fidelity.Changed = append(c.fidelity.Changed, fidelity.Change{Path: v[1:], What: "no volume", By: "tenon", Why: dir + " is mounted by PID 1"})
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

// put adds a file that is not the image's.
func (c *content) put(name string, n *rootfs.Inode) error {
	if _, err := c.tree.Lookup(name); err == nil {
		return fmt.Errorf("the image has a file %s, which PID 1 needs for itself", name)
	}
	c.fidelity.Added = append(c.fidelity.Added, strings.TrimPrefix(name, "/"))
	return c.tree.Put(name, n)
}

// putConsole sees to it that PID 1 can mount what it has to, and can say so when it
// cannot: the kernel opens the console before anything is mounted.
func (c *content) putConsole() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		n, err := c.tree.Lookup(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // PID 1 makes it
		}
		if err != nil || n.Type != rootfs.Directory {
			return fmt.Errorf("the image's %s is not a directory, and PID 1 mounts there", dir)
		}
	}
	const console = "/dev/console"
	n, err := c.tree.Lookup(console)
	if err != nil {
		return c.put(console, rootfs.NewDevice(5, 1, 0o600))
	}
	if n.Type == rootfs.CharDevice && n.Major == 5 && n.Minor == 1 {
		return nil
	}
	c.fidelity.Changed = append(c.fidelity.Changed, fidelity.Change{
		Path: console[1:], What: "made the console", By: "tenon", Why: "the kernel opens it for PID 1",
	})
	return c.tree.Put(console, rootfs.NewDevice(5, 1, 0o600))
}
