// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// hierarchy makes the folders root, ca and release in a new one.
func hierarchy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, step := range []struct{ profile, folder, issuer string }{
		{Root, "root", ""}, {Intermediate, "ca", "root"}, {Release, "release", "ca"},
	} {
		o := CreateOptions{Name: "test " + step.folder, Valid: time.Hour - time.Duration(len(step.issuer)), Profile: step.profile, Algorithm: "ecdsa-p256"}
		if step.issuer != "" {
			o.Issuer = mustOpenIssuer(t, filepath.Join(dir, step.issuer))
			o.Valid = time.Until(o.Issuer.Chain[0].NotAfter)
		}
		if err := Create(filepath.Join(dir, step.folder), o); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustOpenIssuer(t *testing.T, path string) *Key {
	t.Helper()
	key, err := OpenIssuer(t.Context(), path, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustParse(t *testing.T, path ...string) []*x509.Certificate {
	t.Helper()
	chain, err := ParseCertificates(read(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestHierarchy(t *testing.T) {
	dir := hierarchy(t)
	for folder, want := range map[string]string{"root": "ca.crt ca.key", "ca": "ca.crt ca.key", "release": "signing.crt signing.key signing.pub"} {
		names, err := fileNames(filepath.Join(dir, folder))
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s: has %q, %v", folder, names, err)
		}
	}
	chain := mustParse(t, dir, "release", "signing.crt")
	if len(chain) != 3 || !chain[2].Equal(mustParse(t, dir, "root", "ca.crt")[0]) {
		t.Fatalf("got the chain %v", chain)
	}
	for i := range 2 {
		if wrong := CheckIssuer(chain[i], chain[i+1]); len(wrong) > 0 {
			t.Errorf("%q", wrong)
		}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[2])
	intermediates.AddCert(chain[1])
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}); err != nil {
		t.Error(err)
	}
}

func TestAlgorithms(t *testing.T) {
	for _, name := range Algorithms() {
		key, err := generate(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := AlgorithmOf(key.Public()); got != name || CheckAlgorithm(name) != nil || CheckKey(key.Public()) != nil {
			t.Errorf("%s is %s", name, got)
		}
	}
	if err := CheckAlgorithm("rsa-1024"); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("got %v", err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, key := range map[string]any{"ecdsa-p521": p521.Public(), "ed25519": ed, "unknown": 7} {
		if got := AlgorithmOf(key); got != want || CheckKey(key) == nil {
			t.Errorf("%s is %s", want, got)
		}
	}
}

func TestCreateEncrypted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	secret := []byte("correct horse")
	if err := Create(dir, CreateOptions{Name: "x", Valid: time.Hour, Profile: Root, Algorithm: "ecdsa-p384", Passphrase: secret}); err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(read(t, dir, "ca.key")); block.Type != "ENCRYPTED PRIVATE KEY" {
		t.Errorf("got %s", block.Type)
	}
	if _, err := OpenIssuer(t.Context(), dir, answering(secret)); err != nil {
		t.Error(err)
	}
	if _, err := OpenIssuer(t.Context(), dir, OpenOptions{}); !errors.Is(err, ErrEncrypted) || !errors.Is(err, ErrIssuer) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenIssuer(t.Context(), dir, answering([]byte("wrong one"))); err == nil || strings.Contains(err.Error(), "wrong one") {
		t.Errorf("got %v", err)
	}
}

func TestCreateForKeyElsewhere(t *testing.T) {
	dir := hierarchy(t)
	key := newKey(t)
	o := CreateOptions{Name: "HSM", Valid: time.Minute, Profile: Release, Issuer: mustOpenIssuer(t, filepath.Join(dir, "ca")), PublicKey: key.Public()}
	if err := Create(filepath.Join(dir, "hsm"), o); err != nil {
		t.Fatal(err)
	}
	names, err := fileNames(filepath.Join(dir, "hsm"))
	if err != nil || strings.Join(names, " ") != "signing.crt signing.pub" {
		t.Errorf("has %q, %v", names, err)
	}
	if got := Fingerprint(mustParse(t, dir, "hsm", "signing.crt")[0].PublicKey); got != Fingerprint(key.Public()) {
		t.Errorf("another key: %s", got)
	}
}

func TestParsePublicKey(t *testing.T) {
	key := newKey(t)
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	flipped := bytes.Clone(der)
	flipped[len(flipped)-1] ^= 1
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPEM, err := cryptoutils.MarshalPublicKeyToPEM(ed)
	if err != nil {
		t.Fatal(err)
	}
	private, err := cryptoutils.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"public key", public, ""},
		{"request", request(der), ""},
		{"forged request", request(flipped), "certificate signing request: "},
		{"garbage request", request([]byte("x")), "certificate signing request: "},
		{"garbage", []byte("x"), "neither a public key nor a certificate signing request"},
		{"private key", private, "PRIVATE KEY"},
		{"Ed25519", edPEM, "key of ed25519: only RSA of 2048 to 4096 bits"},
	} {
		got, err := ParsePublicKey(test.data)
		if test.want == "" && (err != nil || Fingerprint(got) != Fingerprint(key.Public())) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestOpenIssuerRefuses(t *testing.T) {
	dir := hierarchy(t)
	in := func(path ...string) string { return filepath.Join(append([]string{dir}, path...)...) }
	if err := os.WriteFile(in("lone.key"), read(t, dir, "ca", "ca.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("garbage.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, test := range []struct {
		name, path, cert string
		now              time.Time
		want             string
	}{
		{"folder", in("ca"), "", now, ""},
		{"key", in("ca", "ca.key"), "", now, ""},
		{"key and certificate", in("lone.key"), in("ca", "ca.crt"), now, ""},
		{"key without a certificate", in("lone.key"), "", now, "lone.crt"},
		{"missing", in("none"), "", now, "no such file"},
		{"garbage", in("garbage.key"), "", now, "PEM"},
		{"a leaf", in("release", "signing.key"), "", now, `certificate "CN=test release" is not an authority's`},
		{"a leaf's folder", in("release"), "", now, "ca.key"},
		{"another's certificate", in("lone.key"), in("root", "ca.crt"), now, "does not belong to the key"},
		{"expired", in("ca"), "", now.Add(2 * time.Hour), `certificate "CN=test ca" expired on`},
		{"too early", in("ca"), "", now.Add(-2 * time.Hour), "is not valid before"},
	} {
		_, err := openIssuer(t.Context(), test.path, OpenOptions{Certificates: test.cert}, test.now)
		if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrIssuer) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	dir := hierarchy(t)
	root, ca := mustOpenIssuer(t, filepath.Join(dir, "root")), mustOpenIssuer(t, filepath.Join(dir, "ca"))
	key := newKey(t)
	for _, test := range []struct {
		name, want string
		o          CreateOptions
	}{
		{"path length", `issuer "CN=test ca": its path length of 0 allows no such authority below it`, CreateOptions{Profile: Intermediate, Issuer: ca}},
		{"outlives its issuer", `validity: ends after that of issuer "CN=test ca"`, CreateOptions{Profile: Release, Issuer: ca, Valid: 2 * time.Hour}},
		{"its issuer's name", "issuer: names itself: true, want false", CreateOptions{Profile: Release, Issuer: ca, Name: "test ca"}},
		{"no issuer", "profile release: needs an issuer", CreateOptions{Profile: Release}},
		{"a root below a root", "profile root: signs itself", CreateOptions{Profile: Root, Issuer: root}},
		{"a root for a key elsewhere", "profile root: signs itself", CreateOptions{Profile: Root, PublicKey: key.Public()}},
		{"profile", "unknown profile", CreateOptions{Profile: "leaf"}},
		{"algorithm", "unknown algorithm", CreateOptions{Profile: Root, Algorithm: "rsa-1024"}},
		{"long name", "needs 1 to 64 characters", CreateOptions{Profile: Root, Name: strings.Repeat("x", 65)}},
	} {
		o := test.o
		if o.Name == "" {
			o.Name = "x"
		}
		if o.Valid == 0 {
			o.Valid = time.Minute
		}
		if o.Algorithm == "" {
			o.Algorithm = "ecdsa-p256"
		}
		path := filepath.Join(dir, "new")
		if err := Create(path, o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something is there: %v", test.name, err)
		}
	}
}

func TestTBS(t *testing.T) {
	c := certify(t, mustProfile(t, Root), nil).Chain[0]
	if got, err := TBS(c); err != nil || len(got) != len("tbs:")+64 {
		t.Errorf("got %s, %v", got, err)
	}
	longer := *c
	longer.SignatureAlgorithm = x509.ECDSAWithSHA384 // as the kernel digests it then
	if got, err := TBS(&longer); err != nil || len(got) != len("tbs:")+96 {
		t.Errorf("got %s, %v", got, err)
	}
	longer.SignatureAlgorithm = x509.SHA1WithRSA
	if got, err := TBS(&longer); err == nil {
		t.Errorf("got %s", got)
	}
}
