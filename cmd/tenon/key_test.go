// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/inventory"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// keyFolders makes the folders root, ca and release, as the handbook does, and
// works in the one that they are in.
func keyFolders(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, args := range []string{
		"key create root --profile root --name root --algorithm rsa-2048",
		"key create ca --profile intermediate --issuer root --name ca --algorithm rsa-2048",
		"key create release --profile release --issuer ca --name release --algorithm rsa-2048",
	} {
		if r := invoke(t, strings.Fields(args)...); r.code != 0 || !strings.HasPrefix(r.stdout, "sha256:") {
			t.Fatalf("%s: %+v", args, r)
		}
	}
}

// tree lists all that is below the working directory.
func tree(t *testing.T) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, fmt.Sprintf("%s %x", path, mustRead(t, path)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// Whatever is wrong, it is said in one line, and nothing has changed.
func TestKeyErrors(t *testing.T) {
	keyFolders(t)
	if err := signer.Create("short", signer.CreateOptions{Name: "short", Valid: time.Minute, Profile: signer.Root, Algorithm: "rsa-2048", Passphrase: []byte("geheim")}); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"file": "x", "garbage/signing.crt": "x", "nested/below/x": "x", "full/signing.crt": string(mustRead(t, "release/signing.crt")),
		"nested/signing.crt": string(mustRead(t, "release/signing.crt")), "nested/signing.key": string(mustRead(t, "release/signing.key")),
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t)
	const release = "key create new --profile release --name new --issuer "
	for _, test := range []struct {
		name, args string
		code       int
		want, hint string
	}{
		{"create for nobody", "key create new --profile leaf", 2, `unknown profile "leaf": have root, intermediate, release, development (see 'tenon key create --help')`, ""},
		{"create with anything", "key create new --algorithm rsa-1024", 2, `unknown algorithm "rsa-1024": have rsa-2048`, ""},
		{"create in YAML", "key create new --format yaml", 2, `--format "yaml"`, ""},
		{"create without a name", "key create new --profile root", 2, "profile root needs a --name", ""},
		{"create without an issuer", "key create new --profile release --name x", 2, "profile release needs an --issuer", ""},
		{"create a root below a root", "key create new --profile root --name x --issuer root", 2, "profile root signs itself", ""},
		{"create a root for another's key", "key create new --profile root --name x --public-key x", 2, "profile root signs itself", ""},
		{"create for a key and with an algorithm", release + "ca --public-key x --algorithm rsa-2048", 2, "[algorithm public-key] were all set", ""},
		{"create for less than a day", release + "ca --days 0", 2, "--days 0: must be 1 to 36500", ""},
		{"create with a long name", "key create new --profile root --name " + strings.Repeat("x", 65), 1, "needs 1 to 64 characters", ""},
		{"create with a name in colour", "key create new --name \x1b[31m", 1, "only printable ASCII", ""},
		{"create over keys", "key create root --profile root --name x", 1, `creating keys "root": exists`, "keys are never replaced"},
		{"create over a file", "key create file", 1, `creating keys "file": exists`, "keys are never replaced"},
		{"create in nothing", "key create none/new --profile root --name x", 1, "no such file or directory", ""},
		{"create where nobody writes", "key create /proc/new --profile root --name x", 1, "/proc", ""},
		{"create below nothing", release + "none", 1, `issuer: key "none": no such file`, "an --issuer is the folder of a CA"},
		{"create below a file", release + "file", 1, `issuer: key "file": no private key in PEM form`, "an --issuer is"},
		{"create below a leaf", release + "release/signing.key", 1, "is not an authority's", "an --issuer is"},
		{"create below a leaf's folder", release + "release", 1, `issuer: key "release/ca.key": no such file`, "an --issuer is"},
		{"create below a locked CA", release + "short", 1, `issuer: key "short/ca.key": the private key is encrypted, and there is no passphrase`, "$TENON_ISSUER_PASSPHRASE"},
		{"create below another's certificate", release + "ca/ca.key --issuer-cert root/ca.crt", 1, "does not belong to the key", "an --issuer is"},
		{"create a CA below the last", "key create new --profile intermediate --name x --issuer ca", 1, `its path length of 0 allows no such authority below it`, ""},
		{"create what outlives its CA", release + "ca --days 3000", 1, `validity: ends after that of issuer "CN=ca"`, ""},
		{"create for a missing key", release + "ca --public-key none", 1, "none: no such file", ""},
		{"create for a private key", release + "ca --public-key root/ca.key", 1, `public key "root/ca.key": `, ""},

		{"ls of nothing", "key ls none", 1, `listing "none": no such file`, ""},
		{"ls within a while", "key ls --within soon", 2, `--within "soon" is not a number of days such as 90d (see`, ""},
		{"ls within the past", "key ls --within -1d", 2, `--within "-1d"`, ""},
		{"ls in YAML", "key ls --format yaml", 2, `--format "yaml"`, ""},

		{"show nothing", "key show", 2, "accepts 1 arg(s)", ""},
		{"show what is missing", "key show none", 1, `reading "none": no such file`, ""},
		{"show a file", "key show file", 1, `reading "file": no certificate and no private key`, ""},
		{"show a folder", "key show nested/below", 1, `reading "nested/below": the folder has neither signing.crt nor ca.crt`, ""},
		{"show garbage", "key show garbage", 1, "no certificate and no private key", ""},
		{"show in YAML", "key show root --format yaml", 2, `--format "yaml"`, ""},

		{"rotate nothing", "key rotate", 2, "accepts 1 arg(s)", ""},
		{"rotate what is missing", "key rotate none --issuer ca", 1, `rotating the leaf of "none": no leaf: signing.crt: no such file`, "'tenon key create --profile release'"},
		{"rotate a file", "key rotate file --issuer ca", 1, `rotating the leaf of "file": signing.crt: not a directory`, ""},
		{"rotate a CA", "key rotate ca --issuer root", 1, "no leaf: signing.crt", "'tenon key create --profile release'"},
		{"rotate without the issuer", "key rotate release", 1, `issuer: key "release/ca.key": no such file`, "an --issuer is"},
		{"rotate with another issuer", "key rotate release --issuer root", 1, `the issuer "CN=root" did not issue "CN=release"`, ""},
		{"rotate among folders", "key rotate nested --issuer ca", 1, `"below" is a folder`, ""},
		{"rotate without the old key", "key rotate full --issuer ca", 1, "the old key is kept elsewhere", "--public-key"},
		{"rotate garbage", "key rotate garbage --issuer ca", 1, "signing.crt: no certificate in PEM form", ""},
		{"rotate for ever", "key rotate release --issuer ca --days 36500", 1, "validity: ends after", ""},
		{"rotate for no time", "key rotate release --issuer ca --days 0", 2, "--days 0", ""},
		{"rotate in YAML", "key rotate release --format yaml", 2, `--format "yaml"`, ""},

		{"export to nowhere", "key export root --format der", 2, `required flag(s) "output" not set`, ""},
		{"export as anything", "key export root --format p12 -o new", 2, `--format "p12" is none of`, ""},
		{"export signed without a key", "key export root --format auth -o new", 2, "--format auth is signed: it needs a --key", ""},
		{"export unsigned with a key", "key export root --format der --key x -o new", 2, "--format der is not signed: it takes no --key", ""},
		{"export with a certificate alone", "key export root --format der --cert x -o new", 2, "--cert without --key", ""},
		{"export to another variable", "key export root --format esl --variable Boot -o new", 2, `--variable "Boot" is none of db, dbx, KEK, PK`, ""},
		{"export no variable", "key export root --format der --variable db -o new", 2, "--format der is for no --variable", ""},
		{"export appending to a list", "key export root --format esl --append -o new", 2, "only auth takes --append", ""},
		{"export a CA as PK", "key export root --format esl --variable PK -o new", 1, `exporting "root": certificate "CN=root": PK holds the certificate that signs updates itself`, ""},
		{"export over a file", "key export root --format der -o file", 1, `writing "file": file already exists`, "choose another output with -o"},
		{"export over a folder", "key export root --format der -o ca", 1, `writing "ca": file already exists`, "choose another output with -o"},
		{"export into nothing", "key export root --format der -o none/new", 1, "no such file", ""},
		{"export nothing", "key export none --format der -o new", 1, `reading "none": no such file`, ""},
		{"export a file", "key export file --format der -o new", 1, "no certificate", ""},
		{"export signed by a CA", "key export release --format tbs-p7 --key root/ca.key -o new", 1, "is an authority's", ""},
		{"export signed by nothing", "key export release --format auth --key none -o new", 1, `exporting "release": key "none": no such file`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := invoke(t, strings.Fields(test.args)...)
			var errs, hints int
			for line := range strings.Lines(r.stderr) {
				switch {
				case strings.HasPrefix(line, "tenon: error: "):
					errs++
				case strings.HasPrefix(line, "tenon: hint: "):
					hints++
				default:
					t.Errorf("another line: %q", line)
				}
			}
			if r.code != test.code || r.stdout != "" || errs != 1 || hints > 1 || !strings.Contains(r.stderr, test.want) || !strings.Contains(r.stderr, test.hint) {
				t.Errorf("got %+v", r)
			}
			if tree(t) != before {
				t.Fatal("something has changed")
			}
		})
	}
}

