// SPDX-License-Identifier: Apache-2.0

package pkcs7

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/trust"
)

var content = []byte{0x30, 0x03, 0x02, 0x01, 0x07}

type fixture struct {
	root *x509.Certificate
	key  *signer.Key // by way of an intermediate
}

func newFixture(t testing.TB) fixture {
	root := testkey.NewAuthority(t)
	return fixture{root.Root(), root.Intermediate(t).Key(t, nil)}
}

// device is a key of which nothing but crypto.Signer is known, as in a HSM.
type device struct{ crypto.Signer }

func (d device) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return d.Signer.Sign(r, digest, o)
}

func TestSignAndVerify(t *testing.T) {
	f := newFixture(t)
	f.key.Signer = device{f.key.Signer}
	for range 2 { // the same bytes each time
		attached, err := SignAttached(f.key, OIDIndirectData(), content)
		if err != nil {
			t.Fatal(err)
		}
		again, err := SignAttached(f.key, OIDIndirectData(), content)
		if err != nil || !bytes.Equal(attached, again) {
			t.Fatalf("not deterministic: %v", err)
		}
		got, s, err := VerifyAttached(attached, OIDIndirectData())
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("got %x, %v", got, err)
		}
		if len(s.Chain) != 2 || !s.Chain[0].Equal(f.key.Chain[0]) || !s.Chain[1].Equal(f.key.Chain[1]) {
			t.Errorf("the chain has %d certificates, want leaf and intermediate, without the root", len(s.Chain))
		}
		if signer.Fingerprint(s.Key) != signer.Fingerprint(f.key.Public()) {
			t.Error("another key")
		}
	}
	detached, err := SignDetached(f.key, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyDetached(detached, []byte("data")); err != nil {
		t.Error(err)
	}
	if _, err := VerifyDetached(detached, []byte("Data")); !errors.Is(err, ErrInvalid) {
		t.Errorf("other data: %v", err)
	}
	if _, _, err := VerifyAttached(detached, OIDIndirectData()); !errors.Is(err, ErrInvalid) {
		t.Errorf("one form passed as the other: %v", err)
	}
}

// Every byte of a signature counts, once the chain is judged too.
func TestEveryByte(t *testing.T) {
	f := newFixture(t)
	identity := trust.Identity{Name: "test", Certificates: []*x509.Certificate{f.root}}
	data := []byte("data")
	attached, err := SignAttached(f.key, OIDIndirectData(), content)
	if err != nil {
		t.Fatal(err)
	}
	detached, err := SignDetached(f.key, data)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string]struct {
		der    []byte
		verify func([]byte) (*signer.Signer, error)
	}{
		"attached": {attached, func(b []byte) (*signer.Signer, error) {
			_, s, err := VerifyAttached(b, OIDIndirectData())
			return s, err
		}},
		"detached": {detached, func(b []byte) (*signer.Signer, error) { return VerifyDetached(b, data) }},
	}
	for name, form := range forms {
		judge := func(b []byte) error {
			s, err := form.verify(b)
			if err != nil {
				return err
			}
			return identity.CheckSigner(s, nil, time.Now())
		}
		if err := judge(form.der); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range form.der {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				b := slices.Clone(form.der)
				b[i] ^= flip
				if judge(b) == nil {
					t.Errorf("%s: byte %d may be %#x instead of %#x", name, i, b[i], form.der[i])
				}
			}
		}
		for i := range form.der {
			if judge(form.der[:i]) == nil {
				t.Errorf("%s: passes when cut at %d", name, i)
			}
		}
		if judge(append(slices.Clone(form.der), 0)) == nil {
			t.Errorf("%s: passes with a byte behind it", name)
		}
	}
}

