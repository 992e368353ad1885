// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrProfile says that there is no profile of a name.
var ErrProfile = errors.New("unknown profile")

// Names of profiles.
const (
	Root         = "root"
	Intermediate = "intermediate"
	Release      = "release"
	Development  = "development"
)

// Profile is a kind of certificate. The kernel looks at no extension, so what
// makes a certificate and what judges one go by the same table.
type Profile struct {
	Name       string
	Days       int  // valid so long, unless otherwise asked for
	CA         bool // issues certificates; else it signs code
	PathLen    int  // of a CA: how many CAs there may be below it
	SelfSigned bool
}

// profiles is the table. The development profile is two certificates: a CA, and
// a leaf that differs from a release leaf in its issuer alone.
var profiles = []Profile{
	{Name: Root, Days: 3650, CA: true, PathLen: 1, SelfSigned: true},
	{Name: Intermediate, Days: 1825, CA: true},
	{Name: Release, Days: 90},
	{Name: Development, Days: 365, CA: true, SelfSigned: true},
	{Name: Development, Days: 365},
}

// ProfileNames are the names of the profiles.
func ProfileNames() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.Name)
	}
	return slices.Compact(names)
}

// ParseProfile returns the profile of that name; of development, the CA's. The
// error wraps ErrProfile.
func ParseProfile(name string) (Profile, error) {
	for _, p := range profiles {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("%w %q: have %s", ErrProfile, name, strings.Join(ProfileNames(), ", "))
}

// leaf is the profile of what signs below a CA of this profile.
func (p Profile) leaf() Profile {
	i := slices.IndexFunc(profiles, func(q Profile) bool { return !q.CA && (q.Name == Development) == (p.Name == Development) })
	return profiles[i]
}

// ProfileOf judges by its extensions what a certificate is meant to be. issuer
// is its issuer's certificate, if known, as it tells a development leaf.
func ProfileOf(c, issuer *x509.Certificate) Profile {
	switch {
	case !c.IsCA && issuer != nil:
		return ProfileOf(issuer, nil).leaf()
	case !c.IsCA:
		return Profile{Name: Root}.leaf()
	}
	self := selfIssued(c)
	i := slices.IndexFunc(profiles, func(p Profile) bool {
		return p.CA && p.SelfSigned == self && (!self || (p.PathLen == 0) == c.MaxPathLenZero)
	})
	return profiles[i]
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func (p Profile) usage() x509.KeyUsage {
	if p.CA {
		return x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	return x509.KeyUsageDigitalSignature
}

func (p Profile) extendedUsage() []x509.ExtKeyUsage {
	if p.CA {
		return nil
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
}

// apply puts the profile's extensions into a template.
func (p Profile) apply(c *x509.Certificate) {
	c.BasicConstraintsValid, c.IsCA = true, p.CA
	c.MaxPathLen, c.MaxPathLenZero = p.PathLen, p.CA && p.PathLen == 0
	c.KeyUsage, c.ExtKeyUsage = p.usage(), p.extendedUsage()
}

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// Check says in which ways a certificate differs from the profile, each in one
// line. Extensions that the profile does not have are right unless they are
// critical.
func (p Profile) Check(c *x509.Certificate) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	have := map[string]bool{}
	for _, e := range c.Extensions {
		have[e.Id.String()] = true
		must := e.Id.Equal(oidBasicConstraints) || e.Id.Equal(oidKeyUsage)
		switch {
		case must && !e.Critical:
			wrong("%s: not critical", extensionName(e.Id))
		case !must && e.Critical:
			wrong("%s: critical", extensionName(e.Id))
		}
	}
	missing := func(id asn1.ObjectIdentifier) bool {
		if !have[id.String()] {
			wrong("%s: missing", extensionName(id))
		}
		return !have[id.String()]
	}
	switch {
	case missing(oidBasicConstraints):
	case c.IsCA != p.CA:
		wrong("basic constraints: CA is %v, want %v", c.IsCA, p.CA)
	case p.CA && c.MaxPathLen != p.PathLen:
		wrong("basic constraints: path length %s, want %d", pathLength(c), p.PathLen)
	}
	if !missing(oidKeyUsage) && c.KeyUsage != p.usage() {
		wrong("key usage: %s, want %s", usageNames(c.KeyUsage), usageNames(p.usage()))
	}
	switch {
	case p.CA && have[oidExtendedKeyUsage.String()]:
		wrong("extended key usage: an authority has none")
	case p.CA || missing(oidExtendedKeyUsage):
	case !slices.Equal(c.ExtKeyUsage, p.extendedUsage()) || len(c.UnknownExtKeyUsage) > 0:
		wrong("extended key usage: not code signing alone")
	}
	missing(oidSubjectKeyID)
	if self := selfIssued(c); self != p.SelfSigned {
		wrong("issuer: names itself: %v, want %v", self, p.SelfSigned)
	} else if !self {
		missing(oidAuthorityKeyID)
	}
	return append(out, checkBasics(c)...)
}

// checkBasics says what is wrong with a certificate whatever its profile.
func checkBasics(c *x509.Certificate) []string {
	var out []string
	if c.Version != 3 {
		out = append(out, fmt.Sprintf("version %d, want 3", c.Version))
	}
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 159 { // RFC 5280, 4.1.2.2: 20 octets
		out = append(out, "serial number: not a positive number of at most 20 bytes")
	}
	if err := CheckKey(c.PublicKey); err != nil {
		out = append(out, err.Error())
	}
	if _, err := TBS(c); err != nil {
		out = append(out, fmt.Sprintf("signature algorithm: no kernel takes %s", c.SignatureAlgorithm))
	}
	if c.NotAfter.Before(c.NotBefore) {
		out = append(out, "validity: ends before it begins")
	}
	return out
}

// CheckIssuer says what is wrong with a certificate as one that issuer issued,
// each in one line.
func CheckIssuer(c, issuer *x509.Certificate) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	name := Name(issuer.Subject)
	switch {
	case !issuer.IsCA || issuer.KeyUsage&x509.KeyUsageCertSign == 0:
		wrong("issuer %q: not an authority", name)
	case c.CheckSignatureFrom(issuer) != nil:
		wrong("issuer %q: did not sign it", name)
	}
	if c.IsCA && !selfIssued(c) && (issuer.MaxPathLenZero || issuer.MaxPathLen > 0 && issuer.MaxPathLen <= c.MaxPathLen) {
		wrong("issuer %q: its path length of %s allows no such authority below it", name, pathLength(issuer))
	}
	if len(c.AuthorityKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId) {
		wrong("authority key identifier: not that of issuer %q", name)
	}
	if c.NotAfter.After(issuer.NotAfter) {
		wrong("validity: ends after that of issuer %q", name)
	}
	return out
}

func pathLength(c *x509.Certificate) string {
	if c.MaxPathLen < 0 || c.MaxPathLen == 0 && !c.MaxPathLenZero {
		return "unlimited"
	}
	return fmt.Sprint(c.MaxPathLen)
}

func extensionName(id asn1.ObjectIdentifier) string {
	switch {
	case id.Equal(oidSubjectKeyID):
		return "subject key identifier"
	case id.Equal(oidKeyUsage):
		return "key usage"
	case id.Equal(oidBasicConstraints):
		return "basic constraints"
	case id.Equal(oidAuthorityKeyID):
		return "authority key identifier"
	case id.Equal(oidExtendedKeyUsage):
		return "extended key usage"
	}
	return "extension " + id.String()
}

// usageNames writes a key usage as RFC 5280, 4.2.1.3 names it.
func usageNames(usage x509.KeyUsage) string {
	var names []string
	for i, name := range []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"} {
		if usage&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "+")
}