func TestKeyPassphrases(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(passphraseVariable, "of the CA")
	if r := invoke(t, strings.Fields("key create ca --profile root --name ca --algorithm rsa-2048")...); r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	// A root may issue leaves: the path length is a limit.
	t.Setenv(issuerPassphraseVariable, "of the CA")
	t.Setenv(passphraseVariable, "of the leaf")
	create := strings.Fields("key create release --profile release --issuer ca --name release --algorithm rsa-2048")
	if r := invoke(t, create...); r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	for _, path := range []string{"ca/ca.key", "release/signing.key"} {
		if block, _ := pem.Decode(mustRead(t, path)); block.Type != "ENCRYPTED PRIVATE KEY" {
			t.Errorf("%s: %s", path, block.Type)
		}
	}
	t.Setenv(issuerPassphraseVariable, "wrong")
	create[2] = "other"
	if r := invoke(t, create...); r.code != 1 || strings.Contains(r.stderr, "wrong") || !strings.Contains(r.stderr, `issuer: key "ca/ca.key": the passphrase does not decrypt the private key`) {
		t.Errorf("%+v", r)
	}
	t.Setenv(issuerPassphraseVariable, "of the CA")
	t.Setenv(passphraseVariable, "")
	if r := invoke(t, "key", "rotate", "release", "--issuer", "ca"); r.code != 1 || !strings.Contains(r.stderr, "signing.key: the private key is encrypted, and there is no passphrase for the new one") {
		t.Errorf("%+v", r)
	}
	t.Setenv(passphraseVariable, "of the leaf")
	if r := invoke(t, "key", "rotate", "release", "--issuer", "ca"); r.code != 0 || !strings.Contains(r.stderr, "next       sign with the new key") {
		t.Errorf("%+v", r)
	}
}

