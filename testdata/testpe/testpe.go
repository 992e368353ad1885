// SPDX-License-Identifier: Apache-2.0

// Package testpe makes PE images for tests: small ones that can be signed, and
// that no machine boots.
package testpe

import (
	"encoding/binary"

	"github.com/tenon-build/tenon/testdata/flat"
)

// Image is a PE32+ image with one section, and a bzImage that can be sealed.
func Image(body []byte) []byte {
	const headers, setup = 512, 1024 // a bzImage's header ends beyond the first sector
	out := append(make([]byte, setup), body...)
	out = append(out, flat.Payload(out, setup)...)
	out = append(out, make([]byte, -len(out)&511)...)
	copy(out, "MZ")
	le := binary.LittleEndian
	le.PutUint32(out[0x3c:], 64)
	copy(out[64:], "PE\x00\x00")
	le.PutUint16(out[68:], 0x8664)  // machine
	le.PutUint16(out[70:], 1)       // sections
	le.PutUint16(out[84:], 240)     // size of the optional header
	opt := out[88:]                 // optional header
	le.PutUint16(opt, 0x20b)        // PE32+
	le.PutUint32(opt[60:], headers) // size of headers
	le.PutUint32(opt[108:], 16)     // data directories
	section := opt[240:]
	copy(section, ".text")
	size := uint32(len(out) - headers)
	le.PutUint32(section[8:], size)
	le.PutUint32(section[12:], 4096)
	le.PutUint32(section[16:], size)
	le.PutUint32(section[20:], headers)
	return out
}
