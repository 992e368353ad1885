// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// fails runs another's program, which has to refuse.
func fails(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState == nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func mustInvoke(t *testing.T, line string) reply {
	t.Helper()
	r := invoke(t, strings.Fields(line)...)
	if r.code != 0 {
		t.Fatalf("%s: %+v", line, r)
	}
	return r
}

// OpenSSL reads out of each certificate what its profile says, no extension more
// or less, and builds the chains in its strict mode, whatever the algorithm.
func TestE2EKeyProfiles(t *testing.T) {
	extensions := map[string]string{
		"root/ca.crt":             "Basic Constraints: critical CA:TRUE, pathlen:1; Key Usage: critical Certificate Sign, CRL Sign; Subject Key Identifier: ID",
		"ca/ca.crt":               "Authority Key Identifier: ID; Basic Constraints: critical CA:TRUE, pathlen:0; Key Usage: critical Certificate Sign, CRL Sign; Subject Key Identifier: ID",
		"release/signing.crt":     "Authority Key Identifier: ID; Basic Constraints: critical CA:FALSE; Extended Key Usage: Code Signing; Key Usage: critical Digital Signature; Subject Key Identifier: ID",
		"development/ca.crt":      "Basic Constraints: critical CA:TRUE, pathlen:0; Key Usage: critical Certificate Sign, CRL Sign; Subject Key Identifier: ID",
		"development/signing.crt": "Authority Key Identifier: ID; Basic Constraints: critical CA:FALSE; Extended Key Usage: Code Signing; Key Usage: critical Digital Signature; Subject Key Identifier: ID",
	}
	for _, algorithm := range signer.Algorithms() {
		t.Run(algorithm, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for _, line := range []string{"root --profile root --name root", "ca --profile intermediate --issuer root --name ca", "release --profile release --issuer ca --name release", "development"} {
				mustInvoke(t, "key create "+line+" --algorithm "+algorithm)
			}
			for path, want := range extensions {
				if got := extensionsOf(e2e.Tool(t, "openssl", "x509", "-in", path, "-noout", "-text")); got != want {
					t.Errorf("%s: got %s\nwant %s", path, got, want)
				}
			}
			verify := func(root string, args ...string) []string {
				return append([]string{"openssl", "verify", "-x509_strict", "-purpose", "any", "-CAfile", root}, args...)
			}
			e2e.Tool(t, verify("root/ca.crt", "root/ca.crt")...)
			e2e.Tool(t, verify("root/ca.crt", "ca/ca.crt")...)
			e2e.Tool(t, verify("root/ca.crt", "-untrusted", "ca/ca.crt", "release/signing.crt")...)
			e2e.Tool(t, verify("development/ca.crt", "development/signing.crt")...)
			fails(t, verify("root/ca.crt", "release/signing.crt")...)     // the intermediate is not there
			fails(t, verify("root/ca.crt", "development/signing.crt")...) // another root
		})
	}
}

