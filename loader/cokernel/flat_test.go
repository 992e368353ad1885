// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// flat makes a bzImage of bare code, in memory: what Linux would be in the way of.
func flat(t *testing.T, code []byte) *os.File {
	t.Helper()
	return memory(t, flatImage(code))
}

// flatImage is the image. See Documentation/x86/boot.rst.
func flatImage(code []byte) []byte {
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
	return b
}

// memory is a file of its own.
func memory(t *testing.T, data []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return f
}

// hang is cli; jmp .
var hang = []byte{0xfa, 0xeb, 0xfe}

// speak writes a text to the guest's console, and hangs. See guest/src/zone.h.
func speak(text string) []byte {
	le, n := binary.LittleEndian, uint32(len(text))
	code := []byte{
		0x48, 0x8b, 0x86, 0x50, 0x02, 0, 0, // mov 0x250(%rsi), %rax: boot_params.hdr.setup_data
		0x48, 0x8b, 0x50, 0x20, // mov 0x20(%rax), %rdx: tenon_setup.zone
		0x48, 0x8d, 0xba, 0, 0x10, 0, 0, // lea 0x1000(%rdx), %rdi: the bytes of TENON_RING_CONSOLE_OUT
		0x48, 0x8d, 0x35, 25, 0, 0, 0, // lea 25(%rip), %rsi: the text
		0xb9, // mov $n, %ecx
	}
	code = le.AppendUint32(code, n)
	code = append(code, 0xfc, 0xf3, 0xa4, 0xc7, 0x42, 0x40) // cld; rep movsb; movl $n, 0x40(%rdx): its head
	code = le.AppendUint32(code, n)
	code = append(code, 0xc7, 0x42, 0x0c, 1, 0, 0, 0) // movl $TENON_STATE_ALIVE, 0xc(%rdx)
	code = append(code, hang...)
	return append(code, text...)
}