func TestKeyCreateWarns(t *testing.T) {
	t.Chdir(t.TempDir())
	for args, want := range map[string][]string{
		"key create dev --algorithm rsa-2048":                                   {"these keys are for development: they are not encrypted (folder: dev)"},
		"key create root --profile root --name root --algorithm rsa-2048":       {"the key is not encrypted: no passphrase was given (folder: root)"},
		"key create ec --profile root --name root --algorithm ecdsa-p256":       {"not encrypted", "its signatures will be refused (host: stock Debian 12 kernel, reason: built without CRYPTO_ECDSA)", "host: UEFI firmware"},
		"key create ec-dev --name x --algorithm ecdsa-p384 --days 1":            {"not encrypted", "host: stock Debian 12 kernel", "host: UEFI firmware"},
		"key create json --profile root --name x --algorithm rsa-2048 --format": nil,
	} {
		line := strings.Fields(args)
		if want == nil {
			line = append(line, "json")
		}
		r := invoke(t, line...)
		if r.code != 0 || want != nil && strings.Count(r.stderr, "\n") != len(want) {
			t.Errorf("%s: %+v", args, r)
		}
		for _, text := range want {
			if !strings.Contains(r.stderr, text) {
				t.Errorf("%s: no %q in %s", args, text, r.stderr)
			}
		}
		var made inventory.Inventory
		if want == nil && (json.Unmarshal([]byte(r.stdout), &made) != nil || made.Certificates[0].Subject != "CN=x") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestKeyCreateForKeyElsewhere(t *testing.T) {
	keyFolders(t)
	if err := os.Rename("release/signing.pub", "hsm.pub"); err != nil {
		t.Fatal(err)
	}
	r := invoke(t, strings.Fields("key create hsm --profile release --issuer ca --name HSM --public-key hsm.pub")...)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	if r := invoke(t, "key", "show", "hsm"); !strings.Contains(r.stdout, "\nkey          elsewhere\n") {
		t.Errorf("%+v", r)
	}
	if r := invoke(t, "key", "rotate", "hsm", "--issuer", "ca", "--public-key", "hsm.pub"); r.code != 1 || !strings.Contains(r.stderr, "the public key is the old one") {
		t.Errorf("%+v", r)
	}
	if r := invoke(t, "key", "create", "other", "--algorithm", "rsa-2048"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := invoke(t, "key", "rotate", "hsm", "--issuer", "ca", "--public-key", "other/signing.pub"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKeyLs(t *testing.T) {
	keyFolders(t)
	r := invoke(t, "key", "ls")
	lines := strings.Split(r.stdout, "\n")
	if r.code != 0 || r.stderr != "" || len(lines) != 5 || strings.Join(strings.Fields(lines[0]), " ") != "EXPIRES DAYS PROFILE ALGORITHM KEY SUBJECT FILE" {
		t.Fatalf("%+v", r)
	}
	for i, want := range []string{"89 release rsa-2048 plain CN=release release/signing.crt", "1824 intermediate rsa-2048 plain CN=ca ca/ca.crt", "3649 root rsa-2048 plain CN=root root/ca.crt"} {
		if got := strings.Join(strings.Fields(lines[i+1])[1:], " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var found inventory.Inventory
	r = invoke(t, "key", "ls", "--within", "90d", "--format", "json", "release", "root")
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || r.code != 0 || len(found.Certificates) != 1 || found.Certificates[0].Subject != "CN=release" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Chmod("root/ca.key", 0o644); err != nil {
		t.Fatal(err)
	}
	if r := invoke(t, "key", "ls", "root"); r.code != 0 || !strings.Contains(r.stderr, "warning: private key: its file is open to others (mode 0644) (file: root/ca.crt)") {
		t.Errorf("%+v", r)
	}
}

func TestKeyShow(t *testing.T) {
	keyFolders(t)
	r := invoke(t, "key", "show", "release")
	for _, want := range []string{"subject      CN=release\n", "profile      release\n", "(89 days left)", "rsa-2048, certified with SHA256-RSA\n", "blacklist    tbs:", "key          release/signing.key (plain)\n", "taken by     stock Debian 12 kernel: yes\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	var shown struct {
		Certificate *inventory.Certificate
		Issuers     []inventory.Certificate
		Key         *inventory.Key
		Hosts       []signer.Host
	}
	r = invoke(t, "key", "show", "release", "--format", "json")
	if err := json.Unmarshal([]byte(r.stdout), &shown); err != nil || shown.Certificate.Subject != "CN=release" || len(shown.Issuers) != 2 || shown.Key == nil || len(shown.Hosts) != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Rename("ca/ca.key", "lone.key"); err != nil {
		t.Fatal(err)
	}
	if r := invoke(t, "key", "show", "lone.key"); r.code != 0 || !strings.HasPrefix(r.stdout, "key          lone.key (plain, without a certificate)\nalgorithm    rsa-2048\n") {
		t.Errorf("%+v", r)
	}
}

func TestKeyExport(t *testing.T) {
	keyFolders(t)
	chain, err := signer.ParseCertificates(mustRead(t, "release/signing.crt"))
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := signer.TBS(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	export := func(args string) []byte {
		t.Helper()
		file := filepath.Join(t.TempDir(), "out")
		r := invoke(t, append(strings.Fields("key export "+args+" -o"), file)...)
		if r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, "exported   CN=") {
			t.Fatalf("%s: %+v", args, r)
		}
		if r.stdout = invoke(t, append(strings.Fields("key export "+args+" -o"), "-")...).stdout; r.stdout != string(mustRead(t, file)) && !strings.Contains(args, "auth") {
			t.Errorf("%s: stdout gets something else", args)
		}
		return mustRead(t, file)
	}
	if c, err := x509.ParseCertificate(export("root --format der")); err != nil || c.Subject.CommonName != "root" {
		t.Errorf("%v, %v", c, err)
	}
	if got, err := signer.ParseCertificates(export("release --format pem")); err != nil || len(got) != 1 || !got[0].Equal(chain[0]) {
		t.Errorf("%v, %v", got, err)
	}
	if got := export("release --format tbs"); string(got) != tbs+"\n" {
		t.Errorf("got %q", got)
	}
	p7 := export("release --format tbs-p7 --key release/signing.key")
	if who, err := pkcs7.VerifyDetached(p7, []byte(tbs)); err != nil || !who.Chain[0].Equal(chain[0]) {
		t.Error(err)
	}
	db, dbx := export("root --format esl"), export("release --format esl --variable dbx")
	if len(db) != 28+16+len(mustRootDER(t)) || len(dbx) != 28+16+len(chain[0].Raw)+28+16+48 {
		t.Errorf("lists of %d and %d bytes", len(db), len(dbx))
	}
	auth := export("root --format auth --variable KEK --append --key release/signing.key")
	if !strings.HasSuffix(string(auth), string(db)) || len(auth) < len(db)+256 {
		t.Errorf("got %d bytes", len(auth))
	}
	r := invoke(t, "key", "export", "release", "--format", "der", "-o", "leaf.der")
	if !strings.Contains(r.stderr, "warning: a leaf: who trusts it has to be told of the next one") {
		t.Errorf("%+v", r)
	}
}

func mustRootDER(t *testing.T) []byte {
	t.Helper()
	block, _ := pem.Decode(mustRead(t, "root/ca.crt"))
	return block.Bytes
}
