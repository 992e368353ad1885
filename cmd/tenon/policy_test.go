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
		{cli.ExitFailed, `bundle: "sha256:12" is not a sha256 digest`, []string{"sha256:12", "--reason", "x"}},
		{cli.ExitFailed, "reason: needs 1 to 200 printable bytes", []string{"release/signing.crt", "--reason", "a\nb"}},
		{cli.ExitFailed, "none: no such file", []string{"none", "--reason", "x"}},
		{cli.ExitFailed, "hint: give the public key", []string{"release/signing.key", "--reason", "x"}},
		{cli.ExitFailed, "is on the list already", []string{"release/signing.crt", "release/signing.crt", "--reason", "x"}},
	} {
		if r := s.revoke(t, test.code, test.args...); !strings.Contains(r.stderr, test.want) || r.stdout != "" {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
	// Somebody else's list is not ours to go on with.
	if r := s.done(t, cli.ExitFailed, "key", "revoke", "--list", "revoked", "--key", "release/signing.key"); !strings.Contains(r.stderr, "revoked: certificate \"CN=security signing\" is signed by an unknown authority") {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(mustRead(t, s.dir+"/revoked"), bytesBefore) {
		t.Error("a failure changed the list")
	}
	if r := s.revoke(t, 0); !strings.Contains(r.stderr, "number 2 with 0 entries") || r.stdout != "" {
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
