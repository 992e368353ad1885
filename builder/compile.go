// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/kernel"
	driver "github.com/tenon-build/tenon/builder/kernel/seal"
)

// compiled is a kernel for one initramfs, and what it was made from.
type compiled struct {
	*kernel.Kernel
	bzImage     string // path; sealed, if that is what is built
	description manifest.Kernel
	commandLine string
}

// compile resolves the configuration, compiles, or finds, the kernel, and seals it.
func compile(ctx context.Context, req *Request, p *plan, tools *kernel.Toolchain, initramfs *packed, work string) (*compiled, error) {
	parts, err := Tailor(p.recipe, p.form)
	if err != nil {
		return nil, err
	}
	req.Progress(StageSource, 0, 0)
	source, err := kernel.OpenSource(ctx, req.Cache, req.KernelSource)
	if err != nil {
		return nil, err
	}
	tree, err := withDrivers(ctx, req.Cache, source, req.Driver)
	if err != nil {
		return nil, err
	}
	req.Progress(StageConfig, 0, 0)
	k := &compiled{commandLine: p.form.commandLine()}
	k.Kernel, err = kernel.Build(ctx, req.Cache, kernel.Request{
		Source: tree, Toolchain: tools, Fragments: parts, CommandLine: k.commandLine, Sealed: p.form.Sealed, Jobs: req.Jobs,
		Progress: func(done, total int) { req.Progress(StageKernel, int64(done), int64(total)) },
	})
	if err != nil {
		return nil, fmt.Errorf("building the kernel for %q: %w", p.name, err)
	}
	k.description = manifest.Kernel{Release: k.Release, Source: source.Digest, Config: k.ConfigDigest}
	k.bzImage = k.Path("bzImage")
	if p.form.Sealed {
		sealed := filepath.Join(work, "bzImage")
		if err := writeSealed(sealed, k.bzImage, initramfs.seal); err != nil {
			return nil, fmt.Errorf("sealing the kernel for %q: %w", p.name, err)
		}
		k.bzImage = sealed
	}
	return k, nil
}

// withDrivers adds to a kernel source what every target's kernel has of ours: all share one
// source then.
func withDrivers(ctx context.Context, cache *kernel.Cache, source *kernel.Source, guest kernel.Driver) (*kernel.Source, error) {
	if guest.Files == nil {
		return nil, errors.New("the request lacks the driver of the target cokernel, which is part of every kernel's source")
	}
	return source.With(ctx, cache, kernel.Driver{Name: driver.Name, Files: driver.Files()}, guest)
}

// writeSealed writes a kernel that unpacks one initramfs alone.
func writeSealed(to, from string, s seal.Seal) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(seal.Write(out, in, info.Size(), s), out.Close())
}
