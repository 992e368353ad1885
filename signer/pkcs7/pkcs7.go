// SPDX-License-Identifier: Apache-2.0

// Package pkcs7 makes and checks PKCS#7 SignedData (RFC 2315) in the form that
// the Linux kernel accepts (crypto/asymmetric_keys/pkcs7_parser.c).
//
// In: a key, and content or data. Out: DER of at most 64 KiB with one signer,
// RSA PKCS#1 v1.5 or ECDSA with SHA-256, the leaf and its intermediates, and no
// signing time: the same bytes each time, unless an ECDSA key in a token or
// another's store made them. Two forms: attached, where authenticated
// attributes cover the content (Authenticode wants those), and detached without
// attributes over data (modules, statements). The library makes them; checking
// shares no code with it, as input is a stranger's and the library reads BER,
// skips errors and takes more than the kernel does.
//
// Refused when checking, with an error that wraps ErrInvalid: everything that is
// not DER to the last byte, another version, algorithm or encoding of its
// parameters, more than one signer (of two, the kernel skips a revoked one and
// may trust the other), revocation lists, unauthenticated attributes, attributes
// other than those of Authenticode's signing tools, and certificates that are
// not in the leaf's chain.
package pkcs7

import (
	"encoding/asn1"
	"errors"
)

// ErrInvalid says that a signature does not have the form that this package
// takes, or does not match what it signs.
var ErrInvalid = errors.New("invalid PKCS#7 signature")

// MaxSize is the largest signature, in bytes: the kernel's reader of PE files
// takes lengths of 16 bits.
const MaxSize = 1<<16 - 1

// maxCertificates is the longest chain in a signature.
const maxCertificates = 10

// OIDIndirectData is the content type of Authenticode, SPC_INDIRECT_DATA.
func OIDIndirectData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
}

// Identifiers, and algorithms with their parameters, in DER: what is compared
// byte by byte cannot be encoded in two ways.
const (
	oidData          = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
	oidSignedData    = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
	oidContentType   = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03"
	oidMessageDigest = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04"
	oidSigningTime   = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05"
	oidSMIME         = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0f" // smimeCapabilities, which sbsign writes
	oidStatementType = "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0b"
	oidOpusInfo      = "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0c"

	algSHA256 = "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00"
	algECDSA  = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02" // ecdsa-with-SHA256
	algRSA    = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"
)
