// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestE2ESealHolds boots a sealed kernel, a detached one and Debian's own with
// the same hostile initrd and command line: they must lose, win and win.
func TestE2ESealHolds(t *testing.T) {
	hostile := []string{"-initrd", hostileInitrd(t), "-append", "console=ttyS0 rdinit=/evil init=/evil lockdown=none bootconfig loglevel=7"}

	sealed := e2e.Probe(t)
	console := e2e.Boot(t, append(hostile, "-kernel", e2e.LayerFile(t, sealed, bundle.KernelType))...)
	r := e2e.ParseReport(t, console)
	if strings.Contains(console, "HOSTILE") || r.Files["/evil"] != "" {
		t.Errorf("sealed: the hostile initrd was unpacked:\n%s", console)
	}
	if want := e2e.Inspect(t, sealed).CommandLine; r.Cmdline != want {
		t.Errorf("sealed: command line %q, want %q", r.Cmdline, want)
	}
	for _, line := range r.Kmsg {
		// Microcode has no line to look for under emulation: that it is off is
		// checked in the configuration, when the kernel is built.
		for _, bad := range []string{"Table Upgrade", "found in initrd", "Load bootconfig"} {
			if strings.Contains(line, bad) {
				t.Errorf("sealed: the kernel took something from the initrd: %s", line)
			}
		}
	}
	if !slices.ContainsFunc(r.Kmsg, func(s string) bool { return strings.Contains(s, "locked down") }) {
		t.Errorf("sealed: lockdown=none from outside was obeyed: %q", r.Kmsg)
	}

	// What the decompressor reads from outside moves the kernel, and nothing else.
	placed := e2e.ParseReport(t, e2e.Boot(t, "-kernel", e2e.LayerFile(t, sealed, bundle.KernelType), "-append", "nokaslr no5lvl mem=300M memmap=16M$0x1000000 hugepages=100"))
	if placed.Cmdline != r.Cmdline || placed.MemTotal != r.MemTotal {
		t.Errorf("sealed: options of the decompressor gave command line %q and %q, want %q and %q", placed.Cmdline, placed.MemTotal, r.Cmdline, r.MemTotal)
	}

	// With a kernel that would take a boot configuration, so that its part is real.
	recipe := filepath.Join(t.TempDir(), "detached.toml")
	if err := os.WriteFile(recipe, append([]byte("config = [\"BOOT_CONFIG=y\"]\n"), e2e.Must(os.ReadFile(e2e.ProbeRecipe()))...), 0o600); err != nil {
		t.Fatal(err)
	}
	detached, _ := e2e.Build(t, "--detached", "-r", recipe, "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))
	if o := e2e.Run(t, detached); !slices.Contains(e2e.ParseReport(t, o.Stdout).Env, "FROM=image") {
		t.Errorf("detached, as tenon runs it: %s", o)
	}
	console = e2e.Boot(t, append(hostile, "-kernel", e2e.LayerFile(t, detached, bundle.KernelType))...)
	for _, want := range []string{"HOSTILE /evil", "Load bootconfig"} {
		if !strings.Contains(console, want) {
			t.Errorf("detached: no %q: the hostile initrd lost, so this test proves nothing:\n%s", want, console)
		}
	}

	kernels := e2e.Must(filepath.Glob("/boot/vmlinuz-*"))
	if len(kernels) == 0 {
		t.Fatal("no Debian kernel in /boot")
	}
	console = e2e.Boot(t, append(hostile, "-kernel", kernels[0])...)
	for _, want := range []string{"HOSTILE /evil", "Table Upgrade: override [DSDT"} {
		if !strings.Contains(console, want) {
			t.Errorf("Debian's kernel: no %q, so that part of the initrd proves nothing:\n%s", want, console)
		}
	}
}

// hostileInitrd is what an attacker who owns the boot loader would pass: ACPI
// tables and microcode in front, programs under every name that the kernel
// might run, a boot configuration behind.
func hostileInitrd(t *testing.T) string {
	t.Helper()
	var initrd bytes.Buffer
	early := rootfs.New()
	put := func(tree *rootfs.Tree, name string, data []byte, perm uint32) {
		if err := tree.Put(name, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), perm)); err != nil {
			t.Fatal(err)
		}
	}
	put(early, "kernel/firmware/acpi/dsdt.aml", hostileDSDT(), 0o644)
	for _, vendor := range []string{"GenuineIntel", "AuthenticAMD"} {
		put(early, "kernel/x86/microcode/"+vendor+".bin", bytes.Repeat([]byte{0x41}, 4096), 0o644)
	}
	if _, err := initramfs.Write(&initrd, early); err != nil {
		t.Fatal(err)
	}

	programs := rootfs.New()
	busybox := e2e.Must(os.ReadFile("/bin/busybox"))
	put(programs, "busybox", busybox, 0o755)
	for _, name := range []string{"init", "evil", "sbin/init", ".tenon/init"} {
		script := fmt.Sprintf("#!/busybox sh\n/busybox echo HOSTILE /%s\n/busybox sleep 1\n/busybox reboot -f\n", name)
		put(programs, name, []byte(script), 0o755)
	}
	if err := programs.Put("dev/console", rootfs.NewDevice(5, 1, 0o600)); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(&initrd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := initramfs.Write(z, programs); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	appendBootConfig(&initrd, "kernel.rdinit = /evil\nkernel.hostile = yes\n")
	path := filepath.Join(t.TempDir(), "hostile.cpio.zst")
	if err := os.WriteFile(path, initrd.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hostileDSDT is an empty table that claims to be newer than QEMU's.
func hostileDSDT() []byte {
	table := make([]byte, 36)
	copy(table, "DSDT")
	binary.LittleEndian.PutUint32(table[4:], uint32(len(table)))
	table[8] = 2
	copy(table[10:], "BOCHS BXPC    ")
	binary.LittleEndian.PutUint32(table[24:], 0xffff)
	copy(table[28:], "EVIL")
	var sum byte
	for _, b := range table {
		sum += b
	}
	table[9] = -sum
	return table
}

// appendBootConfig appends a boot configuration as Documentation/admin-guide/
// bootconfig.rst says: data, size, checksum, magic, the whole aligned to 4.
func appendBootConfig(initrd *bytes.Buffer, config string) {
	data := append([]byte(config), 0)
	for (initrd.Len()+len(data))%4 != 0 {
		data = append(data, 0)
	}
	var sum uint32
	for _, b := range data {
		sum += uint32(b)
	}
	initrd.Write(data)
	tail := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
	initrd.Write(binary.LittleEndian.AppendUint32(tail, sum))
	initrd.WriteString("#BOOTCONFIG\n")
}
