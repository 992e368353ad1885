// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// ErrIssuer says that something is not the key and the certificates of a CA that
// may issue now.
var ErrIssuer = errors.New("issuer")

// OpenIssuer opens the key of a CA: ref is a folder that Create made, or what Open
// takes. An error wraps ErrIssuer.
func OpenIssuer(ctx context.Context, ref string, o OpenOptions) (*Key, error) {
	return openIssuer(ctx, ref, o, time.Now())
}

func openIssuer(ctx context.Context, ref string, o OpenOptions, now time.Time) (*Key, error) {
	if info, err := os.Stat(ref); err == nil && info.IsDir() {
		ref = "file:" + filepath.Join(ref, "ca.key")
	}
	key, from, err := load(ctx, ref, o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIssuer, err)
	}
	if err := checkAuthority(key, key.Chain, now); err != nil {
		return nil, fmt.Errorf("%w: key %q: certificates of %q: %w", ErrIssuer, strings.TrimPrefix(ref, "file:"), from, err)
	}
	return key, nil
}

// checkAuthority says what keeps the key from issuing.
func checkAuthority(key crypto.Signer, chain []*x509.Certificate, now time.Time) error {
	ca := chain[0]
	if cryptoutils.EqualKeys(key.Public(), ca.PublicKey) != nil {
		return fmt.Errorf("certificate %q, the first, does not belong to the key", Name(ca.Subject))
	}
	if !ca.IsCA || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("certificate %q is not an authority's: it may not issue certificates", Name(ca.Subject))
	}
	for i, c := range chain {
		if err := CheckValidity(c, now); err != nil {
			return err
		}
		if i > 0 {
			if wrong := CheckIssuer(chain[i-1], c); len(wrong) > 0 {
				return fmt.Errorf("certificate %q: %s", Name(chain[i-1].Subject), strings.Join(wrong, "; "))
			}
		}
	}
	return nil
}

// ParsePublicKey parses what a key that is kept elsewhere, in an HSM for
// instance, gives away: a public key or a certificate signing request, in PEM
// form. Of a request, the signature is checked and nothing but the key is used.
func ParsePublicKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	var key crypto.PublicKey
	switch {
	case block == nil:
		return nil, errors.New("neither a public key nor a certificate signing request in PEM form")
	case strings.HasSuffix(block.Type, "CERTIFICATE REQUEST"):
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err == nil {
			err = csr.CheckSignature()
		}
		if err != nil {
			return nil, fmt.Errorf("certificate signing request: %w", err)
		}
		key = csr.PublicKey
	default:
		var err error
		if key, err = cryptoutils.UnmarshalPEMToPublicKey(data); err != nil {
			return nil, err
		}
	}
	return key, CheckKey(key)
}

// request is what a certificate is to say.
type request struct {
	Subject    pkix.Name
	RawSubject []byte // in place of Subject, unless it is nil
	Profile    Profile
	Valid      time.Duration // from now on
	Key        crypto.PublicKey
}

// clockMargin is how far a host's clock may be behind.
const clockMargin = 5 * time.Minute

// issue makes a certificate and judges it by what it was made by. An issuer
// without a certificate signs its own.
func issue(r request, issuer *Key, now time.Time) (*x509.Certificate, error) {
	now = now.UTC().Truncate(time.Second)
	c := &x509.Certificate{
		Subject: r.Subject, RawSubject: r.RawSubject,
		NotBefore:          now.Add(-clockMargin),
		NotAfter:           now.Add(r.Valid),
		SignatureAlgorithm: signatureAlgorithm(issuer.Public()),
	}
	r.Profile.apply(c)
	var err error
	if c.SubjectKeyId, err = cryptoutils.SKID(r.Key); err != nil {
		return nil, err
	}
	if c.SerialNumber, err = serial(); err != nil {
		return nil, err
	}
	parent := c
	if len(issuer.Chain) > 0 {
		parent = issuer.Chain[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, r.Key, issuer)
	if err != nil {
		return nil, err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	wrong := r.Profile.Check(made)
	if len(issuer.Chain) > 0 {
		wrong = append(wrong, CheckIssuer(made, parent)...)
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%s certificate %q: %s", r.Profile.Name, Name(made.Subject), strings.Join(wrong, "; "))
	}
	return made, nil
}

// serial is positive and has exactly 128 bits, so that its length tells nothing.
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 127, 1), nil
}
