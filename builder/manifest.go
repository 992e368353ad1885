// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"os"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/builder/kernel"
)

// describe puts the manifest together, of what the steps of a build returned.
func describe(req *Request, img *image.Image, p *plan, initramfs *packed, k *compiled, tools *kernel.Toolchain) (*manifest.Manifest, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	m := &manifest.Manifest{
		Version: manifest.Version, Name: p.name, BundleVersion: req.Version, Platform: req.Platform.String(), Target: p.form.Target,
		Kernel: k.description, Initramfs: initramfs.description, CommandLine: k.commandLine,
		App: p.app, Parameters: p.recipe.Parameters, Claims: p.recipe.Claims, Recipe: p.recipe.Name,
		Image:     manifest.Image{Reference: img.Reference, Digest: digest.String()},
		Toolchain: manifest.Toolchain{Compiler: tools.Compiler, Linker: tools.Linker, Tenon: req.Tenon},
	}
	m.Initramfs.Sealed = p.form.Sealed
	m.Claims.Memory.Min += initramfs.memory
	m.Claims.Memory.Max = max(m.Claims.Memory.Max, m.Claims.Memory.Min)
	return m, nil
}

// write writes the bundle, signed if there is a key.
func write(ctx context.Context, req *Request, output string, m *manifest.Manifest, root *content, initramfs *packed, k *compiled) (*Result, error) {
	req.Progress(StageWrite, 0, 0)
	report, err := root.fidelity.Encode()
	if err != nil {
		return nil, err
	}
	c := bundle.Content{
		Manifest: m, Fidelity: report,
		Kernel: k.bzImage, Initramfs: initramfs.path, Config: k.Path("config"), SystemMap: k.Path("System.map"),
	}
	b, err := bundle.New(c)
	if err != nil {
		return nil, fmt.Errorf("making bundle %q: %w", m.Name, err)
	}
	if req.Key != nil {
		if err := signature.Sign(ctx, b, req.Key); err != nil {
			return nil, err
		}
	}
	if err := b.Save(ctx, output, func(done, total int64) { req.Progress(StageWrite, done, total) }); err != nil {
		return nil, err
	}
	info, err := os.Stat(k.bzImage)
	if err != nil {
		return nil, err
	}
	return &Result{
		Output: output, Digest: b.Digest, Manifest: m, Fidelity: root.fidelity,
		Image: root.size, Kernel: info.Size(), Symbols: k.Config.Enabled(),
	}, nil
}
