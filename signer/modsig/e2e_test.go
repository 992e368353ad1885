// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package modsig

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// run returns what a tool says; it has to say yes.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// fields are what modinfo says about a signature.
func fields(t *testing.T, path string) string {
	t.Helper()
	var out []string
	for _, f := range []string{"signer", "sig_id", "sig_key", "sig_hashalgo"} {
		out = append(out, f+"="+strings.TrimSpace(run(t, "modinfo", "-F", f, path)))
	}
	return strings.Join(out, " ")
}

// A module of Debian's, with the signature of its kernel's authors: we strip it
// as the kernel's own script and modinfo understand it, and what we sign is told
// from what the script signs by its certificates alone.
func TestE2EModule(t *testing.T) {
	found, err := filepath.Glob("/lib/modules/*/kernel/net/ipv4/tcp_bbr.ko")
	if err != nil || len(found) == 0 {
		t.Fatalf("no module of Debian's kernel: %v", err)
	}
	tools, err := filepath.Glob("/usr/lib/linux-kbuild-*/scripts/sign-file")
	if err != nil || len(tools) == 0 {
		t.Fatalf("no sign-file: %v", err)
	}
	debian, err := os.ReadFile(slices.Max(found))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := testkey.NewAuthority(t).Key(t, nil)
	testkey.Write(t, dir, key)
	plain, err := Strip(debian)
	if err != nil || bytes.Equal(plain, debian) {
		t.Fatalf("Debian's module is not signed, or %v", err)
	}
	ours := sign(t, key, debian)
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plainPath, oursPath, theirs := write("plain.ko", plain), write("ours.ko", ours), filepath.Join(dir, "theirs.ko")
	run(t, slices.Max(tools), "sha256", filepath.Join(dir, "signing.key"), filepath.Join(dir, "signing.crt"), plainPath, theirs)

	if got := fields(t, plainPath); got != "signer= sig_id= sig_key= sig_hashalgo=" {
		t.Errorf("stripped: modinfo says %s", got)
	}
	got, want := fields(t, oursPath), fields(t, theirs)
	t.Logf("modinfo: %s", got)
	if got != want || !strings.Contains(got, "signer=test root sig_id=PKCS#7 sig_key=") || !strings.HasSuffix(got, "sig_hashalgo=sha256") {
		t.Errorf("modinfo says\n%s of ours,\n%s of sign-file's", got, want)
	}
	b, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if stripped, err := Strip(b); err != nil || !bytes.Equal(stripped, plain) {
		t.Errorf("sign-file's, stripped, is another module: %v", err)
	}
	if !bytes.Equal(sign(t, key, b), ours) {
		t.Error("sign-file's, signed by us, is another module than ours")
	}

	_, p7, err := split(ours)
	if err != nil {
		t.Fatal(err)
	}
	verify := []string{"cms", "-verify", "-binary", "-inform", "DER", "-in", write("p7", p7), "-CAfile", filepath.Join(dir, "ca.crt"),
		"-purpose", "any", "-out", "/dev/null", "-content"}
	run(t, "openssl", append(verify, plainPath)...)
	if out, err := exec.Command("openssl", append(verify, oursPath)...).CombinedOutput(); err == nil {
		t.Errorf("openssl accepts it over another module: %s", out)
	}
}
