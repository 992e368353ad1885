// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// want fails unless err says what is wanted, in one line; nothing wanted is no
// error.
func want(t *testing.T, name string, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && (!strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("%s: got %v, want %q", name, err, text)
	}
}

func TestSubjectAndUsages(t *testing.T) {
	root := testkey.NewAuthority(t)
	lifetime := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 10, 3, 13}
	leaf := of(root.Key(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{Organization: []string{"Example, Inc."}, CommonName: "release"}
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{lifetime}
	}))
	// x509 shows the last of several common names alone.
	two := of(root.Key(t, func(c *x509.Certificate) {
		cn := asn1.ObjectIdentifier{2, 5, 4, 3}
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: cn, Value: "evil"}, {Type: cn, Value: "release"}}}
	}))
	const subject = `CN=release,O=Example\, Inc.`
	for _, test := range []struct {
		name, subject, usage, want string
	}{
		{"none wanted", "", "", ""},
		{"the subject", subject, "", ""},
		{"another subject", "CN=release", "", `certificate "CN=release,O=Example\\, Inc." has not the subject "CN=release"`},
		{"a usage beyond code signing", "", lifetime.String(), ""},
		{"code signing itself", "", "1.3.6.1.5.5.7.3.3", ""},
		{"another usage", "", "1.3.6.1.5.5.7.3.1", "has not the extended key usage 1.3.6.1.5.5.7.3.1"},
	} {
		i := Identity{Certificates: []*x509.Certificate{root.Root()}, Subject: test.subject}
		if test.usage != "" {
			oid, err := x509.ParseOID(test.usage)
			if err != nil {
				t.Fatal(err)
			}
			i.Usages = []x509.OID{oid}
		}
		want(t, test.name, i.CheckSigner(leaf, nil, time.Now()), test.want)
	}
	i := Identity{Certificates: []*x509.Certificate{root.Root()}, Subject: "CN=release"}
	want(t, "two common names", i.CheckSigner(two, nil, time.Now()), "has not the subject")
}

func TestGrace(t *testing.T) {
	now := time.Now()
	root := testkey.NewAuthority(t) // valid for an hour from now
	short := of(root.Key(t, func(c *x509.Certificate) { c.NotAfter = now.Add(time.Minute) }))
	long := of(root.Key(t, func(c *x509.Certificate) { c.NotAfter = now.Add(9 * time.Hour) }))
	young := of(root.Key(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(2*time.Hour), now.Add(9*time.Hour) }))
	for _, test := range []struct {
		name       string
		signer     *signer.Signer
		grace, at  time.Duration
		want, late string
	}{
		{"valid", short, time.Hour, 0, "", ""},
		{"leaf in its grace", short, 10 * time.Minute, 5 * time.Minute, "", `"CN=test signing" expired`},
		{"leaf at the end of its grace", short, 10 * time.Minute, 10*time.Minute + 50*time.Second, "", `"CN=test signing" expired`},
		{"leaf after its grace", short, 10 * time.Minute, 12 * time.Minute, `"CN=test signing" expired`, ""},
		{"no grace", short, 0, 2 * time.Minute, `"CN=test signing" expired`, ""},
		{"before it is valid", short, 10 * time.Hour, -2 * time.Hour, "not valid before", ""},
		{"root in its grace", long, 2 * time.Hour, 2 * time.Hour, "", `"CN=test root" expired`},
		{"root after its grace", long, 30 * time.Minute, 2 * time.Hour, `"CN=test root" expired`, ""},
		{"both in their grace", short, 2 * time.Hour, 2 * time.Hour, "", "expired"},
		{"leaf that its root did not live to see", young, 9 * time.Hour, 3 * time.Hour, "not yet valid", ""},
	} {
		i := Identity{Name: "x", Certificates: []*x509.Certificate{root.Root()}, Grace: test.grace}
		at := now.Add(test.at)
		err := i.CheckSigner(test.signer, nil, at)
		want(t, test.name, err, test.want)
		if err == nil {
			want(t, test.name, i.CheckGrace(test.signer, at), test.late)
		}
	}
}

