// SPDX-License-Identifier: Apache-2.0

// Package testkey makes keys and certificates for tests: RSA-2048, which takes a
// tenth of the time of what signer.Create makes by default.
package testkey

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
)

// Authority issues certificates. Its chain is its own certificate, then those
// above it.
type Authority struct {
	Chain []*x509.Certificate
	key   *rsa.PrivateKey
}

// NewAuthority makes a root.
func NewAuthority(t testing.TB) *Authority {
	return (&Authority{}).issue(t, func(c *x509.Certificate) { authority(c); c.Subject.CommonName = "test root" })
}

// Intermediate makes an authority below a.
func (a *Authority) Intermediate(t testing.TB) *Authority {
	return a.issue(t, func(c *x509.Certificate) { authority(c); c.Subject.CommonName = "test intermediate" })
}

// Key makes a key that signs code, with its chain; edit may change its template.
func (a *Authority) Key(t testing.TB, edit func(*x509.Certificate)) *signer.Key {
	leaf := a.issue(t, func(c *x509.Certificate) {
		c.Subject.CommonName = "test signing"
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		if edit != nil {
			edit(c)
		}
	})
	return &signer.Key{Signer: leaf.key, Chain: leaf.Chain}
}

// Root is the certificate at the end of the chain.
func (a *Authority) Root() *x509.Certificate { return a.Chain[len(a.Chain)-1] }

func authority(c *x509.Certificate) {
	c.KeyUsage, c.IsCA = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true
}

func (a *Authority) issue(t testing.TB, edit func(*x509.Certificate)) *Authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{}, SignatureAlgorithm: x509.SHA256WithRSA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if c.SubjectKeyId, err = cryptoutils.SKID(key.Public()); err != nil {
		t.Fatal(err)
	}
	edit(c)
	parent, signing := c, key
	if a.key != nil {
		parent, signing = a.Chain[0], a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signing)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{append([]*x509.Certificate{cert}, a.Chain...), key}
}

// Created is a key in a file, with its chain, as signer.Create makes it.
func Created(t testing.TB, algorithm string) *signer.Key {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := signer.Create(dir, signer.CreateOptions{Name: "test", Valid: time.Hour, Algorithm: algorithm}); err != nil {
		t.Fatal(err)
	}
	key, err := signer.Open(context.Background(), filepath.Join(dir, "signing.key"), signer.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Write writes the key, its certificate alone, the root and the public key as
// PEM files signing.key, signing.crt, ca.crt and signing.pub into a directory.
func Write(t testing.TB, dir string, key *signer.Key) {
	t.Helper()
	private, err := cryptoutils.MarshalPrivateKeyToPEM(key.Signer)
	if err != nil {
		t.Fatal(err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"signing.key": private,
		"signing.pub": public,
		"signing.crt": cryptoutils.PEMEncode(cryptoutils.CertificatePEMType, key.Chain[0].Raw),
		"ca.crt":      cryptoutils.PEMEncode(cryptoutils.CertificatePEMType, key.Chain[len(key.Chain)-1].Raw),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