// forge makes a signature, of which edit changed the parts, around a message
// that the key really signed.
func forge(t *testing.T, key *signer.Key, edit func(*parts)) []byte {
	t.Helper()
	der, err := SignDetached(key, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	var p parts
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content parts `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	p = outer.Content
	edit(&p)
	outer.Content = p
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	return der
}

type parts struct {
	Version      int
	Algorithms   []asn1.RawValue `asn1:"set"`
	Content      asn1.RawValue
	Certificates []asn1.RawValue `asn1:"optional,tag:0,set"`
	CRLs         []asn1.RawValue `asn1:"optional,tag:1,set,omitempty"`
	Signers      []signerParts   `asn1:"set"`
}

type signerParts struct {
	Version         int
	ID              asn1.RawValue
	Digest          asn1.RawValue
	Attributes      []asn1.RawValue `asn1:"optional,tag:0,set,omitempty"`
	Algorithm       asn1.RawValue
	Signature       []byte
	Unauthenticated []asn1.RawValue `asn1:"optional,tag:1,set,omitempty"`
}

func raw(s string) asn1.RawValue { return asn1.RawValue{FullBytes: []byte(s)} }

func TestRefused(t *testing.T) {
	f := newFixture(t)
	other := testkey.NewAuthority(t)
	for _, test := range []struct {
		name, want string
		edit       func(*parts)
	}{
		{"nothing", "", func(*parts) {}},
		{"version", "version is not 1", func(p *parts) { p.Version = 3 }},
		{"two digest algorithms", "sha256 alone", func(p *parts) { p.Algorithms = append(p.Algorithms, p.Algorithms[0]) }},
		{"sha256 without NULL", "NULL", func(p *parts) {
			p.Algorithms[0] = raw("\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01")
		}},
		{"signer's version", "signer: the version", func(p *parts) { p.Signers[0].Version = 3 }},
		{"sha256WithRSAEncryption", "rsaEncryption", func(p *parts) {
			p.Signers[0].Algorithm = raw("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
		}},
		{"no signer", "no signer", func(p *parts) { p.Signers = nil }},
		{"two signers", "more than one signer", func(p *parts) { p.Signers = append(p.Signers, p.Signers[0]) }},
		{"no certificates", "no certificates", func(p *parts) { p.Certificates = nil }},
		{"leaf missing", "its certificate is not there", func(p *parts) { p.Certificates = []asn1.RawValue{raw(string(f.key.Chain[1].Raw))} }},
		{"unused certificate", "not in the chain", func(p *parts) { p.Certificates = append(p.Certificates, raw(string(other.Root().Raw))) }},
		{"certificate twice", "two certificates", func(p *parts) { p.Certificates = append(p.Certificates, raw(string(f.key.Chain[0].Raw))) }},
		{"with the root", "", func(p *parts) { p.Certificates = append(p.Certificates, raw(string(f.root.Raw))) }},
		{"revocation list", "revocation", func(p *parts) { p.CRLs = []asn1.RawValue{raw("\x30\x00")} }},
		{"unauthenticated attribute", "unauthenticated", func(p *parts) { p.Signers[0].Unauthenticated = []asn1.RawValue{raw("\x30\x00")} }},
		{"attributes where none are wanted", "authenticated attributes", func(p *parts) { p.Signers[0].Attributes = []asn1.RawValue{raw("\x30\x00")} }},
		{"content of its own", "content of its own", func(p *parts) {
			p.Content = raw("\x30\x0f" + oidData + "\xa0\x02\x04\x00")
		}},
		{"content type", "content type", func(p *parts) { p.Content = raw("\x30\x0b" + oidSignedData) }},
	} {
		_, err := VerifyDetached(forge(t, f.key, test.edit), []byte("data"))
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		} else if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := VerifyDetached(make([]byte, MaxSize+1), nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large: %v", err)
	}
}

func TestAttributes(t *testing.T) {
	stamp := attribute(oidSigningTime, []byte("\x17\x0d260101000000Z"))
	kind := attribute(oidContentType, []byte(oidData))
	digest := attribute(oidMessageDigest, append([]byte("\x04\x20"), make([]byte, 32)...))
	for _, test := range []struct {
		name, want string
		attrs      [][]byte
	}{
		{"the two", "", [][]byte{kind, digest}},
		{"all", "", [][]byte{kind, stamp, digest, attribute(oidOpusInfo, []byte("\x30\x00")), attribute(oidStatementType, []byte("\x30\x00"))}},
		{"no digest", "missing", [][]byte{kind}},
		{"no type", "missing", [][]byte{digest}},
		{"twice", "order", [][]byte{kind, digest, digest}},
		{"twice with two values", "twice", [][]byte{kind, digest, attribute(oidOpusInfo, []byte("\x30\x00")), attribute(oidOpusInfo, []byte("\x30\x02\x05\x00"))}},
		{"two values", "messageDigest", [][]byte{kind, attribute(oidMessageDigest, append(append([]byte("\x04\x20"), make([]byte, 32)...), "\x05\x00"...))}},
		{"no value", "contentType", [][]byte{digest, attribute(oidContentType, nil)}},
		{"other type", "contentType", [][]byte{digest, attribute(oidContentType, []byte(oidSignedData))}},
		{"bad time", "signingTime", [][]byte{kind, digest, attribute(oidSigningTime, []byte("\x17\x0d260141000000Z"))}},
		{"unknown", "unknown", [][]byte{kind, digest, attribute(oidData, []byte("\x05\x00"))}},
	} {
		slices.SortFunc(test.attrs, bytes.Compare)
		der, err := asn1.Marshal(asn1.RawValue{Class: 2, IsCompound: true, Bytes: bytes.Join(test.attrs, nil)})
		if err != nil {
			t.Fatal(err)
		}
		m := &message{}
		in := cryptobyte.String(der)
		err = m.parseAttributes(&in, oidData)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	f := newFixture(t)
	ec, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := testkey.NewAuthority(t).Key(t, nil)
	for name, key := range map[string]*signer.Key{
		"nil":                 nil,
		"no certificate":      {Signer: f.key.Signer},
		"P-521":               {Signer: ec, Chain: f.key.Chain},
		"another certificate": {Signer: other.Signer, Chain: f.key.Chain},
	} {
		if _, err := SignDetached(key, []byte("data")); err == nil {
			t.Errorf("%s: signed", name)
		}
		if _, err := SignAttached(key, OIDIndirectData(), content); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := SignAttached(f.key, OIDIndirectData(), []byte("data")); err == nil {
		t.Error("signed what is no SEQUENCE")
	}
}

// ECDSA keys sign as RSA keys do, the same each time.
func TestECDSA(t *testing.T) {
	for _, algorithm := range []string{"ecdsa-p256", "ecdsa-p384"} {
		key := testkey.Created(t, algorithm)
		attached, err := SignAttached(key, OIDIndirectData(), content)
		if err != nil {
			t.Fatal(err)
		}
		detached, err := SignDetached(key, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := SignDetached(key, []byte("data")); err != nil || !bytes.Equal(again, detached) {
			t.Errorf("%s: not deterministic: %v", algorithm, err)
		}
		if _, s, err := VerifyAttached(attached, OIDIndirectData()); err != nil || !s.Chain[0].Equal(key.Chain[0]) {
			t.Errorf("%s: got %v", algorithm, err)
		}
		if _, err := VerifyDetached(detached, []byte("Data")); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: other data: got %v", algorithm, err)
		}
		for i := range detached {
			mutant := bytes.Clone(detached)
			mutant[i] ^= 1
			if s, err := VerifyDetached(mutant, []byte("data")); err == nil && bytes.Equal(s.Chain[0].Raw, key.Chain[0].Raw) {
				t.Errorf("%s: byte %d may be another", algorithm, i)
			}
		}
	}
}

// A signature's algorithm is that of its key.
func TestAlgorithmOfKey(t *testing.T) {
	for _, algorithm := range []string{"ecdsa-p256", "rsa-2048"} {
		der, err := SignDetached(testkey.Created(t, algorithm), []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := parse(der, oidData, false)
		if err != nil {
			t.Fatal(err)
		}
		m.ecdsa = !m.ecdsa
		if _, err := m.verify([]byte("data")); err == nil {
			t.Errorf("%s: taken with the other's algorithm", algorithm)
		}
	}
}

// What the checker takes is DER, so that it cannot be said in other bytes.
func FuzzVerify(f *testing.F) {
	x := newFixture(f)
	attached, err := SignAttached(x.key, OIDIndirectData(), content)
	if err != nil {
		f.Fatal(err)
	}
	detached, err := SignDetached(x.key, []byte("data"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(attached)
	f.Add(detached)
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, s, err := VerifyAttached(der, OIDIndirectData()); err == nil && len(s.Chain) == 0 {
			t.Error("passes without a certificate")
		}
		if s, err := VerifyDetached(der, []byte("data")); err == nil && len(s.Chain) == 0 {
			t.Error("passes without a certificate")
		}
	})
}
