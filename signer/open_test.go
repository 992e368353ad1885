// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer/pkcs11uri"
)

// answering knows a secret.
func answering(secret []byte) OpenOptions {
	return OpenOptions{Secret: func(string) ([]byte, error) { return secret, nil }}
}

// Keys that openssl and cosign encrypted are in testdata, with the passphrase
// "correct horse".
func TestOpenEncrypted(t *testing.T) {
	asked := ""
	answer := func(secret string, err error) OpenOptions {
		return OpenOptions{Secret: func(what string) ([]byte, error) { asked += what + "\n"; return []byte(secret), err }}
	}
	for _, name := range []string{"openssl-pkcs8.key", "openssl-legacy.key", "openssl-sec1.key", "cosign.key"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			asked = ""
			if _, err := Open(t.Context(), path, answer("correct horse", nil)); err != nil {
				t.Fatal(err)
			}
			if want := "passphrase of \"" + path + "\"\n"; asked != want {
				t.Errorf("asked for %q, want %q", asked, want)
			}
			for _, o := range []OpenOptions{{}, answer("", nil)} {
				if _, err := Open(t.Context(), path, o); !errors.Is(err, ErrEncrypted) || !strings.Contains(err.Error(), path) {
					t.Errorf("got %v", err)
				}
			}
			_, err := Open(t.Context(), path, answer("battery staple", nil))
			if err == nil || !strings.HasPrefix(err.Error(), `key "`+path+`": the passphrase does not decrypt the private key: `) ||
				strings.Contains(err.Error(), "staple") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if _, err := Open(t.Context(), path, answer("", context.Canceled)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A signature is the same each time.
func TestOpenSteady(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := Create(dir, CreateOptions{Name: "test", Valid: time.Hour, Algorithm: "ecdsa-p384"}); err != nil {
		t.Fatal(err)
	}
	key, err := Open(t.Context(), filepath.Join(dir, "signing.key"), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	one, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	two, err := key.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil || !bytes.Equal(one, two) || !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest, one) {
		t.Errorf("got %x, then %x, %v", one, two, err)
	}
}

// install puts a plug-in on PATH, a shell script.
func install(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sigstore-kms-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// answers are those of a plug-in that keeps the key of newDir, and has made one
// signature.
func answers(t *testing.T, dir string, digest []byte) (public, signature string) {
	t.Helper()
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(read(t, dir, "signing.key"), cryptoutils.SkipPassword)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := private.(crypto.Signer).Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`{"publicKey": {"publicKeyPEM": %q}}`, encode(read(t, dir, "signing.pub"))),
		fmt.Sprintf(`{"signMessage": {"signature": %q}}`, encode(sig))
}

func TestOpenPlugin(t *testing.T) {
	dir, digest := newDir(t), bytes.Repeat([]byte{7}, 32)
	public, signature := answers(t, dir, digest)
	log := filepath.Join(dir, "log")
	install(t, "test", fmt.Sprintf("echo \"$2\" >> %s\ncase $2 in *publicKey*) echo '%s';; *) echo '%s';; esac\n", log, public, signature))
	key, err := Open(t.Context(), "test://some/key", OpenOptions{Certificates: filepath.Join(dir, "signing.crt")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(nil, digest, crypto.SHA256); err != nil {
		t.Error(err)
	}
	// What the protocol says of both questions, and no question twice.
	lines := strings.Split(strings.TrimSpace(string(read(t, log))), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d questions: %q", len(lines), lines)
	}
	var question struct {
		InitOptions struct{ KeyResourceID string }
		MethodName  string
		SignMessage struct {
			SignOptions struct {
				MessageOptions struct {
					Digest   []byte
					HashFunc int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(lines[1]), &question); err != nil {
		t.Fatal(err)
	}
	said := question.SignMessage.SignOptions.MessageOptions
	if question.InitOptions.KeyResourceID != "some/key" || question.MethodName != "signMessage" || !bytes.Equal(said.Digest, digest) || said.HashFunc != int(crypto.SHA256) {
		t.Errorf("got %+v", question)
	}
}

func TestOpenPluginRefuses(t *testing.T) {
	dir := newDir(t)
	public, _ := answers(t, dir, make([]byte, 32))
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p521.Public())
	if err != nil {
		t.Fatal(err)
	}
	unused := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for _, test := range []struct{ name, script, want string }{
		{"another's key", "echo '" + strings.ReplaceAll(public, public[30:34], "AAAA") + "'", "sigstore-kms-test: "},
		{"no JSON", "echo x", "parsing plugin response"},
		{"no answer", "", "parsing plugin response"},
		{"an empty answer", "echo '{}'", "its answer lacks what was asked for"},
		{"no key", `echo '{"publicKey": {}}'`, "PEM decoding failed"},
		{"a key that is not used", `echo '{"publicKey": {"publicKeyPEM": "` + unused + `"}}'`, "key of ecdsa-p521: only RSA"},
		{"an error", `echo '{"errorMessage": "the vault is shut"}'; exit 1`, "sigstore-kms-test: plugin returned error: the vault is shut"},
		{"death", "kill -9 $$", "signal: killed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			install(t, "test", test.script)
			_, err := Open(t.Context(), "test://x", OpenOptions{Certificates: filepath.Join(dir, "signing.crt")})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), `key "test://x": `) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	// An answer to the first question alone.
	install(t, "half", "case $2 in *publicKey*) echo '"+public+"';; *) echo '{}';; esac")
	key, err := Open(t.Context(), "half://x", OpenOptions{Certificates: filepath.Join(dir, "signing.crt")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil || err.Error() != "sigstore-kms-half: its answer lacks what was asked for" {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), "none://x", OpenOptions{Certificates: filepath.Join(dir, "signing.crt")}); !errors.Is(err, ErrNoPlugin) || !strings.Contains(err.Error(), "sigstore-kms-none") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), "half://x", OpenOptions{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), "half://x", OpenOptions{Certificates: filepath.Join(dir, "ca.crt")}); err == nil || !strings.Contains(err.Error(), "does not belong to the key") {
		t.Errorf("got %v", err)
	}
}

// A plug-in that hangs, and its child, do not keep us.
func TestOpenPluginHangs(t *testing.T) {
	dir := newDir(t)
	install(t, "test", "sleep 5\n")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := Open(ctx, "test://x", OpenOptions{Certificates: filepath.Join(dir, "signing.crt")})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(started) > 3*time.Second {
		t.Errorf("got %v after %s", err, time.Since(started))
	}
}

// The PIN goes to the plug-in by the environment, and is asked for only where it
// is nowhere else.
func TestOpenTokenPIN(t *testing.T) {
	dir := newDir(t)
	public, _ := answers(t, dir, make([]byte, 32))
	log := filepath.Join(dir, "log")
	install(t, "pkcs11", fmt.Sprintf("echo \"$TENON_PIN\" > %s\necho '%s'\n", log, public))
	for _, test := range []struct{ name, ref, variable, answer, asked, got string }{
		{"asked", "pkcs11:object=x", "", "1234", "PIN of pkcs11:object=x", "1234"},
		{"in the environment", "pkcs11:object=x", "5678", "1234", "", "5678"},
		{"in a file", "pkcs11:object=x?pin-source=file:/run/pin", "", "1234", "", ""},
		{"nowhere", "pkcs11:object=x", "", "", "PIN of pkcs11:object=x", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(pinVariable, test.variable)
			if test.variable == "" {
				if err := os.Unsetenv(pinVariable); err != nil {
					t.Fatal(err)
				}
			}
			asked := ""
			_, err := Open(t.Context(), test.ref, OpenOptions{Certificates: filepath.Join(dir, "signing.crt"),
				Secret: func(what string) ([]byte, error) { asked += what; return []byte(test.answer), nil }})
			if got := strings.TrimSpace(string(read(t, log))); err != nil || asked != test.asked || got != test.got {
				t.Errorf("asked for %q, gave %q, %v", asked, got, err)
			}
		})
	}
	for _, ref := range []string{"pkcs11:object=x?pin-value=1234", "pkcs11:object=x;pin-value=1234", "PKCS11:object=x?pin-value=1234", "PKCS11://object=x?PIN-Value=1234", " pkcs11:object=x?pin-value=1234", "pkcs11:object=x?pin-value:1234"} {
		if _, err := Open(t.Context(), ref, OpenOptions{}); !errors.Is(err, pkcs11uri.ErrPIN) || strings.Contains(err.Error(), "1234") {
			t.Errorf("got %v", err)
		}
	}
}
