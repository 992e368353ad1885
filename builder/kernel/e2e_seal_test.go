// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// stopped is how a sealed kernel stops.
const stopped = "Kernel panic - not syncing: tenon: "

// refused says that a sealed kernel did not take an initrd.
func refused(t *testing.T, console string) {
	t.Helper()
	if !strings.Contains(console, stopped) || strings.Contains(console, "HOSTILE") || strings.Contains(console, "REPORT") {
		t.Errorf("it was not stopped:\n%s", console)
	}
}

// TestE2ESealOrder: a sealed kernel checks before it unpacks. Initcalls run in the order of
// their addresses.
func TestE2ESealOrder(t *testing.T) {
	symbols := regexp.MustCompile(`(?m)^([0-9a-f]{16}) . (\S*initcall\S*)$`)
	at := map[string]string{}
	for _, m := range symbols.FindAllStringSubmatch(string(e2e.Must(os.ReadFile(e2e.LayerFile(t, e2e.Probe(t), bundle.SystemMapType)))), -1) {
		switch {
		case strings.Contains(m[2], "tenon_seal_check"):
			at["check"] = m[1]
		case strings.Contains(m[2], "populate_rootfs"):
			at["unpack"] = m[1]
		}
	}
	if at["check"] == "" || at["check"] >= at["unpack"] {
		t.Errorf("the initcalls are at %v", at)
	}
}

// TestE2ESealHolds boots a sealed kernel, a detached one and Debian's own with the same
// hostile initrds and command line: they must lose, win and win. A sealed kernel whose slot was
// changed does not take its own initramfs.
func TestE2ESealHolds(t *testing.T) {
	ref := e2e.Probe(t)
	kernel, initramfs := e2e.LayerFile(t, ref, bundle.KernelType), e2e.LayerFile(t, ref, bundle.InitramfsType)

	detached := weakBundle(t)
	if o := e2e.Run(t, detached); !slices.Contains(e2e.ParseReport(t, o.Stdout).Env, "FROM=image") {
		t.Errorf("detached, as tenon runs it: %s", o)
	}
	weak := e2e.LayerFile(t, detached, bundle.KernelType)

	t.Run("initrd", func(t *testing.T) {
		for _, h := range e2e.HostileInitrds(t, e2e.Must(os.ReadFile(initramfs))) {
			t.Run(h.Name, func(t *testing.T) {
				t.Parallel()
				args := []string{"-append", e2e.HostileCommandLine}
				if h.Data != nil {
					args = append(args, "-initrd", e2e.WriteFile(t, filepath.Join(t.TempDir(), "initrd"), h.Data))
				}
				refused(t, e2e.Boot(t, append(args, "-kernel", kernel)...))
				if h.Wins == "" {
					return
				}
				if console := e2e.Boot(t, append(args, "-kernel", weak)...); !strings.Contains(console, h.Wins) {
					t.Errorf("detached: no %q: the hostile initrd lost, so this test proves nothing:\n%s", h.Wins, console)
				}
			})
		}
	})
	t.Run("CPU's features", func(t *testing.T) {
		args := []string{"-initrd", initramfs, "-append", "console=ttyS0 clearcpuid=smap"}
		if console := e2e.Boot(t, append(args, "-kernel", kernel)...); !strings.Contains(console, stopped+"the boot loader takes features from the CPU") {
			t.Errorf("it was not stopped:\n%s", console)
		}
		if console := e2e.Boot(t, append(args, "-kernel", weak)...); !strings.Contains(console, "Clearing CPUID bits: smap") || !strings.Contains(console, "Unpacking initramfs") {
			t.Errorf("detached: the option is not obeyed, so this test proves nothing:\n%s", console)
		}
	})
	t.Run("slot", func(t *testing.T) {
		image := e2e.Must(os.ReadFile(kernel))
		slot := bytes.Index(image, []byte(seal.Magic)) + len(seal.Magic)
		for name, at := range map[string]int{"size": slot, "its last byte": slot + 7, "digest": slot + 8, "digest's last byte": slot + 8 + len(seal.Digest{}) - 1} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				changed := e2e.WriteFile(t, filepath.Join(t.TempDir(), "bzImage"), e2e.Flip(image, at))
				refused(t, e2e.Boot(t, "-kernel", changed, "-initrd", initramfs, "-append", e2e.HostileCommandLine))
			})
		}
	})
	for _, h := range e2e.HostileInitrds(t, []byte("x"))[1:2] {
		kernels := e2e.Must(filepath.Glob("/boot/vmlinuz-*"))
		if len(kernels) == 0 {
			t.Fatal("no Debian kernel in /boot")
		}
		console := e2e.Boot(t, "-append", e2e.HostileCommandLine, "-kernel", kernels[0], "-initrd", e2e.WriteFile(t, filepath.Join(t.TempDir(), "initrd"), h.Data))
		for _, want := range []string{h.Wins, "Table Upgrade: override [DSDT"} {
			if !strings.Contains(console, want) {
				t.Errorf("Debian's kernel: no %q, so that part of the initrd proves nothing:\n%s", want, console)
			}
		}
	}

	// With its own initramfs, nothing that comes from outside is obeyed.
	r := e2e.ParseReport(t, e2e.Boot(t, "-kernel", kernel, "-initrd", initramfs, "-append", e2e.HostileCommandLine))
	if want := e2e.Inspect(t, ref).CommandLine; r.Cmdline != want {
		t.Errorf("command line %q, want %q", r.Cmdline, want)
	}
	if !slices.ContainsFunc(r.Kmsg, func(s string) bool { return strings.Contains(s, "locked down") }) {
		t.Errorf("lockdown=none from outside was obeyed: %q", r.Kmsg)
	}
	// What the decompressor reads from outside moves the kernel, and nothing else.
	placed := e2e.ParseReport(t, e2e.Boot(t, "-kernel", kernel, "-initrd", initramfs, "-append", "nokaslr no5lvl mem=300M memmap=16M$0x1000000 hugepages=100"))
	if placed.Cmdline != r.Cmdline || placed.MemTotal != r.MemTotal {
		t.Errorf("options of the decompressor gave command line %q and %q, want %q and %q", placed.Cmdline, placed.MemTotal, r.Cmdline, r.MemTotal)
	}
}

