// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

const (
	digest = "sha256:18c7184755394602028986dcf149df13bfbac56b6ee0f7593aba086dae6c409d" // what cosign signed
	other  = "sha256:28c7184755394602028986dcf149df13bfbac56b6ee0f7593aba086dae6c409d"
)

func keysOf(k ...crypto.PublicKey) []crypto.PublicKey { return k }

func TestSignAndVerify(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	data, err := Sign(key, digest)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Sign(key, digest); err != nil || !bytes.Equal(data, again) {
		t.Errorf("not deterministic: %v", err)
	}
	s, err := Verify(data, digest, key.Chain, nil)
	if err != nil || len(s.Chain) != 2 || !s.Chain[0].Equal(key.Chain[0]) {
		t.Errorf("by its leaf: %v", err)
	}
	s, err = Verify(data, digest, nil, keysOf(key.Public()))
	if err != nil || s.Chain != nil || s.Key == nil {
		t.Errorf("by its key: %v", err)
	}
	if _, err := Verify(data, other, key.Chain, nil); !errors.Is(err, ErrDigest) {
		t.Errorf("another manifest: %v", err)
	}
	stranger := testkey.NewAuthority(t).Key(t, nil)
	if _, err := Verify(data, digest, stranger.Chain, keysOf(stranger.Public())); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Verify(data, digest, nil, nil); !errors.Is(err, ErrKey) {
		t.Errorf("no key: %v", err)
	}
	for _, bad := range []string{"", "sha256:12", "sha512:" + digest[7:], "sha256:" + strings.ToUpper(digest[7:])} {
		if _, err := Sign(key, bad); err == nil {
			t.Errorf("signed %q", bad)
		}
		if _, err := Verify(data, bad, key.Chain, nil); err == nil {
			t.Errorf("verified %q", bad)
		}
	}
}

