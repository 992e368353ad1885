// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/kconfig"
)

// sealedOff and sealedOn are what makes the image's signature cover all that
// will run. The fragment "sealed" asks for them; this list holds whatever the
// fragments say.
var (
	sealedOff = []string{
		"MODULES", "KEXEC", "KEXEC_FILE", "BOOT_CONFIG", "ACPI_TABLE_UPGRADE", "EFI_CUSTOM_SSDT_OVERLAYS",
		"MICROCODE", "MICROCODE_LATE_LOADING", "DEVMEM", "DEVPORT",
	}
	sealedOn = []string{
		"TENON_SEAL", "KERNEL_ZSTD", "CMDLINE_BOOL", "CMDLINE_OVERRIDE", "BLK_DEV_INITRD", "EFI_STUB",
		"SECURITY_LOCKDOWN_LSM", "SECURITY_LOCKDOWN_LSM_EARLY", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
	}
)

// checkSealed refuses a configuration that leaves the seal open.
func checkSealed(c *kconfig.Config) error {
	var wrong []string
	for _, s := range sealedOff {
		if v := c.Value(s); v != "n" {
			wrong = append(wrong, s+"="+v)
		}
	}
	for _, s := range sealedOn {
		if c.Value(s) != "y" {
			wrong = append(wrong, s+"="+c.Value(s))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("the kernel cannot be sealed: %s", strings.Join(wrong, ", "))
	}
	return nil
}
