// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
)

// compiled is a kernel, and what it was made from.
type compiled struct {
	*kernel.Kernel
	description manifest.Kernel
	commandLine string
}

// compile resolves the configuration and compiles, or finds, the kernel.
func compile(ctx context.Context, req *Request, p *plan, tools *kernel.Toolchain, initramfs *packed) (*compiled, error) {
	parts, err := Tailor(p.recipe, p.form)
	if err != nil {
		return nil, err
	}
	req.Progress(StageSource, 0, 0)
	source, err := kernel.OpenSource(ctx, req.Cache, req.KernelSource)
	if err != nil {
		return nil, err
	}
	tree, err := sourceFor(ctx, req.Cache, source, p.form.Target, req.Driver)
	if err != nil {
		return nil, err
	}
	commandLine := p.form.commandLine()
	k, err := kernel.Build(ctx, req.Cache, kernel.Request{
		Source: tree, Toolchain: tools, Fragments: parts, CommandLine: commandLine, Sealed: p.form.Sealed,
		Initramfs: kernel.Initramfs{Path: initramfs.path, Digest: initramfs.description.Digest}, Jobs: req.Jobs,
		Progress: func(done, total int) { req.Progress(StageKernel, int64(done), int64(total)) },
	})
	if err != nil {
		return nil, fmt.Errorf("building the kernel for %q: %w", p.name, err)
	}
	return &compiled{k, manifest.Kernel{Release: k.Release, Source: source.Digest, Config: k.ConfigDigest}, commandLine}, nil
}

// sourceFor adds the driver to a kernel source, if the target needs it.
func sourceFor(ctx context.Context, cache *kernel.Cache, source *kernel.Source, target manifest.Target, driver kernel.Driver) (*kernel.Source, error) {
	if !targets[target].driver {
		return source, nil
	}
	if driver.Files == nil {
		return nil, fmt.Errorf("target %s: the request has no driver, which its kernels need", target)
	}
	return source.With(ctx, cache, driver)
}
