// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
	"github.com/tenon-build/tenon/recipes"
)

// Form is what decides a kernel's configuration and command line, beside the recipe.
type Form struct {
	Target  manifest.Target
	Sealed  bool
	Network bool // it claims a network interface
}

// FormOf returns the form of a bundle.
func FormOf(m *manifest.Manifest) Form {
	return Form{m.Target, m.Initramfs.Sealed, m.Claims.Device("net") != nil}
}

// targets is what a target's kernel has beside the fragment of the target's name and,
// with a network interface, that one's "-net".
var targets = map[manifest.Target]struct {
	fragments []string // by concern
	arguments []string // of the command line
	initramfs int64    // the largest that it takes, in bytes
}{
	manifest.QEMU:  {fragments: []string{"virtio", "serial"}, arguments: []string{"console=ttyS0"}, initramfs: maxQEMU},
	manifest.Kexec: {fragments: []string{"virtio", "serial"}, arguments: []string{"console=ttyS0"}, initramfs: maxRead},
	manifest.Cokernel: {initramfs: maxRead, arguments: []string{ // they keep a kernel from what its host still uses
		"console=hvc0", "tenon.cokernel", // the driver's
		"pci=off",            // the ports by which all buses are found
		"nopv",               // a hypervisor would write to memory that has gone back
		"no_ipi_broadcast=1", // reaches all CPUs of the machine
		"apic_extnmi=none",   // the machine's NMI button and errors
		"mce=ignore_ce",      // corrected errors are for the host to see
		"tsc=reliable",       // there is no other clock to compare it with
	}},
}

const (
	// maxQEMU leaves room for a kernel in the first 2 GiB: a machine of the type q35 with more
	// has the rest above 4 GiB, where QEMU puts no initrd (hw/i386/x86.c, x86_load_linux()).
	maxQEMU = 1920 << 20

	// maxRead is what a host's kernel reads of one file: kernel_read_file() counts in an int.
	maxRead = 1<<31 - 1
)

// checkSize refuses an initramfs that the target does not take.
func (f Form) checkSize(initramfs int64) error {
	if most := targets[f.Target].initramfs; initramfs > most {
		return fmt.Errorf("%w: its compressed initramfs has %d bytes, and the target %s takes %d at most", ErrTooLarge, initramfs, f.Target, most)
	}
	return nil
}

// Tailor lists the fragments of a kernel. The build adds kernel.Generated to them.
func Tailor(r *recipes.Recipe, f Form) ([]*kconfig.Fragment, error) {
	mode := "detached"
	if f.Sealed {
		mode = "sealed"
	}
	target := "target-" + string(f.Target)
	names := append([]string{"base", "hardening", mode, target}, targets[f.Target].fragments...)
	if f.Network {
		names = append(names, "net", target+"-net")
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

// commandLine is the kernel's command line: built in when sealed, passed by
// the loader when detached.
func (f Form) commandLine() string {
	args := []string{"quiet", "rdinit=" + manifest.InitPath, fmt.Sprintf("initramfs_options=size=%d%%", rootfsShare)}
	return strings.Join(append(args, targets[f.Target].arguments...), " ")
}