func cosign(t testing.TB) ([]byte, crypto.PublicKey) {
	t.Helper()
	data, err := os.ReadFile("testdata/cosign-3.1.3.json")
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile("testdata/cosign-3.1.3.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return data, key
}

func TestCosign(t *testing.T) {
	data, key := cosign(t)
	if _, err := Verify(data, digest, nil, keysOf(key)); err != nil {
		t.Error(err)
	}
}

func TestECDSA(t *testing.T) {
	for _, algorithm := range []string{"ecdsa-p256", "ecdsa-p384"} {
		key := testkey.Created(t, algorithm)
		data, err := Sign(key, digest)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Sign(key, digest); err != nil || !bytes.Equal(data, again) {
			t.Errorf("%s: not deterministic: %v", algorithm, err)
		}
		if _, err := Verify(data, digest, key.Chain, nil); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

// A valid signature over what this package does not take is refused for that.
func TestRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hint, err := keyHint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := digest[len("sha256:"):]
	good := `{"_type":"` + statementType + `","subject":[{"digest":{"sha256":"` + sum + `"}}],"predicateType":"` + PredicateType + `","predicate":{}}`
	replace := strings.ReplaceAll
	for _, test := range []struct {
		name, want string
		statement  string
		edit       func(string) string
	}{
		{"nothing", "", good, nil},
		{"annotations", "", replace(good, `"}}]`, `"},"annotations":{"a":"b"}}]`), nil},
		{"white space", "", good, func(s string) string { return "\n" + replace(s, ",", " ,\t") }},
		{"a hint of another kind", "", good, func(s string) string { return replace(s, hint, "my key") }},
		{"another key's hint", ErrKey.Error(), good, func(s string) string { return replace(s, hint, base64.StdEncoding.EncodeToString(make([]byte, 32))) }},
		{"media type", "media type", good, func(s string) string { return replace(s, "v0.3", "v0.2") }},
		{"payload type", "payload type", good, func(s string) string { return replace(s, "in-toto", "in-tota") }},
		{"no envelope", "no DSSE envelope", good, func(string) string {
			return `{"mediaType":"` + MediaType + `","verificationMaterial":{"publicKey":{}}}`
		}},
		{"no key", "not a public key", good, func(s string) string { return replace(s, `"publicKey":{"hint":"`+hint+`"}`, "") }},
		{"two signatures", "2 signatures", good, func(s string) string { return replace(s, `"signatures":[`, `"signatures":[{"sig":"AA=="},`) }},
		{"no signature", "0 signatures", good, func(s string) string { before, _, _ := strings.Cut(s, `[{"sig"`); return before + "[]}}" }},
		{"unknown field", "unknown field", good, func(s string) string { return replace(s, `"publicKey"`, `"x":1,"publicKey"`) }},
		{"field twice", "duplicate field", good, func(s string) string { return replace(s, `"payloadType"`, `"payload":"AA==","payloadType"`) }},
		{"data behind it", "unexpected token", good, func(s string) string { return s + "{}" }},
		{"large", "larger", good, func(s string) string { return s + strings.Repeat(" ", MaxSize) }},
		{"not JSON", "JSON", good, func(string) string { return "x" }},
		{"statement: type", "type", replace(good, "Statement/v1", "Statement/v0.1"), nil},
		{"statement: predicate type", "predicate type", replace(good, "sign/v1", "sign/v2"), nil},
		{"statement: predicate", "predicate is not", replace(good, `"predicate":{}`, `"predicate":{"a":1}`), nil},
		{"statement: predicate's kind", "predicate is not", replace(good, `"predicate":{}`, `"predicate":1`), nil},
		{"statement: two subjects", "2 subjects", replace(good, `"subject":[`, `"subject":[{},`), nil},
		{"statement: no subject", "0 subjects", `{"_type":"` + statementType + `","predicateType":"` + PredicateType + `"}`, nil},
		{"statement: digest twice", "duplicate", replace(good, `"sha256"`, `"sha256":"","sha256"`), nil},
		{"statement: another digest too", "unknown field", replace(good, `"sha256"`, `"sha512":"","sha256"`), nil},
		{"statement: upper-case digest", "not a sha256 digest", replace(good, sum, strings.ToUpper(sum)), nil},
		{"statement: unknown field", "unknown field", replace(good, `"_type"`, `"x":1,"_type"`), nil},
		{"statement: another case", "unknown field", replace(good, `"subject"`, `"Subject"`), nil},
		{"statement: deep", "depth", replace(good, `"predicate":{}`, `"predicate":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)), nil},
		{"statement: name of the subject", "unknown field", replace(good, `"digest"`, `"name":"x","digest"`), nil},
	} {
		h := crypto.SHA384.New()
		h.Write(preAuth([]byte(test.statement)))
		sig, err := key.Sign(rand.Reader, h.Sum(nil), crypto.SHA384)
		if err != nil {
			t.Fatal(err)
		}
		b64 := base64.StdEncoding.EncodeToString
		bundle := `{"mediaType":"` + MediaType + `","verificationMaterial":{"publicKey":{"hint":"` + hint + `"}},"dsseEnvelope":{"payload":"` +
			b64([]byte(test.statement)) + `","payloadType":"` + payloadType + `","signatures":[{"sig":"` + b64(sig) + `"}]}}`
		if test.edit != nil {
			bundle = test.edit(bundle)
		}
		_, err = Verify([]byte(bundle), digest, nil, keysOf(key.Public()))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		case test.want != "" && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrKey):
			t.Errorf("%s: %v is of no kind", test.name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	for curve, want := range map[elliptic.Curve]bool{elliptic.P256(): true, elliptic.P384(): true, elliptic.P521(): false} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		hash := map[elliptic.Curve]crypto.Hash{elliptic.P256(): crypto.SHA256, elliptic.P384(): crypto.SHA384, elliptic.P521(): crypto.SHA512}[curve]
		h := hash.New()
		h.Write([]byte("message"))
		sig, err := key.Sign(rand.Reader, h.Sum(nil), hash)
		if err != nil {
			t.Fatal(err)
		}
		if got := verifies(key.Public(), "", []byte("message"), sig); got != want {
			t.Errorf("%s: got %v", curve.Params().Name, got)
		}
		if verifies(key.Public(), "", []byte("Message"), sig) {
			t.Errorf("%s: another message", curve.Params().Name)
		}
	}
}

// What is taken is about exactly one digest, and JSON of one meaning.
func FuzzVerify(f *testing.F) {
	data, key := cosign(f)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Verify(data, digest, nil, keysOf(key)); err == nil && !json.Valid(data) {
			t.Error("passes, but is not JSON")
		}
		if _, err := Verify(data, other, nil, keysOf(key)); err == nil {
			t.Error("passes for a digest that nobody signed")
		}
		if _, err := parseStatement(data); err == nil && !json.Valid(data) {
			t.Error("a statement that is not JSON")
		}
	})
}
