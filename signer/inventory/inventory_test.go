// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
)

const day = 24 * time.Hour

// hierarchy makes the folders root, ca and release in a new one; the release key
// is encrypted.
func hierarchy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, step := range []struct {
		profile, folder, issuer string
		days                    time.Duration
		secret                  []byte
	}{
		{signer.Root, "root", "", 300, nil}, {signer.Intermediate, "ca", "root", 200, nil}, {signer.Release, "release", "ca", 100, []byte("secret")},
	} {
		o := signer.CreateOptions{Name: step.folder, Valid: step.days * day, Profile: step.profile, Algorithm: "ecdsa-p256", Passphrase: step.secret}
		if step.issuer != "" {
			var err error
			if o.Issuer, err = signer.OpenIssuer(t.Context(), filepath.Join(dir, step.issuer), signer.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := signer.Create(filepath.Join(dir, step.folder), o); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func scan(t *testing.T, dir, secret string, now time.Time) *Inventory {
	t.Helper()
	i, err := Scan([]string{dir}, []byte(secret), now)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestScan(t *testing.T) {
	dir := hierarchy(t)
	now := time.Now()
	for _, secret := range []string{"", "secret", "wrong"} {
		i := scan(t, dir, secret, now)
		if len(i.Certificates) != 3 || len(i.Keys) != 0 || len(i.Problems) != 0 {
			t.Fatalf("got %+v", i)
		}
		for n, want := range []Certificate{
			{Subject: "CN=release", Profile: "release", Issuer: "CN=ca", DaysLeft: 99, Key: &Key{Encrypted: true}, Files: []string{"release/signing.crt"}},
			{Subject: "CN=ca", Profile: "intermediate", Issuer: "CN=root", DaysLeft: 199, Key: &Key{}, Files: []string{"ca/ca.crt", "release/signing.crt"}},
			{Subject: "CN=root", Profile: "root", Issuer: "CN=root", DaysLeft: 299, Key: &Key{}, Files: []string{"root/ca.crt", "ca/ca.crt", "release/signing.crt"}},
		} {
			got := i.Certificates[n]
			for k, file := range want.Files {
				want.Files[k] = filepath.Join(dir, file)
			}
			if got.Subject != want.Subject || got.Profile != want.Profile || got.Issuer != want.Issuer || got.DaysLeft != want.DaysLeft ||
				!slices.Equal(got.Files, want.Files) || got.Key == nil || got.Key.Encrypted != want.Key.Encrypted || len(got.Problems) > 0 ||
				got.Algorithm != "ecdsa-p256" || got.SignatureAlgorithm != "ECDSA-SHA256" || !strings.HasPrefix(got.TBS, "tbs:") || len(got.Serial) != 32 {
				t.Errorf("with %q: got %+v", secret, got)
			}
		}
		if known := i.Certificates[0].Key.Fingerprint != ""; known != (secret == "secret") {
			t.Errorf("with %q: the encrypted key is known: %v", secret, known)
		}
	}
}

// Programs read it.
func TestJSON(t *testing.T) {
	data, err := json.Marshal(scan(t, hierarchy(t), "", time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Certificates []map[string]any
		Keys         []any
		Problems     []any
	}
	if err := json.Unmarshal(data, &got); err != nil || len(got.Certificates) != 3 || got.Keys == nil || got.Problems == nil {
		t.Fatalf("%v in %s", err, data)
	}
	for _, name := range []string{"subject", "profile", "serial", "fingerprint", "tbs", "issuer", "algorithm", "signatureAlgorithm", "notBefore", "notAfter", "daysLeft", "files", "key", "problems"} {
		if got.Certificates[0][name] == nil {
			t.Errorf("no %s in %s", name, data)
		}
	}
}

func TestScanProblems(t *testing.T) {
	dir := hierarchy(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	authority := testkey.NewAuthority(t)
	foreign := authority.Key(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.ExtKeyUsage = "server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	if err := os.Mkdir(in("foreign"), 0o755); err != nil {
		t.Fatal(err)
	}
	testkey.Write(t, in("foreign"), foreign)
	write(t, in("foreign/server.der"), foreign.Chain[0].Raw)
	// Who names itself as issuer need not have signed.
	forged := testkey.NewAuthority(t).Root()
	forged.RawSubject, forged.Subject.CommonName, forged.PublicKey = nil, "forged", foreign.Public()
	der, err := x509.CreateCertificate(rand.Reader, forged, forged, foreign.Public(), foreign)
	if err != nil {
		t.Fatal(err)
	}
	der[len(der)-1] ^= 1
	write(t, in("forged.der"), der)
	write(t, in("lone.key"), readFile(t, dir, "ca/ca.key"))
	if err := os.Remove(in("ca/ca.key")); err != nil {
		t.Fatal(err)
	}
	write(t, in("broken.crt"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	write(t, in("broken.key"), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	write(t, in("README"), []byte("not a key"))
	write(t, in("large"), make([]byte, maxFile+1))
	if err := errors.Join(os.Chmod(in("root/ca.key"), 0o644), syscall.Mkfifo(in("fifo"), 0o600), os.Symlink("nowhere", in("link"))); err != nil {
		t.Fatal(err)
	}
	i := scan(t, dir, "", time.Now().Add(150*day))
	problems := map[string]string{}
	for _, c := range i.Certificates {
		problems[c.Subject] = strings.Join(c.Problems, "; ")
	}
	for subject, want := range map[string]string{
		"CN=release":   `certificate "CN=release" expired on `,
		"CN=root":      "private key: its file is open to others (mode 0644)",
		"CN=forged":    `issuer "CN=forged": did not sign it`,
		"CN=server":    "extended key usage: not code signing alone",
		"CN=test root": "basic constraints: path length unlimited, want 1",
	} {
		if !strings.Contains(problems[subject], want) {
			t.Errorf("%s: %q, want %q", subject, problems[subject], want)
		}
	}
	if problems["CN=ca"] != "" || len(i.Certificates) != 6 {
		t.Errorf("got %q", problems)
	}
	if n := slices.IndexFunc(i.Certificates, func(c Certificate) bool { return c.Subject == "CN=server" }); len(i.Certificates[n].Files) != 2 {
		t.Errorf("got %+v", i.Certificates[n])
	}
	if len(i.Keys) != 1 || i.Keys[0].File != in("broken.key") || i.Keys[0].Problems[0] != "private key: cannot be read" {
		t.Errorf("got %+v", i.Keys)
	}
	// The key is found by what it is, wherever it lies.
	if n := slices.IndexFunc(i.Certificates, func(c Certificate) bool { return c.Subject == "CN=ca" }); i.Certificates[n].Key.File != in("lone.key") {
		t.Errorf("got %+v", i.Certificates[n])
	}
	if len(i.Problems) != 1 || !strings.HasPrefix(i.Problems[0], in("broken.crt")+": certificate 1: ") {
		t.Errorf("got %q", i.Problems)
	}
}

func TestScanRefuses(t *testing.T) {
	if _, err := Scan([]string{"/nonexistent"}, nil, time.Now()); !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "/nonexistent") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestWithin(t *testing.T) {
	now := time.Now()
	for days, want := range map[time.Duration]int{0: 0, 99: 0, 100: 1, 250: 2, 1000: 3} {
		i := scan(t, hierarchy(t), "", now)
		if i.Within(now.Add(days*day + time.Hour)); len(i.Certificates) != want {
			t.Errorf("%d days: got %+v", days, i.Certificates)
		}
	}
}

func TestLook(t *testing.T) {
	dir := hierarchy(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("lone.key"), readFile(t, dir, "ca/ca.key"))
	for path, want := range map[string]string{
		"release": "CN=release", "release/signing.crt": "CN=release", "release/signing.key": "CN=release",
		"ca": "CN=ca", "ca/ca.key": "CN=ca", "root/ca.crt": "CN=root", "lone.key": "",
	} {
		i, err := Look(in(path), nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if len(i.Certificates) > 0 || len(i.Keys) != 1 {
				t.Errorf("%s: got %+v", path, i)
			}
		} else if got := i.Certificates[0]; got.Subject != want || got.Key == nil || len(got.Problems) > 0 {
			t.Errorf("%s: got %+v", path, got)
		}
	}
}

func TestLookRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("garbage"), []byte("x"))
	write(t, in("broken.crt"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	if err := syscall.Mkfifo(in("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"none": "no such file", "garbage": "no certificate and no private key", "fifo": "not a regular file",
		"broken.crt": "certificate 1: ", "": "the folder has neither signing.crt nor ca.crt",
	} {
		if _, err := Look(in(path), nil, time.Now()); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), in(path)) != 1 {
			t.Errorf("%q: got %v", path, err)
		}
	}
}
