// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// config is a .config with these lines, and the least that a sealed kernel has, but for one
// symbol.
func config(without string, lines ...string) []byte {
	for _, s := range On {
		if s != without {
			lines = append(lines, "CONFIG_"+s+"=y")
		}
	}
	return []byte(strings.Join(append(lines, "# CONFIG_MODULES is not set", ""), "\n"))
}

func TestCheckConfig(t *testing.T) {
	if err := CheckConfig(config("", "CONFIG_NET=y", `CONFIG_CMDLINE="a MODULES=y b=\"\\\""`), `a MODULES=y b="\"`); err != nil {
		t.Fatal(err)
	}
	want := func(data []byte, text string) {
		t.Helper()
		if err := CheckConfig(data, "quiet"); !errors.Is(err, ErrConfig) || err.Error() != "the kernel cannot be sealed: "+text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
	const line = `CONFIG_CMDLINE="quiet"`
	for _, s := range Off {
		want(config("", line, "CONFIG_"+s+"=y"), s+"=y")
		want(config("", line, "CONFIG_"+s+"=m"), s+"=m")
	}
	for _, s := range On {
		want(config(s, line), s+"=n")
		want(config(s, line, "CONFIG_"+s+"=m"), s+"=m")
	}
	want(config("EFI_STUB", line, "CONFIG_MODULES=y", "CONFIG_DEVMEM=y\r"), "DEVMEM=y, EFI_STUB=n, MODULES=y")
	want(config("", `CONFIG_CMDLINE="quiet init=/evil"`), `CMDLINE="quiet init=/evil"`)
	want(config(""), "CMDLINE=")
	if err := CheckConfig(nil, "quiet"); !errors.Is(err, ErrConfig) {
		t.Errorf("nothing: %v", err)
	}
}

// docs/seal.md has a row for each symbol.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/seal.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Concat(Off, On) {
		if !strings.Contains(string(doc), "`"+s+"`") {
			t.Errorf("no %s", s)
		}
	}
}

// The design's lists must not shrink without notice.
func TestLists(t *testing.T) {
	for _, s := range strings.Fields("MODULES KEXEC KEXEC_FILE HIBERNATION BOOT_CONFIG ACPI_TABLE_UPGRADE EFI_CUSTOM_SSDT_OVERLAYS MICROCODE DEVMEM EARLY_PRINTK AMD_MEM_ENCRYPT INTEL_TXT OF") {
		if !slices.Contains(Off, s) {
			t.Errorf("%s may be on", s)
		}
	}
	for _, s := range strings.Fields("TENON_SEAL KERNEL_ZSTD CMDLINE_OVERRIDE SECURITY_LOCKDOWN_LSM_EARLY LOCK_DOWN_KERNEL_FORCE_INTEGRITY") {
		if !slices.Contains(On, s) {
			t.Errorf("%s may be off", s)
		}
	}
}
