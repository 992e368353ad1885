// SPDX-License-Identifier: Apache-2.0

// Package flat makes kernel images of bare code, for tests that Linux would be in the way
// of.
package flat

import (
	"encoding/binary"

	"github.com/tenon-build/tenon/builder/bundle/seal"
)

// Hang is code that turns interrupts off and loops: cli; jmp .
var Hang = []byte{0xfa, 0xeb, 0xfe}

// Kernel returns a bzImage whose 64-bit entry is the code. See
// Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
func Kernel(code []byte) []byte {
	const setup, entry = 5 * 512, 0x200
	b := make([]byte, setup+entry+len(code)+4096)
	copy(b[setup+entry:], code)
	le := binary.LittleEndian
	le.PutUint16(b[0x200:], 0x66eb) // jump: the header ends at 0x268
	b[0x211] = 1                    // loadflags: LOADED_HIGH
	le.PutUint32(b[0x230:], 2<<20)  // kernel_alignment
	b[0x234] = 1                    // relocatable_kernel
	le.PutUint16(b[0x236:], 1)      // xloadflags: XLF_KERNEL_64
	le.PutUint32(b[0x260:], 1<<20)  // init_size
	b = append(b, make([]byte, -len(b)&7)...)
	return append(b, Payload(b, setup)...)
}

// Payload returns what is to follow an image as its payload, with an empty slot for a seal.
// The image's first bytes, setup of them, become a bzImage's header, which names it.
func Payload(image []byte, setup int) []byte {
	le := binary.LittleEndian
	slot := append([]byte(seal.Magic), make([]byte, 40)...)
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 1 << 5, byte(len(slot))} // zstd: RFC 8878
	frame = append(frame, byte(len(slot)<<3|1), byte(len(slot)>>5), 0)
	frame = append(frame, slot...)
	image[0x1f1] = byte(setup/512 - 1)                    // setup_sects
	le.PutUint16(image[0x1fe:], 0xaa55)                   // boot_flag
	copy(image[0x202:], "HdrS\x0f\x02")                   // header, version
	le.PutUint32(image[0x248:], uint32(len(image)-setup)) // payload_offset
	le.PutUint32(image[0x24c:], uint32(len(frame)))       // payload_length
	return append(frame, make([]byte, -len(frame)&7+8)...)
}

// Speak is code that writes a text to the console of a guest of mortise.ko, and hangs. See
// loader/cokernel/guest/src/zone.h.
func Speak(text string) []byte {
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
	code = append(code, Hang...)
	return append(code, text...)
}
