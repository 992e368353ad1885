// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrConfig says that a kernel with this configuration takes more from outside than the initramfs
// that it is sealed to; test with errors.Is.
var ErrConfig = errors.New("the kernel cannot be sealed")

// Off and On are the symbols that have to be off, and built in, in a sealed kernel, so that the
// image's signature covers all that will run: what reads code, tables or options from outside
// is off. docs/seal.md has the readers, one by one.
var (
	Off = []string{
		"MODULES", "KEXEC", "KEXEC_FILE", "KEXEC_HANDOVER", "HIBERNATION", "BOOT_CONFIG", "ACPI_TABLE_UPGRADE", "EFI_CUSTOM_SSDT_OVERLAYS",
		"MICROCODE", "MICROCODE_LATE_LOADING", "DEVMEM", "DEVPORT", "EARLY_PRINTK", "AMD_MEM_ENCRYPT", "MEMORY_HOTREMOVE", "INTEL_TXT", "OF", "X86_INTEL_MID", "XEN", "JAILHOUSE_GUEST", "RANDOM_TRUST_BOOTLOADER",
	}
	On = []string{
		"TENON_SEAL", "KERNEL_ZSTD", "CMDLINE_BOOL", "CMDLINE_OVERRIDE", "BLK_DEV_INITRD", "EFI_STUB",
		"SECURITY_LOCKDOWN_LSM", "SECURITY_LOCKDOWN_LSM_EARLY", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
	}
)

// quoted escapes what a text in a .config must not have.
var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// CheckConfig refuses a .config with which a kernel cannot be sealed, or that has another
// command line. The error wraps ErrConfig, and names each symbol that is wrong, with its value.
func CheckConfig(config []byte, commandLine string) error {
	values := map[string]string{}
	for line := range strings.Lines(string(config)) {
		if symbol, value, set := strings.Cut(strings.TrimSpace(line), "="); set {
			values[symbol] = value
		}
	}
	var wrong []string
	for _, s := range Off {
		if v := cmp.Or(values["CONFIG_"+s], "n"); v != "n" {
			wrong = append(wrong, s+"="+v)
		}
	}
	for _, s := range On {
		if v := cmp.Or(values["CONFIG_"+s], "n"); v != "y" {
			wrong = append(wrong, s+"="+v)
		}
	}
	if v := values["CONFIG_CMDLINE"]; v != `"`+quoted.Replace(commandLine)+`"` {
		wrong = append(wrong, "CMDLINE="+v)
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("%w: %s", ErrConfig, strings.Join(wrong, ", "))
}