// weakBundle builds a detached bundle, with a kernel that would take a boot configuration, so that
// this part of a hostile initrd is real.
func weakBundle(t *testing.T) string {
	t.Helper()
	recipe := e2e.WriteFile(t, filepath.Join(t.TempDir(), "detached.toml"), append([]byte("config = [\"BOOT_CONFIG=y\"]\n"), e2e.Must(os.ReadFile(e2e.ProbeRecipe()))...))
	path, _ := e2e.Build(t, "--detached", "-r", recipe, "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))
	return path
}

// TestE2ESealKexec hands the same initrds to a sealed kernel with kexec_file_load(2).
func TestE2ESealKexec(t *testing.T) {
	ref := e2e.Probe(t)
	kernel, initramfs := e2e.LayerFile(t, ref, bundle.KernelType), e2e.LayerFile(t, ref, bundle.InitramfsType)
	boot := func(kernel, initrd, want string) string {
		t.Helper()
		m := debian.Machine{Small: true, Args: []string{"-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="}}
		g := m.Boot(t)
		load := []string{"kexec", "-s", "-l", kernel, "--command-line=" + e2e.HostileCommandLine}
		if initrd != "" {
			load = append(load, "--initrd="+initrd)
		}
		if r := g.Run(t, time.Minute, debian.Command{Args: load}); r.Status != 0 {
			t.Fatal(load, r)
		}
		g.Start(t, debian.Command{Args: []string{"kexec", "-e"}})
		g.Console.Expect(t, want)
		return g.Console.String()
	}
	boot(kernel, initramfs, "REPORT")
	weak := e2e.LayerFile(t, weakBundle(t), bundle.KernelType)
	for _, h := range e2e.HostileInitrds(t, e2e.Must(os.ReadFile(initramfs))) {
		// It costs a host each.
		if !e2e.Soak() && !slices.Contains([]string{"all at once", "one behind", "none"}, h.Name) {
			continue
		}
		initrd := ""
		if h.Data != nil {
			initrd = e2e.WriteFile(t, filepath.Join(t.TempDir(), "initrd"), h.Data)
		}
		refused(t, boot(kernel, initrd, stopped))
		if h.Name == "all at once" {
			boot(weak, initrd, h.Wins)
		}
	}
}
