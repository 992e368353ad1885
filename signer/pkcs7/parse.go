// SPDX-License-Identifier: Apache-2.0

package pkcs7

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/tenon-build/tenon/signer"
)

const (
	tagSequence = asn1.SEQUENCE
	tagSet      = asn1.SET
)

// Optional parts carry these tags.
func tag(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

// message is a SignedData with its one signer.
type message struct {
	content      []byte // DER, header included; nil when detached
	certificates []*x509.Certificate
	leaf         *x509.Certificate
	attributes   []byte // DER with the tag [0]; nil when there are none
	digest       []byte // of the content, by attribute
	signingTime  time.Time
	ecdsa        bool // the signature's algorithm; otherwise RSA
	signature    []byte
}

// parse reads a message of one content type. Package cryptobyte takes DER alone,
// in which each length and each number has one encoding.
func parse(der []byte, contentType string, attached bool) (*message, error) {
	if len(der) > MaxSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	in := cryptobyte.String(der)
	var info, explicit, signed cryptobyte.String
	switch {
	case !in.ReadASN1(&info, tagSequence) || !in.Empty():
		return nil, errors.New("not one DER SEQUENCE")
	case !skip(&info, oidSignedData):
		return nil, errors.New("the content type is not signedData")
	case !info.ReadASN1(&explicit, tag(0)) || !info.Empty() || !explicit.ReadASN1(&signed, tagSequence) || !explicit.Empty():
		return nil, errors.New("no SignedData, or something behind it")
	}
	return parseSignedData(signed, contentType, attached)
}

// skip reads exactly these bytes, or nothing.
func skip(s *cryptobyte.String, want string) bool {
	rest, ok := bytes.CutPrefix(*s, []byte(want))
	*s = rest
	return ok
}

// parseSignedData reads what RFC 2315, 9.1 lists, in its order.
func parseSignedData(s cryptobyte.String, contentType string, attached bool) (*message, error) {
	m := &message{}
	if !skip(&s, "\x02\x01\x01") {
		return nil, errors.New("SignedData: the version is not 1")
	}
	var algorithms cryptobyte.String
	if !s.ReadASN1(&algorithms, tagSet) || string(algorithms) != algSHA256 {
		return nil, errors.New("SignedData: the digest algorithms are not sha256 alone, with NULL parameters")
	}
	if err := m.parseContent(&s, contentType, attached); err != nil {
		return nil, err
	}
	if err := m.parseCertificates(&s); err != nil {
		return nil, err
	}
	if s.PeekASN1Tag(tag(1)) {
		return nil, errors.New("SignedData: has revocation lists")
	}
	var signers, one cryptobyte.String
	if !s.ReadASN1(&signers, tagSet) || !s.Empty() {
		return nil, errors.New("SignedData: no signers, or something behind them")
	}
	if !signers.ReadASN1(&one, tagSequence) {
		return nil, errors.New("SignedData: no signer")
	}
	if !signers.Empty() {
		return nil, errors.New("SignedData: more than one signer")
	}
	if err := m.parseSigner(one, contentType, attached); err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return m, nil
}

func (m *message) parseContent(s *cryptobyte.String, contentType string, attached bool) error {
	var info, explicit, content cryptobyte.String
	if !s.ReadASN1(&info, tagSequence) || !skip(&info, contentType) {
		return errors.New("SignedData: wrong content type")
	}
	if !attached {
		if !info.Empty() {
			return errors.New("SignedData: has content of its own")
		}
		return nil
	}
	if !info.ReadASN1(&explicit, tag(0)) || !info.Empty() || !explicit.ReadASN1Element(&content, tagSequence) || !explicit.Empty() {
		return errors.New("SignedData: the content is not one SEQUENCE")
	}
	m.content = content
	return nil
}

func (m *message) parseCertificates(s *cryptobyte.String) error {
	var all cryptobyte.String
	if !s.ReadASN1(&all, tag(0)) || all.Empty() {
		return errors.New("SignedData: no certificates")
	}
	for !all.Empty() {
		var der cryptobyte.String
		if !all.ReadASN1Element(&der, tagSequence) {
			return errors.New("SignedData: not a certificate")
		}
		if len(m.certificates) == maxCertificates {
			return fmt.Errorf("SignedData: more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("SignedData: certificate: %w", err)
		}
		if err := signer.CheckCertificate(c); err != nil {
			return fmt.Errorf("SignedData: %w", err)
		}
		m.certificates = append(m.certificates, c)
	}
	return nil
}

// parseSigner reads what RFC 2315, 9.2 lists, in its order.
func (m *message) parseSigner(s cryptobyte.String, contentType string, attached bool) error {
	if !skip(&s, "\x02\x01\x01") {
		return errors.New("the version is not 1")
	}
	if err := m.parseIdentifier(&s); err != nil {
		return err
	}
	if !skip(&s, algSHA256) {
		return errors.New("the digest algorithm is not sha256 with NULL parameters")
	}
	if s.PeekASN1Tag(tag(0)) != attached {
		return fmt.Errorf("has authenticated attributes: %v, want %v", !attached, attached)
	}
	if attached {
		if err := m.parseAttributes(&s, contentType); err != nil {
			return fmt.Errorf("authenticated attributes: %w", err)
		}
	}
	if m.ecdsa = skip(&s, algECDSA); !m.ecdsa && !skip(&s, algRSA) {
		return errors.New("the signature algorithm is neither rsaEncryption with NULL parameters nor ecdsa-with-SHA256, which alone kernels take")
	}
	var signature cryptobyte.String
	if !s.ReadASN1(&signature, asn1.OCTET_STRING) {
		return errors.New("no signature")
	}
	m.signature = signature
	if s.PeekASN1Tag(tag(1)) {
		return errors.New("has unauthenticated attributes")
	}
	if !s.Empty() {
		return errors.New("data behind the signature")
	}
	return nil
}

// parseIdentifier finds the signer's certificate by issuer and serial number.
func (m *message) parseIdentifier(s *cryptobyte.String) error {
	var id, issuer, serial cryptobyte.String
	if !s.ReadASN1(&id, tagSequence) || !id.ReadASN1Element(&issuer, tagSequence) ||
		!id.ReadASN1Element(&serial, asn1.INTEGER) || !id.Empty() {
		return errors.New("no issuer and serial number")
	}
	for _, c := range m.certificates {
		b := cryptobyte.NewBuilder(nil)
		b.AddASN1BigInt(c.SerialNumber)
		number, err := b.Bytes()
		if err != nil || !bytes.Equal(c.RawIssuer, issuer) || !bytes.Equal(number, serial) {
			continue
		}
		if m.leaf != nil {
			return errors.New("two certificates have its issuer and serial number")
		}
		m.leaf = c
	}
	if m.leaf == nil {
		return errors.New("its certificate is not there")
	}
	return nil
}

// parseAttributes reads the attributes: contentType and messageDigest, and what
// sbsign and osslsigncode add. The kernel refuses one that occurs twice.
func (m *message) parseAttributes(s *cryptobyte.String, contentType string) error {
	var all cryptobyte.String
	if !s.ReadASN1Element(&all, tag(0)) {
		return errors.New("malformed")
	}
	m.attributes = slices.Clone(all)
	if !all.ReadASN1(&all, tag(0)) {
		return errors.New("malformed")
	}
	var last []byte
	seen := map[string]bool{}
	for !all.Empty() {
		var element, attr, oid, values cryptobyte.String
		if !all.ReadASN1Element(&element, tagSequence) {
			return errors.New("malformed")
		}
		if bytes.Compare(last, element) >= 0 {
			return errors.New("not in DER's order")
		}
		last = element
		if !element.ReadASN1(&attr, tagSequence) || !attr.ReadASN1Element(&oid, asn1.OBJECT_IDENTIFIER) ||
			!attr.ReadASN1(&values, tagSet) || !attr.Empty() {
			return errors.New("malformed")
		}
		if seen[string(oid)] {
			return errors.New("one occurs twice")
		}
		seen[string(oid)] = true
		if err := m.parseAttribute(string(oid), values, contentType); err != nil {
			return err
		}
	}
	if !seen[oidContentType] || !seen[oidMessageDigest] {
		return errors.New("contentType or messageDigest is missing")
	}
	return nil
}

// parseAttribute reads an attribute's values, of which there must be one.
func (m *message) parseAttribute(oid string, values cryptobyte.String, contentType string) error {
	var value cryptobyte.String
	switch oid {
	case oidContentType:
		if string(values) != contentType {
			return errors.New("contentType is not the content's type")
		}
	case oidMessageDigest:
		if !values.ReadASN1(&value, asn1.OCTET_STRING) || !values.Empty() || len(value) != 32 {
			return errors.New("messageDigest is not one SHA-256 digest")
		}
		m.digest = value
	case oidSigningTime:
		ok := false
		if values.PeekASN1Tag(asn1.UTCTime) {
			ok = values.ReadASN1UTCTime(&m.signingTime)
		} else {
			ok = values.ReadASN1GeneralizedTime(&m.signingTime)
		}
		if !ok || !values.Empty() || m.signingTime.IsZero() {
			return errors.New("signingTime is not one time")
		}
	case oidOpusInfo, oidStatementType, oidSMIME: // signed, but they mean nothing to Linux
		if !values.ReadASN1(&value, tagSequence) || !values.Empty() {
			return errors.New("SpcSpOpusInfo, SpcStatementType or smimeCapabilities is not one SEQUENCE")
		}
	default:
		return fmt.Errorf("unknown attribute %x", oid)
	}
	return nil
}

// chain orders the certificates, leaf first, each followed by its issuer. It
// refuses what is not part of that chain.
func (m *message) chain() ([]*x509.Certificate, error) {
	chain := []*x509.Certificate{m.leaf}
	left := slices.DeleteFunc(slices.Clone(m.certificates), func(c *x509.Certificate) bool { return c == m.leaf })
	for len(left) > 0 {
		last := chain[len(chain)-1]
		i := slices.IndexFunc(left, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(c) == nil
		})
		if i < 0 || bytes.Equal(last.RawSubject, last.RawIssuer) {
			return nil, fmt.Errorf("certificate %q is not in the chain of %q", signer.Name(left[0].Subject), signer.Name(m.leaf.Subject))
		}
		chain = append(chain, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return chain, nil
}
