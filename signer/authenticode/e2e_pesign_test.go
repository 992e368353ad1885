// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package authenticode

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// mustRun runs a tool that has to say yes.
func mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, ok := run(t, name, args...)
	if !ok {
		t.Fatalf("%s %q: %s", name, args, out)
	}
	return out
}

// pesign, which is NSS's code, digests the same bytes and names the same signer;
// we accept what it signs. Its pesigcheck knows no authority but those of a
// database of the whole system, and refuses sbsign's signatures just so.
func TestE2EPesign(t *testing.T) {
	dir := t.TempDir()
	key := testkey.NewAuthority(t).Key(t, nil)
	testkey.Write(t, dir, key)
	image := bzImage(t)
	sum := digest(t, image)
	p7, err := Sign(key, sum)
	if err != nil {
		t.Fatal(err)
	}
	db, path := filepath.Join(dir, "db"), write(t, dir, "signed", attach(t, image, p7))
	if err := os.Mkdir(db, 0o700); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "certutil", "-N", "-d", db, "--empty-password")
	if out := mustRun(t, "pesign", "-n", db, "-h", "-i", path); !strings.Contains(out, fmt.Sprintf("%x", sum)) {
		t.Errorf("pesign has another digest than %x: %s", sum, out)
	}
	if out := mustRun(t, "pesign", "-n", db, "-S", "-i", path); !strings.Contains(out, "common name is test signing\n") {
		t.Errorf("pesign names another signer: %s", out)
	}
	p12 := filepath.Join(dir, "p12")
	mustRun(t, "openssl", "pkcs12", "-export", "-inkey", filepath.Join(dir, "signing.key"), "-in", filepath.Join(dir, "signing.crt"),
		"-name", "leaf", "-out", p12, "-passout", "pass:")
	mustRun(t, "pk12util", "-d", db, "-i", p12, "-W", "")
	other := filepath.Join(dir, "pesign")
	mustRun(t, "pesign", "-n", db, "-c", "leaf", "-s", "-i", write(t, dir, "unsigned", image), "-o", other)
	b, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	certs := parse(t, b).Certificates
	if len(certs) != 1 {
		t.Fatalf("%d signatures", len(certs))
	}
	who, err := Verify(certs[0].Data, sum)
	if err != nil || signer.Fingerprint(who.Key) != signer.Fingerprint(key.Public()) {
		t.Errorf("got %v, %v", who, err)
	}
}
