// SPDX-License-Identifier: Apache-2.0

// Package trust judges who may sign for which bundle.
//
// In: a policy (policy.toml), the Signer that another package found by
// cryptography alone, what a bundle says of itself, what was revoked, and the
// time. Out: whether the policy takes the bundle, whether an identity of it trusts
// that signer, and why not. It opens nothing and knows no format of a signature.
// Refused: unknown keys, identities that are not exactly one of certificates and a
// public key, and everything that no identity allows: the empty policy accepts
// nothing.
//
//	version = 1
//
//	[[identity]]
//	name = "release CI"
//	certificates = "ca.pem"   # roots, or leaves; or: public_key = "signing.pub"
//	bundles = ["redis", "web-*"]
package trust

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/mod/semver"
)

// ErrOld says that a bundle is of an older version than is accepted.
var ErrOld = errors.New("too old")

// Policy says who may sign. The zero value trusts nobody.
type Policy struct {
	Identities []Identity
	Rules      []Rule
	References []Reference
	Revocation *Revocation // nil: nothing is revoked
}

// Identity is somebody who may sign for some bundles, known by exactly one of
// Certificates and Key.
type Identity struct {
	Name         string
	Certificates []*x509.Certificate // authorities that issue to it, or its own
	Key          crypto.PublicKey    // its bare key: no certificate is judged
	Bundles      []string            // patterns (path.Match) of the bundles' names
	Claims       Claims              // that its bundles may make

	// What a certificate must have beside being for code signing, and how long
	// after NotAfter it still counts.
	Subject string // of the leaf, as RFC 4514 writes it; empty: any
	Usages  []x509.OID
	Grace   time.Duration
}

// Claims are the most that a bundle may claim.
type Claims struct {
	CPUs    int64    // 0: any number
	Memory  int64    // bytes; 0: any
	Devices []string // kinds; nil: any
}

// Rule is what holds for bundles of some names, whoever signed them.
type Rule struct {
	Bundles        []string // patterns, as in Identity
	Threshold      int      // how many identities must have signed
	MinimumVersion string   // semantic version; empty: any
}

// Revocation says which list of revocations holds. Whoever reads it judges it.
type Revocation struct {
	List   []byte // the file
	Signer Identity
	MaxAge time.Duration
}

// Bundle is what a bundle says of itself.
type Bundle struct {
	Name    string
	CPUs    int64    // the most that it claims
	Memory  int64    // the most that it claims, in bytes
	Devices []string // kinds that it claims
}

// For returns the identities that may sign for the bundle, and why others that may
// sign for its name may not.
func (p *Policy) For(b Bundle) (may []Identity, why []string) {
	for _, i := range p.Identities {
		if !matches(i.Bundles, b.Name) {
			continue
		}
		if err := i.Claims.check(b); err != nil {
			why = append(why, fmt.Sprintf("%q may not sign for it: %s", i.Name, err))
			continue
		}
		may = append(may, i)
	}
	return may, why
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

func (c *Claims) check(b Bundle) error {
	switch {
	case c.CPUs > 0 && b.CPUs > c.CPUs:
		return fmt.Errorf("it claims up to %d CPUs, at most %d are allowed", b.CPUs, c.CPUs)
	case c.Memory > 0 && b.Memory > c.Memory:
		return fmt.Errorf("it claims up to %d bytes of memory, at most %d are allowed", b.Memory, c.Memory)
	}
	for _, kind := range b.Devices {
		if c.Devices != nil && !slices.Contains(c.Devices, kind) {
			return fmt.Errorf("it claims a device of the kind %q, allowed are %q", kind, c.Devices)
		}
	}
	return nil
}

// Rule returns what holds for the bundles of a name: the strictest of each.
func (p *Policy) Rule(name string) Rule {
	strictest := Rule{Bundles: []string{name}, Threshold: 1}
	for _, r := range p.Rules {
		if matches(r.Bundles, name) {
			strictest.Threshold = max(strictest.Threshold, r.Threshold)
			if Older(strictest.MinimumVersion, r.MinimumVersion) {
				strictest.MinimumVersion = r.MinimumVersion
			}
		}
	}
	return strictest
}

// CheckVersion says whether the rule accepts a version. The error wraps ErrOld.
func (r Rule) CheckVersion(version string) error {
	if Older(version, r.MinimumVersion) {
		return fmt.Errorf("version %q is %w: the policy wants at least %q", version, ErrOld, r.MinimumVersion)
	}
	return nil
}

// Older compares two semantic versions. The empty one is older than all others.
func Older(a, b string) bool { return semver.Compare("v"+a, "v"+b) < 0 }
