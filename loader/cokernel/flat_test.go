// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// flat makes a bzImage of bare code, in sealed memory: what Linux would be in the way of.
// See Documentation/x86/boot.rst.
func flat(t *testing.T, code []byte) *os.File {
	t.Helper()
	const setup, entry = 5 * 512, 0x200
	b := make([]byte, setup+entry+len(code)+4096)
	copy(b[setup+entry:], code)
	le := binary.LittleEndian
	b[0x1f1] = setup/512 - 1               // setup_sects
	le.PutUint16(b[0x1fe:], 0xaa55)        // boot_flag
	le.PutUint16(b[0x200:], 0x66eb)        // jump: the header ends at 0x268
	copy(b[0x202:], "HdrS")                // header
	le.PutUint16(b[0x206:], 0x20f)         // version
	b[0x211] = 1                           // loadflags: LOADED_HIGH
	le.PutUint32(b[0x230:], 2<<20)         // kernel_alignment
	b[0x234] = 1                           // relocatable_kernel
	le.PutUint16(b[0x236:], 1)             // xloadflags: XLF_KERNEL_64
	le.PutUint64(b[0x258:], 0)             // pref_address
	le.PutUint32(b[0x260:], uint32(1<<20)) // init_size
	fd, err := unix.MemfdCreate("flat", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "flat")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

// hang is cli; jmp .
var hang = []byte{0xfa, 0xeb, 0xfe}
