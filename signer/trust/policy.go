// SPDX-License-Identifier: Apache-2.0

// Package trust judges who may sign for which bundle.
//
// In: a policy (policy.toml), the Signer that another package found by
// cryptography alone, and the time. Out: whether an identity of the policy
// trusts that signer, and why not. It opens nothing and knows no format of a
// signature. Refused: unknown keys, identities that are not exactly one of
// certificates and a public key, and everything that no identity allows: the
// empty policy accepts nothing.
//
//	version = 1
//
//	[[identity]]
//	name = "release CI"
//	certificates = "ca.pem"   # roots, or leaves; or: public_key = "signing.pub"
//	bundles = ["redis", "web-*"]
package trust

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
)

// MaxSize is the largest policy, in bytes.
const MaxSize = 1 << 20

// ErrInvalid says that a policy cannot be used.
var ErrInvalid = errors.New("invalid policy")

// What is not what was asked for.
var (
	ErrCertificate = errors.New("it holds a certificate, and a public key is wanted")
	ErrPublicKey   = errors.New("it holds a public key, and a certificate is wanted")
	ErrChain       = errors.New("it holds a chain, and who trusts the issuer trusts all that it issued")
)

// Policy says who may sign. The zero value trusts nobody.
type Policy struct {
	Identities []Identity
}

// Identity is somebody who may sign for some bundles, known by exactly one of
// Certificates and Key.
type Identity struct {
	Name         string
	Certificates []*x509.Certificate // authorities that issue to it, or its own
	Key          crypto.PublicKey    // its bare key: no certificate is judged
	Bundles      []string            // patterns (path.Match) of the bundles' names
}

// For returns the identities that may sign for the bundle of that name.
func (p *Policy) For(bundle string) []Identity {
	var found []Identity
	for _, i := range p.Identities {
		for _, pattern := range i.Bundles {
			if ok, err := path.Match(pattern, bundle); ok && err == nil {
				found = append(found, i)
				break
			}
		}
	}
	return found
}

// document is the form of a policy on disk.
type document struct {
	Version  int     `toml:"version"`
	Identity []entry `toml:"identity"`
}

type entry struct {
	Name         string   `toml:"name"`
	Certificates string   `toml:"certificates"`
	PublicKey    string   `toml:"public_key"`
	Bundles      []string `toml:"bundles"`
}

// Parse reads a policy. read returns the content of a file that it names, by its
// path as it stands there. Errors about what it found wrap ErrInvalid.
func Parse(data []byte, read func(path string) ([]byte, error)) (*Policy, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	var d document
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, tomlError(err))
	}
	if d.Version != 1 {
		return nil, fmt.Errorf("%w: version %d: this program reads version 1", ErrInvalid, d.Version)
	}
	p := &Policy{}
	seen := map[string]bool{}
	for n, e := range d.Identity {
		i, err := e.identity(read)
		if err == nil && seen[e.Name] {
			err = errors.New("another identity has that name")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: identity %d (%q): %w", ErrInvalid, n+1, e.Name, err)
		}
		seen[e.Name] = true
		p.Identities = append(p.Identities, i)
	}
	return p, nil
}

// tomlError names the line, and the key where it is unknown.
func tomlError(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		line, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return err
}

func (e *entry) identity(read func(string) ([]byte, error)) (Identity, error) {
	i := Identity{Name: e.Name, Bundles: e.Bundles}
	switch {
	case e.Name == "":
		return i, errors.New("name: empty")
	case (e.Certificates == "") == (e.PublicKey == ""):
		return i, errors.New("needs exactly one of certificates and public_key")
	case len(e.Bundles) == 0:
		return i, errors.New(`bundles: empty; "*" is every bundle`)
	}
	for _, pattern := range e.Bundles {
		if _, err := path.Match(pattern, ""); err != nil {
			return i, fmt.Errorf("bundles: %q: %w", pattern, err)
		}
	}
	file := e.Certificates + e.PublicKey
	data, err := read(file)
	if err == nil && e.Certificates != "" {
		i.Certificates, err = ParseCertificates(data)
	} else if err == nil {
		i.Key, err = ParseKey(data)
	}
	if err != nil {
		return i, fmt.Errorf("%q: %w", file, err)
	}
	return i, nil
}

// ParseKey reads a public key, PEM. Only keys that can make all signatures of a
// bundle are taken.
func ParseKey(data []byte) (crypto.PublicKey, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == "CERTIFICATE" {
		return nil, ErrCertificate
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(data)
	if err != nil {
		return nil, errors.New("no public key in PEM form")
	}
	return key, signer.CheckKey(key)
}

// ParseCertificates reads certificates to be trusted, PEM: authorities, or
// leaves. A leaf with its authority is refused: whoever means the leaf does not
// mean all that the authority issued.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if block, _ := pem.Decode(data); block != nil && strings.HasSuffix(block.Type, "PUBLIC KEY") {
		return nil, ErrPublicKey
	}
	certs, err := signer.ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		for _, issuer := range certs {
			if !c.Equal(issuer) && c.CheckSignatureFrom(issuer) == nil {
				return nil, fmt.Errorf("%w: %q issued %q", ErrChain, signer.Name(issuer.Subject), signer.Name(c.Subject))
			}
		}
	}
	return certs, nil
}
