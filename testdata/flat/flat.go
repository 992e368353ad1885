// SPDX-License-Identifier: Apache-2.0

// Package flat makes kernel images of bare code, for tests that Linux would be in the way
// of.
package flat

import "encoding/binary"

// Hang is code that turns interrupts off and loops: cli; jmp .
var Hang = []byte{0xfa, 0xeb, 0xfe}

// Kernel returns a bzImage whose 64-bit entry is the code. See
// Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
func Kernel(code []byte) []byte {
	const setup, entry = 5 * 512, 0x200
	b := make([]byte, setup+entry+len(code)+4096)
	copy(b[setup+entry:], code)
	le := binary.LittleEndian
	b[0x1f1] = setup/512 - 1        // setup_sects
	le.PutUint16(b[0x1fe:], 0xaa55) // boot_flag
	le.PutUint16(b[0x200:], 0x66eb) // jump: the header ends at 0x268
	copy(b[0x202:], "HdrS")         // header
	le.PutUint16(b[0x206:], 0x20f)  // version
	b[0x211] = 1                    // loadflags: LOADED_HIGH
	le.PutUint32(b[0x230:], 2<<20)  // kernel_alignment
	b[0x234] = 1                    // relocatable_kernel
	le.PutUint16(b[0x236:], 1)      // xloadflags: XLF_KERNEL_64
	le.PutUint32(b[0x260:], 1<<20)  // init_size
	return append(b, make([]byte, -len(b)&7)...)
}
