// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package authenticode

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// bzImage returns the newest kernel of this machine, without its signature.
func bzImage(t *testing.T) []byte {
	t.Helper()
	found, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(found) == 0 {
		t.Fatalf("no kernel in /boot: %v", err)
	}
	b, err := os.ReadFile(slices.Max(found))
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, make([]byte, -len(b)&7)...)
	return attach(t, b)
}

// run returns a tool's whole output, and whether it said yes.
func run(t *testing.T, name string, args ...string) (string, bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err == nil
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What we sign, others accept; what others sign, we accept; the digest is the
// same, and so is the verdict on a changed byte.
func TestE2EAuthenticode(t *testing.T) {
	dir := t.TempDir()
	key := testkey.NewAuthority(t).Key(t, nil)
	testkey.Write(t, dir, key)
	image := bzImage(t)
	sum := digest(t, image)
	p7, err := Sign(key, sum)
	if err != nil {
		t.Fatal(err)
	}
	signed := attach(t, image, p7)
	path := write(t, dir, "signed", signed)
	ca := filepath.Join(dir, "ca.crt")

	out, ok := run(t, "sbverify", "--cert", ca, path)
	if !ok || strings.Contains(out, "warning") {
		t.Errorf("sbverify: %s", out)
	}
	out, ok = run(t, "osslsigncode", "verify", "-CAfile", ca, path)
	if !ok || strings.Contains(strings.ToLower(out), "warning") || strings.Contains(out, "MISMATCH") {
		t.Errorf("osslsigncode: %s", out)
	}
	match := regexp.MustCompile(`Calculated message digest +: ([0-9A-F]{64})`).FindStringSubmatch(out)
	if match == nil || !strings.EqualFold(match[1], hex.EncodeToString(sum[:])) {
		t.Errorf("osslsigncode has another digest than %x: %s", sum, out)
	}

	t.Run("signatures of others", func(t *testing.T) {
		unsigned := write(t, dir, "unsigned", image)
		k, c := filepath.Join(dir, "signing.key"), filepath.Join(dir, "signing.crt")
		for name, args := range map[string][]string{
			"sbsign":       {"--key", k, "--cert", c, "--output", filepath.Join(dir, "sbsign"), unsigned},
			"osslsigncode": {"sign", "-h", "sha256", "-key", k, "-certs", c, "-in", unsigned, "-out", filepath.Join(dir, "osslsigncode")},
		} {
			if out, ok := run(t, name, args...); !ok {
				t.Fatalf("%s: %s", name, out)
			}
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			certs := parse(t, b).Certificates
			if len(certs) != 1 || digest(t, b) != sum {
				t.Fatalf("%s: %d certificates, digest %x, want %x", name, len(certs), digest(t, b), sum)
			}
			if _, err := Verify(certs[0].Data, sum); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !bytes.Equal(attach(t, b), image) {
				t.Errorf("%s: stripped, it is another image", name)
			}
		}
	})

	t.Run("changed bytes", func(t *testing.T) {
		refused := 0
		for n := range 24 {
			at := n * len(image) / 24
			if n == 0 {
				at = 0x100 // in the setup header
			}
			b := slices.Clone(signed)
			b[at] ^= 1
			path := write(t, dir, "changed", b)
			if _, ok := run(t, "sbverify", "--cert", ca, path); ok {
				t.Errorf("sbverify accepts a change at %#x", at)
			}
			if _, ok := run(t, "osslsigncode", "verify", "-CAfile", ca, path); ok {
				t.Errorf("osslsigncode accepts a change at %#x", at)
			}
			i, err := Parse(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				sum, err := i.Digest(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err = Verify(i.Certificates[0].Data, sum); err == nil {
					t.Errorf("we accept a change at %#x", at)
				}
			}
			refused++
		}
		t.Logf("%d changes refused", refused)
	})

	t.Run("unknown authority", func(t *testing.T) {
		other := t.TempDir()
		testkey.Write(t, other, testkey.NewAuthority(t).Key(t, nil))
		if _, ok := run(t, "sbverify", "--cert", filepath.Join(other, "ca.crt"), path); ok {
			t.Error("sbverify accepts another authority")
		}
	})
}

// A chain with an intermediate, and two signatures on one image.
func TestE2EChain(t *testing.T) {
	dir := t.TempDir()
	image := bzImage(t)
	sum := digest(t, image)
	var signatures [][]byte
	for range 2 {
		key := testkey.NewAuthority(t).Intermediate(t).Key(t, nil)
		p7, err := Sign(key, sum)
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, p7)
		testkey.Write(t, dir, key) // the last one's
	}
	path := write(t, dir, "signed", attach(t, image, signatures...))
	if out, ok := run(t, "sbverify", "--cert", filepath.Join(dir, "ca.crt"), path); !ok {
		t.Errorf("sbverify: %s", out)
	}
	if out, ok := run(t, "sbverify", "--list", path); !ok || strings.Count(out, "image signature issuers") != 2 {
		t.Errorf("sbverify sees other signatures than two: %s", out)
	}
}
