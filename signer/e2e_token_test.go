// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package signer_test

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/testdata/e2e"
)

const (
	tokenPIN   = "73501946"
	wrongPIN   = "64910537"
	softHSM    = "/usr/lib/softhsm/libsofthsm2.so"
	tokenLabel = "test token"
)

// newToken makes a SoftHSM2 of our own with a token that holds two keys, rsa and
// ec, and lets tenon find the plug-in.
func newToken(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/tokens", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", e2e.WriteFile(t, dir+"/softhsm2.conf", fmt.Appendf(nil, "directories.tokendir = %s/tokens\nlog.level = ERROR\n", dir)))
	t.Setenv("PATH", e2e.Required(t, "TENON_BIN")+":"+os.Getenv("PATH"))
	t.Setenv("PKCS11_MODULE_PATH", softHSM)
	e2e.Tool(t, "softhsm2-util", "--init-token", "--free", "--label", tokenLabel, "--pin", tokenPIN, "--so-pin", wrongPIN)
	for id, key := range [][2]string{{"rsa", "rsa:3072"}, {"ec", "EC:prime256v1"}} {
		e2e.Tool(t, "pkcs11-tool", "--module", softHSM, "--token-label", tokenLabel, "--login", "--pin", tokenPIN,
			"--keypairgen", "--key-type", key[1], "--label", key[0], "--id", fmt.Sprint("0", id+1))
	}
}

// tokenURI names a key of newToken.
func tokenURI(name string) string { return "pkcs11:token=test%20token;object=" + name }

// held is a key of which only the public half is here.
type held struct {
	crypto.Signer
	public crypto.PublicKey
}

func (h held) Public() crypto.PublicKey { return h.public }

// tokenCertificate is a leaf of the test CA for a key of newToken, in a file.
func tokenCertificate(t *testing.T, name string, edit func(*x509.Certificate)) string {
	t.Helper()
	der := filepath.Join(t.TempDir(), "public")
	e2e.Tool(t, "pkcs11-tool", "--module", softHSM, "--token-label", tokenLabel, "--read-object", "--type", "pubkey", "--label", name, "-o", der)
	public := e2e.Must(x509.ParsePKIXPublicKey(e2e.Must(os.ReadFile(der))))
	return pemFile(t, "CERTIFICATE", testCA(t).issue(t, held{public: public}, edit).Raw)
}

// tokenKey makes a token and opens its RSA-3072 key as tenon does.
func tokenKey(t *testing.T) *signer.Key {
	t.Helper()
	newToken(t)
	t.Setenv("TENON_PIN", tokenPIN)
	return e2e.Must(signer.Open(t.Context(), tokenURI("rsa"), signer.OpenOptions{Certificates: tokenCertificate(t, "rsa", nil)}))
}

