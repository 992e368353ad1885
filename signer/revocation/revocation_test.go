// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/pkcs7"
	"github.com/tenon-build/tenon/signer/trust"
)

const month = 30 * 24 * time.Hour

// fixture is a list with one entry, and who may sign it.
type fixture struct {
	key  *signer.Key
	team trust.Identity
	list *List
	data []byte
	now  time.Time
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	root := testkey.NewAuthority(t)
	f := fixture{key: root.Key(t, nil), team: trust.Identity{Name: "team", Certificates: []*x509.Certificate{root.Root()}}, now: time.Now()}
	stolen := trust.OfCertificate(testkey.NewAuthority(t).Root())
	stolen.Reason = "laptop <stolen>"
	f.list = (*List)(nil).Next(f.now, month, stolen)
	f.data = must(Sign(f.key, f.list))
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSignAndOpen(t *testing.T) {
	f := newFixture(t)
	if again := must(Sign(f.key, f.list)); !bytes.Equal(again, f.data) {
		t.Error("not deterministic")
	}
	l, err := Open(f.data, &f.team, nil, month, f.now)
	if err != nil || l.Number != 1 || len(l.Entries) != 1 || l.Entries[0] != f.list.Entries[0] || !l.Issued.Equal(f.now.Truncate(time.Second)) {
		t.Fatalf("%+v, %v", l, err)
	}
	bundle := trust.OfBundle("sha256:" + strings.Repeat("0", 64))
	bundle.Reason = "x"
	next := l.Next(f.now.Add(time.Minute), month, bundle)
	if next.Number != 2 || len(next.Entries) != 2 || len(l.Entries) != 1 || next.Entries[0] != l.Entries[0] {
		t.Errorf("%+v", next)
	}
	if _, err := Open(must(Sign(f.key, next)), &f.team, nil, month, f.now.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if l := (*List)(nil).Next(f.now, month); !bytes.Contains(must(l.encode()), []byte(`"entries": []`)) {
		t.Errorf("%+v", l)
	}
}

func TestOpenRefuses(t *testing.T) {
	f := newFixture(t)
	other := testkey.NewAuthority(t)
	end := bytes.Index(f.data, []byte("-----BEGIN"))
	text, signature := f.data[:end], f.data[end:]
	signed := func(text string) []byte { return join([]byte(text), must(pkcs7.SignDetached(f.key, []byte(text)))) }
	edit := func(old, with string) []byte { return signed(strings.Replace(string(text), old, with, 1)) }
	self := trust.OfKey(f.key.Public())
	self.Reason = "x"
	for _, test := range []struct {
		name, want string
		data       []byte
		at         time.Duration
	}{
		{"as it is", "", f.data, 0},
		{"nothing", "not signed", nil, 0},
		{"the list alone", "not signed", text, 0},
		{"the signature alone", "not signed", signature, 0},
		{"an empty signature", "PKCS#7", []byte(string(text) + "-----BEGIN PKCS7-----\n-----END PKCS7-----\n"), 0},
		{"a signature that does not end", "not in PEM form", f.data[:len(f.data)-5], 0},
		{"another list", "was not made by", append(bytes.Replace(text, []byte("laptop"), []byte("desktop"), 1), signature...), 0},
		{"two signatures", "more than the list and one signature", append(bytes.Clone(f.data), signature...), 0},
		{"text behind it", "more than the list", append(bytes.Clone(f.data), '\n'), 0},
		{"a header in the signature", "more than the list", bytes.Replace(f.data, []byte("PKCS7-----\n"), []byte("PKCS7-----\nA: b\n\n"), 1), 0},
		{"by somebody else", "unknown authority", must(Sign(other.Key(t, nil), f.list)), 0},
		{"by whom it revokes", "was revoked", signed(string(must(f.list.Next(f.now, month, self).encode()))), 0},
		{"not JSON", "invalid character", signed("x\n"), 0},
		{"no line break at its end", "not signed", signed(strings.TrimSuffix(string(text), "\n")), 0},
		{"other spaces", "not written as", edit("{\n", "{ \n"), 0},
		{"unknown field", "not written as", edit("{\n", "{\n  \"x\": 1,\n"), 0},
		{"field twice", "not written as", edit("{\n", "{\n  \"version\": 1,\n"), 0},
		{"field in another case", "not written as", edit(`"number"`, `"Number"`), 0},
		{"other version", "version 2", edit(`"version": 1`, `"version": 2`), 0},
		{"number 0", "number 0", edit(`"number": 1`, `"number": 0`), 0},
		{"number too large", "cannot unmarshal", edit(`"number": 1`, `"number": 99999999999999999999`), 0},
		{"unknown kind", `unknown kind "certificat"`, edit(`"certificate"`, `"certificat"`), 0},
		{"no digest", "not a sha256 digest", edit("sha256:", "sha512:"), 0},
		{"no reason", "reason", edit(`laptop \u003cstolen\u003e`, ""), 0},
		{"reason with a line break", "reason", edit("laptop", `lap\ntop`), 0},
		{"expired", "list 1 expired on", f.data, month + time.Hour},
		{"too old", "list 1 is older than 1000h0m0s", must(Sign(f.key, (*List)(nil).Next(f.now.Add(-1001*time.Hour), 2000*time.Hour))), 0},
		{"of the future", "list 1 is of the future", must(Sign(f.key, (*List)(nil).Next(f.now.Add(10*time.Minute), month))), 0},
		{"of a clock that is ahead", "", must(Sign(f.key, (*List)(nil).Next(f.now.Add(3*time.Minute), month))), 0},
		{"large", "larger", make([]byte, MaxSize+1), 0},
	} {
		team := f.team
		team.Grace = 2000 * time.Hour // the certificates live for an hour
		_, err := Open(test.data, &team, nil, 1000*time.Hour, f.now.Add(test.at))
		if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	f := newFixture(t)
	twice := f.list.Next(f.now, month, f.list.Entries[0])
	if _, err := Sign(f.key, twice); !errors.Is(err, ErrIssue) || !strings.HasSuffix(err.Error(), "is on the list already") {
		t.Errorf("twice: %v", err)
	}
	var many []trust.Revoked
	for i := range 6000 {
		e := trust.OfBundle("sha256:" + hex.EncodeToString(sha256.New().Sum([]byte{byte(i), byte(i >> 8)})[:32]))
		e.Reason = strings.Repeat("x", 200)
		many = append(many, e)
	}
	if _, err := Sign(f.key, f.list.Next(f.now, month, many...)); !errors.Is(err, ErrIssue) || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("too many: %v", err)
	}
	if _, err := Sign(f.key, f.list.Next(f.now, 0)); !errors.Is(err, ErrIssue) {
		t.Errorf("for no time: %v", err)
	}
	for _, itself := range []trust.Revoked{trust.OfKey(f.key.Public()), trust.OfCertificate(f.key.Chain[0]), trust.OfCertificate(f.key.Chain[1])} {
		itself.Reason = "lost"
		if _, err := Sign(f.key, f.list.Next(f.now, month, itself)); !errors.Is(err, ErrIssue) || !errors.Is(err, trust.ErrRevoked) {
			t.Errorf("%s of its own: %v", itself.Kind, err)
		}
	}
	if _, err := Sign(&signer.Key{Signer: f.key.Signer}, f.list); !errors.Is(err, signer.ErrNoCertificate) {
		t.Errorf("without a certificate: %v", err)
	}
}

// No byte can be another.
func TestEveryByte(t *testing.T) {
	f := newFixture(t)
	for i := range f.data {
		data := slices.Clone(f.data)
		data[i] ^= 1
		if _, err := Open(data, &f.team, nil, month, f.now); !errors.Is(err, ErrInvalid) {
			t.Errorf("byte %d: %v", i, err)
		}
		if _, err := Open(f.data[:i], &f.team, nil, month, f.now); !errors.Is(err, ErrInvalid) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// What is taken has a signer.
func FuzzParse(f *testing.F) {
	x := newFixture(f)
	f.Add(x.data)
	f.Add(join([]byte("{}\n"), must(pkcs7.SignDetached(x.key, []byte("{}\n")))))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, s, err := Parse(data)
		if err != nil && !errors.Is(err, ErrInvalid) || err == nil && (len(s.Chain) == 0 || l.check() != nil) {
			t.Errorf("%+v, %v", l, err)
		}
	})
}

// What is read is written in the same bytes, and can go on.
func FuzzDecode(f *testing.F) {
	f.Add(must(newFixture(f).list.encode()))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := decode(text)
		if err != nil {
			return
		}
		again, err := l.encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q became %q, %v", text, again, err)
		}
		if l.Number < 1 || !l.Expires.After(l.Issued) {
			t.Errorf("took %+v", l)
		}
	})
}
