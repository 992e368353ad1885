// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"golang.org/x/mod/semver"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/stricttoml"
)

// MaxSize is the largest policy, in bytes.
const MaxSize = 1 << 20

// maxAuthorities is how many certificates a file may hold: each is compared with each.
const maxAuthorities = 100

// ErrInvalid says that a policy cannot be used.
var ErrInvalid = errors.New("invalid policy")

// What is not what was asked for.
var (
	ErrCertificate = errors.New("it holds a certificate, and a public key is wanted")
	ErrPublicKey   = errors.New("it holds a public key, and a certificate is wanted")
	ErrChain       = errors.New("it holds a chain, and who trusts the issuer trusts all that it issued")
)

// document is the form of a policy on disk. What may be left out and limits
// something is a pointer: when it is there and empty, somebody's template failed.
// All keys are of lower case: package toml takes any (see package stricttoml).
type document struct {
	Version    int              `toml:"version"`
	Identity   []entry          `toml:"identity"`
	Bundle     []ruleEntry      `toml:"bundle"`
	Reference  []referenceEntry `toml:"reference"`
	Revocation *revocationEntry `toml:"revocation"`
}

type entry struct {
	Name         string      `toml:"name"`
	Certificates string      `toml:"certificates"`
	PublicKey    string      `toml:"public_key"`
	Subject      *string     `toml:"subject"`
	Usages       []string    `toml:"usages"`
	Grace        *string     `toml:"grace"`
	Bundles      []string    `toml:"bundles"`
	Claims       claimsEntry `toml:"claims"`
}

type claimsEntry struct {
	CPUs    *int64   `toml:"cpus"`
	Memory  *string  `toml:"memory"`
	Devices []string `toml:"devices"`
}

type ruleEntry struct {
	Names          []string `toml:"names"`
	Threshold      *int     `toml:"threshold"`
	MinimumVersion *string  `toml:"minimum_version"`
}

type referenceEntry struct {
	Repositories []string `toml:"repositories"`
	Names        []string `toml:"names"`
}

type revocationEntry struct {
	List   string `toml:"list"`
	Signer string `toml:"signer"`
	MaxAge string `toml:"max_age"`
}

// Parse reads a policy. read returns the content of a file that it names, by its
// path as it stands there. Errors about what it found wrap ErrInvalid.
func Parse(data []byte, read func(path string) ([]byte, error)) (*Policy, error) {
	p, err := parse(data, read)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}

func parse(data []byte, read func(path string) ([]byte, error)) (*Policy, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	var d document
	if err := stricttoml.Decode(data, &d); err != nil {
		return nil, err
	}
	if d.Version != 1 {
		return nil, fmt.Errorf("version %d: this program reads version 1", d.Version)
	}
	p := &Policy{}
	for n, e := range d.Identity {
		i, err := e.identity(read)
		switch {
		case err != nil:
		case p.identity(e.Name) != nil:
			err = errors.New("another identity has that name")
		case len(e.Bundles) == 0 && (d.Revocation == nil || d.Revocation.Signer != e.Name):
			err = errors.New(`bundles: empty; "*" is every bundle`)
		}
		if err != nil {
			return nil, fmt.Errorf("identity %d (%q): %w", n+1, e.Name, err)
		}
		p.Identities = append(p.Identities, i)
	}
	for n, e := range d.Bundle {
		r, err := e.rule()
		if err != nil {
			return nil, fmt.Errorf("bundle %d (%q): %w", n+1, e.Names, err)
		}
		p.Rules = append(p.Rules, r)
	}
	for n, e := range d.Reference {
		r, err := e.reference()
		if err != nil {
			return nil, fmt.Errorf("reference %d (%q): %w", n+1, e.Repositories, err)
		}
		p.References = append(p.References, r)
	}
	if d.Revocation != nil {
		var err error
		if p.Revocation, err = d.Revocation.revocation(p, read); err != nil {
			return nil, fmt.Errorf("revocation: %w", err)
		}
	}
	return p, nil
}

func (p *Policy) identity(name string) *Identity {
	if i := slices.IndexFunc(p.Identities, func(i Identity) bool { return i.Name == name }); i >= 0 {
		return &p.Identities[i]
	}
	return nil
}

