// SPDX-License-Identifier: Apache-2.0

// Package uefi writes what UEFI firmware keeps about certificates: signature
// lists (.esl), and signed updates of the variables PK, KEK, db and dbx (.auth).
//
// In: certificates, and the key that signs an update. Out: bytes as UEFI 2.10
// lays them out in sections 32.4.1 (EFI_SIGNATURE_LIST) and 8.2.2
// (EFI_VARIABLE_AUTHENTICATION_2); all numbers are little endian. Refused: keys
// other than RSA, and times that EFI_TIME cannot hold.
package uefi

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// guid is an EFI_GUID as it lies in memory.
type guid [16]byte

// parseGUID parses a GUID of this package: the first three groups of its text
// are numbers, and thus turned around.
func parseGUID(text string) (g guid) {
	b, _ := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	copy(g[:], []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]})
	copy(g[8:], b[8:])
	return g
}

// GUIDs of the specification, and Owner, which says who wrote a signature.
const (
	certX509       = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072" // EFI_CERT_X509_GUID
	certX509SHA256 = "3bd2a492-96c0-4079-b420-fcf98ef103ed" // EFI_CERT_X509_SHA256_GUID
	certPKCS7      = "4aafd29d-68df-49ee-8aa9-347d375665a7" // EFI_CERT_TYPE_PKCS7_GUID
	globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE
	imageSecurity  = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID

	Owner = "0b6d2c59-5a0e-4d0c-9c56-7e6f2a8f1d43"
)

// Certificate is a signature list with the certificate itself: for PK, KEK and
// db. In dbx, firmware and kernels with SYSTEM_REVOCATION_LIST heed it.
func Certificate(c *x509.Certificate) []byte { return list(certX509, c.Raw) }

// Revocation is a signature list with the digest of the certificate's
// TBSCertificate, revoked since ever: for dbx. Firmware heeds it. Linux, seen in
// 6.1, does not: it takes all 48 bytes of an EFI_CERT_X509_SHA256 for the digest
// (security/integrity/platform_certs/keyring_handler.c).
func Revocation(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.RawTBSCertificate)
	return list(certX509SHA256, append(sum[:], make([]byte, 16)...)) // TimeOfRevocation: zero
}

// list is an EFI_SIGNATURE_LIST with one EFI_SIGNATURE_DATA.
func list(kind string, data []byte) []byte {
	signatureType, owner := parseGUID(kind), parseGUID(Owner)
	size := uint32(len(owner) + len(data))
	b := append([]byte{}, signatureType[:]...)
	b = binary.LittleEndian.AppendUint32(b, 16+3*4+size) // SignatureListSize
	b = binary.LittleEndian.AppendUint32(b, 0)           // SignatureHeaderSize
	b = binary.LittleEndian.AppendUint32(b, size)        // SignatureSize
	b = append(b, owner[:]...)                           // SignatureOwner
	return append(b, data...)                            // SignatureData
}
