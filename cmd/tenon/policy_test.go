// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// site is a folder with a bundle, version 1.4.0 of "web", which "release" signed,
// the keys of "release" and "security", and a policy that accepts the bundle.
type site struct{ dir, bundle, digest string }

const sitePolicy = `version = 1

[[identity]]
name = "release CI"
certificates = "release/ca.crt"
bundles = ["web"]

[[identity]]
name = "security team"
certificates = "security/ca.crt"

[[bundle]]
names = ["*"]
minimum_version = "1.4.0"

[revocation]
list = "revoked"
signer = "security team"
max_age = "720h"
`

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	s.bundle, s.digest = writeBundleOf(t, string(testpe.Image(nil)), `{"version":2}`, func(m *manifest.Manifest) { m.BundleVersion = "1.4.0" })
	for _, name := range []string{"release", "security"} {
		s.done(t, 0, "key", "create", filepath.Join(s.dir, name), "--name", name)
	}
	s.done(t, 0, "sign", s.bundle, "--key", filepath.Join(s.dir, "release/signing.key"))
	s.write(t, "policy.toml", sitePolicy)
	s.revoke(t, 0)
	return s
}

func (s *site) write(t *testing.T, name, data string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *site) done(t *testing.T, code int, args ...string) reply {
	t.Helper()
	r := invoke(t, args...)
	if r.code != code {
		t.Fatalf("%q: %+v", args, r)
	}
	return r
}

// revoke signs the list as the security team; paths are in the site's folder.
func (s *site) revoke(t *testing.T, code int, args ...string) reply {
	t.Helper()
	t.Chdir(s.dir)
	return s.done(t, code, slices.Concat([]string{"key", "revoke", "--list", "revoked", "--key", "security/signing.key"}, args)...)
}

func (s *site) verify(t *testing.T, code int, want string, more ...string) {
	t.Helper()
	r := s.done(t, code, slices.Concat([]string{"verify", s.bundle, "--policy", filepath.Join(s.dir, "policy.toml")}, more)...)
	if code == 0 && strings.TrimSpace(r.stdout) != s.digest || !strings.Contains(r.stderr, want) {
		t.Errorf("%+v, want %q", r, want)
	}
}

func TestVerifyByPolicy(t *testing.T) {
	s := newSite(t)
	s.verify(t, 0, "older versions and lists than were seen are not noticed")

	if r := s.done(t, 0, "inspect", s.bundle); !strings.Contains(r.stdout, "version       1.4.0") {
		t.Errorf("%+v", r)
	}

	state := t.TempDir()
	s.verify(t, 0, "is not older than what was seen", "--state", state)
	if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
		t.Errorf("verify left %v behind, %v", left, err)
	}
	for content, want := range map[string]string{
		`{"version":1,"bundles":{"web":"1.4.1"}}`:                               `version "1.4.0" is older than what this host has seen: "1.4.1"`,
		`{"version":1,"bundles":{},"revocationList":{"number":9,"digest":"x"}}`: "revocation list: number 1 is older than what this host has seen: 9",
	} {
		if err := os.WriteFile(state+"/trust.json", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		s.verify(t, cli.ExitRefused, want, "--state", state)
		s.verify(t, cli.ExitRefused, "hint: what was seen is in trust.json", "--state", state)
	}
	s.verify(t, cli.ExitFailed, "not a directory", "--state", filepath.Join(s.dir, "policy.toml"))
	s.verify(t, cli.ExitFailed, "no such file", "--state", s.dir+"/none")

	list := mustRead(t, s.dir+"/revoked")
	for name, data := range map[string][]byte{"tampered": bytes.Replace(list, []byte(`"number": 1`), []byte(`"number": 2`), 1), "empty": nil, "cut": list[:len(list)-1]} {
		s.write(t, "revoked", string(data))
		t.Log(name)
		s.verify(t, cli.ExitRefused, "refused: invalid revocation list: ")
		s.verify(t, cli.ExitRefused, "hint: whoever signs the list issues it anew")
	}
	if err := os.Remove(s.dir + "/revoked"); err != nil {
		t.Fatal(err)
	}
	s.verify(t, cli.ExitFailed, `policy.toml: invalid policy: revocation: "revoked": open `)
	s.write(t, "revoked", string(list))

	for change, want := range map[[2]string]string{
		{`"1.4.0"`, `"1.4.1"`}:                                              `version "1.4.0" is too old: the policy wants at least "1.4.1"`,
		{`names = ["*"]`, "names = [\"*\"]\nthreshold = 2"}:                 "the policy wants 2 identities",
		{`bundles = ["web"]`, "bundles = [\"web\"]\nclaims = { cpus = 1 }"}: "it claims up to 2 CPUs, at most 1 are allowed",
		{`"security team"` + "\nmax", `"release CI"` + "\nmax"}:             `identity 2 ("security team"): bundles: empty`,
		{`minimum_version`, "minimal_version"}:                              `unknown key "bundle.minimal_version"`,
	} {
		s.write(t, "policy.toml", strings.Replace(sitePolicy, change[0], change[1], 1))
		code := cli.ExitRefused
		if strings.Contains(want, "unknown key") || strings.Contains(want, "empty") {
			code = cli.ExitFailed // a policy that is broken refuses nothing: nobody was asked
		}
		s.verify(t, code, want)
	}
}

