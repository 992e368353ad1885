// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/statement"
)

func subject() Subject {
	return Subject{
		Name: "web", Digest: "sha256:" + strings.Repeat("0a", 32), Image: sha256.Sum256([]byte("image")),
		Statement: statement.Statement{Target: "qemu", Sealed: true, Size: 4096, Digest: sha256.Sum256([]byte("kernel"))},
	}
}

// written is the request as it is on disk.
func written(t testing.TB) []byte {
	t.Helper()
	r, err := New(subject())
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signAll makes all signatures of the subject.
func signAll(t *testing.T, key *signer.Key) [][]byte {
	t.Helper()
	s := subject()
	a, errA := authenticode.Sign(key, s.Image)
	b, errB := statement.Sign(key, s.Statement)
	c, errC := sigstore.Sign(key, s.Digest)
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	return [][]byte{a, b, c}
}

// TestAnswered: who has the answer makes the very bytes that the key makes.
func TestAnswered(t *testing.T) {
	t.Run("RSA", func(t *testing.T) { testAnswered(t, testkey.NewAuthority(t).Intermediate(t).Key(t, nil)) })
	t.Run("ECDSA", func(t *testing.T) { testAnswered(t, testkey.Created(t, "ecdsa-p256")) })
}

// A request has SHA-256 digests alone.
func TestHash(t *testing.T) {
	key := testkey.Created(t, "ecdsa-p384")
	r, err := Parse(written(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sign(t.Context(), key); !errors.Is(err, ErrHash) {
		t.Errorf("got %v", err)
	}
	for i := range r.Items {
		r.Items[i].Signature = []byte("by hand")
	}
	if _, err := r.Key(key.Chain); !errors.Is(err, ErrHash) {
		t.Errorf("got %v", err)
	}
}

func testAnswered(t *testing.T, key *signer.Key) {
	r, err := Parse(written(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Key(key.Chain); !errors.Is(err, ErrUnanswered) || !strings.Contains(err.Error(), "authenticode") {
		t.Errorf("a request without signatures: %v", err)
	}
	if err := r.Sign(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if r, err = Parse(data); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(subject()); err != nil {
		t.Error(err)
	}
	back, err := r.Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := signAll(t, key)
	for i, got := range signAll(t, back) {
		if !bytes.Equal(got, want[i]) {
			t.Errorf("%s is another than the key makes", r.Items[i].Kind)
		}
	}
	if _, err := statement.Sign(back, statement.Statement{Target: "kexec", Size: 1}); !errors.Is(err, ErrUnanswered) {
		t.Errorf("signed what nobody asked for: %v", err)
	}
	other := subject()
	other.Statement.Sealed = false
	if err := r.Check(other); !errors.Is(err, ErrSubject) {
		t.Errorf("another bundle: %v", err)
	}

	r.Items[0].Signature, r.Items[1].Signature = r.Items[1].Signature, r.Items[0].Signature
	if back, err = r.Key(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticode.Sign(back, subject().Image); err == nil || !strings.Contains(err.Error(), "checking the new signature") {
		t.Errorf("a signature of something else: %v", err)
	}
	if _, err := r.Key(testkey.NewAuthority(t).Key(t, nil).Chain); err != nil {
		t.Errorf("a chain given is taken instead: %v", err)
	}
	r.Certificates = ""
	if _, err := r.Key(nil); !errors.Is(err, signer.ErrNoCertificate) {
		t.Errorf("no certificates: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(written(t))
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	head, _, _ := strings.Cut(good, `"signatures": [`)
	for _, test := range []struct{ name, data, want string }{
		{"nothing", "", "EOF"},
		{"not JSON", "x", "invalid character"},
		{"two", good + good, "something follows"},
		{"another version", replace(`"version": 1`, `"version": 2`), "version 2"},
		{"unknown field", replace(`"version": 1`, `"version": 1, "colour": 1`), `unknown field "colour"`},
		{"one signature less", head + `"signatures": []}`, "0 signatures"},
		{"another bundle digest", replace("sha256:0a", "sha256:0b"), `signatures[2], "sigstore"`},
		{"upper case", replace("sha256:0a", "sha256:0A"), "is not a sha256 digest"},
		{"another target", replace(`"target": "qemu"`, `"target": "kexec"`), `signatures[1], "statement"`},
		{"target that is none", replace(`"target": "qemu"`, `"target": ""`), "the target"},
		{"not sealed", replace(`"sealed": true`, `"sealed": false`), `signatures[1], "statement"`},
		{"another kernel", replace(`"size": 4096`, `"size": 4097`), `signatures[1]`},
		{"kernel digest cut", replace(`"authenticode": "sha256:`, `"authenticode": "sha256:00`), "kernel.authenticode"},
		{"kernel digest empty", replace(`"authenticode": "sha256:`, `"authenticode": "","x":"`), "unknown field"},
		{"another hash", replace(`"hash": "sha256"`, `"hash": "sha1"`), `signatures[0]`},
		{"other words", replace(`"over": "the kernel image`, `"over": "the harmless image`), `signatures[0]`},
		{"other bytes", replace(`"data": "M`, `"data": "N`), `signatures[0], "authenticode"`},
		{"a field twice", replace(`"bundle": {`, `"bundle": {"name": "redis", "digest": "x"}, "bundle": {`), "there twice"},
		{"a field in another case", replace(`"sealed"`, `"Sealed"`), "there twice"},
		{"large", good + strings.Repeat(" ", MaxSize), "larger"},
	} {
		_, err := Parse([]byte(test.data))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

// What is taken asks for exactly what it states.
func FuzzParse(f *testing.F) {
	f.Add(written(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		s, err := r.subject()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(*s); err != nil {
			t.Error(err)
		}
	})
}
