// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// TBS names a certificate as the kernel's blacklist keyring does: "tbs:" and the
// digest of its TBSCertificate in lower-case hex (certs/blacklist.c). The digest
// is of the kind that the certificate's own signature uses
// (crypto/asymmetric_keys/x509_public_key.c).
func TBS(c *x509.Certificate) (string, error) {
	var hash crypto.Hash
	switch c.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	default:
		return "", fmt.Errorf("certificate %q: no kernel takes its signature algorithm, %s", Name(c.Subject), c.SignatureAlgorithm)
	}
	h := hash.New()
	h.Write(c.RawTBSCertificate)
	return "tbs:" + hex.EncodeToString(h.Sum(nil)), nil
}
