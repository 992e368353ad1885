// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// ErrAlgorithm says that keys are not made with an algorithm.
var ErrAlgorithm = errors.New("unknown algorithm")

// ErrKey says that a key is of a kind that is not used here.
var ErrKey = errors.New("only RSA of 2048 to 4096 bits, and ECDSA with P-256 or P-384, are used")

// DefaultAlgorithm is what a stock kernel takes, and NIST's choice beyond 2030.
const DefaultAlgorithm = "rsa-3072"

// algorithms are those that keys are made with, by the names that AlgorithmOf
// gives them.
var algorithms = []struct {
	name     string
	generate func() (crypto.Signer, error)
}{
	{"rsa-2048", generateRSA(2048)},
	{DefaultAlgorithm, generateRSA(3072)},
	{"rsa-4096", generateRSA(4096)},
	{"ecdsa-p256", generateECDSA(elliptic.P256())},
	{"ecdsa-p384", generateECDSA(elliptic.P384())},
}

func generateRSA(bits int) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
}

func generateECDSA(curve elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
}

// Algorithms are the names that CheckAlgorithm takes.
func Algorithms() []string {
	var names []string
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

// CheckAlgorithm says whether keys are made with the algorithm. The error wraps
// ErrAlgorithm.
func CheckAlgorithm(name string) error {
	for _, a := range algorithms {
		if a.name == name {
			return nil
		}
	}
	return fmt.Errorf("%w %q: have %s", ErrAlgorithm, name, strings.Join(Algorithms(), ", "))
}

// generate makes a key.
func generate(algorithm string) (crypto.Signer, error) {
	for _, a := range algorithms {
		if a.name == algorithm {
			return a.generate()
		}
	}
	return nil, CheckAlgorithm(algorithm)
}

// AlgorithmOf names a key's algorithm and size, such as "rsa-3072", also where
// keys are not made with it.
func AlgorithmOf(key crypto.PublicKey) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa-%d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ecdsa-" + strings.ToLower(strings.Replace(key.Curve.Params().Name, "-", "", 1))
	case ed25519.PublicKey:
		return "ed25519"
	}
	return "unknown"
}

// signatureAlgorithm is how a key signs certificates: always with SHA-256, which
// every host has.
func signatureAlgorithm(key crypto.PublicKey) x509.SignatureAlgorithm {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return x509.ECDSAWithSHA256
	}
	return x509.SHA256WithRSA
}

// CheckKey says whether a key is used here, for certificates and for signatures:
// RSA of 2048 to 4096 bits, ECDSA with P-256 or P-384. The error wraps ErrKey.
func CheckKey(key crypto.PublicKey) error {
	if ec, ok := key.(*ecdsa.PublicKey); ok && (ec.Curve == elliptic.P256() || ec.Curve == elliptic.P384()) {
		return nil
	}
	if pub, ok := key.(*rsa.PublicKey); ok && pub.N.BitLen() >= 2048 && pub.N.BitLen() <= 4096 {
		return nil
	}
	return fmt.Errorf("key of %s: %w", AlgorithmOf(key), ErrKey)
}
