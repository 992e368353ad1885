// SPDX-License-Identifier: Apache-2.0

// Package statement signs what mortise.ko has to know about a kernel and a PE
// signature cannot tell: which back end it was built for, and whether it is
// sealed.
//
// In: a statement and a key. Out: a PKCS#7 signature, detached and without
// attributes, over the statement's bytes, as verify_pkcs7_signature checks it
// with VERIFYING_UNSPECIFIED_SIGNATURE. The bytes themselves are not stored: the
// verifier makes them from what it sees. They are 72, numbers are little endian:
//
//	offset  size
//	     0     8  magic: "TENONSTM"
//	     8     4  version: 1
//	    12     4  sealed: 1, or 0 when the initramfs is detached
//	    16    16  target: the back end's name in ASCII, NUL padded
//	    32     8  size of the bzImage in bytes
//	    40    32  SHA-256 of the bzImage as it lies in the bundle: without
//	              signatures, padded with zeros to a multiple of 8 bytes
//
// Refused: anything but exactly that.
package statement

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// Size is that of a statement in bytes.
const Size = 72

const (
	magic      = "TENONSTM"
	version    = 1
	targetSize = 16
)

// ErrInvalid says that bytes are not a statement, or that a Statement has no
// such bytes.
var ErrInvalid = errors.New("invalid statement")

// Statement is what is signed about a kernel.
type Statement struct {
	Target string   // back end: lower-case letters, digits and '-', 1 to 15 of them
	Sealed bool     // the initramfs and the command line are inside the bzImage
	Size   int64    // of the bzImage in bytes
	Digest [32]byte // SHA-256 of the bzImage
}

func (s *Statement) check() error {
	if len(s.Target) < 1 || len(s.Target) >= targetSize { // a NUL is left, for C
		return fmt.Errorf("%w: the target %q does not have 1 to %d characters", ErrInvalid, s.Target, targetSize-1)
	}
	for _, r := range s.Target {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("%w: the target %q has other characters than a-z, 0-9 and '-'", ErrInvalid, s.Target)
		}
	}
	if s.Size < 1 {
		return fmt.Errorf("%w: the size is %d", ErrInvalid, s.Size)
	}
	return nil
}

// Marshal returns the statement's bytes.
func (s Statement) Marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var sealed uint32
	if s.Sealed {
		sealed = 1
	}
	b := append(make([]byte, 0, Size), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, sealed)
	b = append(b, s.Target...)
	b = append(b, make([]byte, targetSize-len(s.Target))...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Size))
	return append(b, s.Digest[:]...), nil
}

// Sign signs the statement: PKCS#7 in DER.
func Sign(key *signer.Key, s Statement) ([]byte, error) {
	data, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	der, err := pkcs7.SignDetached(key, data)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return der, nil
}

// Verify says who signed exactly this statement. Whether that is somebody to
// trust is not judged.
func Verify(p7 []byte, s Statement) (*signer.Signer, error) {
	data, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	who, err := pkcs7.VerifyDetached(p7, data)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return who, nil
}