func (e *entry) identity(read func(string) ([]byte, error)) (i Identity, err error) {
	i = Identity{Name: e.Name, Bundles: e.Bundles}
	switch {
	case e.Name == "":
		return i, errors.New("name: empty")
	case (e.Certificates == "") == (e.PublicKey == ""):
		return i, errors.New("needs exactly one of certificates and public_key")
	case e.PublicKey != "" && (e.Subject != nil || e.Usages != nil || e.Grace != nil):
		return i, errors.New("subject, usages and grace are about certificates, and it has a public_key")
	}
	if e.Subject != nil {
		if i.Subject = *e.Subject; i.Subject == "" {
			return i, errors.New("subject: empty")
		}
	}
	if err := checkPatterns(e.Bundles, "name of a bundle", isBundleName); len(e.Bundles) > 0 && err != nil {
		return i, fmt.Errorf("bundles: %w", err)
	}
	for _, u := range e.Usages {
		oid, err := x509.ParseOID(u)
		if err != nil {
			return i, fmt.Errorf("usages: %q is not an object identifier such as 1.3.6.1.5.5.7.3.3", u)
		}
		i.Usages = append(i.Usages, oid)
	}
	if e.Grace != nil {
		if i.Grace, err = duration(*e.Grace); err != nil {
			return i, fmt.Errorf("grace: %w", err)
		}
	}
	if i.Claims, err = e.Claims.claims(); err != nil {
		return i, fmt.Errorf("claims: %w", err)
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

// duration is positive, as time.ParseDuration reads it.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration such as 720h", s)
	}
	return d, nil
}

func (e *claimsEntry) claims() (Claims, error) {
	c := Claims{Devices: e.Devices}
	if e.CPUs != nil {
		if c.CPUs = *e.CPUs; c.CPUs < 1 {
			return c, fmt.Errorf("cpus: %d: must be at least 1", c.CPUs)
		}
	}
	if e.Memory != nil {
		n, err := units.RAMInBytes(*e.Memory)
		if err != nil || n < 1 {
			return c, fmt.Errorf("memory: %q is not a size such as 512MiB", *e.Memory)
		}
		c.Memory = n
	}
	return c, nil
}

func (e *ruleEntry) rule() (Rule, error) {
	r := Rule{Bundles: e.Names, Threshold: 1}
	if err := checkPatterns(e.Names, "name of a bundle", isBundleName); err != nil {
		return r, fmt.Errorf("names: %w", err)
	}
	if e.Threshold != nil {
		if r.Threshold = *e.Threshold; r.Threshold < 1 {
			return r, fmt.Errorf("threshold: %d: must be at least 1", r.Threshold)
		}
	}
	if e.MinimumVersion != nil {
		if r.MinimumVersion = *e.MinimumVersion; semver.Canonical("v"+r.MinimumVersion) != "v"+r.MinimumVersion {
			return r, fmt.Errorf("minimum_version: %q is not a semantic version such as 1.4.0", r.MinimumVersion)
		}
	}
	return r, nil
}

func (e *referenceEntry) reference() (Reference, error) {
	if err := checkPatterns(e.Repositories, "repository: want HOST/NAME, without a tag", isRepository); err != nil {
		return Reference{}, fmt.Errorf("repositories: %w", err)
	}
	if err := checkPatterns(e.Names, "name of a bundle", isBundleName); err != nil {
		return Reference{}, fmt.Errorf("names: %w", err)
	}
	return Reference{e.Repositories, e.Names}, nil
}

func (e *revocationEntry) revocation(p *Policy, read func(string) ([]byte, error)) (*Revocation, error) {
	by := p.identity(e.Signer)
	if by == nil {
		return nil, fmt.Errorf("signer: no identity has the name %q", e.Signer)
	}
	maxAge, err := duration(e.MaxAge)
	if err != nil {
		return nil, fmt.Errorf("max_age: %w", err)
	}
	if e.List == "" {
		return nil, errors.New("list: empty")
	}
	data, err := read(e.List)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", e.List, err)
	}
	return &Revocation{List: data, Signer: *by, MaxAge: maxAge}, nil
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
	if len(certs) > maxAuthorities {
		return nil, fmt.Errorf("%d certificates, want at most %d", len(certs), maxAuthorities)
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
