// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
	"github.com/tenon-build/tenon/loader/cokernel/guest"
	"github.com/tenon-build/tenon/recipes"
)

// buildKernel resolves the configuration and compiles, or finds, the kernel.
func buildKernel(ctx context.Context, req *Request, m *manifest.Manifest, tools *kernel.Toolchain, packed string) (*kernel.Kernel, error) {
	parts, err := Tailor(req.Recipe, m)
	if err != nil {
		return nil, err
	}
	req.Progress(StageSource, 0, 0)
	source, err := kernel.OpenSource(ctx, req.Cache, req.KernelSource)
	if err != nil {
		return nil, err
	}
	m.CommandLine = commandLine(m)
	tree, err := withDriver(ctx, req.Cache, source, m.Target)
	if err != nil {
		return nil, err
	}
	k, err := kernel.Build(ctx, req.Cache, kernel.Request{
		Source: tree, Toolchain: tools, Fragments: parts, CommandLine: m.CommandLine, Sealed: m.Initramfs.Sealed,
		Initramfs: kernel.Initramfs{Path: packed, Digest: m.Initramfs.Digest}, Jobs: req.Jobs,
		Progress: func(done, total int) { req.Progress(StageKernel, int64(done), int64(total)) },
	})
	if err != nil {
		return nil, fmt.Errorf("building the kernel for %q: %w", m.Name, err)
	}
	m.Kernel = manifest.Kernel{Release: k.Release, Source: source.Digest, Config: k.ConfigDigest}
	m.Toolchain = manifest.Toolchain{Compiler: tools.Compiler, Linker: tools.Linker, Tenon: req.Tenon}
	return k, nil
}

// withDriver adds the target's driver to a kernel source, if it has one.
func withDriver(ctx context.Context, cache *kernel.Cache, source *kernel.Source, target string) (*kernel.Source, error) {
	if target != "cokernel" {
		return source, nil
	}
	return source.With(ctx, cache, kernel.Driver{Name: guest.Name, Files: guest.Files()})
}

// targetFragments are the fragments by concern that a target needs, beside the
// one of its own name and, with a network interface, that one's "-net".
var targetFragments = map[string][]string{
	"qemu":  {"virtio", "serial"},
	"kexec": {"virtio", "serial"},
}

// Tailor lists the fragments of a kernel, from the recipe and what the manifest
// says of target, seal and claims. The build adds kernel.Sealing to those of a
// sealed one.
func Tailor(r *recipes.Recipe, m *manifest.Manifest) ([]*kconfig.Fragment, error) {
	mode := "detached"
	if m.Initramfs.Sealed {
		mode = "sealed"
	}
	names := append([]string{"base", "hardening", mode, "target-" + m.Target}, targetFragments[m.Target]...)
	if m.Claims.Device("net") != nil {
		names = append(names, "net", "target-"+m.Target+"-net")
	}
	for _, name := range r.Fragments {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var parts []*kconfig.Fragment
	for _, name := range names {
		f, err := fragments.Open(name)
		if err != nil {
			return nil, fmt.Errorf("recipe %q: %w", r.Name, err)
		}
		parts = append(parts, f)
	}
	if len(r.Config.Settings) > 0 {
		parts = append(parts, r.Config)
	}
	return parts, nil
}

// cokernelArgs keep a kernel from what its host still uses.
var cokernelArgs = []string{
	"console=hvc0", "tenon.cokernel", // the driver's
	"pci=off",            // the ports by which all buses are found
	"nopv",               // a hypervisor would write to memory that has gone back
	"no_ipi_broadcast=1", // reaches all CPUs of the machine
	"apic_extnmi=none",   // the machine's NMI button and errors
	"mce=ignore_ce",      // corrected errors are for the host to see
	"tsc=reliable",       // there is no other clock to compare it with
}

// commandLine is the kernel's command line: built in when sealed, passed by
// the loader when detached.
func commandLine(m *manifest.Manifest) string {
	args := []string{"quiet", "rdinit=" + manifest.InitPath, fmt.Sprintf("initramfs_options=size=%d%%", rootfsShare)}
	if slices.Contains(targetFragments[m.Target], "serial") {
		args = append(args, "console=ttyS0")
	}
	if m.Target == "cokernel" {
		args = append(args, cokernelArgs...)
	}
	return strings.Join(args, " ")
}
