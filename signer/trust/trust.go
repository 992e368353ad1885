// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
)

// CheckSigner says why the identity does not trust the signer at that time, nil when
// it does. Where a key, a certificate or any issuer of it was revoked, the error
// wraps ErrRevoked.
func (i *Identity) CheckSigner(s *signer.Signer, revoked Revocations, now time.Time) error {
	if s == nil || s.Key == nil {
		return errors.New("no signer")
	}
	if err := revoked.Check(OfKey(s.Key)); err != nil {
		return err
	}
	for _, c := range s.Chain {
		if err := revoked.checkCertificate(c); err != nil {
			return err
		}
	}
	switch {
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
	return i.checkChain(s.Chain, revoked, now)
}

// CheckGrace says of a signer that is trusted what is said once the grace is over, nil
// when it does not need any.
func (i *Identity) CheckGrace(s *signer.Signer, now time.Time) error {
	strict := *i
	strict.Grace = 0
	return strict.CheckSigner(s, nil, now)
}

func (i *Identity) checkChain(chain []*x509.Certificate, revoked Revocations, now time.Time) error {
	leaf := chain[0]
	if err := signer.CheckUsage(leaf); err != nil {
		return err
	}
	if err := i.checkLeaf(leaf); err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range i.Certificates {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	paths, err := i.verify(leaf, x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return explain(err, now)
	}
	for _, c := range slices.Concat(paths...) { // with the identity's own, which need not be in chain
		if err := revoked.checkCertificate(c); err != nil {
			return err
		}
	}
	return nil
}

// checkLeaf says whether a leaf has what the identity asks of it.
func (i *Identity) checkLeaf(leaf *x509.Certificate) error {
	var subject pkix.RDNSequence // x509 shows of each name the last one alone
	if _, err := asn1.Unmarshal(leaf.RawSubject, &subject); err != nil {
		return fmt.Errorf("certificate %q: subject: %w", signer.Name(leaf.Subject), err)
	}
	if got := subject.String(); i.Subject != "" && got != i.Subject {
		return fmt.Errorf("certificate %q has not the subject %q", got[:min(len(got), 200)], i.Subject)
	}
	var usages []x509.OID
	for _, u := range leaf.ExtKeyUsage {
		usages = append(usages, u.OID())
	}
	for _, u := range leaf.UnknownExtKeyUsage {
		if oid, err := x509.ParseOID(u.String()); err == nil {
			usages = append(usages, oid)
		}
	}
	for _, want := range i.Usages {
		if !slices.ContainsFunc(usages, want.Equal) {
			return fmt.Errorf("certificate %q has not the extended key usage %s", signer.Name(leaf.Subject), want)
		}
	}
	return nil
}

// verify finds the paths from a leaf to the identity's certificates. Where one of
// a path expired within the grace, all are judged as of its last moment.
func (i *Identity) verify(leaf *x509.Certificate, o x509.VerifyOptions) ([][]*x509.Certificate, error) {
	now := o.CurrentTime
	for {
		paths, err := leaf.Verify(o)
		var invalid x509.CertificateInvalidError
		if !errors.As(err, &invalid) || invalid.Reason != x509.Expired || invalid.Cert == nil {
			return paths, err
		}
		last := invalid.Cert.NotAfter
		if !last.Before(o.CurrentTime) || now.Sub(last) > i.Grace { // not yet valid, or too late
			return nil, err
		}
		o.CurrentTime = last
	}
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
