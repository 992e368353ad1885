// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package statement

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tenon-build/tenon/signer/internal/testkey"
)

// OpenSSL's two readers of PKCS#7 accept the signature, of this statement alone.
func TestE2EOpenSSL(t *testing.T) {
	dir := t.TempDir()
	key := testkey.NewAuthority(t).Intermediate(t).Key(t, nil)
	testkey.Write(t, dir, key)
	p7, err := Sign(key, example)
	if err != nil {
		t.Fatal(err)
	}
	good, err := example.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other := example
	other.Sealed = false
	bad, err := other.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"p7": p7, "good": good, "bad": bad} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"smime", "cms"} {
		for content, want := range map[string]bool{"good": true, "bad": false} {
			cmd := exec.Command("openssl", tool, "-verify", "-binary", "-inform", "DER", "-in", "p7", "-content", content,
				"-CAfile", "ca.crt", "-purpose", "any", "-out", "out")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if (err == nil) != want {
				t.Errorf("openssl %s, %s content: %v: %s", tool, content, err, out)
			}
		}
	}
}
