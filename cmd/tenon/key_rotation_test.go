// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// The rotation of docs/keys.md, and the table there of what hosts do meanwhile.
func TestKeyRotation(t *testing.T) {
	doc := string(mustRead(t, "../../docs/keys.md"))
	keyFolders(t)
	bundle := func(name string) string {
		path, _ := writeBundleOf(t, string(testpe.Image([]byte("kernel"))), `{"version":2}`)
		if err := os.Rename(path, name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	run := func(line string) {
		t.Helper()
		if r := invoke(t, strings.Fields(line)...); r.code != 0 {
			t.Fatalf("%s: %+v", line, r)
		}
	}
	run("key export root --format pem -o root.pem")
	run("sign " + bundle("old") + " --key release/signing.key")
	run("sign " + bundle("both") + " --key release/signing.key")
	run("key export release --format pem -o old.pem")
	run("key rotate release --issuer ca") // step 1
	run("key export release --format pem -o new.pem")
	run("sign " + bundle("new") + " --key release/signing.key") // step 2
	run("sign both --key release/signing.key")
	kept, err := filepath.Glob("release/signing-*.key")
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	run("sign " + bundle("late") + " --key " + kept[0]) // the old key is as good as before

	for _, host := range []struct{ names, trust string }{
		{"the CA", "--cert root.pem"}, {"the old leaf", "--cert old.pem"}, {"the new leaf", "--cert new.pem"}, {"the new leaf", "--key release/signing.pub"},
	} {
		row := "| " + host.names + " |"
		for _, name := range []string{"old", "new", "both"} {
			r := invoke(t, strings.Fields("verify "+name+" "+host.trust)...)
			row += map[int]string{0: " accepted |", 3: " refused |"}[r.code]
		}
		if !strings.Contains(doc, row+"\n") {
			t.Errorf("verify %s: docs/keys.md has no row %s", host.trust, row)
		}
	}
	run("verify late --cert root.pem")

	// Step 4, for hosts whose policy has the list, and for those whose has not yet.
	run("key create security --name security")
	run("key revoke " + strings.TrimSuffix(kept[0], ".key") + ".crt --list revoked --key security/signing.key --reason rotated")
	identities := func(lines ...string) string {
		return "version = 1\n[[identity]]\nname = 'release'\nbundles = ['*']\n" + strings.Join(lines, "\n") + "\n"
	}
	const list = "[[identity]]\nname = 'security team'\ncertificates = 'security/ca.crt'\n" +
		"[revocation]\nlist = 'revoked'\nsigner = 'security team'\nmax_age = '720h'"
	for _, host := range []struct{ names, policy string }{
		{"the CA", identities("certificates = 'root.pem'")},
		{"the CA, and the list", identities("certificates = 'root.pem'", list)},
		{"the old leaf, and the list", identities("certificates = 'old.pem'", list)},
		{"the new leaf, and the list", identities("certificates = 'new.pem'", list)},
	} {
		if err := os.WriteFile("policy.toml", []byte(host.policy), 0o600); err != nil {
			t.Fatal(err)
		}
		row := "| " + host.names + " |"
		for _, name := range []string{"old", "new", "both"} {
			r := invoke(t, "verify", name, "--policy", "policy.toml")
			row += map[int]string{0: " accepted |", 3: " refused |"}[r.code]
		}
		if !strings.Contains(doc, row+"\n") {
			t.Errorf("docs/keys.md has no row %s", row)
		}
		late := invoke(t, "verify", "late", "--policy", "policy.toml")
		if listed := strings.Contains(host.names, "list"); (late.code == cli.ExitRefused) != listed || listed && host.names == "the CA, and the list" && !strings.Contains(late.stderr, "revoked") {
			t.Errorf("%s: signed late with the old key: %+v", host.names, late)
		}
	}
}
