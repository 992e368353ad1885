// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/tenon-build/tenon/signer"
)

// KernelLine is what a kernel's blacklist keyring takes to refuse a certificate,
// and what it issued: "tbs:" and the digest of its TBSCertificate, by the hash
// that its own signature has, in hex. SYSTEM_BLACKLIST_HASH_LIST takes it at
// build time, SYSTEM_BLACKLIST_AUTH_UPDATE, signed, at run time.
func KernelLine(c *x509.Certificate) (string, error) {
	hash, ok := map[x509.SignatureAlgorithm]crypto.Hash{
		x509.SHA256WithRSA: crypto.SHA256, x509.ECDSAWithSHA256: crypto.SHA256,
		x509.SHA384WithRSA: crypto.SHA384, x509.ECDSAWithSHA384: crypto.SHA384,
		x509.SHA512WithRSA: crypto.SHA512, x509.ECDSAWithSHA512: crypto.SHA512,
	}[c.SignatureAlgorithm]
	if !ok {
		return "", fmt.Errorf("certificate %q is signed with %s, which kernels do not take", signer.Name(c.Subject), c.SignatureAlgorithm)
	}
	h := hash.New()
	h.Write(c.RawTBSCertificate)
	return "tbs:" + hex.EncodeToString(h.Sum(nil)), nil
}