// Whatever is revoked of what a signature hangs on, it does not count.
func TestRevoked(t *testing.T) {
	root, other := testkey.NewAuthority(t), testkey.NewAuthority(t)
	middle := root.Intermediate(t)
	s := of(middle.Key(t, nil))
	shipped := &signer.Signer{Key: s.Key, Chain: s.Chain[:2]} // as in a PKCS#7
	leaf, issuer, top := s.Chain[0], s.Chain[1], s.Chain[2]
	byRoot, byIssuer, byKey := Identity{Certificates: []*x509.Certificate{top}}, Identity{Certificates: []*x509.Certificate{issuer}}, Identity{Key: s.Key}
	for _, test := range []struct {
		name     string
		identity Identity
		signer   *signer.Signer
		revoked  Revoked
		want     string
	}{
		{"nothing that matters", byRoot, shipped, OfCertificate(other.Root()), ""},
		{"leaf", byRoot, shipped, OfCertificate(leaf), `"CN=test signing": certificate sha256:`},
		{"leaf's key", byRoot, shipped, OfKey(leaf.PublicKey), "key sha256:"},
		{"intermediate", byRoot, shipped, OfCertificate(issuer), `"CN=test intermediate": certificate sha256:`},
		{"intermediate's key", byRoot, shipped, OfKey(issuer.PublicKey), `"CN=test intermediate": key sha256:`},
		{"root that is not shipped", byRoot, shipped, OfCertificate(top), `"CN=test root": certificate sha256:`},
		{"root's key", byRoot, shipped, OfKey(top.PublicKey), `"CN=test root": key sha256:`},
		{"intermediate that the policy names", byIssuer, &signer.Signer{Key: s.Key, Chain: s.Chain[:1]}, OfCertificate(issuer), `"CN=test intermediate": certificate`},
		{"root above what the policy names", byIssuer, shipped, OfCertificate(top), ""},
		{"key of a bare key", byKey, &signer.Signer{Key: s.Key}, OfKey(s.Key), "key sha256:"},
		{"certificate around a bare key", byKey, shipped, OfCertificate(leaf), `"CN=test signing": certificate`},
		{"a key's digest as a bundle's", byRoot, shipped, OfBundle(OfKey(s.Key).Digest), ""},
	} {
		test.revoked.Reason, test.revoked.Date = "lost", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		err := test.identity.CheckSigner(test.signer, Revocations{test.revoked}, time.Now())
		want(t, test.name, err, test.want)
		if err != nil && (!errors.Is(err, ErrRevoked) || !strings.HasSuffix(err.Error(), "was revoked on 2026-01-02: lost")) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestClaims(t *testing.T) {
	limited := Identity{Name: "ci", Bundles: []string{"web"}, Claims: Claims{CPUs: 4, Memory: 1 << 30, Devices: []string{}}}
	p := &Policy{Identities: []Identity{limited, {Name: "all", Bundles: []string{"web"}}}}
	for _, test := range []struct {
		name, want string
		bundle     Bundle
	}{
		{"as much as it may", "", Bundle{CPUs: 4, Memory: 1 << 30}},
		{"a CPU more", "it claims up to 5 CPUs, at most 4 are allowed", Bundle{CPUs: 5, Memory: 1}},
		{"a byte more", "it claims up to 1073741825 bytes of memory", Bundle{CPUs: 1, Memory: 1<<30 + 1}},
		{"a device", `it claims a device of the kind "net", allowed are []`, Bundle{CPUs: 1, Memory: 1, Devices: []string{"net"}}},
	} {
		test.bundle.Name = "web"
		may, why := p.For(test.bundle)
		if ok := test.want == ""; len(may) > 0 && may[0].Name == "ci" != ok || len(why) > 0 == ok || !ok && !strings.Contains(why[0], test.want) || may[len(may)-1].Name != "all" {
			t.Errorf("%s: %v, %q", test.name, may, why)
		}
	}
}

// Of rules that match one name the strictest of each counts.
func TestRule(t *testing.T) {
	p := &Policy{Rules: []Rule{
		{Bundles: []string{"*"}, Threshold: 2, MinimumVersion: "1.0.0"},
		{Bundles: []string{"web", "db"}, Threshold: 1, MinimumVersion: "1.10.0"},
		{Bundles: []string{"x"}, Threshold: 3},
	}}
	for name, wanted := range map[string]string{"web": "2 1.10.0", "x": "3 1.0.0", "y": "2 1.0.0"} {
		if r := p.Rule(name); fmt.Sprint(r.Threshold, " ", r.MinimumVersion) != wanted {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := new(Policy).Rule("web"); r.Threshold != 1 || r.CheckVersion("") != nil {
		t.Errorf("no rules: %+v", r)
	}
	for version, text := range map[string]string{
		"1.10.0": "", "1.11.0": "", "2.0.0-rc.1": "", "1.9.0": `version "1.9.0" is too old: the policy wants at least "1.10.0"`, "1.10.0-rc.1": "too old", "": `version "" is too old`,
	} {
		err := p.Rule("web").CheckVersion(version)
		want(t, version, err, text)
		if err != nil && !errors.Is(err, ErrOld) {
			t.Error(err)
		}
	}
}

// One key cannot stand for two identities.
func TestDistinct(t *testing.T) {
	for _, test := range []struct {
		keys string // of each identity
		want int
	}{
		{"", 0}, {"a", 1}, {"a|a", 1}, {"a|b", 2}, {"ab|a", 2}, {"a|ab", 2}, {"abc|a|a", 2}, {"a|a|abc", 2}, {"ab|ab|ab", 2}, {"ab|ac|bc", 3}, {"||a", 1},
	} {
		var keys [][]string
		for _, k := range strings.Split(test.keys, "|") {
			keys = append(keys, strings.Split(k, ""))
		}
		if got := Distinct(keys); got != test.want {
			t.Errorf("%q: got %d, want %d", test.keys, got, test.want)
		}
	}
}
