// SPDX-License-Identifier: Apache-2.0

// Package uefi fills OVMF's empty store of variables, so that a machine without
// a screen comes up with Secure Boot on and boots what a test wants.
//
// It follows the UEFI specification 2.10 (32.4.1 signature lists, 3.1.3 load
// options, 10.3 device paths) and EDK II's AuthenticatedVariableFormat.h.
package uefi

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf16"
)

// Vendors of variables.
const (
	Global   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE
	Security = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID
)

// Types of signature lists.
const (
	X509       = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072" // EFI_CERT_X509_GUID: a certificate in DER
	SHA256     = "c1c41626-504c-4092-aca9-41f936934328" // EFI_CERT_SHA256_GUID: the digest of an image
	X509SHA256 = "3bd2a492-96c0-4079-b420-fcf98ef103ed" // EFI_CERT_X509_SHA256_GUID: the digest of a TBSCertificate, and a time
)

// owner is who put a signature into a list: nobody cares.
const owner = "00000000-0000-0000-0000-000000000000"

// Attributes of variables.
const (
	plain         = 0x07 // non-volatile, boot service and run-time access
	authenticated = 0x27 // and time-based authenticated write access
)

// Store is a flash image with an authenticated variable store.
type Store struct {
	data []byte
	next int // where the next variable goes
}

const (
	volumeHeader   = 72 // EFI_FIRMWARE_VOLUME_HEADER, with the block map
	storeHeader    = 28 // VARIABLE_STORE_HEADER
	storeGUID      = "aaf32c78-947b-439a-a180-2e144ec37792"
	variableHeader = 60 // AUTHENTICATED_VARIABLE_HEADER
)

// New takes OVMF_VARS_4M.fd, which has no variables. The bytes are copied.
func New(template []byte) (*Store, error) {
	const first = volumeHeader + storeHeader
	if len(template) < first+variableHeader || string(template[volumeHeader:][:16]) != string(guid(storeGUID)) || template[first] != 0xff {
		return nil, errors.New("not an empty store of authenticated variables")
	}
	return &Store{data: append([]byte(nil), template...), next: first}, nil
}

// Bytes is the flash image.
func (s *Store) Bytes() []byte { return s.data }

func (s *Store) put(vendor, name string, attributes uint32, data []byte) {
	n := append(utf16Bytes(name), 0, 0)
	h := []byte{0xaa, 0x55, 0x3f, 0} // StartId, State: VAR_ADDED
	h = binary.LittleEndian.AppendUint32(h, attributes)
	h = append(h, make([]byte, 8+16+4)...) // MonotonicCount, TimeStamp, PubKeyIndex
	h = binary.LittleEndian.AppendUint32(h, uint32(len(n)))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(data)))
	h = append(append(append(h, guid(vendor)...), n...), data...)
	s.next += copy(s.data[s.next:], h)
	s.next = (s.next + 3) &^ 3
}

// Secure writes the variables of Secure Boot: one certificate is platform key
// and key exchange key, and in db; dbx has these lists.
func (s *Store) Secure(certificate []byte, dbx ...[]byte) {
	list := List(X509, certificate)
	s.put(Global, "PK", authenticated, list)
	s.put(Global, "KEK", authenticated, list)
	s.put(Security, "db", authenticated, list)
	var all []byte
	for _, l := range dbx {
		all = append(all, l...)
	}
	if all != nil {
		s.put(Security, "dbx", authenticated, all)
	}
}

// Boot makes a file of any file system the one thing to boot.
func (s *Store) Boot(file, commandLine string) {
	path := append(utf16Bytes(file), 0, 0)
	node := []byte{4, 4} // media device path, file path
	node = binary.LittleEndian.AppendUint16(node, uint16(4+len(path)))
	node = append(append(node, path...), 0x7f, 0xff, 4, 0) // and the end
	option := []byte{1, 0, 0, 0}                           // LOAD_OPTION_ACTIVE
	option = binary.LittleEndian.AppendUint16(option, uint16(len(node)))
	option = append(append(option, utf16Bytes("test")...), 0, 0)
	option = append(append(option, node...), utf16Bytes(commandLine)...)
	s.put(Global, "Boot0000", plain, append(option, 0, 0))
	s.put(Global, "BootOrder", plain, []byte{0, 0})
}

// List is a signature list with one entry.
func List(kind string, data []byte) []byte {
	l := guid(kind)
	l = binary.LittleEndian.AppendUint32(l, uint32(28+16+len(data)))
	l = binary.LittleEndian.AppendUint32(l, 0) // SignatureHeaderSize
	l = binary.LittleEndian.AppendUint32(l, uint32(16+len(data)))
	return append(append(l, guid(owner)...), data...)
}

// guid encodes an EFI_GUID, whose first three parts are little endian. The text
// is a constant of this package.
func guid(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic(text)
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5], b[6], b[7] = b[5], b[4], b[7], b[6]
	return b
}

func utf16Bytes(text string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