func TestKeyRevoke(t *testing.T) {
	s := newSite(t)
	bytesBefore := mustRead(t, s.dir+"/revoked")
	for _, test := range []struct {
		code int
		want string
		args []string
	}{
		{cli.ExitUsage, "--reason says why", []string{"release/signing.crt"}},
		{cli.ExitUsage, "--reason says why", []string{"--reason", "x"}},
		{cli.ExitUsage, "--days 0: must be 1 to", []string{"--days", "0"}},
		{cli.ExitUsage, `"sha256:12" is not a sha256 digest` + "\n", []string{"sha256:12", "--reason", "x"}},
		{cli.ExitFailed, "reason: needs 1 to 200 printable bytes", []string{"release/signing.crt", "--reason", "a\nb"}},
		{cli.ExitFailed, "none: no such file", []string{"none", "--reason", "x"}},
		{cli.ExitFailed, "hint: give the public key", []string{"release/signing.key", "--reason", "x"}},
		{cli.ExitFailed, "is on the list already\n", []string{"release/signing.crt", "release/signing.crt", "--reason", "x"}},
		{cli.ExitFailed, "the list cannot be issued: key sha256:", []string{"security/signing.pub", "--reason", "x"}},
		{cli.ExitFailed, "the list cannot be issued: \"CN=security CA\": certificate sha256:", []string{"security/ca.crt", "--reason", "x"}},
	} {
		if r := s.revoke(t, test.code, test.args...); !strings.Contains(r.stderr, test.want) || r.stdout != "" || strings.Contains(r.stderr, "issues it anew") {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
	// Somebody else's list is not ours to go on with.
	if r := s.done(t, cli.ExitFailed, "key", "revoke", "--list", "revoked", "--key", "release/signing.key"); !strings.Contains(r.stderr, "revoked: signed by CN=security signing (sha256:") {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(mustRead(t, s.dir+"/revoked"), bytesBefore) {
		t.Error("a failure changed the list")
	}
	if r := s.revoke(t, 0); !strings.Contains(r.stderr, "before     number 1 with 0 entries, signed by CN=security signing (sha256:") || !strings.Contains(r.stderr, "number 2 with 0 entries") || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	zeros := "sha256:" + strings.Repeat("0", 64)
	if r := s.revoke(t, 0, zeros, "--reason", "test"); !strings.Contains(r.stderr, "number 3 with 1 entries") || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	s.verify(t, 0, "number 3 with 1 entries")
	r := s.revoke(t, 0, "release/signing.crt", "--reason", "laptop stolen")
	if !strings.HasPrefix(r.stdout, "tbs:") || len(r.stdout) != len("tbs:")+64+1 || !strings.Contains(r.stderr, "revoked    certificate sha256:"+r.stdout[4:]) {
		t.Errorf("%+v", r)
	}
	s.verify(t, cli.ExitRefused, `"CN=release signing": certificate sha256:`)
	s.verify(t, cli.ExitRefused, "laptop stolen")
	s.revoke(t, 0, "release/signing.pub", s.digest, "--reason", "and all of it")
	s.verify(t, cli.ExitRefused, fmt.Sprintf("bundle %s was revoked on", s.digest))

	list, _, err := revocation.Parse(mustRead(t, s.dir+"/revoked"))
	if err != nil || list.Number != 5 || len(list.Entries) != 4 {
		t.Errorf("%+v, %v", list, err)
	}
	if left, err := filepath.Glob(s.dir + "/.*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The list before is of the same key, or of one that a rotation replaced: others of
// the CA, and of CAs below it, decide nothing.
func TestListBefore(t *testing.T) {
	keyFolders(t)
	run := func(code int, line string) reply {
		t.Helper()
		r := invoke(t, strings.Fields(line)...)
		if r.code != code {
			t.Fatalf("%s: %+v", line, r)
		}
		return r
	}
	subject := func(dir string) string { return " --algorithm rsa-2048 --profile release --issuer " + dir }
	run(0, "key create security --name security"+subject("ca"))
	run(0, "key create other --name other"+subject("root"))
	run(0, "key create below --name below --algorithm rsa-2048 --profile intermediate --issuer root")
	run(0, "key create same --name security"+subject("below"))
	for _, forger := range []string{"release", "other", "same"} {
		run(0, "key revoke --list "+forger+".list --key "+forger+"/signing.key")
		forged := mustRead(t, forger+".list")
		if r := run(cli.ExitFailed, "key revoke --list "+forger+".list --key security/signing.key"); !strings.Contains(r.stderr, "and not by this key or one with the same subject of the same issuer") {
			t.Errorf("%s: %+v", forger, r)
		}
		if !bytes.Equal(mustRead(t, forger+".list"), forged) {
			t.Errorf("%s: replaced", forger)
		}
	}
	run(0, "key revoke --list list --key security/signing.key")
	run(0, "key rotate security --issuer ca")
	if r := run(0, "key revoke --list list --key security/signing.key"); !strings.Contains(r.stderr, "before     number 1 with 0 entries, signed by CN=security") {
		t.Errorf("%+v", r)
	}
}

// Of several who revoke at once none is lost, and a link stays one.
func TestKeyRevokeTogether(t *testing.T) {
	s := newSite(t)
	t.Chdir(s.dir)
	if err := os.Symlink("revoked", "link"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	const n = 8
	for i := range n {
		all.Go(func() {
			digest := fmt.Sprintf("sha256:%064x", i)
			if r := invoke(t, "key", "revoke", "--list", "link", "--key", "security/signing.key", "--reason", "x", digest); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	all.Wait()
	list, _, err := revocation.Parse(mustRead(t, "revoked"))
	if err != nil || list.Number != 1+n || len(list.Entries) != n {
		t.Errorf("%+v, %v", list, err)
	}
	if to, err := os.Readlink("link"); err != nil || to != "revoked" {
		t.Errorf("%q, %v", to, err)
	}
	if err := os.Symlink("nowhere", "dangling"); err != nil {
		t.Fatal(err)
	}
	if r := s.done(t, cli.ExitFailed, "key", "revoke", "--list", "dangling", "--key", "security/signing.key"); !strings.Contains(r.stderr, "dangling: a link that leads nowhere") {
		t.Errorf("%+v", r)
	}
}

func TestVerdictNamesWarnings(t *testing.T) {
	s := newSite(t)
	r := s.done(t, 0, "verify", s.bundle, "--policy", s.dir+"/policy.toml", "--format", "json")
	var v cli.Verdict
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || !v.Accepted || v.Identity != "release CI" {
		t.Fatalf("%+v, %v", r, err)
	}
	if i := slices.IndexFunc(v.Checks, func(c loader.Check) bool { return c.Result == "warning" }); i < 0 || v.Checks[i].Object != "state" {
		t.Errorf("%+v", v.Checks)
	}
}
