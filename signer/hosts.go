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
	hosts := []Host{
		{Name: "stock Debian 12 kernel", Takes: !ec && sha256},
		{Name: "kernel with CRYPTO_ECDSA", Takes: true},
		{Name: "UEFI firmware", Takes: !ec, Detail: "of RSA, 2048 bits are sure to work"},
		{Name: "tenon, mortise, cosign", Takes: true},
	}
	switch {
	case ec:
		hosts[0].Detail, hosts[2].Detail = "built without CRYPTO_ECDSA", "takes RSA alone"
	case !sha256:
		hosts[0].Detail = "SHA-256 alone is built in"
	}
	if wrong := checkBasics(c); len(wrong) > 0 { // a broken certificate, or no key for anyone
		for i := range hosts {
			hosts[i].Takes, hosts[i].Detail = false, wrong[0]
		}
	}
	return hosts
}
