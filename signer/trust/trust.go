// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
)

// Trusts says why the identity does not trust the signer at that time, nil when
// it does.
func (i *Identity) Trusts(s *signer.Signer, now time.Time) error {
	switch {
	case s == nil || s.Key == nil:
		return errors.New("no signer")
	case (i.Key == nil) == (len(i.Certificates) == 0):
		return errors.New("the identity is not exactly one of certificates and a public key")
	case i.Key != nil:
		if cryptoutils.EqualKeys(i.Key, s.Key) != nil {
			return fmt.Errorf("signed by the key %s, not %s", signer.Fingerprint(s.Key), signer.Fingerprint(i.Key))
		}
		return nil
	case len(s.Chain) == 0:
		return fmt.Errorf("signed by the bare key %s, without a certificate", signer.Fingerprint(s.Key))
	case cryptoutils.EqualKeys(s.Chain[0].PublicKey, s.Key) != nil:
		return fmt.Errorf("certificate %q does not belong to the key that signed", signer.Name(s.Chain[0].Subject))
	}
	return i.judgeChain(s.Chain, now)
}

func (i *Identity) judgeChain(chain []*x509.Certificate, now time.Time) error {
	leaf := chain[0]
	if err := signer.CheckUsage(leaf); err != nil {
		return err
	}
	if err := signer.CheckValidity(leaf, now); err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range i.Certificates {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	return explain(err, now)
}

// explain says in one line what x509 says at length.
func explain(err error, now time.Time) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown) && unknown.Cert != nil:
		return fmt.Errorf("certificate %q is signed by an unknown authority, %q", signer.Name(unknown.Cert.Subject), signer.Name(unknown.Cert.Issuer))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if err := signer.CheckValidity(invalid.Cert, now); err != nil {
			return err
		}
	}
	return err
}
