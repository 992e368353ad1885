// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// packed is an initramfs that was written.
type packed struct {
	path        string
	description manifest.Initramfs
	seal        seal.Seal
	memory      int64 // least that it boots with, in bytes
}

// initFiles are what PID 1 is, and what it reads.
type initFiles struct{ program, spec []byte }

// pack adds PID 1 to the tree, and writes the compressed initramfs into the folder work.
func (c *content) pack(ctx context.Context, pid1 initFiles, work string, progress Progress) (*packed, error) {
	if err := errors.Join(
		c.put(manifest.InitPath, rootfs.NewFile(bytes.NewReader(pid1.program), int64(len(pid1.program)), 0o755)),
		c.put(manifest.SpecPath, rootfs.NewFile(bytes.NewReader(pid1.spec), int64(len(pid1.spec)), 0o600)),
	); err != nil {
		return nil, err
	}
	if err := c.putConsole(); err != nil {
		return nil, err
	}
	table, err := c.putXattrs()
	if err != nil {
		return nil, err
	}
	if _, err := c.fidelity.Encode(); err != nil {
		return nil, err // before a kernel is compiled
	}
	p := &packed{path: filepath.Join(work, "initramfs.cpio.zst")}
	out, err := os.Create(p.path)
	if err != nil {
		return nil, err
	}
	a, err := c.archive(ctx, out, true, progress)
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	p.seal = a.seal
	p.description = manifest.Initramfs{Digest: a.digest, Size: a.size, Unpacked: a.stats.Unpacked, Entries: a.stats.Entries}
	// PID 1 reads the table, and the kernel keeps what it says, before the file goes.
	p.memory = bootMemory(a.stats.Unpacked+2*table, a.size)
	return p, nil
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
