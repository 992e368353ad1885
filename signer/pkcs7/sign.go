// SPDX-License-Identifier: Apache-2.0

package pkcs7

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"go.mozilla.org/pkcs7"

	"github.com/tenon-build/tenon/signer"
)

// SignAttached signs content, the DER of a SEQUENCE, of the given type, which is
// part of the result.
func SignAttached(key *signer.Key, contentType asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	set, err := Attributes(contentType, content)
	if err != nil {
		return nil, err
	}
	der, err := finish(key, set, func(sd *pkcs7.SignedData) error {
		// The library signed the SET, as RFC 2315, 9.3 wants; in the message it
		// has the tag [0], and the content is what its digest names.
		d := sd.GetSignedData()
		d.ContentInfo.ContentType = contentType
		d.ContentInfo.Content = asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: content}
		_, err := asn1.UnmarshalWithParams(set, &d.SignerInfos[0].AuthenticatedAttributes, "set")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if _, _, err := VerifyAttached(der, contentType); err != nil { // a faulty device, or another's key
		return nil, fmt.Errorf("checking the new signature: %w", err)
	}
	return der, nil
}

// SignDetached signs data, which is not part of the result.
func SignDetached(key *signer.Key, data []byte) ([]byte, error) {
	der, err := finish(key, data, func(sd *pkcs7.SignedData) error {
		sd.Detach()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if _, err := VerifyDetached(der, data); err != nil {
		return nil, fmt.Errorf("checking the new signature: %w", err)
	}
	return der, nil
}

// Attributes returns the bytes that SignAttached hashes and signs: the
// authenticated attributes, DER of a SET.
func Attributes(contentType asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	var seq asn1.RawValue
	if rest, err := asn1.Unmarshal(content, &seq); err != nil || len(rest) > 0 || seq.Tag != asn1.TagSequence {
		return nil, errors.New("signing: the content is not one SEQUENCE")
	}
	oid, err := asn1.Marshal(contentType)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	sum := sha256.Sum256(seq.Bytes) // without the SEQUENCE's own header
	attrs := [][]byte{attribute(oidContentType, oid), attribute(oidMessageDigest, append([]byte{asn1.TagOctetString, byte(len(sum))}, sum[:]...))}
	slices.SortFunc(attrs, bytes.Compare)
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(attrs, nil)})
}

// attribute is an Attribute with one value. All here are shorter than 128 bytes.
func attribute(oid string, value []byte) []byte {
	set := append([]byte{asn1.TagSet | 0x20, byte(len(value))}, value...)
	return append([]byte{asn1.TagSequence | 0x20, byte(len(oid) + len(set))}, append([]byte(oid), set...)...)
}

// finish signs message with the key and writes out what shape made of it.
func finish(key *signer.Key, message []byte, shape func(*pkcs7.SignedData) error) ([]byte, error) {
	if key == nil || key.Signer == nil || len(key.Chain) == 0 {
		return nil, signer.ErrNoCertificate
	}
	if err := signer.CheckKey(key.Public()); err != nil {
		return nil, err
	}
	_, ec := key.Public().(*ecdsa.PublicKey)
	sd, err := pkcs7.NewSignedData(message)
	if err != nil {
		return nil, err
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	sd.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA) // the kernel does not know sha256WithRSAEncryption here
	if ec {
		sd.SetEncryptionAlgorithm(pkcs7.OIDDigestAlgorithmECDSASHA256)
	}
	if err := sd.SignWithoutAttr(key.Chain[0], key.Signer, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	for _, c := range key.Chain[1:] {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) { // a root is in the verifier's hands, or it is not trusted
			sd.AddCertificate(c)
		}
	}
	d := sd.GetSignedData()
	info := &d.SignerInfos[0]
	d.DigestAlgorithmIdentifiers[0].Parameters = asn1.NullRawValue
	info.DigestAlgorithm.Parameters = asn1.NullRawValue
	if !ec { // RFC 5758, 3.2: ECDSA has no parameters
		info.DigestEncryptionAlgorithm.Parameters = asn1.NullRawValue
	}
	if err := shape(sd); err != nil {
		return nil, err
	}
	return sd.Finish()
}
