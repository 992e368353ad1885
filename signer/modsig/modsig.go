// SPDX-License-Identifier: Apache-2.0

// Package modsig signs Linux kernel modules in the kernel's own form
// (include/linux/module_signature.h, scripts/sign-file.c), which it checks when
// it loads them (kernel/module/signing.c).
//
// In: a module, an ELF relocatable file, with or without a signature, and a key.
// Out: the module with exactly one signature behind it: PKCS#7, detached and
// without attributes, with the leaf and its intermediates, so that a host that
// trusts their issuer takes it; or who made one. Refused: compressed modules,
// whose signature belongs inside, and everything behind a module that is not
// exactly one signature.
package modsig

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// Errors about what was found.
var (
	ErrInvalid    = errors.New("invalid module")
	ErrCompressed = errors.New("the module is compressed")
	ErrUnsigned   = errors.New("the module is not signed")
)

// MaxSize is that of the largest module, in bytes.
const MaxSize = 256 << 20

// The end of a signed module: PKCS#7, this record, the marker.
//
//	offset  size
//	     0     1  algorithm: 0, the PKCS#7 says it
//	     1     1  hash: 0
//	     2     1  kind of signature: 2, PKCS#7
//	     3     1  length of the signer's name: 0
//	     4     1  length of the key's name: 0
//	     5     3  zeros
//	     8     4  length of the PKCS#7, big endian
const (
	marker     = "~Module signature appended~\n"
	recordSize = 12
	recordHead = "\x00\x00\x02\x00\x00\x00\x00\x00"
)

// Sign returns the module with the key's signature in place of those it has.
func Sign(key *signer.Key, module []byte) ([]byte, error) {
	content, err := Strip(module)
	if err != nil {
		return nil, err
	}
	p7, err := pkcs7.SignDetached(key, content)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	out := append(bytes.Clone(content), p7...)
	out = append(out, recordHead...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(p7)))
	return append(out, marker...), nil
}

// Verify says who signed the module. Whether that is somebody to trust is not
// judged. The signature has to carry its certificates, as those of Sign do and
// those of the kernel's sign-file do not. A kernel takes a module that was
// signed twice for what its last signature says; here it is refused.
func Verify(module []byte) (*signer.Signer, error) {
	if err := check(module); err != nil {
		return nil, err
	}
	content, p7, err := split(module)
	if err != nil {
		return nil, err
	}
	if p7 == nil {
		return nil, ErrUnsigned
	}
	if bytes.HasSuffix(content, []byte(marker)) {
		return nil, fmt.Errorf("%w: it is signed twice", ErrInvalid)
	}
	who, err := pkcs7.VerifyDetached(p7, content)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	return who, nil
}

// Strip returns the module without its signature, or all of them if it has been
// signed more than once. The result shares the argument's memory.
func Strip(module []byte) ([]byte, error) {
	if err := check(module); err != nil {
		return nil, err
	}
	for {
		content, p7, err := split(module)
		if p7 == nil || err != nil {
			return content, err
		}
		module = content
	}
}

// split cuts off the last signature, if there is one.
func split(module []byte) (content, p7 []byte, err error) {
	rest, ok := bytes.CutSuffix(module, []byte(marker))
	if !ok {
		return module, nil, nil
	}
	if len(rest) < recordSize {
		return nil, nil, fmt.Errorf("%w: the signature is truncated", ErrInvalid)
	}
	rest, record := rest[:len(rest)-recordSize], rest[len(rest)-recordSize:]
	size := int64(binary.BigEndian.Uint32(record[len(recordHead):]))
	switch {
	case string(record[:len(recordHead)]) != recordHead:
		return nil, nil, fmt.Errorf("%w: the signature is not PKCS#7", ErrInvalid)
	case size < 1 || size > pkcs7.MaxSize || size >= int64(len(rest)):
		return nil, nil, fmt.Errorf("%w: a signature of %d bytes behind %d", ErrInvalid, size, len(rest))
	}
	at := len(rest) - int(size)
	return rest[:at:at], rest[at:], nil
}

// compressed lists how the formats of modprobe begin.
var compressed = map[string]string{
	"gzip": "\x1f\x8b",
	"xz":   "\xfd7zXZ\x00",
	"zstd": "\x28\xb5\x2f\xfd",
}

// check says what keeps bytes from being a module.
func check(module []byte) error {
	for format, magic := range compressed {
		if bytes.HasPrefix(module, []byte(magic)) {
			return fmt.Errorf("%w (%s)", ErrCompressed, format)
		}
	}
	switch {
	case len(module) > MaxSize:
		return fmt.Errorf("%w: larger than %d MiB", ErrInvalid, MaxSize>>20)
	case len(module) < 64 || !bytes.HasPrefix(module, []byte(elf.ELFMAG)):
		return fmt.Errorf("%w: not an ELF file", ErrInvalid)
	case module[elf.EI_DATA] != byte(elf.ELFDATA2LSB) || elf.Type(binary.LittleEndian.Uint16(module[16:])) != elf.ET_REL:
		return fmt.Errorf("%w: an ELF file, but not a relocatable one", ErrInvalid)
	}
	return nil
}
