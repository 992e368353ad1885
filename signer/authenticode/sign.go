// SPDX-License-Identifier: Apache-2.0

package authenticode

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// ErrDigest says that a signature is of another image.
var ErrDigest = errors.New("the signature is of another image")

// Parts of a SpcIndirectDataContent, in DER.
const (
	// SPC_PE_IMAGE_DATAOBJ
	oidPEImageData = "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0f"
	// SPC_INDIVIDUAL_SP_KEY_PURPOSE, which pesign writes in its place; the kernel
	// takes both (mscode_parser.c).
	oidPesign = "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x15"
	// SpcPeImageData: no flags, and an SpcLink to an empty file name; nobody uses it.
	peImageData = "\x30\x09\x03\x01\x00\xa0\x04\xa2\x02\x80\x00"
	algSHA256   = "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00"
)

// Sign makes the signature, PKCS#7 in DER, of the image with that digest. The
// absence of a signing time makes it the same each time, where the key does.
func Sign(key *signer.Key, digest [32]byte) ([]byte, error) {
	content, err := indirectData(digest)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	der, err := pkcs7.SignAttached(key, pkcs7.OIDIndirectData(), content)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	return der, nil
}

// ToBeSigned returns the bytes that Sign hashes and signs: the authenticated
// attributes, DER of a SET.
func ToBeSigned(digest [32]byte) ([]byte, error) {
	content, err := indirectData(digest)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	return pkcs7.Attributes(pkcs7.OIDIndirectData(), content)
}

// Verify says who signed the image with that digest. Whether that is somebody to
// trust is not judged. Of another image the error wraps ErrDigest, of a signature
// that is none pkcs7.ErrInvalid.
func Verify(p7 []byte, digest [32]byte) (*signer.Signer, error) {
	content, s, err := pkcs7.VerifyAttached(p7, pkcs7.OIDIndirectData())
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w", err)
	}
	got, err := parseIndirectData(content)
	if err != nil {
		return nil, fmt.Errorf("authenticode: %w: %w", pkcs7.ErrInvalid, err)
	}
	if got != digest {
		return nil, fmt.Errorf("authenticode: %w: it names the digest %x, the image has %x", ErrDigest, got, digest)
	}
	return s, nil
}

// indirectData is the SpcIndirectDataContent of a digest.
func indirectData(digest [32]byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SpcAttributeTypeAndOptionalValue
			b.AddBytes([]byte(oidPEImageData))
			b.AddBytes([]byte(peImageData))
		})
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // DigestInfo
			b.AddBytes([]byte(algSHA256))
			b.AddASN1OctetString(digest[:])
		})
	})
	return b.Bytes()
}

// parseIndirectData returns the digest in a SpcIndirectDataContent. What is said
// about the image beside it has no meaning for Linux and is not read.
func parseIndirectData(der []byte) (digest [32]byte, err error) {
	in := cryptobyte.String(der)
	var content, data, value, info, sum cryptobyte.String
	var oid, algorithm []byte
	switch {
	case !in.ReadASN1(&content, asn1.SEQUENCE) || !in.Empty():
		return digest, errors.New("malformed SpcIndirectDataContent")
	case !content.ReadASN1(&data, asn1.SEQUENCE) || !data.ReadBytes(&oid, len(oidPEImageData)) || string(oid) != oidPEImageData && string(oid) != oidPesign:
		return digest, errors.New("SpcIndirectDataContent is not about a PE image")
	case !data.ReadASN1(&value, asn1.SEQUENCE) || !data.Empty():
		return digest, errors.New("malformed SpcPeImageData")
	case !content.ReadASN1(&info, asn1.SEQUENCE) || !content.Empty():
		return digest, errors.New("malformed DigestInfo")
	case !info.ReadBytes(&algorithm, len(algSHA256)) || string(algorithm) != algSHA256:
		return digest, errors.New("the digest algorithm is not sha256 with NULL parameters")
	case !info.ReadASN1(&sum, asn1.OCTET_STRING) || !info.Empty() || len(sum) != len(digest):
		return digest, errors.New("no digest of 32 bytes")
	}
	return [32]byte(sum), nil
}
