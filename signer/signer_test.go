// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// newDir makes keys that a test may spoil, with smaller numbers than Create.
func newDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := create(dir, CreateOptions{Name: "test", Valid: time.Hour, Algorithm: "rsa-2048"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCreate(t *testing.T) {
	dir := newDir(t)
	for name, mode := range map[string]fs.FileMode{"ca.key": 0o600, "ca.crt": 0o644, "signing.key": 0o600, "signing.crt": 0o644, "signing.pub": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, ref := range []string{filepath.Join(dir, "signing.key"), "file:" + filepath.Join(dir, "signing.key")} {
		key, err := Open(t.Context(), ref, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(key.Chain) != 2 || key.Chain[0].Subject.CommonName != "test signing" || key.Chain[1].Subject.CommonName != "test CA" {
			t.Errorf("got the chain %v", key.Chain)
		}
		pub, err := cryptoutils.UnmarshalPEMToPublicKey(read(t, dir, "signing.pub"))
		if err != nil || Fingerprint(pub) != Fingerprint(key.Public()) || len(Fingerprint(pub)) != len("sha256:")+64 {
			t.Errorf("signing.pub is another key: %v", err)
		}
		profile(t, key.Chain[0], key.Chain[1])
	}
}

func profile(t *testing.T, leaf, ca *x509.Certificate) {
	t.Helper()
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature ||
		!bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId) || len(leaf.SubjectKeyId) == 0 {
		t.Error("the leaf has another profile")
	}
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Error("the CA has another profile")
	}
	for _, c := range []*x509.Certificate{leaf, ca} {
		if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() != 128 || c.SignatureAlgorithm != x509.SHA256WithRSA {
			t.Errorf("%s: serial %x, %s", c.Subject, c.SerialNumber, c.SignatureAlgorithm)
		}
		for _, e := range c.Extensions {
			if critical := e.Id.String() == "2.5.29.15" || e.Id.String() == "2.5.29.19"; e.Critical != critical {
				t.Errorf("%s: extension %s: critical is %v", c.Subject, e.Id, e.Critical)
			}
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"a directory": dir, "a link to nowhere": filepath.Join(dir, "link")} {
		if name != "a directory" {
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		}
		if err := Create(path, CreateOptions{Name: "x", Valid: time.Hour}); !errors.Is(err, ErrExists) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// The last step refuses too, should it have appeared meanwhile.
	if err := writeDir(dir, nil); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	for _, o := range []CreateOptions{
		{Valid: time.Hour}, {Name: "x"}, {Name: "x\n", Valid: time.Hour}, {Name: strings.Repeat("x", 49), Valid: time.Hour},
	} {
		if err := Create(filepath.Join(dir, "new"), o); err == nil {
			t.Errorf("made %+v", o)
		}
	}
	if err := create(filepath.Join(dir, "none", "new"), CreateOptions{Name: "x", Valid: time.Hour, Algorithm: "rsa-2048"}, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := newDir(t)
	key, crt, ca := read(t, dir, "signing.key"), read(t, dir, "signing.crt"), read(t, dir, "ca.crt")
	leaf := crt[:len(crt)-len(ca)]
	ec, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecPEM, err := cryptoutils.MarshalPrivateKeyToPEM(ec)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, want string
		key, crt   []byte
	}{
		{"good", "", key, crt},
		{"leaf alone", "", key, leaf},
		{"all in one file", "", append(bytes.Clone(key), crt...), nil},
		{"PKCS#1", "", pkcs1(t, key), crt},
		{"text around certificates", "", key, append([]byte("subject: me\n"), crt...)},
		{"CA first", "does not belong to the key", key, append(bytes.Clone(ca), leaf...)},
		{"leaf twice", "is not the issuer", key, append(bytes.Clone(leaf), leaf...)},
		{"no certificate", "no certificate", key, nil},
		{"no certificate in the file", "no certificate in PEM form", key, []byte("x")},
		{"no key", "no private key", crt, crt},
		{"two keys", "more than one private key", append(bytes.Clone(key), key...), crt},
		{"CA's key", "does not belong to the key", read(t, dir, "ca.key"), crt},
		{"CA's key and certificate", "is an authority's", read(t, dir, "ca.key"), ca},
		{"ECDSA with P-521", "key of ecdsa-p521: only RSA", ecPEM, crt},
		{"encrypted", "encrypted", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"), crt},
		{"encrypted in the old way", "encrypted", []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAA==\n-----END RSA PRIVATE KEY-----\n"), crt},
		{"large", "larger", append(bytes.Clone(key), make([]byte, maxFile)...), crt},
		{"large certificate", "larger", key, append(bytes.Clone(crt), make([]byte, maxFile)...)},
	} {
		path := filepath.Join(t.TempDir(), "a.key")
		files := map[string][]byte{path: test.key}
		if test.crt != nil {
			files[strings.TrimSuffix(path, "key")+"crt"] = test.crt
		}
		for p, data := range files {
			if err := os.WriteFile(p, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(t.Context(), path, OpenOptions{})
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), filepath.Dir(path))):
			t.Errorf("%s: got %v, want %q and the file's name", test.name, err, test.want)
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: more than one line: %v", test.name, err)
		}
	}
}

func pkcs1(t *testing.T, pkcs8 []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(pkcs8)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey))})
}

func TestOpenReferences(t *testing.T) {
	dir := newDir(t)
	for _, ref := range []string{"pkcs12:token=x", "x:y"} {
		_, err := Open(t.Context(), ref, OpenOptions{})
		if !errors.Is(err, ErrReference) || !strings.Contains(err.Error(), ref) {
			t.Errorf("%s: got %v", ref, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"": "no path", "file:": "no path", dir: "not a regular file", fifo: "not a regular file", dir + "/none": "no such file"} {
		if _, err := Open(t.Context(), ref, OpenOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", ref, err, want)
		}
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "signing.key"), OpenOptions{Certificates: filepath.Join(dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	// A certificate that is named wins over one in the key's file.
	key := append(read(t, dir, "signing.key"), read(t, dir, "ca.crt")...)
	if err := os.WriteFile(filepath.Join(dir, "both.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "both.key"), OpenOptions{Certificates: filepath.Join(dir, "signing.crt")}); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "both.key"), OpenOptions{}); err == nil {
		t.Error("takes the CA's certificate for the key's")
	}
}

func TestOpenValidity(t *testing.T) {
	path := filepath.Join(newDir(t), "signing.key")
	if _, err := open(t.Context(), path, OpenOptions{}, time.Now().Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("got %v", err)
	}
	if _, err := open(t.Context(), path, OpenOptions{}, time.Now().Add(-2*time.Hour)); err == nil || !strings.Contains(err.Error(), "not valid before") {
		t.Errorf("got %v", err)
	}
}

// Anyone can write certificates, and checking a signature with a modulus of a
// million bits takes minutes.
func TestHugeKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1<<20), E: 1<<31 - 1}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, huge, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseCertificates(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err == nil || !strings.Contains(err.Error(), "RSA key of 1048577 bits") {
		t.Errorf("got %v", err)
	}
}
