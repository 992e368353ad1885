// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// newKey makes a key that takes no time to make.
func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := generate("ecdsa-p256")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify makes a certificate by a profile, below issuer if there is one.
func certify(t *testing.T, p Profile, issuer *Key) *Key {
	t.Helper()
	key := &Key{Signer: newKey(t)}
	by := issuer
	if by == nil {
		by = &Key{Signer: key.Signer}
	}
	name := "test " + p.Name
	if !p.CA {
		name += " leaf"
	}
	c, err := issue(request{Subject: pkix.Name{CommonName: name}, Profile: p, Valid: time.Hour, Key: key.Public()}, by, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key.Chain = append([]*x509.Certificate{c}, by.Chain...)
	return key
}

func mustProfile(t *testing.T, name string) Profile {
	t.Helper()
	p, err := ParseProfile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each certificate is what it was made as, and nothing else.
func TestProfiles(t *testing.T) {
	root := certify(t, mustProfile(t, Root), nil)
	intermediate := certify(t, mustProfile(t, Intermediate), root)
	development := certify(t, mustProfile(t, Development), nil)
	for _, test := range []struct {
		key  *Key
		want Profile
	}{
		{root, Profile{Root, 3650, true, 1, true}},
		{intermediate, Profile{Intermediate, 1825, true, 0, false}},
		{certify(t, mustProfile(t, Release), intermediate), Profile{Release, 90, false, 0, false}},
		{development, Profile{Development, 365, true, 0, true}},
		{certify(t, mustProfile(t, Development).leaf(), development), Profile{Development, 365, false, 0, false}},
	} {
		var issuer *x509.Certificate
		if len(test.key.Chain) > 1 {
			issuer = test.key.Chain[1]
		}
		c := test.key.Chain[0]
		if got := ProfileOf(c, issuer); got != test.want {
			t.Errorf("%s: judged as %+v", test.want.Name, got)
		}
		for _, p := range profiles {
			wrong := p.Check(c)
			same := p.CA == test.want.CA && p.PathLen == test.want.PathLen && p.SelfSigned == test.want.SelfSigned
			if same != (len(wrong) == 0) {
				t.Errorf("%s as %+v: %q", test.want.Name, p, wrong)
			}
		}
	}
}

// forge makes a certificate by a profile, but for what edit changes.
func forge(t *testing.T, p Profile, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), SubjectKeyId: []byte{1}, Subject: pkix.Name{CommonName: "forged"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	p.apply(c)
	parent, signing := c, key
	if !p.SelfSigned {
		parent, signing = &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}, SubjectKeyId: []byte{2}}, newKey(t)
	}
	edit(c)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signing)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// extension is one that CreateCertificate does not make, or makes otherwise.
func extension(t *testing.T, id asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Critical: critical, Value: der}
}

func TestProfileNamesWhatIsWrong(t *testing.T) {
	extra := func(e pkix.Extension) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) }
	}
	usage := extension(t, oidKeyUsage, false, asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	for _, test := range []struct {
		name, profile string
		edit          func(*x509.Certificate)
		want          string // the one problem; none when empty
	}{
		{"right", Root, func(*x509.Certificate) {}, ""},
		{"right", Intermediate, func(*x509.Certificate) {}, ""},
		{"right", Release, func(*x509.Certificate) {}, ""},
		{"another extension", Release, extra(extension(t, asn1.ObjectIdentifier{1, 2, 3}, false, 1)), ""},
		{"another critical extension", Release, extra(extension(t, asn1.ObjectIdentifier{1, 2, 3}, true, 1)), "extension 1.2.3: critical"},

		{"no basic constraints", Release, func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "basic constraints: missing"},
		{"basic constraints that are not critical", Release, extra(extension(t, oidBasicConstraints, false, struct{}{})), "basic constraints: not critical"},
		{"a leaf that is a CA", Release, func(c *x509.Certificate) { c.IsCA = true }, "basic constraints: CA is true, want false"},
		{"a CA that is none", Intermediate, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }, "basic constraints: CA is false, want true"},
		{"an unlimited path", Intermediate, func(c *x509.Certificate) { c.MaxPathLenZero = false }, "basic constraints: path length unlimited, want 0"},
		{"a long path", Root, func(c *x509.Certificate) { c.MaxPathLen = 2 }, "basic constraints: path length 2, want 1"},

		{"no key usage", Release, func(c *x509.Certificate) { c.KeyUsage = 0 }, "key usage: missing"},
		{"a leaf for TLS", Release, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }, "key usage: digitalSignature+keyEncipherment, want digitalSignature"},
		{"a leaf that may issue", Release, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, "key usage: keyCertSign, want digitalSignature"},
		{"a CA that may not revoke", Root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, "key usage: keyCertSign, want keyCertSign+cRLSign"},
		{"a CA that signs code", Intermediate, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature }, "key usage: digitalSignature+keyCertSign+cRLSign, want keyCertSign+cRLSign"},
		{"key usage that is not critical", Release, func(c *x509.Certificate) { c.KeyUsage = 0; c.ExtraExtensions = []pkix.Extension{usage} }, "key usage: not critical"},

		{"no extended key usage", Release, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "extended key usage: missing"},
		{"for servers", Release, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "extended key usage: not code signing alone"},
		{"also for servers", Release, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }, "extended key usage: not code signing alone"},
		{"also for something unknown", Release, func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, "extended key usage: not code signing alone"},
		{"a CA with an extended key usage", Root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "extended key usage: an authority has none"},
		{"critical extended key usage", Release, func(c *x509.Certificate) {
			c.ExtKeyUsage = nil
			c.ExtraExtensions = []pkix.Extension{extension(t, oidExtendedKeyUsage, true, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}})}
		}, "extended key usage: critical"},

		{"no subject key identifier", Release, func(c *x509.Certificate) { c.SubjectKeyId = nil }, "subject key identifier: missing"},
		{"a name that is the issuer's", Release, func(c *x509.Certificate) { c.Subject.CommonName = "issuer" }, "issuer: names itself: true, want false"},
		{"a long serial number", Release, func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 159) }, "serial number: not a positive number of at most 20 bytes"},
		{"ends before it begins", Release, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) }, "validity: ends before it begins"},
	} {
		p := mustProfile(t, test.profile)
		var want []string
		if test.want != "" {
			want = []string{test.want}
		}
		if got := p.Check(forge(t, p, test.edit)); !slices.Equal(got, want) {
			t.Errorf("%s %s: got %q, want %q", test.profile, test.name, got, want)
		}
	}
}

