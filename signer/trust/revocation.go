// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tenon-build/tenon/signer"
)

// ErrRevoked says that something was revoked.
var ErrRevoked = errors.New("revoked")

// The kinds of what is revoked.
const (
	RevokedKey         = "key"         // by signer.Fingerprint, whatever certificate it has
	RevokedCertificate = "certificate" // by the SHA-256 of its TBSCertificate; what it issued goes with it
	RevokedBundle      = "bundle"      // by its digest
)

// Revoked is one thing that is trusted no more.
type Revoked struct {
	Kind   string    `json:"kind"`
	Digest string    `json:"digest"` // "sha256:" and 64 digits of lower-case hex
	Reason string    `json:"reason"` // for people
	Date   time.Time `json:"date"`
}

// OfKey names a public key.
func OfKey(key crypto.PublicKey) Revoked {
	return Revoked{Kind: RevokedKey, Digest: signer.Fingerprint(key)}
}

// OfCertificate names a certificate.
func OfCertificate(c *x509.Certificate) Revoked {
	sum := sha256.Sum256(c.RawTBSCertificate)
	return Revoked{Kind: RevokedCertificate, Digest: "sha256:" + hex.EncodeToString(sum[:])}
}

// OfBundle names a bundle by its digest.
func OfBundle(digest string) Revoked { return Revoked{Kind: RevokedBundle, Digest: digest} }

// Revocations are all that is trusted no more.
type Revocations []Revoked

// Check says whether what was revoked. The error wraps ErrRevoked.
func (r Revocations) Check(what Revoked) error {
	for _, have := range r {
		if have.Kind == what.Kind && have.Digest == what.Digest {
			return fmt.Errorf("%s %s was %w on %s: %s", have.Kind, have.Digest, ErrRevoked, have.Date.Format(time.DateOnly), have.Reason)
		}
	}
	return nil
}

// checkCertificate says whether a certificate or its key was revoked.
func (r Revocations) checkCertificate(c *x509.Certificate) error {
	for _, what := range []Revoked{OfCertificate(c), OfKey(c.PublicKey)} {
		if err := r.Check(what); err != nil {
			return fmt.Errorf("%q: %w", signer.Name(c.Subject), err)
		}
	}
	return nil
}
