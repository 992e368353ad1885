// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
)

// content is the root file system in the making.
type content struct {
	tree     *rootfs.Tree
	size     int64 // bytes of the image's layers
	table    int64 // bytes of the table of extended attributes
	fidelity *fidelity.Report
}

// unpack reads the image's layers into a tree. Their files are spooled in work.
func unpack(ctx context.Context, req *Request, img *Image, work string) (*content, error) {
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
	c.tree, err = rootfs.FromImage(ctx, img, work, req.Limits, func(n int64) {
		req.Progress(StageLayers, done.Add(n), c.size)
	})
	if err != nil {
		return nil, fmt.Errorf("unpacking image %q: %w", req.Image, err)
	}
	return c, nil
}

func (c *content) drop(r *recipes.Recipe) error {
	entries, size := c.tree.Remove(r.Dropped)
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

// dropVolumes leaves out volumes where PID 1 or the kernel has something mounted
// anyway, as images of systemd have them.
func (c *content) dropVolumes(app *manifest.App) {
	app.Volumes = slices.DeleteFunc(app.Volumes, func(v string) bool {
		dir := manifest.ReservedDir(v)
		if dir != "" {
			c.fidelity.Changed = append(c.fidelity.Changed, fidelity.Change{Path: v[1:], What: "no volume", By: "tenon", Why: dir + " is mounted by PID 1"})
		}
		return dir != ""
	})
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

// isStatic says whether the image's program is an ELF file without an
// interpreter. A program that is not there is nobody's static binary; PID 1
// will say that it is missing.
func isStatic(t *rootfs.Tree, argv []string, app manifest.App) (bool, error) {
	if len(argv) == 0 {
		return false, nil
	}
	n, err := lookPath(t, argv[0], app)
	if errors.Is(err, fs.ErrNotExist) || err == nil && n.Type != rootfs.Regular {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	file, err := elf.NewFile(readerAt{n})
	if err != nil {
		return false, nil // a script, for example
	}
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

type readerAt struct{ n *rootfs.Inode }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.n.Open().(io.ReaderAt).ReadAt(p, off)
}

func lookPath(t *rootfs.Tree, program string, app manifest.App) (*rootfs.Inode, error) {
	if strings.ContainsRune(program, '/') {
		if !path.IsAbs(program) {
			program = path.Join(app.WorkingDir, program)
		}
		return t.Lookup(program)
	}
	search := manifest.DefaultPath
	for _, e := range app.Env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			search = p
		}
	}
	for _, dir := range strings.Split(search, ":") {
		n, err := t.Lookup(path.Join(dir, program))
		if err == nil && n.Type == rootfs.Regular && n.Perm&0o111 != 0 {
			return n, nil
		}
	}
	return nil, fs.ErrNotExist
}

// pack adds PID 1 to the tree and writes the compressed initramfs. It fills in
// what the manifest says of it, the memory claims among that.
func pack(ctx context.Context, req *Request, m *manifest.Manifest, c *content, work string) (string, error) {
	appinit, err := os.Open(req.Appinit)
	if err != nil {
		return "", fmt.Errorf("opening PID 1: %w", err)
	}
	defer appinit.Close()
	info, err := appinit.Stat()
	if err != nil {
		return "", err
	}
	spec, err := json.Marshal(m.Spec())
	if err != nil {
		return "", err
	}
	if _, err := manifest.DecodeSpec(spec); err != nil {
		return "", fmt.Errorf("image %q: %w", req.Image, err)
	}
	if err := errors.Join(
		c.put(manifest.InitPath, rootfs.NewFile(appinit, info.Size(), 0o755)),
		c.put(manifest.SpecPath, rootfs.NewFile(bytes.NewReader(spec), int64(len(spec)), 0o600)),
	); err != nil {
		return "", err
	}
	if err := c.putConsole(); err != nil {
		return "", fmt.Errorf("packing image %q: %w", req.Image, err)
	}
	if err := c.putXattrs(); err != nil {
		return "", fmt.Errorf("packing image %q: %w", req.Image, err)
	}
	name := filepath.Join(work, "initramfs.cpio.zst")
	stats, err := c.write(ctx, req, m, name)
	if err != nil {
		return "", fmt.Errorf("packing image %q: %w", req.Image, err)
	}
	m.Initramfs.Entries = stats.Entries
	m.Initramfs.Unpacked = stats.Unpacked
	m.Initramfs.Sealed = !req.Detached
	// PID 1 reads the table, and the kernel keeps what it says, before the file goes.
	least := bootMemory(stats.Unpacked+2*c.table, m.Initramfs.Size)
	m.Claims.Memory.Min += least
	m.Claims.Memory.Max = max(m.Claims.Memory.Max, m.Claims.Memory.Min)
	return name, nil
}

func (c *content) write(ctx context.Context, req *Request, m *manifest.Manifest, name string) (initramfs.Stats, error) {
	out, err := os.Create(name)
	if err != nil {
		return initramfs.Stats{}, err
	}
	a, err := c.archive(ctx, out, true, req.Progress)
	if err := errors.Join(err, out.Close()); err != nil {
		return initramfs.Stats{}, err
	}
	m.Initramfs.Size, m.Initramfs.Digest = a.size, a.digest
	return a.stats, nil
}

// rootfsShare is how much of memory the root file system may take, in percent.
// The kernel's own default of half makes large images need twice their size.
const rootfsShare = 90

// kernelMemory is what a tailored kernel with its page tables, caches and PID 1
// takes, in bytes, with some room: where a root file system of 147 MiB (37 MiB
// compressed) boots with 221 MiB and no less, bootMemory gives 253 MiB.
const kernelMemory = 48 << 20

// bootMemory returns the least memory, in bytes, whole MiB, in which a root
// file system boots: its files, its compressed form next to it while it is
// being unpacked, and the kernel.
func bootMemory(unpacked, compressed int64) int64 {
	n := (unpacked+compressed)*100/rootfsShare + kernelMemory
	return (n + 1<<20 - 1) >> 20 << 20
}

func ports(exposed map[string]struct{}) []string {
	return slices.Sorted(maps.Keys(exposed))
}

// volumes sorts parents before what is below them, the order in which they are
// mounted. As in docker, a path may be unclean.
func volumes(declared map[string]struct{}) []string {
	clean := map[string]bool{}
	for v := range declared {
		if v != "" {
			clean[path.Clean(v)] = true
		}
	}
	return slices.Sorted(maps.Keys(clean))
}

// imageHealth takes over the image's own check, with docker's defaults.
func imageHealth(h *v1.HealthConfig) *manifest.Health {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	var command []string
	switch h.Test[0] {
	case "CMD":
		command = h.Test[1:]
	case "CMD-SHELL":
		command = []string{"/bin/sh", "-c", h.Test[1]}
	default:
		return nil
	}
	or := func(d, fallback time.Duration) time.Duration {
		if d > 0 {
			return d
		}
		return fallback
	}
	retries := h.Retries
	if retries == 0 {
		retries = 3
	}
	return &manifest.Health{Exec: command, Interval: or(h.Interval, 30*time.Second), Timeout: or(h.Timeout, 30*time.Second), Retries: retries}
}
