// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/ecdsa"
	"crypto/x509"
	"slices"
)

// Host is a kind of machine or program that checks signatures, and whether it
// can check those of one key.
type Host struct {
	Name   string `json:"name"`
	Takes  bool   `json:"takes"`
	Detail string `json:"detail,omitempty"`
}

// HostsFor says who can check what the certificate's key signs, together with
// the certificate itself.
func HostsFor(c *x509.Certificate) []Host {
	_, ec := c.PublicKey.(*ecdsa.PublicKey)
	ec = ec || slices.Contains([]x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}, c.SignatureAlgorithm)
	sha256 := c.SignatureAlgorithm == x509.SHA256WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA256
	debian := Host{Name: "stock Debian 12 kernel", Takes: true}
	ecdsa := Host{Name: "kernel with CRYPTO_ECDSA", Takes: true}
	firmware := Host{Name: "UEFI firmware", Takes: true, Detail: "of RSA, 2048 bits are sure to work"}
	programs := Host{Name: "tenon, mortise, cosign", Takes: true}
	hosts := []*Host{&debian, &ecdsa, &firmware, &programs}
	if ec {
		debian.Takes, debian.Detail = false, "built without CRYPTO_ECDSA"
		firmware.Takes, firmware.Detail = false, "takes RSA alone"
	} else if !sha256 {
		debian.Takes, debian.Detail = false, "SHA-256 alone is built in"
	}
	var out []Host
	for _, h := range hosts {
		if len(checkBasics(c)) > 0 { // a broken certificate, or no key for anyone
			h.Takes, h.Detail = false, checkBasics(c)[0]
		}
		out = append(out, *h)
	}
	return out
}
