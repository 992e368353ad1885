// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// Hostile is an initrd that a kernel sealed to another one gets from an attacker who owns its
// boot loader.
type Hostile struct {
	Name string
	Data []byte // nil: none at all
	Wins string // what a kernel prints that takes it, with HostileCommandLine
}

// HostileCommandLine is what that attacker passes with it.
const HostileCommandLine = "console=ttyS0 rdinit=/evil init=/evil lockdown=none bootconfig loglevel=7"

// HostileInitrds are made of the one that the kernel is sealed to.
func HostileInitrds(t T, good []byte) []Hostile {
	t.Helper()
	const unpacked, won = "Unpacking initramfs", "HOSTILE /evil"
	early, evil := earlyArchive(t), evilArchive(t)
	trailer := bootConfig(good, "kernel.rdinit = /evil\nkernel.hostile = yes\n")
	padded := append(bytes.Clone(good), make([]byte, -len(good)&3)...) // archives begin at multiples of 4
	out := []Hostile{
		{"another", evil, won},
		{"all at once", bytes.Join([][]byte{early, evil, bootConfig(append(early, evil...), "kernel.rdinit = /evil\n")}, nil), won},
		{"one in front", append(bytes.Clone(evil), good...), won},
		{"one behind", append(bytes.Clone(padded), evil...), won},
		{"tables and microcode in front", append(bytes.Clone(early), good...), unpacked},
		{"a boot configuration behind", append(bytes.Clone(good), trailer...), "Load bootconfig"},
		{"longer", append(bytes.Clone(good), make([]byte, 4096)...), unpacked},
		{"shorter", good[:len(good)-1], unpacked},
		{"none", nil, ""},
	}
	for _, at := range []int{0, len(good) / 2, len(good) - 1} {
		out = append(out, Hostile{fmt.Sprintf("a bit of byte %d", at), Flip(good, at), unpacked})
	}
	return out
}

// earlyArchive has ACPI tables and microcode.
func earlyArchive(t T) []byte {
	t.Helper()
	tree := rootfs.New()
	put(t, tree, "kernel/firmware/acpi/dsdt.aml", hostileDSDT(), 0o644)
	for _, vendor := range []string{"GenuineIntel", "AuthenticAMD"} {
		put(t, tree, "kernel/x86/microcode/"+vendor+".bin", bytes.Repeat([]byte{0x41}, 4096), 0o644)
	}
	var out bytes.Buffer
	if _, err := initramfs.Write(&out, tree); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), make([]byte, -out.Len()&3)...)
}

// evilArchive has programs under every name that a kernel might run.
func evilArchive(t T) []byte {
	t.Helper()
	tree := rootfs.New()
	put(t, tree, "busybox", Must(os.ReadFile("/bin/busybox")), 0o755)
	for _, name := range []string{"init", "evil", "sbin/init", ".tenon/init"} {
		put(t, tree, name, fmt.Appendf(nil, "#!/busybox sh\n/busybox echo HOSTILE /%s\n/busybox sleep 1\n/busybox reboot -f\n", name), 0o755)
	}
	if err := tree.Put("dev/console", rootfs.NewDevice(5, 1, 0o600)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err == nil {
		_, err = initramfs.Write(z, tree)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), make([]byte, -out.Len()&3)...)
}

func put(t T, tree *rootfs.Tree, name string, data []byte, perm uint32) {
	t.Helper()
	if err := tree.Put(name, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), perm)); err != nil {
		t.Fatal(err)
	}
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

// bootConfig is a boot configuration behind an initrd, as Documentation/admin-guide/
// bootconfig.rst says: data, size, checksum, magic, the whole aligned to 4.
func bootConfig(initrd []byte, config string) []byte {
	data := append([]byte(config), 0)
	data = append(data, make([]byte, -(len(initrd)+len(data))&3)...)
	var sum uint32
	for _, b := range data {
		sum += uint32(b)
	}
	tail := binary.LittleEndian.AppendUint32(data, uint32(len(data)))
	return append(binary.LittleEndian.AppendUint32(tail, sum), "#BOOTCONFIG\n"...)
}