// TestE2EPKCS11 signs all that is signed with keys that never leave a token, and
// asks others' tools.
func TestE2EPKCS11(t *testing.T) {
	newToken(t)
	ca := judgeDir() + "/ca.crt"
	rsa, ec := tokenCertificate(t, "rsa", nil), tokenCertificate(t, "ec", nil)
	withPIN := func(t *testing.T, args ...string) e2e.Outcome {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), e2e.Program(t, "tenon"), args...)
		cmd.Env = append(os.Environ(), "TENON_PIN="+tokenPIN)
		return silent(t, e2e.Execute(cmd))
	}

	t.Run("bundle", func(t *testing.T) {
		path, dir := e2e.Copy(t, e2e.Probe(t)), filepath.Join(t.TempDir(), "out")
		for _, args := range [][]string{
			{"sign", path, "--key", tokenURI("rsa"), "--cert", rsa},
			{"verify", path, "--cert", ca},
			{"export", path, "--format", "dir", "-o", dir, "--cert", ca},
		} {
			if o := withPIN(t, args...); o.Code != 0 {
				t.Fatal(o)
			}
		}
		e2e.Tool(t, "sbverify", "--cert", ca, dir+"/bzImage")
		e2e.Tool(t, "osslsigncode", "verify", "-CAfile", ca, dir+"/bzImage")
		e2e.Tool(t, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", dir+"/statement.p7s",
			"-content", dir+"/statement", "-CAfile", ca, "-purpose", "any", "-out", "/dev/null")
	})
	t.Run("bundle, ECDSA", func(t *testing.T) {
		path, dir := e2e.Copy(t, e2e.Probe(t)), filepath.Join(t.TempDir(), "out")
		o := withPIN(t, "sign", path, "--key", tokenURI("ec"), "--cert", ec)
		if o.Code != 0 || !strings.Contains(o.Stderr, "host: stock Debian 12 kernel") || !strings.Contains(o.Stderr, "host: UEFI firmware") {
			t.Fatal(o)
		}
		for _, args := range [][]string{{"verify", path, "--cert", ca}, {"export", path, "--format", "dir", "-o", dir, "--cert", ca}} {
			if o := withPIN(t, args...); o.Code != 0 {
				t.Fatal(o)
			}
		}
		e2e.Tool(t, "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", dir+"/statement.p7s",
			"-content", dir+"/statement", "-CAfile", ca, "-purpose", "any", "-out", "/dev/null")
	})
	t.Run("build", func(t *testing.T) {
		o := withPIN(t, "build", "-r", e2e.ProbeRecipe(), "--name", "probe", "-o", t.TempDir()+"/probe.tenon", "--key", tokenURI("rsa"), "--cert", rsa, e2e.Image(t, nil, e2e.ProbeFiles...))
		if o.Code != 0 || strings.Count(o.Stderr, "signed ") != 3 {
			t.Error(o)
		}
	})
	t.Run("in two phases", func(t *testing.T) {
		path, dir := e2e.Copy(t, e2e.Probe(t)), t.TempDir()
		for _, args := range [][]string{
			{"sign", "--prepare", path, "-o", dir + "/request"},
			{"sign", "--request", dir + "/request", "--key", tokenURI("ec"), "--cert", ec, "-o", dir + "/signed"},
			{"sign", "--attach", dir + "/signed", path},
			{"verify", path, "--cert", ca},
		} {
			if o := withPIN(t, args...); o.Code != 0 {
				t.Fatal(o)
			}
		}
	})
	t.Run("module", func(t *testing.T) {
		modules := e2e.Must(filepath.Glob("/lib/modules/*/kernel/lib/*.ko"))
		if len(modules) == 0 {
			t.Fatal("no module: run 'make deps'")
		}
		out := filepath.Join(t.TempDir(), "module.ko")
		if o := withPIN(t, "sign", "--module", modules[0], "-o", out, "--key", tokenURI("rsa"), "--cert", rsa); o.Code != 0 {
			t.Fatal(o)
		}
		if got := e2e.Tool(t, "modinfo", "-F", "signer", out); strings.TrimSpace(got) != testCA(t).cert.Subject.CommonName {
			t.Errorf("modinfo says %s", got)
		}
	})
	t.Run("issuer", func(t *testing.T) {
		between, dir := tokenCertificate(t, "ec", asAuthority), filepath.Join(t.TempDir(), "release")
		o := withPIN(t, "key", "create", dir, "--profile", "release", "--name", "below", "--algorithm", "ecdsa-p256", "--issuer", tokenURI("ec"), "--issuer-cert", between)
		if o.Code != 0 {
			t.Fatal(o)
		}
		e2e.Tool(t, "openssl", "verify", "-CAfile", ca, "-untrusted", between, "-purpose", "any", dir+"/signing.crt")
	})
	t.Run("references", func(t *testing.T) { testTokenReferences(t, rsa) })
	t.Run("secrets", func(t *testing.T) { testTokenSecrets(t, rsa) })
}

// silent wants no PIN in what a command says.
func silent(t *testing.T, o e2e.Outcome) e2e.Outcome {
	t.Helper()
	for _, pin := range []string{tokenPIN, wrongPIN} {
		if strings.Contains(o.Stdout+o.Stderr, pin) {
			t.Errorf("shows a PIN: %s", o)
		}
	}
	return o
}