// extensionsOf makes a line of what 'openssl x509 -text' says about extensions.
func extensionsOf(text string) string {
	_, text, _ = strings.Cut(text, "X509v3 extensions:")
	text, _, _ = strings.Cut(text, "    Signature Algorithm")
	var out []string
	for _, block := range regexp.MustCompile(`\n {12}X509v3 `).Split(text, -1)[1:] {
		out = append(out, strings.Join(strings.Fields(block), " "))
	}
	id := regexp.MustCompile(`\b(keyid:)?([0-9A-F]{2}:){19}[0-9A-F]{2}\b`)
	// OpenSSL's order is the certificate's, which nobody has to keep.
	for i := range out {
		out[i] = id.ReplaceAllString(out[i], "ID")
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// Encrypted keys are not ours alone.
func TestE2EKeyEncrypted(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(passphraseVariable, "correct horse")
	mustInvoke(t, "key create keys --algorithm rsa-2048")
	e2e.Tool(t, "openssl", "pkey", "-in", "keys/signing.key", "-passin", "env:"+passphraseVariable, "-pubout", "-out", "pub")
	if !bytes.Equal(mustRead(t, "pub"), mustRead(t, "keys/signing.pub")) {
		t.Error("openssl decrypts another key")
	}
	fails(t, "openssl", "pkey", "-in", "keys/signing.key", "-passin", "pass:wrong", "-noout")
	// And a CA's key that openssl encrypted issues.
	e2e.Tool(t, "openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", "keys/ca.key", "-passin", "env:"+passphraseVariable, "-passout", "env:"+passphraseVariable, "-out", "theirs.key")
	if err := os.Rename("theirs.key", "keys/ca.key"); err != nil {
		t.Fatal(err)
	}
	mustInvoke(t, "key rotate keys")
}

// A key that openssl keeps, in place of an HSM, is certified by its request.
func TestE2EKeyRequest(t *testing.T) {
	t.Chdir(t.TempDir())
	mustInvoke(t, "key create root --profile root --name root --algorithm rsa-2048")
	e2e.Tool(t, "openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "hsm.key", "-subj", "/CN=whatever", "-out", "hsm.csr")
	mustInvoke(t, "key create hsm --profile release --issuer root --name HSM --public-key hsm.csr")
	subject := e2e.Tool(t, "openssl", "x509", "-in", "hsm/signing.crt", "-noout", "-subject")
	public := e2e.Tool(t, "openssl", "x509", "-in", "hsm/signing.crt", "-noout", "-pubkey")
	if strings.TrimSpace(subject) != "subject=CN = HSM" || public != e2e.Tool(t, "openssl", "pkey", "-in", "hsm.key", "-pubout") {
		t.Errorf("got %s%s", subject, public)
	}
}

func TestE2EKeyExport(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, line := range []string{
		"key create root --profile root --name root --algorithm rsa-2048",
		"key create release --profile release --issuer root --name release --algorithm rsa-2048",
		"key create builtin --name builtin --algorithm rsa-2048",
		"key export root --format der -o root.der",
		"key export root --format pem -o root.pem",
		"key export root --format esl -o db.esl",
		"key export release --format esl --variable dbx -o dbx.esl",
		"key export root --format auth --variable db --key builtin/signing.key -o db.auth",
		"key export release --format der -o release.der",
		"key export release --format tbs -o old.tbs",
		"key export release --format tbs-p7 --key builtin/signing.key -o old.tbs.p7s",
	} {
		mustInvoke(t, line)
	}
	e2e.Tool(t, "openssl", "x509", "-inform", "DER", "-in", "root.der", "-out", "again.pem")
	if !bytes.Equal(mustRead(t, "again.pem"), mustRead(t, "root.pem")) {
		t.Error("openssl makes another PEM of the DER form")
	}

	// The digest as the kernel's tools/certs/print-cert-tbs-hash.sh takes it.
	e2e.Tool(t, "openssl", "asn1parse", "-inform", "DER", "-in", "release.der", "-strparse", "4", "-noout", "-out", "tbs.der")
	sum := sha256.Sum256(mustRead(t, "tbs.der"))
	tbs := "tbs:" + hex.EncodeToString(sum[:])
	if got := string(mustRead(t, "old.tbs")); got != tbs+"\n" {
		t.Errorf("got %s, want %s", got, tbs)
	}
	for content, want := range map[string]bool{tbs: true, tbs + "\n": false, strings.Replace(tbs, "tbs", "bin", 1): false} {
		if err := os.WriteFile("content", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "old.tbs.p7s", "-content", "content", "-CAfile", "builtin/ca.crt", "-purpose", "any", "-out", "out"}
		if want {
			e2e.Tool(t, args...)
		} else {
			fails(t, args...)
		}
	}

	e2e.Tool(t, "sig-list-to-certs", "db.esl", "db")
	e2e.Tool(t, "sig-list-to-certs", "dbx.esl", "dbx")
	for theirs, ours := range map[string]string{"db-0.der": "root.der", "dbx-0.der": "release.der"} {
		if !bytes.Equal(mustRead(t, theirs), mustRead(t, ours)) {
			t.Errorf("sig-list-to-certs reads another certificate: %s", theirs)
		}
	}
	// The update's time is in its first 16 bytes: with it, efitools sign the same.
	auth := mustRead(t, "db.auth")
	at := fmt.Sprintf("%d-%d-%d %d:%d:%d", binary.LittleEndian.Uint16(auth), auth[2], auth[3], auth[4], auth[5], auth[6])
	t.Setenv("TZ", "UTC")
	e2e.Tool(t, "sign-efi-sig-list", "-t", at, "-c", "builtin/signing.crt", "-k", "builtin/signing.key", "db", "db.esl", "theirs.auth")
	if !bytes.Equal(mustRead(t, "theirs.auth"), auth) {
		t.Error("sign-efi-sig-list writes another update")
	}
	if left, err := filepath.Glob(".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Who may not write changes nothing, and leaves nothing behind.
func TestE2EKeyNoWritePermission(t *testing.T) {
	program := mustRead(t, e2e.Program(t, "tenon"))
	t.Chdir(t.TempDir())
	const nobody = 65534
	for _, line := range []string{"key create root --profile root --name root --algorithm rsa-2048", "key create release --profile release --issuer root --name release --algorithm rsa-2048"} {
		mustInvoke(t, line)
	}
	dir, err := os.MkdirTemp("", "tenon-") // open to others, and so are the copies of the keys
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.CopyFS(dir, os.DirFS(".")), os.WriteFile(filepath.Join(dir, "tenon"), program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	before := tree(t)
	for _, line := range []string{
		"key create new --profile root --name new",
		"key rotate release --issuer root",
		"key export root --format der -o new",
	} {
		cmd := exec.Command("./tenon", strings.Fields(line)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(string(out), "tenon: error: ") ||
			!strings.Contains(string(out), "permission denied") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	if tree(t) != before {
		t.Error("something has changed")
	}
}