func TestParseProfile(t *testing.T) {
	if _, err := ParseProfile("leaf"); !errors.Is(err, ErrProfile) || !strings.HasSuffix(err.Error(), "have root, intermediate, release, development") {
		t.Errorf("got %v", err)
	}
}

func TestCheckIssuer(t *testing.T) {
	root := certify(t, mustProfile(t, Root), nil)
	other := certify(t, mustProfile(t, Root), nil)
	intermediate := certify(t, mustProfile(t, Intermediate), root)
	leaf := certify(t, mustProfile(t, Release), intermediate)
	for _, test := range []struct {
		name      string
		c, issuer *x509.Certificate
		want      []string
	}{
		{"right", leaf.Chain[0], intermediate.Chain[0], nil},
		{"a CA below a CA", intermediate.Chain[0], root.Chain[0], nil},
		{"another's", intermediate.Chain[0], other.Chain[0], []string{`issuer "CN=test root": did not sign it`, `authority key identifier: not that of issuer "CN=test root"`}},
		{"a leaf as issuer", intermediate.Chain[0], leaf.Chain[0], []string{`issuer "CN=test release leaf": not an authority`, `authority key identifier: not that of issuer "CN=test release leaf"`}},
	} {
		if got := CheckIssuer(test.c, test.issuer); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestHosts(t *testing.T) {
	takes := func(c *x509.Certificate) string {
		var out []string
		for _, h := range HostsFor(c) {
			if h.Takes {
				out = append(out, h.Name)
			} else if h.Detail == "" {
				t.Errorf("%s: no reason", h.Name)
			}
		}
		return strings.Join(out, "; ")
	}
	dir := newDir(t)
	chain, err := ParseCertificates(read(t, dir, "signing.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := takes(chain[0]); got != "stock Debian 12 kernel; kernel with CRYPTO_ECDSA; UEFI firmware; tenon, mortise, cosign" {
		t.Errorf("RSA: %s", got)
	}
	if got := takes(certify(t, mustProfile(t, Root), nil).Chain[0]); got != "kernel with CRYPTO_ECDSA; tenon, mortise, cosign" {
		t.Errorf("ECDSA: %s", got)
	}
	sha1 := *chain[0]
	sha1.SignatureAlgorithm = x509.SHA1WithRSA
	if got := takes(&sha1); got != "" {
		t.Errorf("SHA-1: %s", got)
	}
	pss := *chain[0]
	pss.SignatureAlgorithm = x509.SHA256WithRSAPSS
	if got := takes(&pss); got != "" {
		t.Errorf("PSS: %s", got)
	}
	sha512 := *chain[0]
	sha512.SignatureAlgorithm = x509.SHA512WithRSA
	if got := takes(&sha512); got != "kernel with CRYPTO_ECDSA; UEFI firmware; tenon, mortise, cosign" {
		t.Errorf("SHA-512: %s", got)
	}
}