// testTokenReferences names the key in many ways.
func testTokenReferences(t *testing.T, cert string) {
	t.Setenv("TENON_PIN", tokenPIN)
	found := regexp.MustCompile(`serial num *: (\S+)`).FindStringSubmatch(e2e.Tool(t, "pkcs11-tool", "--module", softHSM, "--list-slots"))
	if found == nil {
		t.Fatal("pkcs11-tool shows no serial number")
	}
	for ref, want := range map[string]string{
		tokenURI("rsa") + ";type=private":                 "",
		"pkcs11:id=%01":                                   "",
		"pkcs11:object=rsa;id=%01;serial=" + found[1]:     "",
		"pkcs11:object=rsa;model=SoftHSM%20v2":            "",
		tokenURI("rsa") + "?module-path=" + softHSM:       "",
		tokenURI("rsa") + "?module-name=softhsm2":         "",
		tokenURI("none"):                                  `token "test token": there is no such private key`,
		"pkcs11:object=rsa;id=%02":                        "there is no such private key",
		"pkcs11:object=rsa;token=other":                   "none of the tokens in 2 slots is the one that the URI names",
		"pkcs11:object=rsa;slot-id=7":                     "none of the tokens",
		tokenURI("rsa") + "?module-path=/none.so":         "cannot load a PKCS#11 module: tried /none.so",
		tokenURI("rsa") + "?pin-source=file:/nonexistent": "pin-source: open /nonexistent: no such file",
	} {
		o := silent(t, e2e.Tenon(t, "key", "export", cert, "--format", "tbs-p7", "--key", ref, "--cert", cert, "-o", t.TempDir()+"/out"))
		if want == "" && o.Code != 0 || want != "" && (o.Code != 1 || !strings.Contains(o.Stderr, want) || strings.Count(o.Stderr, "\n") != 1) {
			t.Errorf("%s: want %q: %s", ref, want, o)
		}
	}
}

// testTokenSecrets gives the PIN in each way, and looks where it must not be.
func testTokenSecrets(t *testing.T, cert string) {
	// export runs tenon, below another program if there is one, with a PIN on file
	// descriptor 3 if there is one.
	export := func(t *testing.T, ref, pin string, below ...string) e2e.Outcome {
		t.Helper()
		args := append(slices.Clone(below), e2e.Program(t, "tenon"), "key", "export", cert, "--format", "tbs-p7", "--key", ref, "--cert", cert, "-o", t.TempDir()+"/out")
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		if pin != "" {
			file := e2e.WriteFile(t, filepath.Join(t.TempDir(), "pin"), []byte(pin+"\n"))
			cmd.ExtraFiles = []*os.File{e2e.Must(os.Open(file))}
			defer cmd.ExtraFiles[0].Close()
			cmd.Args = append(cmd.Args, "--passphrase-fd", "3")
		}
		return silent(t, e2e.Execute(cmd))
	}
	for _, test := range []struct{ name, file, descriptor, variable, want string }{
		{name: "pin-source", file: tokenPIN},
		{name: "descriptor", descriptor: tokenPIN},
		{name: "variable", variable: tokenPIN},
		{name: "wrong pin-source", file: wrongPIN, want: "wrong PIN"},
		{name: "wrong descriptor", descriptor: wrongPIN, want: "wrong PIN"},
		{name: "wrong variable", variable: wrongPIN, want: "wrong PIN"},
		{name: "none", want: "there is no such private key, or it takes a PIN to see it, which nobody gave"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ref := tokenURI("rsa")
			if test.file != "" {
				ref += "?pin-source=file:" + e2e.WriteFile(t, filepath.Join(t.TempDir(), "pin"), []byte(test.file+"\n"))
			}
			if test.variable != "" {
				t.Setenv("TENON_PIN", test.variable)
			}
			log := filepath.Join(t.TempDir(), "log")
			o := export(t, ref, test.descriptor, "strace", "-f", "-s", "10000", "-e", "trace=execve", "-o", log)
			if test.want == "" && o.Code != 0 || test.want != "" && (o.Code != 1 || strings.Count(o.Stderr, "\n") != 1 || !strings.Contains(o.Stderr, `token "test token": `+test.want)) {
				t.Errorf("want %q: %s", test.want, o)
			}
			seen := string(e2e.Must(os.ReadFile(log)))
			if !strings.Contains(seen, "sigstore-kms-pkcs11\", \"v1\"") || strings.Contains(seen, tokenPIN) || strings.Contains(seen, wrongPIN) {
				t.Errorf("the programs that ran: %s", seen)
			}
		})
	}
}
