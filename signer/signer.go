// SPDX-License-Identifier: Apache-2.0

// Package signer holds the keys that sign, and says who made a signature.
//
// In: references to private keys, in files, tokens and other stores, and PEM
// certificates. Out: a Key, whose certificate is known to belong to it and to be
// fit for signing code, or new keys and certificates by a profile, made and judged
// by one table. Refused: keys that no kernel verifies (all but RSA of 2048 to 4096
// bits, and ECDSA with P-256 or P-384), and certificates that are not for code
// signing or not valid now.
//
// The packages below make and check one form of signature each. Checking is
// cryptography alone and returns a Signer; whether that signer is trusted is
// the question of package trust.
package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
)

// Key is a private key, wherever it is kept, with its certificates.
type Key struct {
	crypto.Signer
	// Chain is the leaf, whose key this is, then the issuer of each, as far as
	// they are known.
	Chain []*x509.Certificate
}

// Signer is who made a signature, as far as cryptography goes.
type Signer struct {
	Key crypto.PublicKey // made the signature
	// Chain came with the signature, the leaf, which is Key's, first. Nobody has
	// judged it. It is empty where a bare key signed.
	Chain []*x509.Certificate
}

// String names a signer for people: the certificate's subject, if there is one,
// and the key's fingerprint.
func (s *Signer) String() string {
	fingerprint := Fingerprint(s.Key)
	if len(s.Chain) == 0 {
		return "the key " + fingerprint
	}
	return fmt.Sprintf("%s (%s)", Name(s.Chain[0].Subject), fingerprint)
}

// Fingerprint names a public key: "sha256:" and the digest of its PKIX form in
// lower-case hex. A key that has no such form has the empty fingerprint.
func Fingerprint(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// CheckCertificate says whether a certificate's key is of a size that checking a
// signature with it takes no time worth a mention: anyone can write certificates,
// with an RSA modulus of millions of bits too.
func CheckCertificate(c *x509.Certificate) error {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits > 4096 || key.E > 1<<32-1 {
			return fmt.Errorf("certificate %q has an RSA key of %d bits: more than 4096 are not taken", Name(c.Subject), bits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return fmt.Errorf("certificate %q has a key of an unknown kind", Name(c.Subject))
	}
	return nil
}

// Name writes a certificate's subject or issuer, which a stranger chose, in at
// most 200 bytes.
func Name(n pkix.Name) string {
	s := n.String()
	return s[:min(len(s), 200)]
}

// CheckUsage says whether a leaf is meant to sign code, and to issue nothing.
func CheckUsage(leaf *x509.Certificate) error {
	code := false
	for _, usage := range leaf.ExtKeyUsage {
		code = code || usage == x509.ExtKeyUsageCodeSigning
	}
	switch {
	case leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return fmt.Errorf("certificate %q is an authority's, which issues certificates and does not sign", Name(leaf.Subject))
	case !code:
		return fmt.Errorf("certificate %q is not for code signing (extended key usage)", Name(leaf.Subject))
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("certificate %q is not for digital signatures (key usage)", Name(leaf.Subject))
	}
	return nil
}
