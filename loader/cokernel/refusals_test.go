// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cokernel

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/testdata/debian"
)

const refuseRemapping = 1 << 1 // MORTISE_NO_REMAPPING

// A host that remaps interrupts is refused, with the reason and the way out; and the way
// out is one. (QEMU's emulation has no x2APIC.)
func TestE2ERemapping(t *testing.T) {
	const iommu = "intel-iommu,intremap=on"
	t.Run("Intel", func(t *testing.T) { testRemapping(t, iommu, "intel_iommu=on", refuseRemapping) })
	t.Run("Off", func(t *testing.T) { testRemapping(t, iommu, "intel_iommu=on intremap=off", 0) })
	t.Run("AMD", func(t *testing.T) { testRemapping(t, "amd-iommu,intremap=on", "", refuseRemapping) })
}

func testRemapping(t *testing.T, iommu, commandLine string, refusals uint32) {
	inHost(t, debian.Machine{Small: true, Args: []string{"-device", iommu}, CommandLine: commandLine}, "", func(d *device) {
		info, err := d.info()
		ok(t, "info", err)
		if info.refusals != refusals {
			t.Errorf("the module refuses %#x, want %#x\n%s", info.refusals, refusals, dmesg(t))
		}
		err = (&Backend{}).Check()
		if refusals == 0 {
			ok(t, "check", err)
			o := create(t, d, "one")
			ok(t, "destroy", errors.Join(o.destroy(), o.Close()))
			return
		}
		t.Log(err)
		if !errors.Is(err, ErrHost) || !strings.Contains(err.Error(), "it remaps interrupts") || !strings.Contains(err.Error(), "intremap=off") {
			t.Errorf("check: %v", err)
		}
		_, err = d.create("one")
		want(t, "create", err, unix.EOPNOTSUPP)
	})
}
