// SPDX-License-Identifier: Apache-2.0

package pkcs7

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/tenon-build/tenon/signer"
)

// VerifyAttached checks a signature over content of the given type, and returns
// that content, the DER of a SEQUENCE. Trust is not judged.
func VerifyAttached(der []byte, contentType asn1.ObjectIdentifier) (content []byte, s *signer.Signer, err error) {
	oid, err := asn1.Marshal(contentType)
	if err != nil {
		return nil, nil, err
	}
	m, err := parse(der, string(oid), true)
	if err == nil {
		s, err = m.verifyAttached()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return m.content, s, nil
}

// VerifyDetached checks a signature over data. Trust is not judged.
func VerifyDetached(der, data []byte) (*signer.Signer, error) {
	m, err := parse(der, oidData, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	s, err := m.verify(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return s, nil
}

func (m *message) verifyAttached() (*signer.Signer, error) {
	seq := cryptobyte.String(m.content)
	var body cryptobyte.String
	if !seq.ReadASN1(&body, tagSequence) || !seq.Empty() {
		return nil, errors.New("the content is not one SEQUENCE")
	}
	// RFC 2315, 9.3: the digest is of the content's octets without its header.
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], m.digest) {
		return nil, errors.New("the content does not match its messageDigest attribute")
	}
	if t := m.signingTime; !t.IsZero() { // as the kernel does
		if err := signer.CheckValidity(m.leaf, t); err != nil {
			return nil, fmt.Errorf("at its signing time: %w", err)
		}
	}
	// RFC 2315, 9.3: what is signed is the attributes as a SET OF, not as [0].
	signed := slices.Clone(m.attributes)
	signed[0] = byte(tagSet)
	return m.verify(signed)
}

// verify checks the signer's own signature, over signed.
func (m *message) verify(signed []byte) (*signer.Signer, error) {
	if err := signer.CheckKey(m.leaf.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate %q: %w", signer.Name(m.leaf.Subject), err)
	}
	sum := sha256.Sum256(signed)
	ok := false
	switch key := m.leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		ok = !m.ecdsa && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], m.signature) == nil
	case *ecdsa.PublicKey:
		ok = m.ecdsa && ecdsa.VerifyASN1(key, sum[:], m.signature)
	}
	if !ok {
		return nil, fmt.Errorf("the signature was not made by %q over this", signer.Name(m.leaf.Subject))
	}
	chain, err := m.chain()
	if err != nil {
		return nil, err
	}
	return &signer.Signer{Key: m.leaf.PublicKey, Chain: chain}, nil
}
