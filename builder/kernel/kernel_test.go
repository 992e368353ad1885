// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"strings"
	"testing"

	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
)

func TestFirstError(t *testing.T) {
	tests := []struct{ name, stderr, want string }{
		{"nothing", "", ""},
		{"one line", "odd\n", "odd"},
		{"compiler", "In file included from a.c:1:\nb.h:2:3: warning: unused\nb.h:4:5: error: bad\nmake[1]: *** [a.o] Error 1\n", "b.h:4:5: error: bad"},
		{"header that is missing", "a.c:1:10: fatal error: x.h: No such file or directory\ncompilation terminated.\n", "a.c:1:10: fatal error: x.h: No such file or directory"},
		{"make", "warning\nmake: *** No rule to make target 'x'.  Stop.\nmore\n", "make: *** No rule to make target 'x'.  Stop."},
		{"neither", "first\n  last  \n", "last"},
		// What follows from a full disk is not the reason.
		{"disk full", "a.c:1: error: x\n/usr/bin/ld: final link failed: No space left on device\nmake: *** [x] Error 1\n", "/usr/bin/ld: final link failed: No space left on device"},
		{"assembler", "{standard input}: Assembler messages:\n{standard input}:7: Error: no such instruction\nmake[2]: *** [a.o] Error 1\n", "make[2]: *** [a.o] Error 1"},
	}
	for _, test := range tests {
		if got := firstError(test.stderr); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for line, want := range map[string]bool{
		"  CC      init/main.o": true, "  HOSTCC  scripts/basic/fixdep": true, "  SYSHDR32 arch/x86": true,
		"make[1]: Entering directory": false, "CC x": false, "  kernel: x": false,
	} {
		if got := stepRE.MatchString(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
	if got := len(dryStepRE.FindAllString("set -e;   echo '  CC      init/main.o'; gcc\n  echo '  AR      x.a';\necho 'CC y'\n", -1)); got != 2 {
		t.Errorf("%d steps", got)
	}
}

// sealedConfig is a .config that checkSealed takes, by its own lists.
func sealedConfig() map[string]string {
	c := map[string]string{"NET": "y"}
	for _, s := range sealedOn {
		c[s] = "y"
	}
	return c
}

func parseConfig(t *testing.T, values map[string]string) *kconfig.Config {
	t.Helper()
	var b strings.Builder
	for symbol, value := range values {
		b.WriteString("CONFIG_" + symbol + "=" + value + "\n")
	}
	c, err := kconfig.ParseConfig(".config", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckSealed(t *testing.T) {
	if err := checkSealed(parseConfig(t, sealedConfig())); err != nil {
		t.Fatal(err)
	}
	for _, s := range sealedOff {
		for _, value := range []string{"y", "m"} {
			c := sealedConfig()
			c[s] = value
			if err := checkSealed(parseConfig(t, c)); err == nil || err.Error() != "the kernel cannot be sealed: "+s+"="+value {
				t.Errorf("%s=%s: got %v", s, value, err)
			}
		}
	}
	for _, s := range sealedOn {
		c := sealedConfig()
		delete(c, s)
		if err := checkSealed(parseConfig(t, c)); err == nil || err.Error() != "the kernel cannot be sealed: "+s+"=n" {
			t.Errorf("without %s: got %v", s, err)
		}
	}
	c := sealedConfig()
	c["MODULES"], c["DEVMEM"] = "y", "y"
	delete(c, "EFI_STUB")
	if err := checkSealed(parseConfig(t, c)); err == nil || err.Error() != "the kernel cannot be sealed: DEVMEM=y, EFI_STUB=n, MODULES=y" {
		t.Errorf("several: %v", err)
	}
}

// The design's list of what a sealed kernel does not have must not shrink
// without notice, and the fragment must ask for all of it.
func TestSealedLists(t *testing.T) {
	off := " " + strings.Join(sealedOff, " ") + " "
	for _, s := range strings.Fields("MODULES KEXEC BOOT_CONFIG ACPI_TABLE_UPGRADE EFI_CUSTOM_SSDT_OVERLAYS MICROCODE DEVMEM") {
		if !strings.Contains(off, " "+s+" ") {
			t.Errorf("%s is not asserted to be off", s)
		}
	}
	on := " " + strings.Join(sealedOn, " ") + " "
	for _, s := range strings.Fields("TENON_SEAL KERNEL_ZSTD CMDLINE_OVERRIDE SECURITY_LOCKDOWN_LSM_EARLY LOCK_DOWN_KERNEL_FORCE_INTEGRITY") {
		if !strings.Contains(on, " "+s+" ") {
			t.Errorf("%s is not asserted to be on", s)
		}
	}
	f, err := fragments.Open("sealed")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Settings {
		if s.Value == "y" && strings.Contains(off, " "+s.Symbol+" ") || s.Value == "n" && strings.Contains(on, " "+s.Symbol+" ") {
			t.Errorf("the fragment asks for %s", s)
		}
	}
}
